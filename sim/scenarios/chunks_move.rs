//! Groups of chunks move from OSD to OSD, so that members change their roles, while clients write.
//! Goal: each chunk arrives where its role is, nothing is left where it was, and no move forgets where a chunk is.
//! Method: five OSDs for three chunks; weights flip, an OSD restarts in the middle of each move, clients go on.
//! Stands for: E4, E13, E16, B14, A3

use super::{chunks, ms};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use ashlar_core::id::OsdId;

pub(super) fn configure(config: Config) -> Config {
    chunks(config, 2, 1, 5)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    c.fill(0)?;
    let osds = c.osds().to_vec();
    for turn in 0..5u32 {
        let moved = 1 + turn % 5;
        c.reweight(OsdId(moved), if turn % 3 == 2 { 0.4 } else { 0.0 });
        let wait = c.world.draw(ms(100), ms(2000));
        c.run_for(wait)?;
        let victim = osds[(turn as usize + 2) % osds.len()];
        c.kill(victim);
        c.start_write(0, turn, 2);
        c.run_for(ms(200))?;
        c.start(victim);
        c.write(1, turn + 1, 2)?;
        c.read(0, 0, 8)?;
        c.reweight(OsdId(moved), 1.0);
    }
    Ok(())
}
