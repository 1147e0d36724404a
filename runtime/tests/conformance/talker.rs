//! A node that does what a script says, a step each millisecond, and writes down what it sees. It runs in the simulated
//! world, on the ring, and on tokio.

use ashlar_core::id::{ClientId, ClusterUuid, Epoch, Incarnation, LinkId, OsdId, RequestId, Session};
use ashlar_core::io::{Effect, Env, Input, LinkEvent, Node, PeerId, PeerName};
use ashlar_core::msg::{Message, Request, RequestOp};
use ashlar_core::rng::Rng;
use ashlar_core::store::Data;
use ashlar_core::time::{Duration, Time};
use ashlar_core::wire::Versions;
use ashlar_core::wire::handshake::Identity;
use ashlar_runtime::ring::Daemon;
use ashlar_sim::world::{Halt, Machine};
use std::sync::{Arc, Mutex};

/// One step of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Opens a connection to the peer.
    Connect,
    /// So many messages of so many bytes, on the newest connection.
    Send { count: u32, bytes: u32 },
    /// Closes the newest connection.
    Close,
    /// Does nothing for so many milliseconds, but listens.
    Rest(u64),
    /// Does nothing at all for so many milliseconds.
    Busy(u64),
}

/// What a node saw or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Asked,
    Up {
        link: LinkId,
        opened: bool,
    },
    Failed {
        refused: bool,
    },
    Sent {
        link: LinkId,
        number: u64,
    },
    /// From which connection of the peer, by its own name for it; whether the body is whole.
    Got {
        link: LinkId,
        stream: u64,
        number: u64,
        intact: bool,
    },
    Closed {
        link: LinkId,
    },
    Down {
        link: LinkId,
    },
}

#[derive(Debug, Default)]
pub struct Log {
    pub seen: Vec<Seen>,
    /// The script is over.
    pub over: bool,
}

/// What a node is to do, and with whom.
#[derive(Clone)]
pub struct Part {
    pub number: u32,
    pub peer: u32,
    pub address: String,
    pub acts: Vec<Act>,
    pub log: Arc<Mutex<Log>>,
    /// In the simulated world pauses are the world's to make.
    pub simulated: bool,
}

#[derive(Clone)]
pub struct Talker {
    part: Part,
    incarnation: Incarnation,
    next_act: usize,
    links: Vec<(LinkId, u64)>,
    next: Option<Time>,
    /// How long the world is to pause this node.
    pub wants_pause: Option<Duration>,
    stopped: bool,
}

impl Talker {
    pub fn new(part: Part, incarnation: Incarnation) -> Self {
        let links = Vec::new();
        Talker { part, incarnation, next_act: 0, links, next: Some(Time(0)), wants_pause: None, stopped: false }
    }

    fn note(&self, seen: Seen) {
        self.part.log.lock().expect("nobody panics with the lock").seen.push(seen);
    }

    fn act(&mut self, env: &mut Env<'_>) {
        let Some(act) = self.part.acts.get(self.next_act).copied() else {
            self.part.log.lock().expect("nobody panics with the lock").over = true;
            self.next = None;
            return;
        };
        self.next_act += 1;
        let mut pause = Duration::millis(1);
        match act {
            Act::Connect => {
                self.note(Seen::Asked);
                let target = PeerName::Osd(OsdId(self.part.peer));
                env.out.push(Effect::Connect { target, address: self.part.address.clone() });
            }
            Act::Send { count, bytes } => (0..count).for_each(|_| self.send(env, bytes)),
            Act::Close => {
                if let Some((link, _)) = self.links.pop() {
                    self.note(Seen::Closed { link });
                    env.out.push(Effect::Close(link));
                }
            }
            Act::Rest(millis) => pause = Duration::millis(millis),
            Act::Busy(millis) if self.part.simulated => self.wants_pause = Some(Duration::millis(millis)),
            Act::Busy(millis) => std::thread::sleep(std::time::Duration::from_millis(millis)),
        }
        self.next = Some(env.now + pause);
    }

    fn send(&mut self, env: &mut Env<'_>, bytes: u32) {
        let Some((link, sent)) = self.links.last_mut() else { return };
        let (link, number) = (*link, *sent);
        *sent += 1;
        let session = Session { client: ClientId(link.0), number: u64::from(self.part.number) };
        let data = Data::new(env.bufs.copy_of(&body(number, bytes)));
        let request = Request {
            id: RequestId { session, number },
            seen: 0,
            object: Default::default(),
            generation: 0,
            epoch: Epoch(1),
            class: Default::default(),
            tenant: 0,
            op: RequestOp::Write { offset: 0, data, expect: None },
        };
        self.note(Seen::Sent { link, number });
        env.out.send(link, Message::Request(request));
    }

    fn link_changed(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up { link, peer, opened } => {
                assert!(matches!(peer, PeerId::Osd(OsdId(number), _) if number == self.part.peer));
                self.links.push((link, 0));
                self.note(Seen::Up { link, opened: opened.is_some() });
            }
            LinkEvent::Down { link } => {
                self.links.retain(|(other, _)| *other != link);
                self.note(Seen::Down { link });
            }
            LinkEvent::Failed { refused, .. } => self.note(Seen::Failed { refused }),
        }
    }
}

/// Its number, again and again.
fn body(number: u64, bytes: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(bytes as usize / 8)
}

impl Node for Talker {
    fn handle(&mut self, env: &mut Env<'_>, input: Input) {
        match input {
            Input::Message { from, msg: Message::Request(request) } => {
                let RequestOp::Write { data, .. } = request.op else { panic!("nobody sends that") };
                let number = request.id.number;
                let intact = data.verify() && data.buf.bytes().chunks_exact(8).all(|word| word == number.to_le_bytes());
                self.note(Seen::Got { link: from, stream: request.id.session.client.0, number, intact });
            }
            Input::Link(event) => self.link_changed(event),
            Input::Tick => {
                if self.next.is_some_and(|next| next <= env.now) {
                    self.act(env);
                }
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        self.next
    }

    fn check(&self) {}
}

impl Daemon for Talker {
    fn stop(&mut self, _env: &mut Env<'_>) {
        self.stopped = true;
    }
    fn is_stopped(&self) -> bool {
        self.stopped
    }
    fn set_counters(&mut self, _: &[(&'static str, u64)]) {}
}

impl Machine for Talker {
    type Spec = Part;
    fn start(part: &mut Part, incarnation: Incarnation, _: &mut Env<'_>) -> Self {
        Talker::new(part.clone(), incarnation)
    }
    fn halt(self, _: &mut Part, _: Halt, _: &mut Rng) {}
    fn identity(&self, _: &Part) -> Identity {
        let peer = PeerId::Osd(OsdId(self.part.number), self.incarnation);
        Identity { cluster: Some(ClusterUuid(1)), peer, versions: Versions::OURS }
    }
}
