//! Ending what was accepted of clients that may not write any more.

use crate::map::access::Access;
use crate::msg::{Message, Refusal, Reply};
use crate::pg::Pg;
use crate::pg::host::Host;
use crate::pg::ops::{Op, State};
use crate::pg::primary::{Cx, Primary};
use crate::slab::Key;
use crate::store::ObjectStore;

impl Pg {
    /// New rules: requests that they refuse end, unless they are under way.
    pub fn access_changed<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>) {
        let node = host.node;
        for _ in 0..self.held.len() {
            let Some((link, request)) = self.held.pop_front() else { break };
            match node.access.refusal(request.id.session, request.object, request.op.is_write()) {
                Some(refusal) => {
                    let reply = Reply { id: request.id, outcome: Err(refusal) };
                    host.env.out.send(link, Message::Reply(reply));
                }
                None => self.held.push_back((link, request)),
            }
        }
        self.with_primary(host, |primary, cx| primary.access_changed(cx));
        self.finish_call(host);
    }

    /// Whether nothing is left here that the rules refuse.
    pub fn obeys(&self, access: &Access) -> bool {
        let Some(primary) = &self.primary else { return true };
        primary.ops.iter().all(|(_, op)| primary.refusal(access, op).is_none())
    }
}

impl Primary {
    /// Why an operation would be refused; our own are not.
    fn refusal(&self, access: &Access, op: &Op) -> Option<Refusal> {
        if !op.is_clients() {
            return None;
        }
        access.refusal(op.id.session, self.ops.object(op.object).id, op.kind.is_write())
    }

    fn access_changed<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        let access = &cx.host.node.access;
        let refused = self.ops.iter().filter_map(|(key, op)| Some((key, self.refusal(access, op)?)));
        let refused: Vec<(Key<Op>, Refusal)> = refused.collect();
        for (key, refusal) in refused {
            // What came before it may have ended it, or begun it.
            let Some(op) = self.ops.get(key) else { continue };
            if let State::Waiting | State::Leasing { .. } = op.state {
                let object = op.object;
                self.finish(cx, key, Err(refusal));
                self.object_step(cx, object);
            }
        }
    }
}
