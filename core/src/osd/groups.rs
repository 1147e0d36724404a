//! The placement groups of one OSD with the store that they share.
//!
//! Owns: every group, the store, and the routing between them (store completions, metadata answers, wake-ups, recovery
//! places). Does not own links, the cluster map or the session.
//! Invariants: a group, once there, stays as long as its layout is in force: it remembers attempts, fences and leases. When
//! a layout ends, all its groups end at once, before any of the next one is made; what they granted is remembered.

use crate::id::{Attempt, HashRange, Incarnation, LinkId, OsdId, PgId, PgNumber, PoolId};
use crate::io::{Effect, Env, Event, MetaError, MetaId, MetaOp};
use crate::map::{Pool, PoolLayout};
use crate::meta::Response;
use crate::pg::host::{Host, MetaCall, NodeView, Peer, StoreCall};
use crate::pg::msg::SubOp;
use crate::pg::pace::RecoverySlots;
use crate::pg::scrub::ScrubPlaces;
use crate::pg::{Pg, StorePurpose, Summary, Wish};
use crate::planted::{Bug, planted};
use crate::slab::{Key, Slab};
use crate::stages::{Served, Stages};
use crate::store::{CopyInfo, ObjectStore, StoreOp};
use crate::time::Time;
use crate::timer::Deadlines;
use std::collections::BTreeMap;

/// Queries kept for groups that are not here yet; beyond, their primaries ask again with their next attempt.
const EARLY_MAX: usize = 1 << 16;

#[derive(Clone, Debug)]
struct Slot {
    pg: Pg,
    /// In `touched`.
    touched: bool,
    /// In `unreported`.
    unreported: bool,
    /// What it said of itself when it was asked last.
    reported: Option<Summary>,
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
    stages: Stages,
    served: BTreeMap<PoolId, Served>,
    node: NodeView,
    meta: Vec<MetaCall>,
    meta_pending: BTreeMap<MetaId, (PgId, u64)>,
    touched: Vec<PgId>,
    unreported: Vec<PgId>,
    /// By pool: the end of the last lease that was granted to a group of a layout that is over.
    former_leases: BTreeMap<PoolId, Time>,
    /// Queries that came before the news of the layout that their groups are of: the newest of each primary.
    early: BTreeMap<(PgId, OsdId), (Attempt, u64)>,
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
            stages: Stages::default(),
            served: BTreeMap::new(),
            node,
            meta: Vec::new(),
            meta_pending: BTreeMap::new(),
            touched: Vec::new(),
            unreported: Vec::new(),
            former_leases: BTreeMap::new(),
            early: BTreeMap::new(),
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

    /// Makes the group unless it is here. Panics if the layout in force has no such group.
    pub fn create(&mut self, id: PgId, pool: &Pool) {
        if self.contains(id) {
            return;
        }
        let layout = self.node.layouts.get(&id.pool).expect("groups come after their layout");
        let mut pg = Pg::new(id, pool, layout.now);
        if let Some(until) = self.former_leases.get(&id.pool).filter(|_| !planted(Bug::ForgetFormerLeases)) {
            pg.inherit_lease(*until);
        }
        self.table.insert(id, Slot { pg, touched: false, unreported: false, reported: None });
    }

    /// How a pool's hashes are cut into groups from now on. Groups of another layout end; gives them.
    pub fn set_layout(&mut self, env: &mut Env<'_>, pool: PoolId, layout: PoolLayout) -> Vec<PgId> {
        if self.node.layouts.get(&pool).is_some_and(|known| known.now.generation > layout.now.generation) {
            return Vec::new();
        }
        self.node.layouts.insert(pool, layout);
        let ended = |id: &PgId| id.pool == pool && !layout.now.contains(id.number) && !planted(Bug::ServeEndedGroup);
        let ended: Vec<PgId> = self.table.keys().copied().filter(ended).collect();
        for id in &ended {
            let until = self.with(env, *id, |pg, host| pg.end(host)).expect("listed above");
            let lease = self.former_leases.entry(pool).or_default();
            *lease = (*lease).max(until);
            self.table.remove(id);
        }
        self.early.retain(|(id, _), _| id.pool != pool || id.number.generation() >= layout.now.generation);
        ended
    }

    /// A pool was removed: all its groups end; gives them. Nothing of it is remembered, since its number never comes again.
    pub fn end_pool(&mut self, env: &mut Env<'_>, pool: PoolId) -> Vec<PgId> {
        let ended: Vec<PgId> = self.table.keys().copied().filter(|id| id.pool == pool).collect();
        for id in &ended {
            self.with(env, *id, |pg, host| pg.end(host));
            self.table.remove(id);
        }
        self.node.layouts.remove(&pool);
        self.former_leases.remove(&pool);
        self.early.retain(|(id, _), _| id.pool != pool);
        ended
    }

    /// Up to so many copies that the store holds of a pool, whatever their role.
    pub fn copies_of(&self, pool: PoolId, limit: usize) -> Vec<CopyInfo> {
        let mut copies = Vec::new();
        for role in self.store.roles(pool, HashRange::ALL) {
            if copies.len() < limit {
                self.store.list(pool, role, HashRange::ALL, None, limit - copies.len(), &mut copies);
            }
        }
        copies
    }

    /// Drops a copy of a pool that was removed.
    pub fn drop_copy(&mut self, env: &mut Env<'_>, info: &CopyInfo) {
        let pg = PgId { pool: info.copy.object.pool, number: PgNumber(0) };
        for version in [&info.prepared, &info.committed].into_iter().flatten() {
            let (since, is_write) = (env.now, true);
            let call = StoreCall { pg, purpose: StorePurpose::Forget, since, is_write };
            let token = self.store_calls.insert(call).to_u64();
            self.store.submit(env, token, StoreOp::Remove { copy: info.copy, version: version.version });
        }
    }

    /// A primary wants something of the group. If the group is not here, but may soon be, a query is kept for it.
    pub fn sub_op(&mut self, env: &mut Env<'_>, from: OsdId, id: PgId, (attempt, call): (Attempt, u64), op: SubOp) {
        let known = self.node.layouts.get(&id.pool).map(|layout| layout.now.generation);
        if self.contains(id) {
            self.with(env, id, |pg, host| pg.sub_op(host, from, attempt, call, op));
        } else if matches!(op, SubOp::Query)
            && known.is_none_or(|known| known <= id.number.generation())
            && self.early.len() < EARLY_MAX
        {
            Self::mark(env, "osd: a query before the news of its group");
            self.early.insert((id, from), (attempt, call));
        }
    }

    /// The groups for which queries are kept.
    pub fn early(&self) -> Vec<PgId> {
        self.early.keys().map(|(id, _)| *id).collect()
    }

    /// If the group is here, carries out the queries that were kept for it.
    pub fn take_early(&mut self, env: &mut Env<'_>, id: PgId) {
        if !self.contains(id) {
            return;
        }
        let range = (id, OsdId(0))..=(id, OsdId(u32::MAX));
        let kept: Vec<OsdId> = self.early.range(range).map(|((_, from), _)| *from).collect();
        for from in kept {
            let (attempt, call) = self.early.remove(&(id, from)).expect("listed above");
            self.with(env, id, |pg, host| pg.sub_op(host, from, attempt, call, SubOp::Query));
        }
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
            stages: &mut self.stages,
            served: &mut self.served,
            meta: &mut self.meta,
        };
        Some(call(&mut slot.pg, &mut host))
    }

    /// Where the time of operations went.
    pub fn stages(&self) -> Stages {
        let mut stages = Stages { device: self.store.device_stages(), ..self.stages.clone() };
        for served in self.served.values() {
            stages.read.add(&served.read);
            stages.write.add(&served.write);
        }
        stages
    }

    /// How long operations of clients took, by pool.
    pub fn served(&self) -> &BTreeMap<PoolId, Served> {
        &self.served
    }

    /// Operations that the store has not completed.
    pub fn store_queue(&self) -> usize {
        self.store_calls.len()
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
                let call = call.expect("a store completes each operation once");
                let StoreCall { pg, purpose, since, is_write } = call;
                let stage = if is_write { &mut self.stages.store_write } else { &mut self.stages.store_read };
                stage.record(env.now.since(since));
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
            let Some(slot) = self.table.get_mut(&id) else { continue };
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

    /// What groups say of themselves, of those that say something else than the last time.
    pub fn take_summaries(&mut self) -> Vec<(PgId, Option<Summary>)> {
        let mut summaries = Vec::new();
        for id in self.unreported.drain(..) {
            let Some(slot) = self.table.get_mut(&id) else { continue };
            slot.unreported = false;
            let summary = slot.pg.summary();
            if summary != slot.reported {
                slot.reported.clone_from(&summary);
                summaries.push((id, summary));
            }
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
