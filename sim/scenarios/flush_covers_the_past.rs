//! Writes are acknowledged while a flush is under way that began before them, in a pool that keeps nothing without.
//! Goal: the flush does not vouch for them: their client still has them when the power goes, and writes them again.
//! Method: a client flushes among many small writes to different places; as soon as the flush is answered all OSDs lose their
//! power with everything in volatile caches; the client lives, and reads.
//! Stands for: C1, C2, C17, F12

use super::{lazy, ms, power_cycle, three, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

pub(super) fn configure(config: Config) -> Config {
    let mut config = lazy(three(config));
    config.pg_count = 1;
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    for _ in 0..5 {
        for n in 0..4 {
            c.write(0, n, 2)?;
        }
        let flush = c.start_flush(0)?;
        let mut writes = Vec::new();
        for n in 0..20 {
            writes.push(c.start_write(0, 8 + n, 1));
            let pause = c.world.draw(us(1), us(300));
            c.run_for(pause)?;
        }
        c.wait(flush)?;
        power_cycle(c)?;
        c.read(0, 0, 28)?;
        for write in writes {
            c.wait(write)?;
        }
        c.run_until(ms(20_000), Cluster::all_whole)?;
    }
    Ok(())
}
