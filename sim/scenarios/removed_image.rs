//! An image is removed while one OSD is down and another one dies, and made again under the same name.
//! Goal: its removal ends by itself, nothing of it comes back with the OSD that missed it, and the new image is empty.
//! Method: two clients write the image; a member is killed, the image removed, a primary killed; everything starts again.
//! Three times.
//! Stands for: H6, H7, H8, H9

use super::{ms, three};
use crate::check::history::{BLOCK, Finding};
use crate::cluster::{Ask, Cluster, Config};

const OBJECTS: u32 = 4;

pub(super) fn configure(config: Config) -> Config {
    three(config)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    for _ in 0..3 {
        let image = c.create_image("passing", BLOCK, OBJECTS);
        c.settle_down()?;
        let per_object = c.config().object_blocks;
        let read = c.start_on(0, image, 0, per_object * OBJECTS, Ask::Read);
        c.wait(read)?;
        let writes: Vec<u32> =
            (0..OBJECTS).map(|object| c.start_on(0, image, object * per_object, 3, Ask::Write)).collect();
        for write in writes {
            c.wait(write)?;
        }
        let acting = c.acting(c.pg_of_image(image, 0));
        let absent = acting[acting.len() - 1];
        c.kill(absent);
        for object in 0..OBJECTS {
            c.start_on(1, image, object * per_object + 1, 2, Ask::Write);
        }
        let moment = c.world.draw(ms(1), ms(3000));
        c.run_for(moment)?;
        c.remove_image(image);
        let moment = c.world.draw(ms(1), ms(400));
        c.run_for(moment)?;
        c.kill(acting[0]);
        let moment = c.world.draw(ms(1), ms(2000));
        c.run_for(moment)?;
        c.start(acting[0]);
        c.start(absent);
        c.finish_removals()?;
    }
    Ok(())
}
