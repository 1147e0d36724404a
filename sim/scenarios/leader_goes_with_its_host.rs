//! A host falls silent with the leading monitor and members of groups on it.
//! Goal: the other monitor does not wait for the end of the lease, which it need not believe in: the peers of the OSDs there say
//! that nothing at the leader's address answers. Groups go on as soon as that is known.
//! Method: monitors on hosts of OSDs; the leader's host loses its power, is stopped, or is cut off from its peers only, when
//! the leader lives, reaches the metadata store and may lead on.
//! Stands for: I1, C21, B23

use super::{broken, epoch_of, four, ms, new_epoch};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config};
use crate::world::NodeId;
use ashlar_core::time::Duration;
use ashlar_faultinject::disk::Outcome;

/// Of heartbeats.
const TIMEOUT_MS: u64 = 600;
/// From the silence to new maps: reports come when the time is over, over slow links, and only from two hosts. A lease of 2 s has 1.3 s left at least.
const SOON: Duration = Duration::millis(TIMEOUT_MS + 1_000);

pub(super) fn configure(config: Config) -> Config {
    let config = Config { mons: 2, mons_beside: true, pg_count: 1, ..four(config) };
    Config { osds: 3, lease_ms: 300, heartbeat_timeout_ms: TIMEOUT_MS, ..config }
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    // News of the metadata store are late themselves now and then.
    let mut late = 0;
    for turn in 0..6u32 {
        c.write(0, turn, 3)?;
        let Some(leader) = leader(c) else { continue };
        let host = c.world.host_of(leader);
        let (there, elsewhere): (Vec<NodeId>, Vec<NodeId>) =
            c.world.node_ids().partition(|node| c.world.host_of(*node) == host);
        let (pg, before) = (c.pg(0), c.world.now());
        let epoch = epoch_of(c, pg);
        match turn % 3 {
            0 => c.power_off(host, Outcome::LoseAll),
            1 => there.iter().for_each(|node| c.world.pause(*node, Duration::secs(8))),
            _ => c.partition(&there, &elsewhere),
        }
        let op = c.start_write(0, 0, 2);
        new_epoch(c, pg, epoch)?;
        let took = c.world.now().since(before);
        late += u32::from(took > SOON);
        if late > 1 {
            return Err(broken(format!("turn {turn}: new maps after {} ms", took.as_millis())));
        }
        c.wait(op)?;
        let moment = c.world.draw(ms(1), ms(5_000));
        c.run_for(moment)?;
        c.heal();
        there.iter().for_each(|node| c.world.resume(*node));
        c.start_everything();
        c.become_whole()?;
    }
    Ok(())
}

/// The leading monitor.
fn leader(c: &Cluster) -> Option<NodeId> {
    let leads = |node: &&NodeId| c.world.node(**node).and_then(|process| process.mon()).is_some_and(|mon| mon.is_leading());
    c.mons().iter().find(leads).copied()
}
