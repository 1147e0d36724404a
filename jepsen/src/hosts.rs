//! Daemons on hosts of their own: network namespaces with addresses, on one bridge; cuts are made by their kernels.
//!
//! ```text
//!  mon 10.78.N.1 --+-- bridge 10.78.N.254 (this process: administration)
//!  osd-1 ..  .2  --+
//!  nbd-1 ..  .9  --+
//! ```
//! Owns: the bridge, the namespaces, their rules. Invariant: none is left behind, however a run ends. Needs root, `ip` and
//! `nft`.

use crate::command::run;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);
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

/// Hosts by the names of their daemons.
pub struct Hosts {
    /// Tells those of this process from those of others.
    mark: u32,
    addresses: BTreeMap<String, String>,
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
        let mut hosts = Hosts { mark, addresses: BTreeMap::new() };
        // What a killed process of the same mark left behind.
        let _ = ip(&format!("link del {}", hosts.bridge()));
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
        let space = self.namespace(name);
        run("ip", &["netns", "exec", &space, "nft", rules], LIMIT).map(drop).with_context(|| format!("rules of {name}"))
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

    /// What one sends does not arrive at the other.
    pub fn cut_one_way(&self, from: &str, to: &str) -> Result<()> {
        let address = self.address(from)?;
        self.rule(to, &format!("add rule inet cut in ip saddr {address} drop"))
    }

    /// Two sides do not reach each other.
    pub fn partition(&self, one: &[String], other: &[String]) -> Result<()> {
        for a in one {
            for b in other {
                self.cut_one_way(a, b)?;
                self.cut_one_way(b, a)?;
            }
        }
        Ok(())
    }

    /// All reach each other.
    pub fn heal(&self) -> Result<()> {
        self.addresses.keys().try_for_each(|name| self.rule(name, "flush table inet cut"))
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

fn ip(words: &str) -> Result<()> {
    run("ip", &words.split(' ').collect::<Vec<_>>(), LIMIT).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

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
