//! What becomes of requests when something outside ends them: a killed process, a file that may not grow. Each test runs
//! a part of itself as a process of its own.

use crate::device::{BLOCK, DEVICE_BYTES, Disk, Real, folders, free_path};
use ashlar_core::buf::{Buf, BufPool};
use ashlar_core::io::{Device, DiskDone, DiskError, DiskOp, IoId};
use ashlar_core::rng::Rng;
use ashlar_runtime::ring::{Alone, DeviceFile};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Tells the process its device.
const DEVICE: &str = "ASHLAR_CONFORMANCE_DEVICE";

/// The device of a process that a test started; `None` when somebody runs all ignored tests.
fn given_device() -> Option<PathBuf> {
    std::env::var_os(DEVICE).map(PathBuf::from)
}

/// A command that runs one test of this program by a shell, after some words of it.
fn part(test: &str, device: &Path, before: &str) -> Command {
    let program = std::env::current_exe().expect("it runs");
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{before} exec \"$0\" \"$@\"")).arg(program);
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]).env(DEVICE, device);
    command
}

fn filled(bufs: &mut BufPool, word: u64, pages: u32) -> Buf {
    let mut buf = bufs.alloc(pages * BLOCK);
    buf.bytes_mut().chunks_exact_mut(8).for_each(|bytes| bytes.copy_from_slice(&word.to_le_bytes()));
    bufs.freeze(buf)
}

const PAGES: u64 = DEVICE_BYTES / BLOCK as u64;
/// Pages of one write at most; each writer has as many of its own, so that writes in flight never meet.
const RUN: u64 = 4;
const WRITERS: u64 = 16;

#[test]
#[ignore = "a part of a_killed_process_leaves_what_completed_and_whole_pages"]
fn writes_until_it_is_killed() {
    let Some(path) = given_device() else { return };
    let file = DeviceFile::open(&path).expect("nobody has it");
    let mut ring = Alone::new(file, None, 1).expect("a ring");
    let (mut rng, mut number) = (Rng::new(u64::from(std::process::id())), 0);
    let mut writer = |ring: &mut Alone, writer: u64| {
        number += 1;
        let pages = u32::try_from(rng.between(1, RUN)).expect("few");
        let places = PAGES / WRITERS / RUN;
        let offset = (writer * places + rng.below(places)) * RUN * u64::from(BLOCK);
        let data = filled(&mut ring.bufs, number, pages);
        // Before it is submitted: the other side knows of all writes that there may be.
        println!("begin {number} {} {pages}", offset / u64::from(BLOCK));
        ring.begin(IoId(number * WRITERS + writer), DiskOp::Write { device: Device::Data, offset, data });
    };
    (0..WRITERS).for_each(|number| writer(&mut ring, number));
    loop {
        ring.wait(None).expect("the ring works");
        while let Some((id, done)) = ring.take() {
            assert_eq!(done, DiskDone::Done(Ok(())));
            println!("done {}", id.0 / WRITERS);
            std::io::stdout().flush().expect("somebody listens");
            writer(&mut ring, id.0 % WRITERS);
        }
    }
}

/// Writes by number: where, how many pages, and whether it was said to be done.
type Begun = BTreeMap<u64, (u64, u64, bool)>;

fn kill_one(path: &Path, lines: usize) -> Begun {
    let mut child =
        part("process::writes_until_it_is_killed", path, "").stdout(Stdio::piped()).spawn().expect("a shell");
    let mut output = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let mut begun = Begun::new();
    for line in output.by_ref().take(lines) {
        note(&mut begun, &line);
    }
    child.kill().expect("it runs");
    // What it said before it died counts as well.
    output.for_each(|line| note(&mut begun, &line));
    child.wait().expect("killed");
    begun
}

fn note(begun: &mut Begun, line: &str) {
    // The first one stands behind the test program's own words.
    let words: Vec<&str> = line.rsplit(" ... ").next().unwrap_or("").split(' ').collect();
    let number = |place: usize| words.get(place).and_then(|word| word.parse::<u64>().ok());
    match (words[0], number(1), number(2), number(3)) {
        ("begin", Some(name), Some(page), Some(pages)) => drop(begun.insert(name, (page, pages, false))),
        ("done", Some(name), ..) => begun.get_mut(&name).expect("begun before").2 = true,
        // The test program's own words.
        _ => {}
    }
}

fn read_all(disk: &mut Real) -> Vec<u64> {
    let len = u32::try_from(DEVICE_BYTES).expect("small");
    disk.submit(IoId(1), DiskOp::Read { device: Device::Data, offset: 0, len });
    let (_, DiskDone::Read(Ok(read))) = disk.finish().remove(0) else { panic!("a read is answered") };
    let page = |bytes: &[u8]| {
        let word = *bytes.first_chunk().expect("a page");
        assert!(bytes.chunks_exact(8).all(|other| other == word), "a page is torn");
        u64::from_le_bytes(word)
    };
    read.bytes().chunks_exact(BLOCK as usize).map(page).collect()
}

/// The simulated disk's rule for the death of a process: what completed stays; each page of what was in flight is written
/// or not, whole; and whoever opens the device next sees no more changes.
#[test]
fn a_killed_process_leaves_what_completed_and_whole_pages() {
    for (folder, lines) in folders().iter().flat_map(|folder| [40, 173, 611].map(|lines| (folder, lines))) {
        let path = free_path(folder);
        DeviceFile::create(&path, DEVICE_BYTES).expect("there is space");
        let begun = kill_one(&path, lines);
        assert!(begun.values().any(|(.., done)| *done));
        let mut disk = Real::open(path);
        let found = read_all(&mut disk);
        for (page, found) in (0..).zip(&found) {
            let there = || begun.iter().filter(|(_, (at, pages, _))| (*at..at + pages).contains(&page));
            let newest_done = there().filter(|(_, (.., done))| *done).map(|(name, _)| *name).max().unwrap_or(0);
            let possible = there().map(|(name, _)| *name).chain([0]).filter(|name| *name >= newest_done);
            assert!(
                possible.into_iter().any(|name| name == *found),
                "page {page} holds {found}, {newest_done} was done"
            );
        }
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(read_all(&mut disk), found, "nothing of the dead process lands later");
    }
}

#[test]
#[ignore = "a part of a_file_that_may_not_grow_has_no_space"]
fn writes_beyond_a_limit() {
    let Some(path) = given_device() else { return };
    let mut disk = Real::open(path);
    let device = Device::Data;
    let (beyond, within) = (filled(disk.bufs(), 1, 1), filled(disk.bufs(), 2, 1));
    disk.submit(IoId(1), DiskOp::Write { device, offset: DEVICE_BYTES / 2, data: beyond });
    disk.submit(IoId(2), DiskOp::Write { device, offset: 0, data: within });
    let done: BTreeMap<IoId, DiskDone> = disk.finish().into_iter().collect();
    assert_eq!(done[&IoId(1)], DiskDone::Done(Err(DiskError::NoSpace)));
    assert_eq!(done[&IoId(2)], DiskDone::Done(Ok(())));
    assert_eq!(read_all(&mut disk)[0], 2, "the rest works");
}

#[test]
fn a_file_that_may_not_grow_has_no_space() {
    for folder in folders() {
        let path = free_path(&folder);
        DeviceFile::create(&path, DEVICE_BYTES).expect("there is space");
        // In units of 512 bytes: a quarter of the device.
        let output = part("process::writes_beyond_a_limit", &path, "ulimit -f 512; trap '' XFSZ;").output();
        let output = output.expect("a shell");
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        // It removes it itself, if it comes to its end.
        let _ = std::fs::remove_file(&path);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }
}
