//! Processes are upgraded one after the other, to a version that speaks a newer protocol, then to one that speaks no other.
//! Goal: while versions are mixed everything goes on, at the newest version that both ends speak; one that was left too far
//! behind is refused, by whichever end, harms nobody, and is a member again once it is upgraded, too.
//! Method: one OSD is left behind while all others are upgraded twice, with writes and reads after each; then it is
//! started at the version of long ago, and at last upgraded.
//! Stands for: F18

use super::{broken, four, ms};
use crate::check::history::Finding;
use crate::cluster::{Cluster, Config, STAGES};
use crate::world::NodeId;
use ashlar_core::time::Duration;

const MIXED: &str = "sim: nodes agree on an older version of the protocol";
const REFUSED: &str = "sim: a node is refused for its version of the protocol";

pub(super) fn configure(config: Config) -> Config {
    four(config)
}

pub(super) fn run(c: &mut Cluster) -> Result<(), Finding> {
    c.settle_down()?;
    c.fill(0)?;
    let left_behind = c.osds()[0];
    let clients = [c.client_node(0), c.client_node(1)];
    let others: Vec<NodeId> = c.mons().iter().chain(&c.osds()[1..]).chain(&clients).copied().collect();
    for node in &others {
        upgrade(c, *node, 1)?;
    }
    if c.marks().contains_key(REFUSED) {
        return Err(broken("a version was refused in the first half of an upgrade, in which all understand each other"));
    }
    c.become_whole()?;
    c.kill(left_behind);
    for node in &others {
        upgrade(c, *node, 2)?;
    }
    c.start(left_behind);
    c.start_write(0, 0, 2);
    c.run_for(ms(8_000))?;
    c.write(1, 1, 2)?;
    if !c.marks().contains_key(MIXED) || !c.marks().contains_key(REFUSED) {
        return Err(broken("versions were to meet that are not the same, and such that do not understand each other"));
    }
    c.kill(left_behind);
    upgrade(c, left_behind, 2)?;
    c.become_whole()
}

/// Restarts a process as a newer version of it; clients go on meanwhile.
fn upgrade(c: &mut Cluster, node: NodeId, stage: usize) -> Result<(), Finding> {
    c.kill(node);
    c.speak(node, STAGES[stage]);
    let pause = c.world.draw(ms(1), ms(300));
    c.run_for(pause)?;
    c.start(node);
    if !c.run_until(Duration::secs(30), |c| c.is_ready(0) && c.is_ready(1))? {
        return Err(broken(format!("a client does not come back: {}", c.describe_stuck())));
    }
    c.write(0, 0, 2)?;
    c.read(1, 0, 8).map(drop)
}
