//! A primary is deposed at once, while its read lease still runs and clients still reach it.
//! Goal: its successor writes only after the lease has run out, so that no read at the old one is stale.
//! Method: the primary is cut off from OSDs, monitors and metadata store and its session ends early; one client, which
//! is on its side and learns no new map, goes on reading from it; the other writes wherever it can.
//! Stands for: A16, J9, B23

use super::{ms, three, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use crate::world::NodeId;

pub(super) fn configure(config: Config) -> Config {
    let mut config = three(config);
    (config.lease_ms, config.pg_count) = (600, 1);
    (config.heartbeat_timeout_ms, config.net_tail_ppm) = (1500, 0);
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    depose(c, |_, _| ())
}

/// Cuts primaries off from everybody but one client, with what is done to the other members meanwhile.
pub(super) fn depose(c: &mut Cluster, meanwhile: impl Fn(&mut Cluster, &[NodeId])) -> Result<(), Finding> {
    c.settle_down()?;
    for _ in 0..4 {
        c.write(0, 0, 4)?;
        // Now it holds a lease.
        c.read(0, 0, 4)?;
        let acting = c.acting(c.pg_of_block(0));
        let Some((primary, others)) = acting.split_first() else { continue };
        let far: Vec<NodeId> = others.iter().chain(c.mons()).copied().collect();
        c.isolate(&[*primary, c.client_node(0)], &far);
        c.end_session(*primary);
        meanwhile(c, others);
        let write = c.start_write(1, 0, 4);
        for _ in 0..120 {
            let pause = c.world.draw(us(500), ms(10));
            c.run_for(pause)?;
            c.start_read(0, 0, 4);
        }
        c.heal();
        c.wait(write)?;
        c.read(1, 0, 4)?;
        c.run_until(ms(20_000), Cluster::all_whole)?;
    }
    Ok(())
}
