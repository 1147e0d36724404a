//! The world around one group.

use super::check::{Action, Moment, linearizable};
mod asking;
mod clients;
mod judging;
mod layouts;
mod maps;
mod removal;

use crate::buf::BufPool;
use crate::id::*;
use crate::io::{Effect, Effects, Env, Event, MetaError, MetaId, MetaOp};
use crate::map::access::Access;
use crate::map::{
    ActingMember, ClusterMap, History, ImmediateCommit, Layout, PGS_PER_CHUNK, PgMap, PgMapChunk, Pool, PoolLayout,
    Scheme, ScrubOrder, keys,
};
use crate::meta;
use crate::msg::{Answer, Fact, Message, Refusal, Reply, Request, RequestOp};
use crate::osd::groups::Groups;
use crate::pg::host::NodeView;
use crate::pg::msg::{Change, PgMessage, Purpose, SubOp, SubReply};
use crate::pg::pace::RecoverySlots;
use crate::rng::Rng;
use crate::store::model::{ModelStore, Space};
use crate::store::{Content, CopyInfo, Data, ObjectStore, StoreOp, StoreReply};
use crate::time::{Duration, Time};
use std::collections::{BTreeMap, BTreeSet};

const CLIENTS: usize = 4;
const OBJECTS: u64 = 3;
const POOL: PoolId = PoolId(1);
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
    /// Not a fault: the number of groups changes.
    pub counts: bool,
    /// Not a fault: the pool and most stores are lazy. Each client has its own object then, and syncs after each write.
    pub lazy: bool,
}

impl Faults {
    pub const ALL: Faults = Faults {
        maps: true,
        crashes: true,
        links: true,
        pauses: true,
        metadata: true,
        full: true,
        counts: false,
        lazy: false,
    };
}

enum What {
    Message { to: usize, link: LinkId, msg: Message },
    Reply { client: usize, link: LinkId, reply: Reply },
    Meta { osd: usize, incarnation: u64, id: MetaId, result: Result<meta::Response, MetaError> },
    Notice { osd: usize, incarnation: u64, view: View },
    Round { osd: usize },
    Beat { osd: usize, incarnation: u64 },
    Restart { osd: usize },
    Crash { osd: usize },
    LinkUp { a: usize, b: usize },
    Resume,
    NewMap,
    Relayout,
    ClientMap { client: usize, view: View },
    ClientStep { client: usize },
    ClientTimeout { client: usize, number: u64, tries: u32 },
    Fault,
}

/// What the metadata store says of the pool's groups at a moment.
#[derive(Clone, Debug, Default)]
struct View {
    layout: Layout,
    before: Option<Layout>,
    /// Of the groups that have one.
    maps: BTreeMap<PgNumber, PgMap>,
    /// Of the key that holds these.
    chunk_revision: u64,
    /// Of the moment.
    revision: u64,
}

impl View {
    fn map(&self, number: PgNumber) -> PgMap {
        self.maps.get(&number).cloned().unwrap_or_default()
    }
}

struct Osd {
    groups: Option<Groups<ModelStore>>,
    /// While it is down.
    store: Option<ModelStore>,
    uuid: StoreUuid,
    incarnation: u64,
    read_map: bool,
    /// Revision of the view that it heard of last.
    heard: u64,
    paused_until: Time,
    /// Until then it hears of nothing but clients.
    cut_off_until: Time,
    next_meta: u64,
    ticks: BTreeSet<Time>,
    /// The role that it had last.
    home: Option<usize>,
}

struct Client {
    view: View,
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
    /// The newest interval in which each object was served, with its version at the start.
    served: BTreeMap<ObjectId, (Epoch, Version)>,
    /// What the monitor knows; it may be behind.
    monitor: ClusterMap,
    pub problem: Option<String>,
    pub marks: BTreeSet<&'static str>,
    /// A store was lost with all that it held.
    recreated: bool,
    /// The answer to [`World::ask`].
    answer: Option<Reply>,
    /// Orders that went from an OSD to another: what, and to which role.
    pub orders: Vec<(&'static str, u8)>,
    /// Bytes of bodies that recovery moved from an OSD to another, as long as nobody reads chunks.
    pub recovered_bytes: u64,
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
        let pool = Pool { name: "p".into(), block_size: BLOCK, scrub_interval_s: 1, ..Pool::default() };
        Shape { pool, slots: vec![0] }
    }

    pub fn lazy() -> Self {
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
            heard: 0,
            paused_until: Time(0),
            cut_off_until: Time(0),
            next_meta: 0,
            ticks: BTreeSet::new(),
            home: None,
        };
        let client = || Client {
            view: View::default(),
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
            served: BTreeMap::new(),
            monitor: ClusterMap::default(),
            problem: None,
            marks: BTreeSet::new(),
            answer: None,
            recreated: false,
            orders: Vec::new(),
            recovered_bytes: 0,
            asked: 0,
            trace: std::env::var("PG_TRACE").is_ok(),
        };
        world.first_layout();
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
            layouts: BTreeMap::new(),
            osd: osd_id(osd),
            store: self.osds[osd].uuid,
            incarnation: Incarnation(incarnation),
            started: self.now,
            lease: LEASE,
            recovery_full_percent: 95,
            access: Access::default(),
            access_revision: Some(0),
            peers: BTreeMap::new(),
        };
        let groups = Groups::new(store, node, RecoverySlots::new(4, 200));
        let entry = &mut self.osds[osd];
        entry.groups = Some(groups);
        entry.incarnation = incarnation;
        entry.read_map = false;
        entry.heard = 0;
        entry.ticks.clear();
        let delay = self.rng.between(1_000, 30_000);
        let view = self.view();
        self.after(delay, What::Notice { osd, incarnation, view });
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
                let bytes = recovery_bytes(&msg);
                self.recovered_bytes += bytes;
                if bytes > 0 {
                    self.log(|| format!("osd.{osd} sends {bytes} bytes to osd.{peer}"));
                }
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
        } else if let Fact::Activated { pg, epoch, .. } = fact {
            self.activated(osd, pg, epoch);
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
    fn activated(&mut self, osd: usize, pg: PgId, epoch: Epoch) {
        let Some(groups) = &self.osds[osd].groups else { return };
        let layout = groups.node().layouts[&POOL].now;
        for object in (0..OBJECTS).map(object).filter(|object| layout.pg(*object) == pg) {
            let (before, old) = self.served.get(&object).copied().unwrap_or_default();
            if epoch <= before {
                continue;
            }
            let version = groups.get(pg).expect("it is served").version_of(groups.store(), object);
            if version.epoch == epoch {
                // Written already: what it came from is not known any more.
                self.served.insert(object, (epoch, version));
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
            self.served.insert(object, (epoch, if absent { Version::NONE } else { version }));
            let continues =
                old.epoch == before || version == old || version.epoch >= before || (absent && old.is_none());
            let acknowledged = self.acknowledged.get(&object).copied().unwrap_or_default();
            if !continues || (version < acknowledged && !(absent && version.is_none())) {
                let text = format!(
                    "{pg:?} epoch {epoch} starts with {object:?} at {version}; epoch {before} had started with {old}, \
                     {acknowledged} was acknowledged"
                );
                self.problem.get_or_insert(text);
            }
        }
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

    // ---- faults ----

    fn fault(&mut self) {
        if self.healing {
            return;
        }
        let osd = self.rng.below(self.osds.len() as u64) as usize;
        let other = self.rng.below(self.osds.len() as u64) as usize;
        if self.faults.counts && self.rng.chance(1, 8) {
            self.change_count();
        }
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
                let space = match self.rng.below(6) {
                    0 => Space::None,
                    1 => Space::NoneForNew,
                    _ => Space::Enough,
                };
                self.osds[osd].groups.as_mut().expect("up").store_mut().set_space(space);
            }
            _ => {}
        }
        let delay = self.rng.between(2_000, 60_000);
        self.after(delay, What::Fault);
    }

    // ---- clients ----

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
            What::Notice { osd, incarnation, view } => self.notice(osd, incarnation, view),
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
            What::Relayout => self.relayout(),
            What::ClientMap { client, view } => self.client_hears(client, view),
            What::ClientStep { client } => self.client_step(client),
            What::ClientTimeout { client, number, tries } => {
                let entry = &mut self.clients[client];
                if entry.tries == tries && entry.request.as_ref().is_some_and(|request| request.id.number == number) {
                    if !self.healing && tries > 1 && self.rng.chance(1, 3) {
                        return self.abandon(client);
                    }
                    if self.healing || self.rng.chance(1, 3) {
                        let view = self.view();
                        self.client_hears(client, view);
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
                    // As the OSD finds the group: by the layout that it knows.
                    let Some(layout) = groups.node().layouts.get(&POOL).map(|layout| layout.now) else { return };
                    let pg = layout.pg(request.object);
                    groups.with(env, pg, |pg, host| pg.request(host, link, session, request));
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
            PgMessage::SubOp { pg, attempt, call, op } => groups.sub_op(env, peer, pg, (attempt, call), op),
            PgMessage::SubReply { pg, attempt, call, reply } => {
                groups.with(env, pg, |pg, host| pg.sub_reply(host, peer, attempt, call, reply));
            }
            PgMessage::Stray { pg, .. } => {
                groups.with(env, pg, |pg, host| pg.stray(host, peer));
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

    fn notice(&mut self, osd: usize, incarnation: u64, view: View) {
        if self.osds[osd].incarnation != incarnation || !self.is_up(osd) {
            return;
        }
        if self.osds[osd].cut_off_until > self.now {
            return self.at(self.osds[osd].cut_off_until, What::Notice { osd, incarnation, view });
        }
        // The first one stands for a linearizable read.
        let first = !std::mem::replace(&mut self.osds[osd].read_map, true);
        let view = if first { self.view() } else { view };
        if view.revision >= self.osds[osd].heard {
            self.osds[osd].heard = view.revision;
            self.hear(osd, view);
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
            let serving: Vec<(PgId, Attempt, Vec<OsdId>)> = groups
                .iter()
                .filter_map(|(id, pg)| Some((id, pg.serving()?, pg.heartbeat_members().to_vec())))
                .collect();
            for (id, attempt, members) in serving {
                for member in members {
                    if let Some(link) = groups.node_mut().link(member) {
                        let beat = PgMessage::Heartbeat { sent: env.now, lease: LEASE, groups: vec![(id, attempt)] };
                        env.out.send(link, Message::Pg(beat));
                    }
                }
            }
        });
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

/// Bytes that a message moves in recovery, or for a read of a chunk.
fn recovery_bytes(msg: &Message) -> u64 {
    let data = match msg {
        Message::Pg(PgMessage::SubOp { op: SubOp::Install { content: Content::Data { data, .. }, .. }, .. }) => data,
        Message::Pg(PgMessage::SubOp { op: SubOp::Patch { patch, .. }, .. }) => &patch.data,
        Message::Pg(PgMessage::SubReply {
            reply: SubReply::Whole { content: Content::Data { data, .. }, .. }, ..
        }) => data,
        Message::Pg(PgMessage::SubReply { reply: SubReply::Read { data, .. }, .. }) => data,
        _ => return 0,
    };
    data.len().into()
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
