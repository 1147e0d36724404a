//! Reads: what each unit of a range comes from is captured when the read's turn comes; then the block is read, every
//! unit verified, and the answer put together with its checksum.
//!
//! Invariant: from capture to answer the block is pinned (not free), and no compaction writes a unit of it that is to
//! be read from it.

use super::crc::{Combined, of_zero_unit};
use super::index::ObjectIndex;
use super::object::{State, Versions, sectors};
use super::record::{NO_BLOCK, UnitData};
use super::running::{Io, Running};
use crate::buf::{Buf, UNIT, UNIT_USIZE};
use crate::id::{CopyId, Requests, Version};
use crate::io::{DiskError, Env};
use crate::limits::SECTOR_BYTES;
use crate::planted::{Bug, planted};
use crate::slab::Key;
use crate::store::{Bitmap, Content, Data, StoreError, StoreOp, StoreReply};
use smallvec::SmallVec;

/// Reads, one after the other, that find damage nobody knew of, until the device counts as failing: more than a bad spot takes,
/// and soon reached by a device that reads nothing, or keeps nothing that it is told to write.
const UNREAD_MOST: u32 = 64;

/// Where the bytes of a unit are.
#[derive(Clone, Debug)]
pub enum Source {
    /// Nowhere: never written.
    Zero,
    /// In memory.
    Overlay(UnitData),
    /// In the block; its CRC.
    Block(u32),
}

/// What a read answers besides the bytes.
#[derive(Clone, Debug)]
enum Answer {
    Range,
    Whole { predecessor: Version, requests: Requests },
}

/// A read under way.
#[derive(Clone, Debug)]
pub struct ReadOp {
    token: u64,
    object: ObjectIndex,
    version: Version,
    answer: Answer,
    /// Byte range of the object.
    offset: u32,
    len: u32,
    bitmap: Bitmap,
    /// Block of the units that come from one; pinned.
    block: u32,
    /// First unit of the range, and what each is made of.
    first: usize,
    units: SmallVec<[Source; 32]>,
}

impl Versions {
    /// Where the bytes of a unit of a version are.
    pub fn source(&self, state: &State, unit: usize) -> Source {
        if state.bitmap.unit(unit) == 0 {
            return Source::Zero;
        }
        if let Some(overlay) = state.overlay(unit) {
            return Source::Overlay(overlay.data.clone());
        }
        match self.committed.as_ref().filter(|_| state.on_top) {
            Some(below) => self.source(below, unit),
            None => Source::Block(state.sums[unit]),
        }
    }

    /// The block that the units of a version without overlay are in.
    pub fn block_of(&self, state: &State) -> u32 {
        if state.on_top { self.committed.as_ref().map_or(NO_BLOCK, |below| below.block) } else { state.block }
    }

    /// The version that a read asks for.
    fn find(&self, version: Option<Version>, prepared_too: bool) -> Result<Option<&State>, StoreError> {
        let Some(version) = version else {
            return Ok(if prepared_too { self.newest() } else { self.committed.as_ref() });
        };
        let mut states = self.committed.iter().chain(self.prepared.as_deref());
        states.find(|state| state.version() == version).map(Some).ok_or(StoreError::NoSuchVersion)
    }
}

impl ReadOp {
    /// Whether it reads a unit of `units` (bit `n` of word `n / 64`) from the block.
    pub fn conflicts(&self, block: u32, units: &[u64]) -> bool {
        let hit = |unit: usize| units.get(unit / 64).is_some_and(|word| word >> (unit % 64) & 1 == 1);
        let from_block =
            |(place, source): (usize, &Source)| matches!(source, Source::Block(_)) && hit(self.first + place);
        self.block == block && self.units.iter().enumerate().any(from_block)
    }

    /// Whether it reads this block.
    pub fn reads(&self, block: u32) -> bool {
        self.block == block
    }

    /// Reads from `to` what was to be read from `from`. False if it reads another block.
    pub fn follow(&mut self, from: u32, to: u32) -> bool {
        let follows = self.block == from;
        self.block = if follows { to } else { self.block };
        follows
    }

    /// First and last unit, by place in the range, that come from the block.
    fn span(&self) -> Option<(usize, usize)> {
        let from_block = |source: &Source| matches!(source, Source::Block(_));
        Some((self.units.iter().position(from_block)?, self.units.iter().rposition(from_block)?))
    }

    /// The part of a unit (by place) that is asked for: from, to, in bytes of the object.
    fn piece(&self, place: usize) -> (u32, u32) {
        let start = u32::try_from(self.first + place).expect("units of one object") * UNIT;
        (start.max(self.offset), (start + UNIT).min(self.offset + self.len))
    }

    /// Verifies what was read against the checksums; the first unit that does not match.
    fn damage(&self, from: usize, block: &Buf) -> Option<StoreError> {
        let bad = |(place, source): (usize, &Source)| {
            let (bytes, crc) = match source {
                Source::Zero => return false,
                Source::Overlay(data) => (data.buf.bytes(), data.crc),
                Source::Block(crc) => (&block.bytes()[(place - from) * UNIT_USIZE..][..UNIT_USIZE], *crc),
            };
            crc32fast::hash(bytes) != crc && !planted(Bug::TrustMedium)
        };
        let place = self.units.iter().enumerate().position(bad)?;
        let (start, end) = self.piece(place);
        Some(StoreError::Damaged { offset: start, len: end - start })
    }

    /// The bytes asked for, put together; `block` begins with the unit at place `from`.
    fn assemble(&self, env: &mut Env<'_>, from: usize, block: &Buf) -> Buf {
        if !self.units.is_empty() && self.units.iter().all(|source| matches!(source, Source::Block(_))) {
            let first = u32::try_from(self.first).expect("units of one object") * UNIT;
            return block.slice(self.offset - first, self.len);
        }
        let mut buf = env.bufs.alloc(self.len);
        for (place, source) in self.units.iter().enumerate() {
            let (start, end) = self.piece(place);
            let (at, len) = (start - self.offset, end - start);
            let inside = start % UNIT;
            match source {
                Source::Zero => buf.zero(at, len),
                Source::Overlay(data) => buf.copy_from(at, &data.buf.slice(inside, len)),
                Source::Block(_) => {
                    let unit = u32::try_from(place - from).expect("units of one object") * UNIT;
                    buf.copy_from(at, &block.slice(unit + inside, len));
                }
            }
        }
        env.bufs.freeze(buf)
    }

    /// CRC of the bytes asked for: from the units' where they are whole.
    fn crc(&self, buf: &Buf) -> u32 {
        let mut combined = Combined::default();
        for (place, source) in self.units.iter().enumerate() {
            let (start, end) = self.piece(place);
            let len = end - start;
            let crc = match source {
                _ if len < UNIT => buf.slice(start - self.offset, len).crc(),
                Source::Zero => of_zero_unit(),
                Source::Overlay(UnitData { crc, .. }) | Source::Block(crc) => *crc,
            };
            combined.append(crc, len);
        }
        combined.crc()
    }

    fn reply(&self, env: &mut Env<'_>, from: usize, block: &Buf) -> StoreReply {
        let buf = self.assemble(env, from, block);
        let crc = self.crc(&buf);
        let data = Data { buf, crc };
        let (version, bitmap) = (self.version, self.bitmap.clone());
        match &self.answer {
            Answer::Range => StoreReply::Read { version, data, bitmap },
            Answer::Whole { predecessor, requests } => StoreReply::Whole {
                version,
                predecessor: *predecessor,
                content: Content::Data { data, bitmap },
                requests: requests.clone(),
            },
        }
    }
}

/// What became of capturing a read.
pub enum Captured {
    /// To be started.
    Read(Key<ReadOp>),
    /// It needs no device.
    Answer(StoreReply),
}

impl Running {
    /// Captures what a read sees now.
    pub(super) fn capture(
        &mut self,
        env: &mut Env<'_>,
        token: u64,
        object: Option<ObjectIndex>,
        request: &StoreOp,
    ) -> Result<Captured, StoreError> {
        let none = Versions::default();
        let view = object.and_then(|place| self.objects.view(place));
        let versions = view.as_ref().map_or(&none, |object| &object.versions);
        let (state, whole) = match request {
            StoreOp::ReadAll { version, .. } => (versions.find(*version, true)?, true),
            StoreOp::Read { version, .. } => (versions.find(*version, false)?, false),
            other => panic!("{other:?} is not a read"),
        };
        let read = match (object, state) {
            (Some(object), Some(state)) if !state.is_tombstone() => plan(token, object, versions, state, request),
            (_, Some(state)) if whole => return Ok(Captured::Answer(tombstone(state))),
            _ if whole => return Err(StoreError::NoSuchVersion),
            _ => return Ok(Captured::Answer(nothing(env, request))),
        };
        self.blocks.pin(read.block);
        Ok(Captured::Read(self.reads.insert(read)))
    }

    /// Sectors of a version that were ever written.
    pub(super) fn written(&self, copy: CopyId, version: Option<Version>) -> Result<Bitmap, StoreError> {
        let none = Versions::default();
        let view = self.objects.find(copy).and_then(|place| self.objects.glance(place));
        let versions = view.as_ref().map_or(&none, |object| &object.versions);
        Ok(versions.find(version, false)?.map(|state| state.bitmap.clone()).unwrap_or_default())
    }

    /// Sends the device read of a captured read, or answers it from memory.
    pub(super) fn start_read(&mut self, env: &mut Env<'_>, key: Key<ReadOp>) {
        let read = self.reads.get(key).expect("captured");
        let Some((first, last)) = read.span() else {
            let nothing = env.bufs.alloc(0).freeze();
            return self.finish_read(env, key, Ok(nothing));
        };
        let units = u32::try_from(last - first + 1).expect("units of one object");
        let (block, unit) = (read.block, read.first + first);
        self.read_block(env, block, unit, units * UNIT, Io::Read(key));
    }

    /// The device answered a read.
    pub(super) fn finish_read(&mut self, env: &mut Env<'_>, key: Key<ReadOp>, result: Result<Buf, DiskError>) {
        let read = self.reads.remove(key).expect("a read is finished once");
        self.blocks.unpin(read.block);
        let from = read.span().map_or(0, |(first, _)| first);
        let damage = match &result {
            Ok(block) => read.damage(from, block),
            Err(_) => Some(StoreError::Damaged { offset: read.offset, len: read.len }),
        };
        let result = match (damage, result) {
            (None, Ok(block)) => {
                // What is in memory says nothing of the device.
                self.unread = if read.span().is_some() { 0 } else { self.unread };
                Ok(read.reply(env, from, &block))
            }
            (damage, _) => {
                if self.note_damage(read.object, read.version) {
                    self.count_unread(env);
                }
                Err(damage.unwrap_or(StoreError::Damaged { offset: read.offset, len: read.len }))
            }
        };
        self.complete(read.token, result);
    }

    /// Counts what turns out to be damaged, one after the other. Each copy can be repaired from others, but those of a device
    /// that reads, or keeps, nothing any more would be repaired for ever.
    fn count_unread(&mut self, env: &mut Env<'_>) {
        self.unread += 1;
        if self.unread == UNREAD_MOST {
            self.fail(
                env,
                format!("of {UNREAD_MOST} reads, one after the other, the device gave nothing that was whole"),
            );
        }
    }

    /// A version turned out to be damaged. Whether that was not known.
    pub(super) fn note_damage(&mut self, place: ObjectIndex, version: Version) -> bool {
        if self.objects.view(place).is_none() {
            return false;
        }
        let object = self.objects.wake(place);
        let Versions { committed, prepared } = &mut object.versions;
        let mut is_news = false;
        for state in committed.iter_mut().chain(prepared.as_deref_mut()) {
            is_news |= state.version() == version && !std::mem::replace(&mut state.damaged, true);
        }
        let overlays = object.versions.overlays();
        self.count(place, overlays);
        self.objects.rest(place);
        is_news
    }
}

fn plan(token: u64, object: ObjectIndex, versions: &Versions, state: &State, request: &StoreOp) -> ReadOp {
    let (offset, len, answer) = match request {
        StoreOp::Read { offset, len, .. } => (*offset, *len, Answer::Range),
        _ => {
            let (predecessor, requests) = (state.label.predecessor, state.label.requests.clone());
            (0, state.bitmap.end() * SECTOR_BYTES, Answer::Whole { predecessor, requests })
        }
    };
    let range = sectors(offset, len);
    let first = (offset / UNIT) as usize;
    let end = ((offset + len).div_ceil(UNIT) as usize).max(first);
    ReadOp {
        token,
        object,
        version: state.version(),
        answer,
        offset,
        len,
        bitmap: state.bitmap.part(range.first.into(), range.count.into()),
        block: versions.block_of(state),
        first,
        units: (first..end).map(|unit| versions.source(state, unit)).collect(),
    }
}

fn tombstone(state: &State) -> StoreReply {
    StoreReply::Whole {
        version: state.version(),
        predecessor: state.label.predecessor,
        content: Content::Tombstone,
        requests: state.label.requests.clone(),
    }
}

/// Answer of a read where there is no data.
fn nothing(env: &mut Env<'_>, request: &StoreOp) -> StoreReply {
    let len = if let StoreOp::Read { len, .. } = request { *len } else { 0 };
    let zeroes = env.bufs.zeroed(len);
    let data = Data::new(env.bufs.freeze(zeroes));
    StoreReply::Read { version: Version::NONE, data, bitmap: Bitmap::default() }
}
