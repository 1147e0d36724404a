//! Tens of thousands of small writes without any fault, on a small disk.
//! Goal: nothing runs out: numbers, places in tables, room in the log.
//! Method: one client keeps 16 writes in flight until the log has been written over several times.
//! Stands for: F7, F13, C19

use super::{three, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config, LoadConfig, StoreKind, broken};
use ashlar_core::time::Duration;

pub(super) fn configure(config: Config) -> Config {
    let mut config = three(config);
    (config.mons, config.pg_count) = (1, 8);
    (config.object_blocks, config.image_objects) = (32, 32);
    let power_loss_protection = config.seed.is_multiple_of(2);
    config.store = StoreKind::Log { power_loss_protection, atomic_bytes: 4096, write: us(20) };
    (config.wire, config.gather, config.check_every) = (false, us(20), 1000);
    (config.net_base, config.net_tail_ppm) = (us(10), 0);
    config.load = LoadConfig {
        clients: 1,
        depth: 16,
        operations: 20_000,
        read_percent: 0,
        discard_percent: 0,
        max_blocks: 1,
        hot_objects: 32,
        think: us(1),
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
