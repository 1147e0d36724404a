//! Writes of lazy pools that were acknowledged and may be lost with the power, until a sync of their group vouches for
//! them.
//!
//! Owns: what is kept of them, which groups owe a sync, and which flushes wait for that. Does not own requests: it says
//! what is to be asked, and is told what came of it.
//!
//! ```text
//!   acknowledged ──▶ kept ──── a sync that began later was answered ────▶ forgotten
//!                    ▲  │
//!     carried out ───┘  └── the group's epoch changed ──▶ replayed
//! ```
//!
//! Invariants: what is kept of a group was acknowledged under the epoch that the client's map has of it, so a sync under
//! that epoch vouches for all of it; a sync begins only while nothing of its group is being replayed. (What is replayed
//! later was acknowledged later than the flush that the sync is for.)

use super::api::OpError;
use super::ops::Op;
use super::part::{Action, Part};
use crate::id::{Epoch, ObjectId, PgId, PoolId};
use crate::map::Layout;
use crate::planted::{Bug, planted};
use crate::slab::Key;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Besides its data, a kept write takes about so much memory; so those without data are bounded, too.
const ENTRY_BYTES: u64 = 256;

/// A write that may have to be replayed.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its number.
    pub number: u64,
    /// Its object.
    pub object: ObjectId,
    /// What it does, unconditionally: it took effect already.
    pub action: Action,
}

impl Entry {
    fn bytes(&self) -> u64 {
        self.action.bytes() + ENTRY_BYTES
    }
}

/// One group.
#[derive(Clone, Debug, Default)]
struct Dirty {
    /// Under which `kept` was acknowledged.
    epoch: Epoch,
    /// In the order of their acknowledgement.
    kept: VecDeque<Entry>,
    /// Writes that are being replayed.
    replaying: usize,
    /// Number of the newest flush that waits for this group.
    wanted: u64,
    /// The oldest such flush.
    owed: u64,
    /// Number of the newest flush that does not wait any more.
    done: u64,
    sync: Option<Sync>,
}

/// A sync under way.
#[derive(Clone, Copy, Debug)]
struct Sync {
    part: Key<Part>,
    flush: u64,
    covers: usize,
}

impl Dirty {
    fn is_clean(&self) -> bool {
        self.kept.is_empty() && self.replaying == 0 && self.sync.is_none()
    }

    fn owes(&self) -> bool {
        self.wanted > self.done
    }

    /// Takes over writes of another group, and the flushes that wait for them.
    fn inherit(&mut self, other: &Dirty) {
        if other.owes() {
            self.owed = if self.owes() { self.owed.min(other.owed) } else { other.owed };
            self.wanted = self.wanted.max(other.wanted);
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Unsynced {
    groups: BTreeMap<PgId, Dirty>,
    bytes: u64,
    last_flush: u64,
    /// Flushes that wait, with their operations.
    waiting: VecDeque<(u64, Key<Op>)>,
    /// Why something acknowledged is lost; the next flush tells.
    lost: Option<OpError>,
}

impl Unsynced {
    /// Bytes kept.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Keeps a write that was acknowledged under the group's present epoch.
    pub fn keep(&mut self, pg: PgId, epoch: Epoch, entry: Entry) {
        let dirty = self.groups.entry(pg).or_default();
        let current = dirty.kept.is_empty() || dirty.epoch == epoch || planted(Bug::SkipReplay);
        assert!(current, "{pg:?}: kept of {:?} and {epoch:?}", dirty.epoch);
        dirty.epoch = epoch;
        self.bytes += entry.bytes();
        dirty.kept.push_back(entry);
    }

    /// The groups' epochs may have changed: takes what is to be replayed, of one group; with it the sync that is void.
    pub fn outdated(
        &mut self,
        epoch_of: impl Fn(PgId) -> Option<Epoch>,
    ) -> Option<(PgId, Vec<Entry>, Option<Key<Part>>)> {
        let old =
            |pg: &PgId, dirty: &Dirty| !dirty.kept.is_empty() && epoch_of(*pg).is_some_and(|now| now != dirty.epoch);
        let (pg, dirty) = self.groups.iter_mut().find(|(pg, dirty)| old(pg, dirty))?;
        let mut entries: Vec<Entry> = dirty.kept.drain(..).collect();
        self.bytes -= entries.iter().map(Entry::bytes).sum::<u64>();
        // Of writes that overlap, the later has the higher number: it began after the earlier had been answered.
        entries.sort_by_key(|entry| entry.number);
        if planted(Bug::ForgetOldestReplay) {
            entries.truncate(entries.len().saturating_sub(1));
        }
        Some((*pg, entries, dirty.sync.take().map(|sync| sync.part)))
    }

    /// Groups are over whose objects belong to those of `layout` now. Takes what is kept of them, in the order in which it
    /// is to be replayed, and the syncs that are void; `replays` names the old and the new group of each write that is
    /// being replayed. Flushes wait for the new groups instead.
    pub fn regroup(
        &mut self,
        is_over: &impl Fn(&PgId) -> bool,
        replays: &[(PgId, PgId)],
        layout: Layout,
    ) -> (Vec<Entry>, Vec<Key<Part>>) {
        let (mut entries, mut syncs) = (Vec::new(), Vec::new());
        let old: Vec<PgId> = self.groups.keys().copied().filter(is_over).collect();
        for pg in old {
            let dirty = self.groups.remove(&pg).expect("listed above");
            let replayed = replays.iter().filter(|(from, _)| *from == pg).map(|(_, to)| *to);
            let heirs: BTreeSet<PgId> =
                dirty.kept.iter().map(|entry| layout.pg(entry.object)).chain(replayed.clone()).collect();
            for heir in heirs {
                self.groups.entry(heir).or_default().inherit(&dirty);
            }
            for heir in replayed {
                self.groups.entry(heir).or_default().replaying += 1;
            }
            syncs.extend(dirty.sync.map(|sync| sync.part));
            self.bytes -= dirty.kept.iter().map(Entry::bytes).sum::<u64>();
            entries.extend(dirty.kept);
        }
        entries.sort_by_key(|entry: &Entry| entry.number);
        (entries, syncs)
    }

    /// A write of the group is to be replayed; it is in memory as long.
    pub fn replay_begins(&mut self, pg: PgId, entry: &Entry) {
        self.bytes += entry.bytes();
        self.groups.entry(pg).or_default().replaying += 1;
    }

    /// It was carried out, or will not be.
    pub fn replay_ends(&mut self, pg: PgId, entry: &Entry) {
        self.bytes -= entry.bytes();
        self.groups.get_mut(&pg).expect("a replay began").replaying -= 1;
    }

    /// Something acknowledged is lost for good.
    pub fn lost(&mut self, error: OpError) {
        self.lost.get_or_insert(error);
    }

    /// Whether some flush waits.
    pub fn is_flushing(&self) -> bool {
        self.groups.values().any(Dirty::owes)
    }

    /// What was acknowledged up to now shall become durable; `op` waits for it.
    pub fn flush(&mut self, op: Option<Key<Op>>) {
        self.last_flush += 1;
        for dirty in self.groups.values_mut().filter(|dirty| !dirty.is_clean()) {
            if !dirty.owes() {
                dirty.owed = self.last_flush;
            }
            dirty.wanted = self.last_flush;
        }
        self.waiting.extend(op.map(|op| (self.last_flush, op)));
    }

    /// A group of which a sync is to be sent now, and some object in it.
    pub fn due(&mut self) -> Option<(PgId, ObjectId)> {
        let settled = |dirty: &Dirty| dirty.replaying == 0 || planted(Bug::SyncDuringReplay);
        let ready = |dirty: &&mut Dirty| dirty.owes() && settled(dirty) && dirty.sync.is_none();
        for (pg, dirty) in &mut self.groups {
            if let Some(dirty) = Some(dirty).filter(ready) {
                match dirty.kept.front() {
                    Some(entry) => return Some((*pg, entry.object)),
                    None => dirty.done = dirty.wanted,
                }
            }
        }
        None
    }

    /// The lowest number that may be replayed in a group.
    pub fn lowest(&self, pg: PgId) -> Option<u64> {
        self.groups.get(&pg)?.kept.iter().map(|entry| entry.number).min()
    }

    /// The group's sync was made.
    pub fn sync_begins(&mut self, pg: PgId, part: Key<Part>) {
        let dirty = self.groups.get_mut(&pg).expect("the group is due");
        dirty.sync = Some(Sync { part, flush: dirty.wanted, covers: dirty.kept.len() });
    }

    /// The group's sync was answered: what it covers is safe; or it was refused for good, and is lost.
    pub fn sync_ends(&mut self, pg: PgId) {
        let dirty = self.groups.get_mut(&pg).expect("a sync was under way");
        let Sync { flush, covers, .. } = dirty.sync.take().expect("a sync was under way");
        let covers = if planted(Bug::SyncCoversLater) { dirty.kept.len() } else { covers };
        self.bytes -= dirty.kept.drain(..covers).map(|entry| entry.bytes()).sum::<u64>();
        (dirty.done, dirty.owed) = (flush, flush + 1);
        if dirty.is_clean() && !dirty.owes() {
            self.groups.remove(&pg);
        }
    }

    /// A flush that waits no more, with its result.
    pub fn next_flushed(&mut self) -> Option<(Key<Op>, Result<(), OpError>)> {
        let (flush, op) = *self.waiting.front()?;
        if self.groups.values().any(|dirty| dirty.owes() && dirty.owed <= flush) {
            return None;
        }
        self.waiting.pop_front();
        Some((op, self.lost.take().map_or(Ok(()), Err)))
    }

    /// Pools are gone, and what was written to them.
    pub fn drop_pools(&mut self, is_gone: impl Fn(PoolId) -> bool) {
        let mut dropped = 0;
        for (_, dirty) in self.groups.iter_mut().filter(|(pg, dirty)| is_gone(pg.pool) && dirty.sync.is_none()) {
            dropped += dirty.kept.drain(..).map(|entry| entry.bytes()).sum::<u64>();
        }
        if dropped > 0 {
            self.bytes -= dropped;
            self.lost(OpError::NoSuchPool);
        }
    }

    /// Panics if an invariant is broken.
    pub fn check(&self, epoch_of: impl Fn(PgId) -> Option<Epoch>) {
        for (pg, dirty) in &self.groups {
            let current = dirty.kept.is_empty() || epoch_of(*pg).is_none_or(|now| now == dirty.epoch);
            assert!(current, "{pg:?}: kept of {:?}", dirty.epoch);
            let asked = !dirty.owes() || dirty.replaying > 0 || dirty.sync.is_some();
            assert!(asked, "{pg:?} owes a sync that nobody asks for");
            assert!(dirty.sync.is_none_or(|sync| sync.covers <= dirty.kept.len()), "{pg:?}: a sync covers too much");
        }
        let kept = self.groups.values().flat_map(|dirty| &dirty.kept).map(Entry::bytes).sum::<u64>();
        assert!(kept <= self.bytes, "{kept} bytes are kept, {} counted", self.bytes);
    }

    /// Writes of a group that are being replayed.
    pub fn replaying(&self) -> usize {
        self.groups.values().map(|dirty| dirty.replaying).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::split::Slice;
    use crate::id::{InodeId, PgNumber};

    fn pg(number: u32) -> PgId {
        PgId { pool: PoolId(1), number: PgNumber(number) }
    }

    fn entry(number: u64) -> Entry {
        let object = ObjectId { pool: PoolId(1), inode: InodeId(1), stripe: number };
        Entry { number, object, action: Action::Zero(Slice { stripe: number, offset: 0, len: 512 }) }
    }

    #[test]
    fn a_flush_waits_for_what_was_dirty_when_it_came() {
        let mut unsynced = Unsynced::default();
        let op = Key::from_u64;
        unsynced.keep(pg(0), Epoch(1), entry(1));
        unsynced.flush(Some(op(1)));
        assert_eq!(unsynced.due().map(|(pg, _)| pg), Some(pg(0)));
        unsynced.sync_begins(pg(0), Key::from_u64(9));
        assert_eq!((unsynced.due(), unsynced.next_flushed()), (None, None));
        // The second flush needs another sync: this one began before the second write.
        unsynced.keep(pg(0), Epoch(1), entry(2));
        unsynced.keep(pg(1), Epoch(1), entry(3));
        unsynced.flush(Some(op(2)));
        unsynced.sync_ends(pg(0));
        assert_eq!(unsynced.next_flushed(), Some((op(1), Ok(()))));
        for _ in 0..2 {
            assert_eq!(unsynced.next_flushed(), None);
            let (due, _) = unsynced.due().expect("both owe one");
            unsynced.sync_begins(due, Key::from_u64(9));
            unsynced.sync_ends(due);
        }
        assert_eq!(unsynced.next_flushed(), Some((op(2), Ok(()))));
        assert_eq!((unsynced.bytes(), unsynced.due()), (0, None));
    }

    #[test]
    fn another_epoch_voids_a_sync_and_a_loss_is_told_once() {
        let mut unsynced = Unsynced::default();
        unsynced.keep(pg(0), Epoch(1), entry(7));
        unsynced.keep(pg(0), Epoch(1), entry(5));
        unsynced.flush(Some(Key::from_u64(1)));
        let due = unsynced.due().expect("dirty").0;
        unsynced.sync_begins(due, Key::from_u64(9));
        assert!(unsynced.outdated(|_| Some(Epoch(1))).is_none());
        let (_, entries, sync) = unsynced.outdated(|_| Some(Epoch(2))).expect("an older epoch");
        assert_eq!(entries.iter().map(|entry| entry.number).collect::<Vec<_>>(), [5, 7]);
        assert_eq!(sync, Some(Key::from_u64(9)));
        entries.iter().for_each(|entry| unsynced.replay_begins(pg(0), entry));
        assert_eq!((unsynced.due(), unsynced.next_flushed()), (None, None));
        entries.iter().for_each(|entry| unsynced.replay_ends(pg(0), entry));
        unsynced.lost(OpError::NoSpace);
        assert_eq!((unsynced.due(), unsynced.bytes()), (None, 0));
        assert_eq!(unsynced.next_flushed(), Some((Key::from_u64(1), Err(OpError::NoSpace))));
        unsynced.flush(Some(Key::from_u64(2)));
        assert_eq!(unsynced.next_flushed(), Some((Key::from_u64(2), Ok(()))));
    }
}
