//! Power cuts by commands: for real machines, whose relay, BMC or PDU takes orders, and for anything else that can be cut.
//!
//! One writer against an NBD export; the witness file lies on the machine that this runs on, which keeps its power. A cycle
//! ends with a cut in the midst of writing; after power is back and the export answers, every block that was ever written
//! is looked at before the next write.
//!
//! *Canaries* are the export's last pages. Before each cut they are written with FUA, and flushed; the workload begins when that
//! is acknowledged, and never touches them. So a dead canary is something that was asked to be durable in both ways and lay
//! still since then: neither what the pool promises before a flush, nor what was under way, explains it. Who lost it, a
//! device below or what is above it, they cannot tell: they are written through both.

use super::Judgement;
use super::proof::Proof;
use super::witness::{Canaries, Witness};
use crate::nbd::{Command as Request, Nbd};
use crate::registers::BLOCK_BYTES;
use crate::workload::connect;
use crate::writers::Promise;
use anyhow::{Context, Result, ensure};
use ashlar_core::rng::Rng;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Blocks that are overwritten again and again.
const FEW: u64 = 64;
/// Blocks that are used, at most.
const USED: u64 = 1 << 16;
/// Blocks of a large write: more than half of a pool's block, if that has its usual size.
const LARGE_BLOCKS: u64 = 32;
/// Bytes of a pool's block, unless its owner chose otherwise.
const USUAL_BLOCK_BYTES: u64 = 128 << 10;
/// Pages of the export that are canaries: its last ones.
pub const CANARY_PAGES: u64 = 8;
/// Bytes of a page.
const PAGE: u64 = BLOCK_BYTES as u64;

/// What is cut, and how.
#[derive(Clone, Debug)]
pub struct Hooks {
    /// A unix socket that serves NBD; over a network, one that `socat` or `ssh -L` leads there.
    pub socket: PathBuf,
    /// The export.
    pub export: String,
    /// A shell command that takes the power away; returns when it is gone.
    pub cut: String,
    /// A shell command that gives it back; need not wait until everything runs.
    pub restore: String,
    /// Writing between two cuts, at most.
    pub seconds: u64,
    /// How long to wait until the export answers again.
    pub patience: Duration,
    /// What the pool promises.
    pub promise: Promise,
    /// Where the proof of a loss is put.
    pub out: Option<PathBuf>,
}

/// A block that does not hold what it must.
struct Loss {
    block: u64,
    what: String,
    found: Vec<u8>,
}

impl Hooks {
    /// Cycles until there were so many, with those that the witness knows of, or something is missing.
    pub fn run(&self, cycles: u64, witness: &mut Witness, rng: &mut Rng) -> Result<Judgement> {
        let mut proof = Proof::new(self.out.clone());
        let mut when = "before the first cut of this run".to_string();
        let mut judgement = self.judge(&when, witness, &proof)?;
        while judgement == Judgement::Clean && witness.cuts < cycles {
            let number = witness.cuts + 1;
            self.feed_canaries(witness).with_context(|| format!("before cut {number}"))?;
            proof.event(&format!("cut {number}: writing begins"));
            self.write_and_cut(witness, rng, &mut proof)?;
            shell(&self.restore)?;
            proof.event("power is given back");
            when = format!("after cut {number}");
            judgement = self.judge(&when, witness, &proof)?;
            if judgement == Judgement::Clean {
                witness.survived()?;
                eprintln!("{} cuts survived, {} writes acknowledged", witness.cuts, witness.acknowledged);
            }
        }
        Ok(judgement)
    }

    fn connect(&self) -> Result<Nbd> {
        let never = AtomicBool::new(false);
        let nbd = connect(&self.socket, &self.export, &never, self.patience);
        let nbd = nbd.with_context(|| format!("nobody serves '{}' at {}", self.export, self.socket.display()))?;
        ensure!(nbd.size_bytes() / PAGE > CANARY_PAGES, "an export of {} bytes is too small", nbd.size_bytes());
        Ok(nbd)
    }

    /// Looks at everything that was ever written, and at the canaries.
    fn judge(&self, when: &str, witness: &mut Witness, proof: &Proof) -> Result<Judgement> {
        let mut nbd = self.connect()?;
        let dead = dead_canaries(&mut nbd, witness.canaries())?;
        let mut losses = Vec::new();
        for block in witness.blocks() {
            let found = nbd.read(block * PAGE, BLOCK_BYTES)?;
            let outcome = witness.check(block, &found);
            losses.extend(outcome.err().map(|error| Loss { block, what: format!("{error:#}"), found }));
        }
        let words = losses.iter().map(|loss| loss.what.clone()).collect();
        let judgement = Judgement::of_export(words, dead);
        if judgement != Judgement::Clean {
            let head = format!("{when}: {} writes were acknowledged", witness.acknowledged);
            proof.keep(&head, &judgement, &evidence(witness, losses)?)?;
        }
        Ok(judgement)
    }

    fn feed_canaries(&self, witness: &mut Witness) -> Result<()> {
        let mut nbd = self.connect()?;
        let (first, number) = (first_canary(&nbd), witness.feed()?);
        for page in 0..CANARY_PAGES {
            let data = canary(page, number);
            let outcome = nbd.perform(Request::Write, (first + page) * PAGE, BLOCK_BYTES, &data, true);
            outcome.map_err(|failure| anyhow::anyhow!("canary {page} cannot be written with FUA: {failure}"))?;
        }
        nbd.flush().context("flushing the canaries")?;
        witness.fed()
    }

    fn write_and_cut(&self, witness: &mut Witness, rng: &mut Rng, proof: &mut Proof) -> Result<()> {
        let mut nbd = self.connect()?;
        let after = Duration::from_millis(rng.between(200, (self.seconds * 1000).max(201)));
        let gone = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let cutter = scope.spawn(|| {
                std::thread::sleep(after);
                proof.event("the cut begins");
                let outcome = shell(&self.cut);
                proof.event("the power is gone");
                gone.store(true, Ordering::Relaxed);
                outcome
            });
            while !gone.load(Ordering::Relaxed) {
                if self.step(&mut nbd, witness, rng)?.is_none() {
                    break;
                }
            }
            cutter.join().expect("the cutter does not panic")
        })
    }

    /// One write, perhaps a flush; nothing if the server is gone.
    fn step(&self, nbd: &mut Nbd, witness: &mut Witness, rng: &mut Rng) -> Result<Option<()>> {
        let blocks = draw(first_canary(nbd), rng);
        let mut data = Vec::new();
        for block in blocks.clone() {
            data.extend(witness.issue(block)?);
        }
        if nbd.write(blocks.start * PAGE, &data).is_err() {
            return Ok(None);
        }
        let is_durable = self.promise.covers(data.len() as u64, USUAL_BLOCK_BYTES);
        for block in blocks {
            witness.acknowledge(block, is_durable)?;
        }
        if rng.chance(1, 16) {
            if nbd.flush().is_err() {
                return Ok(None);
            }
            witness.flushed()?;
        }
        Ok(Some(()))
    }
}

/// The first page that belongs to the canaries.
fn first_canary(nbd: &Nbd) -> u64 {
    nbd.size_bytes() / PAGE - CANARY_PAGES
}

/// What to write next: mostly one block, mostly one of few, all of them before `end`.
fn draw(end: u64, rng: &mut Rng) -> std::ops::Range<u64> {
    let range = if rng.chance(1, 2) { FEW } else { USED }.min(end);
    let places = range / LARGE_BLOCKS;
    if places > 0 && rng.chance(1, 8) {
        let first = rng.below(places) * LARGE_BLOCKS;
        return first..first + LARGE_BLOCKS;
    }
    let block = rng.below(range);
    block..block + 1
}

/// What a canary is written with.
fn canary(page: u64, number: u64) -> Vec<u8> {
    if number == 0 {
        return vec![0; BLOCK_BYTES];
    }
    [*b"canary\0\0", page.to_le_bytes(), number.to_le_bytes(), [0xff; 8]].concat().repeat(BLOCK_BYTES / 32)
}

/// Canaries that are not what they were written with. One that was being written may be new or old, and until any was written
/// they may be anything.
fn dead_canaries(nbd: &mut Nbd, canaries: Canaries) -> Result<Vec<String>> {
    let Canaries { begun, kept } = canaries;
    let mut dead = Vec::new();
    for page in 0..if kept == 0 { 0 } else { CANARY_PAGES } {
        let found = nbd.read((first_canary(nbd) + page) * PAGE, BLOCK_BYTES)?;
        if !(kept..=begun).any(|number| found == canary(page, number)) {
            let holds = (0..kept).rev().find(|number| found == canary(page, *number));
            let holds = holds.map_or("something else".into(), |number| format!("that of time {number}"));
            dead.push(format!(
                "canary {page} was written with FUA and flushed for the {kept}. time, lay still since then, and holds {holds}"
            ));
        }
    }
    Ok(dead)
}

/// What was acknowledged of each block that is wrong, what was found in it, and the witness.
fn evidence(witness: &Witness, losses: Vec<Loss>) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = vec![("witness".to_string(), witness.text()?.into_bytes())];
    let mut acknowledged = String::new();
    for Loss { block, what, found } in losses {
        acknowledged += &format!("block {block}, bytes {} on: {what}\n", block * PAGE);
        witness.story(block)?.lines().for_each(|line| acknowledged += &format!("  {line}\n"));
        files.push((format!("found-{block}.bin"), found));
    }
    files.push(("acknowledged.txt".into(), acknowledged.into_bytes()));
    Ok(files)
}

/// Runs a shell command to its end.
fn shell(command: &str) -> Result<()> {
    let status = Command::new("sh").args(["-c", command]).stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot run `{command}`"))?;
    ensure!(status.success(), "`{command}` failed: {status}");
    Ok(())
}

#[cfg(test)]
mod tests;
