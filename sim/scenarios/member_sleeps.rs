//! A member that is not the primary sleeps for seconds, and wakes up with everything that was sent to it at once.
//! Goal: what it does late is refused where an interval passed, and done once where not.
//! Method: writes without pause; a member is stopped for up to twice a session; it wakes while its successor is filled.
//! Stands for: A14, B21, J7, J10

use super::{four, ms};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

pub(super) fn configure(config: Config) -> Config {
    four(config)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let pg = c.pg_of_block(0);
    for turn in 0..5u32 {
        let acting = c.acting(pg);
        let Some(member) = acting.get(1 + turn as usize % 2).copied() else { continue };
        c.start_write(0, 0, 4);
        let sleep = c.world.draw(ms(300), ms(8_000));
        c.world.pause(member, sleep);
        for n in 0..8 {
            c.start_write(1, n % 3, 2);
            let pause = c.world.draw(ms(1), ms(900));
            c.run_for(pause)?;
        }
        c.write(0, 1, 2)?;
        c.read(1, 0, 6)?;
    }
    Ok(())
}
