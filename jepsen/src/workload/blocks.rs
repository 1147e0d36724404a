//! Blocks that several clients share: writes, reads, discards, FLUSH and FUA, recorded call by call.
//!
//! Areas lie far apart, in different objects; an operation stays within one. Few blocks and many clients, so that
//! operations meet. Only every other area is discarded from: zeroes repeat, which makes a history dear to judge.

use super::{connect, outcome_of};
use crate::history::{Outcome, Recorder};
use crate::nbd::{Command, Failure, Nbd};
use crate::writers::Promise;
use ashlar_core::rng::Rng;
use ashlar_sim::check::history::{BLOCK, Block, CELL, Layout, What, fill};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes from one area to the next: objects are smaller.
const AREA_BYTES: u64 = 1 << 20;
/// How long a look at everything waits for a server.
const LOOK_PATIENCE: Duration = Duration::from_secs(90);

/// What is written to.
#[derive(Clone, Debug)]
pub struct Ground {
    /// Its number in the history.
    pub image: u32,
    /// Its name.
    pub export: &'static str,
    /// How it is divided.
    pub layout: Layout,
    /// Areas.
    pub areas: u32,
    /// Blocks of an area that are used.
    pub used: u32,
    /// Blocks of an operation, at most.
    pub longest: u32,
    /// Whether it is discarded from.
    pub discards: bool,
    /// If areas belong to servers: to how many. In lazy pools only one client may write an object between two flushes: what
    /// it replays may land over another client's later write.
    pub owners: Option<u32>,
}

impl Ground {
    /// Whole blocks; objects have so many.
    pub fn blocks(object_blocks: u32) -> Ground {
        let layout = Layout { unit: BLOCK, per_object: object_blocks };
        Ground { image: 1, export: "blocks", layout, areas: 8, used: 10, longest: 5, discards: true, owners: None }
    }

    /// Cells: parts of sectors.
    pub fn cells(object_blocks: u32) -> Ground {
        let layout = Layout { unit: CELL, per_object: object_blocks * (BLOCK / CELL) };
        Ground { image: 2, export: "cells", layout, areas: 4, used: 12, longest: 3, discards: false, owners: None }
    }

    /// The same for a pool: where that keeps not all before a flush, so many servers keep to areas of their own; where size
    /// matters, there are writes on both sides of what it keeps.
    #[must_use]
    pub fn for_pool(self, promise: Promise, servers: u32) -> Ground {
        let ground = Ground { owners: (promise != Promise::All).then_some(servers), ..self };
        // Cells are parts of sectors: they are always small.
        match promise {
            Promise::Small if ground.layout.unit == BLOCK => {
                let used = ground.layout.per_object * 3 / 4;
                Ground { used, longest: used, ..ground }
            }
            _ => ground,
        }
    }

    /// An area that a server may use.
    fn area(&self, server: u32, rng: &mut Rng) -> u32 {
        let owners = self.owners.unwrap_or(1);
        let own = u32::try_from(rng.below(u64::from(self.areas / owners))).expect("few");
        own * owners + server % owners
    }

    /// MiB that its image needs.
    pub fn mib(&self) -> u64 {
        (u64::from(self.areas) * AREA_BYTES) >> 20
    }

    fn block(&self, area: u32, place: u32) -> Block {
        let per_area = u32::try_from(AREA_BYTES).expect("small") / self.layout.unit;
        Block { image: self.image, index: area * per_area + place }
    }

    fn offset(&self, block: Block) -> u64 {
        u64::from(block.index) * u64::from(self.layout.unit)
    }
}

/// One client's thread.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Its number.
    pub number: u32,
    /// The server that it uses.
    pub server: u32,
    /// Where that listens.
    pub socket: PathBuf,
    /// Time between two operations.
    pub pause: Duration,
}

/// Starts a worker that goes on until it is told to stop; operations that it called.
pub fn start(
    worker: Worker,
    ground: Ground,
    recorder: &Arc<Recorder>,
    stop: &Arc<AtomicBool>,
    seed: u64,
) -> JoinHandle<u64> {
    let (recorder, stop) = (Arc::clone(recorder), Arc::clone(stop));
    std::thread::spawn(move || {
        let mut rng = Rng::new(seed);
        let mut count = 0;
        while let Some(mut nbd) = connect(&worker.socket, ground.export, &stop, LOOK_PATIENCE) {
            while !stop.load(Ordering::Relaxed) {
                count += 1;
                if step(&worker, &ground, &recorder, &mut nbd, &mut rng).is_err() {
                    break;
                }
                std::thread::sleep(worker.pause);
            }
        }
        count
    })
}

/// One operation; an error ends the connection.
fn step(worker: &Worker, ground: &Ground, recorder: &Recorder, nbd: &mut Nbd, rng: &mut Rng) -> Result<(), Failure> {
    let area = ground.area(worker.server, rng);
    let dice = rng.below(100);
    // One block is the rule.
    let longest = if rng.chance(2, 3) { 1 } else { ground.longest };
    let blocks = u32::try_from(rng.between(1, longest.into())).expect("few");
    let first = ground.block(area, u32::try_from(rng.below((ground.used - blocks + 1).into())).expect("few"));
    let job = Job { worker, ground, recorder, first, blocks };
    match dice {
        0..48 => job.write(nbd, rng.chance(1, 12)),
        48..53 => flush(worker, recorder, nbd),
        53..58 if ground.discards && area % 2 == 1 => job.discard(nbd),
        _ => job.read(nbd),
    }
}

struct Job<'a> {
    worker: &'a Worker,
    ground: &'a Ground,
    recorder: &'a Recorder,
    first: Block,
    blocks: u32,
}

impl Job<'_> {
    fn call(&self, what: What) -> u32 {
        self.recorder.call(self.worker.number, self.worker.server, self.first, self.blocks, what)
    }

    fn len(&self) -> usize {
        (self.blocks * self.ground.layout.unit) as usize
    }

    fn write(&self, nbd: &mut Nbd, fua: bool) -> Result<(), Failure> {
        let number = self.call(What::Write);
        if fua {
            self.recorder.is_fua(number);
        }
        let mut data = vec![0; self.len()];
        fill(number, self.first, self.ground.layout.unit, &mut data);
        self.end(number, nbd.perform(Command::Write, self.ground.offset(self.first), self.len(), &data, fua))
    }

    fn discard(&self, nbd: &mut Nbd) -> Result<(), Failure> {
        let number = self.call(What::Discard);
        self.end(number, nbd.perform(Command::Trim, self.ground.offset(self.first), self.len(), &[], false))
    }

    fn end(&self, number: u32, result: Result<Vec<u8>, Failure>) -> Result<(), Failure> {
        self.recorder.end(number, result.as_ref().err().map_or(Outcome::Ok, outcome_of));
        still_connected(result.map(drop))
    }

    fn read(&self, nbd: &mut Nbd) -> Result<(), Failure> {
        let number = self.call(What::Read(Vec::new()));
        let result = nbd.perform(Command::Read, self.ground.offset(self.first), self.len(), &[], false);
        match &result {
            Ok(bytes) => self.recorder.read(number, bytes),
            Err(failure) => self.recorder.end(number, outcome_of(failure)),
        }
        still_connected(result.map(drop))
    }
}

/// An answered error leaves the connection as it is.
fn still_connected(result: Result<(), Failure>) -> Result<(), Failure> {
    match result {
        Err(Failure::Answered(_)) => Ok(()),
        other => other,
    }
}

fn flush(worker: &Worker, recorder: &Recorder, nbd: &mut Nbd) -> Result<(), Failure> {
    let start = recorder.instant();
    let result = nbd.perform(Command::Flush, 0, 0, &[], false);
    if result.is_ok() {
        recorder.flushed(worker.server, start);
    }
    still_connected(result.map(drop))
}

/// Reads every used block once, one by one; how many could be read.
pub fn look(worker: &Worker, ground: &Ground, recorder: &Recorder) -> Result<u64, String> {
    let never = AtomicBool::new(false);
    let mut nbd = connect(&worker.socket, ground.export, &never, LOOK_PATIENCE).ok_or("the server does not answer")?;
    let places = (0..ground.areas).flat_map(|area| (0..ground.used).map(move |place| (area, place)));
    let mut count = 0;
    for (area, place) in places {
        let job = Job { worker, ground, recorder, first: ground.block(area, place), blocks: 1 };
        job.read(&mut nbd).map_err(|failure| format!("area {area}, block {place} cannot be read: {failure}"))?;
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_size_matters_writes_are_of_both_sizes_and_stay_in_their_object() {
        let ground = Ground::blocks(32).for_pool(Promise::Small, 2);
        let covered = |blocks: u32| Promise::Small.covers(u64::from(blocks * BLOCK), u64::from(32 * BLOCK));
        assert!(covered(1) && !covered(ground.longest));
        assert!(ground.used <= ground.layout.per_object && ground.longest <= ground.used && ground.owners == Some(2));
        assert_eq!(Ground::cells(32).for_pool(Promise::Small, 2).longest, Ground::cells(32).longest);
        assert_eq!(Ground::blocks(32).for_pool(Promise::All, 2).owners, None);
    }
}
