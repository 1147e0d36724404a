//! One member's disk stops for a while, again and again, never long enough to count as dead.
//! Goal: clients wait, and nothing else happens: no flood of retries, no hang, no order lost.
//! Method: a steady load; a disk stalls for up to a second every few hundred milliseconds, another one next.
//! Stands for: E10, G8, B22, C9

use super::{broken, ms, on_disks, three, us};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use ashlar_core::io::Device;
use ashlar_core::time::Duration;

pub(super) fn configure(config: Config) -> Config {
    let mut config = on_disks(three(config), 100);
    (config.load.operations, config.load.depth, config.load.think) = (400, 6, us(2000));
    config
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    c.start_load();
    for turn in 0..12usize {
        let osd = c.osds()[turn / 4];
        let until = c.world.now() + c.world.draw(ms(50), ms(900));
        c.world.disk_mut(osd, Device::Data).expect("a real store").stall(until);
        let pause = c.world.draw(ms(100), ms(1200));
        c.run_for(pause)?;
    }
    if c.run_until(Duration::secs(60), |c| c.load_done())? {
        return Ok(());
    }
    Err(broken(format!("the load does not end: {}", c.describe_stuck())))
}
