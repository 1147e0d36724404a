//! An operator puts the disks of two OSDs into each other's places.
//! Goal: neither OSD takes the other's disk for its own; with the disks back in their places nothing is missing.
//! Method: two OSDs are stopped, their disks exchanged, and started; clients wait or go on; the disks are put right.
//! Stands for: A17

use super::{four, ms, on_disks};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

pub(super) fn configure(config: Config) -> Config {
    on_disks(four(config), 100)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    c.fill(0)?;
    let pair = [c.osds()[0], c.osds()[1]];
    for turn in 0..2u32 {
        exchange(c, pair);
        pair.iter().for_each(|osd| c.start(*osd));
        c.start_write(1, turn, 2);
        let wait = c.world.draw(ms(200), ms(4000));
        c.run_for(wait)?;
        exchange(c, pair);
        pair.iter().for_each(|osd| c.start(*osd));
        c.write(0, turn + 2, 2)?;
        c.read(1, 0, 8)?;
    }
    Ok(())
}

fn exchange(c: &mut Cluster, [one, other]: [crate::world::NodeId; 2]) {
    c.kill(one);
    c.kill(other);
    let disk = c.copy_disk(one);
    let disk = c.exchange_disk(other, disk);
    c.exchange_disk(one, disk);
}
