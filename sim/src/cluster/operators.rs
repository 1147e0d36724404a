//! What administrators change while everything runs: the number of the pool's groups.
//!
//! Owns which groups there are, as far as any node has heard, and the check that a group of a layout that is over answers
//! no read. Does not own when somebody changes something: scenarios do.

use super::{Cluster, POOL};
use ashlar_core::id::{ObjectId, PgId};
use ashlar_core::map::{Layout, PREFIX, PoolLayout, keys};
use std::collections::BTreeMap;

/// By object: the generation of the newest group of it that was served.
#[derive(Clone, Debug, Default)]
pub(super) struct Generations {
    served: BTreeMap<ObjectId, u16>,
}

impl Generations {
    /// A group is served.
    pub(super) fn activated(&mut self, pg: PgId, objects: impl Iterator<Item = ObjectId>) {
        for object in objects {
            let newest = self.served.entry(object).or_default();
            *newest = (*newest).max(pg.number.generation());
        }
    }

    /// A group's primary answers a read.
    pub(super) fn answers_read(&self, node: u32, pg: PgId, object: ObjectId) -> Result<(), String> {
        match self.served.get(&object) {
            Some(newest) if *newest > pg.number.generation() => Err(format!(
                "node {node} answers a read of {object:?} in {pg:?}, after a group of layout {newest} was served"
            )),
            _ => Ok(()),
        }
    }
}

impl Cluster {
    /// Changes how many groups the pool should have.
    pub fn set_pg_count(&mut self, pg_count: u32) {
        self.change_pool(|pool| pool.pg_count = pg_count);
        self.groups_wanted = pg_count;
        self.world.note(|| format!("{pg_count} groups are wanted"));
    }

    /// The newest layout that any node has heard of.
    pub(super) fn layout(&self) -> Layout {
        let first = PoolLayout::first(self.config.pg_count);
        self.layouts().max_by_key(|layout| layout.now.generation).unwrap_or(first).now
    }

    fn layouts(&self) -> impl Iterator<Item = PoolLayout> {
        let nodes = self.osds.iter().chain(&self.mons).filter_map(|node| self.world.node(*node));
        nodes.filter_map(|process| match process.osd() {
            Some(osd) => osd.map().layout(POOL),
            None => process.mon()?.map().layout(POOL),
        })
    }

    /// A layout that some node still knows.
    pub(super) fn layout_of(&self, generation: u16) -> Option<Layout> {
        let known = self.layouts().flat_map(|layout| [Some(layout.now), layout.before]).flatten();
        let first = PoolLayout::first(self.config.pg_count).now;
        known.chain([first]).find(|layout| layout.generation == generation)
    }

    /// The groups that there are.
    pub fn groups(&self) -> Vec<PgId> {
        self.layout().numbers().map(|number| PgId { pool: POOL, number }).collect()
    }

    /// Whether the pool has as many groups as are wanted, and nothing is left of others.
    pub fn is_regrouped(&mut self) -> bool {
        let stored = self.world.meta_read(&keys::layout(POOL));
        let Some((_, value)) = stored.first() else { return false };
        let layout: PoolLayout = serde_json::from_slice(value).expect("its own form");
        let settled = layout.before.is_none() && layout.now.pg_count == self.groups_wanted;
        let histories = if layout.now.generation == 0 { 0 } else { self.histories() };
        settled && self.layout() == layout.now && histories <= layout.now.pg_count as usize
    }

    fn histories(&mut self) -> usize {
        self.world.meta_read(&format!("{PREFIX}pg/history/")).len()
    }
}
