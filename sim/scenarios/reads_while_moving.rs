//! Reads of objects whose group is moving to OSDs that do not have them yet.
//! Goal: never zeroes in place of data, never a copy that is being replaced or removed.
//! Method: the image is filled, an OSD is taken out and in again; both clients read everything, again and again.
//! Stands for: D1, D5, B26

use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use super::{four, ms};
use ashlar_core::id::OsdId;

pub(super) fn configure(config: Config) -> Config {
    four(config)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let (blocks, objects) = (c.config().object_blocks, c.config().image_objects);
    for stripe in 0..objects {
        c.write(0, stripe * blocks, blocks)?;
    }
    for turn in 0..3u32 {
        c.reweight(OsdId(1 + turn % c.config().osds), 0.0);
        for _ in 0..6 {
            c.run_for(ms(300))?;
            for stripe in 0..objects {
                c.start_read(1, stripe * blocks, blocks);
            }
            c.read(0, 0, blocks)?;
        }
        c.reweight(OsdId(1 + turn % c.config().osds), 1.0);
    }
    Ok(())
}
