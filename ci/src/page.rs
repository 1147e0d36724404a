//! `cargo ci page`: the commands of docs/deploy.md, as they are printed there, on three hosts of network namespaces.
//!
//! Owns: which blocks are run where and when (the words after ` ```sh `), and what must be true afterwards: all OSDs up, each on
//! its own host; a pool and an image that are served; figures wherever `deploy/prometheus.yml` looks for them. Does not own the
//! hosts (`deploy/three-hosts`). Needs root, etcd, gdisk, qemu-utils, openssl.

use crate::commands;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};

/// For anything to come up, on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);
const HOSTS: [u32; 3] = [1, 2, 3];
const OSDS: usize = 6;
/// Reads of `why-slow` in a second, at most.
const READS_PER_S: u64 = 100;

/// How the page is followed.
#[derive(clap::Args)]
pub struct Args {
    /// With its section on certificates and users; by default both ways are gone, one after the other.
    #[arg(long, value_name = "YES|NO")]
    guarded: Option<Answer>,
    /// Take target/release/ashlar as it is.
    #[arg(long)]
    built: bool,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
}

/// A block of commands, and what the page says of where it is run.
#[derive(Debug)]
struct Block {
    place: String,
    text: String,
}

/// Follows the page.
pub fn run(args: &Args) -> Result<()> {
    if !args.built {
        let build = ["build", "--quiet", "--release", "-p", "ashlar"];
        commands::run("build the release binary", commands::cargo().args(build))?;
    }
    let blocks = blocks(&std::fs::read_to_string(commands::root().join("docs/deploy.md"))?)?;
    for answer in [Answer::No, Answer::Yes] {
        if args.guarded.is_none_or(|wanted| wanted == answer) {
            let start = Instant::now();
            follow(&blocks, answer == Answer::Yes)?;
            let how = if answer == Answer::Yes { "with certificates and users" } else { "plain" };
            eprintln!("\nok      docs/deploy.md, {how}: true, in {} s", start.elapsed().as_secs());
        }
    }
    Ok(())
}

/// All blocks that say where they are run.
fn blocks(page: &str) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else { continue };
        let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        if let Some(place) = language.strip_prefix("sh ") {
            blocks.push(Block { place: place.into(), text: text.join("\n") });
        }
    }
    let known = [
        "number",
        "every-host",
        "once",
        "certificates-once",
        "certificates-every-host",
        "users-once",
        "users-every-host",
    ];
    for block in &blocks {
        ensure!(known.contains(&block.place.as_str()), "docs/deploy.md: '{}' is none of {known:?}", block.place);
    }
    Ok(blocks)
}

/// The blocks in the order in which a reader comes to do them: the section on certificates and users says that its parts come
/// before and after the start of etcd, which is the second of those for every host.
fn in_order(blocks: &[Block], guarded: bool) -> Vec<&Block> {
    let part = |part: &str| blocks.iter().filter(|block| guarded && block.place.starts_with(part)).collect::<Vec<_>>();
    let usual = |block: &&Block| matches!(block.place.as_str(), "every-host" | "once");
    let usual: Vec<_> = blocks.iter().filter(usual).collect();
    let (first, rest) = usual.split_at(1);
    let (etcd, rest) = rest.split_at(1);
    [first, &part("certificates"), etcd, &part("users"), rest].concat()
}

fn follow(blocks: &[Block], guarded: bool) -> Result<()> {
    let number = blocks.iter().find(|block| block.place == "number").context("the page gives hosts their numbers")?;
    let hosts = Hosts::new(&number.text)?;
    let outcome = hosts.follow(&in_order(blocks, guarded), guarded);
    if outcome.is_err() {
        hosts.show_logs();
    }
    outcome
}

/// Three of them. Dropping them ends them.
struct Hosts {
    /// The lines that give a host its number, as printed for the first.
    number: String,
    folder: std::path::PathBuf,
}

impl Hosts {
    fn new(number: &str) -> Result<Hosts> {
        ensure!(number.contains("N=1"), "the page's first block sets N");
        ensure!(!commands::root().join("tls").exists(), "there is a folder tls, which the page makes: move it away");
        let folder = std::env::temp_dir().join(format!("ashlar-page-{}", std::process::id()));
        let hosts = Hosts { number: number.into(), folder };
        hosts.program(&["up"], false)?;
        Ok(hosts)
    }

    fn program(&self, arguments: &[&str], quietly: bool) -> Result<String> {
        let mut command = commands::program("deploy/three-hosts");
        command.env("THREE_HOSTS_DIR", &self.folder).args(arguments);
        if quietly {
            return commands::output(&mut command);
        }
        commands::run(arguments[0], &mut command)?;
        Ok(String::new())
    }

    fn shell(&self, host: u32, script: &str, quietly: bool) -> Result<String> {
        self.program(&["run", &host.to_string(), "bash", "-ec", script], quietly)
    }

    /// Runs blocks, and waits where the page says that something is so by then.
    fn follow(&self, blocks: &[&Block], guarded: bool) -> Result<()> {
        for block in blocks {
            let everywhere = block.place.ends_with("every-host");
            for host in if everywhere { &HOSTS[..] } else { &HOSTS[..1] } {
                let number = self.number.replace("N=1", &format!("N={host}"));
                eprintln!("\n-- node{host}, {}\n{}", block.place, block.text);
                self.shell(*host, &format!("{number}\n{}", block.text), false)?;
            }
            self.settle(&block.text)?;
        }
        self.check(guarded)
    }

    fn settle(&self, done: &str) -> Result<()> {
        if done.contains("restart --no-block etcd") {
            self.until("etcd", || {
                HOSTS.iter().all(|host| self.shell(*host, &format!("</dev/tcp/10.0.0.{host}/2379"), true).is_ok())
            })?;
        }
        if done.contains("enable --now ashlar-osd@") {
            self.until("OSDs", || self.hosts_of_osds().is_ok_and(|hosts| hosts.len() == OSDS))?;
        }
        Ok(())
    }

    fn until(&self, what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !done() {
            if Instant::now() > deadline {
                bail!("waiting for {what} took too long");
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        Ok(())
    }

    fn ashlar(&self, arguments: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.shell(1, &format!("ashlar {arguments} --json"), true)?)?)
    }

    /// Hosts of OSDs that are up.
    fn hosts_of_osds(&self) -> Result<Vec<String>> {
        let list = self.ashlar("osd list")?;
        let up = list.as_array().context("a list")?.iter().filter(|osd| osd["up"] == true);
        Ok(up.map(|osd| osd["host"].as_str().unwrap_or_default().to_string()).collect())
    }

    fn check(&self, guarded: bool) -> Result<()> {
        let mut hosts = self.hosts_of_osds()?;
        hosts.sort();
        ensure!(hosts == ["node1", "node1", "node2", "node2", "node3", "node3"], "OSDs are on {hosts:?}");
        self.until("clean groups", || {
            self.ashlar("pg list --unclean").is_ok_and(|list| list.as_array().is_some_and(Vec::is_empty))
        })?;
        self.check_figures()?;
        self.check_why_slow()?;
        let plain = self.shell(1, "ashlar status --meta http://10.0.0.1:2379", true);
        ensure!(plain.is_err() == guarded, "without certificates: {plain:?}");
        if let Err(error) = plain {
            ensure!(format!("{error:#}").contains("https://"), "nobody is told what to do: {error:#}");
        }
        Ok(())
    }

    /// Wherever Prometheus is told to look, there are figures.
    fn check_figures(&self) -> Result<()> {
        let sample = std::fs::read_to_string(commands::root().join("deploy/prometheus.yml"))?;
        let targets: Vec<_> = sample.lines().filter_map(|line| line.trim().strip_prefix("- 10.")).collect();
        ensure!(targets.len() == OSDS + 3, "{targets:?}");
        for target in targets {
            let figures = self.shell(1, &format!("curl -sf http://10.{target}/metrics"), true)?;
            ensure!(figures.contains("ashlar_"), "10.{target} has no figures of ours: {figures}");
        }
        Ok(())
    }

    /// A question about an image is not its load.
    fn check_why_slow(&self) -> Result<()> {
        let seconds = 2;
        let report = self.ashlar(&format!("why-slow vms/db1 --seconds {seconds}"))?;
        let reads = report["stages"][0]["count"].as_u64().context("our reads are counted")?;
        ensure!((1..=READS_PER_S * seconds).contains(&reads), "{reads} reads in {seconds} s");
        Ok(())
    }

    fn show_logs(&self) {
        let mut tail = Command::new("sh");
        tail.args(["-c", "tail -n 12 \"$1\"/*/*.log", "logs"]).arg(&self.folder);
        let _ = tail.status();
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if let Err(error) = self.program(&["down"], true) {
            eprintln!("{error:#}");
        }
        // Certificates of the page are made beside the repository's files.
        let _ = std::fs::remove_dir_all(commands::root().join("tls"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_can_be_followed() {
        let page = std::fs::read_to_string(commands::root().join("docs/deploy.md")).expect("the page");
        let blocks = blocks(&page).expect("known places");
        let places = |guarded| in_order(&blocks, guarded).iter().map(|block| block.place.clone()).collect::<Vec<_>>();
        assert_eq!(places(false)[..3], ["every-host", "every-host", "once"]);
        let guarded = places(true);
        assert_eq!(guarded[..4], ["every-host", "certificates-once", "certificates-every-host", "every-host"]);
        assert_eq!(guarded[4..6], ["users-once", "users-every-host"]);
        for block in &blocks {
            commands::output(Command::new("bash").args(["-n", "-c", &block.text])).expect("it is shell");
        }
    }

    #[test]
    fn hosts_refuse_a_folder_of_which_each_has_its_own_view() {
        let mut up = commands::program("deploy/three-hosts");
        let output = up.arg("up").env("THREE_HOSTS_DIR", "/dev/shm/three-hosts").output().expect("it starts");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.contains("THREE_HOSTS_DIR"), "{told}");
    }

    /// Lines of a unit that systemd would complain about, in a copy of it that names programs that are here.
    fn complaints(unit: &std::path::Path, folder: &std::path::Path) -> String {
        let text = std::fs::read_to_string(unit).expect("a unit").replace("/usr/local/bin/ashlar", "/bin/true");
        let text: String =
            text.lines().filter(|line| !line.starts_with("Documentation=")).flat_map(|l| [l, "\n"]).collect();
        let copy = folder.join(unit.file_name().expect("a name"));
        std::fs::write(&copy, text).expect("writable");
        let output = Command::new("systemd-analyze").arg("verify").arg(&copy).output().expect("it was there");
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    #[test]
    fn systemd_understands_the_units() {
        if Command::new("systemd-analyze").arg("--version").output().is_err() {
            return eprintln!("SKIPPED: systemd-analyze is not here");
        }
        let folder = std::env::temp_dir().join(format!("ashlar-units-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("writable");
        let wrong = folder.join("wrong.service");
        std::fs::write(&wrong, "[Service]\nExecStart=/bin/true\nStartLimitIntervalSec=9\n").expect("writable");
        assert!(complaints(&wrong, &folder).contains("StartLimitIntervalSec"), "a mistake is not seen");
        let units = std::fs::read_dir(commands::root().join("deploy/systemd")).expect("units");
        let units: Vec<_> = units.map(|unit| unit.expect("a file").path()).collect();
        assert!(units.len() >= 3);
        for unit in units {
            assert_eq!(complaints(&unit, &folder), "", "{}", unit.display());
        }
        let _ = std::fs::remove_dir_all(folder);
    }
}
