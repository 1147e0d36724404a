//! Fills empty places.
//!
//! A group draws OSDs with a probability in proportion to what they still lack, under the rules. So groups are spread over
//! many different sets of OSDs, and a failed OSD's data is recovered from many others. A node that must be in every group
//! that is still to come is taken first. Members that stand in the way of a full group move, as few as possible.

use super::Possible;
use super::board::Board;
use super::choose::Search;
use super::shares::{Share, float};
use crate::rng::Rng;
use std::cell::Cell;

/// Price of an OSD that has its share already: above all that lack something.
const FULL: f64 = 1e6;
/// Price of moving a member that could stay.
const MOVE: f64 = 1e9;
/// Members that are tried to be moved at the same time for the sake of a full group; beyond, all may move.
const RELEASED_MAX: usize = 3;
/// Tries for one arrangement of a group whose members are given but for some.
const TRIES: u32 = 200;

/// How to fill.
pub struct Order {
    /// What a group can be at best.
    pub possible: Possible,
    /// Tries for a group in which all may move.
    pub tries: u32,
    /// For the draws.
    pub seed: u64,
}

/// See the module.
pub fn fill(board: &mut Board, shares: &[Share], order: &Order) {
    let open: Vec<usize> = (0..board.group_count()).filter(|group| is_open(board, *group, order.possible)).collect();
    let mut rng = Rng::new(order.seed);
    for (done, group) in open.iter().enumerate() {
        let prices = prices(board, shares, float(open.len() - done), &mut rng);
        fill_group(board, *group, &prices, order);
    }
}

/// Whether a group lacks members, or wishes that could be met are not.
fn is_open(board: &Board, group: usize, possible: Possible) -> bool {
    let holes = board.group(group).iter().filter(|slot| slot.osd.is_none()).count();
    holes > 0 || board.unmet(group) > possible.unmet
}

/// Random prices: the cheapest of several OSDs is a draw in proportion to what they lack (nearly: of many, the least of
/// uniform numbers divided by weights is distributed like the least of exponential ones).
fn prices(board: &Board, shares: &[Share], groups_left: f64, rng: &mut Rng) -> Vec<f64> {
    let lacks: Vec<f64> = shares.iter().zip(&board.count).map(|(share, n)| share.exact - f64::from(*n)).collect();
    let draw = |lack: &f64| {
        let point = unit(rng);
        if *lack > 0.0 { point / lack } else { FULL * (1.0 - lack) + point }
    };
    let mut prices: Vec<f64> = lacks.iter().map(draw).collect();
    for level in 0..board.terms.levels() {
        let limit = float(board.terms.capacity(level)) * (groups_left - 0.5);
        let mut lack_of = vec![0.0; board.terms.node_count(level)];
        lacks.iter().enumerate().for_each(|(osd, lack)| lack_of[board.terms.node(level, osd)] += lack);
        let urgent = |osd: usize| lack_of[board.terms.node(level, osd)] > limit;
        prices.iter_mut().enumerate().filter(|(osd, _)| urgent(*osd)).for_each(|(_, price)| *price /= FULL);
    }
    prices
}

fn fill_group(board: &mut Board, group: usize, prices: &[f64], order: &Order) {
    let members = board.members(group);
    let empty: Vec<usize> = (0..members.len()).filter(|slot| members[*slot].is_none()).collect();
    let sought = Sought { board, group, prices, tries: Cell::new(order.tries) };
    let mut found = None;
    for holes in order.possible.holes..=members.len() {
        sought.tries.set(order.tries);
        let most = if holes == order.possible.holes { RELEASED_MAX } else { 0 };
        found = (0..=most).find_map(|released| sought.release(&empty, released, holes));
        if found.is_none() && holes == order.possible.holes {
            found = sought.attempt(&(0..members.len()).collect::<Vec<_>>(), holes, order.tries);
        }
        if found.is_some() {
            break;
        }
    }
    if let Some(found) = found {
        board.set_members(group, &found);
    }
    if board.unmet(group) > order.possible.unmet {
        meet_wishes(board, group, prices, order);
    }
}

/// Lets members move whose wishes could be met, if that helps.
fn meet_wishes(board: &mut Board, group: usize, prices: &[f64], order: &Order) {
    let all: Vec<usize> = (0..board.size).collect();
    let (holes, unmet) = (board.group(group).iter().filter(|slot| slot.osd.is_none()).count(), board.unmet(group));
    let sought = Sought { board, group, prices, tries: Cell::new(order.tries) };
    let better = |members: &Vec<Option<usize>>| board.terms.all_unmet(|part| members[part]) < unmet;
    let members = board.members(group);
    let at = |part: usize| members[part];
    let failing: Vec<usize> =
        all.iter().copied().filter(|s| at(*s).is_some_and(|osd| board.terms.unmet(*s, osd, at) > 0)).collect();
    let few = sought.attempt(&failing, holes, TRIES).filter(better);
    if let Some(found) = few.or_else(|| sought.attempt(&all, holes, order.tries).filter(better)) {
        board.set_members(group, &found);
    }
}

/// A group that is to be arranged.
struct Sought<'a> {
    board: &'a Board,
    group: usize,
    prices: &'a [f64],
    /// Left for all attempts with as many holes.
    tries: Cell<u32>,
}

impl Sought<'_> {
    /// Fills the empty places, moving so many others.
    fn release(&self, empty: &[usize], released: usize, holes: usize) -> Option<Vec<Option<usize>>> {
        let taken: Vec<usize> = (0..self.board.size).filter(|slot| !empty.contains(slot)).collect();
        let mut best: Option<(f64, Vec<Option<usize>>)> = None;
        for chosen in combinations(taken.len(), released) {
            let mut open: Vec<usize> = empty.iter().copied().chain(chosen.iter().map(|i| taken[*i])).collect();
            open.sort_unstable();
            let Some(found) = self.attempt(&open, holes, TRIES) else { continue };
            let price = found.iter().flatten().map(|osd| self.prices[*osd]).sum();
            if best.as_ref().is_none_or(|(other, _)| price < *other) {
                best = Some((price, found));
            }
        }
        best.map(|(_, members)| members)
    }

    fn attempt(&self, open: &[usize], holes: usize, tries: u32) -> Option<Vec<Option<usize>>> {
        let slots = self.board.group(self.group);
        let mut members = self.board.members(self.group);
        open.iter().for_each(|slot| members[*slot] = None);
        let price = |part: usize, osd: usize| {
            let moves = slots[part].present.is_some_and(|present| present != osd);
            self.prices[osd] + if moves { MOVE } else { 0.0 }
        };
        let tries = tries.min(self.tries.get());
        let mut search = Search { terms: &self.board.terms, price, tries };
        let done = search.complete(&mut members, open, holes);
        self.tries.set(self.tries.get() - (tries - search.tries));
        done.then_some(members)
    }
}

/// All sets of `chosen` numbers below `of`.
fn combinations(of: usize, chosen: usize) -> Vec<Vec<usize>> {
    if chosen == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for last in 0..of {
        for mut rest in combinations(last, chosen - 1) {
            rest.push(last);
            all.push(rest);
        }
    }
    all
}

/// A number from 0 to below 1.
pub fn unit(rng: &mut Rng) -> f64 {
    let bits = u32::try_from(rng.next_u64() >> 32).expect("the upper half");
    f64::from(bits) / 4_294_967_296.0
}
