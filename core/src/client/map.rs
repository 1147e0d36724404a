//! The client's copy of the cluster map: pools, groups and addresses, nothing else.
//!
//! Invariants: what is known is forgotten only for what is newer than all that was heard; a group's epoch never goes
//! back, nor does a pool's layout; no group of a layout that is over is kept.

use crate::id::{LinkId, OsdId, PgId, PoolId, Revision};
use crate::msg::{MapUpdate, OsdInfo, PgInfo, PoolInfo};
use std::collections::BTreeMap;

/// What a client knows of the cluster.
#[derive(Clone, Debug, Default)]
pub struct ClientMap {
    revision: Revision,
    /// The highest that any server named.
    newest: Revision,
    /// The connection of the last update.
    source: Option<LinkId>,
    pools: BTreeMap<PoolId, PoolInfo>,
    pgs: BTreeMap<PgId, PgInfo>,
    osds: BTreeMap<OsdId, String>,
    /// Pools whose layout is another one.
    relaid: Vec<PoolId>,
}

impl ClientMap {
    /// Complete up to this revision; 0: nothing is known.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// A pool.
    pub fn pool(&self, pool: PoolId) -> Option<&PoolInfo> {
        self.pools.get(&pool)
    }

    /// A group.
    pub fn pg(&self, pg: PgId) -> Option<&PgInfo> {
        self.pgs.get(&pg)
    }

    /// Where an OSD listens, if it is up.
    pub fn address(&self, osd: OsdId) -> Option<&str> {
        self.osds.get(&osd).map(String::as_str).filter(|address| !address.is_empty())
    }

    /// Address number `index` among those of the OSDs that are up.
    pub fn nth_address(&self, index: usize) -> Option<&str> {
        self.osds.values().map(String::as_str).filter(|address| !address.is_empty()).nth(index)
    }

    /// Number of OSDs that are up.
    pub fn addresses(&self) -> usize {
        self.osds.values().filter(|address| !address.is_empty()).count()
    }

    /// Takes an update over; a group's map of a lower epoch changes nothing. True if anything was new.
    ///
    /// Revisions do not order updates: a server names the one up to which it knows *everything*, and sends newer changes
    /// under it. A server that lags behind the previous one is caught up with by its own changes.
    /// What such a server does not list is not forgotten, however often it says so: it may not have heard of it yet. Nor
    /// is what another server of the same revision does not list: it was news after that revision.
    pub fn apply(&mut self, update: MapUpdate, from: Option<LinkId>) -> bool {
        let same_server = self.source == from;
        self.source = from;
        if update.full && (update.revision > self.newest || same_server && update.revision == self.newest) {
            self.forget_unlisted(&update);
        }
        self.revision = update.revision;
        self.newest = self.newest.max(update.revision);
        let mut changed = update.full;
        for pool in update.pools {
            changed |= self.apply_pool(pool);
        }
        for OsdInfo { id, address } in update.osds {
            changed |= self.osds.get(&id) != Some(&address);
            self.osds.insert(id, address);
        }
        for info in update.pgs {
            changed |= self.apply_pg(info);
        }
        changed
    }

    /// Pools whose objects belong to other groups than at the last call.
    pub fn take_relaid(&mut self) -> Vec<PoolId> {
        std::mem::take(&mut self.relaid)
    }

    fn apply_pool(&mut self, mut pool: PoolInfo) -> bool {
        if let Some(known) = self.pools.get(&pool.id) {
            if known.layout.generation > pool.layout.generation {
                pool.layout = known.layout;
            }
            if known.layout != pool.layout {
                self.relaid.push(pool.id);
                let (id, layout) = (pool.id, pool.layout);
                self.pgs.retain(|pg, _| pg.pool != id || pg.number.generation() >= layout.generation);
            }
        }
        self.pools.insert(pool.id, pool.clone()) != Some(pool)
    }

    /// The generation of a pool's groups that counts.
    fn generation(&self, pool: PoolId) -> u16 {
        self.pools.get(&pool).map_or(0, |pool| pool.layout.generation)
    }

    fn apply_pg(&mut self, info: PgInfo) -> bool {
        let known = self.pgs.get(&info.pg);
        let newer = known.is_none_or(|known| info.epoch >= known.epoch && *known != info)
            && info.pg.number.generation() >= self.generation(info.pg.pool);
        if newer {
            self.pgs.insert(info.pg, info);
        }
        newer
    }

    fn forget_unlisted(&mut self, update: &MapUpdate) {
        let listed: BTreeMap<PoolId, u16> = update.pools.iter().map(|pool| (pool.id, pool.layout.generation)).collect();
        self.pools.retain(|pool, _| listed.contains_key(pool));
        self.osds.clear();
        // Who does not know of the present layout yet cannot list its groups.
        let lags = |pool: PoolId| listed.get(&pool).is_some_and(|generation| *generation < self.generation(pool));
        let lagging: Vec<PoolId> = self.pools.keys().copied().filter(|pool| lags(*pool)).collect();
        let listed: BTreeMap<PgId, ()> = update.pgs.iter().map(|info| (info.pg, ())).collect();
        self.pgs.retain(|pg, _| listed.contains_key(pg) || lagging.contains(&pg.pool));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, PgNumber};
    use crate::map::Layout;

    const SERVER: Option<LinkId> = Some(LinkId(1));

    fn pg(number: u32, epoch: u64, primary: u32) -> PgInfo {
        let pg = PgId { pool: PoolId(1), number: PgNumber(number) };
        PgInfo { pg, epoch: Epoch(epoch), primary: Some(OsdId(primary)) }
    }

    fn update(revision: u64, full: bool, pgs: Vec<PgInfo>, osds: &[(u32, &str)]) -> MapUpdate {
        let osds = osds.iter().map(|(id, address)| OsdInfo { id: OsdId(*id), address: address.to_string() }).collect();
        MapUpdate { revision: Revision(revision), full, pgs, osds, pools: vec![] }
    }

    #[test]
    fn changes_add_up_and_old_news_is_ignored() {
        let mut map = ClientMap::default();
        assert!(map.apply(update(5, true, vec![pg(0, 3, 1), pg(1, 3, 2)], &[(1, "a:1"), (2, "b:2")]), SERVER));
        assert!(map.apply(update(6, false, vec![pg(0, 4, 2)], &[(1, "")]), SERVER));
        assert!(!map.apply(update(6, false, vec![pg(0, 3, 9)], &[]), SERVER));
        assert_eq!(map.pg(pg(0, 0, 0).pg), Some(&pg(0, 4, 2)));
        assert!(map.apply(update(6, false, vec![pg(1, 4, 1)], &[]), SERVER), "news of an unchanged revision count");
        assert_eq!(map.pg(pg(1, 0, 0).pg), Some(&pg(1, 4, 1)));
        assert_eq!((map.address(OsdId(1)), map.address(OsdId(2))), (None, Some("b:2")));
        assert_eq!((map.addresses(), map.nth_address(0)), (1, Some("b:2")));
    }

    #[test]
    fn a_server_that_lags_takes_nothing_away() {
        let mut map = ClientMap::default();
        map.apply(update(5, true, vec![pg(0, 3, 1)], &[(1, "a:1")]), SERVER);
        map.apply(update(4, true, vec![], &[]), SERVER);
        map.apply(update(4, true, vec![], &[]), SERVER);
        map.apply(update(5, true, vec![], &[]), Some(LinkId(2)));
        assert_eq!((map.pg(pg(0, 0, 0).pg), map.address(OsdId(1))), (Some(&pg(0, 3, 1)), Some("a:1")));
        map.apply(update(6, true, vec![], &[]), SERVER);
        assert_eq!((map.pg(pg(0, 0, 0).pg), map.address(OsdId(1))), (None, None));
    }

    #[test]
    fn a_layout_never_goes_back_and_takes_the_groups_of_the_one_before_away() {
        let pool = |generation: u16, pg_count: u32| PoolInfo {
            id: PoolId(1),
            name: "p".into(),
            scheme: crate::map::Scheme::Replicated,
            data_chunks: 1,
            layout: Layout { generation, pg_count },
            object_bytes: 1 << 20,
        };
        let with =
            |generation, pg_count, update: MapUpdate| MapUpdate { pools: vec![pool(generation, pg_count)], ..update };
        let new = PgNumber::new(1, 0).0;
        let mut map = ClientMap::default();
        map.apply(with(0, 2, update(5, true, vec![pg(0, 3, 1), pg(1, 3, 2)], &[])), SERVER);
        assert!(map.take_relaid().is_empty(), "what is known first is no change");
        assert!(map.apply(with(1, 1, update(5, false, vec![pg(new, 4, 1)], &[])), SERVER));
        assert_eq!((map.take_relaid(), map.pg(pg(0, 0, 0).pg)), (vec![PoolId(1)], None));
        map.apply(with(0, 2, update(6, true, vec![pg(0, 3, 1), pg(1, 3, 2)], &[])), SERVER);
        assert_eq!(map.pool(PoolId(1)).map(|pool| pool.layout.pg_count), Some(1));
        assert_eq!((map.pg(pg(new, 0, 0).pg), map.pg(pg(0, 0, 0).pg)), (Some(&pg(new, 4, 1)), None));
        assert!(map.take_relaid().is_empty());
    }

    #[test]
    fn a_group_never_goes_back_even_in_a_full_map() {
        let mut map = ClientMap::default();
        map.apply(update(5, true, vec![pg(0, 3, 1), pg(1, 1, 1)], &[]), SERVER);
        map.apply(update(6, true, vec![pg(0, 2, 7)], &[]), SERVER);
        assert_eq!(map.pg(pg(0, 0, 0).pg), Some(&pg(0, 3, 1)));
        assert_eq!(map.pg(pg(1, 0, 0).pg), None);
    }
}
