//! Where placement wants the groups of each pool, and when it is worked out anew.
//!
//! Owns the results of placement until the maps carry them. Does not own the maps, nor who acts.
//! Invariants: a result always starts from the targets in the metadata store; after a write that failed, or may have,
//! results are thrown away; placement waits until its inputs have been quiet for a while, unless a new pool could be
//! placed well at once.

use super::relayout::first_layout;
use crate::id::{OsdId, PgId, PgNumber, PoolId};
use crate::map::place::survey::{Survey, acting_level};
use crate::map::place::{Keeper, Placement, keep_domains, keep_places, place};
use crate::map::tree::node_of;
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
    survey: Survey,
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

/// What an update brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Placements that were made.
    pub placed: Vec<Placed>,
    /// Pools that cannot be placed as they and the tree are now, and why; where their groups were wanted they stay.
    pub refused: Vec<String>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    runs: BTreeMap<PoolId, Run>,
    /// What was said already.
    refused: BTreeMap<PoolId, String>,
}

impl Targets {
    /// Looks at the map; works out what is due.
    pub fn update(&mut self, now: Time, map: &ClusterMap) -> Update {
        let pools: BTreeSet<PoolId> = map.pools().map(|(id, _)| id).collect();
        self.runs.retain(|id, _| pools.contains(id));
        self.refused.retain(|id, _| pools.contains(id));
        let mut update = Update::default();
        for (id, pool) in map.pools() {
            match Survey::of(map, pool) {
                Ok(survey) => {
                    self.refused.remove(&id);
                    update.placed.extend(self.update_pool(now, map, (id, pool), survey));
                }
                Err(reason) => update.refused.extend(self.refuse(id, pool, reason)),
            }
        }
        update
    }

    /// What is to be said of a pool that cannot be placed.
    fn refuse(&mut self, id: PoolId, pool: &Pool, reason: String) -> Option<String> {
        let text = format!("pool {id} ('{}') is not placed anew: {reason}", pool.name);
        let known = self.refused.insert(id, reason.clone());
        (known != Some(reason)).then_some(text)
    }

    fn update_pool(
        &mut self,
        now: Time,
        map: &ClusterMap,
        (id, pool): (PoolId, &Pool),
        survey: Survey,
    ) -> Option<Placed> {
        let layout = map.layout(id).unwrap_or_else(|| first_layout(map, id, pool));
        let inputs = Inputs { survey, layout: layout.now };
        if self.runs.get(&id).is_none_or(|run| run.inputs != inputs) {
            let placed =
                layout.now.numbers().next().is_some_and(|number| map.pg_map(PgId { pool: id, number }).is_some());
            let new = !placed && layout.before.is_none();
            let due = if new && can_be_whole(&inputs.survey) { now } else { now + SETTLE };
            self.runs.insert(id, Run { inputs, due, result: None });
        }
        let run = self.runs.get_mut(&id)?;
        // Groups that take over objects begin where these are, and move from there.
        let homeless = |number: PgNumber| map.pg_map(PgId { pool: id, number }).is_none();
        let founding = layout.before.is_some() && layout.now.numbers().any(homeless);
        if run.result.is_some() || run.due > now || run.inputs.survey.candidates.is_empty() || founding {
            return None;
        }
        let Placement { groups, moves, filled, .. } = run_placement(map, id, &run.inputs);
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
        let waits = |run: &&Run| run.result.is_none() && !run.inputs.survey.candidates.is_empty();
        self.runs.values().filter(waits).map(|run| run.due).min()
    }
}

/// Whether all groups would get all their members.
fn can_be_whole(survey: &Survey) -> bool {
    survey.problem(&[], 0).possible().holes == 0
}

fn run_placement(map: &ClusterMap, id: PoolId, inputs: &Inputs) -> Placement {
    let target = |number| {
        let pg = PgId { pool: id, number };
        map.pg_map(pg).map_or(Vec::new(), |(map, _)| map.target.clone())
    };
    let present: Groups = inputs.layout.numbers().map(target).collect();
    let problem = inputs.survey.problem(&present, u64::from(id.0));
    let mut placement = place(&problem);
    let keeper = Keeper::new(&problem);
    let level = map.pool(id).map_or(String::new(), |pool| acting_level(map, pool));
    let domain = |(osd, record): (OsdId, &OsdRecord)| (osd, node_of(map.tree(), osd, &record.host, &level));
    let domains: BTreeMap<OsdId, String> = map.osd_records().map(domain).collect();
    for (number, members) in inputs.layout.numbers().zip(&mut placement.groups) {
        let homes = homes(map, PgId { pool: id, number });
        // Where the rules tell parts apart, members cannot always change places.
        keeper.change(members, |members| keep_places(members, &homes));
        keeper.change(members, |members| keep_domains(members, &homes, |osd| domains.get(&osd)));
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
