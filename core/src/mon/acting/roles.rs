//! Who takes which role in an erasure-coded group. Pure functions.
//!
//! Owns the choice. Invariants: an OSD has one role; one that holds a role's data is never put into another role while
//! the rules of its parent ask for holders; no two members share a failure domain unless both hold their roles' data, or
//! one of them is on its way out and the other one fills a gap. Whoever acts, and is wanted in any role, is wanted where it
//! is: two that changed roles would wait for each other.

use super::{Group, UsableOsds};
use crate::id::{OsdId, Role};
use crate::map::ActingMember;
use crate::map::place::keep_places;

/// Members by role.
type Slots = Vec<Option<OsdId>>;

/// The target, its gaps filled by who holds the data, and as many holders in place of new members as are wanted.
pub fn choose(group: &Group<'_>, usable: &UsableOsds) -> Vec<Option<ActingMember>> {
    let size = usize::from(group.pool.pg_size);
    let (target, holders) = (wanted(group), holders_by_role(group, usable, size));
    let mut seats = Seats { usable, holders: &holders, slots: vec![None; size] };
    for (role, osd) in target.iter().take(size).enumerate() {
        seats.add(role, *osd);
    }
    seats.fill_gaps();
    seats.keep_holders(group, &target);
    seats.fill_gaps();
    seats.keep_acting(group);
    seats.share_rather_than_leave_gaps(&target);
    seats.slots.iter().map(|osd| osd.map(|osd| usable[&osd].member)).collect()
}

/// The members of the target, each where its data are, or where it acts. Placement knew of who acted then, which may have
/// changed since.
pub fn wanted(group: &Group<'_>) -> Vec<Option<OsdId>> {
    let sorted = |osds: &[Option<OsdId>]| {
        let mut osds = osds.to_vec();
        osds.sort();
        osds
    };
    let known = group.map.filter(|map| sorted(&map.target) == sorted(group.target));
    let mut target = known.map_or(group.target, |map| &map.target).to_vec();
    let recorded = group.recorded();
    let home = |role: u8| {
        let holder = recorded.iter().find(|holder| holder.role == Role(role)).map(|holder| holder.osd);
        let acts =
            group.map.and_then(|map| map.acting.get(usize::from(role)).copied().flatten()).map(|member| member.osd);
        holder.or_else(|| acts.filter(|osd| recorded.iter().all(|holder| holder.osd != *osd)))
    };
    let homes: Vec<Option<OsdId>> = (0..group.pool.pg_size).map(home).collect();
    keep_places(&mut target, &homes);
    target
}

/// At most one: sets of a history have one member in each role.
fn holders_by_role(group: &Group<'_>, usable: &UsableOsds, size: usize) -> Slots {
    let mut holders = vec![None; size];
    for (osd, Role(role)) in group.holding(usable) {
        if let Some(place) = holders.get_mut(usize::from(role)) {
            *place = Some(osd);
        }
    }
    holders
}

/// Roles being given.
struct Seats<'a> {
    usable: &'a UsableOsds,
    holders: &'a [Option<OsdId>],
    slots: Slots,
}

impl Seats<'_> {
    fn shares_domain(&self, one: OsdId, other: OsdId) -> bool {
        self.usable[&one].domain == self.usable[&other].domain
    }

    /// Gives a free role to an OSD if it may have it.
    fn add(&mut self, role: usize, osd: Option<OsdId>) {
        let Some(osd) = osd.filter(|osd| self.usable.contains_key(osd)) else { return };
        let clashes = self.slots.iter().flatten().any(|other| self.shares_domain(osd, *other));
        if self.slots[role].is_none() && !clashes {
            self.slots[role] = Some(osd);
        }
    }

    /// Gives free roles to those who hold their data.
    fn fill_gaps(&mut self) {
        for role in 0..self.slots.len() {
            self.add(role, self.holders[role]);
        }
    }

    fn holds(&self, role: usize) -> bool {
        self.slots[role].is_some() && self.slots[role] == self.holders[role]
    }

    /// Puts holders in place of new members until there are enough of them: first those whom the target does not want in
    /// another role nor somebody in their domain, so that moves go on, and of these who acts there at present, so that
    /// nothing changes in vain.
    fn keep_holders(&mut self, group: &Group<'_>, target: &[Option<OsdId>]) {
        let mut roles: Vec<usize> = (0..self.slots.len()).filter(|role| self.holders[*role].is_some()).collect();
        let wanted = group.holders_wanted().min(roles.len());
        let elsewhere = |role: usize| self.holders[role].is_some_and(|osd| target.contains(&Some(osd)));
        roles.sort_by_key(|role| (elsewhere(*role), !self.in_the_way(*role).is_empty(), !self.acts(group, *role)));
        for role in roles {
            let present = (0..self.slots.len()).filter(|role| self.holds(*role)).count();
            if present >= wanted {
                return;
            }
            self.insert(role);
        }
    }

    /// Other roles whose new members share the domain of this role's holder.
    fn in_the_way(&self, role: usize) -> Vec<usize> {
        let Some(holder) = self.holders[role] else { return Vec::new() };
        let clashes = |other: &usize| {
            let osd = self.slots[*other].filter(|_| *other != role && !self.holds(*other));
            osd.is_some_and(|osd| self.shares_domain(osd, holder))
        };
        (0..self.slots.len()).filter(clashes).collect()
    }

    /// A gap would be worse than a member of the target in the domain of one that is to go: the loss of that domain takes
    /// no more, and without it no further move could begin.
    fn share_rather_than_leave_gaps(&mut self, target: &[Option<OsdId>]) {
        for (role, wanted) in target.iter().take(self.slots.len()).enumerate() {
            let Some(osd) = wanted.filter(|osd| self.usable.contains_key(osd) && self.slots[role].is_none()) else {
                continue;
            };
            let bears_it = |other: usize| match self.slots[other] {
                Some(member) if member == osd => false,
                Some(member) => !self.shares_domain(osd, member) || target.get(other) != Some(&Some(member)),
                None => true,
            };
            if (0..self.slots.len()).all(bears_it) {
                self.slots[role] = Some(osd);
            }
        }
    }

    /// Whether a role's holder acts in it at present.
    fn acts(&self, group: &Group<'_>, role: usize) -> bool {
        let member = group.map.and_then(|map| map.acting.get(role).copied().flatten());
        member.is_some_and(|member| self.holders[role] == Some(member.osd))
    }

    /// Members that act and hold their role's data stay rather than leave a gap, although the failure domains were
    /// changed so that they share one with others of which the same is true.
    fn keep_acting(&mut self, group: &Group<'_>) {
        for role in 0..self.slots.len() {
            let Some(holder) = self.holders[role].filter(|_| self.slots[role].is_none() && self.acts(group, role))
            else {
                continue;
            };
            let in_the_way = |other: &usize| {
                self.slots[*other].is_some_and(|osd| self.shares_domain(osd, holder) && !self.holds(*other))
            };
            if !(0..self.slots.len()).any(|other| in_the_way(&other)) {
                self.slots[role] = Some(holder);
            }
        }
    }

    /// Puts a role's holder into its place; whoever stands in its way goes, unless it holds its own role's data.
    fn insert(&mut self, role: usize) {
        let Some(holder) = self.holders[role] else { return };
        self.in_the_way(role).iter().for_each(|other| self.slots[*other] = None);
        self.slots[role] = Some(holder);
    }
}
