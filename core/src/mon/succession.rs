//! A leader that went with its machine is deposed, instead of waiting for the end of its lease.
//!
//! Owns when the leader's key is deleted by somebody else. When the leader of the metadata store goes with the same
//! machine, the next one begins all leases anew, and OSDs that died there would be missed for longer than it takes to
//! find out about them.
//!
//! The evidence is that of the verdict: all OSDs at the leader's address are down, and all of them by silence. (A
//! refused connection comes from a machine that lives, and whoever stops says so itself.)
//!
//! ```text
//!               leader is gone with its machine             failed
//!   Watching ------------------------------------> Asking ----------> Watching
//!      ^                                             | done
//!      +----- another leads, or its OSDs are up -----+-- Deposed
//! ```
//! Invariant: nothing depends on the evidence. A leader that lives loses its guard with its key, so it changes nothing
//! more, and asks for the key like everybody; it is not deposed again until its OSDs have been up.

use super::verdict::up_osds;
use crate::id::{Incarnation, OsdId};
use crate::io::{Effect, Env, MetaError, MetaId, MetaOp};
use crate::map::{ClusterMap, OsdState, keys};
use crate::meta::{Compare, Keys, Request, Response, Txn, TxnOp};
use crate::planted::{Bug, planted};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Succession {
    deposed: Option<Incarnation>,
    asking: Option<MetaId>,
}

impl Succession {
    /// What a monitor that does not lead does when it learned something: whether a leader was deposed.
    pub fn consider(&mut self, env: &mut Env<'_>, map: &ClusterMap, next_id: impl FnOnce() -> MetaId) -> bool {
        let Some((leader, since)) = map.leader() else { return false };
        if !is_gone(map, &leader.address) {
            self.deposed = None;
            return false;
        }
        if self.asking.is_some() || self.deposed == Some(leader.incarnation) || planted(Bug::AwaitSilentLeader) {
            return false;
        }
        let id = next_id();
        (self.deposed, self.asking) = (Some(leader.incarnation), Some(id));
        let compare = vec![Compare::CreateRevision(keys::leader(), since.0)];
        let success = vec![TxnOp::Delete(Keys::One(keys::leader()))];
        let request = Request::Txn(Txn { compare, success, failure: Vec::new() });
        env.out.push(Effect::Meta(MetaOp::Request { id, request }));
        true
    }

    /// Takes a response; false if it is not ours. That the key is gone, its watch says.
    pub fn handle(&mut self, id: MetaId, result: &Result<Response, MetaError>) -> bool {
        if self.asking != Some(id) {
            return false;
        }
        self.asking = None;
        if result.is_err() {
            self.deposed = None;
        }
        true
    }
}

/// Whether everything at an address has fallen silent.
fn is_gone(map: &ClusterMap, address: &str) -> bool {
    if map.failure_reports().next().is_none() {
        return false;
    }
    let there = machine(address);
    let at_address = |(_, state): &(OsdId, &OsdState)| machine(&state.address) == there;
    let mut osds = map.osd_states().filter(at_address).peekable();
    let up = up_osds(map);
    osds.peek().is_some() && osds.all(|(osd, state)| !up.contains_key(&osd) && !answers(map, osd, state.incarnation))
}

/// Whether somebody knows for certain that an OSD is down, which the machine must have said.
fn answers(map: &ClusterMap, osd: OsdId, incarnation: Incarnation) -> bool {
    map.failure_reports().any(|(about, _, report, _)| about == osd && report.incarnation == incarnation && report.hard)
}

/// The part of an address that machines have.
fn machine(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(machine, _)| machine)
}
