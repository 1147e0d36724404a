//! Cleaning: the oldest segment of the log becomes free.
//!
//! Only the oldest, or records would be dropped before those that they supersede. For each object whose oldest needed
//! record lies there:
//!
//! ```text
//! chosen (its new operations wait) -> no undone data -> overlays compacted -> Snapshot logged -> settled elsewhere
//! ```
//!
//! The tail moves on by itself once nothing lives in the segment ([`super::journal`]).

use super::index::{NONE, ObjectIndex};
use super::object::Sums;
use super::ops::{Base, Op};
use super::record::{self, Body};
use super::running::Running;
use super::write::Class;
use crate::io::Env;
use crate::planted::{Bug, planted};

/// Objects that wait for their snapshot at a time: enough to fill pages of the log.
const BATCH: usize = 64;
/// Free part of the log below which cleaning starts, in percent.
const FREE_PERCENT: u64 = 20;
/// Segments that shall be free beyond what cleaning itself may need.
const FREE_SEGMENTS: u64 = 2;

/// How far the oldest segment is cleaned.
#[derive(Clone, Debug)]
pub struct Cleaner {
    segment: u32,
    /// Of the segment's objects, how many were looked at.
    cursor: usize,
    /// Objects that wait for their snapshot.
    waiting: Vec<ObjectIndex>,
}

impl Default for Cleaner {
    fn default() -> Self {
        Cleaner { segment: NONE, cursor: 0, waiting: Vec::new() }
    }
}

impl Cleaner {
    /// Whether objects wait for it.
    pub fn is_busy(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Running {
    fn wants_cleaning(&self) -> bool {
        let segment = u64::from(self.superblock.segment_size);
        let wanted = self.journal.cleaning_need() * 5 / 4 + FREE_SEGMENTS * segment;
        let share = self.journal.total_bytes() * FREE_PERCENT / 100;
        self.journal.room() < wanted.max(share) && !self.journal.is_one_segment()
    }

    /// Chooses objects of the oldest segment, as long as the log is short of space.
    pub(super) fn clean(&mut self, env: &mut Env<'_>) {
        self.gained |= self.journal.advance_tail();
        for at in (0..self.cleaner.waiting.len()).rev() {
            // A snapshot takes its object off the list, and moves none before it.
            let place = self.cleaner.waiting[at];
            self.step_object(env, place);
        }
        if !self.wants_cleaning() {
            return;
        }
        let tail = self.journal.tail();
        if self.cleaner.segment != tail {
            (self.cleaner.segment, self.cleaner.cursor) = (tail, 0);
        }
        while self.cleaner.waiting.len() < BATCH {
            let objects = &self.journal.segments[tail as usize].objects;
            let Some(place) = objects.get(self.cleaner.cursor).copied() else {
                return self.look_again();
            };
            self.cleaner.cursor += 1;
            if self.objects.get(place).is_some_and(|object| object.base == tail) {
                self.choose(env, place);
            }
        }
    }

    /// All were looked at; those that could not be chosen then may be now.
    fn look_again(&mut self) {
        let segment = &self.journal.segments[self.cleaner.segment as usize];
        if self.cleaner.waiting.is_empty() && segment.live > 0 {
            self.cleaner.cursor = 0;
        }
    }

    /// Has a snapshot of the object made, as soon as that is possible.
    pub(super) fn choose(&mut self, env: &mut Env<'_>, place: ObjectIndex) {
        let active = self.activate(place);
        // Its base moves on without a snapshot, or it is chosen already.
        if self.actives.at_mut(active).cleaning || self.is_base_moving(active) {
            return self.rest(place);
        }
        self.actives.at_mut(active).cleaning = true;
        self.cleaner.waiting.push(place);
        self.step_object(env, place);
    }

    fn is_base_moving(&self, active: u32) -> bool {
        let Some(active) = self.actives.get(active) else { return false };
        let mut carried_out = active.ops.iter().take(active.applied);
        carried_out.any(|key| self.ops.get(*key).is_some_and(|op| op.base != Base::Builds))
    }

    /// Goes on with an object that waits for its snapshot.
    pub(super) fn clean_step(&mut self, env: &mut Env<'_>, place: ObjectIndex) {
        let object = self.objects.at(place);
        let Some(active) = self.actives.get(object.active) else { return };
        let busy = active.is_block_busy() && !planted(Bug::StoreSnapshotUndone);
        if !active.cleaning || busy || self.is_read_only() {
            return;
        }
        if active.fetching {
            return;
        }
        let versions = &object.versions;
        let overlays = versions.committed.as_ref().is_some_and(|state| !state.overlays.is_empty());
        if overlays {
            self.start_compaction(env, place);
            return;
        }
        let bytes = record::snapshot_bytes(versions.committed.as_ref(), versions.prepared.as_deref());
        if !self.admits(bytes, Class::Cleaning) {
            return;
        }
        self.snapshot(env, place);
    }

    /// Logs all of an object, before the operations that wait.
    fn snapshot(&mut self, env: &mut Env<'_>, place: ObjectIndex) {
        let versions = &self.objects.at(place).versions;
        let prepared = versions.prepared.clone().filter(|_| !planted(Bug::StoreSnapshotDropsPrepared));
        let body = Body::Snapshot { committed: versions.committed.clone(), prepared };
        let base = if versions.is_empty() { Base::Ends } else { Base::Is };
        self.snapshots += 1;
        let key = self.enqueue(Op { object: place, ..Op::new(None, None, Sums::new()) });
        let active = self.actives.at_mut(self.objects.at(place).active);
        active.ops.pop_back();
        active.ops.insert(active.applied, key);
        active.applied += 1;
        active.cleaning = false;
        self.cleaner.waiting.retain(|waiting| *waiting != place);
        self.record(env, key, place, body, base, None);
    }
}
