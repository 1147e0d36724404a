//! `kill -9` in a loop: a process writes to a store on a real file and tells what was acknowledged; it is killed, and what
//! the store then shows must be every acknowledged version, or a later one that was asked for, byte by byte.
//!
//! What a version of an object is follows from the object and the version alone, so the judge needs no memory of the
//! writer. The writer is this program again, started for one test. The long form: `cargo test --release -p ashlar-runtime
//! --test store_killed -- --ignored killed_two_hundred_times --nocapture`.
//!
//! Some writers may register neither files nor memory with the kernel: the store must do without.
#![allow(unsafe_code)]

use ashlar_core::buf::{Buf, UNIT};
use ashlar_core::id::{
    ClusterUuid, CopyId, Epoch, InodeId, ObjectId, OsdId, PoolId, Requests, Role, StoreUuid, Version,
};
use ashlar_core::io::IoId;
use ashlar_core::rng::Rng;
use ashlar_core::store::log::{Discarding, Durability, Format, LogStore, OpenConfig, Overwrites, Way, format};
use ashlar_core::store::{Content, Data, Mode, ObjectStore, StoreOp, StoreReply, StoreState};
use ashlar_core::time::Duration;
use ashlar_runtime::ring::{self, Alone, DeviceFile};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const BLOCK: u32 = 64 << 10;
const OBJECTS: u64 = 48;
const BYTES: u64 = 16 << 20;
/// Tells the writer where the store is.
const PLACE: &str = "ASHLAR_KILLED_STORE";
/// Tells it that the kernel is to refuse to register files and memory.
const REFUSED: &str = "ASHLAR_REFUSED";
/// Number of the capability to lock memory without a limit.
const CAP_IPC_LOCK: u32 = 14;

/// What a version does to its object.
enum Change {
    Write { offset: u32, len: u32, prepared: bool },
    Zero { offset: u32, len: u32 },
    Delete,
}

/// The change that makes this version of an object.
fn change(object: u64, seq: u64) -> Change {
    let mut rng = Rng::new(object << 32 | seq);
    let small = |rng: &mut Rng, below: u32| u32::try_from(rng.below(below.into())).expect("below a u32");
    let prepared = rng.chance(1, 4);
    match rng.below(16) {
        0 => Change::Delete,
        1 => Change::Zero { offset: small(&mut rng, 15) * UNIT, len: UNIT },
        2..=4 => Change::Write { offset: 0, len: BLOCK, prepared },
        5..=6 => Change::Write { offset: small(&mut rng, 120) * 512, len: 512 * (1 + small(&mut rng, 7)), prepared },
        _ => Change::Write { offset: small(&mut rng, 16) * UNIT, len: UNIT, prepared },
    }
}

/// Its bytes, from `offset` on.
fn fill(object: u64, seq: u64, offset: u32, bytes: &mut [u8]) {
    for (number, word) in (0u64..).zip(bytes.chunks_mut(8)) {
        let at = u64::from(offset) + number * 8;
        let value = (object << 48 | seq << 24 | at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word.copy_from_slice(&value.to_le_bytes()[..word.len()]);
    }
}

/// All bytes of a version; none: it is deleted.
fn expected(object: u64, seq: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; BLOCK as usize];
    let mut exists = false;
    for seq in 1..=seq {
        let (is, range) = match change(object, seq) {
            Change::Delete => (false, 0..BLOCK),
            Change::Zero { offset, len } | Change::Write { offset, len, .. } => (true, offset..offset + len),
        };
        exists = is;
        let range = range.start as usize..range.end as usize;
        match change(object, seq) {
            Change::Write { offset, .. } => fill(object, seq, offset, &mut bytes[range]),
            _ => bytes[range].fill(0),
        }
    }
    exists.then_some(bytes)
}

fn copy(object: u64) -> CopyId {
    CopyId { object: ObjectId { pool: PoolId(1), inode: InodeId(1), stripe: object }, role: Role(0) }
}

fn version(seq: u64) -> Version {
    if seq == 0 { Version::NONE } else { Version { epoch: Epoch(1), seq } }
}

/// This thread may not lock more memory than the limit says. Root could.
fn obey_memory_limit() {
    // As linux/capability.h has it: version 3, this thread; then effective, permitted and inheritable, twice 32 of each.
    let mut header: [u32; 2] = [0x2008_0522, 0];
    let mut sets = [[0u32; 3]; 2];
    // SAFETY: both calls get the header and the sets in the form that this version has.
    let result = unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    sets[0][0] &= !(1 << CAP_IPC_LOCK);
    // SAFETY: as above.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), sets.as_ptr()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// From now on this process may lock no memory, and have no more files than it has: the kernel registers neither.
fn allow_nothing_more() {
    for resource in [libc::RLIMIT_MEMLOCK, libc::RLIMIT_NOFILE] {
        let limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the kernel only reads the limit.
        assert_eq!(unsafe { libc::setrlimit(resource, &limit) }, 0, "{}", std::io::Error::last_os_error());
    }
}

/// A store on a file.
struct OnFile {
    alone: Alone,
    store: LogStore,
}

impl OnFile {
    fn build(path: &Path) {
        DeviceFile::create(path, BYTES).unwrap();
        let mut alone = Alone::new(DeviceFile::open(path).unwrap(), None, 1).unwrap();
        let format_of = Format {
            cluster: ClusterUuid(1),
            osd: OsdId(1),
            store: StoreUuid(1),
            block_size: BLOCK,
            data_bytes: BYTES,
            log_device_bytes: None,
            // Small, so that it is cleaned all the time.
            log_bytes: Some(2 << 20),
            segment_bytes: Some(160 << 10),
        };
        let ops = format(&format_of, &mut alone.bufs).unwrap();
        for (number, op) in (0..).zip(ops) {
            alone.begin(IoId(number), op);
            while alone.in_flight() > 0 {
                alone.wait(None).unwrap();
                alone.take();
            }
        }
    }

    fn open(path: &Path, atomic_bytes: u32) -> OnFile {
        let device = DeviceFile::open(path).unwrap();
        let durability = match device.durability {
            ring::Durability::Completed => Durability::Plp,
            ring::Durability::Flushed => Durability::Flush,
        };
        let config = OpenConfig {
            overwrites: Overwrites { way: Way::Auto, atomic_bytes },
            scrub: Duration::secs(1),
            discards: Some(Discarding { rest: Duration::millis(1), pause: Duration::micros(100) }),
            ..OpenConfig::new(ClusterUuid(1), OsdId(1), device.size_bytes, durability)
        };
        let mut alone = Alone::new(device, None, 1).unwrap();
        let store = alone.call(|env| LogStore::open(config, env));
        let mut open = OnFile { alone, store };
        while open.store.state() == StoreState::Opening {
            open.complete();
        }
        assert_eq!(open.store.state(), StoreState::Open { trusted: true }, "after a kill");
        open.store.check();
        open
    }

    fn complete(&mut self) {
        let OnFile { alone, store } = self;
        let idle = Duration::millis(1);
        alone.wait(Some(idle)).unwrap();
        while let Some((id, done)) = alone.take() {
            alone.call(|env| store.handle_io(env, id, done));
        }
    }

    fn round(&mut self) {
        let OnFile { alone, store } = self;
        alone.call(|env| store.end_of_round(env));
        self.complete();
    }

    fn submit(&mut self, token: u64, op: StoreOp) {
        let OnFile { alone, store } = self;
        alone.call(|env| store.submit(env, token, op));
    }

    /// Sequences of the committed version, and of the newest.
    fn seqs(&self, object: u64) -> (u64, u64) {
        let info = self.store.lookup(copy(object));
        let committed = info.as_ref().and_then(|info| info.committed.as_ref()).map_or(0, |info| info.version.seq);
        let prepared = info.as_ref().and_then(|info| info.prepared.as_ref()).map_or(0, |info| info.version.seq);
        (committed, committed.max(prepared))
    }

    fn read(&mut self, object: u64) -> Option<Vec<u8>> {
        self.submit(object, StoreOp::ReadAll { copy: copy(object), version: None });
        loop {
            if let Some(completion) = self.store.next_completion() {
                let reply = completion.result.unwrap_or_else(|error| panic!("object {object}: {error:?}"));
                let StoreReply::Whole { content, .. } = reply else { panic!("{reply:?}") };
                let Content::Data { data, .. } = content else { return None };
                let mut bytes = data.buf.bytes().to_vec();
                bytes.resize(BLOCK as usize, 0);
                return Some(bytes);
            }
            self.round();
        }
    }

    fn change(&mut self, object: u64, seq: u64) -> StoreOp {
        let (copy, requests) = (copy(object), Requests::new());
        let (version, predecessor) = (version(seq), version(seq - 1));
        match change(object, seq) {
            Change::Delete => StoreOp::Tombstone { copy, version, predecessor, mode: Mode::Plain, requests },
            Change::Zero { offset, len } => {
                StoreOp::Zero { copy, version, predecessor, offset, len, mode: Mode::Plain, requests }
            }
            Change::Write { offset, len, prepared } => {
                let mut buf = self.alone.bufs.alloc(len);
                fill(object, seq, offset, buf.bytes_mut());
                let data: Buf = self.alone.bufs.freeze(buf);
                let mode = if prepared { Mode::Prepare } else { Mode::Plain };
                let (data, commits_predecessor) = (Some(Data::new(data)), false);
                StoreOp::Write { copy, version, predecessor, offset, data, mode, commits_predecessor, requests }
            }
        }
    }
}

/// Writes until it is killed, and tells each object and sequence that was acknowledged.
#[test]
#[ignore = "the process that the other tests kill"]
fn writer() {
    let Some(path) = std::env::var_os(PLACE) else { return };
    let refused = std::env::var_os(REFUSED).is_some();
    if refused {
        obey_memory_limit();
    }
    let mut open = OnFile::open(Path::new(&path), 0);
    if refused {
        allow_nothing_more();
        open.alone.set_registered(true);
    }
    let known = open.alone.calls().1;
    let mut told = std::io::stdout().lock();
    for object in 0..OBJECTS {
        let (committed, newest) = open.seqs(object);
        begin(&mut open, object, committed, newest);
    }
    loop {
        open.round();
        assert!(!refused || open.alone.calls().1 == known, "the kernel registers memory nevertheless");
        let mut acknowledged = Vec::new();
        while let Some(completion) = open.store.next_completion() {
            let object = completion.token;
            assert_eq!(completion.result, Ok(StoreReply::Done));
            let (committed, newest) = open.seqs(object);
            if committed == newest {
                acknowledged.extend(object.to_le_bytes().into_iter().chain(committed.to_le_bytes()));
            }
            begin(&mut open, object, committed, newest);
        }
        told.write_all(&acknowledged).unwrap();
        told.flush().unwrap();
    }
}

/// The next operation of an object: commits what is prepared.
fn begin(open: &mut OnFile, object: u64, committed: u64, newest: u64) {
    let op = match newest > committed {
        true => StoreOp::Commit { copy: copy(object), version: version(newest) },
        false => open.change(object, newest + 1),
    };
    open.submit(object, op);
}

/// What a writer told until it was killed.
fn write_and_kill(path: &Path, refused: bool, lives: std::time::Duration) -> Vec<(u64, u64)> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    if refused {
        command.env(REFUSED, "1");
    }
    let mut child = command
        .args(["--exact", "writer", "--ignored", "--nocapture", "--quiet"])
        .env(PLACE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdout.take().unwrap();
    let (writes, begun) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let (mut all, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            let count = pipe.read(&mut piece).unwrap();
            if count == 0 {
                return all;
            }
            all.extend_from_slice(&piece[..count]);
            // The harness has said less.
            if all.len() > 64 {
                let _ = writes.send(());
            }
        }
    });
    begun.recv_timeout(std::time::Duration::from_secs(60)).expect("the writer writes");
    std::thread::sleep(lives);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(status.code().is_none(), "the writer ended by itself: {status}");
    let all = reader.join().unwrap();
    // The test harness says something first.
    let begin = all.windows(2).position(|two| two == b"t\n").map_or(0, |at| at + 2);
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    all[begin..].chunks_exact(16).map(|pair| (number(&pair[..8]), number(&pair[8..]))).collect()
}

fn kill_repeatedly(folder: &Path, refused: bool, cycles: u64) {
    let path: PathBuf = folder.join(format!("ashlar-killed-{}-{refused}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    OnFile::build(&path);
    let mut rng = Rng::new(11);
    let mut known = vec![0u64; OBJECTS as usize];
    let (mut acknowledged, mut beyond) = (0, 0);
    for cycle in 0..cycles {
        let told = write_and_kill(&path, refused, std::time::Duration::from_millis(10 + rng.below(120)));
        acknowledged += told.len();
        for (object, seq) in told {
            let known = &mut known[usize::try_from(object).unwrap()];
            *known = seq.max(*known);
        }
        let mut open = OnFile::open(&path, 0);
        for object in 0..OBJECTS {
            let at_least = known[usize::try_from(object).unwrap()];
            let (committed, newest) = open.seqs(object);
            assert!(committed >= at_least, "cycle {cycle}: object {object} is at {committed}, {at_least} was told");
            if newest > 0 {
                assert_eq!(open.read(object), expected(object, newest), "cycle {cycle}: object {object} at {newest}");
            }
            beyond += u64::from(committed > at_least);
            known[usize::try_from(object).unwrap()] = committed;
        }
    }
    std::fs::remove_file(&path).unwrap();
    eprintln!("{cycles} kills, {acknowledged} acknowledged changes, {beyond} that were not told of");
    assert!(acknowledged as u64 > cycles, "the writer hardly wrote");
}

#[test]
fn nothing_is_lost_when_the_process_is_killed() {
    kill_repeatedly(&std::env::temp_dir(), false, 6);
    kill_repeatedly(Path::new("/dev/shm"), false, 4);
}

/// What is not registered must be used in another way: without a ring's numbers for files, without its places for memory.
#[test]
fn nothing_is_lost_where_the_kernel_registers_neither_files_nor_memory() {
    kill_repeatedly(&std::env::temp_dir(), true, 3);
}

#[test]
#[ignore = "a minute; the short form is in every run"]
fn killed_two_hundred_times() {
    kill_repeatedly(&std::env::temp_dir(), false, 200);
}
