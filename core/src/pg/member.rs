//! The member side of a group: carries out what the primary of the joined attempt asks.
//!
//! Owns the fence, the joined attempt and the lease that was granted; all in memory, so that after a restart nothing
//! but a query is taken. Does not own copies (the store does), nor any decision about versions.
//!
//! Invariants: an attempt's sub-operations are carried out only while it is the joined one and its epoch is not below
//! the fence. A sub-operation that comes a second time changes nothing and is answered when the first one is durable.

use crate::id::{Attempt, CopyId, Epoch, HashRange, ObjectId, OsdId, PoolId, Role, Version};
use crate::map::ImmediateCommit;
use crate::pg::StorePurpose;
use crate::pg::changes::Changes;
use crate::pg::host::Host;
use crate::pg::lease::Grant;
use crate::pg::msg::{Change, Purpose, Refused, SubOp, SubReply};
use crate::pg::post::Post;
use crate::planted::{Bug, planted};
use crate::store::{Content, Data, Digest, Mode, ObjectStore, StoreError, StoreOp, StoreReply, StoreState};
use crate::time::{Duration, Time};

/// Copies in one listing: some 20 KiB of message.
pub const LISTING_COPIES: usize = 128;

/// See the module.
#[derive(Clone, Debug)]
pub struct MemberSide {
    pool: PoolId,
    range: HashRange,
    fence: Epoch,
    joined: Option<Attempt>,
    grant: Grant,
    /// Which of the pool's writes are durable when they are confirmed.
    pub promise: ImmediateCommit,
    block_size: u32,
    /// What changed while members were away.
    pub changes: Changes,
}

/// Who asked.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// The primary.
    pub to: OsdId,
    /// Its call.
    pub call: u64,
    /// Its attempt.
    pub attempt: Attempt,
}

impl MemberSide {
    /// A member that has just started, of a pool with this promise and block size.
    pub fn new(pool: PoolId, range: HashRange, (promise, block_size): (ImmediateCommit, u32)) -> Self {
        let (fence, grant, changes) = (Epoch(0), Grant::default(), Changes::new(block_size));
        MemberSide { pool, range, fence, joined: None, grant, promise, block_size, changes }
    }

    /// Leases that this OSD granted to groups of which this one takes over objects: primaries of theirs may read so long.
    pub fn inherit_lease(&mut self, until: Time) {
        self.grant = Grant::inherited(until);
    }

    /// The group exists no more: nothing is carried out any longer. Gives the end of the lease that was granted.
    pub fn end(&mut self) -> Time {
        self.fence = Epoch(u64::MAX);
        self.grant.until()
    }

    /// The highest epoch heard of.
    pub fn fence(&self) -> Epoch {
        self.fence
    }

    /// An epoch was heard of.
    pub fn heard(&mut self, epoch: Epoch) {
        self.fence = self.fence.max(epoch);
    }

    /// Whether `attempt` is the one whose orders are carried out.
    pub fn is_joined(&self, attempt: Attempt) -> bool {
        planted(Bug::SkipFence) || (self.joined == Some(attempt) && attempt.epoch >= self.fence)
    }

    /// A primary asks for a lease; true: granted.
    pub fn grant_lease(&mut self, now: Time, attempt: Attempt, lease: Duration) -> bool {
        let granted = self.is_joined(attempt) || planted(Bug::GrantToAnyAttempt);
        if granted {
            self.grant.extend(now, attempt, lease);
        }
        granted
    }

    /// Carries out a sub-operation, or refuses it.
    pub fn sub_op<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>, post: &mut Post, caller: Caller, op: SubOp) {
        let admitted = match op {
            SubOp::Query => self.join(caller.attempt),
            SubOp::Leave => caller.attempt.epoch >= self.fence,
            // What a version holds never changes, whoever asks.
            SubOp::Fetch { .. } | SubOp::Read { .. } | SubOp::Changes { .. } => true,
            _ => self.is_joined(caller.attempt),
        };
        if admitted {
            self.carry_out(host, post, caller, op);
        } else {
            host.mark("member refuses an attempt that it did not join");
            let fence = self.fence.max(self.joined.map_or(Epoch(0), |joined| joined.epoch));
            post.reply(host, caller.to, caller.attempt, caller.call, SubReply::Refused(Refused::Fenced(fence)));
        }
    }

    /// Joins an attempt, unless a higher one was joined or heard of.
    fn join(&mut self, attempt: Attempt) -> bool {
        let newer = |joined: Attempt| joined.epoch == attempt.epoch && joined.counter > attempt.counter;
        if attempt.epoch < self.fence || self.joined.is_some_and(newer) {
            return false;
        }
        self.fence = attempt.epoch;
        self.joined = Some(attempt);
        true
    }

    fn carry_out<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>, post: &mut Post, caller: Caller, op: SubOp) {
        let Caller { to, call, attempt } = caller;
        if let SubOp::Write { copy, version, predecessor, ref change, .. } = op {
            self.changes.ordered(copy, version, predecessor, change);
        }
        let immediate = match op {
            SubOp::Digest { role, range, bits } => Some(self.digests(host, role, range, bits)),
            SubOp::List { role, range, after } => Some(self.listing(host, role, range, after)),
            SubOp::Leave => Some(self.leave(host, post, None)),
            SubOp::Vacate { keep } => Some(self.leave(host, post, Some(keep))),
            SubOp::Install { purpose: Purpose::Recovery, copy, content: Content::Data { .. }, .. }
                if is_too_full(host, copy) =>
            {
                host.mark("a member is too full for recovery");
                Some(SubReply::Refused(Refused::NoSpace))
            }
            SubOp::Install { purpose, copy, version, .. } => self.refuse_install(host, attempt, purpose, copy, version),
            SubOp::Changes { copy, since, version } => Some(self.changes_of(host, copy, since, version)),
            SubOp::Patch { copy, base, version, .. } => refuse_patch(host, copy, base, version),
            SubOp::Query if planted(Bug::AnswerBeforeFlush) => Some(self.statement(host, attempt)),
            SubOp::Commit { role, ref versions } => {
                commit(host, post, role, versions);
                None
            }
            SubOp::Check { copy, version } => other_version(host, copy, version),
            SubOp::Read { copy, version, len: 0, .. } => Some(written(host, copy, version)),
            SubOp::Query
            | SubOp::Write { .. }
            | SubOp::Fetch { .. }
            | SubOp::Read { .. }
            | SubOp::Remove { .. }
            | SubOp::Purge { .. }
            | SubOp::Flush => None,
        };
        if let Some(reply) = immediate {
            return post.reply(host, to, attempt, call, reply);
        }
        if planted(Bug::CommitAfterApplied) && matches!(op, SubOp::Write { mode: Mode::Prepare, .. }) {
            post.reply(host, to, attempt, call, SubReply::Done);
            let op = self.store_op(host, post, op);
            return host.submit(post.pg, StorePurpose::Forget, op);
        }
        let purpose = match op {
            SubOp::Query => StorePurpose::Join { to, call, attempt },
            SubOp::Check { .. } => StorePurpose::Check { to, call, attempt },
            SubOp::Write { version, mode, ref change, .. } => {
                let lazy = mode == Mode::Plain && self.may_be_lazy(change);
                StorePurpose::Write { to, call, attempt, version, lazy }
            }
            _ => StorePurpose::SubOp { to, call, attempt },
        };
        let op = self.store_op(host, post, op);
        host.submit(post.pg, purpose, op);
    }

    fn may_be_lazy(&self, change: &Change) -> bool {
        let bytes = if let Change::Data { data, .. } = change { data.len() } else { 0 };
        !self.promise.covers(bytes, self.block_size)
    }

    fn digests<S: ObjectStore>(&self, host: &Host<'_, '_, S>, role: Role, range: HashRange, bits: u32) -> SubReply {
        let part = |index| host.store.digest(self.pool, role, range.part(index, bits));
        SubReply::Digests((0..1u32 << bits.min(DIGEST_BITS_MAX)).map(part).collect())
    }

    fn listing<S: ObjectStore>(
        &self,
        host: &Host<'_, '_, S>,
        role: Role,
        range: HashRange,
        after: Option<CopyId>,
    ) -> SubReply {
        let mut copies = Vec::new();
        let more = host.store.list(self.pool, role, range, after, LISTING_COPIES, &mut copies);
        SubReply::Listing { copies, more }
    }

    /// What changed in a copy, if that is known and the version is here.
    fn changes_of<S: ObjectStore>(
        &self,
        host: &Host<'_, '_, S>,
        copy: CopyId,
        since: Version,
        version: Version,
    ) -> SubReply {
        let ranges = self.changes.since(copy, since, version);
        let versions = host.store.lookup(copy).map(|info| [info.prepared, info.committed]);
        let held = versions.into_iter().flatten().flatten().find(|info| info.version == version);
        match (ranges, held) {
            (Some(ranges), Some(info)) if !info.tombstone && !info.damaged => SubReply::Changes {
                ranges,
                predecessor: info.predecessor,
                sum: host.store.content_sum(copy, version),
                requests: info.requests,
            },
            _ => SubReply::Refused(Refused::NoSuchVersion),
        }
    }

    /// Whether (and how) an installation is refused. In resolve, nothing of the attempt's own epoch can be there yet:
    /// if it is, the order is a late one.
    fn refuse_install<S: ObjectStore>(
        &self,
        host: &Host<'_, '_, S>,
        attempt: Attempt,
        purpose: Purpose,
        copy: CopyId,
        version: Version,
    ) -> Option<SubReply> {
        let info = host.store.lookup(copy)?;
        let newest = info.prepared.as_ref().or(info.committed.as_ref())?;
        let refused = match purpose {
            Purpose::Resolve => newest.version > version && newest.version.epoch >= attempt.epoch,
            Purpose::Recovery | Purpose::Wanted => newest.version > version && !planted(Bug::RecoverOverNewer),
            Purpose::Repair => newest.version != version,
        };
        refused.then_some(SubReply::Refused(Refused::WrongPredecessor(newest.version)))
    }

    /// The store operation that carries out a sub-operation. What is there already needs only to become durable.
    fn store_op<S: ObjectStore>(&self, host: &Host<'_, '_, S>, post: &Post, op: SubOp) -> StoreOp {
        match op {
            SubOp::Write { copy, version, predecessor, mode, change, requests } => match change {
                Change::Data { offset, data } => StoreOp::Write {
                    copy,
                    version,
                    predecessor,
                    offset,
                    data: Some(data),
                    mode,
                    commits_predecessor: mode == Mode::Prepare && !planted(Bug::DropKeptPredecessor),
                    requests,
                },
                Change::Nothing => StoreOp::Write {
                    copy,
                    version,
                    predecessor,
                    offset: 0,
                    data: None,
                    mode,
                    commits_predecessor: mode == Mode::Prepare && !planted(Bug::DropKeptPredecessor),
                    requests,
                },
                Change::Zero { offset, len } => {
                    StoreOp::Zero { copy, version, predecessor, offset, len, mode, requests }
                }
                Change::Delete if planted(Bug::TombstoneForgetsRequests) => {
                    StoreOp::Tombstone { copy, version, predecessor, mode, requests: crate::id::Requests::new() }
                }
                Change::Delete => StoreOp::Tombstone { copy, version, predecessor, mode, requests },
            },
            SubOp::Install { purpose: Purpose::Recovery | Purpose::Wanted, copy, version, .. }
                if is_whole_at(host, copy, version) =>
            {
                StoreOp::Sync { pg: post.pg }
            }
            SubOp::Install { copy, version, predecessor, mode, content, requests, .. } => {
                // A damaged copy that is committed stays so.
                let mode = if is_committed_at(host, copy, version) { Mode::Plain } else { mode };
                let requests = if planted(Bug::InstallForgetsRequests) { crate::id::Requests::new() } else { requests };
                StoreOp::Replace { copy, version, predecessor, content, mode, requests }
            }
            SubOp::Patch { copy, version, .. } if is_whole_at(host, copy, version) => StoreOp::Sync { pg: post.pg },
            SubOp::Patch { copy, version, predecessor, patch, requests, .. } if planted(Bug::PatchIsAll) => {
                let content = Content::Data { data: patch.data, bitmap: patch.bitmap };
                StoreOp::Replace { copy, version, predecessor, content, mode: Mode::Plain, requests }
            }
            SubOp::Patch { copy, base, version, predecessor, patch, requests } => {
                StoreOp::Patch { copy, base, version, predecessor, patch, requests }
            }
            SubOp::Fetch { copy, version } | SubOp::Check { copy, version } => {
                StoreOp::ReadAll { copy, version: Some(version) }
            }
            SubOp::Read { copy, version, offset, len } => StoreOp::Read { copy, version: Some(version), offset, len },
            SubOp::Remove { copy, version } => StoreOp::Remove { copy, version },
            SubOp::Purge { copy, version } => StoreOp::Purge { copy, version },
            SubOp::Query
            | SubOp::Flush
            | SubOp::Digest { .. }
            | SubOp::List { .. }
            | SubOp::Changes { .. }
            | SubOp::Leave
            | SubOp::Vacate { .. }
            | SubOp::Commit { .. } => StoreOp::Sync { pg: post.pg },
        }
    }

    /// Deletes some copies, but not those in one role; the primary asks again until there are none.
    fn leave<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>, post: &Post, keep: Option<Role>) -> SubReply {
        let mut copies = Vec::new();
        let mut more = false;
        let roles = host.store.roles(self.pool, self.range);
        for role in roles.into_iter().filter(|role| Some(*role) != keep || planted(Bug::VacateEverything)) {
            more |= host.store.list(self.pool, role, self.range, None, LISTING_COPIES, &mut copies);
        }
        for info in &copies {
            for version in [&info.prepared, &info.committed].into_iter().flatten() {
                let op = StoreOp::Remove { copy: info.copy, version: version.version };
                host.submit(post.pg, StorePurpose::Forget, op);
            }
        }
        SubReply::Listing { copies: Vec::new(), more }
    }

    /// A write finished. If it was a repetition, its first try may still be under way: answer when that is durable. So
    /// it is with a store that is lazier than the pool.
    pub fn written<S: ObjectStore>(
        &mut self,
        host: &mut Host<'_, '_, S>,
        post: &mut Post,
        caller: Caller,
        (version, lazy): (Version, bool),
        result: Result<StoreReply, StoreError>,
    ) {
        let Caller { to, call, attempt } = caller;
        let unsettled = match &result {
            Err(StoreError::WrongPredecessor(newest)) => *newest >= version,
            Ok(StoreReply::Applied) => !lazy,
            _ => false,
        };
        match result {
            _ if unsettled => {
                host.submit(post.pg, StorePurpose::SubOp { to, call, attempt }, StoreOp::Sync { pg: post.pg });
            }
            result => post.reply(host, to, attempt, call, reply_of(result)),
        }
    }

    /// What had been accepted before a query is durable now: say what there is.
    pub fn joined<S: ObjectStore>(
        &self,
        host: &mut Host<'_, '_, S>,
        post: &mut Post,
        caller: Caller,
        result: Result<StoreReply, StoreError>,
    ) {
        let reply = match result {
            Ok(_) if self.is_joined(caller.attempt) => self.statement(host, caller.attempt),
            Ok(_) => SubReply::Refused(Refused::Fenced(self.fence)),
            Err(error) => SubReply::Refused(refusal(&error)),
        };
        post.reply(host, caller.to, caller.attempt, caller.call, reply);
    }

    fn statement<S: ObjectStore>(&self, host: &Host<'_, '_, S>, attempt: Attempt) -> SubReply {
        let digest = |role: Role| (role, host.store.digest(self.pool, role, self.range));
        let roles: Vec<(Role, Digest)> = host.store.roles(self.pool, self.range).into_iter().map(digest).collect();
        let (lease_left, granted_to) =
            self.grant.left_below(attempt.epoch, host.now(), host.node.started, host.node.lease);
        let (store, trusted) = (host.node.store, host.store.state() == StoreState::Open { trusted: true });
        SubReply::Joined { store, trusted, lease_left, granted_to, roles }
    }
}

/// Binary logarithm of the most parts of one digest request.
pub const DIGEST_BITS_MAX: u32 = 8;

/// The reply to a sub-operation whose store operation finished.
pub fn reply_of(result: Result<StoreReply, StoreError>) -> SubReply {
    match result {
        Ok(StoreReply::Whole { version, predecessor, content, requests }) => {
            SubReply::Whole { version, predecessor, content, requests }
        }
        Ok(StoreReply::Read { data, bitmap, .. }) => SubReply::Read { data, bitmap },
        Ok(StoreReply::Done) => SubReply::Done,
        Ok(StoreReply::Applied) => SubReply::Applied,
        Err(error) => SubReply::Refused(refusal(&error)),
    }
}

fn refusal(error: &StoreError) -> Refused {
    match error {
        StoreError::WrongPredecessor(version) => Refused::WrongPredecessor(*version),
        StoreError::NoSuchVersion => Refused::NoSuchVersion,
        StoreError::NoSpace => Refused::NoSpace,
        StoreError::BadChecksum => Refused::BadChecksum,
        StoreError::Mismatch => Refused::Mismatch,
        StoreError::Damaged { .. } => Refused::Damaged,
        StoreError::WriteFailed | StoreError::Stopped | StoreError::BadRequest(_) => Refused::Failed,
    }
}

/// Commits what is prepared at exactly these versions.
fn commit<S: ObjectStore>(host: &mut Host<'_, '_, S>, post: &Post, role: Role, versions: &[(ObjectId, Version)]) {
    for (object, version) in versions {
        let (copy, version) = (CopyId { object: *object, role }, *version);
        let prepared = host.store.lookup(copy).and_then(|info| info.prepared);
        if prepared.is_some_and(|prepared| prepared.version == version) {
            host.submit(post.pg, StorePurpose::Forget, StoreOp::Commit { copy, version });
        }
    }
}

/// Which sectors of a version were ever written; no data are read for it.
fn written<S: ObjectStore>(host: &mut Host<'_, '_, S>, copy: CopyId, version: Version) -> SubReply {
    match host.store.written(copy, Some(version)) {
        Ok(bitmap) => SubReply::Read { data: Data::new(host.env.bufs.alloc(0).freeze()), bitmap },
        Err(error) => SubReply::Refused(refusal(&error)),
    }
}

fn is_committed_at<S: ObjectStore>(host: &Host<'_, '_, S>, copy: CopyId, version: Version) -> bool {
    let committed = host.store.lookup(copy).and_then(|info| info.committed);
    committed.is_some_and(|committed| committed.version == version)
}

/// The answer to a check of a version that is not here. It may be prepared: the order to commit it may be on its way.
fn other_version<S: ObjectStore>(host: &Host<'_, '_, S>, copy: CopyId, expected: Version) -> Option<SubReply> {
    let (committed, prepared) = host.store.lookup(copy).map_or((None, None), |info| (info.committed, info.prepared));
    if prepared.is_some_and(|info| info.version == expected) {
        return None;
    }
    let version = committed.map_or(Version::NONE, |info| info.version);
    (version != expected).then_some(SubReply::Checked { version, tombstone: false, sum: 0 })
}

/// Whether one more copy would leave clients too little space. A copy in place of another takes none.
fn is_too_full<S: ObjectStore>(host: &Host<'_, '_, S>, copy: CopyId) -> bool {
    let stats = host.store.stats();
    let used = stats.total_bytes.saturating_sub(stats.free_bytes);
    let full = u128::from(used) * 100 > u128::from(stats.total_bytes) * u128::from(host.node.recovery_full_percent);
    full && host.store.lookup(copy).is_none()
}

/// A patch is for exactly its base, prepared or committed; or it was carried out before.
fn refuse_patch<S: ObjectStore>(
    host: &Host<'_, '_, S>,
    copy: CopyId,
    base: Version,
    version: Version,
) -> Option<SubReply> {
    let info = host.store.lookup(copy);
    let newest = info.and_then(|info| info.prepared.or(info.committed));
    let held = newest.as_ref().map_or(Version::NONE, |info| info.version);
    let damaged = newest.is_some_and(|info| info.damaged);
    match held {
        _ if damaged => Some(SubReply::Refused(Refused::Damaged)),
        held if held == base || held == version => None,
        held => Some(SubReply::Refused(Refused::WrongPredecessor(held))),
    }
}

fn is_whole_at<S: ObjectStore>(host: &Host<'_, '_, S>, copy: CopyId, version: Version) -> bool {
    let info = host.store.lookup(copy);
    let newest = info.and_then(|info| info.prepared.or(info.committed));
    newest.is_some_and(|newest| newest.version == version && !newest.damaged)
}
