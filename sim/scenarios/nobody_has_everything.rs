//! The member from which a group moves dies in the middle of the move, so that no OSD has all of the group.
//! Goal: the new primary reads nothing that it has not been given yet: old parts come from the member that left, new ones
//! from the one that came.
//! Method: two copies; the group moves to an empty OSD, objects are written meanwhile, the primary is killed; a client reads
//! and writes everything at once.
//! Stands for: A2, A12, B13, J1

use super::{epoch_of, ms, on_disks, scripted, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use crate::world::NodeId;

/// Enough that a move takes longer than a change of the interval.
pub(super) const OBJECTS: u32 = 40;

pub(super) fn configure(config: Config) -> Config {
    let mut config = on_disks(scripted(config, 3), 2_000);
    (config.pg_size, config.pg_minsize, config.osds, config.pg_count) = (2, 1, 3, 1);
    (config.image_objects, config.object_blocks) = (OBJECTS, 8);
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    c.fill(1)?;
    let blocks = c.config().object_blocks;
    for _ in 0..3 {
        let Some(dead) = bereave(c, |_| Ok(()))? else { break };
        let mut ops = Vec::new();
        for object in 0..OBJECTS {
            ops.push(c.start_read(1, object * blocks, 3));
            if object % 5 == 4 {
                ops.push(c.start_write(0, object * blocks + 1, 1));
            }
        }
        c.run_until(ms(4_000), |c| ops.iter().all(|op| c.is_done(*op)))?;
        // Who took no part in the record of the move is of no use without the one who died.
        c.start(dead);
        for op in ops {
            c.wait(op)?;
        }
        c.become_whole()?;
    }
    Ok(())
}

/// Moves the group to the OSD that has none of it, and kills the member from which it moves as soon as it does. Gives who
/// died; nobody, if the group is not where it was to be.
pub(super) fn bereave(
    c: &mut Cluster,
    after: impl FnOnce(&mut Cluster) -> Result<(), Finding>,
) -> Result<Option<NodeId>, Finding> {
    let (pg, blocks) = (c.pg(0), c.config().object_blocks);
    let acting = c.acting(pg);
    let ([source, leaver], Some(newcomer)) =
        (&acting[..], c.osds().iter().copied().find(|osd| !acting.contains(osd)))
    else {
        return Ok(None);
    };
    let (source, leaver) = (*source, *leaver);
    for osd in c.osds().to_vec() {
        let id = c.osd_id(osd).expect("an OSD's place");
        c.reweight(id, if osd == leaver { 0.0 } else { 1.0 });
    }
    c.run_until(ms(5_000), |c| c.acting(pg).contains(&newcomer) && c.serves_newest(pg))?;
    let moment = c.world.draw(us(1), ms(40));
    c.run_for(moment)?;
    let writes = [c.start_write(0, 0, 2), c.start_write(1, (OBJECTS - 1) * blocks, 2)];
    for write in writes {
        c.wait(write)?;
    }
    let epoch = epoch_of(c, pg);
    c.kill(source);
    after(c)?;
    c.run_until(ms(10_000), |c| epoch_of(c, pg) > epoch && c.serves_newest(pg))?;
    Ok(Some(source))
}
