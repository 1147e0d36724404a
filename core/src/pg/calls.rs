//! A primary's sub-operations under way.
//!
//! Owns which sub-operation went to whom, what it is for, and their order. Sends them again when a connection is back:
//! members carry out a repetition as nothing. Does not own what follows from the replies.

use crate::id::{Attempt, OsdId};
use crate::pg::host::Host;
use crate::pg::msg::SubOp;
use crate::pg::post::Post;
use crate::planted::{Bug, planted};
use crate::slab::{Key, Slab};
use crate::store::ObjectStore;
use crate::time::Time;

/// Sub-operations under way, each with what it is for.
#[derive(Clone, Debug)]
pub struct Calls<P> {
    attempt: Attempt,
    sent: u64,
    calls: Slab<Call<P>>,
}

#[derive(Clone, Debug)]
struct Call<P> {
    to: OsdId,
    order: u64,
    op: SubOp,
    purpose: P,
    since: Time,
}

impl<P: Copy> Calls<P> {
    /// None under way.
    pub fn new(attempt: Attempt) -> Self {
        Calls { attempt, sent: 0, calls: Slab::default() }
    }

    /// Sends a sub-operation, now or as soon as there is a connection.
    pub fn send<S: ObjectStore>(
        &mut self,
        host: &mut Host<'_, '_, S>,
        post: &mut Post,
        to: OsdId,
        op: SubOp,
        purpose: P,
    ) {
        self.sent += 1;
        let call =
            self.calls.insert(Call { to, order: self.sent, op: op.clone(), purpose, since: host.now() }).to_u64();
        post.op(host, to, self.attempt, call, op);
    }

    /// Takes the call that `from` answered, and when it was sent first; `None`: it was answered before.
    pub fn answered(&mut self, from: OsdId, call: u64) -> Option<(P, SubOp, Time)> {
        let key = Key::from_u64(call);
        self.calls.get(key).filter(|call| call.to == from)?;
        self.calls.remove(key).map(|call| (call.purpose, call.op, call.since))
    }

    /// Sends again, in order, what `to` has not answered.
    pub fn repeat<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>, post: &mut Post, to: OsdId) {
        let again = |call: &Call<P>| call.to == to && !planted(Bug::ForgetCalls);
        let mut unanswered: Vec<_> = self.calls.iter().filter(|(_, call)| again(call)).collect();
        unanswered.sort_by_key(|(_, call)| call.order);
        for (key, call) in unanswered {
            post.op(host, to, self.attempt, key.to_u64(), call.op.clone());
        }
    }

    /// Whether something is under way to an OSD.
    pub fn waits_for(&self, osd: OsdId) -> bool {
        self.calls.iter().any(|(_, call)| call.to == osd)
    }
}
