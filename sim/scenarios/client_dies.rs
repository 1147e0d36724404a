//! A client dies with writes on their way; another one takes over.
//! Goal: each of the dead client's writes is there or not, for good; none lands after the successor has read.
//! Method: writes are started and the client is killed at once, five times; the other client reads, writes and reads.
//! Stands for: J10, C23, B20

use crate::check::history::Finding;
use crate::cluster::{Cluster, Config, broken};
use super::{three, ms, us};

pub(super) fn configure(config: Config) -> Config {
    three(config)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    for turn in 0..5u32 {
        let client = c.client_node(0);
        for n in 0..4 {
            c.start_write(0, n, 2);
        }
        let moment = c.world.draw(us(10), ms(3));
        c.run_for(moment)?;
        c.kill(client);
        c.read(1, 0, 6)?;
        c.read(1, 0, 6)?;
        c.write(1, turn % 5, 1)?;
        c.read(1, 0, 6)?;
        c.start(client);
        if !c.run_until(ms(20_000), |c| c.is_ready(0))? {
            return Err(broken("the client does not open its image again"));
        }
    }
    Ok(())
}
