//! Members that move together: rules tie parts of a group to one node, so none of them can leave it alone.
//!
//! One group after the other is arranged anew, as a whole or in one class of tied parts, at prices that draw it away from
//! OSDs and nodes that have too much and towards those that lack; it stays so if that brings more than the moves cost.

use super::balance::{Goals, scattered};
use super::board::Board;
use super::choose::Search;
use super::shares::float;

/// Value of one group that an OSD misses no more, in moves.
const MISS_COST: f64 = 100.0;
/// Value of what a node of tied parts lacks no more, per member, in moves: the OSDs in it can follow then.
const NODE_COST: f64 = 20.0;
/// Cost of moving a member that holds no data yet.
const FRESH_COST: f64 = 0.01;
/// Draws towards emptier ones among those that are within their goals: below the cost of any move.
const TASTE: f64 = 0.005;
/// OSDs looked at in all attempts together: about a second.
const WORK_MAX: usize = 20_000_000;
/// OSDs tried for one arrangement.
const TRIES: u32 = 64;

/// See the module.
pub fn regroup(board: &mut Board, goals: &Goals<'_>, seed: u64) {
    let mut market = Market::new(board, goals);
    let attempts = WORK_MAX / (board.terms.osds() * board.size).max(1);
    let classes = classes(board);
    let order = scattered(board, seed);
    let mut left = attempts;
    let (whole, parts): (Vec<_>, Vec<_>) = classes.into_iter().partition(|open| open.len() == board.size);
    for (classes, whole) in [(parts, false), (whole, true)] {
        for group in &order {
            for open in &classes {
                if left == 0 || goals.misses(board) == 0 {
                    return;
                }
                if whole || market.is_concerned(board, *group, open) {
                    left -= 1;
                    market.rearrange(board, *group, open);
                }
            }
        }
    }
}

/// Sets of parts that are arranged together: the tied ones, and all.
fn classes(board: &Board) -> Vec<Vec<usize>> {
    let mut classes: Vec<Vec<usize>> = (0..board.size).map(|part| board.terms.tied(part)).collect();
    classes.push((0..board.size).collect());
    classes.iter_mut().for_each(|class| class.sort_unstable());
    classes.sort();
    classes.dedup();
    classes
}

/// A level on which parts are tied.
struct Tied {
    level: usize,
    /// Members that come and go together, at most.
    step: f64,
    /// By node.
    exact: Vec<f64>,
    count: Vec<f64>,
}

impl Tied {
    /// What a node misses, beyond what whole classes of parts must make it miss.
    fn miss(&self, node: usize) -> f64 {
        ((self.count[node] - self.exact[node]).abs() - self.step).max(0.0)
    }

    /// What one member more is worth to it: above 0 if it has too much.
    fn slope(&self, node: usize) -> f64 {
        let over = self.count[node] - self.exact[node];
        if over.abs() > self.step { NODE_COST * over.signum() } else { 0.0 }
    }
}

struct Market<'a> {
    goals: &'a Goals<'a>,
    tied: Vec<Tied>,
}

impl<'a> Market<'a> {
    fn new(board: &Board, goals: &'a Goals<'a>) -> Market<'a> {
        let leads = (0..board.size).filter_map(|part| board.terms.lead(part));
        let mut steps = vec![0; board.terms.levels()];
        leads.for_each(|lead| steps[lead.level] = steps[lead.level].max(lead.followers.len() + 1));
        let tied = |(level, step): (usize, &usize)| {
            let nodes = board.terms.node_count(level);
            let (mut exact, mut count) = (vec![0.0; nodes], vec![0.0; nodes]);
            for (osd, share) in goals.shares.iter().enumerate() {
                exact[board.terms.node(level, osd)] += share.exact;
                count[board.terms.node(level, osd)] += f64::from(board.count[osd]);
            }
            (*step > 0).then(|| Tied { level, step: float(*step), exact, count })
        };
        Market { goals, tied: steps.iter().enumerate().filter_map(tied).collect() }
    }

    /// Whether one of the parts is on an OSD or node that has too much, or some OSD lacks.
    fn is_concerned(&self, board: &Board, group: usize, parts: &[usize]) -> bool {
        let over = |osd: usize| {
            self.goals.is_over(board, osd) || self.tied.iter().any(|t| t.slope(board.terms.node(t.level, osd)) > 0.0)
        };
        parts.iter().filter_map(|part| board.group(group)[*part].osd).any(over)
            || (0..self.goals.shares.len()).any(|osd| self.goals.is_under(board, osd))
    }

    fn set(&mut self, board: &mut Board, group: usize, members: &[Option<usize>]) {
        let mut change = |board: &Board, by: f64| {
            for osd in board.group(group).iter().filter_map(|slot| slot.osd) {
                self.tied.iter_mut().for_each(|tied| tied.count[board.terms.node(tied.level, osd)] += by);
            }
        };
        change(board, -1.0);
        board.set_members(group, members);
        change(board, 1.0);
    }

    /// What is wrong with these OSDs and their nodes, and what was moved in the group.
    fn cost(&self, board: &Board, group: usize, osds: &[usize]) -> f64 {
        let mut cost = 0.0;
        for osd in osds {
            let lack = self.goals.lack(board, *osd);
            cost += MISS_COST * f64::from(self.goals.miss(board, *osd));
            cost += TASTE * lack * lack / (self.goals.shares[*osd].exact + 1.0);
        }
        for tied in &self.tied {
            let mut nodes: Vec<usize> = osds.iter().map(|osd| board.terms.node(tied.level, *osd)).collect();
            nodes.sort_unstable();
            nodes.dedup();
            cost += nodes.iter().map(|node| NODE_COST * tied.miss(*node)).sum::<f64>();
        }
        let moved = |slot: &super::board::Slot| match slot.present {
            Some(present) if slot.osd != Some(present) => 1.0,
            _ => 0.0,
        };
        cost + board.group(group).iter().map(moved).sum::<f64>()
    }

    fn price(&self, board: &Board, osd: usize) -> f64 {
        let share = &self.goals.shares[osd];
        let own = if self.goals.is_under(board, osd) {
            -MISS_COST
        } else if self.goals.takes(board, osd) {
            0.0
        } else {
            MISS_COST
        };
        let nodes: f64 = self.tied.iter().map(|tied| tied.slope(board.terms.node(tied.level, osd))).sum();
        own + nodes - TASTE * self.goals.lack(board, osd) / (share.exact + 1.0)
    }

    /// Arranges the open parts of a group anew; it stays as it was unless that is better.
    fn rearrange(&mut self, board: &mut Board, group: usize, open: &[usize]) {
        let old = board.members(group);
        let unmet = board.unmet(group);
        let holes = open.iter().filter(|part| old[**part].is_none()).count();
        let mut members = old.clone();
        open.iter().for_each(|part| members[*part] = None);
        self.set(board, group, &members);
        let prices: Vec<f64> = (0..board.terms.osds()).map(|osd| self.price(board, osd)).collect();
        let slots = board.group(group);
        let price = |part: usize, osd: usize| {
            let stays = slots[part].present == Some(osd);
            let cost = if slots[part].present.is_some() { 1.0 } else { FRESH_COST };
            prices[osd] + if stays || old[part] == Some(osd) { 0.0 } else { cost }
        };
        let mut search = Search { terms: &board.terms, price, tries: TRIES };
        let found = search.complete(&mut members, open, holes);
        self.set(board, group, &old);
        if !found || members == old || board.terms.all_unmet(|part| members[part]) > unmet {
            return;
        }
        let mut concerned: Vec<usize> = old.iter().chain(&members).copied().flatten().collect();
        concerned.sort_unstable();
        concerned.dedup();
        let before = self.cost(board, group, &concerned);
        self.set(board, group, &members);
        if self.cost(board, group, &concerned) >= before - FRESH_COST {
            self.set(board, group, &old);
        }
    }
}
