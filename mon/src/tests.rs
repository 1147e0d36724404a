//! The daemon as a whole, with its embedded metadata store.

use super::*;
use ashlar_core::map::{Leader, keys};
use std::path::Path;

/// A directory that is removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ashlar-mon-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a place for test files");
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn free_address() -> SocketAddr {
    let listener = ashlar_runtime::ports::reserve().expect("a free port");
    listener.local_addr().expect("it is bound")
}

fn args(directory: &Path, meta_listen: SocketAddr, bootstrap: bool) -> Args {
    let listen = "127.0.0.1:0".parse().expect("an address");
    Args {
        data: Some(directory.into()),
        meta_listen,
        meta: None,
        access: Access::default(),
        listen,
        metrics: None,
        bootstrap,
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio");
    runtime.block_on(future)
}

async fn wait_for(client: &Client, key: &str, present: bool) -> Option<Vec<u8>> {
    for _ in 0..3000 {
        if let Ok(found) = client.get(key).await
            && found.is_some() == present
        {
            return found.map(|kv| kv.value);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{key} should be {}", if present { "there" } else { "gone" });
}

#[test]
fn creates_the_cluster_leads_and_gives_up_at_sigterm() {
    let directory = Directory::new("leads");
    let address = free_address();
    let daemon = std::thread::spawn({
        let args = args(&directory.0, address, true);
        move || run(args)
    });
    block_on(async {
        let client = Client::open(&Endpoints::parse(&address.to_string()).expect("an endpoint")).await;
        wait_for(&client, &keys::global(), true).await;
        let leader = wait_for(&client, &keys::leader(), true).await.expect("it is there");
        let leader: Leader = serde_json::from_slice(&leader).expect("a leader");
        assert!(leader.address.parse::<SocketAddr>().is_ok_and(|address| address.port() != 0));
    });
    let killed = std::process::Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status();
    assert!(killed.expect("kill").success());
    daemon.join().expect("no panic").expect("a clean end");

    block_on(async {
        let server = EmbeddedServer::start(&directory.0.join(STORE_FILE), address).expect("it was closed");
        let client = Client::open(&Endpoints::parse(&server.address().to_string()).expect("an endpoint")).await;
        assert!(client.get(&keys::leader()).await.expect("an answer").is_none(), "leadership was given up");
        let first = cluster::settings(&client, true).await.expect("settings");
        let second = cluster::settings(&client, true).await.expect("settings");
        assert_eq!(first.cluster, second.cluster, "a cluster is created once");
    });
}

#[test]
fn a_bad_setting_or_no_store_is_told_clearly() {
    let directory = Directory::new("bad");
    block_on(async {
        let any = "127.0.0.1:0".parse().expect("an address");
        let server = EmbeddedServer::start(&directory.0.join(STORE_FILE), any).expect("a store");
        let client = Client::open(&Endpoints::parse(&server.address().to_string()).expect("an endpoint")).await;
        let put = ashlar_core::meta::TxnOp::Put { key: keys::global(), value: b"{}".to_vec(), lease: 0 };
        client.txn(ashlar_core::meta::Txn { success: vec![put], ..Default::default() }).await.expect("a put");
        let error = cluster::settings(&client, true).await.expect_err("no cluster in it").to_string();
        assert!(error.contains("config/global") && error.contains("cluster"), "{error}");
    });
    let mut none = args(&directory.0, free_address(), false);
    none.data = None;
    assert!(run(none).expect_err("no store").to_string().contains("--data"));
}
