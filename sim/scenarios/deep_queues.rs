//! Clients keep far more operations in flight than anybody carries out at a time, while connections end.
//! Goal: queues are bounded and drain: nothing waits behind what waits for it.
//! Method: three clients with 200 operations each on few objects; primaries are killed, connections reset; it must all end.
//! Stands for: B10, C11, F20, C13

use super::{broken, ms, three, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use ashlar_core::time::Duration;

pub(super) fn configure(config: Config) -> Config {
    let mut config = three(config);
    (config.load.clients, config.load.depth, config.load.operations) = (3, 200, 1_500);
    (config.load.hot_objects, config.load.max_blocks, config.load.think) = (2, 4, us(10));
    (config.load.discard_percent, config.load.read_percent) = (0, 30);
    config.check_every = 20;
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    c.start_load();
    for turn in 0..4usize {
        let moment = c.world.draw(ms(1), ms(60));
        c.run_for(moment)?;
        let osd = c.osds()[turn % 3];
        if turn % 2 == 0 {
            c.kill(osd);
            c.world.start_after(osd, ms(100));
        } else {
            let connections = c.world.connections();
            connections.into_iter().for_each(|conn| c.world.reset(conn));
        }
    }
    if c.run_until(Duration::secs(90), |c| c.load_done())? {
        return Ok(());
    }
    Err(broken(format!("the load does not end: {}", c.describe_stuck())))
}
