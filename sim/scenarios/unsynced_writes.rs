//! A pool that keeps nothing without a flush loses power, in all its hosts, while its client lives.
//! Goal: the client sees all it ever wrote, in order, since it replays what was not synced; a flush that was answered
//! vouches for everything before it, also when the client goes together with the power.
//! Method: the client overwrites a few objects, flushes now and then, and reads; all other hosts lose power again and
//! again, with everything in volatile caches; primaries change without a loss in between. At the end the client flushes,
//! and is killed before the power goes; another one reads.
//! Stands for: C1, F5, F12

use super::{ms, three, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use ashlar_core::map::ImmediateCommit;
use ashlar_faultinject::disk::Outcome;

pub(super) fn configure(config: Config) -> Config {
    Config { immediate_commit: ImmediateCommit::None, ..three(config) }
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    for turn in 0..6u32 {
        for n in 0..8 {
            c.start_write(0, (turn + n * 3) % 8, 1 + n % 3);
            let pause = c.world.draw(us(50), ms(3));
            c.run_for(pause)?;
        }
        if turn % 2 == 1 {
            c.flush(0)?;
            c.start_write(0, turn, 2);
        }
        let moment = c.world.draw(us(200), ms(30));
        c.run_for(moment)?;
        if turn % 3 == 2 {
            let primary = c.primary(c.pg(0)).expect("somebody is primary");
            c.kill(primary);
        } else {
            c.power_off_everything(Outcome::LoseAll);
        }
        c.run_for(ms(200))?;
        c.start_everything();
        c.read(0, 0, 12)?;
    }
    c.flush(0)?;
    let writer = c.client_node(0);
    c.kill(writer);
    c.power_off_everything(Outcome::LoseAll);
    c.run_for(ms(200))?;
    c.start_everything();
    c.read(1, 0, 12).map(drop)
}
