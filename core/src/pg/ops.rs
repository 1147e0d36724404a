//! Clients' operations of a group that is served: one queue per object, in order of arrival.
//!
//! Owns the records and their queues. Does not own what an operation does (write.rs and read.rs decide by the record).
//! Invariants: an operation is in exactly one queue from its arrival to its answer; an object has a record as long as
//! its queue is not empty.

use crate::id::{LinkId, ObjectId, RequestId, Requests, Version};
use crate::msg::{Answer, Refusal};
use crate::pg::choose::Mask;
use crate::pg::msg::Change;
use crate::pg::round::Round;
use crate::slab::{Key, Slab};
use crate::time::Time;
#[allow(clippy::disallowed_types, reason = "a fixed hasher, and nothing walks through it")]
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// One operation.
#[derive(Clone, Debug)]
pub struct Op {
    /// The request.
    pub id: RequestId,
    /// Where the answer goes; none: the client is gone, or it is our own operation.
    pub link: Option<LinkId>,
    /// Its object.
    pub object: Key<Object>,
    /// What it does.
    pub kind: Kind,
    /// How far it is.
    pub state: State,
    /// When it arrived, if its latency is to count: a client's, on an object that was whole.
    pub since: Option<Time>,
    /// Some member carried out the write without its being durable there.
    pub applied: bool,
    next: Option<Key<Op>>,
}

/// What an operation does.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Read bytes, or only which were ever written.
    Read {
        /// Offset.
        offset: u32,
        /// Bytes.
        len: u32,
        /// Only the bitmap.
        status: bool,
    },
    /// Change the object.
    Write {
        /// How.
        change: Change,
        /// Only on top of this version.
        expect: Option<Version>,
    },
    /// Delete the object, without a client: its image is being removed.
    Remove,
    /// Drop the object's tombstone (of this version), everywhere.
    Purge {
        /// The tombstone's version.
        version: Version,
        /// Whether it is known to be committed everywhere.
        committed: bool,
    },
}

/// How far an operation is.
#[derive(Clone, Debug)]
pub enum State {
    /// Not begun.
    Waiting,
    /// Data are being read.
    Reading {
        /// The object's version at that moment, complete on all acting members.
        version: Version,
    },
    /// The outcome is known without a change; waits for the lease.
    Leasing {
        /// The outcome.
        outcome: Result<Answer, Refusal>,
    },
    /// Under way to the members.
    Writing {
        /// The version that it makes.
        version: Version,
        /// Whether that is a tombstone.
        tombstone: bool,
        /// Seats that have not confirmed.
        left: Mask,
        /// Seats that refused for want of space.
        no_space: Mask,
        /// How often a body was damaged on its way.
        damaged: u8,
    },
}

/// An object with operations.
#[derive(Clone, Debug)]
pub struct Object {
    /// The object.
    pub id: ObjectId,
    /// Whether the fields below are known.
    pub loaded: bool,
    /// The newest version, in flight or not; none: it never existed, or was purged.
    pub newest: Version,
    /// Whether that is a tombstone (or none).
    pub absent: bool,
    /// The newest version that clients may see; none: the object does not exist.
    pub visible: Version,
    /// Requests that the newest version includes.
    pub requests: Requests,
    /// Writes under way.
    pub in_flight: u32,
    /// Seats whose copy is too damaged for a write that is under way.
    pub hurt: Mask,
    /// Erasure-coded objects: the round that they share.
    pub round: Option<Key<Round>>,
    head: Option<Key<Op>>,
    tail: Option<Key<Op>>,
}

/// Hashes object ids by their own, fixed hash. The table is never iterated.
#[derive(Clone, Copy, Debug, Default)]
pub struct ObjectHasher(u64);

impl Hasher for ObjectHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Ops {
    ops: Slab<Op>,
    objects: Slab<Object>,
    #[allow(clippy::disallowed_types, reason = "a fixed hasher, and nothing walks through it")]
    by_id: HashMap<ObjectId, Key<Object>, BuildHasherDefault<ObjectHasher>>,
}

impl Ops {
    /// Number of operations.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// The operation, unless it is over.
    pub fn get(&self, key: Key<Op>) -> Option<&Op> {
        self.ops.get(key)
    }

    /// The operation, unless it is over.
    pub fn get_mut(&mut self, key: Key<Op>) -> Option<&mut Op> {
        self.ops.get_mut(key)
    }

    /// The object; it must have operations.
    pub fn object(&self, key: Key<Object>) -> &Object {
        self.objects.get(key).unwrap_or_else(|| panic!("object {key:?} has no operations"))
    }

    /// The object; it must have operations.
    pub fn object_mut(&mut self, key: Key<Object>) -> &mut Object {
        self.objects.get_mut(key).unwrap_or_else(|| panic!("object {key:?} has no operations"))
    }

    /// The object's record, if it has operations.
    pub fn find(&self, id: ObjectId) -> Option<Key<Object>> {
        self.by_id.get(&id).copied()
    }

    /// Whether the object has still operations.
    pub fn is_live(&self, key: Key<Object>) -> bool {
        self.objects.get(key).is_some()
    }

    /// Adds an operation at the end of its object's queue.
    pub fn push(
        &mut self,
        id: RequestId,
        link: Option<LinkId>,
        object: ObjectId,
        kind: Kind,
        since: Option<Time>,
    ) -> Key<Object> {
        let object = self.find(object).unwrap_or_else(|| self.new_object(object));
        let op =
            self.ops.insert(Op { id, link, object, kind, state: State::Waiting, since, applied: false, next: None });
        let record = self.objects.get_mut(object).expect("found or made above");
        match record.tail.replace(op) {
            None => record.head = Some(op),
            Some(before) => self.ops.get_mut(before).expect("a queue's tail is an operation").next = Some(op),
        }
        object
    }

    fn new_object(&mut self, id: ObjectId) -> Key<Object> {
        let key = self.objects.insert(Object {
            id,
            loaded: false,
            newest: Version::NONE,
            absent: true,
            visible: Version::NONE,
            requests: Requests::new(),
            in_flight: 0,
            hurt: 0,
            round: None,
            head: None,
            tail: None,
        });
        self.by_id.insert(id, key);
        key
    }

    /// Takes an operation out; the object's record goes with its last one.
    pub fn remove(&mut self, key: Key<Op>) -> Op {
        let op = self.ops.remove(key).unwrap_or_else(|| panic!("operation {key:?} is over already"));
        let before = self.queue(op.object).take_while(|(other, _)| *other != key).last().map(|(other, _)| other);
        let object = self.objects.get_mut(op.object).expect("has operations");
        if object.tail == Some(key) {
            object.tail = before;
        }
        match before {
            None => object.head = op.next,
            Some(before) => self.ops.get_mut(before).expect("in the queue").next = op.next,
        }
        if object.head.is_none() {
            self.by_id.remove(&object.id);
            self.objects.remove(op.object);
        }
        op
    }

    /// The operations of an object, in order. Ends early at an operation that is just being removed.
    pub fn queue(&self, object: Key<Object>) -> impl Iterator<Item = (Key<Op>, &Op)> {
        let mut next = self.objects.get(object).and_then(|object| object.head);
        std::iter::from_fn(move || {
            let key = next?;
            let op = self.ops.get(key)?;
            next = op.next;
            Some((key, op))
        })
    }

    /// The first operation of an object.
    pub fn first(&self, object: Key<Object>) -> Option<Key<Op>> {
        self.objects.get(object)?.head
    }

    /// The operation after this one.
    pub fn after(&self, op: Key<Op>) -> Option<Key<Op>> {
        self.ops.get(op)?.next
    }

    /// All operations.
    pub fn iter(&self) -> impl Iterator<Item = (Key<Op>, &Op)> {
        self.ops.iter()
    }

    /// Panics if a queue is broken.
    pub fn check(&self) {
        let mut queued = 0;
        for (key, object) in self.objects.iter() {
            let queue: Vec<Key<Op>> = self.queue(key).map(|(op, _)| op).collect();
            assert_eq!(object.tail, queue.last().copied(), "{:?}: tail", object.id);
            assert_eq!(self.by_id.get(&object.id), Some(&key), "{:?}: index", object.id);
            let writing = self.queue(key).filter(|(_, op)| matches!(op.state, State::Writing { .. })).count();
            assert_eq!(object.in_flight as usize, writing, "{:?}: in flight", object.id);
            queued += queue.len();
        }
        assert_eq!(queued, self.ops.len(), "operations outside of queues");
    }
}

impl Op {
    /// Whether a client asked for it; the group's own operations have no number.
    pub fn is_clients(&self) -> bool {
        self.id != RequestId::default()
    }
}

impl Kind {
    /// Whether the object may differ afterwards.
    pub fn is_write(&self) -> bool {
        !matches!(self, Kind::Read { .. })
    }

    /// The version that the object must have.
    pub fn expect(&self) -> Option<Version> {
        if let Kind::Write { expect, .. } = self { *expect } else { None }
    }

    /// Bytes concerned; whole objects for deletions.
    fn range(&self) -> (u32, u32) {
        match self {
            Kind::Read { offset, len, .. } => (*offset, offset + len),
            Kind::Write { change: Change::Data { offset, data }, .. } => (*offset, offset + data.len()),
            Kind::Write { change: Change::Zero { offset, len }, .. } => (*offset, offset + len),
            Kind::Write { change: Change::Delete, .. } | Kind::Remove | Kind::Purge { .. } => (0, u32::MAX),
            Kind::Write { change: Change::Nothing, .. } => (0, 0),
        }
    }

    /// Whether the bytes concerned overlap.
    pub fn overlaps(&self, other: &Kind) -> bool {
        let ((a, a_end), (b, b_end)) = (self.range(), other.range());
        a < b_end && b < a_end
    }
}
