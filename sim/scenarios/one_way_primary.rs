//! A primary hears everybody, and nobody hears it (and the other way round).
//! Goal: half-connected groups neither hang for ever nor serve what is old.
//! Method: paths are cut in one direction at a time, between the primary and one member, both, or the clients.
//! Stands for: A14, B1, B15

use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use super::{three, ms};

pub(super) fn configure(config: Config) -> Config {
    three(config)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let pg = c.pg_of_block(0);
    for turn in 0..4 {
        c.write(0, 0, 4)?;
        let acting = c.acting(pg);
        let Some((primary, members)) = acting.split_first() else { continue };
        for member in members.iter().take(1 + turn % 2) {
            if turn < 2 {
                c.cut_one_way(*primary, *member);
            } else {
                c.cut_one_way(*member, *primary);
            }
        }
        let op = c.start_write(0, 1, 3);
        c.start_read(1, 0, 4);
        c.run_for(ms(6000))?;
        c.heal();
        c.wait(op)?;
        c.read(1, 0, 4)?;
    }
    Ok(())
}
