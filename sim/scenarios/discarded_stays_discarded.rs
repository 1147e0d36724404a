//! Whole objects are discarded while a copy is away, which then returns.
//! Goal: what was deleted stays deleted, and what is written anew is not taken for the old.
//! Method: fill, take a member away, discard, sometimes write again, bring the member back, take another one away.
//! Stands for: H8, J5, C18, F2

use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use super::{three, ms};

pub(super) fn configure(config: Config) -> Config {
    three(config)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let blocks = c.config().object_blocks;
    let pg = c.pg_of_block(0);
    for turn in 0..5usize {
        c.write(0, 0, blocks)?;
        let acting = c.acting(pg);
        let Some(away) = acting.get(turn % acting.len().max(1)).copied() else { continue };
        c.kill(away);
        c.discard(0, 0, blocks)?;
        if turn % 2 == 1 {
            c.write(1, 1, 1)?;
        }
        c.read(1, 0, blocks)?;
        c.start(away);
        let wait = c.world.draw(ms(10), ms(4000));
        c.run_for(wait)?;
        c.read(0, 0, blocks)?;
    }
    Ok(())
}
