//! What the OSD publishes: accusations, wishes, states of its groups, statistics.

use super::groups::Primary;
use super::peers::Accusation;
use super::{ClientCounters, Osd, Phase, log};
use crate::id::{InodeId, OsdId, PgId, PoolId};
use crate::io::{Env, Level};
use crate::map::{FailureReport, Wish, keys};
use crate::stages::{Served, Stages};
use crate::store::{ObjectStore, PoolUse, StoreStats};
use crate::time::{Duration, Time};
use serde::Serialize;
use std::collections::BTreeMap;

/// How soon a changed state of a group is published: a person's blink, and many changes in one transaction.
const STATE_PERIOD: Duration = Duration::millis(200);
/// How often statistics are published while something happens.
const STATISTICS_PERIOD: Duration = Duration::secs(2);
/// The same for those of images, which are many.
const IMAGES_PERIOD: Duration = Duration::secs(10);

/// When what is due.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    states_due: Time,
    statistics_due: Time,
    images_due: Time,
    /// Something happened since the last statistics. An idle OSD publishes nothing.
    busy: bool,
}

impl Schedule {
    /// Everything is due.
    pub(super) fn new(now: Time) -> Self {
        Schedule { states_due: now, statistics_due: now, images_due: now, busy: true }
    }

    /// Something happened that figures will show.
    pub(super) fn note(&mut self) {
        self.busy = true;
    }
}

/// `stats/osd/<n>`.
#[derive(Serialize)]
struct Statistics<'a> {
    /// This node's clock: two publications give rates.
    time_ms: u64,
    client: ClientCounters,
    store: StoreStats,
    /// Groups of which this OSD is primary, by state.
    pgs: BTreeMap<String, u64>,
    stages: Stages,
    runtime: &'a BTreeMap<&'static str, u64>,
    pools: BTreeMap<PoolId, PoolFigures>,
}

/// What an OSD holds of one pool, and served of it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct PoolFigures {
    /// Served to clients.
    #[serde(flatten)]
    pub client: ClientCounters,
    /// In the store.
    #[serde(flatten)]
    pub held: PoolUse,
}

/// What an OSD knows of its work, for those who look on.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Served to clients.
    pub client: ClientCounters,
    /// Of the store.
    pub store: StoreStats,
    /// Groups of which this OSD is primary, by state.
    pub pgs: BTreeMap<String, u64>,
    /// Objects of those groups that some acting member lacks.
    pub degraded: u64,
    /// Objects of those groups of which stale copies remain.
    pub misplaced: u64,
    /// Objects of those groups of which no good copy is left.
    pub unfound: u64,
    /// Operations that wait for the store.
    pub store_queue: usize,
    /// Where time went.
    pub stages: Stages,
    /// Counters of the runtime.
    pub runtime: BTreeMap<&'static str, u64>,
    /// By name of a pool: what is held and was served.
    pub pools: BTreeMap<String, PoolFigures>,
    /// By name of a pool: how long operations of clients took.
    pub served: BTreeMap<String, Served>,
}

impl<S: ObjectStore> Osd<S> {
    /// Tells the monitors whom this OSD cannot reach.
    pub(super) fn report_accusation(&mut self, env: &mut Env<'_>, osd: OsdId, accusation: Option<Accusation>) {
        let key = keys::osd_failed(osd, self.config.osd);
        let Some(Accusation { incarnation, hard }) = accusation else {
            return self.publisher.remove(&key);
        };
        let why = if hard { "its host refuses connections" } else { "it is silent" };
        log(env, Level::Warn, format!("cannot reach osd.{osd}: {why}"));
        self.publisher.set(key, to_json(&FailureReport { incarnation, hard }), true);
    }

    /// Brings the wishes of groups to the metadata store. Who is not the primary any more leaves the key alone: it may
    /// be the next primary's, and the monitor deletes those that nobody stands for.
    pub(super) fn publish_wishes(&mut self) {
        for (id, wish) in self.groups.take_wishes(&self.wishes) {
            let key = keys::pg_wish(id);
            let Ok(wish) = &wish else {
                self.wishes.remove(&id);
                if wish == Err(Primary(true)) {
                    self.publisher.remove(&key);
                } else {
                    self.publisher.forget(&key);
                }
                continue;
            };
            let (by, incarnation) = (self.config.osd, self.config.incarnation);
            let (without, reason) = (wish.without.clone(), wish.reason.clone());
            self.publisher.set(key, to_json(&Wish { by, incarnation, epoch: wish.epoch, without, reason }), true);
            self.wishes.insert(id, wish.clone());
        }
    }

    /// Groups ended with their layout: nobody else will write what this OSD wrote of them.
    pub(super) fn withdraw(&mut self, ended: &[PgId]) {
        for id in ended {
            self.wishes.remove(id);
            self.publisher.remove(&keys::pg_wish(*id));
            self.publisher.remove(&keys::pg_state(*id));
        }
    }

    /// When something is to be published next.
    pub(super) fn report_deadline(&self) -> Option<Time> {
        let states = self.groups.has_summaries().then_some(self.report.states_due);
        let statistics = self.report.busy.then_some(self.report.statistics_due);
        [states, statistics].into_iter().flatten().min()
    }

    /// Publishes what is due.
    pub(super) fn report_if_due(&mut self, env: &mut Env<'_>) {
        debug_assert_eq!(self.phase, Phase::Running);
        if self.report.states_due <= env.now && self.groups.has_summaries() {
            self.report.states_due = env.now + STATE_PERIOD;
            self.publish_states();
        }
        if self.report.busy && self.report.statistics_due <= env.now {
            self.report.statistics_due = env.now + STATISTICS_PERIOD;
            self.publish_statistics(env.now);
        }
    }

    /// What is known at this moment.
    pub fn figures(&self) -> Figures {
        let mut figures = Figures {
            client: self.counters,
            store: self.groups.store().stats(),
            pgs: self.groups_by_state(),
            store_queue: self.groups.store_queue(),
            stages: self.groups.stages(),
            runtime: self.runtime_counters.clone(),
            pools: self.by_pool_name(self.figures_by_pool()),
            served: self.by_pool_name(self.groups.served().clone()),
            ..Figures::default()
        };
        for summary in self.groups.iter().filter_map(|(_, pg): (PgId, _)| pg.summary()) {
            figures.degraded += summary.degraded;
            figures.misplaced += summary.misplaced;
            figures.unfound += summary.unfound;
        }
        figures
    }

    fn figures_by_pool(&self) -> BTreeMap<PoolId, PoolFigures> {
        let mut pools: BTreeMap<PoolId, PoolFigures> = BTreeMap::new();
        for (pool, client) in &self.by_pool {
            pools.entry(*pool).or_default().client = *client;
        }
        for (pool, held) in self.groups.store().use_by_pool() {
            pools.entry(pool).or_default().held = held;
        }
        pools
    }

    fn by_pool_name<T>(&self, by_pool: BTreeMap<PoolId, T>) -> BTreeMap<String, T> {
        let name = |id: PoolId| self.map.pool(id).map_or_else(|| id.to_string(), |pool| pool.name.clone());
        by_pool.into_iter().map(|(id, figures)| (name(id), figures)).collect()
    }

    fn publish_images(&mut self, now: Time) {
        if self.by_image.is_empty() {
            return;
        }
        if self.report.images_due > now {
            // Else what was counted since would not be told before something else happens.
            return self.report.note();
        }
        self.report.images_due = now + IMAGES_PERIOD;
        self.set_image_counters();
    }

    /// Goes on from what this OSD had counted before it started, so that nobody sees counters go backwards.
    pub(super) fn count_on(&mut self, former: &[u8]) {
        // What another version wrote, or somebody by hand, may be anything.
        let former: BTreeMap<String, ClientCounters> = serde_json::from_slice(former).unwrap_or_default();
        for (name, counters) in former {
            let Some(image) = image_of(&name) else { continue };
            if self.map.image(image.0, image.1).is_some()
                && let Some(sum) = self.of_image(image)
            {
                sum.add(&counters);
            }
        }
        if !self.by_image.is_empty() {
            self.set_image_counters();
        }
    }

    fn set_image_counters(&mut self) {
        let images = self.by_image.iter().map(|((pool, inode), counters)| (format!("{pool}/{inode}"), *counters));
        let images: BTreeMap<String, ClientCounters> = images.collect();
        self.publisher.set(keys::image_stats(self.config.osd), to_json(&images), false);
    }

    fn publish_states(&mut self) {
        for (id, summary) in self.groups.take_summaries() {
            let key = keys::pg_state(id);
            match summary {
                Some(summary) => self.publisher.set(key, to_json(&summary), true),
                None => self.publisher.forget(&key),
            }
        }
    }

    fn publish_statistics(&mut self, now: Time) {
        let store = self.groups.store().stats();
        self.report.busy = false;
        let time_ms = now.since(Time(0)).as_millis();
        let (client, pgs, runtime) = (self.counters, self.groups_by_state(), &self.runtime_counters);
        let (stages, pools) = (self.groups.stages(), self.figures_by_pool());
        let statistics = Statistics { time_ms, client, store, pgs, stages, runtime, pools };
        self.publisher.set(keys::osd_stats(self.config.osd), to_json(&statistics), false);
        self.publish_images(now);
    }

    fn groups_by_state(&self) -> BTreeMap<String, u64> {
        let mut states = BTreeMap::new();
        let summaries = self.groups.iter().filter_map(|(_, pg): (PgId, _)| pg.summary());
        for summary in summaries {
            *states.entry(summary.state).or_default() += 1;
        }
        states
    }
}

/// The image that a key of `stats/images/<n>` names.
fn image_of(name: &str) -> Option<(PoolId, InodeId)> {
    let (pool, inode) = name.split_once('/')?;
    Some((PoolId(pool.parse().ok()?), InodeId(inode.parse().ok()?)))
}

fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data has a JSON form")
}
