//! A cluster of several hosts, as docs/deploy.md sets one up: three etcd members, two monitors, six OSDs on three
//! hosts with addresses of their own, and an NBD server where the clients are.
//!
//! Owns the processes and what is done to them. Does not own what is measured meanwhile ([`failover`]).

pub mod arguments;
pub mod failover;
pub mod flapping;

use crate::cluster::{binary, is_alive, signal};
use crate::command;
use crate::hosts::{Cut, Hosts};
use crate::scratch::Scratch;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Hosts.
pub const HOSTS: u32 = 3;
/// OSDs on each.
const OSDS_PER_HOST: u32 = 2;
/// Monitors: on the first hosts.
const MONITORS: u32 = 2;
/// For anything to come up or to come to rest, on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);
/// The image that everything works on.
const IMAGE: &str = "vms/db1";

/// A running deployment. Dropping it ends everything.
pub struct Deployment {
    hosts: Hosts,
    scratch: Scratch,
    processes: BTreeMap<String, Process>,
}

/// Something that runs on a host.
struct Process {
    host: u32,
    arguments: Vec<String>,
    program: String,
    child: Option<Child>,
}

impl Deployment {
    /// Sets one up and waits until an image is served.
    pub fn start() -> Result<Deployment> {
        let (hosts, scratch) = (Hosts::new(&(1..=HOSTS).map(named).collect::<Vec<_>>())?, Scratch::new("deployment")?);
        let mut deployment = Deployment { hosts, scratch, processes: BTreeMap::new() };
        deployment.start_etcd()?;
        // It waits for etcd, whose members have no leader yet.
        deployment.admin(&["init"])?;
        // The same OSDs fail here over and over, and each time their end is what is measured.
        deployment.admin(&["config", "set", "osd_flap_limit=0"])?;
        deployment.start_daemons()?;
        let osds = u64::from(HOSTS * OSDS_PER_HOST);
        deployment.until("all OSDs to be up", |d| d.osds_up().is_ok_and(|up| up == osds))?;
        deployment.admin(&["pool", "create", "vms", "--scheme", "replicated:3", "--pg-count", "32"])?;
        deployment.admin(&["image", "create", IMAGE, "--size", "256M"])?;
        deployment.start_nbd()?;
        deployment.wait_clean()?;
        Ok(deployment)
    }

    fn start_etcd(&mut self) -> Result<()> {
        let peer = |d: &Deployment, host| format!("http://{}:2380", d.address(host));
        let all: Vec<_> = (1..=HOSTS).map(|host| format!("e{host}={}", peer(self, host))).collect();
        for host in 1..=HOSTS {
            let (client, peer) = (format!("http://{}:2379", self.address(host)), peer(self, host));
            let data = self.scratch.join(&format!("etcd-{host}")).display().to_string();
            let arguments = format!(
                "--name e{host} --heartbeat-interval 50 --election-timeout 500 --pre-vote --data-dir {data} --listen-client-urls {client} --advertise-client-urls {client} \
                 --listen-peer-urls {peer} --initial-advertise-peer-urls {peer} --initial-cluster {}",
                all.join(",")
            );
            self.spawn(&format!("etcd-{host}"), host, "etcd", &arguments)?;
        }
        Ok(())
    }

    fn start_daemons(&mut self) -> Result<()> {
        let (program, meta) = (binary()?.display().to_string(), self.meta());
        for host in 1..=MONITORS {
            let listen = format!("{}:7800", self.address(host));
            self.spawn(&format!("mon-{host}"), host, &program, &format!("mon --meta {meta} --listen {listen}"))?;
        }
        for id in 1..=HOSTS * OSDS_PER_HOST {
            let host = (id - 1) / OSDS_PER_HOST + 1;
            let (data, address) = (self.scratch.join(&format!("osd-{id}.img")), self.address(host));
            let arguments = format!(
                "osd run --id {id} --meta {meta} --data {} --size 1G --listen {address}:0 --host node{host}",
                data.display()
            );
            self.spawn(&format!("osd-{id}"), host, &program, &arguments)?;
        }
        Ok(())
    }

    fn start_nbd(&mut self) -> Result<()> {
        let program = binary()?.display().to_string();
        let seeds: Vec<_> = (1..=MONITORS).map(|host| format!("{}:7800", self.address(host))).collect();
        let socket = self.socket().display().to_string();
        let arguments = format!("nbd --seeds {} --listen none --unix {socket}", seeds.join(","));
        self.spawn("nbd", 0, &program, &arguments)?;
        self.until("the NBD server", |d| d.socket().exists())
    }

    /// Addresses of the metadata store.
    pub fn meta(&self) -> String {
        let address = |host| format!("http://{}:2379", self.address(host));
        (1..=HOSTS).map(address).collect::<Vec<_>>().join(",")
    }

    /// Where images are served.
    pub fn socket(&self) -> PathBuf {
        self.scratch.join("nbd.sock")
    }

    /// The image, for NBD clients.
    pub fn uri(&self) -> String {
        format!("nbd+unix:///{IMAGE}?socket={}", self.socket().display())
    }

    fn address(&self, host: u32) -> &str {
        self.hosts.address(&named(host)).expect("one of ours")
    }

    /// Drops a host's traffic until [`Deployment::heal`].
    pub fn cut(&self, host: u32, cut: Cut) -> Result<()> {
        self.hosts.cut(&named(host), cut)
    }

    /// All hosts reach each other again.
    pub fn heal(&self) -> Result<()> {
        self.hosts.heal()
    }

    fn spawn(&mut self, name: &str, host: u32, program: &str, arguments: &str) -> Result<()> {
        let arguments = arguments.split_whitespace().map(Into::into).collect();
        let process = Process { host, arguments, program: program.into(), child: None };
        self.processes.insert(name.into(), process);
        self.revive(name)
    }

    /// Starts a process that does not run.
    pub fn revive(&mut self, name: &str) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.scratch.join(&format!("{name}.log")))?;
        let process = self.processes.get_mut(name).with_context(|| format!("there is no {name}"))?;
        let mut command = match process.host {
            0 => Command::new(&process.program),
            host => self.hosts.command(&named(host), Path::new(&process.program)),
        };
        command.args(&process.arguments).env("ASHLAR_LOG", "info").process_group(0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        process.child = Some(command.spawn().with_context(|| format!("cannot start {name}"))?);
        Ok(())
    }

    fn pid(&self, name: &str) -> Result<i32> {
        let child = self.processes.get(name).and_then(|process| process.child.as_ref());
        Ok(i32::try_from(child.with_context(|| format!("{name} does not run"))?.id())?)
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str, what: Signal) -> Result<()> {
        signal(self.pid(name)?, what);
        Ok(())
    }

    /// Waits for a process that was told to end.
    pub fn wait(&mut self, name: &str) -> Result<()> {
        let process = self.processes.get_mut(name).with_context(|| format!("there is no {name}"))?;
        let Some(mut child) = process.child.take() else { return Ok(()) };
        let deadline = Instant::now() + LIMIT;
        while child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "{name} does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// kill -9, and the end of the process.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        self.signal(name, Signal::SIGKILL)?;
        self.wait(name)
    }

    /// What runs on a host.
    pub fn on_host(&self, host: u32) -> Vec<String> {
        let here = self.processes.iter().filter(|(_, process)| process.host == host && process.child.is_some());
        here.map(|(name, _)| name.clone()).collect()
    }

    /// Starts whatever should run and does not.
    pub fn revive_all(&mut self) -> Result<()> {
        let gone: Vec<_> = self.processes.iter().filter(|(_, process)| process.child.is_none()).collect();
        let names: Vec<_> = gone.into_iter().map(|(name, _)| name.clone()).collect();
        names.iter().try_for_each(|name| self.revive(name))
    }

    /// Runs an administration command and parses its JSON.
    pub fn admin(&self, arguments: &[&str]) -> Result<Value> {
        let (program, meta) = (binary()?.display().to_string(), self.meta());
        let arguments: Vec<_> = arguments.iter().copied().chain(["--json", "--meta", &meta]).collect();
        Ok(serde_json::from_str(&command::run(&program, &arguments, LIMIT)?)?)
    }

    /// Runs an administration command and gives what a person reads.
    pub fn told(&self, arguments: &[&str]) -> Result<String> {
        let (program, meta) = (binary()?.display().to_string(), self.meta());
        let arguments: Vec<_> = arguments.iter().copied().chain(["--meta", &meta]).collect();
        command::run(&program, &arguments, LIMIT)
    }

    fn osds_up(&self) -> Result<u64> {
        let list = self.admin(&["osd", "list"])?;
        Ok(list.as_array().into_iter().flatten().filter(|osd| osd["up"] == true).count() as u64)
    }

    /// Waits until everything runs and every group is active and clean, with primaries where they should be.
    pub fn wait_clean(&self) -> Result<()> {
        let osds = u64::from(HOSTS * OSDS_PER_HOST);
        self.until("all to be up and clean", |d| {
            let unclean = d.admin(&["pg", "list", "--unclean"]);
            unclean.is_ok_and(|list| list.as_array().is_some_and(Vec::is_empty))
                && d.osds_up().is_ok_and(|up| up == osds)
        })
    }

    /// The monitor that leads.
    pub fn leading_monitor(&self) -> Result<String> {
        let status = self.admin(&["status", "--quick"])?;
        let address = status["monitor"].as_str().context("a monitor leads")?.to_string();
        let at = |host: &u32| address.starts_with(&format!("{}:", self.address(*host)));
        let host = (1..=MONITORS).find(at).with_context(|| format!("{address} is none of the monitors"))?;
        Ok(format!("mon-{host}"))
    }

    /// The member of etcd that leads.
    pub fn leading_etcd(&self) -> Result<String> {
        for host in 1..=HOSTS {
            let endpoint = format!("--endpoints=http://{}:2379", self.address(host));
            let arguments = [&endpoint, "endpoint", "status", "--write-out=json"];
            let Ok(text) = command::run("etcdctl", &arguments, LIMIT) else { continue };
            let status: Value = serde_json::from_str(&text)?;
            let status = &status[0]["Status"];
            if status["leader"] == status["header"]["member_id"] {
                return Ok(format!("etcd-{host}"));
            }
        }
        bail!("no member of etcd leads")
    }

    /// Waits for something that is to come about by itself.
    pub fn until(&self, what: &str, mut done: impl FnMut(&Deployment) -> bool) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !done(self) {
            if Instant::now() > deadline {
                bail!("waiting for {what} took too long\n{}", self.logs());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// The last lines of every log of ours.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for name in self.processes.keys().filter(|name| !name.starts_with("etcd")) {
            let log = std::fs::read(self.scratch.join(&format!("{name}.log"))).unwrap_or_default();
            let log = String::from_utf8_lossy(&log).into_owned();
            let lines: Vec<_> = log.lines().collect();
            let last: String = lines[lines.len().saturating_sub(8)..].iter().map(|l| format!("    {l}\n")).collect();
            text += &format!("  {name}:\n{last}");
        }
        text
    }
}

fn named(host: u32) -> String {
    format!("host-{host}")
}

impl Drop for Deployment {
    fn drop(&mut self) {
        for process in self.processes.values_mut() {
            let Some(child) = &mut process.child else { continue };
            if i32::try_from(child.id()).is_ok_and(is_alive) {
                let _ = child.kill();
            }
            let _ = child.wait();
        }
    }
}
