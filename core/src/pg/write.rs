//! Clients' operations: admission, order within an object, and writes.
//!
//! Owns what an object's queue does next ([`Primary::object_step`] decides from the records alone) and the writing of
//! versions. Does not own reads (read.rs), nor the list of included requests (requests.rs).
//!
//! Rules: writes of an object start in order of arrival and may be under way together; one that overlaps an operation
//! before it that has not begun, or a read that is not done, waits for it, and so does a read for every write before it
//! that it overlaps. A write
//! starts only when all acting members are at its predecessor, and is acknowledged, in order, when all have it durable.

use crate::id::{CopyId, LinkId, ObjectId, OsdId, RequestId, Requests, Version};
use crate::limits::SECTOR_BYTES;
use crate::msg::{Answer, Fact, Refusal, Request, RequestOp};
use crate::pg::msg::{Change, Purpose as Installation, Refused, SubOp, SubReply};
use crate::pg::ops::{Kind, Object, Op, State};
use crate::pg::primary::{Cx, Primary, Purpose};
use crate::pg::recover::Entry;
use crate::pg::requests::{Known, look_up};
use crate::planted::{Bug, planted};
use crate::slab::Key;
use crate::store::{Content, Mode, ObjectStore};
use smallvec::smallvec;

/// Operations of a group under way or waiting; more are told to come again.
pub const OPS_PER_PG: usize = 4096;
/// How often a body that was damaged on its way is sent again before its member is given up.
const DAMAGED_MAX: u8 = 3;

/// What a request asks for, if it makes sense.
pub fn kind_of(request: &Request, object_bytes: u32) -> Result<Kind, Refusal> {
    let check = |offset: u32, len: u32| {
        let aligned = offset.is_multiple_of(SECTOR_BYTES) && len.is_multiple_of(SECTOR_BYTES);
        let inside = u64::from(offset) + u64::from(len) <= u64::from(object_bytes);
        if aligned && inside && len > 0 { Ok(()) } else { Err(Refusal::BadRequest) }
    };
    match &request.op {
        RequestOp::Read { offset, len } => {
            check(*offset, *len)?;
            Ok(Kind::Read { offset: *offset, len: *len, status: false })
        }
        RequestOp::BlockStatus { offset, len } => {
            check(*offset, *len)?;
            Ok(Kind::Read { offset: *offset, len: *len, status: true })
        }
        RequestOp::Write { offset, data, expect } => {
            check(*offset, data.len())?;
            if !data.verify() {
                return Err(Refusal::BadChecksum);
            }
            let change = Change::Data { offset: *offset, data: data.clone() };
            Ok(Kind::Write { change, expect: *expect })
        }
        RequestOp::Zero { offset, len } => {
            check(*offset, *len)?;
            Ok(Kind::Write { change: Change::Zero { offset: *offset, len: *len }, expect: None })
        }
        RequestOp::Delete { expect } => Ok(Kind::Write { change: Change::Delete, expect: *expect }),
        RequestOp::Sync => Err(Refusal::BadRequest),
    }
}

/// What an operation may do now.
enum Turn {
    Start,
    Wait,
}

impl Primary {
    /// Takes a client's request for this epoch.
    pub fn request<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, link: LinkId, request: &Request) {
        if let RequestOp::Sync = request.op {
            return self.sync(cx, link, request);
        }
        let kind = match kind_of(request, self.rules.object_bytes) {
            Ok(kind) => kind,
            Err(refusal) => return self.answer(cx, Some(link), request.id, Err(refusal)),
        };
        if kind.is_write() {
            if self.sessions.is_outdated(request.id.session) {
                cx.host.mark("a request of a session that a newer one follows");
                return self.answer(cx, Some(link), request.id, Err(Refusal::Fenced));
            }
            if !self.sessions.arrived(cx.host.now(), request.id, request.seen) && !planted(Bug::DropRequestNumbers) {
                return cx.host.mark("a late duplicate of a request whose answer was seen");
            }
            if self.take_over(link, request) {
                return cx.host.mark("a retry of a request that is under way");
            }
            if let Some(outcome) = self.sessions.declined(request.id, kind.expect()) {
                cx.host.mark("a retry of a request that changed nothing");
                let outcome = outcome.map(|version| self.told(version, self.rules.lazy));
                return self.answer(cx, Some(link), request.id, outcome);
            }
        }
        if self.ops.len() >= OPS_PER_PG {
            return self.answer(cx, Some(link), request.id, Err(Refusal::Again));
        }
        let since = self.unclean.get(request.object).is_none().then(|| cx.host.now());
        let object = self.ops.push(request.id, Some(link), request.object, kind, since);
        self.object_step(cx, object);
    }

    /// If the same request is under way, its answer goes to the newest link.
    fn take_over(&mut self, link: LinkId, request: &Request) -> bool {
        let Some(object) = self.ops.find(request.object) else { return false };
        let same = |(_, op): &(Key<Op>, &Op)| op.id == request.id && op.kind.is_write();
        let Some(key) = self.ops.queue(object).find(same).map(|(key, _)| key) else { return false };
        self.ops.get_mut(key).expect("found in the queue").link = Some(link);
        !planted(Bug::DropRequestNumbers)
    }

    /// A client's connection is gone: what it did not start is dropped.
    pub fn client_gone<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, link: LinkId) {
        self.syncs.client_gone(link);
        let of_link: Vec<Key<Op>> =
            self.ops.iter().filter(|(_, op)| op.link == Some(link)).map(|(key, _)| key).collect();
        for key in of_link {
            // What came before it may have ended it.
            let Some(op) = self.ops.get_mut(key) else { continue };
            op.link = None;
            let object = op.object;
            if let State::Waiting | State::Leasing { .. } = op.state {
                self.ops.remove(key);
                self.object_step(cx, object);
            }
        }
    }

    /// The object may go on.
    pub fn wake_object<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: ObjectId) {
        if let Some(key) = self.ops.find(object) {
            self.object_step(cx, key);
        }
    }

    /// Starts what may start, in the order of the queue.
    pub fn object_step<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: Key<Object>) {
        if !self.ops.is_live(object) || !self.load(cx, object) {
            return;
        }
        let own = self.roster.acting_seat(cx.host.node.osd).expect("a primary is an acting member");
        let mut next = self.ops.first(object);
        while let Some(key) = next {
            next = self.ops.after(key);
            // Gone: the end of an operation before it made the queue go on, all of it.
            let Some(op) = self.ops.get(key) else { return };
            if !matches!(op.state, State::Waiting) {
                continue;
            }
            let is_write = op.kind.is_write();
            match self.turn(object, key, own) {
                Turn::Start if is_write => self.start_write(cx, object, key),
                Turn::Start => self.start_read(cx, object, key),
                Turn::Wait => {}
            }
        }
        self.launch_round(cx, object);
    }

    /// Whether an operation's turn has come, by those before it.
    fn turn(&self, object: Key<Object>, key: Key<Op>, own: u8) -> Turn {
        let op = self.ops.get(key).expect("in the queue");
        let record = self.ops.object(object);
        let entry = self.unclean.get(record.id);
        let purges = matches!(op.kind, Kind::Purge { .. });
        let writable = entry.is_none_or(|entry| entry.is_settled() && record.in_flight == 0 && !purges);
        let lacks = |entry: &Entry| entry.good >> own & 1 == 0;
        if !op.kind.is_write() && entry.is_some_and(lacks) && !planted(Bug::ReadBeforeRecovery) {
            return Turn::Wait;
        }
        if op.kind.is_write() && (!writable || record.hurt != 0) {
            return Turn::Wait;
        }
        let alone = match &op.kind {
            Kind::Write { expect, .. } => expect.is_some(),
            Kind::Purge { .. } => true,
            Kind::Read { .. } | Kind::Remove => false,
        };
        if alone && record.in_flight > 0 {
            return Turn::Wait;
        }
        if op.kind.is_write() && !self.rules.replicated && !self.may_join(record, object, &op.kind) {
            return Turn::Wait;
        }
        for (_, before) in self.ops.queue(object).take_while(|(other, _)| *other != key) {
            let waiting = matches!(before.state, State::Waiting);
            let writing = matches!(before.state, State::Writing { .. });
            let purging = writing && matches!(before.kind, Kind::Purge { .. });
            // A read that waits for space is no reason not to make some.
            let unread = (waiting && entry.is_none()) || matches!(before.state, State::Reading { .. });
            let blocks = if op.kind.is_write() {
                purging || (waiting && before.kind.is_write()) || (unread && before.kind.overlaps(&op.kind))
            } else {
                let concerned = before.kind.is_write() && before.kind.overlaps(&op.kind);
                (waiting || writing) && concerned && !planted(Bug::DirtyRead)
            };
            if blocks {
                return Turn::Wait;
            }
        }
        Turn::Start
    }

    /// Finds out the object's version; false: it must be recovered first, or cannot be.
    fn load<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: Key<Object>) -> bool {
        let id = self.ops.object(object).id;
        let own = self.roster.acting_seat(cx.host.node.osd).expect("a primary is an acting member");
        if let Some(entry) = self.unclean.get(id) {
            let whole_here = entry.good >> own & 1 == 1 || planted(Bug::ReadBeforeRecovery);
            if entry.buried {
                return false;
            }
            if entry.unfound {
                let version = entry.version;
                self.step_unfound(cx, object, version);
                return false;
            }
            if !entry.cramped {
                self.recover_now(cx, id);
            }
            if !self.ops.is_live(object) {
                return false;
            }
            if !whole_here && self.unclean.get(id).is_some() {
                return self.load_label(object, id);
            }
        }
        if self.ops.object(object).loaded {
            return true;
        }
        let info = cx.host.store.lookup(CopyId { object: id, role: self.roster.role(own) });
        // Beside the version that counts there may be a stale one, to be removed.
        let counts = self.unclean.get(id).map(|entry| entry.version);
        let newest = info.and_then(|info| {
            let versions = [info.prepared, info.committed].into_iter().flatten();
            versions.into_iter().find(|info| counts.is_none_or(|version| info.version == version))
        });
        let record = self.ops.object_mut(object);
        record.loaded = true;
        record.newest = newest.as_ref().map_or(Version::NONE, |info| info.version);
        record.absent = newest.as_ref().is_none_or(|info| info.tombstone);
        record.visible = if record.absent { Version::NONE } else { record.newest };
        record.requests = newest.map(|info| info.requests).unwrap_or_default();
        true
    }

    /// An object of which no good copy is left can be deleted, no more.
    fn step_unfound<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: Key<Object>, version: Version) {
        let waiting = |(_, op): &(Key<Op>, &Op)| matches!(op.state, State::Waiting);
        let keys: Vec<Key<Op>> = self.ops.queue(object).filter(waiting).map(|(key, _)| key).collect();
        for key in keys {
            let kind = &self.ops.get(key).expect("listed above").kind;
            let deletes = matches!(kind, Kind::Write { change: Change::Delete, expect: None } | Kind::Remove);
            if !deletes {
                self.finish(cx, key, Err(Refusal::Damaged));
            } else if self.ops.object(object).in_flight == 0 {
                let request = self.ops.get(key).expect("listed above").id;
                let requests = if request == RequestId::default() { Requests::new() } else { smallvec![request] };
                self.bury(cx, object, key, version, requests);
            }
        }
    }

    /// Puts a tombstone in place of an object that not all members have: as a whole copy, since they may hold what they like
    /// of it.
    pub fn bury<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        object: Key<Object>,
        key: Key<Op>,
        predecessor: Version,
        requests: Requests,
    ) {
        cx.host.mark("an object that not all members have is deleted");
        let version = Version { epoch: self.attempt.epoch, seq: predecessor.seq.max(self.seq_floor) + 1 };
        let record = self.ops.object_mut(object);
        record.in_flight += 1;
        record.loaded = false;
        let (id, seats) = (record.id, self.acting_seats());
        self.unclean.bury(id);
        let op = self.ops.get_mut(key).expect("the caller's");
        op.state = State::Writing { version, tombstone: true, left: seats, no_space: 0, damaged: 0 };
        for seat in (0..64u8).filter(|seat| seats >> seat & 1 == 1) {
            let copy = CopyId { object: id, role: self.roster.role(seat) };
            let (purpose, mode, content) = (Installation::Recovery, Mode::Plain, Content::Tombstone);
            let requests = requests.clone();
            let op = SubOp::Install { purpose, copy, version, predecessor, mode, content, requests };
            self.send(cx, seat, op, Purpose::Write { op: key, seat });
        }
    }

    /// Ends an operation with an answer.
    pub fn finish<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        key: Key<Op>,
        outcome: Result<Answer, Refusal>,
    ) {
        let op = self.ops.remove(key);
        if let Some(since) = op.since {
            let now = cx.host.now();
            let took = now.since(since);
            cx.host.recovery.client_waited(now, took);
            let served = cx.host.served.entry(self.pg.pool).or_default();
            let times = if op.kind.is_write() { &mut served.write } else { &mut served.read };
            times.record(took);
        }
        match (&op.kind, &outcome) {
            (Kind::Write { expect, .. }, Ok(Answer::Written { version })) if version.is_none() => {
                self.sessions.decline(op.id, *expect, Ok(*version));
            }
            (Kind::Write { expect, .. }, Err(refusal @ (Refusal::VersionMismatch(_) | Refusal::NoSpace))) => {
                self.sessions.decline(op.id, *expect, Err(*refusal));
            }
            _ => {}
        }
        // What was found done, or needless, may rest on what is not durable.
        let lazy = op.applied || (self.rules.lazy && !matches!(op.state, State::Writing { .. }));
        let outcome = match outcome {
            Ok(Answer::Written { version }) if op.kind.is_write() => Ok(self.told(version, lazy)),
            outcome => outcome,
        };
        self.answer(cx, op.link, op.id, outcome);
        match op.kind {
            Kind::Purge { .. } => self.purged(cx),
            Kind::Remove => self.object_removed(cx),
            Kind::Read { .. } | Kind::Write { .. } => {}
        }
    }

    /// The answer to a write.
    fn told(&self, version: Version, lazy: bool) -> Answer {
        if lazy { Answer::Applied { version } } else { Answer::Written { version } }
    }

    fn start_write<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: Key<Object>, key: Key<Op>) {
        let op = self.ops.get(key).expect("in the queue");
        let record = self.ops.object(object);
        let (change, expect) = match &op.kind {
            Kind::Write { change, expect } => (change.clone(), *expect),
            Kind::Purge { version, .. } => {
                let version = *version;
                return self.start_purge(cx, object, key, version);
            }
            Kind::Remove => return self.start_remove(cx, object, key),
            Kind::Read { .. } => unreachable!("reads are started by start_read"),
        };
        if op.link.is_some() && self.sessions.has_seen(op.id) && !planted(Bug::DropRequestNumbers) {
            // While it waited, the client saw the answer; the lists that versions carry may name it no more.
            cx.host.mark("a duplicate whose answer was seen while it waited");
            return self.finish(cx, key, Err(Refusal::Again));
        }
        match look_up(&record.requests, record.newest, op.id) {
            Known::New => {}
            Known::Included(version) if record.in_flight == 0 => {
                cx.host.mark("a retry of a request that was carried out");
                return self.finish(cx, key, Ok(Answer::Written { version }));
            }
            // Included in a version that is not acknowledged yet: its own operation is gone only with its client.
            Known::Included(_) => return,
            Known::Superseded => return self.finish(cx, key, Err(Refusal::Fenced)),
        }
        if expect.is_some_and(|expect| expect != record.visible) && !planted(Bug::IgnoreCondition) {
            let refusal = Refusal::VersionMismatch(record.visible);
            return self.answer_leased(cx, key, Err(refusal));
        }
        let removes = !matches!(change, Change::Data { .. });
        if removes && record.absent {
            if record.in_flight == 0 {
                self.answer_leased(cx, key, Ok(Answer::Written { version: Version::NONE }));
            }
            return;
        }
        if record.absent && record.in_flight == 0 && cx.cramped.refuses_new(cx.host.now()) {
            return self.finish(cx, key, Err(Refusal::NoSpace));
        }
        let Some(requests) = self.sessions.extended(cx.host.now(), &record.requests, op.id) else {
            return self.finish(cx, key, Err(Refusal::Again));
        };
        self.send_write(cx, object, key, change, requests);
    }

    /// Gives the next version and sends it to all acting members.
    fn send_write<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        object: Key<Object>,
        key: Key<Op>,
        change: Change,
        requests: Requests,
    ) {
        let id = self.ops.object(object).id;
        if self.unclean.get(id).is_some() {
            return self.write_cramped(cx, object, key, &change, requests);
        }
        let floor = self.seq_floor;
        let record = self.ops.object_mut(object);
        let (predecessor, fresh, joins) = (record.newest, record.absent, record.round.is_some());
        let version = Version { epoch: self.attempt.epoch, seq: predecessor.seq.max(floor) + 1 };
        let tombstone = matches!(change, Change::Delete);
        record.newest = version;
        record.absent = tombstone;
        record.requests.clone_from(&requests);
        record.in_flight += 1;
        let seats = self.acting_seats();
        let own = self.roster.acting_seat(cx.host.node.osd).expect("a primary is an acting member");
        let left = if planted(Bug::AcknowledgeBeforeDurable) { 1 << own } else { seats };
        // Of a round only the first one waits for members.
        let left = if joins { 0 } else { left };
        let op = self.ops.get_mut(key).expect("in the queue");
        op.state = State::Writing { version, tombstone, left, no_space: 0, damaged: 0 };
        if tombstone {
            self.note_deletion(cx);
        }
        if !self.rules.replicated {
            return self.join_round(object, key, change, predecessor, fresh);
        }
        for seat in (0..64u8).filter(|seat| seats >> seat & 1 == 1) {
            let copy = CopyId { object: id, role: self.roster.role(seat) };
            let (change, requests) = (change.clone(), requests.clone());
            let op = SubOp::Write { copy, version, predecessor, mode: Mode::Plain, change, requests };
            self.send(cx, seat, op, Purpose::Write { op: key, seat });
        }
    }

    /// A deletion that no client retries; and as every request to the object is refused from now on, none needs to be
    /// remembered.
    fn start_remove<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: Key<Object>, key: Key<Op>) {
        let record = self.ops.object(object);
        if !record.absent {
            self.send_write(cx, object, key, Change::Delete, Requests::new());
        } else if record.in_flight == 0 {
            self.finish(cx, key, Ok(Answer::Written { version: Version::NONE }));
        }
    }

    fn start_purge<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        object: Key<Object>,
        key: Key<Op>,
        version: Version,
    ) {
        let record = self.ops.object_mut(object);
        if record.newest != version || !record.absent {
            return self.finish(cx, key, Ok(Answer::Synced));
        }
        let id = record.id;
        record.newest = Version::NONE;
        record.requests.clear();
        record.in_flight += 1;
        if !self.rules.replicated {
            return self.commit_before_purge(cx, key, id, version);
        }
        self.send_purge(cx, key, id, version);
    }

    fn send_purge<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, key: Key<Op>, id: ObjectId, version: Version) {
        let seats = self.acting_seats();
        let op = self.ops.get_mut(key).expect("in the queue");
        op.state = State::Writing { version: Version::NONE, tombstone: true, left: seats, no_space: 0, damaged: 0 };
        for seat in (0..64u8).filter(|seat| seats >> seat & 1 == 1) {
            let copy = CopyId { object: id, role: self.roster.role(seat) };
            self.send(cx, seat, SubOp::Purge { copy, version }, Purpose::Write { op: key, seat });
        }
    }

    /// A member answered a write (or a purge).
    pub fn confirmed<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        key: Key<Op>,
        seat: u8,
        sent: SubOp,
        reply: SubReply,
    ) {
        let Some(object) = self.ops.get(key).map(|op| op.object) else {
            return cx.host.mark("a member confirmed a write that is over");
        };
        let refused_order = matches!(reply, SubReply::Refused(Refused::WrongPredecessor(_)));
        let follows = refused_order && self.has_predecessor_at(object, key, seat);
        let op = self.ops.get_mut(key).expect("found above");
        let State::Writing { left, no_space, damaged, .. } = &mut op.state else {
            panic!("{:?}: {key:?} is not being written", self.pg)
        };
        match reply {
            SubReply::Done => *left &= !(1 << seat),
            SubReply::Applied => {
                *left &= !(1 << seat);
                op.applied = true;
                self.syncs.applied();
            }
            SubReply::Refused(Refused::BadChecksum) if *damaged < DAMAGED_MAX => {
                *damaged += 1;
                cx.host.mark("a body was damaged between members");
                return self.send(cx, seat, sent, Purpose::Write { op: key, seat });
            }
            SubReply::Refused(Refused::WrongPredecessor(_)) if follows => {
                self.parked.push((seat, key, sent));
                return;
            }
            SubReply::Refused(Refused::NoSpace) if planted(Bug::NoSpaceIsDone) => *left &= !(1 << seat),
            SubReply::Refused(Refused::NoSpace) => {
                *no_space |= 1 << seat;
                self.parked.push((seat, key, sent));
                return if self.rules.replicated || self.ops.object(object).round.is_none() {
                    self.no_space(cx, object, key)
                } else {
                    self.withdraw_round(cx, object, key)
                };
            }
            SubReply::Refused(Refused::Damaged) => {
                self.parked.push((seat, key, sent));
                return self.copy_hurt(cx, object, key, seat);
            }
            _ => {
                self.parked.push((seat, key, sent));
                let osd = self.roster.osd(seat);
                return self.complain(cx, osd, "it cannot carry out a write");
            }
        }
        if self.rules.replicated {
            if !planted(Bug::NoSpaceUnlessLast) {
                self.no_space(cx, object, key);
            }
        } else if self.refused_by_some(cx, object, key) {
            return;
        }
        self.unpark(cx, object, seat);
        self.retire(cx, object);
        self.heal(cx, object);
    }

    /// Whether a write of an erasure-coded object is withdrawn, or will be when all have answered.
    fn refused_by_some<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        object: Key<Object>,
        key: Key<Op>,
    ) -> bool {
        let State::Writing { left, no_space, .. } = &mut self.ops.get_mut(key).expect("the caller's").state else {
            return false;
        };
        let confirmed = self.roster.acting() & !*left;
        if planted(Bug::AcknowledgeAfterK) && confirmed.count_ones() >= self.rules.k {
            *left = 0;
        }
        let (left, refused) = (*left, *no_space != 0);
        let withdrawing = self.is_withdrawing(object);
        if withdrawing && left == 0 {
            self.withdrawn(cx, object);
        } else if refused {
            self.withdraw_round(cx, object, key);
        }
        withdrawing || refused
    }

    /// Whether a write before this one has not been confirmed by the seat.
    fn has_predecessor_at(&self, object: Key<Object>, key: Key<Op>, seat: u8) -> bool {
        let unconfirmed = |op: &Op| matches!(op.state, State::Writing { left, .. } if left >> seat & 1 == 1);
        self.ops.queue(object).take_while(|(other, _)| *other != key).any(|(_, op)| unconfirmed(op))
    }

    /// What a member refused since an earlier write had been damaged on its way is sent again.
    fn unpark<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: Key<Object>, seat: u8) {
        if self.parked.is_empty() {
            return;
        }
        let parked = std::mem::take(&mut self.parked);
        for (at, key, sent) in parked {
            let Some(op) = self.ops.get(key) else { continue };
            if at == seat && op.object == object {
                self.send(cx, seat, sent, Purpose::Write { op: key, seat });
            } else {
                self.parked.push((at, key, sent));
            }
        }
    }

    /// What a member refused is sent to it again.
    pub fn resend_parked<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, osd: OsdId) {
        for (seat, key, sent) in std::mem::take(&mut self.parked) {
            if self.roster.osd(seat) != osd {
                self.parked.push((seat, key, sent));
            } else if let Some(Op { state: State::Writing { no_space, .. }, .. }) = self.ops.get_mut(key) {
                *no_space &= !(1 << seat);
                self.send(cx, seat, sent, Purpose::Write { op: key, seat });
            }
        }
    }

    /// A new object was refused by all members, and with it whatever was to come on top: nothing of it was applied
    /// anywhere, and nothing will be.
    pub fn undo_all<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: Key<Object>, why: Refusal) {
        let keys: Vec<Key<Op>> = self.ops.queue(object).map(|(key, _)| key).collect();
        self.parked.retain(|(_, key, _)| !keys.contains(key));
        let record = self.ops.object_mut(object);
        self.seq_floor = self.seq_floor.max(record.newest.seq);
        record.in_flight = 0;
        record.loaded = false;
        self.unclean.unbury(record.id);
        let mut first = true;
        for key in keys {
            let op = self.ops.get_mut(key).expect("in the queue");
            if let State::Writing { .. } = op.state {
                op.state = State::Waiting;
                let refusal = if std::mem::take(&mut first) { why } else { Refusal::Again };
                self.finish(cx, key, Err(refusal));
            }
        }
        self.object_step(cx, object);
    }

    /// Acknowledges, in order, what is durable on all acting members; then the object may go on.
    pub fn retire<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: Key<Object>) {
        while let Some(key) = self.first_write(object) {
            let op = self.ops.get(key).expect("in the queue");
            let State::Writing { version, tombstone, left: 0, .. } = op.state else { break };
            let is_own = matches!(op.kind, Kind::Purge { .. } | Kind::Remove);
            let (request, durable) = (op.id, !op.applied);
            if self.purge_goes_on(cx, object, key) {
                break;
            }
            let id = self.ops.object(object).id;
            self.round_done(cx, object, id);
            let record = self.ops.object_mut(object);
            record.in_flight -= 1;
            record.visible = if tombstone { Version::NONE } else { version };
            if tombstone {
                cx.cramped.deleted();
            }
            if self.unclean.get(id).is_some_and(|entry| entry.buried) {
                self.buried(cx, id);
            }
            if !is_own {
                cx.host.observe(Fact::Acknowledged { pg: self.pg, object: id, version, request, durable });
            }
            self.finish(cx, key, Ok(Answer::Written { version }));
        }
        self.object_step(cx, object);
    }

    /// If a tombstone is committed everywhere by now, it is dropped.
    fn purge_goes_on<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: Key<Object>, key: Key<Op>) -> bool {
        let id = self.ops.object(object).id;
        let Kind::Purge { version, committed } = &mut self.ops.get_mut(key).expect("in the queue").kind else {
            return false;
        };
        let (version, goes_on) = (*version, !std::mem::replace(committed, true));
        if goes_on {
            self.send_purge(cx, key, id, version);
        }
        goes_on
    }

    /// The oldest write of an object that is under way.
    fn first_write(&self, object: Key<Object>) -> Option<Key<Op>> {
        let writing = |(_, op): &(Key<Op>, &Op)| matches!(op.state, State::Writing { .. });
        self.ops.queue(object).find(writing).map(|(key, _)| key)
    }
}
