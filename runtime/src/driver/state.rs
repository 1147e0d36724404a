//! The node with what it needs at each call, and its connections' queues.

use super::MetaClient;
use crate::counters::Counters;
use crate::observe::Observer;
use ashlar_core::buf::BufPool;
use ashlar_core::id::LinkId;
use ashlar_core::io::{Effect, Effects, Env, Input, LinkEvent, Node, PeerName};
use ashlar_core::msg::Message;
use ashlar_core::rng::Rng;
use ashlar_core::time::Time;
use ashlar_core::wire::handshake::{Agreed, Identity, Refused};
use ashlar_core::wire::{Batch, Inbox, Outbox, WireError};
use std::collections::BTreeMap;
use std::task::Waker;

/// A connection whose peer has so much unread gets nothing more read from it: it asks more than it listens.
const READ_STOP_BYTES: u64 = 4 << 20;
/// A connection whose peer has so much unread is cut: it does not listen, and the node goes on producing.
const CUT_BYTES: u64 = 256 << 20;

/// What a call of the node asks for that needs a task.
pub enum Action {
    /// Open a connection.
    Connect { target: PeerName, address: String },
    /// End.
    Die(String),
}

/// The shared side of a connection that is up.
pub struct Link {
    /// What waits to be sent.
    pub outbox: Outbox,
    /// The task of the connection, if it waits for something to do.
    pub waker: Option<Waker>,
    /// The node closed it; what waits is still sent.
    pub closing: bool,
    /// Cut: ends as if the peer had closed it.
    pub cut: bool,
}

/// What a connection's task may do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// Read and write.
    Run,
    /// Write only: the peer must read first.
    WriteOnly,
    /// Write the rest, then close.
    Finish,
    /// Close now.
    Cut,
}

/// The node and its surroundings.
pub struct State<N> {
    node: N,
    identity: Identity,
    rng: Rng,
    bufs: BufPool,
    effects: Effects,
    observer: Observer,
    meta: Option<Box<dyn MetaClient>>,
    links: BTreeMap<LinkId, Link>,
    links_made: u64,
    refusals: BTreeMap<PeerName, Refused>,
    counters: Counters,
    actions: Vec<Action>,
    spare: Vec<Effect>,
}

impl<N: Node> State<N> {
    pub fn new(node: N, identity: Identity, seed: u64, meta: Option<Box<dyn MetaClient>>) -> Self {
        State {
            node,
            identity,
            rng: Rng::new(seed),
            bufs: BufPool::new(),
            effects: Effects::default(),
            observer: Observer::default(),
            meta,
            links: BTreeMap::new(),
            links_made: 0,
            refusals: BTreeMap::new(),
            counters: Counters::default(),
            actions: Vec::new(),
            spare: Vec::new(),
        }
    }

    pub fn identity(&self) -> Identity {
        self.identity
    }

    pub fn marks(&self) -> &BTreeMap<&'static str, u64> {
        self.observer.marks()
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    pub fn next_deadline(&self) -> Option<Time> {
        self.node.next_deadline()
    }

    /// Calls the node and executes effects, but those that need a task.
    pub fn call<R>(&mut self, now: Time, call: impl FnOnce(&mut N, &mut Env<'_>) -> R) -> R {
        let mut env = Env { now, rng: &mut self.rng, bufs: &mut self.bufs, out: &mut self.effects };
        let result = call(&mut self.node, &mut env);
        self.execute();
        result
    }

    /// Ends a round of calls; returns what needs a task.
    pub fn finish_round(&mut self, now: Time) -> Vec<Action> {
        self.call(now, |node, env| node.end_of_round(env));
        std::mem::take(&mut self.actions)
    }

    fn execute(&mut self) {
        let mut queue = std::mem::replace(&mut self.effects.queue, std::mem::take(&mut self.spare));
        for effect in queue.drain(..) {
            match effect {
                Effect::Send { to, msg } => self.send(to, &msg),
                Effect::Connect { target, address } => self.actions.push(Action::Connect { target, address }),
                Effect::Close(link) => self.close(link),
                Effect::Io { id, op } => panic!("a node without disks asks for {id:?}: {op:?}"),
                Effect::Meta(op) => self.meta.as_mut().expect("only nodes with a metadata client use it").submit(op),
                Effect::Observe(event) => self.observer.observe(event),
                Effect::Die(reason) => self.actions.push(Action::Die(reason)),
            }
        }
        self.spare = queue;
    }

    fn send(&mut self, to: LinkId, message: &Message) {
        let Some(link) = self.links.get_mut(&to).filter(|link| !link.closing) else { return };
        link.outbox.push(message);
        link.cut |= link.outbox.bytes() > CUT_BYTES;
        wake(link);
    }

    fn close(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.closing = true;
            wake(link);
        }
    }

    /// A handshake succeeded.
    pub fn link_up(&mut self, now: Time, agreed: &Agreed, opened: Option<PeerName>) -> LinkId {
        self.identity.cluster.get_or_insert(agreed.cluster);
        if let Some(target) = opened {
            self.refusals.remove(&target);
        }
        self.links_made += 1;
        let link = LinkId(self.links_made);
        self.links.insert(link, Link { outbox: Outbox::default(), waker: None, closing: false, cut: false });
        let up = LinkEvent::Up { link, peer: agreed.peer, opened };
        self.call(now, |node, env| node.handle(env, Input::Link(up)));
        link
    }

    /// A connection that was up has ended.
    pub fn link_down(&mut self, now: Time, id: LinkId) {
        let link = self.links.remove(&id).expect("a connection ends once");
        if !link.closing {
            self.call(now, |node, env| node.handle(env, Input::Link(LinkEvent::Down { link: id })));
        }
    }

    /// An attempt to connect failed.
    pub fn connect_failed(&mut self, now: Time, target: PeerName, refused: bool) {
        self.call(now, |node, env| node.handle(env, Input::Link(LinkEvent::Failed { target, refused })));
    }

    /// Remembers why a target refused us; true if that is news.
    pub fn note_refusal(&mut self, target: PeerName, why: Refused) -> bool {
        self.refusals.insert(target, why) != Some(why)
    }

    /// What the task of a connection may do; wakes it later if it is to do more.
    pub fn permit(&mut self, id: LinkId, waker: &Waker) -> (Permit, &mut Outbox) {
        let link = self.links.get_mut(&id).expect("its task ends before the connection");
        link.waker.get_or_insert_with(|| waker.clone()).clone_from(waker);
        let permit = match link {
            Link { cut: true, .. } => Permit::Cut,
            Link { closing: true, .. } => Permit::Finish,
            Link { outbox, .. } if outbox.bytes() > READ_STOP_BYTES => Permit::WriteOnly,
            Link { .. } => Permit::Run,
        };
        (permit, &mut link.outbox)
    }

    /// Delivers the messages that are complete. Stops when the node closes the connection.
    pub fn deliver(&mut self, now: Time, id: LinkId, inbox: &mut Inbox) -> Result<(), WireError> {
        self.counters.receives += 1;
        while self.links.get(&id).is_some_and(|link| !link.closing) {
            let Some(msg) = inbox.next(&mut self.bufs)? else { break };
            self.counters.messages_in += 1;
            self.call(now, |node, env| node.handle(env, Input::Message { from: id, msg }));
        }
        Ok(())
    }

    /// A batch of a connection was sent.
    pub fn sent(&mut self, id: LinkId, batch: Batch) {
        self.counters.sends += 1;
        self.counters.messages_out += u64::from(batch.messages());
        self.counters.bytes_out += batch.bytes();
        self.links.get_mut(&id).expect("its task ends before the connection").outbox.sent(batch);
    }

    /// Whether something waits to be sent.
    pub fn has_waiting(&self, id: LinkId) -> bool {
        self.links.get(&id).is_some_and(|link| link.outbox.has_waiting())
    }
}

/// Runs a connection's task, if it waits.
fn wake(link: &mut Link) {
    if let Some(waker) = link.waker.take() {
        waker.wake();
    }
}
