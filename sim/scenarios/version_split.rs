//! A write reaches one of three copies, all die, the other two come back first and write the same object.
//! Goal: one version never names two contents.
//! Method: the primary is cut off while a write is on its way and killed with the rest; the others serve and write; then
//! it returns.
//! Stands for: A1, J1, J4

use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use super::{three, ms};

pub(super) fn configure(config: Config) -> Config {
    three(config)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    c.write(0, 0, 4)?;
    let pg = c.pg_of_block(0);
    let acting = c.acting(pg);
    let (primary, others) = (acting[0], acting[1..].to_vec());
    c.partition(&[primary], &others);
    c.start_write(0, 0, 4);
    c.run_for(ms(30))?;
    for osd in &acting {
        c.kill(*osd);
    }
    c.heal();
    for osd in &others {
        c.start(*osd);
    }
    let op = c.start_write(1, 0, 4);
    c.wait(op)?;
    c.read(1, 0, 4)?;
    c.start(primary);
    c.run_for(ms(3000))?;
    c.read(1, 0, 4)?;
    Ok(())
}
