//! Making objects whole: resolve before the record, recovery and rebalancing in the background afterwards.
//!
//! Owns the objects that are not the same everywhere, and the steps that make them so. Does not own the choice of
//! versions, nor the order in which groups get slots (the OSD node's [`super::pace::RecoverySlots`]).
//!
//! ```text
//! Idle -> Removing (void and stale copies) -> Idle -> Fetching (a good copy, or `k`) -> Installing (where it lacks) -> done
//!                                              |                                           ^
//!                                              +-> Asking -> Reading (what was missed) ----+   (partial.rs)
//! ```
//! In erasure-coded pools resolve installs the version as prepared, on top of the committed one; a valid version that is
//! prepared there already is committed first, which its successor shows to have been complete.
//! In resolve only what must be done before the record is done; a step that fails leads to a new attempt. Later, it
//! leads to another source, or to the wish for an epoch without the member that failed.

use crate::id::{CopyId, ObjectId, OsdId, Requests, Version};
use crate::pg::choose::{Mask, seats_of};
use crate::pg::host::Host;
use crate::pg::msg::{Purpose as InstallPurpose, Refused, SubOp, SubReply};
use crate::pg::pace::Urgency;
use crate::pg::partial::Partial;
use crate::pg::primary::{Cx, Primary, Purpose, RETRY_PAUSE, Stage};
use crate::pg::rebuild::{Fetched, hides_damage};
use crate::planted::{Bug, planted};
use crate::store::{Content, Mode, ObjectStore};
use crate::time::{Duration, Time};
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};

/// Objects resolved at a time: enough to hide round trips, few enough to bound memory.
const RESOLVING: usize = 16;

/// Pause after a member failed in resolve: the monitor should have had time to act on the complaint.
pub const FAILURE_PAUSE: Duration = Duration::millis(1_000);

/// Pause before a member that had no space for a copy is tried again, with one object: somebody has to make room.
pub const FULL_PAUSE: Duration = Duration::secs(10);

/// Copies to remove: seat and version.
pub type Doomed = SmallVec<[(u8, Version); 2]>;

/// A store removes the newest version of a copy only.
fn newest_first(doomed: &mut Doomed) {
    doomed.sort_by_key(|(seat, version)| (*seat, std::cmp::Reverse(*version)));
}

/// An object that is not the same everywhere.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The version that counts; none: the object does not exist.
    pub version: Version,
    /// Seats with a good copy of it.
    pub good: Mask,
    /// Acting seats without; before the record also others that are to get it.
    pub missing: Mask,
    /// Good copies needed to read it: one of a tombstone, else `k`.
    pub needed: u32,
    /// Copies to be removed before anything is installed, the newest of a seat first.
    pub remove: Doomed,
    /// Copies to be removed once the group serves.
    pub later: Doomed,
    /// Prepared versions to be committed before the next one is installed on top.
    pub commit: Doomed,
    /// Something must be done before the record.
    pub resolve: bool,
    /// That includes the installation.
    pub install: bool,
    /// Of the acting seats without, those that have an older version, undamaged: which.
    pub bases: SmallVec<[(u8, Version); 2]>,
    /// Members get the whole copy, not what they missed.
    pub whole: bool,
    /// What is known of what they missed.
    pub partial: Option<Box<Partial>>,
    /// Seats whose copy of this very version is damaged.
    pub repair: Mask,
    /// A copy that was to supply it turned out to be damaged in this attempt.
    unreadable: bool,
    /// An operation waits for it.
    wanted: bool,
    /// There is no good copy.
    pub unfound: bool,
    /// A client waited for it, and a member that the group cannot do without has no space for it.
    pub cramped: bool,
    /// Which requests its version includes, and whether that is a tombstone: as far as a client waits for it.
    pub label: Option<Box<(Requests, bool)>>,
    /// It is being deleted, whatever its members hold.
    pub buried: bool,
    /// It has one of the OSD's slots.
    slot: bool,
    /// What is under way.
    pub work: Work,
    /// What was fetched so far.
    fetched: Vec<Fetched>,
}

/// A step that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// None.
    Idle,
    /// So many copies are being removed.
    Removing(u32),
    /// These seats are asked what changed.
    Asking(Mask),
    /// Parts are read from these seats.
    Reading(Mask),
    /// Copies are fetched from these seats.
    Fetching(Mask),
    /// Copies are installed on these seats.
    Installing(Mask),
}

/// A step, as a sub-operation's purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A copy is being removed.
    Remove,
    /// A source is asked what changed.
    Ask,
    /// This range is being read.
    Read(u8),
    /// A copy is being fetched.
    Fetch,
    /// A copy is being installed.
    Install,
}

impl Entry {
    /// See the fields; the others say that there is nothing more to do.
    pub fn new(version: Version, needed: u32, good: Mask, missing: Mask) -> Self {
        Entry {
            version,
            good,
            missing,
            needed,
            remove: Doomed::new(),
            later: Doomed::new(),
            commit: Doomed::new(),
            resolve: false,
            install: false,
            bases: SmallVec::new(),
            whole: false,
            partial: None,
            repair: 0,
            unreadable: false,
            wanted: false,
            unfound: false,
            cramped: false,
            label: None,
            buried: false,
            slot: false,
            work: Work::Idle,
            fetched: Vec::new(),
        }
    }

    /// Whether it stays as it is for now, so that it can be looked at and deleted.
    pub fn is_settled(&self) -> bool {
        self.cramped && !self.buried && self.work == Work::Idle
    }

    fn is_installed_at(&self, seat: u8) -> bool {
        self.install && self.missing >> seat & 1 == 1
    }

    /// An installation replaces whatever is there.
    pub fn install_over(&mut self) {
        let (install, missing) = (self.install, self.missing);
        self.remove.retain(|(seat, _)| !(install && missing >> *seat & 1 == 1));
        self.commit.clear();
    }

    /// An installation is prepared on top of what is there: nothing above it may stay, and what is prepared and valid
    /// below it is committed.
    pub fn install_on_top(&mut self, is_prepared: impl Fn(u8, Version) -> bool) {
        let (now, later) =
            std::mem::take(&mut self.later).into_iter().partition(|(seat, _)| self.is_installed_at(*seat));
        self.later = later;
        self.remove.extend::<Doomed>(now);
        newest_first(&mut self.remove);
        let below = std::mem::take(&mut self.commit).into_iter();
        let kept = below.filter(|(seat, version)| self.is_installed_at(*seat) && is_prepared(*seat, *version));
        self.commit = kept.filter(|_| !planted(Bug::DropKeptPredecessor)).collect();
    }

    /// A copy that turned out to be damaged: of all acting members, only `seat` lacks it.
    fn damaged(version: Version, needed: u32, acting: Mask, seat: u8) -> Self {
        let bit = 1 << seat;
        Entry { repair: bit, ..Entry::new(version, needed, acting & !bit, bit) }
    }

    fn urgency(&self, acting: Mask) -> Urgency {
        if self.missing == 0 {
            return Urgency::Misplaced;
        }
        let spare = (self.good & acting).count_ones().saturating_sub(self.needed);
        Urgency::Degraded(u8::try_from(spare).expect("at most 64 seats"))
    }
}

/// All such objects.
#[derive(Clone, Debug, Default)]
pub struct Unclean {
    /// By object.
    pub entries: BTreeMap<ObjectId, Entry>,
    /// Before the record: what must be resolved and is not begun.
    to_resolve: BTreeSet<ObjectId>,
    resolving: usize,
    /// Afterwards: what is not begun, most endangered first.
    queue: BTreeSet<(Urgency, ObjectId)>,
    /// What has good copies, but none within reach, or a member that failed: until a connection is there again, or the
    /// member gets another chance.
    stalled: BTreeSet<ObjectId>,
    /// Acting seats that had no space for a copy.
    full: BTreeMap<u8, Full>,
    /// What waits for space there.
    crowded: BTreeSet<ObjectId>,
}

/// A member without space.
#[derive(Clone, Copy, Debug)]
struct Full {
    again: Time,
    /// The object with which it is tried again.
    probe: Option<ObjectId>,
}

/// Numbers for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Some acting member lacks it.
    pub degraded: u64,
    /// Only stale copies remain.
    pub misplaced: u64,
    /// No good copy is left.
    pub unfound: u64,
}

impl Unclean {
    /// Remembers an object.
    pub fn insert(&mut self, object: ObjectId, entry: Entry) {
        if entry.resolve {
            self.to_resolve.insert(object);
        }
        self.entries.insert(object, entry);
    }

    /// Adds an object that has to be made whole from now on.
    pub fn add(&mut self, acting: Mask, object: ObjectId, entry: Entry) {
        self.queue.insert((entry.urgency(acting), object));
        self.insert(object, entry);
    }

    /// A planted mistake: nothing must be done before the record.
    pub fn forget_resolve(&mut self) {
        self.to_resolve.clear();
    }

    /// The object, if it is not the same everywhere.
    pub fn get(&self, object: ObjectId) -> Option<&Entry> {
        self.entries.get(&object)
    }

    /// Objects that a seat lacks.
    pub fn missing_at(&self, seat: u8) -> Vec<ObjectId> {
        let lacks = |(_, entry): &(&ObjectId, &Entry)| entry.good >> seat & 1 == 0;
        self.entries.iter().filter(lacks).map(|(object, _)| *object).collect()
    }

    /// Whether all objects are whole.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether some objects are to be made whole that can be.
    pub fn is_recovering(&self) -> bool {
        self.entries.values().any(|entry| !entry.unfound)
    }

    /// From now on everything is to be made whole.
    pub fn activate(&mut self, acting: Mask) {
        for (object, entry) in &mut self.entries {
            entry.resolve = false;
            entry.remove.append(&mut entry.later);
            newest_first(&mut entry.remove);
            // What was to be committed first is replaced by the whole copy, which is committed.
            entry.commit.clear();
            self.queue.insert((entry.urgency(acting), *object));
        }
    }

    /// A seat has no space; when it is tried again.
    pub fn is_full(&mut self, seat: u8, again: Time) {
        self.full.insert(seat, Full { again, probe: None });
    }

    /// Seats without space for what is to be recovered there.
    pub fn full_seats(&self) -> impl Iterator<Item = u8> + '_ {
        self.full.keys().copied()
    }

    /// Whether some member has no space for the object's copy. One in place of an older one needs none.
    fn waits_for_space(&self, object: ObjectId) -> bool {
        let Some(entry) = self.entries.get(&object).filter(|_| !self.full.is_empty()) else { return false };
        let replaces = |seat: u8| entry.bases.iter().any(|(other, _)| *other == seat);
        let lacks = |seat: u8| entry.missing >> seat & 1 == 1 && !replaces(seat);
        self.full.iter().any(|(seat, full)| lacks(*seat) && full.probe != Some(object))
    }

    /// The first object that waits for space on a seat.
    fn waiting_for(&self, seat: u8) -> Option<ObjectId> {
        let waits =
            |object: &&ObjectId| self.entries[object].missing >> seat & 1 == 1 && self.waits_for_space(**object);
        self.crowded.iter().find(waits).copied()
    }

    /// The object is being deleted: nothing else is done to it meanwhile.
    pub fn bury(&mut self, object: ObjectId) {
        self.crowded.remove(&object);
        self.entries.get_mut(&object).expect("not all members have it").buried = true;
    }

    /// No member could delete it.
    pub fn unbury(&mut self, object: ObjectId) {
        let Some(entry) = self.entries.get_mut(&object) else { return };
        if std::mem::take(&mut entry.buried) && !entry.unfound {
            self.crowded.insert(object);
        }
    }

    /// Numbers for people.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for entry in self.entries.values() {
            let count = match entry.missing {
                _ if entry.unfound => &mut counts.unfound,
                0 => &mut counts.misplaced,
                _ => &mut counts.degraded,
            };
            *count += 1;
        }
        counts
    }

    /// The group is not served any more.
    pub fn give_slots_back<S>(&mut self, host: &mut Host<'_, '_, S>) {
        for entry in self.entries.values_mut() {
            if std::mem::take(&mut entry.slot) {
                host.recovery.give_back();
            }
        }
    }
}

impl Primary {
    /// Goes on with what must be done before the record.
    pub fn resolve_more<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        while self.stage == Stage::Resolve && self.unclean.resolving < RESOLVING {
            let Some(object) = self.unclean.to_resolve.pop_first() else { break };
            self.unclean.resolving += 1;
            self.work_step(cx, object);
        }
        if self.stage == Stage::Resolve && self.unclean.resolving == 0 {
            // If everything is whole already, the record trims: one transaction less.
            let trims = self.full || self.unclean.is_empty();
            // A trimmed history forgets the members that know of older leases: these must have run out before.
            let leases_end = self.old_leases.end();
            if trims && cx.host.now() < leases_end && !planted(Bug::ActivateWithoutLeaseWait) {
                return self.look_again(cx, leases_end);
            }
            self.record(cx, trims);
        }
    }

    /// Begins to recover objects, as far as there are slots.
    pub fn recover<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        while self.stage == Stage::Active {
            let Some(&(urgency, object)) = self.unclean.queue.first() else { break };
            if self.unclean.waits_for_space(object) {
                self.unclean.queue.pop_first();
                self.unclean.crowded.insert(object);
                continue;
            }
            let now = cx.host.now();
            if !cx.host.recovery.take(now, urgency, self.pg) {
                break;
            }
            self.unclean.queue.pop_first();
            let entry = self.unclean.entries.get_mut(&object).expect("queued objects have entries");
            entry.slot = true;
            self.work_step(cx, object);
        }
    }

    /// An operation waits for an object: it is recovered at once.
    pub fn recover_now<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: ObjectId) {
        let acting = self.acting_seats();
        let Some(entry) = self.unclean.entries.get_mut(&object) else { return };
        entry.wanted = true;
        if self.unclean.queue.remove(&(entry.urgency(acting), object)) || self.unclean.crowded.remove(&object) {
            self.work_step(cx, object);
        }
    }

    /// A copy of an acting member turned out to be damaged.
    pub fn damage_found<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        object: ObjectId,
        version: Version,
        seat: u8,
    ) {
        let acting = self.acting_seats();
        let Some(entry) = self.unclean.entries.get_mut(&object) else {
            cx.host.mark("a damaged copy is to be repaired");
            return self.unclean.add(acting, object, Entry::damaged(version, self.rules.k, acting, seat));
        };
        let queued = self.unclean.queue.remove(&(entry.urgency(acting), object));
        entry.good &= !(1 << seat);
        if acting >> seat & 1 == 1 {
            entry.missing |= 1 << seat;
            entry.repair |= 1 << seat;
        }
        if queued {
            self.unclean.queue.insert((entry.urgency(acting), object));
        }
    }

    /// An acting member turned out to lack the version that is served; a tombstone is made from one other copy.
    pub fn outdated_found<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        object: ObjectId,
        (version, tombstone): (Version, bool),
        seat: u8,
    ) {
        let (acting, bit) = (self.acting_seats(), 1 << seat);
        let needed = if tombstone { 1 } else { self.rules.k };
        match self.unclean.get(object) {
            Some(_) => self.damage_found(cx, object, version, seat),
            None => self.unclean.add(acting, object, Entry::new(version, needed, acting & !bit, bit)),
        }
    }

    /// An object that not all members had was deleted on all of them.
    pub fn buried<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: ObjectId) {
        self.unclean.entries.remove(&object);
        self.unclean.stalled.remove(&object);
        self.unclean.crowded.remove(&object);
        self.trim_if_clean(cx);
    }

    /// Decides what is next for an object that has no step under way.
    pub fn work_step<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: ObjectId) {
        let resolving = self.stage == Stage::Resolve;
        let Some(entry) = self.unclean.entries.get_mut(&object) else { return };
        debug_assert_eq!(entry.work, Work::Idle);
        if !entry.remove.is_empty() || !entry.commit.is_empty() {
            self.clear_way(cx, object);
        } else if entry.missing == 0 || (resolving && !entry.install) {
            self.work_done(cx, object);
        } else if !self.recover_partly(cx, object) {
            self.fetch(cx, object);
        }
    }

    /// What must not be there, or not be prepared, when the version is installed. Members keep the order.
    fn clear_way<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: ObjectId) {
        let entry = self.unclean.entries.get_mut(&object).expect("being worked on");
        let (remove, commit) = (std::mem::take(&mut entry.remove), std::mem::take(&mut entry.commit));
        entry.work = Work::Removing(u32::try_from(remove.len() + commit.len()).expect("few"));
        for (seat, version) in remove {
            let copy = CopyId { object, role: self.roster.role(seat) };
            let purpose = Purpose::Recover { object, seat, step: Step::Remove };
            self.send(cx, seat, SubOp::Remove { copy, version }, purpose);
        }
        for (seat, version) in commit {
            let op = SubOp::Commit { role: self.roster.role(seat), versions: vec![(object, version)] };
            self.send(cx, seat, op, Purpose::Recover { object, seat, step: Step::Remove });
        }
    }

    fn fetch<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: ObjectId) {
        let sources = self.sources_of(cx, &self.unclean.entries[&object]);
        if sources == 0 {
            return self.no_source(cx, object);
        }
        let entry = self.unclean.entries.get_mut(&object).expect("being worked on");
        entry.work = Work::Fetching(sources);
        entry.fetched.clear();
        let version = entry.version;
        for seat in seats_of(sources) {
            let copy = CopyId { object, role: self.roster.role(seat) };
            let purpose = Purpose::Recover { object, seat, step: Step::Fetch };
            self.send(cx, seat, SubOp::Fetch { copy, version }, purpose);
        }
    }

    /// All that was asked for is here: the copies that are missing are made and sent.
    fn install<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: ObjectId) {
        let entry = self.unclean.entries.get_mut(&object).expect("being worked on");
        let fetched = std::mem::take(&mut entry.fetched);
        entry.work = Work::Installing(entry.missing);
        let (missing, repair, version, wanted) = (entry.missing, entry.repair, entry.version, entry.wanted);
        let Fetched { predecessor, requests, content, .. } = fetched.first().expect("something was fetched");
        entry.label = wanted.then(|| Box::new((requests.clone(), matches!(content, Content::Tombstone))));
        for seat in seats_of(missing) {
            let (purpose, mode) = self.install_purpose(repair >> seat & 1 == 1, wanted);
            let copy = CopyId { object, role: self.roster.role(seat) };
            let content = self.content_in_role(cx.host.env.bufs, &fetched, copy.role.0);
            let (predecessor, requests) = (*predecessor, requests.clone());
            let op = SubOp::Install { purpose, copy, version, predecessor, mode, content, requests };
            self.send(cx, seat, op, Purpose::Recover { object, seat, step: Step::Install });
        }
    }

    /// No good copy is within reach: it waits for a connection, or for good.
    fn no_source<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: ObjectId) {
        let unfound = !self.is_found(&self.unclean.entries[&object]);
        let entry = self.unclean.entries.get_mut(&object).expect("being worked on");
        let unreadable = unfound && entry.unreadable;
        entry.unfound = unfound;
        if std::mem::take(&mut entry.slot) {
            cx.host.recovery.give_back();
        }
        if self.stage == Stage::Resolve {
            // What nobody can read is served to nobody: there is no need to make it certain. But who did not answer may
            // hold a good copy, which counts no more once this interval is recorded, or the history trimmed.
            if unreadable {
                cx.host.mark("the choice of a version that cannot be read is made anew");
                return self.give_up(cx, RETRY_PAUSE);
            }
            let everybody = self.roster.mask(|_| true);
            if unfound && self.roster.answered() == everybody {
                cx.host.mark("an uncertain object without a good copy");
                return self.resolved(cx, object);
            }
            cx.host.mark("an uncertain object waits for a member that did not answer");
            return self.give_up(cx, RETRY_PAUSE);
        }
        if unfound {
            cx.host.mark("no good copy of an object is left");
        } else {
            self.unclean.stalled.insert(object);
        }
        self.wake_object(cx, object);
    }

    /// A connection is there again, or a member gets another chance.
    pub fn source_found<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        let acting = self.acting_seats();
        for object in std::mem::take(&mut self.unclean.stalled) {
            let entry = &self.unclean.entries[&object];
            self.unclean.queue.insert((entry.urgency(acting), object));
            if entry.wanted {
                self.recover_now(cx, object);
            }
        }
        self.recover(cx);
    }

    /// A step of an object's recovery was answered.
    pub fn recovered<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        object: ObjectId,
        seat: u8,
        step: Step,
        sent: &SubOp,
        reply: SubReply,
    ) {
        if !matches!(self.stage, Stage::Resolve | Stage::Active) {
            return cx.host.mark("a step of recovery that came too late");
        }
        let Some(entry) = self.unclean.entries.get_mut(&object) else {
            return cx.host.mark("a step of recovery of an object that is whole");
        };
        match (step, reply, entry.work) {
            (Step::Remove, SubReply::Done, Work::Removing(left)) => {
                entry.work = if left == 1 { Work::Idle } else { Work::Removing(left - 1) };
                if left == 1 {
                    self.work_step(cx, object);
                }
            }
            (Step::Ask, reply, _) => self.changes_told(cx, object, seat, sent, reply),
            (Step::Read(range), reply, _) => self.part_read(cx, object, (seat, range), sent, reply),
            (Step::Install, SubReply::Refused(why), _) if matches!(sent, SubOp::Patch { .. }) => {
                self.patch_refused(cx, object, seat, why);
            }
            // What is computed from it would have a checksum of its own, and the damage be there for good.
            (Step::Fetch, SubReply::Whole { content, .. }, Work::Fetching(from))
                if from >> seat & 1 == 1 && hides_damage(self.rules.replicated, &content) =>
            {
                cx.host.mark("a body was damaged between members");
                self.send(cx, seat, sent.clone(), Purpose::Recover { object, seat, step });
            }
            (Step::Fetch, SubReply::Whole { version, predecessor, content, requests }, Work::Fetching(from))
                if from >> seat & 1 == 1 && version == entry.version =>
            {
                let role = self.roster.role(seat).0;
                entry.fetched.push(Fetched { role, predecessor, content, requests });
                entry.work = Work::Fetching(from & !(1 << seat));
                if from == 1 << seat {
                    self.install(cx, object);
                }
            }
            (
                Step::Fetch,
                SubReply::Refused(why @ (Refused::Damaged | Refused::NoSuchVersion)),
                Work::Fetching(from),
            ) if from >> seat & 1 == 1 => {
                entry.work = Work::Idle;
                entry.unreadable |= why == Refused::Damaged;
                let version = entry.version;
                self.damage_found(cx, object, version, seat);
                self.work_step(cx, object);
            }
            (Step::Install, SubReply::Done, _) => self.installed(cx, object, seat),
            (Step::Remove, SubReply::Done, _) => {
                cx.host.mark("a copy was removed after another could not be");
            }
            (Step::Fetch, _, Work::Fetching(from)) if from >> seat & 1 == 0 => {
                cx.host.mark("a source answered after others were asked");
            }
            (Step::Fetch, _, work) if !matches!(work, Work::Fetching(_)) => {
                cx.host.mark("a source answered after it was given up");
            }
            (step, reply, _) => self.recovery_failed(cx, object, seat, sent, step, &reply),
        }
    }

    /// A member has its copy.
    fn installed<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: ObjectId, seat: u8) {
        let bit = 1 << seat;
        let has_space = self.has_space_again(object, seat);
        let entry = self.unclean.entries.get_mut(&object).expect("being worked on");
        entry.missing &= !bit;
        entry.repair &= !bit;
        entry.good |= bit;
        if let Work::Installing(left) = entry.work {
            entry.work = if left == bit { Work::Idle } else { Work::Installing(left & !bit) };
            if left == bit {
                self.work_step(cx, object);
            }
        }
        if has_space {
            cx.host.mark("a member has space again");
            let acting = self.acting_seats();
            for object in std::mem::take(&mut self.unclean.crowded) {
                let entry = self.unclean.entries.get_mut(&object).expect("crowded objects have entries");
                entry.cramped = false;
                self.unclean.queue.insert((entry.urgency(acting), object));
            }
            self.recover(cx);
        }
    }

    fn install_purpose(&self, repair: bool, wanted: bool) -> (InstallPurpose, Mode) {
        let commits = self.rules.replicated || planted(Bug::CommitBeforeRecord);
        match self.stage {
            Stage::Resolve if commits => (InstallPurpose::Resolve, Mode::Plain),
            Stage::Resolve => (InstallPurpose::Resolve, Mode::Prepare),
            _ if repair => (InstallPurpose::Repair, Mode::Plain),
            _ if wanted => (InstallPurpose::Wanted, Mode::Plain),
            _ => (InstallPurpose::Recovery, Mode::Plain),
        }
    }

    /// A member failed to do its part. The object stays as it is until the next epoch or attempt, or until the member
    /// gets another chance.
    fn recovery_failed<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        object: ObjectId,
        seat: u8,
        sent: &SubOp,
        step: Step,
        reply: &SubReply,
    ) {
        let wanted = self.unclean.entries[&object].wanted;
        if (step, reply) == (Step::Install, &SubReply::Refused(Refused::NoSpace)) {
            let waits = !wanted || !self.lets_go(cx, seat);
            match self.stage {
                Stage::Resolve => return self.cannot_place(cx, object, seat, sent),
                _ if waits => return self.no_room(cx, object, seat),
                _ => {}
            }
        }
        let reason = match (step, reply) {
            (_, SubReply::Refused(Refused::NoSpace)) => "it has no space for a copy",
            (Step::Fetch | Step::Ask | Step::Read(_), _) => "it cannot send a copy",
            (Step::Install, _) => "it cannot store a copy",
            (Step::Remove, _) => "it cannot remove a copy",
        };
        let osd = self.roster.osd(seat);
        self.complain(cx, osd, reason);
        if self.stage == Stage::Resolve {
            return self.give_up(cx, FAILURE_PAUSE);
        }
        let entry = self.unclean.entries.get_mut(&object).expect("being worked on");
        entry.work = Work::Idle;
        if let SubOp::Remove { version, .. } = sent {
            entry.remove.push((seat, *version));
        }
        if std::mem::take(&mut entry.slot) {
            cx.host.recovery.give_back();
        }
        self.unclean.stalled.insert(object);
    }

    /// A member has no space for a copy, and nobody waits for it, or the group cannot do without the member: what it has
    /// remains of use, so it keeps its place. Objects that it lacks stay as they are until it has space again.
    fn no_room<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: ObjectId, seat: u8) {
        cx.host.mark("recovery waits for space on a member");
        let again = cx.host.now() + FULL_PAUSE;
        self.unclean.is_full(seat, again);
        cx.host.wake(self.pg, again);
        let entry = self.unclean.entries.get_mut(&object).expect("being worked on");
        entry.work = Work::Idle;
        entry.cramped = entry.wanted && entry.label.is_some();
        if std::mem::take(&mut entry.slot) {
            cx.host.recovery.give_back();
        }
        self.unclean.crowded.insert(object);
        self.recover(cx);
        self.wake_object(cx, object);
    }

    /// Time passed: members without space are tried again, each with one object.
    pub fn try_full_again<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        let now = cx.host.now();
        let due = |(_, full): &(&u8, &Full)| full.again <= now;
        if !self.unclean.full.iter().any(|full| due(&full)) {
            return;
        }
        while let Some(seat) = self.unclean.full.iter().find(due).map(|(seat, _)| *seat) {
            let again = now + FULL_PAUSE;
            self.unclean.is_full(seat, again);
            let Some(object) = self.unclean.waiting_for(seat) else {
                self.unclean.full.remove(&seat);
                continue;
            };
            self.unclean.full.insert(seat, Full { again, probe: Some(object) });
            cx.host.wake(self.pg, again);
            self.unclean.crowded.remove(&object);
            let urgency = self.unclean.entries[&object].urgency(self.acting_seats());
            self.unclean.queue.insert((urgency, object));
        }
        self.recover(cx);
    }

    /// A member that had no space took a copy. If it had none of that object before, it has space again.
    fn has_space_again(&mut self, object: ObjectId, seat: u8) -> bool {
        let replaced = |entry: &Entry| entry.bases.iter().any(|(other, _)| *other == seat);
        let takes_space = self.unclean.get(object).is_some_and(|entry| !replaced(entry));
        takes_space && self.unclean.full.remove(&seat).is_some()
    }

    /// Nothing is left to do for an object, at this stage.
    fn work_done<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: ObjectId) {
        if self.stage == Stage::Resolve {
            return self.resolved(cx, object);
        }
        let entry = self.unclean.entries.remove(&object).expect("being worked on");
        if entry.slot {
            cx.host.recovery.give_back();
        }
        self.healed(cx, object, entry.version);
        self.wake_object(cx, object);
        self.recover(cx);
        self.trim_if_clean(cx);
    }

    fn resolved<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: ObjectId) {
        self.unclean.resolving -= 1;
        let entry = self.unclean.entries.get_mut(&object).expect("being worked on");
        entry.resolve = false;
        if entry.missing == 0 && entry.later.is_empty() {
            self.unclean.entries.remove(&object);
        }
        if self.unclean.resolving < RESOLVING / 2 {
            self.resolve_more(cx);
        }
    }

    /// Another source for what was being fetched from an OSD that is out of reach.
    pub fn source_lost<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, osd: OsdId) {
        let seats = self.roster.mask(|seat| seat.member.osd == osd);
        let from_there = |(_, entry): &(&ObjectId, &Entry)| match entry.work {
            Work::Fetching(from) | Work::Asking(from) | Work::Reading(from) => seats & from != 0,
            Work::Idle | Work::Removing(_) | Work::Installing(_) => false,
        };
        let objects: Vec<ObjectId> = self.unclean.entries.iter().filter(from_there).map(|(id, _)| *id).collect();
        for object in objects {
            cx.host.mark("a source of recovery was lost");
            let entry = self.unclean.entries.get_mut(&object).expect("listed above");
            (entry.work, entry.partial) = (Work::Idle, None);
            self.work_step(cx, object);
        }
    }
}
