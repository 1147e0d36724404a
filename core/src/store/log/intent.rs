//! Intents: an overwrite whose record goes to the log first, and whose data then go straight into the object's block.
//!
//! ```text
//! Intent logged -> in the log -> data written in place -> durable: acknowledged
//! ```
//!
//! Two latencies, but one device write of data; so it is for a busy device. Invariants, each of which opening relies on:
//! only on top of a committed version, with nothing prepared; at most one undone data write of an object; no overlay, no
//! read and no write in flight on the units; and the whole write within the atomic unit of the device, so that after a
//! crash the block holds what was there before, or all of it.

use super::index::ObjectIndex;
use super::ops::{DataStage, Op};
use super::record::{Body, NO_BLOCK};
use super::running::{Io, Running, VOUCHER_DELAY};
use crate::buf::UNIT;
use crate::io::Env;
use crate::planted::{Bug, planted};
use crate::slab::Key;
use crate::store::Mode;
use crate::time::{Duration, Time};
use smallvec::SmallVec;

/// Operations under way from which on the device counts as busy: below, two writes one after the other cost more latency
/// than the second copy of the data costs throughput.
const BUSY_OPERATIONS: usize = 8;
/// Of the operations that were under way, one in so many is forgotten in each round.
const FORGET_SHARE: usize = 8;
/// Intents that make a page worth its 4 KiB: with 16, the log adds 256 bytes to each 4 KiB.
const PAGE_INTENTS: u32 = 16;
/// How long a page waits for them at most: about the latency of one device write.
const PAGE_HOLD: Duration = Duration::micros(50);

/// How overwrites of a part of an object go to the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Way {
    /// In place while the device is busy and promises atomicity, in the log otherwise.
    #[default]
    Auto,
    /// The whole object to another block.
    Redirect,
    /// In the log, and later into the block.
    Inline,
    /// In place wherever that is safe.
    Intent,
}

/// What decides how overwrites go to the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Overwrites {
    /// The way; all but `Auto` are for tests and measurements.
    pub way: Way,
    /// Bytes that the data device writes wholly or not at all, whatever happens, if they lie on a multiple of their
    /// number: a power of two. 0 if it promises nothing.
    pub atomic_bytes: u32,
}

/// How many writes of data went which way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ways {
    /// To a block of their own.
    pub redirects: u64,
    /// In the log.
    pub inlines: u64,
    /// In place.
    pub intents: u64,
}

impl Ways {
    /// Counts a record.
    pub fn count(&mut self, body: &Body) {
        match body {
            Body::Put { block, .. } if *block != NO_BLOCK => self.redirects += 1,
            Body::Inline { units, .. } | Body::Patch { units, .. } if !units.is_empty() => self.inlines += 1,
            Body::Intent { .. } => self.intents += 1,
            _ => {}
        }
    }
}

/// When the page under construction is to be sent at the latest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hold {
    until: Option<Time>,
}

impl Hold {
    /// When it is over.
    pub fn deadline(&self) -> Option<Time> {
        self.until
    }
}

/// A write that may become an intent.
pub struct Candidate {
    /// Whether it is committed at once.
    pub mode: Mode,
    /// Byte offset in the object.
    pub offset: u32,
    /// Bytes.
    pub len: u32,
}

impl Running {
    /// Whether a write may, and shall, go in place.
    pub(super) fn takes_intent(&self, place: ObjectIndex, write: &Candidate) -> bool {
        let wanted = match self.overwrites.way {
            Way::Auto => self.depth.max(self.operations()) >= BUSY_OPERATIONS,
            Way::Intent => true,
            Way::Redirect | Way::Inline => false,
        };
        wanted && self.completion_is_durable() && self.is_safe_in_place(place, write)
    }

    /// Operations that were asked for and are under way.
    fn operations(&self) -> usize {
        self.ops.len() - self.snapshots
    }

    /// Notes how busy the device is. Clients that wait for each other's answers leave it idle for moments only.
    pub(super) fn note_depth(&mut self) {
        self.depth = self.operations().max(self.depth - self.depth.div_ceil(FORGET_SHARE));
    }

    fn completion_is_durable(&self) -> bool {
        self.data_flush.is_durable_at_once() && self.log_flush.as_ref().is_none_or(|log| log.is_durable_at_once())
    }

    fn is_safe_in_place(&self, place: ObjectIndex, write: &Candidate) -> bool {
        let object = self.objects.at(place);
        let Some(state) = &object.versions.committed else { return false };
        let clean = object.versions.prepared.is_none() && write.mode == Mode::Plain && !state.damaged;
        let aligned = write.len > 0 && write.offset.is_multiple_of(UNIT) && write.len.is_multiple_of(UNIT);
        if !clean || !aligned || state.block == NO_BLOCK || !self.is_atomic(state.block, write) {
            return false;
        }
        let units = (write.offset / UNIT) as usize..((write.offset + write.len) / UNIT) as usize;
        let overlaid = units.clone().any(|unit| state.overlay(unit).is_some());
        if overlaid && !planted(Bug::StoreIntentOverOverlay) {
            return false;
        }
        let active = self.actives.get(object.active).expect("has an operation");
        let busy = match () {
            () if planted(Bug::StoreTwoUndone) => active.compaction.is_some() || active.moving,
            () if planted(Bug::StoreIntentOverCompaction) || planted(Bug::StoreIntentOverOverlay) => {
                active.undone || active.moving
            }
            () => active.is_block_busy(),
        };
        !busy && self.may_be_undone() && (!self.is_read(state.block, units) || planted(Bug::StoreIntentUnderRead))
    }

    /// Whether the device writes it wholly or not at all.
    fn is_atomic(&self, block: u32, write: &Candidate) -> bool {
        let first = (write.offset / UNIT) as usize;
        let place = self.superblock.data_place(block, first);
        let fits = write.len <= self.overwrites.atomic_bytes || planted(Bug::StoreIntentTorn);
        fits && write.len.is_power_of_two() && place.is_multiple_of(u64::from(write.len))
    }

    /// Whether a read that was captured finds one of the units in the block.
    fn is_read(&self, block: u32, units: std::ops::Range<usize>) -> bool {
        if !self.blocks.is_pinned(block) {
            return false;
        }
        let mut mask: SmallVec<[u64; 4]> = SmallVec::from_elem(0, units.end.div_ceil(64));
        units.for_each(|unit| mask[unit / 64] |= 1 << (unit % 64));
        self.reads.iter().any(|(_, read)| read.conflicts(block, &mask))
    }

    /// The record of an operation is in the log: data that waited for it go out.
    pub(super) fn record_in_log(&mut self, env: &mut Env<'_>, key: Key<Op>) {
        if self.ops.get(key).is_some_and(|op| op.data == DataStage::Waiting) {
            self.send_in_place(env, key);
        }
    }

    /// Writes the data of an intent.
    pub(super) fn send_in_place(&mut self, env: &mut Env<'_>, key: Key<Op>) {
        let op = self.ops.get_mut(key).expect("its record was written");
        op.data = DataStage::Writing;
        let (unit, buf) = op.body.clone().expect("kept until its write completes");
        let (block, bytes) = (op.block, u64::from(buf.len()));
        self.write_block(env, block, unit, buf, Io::Data(key, bytes));
    }

    /// Whether the page under construction waits for more, while nobody waits for more than the page.
    pub(super) fn holds_page(&mut self, now: Time, pressed: bool) -> bool {
        let Some(wait) = self.page_wait().filter(|_| !pressed) else {
            self.hold.until = None;
            return false;
        };
        let until = self.hold.until.map_or(now + wait, |until| until.min(now + wait));
        self.hold.until = Some(until).filter(|until| *until > now);
        until > now
    }

    /// How long the page under construction may wait. Intents wait for others only while the device has other data to
    /// write; what nobody asked for shares the page of the next who asks, and does not keep him waiting for its own.
    fn page_wait(&self) -> Option<Duration> {
        if self.journal.is_unasked() {
            return Some(VOUCHER_DELAY);
        }
        let intents = self.journal.only_intents()?;
        (intents < PAGE_INTENTS && self.undone > intents).then_some(PAGE_HOLD)
    }
}
