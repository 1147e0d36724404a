//! The embedded metadata store from outside: its file, its service, restarts, and what etcd's own tools see of it.

use ashlar_core::io::{MetaError, MetaEvent, MetaId, MetaOp};
use ashlar_core::meta::{Compare, Keys, Request, Response, Txn, TxnOp, WatchEvent};
use ashlar_runtime::meta::{Client, Driver, EmbeddedServer, Endpoints, RequestError, StartError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("ashlar-embedded-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the temporary folder is writable");
        Folder(path)
    }

    fn store(&self) -> PathBuf {
        self.0.join("meta.redb")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn start(path: &Path, listen: SocketAddr) -> EmbeddedServer {
    EmbeddedServer::start(path, listen).unwrap_or_else(|error| panic!("{error}"))
}

fn endpoints(server: &EmbeddedServer) -> Endpoints {
    Endpoints::parse(&server.address().to_string()).expect("an address")
}

fn put(key: &str, value: &str, lease: u64) -> Request {
    let success = vec![TxnOp::Put { key: key.into(), value: value.into(), lease }];
    Request::Txn(Txn { compare: vec![], success, failure: vec![] })
}

/// A driver whose events are taken one by one.
struct Node {
    driver: Driver,
    events: Receiver<MetaEvent>,
    last_id: u64,
}

impl Node {
    fn new(endpoints: Endpoints) -> Node {
        let (sender, events) = mpsc::channel();
        Node { driver: Driver::start(endpoints, move |event| drop(sender.send(event))), events, last_id: 0 }
    }

    fn next(&self) -> MetaEvent {
        self.events.recv_timeout(PATIENCE).expect("an event")
    }

    fn request(&mut self, request: Request) -> Result<Response, MetaError> {
        self.last_id += 1;
        self.driver.submit(MetaOp::Request { id: MetaId(self.last_id), request });
        match self.next() {
            MetaEvent::Response { id, result } if id.0 == self.last_id => result,
            other => panic!("{other:?} instead of response {}", self.last_id),
        }
    }

    fn revision(&mut self) -> u64 {
        match self.request(Request::Range(Keys::One("/none".into()))) {
            Ok(Response::Range { revision, .. }) => revision,
            other => panic!("{other:?}"),
        }
    }

    fn watch(&mut self, prefix: &str, from: u64) -> MetaId {
        self.last_id += 1;
        let id = MetaId(self.last_id);
        self.driver.submit(MetaOp::Watch { id, prefix: prefix.into(), from });
        id
    }
}

/// Keys and values of the puts, keys of the deletions.
fn described(events: &[WatchEvent]) -> Vec<String> {
    let describe = |event: &WatchEvent| match event {
        WatchEvent::Put(kv) => format!("{}={}@{}", kv.key, String::from_utf8_lossy(&kv.value), kv.mod_revision),
        WatchEvent::Delete { key, revision } => format!("-{key}@{revision}"),
    };
    events.iter().map(describe).collect()
}

#[test]
fn a_node_reads_writes_and_watches() {
    let folder = Folder::new("node");
    let server = start(&folder.store(), any_port());
    let mut node = Node::new(endpoints(&server));
    assert_eq!(node.revision(), 1);
    let create = |value: &str| {
        let success = vec![TxnOp::Put { key: "/ashlar/a".into(), value: value.into(), lease: 0 }];
        let failure = vec![TxnOp::Range(Keys::Prefix("/ashlar/".into()))];
        Request::Txn(Txn { compare: vec![Compare::ModRevision("/ashlar/a".into(), 0)], success, failure })
    };
    assert!(matches!(node.request(create("1")), Ok(Response::Txn { revision: 2, succeeded: true, .. })));
    assert!(matches!(node.request(create("2")), Ok(Response::Txn { revision: 2, succeeded: false, .. })));
    let watch = node.watch("/ashlar/", 1);
    let MetaEvent::Watch { id, revision: 2, events } = node.next() else { panic!("the past comes first") };
    assert_eq!((id, described(&events)), (watch, vec!["/ashlar/a=1@2".to_string()]));
    let delete_all = vec![TxnOp::Delete(Keys::Prefix("".into()))];
    node.driver.submit(MetaOp::Request {
        id: MetaId(100),
        request: Request::Txn(Txn { compare: vec![], success: delete_all, failure: vec![] }),
    });
    let both = [node.next(), node.next()];
    assert!(both.iter().any(|event| matches!(event, MetaEvent::Response { id: MetaId(100), result: Ok(_) })));
    assert!(
        both.iter().any(|event| matches!(event, MetaEvent::Watch { revision: 3, events, .. } if events.len() == 1))
    );
    let refused = node.request(put("/ashlar/b", "", 4_711));
    assert_eq!(refused, Err(MetaError::Refused("etcdserver: requested lease not found".into())));
}

#[test]
fn leases_end_unless_renewed_and_their_keys_with_them() {
    let folder = Folder::new("lease");
    let server = start(&folder.store(), any_port());
    let mut node = Node::new(endpoints(&server));
    let Ok(Response::LeaseGranted { lease, ttl: 2 }) = node.request(Request::LeaseGrant { ttl: 2 }) else {
        panic!("a lease of 2 s");
    };
    node.request(put("/up", "", lease)).expect("done");
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(700));
        let kept = node.request(Request::LeaseKeepAlive { lease });
        assert_eq!(kept, Ok(Response::LeaseKept { lease, ttl: 2 }));
    }
    node.watch("/up", 3);
    let MetaEvent::Watch { revision: 3, events, .. } = node.next() else { panic!("its end is seen") };
    assert_eq!(described(&events), ["-/up@3"]);
    assert_eq!(node.request(Request::LeaseKeepAlive { lease }), Ok(Response::LeaseKept { lease, ttl: 0 }));
    let revoked = node.request(Request::LeaseRevoke { lease });
    assert!(matches!(revoked, Err(MetaError::Refused(_))));
}

#[test]
fn a_restart_keeps_everything_and_watches_go_on() {
    let folder = Folder::new("restart");
    let server = start(&folder.store(), any_port());
    let address = server.address();
    let mut node = Node::new(endpoints(&server));
    let Ok(Response::LeaseGranted { lease, .. }) = node.request(Request::LeaseGrant { ttl: 60 }) else {
        panic!("a lease");
    };
    node.request(put("/a/leased", "1", lease)).expect("done");
    node.watch("/a/", 2);
    assert!(matches!(node.next(), MetaEvent::Watch { revision: 2, .. }));
    drop(server);
    let failed = node.request(put("/a/lost", "1", 0));
    assert!(matches!(failed, Err(MetaError::Unavailable | MetaError::Unknown)), "{failed:?}");
    let failed = node.request(put("/a/lost", "1", 0));
    assert_eq!(failed, Err(MetaError::Unavailable), "nobody listens");
    let server = start(&folder.store(), address);
    node.driver.submit(MetaOp::Request { id: MetaId(100), request: put("/a/new", "2", 0) });
    let both = [node.next(), node.next()];
    assert!(both.iter().any(|event| matches!(event, MetaEvent::Response { result: Ok(_), .. })), "{both:?}");
    let seen = both.iter().find_map(|event| match event {
        MetaEvent::Watch { events, .. } => Some(described(events)),
        _ => None,
    });
    assert_eq!(seen, Some(vec!["/a/new=2@3".to_string()]), "{both:?}");
    assert_eq!(node.request(Request::LeaseKeepAlive { lease }), Ok(Response::LeaseKept { lease, ttl: 60 }));
    node.request(Request::LeaseRevoke { lease }).expect("it lives");
    assert!(matches!(node.next(), MetaEvent::Watch { revision: 4, .. }));
    drop(server);
}

#[test]
fn starting_fails_clearly() {
    let folder = Folder::new("start");
    let server = start(&folder.store(), any_port());
    let port = EmbeddedServer::start(&folder.0.join("other"), server.address()).err().expect("in use");
    assert!(matches!(port, StartError::PortInUse(_)), "{port}");
    let locked = EmbeddedServer::start(&folder.store(), any_port()).err().expect("locked");
    assert!(matches!(locked, StartError::Locked(_)), "{locked}");
    let foreign = folder.0.join("foreign");
    std::fs::write(&foreign, "a text that somebody wrote").expect("writable");
    let error = EmbeddedServer::start(&foreign, any_port()).err().expect("foreign");
    assert!(matches!(error, StartError::Foreign(..)), "{error}");
    let error = EmbeddedServer::start(&folder.0.join("no/such"), any_port()).err().expect("no folder");
    assert!(matches!(error, StartError::Unopened(..)), "{error}");
}

#[test]
fn databases_of_others_and_of_the_future_are_refused() {
    let folder = Folder::new("format");
    let other = redb::TableDefinition::<&str, u64>::new("others");
    let facts = redb::TableDefinition::<&str, u64>::new("facts");
    for (name, table) in [("others", other), ("newer", facts)] {
        let database = redb::Database::create(folder.0.join(name)).expect("new");
        let transaction = database.begin_write().expect("new");
        transaction.open_table(table).expect("new").insert("format", 2).expect("new");
        transaction.commit().expect("new");
    }
    let error = EmbeddedServer::start(&folder.0.join("others"), any_port()).err().expect("foreign");
    assert!(matches!(error, StartError::Foreign(..)), "{error}");
    let error = EmbeddedServer::start(&folder.0.join("newer"), any_port()).err().expect("newer");
    assert!(matches!(error, StartError::Newer { found: 2, known: 1, .. }), "{error}");
}

#[test]
fn administration_gets_reasons_in_words() {
    let folder = Folder::new("words");
    let server = start(&folder.store(), any_port());
    let list = format!("127.0.0.1:1,{}", server.address());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = Client::open(&Endpoints::parse(&list).expect("addresses")).await;
        let success = vec![TxnOp::Put { key: "/b".into(), value: "1".into(), lease: 0 }];
        let done = client.txn(Txn { compare: vec![], success, failure: vec![] }).await;
        assert!(matches!(done, Ok((true, _))), "the second address answers: {done:?}");
        assert_eq!(client.get("/b").await.expect("there").map(|kv| kv.value), Some(b"1".to_vec()));
        assert_eq!(client.get_prefix("/").await.expect("there").1.len(), 1);
        let alone = Client::open(&Endpoints::parse("127.0.0.1:1").expect("an address")).await;
        let error = alone.get("/b").await.expect_err("nobody is there");
        assert!(matches!(&error, RequestError::Unavailable(reason) if reason.contains("refused")), "{error}");
        assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    });
}

/// etcd's command-line client, if it is here; a build that tests everything must have it.
fn etcdctl(server: &EmbeddedServer, words: &[&str]) -> Option<String> {
    let endpoint = format!("--endpoints={}", server.address());
    let output = match Command::new("etcdctl").env("ETCDCTL_API", "3").arg(endpoint).args(words).output() {
        Ok(output) => output,
        Err(error) if std::env::var_os("CI").is_some() => panic!("etcdctl (Debian: etcd-client) is missing: {error}"),
        Err(_) => {
            eprintln!("SKIPPED: etcdctl (Debian: etcd-client) is not installed");
            return None;
        }
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "etcdctl {words:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    Some(text)
}

#[test]
fn etcdctl_works_on_it() {
    let folder = Folder::new("etcdctl");
    let server = start(&folder.store(), any_port());
    let Some(put) = etcdctl(&server, &["put", "/ashlar/config/global", "{}"]) else { return };
    assert_eq!(put, "OK\n");
    etcdctl(&server, &["put", "/ashlar/config/pools", "[]"]);
    let listed = etcdctl(&server, &["get", "--prefix", "/ashlar"]).expect("installed");
    assert_eq!(listed, "/ashlar/config/global\n{}\n/ashlar/config/pools\n[]\n");
    let keys = etcdctl(&server, &["get", "--prefix", "/", "--keys-only", "--limit=1", "--order=DESCEND"]);
    assert_eq!(keys.expect("installed").trim(), "/ashlar/config/pools");
    assert_eq!(etcdctl(&server, &["get", "/ashlar/config/pools", "--rev=2"]).expect("installed"), "");
    let watched = etcdctl(&server, &["del", "/ashlar/config/pools", "--prev-kv"]).expect("installed");
    assert_eq!(watched, "1\n/ashlar/config/pools\n[]\n");
    let granted = etcdctl(&server, &["lease", "grant", "60"]).expect("installed");
    let lease = granted.split_whitespace().nth(1).expect("lease ID granted").to_string();
    etcdctl(&server, &["put", "/leased", "1", &format!("--lease={lease}")]);
    let told = etcdctl(&server, &["lease", "timetolive", &lease, "--keys"]).expect("installed");
    assert!(told.contains("granted with TTL(60s)") && told.contains("/leased"), "{told}");
    assert!(etcdctl(&server, &["lease", "list"]).expect("installed").contains(&lease));
    etcdctl(&server, &["lease", "revoke", &lease]);
    etcdctl(&server, &["compact", "4"]);
    etcdctl(&server, &["endpoint", "health"]);
    let status = etcdctl(&server, &["endpoint", "status", "-w", "json"]).expect("installed");
    assert!(status.contains("\"revision\":6"), "{status}");
    etcdctl(&server, &["member", "list"]);
}
