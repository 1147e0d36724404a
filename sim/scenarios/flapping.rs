//! An OSD crashes over and over, as often as it is started, while clients write.
//! Goal: after some falls it is held down, for longer each time, and nobody peers because of it meanwhile; when it has calmed
//! down, it serves again, by itself; whoever leads the monitors knows.
//! Method: a member falls six times within seconds, under changing leaders; then it stays.
//! Stands for: I1, I6

use super::{broken, four, ms};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use ashlar_core::time::Duration;

/// Falls that are allowed.
const LIMIT: u32 = 3;
/// Longer than the pauses between falls.
const HOLD_S: u64 = 4;

pub(super) fn configure(config: Config) -> Config {
    Config { mons: 2, ..four(config) }
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.hold_who_flaps(LIMIT, HOLD_S);
    c.settle_down()?;
    c.fill(1)?;
    let pg = c.pg(0);
    let Some(restless) = c.acting(pg).last().copied() else { return Ok(()) };
    for fall in 1..=6u32 {
        c.kill(restless);
        c.write(0, 0, 2)?;
        let moment = c.world.draw(ms(300), ms(900));
        c.run_for(moment)?;
        if fall == 5 {
            c.kill(c.mons()[0]);
        }
        c.start(restless);
        c.run_for(ms(1500))?;
        if fall == 5 {
            c.start(c.mons()[0]);
        }
        let serves = c.acting(pg).contains(&restless);
        if fall > LIMIT + 1 && serves {
            return Err(broken(format!("{restless:?} is let in after fall {fall}")));
        }
    }
    if !c.run_until(Duration::secs(60), |c| c.acting(pg).contains(&restless))? {
        return Err(broken(format!("{restless:?} is never let in again: {}", c.describe_stuck())));
    }
    c.become_whole()
}
