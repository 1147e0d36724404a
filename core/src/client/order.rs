//! The order of overlapping writes to one object.
//!
//! Invariant: of two writes in here that share bytes of an object, only the earlier may be under way; the later is held
//! until the earlier has left. So no retry, refusal or change of primary can swap them.

use super::part::Part;
use crate::id::ObjectId;
use crate::slab::Key;

/// Buckets by object; several times the usual queue depth, so that most hold one entry at most.
const BUCKETS: usize = 256;

#[derive(Clone, Debug)]
struct Entry {
    key: Key<Part>,
    object: ObjectId,
    span: (u32, u32),
    held: bool,
}

impl Entry {
    fn conflicts(&self, other: &Entry) -> bool {
        self.object == other.object && self.span.0 < other.span.1 && other.span.0 < self.span.1
    }
}

/// Writes that are under way or held.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// In each: in the order in which they came.
    buckets: Vec<Vec<Entry>>,
}

impl Default for Order {
    fn default() -> Self {
        Order { buckets: vec![Vec::new(); BUCKETS] }
    }
}

impl Order {
    fn bucket(&mut self, object: ObjectId) -> &mut Vec<Entry> {
        let place = usize::try_from(object.hash() % BUCKETS as u64).expect("below BUCKETS");
        &mut self.buckets[place]
    }

    /// A write begins. True: it is held until `leave` gives it out.
    pub fn enter(&mut self, key: Key<Part>, object: ObjectId, span: (u32, u32)) -> bool {
        let bucket = self.bucket(object);
        let mut entry = Entry { key, object, span, held: false };
        entry.held = bucket.iter().any(|earlier| earlier.conflicts(&entry));
        let held = entry.held;
        bucket.push(entry);
        held
    }

    /// A write ended; adds those that may go now to `released`.
    pub fn leave(&mut self, key: Key<Part>, object: ObjectId, released: &mut Vec<Key<Part>>) {
        let bucket = self.bucket(object);
        let place = bucket.iter().position(|entry| entry.key == key).expect("every write under way is listed");
        let gone = bucket.remove(place);
        for later in place..bucket.len() {
            let free = |entry: &Entry| !bucket[..later].iter().any(|earlier| earlier.conflicts(entry));
            if bucket[later].held && bucket[later].conflicts(&gone) && free(&bucket[later]) {
                bucket[later].held = false;
                released.push(bucket[later].key);
            }
        }
    }

    /// Panics unless exactly the held ones have an earlier conflict.
    pub fn check(&self) {
        for bucket in &self.buckets {
            for (place, entry) in bucket.iter().enumerate() {
                let blocked = bucket[..place].iter().any(|earlier| earlier.conflicts(entry));
                assert_eq!(blocked, entry.held, "write {:?} of {:?}", entry.key, entry.object);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{InodeId, PoolId};

    fn object(stripe: u64) -> ObjectId {
        ObjectId { pool: PoolId(1), inode: InodeId(1), stripe }
    }

    #[test]
    fn overlapping_writes_go_one_by_one_in_order() {
        let mut order = Order::default();
        let key = Key::<Part>::from_u64;
        assert!(!order.enter(key(1), object(0), (0, 10)));
        assert!(!order.enter(key(2), object(0), (10, 20)));
        assert!(order.enter(key(3), object(0), (5, 15)));
        assert!(order.enter(key(4), object(0), (14, 15)));
        assert!(!order.enter(key(5), object(1), (0, 20)));
        order.check();
        let mut released = Vec::new();
        order.leave(key(1), object(0), &mut released);
        assert_eq!(released, []);
        order.leave(key(2), object(0), &mut released);
        assert_eq!(released, [key(3)]);
        order.leave(key(3), object(0), &mut released);
        assert_eq!(released, [key(3), key(4)]);
        order.check();
    }
}
