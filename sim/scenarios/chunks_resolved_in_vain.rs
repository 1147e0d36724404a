//! Peering makes an uncertain version of chunks certain, but is over before its interval is recorded; then who had it is lost.
//! Goal: what was before it can still be read: a chunk gives up its last version only when the new one counts.
//! Method: a write reaches two of four chunks; a third one gets it from them in a peering that cannot record anything; both
//! are lost with their disks; the third and the fourth remain.
//! Stands for: E8, E12, E13, E14

use super::{chunks, epoch_of, ms, new_epoch, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

pub(super) fn configure(config: Config) -> Config {
    let mut config = chunks(config, 2, 2, 4);
    (config.pg_count, config.pg_minsize) = (1, 2);
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let (pg, blocks) = (c.pg(0), c.config().object_blocks);
    for turn in 0..3u32 {
        for object in 0..4 {
            c.write(0, object * blocks, blocks)?;
        }
        let acting = c.acting(pg);
        let [primary, holder, heir, absent] = acting[..] else { return Ok(()) };
        c.partition(&[primary, holder], &[heir, absent]);
        for object in 0..4 {
            c.start_write(1, object * blocks + turn, 1 + turn % 2);
        }
        let moment = c.world.draw(ms(1), ms(20));
        c.run_for(moment)?;
        let before = epoch_of(c, pg);
        c.kill(absent);
        c.heal();
        new_epoch(c, pg, before)?;
        let moment = c.world.draw(us(200), ms(4));
        c.run_for(moment)?;
        c.cut_from_meta(primary);
        c.run_for(ms(100))?;
        for lost in [primary, holder] {
            c.kill(lost);
            if !c.world.is_running(lost) {
                c.wipe(lost);
            }
        }
        c.start(absent);
        c.heal();
        c.run_for(ms(2_000))?;
        c.start(primary);
        c.start(holder);
        c.become_whole()?;
        c.read(0, 0, blocks)?;
    }
    Ok(())
}
