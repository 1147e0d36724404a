//! Only one of those that have everything can be asked, and as soon as the group serves again its disk is lost.
//! Goal: a group with fewer holders than it needs serves only when it has enough of them again.
//! Method: one of three members is away while all objects are written, a second one is killed, the first comes back; as soon
//! as the group serves, the third one's disk is replaced by an empty one, and the second comes back.
//! Stands for: A14, A12, B13

use super::{ms, on_disks, three};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

const OBJECTS: u32 = 40;

pub(super) fn configure(config: Config) -> Config {
    let mut config = on_disks(three(config), 2_000);
    (config.pg_count, config.image_objects, config.object_blocks) = (1, OBJECTS, 8);
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let pg = c.pg(0);
    for _ in 0..2 {
        let acting = c.acting(pg);
        let [holder, other, absent] = acting[..] else { return Ok(()) };
        c.kill(absent);
        c.run_until(ms(5_000), |c| c.acting(pg).len() == 2 && c.serves_newest(pg))?;
        c.fill(1)?;
        c.kill(other);
        c.start(absent);
        c.run_until(ms(15_000), |c| c.acting(pg).contains(&absent) && c.serves_newest(pg))?;
        let write = c.start_write(0, 1, 2);
        let moment = c.world.draw(ms(1), ms(40));
        c.run_for(moment)?;
        c.kill(holder);
        if !c.world.is_running(holder) {
            c.wipe(holder);
        }
        c.start(other);
        c.start(holder);
        c.wait(write)?;
        c.become_whole()?;
    }
    Ok(())
}
