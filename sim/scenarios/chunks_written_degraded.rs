//! Writes into chunks that are lost, beside others, with as many members away as the code can do without.
//! Goal: parity fits the data afterwards, of every parity chunk, and every chunk can be computed from any others.
//! Method: four data and two parity chunks; one or two members are away while ranges of all kinds are written and read; they
//! come back, others go, and everything is read.
//! Stands for: E1, E2, E3, J3

use super::{chunks, ms};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

pub(super) fn configure(config: Config) -> Config {
    let mut config = chunks(config, 4, 2, 6);
    (config.pg_minsize, config.image_objects) = (4, 4);
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let blocks = c.config().object_blocks;
    c.write(0, 0, blocks)?;
    c.write(0, blocks, blocks / 2)?;
    for turn in 0..4u32 {
        let acting = c.acting(c.pg_of_block(0));
        let first = turn as usize % acting.len();
        let away = [acting[first], acting[(first + 1 + turn as usize % 3) % acting.len()]];
        let away = &away[..1 + turn as usize % 2];
        for osd in away {
            c.kill(*osd);
        }
        for object in 0..3 {
            let start = c.world.rng().below(u64::from(blocks - 1));
            let start = u32::try_from(start).expect("small");
            c.write(0, object * blocks + start, 1 + (turn * 5) % (blocks - start))?;
            c.write(1, object * blocks + (start + 3) % blocks, 1)?;
            c.read(1, object * blocks, blocks)?;
            c.read(0, object * blocks + blocks / 2, 3)?;
        }
        for osd in away {
            c.start(*osd);
        }
        c.run_for(ms(100))?;
        c.become_whole()?;
    }
    let acting = c.acting(c.pg_of_block(0));
    for pair in acting.chunks(2) {
        pair.iter().for_each(|osd| c.kill(*osd));
        for object in 0..3 {
            c.read(0, object * blocks, blocks)?;
        }
        pair.iter().for_each(|osd| c.start(*osd));
        c.become_whole()?;
    }
    Ok(())
}
