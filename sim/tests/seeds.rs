//! Seeds that once failed must pass for ever; each scenario and a few seeds of the mix pass; runs are deterministic.

use ashlar_core::time::Duration;
use ashlar_faultinject::mix::{FaultKind, FaultMix};
use ashlar_sim::case::{Case, Choice};
use ashlar_sim::cluster::StoreKind;
use ashlar_sim::cluster::pool::{self, PoolChoice};
use ashlar_sim::cluster::profile::Profile;
use ashlar_sim::cluster::topology;
use ashlar_sim::run::{Recording, Report, run, run_case};
use ashlar_sim::scenarios::{ALL, Scenario};

fn pass(scenario: &Scenario, seed: u64, choice: Choice) -> Report {
    let report = run(seed, scenario, &Recording { choice, ..Recording::default() });
    if let Some(failure) = &report.failure {
        panic!("{} {seed}{choice}: {}\n{}", scenario.name, failure.what, report.config);
    }
    report
}

fn with_pool(pool: Option<PoolChoice>) -> Choice {
    Choice { pool, ..Choice::default() }
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
        pass(scenario, seed, with_pool(pool));
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
        (1..=2).for_each(|seed| drop(pass(scenario, seed, Choice::default())));
    }
}

#[test]
fn every_kind_of_pool_passes() {
    let mix = Scenario::named("mix").expect("the default scenario");
    for redundancy in pool::ALL {
        for (seed, lazy) in [(1, false), (2, true)] {
            pass(mix, seed, with_pool(Some(PoolChoice { redundancy: Some(redundancy), lazy: Some(lazy) })));
        }
    }
}

#[test]
fn every_topology_and_profile_passes() {
    let mix = Scenario::named("mix").expect("the default scenario");
    for topology in topology::ALL {
        pass(mix, 3, Choice { topology: Some(topology), ..Choice::default() });
    }
    for profile in [Profile::Calm, Profile::Harsh, Profile::OverBudget] {
        (1..=2).for_each(|seed| drop(pass(mix, seed, Choice { profile, ..Choice::default() })));
    }
}

/// A kind that never happens finds nothing: alone, on a pool that survives it, each must.
#[test]
fn every_kind_of_fault_happens() {
    let mix = Scenario::named("mix").expect("the default scenario");
    let pool = "replicated:3,immediate".parse().expect("a pool");
    for kind in FaultKind::ALL {
        let happens = |seed| {
            let mut case = Case::drawn(seed, mix, with_pool(Some(pool)));
            let config = &mut case.config;
            (config.osds, config.osds_per_host, config.over_budget) = (5, 1, kind.is_beyond_promises());
            let write = Duration::micros(50);
            config.store = StoreKind::Log { power_loss_protection: true, atomic_bytes: 512, write };
            config.mix = FaultMix::none().with(*kind, Duration::millis(300));
            (config.load.operations, config.load.think) = (100, Duration::millis(40));
            let report = run_case(&case, mix, &Recording::default());
            assert!(report.failure.is_none(), "{} {seed}: {:?}", kind.name(), report.failure);
            report.marks.iter().any(|(mark, _)| *mark == kind.mark())
        };
        assert!((1..=6).any(happens), "{} does not happen", kind.name());
    }
}

#[test]
fn what_is_beyond_the_promise_is_suppressed_and_told() {
    let mix = Scenario::named("mix").expect("the default scenario");
    let mut case = Case::drawn(1, mix, with_pool(Some("replicated:2,immediate".parse().expect("a pool"))));
    let write = Duration::micros(50);
    case.config.store = StoreKind::Log { power_loss_protection: true, atomic_bytes: 4096, write };
    case.config.mix = FaultMix::none().with(FaultKind::BitRot, Duration::millis(200));
    let report = run_case(&case, mix, &Recording::default());
    assert!(report.failure.is_none() && report.tally.suppressed > 3, "{:?}", report.failure);
    assert_eq!(report.suppressed.len() as u64, report.tally.suppressed);
    assert!(report.suppressed[0].contains("bit-rot of osd."), "{}", report.suppressed[0]);
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
