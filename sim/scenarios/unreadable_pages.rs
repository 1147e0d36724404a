//! Pages of a member's disk cannot be read any more.
//! Goal: that member's copies are repaired in place from the others'; the page is written again, and readable.
//! Method: an object's pages become unreadable on one member; it is read, scrubbed, or copied to a member that missed writes.
//! Stands for: D9, G10, F17

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
    for turn in 0..5usize {
        c.write(0, 0, blocks)?;
        let acting = c.acting(c.pg_of_block(0));
        let (bad, behind) = (acting[turn % 3], acting[(turn + 1) % 3]);
        if turn % 2 == 1 {
            c.kill(behind);
            c.write(1, 0, blocks)?;
        }
        if c.make_object_unreadable(bad, IMAGE, 0) == 0 {
            return Err(broken("nothing of what was written is on the disk"));
        }
        c.start(behind);
        c.read(1, 0, blocks)?;
        c.become_whole()?;
        c.scrub(ScrubOrder::Scrub)?;
    }
    Ok(())
}
