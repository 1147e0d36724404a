//! Members restart at once after they granted a read lease, and their primary is deposed.
//! Goal: who grants after a start assumes that it granted before: the old primary's reads are never stale.
//! Method: a primary that reaches one client only goes on reading, and answers slowly; the others restart, elect another
//! one, and write.
//! Stands for: A16, J9

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
    c.settle_down()?;
    let pg = c.pg(0);
    for _ in 0..4 {
        c.write(0, 0, 4)?;
        let acting = c.acting(pg);
        let Some((primary, others)) = acting.split_first() else { continue };
        let far: Vec<NodeId> = others.iter().chain(c.mons()).copied().collect();
        c.partition(&[*primary, c.client_node(0)], &far);
        c.cut_from_meta(*primary);
        c.end_session(*primary);
        for other in others {
            c.kill(*other);
            c.start(*other);
        }
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
