//! Processes and hosts: start, crash, pause, power.

use super::luck::Drawer;
use super::{Halt, Happening, Machine, NodeId, World};
use ashlar_core::id::Incarnation;
use ashlar_core::io::Env;
use ashlar_core::time::Duration;
use ashlar_faultinject::disk::Outcome;
use ashlar_faultinject::link::HostId;

impl<M: Machine> World<M> {
    /// Starts a process, unless it runs or its host is off.
    pub fn start(&mut self, node: NodeId) {
        self.drawn_by(Drawer::Disk(node));
        self.drawn_by(Drawer::Node(node));
        let incarnation = Incarnation(self.rng.next_u64() | 1);
        let slot = &mut self.nodes[node.index()];
        if slot.machine.is_some() || !self.hosts[slot.host.0 as usize].powered {
            return;
        }
        slot.boot += 1;
        slot.tick_at = None;
        slot.paused = false;
        slot.round_open = false;
        slot.backlog.clear();
        let now = slot.clock.local(self.now);
        let mut env = Env { now, rng: &mut slot.rng, bufs: &mut self.bufs, out: &mut self.effects };
        slot.machine = Some(M::start(&mut slot.spec, incarnation, &mut env));
        self.trace.mix(&[8, self.now.0, u64::from(node.0)]);
        self.note(|| format!("node {} starts", node.0));
        self.execute(node);
        let boot = self.nodes[node.index()].boot;
        self.nodes[node.index()].tick_at = Some(self.now);
        self.schedule(self.now, Happening::Tick { node, boot });
    }

    /// Whether a process was ever started.
    pub fn was_started(&self, node: NodeId) -> bool {
        self.nodes[node.index()].boot > 0
    }

    /// Whether starts of a process that are due, whoever wanted them, do not happen (until this is said to be over).
    pub fn retire(&mut self, node: NodeId, retired: bool) {
        self.nodes[node.index()].retired = retired;
    }

    /// Starts a process after a while.
    pub fn start_after(&mut self, node: NodeId, after: Duration) {
        self.schedule(self.now + after, Happening::Start { node });
    }

    /// Kills a process. Its disks keep what had completed.
    pub fn kill(&mut self, node: NodeId) {
        self.end(node, Halt::Process);
        self.drawn_by(Drawer::Disk(node));
        for disk in self.nodes[node.index()].disks.iter_mut().flatten() {
            disk.process_died(&mut self.rng, &mut self.bufs);
        }
    }

    fn end(&mut self, node: NodeId, how: Halt) {
        self.drawn_by(Drawer::Disk(node));
        let slot = &mut self.nodes[node.index()];
        let Some(machine) = slot.machine.take() else { return };
        machine.halt(&mut slot.spec, how, &mut self.rng);
        let boot = slot.boot;
        slot.paused = false;
        // What waited for the process goes on without it: packets are answered by the kernel.
        let backlog = std::mem::take(&mut slot.backlog);
        for what in backlog {
            self.schedule(self.now, what);
        }
        self.trace.mix(&[9, self.now.0, u64::from(node.0), how as u64]);
        self.note(|| format!("node {} ends: {how:?}", node.0));
        self.drop_connections(node, boot, how == Halt::Process);
        self.meta_process_ended(node);
    }

    /// Cuts a host's power: its processes end, its disks keep what they can.
    pub fn power_off(&mut self, host: HostId, outcome: Outcome) {
        if !std::mem::replace(&mut self.hosts[host.0 as usize].powered, false) {
            return;
        }
        for node in self.node_ids() {
            if self.nodes[node.index()].host == host {
                self.end(node, Halt::Power);
                self.drawn_by(Drawer::Disk(node));
                for disk in self.nodes[node.index()].disks.iter_mut().flatten() {
                    disk.power_loss(outcome, &mut self.rng, &mut self.bufs);
                }
            }
        }
    }

    /// The host has power again: its kernel answers, its processes are started by whoever wants them.
    pub fn power_on(&mut self, host: HostId) {
        self.hosts[host.0 as usize].powered = true;
        self.note(|| format!("host {} has power", host.0));
        self.resume_pipes();
    }

    /// Whether a host has power.
    pub fn powered(&self, host: HostId) -> bool {
        self.hosts[host.0 as usize].powered
    }

    /// The host gets power back after a while.
    pub fn power_on_after(&mut self, host: HostId, after: Duration) {
        self.schedule(self.now + after, Happening::PowerOn { host });
    }

    /// Stops a process for a while; what is meant for it waits.
    pub fn pause(&mut self, node: NodeId, length: Duration) {
        let slot = &mut self.nodes[node.index()];
        if slot.machine.is_none() || slot.paused {
            return;
        }
        slot.paused = true;
        slot.pauses += 1;
        let pause = slot.pauses;
        self.trace.mix(&[10, self.now.0, u64::from(node.0)]);
        self.note(|| format!("node {} is stopped for {} ms", node.0, length.as_millis()));
        self.schedule(self.now + length, Happening::Resume { node, pause });
    }

    /// A stopped process goes on: everything that waited is there at once.
    pub fn resume(&mut self, node: NodeId) {
        let slot = &mut self.nodes[node.index()];
        if !std::mem::replace(&mut slot.paused, false) {
            return;
        }
        let backlog = std::mem::take(&mut slot.backlog);
        self.note(|| format!("node {} goes on", node.0));
        for what in backlog {
            self.schedule(self.now, what);
        }
    }

    /// Whether a process is stopped.
    pub fn is_paused(&self, node: NodeId) -> bool {
        self.nodes[node.index()].paused
    }

    /// Whether a process runs (stopped ones do).
    pub fn is_running(&self, node: NodeId) -> bool {
        self.nodes[node.index()].machine.is_some()
    }
}
