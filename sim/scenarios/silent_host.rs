//! The node that tells a client of maps and the primary that owes it an answer fall silent together, as on one host.
//! Goal: the client does not wait until its patience with the primary ends: it finds out that no news would come, asks
//! somebody else, and is served soon after the group has another primary.
//! Method: monitors in turn are stopped together with a primary, or cut off with it, for longer than that patience.
//! Stands for: C21, C10, J9

use super::{broken, epoch_of, four, new_epoch};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use crate::world::NodeId;
use ashlar_core::time::Duration;

/// From the new map to the answer: the rest of read leases, peering over slow links, and the client's way to whoever knows. Its patience
/// with a silent primary, 4 s, is not in it.
const SOON: Duration = Duration::millis(2500);
/// Longer than the patience.
const SILENT: Duration = Duration::secs(8);

pub(super) fn configure(config: Config) -> Config {
    Config { mons: 2, pg_count: 1, lease_ms: 300, heartbeat_timeout_ms: 1000, ..four(config) }
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    let pg = c.pg(0);
    for turn in 0..4usize {
        c.write(0, 0, 4)?;
        let mon = c.mons()[turn % 2];
        let Some(primary) = c.primary(pg) else { continue };
        let epoch = epoch_of(c, pg);
        silence(c, &[mon, primary], turn < 2);
        let op = c.start_write(0, 0, 2);
        for _ in 0..4 {
            new_epoch(c, pg, epoch)?;
        }
        if !c.is_done(op) && !c.wait_for(op, SOON)? {
            return Err(broken(format!("{SOON:?} after the new map: {}", c.describe_stuck())));
        }
        c.run_for(SILENT)?;
        c.heal();
        c.become_whole()?;
    }
    Ok(())
}

/// Stops processes, or cuts them off from everybody.
fn silence(c: &mut Cluster, nodes: &[NodeId], stop: bool) {
    if stop {
        nodes.iter().for_each(|node| c.world.pause(*node, SILENT));
        return;
    }
    let others: Vec<NodeId> = c.world.node_ids().filter(|node| !nodes.contains(node)).collect();
    c.partition(nodes, &others);
    nodes.iter().for_each(|node| c.cut_from_meta(*node));
}
