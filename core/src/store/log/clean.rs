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
//!
//! The work is bounded: in a round, so many objects are looked at; and while the log is not short of space in earnest, what
//! is logged anew follows what clients log, and the clock, so that clients notice little of it. At first snapshots only fill
//! the ends of pages that go out anyway, which costs the device nothing and is enough for small writes one at a time. It ends
//! when the log has enough room, or as much as cleaning is sure to bring ([`super::room`]): what is all needed is not logged
//! over and over.

use super::index::{NONE, ObjectIndex};
use super::journal::LOOKS;
use super::object::Sums;
use super::ops::{Base, Op};
use super::record::{self, Body};
use super::room::{Class, RECORD_BYTES};
use super::running::Running;
use crate::buf::UNIT;
use crate::io::Env;
use crate::planted::{Bug, planted};
use crate::time::{Duration, Time};

/// Objects that wait for their snapshot at a time: enough to fill pages of the log.
const BATCH: usize = 64;
/// Free part of the log below which cleaning starts, in percent.
const FREE_PERCENT: u64 = 20;
/// Free part of the log below which snapshots get more than the ends of pages that clients fill, in percent.
const PACED_PERCENT: u64 = 10;
/// Segments that shall be free beyond what cleaning itself may need.
const FREE_SEGMENTS: u64 = 2;
/// Bytes of snapshots for each byte that goes to the log, while there is room: all snapshots take two fifths of the log at
/// most, so that two thirds keep up.
const PACE_SHARE: u64 = 1;
/// And each second, so that a store at rest gets its room back.
const PACE_RATE: u64 = 8 << 20;
/// What may be saved up, or owed.
const PACE_SAVED: i64 = 1 << 20;
/// What is saved up before it goes on by itself: a page that is nearly empty takes as much of the log as a full one.
const PACE_BURST: i64 = 64 << 10;
/// When to go on with what one round did not finish.
const AGAIN: Duration = Duration::micros(200);
/// Objects looked at to fill the end of a page: it takes sixteen snapshots, and some objects have moved on.
const FILLS: usize = 64;
/// Clients that logged nothing for so long have no pages to be filled: the cleaner writes its own.
const REST: Duration = Duration::millis(10);

/// How much the log needs to be cleaned.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Haste {
    /// Not at all.
    None,
    /// As far as it costs nothing.
    Fills,
    /// As fast as clients log, and the clock allows.
    Paced,
    /// There is no time to lose.
    Urgent,
}

/// How many bytes may be logged anew.
#[derive(Clone, Debug, Default)]
struct Pace {
    saved: i64,
    /// When, and with how many bytes in the log, it was brought up to date.
    since: Time,
    logged: u64,
}

impl Pace {
    /// Brings it up to date.
    fn update(&mut self, now: Time, logged: u64) {
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(PACE_SAVED);
        // A saving of more than a second would be cut off anyway.
        let nanos = now.since(self.since).0.min(1_000_000_000);
        let earned = PACE_RATE * nanos / 1_000_000_000;
        if earned > 0 || logged > self.logged {
            self.saved += number(earned).saturating_add(number((logged - self.logged) * PACE_SHARE));
            self.saved = self.saved.min(PACE_SAVED);
            (self.since, self.logged) = (now, logged);
        }
    }

    /// So many bytes are logged anew.
    fn take(&mut self, bytes: u64) {
        self.saved = (self.saved - i64::try_from(bytes).unwrap_or(PACE_SAVED)).max(-PACE_SAVED);
    }

    /// How long until so much may be logged anew that it fills pages.
    fn wait(&self) -> Duration {
        let owed = u64::try_from(PACE_BURST - self.saved).unwrap_or(0);
        Duration((owed * 1_000_000_000 / PACE_RATE).max(AGAIN.0))
    }
}

/// How far the oldest segment is cleaned.
#[derive(Clone, Debug)]
pub struct Cleaner {
    segment: u32,
    /// Of the segment's objects, how many were looked at.
    cursor: usize,
    /// Objects that wait for their snapshot.
    waiting: Vec<ObjectIndex>,
    pace: Pace,
    haste: Haste,
    /// When a client's record was logged last.
    asked: Time,
    /// Whether snapshots wait for those whose overlays are being compacted, to share a page with them.
    gathers: bool,
    /// Room besides what cleaning may need, in the round before.
    spare: u64,
    /// When it goes on, if nothing else happens.
    again: Option<Time>,
}

impl Default for Cleaner {
    fn default() -> Self {
        Cleaner {
            segment: NONE,
            cursor: 0,
            waiting: Vec::new(),
            pace: Pace::default(),
            haste: Haste::None,
            asked: Time(0),
            gathers: false,
            spare: 0,
            again: None,
        }
    }
}

impl Cleaner {
    /// When it goes on.
    pub fn deadline(&self) -> Option<Time> {
        self.again
    }

    /// A client's record is logged.
    pub fn asked(&mut self, now: Time) {
        self.asked = now;
    }

    /// Whether objects wait for it.
    pub fn is_busy(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Running {
    /// Whether the log is short of space, or a part of it is to go.
    fn haste(&self, now: Time) -> Haste {
        let segment = u64::from(self.superblock.segment_size);
        let (spare, sure) = (self.spare_room() + self.journal.cooling_bytes(), self.sure_room());
        let oldest = self.journal.segments[self.journal.tail() as usize].first;
        let condemned = self.scrubber.condemned() >= oldest;
        let short = spare < sure.min(FREE_SEGMENTS * segment);
        let below = |percent| spare < sure && self.journal.room() < self.journal.total_bytes() * percent / 100;
        // What ends something is sure to get room. Should that be wrong, there may be some nevertheless.
        let ending = self.ending_share() + RECORD_BYTES as u64 + u64::from(UNIT);
        let stuck = self.is_stalled() && spare < ending;
        let wanted = condemned || short || below(FREE_PERCENT) || stuck;
        let at_rest = now.since(self.cleaner.asked) >= REST;
        let early = at_rest || below(PACED_PERCENT) || self.journal.is_crowded();
        match () {
            () if !wanted || self.journal.is_one_segment() => Haste::None,
            () if short || (self.is_stalled() && sure >= ending) => Haste::Urgent,
            () if condemned || stuck || early => Haste::Paced,
            () => Haste::Fills,
        }
    }

    /// Whether snapshots wait for others: without time to lose, those that come one by one would take a page each.
    fn gathers(&self, urgent: bool) -> bool {
        let compacts = |place: &ObjectIndex| {
            let active = self.objects.get(*place).and_then(|object| self.actives.get(object.active));
            active.is_some_and(|active| active.compaction.is_some())
        };
        urgent && self.cleaner.waiting.iter().any(compacts)
    }

    /// Chooses objects of the oldest segment, as long as the log is short of space.
    pub(super) fn clean(&mut self, env: &mut Env<'_>) {
        self.gained |= self.journal.advance_tail();
        self.cleaner.haste = self.haste(env.now);
        let urgent = self.cleaner.haste == Haste::Urgent;
        self.cleaner.gathers = self.gathers(urgent);
        for at in (0..self.cleaner.waiting.len()).rev() {
            // A snapshot takes its object off the list, and moves none before it.
            let place = self.cleaner.waiting[at];
            self.step_object(env, place);
        }
        // Snapshots that lie more evenly leave more room to others.
        let spare = self.spare_room();
        self.gained |= spare > std::mem::replace(&mut self.cleaner.spare, spare);
        let tail = self.journal.tail();
        if self.cleaner.segment != tail {
            (self.cleaner.segment, self.cleaner.cursor) = (tail, 0);
        }
        self.cleaner.again = (self.cleaner.haste == Haste::Fills).then(|| self.cleaner.asked + REST);
        if self.cleaner.haste < Haste::Paced {
            return;
        }
        self.cleaner.pace.update(env.now, self.journal.begun_bytes());
        for _ in 0..LOOKS {
            if self.cleaner.waiting.len() >= BATCH {
                return;
            }
            if !urgent && self.cleaner.pace.saved <= 0 {
                self.cleaner.again = Some(env.now + self.cleaner.pace.wait());
                return;
            }
            let Some(place) = self.named() else { return self.look_again() };
            self.cleaner.cursor += 1;
            if self.objects.base(place) == tail {
                self.cleaner.pace.take(self.objects.wake(place).snapshot_bytes);
                self.choose(env, place);
            }
        }
        self.cleaner.again = Some(env.now + AGAIN);
    }

    /// Snapshots in what is left of a page that goes out now.
    pub(super) fn fill_page(&mut self, env: &mut Env<'_>) {
        for _ in 0..FILLS {
            let padding = self.journal.padding() as u64;
            if self.cleaner.haste == Haste::None || padding == 0 || self.cleaner.waiting.len() >= BATCH {
                return;
            }
            let Some(place) = self.named() else { return self.look_again() };
            if self.objects.base(place) == self.cleaner.segment {
                if self.objects.wake(place).snapshot_bytes > padding {
                    return self.rest(place);
                }
                self.choose(env, place);
            }
            self.cleaner.cursor += 1;
        }
    }

    /// The object of the oldest segment to be looked at next.
    fn named(&self) -> Option<ObjectIndex> {
        self.journal.segments[self.cleaner.segment as usize].objects.get(self.cleaner.cursor).copied()
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
        if !active.cleaning || busy || self.is_read_only() || active.fetching {
            return;
        }
        let versions = &object.versions;
        let overlays = versions.committed.as_ref().is_some_and(|state| !state.overlays.is_empty());
        if overlays {
            self.start_compaction(env, place);
            return;
        }
        let bytes = record::snapshot_bytes(versions.committed.as_ref(), versions.prepared.as_deref());
        if self.cleaner.gathers || !self.admits(bytes, Class::Cleaning) {
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
