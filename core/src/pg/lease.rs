//! Read leases: what a primary holds, and what a member has granted.
//!
//! Owns the arithmetic of leases. Does not own heartbeats (the OSD node sends them for all groups together).
//! Invariant: a primary counts its lease as shorter, a member as longer than agreed, each by more than clocks drift.

use crate::id::{Epoch, OsdId};
use crate::planted::{Bug, planted};
use crate::time::{Duration, Time};
use smallvec::SmallVec;

/// Part of a lease that each side leaves as margin: 1/16 on each side covers a drift of 6 %, a hundred times that of a
/// bad quartz.
const MARGIN: u64 = 16;

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
    until: Time,
}

impl Grant {
    /// What was granted to groups of which this one takes over objects.
    pub fn inherited(until: Time) -> Self {
        Grant { epoch: Epoch(0), until }
    }

    /// Until when the last grant lasts.
    pub fn until(&self) -> Time {
        self.until
    }

    /// Grants `lease` from now on.
    pub fn extend(&mut self, now: Time, epoch: Epoch, lease: Duration) {
        let until = now + Duration(lease.0 + lease.0 / MARGIN);
        *self = Grant { epoch, until: if epoch == self.epoch { until.max(self.until) } else { until } };
    }

    /// How long leases of epochs below `epoch` may still run. What this OSD granted before its present start is
    /// unknown: a full lease from the start.
    pub fn left_below(&self, epoch: Epoch, now: Time, started: Time, lease: Duration) -> Duration {
        let unknown = started + Duration(lease.0 + lease.0 / MARGIN);
        let unknown = if planted(Bug::ForgetGrantsAtStart) { Time(0) } else { unknown };
        let known = if self.epoch < epoch { self.until } else { Time(0) };
        known.max(unknown).since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::millis(400);

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
        grant.extend(ms(1000), Epoch(5), LEASE);
        assert!(lease.is_held(ms(1374)));
        assert!(!lease.is_held(ms(1375)));
        assert!(grant.left_below(Epoch(6), ms(1400), Time(0), LEASE) > Duration::ZERO);
        assert_eq!(grant.left_below(Epoch(6), ms(1425), Time(0), LEASE), Duration::ZERO);
        assert_eq!(grant.left_below(Epoch(5), ms(1001), Time(0), LEASE), Duration::ZERO);
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
        let left = Grant::default().left_below(Epoch(1), ms(1100), ms(1000), LEASE);
        assert_eq!(left, Duration::millis(325));
    }

    #[test]
    fn without_other_members_the_lease_always_holds() {
        assert!(Lease::new(std::iter::empty()).is_held(ms(0)));
    }
}
