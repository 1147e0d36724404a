//! Placement: which OSDs each group of a pool should live on. Pure functions.
//!
//! Owns the choice; does not own when it is made nor what becomes of it (the monitor).
//!
//! Stages, each in its file:
//! 1. `terms`: the pool's rules in terms of its OSDs.
//! 2. `shares`: how many groups each OSD should carry: in proportion to its weight, as far as the rules let it (what it
//!    cannot carry goes to the others).
//! 3. `fill`: places that are empty or no longer allowed get OSDs, drawn at random by what these still lack, so that the
//!    groups of one OSD are spread over many others.
//! 4. `balance`: the fewest moves that bring every OSD to its share, rounded down or up. Members go from OSDs that have
//!    too much straight to those that lack (`exchange`); what is left, chains by way of third OSDs, is a linear programme
//!    (`flows`: its matrix is that of a flow, so its solution is whole numbers); members that rules tie together move
//!    together (`regroup`).
//!
//! Invariants: the rules are kept in every group; a group has as many members as the rules and OSDs admit, and holes
//! otherwise; a placement that is right is not touched; the same problem has the same solution everywhere.

mod balance;
mod board;
pub mod bound;
mod choose;
mod exchange;
pub mod figures;
mod fill;
mod flows;
mod regroup;
mod shares;
pub mod survey;
mod terms;

use super::rules::Rules;
use crate::id::OsdId;
use board::Board;
use choose::Search;
use shares::Share;
use std::collections::BTreeMap;
use terms::Terms;

/// An OSD that may be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its number.
    pub osd: OsdId,
    /// Its relative size; above 0.
    pub weight: f64,
    /// Its node on each of the problem's levels.
    pub nodes: Vec<String>,
}

/// What is to be solved.
#[derive(Clone, Debug)]
pub struct Problem<'a> {
    /// OSDs that may be used, each once.
    pub candidates: &'a [Candidate],
    /// The levels that rules name.
    pub levels: &'a [String],
    /// What a group must be like.
    pub rules: &'a Rules,
    /// The present placement, one entry for each group; empty ones for new groups.
    pub present: &'a [Vec<Option<OsdId>>],
    /// Sets of OSDs that are tried for one group before it makes do with fewer members.
    pub max_combinations: u32,
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
    /// Moved and filled places that no solution can do without: what OSDs lack, or what others have too much together
    /// with the empty places, whichever is more.
    pub least: usize,
}

/// What the rules allow at best, whatever the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Possible {
    /// Places of a group that stay empty.
    pub holes: usize,
    /// Wishes that stay unmet.
    pub unmet: usize,
}

impl Problem<'_> {
    /// Candidates that count, in order.
    fn candidates(&self) -> Vec<&Candidate> {
        let mut candidates: Vec<&Candidate> = self.candidates.iter().filter(|c| c.weight > 0.0).collect();
        candidates.sort_by_key(|candidate| candidate.osd);
        candidates.dedup_by_key(|candidate| candidate.osd);
        candidates
    }

    /// The rules in terms of the candidates.
    fn terms(&self, candidates: &[&Candidate]) -> Terms {
        Terms::new(self.rules, self.levels, candidates)
    }

    /// What a group can be at best.
    pub fn possible(&self) -> Possible {
        possible(&self.terms(&self.candidates()), self.max_combinations)
    }
}

/// Solves a problem.
pub fn place(problem: &Problem<'_>) -> Placement {
    let candidates = problem.candidates();
    let terms = problem.terms(&candidates);
    let possible = possible(&terms, problem.max_combinations);
    let weights: Vec<f64> = candidates.iter().map(|candidate| candidate.weight).collect();
    let shares = shares::shares(problem.rules, &terms, &weights, problem.present.len(), possible.holes);
    let mut board = set_up(problem, &candidates, terms);
    let least = least_changes(&board, &shares, possible.holes);
    fill::fill(&mut board, &shares, &fill::Order { possible, tries: problem.max_combinations, seed: problem.seed });
    balance::balance(&mut board, &shares, problem.seed);
    board.check();
    solution(&board, &candidates, least)
}

/// See [`Placement::least`].
fn least_changes(board: &Board, shares: &[Share], holes: usize) -> usize {
    let pairs = || board.count.iter().zip(shares);
    let lack: u32 = pairs().map(|(count, share)| share.low.saturating_sub(*count)).sum();
    let excess: u32 = pairs().map(|(count, share)| count.saturating_sub(share.high)).sum();
    let empty = board.groups().map(|slots| slots.iter().filter(|slot| slot.osd.is_none()).count());
    let to_fill: usize = empty.map(|empty| empty.saturating_sub(holes)).sum();
    let whole = |number: u32| usize::try_from(number).expect("members are counted in 32 bits");
    whole(lack).max(whole(excess) + to_fill)
}

fn possible(terms: &Terms, tries: u32) -> Possible {
    let open: Vec<usize> = (0..terms.size()).collect();
    for holes in 0..terms.size() {
        let mut members = vec![None; terms.size()];
        let mut search = Search { terms, price: |_, _| 0.0, tries };
        if search.complete(&mut members, &open, holes) {
            return Possible { holes, unmet: terms.all_unmet(|part| members[part]) };
        }
    }
    Possible { holes: terms.size(), unmet: 0 }
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
fn set_up(problem: &Problem<'_>, candidates: &[&Candidate], terms: Terms) -> Board {
    let index: BTreeMap<OsdId, usize> = candidates.iter().enumerate().map(|(i, c)| (c.osd, i)).collect();
    let mut board = Board::new(terms, problem.present.len());
    for (group, members) in problem.present.iter().enumerate() {
        for (slot, member) in members.iter().enumerate().take(board.size) {
            let known = member.and_then(|osd| index.get(&osd).copied());
            let right = |osd: &usize| board.terms.admits(slot, *osd, |part| board.group(group)[part].osd);
            if let Some(osd) = known.filter(right) {
                board.set_present(group, slot, osd);
            }
        }
    }
    board
}

fn solution(board: &Board, candidates: &[&Candidate], least: usize) -> Placement {
    let osd_of = |slot: &board::Slot| slot.osd.map(|osd| candidates[osd].osd);
    let groups = board.groups().map(|slots| slots.iter().map(osd_of).collect()).collect();
    let slots = || board.groups().flatten();
    let moves = slots().filter(|slot| slot.present.is_some() && slot.present != slot.osd).count();
    let filled = slots().filter(|slot| slot.present.is_none() && slot.osd.is_some()).count();
    Placement { groups, moves, filled, least }
}

/// Knows the rules of a problem, for whoever arranges members of groups.
pub struct Keeper<'a> {
    candidates: Vec<&'a Candidate>,
    terms: Terms,
}

impl<'a> Keeper<'a> {
    /// That of a problem.
    pub fn new(problem: &'a Problem<'_>) -> Keeper<'a> {
        let candidates = problem.candidates();
        Keeper { terms: problem.terms(&candidates), candidates }
    }

    /// Whether a group's members are as the rules say; members that are no candidates are passed over.
    pub fn keeps(&self, members: &[Option<OsdId>]) -> bool {
        let find = |osd: OsdId| self.candidates.binary_search_by_key(&osd, |candidate| candidate.osd).ok();
        let members: Vec<Option<usize>> = members.iter().map(|member| member.and_then(find)).collect();
        let at = |part: usize| members.get(part).copied().flatten();
        (0..self.terms.size()).all(|part| at(part).is_none_or(|osd| self.terms.admits(part, osd, at)))
    }

    /// Changes members if they keep the rules then.
    pub fn change(&self, members: &mut [Option<OsdId>], change: impl FnOnce(&mut [Option<OsdId>])) {
        let mut changed = members.to_vec();
        change(&mut changed);
        if self.keeps(&changed) {
            members.copy_from_slice(&changed);
        }
    }
}

#[cfg(test)]
mod tests;
