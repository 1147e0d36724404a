//! Plans, drawn: whatever part of a run's decisions is left, in whatever other delays, is a legal run. The shrinker lives
//! on that; here proptest looks for a part that is not, and would shrink it.

use ashlar_sim::case::{Case, Choice};
use ashlar_sim::plan::Plan;
use ashlar_sim::run::{Recording, Report, run_case};
use ashlar_sim::scenarios::Scenario;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn mix() -> &'static Scenario {
    Scenario::named("mix").expect("the default scenario")
}

/// What is left of a plan: of each of its decisions, whether it stays.
fn part(plan: &Plan, (jitter, steady): (u64, bool), operations: &[bool], faults: &[bool]) -> Plan {
    fn chosen<T: Clone>(all: &[T], stay: &[bool]) -> Vec<T> {
        let stays = |place: usize| stay.get(place % stay.len().max(1)).copied().unwrap_or(true);
        all.iter().enumerate().filter(|(place, _)| stays(*place)).map(|(_, one)| one.clone()).collect()
    }
    let (operations, faults) = (chosen(&plan.operations, operations), chosen(&plan.faults, faults));
    Plan { jitter, steady, operations, faults, ..plan.clone() }
}

fn outcome(report: &Report) -> (u64, u64, Option<&str>) {
    (report.trace, report.events, report.failure.as_ref().map(|failure| failure.what.as_str()))
}

fn parts_are_legal(cases: u32, seeds: u64) {
    let whole: Vec<Case> = (1..=seeds).map(|seed| Case::drawn(seed, mix(), Choice::default())).collect();
    let plans: Vec<Plan> = whole.iter().map(|case| run_case(case, mix(), &Recording::default()).plan).collect();
    let stay = || proptest::collection::vec(prop::bool::weighted(0.6), 1..40);
    let strategy = (0..whole.len(), (0..1000u64, any::<bool>()), stay(), stay());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let verdict = TestRunner::new(config).run(&strategy, |(which, luck, operations, faults)| {
        let plan = part(&plans[which], luck, &operations, &faults);
        let kept = (plan.operation_count(), plan.fault_count());
        let case = Case { plan: Some(plan), ..whole[which].clone() };
        let report = run_case(&case, mix(), &Recording::default());
        prop_assert!(report.failure.is_none(), "{:?}", report.failure);
        // Nothing takes the place of what was left out.
        prop_assert!(report.plan.operation_count() <= kept.0 && report.plan.fault_count() <= kept.1);
        // Through a file and back it is the same run, to the last event.
        let text = serde_json::to_string(&case).expect("plain data");
        let back: Case = serde_json::from_str(&text).expect("its own form");
        let again = run_case(&back, mix(), &Recording::default());
        prop_assert_eq!(outcome(&report), outcome(&again));
        Ok(())
    });
    verdict.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn any_part_of_a_plan_is_a_legal_run_and_repeats() {
    parts_are_legal(12, 4);
}

#[test]
#[ignore = "minutes: the same with many more parts"]
fn any_part_of_a_plan_is_a_legal_run_and_repeats_at_length() {
    parts_are_legal(1500, 60);
}
