//! Every disk of the cluster is replaced, one after the other, each under its OSD's number.
//! Goal: an empty disk is never taken for the one that was there, and after the last one everything is still there.
//! Method: whenever all is whole, an OSD is killed and its disk replaced by an empty one, with writes on their way; sometimes
//! it dies again while it is filled.
//! Stands for: A2, A12, D1, I1

use super::{ms, three};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

pub(super) fn configure(config: Config) -> Config {
    let mut config = three(config);
    (config.image_objects, config.object_blocks) = (24, 8);
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    c.fill(0)?;
    for (turn, osd) in c.osds().to_vec().into_iter().enumerate() {
        c.become_whole()?;
        c.start_write(0, 0, 3);
        c.start_write(1, 2, 3);
        c.kill(osd);
        c.wipe(osd);
        let moment = c.world.draw(ms(1), ms(2000));
        c.run_for(moment)?;
        c.start(osd);
        let moment = c.world.draw(ms(10), ms(1500));
        c.run_for(moment)?;
        if turn % 2 == 1 {
            c.kill(osd);
            c.write(0, 1, 2)?;
            c.start(osd);
        }
        c.read(1, 0, 8)?;
    }
    c.become_whole()
}
