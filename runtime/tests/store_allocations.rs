//! The object store allocates nothing per operation once it runs (not one in a hundred): counted by an allocator of this test's own.
#![allow(unsafe_code)]

use ashlar_core::buf::{Buf, BufPool};
use ashlar_core::id::{
    ClientId, ClusterUuid, CopyId, Epoch, InodeId, ObjectId, OsdId, PoolId, RequestId, Requests, Role, Session,
    StoreUuid, Version,
};
use ashlar_core::io::{DiskDone, DiskOp, Effect, Effects, Env, IoId};
use ashlar_core::rng::Rng;
use ashlar_core::store::log::{Discarding, Durability, Format, LogStore, OpenConfig, Overwrites, format};
use ashlar_core::store::{Data, Mode, ObjectStore, StoreOp, StoreState};
use ashlar_core::time::{Duration, Time};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: hands every call on to the system's allocator, unchanged; counting touches a constant-initialised cell of
// this thread, which allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`; the memory came from the same allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const BLOCK: u32 = 128 << 10;
const OBJECTS: u64 = 200;

struct World {
    store: LogStore,
    rng: Rng,
    bufs: BufPool,
    out: Effects,
    now: Time,
    media: Vec<u8>,
    waiting: Vec<(IoId, DiskOp)>,
    seqs: Vec<u64>,
    busy: Vec<bool>,
    small: Buf,
    large: Buf,
}

impl World {
    fn new() -> World {
        let data_bytes = OBJECTS * u64::from(BLOCK) * 12 / 10 + (4 << 20);
        let (cluster, osd) = (ClusterUuid(1), OsdId(1));
        let wanted = Format {
            cluster,
            osd,
            store: StoreUuid(2),
            block_size: BLOCK,
            data_bytes,
            log_device_bytes: None,
            log_bytes: None,
            segment_bytes: None,
        };
        let mut media = vec![0; data_bytes as usize];
        let (mut rng, mut bufs, mut out) = (Rng::new(1), BufPool::new(), Effects::default());
        for op in format(&wanted, &mut bufs).unwrap() {
            if let DiskOp::Write { offset, data, .. } = op {
                media[offset as usize..][..data.len() as usize].copy_from_slice(data.bytes());
            }
        }
        let config = OpenConfig {
            overwrites: Overwrites { atomic_bytes: 4096, ..Overwrites::default() },
            discards: Some(Discarding::USUAL),
            ..OpenConfig::new(cluster, osd, data_bytes, Durability::Plp)
        };
        let mut env = Env { now: Time(0), rng: &mut rng, bufs: &mut bufs, out: &mut out };
        let store = LogStore::open(config, &mut env);
        let (small, large) = (bufs.copy_of(&[3; 4096]), bufs.copy_of(&vec![5; BLOCK as usize]));
        let (seqs, busy) = (vec![0; OBJECTS as usize], vec![false; OBJECTS as usize]);
        let waiting = Vec::new();
        World { store, rng, bufs, out, now: Time(0), media, waiting, seqs, busy, small, large }
    }

    /// One round of an event loop: everything that is on its way completes.
    fn round(&mut self) -> usize {
        let mut env = Env { now: self.now, rng: &mut self.rng, bufs: &mut self.bufs, out: &mut self.out };
        self.store.end_of_round(&mut env);
        for effect in env.out.queue.drain(..) {
            if let Effect::Io { id, op } = effect {
                self.waiting.push((id, op));
            }
        }
        for (id, op) in self.waiting.drain(..) {
            let done = match op {
                DiskOp::Read { offset, len, .. } => {
                    DiskDone::Read(Ok(env.bufs.copy_of(&self.media[offset as usize..][..len as usize])))
                }
                DiskOp::Write { offset, data, .. } => {
                    self.media[offset as usize..][..data.len() as usize].copy_from_slice(data.bytes());
                    DiskDone::Done(Ok(()))
                }
                DiskOp::Flush { .. } | DiskOp::Discard { .. } => DiskDone::Done(Ok(())),
            };
            self.store.handle_io(&mut env, id, done);
        }
        self.now = self.now + Duration::micros(20);
        let mut done = 0;
        while let Some(completion) = self.store.next_completion() {
            completion.result.unwrap();
            self.busy[usize::try_from(completion.token).unwrap()] = false;
            done += 1;
        }
        done
    }

    fn copy(stripe: u64) -> CopyId {
        CopyId { object: ObjectId { pool: PoolId(1), inode: InodeId(1), stripe }, role: Role(0) }
    }

    fn submit(&mut self, object: u64, read: bool, whole: bool) {
        let at = usize::try_from(object).unwrap();
        self.busy[at] = true;
        let offset = if whole { 0 } else { u32::try_from(self.rng.below(32)).unwrap() * 4096 };
        let buf = if whole { self.large.clone() } else { self.small.clone() };
        let op = if read {
            StoreOp::Read { copy: Self::copy(object), version: None, offset, len: buf.len() }
        } else {
            let seq = self.seqs[at];
            self.seqs[at] += 1;
            let of = |seq: u64| if seq == 0 { Version::NONE } else { Version { epoch: Epoch(1), seq } };
            let session = Session { client: ClientId(1), number: 1 };
            let mut requests = Requests::new();
            requests.push(RequestId { session, number: seq });
            StoreOp::Write {
                copy: Self::copy(object),
                version: of(seq + 1),
                predecessor: of(seq),
                offset,
                data: Some(Data::new(buf)),
                mode: Mode::Plain,
                commits_predecessor: false,
                requests,
            }
        };
        let env = &mut Env { now: self.now, rng: &mut self.rng, bufs: &mut self.bufs, out: &mut self.out };
        self.store.submit(env, object, op);
    }

    /// A mix of small and whole writes and reads, 32 at a time.
    fn run(&mut self, operations: usize) {
        let (mut begun, mut done) = (0, 0);
        while done < operations {
            while begun < operations && begun - done < 32 {
                let object = self.rng.below(OBJECTS);
                if self.busy[usize::try_from(object).unwrap()] {
                    break;
                }
                let (read, whole) = (self.rng.chance(1, 3), self.rng.chance(1, 16));
                self.submit(object, read, whole);
                begun += 1;
            }
            done += self.round();
        }
    }
}

#[test]
fn steady_state_allocates_nothing() {
    let mut world = World::new();
    while world.store.state() == StoreState::Opening {
        world.round();
    }
    for object in 0..OBJECTS {
        world.submit(object, false, true);
        while world.busy[usize::try_from(object).unwrap()] {
            world.round();
        }
    }
    world.run(60_000);
    let (before, bufs) = (COUNT.get(), world.bufs.allocated());
    world.run(20_000);
    let (allocations, bufs) = (COUNT.get() - before, world.bufs.allocated() - bufs);
    // The pool of buffers still grows now and then, as its search for a free one gives up early.
    assert!(allocations <= 200, "{allocations} allocations for 20000 operations, {bufs} of them for new buffers");
}
