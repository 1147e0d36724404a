//! Everything restarts at once, again before it is up.
//! Goal: groups come back however the starts interleave, and nothing that was acknowledged is missing.
//! Method: all OSDs and monitors are killed and started within a second, four times, the last times during peering.
//! Stands for: A11, A12, B8, B13, B23

use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use super::{three, ms};

pub(super) fn configure(config: Config) -> Config {
    three(config)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let nodes: Vec<_> = c.osds().iter().chain(c.mons()).copied().collect();
    for turn in 0..4u32 {
        let op = c.start_write(0, turn * 2, 4);
        c.start_write(1, turn, 2);
        for node in &nodes {
            c.kill(*node);
        }
        for node in &nodes {
            let after = c.world.draw(ms(1), ms(1000));
            c.world.start_after(*node, after);
        }
        if turn % 2 == 0 {
            c.wait(op)?;
        } else {
            let during = c.world.draw(ms(100), ms(1500));
            c.run_for(during)?;
        }
    }
    Ok(())
}
