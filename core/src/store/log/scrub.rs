//! Scrub of the log: pages that nobody reads before the next opening are read in the background, slowly.
//!
//! ```text
//! superblocks -> pages of each segment -> (pause) -> superblocks ...
//!                        |
//!                        v damaged, and again when read once more
//!                    condemned -> every object that replay would need it for is logged anew -> the tail is past it
//!                                                                                                  |
//!                                                        what could not be read is written over <--+
//! ```
//!
//! Memory is what replay would give, so nothing is lost as long as the store stays open: the cleaner logs anew what lives
//! in the segments up to the damaged page. Owns the place in the pass and what is condemned; the cleaner moves the tail.
//! Invariants: only pages in the log are judged; nothing is written but bad superblocks and free segments.

use super::journal::Stretch;
use super::page::{Header, Sequence};
use super::running::{Io, Running};
use super::superblock::{COPIES_AT, Place, Superblock};
use crate::buf::{Buf, UNIT, UNIT_USIZE};
use crate::io::{Device, DiskError, DiskOp, Effect, Env, Event, Level};
use crate::planted::{Bug, planted};
use crate::time::{Duration, Time};

/// Bytes read at a time, if the largest page is not longer: little beside a client's load, and few requests for a pass.
const PIECE_BYTES: u32 = 256 << 10;

/// What is read next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cursor {
    /// A copy of a superblock.
    Superblock(usize),
    /// Pages from a unit of a segment on.
    Pages { segment: u32, unit: u32, seen: Option<Seen> },
}

/// What was seen of a segment: its first page, and the last one that was right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    first: Sequence,
    prev: Sequence,
}

/// A read under way.
#[derive(Clone, Copy, Debug)]
struct Reading {
    cursor: Cursor,
    /// What of the segment was in the log.
    stretch: Stretch,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Scrubber {
    /// Of a pass over the whole log; zero: there is none.
    period: Duration,
    due: Option<Time>,
    cursor: Cursor,
    reading: Option<Reading>,
    /// Whether what is read next was found bad once.
    suspected: bool,
    /// Newest page that is to be superfluous; 0: none.
    condemned: Sequence,
    /// Where the device could not read: byte offset in the log, bytes, segment.
    unreadable: Vec<(u64, u32, u32)>,
}

/// What became of looking at some pages.
enum Verdict {
    /// All are right; it goes on at this unit, behind this page.
    Goes(u32, Sequence),
    /// The last page of the stretch was right.
    Ends,
    /// The page at this unit is not what was written.
    Bad(u32),
}

impl Scrubber {
    /// Begins a first pass.
    pub fn new(period: Duration) -> Self {
        let cursor = Cursor::Superblock(0);
        Scrubber { period, due: None, cursor, reading: None, suspected: false, condemned: 0, unreadable: Vec::new() }
    }

    /// When it goes on.
    pub fn deadline(&self) -> Option<Time> {
        self.due.filter(|_| self.reading.is_none())
    }

    /// Newest page that must leave the log; 0: none.
    pub fn condemned(&self) -> Sequence {
        self.condemned
    }
}

impl Running {
    fn piece_bytes(&self) -> u32 {
        self.superblock.page_max().max(PIECE_BYTES).min(self.superblock.segment_size)
    }

    /// Time from one piece to the next.
    fn scrub_pause(&self) -> Duration {
        let of_segment = self.superblock.segment_size.div_ceil(self.piece_bytes());
        let pieces = u64::from(self.superblock.segments) * u64::from(of_segment) + self.superblock_copies() as u64;
        Duration((self.scrubber.period.0 / pieces).max(1))
    }

    fn superblock_copies(&self) -> usize {
        COPIES_AT.len() * if self.superblock.log_device() == Device::Log { 2 } else { 1 }
    }

    /// Goes on with the pass when its time has come, and with what was found.
    pub(super) fn scrub(&mut self, env: &mut Env<'_>) {
        if self.scrubber.period == Duration(0) || self.is_closing() {
            self.scrubber.due = None;
            return;
        }
        self.leave_condemned(env);
        let pause = self.scrub_pause();
        let due = *self.scrubber.due.get_or_insert(env.now + pause);
        if due > env.now || self.scrubber.reading.is_some() {
            return;
        }
        self.scrubber.due = Some(env.now + pause);
        self.read_piece(env);
    }

    fn read_piece(&mut self, env: &mut Env<'_>) {
        let none = Stretch::default();
        loop {
            let cursor = self.scrubber.cursor;
            match cursor {
                Cursor::Superblock(number) => {
                    self.scrubber.reading = Some(Reading { cursor, stretch: none });
                    let (device, offset) = superblock_place(number);
                    return self.emit(env, Io::Scrub, DiskOp::Read { device, offset, len: UNIT });
                }
                Cursor::Pages { segment, .. } if segment == self.superblock.segments => {
                    self.counters.log_scrubs += 1;
                    self.scrubber.cursor = Cursor::Superblock(0);
                    return;
                }
                Cursor::Pages { segment, unit, seen } => {
                    let same = |stretch: &Stretch| seen.is_none_or(|seen| seen.first == stretch.first);
                    if let Some(stretch) = self.journal.stretch(segment).filter(same) {
                        self.scrubber.reading = Some(Reading { cursor, stretch });
                        let len = self.piece_bytes().min(self.superblock.segment_size - unit * UNIT);
                        let (device, offset) = (self.superblock.log_device(), self.superblock.log_place(segment, unit));
                        return self.emit(env, Io::Scrub, DiskOp::Read { device, offset, len });
                    }
                    self.next_segment(segment);
                }
            }
        }
    }

    fn next_segment(&mut self, segment: u32) {
        self.scrubber.cursor = Cursor::Pages { segment: segment + 1, unit: 0, seen: None };
        self.scrubber.suspected = false;
    }

    /// A piece was read (or could not be).
    pub(super) fn scrubbed(&mut self, env: &mut Env<'_>, result: Result<Buf, DiskError>) {
        let Some(Reading { cursor, stretch }) = self.scrubber.reading.take() else { return };
        match cursor {
            Cursor::Superblock(number) => self.superblock_scrubbed(env, number, result),
            Cursor::Pages { segment, unit, seen } => {
                // Written anew meanwhile, or free: it says nothing.
                if self.journal.stretch(segment).is_none_or(|now| now.first != stretch.first) {
                    return self.next_segment(segment);
                }
                let verdict = match &result {
                    Ok(buf) => self.judge((segment, unit), seen.map_or(0, |seen| seen.prev), stretch, buf),
                    Err(_) => Verdict::Bad(unit),
                };
                self.pages_scrubbed(env, (segment, unit), stretch.first, verdict, result.is_err());
            }
        }
    }

    fn judge(&self, (segment, first): (u32, u32), before: Sequence, stretch: Stretch, buf: &Buf) -> Verdict {
        let (mut unit, mut prev) = (first, before);
        let end = self.superblock.segment_size / UNIT;
        loop {
            let at = (unit - first) as usize * UNIT_USIZE;
            let bytes = buf.bytes().get(at..).filter(|bytes| !bytes.is_empty());
            let Some(bytes) = bytes else {
                // At the end of the segment some are missing.
                return if unit < end { Verdict::Goes(unit, prev) } else { Verdict::Bad(first) };
            };
            let header = Header::recognise(self.superblock.store, segment, unit, bytes);
            let follows = |header: &Header| match unit {
                0 => header.sequence == stretch.first,
                _ => header.prev == prev,
            };
            match header.filter(follows) {
                Some(header) if header.sequence >= stretch.last => return Verdict::Ends,
                Some(header) => (unit, prev) = (unit + header.units(), header.sequence),
                // It may only not have been read to its end.
                None if unit > first => return Verdict::Goes(unit, prev),
                None => return Verdict::Bad(unit),
            }
        }
    }

    fn pages_scrubbed(
        &mut self,
        env: &mut Env<'_>,
        (segment, unit): (u32, u32),
        first: Sequence,
        verdict: Verdict,
        unreadable: bool,
    ) {
        match verdict {
            Verdict::Ends => self.next_segment(segment),
            Verdict::Goes(unit, prev) => {
                self.scrubber.suspected = false;
                self.scrubber.cursor = Cursor::Pages { segment, unit, seen: Some(Seen { first, prev }) };
            }
            // The way from the medium may have been at fault: once more, at once.
            Verdict::Bad(_) if !std::mem::replace(&mut self.scrubber.suspected, true) => {
                self.scrubber.due = Some(env.now);
            }
            Verdict::Bad(_) if planted(Bug::StoreScrubBlind) => self.next_segment(segment),
            Verdict::Bad(at) => {
                self.condemn(env, segment, at);
                if unreadable {
                    let len = self.piece_bytes().min(self.superblock.segment_size - unit * UNIT);
                    self.scrubber.unreadable.push((self.superblock.log_place(segment, unit), len, segment));
                }
                self.next_segment(segment);
            }
        }
    }

    /// Everything up to the last page of this segment shall be superfluous at the next opening.
    fn condemn(&mut self, env: &mut Env<'_>, segment: u32, unit: u32) {
        let last = self.journal.segments[segment as usize].last;
        self.counters.damaged_pages += 1;
        if last <= self.scrubber.condemned {
            return;
        }
        self.scrubber.condemned = last;
        mark(env, "a scrub found a page of the log damaged");
        let place = self.superblock.log_place(segment, unit);
        let text = format!("the log is damaged at byte {place}: what it says is logged anew from memory");
        env.out.push(Effect::Observe(Event::Log(Level::Error, text)));
    }

    /// Helps the cleaner past condemned pages, and ends when they do not matter any more.
    fn leave_condemned(&mut self, env: &mut Env<'_>) {
        let condemned = self.scrubber.condemned;
        if condemned == 0 {
            return self.write_over_unreadable(env);
        }
        if self.journal.vouched_first() > condemned || planted(Bug::StoreScrubForgets) {
            self.scrubber.condemned = 0;
            mark(env, "a damaged page of the log is not needed any more");
            let text = "the damaged part of the log is not needed any more".to_string();
            env.out.push(Effect::Observe(Event::Log(Level::Warn, text)));
            return;
        }
        // Cleaning needs room in another segment than the one that shall go.
        let room = self.spare_room() > 2 * u64::from(self.superblock.segment_size);
        if self.journal.head_first() <= condemned && room {
            self.journal.leave_head(env.bufs);
        }
        if self.journal.needs_voucher() {
            // A page that names the later tail.
            self.journal.voucher(env.bufs);
        }
    }

    /// Devices give a sector that they cannot read a new place when it is written.
    fn write_over_unreadable(&mut self, env: &mut Env<'_>) {
        let journal = &mut self.journal;
        // What is in the log again was written anew.
        self.scrubber.unreadable.retain(|(_, _, segment)| journal.stretch(*segment).is_none());
        let next = self.scrubber.unreadable.iter().position(|(_, _, segment)| journal.begin_wipe(*segment));
        let Some((offset, len, _)) = next.map(|at| self.scrubber.unreadable.swap_remove(at)) else { return };
        let zeroes = env.bufs.zeroed(len);
        let (device, data) = (self.superblock.log_device(), env.bufs.freeze(zeroes));
        self.emit(env, Io::Wipe, DiskOp::Write { device, offset, data });
    }

    /// A superblock was read: one that is not what it should be is written anew.
    fn superblock_scrubbed(&mut self, env: &mut Env<'_>, number: usize, result: Result<Buf, DiskError>) {
        let found = result.ok().and_then(|buf| Superblock::decode(buf.bytes()).ok());
        let (device, offset) = superblock_place(number);
        let ours = match device {
            Device::Data => self.superblock,
            Device::Log => Superblock { place: Place::Log, ..self.superblock },
        };
        if found.is_none_or(|found| found.store != ours.store) {
            let text = format!("the superblock at byte {offset} of {device:?} is damaged: it is written anew");
            env.out.push(Effect::Observe(Event::Log(Level::Error, text)));
            self.counters.damaged_pages += 1;
            let mut buf = env.bufs.zeroed(UNIT);
            ours.encode(buf.bytes_mut());
            let data = env.bufs.freeze(buf);
            self.emit(env, Io::Mend, DiskOp::Write { device, offset, data });
        }
        self.scrubber.cursor = match number + 1 {
            next if next < self.superblock_copies() => Cursor::Superblock(next),
            _ => Cursor::Pages { segment: 0, unit: 0, seen: None },
        };
    }
}

fn mark(env: &mut Env<'_>, name: &'static str) {
    env.out.push(Effect::Observe(Event::Mark(name)));
}

/// Device and offset of a copy of a superblock.
fn superblock_place(number: usize) -> (Device, u64) {
    let device = if number < COPIES_AT.len() { Device::Data } else { Device::Log };
    (device, COPIES_AT[number % COPIES_AT.len()])
}
