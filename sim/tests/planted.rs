//! With a planted bug switched on, a campaign of at most 1,000 seeds must fail. Run with `--features planted`.
#![cfg(feature = "planted")]

use ashlar_core::planted::Bug;
use ashlar_sim::plants::hunt;

const SEEDS: u64 = 1000;

fn is_found(bug: Bug) {
    let found = hunt(bug, 1, SEEDS).unwrap_or_else(|| panic!("{} was not found in {SEEDS} seeds", bug.name()));
    println!("{}: {} seeds, {}", bug.name(), found.seeds, found.what);
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
fn trim_too_early_is_found() {
    is_found(Bug::TrimTooEarly);
}

#[test]
fn drop_request_numbers_is_found() {
    is_found(Bug::DropRequestNumbers);
}
