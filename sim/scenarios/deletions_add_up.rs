//! Where nothing fails, tombstones go, too.
//! Goal: what deletions leave behind does not pile up in a cluster whose epochs last.
//! Method: an image of many small objects in one group is removed, and then nothing happens for a long time.
//! Stands for: H9

use super::{broken, ms, three};
use crate::check::history::{BLOCK, Finding};
use crate::cluster::{Ask, Cluster, Config};

/// Above the number of deletions that are worth a new epoch.
const OBJECTS: u32 = 520;
/// Room for all of them, whatever an object's size.
const DISK_BYTES: u64 = 128 << 20;

pub(super) fn configure(config: Config) -> Config {
    Config { pg_count: 1, disk_bytes: DISK_BYTES, ..three(config) }
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    let image = c.create_image("passing", BLOCK, OBJECTS);
    c.settle_down()?;
    let per_object = c.config().object_blocks;
    for object in 0..OBJECTS {
        let write = c.start_on(0, image, object * per_object, 1, Ask::Write);
        c.wait(write)?;
    }
    let group = c.pg_of_block(0);
    let epoch = c.epoch_of(group);
    c.remove_image(image);
    if !c.run_until(ms(60_000), Cluster::removals_done)? {
        return Err(broken(format!("an image is not removed: {}", c.describe_stuck())));
    }
    for _ in 0..20 {
        c.run_for(ms(60_000))?;
    }
    if c.remains_of(image) > 0 {
        return Err(broken(format!("{} copies of a removed image remain", c.remains_of(image))));
    }
    let epochs = c.epoch_of(group) - epoch;
    if epochs > 1 {
        return Err(broken(format!("{epochs} epochs to drop tombstones")));
    }
    Ok(())
}
