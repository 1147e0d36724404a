//! The board of a placement: groups by OSDs, by index.
//!
//! Owns who is where and the counts. Invariant: no two members of a group are of one failure domain.

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
    /// Failure domain of each OSD.
    pub domain_of: Vec<usize>,
    /// Number of failure domains.
    pub domains: usize,
    /// Groups that each OSD is in.
    pub count: Vec<u32>,
    /// Members of a group.
    pub size: usize,
    slots: Vec<Slot>,
}

impl Board {
    /// A board with empty groups.
    pub fn new(domain_of: Vec<usize>, domains: usize, groups: usize, size: usize) -> Self {
        let count = vec![0; domain_of.len()];
        Board { domain_of, domains, count, size, slots: vec![Slot::default(); groups * size] }
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

    /// Whether an OSD may be in that slot: no other slot of the group has one of its failure domain.
    pub fn admits(&self, group: usize, slot: usize, osd: usize) -> bool {
        let domain = self.domain_of[osd];
        let clashes = |(other, s): (usize, &Slot)| other != slot && s.osd.is_some_and(|o| self.domain_of[o] == domain);
        !self.group(group).iter().enumerate().any(clashes)
    }

    /// Whether some member is of this failure domain.
    pub fn uses_domain(&self, group: usize, domain: usize) -> bool {
        self.group(group).iter().any(|slot| slot.osd.is_some_and(|osd| self.domain_of[osd] == domain))
    }

    /// Says who is in a slot at the beginning.
    pub fn set_present(&mut self, group: usize, slot: usize, osd: usize) {
        self.set(group, slot, osd);
        self.slots[group * self.size + slot].present = Some(osd);
    }

    /// Puts an OSD into a slot, in place of whoever is there.
    pub fn set(&mut self, group: usize, slot: usize, osd: usize) {
        let place = &mut self.slots[group * self.size + slot];
        if let Some(old) = place.osd.replace(osd) {
            self.count[old] -= 1;
        }
        self.count[osd] += 1;
    }

    /// Panics if the counts are wrong or a failure domain is shared.
    pub fn check(&self) {
        let mut count = vec![0; self.count.len()];
        for group in 0..self.group_count() {
            for (slot, place) in self.group(group).iter().enumerate() {
                let Some(osd) = place.osd else { continue };
                count[osd] += 1;
                assert!(self.admits(group, slot, osd), "placement: group {group} shares a failure domain");
            }
        }
        assert_eq!(count, self.count, "placement: counts are wrong");
    }
}
