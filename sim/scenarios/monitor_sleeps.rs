//! The leading monitor sleeps past its leadership, and wakes up believing that it leads.
//! Goal: what it decided in its sleep is not written over what its successor decided.
//! Method: two monitors; the leading one is stopped for longer than its lease, while OSDs die and come back; then the other.
//! Stands for: A10, I1, I6, A3

use super::{four, ms};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

pub(super) fn configure(config: Config) -> Config {
    let mut config = four(config);
    config.mons = 2;
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let (mons, osds) = (c.mons().to_vec(), c.osds().to_vec());
    for turn in 0..4usize {
        let mon = mons[turn % 2];
        c.kill(osds[turn % osds.len()]);
        let moment = c.world.draw(ms(1), ms(1500));
        c.run_for(moment)?;
        let sleep = c.world.draw(ms(3_000), ms(7_000));
        c.world.pause(mon, sleep);
        c.start_write(0, 0, 3);
        c.start(osds[turn % osds.len()]);
        c.run_for(ms(500))?;
        c.kill(osds[(turn + 1) % osds.len()]);
        let moment = c.world.draw(ms(2_000), ms(8_000));
        c.run_for(moment)?;
        c.start(osds[(turn + 1) % osds.len()]);
        c.world.resume(mon);
        c.write(1, 1, 3)?;
    }
    Ok(())
}
