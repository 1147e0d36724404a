//! Compaction: overlays go from the log into their block.
//!
//! ```text
//! overlays in the log -> data written in place -> durable -> Compacted logged, overlays dropped
//! ```
//!
//! Invariants: it starts only when the records that made the overlays are in the log and the object has no undone data,
//! fetch or compaction under way; an overlay that was replaced meanwhile is left alone.

use super::index::ObjectIndex;
use super::ops::{Compaction, DataWrite};
use super::page::Sequence;
use super::record::{Body, Record, UnitData};
use super::room::Class;
use super::running::{Io, Running};
use crate::buf::UNIT;
use crate::io::{DiskError, Env};
use crate::planted::{Bug, planted};
use smallvec::SmallVec;

/// Memory that overlays take before compaction starts, at most: 64 MiB.
const OVERLAYS_MAX: u64 = (64 << 20) / UNIT as u64;
/// Share of the log that they take before compaction starts: more, and cleaning would have to wait for it.
const LOG_SHARE: u64 = 16;
/// Compactions at a time, enough to keep a device busy beside its clients.
const COMPACTIONS_MAX: u32 = 16;
/// Objects looked at in one round for one that can be compacted.
const TRIES: usize = 32;

impl Running {
    /// Overlays from which on they are compacted.
    fn overlays_wanted(&self) -> u64 {
        (self.journal.total_bytes() / LOG_SHARE / u64::from(UNIT)).min(OVERLAYS_MAX)
    }

    /// Whether no more overlays may be made before some are compacted.
    pub(super) fn overlays_full(&self) -> bool {
        self.overlays >= self.overlays_wanted() * 2
    }

    /// The object has overlays.
    pub(super) fn queue_overlays(&mut self, place: ObjectIndex) {
        let object = self.objects.wake(place);
        if !object.queued {
            object.queued = true;
            self.overlay_queue.push_back(place);
        }
    }

    /// Starts compactions while there are too many overlays, the oldest first.
    pub(super) fn compact(&mut self, env: &mut Env<'_>) {
        let mut tries = TRIES;
        while self.overlays > self.overlays_wanted() && self.compactions < COMPACTIONS_MAX && tries > 0 {
            tries -= 1;
            let Some(place) = self.overlay_queue.pop_front() else { return };
            if self.objects.get(place).is_none_or(|object| !object.queued) {
                continue;
            }
            let object = self.objects.at_mut(place);
            object.queued = false;
            let has_overlays = object.versions.committed.as_ref().is_some_and(|state| !state.overlays.is_empty());
            if has_overlays {
                self.start_compaction(env, place);
                self.queue_overlays(place);
            } else {
                self.rest(place);
            }
        }
    }

    /// Writes the overlays of an object that are in the log into its block. False if nothing can be written now.
    pub(super) fn start_compaction(&mut self, env: &mut Env<'_>, place: ObjectIndex) -> bool {
        let Some(object) = self.objects.get(place) else { return false };
        if let Some(active) = self.actives.get(object.active)
            && (active.is_block_busy() || active.fetching)
        {
            return false;
        }
        let Some(state) = &object.versions.committed else { return false };
        let durable = if planted(Bug::StoreCompactEarly) { Sequence::MAX } else { self.journal.durable() };
        let mut compaction =
            Compaction { parts: 0, block: state.block, upto: 0, units: SmallVec::new(), bytes: 0, refused: None };
        let ready = state.overlays.iter().filter(|overlay| overlay.page <= durable);
        for overlay in ready.clone() {
            compaction.add(overlay.data.unit, overlay.page);
        }
        let conflicts = self.reads.iter().any(|(_, read)| read.conflicts(compaction.block, &compaction.units));
        if compaction.bytes == 0 || conflicts {
            return false;
        }
        let mut units = std::mem::take(&mut self.units);
        units.clear();
        units.extend(ready.map(|overlay| overlay.data.clone()));
        let block = compaction.block;
        let follows = |a: &UnitData, b: &UnitData| a.unit + 1 == b.unit;
        compaction.parts = u32::try_from(units.chunk_by(follows).count()).expect("units of one object");
        let active = self.activate(place);
        self.actives.at_mut(active).compaction = Some(compaction);
        self.compactions += 1;
        self.blocks.pin(block);
        for run in units.chunk_by(follows) {
            self.write_run(env, place, block, run);
        }
        units.clear();
        self.units = units;
        true
    }

    fn write_run(&mut self, env: &mut Env<'_>, place: ObjectIndex, block: u32, units: &[UnitData]) {
        let mut run = env.bufs.alloc(UNIT * u32::try_from(units.len()).expect("units of one object"));
        let mut at = 0;
        for unit in units {
            run.copy_from(at, &unit.buf);
            at += UNIT;
        }
        let run = env.bufs.freeze(run);
        self.write_block(env, block, units[0].unit.into(), run, Io::Compaction(place));
    }

    /// Part of a compaction completed.
    pub(super) fn compaction_written(&mut self, env: &mut Env<'_>, place: ObjectIndex, result: Result<(), DiskError>) {
        let active = self.actives.at_mut(self.objects.at(place).active);
        let compaction = active.compaction.as_mut().expect("its write completed");
        compaction.refused = compaction.refused.or(result.err());
        compaction.parts -= 1;
        let (parts, bytes) = (compaction.parts, compaction.bytes);
        if let (0, Some(error)) = (parts, compaction.refused) {
            self.compaction_refused(env, place, error);
        } else if parts == 0 && planted(Bug::StoreCompactedEarly) {
            self.compaction_durable(env, place);
        } else if parts == 0 {
            self.write_completed(env, DataWrite::Compaction(place), bytes);
        }
    }

    /// The overlays' data are durable in the block.
    pub(super) fn compaction_durable(&mut self, env: &mut Env<'_>, place: ObjectIndex) {
        let object = self.objects.at(place);
        let active = self.actives.at_mut(object.active);
        let compaction = active.compaction.take().expect("its data became durable");
        let cleaning = active.cleaning;
        self.blocks.unpin(compaction.block);
        self.compactions -= 1;
        let current = object.versions.committed.as_ref().is_some_and(|state| state.block == compaction.block);
        let body = Body::Compacted { upto: compaction.upto, units: compaction.units };
        let record = Record { copy: object.copy, body };
        // A snapshot that follows says the same; without room the overlays stay, to be compacted again.
        let logged = cleaning || self.admits(record.bytes(), Class::Cleaning);
        if current && logged {
            if !cleaning {
                self.journal.append(&record, None, env.bufs);
            }
            let overlays = self.objects.at(place).versions.overlays();
            self.objects.at_mut(place).versions.apply(&record.body, 0, &mut self.spare);
            self.count(place, overlays);
            self.gained = true;
        }
        self.step_object(env, place);
        if self.objects.get(place).is_some() {
            self.rest(place);
        }
    }
}

impl Compaction {
    fn add(&mut self, unit: u16, page: Sequence) {
        let word = usize::from(unit) / 64;
        if self.units.len() <= word {
            self.units.resize(word + 1, 0);
        }
        self.units[word] |= 1 << (unit % 64);
        self.upto = self.upto.max(page);
        self.bytes += u64::from(UNIT);
    }
}
