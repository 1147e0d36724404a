//! A member that is being recovered is suddenly the only one.
//! Goal: it is not believed for what it has not got yet: the group waits for the member that recovered it.
//! Method: two copies; one misses writes, comes back, and while it is being recovered the other is killed and stays away
//! for a while. Several times.
//! Stands for: A2, A3, B14, D1

use super::{ms, three, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config, StoreKind, broken};

const OBJECTS: u32 = 32;
const ROUNDS: u32 = 4;

pub(super) fn configure(config: Config) -> Config {
    let mut config = three(config);
    (config.osds, config.pg_size, config.pg_minsize) = (2, 2, 1);
    (config.pg_count, config.image_objects, config.object_blocks) = (1, OBJECTS, 8);
    let (power_loss_protection, atomic_bytes) = (config.seed.is_multiple_of(2), 4096);
    config.store = StoreKind::Log { power_loss_protection, atomic_bytes, write: ms(1) };
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let (pg, blocks) = (c.pg(0), c.config().object_blocks);
    for _ in 0..ROUNDS {
        let acting = c.acting(pg);
        let (whole, laggard) = (acting[0], acting[1]);
        c.kill(laggard);
        for object in 0..OBJECTS {
            c.write(1, object * blocks, 1)?;
        }
        c.start(laggard);
        c.run_until(ms(5_000), |c| c.acting(pg).len() == 2 && c.serves_newest(pg))?;
        let moment = c.world.draw(us(1), ms(60));
        c.run_for(moment)?;
        c.kill(whole);
        let reads: Vec<u32> = (0..OBJECTS).map(|object| c.start_read(0, object * blocks, 1)).collect();
        let moment = c.world.draw(ms(100), ms(4_000));
        c.run_for(moment)?;
        c.start(whole);
        for read in reads {
            c.wait(read)?;
        }
        if !c.run_until(ms(20_000), Cluster::all_whole)? {
            return Err(broken(format!("the group does not become whole: {}", c.describe_stuck())));
        }
    }
    Ok(())
}
