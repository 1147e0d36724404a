//! A whole cluster in a [`World`]: metadata store, monitors, OSDs, clients, their load, their faults, and the checkers.
//!
//! Methods by class: *building* ([`Cluster::new`]); *running* ([`Cluster::run_for`], [`Cluster::run_until`], ...), which
//! return the first broken promise as an error; *scripting* (in `script`), for scenarios; *ending*
//! ([`Cluster::finish`]), which heals everything, demands that it becomes whole, and reads everything back.

mod admin;
mod atlas;
mod bootstrap;
mod chaos;
pub mod config;
mod disks;
mod finish;
mod harm;
mod images;
mod load;
mod observe;
mod operators;
pub mod pool;
mod process;
pub mod profile;
mod rest;
mod script;
mod store;
pub mod topology;

pub use admin::STAGES;
pub use config::{Config, LoadConfig, StoreKind};
pub use harm::Harm;
pub use load::Ask;
pub use process::{Process, Spec, StoreSpec};
pub use script::broken;
pub use store::SimStore;

use crate::check::contents::Contents;
use crate::check::history::{Finding, History};
use crate::check::intervals::Intervals;
use crate::check::records::Records;
use crate::check::serving::Serving;
use crate::plan::{Decisions, Plan};
use crate::world::{NodeId, Stepped, World};
use ashlar_core::client::{ImageId, OpError, OpId, Outcome};
use ashlar_core::id::{ObjectId, PgId, PoolId, RequestId, Revision, Version};
use ashlar_core::io::Level;
use ashlar_core::map::PgMapChunk;
use ashlar_core::rng::Rng;
use ashlar_core::time::{Duration, Time};
use ashlar_faultinject::mix::FaultKind;
use std::collections::{BTreeMap, BTreeSet};

/// The only pool.
pub const POOL: PoolId = PoolId(1);
/// The place in histories of the image that every run has.
pub const IMAGE: u32 = 0;

/// Tokens of [`World::call_at`].
const CALL_FAULT: u64 = 1;
const CALL_FAULTS_OFF: u64 = 2;
const CALL_OPERATOR: u64 = 3;
const CALL_REPLACE_DEAD: u64 = 4;
const CALL_UNFENCE: u64 = 100;
const CALL_LOAD: u64 = 1000;
const CALL_KILL: u64 = 1_000_000;

/// One client and what it is doing.
#[derive(Clone, Debug)]
struct ClientState {
    node: NodeId,
    /// The images that it has opened, by their places in histories.
    images: BTreeMap<u32, ImageId>,
    /// Those that it is opening.
    opening: BTreeMap<OpId, u32>,
    open: BTreeMap<OpId, Pending>,
    /// Operations of the load that are still to be started.
    left: u32,
    rng: Rng,
    /// It is fenced off, since this revision.
    fenced: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    /// Number in the history.
    op: u32,
    read: bool,
}

/// What a run did, in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Client operations that succeeded.
    pub done: u64,
    /// Client operations that failed, or whose client died.
    pub failed: u64,
    /// Faults that were injected.
    pub faults: u64,
    /// Of these, how many did not happen, since the pool does not promise to survive them.
    pub suppressed: u64,
    /// Blocks whose history was too concurrent to decide.
    pub undecided: u64,
}

/// See the module.
#[derive(Clone)]
pub struct Cluster {
    /// The world it lives in.
    pub world: World<Process>,
    config: Config,
    osds: Vec<NodeId>,
    mons: Vec<NodeId>,
    clients: Vec<ClientState>,
    images: Vec<images::SimImage>,
    history: History,
    serving: Serving,
    records: Records,
    /// Up to this revision of the metadata store they were looked at.
    records_seen: Revision,
    intervals: Intervals,
    generations: operators::Generations,
    /// How many groups the pool should have.
    groups_wanted: u32,
    /// What clients asked, by identity: the object, and the offset of reads.
    requests: BTreeMap<RequestId, (ObjectId, Option<u32>)>,
    /// What a version of an object holds in each sector, as far as it was read.
    read: BTreeMap<(ObjectId, Version, u32), u32>,
    contents: Contents,
    marks: BTreeMap<&'static str, u64>,
    tally: Tally,
    chaos: chaos::Chaos,
    atlas: atlas::Atlas,
    /// Copies of disks as they were.
    snapshots: BTreeMap<NodeId, disks::Disks>,
    /// Two OSDs that have each other's disks.
    swapped: Option<(NodeId, NodeId)>,
    /// OSDs that are not part of the cluster: not added yet, or forgotten.
    absent: BTreeSet<NodeId>,
    /// The OSD that is being drained.
    leaving: Option<NodeId>,
    /// How many members a group should have.
    members_wanted: u8,
    /// Acknowledged writes were taken away in ways that nobody can notice.
    silent_losses: bool,
    /// A disk came back as it was before deletions whose tombstones nobody has any more: what they deleted may be there again.
    forgot_deletions: bool,
    chaos_next: Option<FaultKind>,
    log: Vec<String>,
    stop_at: Option<u64>,
    /// Maps of groups, and the revision as of which they were read, with the number of their key.
    maps: ((Revision, u32), PgMapChunk),
    /// What was decided, and what a plan leaves of it.
    decisions: Decisions,
    /// Operations of the script that a plan leaves out.
    left_out: BTreeSet<u32>,
    /// When each operation began and ended.
    times: Vec<(Time, Option<Time>)>,
    /// Clients are fenced off, or images locked.
    refusals_expected: bool,
    /// More is lost than the pool promises to survive: it may be refused, and never be whole again, but not be wrong.
    losses_expected: bool,
    /// Events since time last moved.
    standing: u32,
}

impl Cluster {
    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What happened, in numbers.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Rare branches that were taken, and how often.
    pub fn marks(&self) -> &BTreeMap<&'static str, u64> {
        &self.marks
    }

    /// What clients did and saw.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Everything that was decided.
    pub fn plan(&self) -> &Plan {
        self.decisions.recorded()
    }

    /// Whether a plan left the operation out.
    pub fn is_left_out(&self, op: u32) -> bool {
        self.left_out.contains(&op)
    }

    /// When an operation began, and when it ended with success or without.
    pub fn time_of(&self, op: u32) -> (Time, Option<Time>) {
        self.times[op as usize]
    }

    /// The OSDs' places.
    pub fn osds(&self) -> &[NodeId] {
        &self.osds
    }

    /// The monitors' places.
    pub fn mons(&self) -> &[NodeId] {
        &self.mons
    }

    /// Ends the run at this event, as if a promise had been broken there: to look at what came before.
    pub fn stop_at(&mut self, event: Option<u64>) {
        self.stop_at = event;
    }

    /// Lets one event happen. False: nothing is left to happen.
    pub fn step(&mut self) -> Result<bool, Finding> {
        if self.stop_at.is_some_and(|event| self.world.events() >= event) {
            return Err(script::broken("stopped here on demand"));
        }
        let before = self.world.now();
        let Some(stepped) = self.world.step() else { return Ok(false) };
        self.watch_progress(before)?;
        self.observe()?;
        match stepped {
            Stepped::Node(node) => self.after_input(node)?,
            Stepped::Call(CALL_FAULT) => self.next_fault(),
            Stepped::Call(CALL_FAULTS_OFF) => self.end_short_faults(),
            Stepped::Call(CALL_OPERATOR) => self.operator_acts(),
            Stepped::Call(CALL_REPLACE_DEAD) => self.replace_dead_disks(),
            Stepped::Call(token) if token >= CALL_KILL => {
                self.kill_again(NodeId(u32::try_from(token - CALL_KILL).expect("few")));
            }
            Stepped::Call(token) if token >= CALL_LOAD => {
                self.pump(usize::try_from(token - CALL_LOAD).expect("few"))?
            }
            Stepped::Call(token) if token >= CALL_UNFENCE => {
                self.renew_fenced_client(usize::try_from(token - CALL_UNFENCE).expect("few"));
            }
            Stepped::Call(_) | Stepped::World => {}
        }
        Ok(true)
    }

    /// A node whose deadline never moves would hold time still for ever.
    fn watch_progress(&mut self, before: Time) -> Result<(), Finding> {
        self.standing = if self.world.now() > before { 0 } else { self.standing + 1 };
        if self.standing < STANDING_LIMIT {
            return Ok(());
        }
        let due: Vec<String> = self.world.overdue().map(|node| format!("node {}", node.0)).collect();
        Err(script::broken(format!("time stands still: deadlines in the past of {}", due.join(", "))))
    }

    /// Runs for a length of time.
    pub fn run_for(&mut self, length: Duration) -> Result<(), Finding> {
        let end = self.world.now() + length;
        self.run_to(end)
    }

    fn run_to(&mut self, end: Time) -> Result<(), Finding> {
        while self.world.next_event().is_some_and(|at| at <= end) {
            self.step()?;
        }
        self.world.advance_to(end);
        Ok(())
    }

    /// Runs until a condition holds; false if it does not within the limit. The condition is looked at every few
    /// milliseconds.
    pub fn run_until(
        &mut self,
        limit: Duration,
        mut condition: impl FnMut(&mut Cluster) -> bool,
    ) -> Result<bool, Finding> {
        let end = self.world.now() + limit;
        loop {
            if condition(self) {
                return Ok(true);
            }
            if self.world.now() >= end {
                return Ok(false);
            }
            let next = self.world.now() + LOOK;
            self.run_to(next.min(end))?;
        }
    }

    fn after_input(&mut self, node: NodeId) -> Result<(), Finding> {
        if let Some(osd) = self.world.node_mut(node).and_then(|process| process.osd_mut()) {
            for change in osd.groups_mut().store_mut().take_changes() {
                let at = |what: String| script::broken(format!("node {}: {what}", node.0));
                self.contents.submitted(&change).map_err(at)?;
            }
            return Ok(());
        }
        if let Some(index) = self.clients.iter().position(|client| client.node == node) {
            self.drain(index)?;
        }
        Ok(())
    }

    /// Takes what a client finished.
    pub(super) fn drain(&mut self, index: usize) -> Result<(), Finding> {
        let node = self.clients[index].node;
        if !self.world.is_running(node) {
            return Ok(());
        }
        while let Some(completion) =
            self.world.with(node, |process, _| process.client_mut().and_then(|client| client.next_completion()))
        {
            let result = completion.result;
            if let Some(image) = self.clients[index].opening.remove(&completion.op) {
                // A server of maps that is behind may still know a removed image of that name.
                let wanted = self.images[image as usize].inode;
                if let Ok(Outcome::Opened(open)) = &result
                    && open.info.inode == wanted
                {
                    self.clients[index].images.insert(image, open.id);
                    self.fill_depth(index);
                } else {
                    // The cluster was not there long enough, or does not know the image yet: try again.
                    self.open_images(index);
                }
                continue;
            }
            let pending = self.clients[index].open.remove(&completion.op).expect("an operation that was begun");
            self.settle(pending, result)?;
            self.think(index);
        }
        Ok(())
    }

    fn settle(&mut self, pending: Pending, result: Result<Outcome, OpError>) -> Result<(), Finding> {
        self.times[pending.op as usize].1 = Some(self.world.now());
        let image = self.history.records()[pending.op as usize].first.image;
        if !self.images[image as usize].live {
            // It may have seen what is left of the image, or nothing.
            self.tally.failed += 1;
            self.history.failed(pending.op);
            return Ok(());
        }
        match result {
            Ok(Outcome::Read(pieces)) if pending.read => {
                self.tally.done += 1;
                let mut bytes = Vec::new();
                pieces.iter().for_each(|piece| bytes.extend_from_slice(piece.bytes()));
                self.history.read(pending.op, &bytes)
            }
            Ok(_) => {
                self.tally.done += 1;
                self.history.done(pending.op);
                Ok(())
            }
            Err(error) => {
                self.tally.failed += 1;
                self.history.failed(pending.op);
                if error == OpError::Damaged && (self.atlas.has_damage() || self.losses_expected) {
                    // The only good copy may be on an OSD that is down: a refusal, not a lie.
                    return Ok(());
                }
                if error == OpError::NoSpace && (self.config.may_be_full() || self.somebody_is_full()) {
                    return Ok(());
                }
                let client = self.history.records()[pending.op as usize].client as usize;
                let refusals = self.refusals_expected || self.clients[client].fenced.is_some();
                if matches!(error, OpError::Fenced | OpError::Locked) && refusals {
                    return Ok(());
                }
                let block = Some(self.history.records()[pending.op as usize].first);
                let what = format!("a client's operation failed for good: {error}");
                Err(Finding { what, block, ops: vec![pending.op] })
            }
        }
    }

    fn pg_of(&self, object: ObjectId) -> PgId {
        self.layout().pg(object)
    }

    /// A process gave up by itself; somebody starts it again after a while, as a service manager would.
    fn died(&mut self, node: NodeId, reason: String) {
        self.serving.ended(node.0);
        self.history.daemon_ended();
        self.take_log(node, Level::Error, reason);
        self.world.start_after(node, RESTART);
    }
}

/// Far more events than can happen in one nanosecond.
const STANDING_LIMIT: u32 = 20_000;
/// How often conditions are looked at.
const LOOK: Duration = Duration::millis(5);
/// Warnings that are kept.
const LOG_LINES: usize = 40;
/// After how long a service manager starts a daemon again.
const RESTART: Duration = Duration::millis(500);

fn seconds(at: Time) -> f64 {
    at.0 as f64 / 1e9
}
