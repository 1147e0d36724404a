//! The smallest world around one object: its group on a few OSDs, messages in flight, the metadata store, clients.
//!
//! Owns what can happen next ([`World::actions`]) and what follows ([`World::step`]). Does not own what is right
//! (promises.rs), nor the order in which things are tried (mod.rs).
//!
//! All code of the group is the real one. The abstraction is around it: a message is on its way until it is delivered,
//! or for ever; on one link they arrive in order, but for a number of overtakings. Answers of members, and questions
//! that only read, arrive at once, unless the scope says otherwise. Time stands still but for jumps: a short one in which
//! all pauses pass, but no lease, and a long one in which everything runs out.

mod heal;

use super::canon::{hash_of, hash_text, mix};
use super::promises::Promises;
use super::state::{hash_groups, hash_store};
use super::{Op, Scope};
use crate::buf::BufPool;
use crate::id::*;
use crate::io::{Effect, Effects, Env, Event, MetaError, MetaId, MetaOp};
use crate::map::{ActingMember, PgMap, PgMapChunk, Pool, PoolLayout, keys};
use crate::meta;
use crate::msg::{Answer, Fact, Message, Refusal, Reply, Request, RequestOp};
use crate::osd::groups::Groups;
use crate::pg::host::NodeView;
use crate::pg::msg::{PgMessage, SubOp};
use crate::pg::pace::RecoverySlots;
use crate::planted::{Bug, planted};
use crate::rng::Rng;
use crate::store::model::{ModelStore, Space};
use crate::store::{Data, ObjectStore};
use crate::time::{Duration, Time};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

pub const PG: PgId = PgId { pool: PoolId(1), number: PgNumber(0) };
/// Above all pauses, below the long jump.
const LEASE: Duration = Duration::secs(100);
/// In the short jump every pause of a peering passes.
const SHORT: Duration = Duration::secs(5);
/// In the long one leases run out, and the time in which deletions may be retried.
const LONG: Duration = Duration::secs(700);
const PEER: u64 = 1 << 40;
const WRITER: u64 = 1_000;
const READER: u64 = 2_000;

thread_local! {
    static BUFS: RefCell<BufPool> = RefCell::new(BufPool::new());
}

/// Something that can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The first message from one OSD to another arrives.
    Deliver(usize, usize),
    /// A message overtakes the first one.
    Overtake(usize, usize, usize),
    /// The first message arrives, and will once more.
    Duplicate(usize, usize),
    /// An OSD's oldest request to the metadata store is carried out and answered.
    Meta(usize),
    /// The same, but the answer is lost.
    MetaLost(usize),
    /// An OSD hears of the newest map.
    Notice(usize),
    /// The monitor makes a new map: acting OSDs by role (or none), and the primary.
    Map([Option<u8>; 4], usize),
    /// Loss of power; what is accepted and not durable is lost, or is not.
    Crash(usize, bool),
    /// An OSD comes back.
    Restart(usize),
    /// It comes back with a new store.
    Recreate(usize),
    /// A client sends (or sends again) an operation to an OSD that serves.
    Send(usize, usize),
    /// A client reads from an OSD that serves.
    Read(usize),
    /// A primary renews its lease with all members.
    Beat(usize),
    /// What an OSD accepted becomes durable.
    Flush(usize),
    /// A connection is lost, with what was on its way.
    Cut(usize, usize),
    /// It is there again.
    Link(usize, usize),
    /// An OSD has no space any more: what needs some is refused.
    Fill(usize),
    /// It has space again.
    Empty(usize),
    /// Pauses pass.
    Wait,
    /// Leases pass.
    LongWait,
}

#[derive(Debug)]
struct Letter {
    msg: PgMessage,
    hash: u64,
}

/// An OSD.
#[derive(Clone)]
pub struct Node {
    /// While it runs.
    pub groups: Option<Groups<ModelStore>>,
    down: Option<ModelStore>,
    starts: u64,
    full: bool,
    /// Number of its store.
    pub stores: u64,
    started: Time,
    heard: Epoch,
    next_meta: u64,
    meta: VecDeque<(MetaId, meta::Request)>,
    hash: Cell<Option<(Time, u64)>>,
}

impl Node {
    /// What it holds, up or down.
    pub fn store(&self) -> &ModelStore {
        self.groups.as_ref().map(Groups::store).or(self.down.as_ref()).expect("an OSD has a store")
    }

    fn hash(&self, roles: u8, now: Time) -> u64 {
        if let Some((at, hash)) = self.hash.get()
            && at == now
        {
            return hash;
        }
        let queue = self.meta.iter().fold(1, |hash, (_, request)| mix(hash, hash_request(request)));
        let state = match (&self.groups, &self.down) {
            (Some(groups), _) => hash_groups(groups, roles, now),
            (None, down) => hash_store(down.as_ref().expect("an OSD has a store"), roles),
        };
        let flags = u64::from(self.groups.is_some()) << 1 | u64::from(self.full);
        let hash = [state, flags, self.starts, self.stores, self.heard.0, queue];
        let hash = hash.into_iter().fold(self.young(now), mix);
        self.hash.set(Some((now, hash)));
        hash
    }

    /// Whether leases of before its start may run.
    fn young(&self, now: Time) -> u64 {
        u64::from(now.since(self.started) <= Duration(LEASE.0 * 2))
    }
}

fn hash_request(request: &meta::Request) -> u64 {
    let meta::Request::Txn(txn) = request else { return hash_text(&format!("{request:?}"), Time(0)) };
    let puts = txn.success.iter().map(|op| match op {
        meta::TxnOp::Put { value, .. } => value.iter().fold(3, |hash, byte| mix(hash, u64::from(*byte))),
        _ => 5,
    });
    puts.fold(hash_text(&format!("{:?}", txn.compare), Time(0)), mix)
}

/// What is left of what may happen.
#[derive(Clone, Copy, Debug)]
struct Left {
    resends: u8,
    reads: u8,
    crashes: u8,
    recreates: u8,
    shorts: u8,
    longs: u8,
    lost_replies: u8,
    overtakes: u8,
    duplicates: u8,
    cuts: u8,
    fills: u8,
}

impl Left {
    fn hash(self) -> u64 {
        let Left { resends, reads, crashes, recreates, shorts, longs, .. } = self;
        let of_time = [resends, reads, crashes, recreates, shorts, longs];
        let of_links = [self.lost_replies, self.overtakes, self.duplicates, self.cuts, self.fills];
        of_time.into_iter().chain(of_links).fold(13, |hash, left| mix(hash, left.into()))
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Sent {
    times: u8,
    pub done: bool,
    /// By now its client must not send it again.
    stale: bool,
}

/// See the module.
#[derive(Clone)]
pub struct World {
    pub scope: &'static Scope,
    now: Time,
    pub nodes: Vec<Rc<Node>>,
    net: BTreeMap<(usize, usize), VecDeque<Rc<Letter>>>,
    prompt: VecDeque<(usize, usize, PgMessage)>,
    cut: BTreeMap<(usize, usize), bool>,
    links: u64,
    keys: BTreeMap<String, (Rc<Vec<u8>>, u64)>,
    pub map: PgMap,
    map_hash: u64,
    pub ops: Vec<Sent>,
    left: Left,
    healing: bool,
    pub promises: Promises,
    /// Prints what happens.
    pub trace: bool,
}

pub fn object() -> ObjectId {
    ObjectId { pool: PG.pool, inode: InodeId(1), stripe: 0 }
}

fn osd_id(index: usize) -> OsdId {
    OsdId(u32::try_from(index).expect("few"))
}

pub fn store_uuid(osd: usize, stores: u64) -> StoreUuid {
    StoreUuid((osd as u128 + 1) << 8 | u128::from(stores))
}

fn sector(len: u32, value: u64) -> Data {
    BUFS.with_borrow_mut(|bufs| {
        let mut buf = bufs.zeroed(len);
        buf.bytes_mut().chunks_mut(512).for_each(|sector| sector[..8].copy_from_slice(&value.to_le_bytes()));
        Data::new(bufs.freeze(buf))
    })
}

fn pool(scope: &Scope) -> Pool {
    Pool {
        name: "p".into(),
        scheme: scope.scheme,
        pg_size: scope.size,
        pg_minsize: scope.minsize,
        parity_chunks: scope.parity,
        block_size: 4 << 10,
        scrub_interval_s: 0,
        ..Pool::default()
    }
}

impl World {
    /// All OSDs up, the first ones serve, the history is trimmed, there is nothing yet.
    pub fn new(scope: &'static Scope) -> Self {
        let node = |osd: usize| Node {
            groups: None,
            down: Some(ModelStore::new(u32::from(scope.slow)).with_uuid(store_uuid(osd, 0))),
            starts: 0,
            full: false,
            stores: 0,
            started: Time(0),
            heard: Epoch(0),
            next_meta: 0,
            meta: VecDeque::new(),
            hash: Cell::new(None),
        };
        let left = Left {
            resends: scope.resends,
            reads: scope.reads,
            crashes: scope.crashes,
            recreates: scope.recreates,
            shorts: scope.shorts,
            longs: scope.longs,
            lost_replies: scope.lost_replies,
            overtakes: scope.overtakes,
            duplicates: scope.duplicates,
            cuts: scope.cuts,
            fills: scope.fills,
        };
        let layout = serde_json::to_vec(&PoolLayout::first(1)).expect("plain data has a JSON form");
        let mut world = World {
            scope,
            now: Time(0) + Duration(LONG.0 * 10),
            nodes: (0..scope.osds).map(node).map(Rc::new).collect(),
            net: BTreeMap::new(),
            prompt: VecDeque::new(),
            cut: BTreeMap::new(),
            links: 0,
            keys: [(keys::layout(PG.pool), (Rc::new(layout), 1))].into(),
            map: PgMap::default(),
            map_hash: 0,
            ops: vec![Sent { times: 0, done: false, stale: false }; scope.ops.len()],
            left,
            healing: false,
            promises: Promises::default(),
            trace: false,
        };
        for osd in 0..scope.osds {
            world.start(osd);
        }
        world.now = world.now + LONG;
        world.install(world.first_seats(), 0);
        world.calm();
        world.ticks();
        world.calm();
        assert!(world.summary().is_some_and(|summary| summary.clean), "{:?}", world.summary());
        world
    }

    fn first_seats(&self) -> [Option<u8>; 4] {
        std::array::from_fn(|role| (role < usize::from(self.scope.size)).then(|| u8::try_from(role).expect("few")))
    }

    fn log(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("      {}", text());
        }
    }

    // ---- OSDs ----

    fn start(&mut self, osd: usize) {
        let now = self.now;
        let node = Rc::make_mut(&mut self.nodes[osd]);
        let store = node.down.take().expect("down");
        node.starts += 1;
        let view = NodeView {
            osd: osd_id(osd),
            store: store_uuid(osd, node.stores),
            incarnation: incarnation(osd, node.starts),
            started: now,
            lease: LEASE,
            recovery_full_percent: 95,
            access: Default::default(),
            access_revision: Some(0),
            peers: BTreeMap::new(),
            images: Default::default(),
            layouts: [(PG.pool, PoolLayout::first(1))].into(),
        };
        node.started = now;
        node.heard = Epoch(0);
        let mut groups = Groups::new(store, view, RecoverySlots::new(4, 200));
        groups.create(PG, &pool(self.scope));
        node.groups = Some(groups);
        node.hash.set(None);
        if self.map.epoch != Epoch(0) {
            self.hear(osd);
        }
        for other in 0..self.nodes.len() {
            if other != osd && self.is_up(other) && !self.is_cut(osd, other) {
                self.connect(osd, other);
            }
        }
    }

    pub fn is_up(&self, osd: usize) -> bool {
        self.nodes[osd].groups.is_some()
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains_key(&(a.min(b), a.max(b)))
    }

    fn connect(&mut self, a: usize, b: usize) {
        self.links += 1;
        let number = self.links;
        for (from, to) in [(a, b), (b, a)] {
            let link = (LinkId(PEER | number << 8 | to as u64), incarnation(to, self.nodes[to].starts));
            self.with(from, |groups, env| groups.set_peer(env, osd_id(to), true, Some(link)));
        }
    }

    fn disconnect(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            self.with(from, |groups, env| groups.set_peer(env, osd_id(to), false, None));
        }
    }

    fn crash(&mut self, osd: usize, keeps: bool) {
        let node = Rc::make_mut(&mut self.nodes[osd]);
        let mut store = node.groups.take().expect("up").store().clone();
        store.crash_keeping(if keeps { usize::MAX } else { 0 });
        node.down = Some(store);
        node.meta.clear();
        node.hash.set(None);
        self.net.retain(|(_, to), _| *to != osd);
        for other in (0..self.nodes.len()).filter(|other| *other != osd) {
            self.with(other, |groups, env| groups.set_peer(env, osd_id(osd), false, None));
        }
    }

    fn recreate(&mut self, osd: usize) {
        let node = Rc::make_mut(&mut self.nodes[osd]);
        node.stores += 1;
        node.full = false;
        node.down = Some(ModelStore::new(u32::from(self.scope.slow)).with_uuid(store_uuid(osd, node.stores)));
        self.start(osd);
    }

    /// Whether there is space is not on the disk: an OSD that is down keeps it as it was.
    pub(super) fn set_full(&mut self, osd: usize, full: bool) {
        let node = Rc::make_mut(&mut self.nodes[osd]);
        node.full = full;
        let space = if full { Space::None } else { Space::Enough };
        node.hash.set(None);
        if let Some(groups) = &mut node.groups {
            groups.store_mut().set_space(space);
        } else if let Some(store) = &mut node.down {
            store.set_space(space);
        }
    }

    fn hear(&mut self, osd: usize) {
        let map = self.map.clone();
        Rc::make_mut(&mut self.nodes[osd]).heard = map.epoch;
        self.with(osd, |groups, env| {
            groups.with(env, PG, |pg, host| pg.map_changed(host, &map, Revision(map.epoch.0)));
        });
    }

    /// Calls an OSD and carries out what it wants.
    fn with(&mut self, osd: usize, call: impl FnOnce(&mut Groups<ModelStore>, &mut Env<'_>)) {
        let now = self.now;
        let node = Rc::make_mut(&mut self.nodes[osd]);
        let Some(groups) = &mut node.groups else { return };
        let mut out = Effects::default();
        BUFS.with_borrow_mut(|bufs| {
            let mut rng = Rng::new((osd as u64) << 32 | node.starts << 16 | node.next_meta);
            let mut env = Env { now, rng: &mut rng, bufs, out: &mut out };
            call(groups, &mut env);
            let next_meta = &mut node.next_meta;
            groups.settle(&mut env, &mut || {
                *next_meta += 1;
                MetaId(*next_meta)
            });
        });
        groups.check();
        node.hash.set(None);
        for effect in out.queue {
            self.effect(osd, effect);
        }
    }

    fn effect(&mut self, osd: usize, effect: Effect) {
        match effect {
            Effect::Send { to, msg: Message::Pg(msg) } => self.send(osd, (to.0 & 0xff) as usize, msg),
            Effect::Send { to, msg: Message::Reply(reply) } => self.reply(to.0, reply),
            Effect::Meta(MetaOp::Request { id, request }) => {
                Rc::make_mut(&mut self.nodes[osd]).meta.push_back((id, request));
            }
            Effect::Observe(Event::Fact(fact)) => self.fact(osd, fact),
            Effect::Observe(Event::Mark(text)) => self.log(|| format!("osd.{osd}: {text}")),
            Effect::Observe(Event::Log(_, text)) => self.log(|| format!("osd.{osd}: {text}")),
            other => panic!("unexpected {other:?}"),
        }
    }

    fn send(&mut self, from: usize, to: usize, msg: PgMessage) {
        let prompt = match &msg {
            PgMessage::SubOp { op, .. } => {
                let reads =
                    matches!(op, SubOp::Digest { .. } | SubOp::List { .. } | SubOp::Fetch { .. } | SubOp::Read { .. });
                reads && !self.scope.late_replies
            }
            PgMessage::SubReply { .. } => !self.scope.late_replies,
            _ => true,
        };
        if prompt {
            self.prompt.push_back((from, to, msg));
        } else {
            let hash = hash_text(&format!("{msg:?}"), self.now);
            self.net.entry((from, to)).or_default().push_back(Rc::new(Letter { msg, hash }));
        }
    }

    fn fact(&mut self, osd: usize, fact: Fact) {
        self.log(|| format!("osd.{osd}: {fact:?}"));
        match fact {
            Fact::Acknowledged { version, request, .. } => {
                let op = usize::try_from(request.session.client.0).expect("few");
                self.promises.acknowledged(version, self.scope.ops[op] == Op::Delete);
            }
            Fact::Served { version, .. } => self.promises.served(version),
            Fact::Activated { epoch, .. } => {
                let node = &self.nodes[osd];
                let groups = node.groups.as_ref().expect("it acts");
                let version = groups.get(PG).expect("made at the start").version_of(groups.store(), object());
                self.promises.activated(epoch, version);
            }
            _ => {}
        }
    }

    fn reply(&mut self, link: u64, reply: Reply) {
        self.log(|| format!("answer on {link}: {:?}", reply.outcome));
        match reply.outcome {
            Ok(Answer::Written { .. } | Answer::Applied { .. }) => {
                let op = usize::try_from(link - WRITER).expect("a writer's link");
                self.ops[op].done = true;
                self.promises.returned(op);
            }
            Ok(Answer::Read { data, .. }) => {
                let value = data.buf.bytes()[0];
                self.promises.read(link - READER, value);
            }
            Err(Refusal::WrongEpoch(_) | Refusal::NotPrimary | Refusal::Again) => {}
            Err(Refusal::NoSpace) if self.scope.fills > 0 => self.refused(link),
            other => self.promises.broken(format!("a client got {other:?}")),
        }
    }

    /// What was sent once, and refused, never happens; it is not sent again.
    fn refused(&mut self, link: u64) {
        let op = usize::try_from(link - WRITER).expect("a writer's link");
        self.ops[op].stale = true;
        if self.ops[op].times == 1 {
            self.promises.refused(op);
        }
    }

    fn deliver(&mut self, from: usize, to: usize, msg: PgMessage) {
        let peer = osd_id(from);
        self.log(|| format!("osd.{from} -> osd.{to}: {}", short(&msg)));
        self.with(to, |groups, env| {
            groups.with(env, PG, |pg, host| match msg {
                PgMessage::SubOp { attempt, call, op, .. } => pg.sub_op(host, peer, attempt, call, op),
                PgMessage::SubReply { attempt, call, reply, .. } => pg.sub_reply(host, peer, attempt, call, reply),
                PgMessage::Stray { .. } => pg.stray(host, peer),
                other => panic!("unexpected {other:?}"),
            });
        });
    }

    // ---- the metadata store ----

    fn is_read(request: &meta::Request) -> bool {
        match request {
            meta::Request::Txn(txn) => txn.compare.is_empty(),
            _ => true,
        }
    }

    fn execute(&mut self, request: &meta::Request) -> meta::Response {
        let txn = match request {
            meta::Request::Txn(txn) => txn,
            meta::Request::Range(meta::Keys::One(key)) => {
                return meta::Response::Range { revision: 0, kvs: self.read(key) };
            }
            other => panic!("unexpected {other:?}"),
        };
        let succeeded = txn.compare.iter().all(|compare| match compare {
            meta::Compare::ModRevision(key, revision) => self.keys.get(key).map_or(0, |(_, at)| *at) == *revision,
            other => panic!("unexpected {other:?}"),
        });
        let mut last = 0;
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let results = ops.iter().map(|op| match op {
            meta::TxnOp::Put { key, value, .. } => {
                let at = self.keys.get(key).map_or(0, |(_, at)| *at) + 1;
                self.keys.insert(key.clone(), (Rc::new(value.clone()), at));
                if *key == keys::pg_history(PG) {
                    self.promises.recorded(value);
                }
                last = at;
                meta::TxnResult::Put
            }
            meta::TxnOp::Range(meta::Keys::One(key)) => meta::TxnResult::Range(self.read(key)),
            other => panic!("unexpected {other:?}"),
        });
        let results = results.collect();
        meta::Response::Txn { revision: last, succeeded, results }
    }

    fn read(&self, key: &String) -> Vec<meta::KeyValue> {
        let found = self.keys.get(key).map(|(value, at)| meta::KeyValue {
            key: key.clone(),
            value: value.to_vec(),
            create_revision: 1,
            mod_revision: *at,
            version: *at,
            lease: 0,
        });
        found.into_iter().collect()
    }

    fn metadata(&mut self, osd: usize, lost: bool) {
        let Some((id, request)) = Rc::make_mut(&mut self.nodes[osd]).meta.pop_front() else { return };
        let response = self.execute(&request);
        let result = if lost { Err(MetaError::Unknown) } else { Ok(response) };
        self.with(osd, |groups, env| {
            groups.meta_done(env, id, result);
        });
    }

    fn install(&mut self, seats: [Option<u8>; 4], primary: usize) {
        let member = |osd: u8| {
            let osd = usize::from(osd);
            let node = &self.nodes[osd];
            let (store, incarnation) = (store_uuid(osd, node.stores), incarnation(osd, node.starts));
            ActingMember { osd: osd_id(osd), store, incarnation }
        };
        let acting = seats[..usize::from(self.scope.size)].iter().map(|seat| seat.map(member)).collect();
        let epoch = Epoch(self.map.epoch.0 + 1);
        let stays = self.map.primary == Some(osd_id(primary));
        let primary_since = if stays { self.map.primary_since } else { epoch };
        self.map = PgMap { epoch, target: Vec::new(), acting, primary: Some(osd_id(primary)), primary_since };
        self.map_hash = hash_of(&self.map, self.now);
        let chunk = PgMapChunk([(PG.number, self.map.clone())].into());
        let value = serde_json::to_vec(&chunk).expect("plain data");
        self.keys.insert(keys::pg_map(PG.pool, 0), (Rc::new(value), epoch.0));
        self.log(|| format!("map {:?}", self.map));
    }

    // ---- what can happen ----

    /// Everything that can happen now.
    pub fn actions(&self, out: &mut Vec<Action>) {
        out.clear();
        for ((from, to), queue) in &self.net {
            out.extend((!queue.is_empty()).then_some(Action::Deliver(*from, *to)));
            if self.left.duplicates > 0 && !queue.is_empty() {
                out.push(Action::Duplicate(*from, *to));
            }
            if self.left.overtakes > 0 {
                out.extend((1..queue.len()).map(|index| Action::Overtake(*from, *to, index)));
            }
        }
        for osd in 0..self.nodes.len() {
            self.actions_of(osd, out);
        }
        if self.map.epoch.0 < self.scope.epochs {
            self.maps(out);
        }
        self.link_actions(out);
        let waits = (0..self.nodes.len()).any(|osd| self.next_deadline(osd).is_some());
        if self.left.shorts > 0 && waits {
            out.push(Action::Wait);
        }
        if self.left.longs > 0 && waits {
            out.push(Action::LongWait);
        }
    }

    fn next_deadline(&self, osd: usize) -> Option<Time> {
        self.nodes[osd].groups.as_ref()?.next_deadline()
    }

    fn actions_of(&self, osd: usize, out: &mut Vec<Action>) {
        let node = &self.nodes[osd];
        let Some(groups) = &node.groups else {
            out.push(Action::Restart(osd));
            if self.left.recreates > 0 {
                out.push(Action::Recreate(osd));
            }
            return;
        };
        if !node.meta.is_empty() {
            out.push(Action::Meta(osd));
            if self.left.lost_replies > 0 {
                out.push(Action::MetaLost(osd));
            }
        }
        let named = self.map.primary == Some(osd_id(osd));
        if node.heard < self.map.epoch && (named || self.scope.hears) {
            out.push(Action::Notice(osd));
        }
        if groups.store().is_busy() {
            out.push(Action::Flush(osd));
        }
        if node.full {
            out.push(Action::Empty(osd));
        } else if self.left.fills > 0 {
            out.push(Action::Fill(osd));
        }
        if self.left.crashes > 0 {
            out.push(Action::Crash(osd, false));
            if groups.store().is_busy() {
                out.push(Action::Crash(osd, true));
            }
        }
        if groups.get(PG).is_some_and(|pg| pg.serving().is_some()) {
            self.client_actions(osd, out);
        }
    }

    fn client_actions(&self, osd: usize, out: &mut Vec<Action>) {
        for (op, sent) in self.ops.iter().enumerate() {
            if sent.times == 0 {
                out.push(Action::Send(op, osd));
                break;
            }
            if self.left.resends > 0 && !sent.stale {
                out.push(Action::Send(op, osd));
            }
        }
        if self.left.reads > 0 {
            out.push(Action::Read(osd));
        }
        if self.left.reads > 0 || self.promises.is_reading() {
            out.push(Action::Beat(osd));
        }
    }

    fn maps(&self, out: &mut Vec<Action>) {
        let size = usize::from(self.scope.size);
        let count = self.nodes.len();
        let old: Vec<Option<OsdId>> = self.map.acting.iter().map(|seat| seat.map(|member| member.osd)).collect();
        for mask in 1u32..1 << count {
            let chosen: Vec<usize> = (0..count).filter(|osd| mask >> osd & 1 == 1).collect();
            if chosen.len() < usize::from(self.scope.minsize) || chosen.len() > size {
                continue;
            }
            let Some(seats) = seats_of(&chosen, size, self.scope.has_roles()) else { continue };
            for primary in chosen.iter().copied().filter(|osd| self.is_up(*osd)) {
                let new: Vec<Option<OsdId>> =
                    seats[..size].iter().map(|seat| seat.map(|osd| osd_id(usize::from(osd)))).collect();
                let restarted = self.map.acting.iter().flatten().any(|member| {
                    let osd = member.osd.0 as usize;
                    member.incarnation != incarnation(osd, self.nodes[osd].starts)
                });
                if new != old || Some(osd_id(primary)) != self.map.primary || restarted {
                    out.push(Action::Map(seats, primary));
                }
            }
        }
    }

    fn link_actions(&self, out: &mut Vec<Action>) {
        let count = self.nodes.len();
        for (a, b) in (0..count).flat_map(|b| (0..b).map(move |a| (a, b))) {
            if self.is_cut(a, b) {
                out.push(Action::Link(a, b));
            } else if self.left.cuts > 0 && self.is_up(a) && self.is_up(b) {
                out.push(Action::Cut(a, b));
            }
        }
    }

    /// Lets something happen, and all that follows at once. The error is a broken promise.
    pub fn step(&mut self, action: Action) -> Result<(), String> {
        self.log(|| format!("{action:?}"));
        self.act(action);
        self.prompt_ones();
        self.forget_dead_letters();
        self.promises.verdict()
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Deliver(from, to) => self.take(from, to, 0),
            Action::Overtake(from, to, index) => {
                self.left.overtakes -= 1;
                self.take(from, to, index);
            }
            Action::Duplicate(from, to) => {
                self.left.duplicates -= 1;
                let letter = self.net[&(from, to)][0].msg.clone();
                self.deliver(from, to, letter);
            }
            Action::Meta(osd) => self.metadata(osd, false),
            Action::MetaLost(osd) => {
                self.left.lost_replies -= 1;
                self.metadata(osd, true);
            }
            Action::Notice(osd) => self.hear(osd),
            Action::Map(seats, primary) => self.install(seats, primary),
            Action::Crash(osd, keeps) => {
                self.left.crashes -= 1;
                self.crash(osd, keeps);
            }
            Action::Restart(osd) => self.start(osd),
            Action::Recreate(osd) => {
                self.left.recreates -= 1;
                self.recreate(osd);
            }
            Action::Send(op, osd) => self.client_sends(op, osd),
            Action::Read(osd) => self.client_reads(osd),
            Action::Beat(osd) => self.beat(osd),
            Action::Flush(osd) => self.with(osd, |groups, env| groups.store_mut().end_of_round(env)),
            Action::Cut(a, b) => {
                self.left.cuts -= 1;
                self.cut.insert((a, b), true);
                self.net.retain(|(from, to), _| (*from.min(to), *from.max(to)) != (a, b));
                self.disconnect(a, b);
            }
            Action::Fill(osd) => {
                self.left.fills -= 1;
                self.set_full(osd, true);
            }
            Action::Empty(osd) => self.set_full(osd, false),
            Action::Link(a, b) => {
                self.cut.remove(&(a, b));
                if self.is_up(a) && self.is_up(b) {
                    self.connect(a, b);
                }
            }
            Action::Wait => {
                self.left.shorts -= u8::from(!self.healing);
                self.now = self.now + SHORT;
                self.ticks();
            }
            Action::LongWait => {
                self.left.longs -= u8::from(!self.healing);
                self.now = self.now + LONG;
                self.age_requests();
                self.ticks();
            }
        }
    }

    /// A deletion is not retried after so long a time.
    fn age_requests(&mut self) {
        for (sent, op) in self.ops.iter_mut().zip(self.scope.ops) {
            sent.stale |= sent.times > 0 && *op == Op::Delete;
        }
    }

    fn ticks(&mut self) {
        for osd in 0..self.nodes.len() {
            self.with(osd, |groups, env| groups.tick(env));
        }
    }

    fn take(&mut self, from: usize, to: usize, index: usize) {
        let queue = self.net.get_mut(&(from, to)).expect("something is on its way");
        let letter = queue.remove(index).expect("it is on its way");
        if queue.is_empty() {
            self.net.remove(&(from, to));
        }
        self.deliver(from, to, letter.msg.clone());
    }

    /// What is answered, or only read, at once.
    fn prompt_ones(&mut self) {
        loop {
            if let Some((from, to, msg)) = self.prompt.pop_front() {
                if self.is_up(to) && self.is_up(from) {
                    self.deliver(from, to, msg);
                }
                continue;
            }
            let reads = |osd: &usize| self.nodes[*osd].meta.front().is_some_and(|(_, request)| Self::is_read(request));
            let Some(osd) = (0..self.nodes.len()).find(reads) else { return };
            self.metadata(osd, false);
        }
    }

    /// An order of an epoch below the member's fence is refused for ever.
    fn forget_dead_letters(&mut self) {
        let nodes = &self.nodes;
        let is_dead = |to: usize, letter: &Letter| match &letter.msg {
            PgMessage::SubOp { attempt, .. } => {
                let pg = nodes[to].groups.as_ref().and_then(|groups| groups.get(PG));
                let fence = pg.map_or(Epoch(0), |pg| pg.member.fence());
                attempt.epoch < fence && !planted(Bug::SkipFence)
            }
            _ => false,
        };
        self.net.retain(|(_, to), queue| {
            queue.retain(|letter| !is_dead(*to, letter));
            !queue.is_empty()
        });
    }

    // ---- clients ----

    fn client_sends(&mut self, op: usize, osd: usize) {
        let sent = &mut self.ops[op];
        if sent.times > 0 && !self.healing {
            self.left.resends -= 1;
        }
        sent.times = sent.times.saturating_add(1);
        self.promises.called(op, self.scope.ops);
        let value = op as u64 + 1;
        let request = match self.scope.ops[op] {
            Op::Write(sectors) => RequestOp::Write { offset: 0, data: sector(512 * sectors, value), expect: None },
            Op::Delete => RequestOp::Delete { expect: None },
        };
        self.request(osd, WRITER + op as u64, op as u64, 1, request);
    }

    fn client_reads(&mut self, osd: usize) {
        let number = self.scope.reads - self.left.reads;
        self.left.reads -= u8::from(!self.healing);
        self.promises.reading(number.into());
        let link = READER + u64::from(number);
        self.request(osd, link, 100 + u64::from(number), 1 << 63 | 1, RequestOp::Read { offset: 0, len: 512 });
        self.promises.reads_settled();
    }

    fn request(&mut self, osd: usize, link: u64, client: u64, number: u64, op: RequestOp) {
        let session = Session { client: ClientId(client), number: 1 };
        self.with(osd, |groups, env| {
            groups.with(env, PG, |pg, host| {
                let epoch = pg.map.epoch;
                let (id, class) = (RequestId { session, number }, Default::default());
                let request = Request { id, seen: 0, object: object(), generation: 0, epoch, class, tenant: 0, op };
                pg.request(host, LinkId(link), session, request);
            });
        });
    }

    /// Heartbeats with all other members, and their answers.
    fn beat(&mut self, osd: usize) {
        let groups = self.nodes[osd].groups.as_ref().expect("it serves");
        let pg = groups.get(PG).expect("made at the start");
        let (attempt, members) = (pg.serving().expect("it serves"), pg.heartbeat_members().to_vec());
        let now = self.now;
        for member in members {
            let to = member.0 as usize;
            let mut granted = false;
            if !self.is_cut(osd, to) {
                self.with(to, |groups, env| {
                    granted = groups.with(env, PG, |pg, _| pg.grant_lease(now, attempt, LEASE)) == Some(true);
                });
            }
            if granted {
                self.with(osd, |groups, env| {
                    groups.with(env, PG, |pg, host| pg.lease_granted(host, member, attempt, now, LEASE));
                });
            }
        }
    }

    // ---- states ----

    /// Equal for worlds with the same future.
    pub fn hash(&self) -> u64 {
        let nodes = self.nodes.iter().map(|node| node.hash(self.scope.roles(), self.now));
        let letters = self.net.iter().flat_map(|((from, to), queue)| {
            let head = std::iter::once((from * 16 + to) as u64);
            head.chain(queue.iter().map(|letter| letter.hash))
        });
        let ops = self.ops.iter().map(|op| u64::from(op.times) << 2 | u64::from(op.done) << 1 | u64::from(op.stale));
        let cut = self.cut.keys().map(|(a, b)| (a * 16 + b) as u64);
        let rest = [self.left.hash(), self.map_hash, self.promises.hash()];
        nodes.chain(letters).chain(ops).chain(cut).chain(rest).fold(11, mix)
    }

    /// What must hold of what is stored, whoever peers next.
    pub fn look_ahead(&mut self) -> Result<(), String> {
        self.promises.contents(&self.nodes, self.scope)?;
        self.promises.next_peerings(&self.nodes, self.scope)
    }
}

fn incarnation(osd: usize, starts: u64) -> Incarnation {
    Incarnation((osd as u64 + 1) << 8 | starts)
}

/// Roles of the chosen OSDs: in replicated pools any; else each OSD has a role of its own, and spare ones the last one.
fn seats_of(chosen: &[usize], size: usize, has_roles: bool) -> Option<[Option<u8>; 4]> {
    let mut seats = [None; 4];
    for (index, osd) in chosen.iter().enumerate() {
        let role = if has_roles { (*osd).min(size - 1) } else { index };
        if seats[role].replace(u8::try_from(*osd).expect("few")).is_some() {
            return None;
        }
    }
    Some(seats)
}

/// A message without its identity.
fn short(msg: &PgMessage) -> String {
    match msg {
        PgMessage::SubOp { attempt, op, .. } => format!("{attempt:?} {op:?}"),
        PgMessage::SubReply { attempt, reply, .. } => format!("{attempt:?} {reply:?}"),
        other => format!("{other:?}"),
    }
}
