//! A disk is replaced while the other one with the same data is only away.
//! Goal: the empty disk does not speak for the one that it replaces: the group waits for who has the data.
//! Method: one of three members is away, clients write, the other two are killed; one of them comes back with an empty disk,
//! together with the one that was away; the other one comes later.
//! Stands for: A2, A12, A17

use super::{ms, one_group};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

pub(super) fn configure(config: Config) -> Config {
    one_group(config)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let pg = c.pg(0);
    for turn in 0..3u32 {
        c.write(0, 0, 6)?;
        let acting = c.acting(pg);
        let [replaced, other, absent] = acting[..] else { return Ok(()) };
        c.kill(absent);
        c.run_until(ms(5_000), |c| c.acting(pg).len() == 2 && c.serves_newest(pg))?;
        c.write(1, turn, 3)?;
        c.kill(replaced);
        c.kill(other);
        if !c.world.is_running(replaced) {
            c.wipe(replaced);
        }
        c.start(replaced);
        c.start(absent);
        let read = c.start_read(0, 0, 6);
        let moment = c.world.draw(ms(500), ms(5_000));
        c.run_for(moment)?;
        c.start(other);
        c.wait(read)?;
        c.become_whole()?;
    }
    Ok(())
}
