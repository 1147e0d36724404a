//! The bare disk: a file beside the cluster's, written and read without the page cache.
//!
//! Writes are measured twice: as the disk acknowledges them, and durable (O_DSYNC), which is what OSDs on files wait for.

use super::{Line, line};
use anyhow::{Context, Result};
use ashlar_client::bench::{Kind, Load, Pattern, Report, Until};
use hdrhistogram::Histogram;
use nix::fcntl::OFlag;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of the file: more than a disk's own cache would make all the difference for, little enough to write quickly.
const FILE_BYTES: u64 = 256 << 20;
/// What O_DIRECT wants memory and offsets aligned to, at most.
const ALIGN: usize = 4096;

/// A histogram like the client's.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(100_000_000_000, 3).expect("the bounds are valid")
}

/// All lines; the file is removed again.
pub fn measure(folder: &Path, seconds: u64) -> Result<Vec<Line>> {
    let path = folder.join("bench-raw.tmp");
    let lines = measure_file(&path, Duration::from_secs(seconds.min(3)));
    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    lines
}

fn measure_file(path: &Path, time: Duration) -> Result<Vec<Line>> {
    fill(path)?;
    let mut lines = Vec::new();
    for (what, kind, flags) in [
        ("raw write", Kind::Write, OFlag::empty()),
        ("raw write, durable", Kind::Write, OFlag::O_DSYNC),
        ("raw read", Kind::Read, OFlag::empty()),
    ] {
        for queue_depth in [1, 32] {
            let load =
                Load { kind, pattern: Pattern::Random, block_bytes: 4096, queue_depth, until: Until::Elapsed(time) };
            let report = run(path, flags, &load, time)?;
            lines.push(line(what, &load, &report, None));
        }
    }
    Ok(lines)
}

fn fill(path: &Path) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let block = vec![0x5a; 1 << 20];
    for offset in (0..FILE_BYTES).step_by(block.len()) {
        file.write_all_at(&block, offset)
            .with_context(|| format!("cannot fill {}: is the disk full?", path.display()))?;
    }
    Ok(file.sync_all()?)
}

/// A thread for each operation in flight.
fn run(path: &Path, flags: OFlag, load: &Load, time: Duration) -> Result<Report> {
    let flags = (flags | OFlag::O_DIRECT).bits();
    let file = File::options().read(true).write(true).custom_flags(flags).open(path);
    let file =
        file.with_context(|| format!("{}: this file system does not do I/O without its cache", path.display()))?;
    let (file, start) = (&file, Instant::now());
    let parts = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..load.queue_depth).map(|seed| scope.spawn(move || worker(file, load, seed, time))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a worker does not panic")).collect::<Result<Vec<_>>>()
    })?;
    let mut latency_ns = histogram();
    parts.iter().for_each(|part| latency_ns.add(part).expect("all have the same bounds"));
    let operations = latency_ns.len();
    let bytes = operations * u64::from(load.block_bytes);
    Ok(Report { operations, bytes, elapsed: start.elapsed(), latency_ns, client_cpu: Duration::ZERO })
}

fn worker(file: &File, load: &Load, seed: u32, time: Duration) -> Result<Histogram<u64>> {
    let len = usize::try_from(load.block_bytes)?;
    let mut memory = vec![0x5a; len + ALIGN];
    let from = memory.as_ptr().align_offset(ALIGN);
    let block = &mut memory[from..from + len];
    let mut rng = ashlar_core::rng::Rng::new(seed.into());
    let (start, mut latencies) = (Instant::now(), histogram());
    while start.elapsed() < time {
        let offset = rng.below(FILE_BYTES / u64::from(load.block_bytes)) * u64::from(load.block_bytes);
        let begin = Instant::now();
        match load.kind {
            Kind::Read => file.read_exact_at(block, offset)?,
            Kind::Write => file.write_all_at(block, offset)?,
        }
        latencies.saturating_record(u64::try_from(begin.elapsed().as_nanos())?);
    }
    Ok(latencies)
}
