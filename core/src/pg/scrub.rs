//! Scrub: all copies of every object are read and compared, one object after the other, now and then.
//!
//! Owns when a round begins, how far it has come, what it found, and the object that is being compared. Does not own the
//! repair (recover.rs): it only says which member's copy is to be replaced.
//!
//! ```text
//!        interval over, or ordered        a place is free        all have answered
//!  Idle -------------------------> Round ----------------> Check ----------------> pause -> the next object, or Idle
//! ```
//! Each member reads its copy, verifies every checksum, and answers with the version and a sum of the content. Clients are
//! not held up: an object that changed meanwhile is looked at again later.
//!
//! Which copy is wrong:
//! 1. One that does not match its own checksums is, and is repaired from another.
//! 2. One of a lower version than the one that is served (or none) is: every acting member had that version before it was
//!    acknowledged or the group was served. It is replaced as recovery does. A higher one is never touched: peering has to
//!    say what it is.
//! 3. Of a stripe whose parity does not fit its data, although all chunks match their checksums: the same as below, with the
//!    data in the primary's place: that is what clients read, and parity is computed from it.
//! 4. Of copies that match their checksums and differ nevertheless, none can be told to be right, also not by a majority.
//!    They are reported, and made equal only when somebody orders it: to the primary's, which is the one that clients read.

use crate::ec;
use crate::id::{CopyId, HashRange, ObjectId, PgId, Version};
use crate::io::{Level, MetaError};
use crate::map::{ScrubOrder, keys};
use crate::meta::{Compare, Keys, Request, Response, Txn, TxnOp};
use crate::pg::choose::{Mask, seats_of};
use crate::pg::host::{Host, MetaCall};
use crate::pg::msg::{Refused, SubOp, SubReply};
use crate::pg::primary::{Cx, Primary, Purpose};
use crate::planted::{Bug, planted};
use crate::store::{Content, ObjectStore, StoreError, StoreReply};
use crate::time::{Duration, Time};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::collections::{BTreeSet, VecDeque};

/// Objects compared before the place goes to another group.
const BATCH: u32 = 16;
/// After an object, a pause of so many times what it took: a scrub takes at most a fifth of a disk's time.
const PAUSE_FACTOR: u64 = 4;
/// And at least so long: 200 objects a second of an OSD's groups, 25 MB/s with the usual block size.
const PAUSE_MIN: Duration = Duration::millis(5);
/// A member that has not answered by then is busy with more important things.
const PATIENCE: Duration = Duration::secs(5);
/// Pause before objects that were being written are looked at again, and before another try to begin.
const BUSY_PAUSE: Duration = Duration::secs(2);
/// Busy objects that are remembered; further ones are left to the next round.
const LATER_MAX: usize = 1024;
/// How often a busy object is looked at again in one round.
const TRIES: u8 = 5;
/// Between two notes of how far a round has come: what a restart repeats at most.
const NOTE_PERIOD: Duration = Duration::secs(60);
/// Objects named to people.
const NAMED: usize = 8;
/// Objects skipped at a time, before others have their turn.
const SKIPS: usize = 64;

/// What outlives a primary (`pg/scrub/<pool>/<pg>`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Note {
    /// Seconds since the last round ended, not counting the time without a primary.
    pub age_s: u64,
    /// Hash up to which the round under way has come.
    pub position: Option<u64>,
    /// Objects whose copies differ.
    pub inconsistent: Vec<(u64, u64)>,
}

/// What people are told of it, with the group's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// A round is under way.
    pub running: bool,
    /// Copies that this primary found damaged, and had repaired.
    pub damaged: u64,
    /// Copies that this primary found to be missing or old, and had replaced.
    pub outdated: u64,
    /// Objects whose copies match their checksums but differ: `pg repair` makes them equal.
    pub inconsistent: u64,
    /// Some of them.
    pub objects: Vec<String>,
}

/// A round.
#[derive(Clone, Debug, Default)]
struct Round {
    /// Makes copies that differ equal to the primary's.
    repair: bool,
    /// The order that it carries out, by its revision.
    order: Option<u64>,
    /// Hash of the next objects, and the last one that was looked at.
    from: u64,
    after: Option<CopyId>,
    listed: bool,
    later: VecDeque<(ObjectId, u8)>,
    /// Of these, how many are looked at before the next pause.
    pass: usize,
    batch: u32,
}

/// What lasts as long as this OSD: across attempts and epochs.
#[derive(Clone, Debug)]
pub struct Scrub {
    pg: PgId,
    interval: Duration,
    order: Option<(ScrubOrder, u64)>,
    /// Revision of the last order that was carried out.
    done: u64,
    /// Whether the note was read; the question under way.
    is_known: bool,
    asked: Option<u64>,
    ask_at: Time,
    /// Age of the last round at a time.
    age: (Duration, Time),
    round: Option<Round>,
    inconsistent: BTreeSet<ObjectId>,
    damaged: u64,
    outdated: u64,
    noted: Time,
}

/// What a member answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It has this version, with this sum.
    Has(Version, bool, u64),
    /// Its copy does not match its checksums.
    Damaged,
    /// Nothing that helps.
    Unknown,
}

#[derive(Clone, Debug)]
struct Check {
    object: ObjectId,
    version: Version,
    tries: u8,
    began: Time,
    left: Mask,
    verdicts: SmallVec<[(u8, Verdict); 4]>,
}

/// What belongs to one attempt.
#[derive(Clone, Debug, Default)]
pub struct Scrubbing {
    place: bool,
    check: Option<Check>,
    next: Time,
}

impl Scrubbing {
    /// The attempt is over.
    pub fn settle<S>(&mut self, host: &mut Host<'_, '_, S>) {
        self.check = None;
        if std::mem::take(&mut self.place) {
            host.scrubs.give_back();
        }
    }
}

impl Scrub {
    /// Nothing is known of earlier rounds yet.
    pub fn new(pg: PgId, interval: Duration) -> Self {
        Scrub {
            pg,
            interval,
            order: None,
            done: 0,
            is_known: false,
            asked: None,
            ask_at: Time(0),
            age: (Duration::ZERO, Time(0)),
            round: None,
            inconsistent: BTreeSet::new(),
            damaged: 0,
            outdated: 0,
            noted: Time(0),
        }
    }

    /// Another OSD is the primary: what it notes counts.
    pub fn forget(&mut self) {
        (self.is_known, self.asked, self.round) = (false, None, None);
        self.inconsistent.clear();
    }

    /// The pool's interval; zero: only when ordered.
    pub fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// The order that stands, with the revision of its key.
    pub fn set_order(&mut self, order: Option<(ScrubOrder, u64)>) {
        self.order = order;
    }

    /// For people.
    pub fn report(&self) -> Report {
        let name = |object: &ObjectId| format!("image {} object {}", object.inode.0, object.stripe);
        Report {
            running: self.round.is_some(),
            damaged: self.damaged,
            outdated: self.outdated,
            inconsistent: self.inconsistent.len() as u64,
            objects: self.inconsistent.iter().take(NAMED).map(name).collect(),
        }
    }

    fn age(&self, now: Time) -> Duration {
        Duration(self.age.0.0.saturating_add(now.since(self.age.1).0))
    }

    /// When the next round is due by the interval. Groups of a pool are spread over its last quarter.
    fn due(&self, now: Time) -> Option<Time> {
        if self.interval == Duration::ZERO {
            return None;
        }
        let spread = u64::from(self.pg.number.0).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        let wanted = Duration(self.interval.0 - self.interval.0 / 4 / 256 * spread);
        Some(now + Duration(wanted.0.saturating_sub(self.age(now).0)))
    }

    /// The order that is not carried out yet.
    fn order(&self) -> Option<(ScrubOrder, u64)> {
        self.order.filter(|(_, revision)| *revision != self.done)
    }

    /// Begins a round, if it is time.
    fn begin_if_due(&mut self, now: Time) {
        match self.order() {
            Some((order, revision)) if self.round.as_ref().is_none_or(|round| round.order != Some(revision)) => {
                let repair = order == ScrubOrder::Repair;
                self.round = Some(Round { repair, order: Some(revision), ..Round::default() });
            }
            None if self.round.is_none() && self.due(now).is_some_and(|due| due <= now) => {
                self.round = Some(Round::default());
            }
            _ => {}
        }
    }

    /// Takes an answer of the metadata store; false if it is not for the scrub.
    pub fn meta_done(&mut self, now: Time, token: u64, result: &Result<Response, MetaError>) -> bool {
        if self.asked != Some(token) {
            return false;
        }
        self.asked = None;
        let Ok(Response::Range { kvs, .. }) = result else {
            self.ask_at = now + BUSY_PAUSE;
            return true;
        };
        self.is_known = true;
        let note = kvs.first().and_then(|kv| serde_json::from_slice::<Note>(&kv.value).ok()).unwrap_or_default();
        self.age = (Duration::secs(note.age_s), now);
        let object = |(inode, stripe)| ObjectId { pool: self.pg.pool, inode: crate::id::InodeId(inode), stripe };
        self.inconsistent.extend(note.inconsistent.into_iter().map(object));
        self.round = note.position.map(|from| Round { from, ..Round::default() });
        true
    }

    fn note(&self, now: Time) -> Note {
        Note {
            age_s: self.age(now).as_millis() / 1_000,
            position: self.round.as_ref().filter(|round| round.order.is_none()).map(|round| round.from),
            inconsistent: self.inconsistent.iter().take(LATER_MAX).map(|id| (id.inode.0, id.stripe)).collect(),
        }
    }
}

/// Sum of what a copy holds; of a chunk, one that shows whether parity fits data.
fn sum_of(content: &Content, replicated: bool) -> u64 {
    let Content::Data { data, bitmap } = content else { return 0 };
    if !replicated {
        return u64::from_le_bytes(ec::fingerprint(data.buf.bytes()));
    }
    let mut bitmap = bitmap.clone();
    bitmap.trim();
    let written = data.buf.slice(0, bitmap.end() * crate::limits::SECTOR_BYTES);
    let mut words = crc32fast::Hasher::new();
    bitmap.words.iter().for_each(|word| words.update(&word.to_le_bytes()));
    u64::from(written.crc()) << 32 | u64::from(words.finalize())
}

/// A member's answer, when its copy was read.
pub fn checked(result: Result<StoreReply, StoreError>, replicated: bool) -> SubReply {
    match result {
        Ok(StoreReply::Whole { version, content, .. }) => {
            SubReply::Checked { version, tombstone: content == Content::Tombstone, sum: sum_of(&content, replicated) }
        }
        Err(StoreError::Damaged { .. }) => SubReply::Refused(Refused::Damaged),
        Err(StoreError::NoSuchVersion) => SubReply::Refused(Refused::NoSuchVersion),
        _ => SubReply::Refused(Refused::Failed),
    }
}

impl Primary {
    /// Goes on with the scrub, as far as it is time for it.
    pub fn scrub_step<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        let now = cx.host.now();
        if !self.is_active() || !self.is_scrub_known(cx) {
            return;
        }
        if let Some(check) = &self.scrubbing.check {
            if now < check.began + PATIENCE {
                return;
            }
            cx.host.mark("a scrub gives an object up for now");
            let (object, tries) = (check.object, check.tries);
            self.scrub_later(cx, object, tries);
        }
        cx.scrub.begin_if_due(now);
        if cx.scrub.round.is_none() {
            self.leave_scrub_place(cx);
            let due = cx.scrub.due(now);
            return due.into_iter().for_each(|due| cx.host.wake(self.pg, due));
        }
        if now < self.scrubbing.next {
            return cx.host.wake(self.pg, self.scrubbing.next);
        }
        if self.unclean.is_recovering() {
            // What is not whole is read and written by recovery now.
            self.leave_scrub_place(cx);
            return self.pause_scrub(cx, BUSY_PAUSE);
        }
        if !self.scrubbing.place {
            if !cx.host.scrubs.take(self.pg) {
                return;
            }
            self.scrubbing.place = true;
        }
        self.scrub_next(cx);
    }

    /// Whether it is known what earlier primaries noted.
    fn is_scrub_known<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) -> bool {
        let now = cx.host.now();
        if cx.scrub.is_known {
            return true;
        }
        if now < cx.scrub.ask_at {
            cx.host.wake(self.pg, cx.scrub.ask_at);
        } else if cx.scrub.asked.is_none() {
            let token = cx.host.env.rng.next_u64();
            cx.scrub.asked = Some(token);
            let request = Request::Range(Keys::One(keys::pg_scrub(self.pg)));
            cx.host.meta.push(MetaCall { pg: self.pg, token, request });
        }
        false
    }

    fn pause_scrub<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, pause: Duration) {
        self.scrubbing.next = cx.host.now() + pause;
        cx.host.wake(self.pg, self.scrubbing.next);
    }

    fn leave_scrub_place<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        if std::mem::take(&mut self.scrubbing.place) {
            cx.host.scrubs.give_back();
        }
    }

    /// Begins to compare the next object.
    fn scrub_next<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        for _ in 0..SKIPS {
            let Some((object, tries)) = self.next_to_scrub(cx) else {
                let round = cx.scrub.round.as_mut().expect("under way");
                round.pass = round.later.len();
                if round.later.is_empty() {
                    return self.end_round(cx);
                }
                break;
            };
            match self.quiet_version(cx, object) {
                Ok(version) => return self.begin_check(cx, object, version, tries),
                Err(true) => self.scrub_later(cx, object, tries),
                Err(false) => {
                    cx.scrub.inconsistent.remove(&object);
                }
            }
        }
        self.leave_scrub_place(cx);
        self.pause_scrub(cx, BUSY_PAUSE);
    }

    /// The next object of the round, and how often it was tried; `None`: not now.
    fn next_to_scrub<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) -> Option<(ObjectId, u8)> {
        let role = self.own_role(cx);
        let round = cx.scrub.round.as_mut().expect("under way");
        if !round.listed {
            let all = self.rules.range;
            let range = HashRange { first: all.first.max(round.from), last: all.last };
            let mut copies = Vec::new();
            if range.first <= range.last {
                cx.host.store.list(self.pg.pool, role, range, round.after, 1, &mut copies);
            }
            if let Some(info) = copies.first() {
                (round.from, round.after) = (info.copy.object.hash(), Some(info.copy));
                return Some((info.copy.object, 0));
            }
            round.listed = true;
        }
        // Once around: those that are busy again come back after a pause.
        round.pass = round.pass.checked_sub(1)?;
        round.later.pop_front()
    }

    /// The version of an object that nobody changes now. `Err(true)`: it is being changed; `Err(false)`: it is gone.
    fn quiet_version<S: ObjectStore>(&self, cx: &Cx<'_, '_, '_, S>, object: ObjectId) -> Result<Version, bool> {
        let busy = self.ops.find(object).is_some_and(|key| self.ops.object(key).in_flight > 0);
        if let Some(entry) = self.unclean.get(object) {
            return Err(!entry.unfound);
        }
        if busy {
            return Err(true);
        }
        let info = cx.host.store.lookup(CopyId { object, role: self.own_role(cx) }).ok_or(false)?;
        match (info.committed, info.prepared) {
            (Some(committed), None) => Ok(committed.version),
            _ => Err(true),
        }
    }

    fn is_tombstone<S: ObjectStore>(&self, cx: &Cx<'_, '_, '_, S>, object: ObjectId) -> bool {
        let info = cx.host.store.lookup(CopyId { object, role: self.own_role(cx) });
        info.and_then(|info| info.committed).is_some_and(|info| info.tombstone)
    }

    fn scrub_later<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: ObjectId, tries: u8) {
        self.scrubbing.check = None;
        let Some(round) = &mut cx.scrub.round else { return };
        if tries < TRIES && round.later.len() < LATER_MAX {
            round.later.push_back((object, tries + 1));
        } else {
            cx.host.mark("a scrub leaves a busy object to the next round");
        }
    }

    fn begin_check<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        object: ObjectId,
        version: Version,
        tries: u8,
    ) {
        let (left, began) = (self.acting_seats(), cx.host.now());
        self.scrubbing.check = Some(Check { object, version, tries, began, left, verdicts: SmallVec::new() });
        cx.host.wake(self.pg, began + PATIENCE);
        for seat in (0..64u8).filter(|seat| left >> seat & 1 == 1) {
            let copy = CopyId { object, role: self.roster.role(seat) };
            self.send(cx, seat, SubOp::Check { copy, version }, Purpose::Scrub { object, version, seat });
        }
    }

    /// A member answered.
    pub fn scrubbed<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        (object, version): (ObjectId, Version),
        seat: u8,
        reply: &SubReply,
    ) {
        let Some(check) = &mut self.scrubbing.check else { return };
        if (check.object, check.version) != (object, version) || check.left >> seat & 1 == 0 {
            return cx.host.mark("an answer to a scrub that was given up");
        }
        check.left &= !(1 << seat);
        let verdict = match reply {
            SubReply::Checked { version, tombstone, sum } => Verdict::Has(*version, *tombstone, *sum),
            SubReply::Refused(Refused::Damaged) => Verdict::Damaged,
            _ => Verdict::Unknown,
        };
        check.verdicts.push((seat, verdict));
        if check.left == 0 {
            let check = self.scrubbing.check.take().expect("looked at above");
            self.conclude(cx, &check);
        }
    }

    /// All have answered: what they said counts if nobody changed the object meanwhile.
    fn conclude<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, check: &Check) {
        let unknown = check.verdicts.iter().any(|(_, verdict)| *verdict == Verdict::Unknown);
        if self.quiet_version(cx, check.object) != Ok(check.version) || unknown {
            self.scrub_later(cx, check.object, check.tries);
        } else {
            self.judge_copies(cx, check);
        }
        let took = cx.host.now().since(check.began);
        let round = cx.scrub.round.as_mut().expect("under way");
        round.batch += 1;
        if round.batch >= BATCH {
            round.batch = 0;
            self.leave_scrub_place(cx);
            if cx.host.now().since(cx.scrub.noted) >= NOTE_PERIOD {
                self.write_note(cx);
            }
        }
        self.pause_scrub(cx, PAUSE_MIN.max(Duration(took.0 * PAUSE_FACTOR)));
        self.recover(cx);
    }

    /// The rules of the module's head.
    fn judge_copies<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, check: &Check) {
        let (object, version) = (check.object, check.version);
        let own = self.roster.acting_seat(cx.host.node.osd).expect("a primary is an acting member");
        let mut good: SmallVec<[(u8, (bool, u64)); 4]> = SmallVec::new();
        let mut differs = false;
        for (seat, verdict) in &check.verdicts {
            match *verdict {
                Verdict::Has(theirs, tombstone, sum) if theirs == version => good.push((*seat, (tombstone, sum))),
                Verdict::Damaged if planted(Bug::ScrubForgetsDamage) => {}
                Verdict::Damaged => {
                    cx.scrub.damaged += 1;
                    self.tell_finding(cx, object, *seat, "does not match its checksums; it is repaired");
                    self.damage_found(cx, object, version, *seat);
                }
                Verdict::Has(theirs, ..) if theirs < version && !planted(Bug::ScrubTrustsOld) => {
                    cx.scrub.outdated += 1;
                    self.tell_finding(cx, object, *seat, "is missing or old; it is replaced");
                    let tombstone = self.is_tombstone(cx, object);
                    self.outdated_found(cx, object, (version, tombstone), *seat);
                }
                Verdict::Has(..) => {
                    differs = true;
                    self.tell_finding(cx, object, *seat, "is newer than what is served; it is left alone");
                }
                Verdict::Unknown => {}
            }
        }
        let own = if planted(Bug::RepairFromOther) { own ^ 1 } else { own };
        let reference = good.iter().find(|(seat, _)| *seat == own).or(good.first()).copied();
        let Some((_, reference)) = reference else { return };
        let repair = cx.scrub.round.as_ref().is_some_and(|round| round.repair);
        let wrong: Mask = match self.rules.replicated {
            true => {
                good.iter().filter(|(_, content)| *content != reference).fold(0, |mask, (seat, _)| mask | 1 << seat)
            }
            false => self.wrong_parity(&good),
        };
        for seat in seats_of(wrong) {
            if repair {
                self.tell_finding(cx, object, seat, "differs from the others; it is made to fit, as ordered");
                self.damage_found(cx, object, version, seat);
            } else {
                differs = true;
                self.tell_finding(cx, object, seat, "does not fit the others although all match their checksums");
            }
        }
        if differs {
            cx.scrub.inconsistent.insert(object);
        } else {
            cx.scrub.inconsistent.remove(&object);
        }
    }

    /// Seats of parity chunks that do not fit the data chunks, if all of a stripe are there and good.
    fn wrong_parity(&self, good: &[(u8, (bool, u64))]) -> Mask {
        let Some(code) = &self.stripes.code else { return 0 };
        let chunks = usize::from(code.data_chunks() + code.parity_chunks());
        let (first, tombstone) = (good.first(), |(_, (tombstone, _)): &(u8, (bool, u64))| *tombstone);
        if good.len() != chunks || first.is_none_or(tombstone) {
            return 0;
        }
        let role = |seat: u8| self.roster.role(seat).0;
        let mut wrong = 0;
        for (seat, (_, sum)) in good.iter().filter(|(seat, _)| role(*seat) >= code.data_chunks()) {
            let mut expected = [0; 8];
            for (data, (_, sum)) in good.iter().filter(|(seat, _)| role(*seat) < code.data_chunks()) {
                code.add(role(*data), &sum.to_le_bytes(), role(*seat), &mut expected);
            }
            wrong |= u64::from(u64::from_le_bytes(expected) != *sum) << seat;
        }
        wrong
    }

    fn tell_finding<S: ObjectStore>(&self, cx: &mut Cx<'_, '_, '_, S>, object: ObjectId, seat: u8, what: &str) {
        cx.host.mark("a scrub found something");
        let (pg, osd) = (self.pg, self.roster.osd(seat));
        cx.host.log(Level::Warn, format!("{pg:?}: scrub: the copy of {object:?} on {osd:?} {what}"));
    }

    fn end_round<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        let round = cx.scrub.round.take().expect("under way");
        self.leave_scrub_place(cx);
        cx.host.mark("a scrub has come to its end");
        cx.scrub.age = (Duration::ZERO, cx.host.now());
        if let Some(revision) = round.order {
            cx.scrub.done = revision;
            let key = keys::scrub_order(self.pg);
            let compare = vec![Compare::ModRevision(key.clone(), revision)];
            let request = Request::Txn(Txn { compare, success: vec![TxnOp::Delete(Keys::One(key))], failure: vec![] });
            self.tell_metadata(cx, request);
        }
        self.write_note(cx);
        self.scrub_step(cx);
    }

    fn write_note<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        cx.scrub.noted = cx.host.now();
        let value = serde_json::to_vec(&cx.scrub.note(cx.host.now())).expect("plain data has a JSON form");
        let put = TxnOp::Put { key: keys::pg_scrub(self.pg), value, lease: 0 };
        self.tell_metadata(cx, Request::Txn(Txn { compare: vec![], success: vec![put], failure: vec![] }));
    }

    /// If it does not arrive, a round is repeated in part, or as a whole: nobody waits for the answer.
    fn tell_metadata<S: ObjectStore>(&self, cx: &mut Cx<'_, '_, '_, S>, request: Request) {
        let token = cx.host.env.rng.next_u64();
        cx.host.meta.push(MetaCall { pg: self.pg, token, request });
    }
}

/// Places for scrubbing: how many of an OSD's groups compare an object at a time.
#[derive(Clone, Debug)]
pub struct ScrubPlaces {
    free: u32,
    waiting: VecDeque<PgId>,
}

impl Default for ScrubPlaces {
    /// One: a scrub has time.
    fn default() -> Self {
        ScrubPlaces { free: 1, waiting: VecDeque::new() }
    }
}

impl ScrubPlaces {
    /// Takes a place; if there is none, the group's turn comes later.
    pub fn take(&mut self, pg: PgId) -> bool {
        if self.free > 0 {
            self.free -= 1;
            return true;
        }
        if !self.waiting.contains(&pg) {
            self.waiting.push_back(pg);
        }
        false
    }

    /// Gives a place back.
    pub fn give_back(&mut self) {
        self.free += 1;
    }

    /// The group whose turn it is: the node calls [`super::Pg::scrub`] of it.
    pub fn next_waiting(&mut self) -> Option<PgId> {
        if self.free == 0 { None } else { self.waiting.pop_front() }
    }
}
