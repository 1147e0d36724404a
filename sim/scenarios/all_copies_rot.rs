//! Every copy of an object rots: more than was promised to survive.
//! Goal: it is said that the object is damaged; nothing is invented; it can be deleted, and written anew.
//! Method: an object is written and rots on all its members; it is read, scrubbed, deleted, written and read.
//! Stands for: E15

use super::{broken, ms, on_disks, three};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config, IMAGE};
use ashlar_core::map::ScrubOrder;

pub(super) fn configure(config: Config) -> Config {
    on_disks(three(config), 100)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.expect_losses();
    c.settle_down()?;
    let blocks = c.config().object_blocks;
    c.write(0, 0, blocks)?;
    c.write(0, blocks, blocks)?;
    for osd in c.osds().to_vec() {
        if c.rot_object(osd, IMAGE, 0) == 0 {
            return Err(broken("nothing of what was written is on the disk"));
        }
    }
    let read = c.start_read(1, 0, blocks);
    if !c.run_until(ms(20_000), |c| c.has_failed(read))? {
        return Err(broken("an object without a good copy was read, or the read is stuck"));
    }
    c.order_scrub(ScrubOrder::Repair);
    c.run_for(ms(5000))?;
    c.read(0, blocks, blocks)?;
    c.discard(0, 0, blocks)?;
    c.write(1, 1, 2)?;
    c.read(0, 0, blocks).map(drop)
}
