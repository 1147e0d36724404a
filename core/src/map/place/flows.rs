//! Chains of moves by linear programming: what straight moves cannot mend.
//!
//! Variables: how many members move from OSD `a` to OSD `b`, at most as many as there are groups in which `b` may stand
//! in for `a`; members that came by `fill` are nearly free to move, those that hold data cost 1. Constraints: each
//! OSD ends between its share rounded down and rounded up; what cannot be reached costs [`MISS_COST`]. It is a flow,
//! so the solver's vertex is a solution in whole numbers and rounding loses nothing.
//!
//! The programme counts each pair on its own, while a group can be changed once only, so its answer is carried out as
//! far as it goes and the rest is solved again, by the caller. First only direct moves are considered; when they do not
//! help (all groups of `a` already use the domain of `b`), moves by way of third OSDs.

use super::balance::{Goals, scattered};
use super::board::Board;
use good_lp::{Expression, ProblemVariables, Solution, SolverModel, Variable, constraint, microlp, variable};
use std::collections::BTreeMap;

/// Cost of an OSD being one group off: above any number of moves that could mend it.
const MISS_COST: f64 = 100.0;
/// Cost of moving a member that holds no data yet: not 0, so that nothing moves in vain.
const FRESH_COST: f64 = 0.01;
/// Most variables of one programme: it is solved within a second.
const VARIABLES_MAX: usize = 4_000;

/// See the module.
pub fn improve(board: &mut Board, goals: &Goals<'_>, seed: u64, round: u32) {
    let before = goals.misses(board);
    for pairs in [direct_pairs, all_pairs] {
        let pairs = pairs(board, goals, round);
        let moves = solve(board, goals, &pairs);
        carry_out(board, &moves, seed);
        if goals.misses(board) < before {
            return;
        }
    }
}

/// From, to.
type Pair = (usize, usize);

/// Pairs of which one is out of its bounds and the other can help.
fn direct_pairs(board: &Board, goals: &Goals<'_>, round: u32) -> Vec<Pair> {
    let osds = 0..goals.shares.len();
    let useful = |a: usize, b: usize| {
        let relieves = goals.is_over(board, a) && goals.takes(board, b);
        a != b && (relieves || (goals.gives(board, a) && goals.is_under(board, b)))
    };
    let pairs = osds.clone().flat_map(|a| osds.clone().map(move |b| (a, b))).filter(|(a, b)| useful(*a, *b));
    thin_out(pairs.collect(), round)
}

/// All pairs of OSDs out of bounds with everybody, and of the others among themselves as far as there is room.
fn all_pairs(board: &Board, goals: &Goals<'_>, round: u32) -> Vec<Pair> {
    let off = |osd: usize| goals.miss(board, osd) > 0;
    let osds = 0..goals.shares.len();
    let pairs = osds.clone().flat_map(|a| osds.clone().map(move |b| (a, b))).filter(|(a, b)| a != b);
    let (first, rest): (Vec<Pair>, Vec<Pair>) = pairs.partition(|(a, b)| off(*a) || off(*b));
    let mut chosen = thin_out(first, round);
    let room = VARIABLES_MAX - chosen.len();
    chosen.extend(thin_out_to(rest, round, room));
    chosen
}

fn thin_out(pairs: Vec<Pair>, round: u32) -> Vec<Pair> {
    thin_out_to(pairs, round, VARIABLES_MAX)
}

/// Every n-th pair, other ones each round, so that at most `limit` are left.
fn thin_out_to(pairs: Vec<Pair>, round: u32, limit: usize) -> Vec<Pair> {
    if limit == 0 {
        return Vec::new();
    }
    let step = pairs.len().div_ceil(limit).max(1);
    pairs.into_iter().skip(usize::try_from(round).unwrap_or(0) % step).step_by(step).collect()
}

/// How many groups there are in which one may stand in for the other: with members that hold no data, and with others.
#[derive(Clone, Copy, Default)]
struct Room {
    fresh: u32,
    data: u32,
}

fn rooms(board: &Board, pairs: &[Pair]) -> Vec<Room> {
    let mut by_sender: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
    for (index, (from, to)) in pairs.iter().enumerate() {
        by_sender.entry(*from).or_default().push((*to, index));
    }
    let mut rooms = vec![Room::default(); pairs.len()];
    for group in 0..board.group_count() {
        for (slot, place) in board.group(group).iter().enumerate() {
            let receivers = place.osd.and_then(|osd| by_sender.get(&osd));
            for (to, index) in receivers.into_iter().flatten() {
                if board.admits(group, slot, *to) {
                    let room = &mut rooms[*index];
                    if place.present.is_none() { room.fresh += 1 } else { room.data += 1 }
                }
            }
        }
    }
    rooms
}

/// Members to move: from, to, how many.
type Moves = Vec<(Pair, u32)>;

fn solve(board: &Board, goals: &Goals<'_>, pairs: &[Pair]) -> Moves {
    let shares = goals.shares;
    let rooms = rooms(board, pairs);
    let mut variables = ProblemVariables::new();
    let mut balance: Vec<Expression> = board.count.iter().map(|n| Expression::from(f64::from(*n))).collect();
    let mut cost = Expression::from(0.0);
    let mut flows: Vec<(Pair, Variable)> = Vec::new();
    for ((from, to), room) in pairs.iter().zip(&rooms) {
        for (limit, price) in [(room.fresh, FRESH_COST), (room.data, 1.0)] {
            if limit > 0 {
                let flow = variables.add(variable().min(0.0).max(f64::from(limit)));
                balance[*from] -= flow;
                balance[*to] += flow;
                cost += price * flow;
                flows.push(((*from, *to), flow));
            }
        }
    }
    let misses: Vec<(Variable, Variable)> =
        shares.iter().map(|_| (variables.add(variable().min(0.0)), variables.add(variable().min(0.0)))).collect();
    for (below, above) in &misses {
        cost += MISS_COST * (*below + *above);
    }
    let mut model = variables.minimise(cost).using(microlp);
    for ((share, level), (below, above)) in shares.iter().zip(balance).zip(misses) {
        model = model.with(constraint!(level.clone() + below >= f64::from(share.low)));
        model = model.with(constraint!(level - above <= f64::from(share.high)));
    }
    // With the misses every programme has a solution; should the solver give up all the same, nothing moves.
    let Ok(solution) = model.solve() else { return Vec::new() };
    flows.iter().map(|(pair, flow)| (*pair, rounded(solution.value(*flow)))).filter(|(_, n)| *n > 0).collect()
}

/// The whole number that the solver means.
fn rounded(value: f64) -> u32 {
    (0..).find(|n| f64::from(*n) + 0.5 > value).unwrap_or(0)
}

fn carry_out(board: &mut Board, moves: &Moves, seed: u64) {
    let mut wanted: BTreeMap<Pair, u32> = BTreeMap::new();
    for (pair, number) in moves {
        *wanted.entry(*pair).or_default() += number;
    }
    let mut of_sender: BTreeMap<usize, Vec<(usize, u32)>> = BTreeMap::new();
    for ((from, to), number) in wanted {
        of_sender.entry(from).or_default().push((to, number));
    }
    let order = scattered(board, seed);
    for fresh in [true, false] {
        for group in &order {
            move_members(board, *group, fresh, &mut of_sender);
        }
    }
}

/// Lets the members of one group go where the solution wants one of theirs.
fn move_members(board: &mut Board, group: usize, fresh: bool, wanted: &mut BTreeMap<usize, Vec<(usize, u32)>>) {
    for slot in 0..board.size {
        let place = board.group(group)[slot];
        if place.present.is_none() != fresh {
            continue;
        }
        let Some(receivers) = place.osd.and_then(|osd| wanted.get_mut(&osd)) else { continue };
        let open = |(to, number): &&mut (usize, u32)| *number > 0 && board.admits(group, slot, *to);
        if let Some((to, number)) = receivers.iter_mut().find(open) {
            *number -= 1;
            board.set(group, slot, Some(*to));
        }
    }
}
