//! A member's copy is damaged just where a client changes parts of a sector or page.
//! Goal: the write is not lost: it is acknowledged once the member has a whole copy with it.
//! Method: cells are written; the pages under them rot on one member; both clients write other cells there at once; the
//! other members are restarted afterwards, one by one.
//! Stands for: E2, E15, F15

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
    for turn in 0..5usize {
        for first in (0..96).step_by(32) {
            let op = c.start_on(0, CELLS, first, 32, Ask::Write);
            c.wait(op)?;
        }
        // What was written in parts goes to its block some time later.
        c.run_for(ms(1500))?;
        let acting = c.acting(pg);
        let hurt = acting[turn % acting.len()];
        c.rot_object(hurt, CELLS, 0);
        let ops: Vec<u32> = (0..8u32)
            .map(|n| c.start_on(n as usize % 2, CELLS, n * 11 % 90, 2, Ask::Write))
            .collect();
        for op in ops {
            c.wait(op)?;
        }
        for other in acting.into_iter().filter(|osd| *osd != hurt) {
            c.kill(other);
            c.run_for(ms(20))?;
            c.start(other);
        }
        let read = c.start_on(1, CELLS, 0, 96, Ask::Read);
        c.wait(read)?;
        c.become_whole()?;
    }
    Ok(())
}
