//! Requests to the metadata store end without an answer, watches break, history is compacted, and it goes away for seconds.
//! Goal: maps and histories are never built on what was not confirmed, and everything moves on afterwards.
//! Method: an unreliable store during crashes of OSDs and of the leading monitor, with outages in between.
//! Stands for: A10, A9, A20, B24, I6

use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use super::{three, ms};
use crate::world::MetaFaults;

pub(super) fn configure(config: Config) -> Config {
    three(config)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    c.world.set_meta_faults(MetaFaults { unknown_ppm: 300_000, watch_lost_ppm: 50_000, watch_repeat_ppm: 50_000 });
    let (osds, mons): (Vec<_>, Vec<_>) = (c.osds().to_vec(), c.mons().to_vec());
    for turn in 0..5usize {
        c.start_write(0, 0, 4);
        c.kill(osds[turn % osds.len()]);
        let wait = c.world.draw(ms(50), ms(3000));
        c.run_for(wait)?;
        c.world.compact_meta();
        c.start(osds[turn % osds.len()]);
        if turn % 2 == 1 {
            c.kill(mons[0]);
            c.world.start_after(mons[0], ms(1500));
        }
        if turn == 3 {
            c.world.meta_outage(ms(5000));
        }
        c.start_read(1, 0, 4);
        c.run_for(wait)?;
    }
    Ok(())
}
