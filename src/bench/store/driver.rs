//! Loads on one store: submits, waits, counts.

use crate::sentences;
use anyhow::{Context, Result, anyhow, bail};
use ashlar_core::buf::Buf;
use ashlar_core::id::{
    ClientId, ClusterUuid, CopyId, Epoch, InodeId, ObjectId, OsdId, PoolId, RequestId, Requests, Role, Session,
    StoreUuid, Version,
};
use ashlar_core::io::{Device, DiskDone, DiskError, DiskOp, IoId};
use ashlar_core::rng::Rng;
use ashlar_core::store::log::{Discarding, Durability, Format, LogStore, OpenConfig, Overwrites, Way};
use ashlar_core::store::{Data, Mode, ObjectStore, StoreOp, StoreState, StoreStats};
use ashlar_runtime::os;
use ashlar_runtime::ring::{Alone, DeviceFile};
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// Bytes of an object, and of its block.
pub const BLOCK: u32 = 128 << 10;
/// Writes at a time while the store is filled.
const FILL_DEPTH: usize = 16;
/// Pages that the bare device is given in turn.
const RAW_PAGES: usize = 1024;
/// Objects that a load needs at least, so that writes do not wait for each other.
const OBJECTS_LEAST: u64 = 128;
/// Requests that a write waits for one after the other, at most: a page that is on its way, its own, their flushes, its data.
const IN_TURN: u32 = 5;
/// How long a round without anything to wait for takes at most.
const IDLE: ashlar_core::time::Duration = ashlar_core::time::Duration::millis(1);

/// A load.
pub struct Work {
    /// For people.
    pub name: &'static str,
    /// Bytes of a write.
    pub bytes: u32,
    /// Writes under way.
    pub depth: usize,
    /// How overwrites go to the device.
    pub way: Way,
    /// Whether each write is prepared first, and committed then.
    pub prepares: bool,
    /// Device bytes for each byte that it is meant to reach at most.
    pub goal: Option<f64>,
}

/// What a load came to, per client write.
pub struct Figures {
    /// Device bytes for each client byte.
    pub amplification: f64,
    /// Device writes.
    pub writes_each: f64,
    /// Device flushes.
    pub flushes_each: f64,
    /// Device writes that had to wait for each other, in the middle of all.
    pub waves: u64,
    /// CPU time of this thread.
    pub cpu_us: f64,
    /// System calls of the ring.
    pub calls: f64,
    /// Requests with memory that the kernel knew, reads included, for a hundred device writes.
    pub known_percent: f64,
    /// Writes a second.
    pub rate: f64,
    /// Bytes of free blocks that the device was told of, a second.
    pub discarded: f64,
    /// Half of the writes took less, 99 %, all.
    pub latency_us: [f64; 3],
    /// Writes that took longer than ten times the bare device's median.
    pub stalls: Stalls,
}

/// Writes that took too long.
#[derive(Clone, Copy, Default)]
pub struct Stalls {
    /// All of them.
    pub all: u64,
    /// Those that neither the device nor the machine explains: meanwhile no request took a part of that time worth naming,
    /// and this thread ran.
    pub ours: u64,
    /// Writes that had to wait for room.
    pub waits: u64,
    /// The longest request of the device during one of them, or wait for the processor, in microseconds.
    pub device_us: f64,
}

/// What the bare device can do.
#[derive(Clone, Copy, Default)]
pub struct Raw {
    /// Writes a second.
    pub rate: f64,
    /// Half of the writes took less, 99 %, all.
    pub latency_us: [f64; 3],
    /// CPU time of this thread for each write.
    pub cpu_us: f64,
    /// System calls of the ring for each write.
    pub calls: f64,
}

/// What an object is doing.
#[derive(Clone, Copy)]
struct Object {
    seq: u64,
    since: Instant,
    /// Rounds in which the device was given something to write since then.
    waves: u64,
    busy: bool,
    /// Whether what is prepared is to be committed.
    prepared: bool,
}

/// A store, its device, and a client.
pub struct Driver {
    alone: Alone,
    store: LogStore,
    config: OpenConfig,
    rng: Rng,
    objects: Vec<Object>,
    used: usize,
    body: Buf,
    done: u64,
    latencies: Histogram<u64>,
    waves: Histogram<u64>,
    raw_offset: u64,
    /// Longer than this is a stall, if they are looked for.
    stall: Option<Duration>,
    stalls: Stalls,
    /// Object of the newest write: at depth 1, what the device is given to write is for it.
    newest: usize,
    /// Device writes so far.
    writes: u64,
}

/// What a new store on such a device is.
pub fn format_of(data_bytes: u64, log_device_bytes: Option<u64>) -> Format {
    Format {
        cluster: ClusterUuid(1),
        osd: OsdId(0),
        store: StoreUuid(0x0a51_1a52),
        block_size: BLOCK,
        data_bytes,
        log_device_bytes,
        log_bytes: None,
        segment_bytes: None,
    }
}

/// A write, or the commit of one.
pub fn write_of(object: u64, seq: u64, offset: u32, data: Buf, mode: Mode) -> StoreOp {
    let of = |seq: u64| if seq == 0 { Version::NONE } else { Version { epoch: Epoch(1), seq } };
    let mut requests = Requests::new();
    requests.push(RequestId { session: Session { client: ClientId(1), number: 1 }, number: seq });
    StoreOp::Write {
        copy: copy_of(object),
        version: of(seq + 1),
        predecessor: of(seq),
        offset,
        data: Some(Data::new(data)),
        mode,
        commits_predecessor: false,
        requests,
    }
}

/// The copy of an object.
pub fn copy_of(object: u64) -> CopyId {
    CopyId { object: ObjectId { pool: PoolId(1), inode: InodeId(1), stripe: object }, role: Role(0) }
}

impl Driver {
    /// A new store on the device.
    pub fn new(device: DeviceFile, durability: Durability, atomic_bytes: u32) -> Result<Driver> {
        let format = format_of(device.size_bytes, None);
        let (data_bytes, raw_offset) = (device.size_bytes, device.size_bytes / 2 / 4096 * 4096);
        let mut alone = Alone::new(device, None, 1).context("io_uring cannot be used")?;
        let ops = ashlar_core::store::log::format(&format, &mut alone.bufs).map_err(|reason| anyhow!(reason))?;
        for (number, op) in (0..).zip(ops) {
            alone.begin(IoId(number), op);
            finish(&mut alone)?;
        }
        let config = OpenConfig {
            overwrites: Overwrites { way: Way::Auto, atomic_bytes },
            discards: Some(Discarding::USUAL),
            ..OpenConfig::new(format.cluster, format.osd, data_bytes, durability)
        };
        let store = open(&mut alone, config)?;
        let blocks = usize::try_from(data_bytes / u64::from(BLOCK))?;
        let idle = Object { seq: 0, since: Instant::now(), waves: 0, busy: false, prepared: false };
        let body = alone.bufs.copy_of(&noise(BLOCK as usize));
        let histogram = || Histogram::new_with_max(100_000_000_000, 3).expect("the bounds are valid");
        Ok(Driver {
            alone,
            store,
            config,
            rng: Rng::new(7),
            objects: vec![idle; blocks],
            used: 0,
            body,
            done: 0,
            latencies: histogram(),
            waves: histogram(),
            raw_offset,
            stall: None,
            stalls: Stalls::default(),
            newest: 0,
            writes: 0,
        })
    }

    /// Writes objects until so much of the store is full.
    pub fn fill(&mut self, percent: u64) -> Result<()> {
        let stats = self.store.stats();
        let most = stats.total_bytes / u64::from(BLOCK) * percent / 100;
        if most < OBJECTS_LEAST {
            bail!("the device has room for {most} objects only; {OBJECTS_LEAST} are needed");
        }
        let mut under_way = 0;
        while (self.used as u64) < most || under_way > 0 {
            while (self.used as u64) < most && under_way < FILL_DEPTH {
                self.submit(self.used, 0, BLOCK, Mode::Plain);
                self.used += 1;
                under_way += 1;
            }
            let before = self.done;
            self.round()?;
            under_way -= usize::try_from(self.done - before)?;
        }
        Ok(())
    }

    /// Writes of the bare device. Pages of its second half are written with the bytes that they have.
    pub fn raw(&mut self, depth: usize, time: Duration) -> Result<Raw> {
        self.reopen(Way::Auto)?;
        let pages = (self.config.data_bytes - self.raw_offset) / 4096;
        let mut writes = Vec::new();
        for _ in 0..RAW_PAGES {
            writes.push(self.read_page(pages)?);
        }
        let (cpu, calls) = (os::thread_cpu(), self.alone.calls().0);
        let (begin, mut done) = (Instant::now(), 0u64);
        let mut since = vec![begin; depth];
        self.latencies.reset();
        for (number, (offset, data)) in (0..).zip(&writes).take(depth) {
            self.alone.begin(IoId(number), DiskOp::Write { device: Device::Data, offset: *offset, data: data.clone() });
        }
        while begin.elapsed() < time {
            self.alone.wait(None)?;
            // Where files are in memory, what is begun is there at once, again and again.
            for _ in 0..depth {
                let Some((id, _)) = self.alone.take() else { break };
                done += 1;
                let begun = std::mem::replace(&mut since[usize::try_from(id.0)?], Instant::now());
                self.latencies.saturating_record(u64::try_from(begun.elapsed().as_nanos())?);
                let (offset, data) = writes[usize::try_from(done)? % writes.len()].clone();
                self.alone.begin(id, DiskOp::Write { device: Device::Data, offset, data });
            }
        }
        let rate = done as f64 / begin.elapsed().as_secs_f64();
        let cpu_us = (os::thread_cpu() - cpu).as_secs_f64() * 1e6 / done as f64;
        let calls = (self.alone.calls().0 - calls) as f64 / done as f64;
        for _ in 0..depth {
            while self.alone.take().is_none() {
                self.alone.wait(None)?;
            }
        }
        let latency = |quantile: f64| self.latencies.value_at_quantile(quantile) as f64 / 1000.0;
        Ok(Raw { rate, latency_us: [latency(0.5), latency(0.99), latency(1.0)], cpu_us, calls })
    }

    /// Looks for writes that take longer than this, and for what the device did meanwhile.
    pub fn watch(&mut self, stall: Duration) {
        self.stall = Some(stall);
        self.alone.watch(stall / IN_TURN);
    }

    fn note_stall(&mut self, since: Instant) {
        let took = since.elapsed();
        if self.stall.is_none_or(|stall| took <= stall) {
            return;
        }
        let device = self.alone.slowest_since(since);
        self.stalls.all += 1;
        self.stalls.ours += u64::from(device < took / IN_TURN);
        self.stalls.device_us = self.stalls.device_us.max(device.as_secs_f64() * 1e6);
    }

    /// Whether the kernel is to remember files and memory of requests.
    pub fn set_registered(&mut self, registered: bool) {
        self.alone.set_registered(registered);
    }

    /// How eagerly the device is told of free blocks, from the next load on.
    pub fn set_discards(&mut self, discards: Option<Discarding>) {
        self.config.discards = discards;
    }

    /// A page somewhere, with its bytes.
    fn read_page(&mut self, pages: u64) -> Result<(u64, Buf)> {
        let offset = self.raw_offset + self.rng.below(pages) * 4096;
        self.alone.begin(IoId(0), DiskOp::Read { device: Device::Data, offset, len: 4096 });
        loop {
            self.alone.wait(None)?;
            match self.alone.take() {
                Some((_, DiskDone::Read(Ok(data)))) => return Ok((offset, data)),
                Some((_, DiskDone::Read(Err(error)))) => {
                    bail!("reading the device failed: {error}")
                }
                Some((_, DiskDone::Done(_))) => {}
                None => {}
            }
        }
    }

    /// Runs a load for some time.
    pub fn measure(&mut self, work: &Work, time: Duration) -> Result<Figures> {
        self.reopen(work.way)?;
        // What one load leaves to be compacted shall not count for the next.
        self.load(work, time / 4)?;
        self.latencies.reset();
        self.waves.reset();
        self.stalls = Stalls::default();
        let (before, done, cpu, begin) = (self.store.stats(), self.done, os::thread_cpu(), Instant::now());
        let (calls, known) = self.alone.calls();
        self.load(work, time)?;
        let (after, elapsed) = (self.store.stats(), begin.elapsed());
        let cpu_us = (os::thread_cpu() - cpu).as_secs_f64() * 1e6;
        let writes = (self.done - done) as f64;
        let delta = |of: fn(&StoreStats) -> u64| (of(&after) - of(&before)) as f64;
        let (calls, known) = (self.alone.calls().0 - calls, self.alone.calls().1 - known);
        let latency = |quantile: f64| self.latencies.value_at_quantile(quantile) as f64 / 1000.0;
        Ok(Figures {
            calls: calls as f64 / writes,
            known_percent: known as f64 * 100.0 / delta(|stats| stats.device_writes),
            amplification: delta(|stats| stats.device_written_bytes) / (writes * f64::from(work.bytes)),
            writes_each: delta(|stats| stats.device_writes) / writes,
            flushes_each: delta(|stats| stats.device_flushes) / writes,
            waves: self.waves.value_at_quantile(0.5),
            cpu_us: cpu_us / writes,
            rate: writes / elapsed.as_secs_f64(),
            discarded: delta(|stats| stats.discarded_bytes) / elapsed.as_secs_f64(),
            latency_us: [latency(0.5), latency(0.99), latency(1.0)],
            stalls: Stalls { waits: after.waits - before.waits, ..self.stalls },
        })
    }

    fn load(&mut self, work: &Work, time: Duration) -> Result<()> {
        let (begin, mut begun) = (Instant::now(), self.done);
        let mode = if work.prepares { Mode::Prepare } else { Mode::Plain };
        loop {
            let goes_on = begin.elapsed() < time;
            while goes_on && begun - self.done < work.depth as u64 {
                let object = usize::try_from(self.rng.below(self.used as u64))?;
                if self.objects[object].busy {
                    continue;
                }
                let places = u64::from((BLOCK - work.bytes) / work.bytes) + 1;
                let offset = u32::try_from(self.rng.below(places))? * work.bytes;
                self.submit(object, offset, work.bytes, mode);
                begun += 1;
            }
            if begun == self.done {
                return Ok(());
            }
            self.round()?;
        }
    }

    fn submit(&mut self, object: usize, offset: u32, bytes: u32, mode: Mode) {
        let seq = self.objects[object].seq;
        self.newest = object;
        self.objects[object] =
            Object { seq: seq + 1, since: Instant::now(), waves: 0, busy: true, prepared: mode == Mode::Prepare };
        let op = write_of(object as u64, seq, offset, self.body.slice(offset, bytes), mode);
        let Driver { alone, store, .. } = self;
        alone.call(|env| store.submit(env, object as u64, op));
    }

    /// One round: the store ends its own, the device is waited for, and what it completed is taken.
    fn round(&mut self) -> Result<()> {
        let Driver { alone, store, .. } = self;
        alone.call(|env| store.end_of_round(env));
        let writes = store.stats().device_writes;
        if std::mem::replace(&mut self.writes, writes) < writes {
            self.objects[self.newest].waves += 1;
        }
        let deadline = store.next_deadline().map(|at| at.since(os::now()));
        // With nothing under way, only time can bring something.
        let timeout = if alone.in_flight() == 0 { Some(deadline.unwrap_or(IDLE)) } else { deadline };
        alone.wait(timeout)?;
        while let Some((id, done)) = alone.take() {
            alone.call(|env| store.handle_io(env, id, done));
        }
        if store.next_deadline().is_some_and(|at| at <= os::now()) {
            alone.call(|env| store.tick(env));
        }
        self.take_completions()
    }

    fn take_completions(&mut self) -> Result<()> {
        while let Some(completion) = self.store.next_completion() {
            completion.result.map_err(|error| {
                let (why, state) = (sentences::of_error(&error), sentences::of_state(&self.store.state()));
                anyhow!("a write failed: {why}; of the store: {state}")
            })?;
            let at = usize::try_from(completion.token)?;
            let object = &mut self.objects[at];
            if std::mem::take(&mut object.prepared) {
                // The client has its answer; the commit follows in its own time, as from a primary.
                let version = Version { epoch: Epoch(1), seq: object.seq };
                let op = StoreOp::Commit { copy: copy_of(completion.token), version };
                let Driver { alone, store, .. } = self;
                alone.call(|env| store.submit(env, completion.token, op));
                continue;
            }
            object.busy = false;
            let (since, waves) = (object.since, object.waves);
            self.latencies.saturating_record(u64::try_from(since.elapsed().as_nanos())?);
            self.waves.saturating_record(waves);
            self.note_stall(since);
            self.done += 1;
        }
        Ok(())
    }

    /// Ends in good order and opens again, with overwrites that go another way.
    fn reopen(&mut self, way: Way) -> Result<()> {
        let Driver { alone, store, .. } = self;
        alone.call(|env| store.close(env));
        while !self.store.is_closed() {
            self.round()?;
        }
        finish(&mut self.alone)?;
        self.config.overwrites.way = way;
        self.store = open(&mut self.alone, self.config)?;
        self.writes = 0;
        Ok(())
    }
}

fn open(alone: &mut Alone, config: OpenConfig) -> Result<LogStore> {
    let mut store = alone.call(|env| LogStore::open(config, env));
    while store.state() == StoreState::Opening {
        alone.wait(None)?;
        while let Some((id, done)) = alone.take() {
            alone.call(|env| store.handle_io(env, id, done));
        }
    }
    match store.state() {
        StoreState::Open { trusted: true } => Ok(store),
        other => bail!("the store cannot be used: {}", sentences::of_state(&other)),
    }
}

/// Until nothing is under way.
fn finish(alone: &mut Alone) -> Result<()> {
    while alone.in_flight() > 0 {
        alone.wait(None)?;
        while let Some((_, done)) = alone.take() {
            if let DiskDone::Done(Err(error @ (DiskError::Io | DiskError::NoSpace))) = done {
                bail!("the device refused a write or flush: {error}");
            }
        }
    }
    Ok(())
}

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut rng = Rng::new(3);
    let words = std::iter::repeat_with(|| rng.next_u64().to_le_bytes());
    words.take(len.div_ceil(8)).flatten().take(len).collect()
}
