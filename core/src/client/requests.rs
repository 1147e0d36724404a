//! Getting requests about objects answered, each exactly once, whatever happens to links, primaries and maps.
//!
//! Owns: request numbers, the order of overlapping writes, retries, the map and the connections.
//! Does not own: images and operations; it neither knows how a request came about nor bounds how many there are.
//!
//! Invariants: a write keeps its number through all its tries; a part is in its group's queue exactly while it is
//! `Waiting`; whatever waits is woken by a timer, a connection, or a change of the map.

use super::api::OpError;
use super::groups::{Gate, Group, Groups};
use super::links::{DOUBT, Due, OsdLinks};
use super::lookups::Lookups;
use super::map::ClientMap;
use super::numbers::{READ_FLAG, Unanswered, reader};
use super::ops::Op;
use super::order::Order;
use super::part::{Action, Owner, Part, PartAnswer, State, Step};
use super::replay::Replays;
use super::seeds::{Asked, Seeds, Wanted};
use super::unsynced::{Entry, Unsynced};
use crate::id::{Epoch, LinkId, ObjectId, OsdId, PgId, RequestId, Session};
use crate::io::{Env, Input, LinkEvent, PeerId, PeerName};
use crate::msg::{Answer, Class, ImageInfo, MapMessage, Message, Refusal, Reply, Request};
use crate::planted::{Bug, planted};
use crate::slab::{Key, Slab};
use crate::stages::ClientStages;
use crate::time::Time;
use crate::timer::Deadlines;
use smallvec::SmallVec;

/// What a deadline is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Timer {
    /// A group's pause is over.
    Group(PgId),
    /// An OSD may be connected to again.
    Connect(OsdId),
    /// An OSD may be silent.
    Silence(OsdId),
    /// Somebody may be in doubt.
    Doubt,
    /// The next seed may be connected to.
    Seed,
    /// News may still be wanted.
    Ask,
    /// Unknown names are asked for again.
    Lookup,
}

/// Of what a part was cut off.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// The operation.
    pub op: Key<Op>,
    /// The part's place in it.
    pub index: u32,
    /// When the operation came.
    pub since: Time,
}

/// A part that is done.
#[derive(Clone, Debug)]
pub(super) struct Finished {
    /// Its operation.
    pub op: Key<Op>,
    /// Its place among the operation's parts.
    pub index: u32,
    /// Whether it was a write.
    pub is_write: bool,
    /// Payload bytes that it occupied.
    pub bytes: u64,
    /// Its result.
    pub result: Result<PartAnswer, OpError>,
}

/// Counts, for status and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Requests sent, tries included.
    pub requests: u64,
    /// Tries after the first.
    pub retries: u64,
    /// Answers that came too late: to a request that was answered by another try.
    pub stale_replies: u64,
    /// Answers whose bytes did not match their checksum.
    pub damaged_replies: u64,
    /// Connections lost.
    pub links_lost: u64,
    /// Writes that were sent again since the epoch had changed before they were synced.
    pub replays: u64,
    /// Syncs of groups.
    pub syncs: u64,
}

/// Requests under way.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    session: Session,
    pub(super) map: ClientMap,
    seeds: Seeds,
    lookups: Lookups,
    links: OsdLinks,
    pub(super) groups: Groups,
    pub(super) parts: Slab<Part>,
    order: Order,
    /// Writes by number.
    pub(super) writes: Unanswered<Key<Part>>,
    pub(super) last_number: u64,
    /// Parts in queues of groups.
    waiting: usize,
    deadlines: Deadlines<Timer>,
    /// [`Timer::Doubt`] is armed.
    is_watchful: bool,
    released: Vec<Key<Part>>,
    pub(super) unsynced: Unsynced,
    pub(super) replays: Replays,
    /// The client was fenced off.
    pub is_fenced: bool,
    /// Most bytes of unsynced writes; at half of it, they are synced.
    pub(super) dirty_bytes: u64,
    /// Done; taken by the owner.
    pub finished: Vec<Finished>,
    pub stats: ClientStats,
    /// Where the time of requests went.
    pub stages: ClientStages,
}

impl Requests {
    pub fn new(session: Session, seeds: Vec<String>, dirty_bytes: u64) -> Self {
        Requests {
            session,
            map: ClientMap::default(),
            seeds: Seeds::new(seeds),
            lookups: Lookups::default(),
            links: OsdLinks::default(),
            groups: Groups::new(),
            parts: Slab::default(),
            order: Order::default(),
            writes: Unanswered::default(),
            last_number: 0,
            waiting: 0,
            deadlines: Deadlines::default(),
            is_watchful: false,
            released: Vec::new(),
            unsynced: Unsynced::default(),
            replays: Replays::default(),
            is_fenced: false,
            dirty_bytes,
            finished: Vec::new(),
            stats: ClientStats::default(),
            stages: ClientStages::default(),
        }
    }

    pub fn map(&self) -> &ClientMap {
        &self.map
    }

    /// Connects.
    pub fn start(&mut self, env: &mut Env<'_>) {
        if let Some(at) = self.seeds.connect(env, &self.map) {
            self.deadlines.arm(at, Timer::Seed);
        }
    }

    /// Looks an image up; the answer comes by [`Requests::next_lookup`].
    pub fn look_up(&mut self, env: &mut Env<'_>, token: u64, name: &str) {
        self.lookups.add(env, self.seeds.up(), token, name);
        self.want_news(env);
    }

    /// Takes the answer to a lookup.
    pub fn next_lookup(&mut self, now: Time) -> Option<(u64, Option<ImageInfo>)> {
        let map = &self.map;
        self.lookups.next_decided(now, |image| map.pool(image.pool).is_some())
    }

    /// Lists the images; the names come by [`Requests::next_listed`].
    pub fn list(&mut self, env: &mut Env<'_>, token: u64) {
        self.lookups.list(env, self.seeds.up(), token);
        self.want_news(env);
    }

    /// Takes the names of all images.
    pub fn next_listed(&mut self) -> Option<(u64, Vec<String>)> {
        self.lookups.next_listed()
    }

    /// What was acknowledged becomes durable; [`Requests::next_flushed`] says when.
    pub fn flush_all(&mut self, env: &mut Env<'_>, op: Key<Op>) {
        self.unsynced.flush(Some(op));
        self.sync_due(env);
    }

    /// A flush that is done, with its result.
    pub fn next_flushed(&mut self) -> Option<(Key<Op>, Result<(), OpError>)> {
        self.unsynced.next_flushed()
    }

    /// Whether more writes may begin: a sync will make room.
    pub fn has_dirty_room(&self) -> bool {
        self.unsynced.bytes() < self.dirty_bytes
    }

    /// Takes a request on. Writes that overlap keep the order in which they come here.
    pub fn submit(&mut self, env: &mut Env<'_>, cut: Cut, object: ObjectId, pg: PgId, action: Action) {
        let (state, tries) = (State::Held, SmallVec::new());
        let (owner, since) = (Owner::Op(cut.op, cut.index), Some(cut.since));
        let mut part = Part { owner, object, pg, number: 0, action, state, tries, refusals: 0, since, sent: None };
        let (is_write, span) = (part.is_write(), part.span());
        if is_write {
            self.last_number += 1;
            part.number = self.last_number;
        }
        let number = part.number;
        let key = self.parts.insert(part);
        if is_write {
            self.writes.push(number, key);
            self.groups.entry(pg).or_default().unanswered.push(number, ());
            if self.order.enter(key, object, span) {
                return;
            }
        }
        self.dispatch(env, key);
    }

    // ---- Sending ----

    pub(super) fn part(&mut self, key: Key<Part>) -> &mut Part {
        self.parts.get_mut(key).expect("a part lives until it is finished")
    }

    /// Sends a part if its group takes requests and its primary is connected; queues it otherwise.
    pub(super) fn dispatch(&mut self, env: &mut Env<'_>, key: Key<Part>) {
        if self.put_behind_replays(key) {
            return;
        }
        let pg = self.part(key).pg;
        let group = self.groups.entry(pg).or_default();
        let free = group.gate() == Gate::Open && group.waiting.is_empty();
        match free.then(|| self.route(env, pg)).flatten() {
            Some((link, epoch)) => self.send(env, key, link, epoch),
            None => self.enqueue(key),
        }
    }

    /// If the object of an operation's part is being replayed, the part waits for the end of that.
    fn put_behind_replays(&mut self, key: Key<Part>) -> bool {
        let part = self.parts.get_mut(key).expect("a part lives until it is finished");
        if !matches!(part.owner, Owner::Op(..)) || !self.replays.holds(part.object) {
            return false;
        }
        if part.state != State::Behind {
            part.state = State::Behind;
            self.replays.put_behind(part.object, key);
        }
        true
    }

    fn enqueue(&mut self, key: Key<Part>) {
        let part = self.part(key);
        part.state = State::Waiting;
        let pg = part.pg;
        self.groups.entry(pg).or_default().waiting.push_back(key);
        self.waiting += 1;
    }

    /// The connection to a group's primary, and the group's epoch. If there is none, it is seen to.
    fn route(&mut self, env: &mut Env<'_>, pg: PgId) -> Option<(LinkId, Epoch)> {
        let primary = self.map.pg(pg).and_then(|info| Some((info.primary?, info.epoch)));
        let reachable = primary.and_then(|(osd, epoch)| Some((osd, epoch, self.map.address(osd)?)));
        let Some((osd, epoch, address)) = reachable else {
            self.want_news(env);
            return None;
        };
        if let Some(link) = self.links.up(osd) {
            return Some((link, epoch));
        }
        self.links.want(env, osd, address);
        self.watch(env);
        None
    }

    /// Looks after a while whether what is asked for now was answered. One timer is enough for all that is under way.
    fn watch(&mut self, env: &Env<'_>) {
        if !planted(Bug::NeverInDoubt) && !std::mem::replace(&mut self.is_watchful, true) {
            self.deadlines.arm(env.now + DOUBT, Timer::Doubt);
        }
    }

    fn send(&mut self, env: &mut Env<'_>, key: Key<Part>, link: LinkId, epoch: Epoch) {
        let session = self.session;
        let last = self.last_number;
        let part = self.parts.get_mut(key).expect("a part lives until it is finished");
        let seen = match part.owner {
            Owner::Sync(settled) => settled,
            Owner::Op(..) | Owner::Replay => self.groups.entry(part.pg).or_default().seen(last),
        };
        let id = RequestId { session, number: part.wire_number(key) };
        let (object, generation, op) = (part.object, part.pg.number.generation(), part.request());
        part.state = State::Sent(link, epoch);
        part.tries.push((link, epoch));
        part.sent = Some(env.now);
        self.stats.requests += 1;
        let request = Request { id, seen, object, generation, epoch, class: Class::Client, tenant: 0, op };
        env.out.send(link, Message::Request(request));
        if let Some((osd, at)) = self.links.sent(env.now, link) {
            self.deadlines.arm(at, Timer::Silence(osd));
        }
        self.watch(env);
    }

    /// Sends what waits for a group, `most` of it; gives how many were sent.
    fn flush(&mut self, env: &mut Env<'_>, pg: PgId, most: usize) -> usize {
        let mut sent = 0;
        while sent < most {
            if self.groups.get(&pg).is_none_or(|group| group.waiting.is_empty()) {
                break;
            }
            let Some((link, epoch)) = self.route(env, pg) else { break };
            let key = self.groups.get_mut(&pg).and_then(|group| group.waiting.pop_front()).expect("not empty");
            self.waiting -= 1;
            if !self.put_behind_replays(key) {
                self.stats.retries += u64::from(self.part(key).refusals > 0);
                self.send(env, key, link, epoch);
                sent += 1;
            }
        }
        sent
    }

    fn flush_open(&mut self, env: &mut Env<'_>) {
        let open =
            |(pg, group): (&PgId, &Group)| (group.gate() == Gate::Open && !group.waiting.is_empty()).then_some(*pg);
        let pgs: Vec<PgId> = self.groups.iter().filter_map(open).collect();
        for pg in pgs {
            self.flush(env, pg, usize::MAX);
        }
    }

    fn want_news(&mut self, env: &mut Env<'_>) {
        if let Some(at) = self.seeds.want_news(env, self.map.revision()) {
            self.deadlines.arm(at, Timer::Ask);
        }
    }

    // ---- Answers ----

    fn on_reply(&mut self, env: &mut Env<'_>, link: LinkId, reply: Reply) {
        self.links.heard(env.now, link);
        let number = reply.id.number;
        let key = if number & READ_FLAG == 0 { self.writes.get(number) } else { reader(&self.parts, number) };
        let fits = |part: &Part| reply.id.session == self.session && key.is_some_and(|k| part.wire_number(k) == number);
        let part = key.and_then(|key| self.parts.get_mut(key)).filter(|part| fits(part));
        let on_link = |(_, (tried, _)): &(usize, &(LinkId, Epoch))| *tried == link;
        // Of several tries on the link, the oldest: whether this answers it is not said, so nothing newer is claimed.
        let oldest =
            |part: &Part| Some(part.tries.iter().enumerate().filter(on_link).min_by_key(|(_, (_, epoch))| *epoch)?.0);
        let Some(place) = part.as_ref().and_then(|part| oldest(part)) else {
            self.stats.stale_replies += 1;
            return;
        };
        let (key, part) = (key.expect("it was found"), part.expect("it was found"));
        let (_, epoch) = part.tries.swap_remove(place);
        match reply.outcome {
            Ok(answer) => self.on_answer(env, key, answer, epoch),
            // Only the newest try's refusal says that the part is nowhere under way any more.
            Err(_)
                if part.tries.iter().any(|(tried, _)| *tried == link)
                    || !matches!(part.state, State::Sent(on, _) if on == link) =>
            {
                self.stats.stale_replies += 1;
            }
            Err(refusal) => self.on_refusal(env, key, refusal),
        }
    }

    /// A try was answered that asked under this epoch, or a later one.
    fn on_answer(&mut self, env: &mut Env<'_>, key: Key<Part>, answer: Answer, epoch: Epoch) {
        let part = self.part(key);
        let pg = part.pg;
        match part.answered(env.bufs, answer) {
            Step::Finished(answer) => self.finish(env, key, Ok(answer)),
            Step::Applied => self.finish_applied(env, key, epoch),
            Step::Again => {
                part.tries.clear();
                self.unqueue(key);
                self.dispatch(env, key);
            }
            Step::Unusable => {
                self.stats.damaged_replies += 1;
                if matches!(self.part(key).state, State::Sent(..)) {
                    self.pause(env, key);
                }
                return;
            }
        }
        self.on_group_answered(env, pg);
    }

    /// The group serves: what waits for it may go.
    fn on_group_answered(&mut self, env: &mut Env<'_>, pg: PgId) {
        let group = self.groups.entry(pg).or_default();
        group.answered();
        if group.gate() == Gate::Open && !group.waiting.is_empty() {
            self.flush(env, pg, usize::MAX);
        }
    }

    fn on_refusal(&mut self, env: &mut Env<'_>, key: Key<Part>, refusal: Refusal) {
        let part = self.part(key);
        part.refusals = part.refusals.saturating_add(1);
        let pg = part.pg;
        match refusal {
            Refusal::WrongEpoch(_) | Refusal::NotPrimary => self.on_wrong_map(env, key),
            Refusal::BadChecksum if !part.payload_is_good() => self.finish(env, key, Err(OpError::Damaged)),
            Refusal::Again | Refusal::BadChecksum => self.pause(env, key),
            Refusal::NoSuchPool => {
                self.seeds.want_everything();
                self.pause(env, key);
            }
            Refusal::VersionMismatch(_) if part.start_over() => self.on_mismatch(env, key),
            Refusal::VersionMismatch(_) | Refusal::BadRequest => self.finish(env, key, Err(OpError::BadRequest)),
            Refusal::NoSpace => self.finish(env, key, Err(OpError::NoSpace)),
            Refusal::Damaged => self.finish(env, key, Err(OpError::Damaged)),
            Refusal::NoSuchImage => self.finish(env, key, Err(OpError::NoSuchImage)),
            Refusal::Locked => self.finish(env, key, Err(OpError::Locked)),
            Refusal::Fenced => return self.end_all(env),
        }
        // A refusal that asks for no pause is as good a sign of life as an answer.
        if self.groups.get(&pg).is_some_and(|group| group.gate() == Gate::Probing) {
            self.on_group_answered(env, pg);
        }
    }

    /// The client was fenced off: whatever is under way fails, and nothing is asked any more.
    fn end_all(&mut self, env: &mut Env<'_>) {
        self.is_fenced = true;
        while !self.parts.is_empty() {
            for key in self.parts.keys() {
                // The end of another may have been its end.
                if self.parts.get(key).is_some() {
                    self.finish(env, key, Err(OpError::Fenced));
                }
            }
        }
        self.groups.values_mut().for_each(Group::probe_lost);
    }

    /// If the map has moved on since the part was sent, it goes out again at once; else news is needed.
    fn on_wrong_map(&mut self, env: &mut Env<'_>, key: Key<Part>) {
        let part = self.part(key);
        let State::Sent(_, epoch) = part.state else { unreachable!("only what was sent is refused") };
        let pg = part.pg;
        if self.map.pg(pg).is_some_and(|info| info.epoch != epoch) {
            self.dispatch(env, key);
        } else {
            self.pause(env, key);
        }
    }

    /// Another client changed the object under a merge: start over, with a pause if that goes on.
    fn on_mismatch(&mut self, env: &mut Env<'_>, key: Key<Part>) {
        const AT_ONCE: u32 = 3;
        let part = self.part(key);
        part.tries.clear();
        if part.refusals.is_multiple_of(AT_ONCE) {
            self.pause(env, key);
        } else {
            self.dispatch(env, key);
        }
    }

    /// The part waits until its group's pause is over or the group's map changes.
    fn pause(&mut self, env: &mut Env<'_>, key: Key<Part>) {
        let pg = self.part(key).pg;
        self.enqueue(key);
        let group = self.groups.entry(pg).or_default();
        if let Some(until) = group.pause(env.rng, env.now) {
            self.deadlines.arm(until, Timer::Group(pg));
        }
        self.want_news(env);
    }

    /// Takes a part out of its group's queue, if it is there.
    pub(super) fn unqueue(&mut self, key: Key<Part>) {
        let part = self.part(key);
        if part.state != State::Waiting {
            return;
        }
        part.state = State::Held;
        let pg = part.pg;
        self.groups.entry(pg).or_default().waiting.retain(|waiting| *waiting != key);
        self.waiting -= 1;
    }

    fn finish(&mut self, env: &mut Env<'_>, key: Key<Part>, result: Result<PartAnswer, OpError>) {
        self.unqueue(key);
        let part = self.parts.remove(key).expect("a part is finished once");
        match part.owner {
            Owner::Op(op, index) => {
                self.finish_for(env.now, (op, index), &part, result);
                self.leave_order(env, key, &part);
            }
            Owner::Replay => self.replayed(env, key, part, result.map(|_| None)),
            Owner::Sync(_) => self.synced(env, part.pg, result.err()),
        }
    }

    /// A write is done, under this epoch or a later one, and may be lost with the power.
    fn finish_applied(&mut self, env: &mut Env<'_>, key: Key<Part>, epoch: Epoch) {
        self.unqueue(key);
        let part = self.parts.remove(key).expect("a part is finished once");
        let Owner::Op(op, index) = part.owner else { return self.replayed(env, key, part, Ok(Some(epoch))) };
        self.finish_for(env.now, (op, index), &part, Ok(PartAnswer::Done));
        let (number, object, action) = (part.number, part.object, part.action.clone().unconditional());
        // Before anything else is sent: its number may have to count as unanswered.
        let replay = self.keep(part.pg, epoch, Entry { number, object, action });
        self.leave_order(env, key, &part);
        if let Some(replay) = replay {
            self.dispatch(env, replay);
        }
        self.sync_due(env);
    }

    /// Tells an operation the result of a part.
    fn finish_for(&mut self, now: Time, (op, index): (Key<Op>, u32), part: &Part, result: Result<PartAnswer, OpError>) {
        if let (Some(since), Some(sent), true) = (part.since, part.sent, result.is_ok()) {
            self.stages.queue.record(sent.since(since));
            self.stages.cluster.record(now.since(sent));
        }
        let (is_write, bytes) = (part.is_write(), part.action.bytes());
        self.finished.push(Finished { op, index, is_write, bytes, result });
        if is_write {
            self.writes.remove(part.number);
            self.groups.entry(part.pg).or_default().unanswered.remove(part.number);
        }
    }

    /// Writes that waited for this one may go.
    fn leave_order(&mut self, env: &mut Env<'_>, key: Key<Part>, part: &Part) {
        if !part.is_write() {
            return;
        }
        let mut released = std::mem::take(&mut self.released);
        self.order.leave(key, part.object, &mut released);
        for key in released.drain(..) {
            self.dispatch(env, key);
        }
        self.released = released;
    }

    // ---- Links ----

    fn on_link(&mut self, env: &mut Env<'_>, event: LinkEvent) {
        match event {
            LinkEvent::Up { link, peer, opened: Some(PeerName::Osd(osd)) } => self.on_osd_up(env, osd, link, peer),
            LinkEvent::Up { link, opened: Some(PeerName::Seed(number)), .. } => {
                if self.seeds.on_up(env, number, link) {
                    self.lookups.ask(env, Some(link));
                }
            }
            LinkEvent::Up { opened: None, link, .. } => env.out.push(crate::io::Effect::Close(link)),
            LinkEvent::Failed { target: PeerName::Osd(osd), .. } => {
                if let Some(at) = self.links.on_failed(env, osd) {
                    self.deadlines.arm(at, Timer::Connect(osd));
                    self.want_news(env);
                }
            }
            LinkEvent::Failed { target: PeerName::Seed(number), .. } => self.on_seed_lost(env, Err(number)),
            LinkEvent::Down { link } if self.seeds.is(link) => self.on_seed_lost(env, Ok(link)),
            LinkEvent::Down { link } => {
                if let Some((osd, at)) = self.links.on_down(env, link) {
                    self.on_osd_lost(env, osd, link, at);
                }
            }
        }
    }

    fn on_osd_up(&mut self, env: &mut Env<'_>, osd: OsdId, link: LinkId, peer: PeerId) {
        match self.links.on_up(env, osd, link, peer) {
            Ok(()) => self.flush_open(env),
            Err(None) => {}
            Err(Some(at)) => {
                self.deadlines.arm(at, Timer::Connect(osd));
                self.want_news(env);
            }
        }
    }

    fn on_seed_lost(&mut self, env: &mut Env<'_>, which: Result<LinkId, u32>) {
        if let Some(at) = self.seeds.on_lost(env, which) {
            self.stats.links_lost += u64::from(which.is_ok());
            self.deadlines.arm(at, Timer::Seed);
        }
    }

    /// No try on this connection will be answered any more.
    fn on_osd_lost(&mut self, env: &mut Env<'_>, osd: OsdId, link: LinkId, retry_at: Time) {
        self.stats.links_lost += 1;
        self.deadlines.arm(retry_at, Timer::Connect(osd));
        let mut lost = Vec::new();
        for key in self.parts.keys() {
            let part = self.part(key);
            part.tries.retain(|(tried, _)| *tried != link);
            if matches!(part.state, State::Sent(on, _) if on == link) {
                part.refusals = part.refusals.saturating_add(1);
                lost.push((part.number, key));
            }
        }
        self.requeue(env, lost);
    }

    /// Parts that were sent in vain wait again, in their old order.
    fn requeue(&mut self, env: &mut Env<'_>, mut lost: Vec<(u64, Key<Part>)>) {
        if lost.is_empty() {
            return;
        }
        lost.sort();
        for (_, key) in lost {
            let pg = self.part(key).pg;
            self.groups.entry(pg).or_default().probe_lost();
            self.enqueue(key);
        }
        self.want_news(env);
    }

    // ---- The map ----

    fn on_map(&mut self, env: &mut Env<'_>, message: MapMessage) {
        match message {
            MapMessage::Update(update) => {
                let news = self.map.apply(update, self.seeds.up());
                self.seeds.heard(news);
                if news {
                    self.on_news(env);
                }
            }
            MapMessage::Image { token, image } => {
                self.seeds.heard(false);
                if let Some(at) = self.lookups.answered(env.now, token, image) {
                    self.deadlines.arm(at, Timer::Lookup);
                }
            }
            MapMessage::Images { token, names, more } => {
                self.seeds.heard(false);
                self.lookups.told(env, self.seeds.up(), token, names, more);
            }
            MapMessage::Subscribe { .. } | MapMessage::FindImage { .. } | MapMessage::ListImages { .. } => {}
        }
    }

    fn on_news(&mut self, env: &mut Env<'_>) {
        // First: nothing may be sent under a new epoch before what is to be replayed counts as unanswered.
        self.regroup(env);
        if !planted(Bug::SkipReplay) {
            self.replay_outdated(env);
        }
        let map = &self.map;
        for (osd, link, at) in self.links.moved(env, |osd| map.address(osd).map(str::to_string)) {
            self.on_osd_lost(env, osd, link, at);
        }
        self.drop_pools(env);
        self.recall(env);
        let sent = |part: &Part, link| matches!(part.state, State::Sent(on, _) if on == link);
        let parts = &self.parts;
        for (osd, link, at) in self.links.abandon(env, |link| parts.iter().any(|(_, part)| sent(part, link))) {
            self.on_osd_lost(env, osd, link, at);
        }
        for (pg, group) in &mut self.groups {
            let Some(info) = self.map.pg(*pg) else { continue };
            if group.on_map(info.epoch)
                && let Some(primary) = info.primary
            {
                self.links.believe(primary);
            }
        }
        self.flush_open(env);
    }

    /// Parts of pools that are gone fail.
    fn drop_pools(&mut self, env: &mut Env<'_>) {
        let map = &self.map;
        self.unsynced.drop_pools(|pool| map.pool(pool).is_none());
        for key in self.parts.keys() {
            let gone = |part: &Part| self.map.pool(part.object.pool).is_none();
            if self.parts.get(key).is_some_and(gone) {
                self.finish(env, key, Err(OpError::NoSuchPool));
            }
        }
    }

    /// Parts that were sent to a node that is not their group's primary any more wait for the new one.
    fn recall(&mut self, env: &mut Env<'_>) {
        let mut lost = Vec::new();
        for (key, part) in self.parts.iter() {
            let State::Sent(link, _) = part.state else { continue };
            let primary = self.map.pg(part.pg).and_then(|info| info.primary);
            if primary.and_then(|osd| self.links.up(osd)) != Some(link) {
                lost.push((part.number, key));
            }
        }
        for (_, key) in &lost {
            let part = self.part(*key);
            part.refusals = part.refusals.saturating_add(1);
        }
        self.requeue(env, lost);
    }

    // ---- Events ----

    pub fn handle(&mut self, env: &mut Env<'_>, input: Input) {
        match input {
            Input::Message { from, msg: Message::Reply(reply) } => self.on_reply(env, from, reply),
            Input::Message { from, msg: Message::Map(message) } if self.seeds.is(from) => self.on_map(env, message),
            Input::Message { .. } => self.stats.stale_replies += 1,
            Input::Link(event) => self.on_link(env, event),
            // The first one starts the client.
            Input::Tick => self.start(env),
            Input::Io { .. } | Input::Meta(_) => panic!("a client asks for no I/O and no metadata"),
        }
        while let Some(timer) = self.deadlines.pop_due(env.now) {
            self.on_timer(env, timer);
        }
    }

    fn on_timer(&mut self, env: &mut Env<'_>, timer: Timer) {
        match timer {
            Timer::Group(pg) => {
                let resumed = self.groups.get_mut(&pg).is_some_and(|group| group.resume(env.now));
                if resumed && self.flush(env, pg, 1) == 0 {
                    self.groups.entry(pg).or_default().probe_lost();
                }
            }
            Timer::Connect(osd) => {
                if self.links.on_pause_over(env.now, osd) == Due::Reconnect {
                    self.flush_open(env);
                }
            }
            Timer::Silence(osd) => self.on_silence_timer(env, osd),
            Timer::Doubt => self.on_doubt_timer(env),
            Timer::Seed => {
                if let Some(at) = self.seeds.on_timer(env, &self.map) {
                    self.deadlines.arm(at, Timer::Seed);
                }
            }
            Timer::Ask => self.on_ask_timer(env),
            Timer::Lookup => {
                if self.lookups.is_due(env.now) {
                    self.lookups.ask(env, self.seeds.up());
                }
            }
        }
    }

    fn on_silence_timer(&mut self, env: &mut Env<'_>, osd: OsdId) {
        match self.links.on_watch(env, osd) {
            Due::Nothing | Due::Reconnect => {}
            Due::Later(at) => self.deadlines.arm(at, Timer::Silence(osd)),
            Due::Lost(link) => {
                if let Some((osd, at)) = self.links.on_down(env, link) {
                    self.on_osd_lost(env, osd, link, at);
                }
            }
        }
    }

    /// Whoever is in doubt may have been replaced: whether the news of that would come is found out by asking for it.
    fn on_doubt_timer(&mut self, env: &mut Env<'_>) {
        self.is_watchful = false;
        let Some(at) = self.links.doubt_at() else { return };
        if at > env.now {
            self.is_watchful = true;
            return self.deadlines.arm(at, Timer::Doubt);
        }
        self.watch(env);
        self.want_news(env);
    }

    fn wanted(&self, now: Time) -> Wanted {
        if self.waiting > 0 || !self.lookups.is_empty() {
            Wanted::Needed
        } else if self.links.doubt_at().is_some_and(|at| at <= now) {
            Wanted::InDoubt
        } else {
            Wanted::No
        }
    }

    fn on_ask_timer(&mut self, env: &mut Env<'_>) {
        let wanted = self.wanted(env.now);
        match self.seeds.on_ask(env, wanted, self.map.revision()) {
            Asked::Nothing => {}
            Asked::Again(at) => self.deadlines.arm(at, Timer::Ask),
            Asked::Moved(connect_at, ask_at) => {
                self.deadlines.arm(connect_at, Timer::Seed);
                self.deadlines.arm(ask_at, Timer::Ask);
            }
        }
    }

    pub fn next_deadline(&self) -> Option<Time> {
        self.deadlines.next().map(|(at, _)| at)
    }

    /// Panics if an invariant is broken.
    pub fn check(&self) {
        self.links.check();
        self.order.check();
        self.replays.check(|key| self.parts.get(key).map(|part| part.state));
        if !planted(Bug::SkipReplay) {
            self.unsynced.check(|pg| self.map.pg(pg).map(|info| info.epoch));
        }
        let replaying = self.parts.iter().filter(|(_, part)| part.owner == Owner::Replay).count();
        assert_eq!(replaying, self.unsynced.replaying());
        let queued = self.groups.values().map(|group| group.waiting.len()).sum::<usize>();
        assert_eq!(queued, self.waiting);
        assert_eq!(queued, self.parts.iter().filter(|(_, part)| part.state == State::Waiting).count());
        let unanswered = self.groups.values().map(|group| group.unanswered.len()).sum::<usize>();
        assert!(self.writes.len() == unanswered || planted(Bug::ClaimFormerAnswers));
        for (key, part) in self.parts.iter() {
            assert!(!part.is_write() || self.writes.get(part.number) == Some(key), "write {} is lost", part.number);
            if let State::Sent(link, _) = part.state {
                assert!(
                    part.tries.iter().any(|(tried, _)| *tried == link) && self.links.osd(link).is_some(),
                    "{:?} waits in vain",
                    part.object
                );
            }
        }
        let woken = self.deadlines.next().is_some() || self.seeds.up().is_none() || self.links.is_connecting();
        for (pg, group) in &self.groups {
            assert!(group.waiting.is_empty() || woken, "{pg:?} has requests that nothing will wake");
            let probes = |part: &Part| part.pg == *pg && matches!(part.state, State::Sent(..));
            let probed = group.gate() != Gate::Probing || self.parts.iter().any(|(_, part)| probes(part));
            assert!(probed, "{pg:?} is probed by nobody");
        }
    }
}
