//! A client flushes just when the pool has lost what it wrote, and begins to write it again.
//! Goal: the flush vouches for everything that was acknowledged before it, not only for what was written again by then.
//! Method: a lazy pool; the client overwrites a few blocks many times, then all OSDs lose their power with everything in
//! volatile caches, and it flushes; as soon as that is answered it is killed, and the power goes again; another one reads.
//! Stands for: C1, C2, C17, F12

use super::{broken, lazy, ms, power_cycle, three, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use ashlar_faultinject::disk::Outcome;

pub(super) fn configure(config: Config) -> Config {
    let mut config = lazy(three(config));
    config.pg_count = 1;
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    for turn in 0..3u32 {
        for n in 0..16 {
            let write = c.start_write(0, (turn + n * 3) % 8, 1);
            let pause = c.world.draw(us(10), us(500));
            c.run_for(pause)?;
            if n % 4 == 3 {
                c.wait(write)?;
            }
        }
        c.power_off_everything(Outcome::LoseAll);
        let flush = c.start_flush(0)?;
        c.run_for(ms(200))?;
        c.start_everything();
        c.wait(flush)?;
        let client = c.client_node(0);
        c.kill(client);
        power_cycle(c)?;
        c.read(1, 0, 8)?;
        if !c.run_until(ms(20_000), |c| c.is_ready(0))? {
            return Err(broken("the client does not open its image again"));
        }
    }
    Ok(())
}
