//! A primary falls asleep while it peers, is replaced, and wakes up with all its members' answers.
//! Goal: what it would record then is refused: the history is as its successor recorded it.
//! Method: a member's session ends, so that the primary peers anew; it is stopped within a few milliseconds and its session
//! ends, too; another one serves and is written to; the first one goes on.
//! Stands for: A4, A10, A16, J1

use super::{epoch_of, ms, new_epoch, one_group, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

pub(super) fn configure(config: Config) -> Config {
    one_group(config)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let pg = c.pg(0);
    for turn in 0..6u32 {
        c.write(0, turn % 4, 2)?;
        let acting = c.acting(pg);
        let [primary, other, ..] = acting[..] else { continue };
        let before = epoch_of(c, pg);
        c.end_session(other);
        new_epoch(c, pg, before)?;
        let moment = c.world.draw(us(1), ms(6));
        c.run_for(moment)?;
        c.world.pause(primary, ms(60_000));
        c.end_session(primary);
        let write = c.start_write(1, 1, 2);
        c.run_until(ms(5_000), |c| c.is_done(write))?;
        c.world.resume(primary);
        let moment = c.world.draw(ms(1), ms(300));
        c.run_for(moment)?;
        c.wait(write)?;
        c.read(0, 0, 6)?;
        c.become_whole()?;
    }
    Ok(())
}
