//! The OSD's session: a lease in the metadata store and the key `osd/state/<n>` that lives with it. While the key is
//! there, the OSD is up.
//!
//! ```text
//!         grant            put             renew, every ttl/3
//!  Idle --------> Granting ------> Registering ------> Held --+
//!   ^                | failed          | taken         |  ^---+
//!   |                v                 v               | lease gone, or key gone
//!   +------------- Pausing <---------------------------+
//! ```
//! Invariants: a key of another living process is never overwritten; one that names our own store is taken over at
//! once, because the store's lock proves that its writer is dead. Safety of data never depends on the session.

use crate::io::{Effect, Env, Event, Level, MetaError, MetaId, MetaOp};
use crate::map::OsdState;
use crate::meta::{Compare, KeyValue, Keys, Request, Response, Txn, TxnOp, TxnResult};
use crate::time::{Duration, Time};

/// Pause after a failure. Short: while the OSD is not registered, its groups are degraded.
const PAUSE: Duration = Duration::millis(300);

#[derive(Clone, Debug)]
enum State {
    Idle,
    Granting { id: MetaId },
    Registering { id: MetaId, lease: u64 },
    Held { lease: u64, renewal: Option<MetaId>, renew_at: Time },
    Pausing { until: Time },
    Ended,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Session {
    key: String,
    value: OsdState,
    ttl_s: u64,
    state: State,
    /// The revision of our key's predecessor, to be replaced; 0: it must not exist.
    replaces: u64,
}

impl Session {
    /// A session that will register `value` under `key`.
    pub fn new(key: String, value: OsdState, ttl_s: u64) -> Self {
        Session { key, value, ttl_s, state: State::Idle, replaces: 0 }
    }

    /// The lease, while the registration holds.
    pub fn lease(&self) -> Option<u64> {
        match self.state {
            State::Held { lease, .. } => Some(lease),
            _ => None,
        }
    }

    /// Begins (again) with a new lease.
    pub fn start(&mut self, env: &mut Env<'_>, id: MetaId) {
        self.state = State::Granting { id };
        request(env, id, Request::LeaseGrant { ttl: self.ttl_s });
    }

    /// Begins later.
    pub fn start_at(&mut self, until: Time) {
        self.state = State::Pausing { until };
    }

    /// Ends the session on purpose: peers learn at once that the OSD is gone.
    pub fn end(&mut self, env: &mut Env<'_>, id: MetaId) {
        if let Some(lease) = self.lease() {
            request(env, id, Request::LeaseRevoke { lease });
        }
        self.state = State::Ended;
    }

    /// The watched key is gone or somebody else's.
    pub fn key_lost(&mut self, env: &mut Env<'_>) {
        if self.lease().is_some() {
            log(env, Level::Warn, format!("the registration {} is gone: registering again", self.key));
            self.pause(env);
        }
    }

    /// Time passed. `next_id` names requests.
    pub fn tick(&mut self, env: &mut Env<'_>, next_id: &mut dyn FnMut() -> MetaId) {
        match self.state {
            State::Pausing { until } if until <= env.now => self.start(env, next_id()),
            State::Held { lease, renewal: None, renew_at } if renew_at <= env.now => {
                let id = next_id();
                request(env, id, Request::LeaseKeepAlive { lease });
                self.state = State::Held { lease, renewal: Some(id), renew_at };
            }
            _ => {}
        }
    }

    /// When `tick` is due.
    pub fn next_deadline(&self) -> Option<Time> {
        match self.state {
            State::Pausing { until } => Some(until),
            State::Held { renewal: None, renew_at, .. } => Some(renew_at),
            _ => None,
        }
    }

    /// Takes a response; false if it is not the session's.
    pub fn handle(
        &mut self,
        env: &mut Env<'_>,
        id: MetaId,
        result: &Result<Response, MetaError>,
        next_id: &mut dyn FnMut() -> MetaId,
    ) -> bool {
        match self.state {
            State::Granting { id: expected } if expected == id => self.granted(env, result, next_id()),
            State::Registering { id: expected, lease } if expected == id => self.registered(env, lease, result),
            State::Held { lease, renewal: Some(expected), .. } if expected == id => self.renewed(env, lease, result),
            _ => return false,
        }
        true
    }

    fn granted(&mut self, env: &mut Env<'_>, result: &Result<Response, MetaError>, id: MetaId) {
        let Ok(Response::LeaseGranted { lease, .. }) = *result else {
            return self.pause(env);
        };
        let compare = vec![Compare::ModRevision(self.key.clone(), self.replaces)];
        let value = serde_json::to_vec(&self.value).expect("plain data has a JSON form");
        let success = vec![TxnOp::Put { key: self.key.clone(), value, lease }];
        let failure = vec![TxnOp::Range(Keys::One(self.key.clone()))];
        request(env, id, Request::Txn(Txn { compare, success, failure }));
        self.state = State::Registering { id, lease };
    }

    fn registered(&mut self, env: &mut Env<'_>, lease: u64, result: &Result<Response, MetaError>) {
        match result {
            Ok(Response::Txn { succeeded: true, .. }) => {
                log(env, Level::Info, format!("registered as {}", self.key));
                self.replaces = 0;
                self.state = State::Held { lease, renewal: None, renew_at: env.now + self.renewal_period() };
            }
            Ok(Response::Txn { results, .. }) => {
                self.key_taken(env, results);
                self.pause(env);
            }
            _ => self.pause(env),
        }
    }

    /// Decides whether the present key may be replaced at the next try.
    fn key_taken(&mut self, env: &mut Env<'_>, results: &[TxnResult]) {
        self.replaces = 0;
        let Some(TxnResult::Range(kvs)) = results.first() else { return };
        let Some(KeyValue { value, mod_revision, .. }) = kvs.first() else { return };
        match serde_json::from_slice::<OsdState>(value) {
            Ok(other) if other.store == self.value.store => self.replaces = *mod_revision,
            Ok(other) => {
                let text = format!(
                    "{} belongs to a process at {} with another store ({}): waiting until its session ends; give this \
                     OSD another number, or stop the other one",
                    self.key, other.address, other.store
                );
                log(env, Level::Error, text);
            }
            Err(error) => {
                let text = format!("{} cannot be read ({error}): delete it in the metadata store", self.key);
                log(env, Level::Error, text);
            }
        }
    }

    fn renewed(&mut self, env: &mut Env<'_>, lease: u64, result: &Result<Response, MetaError>) {
        match result {
            Ok(Response::LeaseKept { ttl, .. }) if *ttl > 0 => {
                self.state = State::Held { lease, renewal: None, renew_at: env.now + self.renewal_period() };
            }
            Ok(_) | Err(MetaError::Refused(_)) => {
                log(env, Level::Warn, "the session in the metadata store has ended: registering again".into());
                self.pause(env);
            }
            Err(MetaError::Unknown | MetaError::Unavailable) => {
                self.state = State::Held { lease, renewal: None, renew_at: env.now + PAUSE };
            }
        }
    }

    /// A third of the lease: two renewals may be lost.
    fn renewal_period(&self) -> Duration {
        Duration(Duration::secs(self.ttl_s).0 / 3)
    }

    fn pause(&mut self, env: &mut Env<'_>) {
        let jitter = Duration(env.rng.below(PAUSE.0 / 4));
        self.state = State::Pausing { until: env.now + PAUSE + jitter };
    }
}

fn request(env: &mut Env<'_>, id: MetaId, request: Request) {
    env.out.push(Effect::Meta(MetaOp::Request { id, request }));
}

fn log(env: &mut Env<'_>, level: Level, text: String) {
    env.out.push(Effect::Observe(Event::Log(level, text)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::BufPool;
    use crate::id::{Incarnation, StoreUuid};
    use crate::io::Effects;
    use crate::rng::Rng;

    fn state(store: u128) -> OsdState {
        OsdState {
            address: "127.0.0.1:1".into(),
            store: StoreUuid(store),
            incarnation: Incarnation(store as u64),
            host: "a".into(),
            size_bytes: 1,
            trusted: true,
            immediate_commit: Default::default(),
        }
    }

    struct World {
        rng: Rng,
        bufs: BufPool,
        out: Effects,
        now: Time,
        next: u64,
        session: Session,
    }

    impl World {
        fn new() -> Self {
            let session = Session::new("/ashlar/osd/state/1".into(), state(7), 9);
            let (rng, bufs, out) = (Rng::new(1), BufPool::new(), Effects::default());
            World { rng, bufs, out, now: Time(0), next: 0, session }
        }

        fn step(&mut self, f: impl FnOnce(&mut Session, &mut Env<'_>, &mut dyn FnMut() -> MetaId)) -> Vec<Request> {
            let World { rng, bufs, out, now, next, session } = self;
            let mut ids = || {
                *next += 1;
                MetaId(*next)
            };
            f(session, &mut Env { now: *now, rng, bufs, out }, &mut ids);
            let request = |effect| match effect {
                Effect::Meta(MetaOp::Request { request, .. }) => Some(request),
                _ => None,
            };
            self.out.queue.drain(..).filter_map(request).collect()
        }

        fn answer(&mut self, result: Result<Response, MetaError>) -> Vec<Request> {
            let id = MetaId(self.next);
            self.step(|session, env, ids| assert!(session.handle(env, id, &result, ids)))
        }

        fn tick(&mut self) -> Vec<Request> {
            self.now = self.session.next_deadline().expect("a deadline");
            self.step(|session, env, ids| session.tick(env, ids))
        }
    }

    fn txn(succeeded: bool, results: Vec<TxnResult>) -> Result<Response, MetaError> {
        Ok(Response::Txn { revision: 5, succeeded, results })
    }

    fn held() -> World {
        let mut world = World::new();
        world.step(|session, env, ids| session.start(env, ids()));
        world.answer(Ok(Response::LeaseGranted { lease: 3, ttl: 9 }));
        world.answer(txn(true, vec![TxnResult::Put]));
        world
    }

    #[test]
    fn registers_renews_and_registers_again_when_the_lease_is_gone() {
        let mut world = held();
        assert_eq!(world.session.lease(), Some(3));
        assert_eq!(world.tick(), vec![Request::LeaseKeepAlive { lease: 3 }]);
        assert_eq!(world.now, Time(0) + Duration::secs(3));
        world.answer(Err(MetaError::Unknown));
        assert_eq!(world.session.lease(), Some(3), "an unanswered renewal is not the end");
        world.tick();
        world.answer(Ok(Response::LeaseKept { lease: 3, ttl: 0 }));
        assert_eq!(world.session.lease(), None);
        assert_eq!(world.tick(), vec![Request::LeaseGrant { ttl: 9 }]);
    }

    fn taken_by(other: OsdState) -> Vec<Compare> {
        let mut world = World::new();
        world.step(|session, env, ids| session.start(env, ids()));
        world.answer(Ok(Response::LeaseGranted { lease: 3, ttl: 9 }));
        let value = serde_json::to_vec(&other).unwrap();
        let key = "/ashlar/osd/state/1".to_string();
        let kv = KeyValue { key, value, create_revision: 4, mod_revision: 4, version: 1, lease: 2 };
        world.answer(txn(false, vec![TxnResult::Range(vec![kv])]));
        world.tick();
        let requests = world.answer(Ok(Response::LeaseGranted { lease: 4, ttl: 9 }));
        let [Request::Txn(txn)] = &requests[..] else { panic!("{requests:?}") };
        txn.compare.clone()
    }

    #[test]
    fn takes_over_its_own_stores_key_only() {
        let key = || "/ashlar/osd/state/1".to_string();
        assert_eq!(taken_by(state(7)), vec![Compare::ModRevision(key(), 4)]);
        assert_eq!(taken_by(state(8)), vec![Compare::ModRevision(key(), 0)]);
    }
}
