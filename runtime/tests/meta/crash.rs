//! kill -9 of the embedded store under load: what was acknowledged is there, what was not is there wholly or not at all,
//! and a watcher sees each change once.

use crate::support::{ChildProcess, Folder, Node, free_port, start};
use ashlar_core::io::{MetaEvent, MetaId, MetaOp};
use ashlar_core::meta::{KeyValue, Request, Response, Txn, TxnOp, WatchEvent};
use ashlar_runtime::meta::{Client, Driver, Endpoints};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const STORE: &str = "ASHLAR_TEST_STORE";
const ADDRESS: &str = "ASHLAR_TEST_ADDRESS";
const KILLS: u32 = 6;
const WRITERS: usize = 8;

/// Not a test: the process that the crash test kills.
#[test]
#[ignore = "started by the crash test, as a process of its own"]
fn serve() {
    let path = std::env::var_os(STORE).expect("given by the crash test");
    let address: SocketAddr = std::env::var(ADDRESS).expect("given").parse().expect("an address");
    let _server = start(path.as_ref(), address);
    loop {
        std::thread::park();
    }
}

fn start_child(folder: &Folder, address: SocketAddr) -> ChildProcess {
    let child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "crash::serve", "--ignored"])
        .env(STORE, folder.store())
        .env(ADDRESS, address.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    ChildProcess(child.expect("this program starts again"))
}

/// What writers know: attempts by key, and whether they were acknowledged.
type Known = Arc<Mutex<BTreeMap<String, bool>>>;

/// Writes pairs of keys, each pair once, until the time is over.
async fn write(endpoints: Endpoints, writer: usize, known: Known, until: Instant) {
    let client = Client::open(&endpoints).await;
    for n in 0.. {
        if Instant::now() >= until {
            return;
        }
        let key = format!("{writer}/{n:06}");
        known.lock().expect("whole").insert(key.clone(), false);
        let put = |side: &str| TxnOp::Put { key: format!("/{side}/{key}"), value: key.clone().into(), lease: 0 };
        match client.txn(Txn { compare: vec![], success: vec![put("left"), put("right")], failure: vec![] }).await {
            Ok(_) => drop(known.lock().expect("whole").insert(key, true)),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Kills and restarts the store while writers write: what they know.
fn write_through_kills(folder: &Folder, address: SocketAddr) -> Known {
    let endpoints = Endpoints::parse(&address.to_string()).expect("an address");
    let known = Known::default();
    let until = Instant::now() + Duration::from_millis(800) * KILLS;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (endpoints, known) = (endpoints.clone(), Arc::clone(&known));
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(write(endpoints, writer, known, until));
            })
        })
        .collect();
    for round in 0..KILLS {
        let child = start_child(folder, address);
        std::thread::sleep(Duration::from_millis(500 + u64::from(round) * 37));
        drop(child);
    }
    writers.into_iter().for_each(|writer| writer.join().expect("writers do not panic"));
    known
}

fn signal(child: &ChildProcess, name: &str) {
    let done = Command::new("kill").args([name, &child.0.id().to_string()]).status();
    assert!(done.expect("every system has it").success());
}

/// Nobody could renew a lease while the store was stopped.
#[test]
fn leases_outlive_a_stopped_store() {
    let folder = Folder::new("stopped");
    let address = free_port();
    let child = start_child(&folder, address);
    let mut node = Node::new(Endpoints::parse(&address.to_string()).expect("an address"));
    let Response::LeaseGranted { lease, .. } = node.insist(&Request::LeaseGrant { ttl: 2 }) else { panic!("a lease") };
    signal(&child, "-STOP");
    std::thread::sleep(Duration::from_secs(4));
    signal(&child, "-CONT");
    assert_eq!(node.insist(&Request::LeaseKeepAlive { lease }), Response::LeaseKept { lease, ttl: 2 });
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(node.insist(&Request::LeaseKeepAlive { lease }), Response::LeaseKept { lease, ttl: 0 });
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let folder = Folder::new("crash");
    let address = free_port();
    let endpoints = Endpoints::parse(&address.to_string()).expect("an address");
    let (sender, events) = mpsc::channel();
    let watcher = Driver::start(endpoints.clone(), move |event| drop(sender.send(event)));
    watcher.submit(MetaOp::Watch { id: MetaId(1), prefix: "/".into(), from: 1 });
    let known = write_through_kills(&folder, address);
    let server = start(&folder.store(), address);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (revision, kvs) = runtime.block_on(async {
        let client = Client::open(&endpoints).await;
        client.get_prefix("/").await.expect("the store is there")
    });
    check_keys(&known.lock().expect("whole"), &kvs);
    watcher.submit(MetaOp::Request {
        id: MetaId(2),
        request: Request::Txn(Txn {
            compare: vec![],
            success: vec![TxnOp::Put { key: "/end".into(), value: vec![], lease: 0 }],
            failure: vec![],
        }),
    });
    check_events(revision + 1, &kvs, &events);
    drop(server);
}

fn check_keys(known: &BTreeMap<String, bool>, kvs: &[KeyValue]) {
    let found: BTreeMap<&str, u64> = kvs.iter().map(|kv| (kv.key.as_str(), kv.mod_revision)).collect();
    let mut acknowledged = 0;
    for (key, is_acknowledged) in known {
        let [left, right] = ["left", "right"].map(|side| found.get(format!("/{side}/{key}").as_str()));
        assert_eq!(left, right, "half a transaction: {key}");
        assert!(!is_acknowledged || left.is_some(), "{key} was acknowledged and is lost");
        acknowledged += u32::from(*is_acknowledged);
    }
    assert!(kvs.iter().all(|kv| known.contains_key(&kv.key[kv.key.find(char::is_numeric).expect("a number")..])));
    assert!(acknowledged > 50, "only {acknowledged} writes in {KILLS} rounds");
    println!("{acknowledged} acknowledged of {} attempted, {} found", known.len(), found.len() / 2);
}

/// The watcher was told of every key, once, in order.
fn check_events(end: u64, kvs: &[KeyValue], events: &mpsc::Receiver<MetaEvent>) {
    let mut told = BTreeMap::new();
    let mut last = 0;
    while last < end {
        match events.recv_timeout(crate::support::PATIENCE).expect("events up to the end") {
            MetaEvent::Watch { revision, events, .. } => {
                assert!(revision > last, "{revision} after {last}");
                last = revision;
                for event in events {
                    let WatchEvent::Put(kv) = event else { panic!("nobody deletes: {event:?}") };
                    assert_eq!(told.insert(kv.key.clone(), kv.mod_revision), None, "{} twice", kv.key);
                }
            }
            MetaEvent::Response { .. } => (),
            MetaEvent::WatchLost { .. } => panic!("the history is long enough"),
        }
    }
    told.remove("/end");
    let expected: BTreeMap<_, _> = kvs.iter().map(|kv| (kv.key.clone(), kv.mod_revision)).collect();
    assert_eq!(told, expected);
}
