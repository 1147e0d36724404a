//! Records of the log and their bytes (docs/format.md). What they do to an object is in [`super::object`].

use super::bytes::{Reader, TooShort, Writer};
use super::object::{Content, Overlay, State, Sums};
use super::page::Sequence;
use crate::buf::{Buf, BufPool, UNIT_USIZE};
use crate::id::{ClientId, CopyId, Epoch, InodeId, ObjectId, PoolId, RequestId, Requests, Role, Session, Version};
use crate::limits::SECTOR_BYTES;
use crate::store::{Bitmap, Mode};
use smallvec::SmallVec;

/// Number of a block that is none.
pub const NO_BLOCK: u32 = u32::MAX;
/// Length of the header of each record.
const HEADER_BYTES: usize = 8;
/// Version of the layout of every kind.
const LAYOUT: u8 = 1;

const PREPARE: u16 = 1;
const COMMITS: u16 = 2;
const REPLACES: u16 = 4;
const FIRST: u16 = 8;
const HAS_COMMITTED: u16 = 1;
const HAS_PREPARED: u16 = 2;
const PART_DATA: u8 = 1;
const PART_TOMBSTONE: u8 = 2;
const PART_DAMAGED: u8 = 1;
const PART_ON_TOP: u8 = 2;

/// A range of sectors of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sectors {
    /// The first.
    pub first: u16,
    /// How many.
    pub count: u16,
}

/// What every new version carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Label {
    /// The version.
    pub version: Version,
    /// What it came after.
    pub predecessor: Version,
    /// The requests that it includes.
    pub requests: Requests,
}

/// How a new version joins what is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Join {
    /// Committed or prepared.
    pub mode: Mode,
    /// Whether what was prepared is committed first.
    pub commits: bool,
    /// Whether what was there does not matter.
    pub replaces: bool,
    /// Whether nothing was there: replay may begin with it.
    pub first: bool,
}

/// One unit of data with its checksum.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnitData {
    /// Its number in the copy.
    pub unit: u16,
    /// CRC of its bytes.
    pub crc: u32,
    /// Its bytes, a whole unit.
    pub buf: Buf,
}

/// Place of a record in the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Position {
    /// Sequence of its page.
    pub page: Sequence,
    /// Which of the page's records.
    pub index: u16,
}

/// What a record says about its object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// Data in a block.
    Put {
        /// The version.
        label: Label,
        /// How it joins.
        join: Join,
        /// Where the data are.
        block: u32,
        /// Sectors written.
        bitmap: Bitmap,
        /// By unit; zero where not written.
        sums: Sums,
    },
    /// Data in the log, on top of what is there.
    Inline {
        /// The version.
        label: Label,
        /// How it joins.
        join: Join,
        /// Sectors that become written.
        set: Sectors,
        /// Sectors that become unwritten, before the others become written.
        clear: Sectors,
        /// The units, in rising order.
        units: Vec<UnitData>,
    },
    /// What a version has that an older one on top of which it comes has not, as data in the log.
    Patch {
        /// The version.
        label: Label,
        /// How it joins.
        join: Join,
        /// Sectors written, all of them.
        bitmap: Bitmap,
        /// The units, in rising order.
        units: Vec<UnitData>,
    },
    /// Data that go straight into the block.
    Intent {
        /// The version.
        label: Label,
        /// The object's block.
        block: u32,
        /// First unit.
        first_unit: u16,
        /// Sectors that become written.
        set: Sectors,
        /// CRCs of the units.
        sums: Sums,
    },
    /// The prepared version is committed.
    Commit(Version),
    /// The prepared version is dropped.
    Rollback(Version),
    /// Deletion.
    Tombstone {
        /// The version.
        label: Label,
        /// How it joins.
        join: Join,
    },
    /// Nothing is left.
    Purge(Version),
    /// Overlays that went into the block.
    Compacted {
        /// Only overlays of pages up to this one.
        upto: Sequence,
        /// The units: bit `n` of word `n / 64`.
        units: SmallVec<[u64; 4]>,
    },
    /// All of the object.
    Snapshot {
        /// Its committed version.
        committed: Option<State>,
        /// Its prepared version.
        prepared: Option<Box<State>>,
    },
    /// The object's records from there up to here never were.
    Void(Position),
    /// What was to be in one block is in another: the device refused to write the first.
    Moved {
        /// The block that was refused.
        from: u32,
        /// Where the data are.
        to: u32,
    },
}

/// A record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The object.
    pub copy: CopyId,
    /// What of it.
    pub body: Body,
}

/// Why bytes of a valid page are no record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadRecord {
    /// A kind, layout or flag that this version does not know.
    Unknown,
    /// Lengths do not fit.
    Malformed,
}

impl From<TooShort> for BadRecord {
    fn from(_: TooShort) -> Self {
        BadRecord::Malformed
    }
}

fn count<T: TryFrom<usize>>(len: usize) -> T {
    // Units, words, requests and sums of one object are bounded by limits.rs, far below their fields.
    T::try_from(len).unwrap_or_else(|_| panic!("{len} items in one record"))
}

/// How a bitmap is stored: a prefix, or words.
fn bitmap_parts(bitmap: &Bitmap) -> (u16, &[u64]) {
    let words = bitmap.words.as_slice();
    match bitmap.prefix() {
        Some(sectors) => (count(sectors as usize), &[]),
        None => (0, words),
    }
}

fn bitmap_bytes(bitmap: &Bitmap) -> usize {
    bitmap_parts(bitmap).1.len() * 8
}

fn written_units(bitmap: &Bitmap) -> usize {
    let of_word = |word: &u64| word.to_le_bytes().iter().filter(|unit| **unit != 0).count();
    bitmap.words.iter().map(of_word).sum()
}

fn is_data(state: &State) -> bool {
    state.content == Content::Data
}

/// Bytes of one version in a snapshot.
pub fn part_bytes(state: &State) -> usize {
    let overlays = state.overlays.len();
    head_bytes(state) + ((overlays * 2).next_multiple_of(4) + overlays * 4).next_multiple_of(8) + overlays * UNIT_USIZE
}

/// Of them, those that are not of overlays.
fn head_bytes(state: &State) -> usize {
    let sums = if state.on_top || !is_data(state) { 0 } else { written_units(&state.bitmap) };
    48 + bitmap_bytes(&state.bitmap) + state.label.requests.len() * 24 + (sums * 4).next_multiple_of(8)
}

/// Bytes of a snapshot of these versions once the committed one has no overlays.
pub fn compacted_snapshot_bytes(committed: Option<&State>, prepared: Option<&State>) -> usize {
    32 + committed.map_or(0, head_bytes) + prepared.map_or(0, part_bytes)
}

/// Bytes of a snapshot of these versions.
pub fn snapshot_bytes(committed: Option<&State>, prepared: Option<&State>) -> usize {
    32 + committed.map_or(0, part_bytes) + prepared.map_or(0, part_bytes)
}

impl Body {
    fn kind(&self) -> u8 {
        match self {
            Body::Put { .. } => 1,
            Body::Inline { .. } => 2,
            Body::Intent { .. } => 3,
            Body::Commit(_) => 4,
            Body::Rollback(_) => 5,
            Body::Tombstone { .. } => 6,
            Body::Purge(_) => 7,
            Body::Compacted { .. } => 8,
            Body::Snapshot { .. } => 9,
            Body::Void(_) => 10,
            Body::Moved { .. } => 11,
            Body::Patch { .. } => 12,
        }
    }

    fn flags(&self) -> u16 {
        match self {
            Body::Put { join, .. }
            | Body::Inline { join, .. }
            | Body::Patch { join, .. }
            | Body::Tombstone { join, .. } => {
                let flag = |set: bool, flag: u16| if set { flag } else { 0 };
                flag(join.mode == Mode::Prepare, PREPARE)
                    | flag(join.commits, COMMITS)
                    | flag(join.replaces, REPLACES)
                    | flag(join.first, FIRST)
            }
            Body::Snapshot { committed, prepared } => {
                u16::from(committed.is_some()) * HAS_COMMITTED + u16::from(prepared.is_some()) * HAS_PREPARED
            }
            _ => 0,
        }
    }

    /// Bytes of the record, header included, before padding.
    fn unpadded(&self) -> usize {
        match self {
            Body::Put { label, bitmap, .. } => {
                80 + bitmap_bytes(bitmap) + label.requests.len() * 24 + written_units(bitmap) * 4
            }
            Body::Inline { label, units, .. } => {
                let numbers = (units.len() * 2).next_multiple_of(4);
                let head = 80 + label.requests.len() * 24 + numbers + units.len() * 4;
                head.next_multiple_of(8) + units.len() * UNIT_USIZE
            }
            Body::Patch { label, bitmap, units, .. } => {
                let numbers = (units.len() * 2).next_multiple_of(4);
                let head = 72 + bitmap_bytes(bitmap) + label.requests.len() * 24 + numbers + units.len() * 4;
                head.next_multiple_of(8) + units.len() * UNIT_USIZE
            }
            Body::Intent { label, sums, .. } => 80 + label.requests.len() * 24 + sums.len() * 4,
            Body::Commit(_) | Body::Rollback(_) | Body::Purge(_) | Body::Void(_) => 48,
            Body::Moved { .. } => 40,
            Body::Tombstone { label, .. } => 72 + label.requests.len() * 24,
            Body::Compacted { units, .. } => 48 + units.len() * 8,
            Body::Snapshot { committed, prepared } => snapshot_bytes(committed.as_ref(), prepared.as_deref()),
        }
    }
}

impl Record {
    /// Length in bytes.
    pub fn bytes(&self) -> usize {
        self.body.unpadded().next_multiple_of(8)
    }

    /// Writes the record to the start of `bytes`.
    pub fn encode(&self, bytes: &mut [u8]) {
        let length = self.bytes();
        let mut writer = Writer::new(&mut bytes[..length]);
        writer.u8(self.body.kind());
        writer.u8(LAYOUT);
        writer.u16(self.body.flags());
        writer.u32(count(length));
        write_copy(&mut writer, self.copy);
        self.encode_body(&mut writer);
        writer.pad(8);
        assert_eq!(writer.at(), length, "record of {:?}", self.copy);
    }

    fn encode_body(&self, writer: &mut Writer<'_>) {
        match &self.body {
            Body::Put { label, block, bitmap, sums, .. } => write_put(writer, label, *block, bitmap, sums),
            Body::Inline { label, set, clear, units, .. } => write_inline(writer, label, *set, *clear, units),
            Body::Patch { label, bitmap, units, .. } => write_patch(writer, label, bitmap, units),
            Body::Intent { label, block, first_unit, set, sums } => {
                write_intent(writer, label, *block, *first_unit, *set, sums);
            }
            Body::Commit(version) | Body::Rollback(version) | Body::Purge(version) => write_version(writer, *version),
            Body::Tombstone { label, .. } => {
                write_label(writer, label);
                writer.u8(count(label.requests.len()));
                writer.zeroes(7);
                write_requests(writer, &label.requests);
            }
            Body::Compacted { upto, units } => {
                writer.u64(*upto);
                writer.u8(count(units.len()));
                writer.zeroes(7);
                units.iter().for_each(|word| writer.u64(*word));
            }
            Body::Snapshot { committed, prepared } => {
                committed.iter().for_each(|state| write_part(writer, state));
                prepared.iter().for_each(|state| write_part(writer, state));
            }
            Body::Void(position) => {
                writer.u64(position.page);
                writer.u16(position.index);
                writer.zeroes(6);
            }
            Body::Moved { from, to } => {
                writer.u32(*from);
                writer.u32(*to);
            }
        }
    }

    /// Of which object the record at the start of `bytes` is, and how long it is, if it is one.
    pub fn glance(bytes: &[u8]) -> Option<(CopyId, usize)> {
        let mut reader = Reader::new(bytes);
        reader.bytes(4).ok()?;
        let length = reader.u32().ok()? as usize;
        Some((read_copy(&mut reader).ok()?, length.max(HEADER_BYTES)))
    }

    /// Reads the record at the start of `bytes`, for objects of `units` units; also says how long it is. Data of
    /// units are copied into buffers of `pool`.
    pub fn decode(bytes: &[u8], units: usize, pool: &mut BufPool) -> Result<(Record, usize), BadRecord> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u8()?;
        let layout = reader.u8()?;
        let flags = reader.u16()?;
        let length = reader.u32()? as usize;
        if layout != LAYOUT {
            return Err(BadRecord::Unknown);
        }
        if length < HEADER_BYTES || !length.is_multiple_of(8) {
            return Err(BadRecord::Malformed);
        }
        let mut reader = Reader::new(bytes.get(..length).ok_or(BadRecord::Malformed)?);
        reader.bytes(HEADER_BYTES)?;
        let copy = read_copy(&mut reader)?;
        let body = read_body(kind, flags, &mut reader, units, pool)?;
        Ok((Record { copy, body }, length))
    }
}

fn write_copy(writer: &mut Writer<'_>, copy: CopyId) {
    writer.u32(copy.object.pool.0);
    writer.u8(copy.role.0);
    writer.zeroes(3);
    writer.u64(copy.object.inode.0);
    writer.u64(copy.object.stripe);
}

fn write_version(writer: &mut Writer<'_>, version: Version) {
    writer.u64(version.epoch.0);
    writer.u64(version.seq);
}

fn write_label(writer: &mut Writer<'_>, label: &Label) {
    write_version(writer, label.version);
    write_version(writer, label.predecessor);
}

fn write_requests(writer: &mut Writer<'_>, requests: &Requests) {
    for request in requests {
        writer.u64(request.session.client.0);
        writer.u64(request.session.number);
        writer.u64(request.number);
    }
}

fn write_sums(writer: &mut Writer<'_>, bitmap: &Bitmap, sums: &Sums) {
    bitmap.units().for_each(|unit| writer.u32(sums[unit]));
}

fn write_sectors(writer: &mut Writer<'_>, sectors: Sectors) {
    writer.u16(sectors.first);
    writer.u16(sectors.count);
}

fn write_put(writer: &mut Writer<'_>, label: &Label, block: u32, bitmap: &Bitmap, sums: &Sums) {
    let (prefix, words) = bitmap_parts(bitmap);
    write_label(writer, label);
    writer.u32(block);
    writer.u16(prefix);
    writer.u8(count(words.len()));
    writer.u8(count(label.requests.len()));
    writer.u16(count(written_units(bitmap)));
    writer.zeroes(6);
    words.iter().for_each(|word| writer.u64(*word));
    write_requests(writer, &label.requests);
    write_sums(writer, bitmap, sums);
}

fn write_inline(writer: &mut Writer<'_>, label: &Label, set: Sectors, clear: Sectors, units: &[UnitData]) {
    write_label(writer, label);
    write_sectors(writer, set);
    write_sectors(writer, clear);
    writer.u16(count(units.len()));
    writer.u8(count(label.requests.len()));
    writer.zeroes(5);
    write_requests(writer, &label.requests);
    write_units(writer, units.iter());
}

fn write_patch(writer: &mut Writer<'_>, label: &Label, bitmap: &Bitmap, units: &[UnitData]) {
    let (prefix, words) = bitmap_parts(bitmap);
    write_label(writer, label);
    writer.u16(prefix);
    writer.u8(count(words.len()));
    writer.u8(count(label.requests.len()));
    writer.u16(count(units.len()));
    writer.zeroes(2);
    words.iter().for_each(|word| writer.u64(*word));
    write_requests(writer, &label.requests);
    write_units(writer, units.iter());
}

fn write_units<'a>(writer: &mut Writer<'_>, units: impl Iterator<Item = &'a UnitData> + Clone) {
    units.clone().for_each(|unit| writer.u16(unit.unit));
    writer.pad(4);
    units.clone().for_each(|unit| writer.u32(unit.crc));
    writer.pad(8);
    units.for_each(|unit| writer.bytes(unit.buf.bytes()));
}

fn write_intent(writer: &mut Writer<'_>, label: &Label, block: u32, first_unit: u16, set: Sectors, sums: &Sums) {
    write_label(writer, label);
    writer.u32(block);
    writer.u16(first_unit);
    writer.u16(count(sums.len()));
    write_sectors(writer, set);
    writer.u8(count(label.requests.len()));
    writer.zeroes(3);
    write_requests(writer, &label.requests);
    sums.iter().for_each(|sum| writer.u32(*sum));
}

fn write_part(writer: &mut Writer<'_>, state: &State) {
    let (prefix, words) = bitmap_parts(&state.bitmap);
    let has_sums = is_data(state) && !state.on_top;
    write_label(writer, &state.label);
    writer.u32(state.block);
    writer.u16(prefix);
    writer.u8(count(words.len()));
    writer.u8(count(state.label.requests.len()));
    writer.u16(if has_sums { count(written_units(&state.bitmap)) } else { 0 });
    writer.u16(count(state.overlays.len()));
    writer.u8(if is_data(state) { PART_DATA } else { PART_TOMBSTONE });
    writer.u8(u8::from(state.damaged) * PART_DAMAGED + u8::from(state.on_top) * PART_ON_TOP);
    writer.zeroes(2);
    words.iter().for_each(|word| writer.u64(*word));
    write_requests(writer, &state.label.requests);
    if has_sums {
        write_sums(writer, &state.bitmap, &state.sums);
    }
    writer.pad(8);
    write_units(writer, state.overlays.iter().map(|overlay| &overlay.data));
}

fn read_copy(reader: &mut Reader<'_>) -> Result<CopyId, TooShort> {
    let pool = PoolId(reader.u32()?);
    let role = Role(reader.u8()?);
    reader.bytes(3)?;
    let object = ObjectId { pool, inode: InodeId(reader.u64()?), stripe: reader.u64()? };
    Ok(CopyId { object, role })
}

fn read_version(reader: &mut Reader<'_>) -> Result<Version, TooShort> {
    Ok(Version { epoch: Epoch(reader.u64()?), seq: reader.u64()? })
}

fn read_label(reader: &mut Reader<'_>) -> Result<Label, TooShort> {
    let version = read_version(reader)?;
    Ok(Label { version, predecessor: read_version(reader)?, requests: Requests::new() })
}

fn read_requests(reader: &mut Reader<'_>, count: u8) -> Result<Requests, TooShort> {
    let mut requests = Requests::new();
    for _ in 0..count {
        let session = Session { client: ClientId(reader.u64()?), number: reader.u64()? };
        requests.push(RequestId { session, number: reader.u64()? });
    }
    Ok(requests)
}

fn read_sectors(reader: &mut Reader<'_>, units: usize) -> Result<Sectors, BadRecord> {
    let sectors = Sectors { first: reader.u16()?, count: reader.u16()? };
    let end = usize::from(sectors.first) + usize::from(sectors.count);
    if end * SECTOR_BYTES as usize > units * UNIT_USIZE { Err(BadRecord::Malformed) } else { Ok(sectors) }
}

fn read_bitmap(reader: &mut Reader<'_>, prefix: u16, words: u8, units: usize) -> Result<Bitmap, BadRecord> {
    let mut bitmap = Bitmap::first(if words > 0 { 0 } else { prefix.into() });
    for _ in 0..words {
        bitmap.words.push(reader.u64()?);
    }
    bitmap.trim();
    if bitmap.units().last().is_some_and(|unit| unit >= units) { Err(BadRecord::Malformed) } else { Ok(bitmap) }
}

/// Whether what is written has a block to be in, and nothing else has one.
fn agree(block: u32, bitmap: &Bitmap) -> bool {
    (block == NO_BLOCK) == bitmap.words.is_empty()
}

fn read_sums(reader: &mut Reader<'_>, bitmap: &Bitmap, count: u16, units: usize) -> Result<Sums, BadRecord> {
    if usize::from(count) != written_units(bitmap) {
        return Err(BadRecord::Malformed);
    }
    let mut sums = Sums::from_elem(0, units);
    let (stored, _) = reader.bytes(usize::from(count) * 4)?.as_chunks();
    for (unit, sum) in bitmap.units().zip(stored) {
        sums[unit] = u32::from_le_bytes(*sum);
    }
    Ok(sums)
}

fn read_units(
    reader: &mut Reader<'_>,
    count: u16,
    units: usize,
    pool: &mut BufPool,
) -> Result<Vec<UnitData>, BadRecord> {
    let mut numbers: SmallVec<[u16; 32]> = SmallVec::new();
    let mut sums: SmallVec<[u32; 32]> = SmallVec::new();
    for _ in 0..count {
        numbers.push(reader.u16()?);
    }
    reader.pad(4)?;
    for _ in 0..count {
        sums.push(reader.u32()?);
    }
    reader.pad(8)?;
    if numbers.windows(2).any(|pair| pair[0] >= pair[1]) || numbers.iter().any(|unit| usize::from(*unit) >= units) {
        return Err(BadRecord::Malformed);
    }
    let mut read = Vec::with_capacity(numbers.len());
    for (unit, crc) in numbers.iter().zip(&sums) {
        let buf = pool.copy_of(reader.bytes(UNIT_USIZE)?);
        read.push(UnitData { unit: *unit, crc: *crc, buf });
    }
    Ok(read)
}

fn read_join(flags: u16, allowed: u16) -> Result<Join, BadRecord> {
    if flags & !allowed != 0 {
        return Err(BadRecord::Unknown);
    }
    let mode = if flags & PREPARE != 0 { Mode::Prepare } else { Mode::Plain };
    let has = |flag: u16| flags & flag != 0;
    Ok(Join { mode, commits: has(COMMITS), replaces: has(REPLACES), first: has(FIRST) })
}

fn read_body(
    kind: u8,
    flags: u16,
    reader: &mut Reader<'_>,
    units: usize,
    pool: &mut BufPool,
) -> Result<Body, BadRecord> {
    if matches!(kind, 3..=5 | 7 | 8 | 10 | 11) && flags != 0 {
        return Err(BadRecord::Unknown);
    }
    match kind {
        1 => read_put(read_join(flags, PREPARE | COMMITS | REPLACES | FIRST)?, reader, units),
        2 => read_inline(read_join(flags, PREPARE | COMMITS | FIRST)?, reader, units, pool),
        3 => read_intent(reader, units),
        4 => Ok(Body::Commit(read_version(reader)?)),
        5 => Ok(Body::Rollback(read_version(reader)?)),
        6 => read_tombstone(read_join(flags, PREPARE | COMMITS | REPLACES | FIRST)?, reader),
        7 => Ok(Body::Purge(read_version(reader)?)),
        8 => read_compacted(reader),
        9 => read_snapshot(flags, reader, units, pool),
        10 => Ok(Body::Void(Position { page: reader.u64()?, index: reader.u16()? })),
        11 => Ok(Body::Moved { from: reader.u32()?, to: reader.u32()? }),
        12 => read_patch(read_join(flags, COMMITS)?, reader, units, pool),
        _ => Err(BadRecord::Unknown),
    }
}

fn read_put(join: Join, reader: &mut Reader<'_>, units: usize) -> Result<Body, BadRecord> {
    let mut label = read_label(reader)?;
    let block = reader.u32()?;
    let (prefix, words, requests, count) = (reader.u16()?, reader.u8()?, reader.u8()?, reader.u16()?);
    reader.bytes(6)?;
    let bitmap = read_bitmap(reader, prefix, words, units)?;
    if !agree(block, &bitmap) {
        return Err(BadRecord::Malformed);
    }
    label.requests = read_requests(reader, requests)?;
    let sums = read_sums(reader, &bitmap, count, units)?;
    Ok(Body::Put { label, join, block, bitmap, sums })
}

fn read_inline(join: Join, reader: &mut Reader<'_>, units: usize, pool: &mut BufPool) -> Result<Body, BadRecord> {
    let mut label = read_label(reader)?;
    let set = read_sectors(reader, units)?;
    let clear = read_sectors(reader, units)?;
    let (count, requests) = (reader.u16()?, reader.u8()?);
    reader.bytes(5)?;
    label.requests = read_requests(reader, requests)?;
    let data = read_units(reader, count, units, pool)?;
    Ok(Body::Inline { label, join, set, clear, units: data })
}

fn read_patch(join: Join, reader: &mut Reader<'_>, units: usize, pool: &mut BufPool) -> Result<Body, BadRecord> {
    let mut label = read_label(reader)?;
    let (prefix, words, requests, count) = (reader.u16()?, reader.u8()?, reader.u8()?, reader.u16()?);
    reader.bytes(2)?;
    let bitmap = read_bitmap(reader, prefix, words, units)?;
    label.requests = read_requests(reader, requests)?;
    let data = read_units(reader, count, units, pool)?;
    Ok(Body::Patch { label, join, bitmap, units: data })
}

fn read_intent(reader: &mut Reader<'_>, units: usize) -> Result<Body, BadRecord> {
    let mut label = read_label(reader)?;
    let (block, first_unit, count) = (reader.u32()?, reader.u16()?, reader.u16()?);
    let set = read_sectors(reader, units)?;
    let requests = reader.u8()?;
    reader.bytes(3)?;
    label.requests = read_requests(reader, requests)?;
    if usize::from(first_unit) + usize::from(count) > units {
        return Err(BadRecord::Malformed);
    }
    let mut sums = Sums::new();
    for _ in 0..count {
        sums.push(reader.u32()?);
    }
    Ok(Body::Intent { label, block, first_unit, set, sums })
}

fn read_tombstone(join: Join, reader: &mut Reader<'_>) -> Result<Body, BadRecord> {
    let mut label = read_label(reader)?;
    let requests = reader.u8()?;
    reader.bytes(7)?;
    label.requests = read_requests(reader, requests)?;
    Ok(Body::Tombstone { label, join })
}

fn read_compacted(reader: &mut Reader<'_>) -> Result<Body, BadRecord> {
    let upto = reader.u64()?;
    let words = reader.u8()?;
    reader.bytes(7)?;
    let units = (0..words).map(|_| reader.u64()).collect::<Result<_, _>>()?;
    Ok(Body::Compacted { upto, units })
}

fn read_snapshot(flags: u16, reader: &mut Reader<'_>, units: usize, pool: &mut BufPool) -> Result<Body, BadRecord> {
    if flags & !(HAS_COMMITTED | HAS_PREPARED) != 0 {
        return Err(BadRecord::Unknown);
    }
    let committed = if flags & HAS_COMMITTED != 0 { Some(read_part(reader, units, pool)?) } else { None };
    let prepared = if flags & HAS_PREPARED != 0 { Some(Box::new(read_part(reader, units, pool)?)) } else { None };
    Ok(Body::Snapshot { committed, prepared })
}

fn read_part(reader: &mut Reader<'_>, units: usize, pool: &mut BufPool) -> Result<State, BadRecord> {
    let mut label = read_label(reader)?;
    let block = reader.u32()?;
    let (prefix, words, requests) = (reader.u16()?, reader.u8()?, reader.u8()?);
    let (sums, overlays, kind, flags) = (reader.u16()?, reader.u16()?, reader.u8()?, reader.u8()?);
    reader.bytes(2)?;
    if flags & !(PART_DAMAGED | PART_ON_TOP) != 0 || !matches!(kind, PART_DATA | PART_TOMBSTONE) {
        return Err(BadRecord::Unknown);
    }
    let bitmap = read_bitmap(reader, prefix, words, units)?;
    label.requests = read_requests(reader, requests)?;
    let on_top = flags & PART_ON_TOP != 0;
    let fits = if on_top { block == NO_BLOCK } else { agree(block, &bitmap) };
    if !fits {
        return Err(BadRecord::Malformed);
    }
    let has_sums = kind == PART_DATA && !on_top && block != NO_BLOCK;
    let sums = if has_sums { read_sums(reader, &bitmap, sums, units)? } else { Sums::new() };
    reader.pad(8)?;
    let overlays = read_units(reader, overlays, units, pool)?;
    Ok(State {
        label,
        content: if kind == PART_DATA { Content::Data } else { Content::Tombstone },
        block,
        on_top,
        damaged: flags & PART_DAMAGED != 0,
        bitmap,
        sums,
        overlays: overlays.into_iter().map(|data| Overlay { page: 0, data }).collect(),
    })
}
