//! Everything that stores dies at once, again and again, under a heavy load of small writes.
//! Goal: what was acknowledged is there after any number of such cycles, in whichever state opening finds the log.
//! Method: eight cycles; each lets the load run for a while, kills every OSD at one moment (by its process or its power),
//! and starts them at different moments.
//! Stands for: C1, F1, F3, F5, G4, E8

use super::{ms, three, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config, LoadConfig, StoreKind, broken};
use ashlar_core::time::Duration;
use ashlar_faultinject::disk::Outcome;

const CYCLES: u32 = 8;

pub(super) fn configure(config: Config) -> Config {
    let mut config = three(config);
    (config.mons, config.pg_count) = (1, 8);
    (config.object_blocks, config.image_objects) = (32, 48);
    let power_loss_protection = config.seed.is_multiple_of(2);
    config.store = StoreKind::Log { power_loss_protection, atomic_bytes: 4096, write: us(50) };
    (config.wire, config.gather, config.check_every) = (false, us(50), 100);
    (config.net_base, config.net_tail_ppm) = (us(20), 0);
    config.load = LoadConfig {
        operations: 6_000,
        clients: 2,
        depth: 16,
        read_percent: 20,
        discard_percent: 2,
        max_blocks: 12,
        hot_objects: 4,
        think: us(10),
    };
    if config.seed.is_multiple_of(3) {
        // Few writes to each object: much is written for the first time just before the end.
        (config.object_blocks, config.image_objects) = (64, 60);
        (config.load.operations, config.load.max_blocks, config.load.hot_objects) = (2_500, 1, 60);
        (config.load.discard_percent, config.load.depth) = (0, 32);
    }
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    c.start_load();
    for cycle in 0..CYCLES {
        let moment = c.world.draw(ms(1), ms(150));
        c.run_for(moment)?;
        let power = cycle % 2 == 1;
        for osd in c.osds().to_vec() {
            if power {
                let outcome = Outcome::draw(c.world.rng());
                let host = c.world.host_of(osd);
                c.power_off(host, outcome);
                c.world.power_on(host);
            } else {
                c.kill(osd);
            }
        }
        for osd in c.osds().to_vec() {
            let pause = c.world.draw(ms(1), ms(200));
            c.run_for(pause)?;
            c.start(osd);
        }
        if !c.run_until(Duration::secs(60), |c| c.all_active())? {
            return Err(broken(format!("not active after cycle {cycle}: {}", c.describe_stuck())));
        }
    }
    Ok(())
}
