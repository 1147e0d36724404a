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
use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::{Duration as Elapsed, Instant};

/// Slow requests that are remembered: those of the last seconds, even if every request is slow.
const SLOW_MOST: usize = 4096;

/// Which requests took long, and when the machine let this thread wait.
struct Watch {
    /// From when on it is long.
    slow: Elapsed,
    begun: HashMap<IoId, Instant>,
    /// Beginning, end, and how much of it.
    found: VecDeque<(Instant, Instant, Elapsed)>,
    /// When this thread went on last, and its CPU time then.
    running: (Instant, Elapsed),
}

impl Watch {
    fn note(&mut self, begun: Instant, took: Elapsed) {
        if took < self.slow {
            return;
        }
        if self.found.len() == SLOW_MOST {
            self.found.pop_front();
        }
        self.found.push_back((begun, Instant::now(), took));
    }

    fn ended(&mut self, id: IoId) {
        if let Some(begun) = self.begun.remove(&id) {
            self.note(begun, begun.elapsed());
        }
    }

    /// The thread is about to wait: what passed besides its own work, it did not run.
    fn pauses(&mut self) {
        let (since, cpu) = self.running;
        self.note(since, since.elapsed().saturating_sub(os::thread_cpu() - cpu));
    }

    fn goes_on(&mut self) {
        self.running = (Instant::now(), os::thread_cpu());
    }
}

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
    watch: Option<Watch>,
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
            watch: None,
        })
    }

    /// Remembers from now on which requests take so long or longer, and when this thread does not run for so long.
    pub fn watch(&mut self, slow: Elapsed) {
        let running = (Instant::now(), os::thread_cpu());
        self.watch = Some(Watch { slow, begun: HashMap::new(), found: VecDeque::new(), running });
    }

    /// How long the slowest request took of those that were under way at some moment since then, or this thread waited for
    /// the processor; zero if nothing took long.
    pub fn slowest_since(&self, since: Instant) -> Elapsed {
        let Some(watch) = &self.watch else { return Elapsed::ZERO };
        let ended = watch.found.iter().filter(|(_, end, _)| *end >= since).map(|(_, _, took)| *took);
        let others = watch.begun.values().map(Instant::elapsed).filter(|took| *took >= watch.slow);
        ended.chain(others).max().unwrap_or_default()
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
        let begun = self.watch.is_some().then(Instant::now);
        let done = self.disks.begin(&mut self.queue, &mut self.bufs, &mut self.counters, id, op);
        if let (Some(watch), Some(begun)) = (&mut self.watch, begun) {
            watch.begun.insert(id, begun);
        }
        self.ready.extend(done.map(|done| (id, done)));
    }

    /// Takes a completion that is there.
    pub fn take(&mut self) -> Option<(IoId, DiskDone)> {
        while let Some(completed) = self.queue.next() {
            let Token::Disk(device, id) = completed.token else { panic!("only disks are on this ring") };
            let done = self.disks.completed(&mut self.queue, &mut self.bufs, device, id, completed);
            self.ready.extend(done.map(|done| (id, done)));
        }
        let (id, done) = self.ready.pop_front()?;
        if let Some(watch) = &mut self.watch {
            watch.ended(id);
        }
        Some((id, done))
    }

    /// Submits what was begun, and waits until something completes, `timeout` at most.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = if self.ready.is_empty() { timeout } else { Some(Duration::ZERO) };
        self.watch.iter_mut().for_each(Watch::pauses);
        let result = self.queue.enter(timeout);
        self.watch.iter_mut().for_each(Watch::goes_on);
        result
    }

    /// Requests that were begun and not taken from [`Alone::take`].
    pub fn in_flight(&self) -> usize {
        self.disks.in_flight() + self.ready.len()
    }
}
