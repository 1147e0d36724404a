//! The world around one group.

use super::check::{Action, Moment, linearizable};
mod removal;

use crate::buf::BufPool;
use crate::id::*;
use crate::io::{Effect, Effects, Env, Event, MetaError, MetaId, MetaOp};
use crate::map::access::Access;
use crate::map::{ActingMember, History, ImmediateCommit, PgMap, PgMapChunk, Pool, Scheme, ScrubOrder, keys};
use crate::meta;
use crate::msg::{Answer, Fact, Message, Refusal, Reply, Request, RequestOp};
use crate::osd::groups::Groups;
use crate::pg::host::NodeView;
use crate::pg::msg::{Change, PgMessage, Purpose, SubOp};
use crate::pg::pace::RecoverySlots;
use crate::rng::Rng;
use crate::store::model::ModelStore;
use crate::store::{Content, CopyInfo, Data, ObjectStore, StoreOp, StoreReply};
use crate::time::{Duration, Time};
use std::collections::{BTreeMap, BTreeSet};

const CLIENTS: usize = 4;
const OBJECTS: u64 = 3;
const PG: PgId = PgId { pool: PoolId(1), number: PgNumber(0) };
const LEASE: Duration = Duration::millis(100);
/// The test itself, as a client.
const TESTER: usize = 200;
const PEER_LINK: u64 = 1 << 40;

/// Which faults happen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub maps: bool,
    pub crashes: bool,
    pub links: bool,
    pub pauses: bool,
    pub metadata: bool,
    pub full: bool,
    /// Not a fault: the pool and most stores are lazy. Each client has its own object then, and syncs after each write.
    pub lazy: bool,
}

impl Faults {
    pub const ALL: Faults =
        Faults { maps: true, crashes: true, links: true, pauses: true, metadata: true, full: true, lazy: false };
}

enum What {
    Message { to: usize, link: LinkId, msg: Message },
    Reply { client: usize, link: LinkId, reply: Reply },
    Meta { osd: usize, incarnation: u64, id: MetaId, result: Result<meta::Response, MetaError> },
    Notice { osd: usize, incarnation: u64, map: PgMap, revision: u64 },
    Round { osd: usize },
    Beat { osd: usize, incarnation: u64 },
    Restart { osd: usize },
    Crash { osd: usize },
    LinkUp { a: usize, b: usize },
    Resume,
    NewMap,
    ClientMap { client: usize, map: PgMap },
    ClientStep { client: usize },
    ClientTimeout { client: usize, number: u64, tries: u32 },
    Fault,
}

struct Osd {
    groups: Option<Groups<ModelStore>>,
    /// While it is down.
    store: Option<ModelStore>,
    uuid: StoreUuid,
    incarnation: u64,
    read_map: bool,
    paused_until: Time,
    /// Until then it hears of nothing but clients.
    cut_off_until: Time,
    next_meta: u64,
    ticks: BTreeSet<Time>,
}

struct Client {
    map: PgMap,
    number: u64,
    reads: u64,
    tries: u32,
    request: Option<Request>,
    /// A write that was acknowledged and is being synced.
    unsynced: Option<Request>,
    /// The oldest epoch under which the present request was sent.
    sent_epoch: Epoch,
    op: Option<(u64, usize)>,
    /// The registers that the operation is about.
    slots: std::ops::Range<usize>,
    conn: u64,
    versions: BTreeMap<u64, Version>,
    left: u32,
}

pub struct World {
    now: Time,
    rng: Rng,
    faults: Faults,
    shape: Shape,
    queue: BTreeMap<(Time, u64), What>,
    sequence: u64,
    meta: meta::Store,
    osds: Vec<Osd>,
    links: BTreeMap<(usize, usize), u64>,
    link_count: u64,
    last_delivery: BTreeMap<LinkId, Time>,
    clients: Vec<Client>,
    history: BTreeMap<u64, Vec<Moment>>,
    called: usize,
    bufs: BufPool,
    healing: bool,
    acknowledged: BTreeMap<ObjectId, Version>,
    /// The newest interval that was served, with the version of each object at its start.
    served: (Epoch, BTreeMap<ObjectId, Version>),
    pub problem: Option<String>,
    pub marks: BTreeSet<&'static str>,
    /// A store was lost with all that it held.
    recreated: bool,
    /// The answer to [`World::ask`].
    answer: Option<Reply>,
    /// Orders that went from an OSD to another: what, and to which role.
    pub orders: Vec<(&'static str, u8)>,
    asked: u64,
    trace: bool,
}

/// Bytes of a chunk.
pub const BLOCK: u32 = 16 << 10;

/// The pool, and where in an object registers lie.
#[derive(Clone, Debug)]
pub struct Shape {
    pub pool: Pool,
    /// Offsets of registers; one for replicated pools.
    pub slots: Vec<u32>,
}

impl Shape {
    pub fn replicated() -> Self {
        let pool = Pool {
            name: "p".into(),
            scheme: Scheme::Replicated,
            pg_size: 3,
            pg_minsize: 2,
            pg_count: 1,
            parity_chunks: 0,
            block_size: BLOCK,
            failure_domain: "host".into(),
            immediate_commit: ImmediateCommit::All,
            scrub_interval_s: 1,
        };
        Shape { pool, slots: vec![0] }
    }

    fn lazy() -> Self {
        let strict = Shape::replicated();
        Shape { pool: Pool { immediate_commit: ImmediateCommit::None, ..strict.pool }, ..strict }
    }

    /// Registers beside each other, on both sides of chunks' borders, and in the same column of different chunks.
    pub fn striped(scheme: Scheme, k: u8, m: u8, minsize: u8) -> Self {
        let replicated = Shape::replicated().pool;
        let pool = Pool { scheme, pg_size: k + m, pg_minsize: minsize, parity_chunks: m, ..replicated };
        let end = BLOCK * u32::from(k);
        Shape { pool, slots: vec![0, 512, BLOCK - 512, BLOCK, BLOCK + 4096, end - 512] }
    }

    fn is_replicated(&self) -> bool {
        self.pool.scheme == Scheme::Replicated
    }
}

fn object(stripe: u64) -> ObjectId {
    ObjectId { pool: PoolId(1), inode: InodeId(1), stripe }
}

fn store_uuid(osd: usize) -> StoreUuid {
    StoreUuid(osd as u128 + 1)
}

fn store(osd: usize, rounds: u32, lazy: bool) -> ModelStore {
    let store = ModelStore::new(rounds).with_uuid(store_uuid(osd));
    if lazy && osd != 1 { store.lazy() } else { store }
}

fn osd_id(index: usize) -> OsdId {
    OsdId(u32::try_from(index).unwrap())
}

impl World {
    pub fn new(seed: u64, faults: Faults) -> Self {
        World::shaped(seed, faults, if faults.lazy { Shape::lazy() } else { Shape::replicated() })
    }

    pub fn shaped(seed: u64, faults: Faults, shape: Shape) -> Self {
        let count = usize::from(shape.pool.pg_size) + 2;
        let mut rng = Rng::new(seed);
        let osd = |index: usize, rng: &mut Rng| Osd {
            groups: None,
            store: Some(store(index, u32::try_from(rng.below(4)).unwrap(), faults.lazy)),
            uuid: store_uuid(index),
            incarnation: 0,
            read_map: false,
            paused_until: Time(0),
            cut_off_until: Time(0),
            next_meta: 0,
            ticks: BTreeSet::new(),
        };
        let client = || Client {
            map: PgMap::default(),
            number: 0,
            reads: 0,
            tries: 0,
            request: None,
            unsynced: None,
            sent_epoch: Epoch(u64::MAX),
            op: None,
            slots: 0..1,
            conn: 1,
            versions: BTreeMap::new(),
            left: 100,
        };
        let mut world = World {
            now: Time(1_000_000),
            osds: (0..count).map(|index| osd(index, &mut rng)).collect(),
            rng,
            faults,
            shape,
            queue: BTreeMap::new(),
            sequence: 0,
            meta: meta::Store::new(meta::Retention::default()),
            links: BTreeMap::new(),
            link_count: 0,
            last_delivery: BTreeMap::new(),
            clients: (0..CLIENTS).map(|_| client()).collect(),
            history: BTreeMap::new(),
            called: 0,
            bufs: BufPool::new(),
            healing: false,
            acknowledged: BTreeMap::new(),
            served: Default::default(),
            problem: None,
            marks: BTreeSet::new(),
            answer: None,
            recreated: false,
            orders: Vec::new(),
            asked: 0,
            trace: std::env::var("PG_TRACE").is_ok(),
        };
        for osd in 0..count {
            world.start(osd);
        }
        world.new_map();
        for client in 0..CLIENTS {
            world.after(1_000, What::ClientStep { client });
        }
        world.after(100_000, What::Fault);
        world
    }

    fn after(&mut self, micros: u64, what: What) {
        self.at(self.now + Duration::micros(micros), what);
    }

    fn at(&mut self, at: Time, what: What) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), what);
    }

    fn log(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:9.3} {}", self.now.0 as f64 / 1e6, text());
        }
    }

    // ---- OSDs ----

    fn start(&mut self, osd: usize) {
        self.log(|| format!("osd.{osd} starts"));
        let incarnation = self.rng.next_u64();
        let store = self.osds[osd].store.take().expect("down");
        let node = NodeView {
            images: self.images(),
            osd: osd_id(osd),
            store: self.osds[osd].uuid,
            incarnation: Incarnation(incarnation),
            started: self.now,
            lease: LEASE,
            access: Access::default(),
            access_revision: Some(0),
            peers: BTreeMap::new(),
        };
        let mut groups = Groups::new(store, node, RecoverySlots::new(4, 200));
        groups.create(PG, &self.shape.pool);
        let entry = &mut self.osds[osd];
        entry.groups = Some(groups);
        entry.incarnation = incarnation;
        entry.read_map = false;
        entry.ticks.clear();
        let delay = self.rng.between(1_000, 30_000);
        let (map, revision) = self.current_map();
        self.after(delay, What::Notice { osd, incarnation, map, revision });
        self.after(1_000, What::Beat { osd, incarnation });
        let delay = self.rng.between(100, 50_000);
        self.after(delay, What::NewMap);
    }

    fn crash(&mut self, osd: usize) {
        let Some(groups) = self.osds[osd].groups.take() else { return };
        self.log(|| format!("osd.{osd} crashes"));
        let mut store = groups.store().clone();
        store.crash(&mut self.rng);
        self.osds[osd].store = Some(store);
        for other in 0..self.osds.len() {
            self.unlink(osd, other);
        }
        let delay = self.rng.between(1_000, 100_000);
        self.after(delay, What::NewMap);
    }

    /// One store of a run may come back empty, if the pool promises to survive that whatever else happens: if a group
    /// serves only with more members than are needed to read.
    fn lose_store(&mut self, osd: usize) {
        let pool = &self.shape.pool;
        let survivable = !self.shape.is_replicated() && pool.pg_minsize > pool.data_chunks();
        if self.healing || self.recreated || !survivable || !self.rng.chance(1, 8) {
            return;
        }
        self.log(|| format!("osd.{osd} has lost its store"));
        self.recreated = true;
        let uuid = StoreUuid(osd as u128 + 101);
        self.osds[osd].uuid = uuid;
        self.osds[osd].store = Some(ModelStore::new(1).with_uuid(uuid));
    }

    fn is_up(&self, osd: usize) -> bool {
        self.osds[osd].groups.is_some()
    }

    fn link_id(&self, a: usize, b: usize) -> Option<LinkId> {
        let number = self.links.get(&(a.min(b), a.max(b)))?;
        Some(LinkId(PEER_LINK | number << 8 | b as u64))
    }

    fn link(&mut self, a: usize, b: usize) {
        let ready = |osd: usize| self.osds[osd].groups.is_some() && self.osds[osd].read_map;
        let cut_off = |osd: usize| self.osds[osd].cut_off_until > self.now;
        if a == b
            || cut_off(a)
            || cut_off(b)
            || !ready(a)
            || !ready(b)
            || self.links.contains_key(&(a.min(b), a.max(b)))
        {
            return;
        }
        self.log(|| format!("link osd.{a} - osd.{b}"));
        self.link_count += 1;
        self.links.insert((a.min(b), a.max(b)), self.link_count);
        for (from, to) in [(a, b), (b, a)] {
            let link = self.link_id(from, to).map(|link| (link, Incarnation(self.osds[to].incarnation)));
            self.with(from, |groups, env| groups.set_peer(env, osd_id(to), true, link));
        }
    }

    fn unlink(&mut self, a: usize, b: usize) {
        if self.links.remove(&(a.min(b), a.max(b))).is_none() {
            return;
        }
        self.log(|| format!("cut osd.{a} - osd.{b}"));
        for (from, to) in [(a, b), (b, a)] {
            let up = self.is_up(to);
            self.with(from, |groups, env| groups.set_peer(env, osd_id(to), up, None));
        }
    }

    /// Calls an OSD and carries out what it wants.
    fn with(&mut self, osd: usize, call: impl FnOnce(&mut Groups<ModelStore>, &mut Env<'_>)) {
        let Some(mut groups) = self.osds[osd].groups.take() else { return };
        let mut out = Effects::default();
        let mut rng = self.rng.fork();
        let mut env = Env { now: self.now, rng: &mut rng, bufs: &mut self.bufs, out: &mut out };
        call(&mut groups, &mut env);
        let entry = &mut self.osds[osd];
        let next_meta = &mut entry.next_meta;
        let mut next_id = || {
            *next_meta += 1;
            MetaId(*next_meta)
        };
        groups.settle(&mut env, &mut next_id);
        groups.check();
        if let Some(at) = groups.next_deadline()
            && entry.ticks.insert(at)
        {
            self.sequence += 1;
            self.queue.insert((at.max(self.now), self.sequence), What::Round { osd });
        }
        self.osds[osd].groups = Some(groups);
        // The store may hold completions back for some rounds.
        self.sequence += 1;
        let soon = self.now + Duration::micros(self.rng.between(20, 300));
        let pending = self.osds[osd].groups.as_ref().expect("put back").store().is_busy();
        if pending {
            self.queue.insert((soon, self.sequence), What::Round { osd });
        }
        for effect in out.queue {
            self.effect(osd, effect);
        }
    }

    fn effect(&mut self, osd: usize, effect: Effect) {
        match effect {
            Effect::Send { to, msg } if to.0 & PEER_LINK != 0 => {
                let peer = (to.0 & 0xff) as usize;
                let order = order_of(&msg);
                self.orders.extend(order);
                if order.is_some_and(|(what, _)| what == "purge") && self.strikes() {
                    let delay = self.rng.between(20, 500);
                    self.after(delay, What::Crash { osd: peer });
                }
                if let Some((object, version)) = resolved_by(&msg)
                    && self.strikes()
                {
                    self.strike_holders(object, version);
                }
                if self.link_id(osd, peer) == Some(to) {
                    let back = self.link_id(peer, osd).expect("links have two ends");
                    self.deliver(to, What::Message { to: peer, link: back, msg });
                }
            }
            Effect::Send { to, msg: Message::Reply(reply) } => {
                let client = (to.0 & 0xff) as usize;
                self.deliver(to, What::Reply { client, link: to, reply });
            }
            Effect::Meta(MetaOp::Request { id, request }) => self.metadata(osd, id, request),
            Effect::Observe(Event::Mark(name)) => {
                self.log(|| format!("osd.{osd}: {name}"));
                self.marks.insert(name);
                if name == "a version counts that cannot be supplied" {
                    // No more is lost here than a pool survives: whoever answers, if they suffice, can supply what counts.
                    self.problem.get_or_insert(format!("osd.{osd}: {name}"));
                }
            }
            Effect::Observe(Event::Log(_, text)) => self.log(|| format!("osd.{osd}: {text}")),
            Effect::Observe(Event::Fact(fact)) => self.fact(osd, fact),
            other => panic!("unexpected {other:?}"),
        }
    }

    fn fact(&mut self, osd: usize, fact: Fact) {
        self.log(|| format!("osd.{osd}: {fact:?}"));
        if let Fact::Acknowledged { object, version, durable: true, .. } = fact {
            let known = self.acknowledged.entry(object).or_insert(Version::NONE);
            *known = (*known).max(version);
        } else if let Fact::Activated { epoch, .. } = fact {
            self.activated(osd, epoch);
        }
    }

    /// Whether OSDs fail at a moment at which stripes have the least to lose.
    fn strikes(&mut self) -> bool {
        !self.shape.is_replicated() && self.faults.crashes && !self.healing && self.rng.chance(1, 4)
    }

    /// Those who hold a version fail just when it is being given to others.
    fn strike_holders(&mut self, object: ObjectId, version: Version) {
        let roles = 0..self.shape.pool.pg_size;
        let holds = |osd: &usize| {
            let Some(groups) = &self.osds[*osd].groups else { return false };
            let infos = roles.clone().filter_map(|role| groups.store().lookup(CopyId { object, role: Role(role) }));
            infos.flat_map(|info| [info.committed, info.prepared]).flatten().any(|info| info.version == version)
        };
        let holders: Vec<usize> = (0..self.osds.len()).filter(holds).collect();
        let delay = self.rng.between(30, 500);
        for osd in holders {
            self.after(delay, What::Crash { osd });
        }
    }

    /// What an interval starts with must be what the one before started with, or was written in that.
    fn activated(&mut self, osd: usize, epoch: Epoch) {
        if epoch <= self.served.0 {
            return;
        }
        let (before, versions) = &mut self.served;
        let Some(groups) = &self.osds[osd].groups else { return };
        for stripe in 0..OBJECTS {
            let object = object(stripe);
            let version = groups.get(PG).expect("made at the start").version_of(groups.store(), object);
            if version.epoch == epoch {
                // Written already: what it came from is not known any more.
                versions.insert(object, version);
                continue;
            }
            let copies = (0..self.shape.pool.pg_size).map(|role| CopyId { object, role: Role(role) });
            let stores =
                self.osds.iter().filter_map(|osd| osd.groups.as_ref().map(Groups::store).or(osd.store.as_ref()));
            let infos = stores.flat_map(|store| copies.clone().filter_map(|copy| store.lookup(copy)));
            let absent = version.is_none()
                || infos
                    .flat_map(|info| [info.committed, info.prepared])
                    .flatten()
                    .any(|info| info.version == version && info.tombstone);
            let old = versions.insert(object, if absent { Version::NONE } else { version }).unwrap_or_default();
            let continues =
                old.epoch == *before || version == old || version.epoch >= *before || (absent && old.is_none());
            let acknowledged = self.acknowledged.get(&object).copied().unwrap_or_default();
            if !continues || (version < acknowledged && !(absent && version.is_none())) {
                let text = format!(
                    "epoch {epoch} starts with {object:?} at {version}; epoch {before} had started with {old}, \
                     {acknowledged} was acknowledged"
                );
                self.problem.get_or_insert(text);
            }
        }
        self.served.0 = epoch;
    }

    fn deliver(&mut self, link: LinkId, what: What) {
        let at = self.now
            + Duration::micros(if self.rng.chance(1, 20) {
                self.rng.between(1_000, 20_000)
            } else {
                self.rng.between(20, 400)
            });
        let last = self.last_delivery.entry(link).or_default();
        let at = at.max(*last + Duration(1));
        *last = at;
        self.at(at, what);
    }

    fn metadata(&mut self, osd: usize, id: MetaId, request: meta::Request) {
        let incarnation = self.osds[osd].incarnation;
        let faulty = self.faults.metadata && !self.healing && self.rng.chance(1, 8);
        let result = if faulty && self.rng.chance(1, 2) {
            Err(MetaError::Unknown)
        } else {
            let done = self.meta.apply(self.now, request).map_err(|refused| MetaError::Refused(refused.to_string()));
            if faulty { Err(MetaError::Unknown) } else { done }
        };
        let delay = self.rng.between(100, 5_000);
        self.after(delay, What::Meta { osd, incarnation, id, result });
    }

    // ---- the monitor ----

    fn current_map(&self) -> (PgMap, u64) {
        let kvs = self.meta.range(&meta::Span::one(keys::pg_map(PG.pool, 0)), 0).expect("never compacted");
        match kvs.first() {
            None => (PgMap::default(), 0),
            Some(kv) => {
                let chunk: PgMapChunk = serde_json::from_slice(&kv.value).unwrap();
                (chunk.0[&PG.number].clone(), kv.mod_revision)
            }
        }
    }

    fn recorded(&self) -> History {
        let kvs = self.meta.range(&meta::Span::one(keys::pg_history(PG)), 0).expect("never compacted");
        kvs.first().map(|kv| serde_json::from_slice(&kv.value).unwrap()).unwrap_or_default()
    }

    fn member(&self, osd: usize) -> ActingMember {
        ActingMember {
            osd: osd_id(osd),
            store: self.osds[osd].uuid,
            incarnation: Incarnation(self.osds[osd].incarnation),
        }
    }

    fn wishes(&self, primary: Option<OsdId>) -> Vec<OsdId> {
        let osd = primary.map(|osd| osd.0 as usize);
        let groups = osd.and_then(|osd| self.osds[osd].groups.as_ref());
        groups.and_then(|groups| groups.get(PG)?.wish()).map(|wish| wish.without).unwrap_or_default()
    }

    fn new_map(&mut self) {
        let (old, _) = self.current_map();
        let unwanted = self.wishes(old.primary);
        let mut up: Vec<usize> = (0..self.osds.len())
            .filter(|osd| self.is_up(*osd) && (self.healing || !unwanted.contains(&osd_id(*osd))))
            .collect();
        if !self.healing {
            for index in 0..up.len() {
                let other = self.rng.below(up.len() as u64) as usize;
                up.swap(index, other);
            }
            // Mostly those that serve already.
            if self.rng.chance(2, 3) {
                up.sort_by_key(|osd| {
                    let cut_off = self.osds[*osd].cut_off_until > self.now;
                    (cut_off, !old.acting.iter().flatten().any(|member| member.osd == osd_id(*osd)))
                });
            }
        }
        let (least, most) = (self.shape.pool.pg_minsize, self.shape.pool.pg_size);
        let size = if self.healing { most.into() } else { self.rng.between(least.into(), most.into()) as usize };
        up.truncate(size);
        let acting = if self.shape.is_replicated() {
            up.iter().map(|osd| Some(self.member(*osd))).collect()
        } else {
            self.in_roles(&old, &up)
        };
        let members: Vec<ActingMember> = acting.iter().copied().flatten().collect();
        let primary =
            if members.is_empty() { None } else { Some(members[self.rng.below(members.len() as u64) as usize]) };
        let primary = if self.healing { members.first().copied() } else { primary };
        let map = PgMap {
            epoch: Epoch(old.epoch.0 + 1),
            target: Vec::new(),
            acting,
            primary: primary.map(|member| member.osd),
            primary_since: Epoch(0),
        };
        let same = old.acting == map.acting && old.primary == map.primary;
        if same && (self.healing || self.rng.chance(3, 4)) {
            return;
        }
        self.log(|| format!("map {map:?}"));
        let chunk = PgMapChunk([(PG.number, map.clone())].into());
        let put =
            meta::TxnOp::Put { key: keys::pg_map(PG.pool, 0), value: serde_json::to_vec(&chunk).unwrap(), lease: 0 };
        let txn = meta::Txn { compare: Vec::new(), success: vec![put], failure: Vec::new() };
        self.meta.apply(self.now, meta::Request::Txn(txn)).unwrap();
        let (_, revision) = self.current_map();
        for osd in 0..self.osds.len() {
            let incarnation = self.osds[osd].incarnation;
            let delay =
                if self.rng.chance(1, 4) { self.rng.between(1_000, 600_000) } else { self.rng.between(100, 3_000) };
            self.after(delay, What::Notice { osd, incarnation, map: map.clone(), revision });
        }
        for client in 0..CLIENTS {
            let delay = if self.rng.chance(1, 2) { 500_000 } else { 20_000 };
            let delay = self.rng.between(100, delay);
            self.after(delay, What::ClientMap { client, map: map.clone() });
        }
    }

    /// Gives roles, mostly the old ones.
    fn in_roles(&mut self, old: &PgMap, osds: &[usize]) -> Vec<Option<ActingMember>> {
        let mut acting = vec![None; self.shape.pool.pg_size.into()];
        let mut rest = Vec::new();
        for osd in osds {
            let role = old.acting.iter().position(|member| member.is_some_and(|member| member.osd == osd_id(*osd)));
            match role {
                Some(role) if self.rng.chance(9, 10) => acting[role] = Some(self.member(*osd)),
                _ => rest.push(*osd),
            }
        }
        for osd in rest {
            let free: Vec<usize> = (0..acting.len()).filter(|role| acting[*role].is_none()).collect();
            let role = free[self.rng.below(free.len() as u64) as usize];
            acting[role] = Some(self.member(osd));
        }
        acting
    }

    // ---- faults ----

    fn fault(&mut self) {
        if self.healing {
            return;
        }
        let osd = self.rng.below(self.osds.len() as u64) as usize;
        let other = self.rng.below(self.osds.len() as u64) as usize;
        match self.rng.below(6) {
            0 if self.faults.maps => self.new_map(),
            1 if self.faults.crashes => {
                self.crash(osd);
                let delay = self.rng.between(1_000, 400_000);
                self.after(delay, What::Restart { osd });
                if self.rng.chance(1, 4) {
                    self.crash(other);
                    self.after(delay / 2, What::Restart { osd: other });
                }
            }
            2 if self.faults.links && self.rng.chance(1, 2) => {
                let until = self.now + Duration::micros(self.rng.between(50_000, 700_000));
                self.log(|| format!("osd.{osd} is cut off until {}", until.0 / 1_000_000));
                self.osds[osd].cut_off_until = until;
                for other in 0..self.osds.len() {
                    self.unlink(osd, other);
                    self.at(until, What::LinkUp { a: osd, b: other });
                }
                let delay = self.rng.between(1_000, 100_000);
                self.after(delay, What::NewMap);
            }
            2 | 3 if self.faults.links => {
                self.unlink(osd, other);
                let delay = if self.rng.chance(1, 2) { 2_000 } else { self.rng.between(1_000, 300_000) };
                self.after(delay, What::LinkUp { a: osd, b: other });
            }
            4 if self.faults.pauses => {
                let until = self.now + Duration::micros(self.rng.between(1_000, 400_000));
                self.log(|| format!("osd.{osd} pauses"));
                self.osds[osd].paused_until = until;
                self.at(until, What::Resume);
                let delay = self.rng.between(1_000, 100_000);
                self.after(delay, What::NewMap);
            }
            5 if self.faults.full && self.is_up(osd) => {
                let full = self.rng.chance(1, 3);
                self.osds[osd].groups.as_mut().expect("up").store_mut().set_full(full);
            }
            _ => {}
        }
        let delay = self.rng.between(2_000, 60_000);
        self.after(delay, What::Fault);
    }

    // ---- clients ----

    fn client_step(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if client.op.is_some() || client.left == 0 {
            return;
        }
        client.left -= 1;
        let stripe = if self.faults.lazy { index as u64 } else { self.rng.below(OBJECTS) };
        if stripe >= OBJECTS {
            client.left = 0;
            return;
        }
        let value = self.called as u64 + 1;
        let (slots, offset, len) = self.draw_range();
        let bytes = self.register_bytes(&slots, offset, len, value);
        let client = &mut self.clients[index];
        let mut covered = slots;
        let op = match self.rng.below(10) {
            3 if self.shape.slots.len() > 1 && self.rng.chance(1, 2) => RequestOp::BlockStatus { offset, len },
            0..4 => RequestOp::Read { offset, len },
            4 if self.shape.slots.len() > 1 && self.rng.chance(1, 2) => RequestOp::Zero { offset, len },
            4 => {
                covered = 0..self.shape.slots.len();
                RequestOp::Delete { expect: None }
            }
            5 | 6 if client.versions.contains_key(&stripe) => {
                RequestOp::Write { offset, data: bytes, expect: client.versions.get(&stripe).copied() }
            }
            _ => RequestOp::Write { offset, data: bytes, expect: None },
        };
        client.slots = covered.clone();
        let is_write = op.is_write();
        let number = if is_write {
            client.number += 1;
            client.number
        } else {
            client.reads += 1;
            1 << 63 | client.reads
        };
        let session = Session { client: ClientId(index as u64), number: 1 };
        client.op = Some((stripe, self.called));
        client.request = Some(Request {
            id: RequestId { session, number },
            seen: client.number - u64::from(is_write),
            object: object(stripe),
            epoch: Epoch(0),
            class: Default::default(),
            tenant: 0,
            op,
        });
        client.tries = 0;
        client.sent_epoch = Epoch(u64::MAX);
        let text = format!("client {index}: {:?}", client.request.as_ref().unwrap());
        self.log(|| text);
        for slot in covered {
            self.history.entry(register(stripe, slot)).or_default().push(Moment::Call(self.called));
        }
        self.called += 1;
        self.client_send(index);
    }

    /// Registers, and the range from the first to the last of them.
    fn draw_range(&mut self) -> (std::ops::Range<usize>, u32, u32) {
        let slots = &self.shape.slots;
        if slots.len() == 1 {
            return (0..1, 0, 512);
        }
        if self.rng.chance(1, 8) {
            return (0..slots.len(), 0, self.shape.pool.object_bytes());
        }
        let first = self.rng.below(slots.len() as u64) as usize;
        let last =
            if self.rng.chance(1, 2) { first } else { self.rng.between(first as u64, slots.len() as u64 - 1) as usize };
        (first..last + 1, slots[first], slots[last] + 512 - slots[first])
    }

    /// A body with a value in each register of a range.
    fn register_bytes(&mut self, slots: &std::ops::Range<usize>, offset: u32, len: u32, value: u64) -> Data {
        let mut buf = self.bufs.zeroed(len);
        for slot in slots.clone() {
            let at = (self.shape.slots[slot] - offset) as usize;
            buf.bytes_mut()[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        Data::new(self.bufs.freeze(buf))
    }

    /// What an answer says of each register that the operation is about.
    fn actions(&self, index: usize, request: &Request, answer: &Answer) -> Vec<(usize, Option<Action>)> {
        let slots = self.clients[index].slots.clone();
        let at = |slot: usize, offset: u32| self.shape.slots[slot] - offset;
        let action = |slot: usize| match (&request.op, answer) {
            (RequestOp::Read { offset, .. }, Answer::Read { data, .. }) => {
                Some(Action::Read(value_at(data, at(slot, *offset))))
            }
            (RequestOp::BlockStatus { offset, .. }, Answer::BlockStatus { bitmap, .. }) => {
                // What was never written is zero; what was may be, too.
                (!bitmap.get(at(slot, *offset) / 512)).then_some(Action::Read(0))
            }
            (RequestOp::Write { offset, data, .. }, Answer::Written { .. }) => {
                Some(Action::Write(value_at(data, at(slot, *offset))))
            }
            (RequestOp::Zero { .. } | RequestOp::Delete { .. }, Answer::Written { .. }) => Some(Action::Write(0)),
            other => panic!("client {index} got {other:?}"),
        };
        slots.map(|slot| (slot, action(slot))).collect()
    }

    /// An operation of a client ended; what it did to each register, or that it did nothing.
    fn ended(&mut self, index: usize, stripe: u64, op: usize, actions: Option<Vec<(usize, Option<Action>)>>) {
        let actions = actions.unwrap_or_else(|| self.clients[index].slots.clone().map(|slot| (slot, None)).collect());
        for (slot, action) in actions {
            let moments = self.history.get_mut(&register(stripe, slot)).expect("called before");
            match action {
                Some(action) => moments.push(Moment::Return(op, action)),
                None => moments.retain(|moment| *moment != Moment::Call(op)),
            }
        }
    }

    fn client_send(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if client.unsynced.is_some() && client.sent_epoch != client.map.epoch {
            // What was acknowledged may be lost: the write goes again, with its number.
            client.request = client.unsynced.take();
            client.sent_epoch = client.map.epoch;
        }
        client.sent_epoch = client.sent_epoch.min(client.map.epoch);
        let Some(mut request) = client.request.clone() else { return };
        request.epoch = client.map.epoch;
        client.tries += 1;
        let (number, tries) = (request.id.number, client.tries);
        if client.tries > 1 && self.rng.chance(1, 3) {
            client.conn += 1;
        }
        let link = LinkId(client.conn << 8 | index as u64);
        let primary = client.map.primary;
        if let Some(primary) = primary {
            let to = primary.0 as usize;
            let lost = self.faults.links && !self.healing && self.rng.chance(1, 10);
            if !lost {
                self.deliver(LinkId(link.0 | 1 << 30), What::Message { to, link, msg: Message::Request(request) });
            }
        }
        let timeout = self.rng.between(5_000, 150_000);
        self.after(timeout, What::ClientTimeout { client: index, number, tries });
    }

    fn client_reply(&mut self, index: usize, reply: Reply) {
        let client = &mut self.clients[index];
        let Some(request) = &client.request else { return };
        if request.id != reply.id {
            return;
        }
        if !self.healing && self.faults.links && self.rng.chance(1, 10) {
            return;
        }
        let (stripe, op) = client.op.expect("has a request");
        let request = request.clone();
        let actions = match reply.outcome {
            Ok(Answer::Applied { version }) => {
                client.versions.insert(stripe, version);
                return self.sync(index);
            }
            Ok(Answer::Synced) => {
                let written = client.unsynced.take().expect("it was being synced");
                Some(self.actions(index, &written, &Answer::Written { version: Version::NONE }))
            }
            Ok(answer) => {
                match answer {
                    Answer::Read { version, .. } | Answer::Written { version } => {
                        client.versions.insert(stripe, version);
                    }
                    _ => {}
                }
                Some(self.actions(index, &request, &answer))
            }
            Err(Refusal::VersionMismatch(version)) => {
                client.versions.insert(stripe, version);
                None
            }
            Err(Refusal::NoSpace) => None,
            Err(Refusal::WrongEpoch(_) | Refusal::NotPrimary | Refusal::Again) => {
                let tries = client.tries;
                let number = request.id.number;
                let delay = self.rng.between(1_000, 20_000);
                self.after(delay, What::ClientTimeout { client: index, number, tries });
                return;
            }
            other => panic!("client {index} got {other:?}"),
        };
        self.log(|| format!("client {index}: op {op} on {stripe}: {actions:?}"));
        self.ended(index, stripe, op, actions);
        let client = &mut self.clients[index];
        client.request = None;
        client.op = None;
        self.next_step(index);
    }

    /// A write was acknowledged that may be lost.
    fn sync(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.reads += 1;
        let written = client.request.take().expect("it was answered");
        let id = RequestId { number: 1 << 63 | client.reads, ..written.id };
        client.request = Some(Request { id, op: RequestOp::Sync, ..written.clone() });
        client.unsynced = Some(written);
        client.tries = 0;
        self.client_send(index);
    }

    fn next_step(&mut self, index: usize) {
        // Spread over the time of the faults.
        let longest = if self.rng.chance(1, 2) { 2_000 } else { 90_000 };
        let delay = self.rng.between(10, longest);
        self.after(delay, What::ClientStep { client: index });
    }

    // ---- running ----

    fn is_paused(&self, what: &What) -> Option<Time> {
        let osd = match what {
            What::Message { to, .. } => *to,
            What::Meta { osd, .. } | What::Notice { osd, .. } | What::Round { osd } | What::Beat { osd, .. } => *osd,
            _ => return None,
        };
        Some(self.osds[osd].paused_until).filter(|until| *until > self.now)
    }

    fn step(&mut self) -> bool {
        let Some(((at, sequence), what)) = self.queue.pop_first() else { return false };
        self.now = self.now.max(at);
        if let Some(until) = self.is_paused(&what) {
            // The sequence stays: order is kept.
            self.queue.insert((until, sequence), what);
            return true;
        }
        match what {
            What::Message { to, link, msg } => self.message(to, link, msg),
            What::Reply { client: TESTER, reply, .. } => self.answer = Some(reply),
            What::Reply { client, link, reply } => {
                if link.0 >> 8 == self.clients[client].conn {
                    self.client_reply(client, reply);
                }
            }
            What::Meta { osd, incarnation, id, result } => {
                if self.osds[osd].incarnation == incarnation {
                    self.with(osd, |groups, env| {
                        groups.meta_done(env, id, result);
                    });
                }
            }
            What::Notice { osd, incarnation, map, revision } => self.notice(osd, incarnation, map, revision),
            What::Round { osd } => {
                self.osds[osd].ticks.retain(|at| *at > self.now);
                self.with(osd, |groups, env| {
                    groups.tick(env);
                    groups.store_mut().end_of_round(env);
                });
            }
            What::Beat { osd, incarnation } => self.beat(osd, incarnation),
            What::Restart { osd } => {
                if !self.is_up(osd) {
                    self.lose_store(osd);
                    self.start(osd);
                }
            }
            What::Crash { osd } => {
                if !self.healing {
                    self.crash(osd);
                    let delay = self.rng.between(1_000, 700_000);
                    self.after(delay, What::Restart { osd });
                }
            }
            What::LinkUp { a, b } => self.link(a, b),
            What::Resume => {}
            What::NewMap => self.new_map(),
            What::ClientMap { client, map } => {
                if map.epoch > self.clients[client].map.epoch {
                    self.clients[client].map = map;
                }
            }
            What::ClientStep { client } => self.client_step(client),
            What::ClientTimeout { client, number, tries } => {
                let entry = &mut self.clients[client];
                if entry.tries == tries && entry.request.as_ref().is_some_and(|request| request.id.number == number) {
                    if !self.healing && tries > 1 && self.rng.chance(1, 3) {
                        return self.abandon(client);
                    }
                    if self.healing || self.rng.chance(1, 3) {
                        self.clients[client].map = self.current_map().0;
                    }
                    self.client_send(client);
                }
            }
            What::Fault => self.fault(),
        }
        true
    }

    fn abandon(&mut self, index: usize) -> bool {
        let client = &mut self.clients[index];
        // A deletion that may happen any time cannot be told from others: too many explanations.
        let op = client.request.as_ref().map(|request| &request.op);
        let deletes = matches!(op, Some(RequestOp::Delete { .. } | RequestOp::Zero { .. }));
        if deletes || self.faults.lazy {
            self.client_send(index);
            return true;
        }
        let request = client.request.take().expect("a request timed out");
        let (stripe, op) = client.op.take().expect("has a request");
        for slot in client.slots.clone() {
            let moments = self.history.get_mut(&register(stripe, slot)).expect("called before");
            match &request.op {
                RequestOp::Write { offset, data, .. } => {
                    let value = value_at(data, self.shape.slots[slot] - offset);
                    moments.push(Moment::Abandon(op, Action::Write(value)));
                }
                _ => moments.retain(|moment| *moment != Moment::Call(op)),
            }
        }
        self.log(|| format!("client {index}: op {op} on {stripe} is abandoned"));
        self.after(1_000, What::ClientStep { client: index });
        true
    }

    fn message(&mut self, to: usize, link: LinkId, msg: Message) {
        match msg {
            Message::Request(request) => {
                let session = request.id.session;
                self.with(to, |groups, env| {
                    groups.with(env, PG, |pg, host| pg.request(host, link, session, request));
                });
            }
            Message::Pg(msg) => {
                let from = (link.0 & 0xff) as usize;
                if self.link_id(to, from) == Some(link) {
                    self.pg_message(to, from, link, msg);
                }
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    fn pg_message(&mut self, to: usize, from: usize, link: LinkId, msg: PgMessage) {
        let peer = osd_id(from);
        self.with(to, |groups, env| match msg {
            PgMessage::SubOp { attempt, call, op, .. } => {
                groups.with(env, PG, |pg, host| pg.sub_op(host, peer, attempt, call, op));
            }
            PgMessage::SubReply { attempt, call, reply, .. } => {
                groups.with(env, PG, |pg, host| pg.sub_reply(host, peer, attempt, call, reply));
            }
            PgMessage::Stray { .. } => {
                groups.with(env, PG, |pg, host| pg.stray(host, peer));
            }
            PgMessage::Heartbeat { sent, lease, groups: entries } => {
                let now = env.now;
                let granted = entries
                    .into_iter()
                    .filter(|(pg, attempt)| {
                        groups.with(env, *pg, |pg, _| pg.grant_lease(now, *attempt, lease)) == Some(true)
                    })
                    .collect();
                env.out.send(link, Message::Pg(PgMessage::HeartbeatAck { sent, lease, groups: granted }));
            }
            PgMessage::HeartbeatAck { sent, lease, groups: entries } => {
                for (pg, attempt) in entries {
                    groups.with(env, pg, |pg, host| pg.lease_granted(host, peer, attempt, sent, lease));
                }
            }
        });
    }

    fn notice(&mut self, osd: usize, incarnation: u64, map: PgMap, revision: u64) {
        if self.osds[osd].incarnation != incarnation || !self.is_up(osd) {
            return;
        }
        if self.osds[osd].cut_off_until > self.now {
            return self.at(self.osds[osd].cut_off_until, What::Notice { osd, incarnation, map, revision });
        }
        // The first one stands for a linearizable read.
        let first = !std::mem::replace(&mut self.osds[osd].read_map, true);
        let (map, revision) = if first { self.current_map() } else { (map, revision) };
        if map.epoch != Epoch(0) {
            self.with(osd, |groups, env| {
                groups.with(env, PG, |pg, host| pg.map_changed(host, &map, Revision(revision)));
            });
        }
        if first {
            for other in 0..self.osds.len() {
                self.link(osd, other);
            }
        }
    }

    fn beat(&mut self, osd: usize, incarnation: u64) {
        if self.osds[osd].incarnation != incarnation || !self.is_up(osd) {
            return;
        }
        self.after(LEASE.0 / 4_000, What::Beat { osd, incarnation });
        self.with(osd, |groups, env| {
            let Some(pg) = groups.get(PG) else { return };
            let Some(attempt) = pg.serving() else { return };
            let members = pg.heartbeat_members().to_vec();
            for member in members {
                if let Some(link) = groups.node_mut().link(member) {
                    let beat = PgMessage::Heartbeat { sent: env.now, lease: LEASE, groups: vec![(PG, attempt)] };
                    env.out.send(link, Message::Pg(beat));
                }
            }
        });
    }

    /// Sends one request of the test itself, and gives the answer. Refusals that ask for a retry are retried.
    pub fn ask(&mut self, stripe: u64, op: RequestOp) -> Result<Answer, Refusal> {
        self.asked += 1;
        self.ask_again(stripe, op)
    }

    /// Sends the test's last request again.
    pub fn ask_again(&mut self, stripe: u64, op: RequestOp) -> Result<Answer, Refusal> {
        let session = Session { client: ClientId(TESTER as u64), number: 1 };
        for _ in 0..1000 {
            let (map, _) = self.current_map();
            let request = Request {
                id: RequestId { session, number: self.asked },
                seen: 0,
                object: object(stripe),
                epoch: map.epoch,
                class: Default::default(),
                tenant: 0,
                op: op.clone(),
            };
            let link = LinkId(1 << 8 | TESTER as u64);
            let to = map.primary.expect("somebody is primary").0 as usize;
            self.answer = None;
            self.at(self.now, What::Message { to, link, msg: Message::Request(request) });
            let end = self.now + Duration::millis(50);
            while self.answer.is_none() && self.now < end && self.step() {}
            match self.answer.take().map(|reply| reply.outcome) {
                None | Some(Err(Refusal::WrongEpoch(_) | Refusal::NotPrimary | Refusal::Again)) => {}
                Some(outcome) => return outcome,
            }
        }
        panic!("no answer to {op:?}")
    }

    /// Sends writes of the test itself, one after the other without a pause, and waits for all.
    pub fn write_at_once(&mut self, stripe: u64, writes: &[(u32, u32)]) {
        let session = Session { client: ClientId(TESTER as u64), number: 1 };
        let (map, _) = self.current_map();
        let to = map.primary.expect("somebody is primary").0 as usize;
        for (offset, len) in writes {
            self.asked += 1;
            let data = Data::new(self.bufs.zeroed(*len).freeze());
            let request = Request {
                id: RequestId { session, number: self.asked },
                seen: 0,
                object: object(stripe),
                epoch: map.epoch,
                class: Default::default(),
                tenant: 0,
                op: RequestOp::Write { offset: *offset, data, expect: None },
            };
            let link = LinkId(1 << 8 | TESTER as u64);
            self.at(self.now, What::Message { to, link, msg: Message::Request(request) });
        }
        for _ in writes {
            self.answer = None;
            while self.answer.is_none() && self.step() {}
            let outcome = self.answer.take().map(|reply| reply.outcome);
            assert!(matches!(outcome, Some(Ok(Answer::Written { .. }))), "{outcome:?}");
        }
    }

    /// The primary's role.
    pub fn primary_role(&self) -> u8 {
        self.role_of(self.acting()[0].0 as usize).0
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end && self.step() {}
    }

    /// Writes a value, as the test itself.
    pub fn try_put(&mut self, stripe: u64, value: u64) -> Result<Answer, Refusal> {
        let data = sector(&mut self.bufs, value);
        self.ask(stripe, RequestOp::Write { offset: 0, data, expect: None })
    }

    /// The same; it must succeed.
    pub fn put(&mut self, stripe: u64, value: u64) {
        self.try_put(stripe, value).expect("a write succeeds");
    }

    /// All stores refuse new objects, or no longer.
    pub fn set_full(&mut self, full: bool) {
        for osd in &mut self.osds {
            osd.groups.as_mut().expect("up").store_mut().set_full(full);
        }
    }

    /// Reads a value, as the test itself.
    pub fn get(&mut self, stripe: u64) -> Result<u64, Refusal> {
        let answer = self.ask(stripe, RequestOp::Read { offset: 0, len: 512 })?;
        let Answer::Read { data, .. } = answer else { panic!("{answer:?}") };
        Ok(value_of(&data))
    }

    /// Damages the copy of an acting member.
    pub fn damage(&mut self, stripe: u64, osd: OsdId) {
        let role = self.role_of(osd.0 as usize);
        let groups = self.osds[osd.0 as usize].groups.as_mut().expect("up");
        groups.store_mut().damage(CopyId { object: object(stripe), role });
    }

    fn store_of(&mut self, osd: OsdId) -> &mut ModelStore {
        self.osds[osd.0 as usize].groups.as_mut().expect("up").store_mut()
    }

    /// Alters the copy of an acting member, with matching checksums.
    pub fn alter(&mut self, stripe: u64, osd: OsdId) {
        let role = self.role_of(osd.0 as usize);
        self.store_of(osd).alter(CopyId { object: object(stripe), role });
    }

    /// Loses the copy of an acting member.
    pub fn lose(&mut self, stripe: u64, osd: OsdId) {
        let role = self.role_of(osd.0 as usize);
        self.store_of(osd).lose(CopyId { object: object(stripe), role });
    }

    /// Whether an acting member knows that its copy is damaged.
    pub fn is_damaged(&mut self, stripe: u64, osd: OsdId) -> bool {
        let role = self.role_of(osd.0 as usize);
        let info = self.store_of(osd).lookup(CopyId { object: object(stripe), role });
        info.and_then(|info| info.committed).is_some_and(|info| info.damaged)
    }

    /// Of the content of an acting member's copy.
    pub fn fingerprint(&mut self, stripe: u64, osd: OsdId) -> Option<u64> {
        let copy = CopyId { object: object(stripe), role: Role(0) };
        self.store_of(osd).contents(copy).next().map(|(_, fingerprint)| fingerprint)
    }

    /// Who holds a role.
    pub fn holder_of(&self, role: u8) -> OsdId {
        self.current_map().0.acting[usize::from(role)].expect("nobody is missing").osd
    }

    /// Orders a scrub.
    pub fn order_scrub(&mut self, order: ScrubOrder) {
        self.asked += 1;
        let (osd, order) = (self.acting()[0].0 as usize, Some((order, self.asked)));
        self.marks.remove("a scrub has come to its end");
        self.with(osd, |groups, env| {
            groups.with(env, PG, |pg, host| pg.scrub_ordered(host, order));
        });
    }

    /// Orders a scrub, and goes on until it has come to its end.
    pub fn scrub(&mut self, order: ScrubOrder) {
        self.order_scrub(order);
        let end = self.now + Duration::secs(60);
        while self.now < end && !self.marks.contains("a scrub has come to its end") && self.step() {}
        assert!(self.now < end, "the scrub does not end");
    }

    /// The acting members, the primary first.
    pub fn acting(&self) -> Vec<OsdId> {
        let (map, _) = self.current_map();
        let mut acting: Vec<OsdId> = map.acting.iter().flatten().map(|member| member.osd).collect();
        acting.sort_by_key(|osd| Some(*osd) != map.primary);
        acting
    }

    /// The primary's view of the group.
    pub fn summary(&self) -> crate::pg::Summary {
        self.primary().and_then(|pg| pg.summary()).expect("somebody is primary")
    }

    pub fn run_with_faults(&mut self) {
        let end = self.now + Duration::millis(3_000);
        while self.now < end && self.step() {}
    }

    /// Ends all faults; everything must become clean and every operation return.
    pub fn heal(&mut self) -> Result<(), String> {
        self.log(|| "healing".into());
        self.healing = true;
        for osd in &mut self.osds {
            osd.cut_off_until = self.now;
        }
        for osd in 0..self.osds.len() {
            if !self.is_up(osd) {
                self.start(osd);
            }
            self.osds[osd].groups.as_mut().expect("up").store_mut().set_full(false);
        }
        self.new_map();
        let end = self.now + Duration::secs(100);
        while self.now < end && !self.is_settled() {
            if self.links.len() < self.osds.len() * (self.osds.len() - 1) / 2 {
                for (a, b) in (0..self.osds.len()).flat_map(|a| (0..a).map(move |b| (a, b))) {
                    self.link(a, b);
                }
            }
            if !self.step() {
                break;
            }
        }
        if self.is_settled() { Ok(()) } else { Err(self.stuck()) }
    }

    fn primary(&self) -> Option<&crate::pg::Pg> {
        let (map, _) = self.current_map();
        self.osds[map.primary?.0 as usize].groups.as_ref()?.get(PG)
    }

    fn is_settled(&self) -> bool {
        let done = self.clients.iter().all(|client| client.left == 0 && client.op.is_none());
        let epoch = self.current_map().0.epoch;
        let summary = self.primary().and_then(|pg| pg.summary());
        let clean = summary.is_some_and(|summary| summary.clean && summary.epoch == epoch);
        done && clean && (0..self.osds.len()).all(|osd| self.holds_its_role_only(osd))
    }

    fn stuck(&self) -> String {
        let summary = self.primary().map(|pg| pg.summary());
        let clients: Vec<_> = self.clients.iter().map(|client| (client.left, &client.request)).collect();
        format!("stuck: {summary:?}, {:?}, {:?}, clients {clients:?}", self.current_map(), self.recorded())
    }

    /// The role of an acting OSD.
    fn role_of(&self, osd: usize) -> Role {
        let acting = self.current_map().0.acting;
        let place = acting.iter().position(|member| member.is_some_and(|member| member.osd == osd_id(osd)));
        let role = place.filter(|_| !self.shape.is_replicated()).unwrap_or(0);
        Role(u8::try_from(role).unwrap())
    }

    fn holds_its_role_only(&self, osd: usize) -> bool {
        let acts = self.current_map().0.acting.iter().flatten().any(|member| member.osd == osd_id(osd));
        let roles = self.osds[osd].groups.as_ref().expect("up").store().roles(PG.pool, HashRange::ALL);
        roles.iter().all(|role| acts && *role == self.role_of(osd))
    }

    fn copies(&self, osd: usize) -> Vec<CopyInfo> {
        let mut copies = Vec::new();
        let groups = self.osds[osd].groups.as_ref().expect("up");
        groups.store().list(PG.pool, self.role_of(osd), HashRange::ALL, None, 1000, &mut copies);
        copies
    }

    /// Objects of an OSD: newest version, and whether it is a tombstone.
    fn newest(&self, osd: usize) -> Vec<(ObjectId, Version, bool)> {
        let newest = |info: CopyInfo| {
            let newest = info.prepared.or(info.committed).expect("one of them");
            (info.copy.object, newest.version, newest.tombstone)
        };
        self.copies(osd).into_iter().map(newest).collect()
    }

    /// The bytes of a copy's newest version.
    fn bytes(&mut self, osd: usize, object: ObjectId) -> Vec<u8> {
        let copy = CopyId { object, role: self.role_of(osd) };
        let mut store = self.osds[osd].groups.as_ref().expect("up").store().clone();
        while store.is_busy() {
            let mut out = Effects::default();
            store.end_of_round(&mut Env { now: self.now, rng: &mut self.rng, bufs: &mut self.bufs, out: &mut out });
        }
        while store.next_completion().is_some() {}
        let mut out = Effects::default();
        let mut env = Env { now: self.now, rng: &mut self.rng, bufs: &mut self.bufs, out: &mut out };
        store.submit(&mut env, 0, StoreOp::ReadAll { copy, version: None });
        (0..10).for_each(|_| store.end_of_round(&mut env));
        match store.next_completion().expect("some rounds later").result {
            Ok(StoreReply::Whole { content: Content::Data { data, .. }, .. }) => data.buf.bytes().to_vec(),
            other => panic!("{copy:?}: {other:?}"),
        }
    }

    /// Parity must follow from data, in every stripe.
    fn check_parity(&mut self) -> Result<(), String> {
        let pool = self.shape.pool.clone();
        let code = crate::ec::code(pool.data_chunks(), pool.parity_chunks, pool.scheme == Scheme::Xor);
        let acting = self.current_map().0.acting;
        let osds: Vec<usize> = acting.iter().map(|member| member.expect("all up").osd.0 as usize).collect();
        for (object, version, _) in self.newest(osds[0]).into_iter().filter(|(_, _, tombstone)| !tombstone) {
            let mut chunks: Vec<Vec<u8>> = osds.iter().map(|osd| self.bytes(*osd, object)).collect();
            chunks.iter_mut().for_each(|bytes| bytes.resize(BLOCK as usize, 0));
            for parity in pool.data_chunks()..pool.pg_size {
                let mut made = vec![0; BLOCK as usize];
                (0..pool.data_chunks()).for_each(|data| code.add(data, &chunks[usize::from(data)], parity, &mut made));
                if made != chunks[usize::from(parity)] {
                    return Err(format!("{object:?} at {version}: parity {parity} does not fit the data"));
                }
            }
        }
        Ok(())
    }

    pub fn verdict(&mut self) -> Result<(), String> {
        if let Some(problem) = self.problem.take() {
            return Err(problem);
        }
        for (stripe, moments) in &mut self.history {
            forget_unseen(moments);
            if let Err(index) = linearizable(moments) {
                let from = index.saturating_sub(12);
                return Err(format!("object {stripe} is not linearizable at {:?}", &moments[from..=index]));
            }
        }
        for osd in &self.osds {
            let pg = osd.groups.as_ref().and_then(|groups| groups.get(PG));
            let report = pg.and_then(|pg| pg.summary()).unwrap_or_default().scrub;
            if report.inconsistent + report.damaged + report.outdated > 0 {
                return Err(format!("a scrub found what nobody did: {report:?}"));
            }
        }
        self.verdict_of_copies()
    }

    /// Whether the acting members have the same, and all that was acknowledged.
    pub fn verdict_of_copies(&mut self) -> Result<(), String> {
        let first = self.newest(0);
        for osd in 1..usize::from(self.shape.pool.pg_size) {
            let other = self.newest(osd);
            if first != other {
                return Err(format!("osd.0 has {first:?}, osd.{osd} has {other:?}"));
            }
        }
        for (object, version, _) in &first {
            let acknowledged = self.acknowledged.get(object).copied().unwrap_or(Version::NONE);
            if *version < acknowledged {
                return Err(format!("{object:?} is at {version}, but {acknowledged} was acknowledged"));
            }
        }
        if self.shape.is_replicated() { Ok(()) } else { self.check_parity() }
    }
}

/// What an order to a member is, if it concerns clients' data.
fn order_of(msg: &Message) -> Option<(&'static str, u8)> {
    let Message::Pg(PgMessage::SubOp { op, .. }) = msg else { return None };
    match op {
        SubOp::Write { copy, change: Change::Nothing, .. } => Some(("version", copy.role.0)),
        SubOp::Write { copy, .. } => Some(("data", copy.role.0)),
        SubOp::Read { copy, .. } => Some(("read", copy.role.0)),
        SubOp::Commit { role, .. } => Some(("commit", role.0)),
        SubOp::Purge { copy, .. } => Some(("purge", copy.role.0)),
        _ => None,
    }
}

/// The version that an order of resolve installs.
fn resolved_by(msg: &Message) -> Option<(ObjectId, Version)> {
    match msg {
        Message::Pg(PgMessage::SubOp {
            op: SubOp::Install { purpose: Purpose::Resolve, copy, version, .. }, ..
        }) => Some((copy.object, *version)),
        _ => None,
    }
}

/// An abandoned write that nobody saw explains nothing.
fn forget_unseen(moments: &mut Vec<Moment>) {
    let seen: BTreeSet<u64> = moments
        .iter()
        .filter_map(|moment| match moment {
            Moment::Return(_, Action::Read(value)) => Some(*value),
            _ => None,
        })
        .collect();
    let unseen: BTreeSet<usize> = moments
        .iter()
        .filter_map(|moment| match moment {
            Moment::Abandon(op, Action::Write(value)) if !seen.contains(value) => Some(*op),
            _ => None,
        })
        .collect();
    moments.retain(|moment| match moment {
        Moment::Call(op) | Moment::Abandon(op, _) => !unseen.contains(op),
        Moment::Return(..) => true,
    });
}

fn value_of(data: &Data) -> u64 {
    value_at(data, 0)
}

fn value_at(data: &Data, at: u32) -> u64 {
    u64::from_le_bytes(data.buf.bytes()[at as usize..][..8].try_into().unwrap())
}

/// Names a register of an object.
fn register(stripe: u64, slot: usize) -> u64 {
    stripe * 16 + slot as u64
}

fn sector(bufs: &mut BufPool, value: u64) -> Data {
    let mut buf = bufs.zeroed(512);
    buf.bytes_mut()[..8].copy_from_slice(&value.to_le_bytes());
    Data::new(bufs.freeze(buf))
}
