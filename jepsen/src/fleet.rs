//! A cluster of daemons that are started one by one, so that each can be broken by itself: where it lives, what it reaches,
//! what its disk is, which binary it is.
//!
//! ```text
//!  mon (metadata, maps) <--- osd-1 .. osd-N <--- nbd-1 .. nbd-S <--- workers, by unix sockets
//!            ^------- relays between any two of them, or a network of hosts -------^
//! ```
//! Owns: processes, their order at the start, their logs. Does not own: whom a fault hits ([`crate::nemesis`]), devices,
//! relays. Invariant: no process outlives this, however a run ends.

use crate::cluster::{binary, free_port, is_alive, tail};
use crate::command;
use crate::hosts::{Homes, Local, Start};
use crate::relay::Relays;
use crate::scratch::Scratch;
use crate::writers::Promise;
use anyhow::{Context, Result, bail, ensure};
use ashlar_faultinject::layer::Faults;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// For steps of the start, and for administration.
const LIMIT: Duration = Duration::from_secs(60);
/// How often something is looked at.
const POLL: Duration = Duration::from_millis(50);
/// Groups of the pool: enough for every OSD to be primary of some, few enough to peer quickly.
const GROUPS: &str = "16";

/// How daemons reach each other.
#[derive(Clone, Default)]
pub enum Network {
    /// By this machine's loopback.
    #[default]
    Loopback,
    /// The same, through relays.
    Relayed(Arc<Relays>),
    /// They live on hosts.
    Hosts(Arc<dyn Homes>),
}

/// Where an OSD's devices are that are no files of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The one for data.
    pub data: PathBuf,
    /// The one for its log, if that has one of its own.
    pub log: Option<PathBuf>,
}

/// Bytes of a log with a device of its own.
const LOG_BYTES: u64 = 256 << 20;

/// What to start.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Redundancy of the pool.
    pub pool: String,
    /// What it promises before a flush.
    pub immediate_commit: &'static str,
    /// Number of OSDs.
    pub osds: u32,
    /// Number of NBD servers: clients of the cluster.
    pub servers: u32,
    /// Images and their sizes in MiB.
    pub images: Vec<(&'static str, u64)>,
    /// Bytes of an OSD's file, where it has no device of its own.
    pub osd_bytes: u64,
    /// Another binary than the usual one.
    pub binary: Option<PathBuf>,
    /// Variables of the environment of all daemons.
    pub environment: Vec<(String, String)>,
    /// Whether the binary's disks and clocks can be told to misbehave.
    pub misbehaves: bool,
}

impl Shape {
    /// A cluster for a pool: as many OSDs as it has members, and one more.
    pub fn of(pool: &str, immediate_commit: &'static str) -> Shape {
        Shape {
            pool: pool.into(),
            immediate_commit,
            osds: members(pool) + 1,
            servers: 2,
            images: Vec::new(),
            osd_bytes: 1 << 30,
            binary: None,
            environment: Vec::new(),
            misbehaves: false,
        }
    }

    /// What it promises before a flush.
    pub fn promise(&self) -> Promise {
        Promise::of(&self.pool, self.immediate_commit)
    }

    /// Bytes of the logs' own devices, if there are any: where only small writes are durable at once, they are so in a log
    /// that is flushed, beside data that are not.
    pub fn log_bytes(&self) -> Option<u64> {
        (self.immediate_commit == "small").then_some(LOG_BYTES)
    }

    /// The daemons that it starts.
    pub fn names(&self) -> Vec<String> {
        let osds = (1..=self.osds).map(|osd| format!("osd-{osd}"));
        let servers = (1..=self.servers).map(|server| format!("nbd-{server}"));
        std::iter::once("mon".to_string()).chain(osds).chain(servers).collect()
    }

    /// Blocks of 4 KiB that an object of the pool has.
    pub fn object_blocks(&self) -> u32 {
        let data = self.pool.split_once(':').and_then(|(_, chunks)| chunks.split_once('+')).map(|(data, _)| data);
        32 * data.and_then(|data| data.parse::<u32>().ok()).unwrap_or(1)
    }
}

/// OSDs that a group of the pool has.
pub fn members(pool: &str) -> u32 {
    let counts = pool.split_once(':').map_or("3", |(_, counts)| counts);
    counts.split('+').filter_map(|count| count.parse::<u32>().ok()).sum()
}

struct Daemon {
    arguments: Vec<String>,
    process: Option<Child>,
    stopped: bool,
    faults: Faults,
}

/// The cluster. See the module.
pub struct Fleet {
    shape: Shape,
    binary: PathBuf,
    /// The same, where daemons live.
    program: PathBuf,
    folder: PathBuf,
    meta: String,
    daemons: Mutex<BTreeMap<String, Daemon>>,
    network: Network,
}

impl Fleet {
    /// Starts everything; `devices` are the paths of OSDs that do not live in a file of their own.
    pub fn start(scratch: &Scratch, shape: Shape, devices: &BTreeMap<u32, Place>, network: Network) -> Result<Fleet> {
        let (binary, folder) = (shape.binary.clone().map_or_else(binary, Ok)?, scratch.join("fleet"));
        std::fs::create_dir_all(&folder)?;
        let program = network.homes().prepare(&folder, &binary)?;
        let (meta, maps) = (free_port()?, free_port()?);
        let mut fleet =
            Fleet { shape, binary, program, folder, meta: String::new(), daemons: Mutex::default(), network };
        fleet.meta = format!("http://{}", fleet.address("mon", meta)?);
        fleet.launch_all(meta, maps, devices).with_context(|| fleet.logs())?;
        Ok(fleet)
    }

    fn launch_all(&mut self, meta: u16, maps: u16, devices: &BTreeMap<u32, Place>) -> Result<()> {
        let data = self.folder.join("mon").display().to_string();
        let (listen_meta, listen_maps) = (self.address("mon", meta)?, self.address("mon", maps)?);
        self.add("mon", &["mon", "--data", &data, "--meta-listen", &listen_meta, "--listen", &listen_maps])?;
        until("the metadata store answers", || TcpStream::connect(&listen_meta).is_ok())?;
        self.admin(&["init"])?;
        // OSDs fall here more often than a cluster that means well would forgive.
        self.admin(&["config", "set", "osd_flap_limit=0"])?;
        let to_meta = self.relayed("mon-meta", meta)?;
        for osd in 1..=self.shape.osds {
            let arguments = self.osd_arguments(osd, &to_meta, devices.get(&osd))?;
            self.add(&format!("osd-{osd}"), &arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        self.wait_osds()?;
        self.found()?;
        let to_maps = self.relayed("mon", maps)?;
        for server in 1..=self.shape.servers {
            let socket = self.socket(server).display().to_string();
            self.add(&format!("nbd-{server}"), &["nbd", "--seeds", &to_maps, "--listen", "none", "--unix", &socket])?;
        }
        until("NBD is served", || (1..=self.shape.servers).all(|server| self.socket(server).exists()))
    }

    fn osd_arguments(&self, osd: u32, meta: &str, device: Option<&Place>) -> Result<Vec<String>> {
        let port = free_port()?;
        let advertised = self.relayed(&format!("osd-{osd}"), port)?;
        let data = device.map_or_else(|| self.file(osd), |place| place.data.clone());
        let mut arguments: Vec<String> = ["osd", "run", "--id"].map(String::from).to_vec();
        arguments.extend([osd.to_string(), "--data".into(), data.display().to_string()]);
        if device.is_none() {
            arguments.extend(["--size".into(), self.shape.osd_bytes.to_string()]);
        }
        arguments.extend(["--meta".into(), format!("http://{meta}")]);
        arguments.extend(["--listen".into(), self.address(&format!("osd-{osd}"), port)?]);
        arguments.extend(["--advertise".into(), advertised]);
        arguments.extend(["--host".into(), format!("host-{osd}")]);
        arguments.extend(self.durability_arguments(osd, device));
        Ok(arguments)
    }

    /// What makes writes durable, so that the OSD keeps what its pool promises and no more.
    fn durability_arguments(&self, osd: u32, device: Option<&Place>) -> Vec<String> {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        match self.shape.immediate_commit {
            "none" => words(&["--durability", "lazy"]),
            "small" => {
                let log = device.and_then(|place| place.log.clone()).unwrap_or_else(|| self.log_file(osd));
                let log = log.display().to_string();
                let size = if device.is_none() { vec!["--log-size".into(), LOG_BYTES.to_string()] } else { Vec::new() };
                [words(&["--durability", "lazy", "--log-durability", "flush", "--log", &log]), size].concat()
            }
            _ if device.is_some() || self.shape.misbehaves => words(&["--durability", "flush"]),
            _ => Vec::new(),
        }
    }

    /// Where a daemon listens.
    fn address(&self, name: &str, port: u16) -> Result<String> {
        Ok(format!("{}:{port}", self.network.homes().address(name)?))
    }

    /// Where others find what listens there. `mon-meta` is a second port of `mon`.
    fn relayed(&self, name: &str, port: u16) -> Result<String> {
        match &self.network {
            Network::Relayed(relays) => Ok(format!("127.0.0.1:{}", relays.add(name, port)?)),
            _ => self.address(name.trim_end_matches("-meta"), port),
        }
    }

    /// The pool and its images.
    fn found(&self) -> Result<()> {
        let immediate = ["--immediate-commit", self.shape.immediate_commit, "--pg-count", GROUPS];
        self.admin(&[&["pool", "create", "main", "--scheme", &self.shape.pool], &immediate[..]].concat())?;
        for (name, mib) in &self.shape.images {
            self.admin(&["image", "create", &format!("main/{name}"), "--size", &format!("{mib}M")])?;
        }
        self.wait_clean(LIMIT)
    }

    fn add(&self, name: &str, arguments: &[&str]) -> Result<()> {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        self.daemons()
            .insert(name.into(), Daemon { arguments, process: None, stopped: false, faults: Faults::default() });
        self.run(name)
    }

    fn daemons(&self) -> MutexGuard<'_, BTreeMap<String, Daemon>> {
        self.daemons.lock().expect("nothing panics under this lock")
    }

    /// Starts a daemon that does not run.
    pub fn run(&self, name: &str) -> Result<()> {
        let mut daemons = self.daemons();
        let daemon = daemons.get_mut(name).with_context(|| format!("there is no daemon {name}"))?;
        let runs = daemon.process.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)));
        if runs {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(self.log(name))?;
        let mut environment = self.shape.environment.clone();
        if self.shape.misbehaves {
            environment.push(("ASHLAR_FAULTS".into(), self.faults_of(name).display().to_string()));
        }
        // NBD servers live here, wherever the others do.
        let program = if name.starts_with("nbd") { &self.binary } else { &self.program };
        let start = Start { program, arguments: &daemon.arguments, environment: &environment };
        let child = self.network.homes().spawn(name, &start, log).with_context(|| format!("cannot start {name}"))?;
        if let Network::Relayed(relays) = &self.network {
            relays.belongs(i32::try_from(child.id())?, name);
        }
        daemon.process = Some(child);
        daemon.stopped = false;
        Ok(())
    }

    fn faults_of(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.faults"))
    }

    /// Changes how a daemon's disks and clock misbehave, now and after its next start.
    pub fn misbehave(&self, name: &str, change: impl FnOnce(&mut Faults)) -> Result<()> {
        if !self.shape.misbehaves {
            return Ok(());
        }
        let mut daemons = self.daemons();
        let daemon = daemons.get_mut(name).with_context(|| format!("there is no daemon {name}"))?;
        change(&mut daemon.faults);
        let (text, place) = (serde_json::to_string(&daemon.faults)?, self.faults_of(name).display().to_string());
        // Nobody reads a half of it.
        let script = format!("echo '{text}' > '{place}.next'; mv '{place}.next' '{place}'");
        self.network.homes().shell(name, &script).map(drop)
    }

    /// Removes an OSD's files; it does not run.
    pub fn remove_file(&self, osd: u32) -> Result<()> {
        let script = format!("rm '{}'; rm -f '{}'", self.file(osd).display(), self.log_file(osd).display());
        self.network.homes().shell(&format!("osd-{osd}"), &script).map(drop)
    }

    /// SIGKILL; whether it ran.
    pub fn kill(&self, name: &str) -> bool {
        let ran = self.pid(name).is_some();
        self.send(name, Signal::SIGKILL);
        if let Some(mut child) = self.daemons().get_mut(name).and_then(|daemon| daemon.process.take()) {
            // A host that cannot be reached ends it when this is gone.
            let _ = child.kill();
            let _ = child.wait();
        }
        ran
    }

    /// Whoever is gone needs no signal, and a host that is gone gets none; whether it was sent.
    fn send(&self, name: &str, signal: Signal) -> bool {
        let Some(pid) = self.pid(name) else { return false };
        let sent = self.network.homes().signal(name, pid, signal);
        if let Err(error) = &sent {
            eprintln!("  {name} is not reached by {signal}: {error:#}");
        }
        sent.is_ok()
    }

    /// SIGKILL to several at one moment.
    pub fn kill_all<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let names: Vec<&str> = names.collect();
        std::thread::scope(|scope| {
            names.iter().for_each(|name| drop(scope.spawn(move || self.send(name, Signal::SIGKILL))));
        });
        for name in names {
            self.kill(name);
        }
    }

    /// SIGSTOP, or SIGCONT; whether it got there.
    pub fn stop(&self, name: &str, stop: bool) -> bool {
        let sent = self.send(name, if stop { Signal::SIGSTOP } else { Signal::SIGCONT });
        if let Some(daemon) = self.daemons().get_mut(name) {
            daemon.stopped = stop;
        }
        sent
    }

    /// A daemon's process, if it runs.
    pub fn pid(&self, name: &str) -> Option<i32> {
        let mut daemons = self.daemons();
        let child = daemons.get_mut(name)?.process.as_mut()?;
        matches!(child.try_wait(), Ok(None)).then(|| i32::try_from(child.id()).ok()).flatten()
    }

    /// Names of the daemons that begin with this.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        self.daemons().keys().filter(|name| name.starts_with(prefix)).cloned().collect()
    }

    /// Daemons that ended by themselves: that is for nobody to do.
    pub fn dead(&self) -> Vec<String> {
        let mut daemons = self.daemons();
        let ended =
            |daemon: &mut Daemon| daemon.process.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
        daemons.iter_mut().filter_map(|(name, daemon)| ended(daemon).then(|| name.clone())).collect()
    }

    /// What was asked for.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// A server's unix socket.
    pub fn socket(&self, server: u32) -> PathBuf {
        self.folder.join(format!("nbd-{server}.sock"))
    }

    /// The file of an OSD without a device.
    pub fn file(&self, osd: u32) -> PathBuf {
        self.folder.join(format!("osd-{osd}.img"))
    }

    /// Its log's file, where that has one of its own.
    fn log_file(&self, osd: u32) -> PathBuf {
        self.folder.join(format!("osd-{osd}-log.img"))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    /// Daemons that panicked: in whatever they are put, they never may.
    pub fn panics(&self) -> Vec<String> {
        let said = |name: &String| {
            let words = self.words(name);
            let at = words.find("panicked at")?;
            Some(format!("{name} {}", words[at..].lines().take(2).collect::<Vec<_>>().join(" ")))
        };
        self.names("").iter().filter_map(said).collect()
    }

    /// All that a daemon wrote.
    pub fn words(&self, name: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log(name)).unwrap_or_default()).into_owned()
    }

    /// Runs an administration command and parses its JSON.
    pub fn admin(&self, arguments: &[&str]) -> Result<Value> {
        let program = self.binary.display().to_string();
        let arguments: Vec<_> = arguments.iter().copied().chain(["--json", "--meta", &self.meta]).collect();
        Ok(serde_json::from_str(&command::run(&program, &arguments, LIMIT)?)?)
    }

    fn wait_osds(&self) -> Result<()> {
        let up = || {
            let rows = self.admin(&["osd", "list"]).ok()?;
            Some(rows.as_array()?.iter().filter(|row| row["up"] == true).count() as u64)
        };
        until("all OSDs are up", || up() == Some(self.shape.osds.into()))
    }

    /// Waits until every group is active and clean.
    pub fn wait_clean(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let unclean = self.admin(&["pg", "list", "--unclean"]);
            if unclean.as_ref().is_ok_and(|list| list.as_array().is_some_and(Vec::is_empty)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("not clean after {} s: {unclean:?}\n{}", limit.as_secs(), self.logs());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The last lines of every log.
    pub fn logs(&self) -> String {
        self.names("").iter().map(|name| tail(&self.log(name))).collect()
    }

    /// Where everything is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The number of the client that a server is, as it says at its start; the newest, if it was started again.
    pub fn client(&self, server: u32) -> Result<u64> {
        let words = self.words(&format!("nbd-{server}"));
        let number = words.rsplit("this is client ").next().and_then(|rest| rest.split_whitespace().next());
        number.context("the server says which client it is")?.parse().context("a number")
    }
}

impl Network {
    /// Where daemons live.
    pub fn homes(&self) -> &dyn Homes {
        match self {
            Network::Hosts(homes) => homes.as_ref(),
            Network::Loopback | Network::Relayed(_) => &Local,
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let names = self.names("");
        self.kill_all(names.iter().map(String::as_str));
        debug_assert!(names.iter().all(|name| self.pid(name).is_none_or(|pid| !is_alive(pid))));
    }
}

fn until(what: &str, done: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        ensure!(Instant::now() < deadline, "waited {} s until {what}", LIMIT.as_secs());
        std::thread::sleep(POLL);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_say_how_many_osds_they_need() {
        assert_eq!(["replicated:3", "ec:4+2", "xor:2+1"].map(members), [3, 6, 3]);
        let blocks = |pool: &str| Shape::of(pool, "all").object_blocks();
        assert_eq!((blocks("replicated:2"), blocks("ec:4+2")), (32, 128));
    }
}
