//! `(copy, version) -> content` is a function: over all disks, for all time.
//!
//! Fed with every change that any OSD hands to its store. A change says which version it makes out of which; applied to
//! what is known of that one, it gives the content, and whoever makes that version again, by the same change, by a copy of
//! the whole, by what changed since an older version, or by computing it from other chunks, must arrive at the same.
//!
//! Contents are kept as a hash of each sector; whether zeroes were written or never anything counts as the same.
//! Does not see what a store makes of it: content at rest is compared with this elsewhere.

use ashlar_core::id::{CopyId, Version};
use ashlar_core::store::{Bitmap, Content, Patch, StoreOp};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

const SECTOR: usize = 512;
/// Versions of a copy whose sectors are known; of older ones only a sum. More than can be under way.
const TAIL: usize = 24;

/// By sector; zero: zeroes, or beyond the end.
type Sectors = Vec<u64>;

/// What a version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    Tombstone,
    /// Sum of its sectors' hashes.
    Data(u64),
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    made: BTreeMap<(CopyId, Version), Made>,
    tails: BTreeMap<CopyId, VecDeque<(Version, Arc<Sectors>)>>,
}

impl Contents {
    /// A store was told to do this.
    pub fn submitted(&mut self, op: &StoreOp) -> Result<(), String> {
        match op {
            // Damaged on its way: the store refuses it.
            StoreOp::Write { data: Some(data), .. } | StoreOp::Replace { content: Content::Data { data, .. }, .. }
                if !data.verify() =>
            {
                Ok(())
            }
            StoreOp::Write { copy, version, predecessor, offset, data, .. } => {
                let Some(mut sectors) = self.sectors(*copy, *predecessor) else { return Ok(()) };
                if let Some(data) = data {
                    let first = *offset as usize / SECTOR;
                    lay(Arc::make_mut(&mut sectors), first, data.buf.bytes());
                }
                self.make(*copy, *version, sectors)
            }
            StoreOp::Zero { copy, version, predecessor, offset, len, .. } => {
                let Some(mut sectors) = self.sectors(*copy, *predecessor) else { return Ok(()) };
                let (first, count) = (*offset as usize / SECTOR, *len as usize / SECTOR);
                Arc::make_mut(&mut sectors).iter_mut().skip(first).take(count).for_each(|sector| *sector = 0);
                self.make(*copy, *version, sectors)
            }
            // What a store would refuse for its sum is a wrong note of what changed, and in other pools goes unnoticed.
            StoreOp::Patch { patch, .. } if !patch.data.verify() => Ok(()),
            StoreOp::Patch { copy, base, version, patch, .. } => {
                let Some(mut sectors) = self.sectors(*copy, *base) else { return Ok(()) };
                lay_patch(Arc::make_mut(&mut sectors), patch);
                self.make(*copy, *version, sectors)
            }
            StoreOp::Tombstone { copy, version, .. } => self.agree(*copy, *version, Made::Tombstone),
            StoreOp::Replace { copy, version, content: Content::Tombstone, .. } => {
                self.agree(*copy, *version, Made::Tombstone)
            }
            StoreOp::Replace { copy, version, content: Content::Data { data, bitmap }, .. } => {
                self.make(*copy, *version, Arc::new(whole(data.buf.bytes(), Some(bitmap))))
            }
            _ => Ok(()),
        }
    }

    /// A disk holds this of a version (none: a tombstone), as it was found.
    pub fn found(&self, copy: CopyId, version: Version, bytes: Option<&[u8]>) -> Result<(), String> {
        let made = match bytes {
            None => Made::Tombstone,
            Some(bytes) => Made::Data(sum(&whole(bytes, None))),
        };
        match self.made.get(&(copy, version)) {
            Some(before) if *before != made => Err(format!("{copy:?} version {version} is not what was written")),
            _ => Ok(()),
        }
    }

    /// What is known of a version; `None`: it is too long ago, or unknown.
    fn sectors(&self, copy: CopyId, version: Version) -> Option<Arc<Sectors>> {
        if version.is_none() || self.made.get(&(copy, version)) == Some(&Made::Tombstone) {
            return Some(Arc::default());
        }
        let tail = self.tails.get(&copy)?;
        tail.iter().rev().find(|(of, _)| *of == version).map(|(_, sectors)| sectors.clone())
    }

    fn make(&mut self, copy: CopyId, version: Version, sectors: Arc<Sectors>) -> Result<(), String> {
        self.agree(copy, version, Made::Data(sum(&sectors)))?;
        let tail = self.tails.entry(copy).or_default();
        if !tail.iter().any(|(of, _)| *of == version) {
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back((version, sectors));
        }
        Ok(())
    }

    fn agree(&mut self, copy: CopyId, version: Version, made: Made) -> Result<(), String> {
        let known = *self.made.entry((copy, version)).or_insert(made);
        if known == made {
            return Ok(());
        }
        Err(format!("{copy:?} version {version} has two contents: {known:?}, then {made:?}"))
    }
}

/// Puts bytes into sectors, from a sector on.
fn lay(sectors: &mut Sectors, first: usize, bytes: &[u8]) {
    let end = first + bytes.len().div_ceil(SECTOR);
    if sectors.len() < end {
        sectors.resize(end, 0);
    }
    for (sector, bytes) in sectors[first..].iter_mut().zip(bytes.chunks(SECTOR)) {
        *sector = hash(bytes);
    }
}

/// Puts the ranges of a patch into sectors. Those that were never written are zeroes.
fn lay_patch(sectors: &mut Sectors, patch: &Patch) {
    let mut at = 0;
    for (offset, len) in &patch.ranges {
        let first = *offset as usize / SECTOR;
        lay(sectors, first, patch.data.buf.slice(at, *len).bytes());
        at += len;
        let unwritten = (first..first + *len as usize / SECTOR).filter(|sector| !patch.bitmap.get(*sector as u32));
        unwritten.for_each(|sector| sectors[sector] = 0);
    }
}

fn whole(bytes: &[u8], bitmap: Option<&Bitmap>) -> Sectors {
    let mut sectors = Sectors::new();
    lay(&mut sectors, 0, bytes);
    if let Some(bitmap) = bitmap {
        let unwritten = (0u32..).zip(&mut sectors).filter(|(sector, _)| !bitmap.get(*sector));
        unwritten.for_each(|(_, sector)| *sector = 0);
    }
    sectors
}

/// Zero for zeroes only, but for a chance of 2^-64.
fn hash(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(0, |hash: u64, word| {
        let word = word.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

fn sum(sectors: &Sectors) -> u64 {
    let terms = (1u64..).zip(sectors).filter(|(_, sector)| **sector != 0);
    terms.fold(0, |sum, (place, sector)| {
        sum.wrapping_add((sector ^ place.wrapping_mul(0xd6e8_feb8_6659_fd93)).wrapping_mul(0xff51_afd7_ed55_8ccd))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_core::buf::BufPool;
    use ashlar_core::id::{Epoch, InodeId, ObjectId, PoolId, Requests, Role};
    use ashlar_core::store::{Data, Mode};

    fn copy() -> CopyId {
        CopyId { object: ObjectId { pool: PoolId(1), inode: InodeId(1), stripe: 0 }, role: Role(0) }
    }

    fn version(seq: u64) -> Version {
        if seq == 0 { Version::NONE } else { Version { epoch: Epoch(1), seq } }
    }

    fn data(len: u32, byte: u8) -> Data {
        let mut bufs = BufPool::new();
        let mut buf = bufs.alloc(len);
        buf.bytes_mut().fill(byte);
        Data::new(bufs.freeze(buf))
    }

    fn write(seq: u64, offset: u32, byte: u8) -> StoreOp {
        StoreOp::Write {
            copy: copy(),
            version: version(seq),
            predecessor: version(seq - 1),
            offset,
            data: Some(data(1024, byte)),
            mode: Mode::Plain,
            commits_predecessor: false,
            requests: Requests::new(),
        }
    }

    fn replace(seq: u64, bytes: &[u8]) -> StoreOp {
        let mut bufs = BufPool::new();
        let mut buf = bufs.alloc(u32::try_from(bytes.len()).expect("small"));
        buf.bytes_mut().copy_from_slice(bytes);
        let mut bitmap = Bitmap::default();
        bitmap.set(0, 64, true);
        StoreOp::Replace {
            copy: copy(),
            version: version(seq),
            predecessor: version(seq - 1),
            content: Content::Data { data: Data::new(bufs.freeze(buf)), bitmap },
            mode: Mode::Plain,
            requests: Requests::new(),
        }
    }

    #[test]
    fn a_version_made_twice_alike_is_fine_and_otherwise_found() {
        let mut contents = Contents::default();
        contents.submitted(&write(1, 0, 1)).expect("new");
        contents.submitted(&write(2, 512, 2)).expect("new");
        contents.submitted(&write(2, 512, 2)).expect("another member");
        let mut bytes = vec![1; 512];
        bytes.extend([2; 1024]);
        contents.submitted(&replace(2, &bytes)).expect("a copy of the whole");
        bytes.extend([0; 512]);
        contents.found(copy(), version(2), Some(&bytes)).expect("zeroes at the end say nothing");
        bytes[700] = 3;
        assert!(contents.found(copy(), version(2), Some(&bytes)).is_err());
        assert!(contents.submitted(&replace(2, &bytes)).is_err());
        assert!(contents.submitted(&write(2, 0, 2)).is_err(), "the same version by another write");
        assert!(contents.found(copy(), version(2), None).is_err());
    }

    fn patch(base: u64, seq: u64, ranges: &[(u32, u32)], byte: u8) -> StoreOp {
        let mut bitmap = Bitmap::default();
        ranges.iter().for_each(|(offset, len)| bitmap.set(offset / 512, len / 512, true));
        let data = data(ranges.iter().map(|(_, len)| len).sum(), byte);
        let patch = Box::new(Patch { ranges: ranges.to_vec(), bitmap, sum: None, data });
        let (copy, base, version, predecessor) = (copy(), version(base), version(seq), version(seq - 1));
        StoreOp::Patch { copy, base, version, predecessor, patch, requests: Requests::new() }
    }

    #[test]
    fn what_a_member_missed_makes_the_version_that_the_others_have() {
        let mut contents = Contents::default();
        for op in [write(1, 0, 1), write(2, 4096, 2), write(3, 8192, 3), write(4, 8192, 2)] {
            contents.submitted(&op).expect("new");
        }
        contents.submitted(&patch(2, 4, &[(8192, 1024)], 2)).expect("all that changed");
        contents.submitted(&patch(1, 4, &[(4096, 1024), (8192, 1024)], 2)).expect("all that changed");
        assert!(contents.submitted(&patch(1, 4, &[(8192, 1024)], 2)).is_err(), "a range is missing");
        assert!(contents.submitted(&patch(2, 4, &[(8192, 512)], 2)).is_err(), "a sector is missing");
        assert!(contents.submitted(&patch(2, 4, &[(8192, 1024)], 3)).is_err(), "what it was before");
    }

    #[test]
    fn zeroes_are_as_good_as_nothing() {
        let mut contents = Contents::default();
        contents.submitted(&write(1, 0, 1)).expect("new");
        let zero = StoreOp::Zero {
            copy: copy(),
            version: version(2),
            predecessor: version(1),
            offset: 512,
            len: 4096,
            mode: Mode::Plain,
            requests: Requests::new(),
        };
        contents.submitted(&zero).expect("new");
        contents.found(copy(), version(2), Some(&[1; 512])).expect("the rest is gone");
    }
}
