//! Sending between the two sides of groups: to other OSDs by link, to this one by a queue.
//!
//! Owns messages of this OSD to itself. They are delivered before the call into the group returns.

use crate::id::{Attempt, OsdId, PgId};
use crate::pg::host::Host;
use crate::pg::msg::{PgMessage, SubOp, SubReply};
use crate::store::ObjectStore;
use std::collections::VecDeque;

/// See the module.
#[derive(Clone, Debug)]
pub struct Post {
    /// The group.
    pub pg: PgId,
    local: VecDeque<Local>,
}

/// A message to ourselves.
#[derive(Clone, Debug)]
pub enum Local {
    /// To the member side.
    Op(Attempt, u64, SubOp),
    /// To the primary side.
    Reply(Attempt, u64, SubReply),
}

impl Post {
    /// Nothing under way.
    pub fn new(pg: PgId) -> Self {
        Post { pg, local: VecDeque::new() }
    }

    /// The next message to ourselves.
    pub fn next_local(&mut self) -> Option<Local> {
        self.local.pop_front()
    }

    /// Primary to member.
    pub fn op<S: ObjectStore>(
        &mut self,
        host: &mut Host<'_, '_, S>,
        to: OsdId,
        attempt: Attempt,
        call: u64,
        op: SubOp,
    ) {
        if to == host.node.osd {
            self.local.push_back(Local::Op(attempt, call, op));
        } else {
            host.send(to, PgMessage::SubOp { pg: self.pg, attempt, call, op });
        }
    }

    /// Member to primary.
    pub fn reply<S: ObjectStore>(
        &mut self,
        host: &mut Host<'_, '_, S>,
        to: OsdId,
        attempt: Attempt,
        call: u64,
        reply: SubReply,
    ) {
        if to == host.node.osd {
            self.local.push_back(Local::Reply(attempt, call, reply));
        } else {
            host.send(to, PgMessage::SubReply { pg: self.pg, attempt, call, reply });
        }
    }
}
