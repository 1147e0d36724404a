//! The stores that a simulated OSD can have: the real one on a simulated disk, or the reference one in memory.

use crate::world::Halt;
use ashlar_core::id::{CopyId, HashRange, PoolId, Role, StoreUuid, Version};
use ashlar_core::io::{DiskDone, Env, IoId};
use ashlar_core::map::ImmediateCommit;
use ashlar_core::rng::Rng;
use ashlar_core::store::log::LogStore;
use ashlar_core::store::model::ModelStore;
use ashlar_core::store::{
    Bitmap, Completion, CopyInfo, Digest, ObjectStore, PoolUse, StoreError, StoreOp, StoreState, StoreStats,
};
use ashlar_core::time::{Duration, Time};
use std::cell::Cell;

/// The reference store, made slow: each operation takes a few rounds of about this length to be durable.
#[derive(Clone, Debug)]
pub struct SlowModel {
    inner: ModelStore,
    round: Duration,
    due: Option<Time>,
}

impl SlowModel {
    /// An empty store whose operations are durable after `rounds` rounds, or (lazy) answered then.
    pub fn new(uuid: StoreUuid, (rounds, lazy): (u32, bool), round: Duration) -> Self {
        let inner = ModelStore::new(rounds).with_uuid(uuid);
        SlowModel { inner: if lazy { inner.lazy() } else { inner }, round, due: None }
    }

    /// The process or the power ended: what was not answered (with the power: not durable) is kept in part.
    pub fn end(&mut self, how: Halt, rng: &mut Rng) {
        match how {
            Halt::Process => self.inner.end(rng),
            Halt::Power => self.inner.crash(rng),
        }
        self.due = None;
    }

    /// What it holds, to be damaged.
    pub fn inner_mut(&mut self) -> &mut ModelStore {
        &mut self.inner
    }

    fn submit(&mut self, env: &mut Env<'_>, token: u64, op: StoreOp) {
        self.inner.submit(env, token, op);
        if self.due.is_none() {
            self.due = Some(env.now + self.draw_round(env));
        }
    }

    fn draw_round(&self, env: &mut Env<'_>) -> Duration {
        Duration(env.rng.between(self.round.0 / 2, self.round.0 * 2))
    }

    fn tick(&mut self, env: &mut Env<'_>) {
        if self.due.is_some_and(|due| due <= env.now) {
            self.inner.end_of_round(env);
            self.due = self.inner.is_busy().then(|| env.now + self.draw_round(env));
        }
    }
}

/// The real store, which knows whether anything may have changed since it was last checked: most inputs of an OSD do not
/// concern its store, and to check it again would find what was found before. Only some checks go through
/// all blocks and add digests up.
#[derive(Clone)]
pub struct Watched {
    inner: LogStore,
    changed: Cell<bool>,
    checks: Cell<u32>,
}

/// One check of a store in so many is of everything, which takes three times as long as what is left otherwise.
const EVERYTHING_CHECKED_EVERY: u32 = 16;

impl Watched {
    /// Watches a store from its beginning.
    pub fn new(inner: LogStore) -> Self {
        Watched { inner, changed: Cell::new(true), checks: Cell::new(0) }
    }

    /// The store, to be asked for something.
    fn asked(&mut self) -> &mut LogStore {
        self.changed.set(true);
        &mut self.inner
    }

    /// Lets time do what is due.
    fn pass(&mut self, time: impl FnOnce(&mut LogStore)) {
        let before = self.inner.is_quiet();
        time(&mut self.inner);
        if !before || !self.inner.is_quiet() {
            self.changed.set(true);
        }
    }

    fn check(&self) {
        if !self.changed.replace(false) {
            return;
        }
        self.checks.set(self.checks.get() + 1);
        if self.checks.get().is_multiple_of(EVERYTHING_CHECKED_EVERY) {
            self.inner.check();
        } else {
            self.inner.check_briefly();
        }
    }
}

/// The store of one simulated OSD: of one of the two kinds, with a note of every change that it was told to make.
#[derive(Clone)]
pub struct SimStore {
    kind: Kind,
    noted: bool,
    changes: Vec<StoreOp>,
}

#[derive(Clone)]
enum Kind {
    /// The reference one.
    Model(Box<SlowModel>),
    /// The real one.
    Log(Box<Watched>),
}

impl SimStore {
    /// The reference store.
    pub fn model(store: Box<SlowModel>) -> Self {
        SimStore { kind: Kind::Model(store), noted: true, changes: Vec::new() }
    }

    /// The real store.
    pub fn log(store: LogStore) -> Self {
        SimStore { kind: Kind::Log(Box::new(Watched::new(store))), noted: true, changes: Vec::new() }
    }

    /// Whether changes are noted: where costs are measured, they are not.
    pub fn noted(self, noted: bool) -> Self {
        SimStore { noted, ..self }
    }

    /// The reference store, if it is one.
    pub fn as_model_mut(&mut self) -> Option<&mut SlowModel> {
        match &mut self.kind {
            Kind::Model(model) => Some(model),
            Kind::Log(_) => None,
        }
    }

    /// The changes that it was told to make since the last call.
    pub fn take_changes(&mut self) -> Vec<StoreOp> {
        std::mem::take(&mut self.changes)
    }
}

/// Whether it makes a version.
fn is_change(op: &StoreOp) -> bool {
    let made = matches!(op, StoreOp::Write { .. } | StoreOp::Zero { .. } | StoreOp::Tombstone { .. });
    made || matches!(op, StoreOp::Replace { .. } | StoreOp::Patch { .. })
}

macro_rules! each {
    ($self:expr, $store:ident => $call:expr) => {
        match &$self.kind {
            Kind::Model(model) => {
                let $store = &model.inner;
                $call
            }
            Kind::Log(log) => {
                let $store = &log.inner;
                $call
            }
        }
    };
}

impl ObjectStore for SimStore {
    fn submit(&mut self, env: &mut Env<'_>, token: u64, op: StoreOp) {
        if self.noted && is_change(&op) {
            self.changes.push(op.clone());
        }
        match &mut self.kind {
            Kind::Model(model) => model.submit(env, token, op),
            Kind::Log(log) => log.asked().submit(env, token, op),
        }
    }

    fn handle_io(&mut self, env: &mut Env<'_>, id: IoId, done: DiskDone) {
        match &mut self.kind {
            Kind::Model(model) => model.inner.handle_io(env, id, done),
            Kind::Log(log) => log.asked().handle_io(env, id, done),
        }
    }

    fn tick(&mut self, env: &mut Env<'_>) {
        match &mut self.kind {
            Kind::Model(model) => model.tick(env),
            Kind::Log(log) => log.pass(|log| log.tick(env)),
        }
    }

    fn end_of_round(&mut self, env: &mut Env<'_>) {
        match &mut self.kind {
            // Its rounds are its own: durability takes time, whatever happens around it.
            Kind::Model(_) => {}
            Kind::Log(log) => log.pass(|log| log.end_of_round(env)),
        }
    }

    fn close(&mut self, env: &mut Env<'_>) {
        if let Kind::Log(log) = &mut self.kind {
            log.asked().close(env);
        }
    }

    fn is_closed(&self) -> bool {
        each!(self, store => store.is_closed())
    }

    fn next_deadline(&self) -> Option<Time> {
        match &self.kind {
            Kind::Model(model) => model.due,
            Kind::Log(log) => log.inner.next_deadline(),
        }
    }

    fn next_completion(&mut self) -> Option<Completion> {
        match &mut self.kind {
            Kind::Model(model) => model.inner.next_completion(),
            Kind::Log(log) => log.inner.next_completion(),
        }
    }

    fn content_sum(&self, copy: CopyId, version: Version) -> Option<u64> {
        each!(self, store => store.content_sum(copy, version))
    }

    fn immediate_commit(&self) -> ImmediateCommit {
        each!(self, store => store.immediate_commit())
    }

    fn state(&self) -> StoreState {
        each!(self, store => store.state())
    }

    fn uuid(&self) -> StoreUuid {
        each!(self, store => store.uuid())
    }

    fn lookup(&self, copy: CopyId) -> Option<CopyInfo> {
        each!(self, store => store.lookup(copy))
    }

    fn written(&self, copy: CopyId, version: Option<Version>) -> Result<Bitmap, StoreError> {
        each!(self, store => store.written(copy, version))
    }

    fn list(
        &self,
        pool: PoolId,
        role: Role,
        range: HashRange,
        after: Option<CopyId>,
        limit: usize,
        out: &mut Vec<CopyInfo>,
    ) -> bool {
        each!(self, store => store.list(pool, role, range, after, limit, out))
    }

    fn digest(&self, pool: PoolId, role: Role, range: HashRange) -> Digest {
        each!(self, store => store.digest(pool, role, range))
    }

    fn roles(&self, pool: PoolId, range: HashRange) -> Vec<Role> {
        each!(self, store => store.roles(pool, range))
    }

    fn stats(&self) -> StoreStats {
        each!(self, store => store.stats())
    }

    fn use_by_pool(&self) -> Vec<(PoolId, PoolUse)> {
        each!(self, store => store.use_by_pool())
    }

    fn check(&self) {
        match &self.kind {
            Kind::Model(model) => model.inner.check(),
            Kind::Log(log) => log.check(),
        }
    }
}
