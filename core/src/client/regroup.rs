//! A pool's objects belong to other groups from now on: whatever is under way goes there.
//!
//! Owns the move of parts, numbers and unsynced writes from old groups to new ones. Does not own what happens to them
//! afterwards: it is what follows any new epoch (`requests`, `replay`).
//!
//! Invariant: before anything is sent to a new group, all writes to its objects that are unanswered, or acknowledged and
//! to be replayed, count as unanswered there.

use super::part::{Owner, Part, State};
use super::requests::Requests;
use crate::id::{PgId, PoolId};
use crate::io::Env;
use crate::map::Layout;
use crate::planted::{Bug, planted};
use crate::slab::Key;
use std::collections::BTreeSet;

impl Requests {
    /// Takes over the layouts that are new in the map.
    pub(super) fn regroup(&mut self, env: &mut Env<'_>) {
        for pool in self.map.take_relaid() {
            if let Some(layout) = self.map.pool(pool).map(|info| info.layout) {
                self.regroup_pool(env, pool, layout);
            }
        }
    }

    fn regroup_pool(&mut self, env: &mut Env<'_>, pool: PoolId, layout: Layout) {
        let is_over = |pg: &PgId| pg.pool == pool && !layout.contains(pg.number);
        let replays: Vec<(PgId, PgId)> = self
            .parts
            .iter()
            .filter(|(_, part)| part.owner == Owner::Replay && is_over(&part.pg))
            .map(|(_, part)| (part.pg, layout.pg(part.object)))
            .collect();
        let (entries, syncs) = self.unsynced.regroup(&is_over, &replays, layout);
        for sync in syncs {
            self.unqueue(sync);
            self.parts.remove(sync);
        }
        self.move_parts(&is_over, layout);
        // Of writes that overlap, the later has the higher number.
        let first: Vec<Key<Part>> =
            entries.into_iter().filter_map(|entry| self.replay(layout.pg(entry.object), entry)).collect();
        for key in first {
            self.dispatch(env, key);
        }
    }

    /// What waits keeps its order; what was sent stays sent until an answer comes, or another OSD turns out to be primary.
    fn move_parts(&mut self, is_over: &impl Fn(&PgId) -> bool, layout: Layout) {
        let old: BTreeSet<PgId> = self.groups.keys().copied().filter(is_over).collect();
        let mut waiting: Vec<Key<Part>> = Vec::new();
        for pg in &old {
            let group = self.groups.remove(pg).expect("listed above");
            waiting.extend(group.waiting);
        }
        for key in self.parts.keys() {
            let part = self.part(key);
            if !is_over(&part.pg) {
                continue;
            }
            part.pg = layout.pg(part.object);
            let (pg, number, is_write) = (part.pg, part.number, part.is_write());
            if is_write && !planted(Bug::ClaimFormerAnswers) {
                self.groups.entry(pg).or_default().unanswered.insert(number, ());
            }
        }
        for key in waiting {
            let part = self.part(key);
            debug_assert_eq!(part.state, State::Waiting);
            let pg = part.pg;
            self.groups.entry(pg).or_default().waiting.push_back(key);
        }
    }
}
