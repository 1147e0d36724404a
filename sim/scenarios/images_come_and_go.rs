//! Images are created and removed at once, faster than news of them reach everybody.
//! Goal: every removal ends: what a group reports of an image is not dropped by who has not heard of the image.
//! Method: a dozen images, each removed within milliseconds; the monitors' news lag at times.
//! Stands for: A20, H7, I6

use super::{broken, ms, three};
use crate::check::history::{BLOCK, Finding};
use crate::cluster::{Cluster, Config};

pub(super) fn configure(config: Config) -> Config {
    three(config)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    for n in 0..16 {
        let image = c.create_image(&format!("passing{n}"), BLOCK, 2);
        let moment = c.world.draw(ms(0), ms(4));
        c.run_for(moment)?;
        c.remove_image(image);
        let moment = c.world.draw(ms(0), ms(200));
        c.run_for(moment)?;
    }
    if !c.run_until(ms(60_000), Cluster::removals_done)? {
        return Err(broken(format!("an image is still being removed: {}", c.describe_stuck())));
    }
    Ok(())
}
