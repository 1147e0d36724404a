//! A run that is killed leaves nothing, or leaves what the next one clears away.

use ashlar_jepsen::cluster::signal;
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const RIG: &str = env!("CARGO_BIN_EXE_ashlar-jepsen");
const LIMIT: Duration = Duration::from_secs(90);

/// Processes, mounts and folders that have the number of a run in their names.
fn left_by(pid: u32) -> Vec<String> {
    let mark = std::env::temp_dir().join(format!("ashlar-jepsen-{pid}-")).display().to_string();
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path().join("cmdline"));
    let words = processes.filter_map(|path| std::fs::read(path).ok());
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    let folders = std::fs::read_dir(std::env::temp_dir()).expect("folders").flatten();
    let all = words.map(|words| String::from_utf8_lossy(&words).replace('\0', " "));
    let all = all.chain(mounts.lines().map(String::from));
    let all = all.chain(folders.map(|entry: std::fs::DirEntry| entry.path().display().to_string()));
    all.filter(|text| text.contains(&mark)).collect()
}

/// A run of a minute, of whose OSDs some run already.
fn started() -> Child {
    let run = Command::new(RIG).args(["soak", "--faults", "calm", "--seconds", "60"]).stderr(Stdio::null()).spawn();
    let run = run.expect("it starts");
    wait(|| left_by(run.id()).iter().filter(|text| text.contains("--id")).count() >= 2);
    run
}

fn wait(mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < LIMIT, "waited for too long");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn pid(run: &Child) -> i32 {
    i32::try_from(run.id()).expect("a number of a process")
}

#[test]
fn nothing_is_left_of_runs_that_are_killed() {
    let binary: PathBuf = ashlar_jepsen::cluster::binary().expect("it is built");
    assert!(binary.exists());
    let mut told = started();
    signal(pid(&told), Signal::SIGTERM);
    assert_eq!(told.wait().expect("it ends").code(), Some(130));
    assert_eq!(left_by(told.id()), Vec::<String>::new());

    let mut killed = started();
    signal(pid(&killed), Signal::SIGKILL);
    killed.wait().expect("it ends");
    assert_ne!(left_by(killed.id()), Vec::<String>::new());
    let cleared = Command::new(RIG).arg("--cleanup").status().expect("it starts");
    assert!(cleared.success());
    assert_eq!(left_by(killed.id()), Vec::<String>::new());
}
