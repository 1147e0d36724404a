//! The nodes from which clients learn maps die, one after the other, while groups change.
//! Goal: a client finds another server, learns of new primaries, and none of its operations is forgotten.
//! Method: clients write; monitors and the OSD that serves them are killed in turn, with a primary; some stay away.
//! Stands for: C21, C10, B1

use super::{four, ms};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

pub(super) fn configure(config: Config) -> Config {
    let mut config = four(config);
    config.mons = 2;
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    for turn in 0..4usize {
        let victims = [c.mons()[turn % 2], c.osds()[turn % 2 * 3]];
        let writes = [c.start_write(0, 0, 3), c.start_write(1, 4, 2)];
        for victim in victims {
            c.kill(victim);
            let pause = c.world.draw(ms(1), ms(300));
            c.run_for(pause)?;
        }
        for write in writes {
            c.wait(write)?;
        }
        c.read(1, 0, 6)?;
        for victim in victims {
            c.start(victim);
        }
        let pause = c.world.draw(ms(1), ms(2000));
        c.run_for(pause)?;
    }
    Ok(())
}
