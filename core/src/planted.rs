//! Mistakes that can be switched on, to test the tests.
//!
//! Each is a real slip at the place where it would be made: `if planted(Bug::SkipFence) || attempt == self.joined`.
//! Without the feature `planted` (never on in daemons that serve anybody) [`planted`] is the constant `false` and nothing is left of it.

macro_rules! bugs {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A planted mistake.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Bug {
            $($(#[$doc])* $variant,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &'static [Bug] = &[$(Bug::$variant,)*];

            /// Its name on command lines.
            pub fn name(self) -> &'static str {
                match self {
                    $(Bug::$variant => $name,)*
                }
            }
        }
    };
}

bugs! {
    /// The primary acknowledges a write before all acting members have it durable.
    AcknowledgeBeforeDurable = "acknowledge-before-durable",
    /// A member carries out messages of attempts that it did not join, or of epochs below its fence.
    SkipFence = "skip-fence",
    /// Uncertain versions are not installed on all acting members, void ones not deleted, before serving.
    SkipResolve = "skip-resolve",
    /// Versions of the last interval count as valid whoever holds them.
    IgnoreWitnesses = "ignore-witnesses",
    /// Reads are answered without looking at the lease.
    ReadWithoutLease = "read-without-lease",
    /// A new primary does not wait for the leases that members granted to older ones.
    ActivateWithoutLeaseWait = "activate-without-lease-wait",
    /// The history is trimmed before every object is durable on every acting member.
    TrimTooEarly = "trim-too-early",
    /// Request numbers that a version includes are ignored, so a retry runs again.
    DropRequestNumbers = "drop-request-numbers",
    /// The recorded sets keep members that did not take part in a later peering.
    SkipNarrowing = "skip-narrowing",
    /// The history is trimmed although acting members hold stale copies.
    TrimWithStale = "trim-with-stale",
    /// A primary that restarted goes on under its old name, in the epoch that it had.
    SameEpochAfterRestart = "same-epoch-after-restart",
    /// A peering that starts over keeps the name of its first try.
    ReuseAttempt = "reuse-attempt",
    /// A peering goes on although an acting member has not answered.
    SkipSilentActing = "skip-silent-acting",
    /// Reads do not wait for the writes before them.
    DirtyRead = "dirty-read",
    /// A member states what it holds before that is durable.
    AnswerBeforeFlush = "answer-before-flush",
    /// A set that lost too many members does not lead to a full attempt.
    SkipFullAttempt = "skip-full-attempt",
    /// A re-created store is taken for the one before.
    IgnoreStoreUuid = "ignore-store-uuid",
    /// A recovered copy replaces a newer one.
    RecoverOverNewer = "recover-over-newer",
    /// Tombstones are dropped, and copies outside the acting set removed, before the history is trimmed.
    PurgeBeforeTrim = "purge-before-trim",
    /// A sync is answered without a flush.
    SyncWithoutFlush = "sync-without-flush",
    /// A client does not replay what it wrote under an older epoch.
    SkipReplay = "skip-replay",
    /// A write of an erasure-coded object is acknowledged when `k` members have it.
    AcknowledgeAfterK = "acknowledge-after-k",
    /// A write of an erasure-coded object goes only to the members whose bytes change.
    PrepareChangedOnly = "prepare-changed-only",
    /// What peering chose is committed before the interval is recorded.
    CommitBeforeRecord = "commit-before-record",
    /// A version is prepared over one that is kept and not committed, which is lost.
    DropKeptPredecessor = "drop-kept-predecessor",
    /// A tombstone needs as many holders as data.
    TombstoneNeedsK = "tombstone-needs-k",
    /// A member says that a version is prepared when it is applied, not durable.
    CommitAfterApplied = "commit-after-applied",
    /// A change of access counts as complete at once.
    FenceWithoutWaiting = "fence-without-waiting",
    /// A member says what changed since a version without looking whether its notes begin there.
    PatchAnyBase = "patch-any-base",
    /// A member does not note which range a write changed.
    ForgetChange = "forget-change",
    /// Of a change that reaches over several regions, the first one is noted.
    NoteFirstRegion = "note-first-region",
    /// Notes of changes go on after a gap as if nothing had happened in it.
    IgnoreGap = "ignore-gap",
    /// What a member gets of what it missed lacks the last range.
    PatchSkipsRange = "patch-skips-range",
    /// A range that lies in another one shortens that.
    MergeShrinks = "merge-shrinks",
    /// Of erasure-coded objects, what changed in one chunk counts for what changed in all.
    PatchOfOneSource = "patch-of-one-source",
    /// What a member gets of what it missed is stored without the numbers of the requests that it includes.
    PatchForgetsRequests = "patch-forgets-requests",
    /// What a member gets of what it missed is stored as all there is.
    PatchIsAll = "patch-is-all",
    /// A group that took over objects from several groups knows the history of the first of them only.
    ForgetAncestors = "forget-ancestors",
    /// A group of a layout that is over goes on being served by whoever serves it.
    ServeEndedGroup = "serve-ended-group",
    /// The epochs of new groups begin anew, and with them the versions.
    RestartVersions = "restart-versions",
    /// New groups do not wait for the leases of the groups before them.
    ForgetFormerLeases = "forget-former-leases",
    /// The record of an interval does not look at the layout.
    RecordInEndedGroup = "record-in-ended-group",
    /// A client claims of a new group that it saw answers which it still waits for.
    ClaimFormerAnswers = "claim-former-answers",
    /// A client writes sectors back that it changed in part, whoever changed them meanwhile.
    MergeWithoutCondition = "merge-without-condition",
    /// A primary carries out a write whose condition does not hold.
    IgnoreCondition = "ignore-condition",
    /// A request that was refused for its condition is refused with every other condition, too.
    DeclineByNumber = "decline-by-number",
    /// A monitor deletes a group's report on an image's removal because it has not heard of the image yet.
    DropEarlyReports = "drop-early-reports",
    /// A client replays what had nothing to change when it was acknowledged.
    ReplayNothing = "replay-nothing",
    /// Lists of requests are filled without a place for the oldest.
    FillRequestLists = "fill-request-lists",
    /// A client hands over what it read without looking at the checksum.
    ClientTrustsBody = "client-trusts-body",
    /// A discard from an object's beginning deletes all of it.
    DiscardDeletes = "discard-deletes",
    /// A client syncs a group while it replays writes to it.
    SyncDuringReplay = "sync-during-replay",
    /// A sync counts for what was acknowledged after it was sent.
    SyncCoversLater = "sync-covers-later",
    /// A client forgets to replay one of its writes.
    ForgetOldestReplay = "forget-a-replay",
    /// A primary flushes one member for a sync.
    SyncOneMember = "sync-one-member",
    /// A member without room counts as one that has the write.
    NoSpaceIsDone = "no-space-is-done",
    /// Peering insists on a version for which a member has no space, although it was never acknowledged.
    KeepUnplaced = "keep-unplaced",
    /// That a member has no space for a new object matters only if it says so last.
    NoSpaceUnlessLast = "no-space-unless-last",
    /// Who holds a void version in place of what counts loses it, and is left with nothing.
    RemoveOverwritten = "remove-overwritten",
    /// In place of a void version counts the next lower one that is valid, not what a member has that lacks it.
    NextLowerValid = "next-lower-valid",
    /// A client makes nothing of an answer that does not come, until its connection counts as dead.
    NeverInDoubt = "never-in-doubt",
    /// A monitor whose leader's machine is silent waits for the end of the leader's lease.
    AwaitSilentLeader = "await-silent-leader",
    /// Whoever lost its view of the metadata store looks again when its pause is over, though the store answers.
    StayBlind = "stay-blind",
    /// A primary reads objects that it has not recovered yet.
    ReadBeforeRecovery = "read-before-recovery",
    /// A lease counts from when it was granted, not from when it was asked for.
    LeaseFromArrival = "lease-from-arrival",
    /// A member that starts forgets that it may have granted leases.
    ForgetGrantsAtStart = "forget-grants-at-start",
    /// A member grants leases to whoever asks.
    GrantToAnyAttempt = "grant-to-any-attempt",
    /// A whole copy is stored without the numbers of the requests that it includes.
    InstallForgetsRequests = "install-forgets-requests",
    /// A deletion is stored without its request's number.
    TombstoneForgetsRequests = "tombstone-forgets-requests",
    /// A member that has to remove chunks in other roles removes those of its own, too.
    VacateEverything = "vacate-everything",
    /// A scrub does not repair what does not match its checksums.
    ScrubForgetsDamage = "scrub-forgets-damage",
    /// A scrub takes an old copy for a good one.
    ScrubTrustsOld = "scrub-trusts-old",
    /// A repair of copies that differ makes them equal to another one than clients have read.
    RepairFromOther = "repair-from-other",
    /// A write that a member's damaged copy could not take is acknowledged before the member has a whole copy.
    HealWithoutCopy = "heal-without-copy",
    /// The removal of an image does not look for objects that the primary lacks.
    RemovalSkipsMissing = "removal-skips-missing",
    /// The removal of an image counts as done although objects were found.
    RemovalReportsEarly = "removal-reports-early",
    /// Requests to a removed image are carried out.
    AdmitRemovedImages = "admit-removed-images",
    /// A primary carries out what was asked of it under an older epoch.
    AcceptOldEpochs = "accept-old-epochs",
    /// The history is written whatever it has become meanwhile.
    HistoryWithoutCompare = "history-without-compare",
    /// What a member did not answer is not sent again on a new connection.
    ForgetCalls = "forget-calls",
    /// A group's members change under the same epoch.
    KeepEpoch = "keep-epoch",
    /// Every parity chunk is computed as the first one.
    FirstParityOnly = "first-parity-only",
    /// Of several lost chunks, always the first one is computed.
    DecodeFirstLost = "decode-first-lost",
    /// The store gives out what it read without looking at the checksums.
    TrustMedium = "trust-medium",
    /// The store takes a body without looking at the checksum.
    TrustBody = "trust-body",
    /// Chunks are computed from what came over the network without looking at the checksums.
    TrustFetched = "trust-fetched",
    /// A watch that repeats what it reported is believed again.
    BelieveRepeats = "believe-repeats",
    /// The store acknowledges what a volatile cache holds.
    StoreAckBeforeFlush = "store-ack-before-flush",
    /// The store acknowledges a record whose data are still on their way.
    StoreAckWithoutData = "store-ack-without-data",
    /// Opening does not verify data that were on their way.
    StoreSkipVerify = "store-skip-verify",
    /// Opening does not log what it found void.
    StoreForgetVerdicts = "store-forget-verdicts",
    /// Opening goes on behind the chain's end, with sequences that void pages have.
    StoreSkipOpenPage = "store-skip-open-page",
    /// Replay takes every page above the tail, chained or not.
    StoreReplayPastGap = "store-replay-past-gap",
    /// Replay lets the higher version win.
    StoreReplayByVersion = "store-replay-by-version",
    /// Opening reads what a killed process left in a volatile cache.
    StoreOpenWithoutFlush = "store-open-without-flush",
    /// The cleaner forgets the prepared version.
    StoreSnapshotDropsPrepared = "store-snapshot-drops-prepared",
    /// A block is free as soon as something supersedes it, durable or not.
    StoreFreeEarly = "store-free-early",
    /// A block is free while it is read or written.
    StoreFreeInUse = "store-free-in-use",
    /// A block is discarded before the record that supersedes it is durable.
    StoreDiscardEarly = "store-discard-early",
    /// A block is given to somebody while it is being discarded.
    StoreDiscardInUse = "store-discard-in-use",
    /// A segment is written again before a page in the log names a tail behind it.
    StoreReuseEarly = "store-reuse-early",
    /// Pages say that data are durable that are on their way.
    StoreDoneTooFar = "store-done-too-far",
    /// Two data writes of one object are on their way.
    StoreTwoUndone = "store-two-undone",
    /// An overlay goes into its block before its record is in the log.
    StoreCompactEarly = "store-compact-early",
    /// A compaction ends overlays that replaced those it wrote.
    StoreCompactNewer = "store-compact-newer",
    /// A compaction is logged before its data are durable.
    StoreCompactedEarly = "store-compacted-early",
    /// A flush counts for what completed after it was sent.
    StoreFlushCoversLater = "store-flush-covers-later",
    /// Opening gives sequences again that pages have of which only the beginning arrived.
    StoreForgetTorn = "store-forget-torn",
    /// The record that names another block than the refused one is logged before the data are durable there.
    StoreMoveEarly = "store-move-early",
    /// An operation counts as done while the record that names its other block is not in the log.
    StoreMoveDoneEarly = "store-move-done-early",
    /// The cleaner drops a segment although objects live in it.
    StoreCleanLive = "store-clean-live",
    /// Data go in place before their record is in the log.
    StoreIntentEarly = "store-intent-early",
    /// Data go in place under an overlay, which is compacted on top of them.
    StoreIntentOverOverlay = "store-intent-over-overlay",
    /// Data go in place beyond what the device writes atomically.
    StoreIntentTorn = "store-intent-torn",
    /// Data go in place while the units are read.
    StoreIntentUnderRead = "store-intent-under-read",
    /// Data go in place while a compaction of the object is under way.
    StoreIntentOverCompaction = "store-intent-over-compaction",
    /// Opening goes back past an intent, whose data were durable before those of the next record.
    StoreFallBackFar = "store-fall-back-far",
    /// The cleaner snapshots objects whose data are on their way.
    StoreSnapshotUndone = "store-snapshot-undone",
    /// Pages name a tail that is not in the log.
    StoreTailInFlight = "store-tail-in-flight",
    /// The scrub of the log passes over pages that are damaged.
    StoreScrubBlind = "store-scrub-blind",
    /// What the scrub found damaged stays needed.
    StoreScrubForgets = "store-scrub-forgets",
    /// Data are admitted to the log while there is room, whatever cleaning can bring.
    StoreFillsUp = "store-fills-up",
}

impl Bug {
    /// Whether it is one of the object store: its own tests find it; clusters may hide it behind other copies.
    pub fn is_of_store(self) -> bool {
        self.name().starts_with("store-")
    }

    /// The bug of that name.
    pub fn from_name(name: &str) -> Option<Bug> {
        Bug::ALL.iter().copied().find(|bug| bug.name() == name)
    }
}

#[cfg(feature = "planted")]
mod switch {
    use super::Bug;
    use std::cell::Cell;
    use std::sync::atomic::{AtomicUsize, Ordering};

    thread_local! {
        // Per thread, so that tests which run side by side do not see each other's bugs.
        static ACTIVE: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Switches one bug on (or all off) for this thread.
    pub fn plant(bug: Option<Bug>) {
        ACTIVE.set(bug);
    }

    /// The bug of all threads: one more than its place in the list of all; 0: none.
    static EVERYWHERE: AtomicUsize = AtomicUsize::new(0);

    /// Switches one bug on for all threads, for good: a daemon is made for one.
    pub fn plant_everywhere(bug: Bug) {
        EVERYWHERE.store(bug as usize + 1, Ordering::Relaxed);
    }

    /// Whether this bug is switched on.
    pub fn planted(bug: Bug) -> bool {
        ACTIVE.get() == Some(bug) || EVERYWHERE.load(Ordering::Relaxed) == bug as usize + 1
    }
}

#[cfg(feature = "planted")]
pub use switch::{plant, plant_everywhere, planted};

/// Whether this bug is switched on: never.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn planted(_bug: Bug) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for bug in Bug::ALL {
            assert_eq!(Bug::from_name(bug.name()), Some(*bug));
        }
    }
}
