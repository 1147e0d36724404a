//! A member loses a copy without noticing.
//! Goal: a scrub notices, and puts it back: what the other members hold is never taken for too much.
//! Method: objects are written, in the reference store; copies vanish on one member after the other; scrubs are ordered,
//! or begin by themselves.
//! Stands for: D1, B14, E16

use super::{broken, ms, three};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config, Harm, IMAGE, StoreKind};
use ashlar_core::map::ScrubOrder;

pub(super) fn configure(config: Config) -> Config {
    let mut config = Config { store: StoreKind::Model, ..three(config) };
    config.scrub_interval_s = config.seed % 3;
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    c.fill(0)?;
    for turn in 0..4usize {
        let acting = c.acting(c.pg_of_block(0));
        let member = acting[1 + turn % 2];
        if c.harm_copies(member, c.object_of(IMAGE, 0), Harm::Lose) == 0 {
            return Err(broken("a member has no copy"));
        }
        let wait = c.world.draw(ms(1), ms(1500));
        c.run_for(wait)?;
        c.scrub(ScrubOrder::Scrub)?;
        if c.copies_of(member, IMAGE, 0) == 0 {
            return Err(broken("a copy that a member lost is not put back"));
        }
        c.read(1, 0, 2)?;
    }
    Ok(())
}
