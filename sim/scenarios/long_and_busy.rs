//! Tens of thousands of small writes without any fault, on a small disk.
//! Goal: nothing runs out: numbers, places in tables, room in the log.
//! Method: one client keeps 16 writes in flight until the log has been written over several times.
//! Stands for: F7, F13, C19

use super::{busy, three, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config, LoadConfig, broken};
use ashlar_core::time::Duration;

pub(super) fn configure(config: Config) -> Config {
    let mut config = busy(three(config), us(20));
    (config.object_blocks, config.image_objects) = (32, 32);
    (config.net_base, config.check_every) = (us(10), 1000);
    config.load = LoadConfig {
        clients: 1,
        depth: 16,
        operations: 20_000,
        read_percent: 0,
        discard_percent: 0,
        max_blocks: 1,
        hot_objects: 32,
        think: us(1),
        ..config.load
    };
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    c.start_load();
    if c.run_until(Duration::secs(100), |c| c.load_done())? {
        return Ok(());
    }
    Err(broken(format!("the load does not end: {}", c.describe_stuck())))
}
