//! Weights change while groups still move, and OSDs restart in the middle.
//! Goal: a move that did not finish is not forgotten: no object is lost between the old places and the new ones.
//! Method: objects are written, weights flip every second or two, an OSD is killed during each move; clients go on.
//! Stands for: A3, A10, B14, C20

use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use super::{four, ms};
use ashlar_core::id::OsdId;

pub(super) fn configure(config: Config) -> Config {
    four(config)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    for stripe in 0..c.config().image_objects {
        c.write(0, stripe * c.config().object_blocks, 2)?;
    }
    let osds: Vec<_> = c.osds().to_vec();
    for turn in 0..5usize {
        let moved = u32::try_from(turn % osds.len()).expect("few") + 1;
        c.reweight(OsdId(moved), if turn % 2 == 0 { 0.0 } else { 1.0 });
        let wait = c.world.draw(ms(900), ms(2500));
        c.run_for(wait)?;
        let victim = osds[(turn + 1) % osds.len()];
        c.kill(victim);
        c.start_write(0, 1, 2);
        c.run_for(ms(300))?;
        c.start(victim);
        c.write(1, 0, 2)?;
    }
    Ok(())
}
