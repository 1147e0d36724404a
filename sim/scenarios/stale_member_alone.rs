//! A member misses degraded writes, and is then the only one to start.
//! Goal: what is stale is not served: the group waits for somebody who has the last writes.
//! Method: one copy is off while the others write; then they go off and it comes back alone, for a while.
//! Stands for: A2, A4, A6

use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use super::{three, ms};

pub(super) fn configure(config: Config) -> Config {
    three(config)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    c.write(0, 0, 8)?;
    let pg = c.pg_of_block(0);
    let acting = c.acting(pg);
    c.kill(acting[2]);
    c.write(0, 0, 8)?;
    c.write(0, 4, 2)?;
    c.kill(acting[0]);
    c.kill(acting[1]);
    c.start(acting[2]);
    let read = c.start_read(1, 0, 8);
    if c.wait_for(read, ms(8000))? {
        // Only possible if other OSDs held the writes by then; the checker says whether the answer is right.
        c.world.note(|| "the read was answered early".into());
    }
    c.start(acting[1]);
    c.wait(read)?;
    Ok(())
}
