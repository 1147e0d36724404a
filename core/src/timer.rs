//! Deadlines of one node: a heap of `(time, key)`.
//!
//! Cancelling is the owner's business: a deadline that no longer matters fires and is ignored ("late or spurious
//! wake-ups are legal"). So arming is O(log n), nothing is searched, and steady state allocates nothing.

use crate::time::Time;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Pending deadlines, earliest first; equal times fire in the order of their keys.
#[derive(Clone, Debug)]
pub struct Deadlines<K: Ord> {
    heap: BinaryHeap<Reverse<(Time, K)>>,
}

impl<K: Ord> Default for Deadlines<K> {
    fn default() -> Self {
        Deadlines { heap: BinaryHeap::new() }
    }
}

impl<K: Ord + Copy> Deadlines<K> {
    /// Fires `key` at `at`. A key may be armed many times.
    pub fn arm(&mut self, at: Time, key: K) {
        self.heap.push(Reverse((at, key)));
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<(Time, K)> {
        self.heap.peek().map(|Reverse(entry)| *entry)
    }

    /// Takes the earliest deadline that is due at `now`.
    pub fn pop_due(&mut self, now: Time) -> Option<K> {
        let (at, _) = self.next()?;
        if at > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, key))| key)
    }

    /// Number of armed deadlines, stale ones included.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing is armed.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fires_in_time_order_and_only_when_due() {
        let mut deadlines = Deadlines::default();
        deadlines.arm(Time(30), 'c');
        deadlines.arm(Time(10), 'a');
        deadlines.arm(Time(10), 'b');
        assert_eq!(deadlines.next(), Some((Time(10), 'a')));
        assert_eq!(deadlines.pop_due(Time(9)), None);
        assert_eq!(deadlines.pop_due(Time(10)), Some('a'));
        assert_eq!(deadlines.pop_due(Time(10)), Some('b'));
        assert_eq!(deadlines.pop_due(Time(29)), None);
        assert_eq!(deadlines.len(), 1);
    }
}
