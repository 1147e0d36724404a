//! Sums over all objects, kept up with every change, so that nobody has to look at all of them: numbers of objects, and
//! digests of ranges of hashes for peering.
//!
//! A digest of a range is the sum of the buckets inside it, and of the objects at its two ends.

use crate::id::{CopyId, HashRange, ObjectId, PoolId, Role};
use crate::store::{Digest, StoreStats};
use std::collections::BTreeMap;

/// Binary logarithm of the buckets of a pool and role: 64 KiB of sums, and with a million objects 250 in a bucket.
const BITS: u32 = 12;

/// What an object adds to the sums.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Share {
    /// Hash of its versions; meaningless if it has none.
    pub sum: u64,
    /// What it is.
    pub kind: Kind,
    /// Whether its newest version is known to be damaged.
    pub damaged: bool,
}

/// What an object is, by its newest version.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Kind {
    /// It has no version (yet).
    #[default]
    Nothing,
    /// It has data.
    Data,
    /// It is deleted.
    Tombstone,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    objects: u64,
    tombstones: u64,
    damaged: u64,
    digests: BTreeMap<(PoolId, Role), Vec<Digest>>,
}

fn bucket(hash: u64) -> usize {
    usize::try_from(hash >> (u64::BITS - BITS)).expect("a few bits")
}

/// Hashes of a bucket.
fn hashes(bucket: usize) -> HashRange {
    let first = (bucket as u64) << (u64::BITS - BITS);
    HashRange { first, last: first | (u64::MAX >> BITS) }
}

impl Share {
    /// As a digest.
    pub fn digest(&self) -> Digest {
        if self.kind == Kind::Nothing { Digest::default() } else { Digest { count: 1, sum: self.sum } }
    }
}

impl Summary {
    /// An object has another share now.
    pub fn change(&mut self, copy: CopyId, before: Share, after: Share) {
        if before == after {
            return;
        }
        let count = |total: &mut u64, before: bool, after: bool| {
            *total = *total + u64::from(after) - u64::from(before);
        };
        count(&mut self.objects, before.kind == Kind::Data, after.kind == Kind::Data);
        count(&mut self.tombstones, before.kind == Kind::Tombstone, after.kind == Kind::Tombstone);
        count(&mut self.damaged, before.damaged, after.damaged);
        let ObjectId { pool, .. } = copy.object;
        let buckets = self.digests.entry((pool, copy.role)).or_insert_with(|| vec![Digest::default(); 1 << BITS]);
        let digest = &mut buckets[bucket(copy.object.hash())];
        digest.remove(before.digest());
        digest.add(after.digest());
    }

    /// Digest of a range; `edge` gives it for a part of a bucket.
    pub fn digest(&self, pool: PoolId, role: Role, range: HashRange, edge: impl Fn(HashRange) -> Digest) -> Digest {
        let Some(buckets) = self.digests.get(&(pool, role)) else { return Digest::default() };
        let mut digest = Digest::default();
        let inside = bucket(range.first)..=bucket(range.last);
        for (at, sum) in inside.clone().zip(&buckets[inside]) {
            let all = hashes(at);
            let part = HashRange { first: all.first.max(range.first), last: all.last.min(range.last) };
            digest.add(if part == all { *sum } else { edge(part) });
        }
        digest
    }

    /// Fills in the numbers.
    pub fn fill(&self, stats: &mut StoreStats) {
        (stats.objects, stats.tombstones, stats.damaged) = (self.objects, self.tombstones, self.damaged);
    }

    /// Panics unless it is what was counted anew.
    pub fn check(&self, anew: &Summary) {
        let numbers = |summary: &Summary| (summary.objects, summary.tombstones, summary.damaged);
        assert_eq!(numbers(self), numbers(anew), "numbers of objects");
        for (key, buckets) in &self.digests {
            let empty = || buckets.iter().all(|digest| *digest == Digest::default());
            assert!(anew.digests.get(key).map_or_else(empty, |other| other == buckets), "digests of {key:?}");
        }
        assert!(anew.digests.keys().all(|key| self.digests.contains_key(key)), "digests are missing");
    }
}
