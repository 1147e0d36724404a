//! After recovery: trimming the history, dropping tombstones, removing copies outside the acting set.
//!
//! Owns the order of these: nothing is dropped or removed before the history is trimmed. Does not own recovery.
//!
//! ```text
//! all objects whole -> history trimmed -> members outside leave; tombstones below the base are purged
//! ```
//! A tombstone also keeps the numbers of the requests that made it, so it stays as long as those may be retried.
//! Tombstones of the present epoch are above the base: when there are many, the primary wishes for another epoch.

use crate::id::{CopyId, OsdId, RequestId, Role};
use crate::io::MetaError;
use crate::map::History;
use crate::meta;
use crate::pg::history;
use crate::pg::msg::{SubOp, SubReply};
use crate::pg::ops::Kind;
use crate::pg::primary::{Cx, Primary, Purpose, Revisions};
use crate::planted::{Bug, planted};
use crate::store::{CopyInfo, ObjectStore, VersionInfo};
use crate::time::{Duration, Time};
use std::collections::BTreeSet;

/// Pause before the history is written again after a failure.
const PAUSE: Duration = Duration::millis(500);
/// Tombstones looked for, and purged, at a time: background work that shares the members with clients.
const PURGES: usize = 32;
/// Pages of copies looked at before other events have their turn: well below a millisecond of work.
const PAGES: usize = 32;
/// Tombstones whose requests may still be retried stay for this long: a retry that found nothing of its deletion would
/// delete what was written since. A client must not retry a deletion later than that.
const RETRY_GRACE: Duration = Duration::secs(600);
/// Between two looks at such tombstones.
const LEFT_PAUSE: Duration = Duration::secs(30);
/// Deletions in one epoch that are worth another one: a tombstone takes as much memory as an object, and an OSD serves
/// dozens of groups, so that all of them together stay at some megabytes.
const RENEWAL: u32 = 512;
/// Until the search for tombstones goes on.
const SCAN_PAUSE: Duration = Duration::millis(5);

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Trim {
    /// The history being written (or last written without a known result).
    pub proposed: Option<History>,
    /// The history is trimmed at this epoch.
    pub trimmed: bool,
    /// OSDs outside the acting set that are removing their copies.
    leaving: BTreeSet<OsdId>,
    /// Acting OSDs with copies in other roles than theirs.
    pub in_other_roles: BTreeSet<OsdId>,
    purging: usize,
    purge_after: Option<CopyId>,
    purge_done: bool,
    /// Tombstones were left since requests that they include may still be retried.
    purge_left: bool,
    /// Since when the history is trimmed.
    since: Time,
    /// Deletions in this epoch.
    deletions: u32,
    /// When they are worth another epoch.
    renew_at: Option<Time>,
    /// The primary wishes for another epoch with the same members: why.
    pub renewal: Option<&'static str>,
}

impl Trim {
    /// Whether nothing is left to be removed, as far as is known.
    pub fn is_done(&self) -> bool {
        self.trimmed
            && self.leaving.is_empty()
            && self.in_other_roles.is_empty()
            && self.purge_done
            && self.purging == 0
    }
}

impl Primary {
    /// Trims if every object is whole on all acting members.
    pub fn trim_if_clean<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        let whole = self.unclean.is_empty() || planted(Bug::TrimTooEarly);
        if !self.is_active() || !whole || self.trim.trimmed || self.meta_token.is_some() {
            return;
        }
        self.write_history(cx, history::trimmed(self.attempt.epoch, &self.acting_members));
    }

    /// The metadata store answered: to a trim, or to the question how an earlier one ended.
    pub fn trim_done<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, result: Result<meta::Response, MetaError>) {
        match result {
            Ok(meta::Response::Txn { succeeded: true, revision, results }) if results.len() == 1 => {
                self.trimmed(cx, revision);
            }
            Ok(response) => {
                let Some(recorded) = self.parse_reads(cx, &response) else {
                    return cx.host.mark("a trim was overtaken by a new epoch");
                };
                let history = recorded.revisions.history;
                self.revisions = Revisions { history: self.revisions.history, ..recorded.revisions };
                if Some(&recorded.history) == self.trim.proposed.as_ref() {
                    cx.host.mark("a trim had succeeded although its reply was lost");
                    self.trimmed(cx, history);
                } else {
                    let at = cx.host.now() + PAUSE;
                    self.look_again(cx, at);
                }
            }
            Err(_) => {
                let at = cx.host.now() + PAUSE;
                self.look_again(cx, at);
            }
        }
    }

    fn trimmed<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, revision: u64) {
        self.history_written(cx, revision);
        self.trim.trimmed = true;
        self.consider_renewal(cx);
        self.clean_up(cx);
    }

    /// An object is being deleted. Once there are many such in this epoch, time is left for their retries to end; so there
    /// is also time between two epochs for their sake.
    pub fn note_deletion<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        self.trim.deletions = self.trim.deletions.saturating_add(1);
        if self.trim.deletions == RENEWAL {
            let at = cx.host.now() + RETRY_GRACE;
            self.trim.renew_at = Some(at);
            cx.host.wake(self.pg, at);
        }
    }

    /// Whether it is time for another epoch, below which the tombstones of this one will be. Not before this one is
    /// trimmed: otherwise nothing would be dropped in the next one either.
    pub fn consider_renewal<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        let due = self.trim.renew_at.is_some_and(|at| at <= cx.host.now());
        if due && self.trim.trimmed && self.trim.renewal.is_none() {
            cx.host.mark("asking for a new epoch to drop tombstones");
            self.trim.renewal = Some("tombstones of this epoch are to be dropped");
        }
    }

    /// The pause after a failed trim, or between two looks for tombstones, is over.
    pub fn trim_again<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        if self.trim.trimmed {
            self.trim.purge_done &= self.trim.purge_after.is_some();
            for osd in self.trim.in_other_roles.clone() {
                self.vacate(cx, osd);
            }
            self.purge_more(cx);
        } else {
            self.trim_if_clean(cx);
        }
    }

    /// What may be dropped once the history is trimmed.
    pub fn clean_up<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        self.trim.since = cx.host.now();
        let acting: Vec<OsdId> = self.acting.iter().map(|member| member.osd).collect();
        let outside = |(_, seat): &(u8, &crate::pg::roster::Seat)| !acting.contains(&seat.member.osd);
        let holders = self.roster.mask(|seat| seat.statement.is_some_and(|said| said.digest.count > 0));
        let osds: Vec<OsdId> = self.roster.in_mask(holders).filter(outside).map(|(_, seat)| seat.member.osd).collect();
        for osd in osds {
            self.send_away(cx, osd);
        }
        for osd in self.trim.in_other_roles.clone() {
            self.vacate(cx, osd);
        }
        self.purge_more(cx);
    }

    /// An acting OSD gives up copies in roles that it no longer has.
    fn vacate<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, osd: OsdId) {
        let seat = self.roster.acting_seat(osd).expect("it acts");
        let keep = self.roster.role(seat);
        self.send(cx, seat, SubOp::Vacate { keep }, Purpose::Vacate);
    }

    /// An OSD removed (some of) its copies in other roles.
    pub fn vacated<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, from: OsdId, reply: &SubReply) {
        match reply {
            SubReply::Listing { more: true, .. } => self.vacate(cx, from),
            SubReply::Listing { more: false, .. } => {
                self.trim.in_other_roles.remove(&from);
            }
            _ => {
                cx.host.mark("a member does not know its role yet");
                let at = cx.host.now() + PAUSE;
                self.look_again(cx, at);
            }
        }
    }

    /// An OSD that placement wants here is about to have its place (again): what it holds saves copying. Should placement
    /// change its mind, the OSD reports its copies.
    fn send_away<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, osd: OsdId) {
        if self.target.contains(&Some(osd)) {
            return cx.host.mark("an OSD outside keeps its copies, since it is wanted");
        }
        if cx.host.node.is_connected(osd) && self.trim.leaving.insert(osd) {
            self.calls.send(cx.host, cx.post, osd, SubOp::Leave, Purpose::Leave);
        }
    }

    /// An OSD outside the acting set says that it holds copies.
    pub fn stray<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, from: OsdId) {
        let acts = self.acting.iter().any(|member| member.osd == from);
        if self.is_active() && self.trim.trimmed && !acts {
            self.send_away(cx, from);
        }
    }

    /// An OSD removed (some of) its copies.
    pub fn left<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, from: OsdId, reply: SubReply) {
        self.trim.leaving.remove(&from);
        if let SubReply::Listing { more: true, .. } = reply {
            self.send_away(cx, from);
        }
    }

    /// Drops tombstones below the base, some at a time, each as an operation on its object.
    fn purge_more<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        for _ in 0..PAGES {
            if self.trim.purging != 0 {
                return;
            }
            if self.trim.purge_done {
                return self.plan_purge(cx);
            }
            self.purge_page(cx);
        }
        let at = cx.host.now() + SCAN_PAUSE;
        self.look_again(cx, at);
    }

    /// Whether another look for tombstones is worth it.
    fn plan_purge<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        if std::mem::take(&mut self.trim.purge_left) {
            self.trim.purge_after = None;
            let at = cx.host.now() + LEFT_PAUSE;
            self.look_again(cx, at);
        }
    }

    fn purge_page<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        let mut copies = Vec::new();
        let (role, after) = (self.own_role(cx), self.trim.purge_after);
        let more = cx.host.store.list(self.pg.pool, role, self.rules.range, after, PURGES, &mut copies);
        self.trim.purge_after = copies.last().map(|info| info.copy);
        self.trim.purge_done = !more;
        let base = self.history.base_epoch;
        for info in &copies {
            if let Some(prepared) = &info.prepared {
                // Of an older interval: those of this one are waiting for it already.
                self.trim.purge_left |= prepared.tombstone && prepared.version.epoch < base;
                self.commit_later(cx, info.copy.object, prepared.version);
            }
        }
        let old = |info: CopyInfo| {
            let committed = info.committed.filter(|_| info.prepared.is_none())?;
            let settled = committed.version.epoch < base || planted(Bug::PurgeBeforeTrim);
            (committed.tombstone && settled).then_some((info.copy, committed))
        };
        let patient = cx.host.now() < self.trim.since + RETRY_GRACE && !planted(Bug::PurgeBeforeTrim);
        // Counted by one more, so that what ends at once does not begin the next page from within this one.
        self.trim.purging += 1;
        for (copy, VersionInfo { version, requests, .. }) in copies.into_iter().filter_map(old) {
            if patient && !self.sessions.have_seen(&requests) {
                self.trim.purge_left = true;
                continue;
            }
            self.trim.purging += 1;
            let object = self.ops.push(
                RequestId::default(),
                None,
                copy.object,
                Kind::Purge { version, committed: self.rules.replicated },
                None,
            );
            self.object_step(cx, object);
        }
        self.trim.purging -= 1;
    }

    /// A purge ended.
    pub fn purged<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        self.trim.purging -= 1;
        self.purge_more(cx);
    }

    /// The role of this OSD's own copies.
    pub fn own_role<S: ObjectStore>(&self, cx: &Cx<'_, '_, '_, S>) -> Role {
        let seat = self.roster.acting_seat(cx.host.node.osd).expect("a primary is an acting member");
        self.roster.role(seat)
    }
}
