//! Building a cluster as its configuration says.

use super::{ClientState, Cluster, Config, IMAGE, POOL, Process, Spec, StoreKind, StoreSpec, Tally, chaos};
use crate::check::history::{BLOCK, History};
use crate::check::serving::Serving;
use crate::world::{Clock, MetaModel, Options, World};
use ashlar_core::id::{ClusterUuid, InodeId, OsdId};
use ashlar_core::map::{Global, Image, Pool, Pools, Scheme, keys};
use ashlar_core::meta::{Request, Txn, TxnOp};
use ashlar_core::msg::Message;
use ashlar_core::rng::Rng;
use ashlar_core::time::Duration;
use ashlar_faultinject::disk::Latency;
use ashlar_faultinject::link::{HostId, LinkModel};
use std::collections::BTreeMap;

const CLUSTER: ClusterUuid = ClusterUuid(0x0a51_1a20_0000_4000_8000_0000_0000_0001);
/// The image's name and number.
pub(super) const IMAGE_NAME: &str = "demo";
const INODE: InodeId = InodeId(1);
/// A session outlives a pause of some seconds, and its end still fits into a run.
const SESSION_TTL_S: u64 = 4;

impl Cluster {
    /// Builds it and starts every process; nothing has happened yet.
    pub fn new(config: Config) -> Cluster {
        let mut rng = Rng::new(config.seed);
        let options = Options {
            check_every: config.check_every,
            gather: config.gather,
            codec: config.wire.then_some(super::load::through_the_wire),
            watch: |msg| matches!(msg, Message::Request(_) | Message::Reply(_)),
        };
        let world = World::new(rng.next_u64(), links(&config), meta_model(), options);
        let mut cluster = Cluster {
            world,
            osds: Vec::new(),
            mons: Vec::new(),
            clients: Vec::new(),
            history: History::default(),
            serving: Serving::default(),
            requests: BTreeMap::new(),
            contents: BTreeMap::new(),
            marks: BTreeMap::new(),
            tally: Tally::default(),
            chaos: chaos::Chaos::new(rng.fork()),
            chaos_next: None,
            log: Vec::new(),
            stop_at: None,
            standing: 0,
            config,
        };
        cluster.history.set_object_blocks(IMAGE, cluster.config.object_blocks);
        cluster.write_configuration();
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
        };
        let pool = Pool {
            name: "pool".into(),
            scheme: Scheme::Replicated,
            pg_size: config.pg_size,
            pg_minsize: config.pg_minsize,
            pg_count: config.pg_count,
            parity_chunks: 0,
            block_size: config.object_blocks * BLOCK,
            failure_domain: "host".into(),
        };
        let image = Image {
            name: IMAGE_NAME.into(),
            size_bytes: u64::from(config.image_blocks()) * u64::from(BLOCK),
            parent: None,
            read_only: false,
            snapshot: false,
            removing: false,
        };
        self.put(keys::global(), &global);
        self.put(keys::pools(), &Pools(BTreeMap::from([(POOL, pool)])));
        self.put(keys::image(POOL, INODE), &image);
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
            let node = self.add_node(host, rng, |address| Spec::Mon { cluster: CLUSTER, address });
            self.mons.push(node);
        }
        let mut host = HostId(0);
        for n in 0..self.config.osds {
            if n % self.config.osds_per_host == 0 {
                host = self.world.add_host();
            }
            let (store, name) = (self.store_spec(rng), format!("host{}", host.0));
            let node = self.add_node(host, rng, |address| Spec::Osd {
                osd: OsdId(n + 1),
                cluster: CLUSTER,
                address,
                host: name,
                store,
            });
            self.osds.push(node);
        }
        for _ in 0..self.config.load.clients {
            let host = self.world.add_host();
            let seeds: Vec<String> =
                self.mons.iter().chain(&self.osds[..1]).map(|node| World::<Process>::address(*node)).collect();
            let node = self.add_node(host, rng, |_| Spec::Client { seeds });
            let state =
                ClientState { node, image: None, opening: false, open: BTreeMap::new(), left: 0, rng: rng.fork() };
            self.clients.push(state);
        }
        for node in self.world.node_ids() {
            self.world.start(node);
        }
    }

    fn add_node(&mut self, host: HostId, rng: &mut Rng, spec: impl FnOnce(String) -> Spec) -> crate::world::NodeId {
        let drift = i64::try_from(rng.below(2 * self.config.drift_ppb + 1)).expect("small");
        let drift_ppb = drift - i64::try_from(self.config.drift_ppb).expect("small");
        let clock = Clock { origin: rng.below(1 << 40), drift_ppb };
        let next = self.world.node_ids().count();
        let address = World::<Process>::address(crate::world::NodeId(u32::try_from(next).expect("few")));
        self.world.add_node(host, spec(address), clock)
    }

    fn store_spec(&self, rng: &mut Rng) -> StoreSpec {
        match self.config.store {
            StoreKind::Model => StoreSpec::Model {
                kept: None,
                rounds: u32::try_from(rng.between(1, 3)).expect("few"),
                round: Duration::micros(rng.between(20, 500)),
            },
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
