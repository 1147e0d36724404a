//! Request numbers.
//!
//! Writes are numbered from 1 without gaps. Reads need no order and no memory at the primary, so theirs just name the
//! request's record, in a range of their own.

use crate::slab::{Key, Slab};
use std::collections::VecDeque;

/// Set in the numbers of requests that change nothing.
pub(super) const READ_FLAG: u64 = 1 << 63;

/// The number of a request that changes nothing, by its record. (The flag hides the top bit of the generation, so a
/// number comes back after 2^31 uses of one record.)
pub(super) fn of_read<T>(key: Key<T>) -> u64 {
    READ_FLAG | key.to_u64()
}

/// The record that gave a number with [`of_read`], unless it is gone.
pub(super) fn reader<T>(records: &Slab<T>, number: u64) -> Option<Key<T>> {
    let key = records.key_at(Key::<T>::from_u64(number).index)?;
    (of_read(key) == number).then_some(key)
}

/// Ascending numbers with a value each, removed in nearly the same order. Removed entries stay as gaps until they reach
/// the front or are the majority, so that steady state costs a binary search and allocates nothing, and one number that
/// is stuck for hours does not make the list grow.
#[derive(Clone, Debug)]
pub(super) struct Unanswered<V> {
    entries: VecDeque<(u64, Option<V>)>,
    live: usize,
}

impl<V> Default for Unanswered<V> {
    fn default() -> Self {
        Unanswered { entries: VecDeque::new(), live: 0 }
    }
}

impl<V: Copy> Unanswered<V> {
    /// Adds a number above all others.
    pub fn push(&mut self, number: u64, value: V) {
        assert!(self.entries.back().is_none_or(|(last, _)| *last < number), "number {number} given out of order");
        self.entries.push_back((number, Some(value)));
        self.live += 1;
    }

    /// Puts a number back that was given before.
    pub fn insert(&mut self, number: u64, value: V) {
        match self.entries.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(place) => {
                let before = self.entries[place].1.replace(value);
                assert!(before.is_none(), "number {number} is unanswered already");
            }
            Err(place) => self.entries.insert(place, (number, Some(value))),
        }
        self.live += 1;
    }

    /// The value of a number that is still unanswered.
    pub fn get(&self, number: u64) -> Option<V> {
        let place = self.entries.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        self.entries[place].1
    }

    /// Takes a number out.
    pub fn remove(&mut self, number: u64) -> Option<V> {
        let place = self.entries.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        let value = self.entries[place].1.take()?;
        self.live -= 1;
        while self.entries.front().is_some_and(|(_, value)| value.is_none()) {
            self.entries.pop_front();
        }
        if self.entries.len() > 2 * self.live + 16 {
            self.entries.retain(|(_, value)| value.is_some());
        }
        Some(value)
    }

    /// The lowest number that is unanswered.
    pub fn lowest(&self) -> Option<u64> {
        self.entries.front().map(|(number, _)| *number)
    }

    /// How many numbers are unanswered.
    pub fn len(&self) -> usize {
        self.live
    }

    #[cfg(test)]
    fn memory(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_moves_up_as_numbers_are_answered() {
        let mut unanswered = Unanswered::default();
        for number in 1..=5 {
            unanswered.push(number, ());
        }
        assert_eq!(unanswered.remove(2), Some(()));
        assert_eq!(unanswered.remove(2), None);
        assert_eq!(unanswered.lowest(), Some(1));
        unanswered.remove(1);
        assert_eq!((unanswered.lowest(), unanswered.get(2), unanswered.get(4)), (Some(3), None, Some(())));
    }

    #[test]
    fn a_number_that_is_unanswered_again_is_the_lowest() {
        let mut unanswered = Unanswered::default();
        for number in 1..=4 {
            unanswered.push(number, number);
        }
        for number in [1, 2, 4] {
            unanswered.remove(number);
        }
        unanswered.insert(2, 9);
        unanswered.insert(4, 8);
        assert_eq!((unanswered.lowest(), unanswered.len(), unanswered.get(2)), (Some(2), 3, Some(9)));
        unanswered.remove(2);
        assert_eq!((unanswered.lowest(), unanswered.get(4)), (Some(3), Some(8)));
    }

    #[test]
    fn read_numbers_name_their_record_whatever_its_generation() {
        let mut records = Slab::default();
        let old = records.insert("old");
        records.remove(old);
        let new = records.insert("new");
        assert_eq!((reader(&records, of_read(old)), reader(&records, of_read(new))), (None, Some(new)));
        let high = Key::<()>::from_u64(u64::MAX << 32);
        assert_eq!(of_read(high), of_read(Key::<()>::from_u64((u64::MAX >> 1) << 32)));
    }

    #[test]
    fn a_stuck_number_does_not_make_it_grow() {
        let mut unanswered = Unanswered::default();
        unanswered.push(1, 'a');
        for number in 2..10_000 {
            unanswered.push(number, 'b');
            unanswered.remove(number);
            assert!(unanswered.memory() < 32);
        }
        assert_eq!((unanswered.len(), unanswered.get(1)), (1, Some('a')));
    }
}
