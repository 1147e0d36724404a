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
        Bug::SkipReplay | Bug::ForgetOldestReplay | Bug::SyncWithoutFlush => "unsynced_writes",
        Bug::SyncCoversLater | Bug::SyncOneMember => "flush_meets_writes",
        Bug::SyncDuringReplay => "moves_of_unsynced",
        Bug::TrimTooEarly => "lagging_member_alone",
        Bug::SkipFence | Bug::ActivateWithoutLeaseWait | Bug::LeaseFromArrival => "deposed_primary",
        Bug::ForgetGrantsAtStart | Bug::GrantToAnyAttempt => "leases_of_the_restarted",
        Bug::ForgetAncestors
        | Bug::ServeEndedGroup
        | Bug::RestartVersions
        | Bug::ForgetFormerLeases
        | Bug::RecordInEndedGroup
        | Bug::IgnoreGeneration => "pg_count_change",
        Bug::DropRequestNumbers => "total_power_loss",
        Bug::MergeWithoutCondition | Bug::IgnoreCondition | Bug::DeclineByNumber => "cells_meet",
        Bug::FillRequestLists => "deep_queues",
        Bug::DiscardDeletes => "deletes_meet_writes",
        Bug::TombstoneForgetsRequests | Bug::AcceptOldEpochs => "retried_deletes",
        Bug::NoSpaceIsDone => "full_disks_of_chunks",
        Bug::ReadBeforeRecovery | Bug::IgnoreStoreUuid => "replaced_in_turn",
        Bug::ScrubForgetsDamage => "rot_found_by_scrub",
        Bug::TrustMedium => "rot_is_never_read",
        Bug::ScrubTrustsOld => "lost_copy",
        Bug::RepairFromOther => "differing_copies",
        Bug::HealWithoutCopy => "rot_under_writes",
        Bug::RemovalSkipsMissing | Bug::RemovalReportsEarly | Bug::AdmitRemovedImages => "removed_image",
        Bug::FirstParityOnly | Bug::DecodeFirstLost | Bug::PrepareChangedOnly => "chunks_written_degraded",
        Bug::AcknowledgeAfterK | Bug::CommitBeforeRecord | Bug::DropKeptPredecessor => "chunks_half_prepared",
        Bug::CommitAfterApplied => "chunks_power_cycles",
        Bug::TombstoneNeedsK => "chunks_with_few",
        Bug::VacateEverything => "chunks_move",
        Bug::ClientTrustsBody | Bug::TrustBody => "damaged_links",
        Bug::HistoryWithoutCompare | Bug::KeepEpoch => "monitor_sleeps",
        Bug::ForgetCalls => "reconnect_storm",
        _ => "mix",
    };
    Scenario::named(name).expect("a scenario of this name exists")
}
