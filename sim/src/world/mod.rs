//! One thread, one event heap, no ticks: nodes, hosts, disks, connections and virtual time.
//!
//! [`World`] executes the effects of nodes and gives them their inputs. Its methods are of three classes: *building*
//! ([`World::add_host`], [`World::add_node`]), *stepping* ([`World::step`]), and *acting* (faults, and calls into a node by
//! [`World::with`]). It is `Clone`: a run can be forked at any event.
//!
//! Invariants: an event for a process that died since is dropped (each carries the number of the process's start);
//! events of equal time happen in the order in which they were scheduled; nothing depends on addresses or hash order.

mod clock;
mod luck;
mod meta;
mod net;
mod power;
mod story;
mod trace;

pub use clock::Clock;
pub use meta::{META_HOST, MetaFaults, MetaModel};
pub use net::ConnId;
pub use story::{Passage, Scene, Story};
pub use trace::{CHECKPOINT_EVENTS, Line, Recorder, TraceHash};

use ashlar_core::buf::BufPool;
use ashlar_core::id::Incarnation;
use ashlar_core::io::{Device, DiskOp, Effect, Effects, Env, Event, Input, IoId, MetaEvent, Node, PeerId};
use ashlar_core::msg::Message;
use ashlar_core::rng::Rng;
use ashlar_core::time::{Duration, Time};
use ashlar_core::wire::handshake::Identity;
use ashlar_faultinject::disk::{SimDisk, Ticket};
use ashlar_faultinject::link::{Fabric, HostId, LinkModel};
use luck::{Drawer, Steady};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A process's place, for the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl NodeId {
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// The process alone: killed, or it gave up.
    Process,
    /// Its host lost power.
    Power,
}

/// A state machine that the world can run, end and start again.
pub trait Machine: Node + Clone {
    /// What outlives the process: its configuration, and state that is kept elsewhere than on simulated disks.
    type Spec: Clone;

    /// Starts the process.
    fn start(spec: &mut Self::Spec, incarnation: Incarnation, env: &mut Env<'_>) -> Self;
    /// Ends the process; what survives goes into the specification.
    fn halt(self, spec: &mut Self::Spec, how: Halt, rng: &mut Rng);
    /// Who it says it is when it connects, and which versions it speaks.
    fn identity(&self, spec: &Self::Spec) -> Identity;
}

/// Something that happens at a point of time.
#[derive(Clone, Debug)]
enum Happening {
    Deliver { conn: ConnId, from: usize },
    ConnectTimeout { conn: ConnId },
    GiveUp { conn: ConnId, end: usize },
    Disk { node: NodeId, boot: u32, device: Device, io: IoId, ticket: Ticket },
    Tick { node: NodeId, boot: u32 },
    EndOfRound { node: NodeId, boot: u32 },
    Meta(meta::MetaHappening),
    MetaEvent { node: NodeId, boot: u32, event: MetaEvent },
    Resume { node: NodeId, pause: u64 },
    PowerOn { host: HostId },
    Start { node: NodeId },
    Call(u64),
}

/// What a step was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stepped {
    /// A node took an input.
    Node(NodeId),
    /// A call that was scheduled by [`World::call_at`].
    Call(u64),
    /// Nothing that a node noticed.
    World,
}

/// What an observer sees.
#[derive(Clone, Debug)]
pub struct Observed {
    /// When, in the world's time.
    pub at: Time,
    /// Who.
    pub node: NodeId,
    /// What.
    pub what: Sight,
}

/// See [`Observed`].
#[derive(Clone, Debug)]
pub enum Sight {
    /// The node told it.
    Event(Event),
    /// The node sent a message that the world was asked to watch for.
    Sent {
        /// To whom.
        to: PeerId,
        /// The message.
        msg: Message,
    },
    /// The node stopped itself.
    Died(String),
}

#[derive(Clone, Debug)]
struct Host {
    powered: bool,
}

#[derive(Clone)]
struct Slot<M: Machine> {
    host: HostId,
    spec: M::Spec,
    machine: Option<M>,
    /// Counts starts; events carry it.
    boot: u32,
    rng: Rng,
    clock: Clock,
    tick_at: Option<Time>,
    /// Starts that are due do not happen.
    retired: bool,
    paused: bool,
    pauses: u64,
    /// What is sent to it takes so much longer to be received.
    slow: Duration,
    round_open: bool,
    backlog: Vec<Happening>,
    disks: [Option<SimDisk>; 2],
}

/// How the world treats nodes.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// `check()` of a node is called after one in so many of its inputs (1: after each).
    pub check_every: u64,
    /// Inputs of a node that come within so long make one round (0: each is a round).
    pub gather: Duration,
    /// Passed over every message sent, in place of it: the wire's encoder and decoder, when they take part.
    pub codec: Option<fn(Message, &mut BufPool) -> Message>,
    /// Which messages [`World::take_observed`] reports.
    pub watch: fn(&Message) -> bool,
    /// Called before and after each call into a node: for those who count what nodes do.
    pub probe: Probe,
}

/// See [`Options::probe`].
pub type Probe = fn(NodeId, Moment);

/// When a probe is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The node is about to be called.
    Begin,
    /// The node returned.
    End,
}

impl Default for Options {
    fn default() -> Self {
        Options { check_every: 1, gather: Duration::ZERO, codec: None, watch: |_| false, probe: |_, _| {} }
    }
}

/// The world. See the module's header.
#[derive(Clone)]
pub struct World<M: Machine> {
    now: Time,
    order: u64,
    heap: BinaryHeap<Reverse<(Time, u64, u32)>>,
    happenings: Vec<Option<Happening>>,
    free: Vec<u32>,
    nodes: Vec<Slot<M>>,
    hosts: Vec<Host>,
    net: net::Net,
    meta: meta::MetaWorld,
    bufs: BufPool,
    rng: Rng,
    steady: Option<Steady>,
    effects: Effects,
    options: Options,
    observed: Vec<Observed>,
    trace: TraceHash,
    /// The hash after every so many events.
    checkpoints: Vec<u64>,
    recorder: Option<Recorder>,
    story: Option<Box<Story>>,
    heard: Option<Vec<(NodeId, Message)>>,
    inputs: u64,
}

impl<M: Machine> World<M> {
    /// A world without nodes, at time 0.
    pub fn new(seed: u64, links: LinkModel, meta: MetaModel, options: Options) -> Self {
        let mut rng = Rng::new(seed);
        World {
            now: Time(0),
            order: 0,
            heap: BinaryHeap::new(),
            happenings: Vec::new(),
            free: Vec::new(),
            nodes: Vec::new(),
            hosts: Vec::new(),
            net: net::Net::new(links, rng.fork()),
            meta: meta::MetaWorld::new(meta, rng.fork()),
            bufs: BufPool::new(),
            rng,
            steady: None,
            effects: Effects::default(),
            options,
            observed: Vec::new(),
            trace: TraceHash::default(),
            checkpoints: Vec::new(),
            recorder: None,
            story: None,
            heard: None,
            inputs: 0,
        }
    }

    /// The messages that were sent since the last call, with their senders; from the first call on they are kept.
    pub fn take_heard(&mut self) -> Vec<(NodeId, Message)> {
        self.heard.replace(Vec::new()).unwrap_or_default()
    }

    /// Adds a host, powered on.
    pub fn add_host(&mut self) -> HostId {
        self.hosts.push(Host { powered: true });
        HostId(u32::try_from(self.hosts.len() - 1).expect("few hosts"))
    }

    /// Number of hosts.
    pub fn hosts(&self) -> u32 {
        u32::try_from(self.hosts.len()).expect("few hosts")
    }

    /// Adds a process, not yet started.
    pub fn add_node(&mut self, host: HostId, spec: M::Spec, clock: Clock) -> NodeId {
        let rng = self.rng.fork();
        self.nodes.push(Slot {
            host,
            spec,
            machine: None,
            boot: 0,
            rng,
            clock,
            tick_at: None,
            retired: false,
            paused: false,
            pauses: 0,
            slow: Duration::ZERO,
            round_open: false,
            backlog: Vec::new(),
            disks: [None, None],
        });
        NodeId(u32::try_from(self.nodes.len() - 1).expect("few nodes"))
    }

    /// Gives a process a disk.
    pub fn add_disk(&mut self, node: NodeId, device: Device, model: ashlar_faultinject::disk::DiskModel) {
        self.nodes[node.index()].disks[device_index(device)] = Some(SimDisk::new(model, &mut self.bufs));
    }

    /// Where peers connect to.
    pub fn address(&self, node: NodeId) -> String {
        World::<M>::address_on(self.host_of(node), node)
    }

    /// Where peers of a process on that host connect to.
    pub fn address_on(host: HostId, node: NodeId) -> String {
        format!("host{}:{}", host.0, node.0)
    }

    /// The world's time; no node sees it.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Events so far.
    pub fn events(&self) -> u64 {
        self.trace.events()
    }

    /// Hash of everything that happened so far.
    pub fn trace(&self) -> TraceHash {
        self.trace
    }

    /// All processes, running or not.
    pub fn node_ids(&self) -> impl Iterator<Item = NodeId> + use<M> {
        (0..u32::try_from(self.nodes.len()).expect("few nodes")).map(NodeId)
    }

    /// The running process.
    pub fn node(&self, node: NodeId) -> Option<&M> {
        self.nodes[node.index()].machine.as_ref()
    }

    /// The running process, for observers: its effects are not executed.
    pub fn node_mut(&mut self, node: NodeId) -> Option<&mut M> {
        self.nodes[node.index()].machine.as_mut()
    }

    /// What outlives the process.
    pub fn spec(&self, node: NodeId) -> &M::Spec {
        &self.nodes[node.index()].spec
    }

    /// What outlives the process, to be changed by an operator.
    pub fn spec_mut(&mut self, node: NodeId) -> &mut M::Spec {
        &mut self.nodes[node.index()].spec
    }

    /// The host of a process.
    pub fn host_of(&self, node: NodeId) -> HostId {
        self.nodes[node.index()].host
    }

    /// A disk of a process.
    pub fn disk_mut(&mut self, node: NodeId, device: Device) -> Option<&mut SimDisk> {
        self.nodes[node.index()].disks[device_index(device)].as_mut()
    }

    /// The paths between hosts.
    pub fn fabric(&self) -> &Fabric {
        self.net.fabric()
    }

    /// Payload buffers.
    pub fn bufs(&mut self) -> &mut BufPool {
        &mut self.bufs
    }

    /// Keeps the last events as text from now on.
    pub fn record(&mut self, recorder: Recorder) {
        self.recorder = Some(recorder);
    }

    /// The recorder.
    pub fn recorder(&self) -> Option<&Recorder> {
        self.recorder.as_ref()
    }

    /// Adds a line to the recorder.
    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if self.recorder.is_none() && self.story.is_none() {
            return;
        }
        let (event, text) = (self.trace.events(), text());
        if let Some(story) = &mut self.story {
            story.happened(event, self.now, text.clone());
        }
        if let Some(recorder) = self.recorder.as_mut().filter(|recorder| recorder.wants(event)) {
            recorder.push(event, self.now, text);
        }
    }

    /// The hash after each [`CHECKPOINT_EVENTS`] events.
    pub fn checkpoints(&self) -> &[u64] {
        &self.checkpoints
    }

    /// Keeps everything that happens from now on, for people.
    pub fn tell_story(&mut self) {
        self.story = Some(Box::default());
    }

    /// What happened, if it was kept.
    pub fn story(&self) -> Option<&Story> {
        self.story.as_deref()
    }

    /// What was seen since the last call.
    pub fn take_observed(&mut self) -> Vec<Observed> {
        std::mem::take(&mut self.observed)
    }

    /// Makes [`World::step`] return [`Stepped::Call`] at that time.
    pub fn call_at(&mut self, at: Time, token: u64) {
        self.schedule(at, Happening::Call(token));
    }

    /// Running processes whose deadline has come.
    pub fn overdue(&self) -> impl Iterator<Item = NodeId> + use<'_, M> {
        self.node_ids().filter(|node| {
            let slot = &self.nodes[node.index()];
            let deadline = slot.machine.as_ref().and_then(|machine| machine.next_deadline());
            deadline.is_some_and(|deadline| deadline <= slot.clock.local(self.now))
        })
    }

    /// When the next event is due.
    pub fn next_event(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// Time passes without events, up to `at` (never beyond the next event).
    pub fn advance_to(&mut self, at: Time) {
        let limit = self.next_event().unwrap_or(at);
        self.now = self.now.max(at.min(limit));
    }

    fn schedule(&mut self, at: Time, what: Happening) {
        let place = match self.free.pop() {
            Some(place) => {
                self.happenings[place as usize] = Some(what);
                place
            }
            None => {
                self.happenings.push(Some(what));
                u32::try_from(self.happenings.len() - 1).expect("bounded queues")
            }
        };
        self.order += 1;
        self.heap.push(Reverse((at.max(self.now), self.order, place)));
    }

    /// Lets the next event happen. `None`: nothing is left to happen.
    pub fn step(&mut self) -> Option<Stepped> {
        let Reverse((at, _, place)) = self.heap.pop()?;
        let what = self.happenings[place as usize].take().expect("each place is scheduled once");
        self.free.push(place);
        self.now = at;
        self.begin_event();
        Some(self.happen(what))
    }

    fn begin_event(&mut self) {
        self.trace.begin();
        if self.trace.events().is_multiple_of(CHECKPOINT_EVENTS) {
            self.checkpoints.push(self.trace.value());
        }
        if self.recorder.is_some() {
            let (number, hash) = (self.trace.events(), self.trace.value());
            self.record_hash(number, hash);
        }
    }

    /// In a window, the hash before each event is a line of its own: what the text does not show differs, too.
    fn record_hash(&mut self, number: u64, hash: u64) {
        let Some(recorder) = self.recorder.as_mut().filter(|recorder| recorder.is_window()) else { return };
        if recorder.wants(number) {
            recorder.push(number, self.now, format!("hash {hash:016x}"));
        }
    }

    fn happen(&mut self, what: Happening) -> Stepped {
        let Some(what) = self.hold_back_if_paused(what) else { return Stepped::World };
        match what {
            Happening::Deliver { conn, from } => return self.deliver(conn, from),
            Happening::ConnectTimeout { conn } => return self.connect_timeout(conn),
            Happening::GiveUp { conn, end } => return self.give_up(conn, end),
            Happening::Disk { node, boot, device, io, ticket } => {
                return self.disk_done(node, boot, device, io, ticket);
            }
            Happening::Tick { node, boot } => return self.tick(node, boot),
            Happening::EndOfRound { node, boot } => self.end_round(node, boot),
            Happening::Meta(what) => self.meta_happens(what),
            Happening::MetaEvent { node, boot, event } => {
                if self.alive(node, boot) {
                    self.trace.mix(&[6, self.now.0, u64::from(node.0)]);
                    return self.input(node, Input::Meta(event));
                }
            }
            Happening::Resume { node, pause } => {
                if self.nodes[node.index()].pauses == pause {
                    self.resume(node);
                }
            }
            Happening::PowerOn { host } => self.power_on(host),
            Happening::Start { node } if self.nodes[node.index()].retired => {}
            Happening::Start { node } => self.start(node),
            Happening::Call(token) => return Stepped::Call(token),
        }
        Stepped::World
    }

    /// A stopped process takes nothing; what is meant for it waits outside, in order.
    fn hold_back_if_paused(&mut self, what: Happening) -> Option<Happening> {
        let node = match &what {
            Happening::Deliver { conn, from } => self.net.node_at(*conn, 1 - from),
            Happening::Disk { node, .. }
            | Happening::Tick { node, .. }
            | Happening::EndOfRound { node, .. }
            | Happening::MetaEvent { node, .. } => Some(*node),
            _ => None,
        };
        match node {
            Some(node) if self.nodes[node.index()].paused => {
                self.nodes[node.index()].backlog.push(what);
                None
            }
            _ => Some(what),
        }
    }

    fn alive(&self, node: NodeId, boot: u32) -> bool {
        let slot = &self.nodes[node.index()];
        slot.boot == boot && slot.machine.is_some()
    }

    fn tick(&mut self, node: NodeId, boot: u32) -> Stepped {
        let slot = &mut self.nodes[node.index()];
        if slot.boot != boot || slot.machine.is_none() || slot.tick_at.is_none_or(|at| at > self.now) {
            return Stepped::World;
        }
        slot.tick_at = None;
        self.trace.mix(&[1, self.now.0, u64::from(node.0)]);
        self.input(node, Input::Tick)
    }

    fn disk_done(&mut self, node: NodeId, boot: u32, device: Device, io: IoId, ticket: Ticket) -> Stepped {
        if !self.alive(node, boot) {
            return Stepped::World;
        }
        let slot = &mut self.nodes[node.index()];
        let disk = slot.disks[device_index(device)].as_mut().expect("the request was taken by this disk");
        if let Some(until) = disk.held_until(self.now) {
            self.schedule(until, Happening::Disk { node, boot, device, io, ticket });
            return Stepped::World;
        }
        self.drawn_by(Drawer::Disk(node));
        let disk = self.nodes[node.index()].disks[device_index(device)].as_mut().expect("seen just now");
        let Some(done) = disk.complete(ticket, &mut self.rng, &mut self.bufs) else { return Stepped::World };
        self.trace.mix(&[2, self.now.0, u64::from(node.0), io.0]);
        self.input(node, Input::Io { id: io, done })
    }

    /// Gives a node an input.
    fn input(&mut self, node: NodeId, input: Input) -> Stepped {
        let event = self.trace.events();
        if let Some(recorder) = self.recorder.as_mut().filter(|recorder| recorder.wants(event)) {
            recorder.push(event, self.now, format!("{} <- {input:?}", recorder_name(node)));
        }
        self.with(node, |machine, env| machine.handle(env, input));
        Stepped::Node(node)
    }

    /// Calls into a running process (an API of it, such as a client's), and executes what it asks for.
    ///
    /// # Panics
    /// If the process does not run.
    pub fn with<R>(&mut self, node: NodeId, call: impl FnOnce(&mut M, &mut Env<'_>) -> R) -> R {
        self.drawn_by(Drawer::Node(node));
        let slot = &mut self.nodes[node.index()];
        let machine = slot.machine.as_mut().expect("a call into a running process");
        let now = slot.clock.local(self.now);
        let mut env = Env { now, rng: &mut slot.rng, bufs: &mut self.bufs, out: &mut self.effects };
        (self.options.probe)(node, Moment::Begin);
        let result = call(machine, &mut env);
        // A round has one input, unless inputs are gathered.
        let gather = self.options.gather;
        if gather == Duration::ZERO {
            machine.end_of_round(&mut env);
        }
        (self.options.probe)(node, Moment::End);
        if gather != Duration::ZERO && !std::mem::replace(&mut slot.round_open, true) {
            let (boot, after) = (slot.boot, Duration(slot.rng.below(gather.0)));
            self.schedule(self.now + after, Happening::EndOfRound { node, boot });
        }
        self.after_input(node);
        result
    }

    fn end_round(&mut self, node: NodeId, boot: u32) {
        if !self.alive(node, boot) {
            return;
        }
        self.drawn_by(Drawer::Node(node));
        let slot = &mut self.nodes[node.index()];
        slot.round_open = false;
        let machine = slot.machine.as_mut().expect("alive");
        let now = slot.clock.local(self.now);
        (self.options.probe)(node, Moment::Begin);
        machine.end_of_round(&mut Env { now, rng: &mut slot.rng, bufs: &mut self.bufs, out: &mut self.effects });
        (self.options.probe)(node, Moment::End);
        self.after_input(node);
    }

    fn after_input(&mut self, node: NodeId) {
        self.inputs += 1;
        if self.inputs.is_multiple_of(self.options.check_every)
            && let Some(machine) = &self.nodes[node.index()].machine
        {
            machine.check();
        }
        self.execute(node);
        self.arm_tick(node);
    }

    fn arm_tick(&mut self, node: NodeId) {
        let slot = &mut self.nodes[node.index()];
        let Some(deadline) = slot.machine.as_ref().and_then(|machine| machine.next_deadline()) else { return };
        let at = slot.clock.world(deadline).max(self.now);
        if slot.tick_at.is_none_or(|armed| at < armed) {
            slot.tick_at = Some(at);
            let boot = slot.boot;
            self.schedule(at, Happening::Tick { node, boot });
        }
    }

    fn execute(&mut self, node: NodeId) {
        let mut queue = std::mem::take(&mut self.effects.queue);
        self.trace.mix(&[3, queue.len() as u64]);
        for effect in queue.drain(..) {
            if self.nodes[node.index()].machine.is_none() {
                continue; // It died by an effect before this one.
            }
            self.record_effect(node, &effect);
            match effect {
                Effect::Send { to, msg } => self.send(node, to, msg),
                Effect::Connect { target, address } => self.connect(node, target, &address),
                Effect::Close(link) => self.close(node, link),
                Effect::Io { id, op } => self.disk_request(node, id, op),
                Effect::Meta(op) => self.meta_request(node, op),
                Effect::Observe(event) => self.observe(node, Sight::Event(event)),
                Effect::Die(reason) => {
                    self.observe(node, Sight::Died(reason));
                    self.kill(node);
                }
            }
        }
        self.effects.queue = queue;
    }

    fn record_effect(&mut self, node: NodeId, effect: &Effect) {
        let event = self.trace.events();
        if let Some(recorder) = self.recorder.as_mut().filter(|recorder| recorder.wants(event)) {
            recorder.push(event, self.now, format!("{} -> {effect:?}", recorder_name(node)));
        }
        if let (Some(story), Effect::Observe(told)) = (&mut self.story, effect) {
            story.happened(event, self.now, format!("{} {told:?}", recorder_name(node)));
        }
    }

    fn observe(&mut self, node: NodeId, what: Sight) {
        self.observed.push(Observed { at: self.now, node, what });
    }

    /// Something rare happens around a node; see [`crate::marks`].
    fn mark(&mut self, node: NodeId, name: &'static str) {
        self.observe(node, Sight::Event(Event::Mark(name)));
    }

    fn disk_request(&mut self, node: NodeId, io: IoId, op: DiskOp) {
        self.drawn_by(Drawer::Disk(node));
        let device = device_of(&op);
        let slot = &mut self.nodes[node.index()];
        let boot = slot.boot;
        let disk = slot.disks[device_index(device)].as_mut().expect("the node was given this device");
        let (ticket, delay) = disk.submit(&mut self.rng, op);
        self.schedule(self.now + delay, Happening::Disk { node, boot, device, io, ticket });
    }

    /// A disk request outside of time, of a tool that runs while the process does not.
    pub fn disk_now(&mut self, node: NodeId, op: DiskOp) -> Option<ashlar_core::io::DiskDone> {
        self.drawn_by(Drawer::Disk(node));
        let place = device_index(device_of(&op));
        let disk = self.nodes[node.index()].disks[place].as_mut().expect("the node has this device");
        let (ticket, _) = disk.submit(&mut self.rng, op);
        disk.complete(ticket, &mut self.rng, &mut self.bufs)
    }

    /// Calls a tool that runs in a node's place while its process does not, so long after now; with what it asks for.
    pub fn outside<R>(
        &mut self,
        node: NodeId,
        after: Duration,
        call: impl FnOnce(&mut Env<'_>) -> R,
    ) -> (R, Vec<Effect>) {
        self.drawn_by(Drawer::Node(node));
        let slot = &mut self.nodes[node.index()];
        assert!(slot.machine.is_none(), "the process of node {} runs", node.0);
        let (now, mut out) = (slot.clock.local(self.now) + after, Effects::default());
        let result = call(&mut Env { now, rng: &mut slot.rng, bufs: &mut self.bufs, out: &mut out });
        (result, out.queue.into_iter().collect())
    }

    /// Flips a bit of a page of a disk, at rest.
    pub fn rot(&mut self, node: NodeId, page: u64) {
        self.drawn_by(Drawer::Disk(node));
        if let Some(disk) = self.nodes[node.index()].disks[0].as_mut() {
            disk.rot(page, &mut self.rng, &mut self.bufs);
        }
    }

    /// After how long something happens, at random.
    pub fn draw(&mut self, low: Duration, high: Duration) -> Duration {
        Duration(self.rng().between(low.0, high.0))
    }
}

fn device_of(op: &DiskOp) -> Device {
    match op {
        DiskOp::Read { device, .. }
        | DiskOp::Write { device, .. }
        | DiskOp::Flush { device }
        | DiskOp::Discard { device, .. } => *device,
    }
}

fn device_index(device: Device) -> usize {
    match device {
        Device::Data => 0,
        Device::Log => 1,
    }
}

fn recorder_name(node: NodeId) -> String {
    format!("node {}", node.0)
}

#[cfg(test)]
mod tests;
