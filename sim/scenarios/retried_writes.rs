//! Connections break between a write and its answer, so that clients send it again, while others write the same blocks.
//! Goal: a write takes effect once: a late copy of an acknowledged one never lands on a newer one.
//! Method: all connections of the primary are reset every few milliseconds while two clients take turns on one block.
//! Stands for: C8, J10, B17, C6

use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use super::{three, ms, us};

pub(super) fn configure(config: Config) -> Config {
    three(config)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let pg = c.pg_of_block(0);
    for _ in 0..20 {
        let op = c.start_write(0, 0, 1);
        let moment = c.world.draw(us(50), ms(4));
        c.run_for(moment)?;
        if let Some(primary) = c.primary(pg) {
            for client in 0..2 {
                let node = c.client_node(client);
                c.world.connections_between(primary, node).into_iter().for_each(|conn| c.world.reset(conn));
            }
        }
        c.start_write(1, 0, 1);
        c.wait(op)?;
        c.read(1, 0, 1)?;
    }
    Ok(())
}
