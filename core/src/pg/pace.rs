//! How fast an OSD recovers objects, as primary of all its groups: as fast as its clients do not mind.
//!
//! Owns: the places for objects that are being recovered, who waits for one (the most endangered first), and how many
//! places there are. Does not own: what is recovered (recover.rs).
//!
//! The measure is the latency of clients' operations on objects that are whole (those that wait for a recovery are not
//! slowed by it, but by the damage). While nothing is recovered it is the baseline; while something is, it may be a set
//! multiple of that. Windows of work and rest follow one another:
//!
//! ```text
//!                     a place is taken             WORK passed: judged, then
//!   Quiet (baseline) ------------------> Working --------------------------> Resting (baseline, once all is done)
//!     ^                                     ^  |  <-------------------------     |
//!     |                                     |  |           rest passed           |
//!     +--- nothing waits or is under way ---+  +---------------------------------+
//! ```
//! Judgement: too slow: half the places, at one place longer rests; else shorter rests, then one place more. Without
//! clients the places double up to their limit. Every eighth window is followed by a short rest in any case, so that the
//! baseline follows the clients' load.
//! Invariants: never more places taken than the limit; a group that waits is woken.

use crate::id::PgId;
use crate::map;
use crate::time::{Duration, Time};
use std::collections::BTreeSet;

/// Places at the beginning: enough to keep a disk busy, few enough that a client's request waits behind some hundred
/// microseconds of them.
const FIRST_WIDTH: u32 = 4;
/// Long against an object's recovery, short against a person's patience.
const WORK: Duration = Duration::millis(200);
/// Rests for the baseline: a hundred operations at usual rates.
const SHORT_REST: Duration = Duration::millis(25);
/// The shortest rest that slows recovery down, and the longest: at least a fifth of the time is work.
const SLOWING_MIN: Duration = Duration::millis(50);
const SLOWING_MAX: Duration = Duration::millis(800);
/// Windows of work between rests for the baseline: a ninth of the objects are not begun for a few milliseconds.
const WINDOWS_PER_REST: u32 = 8;
/// Fewer operations in a window say nothing.
const SAMPLES_MIN: u64 = 8;

/// How endangered a group's worst object is; lower is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// So many good copies are left among acting members beyond those that are needed to read it.
    Degraded(u8),
    /// Enough copies, but some in the wrong place, or stale ones to remove.
    Misplaced,
}

/// Latencies of a window.
#[derive(Clone, Copy, Debug, Default)]
struct Samples {
    count: u64,
    sum_ns: u64,
}

impl Samples {
    fn add(&mut self, latency: Duration) {
        self.count += 1;
        self.sum_ns = self.sum_ns.saturating_add(latency.0);
    }

    fn mean(&self) -> Option<u64> {
        (self.count >= SAMPLES_MIN).then(|| self.sum_ns / self.count)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Quiet,
    Working { until: Time },
    Resting { until: Time },
}

/// See the module.
#[derive(Clone, Debug)]
pub struct RecoverySlots {
    /// Most places.
    limit: u32,
    /// Latency that clients may see, in percent of the baseline.
    percent: u64,
    width: u32,
    taken: u32,
    waiting: BTreeSet<(Urgency, PgId)>,
    phase: Phase,
    rest: Duration,
    windows: u32,
    baseline_ns: Option<u64>,
    /// Since the phase began, or (in quiet and at rest) since it was last taken into the baseline.
    samples: Samples,
}

impl Default for RecoverySlots {
    /// As an unconfigured cluster has it.
    fn default() -> Self {
        Self::new(map::default_recovery_objects(), map::default_recovery_latency_percent())
    }
}

impl RecoverySlots {
    /// Room for at most `limit` objects at a time, such that clients' operations take at most `percent` of the time that
    /// they take without.
    pub fn new(limit: u32, percent: u32) -> Self {
        RecoverySlots {
            limit,
            percent: percent.into(),
            width: FIRST_WIDTH.min(limit),
            taken: 0,
            waiting: BTreeSet::new(),
            phase: Phase::Quiet,
            rest: Duration(0),
            windows: 0,
            baseline_ns: None,
            samples: Samples::default(),
        }
    }

    /// The configuration changed.
    pub fn configure(&mut self, limit: u32, percent: u32) {
        self.limit = limit;
        self.percent = percent.into();
        self.width = self.width.min(limit);
    }

    /// Takes a place; if there is none, the group is called by `next_waiting` later.
    pub fn take(&mut self, now: Time, urgency: Urgency, pg: PgId) -> bool {
        if self.phase == Phase::Quiet {
            self.settle_baseline();
            self.begin_work(now);
        }
        self.advance(now);
        let taken = self.may_begin();
        if taken {
            self.taken += 1;
        } else {
            self.waiting.insert((urgency, pg));
        }
        taken
    }

    /// Gives a place back.
    pub fn give_back(&mut self) {
        self.taken = self.taken.checked_sub(1).expect("a place that was taken");
        if self.taken == 0 && self.waiting.is_empty() {
            self.phase = Phase::Quiet;
            self.samples = Samples::default();
        }
    }

    /// The group whose turn it is, if a place is free: the node calls [`super::Pg::recover`] of it, after each round,
    /// until this returns nothing.
    pub fn next_waiting(&mut self, now: Time) -> Option<PgId> {
        if self.waiting.is_empty() {
            return None;
        }
        self.advance(now);
        if !self.may_begin() {
            return None;
        }
        self.waiting.pop_first().map(|(_, pg)| pg)
    }

    /// When `next_waiting` has something although nothing else happened.
    pub fn next_deadline(&self) -> Option<Time> {
        match self.phase {
            Phase::Resting { until } if !self.waiting.is_empty() => Some(until),
            _ => None,
        }
    }

    /// A client's operation on an object that was whole took so long.
    pub fn client_waited(&mut self, now: Time, latency: Duration) {
        self.advance(now);
        let counts = match self.phase {
            Phase::Quiet | Phase::Working { .. } => true,
            Phase::Resting { .. } => self.taken == 0,
        };
        if counts {
            self.samples.add(latency);
        }
        if self.phase == Phase::Quiet && self.samples.count >= 8 * SAMPLES_MIN {
            self.settle_baseline();
        }
    }

    fn may_begin(&self) -> bool {
        matches!(self.phase, Phase::Working { .. }) && self.taken < self.width
    }

    fn advance(&mut self, now: Time) {
        match self.phase {
            Phase::Working { until } if until <= now => {
                self.judge();
                self.begin_rest(now);
            }
            Phase::Resting { until } if until <= now => {
                self.settle_baseline();
                self.begin_work(now);
            }
            _ => {}
        }
    }

    fn begin_work(&mut self, now: Time) {
        self.samples = Samples::default();
        self.phase = Phase::Working { until: now + WORK };
    }

    fn begin_rest(&mut self, now: Time) {
        let has_clients = self.samples.count > 0;
        self.windows = (self.windows + 1) % WINDOWS_PER_REST;
        let short =
            if has_clients && (self.windows == 0 || self.baseline_ns.is_none()) { SHORT_REST } else { Duration(0) };
        let rest = self.rest.max(short);
        if rest == Duration(0) {
            return self.begin_work(now);
        }
        self.samples = Samples::default();
        self.phase = Phase::Resting { until: now + rest };
    }

    /// A quarter of the baseline is replaced by what was seen now.
    fn settle_baseline(&mut self) {
        if let Some(mean) = std::mem::take(&mut self.samples).mean() {
            self.baseline_ns = Some(self.baseline_ns.map_or(mean, |old| old - old / 4 + mean / 4));
        }
    }

    fn judge(&mut self) {
        let (Some(mean), Some(baseline)) = (self.samples.mean(), self.baseline_ns) else {
            if self.samples.count == 0 {
                self.rest = Duration(0);
                self.width = (self.width * 2).min(self.limit);
            }
            return;
        };
        let too_slow = u128::from(mean) * 100 > u128::from(baseline) * u128::from(self.percent);
        match (too_slow, self.width) {
            (true, 1) => self.rest = Duration(self.rest.0 * 2).clamp(SLOWING_MIN, SLOWING_MAX),
            (true, width) => self.width = width / 2,
            (false, _) if self.rest > SLOWING_MIN => self.rest = Duration(self.rest.0 / 2),
            (false, _) if self.rest > Duration(0) => self.rest = Duration(0),
            (false, width) => self.width = (width + 1).min(self.limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{PgNumber, PoolId};

    const PG: PgId = PgId { pool: PoolId(1), number: PgNumber(0) };
    /// Of an operation when nothing is recovered.
    const ALONE: Duration = Duration::micros(500);

    /// An OSD whose clients' operations take `ALONE` and a share of it more for each object under recovery; an object
    /// takes a millisecond. Runs for `millis` and tells how many objects were recovered and the clients' mean latency.
    struct Osd {
        slots: RecoverySlots,
        now: Time,
        ends: Vec<Time>,
        slowed_percent: u64,
        clients: bool,
    }

    impl Osd {
        fn new(slowed_percent: u64, clients: bool) -> Self {
            Osd { slots: RecoverySlots::new(32, 200), now: Time(0), ends: Vec::new(), slowed_percent, clients }
        }

        fn run(&mut self, millis: u64, recovers: bool) -> (u64, u64) {
            let (mut objects, mut operations, mut sum) = (0, 0, 0);
            for _ in 0..millis * 4 {
                self.now = self.now + Duration::micros(250);
                let before = self.ends.len();
                self.ends.retain(|end| *end > self.now);
                (self.ends.len()..before).for_each(|_| self.slots.give_back());
                if recovers {
                    while self.slots.take(self.now, Urgency::Misplaced, PG) {
                        self.ends.push(self.now + Duration::millis(1));
                        objects += 1;
                    }
                } else {
                    while self.slots.next_waiting(self.now).is_some() {}
                }
                if self.clients {
                    let under_way = u64::try_from(self.ends.len()).expect("few");
                    let latency = Duration(ALONE.0 + ALONE.0 * under_way * self.slowed_percent / 100);
                    self.slots.client_waited(self.now, latency);
                    (operations, sum) = (operations + 1, sum + latency.0);
                }
                assert!(self.slots.taken <= 32 && self.ends.len() <= 32);
            }
            (objects, sum.checked_div(operations).unwrap_or(0))
        }
    }

    #[test]
    fn clients_see_about_the_latency_that_they_may() {
        for slowed_percent in [5, 10, 25, 50] {
            let mut osd = Osd::new(slowed_percent, true);
            osd.run(1_000, false);
            osd.run(5_000, true);
            let (objects, mean) = osd.run(20_000, true);
            let percent = mean * 100 / ALONE.0;
            assert!((130..=215).contains(&percent), "{slowed_percent}: {percent} % at {objects} objects");
        }
    }

    #[test]
    fn a_recovery_that_hurts_at_one_object_goes_on_with_rests() {
        let mut osd = Osd::new(900, true);
        osd.run(1_000, false);
        let (objects, mean) = osd.run(20_000, true);
        assert!(objects > 1_000, "{objects}");
        assert!(mean < ALONE.0 * 5, "ten times as slow without rests: {mean}");
    }

    #[test]
    fn without_clients_all_places_are_used() {
        let mut osd = Osd::new(50, false);
        osd.run(2_000, true);
        let (objects, _) = osd.run(1_000, true);
        assert!(objects >= 20_000, "32 at a time, each for about a millisecond: {objects}");
    }

    #[test]
    fn what_nobody_minds_uses_all_places_with_clients_too() {
        let mut osd = Osd::new(1, true);
        osd.run(1_000, false);
        osd.run(10_000, true);
        assert!(osd.slots.width >= 31, "{}", osd.slots.width);
    }

    #[test]
    fn a_group_that_waits_at_rest_is_woken() {
        let mut slots = RecoverySlots::new(32, 200);
        let mut now = Time(0);
        while slots.next_deadline().is_none() {
            now = now + Duration::millis(1);
            slots.client_waited(now, ALONE);
            slots.take(now, Urgency::Degraded(1), PG);
        }
        let deadline = slots.next_deadline().expect("at rest, with a group that waits");
        slots.taken = 0;
        assert_eq!(slots.next_waiting(deadline), Some(PG));
    }
}
