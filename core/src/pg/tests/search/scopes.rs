//! The scopes that are searched, and the one in which each planted bug shows.

use super::{Op, Scope};
use crate::map::Scheme;
#[cfg(feature = "planted")]
use crate::planted::Bug;

const WRITES: &[Op] = &[Op::Write(2), Op::Write(1)];
const WRITE_DELETE: &[Op] = &[Op::Write(2), Op::Delete];
const WRITE_DELETE_WRITE: &[Op] = &[Op::Write(2), Op::Delete, Op::Write(1)];
const WRITES_DELETE: &[Op] = &[Op::Write(2), Op::Write(1), Op::Delete];

/// Three copies on three OSDs; no fault but wrong accusations.
const R3: Scope = Scope {
    name: "r3",
    scheme: Scheme::Replicated,
    size: 3,
    minsize: 2,
    parity: 0,
    osds: 3,
    epochs: 4,
    ops: WRITES,
    resends: 0,
    reads: 0,
    crashes: 0,
    recreates: 0,
    shorts: 2,
    longs: 0,
    lost_replies: 0,
    overtakes: 0,
    duplicates: 0,
    cuts: 0,
    fills: 0,
    slow: false,
    hears: false,
    late_replies: false,
    any_one_may_go: false,
};

/// Two data chunks and one parity chunk.
const EC21: Scope = Scope { name: "ec21", scheme: Scheme::Ec, parity: 1, ..R3 };

/// Two and two.
const EC22: Scope = Scope { name: "ec22", size: 4, minsize: 3, parity: 2, osds: 4, ..EC21 };

/// Run by every `cargo test`.
pub static SHORT: &[Scope] = &[
    Scope { name: "r3-lease", epochs: 2, shorts: 1, reads: 1, ops: &[Op::Write(1)], ..R3 },
    Scope { name: "r3-short", epochs: 2, shorts: 1, ops: WRITES, ..R3 },
    Scope { name: "r2-short", shorts: 1, size: 2, minsize: 1, osds: 2, epochs: 3, ops: WRITE_DELETE, ..R3 },
    Scope {
        name: "r2-lease",
        size: 2,
        minsize: 1,
        osds: 2,
        epochs: 2,
        shorts: 1,
        crashes: 1,
        reads: 1,
        ops: &[Op::Write(1)],
        ..R3
    },
    Scope { name: "r2-full-short", size: 2, minsize: 1, osds: 2, epochs: 2, fills: 1, ..R3 },
    Scope { name: "ec21-short", epochs: 2, shorts: 1, ..EC21 },
    Scope { name: "r3-crash-short", epochs: 2, shorts: 0, ops: &[Op::Write(1)], crashes: 1, longs: 1, ..R3 },
];

static LONG: &[Scope] = &[
    Scope { name: "r3-3", epochs: 3, shorts: 1, ..R3 },
    Scope { name: "r3-delete-3", epochs: 3, shorts: 1, ops: WRITES_DELETE, ..R3 },
    Scope { name: "r3-crash-2", epochs: 2, shorts: 1, crashes: 1, longs: 1, ..R3 },
    Scope { name: "r3-recreate-2", epochs: 2, shorts: 1, crashes: 1, recreates: 1, longs: 1, ..R3 },
    Scope { name: "ec21-3", epochs: 3, shorts: 1, ..EC21 },
    Scope { name: "ec21-crash-2", epochs: 2, shorts: 1, crashes: 1, longs: 1, ..EC21 },
    Scope { name: "ec22-3", epochs: 3, shorts: 0, ..EC22 },
    Scope { ..R3 },
    Scope { name: "r3-5", epochs: 5, ..R3 },
    Scope { name: "r3-delete", ops: WRITES_DELETE, ..R3 },
    Scope { name: "r3-rewrite", ops: WRITE_DELETE_WRITE, longs: 1, ..R3 },
    Scope { name: "r3-spare", osds: 4, ops: WRITE_DELETE, ..R3 },
    Scope { name: "r3-spare-5", osds: 4, epochs: 5, ops: WRITE_DELETE, longs: 1, ..R3 },
    Scope { name: "r3-crash", epochs: 3, crashes: 1, longs: 1, resends: 1, ..R3 },
    Scope { name: "r3-crash-4", epochs: 4, crashes: 2, shorts: 1, longs: 2, resends: 1, ..R3 },
    Scope { name: "r3-slow", epochs: 3, crashes: 2, longs: 1, slow: true, ..R3 },
    Scope { name: "r3-recreate", crashes: 1, recreates: 1, longs: 1, ..R3 },
    Scope { name: "r3-reads", epochs: 3, reads: 2, longs: 1, shorts: 1, ..R3 },
    Scope { name: "r3-reads-late", epochs: 3, reads: 2, longs: 1, late_replies: true, ..R3 },
    Scope { name: "r3-retry", epochs: 2, ops: WRITES, resends: 2, reads: 1, ..R3 },
    Scope { name: "r3-again", epochs: 4, lost_replies: 1, shorts: 3, overtakes: 2, cuts: 1, ..R3 },
    Scope { name: "r3-restart", epochs: 3, crashes: 1, longs: 1, slow: true, overtakes: 2, ..R3 },
    Scope { name: "r3-twice", epochs: 3, duplicates: 2, overtakes: 1, ..R3 },
    Scope { name: "r3-hears", epochs: 3, ops: WRITE_DELETE, hears: true, longs: 1, ..R3 },
    Scope { name: "r3-late", epochs: 2, ops: WRITES, late_replies: true, ..R3 },
    Scope { name: "r3-weak", osds: 4, epochs: 5, shorts: 2, any_one_may_go: true, ..R3 },
    Scope { name: "r3-full-2", epochs: 2, shorts: 1, fills: 1, ops: WRITE_DELETE, ..R3 },
    Scope { name: "r3-full", epochs: 3, shorts: 1, longs: 1, fills: 2, ops: WRITES_DELETE, ..R3 },
    Scope { name: "r3-full-crash", epochs: 3, shorts: 1, crashes: 1, longs: 1, fills: 1, ..R3 },
    Scope { name: "r2-full", size: 2, minsize: 1, osds: 2, epochs: 4, fills: 2, longs: 1, ops: WRITES_DELETE, ..R3 },
    Scope { name: "r3m1", minsize: 1, epochs: 3, ..R3 },
    Scope { ..EC21 },
    Scope { name: "ec21-5", epochs: 5, ..EC21 },
    Scope { name: "ec21-delete", epochs: 6, ops: WRITE_DELETE, longs: 1, ..EC21 },
    Scope { name: "ec21-rewrite", ops: WRITE_DELETE_WRITE, longs: 1, ..EC21 },
    Scope { name: "ec21-spare", osds: 4, epochs: 5, ops: WRITE_DELETE, ..EC21 },
    Scope { name: "ec21-crash", epochs: 3, crashes: 1, longs: 1, resends: 1, reads: 1, ..EC21 },
    Scope { name: "ec21-slow", epochs: 3, crashes: 2, longs: 1, slow: true, ..EC21 },
    Scope { name: "ec21-recreate", crashes: 1, recreates: 1, longs: 1, ..EC21 },
    Scope { name: "ec21-again", lost_replies: 1, overtakes: 2, cuts: 2, shorts: 4, ..EC21 },
    Scope { name: "ec21-full", epochs: 3, shorts: 1, longs: 1, fills: 2, ops: WRITES_DELETE, ..EC21 },
    Scope { name: "xor21", scheme: Scheme::Xor, ops: WRITES_DELETE, ..EC21 },
    Scope { ..EC22 },
    Scope { name: "ec22-5", epochs: 5, ..EC22 },
    Scope { name: "ec22m2", minsize: 2, ..EC22 },
    Scope { name: "ec22-crash", epochs: 5, crashes: 1, longs: 1, ..EC22 },
    Scope { name: "ec22m2-crash", epochs: 5, minsize: 2, crashes: 1, longs: 1, ..EC22 },
    Scope { name: "ec22-full", epochs: 3, shorts: 1, fills: 2, ops: WRITES_DELETE, ..EC22 },
    Scope { name: "ec22-slow", epochs: 3, crashes: 2, longs: 1, slow: true, ..EC22 },
    Scope { name: "r2", size: 2, minsize: 1, osds: 3, epochs: 4, ops: WRITE_DELETE_WRITE, longs: 1, ..R3 },
];

/// All scopes.
pub fn all() -> impl Iterator<Item = &'static Scope> {
    SHORT.iter().chain(LONG)
}

#[cfg(feature = "planted")]
fn named(name: &str) -> &'static Scope {
    all().find(|scope| scope.name == name).unwrap_or_else(|| panic!("there is no scope {name}"))
}

/// Each relaxed rule of the protocol with the scope in which it shows.
#[cfg(feature = "planted")]
pub fn grounds() -> impl Iterator<Item = (Bug, &'static Scope)> {
    let grounds = [
        (Bug::AcknowledgeBeforeDurable, "r3"),
        (Bug::SkipFence, "r3"),
        (Bug::SkipResolve, "r3"),
        (Bug::IgnoreWitnesses, "r3-spare"),
        (Bug::ReadWithoutLease, "r3-lease"),
        (Bug::ActivateWithoutLeaseWait, "r3-lease"),
        (Bug::ForgetGrantsAtStart, "r2-lease"),
        (Bug::GrantToAnyAttempt, "r3-lease"),
        (Bug::NoSpaceIsDone, "r3-full-2"),
        (Bug::RemoveOverwritten, "r2-full-short"),
        (Bug::NextLowerValid, "r3-full"),
        (Bug::TrimTooEarly, "r3-spare"),
        (Bug::DropRequestNumbers, "r3-retry"),
        (Bug::SkipNarrowing, "r3-spare-5"),
        (Bug::TrimWithStale, "r3-rewrite"),
        (Bug::SameEpochAfterRestart, "r3-restart"),
        (Bug::ReuseAttempt, "ec21-again"),
        (Bug::SkipSilentActing, "r3-spare-5"),
        (Bug::DirtyRead, "r3-reads-late"),
        (Bug::AnswerBeforeFlush, "r3-slow"),
        (Bug::SkipFullAttempt, "r3-weak"),
        (Bug::IgnoreStoreUuid, "r3-recreate"),
        (Bug::RecoverOverNewer, "r3-twice"),
        (Bug::PurgeBeforeTrim, "r3-spare"),
        (Bug::AcknowledgeAfterK, "ec21"),
        (Bug::PrepareChangedOnly, "ec21"),
        (Bug::CommitBeforeRecord, "ec22m2"),
        (Bug::DropKeptPredecessor, "ec22-crash"),
        (Bug::TombstoneNeedsK, "ec21-delete"),
        (Bug::CommitAfterApplied, "ec21-slow"),
    ];
    grounds.into_iter().map(|(bug, name)| (bug, named(name)))
}
