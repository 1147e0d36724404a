//! Groups move in good order while clients hold writes that are not durable.
//! Goal: what a client was told is replayed to whoever serves next, without a lost connection to remind it.
//! Method: a lazy pool; the client writes, weights change so that primaries and members change, the power goes or not; the
//! client reads, flushes, dies with the power; another reads.
//! Stands for: C3, C4, C20, C18

use super::{four, lazy, ms, power_cycle};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use ashlar_core::id::OsdId;

pub(super) fn configure(config: Config) -> Config {
    lazy(four(config))
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let blocks = c.config().object_blocks;
    for turn in 0..4u32 {
        for n in 0..8 {
            c.start_write(0, n % 2 * blocks + (turn + n) % 6, 2);
            if n % 4 == 3 {
                c.start_discard(0, blocks * (n / 4), blocks);
            }
            c.run_for(ms(3))?;
        }
        let osds = c.config().osds;
        c.reweight(OsdId(1 + turn % osds), 0.0);
        let wait = c.world.draw(ms(10), ms(3000));
        c.run_for(wait)?;
        if turn % 2 == 1 {
            power_cycle(c)?;
        }
        c.reweight(OsdId(1 + turn % osds), 1.0);
        c.read(0, 0, 8)?;
        c.read(0, blocks, 8)?;
    }
    c.flush(0)?;
    c.kill(c.client_node(0));
    power_cycle(c)?;
    c.read(1, 0, 8).map(drop)
}
