//! What an OSD holds of pools that were removed: the groups end at once, the copies go page by page.
//!
//! Owns when the next page comes. Does not own which pools are gone (`config/former_pools` says so, for ever): an OSD that
//! was away while a pool went drops its copies when it is back, and one that is stopped meanwhile goes on at its next start.
//! Invariant: nothing is dropped of a pool that `config/pools` still names.

use super::Osd;
use crate::id::CopyId;
use crate::io::Env;
use crate::map::cluster::Changes;
use crate::map::parse::Key;
use crate::store::{ObjectStore, StoreState};
use crate::time::{Duration, Time};

/// Copies dropped at a time, and until the next: some thousands in a second, beside which clients go on.
const PAGE: usize = 64;
/// See [`PAGE`].
const PAUSE: Duration = Duration::millis(10);
/// Beyond so many operations that wait for the store, it has enough to do.
const QUEUE: usize = 256;
/// Until another try, if nothing came of the last one.
const LONG_PAUSE: Duration = Duration::secs(1);

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sweep {
    /// When the next page is due; `None`: nothing is left.
    due: Option<Time>,
    /// The first copy of the last page.
    last: Option<CopyId>,
}

impl<S: ObjectStore> Osd<S> {
    /// Pools were removed, perhaps.
    pub(super) fn pools_removed(&mut self, env: &mut Env<'_>, changes: &Changes) {
        if changes.keys.iter().any(|key| matches!(key, Key::FormerPools | Key::Pools)) {
            self.end_removed_pools(env);
        }
    }

    /// Ends what there is of pools that were removed.
    pub(super) fn end_removed_pools(&mut self, env: &mut Env<'_>) {
        for pool in self.map.removed_pools().collect::<Vec<_>>() {
            let ended = self.groups.end_pool(env, pool);
            self.withdraw(&ended);
            self.by_image.retain(|(of, _), _| *of != pool);
            self.by_pool.remove(&pool);
            self.sweep.due = Some(env.now);
        }
    }

    /// When the next page is due.
    pub(super) fn sweep_deadline(&self) -> Option<Time> {
        self.sweep.due
    }

    /// Drops a page of copies.
    pub(super) fn sweep_if_due(&mut self, env: &mut Env<'_>) {
        // A store that lost metadata changes nothing any more.
        let able = self.groups.store().state() == StoreState::Open { trusted: true };
        if self.sweep.due.is_none_or(|due| due > env.now) {
            return;
        }
        let mut copies = Vec::new();
        for pool in self.map.removed_pools().filter(|_| able) {
            copies.extend(self.groups.copies_of(pool, PAGE - copies.len().min(PAGE)));
        }
        let Some(first) = copies.first().map(|info| info.copy) else {
            self.sweep = Sweep::default();
            return;
        };
        let stuck = self.sweep.last == Some(first) || self.groups.store_queue() > QUEUE;
        if self.groups.store_queue() <= QUEUE {
            copies.iter().for_each(|info| self.groups.drop_copy(env, info));
        }
        self.sweep = Sweep { due: Some(env.now + if stuck { LONG_PAUSE } else { PAUSE }), last: Some(first) };
    }
}
