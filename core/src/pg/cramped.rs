//! Members without space for what peering wants to install.
//!
//! Owns what a group's primary remembers of them from one attempt to the next: versions that it does not insist on, and
//! when it last wished for an epoch without such a member; what becomes of writes then. Does not own the choice
//! (choose.rs), nor recovery in the background, which just waits (recover.rs).
//!
//! A version of the last recorded interval that some answering member of that interval lacks was never acknowledged, nor
//! served: it may go as well as stay. It stays if it can; if an acting member has no space for it, the next attempt takes
//! it for void, as one that nobody can read (choose.rs). In lazy pools the member may have lost
//! it with its power: there the group first tries to do without the member that has no space. So it does with any other
//! version, which may have been acknowledged; and if that is of no use, it waits.

use crate::id::{ObjectId, Requests, Version};
use crate::msg::Refusal;
use crate::pg::choose::{Mask, seats_of};
use crate::pg::msg::{Change, SubOp};
use crate::pg::ops::{Object, Op, State};
use crate::pg::primary::{Cx, Primary, RETRY_PAUSE};
use crate::pg::recover::{FAILURE_PAUSE, FULL_PAUSE};
use crate::planted::{Bug, planted};
use crate::slab::Key;
use crate::store::{Content, ObjectStore};
use crate::time::Time;
use std::collections::BTreeSet;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Cramped {
    /// Versions for which some acting member has no space.
    unplaced: BTreeSet<(ObjectId, Version)>,
    /// When the group may wish again for an epoch without a member that has no space. Such wishes come to nothing if
    /// the others have none either, and each costs all clients an epoch.
    wish_at: Option<Time>,
    /// Until when new objects are refused: some acting member had no space for one.
    refuse_until: Option<Time>,
}

impl Cramped {
    /// Whether an acting member has no space for this version.
    pub fn is_unplaced(&self, object: ObjectId, version: Version) -> bool {
        self.unplaced.contains(&(object, version))
    }

    /// The group is served, here or elsewhere: no version is uncertain any more.
    pub fn placed(&mut self) {
        self.unplaced.clear();
    }

    /// The group may wish for an epoch without a member that has no space; not again for a while.
    pub fn may_wish(&mut self, now: Time) -> Result<(), Time> {
        match self.wish_at {
            Some(at) if now < at => Err(at),
            _ => {
                self.wish_at = Some(now + FULL_PAUSE);
                Ok(())
            }
        }
    }

    /// Some acting member, which the group cannot do without, had no space for a new object: others would fare no better.
    pub fn refuse_new(&mut self, now: Time) {
        self.refuse_until = Some(now + FULL_PAUSE);
    }

    /// Whether new objects are refused.
    pub fn refuses_new(&self, now: Time) -> bool {
        self.refuse_until.is_some_and(|until| now < until)
    }

    /// An object was deleted: there may be space again.
    pub fn deleted(&mut self) {
        self.refuse_until = None;
    }

    /// What depends on the future, for the search at small scope.
    #[cfg(test)]
    pub fn state(&self) -> (&BTreeSet<(ObjectId, Version)>, [Option<Time>; 2]) {
        (&self.unplaced, [self.wish_at, self.refuse_until])
    }
}

impl Primary {
    /// Resolve: an acting member has no space for a copy of the version that counts. Gives up the attempt.
    pub fn cannot_place<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        object: ObjectId,
        seat: u8,
        sent: &SubOp,
    ) {
        if self.acting_seats() >> seat & 1 == 0 {
            // A void version is to be replaced there. It would do as well if there were space for it now.
            cx.host.mark("a void version waits for space to be replaced");
            cx.cramped.placed();
            return self.give_up(cx, FULL_PAUSE);
        }
        let entry = &self.unclean.entries[&object];
        let (version, good) = (entry.version, entry.good);
        let grounds = self.grounds(self.history.of(object.hash()));
        let last = grounds.sets.last().copied().unwrap_or(0) & grounds.answered;
        let acknowledged = version.epoch < grounds.last_epoch || last & !good == 0;
        // Where a tombstone is, what was before it is gone.
        let deletes = matches!(sent, SubOp::Install { content: Content::Tombstone, .. });
        let known = cx.cramped.is_unplaced(object, version);
        let may_go = !acknowledged && !deletes && !known && !planted(Bug::KeepUnplaced);
        if may_go && !self.rules.lazy {
            return self.let_go(cx, object, version);
        }
        self.unclean.is_full(seat, cx.host.now() + FULL_PAUSE);
        match cx.cramped.may_wish(cx.host.now()) {
            Ok(()) => {
                self.complain(cx, self.roster.osd(seat), "it has no space for a copy");
                self.give_up(cx, FAILURE_PAUSE);
            }
            Err(_) if may_go => self.let_go(cx, object, version),
            Err(at) => {
                cx.host.mark("peering waits for space on a member");
                self.give_up(cx, at.since(cx.host.now()));
            }
        }
    }

    fn let_go<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: ObjectId, version: Version) {
        cx.host.mark("there is no space for a version that was never acknowledged");
        cx.cramped.unplaced.insert((object, version));
        self.give_up(cx, RETRY_PAUSE);
    }

    /// Some members have no space. If none has, the write never happened; else those must go.
    pub fn no_space<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: Key<Object>, key: Key<Op>) {
        let seats = self.acting_seats();
        let op = self.ops.get(key).expect("found by the caller");
        let State::Writing { left, no_space, .. } = op.state else { return };
        if no_space == 0 || left & !no_space != 0 {
            return;
        }
        if no_space == seats {
            cx.host.mark("no member has space for a new object");
            return self.undo_all(cx, object, Refusal::NoSpace);
        }
        if !self.can_do_without(cx, no_space) {
            return self.withdraw_new(cx);
        }
        for seat in seats_of(no_space) {
            let osd = self.roster.osd(seat);
            self.complain(cx, osd, "it has no space for a new object");
        }
    }

    /// Some members took a new object, but too few for the group to go on with them: it wishes for an epoch with the same
    /// members, which settles the matter, and refuses new objects for a while.
    fn withdraw_new<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        cx.host.mark("a new object is withdrawn, since a member has no space");
        cx.cramped.refuse_new(cx.host.now());
        // An epoch with the same members is one with all of them.
        cx.wishes.retain(|_, grievance| grievance.until.is_none());
        self.trim.renewal = Some("a new object is to be withdrawn, for which a member has no space");
    }

    /// Whether the group may go on without a member that has no space. A primary comes back as soon as another one has
    /// taken its place, whose wish this was not: so it goes now and then only.
    pub fn lets_go<S: ObjectStore>(&self, cx: &mut Cx<'_, '_, '_, S>, seat: u8) -> bool {
        let is_own = self.roster.osd(seat) == cx.host.node.osd;
        self.can_do_without(cx, 1 << seat) && (!is_own || cx.cramped.may_wish(cx.host.now()).is_ok())
    }

    /// Whether the group is served without these seats either, beside those that it wishes to do without.
    fn can_do_without<S: ObjectStore>(&self, cx: &Cx<'_, '_, '_, S>, seats: Mask) -> bool {
        let unwished = self.roster.mask(|seat| cx.wishes.contains_key(&seat.member.osd));
        (self.acting_seats() & !seats & !unwished).count_ones() >= self.rules.minsize
    }

    /// A member that the group cannot do without has no space for the object's copy. The object can be deleted, which needs
    /// no space and makes some; nothing else can be written.
    pub fn write_cramped<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        object: Key<Object>,
        key: Key<Op>,
        change: &Change,
        requests: Requests,
    ) {
        if let Change::Delete = change {
            let newest = self.ops.object(object).newest;
            return self.bury(cx, object, key, newest, requests);
        }
        cx.host.mark("a write is refused, since a member has no space for what it builds on");
        self.finish(cx, key, Err(Refusal::NoSpace));
    }

    /// This OSD has no space for its own copy: what it knows of the version is enough to delete the object.
    pub fn load_label(&mut self, object: Key<Object>, id: ObjectId) -> bool {
        let entry = self.unclean.get(id).expect("the caller's");
        let Some((requests, tombstone)) = entry.label.as_deref().filter(|_| entry.cramped) else { return false };
        let record = self.ops.object_mut(object);
        record.loaded = true;
        record.newest = entry.version;
        record.absent = *tombstone;
        record.visible = if *tombstone { Version::NONE } else { entry.version };
        record.requests.clone_from(requests);
        true
    }
}
