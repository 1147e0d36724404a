//! A primary loses its power and starts again before anybody decides anything: the map still names it.
//! Goal: it does not go on in the epoch that it had, in which it has given versions that nobody knows any more.
//! Method: writes reach the primary only, whose power goes; the monitors sleep meanwhile; it starts again and is written to.
//! Stands for: A1, A7, J1, J4

use super::{ms, on_disks, three, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use ashlar_faultinject::disk::Outcome;

pub(super) fn configure(config: Config) -> Config {
    let write_us = 100 + config.seed % 900;
    let mut config = on_disks(three(config), write_us);
    config.pg_count = 1;
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let (pg, mons) = (c.pg(0), c.mons().to_vec());
    for turn in 0..4u32 {
        c.write(0, turn, 3)?;
        let acting = c.acting(pg);
        let Some((primary, others)) = acting.split_first() else { continue };
        mons.iter().for_each(|mon| c.world.pause(*mon, ms(60_000)));
        c.partition(&[*primary], others);
        c.start_write(0, turn, 2);
        let moment = c.world.draw(us(100), ms(5));
        c.run_for(moment)?;
        let host = c.world.host_of(*primary);
        c.power_off(host, Outcome::LoseAll);
        c.heal();
        c.world.power_on(host);
        c.start(*primary);
        let write = c.start_write(1, turn + 1, 2);
        let moment = c.world.draw(ms(50), ms(900));
        c.run_for(moment)?;
        mons.iter().for_each(|mon| c.world.resume(*mon));
        c.wait(write)?;
        c.read(0, 0, 8)?;
        c.become_whole()?;
    }
    Ok(())
}
