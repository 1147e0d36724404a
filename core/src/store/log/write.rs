//! Carrying out one operation: decides how its data go to the device, and writes its record.
//!
//! Three ways: *redirect* writes a free block and a `Put` at once; *inline* carries the data in the log, as overlays;
//! *intent* logs that they will be in place ([`super::intent`]). A write that does not cover whole units is widened to them with
//! what was there, read first if need be.
//!
//! Invariant: when this returns `Applied`, memory and the log under construction agree; otherwise nothing changed.

use super::crc;
use super::index::ObjectIndex;
use super::intent::{Candidate, Way};
use super::object::{State, Sums, Versions, sectors, unit_of, units_of};
use super::ops::{Base, DataStage, Op, Stage};
use super::read::{Captured, Source};
use super::record::{Body, Join, Label, NO_BLOCK, Record, Sectors, UnitData};
use super::room::{self, Class, RECORD_BYTES, VOID_BYTES};
use super::running::{Io, Next, Running};
use super::versions::{self, Effect};
use crate::buf::{Buf, UNIT, UNIT_USIZE};
use crate::id::{Requests, Version};
use crate::io::{DiskError, Env};
use crate::limits::SECTOR_BYTES;
use crate::planted::{Bug, planted};
use crate::slab::Key;
use crate::store::{Bitmap, Content, CopyInfo, Data, Mode, Patch, StoreError, StoreOp, unit_mark};

/// Most operations with data under way: what the page written at opening can void, and what opening verifies.
const UNDONE_MAX: u32 = 4096;
/// Data on their way to a block: block, first unit, bytes.
type BlockData = (u32, usize, Buf);

/// A data write, as asked for.
struct Write<'a> {
    label: Label,
    join: Join,
    offset: u32,
    data: &'a Data,
    sums: &'a Sums,
    fetched: Option<(usize, Buf)>,
}

/// What is there to write.
struct Units<'a> {
    versions: &'a Versions,
    fetched: Option<&'a (usize, Buf)>,
}

#[expect(clippy::large_enum_variant, reason = "made and taken apart at once")]
enum Planned {
    Done(Body, Option<BlockData>),
    Fetch(u32, usize, usize),
    Wait,
    Stall,
}

impl Running {
    /// Carries out the next operation of an object.
    pub(super) fn carry_out(&mut self, env: &mut Env<'_>, key: Key<Op>) -> Next {
        let op = self.ops.get_mut(key).expect("listed operations live");
        let place = op.object;
        let Some(request) = op.request.take() else { return Next::Wait };
        let result = self.try_carry_out(env, key, place, &request);
        let op = self.ops.get_mut(key).expect("still there");
        match result {
            Ok(Next::Applied) => Next::Applied,
            Ok(next) => {
                op.request = Some(request);
                next
            }
            Err(error) => {
                op.stage = Stage::Refused(error);
                let active = self.objects.at(place).active;
                self.actives.at_mut(active).fetching = false;
                Next::Applied
            }
        }
    }

    fn try_carry_out(
        &mut self,
        env: &mut Env<'_>,
        key: Key<Op>,
        place: ObjectIndex,
        request: &StoreOp,
    ) -> Result<Next, StoreError> {
        if matches!(request, StoreOp::Read { .. } | StoreOp::ReadAll { .. }) {
            return self.capture_queued(env, key, place, request);
        }
        let object = self.objects.at(place);
        let mut info = object.versions.info(object.copy);
        if versions::apply(&mut info, request)? == Effect::Nothing {
            self.ops.get_mut(key).expect("listed").stage = Stage::Applied;
            return Ok(Next::Applied);
        }
        if object.versions.is_empty() && self.refuses_new(place, request) {
            return Err(StoreError::NoSpace);
        }
        match request {
            StoreOp::Write { data: Some(_), .. } => self.write(env, key, place, request),
            StoreOp::Write { version, predecessor, mode, requests, .. } => {
                let label = label(*version, *predecessor, requests);
                self.inline(env, key, place, label, self.join(place, *mode), Sectors::default(), Sectors::default())
            }
            StoreOp::Zero { .. } => self.zero(env, key, place, request),
            StoreOp::Replace { content: Content::Data { data, bitmap }, .. } => {
                self.replace(env, key, place, request, data, bitmap)
            }
            StoreOp::Patch { version, predecessor, patch, requests, .. } => {
                let label = label(*version, *predecessor, requests);
                self.patch(env, key, place, label, patch)
            }
            _ => self.end(env, key, place, request, &info),
        }
    }

    /// A read whose turn came behind other operations of its object.
    fn capture_queued(
        &mut self,
        env: &mut Env<'_>,
        key: Key<Op>,
        place: ObjectIndex,
        request: &StoreOp,
    ) -> Result<Next, StoreError> {
        let token = self.ops.get(key).and_then(|op| op.token).expect("reads are asked for");
        let stage = match self.capture(env, token, Some(place), request)? {
            Captured::Read(read) => Stage::Captured(read),
            Captured::Answer(reply) => Stage::Answered(reply),
        };
        self.ops.get_mut(key).expect("listed").stage = stage;
        Ok(Next::Applied)
    }

    /// How a next version joins what is there: whatever is prepared is committed by it.
    fn join(&self, place: ObjectIndex, mode: Mode) -> Join {
        let versions = &self.objects.at(place).versions;
        Join { mode, commits: versions.prepared.is_some(), replaces: false, first: versions.is_empty() }
    }

    // ---- operations that end something

    fn end(
        &mut self,
        env: &mut Env<'_>,
        key: Key<Op>,
        place: ObjectIndex,
        request: &StoreOp,
        after: &CopyInfo,
    ) -> Result<Next, StoreError> {
        let tombstone = |version: &Version, predecessor: &Version, requests: &Requests, join: Join| {
            let base = if join.mode == Mode::Plain { Base::Is } else { Base::Builds };
            (Body::Tombstone { label: label(*version, *predecessor, requests), join }, base)
        };
        let dropped = |version: &Version| {
            if after.prepared.is_some() || after.committed.is_some() {
                return (Body::Rollback(*version), Base::Builds);
            }
            (Body::Purge(*version), Base::Ends)
        };
        let prepared = self.objects.at(place).versions.prepared.is_some();
        let (body, base) = match request {
            StoreOp::Tombstone { version, predecessor, mode, requests, .. } => {
                tombstone(version, predecessor, requests, self.join(place, *mode))
            }
            StoreOp::Replace { version, predecessor, mode, requests, .. } => {
                let join = Join { commits: false, replaces: true, ..self.join(place, *mode) };
                tombstone(version, predecessor, requests, join)
            }
            StoreOp::Commit { version, .. } => (Body::Commit(*version), Base::Builds),
            StoreOp::Purge { version, .. } if prepared => (Body::Purge(*version), Base::Builds),
            StoreOp::Purge { version, .. } => (Body::Purge(*version), Base::Ends),
            StoreOp::Rollback { version, .. } | StoreOp::Remove { version, .. } if prepared => {
                let (_, base) = dropped(version);
                (Body::Rollback(*version), base)
            }
            StoreOp::Remove { version, .. } => dropped(version),
            other => panic!("{other:?} does not end anything"),
        };
        if !self.admits(RECORD_BYTES, room::class_of(request)) {
            return Ok(Next::Stall);
        }
        self.record(env, key, place, body, base, None);
        Ok(Next::Applied)
    }

    // ---- writes

    fn write(
        &mut self,
        env: &mut Env<'_>,
        key: Key<Op>,
        place: ObjectIndex,
        request: &StoreOp,
    ) -> Result<Next, StoreError> {
        let StoreOp::Write { version, predecessor, offset, data: Some(data), mode, requests, .. } = request else {
            panic!("{request:?} is not a write of data");
        };
        if !self.admits(data.len() as usize + 2 * UNIT_USIZE + RECORD_BYTES, Class::Data) {
            return Ok(Next::Stall);
        }
        let op = self.ops.get_mut(key).expect("listed");
        let fetched = match std::mem::replace(&mut op.stage, Stage::Queued) {
            Stage::Fetched(first, buf) => Some((first, buf)),
            Stage::Fetching => {
                op.stage = Stage::Fetching;
                return Ok(Next::Wait);
            }
            _ => None,
        };
        let sums = std::mem::take(&mut op.sums);
        let label = label(*version, *predecessor, requests);
        let write = Write { label, join: self.join(place, *mode), offset: *offset, data, sums: &sums, fetched };
        let planned = self.plan_write(env, place, &write);
        if !matches!(planned, Ok(Planned::Done(..))) {
            self.ops.get_mut(key).expect("listed").sums = sums;
        }
        match planned? {
            Planned::Done(body, data) => {
                let replaces_all = matches!(body, Body::Put { .. }) && *mode == Mode::Plain;
                let base = if replaces_all { Base::Is } else { Base::Builds };
                self.record(env, key, place, body, base, data);
                Ok(Next::Applied)
            }
            Planned::Fetch(block, first, end) => Ok(self.fetch(env, key, place, block, first, end)),
            Planned::Wait => Ok(Next::Wait),
            Planned::Stall => Ok(Next::Stall),
        }
    }

    /// Decides between a block of its own and the log.
    fn plan_write(&mut self, env: &mut Env<'_>, place: ObjectIndex, write: &Write<'_>) -> Result<Planned, StoreError> {
        let versions = &self.objects.at(place).versions;
        let mut bitmap = versions.newest_bitmap();
        let own_block = versions.newest_block();
        let range = sectors(write.offset, write.data.len());
        bitmap.set(range.first.into(), range.count.into(), true);
        let (first, end) = (unit_of(write.offset), (write.offset + write.data.len()).div_ceil(UNIT) as usize);
        let covers = bitmap.units().all(|unit| (first..end).contains(&unit));
        let large = write.data.len() * 2 > self.superblock.block_size || self.overwrites.way == Way::Redirect;
        let active = self.actives.get(self.objects.at(place).active).expect("has an operation");
        let (undone, busy) = (active.undone && !planted(Bug::StoreTwoUndone), active.is_block_busy());
        let crowded = write.join.mode == Mode::Prepare && self.prepared_full() && self.blocks.has_free();
        if own_block == NO_BLOCK || large || (covers && !undone) || crowded {
            if undone {
                return Ok(Planned::Wait);
            }
            if let Some(planned) = self.plan_redirect(env, place, write, bitmap, busy)? {
                return Ok(planned);
            }
            if own_block == NO_BLOCK {
                return if self.blocks_are_coming() { Ok(Planned::Stall) } else { Err(StoreError::NoSpace) };
            }
        }
        let candidate = Candidate { mode: write.join.mode, offset: write.offset, len: write.data.len() };
        if self.takes_intent(place, &candidate) {
            return Ok(self.plan_intent(place, write, first));
        }
        self.plan_inline(env, place, write, (first, end), busy)
    }

    /// The data go into the object's block, once the record is in the log.
    fn plan_intent(&self, place: ObjectIndex, write: &Write<'_>, first: usize) -> Planned {
        let block = self.objects.at(place).versions.newest_block();
        let body = Body::Intent {
            label: write.label.clone(),
            block,
            first_unit: u16::try_from(first).expect("units of one object"),
            set: sectors(write.offset, write.data.len()),
            sums: Sums::from_slice(write.sums),
        };
        Planned::Done(body, Some((block, first, write.data.buf.clone())))
    }

    /// Whether blocks will be free soon: superseded, but not for good yet.
    pub(super) fn blocks_are_coming(&self) -> bool {
        self.blocks.is_cooling() || self.ops.iter().any(|(_, op)| !op.frees.is_empty())
    }

    /// Whether one more operation with data may be under way.
    pub(super) fn may_be_undone(&self) -> bool {
        self.undone < UNDONE_MAX.min((self.superblock.page_max() - UNIT) / VOID_BYTES)
    }

    /// A block of its own; `None`: there is none to be had.
    fn plan_redirect(
        &mut self,
        env: &mut Env<'_>,
        place: ObjectIndex,
        write: &Write<'_>,
        bitmap: Bitmap,
        busy: bool,
    ) -> Result<Option<Planned>, StoreError> {
        let object = self.objects.at(place);
        let creates = object.versions.newest_block() == NO_BLOCK;
        if creates && self.snapshots_full(place) {
            return Err(StoreError::NoSpace);
        }
        if !self.may_be_undone() {
            return Ok(Some(Planned::Stall));
        }
        if !self.blocks.has_free() {
            return Ok(None);
        }
        let units = Units { versions: &object.versions, fetched: write.fetched.as_ref() };
        let needed = |unit: usize| bitmap.unit(unit) != 0 && !write.covers(unit);
        if let Some(fetch) = units.to_fetch(bitmap.units().filter(|unit| needed(*unit)), busy) {
            return Ok(Some(fetch));
        }
        let (first, buf, sums) = units.merge(env, write, &bitmap, units_of(self.superblock.block_size))?;
        let block = self.blocks.allocate().expect("one is free");
        let body = Body::Put { label: write.label.clone(), join: write.join, block, bitmap, sums };
        Ok(Some(Planned::Done(body, Some((block, first, buf)))))
    }

    fn plan_inline(
        &mut self,
        env: &mut Env<'_>,
        place: ObjectIndex,
        write: &Write<'_>,
        (first, end): (usize, usize),
        busy: bool,
    ) -> Result<Planned, StoreError> {
        if self.overlays_full() {
            return Ok(Planned::Stall);
        }
        let versions = &self.objects.at(place).versions;
        let units = Units { versions, fetched: write.fetched.as_ref() };
        if let Some(fetch) = units.to_fetch((first..end).filter(|unit| !write.covers(*unit)), busy) {
            return Ok(fetch);
        }
        let mut data = std::mem::take(&mut self.units);
        data.clear();
        for unit in first..end {
            data.push(units.merged_unit(env, write, unit)?);
        }
        let set = sectors(write.offset, write.data.len());
        let (label, join) = (write.label.clone(), write.join);
        Ok(Planned::Done(Body::Inline { label, join, set, clear: Sectors::default(), units: data }, None))
    }

    /// Reads the old data of some units of the object's block.
    fn fetch(
        &mut self,
        env: &mut Env<'_>,
        key: Key<Op>,
        place: ObjectIndex,
        block: u32,
        first: usize,
        end: usize,
    ) -> Next {
        let active = self.objects.at(place).active;
        self.actives.at_mut(active).fetching = true;
        let op = self.ops.get_mut(key).expect("listed");
        op.stage = Stage::Fetching;
        op.block = u32::try_from(first).expect("units of one object");
        let len = u32::try_from(end - first).expect("units of one object") * UNIT;
        self.read_block(env, block, first, len, Io::Fetch(key));
        Next::Wait
    }

    /// Old data arrived.
    pub(super) fn fetched(&mut self, env: &mut Env<'_>, key: Key<Op>, result: Result<Buf, DiskError>) {
        let Some(op) = self.ops.get_mut(key) else { return };
        let (place, first) = (op.object, op.block);
        if !matches!(op.stage, Stage::Fetching) {
            return;
        }
        op.block = NO_BLOCK;
        let active = self.actives.at_mut(self.objects.at(place).active);
        if active.cleaning {
            // It will be read again behind the snapshot; until then it must not keep compaction waiting.
            active.fetching = false;
            op.stage = Stage::Queued;
            return self.step_object(env, place);
        }
        op.stage = match result {
            Ok(buf) => Stage::Fetched(first as usize, buf),
            // Its checksums will not match.
            Err(_) => Stage::Fetched(first as usize, env.bufs.zeroed(0).freeze()),
        };
        self.step_object(env, place);
    }

    /// A range becomes unwritten.
    fn zero(
        &mut self,
        env: &mut Env<'_>,
        key: Key<Op>,
        place: ObjectIndex,
        request: &StoreOp,
    ) -> Result<Next, StoreError> {
        let StoreOp::Zero { version, predecessor, offset, len, mode, requests, .. } = request else {
            panic!("{request:?} is not a zero");
        };
        if !self.admits(2 * UNIT_USIZE + RECORD_BYTES, Class::Data) {
            return Ok(Next::Stall);
        }
        let op = self.ops.get_mut(key).expect("listed");
        let fetched = match std::mem::replace(&mut op.stage, Stage::Queued) {
            Stage::Fetched(first, buf) => Some((first, buf)),
            Stage::Fetching => {
                op.stage = Stage::Fetching;
                return Ok(Next::Wait);
            }
            _ => None,
        };
        let clear = sectors(*offset, *len);
        let versions = &self.objects.at(place).versions;
        let mut after = versions.newest_bitmap();
        after.set(clear.first.into(), clear.count.into(), false);
        let edges = [unit_of(*offset), unit_of((*offset + *len).max(1) - 1)];
        let edges = &edges[..if edges[0] == edges[1] { 1 } else { 2 }];
        let partial =
            |unit: &usize| after.unit(*unit) != 0 && after.unit(*unit) != versions.newest_bitmap().unit(*unit);
        let active = self.actives.get(self.objects.at(place).active).expect("has an operation");
        let units = Units { versions, fetched: fetched.as_ref() };
        match units.to_fetch(edges.iter().copied().filter(partial), active.is_block_busy()) {
            Some(Planned::Fetch(block, first, end)) => return Ok(self.fetch(env, key, place, block, first, end)),
            Some(_) => return Ok(Next::Wait),
            None => {}
        }
        let mut data = std::mem::take(&mut self.units);
        data.clear();
        for unit in edges.iter().copied().filter(partial) {
            data.push(units.zeroed_unit(env, unit, *offset, *len)?);
        }
        let label = label(*version, *predecessor, requests);
        let join = self.join(place, *mode);
        let body = Body::Inline { label, join, set: Sectors::default(), clear, units: data };
        self.record(env, key, place, body, Base::Builds, None);
        Ok(Next::Applied)
    }

    /// Recovery: the whole copy.
    fn replace(
        &mut self,
        env: &mut Env<'_>,
        key: Key<Op>,
        place: ObjectIndex,
        request: &StoreOp,
        data: &Data,
        bitmap: &Bitmap,
    ) -> Result<Next, StoreError> {
        let StoreOp::Replace { version, predecessor, mode, requests, .. } = request else {
            panic!("{request:?} is not a replace");
        };
        if !self.admits(RECORD_BYTES, Class::Data) || !self.may_be_undone() {
            return Ok(Next::Stall);
        }
        let active = self.actives.get(self.objects.at(place).active).expect("has an operation");
        if active.undone {
            return Ok(Next::Wait);
        }
        let label = label(*version, *predecessor, requests);
        let join = Join { commits: false, replaces: true, ..self.join(place, *mode) };
        let base = if *mode == Mode::Plain { Base::Is } else { Base::Builds };
        let mut bitmap = bitmap.clone();
        bitmap.trim();
        if bitmap.words.is_empty() {
            let body = Body::Put { label, join, block: NO_BLOCK, bitmap, sums: Sums::new() };
            self.record(env, key, place, body, base, None);
            return Ok(Next::Applied);
        }
        let object = self.objects.at(place);
        let creates = object.versions.newest_block() == NO_BLOCK;
        if creates && self.snapshots_full(place) {
            return Err(StoreError::NoSpace);
        }
        // A copy that has a block gives it back, and may take the last one.
        let block = if creates && !self.blocks.has_free() { None } else { self.blocks.allocate() };
        let Some(block) = block else {
            return if self.blocks_are_coming() { Ok(Next::Stall) } else { Err(StoreError::NoSpace) };
        };
        let op = self.ops.get_mut(key).expect("listed");
        let whole = whole_sums(&bitmap, &op.sums, units_of(self.superblock.block_size));
        let (buf, sums) = match whole {
            Some(sums) => (data.buf.clone(), sums),
            None => only_written(env, data, &bitmap, units_of(self.superblock.block_size)),
        };
        let body = Body::Put { label, join, block, bitmap, sums };
        self.record(env, key, place, body, base, Some((block, 0, buf)));
        Ok(Next::Applied)
    }

    /// Recovery of what was missed: the units that differ go to the log.
    fn patch(
        &mut self,
        env: &mut Env<'_>,
        key: Key<Op>,
        place: ObjectIndex,
        label: Label,
        patch: &Patch,
    ) -> Result<Next, StoreError> {
        let bytes = patch.data.len() as usize;
        if !self.admits(bytes + RECORD_BYTES, Class::Data) || self.overlays_full() {
            return Ok(Next::Stall);
        }
        let versions = &self.objects.at(place).versions;
        let newest = versions.newest().expect("the base is there");
        if versions.newest_block() == NO_BLOCK {
            return Err(StoreError::NoSuchVersion);
        }
        let mut bitmap = newest.bitmap.clone();
        patch.mark(&mut bitmap);
        let mut data = std::mem::take(&mut self.units);
        data.clear();
        let sums = &self.ops.get(key).expect("listed").sums;
        for (unit, (crc, at)) in patch.units().zip(sums.iter().zip((0..).step_by(UNIT_USIZE))) {
            if bitmap.unit(unit) != 0 {
                let number = u16::try_from(unit).expect("units of one object");
                data.push(UnitData { unit: number, crc: *crc, buf: patch.data.buf.slice(at, UNIT) });
            }
        }
        if patch.sum.is_some_and(|sum| sum != patched_sum(versions, newest, &bitmap, &data)) {
            return Err(StoreError::Mismatch);
        }
        let join = self.join(place, Mode::Plain);
        self.record(env, key, place, Body::Patch { label, join, bitmap, units: data }, Base::Builds, None);
        Ok(Next::Applied)
    }

    /// A version without data of its own.
    #[allow(clippy::too_many_arguments)]
    fn inline(
        &mut self,
        env: &mut Env<'_>,
        key: Key<Op>,
        place: ObjectIndex,
        label: Label,
        join: Join,
        set: Sectors,
        clear: Sectors,
    ) -> Result<Next, StoreError> {
        if !self.admits(RECORD_BYTES, Class::Data) {
            return Ok(Next::Stall);
        }
        let body = Body::Inline { label, join, set, clear, units: Vec::new() };
        self.record(env, key, place, body, Base::Builds, None);
        Ok(Next::Applied)
    }

    // ---- the record

    /// Writes the operation's record and applies it; its data go out.
    pub(super) fn record(
        &mut self,
        env: &mut Env<'_>,
        key: Key<Op>,
        place: ObjectIndex,
        body: Body,
        base: Base,
        data: Option<BlockData>,
    ) {
        let record = Record { copy: self.objects.at(place).copy, body };
        let log_place = self.journal.append(&record, Some(key), env.bufs);
        let object = self.objects.at_mut(place);
        let before = object.versions.blocks();
        let overlays = object.versions.overlays();
        object.versions.apply(&record.body, log_place.page, &mut self.spare);
        let after = object.versions.blocks();
        let has_overlays = object.versions.committed.as_ref().is_some_and(|state| !state.overlays.is_empty());
        let active = object.active;
        self.count(place, overlays);
        if has_overlays {
            self.queue_overlays(place);
        }
        let op = self.ops.get_mut(key).expect("listed");
        (op.page, op.segment, op.base, op.stage) = (log_place.page, log_place.segment, base, Stage::Applied);
        if planted(Bug::StoreFreeEarly) {
            let freed = before.into_iter().filter(|block| *block != NO_BLOCK && !after.contains(block));
            freed.for_each(|block| self.blocks.cool(0, block));
        } else {
            op.frees.extend(before.into_iter().filter(|block| *block != NO_BLOCK && !after.contains(block)));
        }
        if planted(Bug::StoreDiscardEarly) {
            let frees = op.frees.clone();
            let idle = frees.into_iter().filter(|block| !self.blocks.is_pinned(*block)).collect::<Vec<_>>();
            idle.into_iter().for_each(|block| self.emit_discard(env, block, 1, Io::Mend));
        }
        let op = self.ops.get_mut(key).expect("listed");
        op.in_place = matches!(record.body, Body::Intent { .. });
        if op.token.is_some() {
            self.cleaner.asked(env.now);
        }
        self.ways.count(&record.body);
        self.actives.at_mut(active).fetching = false;
        if let Body::Inline { units, .. } | Body::Patch { units, .. } = record.body {
            self.counters.written_bytes += units.len() as u64 * u64::from(UNIT);
            self.units = units;
            self.units.clear();
        }
        if let Some((block, unit, buf)) = data {
            self.send_data(env, key, active, (block, unit, buf));
        }
    }

    fn send_data(&mut self, env: &mut Env<'_>, key: Key<Op>, active: u32, (block, unit, buf): BlockData) {
        let op = self.ops.get_mut(key).expect("listed");
        let waits = op.in_place && !planted(Bug::StoreIntentEarly);
        (op.data, op.block) = (if waits { DataStage::Waiting } else { DataStage::Writing }, block);
        self.journal.data_begin(op.page);
        self.undone += 1;
        self.blocks.pin(block);
        self.actives.at_mut(active).undone = true;
        op.body = Some((unit, buf.clone()));
        let bytes = u64::from(buf.len());
        self.counters.written_bytes += bytes;
        if !waits {
            self.write_block(env, block, unit, buf, Io::Data(key, bytes));
        }
    }
}

/// The sum over a content after some units of a version were replaced.
fn patched_sum(versions: &Versions, state: &State, bitmap: &Bitmap, units: &[UnitData]) -> u64 {
    let new = |unit: usize| units.binary_search_by_key(&unit, |data| data.unit.into()).ok().map(|at| units[at].crc);
    let mark = |unit: usize| new(unit).or_else(|| versions.crc_of(state, unit)).map_or(0, |crc| unit_mark(unit, crc));
    bitmap.units().fold(0, |sum: u64, unit| sum.wrapping_add(mark(unit)))
}

fn label(version: Version, predecessor: Version, requests: &Requests) -> Label {
    Label { version, predecessor, requests: requests.clone() }
}

/// CRCs by unit, if the data are whole units, all of them written.
fn whole_sums(bitmap: &Bitmap, sums: &Sums, units: usize) -> Option<Sums> {
    let written = bitmap.end() * SECTOR_BYTES;
    if bitmap.prefix().is_none() || !written.is_multiple_of(UNIT) || sums.len() * UNIT_USIZE != written as usize {
        return None;
    }
    let mut sums = Sums::from_slice(sums);
    sums.resize(units, 0);
    Some(sums)
}

/// The written sectors of some data, the others zero, in whole units.
fn only_written(env: &mut Env<'_>, data: &Data, bitmap: &Bitmap, units: usize) -> (Buf, Sums) {
    let len = (bitmap.end() * SECTOR_BYTES).next_multiple_of(UNIT);
    let mut buf = env.bufs.zeroed(len);
    for sector in (0..bitmap.end()).filter(|sector| bitmap.get(*sector)) {
        let at = sector * SECTOR_BYTES;
        buf.copy_from(at, &data.buf.slice(at, SECTOR_BYTES));
    }
    let mut sums = Sums::from_elem(0, units);
    for unit in bitmap.units() {
        sums[unit] = crc32fast::hash(&buf.bytes()[unit * UNIT_USIZE..][..UNIT_USIZE]);
    }
    (env.bufs.freeze(buf), sums)
}

impl Versions {
    /// Sectors written in the newest version.
    fn newest_bitmap(&self) -> Bitmap {
        self.newest().map(|state| state.bitmap.clone()).unwrap_or_default()
    }

    /// Block that the newest version's data are in; none if it has no data, since its commit will give the block up.
    fn newest_block(&self) -> u32 {
        let newest = self.newest().filter(|state| !state.bitmap.words.is_empty());
        newest.map_or(NO_BLOCK, |state| self.block_of(state))
    }
}

impl Write<'_> {
    /// Whether it brings all of a unit.
    fn covers(&self, unit: usize) -> bool {
        let start = unit * UNIT_USIZE;
        let (offset, len) = (self.offset as usize, self.data.len() as usize);
        offset <= start && start + UNIT_USIZE <= offset + len
    }

    /// The part of a unit that it brings: place in the unit, bytes.
    fn part(&self, unit: usize) -> Option<(usize, Buf)> {
        let start = u32::try_from(unit).expect("units of one object") * UNIT;
        let (from, to) = (self.offset.max(start), (self.offset + self.data.len()).min(start + UNIT));
        (from < to).then(|| ((from - start) as usize, self.data.buf.slice(from - self.offset, to - from)))
    }

    /// CRC of a unit that it covers.
    fn sum(&self, unit: usize) -> u32 {
        self.sums[unit - (self.offset.div_ceil(UNIT) as usize)]
    }
}

impl Units<'_> {
    /// What is needed from the block, and not fetched yet; not while writes of the block are under way.
    fn to_fetch(&self, units: impl Iterator<Item = usize>, busy: bool) -> Option<Planned> {
        let state = self.versions.newest().filter(|state| !state.is_tombstone())?;
        let mut span: Option<(usize, usize)> = None;
        for unit in units.filter(|unit| matches!(self.versions.source(state, *unit), Source::Block(_))) {
            let (first, end) = span.unwrap_or((unit, unit));
            span = Some((first.min(unit), end.max(unit)));
        }
        let (first, last) = span?;
        // The plan may have changed since: a block became free, say. Unreadable data count as fetched.
        let has = |(from, buf): &(usize, Buf)| buf.is_empty() || (*from <= first && last < from + unit_of(buf.len()));
        if self.fetched.is_some_and(has) {
            return None;
        }
        let block = self.versions.block_of(state);
        Some(if busy { Planned::Wait } else { Planned::Fetch(block, first, last + 1) })
    }

    /// Fills a unit with what it was.
    fn old(&self, unit: usize, into: &mut [u8]) -> Result<(), StoreError> {
        let state = self.versions.newest().filter(|state| !state.is_tombstone());
        match state.map_or(Source::Zero, |state| self.versions.source(state, unit)) {
            Source::Zero => into.fill(0),
            Source::Overlay(data) => into.copy_from_slice(data.buf.bytes()),
            Source::Block(crc) => {
                let start = u32::try_from(unit).expect("units of one object") * UNIT;
                let damaged = StoreError::Damaged { offset: start, len: UNIT };
                let (first, buf) = self.fetched.ok_or(damaged.clone())?;
                let at = unit.checked_sub(*first).ok_or(damaged.clone())? * UNIT_USIZE;
                let bytes = buf.bytes().get(at..at + UNIT_USIZE).ok_or(damaged.clone())?;
                if crc32fast::hash(bytes) != crc {
                    return Err(damaged);
                }
                into.copy_from_slice(bytes);
            }
        }
        Ok(())
    }

    /// A unit with what a write brings of it.
    fn merged_unit(&self, env: &mut Env<'_>, write: &Write<'_>, unit: usize) -> Result<UnitData, StoreError> {
        let number = u16::try_from(unit).expect("units of one object");
        let (at, part) = write.part(unit).expect("a unit of the write");
        if write.covers(unit) {
            return Ok(UnitData { unit: number, crc: write.sum(unit), buf: part });
        }
        let mut buf = env.bufs.alloc(UNIT);
        self.old(unit, buf.bytes_mut())?;
        buf.bytes_mut()[at..at + part.len() as usize].copy_from_slice(part.bytes());
        let crc = crc32fast::hash(buf.bytes());
        Ok(UnitData { unit: number, crc, buf: env.bufs.freeze(buf) })
    }

    /// A unit of which a range becomes zero.
    fn zeroed_unit(&self, env: &mut Env<'_>, unit: usize, offset: u32, len: u32) -> Result<UnitData, StoreError> {
        let start = u32::try_from(unit).expect("units of one object") * UNIT;
        let (from, to) = (offset.max(start), (offset + len).min(start + UNIT));
        let mut buf = env.bufs.alloc(UNIT);
        self.old(unit, buf.bytes_mut())?;
        buf.zero(from - start, to - from);
        let crc = crc32fast::hash(buf.bytes());
        Ok(UnitData { unit: u16::try_from(unit).expect("units of one object"), crc, buf: env.bufs.freeze(buf) })
    }

    /// All that goes into a new block: first unit, bytes, CRCs by unit.
    fn merge(
        &self,
        env: &mut Env<'_>,
        write: &Write<'_>,
        bitmap: &Bitmap,
        units: usize,
    ) -> Result<(usize, Buf, Sums), StoreError> {
        let first = bitmap.units().next().expect("a write of data");
        let end = bitmap.units().last().expect("a write of data") + 1;
        let mut sums = Sums::from_elem(0, units);
        if bitmap.units().all(|unit| write.covers(unit)) {
            bitmap.units().for_each(|unit| sums[unit] = write.sum(unit));
            return Ok((first, write.data.buf.clone(), sums));
        }
        let len = u32::try_from(end - first).expect("units of one object") * UNIT;
        let mut buf = env.bufs.zeroed(len);
        for unit in bitmap.units() {
            let bytes = &mut buf.bytes_mut()[(unit - first) * UNIT_USIZE..][..UNIT_USIZE];
            if !write.covers(unit) {
                self.old(unit, bytes)?;
            }
            if let Some((at, part)) = write.part(unit) {
                bytes[at..at + part.len() as usize].copy_from_slice(part.bytes());
            }
            sums[unit] = crc32fast::hash(bytes);
        }
        Ok((first, env.bufs.freeze(buf), sums))
    }
}

/// CRCs of the whole units of a body at `offset`; `None` if the body does not match its checksum.
pub(super) fn intake(offset: u32, data: &Data) -> Option<Sums> {
    let mut sums = Sums::new();
    let mut combined = crc::Combined::default();
    let mut at = 0;
    while at < data.len() {
        let len = (UNIT - (offset + at) % UNIT).min(data.len() - at);
        let sum = data.buf.slice(at, len).crc();
        combined.append(sum, len);
        if len == UNIT {
            sums.push(sum);
        }
        at += len;
    }
    (combined.crc() == data.crc || planted(Bug::TrustBody)).then_some(sums)
}
