//! The mix beyond the budget: disks die, rot, forget, are exchanged and replaced by old ones, whatever that takes away.
//! Goal: what is lost may be refused, for good, and never come back; what is answered is right. Where disks forget in ways
//! that nobody can notice (flushes that lie, old disks), what is answered was at least written there once, whole.
//! Method: as `mix`, on disks, with the atlas lifted.
//! Stands for: A2, A12, D1, E15

use crate::check::history::Finding;
use crate::cluster::profile::Profile;
use crate::cluster::{Cluster, Config};

pub(super) fn configure(config: Config) -> Config {
    Profile::OverBudget.applied(config.varied())
}

pub(super) fn run(cluster: &mut Cluster) -> Result<(), Finding> {
    crate::run::mix(cluster)
}
