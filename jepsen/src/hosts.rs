//! Where daemons live: on this machine, on hosts of their own, or on others ([`remote`]). Hosts of their own are network
//! namespaces with addresses, on one bridge; cuts are made by their kernels.
//!
//! ```text
//!  mon 10.78.N.1 --+-- bridge 10.78.N.254 (this process: administration)
//!  osd-1 ..  .2  --+
//!  nbd-1 ..  .9  --+
//! ```
//! Owns: the bridge, the namespaces, their rules. Invariant: none is left behind, however a run ends. Needs root, `ip` and
//! `nft`.

pub mod remote;

use crate::cluster;
use crate::command::run;
use crate::scratch::Scratch;
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);
/// Names whom a process ends with.
const SUPERVISOR: &str = "ASHLAR_SUPERVISOR";
/// What to tell `ip`, line by line, so that nothing is left.
pub const LEFT: &str = "ip-commands";
/// Where rules of cuts go.
const RULES: &str = "add table inet cut; add chain inet cut in { type filter hook input priority 0; }; \
                     add chain inet cut out { type filter hook output priority 0; }";

/// Which way of a host's traffic is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// What comes in.
    In,
    /// What goes out.
    Out,
    /// Both.
    Both,
}

/// Where daemons live, by their names: how they are started, signalled and cut off there.
pub trait Homes: Send + Sync {
    /// The address that a daemon listens at.
    fn address(&self, name: &str) -> Result<&str>;

    /// A folder of this path, and the program in it, are to be where daemons live; the path of the program there.
    fn prepare(&self, folder: &Path, program: &Path) -> Result<PathBuf>;

    /// Starts a daemon; whoever ends the child ends it, and it ends with this process.
    fn spawn(&self, name: &str, start: &Start<'_>, log: File) -> Result<Child>;

    /// Sends a signal to a daemon, and to nothing that stands for it here.
    fn signal(&self, name: &str, child: i32, signal: Signal) -> Result<()>;

    /// Runs a piece of shell where a daemon lives, as root.
    fn shell(&self, name: &str, script: &str) -> Result<String>;

    /// Whether its packets can be dropped without losing sight of it.
    fn can_be_cut(&self, name: &str) -> bool;

    /// What one sends does not arrive at the other.
    fn cut_one_way(&self, from: &str, to: &str) -> Result<()>;

    /// All reach each other.
    fn heal(&self) -> Result<()>;

    /// Two sides do not reach each other.
    fn partition(&self, one: &[String], other: &[String]) -> Result<()> {
        for a in one {
            for b in other {
                self.cut_one_way(a, b)?;
                self.cut_one_way(b, a)?;
            }
        }
        Ok(())
    }
}

/// What is started.
pub struct Start<'a> {
    /// The program, as [`Homes::prepare`] said.
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: &'a [String],
    /// More of its environment.
    pub environment: &'a [(String, String)],
}

impl Start<'_> {
    fn with(&self, mut command: Command, log: File) -> Result<Child> {
        let environment = self.environment.iter().map(|(name, value)| (name, value));
        command.args(self.arguments).envs(environment).env(SUPERVISOR, std::process::id().to_string());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("cannot start {}", self.program.display()))
    }
}

/// This machine.
pub struct Local;

impl Homes for Local {
    fn address(&self, _: &str) -> Result<&str> {
        Ok("127.0.0.1")
    }

    fn prepare(&self, _: &Path, program: &Path) -> Result<PathBuf> {
        Ok(program.to_path_buf())
    }

    fn spawn(&self, _: &str, start: &Start<'_>, log: File) -> Result<Child> {
        start.with(Command::new(start.program), log)
    }

    fn signal(&self, _: &str, child: i32, signal: Signal) -> Result<()> {
        cluster::signal(child, signal);
        Ok(())
    }

    fn shell(&self, name: &str, script: &str) -> Result<String> {
        run("sh", &["-c", script], LIMIT).with_context(|| format!("on this machine, for {name}"))
    }

    fn can_be_cut(&self, _: &str) -> bool {
        false
    }

    fn cut_one_way(&self, from: &str, to: &str) -> Result<()> {
        bail!("{from} and {to} are on one machine: nothing can be cut between them")
    }

    fn heal(&self) -> Result<()> {
        Ok(())
    }
}

/// Hosts by the names of their daemons.
pub struct Hosts {
    /// Tells those of this process from those of others.
    mark: u32,
    addresses: BTreeMap<String, String>,
    /// Says what is there, for whoever has to clear up.
    scratch: Scratch,
}

/// Whether this machine can have them.
pub fn are_possible() -> bool {
    let installed = |name: &str| ["/usr/sbin", "/sbin"].iter().any(|folder| Path::new(folder).join(name).exists());
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|about| about.uid() == 0);
    is_root && installed("ip") && installed("nft")
}

impl Hosts {
    /// One for each of these names.
    pub fn new(names: &[String]) -> Result<Hosts> {
        let mark = std::process::id() % 250;
        let mut hosts = Hosts { mark, addresses: BTreeMap::new(), scratch: Scratch::new("hosts")? };
        // What a killed process of the same mark left behind.
        let _ = ip(&format!("link del {}", hosts.bridge()));
        let ours = names.iter().map(|name| format!("netns del {}\n", hosts.namespace(name)));
        let ours = ours.chain([format!("link del {}\n", hosts.bridge())]).collect::<String>();
        std::fs::write(hosts.scratch.join(LEFT), ours)?;
        ip(&format!("link add {} type bridge", hosts.bridge()))?;
        ip(&format!("addr add 10.78.{mark}.254/24 dev {}", hosts.bridge()))?;
        ip(&format!("link set {} up", hosts.bridge()))?;
        for (number, name) in (1..).zip(names) {
            hosts.add(name, number)?;
        }
        Ok(hosts)
    }

    fn bridge(&self) -> String {
        format!("ajb{}", self.mark)
    }

    /// The name of a host's namespace.
    pub fn namespace(&self, name: &str) -> String {
        format!("ajp{}-{name}", self.mark)
    }

    fn add(&mut self, name: &str, number: u32) -> Result<()> {
        let (space, mark, bridge) = (self.namespace(name), self.mark, self.bridge());
        let (outside, address) = (format!("ajv{mark}-{number}"), format!("10.78.{mark}.{number}"));
        let _ = ip(&format!("netns del {space}"));
        ip(&format!("netns add {space}"))?;
        self.addresses.insert(name.to_string(), address.clone());
        ip(&format!("link add {outside} type veth peer name eth0 netns {space}"))?;
        ip(&format!("link set {outside} master {bridge} up"))?;
        ip(&format!("-n {space} addr add {address}/24 dev eth0"))?;
        ip(&format!("-n {space} link set eth0 up"))?;
        ip(&format!("-n {space} link set lo up"))?;
        self.rule(name, RULES)
    }

    fn rule(&self, name: &str, rules: &str) -> Result<()> {
        self.run_on(name, &["nft", rules]).map(drop)
    }

    /// Runs a program on a host; an error says which, and what the program complained of.
    fn run_on(&self, name: &str, words: &[&str]) -> Result<String> {
        let space = self.namespace(name);
        let address = self.addresses.get(name).map_or("no address yet", String::as_str);
        let outcome = run("ip", &[&["netns", "exec", &space], words].concat(), LIMIT);
        outcome.with_context(|| format!("host {name} ({address})"))
    }

    /// A host's address.
    pub fn address(&self, name: &str) -> Result<&str> {
        self.addresses.get(name).map(String::as_str).with_context(|| format!("{name} has no host"))
    }

    /// A program, to be run on a host.
    pub fn command(&self, name: &str, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(name)]).arg(program);
        command
    }

    /// Drops all of a host's traffic of these ways, without a word to anybody; connections stay as they are.
    pub fn cut(&self, name: &str, cut: Cut) -> Result<()> {
        let ways = [(Cut::Out, "in iifname"), (Cut::In, "out oifname")];
        let lost = ways.iter().filter(|(other, _)| cut != *other);
        lost.into_iter().try_for_each(|(_, way)| self.rule(name, &format!("add rule inet cut {way} != lo drop")))
    }

    /// All reach each other.
    pub fn heal(&self) -> Result<()> {
        self.addresses.keys().try_for_each(|name| self.rule(name, "flush table inet cut"))
    }
}

impl Homes for Hosts {
    fn address(&self, name: &str) -> Result<&str> {
        Hosts::address(self, name)
    }

    fn prepare(&self, _: &Path, program: &Path) -> Result<PathBuf> {
        Ok(program.to_path_buf())
    }

    fn spawn(&self, name: &str, start: &Start<'_>, log: File) -> Result<Child> {
        start.with(self.command(name, start.program), log)
    }

    fn signal(&self, _: &str, child: i32, signal: Signal) -> Result<()> {
        cluster::signal(child, signal);
        Ok(())
    }

    fn shell(&self, name: &str, script: &str) -> Result<String> {
        self.run_on(name, &["sh", "-c", script])
    }

    fn can_be_cut(&self, _: &str) -> bool {
        true
    }

    fn cut_one_way(&self, from: &str, to: &str) -> Result<()> {
        let address = Hosts::address(self, from)?;
        self.rule(to, &format!("add rule inet cut in ip saddr {address} drop"))
    }

    fn heal(&self) -> Result<()> {
        Hosts::heal(self)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in self.addresses.keys() {
            // With the namespace goes its end of the cable, and with that the other.
            let _ = ip(&format!("netns del {}", self.namespace(name)));
        }
        let _ = ip(&format!("link del {}", self.bridge()));
    }
}

/// Runs `ip`.
pub fn ip(words: &str) -> Result<()> {
    run("ip", &words.split(' ').collect::<Vec<_>>(), LIMIT).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_on_this_machine_says_whom_it_was_for_and_why() {
        let error = Local.shell("osd-3", "echo why >&2; exit 4").expect_err("it fails");
        let words = format!("{error:#}");
        for part in ["for osd-3", "echo why >&2; exit 4", "exit status: 4", "    why"] {
            assert!(words.contains(part), "{part}: {words}");
        }
    }

    #[test]
    fn hosts_reach_each_other_until_they_are_cut() {
        if !are_possible() {
            return eprintln!("SKIPPED: needs root, ip and nft");
        }
        let hosts = Hosts::new(&["a".into(), "b".into()]).expect("two hosts");
        let reaches = |from: &str, to: &str| {
            let (space, address) = (hosts.namespace(from), hosts.address(to).expect("known"));
            let script = format!("exec 3<>/dev/tcp/{address}/9");
            let outcome = run("ip", &["netns", "exec", &space, "bash", "-c", &script], Duration::from_millis(800));
            // Nobody listens: whoever is reached refuses at once.
            outcome.is_err_and(|error| error.to_string().contains("refused"))
        };
        assert!(reaches("a", "b") && reaches("b", "a"));
        hosts.cut_one_way("a", "b").expect("a rule");
        assert!(!reaches("a", "b"));
        hosts.heal().expect("no rules");
        assert!(reaches("a", "b"));
        hosts.cut("a", Cut::Out).expect("a rule");
        assert!(!reaches("a", "b"));
        hosts.heal().expect("no rules");
        assert!(reaches("a", "b"));
    }
}
