//! Straight moves: a member of an OSD that has too much goes to one that lacks.
//!
//! Such a move mends two OSDs at once, or one where the other has room, so no chain of moves is better. Members that
//! hold no data yet go first. Where the rules leave no straight way, the rest is for others.

use super::balance::{Goals, scattered};
use super::board::Board;

/// Who gives to whom: what mends two comes first.
const STAGES: [Stage; 3] =
    [Stage { from: is_over, to: is_under }, Stage { from: is_over, to: takes }, Stage { from: gives, to: is_under }];

/// Says of an OSD whether it is concerned.
type Test = fn(&Goals<'_>, &Board, usize) -> bool;

struct Stage {
    from: Test,
    to: Test,
}

fn is_over(goals: &Goals<'_>, board: &Board, osd: usize) -> bool {
    goals.is_over(board, osd)
}

fn is_under(goals: &Goals<'_>, board: &Board, osd: usize) -> bool {
    goals.is_under(board, osd)
}

fn gives(goals: &Goals<'_>, board: &Board, osd: usize) -> bool {
    goals.gives(board, osd)
}

fn takes(goals: &Goals<'_>, board: &Board, osd: usize) -> bool {
    goals.takes(board, osd)
}

/// See the module.
pub fn exchange(board: &mut Board, goals: &Goals<'_>, seed: u64) {
    let order = scattered(board, seed);
    for stage in STAGES {
        for fresh in [true, false] {
            run(board, goals, &order, &stage, fresh);
        }
    }
}

fn run(board: &mut Board, goals: &Goals<'_>, order: &[usize], stage: &Stage, fresh: bool) {
    let osds = || 0..goals.shares.len();
    let mut receivers: Vec<usize> = osds().filter(|osd| (stage.to)(goals, board, *osd)).collect();
    let mut givers = osds().filter(|osd| (stage.from)(goals, board, *osd)).count();
    for group in order {
        for slot in 0..board.size {
            if receivers.is_empty() || givers == 0 {
                return;
            }
            let place = board.group(*group)[slot];
            let Some(from) = place.osd.filter(|osd| (stage.from)(goals, board, *osd)) else { continue };
            if place.present.is_none() != fresh {
                continue;
            }
            let Some(to) = neediest(board, goals, &receivers, (*group, slot)) else { continue };
            board.set(*group, slot, Some(to));
            givers -= usize::from(!(stage.from)(goals, board, from));
            receivers.retain(|osd| *osd != to || (stage.to)(goals, board, *osd));
        }
    }
}

/// Of those who may have a place, the one that lacks most.
fn neediest(board: &Board, goals: &Goals<'_>, receivers: &[usize], (group, slot): (usize, usize)) -> Option<usize> {
    let mut best: Option<(f64, usize)> = None;
    for osd in receivers {
        let lack = goals.lack(board, *osd);
        if best.is_none_or(|(other, _)| lack > other) && board.admits(group, slot, *osd) {
            best = Some((lack, *osd));
        }
    }
    best.map(|(_, osd)| osd)
}
