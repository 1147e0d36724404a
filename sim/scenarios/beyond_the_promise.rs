//! More fails than any pool promises to survive: disks are replaced while others are away, and rot everywhere.
//! Goal: what is lost may be refused, for good; what is answered is right.
//! Method: a load; disks are replaced at any moment, pages of any disk rot or cannot be read, OSDs crash.
//! Stands for: A12, E15, D1

use super::{four, ms, on_disks, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config, IMAGE};
use ashlar_core::time::Duration;
use ashlar_faultinject::mix::{FaultKind, FaultMix};

pub(super) fn configure(config: Config) -> Config {
    let mut config = on_disks(four(config), 100);
    config.mix = FaultMix::none().with(FaultKind::Crash, Duration::secs(2)).with(FaultKind::Reset, Duration::secs(1));
    (config.load.operations, config.load.depth, config.load.think) = (400, 4, us(20_000));
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.expect_losses();
    c.settle_down()?;
    c.start_faults();
    c.start_load();
    let (objects, blocks) = (c.config().image_objects, c.config().object_blocks);
    for turn in 0..8u32 {
        let moment = c.world.draw(ms(50), ms(1500));
        c.run_for(moment)?;
        let osd = c.osds()[turn as usize * 3 % 4];
        let block = turn % objects * blocks;
        match turn % 4 {
            0 => drop(c.rot_object(osd, IMAGE, block)),
            1 => drop(c.make_object_unreadable(osd, IMAGE, block)),
            _ => {
                c.kill(osd);
                c.wipe(osd);
                c.world.start_after(osd, ms(100));
            }
        }
    }
    c.run_until(Duration::secs(20), |c| c.load_done()).map(drop)
}
