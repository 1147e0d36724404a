//! Sums over all objects, kept up with every change, so that nobody has to look at all of them: numbers of objects, and
//! digests of ranges of hashes for peering.
//!
//! A digest of a range is the sum of the buckets inside it, and of the objects at its two ends.

use crate::id::{CopyId, HashRange, ObjectId, PoolId, Role};
use crate::store::{Digest, PoolUse, StoreStats};
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
    digests: BTreeMap<(PoolId, Role), Buckets>,
    pools: BTreeMap<PoolId, PoolUse>,
}

/// Sums of a pool and role, by the first bits of the hash.
#[derive(Clone, Debug)]
struct Buckets {
    sums: Vec<Digest>,
    /// Those that are not empty.
    filled: usize,
}

impl Default for Buckets {
    fn default() -> Self {
        Buckets { sums: vec![Digest::default(); 1 << BITS], filled: 0 }
    }
}

impl Buckets {
    fn change(&mut self, bucket: usize, before: Digest, after: Digest) {
        let sum = &mut self.sums[bucket];
        let was_empty = sum.is_empty();
        sum.remove(before);
        sum.add(after);
        self.filled = self.filled + usize::from(was_empty) - usize::from(sum.is_empty());
    }
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

fn change_count(total: &mut u64, before: bool, after: bool) {
    *total = *total + u64::from(after) - u64::from(before);
}

impl Summary {
    /// What there is of each pool, in blocks of so many bytes.
    pub fn by_pool(&self, block_size: u32) -> Vec<(PoolId, PoolUse)> {
        let with_bytes = |of: &PoolUse| PoolUse { used_bytes: of.copies * u64::from(block_size), ..*of };
        self.pools.iter().map(|(pool, of)| (*pool, with_bytes(of))).collect()
    }

    /// An object has another share now.
    pub fn change(&mut self, copy: CopyId, before: Share, after: Share) {
        if before == after {
            return;
        }
        self.number(before, after);
        let ObjectId { pool, .. } = copy.object;
        let of_pool = self.pools.entry(pool).or_default();
        change_count(&mut of_pool.copies, before.kind == Kind::Data, after.kind == Kind::Data);
        change_count(&mut of_pool.tombstones, before.kind == Kind::Tombstone, after.kind == Kind::Tombstone);
        if (of_pool.copies, of_pool.tombstones) == (0, 0) {
            self.pools.remove(&pool);
        }
        let buckets = self.digests.entry((pool, copy.role)).or_default();
        buckets.change(bucket(copy.object.hash()), before.digest(), after.digest());
    }

    fn number(&mut self, before: Share, after: Share) {
        let count = change_count;
        count(&mut self.objects, before.kind == Kind::Data, after.kind == Kind::Data);
        count(&mut self.tombstones, before.kind == Kind::Tombstone, after.kind == Kind::Tombstone);
        count(&mut self.damaged, before.damaged, after.damaged);
    }

    /// Digest of a range; `edge` gives it for a part of a bucket.
    pub fn digest(&self, pool: PoolId, role: Role, range: HashRange, edge: impl Fn(HashRange) -> Digest) -> Digest {
        let Some(buckets) = self.digests.get(&(pool, role)) else { return Digest::default() };
        let mut digest = Digest::default();
        let inside = bucket(range.first)..=bucket(range.last);
        for (at, sum) in inside.clone().zip(&buckets.sums[inside]) {
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

    /// Panics unless it is what the objects, given in the order of pools, roles and hashes, add up to.
    pub fn check(&self, objects: impl Iterator<Item = (CopyId, Share)>) {
        let mut anew = Summary::default();
        let mut filled: BTreeMap<(PoolId, Role), usize> = BTreeMap::new();
        let with_digest = objects.filter(|(_, share)| {
            anew.number(Share::default(), *share);
            share.kind != Kind::Nothing
        });
        let mut with_digest = with_digest.peekable();
        while let Some((copy, share)) = with_digest.next() {
            let place = |copy: CopyId| ((copy.object.pool, copy.role), bucket(copy.object.hash()));
            let (key, at) = place(copy);
            let mut sum = share.digest();
            while let Some((_, more)) = with_digest.next_if(|(other, _)| place(*other) == (key, at)) {
                sum.add(more.digest());
            }
            let buckets = self.digests.get(&key).unwrap_or_else(|| panic!("digests of {key:?} are missing"));
            assert_eq!(buckets.sums[at], sum, "digest of {key:?}, bucket {at}");
            *filled.entry(key).or_default() += 1;
        }
        drop(with_digest);
        let numbers = |summary: &Summary| (summary.objects, summary.tombstones, summary.damaged);
        assert_eq!(numbers(self), numbers(&anew), "numbers of objects");
        for (key, buckets) in &self.digests {
            let counted = filled.get(key).copied().unwrap_or(0);
            assert_eq!(buckets.filled, counted, "digests of {key:?}: buckets that are not empty");
        }
    }
}
