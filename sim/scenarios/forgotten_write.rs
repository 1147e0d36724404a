//! A write reaches the primary only; the group goes on without both, and is not whole yet when the primary returns.
//! Goal: what an interval went on without never comes back, although the history could not be trimmed in between.
//! Method: while a group moves to another member, the primary is cut off with writes on their way and killed together
//! with its client; the others peer; the primary returns before the move is over. Several times.
//! Stands for: J1, A2, A3

use super::{four, ms, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config, StoreKind, broken};
use crate::world::NodeId;

/// Enough objects that a move takes longer than a change of the interval.
const OBJECTS: u32 = 64;
const ROUNDS: u32 = 4;

pub(super) fn configure(config: Config) -> Config {
    let mut config = four(config);
    (config.osds, config.pg_count, config.image_objects, config.object_blocks) = (4, 1, OBJECTS, 8);
    let (power_loss_protection, atomic_bytes) = (config.seed.is_multiple_of(2), 4096);
    config.store = StoreKind::Log { power_loss_protection, atomic_bytes, write: ms(2) };
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let blocks = c.config().object_blocks;
    for object in 0..OBJECTS {
        c.write(1, object * blocks, 1)?;
    }
    for _ in 0..ROUNDS {
        let acting = c.acting(c.pg(0));
        let Some(newcomer) = c.osds().iter().copied().find(|osd| !acting.contains(osd)) else {
            return Err(broken("every OSD acts"));
        };
        for osd in c.osds().to_vec() {
            let leaves = Some(&osd) == acting.last();
            let id = c.osd_id(osd).expect("an OSD's place");
            c.reweight(id, if leaves { 0.0 } else { 1.0 });
        }
        forget(c, newcomer)?;
        if !c.run_until(ms(20_000), |c| c.all_whole() && c.is_ready(0))? {
            return Err(broken(format!("the group does not become whole: {}", c.describe_stuck())));
        }
    }
    Ok(())
}

/// As soon as the newcomer acts: writes that reach the primary only, whose client dies with it.
fn forget(c: &mut Cluster, newcomer: NodeId) -> Result<(), Finding> {
    let pg = c.pg(0);
    c.run_until(ms(3_000), |c| c.acting(pg).contains(&newcomer) && c.serves_newest(pg))?;
    let moment = c.world.draw(us(1), ms(150));
    c.run_for(moment)?;
    let acting = c.acting(pg);
    let (primary, others) = (acting[0], &acting[1..]);
    c.partition(&[primary], others);
    let blocks = c.config().object_blocks;
    // The first objects are moved first; what has not been moved yet cannot be written.
    for object in 0..8 {
        let _forgotten = c.start_write(0, object * blocks, 1);
    }
    let moment = c.world.draw(ms(1), ms(40));
    c.run_for(moment)?;
    c.kill(c.client_node(0));
    c.kill(primary);
    c.heal();
    let before = c.pg_history(pg).map(|history| history.last);
    c.run_until(ms(3_000), |c| c.pg_history(pg).map(|history| history.last) > before)?;
    let moment = c.world.draw(us(1), ms(100));
    c.run_for(moment)?;
    c.start(primary);
    let moment = c.world.draw(ms(10), ms(1000));
    c.run_for(moment)?;
    c.read(1, 0, blocks)?;
    c.start(c.client_node(0));
    Ok(())
}
