//! A member dies while a flush waits for it.
//! Goal: the flush ends soon, with the members that are left or once the writes are replayed; clients never hang on a dead
//! OSD.
//! Method: a lazy pool; writes and a flush; a member is killed or its disk stops just then, and comes back seconds later.
//! Stands for: C5, C7, C19, B9

use super::{broken, lazy, ms, three, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

pub(super) fn configure(config: Config) -> Config {
    lazy(three(config))
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    for turn in 0..5usize {
        for n in 0..6 {
            c.start_write(0, n, 2);
        }
        let moment = c.world.draw(us(10), ms(5));
        c.run_for(moment)?;
        let flush = c.start_flush(0)?;
        let moment = c.world.draw(us(1), ms(2));
        c.run_for(moment)?;
        let member = c.osds()[turn % 3];
        c.kill(member);
        if !c.wait_for(flush, ms(30_000))? {
            return Err(broken(format!("a flush waits for a dead OSD: {}", c.describe_stuck())));
        }
        c.read(0, 0, 6)?;
        c.start(member);
        c.become_whole()?;
    }
    Ok(())
}
