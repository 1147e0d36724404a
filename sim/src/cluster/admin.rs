//! What administrators do while everything runs: groups, weights, pool parameters, OSDs that come and go, clients that are
//! fenced off, daemons that are upgraded.
//!
//! Owns which of these happens next, and what is put right at the end. Each may meet any fault.

use super::{CALL_UNFENCE, Cluster, POOL, Spec};
use crate::world::NodeId;
use ashlar_core::id::OsdId;
use ashlar_core::map::{Global, OsdConfig, Pool, Pools, keys};
use ashlar_core::meta::{Keys, Request, Txn, TxnOp};
use ashlar_core::time::Duration;
use ashlar_core::wire::Versions;
use std::collections::BTreeSet;

/// The versions that a daemon speaks before, while and after a rolling upgrade: each overlaps with its neighbours.
pub const STAGES: [Versions; 3] = {
    let next = Versions::OURS.newest + 1;
    [Versions::OURS, Versions { newest: next, ..Versions::OURS }, Versions { oldest: next, newest: next }]
};
/// How often a fence is asked for whether it is complete.
const FENCE_PAUSE: Duration = Duration::millis(300);
/// More groups than this are not asked for.
const MOST_GROUPS: u64 = 12;

impl Cluster {
    pub(super) fn change_a_weight(&mut self) -> bool {
        let osd = OsdId(u32::try_from(1 + self.chaos_below(u64::from(self.config.osds))).expect("few"));
        let reweight = [0.0, 0.3, 1.0, 1.0][usize::try_from(self.chaos_below(4)).expect("below 4")];
        self.reweight(osd, reweight);
        true
    }

    pub(super) fn change_pg_count(&mut self) -> bool {
        let count = u32::try_from(1 + self.chaos_below(MOST_GROUPS)).expect("few");
        if count == self.groups_wanted {
            return false;
        }
        self.set_pg_count(count);
        true
    }

    /// Copies are added or taken away, or writes need more or fewer members.
    pub(super) fn change_the_pool(&mut self) -> bool {
        let (size, minsize) = (self.config.pg_size, self.config.pg_minsize);
        let now = self.pool();
        let (mut pg_size, mut pg_minsize) = (now.pg_size, now.pg_minsize);
        if self.config.data_chunks() == 1 && self.chaos_below(2) == 0 {
            let other = if size == 2 { 3 } else { 2 };
            pg_size = if now.pg_size == size { other } else { size };
        } else {
            pg_minsize = if now.pg_minsize == minsize { minsize + 1 } else { minsize };
        }
        pg_minsize = pg_minsize.min(pg_size);
        if usize::from(pg_size) > self.domains_without(None) || (pg_size, pg_minsize) == (now.pg_size, now.pg_minsize) {
            return false;
        }
        self.set_members(pg_size, pg_minsize);
        true
    }

    pub(super) fn set_members(&mut self, pg_size: u8, pg_minsize: u8) {
        self.change_pool(|pool| (pool.pg_size, pool.pg_minsize) = (pg_size, pg_minsize));
        self.members_wanted = pg_size;
        self.world.note(|| format!("the pool has {pg_size} members of a group, and needs {pg_minsize}"));
    }

    pub(super) fn pools(&mut self) -> Pools {
        let stored = self.world.meta_read(&keys::pools());
        serde_json::from_slice(&stored.first().expect("written at the start").1).expect("its own form")
    }

    fn pool(&mut self) -> Pool {
        self.pools().0.remove(&POOL).expect("the only pool")
    }

    pub(super) fn change_pool(&mut self, change: impl FnOnce(&mut Pool)) {
        let mut pools = self.pools();
        change(pools.0.get_mut(&POOL).expect("the only pool"));
        self.put(keys::pools(), &pools);
    }

    /// OSDs that fall more often than this are held down, for so many seconds at first.
    pub fn hold_who_flaps(&mut self, limit: u32, hold_s: u64) {
        let stored = self.world.meta_read(&keys::global());
        let parse = |(_, value): &(String, Vec<u8>)| serde_json::from_slice(value).expect("its own form");
        let global: Global = stored.first().map(parse).expect("written at the start");
        self.put(keys::global(), &Global { osd_flap_limit: limit, osd_hold_s: hold_s, ..global });
    }

    /// Failure domains that are left for members, with what is absent and without one more OSD.
    fn domains_without(&self, node: Option<NodeId>) -> usize {
        let left = self.osds.iter().enumerate().filter(|(_, osd)| !self.absent.contains(osd) && Some(**osd) != node);
        let place = |index: usize| u32::try_from(index).expect("few") / self.config.osds_per_domain();
        left.map(|(index, _)| place(index)).collect::<BTreeSet<u32>>().len()
    }

    /// An OSD is added; or one is drained, stopped and forgotten, and later added again, with an empty disk and the number
    /// that it had.
    pub(super) fn change_membership(&mut self) -> bool {
        if let Some(node) = self.absent.iter().next().copied() {
            self.add_osd(node);
            return true;
        }
        let leaving = self.leaving;
        match leaving {
            Some(node) if self.is_drained(node) => self.forget_osd(node),
            Some(_) => return false,
            None => {
                let Some(node) = self.draw_osd() else { return false };
                if self.domains_without(Some(node)) < usize::from(self.members_wanted.max(self.config.pg_size)) {
                    return false;
                }
                let osd = self.osd_id(node).expect("an OSD's place");
                self.reweight(osd, 0.0);
                self.leaving = Some(node);
            }
        }
        true
    }

    fn is_drained(&mut self, node: NodeId) -> bool {
        let empty = self.world.is_running(node) && !self.holds_data(node);
        empty && self.swapped.is_none() && self.all_whole()
    }

    /// What `osd remove` does.
    fn forget_osd(&mut self, node: NodeId) {
        self.kill(node);
        // Nor does a service manager start it that was about to.
        self.world.retire(node, true);
        self.leaving = None;
        self.absent.insert(node);
        let osd = self.osd_id(node).expect("an OSD's place");
        let gone = [keys::osd_config(osd), keys::osd_record(osd)];
        let success = gone.into_iter().map(|key| TxnOp::Delete(Keys::One(key))).collect();
        self.world.meta(Request::Txn(Txn { success, ..Txn::default() }));
        self.world.note(|| format!("{osd:?} is forgotten"));
    }

    /// A new OSD starts, or one that was forgotten, with an empty disk.
    fn add_osd(&mut self, node: NodeId) {
        self.absent.remove(&node);
        self.world.retire(node, false);
        if self.world.is_running(node) {
            return;
        }
        let osd = self.osd_id(node).expect("an OSD's place");
        self.world.note(|| format!("{osd:?} is added"));
        if self.world.was_started(node) {
            self.wipe(node);
            self.put(keys::osd_config(osd), &OsdConfig::default());
        }
        self.start(node);
    }

    /// A client is fenced off; when that is complete, it is started anew.
    pub(super) fn fence_a_client(&mut self) -> bool {
        let free = (0..self.clients.len()).filter(|index| self.clients[*index].fenced.is_none());
        let running: Vec<usize> = free.filter(|index| self.world.is_running(self.clients[*index].node)).collect();
        // With a client of a lazy pool go its unsynced writes, which nobody can tell from lost ones.
        let Some(index) = self.chaos_pick(&running).filter(|_| !self.config.is_lazy()) else { return false };
        let revision = self.fence(index);
        self.clients[index].fenced = Some(revision);
        self.look_at_fence_later(index);
        true
    }

    fn look_at_fence_later(&mut self, index: usize) {
        self.world.call_at(self.world.now() + FENCE_PAUSE, CALL_UNFENCE + index as u64);
    }

    /// A client whose fence is complete is started anew.
    pub(super) fn renew_fenced_client(&mut self, index: usize) {
        let Some(revision) = self.clients[index].fenced else { return };
        if self.access_waits_for(revision).is_empty() {
            self.renew_client(index);
        } else {
            self.look_at_fence_later(index);
        }
    }

    fn renew_client(&mut self, index: usize) {
        let node = self.clients[index].node;
        self.kill(node);
        self.start(node);
        self.fill_depth(index);
    }

    /// One more process is stopped and started as a newer version; never are two so far apart that they do not understand
    /// each other.
    pub(super) fn upgrade_something(&mut self) -> bool {
        let mut nodes: Vec<NodeId> = self.osds.iter().chain(&self.mons).copied().collect();
        // A client of a lazy pool that is restarted loses its unsynced writes: those stay as they are, and so the rest
        // has to understand them.
        let last = if self.config.is_lazy() { 1 } else { 2 };
        if last == 2 {
            nodes.extend(self.clients.iter().map(|client| client.node));
        }
        let stages: Vec<usize> = nodes.iter().map(|node| self.stage_of(*node)).collect();
        let lowest = stages.iter().copied().min().unwrap_or(last);
        let next: Vec<NodeId> =
            nodes.into_iter().zip(stages).filter(|(_, stage)| *stage == lowest).map(|(n, _)| n).collect();
        let Some(node) = self.chaos_pick(&next).filter(|_| lowest < last) else { return false };
        let after = self.draw_millis(1, 500);
        self.kill(node);
        self.speak(node, STAGES[lowest + 1]);
        self.start_later(node, after);
        true
    }

    fn stage_of(&mut self, node: NodeId) -> usize {
        let versions = *self.world.spec_mut(node).versions_mut();
        STAGES.iter().position(|stage| *stage == versions).expect("one of the stages")
    }

    /// From its next start on a process speaks these versions of the protocol.
    pub fn speak(&mut self, node: NodeId, versions: Versions) {
        *Spec::versions_mut(self.world.spec_mut(node)) = versions;
    }

    /// What operators left half done is done, or undone.
    pub(super) fn put_operations_right(&mut self) {
        let (size, minsize) = (self.config.pg_size, self.config.pg_minsize);
        let now = self.pool();
        if (now.pg_size, now.pg_minsize) != (size, minsize) {
            self.set_members(size, minsize);
        }
        self.leaving = None;
        for node in self.absent.clone() {
            self.add_osd(node);
        }
        for index in 0..self.clients.len() {
            if self.clients[index].fenced.is_some() && self.world.is_running(self.clients[index].node) {
                self.renew_client(index);
            }
        }
    }
}
