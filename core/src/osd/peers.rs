//! Connections to other OSDs, and the evidence that they are alive.
//!
//! Owns: one link per peer, who opens it, when it is tried again, and since when a peer cannot be reached. Does not own
//! what is said on the links, nor the verdict on a peer (the monitor's).
//!
//! ```text
//!            wanted              answered
//!  Idle ---------------> Opening ---------> Up
//!   ^                     |  ^               |  closed, reset, or silent
//!   |  no longer wanted   v  | pause over    v
//!   +------------------- Pausing <-----------+ (at once, without a pause, after a link that lasted)
//! ```
//! Invariants: at most one link per peer is used; of two that were opened at the same time, both sides keep the one that
//! the OSD with the lower number opened. A newer link opened by the same side replaces the older: its opener has lost
//! that one.

use crate::id::{Incarnation, LinkId, OsdId};
use crate::io::{Effect, Env, PeerName};
use crate::time::{Duration, Time};
use std::collections::BTreeMap;
use std::ops::Bound;

/// First pause after a failed attempt; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::millis(100);
/// Longest pause between attempts: a returned peer is found within it.
const PAUSE_MAX: Duration = Duration::millis(1_600);
/// Longest pause after an attempt that nobody answered, which took its time itself: groups may be told to go on with a
/// peer as soon as others have found it again.
const PAUSE_UNANSWERED_MAX: Duration = Duration::millis(200);
/// A link that did not last so long says nothing of the next: a peer that is starting closes every one. Longer than the
/// longest pause, so that attempts become rare.
const LASTING: Duration = Duration::millis(2_000);

#[derive(Clone, Debug)]
enum Link {
    Idle,
    Opening { since: Time },
    Pausing { until: Time },
    Up { link: LinkId, incarnation: Incarnation, opened_here: bool, since: Time, heard: Time },
}

/// Where a peer is, by the cluster map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `host:port`.
    pub address: String,
    /// The start that is registered there.
    pub incarnation: Incarnation,
}

#[derive(Clone, Debug)]
struct Peer {
    place: Option<Place>,
    wanted: bool,
    link: Link,
    pause: Duration,
    /// Since when we cannot reach it although we want to.
    unreached: Option<Time>,
    accused: Option<Accusation>,
}

/// What we say of a peer that we cannot reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accusation {
    /// Which start of it.
    pub incarnation: Incarnation,
    /// Its host answered and refused the connection.
    pub hard: bool,
}

/// What the owner has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Messages can be exchanged from now on.
    Up(OsdId, Incarnation),
    /// What was on its way is lost.
    Down(OsdId),
    /// The accusation of this peer is this from now on.
    Accused(OsdId, Option<Accusation>),
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Peers {
    own: OsdId,
    silence: Duration,
    table: BTreeMap<OsdId, Peer>,
    by_link: BTreeMap<LinkId, OsdId>,
    last_tick: Time,
    changes: Vec<Change>,
}

impl Peers {
    /// No peers yet. A peer that says nothing for `silence` is taken for dead.
    pub fn new(own: OsdId, silence: Duration, now: Time) -> Self {
        let (table, by_link) = (BTreeMap::new(), BTreeMap::new());
        Peers { own, silence, table, by_link, last_tick: now, changes: Vec::new() }
    }

    /// Another time-out from now on.
    pub fn set_silence(&mut self, silence: Duration) {
        self.silence = silence;
    }

    /// Changes since the last call, in order.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Whether there are changes to take.
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// The link to a peer, if it is up.
    pub fn link(&self, osd: OsdId) -> Option<LinkId> {
        match self.table.get(&osd)?.link {
            Link::Up { link, .. } => Some(link),
            _ => None,
        }
    }

    /// The peer's start that we are connected to.
    pub fn incarnation(&self, osd: OsdId) -> Option<Incarnation> {
        match self.table.get(&osd)?.link {
            Link::Up { incarnation, .. } => Some(incarnation),
            _ => None,
        }
    }

    /// Whose link this is.
    pub fn osd(&self, link: LinkId) -> Option<OsdId> {
        self.by_link.get(&link).copied()
    }

    /// All links that are up.
    pub fn up(&self) -> impl Iterator<Item = (OsdId, LinkId)> {
        self.by_link.iter().map(|(link, osd)| (*osd, *link))
    }

    /// Where a peer is now (`None`: its session has ended), and whether groups need it.
    pub fn set(&mut self, env: &mut Env<'_>, osd: OsdId, place: Option<Place>, wanted: bool) {
        if osd == self.own || (!wanted && !self.table.contains_key(&osd)) {
            return;
        }
        let first_sight = !self.table.contains_key(&osd);
        let peer = self.table.entry(osd).or_insert_with(Peer::new);
        let moved = peer.place != place;
        (peer.place, peer.wanted) = (place, wanted);
        if moved {
            peer.pause = PAUSE_MIN;
            let gone = peer.accused.is_some_and(|a| peer.place.as_ref().is_none_or(|p| p.incarnation != a.incarnation));
            if gone {
                self.accuse(osd, None);
            }
        }
        if first_sight && self.own > osd {
            // Both see each other at the same time: the one with the lower number goes first.
            self.table.get_mut(&osd).expect("inserted above").link = Link::Pausing { until: env.now + PAUSE_MIN };
            return;
        }
        self.open_if_wanted(env, osd, moved);
    }

    /// A link to a peer is up.
    pub fn link_up(&mut self, env: &mut Env<'_>, link: LinkId, osd: OsdId, incarnation: Incarnation, opened: bool) {
        let peer = self.table.entry(osd).or_insert_with(Peer::new);
        if let Link::Up { link: old, opened_here, incarnation: before, .. } = peer.link {
            let prefer_ours = self.own < osd;
            if before == incarnation && opened_here != opened && opened != prefer_ours {
                env.out.push(Effect::Close(link));
                return;
            }
            env.out.push(Effect::Close(old));
            self.by_link.remove(&old);
            self.changes.push(Change::Down(osd));
        }
        let peer = self.table.get_mut(&osd).expect("inserted above");
        peer.link = Link::Up { link, incarnation, opened_here: opened, since: env.now, heard: env.now };
        peer.unreached = None;
        self.by_link.insert(link, osd);
        self.changes.push(Change::Up(osd, incarnation));
        self.accuse(osd, None);
    }

    /// A link ended; false if it is not a peer's.
    pub fn link_down(&mut self, env: &mut Env<'_>, link: LinkId) -> bool {
        let Some(osd) = self.by_link.remove(&link) else { return false };
        self.lost(env, osd);
        true
    }

    /// An attempt failed.
    pub fn failed(&mut self, env: &mut Env<'_>, osd: OsdId, refused: bool) {
        let Some(peer) = self.table.get_mut(&osd) else { return };
        let Link::Opening { since } = peer.link else { return };
        peer.unreached.get_or_insert(since);
        if !refused {
            peer.pause = peer.pause.min(PAUSE_UNANSWERED_MAX);
        }
        peer.begin_pause(env);
        if refused && let Some(incarnation) = peer.place.as_ref().map(|place| place.incarnation) {
            self.accuse(osd, Some(Accusation { incarnation, hard: true }));
        }
    }

    /// Something arrived on a link.
    pub fn heard(&mut self, link: LinkId, now: Time) {
        let Some(peer) = self.by_link.get(&link).and_then(|osd| self.table.get_mut(osd)) else { return };
        if let Link::Up { heard, .. } = &mut peer.link {
            *heard = now;
        }
    }

    /// Time passed: retries, and peers that fell silent.
    pub fn tick(&mut self, env: &mut Env<'_>) {
        let slept = env.now.since(self.last_tick).0 > self.silence.0 / 2;
        self.last_tick = env.now;
        let mut next = self.table.keys().next().copied();
        while let Some(osd) = next {
            if slept {
                self.forgive_silence(env.now, osd);
            }
            self.tick_peer(env, osd);
            next = self.table.range((Bound::Excluded(osd), Bound::Unbounded)).next().map(|(osd, _)| *osd);
        }
    }

    /// When `tick` is due: four times per period of silence, so that a silent peer is found in time.
    pub fn next_deadline(&self) -> Option<Time> {
        (!self.table.is_empty()).then(|| self.last_tick + Duration(self.silence.0 / 4))
    }

    /// We did not run for a while: the others' silence was ours.
    fn forgive_silence(&mut self, now: Time, osd: OsdId) {
        let peer = self.table.get_mut(&osd).expect("a key of the table");
        peer.unreached = peer.unreached.map(|_| now);
        if let Link::Up { heard, .. } = &mut peer.link {
            *heard = now;
        }
    }

    fn tick_peer(&mut self, env: &mut Env<'_>, osd: OsdId) {
        let silence = self.silence;
        let peer = self.table.get_mut(&osd).expect("a key of the table");
        match peer.link {
            Link::Up { link, heard, .. } if env.now.since(heard) > silence => {
                peer.unreached = Some(heard);
                env.out.push(Effect::Close(link));
                self.by_link.remove(&link);
                self.lost(env, osd);
            }
            Link::Opening { since } if env.now.since(since) > silence => self.failed(env, osd, false),
            Link::Pausing { until } if until <= env.now => self.open_if_wanted(env, osd, true),
            _ => {}
        }
        self.accuse_if_silent(env.now, osd);
    }

    fn accuse_if_silent(&mut self, now: Time, osd: OsdId) {
        let peer = &self.table[&osd];
        let (Some(since), Some(place)) = (peer.unreached, &peer.place) else { return };
        let accused_already = peer.accused.is_some_and(|a| a.incarnation == place.incarnation);
        if peer.wanted && !accused_already && now.since(since) > self.silence {
            self.accuse(osd, Some(Accusation { incarnation: place.incarnation, hard: false }));
        }
    }

    fn accuse(&mut self, osd: OsdId, accusation: Option<Accusation>) {
        let peer = self.table.get_mut(&osd).expect("accused peers are in the table");
        if peer.accused != accusation {
            peer.accused = accusation;
            self.changes.push(Change::Accused(osd, accusation));
        }
    }

    fn lost(&mut self, env: &mut Env<'_>, osd: OsdId) {
        let peer = self.table.get_mut(&osd).expect("a peer with a link is in the table");
        peer.unreached.get_or_insert(env.now);
        let Link::Up { since, .. } = std::mem::replace(&mut peer.link, Link::Idle) else {
            panic!("a link to {osd:?} was lost that was not up");
        };
        if env.now.since(since) >= LASTING {
            peer.pause = PAUSE_MIN;
        }
        // The first time at once: most likely there is nothing wrong, or the refusal of the next is news.
        let patient = peer.pause > PAUSE_MIN;
        if patient {
            peer.begin_pause(env);
        } else {
            peer.pause = peer.next_pause();
        }
        self.changes.push(Change::Down(osd));
        self.open_if_wanted(env, osd, !patient);
    }

    /// Opens a link, if there is none and somebody needs it; `now`: even if a pause is not over.
    fn open_if_wanted(&mut self, env: &mut Env<'_>, osd: OsdId, now: bool) {
        let peer = self.table.get_mut(&osd).expect("checked by the caller");
        let needed = peer.wanted || peer.accused.is_some();
        match (&peer.link, &peer.place) {
            (Link::Up { .. } | Link::Opening { .. }, _) => {}
            (Link::Pausing { .. }, Some(_)) if !now => {}
            (_, Some(place)) if needed => {
                let (target, address) = (PeerName::Osd(osd), place.address.clone());
                env.out.push(Effect::Connect { target, address });
                peer.link = Link::Opening { since: env.now };
            }
            _ => {
                peer.link = Link::Idle;
                peer.unreached = None;
            }
        }
    }
}

impl Peer {
    fn new() -> Self {
        Peer { place: None, wanted: false, link: Link::Idle, pause: PAUSE_MIN, unreached: None, accused: None }
    }

    fn next_pause(&self) -> Duration {
        Duration((self.pause.0 * 2).min(PAUSE_MAX.0))
    }

    /// The next attempt comes after a pause, the one after it later still.
    fn begin_pause(&mut self, env: &mut Env<'_>) {
        let jitter = Duration(env.rng.below(self.pause.0 / 2));
        self.link = Link::Pausing { until: env.now + self.pause + jitter };
        self.pause = self.next_pause();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::BufPool;
    use crate::io::Effects;
    use crate::rng::Rng;

    struct World {
        rng: Rng,
        bufs: BufPool,
        out: Effects,
        now: Time,
        peers: Peers,
    }

    const OTHER: OsdId = OsdId(5);
    const THEIR_START: Incarnation = Incarnation(50);

    impl World {
        fn new(own: u32) -> Self {
            let peers = Peers::new(OsdId(own), Duration::secs(1), Time(0));
            World { rng: Rng::new(1), bufs: BufPool::new(), out: Effects::default(), now: Time(0), peers }
        }

        fn step(&mut self, f: impl FnOnce(&mut Peers, &mut Env<'_>)) -> (Vec<String>, Vec<Change>) {
            let World { rng, bufs, out, now, peers } = self;
            f(peers, &mut Env { now: *now, rng, bufs, out });
            let effects = self.out.queue.drain(..).map(|effect| match effect {
                Effect::Connect { address, .. } => format!("connect {address}"),
                Effect::Close(link) => format!("close {}", link.0),
                other => panic!("unexpected {other:?}"),
            });
            (effects.collect(), self.peers.take_changes())
        }

        fn want(&mut self) -> (Vec<String>, Vec<Change>) {
            let place = Place { address: "there".into(), incarnation: THEIR_START };
            self.step(|peers, env| peers.set(env, OTHER, Some(place), true))
        }

        fn up(&mut self, link: u64, opened: bool) -> (Vec<String>, Vec<Change>) {
            self.step(|peers, env| peers.link_up(env, LinkId(link), OTHER, THEIR_START, opened))
        }

        fn tick_at(&mut self, ms: u64) -> (Vec<String>, Vec<Change>) {
            self.now = Time(0) + Duration::millis(ms);
            self.step(|peers, env| peers.tick(env))
        }
    }

    fn accused(hard: bool) -> Change {
        Change::Accused(OTHER, Some(Accusation { incarnation: THEIR_START, hard }))
    }

    #[test]
    fn a_refused_connection_is_hard_evidence_until_it_succeeds() {
        let mut world = World::new(1);
        assert_eq!(world.want().0, vec!["connect there"]);
        let (_, changes) = world.step(|peers, env| peers.failed(env, OTHER, true));
        assert_eq!(changes, vec![accused(true)]);
        let mut effects = Vec::new();
        for ms in [100, 200, 300] {
            effects.extend(world.tick_at(ms).0);
        }
        assert_eq!(effects, vec!["connect there"]);
        let (_, changes) = world.up(1, true);
        assert_eq!(changes, vec![Change::Up(OTHER, THEIR_START), Change::Accused(OTHER, None)]);
    }

    #[test]
    fn a_silent_peer_is_accused_after_the_time_out_but_not_after_our_own_pause() {
        let mut world = World::new(1);
        world.want();
        world.up(1, true);
        let (effects, _) = world.tick_at(5_000);
        assert_eq!(effects, Vec::<String>::new(), "we slept ourselves");
        for ms in [5_250, 5_500, 5_750, 6_000] {
            assert_eq!(world.tick_at(ms).1, vec![]);
        }
        let (effects, changes) = world.tick_at(6_250);
        assert_eq!(effects, vec!["close 1", "connect there"]);
        assert_eq!(changes, vec![Change::Down(OTHER), accused(false)]);
    }

    #[test]
    fn a_peer_that_closes_every_link_is_tried_less_and_less() {
        let mut world = World::new(1);
        let (mut opening, mut attempts) = (world.want().0.len(), 0);
        let down = |world: &mut World| world.step(|peers, env| assert!(peers.link_down(env, LinkId(1)))).0;
        for ms in 0..20_000 {
            opening += world.tick_at(ms).0.len();
            while opening > 0 {
                attempts += 1;
                assert!(attempts < 25, "after {ms} ms");
                world.up(1, true);
                opening = down(&mut world).len();
            }
        }
        assert!(attempts > 8, "{attempts}: it would be found late");
        let again = (20_000..30_000).find(|ms| !world.tick_at(*ms).0.is_empty()).expect("an attempt");
        world.up(1, true);
        world.tick_at(again + LASTING.0 / 1_000_000);
        assert_eq!(down(&mut world), vec!["connect there"], "a link that lasted is replaced at once");
    }

    #[test]
    fn a_peer_that_does_not_answer_is_tried_again_soon_however_long_that_lasts() {
        let mut world = World::new(1);
        world.want();
        for n in 0..20 {
            world.step(|peers, env| peers.failed(env, OTHER, false));
            let (from, limit) = (n * 1_000, PAUSE_UNANSWERED_MAX.0 / 1_000_000 * 3 / 2);
            let again = (from..=from + limit).any(|ms| !world.tick_at(ms).0.is_empty());
            assert!(again, "after {n} attempts");
            world.tick_at(from + 999);
        }
    }

    #[test]
    fn of_two_links_opened_at_once_both_sides_keep_the_lower_osds() {
        let mut low = World::new(1);
        low.want();
        low.up(1, false);
        assert_eq!(low.up(2, true).0, vec!["close 1"]);
        assert_eq!(low.peers.link(OTHER), Some(LinkId(2)));
        let mut high = World::new(9);
        high.want();
        high.up(1, false);
        assert_eq!(high.up(2, true).0, vec!["close 2"]);
        assert_eq!(high.peers.link(OTHER), Some(LinkId(1)));
    }

    #[test]
    fn a_newer_link_of_the_same_opener_replaces_the_older() {
        let mut world = World::new(9);
        world.up(1, false);
        let (effects, changes) = world.up(2, false);
        assert_eq!(effects, vec!["close 1"]);
        assert_eq!(changes, vec![Change::Down(OTHER), Change::Up(OTHER, THEIR_START)]);
    }

    #[test]
    fn an_accusation_ends_with_the_session_of_the_accused() {
        let mut world = World::new(1);
        world.want();
        world.step(|peers, env| peers.failed(env, OTHER, true));
        let (_, changes) = world.step(|peers, env| peers.set(env, OTHER, None, true));
        assert_eq!(changes, vec![Change::Accused(OTHER, None)]);
    }
}
