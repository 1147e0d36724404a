//! The supervisor's child processes.
//!
//! Owns: starting them, knowing when they end, ending them in order, and finding those that a killed supervisor left.
//! Does not own: what they do. Each writes to a log file of its own, in a process group of its own, so that Ctrl-C
//! reaches the supervisor alone and it can end them in order.

use super::layout::Directory;
use crate::supervised::SUPERVISOR;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::process::Command;
use tokio::sync::mpsc;

/// How long a child may take to end before it is killed: an OSD writes its last page, a monitor gives up its lease.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often processes that are not our children are looked at.
const POLL: Duration = Duration::from_millis(20);
/// Lines of a log that are shown when a child ends by itself.
const LAST_LINES: usize = 12;

/// What a child is.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Its name, which names its log too.
    pub name: String,
    /// Arguments of this program.
    pub arguments: Vec<String>,
}

/// A process as `children.json` has it. The start time tells it from a later process of the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub started: u64,
}

/// A child ended.
#[derive(Debug)]
pub struct Ended {
    /// Its name.
    pub name: String,
    /// Its process.
    pub pid: i32,
    /// How.
    pub status: ExitStatus,
}

/// All children of a supervisor.
pub struct Children {
    running: Vec<Record>,
    tell: mpsc::UnboundedSender<Ended>,
    ended: mpsc::UnboundedReceiver<Ended>,
}

impl Children {
    /// None yet.
    pub fn new() -> Children {
        let (tell, ended) = mpsc::unbounded_channel();
        Children { running: Vec::new(), tell, ended }
    }

    /// Starts a child.
    pub fn start(&mut self, directory: &Directory, recipe: &Recipe) -> Result<()> {
        let log = log_path(directory, &recipe.name);
        let file = File::options().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        let program = std::env::current_exe().context("cannot find the program that runs")?;
        let mut child = Command::new(program)
            .args(&recipe.arguments)
            .env(SUPERVISOR, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", recipe.name))?;
        let pid = i32::try_from(child.id().expect("it was not waited for yet"))?;
        let name = recipe.name.clone();
        self.running.push(Record { name: name.clone(), pid, started: started(pid).unwrap_or_default() });
        directory.write("children.json", &self.running)?;
        let tell = self.tell.clone();
        tokio::spawn(async move {
            let status = child.wait().await.expect("a child can be waited for");
            // Nobody listens any more when the supervisor is done.
            let _ = tell.send(Ended { name, pid, status });
        });
        Ok(())
    }

    /// The next child that ends.
    pub async fn next_end(&mut self) -> Ended {
        let ended = self.ended.recv().await.expect("this side holds a sender");
        self.running.retain(|record| record.pid != ended.pid);
        ended
    }

    /// Whether any is left.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Ends all: front ends first, then OSDs, the monitor last, so that each can say good-bye to the next.
    pub async fn stop(&mut self) {
        for prefix in ["nbd", "osd", ""] {
            let group: Vec<_> = self.running.iter().filter(|record| record.name.starts_with(prefix)).cloned().collect();
            group.iter().for_each(|record| signal(record.pid, Signal::SIGTERM));
            let all_ended = async {
                while self.running.iter().any(|record| record.name.starts_with(prefix)) {
                    self.next_end().await;
                }
            };
            if tokio::time::timeout(PATIENCE, all_ended).await.is_err() {
                self.kill(prefix).await;
            }
        }
    }

    /// Kills all.
    pub async fn kill_all(&mut self) {
        self.kill("").await;
    }

    async fn kill(&mut self, prefix: &str) {
        for record in self.running.iter().filter(|record| record.name.starts_with(prefix)) {
            eprintln!("{} does not end; killing it", record.name);
            signal(record.pid, Signal::SIGKILL);
        }
        while self.running.iter().any(|record| record.name.starts_with(prefix)) {
            self.next_end().await;
        }
    }
}

/// Sends a signal; a process that is gone already needs none.
fn signal(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}

/// When a process started; `None` if there is no such process, or only its remains.
fn started(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the program's name, may hold anything; the last bracket ends it. The state follows it, and the
    // start is the 22nd field.
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?;
    if state == "Z" { None } else { fields.nth(18)?.parse().ok() }
}

/// Ends what a killed supervisor left running; how many there were.
pub fn end_leftovers(directory: &Directory) -> Result<usize> {
    let records: Vec<Record> = directory.read("children.json")?.unwrap_or_default();
    let alive = |record: &Record| started(record.pid) == Some(record.started);
    let left: Vec<_> = records.iter().filter(|record| alive(record)).collect();
    left.iter().for_each(|record| signal(record.pid, Signal::SIGTERM));
    let deadline = Instant::now() + PATIENCE;
    while left.iter().any(|record| alive(record)) {
        if Instant::now() > deadline {
            left.iter().filter(|record| alive(record)).for_each(|record| signal(record.pid, Signal::SIGKILL));
        }
        std::thread::sleep(POLL);
    }
    directory.remove("children.json")?;
    Ok(left.len())
}

/// Where a child writes.
pub fn log_path(directory: &Directory, name: &str) -> PathBuf {
    directory.join("log").join(format!("{name}.log"))
}

/// The last lines that a child wrote, indented.
pub fn last_lines(directory: &Directory, name: &str) -> String {
    let path = log_path(directory, name);
    let text = std::fs::read(&path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    let from = lines.len().saturating_sub(LAST_LINES);
    let mut shown = format!("  last lines of {}:\n", path.display());
    lines[from..].iter().for_each(|line| shown += &format!("    {line}\n"));
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_start_is_known_and_a_process_that_is_not_has_none() {
        let pid = i32::try_from(std::process::id()).expect("process numbers are positive");
        assert!(started(pid).is_some_and(|ticks| ticks > 0));
        assert_eq!(started(i32::MAX), None);
    }
}
