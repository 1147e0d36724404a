//! What was acknowledged, in a file of a machine that keeps its power: every step is a line that is written before the next
//! one is made, so that a rig which was interrupted itself goes on with what it knew.
//!
//! ```text
//! i BLOCK      a write to the block is about to be sent; writes are numbered by the order of these lines
//! d BLOCK      the block's newest write was acknowledged, and that makes it durable
//! f            a flush was acknowledged that was sent after all answers so far
//! c BLOCK N    after a cut the block was found to hold write N
//! p N          so many cuts were survived
//! ```

use crate::registers::Registers;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// The file, and what follows from it.
pub struct Witness {
    file: File,
    registers: Registers,
    /// Cuts that were survived.
    pub cuts: u64,
    /// Acknowledged writes.
    pub acknowledged: u64,
}

impl Witness {
    /// Opens a file, and takes in what it says.
    pub fn open(path: &Path) -> Result<Witness> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let file = File::options().create(true).append(true).open(path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        let mut witness = Witness { file, registers: Registers::default(), cuts: 0, acknowledged: 0 };
        // The last line may be a part of one: what it was about was not done yet.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        witness.file.set_len(whole as u64)?;
        for (number, line) in (1..).zip(text[..whole].lines()) {
            witness.take(line).with_context(|| format!("line {number} of {}", path.display()))?;
        }
        Ok(witness)
    }

    fn take(&mut self, line: &str) -> Result<()> {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words.get(at).context("a number is missing")?.parse::<u64>().context("a number");
        match words[0] {
            "i" => drop(self.registers.issue(number(1)?)),
            "d" => self.durable_now(number(1)?),
            "f" => self.registers.flushed(),
            "c" => self.registers.settle(number(1)?, number(2)?)?,
            "p" => self.cuts = number(1)?,
            other => bail!("'{other}' is not a step"),
        }
        Ok(())
    }

    fn durable_now(&mut self, block: u64) {
        self.registers.durable_now(block);
        self.acknowledged += 1;
    }

    fn note(&mut self, line: &str) -> Result<()> {
        // One write each: a line is there or it is not.
        Ok(self.file.write_all(format!("{line}\n").as_bytes())?)
    }

    /// A write is about to be sent; its contents.
    pub fn issue(&mut self, block: u64) -> Result<Vec<u8>> {
        self.note(&format!("i {block}"))?;
        Ok(self.registers.issue(block))
    }

    /// A write was acknowledged by a pool that acknowledges what is durable.
    pub fn acknowledge(&mut self, block: u64) -> Result<()> {
        self.note(&format!("d {block}"))?;
        self.durable_now(block);
        Ok(())
    }

    /// A flush was acknowledged.
    pub fn flushed(&mut self) -> Result<()> {
        self.note("f")?;
        self.registers.flushed();
        Ok(())
    }

    /// A cut was survived.
    pub fn survived(&mut self) -> Result<()> {
        self.cuts += 1;
        self.note(&format!("p {}", self.cuts))
    }

    /// Blocks that were written.
    pub fn blocks(&self) -> Vec<u64> {
        self.registers.blocks().collect()
    }

    /// Holds what a block has against what it may have.
    pub fn check(&mut self, block: u64, found: &[u8]) -> Result<()> {
        let write = self.registers.check(block, found)?;
        self.note(&format!("c {block} {write}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_witness_remembers_over_its_own_end_and_takes_half_a_line_for_none() {
        let scratch = Scratch::new("witness").expect("a directory");
        let path = scratch.join("witness");
        let mut witness = Witness::open(&path).expect("new");
        let first = witness.issue(5).expect("noted");
        witness.acknowledge(5).expect("noted");
        let second = witness.issue(5).expect("noted");
        witness.issue(6).expect("noted");
        witness.survived().expect("noted");
        drop(witness);
        File::options().append(true).open(&path).expect("there").write_all(b"d ").expect("written");
        let mut again = Witness::open(&path).expect("read");
        assert_eq!((again.cuts, again.acknowledged, again.blocks()), (1, 1, vec![5, 6]));
        assert!(again.check(5, &[0; 4096]).is_err(), "it was acknowledged");
        again.check(5, &second).expect("it may have arrived");
        drop(again);
        let mut last = Witness::open(&path).expect("read");
        assert!(last.check(5, &first).is_err(), "another was found already");
        std::fs::write(&path, "x 1\n").expect("written");
        assert!(Witness::open(&path).is_err());
    }
}
