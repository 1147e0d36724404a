//! Requests by placement group: who waits, who is unanswered, and when the group may be asked.
//!
//! ```text
//!            refusal that asks for a pause             time is up
//!   Open ───────────────────────────────────▶ Paused ────────────▶ Probing
//!    ▲ ▲                                      │  ▲ ▲                │   │
//!    │ └───── the group's map changed ────────┘  │ └────────────────┘   │
//!    └───────────────────────────────────────────┼── one was answered ──┘
//!                                        (one request at a time)
//! ```

use super::backoff::Backoff;
use super::numbers::Unanswered;
use super::part::Part;
use crate::id::{Epoch, PgId};
use crate::rng::Rng;
use crate::slab::Key;
use crate::time::{Duration, Time};
use std::collections::{BTreeMap, VecDeque};

/// A primary that is about to be ready is asked again soon; one that stays inactive, twice a second per group.
const PAUSE: Backoff = Backoff { base: Duration::millis(4), cap: Duration::millis(500) };

/// Whether requests may go to the group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Gate {
    /// All.
    Open,
    /// None, until then.
    Paused(Time),
    /// One, to see whether the group serves again.
    Probing,
}

/// One group.
#[derive(Clone, Debug)]
pub(super) struct Group {
    gate: Gate,
    /// Pauses since the last success.
    pauses: u32,
    /// Epoch of the map by which the gate was last opened.
    epoch: Epoch,
    /// Requests that no primary has.
    pub waiting: VecDeque<Key<Part>>,
    /// Numbers of the writes to the group that have no answer yet.
    pub unanswered: Unanswered<()>,
}

impl Default for Group {
    fn default() -> Self {
        Group {
            gate: Gate::Open,
            pauses: 0,
            epoch: Epoch(0),
            waiting: VecDeque::new(),
            unanswered: Unanswered::default(),
        }
    }
}

impl Group {
    /// Whether requests may go to the group.
    pub fn gate(&self) -> Gate {
        self.gate
    }

    /// The group asked for a pause. Gives its end, unless one goes on already.
    pub fn pause(&mut self, rng: &mut Rng, now: Time) -> Option<Time> {
        if matches!(self.gate, Gate::Paused(_)) {
            return None;
        }
        let until = now + PAUSE.pause(rng, self.pauses);
        self.pauses = self.pauses.saturating_add(1);
        self.gate = Gate::Paused(until);
        Some(until)
    }

    /// Time passed. True: one request may go.
    pub fn resume(&mut self, now: Time) -> bool {
        match self.gate {
            Gate::Paused(until) if until <= now => {
                self.gate = if self.waiting.is_empty() { Gate::Open } else { Gate::Probing };
                true
            }
            Gate::Open | Gate::Paused(_) | Gate::Probing => false,
        }
    }

    /// The group answered a request.
    pub fn answered(&mut self) {
        self.pauses = 0;
        if self.gate == Gate::Probing {
            self.gate = Gate::Open;
        }
    }

    /// The map has this epoch of the group: if it is new, who waits may go. True if so.
    pub fn on_map(&mut self, epoch: Epoch) -> bool {
        let new = epoch != self.epoch;
        if new {
            *self = Group { gate: Gate::Open, pauses: 0, epoch, ..std::mem::take(self) };
        }
        new
    }

    /// A connection was lost, and maybe the request that probed the group with it: the next connection probes.
    pub fn probe_lost(&mut self) {
        if self.gate == Gate::Probing {
            self.gate = Gate::Open;
        }
    }

    /// The highest number up to which all writes to the group are answered; `last` is the last number given.
    pub fn seen(&self, last: u64) -> u64 {
        self.unanswered.lowest().map_or(last, |lowest| lowest - 1)
    }
}

/// All groups that were ever used.
pub(super) type Groups = BTreeMap<PgId, Group>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_ends_in_one_probe_and_grows() {
        let (mut group, mut rng) = (Group::default(), Rng::new(3));
        group.waiting.push_back(Key::from_u64(1));
        let mut now = Time(0);
        let mut last = Duration::ZERO;
        for round in 0..12 {
            let until = group.pause(&mut rng, now).expect("not paused yet");
            assert_eq!(group.pause(&mut rng, now), None);
            assert!(!group.resume(Time(until.0 - 1)));
            assert!(group.resume(until));
            assert_eq!(group.gate(), Gate::Probing);
            assert!(round == 0 || until.since(now).0 * 4 > last.0);
            last = until.since(now);
            now = until;
        }
        assert!(last <= PAUSE.cap && last.0 * 2 >= PAUSE.cap.0);
        group.answered();
        assert_eq!(group.gate(), Gate::Open);
        assert!(group.pause(&mut rng, now).expect("open").since(now) <= PAUSE.base);
    }

    #[test]
    fn seen_is_below_the_lowest_unanswered() {
        let mut group = Group::default();
        assert_eq!(group.seen(9), 9);
        group.unanswered.push(5, ());
        group.unanswered.push(7, ());
        assert_eq!(group.seen(9), 4);
        group.unanswered.remove(5);
        assert_eq!(group.seen(9), 6);
    }
}
