//! Opening: from a device to a store that serves, after a crash at any point.
//!
//! ```text
//! flush -> superblocks -> scan (all pages) -> replay (the chain) -> verify (data under way) -> seal -> open
//!                  |                |                                                           |
//!                  v                +--> metadata lost: open, read-only, untrusted              +--> may crash, start again
//!               refused
//! ```
//!
//! Invariants: nothing is written before all of it was read and verified; nothing is served before the page that
//! records the verdicts is durable.

use super::OpenConfig;
use super::flush::{Durability, Flusher};
use super::index::Objects;
use super::journal::{Journal, Start};
use super::ops::Op;
use super::page::{self, Header, Sequence};
use super::record::{BadRecord, Body, Position, Record};
use super::replay::Replay;
use super::running::{Found, Running};
use super::superblock::{COPIES_AT, FORMAT, Place, Superblock, Unusable};
use super::verify::Verifier;
use crate::buf::{BUF_MAX_BYTES, Buf, UNIT};
use crate::id::CopyId;
use crate::io::{Device, DiskDone, DiskError, DiskOp, Effect, Env, IoId};
use crate::planted::{Bug, planted};
use crate::slab::{Key, Slab};

/// Pages that may be torn at once: more than can be written between two flushes.
const TORN_MOST: u64 = 1 << 20;
/// Segments read at a time.
const READS: u32 = 4;

/// What a disk request of opening was for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    Flush,
    Superblock(Device, usize),
    Segment(usize),
    Verify(usize),
    Seal,
    SealFlush,
}

#[derive(Clone)]
enum Stage {
    /// Device flushes outstanding.
    Flushing(u32),
    /// Superblocks outstanding.
    Superblocks(u32),
    Scanning(Box<Scan>),
    Replaying(Box<Replay>),
    Verifying(Box<Verifier>),
    Sealing(Box<Sealed>),
}

/// What reading all pages gives.
#[derive(Clone, Default)]
pub(super) struct Scan {
    next: u32,
    outstanding: u32,
    pub pages: Vec<Header>,
    /// `Void` records, with the place where they stand.
    pub voids: Vec<(Position, CopyId, Position)>,
    /// Sequences of pages of which a power loss left the header, but not all.
    pub torn: Vec<Sequence>,
    pub unreadable: bool,
}

#[derive(Clone)]
struct Sealed {
    objects: Objects,
    journal: Journal<Key<Op>>,
}

/// How opening ended.
pub enum Outcome {
    /// A store that serves.
    Open(Box<Running>),
    /// No store that can be served; why.
    Refused(String),
}

/// A store that is being opened.
#[derive(Clone)]
pub struct Opening {
    config: OpenConfig,
    stage: Stage,
    ios: Slab<Purpose>,
    copies: Vec<(Device, Result<Superblock, Unusable>)>,
    superblock: Option<Superblock>,
}

/// Disk requests of opening.
pub(super) struct Disk<'a, 'b> {
    pub ios: &'a mut Slab<Purpose>,
    pub env: &'a mut Env<'b>,
}

impl Disk<'_, '_> {
    pub fn emit(&mut self, purpose: Purpose, op: DiskOp) {
        let id = IoId(self.ios.insert(purpose).to_u64());
        self.env.out.push(Effect::Io { id, op });
    }

    fn read_segment(&mut self, superblock: &Superblock, segment: u32, purpose: Purpose) {
        let (device, offset) = (superblock.log_device(), superblock.log_place(segment, 0));
        self.emit(purpose, DiskOp::Read { device, offset, len: superblock.segment_size });
    }
}

impl Opening {
    /// Begins with a flush: what a killed process left in a volatile cache is durable from then on.
    pub fn new(config: OpenConfig, env: &mut Env<'_>) -> Self {
        let devices: &[Device] =
            if config.log_device_bytes.is_some() { &[Device::Data, Device::Log] } else { &[Device::Data] };
        let mut ios = Slab::default();
        if planted(Bug::StoreOpenWithoutFlush) {
            let stage = Stage::Flushing(1);
            let mut opening = Opening { config, stage, ios, copies: Vec::new(), superblock: None };
            let _ = opening.flushed(env, Ok(()));
            return opening;
        }
        let mut disk = Disk { ios: &mut ios, env };
        let mut flushes = 0;
        for device in devices {
            flushes += 1;
            disk.emit(Purpose::Flush, DiskOp::Flush { device: *device });
        }
        Opening { config, stage: Stage::Flushing(flushes), ios, copies: Vec::new(), superblock: None }
    }

    /// Takes the completion of a disk request; says when it is over.
    pub fn handle_io(&mut self, env: &mut Env<'_>, id: IoId, done: DiskDone) -> Option<Outcome> {
        let purpose = self.ios.remove(Key::from_u64(id.0))?;
        let result = match (purpose, done) {
            (Purpose::Flush, DiskDone::Done(result)) => self.flushed(env, result),
            (Purpose::Superblock(device, copy), DiskDone::Read(result)) => {
                self.superblock_read(env, device, copy, result)
            }
            (Purpose::Segment(place), DiskDone::Read(result)) => self.segment_read(env, place, result),
            (Purpose::Verify(check), DiskDone::Read(result)) => self.block_read(env, check, result),
            (Purpose::Seal, DiskDone::Done(result)) => self.seal_written(env, result),
            (Purpose::SealFlush, DiskDone::Done(result)) => self.seal_durable(result),
            (purpose, done) => panic!("{purpose:?} completed with {done:?}"),
        };
        result.unwrap_or_else(|reason| Some(Outcome::Refused(reason)))
    }

    fn disk<'a, 'b>(ios: &'a mut Slab<Purpose>, env: &'a mut Env<'b>) -> Disk<'a, 'b> {
        Disk { ios, env }
    }

    fn superblock(&self) -> Superblock {
        self.superblock.expect("read before the log")
    }

    // ---- superblocks

    fn flushed(&mut self, env: &mut Env<'_>, result: Result<(), DiskError>) -> Result<Option<Outcome>, String> {
        result.map_err(|error| format!("the device cannot be flushed: {error}"))?;
        let Stage::Flushing(left) = &mut self.stage else { panic!("a flush out of turn") };
        *left -= 1;
        if *left > 0 {
            return Ok(None);
        }
        let mut reads = 0;
        let devices = if self.config.log_device_bytes.is_some() { 2 } else { 1 };
        for device in [Device::Data, Device::Log].into_iter().take(devices) {
            for (copy, offset) in COPIES_AT.into_iter().enumerate() {
                let op = DiskOp::Read { device, offset, len: UNIT };
                Self::disk(&mut self.ios, env).emit(Purpose::Superblock(device, copy), op);
                reads += 1;
            }
        }
        self.stage = Stage::Superblocks(reads);
        Ok(None)
    }

    fn superblock_read(
        &mut self,
        env: &mut Env<'_>,
        device: Device,
        _copy: usize,
        result: Result<Buf, DiskError>,
    ) -> Result<Option<Outcome>, String> {
        let found = result.map_or(Err(Unusable::Damaged), |buf| Superblock::decode(buf.bytes()));
        self.copies.push((device, found));
        let Stage::Superblocks(left) = &mut self.stage else { panic!("a superblock out of turn") };
        *left -= 1;
        if *left > 0 {
            return Ok(None);
        }
        let superblock = self.choose(Device::Data)?;
        self.accept(&superblock)?;
        if self.config.log_device_bytes.is_some() {
            let log = self.choose(Device::Log)?;
            if (log.store, log.place) != (superblock.store, Place::Log) {
                return Err(format!("the log device belongs to store {}, not to {}", log.store, superblock.store));
            }
        }
        self.superblock = Some(superblock);
        self.stage = Stage::Scanning(Box::default());
        self.read_ahead(env);
        Ok(None)
    }

    /// The superblock of a device: of the valid copies, the one of the highest generation.
    fn choose(&self, device: Device) -> Result<Superblock, String> {
        let copies = self.copies.iter().filter(|(on, _)| *on == device).map(|(_, copy)| *copy);
        let newer = copies.clone().find_map(|copy| copy.err().and_then(too_new));
        if let Some(reason) = newer {
            return Err(reason);
        }
        let mut valid = copies.clone().filter_map(Result::ok);
        let Some(first) = valid.next() else { return Err(no_store(copies.filter_map(Result::err))) };
        match valid.next() {
            Some(second) if second.store != first.store => Err(format!(
                "two stores begin here, {} and {}: building one was interrupted; build it again",
                first.store, second.store
            )),
            Some(second) if second.generation > first.generation => Ok(second),
            _ => Ok(first),
        }
    }

    /// Whether the store is the one that is meant, and the device still large enough.
    fn accept(&self, superblock: &Superblock) -> Result<(), String> {
        let OpenConfig { cluster, osd, data_bytes, log_device_bytes, .. } = self.config;
        if superblock.cluster != cluster {
            return Err(format!("the store belongs to cluster {}, not to {cluster}", superblock.cluster));
        }
        if superblock.osd != osd {
            return Err(format!("the store belongs to {:?}, not to {osd:?}", superblock.osd));
        }
        match (superblock.place, log_device_bytes) {
            (Place::Log, _) => return Err("this is the log device of a store, not its data device".to_string()),
            (Place::Whole, Some(_)) => return Err("the store has its log on the data device".to_string()),
            (Place::Data, None) => return Err("the store has its log on another device: name it".to_string()),
            (Place::Whole, None) | (Place::Data, Some(_)) => {}
        }
        let (data, log) = superblock.needed_bytes();
        if data > data_bytes || log > log_device_bytes.unwrap_or(0) {
            return Err(format!("the store needs {data} bytes, the device has {data_bytes}"));
        }
        let sound = superblock.segment_size.is_multiple_of(UNIT) && superblock.segment_size <= BUF_MAX_BYTES;
        if !sound || superblock.segments < 2 || superblock.page_max() > superblock.segment_size {
            return Err("the superblock makes no sense".to_string());
        }
        Ok(())
    }

    // ---- scan

    /// Keeps some segments on their way.
    fn read_ahead(&mut self, env: &mut Env<'_>) {
        let superblock = self.superblock();
        let Stage::Scanning(scan) = &mut self.stage else { panic!("not scanning") };
        while scan.outstanding < READS && scan.next < superblock.segments {
            let segment = scan.next;
            scan.next += 1;
            scan.outstanding += 1;
            let purpose = Purpose::Segment(segment as usize);
            Self::disk(&mut self.ios, env).read_segment(&superblock, segment, purpose);
        }
    }

    fn segment_read(
        &mut self,
        env: &mut Env<'_>,
        place: usize,
        result: Result<Buf, DiskError>,
    ) -> Result<Option<Outcome>, String> {
        if matches!(self.stage, Stage::Replaying(_)) {
            return self.replay(env, place, result);
        }
        let superblock = self.superblock();
        let Stage::Scanning(scan) = &mut self.stage else { panic!("a segment out of turn") };
        scan.outstanding -= 1;
        match result {
            Ok(buf) => scan.add(&superblock, place, &buf, env)?,
            Err(_) => scan.unreadable = true,
        }
        if scan.outstanding > 0 || scan.next < superblock.segments {
            self.read_ahead(env);
            return Ok(None);
        }
        let scan = std::mem::take(scan);
        self.begin_replay(env, *scan)
    }

    // ---- replay

    fn begin_replay(&mut self, env: &mut Env<'_>, scan: Scan) -> Result<Option<Outcome>, String> {
        let replay = Replay::new(self.superblock(), scan);
        self.stage = Stage::Replaying(Box::new(replay));
        self.replay_ahead(env)
    }

    fn replay_ahead(&mut self, env: &mut Env<'_>) -> Result<Option<Outcome>, String> {
        let superblock = self.superblock();
        let Stage::Replaying(replay) = &mut self.stage else { panic!("not replaying") };
        while let Some((place, segment)) = replay.next_read() {
            Self::disk(&mut self.ios, env).read_segment(&superblock, segment, Purpose::Segment(place));
        }
        if !replay.is_done() {
            return Ok(None);
        }
        self.begin_verify(env)
    }

    fn replay(
        &mut self,
        env: &mut Env<'_>,
        place: usize,
        result: Result<Buf, DiskError>,
    ) -> Result<Option<Outcome>, String> {
        let Stage::Replaying(replay) = &mut self.stage else { panic!("a segment out of turn") };
        replay.segment_read(place, result.ok(), env.bufs).map_err(bad_record)?;
        self.replay_ahead(env)
    }

    // ---- verification

    fn begin_verify(&mut self, env: &mut Env<'_>) -> Result<Option<Outcome>, String> {
        let superblock = self.superblock();
        let Stage::Replaying(replay) = &mut self.stage else { panic!("not replaying") };
        let replay = std::mem::take(&mut **replay);
        if replay.is_lost() {
            let (objects, start) = replay.into_objects();
            let journal = Journal::new(superblock, &start);
            return Ok(Some(self.serve(false, objects, journal)));
        }
        self.stage = Stage::Verifying(Box::new(Verifier::new(superblock, replay)));
        self.verify_ahead(env)
    }

    fn verify_ahead(&mut self, env: &mut Env<'_>) -> Result<Option<Outcome>, String> {
        let Stage::Verifying(verifier) = &mut self.stage else { panic!("not verifying") };
        verifier.read_ahead(&mut Self::disk(&mut self.ios, env));
        if !verifier.is_done() {
            return Ok(None);
        }
        self.seal(env)
    }

    fn block_read(
        &mut self,
        env: &mut Env<'_>,
        check: usize,
        result: Result<Buf, DiskError>,
    ) -> Result<Option<Outcome>, String> {
        let Stage::Verifying(verifier) = &mut self.stage else { panic!("a block out of turn") };
        verifier.block_read(check, result.ok());
        self.verify_ahead(env)
    }

    // ---- the page that records the verdicts

    fn seal(&mut self, env: &mut Env<'_>) -> Result<Option<Outcome>, String> {
        let superblock = self.superblock();
        let Stage::Verifying(verifier) = &mut self.stage else { panic!("not verifying") };
        let (objects, mut start, mut voids) = std::mem::take(&mut **verifier).finish();
        let cut = start.chain.last().map_or(0, |header| header.sequence);
        if planted(Bug::StoreForgetVerdicts) {
            voids.clear();
        }
        if planted(Bug::StoreSkipOpenPage) {
            start.next = cut + 1;
        }
        let mut journal = Journal::new(superblock, &start);
        if voids.is_empty() && start.next == cut + 1 {
            return Ok(Some(self.serve(true, objects, journal)));
        }
        let bytes = voids.iter().map(Record::bytes).sum();
        if !journal.fits(bytes) {
            return Err("the log has no room for the page that opening writes".to_string());
        }
        journal.page_for(bytes, env.bufs);
        for void in &voids {
            journal.append(void, None, env.bufs);
        }
        let (offset, data) = journal.next_write(env.bufs).expect("a page was opened");
        let device = superblock.log_device();
        self.stage = Stage::Sealing(Box::new(Sealed { objects, journal }));
        Self::disk(&mut self.ios, env).emit(Purpose::Seal, DiskOp::Write { device, offset, data });
        Ok(None)
    }

    fn seal_written(&mut self, env: &mut Env<'_>, result: Result<(), DiskError>) -> Result<Option<Outcome>, String> {
        result.map_err(|error| format!("the log cannot be written: {error}"))?;
        let Stage::Sealing(sealed) = &mut self.stage else { panic!("a seal out of turn") };
        sealed.journal.write_completed();
        if self.log_durability() == Durability::Plp {
            return self.seal_durable(Ok(()));
        }
        let device = self.superblock().log_device();
        Self::disk(&mut self.ios, env).emit(Purpose::SealFlush, DiskOp::Flush { device });
        Ok(None)
    }

    fn seal_durable(&mut self, result: Result<(), DiskError>) -> Result<Option<Outcome>, String> {
        result.map_err(|error| format!("the log cannot be flushed: {error}"))?;
        let Stage::Sealing(sealed) = &mut self.stage else { panic!("a seal out of turn") };
        let Sealed { objects, mut journal } = (**sealed).clone();
        journal.pop_durable(Sequence::MAX);
        Ok(Some(self.serve(true, objects, journal)))
    }

    fn log_durability(&self) -> Durability {
        if self.superblock().log_device() == Device::Log { self.config.log_durability } else { self.config.durability }
    }

    fn serve(&self, trusted: bool, objects: Objects, journal: Journal<Key<Op>>) -> Outcome {
        let superblock = self.superblock();
        let durable = journal.durable();
        let separate = superblock.log_device() == Device::Log;
        let log = separate.then(|| Flusher::new(self.config.log_durability, durable));
        let flushers = (Flusher::new(self.config.durability, durable), log);
        let OpenConfig { overwrites, scrub, discards, .. } = self.config;
        match Running::new(Found { superblock, trusted, objects, journal, flushers, overwrites, scrub, discards }) {
            Ok(store) => Outcome::Open(Box::new(store)),
            Err(reason) => Outcome::Refused(reason),
        }
    }
}

impl Scan {
    fn add(&mut self, superblock: &Superblock, place: usize, buf: &Buf, env: &mut Env<'_>) -> Result<(), String> {
        let segment = u32::try_from(place).expect("a segment");
        let units = super::object::units_of(superblock.block_size);
        let mut result = Ok(());
        let torn = &mut self.torn;
        let rest = |unit: u32, bytes: &[u8]| {
            torn.extend(page::torn(superblock.store, segment, unit, bytes).map(|header| header.sequence));
        };
        page::scan_all(
            superblock.store,
            segment,
            buf.bytes(),
            |header, bytes| {
                self.pages.push(header);
                if header.voids {
                    let voids = records(&header, bytes, units, env.bufs, |position, record| {
                        if let Body::Void(from) = record.body {
                            self.voids.push((position, record.copy, from));
                        }
                    });
                    result = std::mem::replace(&mut result, Ok(())).and(voids.map_err(bad_record));
                }
            },
            rest,
        );
        result
    }
}

/// Calls `each` with the records of a page.
pub(super) fn records(
    header: &Header,
    bytes: &[u8],
    units: usize,
    pool: &mut crate::buf::BufPool,
    mut each: impl FnMut(Position, Record),
) -> Result<(), BadRecord> {
    let mut at = page::HEADER_BYTES;
    for index in 0..header.records {
        let bytes = bytes.get(at..header.length as usize).ok_or(BadRecord::Malformed)?;
        let (record, length) = Record::decode(bytes, units, pool)?;
        each(Position { page: header.sequence, index }, record);
        at += length;
    }
    Ok(())
}

/// The objects that the records of a page are of.
pub(super) fn copies(header: &Header, bytes: &[u8]) -> impl Iterator<Item = CopyId> {
    let mut at = page::HEADER_BYTES;
    (0..header.records).map_while(move |_| {
        let (copy, length) = Record::glance(bytes.get(at..header.length as usize)?)?;
        at += length;
        Some(copy)
    })
}

fn bad_record(error: BadRecord) -> String {
    match error {
        BadRecord::Unknown => "the log holds records that this version does not know: it was written by a newer one",
        BadRecord::Malformed => "the log holds a record that contradicts itself",
    }
    .to_string()
}

fn too_new(error: Unusable) -> Option<String> {
    match error {
        Unusable::Newer(format) => {
            Some(format!("the store has format {format}; this version reads formats up to {FORMAT}"))
        }
        Unusable::Features(bits) => Some(format!("the store has features {bits:#x} that this version does not know")),
        Unusable::Blank | Unusable::Foreign | Unusable::Damaged => None,
    }
}

fn no_store(errors: impl Iterator<Item = Unusable>) -> String {
    let errors: Vec<Unusable> = errors.collect();
    if errors.contains(&Unusable::Damaged) {
        "both superblocks of the store are damaged"
    } else if errors.contains(&Unusable::Foreign) {
        "the device holds something else than a store"
    } else {
        "there is no store on the device"
    }
    .to_string()
}

/// Once round a ring of so many segments, from this one on: the way that every writer takes.
#[derive(Clone, Copy)]
struct Lap {
    segments: u32,
    first: u32,
}

impl Lap {
    /// How many segments behind the first one a page lies.
    fn at(self, page: &Header) -> u32 {
        (page.segment + self.segments - self.first) % self.segments
    }

    /// Whether a page lies behind another one.
    fn goes_on(self, last: &Header, next: &Header) -> bool {
        let (from, to) = (self.at(last), self.at(next));
        to > from || (to == from && next.unit >= last.unit + last.units())
    }

    /// Whether a page, older than the first one of the lap, can be there still when the lap has come to `last`.
    fn spares(self, last: &Header, older: &Header) -> bool {
        self.at(older) == 0 || self.at(older) > self.at(last)
    }
}

/// Where the log goes on, given its pages in a ring of so many segments. Also says whether metadata were lost.
pub(super) fn chain(segments: u32, scan: &mut Scan) -> (Start, bool) {
    let pages = &mut scan.pages;
    let top = pages.iter().map(|page| page.sequence).max().unwrap_or(0);
    let tail = pages.iter().map(|page| page.tail).max().unwrap_or(0);
    let durable = pages.iter().map(|page| page.durable_upto).max().unwrap_or(0);
    pages.sort_unstable_by_key(|page| (page.prev, page.sequence));
    let mut chain: Vec<Header> = pages.iter().filter(|page| page.sequence == tail).copied().collect();
    if planted(Bug::StoreReplayPastGap) {
        chain = pages.iter().filter(|page| page.sequence >= tail).copied().collect();
        chain.sort_unstable_by_key(|page| page.sequence);
    }
    let lap = Lap { segments, first: chain.first().map_or(0, |page| page.segment) };
    while let Some(last) = chain.last().map(|page| page.sequence) {
        let end = pages.partition_point(|page| page.prev <= last);
        // Of several, the newest: it was written by an opening that found the others void.
        let Some(next) = end.checked_sub(1).map(|at| pages[at]) else { break };
        // One that lies elsewhere contradicts itself: no store has written it.
        if next.prev != last || next.sequence <= last || !lap.goes_on(&chain[chain.len() - 1], &next) {
            break;
        }
        chain.push(next);
    }
    // A tail that only a page beyond the chain names frees nothing yet.
    let named = chain.iter().map(|page| page.tail).max();
    let vouched = pages.iter().find(|page| Some(page.sequence) == named).or(chain.first());
    let is_sound = chain.last().zip(vouched).is_some_and(|(last, vouched)| lap.spares(last, vouched));
    let vouched = if is_sound { vouched } else { chain.first() };
    let vouched_tail = vouched.map_or(0, |page| page.segment);
    let lost = !is_sound || chain.last().is_none_or(|page| page.sequence < durable) || scan.unreadable;
    if chain.is_empty() {
        chain.push(Header { sequence: top, ..Header::default() });
    }
    // The missing parts of a torn page may be the same in the page that is written over it: should only those arrive,
    // it would be whole. So its sequence counts as given, and the page that opening writes comes first in the chain. What
    // only looks like a header, in a client's data, names no sequence so near.
    let near = |torn: &Sequence| *torn > top && *torn - top <= TORN_MOST && !planted(Bug::StoreForgetTorn);
    let top = scan.torn.iter().copied().filter(near).max().unwrap_or(top);
    (Start { chain, next: top + 1, vouched_tail }, lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENTS: u32 = 4;

    /// A page at `sequence`, behind the one before, that names a tail.
    fn page(sequence: Sequence, (segment, unit): (u32, u32), tail: Sequence) -> Header {
        let (prev, length) = (sequence - 1, UNIT);
        Header { sequence, prev, segment, unit, length, tail, durable_upto: prev, ..Header::default() }
    }

    /// How long the chain is, the vouched tail, and whether metadata are lost.
    fn chained(pages: &[Header]) -> (usize, u32, bool) {
        let mut scan = Scan { pages: pages.to_vec(), ..Scan::default() };
        let (start, lost) = chain(SEGMENTS, &mut scan);
        (start.chain.len(), start.vouched_tail, lost)
    }

    #[test]
    fn a_chain_goes_round_the_ring_once() {
        let pages = [page(5, (2, 0), 5), page(6, (2, 1), 5), page(7, (3, 0), 5), page(8, (0, 0), 5)];
        assert_eq!(chained(&pages), (4, 2, false));
        // The newest one comes back to where the first one lies, goes a segment back, or lies over the one before.
        for elsewhere in [(2, 2), (3, 0), (0, 0)] {
            let mut forged = pages.to_vec();
            forged.push(page(9, (0, 1), 5));
            assert_eq!(chained(&forged), (5, 2, false));
            forged[4] = page(9, elsewhere, 5);
            forged.push(page(10, (1, 0), 5));
            assert_eq!(chained(&forged), (4, 2, true), "{elsewhere:?}");
        }
    }

    #[test]
    fn a_tail_that_is_vouched_for_lies_before_the_chain() {
        // The newest page names a later tail than what is in the log did.
        let cooling = [page(5, (2, 0), 5), page(6, (3, 0), 6), page(7, (0, 0), 6)];
        assert_eq!(chained(&cooling), (2, 3, false));
        // Only a page beyond the chain names the later tail.
        let beyond = Header { durable_upto: 7, ..page(9, (3, 5), 5) };
        let pages = [page(3, (0, 0), 3), page(5, (1, 0), 3), page(6, (2, 1), 3), page(7, (3, 0), 3), beyond];
        assert_eq!(chained(&pages), (3, 0, false));
        let mut forged = pages.to_vec();
        forged[0] = page(3, (2, 0), 3);
        assert_eq!(chained(&forged), (3, 1, true));
    }
}
