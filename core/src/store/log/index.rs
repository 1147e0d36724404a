//! The objects of the store, each in a stable place, and their order by hash.
//!
//! ```text
//!            wake                    rest (if it can)
//! at rest ---------> awake, doing something ---------> at rest
//! 56 bytes           all of it in memory of its own    (or awake, doing nothing)
//! ```
//!
//! Invariant: what an object at rest says is what it said when it was awake. Does not know the log.

use super::directory::Directory;
use super::object::Versions;
use super::record;
use super::resting::{Resting, Tables};
use super::summary::Share;
use crate::id::{CopyId, HashRange, PoolId, Role};
use std::ops::Deref;

/// Place of an object.
pub type ObjectIndex = u32;
/// No segment, no activity.
pub const NONE: u32 = u32::MAX;
/// An overlay in a snapshot: a unit, its number and its checksum, padded.
pub const OVERLAY_BYTES: u64 = 4096 + 16;
/// A snapshot with overlays is counted larger by this share of them: where it does not fit, the end of a segment stays empty.
pub const LARGE_SHARE: u64 = 2;
/// Places made at a time: what is there never moves, so that growing takes no time to speak of.
const CHUNK: usize = 1024;
/// Memory of awake objects that is kept for the next ones; a busy store has not many more awake.
const SPARE: usize = 1024;

/// An object that is awake.
#[derive(Clone, Debug)]
pub struct Object {
    /// Which one.
    pub copy: CopyId,
    /// Its versions.
    pub versions: Versions,
    /// Segment of the oldest record that replay needs for it; [`NONE`] while it has none in the log.
    pub base: u32,
    /// Bytes that a snapshot of it takes, as last counted.
    pub snapshot_bytes: u64,
    /// Overlays of its prepared version, as last counted.
    pub prepared_overlays: u64,
    /// What it adds to the sums over all objects.
    pub share: Share,
    /// Its record of things under way; [`NONE`] if it does nothing.
    pub active: u32,
    /// Whether it waits in the queue of objects with overlays.
    pub queued: bool,
}

#[derive(Clone, Debug)]
enum Slot {
    Free,
    Resting(Resting),
    Awake(Box<Object>),
}

const _: () = assert!(size_of::<Slot>() == 56, "there are millions of them");

/// What is known of an object, awake or not.
#[expect(clippy::large_enum_variant, reason = "made and taken apart at once")]
pub enum View<'a> {
    /// It is awake.
    Awake(&'a Object),
    /// It rests; as it would be.
    Resting(Object),
}

impl Deref for View<'_> {
    type Target = Object;

    fn deref(&self) -> &Object {
        match self {
            View::Awake(object) => object,
            View::Resting(object) => object,
        }
    }
}

/// All objects.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    slots: Vec<Vec<Slot>>,
    len: u32,
    free: Vec<ObjectIndex>,
    directory: Directory,
    tables: Tables,
    #[expect(clippy::vec_box, reason = "boxes go from here to slots, and back")]
    spare: Vec<Box<Object>>,
}

impl Objects {
    /// None yet; blocks have so many units.
    pub fn new(units: usize) -> Self {
        Objects { tables: Tables::new(units), ..Objects::default() }
    }

    fn slot(&self, place: ObjectIndex) -> &Slot {
        let slot = self.slots.get(place as usize / CHUNK).and_then(|chunk| chunk.get(place as usize % CHUNK));
        slot.unwrap_or(&Slot::Free)
    }

    fn slot_mut(&mut self, place: ObjectIndex) -> &mut Slot {
        &mut self.slots[place as usize / CHUNK][place as usize % CHUNK]
    }

    /// The place of a copy.
    pub fn find(&self, copy: CopyId) -> Option<ObjectIndex> {
        self.directory.find(copy, |place| self.copy(place)).ok()
    }

    /// Brings what is known of these copies near the processor.
    pub fn approach(&self, copies: &[CopyId]) {
        let places: Vec<ObjectIndex> = self.directory.near(copies).collect();
        let blocks = places.iter().map(|place| match self.slot(*place) {
            Slot::Resting(resting) => resting.block,
            Slot::Awake(_) | Slot::Free => record::NO_BLOCK,
        });
        let blocks: Vec<u32> = blocks.filter(|block| *block != record::NO_BLOCK).collect();
        self.tables.approach(&blocks);
    }

    /// The place of a copy, which is made, awake, if there is none.
    pub fn find_or_insert(&mut self, copy: CopyId) -> ObjectIndex {
        let gap = match self.directory.find(copy, |place| self.copy(place)) {
            Ok(place) => return place,
            Err(gap) => gap,
        };
        let place = self.free.pop().unwrap_or_else(|| self.add_slot());
        let object = self.awake(Object::new(copy, Versions::default(), NONE));
        *self.slot_mut(place) = Slot::Awake(object);
        self.directory.insert(copy, place, gap);
        place
    }

    fn add_slot(&mut self) -> ObjectIndex {
        if self.slots.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.slots.push(Vec::with_capacity(CHUNK));
        }
        self.slots.last_mut().expect("just made sure").push(Slot::Free);
        self.len = self.len.checked_add(1).expect("fewer objects than blocks and tombstones in the log");
        self.len - 1
    }

    /// Memory for an awake object.
    fn awake(&mut self, object: Object) -> Box<Object> {
        match self.spare.pop() {
            Some(mut spare) => {
                *spare = object;
                spare
            }
            None => Box::new(object),
        }
    }

    fn recycle(&mut self, object: Box<Object>) {
        if self.spare.len() < SPARE {
            self.spare.push(object);
        }
    }

    /// Forgets an object, which is awake.
    pub fn remove(&mut self, place: ObjectIndex) {
        let Slot::Awake(object) = std::mem::replace(self.slot_mut(place), Slot::Free) else {
            panic!("no awake object at place {place}");
        };
        self.directory.remove(object.copy, place);
        self.free.push(place);
        self.recycle(object);
    }

    /// Makes sure that the object is awake.
    pub fn wake(&mut self, place: ObjectIndex) -> &mut Object {
        if let Slot::Resting(resting) = self.slot(place) {
            let object = self.unpack(resting);
            let object = self.awake(object);
            let Slot::Resting(resting) = std::mem::replace(self.slot_mut(place), Slot::Awake(object)) else {
                panic!("the object at place {place} rested a moment ago");
            };
            self.tables.forget(resting);
        }
        self.at_mut(place)
    }

    fn unpack(&self, resting: &Resting) -> Object {
        Object::new(self.tables.copy(resting), self.tables.versions(resting), resting.base)
    }

    /// Puts an object to rest, if it does nothing, and is one that can.
    pub fn rest(&mut self, place: ObjectIndex) {
        let Some(object) = self.get(place).filter(|object| object.active == NONE && !object.queued) else { return };
        let (copy, base) = (object.copy, object.base);
        let Slot::Awake(object) = std::mem::replace(self.slot_mut(place), Slot::Free) else {
            panic!("the object at place {place} was awake a moment ago");
        };
        match self.tables.pack(copy, base, &object.versions) {
            Some(resting) => {
                *self.slot_mut(place) = Slot::Resting(resting);
                self.recycle(object);
            }
            None => *self.slot_mut(place) = Slot::Awake(object),
        }
    }

    /// The object at a place, if one is there that is awake.
    pub fn get(&self, place: ObjectIndex) -> Option<&Object> {
        if let Slot::Awake(object) = self.slot(place) { Some(object) } else { None }
    }

    /// The object at a place that is known to be taken by one that is awake.
    pub fn at(&self, place: ObjectIndex) -> &Object {
        self.get(place).unwrap_or_else(|| panic!("no awake object at place {place}"))
    }

    /// The object at a place that is known to be taken by one that is awake.
    pub fn at_mut(&mut self, place: ObjectIndex) -> &mut Object {
        let Slot::Awake(object) = self.slot_mut(place) else { panic!("no awake object at place {place}") };
        object
    }

    /// The object at a place, if there is one, awake or not.
    pub fn view(&self, place: ObjectIndex) -> Option<View<'_>> {
        match self.slot(place) {
            Slot::Free => None,
            Slot::Resting(resting) => Some(View::Resting(self.unpack(resting))),
            Slot::Awake(object) => Some(View::Awake(object)),
        }
    }

    /// The same without the checksums of an object at rest, which is cheaper.
    pub fn glance(&self, place: ObjectIndex) -> Option<View<'_>> {
        match self.slot(place) {
            Slot::Resting(resting) => {
                let versions = self.tables.summary(resting);
                Some(View::Resting(Object::new(self.tables.copy(resting), versions, resting.base)))
            }
            _ => self.view(place),
        }
    }

    /// The segment of the oldest record that replay needs for the object at a place; [`NONE`] if there is none.
    pub fn base(&self, place: ObjectIndex) -> u32 {
        match self.slot(place) {
            Slot::Free => NONE,
            Slot::Resting(resting) => resting.base,
            Slot::Awake(object) => object.base,
        }
    }

    fn copy(&self, place: ObjectIndex) -> CopyId {
        match self.slot(place) {
            Slot::Free => panic!("no object at place {place}"),
            Slot::Resting(resting) => self.tables.copy(resting),
            Slot::Awake(object) => object.copy,
        }
    }

    /// Counts anew what follows from the versions of those that are awake.
    pub fn recount(&mut self) {
        for slot in self.slots.iter_mut().flatten() {
            if let Slot::Awake(object) = slot {
                object.recount();
            }
        }
    }

    /// All places that are taken.
    pub fn places(&self) -> impl Iterator<Item = ObjectIndex> + '_ {
        (0..self.len).filter(|place| !matches!(self.slot(*place), Slot::Free))
    }

    /// All objects, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = (ObjectIndex, View<'_>)> {
        (0..self.len).filter_map(|place| Some((place, self.view(place)?)))
    }

    /// Blocks of all objects, with gaps that are none.
    pub fn blocks(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.len).flat_map(|place| match self.slot(place) {
            Slot::Free => [record::NO_BLOCK; 2],
            Slot::Resting(resting) => [resting.block, record::NO_BLOCK],
            Slot::Awake(object) => object.versions.blocks(),
        })
    }

    /// All objects, in the order of pools, roles and hashes.
    pub fn in_order(&self) -> impl Iterator<Item = View<'_>> {
        self.directory.places().map(|place| self.glance(place).expect("listed objects are there"))
    }

    /// Places of the copies of a pool and role in a range of hashes, behind `after`.
    pub fn range(
        &self,
        pool: PoolId,
        role: Role,
        range: HashRange,
        after: Option<CopyId>,
    ) -> impl Iterator<Item = (CopyId, ObjectIndex)> + '_ {
        self.directory.range(pool, role, range, after, |place| self.copy(place))
    }

    /// Roles in which there are copies of a pool in a range.
    pub fn roles(&self, pool: PoolId, range: HashRange) -> Vec<Role> {
        let taken = |role: &Role| self.range(pool, *role, range, None).next().is_some();
        self.directory.roles(pool).filter(taken).collect()
    }
}

impl Object {
    fn new(copy: CopyId, versions: Versions, base: u32) -> Self {
        let mut object = Object {
            copy,
            versions,
            base,
            snapshot_bytes: 0,
            prepared_overlays: 0,
            share: Share::default(),
            active: NONE,
            queued: false,
        };
        object.recount();
        object
    }

    /// Counts anew what follows from its versions.
    pub fn recount(&mut self) {
        self.snapshot_bytes = self.snapshot_bound();
        self.prepared_overlays = self.versions.prepared_overlays();
        self.share = self.versions.share(self.copy.object);
    }

    /// What its snapshot will take in the log, and the waste that comes of its size. Overlays of the committed version are
    /// compacted first.
    pub fn snapshot_bound(&self) -> u64 {
        let Versions { committed, prepared } = &self.versions;
        if committed.is_none() && prepared.is_none() {
            return 0;
        }
        let large = self.versions.prepared_overlays() * OVERLAY_BYTES / LARGE_SHARE;
        record::compacted_snapshot_bytes(committed.as_ref(), prepared.as_deref()) as u64 + large
    }
}
