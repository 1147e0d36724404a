//! The end of a run: heal everything, demand that it becomes whole, read everything back, check everything.

use super::load::Ask;
use super::process::Process;
use super::script::broken;
use super::{Cluster, IMAGE};
use crate::check::history::{Block, Finding};
use ashlar_core::id::PgId;
use ashlar_core::map::{ActingMember, PREFIX};
use ashlar_core::time::Duration;
use ashlar_faultinject::disk::Outcome;
use std::fmt::Write;

/// Within so long of simulated time after the last fault, everything must work again. Sum of the slowest path: sessions
/// and leadership end (4 s and 3 s, some tries each), connections time out (9 s), peering waits for leases, recovery.
const LIVENESS_LIMIT: Duration = Duration::secs(120);
/// After losses beyond the promise, clients go on for so long.
const LOSSES_SHOW: Duration = Duration::secs(20);
/// Blocks of one read of the final read-back.
const READ_BACK_BLOCKS: u32 = 32;

impl Cluster {
    /// Heals, waits until everything is whole, reads everything back and checks the whole history.
    pub fn finish(&mut self) -> Result<(), Finding> {
        self.decisions.leave_script();
        self.heal_everything();
        if self.losses_expected {
            // Nothing need come back; what does must be right.
            self.run_for(LOSSES_SHOW)?;
            return self.check_history();
        }
        if self.config.may_be_full() {
            self.make_room(0)?;
        }
        self.replace_damaged_disks()?;
        if !self.reaches(|cluster| cluster.load_done() && cluster.all_whole() && cluster.removals_done())? {
            // What was seen so far may say more than that something is stuck.
            self.check_history()?;
            return Err(broken(format!(
                "not whole {} s after the last fault:\n{}",
                LIVENESS_LIMIT.as_millis() / 1000,
                self.describe_stuck()
            )));
        }
        self.put_operations_right();
        if self.config.is_lazy() {
            self.lose_what_is_not_flushed()?;
        }
        self.read_back()?;
        self.check_history()?;
        self.check_at_rest()
    }

    /// Waits for a condition. Half the objects may still be more than fits (members whose roles changed keep chunks in
    /// both): if full disks are in its way, the other half goes, too.
    fn reaches(&mut self, mut condition: impl FnMut(&mut Cluster) -> bool) -> Result<bool, Finding> {
        if self.run_until(LIVENESS_LIMIT, &mut condition)? || !self.config.may_be_full() {
            return Ok(condition(self));
        }
        self.make_room(1)?;
        self.run_until(LIVENESS_LIMIT, &mut condition)
    }

    /// Recovery stops before a disk is full, and clients fill the others meanwhile: what is missing on the one then does not
    /// fit until somebody deletes something. Every other object goes, from this one on.
    fn make_room(&mut self, first: u32) -> Result<(), Finding> {
        let clients = self.clients.len();
        self.run_until(LIVENESS_LIMIT, |cluster| cluster.load_done() && (0..clients).all(|n| cluster.is_ready(n)))?;
        let (objects, per_object) = (self.config.image_objects, self.config.object_blocks);
        for object in (first..objects).step_by(2) {
            // Of a lazy pool, each client has its own.
            let client = object as usize % clients;
            let op = self.submit(client, IMAGE, object * per_object, per_object, Ask::Discard);
            let mut deleted = self.wait_for(op, LIVENESS_LIMIT)?;
            if !deleted {
                self.settle_for_less();
                deleted = self.wait_for(op, LIVENESS_LIMIT)?;
            }
            if !deleted {
                let what = format!("nothing can be deleted from full disks:\n{}", self.describe_stuck());
                return Err(Finding { what, block: None, ops: vec![op] });
            }
        }
        Ok(())
    }

    /// Too many members of a group are lost or lag for what it has there to be promised, and the others have no space: it
    /// waits. As told to, the operator has it served with fewer.
    fn settle_for_less(&mut self) {
        self.mark("sim: groups on full disks are served with fewer members than promised");
        let (size, k) = (self.config.pg_size, self.config.data_chunks());
        self.set_members(size, k);
    }

    /// After every client has flushed, no power loss can take anything.
    fn lose_what_is_not_flushed(&mut self) -> Result<(), Finding> {
        for index in 0..self.clients.len() {
            self.run_until(LIVENESS_LIMIT, |cluster| cluster.is_ready(index))?;
            let op = self.start_flush(index)?;
            self.wait(op)?;
        }
        self.power_off_everything(Outcome::LoseAll);
        self.run_for(Duration::millis(200))?;
        self.start_everything();
        let whole = self.run_until(LIVENESS_LIMIT, Cluster::all_whole)?;
        if whole { Ok(()) } else { Err(broken(format!("not whole after power loss:\n{}", self.describe_stuck()))) }
    }

    /// Lost metadata do not come back by themselves: the store stays out of peering until an operator replaces it. Nobody
    /// replaces a disk before the others have what is on it, unless groups cannot be whole with it.
    fn replace_damaged_disks(&mut self) -> Result<(), Finding> {
        for (turn, node) in self.atlas.to_be_replaced().into_iter().enumerate() {
            let in_the_way = turn == 0 && self.atlas.has_lost_everything(node);
            let whole = |cluster: &mut Cluster| if in_the_way { cluster.all_active() } else { cluster.all_whole() };
            if !self.reaches(|cluster| cluster.load_done() && whole(cluster))? {
                return Ok(());
            }
            self.kill(node);
            self.wipe(node);
            self.start(node);
        }
        Ok(())
    }

    /// Ends all faults; everything runs.
    pub fn heal_everything(&mut self) {
        self.chaos_off();
        self.world.end_meta_outage();
        self.end_short_faults();
        self.put_disks_right();
        self.put_operations_right();
        for n in 0..self.config.osds {
            self.reweight(ashlar_core::id::OsdId(n + 1), 1.0);
        }
        self.start_everything();
        for index in 0..self.clients.len() {
            self.fill_depth(index);
        }
    }

    /// Every group is active and clean, with all its members.
    pub fn all_whole(&mut self) -> bool {
        if !self.all_clean() {
            return false;
        }
        self.is_regrouped() && self.groups().into_iter().all(|pg| self.is_whole(pg))
    }

    pub(super) fn is_whole(&mut self, pg: PgId) -> bool {
        let Some(summary) = self.summary(pg) else { return false };
        let size = usize::from(self.members_wanted);
        let Some(map) = self.pg_map(pg).filter(|map| map.epoch == summary.epoch) else { return false };
        let acting = || map.acting.iter().flatten();
        let full = acting().count() == size && acting().all(|member| self.runs_as(member));
        summary.state == "active" && summary.clean && full
    }

    /// Whether a member is what runs under its number: not an earlier start, of which nobody has told the map yet.
    fn runs_as(&self, member: &ActingMember) -> bool {
        let is = |process: &Process| {
            matches!(process, Process::Osd(_, incarnation, osd)
                if (*osd, *incarnation) == (member.osd, member.incarnation))
        };
        self.osds.iter().filter_map(|node| self.world.node(*node)).any(is)
    }

    fn read_back(&mut self) -> Result<(), Finding> {
        let opened = self.run_until(LIVENESS_LIMIT, |cluster| cluster.is_ready(0))?;
        if !opened {
            return Err(broken("the first client cannot open the images".to_string()));
        }
        for image in self.live_images().collect::<Vec<_>>() {
            let spans: Vec<(u32, u32)> = self.images[image as usize].spans(READ_BACK_BLOCKS).collect();
            for (index, count) in spans {
                let op = self.submit(0, image, index, count, Ask::Read);
                if !self.wait_for(op, LIVENESS_LIMIT)? {
                    let what = format!("the final read is stuck:\n{}", self.describe_stuck());
                    return Err(Finding { what, block: Some(Block { image, index }), ops: vec![op] });
                }
            }
        }
        Ok(())
    }

    /// Runs the checkers over the history.
    pub fn check_history(&mut self) -> Result<(), Finding> {
        if self.silent_losses {
            return self.history.check_origins();
        }
        let (findings, undecided) = self.history.check();
        self.tally.undecided += u64::from(undecided);
        findings.into_iter().next().map_or(Ok(()), Err)
    }

    /// What does not work, for people.
    pub fn describe_stuck(&mut self) -> String {
        let mut text = String::new();
        let open: Vec<u32> = self.history.open().into_iter().take(8).collect();
        let _ = writeln!(
            text,
            "open operations {open:?}; of the load are left {}",
            self.clients.iter().map(|c| c.left).sum::<u32>()
        );
        for pg in self.groups() {
            let (summary, map) = (self.summary(pg), self.pg_map(pg));
            if !self.is_whole(pg) {
                let _ = writeln!(text, "{pg:?}: map {map:?}\n   primary says {summary:?}");
            }
        }
        for image in self.images.clone() {
            if !image.live && !self.is_removed(image.pool, image.inode) {
                let _ = writeln!(text, "image {} (inode {}) is still being removed", image.name, image.inode.0);
            }
        }
        for prefix in ["osd/failed/", "pg/wish/", "osd/state/", "pg/map/1/layout"] {
            for (key, value) in self.world.meta_read(&format!("{PREFIX}{prefix}")) {
                let _ = writeln!(text, "{key} = {}", String::from_utf8_lossy(&value));
            }
        }
        for node in self.world.node_ids().collect::<Vec<_>>() {
            if !self.world.is_running(node) {
                let _ = writeln!(text, "node {} does not run", node.0);
            }
        }
        text
    }
}
