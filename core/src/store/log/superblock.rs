//! The superblock: what a device says of itself, and what a new store looks like (docs/format.md).

use super::bytes::{Reader, TooShort, Writer};
use super::page::{HEADER_BYTES, Header};
use super::record::NO_BLOCK;
use super::signature::tail_at;
use crate::buf::{Buf, BufPool, UNIT, UNIT_USIZE};
use crate::id::{ClusterUuid, OsdId, StoreUuid};
use crate::io::{Device, DiskOp};
use crate::limits::{BLOCK_MAX_BYTES, OBJECT_MIN_BYTES, SECTOR_BYTES};

/// First bytes of a superblock.
const MAGIC: [u8; 8] = *b"ASHLARSB";
/// The format that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// Place of the CRC.
const CRC_AT: usize = 12;
/// CRC-32.
const CHECKSUM_KIND: u8 = 1;
/// Offsets of the two copies: far enough apart that no single slip of a partitioning tool hits both.
pub const COPIES_AT: [u64; 2] = [0, 64 << 10];
/// Where the log begins, on the device that holds it.
const LOG_AT: u64 = 128 << 10;
/// What a new store writes over at the beginning of a device, besides what it puts there: marks of other systems lie in
/// it, the two first labels of ZFS furthest from its begin.
const CLEARED_BYTES: u64 = 512 << 10;
/// Least share of a device that data get, when the size of the log is chosen: a quarter. What asks for less is a slip.
const DATA_SHARE_MIN: u64 = 4;
/// Fewer segments leave no room to clean one while another is written.
const SEGMENTS_MIN: u64 = 8;
/// Records beside the data in the largest page: one object with all its checksums, bitmaps and requests, twice.
const PAGE_RECORDS_BYTES: u32 = 16 << 10;
/// A snapshot of one object without its checksums: labels, one request.
const SNAPSHOT_BYTES: u64 = 128;
/// Share of the log that snapshots of a full store may take at most: a quarter, so that cleaning stays cheap.
const SNAPSHOT_SHARE: u64 = 4;

/// What kind of device a superblock lies on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Data and log.
    Whole,
    /// Data, with the log elsewhere.
    Data,
    /// A log.
    Log,
}

impl Place {
    fn number(self) -> u8 {
        match self {
            Place::Whole => 0,
            Place::Data => 1,
            Place::Log => 2,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        [Place::Whole, Place::Data, Place::Log].into_iter().find(|place| place.number() == number)
    }
}

/// Contents of a superblock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// The store.
    pub store: StoreUuid,
    /// The cluster that it belongs to.
    pub cluster: ClusterUuid,
    /// The OSD that it belongs to.
    pub osd: OsdId,
    /// Which device this is.
    pub place: Place,
    /// Counts updates.
    pub generation: u64,
    /// Bytes of a block.
    pub block_size: u32,
    /// Bytes of a log segment.
    pub segment_size: u32,
    /// Where the log begins.
    pub log_offset: u64,
    /// Number of segments.
    pub segments: u32,
    /// Number of blocks.
    pub blocks: u32,
    /// Where block 0 begins.
    pub data_offset: u64,
    /// Features that this version does not need to know.
    pub compatible: u64,
}

/// Why bytes are no superblock that can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unusable {
    /// All zero.
    Blank,
    /// Something else.
    Foreign,
    /// A superblock, but damaged.
    Damaged,
    /// Written by a newer version, in this format.
    Newer(u32),
    /// Written by a newer version, with these features.
    Features(u64),
}

impl Superblock {
    /// The 4096 bytes.
    pub fn encode(&self, bytes: &mut [u8]) {
        let mut writer = Writer::new(bytes);
        writer.bytes(&MAGIC);
        writer.u32(FORMAT);
        writer.u32(0);
        writer.u128(self.store.0);
        writer.u128(self.cluster.0);
        writer.u32(self.osd.0);
        writer.u8(CHECKSUM_KIND);
        writer.u8(self.place.number());
        writer.zeroes(2);
        writer.u64(self.generation);
        [self.block_size, UNIT, SECTOR_BYTES, self.segment_size].iter().for_each(|value| writer.u32(*value));
        writer.u64(self.log_offset);
        writer.u32(self.segments);
        writer.u32(self.blocks);
        writer.u64(self.data_offset);
        writer.u64(self.compatible);
        writer.u64(0);
        writer.zeroes(UNIT_USIZE - 120);
        let crc = crc32fast::hash(bytes);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads 4096 bytes.
    pub fn decode(bytes: &[u8]) -> Result<Superblock, Unusable> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(Unusable::Blank);
        }
        if !bytes.starts_with(&MAGIC) {
            return Err(Unusable::Foreign);
        }
        Self::decode_ours(bytes).unwrap_or(Err(Unusable::Damaged))
    }

    fn decode_ours(bytes: &[u8]) -> Result<Result<Superblock, Unusable>, TooShort> {
        let mut reader = Reader::new(bytes.get(..UNIT_USIZE).ok_or(TooShort)?);
        reader.bytes(8)?;
        let format = reader.u32()?;
        let crc = reader.u32()?;
        if format > FORMAT {
            return Ok(Err(Unusable::Newer(format)));
        }
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&bytes[..CRC_AT]);
        hasher.update(&[0; 4]);
        hasher.update(&bytes[CRC_AT + 4..UNIT_USIZE]);
        if hasher.finalize() != crc || format == 0 {
            return Ok(Err(Unusable::Damaged));
        }
        Self::decode_fields(&mut reader)
    }

    fn decode_fields(reader: &mut Reader<'_>) -> Result<Result<Superblock, Unusable>, TooShort> {
        let store = StoreUuid(reader.u128()?);
        let cluster = ClusterUuid(reader.u128()?);
        let osd = OsdId(reader.u32()?);
        let (checksum_kind, place) = (reader.u8()?, Place::from_number(reader.u8()?));
        reader.bytes(2)?;
        let generation = reader.u64()?;
        let (block_size, unit, sector, segment_size) = (reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?);
        let (log_offset, segments, blocks) = (reader.u64()?, reader.u32()?, reader.u32()?);
        let (data_offset, compatible, incompatible) = (reader.u64()?, reader.u64()?, reader.u64()?);
        if incompatible != 0 {
            return Ok(Err(Unusable::Features(incompatible)));
        }
        let Some(place) = place.filter(|_| (checksum_kind, unit, sector) == (CHECKSUM_KIND, UNIT, SECTOR_BYTES)) else {
            return Ok(Err(Unusable::Damaged));
        };
        Ok(Ok(Superblock {
            store,
            cluster,
            osd,
            place,
            generation,
            block_size,
            segment_size,
            log_offset,
            segments,
            blocks,
            data_offset,
            compatible,
        }))
    }

    /// Bytes of the largest page: the data of one object and what is said of it.
    pub fn page_max(&self) -> u32 {
        page_max(self.block_size)
    }

    /// Bytes that the devices must have: data, log.
    pub fn needed_bytes(&self) -> (u64, u64) {
        let log_end = self.log_offset + u64::from(self.segments) * u64::from(self.segment_size);
        let data_end = self.data_offset + u64::from(self.blocks) * u64::from(self.block_size);
        (data_end, if self.place == Place::Whole { 0 } else { log_end })
    }

    /// Byte offset of a unit of the log.
    pub fn log_place(&self, segment: u32, unit: u32) -> u64 {
        self.log_offset + u64::from(segment) * u64::from(self.segment_size) + u64::from(unit) * u64::from(UNIT)
    }

    /// Byte offset of a unit of a block.
    pub fn data_place(&self, block: u32, unit: usize) -> u64 {
        self.data_offset + u64::from(block) * u64::from(self.block_size) + unit as u64 * u64::from(UNIT)
    }

    /// Device that holds the log.
    pub fn log_device(&self) -> Device {
        if self.place == Place::Whole { Device::Data } else { Device::Log }
    }
}

fn page_max(block_size: u32) -> u32 {
    block_size + PAGE_RECORDS_BYTES
}

/// What [`inspect`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inspect {
    /// Zeroes: nothing was ever there.
    Blank,
    /// Not a store of ours.
    Foreign,
    /// A store's superblock, but damaged (there is another copy at 64 KiB).
    Damaged,
    /// A store of a newer version of the software.
    Newer,
    /// A store.
    Store {
        /// Its name.
        store: StoreUuid,
        /// Its cluster.
        cluster: ClusterUuid,
        /// Its OSD.
        osd: OsdId,
        /// Bytes of its blocks.
        block_size: u32,
    },
}

/// Tells what the first 4 KiB of a device are, to decide whether to build a store there.
pub fn inspect(bytes: &[u8]) -> Inspect {
    match Superblock::decode(bytes) {
        Ok(Superblock { store, cluster, osd, block_size, .. }) => Inspect::Store { store, cluster, osd, block_size },
        Err(Unusable::Blank) => Inspect::Blank,
        Err(Unusable::Foreign) => Inspect::Foreign,
        Err(Unusable::Damaged) => Inspect::Damaged,
        Err(Unusable::Newer(_) | Unusable::Features(_)) => Inspect::Newer,
    }
}

/// What a superblock says, for tools.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The store.
    pub store: StoreUuid,
    /// Its cluster.
    pub cluster: ClusterUuid,
    /// Its OSD.
    pub osd: OsdId,
    /// Counts updates of the superblock.
    pub generation: u64,
    /// Bytes of a block.
    pub block_size: u32,
    /// Number of blocks.
    pub blocks: u32,
    /// Number of segments of the log.
    pub segments: u32,
    /// Bytes of a segment.
    pub segment_size: u32,
    /// Whether the log is on a device of its own.
    pub separate_log: bool,
    /// Whether this is the device of the log.
    pub is_log: bool,
}

/// What a copy of a superblock says, or why it says nothing.
pub fn layout(bytes: &[u8]) -> Result<Layout, String> {
    let superblock = Superblock::decode(bytes).map_err(|unusable| match unusable {
        Unusable::Blank => "there is no store: nothing but zeroes".to_string(),
        Unusable::Foreign => "there is no store: it holds something else".to_string(),
        Unusable::Damaged => "a superblock of a store, but damaged".to_string(),
        Unusable::Newer(format) => format!("a store of format {format}, which this version does not know"),
        Unusable::Features(bits) => format!("a store with features {bits:#x}, which this version does not know"),
    })?;
    let Superblock { store, cluster, osd, generation, block_size, blocks, segments, segment_size, place, .. } =
        superblock;
    let (separate_log, is_log) = (place != Place::Whole, place == Place::Log);
    Ok(Layout { store, cluster, osd, generation, block_size, blocks, segments, segment_size, separate_log, is_log })
}

/// What a new store shall be.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// Its cluster.
    pub cluster: ClusterUuid,
    /// Its OSD.
    pub osd: OsdId,
    /// Its name: fresh random bits.
    pub store: StoreUuid,
    /// Bytes of a block: what one copy of an object of the pool takes.
    pub block_size: u32,
    /// Bytes of the data device.
    pub data_bytes: u64,
    /// Bytes of the separate log device, if there is one.
    pub log_device_bytes: Option<u64>,
    /// Bytes of the log; default: 1 % of the data, more where objects are small.
    pub log_bytes: Option<u64>,
    /// Bytes of a log segment; default: a 64th of the log within bounds.
    pub segment_bytes: Option<u32>,
}

impl Format {
    fn log_bytes(&self) -> u64 {
        let blocks = self.data_bytes / u64::from(self.block_size);
        let sums = u64::from(self.block_size / UNIT) * 4 + u64::from(self.block_size / SECTOR_BYTES / 8);
        let snapshots = blocks * (SNAPSHOT_BYTES + sums) * SNAPSHOT_SHARE;
        self.log_bytes.unwrap_or(snapshots.max(self.data_bytes / 100))
    }

    /// A segment holds two of the largest pages, and is read by one request at opening.
    fn segment_bytes(&self, log_bytes: u64) -> u32 {
        let least = 2 * page_max(self.block_size);
        let wanted = self.segment_bytes.map_or(log_bytes / 64, u64::from);
        let most = u64::from(crate::buf::BUF_MAX_BYTES);
        let bytes = wanted.max(u64::from(least)).min(most.max(u64::from(page_max(self.block_size))));
        u32::try_from(bytes / u64::from(UNIT) * u64::from(UNIT)).expect("at most BUF_MAX_BYTES")
    }

    /// Refuses a size of the log that cannot be had, or that leaves hardly any room for data.
    fn check_log_bytes(&self) -> Result<(), String> {
        let Some(wanted) = self.log_bytes else { return Ok(()) };
        let least = SEGMENTS_MIN * u64::from(self.segment_bytes(wanted));
        if wanted < least {
            let size = self.block_size;
            return Err(format!("a log of {wanted} bytes is too small: with blocks of {size} bytes it takes {least}"));
        }
        let (room, of) = match self.log_device_bytes {
            Some(bytes) => (bytes.saturating_sub(LOG_AT), "the log's device"),
            None => {
                (self.data_bytes - self.data_bytes.div_ceil(DATA_SHARE_MIN), "the device, of which data need a quarter")
            }
        };
        if wanted > room {
            return Err(format!("a log of {wanted} bytes is too large: {of} has room for {room}"));
        }
        Ok(())
    }

    /// The superblock of the data device.
    fn superblock(&self) -> Result<Superblock, String> {
        let (least, most) = (OBJECT_MIN_BYTES, BLOCK_MAX_BYTES);
        if !self.block_size.is_power_of_two() || self.block_size < least || self.block_size > most {
            let size = self.block_size;
            return Err(format!("block size {size} is not a power of two between {least} and {most} bytes"));
        }
        self.check_log_bytes()?;
        let log_bytes = self.log_bytes();
        let segment_size = self.segment_bytes(log_bytes);
        let room = self.log_device_bytes.map_or(u64::MAX, |bytes| bytes.saturating_sub(LOG_AT));
        let wanted = (log_bytes / u64::from(segment_size)).max(SEGMENTS_MIN);
        let segments = wanted.min(room / u64::from(segment_size));
        let log_end = LOG_AT + segments * u64::from(segment_size);
        let begin = if self.log_device_bytes.is_some() { LOG_AT } else { log_end };
        let data_offset = begin.next_multiple_of(u64::from(self.block_size));
        let blocks = self.data_bytes.saturating_sub(data_offset) / u64::from(self.block_size);
        if segments < SEGMENTS_MIN || blocks == 0 {
            let needed = LOG_AT + SEGMENTS_MIN * u64::from(segment_size);
            return Err(format!(
                "too small for a store with blocks of {} bytes: the log alone takes {needed} bytes",
                self.block_size
            ));
        }
        Ok(Superblock {
            store: self.store,
            cluster: self.cluster,
            osd: self.osd,
            place: if self.log_device_bytes.is_some() { Place::Data } else { Place::Whole },
            generation: 1,
            block_size: self.block_size,
            segment_size,
            log_offset: LOG_AT,
            segments: u32::try_from(segments).map_err(|_| "the log has too many segments".to_string())?,
            // The highest number means "no block"; 4 billion blocks are 64 TiB of the smallest.
            blocks: u32::try_from(blocks).unwrap_or(NO_BLOCK).min(NO_BLOCK - 1),
            data_offset,
            compatible: 0,
        })
    }
}

/// A new, empty store: writes to be done in any order, then the flushes at the end of the list; then it exists.
/// Refuses, with a reason for people, what cannot be a store.
pub fn format(format: &Format, pool: &mut BufPool) -> Result<Vec<DiskOp>, String> {
    let superblock = format.superblock()?;
    let mut ops = Vec::new();
    clear(Device::Data, format.data_bytes, superblock.log_device() == Device::Data, pool, &mut ops);
    if let Some(bytes) = format.log_device_bytes {
        clear(Device::Log, bytes, true, pool, &mut ops);
    }
    let (device, offset) = (superblock.log_device(), superblock.log_place(0, 0));
    ops.push(DiskOp::Write { device, offset, data: first_page(format.store, pool) });
    let mut copies = |superblock: Superblock, device: Device| {
        let mut buf = pool.zeroed(UNIT);
        superblock.encode(buf.bytes_mut());
        let data = pool.freeze(buf);
        ops.extend(COPIES_AT.map(|offset| DiskOp::Write { device, offset, data: data.clone() }));
    };
    copies(superblock, Device::Data);
    if superblock.log_device() == Device::Log {
        copies(Superblock { place: Place::Log, ..superblock }, Device::Log);
        ops.push(DiskOp::Flush { device: Device::Log });
    }
    ops.push(DiskOp::Flush { device: Device::Data });
    Ok(ops)
}

/// Writes zeroes over what other systems may have left near the beginning and the end of a device, around the superblocks
/// and the first page of the log: their tools would go on to take the device for theirs.
fn clear(device: Device, bytes: u64, has_log: bool, pool: &mut BufPool, ops: &mut Vec<DiskOp>) {
    let unit = u64::from(UNIT);
    let end = bytes - bytes % unit;
    let head_end = CLEARED_BYTES.min(end);
    let behind_log = if has_log { LOG_AT + unit } else { LOG_AT };
    let gaps = [
        (COPIES_AT[0] + unit, COPIES_AT[1]),
        (COPIES_AT[1] + unit, LOG_AT),
        (behind_log, head_end),
        (tail_at(end).max(head_end), end),
    ];
    for (begin, end) in gaps.into_iter().filter(|(begin, end)| begin < end) {
        let len = u32::try_from(end - begin).expect("at most TAIL_BYTES");
        let data = pool.zeroed(len).freeze();
        ops.push(DiskOp::Write { device, offset: begin, data });
    }
}

fn first_page(store: StoreUuid, pool: &mut BufPool) -> Buf {
    let mut page = pool.zeroed(UNIT);
    let length = u32::try_from(HEADER_BYTES).expect("a header is short");
    Header { sequence: 1, tail: 1, length, ..Header::default() }.seal(store, page.bytes_mut());
    pool.freeze(page)
}

#[cfg(test)]
mod tests {
    use super::super::signature::TAIL_BYTES;
    use super::*;

    fn wanted() -> Format {
        Format {
            cluster: ClusterUuid(0x1111_2222_3333_4444_5555_6666_7777_8888),
            osd: OsdId(7),
            store: StoreUuid(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210),
            block_size: 128 << 10,
            data_bytes: 1 << 30,
            log_device_bytes: None,
            log_bytes: None,
            segment_bytes: None,
        }
    }

    fn encoded() -> Vec<u8> {
        let mut bytes = vec![0xff; UNIT_USIZE];
        wanted().superblock().unwrap().encode(&mut bytes);
        bytes
    }

    #[test]
    fn golden_bytes() {
        let hex: String = encoded()[..120].iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = concat!(
            "4153484c41525342",
            "01000000",
            "c29623bc",
            "1032547698badcfeefcdab8967452301",
            "88887777666655554444333322221111",
            "07000000",
            "01",
            "00",
            "0000",
            "0100000000000000",
            "00000200",
            "00100000",
            "00020000",
            "00800400",
            "0000020000000000",
            "24000000",
            "ae1f0000",
            "0000a40000000000",
            "0000000000000000",
            "0000000000000000"
        );
        assert_eq!(hex, expected);
        assert!(encoded()[120..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn comes_back_and_refuses_what_it_cannot_read() {
        let bytes = encoded();
        assert_eq!(Superblock::decode(&bytes), wanted().superblock().map_err(|_| Unusable::Foreign));
        let changed = |at: usize, value: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            Superblock::decode(&bytes)
        };
        assert_eq!(changed(8, 2), Err(Unusable::Newer(2)));
        assert_eq!(changed(60, 1), Err(Unusable::Damaged));
        assert_eq!(changed(0, b'B'), Err(Unusable::Foreign));
        assert_eq!(Superblock::decode(&vec![0; UNIT_USIZE]), Err(Unusable::Blank));
        assert_eq!(layout(&bytes).map(|layout| (layout.osd, layout.blocks)), Ok((OsdId(7), 8110)));
        assert!(layout(&[0; 4096]).is_err_and(|reason| reason.contains("no store")));
        assert!(matches!(inspect(&bytes), Inspect::Store { osd: OsdId(7), block_size: 131_072, .. }));
    }

    #[test]
    fn the_parts_of_a_device_do_not_overlap() {
        for (data_bytes, log) in [(64 << 20, None), (1 << 30, None), (1 << 40, None), (1 << 30, Some(64 << 20))] {
            for block_size in [16 << 10, 128 << 10, 1 << 20] {
                let superblock =
                    Format { data_bytes, log_device_bytes: log, block_size, ..wanted() }.superblock().unwrap();
                let (data, log_needed) = superblock.needed_bytes();
                assert!(data <= data_bytes && log_needed <= log.unwrap_or(0));
                assert!(log.is_some() || superblock.log_place(superblock.segments, 0) <= superblock.data_offset);
                assert!(superblock.page_max() <= superblock.segment_size);
            }
        }
    }

    #[test]
    fn what_others_left_is_written_over() {
        let separate = Format { log_device_bytes: Some(64 << 20), ..wanted() };
        for wanted in [wanted(), separate, Format { data_bytes: 2 << 20, block_size: 16 << 10, ..wanted() }] {
            let mut pool = BufPool::new();
            for device in [Device::Data, Device::Log] {
                let Some(bytes) =
                    (if device == Device::Data { Some(wanted.data_bytes) } else { wanted.log_device_bytes })
                else {
                    continue;
                };
                let mut written: Vec<(u64, u64)> = Vec::new();
                for op in format(&wanted, &mut pool).unwrap() {
                    if let DiskOp::Write { device: on, offset, data } = op
                        && on == device
                    {
                        written.push((offset, offset + u64::from(data.len())));
                    }
                }
                written.sort_unstable();
                assert!(written.windows(2).all(|two| two[0].1 <= two[1].0), "no order among them: {written:?}");
                let covered: u64 = written.iter().map(|(begin, end)| end - begin).sum();
                let all = (CLEARED_BYTES + u64::from(TAIL_BYTES)).min(bytes);
                assert_eq!((covered, written.last().map(|(_, end)| *end)), (all, Some(bytes)));
            }
        }
    }

    #[test]
    fn a_log_that_cannot_be_or_leaves_no_room_is_refused() {
        let refusal = |log: u64| {
            format(&Format { data_bytes: 64 << 20, log_bytes: Some(log), ..wanted() }, &mut BufPool::new())
                .map(|_| ())
                .unwrap_err()
        };
        assert!(refusal(63 << 20).contains("has room for 50331648"), "{}", refusal(63 << 20));
        assert!(refusal(1 << 40).contains("a log of 1099511627776 bytes is too large"));
        assert!(refusal(4096).contains("a log of 4096 bytes is too small"));
        assert!(
            format(&Format { data_bytes: 64 << 20, log_bytes: Some(16 << 20), ..wanted() }, &mut BufPool::new())
                .is_ok()
        );
    }

    #[test]
    fn too_small_a_device_is_refused_with_the_reason() {
        let error = format(&Format { data_bytes: 1 << 20, ..wanted() }, &mut BufPool::new()).unwrap_err();
        assert!(error.starts_with("too small for a store"), "{error}");
    }
}
