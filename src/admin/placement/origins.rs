//! Which groups follow which when a pool's number of groups changes, and what has to move for that.
//!
//! Owns the estimate. Does not own the layouts (core's `map::layout`), nor the steps that the leading monitor takes: they
//! end with the same groups, about where this puts them.

use ashlar_core::id::{OsdId, PgId, PgNumber, PoolId};
use ashlar_core::map::{ClusterMap, Layout, Pool};
use std::collections::BTreeMap;

/// Members of groups.
pub type Groups = Vec<Vec<Option<OsdId>>>;

/// See the module.
pub struct Origins {
    /// Where the groups of now belong.
    pub former: Groups,
    /// Of each group to come: the places of those whose objects it takes over, each with the part of its objects.
    from: Vec<Vec<(usize, f64)>>,
    has_roles: bool,
}

impl Origins {
    /// Of a pool as it shall be; unless its number of groups changes, each group follows itself. `None`: it has no groups.
    pub fn of(map: &ClusterMap, id: PoolId, changed: &Pool) -> Option<Origins> {
        let now = map.layout(id)?.now;
        let target = |number| map.pg_map(PgId { pool: id, number }).map_or(Vec::new(), |(pg, _)| pg.target.clone());
        let is_changed = map.pool(id).is_some_and(|pool| pool.pg_count != changed.pg_count);
        let next = Layout { pg_count: if is_changed { changed.pg_count } else { now.pg_count }, ..now };
        let part = |(number, overlap): (PgNumber, ashlar_core::id::HashRange)| {
            let whole = now.range(number);
            let length = |first: u64, last: u64| (last - first) as f64 + 1.0;
            let place = usize::try_from(number.place()).expect("a place is below 65,536");
            (place, length(overlap.first, overlap.last) / length(whole.first, whole.last))
        };
        let from = |number| now.overlapping(next.range(number)).map(part).collect();
        let former = now.numbers().map(target).collect();
        Some(Origins { former, from: next.numbers().map(from).collect(), has_roles: changed.has_roles() })
    }

    /// Where the groups to come begin: a group has the members of the one that had its first hash.
    pub fn begin(&self) -> Groups {
        self.from
            .iter()
            .map(|from| from.first().map_or_else(Vec::new, |(place, _)| self.former[*place].clone()))
            .collect()
    }

    /// Whether some group takes over objects of several.
    pub fn merges(&self) -> bool {
        self.from.iter().any(|from| from.len() > 1)
    }

    /// Copies or chunks of former groups that have to be given to other members.
    pub fn came(&self, groups: &Groups) -> usize {
        self.pairs(groups).map(|(former, _, group)| self.newcomers(former, group)).sum()
    }

    /// Bytes that go to members that do not have them, if a member of a former group holds `weight`.
    pub fn moved_bytes(&self, groups: &Groups, weight: impl Fn(&[Option<OsdId>]) -> u64) -> u64 {
        let moved = |(former, part, group): (&[Option<OsdId>], f64, &[Option<OsdId>])| {
            weight(former) as f64 * part * self.newcomers(former, group) as f64
        };
        self.pairs(groups).map(moved).sum::<f64>().round() as u64
    }

    /// What no choice of members can do without: whatever members a merged group has, former ones that had others give
    /// theirs away.
    pub fn least(&self) -> usize {
        self.from.iter().map(|from| self.least_of(from)).sum()
    }

    fn least_of(&self, from: &[(usize, f64)]) -> usize {
        let members = || from.iter().flat_map(|(place, _)| self.former[*place].iter().enumerate());
        let mut held: BTreeMap<(usize, OsdId), usize> = BTreeMap::new();
        for (slot, osd) in members().filter_map(|(slot, osd)| Some((slot, (*osd)?))) {
            *held.entry((if self.has_roles { slot } else { 0 }, osd)).or_default() += 1;
        }
        let size = from.iter().map(|(place, _)| self.former[*place].len()).max().unwrap_or(0);
        let mut counts: Vec<usize> = held.into_values().collect();
        counts.sort_unstable_by(|one, other| other.cmp(one));
        (size * from.len()).saturating_sub(counts.into_iter().take(size).sum())
    }

    /// Each former group with the part of it that a new one takes over, and that one.
    fn pairs<'a>(
        &'a self,
        groups: &'a Groups,
    ) -> impl Iterator<Item = (&'a [Option<OsdId>], f64, &'a [Option<OsdId>])> {
        let of = move |(from, group): (&'a Vec<(usize, f64)>, &'a Vec<Option<OsdId>>)| {
            from.iter().map(move |(place, part)| (self.former[*place].as_slice(), *part, group.as_slice()))
        };
        self.from.iter().zip(groups).flat_map(of)
    }

    /// Members that would have to be given what a former group has. In coded pools a place is another chunk.
    fn newcomers(&self, former: &[Option<OsdId>], group: &[Option<OsdId>]) -> usize {
        let has = |slot: usize, osd: &Option<OsdId>| {
            if self.has_roles { former.get(slot) == Some(osd) } else { former.contains(osd) }
        };
        group.iter().enumerate().filter(|(slot, osd)| osd.is_some() && !has(*slot, osd)).count()
    }
}
