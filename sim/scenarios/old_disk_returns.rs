//! An operator puts back a disk as it was some time ago: an older snapshot of it.
//! Goal: what it lacks comes from the others; what it holds that is old is not believed.
//! Method: a member is down, its disk copied; it comes up, writes go on; it goes down, and the copy is put in its place.
//! Each member in turn, with the others there.
//! Stands for: A2, A9

use super::{on_disks, three, ms};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

pub(super) fn configure(config: Config) -> Config {
    on_disks(three(config), 100)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    c.fill(0)?;
    for osd in c.osds().to_vec() {
        c.become_whole()?;
        c.kill(osd);
        let old = c.copy_disk(osd);
        c.start(osd);
        c.become_whole()?;
        for n in 0..6 {
            c.write(n % 2, u32::try_from(n).expect("few"), 3)?;
        }
        c.become_whole()?;
        c.kill(osd);
        // So that an interval is recorded without it: what it knows is then known to be old.
        c.write(0, 1, 2)?;
        c.exchange_disk(osd, old);
        c.start(osd);
        c.run_for(ms(500))?;
        c.read(1, 0, 8)?;
    }
    Ok(())
}
