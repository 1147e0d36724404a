//! Runs a node with disks on io_uring: one thread, one ring for disks and TCP.
//!
//! Owns: the node, its connections, its devices. Does not own: protocol decisions; opening of stores (the daemon).
//!
//! A round takes all completions, gives them to the node, lets it finish the round, then queues one send for each
//! connection that got something; one enter submits everything and waits for what comes next. Between rounds the loop
//! sleeps in that enter, until the node's next deadline at the latest: an idle node uses no CPU.

mod alone;
mod device;
mod discard;
mod disks;
#[cfg(any(test, feature = "faults"))]
mod faulty;
mod links;
mod mail;
mod patience;
mod queue;
mod registered;

#[cfg(test)]
mod tests;

pub use alone::Alone;
pub use device::{Access, DeviceFile, Durability, OpenError, atomic_unit};

use crate::counters::Counters;
use crate::driver::{Ending, MetaClient, MetaOpener};
use crate::observe::Observer;
use crate::os;
use ashlar_core::buf::BufPool;
use ashlar_core::io::{Device, Effect, Effects, Env, Input, IoId, LinkEvent, MetaEvent, MetaOp, Node, PeerName};
use ashlar_core::rng::Rng;
use ashlar_core::slab::Key;
use ashlar_core::time::{Duration, Time};
use ashlar_core::wire::handshake::Identity;
#[cfg(not(any(test, feature = "faults")))]
use disks::Disks;
#[cfg(any(test, feature = "faults"))]
use faulty::Faulty as Disks;
use links::{Context, Link, Links};
use mail::{Letter, Mailbox};
use patience::{LONGEST, Patience};
use queue::{Completed, Operation, Queue};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// How often a node is shown its runtime's figures, at most.
const COUNTERS_PERIOD: Duration = Duration::secs(1);
/// How long a node may take to stop in good order (an OSD hands over first): supervisors lose patience after some seconds.
const STOP_TIMEOUT: Duration = Duration::secs(3);
/// Rounds of inline disk requests before the network gets its turn.
const INLINE_ROUNDS: usize = 16;

/// A node that lives on the ring.
pub trait Daemon: Node {
    /// Begins to stop in good order.
    fn stop(&mut self, env: &mut Env<'_>);
    /// Whether it has stopped.
    fn is_stopped(&self) -> bool;
    /// Is shown the runtime's figures now and then.
    fn set_counters(&mut self, counters: &[(&'static str, u64)]);
}

/// What a loop needs besides the node.
pub struct Setup {
    /// Who the node is.
    pub identity: Identity,
    /// Where connections arrive.
    pub listener: TcpListener,
    /// The data device.
    pub data: DeviceFile,
    /// The log's own device, if it has one.
    pub log: Option<DeviceFile>,
    /// The metadata store, if the node talks to it.
    pub meta: Option<MetaOpener>,
    /// Seed of the node's randomness.
    pub seed: u64,
    /// Whether to yield for a moment before sleeping, where it pays.
    pub yields: bool,
}

/// Whom a completion is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Accept,
    Mail,
    Cancel,
    Link(Key<Link>),
    Disk(Device, IoId),
}

/// Stops a loop from another thread.
#[derive(Clone)]
pub struct Stopper(Mailbox);

impl Stopper {
    /// Tells the loop to end in good order.
    pub fn stop(&self) {
        self.0.post(Letter::Stop);
    }
}

/// The loop of one node; belongs to one thread.
pub struct Loop<N> {
    node: N,
    rng: Rng,
    bufs: BufPool,
    effects: Effects,
    spare: Vec<Effect>,
    inputs: VecDeque<Input>,
    observer: Observer,
    queue: Queue,
    links: Links,
    disks: Disks,
    meta: Option<Box<dyn MetaClient>>,
    mailbox: Mailbox,
    letters: Vec<Letter>,
    counters: Counters,
    counters_shown: Time,
    patience: Patience,
    /// Requests to the metadata store that were not answered.
    meta_pending: usize,
    stopping: Option<Time>,
    ending: Option<Ending>,
}

impl<N: Daemon> Loop<N> {
    /// Sets everything up. `build` makes the node, and may use its environment.
    pub fn new(setup: Setup, build: impl FnOnce(&mut Env<'_>) -> N) -> io::Result<Loop<N>> {
        let mailbox = Mailbox::new()?;
        let (mut queue, disks) = (Queue::new()?, Disks::new(setup.data, setup.log));
        disks.register(&mut queue);
        let (mut rng, mut bufs, mut effects) = (Rng::new(setup.seed), BufPool::new(), Effects::default());
        let now = os::now();
        let node = build(&mut Env { now, rng: &mut rng, bufs: &mut bufs, out: &mut effects });
        let sender = mailbox.clone();
        let meta = setup.meta.map(|open| open(Arc::new(move |event| sender.post(Letter::Meta(event)))));
        queue.push(mailbox.bell(), Token::Mail, Operation::Wake(Box::new([0; 8])));
        Ok(Loop {
            node,
            rng,
            bufs,
            effects,
            spare: Vec::new(),
            inputs: VecDeque::from([Input::Tick]),
            observer: Observer::default(),
            queue,
            links: Links::new(setup.identity, setup.listener),
            disks,
            meta,
            mailbox,
            letters: Vec::new(),
            counters: Counters::default(),
            counters_shown: now,
            patience: Patience::new(setup.yields),
            meta_pending: 0,
            stopping: None,
            ending: None,
        })
    }

    /// Stops this loop from another thread.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.mailbox.clone())
    }

    /// Figures so far.
    pub fn counters(&self) -> Counters {
        let cpu_ns = u64::try_from(os::thread_cpu().as_nanos()).expect("fits for 584 years");
        Counters { enters: self.queue.enters(), cpu_ns, ..self.counters }
    }

    /// The node, to look at.
    pub fn node(&self) -> &N {
        &self.node
    }

    /// Runs until the node ends or is stopped.
    pub fn run(&mut self) -> io::Result<Ending> {
        loop {
            self.round();
            if let Some(ending) = self.ending.take() {
                return Ok(ending);
            }
            self.wait()?;
        }
    }

    fn round(&mut self) {
        self.counters.rounds += 1;
        self.links.accept(os::now(), &mut self.queue);
        self.take_completions();
        self.tick_links();
        self.tick_node();
        for _ in 0..INLINE_ROUNDS {
            self.take_inputs();
            self.call(|node, env| node.end_of_round(env));
            if self.inputs.is_empty() {
                break;
            }
        }
        self.with_links(|links, cx| links.flush(cx));
        self.end_if_stopped();
    }

    fn take_completions(&mut self) {
        while let Some(completed) = self.queue.next() {
            match completed.token {
                Token::Accept => self.with_links(|links, cx| links.accepted(cx, &completed)),
                Token::Mail => self.take_letters(completed),
                Token::Cancel => {}
                Token::Link(key) => self.with_links(|links, cx| links.completed(cx, key, completed)),
                Token::Disk(device, id) => self.disk_completed(device, id, completed),
            }
            // In order of arrival, and before more is taken in.
            self.take_inputs();
        }
        #[cfg(any(test, feature = "faults"))]
        self.take_held();
    }

    /// Answers of disks that a fault held back.
    #[cfg(any(test, feature = "faults"))]
    fn take_held(&mut self) {
        while let Some((id, done)) = self.disks.take(&mut self.bufs, os::now()) {
            self.inputs.push_back(Input::Io { id, done });
        }
    }

    fn take_inputs(&mut self) {
        for _ in 0..self.inputs.len() {
            let input = self.inputs.pop_front().expect("counted");
            if self.links.admits(&input) {
                self.call(|node, env| node.handle(env, input));
            }
        }
    }

    fn disk_completed(&mut self, device: Device, id: IoId, completed: Completed) {
        if let Some(done) = self.disks.completed(&mut self.queue, &mut self.bufs, device, id, completed) {
            self.inputs.push_back(Input::Io { id, done });
        }
    }

    fn take_letters(&mut self, completed: Completed) {
        self.queue.push(self.mailbox.bell(), Token::Mail, completed.operation);
        let mut letters = std::mem::take(&mut self.letters);
        self.mailbox.take(&mut letters);
        for letter in letters.drain(..) {
            match letter {
                Letter::Meta(event) => {
                    self.meta_pending -= usize::from(matches!(event, MetaEvent::Response { .. }));
                    self.inputs.push_back(Input::Meta(event));
                }
                Letter::Resolved { target, address } => self.connect(target, address),
                Letter::Stop => self.begin_stop(),
            }
        }
        self.letters = letters;
    }

    fn begin_stop(&mut self) {
        if self.stopping.is_none() {
            self.stopping = Some(os::now());
            self.call(|node, env| node.stop(env));
        }
    }

    fn end_if_stopped(&mut self) {
        let Some(since) = self.stopping else { return };
        let late = os::now().since(since) >= STOP_TIMEOUT;
        if late {
            tracing::warn!("gave up waiting for a stop in good order");
        }
        let is_quiet = self.disks.in_flight() == 0 && self.meta_pending == 0 && self.inputs.is_empty();
        if late || self.node.is_stopped() && is_quiet {
            self.ending.get_or_insert(Ok(()));
        }
    }

    fn tick_links(&mut self) {
        self.with_links(|links, cx| links.tick(cx));
    }

    fn tick_node(&mut self) {
        let now = os::now();
        if self.node.next_deadline().is_none_or(|at| at > now) {
            return;
        }
        if now.since(self.counters_shown) >= COUNTERS_PERIOD {
            self.counters_shown = now;
            self.node.set_counters(&self.counters().named());
        }
        self.call(|node, env| node.handle(env, Input::Tick));
    }

    fn with_links(&mut self, run: impl FnOnce(&mut Links, &mut Context<'_>)) {
        let mut cx = Context {
            now: os::now(),
            queue: &mut self.queue,
            bufs: &mut self.bufs,
            counters: &mut self.counters,
            inputs: &mut self.inputs,
        };
        run(&mut self.links, &mut cx);
    }

    /// Calls the node and executes its effects.
    fn call(&mut self, call: impl FnOnce(&mut N, &mut Env<'_>)) {
        let now = os::now();
        let mut env = Env { now, rng: &mut self.rng, bufs: &mut self.bufs, out: &mut self.effects };
        call(&mut self.node, &mut env);
        let mut queue = std::mem::replace(&mut self.effects.queue, std::mem::take(&mut self.spare));
        for effect in queue.drain(..) {
            self.execute(now, effect);
        }
        self.spare = queue;
    }

    fn execute(&mut self, now: Time, effect: Effect) {
        match effect {
            Effect::Send { to, msg } => self.links.send(to, &msg),
            Effect::Connect { target, address } => self.look_up(target, address),
            Effect::Close(link) => self.links.close(now, link),
            Effect::Io { id, op } => {
                let done = self.disks.begin(&mut self.queue, &mut self.bufs, &mut self.counters, id, op);
                self.inputs.extend(done.map(|done| Input::Io { id, done }));
            }
            Effect::Meta(op) => {
                self.meta_pending += usize::from(matches!(op, MetaOp::Request { .. }));
                self.meta.as_mut().expect("only nodes with a metadata client use it").submit(op);
            }
            Effect::Observe(event) => self.observer.observe(event),
            Effect::Die(reason) => self.ending = Some(Err(reason)),
        }
    }

    /// An address of numbers is at hand; a name is looked up elsewhere, for that may block.
    fn look_up(&mut self, target: PeerName, address: String) {
        if let Ok(address) = address.parse() {
            return self.connect(target, Some(address));
        }
        let mailbox = self.mailbox.clone();
        std::thread::spawn(move || {
            let address = address.to_socket_addrs().ok().and_then(|mut found| found.next());
            mailbox.post(Letter::Resolved { target, address });
        });
    }

    fn connect(&mut self, target: PeerName, address: Option<SocketAddr>) {
        let begun = address.ok_or(()).and_then(|to| self.links.connect(os::now(), &mut self.queue, target, to));
        if begun.is_err() {
            self.inputs.push_back(Input::Link(LinkEvent::Failed { target, refused: false }));
        }
    }

    /// Until something completes, or it is time for something.
    fn wait(&mut self) -> io::Result<()> {
        let timeout = self.timeout();
        if timeout != Some(Duration::ZERO) && self.links.awaits_replies() && self.patience.tries() {
            self.queue.enter(Some(Duration::ZERO))?;
            let paid = self.yield_a_while();
            self.patience.learn(paid);
            if paid {
                return self.queue.enter(Some(Duration::ZERO));
            }
        }
        self.counters.sleeps += u64::from(timeout != Some(Duration::ZERO));
        self.queue.enter(timeout)
    }

    /// Whether something arrived.
    fn yield_a_while(&mut self) -> bool {
        let begin = os::now();
        while !self.queue.is_ready() {
            if os::now().since(begin) >= LONGEST {
                return false;
            }
            os::yield_now();
        }
        true
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.inputs.is_empty() {
            return Some(Duration::ZERO);
        }
        let stop = self.stopping.map(|since| since + STOP_TIMEOUT);
        let deadlines = [self.node.next_deadline(), self.links.next_deadline(), stop];
        #[cfg(any(test, feature = "faults"))]
        let deadlines = deadlines.into_iter().chain([self.disks.next_due(os::now())]);
        let next = deadlines.into_iter().flatten().min()?;
        Some(next.since(os::now()))
    }

    /// How often each named branch was taken.
    pub fn marks(&self) -> &BTreeMap<&'static str, u64> {
        self.observer.marks()
    }
}

/// The number of a descriptor that its owner keeps open.
fn raw(fd: &impl AsRawFd) -> RawFd {
    fd.as_raw_fd()
}
