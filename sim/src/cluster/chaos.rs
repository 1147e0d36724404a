//! Faults while the load runs: drawn from the mix of the configuration, on targets drawn here, within the budget of what
//! the pool promises to survive.
//!
//! Invariant (the budget): a disk is replaced only while every group is clean on all its members, so that no replacement
//! takes the last copy of anything.

use super::{CALL_FAULT, CALL_FAULTS_OFF, Cluster};
use crate::plan::Fault;
use crate::world::{META_HOST, MetaFaults, NodeId};
use ashlar_core::id::OsdId;
use ashlar_core::io::Device;
use ashlar_core::rng::Rng;
use ashlar_core::time::Duration;
use ashlar_faultinject::disk::{DiskFaults, Outcome};
use ashlar_faultinject::mix::FaultKind;

/// State of the faults.
#[derive(Clone, Debug)]
pub(super) struct Chaos {
    rng: Rng,
    on: bool,
}

impl Chaos {
    pub(super) fn new(rng: Rng) -> Self {
        Chaos { rng, on: false }
    }

    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::millis(self.rng.between(low, high))
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let count = from.len() as u64;
        (count > 0).then(|| from[usize::try_from(self.rng.below(count)).expect("few")])
    }
}

impl Cluster {
    /// Begins with the faults of the configuration.
    pub fn start_faults(&mut self) {
        self.chaos.on = true;
        if self.decisions.replays_faults() {
            let times = self.decisions.fault_times(self.world.now());
            return times.into_iter().for_each(|at| self.world.call_at(at, CALL_FAULT));
        }
        self.schedule_fault();
    }

    pub(super) fn chaos_off(&mut self) {
        self.chaos.on = false;
    }

    fn schedule_fault(&mut self) {
        if let Some((after, kind)) = self.config.mix.next(&mut self.chaos.rng) {
            self.chaos_next = Some(kind);
            self.world.call_at(self.world.now() + after, CALL_FAULT);
        }
    }

    /// The time of a fault has come.
    pub(super) fn next_fault(&mut self) {
        if !self.chaos.on {
            return;
        }
        if let Some(planned) = self.decisions.next_fault() {
            self.chaos.rng = planned.draws;
            self.inject(planned.kind);
        } else if let Some(kind) = self.chaos_next.take() {
            let at = self.world.now().0;
            self.decisions.record_fault(Fault { at, kind, draws: self.chaos.rng.clone() });
            self.inject(kind);
            self.schedule_fault();
        }
    }

    /// Lets a fault happen, on a target of its own choice.
    pub fn inject(&mut self, kind: FaultKind) {
        self.world.note(|| format!("fault: {}", kind.name()));
        self.tally.faults += 1;
        let in_script = self.decisions.leave_script();
        self.let_happen(kind);
        if in_script {
            self.decisions.enter_script();
        }
    }

    fn let_happen(&mut self, kind: FaultKind) {
        match kind {
            FaultKind::Crash => self.crash_something(),
            FaultKind::HostPower => self.cut_power_of_a_host(),
            FaultKind::TotalPower => self.cut_power_of_everything(),
            FaultKind::Pause => self.pause_something(),
            FaultKind::Partition => self.split_the_network(),
            FaultKind::OneWay => self.cut_one_direction(),
            FaultKind::Reset => self.reset_something(),
            FaultKind::MetaCut => self.cut_a_host_from_meta(),
            FaultKind::MetaOutage => {
                let length = self.chaos.millis(100, 6000);
                self.world.meta_outage(length);
            }
            FaultKind::MetaUnknown => self.make_meta_unreliable(),
            FaultKind::LeaseExpiry => drop(self.world.expire_a_lease()),
            FaultKind::WatchLost => drop(self.world.lose_a_watch()),
            FaultKind::Wipe => self.replace_a_disk(),
            FaultKind::Reweight => self.change_a_weight(),
            FaultKind::DiskStall => self.stall_a_disk(),
            FaultKind::LatentError => self.spoil_a_page(false),
            FaultKind::BitRot => self.spoil_a_page(true),
            FaultKind::DiskError => self.make_a_disk_fail(),
        }
    }

    fn draw_daemon(&mut self) -> Option<NodeId> {
        let nodes: Vec<NodeId> = self.osds.iter().chain(&self.osds).chain(&self.mons).copied().collect();
        self.chaos.pick(&nodes)
    }

    fn crash_something(&mut self) {
        let Some(mut node) = self.draw_daemon() else { return };
        // With a client of a lazy pool go its unsynced writes, which nobody can tell from lost ones.
        if self.chaos.rng.chance(1, 15) && !self.config.is_lazy() {
            let clients: Vec<NodeId> = self.clients.iter().map(|client| client.node).collect();
            node = self.chaos.pick(&clients).unwrap_or(node);
        }
        let after = if self.chaos.rng.chance(1, 2) { self.chaos.millis(1, 100) } else { self.chaos.millis(100, 5000) };
        self.kill(node);
        self.start_later(node, after);
    }

    fn start_later(&mut self, node: NodeId, after: Duration) {
        self.world.start_after(node, after);
        if let Some(index) = self.clients.iter().position(|client| client.node == node) {
            let at = self.world.now() + after;
            self.world.call_at(at, super::CALL_LOAD + index as u64);
        }
    }

    fn cut_power_of_a_host(&mut self) {
        let Some(node) = self.draw_daemon() else { return };
        let host = self.world.host_of(node);
        let outcome = Outcome::draw(&mut self.chaos.rng);
        let after = self.chaos.millis(20, 5000);
        self.power_off(host, outcome);
        self.power_on_later(host, after);
    }

    fn power_on_later(&mut self, host: ashlar_faultinject::link::HostId, after: Duration) {
        self.world.power_on_after(host, after);
        for node in self.world.node_ids().collect::<Vec<_>>() {
            if self.world.host_of(node) == host {
                let boot = self.chaos.millis(1, 300);
                self.start_later(node, Duration(after.0 + boot.0));
            }
        }
    }

    fn cut_power_of_everything(&mut self) {
        let outcome = Outcome::draw(&mut self.chaos.rng);
        self.power_off_everything(outcome);
        let nodes: Vec<NodeId> = self.osds.iter().chain(&self.mons).copied().collect();
        for node in nodes {
            let host = self.world.host_of(node);
            let after = self.chaos.millis(20, 2000);
            self.power_on_later(host, after);
        }
    }

    fn pause_something(&mut self) {
        let Some(node) = self.draw_daemon() else { return };
        let length =
            if self.chaos.rng.chance(2, 3) { self.chaos.millis(10, 1000) } else { self.chaos.millis(1000, 8000) };
        self.world.pause(node, length);
    }

    /// Splits all hosts (clients' and the metadata store too, sometimes) into two sides.
    fn split_the_network(&mut self) {
        let mut sides = [Vec::new(), Vec::new()];
        let nodes: Vec<NodeId> = self.world.node_ids().collect();
        for node in nodes {
            let side = usize::from(self.chaos.rng.chance(1, 3));
            sides[side].push(self.world.host_of(node));
        }
        let with_meta = self.chaos.rng.chance(1, 2).then(|| usize::from(self.chaos.rng.chance(1, 2)));
        if let Some(side) = with_meta {
            sides[side].push(META_HOST);
        }
        let [one, other] = sides;
        self.world.change_fabric(|fabric| fabric.partition(&one, &other));
        self.end_faults_later();
    }

    fn cut_one_direction(&mut self) {
        let nodes: Vec<NodeId> = self.world.node_ids().collect();
        let (Some(from), Some(to)) = (self.chaos.pick(&nodes), self.chaos.pick(&nodes)) else { return };
        self.cut_one_way(from, to);
        self.end_faults_later();
    }

    fn cut_a_host_from_meta(&mut self) {
        if let Some(node) = self.draw_daemon() {
            self.cut_from_meta(node);
            self.end_faults_later();
        }
    }

    fn make_meta_unreliable(&mut self) {
        let unknown_ppm = self.chaos.rng.between(50_000, 600_000);
        self.world.set_meta_faults(MetaFaults { unknown_ppm, watch_lost_ppm: 20_000 });
        self.end_faults_later();
    }

    /// Cuts and unreliability end together, after a while.
    fn end_faults_later(&mut self) {
        let length =
            if self.chaos.rng.chance(1, 2) { self.chaos.millis(50, 800) } else { self.chaos.millis(800, 8000) };
        self.world.call_at(self.world.now() + length, CALL_FAULTS_OFF);
    }

    pub(super) fn end_short_faults(&mut self) {
        self.world.set_meta_faults(MetaFaults::default());
        self.end_disk_faults();
        self.heal();
    }

    fn reset_something(&mut self) {
        let connections = self.world.connections();
        let Some(conn) = self.chaos.pick(&connections) else { return };
        if self.chaos.rng.chance(1, 6) {
            let end = usize::from(self.chaos.rng.chance(1, 2));
            self.world.black_hole(conn, end);
        } else {
            self.world.reset(conn);
        }
    }

    fn replace_a_disk(&mut self) {
        let all_run = self.osds.iter().all(|node| self.world.is_running(*node));
        if !all_run || !self.all_whole() {
            return; // Beyond the budget.
        }
        // Together with damage on the first OSD's disk, only that one is replaced.
        let damage = self.config.has_damage();
        let Some(node) = (if damage { self.osds.first().copied() } else { self.draw_osd() }) else { return };
        self.kill(node);
        self.wipe(node);
        let after = self.chaos.millis(1, 3000);
        self.start_later(node, after);
    }

    fn draw_osd(&mut self) -> Option<NodeId> {
        let osds = self.osds.clone();
        self.chaos.pick(&osds)
    }

    fn stall_a_disk(&mut self) {
        let Some(node) = self.draw_osd() else { return };
        let length =
            if self.chaos.rng.chance(2, 3) { self.chaos.millis(10, 1000) } else { self.chaos.millis(1000, 10_000) };
        let until = self.world.now() + length;
        if let Some(disk) = self.world.disk_mut(node, Device::Data) {
            disk.stall(until);
        }
    }

    /// Damage hits one OSD only in a run, and only where two other members may be lost.
    fn spoil_a_page(&mut self, rots: bool) {
        if !self.config.has_damage() {
            return;
        }
        let node = self.osds[0];
        let pages = self.world.disk_mut(node, Device::Data).map(|disk| disk.written_pages()).unwrap_or_default();
        let Some(page) = self.chaos.pick(&pages) else { return };
        if rots {
            self.world.rot(node, page);
        } else if let Some(disk) = self.world.disk_mut(node, Device::Data) {
            disk.make_unreadable(page);
        }
    }

    fn make_a_disk_fail(&mut self) {
        let Some(node) = self.draw_osd() else { return };
        let (write_error_ppm, flush_error_ppm) = (self.chaos.rng.below(50_000), self.chaos.rng.below(50_000));
        if let Some(disk) = self.world.disk_mut(node, Device::Data) {
            disk.set_faults(DiskFaults { write_error_ppm, flush_error_ppm, ..DiskFaults::default() });
        }
        self.end_faults_later();
    }

    /// Disks answer without errors from now on; damaged pages stay damaged.
    pub(super) fn end_disk_faults(&mut self) {
        for node in self.osds.clone() {
            if let Some(disk) = self.world.disk_mut(node, Device::Data) {
                disk.set_faults(DiskFaults::default());
            }
        }
    }

    fn change_a_weight(&mut self) {
        let osd = OsdId(u32::try_from(self.chaos.rng.between(1, u64::from(self.config.osds))).expect("few"));
        let reweight = [0.0, 0.3, 1.0, 1.0][usize::try_from(self.chaos.rng.below(4)).expect("below 4")];
        self.reweight(osd, reweight);
    }
}
