//! A store that is filled until nothing fits: what deletes, commits, rolls back and cleans always has room, also after a
//! power loss, and gives everything back.

use super::device::Loss;
use super::world::{BLOCK, Shape, World, copy, open_config};
use super::{Durability, SHAPE};
use crate::id::{CopyId, Epoch, Requests, Version};
use crate::io::Env;
use crate::rng::Rng;
use crate::store::log::LogStore;
use crate::store::{Data, Mode, ObjectStore, StoreError, StoreOp, StoreReply, StoreState};
use std::collections::{BTreeMap, BTreeSet};

struct Full {
    world: World,
    /// Objects that are tried.
    objects: u64,
    settled: u64,
    rng: Rng,
    /// Operations that wait, by object.
    waiting: BTreeMap<u64, (u64, StoreOp)>,
    /// Objects of which something was refused.
    refused: BTreeSet<u64>,
}

impl Full {
    fn new(shape: Shape, seed: u64) -> Full {
        let (world, rng, objects) = (World::new(shape, seed), Rng::new(seed + 77), shape.blocks * 3 / 2 + 10);
        Full { world, objects, settled: 0, rng, waiting: BTreeMap::new(), refused: BTreeSet::new() }
    }

    /// Until nothing goes on by itself.
    fn settle(&mut self) {
        let mut quiet = 0;
        for round in 0.. {
            assert!(round < 5000, "it goes on for ever: {}", self.world.store.describe());
            if quiet == 3 {
                break;
            }
            quiet = if self.round() { 0 } else { quiet + 1 };
            self.take();
        }
        self.settled += 1;
        if self.settled.is_multiple_of(16) {
            self.world.store.check();
        }
    }

    fn take(&mut self) {
        while let Some(completion) = self.world.store.next_completion() {
            let found = self.waiting.iter().find(|(_, (token, _))| *token == completion.token);
            let stripe = *found.expect("answered once").0;
            self.waiting.remove(&stripe);
            match completion.result {
                Ok(StoreReply::Done | StoreReply::Applied) => {}
                Err(StoreError::NoSpace) => drop(self.refused.insert(stripe)),
                other => panic!("{stripe}: {other:?}"),
            }
        }
    }

    fn newest(&self, stripe: u64) -> (Version, bool, bool) {
        let info = self.world.store.lookup(copy(stripe));
        let prepared = info.as_ref().is_some_and(|info| info.prepared.is_some());
        let newest = info.as_ref().and_then(|info| info.prepared.as_ref().or(info.committed.as_ref()));
        newest.map_or((Version::NONE, false, false), |info| (info.version, prepared, info.tombstone))
    }

    fn submit(&mut self, stripe: u64, op: StoreOp) {
        let token = self.world.submit(op.clone());
        self.waiting.insert(stripe, (token, op));
        self.world.dispatch();
    }

    fn write(&mut self, stripe: u64, len: u32, mode: Mode) {
        let (predecessor, commits_predecessor, _) = self.newest(stripe);
        let mut buf = self.world.bufs.alloc(len);
        buf.bytes_mut().fill(self.rng.next_u64() as u8);
        let data = (len > 0).then(|| Data::new(self.world.bufs.freeze(buf)));
        let (offset, requests) = (0, Requests::new());
        let version = Version { epoch: Epoch(1), seq: predecessor.seq + 1 };
        let copy: CopyId = copy(stripe);
        let op = StoreOp::Write { copy, version, predecessor, offset, data, mode, commits_predecessor, requests };
        self.submit(stripe, op);
    }

    /// New objects, with data or without, until none fits; then overwrites until one waits.
    fn fill(&mut self) {
        for stripe in 0..self.objects {
            let len = if self.rng.chance(1, 5) { 0 } else { BLOCK };
            self.write(stripe, len, Mode::Plain);
            if self.waiting.len() == 8 || stripe + 1 == self.objects {
                self.settle();
                assert!(self.waiting.is_empty(), "creating waits for ever");
            }
        }
        assert!(!self.refused.is_empty(), "something did not fit");
        for _ in 0..(self.objects * 2).min(400) {
            let stripe = self.rng.below(self.objects);
            let exists = self.newest(stripe).0 != Version::NONE;
            if exists && !self.waiting.contains_key(&stripe) {
                let mode = if self.rng.chance(3, 4) { Mode::Prepare } else { Mode::Plain };
                let len = [512, 4096, BLOCK / 2][self.rng.below(3) as usize];
                self.write(stripe, len, mode);
                self.settle();
            }
        }
    }

    /// Overwrites, so many at any time, until so many are done: whatever becomes free is taken at once.
    fn crowd(&mut self, depth: usize, writes: u64) {
        let (mut begun, mut idle) = (0, 0);
        while begun < writes || !self.waiting.is_empty() {
            while begun < writes && self.waiting.len() < depth {
                let stripe = (begun * 7) % self.objects;
                if self.waiting.contains_key(&stripe) {
                    break;
                }
                self.write(stripe, 4096, Mode::Plain);
                begun += 1;
            }
            let before = self.waiting.len();
            self.round();
            self.take();
            idle = if self.waiting.len() < before { 0 } else { idle + 1 };
            assert!(idle < 5000, "{begun} writes: {}", self.world.store.describe());
        }
        assert!(self.refused.is_empty(), "overwrites are never refused");
    }

    /// A round, and whatever the device has to do then; the next deadline comes at once.
    /// Whether the device had anything to do.
    fn round(&mut self) -> bool {
        let Full { world, .. } = self;
        let env = &mut Env { now: world.now, rng: &mut world.rng, bufs: &mut world.bufs, out: &mut world.out };
        world.store.end_of_round(env);
        world.dispatch();
        let works = world.outstanding() > 0;
        while world.outstanding() > 0 {
            let (id, done) = world.data.complete(&mut world.rng, &mut world.bufs);
            let env = &mut Env { now: world.now, rng: &mut world.rng, bufs: &mut world.bufs, out: &mut world.out };
            world.store.handle_io(env, id, done);
            world.dispatch();
        }
        if let Some(at) = world.store.next_deadline() {
            world.now = world.now.max(at);
        }
        works
    }

    fn crash(&mut self) {
        self.world.crash_devices(Loss::Power);
        let Full { world, .. } = self;
        let env = &mut Env { now: world.now, rng: &mut world.rng, bufs: &mut world.bufs, out: &mut world.out };
        world.store = LogStore::open(open_config(&world.shape), env);
        world.open_fully();
        assert_eq!(world.store.state(), StoreState::Open { trusted: true });
        self.waiting.clear();
    }

    /// Something that ends: it must be answered, whatever else waits. Only what itself is to be ended later may wait for the
    /// end of others of its kind.
    fn end(&mut self, stripe: u64, op: StoreOp) {
        self.refused.clear();
        self.submit(stripe, op.clone());
        self.settle();
        let lasts = matches!(op, StoreOp::Tombstone { mode: Mode::Prepare, .. });
        let waiting = |stripe: u64| self.waiting.contains_key(&stripe);
        let others = (0..self.objects).any(|other| !waiting(other) && self.newest(other).1);
        let waits = waiting(stripe) && !(lasts && others);
        let refused = self.refused.contains(&stripe);
        assert!(!waits && !refused, "{op:?} of {stripe} has no room: {}", self.world.store.describe());
    }

    /// Ends what is prepared, and deletes everything.
    fn empty(&mut self) {
        loop {
            let blocked = self.waiting.clone();
            let free = |stripe: &u64| !blocked.contains_key(stripe);
            let live: Vec<u64> =
                (0..self.objects).filter(free).filter(|stripe| self.newest(*stripe).0 != Version::NONE).collect();
            if live.is_empty() {
                assert!(self.waiting.is_empty(), "waits for ever: {}", self.world.store.describe());
                return;
            }
            for stripe in live {
                let (newest, prepared, tombstone) = self.newest(stripe);
                let (copy, requests) = (copy(stripe), Requests::new());
                let version = Version { epoch: Epoch(1), seq: newest.seq + 1 };
                let op = match () {
                    () if self.waiting.contains_key(&stripe) => continue,
                    () if prepared && self.rng.chance(1, 2) => StoreOp::Commit { copy, version: newest },
                    () if prepared => StoreOp::Rollback { copy, version: newest },
                    () if tombstone => StoreOp::Purge { copy, version: newest },
                    () if self.rng.chance(1, 3) => StoreOp::Remove { copy, version: newest },
                    () => {
                        let mode = if self.rng.chance(1, 2) { Mode::Prepare } else { Mode::Plain };
                        StoreOp::Tombstone { copy, version, predecessor: newest, mode, requests }
                    }
                };
                self.end(stripe, op);
            }
        }
    }
}

fn run(shape: Shape, seed: u64) {
    let mut full = Full::new(shape, seed);
    let free = full.world.store.stats().free_bytes;
    full.fill();
    if seed.is_multiple_of(2) {
        full.crash();
    }
    full.empty();
    // What was overwritten meanwhile pushes the rest of the log out.
    for round in 0..300 {
        full.write(round % 3, BLOCK, Mode::Plain);
        full.settle();
    }
    full.empty();
    let stats = full.world.store.stats();
    assert_eq!((stats.objects, stats.tombstones), (0, 0));
    assert!(stats.free_bytes * 10 >= free * 9, "{} of {free} are free again", stats.free_bytes);
    assert!(stats.log_used_bytes * 10 <= stats.log_total_bytes * 9, "{stats:?}");
}

fn shapes() -> [Shape; 5] {
    let shape = Shape { objects: 0, blocks: 60, ..SHAPE };
    [
        shape,
        Shape { blocks: 8, ..shape },
        Shape { blocks: 1000, ..shape },
        Shape { durability: Durability::Flush, blocks: 120, ..shape },
        Shape { durability: Durability::Lazy, ..shape },
    ]
}

#[test]
pub fn a_full_store_can_always_delete_commit_roll_back_and_clean() {
    shapes().into_iter().take(2).for_each(|shape| run(shape, 0));
}

/// `STORE_SEEDS` says how many seeds.
#[test]
fn full_stores_of_all_shapes() {
    let seeds = std::env::var("STORE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    for seed in 0..seeds {
        shapes().into_iter().for_each(|shape| run(shape, seed));
    }
}

#[test]
fn a_busy_log_is_cleaned_although_clients_take_at_once_what_becomes_free() {
    // More wait at any time than a turn of cleaning makes room for.
    let mut full = Full::new(Shape { objects: 0, blocks: 1000, ..SHAPE }, 1);
    full.objects = 600;
    full.crowd(400, 60_000);
}
