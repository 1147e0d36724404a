//! The processes of a cluster, behind one type.

use super::store::{SimStore, SlowModel};
use crate::world::{Halt, Machine};
use ashlar_core::client::{Client, ClientConfig};
use ashlar_core::id::{ClientId, ClusterUuid, Incarnation, OsdId, StoreUuid};
use ashlar_core::io::{Env, Input, Node, PeerId};
use ashlar_core::mon::{Mon, MonConfig};
use ashlar_core::osd::{Config, Osd};
use ashlar_core::rng::Rng;
use ashlar_core::store::log::{LogStore, OpenConfig};
use ashlar_core::time::{Duration, Time};
use ashlar_core::wire::Versions;
use ashlar_core::wire::handshake::Identity;

/// What an OSD finds at its start.
#[derive(Clone, Debug)]
pub enum StoreSpec {
    /// The reference store; `None`: to be made anew.
    Model {
        /// What it held when the process ended.
        kept: Option<Box<SlowModel>>,
        /// Rounds until an operation is durable.
        rounds: u32,
        /// Length of a round.
        round: Duration,
        /// Whether it answers before an operation is durable.
        lazy: bool,
    },
    /// The real store, on the process's simulated disk.
    Log(OpenConfig),
}

/// What outlives a process.
#[derive(Clone, Debug)]
pub enum Spec {
    /// An OSD.
    Osd {
        /// Its number.
        osd: OsdId,
        /// Its cluster.
        cluster: ClusterUuid,
        /// Where it listens.
        address: String,
        /// Its host's name.
        host: String,
        /// Its store.
        store: StoreSpec,
        /// Whether every change that the store is told to make is noted, to be checked.
        noted: bool,
        /// Versions of the protocol that it speaks.
        versions: Versions,
    },
    /// A monitor.
    Mon {
        /// Its cluster.
        cluster: ClusterUuid,
        /// Where it listens.
        address: String,
        /// Versions of the protocol that it speaks.
        versions: Versions,
    },
    /// A client.
    Client {
        /// Where it learns maps.
        seeds: Vec<String>,
        /// Versions of the protocol that it speaks.
        versions: Versions,
    },
}

impl Spec {
    /// Versions of the protocol that the process speaks when it is started again.
    pub fn versions_mut(&mut self) -> &mut Versions {
        match self {
            Spec::Osd { versions, .. } | Spec::Mon { versions, .. } | Spec::Client { versions, .. } => versions,
        }
    }
}

/// A running process.
#[derive(Clone)]
pub enum Process {
    /// An OSD.
    Osd(Box<Osd<SimStore>>, Incarnation, OsdId),
    /// A monitor, and whether it was told to start.
    Mon(Box<Mon>, Incarnation, bool),
    /// A client, and whether it was told to start.
    Client(Box<Client>, bool),
}

impl Process {
    /// The OSD, if it is one.
    pub fn osd(&self) -> Option<&Osd<SimStore>> {
        match self {
            Process::Osd(osd, ..) => Some(osd),
            _ => None,
        }
    }

    /// The OSD, to reach its store.
    pub fn osd_mut(&mut self) -> Option<&mut Osd<SimStore>> {
        match self {
            Process::Osd(osd, ..) => Some(osd),
            _ => None,
        }
    }

    /// The client, if it is one.
    pub fn client_mut(&mut self) -> Option<&mut Client> {
        match self {
            Process::Client(client, _) => Some(client),
            _ => None,
        }
    }

    /// The monitor, if it is one.
    pub fn mon(&self) -> Option<&Mon> {
        match self {
            Process::Mon(mon, ..) => Some(mon),
            _ => None,
        }
    }
}

impl Node for Process {
    fn handle(&mut self, env: &mut Env<'_>, input: Input) {
        match self {
            Process::Osd(osd, ..) => osd.handle(env, input),
            Process::Mon(mon, _, started) => {
                if !std::mem::replace(started, true) {
                    mon.start(env);
                }
                mon.handle(env, input);
            }
            Process::Client(client, started) => {
                if !std::mem::replace(started, true) {
                    client.start(env);
                }
                client.handle(env, input);
            }
        }
    }

    fn end_of_round(&mut self, env: &mut Env<'_>) {
        match self {
            Process::Osd(osd, ..) => osd.end_of_round(env),
            Process::Mon(mon, ..) => mon.end_of_round(env),
            Process::Client(client, _) => client.end_of_round(env),
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        match self {
            Process::Osd(osd, ..) => osd.next_deadline(),
            Process::Mon(mon, ..) => mon.next_deadline(),
            Process::Client(client, _) => client.next_deadline(),
        }
    }

    fn check(&self) {
        match self {
            Process::Osd(osd, ..) => osd.check(),
            Process::Mon(mon, ..) => mon.check(),
            Process::Client(client, _) => client.check(),
        }
    }
}

/// Time to live of a monitor's leadership in simulated clusters: short, so that failovers fit into a run.
const MON_TTL_S: u64 = 3;

impl Machine for Process {
    type Spec = Spec;

    fn start(spec: &mut Spec, incarnation: Incarnation, env: &mut Env<'_>) -> Self {
        match spec {
            Spec::Osd { osd, cluster, address, host, store, noted, .. } => {
                let (osd, address, host) = (*osd, address.clone(), host.clone());
                let config = Config { osd, cluster: *cluster, incarnation, address, host, waits_for_leases: false };
                let store = open(store, env).noted(*noted);
                Process::Osd(Box::new(Osd::new(config, store, env.now)), incarnation, osd)
            }
            Spec::Mon { cluster, address, .. } => {
                let (address, cluster) = (address.clone(), *cluster);
                let config = MonConfig { incarnation, address, cluster, session_ttl_s: MON_TTL_S };
                Process::Mon(Box::new(Mon::new(config)), incarnation, false)
            }
            Spec::Client { seeds, .. } => {
                let config = ClientConfig::new(ClientId(incarnation.0), seeds.clone());
                Process::Client(Box::new(Client::new(config)), false)
            }
        }
    }

    fn halt(mut self, spec: &mut Spec, how: Halt, rng: &mut Rng) {
        let (Process::Osd(osd, ..), Spec::Osd { store, .. }) = (&mut self, spec) else { return };
        // Of the other kind, the disk keeps what it keeps.
        if let (Some(model), StoreSpec::Model { kept, .. }) = (osd.groups_mut().store_mut().as_model_mut(), store) {
            let mut model = Box::new(model.clone());
            model.end(how, rng);
            *kept = Some(model);
        }
    }

    fn identity(&self, spec: &Spec) -> Identity {
        let peer = match self {
            Process::Osd(_, incarnation, osd) => PeerId::Osd(*osd, *incarnation),
            Process::Mon(_, incarnation, _) => PeerId::Mon(*incarnation),
            Process::Client(client, _) => PeerId::Client(client.session()),
        };
        let (cluster, versions) = match spec {
            Spec::Osd { cluster, versions, .. } | Spec::Mon { cluster, versions, .. } => (Some(*cluster), *versions),
            // It learns its cluster from whoever it meets.
            Spec::Client { versions, .. } => (None, *versions),
        };
        Identity { cluster, peer, versions }
    }
}

pub(super) fn open(spec: &mut StoreSpec, env: &mut Env<'_>) -> SimStore {
    match spec {
        StoreSpec::Model { kept, rounds, round, lazy } => {
            let uuid = StoreUuid(u128::from(env.rng.next_u64()) << 64 | u128::from(env.rng.next_u64()));
            let fresh = || Box::new(SlowModel::new(uuid, (*rounds, *lazy), *round));
            SimStore::model(kept.take().unwrap_or_else(fresh))
        }
        StoreSpec::Log(config) => SimStore::log(LogStore::open(*config, env)),
    }
}
