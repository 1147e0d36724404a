//! Reducing a failing run to the few decisions that it needs.
//!
//! Delta debugging of the recorded decisions: halves of them, then quarters, and so on down to single ones are left out,
//! and stay out if the run still fails in the same way. Few faults are left out in pairs, too: one may end, or undo, another.
//! Fewer decisions make another run of the rest, so each try has a few chances, each with delays of its own: first few, and
//! when nothing more can be left out that way, more. From the second chance on, runs are *steady* (`plan.rs`): what is left
//! out then changes what it has to do with and nothing else. Faults go first, since runs without them are the easiest to
//! read.

use crate::case::Case;
use crate::plan::Plan;
use crate::run::{FailureKind, Recording, Report, run_case};
use crate::scenarios::Scenario;

/// Delays that a try may have until it fails: at first, and when nothing more can be left out with fewer.
const CHANCES: [u64; 3] = [3, 8, 24];
/// The fewest if it leaves out a quarter of a part or more: there is much to be gained, and what is rare takes many tries.
const CHANCES_OF_LARGE: u64 = 10;
/// The most faults of which all pairs are tried.
const PAIRED: usize = 10;

/// A reduced failure.
pub struct Shrunk {
    /// The run that still fails.
    pub case: Case,
    /// What it comes to.
    pub report: Report,
    /// Runs that it took.
    pub runs: u64,
}

/// Reduces a run that fails; `None` if it does not, be it only with other delays. Gives up after so many runs, with what it has by then. `told` hears
/// of each step: operations and faults that are left.
pub fn shrink(case: &Case, scenario: &Scenario, runs: u64, told: impl FnMut(usize, usize, u64)) -> Option<Shrunk> {
    let report = run_case(case, scenario, &Recording::default());
    let kind = report.failure.as_ref()?.kind();
    let plan = case.plan.clone().unwrap_or_else(|| report.plan.clone());
    let mut search = Search { case: case.clone(), scenario, kind, runs: 1, limit: runs, chances: 0, best: None, told };
    let mut plan = search.tries(&plan, CHANCES[2])?;
    for chances in CHANCES {
        search.chances = chances;
        plan = search.reduce_all(plan);
    }
    let (case, report) = search.best?;
    Some(Shrunk { case, report, runs: search.runs })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Faults,
    Actions,
    Operations,
    Scripted,
}

impl Part {
    fn len(self, plan: &Plan) -> usize {
        match self {
            Part::Faults => plan.faults.len(),
            Part::Actions => plan.actions.len(),
            Part::Operations => plan.operations.len(),
            Part::Scripted => plan.scripted.len(),
        }
    }

    /// The plan without those from the `from`-th on, so many.
    fn without(self, plan: &Plan, from: usize, count: usize) -> Plan {
        let mut plan = plan.clone();
        let gone = from..(from + count).min(self.len(&plan));
        let left = |number: usize| !gone.contains(&number);
        match self {
            Part::Faults => drop(plan.faults.drain(gone)),
            Part::Operations => drop(plan.operations.drain(gone)),
            Part::Actions => plan.actions = keep(&plan.actions, left),
            Part::Scripted => plan.scripted = keep(&plan.scripted, left),
        }
        plan
    }
}

fn keep(numbers: &std::collections::BTreeSet<u32>, left: impl Fn(usize) -> bool) -> std::collections::BTreeSet<u32> {
    numbers.iter().enumerate().filter(|(place, _)| left(*place)).map(|(_, number)| *number).collect()
}

struct Search<'a, F> {
    case: Case,
    scenario: &'a Scenario,
    kind: FailureKind,
    runs: u64,
    limit: u64,
    /// Delays that a try may have, at least.
    chances: u64,
    best: Option<(Case, Report)>,
    told: F,
}

impl<F: FnMut(usize, usize, u64)> Search<'_, F> {
    fn is_over(&self) -> bool {
        self.runs >= self.limit
    }

    /// The plan, with delays by which it fails, if some are found.
    fn tries(&mut self, plan: &Plan, chances: u64) -> Option<Plan> {
        for chance in 0..chances {
            if self.is_over() {
                return None;
            }
            let (jitter, steady) = (plan.jitter.wrapping_add(chance), plan.steady || chance > 0);
            let plan = Plan { jitter, steady, ..plan.clone() };
            let case = Case { plan: Some(plan.clone()), ..self.case.clone() };
            let report = run_case(&case, self.scenario, &Recording::default());
            self.runs += 1;
            if let Some(failure) = report.failure.as_ref().filter(|failure| failure.kind() == self.kind) {
                (self.told)(plan.operation_count(), plan.fault_count(), self.runs);
                self.best = Some((Case { broken: failure.what.clone(), ..case }, report));
                return Some(plan);
            }
        }
        None
    }

    /// Leaves out what can be left out, until nothing more can.
    fn reduce_all(&mut self, mut plan: Plan) -> Plan {
        loop {
            let before = plan.operation_count() + plan.fault_count();
            for part in [Part::Faults, Part::Actions, Part::Operations, Part::Scripted] {
                plan = self.reduce(plan, part);
            }
            for part in [Part::Faults, Part::Actions] {
                plan = self.reduce_pairs(plan, part);
            }
            if plan.operation_count() + plan.fault_count() == before || self.is_over() {
                return plan;
            }
        }
    }

    /// Leaves out what can be left out of one part.
    fn reduce(&mut self, mut plan: Plan, part: Part) -> Plan {
        let (whole, mut size) = (part.len(&plan), part.len(&plan));
        while size > 0 && !self.is_over() {
            // From the end: what came after the failure goes at once.
            let mut end = part.len(&plan);
            while end > 0 && !self.is_over() {
                let from = end.saturating_sub(size);
                let large = 4 * size >= whole && whole > 4;
                let chances = if large { self.chances.max(CHANCES_OF_LARGE) } else { self.chances };
                if let Some(smaller) = self.tries(&part.without(&plan, from, end - from), chances) {
                    plan = smaller;
                }
                end = from;
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
        plan
    }

    /// Leaves out pairs of a part, if it is small.
    fn reduce_pairs(&mut self, mut plan: Plan, part: Part) -> Plan {
        let mut later = part.len(&plan);
        while (2..=PAIRED).contains(&later) && !self.is_over() {
            later -= 1;
            let pairs = (0..later).map(|earlier| part.without(&part.without(&plan, later, 1), earlier, 1));
            let pairs: Vec<Plan> = pairs.collect();
            if let Some(smaller) = pairs.iter().find_map(|pair| self.tries(pair, self.chances)) {
                plan = smaller;
                later = part.len(&plan);
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Choice;
    use crate::plan::{Fault, Operation};
    use ashlar_core::rng::Rng;
    use ashlar_faultinject::mix::FaultKind;
    use std::collections::BTreeSet;

    #[test]
    fn parts_are_left_out_of_plans() {
        let operations = (0..5).map(|at| Operation { at, client: 0, draws: Rng::new(at) }).collect();
        let faults = (0..3).map(|at| Fault { at, kind: FaultKind::Crash, draws: Rng::new(at) }).collect();
        let plan = Plan { operations, faults, actions: BTreeSet::from([0, 4, 9]), ..Plan::default() };
        let times = |plan: &Plan| plan.operations.iter().map(|op| op.at).collect::<Vec<_>>();
        assert_eq!(times(&Part::Operations.without(&plan, 1, 3)), [0, 4]);
        assert_eq!(times(&Part::Operations.without(&plan, 3, 9)), [0, 1, 2]);
        assert_eq!(Part::Faults.without(&plan, 0, 3).faults.len(), 0);
        assert_eq!(Part::Actions.without(&plan, 1, 1).actions, BTreeSet::from([0, 9]));
        assert_eq!(Part::Scripted.without(&plan, 0, 1).operation_count(), 5);
    }

    #[test]
    fn a_run_that_does_not_fail_is_not_reduced() {
        let calm = Scenario::named("calm").expect("a scenario of this name");
        assert!(shrink(&Case::drawn(1, calm, Choice::default()), calm, 10, |_, _, _| ()).is_none());
    }

    #[test]
    fn the_whole_plan_gives_the_same_run() {
        let mix = Scenario::named("mix").expect("the default scenario");
        for seed in [1, 4] {
            let case = Case::drawn(seed, mix, Choice::default());
            let report = run_case(&case, mix, &Recording::default());
            assert!(report.plan.operation_count() > 50 && report.plan.fault_count() > 0);
            let again = Case { plan: Some(report.plan.clone()), ..case };
            let again = run_case(&again, mix, &Recording::default());
            assert_eq!(again.tally.faults, report.tally.faults, "seed {seed}");
            assert!(again.failure.is_none() && again.tally.done > 0);
        }
    }
}
