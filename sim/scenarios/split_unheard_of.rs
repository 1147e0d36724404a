//! The number of groups changes while the last member of a group is cut off from the metadata store; it comes back without
//! having heard of it.
//! Goal: nobody serves a group that is over, not even the one who would need nobody else for it.
//! Method: two copies of which one suffices; a member is killed, the other one is cut off before it recorded that it is alone,
//! and its session ends; the first one comes back, the groups are divided anew, a client writes; the other client reaches
//! the other member only, which reaches the metadata store again.
//! Stands for: A5, A13, A14, G7

use super::{epoch_of, ms, new_epoch, scripted, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use crate::world::{META_HOST, NodeId};

pub(super) fn configure(config: Config) -> Config {
    let mut config = scripted(config, 2);
    (config.osds, config.pg_size, config.pg_minsize, config.pg_count) = (2, 2, 1, 1);
    config.net_tail_ppm = 0;
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    for turn in 0..4u32 {
        c.write(0, 0, 4)?;
        let pg = c.pg_of_block(0);
        let acting = c.acting(pg);
        let [primary, other] = acting[..] else { continue };
        let before = epoch_of(c, pg);
        c.kill(other);
        new_epoch(c, pg, before)?;
        let moment = c.world.draw(us(1), ms(4));
        c.run_for(moment)?;
        let client = c.client_node(0);
        let far: Vec<NodeId> = c.mons().iter().copied().chain([other]).collect();
        c.isolate(&[primary, client], &far);
        c.end_session(primary);
        c.start(other);
        c.set_pg_count(turn % 3 + 2);
        let write = c.start_write(1, 0, 4);
        // The primary waits a little for the member that died. If the groups are divided within that time, it goes on
        // without having heard of it where its watch was lost.
        let groups = c.groups();
        c.run_until(ms(120), |c| c.groups() != groups)?;
        let host = c.world.host_of(primary);
        c.world.change_fabric(|fabric| fabric.heal_between(host, META_HOST));
        for _ in 0..25 {
            c.start_read(0, 0, 4);
            let pause = c.world.draw(ms(1), ms(120));
            c.run_for(pause)?;
        }
        c.heal();
        c.wait(write)?;
        c.read(0, 0, 4)?;
        c.become_whole()?;
    }
    Ok(())
}
