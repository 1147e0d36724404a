//! What was acknowledged, in a file of a machine that keeps its power: every step is a line that is written before the next
//! one is made, so that a rig which was interrupted itself goes on with what it knew.
//!
//! ```text
//! i BLOCK MS   a write to the block is about to be sent; writes are numbered by the order of these lines
//! d BLOCK MS   the block's newest write was acknowledged, and that makes it durable
//! a BLOCK MS   the block's newest write was acknowledged, which makes it durable with the next flush
//! f MS         a flush was acknowledged that was sent after all answers so far
//! c BLOCK N    after a cut the block was found to hold write N
//! k N MS       the canaries are about to be written for the Nth time
//! K N MS       they were written with FUA, and flushed, and both were acknowledged
//! p N          so many cuts were survived
//! ```
//! MS are milliseconds since 1970; nothing is judged by them.

use super::proof::{now_ms, stamp_ms};
use crate::registers::Registers;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The file, and what follows from it.
pub struct Witness {
    path: PathBuf,
    file: File,
    registers: Registers,
    canaries: Canaries,
    /// Cuts that were survived.
    pub cuts: u64,
    /// Acknowledged writes.
    pub acknowledged: u64,
}

/// How often canaries were written; 0: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Canaries {
    /// That was begun.
    pub begun: u64,
    /// That was acknowledged.
    pub kept: u64,
}

impl Witness {
    /// Opens a file, and takes in what it says.
    pub fn open(path: &Path) -> Result<Witness> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let file = File::options().create(true).append(true).open(path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        let (registers, canaries) = (Registers::default(), Canaries::default());
        let mut witness = Witness { path: path.into(), file, registers, canaries, cuts: 0, acknowledged: 0 };
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
            "a" => self.acknowledged += 1,
            "f" => self.registers.flushed(),
            "c" => self.registers.settle(number(1)?, number(2)?)?,
            "k" => self.canaries.begun = number(1)?,
            "K" => self.canaries.kept = number(1)?,
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
        self.note(&format!("i {block} {}", now_ms()))?;
        Ok(self.registers.issue(block))
    }

    /// A write was acknowledged, by a pool that keeps it from then on, or from the next flush on.
    pub fn acknowledge(&mut self, block: u64, is_durable: bool) -> Result<()> {
        self.note(&format!("{} {block} {}", if is_durable { "d" } else { "a" }, now_ms()))?;
        if is_durable {
            self.durable_now(block);
        } else {
            self.acknowledged += 1;
        }
        Ok(())
    }

    /// The canaries are about to be written; their number.
    pub fn feed(&mut self) -> Result<u64> {
        let next = self.canaries.begun + 1;
        self.note(&format!("k {next} {}", now_ms()))?;
        self.canaries.begun = next;
        Ok(next)
    }

    /// They were written with FUA, and flushed.
    pub fn fed(&mut self) -> Result<()> {
        self.note(&format!("K {} {}", self.canaries.begun, now_ms()))?;
        self.canaries.kept = self.canaries.begun;
        Ok(())
    }

    /// How often canaries were written.
    pub fn canaries(&self) -> Canaries {
        self.canaries
    }

    /// A flush was acknowledged.
    pub fn flushed(&mut self) -> Result<()> {
        self.note(&format!("f {}", now_ms()))?;
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

    /// The file as it is.
    pub fn text(&self) -> Result<String> {
        std::fs::read_to_string(&self.path).with_context(|| format!("cannot read {}", self.path.display()))
    }

    /// What became of a block's writes, with times: from the last one on that it was found to hold.
    pub fn story(&self, block: u64) -> Result<String> {
        let (mut writes, mut open, mut story) = (0, false, String::new());
        for line in self.text()?.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let of_block = words.get(1).is_some_and(|word| *word == block.to_string());
            let time = |at: usize| words.get(at).and_then(|ms| ms.parse().ok()).map_or("?".into(), stamp_ms);
            writes += u64::from(words[0] == "i");
            match words[0] {
                "i" if of_block => {
                    story += &format!("write {writes} was sent at {}\n", time(2));
                    open = true;
                }
                "d" if of_block => story += &format!("  acknowledged as durable at {}\n", time(2)),
                "a" if of_block => {
                    story += &format!("  acknowledged at {}, to be kept from the next flush on\n", time(2))
                }
                "f" if open => {
                    story += &format!("  flushed at {}\n", time(1));
                    open = false;
                }
                "c" if of_block => {
                    story = format!("found to hold write {} after a cut\n", words.get(2).unwrap_or(&"?"));
                    open = false;
                }
                _ => {}
            }
        }
        Ok(story)
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
        witness.acknowledge(5, true).expect("noted");
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
        std::fs::write(&path, "i 5\nd 5\nf\nc 5 1\np 3\n").expect("lines without times");
        let old = Witness::open(&path).expect("read");
        assert_eq!((old.cuts, old.blocks(), old.canaries()), (3, vec![5], Canaries::default()));
        std::fs::write(&path, "x 1\n").expect("written");
        assert!(Witness::open(&path).is_err());
    }

    #[test]
    fn canaries_are_remembered_and_a_block_has_a_story() {
        let scratch = Scratch::new("story").expect("a directory");
        let path = scratch.join("witness");
        let mut witness = Witness::open(&path).expect("new");
        assert_eq!(witness.feed().expect("noted"), 1);
        assert_eq!(witness.canaries(), Canaries { begun: 1, kept: 0 });
        witness.fed().expect("noted");
        let first = witness.issue(5).expect("noted");
        witness.issue(6).expect("noted");
        witness.acknowledge(5, false).expect("noted");
        witness.flushed().expect("noted");
        let story = witness.story(5).expect("read");
        assert!(
            story.starts_with("write 1 was sent at 20") && story.contains("to be kept from the next flush"),
            "{story}"
        );
        assert!(story.contains("flush on\n  flushed at 20") && !story.contains("write 2"), "{story}");
        witness.check(5, &first).expect("it is there");
        assert_eq!(witness.story(5).expect("read"), "found to hold write 1 after a cut\n");
        drop(witness);
        let again = Witness::open(&path).expect("read");
        assert_eq!((again.canaries(), again.acknowledged), (Canaries { begun: 1, kept: 1 }, 1));
    }
}
