//! The objects of the store, and their order by hash.
//!
//! Owns the records of objects in stable places, and an index ordered by `(pool, role, hash, copy)`, so that any range
//! of hashes is listed in one pass. Does not know the log.

use super::object::{Versions, units_of};
use super::summary::Share;
use crate::id::{CopyId, HashRange, PoolId, Role};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Place of an object.
pub type ObjectIndex = u32;
/// No segment, no activity.
pub const NONE: u32 = u32::MAX;
/// A snapshot's header, object, and the fixed part of both versions, each with two requests.
const SNAPSHOT_FIXED_BYTES: u64 = 32 + 2 * (48 + 2 * 24);
/// An overlay in a snapshot: a unit, its number and its checksum, padded.
pub const OVERLAY_BYTES: u64 = 4096 + 16;

/// An object.
#[derive(Clone, Debug)]
pub struct Object {
    /// Which one.
    pub copy: CopyId,
    /// Its versions.
    pub versions: Versions,
    /// Segment of the oldest record that replay needs for it; [`NONE`] while it has none in the log.
    pub base: u32,
    /// Bytes that a snapshot of it may take, as last counted.
    pub snapshot_bytes: u64,
    /// Overlays of its prepared version, as last counted.
    pub prepared_overlays: u64,
    /// What it adds to the sums over all objects.
    pub share: Share,
    /// Its record of things under way; [`NONE`] if it rests.
    pub active: u32,
    /// Whether it waits in the queue of objects with overlays.
    pub queued: bool,
}

type Key = (PoolId, Role, u64, CopyId);

fn key(copy: CopyId) -> Key {
    (copy.object.pool, copy.role, copy.object.hash(), copy)
}

/// All objects.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    places: Vec<Option<Object>>,
    free: Vec<ObjectIndex>,
    index: BTreeMap<Key, ObjectIndex>,
}

impl Objects {
    /// The place of a copy.
    pub fn find(&self, copy: CopyId) -> Option<ObjectIndex> {
        self.index.get(&key(copy)).copied()
    }

    /// The place of a copy, which is made if there is none.
    pub fn find_or_insert(&mut self, copy: CopyId) -> ObjectIndex {
        let Objects { places, free, index } = self;
        *index.entry(key(copy)).or_insert_with(|| {
            let object = Object {
                copy,
                versions: Versions::default(),
                base: NONE,
                snapshot_bytes: 0,
                prepared_overlays: 0,
                share: Share::default(),
                active: NONE,
                queued: false,
            };
            match free.pop() {
                Some(place) => {
                    places[place as usize] = Some(object);
                    place
                }
                None => {
                    places.push(Some(object));
                    u32::try_from(places.len() - 1).expect("fewer objects than blocks and tombstones in the log")
                }
            }
        })
    }

    /// Forgets an object.
    pub fn remove(&mut self, place: ObjectIndex) {
        let object = self.places[place as usize].take().expect("removed once");
        self.index.remove(&key(object.copy));
        self.free.push(place);
    }

    /// The object at a place, if there is one.
    pub fn get(&self, place: ObjectIndex) -> Option<&Object> {
        self.places.get(place as usize)?.as_ref()
    }

    /// The object at a place that is known to be taken.
    pub fn at(&self, place: ObjectIndex) -> &Object {
        self.get(place).unwrap_or_else(|| panic!("no object at place {place}"))
    }

    /// The object at a place that is known to be taken.
    pub fn at_mut(&mut self, place: ObjectIndex) -> &mut Object {
        let object = self.places.get_mut(place as usize).and_then(Option::as_mut);
        object.unwrap_or_else(|| panic!("no object at place {place}"))
    }

    /// The object at a place, if there is one.
    pub fn get_mut(&mut self, place: ObjectIndex) -> Option<&mut Object> {
        self.places.get_mut(place as usize)?.as_mut()
    }

    /// All objects, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = (ObjectIndex, &Object)> {
        (0..).zip(&self.places).filter_map(|(place, object)| Some((place, object.as_ref()?)))
    }

    /// All objects, in the order of pools, roles and hashes.
    pub fn in_order(&self) -> impl Iterator<Item = &Object> {
        self.index.values().map(|place| self.at(*place))
    }

    /// Places of the copies of a pool and role in a range of hashes, behind `after`.
    pub fn range(
        &self,
        pool: PoolId,
        role: Role,
        range: HashRange,
        after: Option<CopyId>,
    ) -> impl Iterator<Item = (CopyId, ObjectIndex)> + '_ {
        let first = Bound::Included((pool, role, range.first, CopyId::default()));
        let from = after.map_or(first, |copy| Bound::Excluded(key(copy)).max_by_key(first));
        let inside = move |key: &Key| (key.0, key.1) == (pool, role) && key.2 <= range.last;
        self.index
            .range((from, Bound::Unbounded))
            .take_while(move |(key, _)| inside(key))
            .map(|(key, place)| (key.3, *place))
    }

    /// Roles in which there are copies of a pool in a range.
    pub fn roles(&self, pool: PoolId, range: HashRange) -> Vec<Role> {
        let taken = |role: &Role| self.range(pool, *role, range, None).next().is_some();
        (0..=u8::MAX).map(Role).filter(taken).collect()
    }
}

trait MaxByKey {
    fn max_by_key(self, other: Self) -> Self;
}

impl MaxByKey for Bound<Key> {
    /// The later of two lower bounds.
    fn max_by_key(self, other: Self) -> Self {
        match (&self, &other) {
            (Bound::Excluded(a), Bound::Included(b)) if a < b => other,
            _ => self,
        }
    }
}

impl Object {
    /// Upper bound of what its snapshot will take in the log. Overlays of the committed version are compacted first.
    pub fn snapshot_bound(&self, block_size: u32) -> u64 {
        if self.versions.is_empty() {
            return 0;
        }
        let units = units_of(block_size) as u64;
        let data = units * 4 + units.div_ceil(8) * 8;
        let prepared = if self.versions.prepared.is_some() { data } else { 0 };
        SNAPSHOT_FIXED_BYTES + data + prepared + self.versions.prepared_overlays() * OVERLAY_BYTES
    }
}
