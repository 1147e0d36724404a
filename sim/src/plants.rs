//! Testing the tester: with a planted bug switched on, a campaign must fail soon.

use crate::case::{Case, Choice};
use crate::plan::Plan;
use crate::run::{Recording, run, run_case};
use crate::scenarios::Scenario;
use crate::shrink::shrink;
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
        let report = with(bug, || run(seed, scenario, &Recording::default()));
        let failure = report.failure?;
        let innocent = run(seed, scenario, &Recording::default()).failure.is_none();
        innocent.then(|| Found { seeds: seed - from + 1, seed, scenario: scenario.name, what: failure.what })
    })
}

/// Does something with a bug switched on.
fn with<T>(bug: Bug, what: impl FnOnce() -> T) -> T {
    plant(Some(bug));
    let done = what();
    plant(None);
    done
}

/// What reducing a bug's failure came to: operations of clients, and what is done to the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Reduced {
    /// In the run that was found.
    pub before: (usize, usize),
    /// In what is left of it.
    pub after: (usize, usize),
    /// Runs that it took.
    pub runs: u64,
}

/// Reduces the failure in which a bug was found, in so many runs at most; nothing, if it does not show with other delays.
///
/// # Panics
/// If the scenario does not exist.
pub fn reduce(bug: Bug, found: &Found, runs: u64) -> Option<Reduced> {
    let scenario = Scenario::named(found.scenario).expect("it was found in one");
    let counts = |plan: &Plan| (plan.operation_count(), plan.fault_count());
    let case = Case::drawn(found.seed, scenario, Choice::default());
    let before = with(bug, || counts(&run_case(&case, scenario, &Recording::default()).plan));
    let shrunk = with(bug, || shrink(&case, scenario, runs, |_, _, _| ()))?;
    let after = counts(shrunk.case.plan.as_ref().expect("it was reduced"));
    Some(Reduced { before, after, runs: shrunk.runs })
}

/// What finds a bug.
#[derive(Clone, Copy)]
pub enum Finder {
    /// Seeds of a scenario: the one in which it shows itself soonest.
    Seeds(&'static Scenario),
    /// Tests of one part of the system, which go where clusters rarely get.
    Tests(&'static str),
}

/// What finds this bug.
pub fn finder(bug: Bug) -> Finder {
    match bug {
        bug if bug.is_of_store() => Finder::Tests("the store's tests"),
        Bug::ReuseAttempt
        | Bug::RecoverOverNewer
        | Bug::CommitBeforeRecord
        | Bug::TombstoneNeedsK
        | Bug::NextLowerValid
        | Bug::RemoveOverwritten => Finder::Tests("the small scope"),
        bug => Finder::Seeds(ground(bug)),
    }
}

/// The scenario in which a bug shows itself soonest.
///
/// # Panics
/// If the scenario does not exist.
pub fn ground(bug: Bug) -> &'static Scenario {
    let name = match bug {
        Bug::AcknowledgeBeforeDurable | Bug::SkipResolve | Bug::IgnoreWitnesses => "forgotten_write",
        Bug::SkipNarrowing => "kept_by_one",
        Bug::SkipFullAttempt => "one_holder_left",
        Bug::DirtyRead => "reads_of_the_forgotten",
        Bug::AnswerBeforeFlush => "stated_then_lost",
        Bug::FenceWithoutWaiting => "fenced_client",
        Bug::SkipReplay | Bug::ForgetOldestReplay | Bug::SyncWithoutFlush => "unsynced_writes",
        Bug::SyncCoversLater => "flush_covers_the_past",
        Bug::SyncOneMember => "flush_meets_writes",
        Bug::SyncDuringReplay => "flush_meets_replay",
        Bug::TrimTooEarly => "lagging_member_alone",
        Bug::SkipFence | Bug::ActivateWithoutLeaseWait => "deposed_primary",
        Bug::ForgetGrantsAtStart | Bug::GrantToAnyAttempt => "leases_of_the_restarted",
        Bug::LeaseFromArrival => "grants_come_late",
        Bug::ForgetFormerLeases => "deposed_by_a_split",
        Bug::RecordInEndedGroup => "split_unheard_of",
        Bug::ForgetAncestors | Bug::ServeEndedGroup | Bug::RestartVersions | Bug::ClaimFormerAnswers => {
            "pg_count_change"
        }
        Bug::ForgetChange
        | Bug::PatchAnyBase
        | Bug::NoteFirstRegion
        | Bug::IgnoreGap
        | Bug::PatchSkipsRange
        | Bug::MergeShrinks
        | Bug::PatchOfOneSource
        | Bug::PatchIsAll => "missed_parts",
        Bug::InstallForgetsRequests => "retries_after_a_move",
        Bug::PatchForgetsRequests => "retries_after_a_patch",
        Bug::DropRequestNumbers => "total_power_loss",
        Bug::MergeWithoutCondition | Bug::IgnoreCondition | Bug::DeclineByNumber => "cells_meet",
        Bug::FillRequestLists => "deep_queues",
        Bug::DiscardDeletes => "deletes_meet_writes",
        Bug::AcceptOldEpochs => "client_with_an_old_map",
        Bug::TombstoneForgetsRequests => "retried_deletes",
        Bug::NeverInDoubt | Bug::StayBlind => "silent_host",
        Bug::AwaitSilentLeader => "leader_goes_with_its_host",
        Bug::KeepUnplaced | Bug::NoSpaceUnlessLast => "full_disks_lose_power",
        Bug::NoSpaceIsDone => "full_disks_of_chunks",
        Bug::ReadBeforeRecovery => "nobody_has_everything",
        Bug::IgnoreStoreUuid => "empty_disk_stands_in",
        Bug::DropEarlyReports => "images_come_and_go",
        Bug::ReplayNothing => "discards_of_nothing",
        Bug::ScrubForgetsDamage => "rot_found_by_scrub",
        Bug::TrustMedium => "rot_is_never_read",
        Bug::ScrubTrustsOld => "lost_copy",
        Bug::RepairFromOther => "differing_copies",
        Bug::HealWithoutCopy => "hurt_copy_alone",
        Bug::RemovalSkipsMissing => "removed_while_moving",
        Bug::RemovalReportsEarly => "removal_cut_short",
        Bug::AdmitRemovedImages => "removed_image",
        Bug::FirstParityOnly | Bug::DecodeFirstLost | Bug::PrepareChangedOnly => "chunks_written_degraded",
        Bug::CommitBeforeRecord => "chunks_resolved_in_vain",
        Bug::AcknowledgeAfterK | Bug::DropKeptPredecessor => "chunks_half_prepared",
        Bug::CommitAfterApplied => "chunks_power_cycles",
        Bug::TombstoneNeedsK => "chunks_half_purged",
        Bug::VacateEverything => "chunks_move",
        Bug::ClientTrustsBody | Bug::TrustBody => "damaged_links",
        Bug::HistoryWithoutCompare => "records_of_the_sleeping",
        Bug::KeepEpoch => "monitor_sleeps",
        Bug::TrustFetched => "chunks_rebuilt_over_bad_links",
        Bug::ForgetCalls => "reconnect_storm",
        _ => "mix",
    };
    Scenario::named(name).expect("a scenario of this name exists")
}
