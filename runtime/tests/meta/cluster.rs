//! A real cluster of three etcd processes under a node: members killed, stopped, without a majority; compaction; a member
//! that asks for certificates and passwords.
//!
//! What must hold whatever happens to members: each change is made once, each watcher sees each change once and in order, a
//! lease that is renewed lives.

use crate::support::{ChildProcess, Folder, Node, PATIENCE, described, free_port, is_installed, put};
use ashlar_core::io::{MetaError, MetaEvent, MetaId, MetaOp};
use ashlar_core::meta::{Compare, Keys, Request, Response, Txn, TxnOp};
use ashlar_runtime::meta::{Access, Client, Endpoints, RequestError};
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Seconds to live of the node's lease: longer than a change of leaders, shorter than the test.
const LEASE_TTL: u64 = 8;

struct Member {
    name: String,
    client: SocketAddr,
    peer: SocketAddr,
    process: Option<ChildProcess>,
}

/// Three members on one machine.
struct Cluster {
    folder: Folder,
    members: Vec<Member>,
}

impl Cluster {
    fn start(name: &str) -> Option<Cluster> {
        if !is_installed("etcd", "etcd-server") || !is_installed("etcdctl", "etcd-client") {
            return None;
        }
        let member = |n| Member { name: format!("m{n}"), client: free_port(), peer: free_port(), process: None };
        let mut cluster = Cluster { folder: Folder::new(name), members: (0..3).map(member).collect() };
        (0..3).for_each(|n| cluster.revive(n));
        cluster.wait_healthy();
        Some(cluster)
    }

    fn endpoints(&self) -> String {
        self.members.iter().map(|member| member.client.to_string()).collect::<Vec<_>>().join(",")
    }

    fn revive(&mut self, n: usize) {
        let all: Vec<_> = self.members.iter().map(|m| format!("{}=http://{}", m.name, m.peer)).collect();
        let member = &mut self.members[n];
        let (client, peer) = (format!("http://{}", member.client), format!("http://{}", member.peer));
        let mut command = Command::new("etcd");
        command.args(["--name", &member.name, "--initial-cluster", &all.join(",")]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--heartbeat-interval", "100", "--election-timeout", "600"]);
        member.process = Some(spawn(&mut command, &self.folder.0, &member.name));
    }

    fn kill(&mut self, n: usize) {
        self.members[n].process = None;
    }

    fn signal(&self, n: usize, signal: &str) {
        let process = self.members[n].process.as_ref().expect("it runs");
        let pid = process.0.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill is there").success());
    }

    /// The member that leads, as one that answers says.
    fn leader(&self) -> usize {
        let started = Instant::now();
        loop {
            for (n, member) in self.members.iter().enumerate() {
                let status = etcdctl(member.client, &["endpoint", "status", "--write-out=json"]);
                let status: String = status.split_whitespace().collect();
                let id = |field: &str| {
                    let rest = status.split(&format!("\"{field}\":")).nth(1)?;
                    Some(rest.split([',', '}']).next()?.to_string())
                };
                if id("leader").is_some() && id("leader") == id("member_id") {
                    return n;
                }
            }
            assert!(started.elapsed() < PATIENCE, "nobody leads");
        }
    }

    fn wait_healthy(&self) {
        for member in self.members.iter().filter(|member| member.process.is_some()) {
            let started = Instant::now();
            while !etcdctl(member.client, &["endpoint", "health", "--write-out=json"]).contains("true") {
                assert!(started.elapsed() < PATIENCE, "{} does not come back", member.name);
            }
        }
    }

    fn compact(&self, revision: u64) {
        let member = self.members.iter().find(|member| member.process.is_some()).expect("one runs");
        etcdctl(member.client, &["compact", &revision.to_string()]);
    }
}

fn spawn(command: &mut Command, folder: &Path, name: &str) -> ChildProcess {
    let log = std::fs::File::options().create(true).append(true).open(folder.join(format!("{name}.log")));
    let log = log.expect("writable");
    command.arg("--data-dir").arg(folder.join(name)).arg("--unsafe-no-fsync").env("ETCD_UNSUPPORTED_ARCH", "arm64");
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log);
    let child: Child = command.spawn().expect("etcd is installed");
    ChildProcess(child)
}

fn etcdctl(address: SocketAddr, arguments: &[&str]) -> String {
    let output = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={address}"))
        .args(["--command-timeout=2s", "--dial-timeout=1s"])
        .args(arguments)
        .output()
        .expect("etcdctl is there");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a node does all the time: one change after the other, each made exactly once; a lease; a watch of everything.
struct Story {
    node: Node,
    lease: u64,
    renewed: Instant,
    watch: MetaId,
    written: u64,
    seen: Vec<u64>,
    revisions: Vec<u64>,
    longest: Duration,
}

impl Story {
    fn begin(endpoints: &str) -> Story {
        let mut node = Node::new(Endpoints::parse(endpoints).expect("addresses"));
        let from = node.revision() + 1;
        let Response::LeaseGranted { lease, .. } = node.insist(&Request::LeaseGrant { ttl: LEASE_TTL }) else {
            panic!("a lease");
        };
        let watch = node.watch("/k/", from);
        let (seen, revisions) = (Vec::new(), Vec::new());
        Story { node, lease, renewed: Instant::now(), watch, written: 0, seen, revisions, longest: Duration::ZERO }
    }

    /// Takes events until the answer to `id` is there.
    fn answer(&mut self, id: MetaId) -> Result<Response, MetaError> {
        loop {
            match self.node.next() {
                MetaEvent::Response { id: answered, result } if answered == id => return result,
                event => self.look(event),
            }
        }
    }

    fn look(&mut self, event: MetaEvent) {
        let MetaEvent::Watch { id, revision, events } = event else { panic!("unexpected {event:?}") };
        assert_eq!(id, self.watch);
        for text in described(&events) {
            let number = text.split(['/', '=']).nth(2).and_then(|number| number.parse().ok());
            self.seen.push(number.unwrap_or_else(|| panic!("{text}")));
        }
        self.revisions.push(revision);
    }

    /// Writes the next number; whether that was done already (by a request whose answer was lost) is told by the compare.
    fn write(&mut self) {
        let key = format!("/k/{}", self.written);
        let success = vec![TxnOp::Put { key: key.clone(), value: b"1".to_vec(), lease: self.lease }];
        let request = Request::Txn(Txn { compare: vec![Compare::ModRevision(key, 0)], success, failure: vec![] });
        let started = Instant::now();
        loop {
            let id = self.node.submit(request.clone());
            match self.answer(id) {
                Ok(_) => break,
                Err(MetaError::Refused(reason)) => panic!("refused after {} writes: {reason}", self.written),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
            assert!(started.elapsed() < PATIENCE, "write {} is not done", self.written);
        }
        self.longest = self.longest.max(started.elapsed());
        self.written += 1;
        if self.renewed.elapsed() > Duration::from_secs(LEASE_TTL) / 4 {
            self.renew();
        }
    }

    fn renew(&mut self) {
        let id = self.node.submit(Request::LeaseKeepAlive { lease: self.lease });
        match self.answer(id) {
            Ok(Response::LeaseKept { ttl, .. }) => assert_eq!(ttl, LEASE_TTL, "the lease is gone"),
            Ok(other) => panic!("{other:?}"),
            Err(_) => return,
        }
        self.renewed = Instant::now();
    }

    fn write_for(&mut self, time: Duration) {
        let started = Instant::now();
        while started.elapsed() < time {
            self.write();
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Everything that was written was seen, once, in order.
    fn end(mut self) {
        let started = Instant::now();
        while self.seen.len() < usize::try_from(self.written).expect("few") {
            assert!(started.elapsed() < PATIENCE, "the watch saw {} of {}", self.seen.len(), self.written);
            if let Some(event) = self.node.next_soon() {
                self.look(event);
            }
        }
        assert_eq!(self.seen, (0..self.written).collect::<Vec<_>>());
        assert!(self.revisions.is_sorted());
        let id = self.node.submit(Request::Range(Keys::Prefix("/k/".into())));
        let Ok(Response::Range { kvs, .. }) = self.answer(id) else { panic!("a majority is there") };
        let found: BTreeSet<_> = kvs.iter().map(|kv| kv.key.clone()).collect();
        assert_eq!(found.len() as u64, self.written, "the lease held all of them");
        eprintln!("{} changes, the longest took {:?}", self.written, self.longest);
    }
}

/// Kills, pauses and revives members in all roles.
fn troubles(cluster: &mut Cluster, story: &mut Story, calm: Duration) {
    story.write_for(calm);
    let leader = cluster.leader();
    cluster.kill(leader);
    story.write_for(calm);
    cluster.revive(leader);
    cluster.wait_healthy();
    let (paused, revision) = (cluster.leader(), story.revisions.last().copied());
    cluster.signal(paused, "-STOP");
    story.write_for(calm);
    cluster.signal(paused, "-CONT");
    // What was delivered is not needed any more, not even by a watch that moves to another member.
    cluster.compact(revision.expect("something was written"));
    let follower = (cluster.leader() + 1) % 3;
    cluster.kill(follower);
    story.write_for(calm);
    cluster.revive(follower);
    cluster.wait_healthy();
}

fn without_a_majority(cluster: &mut Cluster, story: &mut Story, outage: Duration) {
    let leader = cluster.leader();
    let other = (leader + 1) % 3;
    cluster.kill(leader);
    cluster.kill(other);
    let id = story.node.submit(put("/lost", "", 0));
    let failed = story.answer(id);
    assert!(matches!(failed, Err(MetaError::Unavailable | MetaError::Unknown)), "{failed:?}");
    std::thread::sleep(outage);
    cluster.revive(leader);
    cluster.revive(other);
    cluster.wait_healthy();
}

#[test]
fn a_cluster_may_lose_members_and_its_majority() {
    let Some(mut cluster) = Cluster::start("cluster") else { return };
    let mut story = Story::begin(&cluster.endpoints());
    troubles(&mut cluster, &mut story, Duration::from_millis(700));
    without_a_majority(&mut cluster, &mut story, Duration::ZERO);
    story.write_for(Duration::from_millis(300));
    story.end();
}

#[test]
#[ignore = "minutes: run it with --ignored"]
fn a_cluster_may_lose_members_for_long() {
    let Some(mut cluster) = Cluster::start("cluster-long") else { return };
    let mut story = Story::begin(&cluster.endpoints());
    for _ in 0..8 {
        troubles(&mut cluster, &mut story, Duration::from_secs(3));
    }
    story.end();
    // Leases do not run while nobody leads; they begin anew with the next leader.
    let mut story = Story::begin(&cluster.endpoints());
    story.written = 1_000_000;
    story.write();
    without_a_majority(&mut cluster, &mut story, Duration::from_secs(120));
    story.write();
    assert_eq!(story.written, 1_000_002);
}

/// A member that shows a certificate, wants to see one, and asks who it is.
struct Guarded {
    folder: Folder,
    address: SocketAddr,
    process: Option<ChildProcess>,
}

impl Guarded {
    fn start() -> Option<Guarded> {
        let installed = is_installed("etcd", "etcd-server") && is_installed("etcdctl", "etcd-client");
        if !installed || Command::new("openssl").arg("version").output().is_err() {
            return None;
        }
        let mut guarded = Guarded {
            folder: Folder::new(&format!("guarded-{}", free_port().port())),
            address: free_port(),
            process: None,
        };
        guarded.certify("ca", "CA:TRUE", None);
        guarded.certify("other", "CA:TRUE", None);
        guarded.certify("server", "CA:FALSE", Some("ca"));
        guarded.certify("client", "CA:FALSE", Some("ca"));
        std::fs::write(guarded.path("password"), "secret\n").expect("writable");
        std::fs::write(guarded.path("wrong"), "guess\n").expect("writable");
        guarded.revive();
        guarded.control(&["user", "add", "root:secret"]);
        guarded.control(&["user", "grant-role", "root", "root"]);
        guarded.control(&["auth", "enable"]);
        Some(guarded)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.0.join(name)
    }

    fn certify(&self, name: &str, constraints: &str, authority: Option<&str>) {
        let config = self.path("openssl.cnf");
        std::fs::write(&config, "[req]\ndistinguished_name=name\n[name]\n").expect("writable");
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        command.args(["-days", "2", "-subj", &format!("/O=ashlar-{name}")]).arg("-config").arg(config);
        command.args(["-addext", &format!("basicConstraints=critical,{constraints}")]);
        command.args(["-addext", "subjectAltName=IP:127.0.0.1"]);
        command
            .arg("-keyout")
            .arg(self.path(&format!("{name}.key")))
            .arg("-out")
            .arg(self.path(&format!("{name}.pem")));
        if let Some(authority) = authority {
            command.arg("-CA").arg(self.path(&format!("{authority}.pem")));
            command.arg("-CAkey").arg(self.path(&format!("{authority}.key")));
        }
        let output = command.output().expect("openssl is there");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn revive(&mut self) {
        self.process = None;
        let (client, peer) = (format!("https://{}", self.address), format!("http://{}", free_port()));
        let mut command = Command::new("etcd");
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client, "--client-cert-auth"]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        command.arg("--cert-file").arg(self.path("server.pem")).arg("--key-file").arg(self.path("server.key"));
        command.arg("--trusted-ca-file").arg(self.path("ca.pem"));
        self.process = Some(spawn(&mut command, &self.folder.0, "default"));
        let started = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            assert!(started.elapsed() < PATIENCE, "etcd does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn control(&self, arguments: &[&str]) {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints=https://{}", self.address)).args(arguments);
        command.arg("--cacert").arg(self.path("ca.pem")).arg("--cert").arg(self.path("client.pem"));
        let output = command.arg("--key").arg(self.path("client.key")).output().expect("etcdctl is there");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn access(&self) -> Access {
        Access {
            meta_ca: Some(self.path("ca.pem")),
            meta_cert: Some(self.path("client.pem")),
            meta_key: Some(self.path("client.key")),
            meta_user: Some("root".into()),
            meta_password_file: Some(self.path("password")),
        }
    }

    fn endpoints(&self, access: &Access) -> Endpoints {
        Endpoints::with_access(&format!("https://{}", self.address), access).expect("an address and its files")
    }

    /// What a client that comes with this is told.
    fn refusal(&self, access: &Access) -> RequestError {
        refusal(&self.endpoints(access))
    }
}

/// What a client of these is told.
fn refusal(endpoints: &Endpoints) -> RequestError {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ask = async { Client::open(endpoints).await.get("/a").await };
    runtime.block_on(ask).expect_err("nobody is let in with this")
}

#[test]
fn what_is_wrong_with_a_key_is_told_without_showing_it() {
    let Some(guarded) = Guarded::start() else { return };
    let with_key = |name: &str| {
        let access = Access { meta_key: Some(guarded.path(name)), ..guarded.access() };
        let error = Endpoints::with_access("https://a:1", &access).expect_err("of no use");
        format!("{error} {error:?}")
    };
    let key = std::fs::read_to_string(guarded.path("other.key")).expect("readable");
    let line = key.lines().nth(1).expect("a line of base 64");
    let bytes = line.bytes().take(4).map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    for (name, reason) in [("other.key", "are not a certificate and its key"), ("client.pem", "--meta-key")] {
        let told = with_key(name);
        eprintln!("{told}");
        assert!(told.contains(reason) && told.contains("client.pem") && told.contains(name), "{told}");
        assert!(!told.contains(line) && !told.contains(&bytes) && !told.contains("BEGIN"), "a key is shown");
    }
    let shown = format!("{:?} {:?}", guarded.endpoints(&guarded.access()), guarded.access());
    assert!(!shown.contains("secret\""), "a password is shown");
}

#[test]
fn a_store_without_certificates_is_not_asked_for_them() {
    let (Some(guarded), server) = (Guarded::start(), crate::support::Server::embedded("no-certificates")) else {
        return;
    };
    let endpoints = Endpoints::with_access(&format!("https://{}", server.address), &guarded.access());
    let refusal = self::refusal(&endpoints.expect("an address"));
    assert!(matches!(&refusal, RequestError::Unavailable(why) if why.contains("http://")), "{refusal}");
}

#[test]
fn a_guarded_store_lets_in_who_may_and_tells_the_others_why() {
    let Some(mut guarded) = Guarded::start() else { return };
    let good = guarded.access();
    let refusal = guarded.refusal(&Access { meta_password_file: Some(guarded.path("wrong")), ..good.clone() });
    assert!(matches!(&refusal, RequestError::Refused(why) if why.contains("authentication failed")), "{refusal}");
    let refusal = guarded.refusal(&Access { meta_user: None, meta_password_file: None, ..good.clone() });
    // Versions of etcd say it in different words.
    let says_so = |why: &str| why.contains("user name is empty") || why.contains("permission denied");
    assert!(matches!(&refusal, RequestError::Refused(why) if says_so(why)), "{refusal}");
    let refusal = guarded.refusal(&Access { meta_ca: Some(guarded.path("other.pem")), ..good.clone() });
    assert!(matches!(&refusal, RequestError::Unavailable(why) if why.contains("certificate")), "{refusal}");
    let refusal = guarded.refusal(&Access { meta_cert: None, meta_key: None, ..good.clone() });
    assert!(matches!(&refusal, RequestError::Unavailable(why) if why.contains("--meta-cert FILE")), "{refusal}");
    let refusal = self::refusal(&Endpoints::parse(&guarded.address.to_string()).expect("an address"));
    assert!(matches!(&refusal, RequestError::Unavailable(why) if why.contains("https://")), "{refusal}");

    let mut node = Node::new(guarded.endpoints(&good));
    let first = node.revision() + 1;
    node.watch("/a/", first);
    written_and_watched(&mut node, put("/a/1", "1", 0));
    // A restarted member has forgotten all tokens.
    guarded.revive();
    assert!(node.revision() >= first);
    written_and_watched(&mut node, put("/a/2", "2", 0));
    node.driver.submit(MetaOp::Unwatch { id: MetaId(2) });
}

/// The answer and what the watch tells come in either order.
fn written_and_watched(node: &mut Node, request: Request) {
    let id = node.submit(request);
    let both = [node.next(), node.next()];
    let done =
        |event: &MetaEvent| matches!(event, MetaEvent::Response { id: answered, result: Ok(_) } if *answered == id);
    assert!(both.iter().any(done), "{both:?}");
    assert!(both.iter().any(|event| matches!(event, MetaEvent::Watch { events, .. } if events.len() == 1)), "{both:?}");
}
