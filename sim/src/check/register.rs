//! Linearizability of one register.
//!
//! [`check_unique`] needs values that are written once (or never: the initial one). It is the zone algorithm (P. Gibbons,
//! E. Korach: Testing Shared Memories, 1997): the operations on one value form a cluster; between the first end and the
//! last start of its operations the register certainly held that value (a *forward* zone, if the end comes first), and if
//! all of them overlap, it held it at one point at least between the last start and the first end (a *backward* zone).
//! The history is linearizable exactly if no read precedes its write, no two forward zones overlap, and no backward
//! zone lies inside a forward one. Time n log n.
//!
//! [`check_any`] allows equal values (zeroes by discards). It walks through the history in time and keeps all states in
//! which the register can be (G. Lowe: Testing for linearizability, 2017: just-in-time linearization).
//!
//! A write without an end may have happened at any time after its start, or never.

use std::collections::{BTreeMap, BTreeSet};

/// A value of the register.
pub type Value = u64;

/// What an operation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Wrote this value.
    Write(Value),
    /// Returned this value.
    Read(Value),
}

/// One operation. Instants are numbers of events: no two are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// Names it in reports.
    pub id: u32,
    /// When it was called.
    pub start: u64,
    /// When it returned; `None`: unknown whether it happened (only writes are listed so).
    pub end: Option<u64>,
    /// What it did.
    pub kind: Kind,
}

/// Why a history is not linearizable, with the operations that show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// In words.
    pub what: String,
    /// Names of the operations.
    pub ops: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Cluster {
    value: Value,
    write_start: Option<u64>,
    first_end: u64,
    last_start: u64,
    ops: Vec<u32>,
    read: bool,
}

const NEVER: u64 = u64::MAX;

/// Checks a register whose values are unique; `initial` is what it held before.
pub fn check_unique(initial: Value, ops: &[Op]) -> Result<(), Violation> {
    let clusters = clusters(initial, ops)?;
    let mut forward: Vec<&Cluster> = clusters.values().filter(|c| c.first_end < c.last_start).collect();
    forward.sort_by_key(|c| c.first_end);
    for pair in forward.windows(2) {
        if pair[1].first_end < pair[0].last_start {
            return Err(conflict("two values were both certainly there at overlapping times", pair[0], pair[1]));
        }
    }
    for backward in clusters.values().filter(|c| c.first_end >= c.last_start) {
        let after = forward.partition_point(|c| c.first_end < backward.last_start);
        if after > 0 && backward.first_end < forward[after - 1].last_start {
            let what = "a value must have been there while another certainly was";
            return Err(conflict(what, forward[after - 1], backward));
        }
    }
    Ok(())
}

fn clusters(initial: Value, ops: &[Op]) -> Result<BTreeMap<Value, Cluster>, Violation> {
    let mut clusters: BTreeMap<Value, Cluster> = BTreeMap::new();
    let first =
        Cluster { value: initial, write_start: Some(0), first_end: 0, last_start: 0, ops: Vec::new(), read: false };
    clusters.insert(initial, first);
    for op in ops {
        let (value, is_read) = match op.kind {
            Kind::Write(value) => (value, false),
            Kind::Read(value) => (value, true),
        };
        let fresh = Cluster { value, write_start: None, first_end: NEVER, last_start: 0, ops: Vec::new(), read: false };
        let cluster = clusters.entry(value).or_insert(fresh);
        if !is_read {
            assert!(cluster.write_start.is_none(), "value {value:x} is written twice");
            cluster.write_start = Some(op.start);
        }
        cluster.read |= is_read;
        cluster.first_end = cluster.first_end.min(op.end.unwrap_or(NEVER));
        cluster.last_start = cluster.last_start.max(op.start);
        cluster.ops.push(op.id);
    }
    // A write that may not have happened and that nobody saw says nothing.
    clusters.retain(|_, c| c.first_end != NEVER || c.read);
    for cluster in clusters.values() {
        let Some(write_start) = cluster.write_start else {
            let what = format!("value {:x} was read but never written", cluster.value);
            return Err(Violation { what, ops: cluster.ops.clone() });
        };
        if cluster.first_end < write_start {
            let what = format!("value {:x} was read before it was written", cluster.value);
            return Err(Violation { what, ops: cluster.ops.clone() });
        }
    }
    Ok(clusters)
}

fn conflict(what: &str, a: &Cluster, b: &Cluster) -> Violation {
    let zone = |c: &Cluster| format!("{:x} [{}, {}]", c.value, c.first_end, c.last_start);
    let ops = a.ops.iter().chain(&b.ops).copied().collect();
    Violation { what: format!("{what}: {} and {}", zone(a), zone(b)), ops }
}

/// Operations that may be open at once: a state is a value and a set of them.
const OPEN_LIMIT: usize = 64;
/// States kept at once; beyond, the history is too concurrent to decide.
const STATE_LIMIT: usize = 200_000;

/// A history that would take too long to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooConcurrent;

type States = BTreeSet<(Value, u64)>;

/// Checks a register whose values may repeat.
pub fn check_any(initial: Value, ops: &[Op]) -> Result<Result<(), Violation>, TooConcurrent> {
    let seen: BTreeSet<Value> = ops
        .iter()
        .filter_map(|op| match op.kind {
            Kind::Read(value) => Some(value),
            Kind::Write(_) => None,
        })
        .collect();
    let matters = |op: &&Op| !matches!(op.kind, Kind::Write(value) if op.end.is_none() && !seen.contains(&value));
    let ops: Vec<Op> = ops.iter().filter(matters).copied().collect();
    let mut instants: Vec<(u64, usize, bool)> = Vec::new();
    for (index, op) in ops.iter().enumerate() {
        instants.push((op.start, index, true));
        instants.extend(op.end.map(|end| (end, index, false)));
    }
    instants.sort_unstable();
    let mut walk = Walk { open: Vec::new(), states: States::from([(initial, 0)]) };
    for (_, index, starts) in instants {
        if starts {
            walk.start(&ops[index])?;
        } else if !walk.end(&ops[index])? {
            let what =
                format!("no order of the operations explains operation {}: {:?}", ops[index].id, ops[index].kind);
            let around = ops.iter().filter(|op| op.start < ops[index].end.unwrap_or(NEVER)).map(|op| op.id);
            let mut around: Vec<u32> = around.collect();
            let from = around.len().saturating_sub(12);
            return Ok(Err(Violation { what, ops: around.split_off(from) }));
        }
    }
    Ok(Ok(()))
}

struct Walk {
    /// Operations that started and did not end, by their bit.
    open: Vec<Option<Op>>,
    /// Values that the register can have, each with the open operations that have taken effect.
    states: States,
}

impl Walk {
    fn start(&mut self, op: &Op) -> Result<(), TooConcurrent> {
        let place = self.open.iter().position(Option::is_none).unwrap_or(self.open.len());
        if place == OPEN_LIMIT {
            return Err(TooConcurrent);
        }
        if place == self.open.len() {
            self.open.push(None);
        }
        self.open[place] = Some(*op);
        Ok(())
    }

    /// The operation must have taken effect by now; false if it cannot have.
    fn end(&mut self, op: &Op) -> Result<bool, TooConcurrent> {
        let place = self.open.iter().position(|open| open.is_some_and(|o| o.id == op.id && o.kind == op.kind));
        let place = place.expect("an operation ends after its start");
        let bit = 1 << place;
        let mut after = States::new();
        let mut seen = States::new();
        let mut todo: Vec<(Value, u64)> = self.states.iter().copied().collect();
        while let Some((value, done)) = todo.pop() {
            if done & bit != 0 {
                after.insert((value, done & !bit));
                continue;
            }
            for next in self.successors(value, done) {
                if seen.insert(next) {
                    todo.push(next);
                }
            }
            if seen.len() > STATE_LIMIT {
                return Err(TooConcurrent);
            }
        }
        self.open[place] = None;
        self.states = after;
        Ok(!self.states.is_empty())
    }

    fn successors(&self, value: Value, done: u64) -> Vec<(Value, u64)> {
        let mut next = Vec::new();
        for (place, op) in self.open.iter().enumerate() {
            let Some(op) = op else { continue };
            let bit = 1u64 << place;
            if done & bit != 0 {
                continue;
            }
            match op.kind {
                Kind::Write(new) => next.push((new, done | bit)),
                Kind::Read(got) if got == value => next.push((value, done | bit)),
                Kind::Read(_) => {}
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_core::rng::Rng;

    fn op(id: u32, start: u64, end: u64, kind: Kind) -> Op {
        Op { id, start, end: (end > 0).then_some(end), kind }
    }

    /// Tries every order (A. Wing and C. Gong, 1993): an operation may come next if no other, still missing, ended before
    /// it started.
    fn brute_force(value: Value, ops: &[Op], done: u32) -> bool {
        let missing: Vec<usize> = (0..ops.len()).filter(|i| done & (1 << i) == 0).collect();
        if missing.iter().all(|i| ops[*i].end.is_none()) {
            return true;
        }
        let first_end = missing.iter().map(|i| ops[*i].end.unwrap_or(NEVER)).min().expect("some are missing");
        missing.iter().any(|i| {
            let allowed = ops[*i].start < first_end;
            allowed
                && match ops[*i].kind {
                    Kind::Write(new) => brute_force(new, ops, done | 1 << i),
                    Kind::Read(got) => got == value && brute_force(value, ops, done | 1 << i),
                }
        })
    }

    /// A random history: often linearizable (reads return the last write at some instant), often not.
    fn random_history(rng: &mut Rng, unique: bool) -> Vec<Op> {
        let count = rng.between(2, 8) as u32;
        let mut instants: Vec<u64> = (1..=u64::from(count) * 2).collect();
        for i in (1..instants.len()).rev() {
            instants.swap(i, rng.below(i as u64 + 1) as usize);
        }
        (0..count)
            .map(|id| {
                let (a, b) = (instants[id as usize * 2], instants[id as usize * 2 + 1]);
                let write = rng.chance(1, 2);
                let value = if unique { u64::from(id) + 1 } else { rng.below(3) };
                let read_value = if unique { rng.below(u64::from(count) + 1) } else { rng.below(3) };
                let kind = if write { Kind::Write(value) } else { Kind::Read(read_value) };
                let open = write && rng.chance(1, 5);
                Op { id, start: a.min(b), end: (!open).then_some(a.max(b)), kind }
            })
            .collect()
    }

    #[test]
    fn all_checkers_agree_on_random_small_histories() {
        let mut rng = Rng::new(1);
        let mut good = 0;
        for _ in 0..30_000 {
            let history = random_history(&mut rng, true);
            let expected = brute_force(0, &history, 0);
            assert_eq!(check_unique(0, &history).is_ok(), expected, "zones: {history:#?}");
            assert_eq!(check_any(0, &history).expect("small").is_ok(), expected, "states: {history:#?}");
            good += u32::from(expected);
        }
        assert!((2_000..28_000).contains(&good), "{good} linearizable: the test says little");
    }

    #[test]
    fn the_general_checker_agrees_where_values_repeat() {
        let mut rng = Rng::new(2);
        let mut good = 0;
        for _ in 0..30_000 {
            let history = random_history(&mut rng, false);
            let expected = brute_force(0, &history, 0);
            assert_eq!(check_any(0, &history).expect("small").is_ok(), expected, "{history:#?}");
            good += u32::from(expected);
        }
        assert!((2_000..28_000).contains(&good), "{good} linearizable: the test says little");
    }

    #[test]
    fn a_lost_write_is_found_and_names_its_operations() {
        let history = [op(1, 1, 2, Kind::Write(7)), op(2, 3, 4, Kind::Read(0))];
        let violation = check_unique(0, &history).expect_err("the acknowledged write is gone");
        assert!(violation.ops.contains(&1), "{violation:?}");
    }

    #[test]
    fn a_write_that_failed_may_come_late_but_not_go_again() {
        let late = [op(1, 1, 0, Kind::Write(7)), op(2, 3, 4, Kind::Read(0)), op(3, 5, 6, Kind::Read(7))];
        assert_eq!(check_unique(0, &late), Ok(()));
        let gone = [op(1, 1, 0, Kind::Write(7)), op(2, 3, 4, Kind::Read(7)), op(3, 5, 6, Kind::Read(0))];
        assert!(check_unique(0, &gone).is_err());
    }

    #[test]
    fn too_many_open_operations_are_refused_not_guessed() {
        let mut history: Vec<Op> = (0..70).map(|id| op(id, u64::from(id) + 1, 0, Kind::Write(0))).collect();
        history.push(op(99, 100, 101, Kind::Read(0)));
        assert_eq!(check_any(1, &history), Err(TooConcurrent));
    }
}
