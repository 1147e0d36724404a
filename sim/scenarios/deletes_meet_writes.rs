//! Discards of parts, of whole objects, zeroes and writes of the same object are under way together.
//! Goal: each is what it says: a discard of a part deletes no more than that, a deletion all; order among a client's own is
//! kept, whatever dies meanwhile.
//! Method: both clients mix them on two objects without waiting; members are killed by process or power; everything is read.
//! Stands for: J6, J8, F10, D10

use super::{ms, three, us};
use crate::check::history::Finding;
use crate::cluster::{Ask, Cluster, Config, IMAGE};
use ashlar_faultinject::disk::Outcome;

pub(super) fn configure(config: Config) -> Config {
    three(config)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let blocks = c.config().object_blocks;
    for turn in 0..5u32 {
        let mut ops = Vec::new();
        for n in 0..10u32 {
            let (client, base) = (n as usize % 2, n / 5 * blocks);
            let (first, count, ask) = match (n + turn) % 5 {
                0 => (0, 1 + n % (blocks - 1), Ask::Discard),
                1 => (0, blocks, Ask::Discard),
                2 => (2, 3, Ask::Zeroes { no_hole: n % 2 == 0 }),
                _ => (n % (blocks - 2), 2, Ask::Write),
            };
            ops.push(c.start_on(client, IMAGE, base + first, count, ask));
            let pause = c.world.draw(us(1), us(900));
            c.run_for(pause)?;
        }
        let victim = c.osds()[turn as usize % 3];
        if turn % 2 == 0 {
            c.kill(victim);
        } else {
            c.power_off(c.world.host_of(victim), Outcome::Sectors);
        }
        c.run_for(ms(50))?;
        c.start_everything();
        for op in ops {
            c.wait(op)?;
        }
        c.read(0, 0, blocks)?;
        c.read(1, blocks, blocks)?;
        c.write(0, turn, 3)?;
    }
    Ok(())
}
