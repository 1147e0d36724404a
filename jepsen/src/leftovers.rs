//! What a run leaves behind when it is killed: processes, mounts, loop devices, network namespaces, its folders.
//!
//! Everything of a run is found by its folders' names, which have its process's number: processes by their arguments, mounts
//! by where they are, loop devices by their files, namespaces by a list. Nothing of a run whose process lives is touched,
//! but for our own when we are told to end.
//!
//! Owns: finding and removing these. Invariant: what a program of ours started is ended, nothing else.

use crate::cluster::{is_alive, signal};
use crate::command::run;
use crate::hosts::{LEFT, ip};
use crate::scratch::PREFIX;
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal as catch};

const LIMIT: Duration = Duration::from_secs(10);
/// Programs that runs start with paths of theirs.
const PROGRAMS: [&str; 7] = ["ashlar", "nbdfuse", "nbdkit", "etcd", "fio", "sqlite3", "ip"];
/// Something may be started while others are ended.
const ROUNDS: u32 = 3;
/// As shells have it.
const ENDED_BY_SIGNAL: i32 = 130;

/// Clears up after runs that are dead, and from now on after this one when SIGINT or SIGTERM ends it.
pub fn guard() -> Result<()> {
    sweep_dead();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut term, mut int) = {
        let _inside = runtime.enter();
        (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?)
    };
    let wait = move || {
        runtime.block_on(async {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        });
        eprintln!("ended by a signal: clearing up");
        for _ in 0..ROUNDS {
            sweep(std::process::id());
        }
        std::process::exit(ENDED_BY_SIGNAL);
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).context("starting a thread")?;
    Ok(())
}

/// Clears up after all runs whose processes are gone; how many there were.
pub fn sweep_dead() -> usize {
    let dead: BTreeSet<u32> = folders().into_iter().map(|(pid, _)| pid).filter(|pid| !lives(*pid)).collect();
    for pid in &dead {
        eprintln!("clearing up after process {pid}: {} things", sweep(*pid));
    }
    dead.len()
}

fn lives(pid: u32) -> bool {
    i32::try_from(pid).is_ok_and(is_alive)
}

/// Folders of runs, by process.
fn folders() -> Vec<(u32, PathBuf)> {
    let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    let ours = |path: PathBuf| {
        let rest = path.file_name()?.to_str()?.strip_prefix(PREFIX)?.to_string();
        Some((rest.split('-').next()?.parse().ok()?, path))
    };
    entries.filter_map(|entry| ours(entry.path())).collect()
}

/// Ends and removes all that a process left; how many things.
fn sweep(pid: u32) -> usize {
    let mark = std::env::temp_dir().join(format!("{PREFIX}{pid}-")).display().to_string();
    let folders: Vec<PathBuf> =
        folders().into_iter().filter(|(owner, _)| *owner == pid).map(|(_, path)| path).collect();
    let ended = end_processes(&mark);
    let loops = detach_loops(&mark);
    let mounts = unmount(&mark);
    // What was mounted by what was unmounted: processes that waited for it can end now.
    let later = end_processes(&mark);
    folders.iter().for_each(|folder| unplug(&folder.join(LEFT)));
    folders.iter().for_each(|folder| drop(fs::remove_dir_all(folder)));
    ended + later + loops + mounts + folders.len()
}

fn end_processes(mark: &str) -> usize {
    let mut count = 0;
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let is_ours =
            PROGRAMS.iter().any(|program| name.starts_with(program)) && pid != std::process::id().cast_signed();
        if is_ours && String::from_utf8_lossy(&words).contains(mark) {
            signal(pid, Signal::SIGKILL);
            count += 1;
        }
    }
    count
}

fn detach_loops(mark: &str) -> usize {
    let mut count = 0;
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let file = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if file.starts_with(mark) {
            let device = Path::new("/dev").join(entry.file_name()).display().to_string();
            unmount_device(&device);
            count += usize::from(run("/usr/sbin/losetup", &["-d", &device], LIMIT).is_ok());
        }
    }
    count
}

/// What is mounted: devices and places.
fn mounts() -> Vec<(String, String)> {
    let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let pair = |line: &str| {
        let mut words = line.split(' ').map(|word| word.replace("\\040", " "));
        Some((words.next()?, words.next()?))
    };
    text.lines().filter_map(pair).collect()
}

fn unmount_device(device: &str) {
    for (_, place) in mounts().into_iter().filter(|(mounted, _)| mounted == device) {
        // What has no device any more can only be thrown away.
        let _ = run("umount", &["-l", &place], LIMIT);
    }
}

fn unmount(mark: &str) -> usize {
    // The last came on top of those before.
    let ours = mounts().into_iter().rev().filter(|(_, place)| place.starts_with(mark));
    ours.filter(|(_, place)| run("umount", &["-l", place], LIMIT).is_ok()).count()
}

/// Does what a list says to `ip`.
fn unplug(list: &Path) {
    for words in fs::read_to_string(list).unwrap_or_default().lines() {
        // Some of it may be gone.
        let _ = ip(words);
    }
}
