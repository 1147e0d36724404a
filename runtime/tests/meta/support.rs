//! Servers to test against, and a node's view of them.

use ashlar_core::io::{MetaError, MetaEvent, MetaId, MetaOp};
use ashlar_core::meta::{Keys, Request, Response, Txn, TxnOp, WatchEvent};
use ashlar_runtime::meta::{Driver, EmbeddedServer, Endpoints};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A folder that is removed at the end; in memory where that can be, to spare the disk.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let shared_memory = Path::new("/dev/shm");
        let parent = if shared_memory.is_dir() { shared_memory.into() } else { std::env::temp_dir() };
        let path = parent.join(format!("ashlar-meta-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the temporary folder is writable");
        Folder(path)
    }

    pub fn store(&self) -> PathBuf {
        self.0.join("meta.redb")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A port that was free a moment ago.
pub fn free_port() -> SocketAddr {
    ashlar_runtime::ports::reserve().and_then(|listener| listener.local_addr()).expect("a port")
}

/// Whether a program that this test needs is here. Panics if it must be.
pub fn is_installed(program: &str, package: &str) -> bool {
    let found = Command::new(program).arg("--version").env("ETCDCTL_API", "3").output().is_ok();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{program} is missing: apt-get install {package}");
        eprintln!("SKIPPED: {program} is not installed (apt-get install {package})");
    }
    found
}

pub fn start(path: &Path, listen: SocketAddr) -> EmbeddedServer {
    EmbeddedServer::start(path, listen).unwrap_or_else(|error| panic!("{error}"))
}

/// A server of either kind, which can be stopped and started again with its data.
pub struct Server {
    folder: Folder,
    pub address: SocketAddr,
    running: Option<Running>,
    is_etcd: bool,
}

#[allow(dead_code, reason = "held for their end")]
enum Running {
    Embedded(EmbeddedServer),
    Etcd(ChildProcess),
}

/// A process that is killed at the end.
pub struct ChildProcess(pub Child);

impl Drop for ChildProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    pub fn embedded(name: &str) -> Server {
        let mut server = Server { folder: Folder::new(name), address: free_port(), running: None, is_etcd: false };
        server.start();
        server
    }

    /// Nothing, if etcd is not installed.
    pub fn etcd(name: &str) -> Option<Server> {
        if !is_installed("etcd", "etcd-server") {
            return None;
        }
        let folder = Folder::new(&format!("{name}-etcd"));
        let mut server = Server { folder, address: free_port(), running: None, is_etcd: true };
        server.start();
        Some(server)
    }

    pub fn both(name: &str) -> Vec<Server> {
        [Some(Server::embedded(name)), Server::etcd(name)].into_iter().flatten().collect()
    }

    pub fn endpoints(&self) -> Endpoints {
        Endpoints::parse(&self.address.to_string()).expect("an address")
    }

    pub fn stop(&mut self) {
        self.running = None;
    }

    pub fn start(&mut self) {
        self.running = Some(if self.is_etcd {
            Running::Etcd(start_etcd(&self.folder.0, self.address))
        } else {
            Running::Embedded(start(&self.folder.store(), self.address))
        });
    }
}

fn start_etcd(folder: &Path, address: SocketAddr) -> ChildProcess {
    let (client, peer) = (format!("http://{address}"), format!("http://{}", free_port()));
    let log = std::fs::File::create(folder.join("log")).expect("writable");
    let child = Command::new("etcd")
        .arg("--data-dir")
        .arg(folder.join("data"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file"))
        .stderr(log)
        .spawn()
        .expect("etcd is installed");
    let child = ChildProcess(child);
    let started = Instant::now();
    while TcpStream::connect(address).is_err() {
        let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        assert!(started.elapsed() < PATIENCE, "etcd does not listen on {address}: {}", log());
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

pub fn put(key: &str, value: &str, lease: u64) -> Request {
    let success = vec![TxnOp::Put { key: key.into(), value: value.into(), lease }];
    Request::Txn(Txn { compare: vec![], success, failure: vec![] })
}

/// A driver whose events are taken one by one.
pub struct Node {
    pub driver: Driver,
    events: Receiver<MetaEvent>,
    last_id: u64,
}

impl Node {
    pub fn new(endpoints: Endpoints) -> Node {
        let (sender, events) = mpsc::channel();
        Node { driver: Driver::start(endpoints, move |event| drop(sender.send(event))), events, last_id: 0 }
    }

    pub fn next(&self) -> MetaEvent {
        self.events.recv_timeout(PATIENCE).expect("an event")
    }

    /// The next event, if there is one soon.
    pub fn next_soon(&self) -> Option<MetaEvent> {
        self.events.recv_timeout(Duration::from_millis(300)).ok()
    }

    pub fn submit(&mut self, request: Request) -> MetaId {
        self.last_id += 1;
        let id = MetaId(self.last_id);
        self.driver.submit(MetaOp::Request { id, request });
        id
    }

    pub fn request(&mut self, request: Request) -> Result<Response, MetaError> {
        let expected = self.submit(request);
        match self.next() {
            MetaEvent::Response { id, result } if id == expected => result,
            other => panic!("{other:?} instead of response {expected:?}"),
        }
    }

    /// As [`Node::request`], again and again until the store is there.
    pub fn insist(&mut self, request: &Request) -> Response {
        let started = Instant::now();
        loop {
            match self.request(request.clone()) {
                Ok(response) => return response,
                Err(error) => assert!(started.elapsed() < PATIENCE, "{error:?}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn revision(&mut self) -> u64 {
        match self.insist(&Request::Range(Keys::One("/none".into()))) {
            Response::Range { revision, .. } => revision,
            other => panic!("{other:?}"),
        }
    }

    pub fn watch(&mut self, prefix: &str, from: u64) -> MetaId {
        self.last_id += 1;
        let id = MetaId(self.last_id);
        self.driver.submit(MetaOp::Watch { id, prefix: prefix.into(), from });
        id
    }
}

/// Keys and values of the puts, keys of the deletions.
pub fn described(events: &[WatchEvent]) -> Vec<String> {
    let describe = |event: &WatchEvent| match event {
        WatchEvent::Put(kv) => format!("{}={}@{}", kv.key, String::from_utf8_lossy(&kv.value), kv.mod_revision),
        WatchEvent::Delete { key, revision } => format!("-{key}@{revision}"),
    };
    events.iter().map(describe).collect()
}
