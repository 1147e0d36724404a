//! Devices on a ring of their own, without a node and without a network: for tools and measurements.
//!
//! Owns the ring, the devices and the environment that a store needs. Whoever drives the store calls it through
//! [`Alone::call`], and takes what completed from [`Alone::take`].

use super::Token;
use super::device::DeviceFile;
use super::disks::Disks;
use super::queue::Queue;
use crate::counters::Counters;
use crate::observe::Observer;
use crate::os;
use ashlar_core::buf::BufPool;
use ashlar_core::io::{DiskDone, DiskOp, Effect, Effects, Env, IoId};
use ashlar_core::rng::Rng;
use ashlar_core::time::Duration;
use std::collections::VecDeque;
use std::io;

/// The devices of one store, and what its calls need.
pub struct Alone {
    queue: Queue,
    disks: Disks,
    counters: Counters,
    observer: Observer,
    rng: Rng,
    /// Memory of requests.
    pub bufs: BufPool,
    effects: Effects,
    spare: Vec<Effect>,
    ready: VecDeque<(IoId, DiskDone)>,
}

impl Alone {
    /// The data device, and the log's own if it has one.
    pub fn new(data: DeviceFile, log: Option<DeviceFile>, seed: u64) -> io::Result<Alone> {
        let (mut queue, disks) = (Queue::new()?, Disks::new(data, log));
        disks.register(&mut queue);
        Ok(Alone {
            queue,
            disks,
            counters: Counters::default(),
            observer: Observer::default(),
            rng: Rng::new(seed),
            bufs: BufPool::new(),
            effects: Effects::default(),
            spare: Vec::new(),
            ready: VecDeque::new(),
        })
    }

    /// Has the kernel remember files and memory, as it does at first, or look at them anew with each request.
    pub fn set_registered(&mut self, registered: bool) {
        if registered {
            self.disks.register(&mut self.queue);
        } else {
            self.queue.forget();
        }
    }

    /// System calls that submitted requests or waited, and requests with memory that the kernel knew, so far.
    pub fn calls(&self) -> (u64, u64) {
        (self.queue.enters(), self.queue.fixed())
    }

    /// Calls something with an environment, and carries out its disk requests.
    pub fn call<T>(&mut self, call: impl FnOnce(&mut Env<'_>) -> T) -> T {
        let mut env = Env { now: os::now(), rng: &mut self.rng, bufs: &mut self.bufs, out: &mut self.effects };
        let result = call(&mut env);
        let mut queue = std::mem::replace(&mut self.effects.queue, std::mem::take(&mut self.spare));
        for effect in queue.drain(..) {
            match effect {
                Effect::Io { id, op } => self.begin(id, op),
                Effect::Observe(event) => self.observer.observe(event),
                other => panic!("a store emitted {other:?}"),
            }
        }
        self.spare = queue;
        result
    }

    /// Begins a request of the caller's own.
    pub fn begin(&mut self, id: IoId, op: DiskOp) {
        let done = self.disks.begin(&mut self.queue, &mut self.bufs, &mut self.counters, id, op);
        self.ready.extend(done.map(|done| (id, done)));
    }

    /// Takes a completion that is there.
    pub fn take(&mut self) -> Option<(IoId, DiskDone)> {
        while let Some(completed) = self.queue.next() {
            let Token::Disk(device, id) = completed.token else { panic!("only disks are on this ring") };
            let done = self.disks.completed(&mut self.queue, &mut self.bufs, device, id, completed);
            self.ready.extend(done.map(|done| (id, done)));
        }
        self.ready.pop_front()
    }

    /// Submits what was begun, and waits until something completes, `timeout` at most.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = if self.ready.is_empty() { timeout } else { Some(Duration::ZERO) };
        self.queue.enter(timeout)
    }

    /// Requests that were begun and not taken from [`Alone::take`].
    pub fn in_flight(&self) -> usize {
        self.disks.in_flight() + self.ready.len()
    }
}
