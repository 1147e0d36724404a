//! Room of the log: who may use how much of it, so that a full store can always delete, commit, roll back and clean.
//!
//! Cleaning the oldest segment takes what lives in it once more, and gives back all of it.
//!
//! ```text
//! need  = most that cleaning the next segments takes before it gave back more      (Journal::cleaning_need)
//! spare = room - need       cleaning never makes it smaller, and what it finds to be garbage makes it larger
//! sure  = total - all snapshots, packed as badly as they may be - one segment
//!                           what `spare` is, at least, after a time around the ring
//! ```
//!
//! Invariants: what makes snapshots larger is carried out only while `sure` leaves the share of what ends something; so an
//! operation that ends something waits at most until the cleaner was around once, and the cleaner itself never waits.

use super::index::{LARGE_SHARE, OVERLAY_BYTES, ObjectIndex};
use super::running::Running;
use crate::buf::UNIT;
use crate::planted::{Bug, planted};
use crate::store::{Content, Mode, StoreOp};

/// Bytes of a `Void` record.
pub(super) const VOID_BYTES: u32 = 48;
/// A record besides its data: labels, requests, checksums of the largest object.
pub(super) const RECORD_BYTES: usize = 4 << 10;
/// What is left to be gained by cleaning when it may end, as a part of a segment: less is not worth going around for.
const GAIN_SHARE: u64 = 4;
/// Of the log, how much the snapshots of all objects may take before creating objects is refused: at most so many percent,
/// and so many sixteenths of what leaves room for data.
const NEW: (u64, u64) = (40, 14);
/// And before marks of deletions are.
const TOMBSTONES: (u64, u64) = (60, 15);
/// Share of the log that overlays of prepared versions take before the next ones get blocks: only their primary ends them, it
/// may be long in coming to it, and until then nothing else makes room.
const PREPARED_SHARE: u64 = 8;

/// Who may use how much of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    /// Clients' data leave room for everything else.
    Data,
    /// A prepared deletion takes room until its end: it leaves room for that.
    Marking,
    /// What ends something leaves room for the cleaner.
    Ending,
    /// The cleaner leaves room for the next opening.
    Cleaning,
}

impl Running {
    fn segment_bytes(&self) -> u64 {
        u64::from(self.superblock.segment_size)
    }

    /// Room besides what cleaning may need.
    pub(super) fn spare_room(&self) -> u64 {
        self.journal.room().saturating_sub(self.journal.cleaning_need())
    }

    /// Less than this is not worth cleaning for.
    fn gain(&self) -> u64 {
        self.segment_bytes() / GAIN_SHARE + self.journal.cleaning_waste()
    }

    /// What [`Running::spare_room`] is after a turn of cleaning, at least.
    pub(super) fn sure_room(&self) -> u64 {
        let segment = self.segment_bytes();
        let packed = self.snapshot_bytes * segment / (segment - self.journal.cleaning_waste());
        self.journal.total_bytes().saturating_sub(packed + segment + self.gain())
    }

    /// What is kept from operations that end something.
    pub(super) fn ending_share(&self) -> u64 {
        self.segment_bytes() / 2
    }

    /// Whether a record of so many bytes may be written now.
    pub(super) fn admits(&self, bytes: usize, class: Class) -> bool {
        let wanted = bytes as u64 + u64::from(UNIT);
        let (lasts, kept) = match class {
            Class::Data => (true, self.segment_bytes()),
            Class::Marking => (true, self.ending_share()),
            Class::Ending => (false, self.ending_share()),
            Class::Cleaning => {
                let kept = u64::from(UNIT) + u64::from(self.undone) * u64::from(VOID_BYTES);
                return self.journal.room() >= wanted + kept && self.journal.fits(bytes);
            }
        };
        if planted(Bug::StoreFillsUp) && class == Class::Data {
            return self.journal.room() >= wanted + u64::from(UNIT) && self.journal.fits(bytes);
        }
        let there = self.spare_room() >= wanted + kept && (!lasts || self.sure_room() >= wanted + kept);
        there && self.journal.fits(bytes)
    }

    /// Most bytes of snapshots with which data find room, once all are cleaned.
    fn snapshots_most(&self) -> u64 {
        let (segment, waste) = (self.segment_bytes(), self.journal.cleaning_waste());
        let besides = 2 * segment + self.gain() + u64::from(self.superblock.page_max() + UNIT);
        self.journal.total_bytes().saturating_sub(besides) * (segment - waste) / segment
    }

    /// Whether there is no room for a copy that is not there yet. Marks of deletions are taken longer than others: without
    /// them, what is deleted might come back.
    pub(super) fn refuses_new(&self, place: ObjectIndex, request: &StoreOp) -> bool {
        let limit = match request {
            StoreOp::Tombstone { .. } | StoreOp::Replace { content: Content::Tombstone, .. } => TOMBSTONES,
            _ => NEW,
        };
        self.snapshots_exceed(place, limit)
    }

    /// Whether there is no room for the snapshots of more copies with data.
    pub(super) fn snapshots_full(&self, place: ObjectIndex) -> bool {
        self.snapshots_exceed(place, NEW)
    }

    /// Whether the snapshots of all other objects take more of the log, for good: what is prepared now will be committed.
    fn snapshots_exceed(&self, place: ObjectIndex, (percent, sixteenths): (u64, u64)) -> bool {
        let object = self.objects.at(place);
        let others = self.snapshot_bytes - object.snapshot_bytes;
        let passing = self.prepared_overlays - object.prepared_overlays;
        let passing = passing * (OVERLAY_BYTES + OVERLAY_BYTES / LARGE_SHARE);
        let most = self.journal.total_bytes() * percent / 100;
        others - passing > most.min(self.snapshots_most() * sixteenths / 16)
    }

    /// Whether the log carries enough data of prepared versions.
    pub(super) fn prepared_full(&self) -> bool {
        self.prepared_overlays * OVERLAY_BYTES * PREPARED_SHARE > self.journal.total_bytes()
    }
}

/// Who asks for room with a deletion.
pub(super) fn class_of(request: &StoreOp) -> Class {
    match request {
        StoreOp::Tombstone { mode: Mode::Prepare, .. } | StoreOp::Replace { mode: Mode::Prepare, .. } => Class::Marking,
        _ => Class::Ending,
    }
}
