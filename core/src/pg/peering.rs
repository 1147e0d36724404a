//! Peering: from the query to activation.
//!
//! Owns the stages before [`Stage::Active`] and what each of them waits for. Does not own the choice of versions
//! (choose.rs), the search for differences (compare.rs), nor the moving of copies (recover.rs).
//!
//! Invariant: between an attempt's query and its record nothing is carried out on the members that answered, but this
//! attempt's own orders; so what they stated stays true.

use crate::id::{ObjectId, OsdId, PgId};
use crate::io::{Level, MetaError};
use crate::map::{Ancestor, History, PGS_PER_CHUNK, PgMapChunk, PoolLayout, keys};
use crate::meta;
use crate::msg::Fact;
use crate::pg::choose::{Choice, Grounds, Held, Mask, Verdict, choose};
use crate::pg::compare::{Asked, Comparison, Copies, Question};
use crate::pg::history;
use crate::pg::host::MetaCall;
use crate::pg::lease::Lease;
use crate::pg::msg::{SubOp, SubReply};
use crate::pg::primary::{Cx, Primary, Purpose, RETRY_PAUSE, Revisions, Stage};
use crate::pg::recover::{Doomed, Entry};
use crate::pg::roster::{Roster, Statement};
use crate::planted::{Bug, planted};
use crate::store::ObjectStore;
use crate::time::Duration;
use smallvec::SmallVec;

/// How long to wait for members that are up, but whose answers are not needed: less than a lease, so that failovers do
/// not wait for it.
const GRACE: Duration = Duration::millis(150);
/// How long to wait for members without whom everything would have to be copied before serving.
const GRACE_WEAK: Duration = Duration::millis(3_000);
/// Pause before another look at a group whose history is lost: only an operator can help.
const HISTORY_PAUSE: Duration = Duration::secs(30);
/// Pause before the metadata store is asked again.
const META_PAUSE: Duration = Duration::millis(200);

/// What the metadata store says of a group, at one revision.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its history; if it has none of its own yet, what it inherits.
    pub history: History,
    /// Of the keys that its transactions compare.
    pub revisions: Revisions,
}

impl Primary {
    /// Step 1: map, layout and history at one revision.
    pub fn begin<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, token: u64) {
        self.heir_of = cx.host.node.layouts.get(&self.pg.pool).and_then(|layout| layout.before);
        self.meta_token = Some(token);
        let request = meta::Request::Txn(meta::Txn { compare: Vec::new(), success: self.reads(), failure: Vec::new() });
        cx.host.meta.push(MetaCall { pg: self.pg, token, request });
    }

    /// The map, the history, the pool's highest image number, the layout, and the histories of the groups before this
    /// one, as long as it may have none of its own.
    pub fn reads(&self) -> Vec<meta::TxnOp> {
        let pool = self.pg.pool;
        let own = [self.map_key(), keys::pg_history(self.pg), keys::last_inode(pool), keys::layout(pool)];
        let ancestors = self.heir_of.into_iter().flat_map(|before| before.overlapping(self.rules.range));
        let ancestors = ancestors.map(|(number, _)| keys::pg_history(PgId { pool, number }));
        own.into_iter().chain(ancestors).map(|key| meta::TxnOp::Range(meta::Keys::One(key))).collect()
    }

    /// Key of the chunk that holds the group's map.
    pub fn map_key(&self) -> String {
        keys::pg_map(self.pg.pool, self.pg.number.0 / PGS_PER_CHUNK)
    }

    /// The metadata store answered the request that is awaited.
    pub fn meta_done<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, result: Result<meta::Response, MetaError>) {
        self.meta_token = None;
        match self.stage {
            Stage::ReadHistory => match result {
                Ok(response) => self.history_read(cx, &response),
                Err(_) => self.give_up(cx, META_PAUSE),
            },
            Stage::Record => self.record_done(cx, result),
            Stage::Active => self.trim_done(cx, result),
            _ => cx.host.mark("an answer of the metadata store that nobody waits for"),
        }
    }

    fn history_read<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, response: &meta::Response) {
        let Some(recorded) = self.parse_reads(cx, response) else {
            return self.give_up(cx, META_PAUSE);
        };
        if !self.knows_images(cx, response) {
            cx.host.mark("peering waits for news of removed images");
            return self.give_up(cx, RETRY_PAUSE);
        }
        let (own, epoch) = (recorded.revisions.history, self.attempt.epoch);
        if own == 0 && recorded.history.last >= epoch && !planted(Bug::RestartVersions) {
            // Versions would not rise: the monitor gives the group a higher epoch when it sees this history.
            cx.host.mark("a group before this one recorded an interval of as high an epoch");
            return self.give_up(cx, META_PAUSE);
        }
        self.adopt(recorded);
        self.roster = Roster::new(&self.acting_members, &self.history);
        self.enter(Stage::Query);
        let now = cx.host.now();
        self.look_again(cx, now + GRACE);
        for osd in self.roster.osds() {
            if !cx.host.node.is_connected(osd) {
                self.note_absent(cx, osd);
            }
            self.query(cx, osd);
        }
    }

    fn adopt(&mut self, recorded: Recorded) {
        self.history = recorded.history;
        self.revisions = recorded.revisions;
        if self.revisions.history != 0 {
            self.heir_of = None;
        }
    }

    /// What is recorded, with revisions; `None`: the map is not ours (any more), the group is of another layout or
    /// inherits from another one than was thought, or what is stored makes no sense.
    pub fn parse_reads<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        response: &meta::Response,
    ) -> Option<Recorded> {
        let meta::Response::Txn { results, .. } = response else { return None };
        let found: Vec<Option<&meta::KeyValue>> = results
            .iter()
            .map(|result| match result {
                meta::TxnResult::Range(kvs) => kvs.first(),
                _ => None,
            })
            .collect();
        let [map, history, _, layout, ref ancestors @ ..] = found[..] else { return None };
        let (map, layout) = (map?, layout?);
        let chunk: PgMapChunk = self.parse(cx, map)?;
        let cut: PoolLayout = self.parse(cx, layout)?;
        let ended = !cut.now.contains(self.pg.number) && !planted(Bug::RecordInEndedGroup);
        if chunk.0.get(&self.pg.number)?.epoch != self.attempt.epoch || ended {
            return None;
        }
        let history_revision = history.map_or(0, |kv| kv.mod_revision);
        let revisions = Revisions { map: map.mod_revision, history: history_revision, layout: layout.mod_revision };
        let history = match history {
            Some(kv) => self.parse(cx, kv)?,
            None if cut.before != self.heir_of => {
                cx.host.mark("a new group does not know yet which groups were before it");
                return None;
            }
            None => self.inherited(cx, ancestors)?,
        };
        Some(Recorded { history, revisions })
    }

    /// The history that a group begins with. Those of the groups before it do not change any more: their transactions
    /// compare the layout.
    fn inherited<S: ObjectStore>(
        &self,
        cx: &mut Cx<'_, '_, '_, S>,
        ancestors: &[Option<&meta::KeyValue>],
    ) -> Option<History> {
        let Some(before) = self.heir_of else { return Some(History::default()) };
        let mut parts = Vec::with_capacity(ancestors.len());
        for ((_, range), kv) in before.overlapping(self.rules.range).zip(ancestors) {
            let history = match kv {
                Some(kv) => self.parse(cx, kv)?,
                None => History::default(),
            };
            parts.push(Ancestor { range, history });
        }
        if planted(Bug::ForgetAncestors) {
            parts.truncate(1);
        }
        Some(History::inherited(parts))
    }

    /// Whether this OSD knows of every image that was marked for removal before this attempt. Else it might carry out a
    /// write to an image of which the last primary found nothing left.
    fn knows_images<S: ObjectStore>(&self, cx: &Cx<'_, '_, '_, S>, response: &meta::Response) -> bool {
        let meta::Response::Txn { results, .. } = response else { return false };
        let Some(meta::TxnResult::Range(last)) = results.get(2) else { return false };
        let marked = last.first().map_or(0, |kv| kv.mod_revision);
        cx.host.node.images.known_up_to(self.pg.pool).0 >= marked
    }

    fn parse<S: ObjectStore, T: serde::de::DeserializeOwned>(
        &self,
        cx: &mut Cx<'_, '_, '_, S>,
        kv: &meta::KeyValue,
    ) -> Option<T> {
        let parsed = serde_json::from_slice(&kv.value);
        parsed
            .map_err(|error| cx.host.log(Level::Error, format!("{:?}: {} cannot be read: {error}", self.pg, kv.key)))
            .ok()
    }

    /// Step 2: asks an OSD to join, if it has not answered yet. Without a connection it is asked when there is one.
    pub fn query<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, osd: OsdId) {
        let has_seat = self.roster.seats().iter().any(|seat| seat.member.osd == osd);
        let answered = self.roster.seats().iter().any(|seat| seat.member.osd == osd && seat.statement.is_some());
        if has_seat && !answered && cx.host.node.is_connected(osd) && !self.calls.waits_for(osd) {
            self.calls.send(cx.host, cx.post, osd, SubOp::Query, Purpose::Query);
        }
    }

    /// A member stated what it holds.
    pub fn stated<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, from: OsdId, reply: SubReply) {
        let SubReply::Joined { store, trusted, lease_left, granted_to, roles } = reply else {
            return self.complain(cx, from, "its store cannot take part in peering");
        };
        if self.stage != Stage::Query {
            return cx.host.mark("a statement that came too late for its peering");
        }
        self.old_leases.told(granted_to, cx.host.now() + lease_left);
        self.old_leases.joined(cx.host.node.incarnation_of(from));
        for member in self.roster.members(self.roster.mask(|seat| seat.member.osd == from)) {
            let digest = roles.iter().find(|(role, _)| *role == member.role).map(|(_, digest)| *digest);
            if member.store == store || planted(Bug::IgnoreStoreUuid) {
                let digest = digest.unwrap_or_default();
                self.roster.stated(&member, Statement { trusted, digest });
            }
        }
        if let Some(own) = self.acting_members.iter().find(|member| member.osd == from)
            && roles.iter().any(|(role, digest)| *role != own.role && digest.count > 0)
        {
            self.trim.in_other_roles.insert(from);
        }
        if !trusted && self.acting.iter().any(|member| member.osd == from) {
            self.complain(cx, from, "its store has lost metadata");
        }
        self.consider_answers(cx);
    }

    /// Step 3: whether the answers suffice.
    pub fn consider_answers<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        let all_acting = self.acting_seats() & !self.roster.answered() == 0 || planted(Bug::SkipSilentActing);
        if !all_acting || !self.suffices() {
            return;
        }
        self.full = self.is_weak() && !planted(Bug::SkipFullAttempt);
        let grace = if self.full { GRACE_WEAK } else { GRACE };
        let silent = self.roster.mask(|seat| seat.statement.is_none() && cx.host.node.is_up(seat.member.osd));
        let end = self.attempt_started + grace;
        if silent & !self.superseded_seats() != 0 && cx.host.now() < end {
            return self.look_again(cx, end);
        }
        if self.full {
            cx.host.mark("full attempt: a set lost too many members");
        }
        self.start_comparison(cx);
    }

    /// Seats of stores whose OSD answered with another store.
    fn superseded_seats(&self) -> Mask {
        let answered =
            |osd: OsdId| self.roster.seats().iter().any(|seat| seat.member.osd == osd && seat.statement.is_some());
        self.roster.mask(|seat| seat.statement.is_none() && answered(seat.member.osd))
    }

    /// What a part of the history says.
    pub fn grounds(&self, part: &History) -> Grounds {
        self.roster.grounds(part, self.rules.k, self.rules.replicated)
    }

    /// Whether enough members of every set answered.
    fn suffices(&self) -> bool {
        self.history.parts().all(|(_, part)| self.grounds(part).suffices())
    }

    fn is_weak(&self) -> bool {
        self.history.parts().any(|(_, part)| self.grounds(part).is_weak(self.rules.minsize))
    }

    /// Whom the peering waits for, for people.
    pub fn waits_for(&self) -> Vec<String> {
        let acting = self.acting_seats() & !self.roster.answered();
        let mut names: Vec<String> = self.roster.in_mask(acting).map(|(_, seat)| seat.member.osd.0).map(name).collect();
        for (_, part) in self.history.parts() {
            let grounds = self.grounds(part);
            for (set, (epoch, members)) in grounds.sets.iter().zip(&part.sets) {
                if grounds.strength(set & grounds.answered) < self.rules.k {
                    let any: Vec<String> = members.iter().map(|member| name(member.osd.0)).collect();
                    names.push(format!("one of {} (epoch {epoch})", any.join(", ")));
                }
            }
        }
        names.dedup();
        names
    }

    fn start_comparison<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        let takes_part = self.roster.answered();
        let digests: Vec<_> =
            self.roster.in_mask(takes_part).filter_map(|(index, seat)| Some((index, seat.statement?.digest))).collect();
        let never_served = self.history.parts().all(|(_, part)| part.sets.is_empty());
        if never_served && digests.iter().any(|(_, digest)| digest.count > 0) {
            let text = format!(
                "{:?}: there are copies, but the metadata store knows of no interval in which they could have been \
                 written: it has lost this group's history; the group stays inactive",
                self.pg
            );
            cx.host.log(Level::Error, text);
            return self.give_up(cx, HISTORY_PAUSE);
        }
        self.comparison = if self.history.ancestors.is_empty() {
            Comparison::new(self.rules.range, &digests)
        } else {
            let parts = self.history.parts();
            Comparison::of_parts(parts.map(|(range, part)| (range, self.roster.concerned(part) & takes_part)))
        };
        self.enter(Stage::Compare);
        self.ask_more(cx);
    }

    fn ask_more<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        for asked in self.comparison.next_questions() {
            self.ask(cx, asked);
        }
        if self.comparison.is_done() {
            self.start_resolve(cx);
        }
    }

    fn ask<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, asked: Asked) {
        let role = self.roster.role(asked.seat);
        let op = match asked.question {
            Question::Digests { range, bits } => SubOp::Digest { role, range, bits },
            Question::List { range, after } => SubOp::List { role, range, after },
        };
        self.send(cx, asked.seat, op, Purpose::Compare { task: asked.task, seat: asked.seat });
    }

    /// A question of the comparison was answered.
    pub fn compared<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, task: u32, seat: u8, reply: SubReply) {
        if self.stage != Stage::Compare {
            return cx.host.mark("an answer that came too late for its comparison");
        }
        match reply {
            SubReply::Digests(digests) => self.comparison.digests(task, seat, digests),
            SubReply::Listing { copies, more } => {
                if let Some(asked) = self.comparison.listing(task, seat, copies, more) {
                    return self.ask(cx, asked);
                }
            }
            _ => return self.give_up(cx, RETRY_PAUSE),
        }
        while let Some(objects) = self.comparison.next_listed() {
            for (object, copies) in objects {
                if !self.judge(cx, object, &copies) {
                    return;
                }
            }
        }
        self.ask_more(cx);
    }

    /// Step 4: chooses an object's version. False: the peering cannot go on.
    fn judge<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: ObjectId, copies: &Copies) -> bool {
        let held: SmallVec<[Held; 8]> = copies
            .iter()
            .flat_map(|(seat, info)| {
                let versions = [&info.committed, &info.prepared].into_iter().flatten();
                versions.map(|info| Held {
                    seat: *seat,
                    version: info.version,
                    tombstone: info.tombstone,
                    damaged: info.damaged || cx.cramped.is_unplaced(object, info.version),
                })
            })
            .collect();
        let part = self.history.of(object.hash());
        let grounds = self.grounds(part);
        match choose(&grounds, &held) {
            Choice::Version { kept, certain, verdicts } => {
                let (version, tombstone) = kept.unwrap_or_default();
                cx.host.observe(Fact::Chosen { pg: self.pg, attempt: self.attempt, object, version });
                let good =
                    copies.iter().filter(|(_, info)| is_good(info, version)).fold(0, |m, (seat, _)| m | 1 << seat);
                let doomed = |verdict| {
                    let these = held.iter().zip(&verdicts).filter(move |(_, other)| **other == verdict);
                    these.map(|(held, _)| (held.seat, held.version)).collect::<SmallVec<[_; 2]>>()
                };
                let acting = self.acting_seats();
                let remove = doomed(Verdict::Remove);
                let overwritten = if version.is_none() { 0 } else { self.overwritten(&grounds, &remove) };
                let missing = if version.is_none() { 0 } else { acting & !good | overwritten };
                let needed = if tombstone { 1 } else { self.rules.k };
                let mut entry = Entry::new(version, needed, good, missing);
                entry.remove = remove;
                entry.later = doomed(Verdict::RemoveLater);
                entry.commit = doomed(Verdict::Below);
                entry.install = missing != 0 && (!certain || self.full || overwritten != 0);
                entry.bases = bases(copies, missing, version);
                self.note(object, entry, copies);
                true
            }
            Choice::Incomplete(version) => {
                cx.host.mark("a version counts that cannot be supplied");
                let text = format!("{:?}: {object:?} at {version} counts, but too few of its copies answered", self.pg);
                cx.host.log(Level::Warn, text);
                self.give_up(cx, Duration::secs(2));
                false
            }
            Choice::Impossible(version) => {
                let text = format!(
                    "{:?}: {object:?} has version {version}, above the last recorded interval {}: the metadata store \
                     has lost this group's history; the group stays inactive",
                    self.pg, part.last
                );
                cx.host.log(Level::Error, text);
                self.give_up(cx, HISTORY_PAUSE);
                false
            }
        }
    }

    /// Members of recorded sets where a void version took the place of what counts: copies of replicated pools keep nothing
    /// below. These get what counts instead, be they acting or not: without any version they would say in another peering that
    /// there was none.
    fn overwritten(&self, grounds: &Grounds, void: &Doomed) -> Mask {
        if !self.rules.replicated || planted(Bug::RemoveOverwritten) {
            return 0;
        }
        let members = grounds.sets.iter().fold(0, |members, set| members | set);
        members & void.iter().fold(0, |mask, (seat, _)| mask | 1 << seat)
    }

    /// Remembers an object that is not the same everywhere.
    fn note(&mut self, object: ObjectId, mut entry: Entry, copies: &Copies) {
        let acting = self.acting_seats();
        if self.full {
            entry.remove.append(&mut entry.later);
        }
        entry.later.retain(|(seat, _)| acting >> *seat & 1 == 1 && !planted(Bug::TrimWithStale));
        if self.rules.replicated {
            entry.install_over();
        } else {
            entry.install_on_top(|seat, version| is_prepared(copies, seat, version));
            let prepared = self.roster.in_mask(acting).any(|(seat, _)| is_prepared(copies, seat, entry.version));
            if prepared || entry.install {
                self.stripes.commits.note(object, entry.version);
            }
        }
        if entry.missing != 0 || !entry.remove.is_empty() || !entry.later.is_empty() {
            entry.resolve = entry.install || !entry.remove.is_empty();
            self.unclean.insert(object, entry);
        }
    }

    /// Step 5.
    fn start_resolve<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        self.enter(Stage::Resolve);
        if planted(Bug::SkipResolve) {
            self.unclean.forget_resolve();
        }
        self.resolve_more(cx);
    }

    /// Step 6.
    pub fn record<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, trims: bool) {
        self.enter(Stage::Record);
        let answered = self.roster.members(self.roster.answered());
        let history = if trims {
            history::trimmed(self.attempt.epoch, &self.acting_members)
        } else {
            history::narrowed(&self.history, self.attempt.epoch, &self.acting_members, &answered)
        };
        self.write_history(cx, history);
    }

    /// Writes history, if neither it nor the map changed.
    pub fn write_history<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, history: History) {
        let key = keys::pg_history(self.pg);
        let value = serde_json::to_vec(&history).expect("plain data has a JSON form");
        let mut compare = vec![
            meta::Compare::ModRevision(self.map_key(), self.revisions.map),
            meta::Compare::ModRevision(key.clone(), self.revisions.history),
        ];
        if !planted(Bug::RecordInEndedGroup) {
            compare.push(meta::Compare::ModRevision(keys::layout(self.pg.pool), self.revisions.layout));
        }
        // Whoever serves an interval recorded after a change of access knows of it.
        if planted(Bug::HistoryWithoutCompare) {
            compare.clear();
        }
        if let Some(revision) = cx.host.node.access_revision {
            compare.push(meta::Compare::ModRevision(keys::access(), revision));
        }
        let request = meta::Request::Txn(meta::Txn {
            compare,
            success: vec![meta::TxnOp::Put { key, value, lease: 0 }],
            failure: self.reads(),
        });
        self.trim.proposed = Some(history);
        let token = cx.host.env.rng.next_u64();
        self.meta_token = Some(token);
        cx.host.meta.push(MetaCall { pg: self.pg, token, request });
    }

    /// Takes over what was written.
    pub fn history_written<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, revision: u64) {
        let history = self.trim.proposed.take().expect("a history was proposed");
        cx.host.observe(Fact::Recorded { pg: self.pg, attempt: self.attempt, history: history.clone() });
        self.adopt(Recorded { history, revisions: Revisions { history: revision, ..self.revisions } });
    }

    fn record_done<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, result: Result<meta::Response, MetaError>) {
        match result {
            Ok(meta::Response::Txn { succeeded: true, revision, .. }) => {
                self.history_written(cx, revision);
                self.enter(Stage::LeaseWait);
                self.activate(cx);
            }
            Ok(response) => match self.parse_reads(cx, &response).map(|recorded| recorded.revisions) {
                Some(revisions) if revisions == self.revisions => {
                    cx.host.mark("a primary does not know the newest rules of access yet");
                    self.give_up(cx, RETRY_PAUSE);
                }
                Some(revisions) if revisions.history == self.revisions.history => {
                    // Only other groups of the chunk changed, or the layout before this one is forgotten.
                    self.revisions = revisions;
                    let proposed = self.trim.proposed.take().expect("a history was proposed");
                    self.write_history(cx, proposed);
                }
                _ => self.give_up(cx, RETRY_PAUSE),
            },
            Err(_) => {
                cx.host.mark("the reply to the record of an interval was lost");
                self.give_up(cx, META_PAUSE);
            }
        }
    }

    /// Step 7.
    pub fn activate<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        let leases_end = self.old_leases.end();
        if cx.host.now() < leases_end && !planted(Bug::ActivateWithoutLeaseWait) {
            return self.look_again(cx, leases_end);
        }
        self.enter(Stage::Active);
        cx.cramped.placed();
        let me = cx.host.node.osd;
        self.lease = Lease::new(self.acting.iter().map(|member| member.osd).filter(|osd| *osd != me));
        self.trim.trimmed = self.is_trimmed();
        let acting = self.acting.iter().map(|member| member.osd).collect();
        cx.host.observe(Fact::Activated { pg: self.pg, epoch: self.attempt.epoch, acting });
        let acting = self.acting_seats();
        self.unclean.activate(acting);
        self.arm_commits(cx);
        self.remove_images(cx);
        self.recover(cx);
        if self.trim.trimmed || planted(Bug::PurgeBeforeTrim) {
            self.clean_up(cx);
        }
        self.trim_if_clean(cx);
        self.scrub_step(cx);
    }

    fn is_trimmed(&self) -> bool {
        self.history == history::trimmed(self.attempt.epoch, &self.acting_members)
    }
}

fn is_prepared(copies: &Copies, seat: u8, version: crate::id::Version) -> bool {
    let mut prepared = copies.iter().filter(|(other, _)| *other == seat).filter_map(|(_, info)| info.prepared.as_ref());
    prepared.any(|info| info.version == version)
}

/// The newest undamaged data below a version on each of some seats. What is above it goes before anything is installed.
fn bases(copies: &Copies, missing: Mask, version: crate::id::Version) -> SmallVec<[(u8, crate::id::Version); 2]> {
    let of_seat = |info: &crate::store::CopyInfo| {
        let versions = [&info.prepared, &info.committed].into_iter().flatten();
        let below = versions.filter(|info| info.version < version).max_by_key(|info| info.version)?;
        (!below.tombstone && !below.damaged).then_some(below.version)
    };
    let lacking = copies.iter().filter(|(seat, _)| missing >> seat & 1 == 1);
    lacking.filter_map(|(seat, info)| Some((*seat, of_seat(info)?))).collect()
}

fn is_good(info: &crate::store::CopyInfo, version: crate::id::Version) -> bool {
    let versions = [&info.committed, &info.prepared].into_iter().flatten();
    !version.is_none() && versions.into_iter().any(|info| info.version == version && !info.damaged)
}

fn name(osd: u32) -> String {
    format!("osd.{osd}")
}
