//! A part of the cluster does not reach the metadata store, while all members reach each other.
//! Goal: nobody waits for ever for who seems alive to some and gone to others; what is acknowledged stays.
//! Method: OSDs and monitors in changing combinations are cut off from the metadata store for longer than a session; clients
//! write.
//! Stands for: A13, A14, C21, B23

use super::{ms, three};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

pub(super) fn configure(config: Config) -> Config {
    let mut config = three(config);
    config.mons = 2;
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    for turn in 0..4usize {
        let osds = c.osds().to_vec();
        c.cut_from_meta(osds[turn % 3]);
        if turn % 2 == 1 {
            let mon = c.mons()[turn / 2];
            c.cut_from_meta(mon);
        }
        for n in 0..10 {
            c.start_write(0, n % 4, 2);
            let pause = c.world.draw(ms(100), ms(1200));
            c.run_for(pause)?;
            c.start_read(1, 0, 4);
        }
        c.heal();
        c.write(1, 0, 2)?;
        c.become_whole()?;
    }
    Ok(())
}
