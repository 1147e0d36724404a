//! The default: a random load while everything fails at random.
//! Goal: no promise is broken by any combination of faults that the pool promises to survive.
//! Method: cluster, load and fault rates are drawn from the seed; when the load is done, everything is healed, must
//! become whole, and is read back.
//! Stands for: A1, A2, A4, A7, A12, A14, B1, B5, B13, B16, C8, C10, J1, J9, J10

use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

pub(super) fn configure(config: Config) -> Config {
    config.sometimes_lazy().varied()
}

pub(super) fn run(cluster: &mut Cluster) -> Result<(), Finding> {
    crate::run::mix(cluster)
}
