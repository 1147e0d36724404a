//! A primary that removes an image loses its members, then dies, between the first deletion and the last.
//! Goal: that nothing is left of the image is reported when that is so, by whoever is primary then.
//! Method: the primary is cut off from the other members, but not from the metadata store; the image is removed; the primary
//! is killed; its successors have all of the image.
//! Stands for: H6, H7, H9

use super::{ms, one_group};
use crate::check::history::{BLOCK, Finding};
use crate::cluster::{Cluster, Config};

const OBJECTS: u32 = 4;

pub(super) fn configure(config: Config) -> Config {
    one_group(config)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    for _ in 0..3 {
        let image = c.create_image("passing", BLOCK, OBJECTS);
        c.settle_down()?;
        c.fill_image(image, OBJECTS, 3)?;
        let acting = c.acting(c.pg(0));
        let Some((primary, others)) = acting.split_first() else { continue };
        c.partition(&[*primary], others);
        c.remove_image(image);
        let moment = c.world.draw(ms(3), ms(120));
        c.run_for(moment)?;
        c.kill(*primary);
        c.heal();
        let moment = c.world.draw(ms(1), ms(1500));
        c.run_for(moment)?;
        c.start(*primary);
        c.finish_removals()?;
        c.become_whole()?;
    }
    Ok(())
}
