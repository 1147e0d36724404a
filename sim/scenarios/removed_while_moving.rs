//! An image is removed just when its group's new primary has almost nothing of it yet.
//! Goal: who looks for what is left of an image looks also for what it lacks: nothing comes back by recovery.
//! Method: as in `nobody_has_everything`; the image goes in the moment in which the primary is killed.
//! Stands for: H6, H7, H9

use super::nobody_has_everything::{OBJECTS, bereave};
use super::{ms};
use crate::check::history::{BLOCK, Finding};
use crate::cluster::{Cluster};

pub(super) use super::nobody_has_everything::configure;

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    c.fill(1)?;
    for _ in 0..3 {
        let image = c.create_image("passing", BLOCK, OBJECTS);
        c.settle_down()?;
        c.fill_image(image, OBJECTS, 2)?;
        let dead = bereave(c, |c| {
            let moment = c.world.draw(ms(0), ms(60));
            c.run_for(moment)?;
            c.remove_image(image);
            Ok(())
        })?;
        let Some(dead) = dead else { break };
        let moment = c.world.draw(ms(1), ms(1500));
        c.run_for(moment)?;
        c.start(dead);
        c.finish_removals()?;
        c.become_whole()?;
    }
    Ok(())
}
