//! A client does not hear the answer to its write; a member that missed the write gets it as part of what changed.
//! Goal: it also gets the numbers of the requests, so that the write takes effect once, whoever is primary when the client
//! asks again.
//! Method: a member is away while the write is made; the client is cut off; the member comes back, the primary is killed;
//! another client reads, overwrites, and reads; then the first one comes back.
//! Stands for: C8, C10, J5, J10

use super::{ms, three, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

pub(super) fn configure(config: Config) -> Config {
    let mut config = three(config);
    (config.pg_count, config.object_blocks) = (1, 16);
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let pg = c.pg(0);
    for _ in 0..4 {
        c.write(1, 0, 12)?;
        let acting = c.acting(pg);
        let [primary, _, absent] = acting[..] else { return Ok(()) };
        c.kill(absent);
        c.run_until(ms(5_000), |c| c.acting(pg).len() == 2 && c.serves_newest(pg))?;
        let late = c.start_write(0, 0, 3);
        let moment = c.world.draw(us(50), ms(4));
        c.run_for(moment)?;
        c.cut_client_off(0);
        c.start(absent);
        c.become_whole()?;
        c.kill(primary);
        c.read(1, 0, 4)?;
        c.write(1, 1, 2)?;
        c.read(1, 0, 4)?;
        c.heal();
        c.wait(late)?;
        c.read(1, 0, 4)?;
        c.start(primary);
        c.become_whole()?;
    }
    Ok(())
}
