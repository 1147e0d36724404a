//! The number of groups goes up and down every second or two, while clients work and everything fails at random.
//! Goal: groups that split and merge lose nothing, bring nothing back and give no version twice; what clients have not
//! heard answers of finds its way; the change ends, and nothing of the groups before remains.
//! Method: as `mix`; meanwhile an administrator asks for another number of groups again and again, also before the last
//! change is done.
//! Stands for: A5, A18, C15, G7

use super::ms;
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};

/// More than there are objects in most runs.
const GROUPS_MAX: u64 = 12;
/// Changes that are asked for, at most: the load may be stuck for good, which is found later.
const CHANGES: u32 = 40;

pub(super) fn configure(config: Config) -> Config {
    config.sometimes_lazy()
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    c.start_faults();
    c.start_load();
    for _ in 0..CHANGES {
        let groups = u32::try_from(1 + c.world.draw(ms(0), ms(GROUPS_MAX - 1)).as_millis()).expect("few");
        c.set_pg_count(groups);
        let wait = c.world.draw(ms(200), ms(3_000));
        if c.run_until(wait, |c| c.load_done())? {
            break;
        }
    }
    Ok(())
}
