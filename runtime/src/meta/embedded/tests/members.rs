//! Members of a metadata store in a simulated network: the embedded store's service on one store that they share, as if it
//! were replicated among them, with mishaps on the way of each request.

use super::super::api::proto::{kv_server::KvServer, lease_server::LeaseServer, watch_server::WatchServer};
use super::super::engine::Steps;
use super::super::service::{Service, server};
use super::faulty::Faulty;
use ashlar_core::meta::{Change, Retention, Span, Store, Watcher};
use ashlar_core::rng::Rng;
use ashlar_core::time::{Duration, Time};
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration as Wall;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::transport::server::Connected;
use turmoil::net::{TcpListener, TcpStream};

pub const PORT: u16 = 2379;
pub const MEMBERS: usize = 2;
/// How often a member does what waits.
const STEP: Wall = Wall::from_millis(5);

pub fn name(member: usize) -> String {
    format!("member{member}")
}

/// When a lease was there.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    pub from: Time,
    pub until: Option<Time>,
}

/// The store, and all that ever happened to it.
pub struct Shared {
    pub store: Store,
    pub changes: Vec<Change>,
    pub leases: BTreeMap<u64, Life>,
    /// Revisions up to which the past was thrown away.
    pub compactions: Vec<u64>,
    /// Streams that the store ended by itself.
    pub refused_streams: u64,
    watcher: Watcher,
    /// Requests in a thousand that meet with a mishap.
    pub mishaps: u64,
    pub rng: Rng,
    /// Members that have lost the others: what they are asked waits.
    pub frozen: [bool; MEMBERS],
}

pub type Cluster = Arc<Mutex<Shared>>;

pub fn cluster(seed: u64) -> Cluster {
    let retention = Retention { revisions: u64::MAX, bytes: u64::MAX };
    Arc::new(Mutex::new(Shared {
        store: Store::new(retention),
        changes: Vec::new(),
        leases: BTreeMap::new(),
        compactions: Vec::new(),
        refused_streams: 0,
        watcher: Watcher::new(Span::prefix(""), 1),
        mishaps: 0,
        rng: Rng::new(seed),
        frozen: [false; MEMBERS],
    }))
}

pub fn lock(cluster: &Cluster) -> MutexGuard<'_, Shared> {
    cluster.lock().expect("nobody panics with the lock")
}

/// Time of the simulation.
pub fn now() -> Time {
    let elapsed = turmoil::sim_elapsed().expect("in a simulation");
    Time(u64::try_from(elapsed.as_nanos()).expect("minutes"))
}

impl Shared {
    /// Notes what has changed.
    pub fn observe(&mut self, now: Time) {
        let taken = self.watcher.take(&self.store, usize::MAX).expect("looked at before each compaction");
        self.changes.extend(taken.into_iter().cloned());
        let alive: Vec<u64> = self.store.leases().collect();
        for lease in &alive {
            self.leases.entry(*lease).or_insert(Life { from: now, until: None });
        }
        let ended = self.leases.iter_mut().filter(|(lease, life)| life.until.is_none() && !alive.contains(lease));
        ended.for_each(|(_, life)| life.until = Some(now));
    }

    /// Throws the past away.
    pub fn compact(&mut self, now: Time) {
        self.observe(now);
        let revision = self.store.revision();
        if self.store.compact(revision).is_ok() {
            self.compactions.push(revision);
        }
    }

    /// Ends a lease whose holder lives.
    pub fn expire(&mut self, now: Time) {
        let leases: Vec<u64> = self.store.leases().collect();
        if !leases.is_empty() {
            let place = usize::try_from(self.rng.below(leases.len() as u64)).expect("few");
            self.store.revoke(now, leases[place]).expect("it is there");
            self.observe(now);
        }
    }

    /// A new leader: nobody could renew meanwhile.
    pub fn change_leader(&mut self) {
        self.store.prolong_leases(Duration::secs(2));
    }
}

/// One member, until its host crashes.
pub async fn serve(cluster: Cluster, member: usize) -> turmoil::Result {
    let (engine, mut steps) = Steps::new();
    let shared = Arc::clone(&cluster);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(STEP).await;
            let mut shared = lock(&shared);
            let (now, shared) = (now(), &mut *shared);
            shared.store.tick(now);
            if !shared.frozen[member] {
                steps.step(&mut shared.store, now);
            }
            shared.observe(now);
        }
    });
    let service = Service::new(Arc::new(engine));
    let mut routes = Routes::builder();
    routes
        .add_service(Faulty::new(KvServer::new(service.clone()), &cluster))
        .add_service(Faulty::new(LeaseServer::new(service.clone()), &cluster))
        .add_service(Faulty::new(WatchServer::new(service), &cluster));
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let (arrivals, incoming) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if arrivals.send(io::Result::Ok(Stream(stream))).await.is_err() {
                return;
            }
        }
    });
    server().add_routes(routes.routes()).serve_with_incoming(ReceiverStream::new(incoming)).await?;
    Ok(())
}

/// A simulated connection, for both sides of gRPC.
pub struct Stream(pub TcpStream);

impl Connected for Stream {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
