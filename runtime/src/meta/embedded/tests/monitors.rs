//! Two monitors, as they are, on the simulated network: their driver's transport, their metadata driver, and members with
//! mishaps. Afterwards one of them leads, both know the same, and every group has its place on the OSDs that are there.

use super::super::super::client::Client;
use super::super::super::driver as meta_driver;
use super::super::super::endpoints::Endpoints;
use super::members::{MEMBERS, PORT, lock, name};
use super::node::connect;
use super::{Mishap, Trial, config, mishap};
use crate::driver::{Driver, MetaClient, MetaOpener, MetaSink, Setup};
use crate::testing::Simulated;
use ashlar_core::id::{ClusterUuid, Incarnation, OsdId, PgId, PgNumber, PoolId, StoreUuid};
use ashlar_core::io::{MetaOp, PeerId};
use ashlar_core::map::{Global, OsdState, PgMap, Pool, Pools, keys};
use ashlar_core::meta::{Keys, Request, Response, Txn, TxnOp};
use ashlar_core::mon::{Mon, MonConfig};
use ashlar_core::wire::Versions;
use ashlar_core::wire::handshake::Identity;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

const CLUSTER: ClusterUuid = ClusterUuid(0x5ee);
const MONITORS: u32 = 2;
const OSDS: u32 = 4;
const GROUPS: u32 = 8;
const POOL: PoolId = PoolId(1);
const SERVING: u16 = 7000;

/// What happens besides, to OSDs and monitors.
#[derive(Clone, Debug)]
enum Event {
    Mishap(Mishap),
    OsdGoes(u32),
    OsdComes(u32),
    KillMonitor(u32),
    /// Between a monitor and a member.
    Cut(u32, usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        mishap().prop_map(Event::Mishap),
        (1..=OSDS).prop_map(Event::OsdGoes),
        (1..=OSDS).prop_map(Event::OsdComes),
        (0..MONITORS).prop_map(Event::KillMonitor),
        (0..MONITORS, 0..MEMBERS).prop_map(|(monitor, member)| Event::Cut(monitor, member)),
    ]
}

/// What is to be seen of a monitor.
#[derive(Clone, Debug, Default, PartialEq)]
struct View {
    leads: bool,
    groups: BTreeMap<PgNumber, PgMap>,
}

type Views = Arc<Mutex<BTreeMap<u32, View>>>;

/// A metadata client whose operations a task of the host executes.
struct Submit(mpsc::UnboundedSender<MetaOp>);

impl MetaClient for Submit {
    fn submit(&mut self, op: MetaOp) {
        // Its task ends with the host.
        let _ = self.0.send(op);
    }
}

fn opener() -> MetaOpener {
    let members: Vec<String> = (0..MEMBERS).map(|member| format!("{}:{PORT}", name(member))).collect();
    let endpoints = Endpoints::parse(&members.join(",")).expect("addresses");
    Box::new(move |sink: MetaSink| {
        let (ops, queue) = mpsc::unbounded_channel();
        tokio::task::spawn_local(async move {
            let client = Client::open_over(&endpoints, connect).await;
            meta_driver::serve(client, queue, Rc::new(move |event| sink(event))).await;
        });
        Box::new(Submit(ops))
    })
}

async fn monitor(number: u32, start: u64, views: Views) -> turmoil::Result {
    let incarnation = Incarnation(start);
    let address = format!("mon{number}:{SERVING}");
    let mon = Mon::new(MonConfig { incarnation, address, cluster: CLUSTER, session_ttl_s: 3 });
    let identity = Identity { cluster: Some(CLUSTER), peer: PeerId::Mon(incarnation), versions: Versions::OURS };
    let listener = turmoil::net::TcpListener::bind(("0.0.0.0", SERVING)).await?;
    let setup = Setup { identity, listener: Some(listener), meta: Some(opener()), seed: start };
    let driver = Driver::start(mon, Simulated::new(), setup);
    loop {
        tokio::select! {
            ending = driver.ended() => return Err(format!("monitor {number} ended: {ending:?}").into()),
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
        let view = driver.with(|mon, _| {
            let groups = mon.map().pg_maps().map(|(pg, map)| (pg.number, map.clone())).collect();
            View { leads: mon.is_leading(), groups }
        });
        views.lock().expect("no panic").insert(number, view);
    }
}

/// What an administrator or an OSD does, at once.
fn change(trial: &Trial, op: TxnOp) {
    let txn = Txn { success: vec![op], ..Txn::default() };
    let done = lock(&trial.cluster).store.apply(trial.now(), Request::Txn(txn));
    assert!(matches!(done, Ok(Response::Txn { succeeded: true, .. })));
}

fn put(trial: &Trial, key: String, value: &impl serde::Serialize) {
    let value = serde_json::to_vec(value).expect("plain data");
    change(trial, TxnOp::Put { key, value, lease: 0 });
}

fn osd_comes(trial: &Trial, osd: u32, incarnation: u64) {
    let state = OsdState {
        address: format!("osd{osd}:1"),
        store: StoreUuid(u128::from(osd)),
        incarnation: Incarnation(incarnation),
        host: format!("host{osd}"),
        size_bytes: 1 << 30,
        trusted: true,
        immediate_commit: Default::default(),
    };
    put(trial, keys::osd_state(OsdId(osd)), &state);
}

fn prepare(trial: &Trial) {
    let global = serde_json::json!({ "cluster": String::from(CLUSTER), "session_ttl_s": 3 });
    let global: Global = serde_json::from_value(global).expect("the rest has defaults");
    put(trial, keys::global(), &global);
    let pool = Pool { name: "pool".into(), pg_size: 3, pg_minsize: 2, pg_count: GROUPS, ..Pool::default() };
    put(trial, keys::pools(), &Pools(BTreeMap::from([(POOL, pool)])));
    (1..=OSDS).for_each(|osd| osd_comes(trial, osd, u64::from(osd)));
}

fn happen(trial: &mut Trial, event: &Event, starts: u64) {
    match event {
        Event::Mishap(mishap) => trial.happen(mishap),
        Event::OsdGoes(osd) => change(trial, TxnOp::Delete(Keys::One(keys::osd_state(OsdId(*osd))))),
        Event::OsdComes(osd) => osd_comes(trial, *osd, 100 + starts),
        Event::KillMonitor(number) => trial.sim.bounce(format!("mon{number}")),
        Event::Cut(number, member) => trial.sim.partition(format!("mon{number}"), name(*member)),
    }
}

fn run(seed: u64, schedule: &[(u64, Event)]) -> Result<(), String> {
    let mut trial = Trial::of_members(seed, "mon0");
    prepare(&trial);
    let views = Views::default();
    for number in 0..MONITORS {
        let (views, starts) = (Arc::clone(&views), std::sync::atomic::AtomicU64::new(1));
        trial.sim.host(format!("mon{number}"), move || {
            let start = starts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            monitor(number, u64::from(number + 1) << 32 | start, Arc::clone(&views))
        });
    }
    for (starts, (before, event)) in (0..).zip(schedule) {
        trial.run_for(*before);
        happen(&mut trial, event, starts);
    }
    (1..=OSDS).for_each(|osd| osd_comes(&trial, osd, 1000));
    for number in 0..MONITORS {
        (0..MEMBERS).for_each(|member| trial.sim.repair(format!("mon{number}"), name(member)));
    }
    trial.mend();
    trial.run_for(20_000);
    let views = views.lock().expect("no panic");
    judge(&views).map_err(|error| format!("{error}: {views:#?}"))
}

fn judge(views: &BTreeMap<u32, View>) -> Result<(), String> {
    let leaders = views.values().filter(|view| view.leads).count();
    if leaders != 1 {
        return Err(format!("{leaders} leaders"));
    }
    let same = views.values().all(|view| view.groups == views[&0].groups);
    if !same || views.len() != MONITORS as usize {
        return Err("the monitors do not know the same".into());
    }
    for number in (0..GROUPS).map(PgNumber) {
        let Some(map) = views[&0].groups.get(&number) else { return Err(format!("{number:?} has no place")) };
        let acting = map.acting.iter().flatten();
        let fresh = acting.clone().all(|member| member.incarnation == Incarnation(1000));
        if acting.count() != 3 || !fresh || map.primary.is_none() {
            return Err(format!("{:?} is not served as it could be", PgId { pool: POOL, number }));
        }
    }
    Ok(())
}

fn any_schedule(mut runner: TestRunner, longest: usize) {
    let schedules = (any::<u64>(), vec((20..2000u64, event()), 0..longest));
    let outcome = runner.run(&schedules, |(seed, schedule)| run(seed, &schedule).map_err(TestCaseError::fail));
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn monitors_come_to_one_mind_after_any_mishaps() {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    any_schedule(TestRunner::new_with_rng(config(4), rng), 12);
}

#[test]
#[ignore = "minutes: the same with many fresh schedules"]
fn monitors_come_to_one_mind_after_any_mishaps_at_length() {
    any_schedule(TestRunner::new(config(400)), 30);
}
