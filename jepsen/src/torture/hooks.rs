//! Power cuts by commands: for real machines, whose relay, BMC or PDU takes orders, and for anything else that can be cut.
//!
//! One writer against an NBD export; the witness file lies on the machine that this runs on, which keeps its power. A cycle
//! ends with a cut in the midst of writing; after power is back and the export answers, every block that was ever written
//! is looked at before the next write.

use super::witness::Witness;
use crate::nbd::Nbd;
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
}

impl Hooks {
    /// Cycles until there were so many, with those that the witness knows of; an error says what is missing.
    pub fn run(&self, cycles: u64, witness: &mut Witness, rng: &mut Rng) -> Result<()> {
        self.look(witness).context("before the first cut")?;
        while witness.cuts < cycles {
            self.write_and_cut(witness, rng)?;
            shell(&self.restore)?;
            self.look(witness).with_context(|| format!("MISSING after cut {}", witness.cuts + 1))?;
            witness.survived()?;
            eprintln!("{} cuts survived, {} writes acknowledged", witness.cuts, witness.acknowledged);
        }
        Ok(())
    }

    fn connect(&self) -> Result<Nbd> {
        let never = AtomicBool::new(false);
        let nbd = connect(&self.socket, &self.export, &never, self.patience);
        nbd.with_context(|| format!("nobody serves '{}' at {}", self.export, self.socket.display()))
    }

    fn look(&self, witness: &mut Witness) -> Result<()> {
        let mut nbd = self.connect()?;
        for block in witness.blocks() {
            let found = nbd.read(block * BLOCK_BYTES as u64, BLOCK_BYTES)?;
            witness.check(block, &found)?;
        }
        Ok(())
    }

    fn write_and_cut(&self, witness: &mut Witness, rng: &mut Rng) -> Result<()> {
        let mut nbd = self.connect()?;
        let after = Duration::from_millis(rng.between(200, (self.seconds * 1000).max(201)));
        let gone = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let cutter = scope.spawn(|| {
                std::thread::sleep(after);
                let outcome = shell(&self.cut);
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
        let blocks = nbd.size_bytes() / BLOCK_BYTES as u64;
        ensure!(blocks > 0, "an export of less than a block");
        let range = if rng.chance(1, 2) { FEW } else { 1 << 16 };
        let block = rng.below(blocks.min(range));
        let data = witness.issue(block)?;
        if nbd.write(block * BLOCK_BYTES as u64, &data).is_err() {
            return Ok(None);
        }
        if self.promise != Promise::None {
            witness.acknowledge(block)?;
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

/// Runs a shell command to its end.
fn shell(command: &str) -> Result<()> {
    let status = Command::new("sh").args(["-c", command]).stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot run `{command}`"))?;
    ensure!(status.success(), "`{command}` failed: {status}");
    Ok(())
}
