//! Copies differ although each matches its checksums: nobody knows which is right.
//! Goal: they are reported, and left alone; when it is ordered they become what clients have read so far.
//! Method: in the reference store, one or both of the copies that are not the primary's are altered; a scrub, then an
//! ordered repair; all groups move afterwards, and clients read.
//! Stands for: E16

use super::{broken, three};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config, Harm, IMAGE, StoreKind};
use ashlar_core::map::ScrubOrder;

pub(super) fn configure(config: Config) -> Config {
    Config { store: StoreKind::Model, ..three(config) }
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    c.fill(0)?;
    c.become_whole()?;
    let acting = c.acting(c.pg_of_block(0));
    let altered = 1 + usize::from(c.config().seed.is_multiple_of(2));
    for member in &acting[1..=altered] {
        c.harm_copies(*member, c.object_of(IMAGE, 0), Harm::Alter);
    }
    c.scrub(ScrubOrder::Scrub)?;
    if c.findings().2 != 1 {
        return Err(broken(format!("a scrub finds {:?}, not one object whose copies differ", c.findings())));
    }
    c.scrub(ScrubOrder::Repair)?;
    if c.findings().2 != 0 {
        return Err(broken("copies differ after a repair"));
    }
    c.kill(acting[0]);
    c.read(1, 0, 2)?;
    c.start(acting[0]);
    c.become_whole()
}
