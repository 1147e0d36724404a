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
    /// Its scenario.
    pub scenario: &'static str,
    /// The promise that was broken.
    pub what: String,
}

/// Runs scenarios in turn with the bug switched on, seed after seed, until one fails that does not fail without it.
pub fn hunt(bug: Bug, scenarios: &[&Scenario], from: u64, seeds: u64) -> Option<Found> {
    scenarios.iter().cycle().zip(from..from + seeds).find_map(|(scenario, seed)| {
        plant(Some(bug));
        let report = run(seed, scenario, &Recording::default());
        plant(None);
        let failure = report.failure?;
        let innocent = run(seed, scenario, &Recording::default()).failure.is_none();
        innocent.then(|| Found { seeds: seed - from + 1, seed, scenario: scenario.name, what: failure.what })
    })
}

/// The scenario in which a bug shows itself soonest.
///
/// # Panics
/// If the scenario does not exist.
pub fn ground(bug: Bug) -> &'static Scenario {
    let name = match bug {
        Bug::AcknowledgeBeforeDurable | Bug::SkipResolve | Bug::IgnoreWitnesses => "forgotten_write",
        Bug::FenceWithoutWaiting => "fenced_client",
        Bug::SyncWithoutFlush | Bug::SkipReplay => "unsynced_writes",
        Bug::TrimTooEarly => "lagging_member_alone",
        Bug::SkipFence | Bug::ActivateWithoutLeaseWait => "deposed_primary",
        Bug::ForgetAncestors
        | Bug::ServeEndedGroup
        | Bug::RestartVersions
        | Bug::ForgetFormerLeases
        | Bug::RecordInEndedGroup
        | Bug::IgnoreGeneration => "pg_count_change",
        Bug::DropRequestNumbers => "total_power_loss",
        _ => "mix",
    };
    Scenario::named(name).expect("a scenario of this name exists")
}
