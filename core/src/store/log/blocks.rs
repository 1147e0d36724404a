//! Which blocks are free.
//!
//! A block goes `free -> owned -> cooling -> free`. It cools from when the record that superseded it is in the log and
//! its data are durable, until a page in the log says so (`done_upto`) and nobody reads or writes it any more: until
//! then opening could still choose the state that owns it. One that the device refuses to write is retired instead, until
//! the store is opened again: the medium may have replaced its bad sectors by then, and if not it is found out anew.

use super::page::Sequence;
use super::record::NO_BLOCK;
use crate::planted::{Bug, planted};
use std::collections::VecDeque;

/// Blocks of deleted objects of which the device is told at once, as a share of all, and the most: enough for a request to
/// be worth its cost, few enough that space goes back soon.
const DISCARD_SHARE: u32 = 16;
const DISCARD_MOST: u32 = 64;
/// Of the blocks, the share that new objects leave free, and the most: as many copies as are replaced at a time.
const RESERVE_SHARE: u32 = 32;
const RESERVE_MOST: u32 = 64;

/// The free blocks, and those that will be.
#[derive(Clone, Debug, Default)]
pub struct Blocks {
    total: u32,
    free: Vec<u32>,
    /// Free blocks whose objects are gone: the device is to be told, unless they are used before.
    emptied: Vec<u32>,
    /// Blocks that the device is being told of.
    discarding: u32,
    /// Blocks with the page of the record that superseded them, and whether their objects are gone.
    cooling: VecDeque<(Sequence, u32, bool)>,
    /// Reads and writes in flight, by block.
    pins: Vec<u16>,
    /// Blocks that the device refused to write; few.
    refused: Vec<u32>,
    /// Those of them that nobody owns any more.
    retired: Vec<u32>,
}

impl Blocks {
    /// All blocks of a device, except those that `owned` names; an error names one that is owned twice.
    pub fn new(total: u32, owned: impl Iterator<Item = u32>) -> Result<Self, u32> {
        let mut taken = vec![false; total as usize];
        for block in owned {
            if std::mem::replace(&mut taken[block as usize], true) {
                return Err(block);
            }
        }
        let free = (0..total).rev().filter(|block| !taken[*block as usize]).collect();
        let pins = vec![0; total as usize];
        Ok(Blocks { total, free, pins, ..Blocks::default() })
    }

    /// The device refused to write it: it is never free again.
    pub fn refuse(&mut self, block: u32) {
        if !self.refused.contains(&block) {
            self.refused.push(block);
        }
    }

    /// Blocks that were refused.
    pub fn refused(&self) -> u32 {
        u32::try_from(self.refused.len()).expect("at most all")
    }

    /// Nobody owns the refused block any more, without a record that superseded it.
    pub fn retire(&mut self, block: u32) {
        self.retired.push(block);
    }

    /// A free block, which is owned from now on.
    pub fn allocate(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| self.emptied.pop())
    }

    /// Takes the blocks that the device is to be told of, as ranges of first and number, if they are enough to be worth it.
    /// They are not free until [`Blocks::discarded`].
    pub fn take_emptied(&mut self) -> Vec<(u32, u32)> {
        let enough = (self.total / DISCARD_SHARE).clamp(1, DISCARD_MOST) as usize;
        if self.discarding > 0 || self.emptied.len() < enough {
            return Vec::new();
        }
        self.emptied.sort_unstable();
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for block in self.emptied.drain(..) {
            self.discarding += 1;
            match ranges.last_mut() {
                Some((first, count)) if *first + *count == block => *count += 1,
                _ => ranges.push((block, 1)),
            }
        }
        ranges
    }

    /// The device was told (or did not care).
    pub fn discarded(&mut self, first: u32, count: u32) {
        self.discarding -= count;
        self.free.extend((first..first + count).rev());
    }

    /// Whether a block is free for what could do without: a new object, which may be refused, or an overwrite, which may
    /// go to the log.
    pub fn has_free(&self) -> bool {
        self.free() > self.reserve()
    }

    /// Blocks that are kept for what gives back another one.
    pub fn reserve(&self) -> u32 {
        (self.total / RESERVE_SHARE).clamp(1, RESERVE_MOST)
    }

    /// Free blocks.
    pub fn free(&self) -> u32 {
        u32::try_from(self.free.len() + self.emptied.len()).expect("at most all")
    }

    /// All blocks.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Whether some will be free soon.
    pub fn is_cooling(&self) -> bool {
        !self.cooling.is_empty() || self.discarding > 0
    }

    /// A record in `page` superseded the block; that is in the log and durable. Page 0: no record ever named it.
    /// `emptied`: its object has no data any more.
    pub fn cool(&mut self, page: Sequence, block: u32, emptied: bool) {
        self.cooling.push_back((page, block, emptied));
    }

    /// A page in the log says that data up to `done_upto` are durable. True if a block became free.
    pub fn release(&mut self, done_upto: Sequence) -> bool {
        let before = self.free();
        for _ in 0..self.cooling.len() {
            let Some(entry) = self.cooling.pop_front() else { break };
            let (page, block, emptied) = entry;
            if page > done_upto {
                self.cooling.push_front(entry);
                break;
            }
            if self.pins[block as usize] == 0 || planted(Bug::StoreFreeInUse) {
                let refused = !self.refused.is_empty() && self.refused.contains(&block);
                let list = match (refused, emptied) {
                    (true, _) => &mut self.retired,
                    (false, true) => &mut self.emptied,
                    (false, false) => &mut self.free,
                };
                list.push(block);
            } else {
                self.cooling.push_back(entry);
            }
        }
        self.free() > before
    }

    /// Whether reads or writes of it are under way.
    pub fn is_pinned(&self, block: u32) -> bool {
        self.pins[block as usize] > 0
    }

    /// A read or write of the block began.
    pub fn pin(&mut self, block: u32) {
        if block != NO_BLOCK {
            self.pins[block as usize] += 1;
        }
    }

    /// It ended.
    pub fn unpin(&mut self, block: u32) {
        if block != NO_BLOCK {
            self.pins[block as usize] -= 1;
        }
    }

    /// Panics unless every block is owned, free or cooling, once. `leaving` are blocks that records not yet settled
    /// superseded.
    pub fn check(&self, owned: impl Iterator<Item = u32>, leaving: impl Iterator<Item = u32>) {
        let mut met = self.discarding;
        let mut seen = vec![false; self.total as usize];
        let known = self.free.iter().copied().chain(self.cooling.iter().map(|(_, block, _)| *block));
        let known = known.chain(self.emptied.iter().copied());
        let known = known.chain(self.retired.iter().copied());
        for block in known.chain(owned).chain(leaving) {
            assert!(!seen[block as usize], "block {block} has two owners");
            seen[block as usize] = true;
            met += 1;
        }
        assert_eq!(met, self.total, "blocks are lost");
    }
}
