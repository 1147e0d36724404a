//! With a planted bug switched on, a campaign must fail soon: within this many seeds of the scenario that suits it, or, as
//! `ashlar-sim plant --all --scenario all` shows at length, within 1,000 seeds of all scenarios in turn. Run with
//! `--features planted`.
#![cfg(feature = "planted")]

use ashlar_core::planted::Bug;
use ashlar_sim::plants::{ground, hunt};

/// Several times what it takes, since any change of the code makes other runs of the same seeds.
const SEEDS: u64 = 150;

fn is_found(bug: Bug) {
    let found = hunt(bug, &[ground(bug)], 1, SEEDS);
    let found = found.unwrap_or_else(|| panic!("{} was not found in {SEEDS} seeds", bug.name()));
    println!("{}: {} seeds of {}, {}", bug.name(), found.seeds, found.scenario, found.what);
    assert!(!found.what.contains("not whole"), "a broken promise is wanted, not only a group that is stuck");
}

#[test]
fn acknowledge_before_durable_is_found() {
    is_found(Bug::AcknowledgeBeforeDurable);
}

#[test]
fn skip_fence_is_found() {
    is_found(Bug::SkipFence);
}

#[test]
fn skip_resolve_is_found() {
    is_found(Bug::SkipResolve);
}

#[test]
fn ignore_witnesses_is_found() {
    is_found(Bug::IgnoreWitnesses);
}

#[test]
fn read_without_lease_is_found() {
    is_found(Bug::ReadWithoutLease);
}

#[test]
fn activate_without_lease_wait_is_found() {
    is_found(Bug::ActivateWithoutLeaseWait);
}

#[test]
fn trim_too_early_is_found() {
    is_found(Bug::TrimTooEarly);
}

#[test]
fn drop_request_numbers_is_found() {
    is_found(Bug::DropRequestNumbers);
}

#[test]
fn sync_without_flush_is_found() {
    is_found(Bug::SyncWithoutFlush);
}

#[test]
fn skip_replay_is_found() {
    is_found(Bug::SkipReplay);
}

#[test]
fn fence_without_waiting_is_found() {
    is_found(Bug::FenceWithoutWaiting);
}
