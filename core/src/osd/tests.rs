//! One OSD node on a model store and a real metadata store, without peers: start-up, registration, refusals.

use super::{ClientCounters, Config, Osd};
use crate::buf::BufPool;
use crate::id::{ClientId, ClusterUuid, Epoch, Incarnation, InodeId, LinkId, ObjectId, OsdId, PoolId, RequestId};
use crate::id::{PgNumber, Session, StoreUuid};
use crate::io::{Effect, Effects, Env, Input, LinkEvent, MetaError, MetaEvent, MetaId, MetaOp, Node, PeerId};
use crate::map::{ActingMember, FailureReport, OsdState, PgMap, PgMapChunk, keys};
use crate::meta::{Keys, Request as MetaRequest, Response, Span, Txn, TxnOp, Watcher};
use crate::meta::{Retention, Store};
use crate::msg::{Class, Message, Refusal, Request, RequestOp};
use crate::rng::Rng;
use crate::store::model::ModelStore;
use crate::time::{Duration, Time};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

const CLUSTER: ClusterUuid = ClusterUuid(0xc1);

struct World {
    now: Time,
    rng: Rng,
    bufs: BufPool,
    meta: Store,
    watchers: Vec<(MetaId, Watcher)>,
    osd: Osd<ModelStore>,
    sent: Vec<(LinkId, Message)>,
    closed: Vec<LinkId>,
    died: Option<String>,
}

fn config(osd: u32, incarnation: u64) -> Config {
    let (osd, incarnation) = (OsdId(osd), Incarnation(incarnation));
    let (address, host) = ("127.0.0.1:7000".into(), "a".into());
    Config { osd, cluster: CLUSTER, incarnation, address, host, waits_for_leases: false }
}

impl World {
    fn new() -> Self {
        let store = ModelStore::new(0).with_uuid(StoreUuid(5));
        World {
            now: Time(1),
            rng: Rng::new(1),
            bufs: BufPool::new(),
            meta: Store::new(Retention::default()),
            watchers: Vec::new(),
            osd: Osd::new(config(1, 10), store, Time(1)),
            sent: Vec::new(),
            closed: Vec::new(),
            died: None,
        }
    }

    fn put(&mut self, key: String, value: &str) {
        let put = TxnOp::Put { key, value: value.as_bytes().to_vec(), lease: 0 };
        let txn = Txn { success: vec![put], ..Txn::default() };
        self.meta.apply(self.now, MetaRequest::Txn(txn)).expect("a plain put");
    }

    fn initialise(&mut self, cluster: ClusterUuid) {
        self.put(keys::global(), &format!(r#"{{"cluster":"{cluster}"}}"#));
    }

    fn give(&mut self, input: Input) {
        let mut out = Effects::default();
        let World { now, rng, bufs, osd, .. } = self;
        let mut env = Env { now: *now, rng, bufs, out: &mut out };
        osd.handle(&mut env, input);
        osd.end_of_round(&mut env);
        osd.check();
        for effect in out.queue {
            self.carry_out(effect);
        }
        self.poll_watchers();
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Meta(MetaOp::Request { id, request }) => {
                let result = self.meta.apply(self.now, request).map_err(|r| MetaError::Refused(r.to_string()));
                self.give(Input::Meta(MetaEvent::Response { id, result }));
            }
            Effect::Meta(MetaOp::Watch { id, prefix, from }) => {
                self.watchers.push((id, Watcher::new(Span::prefix(&prefix), from)));
            }
            Effect::Meta(MetaOp::Unwatch { id }) => self.watchers.retain(|(known, _)| *known != id),
            Effect::Send { to, msg } => self.sent.push((to, msg)),
            Effect::Close(link) => self.closed.push(link),
            Effect::Die(reason) => self.died = Some(reason),
            Effect::Observe(_) | Effect::Connect { .. } => {}
            Effect::Io { .. } => panic!("a model store has no disk"),
        }
    }

    fn poll_watchers(&mut self) {
        for index in 0..self.watchers.len() {
            let Some((id, watcher)) = self.watchers.get_mut(index) else { return };
            if let Ok(Some((revision, events))) = watcher.poll(&self.meta) {
                let event = MetaEvent::Watch { id: *id, revision, events };
                self.give(Input::Meta(event));
            }
        }
    }

    /// Lets time pass, tick by tick.
    fn run_for(&mut self, length: Duration) {
        let end = self.now + length;
        loop {
            let next = [self.osd.next_deadline(), self.meta.next_deadline()].into_iter().flatten().min();
            match next.filter(|at| *at <= end) {
                None => break,
                Some(at) => self.now = self.now.max(at),
            }
            self.meta.tick(self.now);
            self.poll_watchers();
            self.give(Input::Tick);
        }
        self.now = end;
    }

    fn stored<T: DeserializeOwned>(&mut self, key: String) -> Option<T> {
        let range = MetaRequest::Range(Keys::One(key));
        let Ok(Response::Range { kvs, .. }) = self.meta.apply(self.now, range) else { panic!("a range") };
        kvs.first().map(|kv| serde_json::from_slice(&kv.value).expect("what the OSD wrote"))
    }

    fn registered(&mut self) -> Option<OsdState> {
        self.stored(keys::osd_state(OsdId(1)))
    }

    /// One pool of one group, which this OSD serves alone (or nobody).
    fn place(&mut self, epoch: u64, served: bool) {
        let pool = PoolId(9);
        self.put(keys::pools(), r#"{"9":{"name":"p","scheme":"replicated","pg_size":1,"pg_minsize":1,"pg_count":1}}"#);
        self.put(keys::layout(pool), r#"{"generation":0,"pg_count":1}"#);
        let own = ActingMember { osd: OsdId(1), store: StoreUuid(5), incarnation: Incarnation(10) };
        let (acting, primary) = (vec![Some(own).filter(|_| served)], Some(OsdId(1)).filter(|_| served));
        let epoch = Epoch(epoch);
        let map = PgMap { epoch, target: vec![Some(OsdId(1))], acting, primary, primary_since: epoch };
        let chunk = PgMapChunk([(PgNumber(0), map)].into());
        self.put(keys::pg_map(pool, 0), &serde_json::to_string(&chunk).expect("plain data"));
        self.poll_watchers();
    }

    fn stop(&mut self) {
        let mut out = Effects::default();
        let World { now, rng, bufs, osd, .. } = self;
        osd.stop(&mut Env { now: *now, rng, bufs, out: &mut out });
        out.queue.into_iter().for_each(|effect| self.carry_out(effect));
    }

    /// What it says of itself.
    fn farewell(&mut self) -> Option<FailureReport> {
        self.stored(keys::osd_failed(OsdId(1), OsdId(1)))
    }
}

fn running() -> World {
    let mut world = World::new();
    world.initialise(CLUSTER);
    world.give(Input::Tick);
    world
}

#[test]
fn registers_when_the_cluster_exists_and_keeps_its_session() {
    let mut world = World::new();
    world.give(Input::Tick);
    assert_eq!(world.registered(), None, "no cluster yet");
    world.initialise(CLUSTER);
    world.poll_watchers();
    assert_eq!(world.registered().map(|state| state.store), Some(StoreUuid(5)));
    world.run_for(Duration::secs(60));
    assert!(world.registered().is_some());
    assert!(world.osd.is_running());
}

#[test]
fn registers_again_when_its_key_is_deleted() {
    let mut world = running();
    let delete = TxnOp::Delete(Keys::One(keys::osd_state(OsdId(1))));
    let txn = Txn { success: vec![delete], ..Txn::default() };
    world.meta.apply(world.now, MetaRequest::Txn(txn)).expect("a plain delete");
    world.poll_watchers();
    assert_eq!(world.registered(), None);
    world.run_for(Duration::secs(2));
    assert_eq!(world.registered().map(|state| state.incarnation), Some(Incarnation(10)));
}

#[test]
fn dies_on_the_map_of_another_cluster() {
    let mut world = World::new();
    world.initialise(ClusterUuid(0xbad));
    world.give(Input::Tick);
    let reason = world.died.expect("fail-stop");
    assert!(reason.contains("belongs to cluster"), "{reason}");
}

#[test]
fn a_bad_value_changes_nothing() {
    let mut world = running();
    world.put(keys::global(), "{");
    world.poll_watchers();
    world.run_for(Duration::secs(1));
    assert!(world.osd.is_running());
}

fn request(pool: u32) -> Request {
    Request {
        id: RequestId { session: Session { client: ClientId(3), number: 1 }, number: 1 },
        seen: 0,
        object: ObjectId { pool: PoolId(pool), inode: InodeId(1), stripe: 0 },
        generation: 0,
        epoch: Epoch(1),
        class: Class::Client,
        tenant: 0,
        op: RequestOp::Read { offset: 0, len: 512 },
    }
}

fn refusal(message: &Message) -> Refusal {
    match message {
        Message::Reply(reply) => reply.outcome.clone().expect_err("a refusal"),
        other => panic!("unexpected {other:?}"),
    }
}

#[test]
fn refuses_what_is_not_its_own_and_closes_strange_links() {
    let mut world = running();
    let session = Session { client: ClientId(3), number: 1 };
    let up = |link, peer| Input::Link(LinkEvent::Up { link: LinkId(link), peer, opened: None });
    world.give(up(1, PeerId::Client(session)));
    world.give(Input::Message { from: LinkId(1), msg: Message::Request(request(9)) });
    world.put(keys::pools(), r#"{"9":{"name":"p","scheme":"replicated","pg_size":1,"pg_minsize":1,"pg_count":1}}"#);
    world.put(keys::layout(PoolId(9)), r#"{"generation":0,"pg_count":1}"#);
    world.poll_watchers();
    world.give(Input::Message { from: LinkId(1), msg: Message::Request(request(9)) });
    let refusals: Vec<Refusal> = world.sent.iter().map(|(_, message)| refusal(message)).collect();
    assert_eq!(refusals, vec![Refusal::NoSuchPool, Refusal::NotPrimary]);
    world.give(up(2, PeerId::Osd(OsdId(1), Incarnation(77))));
    assert_eq!(world.closed, vec![LinkId(2)], "nobody else is osd.1");
}

#[test]
fn leaves_at_once_when_told_to_stop() {
    let mut world = running();
    world.stop();
    assert!(world.osd.is_stopped(), "nobody needs it, and its store had nothing to end");
    assert_eq!(world.registered(), None);
}

#[test]
fn hands_its_groups_over_before_it_goes() {
    let mut world = running();
    world.place(1, true);
    world.stop();
    world.run_for(Duration::millis(300));
    assert_eq!(world.farewell(), None, "leases of the usual length still run");
    world.run_for(Duration::millis(50));
    assert_eq!(world.farewell(), Some(FailureReport { incarnation: Incarnation(10), hard: true }));
    assert!(world.osd.is_running(), "it serves until others do");
    world.place(2, false);
    world.run_for(Duration::millis(90));
    assert!(world.osd.is_running(), "those who take over may ask it still");
    world.run_for(Duration::millis(20));
    assert!(world.osd.is_stopped());
    assert_eq!((world.registered(), world.farewell()), (None, None));
}

#[test]
fn goes_in_time_although_nobody_takes_over() {
    let mut world = running();
    world.place(1, true);
    world.stop();
    world.run_for(Duration::millis(1_490));
    assert!(world.osd.is_running());
    world.run_for(Duration::millis(20));
    assert!(world.osd.is_stopped());
    assert_eq!(world.registered(), None);
}

#[test]
fn registers_when_leases_of_its_earlier_start_are_over() {
    let mut world = World::new();
    world.osd = Osd::new(
        Config { waits_for_leases: true, ..config(1, 10) },
        ModelStore::new(0).with_uuid(StoreUuid(5)),
        Time(1),
    );
    world.initialise(CLUSTER);
    world.give(Input::Tick);
    world.run_for(Duration::millis(318));
    assert_eq!(world.registered(), None);
    world.run_for(Duration::millis(2));
    assert!(world.registered().is_some());
}

#[test]
fn counts_on_from_what_it_had_counted_before_it_started() {
    let mut world = World::new();
    world.initialise(CLUSTER);
    world.put(keys::image(PoolId(9), InodeId(1)), r#"{"name":"i","size_bytes":4096}"#);
    world.put(keys::osd_guard(OsdId(1)), "9");
    let former = r#"{"read_ops":5,"write_ops":2,"read_bytes":100,"write_bytes":7}"#;
    world.put(keys::image_stats(OsdId(1)), &format!(r#"{{"9/1":{former},"9/2":{former},"odd":{former}}}"#));
    world.give(Input::Tick);
    world.place(1, true);
    let session = Session { client: ClientId(3), number: 1 };
    world.give(Input::Link(LinkEvent::Up { link: LinkId(1), peer: PeerId::Client(session), opened: None }));
    for (number, silence) in [(1, 3), (2, 20)] {
        let mut request = request(9);
        request.id.number = number;
        world.give(Input::Message { from: LinkId(1), msg: Message::Request(request) });
        world.run_for(Duration::secs(silence));
    }
    let counted: BTreeMap<String, ClientCounters> = world.stored(keys::image_stats(OsdId(1))).expect("counters");
    let sums = ClientCounters { read_ops: 7, write_ops: 2, read_bytes: 1_124, write_bytes: 7 };
    assert_eq!(counted, [("9/1".to_string(), sums)].into(), "not those of images that are gone");
}
