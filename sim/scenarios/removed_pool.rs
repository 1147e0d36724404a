//! A pool is removed with its images while one OSD is down; that one comes back when nothing is left to ask for.
//! Goal: the pool goes by itself, whoever dies meanwhile; all its space goes back, on the OSD that was away too, and its
//! number never comes again.
//! Method: a second pool is made and written to; a member is killed, more is written, the pool removed, and an OSD killed or a
//! monitor put to sleep; the absent one starts, sometimes only after the end. Three times.
//! Stands for: H6, H7, H9

use super::{broken, four, ms};
use crate::check::history::{BLOCK, Finding};
use crate::cluster::{Cluster, Config};
use ashlar_core::time::Duration;

const OBJECTS: u32 = 4;

pub(super) fn configure(config: Config) -> Config {
    four(config)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let mut last = None;
    for round in 0..3 {
        let pool = c.create_pool();
        assert!(last < Some(pool), "a pool's number is used again");
        last = Some(pool);
        let image = c.create_image_in(pool, &format!("passing{round}"), BLOCK, OBJECTS);
        c.settle_down()?;
        c.fill_image(image, OBJECTS, 3)?;
        let osds = c.osds().to_vec();
        let [absent, dying] = [0, 1].map(|place| osds[(round + place) % osds.len()]);
        c.kill(absent);
        c.fill_image(image, OBJECTS, 2)?;
        c.remove_pool(pool);
        let moment = c.world.draw(ms(1), ms(600));
        c.run_for(moment)?;
        c.kill(dying);
        let moment = c.world.draw(ms(1), ms(2000));
        c.run_for(moment)?;
        c.start(dying);
        if round == 1 {
            c.start(absent);
        }
        if !c.run_until(Duration::secs(60), |c| c.keys_of_pool(pool).is_empty())? {
            return Err(broken(format!("keys of {pool:?} are left: {:?}\n{}", c.keys_of_pool(pool), c.describe_stuck())));
        }
        if round != 1 {
            c.start(absent);
        }
        c.become_whole()?;
        if !c.run_until(Duration::secs(30), |c| c.copies_of_pool(pool) == 0)? {
            return Err(broken(format!("{} copies of {pool:?} remain", c.copies_of_pool(pool))));
        }
    }
    Ok(())
}
