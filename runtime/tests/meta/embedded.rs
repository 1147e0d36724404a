//! A node's view of the metadata store, embedded or etcd alike; the embedded one's file, and what etcd's tools see of it.

use crate::support::{Folder, Node, Server, any_port, described, is_installed, put, start};
use ashlar_core::io::{MetaError, MetaEvent, MetaId, MetaOp};
use ashlar_core::meta::{Compare, Keys, Request, Response, Txn, TxnOp};
use ashlar_runtime::meta::{Client, EmbeddedServer, Endpoints, RequestError, StartError};
use std::process::Command;
use std::time::Duration;

#[test]
fn a_node_reads_writes_and_watches() {
    Server::both("node").iter().for_each(reads_writes_and_watches);
}

fn reads_writes_and_watches(server: &Server) {
    let mut node = Node::new(server.endpoints());
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
    Server::both("lease").iter().for_each(leases_end);
}

fn leases_end(server: &Server) {
    let mut node = Node::new(server.endpoints());
    node.revision();
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
    Server::both("restart").iter_mut().for_each(restart);
}

fn restart(server: &mut Server) {
    let mut node = Node::new(server.endpoints());
    node.revision();
    let Ok(Response::LeaseGranted { lease, .. }) = node.request(Request::LeaseGrant { ttl: 60 }) else {
        panic!("a lease");
    };
    node.request(put("/a/leased", "1", lease)).expect("done");
    node.request(Request::LeaseKeepAlive { lease }).expect("opens the stream that breaks");
    node.watch("/a/", 2);
    assert!(matches!(node.next(), MetaEvent::Watch { revision: 2, .. }));
    server.stop();
    let failed = node.request(put("/a/lost", "1", 0));
    assert!(matches!(failed, Err(MetaError::Unavailable | MetaError::Unknown)), "{failed:?}");
    let failed = node.request(put("/a/lost", "1", 0));
    assert_eq!(failed, Err(MetaError::Unavailable), "nobody listens");
    server.start();
    node.revision();
    let wanted = node.submit(put("/a/new", "2", 0));
    let both = [node.next(), node.next()];
    let is_answer = |event: &MetaEvent| matches!(event, MetaEvent::Response { id, result: Ok(_) } if *id == wanted);
    assert!(both.iter().any(is_answer), "{both:?}");
    let seen = both.iter().find_map(|event| match event {
        MetaEvent::Watch { events, .. } => Some(described(events)),
        _ => None,
    });
    assert_eq!(seen, Some(vec!["/a/new=2@3".to_string()]), "{both:?}");
    let Ok(Response::LeaseKept { ttl: 60, .. }) = node.request(Request::LeaseKeepAlive { lease }) else {
        panic!("it has its full time again");
    };
    node.submit(Request::LeaseRevoke { lease });
    let both = [node.next(), node.next()];
    assert!(both.iter().any(|event| matches!(event, MetaEvent::Watch { revision: 4, .. })), "{both:?}");
}

/// What is compacted while a watch is away is lost to it, and it says so, once.
#[test]
fn a_watch_of_compacted_revisions_is_lost() {
    for server in Server::both("compacted") {
        let mut node = Node::new(server.endpoints());
        node.revision();
        for n in 0..5 {
            node.request(put("/a", &n.to_string(), 0)).expect("done");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut client = etcd_client::Client::connect([server.address.to_string()], None).await.expect("there");
            client.compact(5, None).await.expect("possible");
        });
        let lost = node.watch("/", 3);
        assert_eq!(node.next(), MetaEvent::WatchLost { id: lost });
        let whole = node.watch("/", 6);
        assert!(matches!(node.next(), MetaEvent::Watch { id, revision: 6, .. } if id == whole));
        assert_eq!(node.next_soon(), None);
    }
}

#[test]
fn an_ended_watch_is_silent() {
    for server in Server::both("unwatch") {
        let mut node = Node::new(server.endpoints());
        node.revision();
        let watch = node.watch("/", 1);
        node.submit(put("/a", "", 0));
        let _ = [node.next(), node.next()];
        node.driver.submit(MetaOp::Unwatch { id: watch });
        node.request(put("/a", "", 0)).expect("done, and nothing else is heard");
        assert_eq!(node.next_soon(), None);
    }
}

#[test]
fn what_is_not_served_is_named() {
    let server = Server::embedded("unserved");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut client = etcd_client::Client::connect([server.address.to_string()], None).await.expect("there");
        let error = client.user_list().await.expect_err("there are no users").to_string();
        assert!(error.contains("does not serve /etcdserverpb.Auth/UserList"), "{error}");
        let inner = etcd_client::TxnOp::txn(etcd_client::Txn::new());
        let error = client.txn(etcd_client::Txn::new().and_then([inner])).await.expect_err("not served").to_string();
        assert!(error.contains("no transactions within transactions"), "{error}");
        let error = client.put(vec![0xff], "", None).await.expect_err("no text").to_string();
        assert!(error.contains("must be UTF-8"), "{error}");
    });
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

fn etcdctl(server: &EmbeddedServer, words: &[&str]) -> String {
    let endpoint = format!("--endpoints={}", server.address());
    let output = Command::new("etcdctl").env("ETCDCTL_API", "3").arg(endpoint).args(words).output();
    let output = output.expect("installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "etcdctl {words:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn etcdctl_works_on_it() {
    if !is_installed("etcdctl", "etcd-client") {
        return;
    }
    let folder = Folder::new("etcdctl");
    let server = start(&folder.store(), any_port());
    assert_eq!(etcdctl(&server, &["put", "/ashlar/config/global", "{}"]), "OK\n");
    etcdctl(&server, &["put", "/ashlar/config/pools", "[]"]);
    let listed = etcdctl(&server, &["get", "--prefix", "/ashlar"]);
    assert_eq!(listed, "/ashlar/config/global\n{}\n/ashlar/config/pools\n[]\n");
    let keys = etcdctl(&server, &["get", "--prefix", "/", "--keys-only", "--limit=1", "--order=DESCEND"]);
    assert_eq!(keys.trim(), "/ashlar/config/pools");
    assert_eq!(etcdctl(&server, &["get", "/ashlar/config/pools", "--rev=2"]), "");
    let watched = etcdctl(&server, &["del", "/ashlar/config/pools", "--prev-kv"]);
    assert_eq!(watched, "1\n/ashlar/config/pools\n[]\n");
    let granted = etcdctl(&server, &["lease", "grant", "60"]);
    let lease = granted.split_whitespace().nth(1).expect("lease ID granted").to_string();
    etcdctl(&server, &["put", "/leased", "1", &format!("--lease={lease}")]);
    let told = etcdctl(&server, &["lease", "timetolive", &lease, "--keys"]);
    assert!(told.contains("granted with TTL(60s)") && told.contains("/leased"), "{told}");
    assert!(etcdctl(&server, &["lease", "list"]).contains(&lease));
    etcdctl(&server, &["lease", "revoke", &lease]);
    etcdctl(&server, &["compact", "4"]);
    etcdctl(&server, &["endpoint", "health"]);
    let status = etcdctl(&server, &["endpoint", "status", "-w", "json"]);
    assert!(status.contains("\"revision\":6"), "{status}");
    etcdctl(&server, &["member", "list"]);
}
