//! Conditional writes in a pool that keeps nothing without a flush, which loses power.
//! Goal: a conditional write that was acknowledged is replayed as what it was, once, without its condition.
//! Method: the client writes cells, and zeroes over some of them; all hosts but its own lose power again and again; the
//! client reads. At the end it flushes and dies, the power goes, and another client reads.
//! Stands for: J2, C16, C1

use super::{lazy, ms, power_cycle, three, us};
use crate::check::history::Finding;
use crate::cluster::{Ask, Cluster, Config};

const CELLS: u32 = 1;

pub(super) fn configure(config: Config) -> Config {
    let mut config = lazy(three(config));
    config.load.cell_objects = 2;
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    for turn in 0..5u32 {
        for n in 0..10u32 {
            let ask = if n % 4 == 3 { Ask::Zeroes { no_hole: false } } else { Ask::Write };
            c.start_on(0, CELLS, (turn + n * 5) % 28, 1 + n % 4, ask);
            let pause = c.world.draw(us(50), ms(4));
            c.run_for(pause)?;
        }
        let moment = c.world.draw(us(200), ms(30));
        c.run_for(moment)?;
        power_cycle(c)?;
        let read = c.start_on(0, CELLS, 0, 32, Ask::Read);
        c.wait(read)?;
    }
    c.flush(0)?;
    c.kill(c.client_node(0));
    power_cycle(c)?;
    let read = c.start_on(1, CELLS, 0, 32, Ask::Read);
    c.wait(read)
}
