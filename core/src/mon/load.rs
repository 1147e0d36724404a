//! Who is primary of how many groups of a pool: kept even, in proportion to the groups that OSDs are members of.
//!
//! Owns the counts and what makes one member a better primary than another. Does not own when primaries move.
//! Invariant: a move that is made for balance lessens the sum of squares of primaries over groups, so moves end.

use super::acting::UsableOsds;
use crate::id::OsdId;
use crate::map::PgMap;
use std::collections::BTreeMap;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Load {
    primaries: BTreeMap<OsdId, u32>,
    groups: BTreeMap<OsdId, u32>,
}

impl Load {
    /// A member of a group.
    pub fn count_member(&mut self, osd: OsdId) {
        *self.groups.entry(osd).or_default() += 1;
    }

    /// Moves one primary in the books.
    pub fn count_primary(&mut self, old: Option<OsdId>, new: Option<OsdId>) {
        if let Some(count) = old.and_then(|osd| self.primaries.get_mut(&osd)) {
            *count = count.saturating_sub(1);
        }
        if let Some(osd) = new {
            *self.primaries.entry(osd).or_default() += 1;
        }
    }

    fn of(&self, osd: OsdId) -> (u64, u64) {
        let get = |counts: &BTreeMap<OsdId, u32>| u64::from(counts.get(&osd).copied().unwrap_or(0));
        (get(&self.primaries), get(&self.groups).max(1))
    }

    /// Of these, who should become a primary: affine ones first, then the one with the fewest for its groups.
    pub fn choose(&self, osds: &[OsdId], usable: &UsableOsds) -> Option<OsdId> {
        osds.iter().copied().min_by(|a, b| {
            let affine = |osd: &OsdId| usable.get(osd).is_some_and(|usable| usable.affine);
            let ((mine, my_groups), (other, other_groups)) = (self.of(*a), self.of(*b));
            let cost = ((2 * mine + 1) * other_groups).cmp(&((2 * other + 1) * my_groups));
            affine(b).cmp(&affine(a)).then(cost).then(a.cmp(b))
        })
    }

    /// A member that should be primary in place of the one that is.
    pub fn better(&self, map: &PgMap, usable: &UsableOsds) -> Option<OsdId> {
        let present = map.primary?;
        let members: Vec<OsdId> = map.acting.iter().flatten().map(|member| member.osd).collect();
        let best = self.choose(&members, usable)?;
        let affine = |osd: OsdId| usable.get(&osd).is_some_and(|usable| usable.affine);
        let ((from, from_groups), (to, to_groups)) = (self.of(present), self.of(best));
        let evens = (2 * to + 1) * from_groups < (2 * from).saturating_sub(1) * to_groups;
        let differ = affine(best) != affine(present);
        (best != present && (differ || evens)).then_some(best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, StoreUuid};
    use crate::map::ActingMember;
    use crate::mon::acting::Usable;

    fn member(osd: u32) -> ActingMember {
        ActingMember { osd: OsdId(osd), store: StoreUuid(1), incarnation: Incarnation(1) }
    }

    fn usable(affine: &[u32]) -> UsableOsds {
        let one = |osd: u32| Usable { member: member(osd), domain: format!("h{osd}"), affine: affine.contains(&osd) };
        (0..6).map(|osd| (OsdId(osd), one(osd))).collect()
    }

    fn load(osds: &[(u32, u32, u32)]) -> Load {
        let mut load = Load::default();
        for (osd, primaries, groups) in osds {
            (0..*primaries).for_each(|_| load.count_primary(None, Some(OsdId(*osd))));
            (0..*groups).for_each(|_| load.count_member(OsdId(*osd)));
        }
        load
    }

    fn map(primary: u32, acting: &[u32]) -> PgMap {
        let acting = acting.iter().map(|osd| Some(member(*osd))).collect();
        PgMap { primary: Some(OsdId(primary)), acting, ..PgMap::default() }
    }

    #[test]
    fn primaries_go_where_they_are_few_for_the_groups_there() {
        let load = load(&[(1, 5, 10), (2, 4, 10), (3, 9, 30)]);
        assert_eq!(load.choose(&[OsdId(1), OsdId(2), OsdId(3)], &usable(&[])), Some(OsdId(3)));
        assert_eq!(load.better(&map(1, &[1, 3]), &usable(&[])), Some(OsdId(3)));
        assert_eq!(load.better(&map(1, &[1, 2]), &usable(&[])), None, "one less is no gain");
    }

    #[test]
    fn affine_members_are_primaries_although_they_have_many() {
        let load = load(&[(1, 5, 10), (2, 0, 10), (3, 2, 10)]);
        assert_eq!(load.better(&map(1, &[1, 2, 3]), &usable(&[])), Some(OsdId(2)));
        assert_eq!(load.better(&map(1, &[1, 2, 3]), &usable(&[1])), None);
        assert_eq!(load.better(&map(2, &[1, 2, 3]), &usable(&[1])), Some(OsdId(1)));
        assert_eq!(load.better(&map(1, &[1, 2, 3]), &usable(&[1, 3])), Some(OsdId(3)));
    }

    #[test]
    fn moves_for_balance_end() {
        let mut rng = crate::rng::Rng::new(3);
        let mut maps: Vec<PgMap> = Vec::new();
        let mut load = Load::default();
        for _ in 0..60 {
            let osds: Vec<u32> = (0..6).filter(|_| rng.chance(1, 2)).collect();
            if let Some(first) = osds.first() {
                maps.push(map(*first, &osds));
                osds.iter().for_each(|osd| load.count_member(OsdId(*osd)));
                load.count_primary(None, Some(OsdId(*first)));
            }
        }
        let usable = usable(&[]);
        for _ in 0..400 {
            let Some((map, to)) =
                maps.iter_mut().find_map(|map| Some((load.better(map, &usable)?, map))).map(|(to, map)| (map, to))
            else {
                return;
            };
            load.count_primary(map.primary, Some(to));
            map.primary = Some(to);
        }
        panic!("primaries still move");
    }
}
