//! The change of a pool's number of groups, as far as the leading monitor makes it: pure functions.
//!
//! Owns: when a layout may follow another, what the groups of a new one begin with, and what is left to be deleted of old
//! ones. Does not own the maps themselves (`acting`, `plan`), nor what peering makes of histories.
//!
//! ```text
//!           pg_count differs                        each group has recorded            old keys are gone
//!  at rest ------------------> layout with `before` -----------------------> `before` dropped ---------> at rest
//! ```
//! Invariants: one transaction changes the layout, whatever the number of groups, and nobody records anything in groups of
//! another layout from then on. A layout follows only when no history has ancestors any more. Histories of old groups are
//! deleted only when no layout names them.

use super::plan::Write;
use crate::id::{Epoch, PgId, PgNumber, PoolId};
use crate::map::parse::Key;
use crate::map::{Ancestor, ClusterMap, History, Layout, PgMap, Pool, PoolLayout, keys};
use crate::meta::Keys;
use crate::pg::choose::SEATS_MAX;
use crate::planted::{Bug, planted};
use std::collections::BTreeSet;

/// Most groups that one group takes over objects from: their histories are read in one transaction, with half of what it
/// may hold.
const ANCESTORS_MAX: usize = 64;

/// What a group begins with that has recorded nothing yet.
#[derive(Clone, Debug)]
pub struct Inheritance {
    /// As if it were the group's present map: target and acting members of the group that had its first hash.
    pub map: PgMap,
    /// What all groups before it recorded.
    pub history: History,
    /// All their intervals are of this epoch at most.
    pub floor: Epoch,
}

/// What a group begins with; `None`: it has a history of its own, or there was no group before it.
pub fn inheritance(map: &ClusterMap, layout: PoolLayout, pg: PgId) -> Option<Inheritance> {
    let before = layout.before.filter(|_| map.history(pg).is_none())?;
    let former: Vec<_> = before.overlapping(layout.now.range(pg.number)).collect();
    let id = |number: &PgNumber| PgId { pool: pg.pool, number: *number };
    let maps: Vec<&PgMap> = former.iter().filter_map(|(number, _)| Some(map.pg_map(id(number))?.0)).collect();
    let ancestors: Vec<Ancestor> = former
        .iter()
        .map(|(number, range)| {
            let history = map.history(id(number)).cloned().unwrap_or_default();
            Ancestor { range: *range, history }
        })
        .collect();
    let history = History::inherited(ancestors);
    let floor = maps.iter().map(|map| map.epoch).chain([history.last]).max().unwrap_or_default();
    let floor = if planted(Bug::RestartVersions) { Epoch(0) } else { floor };
    let first = maps.first()?;
    let map = PgMap { epoch: floor, primary: None, primary_since: Epoch(0), ..PgMap::clone(first) };
    Some(Inheritance { map, history, floor })
}

/// What is to be written of a pool's layout.
pub fn plan(map: &ClusterMap, id: PoolId, pool: &Pool, writes: &mut Vec<Write>) {
    if map.is_refused(Key::Layout(id)) {
        return;
    }
    let Some(layout) = map.layout(id) else {
        return writes.push(layout_write(map, id, first_layout(map, id, pool)));
    };
    let next = match layout.before {
        Some(_) if has_recorded(map, id, layout.now) => Some(PoolLayout { before: None, ..layout }),
        Some(_) => None,
        None => {
            let wanted = pool.pg_count != layout.now.pg_count && is_ready(map, id, layout.now);
            let now = wanted && deletions(map, id).is_empty();
            now.then(|| next_count(map, id, pool, layout.now)).flatten().and_then(|count| layout.next(count))
        }
    };
    if let Some(next) = next {
        writes.push(layout_write(map, id, next));
    }
}

/// A pool that has maps was given them by a version without layouts, which did not change their number.
pub fn first_layout(map: &ClusterMap, id: PoolId, pool: &Pool) -> PoolLayout {
    let groups = map.pg_maps().filter(|(pg, _)| pg.pool == id && pg.number.generation() == 0).count();
    PoolLayout::first(u32::try_from(groups).ok().filter(|groups| *groups > 0).unwrap_or(pool.pg_count))
}

fn layout_write(map: &ClusterMap, id: PoolId, layout: PoolLayout) -> Write {
    let key = Key::Layout(id);
    let value = serde_json::to_vec(&layout).expect("plain data has a JSON form");
    Write::new(keys::layout(id), key, Some(value), map.mod_revision(key))
}

/// Whether every group of a layout has a history of its own.
fn has_recorded(map: &ClusterMap, pool: PoolId, layout: Layout) -> bool {
    layout.numbers().all(|number| map.history(PgId { pool, number }).is_some())
}

/// Whether another layout may follow: all groups have a place, and none has ancestors. In a pool's first layout, a group
/// may have recorded nothing: then nothing was ever written there.
fn is_ready(map: &ClusterMap, pool: PoolId, layout: Layout) -> bool {
    layout.numbers().map(|number| PgId { pool, number }).all(|pg| {
        let settled = match map.history(pg) {
            Some(history) => history.ancestors.is_empty(),
            None => layout.generation == 0,
        };
        settled && map.pg_map(pg).is_some()
    })
}

/// The number of groups of the next layout: what is wanted, or a step towards it, if a group would have to ask more
/// members than can be asked. `None`: not even a step is possible.
fn next_count(map: &ClusterMap, id: PoolId, pool: &Pool, now: Layout) -> Option<u32> {
    let fits = |count: u32| {
        let next = Layout { generation: now.generation, pg_count: count };
        next.numbers().all(|number| can_take_over(map, id, pool, now, next, number))
    };
    let halves = std::iter::successors(Some(now.pg_count), |count| Some(count.div_ceil(2)));
    let steps: Vec<u32> = halves.skip(1).take_while(|count| *count > pool.pg_count && *count > 1).collect();
    // The longest step that fits.
    [pool.pg_count].into_iter().chain(steps.into_iter().rev()).find(|count| fits(*count))
}

/// Whether all members of the groups before a new one can be asked, with room for as many new ones.
fn can_take_over(map: &ClusterMap, id: PoolId, pool: &Pool, now: Layout, next: Layout, number: PgNumber) -> bool {
    let former: Vec<PgNumber> = now.overlapping(next.range(number)).map(|(number, _)| number).collect();
    if former.len() == 1 {
        return true;
    }
    let histories = former.iter().filter_map(|number| map.history(PgId { pool: id, number: *number }));
    let members: BTreeSet<_> =
        histories.flat_map(|history| history.sets.iter().flat_map(|(_, set)| set).chain(&history.base_set)).collect();
    former.len() <= ANCESTORS_MAX && members.len() + usize::from(pool.pg_size) <= SEATS_MAX
}

/// Deletes what is left of groups of layouts before the one in force, when no layout names them. (Whoever leads anew may
/// hear of histories before he hears of their layout: what is newer than the layout known here is left alone.)
pub fn deletions(map: &ClusterMap, pool: PoolId) -> Vec<Write> {
    let Some(PoolLayout { now, before: None }) = map.layout(pool) else { return Vec::new() };
    let is_old = |number: PgNumber| number.generation() < now.generation;
    let delete = |name: String, key: Key| Write::new(name, key, None, map.mod_revision(key));
    let chunks = map.pg_chunks().filter(|(id, _, maps)| *id == pool && maps.0.keys().any(|number| is_old(*number)));
    let chunks = chunks.map(|(_, chunk, _)| delete(keys::pg_map(pool, chunk), Key::PgMap(pool, chunk)));
    let histories = map.histories(pool).map(|(pg, _)| pg).filter(|pg| is_old(pg.number));
    let history = |pg: PgId| Write {
        also: vec![Keys::One(keys::pg_scrub(pg))],
        ..delete(keys::pg_history(pg), Key::History(pg))
    };
    let histories = histories.map(history);
    let orders = map.scrub_orders(pool).filter(|pg| is_old(pg.number));
    let orders = orders.map(|pg| delete(keys::scrub_order(pg), Key::ScrubOrder(pg)));
    let wishes = map.wishes().map(|(pg, ..)| pg).filter(|pg| pg.pool == pool && is_old(pg.number));
    let wishes = wishes.map(|pg| delete(keys::pg_wish(pg), Key::Wish(pg)));
    chunks.chain(histories).chain(orders).chain(wishes).collect()
}
