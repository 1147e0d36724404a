//! The order of objects: by pool, role, hash, copy.
//!
//! Each pool and role has a table of buckets, by the first bits of the hash; an entry is the next bits and the place of the
//! object, eight bytes, so that a lookup costs one walk in a bucket and one look at the object. Entries with equal bits are
//! in the order of the whole hash and the copy, for which the owner is asked. Owns the order alone, not the objects.

use super::index::ObjectIndex;
use crate::id::{CopyId, HashRange, PoolId, Role};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Range;

/// Binary logarithm of the buckets of a pool and role: with a million objects 250 in each.
const BUCKET_BITS: u32 = 12;
/// Buckets are made so many at a time: a small pool takes little memory.
const GROUP: usize = 64;
/// A full bucket grows by one part in so many: a doubling would leave a third of all memory unused.
const GROWTH: usize = 8;
/// And by so many at least.
const GROWTH_LEAST: usize = 4;
/// An entry is looked for so near to where its bits say that it is: of 250, nineteen in twenty are not farther away.
const NEAR: usize = 16;

/// Hash bits behind the bucket's, and a place.
type Entry = (u32, ObjectIndex);

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    tables: BTreeMap<(PoolId, Role), Table>,
}

/// Where in its bucket a copy belongs that is not there.
pub struct Gap(usize);

/// The buckets of a pool and role.
#[derive(Clone, Debug)]
struct Table {
    groups: Vec<Option<Box<[Vec<Entry>]>>>,
}

impl Default for Table {
    fn default() -> Self {
        Table { groups: vec![None; (1 << BUCKET_BITS) / GROUP] }
    }
}

impl Table {
    fn bucket(&self, number: usize) -> &[Entry] {
        self.groups[number / GROUP].as_ref().map_or(&[][..], |group| &group[number % GROUP])
    }

    fn bucket_mut(&mut self, number: usize) -> &mut Vec<Entry> {
        let group = self.groups[number / GROUP].get_or_insert_with(|| vec![Vec::new(); GROUP].into());
        &mut group[number % GROUP]
    }
}

fn bucket(hash: u64) -> usize {
    usize::try_from(hash >> (u64::BITS - BUCKET_BITS)).expect("a few bits")
}

fn tag(hash: u64) -> u32 {
    let bits = (hash << BUCKET_BITS) >> u32::BITS;
    u32::try_from(bits).expect("shifted to 32 bits")
}

fn table_of(copy: CopyId) -> (PoolId, Role) {
    (copy.object.pool, copy.role)
}

/// Order within a pool and role.
fn order(a: CopyId, b: CopyId) -> Ordering {
    (a.object.hash(), a).cmp(&(b.object.hash(), b))
}

impl Directory {
    /// The bucket of a copy, and the bits that its entry has there.
    fn bucket_of(&self, copy: CopyId) -> (&[Entry], u32) {
        let hash = copy.object.hash();
        let entries = self.tables.get(&table_of(copy)).map_or(&[][..], |table| table.bucket(bucket(hash)));
        (entries, tag(hash))
    }

    /// The place of a copy; `copy_at` says which copy is at a place. If it is not there: the gap where it belongs.
    pub fn find(&self, copy: CopyId, copy_at: impl Fn(ObjectIndex) -> CopyId) -> Result<ObjectIndex, Gap> {
        let (entries, tag) = self.bucket_of(copy);
        let alike = alike(entries, tag);
        let mut gap = alike.start;
        for (_, place) in &entries[alike] {
            match order(copy_at(*place), copy) {
                Ordering::Less => gap += 1,
                Ordering::Equal => return Ok(*place),
                Ordering::Greater => break,
            }
        }
        Err(Gap(gap))
    }

    /// Of each copy whose bits have an entry, the first such place: nearly always its own. Memory is looked at for all of them
    /// before any of it is waited for; found one by one, each would wait for its own.
    pub fn near<'a>(&'a self, copies: &'a [CopyId]) -> impl Iterator<Item = ObjectIndex> + 'a {
        let buckets: Vec<(&[Entry], u32)> = copies.iter().map(|copy| self.bucket_of(*copy)).collect();
        let ends = buckets.iter().map(|(entries, tag)| {
            let near = place_of(entries.len(), *tag);
            let end = entries.get((near + NEAR).min(entries.len().wrapping_sub(1)));
            end.map_or(0, |(bits, _)| *bits) ^ entries.get(near.saturating_sub(NEAR)).map_or(0, |(bits, _)| *bits)
        });
        std::hint::black_box(ends.fold(0, |sum, bits| sum ^ bits));
        buckets.into_iter().flat_map(|(entries, tag)| entries[alike(entries, tag)].first()).map(|(_, place)| *place)
    }

    /// Adds a copy that is not there, in the gap that was found for it a moment ago.
    pub fn insert(&mut self, copy: CopyId, place: ObjectIndex, Gap(at): Gap) {
        let hash = copy.object.hash();
        let entries = self.tables.entry(table_of(copy)).or_default().bucket_mut(bucket(hash));
        if entries.len() == entries.capacity() {
            entries.reserve_exact((entries.len() / GROWTH).max(GROWTH_LEAST));
        }
        entries.insert(at, (tag(hash), place));
    }

    /// Takes a copy out.
    pub fn remove(&mut self, copy: CopyId, place: ObjectIndex) {
        let hash = copy.object.hash();
        let table = self.tables.get_mut(&table_of(copy)).expect("it was inserted");
        let entries = table.bucket_mut(bucket(hash));
        let at = entries.iter().position(|entry| *entry == (tag(hash), place));
        entries.remove(at.unwrap_or_else(|| panic!("{copy:?} is not in its bucket")));
    }

    /// Places of all copies, in order.
    pub fn places(&self) -> impl Iterator<Item = ObjectIndex> + '_ {
        let groups = self.tables.values().flat_map(|table| table.groups.iter().flatten());
        groups.flat_map(|group| group.iter().flatten()).map(|(_, place)| *place)
    }

    /// Copies and places of a pool and role in a range of hashes, behind `after`, in order.
    pub fn range<'a>(
        &'a self,
        pool: PoolId,
        role: Role,
        range: HashRange,
        after: Option<CopyId>,
        copy_at: impl Fn(ObjectIndex) -> CopyId + 'a,
    ) -> impl Iterator<Item = (CopyId, ObjectIndex)> + 'a {
        let from = after.map_or(range.first, |after| after.object.hash().max(range.first));
        let buckets = bucket(from)..=bucket(range.last);
        let entries = self.tables.get(&(pool, role)).into_iter().flat_map(move |table| {
            buckets.clone().flat_map(move |number| {
                let entries = table.bucket(number);
                // Only in the first bucket some come before the range.
                let skips = number == bucket(from);
                let first = if skips { seek(entries, tag(from)) } else { 0 };
                &entries[first..]
            })
        });
        let copies = entries.map(move |(_, place)| (copy_at(*place), *place));
        let behind = move |copy: CopyId| after.is_none_or(|after| order(copy, after).is_gt());
        copies
            .skip_while(move |(copy, _)| copy.object.hash() < from || !behind(*copy))
            .take_while(move |(copy, _)| copy.object.hash() <= range.last)
    }

    /// Roles of which a pool has, or had, copies.
    pub fn roles(&self, pool: PoolId) -> impl Iterator<Item = Role> + '_ {
        self.tables.range((pool, Role(0))..=(pool, Role(u8::MAX))).map(|((_, role), _)| *role)
    }
}

/// Where, of so many entries, the one with these bits would be if they were spread wholly evenly.
fn place_of(len: usize, tag: u32) -> usize {
    usize::try_from((u64::from(tag) * len as u64) >> u32::BITS).expect("below their number")
}

/// The first entry whose bits are not below these. Bits are spread evenly, so it is near the place that they say: a look at
/// a few lines of memory, where halving the bucket would take one for each step.
fn seek(entries: &[Entry], tag: u32) -> usize {
    let len = entries.len();
    let near = place_of(len, tag);
    let (first, end) = (near.saturating_sub(NEAR), (near + NEAR).min(len));
    let range = match () {
        () if first > 0 && entries[first - 1].0 >= tag => 0..first,
        () if end < len && entries[end].0 < tag => end..len,
        () => first..end,
    };
    range.start + entries[range].partition_point(|(bits, _)| *bits < tag)
}

/// The entries with these bits.
fn alike(entries: &[Entry], tag: u32) -> Range<usize> {
    let first = seek(entries, tag);
    let count = entries[first..].iter().take_while(|(bits, _)| *bits == tag).count();
    first..first + count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{InodeId, ObjectId};
    use crate::rng::Rng;
    use std::collections::BTreeSet;

    fn key(copy: CopyId) -> (PoolId, Role, u64, CopyId) {
        (copy.object.pool, copy.role, copy.object.hash(), copy)
    }

    fn random(rng: &mut Rng) -> CopyId {
        let number = |below: u64, rng: &mut Rng| rng.below(below);
        let pool = PoolId(u32::try_from(number(2, rng)).unwrap());
        let role = Role(u8::try_from(number(3, rng)).unwrap());
        CopyId { object: ObjectId { pool, inode: InodeId(number(3, rng)), stripe: number(3000, rng) }, role }
    }

    #[test]
    fn an_entry_is_found_where_halving_finds_it() {
        let mut rng = Rng::new(9);
        for len in [0, 1, 2, 15, 16, 17, 40, 250, 1000] {
            // Spread evenly, in a part of what there is, and many alike.
            for (from, spread) in [(0, u64::from(u32::MAX)), (7 << 28, 1 << 20), (0, 1 << 20), (99, 3)] {
                let mut entries: Vec<Entry> =
                    (0..len).map(|place| (u32::try_from(from + rng.below(spread)).unwrap(), place)).collect();
                entries.sort_unstable();
                let known = entries.iter().map(|(bits, _)| *bits);
                let others = (0..200).map(|_| u32::try_from(from + rng.below(spread)).unwrap());
                for tag in known.chain(others).chain([0, u32::MAX]) {
                    assert_eq!(seek(&entries, tag), entries.partition_point(|(bits, _)| *bits < tag));
                }
            }
        }
    }

    #[test]
    fn it_is_what_a_sorted_set_is() {
        let mut rng = Rng::new(4);
        let (mut directory, mut set) = (Directory::default(), BTreeSet::new());
        let mut copies: Vec<CopyId> = Vec::new();
        for _ in 0..20_000 {
            let copy = random(&mut rng);
            let found = directory.find(copy, |place| copies[place as usize]);
            assert_eq!(found.is_ok(), set.contains(&key(copy)));
            match found {
                Ok(place) if rng.chance(1, 2) => {
                    directory.remove(copy, place);
                    set.remove(&key(copy));
                }
                Ok(_) => {}
                Err(gap) => {
                    copies.push(copy);
                    let place = u32::try_from(copies.len() - 1).unwrap();
                    directory.insert(copy, place, gap);
                    set.insert(key(copy));
                }
            }
        }
        let all: Vec<CopyId> = directory.places().map(|place| copies[place as usize]).collect();
        assert_eq!(all, set.iter().map(|key| key.3).collect::<Vec<_>>());
        let near: Vec<u32> = directory.near(&all).map(|place| tag(copies[place as usize].object.hash())).collect();
        assert_eq!(near, all.iter().map(|copy| tag(copy.object.hash())).collect::<Vec<_>>());
        for _ in 0..500 {
            let (a, b, of) = (rng.next_u64(), rng.next_u64(), random(&mut rng));
            let range = if rng.chance(1, 4) { HashRange::ALL } else { HashRange { first: a.min(b), last: a.max(b) } };
            let after = rng.chance(1, 2).then(|| CopyId { object: random(&mut rng).object, role: of.role });
            let after = after.filter(|after| after.object.pool == of.object.pool);
            let copy_at = |place: ObjectIndex| copies[place as usize];
            let ours = directory.range(of.object.pool, of.role, range, after, copy_at).map(|(copy, _)| copy);
            let inside = |key: &&(PoolId, Role, u64, CopyId)| {
                (key.0, key.1) == (of.object.pool, of.role)
                    && range.contains(key.2)
                    && after.is_none_or(|after| **key > super::tests::key(after))
            };
            assert_eq!(ours.collect::<Vec<_>>(), set.iter().filter(inside).map(|key| key.3).collect::<Vec<_>>());
        }
    }
}
