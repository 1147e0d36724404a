//! Disks fill up until clients are refused; then something is deleted.
//! Goal: no space is said when there is none, to new objects only; whoever deletes gets space again; a member that was
//! away while disks are full is recovered.
//! Method: small disks; every object of an image too large for them is written once; those that are there are written
//! again; a member restarts; a part is deleted and written anew.
//! Stands for: E11, J4, G6, F9

use super::{broken, ms, on_disks, three};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

/// More than fit: a disk has less than 64 blocks of 128 KiB.
const OBJECTS: u32 = 80;

pub(super) fn configure(config: Config) -> Config {
    let mut config = on_disks(three(config), 200);
    (config.disk_bytes, config.object_blocks, config.image_objects) = (8 << 20, 32, OBJECTS);
    config.pg_count = 2;
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let blocks = c.config().object_blocks;
    let mut there = Vec::new();
    for object in 0..OBJECTS {
        if write(c, object * blocks + object % 4)? {
            there.push(object);
        }
    }
    if there.len() == OBJECTS as usize || there.len() < 16 {
        return Err(broken(format!("{} of {OBJECTS} objects fit on the disks", there.len())));
    }
    let away = c.osds()[1];
    c.kill(away);
    for object in there.iter().step_by(3) {
        c.write(1, object * blocks + 5, 3)?;
    }
    c.start(away);
    c.become_whole()?;
    for object in there.iter().take(10) {
        c.discard(0, object * blocks, blocks)?;
    }
    c.run_for(ms(3000))?;
    for object in there.iter().take(5) {
        if !write(c, object * blocks)? {
            return Err(broken("there is no space where objects were deleted"));
        }
    }
    Ok(())
}

/// Writes a block; false: refused.
fn write(c: &mut Cluster, block: u32) -> Result<bool, Finding> {
    let op = c.start_write(0, block, 1);
    let ended = |c: &mut Cluster| c.is_done(op) || c.has_failed(op);
    if c.run_until(ms(30_000), ended)? {
        return Ok(c.is_done(op));
    }
    Err(broken(format!("a write without space is stuck: {}", c.describe_stuck())))
}
