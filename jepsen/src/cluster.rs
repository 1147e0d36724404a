//! A cluster of real processes: `ashlar up` in a directory of its own.

use crate::command;
use crate::scratch::Scratch;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// From the start of the binary to a served image: a loaded machine takes its time.
const START_LIMIT: Duration = Duration::from_secs(60);
/// For a clean stop.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// How often processes are looked at.
const POLL: Duration = Duration::from_millis(10);

/// The binary under test: `ASHLAR_BIN`, or that of our own build profile, built if need be.
pub fn binary() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    if let Some(path) = std::env::var_os("ASHLAR_BIN") {
        return Ok(path.into());
    }
    let path = || Ok(build(&[]).and_then(|()| folder_of_builds())?.join("ashlar"));
    let built = BUILT.get_or_init(|| path().map_err(|error: anyhow::Error| format!("{error:#}")));
    built.clone().map_err(anyhow::Error::msg)
}

/// The binary with a feature for tests of tests (`planted`, `faults`): of the environment (`ASHLAR_PLANTED_BIN`,
/// `ASHLAR_FAULTS_BIN`), or our own build profile's, made if need be.
pub fn built_with(feature: &str) -> Result<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let variable = format!("ASHLAR_{}_BIN", feature.to_uppercase());
    if let Some(path) = std::env::var_os(&variable).map(PathBuf::from) {
        let has = has_feature(&path, feature).with_context(|| format!("{variable}: cannot read {}", path.display()))?;
        ensure!(has, "{variable} names {}, which was built without the feature `{feature}`", path.display());
        return Ok(path);
    }
    let folder = folder_of_builds()?;
    let special = folder.join(format!("ashlar-{feature}"));
    build(&["--features", feature])?;
    // Who runs the old one keeps it.
    let next = special.with_extension("next");
    std::fs::copy(folder.join("ashlar"), &next)?;
    std::fs::rename(next, &special)?;
    // Nobody else shall find such a binary under the usual name.
    build(&[])?;
    Ok(special)
}

/// Whether a binary listens to the feature's variable of the environment: what it does not know of, it would ignore, and
/// faults that were asked for would not happen.
fn has_feature(binary: &Path, feature: &str) -> Result<bool> {
    let word = if feature == "planted" { "ASHLAR_PLANT" } else { "ASHLAR_FAULTS" };
    let bytes = std::fs::read(binary)?;
    Ok(bytes.windows(word.len()).any(|window| window == word.as_bytes()))
}

fn folder_of_builds() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let mut folders = own.ancestors().filter(|folder| folder.ends_with("debug") || folder.ends_with("release"));
    let folder = folders.next().map(Path::to_path_buf);
    folder.context("this program is not in a target folder; name the binary under test in ASHLAR_BIN")
}

/// Minutes may pass: whoever waits is told for what, sees cargo's own progress on a terminal, and at the end how long it took.
fn build(more: &[&str]) -> Result<()> {
    let release = folder_of_builds()?.ends_with("release").then_some("--release");
    let words: Vec<&str> = ["build", "-p", "ashlar"].into_iter().chain(release).chain(more.iter().copied()).collect();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(&words).args((!std::io::stderr().is_terminal()).then_some("--quiet"));
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).stdin(Stdio::null());
    eprintln!("building what is tested: cargo {}", words.join(" "));
    let begin = Instant::now();
    let status = cargo.status().context("cannot start cargo; name a built binary in ASHLAR_BIN")?;
    let seconds = begin.elapsed().as_secs_f64();
    ensure!(status.success(), "`cargo {}` failed after {seconds:.1} s ({status})", words.join(" "));
    eprintln!("built in {seconds:.1} s");
    Ok(())
}

/// A running cluster.
pub struct Cluster {
    supervisor: Child,
    /// What `up --json` said.
    pub running: Value,
    /// How long it took until the image was served.
    pub took: Duration,
    directory: PathBuf,
    log: PathBuf,
}

/// A child process of the supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// `mon`, `osd-1`, `nbd`...
    pub name: String,
    /// Its number.
    pub pid: i32,
}

impl Cluster {
    /// Starts a cluster in `scratch`, or the one that is there again.
    pub fn start(scratch: &Scratch, arguments: &[&str]) -> Result<Cluster> {
        let (directory, log) = (scratch.join("cluster"), scratch.join("up.log"));
        let start = Instant::now();
        let mut supervisor = Command::new(binary()?)
            .args(["up", "--json", "--port", &free_port()?.to_string(), "--dir"])
            .arg(&directory)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(&log)?)
            .spawn()?;
        let lines = lines(BufReader::new(supervisor.stdout.take().expect("it was piped")));
        let line = lines.recv_timeout(START_LIMIT).unwrap_or_default();
        let mut cluster = Cluster { supervisor, running: Value::Null, took: start.elapsed(), directory, log };
        match serde_json::from_str(&line) {
            Ok(running) => cluster.running = running,
            Err(_) => bail!("the cluster did not start\n{}", cluster.logs()),
        }
        // OSDs are killed here more often than a cluster that means well would forgive.
        cluster.admin(&["config", "set", "osd_flap_limit=0"])?;
        Ok(cluster)
    }

    /// The children that run, as the supervisor has noted them.
    pub fn children(&self) -> Result<Vec<Process>> {
        let text = std::fs::read(self.directory.join("children.json"))?;
        let records: Vec<Value> = serde_json::from_slice(&text)?;
        let process = |record: &Value| {
            let pid = i32::try_from(record["pid"].as_i64()?).ok()?;
            Some(Process { name: record["name"].as_str()?.into(), pid })
        };
        records.iter().map(|record| process(record).context("children.json names processes")).collect()
    }

    /// The OSDs that run.
    pub fn osds(&self) -> Result<Vec<Process>> {
        Ok(self.children()?.into_iter().filter(|child| child.name.starts_with("osd-") && is_alive(child.pid)).collect())
    }

    /// NBD by TCP.
    pub fn nbd(&self) -> &str {
        self.running["nbd"].as_str().expect("`up` says where it serves")
    }

    /// NBD by unix socket.
    pub fn socket(&self) -> PathBuf {
        self.running["nbd_socket"].as_str().expect("`up` says where it serves").into()
    }

    /// Runs an administration command and parses its JSON.
    pub fn admin(&self, arguments: &[&str]) -> Result<Value> {
        self.admin_within(arguments, START_LIMIT)
    }

    /// The same, with more patience.
    pub fn admin_within(&self, arguments: &[&str], patience: Duration) -> Result<Value> {
        let (program, dir) = (binary()?.display().to_string(), self.directory.display().to_string());
        let arguments: Vec<_> = arguments.iter().copied().chain(["--json", "--dir", &dir]).collect();
        Ok(serde_json::from_str(&command::run(&program, &arguments, patience)?)?)
    }

    /// Waits until every group is active and clean.
    pub fn wait_clean(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let unclean = self.admin(&["pg", "list", "--unclean"])?;
            if unclean.as_array().is_some_and(Vec::is_empty) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("not clean after {} s: {unclean}\n{}", limit.as_secs(), self.logs());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// As Ctrl-C does it; how the supervisor ended.
    pub fn stop(mut self) -> Result<ExitStatus> {
        signal(i32::try_from(self.supervisor.id())?, Signal::SIGINT);
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            if let Some(status) = self.supervisor.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("does not stop within {} s\n{}", STOP_LIMIT.as_secs(), self.logs());
            }
            std::thread::sleep(POLL);
        }
    }

    /// kill -9 of everything, in one go: the supervisor first, so that it starts nothing again.
    pub fn kill_everything(mut self) -> Result<()> {
        let children = self.children()?;
        self.supervisor.kill()?;
        children.iter().for_each(|child| signal(child.pid, Signal::SIGKILL));
        self.supervisor.wait()?;
        Ok(())
    }

    /// kill -9 of the supervisor alone; its children's processes.
    pub fn kill_supervisor(mut self) -> Result<Vec<Process>> {
        let children = self.children()?;
        self.supervisor.kill()?;
        self.supervisor.wait()?;
        Ok(children)
    }

    /// The last lines of every log.
    pub fn logs(&self) -> String {
        let mut text = tail(&self.log);
        let entries = std::fs::read_dir(self.directory.join("log")).into_iter().flatten().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths.iter().for_each(|path| text += &tail(path));
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let children = self.children().unwrap_or_default();
        if matches!(self.supervisor.try_wait(), Ok(None)) {
            let _ = self.supervisor.kill();
            let _ = self.supervisor.wait();
            children.iter().for_each(|child| signal(child.pid, Signal::SIGKILL));
        }
    }
}

/// Sends a signal; whoever is gone needs none.
pub fn signal(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}

/// Whether a process runs (remains do not count).
pub fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

/// A port of 127.0.0.1 that nobody uses.
pub fn free_port() -> Result<u16> {
    Ok(ashlar_runtime::ports::reserve()?.local_addr()?.port())
}

/// Reads lines on a thread, so that waiting for one can end.
fn lines(reader: impl BufRead + Send + 'static) -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        for line in reader.lines().map_while(Result::ok) {
            // Nobody may listen any more; the pipe is emptied all the same.
            let _ = send.send(line);
        }
    });
    receive
}

/// The last lines of a log, indented.
pub fn tail(path: &Path) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    let lines: Vec<_> = text.lines().collect();
    let last: String = lines[lines.len().saturating_sub(15)..].iter().map(|line| format!("    {line}\n")).collect();
    format!("  {}:\n{last}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_that_knows_nothing_of_a_feature_is_told_from_one_that_does() {
        let scratch = Scratch::new("features").expect("a directory");
        let path = scratch.join("ashlar");
        for (bytes, faults, planted) in
            [("..ASHLAR_FAULTS..", true, false), ("ASHLAR_PLANT", false, true), ("ASHLAR_BIN", false, false)]
        {
            std::fs::write(&path, bytes).expect("scratch");
            let has = |feature| has_feature(&path, feature).expect("readable");
            assert_eq!((has("faults"), has("planted")), (faults, planted), "{bytes}");
        }
        assert!(has_feature(&scratch.join("absent"), "faults").is_err());
    }
}
