//! What changed in each copy while the group was degraded: what members that are away miss.
//!
//! Owns, in memory, per copy a chain of spans of versions with the regions that changed in them. Every member keeps it for
//! its own copies, since after the next change of the map any of them may be asked. Does not own the use of it
//! (partial.rs).
//!
//! ```text
//! base --span of epoch 5: regions 0, 7--> version --span of epoch 6: region 3--> newest
//! ```
//! Invariants: a span says, of two versions that the group's primaries gave, that the later one differs from the earlier in
//! these regions at most. That is true for ever and whoever holds them, since a version's content never changes; so
//! nothing here depends on what a store holds. Spans of a copy follow each other without a gap; a gap begins a new chain.
//! A question is answered only for a version at which a span begins: one inside a span may have been withdrawn.

use crate::buf::UNIT;
use crate::id::{CopyId, Version};
use crate::pg::msg::Change;
use crate::planted::{Bug, planted};
use crate::time::{Duration, Time};
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// Regions of a copy: as many as a word has bits.
const REGIONS: u32 = u64::BITS;
/// Fewer units than this are sent whole.
const UNITS_MIN: u32 = 4;
/// Copies of a group that are remembered: some 400 KiB. The others are recovered whole.
const COPIES_MAX: usize = 4096;
/// Epochs that are told apart for one copy; members that have been away for longer get it whole.
const SPANS_MAX: usize = 4;
/// How long it is kept after the group was last seen degraded: by then what comes back has been recovered, or will be
/// recovered whole.
const KEPT: Duration = Duration::secs(3_600);
/// Ranges of one patch: gaps between regions are filled until there are no more.
const RANGES_MAX: usize = 8;

/// Byte ranges of a copy: offset and length.
pub type Ranges = Vec<(u32, u32)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    base: Version,
    newest: Version,
    regions: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Changes {
    /// Bytes of a region: whole units.
    region: u32,
    block_size: u32,
    /// Whether changes are worth remembering: some member is away.
    remembers: bool,
    forget_at: Option<Time>,
    copies: BTreeMap<CopyId, SmallVec<[Span; 1]>>,
    /// The newest epoch for which room was made.
    swept: u64,
}

impl Changes {
    /// Of a pool with this block size.
    pub fn new(block_size: u32) -> Self {
        let region = block_size.div_ceil(REGIONS).next_multiple_of(UNIT);
        Changes { region, block_size, remembers: false, forget_at: None, copies: BTreeMap::new(), swept: 0 }
    }

    /// Whether blocks are large enough to be sent in parts.
    pub fn is_of_use(&self) -> bool {
        self.block_size >= UNITS_MIN * UNIT
    }

    /// A new map: whether some member is away by it. Gives the time at which to call [`Changes::tick`].
    pub fn degraded(&mut self, is_degraded: bool, now: Time) -> Option<Time> {
        self.remembers = is_degraded && self.is_of_use();
        self.forget_at = (!self.remembers && !self.copies.is_empty()).then(|| now + KEPT);
        self.forget_at
    }

    /// Forgets what is not worth its memory any more.
    pub fn tick(&mut self, now: Time) {
        if self.forget_at.is_some_and(|at| at <= now) {
            self.forget_at = None;
            self.copies.clear();
        }
    }

    /// A primary ordered this.
    pub fn ordered(&mut self, copy: CopyId, version: Version, predecessor: Version, change: &Change) {
        if !self.remembers {
            return;
        }
        let bytes = match change {
            Change::Data { offset, data } => *offset..offset.saturating_add(data.len()),
            Change::Zero { offset, len } => *offset..offset.saturating_add(*len),
            Change::Nothing => 0..0,
            Change::Delete => {
                self.copies.remove(&copy);
                return;
            }
        };
        if predecessor.is_none() || !self.has_room(copy, version) {
            return;
        }
        let regions = if planted(Bug::ForgetChange) { 0 } else { self.regions_of(&bytes) };
        add(self.copies.entry(copy).or_default(), Span { base: predecessor, newest: version, regions });
    }

    /// Whether one more copy may be remembered; once an epoch, those go that it did not change.
    fn has_room(&mut self, copy: CopyId, version: Version) -> bool {
        if self.copies.len() < COPIES_MAX || self.copies.contains_key(&copy) {
            return true;
        }
        if self.swept < version.epoch.0 {
            self.swept = version.epoch.0;
            self.copies.retain(|_, spans| spans.last().is_some_and(|span| span.newest.epoch >= version.epoch));
        }
        self.copies.len() < COPIES_MAX
    }

    fn regions_of(&self, bytes: &std::ops::Range<u32>) -> u64 {
        if bytes.is_empty() {
            return 0;
        }
        let (first, last) = (bytes.start / self.region, (bytes.end - 1).min(self.block_size - 1) / self.region);
        let last = if planted(Bug::NoteFirstRegion) { first } else { last };
        (first..=last).fold(0, |regions, region| regions | 1 << region)
    }

    /// Outside of which ranges `version` of a copy equals `since`; `None`: that is not known, or so much that the whole
    /// is better sent.
    pub fn since(&self, copy: CopyId, since: Version, version: Version) -> Option<Ranges> {
        let spans = self.copies.get(&copy).filter(|spans| spans.last().is_some_and(|span| span.newest == version))?;
        let first = spans.iter().position(|span| span.base == since);
        let first = first.or(planted(Bug::PatchAnyBase).then_some(0))?;
        let regions = spans[first..].iter().fold(0, |regions, span| regions | span.regions);
        let ranges = merge(self.ranges_of(regions));
        self.is_worth_it(&ranges).then_some(ranges)
    }

    fn ranges_of(&self, regions: u64) -> Ranges {
        let mut ranges = Ranges::new();
        for region in (0..REGIONS).filter(|region| regions >> region & 1 == 1) {
            let start = region * self.region;
            ranges.push((start, self.region.min(self.block_size - start)));
        }
        ranges
    }

    /// Whether these ranges are better sent than the whole copy: half of it at most, so that they cost less on the way,
    /// and in the log of the member's store.
    pub fn is_worth_it(&self, ranges: &Ranges) -> bool {
        ranges.iter().map(|(_, len)| len).sum::<u32>() <= self.block_size / 2
    }
}

/// Adds a span to a chain.
fn add(spans: &mut SmallVec<[Span; 1]>, next: Span) {
    match spans.last_mut() {
        // A repetition.
        Some(last) if next.newest <= last.newest => {}
        Some(last) if last.newest == next.base && last.newest.epoch == next.newest.epoch => {
            last.newest = next.newest;
            last.regions |= next.regions;
        }
        Some(last) if last.newest == next.base => {
            if spans.len() == SPANS_MAX {
                spans.remove(0);
            }
            spans.push(next);
        }
        _ => {
            if !planted(Bug::IgnoreGap) {
                spans.clear();
            }
            spans.push(next);
        }
    }
}

/// Joins ranges that touch or overlap, and then those with the smallest gaps, until they are few.
pub fn merge(mut ranges: Ranges) -> Ranges {
    ranges.sort_unstable();
    let mut merged = Ranges::new();
    for (offset, len) in ranges {
        match merged.last_mut() {
            Some((start, before)) if offset <= *start + *before => {
                let longest = if planted(Bug::MergeShrinks) { 0 } else { *before };
                *before = longest.max(offset + len - *start);
            }
            _ => merged.push((offset, len)),
        }
    }
    while merged.len() > RANGES_MAX {
        let gap = |at: &usize| merged[*at].0 - (merged[at - 1].0 + merged[at - 1].1);
        let at = (1..merged.len()).min_by_key(gap).expect("more than one");
        let (offset, len) = merged.remove(at);
        merged[at - 1].1 = offset + len - merged[at - 1].0;
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::BufPool;
    use crate::id::{Epoch, InodeId, ObjectId, PoolId, Role};
    use crate::store::Data;

    const BLOCK: u32 = 128 << 10;

    fn copy(stripe: u64) -> CopyId {
        CopyId { object: ObjectId { pool: PoolId(1), inode: InodeId(1), stripe }, role: Role(0) }
    }

    fn version(epoch: u64, seq: u64) -> Version {
        Version { epoch: Epoch(epoch), seq }
    }

    fn data(offset: u32, len: u32) -> Change {
        Change::Data { offset, data: Data::new(BufPool::new().zeroed(len).freeze()) }
    }

    fn degraded() -> Changes {
        let mut changes = Changes::new(BLOCK);
        assert_eq!(changes.degraded(true, Time(0)), None);
        changes
    }

    #[test]
    fn a_member_that_was_away_for_some_epochs_missed_what_changed_in_all_of_them() {
        let mut changes = degraded();
        changes.ordered(copy(1), version(5, 8), version(4, 7), &data(512, 512));
        changes.ordered(copy(1), version(5, 9), version(5, 8), &data(4096, 4096));
        changes.ordered(copy(1), version(6, 10), version(5, 9), &Change::Zero { offset: 40_960, len: 1 });
        changes.ordered(copy(1), version(6, 11), version(6, 10), &Change::Nothing);
        let newest = version(6, 11);
        assert_eq!(changes.since(copy(1), version(4, 7), newest), Some(vec![(0, 8192), (40_960, 4096)]));
        assert_eq!(changes.since(copy(1), version(5, 9), newest), Some(vec![(40_960, 4096)]));
        assert_eq!(changes.since(copy(1), version(4, 6), newest), None, "another base");
        assert_eq!(changes.since(copy(1), version(5, 8), newest), None, "inside a span");
        assert_eq!(changes.since(copy(1), version(4, 7), version(5, 9)), None, "another version");
        assert_eq!(changes.since(copy(2), version(4, 7), newest), None, "another copy");
    }

    #[test]
    fn a_gap_or_a_deletion_begins_a_new_chain() {
        let mut changes = degraded();
        changes.ordered(copy(1), version(5, 8), version(4, 7), &data(0, 512));
        changes.ordered(copy(1), version(5, 9), version(5, 8), &data(0, 512));
        // A repetition says nothing new.
        changes.ordered(copy(1), version(5, 8), version(4, 7), &data(8192, 512));
        assert_eq!(changes.since(copy(1), version(4, 7), version(5, 9)), Some(vec![(0, 4096)]));
        // The version before was withdrawn.
        changes.ordered(copy(1), version(5, 10), version(5, 8), &data(4096, 512));
        assert_eq!(changes.since(copy(1), version(4, 7), version(5, 10)), None);
        assert_eq!(changes.since(copy(1), version(5, 8), version(5, 10)), Some(vec![(4096, 4096)]));
        changes.ordered(copy(1), version(5, 11), version(5, 10), &Change::Delete);
        changes.ordered(copy(1), version(5, 12), version(5, 11), &data(0, 512));
        assert_eq!(changes.since(copy(1), version(5, 8), version(5, 12)), None);
    }

    #[test]
    fn what_is_whole_is_not_remembered_and_what_was_is_forgotten_in_time() {
        let mut changes = degraded();
        changes.ordered(copy(1), version(5, 8), version(4, 7), &data(0, 512));
        let at = changes.degraded(false, Time(10)).expect("to be forgotten");
        changes.ordered(copy(2), version(5, 8), version(4, 7), &data(0, 512));
        assert_eq!(changes.since(copy(2), version(4, 7), version(5, 8)), None);
        changes.tick(Time(at.0 - 1));
        assert!(changes.since(copy(1), version(4, 7), version(5, 8)).is_some());
        changes.tick(at);
        assert_eq!(changes.since(copy(1), version(4, 7), version(5, 8)), None);
    }

    #[test]
    fn memory_is_bounded_and_goes_to_the_newest_epoch() {
        let mut changes = degraded();
        for stripe in 0..COPIES_MAX as u64 + 10 {
            changes.ordered(copy(stripe), version(5, 8), version(4, 7), &data(0, 512));
        }
        assert_eq!(changes.copies.len(), COPIES_MAX);
        changes.ordered(copy(7), version(6, 9), version(5, 8), &data(4096, 512));
        changes.ordered(copy(1 << 40), version(6, 9), version(5, 8), &data(4096, 512));
        assert_eq!(changes.copies.len(), 2);
        assert_eq!(changes.since(copy(7), version(4, 7), version(6, 9)), Some(vec![(0, 8192)]));
        for epoch in 7..20 {
            let seq = epoch + 3;
            changes.ordered(copy(7), version(epoch, seq), version(epoch - 1, seq - 1), &data(0, 512));
        }
        assert_eq!(changes.copies[&copy(7)].len(), SPANS_MAX);
    }

    #[test]
    fn much_is_sent_whole_and_little_in_few_ranges() {
        let mut changes = degraded();
        changes.ordered(copy(1), version(5, 8), version(4, 7), &data(0, BLOCK / 2));
        assert_eq!(changes.since(copy(1), version(4, 7), version(5, 8)), Some(vec![(0, BLOCK / 2)]));
        changes.ordered(copy(1), version(5, 9), version(5, 8), &data(BLOCK - 512, 512));
        assert_eq!(changes.since(copy(1), version(4, 7), version(5, 9)), None);
        let scattered: Ranges = (0..20).map(|at| (at * 10_000, 100 + at * 10)).collect();
        let merged = merge(scattered.clone());
        assert_eq!(merged.len(), RANGES_MAX);
        let covered = |(offset, len): &(u32, u32)| merged.iter().any(|(o, l)| o <= offset && offset + len <= o + l);
        assert!(scattered.iter().all(covered));
        assert_eq!(merge(vec![(8, 4), (0, 8), (10, 1)]), [(0, 12)]);
    }

    #[test]
    fn blocks_of_a_few_units_are_sent_whole_and_large_ones_have_larger_regions() {
        let mut small = Changes::new(2 * UNIT);
        small.degraded(true, Time(0));
        small.ordered(copy(1), version(5, 8), version(4, 7), &data(0, 512));
        assert_eq!(small.since(copy(1), version(4, 7), version(5, 8)), None);
        let mut large = Changes::new(1 << 20);
        large.degraded(true, Time(0));
        large.ordered(copy(1), version(5, 8), version(4, 7), &data((1 << 20) - 512, 512));
        assert_eq!(large.since(copy(1), version(4, 7), version(5, 8)), Some(vec![((1 << 20) - 16_384, 16_384)]));
    }
}
