//! Members say what they hold while that is still on its way to their disks; then they lose their power.
//! Goal: what an interval was recorded with is durable: a member flushes before it states anything.
//! Method: slow disks; the primary is killed with writes on their way; as soon as its successor recorded the interval, both
//! others lose their power with all that is not durable; everything starts again.
//! Stands for: C1, C2, F12, J1

use super::{ms, on_disks, three, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use ashlar_faultinject::disk::Outcome;

pub(super) fn configure(config: Config) -> Config {
    let mut config = on_disks(three(config), 20_000);
    config.pg_count = 1;
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let pg = c.pg(0);
    for turn in 0..3u32 {
        c.write(0, turn, 3)?;
        let acting = c.acting(pg);
        let Some((primary, others)) = acting.split_first() else { continue };
        let write = c.start_write(0, turn, 2);
        let moment = c.world.draw(us(200), ms(12));
        c.run_for(moment)?;
        let before = c.pg_history(pg).map(|history| history.last);
        c.kill(*primary);
        c.run_until(ms(5_000), |c| c.pg_history(pg).map(|history| history.last) > before)?;
        for other in others {
            let host = c.world.host_of(*other);
            c.power_off(host, Outcome::LoseAll);
            c.world.power_on(host);
            c.start(*other);
        }
        c.start(*primary);
        c.wait(write)?;
        c.read(1, 0, 8)?;
        c.become_whole()?;
    }
    Ok(())
}
