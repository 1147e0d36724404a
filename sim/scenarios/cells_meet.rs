//! Clients write parts of sectors that others write parts of, while the primary of their object fails.
//! Goal: each part is written on condition that the rest is as it was read: nobody's write is undone by a neighbour's.
//! Method: both clients write cells of the same few sectors without pause; the primary is killed, or loses its clients'
//! connections, so that conditional writes are sent again.
//! Stands for: C16, C22, H3, J2

use super::{ms, three, us};
use crate::check::history::Finding;
use crate::cluster::{Ask, Cluster, Config};

const CELLS: u32 = 1;

pub(super) fn configure(config: Config) -> Config {
    let mut config = three(config);
    config.load.cell_objects = 1;
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let pg = c.pg_of_image(CELLS, 0);
    for turn in 0..6u32 {
        let mut ops = Vec::new();
        for n in 0..16u32 {
            let (first, count) = (n * 7 % 24, 1 + n % 3);
            ops.push(c.start_on(0, CELLS, first, count, Ask::Write));
            ops.push(c.start_on(1, CELLS, first + 3, count, Ask::Write));
            let pause = c.world.draw(us(10), ms(2));
            c.run_for(pause)?;
        }
        if let Some(primary) = c.primary(pg) {
            let client = c.client_node(0);
            match turn % 3 {
                0 => c.world.connections_between(primary, client).into_iter().for_each(|conn| c.world.reset(conn)),
                1 => {
                    c.kill(primary);
                    c.world.start_after(primary, ms(200));
                }
                _ => {}
            }
        }
        for op in ops {
            c.wait(op)?;
        }
        let read = c.start_on(turn as usize % 2, CELLS, 0, 30, Ask::Read);
        c.wait(read)?;
    }
    Ok(())
}
