//! One disk loses writes of data, or puts them where others belong, and says that all is well.
//! Goal: checksums tell; reads and scrubs repair from the other members; no wrong byte is ever read.
//! Method: one member's disk misbehaves while both clients write and read; then it behaves, everything is scrubbed twice.
//! Stands for: F14, F15, D3

use super::{on_disks, three, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use ashlar_core::map::ScrubOrder;
use ashlar_faultinject::disk::DiskFaults;

pub(super) fn configure(config: Config) -> Config {
    let mut config = on_disks(three(config), 100);
    (config.load.operations, config.load.depth, config.load.think) = (400, 4, us(2000));
    (config.load.read_percent, config.load.max_blocks) = (40, 24);
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let bad = c.osds()[c.config().seed as usize % 3];
    let faults = DiskFaults { lost_write_ppm: 60_000, misdirected_write_ppm: 60_000, ..DiskFaults::default() };
    c.set_data_faults(bad, faults);
    c.start_load();
    c.run_until(ashlar_core::time::Duration::secs(60), |c| c.load_done())?;
    c.set_data_faults(bad, DiskFaults::default());
    c.become_whole()?;
    c.scrub(ScrubOrder::Scrub)?;
    c.scrub(ScrubOrder::Scrub)
}
