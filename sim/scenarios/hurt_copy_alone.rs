//! A write that a member's damaged copy cannot take, then the loss of the member that could.
//! Goal: what is acknowledged is on every acting member, damaged or not: one of two may go.
//! Method: one of three members is away; the pages of an object rot on another one, cells are written there; the primary is
//! killed, and the one that was away comes back.
//! Stands for: E2, E15, F15, A12

use super::{ms, on_disks, three};
use crate::check::history::Finding;
use crate::cluster::{Ask, Cluster, Config};

const CELLS: u32 = 1;

pub(super) fn configure(config: Config) -> Config {
    let mut config = on_disks(three(config), 100);
    config.load.cell_objects = 1;
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let pg = c.pg_of_image(CELLS, 0);
    for turn in 0..4u32 {
        for first in (0..96).step_by(32) {
            let write = c.start_on(0, CELLS, first, 32, Ask::Write);
            c.wait(write)?;
        }
        // What was written in parts goes to its block some time later.
        c.run_for(ms(1500))?;
        let acting = c.acting(pg);
        let [primary, hurt, absent] = acting[..] else { return Ok(()) };
        c.kill(absent);
        c.run_until(ms(5_000), |c| c.acting(pg).len() == 2 && c.serves_newest(pg))?;
        c.rot_object(hurt, CELLS, 0);
        let write = c.start_on(0, CELLS, turn * 17 % 90, 2, Ask::Write);
        c.wait(write)?;
        c.kill(primary);
        c.start(absent);
        let read = c.start_on(1, CELLS, 0, 96, Ask::Read);
        c.wait(read)?;
        c.start(primary);
        c.become_whole()?;
    }
    Ok(())
}
