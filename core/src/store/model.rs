//! The reference of the store's contract: in memory, no device.
//!
//! Owns copies as plain values and a queue of operations that are accepted but not yet durable.
//! Is the oracle of the real store, and the store of protocol-only simulation and tests.
//! Invariant: `durable` is what `current` was before the operations in `volatile` and `pending`, so a crash keeps a
//! prefix of them.

use super::{Bitmap, Completion, Content, CopyInfo, Data, Digest, Mode, ObjectStore, Patch, PoolUse, unit_mark};
use super::{StoreError, StoreOp, StoreReply, StoreState, StoreStats, VersionInfo};
use crate::buf::{Buf, BufPool, UNIT};
use crate::id::{CopyId, HashRange, PoolId, Requests, Role, StoreUuid, Version};
use crate::io::{DiskDone, Env, IoId};
use crate::limits::{BLOCK_MAX_BYTES, SECTOR_BYTES};
use crate::map::ImmediateCommit;
use crate::planted::{Bug, planted};
use crate::rng::Rng;
use crate::time::Time;
use std::collections::{BTreeMap, VecDeque};

/// One version of a copy.
#[derive(Clone)]
struct State {
    info: VersionInfo,
    /// Bytes up to the last written sector; empty for a tombstone.
    bytes: Vec<u8>,
    bitmap: Bitmap,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let State { info, bytes: _, bitmap } = self;
        write!(f, "State {{ info: {info:?}, bytes: {:x}, bitmap: {bitmap:?} }}", self.fingerprint())
    }
}

impl State {
    /// Equal for equal bytes, as they are read: whether zeroes were written does not count.
    fn fingerprint(&self) -> u64 {
        let end = self.bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let word = |chunk: &[u8]| chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        self.bytes[..end].chunks(8).map(word).fold(0x9e37_79b9_7f4a_7c15, |sum: u64, word| {
            (sum.rotate_left(23) ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd)
        })
    }
}

/// A copy; at least one of both is there.
#[derive(Clone, Debug, Default)]
struct Copy {
    committed: Option<State>,
    prepared: Option<State>,
}

type Copies = BTreeMap<(u64, CopyId), Copy>;

/// An accepted operation, which completes after some more rounds.
#[derive(Clone, Debug)]
struct Pending {
    rounds_left: u32,
    op: StoreOp,
    completion: Completion,
}

/// What a store has space for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Space {
    /// Everything.
    #[default]
    Enough,
    /// Changes of objects that it has.
    NoneForNew,
    /// Nothing but what ends something: deletions, commits, rollbacks.
    None,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct ModelStore {
    uuid: StoreUuid,
    current: Copies,
    durable: Copies,
    pending: VecDeque<Pending>,
    done: VecDeque<Completion>,
    /// Of a lazy store: carried out and answered, not durable.
    volatile: VecDeque<StoreOp>,
    delay_rounds: u32,
    lazy: bool,
    space: Space,
    untrusted: bool,
}

impl ModelStore {
    /// An empty store. Operations complete at once, or `delay_rounds` calls of `end_of_round` later.
    pub fn new(delay_rounds: u32) -> Self {
        ModelStore { delay_rounds, ..ModelStore::default() }
    }

    /// The same with a name of its own.
    pub fn with_uuid(self, uuid: StoreUuid) -> Self {
        ModelStore { uuid, ..self }
    }

    /// The same, lazy: what it answers is durable after the next sync.
    pub fn lazy(self) -> Self {
        ModelStore { lazy: true, ..self }
    }

    /// The process ends, the power stays: of the operations that were not answered, some first ones are carried out.
    pub fn end(&mut self, rng: &mut Rng) {
        for op in std::mem::take(&mut self.volatile) {
            apply(&mut self.durable, &op);
        }
        self.crash(rng);
    }

    /// Power loss: of the operations that are not durable, some first ones survive.
    pub fn crash(&mut self, rng: &mut Rng) {
        let surviving = rng.between(0, (self.volatile.len() + self.pending.len()) as u64);
        self.crash_keeping(usize::try_from(surviving).expect("counted in memory"));
    }

    /// Power loss that this many of the first operations survive which are not durable.
    pub fn crash_keeping(&mut self, surviving: usize) {
        for _ in 0..surviving.min(self.volatile.len() + self.pending.len()) {
            if self.volatile.is_empty() {
                self.finish_first();
            }
            if let Some(op) = self.volatile.pop_front() {
                apply(&mut self.durable, &op);
            }
        }
        self.pending.clear();
        self.volatile.clear();
        self.done.clear();
        self.current = self.durable.clone();
    }

    /// The versions that are stored of a copy, each with a fingerprint of its content.
    pub fn contents(&self, copy: CopyId) -> impl Iterator<Item = (VersionInfo, u64)> {
        let states = self.current.get(&key(copy)).into_iter().flat_map(|copy| [&copy.committed, &copy.prepared]);
        states.flatten().map(|state| (state.info.clone(), state.fingerprint()))
    }

    /// Whether operations are accepted that are not durable yet.
    pub fn is_busy(&self) -> bool {
        !self.pending.is_empty()
    }

    /// From now on there is so much space.
    pub fn set_space(&mut self, space: Space) {
        self.space = space;
    }

    /// From now on the store says that its metadata were lost (or no longer).
    pub fn set_untrusted(&mut self, untrusted: bool) {
        self.untrusted = untrusted;
    }

    /// Damages what is stored of a copy, if it is there.
    pub fn damage(&mut self, copy: CopyId) {
        for copies in [&mut self.current, &mut self.durable] {
            let Some(copy) = copies.get_mut(&key(copy)) else { continue };
            for state in [&mut copy.committed, &mut copy.prepared].into_iter().flatten() {
                state.info.damaged = true;
            }
        }
    }

    /// Changes what is stored of a copy, if it is there, in such a way that its checksums match: nobody notices who does
    /// not compare.
    pub fn alter(&mut self, copy: CopyId) {
        for copies in [&mut self.current, &mut self.durable] {
            let state = copies.get_mut(&key(copy)).and_then(|copy| copy.committed.as_mut());
            if let Some(byte) = state.and_then(|state| state.bytes.first_mut()) {
                *byte ^= 1;
            }
        }
    }

    /// Loses a copy.
    pub fn lose(&mut self, copy: CopyId) {
        self.current.remove(&key(copy));
        self.durable.remove(&key(copy));
    }

    /// Makes the oldest pending operation durable (of a lazy store, those before a sync); its completion can be taken.
    fn finish_first(&mut self) {
        let Some(Pending { op, completion, .. }) = self.pending.pop_front() else { return };
        match &op {
            StoreOp::Sync { .. } => {
                for op in std::mem::take(&mut self.volatile) {
                    apply(&mut self.durable, &op);
                }
            }
            _ if completion.result == Ok(StoreReply::Applied) => self.volatile.push_back(op),
            _ if completion.result.is_ok() => apply(&mut self.durable, &op),
            _ => {}
        }
        self.done.push_back(completion);
    }

    fn execute(&mut self, bufs: &mut BufPool, op: &StoreOp) -> Result<StoreReply, StoreError> {
        match op {
            StoreOp::Read { copy, version, offset, len } => {
                check_range(*offset, *len)?;
                let state = find(&self.current, *copy, *version, false)?;
                read(bufs, state, *offset, *len)
            }
            StoreOp::ReadAll { copy, version } => {
                let state = find(&self.current, *copy, *version, true)?;
                read_all(bufs, state.ok_or(StoreError::NoSuchVersion)?)
            }
            _ => {
                check(&self.current, op, self.space)?;
                apply(&mut self.current, op);
                let volatile = self.lazy && op.copy().is_some();
                Ok(if volatile { StoreReply::Applied } else { StoreReply::Done })
            }
        }
    }

    fn in_range(&self, pool: PoolId, role: Role, range: HashRange) -> impl Iterator<Item = (CopyId, &Copy)> {
        let wanted = move |copy: &CopyId| copy.object.pool == pool && copy.role == role;
        let from = (range.first, CopyId::default());
        let inside = self.current.range(from..).take_while(move |((hash, _), _)| *hash <= range.last);
        inside.filter(move |((_, copy), _)| wanted(copy)).map(|((_, id), copy)| (*id, copy))
    }
}

fn key(copy: CopyId) -> (u64, CopyId) {
    (copy.object.hash(), copy)
}

fn info_of(id: CopyId, copy: &Copy) -> CopyInfo {
    let info = |state: &Option<State>| state.as_ref().map(|state| state.info.clone());
    CopyInfo { copy: id, committed: info(&copy.committed), prepared: info(&copy.prepared) }
}

impl Copy {
    fn newest(&self) -> Option<&State> {
        self.prepared.as_ref().or(self.committed.as_ref())
    }
}

fn newest_version(copies: &Copies, copy: CopyId) -> Version {
    copies.get(&key(copy)).and_then(Copy::newest).map_or(Version::NONE, |state| state.info.version)
}

/// The state that a read asks for; `None`: there is no copy and none was asked for by version.
fn find(copies: &Copies, id: CopyId, version: Option<Version>, prepared: bool) -> Result<Option<&State>, StoreError> {
    let copy = copies.get(&key(id));
    let Some(version) = version else {
        return Ok(copy.and_then(|copy| if prepared { copy.newest() } else { copy.committed.as_ref() }));
    };
    let mut states = copy.into_iter().flat_map(|copy| [&copy.committed, &copy.prepared]).flatten();
    states.find(|state| state.info.version == version).map(Some).ok_or(StoreError::NoSuchVersion)
}

fn check_range(offset: u32, len: u32) -> Result<(), StoreError> {
    let aligned = offset.is_multiple_of(SECTOR_BYTES) && len.is_multiple_of(SECTOR_BYTES);
    let inside = u64::from(offset) + u64::from(len) <= u64::from(BLOCK_MAX_BYTES);
    if aligned && inside { Ok(()) } else { Err(StoreError::BadRequest("range is not whole sectors of an object")) }
}

/// Whether a change can be carried out.
fn check(copies: &Copies, op: &StoreOp, space: Space) -> Result<(), StoreError> {
    let at = |copy: CopyId, predecessor: Version| match newest_version(copies, copy) {
        version if version == predecessor => Ok(()),
        version => Err(StoreError::WrongPredecessor(version)),
    };
    let room = |copy: CopyId| {
        let newest = copies.get(&key(copy)).and_then(Copy::newest);
        let exists = newest.is_some_and(|state| !state.info.tombstone);
        match space {
            Space::None => Err(StoreError::NoSpace),
            Space::NoneForNew if !exists => Err(StoreError::NoSpace),
            Space::NoneForNew | Space::Enough => Ok(()),
        }
    };
    match op {
        StoreOp::Write { copy, predecessor, offset, data, .. } => {
            if let Some(data) = data {
                check_range(*offset, data.len())?;
                (data.verify() || planted(Bug::TrustBody)).then_some(()).ok_or(StoreError::BadChecksum)?;
            }
            at(*copy, *predecessor)?;
            // What is damaged cannot be merged with.
            let needs_old = |data: &Data| !offset.is_multiple_of(UNIT) || !data.len().is_multiple_of(UNIT);
            let newest =
                copies.get(&key(*copy)).and_then(Copy::newest).filter(|_| data.as_ref().is_some_and(needs_old));
            newest.map_or(Ok(()), damage_of)?;
            room(*copy)
        }
        StoreOp::Zero { copy, predecessor, offset, len, .. } => {
            check_range(*offset, *len)?;
            at(*copy, *predecessor)?;
            room(*copy)
        }
        StoreOp::Tombstone { copy, predecessor, .. } => at(*copy, *predecessor),
        StoreOp::Replace { copy, content: Content::Data { data, .. }, .. } => {
            data.verify().then_some(()).ok_or(StoreError::BadChecksum)?;
            room(*copy)
        }
        StoreOp::Patch { copy, base, patch, .. } => {
            patch.data.verify().then_some(()).ok_or(StoreError::BadChecksum)?;
            at(*copy, *base)?;
            let newest = copies.get(&key(*copy)).and_then(Copy::newest);
            let base = newest.filter(|state| !state.info.tombstone).ok_or(StoreError::NoSuchVersion)?;
            damage_of(base)?;
            if base.bitmap.words.is_empty() {
                return Err(StoreError::NoSuchVersion);
            }
            let mut result = base.clone();
            patched(&mut result, patch);
            let fits = patch.sum.is_none_or(|sum| sum == sum_of(&result));
            if fits { room(*copy) } else { Err(StoreError::Mismatch) }
        }
        StoreOp::Commit { copy, version } => {
            let committed = copies.get(&key(*copy)).and_then(|copy| copy.committed.as_ref());
            let done = committed.is_some_and(|state| state.info.version == *version);
            if done { Ok(()) } else { at(*copy, *version) }
        }
        _ => Ok(()),
    }
}

fn apply(copies: &mut Copies, op: &StoreOp) {
    let Some(id) = op.copy() else { return };
    let copy = copies.entry(key(id)).or_default();
    match op {
        StoreOp::Write { version, predecessor, offset, data, mode, commits_predecessor, requests, .. } => {
            if *commits_predecessor {
                commit(copy, *predecessor);
            }
            let mut state = next_state(copy, *version, *predecessor, requests);
            if let Some(data) = data {
                overwrite(&mut state, *offset, data.buf.bytes());
            }
            put(copy, state, *mode);
        }
        StoreOp::Zero { version, predecessor, offset, len, mode, requests, .. } => {
            commit(copy, *predecessor);
            let mut state = next_state(copy, *version, *predecessor, requests);
            unwrite(&mut state, *offset, *len);
            put(copy, state, *mode);
        }
        StoreOp::Tombstone { version, predecessor, mode, requests, .. } => {
            commit(copy, *predecessor);
            let info = version_info(*version, *predecessor, true, requests);
            put(copy, State { info, bytes: Vec::new(), bitmap: Bitmap::default() }, *mode);
        }
        StoreOp::Replace { version, predecessor, content, mode, requests, .. } => {
            put(copy, replacement(*version, *predecessor, content, requests), *mode);
        }
        StoreOp::Patch { base, version, predecessor, patch, requests, .. } => {
            commit(copy, *base);
            let mut state = next_state(copy, *version, *predecessor, requests);
            patched(&mut state, patch);
            put(copy, state, Mode::Plain);
        }
        StoreOp::Commit { version, .. } => commit(copy, *version),
        StoreOp::Rollback { version, .. } => drop_if(&mut copy.prepared, |info| info.version == *version),
        StoreOp::Purge { version, .. } => {
            drop_if(&mut copy.committed, |info| info.version == *version && info.tombstone);
        }
        StoreOp::Remove { version, .. } if copy.prepared.is_some() => {
            drop_if(&mut copy.prepared, |info| info.version == *version);
        }
        StoreOp::Remove { version, .. } => drop_if(&mut copy.committed, |info| info.version == *version),
        StoreOp::Read { .. } | StoreOp::ReadAll { .. } | StoreOp::Sync { .. } => {}
    }
    if copies.get(&key(id)).is_some_and(|copy| copy.newest().is_none()) {
        copies.remove(&key(id));
    }
}

fn commit(copy: &mut Copy, version: Version) {
    if copy.prepared.as_ref().is_some_and(|state| state.info.version == version) {
        copy.committed = copy.prepared.take();
    }
}

fn drop_if(place: &mut Option<State>, condition: impl Fn(&VersionInfo) -> bool) {
    if place.as_ref().is_some_and(|state| condition(&state.info)) {
        *place = None;
    }
}

fn put(copy: &mut Copy, state: State, mode: Mode) {
    match mode {
        Mode::Plain => *copy = Copy { committed: Some(state), prepared: None },
        Mode::Prepare => copy.prepared = Some(state),
    }
}

fn version_info(version: Version, predecessor: Version, tombstone: bool, requests: &Requests) -> VersionInfo {
    VersionInfo { version, predecessor, tombstone, damaged: false, requests: requests.clone() }
}

/// What the copy holds now, under the next version.
fn next_state(copy: &Copy, version: Version, predecessor: Version, requests: &Requests) -> State {
    let info = version_info(version, predecessor, false, requests);
    match copy.newest() {
        Some(state) if !state.info.tombstone => {
            let info = VersionInfo { damaged: state.info.damaged, ..info };
            State { info, ..state.clone() }
        }
        _ => State { info, bytes: Vec::new(), bitmap: Bitmap::default() },
    }
}

fn replacement(version: Version, predecessor: Version, content: &Content, requests: &Requests) -> State {
    let tombstone = matches!(content, Content::Tombstone);
    let info = version_info(version, predecessor, tombstone, requests);
    let (bytes, bitmap) = match content {
        Content::Data { data, bitmap } => (data.buf.bytes().to_vec(), bitmap.clone()),
        Content::Tombstone => (Vec::new(), Bitmap::default()),
    };
    State { info, bytes, bitmap }
}

fn overwrite(state: &mut State, offset: u32, bytes: &[u8]) {
    let (start, end) = (offset as usize, offset as usize + bytes.len());
    if state.bytes.len() < end {
        state.bytes.resize(end, 0);
    }
    state.bytes[start..end].copy_from_slice(bytes);
    let len = u32::try_from(bytes.len()).expect("checked: inside an object");
    state.bitmap.set(offset / SECTOR_BYTES, len / SECTOR_BYTES, true);
}

fn unwrite(state: &mut State, offset: u32, len: u32) {
    let end = ((offset + len) as usize).min(state.bytes.len());
    if (offset as usize) < end {
        state.bytes[offset as usize..end].fill(0);
    }
    state.bitmap.set(offset / SECTOR_BYTES, len / SECTOR_BYTES, false);
    state.bytes.truncate((state.bitmap.end() * SECTOR_BYTES) as usize);
}

/// Brings the content up to date.
fn patched(state: &mut State, patch: &Patch) {
    let mut at = 0;
    for (offset, len) in &patch.ranges {
        overwrite(state, *offset, patch.data.buf.slice(at, *len).bytes());
        at += len;
    }
    patch.mark(&mut state.bitmap);
    for sector in (0..state.bitmap.end()).filter(|sector| !state.bitmap.get(*sector)) {
        let at = (sector * SECTOR_BYTES) as usize;
        state.bytes[at..at + SECTOR_BYTES as usize].fill(0);
    }
    state.bytes.truncate((state.bitmap.end() * SECTOR_BYTES) as usize);
}

fn sum_of(state: &State) -> u64 {
    let mut padded = state.bytes.clone();
    padded.resize(padded.len().next_multiple_of(UNIT as usize), 0);
    let units = padded.chunks(UNIT as usize).enumerate();
    units.fold(0, |sum: u64, (unit, bytes)| sum.wrapping_add(unit_mark(unit, crc32fast::hash(bytes))))
}

fn damage_of(state: &State) -> Result<(), StoreError> {
    let len = u32::try_from(state.bytes.len()).expect("inside an object");
    if state.info.damaged { Err(StoreError::Damaged { offset: 0, len }) } else { Ok(()) }
}

fn read(bufs: &mut BufPool, state: Option<&State>, offset: u32, len: u32) -> Result<StoreReply, StoreError> {
    let mut buf = bufs.zeroed(len);
    let state = state.filter(|state| !state.info.tombstone);
    if let Some(state) = state {
        damage_of(state)?;
        let from = &state.bytes[(offset as usize).min(state.bytes.len())..];
        let count = from.len().min(len as usize);
        buf.bytes_mut()[..count].copy_from_slice(&from[..count]);
    }
    let part = |state: &State| state.bitmap.part(offset / SECTOR_BYTES, len / SECTOR_BYTES);
    Ok(StoreReply::Read {
        version: state.map_or(Version::NONE, |state| state.info.version),
        data: Data::new(bufs.freeze(buf)),
        bitmap: state.map(part).unwrap_or_default(),
    })
}

fn read_all(bufs: &mut BufPool, state: &State) -> Result<StoreReply, StoreError> {
    damage_of(state)?;
    let content = if state.info.tombstone {
        Content::Tombstone
    } else {
        let buf: Buf = bufs.copy_of(&state.bytes);
        Content::Data { data: Data::new(buf), bitmap: state.bitmap.clone() }
    };
    let VersionInfo { version, predecessor, requests, .. } = state.info.clone();
    Ok(StoreReply::Whole { version, predecessor, content, requests })
}

impl ObjectStore for ModelStore {
    fn submit(&mut self, env: &mut Env<'_>, token: u64, op: StoreOp) {
        let result = self.execute(env.bufs, &op);
        let completion = Completion { token, result };
        self.pending.push_back(Pending { rounds_left: self.delay_rounds, op, completion });
        if self.delay_rounds == 0 {
            self.finish_first();
        }
    }

    fn handle_io(&mut self, _: &mut Env<'_>, id: IoId, _: DiskDone) {
        panic!("a store without a device got the completion of {id:?}");
    }

    fn tick(&mut self, _: &mut Env<'_>) {}

    fn end_of_round(&mut self, _: &mut Env<'_>) {
        for pending in &mut self.pending {
            pending.rounds_left = pending.rounds_left.saturating_sub(1);
        }
        while self.pending.front().is_some_and(|pending| pending.rounds_left == 0) {
            self.finish_first();
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        None
    }

    fn next_completion(&mut self) -> Option<Completion> {
        self.done.pop_front()
    }

    fn immediate_commit(&self) -> ImmediateCommit {
        if self.lazy { ImmediateCommit::None } else { ImmediateCommit::All }
    }

    fn state(&self) -> StoreState {
        StoreState::Open { trusted: !self.untrusted }
    }

    fn uuid(&self) -> StoreUuid {
        self.uuid
    }

    fn lookup(&self, copy: CopyId) -> Option<CopyInfo> {
        self.current.get(&key(copy)).map(|found| info_of(copy, found))
    }

    fn written(&self, copy: CopyId, version: Option<Version>) -> Result<Bitmap, StoreError> {
        Ok(find(&self.current, copy, version, false)?.map(|state| state.bitmap.clone()).unwrap_or_default())
    }

    fn list(
        &self,
        pool: PoolId,
        role: Role,
        range: HashRange,
        after: Option<CopyId>,
        limit: usize,
        out: &mut Vec<CopyInfo>,
    ) -> bool {
        let beyond = |id: &CopyId| after.is_none_or(|after| key(*id) > key(after));
        let mut rest = self.in_range(pool, role, range).filter(|(id, _)| beyond(id));
        out.extend(rest.by_ref().take(limit).map(|(id, copy)| info_of(id, copy)));
        rest.next().is_some()
    }

    fn digest(&self, pool: PoolId, role: Role, range: HashRange) -> Digest {
        let mut digest = Digest::default();
        for (id, copy) in self.in_range(pool, role, range) {
            digest.add(Digest::of(&info_of(id, copy)));
        }
        digest
    }

    fn roles(&self, pool: PoolId, range: HashRange) -> Vec<Role> {
        let inside = self.current.keys().filter(|(hash, copy)| copy.object.pool == pool && range.contains(*hash));
        let roles: std::collections::BTreeSet<Role> = inside.map(|(_, copy)| copy.role).collect();
        roles.into_iter().collect()
    }

    fn content_sum(&self, copy: CopyId, version: Version) -> Option<u64> {
        let state = find(&self.current, copy, Some(version), true).ok()??;
        (!state.info.tombstone).then(|| sum_of(state))
    }

    fn stats(&self) -> StoreStats {
        let tombstone = |copy: &&Copy| copy.committed.as_ref().is_some_and(|state| state.info.tombstone);
        let damaged = |copy: &&Copy| copy.newest().is_some_and(|state| state.info.damaged);
        let tombstones = self.current.values().filter(tombstone).count() as u64;
        StoreStats {
            objects: self.current.len() as u64 - tombstones,
            tombstones,
            damaged: self.current.values().filter(damaged).count() as u64,
            ..StoreStats::default()
        }
    }

    fn use_by_pool(&self) -> Vec<(PoolId, PoolUse)> {
        let mut pools: BTreeMap<PoolId, PoolUse> = BTreeMap::new();
        for ((_, id), copy) in &self.current {
            let of = pools.entry(id.object.pool).or_default();
            let tombstone = copy.newest().is_some_and(|state| state.info.tombstone);
            *if tombstone { &mut of.tombstones } else { &mut of.copies } += 1;
        }
        pools.into_iter().collect()
    }

    fn check(&self) {
        for ((_, id), copy) in &self.current {
            let newest = copy.newest().unwrap_or_else(|| panic!("{id:?} has no version"));
            assert!(!newest.info.version.is_none(), "{id:?} has version 0");
            assert!(newest.info.predecessor < newest.info.version, "{id:?}: {:?}", newest.info);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, InodeId, ObjectId};
    use crate::io::Effects;

    struct World {
        store: ModelStore,
        rng: Rng,
        bufs: BufPool,
        out: Effects,
    }

    impl World {
        fn new(delay_rounds: u32) -> Self {
            let store = ModelStore::new(delay_rounds);
            World { store, rng: Rng::new(1), bufs: BufPool::new(), out: Effects::default() }
        }

        fn submit(&mut self, op: StoreOp) {
            let World { store, rng, bufs, out } = self;
            store.submit(&mut Env { now: Time(0), rng, bufs, out }, 7, op);
        }

        fn run(&mut self, op: StoreOp) -> Result<StoreReply, StoreError> {
            self.submit(op);
            self.store.check();
            self.store.next_completion().expect("completes at once").result
        }

        fn write(&mut self, seq: u64, offset: u32, byte: u8) -> StoreOp {
            StoreOp::Write {
                copy: copy(),
                version: version(seq),
                predecessor: if seq == 1 { Version::NONE } else { version(seq - 1) },
                offset,
                data: Some(Data::new(self.bufs.copy_of(&[byte; 512]))),
                mode: Mode::Plain,
                commits_predecessor: false,
                requests: Requests::new(),
            }
        }

        fn first_byte(&mut self, offset: u32) -> (Version, u8) {
            match self.run(StoreOp::Read { copy: copy(), version: None, offset, len: 512 }) {
                Ok(StoreReply::Read { version, data, .. }) => (version, data.buf.bytes()[0]),
                other => panic!("{other:?}"),
            }
        }
    }

    fn copy() -> CopyId {
        let object = ObjectId { pool: PoolId(1), inode: InodeId(1), stripe: 0 };
        CopyId { object, role: Role(0) }
    }

    fn version(seq: u64) -> Version {
        Version { epoch: Epoch(1), seq }
    }

    #[test]
    fn a_write_needs_its_predecessor_and_keeps_the_rest() {
        let mut world = World::new(0);
        let early = world.write(2, 0, 9);
        assert_eq!(world.run(early), Err(StoreError::WrongPredecessor(Version::NONE)));
        for op in [world.write(1, 512, 1), world.write(2, 1024, 2)] {
            assert_eq!(world.run(op), Ok(StoreReply::Done));
        }
        assert_eq!(world.first_byte(512), (version(2), 1));
        assert_eq!(world.first_byte(1024), (version(2), 2));
        assert_eq!(world.first_byte(0), (version(2), 0));
    }

    #[test]
    fn a_prepared_version_is_invisible_until_committed() {
        let mut world = World::new(0);
        let first = world.write(1, 0, 1);
        world.run(first).unwrap();
        let StoreOp::Write { copy: id, version: new, predecessor, offset, data, requests, .. } = world.write(2, 0, 2)
        else {
            unreachable!()
        };
        let (mode, commits_predecessor) = (Mode::Prepare, false);
        let op =
            StoreOp::Write { copy: id, version: new, predecessor, offset, data, mode, commits_predecessor, requests };
        world.run(op).unwrap();
        assert_eq!(world.first_byte(0), (version(1), 1));
        world.run(StoreOp::Commit { copy: id, version: new }).unwrap();
        assert_eq!(world.first_byte(0), (version(2), 2));
        assert_eq!(world.run(StoreOp::Commit { copy: id, version: new }), Ok(StoreReply::Done));
    }

    #[test]
    fn a_purge_takes_exactly_its_tombstone() {
        let mut world = World::new(0);
        let first = world.write(1, 0, 1);
        world.run(first).unwrap();
        let (requests, mode) = (Requests::new(), Mode::Plain);
        let tombstone =
            StoreOp::Tombstone { copy: copy(), version: version(2), predecessor: version(1), mode, requests };
        world.run(tombstone).unwrap();
        assert_eq!(world.first_byte(0), (Version::NONE, 0));
        world.run(StoreOp::Purge { copy: copy(), version: version(1) }).unwrap();
        assert!(world.store.lookup(copy()).is_some());
        world.run(StoreOp::Purge { copy: copy(), version: version(2) }).unwrap();
        assert!(world.store.lookup(copy()).is_none());
    }

    #[test]
    fn a_crash_keeps_a_prefix() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let mut world = World::new(2);
            for seq in 1..=3 {
                let op = world.write(seq, 0, u8::try_from(seq).unwrap());
                world.submit(op);
            }
            world.store.crash(&mut Rng::new(seed));
            let newest = newest_version(&world.store.current, copy());
            assert!(newest <= version(3) || newest.is_none());
            seen.insert(newest);
        }
        assert_eq!(seen.len(), 4);
    }

    #[test]
    fn equal_contents_have_equal_digests() {
        let (mut a, mut b) = (World::new(0), World::new(0));
        let digest = |world: &World| world.store.digest(PoolId(1), Role(0), HashRange::ALL);
        for world in [&mut a, &mut b] {
            let first = world.write(1, 0, 1);
            world.run(first).unwrap();
        }
        assert_eq!(digest(&a), digest(&b));
        let second = b.write(2, 0, 1);
        b.run(second).unwrap();
        assert_ne!(digest(&a), digest(&b));
        a.run(StoreOp::Remove { copy: copy(), version: version(1) }).unwrap();
        assert_eq!(digest(&a), Digest::default());
    }
}
