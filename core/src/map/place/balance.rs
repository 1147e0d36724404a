//! Brings every OSD to its share with the fewest moves.
//!
//! Owns the goals and the order of the means: straight exchanges as long as they help, then chains by a linear programme,
//! then members that move together; and again.

use super::board::Board;
use super::shares::Share;
use super::{exchange, flows, regroup};

/// Most rounds; one or two are usual.
const ROUNDS_MAX: u32 = 24;
/// Rounds without progress before the best so far has to do: means that go astray may still open a way for others.
const STUCK_MAX: u32 = 2;

/// What is to be reached: each OSD between its share rounded down and rounded up.
pub struct Goals<'a> {
    /// By OSD.
    pub shares: &'a [Share],
}

impl Goals<'_> {
    /// Carries more than it should.
    pub fn is_over(&self, board: &Board, osd: usize) -> bool {
        board.count[osd] > self.shares[osd].high
    }

    /// Carries less than it should.
    pub fn is_under(&self, board: &Board, osd: usize) -> bool {
        board.count[osd] < self.shares[osd].low
    }

    /// May carry one less.
    pub fn gives(&self, board: &Board, osd: usize) -> bool {
        board.count[osd] > self.shares[osd].low
    }

    /// May carry one more.
    pub fn takes(&self, board: &Board, osd: usize) -> bool {
        board.count[osd] < self.shares[osd].high
    }

    /// By how many groups an OSD misses its goal.
    pub fn miss(&self, board: &Board, osd: usize) -> u32 {
        let (count, share) = (board.count[osd], &self.shares[osd]);
        count.saturating_sub(share.high) + share.low.saturating_sub(count)
    }

    /// By how many groups all miss theirs.
    pub fn misses(&self, board: &Board) -> u32 {
        (0..self.shares.len()).map(|osd| self.miss(board, osd)).sum()
    }

    /// What an OSD lacks up to its exact share.
    pub fn lack(&self, board: &Board, osd: usize) -> f64 {
        self.shares[osd].exact - f64::from(board.count[osd])
    }
}

/// See the module.
pub fn balance(board: &mut Board, shares: &[Share], seed: u64) {
    let goals = Goals { shares };
    let mut best: Option<(u32, Board)> = None;
    let mut stuck = 0;
    for round in 0..ROUNDS_MAX {
        // Another order of groups each time: what led into a dead end is not done again.
        let seed = seed.wrapping_add(u64::from(round) << 32);
        exchange::exchange(board, &goals, seed);
        let misses = goals.misses(board);
        if misses == 0 {
            return;
        }
        match &best {
            Some((least, _)) if misses >= *least => stuck += 1,
            _ => (best, stuck) = (Some((misses, board.clone())), 0),
        }
        if stuck > STUCK_MAX {
            break;
        }
        flows::improve(board, &goals, seed, round);
        if goals.misses(board) >= misses {
            regroup::regroup(board, &goals, seed);
        }
    }
    if let Some((_, best)) = best {
        *board = best;
    }
}

/// Groups in an order that has nothing to do with their numbers (multiplicative hashing by the golden ratio).
pub fn scattered(board: &Board, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..board.group_count()).collect();
    order.sort_by_cached_key(|group| {
        let number = u64::try_from(*group).expect("groups are counted in 32 bits");
        (number ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xff51_afd7_ed55_8ccd)
    });
    order
}
