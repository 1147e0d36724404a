//! Generational slabs: records addressed by `(index, generation)`, so that a late completion for a record that is
//! gone is recognised instead of hitting its successor.

use std::fmt;
use std::marker::PhantomData;

/// Names one record of a [`Slab`], for ever: the generation changes when the place is reused.
pub struct Key<T> {
    /// Place in the slab.
    pub index: u32,
    /// How often the place had been freed when the record was inserted.
    pub generation: u32,
    marker: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    /// The key as one number, for use as a token in messages and I/O requests.
    pub fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The key that [`Key::to_u64`] gave.
    pub fn from_u64(raw: u64) -> Self {
        let half = |x: u64| u32::try_from(x & 0xffff_ffff).expect("masked to 32 bits");
        Key { index: half(raw), generation: half(raw >> 32), marker: PhantomData }
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Key<T> {}
impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        self.to_u64() == other.to_u64()
    }
}
impl<T> Eq for Key<T> {}
impl<T> PartialOrd for Key<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Key<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.to_u64().cmp(&other.to_u64())
    }
}
impl<T> std::hash::Hash for Key<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.to_u64().hash(state);
    }
}
impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}.{}", self.index, self.generation)
    }
}

#[derive(Clone, Debug)]
struct Place<T> {
    generation: u32,
    record: Option<T>,
}

/// Records in stable places; freed places are reused last in, first out.
#[derive(Clone)]
pub struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

impl<T: fmt::Debug> fmt::Debug for Slab<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Stores a record and names it.
    pub fn insert(&mut self, record: T) -> Key<T> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, record: None });
            u32::try_from(self.places.len() - 1).expect("a slab is bounded by Limits, far below 2^32")
        });
        let place = &mut self.places[index as usize];
        debug_assert!(place.record.is_none());
        place.record = Some(record);
        Key { index, generation: place.generation, marker: PhantomData }
    }

    /// The record, unless it is gone.
    pub fn get(&self, key: Key<T>) -> Option<&T> {
        let place = self.places.get(key.index as usize)?;
        place.record.as_ref().filter(|_| place.generation == key.generation)
    }

    /// The record, unless it is gone.
    pub fn get_mut(&mut self, key: Key<T>) -> Option<&mut T> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.generation != key.generation {
            return None;
        }
        place.record.as_mut()
    }

    /// The key of the record in a place, if there is one.
    pub fn key_at(&self, index: u32) -> Option<Key<T>> {
        let place = self.places.get(index as usize)?;
        place.record.as_ref().map(|_| Key { index, generation: place.generation, marker: PhantomData })
    }

    /// Takes the record out; its key is dead from now on.
    pub fn remove(&mut self, key: Key<T>) -> Option<T> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.generation != key.generation {
            return None;
        }
        let record = place.record.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(key.index);
        Some(record)
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All records, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = (Key<T>, &T)> {
        self.places.iter().zip(0u32..).filter_map(|(place, index)| {
            let record = place.record.as_ref()?;
            Some((Key { index, generation: place.generation, marker: PhantomData }, record))
        })
    }

    /// Keys of all records, in the order of their places.
    pub fn keys(&self) -> Vec<Key<T>> {
        self.iter().map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut slab = Slab::default();
        let a = slab.insert("a");
        assert_eq!(slab.remove(a), Some("a"));
        let b = slab.insert("b");
        assert_eq!(a.index, b.index);
        assert_eq!(slab.get(a), None);
        assert_eq!(slab.get_mut(a), None);
        assert_eq!(slab.remove(a), None);
        assert_eq!(slab.get(Key::from_u64(b.to_u64())), Some(&"b"));
        assert_eq!(slab.len(), 1);
    }
}
