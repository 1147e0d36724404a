//! Which monitor leads: the one whose lease holds the key `mon/leader`.
//!
//! Owns the lease and the candidacy. Does not own the watch of the key: its owner says when the key is seen gone.
//!
//! ```text
//!        grant            put if absent          keep-alive, every ttl/3
//!  Idle --------> Granting ----------> Asking ----+-----------> Leading --+
//!   ^                | failed           | refused |  ^   ^        | ^-----+
//!   |                v                  v         v  |   |        | key seen gone
//!   +------------- Pausing <------------+    Waiting    +--------+  (asks again)
//!                                            (another leads; asks again when its key is gone, and with each renewal;
//!                                             or nobody answered: asks again soon)
//! ```
//! A lease is not given up because an answer is missing: the key may be ours by then, and would keep everybody else, and
//! ourselves with another lease, from leading.
//!
//! Invariants: [`Leadership::guard`] is what every transaction of the leader compares, so whoever lost the key without
//! knowing it changes nothing; only a key that carries our own incarnation counts as ours.

use crate::id::Incarnation;
use crate::io::{Effect, Env, MetaError, MetaId, MetaOp};
use crate::map::{Leader, keys};
use crate::meta::{Compare, KeyValue, Keys, Request, Response, Txn, TxnOp, TxnResult};
use crate::time::{Duration, Time};

/// Pause after a failure: short beside the lease that a successor must wait for anyway.
const PAUSE: Duration = Duration::millis(300);
/// Pause before asking again who leads, when there was no answer: a metadata store that chooses a leader has one soon, and
/// OSDs may have died with the last.
const ASK_PAUSE: Duration = Duration::millis(50);

/// The candidacy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Candidacy {
    /// `again`: something happened that the answer may not know of.
    Asking {
        id: MetaId,
        again: bool,
    },
    /// `again_at`: nobody answered.
    Waiting {
        again_at: Option<Time>,
    },
    Leading {
        create_revision: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Granting(MetaId),
    Held { lease: u64, renewal: Option<MetaId>, renew_at: Time, candidacy: Candidacy },
    Pausing { until: Time },
    Ending(MetaId),
    Ended,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Leadership {
    value: Leader,
    ttl_s: u64,
    state: State,
}

impl Leadership {
    /// A candidate that does nothing until started.
    pub fn new(value: Leader, ttl_s: u64) -> Self {
        Leadership { value, ttl_s, state: State::Idle }
    }

    /// The condition that all transactions of the leader carry; `None`: we do not lead.
    pub fn guard(&self) -> Option<Compare> {
        match self.state {
            State::Held { candidacy: Candidacy::Leading { create_revision }, .. } => {
                Some(Compare::CreateRevision(keys::leader(), create_revision))
            }
            _ => None,
        }
    }

    /// Whether it waits to hear who leads: it may still be ourselves.
    pub fn is_asking(&self) -> bool {
        let State::Held { candidacy, .. } = self.state else { return false };
        matches!(candidacy, Candidacy::Asking { .. } | Candidacy::Waiting { again_at: Some(_) })
    }

    /// Our own start.
    pub fn incarnation(&self) -> Incarnation {
        self.value.incarnation
    }

    /// Begins (again) with a new lease.
    pub fn start(&mut self, env: &mut Env<'_>, id: MetaId) {
        self.state = State::Granting(id);
        request(env, id, Request::LeaseGrant { ttl: self.ttl_s });
    }

    /// Ends it on purpose: another monitor can lead at once.
    pub fn end(&mut self, env: &mut Env<'_>, id: MetaId) {
        self.state = match self.lease() {
            Some(lease) => {
                request(env, id, Request::LeaseRevoke { lease });
                State::Ending(id)
            }
            None => State::Ended,
        };
    }

    /// Whether it has ended, and the metadata store knows or cannot be told.
    pub fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// The leader's key is gone, or not what we think, or a transaction failed that compared it: ask who leads.
    pub fn ask(&mut self, env: &mut Env<'_>, next_id: &mut dyn FnMut() -> MetaId) {
        let State::Held { lease, candidacy, .. } = &mut self.state else { return };
        if let Candidacy::Asking { again, .. } = candidacy {
            *again = true;
            return;
        }
        let id = next_id();
        *candidacy = Candidacy::Asking { id, again: false };
        let request = candidacy_of(&self.value, *lease);
        env.out.push(Effect::Meta(MetaOp::Request { id, request }));
    }

    /// Time passed.
    pub fn tick(&mut self, env: &mut Env<'_>, next_id: &mut dyn FnMut() -> MetaId) {
        match &mut self.state {
            State::Pausing { until } if *until <= env.now => self.start(env, next_id()),
            State::Held { lease, renewal, renew_at, candidacy } => {
                let renews = renewal.is_none() && *renew_at <= env.now;
                if renews {
                    let id = next_id();
                    *renewal = Some(id);
                    request(env, id, Request::LeaseKeepAlive { lease: *lease });
                }
                if let Candidacy::Waiting { again_at } = *candidacy
                    && (renews || again_at.is_some_and(|at| at <= env.now))
                {
                    self.ask(env, next_id);
                }
            }
            _ => {}
        }
    }

    /// When `tick` is due.
    pub fn next_deadline(&self) -> Option<Time> {
        match self.state {
            State::Pausing { until } => Some(until),
            State::Held { renewal, renew_at, candidacy, .. } => {
                let renewal = renewal.is_none().then_some(renew_at);
                let again = if let Candidacy::Waiting { again_at } = candidacy { again_at } else { None };
                renewal.into_iter().chain(again).min()
            }
            _ => None,
        }
    }

    /// Takes a response; false if it is not ours.
    pub fn handle(
        &mut self,
        env: &mut Env<'_>,
        id: MetaId,
        result: &Result<Response, MetaError>,
        next_id: &mut dyn FnMut() -> MetaId,
    ) -> bool {
        match self.state {
            State::Granting(expected) if expected == id => self.granted(env, result, next_id),
            State::Held { candidacy: Candidacy::Asking { id: expected, again }, .. } if expected == id => {
                self.answered(env, result);
                if again {
                    self.ask(env, next_id);
                }
            }
            State::Held { renewal: Some(expected), .. } if expected == id => self.renewed(env, result),
            State::Ending(expected) if expected == id => self.state = State::Ended,
            _ => return false,
        }
        true
    }

    fn granted(
        &mut self,
        env: &mut Env<'_>,
        result: &Result<Response, MetaError>,
        next_id: &mut dyn FnMut() -> MetaId,
    ) {
        let Ok(Response::LeaseGranted { lease, .. }) = *result else { return self.pause(env) };
        let renew_at = env.now + self.renewal_period();
        self.state = State::Held { lease, renewal: None, renew_at, candidacy: Candidacy::Waiting { again_at: None } };
        self.ask(env, next_id);
    }

    fn answered(&mut self, env: &mut Env<'_>, result: &Result<Response, MetaError>) {
        let decided = match result {
            Ok(Response::Txn { revision, succeeded: true, .. }) => Candidacy::Leading { create_revision: *revision },
            Ok(Response::Txn { results, .. }) => self.present_holder(results),
            Err(MetaError::Unknown | MetaError::Unavailable) => {
                Candidacy::Waiting { again_at: Some(env.now + ASK_PAUSE) }
            }
            Ok(_) | Err(MetaError::Refused(_)) => return self.pause(env),
        };
        if let State::Held { candidacy, .. } = &mut self.state {
            *candidacy = decided;
        }
    }

    /// Somebody holds the key; it may be ourselves, by a transaction whose answer was lost.
    fn present_holder(&self, results: &[TxnResult]) -> Candidacy {
        let waiting = Candidacy::Waiting { again_at: None };
        let Some(TxnResult::Range(kvs)) = results.first() else { return waiting };
        let ours = |kv: &&KeyValue| {
            let holder = serde_json::from_slice::<Leader>(&kv.value);
            holder.is_ok_and(|holder| holder.incarnation == self.value.incarnation) && self.lease() == Some(kv.lease)
        };
        match kvs.iter().find(ours) {
            Some(kv) => Candidacy::Leading { create_revision: kv.create_revision },
            None => waiting,
        }
    }

    fn renewed(&mut self, env: &mut Env<'_>, result: &Result<Response, MetaError>) {
        let period = self.renewal_period();
        let State::Held { renewal, renew_at, .. } = &mut self.state else { return };
        *renewal = None;
        match result {
            Ok(Response::LeaseKept { ttl, .. }) if *ttl > 0 => *renew_at = env.now + period,
            Err(MetaError::Unknown | MetaError::Unavailable) => *renew_at = env.now + PAUSE,
            Ok(_) | Err(MetaError::Refused(_)) => self.pause(env),
        }
    }

    fn lease(&self) -> Option<u64> {
        match self.state {
            State::Held { lease, .. } => Some(lease),
            _ => None,
        }
    }

    /// A third of the lease: two renewals may be lost.
    fn renewal_period(&self) -> Duration {
        Duration(Duration::secs(self.ttl_s).0 / 3)
    }

    /// Gives the lease up (it ends by itself) and begins anew later.
    fn pause(&mut self, env: &mut Env<'_>) {
        let jitter = Duration(env.rng.below(PAUSE.0));
        self.state = State::Pausing { until: env.now + PAUSE + jitter };
    }
}

fn candidacy_of(value: &Leader, lease: u64) -> Request {
    let key = keys::leader();
    let compare = vec![Compare::CreateRevision(key.clone(), 0)];
    let bytes = serde_json::to_vec(value).expect("plain data has a JSON form");
    let success = vec![TxnOp::Put { key: key.clone(), value: bytes, lease }];
    Request::Txn(Txn { compare, success, failure: vec![TxnOp::Range(Keys::One(key))] })
}

fn request(env: &mut Env<'_>, id: MetaId, request: Request) {
    env.out.push(Effect::Meta(MetaOp::Request { id, request }));
}
