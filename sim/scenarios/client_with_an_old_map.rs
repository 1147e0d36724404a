//! A client does not hear that its group has lost what it wrote: it reaches the OSDs, but nobody who would tell it of maps.
//! Goal: it is served again only when it knows of the new epoch, and has written again what was not durable.
//! Method: a lazy pool; the client writes, is cut off from the servers of maps, all else loses its power with everything in
//! volatile caches; the client reads and writes.
//! Stands for: C1, C3, C20, C21

use super::{broken, four, lazy, ms, power_cycle};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use crate::world::NodeId;
use ashlar_core::id::OsdId;

pub(super) fn configure(config: Config) -> Config {
    let mut config = lazy(four(config));
    (config.osds, config.pg_count) = (4, 1);
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    // It serves maps to clients: it shall not be one of those that the client reaches.
    let server = c.osds()[0];
    c.reweight(OsdId(1), 0.0);
    let pg = c.pg(0);
    if !c.run_until(ms(60_000), |c| !c.acting(pg).contains(&server) && c.all_whole())? {
        return Err(broken(format!("the group does not move: {}", c.describe_stuck())));
    }
    for turn in 0..3u32 {
        for n in 0..6 {
            c.write(0, (turn + n) % 8, 2)?;
        }
        let far: Vec<NodeId> = c.mons().iter().copied().chain([server]).collect();
        let client = c.client_node(0);
        c.partition(&[client], &far);
        power_cycle(c)?;
        let ops = [c.start_read(0, 0, 8), c.start_write(0, 2, 2), c.start_read(0, 0, 8)];
        let moment = c.world.draw(ms(500), ms(3_500));
        c.run_for(moment)?;
        c.heal();
        for op in ops {
            c.wait(op)?;
        }
        c.read(0, 0, 8)?;
    }
    Ok(())
}
