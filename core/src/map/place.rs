//! Placement: which OSDs each group of a pool should live on. Pure functions.
//!
//! Owns the choice; does not own when it is made nor what becomes of it (the monitor).
//!
//! Stages, each in its file:
//! 1. `shares`: how many groups each OSD should carry: in proportion to its weight, but no failure domain more than one
//!    member of every group (what it cannot carry goes to the others).
//! 2. `fill`: places that are empty or no longer allowed get OSDs, drawn at random by what these still lack.
//! 3. `balance`: a linear programme finds the fewest moves that bring every OSD to its share, rounded down or up (its
//!    lower bounds keep single OSDs from starving); its matrix is that of a flow, so its solution is whole numbers.
//!
//! Invariants: members of a group never share a failure domain; a group has as many members as there are failure
//! domains, up to `pg_size`, and holes otherwise; a placement that is right is not touched; the same problem has the
//! same solution everywhere.

mod balance;
mod board;
pub mod domains;
mod fill;
mod shares;

use crate::id::OsdId;
use board::Board;
use std::collections::BTreeMap;

/// An OSD that may be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its number.
    pub osd: OsdId,
    /// Its relative size; above 0.
    pub weight: f64,
    /// Its failure domain.
    pub domain: String,
}

/// What is to be solved.
#[derive(Clone, Debug)]
pub struct Problem<'a> {
    /// OSDs that may be used, each once.
    pub candidates: &'a [Candidate],
    /// Members of a group.
    pub pg_size: usize,
    /// The present placement, one entry for each group; empty ones for new groups.
    pub present: &'a [Vec<Option<OsdId>>],
    /// Spreads pools differently.
    pub seed: u64,
}

/// A solution.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// Members of each group by slot; members that stay keep their slots.
    pub groups: Vec<Vec<Option<OsdId>>>,
    /// Members that were present and allowed, and still were replaced.
    pub moves: usize,
    /// Members that came to places that were empty or not allowed any more.
    pub filled: usize,
}

/// Solves a problem.
pub fn place(problem: &Problem<'_>) -> Placement {
    let mut candidates: Vec<&Candidate> = problem.candidates.iter().filter(|c| c.weight > 0.0).collect();
    candidates.sort_by_key(|candidate| candidate.osd);
    candidates.dedup_by_key(|candidate| candidate.osd);
    let mut board = set_up(problem, &candidates);
    let weights: Vec<f64> = candidates.iter().map(|candidate| candidate.weight).collect();
    let shares = shares::shares(&weights, &board.domain_of, board.domains, problem.present.len(), problem.pg_size);
    fill::fill(&mut board, &shares, problem.seed);
    balance::balance(&mut board, &shares, problem.seed);
    board.check();
    solution(&board, &candidates)
}

/// Lets members that stay in a group stay in their places: there are their data, if places are roles. `homes` says who is
/// where now.
pub fn keep_places(members: &mut [Option<OsdId>], homes: &[Option<OsdId>]) {
    for slot in 0..members.len() {
        let home = |osd: Option<OsdId>| homes.iter().take(members.len()).position(|home| osd.is_some() && *home == osd);
        let mut settled = members.to_vec();
        // Each exchange brings a member home for good, so there are not more of them than members.
        for _ in 0..members.len() {
            match home(settled[slot]).filter(|home| *home != slot) {
                Some(home) => settled.swap(slot, home),
                None => break,
            }
        }
        members.copy_from_slice(&settled);
    }
}

/// Gives a place that changes hands to a new member in the domain of the old one, if there is one: then both need not be
/// there at the same time for the others to move. Members that stay are in their places already.
pub fn keep_domains<D: PartialEq>(
    members: &mut [Option<OsdId>],
    homes: &[Option<OsdId>],
    domain: impl Fn(OsdId) -> Option<D>,
) {
    let home = |slot: usize| homes.get(slot).copied().flatten();
    let fits = |slot: usize, osd: Option<OsdId>| {
        home(slot).and_then(&domain).is_some_and(|wanted| osd.and_then(&domain).is_some_and(|is| is == wanted))
    };
    for slot in 0..members.len() {
        if fits(slot, members[slot]) {
            continue;
        }
        let other = (0..members.len()).find(|other| fits(slot, members[*other]) && !fits(*other, members[*other]));
        if let Some(other) = other {
            members.swap(slot, other);
        }
    }
}

/// The board as it is at present, without members that are not allowed where they are.
fn set_up(problem: &Problem<'_>, candidates: &[&Candidate]) -> Board {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut domain_of = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        let next = names.len();
        domain_of.push(*names.entry(&candidate.domain).or_insert(next));
    }
    let index: BTreeMap<OsdId, usize> = candidates.iter().enumerate().map(|(i, c)| (c.osd, i)).collect();
    let mut board = Board::new(domain_of, names.len(), problem.present.len(), problem.pg_size);
    for (group, members) in problem.present.iter().enumerate() {
        for (slot, member) in members.iter().enumerate().take(problem.pg_size) {
            let known = member.and_then(|osd| index.get(&osd).copied());
            if let Some(osd) = known.filter(|osd| board.admits(group, slot, *osd)) {
                board.set_present(group, slot, osd);
            }
        }
    }
    board
}

fn solution(board: &Board, candidates: &[&Candidate]) -> Placement {
    let osd_of = |slot: &board::Slot| slot.osd.map(|osd| candidates[osd].osd);
    let groups = board.groups().map(|slots| slots.iter().map(osd_of).collect()).collect();
    let slots = || board.groups().flatten();
    let moves = slots().filter(|slot| slot.present.is_some() && slot.present != slot.osd).count();
    let filled = slots().filter(|slot| slot.present.is_none() && slot.osd.is_some()).count();
    Placement { groups, moves, filled }
}

#[cfg(test)]
mod tests;
