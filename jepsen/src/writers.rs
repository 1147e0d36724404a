//! Writers that know what they wrote: several at a time, each with blocks of its own.

use crate::cluster::Cluster;
use crate::nbd::Nbd;
use crate::registers::{BLOCK_BYTES, Registers};
use anyhow::{Context, Result};
use ashlar_core::rng::Rng;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How many write at a time.
const WRITERS: usize = 4;
/// Blocks of a large write: an object of a replicated pool.
const LARGE_BLOCKS: u64 = 32;
/// Bytes of such an object, which are a block of its pool.
const OBJECT_BYTES: u64 = LARGE_BLOCKS * BLOCK_BYTES as u64;
/// A cluster that is away is waited for at most so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a pool can be told to promise, as its commands have it.
pub const IMMEDIATE_COMMITS: [&str; 3] = ["all", "small", "none"];

/// Which acknowledged writes count as durable without a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// All.
    All,
    /// Those of up to half a block of the pool, and what carries no data.
    Small,
    /// None.
    None,
}

impl Promise {
    /// Of a pool with this redundancy that was told so. Coded pools keep what they acknowledge, whatever they are told.
    pub fn of(pool: &str, immediate_commit: &str) -> Promise {
        match immediate_commit {
            _ if !pool.starts_with("replicated") => Promise::All,
            "small" => Promise::Small,
            "none" => Promise::None,
            _ => Promise::All,
        }
    }

    /// Whether a write of so many bytes (0: it carries no data) is durable when it is acknowledged, in a pool with blocks of
    /// so many.
    pub fn covers(self, bytes: u64, block_bytes: u64) -> bool {
        match self {
            Promise::All => true,
            Promise::Small => bytes <= block_bytes / 2,
            Promise::None => false,
        }
    }
}

/// Their blocks, and what they may hold.
pub struct Writers {
    promise: Promise,
    flushes: bool,
    all: Vec<Registers>,
    rng: Rng,
}

/// Writers at work.
pub struct Running {
    promise: Promise,
    flushes: bool,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Registers>>>,
    rng: Rng,
}

impl Writers {
    /// Nothing written yet.
    pub fn new(promise: Promise) -> Writers {
        let all = (0..WRITERS).map(|_| Registers::default()).collect();
        Writers { promise, flushes: true, all, rng: Rng::new(u64::from(std::process::id())) }
    }

    /// They never flush.
    pub fn without_flushes(self) -> Writers {
        Writers { flushes: false, ..self }
    }

    /// Lets them write until they are told to stop, or (`until_gone`) the server is gone.
    pub fn start(mut self, socket: &Path, until_gone: bool) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for (registers, number) in self.all.into_iter().zip(0..) {
            let writer = Writer {
                socket: socket.to_path_buf(),
                promise: self.promise,
                flushes: self.flushes,
                number,
                registers,
                rng: Rng::new(self.rng.next_u64()),
                stop: Arc::clone(&stop),
                until_gone,
            };
            threads.push(std::thread::spawn(move || writer.run()));
        }
        Running { promise: self.promise, flushes: self.flushes, stop, threads, rng: self.rng }
    }

    /// Holds what the image has against what may be there.
    pub fn check(&mut self, cluster: &Cluster) -> Result<()> {
        let mut nbd = Nbd::connect(&cluster.socket(), "demo", PATIENCE)?;
        for registers in &mut self.all {
            let blocks: Vec<u64> = registers.blocks().collect();
            for block in blocks {
                let found = nbd.read(block * BLOCK_BYTES as u64, BLOCK_BYTES)?;
                registers.check(block, &found).with_context(|| cluster.logs())?;
            }
        }
        Ok(())
    }

    /// Blocks with a write that must survive.
    pub fn durable(&self) -> usize {
        self.all.iter().map(Registers::durable).sum()
    }
}

impl Running {
    /// Tells them to stop, and waits.
    pub fn stop(self) -> Result<Writers> {
        self.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    /// Waits until they end.
    pub fn join(self) -> Result<Writers> {
        let ended = self.threads.into_iter().map(|thread| thread.join().expect("writers do not panic"));
        let all = ended.collect::<Result<_>>()?;
        Ok(Writers { promise: self.promise, flushes: self.flushes, all, rng: self.rng })
    }
}

struct Writer {
    socket: PathBuf,
    promise: Promise,
    flushes: bool,
    number: u64,
    registers: Registers,
    rng: Rng,
    stop: Arc<AtomicBool>,
    until_gone: bool,
}

impl Writer {
    fn run(mut self) -> Result<Registers> {
        let outcome = self.write();
        if !self.until_gone {
            outcome?;
        }
        Ok(self.registers)
    }

    fn write(&mut self) -> Result<()> {
        let mut nbd = Nbd::connect(&self.socket, "demo", PATIENCE)?;
        // Whole large writes, so that writers share no object.
        let areas = nbd.size_bytes() / (BLOCK_BYTES as u64 * LARGE_BLOCKS) / WRITERS as u64;
        while !self.stop.load(Ordering::Relaxed) {
            // Half of the writes go to few blocks, so that blocks are overwritten.
            let few = self.rng.chance(1, 2);
            let area = self.rng.below(if few { areas.min(4) } else { areas });
            let first = (area * WRITERS as u64 + self.number) * LARGE_BLOCKS;
            let is_large = self.rng.chance(1, 8);
            let blocks = if is_large { first..first + LARGE_BLOCKS } else { one(first + self.rng.below(LARGE_BLOCKS)) };
            let data: Vec<u8> = blocks.clone().flat_map(|block| self.registers.issue(block)).collect();
            nbd.write(blocks.start * BLOCK_BYTES as u64, &data)?;
            if self.promise.covers(data.len() as u64, OBJECT_BYTES) {
                blocks.for_each(|block| self.registers.durable_now(block));
            }
            if self.flushes && self.rng.chance(1, 16) {
                nbd.flush()?;
                self.registers.flushed();
            }
        }
        nbd.flush()?;
        self.registers.flushed();
        Ok(())
    }
}

fn one(block: u64) -> std::ops::Range<u64> {
    block..block + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_are_those_of_the_pool() {
        let of = |pool: &str| IMMEDIATE_COMMITS.map(|told| Promise::of(pool, told));
        assert_eq!(of("replicated:3"), [Promise::All, Promise::Small, Promise::None]);
        assert_eq!(of("ec:4+2"), [Promise::All; 3]);
        assert_eq!(of("xor:2+1"), [Promise::All; 3]);
        let durable = |bytes| of("replicated:2").map(|promise| promise.covers(bytes, OBJECT_BYTES));
        assert_eq!(durable(0), [true, true, false]);
        assert_eq!(durable(64 << 10), [true, true, false]);
        assert_eq!(durable((64 << 10) + 512), [true, false, false]);
    }
}
