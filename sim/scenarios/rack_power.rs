//! A rack loses its power: two hosts at once, of six in three racks.
//! Goal: no group has two members in one rack, so every group goes on, and nothing acknowledged is missing.
//! Method: writes without pause; each rack in turn loses its power with everything in volatile caches, for seconds.
//! Stands for: I4, A2, C1

use super::{ms, scripted, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use ashlar_faultinject::disk::Outcome;

pub(super) fn configure(config: Config) -> Config {
    let mut config = scripted(config, 6);
    (config.osds, config.racks) = (6, true);
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    c.fill(0)?;
    for rack in 0..3usize {
        for n in 0..6 {
            c.start_write(0, n, 2);
            c.start_write(1, n + 1, 1);
        }
        let moment = c.world.draw(us(100), ms(10));
        c.run_for(moment)?;
        let hosts = [c.osds()[2 * rack], c.osds()[2 * rack + 1]].map(|osd| c.world.host_of(osd));
        for host in hosts {
            let outcome = Outcome::draw(c.world.rng());
            c.power_off(host, outcome);
        }
        // Not before a member that is missing has been noticed; then without any of them.
        c.write(0, 3, 2)?;
        c.read(1, 0, 8)?;
        c.start_everything();
        c.become_whole()?;
    }
    Ok(())
}
