//! Bits flip in messages on the network, where no checksum of the network notices.
//! Goal: a damaged body is refused by whoever stores or reads it, and sent again; damaged headers end connections.
//! Method: one message in a thousand is damaged, everywhere, while clients write and read blocks and cells.
//! Stands for: B18, B27, F15

use super::{four, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config, broken};
use ashlar_core::time::Duration;

pub(super) fn configure(config: Config) -> Config {
    let mut config = four(config);
    (config.load.operations, config.load.depth, config.load.think) = (400, 4, us(3000));
    config.load.cell_objects = 1;
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    c.world.set_damage_of_links(1_000);
    c.start_load();
    if !c.run_until(Duration::secs(120), |c| c.load_done())? {
        return Err(broken(format!("the load does not end: {}", c.describe_stuck())));
    }
    c.world.set_damage_of_links(0);
    Ok(())
}
