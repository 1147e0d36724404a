//! What one client's operation costs: messages, round trips, disk writes, bytes, flushes; no timing.
//!
//! Owns the operations that are counted, the counting, and what the protocol promises ([`promises`]). Does not own the
//! cluster. Each operation runs alone in a cluster of its own, whose network and disks take constant times. How often a
//! client waits for a network, a write, a flush or a read in a row is found out by making just that one slower: what the
//! operation then takes longer, divided by how much slower, is exact and knows nothing of the code.
//!
//! "Until the answer" is what was sent and written when the client has its answer; "in all" adds what follows (commits,
//! what was in the log goes to its place), up to rest.

use crate::check::history::Finding;
use crate::cluster::{Cluster, Config, StoreKind, broken};
use crate::world::NodeId;
use ashlar_core::id::PgId;
use ashlar_core::io::Device;
use ashlar_core::map::{ImmediateCommit, Scheme};
use ashlar_core::msg::Message;
use ashlar_core::pg::msg::{Change, PgMessage, SubOp};
use ashlar_core::time::Duration;
use ashlar_faultinject::disk::{DiskCounters, Latency};
use std::fmt;

/// Blocks of 4 KiB in a chunk of 128 KiB, the usual one.
const CHUNK_BLOCKS: u32 = 32;
/// One direction of the network; far above what disks take, so that nothing overlaps by chance.
const NETWORK: Duration = Duration::millis(1);
const READ: Duration = Duration::micros(10);
const WRITE: Duration = Duration::micros(20);
const FLUSH: Duration = Duration::micros(40);
/// By how much one of them is made slower.
const SLOWER: Duration = Duration::micros(7);
/// Longer than anything follows an operation: commits wait for each other, then overlays are compacted.
const REST: Duration = Duration::secs(8);
const PATIENCE: Duration = Duration::secs(10);

/// A pool on disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// For people.
    pub name: &'static str,
    scheme: Scheme,
    data_chunks: u8,
    parity_chunks: u8,
    disks: Disks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disks {
    /// What they took survives power loss.
    Protected,
    /// They have a volatile cache, which is flushed before anything is acknowledged.
    Flushed,
    /// The same, but nothing is flushed until a client asks for it.
    Lazy,
}

/// The pools that are counted.
pub const SETTINGS: &[Setting] = &[
    Setting { name: "3 copies", scheme: Scheme::Replicated, data_chunks: 3, parity_chunks: 0, disks: Disks::Protected },
    Setting {
        name: "3 copies, volatile caches",
        scheme: Scheme::Replicated,
        data_chunks: 3,
        parity_chunks: 0,
        disks: Disks::Flushed,
    },
    Setting {
        name: "3 copies, lazy",
        scheme: Scheme::Replicated,
        data_chunks: 3,
        parity_chunks: 0,
        disks: Disks::Lazy,
    },
    Setting { name: "ec 2+1", scheme: Scheme::Ec, data_chunks: 2, parity_chunks: 1, disks: Disks::Protected },
    Setting { name: "ec 4+2", scheme: Scheme::Ec, data_chunks: 4, parity_chunks: 2, disks: Disks::Protected },
    Setting {
        name: "ec 4+2, volatile caches",
        scheme: Scheme::Ec,
        data_chunks: 4,
        parity_chunks: 2,
        disks: Disks::Flushed,
    },
];

/// An operation that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// 4 KiB of an object that is there.
    Overwrite,
    /// A whole object that is not there.
    Create,
    /// A whole object that is there.
    Replace,
    /// An object goes.
    Delete,
    /// 4 KiB.
    Read,
    /// 4 KiB whose member is gone.
    ReadDegraded,
    /// What was written becomes durable; in lazy pools.
    Flush,
}

impl Operation {
    const ALL: [Operation; 7] = [
        Operation::Overwrite,
        Operation::Create,
        Operation::Replace,
        Operation::Delete,
        Operation::Read,
        Operation::ReadDegraded,
        Operation::Flush,
    ];

    fn name(self) -> &'static str {
        match self {
            Operation::Overwrite => "overwrite 4 KiB",
            Operation::Create => "new object",
            Operation::Replace => "whole object",
            Operation::Delete => "delete",
            Operation::Read => "read 4 KiB",
            Operation::ReadDegraded => "degraded read",
            Operation::Flush => "flush",
        }
    }
}

/// What an operation cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How often in a row the client waited for the network, one direction each.
    pub hops: u64,
    /// How often in a row it waited for a disk write,
    pub writes_in_a_row: u64,
    /// for a flush,
    pub flushes_in_a_row: u64,
    /// for a disk read.
    pub reads_in_a_row: u64,
    /// Members that were sent data (or carried them out as primary), until the answer.
    pub data: u64,
    /// Members that were sent a version alone, or a deletion.
    pub versions: u64,
    /// Parts of chunks that were read from other members.
    pub parts: u64,
    /// Messages until the answer: the client's, orders, replies.
    pub messages: u64,
    /// Disk writes of all OSDs until the answer.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Messages that follow the answer.
    pub messages_after: u64,
    /// Disk writes in all.
    pub writes_in_all: u64,
    /// KiB written to disks, in all.
    pub kib_in_all: u64,
}

/// What a client waits for, and who is sent what: the part of [`Counts`] that docs/protocol.md promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Round trips in a row.
    pub round_trips: u64,
    /// Disk writes in a row.
    pub writes: u64,
    /// Flushes in a row.
    pub flushes: u64,
    /// Members with data.
    pub data: u64,
    /// Members with a version alone.
    pub versions: u64,
    /// Disk writes until the answer, by all members together.
    pub disk_writes: u64,
}

/// A line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Where.
    pub setting: &'static Setting,
    /// What.
    pub operation: Operation,
    /// What it cost.
    pub counts: Counts,
    /// What it was to cost.
    pub promise: Promise,
}

impl Line {
    /// Whether the promise was kept.
    pub fn is_kept(&self) -> bool {
        let Counts { hops, writes_in_a_row, flushes_in_a_row, data, versions, writes, .. } = self.counts;
        let promise = self.promise;
        (hops, writes_in_a_row, flushes_in_a_row) == (2 * promise.round_trips, promise.writes, promise.flushes)
            && (data, versions, writes) == (promise.data, promise.versions, promise.disk_writes)
    }
}

impl Setting {
    fn members(&self) -> u64 {
        match self.scheme {
            Scheme::Replicated => self.data_chunks.into(),
            _ => u64::from(self.data_chunks) + u64::from(self.parity_chunks),
        }
    }

    fn is_coded(&self) -> bool {
        self.scheme != Scheme::Replicated
    }

    fn chunks(&self) -> u32 {
        if self.is_coded() { self.data_chunks.into() } else { 1 }
    }

    /// What docs/protocol.md promises of an operation; `None`: there is no such operation here.
    pub fn promise(&self, operation: Operation) -> Option<Promise> {
        let members = self.members();
        let flushes = u64::from(self.disks == Disks::Flushed);
        let small_data = if self.is_coded() { 1 + u64::from(self.parity_chunks) } else { members };
        let write = |round_trips, data, disk_writes| Promise {
            round_trips,
            writes: 1,
            flushes,
            data,
            versions: members - data,
            disk_writes,
        };
        let read = |round_trips| Promise { round_trips, writes: 0, flushes: 0, data: 0, versions: 0, disk_writes: 0 };
        Some(match operation {
            // Parity needs old bytes first, and the first primary does not have them.
            Operation::Overwrite => write(2 + u64::from(self.is_coded()), small_data, members),
            // A block of its own, and the record that names it, at once; with volatile caches a flush for each, as they
            // are written.
            Operation::Create | Operation::Replace => {
                Promise { flushes: 2 * flushes, ..write(2, members, 2 * members) }
            }
            Operation::Delete => write(2, 0, members),
            // A chunk lies elsewhere than on the primary.
            Operation::Read | Operation::ReadDegraded if self.is_coded() => read(2),
            Operation::Read => read(1),
            Operation::Flush if self.disks == Disks::Lazy => {
                // Beside the flush goes a page that vouches for what is in the log.
                Promise { round_trips: 2, writes: 0, flushes: 1, data: 0, versions: 0, disk_writes: members }
            }
            Operation::ReadDegraded | Operation::Flush => return None,
        })
    }

    fn config(&self) -> Config {
        let mut config = Config::draw(1).calm();
        // With this number every OSD of a lazy pool is lazy.
        config.seed = 0;
        let members = u8::try_from(self.members()).expect("few");
        (config.osds, config.osds_per_host, config.mons) = (members.into(), 1, 1);
        (config.scheme, config.parity_chunks) = (self.scheme, self.parity_chunks);
        (config.pg_size, config.pg_minsize, config.pg_count) = (members, members - 1, 1);
        (config.object_blocks, config.image_objects) = (CHUNK_BLOCKS * self.chunks(), 3);
        let power_loss_protection = self.disks == Disks::Protected;
        config.store = StoreKind::Log { power_loss_protection, atomic_bytes: 512, write: WRITE };
        config.immediate_commit = if self.disks == Disks::Lazy { ImmediateCommit::None } else { ImmediateCommit::All };
        (config.wire, config.gather, config.drift_ppb) = (true, Duration::ZERO, 0);
        (config.net_base, config.net_tail, config.net_tail_ppm) = (NETWORK, NETWORK, 0);
        (config.lease_ms, config.heartbeat_timeout_ms) = (400, 1_000);
        config.load.clients = 1;
        config
    }
}

/// What takes longer than usual.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slow {
    Nothing,
    Network,
    Reads,
    Writes,
    Flushes,
}

/// Counts everything. An error says what could not be carried out.
pub fn count_all() -> Result<Vec<Line>, Finding> {
    let mut lines = Vec::new();
    for setting in SETTINGS {
        for operation in Operation::ALL {
            let Some(promise) = setting.promise(operation) else { continue };
            lines.push(Line { setting, operation, counts: count(setting, operation)?, promise });
        }
    }
    Ok(lines)
}

/// Counts one operation.
pub fn count(setting: &Setting, operation: Operation) -> Result<Counts, Finding> {
    let (usual, mut counts) = run(setting, operation, Slow::Nothing)?;
    let in_a_row = |slow: Slow| -> Result<u64, Finding> {
        let (took, _) = run(setting, operation, slow)?;
        let more = took.0.checked_sub(usual.0).filter(|more| more.is_multiple_of(SLOWER.0));
        more.map(|more| more / SLOWER.0)
            .ok_or_else(|| broken(format!("{usual:?} became {took:?}: nothing is constant")))
    };
    counts.hops = in_a_row(Slow::Network)?;
    counts.reads_in_a_row = in_a_row(Slow::Reads)?;
    counts.writes_in_a_row = in_a_row(Slow::Writes)?;
    counts.flushes_in_a_row = in_a_row(Slow::Flushes)?;
    Ok(counts)
}

/// Runs an operation: how long it took, and what can be counted of one run.
fn run(setting: &Setting, operation: Operation, slow: Slow) -> Result<(Duration, Counts), Finding> {
    let mut cluster = come_up(setting, slow)?;
    // The first object is there, the second is not.
    let object_blocks = CHUNK_BLOCKS * setting.chunks();
    cluster.write(0, 0, object_blocks)?;
    cluster.flush(0)?;
    let pg = cluster.pg_of_block(0);
    let block = far_block(&mut cluster, setting, pg);
    if operation == Operation::ReadDegraded {
        lose_chunk(&mut cluster, block / CHUNK_BLOCKS, pg)?;
    }
    if operation == Operation::Flush {
        cluster.write(0, block, 1)?;
    } else {
        cluster.run_for(REST)?;
    }
    let before = disks(&mut cluster);
    cluster.world.take_heard();
    let start = cluster.world.now();
    let op = match operation {
        Operation::Overwrite => cluster.start_write(0, block, 1),
        Operation::Create => cluster.start_write(0, object_blocks, object_blocks),
        Operation::Replace => cluster.start_write(0, 0, object_blocks),
        Operation::Delete => cluster.start_discard(0, 0, object_blocks),
        Operation::Read | Operation::ReadDegraded => cluster.start_read(0, block, 1),
        Operation::Flush => cluster.start_flush(0)?,
    };
    while !cluster.is_done(op) {
        if !cluster.step()? || cluster.world.now() > start + PATIENCE {
            return Err(broken("an operation does not end"));
        }
    }
    let took = cluster.world.now().since(start);
    let then = disks(&mut cluster);
    let mut counts =
        Counts { writes: then.writes - before.writes, flushes: then.flushes - before.flushes, ..Counts::default() };
    count_messages(&cluster.world.take_heard(), &mut counts);
    count_own_order(&mut cluster, setting, operation, block, pg, &mut counts);
    cluster.run_for(REST)?;
    let after = disks(&mut cluster);
    counts.messages_after = cluster.world.take_heard().iter().filter(|(_, message)| matters(message)).count() as u64;
    counts.writes_in_all = after.writes - before.writes;
    counts.kib_in_all = (after.written_bytes - before.written_bytes) / 1024;
    Ok((took, counts))
}

fn come_up(setting: &Setting, slow: Slow) -> Result<Cluster, Finding> {
    let mut config = setting.config();
    let slower = |usual: Duration, which: Slow| if slow == which { Duration(usual.0 + SLOWER.0) } else { usual };
    let network = slower(NETWORK, Slow::Network);
    (config.net_base, config.net_tail) = (network, network);
    let mut cluster = Cluster::new(config);
    let constant = |length: Duration| Latency { base: length, tail: length, tail_ppm: 0 };
    let (read, write) = (slower(READ, Slow::Reads), slower(WRITE, Slow::Writes));
    let flush = slower(FLUSH, Slow::Flushes);
    for node in cluster.osds().to_vec() {
        let disk = cluster.world.disk_mut(node, Device::Data).expect("an OSD with a log has a disk");
        disk.set_latencies(constant(read), constant(write), constant(flush));
    }
    cluster.settle_down()?;
    Ok(cluster)
}

/// A block of the first object in a data chunk that is not the primary's: the usual case.
fn far_block(cluster: &mut Cluster, setting: &Setting, pg: PgId) -> u32 {
    let own = primary_role(cluster, pg);
    let chunk = (0..setting.chunks()).find(|chunk| Some(*chunk) != own).unwrap_or(0);
    chunk * CHUNK_BLOCKS + 5
}

/// The primary's place among the members.
fn primary_role(cluster: &mut Cluster, pg: PgId) -> Option<u32> {
    let map = cluster.pg_map(pg)?;
    let place = map.acting.iter().position(|member| member.map(|member| member.osd) == map.primary)?;
    u32::try_from(place).ok()
}

/// The member with a data chunk ends, and the group goes on without it.
fn lose_chunk(cluster: &mut Cluster, chunk: u32, pg: PgId) -> Result<(), Finding> {
    let map = cluster.pg_map(pg).ok_or_else(|| broken("the group has no map"))?;
    let member = map.acting[chunk as usize].ok_or_else(|| broken("the chunk has no member"))?;
    let node = cluster.osd(member.osd);
    cluster.kill(node);
    let goes_on = cluster.run_until(PATIENCE, |cluster| {
        let holed = cluster.pg_map(pg).is_some_and(|map| map.acting.contains(&None));
        holed && cluster.all_active()
    })?;
    if goes_on { Ok(()) } else { Err(broken("the group does not go on without a member")) }
}

fn disks(cluster: &mut Cluster) -> DiskCounters {
    let nodes: Vec<NodeId> = cluster.osds().to_vec();
    nodes.into_iter().fold(DiskCounters::default(), |sum, node| {
        let one = cluster.world.disk_mut(node, Device::Data).map(|disk| disk.counters()).unwrap_or_default();
        DiskCounters {
            reads: sum.reads + one.reads,
            writes: sum.writes + one.writes,
            written_bytes: sum.written_bytes + one.written_bytes,
            flushes: sum.flushes + one.flushes,
            ..sum
        }
    })
}

/// Whether a message is part of an operation: neither heartbeat nor news of the map.
fn matters(message: &Message) -> bool {
    match message {
        Message::Request(_) | Message::Reply(_) => true,
        Message::Pg(message) => matches!(message, PgMessage::SubOp { .. } | PgMessage::SubReply { .. }),
        _ => false,
    }
}

fn count_messages(heard: &[(NodeId, Message)], counts: &mut Counts) {
    for (_, message) in heard.iter().filter(|(_, message)| matters(message)) {
        counts.messages += 1;
        let Message::Pg(PgMessage::SubOp { op, .. }) = message else { continue };
        match op {
            SubOp::Write { change: Change::Data { .. } | Change::Zero { .. }, .. } => counts.data += 1,
            SubOp::Write { change: Change::Nothing | Change::Delete, .. } => counts.versions += 1,
            SubOp::Read { .. } => counts.parts += 1,
            _ => {}
        }
    }
}

/// What the primary ordered itself is no message.
fn count_own_order(
    cluster: &mut Cluster,
    setting: &Setting,
    operation: Operation,
    block: u32,
    pg: PgId,
    counts: &mut Counts,
) {
    let role = primary_role(cluster, pg);
    let changes = role.is_none_or(|role| role >= setting.chunks() || role == block / CHUNK_BLOCKS);
    match operation {
        Operation::Overwrite if changes || !setting.is_coded() => counts.data += 1,
        Operation::Overwrite | Operation::Delete => counts.versions += 1,
        Operation::Create | Operation::Replace => counts.data += 1,
        Operation::Read | Operation::ReadDegraded | Operation::Flush => {}
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { hops, writes_in_a_row, flushes_in_a_row, reads_in_a_row, .. } = self.counts;
        let Counts { data, versions, parts, messages, writes, flushes, .. } = self.counts;
        let Counts { messages_after, writes_in_all, kib_in_all, .. } = self.counts;
        let half = if hops.is_multiple_of(2) { "" } else { ".5" };
        let promise = self.promise;
        let promised = format!(
            "{} {} {} | {} {} | {}",
            promise.round_trips, promise.writes, promise.flushes, promise.data, promise.versions, promise.disk_writes
        );
        let verdict = if self.is_kept() { "as promised".to_owned() } else { format!("PROMISED {promised}") };
        write!(
            f,
            "{:<26} {:<16} {:>3}{half:<2} {writes_in_a_row:>3} {flushes_in_a_row:>3} {reads_in_a_row:>3} | {data:>3} \
             {versions:>3} {parts:>3} | {messages:>4} {writes:>4} {flushes:>4} | {messages_after:>4} {writes_in_all:>4} \
             {kib_in_all:>6} | {verdict}",
            self.setting.name,
            self.operation.name(),
            hops / 2
        )
    }
}

/// The heading of the table.
pub const HEADING: &str = "\
                                             in a row:         | members with:  | until the answer: | in all:\n\
                                            round disk         |                |                |\n\
pool                       operation         trips wri flu rea | dat ver par  | msgs writ flus  | +msg writ    KiB |";
