//! Of each group, at most one primary serves: judged by what is answered, not by what a node believes.
//!
//! - An epoch is recorded in the group's history before it is activated.
//! - An epoch of a group is activated by one node only.
//! - A read is answered only by a node whose activation is the newest of all: a primary that was replaced holds no lease
//!   any more. (Acknowledgements of writes may come late: they were durable on all members before those were asked.)

use ashlar_core::id::{Epoch, PgId};
use std::collections::BTreeMap;

/// Who activated what.
#[derive(Clone, Debug, Default)]
pub struct Serving {
    newest: BTreeMap<PgId, (Epoch, u32)>,
    active: BTreeMap<(u32, PgId), Epoch>,
    recorded: BTreeMap<PgId, Epoch>,
}

impl Serving {
    /// A primary learned that its interval is recorded.
    pub fn recorded(&mut self, pg: PgId, last: Epoch) {
        let newest = self.recorded.entry(pg).or_default();
        *newest = (*newest).max(last);
    }

    /// A node says that it serves a group from now on.
    pub fn activated(&mut self, node: u32, pg: PgId, epoch: Epoch) -> Result<(), String> {
        self.active.insert((node, pg), epoch);
        if self.recorded.get(&pg).is_none_or(|recorded| *recorded < epoch) {
            return Err(format!("{pg:?} epoch {epoch} was activated by node {node} before it was recorded"));
        }
        match self.newest.get(&pg) {
            Some((newest, by)) if *newest == epoch && *by != node => {
                Err(format!("{pg:?} epoch {epoch} was activated by node {by} and by node {node}"))
            }
            // It does not know yet that it was replaced; it cannot serve, which is checked where it would answer.
            Some((newest, _)) if *newest > epoch => Ok(()),
            _ => {
                self.newest.insert(pg, (epoch, node));
                Ok(())
            }
        }
    }

    /// A node says that it stopped serving a group.
    pub fn deactivated(&mut self, node: u32, pg: PgId) {
        self.active.remove(&(node, pg));
    }

    /// A node's process ended.
    pub fn ended(&mut self, node: u32) {
        self.active.retain(|(other, _), _| *other != node);
    }

    /// A node answers a read.
    pub fn answers_read(&self, node: u32, pg: PgId) -> Result<(), String> {
        let Some(mine) = self.active.get(&(node, pg)) else {
            return Err(format!("node {node} answers a read of {pg:?} that it does not serve"));
        };
        match self.newest.get(&pg) {
            Some((newest, by)) if newest > mine => {
                Err(format!("node {node} answers a read of {pg:?} in epoch {mine}, after node {by} activated {newest}"))
            }
            _ => Ok(()),
        }
    }

    /// Groups that were activated at least once.
    pub fn groups(&self) -> usize {
        self.newest.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_primary_must_not_answer_reads() {
        let (mut serving, pg) = (Serving::default(), PgId::default());
        assert!(serving.answers_read(1, pg).is_err());
        assert!(serving.clone().activated(1, pg, Epoch(5)).is_err(), "not recorded");
        serving.recorded(pg, Epoch(6));
        serving.activated(1, pg, Epoch(5)).expect("the first");
        serving.answers_read(1, pg).expect("it serves");
        serving.activated(2, pg, Epoch(6)).expect("a newer");
        assert!(serving.answers_read(1, pg).is_err());
        serving.answers_read(2, pg).expect("it serves");
        assert!(serving.activated(3, pg, Epoch(6)).is_err());
        serving.activated(1, pg, Epoch(5)).expect("it may believe so");
        assert!(serving.answers_read(1, pg).is_err());
        serving.ended(2);
        assert!(serving.answers_read(2, pg).is_err());
    }
}
