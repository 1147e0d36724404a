//! Every sequence of up to three operations, on top of several states, with a power loss wherever writes are pending, and
//! every subset of their sectors; a crash while the store opens; and what comes after it.
//!
//! Sectors of a pending write that equal what the device has already make no difference, and are not counted; where more
//! than ten of them differ, neighbours are taken together. Power losses that leave the same bytes, with the same states
//! allowed, are looked at once. `STORE_EXHAUSTIVE=1` takes all patterns of submission and all states to begin with.

use super::intents;
use super::world::{BLOCK, Seen, Shape, content, copy, open_config, run_model, see_model, versions, wanted, written};
use super::{Durability, SHAPE};
use crate::buf::{Buf, BufPool};
use crate::id::{Epoch, Requests, Version};
use crate::io::{DiskDone, DiskOp, Effect, Effects, Env, IoId};
use crate::rng::Rng;
use crate::store::log::{Life, LogStore, format};
use crate::store::model::ModelStore;
use crate::store::{Bitmap, Content, Data, Mode, ObjectStore, StoreOp, StoreReply, StoreState};
use crate::time::{Duration, Time};
use std::collections::{HashSet, VecDeque};
use std::rc::Rc;

const SECTOR: usize = 512;
const PAGE: usize = 4096;
/// Pending sectors, or groups of them, of which every subset is tried; fewer where three steps pend at once, unless all
/// is wanted.
const PENDING_MOST: usize = 10;

/// What is done to the object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Whole,
    First,
    Second,
    Part,
    PrepareFirst,
    PrepareWhole,
    VersionOnly,
    Zero,
    Commit,
    Rollback,
    Tombstone,
    Purge,
    ReplaceLower,
    Compact,
    Snapshot,
    Other,
}
use Step::*;

const STEPS: [Step; 16] = [
    Whole,
    First,
    Second,
    Part,
    PrepareFirst,
    PrepareWhole,
    VersionOnly,
    Zero,
    Commit,
    Rollback,
    Tombstone,
    Purge,
    ReplaceLower,
    Compact,
    Snapshot,
    Other,
];

/// States to begin with: nothing, a block, a block with an overlay, an overlay that is prepared.
const BASES: [&[Step]; 4] = [&[], &[Whole], &[Whole, Part], &[Whole, PrepareFirst]];

/// Which of the requests completes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    Oldest,
    Newest,
}

#[derive(Clone)]
struct Pending {
    id: IoId,
    offset: usize,
    data: Buf,
    completed: bool,
    covered: Option<IoId>,
}

#[derive(Clone)]
enum Request {
    Write(IoId),
    Read(IoId, usize, usize),
    Flush(IoId),
    Discard(IoId),
}

/// A device of which copies are cheap.
#[derive(Clone)]
struct Disk {
    pages: Vec<Option<Rc<[u8; PAGE]>>>,
    writes: Vec<Pending>,
    requests: Vec<Request>,
    volatile: bool,
    atomic: usize,
    /// Of the size of the largest read.
    zeroes: Buf,
    /// What is in a page that was discarded.
    given_up: Rc<[u8; PAGE]>,
}

impl Disk {
    fn put(pages: &mut [Option<Rc<[u8; PAGE]>>], offset: usize, bytes: &[u8]) {
        for (at, sector) in bytes.chunks(SECTOR).enumerate() {
            let place = offset + at * SECTOR;
            let page = pages[place / PAGE].get_or_insert_with(|| Rc::new([0; PAGE]));
            Rc::make_mut(page)[place % PAGE..][..SECTOR].copy_from_slice(sector);
        }
    }

    fn sector(&self, place: usize) -> &[u8] {
        self.pages[place / PAGE].as_ref().map_or(&[0; SECTOR][..], |page| &page[place % PAGE..][..SECTOR])
    }

    fn submit(&mut self, id: IoId, op: DiskOp) {
        match op {
            DiskOp::Read { offset, len, .. } => self.requests.push(Request::Read(id, offset as usize, len as usize)),
            DiskOp::Write { offset, data, .. } => {
                self.requests.push(Request::Write(id));
                self.writes.push(Pending { id, offset: offset as usize, data, completed: false, covered: None });
            }
            DiskOp::Flush { .. } => {
                for write in self.writes.iter_mut().filter(|write| write.completed && write.covered.is_none()) {
                    write.covered = Some(id);
                }
                self.requests.push(Request::Flush(id));
            }
            DiskOp::Discard { offset, len, .. } => {
                // It takes effect at once: what it may do at worst.
                let (first, end) = (offset as usize / PAGE, (offset + len) as usize / PAGE);
                self.pages[first..end].fill(Some(self.given_up.clone()));
                self.requests.push(Request::Discard(id));
            }
        }
    }

    fn complete(&mut self, order: Order, bufs: &mut BufPool) -> (IoId, DiskDone) {
        let at = if order == Order::Oldest { 0 } else { self.requests.len() - 1 };
        match self.requests.remove(at) {
            Request::Read(id, offset, len) => (id, DiskDone::Read(Ok(self.read(offset, len, bufs)))),
            Request::Write(id) => {
                let place = self.writes.iter().position(|write| write.id == id && !write.completed).unwrap();
                let mut write = self.writes.remove(place);
                write.completed = true;
                if self.volatile {
                    let behind = self.writes.iter().take_while(|write| write.completed).count();
                    self.writes.insert(behind, write);
                } else {
                    Disk::put(&mut self.pages, write.offset, write.data.bytes());
                }
                (id, DiskDone::Done(Ok(())))
            }
            Request::Flush(id) => {
                for write in self.writes.iter().filter(|write| write.covered == Some(id)) {
                    Disk::put(&mut self.pages, write.offset, write.data.bytes());
                }
                self.writes.retain(|write| write.covered != Some(id));
                (id, DiskDone::Done(Ok(())))
            }
            Request::Discard(id) => (id, DiskDone::Done(Ok(()))),
        }
    }

    fn read(&self, offset: usize, len: usize, bufs: &mut BufPool) -> Buf {
        let touches =
            |write: &Pending| write.offset < offset + len && offset < write.offset + write.data.len() as usize;
        let blank = self.pages[offset / PAGE..(offset + len).div_ceil(PAGE)].iter().all(Option::is_none);
        if blank && !self.writes.iter().any(touches) {
            return self.zeroes.slice(0, u32::try_from(len).unwrap());
        }
        let mut buf = bufs.zeroed(u32::try_from(len).unwrap());
        for at in (0..len).step_by(SECTOR) {
            if self.pages[(offset + at) / PAGE].is_some() {
                buf.bytes_mut()[at..at + SECTOR].copy_from_slice(self.sector(offset + at));
            }
        }
        for write in self.writes.iter().filter(|write| write.completed) {
            for (at, sector) in write.data.bytes().chunks(SECTOR).enumerate() {
                let place = write.offset + at * SECTOR;
                if (offset..offset + len).contains(&place) {
                    buf.bytes_mut()[place - offset..][..SECTOR].copy_from_slice(sector);
                }
            }
        }
        bufs.freeze(buf)
    }

    /// What of the pending writes may arrive without the rest: each some sectors of one write.
    fn pieces(&self, most: usize) -> Vec<(usize, Vec<usize>)> {
        let changed = |write: &Pending| -> Vec<usize> {
            let sectors = write.data.bytes().chunks(SECTOR).enumerate();
            let overlaps = |place: usize| {
                let covers =
                    |other: &Pending| (other.offset..other.offset + other.data.len() as usize).contains(&place);
                self.writes.iter().filter(|other| covers(other)).count() > 1
            };
            let differs = |at: usize, bytes: &[u8]| {
                let place = write.offset + at * SECTOR;
                self.sector(place) != bytes || overlaps(place)
            };
            sectors.filter(|(at, bytes)| differs(*at, bytes)).map(|(at, _)| at).collect()
        };
        let sectors: Vec<Vec<usize>> = self.writes.iter().map(changed).collect();
        let atomic = |write: usize| {
            let (len, offset) = (self.writes[write].data.len() as usize, self.writes[write].offset);
            len.is_power_of_two() && len <= self.atomic && offset.is_multiple_of(len)
        };
        let groups = |most: usize| -> Vec<(usize, Vec<usize>)> {
            let split = |(write, sectors): (usize, &Vec<usize>)| {
                let parts = if atomic(write) { 1 } else { most.min(sectors.len()) };
                let size = sectors.len().div_ceil(parts.max(1)).max(1);
                sectors.chunks(size).map(|chunk| (write, chunk.to_vec())).collect::<Vec<_>>()
            };
            sectors.iter().enumerate().flat_map(split).collect()
        };
        let found = (1..=32).rev().map(groups).find(|groups| groups.len() <= most);
        found.unwrap_or_else(|| groups(1))
    }

    /// The device after a power loss that some pieces survive.
    fn after_power_loss(&self, pieces: &[(usize, Vec<usize>)], survive: usize) -> Disk {
        let mut pages = self.pages.clone();
        for (bit, (write, sectors)) in pieces.iter().enumerate() {
            if survive >> bit & 1 == 1 {
                let Pending { offset, data, .. } = &self.writes[*write];
                for at in sectors {
                    Disk::put(&mut pages, offset + at * SECTOR, &data.bytes()[at * SECTOR..][..SECTOR]);
                }
            }
        }
        let (zeroes, given_up) = (self.zeroes.clone(), self.given_up.clone());
        Disk { pages, writes: Vec::new(), requests: Vec::new(), zeroes, given_up, ..*self }
    }

    /// A hash of all bytes. `known` are the hashes of pages of `before`, from which it was made.
    fn hash(&self, before: &Disk, known: &[u64]) -> u64 {
        let pages = self.pages.iter().zip(&before.pages).zip(known).enumerate();
        pages.fold(0, |sum, (at, ((page, old), known))| {
            let same = match (page, old) {
                (Some(page), Some(old)) => Rc::ptr_eq(page, old),
                (page, old) => page.is_none() == old.is_none(),
            };
            sum ^ if same { *known } else { page_hash(at, page.as_deref()) }
        })
    }

    fn page_hashes(&self) -> Vec<u64> {
        self.pages.iter().enumerate().map(|(at, page)| page_hash(at, page.as_deref())).collect()
    }
}

fn page_hash(at: usize, page: Option<&[u8; PAGE]>) -> u64 {
    let Some(page) = page else { return 0 };
    if page.iter().all(|byte| *byte == 0) {
        return 0;
    }
    let mixed = (u64::from(crc32fast::hash(page)) << 16 ^ at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// A store in the middle of something.
#[derive(Clone)]
struct State {
    store: LogStore,
    disk: Disk,
    model: ModelStore,
    /// Of both objects: states since the last that is durable, and operations that were not answered.
    allowed: [Vec<Seen>; 2],
    pending: VecDeque<(u64, StoreOp)>,
    now: Time,
    steps: u64,
}

/// What was tried.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    sequences: u64,
    crash_points: u64,
    power_losses: u64,
    openings: u64,
    crashes_in_opening: u64,
}

/// All that goes through one configuration.
pub struct Explorer {
    shape: Shape,
    rng: Rng,
    bufs: BufPool,
    out: Effects,
    seen: HashSet<u64>,
    crashes: bool,
    /// Pending sectors, or groups of them, of which every subset is tried.
    most: usize,
    pub counts: Counts,
}

impl Explorer {
    pub fn new(shape: Shape) -> Explorer {
        Explorer {
            shape,
            rng: Rng::new(1),
            bufs: BufPool::new(),
            out: Effects::default(),
            seen: HashSet::new(),
            crashes: true,
            most: PENDING_MOST,
            counts: Counts::default(),
        }
    }

    fn with<T>(&mut self, now: Time, run: impl FnOnce(&mut Env<'_>) -> T) -> T {
        run(&mut Env { now, rng: &mut self.rng, bufs: &mut self.bufs, out: &mut self.out })
    }

    fn dispatch(&mut self, disk: &mut Disk) {
        for effect in std::mem::take(&mut self.out.queue) {
            match effect {
                Effect::Io { id, op } => disk.submit(id, op),
                Effect::Observe(_) => {}
                other => panic!("a store emitted {other:?}"),
            }
        }
    }

    // ---- the store

    fn begin(&mut self) -> State {
        let wanted = wanted(&self.shape);
        let pages = vec![None; usize::try_from(wanted.data_bytes).unwrap().div_ceil(PAGE)];
        let volatile = self.shape.durability != Durability::Plp;
        let atomic = self.shape.overwrites.atomic_bytes as usize;
        let zeroes = self.bufs.zeroed(wanted.segment_bytes.unwrap()).freeze();
        let given_up = Rc::new([0xdd; PAGE]);
        let mut disk = Disk { pages, writes: Vec::new(), requests: Vec::new(), volatile, atomic, zeroes, given_up };
        for op in format(&wanted, &mut self.bufs).unwrap() {
            // It begins with zeroes: without pages for these it is cloned faster.
            if let DiskOp::Write { offset, data, .. } = op
                && data.bytes().iter().any(|byte| *byte != 0)
            {
                Disk::put(&mut disk.pages, offset as usize, data.bytes());
            }
        }
        let store = self.open(&mut disk);
        let nothing = Seen::nothing();
        let allowed = [vec![nothing.clone()], vec![nothing]];
        State { store, disk, model: ModelStore::new(0), allowed, pending: VecDeque::new(), now: Time(0), steps: 0 }
    }

    /// Opens, without a crash in between.
    fn open(&mut self, disk: &mut Disk) -> LogStore {
        let config = open_config(&self.shape);
        let mut store = self.with(Time(0), |env| LogStore::open(config, env));
        self.dispatch(disk);
        while store.state() == StoreState::Opening {
            self.complete(&mut store, disk, Order::Oldest, Time(0));
        }
        assert_eq!(store.state(), StoreState::Open { trusted: true });
        store
    }

    fn complete(&mut self, store: &mut LogStore, disk: &mut Disk, order: Order, now: Time) {
        let (id, done) = disk.complete(order, &mut self.bufs);
        self.with(now, |env| store.handle_io(env, id, done));
        self.dispatch(disk);
    }

    /// What an open store at rest shows of an object.
    fn see(&mut self, store: &mut LogStore, disk: &mut Disk, object: u64) -> Seen {
        let info = store.lookup(copy(object));
        let mut contents = Vec::new();
        for version in versions(info.as_ref()) {
            let op = StoreOp::ReadAll { copy: copy(object), version: Some(version) };
            self.with(Time(0), |env| store.submit(env, u64::MAX, op));
            self.dispatch(disk);
            let completion = loop {
                if let Some(completion) = store.next_completion() {
                    break completion;
                }
                self.complete(store, disk, Order::Oldest, Time(0));
            };
            contents.push(content(completion));
        }
        let written = written(store, copy(object), info.as_ref());
        Seen { info, contents, written }
    }

    // ---- steps

    fn data(&mut self, steps: u64, len: u32) -> Data {
        // Only the first and the last sector of each unit say something, so that every subset of them can be tried.
        let mut buf = self.bufs.zeroed(len);
        let marks: &[usize] = if len < 4096 { &[0] } else { &[0, PAGE - 8] };
        for unit in 0..(len as usize).div_ceil(PAGE) {
            for mark in marks {
                let value = (steps + 1) << 32 | (unit as u64) << 16 | *mark as u64 | 1;
                buf.bytes_mut()[unit * PAGE + mark..][..8].copy_from_slice(&value.to_le_bytes());
            }
        }
        Data::new(self.bufs.freeze(buf))
    }

    fn op(&mut self, state: &State, step: Step) -> Option<StoreOp> {
        let object = u64::from(step == Other);
        let copy = copy(object);
        let info = state.store.lookup(copy);
        let newest = info.as_ref().and_then(|info| info.prepared.as_ref().or(info.committed.as_ref()));
        let predecessor = newest.map_or(Version::NONE, |info| info.version);
        let commits_predecessor = info.as_ref().is_some_and(|info| info.prepared.is_some());
        let version = Version { epoch: Epoch(1), seq: state.steps + 1 };
        let requests = Requests::new();
        let mut write = |offset: u32, len: u32, mode: Mode| {
            let data = (len > 0).then(|| self.data(state.steps, len));
            let requests = Requests::new();
            StoreOp::Write { copy, version, predecessor, offset, data, mode, commits_predecessor, requests }
        };
        Some(match step {
            Whole | Other => write(0, BLOCK, Mode::Plain),
            First => write(0, 4096, Mode::Plain),
            Second => write(4096, 4096, Mode::Plain),
            Part => write(4096 + 512, 512, Mode::Plain),
            PrepareFirst => write(0, 4096, Mode::Prepare),
            PrepareWhole => write(0, BLOCK, Mode::Prepare),
            VersionOnly => write(0, 0, Mode::Plain),
            Zero => StoreOp::Zero { copy, version, predecessor, offset: 4096, len: 4096, mode: Mode::Plain, requests },
            Commit => StoreOp::Commit { copy, version: predecessor },
            Rollback => StoreOp::Rollback { copy, version: predecessor },
            Tombstone => StoreOp::Tombstone { copy, version, predecessor, mode: Mode::Plain, requests },
            Purge => StoreOp::Purge { copy, version: predecessor },
            ReplaceLower => {
                let data = self.data(state.steps, 8192);
                let mut bitmap = Bitmap::default();
                bitmap.set(0, 16, true);
                let version = Version { epoch: Epoch(0), seq: state.steps + 1 };
                let (content, mode) = (Content::Data { data, bitmap }, Mode::Plain);
                StoreOp::Replace { copy, version, predecessor: Version::NONE, content, mode, requests }
            }
            Compact | Snapshot => return None,
        })
    }

    fn step(&mut self, state: &mut State, step: Step) {
        match self.op(state, step) {
            Some(op) => {
                state.pending.push_back((state.steps, op.clone()));
                let State { store, now, steps, .. } = state;
                self.with(*now, |env| store.submit(env, *steps, op));
            }
            None => {
                let State { store, now, .. } = state;
                let Life::Running(running) = &mut store.life else { panic!("an open store runs") };
                let env = &mut Env { now: *now, rng: &mut self.rng, bufs: &mut self.bufs, out: &mut self.out };
                if let Some(place) = running.objects.find(copy(0)) {
                    match step {
                        Compact => drop(running.start_compaction(env, place)),
                        _ => running.choose(env, place),
                    }
                }
            }
        }
        state.steps += 1;
        self.dispatch(&mut state.disk);
        self.round(state);
    }

    /// An end of a round, and a power loss behind it.
    fn round(&mut self, state: &mut State) {
        self.take_completions(state);
        let State { store, now, disk, .. } = state;
        self.with(*now, |env| store.end_of_round(env));
        self.dispatch(disk);
        self.take_completions(state);
        state.store.check();
        if self.crashes {
            self.lose_power(state);
        }
    }

    fn take_completions(&mut self, state: &mut State) {
        while let Some(completion) = state.store.next_completion() {
            let at = state.pending.iter().position(|(token, _)| *token == completion.token).expect("answered once");
            let (_, op) = state.pending.remove(at).unwrap();
            let object = usize::from(op.copy() == Some(copy(1)));
            let earlier = state.pending.iter().take(at).any(|(_, other)| other.copy() == op.copy());
            assert!(!earlier, "answered out of order: {op:?}");
            let expected = run_model(&mut state.model, op.clone());
            let applied = completion.result == Ok(StoreReply::Applied);
            let result = if applied { Ok(StoreReply::Done) } else { completion.result };
            assert_eq!(result, expected, "answer of {op:?}");
            let seen = see_model(&state.model, copy(object as u64));
            if !applied {
                state.allowed[object].clear();
            }
            state.allowed[object].push(seen);
        }
    }

    fn drain(&mut self, state: &mut State, order: Order) {
        for _ in 0..1000 {
            if state.disk.requests.is_empty() {
                if state.pending.is_empty() {
                    return;
                }
                let at = state.store.next_deadline().expect("something is due");
                state.now = state.now.max(at) + Duration::micros(1);
            } else {
                let State { store, disk, now, .. } = state;
                self.complete(store, disk, order, *now);
            }
            self.round(state);
        }
        panic!("stuck: {:?}\n{}", state.pending, state.store.describe());
    }

    /// At rest it shows what the model does.
    fn compare(&mut self, state: &mut State) {
        for object in 0..2 {
            let State { store, disk, .. } = state;
            let seen = self.see(store, disk, object);
            assert_eq!(seen, see_model(&state.model, copy(object)));
        }
    }

    // ---- power losses

    fn lose_power(&mut self, state: &State) {
        self.counts.crash_points += 1;
        let mut allowed = state.allowed.clone();
        let mut model = state.model.clone();
        for (_, op) in &state.pending {
            let object = u64::from(op.copy() == Some(copy(1)));
            let _ = run_model(&mut model, op.clone());
            allowed[object as usize].push(see_model(&model, copy(object)));
        }
        let known = state.disk.page_hashes();
        let context = u64::from(context(&allowed)) << 32;
        let pieces = state.disk.pieces(self.most);
        for survive in 0..1 << pieces.len() {
            self.counts.power_losses += 1;
            let disk = state.disk.after_power_loss(&pieces, survive);
            if self.seen.insert(disk.hash(&state.disk, &known) ^ context) {
                self.reopen(disk, &allowed, true);
            }
        }
    }

    /// Opens what a power loss left. If that writes something, power fails there, too.
    fn reopen(&mut self, mut disk: Disk, allowed: &[Vec<Seen>; 2], deeper: bool) {
        self.counts.openings += 1;
        let config = open_config(&self.shape);
        let mut store = self.with(Time(0), |env| LogStore::open(config, env));
        self.dispatch(&mut disk);
        let mut wrote = false;
        while store.state() == StoreState::Opening {
            if deeper && !disk.writes.is_empty() {
                wrote = true;
                let pieces = disk.pieces(self.most);
                for survive in 0..1 << pieces.len() {
                    self.counts.crashes_in_opening += 1;
                    self.reopen(disk.after_power_loss(&pieces, survive), allowed, false);
                }
            }
            self.complete(&mut store, &mut disk, Order::Oldest, Time(0));
        }
        assert_eq!(store.state(), StoreState::Open { trusted: true }, "after a power loss");
        let seen = [0, 1].map(|object| self.see(&mut store, &mut disk, object));
        for (seen, allowed) in seen.iter().zip(allowed) {
            assert!(allowed.contains(seen), "after a power loss: {:?}\nallowed: {:?}", seen.info, allowed);
        }
        // What was shown once is shown again, also when the store goes on writing in between.
        if deeper && wrote {
            let only = seen.map(|seen| vec![seen]);
            self.reopen(disk.after_power_loss(&[], 0), &only, false);
            self.go_on(store, disk, only);
        }
    }

    /// One more operation after an opening, and a power loss in it.
    fn go_on(&mut self, store: LogStore, disk: Disk, mut allowed: [Vec<Seen>; 2]) {
        let (pending, now, steps) = (VecDeque::new(), Time(0), 100);
        let mut state = State { store, disk, model: ModelStore::new(0), allowed: allowed.clone(), pending, now, steps };
        let Some(op) = self.op(&state, Whole) else { return };
        self.with(now, |env| state.store.submit(env, 0, op));
        self.dispatch(&mut state.disk);
        self.with(now, |env| state.store.end_of_round(env));
        self.dispatch(&mut state.disk);
        // Nothing, or only the new page arrives: the object is as it was, for the data are missing.
        allowed[0].truncate(1);
        self.reopen(state.disk.after_power_loss(&[], 0), &allowed, false);
    }

    // ---- sequences

    /// Runs steps one after the other; `waits`: each is drained before the next.
    pub fn run(&mut self, base: &[Step], steps: &[Step], waits: bool, order: Order) {
        let mut state = self.base(base);
        for step in steps {
            self.step(&mut state, *step);
            if waits {
                self.drain(&mut state, order);
            }
        }
        self.drain(&mut state, order);
        self.compare(&mut state);
    }

    fn base(&mut self, base: &[Step]) -> State {
        let crashes = std::mem::replace(&mut self.crashes, false);
        let mut state = self.begin();
        for step in base {
            self.step(&mut state, *step);
            self.drain(&mut state, Order::Oldest);
        }
        self.crashes = crashes;
        state
    }

    /// All sequences of up to `length` steps behind a state; `patterns`: (whether to wait after each step, order).
    fn explore(&mut self, state: &State, length: usize, patterns: &[(bool, Order)]) {
        for step in STEPS {
            for pattern in patterns {
                self.extend(state, step, length, *pattern);
            }
        }
    }

    fn extend(&mut self, state: &State, step: Step, length: usize, pattern: (bool, Order)) {
        let (waits, order) = pattern;
        let mut next = state.clone();
        self.step(&mut next, step);
        if waits {
            self.drain(&mut next, order);
        }
        if length > 1 {
            for step in STEPS {
                self.extend(&next, step, length - 1, pattern);
            }
        }
        // Also the end of a sequence of this length.
        self.counts.sequences += 1;
        self.drain(&mut next, order);
        self.compare(&mut next);
    }
}

/// A hash of what is allowed.
fn context(allowed: &[Vec<Seen>; 2]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for seen in allowed.iter().flatten() {
        hasher.update(format!("{:?} {:?}", seen.info, seen.written).as_bytes());
        for (bytes, bitmap) in &seen.contents {
            hasher.update(bytes);
            bitmap.words.iter().for_each(|word| hasher.update(&word.to_le_bytes()));
        }
    }
    hasher.finalize()
}

/// Goes through everything of one kind of device; prints what it was.
fn sweep(name: &str, shape: Shape) {
    let all = std::env::var("STORE_EXHAUSTIVE").is_ok();
    let mut explorer = Explorer::new(shape);
    for (at, base) in BASES.iter().enumerate() {
        let state = explorer.base(base);
        let (waits, oldest, newest) = ((true, Order::Oldest), (false, Order::Oldest), (false, Order::Newest));
        // Behind a block with an overlay there is most to go wrong.
        match (all, at) {
            (true, _) => explorer.explore(&state, 3, &[waits, oldest, newest, (true, Order::Newest)]),
            (false, 2) => {
                explorer.explore(&state, 3, &[waits]);
                explorer.most = 3;
                explorer.explore(&state, 3, &[newest]);
            }
            (false, _) => {
                explorer.most = 6;
                explorer.explore(&state, 2, &[waits, oldest, newest]);
            }
        }
    }
    eprintln!("{name:24} {:?}", explorer.counts);
}

const SMALL: Shape = Shape { objects: 2, blocks: 6, crashes: 0, discards: false, ..SHAPE };

#[test]
fn every_sequence_with_intents() {
    sweep("intents", Shape { overwrites: intents(4096), ..SMALL });
}

#[test]
fn every_sequence_with_inline_writes() {
    sweep("inline", SMALL);
}

#[test]
fn every_sequence_with_a_volatile_cache() {
    sweep("flush", Shape { durability: Durability::Flush, ..SMALL });
}

#[test]
fn every_sequence_with_discards() {
    sweep("discards", Shape { durability: Durability::Flush, discards: true, ..SMALL });
}

#[test]
fn every_sequence_with_lazy_acknowledgement() {
    sweep("lazy", Shape { durability: Durability::Lazy, ..SMALL });
}

/// A page begins a segment, and the next one could name it as the tail: nothing lives in the segment before.
#[test]
pub fn a_tail_is_named_only_once_it_is_in_the_log() {
    let mut explorer = Explorer::new(Shape { durability: Durability::Flush, ..SMALL });
    explorer.crashes = false;
    let mut state = explorer.begin();
    while !state.store.describe().contains("head 0+16 ") {
        for step in [VersionOnly, Tombstone, Purge] {
            explorer.step(&mut state, step);
            explorer.drain(&mut state, Order::Oldest);
        }
    }
    explorer.crashes = true;
    explorer.step(&mut state, VersionOnly);
    explorer.step(&mut state, Other);
    explorer.drain(&mut state, Order::Oldest);
    assert!(state.store.describe().contains("head 1+"), "a segment began");
}

/// The cleaner comes while the data of an intent are on their way.
#[test]
pub fn a_snapshot_waits_for_an_intent() {
    for steps in [&[First, Snapshot][..], &[First, Second, Snapshot], &[First, Snapshot, VersionOnly]] {
        let mut explorer = Explorer::new(Shape { overwrites: intents(4096), ..SMALL });
        explorer.run(BASES[1], steps, false, Order::Newest);
        assert!(explorer.counts.openings > 0, "{:?}", explorer.counts);
    }
}

/// An overwrite that comes while a compaction writes the same unit, which completes last.
#[test]
pub fn an_overwrite_comes_behind_a_compaction_of_its_unit() {
    for steps in [&[Compact, Second][..], &[Compact, Zero, Second], &[Compact, Zero, First, Second]] {
        let mut explorer = Explorer::new(Shape { overwrites: intents(4096), ..SMALL });
        explorer.run(BASES[2], steps, false, Order::Newest);
    }
}
