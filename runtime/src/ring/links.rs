//! Connections on the ring.
//!
//! ```text
//! Connecting --> Greeting --> Up -----------------> Ended --> (gone, once nothing is in flight)
//!     |  accept --^   |        \-> Finishing ---------^
//!     +---------------+---> failed -------------------^
//! ```
//! Invariants: at most one receive and one send of a connection are in flight; the descriptor is closed only when none
//! is, so that no completion ever meets another connection's number.

use super::queue::{Completed, Operation, OperationKey, Queue, SendOperation};
use super::{Token, raw};
use crate::counters::Counters;
use crate::net::tune;
use ashlar_core::buf::BufPool;
use ashlar_core::id::LinkId;
use ashlar_core::io::{Input, LinkEvent, PeerName};
use ashlar_core::msg::Message;
use ashlar_core::pg::msg::PgMessage;
use ashlar_core::slab::{Key, Slab};
use ashlar_core::time::{Duration, Time};
use ashlar_core::timer::Deadlines;
use ashlar_core::wire::handshake::{Handshake, Identity, Progress, Refused};
use ashlar_core::wire::{Inbox, Outbox};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::FromRawFd;

/// A connection whose peer has so much unread gets nothing more read from it: it asks more than it listens.
const READ_STOP_BYTES: u64 = 4 << 20;
/// A connection whose peer has so much unread is cut: it does not listen, and the node goes on producing.
const CUT_BYTES: u64 = 256 << 20;
/// An address that does not answer within this is given up. Below the second after which the kernel would send its first
/// packet again, and then ever more rarely: whoever tries again finds a network that came back sooner.
const CONNECT_TIMEOUT: Duration = Duration::millis(900);
/// A peer that connects and says nothing is dropped after this.
const GREETING_TIMEOUT: Duration = Duration::secs(4);
/// What was queued when the node closed a connection is sent for so long at most.
const FINISH_TIMEOUT: Duration = Duration::secs(2);
/// Pause after a failed accept (out of descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::millis(100);
/// Connections, at most: each may hold a receive buffer. A large cluster's OSDs and clients fit.
const LINKS: usize = 16 << 10;

type LinkKey = Key<Link>;

#[derive(Debug)]
enum Stage {
    Connecting(OperationKey),
    Greeting(Handshake),
    Up,
    Finishing,
    Ended,
}

/// One connection.
pub struct Link {
    socket: Socket,
    stage: Stage,
    opened: Option<PeerName>,
    /// With the kernel, while a receive is in flight.
    inbox: Option<Inbox>,
    outbox: Outbox,
    sending: bool,
    is_dirty: bool,
    /// Replies that the node waits for.
    awaited: u32,
    in_flight: u32,
    /// When its stage is given up; deadlines of earlier stages are void.
    give_up_at: Option<Time>,
}

/// All connections of a node.
pub struct Links {
    identity: Identity,
    links: Slab<Link>,
    dirty: Vec<LinkKey>,
    deadlines: Deadlines<LinkKey>,
    refusals: BTreeMap<PeerName, Refused>,
    awaited: u64,
    /// When to begin accepting; `None` while that is under way.
    accept_at: Option<Time>,
    listener: Socket,
    /// What the node knows to be up: nothing else is delivered to it.
    told: BTreeSet<LinkId>,
}

impl Links {
    /// No connections yet; accepts at `listener`.
    pub fn new(identity: Identity, listener: std::net::TcpListener) -> Self {
        Links {
            identity,
            links: Slab::default(),
            dirty: Vec::new(),
            deadlines: Deadlines::default(),
            refusals: BTreeMap::new(),
            awaited: 0,
            accept_at: Some(Time::default()),
            listener: listener.into(),
            told: BTreeSet::new(),
        }
    }

    /// Whether replies are outstanding from peers.
    pub fn awaits_replies(&self) -> bool {
        self.awaited > 0
    }

    /// When [`Links::tick`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        let link = self.deadlines.next().map(|(at, _)| at);
        link.into_iter().chain(self.accept_at).min()
    }

    /// Whether an input may be given to the node, which may have closed the connection since it was made.
    pub fn admits(&mut self, input: &Input) -> bool {
        match input {
            Input::Message { from, .. } => self.told.contains(from),
            Input::Link(LinkEvent::Up { link, .. }) => self.told.insert(*link),
            Input::Link(LinkEvent::Down { link }) => self.told.remove(link),
            Input::Link(LinkEvent::Failed { .. }) | Input::Io { .. } | Input::Meta(_) | Input::Tick => true,
        }
    }

    /// Queues a message; lost if the link is gone.
    pub fn send(&mut self, to: LinkId, message: &Message) {
        let key = LinkKey::from_u64(to.0);
        let Some(link) = self.links.get_mut(key).filter(|link| matches!(link.stage, Stage::Up)) else { return };
        link.outbox.push(message);
        if awaits_reply(message) {
            link.awaited += 1;
            self.awaited += 1;
        }
        self.mark_dirty(key);
    }

    fn mark_dirty(&mut self, key: LinkKey) {
        let Some(link) = self.links.get_mut(key) else { return };
        if !std::mem::replace(&mut link.is_dirty, true) {
            self.dirty.push(key);
        }
    }

    /// The node closes a connection: what is queued still goes out.
    pub fn close(&mut self, now: Time, link: LinkId) {
        let key = LinkKey::from_u64(link.0);
        self.told.remove(&link);
        if self.links.get(key).is_some_and(|link| matches!(link.stage, Stage::Up)) {
            self.finish(now, key);
        }
    }

    fn finish(&mut self, now: Time, key: LinkKey) {
        self.forget_awaited(key);
        let link = self.links.get_mut(key).expect("checked by the caller");
        link.stage = Stage::Finishing;
        self.give_up_at(now + FINISH_TIMEOUT, key);
        self.mark_dirty(key);
    }

    fn give_up_at(&mut self, at: Time, key: LinkKey) {
        self.links.get_mut(key).expect("the caller has it").give_up_at = Some(at);
        self.deadlines.arm(at, key);
    }

    fn forget_awaited(&mut self, key: LinkKey) {
        if let Some(link) = self.links.get_mut(key) {
            self.awaited -= u64::from(std::mem::take(&mut link.awaited));
        }
    }

    /// Opens a connection.
    pub fn connect(&mut self, now: Time, queue: &mut Queue, target: PeerName, address: SocketAddr) -> Result<(), ()> {
        if self.links.len() >= LINKS {
            return Err(());
        }
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).map_err(|_| ())?;
        tune(SockRef::from(&socket));
        let fd = raw(&socket);
        let (handshake, hello) = Handshake::open(self.identity, target);
        let key = self.insert(socket, Stage::Greeting(handshake), Some(target));
        let connect = Operation::Connect(Box::new(SockAddr::from(address)));
        let operation = queue.push(fd, Token::Link(key), connect);
        let link = self.links.get_mut(key).expect("inserted above");
        link.outbox.push_bytes(&hello);
        link.stage = Stage::Connecting(operation);
        link.in_flight += 1;
        self.give_up_at(now + CONNECT_TIMEOUT, key);
        Ok(())
    }

    fn insert(&mut self, socket: Socket, stage: Stage, opened: Option<PeerName>) -> LinkKey {
        self.links.insert(Link {
            socket,
            stage,
            opened,
            inbox: Some(Inbox::default()),
            outbox: Outbox::default(),
            sending: false,
            is_dirty: false,
            awaited: 0,
            in_flight: 0,
            give_up_at: None,
        })
    }
}

/// What the handling of a completion needs besides the connections.
pub struct Context<'a> {
    /// The time.
    pub now: Time,
    /// The ring.
    pub queue: &'a mut Queue,
    /// Buffers.
    pub bufs: &'a mut BufPool,
    /// Figures.
    pub counters: &'a mut Counters,
    /// Where inputs for the node go.
    pub inputs: &'a mut VecDeque<Input>,
}

impl Links {
    /// Starts accepting, again some time after an error.
    pub fn accept(&mut self, now: Time, queue: &mut Queue) {
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept_at = None;
            queue.push(raw(&self.listener), Token::Accept, Operation::Accept);
        }
    }

    /// A connection arrived, or accepting failed.
    pub fn accepted(&mut self, cx: &mut Context<'_>, completed: &Completed) {
        let fd = completed.result.map(|fd| i32::try_from(fd).expect("descriptors are ints"));
        if !completed.more {
            let pause = if fd.is_ok() { Duration::ZERO } else { ACCEPT_PAUSE };
            self.accept_at = Some(cx.now + pause);
        }
        let socket = match fd {
            Ok(fd) => adopt(fd),
            Err(error) => {
                let error = io::Error::from_raw_os_error(error);
                return tracing::warn!("cannot accept a connection: {error}");
            }
        };
        if self.links.len() >= LINKS {
            return tracing::warn!("refused a connection: there are {LINKS} already");
        }
        tune(SockRef::from(&socket));
        let key = self.insert(socket, Stage::Greeting(Handshake::accept(self.identity)), None);
        self.give_up_at(cx.now + GREETING_TIMEOUT, key);
        self.receive(cx.queue, key);
    }

    /// Receives more, unless that is under way, or the peer must read first.
    fn receive(&mut self, queue: &mut Queue, key: LinkKey) {
        let Some(link) = self.links.get_mut(key) else { return };
        let may = match link.stage {
            Stage::Greeting(_) => true,
            Stage::Up => link.outbox.bytes() <= READ_STOP_BYTES,
            Stage::Connecting(_) | Stage::Finishing | Stage::Ended => false,
        };
        if !may {
            return;
        }
        if let Some(inbox) = link.inbox.take() {
            link.in_flight += 1;
            queue.push(raw(&link.socket), Token::Link(key), Operation::Receive(inbox));
        }
    }

    /// Sends what waits on all connections that got something.
    pub fn flush(&mut self, cx: &mut Context<'_>) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            if let Some(link) = self.links.get_mut(key) {
                link.is_dirty = false;
                self.flush_link(cx, key);
                self.remove_if_over(key);
            }
        }
        self.dirty = dirty;
    }

    fn flush_link(&mut self, cx: &mut Context<'_>, key: LinkKey) {
        let Some(link) = self.links.get_mut(key) else { return };
        if link.outbox.bytes() > CUT_BYTES {
            return self.end(cx, key, "the peer does not read what it is sent");
        }
        if link.sending || matches!(link.stage, Stage::Connecting(_) | Stage::Ended) {
            return;
        }
        if link.outbox.has_waiting() {
            let batch = link.outbox.take();
            cx.counters.messages_out += u64::from(batch.messages());
            link.sending = true;
            link.in_flight += 1;
            let send = Operation::Send(SendOperation::new(batch));
            cx.queue.push(raw(&link.socket), Token::Link(key), send);
        } else if matches!(link.stage, Stage::Finishing) {
            self.end(cx, key, "closed by this node");
        }
    }

    /// Takes a completion of a connection.
    pub fn completed(&mut self, cx: &mut Context<'_>, key: LinkKey, completed: Completed) {
        let link = self.links.get_mut(key).expect("a connection outlives its operations");
        link.in_flight -= 1;
        match completed.operation {
            Operation::Connect(_) => self.connected(cx, key, completed.result),
            Operation::Receive(inbox) => self.received(cx, key, inbox, completed.result),
            Operation::Send(send) => self.sent(cx, key, send, completed.result),
            _ => unreachable!("connections have no other operations"),
        }
        self.remove_if_over(key);
    }

    fn connected(&mut self, cx: &mut Context<'_>, key: LinkKey, result: Result<u32, i32>) {
        let target = self.links.get(key).and_then(|link| link.opened).expect("only what we opened connects");
        let is_connecting = self.links.get(key).is_some_and(|link| matches!(link.stage, Stage::Connecting(_)));
        match result {
            Ok(_) if is_connecting => {
                let (handshake, _) = Handshake::open(self.identity, target);
                let link = self.links.get_mut(key).expect("found above");
                link.stage = Stage::Greeting(handshake);
                self.give_up_at(cx.now + GREETING_TIMEOUT, key);
                self.mark_dirty(key);
                self.receive(cx.queue, key);
            }
            Ok(_) => {}
            Err(error) => self.fail(cx, key, error == libc::ECONNREFUSED),
        }
    }

    /// A connection that is not up will not be.
    fn fail(&mut self, cx: &mut Context<'_>, key: LinkKey, refused: bool) {
        let Some(link) = self.links.get_mut(key) else { return };
        if let Some(target) = link.opened.filter(|_| matches!(link.stage, Stage::Connecting(_) | Stage::Greeting(_))) {
            cx.inputs.push_back(Input::Link(LinkEvent::Failed { target, refused }));
        }
        if let Stage::Connecting(operation) = std::mem::replace(&mut link.stage, Stage::Ended) {
            cx.queue.push(raw(&link.socket), Token::Cancel, Operation::Cancel(operation));
        } else {
            shut(&link.socket);
        }
    }

    fn received(&mut self, cx: &mut Context<'_>, key: LinkKey, mut inbox: Inbox, result: Result<u32, i32>) {
        cx.counters.receives += 1;
        let count = match result {
            Ok(0) => return self.end(cx, key, "closed by the peer"),
            Ok(count) => count,
            Err(libc::EINTR | libc::EAGAIN) => 0,
            Err(error) => return self.end(cx, key, &io::Error::from_raw_os_error(error).to_string()),
        };
        cx.counters.bytes_in += u64::from(count);
        inbox.received(count as usize);
        let link = self.links.get_mut(key).expect("found by the caller");
        if let Stage::Greeting(handshake) = &mut link.stage {
            let progress = handshake.receive(&inbox.take_bytes());
            self.greeted(cx, key, &mut inbox, progress);
        }
        self.deliver(cx, key, &mut inbox);
        let link = self.links.get_mut(key).expect("not removed while it is handled");
        link.inbox = Some(inbox);
        self.receive(cx.queue, key);
    }

    fn greeted(&mut self, cx: &mut Context<'_>, key: LinkKey, inbox: &mut Inbox, progress: Progress) {
        let link = self.links.get_mut(key).expect("found by the caller");
        match progress {
            Progress::Waiting => {}
            Progress::Done { agreed, answer, rest } => {
                link.stage = Stage::Up;
                link.outbox.push_bytes(&answer);
                inbox.put_bytes(&rest);
                let opened = link.opened;
                if let Some(target) = opened {
                    self.refusals.remove(&target);
                }
                let up = LinkEvent::Up { link: LinkId(key.to_u64()), peer: agreed.peer, opened };
                cx.inputs.push_back(Input::Link(up));
                self.mark_dirty(key);
            }
            Progress::Refused { why, answer } => {
                link.outbox.push_bytes(&answer);
                match link.opened {
                    Some(target) => self.refused(cx, key, target, why),
                    None => {
                        tracing::warn!("refused a connection: {why}");
                        self.finish(cx.now, key);
                    }
                }
            }
        }
    }

    fn refused(&mut self, cx: &mut Context<'_>, key: LinkKey, target: PeerName, why: Refused) {
        if self.refusals.insert(target, why) != Some(why) {
            tracing::warn!("no connection to {target:?}: {why}");
        }
        self.fail(cx, key, why.proves_absence());
    }

    /// Hands over the messages that are complete.
    fn deliver(&mut self, cx: &mut Context<'_>, key: LinkKey, inbox: &mut Inbox) {
        while let Some(link) = self.links.get_mut(key).filter(|link| matches!(link.stage, Stage::Up)) {
            match inbox.next(cx.bufs) {
                Ok(Some(msg)) => {
                    if is_reply(&msg) && link.awaited > 0 {
                        link.awaited -= 1;
                        self.awaited -= 1;
                    }
                    cx.counters.messages_in += 1;
                    cx.inputs.push_back(Input::Message { from: LinkId(key.to_u64()), msg });
                }
                Ok(None) => return,
                Err(error) => self.end(cx, key, &format!("received {error}")),
            }
        }
    }

    fn sent(&mut self, cx: &mut Context<'_>, key: LinkKey, mut send: SendOperation, result: Result<u32, i32>) {
        cx.counters.sends += 1;
        let count = match result {
            Ok(count) => count,
            Err(libc::EINTR | libc::EAGAIN) => 0,
            Err(error) => return self.end(cx, key, &io::Error::from_raw_os_error(error).to_string()),
        };
        cx.counters.bytes_out += u64::from(count);
        send.sent += u64::from(count);
        let link = self.links.get_mut(key).expect("found by the caller");
        if send.sent < send.batch.bytes() {
            if !matches!(link.stage, Stage::Ended) {
                link.in_flight += 1;
                cx.queue.push(raw(&link.socket), Token::Link(key), Operation::Send(send));
            }
            return;
        }
        link.sending = false;
        link.outbox.sent(send.batch);
        self.mark_dirty(key);
        self.receive(cx.queue, key);
    }

    /// A connection is over.
    fn end(&mut self, cx: &mut Context<'_>, key: LinkKey, why: &str) {
        self.forget_awaited(key);
        let Some(link) = self.links.get_mut(key) else { return };
        let id = LinkId(key.to_u64());
        tracing::debug!("{id:?} ended: {why}");
        match link.stage {
            Stage::Connecting(_) | Stage::Greeting(_) => return self.fail(cx, key, false),
            Stage::Up => cx.inputs.push_back(Input::Link(LinkEvent::Down { link: id })),
            Stage::Finishing | Stage::Ended => {}
        }
        link.stage = Stage::Ended;
        shut(&link.socket);
    }

    fn remove_if_over(&mut self, key: LinkKey) {
        if self.links.get(key).is_some_and(|link| matches!(link.stage, Stage::Ended) && link.in_flight == 0) {
            self.links.remove(key);
        }
    }

    /// Gives up what has taken too long.
    pub fn tick(&mut self, cx: &mut Context<'_>) {
        while let Some(key) = self.deadlines.pop_due(cx.now) {
            let due = self.links.get(key).filter(|link| link.give_up_at.is_some_and(|at| at <= cx.now));
            match due.map(|link| &link.stage) {
                Some(Stage::Connecting(_) | Stage::Greeting(_)) => self.fail(cx, key, false),
                Some(Stage::Finishing) => self.end(cx, key, "closed by this node, with something unsent"),
                Some(Stage::Up | Stage::Ended) | None => {}
            }
            self.remove_if_over(key);
        }
    }
}

/// Ends both directions: what is in flight completes. It fails only if the peer was faster.
fn shut(socket: &Socket) {
    let _ = socket.shutdown(Shutdown::Both);
}

#[allow(unsafe_code)]
fn adopt(fd: i32) -> Socket {
    // SAFETY: the kernel just made this descriptor for an accept of ours, and nobody else knows it.
    unsafe { Socket::from_raw_fd(fd) }
}

/// Whether the answer to this message is worth a short wait before sleeping.
fn awaits_reply(message: &Message) -> bool {
    matches!(message, Message::Pg(PgMessage::SubOp { .. }) | Message::Request(_))
}

/// Whether this message is such an answer.
fn is_reply(message: &Message) -> bool {
    matches!(message, Message::Pg(PgMessage::SubReply { .. }) | Message::Reply(_))
}
