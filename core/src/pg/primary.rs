//! The primary side of a group, for one attempt: from the query to the end of the interval.
//!
//! Owns the attempt's state as a whole, and hands each event to the part that it concerns: peering.rs, recover.rs,
//! write.rs, read.rs, trim.rs. Does not own the decision to be primary, nor starting anew (mod.rs).
//!
//! ```text
//!  ReadHistory -> Query -> Compare -> Resolve -> Record -> LeaseWait -> Active
//!       |           |         |          |          |
//!       +-----------+---------+----------+----------+--> Over (a new attempt, or none)
//! ```

use crate::ec::Code;
use crate::id::{Attempt, HashRange, LinkId, Member, ObjectId, OsdId, PgId, Version};
use crate::io::Level;
use crate::map::{ActingMember, History, Layout};
use crate::msg::{Answer, Message, Refusal, Reply};
use crate::pg::calls::Calls;
use crate::pg::choose::Mask;
use crate::pg::commit::Commits;
use crate::pg::compare::Comparison;
use crate::pg::cramped::Cramped;
use crate::pg::gather::Gather;
use crate::pg::host::Host;
use crate::pg::lease::{Lease, OldLeases};
use crate::pg::member::MemberSide;
use crate::pg::msg::{Refused, SubOp, SubReply};
use crate::pg::ops::{Op, Ops};
use crate::pg::post::Post;
use crate::pg::recover::{Step, Unclean};
use crate::pg::removal::Removal;
use crate::pg::requests::Sessions;
use crate::pg::roster::Roster;
use crate::pg::round::Round;
use crate::pg::scrub::{Scrub, Scrubbing};
use crate::pg::stripe::Stripe;
use crate::pg::sync::Syncs;
use crate::pg::trim::Trim;
use crate::slab::{Key, Slab};
use crate::store::ObjectStore;
use crate::time::{Duration, Time};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What one call may use: the node's parts, the way to the other side, the own member side.
pub struct Cx<'c, 'h, 'e, S> {
    /// The node.
    pub host: &'c mut Host<'h, 'e, S>,
    /// Messages.
    pub post: &'c mut Post,
    /// This OSD as a member.
    pub member: &'c MemberSide,
    /// Standing wishes.
    pub wishes: &'c mut Wishes,
    /// What could not be placed for want of space.
    pub cramped: &'c mut Cramped,
    /// How far the scrub is.
    pub scrub: &'c mut Scrub,
}

/// Why the group should do without a member.
#[derive(Clone, Debug)]
pub struct Grievance {
    /// For people.
    pub reason: &'static str,
    /// When to try again; none: as soon as it is reachable.
    pub until: Option<Time>,
}

/// Members that the group should do without, as seen by this primary across its attempts.
pub type Wishes = BTreeMap<OsdId, Grievance>;

/// How long a member that refused a write is left out before another try: long enough not to flap, short enough that
/// nobody must intervene after space was made.
const REFUSAL_PAUSE: Duration = Duration::secs(60);

/// What the pool says, as far as the protocol asks.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Roles needed to read.
    pub k: u32,
    /// Members that must be there.
    pub minsize: u32,
    /// Whether every copy is as good as another.
    pub replicated: bool,
    /// Bytes of an object.
    pub object_bytes: u32,
    /// How it is cut; in replicated pools it is one chunk.
    pub stripe: Stripe,
    /// Hashes of the group's objects.
    pub range: HashRange,
    /// Whether writes may be acknowledged before they are durable.
    pub lazy: bool,
}

/// Where the attempt is; each stage names what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Map and history, read at one revision.
    ReadHistory,
    /// Statements of the members.
    Query,
    /// Digests and lists.
    Compare,
    /// Uncertain versions being installed, void and stale ones deleted.
    Resolve,
    /// The transaction that records the interval.
    Record,
    /// Leases of older intervals.
    LeaseWait,
    /// Nothing: the group is served.
    Active,
    /// Ended; a new attempt may begin at this time.
    Over(Time),
}

impl Stage {
    /// The table of legal transitions.
    fn may_become(self, next: Stage) -> bool {
        use Stage::*;
        matches!(
            (self, next),
            (ReadHistory, Query)
                | (Query, Compare)
                | (Compare, Resolve)
                | (Resolve, Record)
                | (Record, LeaseWait)
                | (LeaseWait, Active)
                | (ReadHistory | Query | Compare | Resolve | Record, Over(_))
        )
    }
}

/// What a sub-operation is for.
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    /// A query.
    Query,
    /// A question of the comparison.
    Compare {
        /// The task.
        task: u32,
        /// The seat that was asked.
        seat: u8,
    },
    /// A step of the recovery of an object.
    Recover {
        /// The object.
        object: ObjectId,
        /// The seat.
        seat: u8,
        /// The step.
        step: Step,
    },
    /// A client's write, or a purge.
    Write {
        /// The operation.
        op: Key<Op>,
        /// The seat.
        seat: u8,
    },
    /// A copy is compared with the others.
    Scrub {
        /// The object.
        object: ObjectId,
        /// The version in question.
        version: Version,
        /// The seat.
        seat: u8,
    },
    /// Removal of copies outside the acting set.
    Leave,
    /// A client's sync.
    Flush {
        /// The seat.
        seat: u8,
    },
    /// Removal of copies in other roles.
    Vacate,
    /// The reading of a part of a chunk.
    Gather {
        /// For whom.
        key: Key<Gather>,
        /// Which part.
        part: u8,
    },
    /// Commits, for which nobody waits.
    Commit,
}

/// What only erasure-coded pools need.
#[derive(Clone, Debug, Default)]
pub struct Stripes {
    /// The code; none in replicated pools.
    pub code: Option<Arc<dyn Code>>,
    /// Writes under way.
    pub rounds: Slab<Round>,
    /// Chunks being read.
    pub gathers: Slab<Gather>,
    /// Versions to be committed.
    pub commits: Commits,
}

/// Revisions of keys, as this primary knows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revisions {
    /// Of the map's chunk.
    pub map: u64,
    /// Of the history; 0: the group has none of its own yet.
    pub history: u64,
    /// Of the pool's layout.
    pub layout: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Primary {
    /// The group.
    pub pg: PgId,
    /// The attempt.
    pub attempt: Attempt,
    /// The pool's rules.
    pub rules: Rules,
    /// The acting members, as the map names them.
    pub acting: Vec<ActingMember>,
    /// Where placement wants the group, by role.
    pub target: Vec<Option<OsdId>>,
    /// Which of the acting members are out of this primary's reach, since when.
    pub absent: BTreeMap<OsdId, Time>,
    /// The acting members as history names them.
    pub acting_members: Vec<Member>,
    /// Where we are.
    pub stage: Stage,
    /// When the attempt began.
    pub attempt_started: Time,
    /// When the stage shall be looked at again.
    pub stage_deadline: Option<Time>,
    /// The request to the metadata store that is awaited.
    pub meta_token: Option<u64>,
    /// The group's history.
    pub history: History,
    /// What transactions compare.
    pub revisions: Revisions,
    /// The layout of the groups before this one, as long as it may have no history of its own.
    pub heir_of: Option<Layout>,
    /// Who takes part.
    pub roster: Roster,
    /// Sub-operations under way.
    pub calls: Calls<Purpose>,
    /// The comparison under way.
    pub comparison: Comparison,
    /// Whether every version is uncertain, since a set lost too many members.
    pub full: bool,
    /// Objects that are not whole everywhere.
    pub unclean: Unclean,
    /// Leases of older intervals.
    pub old_leases: OldLeases,
    /// The own lease.
    pub lease: Lease,
    /// Clients' operations.
    pub ops: Ops,
    /// Writes that a member refused: because an earlier one had been damaged on its way there, or because it could not
    /// carry them out.
    pub parked: Vec<(u8, Key<Op>, SubOp)>,
    /// Versions above this count: those up to it were given to writes that all members refused.
    pub seq_floor: u64,
    /// What clients have seen.
    pub sessions: Sessions,
    /// Syncs of clients.
    pub syncs: Syncs,
    /// Trimming and what follows it.
    pub trim: Trim,
    /// Erasure-coded objects.
    pub stripes: Stripes,
    /// Removal of images' objects.
    pub removal: Removal,
    /// The object that is being scrubbed.
    pub scrubbing: Scrubbing,
}

impl Primary {
    /// A new attempt; `members` are the acting ones, in the order of their roles.
    pub fn new(
        pg: PgId,
        attempt: Attempt,
        rules: Rules,
        acting: Vec<ActingMember>,
        members: Vec<Member>,
        code: Option<Arc<dyn Code>>,
        now: Time,
    ) -> Self {
        Primary {
            pg,
            attempt,
            rules,
            acting,
            target: Vec::new(),
            absent: BTreeMap::new(),
            acting_members: members,
            stage: Stage::ReadHistory,
            attempt_started: now,
            stage_deadline: None,
            meta_token: None,
            history: History::default(),
            revisions: Revisions::default(),
            heir_of: None,
            roster: Roster::default(),
            calls: Calls::new(attempt),
            comparison: Comparison::default(),
            full: false,
            unclean: Unclean::default(),
            old_leases: OldLeases::default(),
            lease: Lease::default(),
            ops: Ops::default(),
            parked: Vec::new(),
            seq_floor: 0,
            sessions: Sessions::new(now, rules.lazy),
            syncs: Syncs::default(),
            trim: Trim::default(),
            stripes: Stripes { code, ..Stripes::default() },
            removal: Removal::default(),
            scrubbing: Scrubbing::default(),
        }
    }

    /// The pool's code. Panics in replicated pools.
    pub fn code(&self) -> &dyn Code {
        self.stripes.code.as_deref().expect("only erasure-coded pools compute parity")
    }

    /// Goes on to the next stage.
    pub fn enter(&mut self, next: Stage) {
        assert!(self.stage.may_become(next), "{:?} {:?}: from {:?} to {next:?}", self.pg, self.attempt, self.stage);
        self.stage = next;
        self.stage_deadline = None;
    }

    /// Ends this attempt; a new one may begin after a pause.
    pub fn give_up<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, pause: Duration) {
        let at = cx.host.now() + pause;
        self.enter(Stage::Over(at));
        cx.host.wake(self.pg, at);
    }

    /// Looks at the stage again at `at`.
    pub fn look_again<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, at: Time) {
        self.stage_deadline = Some(at);
        cx.host.wake(self.pg, at);
    }

    /// Whether clients are served.
    pub fn is_active(&self) -> bool {
        self.stage == Stage::Active
    }

    /// Sends a sub-operation to a seat.
    pub fn send<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, seat: u8, op: SubOp, purpose: Purpose) {
        let to = self.roster.osd(seat);
        self.calls.send(cx.host, cx.post, to, op, purpose);
    }

    /// The acting seats.
    pub fn acting_seats(&self) -> Mask {
        self.roster.acting()
    }

    /// A member answered.
    pub fn sub_reply<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, from: OsdId, call: u64, reply: SubReply) {
        if let SubReply::Refused(Refused::Fenced(_)) = reply {
            // It joined a higher attempt, or lost its memory of this one: a new epoch follows. The call stays.
            return cx.host.mark("a member is fenced against this primary");
        }
        let Some((purpose, op, since)) = self.calls.answered(from, call) else {
            return cx.host.mark("a reply to a call that was answered before");
        };
        match purpose {
            Purpose::Query => self.stated(cx, from, reply),
            Purpose::Compare { task, seat } => self.compared(cx, task, seat, reply),
            Purpose::Recover { object, seat, step } => self.recovered(cx, object, seat, step, &op, reply),
            Purpose::Write { op: key, seat } => {
                let took = cx.host.now().since(since);
                cx.host.stages.member.record(took);
                self.confirmed(cx, key, seat, op, reply);
            }
            Purpose::Scrub { object, version, seat } => self.scrubbed(cx, (object, version), seat, &reply),
            Purpose::Leave => self.left(cx, from, reply),
            Purpose::Flush { seat } => self.flushed(cx, seat, reply),
            Purpose::Vacate => self.vacated(cx, from, &reply),
            Purpose::Gather { key, part } => self.gathered(cx, key, part, op, reply),
            Purpose::Commit => {}
        }
    }

    /// A connection is there again.
    pub fn peer_up<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, osd: OsdId) {
        self.absent.remove(&osd);
        self.calls.repeat(cx.host, cx.post, osd);
        match self.stage {
            Stage::Query => self.query(cx, osd),
            Stage::Active => self.source_found(cx),
            _ => {}
        }
    }

    /// A connection is gone.
    pub fn peer_down<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, osd: OsdId) {
        self.note_absent(cx, osd);
        let takes_part = self.roster.seats().iter().any(|seat| seat.member.osd == osd && seat.statement.is_some());
        match self.stage {
            Stage::Compare | Stage::Resolve if takes_part => {
                cx.host.mark("a member was lost during peering");
                self.give_up(cx, RETRY_PAUSE);
            }
            Stage::Query => self.roster.forget(osd),
            Stage::Active => {
                self.source_lost(cx, osd);
                self.parts_lost(cx, osd);
            }
            _ => {}
        }
    }

    /// A member did not do what the group cannot do without.
    pub fn complain<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, osd: OsdId, reason: &'static str) {
        let until = Some(cx.host.now() + REFUSAL_PAUSE);
        cx.host.log(Level::Warn, format!("{:?}: {osd:?}: {reason}; asking for an epoch without it", self.pg));
        cx.wishes.insert(osd, Grievance { reason, until });
        cx.host.wake(self.pg, cx.host.now() + REFUSAL_PAUSE);
    }

    /// Acting members that have been out of reach for too long: others may still reach them.
    fn check_reach<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        let now = cx.host.now();
        for (osd, since) in &self.absent {
            if *since + MEMBER_PATIENCE <= now && !cx.wishes.contains_key(osd) {
                cx.host.mark("asking for an epoch without an unreachable member");
                cx.wishes.insert(*osd, Grievance { reason: "cannot be reached by the primary", until: None });
            }
        }
    }

    /// An acting member is out of reach from now on.
    pub fn note_absent<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, osd: OsdId) {
        if self.acting.iter().any(|member| member.osd == osd) && !self.absent.contains_key(&osd) {
            let now = cx.host.now();
            self.absent.insert(osd, now);
            cx.host.wake(self.pg, now + MEMBER_PATIENCE);
        }
    }

    /// A member that refused something gets another chance, if there was no epoch without it.
    pub fn second_chance<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, osd: OsdId) {
        if !self.is_active() {
            return;
        }
        cx.host.mark("a member gets a second chance");
        self.resend_parked(cx, osd);
        self.flush_again(cx, osd);
        self.resume_rounds(cx);
        self.source_found(cx);
    }

    /// Time passed.
    pub fn tick<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        self.check_reach(cx);
        self.consider_renewal(cx);
        self.commit_tick(cx);
        self.removal_tick(cx);
        self.try_full_again(cx);
        if self.stage_deadline.is_none_or(|at| at > cx.host.now()) {
            return;
        }
        self.stage_deadline = None;
        match self.stage {
            Stage::Query => self.consider_answers(cx),
            Stage::Resolve => self.resolve_more(cx),
            Stage::LeaseWait => self.activate(cx),
            Stage::Active => self.trim_again(cx),
            _ => {}
        }
    }

    /// Answers a client.
    pub fn answer<S: ObjectStore>(
        &self,
        cx: &mut Cx<'_, '_, '_, S>,
        link: Option<LinkId>,
        id: crate::id::RequestId,
        outcome: Result<Answer, Refusal>,
    ) {
        if let Some(link) = link {
            cx.host.env.out.send(link, Message::Reply(Reply { id, outcome }));
        }
    }

    /// The interval is over (or this attempt of it): every operation is settled.
    pub fn settle<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>, refusal: Refusal) {
        for (_, op) in self.ops.iter() {
            if let Some(link) = op.link {
                host.env.out.send(link, Message::Reply(Reply { id: op.id, outcome: Err(refusal) }));
            }
        }
        self.syncs.settle(host, refusal);
        self.scrubbing.settle(host);
        self.unclean.give_slots_back(host);
    }
}

/// Pause before a new attempt: a few round trips.
pub const RETRY_PAUSE: Duration = Duration::millis(50);
/// How long an acting member may be out of this primary's reach before it asks for an epoch without it: above a
/// reconnect, and above the time that the monitor needs for a verdict on a dead OSD.
pub const MEMBER_PATIENCE: Duration = Duration::millis(2_500);
