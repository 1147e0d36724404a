//! Disks fill up unevenly under a pool of chunks, so that a write finds no space on some members only.
//! Goal: it is withdrawn from all of them, its version is not given to other bytes, and the object stays writable.
//! Method: four small disks for groups of three; an image too large for them is written; everything is read; a part is
//! deleted, and the rest written again.
//! Stands for: E11, J4, E13, E14

use super::{broken, chunks, ms, on_disks};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

const OBJECTS: u32 = 120;
/// Objects that one write touches: few writes fill the disks.
const TOUCHED: u32 = 5;

pub(super) fn configure(config: Config) -> Config {
    let mut config = on_disks(chunks(config, 2, 1, 4), 200);
    (config.disk_bytes, config.object_blocks, config.image_objects) = (8 << 20, 64, OBJECTS);
    config.pg_count = 3;
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let blocks = c.config().object_blocks;
    let mut refused = Vec::new();
    for object in (0..OBJECTS).step_by(TOUCHED as usize) {
        let length = (TOUCHED - 1) * blocks + 2;
        let op = c.start_write(object as usize % 2, object * blocks + object % 8, length);
        if !c.run_until(ms(30_000), |c| c.is_done(op) || c.has_failed(op))? {
            return Err(broken(format!("a write without space is stuck: {}", c.describe_stuck())));
        }
        if c.has_failed(op) {
            refused.push(object);
        }
    }
    if refused.is_empty() {
        return Err(broken("more fits on the disks than there is room"));
    }
    for object in 0..OBJECTS {
        c.start_read(1, object * blocks, 8);
    }
    for object in 0..30 {
        c.discard(0, object * blocks, blocks)?;
    }
    c.run_for(ms(3000))?;
    for object in refused.into_iter().take(5) {
        c.write(0, object * blocks + 1, 2)?;
    }
    Ok(())
}
