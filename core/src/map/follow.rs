//! Follows parts of the metadata store: reads some prefixes at one revision, then watches each of them from there; when
//! a watch is lost, reads anew.
//!
//! Owns the reading and the watches. Does not own what is read: it hands over [`Followed`] values, and its owner keeps
//! them (`ClusterMap`).
//!
//! ```text
//!          start            read done                 a watch lost
//!  Idle ----------> Reading ----------> Watching ----------------------+
//!                    ^   | failed                                      |
//!                    |   v                                             |
//!                    +- Pausing <--------------------------------------+
//!                 (shorter if the store answers somebody else meanwhile)
//! ```
//! Invariant: between two full reads every change of every prefix is reported exactly once, in order within a prefix: a
//! watch that repeats itself is not believed again, since a key that was deleted meanwhile would come back.
//! Changes of different prefixes may come in another order than they were made.

use crate::io::{Effect, Env, Event, MetaError, MetaEvent, MetaId, MetaOp};
use crate::meta::{KeyValue, Keys, Request, Response, Txn, TxnOp, TxnResult, WatchEvent};
use crate::planted::{Bug, planted};
use crate::time::{Duration, Time};
use smallvec::SmallVec;

/// First pause after a failure; doubles up to [`PAUSE_MAX`]. A restarted metadata store answers within it.
const PAUSE_MIN: Duration = Duration::millis(50);
/// Longest pause, while the store answers nobody: data I/O does not depend on it, so a slow retry costs only late changes.
const PAUSE_MAX: Duration = Duration::secs(2);
/// Longest pause when it does: whoever is up without knowing the map may be asked to serve. A read of everything is much
/// more than a renewal, and may fail where that does not.
const PAUSE_ANSWERED: Duration = Duration::millis(200);

/// What the follower has learned.
#[derive(Clone, Debug, PartialEq)]
pub enum Followed {
    /// Everything, at one revision. Replaces what was known.
    Full {
        /// The revision.
        revision: u64,
        /// All keys of the prefixes.
        kvs: Vec<KeyValue>,
    },
    /// Changes of one prefix.
    Changes {
        /// The prefix is known up to this revision.
        revision: u64,
        /// In order.
        events: Vec<WatchEvent>,
    },
}

#[derive(Clone, Debug)]
enum State {
    Idle,
    Reading(MetaId),
    /// Each watch, and the newest change that it reported.
    Watching(SmallVec<[(MetaId, u64); 8]>),
    Pausing {
        since: Time,
        until: Time,
    },
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Follower {
    prefixes: Vec<String>,
    state: State,
    pause: Duration,
}

impl Follower {
    /// A follower of some prefixes; idle until started.
    pub fn new(prefixes: Vec<String>) -> Self {
        Follower { prefixes, state: State::Idle, pause: PAUSE_MIN }
    }

    /// Reads everything (again). `next_id` names requests.
    pub fn start(&mut self, env: &mut Env<'_>, next_id: &mut dyn FnMut() -> MetaId) {
        self.drop_watches(env);
        let id = next_id();
        let range = |prefix: &String| TxnOp::Range(Keys::Prefix(prefix.clone()));
        let success = self.prefixes.iter().map(range).collect();
        let request = Request::Txn(Txn { compare: Vec::new(), success, failure: Vec::new() });
        env.out.push(Effect::Meta(MetaOp::Request { id, request }));
        self.state = State::Reading(id);
    }

    /// Takes an event of the metadata store; gives it back if it is not the follower's.
    pub fn handle(
        &mut self,
        env: &mut Env<'_>,
        event: MetaEvent,
        next_id: &mut dyn FnMut() -> MetaId,
    ) -> Result<Option<Followed>, MetaEvent> {
        match (event, &mut self.state) {
            (MetaEvent::Response { id, result }, State::Reading(expected)) if id == *expected => {
                Ok(self.read_done(env, result, next_id))
            }
            (MetaEvent::Watch { id, revision, events }, State::Watching(watches)) if has(watches, id) => {
                let events = news(env, watches, id, events);
                Ok((!events.is_empty()).then_some(Followed::Changes { revision, events }))
            }
            (MetaEvent::WatchLost { id }, State::Watching(watches)) if has(watches, id) => {
                self.drop_watches(env);
                self.pause(env);
                Ok(None)
            }
            (event, _) => Err(event),
        }
    }

    /// Time passed: a pause may be over.
    pub fn tick(&mut self, env: &mut Env<'_>, next_id: &mut dyn FnMut() -> MetaId) {
        if let State::Pausing { until, .. } = self.state
            && until <= env.now
        {
            self.start(env, next_id);
        }
    }

    /// The metadata store answered a request that is not the follower's: a long pause ends.
    pub fn store_answers(&mut self) {
        if let State::Pausing { since, until } = &mut self.state
            && !planted(Bug::StayBlind)
        {
            *until = (*until).min(*since + PAUSE_ANSWERED);
        }
    }

    /// When `tick` is due.
    pub fn next_deadline(&self) -> Option<Time> {
        match self.state {
            State::Pausing { until, .. } => Some(until),
            State::Idle | State::Reading(_) | State::Watching(_) => None,
        }
    }

    /// Whether everything was read and changes are being reported.
    pub fn is_current(&self) -> bool {
        matches!(self.state, State::Watching(_))
    }

    fn read_done(
        &mut self,
        env: &mut Env<'_>,
        result: Result<Response, MetaError>,
        next_id: &mut dyn FnMut() -> MetaId,
    ) -> Option<Followed> {
        let Ok(Response::Txn { revision, results, .. }) = result else {
            self.pause(env);
            return None;
        };
        let mut kvs = Vec::new();
        for result in results {
            if let TxnResult::Range(part) = result {
                kvs.extend(part);
            }
        }
        self.watch_from(env, revision + 1, next_id);
        self.pause = PAUSE_MIN;
        Some(Followed::Full { revision, kvs })
    }

    fn watch_from(&mut self, env: &mut Env<'_>, from: u64, next_id: &mut dyn FnMut() -> MetaId) {
        let mut watches = SmallVec::new();
        for prefix in &self.prefixes {
            let id = next_id();
            env.out.push(Effect::Meta(MetaOp::Watch { id, prefix: prefix.clone(), from }));
            watches.push((id, from - 1));
        }
        self.state = State::Watching(watches);
    }

    fn drop_watches(&mut self, env: &mut Env<'_>) {
        if let State::Watching(watches) = &self.state {
            for (id, _) in watches {
                env.out.push(Effect::Meta(MetaOp::Unwatch { id: *id }));
            }
        }
    }

    fn pause(&mut self, env: &mut Env<'_>) {
        let jitter = Duration(env.rng.below(self.pause.0 / 2 + 1));
        self.state = State::Pausing { since: env.now, until: env.now + self.pause + jitter };
        self.pause = Duration((self.pause.0 * 2).min(PAUSE_MAX.0));
    }
}

fn mark(env: &mut Env<'_>, name: &'static str) {
    env.out.push(Effect::Observe(Event::Mark(name)));
}

fn has(watches: &[(MetaId, u64)], id: MetaId) -> bool {
    watches.iter().any(|(watch, _)| *watch == id)
}

/// What a watch had not reported before.
fn news(env: &mut Env<'_>, watches: &mut [(MetaId, u64)], id: MetaId, mut events: Vec<WatchEvent>) -> Vec<WatchEvent> {
    let (_, newest) = watches.iter_mut().find(|(watch, _)| *watch == id).expect("looked for before");
    let (known, count) = (*newest, events.len());
    events.retain(|event| event.revision() > known || planted(Bug::BelieveRepeats));
    if events.len() < count {
        mark(env, "a watch repeats what it reported");
    }
    *newest = events.iter().map(WatchEvent::revision).fold(known, u64::max);
    events
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
        next: u64,
        now: Time,
    }

    impl World {
        fn new() -> Self {
            World { rng: Rng::new(1), bufs: BufPool::new(), out: Effects::default(), next: 0, now: Time(0) }
        }

        fn with<T>(&mut self, f: impl FnOnce(&mut Env<'_>, &mut dyn FnMut() -> MetaId) -> T) -> T {
            let World { rng, bufs, out, next, now } = self;
            let mut ids = || {
                *next += 1;
                MetaId(*next)
            };
            f(&mut Env { now: *now, rng, bufs, out }, &mut ids)
        }

        fn ops(&mut self) -> Vec<MetaOp> {
            let take = |effect| match effect {
                Effect::Meta(op) => op,
                other => panic!("unexpected {other:?}"),
            };
            self.out.queue.drain(..).map(take).collect()
        }
    }

    fn read_reply(id: u64, revision: u64) -> MetaEvent {
        let results = vec![TxnResult::Range(Vec::new()), TxnResult::Range(Vec::new())];
        let response = Response::Txn { revision, succeeded: true, results };
        MetaEvent::Response { id: MetaId(id), result: Ok(response) }
    }

    #[test]
    fn reads_watches_and_reads_again_when_a_watch_is_lost() {
        let mut world = World::new();
        let mut follower = Follower::new(vec!["/a/".into(), "/b/".into()]);
        world.with(|env, ids| follower.start(env, ids));
        assert!(matches!(&world.ops()[..], [MetaOp::Request { id: MetaId(1), .. }]));
        let full = world.with(|env, ids| follower.handle(env, read_reply(1, 7), ids));
        assert_eq!(full, Ok(Some(Followed::Full { revision: 7, kvs: Vec::new() })));
        assert!(follower.is_current());
        let watch = |id, prefix: &str| MetaOp::Watch { id: MetaId(id), prefix: prefix.into(), from: 8 };
        assert_eq!(world.ops(), vec![watch(2, "/a/"), watch(3, "/b/")]);

        let lost = world.with(|env, ids| follower.handle(env, MetaEvent::WatchLost { id: MetaId(3) }, ids));
        assert_eq!(lost, Ok(None));
        assert_eq!(world.ops().len(), 2, "both watches are ended");
        world.now = follower.next_deadline().expect("pausing");
        world.with(|env, ids| follower.tick(env, ids));
        assert!(matches!(&world.ops()[..], [MetaOp::Request { id: MetaId(4), .. }]));
    }

    #[test]
    fn a_repeated_change_is_not_believed_again() {
        let mut world = World::new();
        let mut follower = Follower::new(vec!["/a/".into()]);
        world.with(|env, ids| follower.start(env, ids));
        world.with(|env, ids| follower.handle(env, read_reply(1, 7), ids)).expect("its own");
        let key = || "/a/x".to_string();
        let kv = KeyValue::written(key(), Vec::new(), 8);
        let put = WatchEvent::Put(kv);
        let delete = WatchEvent::Delete { key: key(), revision: 9 };
        let tell = |events: &[WatchEvent]| MetaEvent::Watch { id: MetaId(2), revision: 9, events: events.to_vec() };
        let mut hear = |events: &[WatchEvent]| match world.with(|env, ids| follower.handle(env, tell(events), ids)) {
            Ok(Some(Followed::Changes { events, .. })) => events,
            Ok(None) => Vec::new(),
            other => panic!("{other:?}"),
        };
        assert_eq!(hear(std::slice::from_ref(&put)).len(), 1);
        assert_eq!(hear(&[put.clone(), delete.clone()]), std::slice::from_ref(&delete), "only what is new");
        assert!(hear(&[put]).is_empty() && hear(&[delete]).is_empty(), "a deleted key does not come back");
    }

    #[test]
    fn a_long_pause_ends_when_the_store_answers_somebody() {
        let mut world = World::new();
        let mut follower = Follower::new(vec!["/a/".into()]);
        let mut failed_at = Time(0);
        for attempt in 1..=9 {
            failed_at = follower.next_deadline().unwrap_or(world.now);
            world.now = failed_at;
            if attempt == 1 {
                world.with(|env, ids| follower.start(env, ids));
            } else {
                world.with(|env, ids| follower.tick(env, ids));
            }
            let failed = MetaEvent::Response { id: MetaId(attempt), result: Err(MetaError::Unavailable) };
            assert_eq!(world.with(|env, ids| follower.handle(env, failed, ids)), Ok(None));
        }
        assert!(follower.next_deadline().is_some_and(|at| at >= failed_at + PAUSE_MAX), "it was long");
        follower.store_answers();
        follower.store_answers();
        assert_eq!(follower.next_deadline(), Some(failed_at + PAUSE_ANSWERED), "but not at once, and not ever shorter");
    }

    #[test]
    fn ignores_what_is_not_its_own_and_survives_failures() {
        let mut world = World::new();
        let mut follower = Follower::new(vec!["/a/".into()]);
        world.with(|env, ids| follower.start(env, ids));
        let stale = MetaEvent::WatchLost { id: MetaId(9) };
        assert_eq!(world.with(|env, ids| follower.handle(env, stale.clone(), ids)), Err(stale));
        let failed = MetaEvent::Response { id: MetaId(1), result: Err(MetaError::Unknown) };
        assert_eq!(world.with(|env, ids| follower.handle(env, failed, ids)), Ok(None));
        assert!(!follower.is_current());
        assert!(follower.next_deadline().is_some());
    }
}
