//! An object is discarded before there is one, then written by another client; small writes are durable when they are
//! acknowledged, in a pool that promises it for those only.
//! Goal: when the group's epoch changes, the first client does not discard again what had nothing to discard.
//! Method: discards of empty objects and small writes after them; sessions end, or the power goes; the second client reads.
//! Stands for: C1, C18, F2, J6

use super::{on_disks, power_cycle, three, ms};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use ashlar_core::map::ImmediateCommit;

const OBJECTS: u32 = 12;

pub(super) fn configure(config: Config) -> Config {
    let mut config = on_disks(three(config), 100);
    (config.image_objects, config.pg_count) = (OBJECTS, 1);
    config.make_lazy(ImmediateCommit::Small);
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let blocks = c.config().object_blocks;
    for object in (0..OBJECTS).step_by(2) {
        c.discard(0, object * blocks, blocks)?;
        c.write(1, object * blocks, 1)?;
        let moment = c.world.draw(ms(0), ms(50));
        c.run_for(moment)?;
        if object % 4 == 0 {
            let acting = c.acting(c.pg(0));
            c.end_session(acting[1]);
            c.run_for(ms(1_500))?;
        } else {
            power_cycle(c)?;
        }
        c.read(1, object * blocks, 2)?;
    }
    Ok(())
}
