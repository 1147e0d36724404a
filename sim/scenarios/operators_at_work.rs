//! Administrators change everything at once: groups, weights, copies, OSDs that come and go, fences, upgrades.
//! Goal: whatever they ask for in which order, nothing is lost, clients go on, and in the end everything is as they asked.
//! Method: a load without any fault; each kind of change every second or two, also before the last one is done.
//! Stands for: A3, A5, A18, C15

use super::us;
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use ashlar_core::time::Duration;
use ashlar_faultinject::mix::{FaultKind, FaultMix};

const CHANGES: [FaultKind; 6] = [
    FaultKind::PgCount,
    FaultKind::PoolChange,
    FaultKind::Membership,
    FaultKind::Reweight,
    FaultKind::Fence,
    FaultKind::Upgrade,
];

pub(super) fn configure(config: Config) -> Config {
    let mut config = config.varied();
    config.mix = CHANGES.iter().fold(FaultMix::none(), |mix, kind| mix.with(*kind, Duration::millis(1500)));
    (config.osds, config.osds_per_host) = (5, 1);
    (config.load.operations, config.load.think) = (500, us(40_000));
    config
}

pub(super) fn run(cluster: &mut Cluster) -> Result<(), Finding> {
    crate::run::mix(cluster)
}
