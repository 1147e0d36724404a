//! All connections between OSDs are reset, again and again, and some swallow what is sent.
//! Goal: messages of an old connection are never taken for those of the new one, and peering ends.
//! Method: resets every few dozen milliseconds for some seconds, black holes in between, under a load.
//! Stands for: A12, B16, B18, B21, B22

use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use super::{three, ms};

pub(super) fn configure(config: Config) -> Config {
    three(config)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    c.start_load();
    for turn in 0..60u32 {
        for conn in c.world.connections() {
            if c.world.rng().chance(1, 3) {
                c.world.reset(conn);
            } else if turn % 20 == 7 && c.world.rng().chance(1, 8) {
                c.world.black_hole(conn, 0);
            }
        }
        let wait = c.world.draw(ms(5), ms(120));
        c.run_for(wait)?;
    }
    Ok(())
}
