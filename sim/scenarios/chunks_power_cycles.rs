//! Everything that stores chunks dies at once, again and again, under a heavy load of small writes.
//! Goal: after any number of such cycles every stripe that was acknowledged can be read, and parity fits.
//! Method: as `power_cycles`, with two data chunks and one of parity.
//! Stands for: E8, E9, E10, E12, C17

use super::{busy, chunks, cycle_power, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config, LoadConfig};

pub(super) fn configure(config: Config) -> Config {
    let mut config = busy(chunks(config, 2, 1, 3), us(50));
    (config.object_blocks, config.image_objects) = (32, 24);
    config.load = LoadConfig {
        operations: 2_000,
        depth: 12,
        read_percent: 20,
        discard_percent: 2,
        max_blocks: 12,
        hot_objects: 4,
        think: us(10),
        ..config.load
    };
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    c.start_load();
    cycle_power(c, 6)
}
