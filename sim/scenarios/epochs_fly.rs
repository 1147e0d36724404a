//! Sessions of members end again and again though they live, so that a new epoch follows the last within milliseconds.
//! Goal: a write that is under way at any change of the epoch ends; nothing is acknowledged twice or forgotten between two
//! epochs.
//! Method: both clients write one object without pause; every few milliseconds some OSD's session ends.
//! Stands for: A7, A8, B5, A19

use super::{ms, one_group, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

pub(super) fn configure(config: Config) -> Config {
    one_group(config)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    for turn in 0..12usize {
        let mut last = 0;
        for n in 0..4 {
            c.start_write(0, n, 2);
            last = c.start_write(1, n + 1, 1);
        }
        let osd = c.osds()[turn % 3];
        c.end_session(osd);
        let moment = c.world.draw(us(100), ms(700));
        c.run_for(moment)?;
        if turn % 4 == 3 {
            c.wait(last)?;
            c.read(0, 0, 6)?;
        }
    }
    Ok(())
}
