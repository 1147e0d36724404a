//! Messages between the OSDs of a placement group.
//!
//! A primary sends [`SubOp`]s under its attempt; a member answers each with one [`SubReply`], which carries the same
//! `call`. Sub-operations can be repeated (after a connection was lost): the second time does nothing more.

use crate::id::{Attempt, CopyId, Epoch, HashRange, Incarnation, ObjectId, PgId, Requests, Role, StoreUuid, Version};
use crate::store::{Bitmap, Content, CopyInfo, Data, Digest, Mode, Patch};
use crate::time::{Duration, Time};

/// A message between OSDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PgMessage {
    /// From a primary to a member; for all groups that both serve, in one message.
    Heartbeat {
        /// By the sender's clock; comes back.
        sent: Time,
        /// For how long a read lease is asked.
        lease: Duration,
        /// Groups that the sender serves as primary, and under which attempt.
        groups: Vec<(PgId, Attempt)>,
    },
    /// The answer.
    HeartbeatAck {
        /// As received.
        sent: Time,
        /// As received.
        lease: Duration,
        /// The groups for which the lease is granted.
        groups: Vec<(PgId, Attempt)>,
    },
    /// From a primary to a member.
    SubOp {
        /// The group.
        pg: PgId,
        /// The sender's attempt.
        attempt: Attempt,
        /// Comes back with the reply.
        call: u64,
        /// What to do.
        op: SubOp,
    },
    /// From a member to the primary.
    SubReply {
        /// The group.
        pg: PgId,
        /// The attempt of the sub-operation.
        attempt: Attempt,
        /// The sub-operation.
        call: u64,
        /// Its result.
        reply: SubReply,
    },
    /// From an OSD that holds copies of a group without being in its acting set, to the primary: what shall become
    /// of them?
    Stray {
        /// The group.
        pg: PgId,
        /// The epoch of the group's map that the sender knows.
        epoch: Epoch,
    },
}

/// What a primary asks of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubOp {
    /// Join this attempt: finish what was accepted before, make it durable, then say what there is.
    Query,
    /// Digests of the `1 << bits` parts of a range.
    Digest {
        /// Of copies in this role.
        role: Role,
        /// The range.
        range: HashRange,
        /// Binary logarithm of the number of parts.
        bits: u32,
    },
    /// The copies of a range, some at a time.
    List {
        /// Copies in this role.
        role: Role,
        /// The range.
        range: HashRange,
        /// Begin after this one.
        after: Option<CopyId>,
    },
    /// A client's write.
    Write {
        /// The copy.
        copy: CopyId,
        /// The version to make.
        version: Version,
        /// The version that it comes after.
        predecessor: Version,
        /// Committed at once or prepared.
        mode: Mode,
        /// What changes.
        change: Change,
        /// Requests that the version includes.
        requests: Requests,
    },
    /// A whole copy. In resolve it replaces whatever is there; in recovery only what is below it.
    Install {
        /// Which of the two.
        purpose: Purpose,
        /// The copy.
        copy: CopyId,
        /// Its version.
        version: Version,
        /// What that came after.
        predecessor: Version,
        /// Committed at once or prepared.
        mode: Mode,
        /// Its content.
        content: Content,
        /// Requests that it includes.
        requests: Requests,
    },
    /// Send the whole copy.
    Fetch {
        /// The copy.
        copy: CopyId,
        /// The version to send.
        version: Version,
    },
    /// Say what changed in the copy from one version to a later one.
    Changes {
        /// The copy.
        copy: CopyId,
        /// The older version.
        since: Version,
        /// The later one, which the member must hold.
        version: Version,
    },
    /// What a member missed of a copy: makes exactly `base` into a later version.
    Patch {
        /// The copy.
        copy: CopyId,
        /// The version that the member must have now.
        base: Version,
        /// The version that it becomes.
        version: Version,
        /// What that came after.
        predecessor: Version,
        /// The differences.
        patch: Box<Patch>,
        /// Requests that it includes.
        requests: Requests,
    },
    /// Delete a copy that is void or stale, if it has exactly this version.
    Remove {
        /// The copy.
        copy: CopyId,
        /// The version.
        version: Version,
    },
    /// Drop a tombstone of exactly this version.
    Purge {
        /// The copy.
        copy: CopyId,
        /// The tombstone's version.
        version: Version,
    },
    /// Read the copy and verify its checksums; answer with a sum of it.
    Check {
        /// The copy.
        copy: CopyId,
        /// The version that is expected.
        version: Version,
    },
    /// Delete all copies of the group: it is trimmed, and this OSD is not in its acting set.
    Leave,
    /// Make durable what was carried out before.
    Flush,
    /// Send some bytes of a copy; without a length, none: only which sectors of the whole copy were ever written.
    Read {
        /// The copy.
        copy: CopyId,
        /// The version to send.
        version: Version,
        /// Byte offset in the copy.
        offset: u32,
        /// Bytes.
        len: u32,
    },
    /// Commit what is prepared of these objects, where it has exactly these versions.
    Commit {
        /// Of copies in this role.
        role: Role,
        /// The objects.
        versions: Vec<(ObjectId, Version)>,
    },
    /// Delete all copies of the group in other roles than this: it is trimmed, and this OSD has this role.
    Vacate {
        /// The role to keep.
        keep: Role,
    },
}

/// Why a whole copy is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Peering chose this version: it replaces whatever is there.
    Resolve,
    /// The member lacks it: applied only above everything that it holds, and only if the member is not too full.
    Recovery,
    /// The same, and a client waits for it: whether there is room is up to the store.
    Wanted,
    /// The member's copy of this version is damaged: replaces exactly that.
    Repair,
}

/// How a version differs from its predecessor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Bytes at an offset.
    Data {
        /// Byte offset.
        offset: u32,
        /// The bytes.
        data: Data,
    },
    /// A range becomes unwritten.
    Zero {
        /// Byte offset.
        offset: u32,
        /// Bytes.
        len: u32,
    },
    /// The object is deleted.
    Delete,
    /// Other copies change, this one does not: only the version is new.
    Nothing,
}

/// What a member answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubReply {
    /// Of a query.
    Joined {
        /// The member's store.
        store: StoreUuid,
        /// Whether its metadata are evidence.
        trusted: bool,
        /// How long a lease that it granted in an older epoch may still run.
        lease_left: Duration,
        /// The start of the primary that got it; the default: it is not known.
        granted_to: Incarnation,
        /// Roles in which it holds copies, with their digests.
        roles: Vec<(Role, Digest)>,
    },
    /// Of a digest.
    Digests(Vec<Digest>),
    /// Of a list.
    Listing {
        /// Some copies, ordered by hash.
        copies: Vec<CopyInfo>,
        /// Whether there are more.
        more: bool,
    },
    /// Done, durably.
    Done,
    /// Of a fetch.
    Whole {
        /// The version.
        version: Version,
        /// What it came after.
        predecessor: Version,
        /// Its content.
        content: Content,
        /// Requests that it includes.
        requests: Requests,
    },
    /// Of a check.
    Checked {
        /// The version that is there; none: no copy. Only with the expected one the other fields mean something.
        version: Version,
        /// Whether it is a tombstone.
        tombstone: bool,
        /// CRC-32 of the data up to the last written sector, and of the bitmap in the lower half; of a chunk, its
        /// [fingerprint](crate::ec::fingerprint).
        sum: u64,
    },
    /// Of a question for changes.
    Changes {
        /// Outside of these nothing changed: offsets and lengths, whole units, in rising order.
        ranges: Vec<(u32, u32)>,
        /// What the version came after.
        predecessor: Version,
        /// The sum of its content, if it is at hand.
        sum: Option<u64>,
        /// Requests that it includes.
        requests: Requests,
    },
    /// Not done, and it will not be done later.
    Refused(Refused),
    /// Of a client's write in a lazy pool: done, durable after a [`SubOp::Flush`].
    Applied,
    /// Of a read.
    Read {
        /// The bytes.
        data: Data,
        /// Sectors of the range that were ever written; bit 0: its first sector. Of the whole copy, if no bytes were
        /// asked for.
        bitmap: Bitmap,
    },
}

/// Why a member did not do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It has heard of this higher epoch, or joined another attempt.
    Fenced(Epoch),
    /// Its copy is at this version.
    WrongPredecessor(Version),
    /// It has no such version.
    NoSuchVersion,
    /// No room for a new object.
    NoSpace,
    /// The body was damaged on its way.
    BadChecksum,
    /// What it has stored is damaged.
    Damaged,
    /// The patch would not have given the version that it should.
    Mismatch,
    /// Its store cannot do it: a media error, or it stopped.
    Failed,
}
