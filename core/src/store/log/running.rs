//! An open store: routes completions, settles operations in order, keeps pages, flushes and timers going.
//!
//! Owns all parts of a store that serves; each part's rules are in its own module. Invariants: operations of one object
//! are carried out, acknowledged and settled in the order given; nothing is acknowledged or freed on the strength of a
//! page that is not in the log (with lazy acknowledgement: not completed); after a failure of the log nothing is
//! acknowledged any more.

use super::blocks::Blocks;
use super::clean::Cleaner;
use super::discard::Discarding;
use super::flush::Flusher;
use super::index::{NONE, ObjectIndex, Objects};
use super::intent::{Hold, Overwrites, Ways};
use super::journal::Journal;
use super::moves::Move;
use super::object::Spare;
use super::ops::{Actives, Base, DataStage, DataWrite, Op, Stage};
use super::page::Sequence;
use super::read::{Captured, ReadOp};
use super::record::{NO_BLOCK, UnitData};
use super::scrub::Scrubber;
use super::summary::{Share, Summary};
use super::superblock::Superblock;
use crate::buf::Buf;
use crate::id::{CopyId, HashRange, PoolId, Role};
use crate::io::{Device, DiskDone, DiskError, DiskOp, Effect, Env, Event, IoId, Level};
use crate::map::ImmediateCommit;
use crate::planted::{Bug, planted};
use crate::slab::{Key, Slab};
use crate::stages::{DeviceStages, Histogram};
use crate::store::{Completion, CopyInfo, Digest, PoolUse, StoreError, StoreOp, StoreReply, StoreStats};
use crate::time::{Duration, Time};
use std::collections::VecDeque;

/// An idle log gets its vouching page after so long, and what nobody waits for its own: short for damage to be noticed, long
/// enough to be rare.
pub(super) const VOUCHER_DELAY: Duration = Duration::millis(5);

/// What a disk request was for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Io {
    /// The page that is being written.
    Page,
    /// Data of an operation, so many bytes.
    Data(Key<Op>, u64),
    /// Part of a compaction.
    Compaction(ObjectIndex),
    /// Data that go to another block than the one that was refused.
    Move(Key<Move>),
    /// A unit of a refused block.
    MoveRead(Key<Move>, usize),
    /// Old data for an operation.
    Fetch(Key<Op>),
    /// A read.
    Read(Key<ReadOp>),
    /// The device is told of blocks that are free.
    Discard,
    /// A flush.
    Flush(Device),
    /// What the scrub of the log looks at.
    Scrub,
    /// A superblock that was damaged.
    Mend,
    /// A free segment of which a part could not be read.
    Wipe,
}

/// A sync that waits.
#[derive(Clone, Debug)]
struct Sync {
    token: u64,
    /// Operations with lower numbers that are not settled.
    outstanding: u64,
    before: u64,
}

/// See the module.
#[derive(Clone)]
pub struct Running {
    pub(super) superblock: Superblock,
    pub(super) trusted: bool,
    pub(super) overwrites: Overwrites,
    pub(super) ways: Ways,
    pub(super) hold: Hold,
    pub(super) failed: Option<String>,
    pub(super) objects: Objects,
    pub(super) actives: Actives,
    pub(super) ops: Slab<Op>,
    pub(super) reads: Slab<ReadOp>,
    ios: Slab<(Io, Time)>,
    /// How long the device took.
    pub(super) device: DeviceStages,
    pub(super) journal: Journal<Key<Op>>,
    pub(super) blocks: Blocks,
    pub(super) data_flush: Flusher,
    /// Of the separate log device.
    pub(super) log_flush: Option<Flusher>,
    pub(super) spare: Spare,
    /// Objects whose next operation found no space.
    stalled: VecDeque<ObjectIndex>,
    /// Whether space was gained since they last tried.
    pub(super) gained: bool,
    pub(super) cleaner: Cleaner,
    pub(super) scrubber: Scrubber,
    pub(super) overlay_queue: VecDeque<ObjectIndex>,
    /// Overlays of committed versions.
    pub(super) overlays: u64,
    /// Overlays of prepared versions.
    pub(super) prepared_overlays: u64,
    pub(super) compactions: u32,
    /// Data on their way from blocks that were refused to others.
    pub(super) moves: Slab<Move>,
    /// Operations whose data are not durable.
    pub(super) undone: u32,
    /// Bound of the snapshots of all objects.
    pub(super) snapshot_bytes: u64,
    /// Other sums over all objects.
    summary: Summary,
    /// Reads that found damage since one found none.
    pub(super) unread: u32,
    /// Whether nothing is accepted any more: the log is to end with a page that vouches for all of it.
    closing: bool,
    syncs: Vec<Sync>,
    completions: VecDeque<Completion>,
    pub(super) counters: StoreStats,
    next_number: u64,
    unsettled: u64,
    /// Of them, the cleaner's.
    pub(super) snapshots: usize,
    /// Operations that were under way in the last rounds, the older ones counting less.
    pub(super) depth: usize,
    voucher_at: Option<Time>,
    pub(super) units: Vec<UnitData>,
    durable_writes: Vec<DataWrite>,
}

/// What opening found.
pub struct Found {
    /// The superblock.
    pub superblock: Superblock,
    /// Whether metadata were lost.
    pub trusted: bool,
    /// The objects, each with its base segment.
    pub objects: Objects,
    /// The log.
    pub journal: Journal<Key<Op>>,
    /// Flushes of the data device, and of the log's if it has one.
    pub flushers: (Flusher, Option<Flusher>),
    /// How overwrites go to the device.
    pub overwrites: Overwrites,
    /// In what time the scrub passes over the log; zero: never.
    pub scrub: Duration,
    /// How eagerly the device is told of free blocks; `None`: it is not.
    pub discards: Option<Discarding>,
}

impl Running {
    /// A store that serves from now on; or why its metadata cannot be true.
    pub fn new(found: Found) -> Result<Self, String> {
        let Found { superblock, trusted, objects, journal, flushers, overwrites, scrub, discards } = found;
        let owned = objects.blocks().filter(|block| *block != NO_BLOCK);
        let mut blocks = Blocks::new(superblock.blocks, owned)
            .map_err(|block| format!("the log contradicts itself: block {block} has two owners"))?;
        if let Some(eagerness) = discards {
            blocks.begin_discards(eagerness, superblock.block_size);
        }
        let mut store = Running {
            superblock,
            trusted,
            overwrites,
            ways: Ways::default(),
            hold: Hold::default(),
            failed: None,
            unread: 0,
            objects,
            actives: Actives::default(),
            ops: Slab::default(),
            reads: Slab::default(),
            ios: Slab::default(),
            device: DeviceStages::default(),
            journal,
            blocks,
            data_flush: flushers.0,
            log_flush: flushers.1,
            spare: Spare::default(),
            stalled: VecDeque::new(),
            gained: false,
            cleaner: Cleaner::default(),
            scrubber: Scrubber::new(scrub),
            overlay_queue: VecDeque::new(),
            overlays: 0,
            prepared_overlays: 0,
            compactions: 0,
            moves: Slab::default(),
            undone: 0,
            snapshot_bytes: 0,
            summary: Summary::default(),
            closing: false,
            syncs: Vec::new(),
            completions: VecDeque::new(),
            counters: StoreStats::default(),
            next_number: 1,
            unsettled: 0,
            snapshots: 0,
            depth: 0,
            voucher_at: None,
            units: Vec::new(),
            durable_writes: Vec::new(),
        };
        store.count_all();
        Ok(store)
    }

    fn count_all(&mut self) {
        let mut overlaid = Vec::new();
        self.objects.recount();
        for place in self.objects.places() {
            let object = self.objects.glance(place).expect("the place is taken");
            if object.base != NONE {
                let segment = &mut self.journal.segments[object.base as usize];
                segment.live += 1;
                segment.snapshot_bytes += object.snapshot_bytes;
                segment.objects.push(place);
            }
            self.snapshot_bytes += object.snapshot_bytes;
            self.prepared_overlays += object.prepared_overlays;
            self.overlays += object.versions.overlays() as u64;
            self.summary.change(object.copy, Share::default(), object.share);
            if object.versions.overlays() > 0 {
                overlaid.push(place);
            }
        }
        overlaid.into_iter().for_each(|place| self.queue_overlays(place));
    }

    /// Brings the sums over all objects up to date after a change of one that had so many overlays.
    pub(super) fn count(&mut self, place: ObjectIndex, overlays_before: usize) {
        let object = self.objects.at_mut(place);
        let bound = object.snapshot_bound();
        let before = std::mem::replace(&mut object.snapshot_bytes, bound);
        self.snapshot_bytes = self.snapshot_bytes - before + bound;
        // Cleaning needs less of the log.
        self.gained |= bound < before;
        let prepared = object.versions.prepared_overlays();
        let prepared_before = std::mem::replace(&mut object.prepared_overlays, prepared);
        self.prepared_overlays = self.prepared_overlays - prepared_before + prepared;
        if object.base != NONE {
            let segment = &mut self.journal.segments[object.base as usize];
            segment.snapshot_bytes = segment.snapshot_bytes - before + bound;
        }
        self.overlays = self.overlays + object.versions.overlays() as u64 - overlays_before as u64;
        let share = object.versions.share(object.copy.object);
        self.summary.change(object.copy, std::mem::replace(&mut object.share, share), share);
    }

    /// The oldest record that the object needs lies in `base` from now on.
    fn move_base(&mut self, place: ObjectIndex, base: u32) {
        let object = self.objects.at_mut(place);
        let before = std::mem::replace(&mut object.base, base);
        if before != NONE {
            let segment = &mut self.journal.segments[before as usize];
            segment.live -= 1;
            segment.snapshot_bytes -= object.snapshot_bytes;
        }
        if base != NONE {
            let segment = &mut self.journal.segments[base as usize];
            segment.live += 1;
            segment.snapshot_bytes += object.snapshot_bytes;
            if before != base {
                segment.objects.push(place);
            }
        }
    }

    /// Whether operations wait for space.
    pub(super) fn is_stalled(&self) -> bool {
        !self.stalled.is_empty()
    }

    /// Whether operations that change something are refused.
    pub fn is_read_only(&self) -> bool {
        self.failed.is_some() || !self.trusted
    }

    /// Nothing more is accepted; what is under way is ended, and the log with a page that vouches for all of it.
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// Whether nothing more is accepted.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether closing is over.
    pub fn is_closed(&self) -> bool {
        let flushed = |flusher: &Flusher| !flusher.is_busy();
        let durable = flushed(&self.data_flush) && self.log_flush.as_ref().is_none_or(flushed);
        self.is_read_only() || (self.closing && self.is_quiet() && durable && !self.journal.needs_voucher())
    }

    /// Whether nothing is under way: until it is asked for something, time alone may only begin requests.
    pub fn is_quiet(&self) -> bool {
        self.ops.is_empty() && self.ios.is_empty() && self.moves.is_empty() && !self.journal.is_busy()
    }

    /// Why it stopped, if it did.
    pub fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// The superblock.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Whether metadata are whole.
    pub fn is_trusted(&self) -> bool {
        self.trusted
    }

    // ---- submission

    /// Accepts an operation that makes sense, with the CRCs of its whole units.
    pub(super) fn accept(&mut self, env: &mut Env<'_>, op: Op, copy: crate::id::CopyId) {
        let request = op.request.as_ref().expect("just submitted");
        let place = self.objects.find(copy);
        let resting = place.and_then(|place| self.objects.get(place)).is_none_or(|object| object.active == NONE);
        if resting && matches!(request, StoreOp::Read { .. } | StoreOp::ReadAll { .. }) {
            let token = op.token.expect("reads are asked for");
            return self.read_now(env, token, place, request);
        }
        let place = place.unwrap_or_else(|| self.objects.find_or_insert(copy));
        self.enqueue(Op { object: place, ..op });
        self.advance(env, place);
        self.settle(env, place);
    }

    fn read_now(&mut self, env: &mut Env<'_>, token: u64, place: Option<ObjectIndex>, request: &StoreOp) {
        match self.capture(env, token, place, request) {
            Ok(Captured::Read(key)) => self.start_read(env, key),
            Ok(Captured::Answer(reply)) => self.complete(token, Ok(reply)),
            Err(error) => self.complete(token, Err(error)),
        }
    }

    /// Puts an operation behind those of its object.
    pub(super) fn enqueue(&mut self, op: Op) -> Key<Op> {
        let place = op.object;
        let key = self.ops.insert(Op { number: self.next_number, ..op });
        self.next_number += 1;
        self.unsettled += 1;
        let active = self.activate(place);
        self.actives.at_mut(active).ops.push_back(key);
        key
    }

    /// The active record of an object, made if it rests.
    pub(super) fn activate(&mut self, place: ObjectIndex) -> u32 {
        let object = self.objects.wake(place);
        if object.active == NONE {
            object.active = self.actives.begin();
        }
        object.active
    }

    /// Waits until what was accepted before is durable.
    pub(super) fn sync(&mut self, token: u64) {
        if self.unsettled == 0 {
            return self.complete(token, Ok(StoreReply::Done));
        }
        self.syncs.push(Sync { token, outstanding: self.unsettled, before: self.next_number });
    }

    /// Tells the result of an operation.
    pub(super) fn complete(&mut self, token: u64, result: Result<StoreReply, StoreError>) {
        self.completions.push_back(Completion { token, result });
    }

    /// Takes a finished operation.
    pub fn next_completion(&mut self) -> Option<Completion> {
        self.completions.pop_front()
    }

    // ---- the course of an object's operations

    /// Carries out what can be carried out.
    pub(super) fn advance(&mut self, env: &mut Env<'_>, place: ObjectIndex) {
        loop {
            let Some(active) = self.actives.get(self.objects.at(place).active) else { return };
            if active.cleaning || active.stalled || self.is_read_only() {
                return;
            }
            let Some(key) = active.ops.get(active.applied).copied() else { return };
            match self.carry_out(env, key) {
                Next::Applied => {
                    let active = self.objects.at(place).active;
                    self.actives.at_mut(active).applied += 1;
                }
                Next::Wait => return,
                Next::Stall => return self.stall(place),
            }
        }
    }

    fn stall(&mut self, place: ObjectIndex) {
        let active = self.objects.at(place).active;
        let active = self.actives.at_mut(active);
        active.stalled = true;
        self.counters.waits += 1;
        // What was fetched would keep compaction, and so the log, waiting.
        active.fetching = false;
        let key = active.ops[active.applied];
        self.ops.get_mut(key).expect("listed operations live").stage = Stage::Queued;
        self.stalled.push_back(place);
    }

    fn retry_stalled(&mut self, env: &mut Env<'_>) {
        if !std::mem::take(&mut self.gained) {
            return;
        }
        for _ in 0..self.stalled.len() {
            let Some(place) = self.stalled.pop_front() else { return };
            let active = self.objects.at(place).active;
            self.actives.at_mut(active).stalled = false;
            self.advance(env, place);
            self.settle(env, place);
        }
    }

    /// Acknowledges and settles, in order, what can be.
    pub(super) fn settle(&mut self, env: &mut Env<'_>, place: ObjectIndex) {
        if self.failed.is_some() {
            return;
        }
        let mut at = 0;
        loop {
            let Some(active) = self.actives.get(self.objects.at(place).active) else { return };
            if at >= active.applied {
                break;
            }
            let key = active.ops[at];
            if !self.acknowledge(key, at) {
                break;
            }
            match self.leaving(key, at) {
                Leaving::Stays => at += 1,
                Leaving::Settled => self.settle_op(place, at, key),
                Leaving::Starts(read) => {
                    self.drop_op(place, at, key);
                    self.start_read(env, read);
                }
            }
        }
        self.rest(place);
    }

    /// Whether the operation is acknowledged, now or before. Those before it are.
    fn acknowledge(&mut self, key: Key<Op>, at: usize) -> bool {
        let (page, stage) = (self.acknowledged_page(), self.acknowledged_stage());
        let (lazy, durable) = (self.immediate_commit() != ImmediateCommit::All, self.journal.durable());
        let op = self.ops.get_mut(key).expect("listed operations live");
        if op.acknowledged {
            return true;
        }
        let result = match &op.stage {
            Stage::Refused(error) => Err(error.clone()),
            Stage::Answered(reply) => Ok(reply.clone()),
            Stage::Captured(_) => return true,
            _ if op.page <= page && (op.data >= stage || planted(Bug::StoreAckWithoutData)) => {
                // One that stands behind others is durable only with them.
                let durable = at == 0 && op.page <= durable && op.data == DataStage::Durable;
                Ok(if lazy && !durable { StoreReply::Applied } else { StoreReply::Done })
            }
            _ => return false,
        };
        op.acknowledged = true;
        if let Some(token) = op.token {
            self.complete(token, result);
        }
        true
    }

    /// What a small write waits for is the log; a large one waits for its data, too.
    pub fn immediate_commit(&self) -> ImmediateCommit {
        let log = self.log_flush.as_ref().unwrap_or(&self.data_flush);
        match (log.is_lazy(), self.data_flush.is_lazy()) {
            (true, _) => ImmediateCommit::None,
            (false, true) => ImmediateCommit::Small,
            (false, false) => ImmediateCommit::All,
        }
    }

    fn acknowledged_page(&self) -> Sequence {
        let flusher = self.log_flush.as_ref().unwrap_or(&self.data_flush);
        if flusher.acknowledges_completion() { self.journal.completed() } else { self.journal.durable() }
    }

    fn acknowledged_stage(&self) -> DataStage {
        if self.data_flush.acknowledges_completion() { DataStage::Completed } else { DataStage::Durable }
    }

    fn leaving(&self, key: Key<Op>, at: usize) -> Leaving {
        let op = self.ops.get(key).expect("listed operations live");
        match &op.stage {
            Stage::Captured(read) => Leaving::Starts(*read),
            Stage::Refused(_) | Stage::Answered(_) => Leaving::Settled,
            // Settled in order, so that the base of an object only moves forward.
            _ if at == 0 && op.page <= self.journal.durable() && op.data == DataStage::Durable => Leaving::Settled,
            _ => Leaving::Stays,
        }
    }

    fn settle_op(&mut self, place: ObjectIndex, at: usize, key: Key<Op>) {
        let op = self.drop_op(place, at, key);
        for block in &op.frees {
            self.blocks.cool(op.page, *block);
        }
        if op.page == 0 {
            return;
        }
        self.journal.segments[op.segment as usize].unsettled -= 1;
        match op.base {
            Base::Is => self.move_base(place, op.segment),
            Base::Ends => self.move_base(place, NONE),
            Base::Builds if self.objects.at(place).base == NONE => self.move_base(place, op.segment),
            Base::Builds => {}
        }
    }

    /// Takes an operation off its object's list.
    fn drop_op(&mut self, place: ObjectIndex, at: usize, key: Key<Op>) -> Op {
        let active = self.actives.at_mut(self.objects.at(place).active);
        active.ops.remove(at);
        active.applied -= 1;
        let op = self.ops.remove(key).expect("listed operations live");
        self.unsettled -= 1;
        self.snapshots -= usize::from(op.token.is_none());
        for sync in &mut self.syncs {
            sync.outstanding -= u64::from(op.number < sync.before);
        }
        let done = self.syncs.iter().filter(|sync| sync.outstanding == 0).map(|sync| sync.token);
        self.completions.extend(done.map(|token| Completion { token, result: Ok(StoreReply::Done) }));
        self.syncs.retain(|sync| sync.outstanding > 0);
        op
    }

    /// Forgets that an object is active, or the object, if nothing is left of it.
    pub(super) fn rest(&mut self, place: ObjectIndex) {
        let object = self.objects.at_mut(place);
        if self.actives.get(object.active).is_some_and(|active| !active.is_idle()) {
            return;
        }
        if object.active != NONE {
            self.actives.end(std::mem::replace(&mut object.active, NONE));
        }
        if object.versions.is_empty() && object.base == NONE {
            return self.objects.remove(place);
        }
        self.objects.rest(place);
    }

    // ---- the disk

    pub(super) fn emit(&mut self, env: &mut Env<'_>, io: Io, op: DiskOp) {
        match &op {
            DiskOp::Write { data, .. } => {
                self.counters.device_writes += 1;
                self.counters.device_written_bytes += u64::from(data.len());
            }
            DiskOp::Flush { .. } => self.counters.device_flushes += 1,
            DiskOp::Discard { len, .. } => self.counters.discarded_bytes += len,
            DiskOp::Read { .. } => {}
        }
        let id = IoId(self.ios.insert((io, env.now)).to_u64());
        env.out.push(Effect::Io { id, op });
    }

    pub(super) fn read_block(&mut self, env: &mut Env<'_>, block: u32, unit: usize, len: u32, io: Io) {
        let offset = self.superblock.data_place(block, unit);
        self.emit(env, io, DiskOp::Read { device: Device::Data, offset, len });
    }

    pub(super) fn write_block(&mut self, env: &mut Env<'_>, block: u32, unit: usize, data: Buf, io: Io) {
        let offset = self.superblock.data_place(block, unit);
        self.emit(env, io, DiskOp::Write { device: Device::Data, offset, data });
    }

    fn device_stage(&mut self, io: Io) -> Option<&mut Histogram> {
        match io {
            Io::Page => Some(&mut self.device.log_write),
            Io::Data(..) | Io::Compaction(_) | Io::Move(_) => Some(&mut self.device.data_write),
            Io::Fetch(_) | Io::Read(_) | Io::MoveRead(..) | Io::Scrub => Some(&mut self.device.read),
            Io::Flush(_) => Some(&mut self.device.flush),
            Io::Discard | Io::Mend | Io::Wipe => None,
        }
    }

    /// Takes the completion of a disk request.
    pub fn handle_io(&mut self, env: &mut Env<'_>, id: IoId, done: DiskDone) {
        let Some((io, since)) = self.ios.remove(Key::from_u64(id.0)) else { return };
        if let Some(stage) = self.device_stage(io) {
            stage.record(env.now.since(since));
        }
        match (io, done) {
            (Io::Read(key), DiskDone::Read(result)) => self.finish_read(env, key, result),
            (Io::Fetch(key), DiskDone::Read(result)) => self.fetched(env, key, result),
            (Io::Page, DiskDone::Done(result)) => self.page_written(env, result),
            (Io::Data(key, bytes), DiskDone::Done(result)) => self.data_written(env, key, bytes, result),
            (Io::Compaction(place), DiskDone::Done(result)) => self.compaction_written(env, place, result),
            (Io::Move(key), DiskDone::Done(result)) => self.move_written(env, key, result),
            (Io::MoveRead(key, unit), DiskDone::Read(result)) => self.rest_unit_read(env, key, unit, result),
            (Io::Discard, DiskDone::Done(result)) => self.discarded(env, result),
            (Io::Flush(device), DiskDone::Done(result)) => self.flushed(env, device, result),
            (Io::Scrub, DiskDone::Read(result)) => self.scrubbed(env, result),
            // What could not be mended is found again.
            (Io::Mend, DiskDone::Done(_)) => {}
            (Io::Wipe, DiskDone::Done(_)) => {
                self.journal.end_wipe();
                self.gained = true;
            }
            (io, done) => panic!("{io:?} completed with {done:?}"),
        }
    }

    /// No more acknowledgements: what is on the device is not known any more.
    pub(super) fn fail(&mut self, env: &mut Env<'_>, reason: String) {
        if self.failed.is_none() {
            env.out.push(Effect::Observe(Event::Log(Level::Error, format!("the store stops: {reason}"))));
            self.failed = Some(reason);
        }
    }

    fn page_written(&mut self, env: &mut Env<'_>, result: Result<(), DiskError>) {
        if let Err(error) = result {
            return self.fail(env, format!("a write to the log failed: {error}"));
        }
        let page = self.journal.write_completed();
        let bytes = u64::from(self.superblock.page_max());
        let flusher = self.log_flush.as_mut().unwrap_or(&mut self.data_flush);
        if flusher.is_durable_at_once() {
            return self.pages_durable(env, page);
        }
        flusher.page_completed(env.now, page, bytes);
        if flusher.acknowledges_completion() {
            self.settle_completed(env);
        }
    }

    /// Lazy: a completed page is enough to acknowledge.
    fn settle_completed(&mut self, env: &mut Env<'_>) {
        for at in 0..self.journal.completed_owners().len() {
            let key = self.journal.completed_owners()[at];
            self.settle_owner(env, key);
        }
    }

    fn settle_owner(&mut self, env: &mut Env<'_>, key: Key<Op>) {
        if let Some(place) = self.ops.get(key).map(|op| op.object) {
            self.settle(env, place);
            self.step_object(env, place);
        }
    }

    fn pages_durable(&mut self, env: &mut Env<'_>, upto: Sequence) {
        let room = self.journal.free_segments();
        while let Some(page) = self.journal.pop_durable(upto) {
            for key in &page.owners {
                self.record_in_log(env, *key);
                self.settle_owner(env, *key);
            }
            self.journal.recycle(page.owners);
        }
        // A page that names a later tail frees the segments behind it.
        self.gained |= self.journal.free_segments() > room;
        self.finish_moves(env, self.journal.durable());
        self.gained |= self.blocks.release(self.journal.done_in_log());
        self.gained |= self.journal.advance_tail();
    }

    fn data_written(&mut self, env: &mut Env<'_>, key: Key<Op>, bytes: u64, result: Result<(), DiskError>) {
        if let Err(error) = result {
            return self.data_refused(env, key, error);
        }
        let op = self.ops.get_mut(key).expect("waits for its data");
        (op.data, op.body) = (DataStage::Completed, None);
        self.write_completed(env, DataWrite::Op(key), bytes);
    }

    /// A data write completed: it is durable, or waits for a flush.
    pub(super) fn write_completed(&mut self, env: &mut Env<'_>, write: DataWrite, bytes: u64) {
        if self.data_flush.is_durable_at_once() {
            return self.data_durable(env, write);
        }
        self.data_flush.data_completed(env.now, write, bytes);
        if let (DataWrite::Op(key), true) = (write, self.data_flush.acknowledges_completion()) {
            self.settle_owner(env, key);
        }
    }

    fn data_durable(&mut self, env: &mut Env<'_>, write: DataWrite) {
        match write {
            DataWrite::Op(key) => self.op_data_durable(env, key),
            DataWrite::Compaction(place) => self.compaction_durable(env, place),
            DataWrite::Move(key) => self.move_durable(env, key),
        }
    }

    pub(super) fn op_data_durable(&mut self, env: &mut Env<'_>, key: Key<Op>) {
        let op = self.ops.get_mut(key).expect("waits for its data");
        op.data = DataStage::Durable;
        let (place, page, block) = (op.object, op.page, op.block);
        self.journal.data_end(page);
        self.undone -= 1;
        self.blocks.unpin(block);
        let active = self.objects.at(place).active;
        self.actives.at_mut(active).undone = false;
        self.settle(env, place);
        self.step_object(env, place);
    }

    /// Goes on with what an object may have waited for.
    pub(super) fn step_object(&mut self, env: &mut Env<'_>, place: ObjectIndex) {
        if self.objects.get(place).is_none_or(|object| object.active == NONE) {
            return;
        }
        if self.actives.get(self.objects.at(place).active).is_some_and(|active| active.moving) {
            self.step_moves(env);
            if self.objects.get(place).is_none_or(|object| object.active == NONE) {
                return;
            }
        }
        self.clean_step(env, place);
        self.advance(env, place);
        self.settle(env, place);
    }

    fn flushed(&mut self, env: &mut Env<'_>, device: Device, result: Result<(), DiskError>) {
        if let Err(error) = result {
            return self.fail(env, format!("a flush failed: {error}"));
        }
        let mut durable = std::mem::take(&mut self.durable_writes);
        let page = match (device, &mut self.log_flush) {
            (Device::Log, Some(flusher)) => Some(flusher.end(&mut durable)),
            (_, separate) => Some(self.data_flush.end(&mut durable)).filter(|_| separate.is_none()),
        };
        for write in durable.drain(..) {
            self.data_durable(env, write);
        }
        self.durable_writes = durable;
        if let Some(page) = page {
            self.pages_durable(env, page);
        }
    }

    // ---- rounds and time

    /// All inputs of this round were given.
    pub fn end_of_round(&mut self, env: &mut Env<'_>) {
        if self.is_read_only() {
            return;
        }
        self.note_depth();
        self.retry_stalled(env);
        self.step_moves(env);
        self.scrub(env);
        self.clean(env);
        self.compact(env);
        self.discard(env);
        self.vouch(env);
        let held = self.holds_page(env.now, self.is_pressed());
        if !held {
            self.fill_page(env);
        }
        if !held && let Some((offset, data)) = self.journal.next_write(env.bufs) {
            let device = self.superblock.log_device();
            self.emit(env, Io::Page, DiskOp::Write { device, offset, data });
        }
        self.flush(env);
    }

    /// Tells the device of free blocks.
    fn discard(&mut self, env: &mut Env<'_>) {
        if self.closing {
            return;
        }
        if let Some((first, count)) = self.blocks.next_discard(env.now) {
            self.emit_discard(env, first, count, Io::Discard);
        }
    }

    pub(super) fn emit_discard(&mut self, env: &mut Env<'_>, first: u32, count: u32, io: Io) {
        let offset = self.superblock.data_place(first, 0);
        let len = u64::from(count) * u64::from(self.superblock.block_size);
        self.emit(env, io, DiskOp::Discard { device: Device::Data, offset, len });
    }

    /// Whether the device took the hint makes no difference, but for whether it is asked again: one that cannot, or fails, is
    /// left alone until the store is opened again.
    fn discarded(&mut self, env: &mut Env<'_>, result: Result<(), DiskError>) {
        self.blocks.discarded(env.now);
        self.gained = true;
        let Err(error) = result else { return };
        self.blocks.end_discards();
        if error != DiskError::Unsupported {
            let text = "a discard of free blocks failed: the device is told of none until the OSD is started again";
            env.out.push(Effect::Observe(Event::Log(Level::Warn, text.to_string())));
        }
    }

    /// Whether somebody waits for what only another page, or another flush, brings.
    fn is_pressed(&self) -> bool {
        let waits = !self.stalled.is_empty() || !self.syncs.is_empty() || !self.moves.is_empty();
        waits || self.cleaner.is_busy() || self.closing
    }

    /// Writes an empty page if the log is idle with something that no later page vouches for.
    fn vouch(&mut self, env: &mut Env<'_>) {
        if !self.journal.needs_voucher() {
            self.voucher_at = None;
            return;
        }
        let at = *self.voucher_at.get_or_insert(env.now + VOUCHER_DELAY);
        let cooling = self.blocks.is_cooling() || self.journal.is_segment_cooling();
        if at <= env.now || self.closing || (!self.stalled.is_empty() && cooling) {
            self.voucher_at = None;
            self.journal.voucher(env.bufs);
        }
    }

    fn flush(&mut self, env: &mut Env<'_>) {
        let pressed = self.is_pressed();
        if self.data_flush.is_due(env.now, pressed) {
            self.data_flush.begin();
            self.emit(env, Io::Flush(Device::Data), DiskOp::Flush { device: Device::Data });
        }
        let Some(flusher) = &mut self.log_flush else { return };
        if flusher.is_due(env.now, pressed) {
            flusher.begin();
            self.emit(env, Io::Flush(Device::Log), DiskOp::Flush { device: Device::Log });
        }
    }

    /// When something is due.
    pub fn next_deadline(&self) -> Option<Time> {
        if self.is_read_only() {
            return None;
        }
        let log = self.log_flush.as_ref().and_then(Flusher::deadline);
        let discards = self.blocks.discard_deadline().filter(|_| !self.closing);
        let background = [self.cleaner.deadline(), self.scrubber.deadline(), discards];
        let writes = [self.voucher_at, self.hold.deadline(), self.data_flush.deadline(), log];
        writes.into_iter().chain(background).flatten().min()
    }

    /// Everything that is going on, for people who look for why it does not go on.
    #[cfg(test)]
    pub fn describe(&self) -> String {
        let active = |object: &super::index::Object| self.actives.get(object.active).cloned();
        let objects = self.objects.iter().map(|(place, object)| (place, object.copy, object.base, active(&object)));
        let objects: Vec<_> = objects.collect();
        let segments: Vec<_> =
            self.journal.segments.iter().map(|s| (s.first, s.last, s.live, s.unsettled, s.snapshot_bytes)).collect();
        format!(
            "room {} need {} stalled {:?} gained {} cleaner {:?} overlays {} compactions {} undone {} durable {} {}\n{objects:#?}\n{segments:?}\n{:?}",
            self.journal.room(),
            self.journal.cleaning_need(),
            self.stalled,
            self.gained,
            self.cleaner,
            self.overlays,
            self.compactions,
            self.undone,
            self.journal.durable(),
            self.journal.describe(),
            self.overlay_queue,
        )
    }

    // ---- questions

    /// The versions of an object as of everything submitted.
    pub(super) fn info(&self, place: ObjectIndex) -> Option<CopyInfo> {
        let object = self.objects.glance(place)?;
        let mut info = object.versions.info(object.copy);
        if let Some(active) = self.actives.get(object.active) {
            for key in active.ops.iter().skip(active.applied) {
                let op = self.ops.get(*key).expect("listed operations live");
                if let Some(request) = &op.request {
                    // One that will be refused changes nothing.
                    let _ = super::versions::apply(&mut info, request);
                }
            }
        }
        (info.committed.is_some() || info.prepared.is_some()).then_some(info)
    }

    /// Summary of the objects in a range, as of everything submitted.
    pub(super) fn digest(&self, pool: PoolId, role: Role, range: HashRange) -> Digest {
        let mut digest = self.summary.digest(pool, role, range, |part| {
            let mut digest = Digest::default();
            let places = self.objects.range(pool, role, part, None);
            let objects = places.filter_map(|(_, place)| self.objects.glance(place));
            objects.for_each(|object| digest.add(object.share.digest()));
            digest
        });
        // What waits to be carried out counts, too.
        for (key, op) in self.ops.iter() {
            let object = self.objects.at(op.object);
            let CopyId { object: id, role: of } = object.copy;
            let inside = id.pool == pool && of == role && range.contains(id.hash());
            let active = self.actives.get(object.active).filter(|_| inside);
            if active.is_some_and(|active| active.ops.get(active.applied) == Some(&key)) {
                digest.remove(object.share.digest());
                self.info(op.object).iter().for_each(|info| digest.add(Digest::of(info)));
            }
        }
        digest
    }

    /// Use.
    pub fn stats(&self) -> StoreStats {
        let block_size = u64::from(self.superblock.block_size);
        let mut stats = self.counters;
        self.summary.fill(&mut stats);
        let reserve = self.blocks.reserve();
        stats.total_bytes = u64::from(self.blocks.total()) * block_size;
        let free = self.blocks.free() + self.blocks.discarding();
        stats.free_bytes = u64::from(free.saturating_sub(reserve)) * block_size;
        // A full store may have used a part of it.
        stats.reserved_bytes = u64::from(reserve.min(free)) * block_size;
        stats.refused_blocks = u64::from(self.blocks.refused());
        stats.log_total_bytes = self.journal.total_bytes();
        stats.log_used_bytes = stats.log_total_bytes - self.journal.room().min(stats.log_total_bytes);
        stats
    }

    /// What there is of each pool.
    pub fn use_by_pool(&self) -> Vec<(PoolId, PoolUse)> {
        self.summary.by_pool(self.superblock.block_size)
    }

    /// Panics if an invariant is broken.
    pub fn check(&self) {
        self.check_briefly();
        let share = |object: &super::index::Object| object.versions.share(object.copy.object);
        self.summary.check(self.objects.in_order().map(|object| (object.copy, share(&object))));
        if self.is_read_only() {
            return;
        }
        let owned = self.objects.blocks().filter(|block| *block != NO_BLOCK);
        let taken = self.moves.iter().filter_map(|(_, state)| state.taken());
        let leaving = self.ops.iter().flat_map(|(_, op)| op.frees.iter().copied()).chain(taken);
        self.blocks.check(owned, leaving);
    }

    /// The same, but for the owners of all blocks and the sums of digests: these take walks through everything there is.
    pub fn check_briefly(&self) {
        if self.trusted {
            self.journal.check();
        }
        let units = super::object::units_of(self.superblock.block_size);
        let (mut snapshots, mut overlays, mut prepared) = (0, 0, 0);
        for (_, object) in self.objects.iter() {
            object.versions.check(object.copy, units);
            snapshots += object.snapshot_bytes;
            overlays += object.versions.overlays() as u64;
            prepared += object.versions.prepared_overlays();
            let listed = object.base == NONE || self.journal.segments[object.base as usize].live > 0;
            assert!(listed, "{:?}: base in segment {}", object.copy, object.base);
        }
        let sums = (self.snapshot_bytes, self.overlays, self.prepared_overlays);
        assert_eq!((snapshots, overlays, prepared), sums, "sums over all objects");
    }
}

/// What became of carrying out an operation.
pub(super) enum Next {
    /// It is carried out (or refused).
    Applied,
    /// It waits for something of its object.
    Wait,
    /// It waits for space.
    Stall,
}

enum Leaving {
    Stays,
    Settled,
    Starts(Key<ReadOp>),
}
