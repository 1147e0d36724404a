//! What the OSD publishes: accusations, wishes, states of its groups, statistics.

use super::groups::Primary;
use super::peers::Accusation;
use super::{ClientCounters, Osd, Phase, log};
use crate::id::{OsdId, PgId};
use crate::io::{Env, Level};
use crate::map::{FailureReport, Wish, keys};
use crate::store::{ObjectStore, StoreStats};
use crate::time::{Duration, Time};
use serde::Serialize;
use std::collections::BTreeMap;

/// How soon a changed state of a group is published: a person's blink, and many changes in one transaction.
const STATE_PERIOD: Duration = Duration::millis(200);
/// How often statistics are published while something happens.
const STATISTICS_PERIOD: Duration = Duration::secs(2);

/// When what is due.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    states_due: Time,
    statistics_due: Time,
    /// Something happened since the last statistics. An idle OSD publishes nothing.
    busy: bool,
}

impl Schedule {
    /// Everything is due.
    pub(super) fn new(now: Time) -> Self {
        Schedule { states_due: now, statistics_due: now, busy: true }
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
    runtime: &'a BTreeMap<&'static str, u64>,
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
        let statistics = Statistics { time_ms, client, store, pgs, runtime };
        self.publisher.set(keys::osd_stats(self.config.osd), to_json(&statistics), false);
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

fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data has a JSON form")
}
