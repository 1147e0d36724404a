//! What OSDs can hold under the rules at best, by linear programming over sets of OSDs.
//!
//! Primal: how much data to put on each set that the rules allow, so that no OSD holds more than its weight; the most in
//! all. There are too many sets to name, so its dual is solved: prices of OSDs, no allowed set cheaper than 1, the least
//! value of all weights. Sets are added where prices make them too cheap, until none is (row generation).

use super::Problem;
use super::choose::Search;
use super::terms::Terms;
use super::{Possible, possible};
use crate::rng::Rng;
use good_lp::{Expression, ProblemVariables, Solution, SolverModel, constraint, microlp, variable};
use std::collections::BTreeSet;

/// The value is exact to this part of it.
const EXACTNESS: f64 = 0.0005;
/// Weight of the best prices so far in a search: prices of single programmes jump to and fro.
const STEADY: f64 = 0.6;
/// Programmes at most.
const ROUNDS_MAX: usize = 200;
/// Sets sought for each programme: at slightly different prices, so that several are found at a time.
const SOUGHT: u32 = 40;
/// OSDs tried for one set.
const TRIES: u32 = 1_000;
/// Most by which prices are changed in a search, as a part of the mean price.
const NOISE: f64 = 0.3;

/// Members of a group, by index.
type Set = Vec<usize>;

/// The most data that fits, in units of weight, divided by the number of groups of the problem.
pub fn most(problem: &Problem<'_>) -> f64 {
    let candidates = problem.candidates();
    let terms = problem.terms(&candidates);
    let weights: Vec<f64> = candidates.iter().map(|candidate| candidate.weight).collect();
    let groups = super::shares::float(problem.present.len().max(1));
    let limit = usize::try_from(problem.max_combinations).unwrap_or(usize::MAX);
    value(&terms, &weights, possible(&terms, problem.max_combinations), limit) / groups
}

fn value(terms: &Terms, weights: &[f64], possible: Possible, limit: usize) -> f64 {
    let scale: f64 = weights.iter().sum();
    let weights: Vec<f64> = weights.iter().map(|weight| weight / scale).collect();
    let mut rng = Rng::new(1);
    let mut sets: BTreeSet<Set> = BTreeSet::new();
    let (mut best, mut center) = (f64::INFINITY, vec![1.0; weights.len()]);
    let mut prices = center.clone();
    for _ in 0..ROUNDS_MAX {
        let asked: Vec<f64> = center.iter().zip(&prices).map(|(c, p)| STEADY * c + (1.0 - STEADY) * p).collect();
        let found = cheapest(terms, &asked, possible.holes, &mut rng);
        let Some(least) = found.iter().map(|set| price(set, &asked)).min_by(f64::total_cmp) else { return 0.0 };
        // Prices divided by the cheapest set's are allowed ones: an upper bound.
        let bound = weights.iter().zip(&asked).map(|(weight, price)| weight * price).sum::<f64>() / least;
        if bound < best {
            best = bound;
            center = asked.iter().map(|price| price / least).collect();
        }
        sets.extend(found);
        if sets.len() > limit {
            break;
        }
        let Some(solved) = solve(&sets, &weights) else { break };
        // Over the sets that are known: what can surely be held.
        let sure: f64 = weights.iter().zip(&solved).map(|(weight, price)| weight * price).sum();
        prices = solved;
        if best - sure < EXACTNESS * best {
            break;
        }
    }
    best * scale
}

fn price(set: &Set, prices: &[f64]) -> f64 {
    set.iter().map(|osd| prices[*osd]).sum()
}

/// Sets that are cheap at these prices; the first is the cheapest.
fn cheapest(terms: &Terms, prices: &[f64], holes: usize, rng: &mut Rng) -> Vec<Set> {
    let open: Vec<usize> = (0..terms.size()).collect();
    let mean = prices.iter().sum::<f64>() / super::shares::float(prices.len().max(1));
    let mut found = Vec::new();
    for attempt in 0..SOUGHT {
        let noise = if attempt == 0 { 0.0 } else { NOISE * mean };
        let noisy: Vec<f64> = prices.iter().map(|price| price + noise * super::fill::unit(rng)).collect();
        let mut members = vec![None; terms.size()];
        let mut search = Search { terms, price: |_, osd| noisy[osd], tries: TRIES };
        if search.complete(&mut members, &open, holes) {
            let mut set: Set = members.into_iter().flatten().collect();
            set.sort_unstable();
            found.push(set);
        }
    }
    found
}

/// Prices of least value at which no set costs less than 1.
fn solve(sets: &BTreeSet<Set>, weights: &[f64]) -> Option<Vec<f64>> {
    let mut variables = ProblemVariables::new();
    let prices: Vec<_> = weights.iter().map(|_| variables.add(variable().min(0.0))).collect();
    let value: Expression = prices.iter().zip(weights).map(|(price, weight)| *price * *weight).sum();
    let mut model = variables.minimise(value).using(microlp);
    for set in sets {
        let cost: Expression = set.iter().map(|osd| prices[*osd]).sum();
        model = model.with(constraint!(cost >= 1.0));
    }
    let solution = model.solve().ok()?;
    Some(prices.into_iter().map(|price| solution.value(price).max(0.0)).collect())
}
