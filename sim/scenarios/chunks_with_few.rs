//! A group of chunks starts with fewer members of its last set than its data need.
//! Goal: it waits, and says so; it serves nothing that it cannot read, and does not forget what it cannot see.
//! Method: writes, then all members are killed; one starts alone, then the others, at different moments; twice the first
//! ones are killed again before the last arrives.
//! Stands for: A12, A4, B1, B13

use super::{broken, chunks, ms};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

pub(super) fn configure(config: Config) -> Config {
    let mut config = chunks(config, 2, 2, 4);
    config.pg_count = 1;
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    for turn in 0..3u32 {
        c.write(0, turn, 5)?;
        let acting = c.acting(c.pg(0));
        c.start_write(1, 0, 2);
        c.run_for(ms(2))?;
        acting.iter().for_each(|osd| c.kill(*osd));
        c.start(acting[turn as usize]);
        let read = c.start_read(0, 0, 4);
        c.run_for(ms(8_000))?;
        if c.is_done(read) {
            return Err(broken("one chunk of two was enough to read"));
        }
        if turn > 0 {
            c.kill(acting[turn as usize]);
        }
        for osd in &acting {
            let wait = c.world.draw(ms(1), ms(800));
            c.run_for(wait)?;
            c.start(*osd);
        }
        c.wait(read)?;
        c.become_whole()?;
    }
    Ok(())
}
