//! A random load and no faults at all.
//! Goal: everything works when nothing fails; also the yardstick for speed.
//! Method: as `mix`, with the faults taken away.
//! Stands for: C9, D2

use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

pub(super) fn configure(config: Config) -> Config {
    config.calm()
}

pub(super) fn run(cluster: &mut Cluster) -> Result<(), Finding> {
    crate::run::mix(cluster)
}
