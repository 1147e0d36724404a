//! A block that the device refuses to write: what was to be in it goes to another one, and the block is used no more.
//!
//! ```text
//! data of an operation ------------------------------+
//!                                                    v
//! a compaction,
//! an intent    -> Reading (what else the block has) -> Placing -> Writing -> Recording -> Logged -> over
//!                                                        ^           | refused again          ^
//!                                                        +-----------+                        |
//!                                        nothing is left in the block: no record -------------+
//! ```
//!
//! The client's write is not refused: its operation, and those on top of it, wait until the record that names the other
//! block is in the log. Invariants: that record is logged only when the data are durable; pages say that the operation's
//! data are done only after it is in the log; a refused block is owned by nobody afterwards.

use super::index::ObjectIndex;
use super::object::{unit_of, units_of};
use super::ops::{DataStage, DataWrite, Op, Stage};
use super::page::Sequence;
use super::record::{Body, NO_BLOCK, Record};
use super::room::Class;
use super::running::{Io, Running};
use crate::buf::{Buf, BufMut, UNIT, UNIT_USIZE};
use crate::io::{DiskError, Effect, Env, Event, Level};
use crate::planted::{Bug, planted};
use crate::slab::Key;
use smallvec::SmallVec;

/// Blocks tried for the same data before the device counts as failing: bad blocks are rare, three in a row are no chance.
const TRIES: u32 = 4;
/// Of the blocks, the share that may be refused before the device counts as failing, and the least number.
const REFUSED_SHARE: u32 = 64;
const REFUSED_LEAST: u32 = 8;

/// How far it is.
#[derive(Clone)]
enum Progress {
    /// What else the block holds is read; so many units are outstanding.
    Reading(BufMut, u32),
    /// It waits for a free block.
    Placing,
    /// The data are on their way, or wait for a flush.
    Writing,
    /// The data are durable; it waits for room in the log.
    Recording,
    /// Done once this page is in the log; the segment of the record, if there is one.
    Logged(Sequence, Option<u32>),
}

/// A move under way.
#[derive(Clone)]
pub struct Move {
    object: ObjectIndex,
    /// The operation whose data they are; `None`: a compaction was refused.
    op: Option<Key<Op>>,
    from: u32,
    to: u32,
    /// First unit, and the bytes.
    data: (usize, Buf),
    tries: u32,
    progress: Progress,
}

impl Running {
    /// The device refused the data of an operation.
    pub(super) fn data_refused(&mut self, env: &mut Env<'_>, key: Key<Op>, error: DiskError) {
        if self.failed.is_some() {
            return;
        }
        let op = self.ops.get_mut(key).expect("waits for its data");
        let (object, from) = (op.object, std::mem::replace(&mut op.block, NO_BLOCK));
        let data = op.body.take().expect("kept until its write completes");
        let in_place = op.in_place;
        self.blocks.unpin(from);
        let state = Move { op: Some(key), ..Move::new(object, from, data) };
        if let Some(key) = self.begin_move(env, state, error) {
            match in_place {
                true => self.read_around(env, key),
                false => self.step_move(env, key),
            }
        }
    }

    /// The device refused a part of a compaction; no part of it is on its way any more.
    pub(super) fn compaction_refused(&mut self, env: &mut Env<'_>, object: ObjectIndex, error: DiskError) {
        if self.failed.is_some() {
            return;
        }
        let active = self.actives.at_mut(self.objects.at(object).active);
        let from = active.compaction.take().expect("its writes completed").block;
        active.moving = true;
        self.blocks.unpin(from);
        self.compactions -= 1;
        let nothing = (0, env.bufs.alloc(0).freeze());
        if let Some(key) = self.begin_move(env, Move::new(object, from, nothing), error) {
            self.read_rest(env, key);
        }
    }

    /// The move, unless the device counts as failing.
    fn begin_move(&mut self, env: &mut Env<'_>, state: Move, error: DiskError) -> Option<Key<Move>> {
        let (object, from) = (state.object, state.from);
        let key = self.moves.insert(state);
        self.refused(env, object, from, error).then_some(key)
    }

    /// Notes a refused block. False if there are too many: the device is failing.
    fn refused(&mut self, env: &mut Env<'_>, object: ObjectIndex, block: u32, error: DiskError) -> bool {
        let copy = self.objects.at(object).copy;
        let text = format!("a write of {copy:?} to block {block} failed ({error}): the data go to another block");
        env.out.push(Effect::Observe(Event::Log(Level::Warn, text)));
        self.blocks.refuse(block);
        let most = (self.blocks.total() / REFUSED_SHARE).max(REFUSED_LEAST);
        if self.blocks.refused() > most {
            self.fail(env, format!("the device refused writes to {} blocks", self.blocks.refused()));
        }
        self.failed.is_none()
    }

    /// Reads what the block of a compaction holds besides the overlays, unit by unit: one that cannot be read shall not
    /// take others with it.
    fn read_rest(&mut self, env: &mut Env<'_>, key: Key<Move>) {
        let state = self.moves.get_mut(key).expect("just begun");
        let committed = self.objects.at(state.object).versions.committed.as_ref();
        let Some(committed) = committed.filter(|committed| committed.block == state.from) else {
            state.progress = Progress::Placing;
            return self.step_move(env, key);
        };
        let units: SmallVec<[usize; 32]> =
            committed.bitmap.units().filter(|unit| committed.overlay(*unit).is_none()).collect();
        let (first, end) = (units.first().copied().unwrap_or(0), units.last().map_or(0, |last| last + 1));
        let number = |count: usize| u32::try_from(count).expect("units of one object");
        let buf = env.bufs.zeroed(number(end - first.min(end)) * UNIT);
        state.data.0 = first;
        state.progress = Progress::Reading(buf, number(units.len()));
        let block = state.from;
        for unit in &units {
            let unit = *unit;
            self.read_block(env, block, unit, UNIT, Io::MoveRead(key, unit));
        }
        if units.is_empty() {
            self.rest_read(env, key);
        }
    }

    /// Reads what the block of an intent holds around its data: all of it, for reads that were captured may want what
    /// overlays hide by now.
    fn read_around(&mut self, env: &mut Env<'_>, key: Key<Move>) {
        let mut buf = env.bufs.zeroed(self.superblock.block_size);
        let state = self.moves.get_mut(key).expect("just begun");
        let (first, data) = std::mem::replace(&mut state.data, (0, env.bufs.alloc(0).freeze()));
        let own = first..first + unit_of(data.len());
        buf.bytes_mut()[first * UNIT_USIZE..own.end * UNIT_USIZE].copy_from_slice(data.bytes());
        let units = units_of(self.superblock.block_size);
        let others = u32::try_from(units - own.len()).expect("units of one object");
        let from = state.from;
        state.progress = Progress::Reading(buf, others);
        for unit in (0..units).filter(|unit| !own.contains(unit)) {
            self.read_block(env, from, unit, UNIT, Io::MoveRead(key, unit));
        }
        if others == 0 {
            self.rest_read(env, key);
        }
    }

    /// A unit arrived, or cannot be read: its checksum will say so.
    pub(super) fn rest_unit_read(
        &mut self,
        env: &mut Env<'_>,
        key: Key<Move>,
        unit: usize,
        result: Result<Buf, DiskError>,
    ) {
        let state = self.moves.get_mut(key).expect("waits for it");
        let Progress::Reading(buf, left) = &mut state.progress else { panic!("a unit that nobody waits for") };
        *left -= 1;
        let at = (unit - state.data.0) * UNIT_USIZE;
        let (object, from, is_last) = (state.object, state.from, *left == 0);
        if let Ok(read) = &result {
            buf.bytes_mut()[at..at + UNIT_USIZE].copy_from_slice(read.bytes());
        }
        let committed = self.objects.at(object).versions.committed.as_ref().filter(|state| state.block == from);
        let visible = committed.filter(|state| state.bitmap.unit(unit) != 0 && state.overlay(unit).is_none());
        let expected = visible.and_then(|state| Some((state.version(), *state.sums.get(unit)?)));
        if let Some((version, sum)) = expected
            && !result.is_ok_and(|read| read.crc() == sum)
        {
            self.note_damage(object, version);
        }
        if is_last {
            self.rest_read(env, key);
        }
    }

    fn rest_read(&mut self, env: &mut Env<'_>, key: Key<Move>) {
        let state = self.moves.get_mut(key).expect("waits for it");
        let Progress::Reading(buf, 0) = std::mem::replace(&mut state.progress, Progress::Placing) else {
            panic!("units are outstanding")
        };
        state.data.1 = env.bufs.freeze(buf);
        self.step_move(env, key);
    }

    /// Goes on with the moves that wait for a block, for room, or for an object's other data.
    pub(super) fn step_moves(&mut self, env: &mut Env<'_>) {
        if self.moves.is_empty() {
            return;
        }
        for key in self.moves.keys() {
            self.step_move(env, key);
        }
    }

    fn step_move(&mut self, env: &mut Env<'_>, key: Key<Move>) {
        let Some(state) = self.moves.get(key).filter(|_| self.failed.is_none()) else { return };
        match state.progress {
            Progress::Placing => self.place_move(env, key),
            Progress::Recording => self.record_move(env, key),
            Progress::Reading(..) | Progress::Writing | Progress::Logged(..) => {}
        }
    }

    /// Whether the refused block is still part of the object: else something superseded it.
    fn is_needed(&self, state: &Move) -> bool {
        self.objects.at(state.object).versions.blocks().contains(&state.from)
    }

    /// Whether reads that were captured before something superseded the block wait for it.
    fn is_awaited(&self, state: &Move) -> bool {
        let Some(active) = self.actives.get(self.objects.at(state.object).active) else { return false };
        let reads = active.ops.iter().filter_map(|key| match self.ops.get(*key)?.stage {
            Stage::Captured(read) => self.reads.get(read),
            _ => None,
        });
        state.op.is_some() && reads.into_iter().any(|read| read.reads(state.from))
    }

    fn place_move(&mut self, env: &mut Env<'_>, key: Key<Move>) {
        let state = self.moves.get(key).expect("steps are of moves under way");
        if !self.is_needed(state) && !self.is_awaited(state) {
            return self.supersede_move(env, key);
        }
        let Some(to) = self.blocks.allocate() else {
            if !self.blocks_are_coming() {
                self.fail(env, "the device refused a write, and no block is free to take the data".to_string());
            }
            return;
        };
        let state = self.moves.get_mut(key).expect("found above");
        (state.to, state.tries, state.progress) = (to, state.tries + 1, Progress::Writing);
        let (unit, data) = state.data.clone();
        self.blocks.pin(to);
        if data.is_empty() || planted(Bug::StoreMoveEarly) {
            state.progress = Progress::Recording;
        }
        if !data.is_empty() {
            self.write_block(env, to, unit, data, Io::Move(key));
        }
        self.step_move(env, key);
    }

    /// The write to the other block completed.
    pub(super) fn move_written(&mut self, env: &mut Env<'_>, key: Key<Move>, result: Result<(), DiskError>) {
        let Some(state) = self.moves.get(key).filter(|_| self.failed.is_none()) else { return };
        let (object, to, tries, bytes) = (state.object, state.to, state.tries, u64::from(state.data.1.len()));
        let Err(error) = result else {
            return self.write_completed(env, DataWrite::Move(key), bytes);
        };
        if tries >= TRIES {
            return self.fail(env, format!("the device refused the same data in {tries} blocks"));
        }
        self.blocks.unpin(to);
        if self.refused(env, object, to, error) {
            self.blocks.retire(to);
            let state = self.moves.get_mut(key).expect("found above");
            (state.to, state.progress) = (NO_BLOCK, Progress::Placing);
            self.step_move(env, key);
        }
    }

    /// The data are durable in the other block.
    pub(super) fn move_durable(&mut self, env: &mut Env<'_>, key: Key<Move>) {
        if let Some(state) = self.moves.get_mut(key)
            && matches!(state.progress, Progress::Writing)
        {
            state.progress = Progress::Recording;
            self.step_move(env, key);
        }
    }

    fn record_move(&mut self, env: &mut Env<'_>, key: Key<Move>) {
        let state = self.moves.get(key).expect("steps are of moves under way");
        let (place, from, to) = (state.object, state.from, state.to);
        if !self.is_needed(state) {
            if state.op.is_some() {
                self.redirect_reads(place, from, to);
            }
            self.blocks.unpin(to);
            // Named in no record: free once no read needs it.
            self.blocks.cool(0, to);
            return self.supersede_move(env, key);
        }
        // Opening looks at the newest data of the object as a whole: they are recorded one after the other.
        let undone = self.actives.get(self.objects.at(place).active).is_some_and(|active| active.undone);
        let record = Record { copy: self.objects.at(place).copy, body: Body::Moved { from, to } };
        let of_compaction = state.op.is_none();
        if (of_compaction && undone) || !self.admits(record.bytes(), Class::Cleaning) {
            return;
        }
        let logged = self.journal.append(&record, None, env.bufs);
        self.journal.segments[logged.segment as usize].unsettled += 1;
        self.objects.at_mut(place).versions.apply(&record.body, logged.page, &mut self.spare);
        self.blocks.unpin(to);
        self.blocks.retire(from);
        // What a compaction left alone is in the refused block still, also what overlays hide by now.
        if !of_compaction {
            self.redirect_reads(place, from, to);
        }
        self.moves.get_mut(key).expect("found above").progress = Progress::Logged(logged.page, Some(logged.segment));
        if planted(Bug::StoreMoveDoneEarly) {
            self.finish_moves(env, Sequence::MAX);
        }
    }

    /// Reads that were captured and wait for the operation find its data in the other block.
    fn redirect_reads(&mut self, place: ObjectIndex, from: u32, to: u32) {
        let Some(active) = self.actives.get(self.objects.at(place).active) else { return };
        for key in &active.ops {
            let Some(Stage::Captured(read)) = self.ops.get(*key).map(|op| &op.stage) else { continue };
            if self.reads.get_mut(*read).is_some_and(|read| read.follow(from, to)) {
                self.blocks.unpin(from);
                self.blocks.pin(to);
            }
        }
    }

    /// Nothing needs the data any more: what superseded them has to be in the log before the operation counts.
    fn supersede_move(&mut self, env: &mut Env<'_>, key: Key<Move>) {
        let state = self.moves.get_mut(key).expect("steps are of moves under way");
        let active = self.actives.get(self.objects.at(state.object).active).expect("a move keeps its object active");
        let pages = active.ops.iter().take(active.applied).filter_map(|key| self.ops.get(*key)).map(|op| op.page);
        state.progress = Progress::Logged(pages.max().unwrap_or(0), None);
        self.finish_moves(env, self.journal.durable());
    }

    /// Pages up to `durable` are in the log: moves that are recorded in them are over.
    pub(super) fn finish_moves(&mut self, env: &mut Env<'_>, durable: Sequence) {
        if self.moves.is_empty() {
            return;
        }
        for key in self.moves.keys() {
            let Some(Progress::Logged(page, segment)) = self.moves.get(key).map(|state| state.progress.clone()) else {
                continue;
            };
            if page > durable {
                continue;
            }
            let state = self.moves.remove(key).expect("found above");
            if let Some(segment) = segment {
                self.journal.segments[segment as usize].unsettled -= 1;
            }
            self.end_move(env, state);
        }
    }

    fn end_move(&mut self, env: &mut Env<'_>, state: Move) {
        if let Some(key) = state.op {
            self.ops.get_mut(key).expect("waits for its data").data = DataStage::Durable;
            return self.op_data_durable(env, key);
        }
        let active = self.objects.at(state.object).active;
        self.actives.at_mut(active).moving = false;
        self.step_object(env, state.object);
        if self.objects.get(state.object).is_some() {
            self.rest(state.object);
        }
    }
}

impl Move {
    /// The block that it has taken, while no object owns it.
    pub fn taken(&self) -> Option<u32> {
        matches!(self.progress, Progress::Writing | Progress::Recording).then_some(self.to)
    }

    fn new(object: ObjectIndex, from: u32, data: (usize, Buf)) -> Self {
        Move { object, op: None, from, to: NO_BLOCK, data, tries: 0, progress: Progress::Placing }
    }
}
