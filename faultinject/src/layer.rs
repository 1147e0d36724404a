//! The faults of a device, before one that keeps its contents itself: what a process meets whose disk is real.
//!
//! ```text
//!  store --begin--> Layer --what is left to be done--> device
//!  store <--take--- (held until its time) <--completed--'
//!                     '--ended at once: failed, lost, kept in the cache
//! ```
//! With [`Behaviour::cache`] the device has a volatile cache, which is here: what was not flushed is lost when the process
//! ends, however it ends, but for sectors that the device wrote early. That tears pages, as a power loss does.
//!
//! Owns: the cache, answers that are held back, pages that cannot be read. Does not own: the device ([`Below`]), the clock.
//! Invariants: each request is answered once; a block is in the cache only while the cache is on; what a read began to see
//! is not changed by a later flush.

use crate::disk::{DiskFaults, Latency, SECTOR};
use ashlar_core::buf::{Buf, BufPool, UNIT};
use ashlar_core::io::{DiskDone, DiskError, DiskOp, IoId};
use ashlar_core::rng::Rng;
use ashlar_core::time::{Duration, Time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How often a device that answers nothing is looked at again.
const STALL_POLL: Duration = Duration::millis(10);
/// Blocks whose former contents are kept for stale reads.
const FORMER_MAX: usize = 4096;
/// A million.
const MILLION: u64 = 1_000_000;

/// What a process meets: its disks, and its clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Of its devices.
    pub disk: Behaviour,
    /// How much too fast its clock runs, in a million; negative: too slow.
    pub clock_ppm: i64,
}

/// How a device misbehaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// Requests that fail, writes that go astray, flushes that do nothing. Damage of any kind is done from `from_byte` on.
    pub faults: DiskFaults,
    /// How long answers take at least; without, as long as the device does.
    pub latency: Option<Latency>,
    /// Nothing is answered.
    pub is_stalled: bool,
    /// Every request fails.
    pub is_dead: bool,
    /// Writes in a million for which there is no space.
    pub no_space_ppm: u64,
    /// Writes in a million of which a bit is flipped.
    pub rot_ppm: u64,
    /// Reads in a million that make what they read unreadable, until it is written again.
    pub latent_ppm: u64,
    /// Reads in a million that answer what was there before the newest write.
    pub stale_read_ppm: u64,
    /// The cache is volatile.
    pub cache: Option<Cache>,
}

/// A volatile cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// Sectors in a million that are written before they are flushed.
    pub early_ppm: u64,
}

/// The device itself. Memory that it is given is aligned to 4 KiB; requests are whole blocks.
pub trait Below {
    /// Fills `into`.
    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), DiskError>;
    /// Writes all of `data`.
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskError>;
}

/// What else a call needs.
pub struct Around<'a> {
    /// The time.
    pub now: Time,
    /// Memory.
    pub bufs: &'a mut BufPool,
    /// The device.
    pub below: &'a mut dyn Below,
}

/// The faults of one device. See the module.
pub struct Layer {
    behaviour: Behaviour,
    rng: Rng,
    size_bytes: u64,
    block_bytes: u32,
    /// By block: its newest contents.
    cache: BTreeMap<u64, Buf>,
    /// By block: what it was before its newest write, and what that made it.
    former: BTreeMap<u64, (Option<Buf>, Buf)>,
    unreadable: BTreeSet<u64>,
    /// What reads under way see besides the device, and where in their buffers.
    reads: BTreeMap<IoId, Vec<(u32, Buf)>>,
    held: BTreeMap<(Time, u64), (IoId, DiskDone)>,
    answers: u64,
}

impl Layer {
    /// Before a device of so many bytes in blocks of so many.
    pub fn new(size_bytes: u64, block_bytes: u32, seed: u64) -> Layer {
        Layer {
            behaviour: Behaviour::default(),
            rng: Rng::new(seed),
            size_bytes,
            block_bytes,
            cache: BTreeMap::new(),
            former: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            reads: BTreeMap::new(),
            held: BTreeMap::new(),
            answers: 0,
        }
    }

    /// From now on it behaves so. A cache that is switched off is flushed.
    pub fn set(&mut self, behaviour: Behaviour, below: &mut dyn Below) {
        if behaviour.cache.is_none() {
            // What cannot be written is lost, as at any device that breaks.
            let _ = self.write_back(below);
        }
        if behaviour.stale_read_ppm == 0 {
            self.former.clear();
        }
        self.behaviour = behaviour;
    }

    /// Takes a request: what the device is to do. `None`: nothing, it is answered from here.
    pub fn begin(&mut self, id: IoId, op: DiskOp, around: &mut Around<'_>) -> Option<DiskOp> {
        let faults = self.behaviour.faults;
        let error_ppm = match op {
            DiskOp::Read { .. } => faults.read_error_ppm,
            DiskOp::Write { .. } => faults.write_error_ppm,
            DiskOp::Flush { .. } => faults.flush_error_ppm,
            DiskOp::Discard { .. } => 0,
        };
        let fails = self.behaviour.is_dead || self.hits(error_ppm);
        match op {
            DiskOp::Read { offset, len, .. } if fails || self.is_unreadable(offset, len) => {
                self.answer(id, DiskDone::Read(Err(DiskError::Io)), around.now);
                None
            }
            DiskOp::Read { offset, len, .. } => {
                self.note_read(id, offset, len);
                Some(op)
            }
            DiskOp::Write { device, offset, data } => {
                let (place, data) = self.write(id, offset, data, fails, around)?;
                Some(DiskOp::Write { device, offset: place, data })
            }
            DiskOp::Flush { .. } => self.flush(id, fails, around).then_some(op),
            DiskOp::Discard { .. } if fails || self.behaviour.cache.is_some() => {
                // A hint; what is in the cache would come back over it.
                self.answer(id, DiskDone::Done(Ok(())), around.now);
                None
            }
            DiskOp::Discard { .. } => Some(op),
        }
    }

    /// The device did what it was given.
    pub fn completed(&mut self, id: IoId, done: DiskDone, around: &mut Around<'_>) {
        let seen = self.reads.remove(&id).unwrap_or_default();
        let done = match done {
            DiskDone::Read(Ok(read)) if !seen.is_empty() => {
                let mut whole = around.bufs.alloc(read.len());
                whole.copy_from(0, &read);
                seen.iter().for_each(|(at, bytes)| whole.copy_from(*at, bytes));
                DiskDone::Read(Ok(around.bufs.freeze(whole)))
            }
            done => done,
        };
        self.answer(id, done, around.now);
    }

    /// An answer whose time has come.
    pub fn take(&mut self, now: Time) -> Option<(IoId, DiskDone)> {
        let (at, _) = *self.held.first_key_value()?.0;
        if at > now || self.behaviour.is_stalled {
            return None;
        }
        self.held.pop_first().map(|(_, answer)| answer)
    }

    /// When there may be one.
    pub fn next_due(&self, now: Time) -> Option<Time> {
        let (at, _) = *self.held.first_key_value()?.0;
        Some(if self.behaviour.is_stalled { at.max(now + STALL_POLL) } else { at })
    }

    /// Answers that nobody took.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    fn hits(&mut self, ppm: u64) -> bool {
        ppm > 0 && self.rng.chance(ppm, MILLION)
    }

    fn answer(&mut self, id: IoId, done: DiskDone, now: Time) {
        let after = self.behaviour.latency.map_or(Duration::ZERO, |latency| latency.draw(&mut self.rng));
        self.answers += 1;
        self.held.insert((now + after, self.answers), (id, done));
    }

    /// The blocks of an extent, and where in it they begin.
    fn blocks(&self, offset: u64, len: u32) -> impl Iterator<Item = (u64, u32)> + use<> {
        let (block, first) = (self.block_bytes, offset / u64::from(self.block_bytes));
        (0..len / block).map(move |n| (first + u64::from(n), n * block))
    }

    fn is_unreadable(&mut self, offset: u64, len: u32) -> bool {
        if offset >= self.behaviour.faults.from_byte && self.hits(self.behaviour.latent_ppm) {
            self.unreadable.insert(offset / u64::from(self.block_bytes));
        }
        self.blocks(offset, len).any(|(block, _)| self.unreadable.contains(&block))
    }

    fn note_read(&mut self, id: IoId, offset: u64, len: u32) {
        let is_stale = self.hits(self.behaviour.stale_read_ppm);
        let mut seen = Vec::new();
        for (block, at) in self.blocks(offset, len) {
            let stale = self.former.get(&block).filter(|_| is_stale).and_then(|(before, _)| before.as_ref());
            seen.extend(stale.or(self.cache.get(&block)).map(|bytes| (at, bytes.clone())));
        }
        if !seen.is_empty() {
            self.reads.insert(id, seen);
        }
    }

    /// Where a write goes and what it writes, if the device is to do it.
    fn write(&mut self, id: IoId, at: u64, data: Buf, fails: bool, around: &mut Around<'_>) -> Option<(u64, Buf)> {
        let error = if self.hits(self.behaviour.no_space_ppm) {
            Some(DiskError::NoSpace)
        } else if fails {
            self.write_a_part(at, &data, around);
            Some(DiskError::Io)
        } else {
            None
        };
        if let Some(error) = error {
            self.answer(id, DiskDone::Done(Err(error)), around.now);
            return None;
        }
        let place = self.behaviour.faults.real_place(self.size_bytes, at, data.len(), &mut self.rng);
        let Some(place) = place else {
            self.answer(id, DiskDone::Done(Ok(())), around.now);
            return None;
        };
        let data = self.perhaps_rotten(at, data, around.bufs);
        for (block, at) in self.blocks(place, data.len()) {
            self.unreadable.remove(&block);
            self.remember(block, &data, at, around.bufs);
        }
        if self.behaviour.cache.is_none() {
            return Some((place, data));
        }
        for (block, at) in self.blocks(place, data.len()) {
            let bytes = around.bufs.copy_of(data.slice(at, self.block_bytes).bytes());
            let early_ppm = self.behaviour.cache.map_or(0, |cache| cache.early_ppm);
            self.write_sectors(block, &bytes, early_ppm, around);
            self.cache.insert(block, bytes);
        }
        self.answer(id, DiskDone::Done(Ok(())), around.now);
        None
    }

    /// A write that fails may have written any of its sectors.
    fn write_a_part(&mut self, offset: u64, data: &Buf, around: &mut Around<'_>) {
        if self.behaviour.is_dead || self.behaviour.cache.is_some() {
            return;
        }
        for (block, at) in self.blocks(offset, data.len()) {
            let bytes = data.slice(at, self.block_bytes);
            self.write_sectors(block, &bytes, MILLION / 2, around);
        }
    }

    /// Writes some sectors of a block to the device.
    fn write_sectors(&mut self, block: u64, bytes: &Buf, ppm: u64, around: &mut Around<'_>) {
        let chosen: Vec<usize> = (0..bytes.bytes().len()).step_by(SECTOR).filter(|_| self.hits(ppm)).collect();
        if chosen.is_empty() {
            return;
        }
        let offset = block * u64::from(self.block_bytes);
        let mut mixed = around.bufs.alloc(self.block_bytes);
        if around.below.read(offset, mixed.bytes_mut()).is_err() {
            return;
        }
        for at in chosen {
            mixed.bytes_mut()[at..at + SECTOR].copy_from_slice(&bytes.bytes()[at..at + SECTOR]);
        }
        // Nobody was promised anything of it yet.
        let _ = around.below.write(offset, mixed.bytes());
    }

    fn perhaps_rotten(&mut self, at: u64, data: Buf, bufs: &mut BufPool) -> Buf {
        if at < self.behaviour.faults.from_byte || !self.hits(self.behaviour.rot_ppm) {
            return data;
        }
        let mut rotten = bufs.alloc(data.len());
        rotten.copy_from(0, &data);
        let bit = self.rng.below(u64::from(data.len()) * 8);
        rotten.bytes_mut()[usize::try_from(bit / 8).expect("in a buffer")] ^= 1 << (bit % 8);
        bufs.freeze(rotten)
    }

    fn remember(&mut self, block: u64, data: &Buf, at: u32, bufs: &mut BufPool) {
        if self.behaviour.stale_read_ppm == 0 {
            return;
        }
        let bytes = bufs.copy_of(data.slice(at, self.block_bytes).bytes());
        let before = self.former.remove(&block).map(|(_, newest)| newest);
        if self.former.len() == FORMER_MAX {
            self.former.pop_first();
        }
        self.former.insert(block, (before, bytes));
    }

    /// Whether the device is to flush, too.
    fn flush(&mut self, id: IoId, fails: bool, around: &mut Around<'_>) -> bool {
        let lies = !fails && self.hits(self.behaviour.faults.lying_flush_ppm);
        let result = match () {
            () if fails => Err(DiskError::Io),
            () if lies => Ok(()),
            () if self.behaviour.cache.is_none() => return true,
            () => self.write_back(around.below),
        };
        self.answer(id, DiskDone::Done(result), around.now);
        false
    }

    /// Writes everything in the cache to the device. The process may die, the machine does not: that is durable here.
    fn write_back(&mut self, below: &mut dyn Below) -> Result<(), DiskError> {
        while let Some((block, bytes)) = self.cache.pop_first() {
            below.write(block * u64::from(self.block_bytes), bytes.bytes())?;
        }
        Ok(())
    }
}

/// Where the data blocks of a store begin, by the first bytes of its device; `None`: there is no store.
pub fn first_data_byte(superblock: &[u8]) -> Option<u64> {
    /// docs/format.md.
    const DATA_OFFSET_AT: usize = 96;
    let place = u64::from_le_bytes(superblock.get(DATA_OFFSET_AT..)?.first_chunk().copied()?);
    (place > 0 && place.is_multiple_of(u64::from(UNIT))).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_core::io::Device;

    struct Memory(Vec<u8>);

    impl Below for Memory {
        fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
            let at = usize::try_from(offset).expect("small");
            into.copy_from_slice(&self.0[at..at + into.len()]);
            Ok(())
        }
        fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
            let at = usize::try_from(offset).expect("small");
            self.0[at..at + data.len()].copy_from_slice(data);
            Ok(())
        }
    }

    const BYTES: u64 = 1 << 20;

    struct Bench {
        layer: Layer,
        memory: Memory,
        bufs: BufPool,
        requests: u64,
        now: Time,
    }

    impl Bench {
        fn new(behaviour: Behaviour) -> Bench {
            let (mut layer, mut memory) = (Layer::new(BYTES, UNIT, 9), Memory(vec![0; 1 << 20]));
            layer.set(behaviour, &mut memory);
            Bench { layer, memory, bufs: BufPool::new(), requests: 0, now: Time(0) }
        }

        fn set(&mut self, behaviour: Behaviour) {
            self.layer.set(behaviour, &mut self.memory);
        }

        /// Does as a device does; the answer, if it comes at once.
        fn ask(&mut self, op: DiskOp) -> Option<DiskDone> {
            self.requests += 1;
            let id = IoId(self.requests);
            let mut around = Around { now: self.now, bufs: &mut self.bufs, below: &mut self.memory };
            if let Some(op) = self.layer.begin(id, op, &mut around) {
                let done = match op {
                    DiskOp::Read { offset, len, .. } => {
                        let mut buf = around.bufs.alloc(len);
                        let read = around.below.read(offset, buf.bytes_mut());
                        DiskDone::Read(read.map(|()| around.bufs.freeze(buf)))
                    }
                    DiskOp::Write { offset, data, .. } => DiskDone::Done(around.below.write(offset, data.bytes())),
                    DiskOp::Flush { .. } | DiskOp::Discard { .. } => DiskDone::Done(Ok(())),
                };
                self.layer.completed(id, done, &mut around);
            }
            self.layer.take(self.now).map(|(_, done)| done)
        }

        fn write(&mut self, page: u64, byte: u8) -> Option<DiskDone> {
            let data = self.bufs.copy_of(&[byte; 4096]);
            self.ask(DiskOp::Write { device: Device::Data, offset: page * 4096, data })
        }

        fn flush(&mut self) -> Option<DiskDone> {
            self.ask(DiskOp::Flush { device: Device::Data })
        }

        fn read(&mut self, page: u64) -> Option<DiskDone> {
            self.ask(DiskOp::Read { device: Device::Data, offset: page * 4096, len: 4096 })
        }

        fn holds(&mut self, page: u64, byte: u8) -> bool {
            matches!(self.read(page), Some(DiskDone::Read(Ok(buf))) if buf.bytes() == [byte; 4096])
        }

        /// How many bytes of a page on the device are this.
        fn below(&self, page: usize, byte: u8) -> usize {
            self.memory.0[page * 4096..][..4096].iter().filter(|b| **b == byte).count()
        }
    }

    const WELL: Option<DiskDone> = Some(DiskDone::Done(Ok(())));
    const FAILED: Option<DiskDone> = Some(DiskDone::Done(Err(DiskError::Io)));

    fn faults(faults: DiskFaults) -> Behaviour {
        Behaviour { faults, ..Behaviour::default() }
    }

    #[test]
    fn without_faults_it_is_not_there() {
        let mut bench = Bench::new(Behaviour::default());
        assert_eq!((bench.write(1, 7), bench.flush()), (WELL, WELL));
        assert!(bench.holds(1, 7) && bench.holds(2, 0) && bench.below(1, 7) == 4096);
        assert_eq!(bench.layer.held(), 0);
    }

    #[test]
    fn a_volatile_cache_keeps_what_was_flushed_and_parts_of_the_rest() {
        let cache = |early_ppm| Behaviour { cache: Some(Cache { early_ppm }), ..Behaviour::default() };
        let mut bench = Bench::new(cache(0));
        assert_eq!((bench.write(1, 7), bench.below(1, 7)), (WELL, 0));
        assert!(bench.holds(1, 7));
        assert_eq!((bench.flush(), bench.below(1, 7)), (WELL, 4096));
        bench.set(cache(500_000));
        bench.write(1, 8);
        let early = bench.below(1, 8);
        assert!(
            early > 0 && early < 4096 && early.is_multiple_of(SECTOR) && bench.below(1, 7) == 4096 - early,
            "{early}"
        );
        assert!(bench.holds(1, 8));
        bench.set(Behaviour::default());
        assert_eq!(bench.below(1, 8), 4096);
    }

    #[test]
    fn a_read_under_way_is_not_changed_by_a_flush() {
        let cache = Behaviour { cache: Some(Cache::default()), ..Behaviour::default() };
        let mut bench = Bench::new(cache);
        bench.write(3, 5);
        let mut around = Around { now: Time(0), bufs: &mut bench.bufs, below: &mut bench.memory };
        let read = DiskOp::Read { device: Device::Data, offset: 3 * 4096, len: 4096 };
        assert!(bench.layer.begin(IoId(99), read, &mut around).is_some());
        let stale = around.bufs.zeroed(4096);
        let stale = around.bufs.freeze(stale);
        bench.flush();
        let mut around = Around { now: Time(0), bufs: &mut bench.bufs, below: &mut bench.memory };
        bench.layer.completed(IoId(99), DiskDone::Read(Ok(stale)), &mut around);
        let Some((_, DiskDone::Read(Ok(read)))) = bench.layer.take(Time(0)) else { panic!("it was read") };
        assert_eq!(read.bytes(), [5; 4096]);
    }

    #[test]
    fn a_lying_flush_keeps_nothing() {
        let lies = DiskFaults { lying_flush_ppm: MILLION, ..DiskFaults::default() };
        let mut bench = Bench::new(Behaviour { cache: Some(Cache::default()), ..faults(lies) });
        assert_eq!((bench.write(1, 7), bench.flush(), bench.below(1, 7)), (WELL, WELL, 0));
    }

    #[test]
    fn requests_fail_and_a_failed_write_is_torn() {
        let all = DiskFaults {
            read_error_ppm: MILLION,
            write_error_ppm: MILLION,
            flush_error_ppm: MILLION,
            ..DiskFaults::default()
        };
        let mut bench = Bench::new(faults(all));
        assert_eq!((bench.write(1, 7), bench.flush()), (FAILED, FAILED));
        assert_eq!(bench.read(1), Some(DiskDone::Read(Err(DiskError::Io))));
        let written = bench.below(1, 7);
        assert!(written > 0 && written < 4096, "{written}");
        bench.set(Behaviour { no_space_ppm: MILLION, ..Behaviour::default() });
        assert_eq!(bench.write(2, 7), Some(DiskDone::Done(Err(DiskError::NoSpace))));
        bench.set(Behaviour { is_dead: true, ..Behaviour::default() });
        assert_eq!((bench.write(2, 7), bench.flush(), bench.below(2, 7)), (FAILED, FAILED, 0));
    }

    #[test]
    fn writes_go_nowhere_or_elsewhere_from_a_byte_on() {
        let from_byte = 4 * 4096;
        let lost = DiskFaults { lost_write_ppm: MILLION, from_byte, ..DiskFaults::default() };
        let mut bench = Bench::new(faults(lost));
        assert_eq!((bench.write(5, 7), bench.write(3, 7)), (WELL, WELL));
        assert_eq!((bench.below(5, 7), bench.below(3, 7)), (0, 4096));
        bench.set(faults(DiskFaults { misdirected_write_ppm: MILLION, from_byte, ..DiskFaults::default() }));
        assert_eq!(bench.write(5, 9), WELL);
        let places: Vec<usize> = (0..256).filter(|page| bench.below(*page, 9) > 0).collect();
        assert!(places.len() == 1 && places[0] >= 4, "{places:?}");
    }

    #[test]
    fn reads_are_stale_rotten_or_impossible() {
        let mut bench = Bench::new(Behaviour { stale_read_ppm: MILLION, ..Behaviour::default() });
        bench.write(1, 7);
        assert!(bench.holds(1, 7), "there is nothing older that it knows");
        bench.write(1, 8);
        assert!(bench.holds(1, 7));
        bench.set(Behaviour { rot_ppm: MILLION, ..Behaviour::default() });
        bench.write(1, 0);
        let bits = |bytes: &[u8]| bytes.iter().map(|byte| byte.count_ones()).sum::<u32>();
        assert_eq!(bits(&bench.memory.0[4096..8192]), 1);
        bench.set(Behaviour { latent_ppm: MILLION, ..Behaviour::default() });
        assert_eq!(bench.read(1), Some(DiskDone::Read(Err(DiskError::Io))));
        bench.set(Behaviour::default());
        assert_eq!(bench.read(1), Some(DiskDone::Read(Err(DiskError::Io))), "until it is written again");
        bench.write(1, 3);
        assert!(bench.holds(1, 3));
    }

    #[test]
    fn answers_are_held_back() {
        let latency = Latency { base: Duration::millis(5), tail: Duration::millis(5), tail_ppm: 0 };
        let mut bench = Bench::new(Behaviour { latency: Some(latency), ..Behaviour::default() });
        assert_eq!(bench.write(1, 7), None);
        assert_eq!(bench.layer.next_due(bench.now), Some(Time(5_000_000)));
        bench.now = Time(5_000_000);
        bench.set(Behaviour { is_stalled: true, ..Behaviour::default() });
        assert_eq!(bench.layer.take(bench.now), None);
        assert_eq!(bench.layer.next_due(bench.now), Some(bench.now + STALL_POLL));
        bench.set(Behaviour::default());
        assert_eq!(bench.layer.take(bench.now).map(|(_, done)| done), WELL);
        assert_eq!(bench.layer.next_due(bench.now), None);
    }

    #[test]
    fn a_file_names_what_differs_from_a_good_disk() {
        let text = r#"{"disk":{"faults":{"read_error_ppm":5},"cache":{"early_ppm":9}},"clock_ppm":-7}"#;
        let read: Faults = serde_json::from_str(text).expect("it makes sense");
        assert_eq!((read.disk.faults.read_error_ppm, read.clock_ppm), (5, -7));
        assert_eq!(read.disk.cache, Some(Cache { early_ppm: 9 }));
        assert!(serde_json::from_str::<Faults>(r#"{"disc":{}}"#).is_err());
    }
}
