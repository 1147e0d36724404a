//! Syncs of a lazy pool: what was acknowledged under this epoch becomes durable on all acting members.
//!
//! Owns which syncs wait, and the round of flushes under way. Does not own what members hold unsynced (their stores do),
//! nor what a client does when the epoch changed (its own affair: it replays).
//!
//! Rule: a sync is answered when every acting member has flushed, under this attempt, after every write that was
//! acknowledged before the sync came. A member that restarted since, or joined another attempt, refuses the flush; so
//! the answer vouches for all that was acknowledged in this epoch.
//!
//! Syncs that come while a round is under way share the next one, or this one if no write was confirmed since it began.

use crate::id::{LinkId, RequestId};
use crate::msg::{Answer, Message, Refusal, Reply, Request};
use crate::pg::choose::Mask;
use crate::pg::host::Host;
use crate::pg::msg::{SubOp, SubReply};
use crate::pg::primary::{Cx, Primary, Purpose};
use crate::planted::{Bug, planted};
use crate::store::ObjectStore;

/// A client's sync.
#[derive(Clone, Copy, Debug)]
struct Asked {
    link: LinkId,
    id: RequestId,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Syncs {
    /// For the next round.
    waiting: Vec<Asked>,
    /// Of the round under way.
    round: Vec<Asked>,
    /// Seats that have not flushed in the round under way; none: no round.
    left: Mask,
    /// A member confirmed a write that is not durable there, since the last round began.
    unflushed: bool,
    /// Another round is to follow, although no client waits for it.
    another: bool,
    /// Rounds that have begun.
    begun: u64,
}

impl Syncs {
    /// A member carried out a write that is not durable there.
    pub fn applied(&mut self) {
        self.unflushed = true;
    }

    /// Whether a round has ended, given its number.
    pub fn is_over(&self, round: u64) -> bool {
        self.begun > round || (self.begun == round && self.left == 0)
    }

    /// A client's connection is gone.
    pub fn client_gone(&mut self, link: LinkId) {
        self.waiting.retain(|asked| asked.link != link);
        self.round.retain(|asked| asked.link != link);
    }

    /// The interval is over.
    pub fn settle<S: ObjectStore>(&self, host: &mut Host<'_, '_, S>, refusal: Refusal) {
        for asked in self.waiting.iter().chain(&self.round) {
            let reply = Reply { id: asked.id, outcome: Err(refusal) };
            host.env.out.send(asked.link, Message::Reply(reply));
        }
    }
}

impl Primary {
    /// A client asks that what it was told becomes durable.
    pub fn sync<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, link: LinkId, request: &Request) {
        // What the client will not replay even if this sync fails. (That it succeeded, the client may never learn.)
        self.sessions.settled(request.id.session, request.seen);
        let asked = Asked { link, id: request.id };
        let under_way = self.syncs.left != 0;
        if planted(Bug::SyncWithoutFlush) || (!self.syncs.unflushed && !under_way) {
            return self.answer(cx, Some(link), request.id, Ok(Answer::Synced));
        }
        if !self.syncs.unflushed {
            cx.host.mark("a sync joins the flushes under way");
            return self.syncs.round.push(asked);
        }
        self.syncs.waiting.push(asked);
        if !under_way {
            self.begin_flushes(cx);
        }
    }

    /// Makes durable, without a client, what was confirmed so far. The number of the round that does it.
    pub fn flush_all<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) -> u64 {
        if self.syncs.left != 0 && self.syncs.unflushed {
            self.syncs.another = true;
            return self.syncs.begun + 1;
        }
        if self.syncs.left == 0 && self.syncs.unflushed {
            self.begin_flushes(cx);
        }
        self.syncs.begun
    }

    fn begin_flushes<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        self.syncs.round.append(&mut self.syncs.waiting);
        self.syncs.unflushed = false;
        self.syncs.another = false;
        self.syncs.begun += 1;
        self.syncs.left = self.acting_seats();
        if planted(Bug::SyncOneMember) {
            self.syncs.left &= self.syncs.left.wrapping_neg();
        }
        self.flush_seats(cx, self.syncs.left);
    }

    fn flush_seats<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, seats: Mask) {
        for seat in (0..64u8).filter(|seat| seats >> seat & 1 == 1) {
            self.send(cx, seat, SubOp::Flush, Purpose::Flush { seat });
        }
    }

    /// A member answered a flush.
    pub fn flushed<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, seat: u8, reply: SubReply) {
        if reply != SubReply::Done {
            let osd = self.roster.osd(seat);
            return self.complain(cx, osd, "it cannot make its data durable");
        }
        self.syncs.left &= !(1 << seat);
        if self.syncs.left != 0 {
            return;
        }
        for asked in std::mem::take(&mut self.syncs.round) {
            self.answer(cx, Some(asked.link), asked.id, Ok(Answer::Synced));
        }
        if self.syncs.another || !self.syncs.waiting.is_empty() {
            self.begin_flushes(cx);
        }
    }

    /// A member that refused a flush is asked again.
    pub fn flush_again<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, osd: crate::id::OsdId) {
        let Some(seat) = self.roster.acting_seat(osd) else { return };
        if self.syncs.left >> seat & 1 == 1 && !self.calls.waits_for(osd) {
            self.flush_seats(cx, 1 << seat);
        }
    }
}
