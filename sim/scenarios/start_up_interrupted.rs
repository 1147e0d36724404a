//! OSDs die again while they start: while they read their logs, register, or peer.
//! Goal: a start that was cut short leaves nothing behind that the next one stumbles over.
//! Method: writes, then all OSDs die, and each is started and killed within milliseconds, over and over, by its process or by
//! its power.
//! Stands for: F17, F3, E8, B12

use super::{ms, on_disks, three, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use ashlar_faultinject::disk::Outcome;

pub(super) fn configure(config: Config) -> Config {
    on_disks(three(config), 300)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    for turn in 0..3u32 {
        for n in 0..6 {
            c.start_write(n % 2, turn + u32::try_from(n).expect("few"), 4);
        }
        let moment = c.world.draw(us(500), ms(10));
        c.run_for(moment)?;
        c.power_off_everything(Outcome::Sectors);
        for _ in 0..5 {
            c.start_everything();
            let moment = if c.world.rng().chance(1, 2) { c.world.draw(us(100), ms(15)) } else { c.world.draw(ms(15), ms(900)) };
            c.run_for(moment)?;
            for osd in c.osds().to_vec() {
                let outcome = Outcome::draw(c.world.rng());
                let host = c.world.host_of(osd);
                if c.world.rng().chance(1, 2) { c.power_off(host, outcome) } else { c.kill(osd) }
            }
        }
        c.start_everything();
        c.read(0, 0, 12)?;
    }
    Ok(())
}
