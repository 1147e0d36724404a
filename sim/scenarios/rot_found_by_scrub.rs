//! Bits rot on one disk after the other; a scrub comes by in time.
//! Goal: it finds each damaged copy and repairs it from a good one, and clients notice nothing.
//! Method: objects are written; one object's pages rot on one member's disk; all groups are scrubbed, while clients go on;
//! then the next object, on the next member.
//! Stands for: F15, F16, E16

use super::{broken, on_disks, three};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config, IMAGE};
use ashlar_core::map::ScrubOrder;

pub(super) fn configure(config: Config) -> Config {
    on_disks(three(config), 100)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let blocks = c.config().object_blocks;
    for object in 0..c.config().image_objects.min(4) {
        c.write(0, object * blocks, blocks)?;
    }
    for turn in 0..4usize {
        let block = u32::try_from(turn).expect("few") % c.config().image_objects.min(4) * blocks;
        let acting = c.acting(c.pg_of_block(block));
        let before = c.findings().0;
        if c.rot_object(acting[turn % acting.len()], IMAGE, block) == 0 {
            return Err(broken("nothing of what was written is on the disk"));
        }
        c.scrub(ScrubOrder::Scrub)?;
        if c.findings().0 == before {
            return Err(broken("a scrub does not find a damaged copy"));
        }
        c.write(1, block + 1, 2)?;
        c.read(0, block, blocks)?;
    }
    Ok(())
}
