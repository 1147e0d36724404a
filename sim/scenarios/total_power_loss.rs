//! The power goes everywhere in the middle of writes, with volatile caches.
//! Goal: every acknowledged write is there; every other one is there wholly or not at all.
//! Method: both clients write without pause; all hosts lose power at a random moment; five times.
//! Stands for: G5, F12, C1, F5

use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use super::{three, ms, us};
use ashlar_faultinject::disk::Outcome;

pub(super) fn configure(config: Config) -> Config {
    three(config)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    for turn in 0..5u32 {
        for n in 0..4 {
            c.start_write(0, (turn + n) % 8, 3);
            c.start_write(1, (turn * 2 + n) % 8, 1);
        }
        let moment = c.world.draw(us(200), ms(6));
        c.run_for(moment)?;
        let outcome = Outcome::draw(c.world.rng());
        c.power_off_everything(outcome);
        c.run_for(ms(200))?;
        c.start_everything();
        c.read(0, 0, 12)?;
    }
    Ok(())
}
