//! What scenarios are written with: plain calls that act on the cluster and let time pass.

use super::load::Ask;
use super::{Cluster, IMAGE, POOL, Process, Spec, StoreSpec};
use crate::check::history::Finding;
use crate::world::{NodeId, World};
use ashlar_core::id::{ClientId, InodeId, OsdId, PgId, PgNumber};
use ashlar_core::io::Device;
use ashlar_core::map::access::{Access, Fence, waits_for};
use ashlar_core::map::{ClusterMap, History, OsdConfig, PGS_PER_CHUNK, PREFIX, PgMap, PgMapChunk, keys};
use ashlar_core::meta::{Keys, Request, Response};
use ashlar_core::pg::Summary;
use ashlar_core::time::Duration;
use ashlar_faultinject::disk::Outcome;
use ashlar_faultinject::link::HostId;

/// How long a scripted operation may take before the script calls it stuck.
const PATIENCE: Duration = Duration::secs(60);

/// A broken promise that is not about one block.
pub fn broken(what: impl Into<String>) -> Finding {
    Finding { what: what.into(), block: None, ops: Vec::new() }
}

impl Cluster {
    /// Waits until every client has opened the image and every group is active and clean.
    pub fn settle_down(&mut self) -> Result<(), Finding> {
        for index in 0..self.clients.len() {
            self.open_images(index);
        }
        let ready = self.run_until(PATIENCE, |cluster| {
            let opened = (0..cluster.clients.len()).all(|client| cluster.is_ready(client));
            opened && cluster.all_clean()
        })?;
        if ready { Ok(()) } else { Err(broken(format!("the cluster does not come up: {}", self.describe_stuck()))) }
    }

    /// Whether a client has opened all images.
    pub fn is_ready(&self, client: usize) -> bool {
        self.live_images().all(|image| self.clients[client].images.contains_key(&image))
    }

    /// Starts a write of whole blocks; returns its number.
    pub fn start_write(&mut self, client: usize, first: u32, blocks: u32) -> u32 {
        self.submit_scripted(client, IMAGE, first, blocks, Ask::Write)
    }

    /// Starts a read.
    pub fn start_read(&mut self, client: usize, first: u32, blocks: u32) -> u32 {
        self.submit_scripted(client, IMAGE, first, blocks, Ask::Read)
    }

    /// Starts a discard.
    pub fn start_discard(&mut self, client: usize, first: u32, blocks: u32) -> u32 {
        self.submit_scripted(client, IMAGE, first, blocks, Ask::Discard)
    }

    /// Starts an operation on another image.
    pub fn start_on(&mut self, client: usize, image: u32, first: u32, blocks: u32, ask: Ask) -> u32 {
        self.submit_scripted(client, image, first, blocks, ask)
    }

    /// Whether an operation has succeeded.
    pub fn is_done(&self, op: u32) -> bool {
        self.history.records()[op as usize].end.is_some() || self.is_left_out(op)
    }

    /// Whether an operation has failed for good.
    pub fn has_failed(&self, op: u32) -> bool {
        self.history.records()[op as usize].failed
    }

    /// Waits for an operation; false if it takes longer.
    pub fn wait_for(&mut self, op: u32, limit: Duration) -> Result<bool, Finding> {
        self.run_until(limit, |cluster| cluster.is_done(op))
    }

    /// Waits for an operation, as long as it takes within reason.
    pub fn wait(&mut self, op: u32) -> Result<(), Finding> {
        if self.wait_for(op, PATIENCE)? {
            return Ok(());
        }
        // What was seen so far may say more than that something is stuck.
        self.check_history()?;
        let mut finding = broken(format!("operation {op} is stuck: {}", self.describe_stuck()));
        finding.ops = vec![op];
        Err(finding)
    }

    /// Writes and waits for the acknowledgement.
    pub fn write(&mut self, client: usize, first: u32, blocks: u32) -> Result<u32, Finding> {
        let op = self.start_write(client, first, blocks);
        self.wait(op).map(|()| op)
    }

    /// Flushes and waits: what the client was told is durable.
    pub fn flush(&mut self, client: usize) -> Result<u32, Finding> {
        let op = self.start_flush(client)?;
        self.wait(op).map(|()| op)
    }

    /// Reads and waits for the answer.
    pub fn read(&mut self, client: usize, first: u32, blocks: u32) -> Result<u32, Finding> {
        let op = self.start_read(client, first, blocks);
        self.wait(op).map(|()| op)
    }

    /// Discards and waits for the acknowledgement.
    pub fn discard(&mut self, client: usize, first: u32, blocks: u32) -> Result<u32, Finding> {
        let op = self.start_discard(client, first, blocks);
        self.wait(op).map(|()| op)
    }

    /// The place of an OSD, by its number (from 1).
    pub fn osd(&self, osd: OsdId) -> NodeId {
        self.osds[osd.0 as usize - 1]
    }

    /// The OSD at a place.
    pub fn osd_id(&self, node: NodeId) -> Option<OsdId> {
        let place = self.osds.iter().position(|osd| *osd == node)?;
        Some(OsdId(u32::try_from(place).expect("few") + 1))
    }

    /// The client's place.
    pub fn client_node(&self, client: usize) -> NodeId {
        self.clients[client].node
    }

    /// The group at a place.
    pub fn pg(&self, place: u32) -> PgId {
        PgId { pool: POOL, number: PgNumber::new(self.layout().generation, place) }
    }

    /// The group of a block.
    pub fn pg_of_block(&self, block: u32) -> PgId {
        let stripe = u64::from(block / self.config.object_blocks);
        let inode = ashlar_core::id::InodeId(1);
        self.pg_of(ashlar_core::id::ObjectId { pool: POOL, inode, stripe })
    }

    /// The object of a block, and its group, as events name them.
    pub fn object_of_block(&self, block: u32) -> (String, String) {
        let stripe = u64::from(block / self.config.object_blocks);
        (format!("{}:1:{stripe}", POOL.0), format!("{:?}", self.pg_of_block(block)))
    }

    /// A node's name for people.
    pub fn name_of(&self, node: NodeId) -> String {
        if let Some(osd) = self.osd_id(node) {
            return format!("{osd:?}");
        }
        let place = |nodes: &[NodeId]| nodes.iter().position(|other| *other == node);
        match (place(&self.mons), self.clients.iter().position(|client| client.node == node)) {
            (Some(mon), _) => format!("monitor {mon}"),
            (_, Some(client)) => format!("client {client}"),
            _ => format!("node {}", node.0),
        }
    }

    fn names_of(&self, nodes: &[NodeId]) -> String {
        nodes.iter().map(|node| self.name_of(*node)).collect::<Vec<_>>().join(", ")
    }

    /// The map of a group, as the metadata store has it.
    pub fn pg_map(&mut self, pg: PgId) -> Option<PgMap> {
        let of = (self.world.meta_revision(), pg.number.0 / PGS_PER_CHUNK);
        if self.maps.0 != of {
            let chunks = self.world.meta_read(&keys::pg_map(POOL, of.1));
            let chunk = chunks.first().and_then(|(_, value)| serde_json::from_slice::<PgMapChunk>(value).ok());
            self.maps = (of, chunk.unwrap_or_default());
        }
        self.maps.1.0.get(&pg.number).cloned()
    }

    /// The history of a group, as the metadata store has it.
    pub fn pg_history(&mut self, pg: PgId) -> Option<History> {
        let found = self.world.meta_read(&keys::pg_history(pg));
        serde_json::from_slice(&found.first()?.1).ok()
    }

    /// The place of a group's primary.
    pub fn primary(&mut self, pg: PgId) -> Option<NodeId> {
        let primary = self.pg_map(pg)?.primary?;
        Some(self.osd(primary))
    }

    /// The places of a group's acting members, primary first.
    pub fn acting(&mut self, pg: PgId) -> Vec<NodeId> {
        let Some(map) = self.pg_map(pg) else { return Vec::new() };
        let mut members: Vec<OsdId> = map.acting.iter().flatten().map(|member| member.osd).collect();
        members.sort_by_key(|osd| Some(*osd) != map.primary);
        members.into_iter().map(|osd| self.osd(osd)).collect()
    }

    /// What the newest primary of a group says.
    pub fn summary(&self, pg: PgId) -> Option<Summary> {
        let summaries = self.osds.iter().filter_map(|node| self.world.node(*node)?.osd()?.groups().get(pg)?.summary());
        summaries.max_by_key(|summary| summary.epoch)
    }

    /// Whether every group is active and clean.
    pub fn all_clean(&self) -> bool {
        let clean = |pg: PgId| self.summary(pg).is_some_and(|summary| summary.state == "active" && summary.clean);
        self.groups().into_iter().all(clean)
    }

    /// Whether every group serves.
    pub fn all_active(&self) -> bool {
        let active = |pg: PgId| self.summary(pg).is_some_and(|summary| summary.state == "active");
        self.groups().into_iter().all(active)
    }

    /// Whether a group serves at the epoch of its map.
    pub fn serves_newest(&mut self, pg: PgId) -> bool {
        let serving = self.summary(pg).filter(|summary| summary.state == "active").map(|summary| summary.epoch);
        serving.is_some() && self.pg_map(pg).map(|map| map.epoch) == serving
    }

    /// Something rare happens; see [`crate::marks`].
    pub(super) fn mark(&mut self, name: &'static str) {
        *self.marks.entry(name).or_default() += 1;
    }

    /// Kills a process.
    pub fn kill(&mut self, node: NodeId) {
        if !self.decisions.allows_action() {
            return;
        }
        self.world.kill(node);
        self.after_end(node);
    }

    /// Cuts a host's power.
    pub fn power_off(&mut self, host: HostId, outcome: Outcome) {
        if self.decisions.allows_action() {
            self.lose_power(host, outcome);
        }
    }

    fn lose_power(&mut self, host: HostId, outcome: Outcome) {
        for node in self.osds.clone() {
            let pending = self.world.disk_mut(node, Device::Data).map_or(0, |disk| disk.pending());
            if pending > 0 && self.world.host_of(node) == host && self.world.is_running(node) {
                self.mark("sim: power is lost with disk requests or cached pages pending");
            }
        }
        self.world.power_off(host, outcome);
        for node in self.world.node_ids().collect::<Vec<_>>() {
            if self.world.host_of(node) == host {
                self.after_end(node);
            }
        }
    }

    /// Cuts the power of everything that stores or decides; clients live on.
    pub fn power_off_everything(&mut self, outcome: Outcome) {
        if !self.decisions.allows_action() {
            return;
        }
        let nodes: Vec<NodeId> = self.osds.iter().chain(&self.mons).copied().collect();
        for node in nodes {
            let host = self.world.host_of(node);
            self.lose_power(host, outcome);
        }
    }

    /// Gives every host its power back and starts every process.
    pub fn start_everything(&mut self) {
        for node in self.world.node_ids().collect::<Vec<_>>() {
            let host = self.world.host_of(node);
            if !self.world.powered(host) {
                self.world.power_on(host);
            }
            self.world.resume(node);
            self.start(node);
        }
    }

    /// Starts a process; a client opens its image anew.
    pub fn start(&mut self, node: NodeId) {
        self.world.start(node);
        if let Some(index) = self.clients.iter().position(|client| client.node == node) {
            self.open_images(index);
        }
    }

    /// A process ended: what its client had open has an unknown outcome, what it served is served no more.
    pub(super) fn after_end(&mut self, node: NodeId) {
        let pending = self.clients.iter().map(|client| client.open.len()).sum::<usize>();
        if pending > 0 && self.osds.contains(&node) {
            self.mark("sim: an OSD ends while operations are under way");
        }
        self.serving.ended(node.0);
        if self.config.is_lazy() {
            self.note_end_in_lazy_pool(node);
        }
        if let Some(client) = self.clients.iter_mut().find(|client| client.node == node) {
            client.images.clear();
            client.opening.clear();
            // Whoever starts in its place is somebody else to the cluster.
            client.fenced = None;
            for (_, pending) in std::mem::take(&mut client.open) {
                self.history.failed(pending.op);
                self.tally.failed += 1;
            }
        }
    }

    fn note_end_in_lazy_pool(&mut self, node: NodeId) {
        match self.clients.iter().position(|client| client.node == node) {
            Some(client) => self.history.client_ended(u32::try_from(client).expect("few")),
            None => self.history.daemon_ended(),
        }
    }

    /// Replaces the disk of an OSD that is down by an empty one.
    pub fn wipe(&mut self, node: NodeId) {
        assert!(!self.world.is_running(node), "a disk is replaced while its OSD is down");
        if let Spec::Osd { store, .. } = self.world.spec_mut(node) {
            match store {
                StoreSpec::Model { kept, .. } => *kept = None,
                StoreSpec::Log(_) => {}
            }
        }
        for device in [Device::Data, Device::Log] {
            if let Some(disk) = self.world.disk_mut(node, device) {
                disk.replace();
            }
        }
        self.format(node);
        self.note_replacement(node);
        self.world.note(|| format!("the disk of node {} is replaced", node.0));
    }

    /// Cuts every path between two groups of processes.
    pub fn partition(&mut self, one: &[NodeId], other: &[NodeId]) {
        if !self.decisions.allows_action() {
            return;
        }
        let hosts = |nodes: &[NodeId], world: &World<Process>| -> Vec<HostId> {
            nodes.iter().map(|node| world.host_of(*node)).collect()
        };
        let text = format!("cut off from each other: {} | {}", self.names_of(one), self.names_of(other));
        self.world.note(|| text);
        let (one, other) = (hosts(one, &self.world), hosts(other, &self.world));
        self.world.change_fabric(|fabric| fabric.partition(&one, &other));
    }

    /// Kills several processes at once.
    pub fn kill_all(&mut self, nodes: &[NodeId]) {
        if self.decisions.allows_action() {
            nodes.iter().for_each(|node| {
                self.world.kill(*node);
                self.after_end(*node);
            });
        }
    }

    /// Cuts every path between two groups of processes, and between the first group's first process and the metadata store.
    pub fn isolate(&mut self, one: &[NodeId], other: &[NodeId]) {
        if self.decisions.allows_action() {
            let script = self.decisions.leave_script();
            self.partition(one, other);
            self.cut_from_meta(one[0]);
            self.return_to(script);
        }
    }

    /// A process hears nothing of others, nor of the metadata store: what they send waits on its way.
    pub fn deafen(&mut self, node: NodeId, to: &[NodeId]) {
        if self.decisions.allows_action() {
            let script = self.decisions.leave_script();
            to.iter().for_each(|other| self.cut_one_way(*other, node));
            self.cut_from_meta(node);
            self.return_to(script);
        }
    }

    fn return_to(&mut self, script: bool) {
        if script {
            self.decisions.enter_script();
        }
    }

    /// What one process sends to another vanishes.
    pub fn cut_one_way(&mut self, from: NodeId, to: NodeId) {
        if !self.decisions.allows_action() {
            return;
        }
        let text = format!("what {} sends to {} is held up", self.name_of(from), self.name_of(to));
        self.world.note(|| text);
        let (from, to) = (self.world.host_of(from), self.world.host_of(to));
        self.world.change_fabric(|fabric| fabric.cut_one_way(from, to));
    }

    /// The process does not reach the metadata store.
    pub fn cut_from_meta(&mut self, node: NodeId) {
        if !self.decisions.allows_action() {
            return;
        }
        let text = format!("cut off from the metadata store: {}", self.name_of(node));
        self.world.note(|| text);
        let host = self.world.host_of(node);
        self.world.change_fabric(|fabric| fabric.cut(host, crate::world::META_HOST));
    }

    /// An OSD's session in the metadata store ends, though it lives.
    pub fn end_session(&mut self, node: NodeId) {
        if !self.decisions.allows_action() {
            return;
        }
        let osd = self.osd_id(node).expect("an OSD's place");
        self.world.note(|| format!("the session of {osd:?} in the metadata store ends, though it lives"));
        self.world.expire_lease_of(&keys::osd_state(osd));
    }

    /// All paths are open again.
    pub fn heal(&mut self) {
        self.world.note(|| "all paths are open again".to_string());
        self.world.change_fabric(|fabric| fabric.heal());
    }

    /// Changes the share of an OSD's size that placement uses.
    pub fn reweight(&mut self, osd: OsdId, reweight: f64) {
        if !self.decisions.allows_action() {
            return;
        }
        self.put(keys::osd_config(osd), &OsdConfig { reweight, ..OsdConfig::default() });
    }

    /// From now on more may be lost than the pool promises to survive.
    pub fn expect_losses(&mut self) {
        self.losses_expected = true;
    }

    /// From now on clients may be refused for good.
    pub fn expect_refusals(&mut self) {
        self.refusals_expected = true;
    }

    /// Who a client is to the cluster.
    pub fn client_id(&mut self, client: usize) -> ClientId {
        let node = self.clients[client].node;
        self.world.with(node, |process, _| process.client_mut().expect("a client's place").session().client)
    }

    /// Fences a client off; gives the revision at which it is.
    pub fn fence(&mut self, client: usize) -> u64 {
        let id = self.client_id(client);
        self.change_access(|access| drop(access.fenced.insert(id, Fence::default())))
    }

    /// Locks the image for a client, or unlocks it.
    pub fn lock_image(&mut self, client: Option<usize>) -> u64 {
        let id = client.map(|client| self.client_id(client));
        self.change_access(|access| access.set_lock(POOL, InodeId(1), id))
    }

    fn change_access(&mut self, change: impl FnOnce(&mut Access)) -> u64 {
        let stored = self.world.meta_read(&keys::access());
        let parse = |(_, value): &(String, Vec<u8>)| serde_json::from_slice(value).expect("its own form");
        let mut access = stored.first().map(parse).unwrap_or_default();
        change(&mut access);
        self.put(keys::access(), &access);
        self.world.meta_revision().0
    }

    /// Whom a change of access waits for.
    pub fn access_waits_for(&mut self, revision: u64) -> Vec<String> {
        let mut map = ClusterMap::default();
        let found = self.world.meta(Request::Range(Keys::Prefix(PREFIX.into())));
        let Response::Range { kvs, revision: now, .. } = found else { panic!("a range answers a range") };
        map.apply_range(&kvs, now);
        waits_for(&map, revision)
    }
}
