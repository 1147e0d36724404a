//! The configuration of a run: everything that is drawn from the seed, printable on one screen.

use ashlar_core::id::OsdId;
use ashlar_core::map::{ImmediateCommit, Scheme};
use ashlar_core::rng::Rng;
use ashlar_core::time::Duration;
use ashlar_faultinject::mix::FaultMix;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Which store the OSDs have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreKind {
    /// The reference store: protocol-only runs.
    Model,
    /// The real store.
    Log {
        /// Completed writes of its disk survive power loss.
        power_loss_protection: bool,
        /// Bytes that power loss never tears.
        atomic_bytes: u32,
        /// Time of a write.
        write: Duration,
    },
}

/// What clients do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadConfig {
    /// Number of clients.
    pub clients: u32,
    /// Operations in flight per client, at most.
    pub depth: u32,
    /// Operations of all clients together; the load ends after them.
    pub operations: u32,
    /// Percent of reads.
    pub read_percent: u64,
    /// Percent of discards.
    pub discard_percent: u64,
    /// Longest operation, in blocks of 4 KiB.
    pub max_blocks: u32,
    /// Percent of writes that leave zeroes without being discards.
    pub zero_percent: u64,
    /// Percent of discards and zeroes that take a whole object.
    pub whole_percent: u64,
    /// Objects of an image that is written in parts of sectors; 0: there is none.
    pub cell_objects: u32,
    /// Images that operators create and remove while the load runs.
    pub passing_images: u32,
    /// Objects that get half of the operations.
    pub hot_objects: u32,
    /// A client waits up to so long before its next operation.
    pub think: Duration,
}

/// A whole cluster, its load and its faults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Where it came from.
    pub seed: u64,
    /// Number of OSDs.
    pub osds: u32,
    /// Bytes of an OSD's disk, if it has one.
    pub disk_bytes: u64,
    /// Two hosts are a rack, and members are in different racks.
    pub racks: bool,
    /// Two racks are a room, and members are in different rooms where there are enough.
    #[serde(default)]
    pub rooms: bool,
    /// OSDs that are added while the load runs, if as many can be spared.
    #[serde(default)]
    pub late: u32,
    /// More is lost than the pool promises to survive.
    #[serde(default)]
    pub over_budget: bool,
    /// OSDs that share a host (and its power).
    pub osds_per_host: u32,
    /// Number of monitors.
    pub mons: u32,
    /// They share hosts with the first OSDs, one each.
    #[serde(default)]
    pub mons_beside: bool,
    /// Copies, or chunks.
    pub scheme: Scheme,
    /// Parity chunks of an object.
    pub parity_chunks: u8,
    /// Copies of each object, or chunks.
    pub pg_size: u8,
    /// Copies that must be there to serve.
    pub pg_minsize: u8,
    /// Number of placement groups.
    pub pg_count: u32,
    /// Bytes of an object, in blocks of 4 KiB.
    pub object_blocks: u32,
    /// Bytes of the image, in objects.
    pub image_objects: u32,
    /// The stores.
    pub store: StoreKind,
    /// Which acknowledged writes the pool promises to keep without a flush. If not all: most OSDs keep no others, and
    /// each client has its own objects, since only it can expect to see its unsynced writes.
    pub immediate_commit: ImmediateCommit,
    /// Seconds between two scrubs of a group; 0: only when ordered.
    pub scrub_interval_s: u64,
    /// Messages are encoded and decoded on their way.
    pub wire: bool,
    /// Inputs that come within so long make one round.
    pub gather: Duration,
    /// Shortest network delay.
    pub net_base: Duration,
    /// Longest network delay.
    pub net_tail: Duration,
    /// Messages in a million with a long delay.
    pub net_tail_ppm: u64,
    /// Largest error of a node's clock, in parts per billion.
    pub drift_ppb: u64,
    /// Length of a read lease.
    pub lease_ms: u64,
    /// A silent peer counts as dead after.
    pub heartbeat_timeout_ms: u64,
    /// The load.
    pub load: LoadConfig,
    /// The faults.
    pub mix: FaultMix,
    /// `check()` of nodes after one in so many inputs.
    pub check_every: u64,
}

/// Room for the whole image several times over, and for the log to wrap around within a run.
const DISK_BYTES: u64 = 16 << 20;

impl Config {
    /// Draws a configuration.
    pub fn draw(seed: u64) -> Config {
        let mut rng = Rng::new(seed ^ 0x00c0_ffee_0000_0001);
        let rng = &mut rng;
        let pg_size = if rng.chance(2, 3) { 3 } else { 2 };
        let pg_minsize = if pg_size == 3 { 2 } else { narrow(rng.between(1, 2)) };
        let osds_per_host = if rng.chance(1, 4) { 2 } else { 1 };
        let hosts = rng.between(u64::from(pg_size), 6 / osds_per_host).max(u64::from(pg_size));
        let osds = u32::try_from(hosts * osds_per_host).expect("few");
        let lease_ms = rng.between(100, 600);
        let store = StoreKind::draw(rng);
        let mut config = Config {
            seed,
            osds,
            osds_per_host: u32::try_from(osds_per_host).expect("few"),
            disk_bytes: DISK_BYTES,
            racks: false,
            rooms: false,
            late: 0,
            over_budget: false,
            mons: if rng.chance(1, 2) { 1 } else { 2 },
            mons_beside: false,
            scheme: Scheme::Replicated,
            parity_chunks: 0,
            pg_size,
            pg_minsize,
            pg_count: narrow(rng.between(1, 8)),
            object_blocks: 1 << rng.between(2, 5),
            image_objects: narrow(rng.between(2, 16)),
            store,
            immediate_commit: ImmediateCommit::All,
            scrub_interval_s: 0,
            wire: rng.chance(1, 5),
            gather: Duration::micros(if rng.chance(1, 2) { rng.below(200) } else { 0 }),
            net_base: Duration::micros(rng.between(10, 500)),
            net_tail: Duration::millis(rng.between(1, 300)),
            net_tail_ppm: rng.below(10_000),
            drift_ppb: rng.below(200_000),
            lease_ms,
            heartbeat_timeout_ms: rng.between(lease_ms.max(300), 1500),
            load: LoadConfig::draw(rng),
            mix: FaultMix::none(),
            check_every: 1,
        };
        config.mix = FaultMix::draw(rng, config.kinds().filter(|kind| !kind.is_beyond_promises()));
        config.with_slow_moves(&mut Rng::new(seed ^ 0x00c0_ffee_0000_0002))
    }

    /// In some runs moving a group takes seconds, so that intervals change while it lasts.
    fn with_slow_moves(mut self, rng: &mut Rng) -> Config {
        if rng.chance(1, 4) {
            (self.image_objects, self.object_blocks) = (narrow(rng.between(24, 64)), 8);
            self.pg_count = narrow(rng.between(1, 2));
            if let StoreKind::Log { write, .. } = &mut self.store {
                *write = Duration::micros(rng.between(500, 4000));
            }
        }
        self
    }

    /// In some runs the pool is lazy, wholly or for large writes only.
    #[must_use]
    pub fn sometimes_lazy(mut self) -> Config {
        let mut rng = Rng::new(self.seed ^ 0x00c0_ffee_0000_0003);
        if rng.chance(1, 4) {
            let small = rng.chance(1, 3) && matches!(self.store, StoreKind::Log { .. });
            self.make_lazy(if small { ImmediateCommit::Small } else { ImmediateCommit::None });
        }
        self
    }

    /// In most runs there is more than reads, writes and discards of one image: conditional writes, whole objects deleted,
    /// images that come and go, scrubs, monitors on hosts of OSDs.
    #[must_use]
    pub fn varied(mut self) -> Config {
        let mut rng = Rng::new(self.seed ^ 0x00c0_ffee_0000_0004);
        let (zeroes, cells, passing, scrubs) =
            (rng.between(1, 8), narrow(rng.between(1, 3)), narrow(rng.between(1, 5)), rng.between(1, 4));
        let mut half = || rng.chance(1, 2);
        if half() {
            (self.load.zero_percent, self.load.whole_percent) = (zeroes, 30);
        }
        if half() {
            self.load.cell_objects = if self.is_lazy() { self.load.clients } else { cells };
        }
        if half() {
            self.load.passing_images = passing;
        }
        if half() {
            self.scrub_interval_s = scrubs;
        }
        if half() {
            self.late = 1;
        }
        self.mons_beside = half();
        self
    }

    /// Whether the pool is lazy.
    pub fn is_lazy(&self) -> bool {
        self.immediate_commit != ImmediateCommit::All
    }

    /// Whether an OSD's store is lazy: in lazy pools, three of four.
    pub fn has_lazy_store(&self, osd: OsdId) -> bool {
        self.is_lazy() && !(self.seed ^ u64::from(osd.0)).is_multiple_of(4)
    }

    /// Whether an OSD's log is on a device of its own: where only small writes are durable at once, and those are in the log.
    pub fn has_log_device(&self, osd: OsdId) -> bool {
        self.immediate_commit == ImmediateCommit::Small && self.has_lazy_store(osd)
    }

    /// The same without faults.
    #[must_use]
    pub fn calm(mut self) -> Config {
        self.mix = FaultMix::none();
        self
    }

    /// The hosts of OSDs begin with this one.
    pub fn first_osd_host(&self) -> u32 {
        if self.mons_beside { 0 } else { self.mons }
    }

    /// Blocks of the image.
    pub fn image_blocks(&self) -> u32 {
        self.object_blocks * self.image_objects
    }
}

impl StoreKind {
    fn draw(rng: &mut Rng) -> StoreKind {
        if rng.chance(1, 2) {
            return StoreKind::Model;
        }
        StoreKind::Log {
            power_loss_protection: rng.chance(1, 2),
            atomic_bytes: if rng.chance(1, 2) { 512 } else { 4096 },
            write: Duration::micros(rng.between(10, 1000)),
        }
    }
}

impl LoadConfig {
    fn draw(rng: &mut Rng) -> LoadConfig {
        let (clients, depth, operations) = (rng.between(1, 3), rng.between(1, 8), rng.between(150, 500));
        // The load shall last some seconds, so that it meets a few of each fault.
        let length_ms = rng.between(2_000, 15_000);
        LoadConfig {
            clients: narrow(clients),
            depth: narrow(depth),
            operations: narrow(operations),
            read_percent: rng.between(20, 70),
            discard_percent: if rng.chance(1, 2) { rng.between(1, 10) } else { 0 },
            max_blocks: narrow(rng.between(1, 32)),
            zero_percent: 0,
            whole_percent: 0,
            cell_objects: 0,
            passing_images: 0,
            hot_objects: narrow(rng.between(1, 2)),
            think: Duration::millis(2 * length_ms * clients * depth / operations),
        }
    }
}

fn narrow<T: TryFrom<u64>>(value: u64) -> T {
    T::try_from(value).unwrap_or_else(|_| panic!("{value} was drawn below the type's bound"))
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { load, .. } = self;
        writeln!(f, "seed {}", self.seed)?;
        writeln!(
            f,
            "  cluster   {} OSDs ({} per host, {} later, {} MiB), apart by {}; {} monitors{}; {} groups of {} (minsize {}), {}; \
             lease {} ms, dead after {} ms",
            self.osds,
            self.osds_per_host,
            self.late_osds(),
            self.disk_bytes >> 20,
            self.failure_domain(),
            self.mons,
            if self.mons_beside { " beside OSDs" } else { "" },
            self.pg_count,
            self.pg_size,
            self.pg_minsize,
            self.redundancy(),
            self.lease_ms,
            self.heartbeat_timeout_ms
        )?;
        writeln!(
            f,
            "  image     {} objects of {} KiB; store {:?}; immediate commit {}; scrub every {} s",
            self.image_objects,
            self.object_blocks * 4,
            self.store,
            self.immediate_commit,
            self.scrub_interval_s
        )?;
        writeln!(
            f,
            "  network   {} us, up to {} ms in {} of a million; encoded: {}; rounds of {} us; drift {} ppb",
            self.net_base.0 / 1000,
            self.net_tail.as_millis(),
            self.net_tail_ppm,
            self.wire,
            self.gather.0 / 1000,
            self.drift_ppb
        )?;
        writeln!(
            f,
            "  load      {} operations, {} clients, depth {}, {} % reads, {} % discards, up to {} blocks, {} hot objects, \
             think {} ms",
            load.operations,
            load.clients,
            load.depth,
            load.read_percent,
            load.discard_percent,
            load.max_blocks,
            load.hot_objects,
            load.think.as_millis()
        )?;
        writeln!(
            f,
            "            {} % zeroes, {} % of them and of discards of whole objects, {} objects of cells, {} passing images",
            load.zero_percent, load.whole_percent, load.cell_objects, load.passing_images
        )?;
        write!(f, "  faults    {}{}", if self.over_budget { "over budget: " } else { "" }, self.mix)
    }
}
