//! Who serves a group: from its target, who is up, and who holds its data. Pure functions.
//!
//! Owns the choice of acting members and primary, and the epoch. Does not own the target, nor verdicts.
//!
//! Invariants: acting members are up and never share a failure domain (but those that did act and hold the data when
//! the domains changed under them stay until others have taken over, and in erasure-coded pools a new member may fill a
//! gap beside one that is to go); the epoch rises by one with every change of
//! members, incarnations or primary, when its primary wishes for that, and only then; while members that hold everything are up, enough of them act
//! (`pg_minsize`, but always leaving room for one new member); members that stay keep their slots; a primary that can
//! stay stays. In erasure-coded pools a slot is a role, and whoever holds one role's data holds nothing of another's
//! (`roles`).
//!
//! A group moves to a new target in steps: new members come in beside enough old ones, get the data, the history is
//! trimmed (then they hold everything too), and the next ones follow.

mod roles;

use super::load::Load;
use crate::id::{Epoch, Member, OsdId, Role};
use crate::map::{ActingMember, History, PgMap, Pool, Wish};
use crate::planted::{Bug, planted};
use std::collections::{BTreeMap, BTreeSet};

/// An OSD that may act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usable {
    /// As maps name it.
    pub member: ActingMember,
    /// Its failure domain on the pool's level.
    pub domain: String,
    /// One of those that should be primaries.
    pub affine: bool,
}

/// OSDs that may act.
pub type UsableOsds = BTreeMap<OsdId, Usable>;

/// What is known of a group.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// Its pool.
    pub pool: &'a Pool,
    /// Its present map; `None`: it is new.
    pub map: Option<&'a PgMap>,
    /// Where placement wants it.
    pub target: &'a [Option<OsdId>],
    /// What its primary recorded.
    pub history: Option<&'a History>,
    /// What its primary wishes.
    pub wish: Option<&'a Wish>,
    /// Its epochs are above this one: those of the groups that it takes over objects from.
    pub floor: Epoch,
}

impl Group<'_> {
    /// The map that the group should have now. `load` is brought up to date.
    pub fn next_map(&self, usable: &UsableOsds, load: &mut Load) -> PgMap {
        let acting = self.members(usable);
        let old_primary = self.map.and_then(|map| map.primary);
        let same = self.map.is_some_and(|map| map.acting == acting && map.epoch > self.floor);
        let same = same && !self.wants_renewal(usable);
        let primary = if same { old_primary } else { self.primary(usable, &acting, load) };
        if primary != old_primary {
            load.count_primary(old_primary, primary);
        }
        let same = same || planted(Bug::KeepEpoch);
        let epoch = if same { self.epoch() } else { Epoch(self.epoch().max(self.floor).0 + 1) };
        let primary_since = self.primary_since(primary, &acting).unwrap_or(epoch);
        PgMap { epoch, target: self.wanted(), acting, primary, primary_since }
    }

    /// The target, as far as it matters who has which place.
    fn wanted(&self) -> Vec<Option<OsdId>> {
        if self.pool.has_roles() { roles::wanted(self) } else { self.target.to_vec() }
    }

    /// Since when the primary has been one, if it was before.
    fn primary_since(&self, primary: Option<OsdId>, acting: &[Option<ActingMember>]) -> Option<Epoch> {
        let old = self.map.filter(|old| old.primary == primary)?;
        let start = |acting: &[Option<ActingMember>]| {
            acting.iter().flatten().find(|member| Some(member.osd) == primary).map(|member| member.incarnation)
        };
        (start(&old.acting) == start(acting)).then_some(old.primary_since)
    }

    /// The present epoch. A group without a map goes on where its history stopped, if it has one.
    fn epoch(&self) -> Epoch {
        let recorded = self.history.map_or(Epoch(0), |history| history.last);
        self.map.map_or(recorded, |map| map.epoch)
    }

    /// Members, after what the primary wishes. What cannot be granted without falling below `pg_minsize` is granted
    /// against the primary that wishes, and if that does not help either, not at all.
    fn members(&self, usable: &UsableOsds) -> Vec<Option<ActingMember>> {
        let enough =
            |members: &[Option<ActingMember>]| members.iter().flatten().count() >= usize::from(self.pool.pg_minsize);
        let wish = self.wish.filter(|wish| !wish.without.is_empty() && wish_in_force(wish, self.map, usable));
        if let Some(wish) = wish {
            for without in [&wish.without[..], &[wish.by]] {
                let members = self.choose(&without_osds(usable, without));
                if enough(&members) {
                    return members;
                }
            }
        }
        self.choose(usable)
    }

    /// Whether the primary wishes for just another epoch. Once: the next epoch is another than the wish's.
    fn wants_renewal(&self, usable: &UsableOsds) -> bool {
        let wants = |wish: &Wish| wish.without.is_empty() && self.map.is_some_and(|map| map.epoch == wish.epoch);
        self.wish.is_some_and(|wish| wants(wish) && wish_in_force(wish, self.map, usable))
    }

    fn choose(&self, usable: &UsableOsds) -> Vec<Option<ActingMember>> {
        if self.pool.has_roles() {
            return roles::choose(self, usable);
        }
        let size = usize::from(self.pool.pg_size);
        let holders = self.holders(usable);
        let mut draft = Draft::new(size, usable);
        self.target.iter().flatten().for_each(|osd| draft.add(*osd));
        self.prefer_present(&holders).for_each(|osd| draft.add(osd));
        self.keep_holders(&mut draft, &holders);
        self.prefer_present(&holders).filter(|osd| self.acts(*osd)).for_each(|osd| draft.keep(osd, |of| self.acts(of)));
        arrange(self.map, &draft.chosen, usable, size)
    }

    /// How many members that hold everything should act, if there are so many.
    fn holders_wanted(&self) -> usize {
        usize::from(self.pool.pg_minsize.min(self.pool.pg_size - 1))
    }

    /// Whether an OSD acts at present.
    fn acts(&self, osd: OsdId) -> bool {
        self.map.is_some_and(|map| map.acting.iter().flatten().any(|member| member.osd == osd))
    }

    /// Brings in members that hold everything, in place of new ones, until there are enough of them.
    fn keep_holders(&self, draft: &mut Draft<'_>, holders: &BTreeSet<OsdId>) {
        let wanted = self.holders_wanted().min(holders.len());
        for osd in self.prefer_present(holders) {
            let present = draft.chosen.iter().filter(|chosen| holders.contains(chosen)).count();
            if present >= wanted {
                return;
            }
            draft.insert(osd, holders);
        }
    }

    /// Holders, those that act at present first, so that nothing changes in vain.
    fn prefer_present<'b>(&'b self, holders: &'b BTreeSet<OsdId>) -> impl Iterator<Item = OsdId> + 'b {
        let acting = holders.iter().copied().filter(|osd| self.acts(*osd));
        acting.chain(holders.iter().copied().filter(|osd| !self.acts(*osd)))
    }

    /// OSDs that hold every object's newest version; see [`Group::holding`].
    fn holders(&self, usable: &UsableOsds) -> BTreeSet<OsdId> {
        self.holding(usable).into_iter().map(|(osd, _)| osd).collect()
    }

    /// Usable OSDs that hold every object's newest version, as far as the history says, and in which role.
    fn holding(&self, usable: &UsableOsds) -> Vec<(OsdId, Role)> {
        let is_usable = |member: &Member| usable.get(&member.osd).is_some_and(|u| u.member.store == member.store);
        self.recorded().into_iter().filter(is_usable).map(|member| (member.osd, member.role)).collect()
    }

    /// Members of the base and of every interval since. Empty if there are none, or if nothing was ever recorded.
    fn recorded(&self) -> Vec<Member> {
        let Some(history) = self.history else { return Vec::new() };
        let of_part = |part: &'_ History| -> Vec<Vec<Member>> {
            let base = (part.base_epoch > Epoch(0)).then_some(&part.base_set);
            base.into_iter().chain(part.sets.iter().map(|(_, set)| set)).cloned().collect()
        };
        let mut sets = history.parts().flat_map(|(_, part)| of_part(part));
        let mut members = sets.next().unwrap_or_default();
        for set in sets {
            members.retain(|member| set.contains(member));
        }
        members
    }

    /// The present primary if it still acts and holds the data, else the member that should be (few groups to serve, tags),
    /// among those that hold the data if there are any: it serves reads from its own store.
    fn primary(&self, usable: &UsableOsds, acting: &[Option<ActingMember>], load: &Load) -> Option<OsdId> {
        let holding = self.holding(usable);
        let members = || acting.iter().zip(0u8..).filter_map(|(member, slot)| Some(((*member)?.osd, Role(slot))));
        let holds = |(osd, slot): &(OsdId, Role)| {
            holding.iter().any(|(other, role)| other == osd && (!self.pool.has_roles() || role == slot))
        };
        let mut eligible: Vec<OsdId> = members().filter(holds).map(|(osd, _)| osd).collect();
        if eligible.is_empty() {
            eligible = members().map(|(osd, _)| osd).collect();
        }
        let present = self.map.and_then(|map| map.primary).filter(|osd| eligible.contains(osd));
        present.or_else(|| load.choose(&eligible, usable))
    }

    /// Whether the group is where it should be, and all its members hold everything.
    pub fn is_settled(&self) -> bool {
        let (Some(map), Some(history)) = (self.map, self.history) else { return false };
        let has_roles = self.pool.has_roles();
        let role = |slot: u8| Role(if has_roles { slot } else { 0 });
        let slots = map.acting.iter().zip(0u8..);
        let members = slots.filter_map(|(m, slot)| m.map(|m| Member { osd: m.osd, store: m.store, role: role(slot) }));
        let acting: BTreeSet<Member> = members.collect();
        let base: BTreeSet<Member> = history.base_set.iter().copied().collect();
        let trimmed = history.base_epoch == map.epoch && history.last == map.epoch && history.sets.len() == 1;
        let trimmed = trimmed && history.ancestors.is_empty();
        trimmed && base == acting && self.is_in_place(map)
    }

    /// Whether those act that should: in erasure-coded pools, each in its role.
    fn is_in_place(&self, map: &PgMap) -> bool {
        let acting: Vec<Option<OsdId>> = map.acting.iter().map(|member| member.map(|member| member.osd)).collect();
        if self.pool.has_roles() {
            return acting == self.wanted();
        }
        let set = |osds: &[Option<OsdId>]| -> BTreeSet<OsdId> { osds.iter().copied().flatten().collect() };
        set(&acting) == set(self.target)
    }
}

/// Whether a wish still binds: its author is the group's primary, in the same incarnation, and has been since.
pub fn wish_in_force(wish: &Wish, map: Option<&PgMap>, usable: &UsableOsds) -> bool {
    let Some(map) = map else { return false };
    let by = map.acting.iter().flatten().find(|member| member.osd == wish.by);
    let named = by.is_some_and(|member| member.incarnation == wish.incarnation);
    let alive = usable.get(&wish.by).is_some_and(|usable| usable.member.incarnation == wish.incarnation);
    named && alive && map.primary == Some(wish.by) && (map.primary_since..=map.epoch).contains(&wish.epoch)
}

fn without_osds(usable: &UsableOsds, without: &[OsdId]) -> UsableOsds {
    usable.iter().filter(|(osd, _)| !without.contains(osd)).map(|(osd, usable)| (*osd, usable.clone())).collect()
}

/// Members being chosen: usable, of different domains, at most `size`.
struct Draft<'a> {
    size: usize,
    usable: &'a UsableOsds,
    chosen: Vec<OsdId>,
}

impl<'a> Draft<'a> {
    fn new(size: usize, usable: &'a UsableOsds) -> Self {
        Draft { size, usable, chosen: Vec::new() }
    }

    /// The chosen member of the same domain; the OSD itself if it is chosen.
    fn rival(&self, osd: OsdId) -> Option<OsdId> {
        let domain = &self.usable.get(&osd)?.domain;
        self.chosen.iter().copied().find(|other| self.usable[other].domain == *domain)
    }

    /// Adds an OSD if there is room.
    fn add(&mut self, osd: OsdId) {
        if self.chosen.len() < self.size && self.usable.contains_key(&osd) && self.rival(osd).is_none() {
            self.chosen.push(osd);
        }
    }

    /// Adds a member that acts and holds everything if there is room, although it shares its failure domain with others
    /// of which the same is true: the domains were changed, and losing its copy at once would be worse.
    fn keep(&mut self, osd: OsdId, same: impl Fn(OsdId) -> bool) {
        let Some(domain) = self.usable.get(&osd).map(|usable| &usable.domain) else { return };
        let rivals = || self.chosen.iter().filter(|other| self.usable[other].domain == *domain);
        let room = self.chosen.len() < self.size && !self.chosen.contains(&osd);
        if room && rivals().all(|other| same(*other)) {
            self.chosen.push(osd);
        }
    }

    /// Adds a holder; it takes the place of its rival or, if there is no room, of the last member that is no holder.
    fn insert(&mut self, osd: OsdId, holders: &BTreeSet<OsdId>) {
        let full = self.chosen.len() >= self.size;
        let last_new = || self.chosen.iter().copied().rfind(|other| !holders.contains(other));
        let out = self.rival(osd).or_else(|| if full { last_new() } else { None });
        match out {
            Some(out) if holders.contains(&out) => self.keep(osd, |other| holders.contains(&other)),
            Some(out) => {
                self.chosen.retain(|other| *other != out);
                self.add(osd);
            }
            None => self.add(osd),
        }
    }
}

/// Puts members into slots: those that act at present stay where they are.
fn arrange(map: Option<&PgMap>, chosen: &[OsdId], usable: &UsableOsds, size: usize) -> Vec<Option<ActingMember>> {
    let mut slots: Vec<Option<ActingMember>> = vec![None; size];
    let mut new: Vec<OsdId> = Vec::new();
    for osd in chosen {
        let present = map.and_then(|map| map.acting.iter().position(|m| m.is_some_and(|m| m.osd == *osd)));
        match present.filter(|slot| *slot < size) {
            Some(slot) => slots[slot] = Some(usable[osd].member),
            None => new.push(*osd),
        }
    }
    let free = slots.iter_mut().filter(|slot| slot.is_none());
    free.zip(new).for_each(|(slot, osd)| *slot = Some(usable[&osd].member));
    slots
}

#[cfg(test)]
mod tests;
