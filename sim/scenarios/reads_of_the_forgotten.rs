//! A primary that is cut off from its members is read from while it still holds a lease, with writes on their way.
//! Goal: what is read stays: a write that the others never get is not shown to anybody.
//! Method: the primary reaches one client only, which writes and reads; the primary is killed; another client reads.
//! Stands for: A16, J1, J9, J10

use super::{ms, us};
use crate::check::history::Finding;
use crate::cluster::Cluster;

pub(super) use super::deposed_primary::configure;

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let pg = c.pg(0);
    for _ in 0..4 {
        c.write(1, 0, 6)?;
        // Now it holds a lease.
        c.read(0, 0, 6)?;
        let acting = c.acting(pg);
        let Some((primary, others)) = acting.split_first() else { continue };
        c.partition(&[*primary], others);
        for n in 0..6 {
            c.start_write(0, n, 1);
            let pause = c.world.draw(us(10), ms(3));
            c.run_for(pause)?;
            c.start_read(0, n, 1);
        }
        let moment = c.world.draw(ms(1), ms(100));
        c.run_for(moment)?;
        let client = c.client_node(0);
        c.kill(client);
        c.kill(*primary);
        c.heal();
        c.read(1, 0, 6)?;
        c.start(*primary);
        c.start(client);
        c.run_until(ms(20_000), |c| c.is_ready(0) && c.all_whole())?;
    }
    Ok(())
}
