//! Deleted objects of chunks are being forgotten, which some members have done and others have not, when everybody dies.
//! Goal: one member that remembers a deletion is enough to know of it, so the group is served again.
//! Method: many objects are written and deleted, the epoch changes, and while tombstones go all OSDs lose their power.
//! Stands for: A12, B14, E11, H8

use super::{chunks, epoch_of, ms, new_epoch, on_disks, power_cycle, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

const OBJECTS: u32 = 24;

pub(super) fn configure(config: Config) -> Config {
    let write_us = 100 + config.seed % 7 * 300;
    let mut config = on_disks(chunks(config, 2, 1, 3), write_us);
    (config.pg_count, config.image_objects) = (1, OBJECTS);
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let (pg, blocks) = (c.pg(0), c.config().object_blocks);
    for _ in 0..3 {
        for object in 0..OBJECTS {
            c.write(0, object * blocks, 1)?;
        }
        for object in 0..OBJECTS {
            c.discard(0, object * blocks, blocks)?;
        }
        // With this, it says that it saw all answers.
        c.write(0, 0, 1)?;
        c.become_whole()?;
        let acting = c.acting(pg);
        let before = epoch_of(c, pg);
        c.end_session(acting[1]);
        new_epoch(c, pg, before)?;
        let moment = c.world.draw(us(500), ms(60));
        c.run_for(moment)?;
        power_cycle(c)?;
        c.become_whole()?;
        c.read(1, 0, 2 * blocks)?;
    }
    Ok(())
}
