//! A deletion's answer is lost, the object is written anew, and the deletion is sent again.
//! Goal: a deletion takes effect once, also when nothing but a tombstone remembers it, and after a change of the primary.
//! Method: a client deletes an object and loses its connection; the primary is restarted, or the member that made the
//! tombstone; the other client writes the object as soon as it can.
//! Stands for: C8, J5, J10, H9

use super::{ms, three, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

pub(super) fn configure(config: Config) -> Config {
    three(config)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let (pg, blocks) = (c.pg_of_block(0), c.config().object_blocks);
    for turn in 0..10u32 {
        c.write(0, 0, 3)?;
        let delete = c.start_discard(0, 0, blocks);
        let moment = c.world.draw(us(50), ms(4));
        c.run_for(moment)?;
        let client = c.client_node(0);
        for osd in c.osds().to_vec() {
            c.world.connections_between(osd, client).into_iter().for_each(|conn| c.world.reset(conn));
        }
        // The deleting client does not get through for a while; the other writes what is deleted by then.
        let osds = c.osds().to_vec();
        c.partition(&[client], &osds);
        if turn % 2 == 1
            && let Some(primary) = c.primary(pg)
        {
            c.kill(primary);
            c.world.start_after(primary, ms(50));
        }
        c.write(1, 1, 2)?;
        c.heal();
        c.wait(delete)?;
        c.read(1, 0, 4)?;
    }
    Ok(())
}
