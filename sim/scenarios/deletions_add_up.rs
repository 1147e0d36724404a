//! Where nothing fails, tombstones go, too.
//! Goal: what deletions leave behind does not pile up in a cluster whose epochs last.
//! Method: an image of many small objects in one group is removed, and then nothing happens for a long time.
//! Stands for: H9

use super::{broken, epoch_of, ms, one_group};
use crate::check::history::{BLOCK, Finding};
use crate::cluster::{Cluster, Config};

/// Above the number of deletions that are worth a new epoch.
const OBJECTS: u32 = 520;
/// Room for all of them, whatever an object's size.
const DISK_BYTES: u64 = 128 << 20;

pub(super) fn configure(config: Config) -> Config {
    Config { disk_bytes: DISK_BYTES, ..one_group(config) }
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    let image = c.create_image("passing", BLOCK, OBJECTS);
    c.settle_down()?;
    c.fill_image(image, OBJECTS, 1)?;
    let group = c.pg_of_block(0);
    let epoch = epoch_of(c, group).map(|epoch| epoch.0);
    c.remove_image(image);
    c.finish_removals()?;
    for _ in 0..20 {
        c.run_for(ms(60_000))?;
    }
    if c.remains_of(image) > 0 {
        return Err(broken(format!("{} copies of a removed image remain", c.remains_of(image))));
    }
    let now = epoch_of(c, group).map(|epoch| epoch.0);
    if now > epoch.map(|epoch| epoch + 1) {
        return Err(broken(format!("from epoch {epoch:?} to {now:?} to drop tombstones")));
    }
    Ok(())
}
