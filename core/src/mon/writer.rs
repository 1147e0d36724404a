//! Carries out the leader's writes, a transaction at a time.
//!
//! Owns the transaction under way and the wait until the map shows its result.
//!
//! ```text
//!         send                success                the map shows it
//!  Idle --------> Writing -----------------> Showing -----------------> Idle
//!   ^                | failed, or unknown
//!   |  full read     v
//!   +------------ Stale
//! ```
//! Invariants: each transaction compares the leadership and the revision of each key that it changes; no plan is made
//! from a map that may lack what was written: after a failure or an unknown outcome everything is read anew, and a
//! transaction that happens later than that fails by its compares or was right.

use super::plan::Write;
use crate::io::{Effect, Env, MetaError, MetaId, MetaOp};
use crate::limits::TXN_OPS;
use crate::map::ClusterMap;
use crate::map::parse::Key;
use crate::meta::{Compare, Keys, Request, Response, Txn, TxnOp};
use crate::time::{Duration, Time};

/// Bytes of the values of one transaction: two thirds of what etcd takes by default.
const TXN_BYTES: usize = 1 << 20;
/// Pause after a failure, so that a store that refuses is not flooded; a lost race is mended as fast as one notices.
const PAUSE: Duration = Duration::millis(100);

#[derive(Clone, Debug)]
enum State {
    Idle,
    Writing { id: MetaId, keys: Vec<(Key, bool)> },
    Showing { revision: u64, keys: Vec<(Key, bool)> },
    Stale { not_before: Time },
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// It happened.
    Done,
    /// It did not happen, or nobody knows: read everything again. With a reason, if the store refused it.
    Failed(Option<String>),
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Writer {
    state: State,
}

impl Default for Writer {
    fn default() -> Self {
        Writer { state: State::Idle }
    }
}

impl Writer {
    /// Whether a plan may be made and sent. Call it only while the map is being followed.
    pub fn is_ready(&mut self, now: Time, map: &ClusterMap) -> bool {
        if let State::Showing { revision, keys } = &self.state
            && keys.iter().all(|(key, deleted)| shows(map, *key, *deleted, *revision))
        {
            self.state = State::Idle;
        }
        if let State::Stale { not_before } = self.state
            && not_before <= now
        {
            self.state = State::Idle;
        }
        self.is_idle()
    }

    /// Whether nothing is under way or waited for.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Sends as many writes as fit into a transaction.
    pub fn send(&mut self, env: &mut Env<'_>, id: MetaId, guard: Compare, writes: Vec<Write>) {
        let mut compare = vec![guard];
        let (mut success, mut keys, mut bytes) = (Vec::new(), Vec::new(), 0);
        for write in writes {
            bytes += write.value.as_ref().map_or(0, Vec::len);
            let full = compare.len() + usize::from(write.unless.is_some()) >= TXN_OPS
                || success.len() + write.also.len() >= TXN_OPS
                || (bytes > TXN_BYTES && !success.is_empty());
            if full {
                break;
            }
            keys.push((write.key, write.value.is_none()));
            compare.extend(write.unless.map(|name| Compare::ModRevision(name, 0)));
            compare.push(Compare::ModRevision(write.name.clone(), write.revision));
            success.push(match write.value {
                Some(value) => TxnOp::Put { key: write.name, value, lease: 0 },
                None => TxnOp::Delete(Keys::One(write.name)),
            });
            success.extend(write.also.into_iter().map(TxnOp::Delete));
        }
        let request = Request::Txn(Txn { compare, success, failure: Vec::new() });
        env.out.push(Effect::Meta(MetaOp::Request { id, request }));
        self.state = State::Writing { id, keys };
    }

    /// Takes a response; `None` if it is not ours.
    pub fn handle(&mut self, now: Time, id: MetaId, result: &Result<Response, MetaError>) -> Option<Written> {
        let State::Writing { id: expected, keys } = &mut self.state else { return None };
        if *expected != id {
            return None;
        }
        let keys = std::mem::take(keys);
        let (state, written) = match result {
            Ok(Response::Txn { succeeded: true, revision, .. }) => {
                (State::Showing { revision: *revision, keys }, Written::Done)
            }
            Err(MetaError::Refused(reason)) => {
                (State::Stale { not_before: now + PAUSE }, Written::Failed(Some(reason.clone())))
            }
            _ => (State::Stale { not_before: now + PAUSE }, Written::Failed(None)),
        };
        self.state = state;
        Some(written)
    }

    /// Everything was read at this revision.
    pub fn read_anew(&mut self, revision: u64) {
        if let State::Showing { revision: written, .. } = self.state
            && revision >= written
        {
            self.state = State::Idle;
        }
    }

    /// When `is_ready` may change by time alone.
    pub fn next_deadline(&self) -> Option<Time> {
        match self.state {
            State::Stale { not_before } => Some(not_before),
            _ => None,
        }
    }
}

fn shows(map: &ClusterMap, key: Key, deleted: bool, revision: u64) -> bool {
    let present = map.mod_revision(key);
    // A key that we put may have been deleted since. Taking it for that too early costs a failed compare only.
    present >= revision || (present == 0 && (deleted || map.newest_revision().0 > revision))
}
