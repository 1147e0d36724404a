//! Monitors against the metadata store's state machine: failures of OSDs, of monitors, of transactions.

use super::*;
use crate::buf::BufPool;
use crate::id::{Epoch, InodeId, Member, OsdId, PgId, PgNumber, PoolId, Role, StoreUuid};
use crate::io::{Effects, LinkEvent, MetaOp};
use crate::map::{History, PgMap, keys};
use crate::meta::{Compare, KeyValue, Keys, Request, Retention, Span, Store, Txn, TxnOp, Watcher};
use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

mod removal;
mod succession;

const CLUSTER: u128 = 77;
/// What a request to the metadata store takes.
const DELAY: Duration = Duration::millis(1);

struct Node1 {
    mon: Mon,
    rng: Rng,
    watchers: BTreeMap<MetaId, Watcher>,
    alive: bool,
}

struct FakeOsd {
    lease: u64,
    incarnation: u64,
}

/// The world: a metadata store, monitors, and OSDs that are only keys.
struct World {
    now: Time,
    store: Store,
    mons: Vec<Node1>,
    queue: VecDeque<(Time, usize, MetaEvent)>,
    rng: Rng,
    osds: BTreeMap<u32, FakeOsd>,
    auditor: Auditor,
    /// One request in so many has no answer; 0: all are answered.
    lost_replies: u64,
    /// So many of the leaders' transactions come too late: somebody else changes a key that they compare.
    races_to_lose: u32,
    /// Monitors' watches on configuration and images; if late, they say nothing.
    config_watches: BTreeSet<(usize, MetaId)>,
    config_is_late: bool,
    incarnations: u64,
    logs: Vec<String>,
}

/// Watches every map that is ever written.
struct Auditor {
    watcher: Watcher,
    maps: BTreeMap<PgId, PgMap>,
    hosts: BTreeMap<OsdId, String>,
    /// Epochs that are to end, whether members change or not.
    unwanted: BTreeSet<(PgId, Epoch)>,
    bumps: u32,
}

impl Auditor {
    fn observe(&mut self, store: &Store) {
        let Ok(Some((_, events))) = self.watcher.poll(store) else { return };
        for event in events {
            let mut map = ClusterMap::default();
            let changes = map.apply_events(&[event], 1);
            assert!(changes.errors.is_empty(), "{:?}", changes.errors);
            for (pg, map) in map.pg_maps() {
                self.audit(pg, map);
            }
        }
    }

    fn audit(&mut self, pg: PgId, map: &PgMap) {
        let hosts: BTreeSet<_> = map.acting.iter().flatten().map(|m| self.hosts.get(&m.osd)).collect();
        assert_eq!(hosts.len(), map.acting.iter().flatten().count(), "{pg}: a failure domain is shared: {map:?}");
        let present = map.acting.iter().flatten().next().is_some();
        assert_eq!(map.primary.is_some(), present, "{pg}: {map:?}");
        if let Some(old) = self.maps.insert(pg, map.clone()) {
            let changed = old.acting != map.acting || old.primary != map.primary;
            let changed = changed || self.unwanted.remove(&(pg, old.epoch));
            let rise = map.epoch.0 - old.epoch.0;
            assert_eq!(rise, u64::from(changed), "{pg}: from {old:?} to {map:?}");
            self.bumps += u32::from(changed);
        }
    }
}

impl World {
    fn new(mons: usize) -> Self {
        let watcher = Watcher::new(Span::prefix(format!("{PREFIX}pg/map/")), 1);
        let (maps, hosts, unwanted) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let auditor = Auditor { watcher, maps, hosts, unwanted, bumps: 0 };
        let mut world = World {
            now: Time(1),
            store: Store::new(Retention::default()),
            mons: Vec::new(),
            queue: VecDeque::new(),
            rng: Rng::new(5),
            osds: BTreeMap::new(),
            auditor,
            lost_replies: 0,
            races_to_lose: 0,
            config_watches: BTreeSet::new(),
            config_is_late: false,
            incarnations: 0,
            logs: Vec::new(),
        };
        let cluster = String::from(ClusterUuid(CLUSTER));
        world.put(
            keys::global(),
            &format!(r#"{{"cluster":"{cluster}","osd_out_time_s":60,"osd_flap_limit":0,"session_ttl_s":5}}"#),
        );
        (0..mons).for_each(|_| world.start_mon());
        world
    }

    fn incarnation(&mut self) -> u64 {
        self.incarnations += 1;
        self.incarnations
    }

    fn start_mon(&mut self) {
        self.start_mon_at("m:1");
    }

    fn start_mon_at(&mut self, address: &str) {
        let incarnation = Incarnation(self.incarnation());
        let cluster = ClusterUuid(CLUSTER);
        let mon = Mon::new(MonConfig { incarnation, address: address.into(), cluster, session_ttl_s: 5 });
        let rng = self.rng.fork();
        self.mons.push(Node1 { mon, rng, watchers: BTreeMap::new(), alive: true });
        self.step(self.mons.len() - 1, |mon, env| mon.handle(env, Input::Tick));
    }

    /// Kills a monitor: nothing more of it, its lease runs out.
    fn kill_mon(&mut self, n: usize) {
        self.mons[n].alive = false;
        self.mons[n].watchers.clear();
    }

    fn leader(&self) -> Option<usize> {
        self.mons.iter().position(|node| node.alive && node.mon.is_leading())
    }

    fn step(&mut self, n: usize, f: impl FnOnce(&mut Mon, &mut Env<'_>)) {
        let (mut bufs, mut out) = (BufPool::new(), Effects::default());
        let node = &mut self.mons[n];
        f(&mut node.mon, &mut Env { now: self.now, rng: &mut node.rng, bufs: &mut bufs, out: &mut out });
        node.mon.check();
        for effect in out.queue {
            self.effect(n, effect);
        }
        self.poll_watchers();
    }

    fn effect(&mut self, n: usize, effect: Effect) {
        match effect {
            Effect::Meta(MetaOp::Request { id, request }) => self.request(n, id, request),
            Effect::Meta(MetaOp::Watch { id, prefix, from }) => {
                if prefix.ends_with("config/") {
                    self.config_watches.insert((n, id));
                }
                self.mons[n].watchers.insert(id, Watcher::new(Span::prefix(prefix), from));
            }
            Effect::Meta(MetaOp::Unwatch { id }) => {
                self.mons[n].watchers.remove(&id);
            }
            Effect::Observe(Event::Log(level, text)) => self.logs.push(format!("{level:?} mon {n}: {text}")),
            Effect::Observe(_) => {}
            other => panic!("unexpected {other:?}"),
        }
    }

    fn request(&mut self, n: usize, id: MetaId, request: Request) {
        let lost = self.lost_replies > 0 && self.rng.chance(1, self.lost_replies);
        if lost && self.rng.chance(1, 2) {
            return self.reply(n, id, Err(MetaError::Unknown));
        }
        if self.races_to_lose > 0 && is_a_leaders(&request) {
            self.races_to_lose -= 1;
            let revision = self.store.revision();
            return self.reply(n, id, Ok(Response::Txn { revision, succeeded: false, results: Vec::new() }));
        }
        let result = self.store.apply(self.now, request).map_err(|refused| MetaError::Refused(refused.to_string()));
        self.reply(n, id, if lost { Err(MetaError::Unknown) } else { result });
    }

    fn reply(&mut self, n: usize, id: MetaId, result: Result<Response, MetaError>) {
        self.queue.push_back((self.now + DELAY, n, MetaEvent::Response { id, result }));
    }

    fn poll_watchers(&mut self) {
        self.auditor.observe(&self.store);
        let World { mons, queue, store, now, config_watches, config_is_late, .. } = self;
        for (n, node) in mons.iter_mut().enumerate() {
            let late = |id: &MetaId| *config_is_late && config_watches.contains(&(n, *id));
            node.watchers.retain(|id, watcher| {
                late(id)
                    || match watcher.poll(store) {
                        Ok(Some((revision, events))) => {
                            queue.push_back((*now + DELAY, n, MetaEvent::Watch { id: *id, revision, events }));
                            true
                        }
                        Ok(None) => true,
                        Err(_) => {
                            queue.push_back((*now + DELAY, n, MetaEvent::WatchLost { id: *id }));
                            false
                        }
                    }
            });
        }
    }

    fn lose_watches(&mut self) {
        for n in 0..self.mons.len() {
            for id in std::mem::take(&mut self.mons[n].watchers).into_keys() {
                self.queue.push_back((self.now + DELAY, n, MetaEvent::WatchLost { id }));
            }
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        let mut events = 0;
        while let Some(next) = self.next_time().filter(|next| *next <= end) {
            events += 1;
            assert!(events < 200_000, "no end of events at {:?}: {}", self.now, self.stall());
            self.now = self.now.max(next);
            self.run_one();
        }
        self.now = end;
    }

    /// Who keeps the world busy.
    fn stall(&self) -> String {
        let deadlines: Vec<_> = self.mons.iter().map(|node| (node.alive, node.mon.next_deadline())).collect();
        let logs: Vec<_> = self.logs.iter().rev().take(5).collect();
        format!("{deadlines:?} store {:?} queue {} {logs:?}", self.store.next_deadline(), self.queue.len())
    }

    fn next_time(&self) -> Option<Time> {
        let queued = self.queue.iter().map(|(at, ..)| *at).min();
        let alive = self.mons.iter().filter(|node| node.alive);
        let deadlines = alive.filter_map(|node| node.mon.next_deadline());
        let renewal = (!self.osds.is_empty()).then(|| self.now + Duration::secs(1));
        deadlines.chain(queued).chain(self.store.next_deadline()).chain(renewal).min()
    }

    fn run_one(&mut self) {
        for osd in self.osds.values() {
            let _ = self.store.apply(self.now, Request::LeaseKeepAlive { lease: osd.lease });
        }
        self.store.tick(self.now);
        self.poll_watchers();
        if let Some(at) = self.queue.iter().position(|(at, ..)| *at <= self.now) {
            let (_, n, event) = self.queue.remove(at).expect("just found");
            if self.mons[n].alive {
                self.step(n, |mon, env| mon.handle(env, Input::Meta(event)));
            }
            return;
        }
        let due = |node: &Node1| node.alive && node.mon.next_deadline().is_some_and(|at| at <= self.now);
        if let Some(n) = self.mons.iter().position(due) {
            self.step(n, |mon, env| mon.handle(env, Input::Tick));
        }
    }

    fn txn(&mut self, compare: Vec<Compare>, success: Vec<TxnOp>) -> bool {
        let response = self.store.apply(self.now, Request::Txn(Txn { compare, success, failure: Vec::new() }));
        self.poll_watchers();
        matches!(response, Ok(Response::Txn { succeeded: true, .. }))
    }

    fn put(&mut self, key: String, value: &str) {
        self.put_leased(key, value, 0);
    }

    fn put_leased(&mut self, key: String, value: &str, lease: u64) {
        assert!(self.txn(Vec::new(), vec![TxnOp::Put { key, value: value.into(), lease }]));
    }

    fn delete(&mut self, key: String) {
        assert!(self.txn(Vec::new(), vec![TxnOp::Delete(Keys::One(key))]));
    }

    fn read(&mut self, prefix: &str) -> Vec<KeyValue> {
        let keys = Keys::Prefix(format!("{PREFIX}{prefix}"));
        match self.store.apply(self.now, Request::Range(keys)) {
            Ok(Response::Range { kvs, .. }) => kvs,
            other => panic!("{other:?}"),
        }
    }

    fn map(&mut self) -> ClusterMap {
        let mut map = ClusterMap::default();
        let kvs = self.read("");
        let changes = map.apply_range(&kvs, 1);
        assert!(changes.errors.is_empty(), "{:?}", changes.errors);
        map
    }

    /// Starts (or restarts at once) an OSD.
    fn start_osd(&mut self, n: u32, host: &str) {
        self.start_osd_at(n, host, &format!("h:{n}"));
    }

    fn start_osd_at(&mut self, n: u32, host: &str, address: &str) {
        let incarnation = self.incarnation();
        let lease = match self.osds.get(&n) {
            Some(osd) => osd.lease,
            None => match self.store.apply(self.now, Request::LeaseGrant { ttl: 5 }) {
                Ok(Response::LeaseGranted { lease, .. }) => lease,
                other => panic!("{other:?}"),
            },
        };
        self.osds.insert(n, FakeOsd { lease, incarnation });
        self.auditor.hosts.insert(OsdId(n), host.to_string());
        self.put_state(n, host, address, u128::from(n), true);
    }

    fn put_state(&mut self, n: u32, host: &str, address: &str, store: u128, trusted: bool) {
        let FakeOsd { lease, incarnation } = self.osds[&n];
        let store = String::from(StoreUuid(store));
        let json = format!(
            r#"{{"address":"{address}","store":"{store}","incarnation":{incarnation},"host":"{host}","size_bytes":{},
            "trusted":{trusted}}}"#,
            1u64 << 30
        );
        self.put_leased(keys::osd_state(OsdId(n)), &json, lease);
    }

    /// Stops an OSD; its session ends at once.
    fn stop_osd(&mut self, n: u32) {
        let osd = self.osds.remove(&n).expect("it runs");
        self.store.apply(self.now, Request::LeaseRevoke { lease: osd.lease }).expect("its lease is there");
        self.poll_watchers();
    }

    fn report(&mut self, osd: u32, by: u32, hard: bool) {
        let json = format!(r#"{{"incarnation":{},"hard":{hard}}}"#, self.osds[&osd].incarnation);
        let lease = self.osds[&by].lease;
        self.put_leased(keys::osd_failed(OsdId(osd), OsdId(by)), &json, lease);
    }

    fn create_pool(&mut self, size: u8, minsize: u8, pg_count: u32) {
        let json = format!(
            r#"{{"1":{{"name":"p","scheme":"replicated","pg_size":{size},"pg_minsize":{minsize},"pg_count":{pg_count}}}}}"#
        );
        self.put(keys::pools(), &json);
    }

    /// What primaries do at last: every group records its interval, recovers everything and trims.
    fn trim_all(&mut self) {
        let map = self.map();
        let in_force = |pg: PgId| map.layout(pg.pool).is_some_and(|layout| layout.now.contains(pg.number));
        let enough = |map: &PgMap| map.acting.iter().flatten().count() >= 2;
        for (pg, map) in map.pg_maps().filter(|(pg, map)| in_force(*pg) && enough(map)) {
            let member = |m: &crate::map::ActingMember| Member { osd: m.osd, store: m.store, role: Role(0) };
            let set: Vec<Member> = map.acting.iter().flatten().map(member).collect();
            let history = History {
                base_epoch: map.epoch,
                base_set: set.clone(),
                last: map.epoch,
                witnesses: set.clone(),
                sets: vec![(map.epoch, set)],
                ancestors: Vec::new(),
            };
            self.put(keys::pg_history(pg), &serde_json::to_string(&history).expect("JSON"));
        }
    }

    /// Lets primaries trim and the monitor go on until nothing changes any more; says how many epochs it took.
    fn settle(&mut self) -> u32 {
        let before = self.auditor.bumps;
        for _ in 0..50 {
            let bumps = self.auditor.bumps;
            self.trim_all();
            self.run_for(Duration::secs(5));
            if self.auditor.bumps == bumps {
                return bumps - before;
            }
        }
        panic!("no end of changes: {:?}", self.logs.iter().rev().take(5).collect::<Vec<_>>());
    }

    fn cluster(osds: u32, pg_count: u32) -> World {
        let mut world = World::new(1);
        (1..=osds).for_each(|n| world.start_osd(n, &format!("h{n}")));
        world.create_pool(3, 2, pg_count);
        world.run_for(Duration::secs(4));
        world.settle();
        world
    }

    fn acting_of(&mut self, osd: u32) -> usize {
        let map = self.map();
        map.pg_maps().filter(|(_, map)| map.acting.iter().flatten().any(|m| m.osd.0 == osd)).count()
    }
}

/// Whether only a leader sends this: a transaction that compares who leads.
fn is_a_leaders(request: &Request) -> bool {
    let leads = Compare::CreateRevision(keys::leader(), 0);
    let compares = |compare: &Compare| matches!(compare, Compare::CreateRevision(key, _) if *key == keys::leader());
    matches!(request, Request::Txn(txn) if txn.compare.iter().any(|c| compares(c) && *c != leads))
}

fn group(number: u32) -> PgId {
    PgId { pool: PoolId(1), number: PgNumber(number) }
}

#[test]
fn a_new_pool_gets_maps_with_balanced_members_and_primaries() {
    let mut world = World::cluster(4, 100);
    let map = world.map();
    assert_eq!(map.pg_maps().count(), 100);
    for n in 1..=4 {
        assert_eq!(world.acting_of(n), 75);
        let primaries = map.pg_maps().filter(|(_, map)| map.primary == Some(OsdId(n))).count();
        assert!((24..=26).contains(&primaries), "osd.{n} is primary of {primaries}");
    }
    assert_eq!(map.osd_records().count(), 4);
}

#[test]
fn a_new_pool_is_placed_at_once_if_there_are_enough_osds() {
    let mut world = World::new(1);
    (1..=3).for_each(|n| world.start_osd(n, &format!("h{n}")));
    world.run_for(Duration::secs(3));
    world.create_pool(3, 2, 8);
    world.run_for(Duration::millis(20));
    assert_eq!(world.map().pg_maps().count(), 8);
}

#[test]
fn a_dead_osd_leaves_holes_and_comes_back() {
    let mut world = World::cluster(4, 64);
    world.stop_osd(2);
    world.run_for(Duration::millis(20));
    assert_eq!(world.acting_of(2), 0);
    let map = world.map();
    let degraded = map.pg_maps().filter(|(_, map)| map.acting.iter().flatten().count() == 2).count();
    assert_eq!(degraded, 48);
    assert!(map.pg_maps().all(|(_, map)| map.primary.is_some()));
    world.start_osd(2, "h2");
    world.run_for(Duration::millis(20));
    assert_eq!(world.acting_of(2), 48);
    world.settle();
    let map = world.map();
    let primaries = map.pg_maps().filter(|(_, map)| map.primary == Some(OsdId(2))).count();
    assert!(primaries >= 14, "its primaries came back: {primaries}");
}

#[test]
fn a_quick_restart_is_a_new_epoch() {
    let mut world = World::cluster(4, 64);
    let before = world.map();
    world.start_osd(2, "h2");
    world.run_for(Duration::millis(20));
    let after = world.map();
    let acts = |map: &PgMap| map.acting.iter().flatten().any(|m| m.osd == OsdId(2));
    for (pg, map) in before.pg_maps() {
        let (next, _) = after.pg_map(pg).expect("it stays");
        assert_eq!(next.epoch.0 - map.epoch.0, u64::from(acts(map)), "{pg}");
        assert!(acts(next) == acts(map));
    }
}

#[test]
fn reports_count_as_the_rules_say_and_end() {
    let mut world = World::cluster(4, 64);
    world.report(2, 1, false);
    world.run_for(Duration::millis(20));
    assert_eq!(world.acting_of(2), 48, "one silent report is not enough");
    world.report(2, 3, false);
    world.run_for(Duration::millis(20));
    assert_eq!(world.acting_of(2), 0);
    world.delete(keys::osd_failed(OsdId(2), OsdId(3)));
    world.run_for(Duration::millis(20));
    assert_eq!(world.acting_of(2), 48, "who is reached again is up");
    world.report(2, 4, true);
    world.run_for(Duration::millis(20));
    assert_eq!(world.acting_of(2), 0);
    world.start_osd(2, "h2");
    world.run_for(Duration::millis(20));
    assert_eq!(world.acting_of(2), 48, "the report names an earlier start");
}

#[test]
fn an_untrusted_store_does_not_act() {
    let mut world = World::cluster(4, 64);
    world.put_state(2, "h2", "h:2", 2, false);
    world.run_for(Duration::millis(20));
    assert_eq!(world.acting_of(2), 0);
    world.put_state(2, "h2", "h:2", 222, true);
    world.run_for(Duration::millis(20));
    assert_eq!(world.acting_of(2), 48);
}

#[test]
fn after_the_out_time_data_moves_elsewhere_and_back() {
    let mut world = World::cluster(5, 64);
    world.stop_osd(2);
    world.run_for(Duration::secs(50));
    let is_whole = |map: &ClusterMap| map.pg_maps().all(|(_, map)| map.acting.iter().flatten().count() == 3);
    assert!(!is_whole(&world.map()));
    world.run_for(Duration::secs(15));
    let map = world.map();
    assert!(is_whole(&map));
    assert!(map.osd_record(OsdId(2)).is_some_and(|record| record.out));
    world.settle();
    world.start_osd(2, "h2");
    world.settle();
    assert!((38..=39).contains(&world.acting_of(2)), "its share: {}", world.acting_of(2));
    assert!(is_whole(&world.map()));
}

#[test]
fn the_out_time_goes_on_under_the_next_leader() {
    let mut world = World::cluster(5, 64);
    world.stop_osd(2);
    for _ in 0..4 {
        world.run_for(Duration::secs(13));
        assert!(world.map().osd_record(OsdId(2)).is_some_and(|record| !record.out));
        let leader = world.leader().expect("one leads");
        world.kill_mon(leader);
        world.start_mon();
        // Until the lease of the dead leader is over.
        world.run_for(Duration::secs(3));
    }
    world.run_for(Duration::secs(16));
    let down = world.map().osd_record(OsdId(2)).cloned().expect("it is remembered");
    assert!(down.out, "60 s of being down, 52 of them under four leaders: {down:?}");
}

#[test]
fn the_out_time_goes_on_over_lost_races() {
    let mut world = World::cluster(5, 64);
    world.stop_osd(2);
    world.run_for(Duration::secs(1));
    for _ in 0..40 {
        world.races_to_lose = 1;
        world.start_osd(4, "h4");
        world.run_for(Duration::millis(1_500));
        assert_eq!(world.races_to_lose, 0, "the leader writes what follows from a restart");
    }
    let down = world.map().osd_record(OsdId(2)).cloned().expect("it is remembered");
    assert!(down.out, "down for 61 s under one leader: {down:?}");
    let changes = world.logs.iter().filter(|text| text.contains("does not lead")).count();
    assert_eq!(changes, 0, "it led all the time");
}

#[test]
fn who_lost_the_key_leads_anew() {
    let mut world = World::cluster(4, 64);
    let times = |world: &World| world.logs.iter().filter(|text| text.contains("leads now")).count();
    assert_eq!(times(&world), 1);
    world.delete(keys::leader());
    world.run_for(Duration::secs(1));
    assert_eq!((world.leader(), times(&world)), (Some(0), 2));
}

/// A cluster in which an OSD may fall twice, and is held for 8 s then.
fn watchful() -> World {
    let mut world = World::cluster(4, 64);
    let cluster = String::from(ClusterUuid(CLUSTER));
    let rules = r#""osd_flap_limit":2,"osd_hold_s":8,"osd_flap_window_s":100"#;
    world.put(keys::global(), &format!(r#"{{"cluster":"{cluster}","session_ttl_s":5,{rules}}}"#));
    world.run_for(Duration::secs(1));
    world
}

fn fall(world: &mut World) {
    world.stop_osd(2);
    world.run_for(Duration::millis(500));
    world.start_osd(2, "h2");
    world.run_for(Duration::millis(500));
}

#[test]
fn who_comes_and_goes_is_held_down_longer_each_time_and_then_forgiven() {
    let mut world = watchful();
    for _ in 0..2 {
        fall(&mut world);
        assert_eq!(world.acting_of(2), 48, "it may fall twice");
        world.settle();
    }
    for seconds in [8, 16, 32] {
        fall(&mut world);
        assert_eq!(world.acting_of(2), 0, "held");
        world.run_for(Duration::secs(seconds - 2));
        assert_eq!(world.acting_of(2), 0, "for {seconds} s");
        world.run_for(Duration::secs(2));
        assert_eq!(world.acting_of(2), 48, "not longer than {seconds} s");
    }
    world.settle();
    world.run_for(Duration::secs(110));
    fall(&mut world);
    assert_eq!(world.acting_of(2), 48, "forgiven");
}

#[test]
fn a_crash_loop_without_pauses_is_seen_and_a_planned_restart_is_none() {
    let mut world = watchful();
    for _ in 0..5 {
        world.report(2, 2, true);
        world.run_for(Duration::millis(100));
        fall(&mut world);
        assert_eq!(world.acting_of(2), 48, "it says when it goes");
    }
    for n in 1..=3 {
        world.start_osd(2, "h2");
        world.run_for(Duration::millis(300));
        assert_eq!(world.acting_of(2), if n <= 2 { 48 } else { 0 }, "start {n}");
    }
}

#[test]
fn who_is_held_stays_so_under_the_next_leader_and_who_is_needed_is_let_in() {
    let mut world = watchful();
    (0..3).for_each(|_| fall(&mut world));
    assert_eq!(world.acting_of(2), 0);
    world.kill_mon(0);
    world.start_mon();
    world.run_for(Duration::secs(4));
    assert_eq!(world.acting_of(2), 0, "the next leader knows of the falls");
    // Groups of OSD 2 and two others have one member left.
    world.stop_osd(1);
    world.run_for(Duration::millis(500));
    world.stop_osd(3);
    world.run_for(Duration::millis(500));
    assert_eq!(world.acting_of(2), 48);
}

#[test]
fn the_data_of_a_store_that_lost_its_metadata_move_elsewhere_too() {
    let mut world = World::cluster(5, 64);
    world.put_state(2, "h2", "h:2", 2, false);
    let is_whole = |map: &ClusterMap| map.pg_maps().all(|(_, map)| map.acting.iter().flatten().count() == 3);
    world.run_for(Duration::secs(50));
    assert!(!is_whole(&world.map()));
    world.run_for(Duration::secs(15));
    assert!(is_whole(&world.map()));
    // Built anew.
    world.put_state(2, "h2", "h:2", 222, true);
    world.settle();
    assert!(world.acting_of(2) > 30 && is_whole(&world.map()));
}

#[test]
fn noout_keeps_the_data_where_it_is() {
    let mut world = World::cluster(5, 64);
    world.put("/ashlar/config/osd/2".into(), r#"{"noout":true}"#);
    world.stop_osd(2);
    world.run_for(Duration::secs(100));
    assert!(world.map().pg_maps().any(|(_, map)| map.target.contains(&Some(OsdId(2)))));
}

/// Of each group, two members that have everything act at any time, though all its targets change.
#[test]
fn moving_never_leaves_the_data_behind() {
    let mut world = World::cluster(3, 16);
    (4..=6).for_each(|n| world.start_osd(n, &format!("h{n}")));
    for n in 1..=3 {
        world.put(keys::osd_config(OsdId(n)), r#"{"reweight":0.0}"#);
    }
    world.run_for(Duration::secs(3));
    let holders = |map: &PgMap| map.acting.iter().flatten().filter(|m| m.osd.0 <= 3).count();
    assert!(world.map().pg_maps().all(|(_, map)| holders(map) == 2), "one new member at first");
    let bumps = world.settle();
    assert!(world.map().pg_maps().all(|(_, map)| holders(map) == 0 && map.acting.iter().flatten().count() == 3));
    assert!(bumps <= 16 * 3, "{bumps} epochs for 16 groups");
}

#[test]
fn a_wish_is_granted_as_long_as_it_stands() {
    let mut world = World::cluster(4, 8);
    let map = world.map();
    let (present, _) = map.pg_map(group(0)).expect("a map");
    let primary = present.primary.expect("a primary");
    let other = present.acting.iter().flatten().find(|m| m.osd != primary).expect("another").osd;
    let incarnation = world.osds[&primary.0].incarnation;
    let wish = |epoch: u64| {
        let (by, without) = (primary.0, other.0);
        format!(r#"{{"by":{by},"incarnation":{incarnation},"epoch":{epoch},"without":[{without}],"reason":"r"}}"#)
    };
    world.put(keys::pg_wish(group(0)), &wish(present.epoch.0));
    world.run_for(Duration::secs(3));
    let map = world.map();
    let (granted, _) = map.pg_map(group(0)).expect("a map");
    assert!(!granted.acting.iter().flatten().any(|m| m.osd == other));
    assert_eq!((granted.epoch, granted.primary), (Epoch(present.epoch.0 + 1), Some(primary)));
    world.delete(keys::pg_wish(group(0)));
    world.run_for(Duration::secs(3));
    let map = world.map();
    assert!(map.pg_map(group(0)).expect("a map").0.acting.iter().flatten().any(|m| m.osd == other));
}

#[test]
fn a_wish_for_just_another_epoch_is_granted_once() {
    let mut world = World::cluster(3, 1);
    let map = world.map();
    let (present, _) = map.pg_map(group(0)).expect("a map");
    let primary = present.primary.expect("a primary");
    let (by, incarnation, epoch) = (primary.0, world.osds[&primary.0].incarnation, present.epoch.0);
    let wish = format!(r#"{{"by":{by},"incarnation":{incarnation},"epoch":{epoch},"without":[],"reason":"r"}}"#);
    world.auditor.unwanted.insert((group(0), present.epoch));
    world.put(keys::pg_wish(group(0)), &wish);
    world.run_for(Duration::secs(10));
    let map = world.map();
    let (next, _) = map.pg_map(group(0)).expect("a map");
    assert_eq!(*next, PgMap { epoch: Epoch(epoch + 1), ..present.clone() });
}

#[test]
fn a_wish_that_would_stop_the_group_turns_against_its_author() {
    let mut world = World::cluster(3, 1);
    let map = world.map();
    let (present, _) = map.pg_map(group(0)).expect("a map");
    let primary = present.primary.expect("a primary").0;
    let others: Vec<u32> = (1..=3).filter(|n| *n != primary).collect();
    let wish = format!(
        r#"{{"by":{primary},"incarnation":{},"epoch":{},"without":{others:?},"reason":"r"}}"#,
        world.osds[&primary].incarnation, present.epoch.0
    );
    world.put(keys::pg_wish(group(0)), &wish);
    world.run_for(Duration::secs(3));
    let map = world.map();
    let (next, _) = map.pg_map(group(0)).expect("a map");
    assert_ne!(next.primary, Some(OsdId(primary)));
    assert!(map.wishes().next().is_none(), "it binds no more and was deleted");
    assert_eq!(next.acting.iter().flatten().count(), 3, "it is taken back as an ordinary member");
}

#[test]
fn another_monitor_takes_over() {
    let mut world = World::new(2);
    (1..=4).for_each(|n| world.start_osd(n, &format!("h{n}")));
    world.create_pool(3, 2, 64);
    world.run_for(Duration::secs(4));
    let first = world.leader().expect("a leader");
    world.kill_mon(first);
    world.run_for(Duration::secs(10));
    let second = world.leader().expect("another leader");
    assert_ne!(first, second);
    let moved = world.settle();
    assert_eq!(moved, 0, "a new leader changes nothing by itself");
    world.stop_osd(1);
    world.run_for(Duration::millis(20));
    assert_eq!(world.acting_of(1), 0);
}

#[test]
fn a_clean_stop_hands_over_at_once() {
    let mut world = World::new(2);
    world.run_for(Duration::secs(2));
    let first = world.leader().expect("a leader");
    world.step(first, |mon, env| mon.stop(env));
    assert!(!world.mons[first].mon.has_stopped());
    world.run_for(Duration::millis(20));
    assert!(world.mons[first].mon.has_stopped());
    assert!(world.leader().is_some_and(|second| second != first));
}

/// A leader that lost its key but does not know it yet: what it writes must not count.
#[test]
fn a_leader_of_the_past_changes_nothing() {
    let mut world = World::new(1);
    (1..=4).for_each(|n| world.start_osd(n, &format!("h{n}")));
    world.create_pool(3, 2, 8);
    world.run_for(Duration::secs(4));
    world.mons[0].watchers.clear();
    let kvs = world.read("mon/");
    let usurper =
        String::from_utf8(kvs[0].value.clone()).expect("JSON").replace("\"incarnation\":1", "\"incarnation\":9");
    world.delete(keys::leader());
    world.put(keys::leader(), &usurper);
    let before = world.read("pg/map/");
    let mut node_events: Vec<_> = world.read("osd/state/");
    let state = node_events.remove(0);
    let event = crate::meta::WatchEvent::Delete { key: state.key, revision: 1_000 };
    world.step(0, |mon, env| {
        let changes = mon.map.apply_events(&[event], 1_000);
        mon.changed(env, &changes);
        mon.plan_by(env.now);
        mon.handle(env, Input::Tick);
    });
    world.run_for(Duration::millis(50));
    assert_eq!(world.read("pg/map/"), before);
    assert_eq!(world.leader(), None);
}

#[test]
fn lost_replies_lost_watches_and_restarts_end_in_order() {
    for seed in 0..30 {
        let mut world = World::new(2);
        world.rng = Rng::new(seed);
        world.lost_replies = 4;
        (1..=5).for_each(|n| world.start_osd(n, &format!("h{n}")));
        world.create_pool(3, 2, 70);
        for _ in 0..40 {
            disturb(&mut world);
            let pause = Duration::millis(world.rng.below(3_000));
            world.run_for(pause);
        }
        world.lost_replies = 0;
        for n in 1..=5 {
            world.put(keys::osd_config(OsdId(n)), r#"{"reweight":1.0}"#);
            if !world.osds.contains_key(&n) {
                world.start_osd(n, &format!("h{n}"));
            }
        }
        world.run_for(Duration::secs(30));
        world.settle();
        assert!(world.leader().is_some(), "seed {seed}");
        let map = world.map();
        let whole = |(_, map): &(PgId, &PgMap)| map.acting.iter().flatten().count() == 3;
        assert_eq!(map.pg_maps().filter(whole).count(), 70, "seed {seed}");
    }
}

/// One random event.
fn disturb(world: &mut World) {
    let n = u32::try_from(world.rng.between(1, 5)).expect("small");
    let up = world.osds.contains_key(&n);
    match world.rng.below(8) {
        0 | 1 if up => world.stop_osd(n),
        0..=2 => world.start_osd(n, &format!("h{n}")),
        3 => world.lose_watches(),
        4 => world.trim_all(),
        5 if world.mons.iter().filter(|node| node.alive).count() > 1 => {
            let alive = world.mons.iter().position(|node| node.alive).expect("one is alive");
            world.kill_mon(alive);
        }
        5 => world.start_mon(),
        6 => {
            let revision = world.store.revision();
            world.store.compact(revision).ok();
        }
        _ => {
            let tenths = world.rng.below(4) * 3;
            world.put(keys::osd_config(OsdId(n)), &format!(r#"{{"reweight":0.{tenths}}}"#));
        }
    }
}

#[test]
fn another_cluster_is_refused() {
    let mut world = World::new(0);
    let incarnation = Incarnation(1);
    let cluster = ClusterUuid(CLUSTER + 1);
    let mut mon = Mon::new(MonConfig { incarnation, address: "m:1".into(), cluster, session_ttl_s: 5 });
    let (mut bufs, mut out, mut rng) = (BufPool::new(), Effects::default(), Rng::new(1));
    let mut env = Env { now: Time(1), rng: &mut rng, bufs: &mut bufs, out: &mut out };
    mon.handle(&mut env, Input::Tick);
    let kvs = world.read("");
    let changes = mon.map.apply_range(&kvs, 5);
    mon.changed(&mut env, &changes);
    assert!(matches!(out.queue.last(), Some(Effect::Die(text)) if text.contains("cluster")));
}

#[test]
fn clients_are_served_whether_it_leads_or_not() {
    let mut world = World::cluster(3, 8);
    let subscribe = crate::msg::MapMessage::Subscribe { have: crate::id::Revision(0) };
    let (mut bufs, mut out, mut rng) = (BufPool::new(), Effects::default(), Rng::new(1));
    let mut env = Env { now: world.now, rng: &mut rng, bufs: &mut bufs, out: &mut out };
    let link = crate::id::LinkId(1);
    let mon = &mut world.mons[0].mon;
    mon.handle(&mut env, Input::Message { from: link, msg: Message::Map(subscribe) });
    mon.handle(&mut env, Input::Link(LinkEvent::Down { link }));
    let full = |effect: &Effect| matches!(effect, Effect::Send { msg: Message::Map(crate::msg::MapMessage::Update(u)), .. } if u.full && u.pgs.len() == 8);
    assert!(out.queue.iter().any(full));
}

#[test]
fn copies_are_added_and_taken_away_while_the_pool_is_in_use() {
    let mut world = World::cluster(5, 16);
    let sizes = |world: &mut World| -> BTreeSet<usize> {
        world.map().pg_maps().map(|(_, map)| map.acting.iter().flatten().count()).collect()
    };
    assert_eq!(sizes(&mut world), BTreeSet::from([3]));
    for (size, minsize) in [(4, 2), (2, 1), (3, 2)] {
        world.create_pool(size, minsize, 16);
        world.run_for(Duration::secs(3));
        world.settle();
        assert_eq!(sizes(&mut world), BTreeSet::from([usize::from(size)]), "{size} copies");
        let map = world.map();
        let lengths: BTreeSet<usize> = map.pg_maps().map(|(_, map)| map.acting.len().max(map.target.len())).collect();
        assert_eq!(lengths, BTreeSet::from([usize::from(size)]));
    }
}

/// Members of each group of the layout in force, by place.
fn members_by_place(world: &mut World) -> Vec<Vec<OsdId>> {
    let map = world.map();
    map.groups().map(|(_, map)| map.acting.iter().flatten().map(|member| member.osd).collect()).collect()
}

#[test]
fn a_split_moves_nothing_and_a_merge_begins_where_the_first_part_is() {
    let mut world = World::cluster(4, 4);
    world.settle();
    let before = members_by_place(&mut world);
    let epochs: Vec<u64> = world.map().groups().map(|(_, map)| map.epoch.0).collect();
    world.create_pool(3, 2, 8);
    world.run_for(Duration::millis(200));
    let layout = world.map().layout(PoolId(1)).expect("written with the pool");
    assert_eq!((layout.now.generation, layout.now.pg_count), (1, 8));
    assert_eq!(layout.before.map(|before| before.pg_count), Some(4), "no group has recorded yet");
    for (place, members) in members_by_place(&mut world).iter().enumerate() {
        assert_eq!(members, &before[place / 2], "group {place}");
    }
    let rises = world.map().groups().all(|(pg, map)| map.epoch.0 > epochs[pg.number.place() as usize / 2]);
    assert!(rises, "epochs go on");
    world.settle();
    assert_eq!(world.map().layout(PoolId(1)).and_then(|layout| layout.before), None);
    assert_eq!(
        (world.map().pg_maps().count(), world.map().histories(PoolId(1)).count()),
        (8, 8),
        "nothing old is left"
    );
    let before = members_by_place(&mut world);
    world.create_pool(3, 2, 2);
    world.run_for(Duration::millis(200));
    let after = members_by_place(&mut world);
    assert_eq!((&after[0], &after[1]), (&before[0], &before[4]));
    world.settle();
    assert_eq!(world.map().pg_maps().count(), 2);
}

#[test]
fn a_second_change_waits_for_the_first() {
    let mut world = World::cluster(3, 2);
    world.settle();
    world.create_pool(3, 2, 4);
    world.run_for(Duration::secs(1));
    world.create_pool(3, 2, 8);
    world.run_for(Duration::secs(3));
    let generation = |world: &mut World| world.map().layout(PoolId(1)).map(|layout| layout.now.generation);
    assert_eq!(generation(&mut world), Some(1), "nobody has recorded");
    world.settle();
    assert_eq!(generation(&mut world), Some(2));
    // The groups of the second change record only after those of the first have.
    world.settle();
    assert_eq!(world.map().pg_maps().count(), 8);
}
