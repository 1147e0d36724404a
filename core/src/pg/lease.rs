//! Read leases: what a primary holds, and what a member has granted.
//!
//! Owns the arithmetic of leases. Does not own heartbeats (the OSD node sends them for all groups together).
//! Invariant: a primary counts its lease as shorter, a member as longer than agreed, each by more than clocks drift.

use crate::id::{Attempt, Epoch, Incarnation, OsdId};
use crate::planted::{Bug, planted};
use crate::time::{Duration, Time};
use smallvec::SmallVec;

/// Part of a lease that each side leaves as margin: 1/16 on each side covers a drift of 6 %, a hundred times that of a
/// bad quartz.
const MARGIN: u64 = 16;

/// How long a member counts a lease of this length, at most.
pub fn longest(lease: Duration) -> Duration {
    Duration(lease.0 + lease.0 / MARGIN)
}

/// A primary's lease: until when each other acting member's grant lasts.
#[derive(Clone, Debug, Default)]
pub struct Lease {
    ends: SmallVec<[(OsdId, Time); 4]>,
}

impl Lease {
    /// No lease yet, of these other acting members.
    pub fn new(others: impl Iterator<Item = OsdId>) -> Self {
        Lease { ends: others.map(|osd| (osd, Time(0))).collect() }
    }

    /// A member granted the lease of this length that was asked for at `sent`.
    pub fn granted(&mut self, from: OsdId, sent: Time, lease: Duration) {
        let usable = Duration(lease.0 - lease.0 / MARGIN);
        for (_, end) in self.ends.iter_mut().filter(|(osd, _)| *osd == from) {
            *end = (*end).max(sent + usable);
        }
    }

    /// Whether every other acting member's grant lasts still.
    pub fn is_held(&self, now: Time) -> bool {
        self.ends.iter().all(|(_, end)| now < *end)
    }
}

/// What a member granted last. One grant is enough to remember: a primary asks for leases only once those of all older
/// epochs have run out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Grant {
    epoch: Epoch,
    /// The start of the primary that got it.
    to: Option<Incarnation>,
    until: Time,
}

impl Grant {
    /// What was granted to groups of which this one takes over objects.
    pub fn inherited(until: Time) -> Self {
        Grant { epoch: Epoch(0), to: None, until }
    }

    /// Until when the last grant lasts.
    pub fn until(&self) -> Time {
        self.until
    }

    /// Grants `lease` from now on.
    pub fn extend(&mut self, now: Time, attempt: Attempt, lease: Duration) {
        let (epoch, until) = (attempt.epoch, now + longest(lease));
        let until = if epoch == self.epoch { until.max(self.until) } else { until };
        *self = Grant { epoch, to: Some(attempt.incarnation), until };
    }

    /// How long leases of epochs below `epoch` may still run, and who got the last one (a default start: it is not
    /// known). What this OSD granted before its present start is unknown: a full lease from the start.
    pub fn left_below(&self, epoch: Epoch, now: Time, started: Time, lease: Duration) -> (Duration, Incarnation) {
        let unknown = started + longest(lease);
        let unknown = if planted(Bug::ForgetGrantsAtStart) { Time(0) } else { unknown };
        let known = if self.epoch < epoch { self.until } else { Time(0) };
        let to = self.to.filter(|_| unknown <= now).unwrap_or_default();
        (known.max(unknown).since(now), to)
    }
}

/// Leases of older epochs, as the members of an attempt state them.
///
/// One whose holder has joined the attempt itself is over: it reads nothing under an older one any more (see the fences).
#[derive(Clone, Debug, Default)]
pub struct OldLeases {
    ends: SmallVec<[(Incarnation, Time); 4]>,
    joined: SmallVec<[Incarnation; 8]>,
}

impl OldLeases {
    /// A member granted one to this start of a primary, until then.
    pub fn told(&mut self, to: Incarnation, until: Time) {
        match self.ends.iter_mut().find(|(other, _)| *other == to) {
            Some((_, end)) => *end = (*end).max(until),
            None => self.ends.push((to, until)),
        }
    }

    /// This start of an OSD joined.
    pub fn joined(&mut self, incarnation: Incarnation) {
        if incarnation != Incarnation::default() && !self.joined.contains(&incarnation) {
            self.joined.push(incarnation);
        }
    }

    /// When the last one that counts is over.
    pub fn end(&self) -> Time {
        let counts = |(to, _): &&(Incarnation, Time)| !self.joined.contains(to);
        self.ends.iter().filter(counts).map(|(_, end)| *end).max().unwrap_or(Time(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::millis(400);

    fn attempt(epoch: u64, incarnation: u64) -> Attempt {
        Attempt { epoch: Epoch(epoch), incarnation: Incarnation(incarnation), counter: 1 }
    }

    fn ms(n: u64) -> Time {
        Time(0) + Duration::millis(n)
    }

    #[test]
    fn a_lease_needs_every_member_and_ends_before_the_grants() {
        let mut lease = Lease::new([OsdId(2), OsdId(3)].into_iter());
        let mut grant = Grant::default();
        lease.granted(OsdId(2), ms(1000), LEASE);
        assert!(!lease.is_held(ms(1000)));
        lease.granted(OsdId(3), ms(1000), LEASE);
        grant.extend(ms(1000), attempt(5, 1), LEASE);
        assert!(lease.is_held(ms(1374)));
        assert!(!lease.is_held(ms(1375)));
        let left = |epoch, now| grant.left_below(Epoch(epoch), ms(now), Time(0), LEASE).0;
        assert!(left(6, 1400) > Duration::ZERO);
        assert_eq!((left(6, 1425), left(5, 1001)), (Duration::ZERO, Duration::ZERO));
    }

    #[test]
    fn a_lease_is_over_when_its_holder_has_joined_itself_but_not_one_of_its_earlier_start() {
        let mut grant = Grant::default();
        grant.extend(ms(1000), attempt(5, 1), LEASE);
        let (left, to) = grant.left_below(Epoch(6), ms(1001), Time(0), LEASE);
        assert_eq!(to, Incarnation(1));
        let mut leases = OldLeases::default();
        leases.told(to, ms(1001) + left);
        leases.joined(Incarnation(2));
        leases.joined(Incarnation::default());
        assert_eq!(leases.end(), ms(1425));
        leases.joined(Incarnation(1));
        assert_eq!(leases.end(), Time(0));
        // What a member that has just started may have granted is nobody's.
        let (left, to) = grant.left_below(Epoch(6), ms(1001), ms(900), LEASE);
        leases.told(to, ms(1001) + left);
        assert_eq!((to, leases.end()), (Incarnation::default(), ms(1425)));
    }

    #[test]
    fn short_leases_end_the_wait_once_the_long_ones_are_over() {
        let mut grant = Grant::default();
        grant.extend(ms(1000), attempt(5, 1), LEASE);
        grant.extend(ms(1010), attempt(5, 1), Duration::millis(40));
        assert!(grant.left_below(Epoch(6), ms(1011), Time(0), LEASE).0 > Duration::millis(400));
        grant.extend(ms(1430), attempt(5, 1), Duration::millis(40));
        assert!(grant.left_below(Epoch(6), ms(1431), Time(0), LEASE).0 < Duration::millis(45));
    }

    #[test]
    fn an_old_grant_does_not_shorten_a_lease() {
        let mut lease = Lease::new([OsdId(2)].into_iter());
        lease.granted(OsdId(2), ms(1000), LEASE);
        lease.granted(OsdId(2), ms(900), LEASE);
        assert!(lease.is_held(ms(1300)));
    }

    #[test]
    fn after_a_start_a_full_lease_is_counted() {
        let left = Grant::default().left_below(Epoch(1), ms(1100), ms(1000), LEASE).0;
        assert_eq!(left, Duration::millis(325));
    }

    #[test]
    fn without_other_members_the_lease_always_holds() {
        assert!(Lease::new(std::iter::empty()).is_held(ms(0)));
    }
}
