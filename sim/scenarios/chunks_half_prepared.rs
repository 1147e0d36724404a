//! A write of chunks reaches some members only; its primary dies, and others too.
//! Goal: it is committed everywhere or taken back everywhere, whoever comes back first; the next write is not refused.
//! Method: the primary of a group of three chunks is cut off from a random part of the members with writes on their way, and
//! killed; another one is restarted; the rest writes on.
//! Stands for: E8, E12, E13, E14, B11

use super::{chunks, ms, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

pub(super) fn configure(config: Config) -> Config {
    let mut config = chunks(config, 2, 1, 3);
    config.pg_count = 1;
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let pg = c.pg(0);
    let blocks = c.config().object_blocks;
    for turn in 0..6u32 {
        c.write(0, 0, 3)?;
        let acting = c.acting(pg);
        let Some((primary, others)) = acting.split_first() else { continue };
        let cut = others.get(turn as usize % 3).copied();
        if let Some(cut) = cut {
            c.partition(&[*primary], &[cut]);
        }
        for n in 0..4 {
            c.start_write(0, n % 2 * (blocks / 2), 2);
        }
        let moment = c.world.draw(us(20), ms(8));
        c.run_for(moment)?;
        c.kill(*primary);
        if turn % 2 == 1 {
            c.kill(others[0]);
        }
        c.heal();
        let moment = c.world.draw(ms(1), ms(1500));
        c.run_for(moment)?;
        c.start(others[0]);
        let write = c.start_write(1, 1, 1);
        let moment = c.world.draw(ms(1), ms(1500));
        c.run_for(moment)?;
        c.start(*primary);
        c.wait(write)?;
        c.read(1, 0, blocks)?;
    }
    Ok(())
}
