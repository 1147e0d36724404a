//! A node that uses the driver as daemons do, and writes down all that it was told.

use super::super::super::client::Client;
use super::super::super::driver;
use super::super::super::endpoints::Endpoints;
use super::members::{Cluster, MEMBERS, PORT, Stream, lock, name, now};
use ashlar_core::io::{MetaError, MetaEvent, MetaId, MetaOp};
use ashlar_core::meta::{Compare, Keys, Request, Response, Txn, TxnOp, WatchEvent};
use ashlar_core::rng::Rng;
use ashlar_core::time::Time;
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration as Wall;
use tokio::sync::mpsc;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

/// Few, so that requests are about the same ones.
const KEYS: [&str; 6] = ["/a/1", "/a/2", "/b/1", "/b/2", "/b/3", "/c"];
const PREFIXES: [&str; 4] = ["/", "/a/", "/b/", "/c"];
/// Leases live so long, at least.
const TTLS: [u64; 3] = [2, 5, 30];

/// A request with its answer.
#[derive(Debug)]
pub struct Asked {
    pub request: Request,
    pub at: Time,
    /// The store's revision when it was made.
    pub revision: u64,
    pub answer: Option<Answered>,
    /// The process ended before the answer.
    pub forgotten: bool,
}

impl Asked {
    /// The store said what became of it.
    pub fn is_served(&self) -> bool {
        let result = self.answer.as_ref().map(|answer| &answer.result);
        matches!(result, Some(Ok(_) | Err(MetaError::Refused(_))))
    }
}

#[derive(Debug)]
pub struct Answered {
    pub at: Time,
    /// The store's revision when it came.
    pub revision: u64,
    pub result: Result<Response, MetaError>,
}

/// A watch, and what it told.
#[derive(Debug)]
pub struct Watched {
    pub prefix: &'static str,
    pub from: u64,
    pub told: Vec<(u64, Vec<WatchEvent>)>,
    pub lost: bool,
    /// Ended by the node, or with it.
    pub ended: bool,
}

#[derive(Debug, Default)]
pub struct Record {
    pub asked: Vec<Asked>,
    pub watches: Vec<(MetaId, Watched)>,
    /// Nothing more is asked.
    pub quiet: bool,
    leases: Vec<u64>,
    /// Newest known revision of each key's last change.
    changed: BTreeMap<String, u64>,
    last_id: u64,
    by_id: BTreeMap<MetaId, usize>,
}

pub type Notes = Arc<Mutex<Record>>;

pub fn open(notes: &Notes) -> MutexGuard<'_, Record> {
    notes.lock().expect("nobody panics with the lock")
}

impl Record {
    /// A process begins; what the one before it waited for is forgotten.
    fn begin(&mut self) {
        self.by_id.clear();
        self.asked.iter_mut().filter(|asked| asked.answer.is_none()).for_each(|asked| asked.forgotten = true);
        self.watches.iter_mut().for_each(|(_, watched)| watched.ended = true);
    }

    fn take(&mut self, event: MetaEvent, revision: u64) {
        match event {
            MetaEvent::Response { id, result } => {
                let asked = &mut self.asked[*self.by_id.get(&id).expect("it was asked")];
                assert!(asked.answer.is_none() && !asked.forgotten, "{asked:?} is answered once");
                if let Ok(Response::LeaseGranted { lease, .. }) = result {
                    self.leases.push(lease);
                }
                asked.answer = Some(Answered { at: now(), revision, result });
            }
            MetaEvent::Watch { id, revision, events } => {
                let watched = self.watched(id);
                assert!(!watched.lost, "{watched:?} tells nothing more");
                watched.told.push((revision, events.clone()));
                for event in events {
                    match event {
                        WatchEvent::Put(kv) => drop(self.changed.insert(kv.key, kv.mod_revision)),
                        WatchEvent::Delete { key, .. } => drop(self.changed.remove(&key)),
                    }
                }
            }
            MetaEvent::WatchLost { id } => {
                let watched = self.watched(id);
                assert!(!watched.lost, "{watched:?} is lost once");
                watched.lost = true;
            }
        }
    }

    fn watched(&mut self, id: MetaId) -> &mut Watched {
        &mut self.watches.iter_mut().rev().find(|(other, _)| *other == id).expect("it was opened").1
    }

    fn next_id(&mut self) -> MetaId {
        self.last_id += 1;
        MetaId(self.last_id)
    }

    fn ask(&mut self, request: Request, revision: u64) -> MetaOp {
        let id = self.next_id();
        self.by_id.insert(id, self.asked.len());
        let asked = Asked { request: request.clone(), at: now(), revision, answer: None, forgotten: false };
        self.asked.push(asked);
        MetaOp::Request { id, request }
    }

    /// What the node does next.
    fn draw(&mut self, rng: &mut Rng, revision: u64) -> MetaOp {
        let pick = |rng: &mut Rng, count: usize| usize::try_from(rng.below(count as u64)).expect("small");
        let key = KEYS[pick(rng, KEYS.len())];
        let lease = |rng: &mut Rng, leases: &[u64]| leases.get(pick(rng, leases.len().max(1))).copied();
        let request = match rng.below(20) {
            0..7 => self.put(key, if rng.chance(1, 4) { lease(rng, &self.leases) } else { None }, None),
            7..10 => {
                let known = self.changed.get(key).copied().unwrap_or(0);
                self.put(key, None, Some(Compare::ModRevision(key.into(), known)))
            }
            10..12 => Request::Range(Keys::Prefix(PREFIXES[pick(rng, PREFIXES.len())].into())),
            12 => Request::Range(Keys::One(key.into())),
            13 => Request::LeaseGrant { ttl: TTLS[pick(rng, TTLS.len())] },
            14..17 => match lease(rng, &self.leases) {
                Some(lease) => Request::LeaseKeepAlive { lease },
                None => Request::LeaseGrant { ttl: 30 },
            },
            17 => match lease(rng, &self.leases) {
                Some(lease) if rng.chance(1, 3) => Request::LeaseRevoke { lease },
                _ => delete(Keys::One(key.into())),
            },
            18 => {
                let prefix = PREFIXES[pick(rng, PREFIXES.len())];
                return self.watch(rng, prefix, revision);
            }
            _ => return self.unwatch(rng),
        };
        self.ask(request, revision)
    }

    /// A value that nobody else writes, so that it can be counted in the store's history.
    fn put(&self, key: &str, lease: Option<u64>, compare: Option<Compare>) -> Request {
        let value = format!("value {}", self.asked.len()).into_bytes();
        let success = vec![TxnOp::Put { key: key.into(), value, lease: lease.unwrap_or(0) }];
        let failure = vec![TxnOp::Range(Keys::One(key.into()))];
        Request::Txn(Txn { compare: compare.into_iter().collect(), success, failure })
    }

    fn watch(&mut self, rng: &mut Rng, prefix: &'static str, revision: u64) -> MetaOp {
        let id = self.next_id();
        let from = rng.between(revision.saturating_sub(8), revision + 2);
        self.watches.push((id, Watched { prefix, from, told: Vec::new(), lost: false, ended: false }));
        MetaOp::Watch { id, prefix: prefix.into(), from }
    }

    fn unwatch(&mut self, rng: &mut Rng) -> MetaOp {
        let live: Vec<MetaId> = self.watches.iter().filter(|(_, watch)| !watch.ended).map(|(id, _)| *id).collect();
        // A few at a time are enough.
        if live.len() < 4 {
            return self.watch(rng, "/", 0);
        }
        let id = live[usize::try_from(rng.below(live.len() as u64)).expect("few")];
        self.watched(id).ended = true;
        MetaOp::Unwatch { id }
    }
}

fn delete(keys: Keys) -> Request {
    Request::Txn(Txn { compare: vec![], success: vec![TxnOp::Delete(keys)], failure: vec![] })
}

/// One process of the node, until its host crashes.
pub async fn run(notes: Notes, cluster: Cluster, mut rng: Rng) -> turmoil::Result {
    let members: Vec<String> = (0..MEMBERS).map(|member| format!("http://{}:{PORT}", name(member))).collect();
    let endpoints = Endpoints::parse(&members.join(","))?;
    let client = Client::open_over(&endpoints, connect).await;
    open(&notes).begin();
    let (ops, queue) = mpsc::unbounded_channel();
    let (record, store) = (Arc::clone(&notes), Arc::clone(&cluster));
    let deliver: driver::Deliver = Rc::new(move |event| {
        let revision = lock(&store).store.revision();
        open(&record).take(event, revision);
    });
    tokio::task::spawn_local(driver::serve(client, queue, deliver));
    loop {
        tokio::time::sleep(Wall::from_millis(rng.between(5, 120))).await;
        let revision = lock(&cluster).store.revision();
        let mut notes = open(&notes);
        if !notes.quiet {
            ops.send(notes.draw(&mut rng, revision)).expect("the driver runs");
        }
    }
}

/// Connects over the simulated network.
pub fn connect(endpoint: &Endpoint) -> Channel {
    endpoint.connect_with_connector_lazy(Connector)
}

#[derive(Clone)]
struct Connector;

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(async move {
            let host = uri.host().expect("a member's address").to_string();
            let stream = turmoil::net::TcpStream::connect((host, PORT)).await?;
            Ok(TokioIo::new(Stream(stream)))
        })
    }
}
