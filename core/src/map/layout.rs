//! How the hashes of a pool's objects are cut into groups, and how that changes with `pg_count`.
//!
//! Owns the arithmetic of ranges and numbers. Does not own when the cut changes (the leading monitor), nor what follows
//! from it (each group's first peering).
//!
//! Invariants: groups of one generation cover all hashes, none twice; groups of different generations have different
//! numbers, so that nothing said of one is ever taken for the other.

use crate::id::{HashRange, ObjectId, PgId, PgNumber};
use serde::{Deserialize, Serialize};

/// One way to cut the hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Counts the changes of the number of groups.
    pub generation: u16,
    /// Number of groups, at least 1.
    pub pg_count: u32,
}

/// `pg/map/<pool>/layout`: which cut is in force; written only by the leading monitor. Below the prefix of the maps, so
/// that whoever follows those hears of a cut before the maps of its groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolLayout {
    /// The one in force.
    #[serde(flatten)]
    pub now: Layout,
    /// The one before, until all groups of the present one have recorded an interval: until then, a group's history may
    /// be that of the groups before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Layout>,
}

impl Layout {
    /// Its groups.
    pub fn numbers(self) -> impl Iterator<Item = PgNumber> {
        (0..self.pg_count).map(move |place| PgNumber::new(self.generation, place))
    }

    /// Whether a group is one of its own.
    pub fn contains(self, number: PgNumber) -> bool {
        number.generation() == self.generation && number.place() < self.pg_count
    }

    /// The group of an object.
    pub fn pg(self, object: ObjectId) -> PgId {
        PgId { pool: object.pool, number: self.at(object.hash()) }
    }

    /// The hashes of a group, which must be one of its own.
    pub fn range(self, number: PgNumber) -> HashRange {
        assert!(self.contains(number), "{number:?} is not a group of {self:?}");
        HashRange::of_pg(number.place(), self.pg_count)
    }

    /// The groups whose hashes overlap a range, in order, each with the overlap.
    pub fn overlapping(self, range: HashRange) -> impl Iterator<Item = (PgNumber, HashRange)> {
        let (first, last) = (self.at(range.first).place(), self.at(range.last).place());
        (first..=last).map(move |place| {
            let number = PgNumber::new(self.generation, place);
            let own = self.range(number);
            (number, HashRange { first: own.first.max(range.first), last: own.last.min(range.last) })
        })
    }

    fn at(self, hash: u64) -> PgNumber {
        let place = (u128::from(hash) * u128::from(self.pg_count)) >> 64;
        PgNumber::new(self.generation, u32::try_from(place).expect("below pg_count"))
    }
}

impl PoolLayout {
    /// The first one of a pool.
    pub fn first(pg_count: u32) -> Self {
        PoolLayout { now: Layout { generation: 0, pg_count }, before: None }
    }

    /// The next one, if numbers are left.
    pub fn next(self, pg_count: u32) -> Option<Self> {
        let now = Layout { generation: self.now.generation.checked_add(1)?, pg_count };
        Some(PoolLayout { now, before: Some(self.now) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{InodeId, PoolId};

    fn layout(generation: u16, pg_count: u32) -> Layout {
        Layout { generation, pg_count }
    }

    #[test]
    fn an_object_is_in_the_range_of_its_group_in_every_cut() {
        for stripe in 0..500 {
            let object = ObjectId { pool: PoolId(3), inode: InodeId(9), stripe };
            for pg_count in [1, 5, 32, 333, 65_536] {
                let layout = layout(7, pg_count);
                let pg = layout.pg(object);
                assert!(layout.contains(pg.number) && layout.range(pg.number).contains(object.hash()));
                assert_eq!(pg.number.place(), object.pg(pg_count).number.0);
            }
        }
    }

    #[test]
    fn overlaps_cover_a_range_without_gaps() {
        for (old, new) in [(8, 32), (32, 8), (5, 7), (7, 5), (1, 3), (64, 64)] {
            let (old, new) = (layout(1, old), layout(2, new));
            for number in new.numbers() {
                let range = new.range(number);
                let parts: Vec<_> = old.overlapping(range).collect();
                assert_eq!((parts[0].1.first, parts[parts.len() - 1].1.last), (range.first, range.last));
                assert!(parts.windows(2).all(|two| two[0].1.last + 1 == two[1].1.first));
                assert!(parts.iter().all(|(number, _)| old.contains(*number)));
                assert!(parts.len() <= (old.pg_count / new.pg_count + 2) as usize);
            }
        }
        let (old, new) = (layout(0, 8), layout(1, 32));
        assert!(
            new.numbers().all(|number| old.overlapping(new.range(number)).count() == 1),
            "a split has one ancestor"
        );
    }

    #[test]
    fn a_layout_is_readable_and_each_change_has_its_own_numbers() {
        let next = PoolLayout::first(8).next(32).expect("numbers are left");
        let text = r#"{"generation":1,"pg_count":32,"before":{"generation":0,"pg_count":8}}"#;
        assert_eq!(serde_json::to_string(&next).expect("plain data"), text);
        assert_eq!(serde_json::from_str::<PoolLayout>(text).expect("its own form"), next);
        assert_eq!(next.now.numbers().next(), Some(PgNumber(65_536)));
        assert!(!next.now.contains(PgNumber(0)) && !next.now.contains(PgNumber(65_536 + 32)));
        let last = PoolLayout { now: layout(u16::MAX, 1), before: None };
        assert_eq!(last.next(2), None);
    }
}
