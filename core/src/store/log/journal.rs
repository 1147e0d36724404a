//! The log as a ring of pages: what is in it, where the next page goes, what may be written again.
//!
//! Owns page sequences, the page under construction, the pages on their way, the ring of segments and its tail.
//! Does not know what records mean, nor when a completion is durable (its owner says so).
//!
//! ```text
//! append -> open --(full, or end of round)--> ready -> writing -> written -> durable ("in the log")
//!                                                      one at a time         in order
//! ```
//!
//! Invariants: pages are written in the order of their sequences; a segment is written again only after a page in the
//! log named a tail behind it.

use super::index::{NONE, ObjectIndex};
use super::page::{HEADER_BYTES, Header, Sequence};
use super::record::{Body, Record};
use super::superblock::Superblock;
use crate::buf::{Buf, BufMut, BufPool, UNIT, UNIT_USIZE};
use crate::planted::{Bug, planted};
use std::collections::VecDeque;

/// The cleaner looks at so many objects in a round: most of those that a segment names may have moved on, and looking is a
/// cache miss each.
pub const LOOKS: usize = 1024;
/// Bytes of the log that name as many objects, at least.
const ROUND_BYTES: u64 = LOOKS as u64 * 64;
/// A unit, for sums of bytes.
const UNIT_U64: u64 = UNIT as u64;

/// A stretch of the ring.
#[derive(Clone, Debug, Default)]
pub struct Segment {
    /// Its first page; 0 if none of this round.
    pub first: Sequence,
    /// Its last page.
    pub last: Sequence,
    /// Objects whose oldest needed record lies here.
    pub live: u32,
    /// Operations with a record here that are not settled.
    pub unsettled: u32,
    /// Bound of the snapshots of its live objects.
    pub snapshot_bytes: u64,
    /// Objects that may be live here (those that moved on are still named).
    pub objects: Vec<ObjectIndex>,
}

#[derive(Clone)]
struct Building<T> {
    sequence: Sequence,
    segment: u32,
    unit: u32,
    capacity: usize,
    buf: BufMut,
    used: usize,
    records: u16,
    voids: bool,
    intents: u32,
    owners: Vec<T>,
}

/// A page on its way to the log.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// What it says.
    pub header: Header,
    /// Owners of its records, each once per record.
    pub owners: Vec<T>,
}

/// Where a record went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Its page.
    pub page: Sequence,
    /// Its segment.
    pub segment: u32,
}

/// What of a segment is in the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stretch {
    /// Its first page.
    pub first: Sequence,
    /// Its last page that is in the log.
    pub last: Sequence,
}

/// The log. `T` names the owners of records.
#[derive(Clone)]
pub struct Journal<T> {
    superblock: Superblock,
    /// The ring.
    pub segments: Vec<Segment>,
    head: u32,
    /// Units of the head segment that are taken or promised.
    head_units: u32,
    tail: u32,
    /// Tail that the newest page in the log names.
    vouched_tail: u32,
    next: Sequence,
    submitted: Sequence,
    completed: Sequence,
    durable: Sequence,
    done_in_log: Sequence,
    /// Newest page with records.
    last_record: Sequence,
    last_header: Header,
    open: Option<Building<T>>,
    ready: VecDeque<Building<T>>,
    writing: Option<Page<T>>,
    written: VecDeque<Page<T>>,
    /// Pages with data not yet durable, and how many.
    undone: VecDeque<(Sequence, u32)>,
    /// A free segment that is written over, and must not be entered meanwhile.
    wiping: Option<u32>,
    /// Bytes of all pages that were begun.
    begun_bytes: u64,
    spare: Vec<Vec<T>>,
}

/// Where the log stands when a store opens.
#[derive(Clone, Debug)]
pub struct Start {
    /// The pages of the log, oldest first. Not empty.
    pub chain: Vec<Header>,
    /// Above every valid page.
    pub next: Sequence,
    /// The tail that a page in the log names, as a segment; segments behind it up to `chain`'s are not free yet.
    pub vouched_tail: u32,
}

impl<T: Copy> Journal<T> {
    /// The log as found by opening.
    pub fn new(superblock: Superblock, start: &Start) -> Self {
        let first = start.chain.first().expect("a log has a page");
        let last = start.chain.last().expect("a log has a page");
        let mut segments = vec![Segment::default(); superblock.segments as usize];
        for header in &start.chain {
            let segment = &mut segments[header.segment as usize];
            if segment.first == 0 {
                segment.first = header.sequence;
            }
            segment.last = header.sequence;
        }
        Journal {
            superblock,
            segments,
            head: last.segment,
            head_units: last.unit + last.units(),
            tail: first.segment,
            vouched_tail: start.vouched_tail,
            next: start.next,
            submitted: last.sequence,
            completed: last.sequence,
            durable: last.sequence,
            done_in_log: last.done_upto,
            last_record: last.sequence,
            last_header: *last,
            open: None,
            ready: VecDeque::new(),
            writing: None,
            written: VecDeque::new(),
            undone: VecDeque::new(),
            wiping: None,
            begun_bytes: 0,
            spare: Vec::new(),
        }
    }

    /// Newest page of which it and all before are durable.
    pub fn durable(&self) -> Sequence {
        self.durable
    }

    /// Newest page whose write, and that of all before, completed.
    pub fn completed(&self) -> Sequence {
        self.completed
    }

    /// `done_upto` of the newest page in the log.
    pub fn done_in_log(&self) -> Sequence {
        self.done_in_log
    }

    /// The oldest segment.
    pub fn tail(&self) -> u32 {
        self.tail
    }

    /// Whether the oldest segment is also the one being written.
    pub fn is_one_segment(&self) -> bool {
        self.tail == self.head
    }

    fn segment_units(&self) -> u32 {
        self.superblock.segment_size / UNIT
    }

    fn after(&self, segment: u32) -> u32 {
        (segment + 1) % self.superblock.segments
    }

    /// Segments that may be written anew.
    pub fn free_segments(&self) -> u32 {
        let free = self.ahead(self.vouched_tail) - 1;
        self.wiping.map_or(free, |wiping| free.min(self.ahead(wiping) - 1))
    }

    /// How many segments behind the head it comes, going round: 1 is the next one.
    fn ahead(&self, segment: u32) -> u32 {
        let segments = self.superblock.segments;
        (segment + segments - self.head - 1) % segments + 1
    }

    /// What of a segment is in the log, and needed by the next opening; none: nothing.
    pub fn stretch(&self, segment: u32) -> Option<Stretch> {
        let free = self.ahead(segment) < self.ahead(self.vouched_tail);
        let Segment { first, last, .. } = self.segments[segment as usize];
        let in_log = !free && first != 0 && first <= self.durable;
        in_log.then(|| Stretch { first, last: last.min(self.durable) })
    }

    /// First page of the oldest segment that the next opening needs, as a page in the log says.
    pub fn vouched_first(&self) -> Sequence {
        self.segments[self.vouched_tail as usize].first
    }

    /// First page of the segment that is being written.
    pub fn head_first(&self) -> Sequence {
        self.segments[self.head as usize].first
    }

    /// Goes on in the next segment, if one is free.
    pub fn leave_head(&mut self, pool: &mut BufPool) {
        if self.free_segments() > 0 {
            self.close_page();
            self.head_units = self.segment_units();
            self.voucher(pool);
        }
    }

    /// Keeps a free segment from being entered until [`Journal::end_wipe`]. False: it may be entered too soon.
    pub fn begin_wipe(&mut self, segment: u32) -> bool {
        let far = self.ahead(segment) > 1 && self.ahead(segment) <= self.free_segments();
        let begins = far && self.wiping.is_none();
        if begins {
            self.wiping = Some(segment);
        }
        begins
    }

    /// It may be entered again.
    pub fn end_wipe(&mut self) {
        self.wiping = None;
    }

    /// Bytes of all pages that were begun since the log was opened.
    pub fn begun_bytes(&self) -> u64 {
        self.begun_bytes
    }

    /// Bytes of all segments.
    pub fn total_bytes(&self) -> u64 {
        u64::from(self.superblock.segments) * u64::from(self.superblock.segment_size)
    }

    /// Bytes that can still be written.
    pub fn room(&self) -> u64 {
        let open = self.open.as_ref().map_or(0, |page| page.used) as u64;
        let head = u64::from(self.segment_units() - self.head_units) * UNIT_U64 - open;
        head + u64::from(self.free_segments()) * u64::from(self.superblock.segment_size)
    }

    /// Whether a segment waits for a page that says it is free.
    pub fn is_segment_cooling(&self) -> bool {
        self.tail != self.vouched_tail
    }

    /// Bytes of segments that wait for a page that says they are free.
    pub fn cooling_bytes(&self) -> u64 {
        u64::from(self.ahead(self.tail) - self.ahead(self.vouched_tail)) * u64::from(self.superblock.segment_size)
    }

    /// Bytes that cleaning a segment wastes at most: each round's last page is not full; a page names the later tail; pages
    /// have headers, and ends that are too short for the next snapshot.
    pub fn cleaning_waste(&self) -> u64 {
        let more_rounds = u64::from(self.superblock.segment_size - 1) / ROUND_BYTES;
        (3 + more_rounds) * UNIT_U64
    }

    /// Bytes that cleaning the oldest segments may take before it gives back more than it took.
    pub fn cleaning_need(&self) -> u64 {
        // Snapshots of the whole log stay below a share of it; what matters is how unevenly they lie.
        const LOOK_AHEAD: u32 = 32;
        let (size, waste) = (u64::from(self.superblock.segment_size), self.cleaning_waste());
        let (mut taken, mut most) = (0u64, 0);
        let mut segment = self.tail;
        for _ in 0..LOOK_AHEAD.min(self.superblock.segments) {
            let Segment { live, snapshot_bytes, .. } = &self.segments[segment as usize];
            taken += if *live > 0 { snapshot_bytes + waste } else { 0 };
            most = taken.max(most);
            taken = taken.saturating_sub(size);
            if segment == self.head {
                break;
            }
            segment = self.after(segment);
        }
        most
    }

    /// Whether so much lives in the oldest segments that the ends of other pages have no room for it: more than a third.
    pub fn is_crowded(&self) -> bool {
        const LOOK_AHEAD: u32 = 16;
        const SHARE: u64 = 3;
        let oldest =
            (0..LOOK_AHEAD.min(self.superblock.segments)).map(|at| (self.tail + at) % self.superblock.segments);
        let lives: u64 = oldest.map(|segment| self.segments[segment as usize].snapshot_bytes).sum();
        lives * SHARE > u64::from(LOOK_AHEAD) * u64::from(self.superblock.segment_size)
    }

    /// Whether a record of `bytes` can go into the log now.
    pub fn fits(&self, bytes: usize) -> bool {
        let open = self.open.as_ref().is_some_and(|page| page.used + bytes <= page.capacity);
        open || self.page_place(bytes).is_some()
    }

    /// Where a page that begins with a record of `bytes` would go, and how large it may grow.
    fn page_place(&self, bytes: usize) -> Option<(u32, u32, usize)> {
        let needed = HEADER_BYTES + bytes;
        let most = self.superblock.page_max() as usize;
        assert!(needed <= most, "a record of {bytes} bytes");
        // The open page, if any, will be closed first.
        let taken = self.head_units + self.open.as_ref().map_or(0, |page| units(page.used));
        let rest = (self.segment_units() - taken) as usize * UNIT as usize;
        if needed <= rest {
            return Some((self.head, taken, rest.min(most)));
        }
        (self.free_segments() > 0).then(|| (self.after(self.head), 0, most))
    }

    fn open_page(&mut self, bytes: usize, pool: &mut BufPool) {
        self.close_page();
        let (segment, unit, capacity) = self.page_place(bytes).expect("the caller made sure of room");
        if segment != self.head {
            self.head = segment;
            self.segments[segment as usize] =
                Segment { objects: std::mem::take(&mut self.segments[segment as usize].objects), ..Segment::default() };
        }
        self.head_units = unit;
        let sequence = self.next;
        self.next += 1;
        let owners = self.spare.pop().unwrap_or_default();
        let buf = pool.alloc(self.superblock.page_max());
        let used = HEADER_BYTES;
        let (records, voids, intents) = (0, false, 0);
        let page = Building { sequence, segment, unit, capacity, buf, used, records, voids, intents, owners };
        self.open = Some(page);
        let place = &mut self.segments[segment as usize];
        if place.first == 0 {
            place.first = sequence;
        }
        place.last = sequence;
    }

    fn close_page(&mut self) {
        if let Some(page) = self.open.take() {
            self.head_units = page.unit + units(page.used);
            self.begun_bytes += u64::from(units(page.used)) * UNIT_U64;
            self.ready.push_back(page);
        }
    }

    /// Sequence of the page that a record of `bytes` will go to. Opens it.
    pub fn page_for(&mut self, bytes: usize, pool: &mut BufPool) -> Sequence {
        if self.open.as_ref().is_none_or(|page| page.used + bytes > page.capacity) {
            self.open_page(bytes, pool);
        }
        self.open.as_ref().expect("just opened").sequence
    }

    /// Appends a record. The caller made sure that it fits.
    pub fn append(&mut self, record: &Record, owner: Option<T>, pool: &mut BufPool) -> Place {
        let bytes = record.bytes();
        self.page_for(bytes, pool);
        let page = self.open.as_mut().expect("page_for opened it");
        record.encode(&mut page.buf.bytes_mut()[page.used..]);
        page.used += bytes;
        page.records += 1;
        page.voids |= matches!(record.body, Body::Void(_));
        page.intents += u32::from(matches!(record.body, Body::Intent { .. }));
        if let Some(owner) = owner {
            page.owners.push(owner);
            self.segments[page.segment as usize].unsettled += 1;
        }
        Place { page: page.sequence, segment: page.segment }
    }

    /// Data of a record in the page are under way. To be called as the record is appended.
    pub fn data_begin(&mut self, page: Sequence) {
        match self.undone.back_mut() {
            Some((last, count)) if *last == page => *count += 1,
            _ => self.undone.push_back((page, 1)),
        }
    }

    /// They are durable, or no longer matter.
    pub fn data_end(&mut self, page: Sequence) {
        let place = self.undone.binary_search_by_key(&page, |(page, _)| *page);
        let place = place.unwrap_or_else(|_| panic!("no undone data in page {page}"));
        self.undone[place].1 -= 1;
        while self.undone.front().is_some_and(|(_, count)| *count == 0) {
            self.undone.pop_front();
        }
    }

    fn done_upto(&self, limit: Sequence) -> Sequence {
        let undone = self.undone.front().filter(|_| !planted(Bug::StoreDoneTooFar));
        undone.map_or(limit, |(page, _)| (*page - 1).min(limit))
    }

    /// If a page that holds nothing but intents is what would be written next: how many.
    pub fn only_intents(&self) -> Option<u32> {
        let next = self.open.as_ref().filter(|_| self.writing.is_none() && self.ready.is_empty())?;
        (next.intents == u32::from(next.records)).then_some(next.intents)
    }

    /// Whether the page that would be written next holds nothing that anybody waits for: what was compacted, say.
    pub fn is_unasked(&self) -> bool {
        let next = self.open.as_ref().filter(|_| self.writing.is_none() && self.ready.is_empty());
        next.is_some_and(|page| page.records > 0 && page.owners.is_empty())
    }

    /// Bytes that the page that would be written next takes anyway, whatever is in them; 0 if there is none.
    pub fn padding(&self) -> usize {
        let next = self.open.as_ref().filter(|_| self.writing.is_none() && self.ready.is_empty());
        next.map_or(0, |page| page.used.next_multiple_of(UNIT_USIZE).min(page.capacity) - page.used)
    }

    /// Whether a page is being filled or is on its way.
    pub fn is_busy(&self) -> bool {
        self.writing.is_some() || !self.ready.is_empty() || self.open.is_some()
    }

    /// Whether a page without records would say something that is not in the log yet.
    pub fn needs_voucher(&self) -> bool {
        let unvouched = self.durable >= self.last_record && self.last_header.durable_upto < self.last_record;
        let undone = self.done_upto(self.last_record) > self.last_header.done_upto;
        !self.is_busy() && (unvouched || undone || self.tail_page() != self.last_header.tail)
    }

    fn tail_page(&self) -> Sequence {
        self.segments[self.tail as usize].first
    }

    /// Opens a page without records, to be written next.
    pub fn voucher(&mut self, pool: &mut BufPool) {
        if self.fits(0) {
            self.page_for(0, pool);
        }
    }

    /// The next page to be written, if none is on its way: byte offset and bytes.
    pub fn next_write(&mut self, pool: &mut BufPool) -> Option<(u64, Buf)> {
        if self.writing.is_some() {
            return None;
        }
        if self.ready.is_empty() {
            self.close_page();
        }
        let page = self.ready.pop_front()?;
        let header = Header {
            sequence: page.sequence,
            prev: self.submitted,
            durable_upto: self.durable,
            done_upto: self.done_upto(page.sequence - 1),
            tail: self.tail_page(),
            segment: page.segment,
            unit: page.unit,
            length: u32::try_from(page.used).expect("at most page_max"),
            records: page.records,
            voids: page.voids,
        };
        let mut buf = page.buf;
        buf.zero(header.length, header.units() * UNIT - header.length);
        buf.truncate(header.units() * UNIT);
        assert!(header.is_consistent(), "nobody would take this for a page: {header:?}");
        header.seal(self.superblock.store, buf.bytes_mut());
        if page.records > 0 {
            self.last_record = page.sequence;
        }
        self.submitted = page.sequence;
        self.last_header = header;
        self.writing = Some(Page { header, owners: page.owners });
        Some((self.superblock.log_place(page.segment, page.unit), pool.freeze(buf)))
    }

    /// The write completed. Returns the page's sequence.
    pub fn write_completed(&mut self) -> Sequence {
        let page = self.writing.take().expect("one page write at a time");
        self.completed = page.header.sequence;
        self.written.push_back(page);
        self.completed
    }

    /// Owners of the records of the page that completed last.
    pub fn completed_owners(&self) -> &[T] {
        self.written.back().map_or(&[], |page| &page.owners)
    }

    /// Takes the oldest page of those up to `upto`, whose durability is now known.
    pub fn pop_durable(&mut self, upto: Sequence) -> Option<Page<T>> {
        if self.written.front()?.header.sequence > upto {
            return None;
        }
        let page = self.written.pop_front()?;
        self.durable = page.header.sequence;
        self.done_in_log = self.done_in_log.max(page.header.done_upto);
        // The page names a tail: everything behind it may be written again.
        self.vouched_tail = self.segment_of(page.header.tail);
        Some(page)
    }

    fn segment_of(&self, page: Sequence) -> u32 {
        let mut segment = self.vouched_tail;
        while self.segments[segment as usize].first != page {
            assert_ne!(segment, self.head, "tail {page} is in no segment");
            segment = self.after(segment);
        }
        segment
    }

    /// Takes back the space of a page's list of owners.
    pub fn recycle(&mut self, mut owners: Vec<T>) {
        owners.clear();
        self.spare.push(owners);
    }

    /// Moves the tail over segments that nothing needs any more. True if it moved.
    pub fn advance_tail(&mut self) -> bool {
        let before = self.tail;
        while self.tail != self.head {
            let segment = &self.segments[self.tail as usize];
            let next = self.after(self.tail);
            let next_first = self.segments[next as usize].first;
            let free = (segment.live == 0 || planted(Bug::StoreCleanLive))
                && segment.unsettled == 0
                && segment.last <= self.durable;
            // A tail names a page that is in the log.
            if !free || (next_first > self.durable && !planted(Bug::StoreTailInFlight)) {
                break;
            }
            self.segments[self.tail as usize].objects.clear();
            self.tail = next;
            if planted(Bug::StoreReuseEarly) {
                self.vouched_tail = next;
            }
        }
        self.tail != before
    }

    /// Where the ring stands, for people.
    #[cfg(test)]
    pub fn describe(&self) -> String {
        format!("head {}+{} tail {} vouched {}", self.head, self.head_units, self.tail, self.vouched_tail)
    }

    /// Panics if an invariant is broken.
    pub fn check(&self) {
        assert!(self.durable <= self.completed && self.completed <= self.submitted && self.submitted < self.next);
        assert!(self.head_units <= self.segment_units());
        assert_ne!(self.tail_page(), 0, "the tail segment has no page");
        assert!(self.tail_page() <= self.durable || self.tail == self.head, "the tail is not in the log");
        assert_ne!(self.head, NONE);
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a page is below 4 GiB").div_ceil(UNIT)
}
