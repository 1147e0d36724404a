//! The second phase of writes to erasure-coded objects: telling members that a version was complete.
//!
//! Owns which versions are to be committed, and when. Does not own the commits that an object's next `Prepare` carries
//! along, which are most of them under load.
//!
//! Rules: only what is acknowledged, or was recorded by peering, is committed. A member commits exactly the version that
//! it is told, if that is what it has prepared; so a late or repeated order does nothing. Nobody waits for a commit, but
//! the purge of a tombstone.

use crate::id::{CopyId, ObjectId, Version};
use crate::pg::choose::seats_of;
use crate::pg::msg::SubOp;
use crate::pg::ops::{Op, State};
use crate::pg::primary::{Cx, Primary, Purpose};
use crate::slab::Key;
use crate::store::ObjectStore;
use crate::time::{Duration, Time};
use std::collections::VecDeque;

/// Commits in one message: some 4 KiB, and 128 records of a member's log, which share pages.
const BATCH: usize = 128;
/// Until versions are committed whose object is not written again: long enough for most commits to be carried by a next
/// write or to share a message, short enough that prepared data do not pile up in the members' logs.
const DELAY: Duration = Duration::millis(200);

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Commits {
    queue: VecDeque<(ObjectId, Version)>,
    at: Option<Time>,
}

impl Commits {
    /// Peering found a version prepared; it is committed once the interval is served.
    pub fn note(&mut self, object: ObjectId, version: Version) {
        self.queue.push_back((object, version));
    }
}

impl Primary {
    /// A version is complete on all acting members.
    pub fn commit_later<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: ObjectId, version: Version) {
        self.stripes.commits.note(object, version);
        self.arm_commits(cx);
    }

    /// Sees to it that what is to be committed will be.
    pub fn arm_commits<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        let commits = &mut self.stripes.commits;
        if !commits.queue.is_empty() && commits.at.is_none() {
            let at = cx.host.now() + DELAY;
            commits.at = Some(at);
            cx.host.wake(self.pg, at);
        }
        if self.stripes.commits.queue.len() >= 2 * BATCH {
            self.send_commits(cx);
        }
    }

    /// Time passed.
    pub fn commit_tick<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        if self.is_active() && self.stripes.commits.at.is_some_and(|at| at <= cx.host.now()) {
            self.stripes.commits.at = None;
            self.send_commits(cx);
            self.arm_commits(cx);
        }
    }

    fn send_commits<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        let mut left = self.stripes.commits.queue.len();
        while left > 0 {
            let mut batch = Vec::with_capacity(left.min(BATCH));
            while left > 0 && batch.len() < BATCH {
                left -= 1;
                let (object, version) = self.stripes.commits.queue.pop_front().expect("counted");
                match self.newest_of(cx, object) {
                    // The next version's `Prepare` carried the commit.
                    newest if newest > version => {}
                    // It is read, or will be overwritten: later.
                    _ if self.ops.find(object).is_some() => self.stripes.commits.queue.push_back((object, version)),
                    _ => batch.push((object, version)),
                }
            }
            if batch.is_empty() {
                return;
            }
            for seat in seats_of(self.acting_seats()) {
                let op = SubOp::Commit { role: self.roster.role(seat), versions: batch.clone() };
                self.send(cx, seat, op, Purpose::Commit);
            }
        }
    }

    /// The newest version that is known here, in flight or not.
    fn newest_of<S: ObjectStore>(&self, cx: &Cx<'_, '_, '_, S>, object: ObjectId) -> Version {
        let record = self.ops.find(object).map(|key| self.ops.object(key)).filter(|record| record.loaded);
        record.map_or_else(|| self.own_newest(cx, object), |record| record.newest)
    }

    fn own_newest<S: ObjectStore>(&self, cx: &Cx<'_, '_, '_, S>, object: ObjectId) -> Version {
        let info = cx.host.store.lookup(CopyId { object, role: self.own_role(cx) });
        let newest = info.and_then(|info| info.prepared.or(info.committed));
        newest.map_or(Version::NONE, |newest| newest.version)
    }

    /// A tombstone is purged only once it is committed everywhere: first that.
    pub fn commit_before_purge<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        key: Key<Op>,
        object: ObjectId,
        version: Version,
    ) {
        let seats = self.acting_seats();
        let op = self.ops.get_mut(key).expect("the caller's");
        op.state = State::Writing { version: Version::NONE, tombstone: true, left: seats, no_space: 0, damaged: 0 };
        for seat in seats_of(seats) {
            let op = SubOp::Commit { role: self.roster.role(seat), versions: vec![(object, version)] };
            self.send(cx, seat, op, Purpose::Write { op: key, seat });
        }
    }
}
