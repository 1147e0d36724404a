//! Writes that reached one member only are kept, since nobody else of their interval can be asked; then that member dies.
//! Goal: the others go on without it only if nothing is lost: who was not asked then cannot stand in for it now.
//! Method: one copy suffices; of two acting members one is cut off from the other with writes on their way; a third one comes
//! back; as soon as an interval without the second is recorded, the one with the writes dies; the second is there again.
//! Stands for: A2, A3, A12

use super::{epoch_of, ms, on_disks, three, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

const OBJECTS: u32 = 32;

pub(super) fn configure(config: Config) -> Config {
    let mut config = on_disks(three(config), 1_500);
    (config.pg_count, config.pg_minsize) = (1, 1);
    (config.image_objects, config.object_blocks) = (OBJECTS, 8);
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    c.fill(1)?;
    let (pg, blocks) = (c.pg(0), c.config().object_blocks);
    for _ in 0..3 {
        let acting = c.acting(pg);
        let [keeper, other, absent] = acting[..] else { return Ok(()) };
        c.kill(absent);
        c.run_until(ms(5_000), |c| c.acting(pg).len() == 2 && c.serves_newest(pg))?;
        let write = c.write(1, blocks, 1)?;
        c.partition(&[keeper], &[other]);
        let writes: Vec<u32> = (0..OBJECTS).map(|object| c.start_write(0, object * blocks, 1)).collect();
        let moment = c.world.draw(us(500), ms(40));
        c.run_for(moment)?;
        let before = epoch_of(c, pg);
        c.start(absent);
        c.run_until(ms(10_000), |c| {
            let recorded = c.pg_history(pg).map(|history| history.last);
            recorded > before && c.acting(pg).contains(&absent)
        })?;
        c.kill(keeper);
        c.heal();
        let moment = c.world.draw(ms(500), ms(4_000));
        c.run_for(moment)?;
        c.start(keeper);
        for op in writes.into_iter().chain([write]) {
            c.wait(op)?;
        }
        c.become_whole()?;
    }
    Ok(())
}
