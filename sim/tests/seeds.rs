//! Seeds that once failed must pass for ever; each scenario and a few seeds of the mix pass; runs are deterministic.

use ashlar_sim::case::{Case, Choice};
use ashlar_sim::cluster::pool::{self, PoolChoice};
use ashlar_sim::run::{Recording, Report, run, run_case};
use ashlar_sim::scenarios::{ALL, Scenario};

fn pass(scenario: &Scenario, seed: u64, pool: Option<PoolChoice>) -> Report {
    let report =
        run(seed, scenario, &Recording { choice: Choice { pool, ..Choice::default() }, ..Recording::default() });
    if let Some(failure) = &report.failure {
        panic!("{} {seed} (pool {pool:?}): {}\n{}", scenario.name, failure.what, report.config);
    }
    report
}

#[test]
fn seeds_that_once_failed() {
    let lines = include_str!("../../ci/seeds/fixed.txt").lines().filter(|line| !line.starts_with('#'));
    for line in lines {
        let mut words = line.split_whitespace();
        let (Some(name), Some(seed), Some(pool)) = (words.next(), words.next(), words.next()) else { continue };
        let scenario = Scenario::named(name).unwrap_or_else(|| panic!("no scenario {name}"));
        let seed = seed.parse().unwrap_or_else(|_| panic!("not a seed: {line}"));
        let pool = (pool != "-").then(|| pool.parse().unwrap_or_else(|error| panic!("{line}: {error}")));
        pass(scenario, seed, pool);
    }
}

#[test]
fn runs_of_files_that_once_failed() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci/seeds");
    let files = std::fs::read_dir(&folder).expect("the folder of seeds").map(|entry| entry.expect("readable").path());
    for path in files.filter(|path| path.extension().is_some_and(|extension| extension == "json")) {
        let case = Case::read(&path).unwrap_or_else(|error| panic!("{error}"));
        let scenario = case.scenario().unwrap_or_else(|error| panic!("{error}"));
        let report = run_case(&case, scenario, &Recording::default());
        assert!(report.failure.is_none(), "{}: {:?}", path.display(), report.failure);
    }
}

#[test]
fn every_scenario_passes() {
    for scenario in ALL {
        (1..=2).for_each(|seed| drop(pass(scenario, seed, None)));
    }
}

#[test]
fn every_kind_of_pool_passes() {
    let mix = Scenario::named("mix").expect("the default scenario");
    for redundancy in pool::ALL {
        for (seed, lazy) in [(1, false), (2, true)] {
            pass(mix, seed, Some(PoolChoice { redundancy: Some(redundancy), lazy: Some(lazy) }));
        }
    }
}

#[test]
fn the_same_seed_twice_is_the_same_run() {
    let mix = Scenario::named("mix").expect("the default scenario");
    for seed in 1..=4 {
        let (a, b) = (run(seed, mix, &Recording::default()), run(seed, mix, &Recording::default()));
        assert_eq!((a.trace, a.events), (b.trace, b.events), "seed {seed}");
    }
}

#[test]
fn faults_happen_and_operations_succeed() {
    let mix = Scenario::named("mix").expect("the default scenario");
    let reports: Vec<Report> = (1..=4).map(|seed| run(seed, mix, &Recording::default())).collect();
    assert!(reports.iter().map(|report| report.tally.faults).sum::<u64>() > 40);
    assert!(reports.iter().map(|report| report.tally.done).sum::<u64>() > 800);
}
