//! The object store of one OSD: the contract that the layer above relies on.
//!
//! Two implementations: the log-structured store on a device, and the reference model (a page of code, no device)
//! that is its oracle in tests.

pub mod log;
pub mod model;

use crate::buf::{Buf, UNIT};
use crate::id::{CopyId, HashRange, ObjectId, PgId, PoolId, Requests, Role, StoreUuid, Version};
use crate::io::{DiskDone, Env, IoId};
use crate::limits::SECTOR_BYTES;
use crate::map::ImmediateCommit;
use crate::stages::DeviceStages;
use crate::time::Time;

/// Payload with the CRC-32 of its bytes, computed where the data entered the system and verified where it is stored,
/// and again on the way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// The bytes.
    pub buf: Buf,
    /// CRC-32 (IEEE) of all of them.
    pub crc: u32,
}

impl Data {
    /// Seals `buf` with its checksum.
    pub fn new(buf: Buf) -> Self {
        let crc = buf.crc();
        Data { buf, crc }
    }

    /// Length in bytes.
    pub fn len(&self) -> u32 {
        self.buf.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// Whether bytes and checksum still agree.
    pub fn verify(&self) -> bool {
        self.buf.crc() == self.crc
    }
}

/// Which sectors of an object (512 bytes each, lowest bit first) were ever written. All-ones prefix or none is common,
/// so it is kept as words: bit `n` of word `n / 64`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bitmap {
    /// 64 sectors each; missing words are zero.
    pub words: smallvec::SmallVec<[u64; 4]>,
}

impl Bitmap {
    /// Whether a sector was ever written.
    pub fn get(&self, sector: u32) -> bool {
        let word = self.words.get((sector / 64) as usize).copied().unwrap_or(0);
        word >> (sector % 64) & 1 == 1
    }

    /// Marks sectors as written, or as never written.
    pub fn set(&mut self, first: u32, count: u32, written: bool) {
        let end = (first + count).div_ceil(64) as usize;
        if written && self.words.len() < end {
            self.words.resize(end, 0);
        }
        let (mut sector, end) = (first, (first + count).min(self.sectors()));
        while sector < end {
            let bits = (64 - sector % 64).min(end - sector);
            let mask = (u64::MAX >> (64 - bits)) << (sector % 64);
            let word = &mut self.words[(sector / 64) as usize];
            *word = if written { *word | mask } else { *word & !mask };
            sector += bits;
        }
        while self.words.last() == Some(&0) {
            self.words.pop();
        }
    }

    /// The bits of `first..first + count`, moved to begin at 0.
    pub fn part(&self, first: u32, count: u32) -> Bitmap {
        let mut part = Bitmap::default();
        for sector in 0..count {
            if self.get(first + sector) {
                part.set(sector, 1, true);
            }
        }
        part
    }

    /// Marks as written what another one has.
    pub fn include(&mut self, other: &Bitmap) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word |= other;
        }
    }

    /// One past the last written sector.
    pub fn end(&self) -> u32 {
        let last = self.words.last().copied().unwrap_or(0);
        self.sectors() - if self.words.is_empty() { 0 } else { last.leading_zeros() }
    }

    /// Sectors that the words have room for.
    fn sectors(&self) -> u32 {
        u32::try_from(self.words.len()).expect("an object has few sectors") * 64
    }
}

/// Whether an operation ends in the committed version or in the prepared one on top of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Committed at once.
    Plain,
    /// Prepared: the committed version stays readable until commit or rollback.
    Prepare,
}

/// What a copy becomes by `Replace`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The whole object: `data` covers bytes `0..len`, the rest was never written.
    Data {
        /// From the start of the object up to (at least) the last written sector.
        data: Data,
        /// Sectors ever written.
        bitmap: Bitmap,
    },
    /// A tombstone.
    Tombstone,
}

impl Content {
    /// Whether bytes and checksum still agree.
    pub fn verify(&self) -> bool {
        match self {
            Content::Data { data, .. } => data.verify(),
            Content::Tombstone => true,
        }
    }
}

/// What makes one version of a copy out of an older one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Outside of these the two versions are equal: offsets and lengths, whole units, in rising order.
    pub ranges: Vec<(u32, u32)>,
    /// Sectors ever written, as far as they lie in the ranges.
    pub bitmap: Bitmap,
    /// The [sum](ObjectStore::content_sum) of the result, if it is known: another result is refused.
    pub sum: Option<u64>,
    /// The bytes of the ranges, one after the other.
    pub data: Data,
}

impl Patch {
    /// The units of the ranges, in the order of the data.
    pub fn units(&self) -> impl Iterator<Item = usize> + '_ {
        self.ranges.iter().flat_map(|(offset, len)| {
            let unit = |at: u32| (at / UNIT) as usize;
            unit(*offset)..unit(offset + len)
        })
    }

    /// Brings a bitmap of the older version up to date.
    pub fn mark(&self, bitmap: &mut Bitmap) {
        for (offset, len) in &self.ranges {
            let sectors = offset / SECTOR_BYTES..(offset + len) / SECTOR_BYTES;
            bitmap.set(sectors.start, sectors.end - sectors.start, false);
            sectors.filter(|sector| self.bitmap.get(*sector)).for_each(|sector| bitmap.set(sector, 1, true));
        }
    }

    /// Whether ranges and data belong together and lie inside a block.
    pub fn is_sound(&self, block_size: u32) -> bool {
        let whole = |(offset, len): &(u32, u32)| offset.is_multiple_of(UNIT) && len.is_multiple_of(UNIT) && *len > 0;
        let end = |(offset, len): &(u32, u32)| offset.checked_add(*len);
        let rising = self.ranges.windows(2).all(|two| end(&two[0]).is_some_and(|end| end <= two[1].0));
        let inside = self.ranges.iter().all(|range| end(range).is_some_and(|end| end <= block_size));
        let bytes = || self.ranges.iter().map(|(_, len)| len).sum::<u32>();
        self.ranges.iter().all(whole) && rising && inside && bytes() == self.data.len()
    }
}

/// What a unit with this CRC-32 adds to the sum of a content; a unit of zeroes adds nothing, written or not.
pub fn unit_mark(unit: usize, crc: u32) -> u64 {
    if crc == log::zero_unit_crc() { 0 } else { mix((unit as u64) << 32 | u64::from(crc)) }
}

/// An operation of a store. Operations on one object take effect, and are acknowledged, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOp {
    /// Atomic write on top of `predecessor` (over a tombstone or nothing: a new object, the rest of it unwritten).
    Write {
        /// The copy.
        copy: CopyId,
        /// Its new version.
        version: Version,
        /// The version that it must have now, prepared ones included; [`Version::NONE`]: it must not exist.
        predecessor: Version,
        /// Byte offset, a multiple of the sector.
        offset: u32,
        /// Bytes, whole sectors; `None` records the version alone.
        data: Option<Data>,
        /// Committed or prepared.
        mode: Mode,
        /// Whether a prepared predecessor is committed by this.
        commits_predecessor: bool,
        /// Stored with the version.
        requests: Requests,
    },
    /// As [`StoreOp::Write`], but a range becomes unwritten (zero) instead of getting data. A prepared predecessor is
    /// committed by it.
    Zero {
        /// The copy.
        copy: CopyId,
        /// Its new version.
        version: Version,
        /// As in `Write`.
        predecessor: Version,
        /// Byte offset, a multiple of the sector.
        offset: u32,
        /// Bytes, whole sectors.
        len: u32,
        /// Committed or prepared.
        mode: Mode,
        /// Stored with the version.
        requests: Requests,
    },
    /// Commits a prepared version; done at once if it is committed already.
    Commit {
        /// The copy.
        copy: CopyId,
        /// The prepared version.
        version: Version,
    },
    /// Drops a prepared version; done at once if it is gone already.
    Rollback {
        /// The copy.
        copy: CopyId,
        /// The prepared version.
        version: Version,
    },
    /// Deletion: leaves `(object, version, tombstone)`. A prepared predecessor is committed by it.
    Tombstone {
        /// The copy.
        copy: CopyId,
        /// Its new version.
        version: Version,
        /// As in `Write`.
        predecessor: Version,
        /// Committed or prepared.
        mode: Mode,
        /// Stored with the version.
        requests: Requests,
    },
    /// Drops a committed tombstone of exactly this version; else nothing.
    Purge {
        /// The copy.
        copy: CopyId,
        /// The tombstone's version.
        version: Version,
    },
    /// Recovery and resolve: the whole copy, whatever was there, even to a lower version; atomic.
    Replace {
        /// The copy.
        copy: CopyId,
        /// Its new version.
        version: Version,
        /// What that version came after.
        predecessor: Version,
        /// What it becomes.
        content: Content,
        /// Committed (whatever was prepared goes) or prepared (the committed version stays).
        mode: Mode,
        /// Stored with the version.
        requests: Requests,
    },
    /// Recovery of what was missed: makes the newest version, which must be `base`, into a later one by its differences;
    /// atomic. What is prepared is committed by it. Refused if the base is a tombstone, has no data, or is damaged.
    Patch {
        /// The copy.
        copy: CopyId,
        /// The version that it must have now.
        base: Version,
        /// Its new version.
        version: Version,
        /// What that version came after.
        predecessor: Version,
        /// The differences; apart, so that usual operations stay small.
        patch: Box<Patch>,
        /// Stored with the version.
        requests: Requests,
    },
    /// Drops the copy if its newest version is exactly this (void and stale copies, copies outside the set). With a
    /// committed version below a prepared one of this version, only the prepared one goes.
    Remove {
        /// The copy.
        copy: CopyId,
        /// Its version.
        version: Version,
    },
    /// Reads a range; takes effect after the operations given before.
    Read {
        /// The copy.
        copy: CopyId,
        /// Which version; `None`: the newest committed.
        version: Option<Version>,
        /// Byte offset, a multiple of the sector.
        offset: u32,
        /// Bytes, whole sectors; beyond the end of what was written reads zeroes.
        len: u32,
    },
    /// Reads the whole copy with its bitmap, as `Replace` takes it.
    ReadAll {
        /// The copy.
        copy: CopyId,
        /// Which version; `None`: the newest, prepared ones included.
        version: Option<Version>,
    },
    /// Everything accepted before, of this group, becomes durable.
    Sync {
        /// The group; objects of its hash range.
        pg: PgId,
    },
}

impl StoreOp {
    /// Whether it may change something, or make it durable.
    pub fn is_write(&self) -> bool {
        !matches!(self, StoreOp::Read { .. } | StoreOp::ReadAll { .. })
    }

    /// The copy that the operation is about; `None` for a sync.
    pub fn copy(&self) -> Option<CopyId> {
        match self {
            StoreOp::Write { copy, .. }
            | StoreOp::Zero { copy, .. }
            | StoreOp::Commit { copy, .. }
            | StoreOp::Rollback { copy, .. }
            | StoreOp::Tombstone { copy, .. }
            | StoreOp::Purge { copy, .. }
            | StoreOp::Replace { copy, .. }
            | StoreOp::Patch { copy, .. }
            | StoreOp::Remove { copy, .. }
            | StoreOp::Read { copy, .. }
            | StoreOp::ReadAll { copy, .. } => Some(*copy),
            StoreOp::Sync { .. } => None,
        }
    }
}

/// Result of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreReply {
    /// Done; if it changed something, durably.
    Done,
    /// Carried out by a lazy store: durable after the next sync.
    Applied,
    /// Of a read.
    Read {
        /// The version that was read; [`Version::NONE`] and zeroes if the copy does not exist or is a tombstone.
        version: Version,
        /// The bytes asked for.
        data: Data,
        /// Sectors of the asked range (bit 0: its first sector) that were ever written.
        bitmap: Bitmap,
    },
    /// Of `ReadAll`.
    Whole {
        /// The version that was read.
        version: Version,
        /// What it came after.
        predecessor: Version,
        /// What it is.
        content: Content,
        /// The requests stored with it.
        requests: Requests,
    },
}

/// Why an operation was not carried out. Nothing of it took effect, now or later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The copy is not at the predecessor; it is at this version.
    WrongPredecessor(Version),
    /// The version asked for is not there.
    NoSuchVersion,
    /// No room for a new object.
    NoSpace,
    /// Body and checksum disagree: damaged on the way here.
    BadChecksum,
    /// A patch would not have given what it should.
    Mismatch,
    /// What is stored does not match its checksum, or the medium cannot read it.
    Damaged {
        /// First damaged byte of the object.
        offset: u32,
        /// Bytes.
        len: u32,
    },
    /// The medium refused the write; another try goes elsewhere.
    WriteFailed,
    /// The store has stopped (a failed log write or flush) or is read-only.
    Stopped,
    /// The request itself makes no sense (offset, length, alignment).
    BadRequest(&'static str),
}

/// A finished operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// As submitted.
    pub token: u64,
    /// Its result.
    pub result: Result<StoreReply, StoreError>,
}

/// A version as peering sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionInfo {
    /// The version.
    pub version: Version,
    /// What it came after.
    pub predecessor: Version,
    /// Whether it is a tombstone.
    pub tombstone: bool,
    /// Whether its data are known to be damaged (no supplier then).
    pub damaged: bool,
    /// The requests stored with it.
    pub requests: Requests,
}

/// All versions of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyInfo {
    /// The copy.
    pub copy: CopyId,
    /// The committed version.
    pub committed: Option<VersionInfo>,
    /// The prepared version on top.
    pub prepared: Option<VersionInfo>,
}

/// Summary of the copies of a hash range: equal for equal sets of `(object, committed, prepared, tombstone, damaged)`,
/// different otherwise but for a chance of 2^-64. The sum of a 64-bit hash of each copy, so that it can be kept up
/// incrementally.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// Number of copies.
    pub count: u64,
    /// Wrapping sum of their hashes.
    pub sum: u64,
}

impl Digest {
    /// Summary of one copy. Every store computes it so: members with different stores are compared by it. The role
    /// does not enter, since members of different roles are compared, and neither do predecessor and requests, which
    /// follow from the version.
    pub fn of(info: &CopyInfo) -> Digest {
        let mark = |info: &VersionInfo| (info.version, info.tombstone, info.damaged);
        let (committed, prepared) = (info.committed.as_ref().map(mark), info.prepared.as_ref().map(mark));
        Digest { count: 1, sum: Digest::hash(info.copy.object, committed, prepared) }
    }

    /// Hash of one copy: of each version its number, whether it is a tombstone, and whether it is damaged.
    pub fn hash(
        object: ObjectId,
        committed: Option<(Version, bool, bool)>,
        prepared: Option<(Version, bool, bool)>,
    ) -> u64 {
        let (committed, prepared) = (version_hash(committed), version_hash(prepared));
        mix(mix(object.hash() ^ committed) ^ prepared.rotate_left(1))
    }

    /// Whether it is that of no copies.
    pub fn is_empty(&self) -> bool {
        *self == Digest::default()
    }

    /// Adds the copies of another range, or one more copy.
    pub fn add(&mut self, other: Digest) {
        self.count = self.count.wrapping_add(other.count);
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// Takes copies out that had been added.
    pub fn remove(&mut self, other: Digest) {
        self.count = self.count.wrapping_sub(other.count);
        self.sum = self.sum.wrapping_sub(other.sum);
    }
}

fn version_hash(mark: Option<(Version, bool, bool)>) -> u64 {
    let Some((version, tombstone, damaged)) = mark else { return 0 };
    let flags = u64::from(tombstone) | u64::from(damaged) << 1;
    mix(mix(mix(version.epoch.0.wrapping_add(1)) ^ version.seq) ^ flags)
}

/// Finaliser of SplitMix64, started off zero so that a zero does not stay one.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Where a store is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreState {
    /// Reading its log; nothing may be submitted.
    Opening,
    /// Serving.
    Open {
        /// False: metadata were lost. Read-only, and no evidence in peering; its good copies can be sources.
        trusted: bool,
    },
    /// Refused to open, or stopped; the reason is for people.
    Failed(String),
}

/// Use of a store, for status and statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct StoreStats {
    /// Bytes for data.
    pub total_bytes: u64,
    /// Bytes free for data.
    pub free_bytes: u64,
    /// Bytes that count neither as free nor hold data: they are kept for replacing what is there.
    pub reserved_bytes: u64,
    /// Copies, tombstones excluded.
    pub objects: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Bytes of the log in use.
    pub log_used_bytes: u64,
    /// Bytes of the log.
    pub log_total_bytes: u64,
    /// Bytes of client data written (payloads of writes).
    pub written_bytes: u64,
    /// Bytes written to the devices.
    pub device_written_bytes: u64,
    /// Device writes.
    pub device_writes: u64,
    /// Device flushes.
    pub device_flushes: u64,
    /// Bytes of free blocks that the device was told of, since the store was opened.
    pub discarded_bytes: u64,
    /// Copies known to be damaged.
    pub damaged: u64,
    /// Blocks that the device refused to write, since the store was opened.
    pub refused_blocks: u64,
    /// Pages of the log and superblocks that its scrub found damaged, since the store was opened.
    pub damaged_pages: u64,
    /// Passes of the scrub over the log, since the store was opened.
    pub log_scrubs: u64,
    /// Operations that had to wait for room, since the store was opened.
    pub waits: u64,
}

/// What a store holds of one pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct PoolUse {
    /// Copies with data.
    pub copies: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Bytes of the blocks of these copies.
    pub used_bytes: u64,
}

/// What a placement group needs of a store. All of it is called from one thread; nothing blocks.
pub trait ObjectStore {
    /// Accepts an operation; its completion comes later (possibly before this returns) by `next_completion`.
    fn submit(&mut self, env: &mut Env<'_>, token: u64, op: StoreOp);
    /// Takes the completion of a disk request that this store emitted.
    fn handle_io(&mut self, env: &mut Env<'_>, id: IoId, done: DiskDone);
    /// Time passed.
    fn tick(&mut self, env: &mut Env<'_>);
    /// All inputs of this round were given: send what was held to share a log page.
    fn end_of_round(&mut self, env: &mut Env<'_>);
    /// Ends in good order: nothing more is accepted, and the next opening has nothing to find out. The disk requests that
    /// this takes are to be completed as usual.
    fn close(&mut self, _env: &mut Env<'_>) {}
    /// Whether closing is over.
    fn is_closed(&self) -> bool {
        true
    }
    /// When `tick` is due at the latest.
    fn next_deadline(&self) -> Option<Time>;
    /// Takes a finished operation.
    fn next_completion(&mut self) -> Option<Completion>;
    /// Which changes are durable when they are answered; the others are answered with [`StoreReply::Applied`].
    fn immediate_commit(&self) -> ImmediateCommit;
    /// Where it is in its life.
    fn state(&self) -> StoreState;
    /// Its name; meaningful once it is open.
    fn uuid(&self) -> StoreUuid;
    /// The versions of one copy, as of everything submitted so far (durable or not).
    fn lookup(&self, copy: CopyId) -> Option<CopyInfo>;
    /// Sectors of a version (none given: of the committed one) that were ever written, of what was carried out so far;
    /// no data are read for it. Nothing, if the copy does not exist or is a tombstone.
    fn written(&self, copy: CopyId, version: Option<Version>) -> Result<Bitmap, StoreError>;
    /// Up to `limit` copies of a pool and role whose hash is in `range`, ordered by `(hash, copy)`, as of everything
    /// submitted so far; begins after `after` if given. True if there are more.
    fn list(
        &self,
        pool: PoolId,
        role: Role,
        range: HashRange,
        after: Option<CopyId>,
        limit: usize,
        out: &mut Vec<CopyInfo>,
    ) -> bool;
    /// Summary of the same.
    fn digest(&self, pool: PoolId, role: Role, range: HashRange) -> Digest;
    /// All roles in which there are copies of a pool in the range.
    fn roles(&self, pool: PoolId, range: HashRange) -> Vec<Role>;
    /// Sum over a version's content, from the checksums in memory: the [marks](unit_mark) of its units. `None`: it is not
    /// there, is a tombstone, or not carried out yet.
    fn content_sum(&self, copy: CopyId, version: Version) -> Option<u64>;
    /// Use.
    fn stats(&self) -> StoreStats;
    /// Use by pool; kept up, not counted.
    fn use_by_pool(&self) -> Vec<(PoolId, PoolUse)>;
    /// How long its device took.
    fn device_stages(&self) -> DeviceStages {
        DeviceStages::default()
    }
    /// Panics if an invariant is broken.
    fn check(&self);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use std::collections::BTreeSet;

    #[test]
    fn a_bitmap_is_a_set_of_sectors() {
        let mut rng = Rng::new(3);
        for _ in 0..300 {
            let (mut bitmap, mut set) = (Bitmap::default(), BTreeSet::new());
            for _ in 0..6 {
                let (first, count) = (rng.below(260) as u32, rng.below(140) as u32);
                let written = rng.chance(2, 3);
                bitmap.set(first, count, written);
                for sector in first..first + count {
                    let _ = if written { set.insert(sector) } else { set.remove(&sector) };
                }
                assert!((0..420).all(|sector| bitmap.get(sector) == set.contains(&sector)));
                assert_eq!(bitmap.end(), set.last().map_or(0, |last| last + 1));
                assert_ne!(bitmap.words.last(), Some(&0), "it ends with a written sector");
            }
        }
    }
}
