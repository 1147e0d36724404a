//! Hosts on one machine: network namespaces behind a bridge, each with an address of its own. Needs root, `ip`, `nft`.
//!
//! Owns the namespaces and what is cut between them. Does not own the processes in them.

use crate::command::run;
use anyhow::{Context, Result};
use std::process::Command;
use std::time::Duration;

/// The bridge, and the first part of all names.
const NAME: &str = "ashlar";
/// For `ip` and `nft`.
const LIMIT: Duration = Duration::from_secs(10);

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

/// The hosts, numbered from 1. Dropping them takes the namespaces away.
pub struct Hosts {
    count: u32,
}

impl Hosts {
    /// Makes so many hosts; the remains of an earlier run are removed first.
    pub fn start(count: u32) -> Result<Hosts> {
        let hosts = Hosts { count };
        hosts.remove();
        ip(&format!("link add {NAME} type bridge")).context("this needs root")?;
        ip(&format!("addr add {}/24 dev {NAME}", Hosts::outside()))?;
        ip(&format!("link set {NAME} up"))?;
        for host in 1..=count {
            let (space, inner, outer) = (space(host), "eth0", format!("{NAME}-{host}"));
            ip(&format!("netns add {space}"))?;
            ip(&format!("link add {outer} type veth peer name {inner} netns {space}"))?;
            ip(&format!("link set {outer} master {NAME} up"))?;
            ip(&format!("-n {space} addr add {}/24 dev {inner}", hosts.address(host)))?;
            ip(&format!("-n {space} link set {inner} up"))?;
            ip(&format!("-n {space} link set lo up"))?;
        }
        Ok(hosts)
    }

    /// The address where clients are: this machine's own, on the bridge.
    pub fn outside() -> &'static str {
        "10.77.31.254"
    }

    /// A host's address.
    pub fn address(&self, host: u32) -> String {
        format!("10.77.31.{host}")
    }

    /// A program, to be run on a host.
    pub fn command(&self, host: u32, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &space(host), program]);
        command
    }

    /// Drops a host's traffic, without a word to anybody; connections stay as they are.
    pub fn cut(&self, host: u32, cut: Cut) -> Result<()> {
        let chain = |hook: &str, device: &str| {
            format!("chain {hook} {{ type filter hook {hook} priority 0; {device} != \"lo\" drop; }}")
        };
        let input = if cut == Cut::Out { String::new() } else { chain("input", "iifname") };
        let output = if cut == Cut::In { String::new() } else { chain("output", "oifname") };
        self.nft(host, &format!("table inet cut {{ {input} {output} }}"))
    }

    /// Lets everything through again.
    pub fn heal(&self, host: u32) -> Result<()> {
        self.nft(host, "delete table inet cut")
    }

    fn nft(&self, host: u32, rules: &str) -> Result<()> {
        run("ip", &["netns", "exec", &space(host), "nft", rules], LIMIT).map(drop)
    }

    fn remove(&self) {
        // What is not there need not go.
        (1..=self.count.max(16)).for_each(|host| drop(ip(&format!("netns del {}", space(host)))));
        drop(ip(&format!("link del {NAME}")));
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        self.remove();
    }
}

fn space(host: u32) -> String {
    format!("{NAME}-{host}")
}

fn ip(arguments: &str) -> Result<()> {
    run("ip", &arguments.split_whitespace().collect::<Vec<_>>(), LIMIT).map(drop)
}
