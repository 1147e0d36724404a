//! Which blocks are free.
//!
//! A block goes `free -> owned -> cooling -> free`. It cools from when the record that superseded it is in the log and
//! its data are durable, until a page in the log says so (`done_upto`) and nobody reads or writes it any more: until
//! then opening could still choose the state that owns it. One that the device refuses to write is retired instead, until
//! the store is opened again: the medium may have replaced its bad sectors by then, and if not it is found out anew.
//! Free blocks are discarded in time ([`super::discard`]); nobody gets one while that is under way.

use super::discard::{Discarding, Discards};
use super::page::Sequence;
use super::record::NO_BLOCK;
use crate::planted::{Bug, planted};
use crate::time::Time;
use std::collections::VecDeque;

/// Of the blocks, the share that new objects leave free, and the most: as many copies as are replaced at a time.
const RESERVE_SHARE: u32 = 32;
const RESERVE_MOST: u32 = 64;

/// The free blocks, and those that will be.
#[derive(Clone, Debug, Default)]
pub struct Blocks {
    total: u32,
    /// The next one to be used last; those that are being discarded among them.
    free: Vec<u32>,
    /// Free ones whose turn it was while they were being discarded.
    aside: Vec<u32>,
    /// `None`: the device is told nothing.
    discards: Option<Discards>,
    /// Blocks with the page of the record that superseded them.
    cooling: VecDeque<(Sequence, u32)>,
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

    /// From now on the device is told of free blocks of so many bytes.
    pub fn begin_discards(&mut self, eagerness: Discarding, block_bytes: u32) {
        self.discards = Some(Discards::new(eagerness, self.total, block_bytes, self.free.iter().copied()));
    }

    /// The device does not want to know. Nothing is under way.
    pub fn end_discards(&mut self) {
        self.discards = None;
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
        loop {
            let block = self.free.pop()?;
            let Some(discards) = &mut self.discards else { return Some(block) };
            if !discards.holds(block) || planted(Bug::StoreDiscardInUse) {
                discards.taken(block);
                return Some(block);
            }
            self.aside.push(block);
        }
    }

    /// Blocks that the device is to be told of now: the first one and their number. They are not to be had until
    /// [`Blocks::discarded`]. What new objects leave free, twice, is not touched: a full store has no time for it.
    pub fn next_discard(&mut self, now: Time) -> Option<(u32, u32)> {
        let most = self.free().saturating_sub(2 * self.reserve());
        self.discards.as_mut()?.next(now, most)
    }

    /// The device answered.
    pub fn discarded(&mut self, now: Time) {
        if let Some(discards) = &mut self.discards {
            discards.end(now);
        }
        self.free.append(&mut self.aside);
    }

    /// When the next blocks may be discarded.
    pub fn discard_deadline(&self) -> Option<Time> {
        self.discards.as_ref()?.deadline()
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

    /// Free blocks, those that are being discarded not among them.
    pub fn free(&self) -> u32 {
        let all = u32::try_from(self.free.len() + self.aside.len()).expect("at most all");
        // Less only if somebody got what is being discarded, by a planted mistake.
        all.saturating_sub(self.discarding())
    }

    /// Free blocks that are being discarded.
    pub fn discarding(&self) -> u32 {
        self.discards.as_ref().map_or(0, Discards::under_way)
    }

    /// All blocks.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Whether some will be free soon.
    pub fn is_cooling(&self) -> bool {
        !self.cooling.is_empty() || self.discarding() > 0
    }

    /// A record in `page` superseded the block; that is in the log and durable. Page 0: no record ever named it.
    pub fn cool(&mut self, page: Sequence, block: u32) {
        self.cooling.push_back((page, block));
    }

    /// A page in the log says that data up to `done_upto` are durable. True if a block became free.
    pub fn release(&mut self, done_upto: Sequence) -> bool {
        let before = self.free();
        for _ in 0..self.cooling.len() {
            let Some(entry) = self.cooling.pop_front() else { break };
            let (page, block) = entry;
            if page > done_upto {
                self.cooling.push_front(entry);
                break;
            }
            if self.pins[block as usize] == 0 || planted(Bug::StoreFreeInUse) {
                if self.refused.contains(&block) {
                    self.retired.push(block);
                    continue;
                }
                self.free.push(block);
                if let Some(discards) = &mut self.discards {
                    discards.freed(block);
                }
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
        let mut met = 0;
        let mut seen = vec![false; self.total as usize];
        let known = self.free.iter().copied().chain(self.cooling.iter().map(|(_, block)| *block));
        let known = known.chain(self.aside.iter().copied());
        let known = known.chain(self.retired.iter().copied());
        for block in known.chain(owned).chain(leaving) {
            assert!(!seen[block as usize], "block {block} has two owners");
            seen[block as usize] = true;
            met += 1;
        }
        assert_eq!(met, self.total, "blocks are lost");
        if let Some(discards) = &self.discards {
            let mut free = vec![false; self.total as usize];
            self.free.iter().chain(&self.aside).for_each(|block| free[*block as usize] = true);
            discards.check(|block| free[block as usize]);
        }
    }
}
