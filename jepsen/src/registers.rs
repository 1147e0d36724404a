//! One writer's blocks, and what may be found in them after a crash.
//!
//! Every 4 KiB block is a register that one client writes and nobody else. A block must hold its newest write that was
//! followed by an answered flush, or one that was issued later; in between, or anything else, was lost or invented. What is
//! found after a crash decides about writes that no answer came to: all blocks are looked at before new ones are written.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 4096;

#[derive(Clone, Debug, Default)]
struct Register {
    /// The newest write that a flush covers; 0: none.
    durable: u64,
    /// Writes issued since, in order.
    later: Vec<u64>,
}

/// All blocks that were written.
#[derive(Clone, Debug, Default)]
pub struct Registers {
    blocks: BTreeMap<u64, Register>,
    next: u64,
}

impl Registers {
    /// Notes a write about to be issued, and returns its contents.
    pub fn issue(&mut self, block: u64) -> Vec<u8> {
        self.next += 1;
        self.blocks.entry(block).or_default().later.push(self.next);
        contents(block, self.next)
    }

    /// A flush was answered that was sent after the answers to all writes so far.
    pub fn flushed(&mut self) {
        for register in self.blocks.values_mut() {
            if let Some(newest) = register.later.last() {
                register.durable = *newest;
                register.later.clear();
            }
        }
    }

    /// A block's newest write was answered by a pool that answers only what is durable.
    pub fn durable_now(&mut self, block: u64) {
        let register = self.blocks.get_mut(&block).expect("a block that was written");
        if let Some(newest) = register.later.pop() {
            *register = Register { durable: newest, later: Vec::new() };
        }
    }

    /// Writes that a flush covers.
    pub fn durable(&self) -> usize {
        self.blocks.values().filter(|register| register.durable > 0).count()
    }

    /// Blocks that were written.
    pub fn blocks(&self) -> impl Iterator<Item = u64> {
        self.blocks.keys().copied()
    }

    /// Judges what a block holds after a crash. It must hold that from now on: a write that was never answered has
    /// survived, or it never appears. Which write it is.
    pub fn check(&mut self, block: u64, found: &[u8]) -> Result<u64> {
        let register = self.blocks.get_mut(&block).expect("a block that was written");
        let allowed: Vec<u64> = std::iter::once(register.durable).chain(register.later.iter().copied()).collect();
        let Some(write) = allowed.iter().find(|write| contents(block, **write) == found) else {
            bail!("block {block} holds {}; allowed are the writes {allowed:?}", describe(block, found));
        };
        let write = *write;
        self.settle(block, write)?;
        Ok(write)
    }

    /// A block was found to hold a write; it must hold that from now on.
    pub fn settle(&mut self, block: u64, write: u64) -> Result<()> {
        let register = self.blocks.get_mut(&block).context("no such block was written")?;
        *register = Register { durable: write, later: Vec::new() };
        Ok(())
    }
}

/// What write number `write` puts into a block: its address and number, over and over, so that a mixture shows.
fn contents(block: u64, write: u64) -> Vec<u8> {
    if write == 0 {
        return vec![0; BLOCK_BYTES];
    }
    let tag = [block.to_le_bytes(), write.to_le_bytes()].concat();
    tag.iter().copied().cycle().take(BLOCK_BYTES).collect()
}

fn describe(block: u64, found: &[u8]) -> String {
    let number = |at: usize| u64::from_le_bytes(found[at..at + 8].try_into().expect("eight bytes"));
    let (address, write) = (number(0), number(8));
    match contents(block, write) == found {
        true => format!("write {write}"),
        false => format!("neither zeroes nor one whole write (it begins like write {write} to block {address})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_a_flush_everything_issued_or_nothing_is_allowed() {
        let mut registers = Registers::default();
        let (first, second) = (registers.issue(7), registers.issue(7));
        for found in [vec![0; BLOCK_BYTES], first, second] {
            registers.clone().check(7, &found).expect("allowed");
        }
    }

    #[test]
    fn what_was_flushed_must_be_there() {
        let mut registers = Registers::default();
        let old = registers.issue(7);
        let flushed = registers.issue(7);
        registers.flushed();
        let later = registers.issue(7);
        registers.clone().check(7, &flushed).expect("flushed");
        registers.clone().check(7, &later).expect("issued later");
        assert!(registers.check(7, &old).is_err(), "overwritten before the flush");
        assert!(registers.check(7, &[0; BLOCK_BYTES]).is_err(), "lost");
    }

    #[test]
    fn a_write_that_no_answer_came_to_is_decided_by_the_next_look() {
        let mut registers = Registers::default();
        let answered = registers.issue(7);
        registers.flushed();
        let cut_off = registers.issue(7);
        let mut survived = registers.clone();
        registers.check(7, &answered).expect("it never appears");
        registers.flushed();
        registers.check(7, &answered).expect("no flush makes it so");
        assert!(registers.check(7, &cut_off).is_err(), "a zombie");
        survived.check(7, &cut_off).expect("it survived");
        assert!(survived.check(7, &answered).is_err(), "lost after all");
    }

    #[test]
    fn what_was_answered_as_durable_needs_no_flush() {
        let mut registers = Registers::default();
        let (old, other) = (registers.issue(7), registers.issue(8));
        registers.durable_now(7);
        let answered = registers.issue(7);
        registers.durable_now(7);
        assert!(registers.clone().check(7, &old).is_err(), "overwritten");
        registers.check(7, &answered).expect("answered");
        registers.clone().check(8, &[0; BLOCK_BYTES]).expect("not answered");
        registers.check(8, &other).expect("not answered");
    }

    #[test]
    fn mixtures_and_strangers_are_found() {
        let mut registers = Registers::default();
        let (mut mixed, second) = (registers.issue(7), registers.issue(7));
        mixed[512..].copy_from_slice(&second[512..]);
        let mixture = registers.check(7, &mixed).expect_err("torn").to_string();
        assert!(mixture.contains("neither"), "{mixture}");
        let other = registers.issue(8);
        assert!(registers.check(7, &other).is_err(), "another block's data");
    }
}
