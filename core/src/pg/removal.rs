//! Removing the objects of images that are marked for removal.
//!
//! Owns, for one interval, the search for such objects and the report that none is left. Does not own the mark, nor the
//! end of the image's entry (the leading monitor), nor the refusal of requests (images.rs).
//!
//! ```text
//!         images are marked           page by page: each object found is deleted, as an operation on it
//!  Idle ---------------------> Scanning ----+-----------------------------> Flushing --> Reporting --> Idle
//!                                 ^         | something was found, or is under way          | failed
//!                                 +---------+-----------------------------------------------+
//! ```
//! Invariants: a report is written only after a whole pass found neither an object nor an operation of the images, and
//! what was deleted is durable; in a transaction that compares that the group's map is the one that this primary knows
//! and that the images are there still. Nothing is kept across intervals: the next primary looks again.

use crate::id::{CopyId, InodeId, ObjectId, RequestId};
use crate::io::MetaError;
use crate::map::{Removed, keys};
use crate::meta::{self, Compare, TxnOp};
use crate::pg::host::MetaCall;
use crate::pg::ops::Kind;
use crate::pg::primary::{Cx, Primary};
use crate::planted::{Bug, planted};
use crate::store::{CopyInfo, ObjectStore};
use crate::time::{Duration, Time};

/// Objects deleted at a time in one group: an OSD is primary of dozens, and clients go on meanwhile.
const DELETIONS: usize = 4;
/// Copies looked at in one step, and until the next: well below a millisecond of work, and a tenth of the time.
const PAGE: usize = 256;
/// See [`PAGE`].
const PAGE_PAUSE: Duration = Duration::millis(2);
/// Pause before another pass, when something was found or could not be done yet.
const PASS_PAUSE: Duration = Duration::millis(50);
/// Pause before a report that failed is written again.
const REPORT_PAUSE: Duration = Duration::millis(500);

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Removal {
    /// The images, with the revisions of their creation.
    images: Vec<(InodeId, u64)>,
    stage: Stage,
    /// The pass goes on after this copy.
    after: Option<CopyId>,
    /// This pass found something.
    found: bool,
    /// Deletions under way.
    deleting: usize,
    /// When to look again.
    at: Option<Time>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Idle,
    Scanning,
    /// Of deletions that a lazy pool's members only applied: the round of flushes that makes them durable.
    Flushing(u64),
    /// The token of the request to the metadata store.
    Reporting(u64),
}

impl Removal {
    /// Whether this is the answer that it waits for.
    pub fn waits_for(&self, token: u64) -> bool {
        self.stage == Stage::Reporting(token)
    }
}

impl Primary {
    /// The marks may have changed, or the group is served from now on.
    pub fn remove_images<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        let images = cx.host.node.images.removing(self.pg.pool);
        if !self.is_active() || self.removal.images == images {
            return;
        }
        let deleting = self.removal.deleting;
        self.removal = Removal { images, deleting, ..Removal::default() };
        if !self.removal.images.is_empty() {
            self.removal.stage = Stage::Scanning;
            self.removal_step(cx);
        }
    }

    /// Time passed.
    pub fn removal_tick<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        if self.removal.at.is_some_and(|at| at <= cx.host.now()) {
            self.removal.at = None;
            self.removal_step(cx);
        }
    }

    fn removal_pause<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, pause: Duration) {
        let at = cx.host.now() + pause;
        self.removal.at = Some(at);
        cx.host.wake(self.pg, at);
    }

    /// One page of the pass.
    fn removal_step<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        if let Stage::Flushing(round) = self.removal.stage {
            return self.report_when_durable(cx, round);
        }
        if self.removal.stage != Stage::Scanning || self.removal.deleting >= DELETIONS {
            return;
        }
        let (role, after) = (self.own_role(cx), self.removal.after);
        let mut copies = Vec::new();
        let more = cx.host.store.list(self.pg.pool, role, self.rules.range, after, PAGE, &mut copies);
        for info in copies {
            if self.removal.deleting >= DELETIONS {
                // Goes on when one of them is done.
                return;
            }
            self.removal.after = Some(info.copy);
            if is_there(&info) {
                self.delete_object(cx, info.copy.object);
            }
        }
        if more {
            return self.removal_pause(cx, PAGE_PAUSE);
        }
        self.pass_done(cx);
    }

    /// Deletes an object if it belongs to one of the images.
    fn delete_object<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: ObjectId) {
        if !self.removal.images.iter().any(|(inode, _)| *inode == object.inode) {
            return;
        }
        self.removal.found = true;
        self.removal.deleting += 1;
        let object = self.ops.push(RequestId::default(), None, object, Kind::Remove, None);
        self.object_step(cx, object);
    }

    /// All own copies were looked at. Objects that are not whole may be missing among them.
    fn pass_done<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        self.removal.after = None;
        let own = self.roster.acting_seat(cx.host.node.osd).expect("a primary is an acting member");
        for object in self.unclean.missing_at(own) {
            if planted(Bug::RemovalSkipsMissing) {
                break;
            }
            if self.removal.deleting < DELETIONS && self.ops.find(object).is_none() {
                self.delete_object(cx, object);
            }
        }
        let removed = |inode: InodeId| self.removal.images.iter().any(|(other, _)| *other == inode);
        let busy = self.ops.iter().any(|(_, op)| removed(self.ops.object(op.object).id.inode));
        if (std::mem::take(&mut self.removal.found) || busy) && !planted(Bug::RemovalReportsEarly) {
            return self.removal_pause(cx, PASS_PAUSE);
        }
        let round = self.flush_all(cx);
        self.removal.stage = Stage::Flushing(round);
        self.report_when_durable(cx, round);
    }

    fn report_when_durable<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, round: u64) {
        if self.syncs.is_over(round) { self.report_removed(cx) } else { self.removal_pause(cx, PASS_PAUSE) }
    }

    fn report_removed<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        let token = cx.host.env.rng.next_u64();
        let value = serde_json::to_vec(&Removed { epoch: self.attempt.epoch }).expect("plain data has a JSON form");
        let mut compare = vec![Compare::ModRevision(self.map_key(), self.revisions.map)];
        let mut success = Vec::new();
        for (inode, revision) in &self.removal.images {
            compare.push(Compare::CreateRevision(keys::image(self.pg.pool, *inode), *revision));
            let key = keys::removed(self.pg, *inode);
            success.push(TxnOp::Put { key, value: value.clone(), lease: 0 });
        }
        let failure = self.reads();
        let request = meta::Request::Txn(meta::Txn { compare, success, failure });
        cx.host.meta.push(MetaCall { pg: self.pg, token, request });
        self.removal.stage = Stage::Reporting(token);
    }

    /// The report was answered.
    pub fn removed_reported<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        result: Result<meta::Response, MetaError>,
    ) {
        if let Ok(meta::Response::Txn { succeeded: true, .. }) = result {
            self.removal.stage = Stage::Idle;
            return;
        }
        cx.host.mark("a report of removed images failed");
        self.removal.stage = Stage::Scanning;
        // Maps of other groups under the same key may have changed, no more. If the group's own did, this primary ends.
        let found = result.ok().and_then(|response| self.parse_reads(cx, &response));
        if let Some(recorded) = found {
            self.revisions.map = recorded.revisions.map;
            return self.removal_step(cx);
        }
        self.removal_pause(cx, REPORT_PAUSE);
    }

    /// A deletion ended, one way or the other: the next pass sees which.
    pub fn object_removed<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        self.removal.deleting -= 1;
        if self.removal.at.is_none() && self.removal.deleting < DELETIONS {
            self.removal_pause(cx, Duration::ZERO);
        }
    }
}

/// Whether a copy is more than a tombstone. A prepared one that no operation waits for is on all acting members.
fn is_there(info: &CopyInfo) -> bool {
    info.prepared.as_ref().or(info.committed.as_ref()).is_some_and(|newest| !newest.tombstone)
}
