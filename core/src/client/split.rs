//! Cutting a byte range of an image into ranges of objects.

use super::api::on_sector;
use crate::limits::SECTOR_BYTES;

/// Part of one object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Slice {
    /// Which object of the image.
    pub stripe: u64,
    /// First byte in it.
    pub offset: u32,
    /// Bytes.
    pub len: u32,
}

impl Slice {
    /// The first piece of `start..end`.
    pub fn first_of(start: u64, end: u64, object_bytes: u32) -> Slice {
        let size = u64::from(object_bytes);
        let offset = start % size;
        let len = (end - start).min(size - offset);
        let fit = |x: u64| u32::try_from(x).expect("below the size of an object");
        Slice { stripe: start / size, offset: fit(offset), len: fit(len) }
    }

    /// Whether both ends fall on sectors.
    pub fn aligned(&self) -> bool {
        on_sector(self.offset) && on_sector(self.len)
    }

    /// The smallest range of whole sectors that contains this one.
    pub fn widened(&self) -> Slice {
        let start = self.offset / SECTOR_BYTES * SECTOR_BYTES;
        let end = (self.offset + self.len).next_multiple_of(SECTOR_BYTES);
        Slice { stripe: self.stripe, offset: start, len: end - start }
    }

    /// The largest range of whole sectors inside this one, if there is one.
    pub fn narrowed(&self) -> Option<Slice> {
        let start = self.offset.next_multiple_of(SECTOR_BYTES);
        let end = (self.offset + self.len) / SECTOR_BYTES * SECTOR_BYTES;
        (start < end).then(|| Slice { stripe: self.stripe, offset: start, len: end - start })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(stripe: u64, offset: u32, len: u32) -> Slice {
        Slice { stripe, offset, len }
    }

    #[test]
    fn ranges_are_cut_at_objects() {
        assert_eq!(Slice::first_of(0, 10, 4096), slice(0, 0, 10));
        assert_eq!(Slice::first_of(4090, 9000, 4096), slice(0, 4090, 6));
        assert_eq!(Slice::first_of(4096, 9000, 4096), slice(1, 0, 4096));
        assert_eq!(Slice::first_of(8192, 9000, 4096), slice(2, 0, 808));
    }

    #[test]
    fn sectors_around_and_inside() {
        assert_eq!(slice(0, 511, 2).widened(), slice(0, 0, 1024));
        assert_eq!(slice(0, 511, 2).narrowed(), None);
        assert_eq!(slice(0, 511, 514).narrowed(), Some(slice(0, 512, 512)));
        assert!(slice(0, 512, 1024).aligned() && !slice(0, 512, 1).aligned() && !slice(0, 1, 511).aligned());
    }
}
