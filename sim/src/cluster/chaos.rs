//! Faults while the load runs: drawn from the mix of the configuration, on targets drawn here.
//!
//! Owns when which fault happens, and those of processes, power, the network and the metadata store. Does not own what may be
//! lost (`atlas.rs`), faults of disks (`disks.rs`), and what administrators do (`admin.rs`).

use super::{CALL_FAULT, CALL_FAULTS_OFF, CALL_KILL, Cluster};
use crate::plan::Fault;
use crate::world::{META_HOST, MetaFaults, NodeId};
use ashlar_core::io::Device;
use ashlar_core::rng::Rng;
use ashlar_core::store::{ObjectStore, StoreState};
use ashlar_core::time::Duration;
use ashlar_faultinject::disk::{Outcome, SimDisk};
use ashlar_faultinject::link::HostId;
use ashlar_faultinject::mix::FaultKind;
use std::collections::BTreeSet;

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

    pub(super) fn millis(&mut self, low: u64, high: u64) -> Duration {
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
        if self.let_happen(kind) {
            *self.marks.entry(kind.mark()).or_default() += 1;
        }
        if in_script {
            self.decisions.enter_script();
        }
    }

    /// Whether it happened: there may be nothing that it could happen to, or too much may have been lost already.
    fn let_happen(&mut self, kind: FaultKind) -> bool {
        match kind {
            FaultKind::Crash => self.crash_something(),
            FaultKind::CrashInStart => self.crash_in_start(),
            FaultKind::HostPower => self.cut_power_of_a_host(),
            FaultKind::TotalPower => self.cut_power_of_everything(),
            FaultKind::Pause => self.pause_something(),
            FaultKind::SlowNode => self.slow_something(),
            FaultKind::Partition => self.split_the_network(),
            FaultKind::OneWay => self.cut_one_direction(),
            FaultKind::Reset => self.reset_something(),
            FaultKind::HalfOpen => self.half_open_something(),
            FaultKind::DamagedLinks => self.damage_links(),
            FaultKind::MetaCut => self.cut_a_host_from_meta(),
            FaultKind::MetaOutage => self.stop_meta(),
            FaultKind::MetaUnknown => self.make_meta_unreliable(),
            FaultKind::MetaCompaction => self.world.compact_meta(),
            FaultKind::LeaseExpiry => self.world.expire_a_lease(),
            FaultKind::WatchLost => self.world.lose_a_watch(),
            FaultKind::WatchRepeats => self.repeat_watches(),
            FaultKind::Wipe => self.replace_a_disk(),
            FaultKind::DeadDisk => self.let_a_disk_die(),
            FaultKind::OldDisk => self.put_back_an_old_disk(),
            FaultKind::SwappedDisks => self.swap_disks(),
            FaultKind::DiskStall => self.stall_a_disk(),
            FaultKind::SlowDisk => self.slow_a_disk(),
            FaultKind::DiskError => self.make_a_disk_fail(),
            FaultKind::ReadError => self.fail_reads(),
            FaultKind::Astray => self.let_writes_go_astray(),
            FaultKind::LyingFlush => self.let_flushes_lie(),
            FaultKind::LatentError | FaultKind::BitRot => self.spoil_a_page(kind),
            FaultKind::Reweight => self.change_a_weight(),
            FaultKind::PgCount => self.change_pg_count(),
            FaultKind::PoolChange => self.change_the_pool(),
            FaultKind::Membership => self.change_membership(),
            FaultKind::Fence => self.fence_a_client(),
            FaultKind::Upgrade => self.upgrade_something(),
        }
    }

    /// A number below a bound, drawn for a fault.
    pub(super) fn chaos_below(&mut self, bound: u64) -> u64 {
        self.chaos.rng.below(bound)
    }

    /// One of these, drawn for a fault.
    pub(super) fn chaos_pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        self.chaos.pick(from)
    }

    fn draw_daemon(&mut self) -> Option<NodeId> {
        let nodes: Vec<NodeId> = self.osds.iter().chain(&self.osds).chain(&self.mons).copied().collect();
        self.chaos.pick(&nodes)
    }

    /// Half of the time one whose disk has not written everything yet, where power is missed most.
    fn draw_victim(&mut self) -> Option<NodeId> {
        if self.chaos.rng.chance(1, 2) {
            let osds = self.osds.clone().into_iter();
            let pending = |disk: &mut SimDisk| disk.pending() > 0;
            let busy: Vec<NodeId> =
                osds.filter(|node| self.world.disk_mut(*node, Device::Data).is_some_and(pending)).collect();
            if let Some(node) = self.chaos.pick(&busy) {
                return Some(node);
            }
        }
        self.draw_daemon()
    }

    fn crash_something(&mut self) -> bool {
        let Some(mut node) = self.draw_daemon() else { return false };
        // With a client of a lazy pool go its unsynced writes, which nobody can tell from lost ones.
        if self.chaos.rng.chance(1, 15) && !self.config.is_lazy() {
            let clients: Vec<NodeId> = self.clients.iter().map(|client| client.node).collect();
            node = self.chaos.pick(&clients).unwrap_or(node);
        }
        let after = if self.chaos.rng.chance(1, 2) { self.chaos.millis(1, 100) } else { self.chaos.millis(100, 5000) };
        self.kill(node);
        self.start_later(node, after);
        true
    }

    /// An OSD dies and dies again while it starts.
    fn crash_in_start(&mut self) -> bool {
        let Some(node) = self.draw_osd() else { return false };
        self.kill(node);
        self.start_and_kill(node);
        true
    }

    fn start_and_kill(&mut self, node: NodeId) {
        let (after, later) = (self.chaos.millis(1, 20), Duration::micros(self.chaos.rng.between(10, 40_000)));
        self.start_later(node, after);
        self.world.call_at(self.world.now() + after + later, CALL_KILL + u64::from(node.0));
    }

    /// What was started a moment ago dies.
    pub(super) fn kill_again(&mut self, node: NodeId) {
        if !self.chaos.on {
            return;
        }
        let starting = self.world.node(node).and_then(|process| process.osd());
        if starting.is_some_and(|osd| osd.groups().store().state() == StoreState::Opening) {
            self.mark("sim: an OSD ends while it opens its store");
        }
        self.kill(node);
        if self.chaos.rng.chance(1, 2) {
            return self.start_and_kill(node);
        }
        let after = self.chaos.millis(1, 1000);
        self.start_later(node, after);
    }

    pub(super) fn start_later(&mut self, node: NodeId, after: Duration) {
        // An OSD that was forgotten is started by whoever adds it again.
        if self.absent.contains(&node) {
            return;
        }
        self.world.start_after(node, after);
        if let Some(index) = self.clients.iter().position(|client| client.node == node) {
            let at = self.world.now() + after;
            self.world.call_at(at, super::CALL_LOAD + index as u64);
        }
    }

    /// A host, or now and then its whole rack.
    fn cut_power_of_a_host(&mut self) -> bool {
        let Some(node) = self.draw_victim() else { return false };
        let rack = self.config.racks && self.chaos.rng.chance(1, 3);
        let hosts = if rack { self.rack_of(node) } else { vec![self.world.host_of(node)] };
        for host in hosts {
            let outcome = Outcome::draw(&mut self.chaos.rng);
            let after = self.chaos.millis(20, 5000);
            self.power_off(host, outcome);
            self.power_on_later(host, after);
        }
        true
    }

    /// The hosts of a node's rack; of a monitor, its own.
    fn rack_of(&self, node: NodeId) -> Vec<HostId> {
        let rack = |osd: NodeId| Some(self.osds.iter().position(|other| *other == osd)? / self.config.osds_per_rack());
        let Some(wanted) = rack(node) else { return vec![self.world.host_of(node)] };
        let hosts = self.osds.iter().filter(|osd| rack(**osd) == Some(wanted)).map(|osd| self.world.host_of(*osd));
        hosts.collect::<BTreeSet<HostId>>().into_iter().collect()
    }

    fn power_on_later(&mut self, host: HostId, after: Duration) {
        self.world.power_on_after(host, after);
        for node in self.world.node_ids().collect::<Vec<_>>() {
            if self.world.host_of(node) == host {
                let boot = self.chaos.millis(1, 300);
                self.start_later(node, Duration(after.0 + boot.0));
            }
        }
    }

    fn cut_power_of_everything(&mut self) -> bool {
        let outcome = Outcome::draw(&mut self.chaos.rng);
        self.power_off_everything(outcome);
        let nodes: Vec<NodeId> = self.osds.iter().chain(&self.mons).copied().collect();
        for node in nodes {
            let host = self.world.host_of(node);
            let after = self.chaos.millis(20, 2000);
            self.power_on_later(host, after);
        }
        true
    }

    fn pause_something(&mut self) -> bool {
        let Some(node) = self.draw_daemon() else { return false };
        let length =
            if self.chaos.rng.chance(2, 3) { self.chaos.millis(10, 1000) } else { self.chaos.millis(1000, 8000) };
        self.world.pause(node, length);
        true
    }

    /// A process is slow to take what it is sent.
    fn slow_something(&mut self) -> bool {
        let nodes: Vec<NodeId> = self.world.node_ids().collect();
        let Some(node) = self.chaos.pick(&nodes) else { return false };
        let by = self.chaos.millis(1, 120);
        self.world.slow_down(node, by);
        self.end_faults_later();
        true
    }

    /// Splits all hosts (clients' and the metadata store too, sometimes) into two sides.
    fn split_the_network(&mut self) -> bool {
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
        true
    }

    fn cut_one_direction(&mut self) -> bool {
        let nodes: Vec<NodeId> = self.world.node_ids().collect();
        let (Some(from), Some(to)) = (self.chaos.pick(&nodes), self.chaos.pick(&nodes)) else { return false };
        self.cut_one_way(from, to);
        self.end_faults_later();
        true
    }

    /// Of some messages a bit flips on the way, where no checksum of the network notices.
    fn damage_links(&mut self) -> bool {
        let ppm = self.chaos.rng.between(200, 4_000);
        self.world.set_damage_of_links(ppm);
        self.end_faults_later();
        true
    }

    fn cut_a_host_from_meta(&mut self) -> bool {
        let Some(node) = self.draw_daemon() else { return false };
        self.cut_from_meta(node);
        self.end_faults_later();
        true
    }

    fn stop_meta(&mut self) -> bool {
        let long = self.chaos.rng.chance(1, 8);
        let length = if long { self.chaos.millis(6_000, 120_000) } else { self.chaos.millis(100, 6000) };
        self.world.meta_outage(length);
        true
    }

    fn repeat_watches(&mut self) -> bool {
        let watch_repeat_ppm = self.chaos.rng.between(50_000, 800_000);
        self.world.set_meta_faults(MetaFaults { watch_repeat_ppm, ..MetaFaults::default() });
        self.end_faults_later();
        true
    }

    fn make_meta_unreliable(&mut self) -> bool {
        let unknown_ppm = self.chaos.rng.between(50_000, 600_000);
        self.world.set_meta_faults(MetaFaults { unknown_ppm, watch_lost_ppm: 20_000, ..MetaFaults::default() });
        self.end_faults_later();
        true
    }

    /// Cuts and unreliability end together, after a while.
    pub(super) fn end_faults_later(&mut self) {
        let length =
            if self.chaos.rng.chance(1, 2) { self.chaos.millis(50, 800) } else { self.chaos.millis(800, 8000) };
        self.world.call_at(self.world.now() + length, CALL_FAULTS_OFF);
    }

    pub(super) fn end_short_faults(&mut self) {
        self.world.set_meta_faults(MetaFaults::default());
        self.end_disk_faults();
        self.world.set_damage_of_links(0);
        for node in self.world.node_ids().collect::<Vec<_>>() {
            self.world.slow_down(node, Duration::ZERO);
        }
        self.heal();
    }

    fn reset_something(&mut self) -> bool {
        let connections = self.world.connections();
        let Some(conn) = self.chaos.pick(&connections) else { return false };
        self.world.reset(conn);
        true
    }

    /// A connection swallows what one end sends, though its path is open.
    fn half_open_something(&mut self) -> bool {
        let connections = self.world.connections();
        let Some(conn) = self.chaos.pick(&connections) else { return false };
        let end = usize::from(self.chaos.rng.chance(1, 2));
        self.world.black_hole(conn, end);
        true
    }

    /// An OSD that takes part: not one that was forgotten, or is not there yet.
    pub(super) fn draw_osd(&mut self) -> Option<NodeId> {
        let osds = self.osds.iter().copied().filter(|node| !self.absent.contains(node));
        let osds: Vec<NodeId> = osds.collect();
        self.chaos.pick(&osds)
    }
}
