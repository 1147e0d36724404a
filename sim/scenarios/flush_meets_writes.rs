//! A flush is asked for while writes before and after it are under way, in a pool that keeps nothing without.
//! Goal: it vouches for every write that was acknowledged before it, on every member; not for fewer.
//! Method: many small writes, a flush among them, more writes; as soon as the flush is answered the client is killed and the
//! power goes, with everything in volatile caches; another client reads while one of the members, each in its turn, is
//! still away: what the others have must do.
//! Stands for: C2, C17, F5, F12

use super::{broken, lazy, ms, power_cycle, three, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

pub(super) fn configure(config: Config) -> Config {
    lazy(three(config))
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    for turn in 0..4u32 {
        for n in 0..12 {
            c.start_write(0, turn + n, 1 + n % 3);
            let pause = c.world.draw(us(5), us(800));
            c.run_for(pause)?;
        }
        let flush = c.start_flush(0)?;
        for n in 0..6 {
            c.start_write(0, 20 + turn + n, 1);
            let pause = c.world.draw(us(1), us(200));
            c.run_for(pause)?;
        }
        c.wait(flush)?;
        let client = c.client_node(0);
        c.kill(client);
        power_cycle(c)?;
        let away = c.osds()[turn as usize % c.osds().len()];
        c.kill(away);
        c.read(1, 0, 28)?;
        c.start(away);
        if !c.run_until(ms(20_000), |c| c.is_ready(0))? {
            return Err(broken("the client does not open its image again"));
        }
    }
    Ok(())
}
