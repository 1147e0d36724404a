//! A member comes back after it missed writes, over and over, another one each time.
//! Goal: what it missed is recovered there, before it counts.
//! Method: kill a member, write, start it, kill the next as soon as it serves.
//! Stands for: B6, B7, B14, A3

use crate::check::history::Finding;
use crate::cluster::{Cluster, Config, broken};
use super::{three, ms};

pub(super) fn configure(config: Config) -> Config {
    three(config)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let pg = c.pg_of_block(0);
    for turn in 0..6u32 {
        let acting = c.acting(pg);
        let Some(member) = acting.get(turn as usize % acting.len().max(1)).copied() else { continue };
        c.kill(member);
        c.write(0, turn, 3)?;
        c.write(1, c.config().object_blocks + turn, 2)?;
        c.start(member);
        if !c.run_until(ms(30_000), |c| c.all_clean())? {
            return Err(broken(format!("not clean again: {}", c.describe_stuck())));
        }
        c.read(1, 0, 8)?;
    }
    Ok(())
}
