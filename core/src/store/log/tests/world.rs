//! A store on a simulated device beside the reference model: random operations, crashes, openings.

use super::device::{Device, Loss};
use crate::buf::{BufPool, UNIT};
use crate::id::{
    ClientId, ClusterUuid, CopyId, Epoch, HashRange, InodeId, ObjectId, OsdId, PgId, PoolId, RequestId, Requests, Role,
    Session, StoreUuid, Version,
};
use crate::io::{self, Effect, Effects, Env};
use crate::rng::Rng;
use crate::store::log::{Discarding, Durability, Format, LogStore, OpenConfig, Overwrites, Way, format};
use crate::store::model::ModelStore;
use crate::store::{
    Bitmap, Completion, Content, CopyInfo, Data, Digest, Mode, ObjectStore, Patch, StoreError, StoreOp, StoreReply,
    StoreState,
};
use crate::time::{Duration, Time};
use std::collections::{BTreeMap, VecDeque};

pub const BLOCK: u32 = 16 << 10;
const OSD: OsdId = OsdId(3);
const CLUSTER: ClusterUuid = ClusterUuid(77);

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub durability: Durability,
    pub separate_log: bool,
    pub objects: u64,
    pub blocks: u64,
    pub prepares: bool,
    /// Operations of one object in flight.
    pub depth: usize,
    /// Of 1000 steps, how many are crashes.
    pub crashes: u64,
    /// One of so many writes of data fails; 0: none.
    pub flaky: u64,
    pub overwrites: Overwrites,
    /// In what time the scrub passes over the log; zero: never.
    pub scrub: Duration,
    /// Whether the device is told of free blocks, at once.
    pub discards: bool,
}

/// Everything that a reader can see of a copy.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub info: Option<CopyInfo>,
    pub contents: Vec<(Vec<u8>, Bitmap)>,
    pub written: Vec<Result<Bitmap, StoreError>>,
}

impl Seen {
    /// Of a copy that does not exist.
    pub fn nothing() -> Seen {
        Seen { info: None, contents: Vec::new(), written: vec![Ok(Bitmap::default())] }
    }
}

/// What a store says is written, of each version and of the committed one.
pub fn written(store: &impl ObjectStore, copy: CopyId, info: Option<&CopyInfo>) -> Vec<Result<Bitmap, StoreError>> {
    let versions = versions(info).into_iter().map(Some).chain([None]);
    let trimmed = |mut bitmap: Bitmap| {
        while bitmap.words.last() == Some(&0) {
            bitmap.words.pop();
        }
        bitmap
    };
    versions.map(|version| store.written(copy, version).map(trimmed)).collect()
}

/// What the driver knows of one copy.
#[derive(Clone)]
struct Track {
    /// Operations submitted and not answered, in order.
    pending: VecDeque<(u64, StoreOp)>,
    /// States since the last that is known to be durable, that one first; not of pending operations.
    states: Vec<Seen>,
}

pub struct World {
    pub shape: Shape,
    pub store: LogStore,
    pub rng: Rng,
    pub bufs: BufPool,
    pub out: Effects,
    pub now: Time,
    pub data: Device,
    pub log: Option<Device>,
    model: ModelStore,
    tracks: BTreeMap<CopyId, Track>,
    reads: BTreeMap<u64, (StoreOp, Option<Result<StoreReply, StoreError>>)>,
    /// Sync under way: how many states of each copy it covers.
    sync: Option<(u64, BTreeMap<CopyId, usize>)>,
    next_token: u64,
    seq: u64,
    pub crashes: u64,
    pub no_space: u64,
    /// Contents of every version that ever was.
    known: BTreeMap<(CopyId, Version, bool), u32>,
}

pub fn wanted(shape: &Shape) -> Format {
    let log = 128 * 1024 + 8 * 64 * 1024;
    Format {
        cluster: CLUSTER,
        osd: OSD,
        store: StoreUuid(0x5105_0000_1111_2222_3333_4444_5555_6666),
        block_size: BLOCK,
        data_bytes: if shape.separate_log { 128 * 1024 } else { log } + shape.blocks * u64::from(BLOCK),
        log_device_bytes: shape.separate_log.then_some(log),
        log_bytes: Some(8 * 64 * 1024),
        segment_bytes: Some(64 * 1024),
    }
}

pub fn open_config(shape: &Shape) -> OpenConfig {
    let format = wanted(shape);
    OpenConfig {
        log_device_bytes: format.log_device_bytes,
        overwrites: shape.overwrites,
        scrub: shape.scrub,
        discards: shape.discards.then_some(Discarding { rest: Duration(0), pause: Duration(0) }),
        ..OpenConfig::new(CLUSTER, OSD, format.data_bytes, shape.durability)
    }
}

pub fn copy(stripe: u64) -> CopyId {
    CopyId { object: ObjectId { pool: PoolId(1), inode: InodeId(5), stripe }, role: Role(0) }
}

macro_rules! env {
    ($world:expr) => {
        &mut Env { now: $world.now, rng: &mut $world.rng, bufs: &mut $world.bufs, out: &mut $world.out }
    };
}

impl World {
    pub fn new(shape: Shape, seed: u64) -> World {
        let wanted = wanted(&shape);
        let volatile = shape.durability != Durability::Plp;
        let mut data = Device::new(wanted.data_bytes as usize, volatile);
        data.flaky = (
            wanted.log_bytes.map_or(0, |log| if shape.separate_log { 128 << 10 } else { (128 << 10) + log as usize }),
            shape.flaky,
        );
        data.atomic = shape.overwrites.atomic_bytes as usize;
        let mut log = wanted.log_device_bytes.map(|bytes| Device::new(bytes as usize, volatile));
        let mut bufs = BufPool::new();
        for op in format(&wanted, &mut bufs).unwrap() {
            if let io::DiskOp::Write { device, offset, data: bytes } = op {
                let device = if device == io::Device::Data { &mut data } else { log.as_mut().unwrap() };
                device.media[offset as usize..][..bytes.len() as usize].copy_from_slice(bytes.bytes());
            }
        }
        let (mut rng, mut out) = (Rng::new(seed), Effects::default());
        let mut env = Env { now: Time(0), rng: &mut rng, bufs: &mut bufs, out: &mut out };
        let store = LogStore::open(open_config(&shape), &mut env);
        let mut world = World {
            shape,
            store,
            rng,
            bufs,
            out,
            now: Time(0),
            data,
            log,
            model: ModelStore::new(0),
            tracks: BTreeMap::new(),
            reads: BTreeMap::new(),
            sync: None,
            next_token: 1,
            seq: 0,
            crashes: 0,
            no_space: 0,
            known: BTreeMap::new(),
        };
        for stripe in 0..shape.objects {
            let nothing = Seen::nothing();
            let track = Track { pending: VecDeque::new(), states: vec![nothing] };
            world.tracks.insert(copy(stripe), track);
        }
        world.open_fully();
        world
    }

    // ---- driving

    /// Hands the store's requests to the devices.
    pub fn dispatch(&mut self) {
        for effect in std::mem::take(&mut self.out.queue) {
            match effect {
                Effect::Io { id, op } => {
                    let on_log = matches!(
                        op,
                        io::DiskOp::Read { device: io::Device::Log, .. }
                            | io::DiskOp::Write { device: io::Device::Log, .. }
                            | io::DiskOp::Flush { device: io::Device::Log }
                    );
                    if on_log { self.log.as_mut().unwrap() } else { &mut self.data }.submit(id, op);
                }
                Effect::Observe(_) => {}
                other => panic!("a store emitted {other:?}"),
            }
        }
    }

    pub fn outstanding(&self) -> usize {
        self.data.outstanding() + self.log.as_ref().map_or(0, Device::outstanding)
    }

    /// Completes one disk request.
    pub fn complete_one(&mut self) {
        let on_log = self.log.as_ref().map_or(0, Device::outstanding) as u64;
        let device = if self.rng.below(self.outstanding() as u64) < on_log {
            self.log.as_mut().unwrap()
        } else {
            &mut self.data
        };
        let (id, done) = device.complete(&mut self.rng, &mut self.bufs);
        self.store.handle_io(env!(self), id, done);
        self.after();
    }

    pub fn end_of_round(&mut self) {
        self.store.end_of_round(env!(self));
        self.after();
    }

    fn after(&mut self) {
        self.dispatch();
        self.take_completions();
    }

    /// Time goes on to the next deadline.
    pub fn pass_time(&mut self) {
        if let Some(at) = self.store.next_deadline() {
            self.now = self.now.max(at);
        }
        self.now = self.now + Duration::micros(10);
        self.store.tick(env!(self));
        self.after();
    }

    /// Until nothing is under way.
    pub fn drain(&mut self) {
        let mut rounds = 0;
        loop {
            self.end_of_round();
            if self.outstanding() == 0 {
                let pending = self.tracks.values().any(|track| !track.pending.is_empty());
                if !pending && self.reads.is_empty() && self.sync.is_none() {
                    return;
                }
                self.pass_time();
            } else {
                self.complete_one();
            }
            rounds += 1;
            if rounds > 20_000 {
                let stuck: Vec<_> = self.tracks.iter().filter(|(_, track)| !track.pending.is_empty()).collect();
                let stuck: Vec<_> = stuck.into_iter().map(|(copy, track)| (copy, track.pending.front())).collect();
                panic!("stuck: {stuck:?} reads {:?}\n{}", self.reads.keys(), self.store.describe());
            }
        }
    }

    pub fn open_fully(&mut self) {
        self.dispatch();
        while self.store.state() == StoreState::Opening {
            self.complete_one();
        }
        assert_eq!(self.store.state(), StoreState::Open { trusted: true });
    }

    pub fn submit(&mut self, op: StoreOp) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        self.store.submit(env!(self), token, op);
        token
    }

    // ---- the oracle

    /// What the store shows of a copy; needs a store at rest.
    pub fn see_store(&mut self, copy: CopyId) -> Seen {
        let info = self.store.lookup(copy);
        let mut contents = Vec::new();
        for version in versions(info.as_ref()) {
            self.submit(StoreOp::ReadAll { copy, version: Some(version) });
            self.dispatch();
            let completion = loop {
                if let Some(completion) = self.store.next_completion() {
                    break completion;
                }
                let (id, done) = self.data.complete(&mut self.rng, &mut self.bufs);
                self.store.handle_io(env!(self), id, done);
                self.dispatch();
            };
            contents.push(content(completion));
        }
        let written = written(&self.store, copy, info.as_ref());
        Seen { info, contents, written }
    }

    /// The model with an object's pending operations carried out as well.
    fn model_ahead(&self, copy: CopyId) -> ModelStore {
        let mut model = self.model.clone();
        for (_, op) in &self.tracks[&copy].pending {
            let _ = run_model(&mut model, op.clone());
        }
        model
    }

    fn take_completions(&mut self) {
        while let Some(completion) = self.store.next_completion() {
            self.completed(completion);
        }
    }

    fn completed(&mut self, completion: Completion) {
        let Completion { token, result } = completion;
        if self.sync.as_ref().is_some_and(|(sync, _)| *sync == token) {
            assert_eq!(result, Ok(StoreReply::Done));
            let (_, covered) = self.sync.take().unwrap();
            for (copy, count) in covered {
                self.tracks.get_mut(&copy).unwrap().states.drain(..count - 1);
            }
            return;
        }
        if let Some((op, expected)) = self.reads.remove(&token) {
            if let Ok(StoreReply::Read { data, .. } | StoreReply::Whole { content: Content::Data { data, .. }, .. }) =
                &result
            {
                assert!(data.verify(), "{op:?}: answer with a wrong checksum");
            }
            if let Some(expected) = expected {
                assert_eq!(normal(result), normal(expected), "answer of {op:?}");
            }
            return;
        }
        let lazy = self.shape.durability == Durability::Lazy;
        let copy = *self.tracks.iter().find(|(_, track)| track.pending.iter().any(|(t, _)| *t == token)).unwrap().0;
        let track = self.tracks.get_mut(&copy).unwrap();
        let (first, op) = track.pending.pop_front().unwrap();
        assert_eq!(first, token, "{copy:?}: acknowledged out of order");
        if result == Err(StoreError::NoSpace) {
            self.no_space += 1;
            // Reads behind it were foretold with it.
            for (read, expected) in self.reads.values_mut() {
                if read.copy() == Some(copy) {
                    *expected = None;
                }
            }
            return;
        }
        let expected = run_model(&mut self.model, op.clone());
        let durable = !lazy || result == Ok(StoreReply::Done);
        let result = if lazy && result == Ok(StoreReply::Applied) { Ok(StoreReply::Done) } else { result };
        assert_eq!(result, expected, "answer of {op:?}");
        let seen = see_model(&self.model, copy);
        if let Some(info) = &seen.info {
            let infos = info.committed.iter().chain(&info.prepared);
            for (info, content) in infos.zip(&seen.contents) {
                self.known.insert((copy, info.version, info.tombstone), fingerprint(content));
            }
        }
        let track = self.tracks.get_mut(&copy).unwrap();
        track.states.push(seen);
        if durable {
            let gone = track.states.drain(..track.states.len() - 1).count();
            if let Some(count) = self.sync.as_mut().and_then(|(_, covered)| covered.get_mut(&copy)) {
                *count = count.saturating_sub(gone).max(1);
            }
        }
    }

    /// The store dies and is opened again; what it shows must be allowed.
    pub fn crash(&mut self) {
        self.crashes += 1;
        let loss = if self.rng.chance(1, 3) { Loss::Process } else { Loss::Power };
        self.crash_devices(loss);
        self.store = LogStore::open(open_config(&self.shape), env!(self));
        self.dispatch();
        while self.store.state() == StoreState::Opening {
            if self.rng.chance(1, 200) {
                let loss = if self.rng.chance(1, 3) { Loss::Process } else { Loss::Power };
                self.crash_devices(loss);
                self.store = LogStore::open(open_config(&self.shape), env!(self));
                self.dispatch();
            } else {
                self.complete_one();
            }
        }
        assert_eq!(self.store.state(), StoreState::Open { trusted: true }, "after a crash");
        self.store.check();
        self.reads.clear();
        self.sync = None;
        for copy in self.tracks.keys().copied().collect::<Vec<_>>() {
            self.match_after_crash(copy);
        }
        self.check_listing();
    }

    pub fn crash_devices(&mut self, loss: Loss) {
        self.out.queue.clear();
        self.data.crash(&mut self.rng, loss);
        if let Some(log) = &mut self.log {
            log.crash(&mut self.rng, loss);
        }
    }

    fn match_after_crash(&mut self, copy: CopyId) {
        let seen = self.see_store(copy);
        let mut allowed = self.tracks[&copy].states.clone();
        let mut model = self.model.clone();
        let pending = std::mem::take(&mut self.tracks.get_mut(&copy).unwrap().pending);
        // An operation that was refused without our hearing of it: the states without it are allowed, too.
        for (_, op) in &pending {
            let _ = run_model(&mut model, op.clone());
            allowed.push(see_model(&model, copy));
        }
        if !allowed.contains(&seen) {
            for state in &allowed {
                eprintln!("allowed: {:?}", brief(state));
            }
            panic!("{copy:?} after a crash is {:?}, pending {pending:?}", brief(&seen));
        }
        self.reset_model(copy, &seen);
        self.tracks.get_mut(&copy).unwrap().states = vec![seen];
    }

    /// Makes the model's copy what the store shows.
    fn reset_model(&mut self, copy: CopyId, seen: &Seen) {
        while let Some(info) = self.model.lookup(copy) {
            let version = info.prepared.or(info.committed).unwrap().version;
            run_model(&mut self.model, StoreOp::Remove { copy, version }).unwrap();
        }
        let Some(info) = &seen.info else { return };
        let states = [(&info.committed, Mode::Plain), (&info.prepared, Mode::Prepare)];
        let states = states.into_iter().filter_map(|(info, mode)| Some((info.as_ref()?, mode)));
        for ((info, mode), (bytes, bitmap)) in states.zip(&seen.contents) {
            let content = if info.tombstone {
                Content::Tombstone
            } else {
                Content::Data { data: Data::new(self.bufs.copy_of(bytes)), bitmap: bitmap.clone() }
            };
            let (version, predecessor, requests) = (info.version, info.predecessor, info.requests.clone());
            let op = StoreOp::Replace { copy, version, predecessor, content, mode, requests };
            run_model(&mut self.model, op).unwrap();
        }
    }

    /// Whatever version of a copy the store shows has the contents that it had when it was written.
    pub fn check_contents(&mut self) {
        for copy in self.tracks.keys().copied().collect::<Vec<_>>() {
            for (info, content) in self.see_store_or_damage(copy) {
                let known = self.known.get(&(copy, info.version, info.tombstone));
                assert_eq!(known, Some(&content), "{copy:?} {info:?}");
            }
        }
    }

    /// Each version of a copy with a digest of its contents; those that the store reports as damaged left out.
    fn see_store_or_damage(&mut self, copy: CopyId) -> Vec<(crate::store::VersionInfo, u32)> {
        let Some(info) = self.store.lookup(copy) else { return Vec::new() };
        let mut seen = Vec::new();
        for info in info.committed.into_iter().chain(info.prepared) {
            self.submit(StoreOp::ReadAll { copy, version: Some(info.version) });
            self.dispatch();
            while self.outstanding() > 0 {
                let (id, done) = self.data.complete(&mut self.rng, &mut self.bufs);
                self.store.handle_io(env!(self), id, done);
                self.dispatch();
            }
            let completion = self.store.next_completion().unwrap();
            if !matches!(completion.result, Err(StoreError::Damaged { .. })) {
                seen.push((info, fingerprint(&content(completion))));
            }
        }
        seen
    }

    /// Ends what is under way, and the log with a page that vouches for all of it.
    pub fn rest(&mut self) {
        self.drain();
        for _ in 0..4 {
            self.pass_time();
            self.end_of_round();
            while self.outstanding() > 0 {
                self.complete_one();
            }
        }
    }

    /// Every copy shows what the model does, but for damage that it reports: how many versions do. They are of one copy.
    pub fn check_current(&mut self, what: &str) -> usize {
        let mut damaged = Vec::new();
        for copy in self.tracks.keys().copied().collect::<Vec<_>>() {
            let (shown, meant) = (self.store.lookup(copy), self.model.lookup(copy));
            assert_eq!(versions(shown.as_ref()), versions(meant.as_ref()), "{what}: {copy:?}");
            let good = self.see_store_or_damage(copy);
            for (info, content) in &good {
                let known = self.known.get(&(copy, info.version, info.tombstone));
                assert_eq!(known, Some(content), "{what}: {copy:?} {info:?}");
            }
            let bad = versions(shown.as_ref()).len() - good.len();
            damaged.extend(std::iter::repeat_n(copy, bad));
        }
        assert!(damaged.windows(2).all(|pair| pair[0] == pair[1]), "{what}: damage to {damaged:?}");
        damaged.len()
    }

    /// Lists and digests say the same as the model.
    pub fn check_listing(&mut self) {
        let busy = self.tracks.values().any(|track| !track.pending.is_empty());
        if busy && self.shape.blocks < 2 * self.shape.objects {
            // Some that are under way may be refused for want of space.
            return;
        }
        let mut ahead = self.model.clone();
        for track in self.tracks.values() {
            for (_, op) in &track.pending {
                let _ = run_model(&mut ahead, op.clone());
            }
        }
        let (pool, role, range) = (PoolId(1), Role(0), HashRange::ALL);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        self.store.list(pool, role, range, None, usize::MAX, &mut ours);
        ahead.list(pool, role, range, None, usize::MAX, &mut theirs);
        assert_eq!(ours, theirs);
        let digest: Digest = self.store.digest(pool, role, range);
        assert_eq!(digest, ahead.digest(pool, role, range));
    }

    // ---- random operations

    fn data(&mut self, len: u32) -> Data {
        let mut buf = self.bufs.alloc(len);
        let tag = self.rng.next_u64();
        for (at, chunk) in buf.bytes_mut().chunks_mut(8).enumerate() {
            chunk.copy_from_slice(&(tag ^ at as u64).to_le_bytes());
        }
        Data::new(self.bufs.freeze(buf))
    }

    fn range(&mut self) -> (u32, u32) {
        let units = u64::from(BLOCK / 4096);
        let sectors = u64::from(BLOCK / 512);
        let number = |x: u64| u32::try_from(x).unwrap();
        match self.rng.below(4) {
            0 | 3 if self.shape.overwrites.way == Way::Intent => (number(self.rng.below(units)) * 4096, 4096),
            0 => (0, BLOCK),
            1 => (number(self.rng.below(units)) * 4096, 4096),
            2 => {
                let first = self.rng.below(units);
                (number(first) * 4096, number(self.rng.between(1, units - first)) * 4096)
            }
            _ => {
                let first = self.rng.below(sectors);
                (number(first) * 512, number(self.rng.between(1, sectors - first)) * 512)
            }
        }
    }

    fn requests(&mut self) -> Requests {
        let session = Session { client: ClientId(9), number: 1 };
        let count = self.rng.below(4);
        (0..count).map(|n| RequestId { session, number: self.seq * 10 + n }).collect()
    }

    fn random_op(&mut self, copy: CopyId) -> StoreOp {
        let info = self.store.lookup(copy);
        let committed = info.as_ref().and_then(|info| info.committed.clone());
        let prepared = info.as_ref().and_then(|info| info.prepared.clone());
        let newest = prepared.as_ref().or(committed.as_ref());
        let predecessor = newest.map_or(Version::NONE, |info| info.version);
        self.seq += 1;
        let version = Version { epoch: Epoch(1), seq: self.seq };
        let requests = self.requests();
        let mode = if self.shape.prepares && self.rng.chance(1, 3) { Mode::Prepare } else { Mode::Plain };
        let has_prepared = prepared.is_some();
        let (offset, len) = self.range();
        match self.rng.below(100) {
            _ if has_prepared && self.rng.chance(1, 4) => StoreOp::Commit { copy, version: predecessor },
            _ if has_prepared && self.rng.chance(1, 6) => StoreOp::Rollback { copy, version: predecessor },
            0..=49 => {
                let data = Some(self.data(len));
                let commits_predecessor = has_prepared;
                StoreOp::Write { copy, version, predecessor, offset, data, mode, commits_predecessor, requests }
            }
            50..=53 => {
                let commits_predecessor = has_prepared;
                StoreOp::Write {
                    copy,
                    version,
                    predecessor,
                    offset: 0,
                    data: None,
                    mode,
                    commits_predecessor,
                    requests,
                }
            }
            54..=60 => StoreOp::Zero { copy, version, predecessor, offset, len, mode, requests },
            61..=70 => StoreOp::Tombstone { copy, version, predecessor, mode, requests },
            71..=78 if !has_prepared => StoreOp::Purge { copy, version: predecessor },
            79..=82 => StoreOp::Remove { copy, version: predecessor },
            83..=85 => self.random_patch(copy, version, predecessor, requests),
            86..=90 => self.random_replace(copy, version, predecessor, mode, requests),
            91..=92 => {
                let wrong = Version { epoch: Epoch(1), seq: self.seq + 1_000_000 };
                let data = Some(self.data(512));
                let commits_predecessor = has_prepared;
                StoreOp::Write {
                    copy,
                    version,
                    predecessor: wrong,
                    offset: 0,
                    data,
                    mode,
                    commits_predecessor,
                    requests,
                }
            }
            93 => self.random_patch(copy, version, predecessor, requests),
            94..=95 => StoreOp::Commit { copy, version: predecessor },
            _ => StoreOp::Rollback { copy, version },
        }
    }

    fn random_replace(
        &mut self,
        copy: CopyId,
        version: Version,
        predecessor: Version,
        mode: Mode,
        requests: Requests,
    ) -> StoreOp {
        let content = if self.rng.chance(1, 4) {
            Content::Tombstone
        } else {
            let (_, len) = self.range();
            let mut data = self.data(len).buf.bytes().to_vec();
            let mut bitmap = Bitmap::default();
            bitmap.set(0, len / 512, true);
            if self.rng.chance(1, 2) {
                let hole = self.rng.below(u64::from(len / 512)) as u32;
                bitmap.set(hole, 1, false);
                data[hole as usize * 512..][..512].fill(0);
            }
            data.truncate(bitmap.end() as usize * 512);
            Content::Data { data: Data::new(self.bufs.copy_of(&data)), bitmap }
        };
        if mode == Mode::Plain && self.rng.chance(1, 4) {
            // Recovery may take a copy back to a lower version.
            let version = Version { epoch: Epoch(0), seq: self.seq };
            return StoreOp::Replace { copy, version, predecessor: Version::NONE, content, mode, requests };
        }
        StoreOp::Replace { copy, version, predecessor, content, mode, requests }
    }

    /// What differs between a base and a version. Only where it is sure to be taken: what a store says of operations that
    /// wait does not foresee the refusal of a patch.
    fn random_patch(&mut self, copy: CopyId, version: Version, base: Version, requests: Requests) -> StoreOp {
        let seen = see_model(&self.model, copy);
        let has_data = seen.contents.last().is_some_and(|(_, bitmap)| !bitmap.words.is_empty());
        if !self.tracks[&copy].pending.is_empty() || !has_data {
            return StoreOp::Rollback { copy, version };
        }
        let units = BLOCK / UNIT;
        let first = self.rng.below(u64::from(units)) as u32;
        let mut ranges = vec![(first * UNIT, UNIT)];
        if first + 2 < units && self.rng.chance(1, 2) {
            ranges.push(((first + 2) * UNIT, UNIT));
        }
        if self.rng.chance(1, 8) {
            ranges.clear();
        }
        let data = self.data(ranges.iter().map(|(_, len)| len).sum());
        let mut bytes = data.buf.bytes().to_vec();
        let mut bitmap = Bitmap::default();
        let mut at = 0;
        for (offset, len) in &ranges {
            for sector in 0..len / 512 {
                if self.rng.chance(3, 4) {
                    bitmap.set(offset / 512 + sector, 1, true);
                } else {
                    bytes[at..at + 512].fill(0);
                }
                at += 512;
            }
        }
        let data = Data::new(self.bufs.copy_of(&bytes));
        let patch = Box::new(Patch { ranges, bitmap, sum: None, data });
        // It may come after versions that the base's holder never had.
        let predecessor = if self.rng.chance(1, 2) { base } else { Version { epoch: Epoch(0), seq: 1 } };
        StoreOp::Patch { copy, base, version, predecessor, patch, requests }
    }

    fn random_copy(&mut self) -> CopyId {
        copy(self.rng.below(self.shape.objects))
    }

    /// Submits a random change, if the object has room for one more in flight.
    pub fn random_change(&mut self) {
        let copy = self.random_copy();
        if self.tracks[&copy].pending.len() >= self.shape.depth {
            return;
        }
        let op = self.random_op(copy);
        let token = self.next_token;
        self.tracks.get_mut(&copy).unwrap().pending.push_back((token, op.clone()));
        self.submit(op);
        self.after();
    }

    pub fn random_read(&mut self) {
        let copy = self.random_copy();
        let (offset, len) = self.range();
        let op = if self.rng.chance(1, 3) {
            StoreOp::ReadAll { copy, version: None }
        } else {
            StoreOp::Read { copy, version: None, offset, len }
        };
        let expected = run_model(&mut self.model_ahead(copy), op.clone());
        self.reads.insert(self.next_token, (op.clone(), Some(expected)));
        self.submit(op);
        self.after();
    }

    pub fn random_sync(&mut self) {
        if self.sync.is_some() {
            return;
        }
        // With operations of an object under way, only those that were answered are surely covered.
        let covered = self.tracks.iter().map(|(copy, track)| (*copy, track.states.len())).collect();
        self.sync = Some((self.next_token, covered));
        self.submit(StoreOp::Sync { pg: PgId::default() });
        self.after();
    }

    /// One random step.
    pub fn step(&mut self) {
        match self.rng.below(1000) {
            n if n < self.shape.crashes => self.crash(),
            0..=299 => self.random_change(),
            300..=349 => self.random_read(),
            350..=359 => self.random_sync(),
            360..=369 => self.pass_time(),
            370..=374 => self.check_listing(),
            375..=599 => self.end_of_round(),
            _ if self.outstanding() > 0 => self.complete_one(),
            _ => self.end_of_round(),
        }
        self.store.check();
    }

    /// At rest, everything is as the model says.
    pub fn compare_all(&mut self) {
        self.drain();
        self.check_listing();
        for copy in self.tracks.keys().copied().collect::<Vec<_>>() {
            assert_eq!(self.see_store(copy), see_model(&self.model, copy), "{copy:?}");
        }
    }
}

/// What the model shows of a copy.
pub fn see_model(model: &ModelStore, copy: CopyId) -> Seen {
    let mut world = (Rng::new(0), BufPool::new(), Effects::default());
    let mut model = model.clone();
    let env = &mut Env { now: Time(0), rng: &mut world.0, bufs: &mut world.1, out: &mut world.2 };
    let info = model.lookup(copy);
    let mut contents = Vec::new();
    for version in versions(info.as_ref()) {
        model.submit(env, 0, StoreOp::ReadAll { copy, version: Some(version) });
        contents.push(content(model.next_completion().unwrap()));
    }
    let written = written(&model, copy, info.as_ref());
    Seen { info, contents, written }
}

pub fn versions(info: Option<&CopyInfo>) -> Vec<Version> {
    let Some(info) = info else { return Vec::new() };
    info.committed.iter().chain(&info.prepared).map(|info| info.version).collect()
}

pub fn content(completion: Completion) -> (Vec<u8>, Bitmap) {
    match completion.result {
        Ok(StoreReply::Whole { content: Content::Data { data, mut bitmap }, .. }) => {
            assert!(data.verify());
            bitmap.trim();
            let len = bitmap.end() as usize * 512;
            (data.buf.bytes()[..len].to_vec(), bitmap)
        }
        Ok(StoreReply::Whole { content: Content::Tombstone, .. }) => (Vec::new(), Bitmap::default()),
        other => panic!("ReadAll: {other:?}"),
    }
}

/// The same for answers that differ only in zeroes behind the last written sector.
fn normal(result: Result<StoreReply, StoreError>) -> String {
    match result {
        Ok(StoreReply::Whole { version, predecessor, requests, content: Content::Data { data, mut bitmap } }) => {
            bitmap.trim();
            let bytes = &data.buf.bytes()[..bitmap.end() as usize * 512];
            format!("{version:?} {predecessor:?} {requests:?} {bitmap:?} {:x}", crc32fast::hash(bytes))
        }
        Ok(StoreReply::Read { version, data, bitmap }) => format!("{version:?} {bitmap:?} {:x}", data.crc),
        other => format!("{other:?}"),
    }
}

fn fingerprint((bytes, bitmap): &(Vec<u8>, Bitmap)) -> u32 {
    let mut all = bytes.clone();
    bitmap.words.iter().for_each(|word| all.extend(word.to_le_bytes()));
    crc32fast::hash(&all)
}

fn brief(seen: &Seen) -> String {
    let contents: Vec<_> = seen.contents.iter().map(|(bytes, bitmap)| (crc32fast::hash(bytes), bitmap)).collect();
    format!("{:?} {contents:x?}", seen.info)
}

/// Runs an operation on a model without delay.
pub fn run_model(model: &mut ModelStore, op: StoreOp) -> Result<StoreReply, StoreError> {
    let mut world = (Rng::new(0), BufPool::new(), Effects::default());
    let env = &mut Env { now: Time(0), rng: &mut world.0, bufs: &mut world.1, out: &mut world.2 };
    model.submit(env, 0, op);
    model.next_completion().unwrap().result
}
