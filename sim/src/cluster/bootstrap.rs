//! Building a cluster as its configuration says.

use super::atlas::Atlas;
use super::{ClientState, Cluster, Config, POOL, Process, Spec, StoreKind, StoreSpec, Tally, chaos};
use crate::check::contents::Contents;
use crate::check::history::History;
use crate::check::intervals::Intervals;
use crate::check::records::Records;
use crate::check::serving::Serving;
use crate::plan::{Decisions, Plan};
use crate::world::{Clock, MetaModel, NodeId, Options, Probe, World};
use ashlar_core::buf::UNIT;
use ashlar_core::id::{ClusterUuid, OsdId, Revision, StoreUuid};
use ashlar_core::io::{Device, DiskDone, DiskOp};
use ashlar_core::map::{Global, Levels, Pool, Pools, Tree, TreeNode, keys};
use ashlar_core::meta::{Request, Txn, TxnOp};
use ashlar_core::msg::Message;
use ashlar_core::rng::Rng;
use ashlar_core::store::log::{Discarding, Durability, Format, OpenConfig, Overwrites, Way, format as format_store};
use ashlar_core::time::Duration;
use ashlar_core::wire::Versions;
use ashlar_faultinject::disk::{DiskModel, Latency};
use ashlar_faultinject::link::{HostId, LinkModel};
use std::collections::{BTreeMap, BTreeSet};

const CLUSTER: ClusterUuid = ClusterUuid(0x0a51_1a20_0000_4000_8000_0000_0000_0001);
/// A session outlives a pause of some seconds, and its end still fits into a run.
const SESSION_TTL_S: u64 = 4;
/// Of a log on a device of its own, if the OSD has one.
const LOG_BYTES: u64 = 4 << 20;
/// Simulated time of one pass of the scrub over a log: a run has several, and they are a small part of it.
const LOG_SCRUB: Duration = Duration::secs(4);
/// Disks are told of free blocks often enough that this meets faults.
const DISCARDS: Discarding = Discarding { rest: Duration::millis(200), pause: Duration::millis(5) };

impl Cluster {
    /// Builds it and starts every process; nothing has happened yet.
    pub fn new(config: Config) -> Cluster {
        Cluster::build(config, |_, _| {}, None)
    }

    /// The same, with somebody who looks on at every call into a node.
    pub fn with_probe(config: Config, probe: Probe) -> Cluster {
        Cluster::build(config, probe, None)
    }

    /// The same, in which only that is decided which a plan contains.
    pub fn with_plan(config: Config, plan: Option<Plan>) -> Cluster {
        Cluster::build(config, |_, _| {}, plan)
    }

    fn build(config: Config, probe: Probe, plan: Option<Plan>) -> Cluster {
        let mut rng = Rng::new(config.seed);
        let options = Options {
            check_every: config.check_every,
            gather: config.gather,
            codec: config.wire.then_some(super::load::through_the_wire),
            watch: |msg| matches!(msg, Message::Request(_) | Message::Reply(_)),
            probe,
        };
        let (jitter, steady) = plan.as_ref().map_or((0, false), |plan| (plan.jitter, plan.steady));
        let luck = rng.next_u64() ^ jitter;
        let mut world = World::new(luck, links(&config), meta_model(), options);
        if steady {
            world.hold_still(luck);
        }
        let mut cluster = Cluster {
            world,
            osds: Vec::new(),
            mons: Vec::new(),
            clients: Vec::new(),
            images: Vec::new(),
            history: History::default(),
            generations: Default::default(),
            groups_wanted: config.pg_count,
            serving: Serving::default(),
            records: Records::default(),
            records_seen: Revision(0),
            intervals: Intervals::default(),
            requests: BTreeMap::new(),
            read: BTreeMap::new(),
            contents: Contents::default(),
            marks: BTreeMap::new(),
            tally: Tally::default(),
            chaos: chaos::Chaos::new(rng.fork()),
            atlas: Atlas::default(),
            snapshots: BTreeMap::new(),
            swapped: None,
            absent: BTreeSet::new(),
            leaving: None,
            members_wanted: config.pg_size,
            silent_losses: false,
            forgot_deletions: false,
            chaos_next: None,
            log: Vec::new(),
            stop_at: None,
            maps: Default::default(),
            decisions: Decisions::new(plan, config.load.clients),
            left_out: BTreeSet::new(),
            times: Vec::new(),
            refusals_expected: false,
            losses_expected: false,
            standing: 0,
            config,
        };
        cluster.write_configuration();
        cluster.create_first_images();
        cluster.add_nodes(&mut rng);
        cluster
    }

    fn write_configuration(&mut self) {
        let config = &self.config;
        let global = Global {
            cluster: CLUSTER,
            lease_ms: config.lease_ms,
            heartbeat_timeout_ms: config.heartbeat_timeout_ms,
            session_ttl_s: SESSION_TTL_S,
            osd_out_time_s: 600,
            // Here everybody falls all the time; `flapping` sets it.
            osd_flap_limit: 0,
            osd_flap_window_s: 600,
            osd_hold_s: 10,
            recovery_objects: 8,
            recovery_latency_percent: 200,
            near_full_percent: 85,
            recovery_full_percent: 95,
        };
        let pool = Pool {
            name: "pool".into(),
            scheme: config.scheme,
            pg_size: config.pg_size,
            pg_minsize: config.pg_minsize,
            pg_count: config.pg_count,
            parity_chunks: config.parity_chunks,
            block_size: config.chunk_bytes(),
            failure_domain: config.failure_domain().into(),
            immediate_commit: config.immediate_commit,
            scrub_interval_s: config.scrub_interval_s,
            ..Pool::default()
        };
        if config.racks || config.rooms {
            self.put(keys::tree(), &self.tree());
            let ranks = [("room", 1), ("rack", 2)].map(|(level, rank)| (level.to_string(), rank));
            self.put(keys::levels(), &Levels(BTreeMap::from(ranks)));
        }
        self.put(keys::global(), &global);
        self.put(keys::pools(), &Pools(BTreeMap::from([(POOL, pool)])));
    }

    /// Hosts in racks, and racks in rooms if there are any.
    fn tree(&self) -> Tree {
        let mut tree = Tree::default();
        let first = self.config.first_osd_host();
        for host in 0..self.config.osds / self.config.osds_per_host {
            let node = |level: &str, parent| TreeNode { level: Some(level.into()), parent };
            let (rack, room) = self.config.place_of_host(host);
            let (rack, room) = (format!("rack{rack}"), self.config.rooms.then(|| format!("room{room}")));
            tree.0.insert(format!("host{}", first + host), node("host", Some(rack.clone())));
            tree.0.insert(rack, node("rack", room.clone()));
            room.into_iter().for_each(|room| drop(tree.0.insert(room, node("room", None))));
        }
        tree
    }

    /// What an administrator does: sets a key.
    pub(super) fn put(&mut self, key: String, value: &impl serde::Serialize) {
        let value = serde_json::to_vec(value).expect("plain data becomes JSON");
        let put = TxnOp::Put { key, value, lease: 0 };
        self.world.meta(Request::Txn(Txn { success: vec![put], ..Txn::default() }));
    }

    fn add_nodes(&mut self, rng: &mut Rng) {
        for _ in 0..self.config.mons {
            let host = self.world.add_host();
            let node =
                self.add_node(host, rng, |address| Spec::Mon { cluster: CLUSTER, address, versions: Versions::OURS });
            self.mons.push(node);
        }
        let first_host = self.config.first_osd_host();
        for n in 0..self.config.osds {
            let host = HostId(first_host + n / self.config.osds_per_host);
            if self.world.hosts() <= host.0 {
                self.world.add_host();
            }
            let (store, name) = (self.store_spec(OsdId(n + 1), rng), format!("host{}", host.0));
            let noted = self.config.check_every != u64::MAX;
            let node = self.add_node(host, rng, |address| Spec::Osd {
                osd: OsdId(n + 1),
                cluster: CLUSTER,
                address,
                host: name,
                store,
                noted,
                versions: Versions::OURS,
            });
            self.osds.push(node);
            self.add_disk(node);
        }
        for _ in 0..self.config.load.clients {
            let host = self.world.add_host();
            let seeds: Vec<String> =
                self.mons.iter().chain(&self.osds[..1]).map(|node| self.world.address(*node)).collect();
            let node = self.add_node(host, rng, |_| Spec::Client { seeds, versions: Versions::OURS });
            let (images, opening, open) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
            let state = ClientState { node, images, opening, open, left: 0, rng: rng.fork(), fenced: None };
            self.clients.push(state);
        }
        let late = self.osds.iter().rev().take(self.config.late_osds() as usize);
        self.absent = late.copied().collect();
        for node in self.world.node_ids().filter(|node| !self.absent.contains(node)) {
            self.world.start(node);
        }
    }

    fn add_node(&mut self, host: HostId, rng: &mut Rng, spec: impl FnOnce(String) -> Spec) -> NodeId {
        let drift = i64::try_from(rng.below(2 * self.config.drift_ppb + 1)).expect("small");
        let drift_ppb = drift - i64::try_from(self.config.drift_ppb).expect("small");
        let clock = Clock { origin: rng.below(1 << 40), drift_ppb };
        let next = self.world.node_ids().count();
        let address = World::<Process>::address_on(host, NodeId(u32::try_from(next).expect("few")));
        self.world.add_node(host, spec(address), clock)
    }

    fn store_spec(&self, osd: OsdId, rng: &mut Rng) -> StoreSpec {
        match self.config.store {
            StoreKind::Model => StoreSpec::Model {
                kept: None,
                rounds: u32::try_from(rng.between(1, 3)).expect("few"),
                round: Duration::micros(rng.between(20, 500)),
                lazy: self.config.has_lazy_store(osd),
            },
            StoreKind::Log { power_loss_protection, atomic_bytes, .. } => {
                let durability = match power_loss_protection {
                    _ if self.config.has_lazy_store(osd) => Durability::Lazy,
                    true => Durability::Plp,
                    false => Durability::Flush,
                };
                let apart = self.config.has_log_device(osd);
                let strict = if power_loss_protection { Durability::Plp } else { Durability::Flush };
                StoreSpec::Log(OpenConfig {
                    cluster: CLUSTER,
                    osd,
                    data_bytes: self.config.disk_bytes,
                    log_device_bytes: apart.then_some(LOG_BYTES),
                    durability,
                    log_durability: if apart { strict } else { durability },
                    overwrites: self.overwrites(atomic_bytes),
                    scrub: self.scrub_of_logs(),
                    discards: Some(DISCARDS),
                })
            }
        }
    }

    /// In a third of the runs the logs of stores are read all the time, so that pages that rot are found before an opening
    /// finds them.
    fn scrub_of_logs(&self) -> Duration {
        if self.config.seed.is_multiple_of(3) { LOG_SCRUB } else { Duration(0) }
    }

    /// Overwrites go in place where the disk tears no page of 4 KiB; in half of the runs also where the disk is idle.
    fn overwrites(&self, atomic_bytes: u32) -> Overwrites {
        let way = if self.config.seed.is_multiple_of(2) { Way::Auto } else { Way::Intent };
        // Below, what is atomic is a sector, and no overwrite is smaller than a unit.
        Overwrites { way, atomic_bytes: if atomic_bytes < UNIT { 0 } else { atomic_bytes } }
    }

    fn add_disk(&mut self, node: NodeId) {
        let StoreKind::Log { power_loss_protection, atomic_bytes, write } = self.config.store else { return };
        let latency = |base: Duration, times: u64| Latency {
            base: Duration(base.0 * times),
            tail: Duration(base.0 * times * 20),
            tail_ppm: 2_000,
        };
        let model = DiskModel {
            size_bytes: self.config.disk_bytes,
            // The largest that there is: a store that gets by with it gets by with all.
            block_bytes: 4096,
            power_loss_protection,
            atomic_bytes,
            read: latency(write, 1),
            write: latency(write, 1),
            flush: latency(write, 4),
        };
        let osd = self.osd_id(node).expect("an OSD's place");
        if self.config.has_log_device(osd) {
            let log = DiskModel { size_bytes: LOG_BYTES, ..model.clone() };
            self.world.add_disk(node, Device::Log, log);
        }
        self.world.add_disk(node, Device::Data, model);
        self.format(node);
    }

    /// Makes an empty store on an OSD's disk.
    pub(super) fn format(&mut self, node: NodeId) {
        let uuid = u128::from(self.world.rng().next_u64()) << 64 | u128::from(self.world.rng().next_u64());
        let Spec::Osd { osd, store: StoreSpec::Log(_), .. } = self.world.spec(node) else { return };
        let osd = *osd;
        let format = Format {
            cluster: CLUSTER,
            osd,
            store: StoreUuid(uuid),
            block_size: self.config.chunk_bytes(),
            data_bytes: self.config.disk_bytes,
            log_device_bytes: self.config.has_log_device(osd).then_some(LOG_BYTES),
            log_bytes: None,
            segment_bytes: None,
        };
        let ops = format_store(&format, self.world.bufs()).expect("the simulated disk is large enough");
        // A new disk begins with zeroes. Pages of them would only be more that faults hit in vain, and more buffers in use
        // among those that nodes look through for free ones.
        let is_zero =
            |op: &DiskOp| matches!(op, DiskOp::Write { data, .. } if data.bytes().iter().all(|byte| *byte == 0));
        for op in ops.into_iter().filter(|op| !is_zero(op)) {
            let done = self.world.disk_now(node, op);
            assert!(
                matches!(done, Some(DiskDone::Done(Ok(())))),
                "a new disk takes what it is formatted with: {done:?}"
            );
        }
    }
}

fn links(config: &Config) -> LinkModel {
    LinkModel {
        base: config.net_base,
        tail: config.net_tail,
        tail_ppm: config.net_tail_ppm,
        per_kib: Duration::micros(1),
        give_up: Duration::secs(3),
        connect_timeout: Duration::secs(1),
    }
}

fn meta_model() -> MetaModel {
    MetaModel {
        delay: Latency { base: Duration::micros(300), tail: Duration::millis(200), tail_ppm: 5_000 },
        watch_lag: Latency { base: Duration::micros(500), tail: Duration::millis(800), tail_ppm: 20_000 },
        timeout: Duration::secs(2),
    }
}
