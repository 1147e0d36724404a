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
//! is logged anew follows what clients log, and the clock, so that clients notice little of it.

use super::index::{NONE, ObjectIndex};
use super::object::Sums;
use super::ops::{Base, Op};
use super::page::Sequence;
use super::record::{self, Body};
use super::running::Running;
use super::write::Class;
use crate::io::Env;
use crate::planted::{Bug, planted};
use crate::time::{Duration, Time};

/// Objects that wait for their snapshot at a time: enough to fill pages of the log.
const BATCH: usize = 64;
/// Free part of the log below which cleaning starts, in percent.
const FREE_PERCENT: u64 = 20;
/// Segments that shall be free beyond what cleaning itself may need.
const FREE_SEGMENTS: u64 = 2;
/// Objects looked at in a round: most of those that a segment names may have moved on, and looking is a cache miss each.
const LOOKS: usize = 512;
/// Bytes of snapshots for each byte that goes to the log, while there is room: all snapshots take two fifths of the log at
/// most, so that two thirds keep up.
const PACE_SHARE: u64 = 1;
/// And each second, so that a store at rest gets its room back.
const PACE_RATE: u64 = 8 << 20;
/// What may be saved up, or owed.
const PACE_SAVED: i64 = 1 << 20;
/// When to go on with what one round did not finish.
const AGAIN: Duration = Duration::micros(200);

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

    /// How long until something may be logged anew.
    fn wait(&self) -> Duration {
        let owed = u64::try_from(-self.saved).unwrap_or(0) + 1;
        Duration((owed * 1_000_000_000 / PACE_RATE).max(AGAIN.0))
    }
}

/// One time around the ring, and whether that was of use.
#[derive(Clone, Debug, Default)]
struct Turn {
    /// It ends when the tail is past this page; 0: none was begun.
    upto: Sequence,
    /// Room at its beginning.
    room: u64,
    /// Records of others at its beginning.
    logged: u64,
    /// It brought next to nothing: garbage that was left then.
    given_up: Option<u64>,
}

/// A turn is of use if it brings a segment's part in so many.
const TURN_GAIN: u64 = 4;

/// How far the oldest segment is cleaned.
#[derive(Clone, Debug)]
pub struct Cleaner {
    segment: u32,
    /// Of the segment's objects, how many were looked at.
    cursor: usize,
    /// Objects that wait for their snapshot.
    waiting: Vec<ObjectIndex>,
    pace: Pace,
    turn: Turn,
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
            turn: Turn::default(),
            again: None,
        }
    }
}

impl Cleaner {
    /// When it goes on.
    pub fn deadline(&self) -> Option<Time> {
        self.again
    }

    /// Whether objects wait for it.
    pub fn is_busy(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Running {
    /// Whether the log is short of space, or a part of it is to go; and whether there is no time to lose.
    fn wants_cleaning(&self) -> (bool, bool) {
        let segment = u64::from(self.superblock.segment_size);
        let wanted = self.journal.cleaning_need() * 5 / 4 + FREE_SEGMENTS * segment;
        let share = self.journal.total_bytes() * FREE_PERCENT / 100;
        let oldest = self.journal.segments[self.journal.tail() as usize].first;
        let condemned = self.scrubber.condemned() >= oldest;
        let short = self.journal.room() < wanted;
        let wanted = condemned || short || self.journal.room() < share;
        (wanted && !self.journal.is_one_segment(), short || self.is_stalled())
    }

    /// Chooses objects of the oldest segment, as long as the log is short of space.
    pub(super) fn clean(&mut self, env: &mut Env<'_>) {
        self.gained |= self.journal.advance_tail();
        for at in (0..self.cleaner.waiting.len()).rev() {
            // A snapshot takes its object off the list, and moves none before it.
            let place = self.cleaner.waiting[at];
            self.step_object(env, place);
        }
        let (wanted, urgent) = self.wants_cleaning();
        self.cleaner.again = None;
        if !wanted {
            self.cleaner.turn = Turn::default();
            return;
        }
        if self.is_in_vain() {
            return;
        }
        self.cleaner.pace.update(env.now, self.journal.begun_bytes());
        let tail = self.journal.tail();
        if self.cleaner.segment != tail {
            (self.cleaner.segment, self.cleaner.cursor) = (tail, 0);
        }
        for _ in 0..LOOKS {
            if self.cleaner.waiting.len() >= BATCH {
                return;
            }
            if !urgent && self.cleaner.pace.saved <= 0 {
                self.cleaner.again = Some(env.now + self.cleaner.pace.wait());
                return;
            }
            let objects = &self.journal.segments[tail as usize].objects;
            let Some(place) = objects.get(self.cleaner.cursor).copied() else {
                return self.look_again();
            };
            self.cleaner.cursor += 1;
            if self.objects.base(place) == tail {
                self.cleaner.pace.take(self.objects.wake(place).snapshot_bytes);
                self.choose(env, place);
            }
        }
        self.cleaner.again = Some(env.now + AGAIN);
    }

    /// Whether a turn brought next to nothing, and little has changed since: what is in the log is all needed, and logging it
    /// over and over would only wear the device.
    fn is_in_vain(&mut self) -> bool {
        let gain = u64::from(self.superblock.segment_size) / TURN_GAIN;
        let (room, snapshots) = (self.journal.room(), self.snapshot_bytes);
        let garbage = self.journal.total_bytes().saturating_sub(room + snapshots);
        let tail = self.journal.segments[self.journal.tail() as usize].first;
        let condemned = self.scrubber.condemned() >= tail;
        let turn = &mut self.cleaner.turn;
        if turn.given_up.is_some_and(|then| garbage >= then + gain) || condemned {
            (turn.given_up, turn.upto) = (None, 0);
        }
        if turn.upto == 0 {
            (turn.upto, turn.room, turn.logged) = (self.journal.head_first(), room, self.logged);
        } else if tail > turn.upto {
            turn.upto = 0;
            // Others may have filled at once what became free.
            let alone = turn.logged == self.logged;
            turn.given_up = (alone && room < turn.room + gain).then_some(garbage);
        }
        turn.given_up.is_some()
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
        self.logged -= 1;
    }
}
