//! The metadata store, as nodes reach it: over the network, with requests that are lost, carried out late or without an
//! answer, watches that lag or break, sessions that end while their holder lives.
//!
//! Invariant: each request of a living process is answered exactly once; the events of a watch come in order, without gaps,
//! until it is lost (but each may come once more, later).

use super::luck::Drawer;
use super::{Happening, Machine, NodeId, World};
use ashlar_core::id::Revision;
use ashlar_core::io::{MetaError, MetaEvent, MetaId, MetaOp};
use ashlar_core::meta::{Keys, Request, Response, Retention, Span, Store, Watcher};
use ashlar_core::rng::Rng;
use ashlar_core::time::{Duration, Time};
use ashlar_faultinject::disk::Latency;
use ashlar_faultinject::link::HostId;
use std::collections::BTreeMap;

/// The store's place in the network.
pub const META_HOST: HostId = HostId(u32::MAX);

/// A report that comes once more does so within this: before or behind those that follow it.
const REPEAT_WITHIN: Duration = Duration::millis(1500);

/// How the store behaves when nothing is broken.
#[derive(Clone, Copy, Debug)]
pub struct MetaModel {
    /// One way of a request or an answer.
    pub delay: Latency,
    /// How far behind a watch is, beyond the delay.
    pub watch_lag: Latency,
    /// After how long a request without an answer is given up.
    pub timeout: Duration,
}

/// What goes wrong at present, in parts of a million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetaFaults {
    /// Requests that get no answer: carried out, lost, or carried out after they were given up, in equal parts.
    pub unknown_ppm: u64,
    /// Watches that break when they have something to report.
    pub watch_lost_ppm: u64,
    /// Reports of watches that come once more, later: behind others even.
    pub watch_repeat_ppm: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outage {
    from: Time,
    until: Time,
}

#[derive(Clone, Debug)]
pub(super) enum MetaHappening {
    Arrive { node: NodeId, boot: u32, id: MetaId, request: Box<Request>, answered: bool },
    Watch { node: NodeId, boot: u32, id: MetaId, prefix: String, from: u64 },
    Unwatch { node: NodeId, boot: u32, id: MetaId },
    Tick,
    OutageEnds,
}

#[derive(Clone, Debug)]
struct Watching {
    watcher: Watcher,
    last_arrival: Time,
}

#[derive(Clone, Debug)]
pub(super) struct MetaWorld {
    model: MetaModel,
    faults: MetaFaults,
    store: Store,
    watches: BTreeMap<(NodeId, u32, MetaId), Watching>,
    /// Sessions, for the fault that ends one.
    leases: Vec<u64>,
    outage: Option<Outage>,
    tick_at: Option<Time>,
    rng: Rng,
}

impl MetaWorld {
    pub(super) fn new(model: MetaModel, rng: Rng) -> Self {
        MetaWorld {
            model,
            faults: MetaFaults::default(),
            store: Store::new(Retention::default()),
            watches: BTreeMap::new(),
            leases: Vec::new(),
            outage: None,
            tick_at: None,
            rng,
        }
    }

    pub(super) fn set_rng(&mut self, rng: Rng) {
        self.rng = rng;
    }
}

impl<M: Machine> World<M> {
    /// What an administrator or an observer does: at once, without faults.
    ///
    /// # Panics
    /// If the store refuses the request: it was written by this program.
    pub fn meta(&mut self, request: Request) -> Response {
        let response = self.meta.store.apply(self.now, request.clone());
        let response = response.unwrap_or_else(|refused| panic!("{request:?}: {refused}"));
        self.after_change();
        response
    }

    /// All keys that begin with this, with their values.
    pub fn meta_read(&mut self, prefix: &str) -> Vec<(String, Vec<u8>)> {
        match self.meta(Request::Range(Keys::Prefix(prefix.into()))) {
            Response::Range { kvs, .. } => kvs.into_iter().map(|kv| (kv.key, kv.value)).collect(),
            other => panic!("a range answers a range: {other:?}"),
        }
    }

    /// The store's revision.
    pub fn meta_revision(&self) -> Revision {
        Revision(self.meta.store.revision())
    }

    /// From now on this goes wrong.
    pub fn set_meta_faults(&mut self, faults: MetaFaults) {
        self.meta.faults = faults;
    }

    /// The store answers nobody for a while.
    pub fn meta_outage(&mut self, length: Duration) {
        let until = self.now + length;
        let from = self.meta.outage.map_or(self.now, |outage| outage.from);
        let until = self.meta.outage.map_or(until, |outage| outage.until.max(until));
        self.meta.outage = Some(Outage { from, until });
        self.note(|| format!("the metadata store is away for {} ms", length.as_millis()));
        self.schedule(until, Happening::Meta(MetaHappening::OutageEnds));
    }

    /// Ends an outage now.
    pub fn end_meta_outage(&mut self) {
        if let Some(outage) = self.meta.outage.take() {
            // As etcd does when a new leader takes over: nobody could renew meanwhile.
            self.meta.store.prolong_leases(self.now.since(outage.from));
            self.note(|| "the metadata store is back".to_string());
            self.after_change();
        }
    }

    /// Ends one of the sessions, though its holder may live. False if there is none.
    pub fn expire_a_lease(&mut self) -> bool {
        if self.meta.leases.is_empty() {
            return false;
        }
        self.drawn_by(Drawer::MetaAlone);
        let place = usize::try_from(self.meta.rng.below(self.meta.leases.len() as u64)).expect("few leases");
        self.end_lease(place)
    }

    /// Ends the session that a key dies with. False if there is none.
    pub fn expire_lease_of(&mut self, key: &str) -> bool {
        let Response::Range { kvs, .. } = self.meta(Request::Range(Keys::One(key.into()))) else { return false };
        let lease = kvs.first().map_or(0, |kv| kv.lease);
        let place = self.meta.leases.iter().position(|other| *other == lease);
        place.is_some_and(|place| self.end_lease(place))
    }

    fn end_lease(&mut self, place: usize) -> bool {
        let lease = self.meta.leases.swap_remove(place);
        let ended = self.meta.store.revoke(self.now, lease).is_ok();
        self.note(|| format!("lease {lease:x} ends"));
        self.after_change();
        ended
    }

    /// Forgets the history before the present revision: watches that are behind are lost. False if nothing changed since
    /// the last time.
    pub fn compact_meta(&mut self) -> bool {
        let compacted = self.meta.store.compact(self.meta.store.revision()).is_ok();
        self.note(|| "the metadata store forgets its history".to_string());
        self.after_change();
        compacted
    }

    /// Breaks one of the watches. False if there is none.
    pub fn lose_a_watch(&mut self) -> bool {
        let count = self.meta.watches.len() as u64;
        if count == 0 {
            return false;
        }
        self.drawn_by(Drawer::MetaAlone);
        let place = usize::try_from(self.meta.rng.below(count)).expect("few watches");
        let key = *self.meta.watches.keys().nth(place).expect("below the count");
        self.lose_watch(key, Duration::ZERO);
        true
    }

    fn lose_watch(&mut self, key: (NodeId, u32, MetaId), after: Duration) {
        let Some(watching) = self.meta.watches.remove(&key) else { return };
        let (node, boot, id) = key;
        let at = watching.last_arrival.max(self.now + after);
        self.schedule(at, Happening::MetaEvent { node, boot, event: MetaEvent::WatchLost { id } });
    }

    fn meta_reachable(&self, node: NodeId) -> bool {
        let host = self.host_of(node);
        let fabric = self.fabric();
        self.meta.outage.is_none() && fabric.open(host, META_HOST) && fabric.open(META_HOST, host)
    }

    pub(super) fn meta_request(&mut self, node: NodeId, op: MetaOp) {
        self.drawn_by(Drawer::Meta(node));
        let boot = self.nodes[node.index()].boot;
        let delay = self.meta.model.delay.draw(&mut self.meta.rng);
        let what = match op {
            MetaOp::Request { id, request } => return self.meta_call(node, boot, id, request, delay),
            MetaOp::Watch { id, prefix, from } => MetaHappening::Watch { node, boot, id, prefix, from },
            MetaOp::Unwatch { id } => MetaHappening::Unwatch { node, boot, id },
        };
        self.schedule(self.now + delay, Happening::Meta(what));
    }

    fn meta_call(&mut self, node: NodeId, boot: u32, id: MetaId, request: Request, delay: Duration) {
        let request = Box::new(request);
        let timeout = self.meta.model.timeout;
        if !self.meta_reachable(node) {
            if self.meta.rng.chance(1, 2) {
                return self.meta_answer(node, boot, id, Err(MetaError::Unavailable), delay);
            }
            return self.meta_answer(node, boot, id, Err(MetaError::Unknown), timeout);
        }
        let (ppm, rng) = (self.meta.faults.unknown_ppm, &mut self.meta.rng);
        if ppm > 0 && rng.chance(ppm, 1_000_000) {
            let fate = rng.below(3);
            let late = Duration(timeout.0 + rng.below(timeout.0));
            self.meta_answer(node, boot, id, Err(MetaError::Unknown), timeout);
            let after = match fate {
                0 => return, // Lost.
                1 => delay,
                _ => late,
            };
            let what = MetaHappening::Arrive { node, boot, id, request, answered: true };
            return self.schedule(self.now + after, Happening::Meta(what));
        }
        let what = MetaHappening::Arrive { node, boot, id, request, answered: false };
        self.schedule(self.now + delay, Happening::Meta(what));
    }

    fn meta_answer(
        &mut self,
        node: NodeId,
        boot: u32,
        id: MetaId,
        result: Result<Response, MetaError>,
        after: Duration,
    ) {
        let event = MetaEvent::Response { id, result };
        self.schedule(self.now + after, Happening::MetaEvent { node, boot, event });
    }

    pub(super) fn meta_happens(&mut self, what: MetaHappening) {
        match what {
            MetaHappening::Arrive { node, boot, id, request, answered } => {
                self.meta_arrive(node, boot, id, *request, answered);
            }
            MetaHappening::Watch { node, boot, id, prefix, from } => {
                if self.alive(node, boot) {
                    let watcher = Watcher::new(Span::prefix(prefix), from);
                    self.meta.watches.insert((node, boot, id), Watching { watcher, last_arrival: self.now });
                }
            }
            MetaHappening::Unwatch { node, boot, id } => drop(self.meta.watches.remove(&(node, boot, id))),
            MetaHappening::Tick => {
                self.meta.tick_at = None;
                if self.meta.outage.is_none() {
                    self.meta.store.tick(self.now);
                }
            }
            MetaHappening::OutageEnds => {
                if self.meta.outage.is_some_and(|outage| outage.until <= self.now) {
                    self.end_meta_outage();
                }
            }
        }
        self.after_change();
    }

    fn meta_arrive(&mut self, node: NodeId, boot: u32, id: MetaId, request: Request, answered: bool) {
        self.drawn_by(Drawer::Meta(node));
        let delay = self.meta.model.delay.draw(&mut self.meta.rng);
        let timeout = self.meta.model.timeout;
        let reachable = self.meta_reachable(node);
        if !reachable && !answered {
            return self.meta_answer(node, boot, id, Err(MetaError::Unknown), timeout);
        }
        self.trace.mix(&[11, self.now.0, u64::from(node.0), id.0]);
        let result = self.meta.store.apply(self.now, request);
        if let Ok(Response::LeaseGranted { lease, .. }) = &result {
            self.meta.leases.push(*lease);
        }
        if answered {
            return;
        }
        let result = result.map_err(|refused| MetaError::Refused(refused.to_string()));
        self.meta_answer(node, boot, id, result, delay);
    }

    /// The store may have changed: watches report, its next deadline is armed.
    fn after_change(&mut self) {
        if self.meta.outage.is_none() {
            self.pump_watches();
        }
        if let Some(at) = self.meta.store.next_deadline()
            && self.meta.outage.is_none()
            && self.meta.tick_at.is_none_or(|armed| at < armed)
        {
            self.meta.tick_at = Some(at);
            self.schedule(at, Happening::Meta(MetaHappening::Tick));
        }
    }

    fn pump_watches(&mut self) {
        let keys: Vec<_> = self.meta.watches.keys().copied().collect();
        for key in keys {
            let (node, boot, id) = key;
            if !self.meta_reachable(node) {
                continue;
            }
            self.drawn_by(Drawer::Meta(node));
            let meta = &mut self.meta;
            let watching = meta.watches.get_mut(&key).expect("listed just now");
            let polled = watching.watcher.poll(&meta.store);
            let broken = matches!(polled, Ok(Some(_)))
                && meta.faults.watch_lost_ppm > 0
                && meta.rng.chance(meta.faults.watch_lost_ppm, 1_000_000);
            match polled {
                Ok(None) => {}
                Ok(Some((revision, events))) if !broken => {
                    let lag = meta.model.watch_lag.draw(&mut meta.rng);
                    let at = watching.last_arrival.max(self.now + lag);
                    watching.last_arrival = at;
                    let event = MetaEvent::Watch { id, revision, events };
                    let ppm = meta.faults.watch_repeat_ppm;
                    if ppm > 0 && meta.rng.chance(ppm, 1_000_000) {
                        let again = at + Duration(meta.rng.below(REPEAT_WITHIN.0));
                        self.schedule(again, Happening::MetaEvent { node, boot, event: event.clone() });
                    }
                    self.schedule(at, Happening::MetaEvent { node, boot, event });
                }
                Ok(Some(_)) | Err(_) => self.lose_watch(key, Duration::ZERO),
            }
        }
    }

    /// Paths to the store changed: watches that are cut off break sooner or later, or never.
    pub(super) fn meta_paths_changed(&mut self) {
        let keys: Vec<_> = self.meta.watches.keys().copied().collect();
        for key in keys {
            self.drawn_by(Drawer::Meta(key.0));
            if !self.meta_reachable(key.0) && self.meta.rng.chance(1, 2) {
                let after = Duration(self.meta.rng.below(2 * self.meta.model.timeout.0));
                self.lose_watch(key, after);
            }
        }
        self.after_change();
    }

    pub(super) fn meta_process_ended(&mut self, node: NodeId) {
        self.meta.watches.retain(|(other, ..), _| *other != node);
    }
}
