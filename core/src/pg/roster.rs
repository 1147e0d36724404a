//! Who takes part in a peering: the acting members and all of history's, each on a *seat*.
//!
//! Owns what each of them stated. Does not own the waiting for them.
//! Invariant: acting members have the first seats, in the order of their roles. A re-created store is another member,
//! so its OSD may have two seats, of which at most one answers.

use crate::id::{Member, OsdId, Role};
use crate::map::{ActingMember, History};
use crate::pg::choose::{Grounds, Mask, SEATS_MAX};
use crate::store::Digest;
use smallvec::SmallVec;

/// A member and what it stated.
#[derive(Clone, Debug)]
pub struct Seat {
    /// The member.
    pub member: Member,
    /// What it answered.
    pub statement: Option<Statement>,
}

/// An answer to a query.
#[derive(Clone, Copy, Debug)]
pub struct Statement {
    /// Whether its metadata are evidence.
    pub trusted: bool,
    /// Summary of its copies in the seat's role.
    pub digest: Digest,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    seats: SmallVec<[Seat; 4]>,
    acting: usize,
}

impl Roster {
    /// Seats for everybody whom the peering may need.
    pub fn new(acting: &[Member], history: &History) -> Self {
        let mut roster = Roster { seats: SmallVec::new(), acting: acting.len() };
        let of_part = |part: &'_ History| -> Vec<Member> {
            part.sets.iter().rev().flat_map(|(_, set)| set).chain(&part.base_set).copied().collect()
        };
        let history_members = history.parts().flat_map(|(_, part)| of_part(part));
        for member in acting.iter().copied().chain(history_members) {
            let known = roster.seats.iter().any(|seat| seat.member == member);
            if !known && roster.seats.len() < SEATS_MAX {
                roster.seats.push(Seat { member, statement: None });
            }
        }
        roster
    }

    /// All seats.
    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// All OSDs, each once.
    pub fn osds(&self) -> Vec<OsdId> {
        let mut osds: Vec<OsdId> = self.seats.iter().map(|seat| seat.member.osd).collect();
        osds.sort();
        osds.dedup();
        osds
    }

    /// The seats that satisfy a condition.
    pub fn mask(&self, condition: impl Fn(&Seat) -> bool) -> Mask {
        let satisfying = self.seats.iter().enumerate().filter(|(_, seat)| condition(seat));
        satisfying.fold(0, |mask, (index, _)| mask | 1 << index)
    }

    /// Seats of the acting members.
    pub fn acting(&self) -> Mask {
        (1u64 << self.acting) - 1
    }

    /// `R`: trusted members that answered.
    pub fn answered(&self) -> Mask {
        self.mask(|seat| seat.statement.is_some_and(|statement| statement.trusted))
    }

    /// The seats in a mask.
    pub fn in_mask(&self, mask: Mask) -> impl Iterator<Item = (u8, &Seat)> {
        let numbered = self.seats.iter().zip(0u8..);
        numbered.filter(move |(_, index)| mask >> index & 1 == 1).map(|(seat, index)| (index, seat))
    }

    /// The OSD on a seat.
    pub fn osd(&self, seat: u8) -> OsdId {
        self.seats[usize::from(seat)].member.osd
    }

    /// The role on a seat.
    pub fn role(&self, seat: u8) -> Role {
        self.seats[usize::from(seat)].member.role
    }

    /// The seat of an acting OSD.
    pub fn acting_seat(&self, osd: OsdId) -> Option<u8> {
        let found = self.seats[..self.acting].iter().zip(0u8..).find(|(seat, _)| seat.member.osd == osd);
        found.map(|(_, index)| index)
    }

    /// Takes a member's statement; false: nobody of that name has a seat.
    pub fn stated(&mut self, member: &Member, statement: Statement) -> bool {
        let seat = self.seats.iter_mut().find(|seat| seat.member == *member);
        seat.map(|seat| seat.statement = Some(statement)).is_some()
    }

    /// An OSD is out of reach: what it stated may not be true any more when it is back.
    pub fn forget(&mut self, osd: OsdId) {
        for seat in self.seats.iter_mut().filter(|seat| seat.member.osd == osd) {
            seat.statement = None;
        }
    }

    /// The members in a mask.
    pub fn members(&self, mask: Mask) -> Vec<Member> {
        self.in_mask(mask).map(|(_, seat)| seat.member).collect()
    }

    /// Whose copies of the objects in a part of the history count: the acting members, and those whom that part names.
    /// Others hold nothing there that could be missed.
    pub fn concerned(&self, part: &History) -> Mask {
        let named = |member: &Member| part.sets.iter().any(|(_, set)| set.contains(member));
        self.acting() | self.mask(|seat| part.base_set.contains(&seat.member) || named(&seat.member))
    }

    /// What history, without ancestors, says of the seats.
    pub fn grounds(&self, history: &History, k: u32, replicated: bool) -> Grounds {
        let mask = |members: &[Member]| self.mask(|seat| members.contains(&seat.member));
        let place = |(seat, index): (&Seat, u8)| if replicated { index } else { seat.member.role.0 };
        Grounds {
            k,
            base_epoch: history.base_epoch,
            last_epoch: history.last,
            answered: self.answered(),
            base: mask(&history.base_set),
            witnesses: mask(&history.witnesses),
            sets: history.sets.iter().map(|(_, set)| mask(set)).collect(),
            places: self.seats.iter().zip(0u8..).map(place).collect(),
        }
    }
}

/// The acting members of a map, in the order of their roles. In replicated pools the role is always 0.
pub fn acting_members(acting: &[Option<ActingMember>], replicated: bool) -> Vec<Member> {
    let member = |(acting, role): (&Option<ActingMember>, u8)| {
        let acting = (*acting)?;
        let role = Role(if replicated { 0 } else { role });
        Some(Member { osd: acting.osd, store: acting.store, role })
    };
    acting.iter().zip(0u8..).filter_map(member).collect()
}
