//! Operations on their way, and what each active object is doing.

use super::index::{NONE, ObjectIndex};
use super::moves::Move;
use super::object::Sums;
use super::page::Sequence;
use super::read::ReadOp;
use crate::buf::Buf;
use crate::io::DiskError;
use crate::slab::Key;
use crate::store::{StoreError, StoreOp, StoreReply};
use smallvec::SmallVec;
use std::collections::VecDeque;

/// A data write whose durability somebody waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataWrite {
    /// Of an operation.
    Op(Key<Op>),
    /// Of the compaction of the object.
    Compaction(ObjectIndex),
    /// Of a block in place of one that was refused.
    Move(Key<Move>),
}

/// How far the data of an operation are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum DataStage {
    /// Until the record is in the log.
    Waiting,
    /// On their way to the device.
    Writing,
    /// The device has them.
    Completed,
    /// They survive a power loss (or there are none).
    Durable,
}

/// What a record means for the oldest record that its object needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Base {
    /// Older ones are still needed.
    Builds,
    /// None older is needed.
    Is,
    /// Not even this one is.
    Ends,
}

/// Where an operation is.
///
/// ```text
/// Queued -> (Fetching -> Fetched ->) Applied -> acknowledged -> settled
///    |                      |
///    +----------------------+------> Refused -> answered
/// ```
#[derive(Clone, Debug)]
pub enum Stage {
    /// Not carried out yet.
    Queued,
    /// Old data are being read, to widen it to whole units.
    Fetching,
    /// They were read: first unit, bytes.
    Fetched(usize, Buf),
    /// In memory, its record in a page (unless it needs none).
    Applied,
    /// A read whose state was captured; it starts once the operations before it are acknowledged.
    Captured(Key<ReadOp>),
    /// A read that needed no device.
    Answered(StoreReply),
    /// Answered with an error in its turn.
    Refused(StoreError),
}

/// An operation.
#[derive(Clone, Debug)]
pub struct Op {
    /// For the completion; `None`: the store's own.
    pub token: Option<u64>,
    /// Its object.
    pub object: ObjectIndex,
    /// What was asked; taken when it is carried out.
    pub request: Option<StoreOp>,
    /// CRCs of the whole units of its data.
    pub sums: Sums,
    /// Where it is.
    pub stage: Stage,
    /// Counts the operations of the store.
    pub number: u64,
    /// Page of its record; 0: it needs none.
    pub page: Sequence,
    /// Segment of that page.
    pub segment: u32,
    /// Its data.
    pub data: DataStage,
    /// Block that it wrote; while it waits for old data, the first unit of them.
    pub block: u32,
    /// Its data and their first unit, until the device has them.
    pub body: Option<(usize, Buf)>,
    /// Whether its data go over others of the same block.
    pub in_place: bool,
    /// Blocks that it superseded.
    pub frees: SmallVec<[u32; 2]>,
    /// What its record is for the object.
    pub base: Base,
    /// Whether it was answered.
    pub acknowledged: bool,
}

impl Op {
    /// An operation that was just asked for, about no object yet.
    pub fn new(token: Option<u64>, request: Option<StoreOp>, sums: Sums) -> Self {
        Op {
            token,
            object: NONE,
            request,
            sums,
            stage: Stage::Queued,
            number: 0,
            page: 0,
            segment: NONE,
            data: DataStage::Durable,
            block: NONE,
            body: None,
            in_place: false,
            frees: SmallVec::new(),
            base: Base::Builds,
            acknowledged: false,
        }
    }
}

/// A compaction under way.
#[derive(Clone, Debug)]
pub struct Compaction {
    /// Writes outstanding.
    pub parts: u32,
    /// Block that is written.
    pub block: u32,
    /// Newest page of the overlays that are written.
    pub upto: Sequence,
    /// Units that are written.
    pub units: SmallVec<[u64; 4]>,
    /// Bytes that are written.
    pub bytes: u64,
    /// Why the device refused a part, if it did.
    pub refused: Option<DiskError>,
}

/// What an object is doing.
#[derive(Clone, Debug)]
pub struct Active {
    /// Its operations that are not settled, in order: the first `applied` are carried out.
    pub ops: VecDeque<Key<Op>>,
    /// How many are carried out (or refused).
    pub applied: usize,
    /// Whether data of a record are not durable yet.
    pub undone: bool,
    /// Whether its first operation not carried out waits for old data.
    pub fetching: bool,
    /// The compaction of its overlays.
    pub compaction: Option<Compaction>,
    /// Whether its block, refused by the device, is being replaced by another.
    pub moving: bool,
    /// Whether it waits for a snapshot, for the cleaner.
    pub cleaning: bool,
    /// Whether it waits in the list of those that found no space.
    pub stalled: bool,
}

impl Active {
    /// Whether writes of its block are under way, so that reading it shows neither old nor new data.
    pub fn is_block_busy(&self) -> bool {
        self.undone || self.compaction.is_some() || self.moving
    }

    /// Whether nothing is going on.
    pub fn is_idle(&self) -> bool {
        self.ops.is_empty() && self.compaction.is_none() && !self.moving && !self.cleaning && !self.stalled
    }
}

/// The active objects.
#[derive(Clone, Debug, Default)]
pub struct Actives {
    places: Vec<Active>,
    free: Vec<u32>,
}

impl Actives {
    /// A record for an object that begins something.
    pub fn begin(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.places.push(Active {
                ops: VecDeque::new(),
                applied: 0,
                undone: false,
                fetching: false,
                compaction: None,
                moving: false,
                cleaning: false,
                stalled: false,
            });
            u32::try_from(self.places.len() - 1).expect("bounded by the operations in flight")
        })
    }

    /// The object rests.
    pub fn end(&mut self, place: u32) {
        let active = &self.places[place as usize];
        assert!(active.is_idle() && active.applied == 0 && !active.undone && !active.fetching);
        self.free.push(place);
    }

    /// The record of an object.
    pub fn get(&self, place: u32) -> Option<&Active> {
        if place == NONE { None } else { self.places.get(place as usize) }
    }

    /// The record of an active object.
    pub fn at_mut(&mut self, place: u32) -> &mut Active {
        &mut self.places[place as usize]
    }
}
