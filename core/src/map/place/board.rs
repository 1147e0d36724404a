//! The board of a placement: groups by OSDs, by index.
//!
//! Owns who is where and the counts. Invariant: every group keeps the rules.

use super::terms::Terms;

/// A place in a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Who is in it now.
    pub osd: Option<usize>,
    /// Who was in it at the beginning and was allowed there.
    pub present: Option<usize>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Board {
    /// The rules.
    pub terms: Terms,
    /// Groups that each OSD is in.
    pub count: Vec<u32>,
    /// Members of a group.
    pub size: usize,
    slots: Vec<Slot>,
}

impl Board {
    /// A board with empty groups.
    pub fn new(terms: Terms, groups: usize) -> Self {
        let (count, size) = (vec![0; terms.osds()], terms.size());
        Board { terms, count, size, slots: vec![Slot::default(); groups * size] }
    }

    /// The groups' slots.
    pub fn groups(&self) -> impl Iterator<Item = &[Slot]> {
        self.slots.chunks(self.size)
    }

    /// Number of groups.
    pub fn group_count(&self) -> usize {
        self.slots.len() / self.size
    }

    /// The slots of a group.
    pub fn group(&self, group: usize) -> &[Slot] {
        &self.slots[group * self.size..(group + 1) * self.size]
    }

    /// The members of a group.
    pub fn members(&self, group: usize) -> Vec<Option<usize>> {
        self.group(group).iter().map(|slot| slot.osd).collect()
    }

    /// Whether an OSD may be in that slot beside the others, with no more wishes unmet than now.
    pub fn admits(&self, group: usize, slot: usize, osd: usize) -> bool {
        let slots = self.group(group);
        let at = |part: usize| slots[part].osd;
        self.terms.admits(slot, osd, at)
            && (!self.terms.has_wishes() || {
                let with = |part: usize| if part == slot { Some(osd) } else { at(part) };
                self.terms.all_unmet(with) <= self.terms.all_unmet(at)
            })
    }

    /// Wishes of a group that are unmet.
    pub fn unmet(&self, group: usize) -> usize {
        let slots = self.group(group);
        self.terms.all_unmet(|part| slots[part].osd)
    }

    /// Says who is in a slot at the beginning.
    pub fn set_present(&mut self, group: usize, slot: usize, osd: usize) {
        self.set(group, slot, Some(osd));
        self.slots[group * self.size + slot].present = Some(osd);
    }

    /// Puts an OSD, or nobody, into a slot, in place of whoever is there.
    pub fn set(&mut self, group: usize, slot: usize, osd: Option<usize>) {
        let place = &mut self.slots[group * self.size + slot];
        if let Some(old) = std::mem::replace(&mut place.osd, osd) {
            self.count[old] -= 1;
        }
        if let Some(osd) = osd {
            self.count[osd] += 1;
        }
    }

    /// Replaces all members of a group.
    pub fn set_members(&mut self, group: usize, members: &[Option<usize>]) {
        members.iter().enumerate().for_each(|(slot, osd)| self.set(group, slot, *osd));
    }

    /// Panics if the counts are wrong or a rule is broken.
    pub fn check(&self) {
        let mut count = vec![0; self.count.len()];
        for group in 0..self.group_count() {
            for (slot, place) in self.group(group).iter().enumerate() {
                let Some(osd) = place.osd else { continue };
                count[osd] += 1;
                let kept = self.terms.admits(slot, osd, |part| self.group(group)[part].osd);
                assert!(kept, "placement: group {group} breaks a rule of part {}", slot + 1);
            }
        }
        assert_eq!(count, self.count, "placement: counts are wrong");
    }
}
