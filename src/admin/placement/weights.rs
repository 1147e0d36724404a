//! How much of a pool one member of a group holds: what a move of it costs.
//!
//! Owns the estimate. It comes from what OSDs say of each pool, spread evenly over the pool's groups there: objects are
//! put into groups by a hash, so groups of a pool are alike, and pools are not.

use crate::admin::status::Statistics;
use ashlar_core::id::{OsdId, PoolId};
use ashlar_core::map::ClusterMap;
use std::collections::BTreeMap;

/// Bytes of a member of a group, by pool and OSD.
pub struct Weights(BTreeMap<PoolId, BTreeMap<OsdId, u64>>);

impl Weights {
    /// From what OSDs publish. An OSD that acts in no group of a pool, but holds something of it, is about to drop that.
    pub fn of(map: &ClusterMap, statistics: &BTreeMap<u32, Statistics>) -> Weights {
        let mut members: BTreeMap<(PoolId, OsdId), u64> = BTreeMap::new();
        for (id, pg) in map.groups() {
            pg.acting.iter().flatten().for_each(|member| *members.entry((id.pool, member.osd)).or_default() += 1);
        }
        let mut weights = Weights(BTreeMap::new());
        for ((pool, osd), count) in members {
            let Some(figures) = statistics.get(&osd.0) else { continue };
            // An OSD that says nothing of a pool holds nothing of it.
            let used = figures.pools.get(&pool).map_or(0, |figures| figures.used_bytes);
            weights.0.entry(pool).or_default().insert(osd, used / count);
        }
        weights
    }

    /// The mean over the members of a group of this pool, as far as something is known of them; else over the pool.
    pub fn of_member(&self, pool: PoolId, group: &[Option<OsdId>]) -> u64 {
        let Some(osds) = self.0.get(&pool) else { return 0 };
        let known: Vec<u64> = group.iter().flatten().filter_map(|osd| osds.get(osd).copied()).collect();
        if known.is_empty() { mean(osds.values().copied()) } else { mean(known.into_iter()) }
    }
}

fn mean(values: impl ExactSizeIterator<Item = u64>) -> u64 {
    let count = u64::try_from(values.len().max(1)).unwrap_or(u64::MAX);
    values.sum::<u64>() / count
}
