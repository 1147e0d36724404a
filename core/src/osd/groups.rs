//! The placement groups of one OSD with the store that they share.
//!
//! Owns: every group, the store, and the routing between them (store completions, metadata answers, wake-ups, recovery
//! places). Does not own links, the cluster map or the session.
//! Invariant: a group, once there, stays as long as the process runs: it remembers attempts, fences and leases.

use crate::id::{Incarnation, LinkId, OsdId, PgId};
use crate::io::{Effect, Env, Event, MetaError, MetaId, MetaOp};
use crate::map::Pool;
use crate::meta::Response;
use crate::pg::host::{Host, MetaCall, NodeView, Peer, StoreCall};
use crate::pg::pace::RecoverySlots;
use crate::pg::scrub::ScrubPlaces;
use crate::pg::{Pg, Summary, Wish};
use crate::slab::{Key, Slab};
use crate::store::ObjectStore;
use crate::time::Time;
use crate::timer::Deadlines;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
struct Slot {
    pg: Pg,
    /// In `touched`.
    touched: bool,
    /// In `unreported`.
    unreported: bool,
}

/// Whether this OSD is a group's primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Primary(pub bool);

/// See the module.
#[derive(Clone, Debug)]
pub struct Groups<S> {
    table: BTreeMap<PgId, Slot>,
    store: S,
    store_calls: Slab<StoreCall>,
    deadlines: Deadlines<PgId>,
    recovery: RecoverySlots,
    scrubs: ScrubPlaces,
    node: NodeView,
    meta: Vec<MetaCall>,
    meta_pending: BTreeMap<MetaId, (PgId, u64)>,
    touched: Vec<PgId>,
    unreported: Vec<PgId>,
}

impl<S: ObjectStore> Groups<S> {
    /// No groups yet.
    pub fn new(store: S, node: NodeView, recovery: RecoverySlots) -> Self {
        Groups {
            table: BTreeMap::new(),
            store,
            store_calls: Slab::default(),
            deadlines: Deadlines::default(),
            recovery,
            scrubs: ScrubPlaces::default(),
            node,
            meta: Vec::new(),
            meta_pending: BTreeMap::new(),
            touched: Vec::new(),
            unreported: Vec::new(),
        }
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The store, to be fed with completions and time.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// What groups know of this node.
    pub fn node(&self) -> &NodeView {
        &self.node
    }

    /// The same, to be changed.
    pub fn node_mut(&mut self) -> &mut NodeView {
        &mut self.node
    }

    /// Whether the group is here.
    pub fn contains(&self, id: PgId) -> bool {
        self.table.contains_key(&id)
    }

    /// A group.
    pub fn get(&self, id: PgId) -> Option<&Pg> {
        self.table.get(&id).map(|slot| &slot.pg)
    }

    /// All groups.
    pub fn iter(&self) -> impl Iterator<Item = (PgId, &Pg)> {
        self.table.iter().map(|(id, slot)| (*id, &slot.pg))
    }

    /// Makes the group unless it is here.
    pub fn create(&mut self, id: PgId, pool: &Pool) {
        self.table.entry(id).or_insert_with(|| Slot { pg: Pg::new(id, pool), touched: false, unreported: false });
    }

    /// Calls a group with all that it may use; nothing happens if it is not here.
    pub fn with<R>(
        &mut self,
        env: &mut Env<'_>,
        id: PgId,
        call: impl FnOnce(&mut Pg, &mut Host<'_, '_, S>) -> R,
    ) -> Option<R> {
        let slot = self.table.get_mut(&id)?;
        if !slot.touched {
            slot.touched = true;
            self.touched.push(id);
        }
        let mut host = Host {
            env,
            store: &mut self.store,
            store_calls: &mut self.store_calls,
            node: &self.node,
            deadlines: &mut self.deadlines,
            recovery: &mut self.recovery,
            scrubs: &mut self.scrubs,
            meta: &mut self.meta,
        };
        Some(call(&mut slot.pg, &mut host))
    }

    /// How fast objects are recovered.
    pub fn recovery_mut(&mut self) -> &mut RecoverySlots {
        &mut self.recovery
    }

    /// Calls every group.
    pub fn with_all(&mut self, env: &mut Env<'_>, mut call: impl FnMut(&mut Pg, &mut Host<'_, '_, S>)) {
        let ids: Vec<PgId> = self.table.keys().copied().collect();
        for id in ids {
            self.with(env, id, &mut call);
        }
    }

    /// Another OSD's session or connection changed.
    pub fn set_peer(&mut self, env: &mut Env<'_>, osd: OsdId, up: bool, link: Option<(LinkId, Incarnation)>) {
        let before = self.node.peers.insert(osd, Peer { up, link });
        if !up && link.is_none() {
            self.node.peers.remove(&osd);
        }
        let (was, is) = (before.and_then(|peer| peer.link), link);
        if was == is {
            return;
        }
        if was.is_some() {
            self.with_all(env, |pg, host| pg.peer_down(host, osd));
        }
        if is.is_some() {
            self.with_all(env, |pg, host| pg.peer_up(host, osd));
        }
    }

    /// Hands out everything that is ready: finished store operations, recovery places, requests to the metadata store.
    pub fn settle(&mut self, env: &mut Env<'_>, next_id: &mut dyn FnMut() -> MetaId) {
        loop {
            if let Some(done) = self.store.next_completion() {
                let call = self.store_calls.remove(Key::from_u64(done.token));
                let StoreCall { pg, purpose } = call.expect("a store completes each operation once");
                self.with(env, pg, |pg, host| pg.store_done(host, purpose, done.result));
            } else if let Some(pg) = self.recovery.next_waiting(env.now) {
                self.with(env, pg, |pg, host| pg.recover(host));
            } else if let Some(pg) = self.scrubs.next_waiting() {
                self.with(env, pg, |pg, host| pg.scrub(host));
            } else {
                break;
            }
        }
        for MetaCall { pg, token, request } in self.meta.drain(..) {
            let id = next_id();
            self.meta_pending.insert(id, (pg, token));
            env.out.push(Effect::Meta(MetaOp::Request { id, request }));
        }
    }

    /// Takes an answer of the metadata store; false if it is not a group's.
    pub fn meta_done(&mut self, env: &mut Env<'_>, id: MetaId, result: Result<Response, MetaError>) -> bool {
        let Some((pg, token)) = self.meta_pending.remove(&id) else { return false };
        self.with(env, pg, |pg, host| pg.meta_done(host, token, result));
        true
    }

    /// Time passed.
    pub fn tick(&mut self, env: &mut Env<'_>) {
        self.store.tick(env);
        while let Some(pg) = self.deadlines.pop_due(env.now) {
            self.with(env, pg, |pg, host| pg.tick(host));
        }
    }

    /// When `tick` is due.
    pub fn next_deadline(&self) -> Option<Time> {
        let groups = self.deadlines.next().map(|(at, _)| at);
        [groups, self.store.next_deadline(), self.recovery.next_deadline()].into_iter().flatten().min()
    }

    /// The wishes that differ from `known`, of groups that were called since the last time. Without a wish: whether
    /// this OSD is the primary still.
    pub fn take_wishes(&mut self, known: &BTreeMap<PgId, Wish>) -> Vec<(PgId, Result<Wish, Primary>)> {
        let mut changed = Vec::new();
        for id in self.touched.drain(..) {
            let slot = self.table.get_mut(&id).expect("groups stay");
            slot.touched = false;
            if !slot.unreported {
                slot.unreported = true;
                self.unreported.push(id);
            }
            let wish = slot.pg.wish();
            if wish.as_ref() != known.get(&id) {
                changed.push((id, wish.ok_or_else(|| Primary(slot.pg.is_named(&self.node)))));
            }
        }
        changed
    }

    /// What groups that were called since the last time say of themselves.
    pub fn take_summaries(&mut self) -> Vec<(PgId, Option<Summary>)> {
        let mut summaries = Vec::new();
        for id in self.unreported.drain(..) {
            let slot = self.table.get_mut(&id).expect("groups stay");
            slot.unreported = false;
            summaries.push((id, slot.pg.summary()));
        }
        summaries
    }

    /// Whether there are summaries to take.
    pub fn has_summaries(&self) -> bool {
        !self.unreported.is_empty() || !self.touched.is_empty()
    }

    /// Panics if an invariant is broken.
    pub fn check(&self) {
        self.store.check();
        for slot in self.table.values() {
            slot.pg.check();
        }
    }

    /// Marks a rare branch.
    pub fn mark(env: &mut Env<'_>, name: &'static str) {
        env.out.push(Effect::Observe(Event::Mark(name)));
    }
}
