//! Testing the tester: with a planted bug switched on, a campaign must fail soon.

use crate::run::{Recording, run};
use crate::scenarios::Scenario;
use ashlar_core::planted::{Bug, plant};

/// A planted bug that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Seeds that it took.
    pub seeds: u64,
    /// The seed that failed.
    pub seed: u64,
    /// The promise that was broken.
    pub what: String,
}

/// Runs the default scenario with the bug switched on, seed after seed, until one fails that does not fail without it.
pub fn hunt(bug: Bug, from: u64, seeds: u64) -> Option<Found> {
    let scenario = Scenario::named("mix").expect("the default scenario exists");
    (from..from + seeds).find_map(|seed| {
        plant(Some(bug));
        let report = run(seed, scenario, &Recording::default());
        plant(None);
        let failure = report.failure?;
        let innocent = run(seed, scenario, &Recording::default()).failure.is_none();
        innocent.then(|| Found { seeds: seed - from + 1, seed, what: failure.what })
    })
}
