//! A store with very many objects, whose log is kept in a file that the page cache holds and whose data go nowhere: what
//! an object takes in memory, how long opening takes, and what a write costs the CPU without a device. Only what the store
//! itself does is timed, not what stands for its device or its client.

use super::Line;
use super::driver::{BLOCK, format_of, write_of};
use crate::sentences;
use anyhow::{Context, Result, anyhow, bail};
use ashlar_core::buf::{Buf, BufPool, UNIT};
use ashlar_core::io::{Device, DiskDone, DiskOp, Effect, Effects, Env, IoId};
use ashlar_core::rng::Rng;
use ashlar_core::store::log::{Durability, LogStore, OpenConfig, Overwrites, Way, format};
use ashlar_core::store::{Mode, ObjectStore, StoreState};
use ashlar_core::time::{Duration, Time};
use ashlar_runtime::os;
use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Writes of the measurement of CPU time.
const WRITES: u64 = 200_000;
/// Writes at a time.
const DEPTH: u64 = 32;
/// Bytes of a page of memory, in which the kernel counts.
const PAGE: u64 = 4096;

struct World {
    log: File,
    zeroes: Buf,
    rng: Rng,
    bufs: BufPool,
    out: Effects,
    now: Time,
    waiting: VecDeque<(IoId, DiskOp)>,
    done: Vec<(IoId, DiskDone)>,
    /// CPU time of the store.
    spent: std::time::Duration,
}

impl World {
    fn call<T>(&mut self, call: impl FnOnce(&mut Env<'_>) -> T) -> T {
        let env = &mut Env { now: self.now, rng: &mut self.rng, bufs: &mut self.bufs, out: &mut self.out };
        let result = call(env);
        for effect in self.out.queue.drain(..) {
            if let Effect::Io { id, op } = effect {
                self.waiting.push_back((id, op));
            }
        }
        result
    }

    /// The log is in the file; of the data, all is zero.
    fn carry_out(&mut self, op: DiskOp) -> Result<DiskDone> {
        Ok(match op {
            DiskOp::Read { device: Device::Data, offset, len } if offset >= 128 << 10 => {
                DiskDone::Read(Ok(self.zeroes.slice(0, len)))
            }
            DiskOp::Read { device, offset, len } => {
                let mut buf = self.bufs.alloc(len);
                self.log.read_exact_at(buf.bytes_mut(), offset + place(device))?;
                DiskDone::Read(Ok(self.bufs.freeze(buf)))
            }
            DiskOp::Write { device: Device::Data, offset, .. } if offset >= 128 << 10 => DiskDone::Done(Ok(())),
            DiskOp::Write { device, offset, data } => {
                self.log.write_all_at(data.bytes(), offset + place(device))?;
                DiskDone::Done(Ok(()))
            }
            DiskOp::Flush { .. } | DiskOp::Discard { .. } => DiskDone::Done(Ok(())),
        })
    }

    /// Runs something of the store, and counts its time.
    fn timed<T>(&mut self, run: impl FnOnce(&mut World) -> T) -> T {
        let begin = os::thread_cpu();
        let result = run(self);
        self.spent += os::thread_cpu() - begin;
        result
    }

    /// Completes what is under way, once. True if there was something.
    fn round(&mut self, store: &mut LogStore) -> Result<bool> {
        let mut done = std::mem::take(&mut self.done);
        for _ in 0..self.waiting.len() {
            let (id, op) = self.waiting.pop_front().expect("counted");
            done.push((id, self.carry_out(op)?));
        }
        let any = !done.is_empty();
        self.timed(|world| done.drain(..).for_each(|(id, done)| world.call(|env| store.handle_io(env, id, done))));
        self.done = done;
        self.now = self.now + Duration::micros(20);
        Ok(any)
    }
}

/// The superblocks of the data device lie in front of the log's in the file.
fn place(device: Device) -> u64 {
    if device == Device::Log { 128 << 10 } else { 0 }
}

/// Bytes of memory of this process.
fn resident() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages = text.split_whitespace().nth(1).context("statm has a second field")?;
    Ok(pages.parse::<u64>()? * PAGE)
}

/// All lines.
pub fn measure(objects: u64) -> Result<Vec<Line>> {
    eprintln!("measuring {objects} objects in memory");
    let data_bytes = (objects * 21 / 20 + 100) * u64::from(BLOCK) + (256 << 10);
    // Room for a snapshot of each object, four times over.
    let log_bytes = objects * 1300 + (64 << 20);
    let path = std::env::temp_dir().join(format!("ashlar-bench-log-{}", std::process::id()));
    let log = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    log.set_len(log_bytes + (256 << 10))?;
    let mut bufs = BufPool::new();
    let zeroes = bufs.zeroed(BLOCK);
    let zeroes = bufs.freeze(zeroes);
    let (rng, out, waiting, spent) = (Rng::new(5), Effects::default(), VecDeque::new(), std::time::Duration::ZERO);
    let mut world = World { log, zeroes, rng, bufs, out, now: Time(0), waiting, done: Vec::new(), spent };
    let wanted = format_of(data_bytes, Some(log_bytes));
    for op in format(&wanted, &mut world.bufs).map_err(|reason| anyhow!(reason))? {
        world.carry_out(op)?;
    }
    let config = OpenConfig {
        log_device_bytes: Some(log_bytes),
        overwrites: Overwrites { way: Way::Auto, atomic_bytes: 4096 },
        ..OpenConfig::new(wanted.cluster, wanted.osd, data_bytes, Durability::Plp)
    };
    let (mut store, _) = open(&mut world, config)?;
    let before = resident()?;
    fill(&mut world, &mut store, objects)?;
    let each = (resident()? - before) as f64 / objects as f64;
    let cpu = overwrite(&mut world, &mut store, objects)?;
    drop(store);
    world.waiting.clear();
    let (_, opening) = open(&mut world, config)?;
    let million = opening * 1e6 / objects as f64;
    let besides = each - f64::from(BLOCK / UNIT * 4);
    Ok(vec![
        Line::new("memory of an object, with checksums", format!("{each:.0} B"), "<= 208 B"),
        Line::new("the same besides its checksums", format!("{besides:.0} B"), "<= 80 B"),
        Line::new("CPU of a 4 KiB write, the store alone", format!("{cpu:.2} us"), "<= 3 us"),
        Line::new("opening after a kill, a million objects", format!("{million:.2} s"), "<= 1 s"),
    ])
}

/// Opens; also says how much CPU time it took, in seconds.
fn open(world: &mut World, config: OpenConfig) -> Result<(LogStore, f64)> {
    world.spent = std::time::Duration::ZERO;
    let mut store = world.call(|env| LogStore::open(config, env));
    while store.state() == StoreState::Opening {
        if !world.round(&mut store)? {
            bail!("opening waits for nothing");
        }
    }
    match store.state() {
        StoreState::Open { trusted: true } => Ok((store, world.spent.as_secs_f64())),
        other => bail!("the store cannot be used: {}", sentences::of_state(&other)),
    }
}

/// Writes so many, `DEPTH` at a time; `of` says which object, its sequence, offset and bytes.
fn run(
    world: &mut World,
    store: &mut LogStore,
    writes: u64,
    mut of: impl FnMut(&mut World, u64) -> (u64, u64, u32, Buf),
) -> Result<()> {
    let (mut begun, mut done, mut ops) = (0, 0, Vec::new());
    while done < writes {
        while begun < writes && begun - done < DEPTH {
            let (object, seq, offset, data) = of(world, begun);
            ops.push((begun, write_of(object, seq, offset, data, Mode::Plain)));
            begun += 1;
        }
        world.timed(|world| {
            ops.drain(..).for_each(|(token, op)| world.call(|env| store.submit(env, token, op)));
            world.call(|env| store.end_of_round(env));
        });
        world.round(store)?;
        while let Some(completion) = store.next_completion() {
            completion.result.map_err(|error| anyhow!("a write failed: {}", sentences::of_error(&error)))?;
            done += 1;
        }
    }
    Ok(())
}

fn fill(world: &mut World, store: &mut LogStore, objects: u64) -> Result<()> {
    run(world, store, objects, |world, number| (number, 0, 0, world.zeroes.clone()))
}

/// Random overwrites: microseconds of CPU for each.
fn overwrite(world: &mut World, store: &mut LogStore, objects: u64) -> Result<f64> {
    let mut seqs = std::collections::HashMap::new();
    world.spent = std::time::Duration::ZERO;
    run(world, store, WRITES, |world, _| {
        let object = world.rng.below(objects);
        let seq = seqs.entry(object).or_insert(1);
        *seq += 1;
        let offset = u32::try_from(world.rng.below(32)).expect("below 32") * 4096;
        (object, *seq - 1, offset, world.zeroes.slice(0, 4096))
    })?;
    Ok(world.spent.as_secs_f64() * 1e6 / WRITES as f64)
}
