//! What an OSD says in the metadata store: failure reports, states of its groups, wishes, statistics.
//!
//! Owns the wanted value of each key and brings the store to it: one transaction at a time, of up to
//! [`TXN_OPS`] changes, so that a burst of changes costs few transactions; tried again until it succeeds. Keys may be
//! leased: they vanish with the OSD's session and are put again in the next one.
//! Does not own the session, nor what the values mean.
//!
//! Invariant: transactions take effect in the order in which they were sent, if at all. Each names the revision of a
//! *guard* key and writes it anew, so one whose reply was lost and which arrives late, after a later one, fails: else a
//! wish that was withdrawn would come back for good.
//!
//! The guard names the process that wrote it last. One that starts finds its predecessor's: its first transaction fails, and
//! reads what that one had published under one key, to go on from there, before anything of its own takes effect.

use crate::io::{Effect, Env, MetaError, MetaId, MetaOp};
use crate::limits::TXN_OPS;
use crate::meta::{Compare, KeyValue, Keys, Request, Response, Txn, TxnOp, TxnResult};
use crate::time::{Duration, Time};
use std::collections::{BTreeMap, BTreeSet};

/// Pause after a failure. Most often the member of the metadata store died that was asked, and another one answers: a failure
/// report must not wait for longer, as all clients of its groups do.
const PAUSE_MIN: Duration = Duration::millis(50);
/// Pauses double up to this one: the metadata store may be away for minutes, which stops no I/O.
const PAUSE_MAX: Duration = Duration::millis(800);

#[derive(Clone, Debug)]
struct Value {
    bytes: Vec<u8>,
    leased: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Publisher {
    guard: String,
    /// What this process writes into the guard.
    owner: Vec<u8>,
    /// The key that is read at the first failure, until it was.
    inherits: Option<String>,
    inheritance: Option<Vec<u8>>,
    /// Revision of the guard, as far as known; 0: it does not exist.
    guard_revision: u64,
    wanted: BTreeMap<String, Value>,
    dirty: BTreeSet<String>,
    /// The transaction under way: its keys, and whether each is deleted.
    in_flight: Option<(MetaId, Vec<(String, bool)>)>,
    lease: Option<u64>,
    /// After the next failure.
    pause: Duration,
    paused_until: Time,
}

impl Publisher {
    /// Nothing is said yet. `guard` names a key that nobody else writes but processes with another `owner`, earlier;
    /// `inherits` one of which [`Publisher::take_inheritance`] tells what they left there.
    pub fn new(guard: String, owner: String, inherits: String) -> Self {
        Publisher {
            guard,
            owner: owner.into_bytes(),
            inherits: Some(inherits),
            inheritance: None,
            guard_revision: 0,
            wanted: BTreeMap::new(),
            dirty: BTreeSet::new(),
            in_flight: None,
            lease: None,
            pause: PAUSE_MIN,
            paused_until: Time(0),
        }
    }

    /// Sets a key; nothing happens if it has this value already.
    pub fn set(&mut self, key: String, bytes: Vec<u8>, leased: bool) {
        if self.wanted.get(&key).is_some_and(|value| value.bytes == bytes && value.leased == leased) {
            return;
        }
        self.wanted.insert(key.clone(), Value { bytes, leased });
        self.dirty.insert(key);
    }

    /// Deletes a key that was set.
    pub fn remove(&mut self, key: &str) {
        if self.wanted.remove(key).is_some() {
            self.dirty.insert(key.to_string());
        }
    }

    /// Leaves a key to whoever writes it next; what this OSD wrote there may stay.
    pub fn forget(&mut self, key: &str) {
        self.wanted.remove(key);
        self.dirty.remove(key);
    }

    /// Keys set at present that begin with `prefix`.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        self.wanted.keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }

    /// The session has another lease, or none: leased keys have to be put again.
    pub fn set_lease(&mut self, lease: Option<u64>) {
        if self.lease == lease {
            return;
        }
        self.lease = lease;
        let leased = self.wanted.iter().filter(|(_, value)| value.leased);
        self.dirty.extend(leased.map(|(key, _)| key.clone()));
    }

    /// Sends what is to be changed, unless a transaction is under way.
    pub fn pump(&mut self, env: &mut Env<'_>, next_id: &mut dyn FnMut() -> MetaId) {
        if self.in_flight.is_some() || self.dirty.is_empty() || self.paused_until > env.now {
            return;
        }
        let keys: Vec<String> = self.ready().take(TXN_OPS - 1).cloned().collect();
        if keys.is_empty() {
            return;
        }
        let mut success: Vec<TxnOp> = keys.iter().map(|key| self.change(key)).collect();
        success.push(TxnOp::Put { key: self.guard.clone(), value: self.owner.clone(), lease: 0 });
        let compare = vec![Compare::ModRevision(self.guard.clone(), self.guard_revision)];
        let read = [Some(&self.guard), self.inherits.as_ref()];
        let failure = read.into_iter().flatten().map(|key| TxnOp::Range(Keys::One(key.clone()))).collect();
        for key in &keys {
            self.dirty.remove(key);
        }
        let id = next_id();
        let request = Request::Txn(Txn { compare, success, failure });
        env.out.push(Effect::Meta(MetaOp::Request { id, request }));
        let keys = keys.into_iter().map(|key| (self.wanted.contains_key(&key), key));
        self.in_flight = Some((id, keys.map(|(put, key)| (key, !put)).collect()));
    }

    /// Takes a response; false if it is not the publisher's.
    pub fn handle(&mut self, env: &mut Env<'_>, id: MetaId, result: &Result<Response, MetaError>) -> bool {
        let Some((_, keys)) = self.in_flight.take_if(|(expected, _)| *expected == id) else {
            return false;
        };
        if result.is_ok() {
            self.pause = PAUSE_MIN;
        }
        match result {
            Ok(Response::Txn { succeeded: true, revision, .. }) => {
                self.guard_revision = *revision;
                self.inherits = None;
            }
            Ok(response) => {
                let guard = read_in(response, 0);
                self.guard_revision = guard.map_or(0, |kv| kv.mod_revision);
                // A guard of our own says that what is there is ours, by a transaction of which the reply was lost.
                let is_first = self.inherits.take().is_some();
                if is_first && guard.is_some_and(|kv| kv.value != self.owner) {
                    self.inheritance = read_in(response, 1).map(|kv| kv.value.clone());
                }
                self.again(keys);
            }
            Err(_) => {
                self.again(keys);
                self.paused_until = env.now + self.pause;
                self.pause = Duration(self.pause.0 * 2).min(PAUSE_MAX);
            }
        }
        true
    }

    /// What processes before this one published under the key that was named; said once.
    pub fn take_inheritance(&mut self) -> Option<Vec<u8>> {
        self.inheritance.take()
    }

    /// What was not (surely) done has to be sent again, unless somebody else's word counts there now.
    fn again(&mut self, keys: Vec<(String, bool)>) {
        let wanted = &self.wanted;
        let matters = |(key, deleted): &(String, bool)| *deleted || wanted.contains_key(key);
        self.dirty.extend(keys.into_iter().filter(matters).map(|(key, _)| key));
    }

    /// What can be sent: leased keys need a lease.
    fn ready(&self) -> impl Iterator<Item = &String> {
        let leased = |key: &str| self.wanted.get(key).is_some_and(|value| value.leased);
        self.dirty.iter().filter(move |key| self.lease.is_some() || !leased(key))
    }

    /// When `pump` is due again. (A new lease makes it due at once: `set_lease` comes before it.)
    pub fn next_deadline(&self) -> Option<Time> {
        let waits = self.in_flight.is_none() && self.paused_until > Time(0) && self.ready().next().is_some();
        waits.then_some(self.paused_until)
    }

    fn change(&self, key: &str) -> TxnOp {
        match self.wanted.get(key) {
            None => TxnOp::Delete(Keys::One(key.to_string())),
            Some(Value { bytes, leased }) => {
                let lease = if *leased { self.lease.expect("leased keys wait for a lease") } else { 0 };
                TxnOp::Put { key: key.to_string(), value: bytes.clone(), lease }
            }
        }
    }
}

/// A key as a failed transaction read it.
fn read_in(response: &Response, place: usize) -> Option<&KeyValue> {
    let Response::Txn { results, .. } = response else { return None };
    match results.get(place) {
        Some(TxnResult::Range(kvs)) => kvs.first(),
        _ => None,
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
        next: u64,
        publisher: Publisher,
        compared: Vec<Compare>,
    }

    impl World {
        fn new() -> Self {
            let (rng, bufs, out) = (Rng::new(1), BufPool::new(), Effects::default());
            World {
                rng,
                bufs,
                out,
                now: Time(0),
                next: 0,
                publisher: Publisher::new("guard".into(), "me".into(), "sums".into()),
                compared: Vec::new(),
            }
        }

        fn pump(&mut self) -> Vec<TxnOp> {
            let World { rng, bufs, out, now, next, publisher, .. } = self;
            let mut ids = || {
                *next += 1;
                MetaId(*next)
            };
            publisher.pump(&mut Env { now: *now, rng, bufs, out }, &mut ids);
            match self.out.queue.pop() {
                Some(Effect::Meta(MetaOp::Request { request: Request::Txn(mut txn), .. })) => {
                    self.compared = txn.compare;
                    assert!(matches!(txn.success.pop(), Some(TxnOp::Put { key, .. }) if key == "guard"));
                    txn.success
                }
                None => Vec::new(),
                other => panic!("unexpected {other:?}"),
            }
        }

        fn answer(&mut self, result: Result<Response, MetaError>) {
            let World { rng, bufs, out, now, next, publisher, .. } = self;
            assert!(publisher.handle(&mut Env { now: *now, rng, bufs, out }, MetaId(*next), &result));
        }
    }

    fn done() -> Result<Response, MetaError> {
        Ok(Response::Txn { revision: 1, succeeded: true, results: Vec::new() })
    }

    fn put(key: &str, value: &[u8], lease: u64) -> TxnOp {
        TxnOp::Put { key: key.into(), value: value.to_vec(), lease }
    }

    #[test]
    fn batches_retries_and_deletes() {
        let mut world = World::new();
        world.publisher.set("a".into(), b"1".to_vec(), false);
        world.publisher.set("b".into(), b"2".to_vec(), false);
        assert_eq!(world.pump(), vec![put("a", b"1", 0), put("b", b"2", 0)]);
        world.publisher.remove("b");
        assert_eq!(world.pump(), vec![], "one transaction at a time");
        world.answer(Err(MetaError::Unknown));
        assert_eq!(world.pump(), vec![], "pausing");
        world.now = world.publisher.next_deadline().expect("a pause");
        assert_eq!(world.pump(), vec![put("a", b"1", 0), TxnOp::Delete(Keys::One("b".into()))]);
        world.answer(done());
        world.publisher.set("a".into(), b"1".to_vec(), false);
        assert_eq!(world.pump(), vec![], "nothing changed");
        assert_eq!(world.publisher.next_deadline(), None);
    }

    #[test]
    fn pauses_are_short_at_first_and_after_each_answer() {
        let mut world = World::new();
        world.publisher.set("a".into(), b"1".to_vec(), false);
        let fail = |world: &mut World| {
            assert_eq!(world.pump().len(), 1);
            world.answer(Err(MetaError::Unknown));
            let until = world.publisher.next_deadline().expect("a pause");
            let pause = until.since(world.now);
            world.now = until;
            pause.as_millis()
        };
        let pauses: Vec<u64> = (0..6).map(|_| fail(&mut world)).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 800]);
        world.pump();
        world.answer(done());
        world.publisher.set("a".into(), b"2".to_vec(), false);
        assert_eq!(fail(&mut world), 50);
    }

    #[test]
    fn a_transaction_that_arrives_late_fails_its_comparison() {
        let mut world = World::new();
        let guard = |revision| vec![Compare::ModRevision("guard".into(), revision)];
        world.publisher.set("a".into(), b"1".to_vec(), false);
        world.pump();
        assert_eq!(world.compared, guard(0));
        world.answer(done());
        world.publisher.remove("a");
        world.pump();
        assert_eq!(world.compared, guard(1), "the one that was lost");
        world.answer(Err(MetaError::Unknown));
        world.now = world.now + PAUSE_MIN;
        assert_eq!(world.pump(), vec![TxnOp::Delete(Keys::One("a".into()))]);
        let kv = KeyValue {
            key: "guard".into(),
            value: Vec::new(),
            create_revision: 1,
            mod_revision: 7,
            version: 2,
            lease: 0,
        };
        let results = vec![TxnResult::Range(vec![kv])];
        world.answer(Ok(Response::Txn { revision: 8, succeeded: false, results }));
        assert_eq!(world.pump().len(), 1, "at once, with what was learned");
        assert_eq!(world.compared, guard(7));
    }

    fn failed(guard: &[u8], sums: &[u8]) -> Result<Response, MetaError> {
        let kv = |key: &str, value: &[u8]| {
            let (key, value) = (key.to_string(), value.to_vec());
            TxnResult::Range(vec![KeyValue { key, value, create_revision: 1, mod_revision: 7, version: 2, lease: 0 }])
        };
        Ok(Response::Txn { revision: 8, succeeded: false, results: vec![kv("guard", guard), kv("sums", sums)] })
    }

    #[test]
    fn what_a_predecessor_left_is_told_once_and_before_anything_of_ours_counts() {
        let mut world = World::new();
        world.publisher.set("sums".into(), b"1".to_vec(), false);
        world.pump();
        world.answer(failed(b"another", b"9"));
        assert_eq!(world.publisher.take_inheritance(), Some(b"9".to_vec()));
        world.publisher.set("sums".into(), b"10".to_vec(), false);
        assert_eq!(world.pump(), vec![put("sums", b"10", 0)]);
        world.answer(failed(b"another", b"10"));
        assert_eq!(world.publisher.take_inheritance(), None);
    }

    #[test]
    fn what_is_our_own_is_not_inherited() {
        for first in [Err(MetaError::Unknown), done()] {
            let mut world = World::new();
            world.publisher.set("sums".into(), b"1".to_vec(), false);
            world.pump();
            world.answer(first);
            world.now = world.now + PAUSE_MIN;
            world.publisher.set("sums".into(), b"2".to_vec(), false);
            world.pump();
            world.answer(failed(b"me", b"1"));
            assert_eq!(world.publisher.take_inheritance(), None);
        }
    }

    #[test]
    fn a_forgotten_key_is_not_deleted_by_a_retry() {
        let mut world = World::new();
        world.publisher.set("a".into(), b"1".to_vec(), false);
        assert_eq!(world.pump().len(), 1);
        world.publisher.forget("a");
        world.answer(Err(MetaError::Unknown));
        world.now = world.now + PAUSE_MIN;
        assert_eq!(world.pump(), vec![]);
    }

    #[test]
    fn leased_keys_wait_for_a_lease_and_come_back_in_the_next() {
        let mut world = World::new();
        world.publisher.set("a".into(), b"1".to_vec(), true);
        assert_eq!(world.pump(), vec![]);
        world.publisher.set_lease(Some(5));
        assert_eq!(world.pump(), vec![put("a", b"1", 5)]);
        world.answer(done());
        world.publisher.set_lease(None);
        world.publisher.set_lease(Some(6));
        assert_eq!(world.pump(), vec![put("a", b"1", 6)]);
    }

    #[test]
    fn without_a_lease_no_deadline_stays_in_the_past() {
        let mut world = World::new();
        world.publisher.set("a".into(), b"1".to_vec(), true);
        world.publisher.set_lease(Some(7));
        world.pump();
        world.answer(Err(MetaError::Unknown));
        world.publisher.set_lease(None);
        assert_eq!(world.publisher.next_deadline(), None);
        world.publisher.set_lease(Some(8));
        assert!(world.publisher.next_deadline().is_some());
    }
}
