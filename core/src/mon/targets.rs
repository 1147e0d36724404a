//! Where placement wants the groups of each pool, and when it is worked out anew.
//!
//! Owns the results of placement until the maps carry them. Does not own the maps, nor who acts.
//! Invariants: a result always starts from the targets in the metadata store; after a write that failed, or may have,
//! results are thrown away; placement waits until its inputs have been quiet for a while, unless a new pool could be
//! placed well at once.

use super::relayout::first_layout;
use crate::id::{OsdId, PgId, PgNumber, PoolId};
use crate::map::place::{Candidate, Placement, Problem, domains, keep_domains, keep_places, place};
use crate::map::{ClusterMap, Layout, OsdRecord, Pool};
use crate::time::{Duration, Time};
use std::collections::{BTreeMap, BTreeSet};

/// OSDs are added, taken out and reweighted in bursts; each run in between might move data twice.
const SETTLE: Duration = Duration::secs(1);

/// Members of groups, by group and slot.
type Groups = Vec<Vec<Option<OsdId>>>;

/// What a placement follows from.
#[derive(Clone, Debug, PartialEq)]
struct Inputs {
    candidates: Vec<Candidate>,
    pg_size: usize,
    layout: Layout,
}

#[derive(Clone, Debug)]
struct Run {
    inputs: Inputs,
    due: Time,
    result: Option<Groups>,
}

/// A placement that was made now, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The pool.
    pub pool: PoolId,
    /// Members that were replaced though they could have stayed.
    pub moves: usize,
    /// Places that were empty or had to be filled anew.
    pub filled: usize,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    runs: BTreeMap<PoolId, Run>,
}

impl Targets {
    /// Looks at the map; works out what is due.
    pub fn update(&mut self, now: Time, map: &ClusterMap) -> Vec<Placed> {
        let pools: BTreeSet<PoolId> = map.pools().map(|(id, _)| id).collect();
        self.runs.retain(|id, _| pools.contains(id));
        map.pools().filter_map(|(id, pool)| self.update_pool(now, map, id, pool)).collect()
    }

    fn update_pool(&mut self, now: Time, map: &ClusterMap, id: PoolId, pool: &Pool) -> Option<Placed> {
        let layout = map.layout(id).unwrap_or_else(|| first_layout(map, id, pool));
        let inputs = inputs(map, pool, layout.now);
        if self.runs.get(&id).is_none_or(|run| run.inputs != inputs) {
            let placed =
                layout.now.numbers().next().is_some_and(|number| map.pg_map(PgId { pool: id, number }).is_some());
            let new = !placed && layout.before.is_none();
            let due = if new && can_be_whole(&inputs) { now } else { now + SETTLE };
            self.runs.insert(id, Run { inputs, due, result: None });
        }
        let run = self.runs.get_mut(&id)?;
        // Groups that take over objects begin where these are, and move from there.
        let homeless = |number: PgNumber| map.pg_map(PgId { pool: id, number }).is_none();
        let founding = layout.before.is_some() && layout.now.numbers().any(homeless);
        if run.result.is_some() || run.due > now || run.inputs.candidates.is_empty() || founding {
            return None;
        }
        let Placement { groups, moves, filled } = run_placement(map, id, &run.inputs);
        run.result = Some(groups);
        Some(Placed { pool: id, moves, filled })
    }

    /// The wanted members of a group, if they were worked out.
    pub fn target(&self, pg: PgId) -> Option<&[Option<OsdId>]> {
        let groups = self.runs.get(&pg.pool)?.result.as_ref()?;
        let layout = self.runs.get(&pg.pool)?.inputs.layout;
        let place = usize::try_from(pg.number.place()).ok().filter(|_| layout.contains(pg.number));
        groups.get(place?).map(Vec::as_slice)
    }

    /// A write failed or its outcome is unknown: what was worked out may start from what is not there.
    pub fn forget(&mut self) {
        self.runs.values_mut().for_each(|run| run.result = None);
    }

    /// When `update` is due.
    pub fn next_deadline(&self) -> Option<Time> {
        let waits = |run: &&Run| run.result.is_none() && !run.inputs.candidates.is_empty();
        self.runs.values().filter(waits).map(|run| run.due).min()
    }
}

/// Whether all groups would get all their members.
fn can_be_whole(inputs: &Inputs) -> bool {
    let domains: BTreeSet<&str> = inputs.candidates.iter().map(|candidate| candidate.domain.as_str()).collect();
    domains.len() >= inputs.pg_size
}

fn inputs(map: &ClusterMap, pool: &Pool, layout: Layout) -> Inputs {
    let candidates = map.osd_records().filter_map(|(osd, record)| {
        let weight = map.osd_config(osd).reweight * mebibytes(record.size_bytes);
        let domain = domains::domain(map.tree(), osd, &record.host, &pool.failure_domain);
        let strict = record.immediate_commit >= pool.immediate_commit;
        (weight > 0.0 && !record.out && strict).then_some(Candidate { osd, weight, domain })
    });
    Inputs { candidates: candidates.collect(), pg_size: usize::from(pool.pg_size), layout }
}

/// A size as a weight; exact enough up to 4 EiB.
fn mebibytes(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes >> 20).unwrap_or(u32::MAX).max(1))
}

fn run_placement(map: &ClusterMap, id: PoolId, inputs: &Inputs) -> Placement {
    let target = |number| {
        let pg = PgId { pool: id, number };
        map.pg_map(pg).map_or(Vec::new(), |(map, _)| map.target.clone())
    };
    let present: Groups = inputs.layout.numbers().map(target).collect();
    let seed = u64::from(id.0);
    let problem = Problem { candidates: &inputs.candidates, pg_size: inputs.pg_size, present: &present, seed };
    let mut placement = place(&problem);
    let level = map.pool(id).map_or("", |pool| pool.failure_domain.as_str());
    let domain = |(osd, record): (OsdId, &OsdRecord)| (osd, domains::domain(map.tree(), osd, &record.host, level));
    let domains: BTreeMap<OsdId, String> = map.osd_records().map(domain).collect();
    for (number, members) in inputs.layout.numbers().zip(&mut placement.groups) {
        let homes = homes(map, PgId { pool: id, number });
        keep_places(members, &homes);
        keep_domains(members, &homes, |osd| domains.get(&osd));
    }
    placement
}

/// Where a group's members are: where they act, or else where they were wanted.
fn homes(map: &ClusterMap, pg: PgId) -> Vec<Option<OsdId>> {
    let Some((map, _)) = map.pg_map(pg) else { return Vec::new() };
    let acting: Vec<Option<OsdId>> = map.acting.iter().map(|member| member.map(|member| member.osd)).collect();
    let wanted = |slot: usize| map.target.get(slot).copied().flatten().filter(|osd| !acting.contains(&Some(*osd)));
    let slots = acting.len().max(map.target.len());
    (0..slots).map(|slot| acting.get(slot).copied().flatten().or_else(|| wanted(slot))).collect()
}
