//! New objects race for the last blocks of small disks, so that one gets its place on some members and not on others; and
//! power goes in the midst of it.
//! Goal: every write ends; who got a place only here and there is withdrawn; the groups are served soon, without an epoch
//! after the other; what is there can be deleted.
//! Method: disks are filled; then many writes to objects that did not fit, at once, through several primaries; every other
//! time power is lost everywhere meanwhile. At the end half of what is there is deleted.
//! Stands for: E11, J4, A7

use super::{broken, ms, on_disks, three, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use ashlar_faultinject::disk::Outcome;

/// More than fit: a disk has less than 64 blocks of 128 KiB.
const OBJECTS: u32 = 80;
/// Objects that surely fit.
const SMALL: u32 = 30;
const TURNS: u32 = 8;
/// Epochs of one group in one turn: some for each OSD that goes and comes, and a few for want of space.
const EPOCHS: u64 = 40;

pub(super) fn configure(config: Config) -> Config {
    let mut config = on_disks(three(config), 200);
    (config.disk_bytes, config.object_blocks, config.image_objects) = (8 << 20, 32, OBJECTS);
    config.pg_count = 4;
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let blocks = c.config().object_blocks;
    for object in 0..SMALL {
        c.write(0, object * blocks + object % 4, 1)?;
    }
    let before = epochs(c);
    for turn in 0..TURNS {
        let object_of = |n: u32| SMALL + (turn * 11 + n * 7) % (OBJECTS - SMALL);
        let ops: Vec<u32> = (0..20).map(|n| c.start_write(n as usize % 2, object_of(n) * blocks + n, 1)).collect();
        let moment = c.world.draw(us(50), ms(4));
        c.run_for(moment)?;
        if turn % 2 == 1 {
            c.power_off_everything(if turn % 4 == 1 { Outcome::LoseAll } else { Outcome::KeepAll });
            c.run_for(ms(200))?;
            c.start_everything();
        }
        let ended = |c: &mut Cluster| ops.iter().all(|op| c.is_done(*op) || c.has_failed(*op));
        if !c.run_until(ms(90_000), ended)? {
            return Err(broken(format!("a write for which there is no space is stuck: {}", c.describe_stuck())));
        }
    }
    let epochs = epochs(c) - before;
    if epochs > EPOCHS * u64::from(TURNS) {
        return Err(broken(format!("{epochs} epochs")));
    }
    for object in (0..OBJECTS).step_by(2) {
        c.discard(0, object * blocks, blocks)?;
    }
    // Who was left out for want of space comes back after a minute.
    c.run_for(ms(70_000))?;
    c.become_whole()
}

/// Epochs of all groups so far.
fn epochs(c: &mut Cluster) -> u64 {
    (0..4).filter_map(|place| c.pg_map(c.pg(place))).map(|map| map.epoch.0).sum()
}
