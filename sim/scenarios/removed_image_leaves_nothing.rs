//! After an image was removed, and the groups have peered once more, no disk holds anything of it.
//! Goal: removed is removed: neither data nor tombstones pile up.
//! Method: an image is written, wholly and in parts, and removed while its groups move; then a member restarts.
//! Stands for: H9, C18, H7

use super::{broken, four, ms};
use crate::check::history::{BLOCK, Finding};
use crate::cluster::{Ask, Cluster, Config};
use ashlar_core::id::OsdId;

const OBJECTS: u32 = 6;

pub(super) fn configure(config: Config) -> Config {
    four(config)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    let image = c.create_image("passing", BLOCK, OBJECTS);
    c.settle_down()?;
    let per_object = c.config().object_blocks;
    for object in 0..OBJECTS {
        let write = c.start_on(0, image, object * per_object, 1 + object % per_object, Ask::Write);
        c.wait(write)?;
    }
    c.reweight(OsdId(1), 0.0);
    let moment = c.world.draw(ms(1), ms(1500));
    c.run_for(moment)?;
    c.remove_image(image);
    c.finish_removals()?;
    c.reweight(OsdId(1), 1.0);
    c.run_for(ms(3000))?;
    c.become_whole()?;
    for osd in c.osds().to_vec() {
        c.kill(osd);
        c.run_for(ms(50))?;
        c.start(osd);
        c.run_for(ms(6000))?;
        c.become_whole()?;
    }
    if c.run_until(ms(30_000), |c| c.remains_of(image) == 0)? {
        return Ok(());
    }
    Err(broken(format!("{} copies of a removed image remain", c.remains_of(image))))
}
