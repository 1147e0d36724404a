//! Everything that stores dies at once, again and again, under a heavy load of small writes.
//! Goal: what was acknowledged is there after any number of such cycles, in whichever state opening finds the log.
//! Method: eight cycles; each lets the load run for a while, kills every OSD at one moment (by its process or its power),
//! and starts them at different moments.
//! Stands for: C1, F1, F3, F5, G4, E8

use super::{busy, cycle_power, three, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config, LoadConfig};

const CYCLES: u32 = 8;

pub(super) fn configure(config: Config) -> Config {
    let mut config = busy(three(config), us(50));
    (config.object_blocks, config.image_objects) = (32, 48);
    config.load = LoadConfig {
        operations: 6_000,
        clients: 2,
        depth: 16,
        read_percent: 20,
        discard_percent: 2,
        max_blocks: 12,
        hot_objects: 4,
        think: us(10),
        ..config.load
    };
    if config.seed.is_multiple_of(3) {
        // Few writes to each object: much is written for the first time just before the end. A store keeps room for all of each.
        (config.object_blocks, config.image_objects) = (64, 60);
        config.disk_bytes *= 2;
        (config.load.operations, config.load.max_blocks, config.load.hot_objects) = (2_500, 1, 60);
        (config.load.discard_percent, config.load.depth) = (0, 32);
    }
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    c.start_load();
    cycle_power(c, CYCLES)
}
