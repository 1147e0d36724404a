//! A client does not hear the answer to its write, and asks again when all of the write's members have been replaced.
//! Goal: the new members know which requests a copy includes: the write takes effect once, however late it is repeated.
//! Method: a write whose client is cut off at once; the group moves to three other OSDs; another client reads, overwrites,
//! and reads; then the first one comes back.
//! Stands for: C8, C10, J5, J10

use super::{broken, ms, scripted, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

pub(super) fn configure(config: Config) -> Config {
    let mut config = scripted(config, 6);
    (config.osds, config.pg_count) = (6, 1);
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let pg = c.pg(0);
    for _ in 0..3 {
        let late = c.start_write(0, 0, 3);
        let moment = c.world.draw(us(50), ms(4));
        c.run_for(moment)?;
        c.cut_client_off(0);
        let acting = c.acting(pg);
        for osd in c.osds().to_vec() {
            let id = c.osd_id(osd).expect("an OSD's place");
            c.reweight(id, if acting.contains(&osd) { 0.0 } else { 1.0 });
        }
        let moved = |c: &mut Cluster| c.acting(pg).iter().all(|osd| !acting.contains(osd)) && c.all_whole();
        if !c.run_until(ms(60_000), moved)? {
            return Err(broken(format!("the group does not move: {}", c.describe_stuck())));
        }
        c.read(1, 0, 4)?;
        c.write(1, 1, 2)?;
        c.read(1, 0, 4)?;
        c.heal();
        c.wait(late)?;
        c.read(1, 0, 4)?;
    }
    Ok(())
}
