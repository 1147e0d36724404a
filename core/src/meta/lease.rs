//! Leases: keys that die with their holder.
//!
//! Owns the leases, their deadlines and which keys are attached. Does not own the keys: the store deletes them when it
//! ends a lease.
//! Invariants: a lease lives for at least its time to live after each renewal, by the store's own clock; an id that the
//! store chose is never given again.

use super::Refused;
use crate::time::{Duration, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Shortest time to live, in seconds; shorter wishes are raised to it, as etcd does with its default election time-out.
pub const LEASE_MIN_TTL_S: u64 = 2;
/// Longest time to live, in seconds: etcd's limit.
pub const LEASE_MAX_TTL_S: u64 = 9_000_000_000;

/// What is known of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseStatus {
    /// Seconds that were granted.
    pub granted_s: u64,
    /// Seconds left, rounded down.
    pub left_s: u64,
    /// The attached keys.
    pub keys: Vec<Arc<str>>,
}

#[derive(Clone, Debug)]
struct Lease {
    ttl: Duration,
    expires: Time,
    keys: BTreeSet<Arc<str>>,
}

/// All leases.
#[derive(Clone, Debug, Default)]
pub(super) struct Leases {
    by_id: BTreeMap<u64, Lease>,
    by_deadline: BTreeSet<(Time, u64)>,
    /// The last id that the store chose.
    last_chosen: u64,
}

impl Leases {
    pub(super) fn new(last_chosen: u64) -> Leases {
        Leases { last_chosen, ..Leases::default() }
    }

    pub(super) fn last_chosen(&self) -> u64 {
        self.last_chosen
    }

    /// A new lease, of the given id or, with 0, of one that the store chooses: its id and seconds to live.
    pub(super) fn grant(&mut self, now: Time, id: u64, ttl_s: u64) -> Result<(u64, u64), Refused> {
        if ttl_s > LEASE_MAX_TTL_S {
            return Err(Refused::LeaseTtlTooLarge);
        }
        let id = if id == 0 { self.choose() } else { id };
        if self.by_id.contains_key(&id) {
            return Err(Refused::LeaseExists);
        }
        let ttl_s = ttl_s.max(LEASE_MIN_TTL_S);
        self.insert(now, id, ttl_s);
        Ok((id, ttl_s))
    }

    fn choose(&mut self) -> u64 {
        loop {
            self.last_chosen += 1;
            if !self.by_id.contains_key(&self.last_chosen) {
                return self.last_chosen;
            }
        }
    }

    /// Adds a lease with its full time to live.
    pub(super) fn insert(&mut self, now: Time, id: u64, ttl_s: u64) {
        let ttl = Duration::secs(ttl_s);
        let expires = now + ttl;
        self.by_id.insert(id, Lease { ttl, expires, keys: BTreeSet::new() });
        self.by_deadline.insert((expires, id));
    }

    /// Gives a lease its full time again: its seconds to live, or nothing if it is gone.
    pub(super) fn renew(&mut self, now: Time, id: u64) -> Option<u64> {
        let lease = self.by_id.get_mut(&id)?;
        self.by_deadline.remove(&(lease.expires, id));
        lease.expires = now + lease.ttl;
        self.by_deadline.insert((lease.expires, id));
        Some(whole_seconds(lease.ttl))
    }

    /// Lets every lease live longer.
    pub(super) fn prolong(&mut self, by: Duration) {
        self.by_deadline.clear();
        for (id, lease) in &mut self.by_id {
            lease.expires = lease.expires + by;
            self.by_deadline.insert((lease.expires, *id));
        }
    }

    /// Ends a lease; its keys remain to be deleted.
    pub(super) fn remove(&mut self, id: u64) -> Option<BTreeSet<Arc<str>>> {
        let lease = self.by_id.remove(&id)?;
        self.by_deadline.remove(&(lease.expires, id));
        Some(lease.keys)
    }

    pub(super) fn contains(&self, id: u64) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Attaches a key to a lease; the caller has checked that it exists. 0 is no lease.
    pub(super) fn attach(&mut self, id: u64, key: &Arc<str>) {
        if let Some(lease) = self.by_id.get_mut(&id) {
            lease.keys.insert(Arc::clone(key));
        }
    }

    pub(super) fn detach(&mut self, id: u64, key: &str) {
        if let Some(lease) = self.by_id.get_mut(&id) {
            lease.keys.remove(key);
        }
    }

    pub(super) fn first_deadline(&self) -> Option<Time> {
        self.by_deadline.first().map(|(time, _)| *time)
    }

    /// A lease whose time has passed.
    pub(super) fn expired(&self, now: Time) -> Option<u64> {
        self.by_deadline.first().filter(|(time, _)| *time <= now).map(|(_, id)| *id)
    }

    pub(super) fn status(&self, now: Time, id: u64) -> Option<LeaseStatus> {
        self.by_id.get(&id).map(|lease| LeaseStatus {
            granted_s: whole_seconds(lease.ttl),
            left_s: whole_seconds(lease.expires.since(now)),
            keys: lease.keys.iter().cloned().collect(),
        })
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = u64> + '_ {
        self.by_id.keys().copied()
    }

    /// Panics unless the deadlines are those of the leases.
    pub(super) fn check(&self) {
        assert_eq!(self.by_id.len(), self.by_deadline.len(), "a lease without a deadline, or with two");
        for (id, lease) in &self.by_id {
            assert!(self.by_deadline.contains(&(lease.expires, *id)), "lease {id} has another deadline");
        }
    }

    pub(super) fn holds(&self, id: u64, key: &str) -> bool {
        self.by_id.get(&id).is_some_and(|lease| lease.keys.contains(key))
    }

    pub(super) fn attached(&self) -> usize {
        self.by_id.values().map(|lease| lease.keys.len()).sum()
    }
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_millis() / 1_000
}
