//! Pages of the log: their header, and how a scan recognises them (docs/format.md).

use super::bytes::{Reader, TooShort, Writer};
use crate::buf::{UNIT, UNIT_USIZE};
use crate::id::StoreUuid;

/// First bytes of a page.
const MAGIC: [u8; 4] = *b"ALPG";
/// Length of a page's header.
pub const HEADER_BYTES: usize = 80;
/// Place of the CRC in the header.
const CRC_AT: usize = 4;
/// Flag of a page that holds `Void` records.
const FLAG_VOIDS: u16 = 1;

/// No page has a sequence from here on: a million pages a second would get there in 290,000 years. What says so is damage.
const SEQUENCE_LIMIT: Sequence = 1 << 63;

/// A sequence number of a page. 0 is "before the first".
pub type Sequence = u64;

/// Header of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// Rises from page to page, never given twice.
    pub sequence: Sequence,
    /// Sequence of the page before.
    pub prev: Sequence,
    /// Newest page in the log when this one was written.
    pub durable_upto: Sequence,
    /// Every `Put` and `Intent` in pages up to it has its data durable or is void.
    pub done_upto: Sequence,
    /// Oldest page that still counts.
    pub tail: Sequence,
    /// Segment that it lies in.
    pub segment: u32,
    /// Unit within the segment.
    pub unit: u32,
    /// Header and records, in bytes.
    pub length: u32,
    /// Number of records.
    pub records: u16,
    /// Whether `Void` records are among them.
    pub voids: bool,
}

impl Header {
    /// Units that the page takes.
    pub fn units(&self) -> u32 {
        self.length.div_ceil(UNIT)
    }

    /// Writes the header into the page and seals the page with its CRC. `page` is whole units.
    pub fn seal(&self, store: StoreUuid, page: &mut [u8]) {
        let mut writer = Writer::new(page);
        writer.bytes(&MAGIC);
        writer.u32(0);
        writer.u128(store.0);
        for sequence in [self.sequence, self.prev, self.durable_upto, self.done_upto, self.tail] {
            writer.u64(sequence);
        }
        writer.u32(self.segment);
        writer.u32(self.unit);
        writer.u32(self.length);
        writer.u16(self.records);
        writer.u16(if self.voids { FLAG_VOIDS } else { 0 });
        let crc = crc32fast::hash(page);
        page[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// The header of the valid page at the start of `bytes`, which must lie at `segment`, `unit` of that store.
    pub fn recognise(store: StoreUuid, segment: u32, unit: u32, bytes: &[u8]) -> Option<Header> {
        let (crc, header) = Header::decode(store, bytes).ok().flatten()?;
        let length = header.units() as usize * UNIT_USIZE;
        let fits = header.length as usize >= HEADER_BYTES && length <= bytes.len();
        if !fits || !header.is_consistent() || (header.segment, header.unit) != (segment, unit) {
            return None;
        }
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&bytes[..CRC_AT]);
        hasher.update(&[0; 4]);
        hasher.update(&bytes[CRC_AT + 4..length]);
        (hasher.finalize() == crc).then_some(header)
    }

    /// Whether its sequences can be those of a page: it names only pages before itself, and there is a next one.
    pub fn is_consistent(&self) -> bool {
        let before = [self.prev, self.durable_upto, self.done_upto];
        (1..SEQUENCE_LIMIT).contains(&self.sequence)
            && before.iter().all(|page| *page < self.sequence)
            && (1..=self.sequence).contains(&self.tail)
    }

    fn decode(store: StoreUuid, bytes: &[u8]) -> Result<Option<(u32, Header)>, TooShort> {
        let mut reader = Reader::new(bytes);
        if reader.bytes(4)? != MAGIC {
            return Ok(None);
        }
        let crc = reader.u32()?;
        if reader.u128()? != store.0 {
            return Ok(None);
        }
        let header = Header {
            sequence: reader.u64()?,
            prev: reader.u64()?,
            durable_upto: reader.u64()?,
            done_upto: reader.u64()?,
            tail: reader.u64()?,
            segment: reader.u32()?,
            unit: reader.u32()?,
            length: reader.u32()?,
            records: reader.u16()?,
            voids: reader.u16()? & FLAG_VOIDS != 0,
        };
        Ok(Some((crc, header)))
    }
}

/// The header of a page of which other parts are missing, if that is what `bytes` begins with.
pub fn torn(store: StoreUuid, segment: u32, unit: u32, bytes: &[u8]) -> Option<Header> {
    let (_, header) = Header::decode(store, bytes).ok().flatten()?;
    let is_torn = Header::recognise(store, segment, unit, bytes).is_none();
    (is_torn && (header.segment, header.unit) == (segment, unit)).then_some(header)
}

/// Calls `found` with each valid page of a segment, in order of their places, and `rest` with what is none.
pub fn scan_all(
    store: StoreUuid,
    segment: u32,
    bytes: &[u8],
    mut found: impl FnMut(Header, &[u8]),
    mut rest: impl FnMut(u32, &[u8]),
) {
    let mut at = 0;
    while at < bytes.len() {
        let unit = u32::try_from(at / UNIT_USIZE).expect("a segment is below 4 GiB");
        match Header::recognise(store, segment, unit, &bytes[at..]) {
            Some(header) => {
                found(header, &bytes[at..at + header.length as usize]);
                at += header.units() as usize * UNIT_USIZE;
            }
            None => {
                rest(unit, &bytes[at..]);
                at += UNIT_USIZE;
            }
        }
    }
}

/// Calls `found` with each valid page of a segment, in order of their places.
#[cfg(test)]
pub fn scan(store: StoreUuid, segment: u32, bytes: &[u8], found: impl FnMut(Header, &[u8])) {
    scan_all(store, segment, bytes, found, |_, _| {});
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreUuid = StoreUuid(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);

    fn header() -> Header {
        Header {
            sequence: 0x11,
            prev: 0x10,
            durable_upto: 0x0f,
            done_upto: 0x0e,
            tail: 0x02,
            segment: 3,
            unit: 5,
            length: 80,
            records: 0,
            voids: true,
        }
    }

    fn page() -> Vec<u8> {
        let mut page = vec![0; UNIT_USIZE];
        header().seal(STORE, &mut page);
        page
    }

    #[test]
    fn golden_bytes() {
        let hex: String = page()[..HEADER_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = concat!(
            "414c5047",
            "33b81f1c",
            "1032547698badcfeefcdab8967452301",
            "1100000000000000",
            "1000000000000000",
            "0f00000000000000",
            "0e00000000000000",
            "0200000000000000",
            "03000000",
            "05000000",
            "50000000",
            "0000",
            "0100"
        );
        assert_eq!(hex, expected);
    }

    #[test]
    fn a_page_is_recognised_only_whole_and_in_its_place() {
        let page = page();
        assert_eq!(Header::recognise(STORE, 3, 5, &page), Some(header()));
        assert_eq!(Header::recognise(STORE, 3, 6, &page), None);
        assert_eq!(Header::recognise(STORE, 2, 5, &page), None);
        assert_eq!(Header::recognise(StoreUuid(1), 3, 5, &page), None);
        for at in [0, 5, 30, 79, 80, 4095] {
            let mut torn = page.clone();
            torn[at] ^= 1;
            assert_eq!(Header::recognise(STORE, 3, 5, &torn), None, "byte {at}");
        }
    }

    #[test]
    fn a_header_that_contradicts_itself_is_no_page() {
        let good = header();
        let sealed = |header: Header| {
            let mut page = vec![0; UNIT_USIZE];
            header.seal(STORE, &mut page);
            Header::recognise(STORE, 3, 5, &page)
        };
        assert_eq!(sealed(good), Some(good));
        let most = u64::MAX;
        for sequence in [0, SEQUENCE_LIMIT, most] {
            assert_eq!(sealed(Header { sequence, ..good }), None, "{sequence}");
        }
        let own = good.sequence;
        assert!(sealed(Header { tail: own, ..good }).is_some(), "the first page of the oldest segment");
        let wrong = [
            Header { prev: own, ..good },
            Header { durable_upto: own, ..good },
            Header { done_upto: most, ..good },
            Header { tail: own + 1, ..good },
            Header { tail: 0, ..good },
        ];
        assert!(wrong.into_iter().all(|header| sealed(header).is_none()));
    }

    #[test]
    fn a_scan_finds_pages_behind_garbage() {
        let mut segment = vec![7; 5 * UNIT_USIZE];
        segment.extend(page());
        segment.extend(vec![0; UNIT_USIZE]);
        let mut found = Vec::new();
        scan(STORE, 3, &segment, |header, bytes| found.push((header, bytes.len())));
        assert_eq!(found, [(header(), 80)]);
    }
}
