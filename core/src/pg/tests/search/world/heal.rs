//! The end of every way: all faults end, and everything must become well.

use super::{Action, PG, READER, World};
use crate::msg::RequestOp;
use crate::store::ObjectStore;

impl World {
    /// Everything that is on its way happens, nothing new begins.
    pub(super) fn calm(&mut self) {
        for _ in 0..10_000 {
            self.prompt_ones();
            if let Some((from, to)) = self.net.keys().next().copied() {
                self.take(from, to, 0);
            } else if let Some(osd) = (0..self.nodes.len()).find(|osd| !self.nodes[*osd].meta.is_empty()) {
                self.metadata(osd, false);
            } else if let Some(osd) = (0..self.nodes.len()).find(|osd| self.is_behind(*osd)) {
                self.hear(osd);
            } else if let Some(osd) = (0..self.nodes.len()).find(|osd| self.is_up(*osd) && self.is_busy(*osd)) {
                self.act(Action::Flush(osd));
            } else {
                return;
            }
        }
        self.promises.broken("messages without end".into());
    }

    fn is_behind(&self, osd: usize) -> bool {
        self.is_up(osd) && self.nodes[osd].heard < self.map.epoch
    }

    fn is_busy(&self, osd: usize) -> bool {
        self.nodes[osd].store().is_busy()
    }

    pub(super) fn summary(&self) -> Option<crate::pg::Summary> {
        let primary = self.map.primary?.0 as usize;
        self.nodes[primary].groups.as_ref()?.get(PG)?.summary()
    }

    /// Ends all faults: the group must become clean, each operation be done, all copies equal.
    pub fn heal(mut self) -> Result<(), String> {
        self.healing = true;
        if !self.promises.is_recoverable(&self.nodes, self.scope) {
            return Ok(());
        }
        for osd in 0..self.nodes.len() {
            if !self.is_up(osd) {
                self.start(osd);
            }
        }
        for osd in 0..self.nodes.len() {
            self.set_full(osd, false);
        }
        for (a, b) in self.cut.keys().copied().collect::<Vec<_>>() {
            self.act(Action::Link(a, b));
        }
        for _ in 0..3 {
            self.install(self.first_seats(), 0);
            for round in 0..6 {
                self.calm();
                self.promises.verdict()?;
                self.finish_operations();
                self.calm();
                if self.summary().is_some_and(|summary| summary.clean) && self.all_done() && !self.is_left_outside() {
                    return self.last_look();
                }
                self.act(if round % 2 == 0 { Action::Wait } else { Action::LongWait });
            }
        }
        Err(format!("stuck: {:?}, operations {:?}", self.summary(), self.ops))
    }

    fn all_done(&self) -> bool {
        self.ops.iter().all(|op| op.done || op.times == 0 || op.stale)
    }

    fn is_left_outside(&self) -> bool {
        (usize::from(self.scope.size)..self.nodes.len()).any(|osd| self.nodes[osd].store().stats().objects > 0)
    }

    fn finish_operations(&mut self) {
        if self.summary().is_none_or(|summary| summary.state != "active") {
            return;
        }
        for op in 0..self.ops.len() {
            if self.ops[op].times > 0 && !self.ops[op].done && !self.ops[op].stale {
                self.client_sends(op, 0);
                self.calm();
            }
        }
    }

    fn last_look(&mut self) -> Result<(), String> {
        self.beat(0);
        self.calm();
        self.promises.reading(99);
        self.request(0, READER + 99, 199, 1 << 63 | 1, RequestOp::Read { offset: 0, len: 512 });
        self.calm();
        self.promises.final_read()?;
        self.promises.verdict()?;
        self.promises.equal_copies(&self.nodes[..usize::from(self.scope.size)], self.scope.has_roles())
    }
}
