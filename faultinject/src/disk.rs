//! A block device with a volatile write cache, accurate to the 512-byte sector.
//!
//! Contents are kept in pages of 4 KiB. Of each page the device knows what is *stable* (survives power loss) and every
//! later state that it *cached*, in the order in which the writes completed. Reads see the newest. The rules are NVMe's:
//!
//! - A write takes effect when it completes; requests complete in any order. A read that meets a write, in whichever order
//!   they begin and complete, sees each of its sectors as it was or as it becomes. Two requests in flight that change the
//!   same bytes are a bug of whoever made them, and so is a request that does not fit.
//! - A flush makes stable what had completed before the flush was *submitted*, nothing else.
//! - At power loss, each sector (or larger atomic unit) of a page takes any one of its states: stable, cached, or of a
//!   write that was in flight. With power-loss protection, completion is stability.
//! - When only the process dies, what had completed stays; of what was in flight each page may be written or not.
//!
//! Invariant: a page is in `cached` only with at least one state, and never on a device with power-loss protection.

use ashlar_core::buf::{Buf, BufPool, UNIT, UNIT_USIZE};
use ashlar_core::io::{DiskDone, DiskError, DiskOp};
use ashlar_core::rng::Rng;
use ashlar_core::time::{Duration, Time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of a sector.
pub const SECTOR: usize = 512;
const SECTORS_PER_PAGE: usize = UNIT_USIZE / SECTOR;
/// Pages out of larger buffers are copied.
const KEPT_BYTES: usize = 2 * UNIT_USIZE;
/// Time between the end of a stall and the completion of what it held back.
const AFTER_STALL: Duration = Duration::micros(10);

/// How long a request takes: `base` to twice `base`, now and then up to `tail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Shortest.
    pub base: Duration,
    /// Longest.
    pub tail: Duration,
    /// Requests in a million that take longer than usual.
    pub tail_ppm: u64,
}

impl Latency {
    /// Draws a latency.
    pub fn draw(&self, rng: &mut Rng) -> Duration {
        // A longest latency that is no longer than the shortest makes it constant.
        let usual = self.base.0 + rng.below(self.base.0.max(1)).min(self.tail.0.saturating_sub(self.base.0));
        if self.tail_ppm > 0 && rng.chance(self.tail_ppm, 1_000_000) {
            return Duration(rng.between(usual, self.tail.0.max(usual)));
        }
        Duration(usual)
    }
}

/// What kind of device it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskModel {
    /// Bytes, a multiple of 4 KiB.
    pub size_bytes: u64,
    /// Bytes of a logical block, 512 or 4096: requests are whole blocks.
    pub block_bytes: u32,
    /// Completed writes survive power loss.
    pub power_loss_protection: bool,
    /// Bytes that power loss never tears: 512 or 4096.
    pub atomic_bytes: u32,
    /// Of reads.
    pub read: Latency,
    /// Of writes and discards.
    pub write: Latency,
    /// Of flushes.
    pub flush: Latency,
}

/// How often requests fail or hang; parts of a million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiskFaults {
    /// Reads that answer an error.
    pub read_error_ppm: u64,
    /// Writes that answer an error, having written any of their pages.
    pub write_error_ppm: u64,
    /// Flushes that answer an error, having made nothing certain.
    pub flush_error_ppm: u64,
    /// Flushes that answer well, having made nothing certain.
    pub lying_flush_ppm: u64,
    /// Writes that answer well and went nowhere.
    pub lost_write_ppm: u64,
    /// Writes that answer well and went to another place, a whole number of their lengths away.
    pub misdirected_write_ppm: u64,
    /// Lost and misdirected are only writes from this byte on, and they go to places from it on.
    pub from_byte: u64,
}

impl DiskFaults {
    /// Where a write to a device of so many bytes really goes; `None`: nowhere.
    pub fn real_place(&self, size_bytes: u64, offset: u64, len: u32, rng: &mut Rng) -> Option<u64> {
        let DiskFaults { lost_write_ppm, misdirected_write_ppm, from_byte, .. } = *self;
        if offset < from_byte || lost_write_ppm + misdirected_write_ppm == 0 {
            return Some(offset);
        }
        let fate = rng.below(1_000_000);
        if fate < lost_write_ppm {
            return None;
        }
        if fate >= lost_write_ppm + misdirected_write_ppm {
            return Some(offset);
        }
        let places = (size_bytes - from_byte) / u64::from(len.max(1));
        Some(from_byte + rng.below(places.max(1)) * u64::from(len))
    }
}

/// How the device comes out of a power loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything that had completed was written in time, and what was in flight too.
    KeepAll,
    /// Only what was stable.
    LoseAll,
    /// Each page wholly in one of its states.
    Pages,
    /// Each atomic unit in one of its states.
    Sectors,
    /// The same, but some of those that a single write may leave in several states hold what nobody wrote.
    Garbage,
}

impl Outcome {
    /// Draws an outcome; the nastier ones more often.
    pub fn draw(rng: &mut Rng) -> Outcome {
        [Outcome::KeepAll, Outcome::LoseAll, Outcome::LoseAll, Outcome::Pages, Outcome::Sectors, Outcome::Garbage]
            [usize::try_from(rng.below(6)).expect("below 6")]
    }
}

/// Names a request in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

#[derive(Clone, Debug)]
struct InFlight {
    op: DiskOp,
    /// For a flush: the number of writes that had completed when it was submitted.
    watermark: u64,
    error: bool,
    /// For a read: pages that changed since it began, and what they were.
    replaced: Vec<(u64, Buf)>,
}

/// Counts of what the device did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounters {
    /// Completed reads.
    pub reads: u64,
    /// Completed writes.
    pub writes: u64,
    /// Bytes of completed writes.
    pub written_bytes: u64,
    /// Completed flushes.
    pub flushes: u64,
    /// Completed discards.
    pub discards: u64,
    /// Requests that answered an error.
    pub errors: u64,
    /// Sectors that a power loss took away or mixed.
    pub sectors_reverted: u64,
}

/// The device.
#[derive(Clone, Debug)]
pub struct SimDisk {
    model: DiskModel,
    faults: DiskFaults,
    stable: Vec<Option<Buf>>,
    cached: BTreeMap<u64, Vec<(u64, Buf)>>,
    in_flight: BTreeMap<Ticket, InFlight>,
    unreadable: BTreeSet<u64>,
    completed: u64,
    tickets: u64,
    stalled_until: Time,
    /// Requests take so many times as long as usual.
    slowness: u64,
    dead: bool,
    zeroes: Buf,
    counters: DiskCounters,
}

impl SimDisk {
    /// A device of zeroes.
    pub fn new(model: DiskModel, bufs: &mut BufPool) -> Self {
        assert!(model.size_bytes.is_multiple_of(u64::from(UNIT)), "a device has whole pages");
        assert!(model.atomic_bytes == 512 || model.atomic_bytes == UNIT, "atomic unit is a sector or a page");
        let pages = usize::try_from(model.size_bytes / u64::from(UNIT)).expect("a simulated device fits into memory");
        let zeroes = bufs.zeroed(UNIT);
        SimDisk {
            model,
            faults: DiskFaults::default(),
            stable: vec![None; pages],
            cached: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            completed: 0,
            tickets: 0,
            stalled_until: Time(0),
            slowness: 1,
            dead: false,
            zeroes: bufs.freeze(zeroes),
            counters: DiskCounters::default(),
        }
    }

    /// From now on every request takes as long as these say.
    pub fn set_latencies(&mut self, read: Latency, write: Latency, flush: Latency) {
        (self.model.read, self.model.write, self.model.flush) = (read, write, flush);
    }

    /// What kind of device it is.
    pub fn model(&self) -> &DiskModel {
        &self.model
    }

    /// What it did so far.
    pub fn counters(&self) -> DiskCounters {
        self.counters
    }

    /// Requests in flight and pages whose newest state is not stable: where a power loss would hurt.
    pub fn pending(&self) -> usize {
        self.in_flight.len() + self.cached.len()
    }

    /// From now on requests fail at these rates.
    pub fn set_faults(&mut self, faults: DiskFaults) {
        self.faults = faults;
    }

    /// Nothing completes before `until`.
    pub fn stall(&mut self, until: Time) {
        self.stalled_until = self.stalled_until.max(until);
    }

    /// Until when nothing completes.
    pub fn stalled_until(&self) -> Time {
        self.stalled_until
    }

    /// From now on requests take so many times as long as usual.
    pub fn slow_down(&mut self, times: u64) {
        self.slowness = times;
    }

    /// From now on every request fails.
    pub fn kill(&mut self) {
        self.dead = true;
    }

    /// Whether every request fails.
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// A new device in the place of the old one. In-flight requests must be gone (the process is down).
    pub fn replace(&mut self) {
        assert!(self.in_flight.is_empty(), "a device is replaced under a running process");
        self.stable.fill(None);
        self.cached.clear();
        self.unreadable.clear();
        // What was wrong with the old one is not wrong with this.
        self.faults = DiskFaults::default();
        self.dead = false;
    }

    /// The page cannot be read until it is written again.
    pub fn make_unreadable(&mut self, page: u64) {
        self.unreadable.insert(page);
    }

    /// Flips one bit of a page, at rest. False if the page was never written.
    pub fn rot(&mut self, page: u64, rng: &mut Rng, bufs: &mut BufPool) -> bool {
        let index = usize::try_from(page).expect("a page of this device");
        let Some(old) = self.newest(page).cloned() else { return false };
        let mut new = bufs.alloc(UNIT);
        new.copy_from(0, &old);
        let bit = rng.below(u64::from(UNIT) * 8);
        new.bytes_mut()[usize::try_from(bit / 8).expect("in a page")] ^= 1 << (bit % 8);
        self.cached.remove(&page);
        self.stable[index] = Some(bufs.freeze(new));
        true
    }

    /// What a page holds; `None`: it was never written.
    pub fn page(&self, page: u64) -> Option<&[u8]> {
        self.newest(page).map(|buf| buf.bytes())
    }

    /// Number of pages.
    pub fn pages(&self) -> u64 {
        self.model.size_bytes / u64::from(UNIT)
    }

    /// Pages that were ever written, for damage with an effect.
    pub fn written_pages(&self) -> Vec<u64> {
        let stable = self.stable.iter().enumerate().filter(|(_, page)| page.is_some());
        let mut pages: BTreeSet<u64> = stable.map(|(index, _)| index as u64).collect();
        pages.extend(self.cached.keys());
        pages.into_iter().collect()
    }

    fn newest(&self, page: u64) -> Option<&Buf> {
        let cached = self.cached.get(&page).and_then(|states| states.last()).map(|(_, buf)| buf);
        cached.or(self.stable[usize::try_from(page).expect("a page of this device")].as_ref())
    }

    /// Takes a request; says how long it takes at least. A request outside the device is a bug of the caller.
    pub fn submit(&mut self, rng: &mut Rng, op: DiskOp) -> (Ticket, Duration) {
        if let Some(misfit) = op.misfit(self.model.size_bytes, self.model.block_bytes) {
            panic!("a disk request does not fit: {misfit:?}: {op:?}");
        }
        if let Some(other) = self.in_flight.values().find(|other| collide(&op, &other.op)) {
            panic!("{op:?} meets {:?} in flight: nobody knows what a device makes of that", other.op);
        }
        let (latency, error_ppm) = match &op {
            DiskOp::Read { .. } => (&self.model.read, self.faults.read_error_ppm),
            DiskOp::Write { .. } => (&self.model.write, self.faults.write_error_ppm),
            DiskOp::Discard { .. } => (&self.model.write, 0),
            DiskOp::Flush { .. } => (&self.model.flush, self.faults.flush_error_ppm),
        };
        let delay = Duration(latency.draw(rng).0 * self.slowness);
        let error = self.dead || (error_ppm > 0 && rng.chance(error_ppm, 1_000_000));
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.in_flight.insert(ticket, InFlight { op, watermark: self.completed, error, replaced: Vec::new() });
        (ticket, delay)
    }

    /// Until when the completion has to wait, if the device stalls.
    pub fn held_until(&self, now: Time) -> Option<Time> {
        (self.stalled_until > now).then_some(self.stalled_until + AFTER_STALL)
    }

    /// Carries the request out. `None` if it is not in flight (any more).
    pub fn complete(&mut self, ticket: Ticket, rng: &mut Rng, bufs: &mut BufPool) -> Option<DiskDone> {
        let InFlight { op, watermark, error, replaced } = self.in_flight.remove(&ticket)?;
        let error = error || self.dead;
        if error {
            self.counters.errors += 1;
        }
        Some(match op {
            DiskOp::Read { offset, len, .. } => {
                let read = self.read(offset, len, error, bufs);
                DiskDone::Read(read.map(|read| self.met(offset, read, &replaced, rng, bufs)))
            }
            DiskOp::Write { offset, data, .. } => DiskDone::Done(self.write(offset, &data, error, rng, bufs)),
            DiskOp::Flush { .. } => {
                let lies = self.faults.lying_flush_ppm;
                let watermark = if lies > 0 && rng.chance(lies, 1_000_000) { 0 } else { watermark };
                DiskDone::Done(self.flush(watermark, error))
            }
            DiskOp::Discard { offset, len, .. } => DiskDone::Done(self.discard((offset, len), error, rng, bufs)),
        })
    }

    fn read(&mut self, offset: u64, len: u32, error: bool, bufs: &mut BufPool) -> Result<Buf, DiskError> {
        let (first, end) = (offset / u64::from(UNIT), (offset + u64::from(len)).div_ceil(u64::from(UNIT)));
        if error || self.unreadable.range(first..end).next().is_some() {
            return Err(DiskError::Io);
        }
        self.counters.reads += 1;
        if end == first + 1 {
            let page = self.newest(first).unwrap_or(&self.zeroes);
            return Ok(page.slice(within_page(offset), len));
        }
        let mut out = bufs.alloc(len);
        let mut at = 0;
        while at < len {
            let position = offset + u64::from(at);
            let start = within_page(position);
            let part = (UNIT - start).min(len - at);
            let page = self.newest(position / u64::from(UNIT)).unwrap_or(&self.zeroes);
            out.copy_from(at, &page.slice(start, part));
            at += part;
        }
        Ok(bufs.freeze(out))
    }

    /// What a read sees that met writes: of each of their sectors, what was there or what comes.
    fn met(&self, offset: u64, read: Buf, replaced: &[(u64, Buf)], rng: &mut Rng, bufs: &mut BufPool) -> Buf {
        let before = replaced.iter().map(|(page, old)| (page * u64::from(UNIT), old));
        let coming = self.in_flight.values().filter_map(|request| match &request.op {
            DiskOp::Write { offset, data, .. } => Some((*offset, data)),
            _ => None,
        });
        let mut seen = read;
        for (at, data) in before.chain(coming) {
            let both = common((offset, u64::from(seen.len())), (at, u64::from(data.len())));
            let Some((from, to)) = both else { continue };
            let mut mixed = bufs.alloc(seen.len());
            mixed.copy_from(0, &seen);
            for sector in (from..to).step_by(SECTOR).filter(|_| rng.chance(1, 2)) {
                let place = |base: u64| u32::try_from(sector - base).expect("in a buffer");
                mixed.copy_from(place(offset), &data.slice(place(at), 512));
            }
            seen = bufs.freeze(mixed);
        }
        seen
    }

    /// A page is about to change: reads that are under way may still see what it is.
    fn remember(&mut self, page: u64) {
        let extent = (page * u64::from(UNIT), u64::from(UNIT));
        let old = self.newest(page).unwrap_or(&self.zeroes).clone();
        for request in self.in_flight.values_mut().filter(|request| is_read(&request.op, extent)) {
            request.replaced.push((page, old.clone()));
        }
    }

    fn is_being_read(&self, extent: (u64, u64)) -> bool {
        self.in_flight.values().any(|request| is_read(&request.op, extent))
    }

    fn write(
        &mut self,
        offset: u64,
        data: &Buf,
        error: bool,
        rng: &mut Rng,
        bufs: &mut BufPool,
    ) -> Result<(), DiskError> {
        let place = self.faults.real_place(self.model.size_bytes, offset, data.len(), rng);
        let met = place.is_some_and(|place| self.is_being_read((place, u64::from(data.len()))));
        let states = place.map(|place| self.page_states(place, data, bufs)).unwrap_or_default();
        for (page, state) in states {
            if !error || rng.chance(1, 2) {
                if met {
                    self.remember(page);
                }
                self.put(page, state);
            }
        }
        if error {
            return Err(DiskError::Io);
        }
        self.counters.writes += 1;
        self.counters.written_bytes += u64::from(data.len());
        Ok(())
    }

    /// What each page becomes by a write.
    fn page_states(&self, offset: u64, data: &Buf, bufs: &mut BufPool) -> Vec<(u64, Buf)> {
        let mut states = Vec::with_capacity((data.len() / UNIT) as usize + 2);
        let mut at = 0;
        while at < data.len() {
            let position = offset + u64::from(at);
            let start = within_page(position);
            let part = (UNIT - start).min(data.len() - at);
            let page = position / u64::from(UNIT);
            let bytes = data.slice(at, part);
            let state = match part {
                // A page that is kept for long shall not keep all of a large buffer.
                UNIT if data.kept() > KEPT_BYTES => bufs.copy_of(bytes.bytes()),
                UNIT => bytes,
                _ => self.merged(page, start, &bytes, bufs),
            };
            states.push((page, state));
            at += part;
        }
        states
    }

    fn merged(&self, page: u64, start: u32, bytes: &Buf, bufs: &mut BufPool) -> Buf {
        let mut whole = bufs.alloc(UNIT);
        whole.copy_from(0, self.newest(page).unwrap_or(&self.zeroes));
        whole.copy_from(start, bytes);
        bufs.freeze(whole)
    }

    fn put(&mut self, page: u64, state: Buf) {
        self.unreadable.remove(&page);
        self.completed += 1;
        if self.model.power_loss_protection {
            self.stable[usize::try_from(page).expect("a page of this device")] = Some(state);
        } else {
            self.cached.entry(page).or_default().push((self.completed, state));
        }
    }

    fn flush(&mut self, watermark: u64, error: bool) -> Result<(), DiskError> {
        if error {
            return Err(DiskError::Io);
        }
        self.counters.flushes += 1;
        let stable = &mut self.stable;
        self.cached.retain(|page, states| {
            let covered = states.iter().take_while(|(number, _)| *number <= watermark).count();
            if let Some((_, newest)) = states.drain(..covered).next_back() {
                stable[usize::try_from(*page).expect("a page of this device")] = Some(newest);
            }
            !states.is_empty()
        });
        Ok(())
    }

    /// A hint: what is inside is anything from then on, until it is written again.
    fn discard(
        &mut self,
        (offset, len): (u64, u64),
        error: bool,
        rng: &mut Rng,
        bufs: &mut BufPool,
    ) -> Result<(), DiskError> {
        if error {
            return Err(DiskError::Io);
        }
        self.counters.discards += 1;
        for (page, state) in self.given_up((offset, len), rng, bufs) {
            self.put(page, state);
        }
        Ok(())
    }

    /// What pages become that are given up: zeroes, something, or what they are. Those that were never written stay so: they
    /// would only take memory.
    fn given_up(&self, (offset, len): (u64, u64), rng: &mut Rng, bufs: &mut BufPool) -> Vec<(u64, Buf)> {
        let (first, end) = (offset / u64::from(UNIT), (offset + len).div_ceil(u64::from(UNIT)));
        let mut pages = Vec::new();
        for page in (first..end).filter(|page| self.newest(*page).is_some()) {
            let start = page * u64::from(UNIT);
            let (from, to) = (offset.max(start), (offset + len).min(start + u64::from(UNIT)));
            let bytes = match rng.below(4) {
                0 | 1 => self.zeroes.slice(0, u32::try_from(to - from).expect("within a page")),
                2 => {
                    let mut noise = bufs.alloc(u32::try_from(to - from).expect("within a page"));
                    let word = rng.next_u64().to_le_bytes();
                    noise.bytes_mut().chunks_exact_mut(8).for_each(|bytes| bytes.copy_from_slice(&word));
                    bufs.freeze(noise)
                }
                _ => continue,
            };
            let state = if bytes.len() == UNIT { bytes } else { self.merged(page, within_page(from), &bytes, bufs) };
            pages.push((page, state));
        }
        pages
    }

    /// What a request in flight may make of pages.
    fn coming(&self, op: &DiskOp, rng: &mut Rng, bufs: &mut BufPool) -> Vec<(u64, Buf)> {
        match op {
            DiskOp::Write { offset, data, .. } => self.page_states(*offset, data, bufs),
            DiskOp::Discard { offset, len, .. } => self.given_up((*offset, *len), rng, bufs),
            DiskOp::Read { .. } | DiskOp::Flush { .. } => Vec::new(),
        }
    }

    /// The process died, the device did not: what was in flight ends now, each page written or not.
    pub fn process_died(&mut self, rng: &mut Rng, bufs: &mut BufPool) {
        for (_, request) in std::mem::take(&mut self.in_flight) {
            if request.op.extent().is_none() || matches!(request.op, DiskOp::Read { .. }) {
                continue;
            }
            let whole = rng.chance(1, 2);
            for (page, state) in self.coming(&request.op, rng, bufs) {
                if whole || rng.chance(1, 2) {
                    self.put(page, state);
                }
            }
        }
    }

    /// The power went: decides what each page holds from now on.
    pub fn power_loss(&mut self, outcome: Outcome, rng: &mut Rng, bufs: &mut BufPool) {
        let mut states: BTreeMap<u64, Vec<Buf>> = BTreeMap::new();
        for (page, cached) in &self.cached {
            states.insert(*page, cached.iter().map(|(_, buf)| buf.clone()).collect());
        }
        for (_, request) in std::mem::take(&mut self.in_flight) {
            for (page, state) in self.coming(&request.op, rng, bufs) {
                states.entry(page).or_default().push(state);
            }
        }
        self.cached.clear();
        for (page, states) in states {
            self.settle(page, &states, outcome, rng, bufs);
        }
    }

    fn settle(&mut self, page: u64, states: &[Buf], outcome: Outcome, rng: &mut Rng, bufs: &mut BufPool) {
        let place = usize::try_from(page).expect("a page of this device");
        let old = self.stable[place].clone();
        let pick = |rng: &mut Rng| {
            let choice = usize::try_from(rng.below(states.len() as u64 + 1)).expect("a small number");
            if choice == 0 { old.clone() } else { Some(states[choice - 1].clone()) }
        };
        let new = match outcome {
            Outcome::KeepAll => states.last().cloned(),
            Outcome::LoseAll => old.clone(),
            Outcome::Pages => pick(rng),
            Outcome::Sectors | Outcome::Garbage if self.model.atomic_bytes == UNIT => pick(rng),
            Outcome::Sectors | Outcome::Garbage => {
                let choices: [Option<Buf>; SECTORS_PER_PAGE] = std::array::from_fn(|_| pick(rng));
                let garbage = outcome == Outcome::Garbage;
                Some(self.mixed(&choices, garbage.then_some(rng), bufs))
            }
        };
        if new != states.last().cloned() {
            self.counters.sectors_reverted += SECTORS_PER_PAGE as u64;
        }
        self.stable[place] = new;
    }

    /// A page of sectors of these pages; with a generator, one in eight of those that are not alike in all of them is
    /// garbage. (A sector to which the same is written again stays what it is.)
    fn mixed(
        &self,
        choices: &[Option<Buf>; SECTORS_PER_PAGE],
        mut garbage: Option<&mut Rng>,
        bufs: &mut BufPool,
    ) -> Buf {
        let mut page = bufs.alloc(UNIT);
        for (sector, choice) in choices.iter().enumerate() {
            let range = sector * SECTOR..(sector + 1) * SECTOR;
            let source = choice.as_ref().unwrap_or(&self.zeroes);
            page.bytes_mut()[range.clone()].copy_from_slice(&source.bytes()[range.clone()]);
            let same = |choice: &Option<Buf>| {
                choice.as_ref().unwrap_or(&self.zeroes).bytes()[range.clone()] == source.bytes()[range.clone()]
            };
            if let Some(rng) = garbage.as_deref_mut()
                && rng.chance(1, 8)
                && !choices.iter().all(same)
            {
                page.bytes_mut()[range].chunks_exact_mut(8).for_each(|word| {
                    word.copy_from_slice(&rng.next_u64().to_le_bytes());
                });
            }
        }
        bufs.freeze(page)
    }
}

fn within_page(position: u64) -> u32 {
    u32::try_from(position % u64::from(UNIT)).expect("below a page")
}

/// Whether two requests in flight are about the same bytes in a way that no device gives a meaning to: both change them, or
/// one gives them up while the other reads. A read that meets a write is none of that: it sees any mixture of sectors.
fn collide(a: &DiskOp, b: &DiskOp) -> bool {
    use DiskOp::{Read, Write};
    let harmless = matches!((a, b), (Read { .. }, Read { .. } | Write { .. }) | (Write { .. }, Read { .. }));
    !harmless && a.extent().zip(b.extent()).is_some_and(|(a, b)| common(a, b).is_some())
}

/// Whether a request reads of this extent.
fn is_read(op: &DiskOp, extent: (u64, u64)) -> bool {
    matches!(op, DiskOp::Read { .. }) && op.extent().is_some_and(|other| common(extent, other).is_some())
}

/// The bytes that two extents have in common: the first of them, and the first behind them.
fn common((a, a_len): (u64, u64), (b, b_len): (u64, u64)) -> Option<(u64, u64)> {
    let (from, to) = (a.max(b), (a + a_len).min(b + b_len));
    (from < to).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_core::io::Device;

    const QUICK: Latency = Latency { base: Duration::micros(20), tail: Duration::millis(5), tail_ppm: 1000 };

    struct Bench {
        disk: SimDisk,
        bufs: BufPool,
        rng: Rng,
    }

    impl Bench {
        fn new(power_loss_protection: bool, atomic_bytes: u32, seed: u64) -> Bench {
            let mut bufs = BufPool::new();
            let model = DiskModel {
                size_bytes: 1 << 20,
                block_bytes: 512,
                power_loss_protection,
                atomic_bytes,
                read: QUICK,
                write: QUICK,
                flush: QUICK,
            };
            Bench { disk: SimDisk::new(model, &mut bufs), bufs, rng: Rng::new(seed) }
        }
        fn submit(&mut self, op: DiskOp) -> Ticket {
            self.disk.submit(&mut self.rng, op).0
        }
        fn complete(&mut self, ticket: Ticket) -> DiskDone {
            self.disk.complete(ticket, &mut self.rng, &mut self.bufs).expect("in flight")
        }
        fn write_op(&mut self, offset: u64, len: u32, byte: u8) -> DiskOp {
            let mut buf = self.bufs.alloc(len);
            buf.bytes_mut().fill(byte);
            DiskOp::Write { device: Device::Data, offset, data: self.bufs.freeze(buf) }
        }
        fn write(&mut self, offset: u64, len: u32, byte: u8) {
            let op = self.write_op(offset, len, byte);
            let ticket = self.submit(op);
            assert_eq!(self.complete(ticket), DiskDone::Done(Ok(())));
        }
        fn flush(&mut self) {
            let ticket = self.submit(DiskOp::Flush { device: Device::Data });
            assert_eq!(self.complete(ticket), DiskDone::Done(Ok(())));
        }
        fn read(&mut self, offset: u64, len: u32) -> Result<Buf, DiskError> {
            let ticket = self.submit(DiskOp::Read { device: Device::Data, offset, len });
            let DiskDone::Read(result) = self.complete(ticket) else { panic!("a read answers a read") };
            result
        }
        fn byte(&mut self, offset: u64) -> u8 {
            self.read(offset / 512 * 512, 512).expect("readable").bytes()[(offset % 512) as usize]
        }
    }

    #[test]
    fn reads_see_the_newest_write_across_pages_and_parts_of_pages() {
        let mut bench = Bench::new(false, 512, 1);
        bench.write(0, 16384, 1);
        bench.write(3584, 1024, 2);
        let all = bench.read(0, 16384).expect("readable");
        assert!(all.bytes()[3584..4608].iter().all(|b| *b == 2));
        assert!(all.bytes()[..3584].iter().chain(&all.bytes()[4608..]).all(|b| *b == 1));
        assert_eq!(bench.byte(20000), 0);
    }

    #[test]
    fn a_flush_covers_only_what_completed_before_it_was_submitted() {
        let mut bench = Bench::new(false, 512, 1);
        bench.write(0, 4096, 1);
        let late = bench.write_op(4096, 4096, 2);
        let late = bench.submit(late);
        let flush = bench.submit(DiskOp::Flush { device: Device::Data });
        bench.complete(late);
        bench.complete(flush);
        bench.disk.power_loss(Outcome::LoseAll, &mut bench.rng, &mut bench.bufs);
        assert_eq!((bench.byte(0), bench.byte(4096)), (1, 0));
    }

    #[test]
    fn what_is_discarded_is_anything_until_it_is_written_again() {
        let (mut seen, mut left) = (BTreeSet::new(), BTreeSet::new());
        for seed in 0..100 {
            let mut bench = Bench::new(seed % 2 == 0, 512, seed);
            bench.write(4096, 8192, 1);
            bench.flush();
            let give_up = |len| DiskOp::Discard { device: Device::Data, offset: 4096, len };
            let ticket = bench.submit(give_up(4096));
            assert_eq!(bench.complete(ticket), DiskDone::Done(Ok(())));
            seen.insert(bench.byte(4096).min(2));
            assert_eq!((bench.byte(0), bench.byte(8192)), (0, 1), "its neighbours stay");
            bench.write(4096, 4096, 3);
            assert_eq!(bench.byte(4096), 3);
            bench.flush();
            // One that was under way when the power failed may have come to something.
            bench.submit(give_up(8192));
            bench.disk.power_loss(Outcome::Sectors, &mut bench.rng, &mut bench.bufs);
            left.insert(bench.byte(4096) == 3);
        }
        assert_eq!((seen, left), ([0, 1, 2].into(), [false, true].into()));
    }

    #[test]
    fn protected_devices_keep_what_completed() {
        let mut bench = Bench::new(true, 4096, 1);
        bench.write(0, 8192, 1);
        let open = bench.write_op(0, 4096, 2);
        bench.submit(open);
        bench.disk.power_loss(Outcome::LoseAll, &mut bench.rng, &mut bench.bufs);
        assert_eq!((bench.byte(0), bench.byte(4096)), (1, 1));
    }

    #[test]
    fn power_loss_reaches_every_subset_of_two_sectors() {
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let mut bench = Bench::new(false, 512, seed);
            bench.write(0, 1024, 1);
            bench.flush();
            bench.write(0, 1024, 2);
            bench.write(0, 512, 3);
            bench.disk.power_loss(Outcome::Sectors, &mut bench.rng, &mut bench.bufs);
            seen.insert((bench.byte(0), bench.byte(512)));
        }
        let all = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)];
        assert_eq!(seen, all.into_iter().collect());
    }

    #[test]
    fn an_atomic_page_is_never_torn() {
        for seed in 0..200 {
            let mut bench = Bench::new(false, 4096, seed);
            bench.write(0, 4096, 1);
            bench.disk.power_loss(Outcome::Sectors, &mut bench.rng, &mut bench.bufs);
            let page = bench.read(0, 4096).expect("readable");
            assert!(page.bytes().iter().all(|b| *b == page.bytes()[0]));
        }
    }

    #[test]
    fn garbage_is_only_where_something_changed() {
        let mut garbage = 0;
        for seed in 0..200 {
            let mut bench = Bench::new(false, 512, seed);
            bench.write(0, 4096, 1);
            bench.flush();
            bench.write(0, 4096, 1);
            bench.write(4096, 4096, 2);
            bench.disk.power_loss(Outcome::Garbage, &mut bench.rng, &mut bench.bufs);
            assert!(bench.read(0, 4096).expect("readable").bytes().iter().all(|byte| *byte == 1));
            let page = bench.read(4096, 4096).expect("readable");
            let whole = |sector: &[u8]| sector.iter().all(|byte| *byte == sector[0] && [0, 2].contains(byte));
            garbage += page.bytes().chunks(SECTOR).filter(|sector| !whole(sector)).count();
        }
        assert!((50..400).contains(&garbage), "{garbage} of 1600 sectors");
    }

    #[test]
    fn a_lying_flush_answers_well_and_keeps_nothing() {
        let mut bench = Bench::new(false, 512, 1);
        bench.disk.set_faults(DiskFaults { lying_flush_ppm: 1_000_000, ..DiskFaults::default() });
        bench.write(0, 4096, 1);
        bench.flush();
        assert_eq!(bench.byte(0), 1);
        bench.disk.power_loss(Outcome::LoseAll, &mut bench.rng, &mut bench.bufs);
        assert_eq!(bench.byte(0), 0);
    }

    #[test]
    fn a_slow_disk_is_slow() {
        let mut bench = Bench::new(true, 512, 1);
        bench.disk.slow_down(100);
        let (_, delay) = bench.disk.submit(&mut bench.rng, DiskOp::Flush { device: Device::Data });
        assert!(delay >= Duration::millis(2), "{delay:?}");
    }

    #[test]
    fn a_dead_process_leaves_whole_pages() {
        let mut seen = BTreeSet::new();
        for seed in 0..100 {
            let mut bench = Bench::new(false, 512, seed);
            let op = bench.write_op(0, 8192, 7);
            bench.submit(op);
            bench.disk.process_died(&mut bench.rng, &mut bench.bufs);
            let page = bench.read(0, 4096).expect("readable");
            assert!(page.bytes().iter().all(|b| *b == page.bytes()[0]));
            seen.insert((bench.byte(0), bench.byte(4096)));
        }
        assert_eq!(seen.len(), 4);
    }

    #[test]
    fn unreadable_pages_fail_until_rewritten_and_rot_changes_one_bit() {
        let mut bench = Bench::new(true, 512, 1);
        bench.write(0, 8192, 1);
        bench.disk.make_unreadable(1);
        assert_eq!(bench.read(0, 8192), Err(DiskError::Io));
        assert!(bench.read(0, 4096).is_ok());
        bench.write(4096, 4096, 2);
        assert!(bench.read(0, 8192).is_ok());
        assert!(bench.disk.rot(0, &mut bench.rng, &mut bench.bufs));
        let page = bench.read(0, 4096).expect("readable");
        let flipped: u32 = page.bytes().iter().map(|b| (b ^ 1).count_ones()).sum();
        assert_eq!(flipped, 1);
        assert!(!bench.disk.rot(9, &mut bench.rng, &mut bench.bufs));
    }

    #[test]
    fn lost_and_misdirected_writes_answer_well() {
        let mut bench = Bench::new(true, 512, 1);
        bench.write(0, 4096, 1);
        let faults = DiskFaults { lost_write_ppm: 1_000_000, from_byte: 8192, ..DiskFaults::default() };
        bench.disk.set_faults(faults);
        bench.write(8192, 4096, 2);
        bench.write(4096, 4096, 3);
        assert_eq!((bench.byte(8192), bench.byte(4096)), (0, 3));
        bench.disk.set_faults(DiskFaults { lost_write_ppm: 0, misdirected_write_ppm: 1_000_000, ..faults });
        (0..8).for_each(|_| bench.write(8192, 4096, 4));
        let pages = bench.disk.written_pages().into_iter().filter(|page| bench.disk.page(*page).unwrap()[0] == 4);
        let pages: Vec<u64> = pages.collect();
        assert!(pages.len() > 1 && pages.iter().all(|page| *page >= 2), "{pages:?}");
    }

    #[test]
    fn a_read_that_meets_a_write_sees_any_mixture_of_its_sectors() {
        let mut seen = BTreeSet::new();
        for seed in 0..100 {
            let mut bench = Bench::new(false, 512, seed);
            bench.write(0, 8192, 1);
            let op = bench.write_op(512, 1024, 2);
            let ticket = bench.submit(op);
            let read = bench.read(0, 8192).expect("readable");
            let rest = read.bytes()[..512].iter().chain(&read.bytes()[1536..]);
            assert!(rest.copied().all(|byte| byte == 1));
            seen.insert((read.bytes()[512], read.bytes()[1024]));
            bench.complete(ticket);
            assert_eq!((bench.byte(512), bench.byte(1024)), (2, 2));
        }
        assert_eq!(seen, [(1, 1), (1, 2), (2, 1), (2, 2)].into_iter().collect());
    }

    #[test]
    fn a_read_that_began_before_a_write_completed_may_see_what_was_there() {
        let mut seen = BTreeSet::new();
        for seed in 0..100 {
            let mut bench = Bench::new(false, 512, seed);
            bench.write(0, 8192, 1);
            let reading = bench.submit(DiskOp::Read { device: Device::Data, offset: 0, len: 8192 });
            bench.write(3584, 1024, 2);
            let DiskDone::Read(Ok(read)) = bench.complete(reading) else { panic!("a read answers a read") };
            let rest = read.bytes()[..3584].iter().chain(&read.bytes()[4608..]);
            assert!(rest.copied().all(|byte| byte == 1));
            seen.insert((read.bytes()[3584], read.bytes()[4096]));
            assert_eq!((bench.byte(3584), bench.byte(4096)), (2, 2), "later ones do not");
        }
        assert_eq!(seen, [(1, 1), (1, 2), (2, 1), (2, 2)].into_iter().collect());
    }

    #[test]
    #[should_panic(expected = "in flight")]
    fn two_writes_in_flight_do_not_meet() {
        let mut bench = Bench::new(false, 512, 1);
        for (offset, byte) in [(0, 1), (4096, 2)] {
            let op = bench.write_op(offset, 8192, byte);
            bench.submit(op);
        }
    }

    #[test]
    fn errors_and_stalls() {
        let mut bench = Bench::new(false, 512, 1);
        bench.disk.set_faults(DiskFaults { write_error_ppm: 1_000_000, ..DiskFaults::default() });
        let op = bench.write_op(0, 4096, 1);
        let ticket = bench.submit(op);
        assert_eq!(bench.complete(ticket), DiskDone::Done(Err(DiskError::Io)));
        bench.disk.stall(Time(500));
        assert_eq!(bench.disk.held_until(Time(100)), Some(Time(500) + AFTER_STALL));
        assert_eq!(bench.disk.held_until(Time(500)), None);
        bench.disk.set_faults(DiskFaults::default());
        bench.disk.kill();
        assert_eq!(bench.read(0, 512), Err(DiskError::Io));
        bench.disk.replace();
        assert_eq!(bench.byte(0), 0);
    }
}
