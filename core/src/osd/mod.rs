//! The OSD node: one store, the placement groups whose copies it holds, and their way to the world.
//!
//! Owns: the phases of a start, links to peers and clients, the session in the metadata store, the routing of messages
//! to groups, heartbeats, reports. Does not own: what a group decides (`pg`), how copies are kept (`store`), who is
//! placed where (`mon`).
//!
//! ```text
//!            the store is open       the cluster map is read       told to stop (others took over: leaving)
//!  Opening -------------------> Reading ------------------> Running -----------> Stopping
//!     |  the store fails           |  another cluster          |  the store fails
//!     +----------------------------+---------------------------+----> dies
//! ```
//! Invariants: nothing of a peer or client is taken before the whole map was read linearizably; one link per peer; the
//! session is registered only while the node runs.

mod access;
pub mod groups;
mod heartbeat;
mod leaving;
mod metadata;
pub mod peers;
pub mod publish;
mod report;
pub mod session;
mod sweep;

pub use report::{Figures, PoolFigures};

#[cfg(test)]
mod tests;

use crate::id::{ClusterUuid, Incarnation, InodeId, LinkId, ObjectId, OsdId, PgId, PoolId, Session as ClientSession};
use crate::io::{Effect, Env, Event, Input, Level, LinkEvent, MetaId, Node, PeerId, PeerName};
use crate::map::access::Access;
use crate::map::cluster::ClusterMap;
use crate::map::follow::Follower;
use crate::map::serve::MapServer;
use crate::map::{Global, PREFIX, keys};
use crate::msg::{Message, Refusal, Reply, Request, RequestOp};
use crate::pg::Wish;
use crate::pg::host::NodeView;
use crate::pg::images::Images;
use crate::pg::msg::PgMessage;
use crate::pg::pace::RecoverySlots;
use crate::store::{ObjectStore, StoreState};
use crate::time::{Duration, Time};
use groups::Groups;
use peers::{Change, Peers};
use publish::Publisher;
use session::Session;
use std::collections::BTreeMap;

/// What an OSD is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its number.
    pub osd: OsdId,
    /// The cluster that it belongs to; another one's map ends it.
    pub cluster: ClusterUuid,
    /// This start, drawn at random.
    pub incarnation: Incarnation,
    /// `host:port` at which it listens for peers and clients.
    pub address: String,
    /// The host it runs on, as a name in the placement tree.
    pub host: String,
    /// Register only when the leases that an earlier start may have granted are over. Groups would wait for that with
    /// this OSD among them; without it they go on.
    pub waits_for_leases: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opening,
    Reading,
    Running,
    Stopping,
    Dead,
}

/// What clients did, since the start; of images, since the OSD got its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct ClientCounters {
    /// Reads that arrived.
    pub read_ops: u64,
    /// Writes, zeroes and deletions that arrived.
    pub write_ops: u64,
    /// Bytes asked for.
    pub read_bytes: u64,
    /// Bytes of writes.
    pub write_bytes: u64,
}

impl ClientCounters {
    fn count(&mut self, op: &RequestOp) {
        match op {
            RequestOp::Read { len, .. } => {
                self.read_ops += 1;
                self.read_bytes += u64::from(*len);
            }
            RequestOp::Write { data, .. } => {
                self.write_ops += 1;
                self.write_bytes += u64::from(data.len());
            }
            RequestOp::Zero { .. } | RequestOp::Delete { .. } => self.write_ops += 1,
            RequestOp::BlockStatus { .. } | RequestOp::Sync => {}
        }
    }

    /// Adds what somebody else counted.
    pub fn add(&mut self, other: &ClientCounters) {
        let ClientCounters { read_ops, write_ops, read_bytes, write_bytes } = other;
        self.read_ops = self.read_ops.saturating_add(*read_ops);
        self.write_ops = self.write_ops.saturating_add(*write_ops);
        self.read_bytes = self.read_bytes.saturating_add(*read_bytes);
        self.write_bytes = self.write_bytes.saturating_add(*write_bytes);
    }
}

/// Images whose I/O is counted each on its own; published, they are below 100 KiB.
const IMAGES_COUNTED: usize = 1_000;

/// See the module.
#[derive(Clone, Debug)]
pub struct Osd<S> {
    config: Config,
    phase: Phase,
    groups: Groups<S>,
    map: ClusterMap,
    follower: Follower,
    server: MapServer,
    session: Option<Session>,
    publisher: Publisher,
    wishes: BTreeMap<PgId, Wish>,
    /// Revision of the rules of access that was confirmed last.
    obeyed: Option<u64>,
    peers: Peers,
    clients: BTreeMap<LinkId, ClientSession>,
    heartbeat_due: Time,
    leaving: Option<leaving::Leaving>,
    sweep: sweep::Sweep,
    report: report::Schedule,
    counters: ClientCounters,
    by_image: BTreeMap<(PoolId, InodeId), ClientCounters>,
    by_pool: BTreeMap<PoolId, ClientCounters>,
    runtime_counters: BTreeMap<&'static str, u64>,
    next_meta: u64,
}

impl<S: ObjectStore> Osd<S> {
    /// A node on a store that is open or being opened. It begins to work with its first tick.
    pub fn new(config: Config, store: S, now: Time) -> Self {
        let node = NodeView {
            osd: config.osd,
            store: store.uuid(),
            incarnation: config.incarnation,
            started: now,
            lease: Duration::ZERO,
            recovery_full_percent: 95,
            access: Access::default(),
            access_revision: Some(0),
            peers: BTreeMap::new(),
            images: Images::default(),
            layouts: BTreeMap::new(),
        };
        let prefixes = ["config/", "osd/state/", "pg/map/"].map(|part| format!("{PREFIX}{part}"));
        Osd {
            phase: Phase::Opening,
            groups: Groups::new(store, node, RecoverySlots::default()),
            map: ClusterMap::default(),
            follower: Follower::new(prefixes.to_vec()),
            server: MapServer::new(),
            session: None,
            publisher: Publisher::new(
                keys::osd_guard(config.osd),
                config.incarnation.0.to_string(),
                keys::image_stats(config.osd),
            ),
            wishes: BTreeMap::new(),
            obeyed: None,
            peers: Peers::new(config.osd, Duration::secs(1), now),
            clients: BTreeMap::new(),
            heartbeat_due: now,
            leaving: None,
            sweep: sweep::Sweep::default(),
            report: report::Schedule::new(now),
            counters: ClientCounters::default(),
            by_image: BTreeMap::new(),
            by_pool: BTreeMap::new(),
            runtime_counters: BTreeMap::new(),
            next_meta: 0,
            config,
        }
    }

    /// Its groups, for those who look on.
    pub fn groups(&self) -> &Groups<S> {
        &self.groups
    }

    /// Its groups, to reach the store from outside (faults in simulation, closing in production).
    pub fn groups_mut(&mut self) -> &mut Groups<S> {
        &mut self.groups
    }

    /// Its view of the cluster.
    pub fn map(&self) -> &ClusterMap {
        &self.map
    }

    /// Whether it is registered and serves.
    pub fn is_running(&self) -> bool {
        self.phase == Phase::Running && self.session.as_ref().is_some_and(|session| session.lease().is_some())
    }

    /// Figures of the runtime, to be published with the others.
    pub fn set_counters(&mut self, counters: &[(&'static str, u64)]) {
        self.runtime_counters.extend(counters.iter().copied());
    }

    /// Ends the session and closes the store.
    fn end(&mut self, env: &mut Env<'_>) {
        if let Some(session) = &mut self.session {
            session.end(env, next_meta_id(&mut self.next_meta));
        }
        self.phase = Phase::Stopping;
        self.groups.store_mut().close(env);
    }

    /// Whether stopping is over.
    pub fn is_stopped(&self) -> bool {
        self.phase == Phase::Dead || (self.phase == Phase::Stopping && self.groups.store().is_closed())
    }

    /// Stopping: the store ends what it has begun; nobody asks for the results any more.
    fn wind_up(&mut self, env: &mut Env<'_>, input: Input) {
        let store = self.groups.store_mut();
        match input {
            Input::Io { id, done } => store.handle_io(env, id, done),
            Input::Tick => store.tick(env),
            Input::Message { .. } | Input::Link(_) | Input::Meta(_) => {}
        }
        while store.next_completion().is_some() {}
    }

    fn message(&mut self, env: &mut Env<'_>, from: LinkId, msg: Message) {
        match msg {
            Message::Pg(message) => self.peer_message(env, from, message),
            Message::Request(request) => self.request(env, from, request),
            Message::Map(message) => self.server.handle(env, &self.map, from, message),
            Message::Reply(_) => Groups::<S>::mark(env, "osd: a reply that nobody asked for"),
        }
    }

    fn peer_message(&mut self, env: &mut Env<'_>, from: LinkId, message: PgMessage) {
        let Some(osd) = self.peers.osd(from) else {
            return Groups::<S>::mark(env, "osd: message of a peer on a link that is not in use");
        };
        self.peers.heard(from, env.now);
        match message {
            PgMessage::Heartbeat { sent, lease, groups } => self.heartbeat(env, from, sent, lease, &groups),
            PgMessage::HeartbeatAck { sent, lease, groups } => self.heartbeat_ack(env, osd, sent, lease, &groups),
            PgMessage::SubOp { pg, attempt, call, op } => {
                if self.map.is_removed(pg.pool) {
                    return Groups::<S>::mark(env, "osd: a primary has not heard that its pool was removed");
                }
                self.create_group(env, pg);
                self.groups.sub_op(env, osd, pg, (attempt, call), op);
            }
            PgMessage::SubReply { pg, attempt, call, reply } => {
                self.groups.with(env, pg, |pg, host| pg.sub_reply(host, osd, attempt, call, reply));
            }
            PgMessage::Stray { pg, .. } => {
                self.groups.with(env, pg, |pg, host| pg.stray(host, osd));
            }
        }
    }

    fn request(&mut self, env: &mut Env<'_>, from: LinkId, request: Request) {
        let Some(session) = self.clients.get(&from).copied() else {
            return Groups::<S>::mark(env, "osd: request on a link that is not a client's");
        };
        if self.map.pool(request.object.pool).is_none() {
            return refuse(env, from, &request, Refusal::NoSuchPool);
        }
        let Some(layout) = self.groups.node().layouts.get(&request.object.pool).copied() else {
            return refuse(env, from, &request, Refusal::Again);
        };
        let access = &self.groups.node().access;
        if let Some(refusal) = access.refusal(request.id.session, request.object, request.op.is_write()) {
            return refuse(env, from, &request, refusal);
        }
        let pg = layout.now.pg(request.object);
        if !self.groups.contains(pg) {
            return refuse(env, from, &request, Refusal::NotPrimary);
        }
        self.count(request.object, &request.op);
        self.report.note();
        self.groups.with(env, pg, |pg, host| pg.request(host, from, session, request));
    }

    fn count(&mut self, object: ObjectId, op: &RequestOp) {
        self.counters.count(op);
        self.by_pool.entry(object.pool).or_default().count(op);
        if let Some(counters) = self.of_image((object.pool, object.inode)) {
            counters.count(op);
        }
    }

    /// Counters of an image, unless there are too many of them.
    fn of_image(&mut self, image: (PoolId, InodeId)) -> Option<&mut ClientCounters> {
        let is_counted = self.by_image.len() < IMAGES_COUNTED || self.by_image.contains_key(&image);
        is_counted.then(|| self.by_image.entry(image).or_default())
    }

    fn link(&mut self, env: &mut Env<'_>, event: LinkEvent) {
        match event {
            LinkEvent::Up { link, peer, opened } => self.link_up(env, link, peer, opened),
            LinkEvent::Down { link } => self.link_down(env, link),
            LinkEvent::Failed { target: PeerName::Osd(osd), refused } => self.peers.failed(env, osd, refused),
            LinkEvent::Failed { target: PeerName::Seed(_), .. } => {}
        }
    }

    fn link_up(&mut self, env: &mut Env<'_>, link: LinkId, peer: PeerId, opened: Option<PeerName>) {
        match (peer, opened) {
            (PeerId::Osd(osd, _), Some(PeerName::Osd(expected))) if osd != expected => {
                env.out.push(Effect::Close(link));
                self.peers.failed(env, expected, false);
            }
            (PeerId::Osd(osd, incarnation), _) if osd != self.config.osd => {
                self.peers.link_up(env, link, osd, incarnation, opened.is_some());
            }
            (PeerId::Client(session), None) => {
                self.clients.insert(link, session);
            }
            _ => {
                env.out.push(Effect::Close(link));
                if let Some(PeerName::Osd(expected)) = opened {
                    self.peers.failed(env, expected, false);
                }
            }
        }
    }

    fn link_down(&mut self, env: &mut Env<'_>, link: LinkId) {
        self.server.link_down(link);
        if self.clients.remove(&link).is_some() {
            self.groups.with_all(env, |pg, host| pg.client_gone(host, link));
        } else {
            self.peers.link_down(env, link);
        }
    }

    /// Tells groups and the monitor what the peers' links say.
    fn peer_changes(&mut self, env: &mut Env<'_>) {
        while self.peers.has_changes() {
            for change in self.peers.take_changes() {
                match change {
                    Change::Up(osd, incarnation) => {
                        let link = self.peers.link(osd).map(|link| (link, incarnation));
                        self.groups.set_peer(env, osd, self.map.osd_state(osd).is_some(), link);
                    }
                    Change::Down(osd) => {
                        self.groups.set_peer(env, osd, self.map.osd_state(osd).is_some(), None);
                    }
                    Change::Accused(osd, accusation) => self.report_accusation(env, osd, accusation),
                }
            }
        }
    }

    fn tick(&mut self, env: &mut Env<'_>) {
        let mut ids = || next_meta_id(&mut self.next_meta);
        self.follower.tick(env, &mut ids);
        if let Some(session) = &mut self.session {
            session.tick(env, &mut ids);
        }
        self.groups.tick(env);
        if self.phase == Phase::Running {
            self.peers.tick(env);
            self.server.tick(env, &self.map);
            self.beat_if_due(env);
            self.report_if_due(env);
            self.leave_if_due(env);
            self.sweep_if_due(env);
        }
    }

    /// Everything that follows from an input, until nothing is left to hand out.
    fn settle(&mut self, env: &mut Env<'_>) {
        self.follow_store(env);
        self.groups.settle(env, &mut || next_meta_id(&mut self.next_meta));
        self.peer_changes(env);
        self.groups.settle(env, &mut || next_meta_id(&mut self.next_meta));
        self.publish_wishes();
        self.confirm_access();
        let lease = self.session.as_ref().and_then(Session::lease);
        self.publisher.set_lease(lease);
        if self.phase == Phase::Running {
            self.publisher.pump(env, &mut || next_meta_id(&mut self.next_meta));
        }
    }

    fn follow_store(&mut self, env: &mut Env<'_>) {
        match (self.groups.store().state(), self.phase) {
            (StoreState::Failed(reason), Phase::Opening | Phase::Reading | Phase::Running) => self.die(env, reason),
            (StoreState::Open { trusted }, Phase::Opening) => {
                if !trusted {
                    let osd = self.config.osd;
                    let text = "the store lost metadata: it serves nothing and only helps others to recover; once every \
                                group is clean without it, end this OSD and have it build a new store on an empty device";
                    log(env, Level::Error, format!("osd.{osd}: {text}"));
                }
                self.groups.node_mut().store = self.groups.store().uuid();
                self.phase = Phase::Reading;
                self.follower.start(env, &mut || next_meta_id(&mut self.next_meta));
            }
            _ => {}
        }
    }

    fn die(&mut self, env: &mut Env<'_>, reason: String) {
        self.phase = Phase::Dead;
        env.out.push(Effect::Die(format!("osd.{}: {reason}", self.config.osd)));
    }

    fn set_global(&mut self, global: &Global) {
        self.groups.node_mut().lease = Duration::millis(global.lease_ms);
        self.groups.node_mut().recovery_full_percent = global.recovery_full_percent;
        self.peers.set_silence(Duration::millis(global.heartbeat_timeout_ms));
        self.groups.recovery_mut().configure(global.recovery_objects, global.recovery_latency_percent);
    }
}

fn next_meta_id(next: &mut u64) -> MetaId {
    *next += 1;
    MetaId(*next)
}

fn refuse(env: &mut Env<'_>, to: LinkId, request: &Request, refusal: Refusal) {
    env.out.send(to, Message::Reply(Reply { id: request.id, outcome: Err(refusal) }));
}

fn log(env: &mut Env<'_>, level: Level, text: String) {
    env.out.push(Effect::Observe(Event::Log(level, text)));
}

impl<S: ObjectStore> Node for Osd<S> {
    fn handle(&mut self, env: &mut Env<'_>, input: Input) {
        match self.phase {
            Phase::Dead => return,
            Phase::Stopping => return self.wind_up(env, input),
            Phase::Opening | Phase::Reading | Phase::Running => {}
        }
        match input {
            Input::Io { id, done } => {
                self.report.note();
                self.groups.store_mut().handle_io(env, id, done);
            }
            Input::Meta(event) => self.metadata(env, event),
            Input::Tick => self.tick(env),
            Input::Link(LinkEvent::Up { link, .. }) if self.phase != Phase::Running => {
                env.out.push(Effect::Close(link));
            }
            Input::Link(event) => self.link(env, event),
            Input::Message { from, msg } => self.message(env, from, msg),
        }
        if self.phase != Phase::Stopping {
            self.settle(env);
        }
    }

    fn end_of_round(&mut self, env: &mut Env<'_>) {
        match self.phase {
            Phase::Dead => {}
            Phase::Stopping => {
                self.groups.store_mut().end_of_round(env);
                while self.groups.store_mut().next_completion().is_some() {}
            }
            Phase::Opening | Phase::Reading | Phase::Running => {
                self.groups.store_mut().end_of_round(env);
                self.settle(env);
            }
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        if self.phase == Phase::Stopping {
            return self.groups.store().next_deadline();
        }
        let running = self.phase == Phase::Running;
        let session = self.session.as_ref().and_then(Session::next_deadline);
        let peers = self.peers.next_deadline().filter(|_| running);
        let server = self.server.next_deadline().filter(|_| running);
        let beat = self.beat_deadline().filter(|_| running);
        let report = self.report_deadline().filter(|_| running);
        let publisher = self.publisher.next_deadline().filter(|_| running);
        let leaving = self.leaving_deadline().filter(|_| running);
        let sweep = self.sweep_deadline().filter(|_| running);
        let deadlines =
            [self.follower.next_deadline(), self.groups.next_deadline(), session, peers, server, beat, report];
        deadlines.into_iter().chain([publisher, leaving, sweep]).flatten().min()
    }

    fn check(&self) {
        self.groups.check();
        self.server.check();
    }
}
