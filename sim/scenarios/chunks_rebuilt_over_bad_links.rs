//! Chunks are computed for an empty disk from others that came over a network which flips bits.
//! Goal: what is computed is computed from what was sent; a chunk that was damaged on its way is asked for again, since the
//! one that is made of it would have a checksum of its own.
//! Method: objects of chunks on four OSDs; disks are replaced in turn, and while they are filled one message in 300 is
//! damaged; then everything is read.
//! Stands for: E2, E3, B18

use super::{broken, chunks};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use ashlar_core::time::Duration;

pub(super) fn configure(config: Config) -> Config {
    let mut config = chunks(config, 2, 1, 4);
    config.image_objects = config.image_objects.max(12);
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let blocks = c.config().object_blocks;
    for object in 0..c.config().image_objects {
        c.write(0, object * blocks, blocks)?;
    }
    for osd in [c.osds()[0], c.osds()[1]] {
        c.become_whole()?;
        c.kill(osd);
        c.wipe(osd);
        c.start(osd);
        c.world.set_damage_of_links(3_000);
        let whole = c.run_until(Duration::secs(120), Cluster::all_whole)?;
        c.world.set_damage_of_links(0);
        if !whole {
            return Err(broken(format!("a disk is not filled over bad links: {}", c.describe_stuck())));
        }
    }
    Ok(())
}
