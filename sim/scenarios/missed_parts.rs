//! Members come back to objects of which small parts were written while they were away.
//! Goal: they get what changed, all of it, and the result is what the others have.
//! Method: a member is killed, or cut off and so keeps what it noted itself; clients write small parts of large objects, some
//! across regions, some twice; it comes back; the next one goes. Copies or chunks.
//! Stands for: A2, A12, B13, E2

use super::{chunks, four, ms};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use crate::world::NodeId;

pub(super) fn configure(config: Config) -> Config {
    let mut config = match config.seed % 4 {
        0 => chunks(config, 2, 1, 3),
        1 => chunks(config, 2, 2, 4),
        _ => four(config),
    };
    (config.pg_count, config.object_blocks, config.image_objects) = (1, 32, 4);
    if config.pg_size == 3 && config.parity_chunks == 0 {
        // One copy suffices, so that members can be away in turn.
        (config.osds, config.pg_minsize) = (3, 1);
    }
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    for object in 0..4 {
        c.write(0, object * 32, 32)?;
    }
    let pg = c.pg(0);
    let alone = c.config().pg_minsize == 1;
    for turn in 0..4usize {
        let acting = c.acting(pg);
        let away = acting[(turn + 1) % acting.len()];
        c.kill(away);
        c.run_until(ms(5_000), |c| c.acting(pg).len() < acting.len() && c.serves_newest(pg))?;
        write_parts(c, 6)?;
        if let Some(other) = acting.into_iter().find(|osd| alone && *osd != away) {
            // Who is cut off keeps its notes, and has a gap in them.
            let far: Vec<NodeId> = c.osds().iter().chain(c.mons()).copied().filter(|node| *node != other).collect();
            c.partition(&[other], &far);
            c.cut_from_meta(other);
            c.end_session(other);
            write_parts(c, 3)?;
            c.heal();
            c.run_until(ms(8_000), |c| c.acting(pg).len() == 2 && c.all_clean())?;
            write_parts(c, 3)?;
            // Its notes are all there is.
            let others: Vec<NodeId> = c.acting(pg).into_iter().filter(|osd| *osd != other).collect();
            others.iter().for_each(|osd| c.kill(*osd));
            c.start(away);
            c.run_until(ms(8_000), |c| c.acting(pg).len() == 2 && c.all_clean())?;
            others.iter().for_each(|osd| c.start(*osd));
        }
        c.start(away);
        write_parts(c, 2)?;
        c.become_whole()?;
        c.read(1, 0, 128)?;
    }
    Ok(())
}

/// So many small writes, at places drawn anew.
fn write_parts(c: &mut Cluster, count: u32) -> Result<(), Finding> {
    for n in 0..count {
        let place = c.world.draw(ms(0), ms(31)).as_millis();
        let first = n % 4 * 32 + u32::try_from(place).expect("below 32");
        let write = c.start_write(n as usize % 2, first, 1 + n % 2 * u32::from(place < 31));
        c.wait(write)?;
    }
    Ok(())
}
