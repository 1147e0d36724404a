//! With a planted bug switched on, a campaign must fail soon: within this many seeds of the scenario that suits it, or, as
//! `ashlar-sim plant --all --scenario all` shows at length, within 1,000 seeds of all scenarios in turn. Run with
//! `--features planted`. These are those that are found at once; `ashlar-sim plant --all` has them all.
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

macro_rules! found {
    ($($test:ident: $($bug:ident),*;)*) => {
        $(
            #[test]
            fn $test() {
                [$(Bug::$bug),*].into_iter().for_each(is_found);
            }
        )*
    };
}

found! {
    promises_to_clients: AcknowledgeBeforeDurable, ReadWithoutLease, DropRequestNumbers, DirtyRead;
    fences_and_leases: SkipFence, ActivateWithoutLeaseWait, LeaseFromArrival, ForgetGrantsAtStart, ForgetFormerLeases;
    peering: SkipResolve, IgnoreWitnesses, TrimTooEarly, IgnoreStoreUuid;
    flushes: SyncWithoutFlush, SkipReplay, SyncDuringReplay;
    fencing: FenceWithoutWaiting;
    full_disks: KeepUnplaced, NoSpaceUnlessLast;
    requests_in_copies: InstallForgetsRequests;
    removals: RemovalSkipsMissing, RemovalReportsEarly;
    what_members_missed: ForgetChange, NoteFirstRegion, PatchSkipsRange, PatchIsAll, PatchOfOneSource;
}
