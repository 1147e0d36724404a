//! Bits rot on the disk of the member that serves.
//! Goal: clients never see it: the copy is repaired from another member, then read.
//! Method: an object is written, its pages rot on the primary's disk, or cannot be read any more; clients read it and write
//! parts of it at once.
//! Stands for: F15, D9, G10

use super::{broken, on_disks, three};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config, IMAGE};

pub(super) fn configure(config: Config) -> Config {
    on_disks(three(config), 100)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let blocks = c.config().object_blocks;
    for turn in 0..6u32 {
        c.write(0, 0, blocks)?;
        let primary = c.primary(c.pg_of_block(0)).expect("somebody serves");
        let damaged = match turn % 2 {
            0 => c.rot_object(primary, IMAGE, 0),
            _ => c.make_object_unreadable(primary, IMAGE, 0),
        };
        if damaged == 0 {
            return Err(broken("nothing of what was written is on the disk"));
        }
        let read = c.start_read(1, 0, blocks);
        c.start_write(0, 2, 1);
        c.wait(read)?;
        c.read(0, 0, blocks)?;
    }
    Ok(())
}
