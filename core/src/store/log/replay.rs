//! Replay: what the pages of the log say, in their order.
//!
//! Also keeps, for objects whose data may not have reached the device, the states that opening may fall back to.

use super::index::{NONE, ObjectIndex, Objects};
use super::journal::Start;
use super::object::{Spare, Versions, units_of};
use super::open::{self, Scan};
use super::page::{Header, Sequence};
use super::record::{BadRecord, Body, NO_BLOCK, Position, Record};
use super::superblock::Superblock;
use crate::buf::{Buf, BufPool, UNIT_USIZE};
use crate::id::CopyId;
use crate::planted::{Bug, planted};
use crate::store::Mode;
use std::collections::{BTreeMap, VecDeque};

/// Segments read ahead.
const READS: usize = 4;

/// A state that an object had, before the record at a position.
#[derive(Clone, Debug)]
pub struct Past {
    /// The record after it.
    pub before: Position,
    /// The state.
    pub versions: Versions,
    /// Its base segment.
    pub base: u32,
}

/// Replay under way.
#[derive(Clone, Default)]
pub struct Replay {
    superblock: Option<Superblock>,
    start: Option<Start>,
    lost: bool,
    /// Whether a page of the chain could not be read again.
    broken: bool,
    /// Segments of the chain in order, with the first of their pages in it.
    segments: Vec<(u32, usize)>,
    /// Reads sent, segments replayed, segments read out of turn.
    sent: usize,
    replayed: usize,
    waiting: VecDeque<Option<Option<Buf>>>,
    /// Data of records in later pages may not be on the device.
    done_upto: Sequence,
    /// Stretches of the log that are void, by object.
    voids: BTreeMap<CopyId, Vec<(Position, Position)>>,
    objects: Objects,
    pasts: BTreeMap<ObjectIndex, Vec<Past>>,
    spare: Spare,
    /// Those of the page at hand.
    copies: Vec<CopyId>,
}

/// What replay gives: objects, past states of some, where the log stands.
pub type Replayed = (Objects, BTreeMap<ObjectIndex, Vec<Past>>, Start);

impl Replay {
    /// Finds the chain among the pages.
    pub fn new(superblock: Superblock, mut scan: Scan) -> Self {
        let (start, lost) = open::chain(superblock.segments, &mut scan);
        let mut segments: Vec<(u32, usize)> = Vec::new();
        for (place, header) in start.chain.iter().enumerate().filter(|(_, header)| header.length > 0) {
            if segments.last().is_none_or(|(segment, _)| *segment != header.segment) {
                segments.push((header.segment, place));
            }
        }
        let in_chain = |page: Sequence| start.chain.binary_search_by_key(&page, |header| header.sequence).is_ok();
        let mut voids: BTreeMap<CopyId, Vec<(Position, Position)>> = BTreeMap::new();
        for (at, copy, from) in scan.voids.iter().filter(|(at, _, _)| in_chain(at.page)) {
            voids.entry(*copy).or_default().push((*from, *at));
        }
        let done_upto = scan.pages.iter().map(|page| page.done_upto).max().unwrap_or(0);
        let objects = Objects::new(units_of(superblock.block_size));
        let superblock = Some(superblock);
        Replay { superblock, start: Some(start), lost, segments, done_upto, voids, objects, ..Replay::default() }
    }

    /// The next segment to be read, if enough are not on their way already.
    pub fn next_read(&mut self) -> Option<(usize, u32)> {
        if self.sent == self.segments.len() || self.sent - self.replayed >= READS {
            return None;
        }
        let place = self.sent;
        self.sent += 1;
        self.waiting.push_back(None);
        Some((place, self.segments[place].0))
    }

    /// Whether all is replayed, or as much as there is.
    pub fn is_done(&self) -> bool {
        self.replayed == self.segments.len()
    }

    /// Whether metadata were lost.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// A segment was read (or could not be).
    pub fn segment_read(&mut self, place: usize, buf: Option<Buf>, pool: &mut BufPool) -> Result<(), BadRecord> {
        self.waiting[place - self.replayed] = Some(buf);
        while let Some(Some(_)) = self.waiting.front() {
            let buf = self.waiting.pop_front().flatten().flatten();
            self.segment(self.replayed, buf, pool)?;
            self.replayed += 1;
        }
        Ok(())
    }

    fn segment(&mut self, place: usize, buf: Option<Buf>, pool: &mut BufPool) -> Result<(), BadRecord> {
        let start = self.start.as_ref().expect("set from the beginning");
        let first = self.segments[place].1;
        let end = self.segments.get(place + 1).map_or(start.chain.len(), |(_, first)| *first);
        let headers: Vec<Header> = start.chain[first..end].to_vec();
        for header in headers {
            let bytes = buf.as_ref().map_or(&[][..], |buf| buf.bytes());
            let bytes = bytes.get(header.unit as usize * UNIT_USIZE..).unwrap_or(&[]);
            let store = self.superblock.expect("set from the beginning").store;
            let same = Header::recognise(store, header.segment, header.unit, bytes) == Some(header);
            if self.broken || !same {
                // What was read a moment ago cannot be read any more: nothing behind it may count.
                (self.broken, self.lost) = (true, true);
                return Ok(());
            }
            self.page(&header, bytes, pool)?;
        }
        Ok(())
    }

    fn page(&mut self, header: &Header, bytes: &[u8], pool: &mut BufPool) -> Result<(), BadRecord> {
        let superblock = self.superblock.expect("set from the beginning");
        self.copies.clear();
        self.copies.extend(open::copies(header, bytes));
        self.objects.approach(&self.copies);
        let mut result = Ok(());
        open::records(header, bytes, units_of(superblock.block_size), pool, |position, record| {
            if names_block_beyond(&record.body, superblock.blocks) {
                result = Err(BadRecord::Malformed);
            } else {
                self.record(header.segment, position, &record);
            }
        })?;
        result
    }

    fn is_void(&self, copy: CopyId, position: Position) -> bool {
        let ranges = self.voids.get(&copy).map_or(&[][..], Vec::as_slice);
        ranges.iter().any(|(from, to)| (*from..*to).contains(&position))
    }

    fn record(&mut self, segment: u32, position: Position, record: &Record) {
        if matches!(record.body, Body::Void(_)) || self.is_void(record.copy, position) {
            return;
        }
        let place = self.objects.find_or_insert(record.copy);
        self.apply(segment, position, record, place);
        self.objects.rest(place);
    }

    fn apply(&mut self, segment: u32, position: Position, record: &Record, place: ObjectIndex) {
        let object = self.objects.wake(place);
        let older = match &record.body {
            Body::Put { label, .. }
            | Body::Inline { label, .. }
            | Body::Patch { label, .. }
            | Body::Tombstone { label, .. } => {
                object.versions.newest().is_some_and(|newest| label.version < newest.version())
            }
            _ => false,
        };
        if older && planted(Bug::StoreReplayByVersion) {
            return;
        }
        // Its beginning is in a segment that is free already, because a later record supersedes all of it. Should that
        // one be lost, the object is better unknown than incomplete.
        if object.versions.is_empty() && !begins(&record.body) {
            return;
        }
        let undone = position.page > self.done_upto && has_data(&record.body);
        let past = || Past { before: position, versions: object.versions.clone(), base: object.base };
        match &record.body {
            // Written only when all data before it are durable: nothing before it is to be chosen.
            Body::Snapshot { .. } => {
                self.pasts.remove(&place);
            }
            Body::Intent { .. } if !planted(Bug::StoreFallBackFar) => {
                self.pasts.remove(&place);
                if undone {
                    self.pasts.insert(place, vec![past()]);
                }
            }
            _ if undone => self.pasts.entry(place).or_default().push(past()),
            _ => {
                if let Some(pasts) = self.pasts.get_mut(&place) {
                    pasts.push(past());
                }
            }
        }
        object.versions.apply(&record.body, position.page, &mut self.spare);
        object.base = match () {
            () if object.versions.is_empty() => NONE,
            () if is_base(&record.body) || object.base == NONE => segment,
            () => object.base,
        };
    }

    /// Ends replay.
    pub fn finish(self) -> Replayed {
        (self.objects, self.pasts, self.start.expect("set from the beginning"))
    }

    /// Ends replay of a log of which a part is lost.
    pub fn into_objects(self) -> (Objects, Start) {
        let (mut objects, _, start) = self.finish();
        drop_empty(&mut objects);
        (objects, start)
    }
}

/// Forgets objects of which nothing is left.
pub fn drop_empty(objects: &mut Objects) {
    let is_empty = |place: &ObjectIndex| objects.get(*place).is_some_and(|object| object.versions.is_empty());
    let empty: Vec<ObjectIndex> = objects.places().filter(is_empty).collect();
    empty.into_iter().for_each(|place| objects.remove(place));
}

fn has_data(body: &Body) -> bool {
    matches!(body, Body::Put { block, .. } if *block != NO_BLOCK) || matches!(body, Body::Intent { .. })
}

fn is_base(body: &Body) -> bool {
    match body {
        Body::Put { join, .. } | Body::Tombstone { join, .. } => join.mode == Mode::Plain,
        Body::Snapshot { .. } => true,
        _ => false,
    }
}

/// Whether replay of an object can begin with this record.
fn begins(body: &Body) -> bool {
    let first = match body {
        Body::Put { join, .. } | Body::Inline { join, .. } | Body::Tombstone { join, .. } => join.first,
        _ => false,
    };
    first || is_base(body)
}

fn names_block_beyond(body: &Body, blocks: u32) -> bool {
    let beyond = |block: u32| block != NO_BLOCK && block >= blocks;
    match body {
        Body::Put { block, .. } | Body::Intent { block, .. } | Body::Moved { to: block, .. } => beyond(*block),
        Body::Snapshot { committed, prepared } => {
            committed.as_ref().is_some_and(|state| beyond(state.block))
                || prepared.as_ref().is_some_and(|state| beyond(state.block))
        }
        _ => false,
    }
}
