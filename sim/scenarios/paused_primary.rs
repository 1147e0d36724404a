//! A primary is stopped past its lease and its session, replaced, and goes on with full socket buffers.
//! Goal: it answers no read with what was true before, and acknowledges no write that the new primary does not know.
//! Method: SIGSTOP at a random moment of reads and writes, for one to eight seconds; other clients write meanwhile.
//! Stands for: A16, J9, J10, C10

use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use super::{three, ms};

pub(super) fn configure(config: Config) -> Config {
    three(config)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let pg = c.pg_of_block(0);
    for round in 0..4 {
        c.write(0, 0, 4)?;
        c.start_write(0, 0, 2);
        c.start_read(1, 0, 4);
        let Some(primary) = c.primary(pg) else { continue };
        let stop = c.world.draw(ms(1000), ms(8000));
        let lead_in = c.world.draw(ms(0), ms(3));
        c.run_for(lead_in)?;
        c.world.pause(primary, stop);
        c.start_read(0, 0, 4);
        c.write(1, round, 2)?;
        c.read(1, 0, 4)?;
        c.run_for(stop)?;
        c.read(0, 0, 4)?;
    }
    Ok(())
}
