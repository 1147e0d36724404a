//! Faults of disks, and operators who take the wrong one.
//!
//! Owns which disk they hit and what becomes of it. Whether they may happen, the atlas says.

use super::{CALL_REPLACE_DEAD, Cluster};
use crate::world::NodeId;
use ashlar_core::io::Device;
use ashlar_core::time::Duration;
use ashlar_faultinject::disk::{DiskFaults, SimDisk};
use ashlar_faultinject::mix::FaultKind;

/// The disks of an OSD: data, and its log's if it has one of its own.
pub(super) type Disks = [Option<SimDisk>; 2];

const DEVICES: [Device; 2] = [Device::Data, Device::Log];

impl Cluster {
    pub(super) fn replace_a_disk(&mut self) -> bool {
        let Some(node) = self.draw_osd() else { return false };
        if !self.allows_replacement(FaultKind::Wipe, node) {
            return false;
        }
        self.kill(node);
        self.wipe(node);
        let after = self.draw_millis(1, 3000);
        self.start_later(node, after);
        true
    }

    /// Every request fails from now on, until somebody puts in another disk.
    pub(super) fn let_a_disk_die(&mut self) -> bool {
        let Some(node) = self.draw_osd() else { return false };
        if !self.allows_replacement(FaultKind::DeadDisk, node) {
            return false;
        }
        self.each_disk(node, SimDisk::kill);
        self.world.note(|| format!("the disk of node {} is dead", node.0));
        let after = self.draw_millis(200, 4000);
        self.world.call_at(self.world.now() + after, CALL_REPLACE_DEAD);
        true
    }

    fn is_dead(&mut self, node: NodeId) -> bool {
        self.world.disk_mut(node, Device::Data).is_some_and(|disk| disk.is_dead())
    }

    pub(super) fn has_dead_disks(&mut self) -> bool {
        self.osds.clone().into_iter().any(|node| self.is_dead(node))
    }

    /// Operators put new disks where old ones are dead.
    pub(super) fn replace_dead_disks(&mut self) {
        for node in self.osds.clone() {
            if self.is_dead(node) {
                self.kill(node);
                self.wipe(node);
                self.start(node);
            }
        }
    }

    /// An operator keeps a copy of a disk, or puts one back that is old.
    pub(super) fn put_back_an_old_disk(&mut self) -> bool {
        let Some(drawn) = self.draw_osd() else { return false };
        let after = self.draw_millis(1, 2000);
        if self.swapped.is_some() {
            return false;
        }
        let node = self.snapshots.keys().next().copied().unwrap_or(drawn);
        let Some(old) = self.snapshots.remove(&node) else {
            // What is damaged now would come back with it, when the others have long been counted upon again.
            if self.atlas.has_lost(node) {
                return false;
            }
            self.kill(node);
            let disks = DEVICES.map(|device| self.world.disk_mut(node, device).map(|disk| disk.clone()));
            self.snapshots.insert(node, disks);
            self.start_later(node, after);
            return false;
        };
        if !self.allows_replacement(FaultKind::OldDisk, node) {
            self.snapshots.insert(node, old);
            return false;
        }
        self.silent_losses |= self.config.over_budget;
        self.forgot_deletions = true;
        self.kill(node);
        self.put_disks(node, old);
        self.start_later(node, after);
        true
    }

    fn put_disks(&mut self, node: NodeId, disks: Disks) -> Disks {
        self.world.note(|| format!("another disk is put into node {}", node.0));
        let [data, log] = disks;
        [(Device::Data, data), (Device::Log, log)].map(|(device, disk)| {
            let place = self.world.disk_mut(node, device)?;
            Some(std::mem::replace(place, disk.expect("as many disks as places")))
        })
    }

    /// Two OSDs get each other's disks, or their own again.
    pub(super) fn swap_disks(&mut self) -> bool {
        let pair = match self.swapped.take() {
            Some(pair) => pair,
            None => {
                let (Some(one), Some(other)) = (self.draw_osd(), self.draw_osd()) else { return false };
                let away = self.is_dead(one) || self.is_dead(other);
                // Only whose logs are on the same kind of device are taken for each other.
                if one == other || away || self.config.is_lazy() {
                    return false;
                }
                self.swapped = Some((one, other));
                (one, other)
            }
        };
        self.exchange(pair);
        for node in [pair.0, pair.1] {
            let after = self.draw_millis(1, 300);
            self.start_later(node, after);
        }
        true
    }

    fn exchange(&mut self, (one, other): (NodeId, NodeId)) {
        self.kill(one);
        self.kill(other);
        let disks = DEVICES.map(|device| self.world.disk_mut(one, device).map(|disk| disk.clone()));
        let disks = self.put_disks(other, disks);
        self.put_disks(one, disks);
    }

    /// Every disk is in its place again.
    pub(super) fn put_disks_right(&mut self) {
        if let Some(pair) = self.swapped.take() {
            self.exchange(pair);
        }
        self.replace_dead_disks();
    }

    pub(super) fn stall_a_disk(&mut self) -> bool {
        let Some(node) = self.draw_osd() else { return false };
        let length = match self.chaos_below(20) {
            0 => self.draw_millis(10_000, 60_000),
            1..8 => self.draw_millis(1000, 10_000),
            _ => self.draw_millis(10, 1000),
        };
        let until = self.world.now() + length;
        self.each_disk(node, |disk| disk.stall(until));
        true
    }

    pub(super) fn slow_a_disk(&mut self) -> bool {
        let Some(node) = self.draw_osd() else { return false };
        let times = 5 + self.chaos_below(50);
        self.each_disk(node, |disk| disk.slow_down(times));
        self.end_faults_later();
        true
    }

    /// A page rots, or cannot be read any more.
    pub(super) fn spoil_a_page(&mut self, kind: FaultKind) -> bool {
        let Some(node) = self.draw_osd() else { return false };
        let pages = self.world.disk_mut(node, Device::Data).map(|disk| disk.written_pages()).unwrap_or_default();
        let Some(page) = self.chaos_pick(&pages) else { return false };
        let object = self.object_of_page(node, page);
        if !self.allows_damage(kind, node, object) {
            return false;
        }
        if kind == FaultKind::BitRot {
            self.world.rot(node, page);
        } else if let Some(disk) = self.world.disk_mut(node, Device::Data) {
            disk.make_unreadable(page);
        }
        true
    }

    pub(super) fn make_a_disk_fail(&mut self) -> bool {
        let Some(node) = self.draw_osd() else { return false };
        let (write_error_ppm, flush_error_ppm) = (self.chaos_below(50_000), self.chaos_below(50_000));
        self.misbehave(node, DiskFaults { write_error_ppm, flush_error_ppm, ..DiskFaults::default() })
    }

    pub(super) fn fail_reads(&mut self) -> bool {
        let Some(node) = self.draw_osd() else { return false };
        let read_error_ppm = self.chaos_below(30_000);
        self.allows_damage(FaultKind::ReadError, node, None)
            && self.misbehave(node, DiskFaults { read_error_ppm, ..DiskFaults::default() })
    }

    /// Writes to data blocks are lost, or go to other data blocks. (Where the log is written, that is a damaged store.)
    pub(super) fn let_writes_go_astray(&mut self) -> bool {
        let Some(node) = self.draw_osd() else { return false };
        let (lost_write_ppm, misdirected_write_ppm) = (self.chaos_below(50_000), self.chaos_below(50_000));
        let Some(first) = self.first_data_page(node) else { return false };
        let from_byte = first * 4096;
        self.allows_damage(FaultKind::Astray, node, None)
            && self.misbehave(
                node,
                DiskFaults { lost_write_ppm, misdirected_write_ppm, from_byte, ..DiskFaults::default() },
            )
    }

    /// Flushes answer well and do nothing: no pool promises anything then, and nobody can tell.
    pub(super) fn let_flushes_lie(&mut self) -> bool {
        let Some(node) = self.draw_osd() else { return false };
        if !self.allows_damage(FaultKind::LyingFlush, node, None) {
            return false;
        }
        self.silent_losses = true;
        self.misbehave(node, DiskFaults { lying_flush_ppm: 700_000, ..DiskFaults::default() })
    }

    fn misbehave(&mut self, node: NodeId, faults: DiskFaults) -> bool {
        if let Some(disk) = self.world.disk_mut(node, Device::Data) {
            disk.set_faults(faults);
        }
        self.end_faults_later();
        true
    }

    fn each_disk(&mut self, node: NodeId, mut change: impl FnMut(&mut SimDisk)) {
        for device in DEVICES {
            self.world.disk_mut(node, device).into_iter().for_each(&mut change);
        }
    }

    /// Disks answer without errors and as fast as ever from now on; damaged pages stay damaged.
    pub(super) fn end_disk_faults(&mut self) {
        for node in self.osds.clone() {
            self.each_disk(node, |disk| {
                disk.set_faults(DiskFaults::default());
                disk.slow_down(1);
            });
        }
    }

    /// A length of time, drawn for a fault.
    pub(super) fn draw_millis(&mut self, low: u64, high: u64) -> Duration {
        self.chaos.millis(low, high)
    }
}
