//! Small nodes that tests run on the real loops, and a simulated network for tokio's.

use crate::net::Network;
use crate::ring::Daemon;
use ashlar_core::id::{ClientId, ClusterUuid, Epoch, Incarnation, LinkId, OsdId, RequestId, Session, Version};
use ashlar_core::io::{Device, DiskDone, DiskOp, Effect, Env, Event, Input, IoId, LinkEvent, Node, PeerId, PeerName};
use ashlar_core::msg::{Answer, Message, Refusal, Reply, Request, RequestOp};
use ashlar_core::store::Data;
use ashlar_core::time::{Duration, Time};
use ashlar_core::wire::Versions;
use ashlar_core::wire::handshake::Identity;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

pub const CLUSTER: ClusterUuid = ClusterUuid(0xa5a5);

pub fn osd(number: u32) -> Identity {
    Identity {
        cluster: Some(CLUSTER),
        peer: PeerId::Osd(OsdId(number), Incarnation(u64::from(number) + 100)),
        versions: Versions::OURS,
    }
}

pub fn client(number: u64) -> Identity {
    Identity {
        cluster: None,
        peer: PeerId::Client(Session { client: ClientId(number), number: 1 }),
        versions: Versions::OURS,
    }
}

/// Bytes that each object of [`Echo`] has on its disk.
pub const OBJECT_BYTES: u64 = 2 << 20;

/// What tests see of a node.
#[derive(Debug, Default)]
pub struct Seen {
    pub links: Vec<LinkEvent>,
    pub replies: BTreeMap<u64, Result<Answer, Refusal>>,
    pub requests: u64,
    pub counters: BTreeMap<&'static str, u64>,
    pub disk: Vec<DiskDone>,
}

/// Serves requests from its disk, if it has one; otherwise it answers writes at once and reads with zeroes. `Delete`
/// makes it die, `Zero` makes it close the connection behind the answer.
pub struct Echo {
    pub seen: Arc<Mutex<Seen>>,
    pub has_disk: bool,
    pub connect: Vec<(PeerName, String)>,
    /// Disk requests to do one after the other.
    pub script: Vec<DiskOp>,
    pending: BTreeMap<IoId, (LinkId, RequestId)>,
    next_io: u64,
    stopped: bool,
    tick_at: Option<Time>,
}

impl Echo {
    pub fn new(has_disk: bool) -> Echo {
        Echo {
            seen: Arc::default(),
            has_disk,
            connect: Vec::new(),
            script: Vec::new(),
            pending: BTreeMap::new(),
            next_io: 0,
            stopped: false,
            tick_at: Some(Time(0)),
        }
    }

    fn io(&mut self, env: &mut Env<'_>, op: DiskOp) -> IoId {
        self.next_io += 1;
        let id = IoId(self.next_io);
        env.out.push(Effect::Io { id, op });
        id
    }

    fn request(&mut self, env: &mut Env<'_>, from: LinkId, request: Request) {
        self.seen.lock().unwrap().requests += 1;
        let at = request.object.stripe * OBJECT_BYTES;
        let version = Version { epoch: Epoch(1), seq: request.id.number };
        let op = match request.op {
            RequestOp::Write { offset, data, .. } if self.has_disk => {
                assert!(data.verify(), "a body was damaged");
                DiskOp::Write { device: Device::Data, offset: at + u64::from(offset), data: data.buf }
            }
            RequestOp::Read { offset, len } if self.has_disk => {
                DiskOp::Read { device: Device::Data, offset: at + u64::from(offset), len }
            }
            RequestOp::Sync if self.has_disk => DiskOp::Flush { device: Device::Data },
            RequestOp::Read { len, .. } => {
                let zeroes = env.bufs.zeroed(len);
                let data = Data::new(env.bufs.freeze(zeroes));
                return answer(env, from, request.id, Answer::Read { version, data });
            }
            RequestOp::Delete { .. } => return env.out.push(Effect::Die("asked to".into())),
            RequestOp::Zero { .. } => {
                answer(env, from, request.id, Answer::Written { version });
                return env.out.push(Effect::Close(from));
            }
            _ => return answer(env, from, request.id, Answer::Written { version }),
        };
        let id = self.io(env, op);
        self.pending.insert(id, (from, request.id));
    }

    fn io_done(&mut self, env: &mut Env<'_>, id: IoId, done: DiskDone) {
        let Some((link, request)) = self.pending.remove(&id) else {
            self.seen.lock().unwrap().disk.push(done);
            return self.next_of_script(env);
        };
        let version = Version { epoch: Epoch(1), seq: request.number };
        match done {
            DiskDone::Read(result) => {
                let data = Data::new(result.expect("the disk works"));
                answer(env, link, request, Answer::Read { version, data });
            }
            DiskDone::Done(result) => {
                result.expect("the disk works");
                answer(env, link, request, Answer::Written { version });
            }
        }
    }

    fn next_of_script(&mut self, env: &mut Env<'_>) {
        if !self.script.is_empty() {
            let op = self.script.remove(0);
            self.io(env, op);
        }
    }
}

fn answer(env: &mut Env<'_>, to: LinkId, id: RequestId, answer: Answer) {
    env.out.send(to, Message::Reply(Reply { id, outcome: Ok(answer) }));
}

impl Node for Echo {
    fn handle(&mut self, env: &mut Env<'_>, input: Input) {
        match input {
            Input::Message { from, msg: Message::Request(request) } => self.request(env, from, request),
            Input::Message { msg, .. } => panic!("unexpected {msg:?}"),
            Input::Link(event) => {
                if let LinkEvent::Failed { target, .. } = event {
                    env.out.push(Effect::Observe(Event::Mark("a connection failed")));
                    assert!(matches!(target, PeerName::Osd(_) | PeerName::Seed(_)));
                }
                self.seen.lock().unwrap().links.push(event);
            }
            Input::Io { id, done } => self.io_done(env, id, done),
            Input::Meta(_) => {}
            Input::Tick => {
                if self.tick_at.take().is_some() {
                    self.next_of_script(env);
                    for (target, address) in self.connect.drain(..) {
                        env.out.push(Effect::Connect { target, address });
                    }
                }
            }
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        self.tick_at
    }

    fn check(&self) {}
}

impl Daemon for Echo {
    fn stop(&mut self, _env: &mut Env<'_>) {
        self.stopped = true;
    }
    fn is_stopped(&self) -> bool {
        self.stopped
    }
    fn set_counters(&mut self, counters: &[(&'static str, u64)]) {
        self.seen.lock().unwrap().counters.extend(counters.iter().copied());
    }
}

/// Keeps a connection to one server and sends requests there.
pub struct Caller {
    pub seen: Arc<Mutex<Seen>>,
    pub server: String,
    pub target: PeerName,
    pub link: Option<LinkId>,
    retry_at: Option<Time>,
}

impl Caller {
    pub fn new(server: String) -> Caller {
        let (seen, target) = (Arc::default(), PeerName::Seed(0));
        Caller { seen, server, target, link: None, retry_at: Some(Time(0)) }
    }

    /// Sends a request; false if there is no connection.
    pub fn send(&mut self, env: &mut Env<'_>, number: u64, stripe: u64, op: RequestOp) -> bool {
        let Some(link) = self.link else { return false };
        let id = RequestId { session: Session { client: ClientId(1), number: 1 }, number };
        let object = ashlar_core::id::ObjectId { stripe, ..Default::default() };
        let request =
            Request { id, seen: 0, object, generation: 0, epoch: Epoch(1), class: Default::default(), tenant: 0, op };
        env.out.send(link, Message::Request(request));
        true
    }
}

impl Node for Caller {
    fn handle(&mut self, env: &mut Env<'_>, input: Input) {
        match input {
            Input::Message { msg: Message::Reply(reply), .. } => {
                if let Ok(Answer::Read { data, .. }) = &reply.outcome {
                    assert!(data.verify(), "a body was damaged");
                }
                self.seen.lock().unwrap().replies.insert(reply.id.number, reply.outcome);
            }
            Input::Link(event) => {
                match event {
                    LinkEvent::Up { link, .. } => self.link = Some(link),
                    LinkEvent::Down { .. } | LinkEvent::Failed { .. } => {
                        self.link = None;
                        self.retry_at = Some(env.now + Duration::millis(20));
                    }
                }
                self.seen.lock().unwrap().links.push(event);
            }
            Input::Tick => {
                if self.retry_at.is_some_and(|at| at <= env.now) {
                    self.retry_at = None;
                    env.out.push(Effect::Connect { target: self.target, address: self.server.clone() });
                }
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        self.retry_at
    }

    fn check(&self) {}
}

/// Bytes that follow from a seed.
pub fn pattern(seed: u64, len: u32) -> Vec<u8> {
    let mut rng = ashlar_core::rng::Rng::new(seed);
    (0..len.div_ceil(8)).flat_map(|_| rng.next_u64().to_le_bytes()).take(len as usize).collect()
}

/// Turmoil's network, and the clock that it simulates.
#[derive(Clone, Copy)]
pub struct Simulated {
    start: tokio::time::Instant,
}

impl Simulated {
    pub fn new() -> Self {
        Simulated { start: tokio::time::Instant::now() }
    }
}

impl Network for Simulated {
    type Stream = turmoil::net::TcpStream;
    type Listener = turmoil::net::TcpListener;

    async fn accept(&self, listener: &Self::Listener) -> io::Result<Self::Stream> {
        Ok(listener.accept().await?.0)
    }
    async fn connect(&self, address: &str) -> io::Result<Self::Stream> {
        turmoil::net::TcpStream::connect(address).await
    }
    fn now(&self) -> Time {
        Time(u64::try_from(self.start.elapsed().as_nanos()).unwrap())
    }
}
