//! Placement groups: peering, writes, reads, recovery, deletion.
//!
//! [`Pg`] is one group on one OSD: its member side always, its primary side while the map names this OSD. It is driven
//! by the OSD node, which owns links, timers, the store and the metadata store, and lends them as [`host::Host`].
//!
//! Owns: who is primary here and when an attempt begins and ends; requests that came before the group was served.
//! Does not own: the attempt itself (primary.rs and the files that it names), the member side (member.rs).
//!
//! Invariants: there is a primary side only under the epoch of the newest map known here, and only if that map names
//! this very start of this OSD (so never at an epoch which the map had before this start). Every request is answered
//! exactly once, unless its client's connection ended.

mod access;
mod calls;
mod changes;
pub mod choose;
mod commit;
mod compare;
mod cramped;
mod gather;
mod heal;
pub mod history;
pub mod host;
pub mod images;
pub mod lease;
mod member;
pub mod msg;
mod ops;
pub mod pace;
mod partial;
mod peering;
mod post;
mod primary;
mod read;
mod rebuild;
mod recover;
mod removal;
mod requests;
mod roster;
mod round;
pub mod scrub;
mod stripe;
mod stripe_read;
mod sync;
mod trim;
mod write;

#[cfg(test)]
mod tests;

use crate::ec::{self, Code};
use crate::id::{Attempt, Epoch, Incarnation, LinkId, OsdId, PgId, Revision, Role, Session, Version};
use crate::io::MetaError;
use crate::map::{ActingMember, ImmediateCommit, Layout, PgMap, Pool, Scheme, ScrubOrder};
use crate::meta;
use crate::msg::{Fact, Message, Refusal, Reply, Request, RequestOp};
use crate::pg::msg::PgMessage;
use crate::planted::{Bug, planted};
use crate::slab::Key;
use crate::store::{ObjectStore, StoreError, StoreOp, StoreReply};
use crate::time::{Duration, Time};
use cramped::Cramped;
use host::{Host, NodeView};
use member::{Caller, MemberSide};
use msg::{SubOp, SubReply};
use post::{Local, Post};
use primary::{Cx, Primary, Rules, Stage, Wishes};
use roster::acting_members;
use scrub::Scrub;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;
use stripe::Stripe;

/// Requests held back until the group is served; more are told to come again.
const HELD_MAX: usize = 1024;
/// Between two reports of copies that are here without need.
const STRAY_PAUSE: Duration = Duration::secs(5);

/// What a group wanted of the store; opaque to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorePurpose {
    /// A sub-operation of a primary.
    SubOp {
        /// The primary.
        to: OsdId,
        /// Its call.
        call: u64,
        /// Its attempt.
        attempt: Attempt,
    },
    /// Making durable what was accepted before a query.
    Join {
        /// The primary.
        to: OsdId,
        /// Its call.
        call: u64,
        /// Its attempt.
        attempt: Attempt,
    },
    /// A write of a primary.
    Write {
        /// The primary.
        to: OsdId,
        /// Its call.
        call: u64,
        /// Its attempt.
        attempt: Attempt,
        /// The version that it makes.
        version: Version,
        /// It is confirmed when applied, durable or not.
        lazy: bool,
    },
    /// A client's read.
    Read {
        /// The operation.
        op: Key<ops::Op>,
        /// The attempt in which it began.
        attempt: Attempt,
    },
    /// A copy that is read for a scrub.
    Check {
        /// The primary.
        to: OsdId,
        /// Its call.
        call: u64,
        /// Its attempt.
        attempt: Attempt,
    },
    /// Something whose end nobody waits for.
    Forget,
}

/// A primary's wish for a new epoch without some members (or just for a new one), as long as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The epoch in which it arose.
    pub epoch: Epoch,
    /// Whom the group must do without; nobody: another epoch with the same members.
    pub without: Vec<OsdId>,
    /// Why, for people.
    pub reason: String,
}

/// What a primary says of its group (`pg/state/<pool>/<pg>`, and for status).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The epoch.
    pub epoch: Epoch,
    /// `peering`, `incomplete`, `inactive` or `active`.
    pub state: String,
    /// All objects are whole on all acting members, the history is trimmed, nothing is left elsewhere.
    pub clean: bool,
    /// Objects that some acting member lacks.
    pub degraded: u64,
    /// Objects of which stale copies remain to be removed.
    pub misplaced: u64,
    /// Objects of which no good copy is left.
    pub unfound: u64,
    /// Whom an inactive group waits for, for people.
    pub waits_for: Vec<String>,
    /// Members without space for copies that are to be recovered there.
    #[serde(default)]
    pub full: Vec<OsdId>,
    /// What scrubs found.
    #[serde(default)]
    pub scrub: scrub::Report,
}

/// One placement group on one OSD.
#[derive(Clone, Debug)]
pub struct Pg {
    id: PgId,
    rules: Rules,
    /// None in replicated pools.
    code: Option<Arc<dyn Code>>,
    map: PgMap,
    map_revision: Revision,
    member: MemberSide,
    primary: Option<Box<Primary>>,
    /// Attempts of this process.
    attempts: u64,
    post: Post,
    wishes: Wishes,
    cramped: Cramped,
    scrub: Scrub,
    /// Requests that wait for the group to be served.
    held: VecDeque<(LinkId, Request)>,
    heartbeat_members: Vec<OsdId>,
    stray_at: Time,
}

/// Which of a pool's writes are durable when they are acknowledged. Coded pools prepare durably, whatever they say: a
/// version of which some chunks were lost could not be read.
fn promise(pool: &Pool) -> ImmediateCommit {
    if pool.scheme == Scheme::Replicated { pool.immediate_commit } else { ImmediateCommit::All }
}

impl Pg {
    /// A group of this layout of which nothing is known yet.
    pub fn new(id: PgId, pool: &Pool, layout: Layout) -> Self {
        let rules = Rules {
            k: u32::from(pool.data_chunks()),
            minsize: u32::from(pool.pg_minsize),
            replicated: pool.scheme == Scheme::Replicated,
            object_bytes: pool.object_bytes(),
            stripe: Stripe {
                k: pool.data_chunks(),
                m: pool.pg_size - pool.data_chunks(),
                chunk_bytes: pool.block_size,
            },
            range: layout.range(id.number),
            lazy: promise(pool) != ImmediateCommit::All,
        };
        let code = match pool.scheme {
            Scheme::Replicated => None,
            scheme => Some(ec::code(rules.stripe.k, rules.stripe.m, scheme == Scheme::Xor)),
        };
        Pg {
            id,
            rules,
            code,
            map: PgMap::default(),
            map_revision: Revision(0),
            member: MemberSide::new(id.pool, rules.range, (promise(pool), pool.block_size)),
            primary: None,
            attempts: 0,
            post: Post::new(id),
            wishes: Wishes::new(),
            cramped: Cramped::default(),
            scrub: Scrub::new(id, pool.scrub_interval()),
            held: VecDeque::new(),
            heartbeat_members: Vec::new(),
            stray_at: Time(0),
        }
    }

    /// The map of the group, as of `revision` (the chunk key's modification revision), when it is first known and
    /// whenever the chunk changed.
    pub fn map_changed<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>, map: &PgMap, revision: Revision) {
        if revision <= self.map_revision && self.map_revision != Revision(0) {
            return;
        }
        self.map_revision = revision;
        self.member.heard(map.epoch);
        if map.epoch > self.map.epoch {
            self.stop(host, map.epoch);
            if map.primary != Some(host.node.osd) {
                self.wishes.clear();
                self.cramped.placed();
                self.scrub.forget();
            }
            self.map = map.clone();
            self.note_degraded(host);
            self.begin_attempt(host);
            self.report_stray(host);
        } else {
            self.map = map.clone();
            if let Some(primary) = &mut self.primary {
                primary.target.clone_from(&map.target);
                primary.revisions.map = primary.revisions.map.max(revision.0);
            }
        }
        self.finish_call(host);
    }

    /// Whether some member is away, by the map.
    fn note_degraded<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>) {
        let acting: Vec<Option<OsdId>> = self.map.acting.iter().map(|member| member.map(|member| member.osd)).collect();
        let away = acting.contains(&None) || acting != self.map.target;
        if let Some(at) = self.member.changes.degraded(away, host.now()) {
            host.wake(self.id, at);
        }
    }

    /// Other groups of the pool had leases of this OSD until then, and this one takes over objects of theirs.
    pub fn inherit_lease(&mut self, until: Time) {
        self.member.inherit_lease(until);
    }

    /// The group exists no more, since the pool's objects belong to groups of another layout. What this OSD accepted for
    /// it is still carried out by the store; nothing else is. Gives the end of the lease that was granted.
    pub fn end<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>) -> Time {
        let until = self.member.end();
        self.stop(host, self.map.epoch);
        self.finish_call(host);
        until
    }

    /// The pool's configuration may have changed. Of what can change, two things matter here: `pg_minsize`, which holds
    /// from the next attempt on, and which writes are durable when they are acknowledged, which holds at once.
    pub fn pool_changed<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>, pool: &Pool) {
        self.scrub.set_interval(pool.scrub_interval());
        self.with_primary(host, |primary, cx| primary.scrub_step(cx));
        self.member.promise = promise(pool);
        self.rules.lazy = self.member.promise != ImmediateCommit::All;
        if let Some(primary) = &mut self.primary {
            // What was acknowledged before stays as it is.
            primary.rules.lazy |= self.rules.lazy;
        }
        let minsize = u32::from(pool.pg_minsize);
        if std::mem::replace(&mut self.rules.minsize, minsize) != minsize && self.primary.is_none() {
            self.begin_attempt(host);
            self.finish_call(host);
        }
    }

    /// Images were marked for removal, or removed.
    pub fn images_changed<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>) {
        self.with_primary(host, |primary, cx| primary.remove_images(cx));
        self.finish_call(host);
    }

    /// Ends the primary side; every operation is settled.
    fn stop<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>, epoch: Epoch) {
        let refusal = Refusal::WrongEpoch(epoch);
        if let Some(mut primary) = self.primary.take() {
            primary.settle(host, refusal);
            if primary.is_active() {
                host.observe(Fact::Deactivated { pg: self.id, epoch: primary.attempt.epoch });
            }
        }
        self.heartbeat_members.clear();
        for (link, request) in self.held.drain(..) {
            let reply = Reply { id: request.id, outcome: Err(refusal) };
            host.env.out.send(link, Message::Reply(reply));
        }
    }

    /// Begins to peer, if the map names this start of this OSD as primary.
    fn begin_attempt<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>) {
        let acting: Vec<ActingMember> = self.map.acting.iter().copied().flatten().collect();
        let is_named = self.is_named(host.node);
        let enough = acting.len() >= self.rules.minsize as usize;
        if !is_named || !enough || self.member.fence() > self.map.epoch {
            return;
        }
        self.attempts = if planted(Bug::ReuseAttempt) { 1 } else { self.attempts + 1 };
        let incarnation = if planted(Bug::SameEpochAfterRestart) { Incarnation(0) } else { host.node.incarnation };
        let attempt = Attempt { epoch: self.map.epoch, incarnation, counter: self.attempts };
        let token = host.env.rng.next_u64();
        let members = acting_members(&self.map.acting, self.rules.replicated);
        let (code, now) = (self.code.clone(), host.now());
        let mut primary = Primary::new(self.id, attempt, self.rules, acting, members, code, now);
        primary.target.clone_from(&self.map.target);
        self.primary = Some(Box::new(primary));
        self.with_primary(host, |primary, cx| primary.begin(cx, token));
    }

    /// Whether the map names this start of this OSD as primary, be it able to serve or not.
    pub fn is_named(&self, node: &NodeView) -> bool {
        let own = self.map.acting.iter().flatten().find(|member| member.osd == node.osd);
        self.map.primary == Some(node.osd)
            && own.is_some_and(|own| own.store == node.store)
            && (own.is_some_and(|own| own.incarnation == node.incarnation) || planted(Bug::SameEpochAfterRestart))
    }

    fn with_primary<S: ObjectStore>(
        &mut self,
        host: &mut Host<'_, '_, S>,
        act: impl FnOnce(&mut Primary, &mut Cx<'_, '_, '_, S>),
    ) {
        if let Some(primary) = &mut self.primary {
            let (member, wishes, scrub) = (&self.member, &mut self.wishes, &mut self.scrub);
            let mut cx = Cx { host, post: &mut self.post, member, wishes, cramped: &mut self.cramped, scrub };
            act(primary, &mut cx);
        }
    }

    /// Ends every call from outside: messages to ourselves are delivered, then the primary side is looked at.
    fn finish_call<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>) {
        loop {
            while let Some(local) = self.post.next_local() {
                let me = host.node.osd;
                match local {
                    Local::Op(attempt, call, op) => {
                        self.member.sub_op(host, &mut self.post, Caller { to: me, call, attempt }, op);
                    }
                    Local::Reply(attempt, call, reply) => self.take_reply(host, me, attempt, call, reply),
                }
            }
            if !self.review(host) {
                return;
            }
        }
    }

    /// Looks whether the primary side ended or became active. True: something happened.
    fn review<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>) -> bool {
        let Some(primary) = &self.primary else { return false };
        if self.member.fence() > primary.attempt.epoch {
            host.mark("a primary is fenced by a higher epoch");
            self.stop(host, self.member.fence());
            return true;
        }
        match primary.stage {
            Stage::Over(at) if at <= host.now() => {
                let mut over = self.primary.take().expect("looked at above");
                over.settle(host, Refusal::Again);
                self.begin_attempt(host);
                true
            }
            Stage::Active => self.start_serving(host),
            _ => false,
        }
    }

    fn start_serving<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>) -> bool {
        if self.heartbeat_members.is_empty() {
            let others = self.map.acting.iter().flatten().map(|member| member.osd);
            self.heartbeat_members = others.filter(|osd| *osd != host.node.osd).collect();
        }
        let mut any = false;
        while let Some((link, request)) = self.held.pop_front() {
            any = true;
            // Its image may have been removed while it was held.
            match host.node.images.admit(self.id.pool, request.object.inode) {
                Ok(()) => self.with_primary(host, |primary, cx| primary.request(cx, link, &request)),
                Err(refusal) => {
                    let reply = Reply { id: request.id, outcome: Err(refusal) };
                    host.env.out.send(link, Message::Reply(reply));
                }
            }
        }
        any
    }

    /// A connection to another OSD is there (again).
    pub fn peer_up<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>, osd: OsdId) {
        if self.wishes.get(&osd).is_some_and(|grievance| grievance.until.is_none()) {
            self.wishes.remove(&osd);
        }
        self.with_primary(host, |primary, cx| primary.peer_up(cx, osd));
        if self.map.primary == Some(osd) {
            self.report_stray(host);
        }
        self.finish_call(host);
    }

    /// The connection to another OSD is gone.
    pub fn peer_down<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>, osd: OsdId) {
        self.with_primary(host, |primary, cx| primary.peer_down(cx, osd));
        self.finish_call(host);
    }

    /// A primary wants something of this member.
    pub fn sub_op<S: ObjectStore>(
        &mut self,
        host: &mut Host<'_, '_, S>,
        from: OsdId,
        attempt: Attempt,
        call: u64,
        op: SubOp,
    ) {
        let leaves = matches!(op, SubOp::Leave);
        if leaves && self.map.acting.iter().flatten().any(|member| member.osd == host.node.osd) {
            // A newer order, or an older map: once the newer map is here, this OSD reports its copies itself.
            host.mark("an order to leave that contradicts the map known here");
            let reply = SubReply::Refused(msg::Refused::Failed);
            return self.post.reply(host, from, attempt, call, reply);
        }
        if let SubOp::Vacate { keep } = op
            && self.own_role_by_map(host) != Some(keep)
        {
            host.mark("an order to vacate that contradicts the map known here");
            let reply = SubReply::Refused(msg::Refused::Failed);
            return self.post.reply(host, from, attempt, call, reply);
        }
        self.member.sub_op(host, &mut self.post, Caller { to: from, call, attempt }, op);
        self.finish_call(host);
    }

    /// The role that this OSD has by the map known here.
    fn own_role_by_map<S: ObjectStore>(&self, host: &Host<'_, '_, S>) -> Option<Role> {
        let members = acting_members(&self.map.acting, self.rules.replicated);
        members.iter().find(|member| member.osd == host.node.osd).map(|member| member.role)
    }

    /// A member answered this primary.
    pub fn sub_reply<S: ObjectStore>(
        &mut self,
        host: &mut Host<'_, '_, S>,
        from: OsdId,
        attempt: Attempt,
        call: u64,
        reply: SubReply,
    ) {
        self.take_reply(host, from, attempt, call, reply);
        self.finish_call(host);
    }

    fn take_reply<S: ObjectStore>(
        &mut self,
        host: &mut Host<'_, '_, S>,
        from: OsdId,
        attempt: Attempt,
        call: u64,
        reply: SubReply,
    ) {
        if self.primary.as_ref().is_none_or(|primary| primary.attempt != attempt) {
            return host.mark("a reply to an attempt that is over");
        }
        self.with_primary(host, |primary, cx| primary.sub_reply(cx, from, call, reply));
    }

    /// An OSD holds copies although it is not in the acting set.
    pub fn stray<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>, from: OsdId) {
        self.with_primary(host, |primary, cx| primary.stray(cx, from));
        self.finish_call(host);
    }

    /// Tells the primary of copies that are here although this OSD is not in the acting set.
    fn report_stray<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>) {
        let acts = self.map.acting.iter().flatten().any(|member| member.osd == host.node.osd);
        let Some(primary) = self.map.primary else { return };
        if acts || host.store.roles(self.id.pool, self.rules.range).is_empty() {
            return;
        }
        host.send(primary, PgMessage::Stray { pg: self.id, epoch: self.map.epoch });
        self.stray_at = host.now() + STRAY_PAUSE;
        host.wake(self.id, self.stray_at);
    }

    /// A client's request, on a link whose other end is `session`.
    pub fn request<S: ObjectStore>(
        &mut self,
        host: &mut Host<'_, '_, S>,
        link: LinkId,
        session: Session,
        request: Request,
    ) {
        if let Some(refusal) = self.refusal(host, session, &request) {
            let reply = Reply { id: request.id, outcome: Err(refusal) };
            return host.env.out.send(link, Message::Reply(reply));
        }
        if self.primary.as_ref().is_some_and(|primary| primary.is_active()) {
            self.with_primary(host, |primary, cx| primary.request(cx, link, &request));
        } else {
            self.held.push_back((link, request));
        }
        self.finish_call(host);
    }

    /// Why a request is not even looked at.
    fn refusal<S: ObjectStore>(&self, host: &Host<'_, '_, S>, session: Session, request: &Request) -> Option<Refusal> {
        if session != request.id.session {
            return Some(Refusal::Fenced);
        }
        let inside = request.object.pool == self.id.pool && self.rules.range.contains(request.object.hash());
        let generation = self.id.number.generation();
        match self.map.epoch {
            _ if !inside => Some(Refusal::BadRequest),
            // What a client says of a group's answers holds for that group only.
            epoch if request.generation < generation => Some(Refusal::WrongEpoch(epoch)),
            _ if request.generation > generation => Some(Refusal::Again),
            epoch if request.epoch < epoch && !planted(Bug::AcceptOldEpochs) => Some(Refusal::WrongEpoch(epoch)),
            epoch if request.epoch > epoch => Some(Refusal::Again),
            _ if self.map.primary != Some(host.node.osd) => Some(Refusal::NotPrimary),
            _ if self.held.len() >= HELD_MAX => Some(Refusal::Again),
            // It is about the whole group: the image of the object that names it may be gone.
            _ if request.op == RequestOp::Sync => None,
            _ => host.node.images.admit(self.id.pool, request.object.inode).err(),
        }
    }

    /// A client's connection is gone.
    pub fn client_gone<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>, link: LinkId) {
        self.held.retain(|(from, _)| *from != link);
        self.with_primary(host, |primary, cx| primary.client_gone(cx, link));
        self.finish_call(host);
    }

    /// A store operation finished.
    pub fn store_done<S: ObjectStore>(
        &mut self,
        host: &mut Host<'_, '_, S>,
        purpose: StorePurpose,
        result: Result<StoreReply, StoreError>,
    ) {
        match purpose {
            // All but clients' writes is durable when it is confirmed.
            StorePurpose::SubOp { .. } if result == Ok(StoreReply::Applied) => {
                host.submit(self.id, purpose, StoreOp::Sync { pg: self.id });
            }
            StorePurpose::SubOp { to, call, attempt } => {
                self.post.reply(host, to, attempt, call, member::reply_of(result));
            }
            StorePurpose::Join { to, call, attempt } => {
                self.member.joined(host, &mut self.post, Caller { to, call, attempt }, result);
            }
            StorePurpose::Write { to, call, attempt, version, lazy } => {
                self.member.written(host, &mut self.post, Caller { to, call, attempt }, (version, lazy), result);
            }
            StorePurpose::Read { op, attempt } => {
                if self.primary.as_ref().is_some_and(|primary| primary.attempt == attempt) {
                    self.with_primary(host, |primary, cx| primary.read_done(cx, op, result));
                }
            }
            StorePurpose::Check { to, call, attempt } => {
                self.post.reply(host, to, attempt, call, scrub::checked(result, self.rules.replicated));
            }
            StorePurpose::Forget => {}
        }
        self.finish_call(host);
    }

    /// The metadata store answered.
    pub fn meta_done<S: ObjectStore>(
        &mut self,
        host: &mut Host<'_, '_, S>,
        token: u64,
        result: Result<meta::Response, MetaError>,
    ) {
        if self.scrub.meta_done(host.now(), token, &result) {
            return self.scrub(host);
        }
        let Some(primary) = &self.primary else { return };
        if primary.meta_token == Some(token) {
            self.with_primary(host, |primary, cx| primary.meta_done(cx, result));
        } else if primary.removal.waits_for(token) {
            self.with_primary(host, |primary, cx| primary.removed_reported(cx, result));
        }
        self.finish_call(host);
    }

    /// An order to scrub was given or withdrawn; with the revision of its key.
    pub fn scrub_ordered<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>, order: Option<(ScrubOrder, u64)>) {
        self.scrub.set_order(order);
        self.scrub(host);
    }

    /// The scrub may go on.
    pub fn scrub<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>) {
        self.with_primary(host, |primary, cx| primary.scrub_step(cx));
        self.finish_call(host);
    }

    /// A deadline passed, or nothing happened.
    pub fn tick<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>) {
        let now = host.now();
        self.member.changes.tick(now);
        let over = |grievance: &primary::Grievance| grievance.until.is_some_and(|until| until <= now);
        while let Some(osd) = self.wishes.iter().find(|(_, grievance)| over(grievance)).map(|(osd, _)| *osd) {
            self.wishes.remove(&osd);
            self.with_primary(host, |primary, cx| primary.second_chance(cx, osd));
        }
        self.with_primary(host, |primary, cx| {
            primary.tick(cx);
            primary.scrub_step(cx);
        });
        if self.stray_at <= now {
            self.report_stray(host);
        }
        self.finish_call(host);
    }

    /// A recovery slot is free for this group.
    pub fn recover<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>) {
        self.with_primary(host, |primary, cx| primary.recover(cx));
        self.finish_call(host);
    }

    /// The attempt under which this OSD serves the group, if it does: to be renewed with every member of
    /// [`Pg::heartbeat_members`].
    pub fn serving(&self) -> Option<Attempt> {
        self.primary.as_ref().filter(|primary| primary.is_active()).map(|primary| primary.attempt)
    }

    /// The other acting members, with which heartbeats are exchanged while the group is served.
    pub fn heartbeat_members(&self) -> &[OsdId] {
        &self.heartbeat_members
    }

    /// As a member: a primary asks for a read lease; true: granted.
    pub fn grant_lease(&mut self, now: Time, attempt: Attempt, lease: Duration) -> bool {
        self.member.grant_lease(now, attempt, lease)
    }

    /// As a primary: a member granted the lease of this length that was asked for at `sent` (this node's clock).
    pub fn lease_granted<S: ObjectStore>(
        &mut self,
        host: &mut Host<'_, '_, S>,
        from: OsdId,
        attempt: Attempt,
        sent: Time,
        lease: Duration,
    ) {
        if self.serving() == Some(attempt) {
            self.with_primary(host, |primary, cx| primary.lease_granted(cx, from, sent, lease));
            self.finish_call(host);
        }
    }

    /// What this primary wishes for; to be written to the metadata store when it changed.
    pub fn wish(&self) -> Option<Wish> {
        let renewal = self.primary.as_ref().and_then(|primary| primary.trim.renewal);
        let reason = self.wishes.values().next().map(|grievance| grievance.reason).or(renewal)?;
        let without = self.wishes.keys().copied().collect();
        Some(Wish { epoch: self.map.epoch, without, reason: reason.to_owned() })
    }

    /// What this primary says of the group; `None` if this OSD is not its primary.
    pub fn summary(&self) -> Option<Summary> {
        let primary = self.primary.as_ref()?;
        let counts = primary.unclean.counts();
        let waits_for = if primary.stage == Stage::Query { primary.waits_for() } else { Vec::new() };
        let state = match primary.stage {
            Stage::Active => "active",
            _ if !waits_for.is_empty() => "incomplete",
            _ => "peering",
        };
        Some(Summary {
            epoch: self.map.epoch,
            state: state.to_owned(),
            clean: primary.is_active() && primary.unclean.is_empty() && primary.trim.is_done(),
            degraded: counts.degraded,
            misplaced: counts.misplaced,
            unfound: counts.unfound,
            waits_for,
            full: primary.unclean.full_seats().map(|seat| primary.roster.osd(seat)).collect(),
            scrub: self.scrub.report(),
        })
    }

    /// The version that this primary takes for an object's newest.
    #[cfg(test)]
    fn version_of<S: ObjectStore>(&self, store: &S, object: crate::id::ObjectId) -> Version {
        let primary = self.primary.as_ref();
        let own = self.map.primary.zip(primary).and_then(|(osd, primary)| {
            let seat = primary.roster.acting_seat(osd)?;
            let info = store.lookup(crate::id::CopyId { object, role: primary.roster.role(seat) })?;
            info.prepared.or(info.committed)
        });
        let entry = primary.and_then(|primary| primary.unclean.get(object));
        entry.map_or_else(|| own.map_or(Version::NONE, |own| own.version), |entry| entry.version)
    }

    /// Panics if an invariant is broken.
    pub fn check(&self) {
        if let Some(primary) = &self.primary {
            assert_eq!(primary.attempt.epoch, self.map.epoch, "{:?}: primary of another epoch", self.id);
            assert!(self.member.fence() <= self.map.epoch, "{:?}: a fenced primary", self.id);
            assert!(primary.is_active() || primary.ops.len() == 0, "{:?}: operations before activation", self.id);
            primary.ops.check();
        }
    }
}
