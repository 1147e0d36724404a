//! The metadata store as a state machine.
//!
//! Owns the revision, transactions on the history, leases' ends and the journal of what a disk must know. Does not own
//! time or durability: whoever drives it gives the time, and acknowledges only what it has kept.
//!
//! Invariants: a transaction happens wholly or not at all; every change has a revision, one per transaction, without
//! gaps; a key that names a lease is attached to it, and the lease is there.

use super::history::{Change, ChangeKind, History, Retention};
use super::lease::{LeaseStatus, Leases};
use super::span::Span;
use super::transaction::{Condition, Operation, Outcome, Transacted, Transaction, has_key};
use super::{KeyValue, Keys, Request, Response, TxnResult};
use crate::time::{Duration, Time};
use std::fmt;
use std::sync::Arc;

/// Why the store refuses a request; it has changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// An operation names no key.
    EmptyKey,
    /// More operations than [`crate::limits::TXN_OPS`].
    TooManyOperations,
    /// More bytes than [`super::TRANSACTION_MAX_BYTES`].
    TooLarge,
    /// A key is put twice, or put and deleted.
    DuplicateKey,
    /// A put that keeps the value or lease of a key that is not there.
    KeyNotFound,
    /// There is no such lease, or no longer.
    LeaseNotFound,
    /// A lease of the wanted id is there already.
    LeaseExists,
    /// Above [`super::LEASE_MAX_TTL_S`].
    LeaseTtlTooLarge,
    /// The revision is below the last compaction.
    Compacted,
    /// The revision has not been reached yet.
    FutureRevision,
}

impl fmt::Display for Refused {
    /// The texts of etcd's API, by which its clients know these refusals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::EmptyKey => "etcdserver: key is not provided",
            Refused::TooManyOperations => "etcdserver: too many operations in txn request",
            Refused::TooLarge => "etcdserver: request is too large",
            Refused::DuplicateKey => "etcdserver: duplicate key given in txn request",
            Refused::KeyNotFound => "etcdserver: key not found",
            Refused::LeaseNotFound => "etcdserver: requested lease not found",
            Refused::LeaseExists => "etcdserver: lease already exists",
            Refused::LeaseTtlTooLarge => "etcdserver: too large lease TTL",
            Refused::Compacted => "etcdserver: mvcc: required revision has been compacted",
            Refused::FutureRevision => "etcdserver: mvcc: required revision is a future revision",
        })
    }
}

/// One thing that a disk must know. Rows of keys are named by revision and index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A key was set, at its `mod_revision`.
    Put {
        /// Place within the revision.
        index: u32,
        /// The key.
        kv: Arc<KeyValue>,
    },
    /// A key was deleted.
    Delete {
        /// When.
        revision: u64,
        /// Place within the revision.
        index: u32,
        /// The key.
        key: Arc<str>,
    },
    /// The row of an earlier `Put` or `Delete` is not needed any more.
    Forget {
        /// Its revision.
        revision: u64,
        /// Its index.
        index: u32,
    },
    /// History before this revision is gone.
    Compacted(u64),
    /// A lease was granted.
    Lease {
        /// Its id.
        lease: u64,
        /// Seconds to live.
        ttl: u64,
        /// The last id that the store chose by itself.
        last_chosen: u64,
    },
    /// A lease has ended.
    LeaseEnded(u64),
}

/// What was kept of a store, to make it again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// The `Put` and `Delete` records that were not forgotten, in order of revision and index.
    pub rows: Vec<Record>,
    /// The last compaction.
    pub compacted: u64,
    /// Leases and their seconds to live.
    pub leases: Vec<(u64, u64)>,
    /// The last id of a lease that the store chose.
    pub last_chosen_lease: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Store {
    revision: u64,
    history: History,
    leases: Leases,
    retention: Retention,
    /// What happened since it was last taken, if somebody keeps it.
    journal: Option<Vec<Record>>,
}

impl Store {
    /// An empty store, at revision 1 as etcd's, that nobody keeps.
    pub fn new(retention: Retention) -> Store {
        Store { revision: 1, history: History::default(), leases: Leases::new(0), retention, journal: None }
    }

    /// A store as it was saved, with a journal. Leases have their full time again.
    ///
    /// Fails if the rows contradict each other.
    pub fn restore(now: Time, retention: Retention, saved: Saved) -> Result<Store, String> {
        let mut store = Store::new(retention);
        store.leases = Leases::new(saved.last_chosen_lease);
        for (lease, ttl) in saved.leases {
            store.leases.insert(now, lease, ttl);
        }
        store.revision = saved.compacted.max(1);
        for row in saved.rows {
            store.restore_row(row, saved.compacted)?;
        }
        store.history.compact(saved.compacted, |_| ());
        store.attach_all()?;
        store.journal = Some(Vec::new());
        Ok(store)
    }

    fn restore_row(&mut self, row: Record, compacted: u64) -> Result<(), String> {
        let (revision, index, key) = match &row {
            Record::Put { index, kv } => (kv.mod_revision, *index, self.history.shared_key(&kv.key)),
            Record::Delete { revision, index, key } => (*revision, *index, self.history.shared_key(key)),
            other => return Err(format!("{other:?} is not a row of a key")),
        };
        let in_log = revision >= compacted;
        if revision <= self.history.last_revision(&key) || (in_log && revision < self.revision) {
            return Err(format!("the row of {key} at revision {revision} is out of order"));
        }
        self.revision = self.revision.max(revision);
        let previous = self.history.get(&key).cloned();
        match row {
            Record::Put { kv, .. } if in_log => {
                self.history.push(Change { revision, kind: ChangeKind::Put(kv), previous }, index);
            }
            Record::Put { kv, .. } => self.history.push_old(key, index, kv),
            _ => self.history.push(Change { revision, kind: ChangeKind::Delete(key), previous }, index),
        }
        Ok(())
    }

    fn attach_all(&mut self) -> Result<(), String> {
        for (key, kv) in self.history.live() {
            if kv.lease != 0 && !self.leases.contains(kv.lease) {
                return Err(format!("{key} is attached to lease {}, which is missing", kv.lease));
            }
            self.leases.attach(kv.lease, key);
        }
        Ok(())
    }

    /// The revision of the last change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The revision of the last compaction: nothing earlier can be read. 0: none yet.
    pub fn compacted(&self) -> u64 {
        self.history.compacted()
    }

    /// What happened since the last call, in order, for a disk. Always empty unless the store was restored.
    pub fn take_journal(&mut self) -> Vec<Record> {
        self.journal.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// When [`Store::tick`] is due: the end of a lease.
    pub fn next_deadline(&self) -> Option<Time> {
        self.leases.first_deadline()
    }

    /// Ends the leases whose time has passed; whether there were any.
    pub fn tick(&mut self, now: Time) -> bool {
        let mut ended = false;
        while let Some(lease) = self.leases.expired(now) {
            self.end_lease(lease);
            ended = true;
        }
        ended
    }

    /// Lets every lease live longer: for time in which the store did not listen to its clients.
    pub fn prolong_leases(&mut self, by: Duration) {
        self.leases.prolong(by);
    }

    /// Does what a node asks.
    pub fn apply(&mut self, now: Time, request: Request) -> Result<Response, Refused> {
        self.tick(now);
        match request {
            Request::Range(keys) => self.apply_range(&keys),
            Request::Txn(txn) => self.transact(now, txn.into()).map(Response::from),
            Request::LeaseGrant { ttl } => {
                self.grant(now, 0, ttl).map(|(lease, ttl)| Response::LeaseGranted { lease, ttl })
            }
            Request::LeaseKeepAlive { lease } => {
                Ok(Response::LeaseKept { lease, ttl: self.keep_alive(now, lease).unwrap_or(0) })
            }
            Request::LeaseRevoke { lease } => self.revoke(now, lease).map(|()| Response::LeaseRevoked),
        }
    }

    fn apply_range(&self, keys: &Keys) -> Result<Response, Refused> {
        let kvs = self.range(&Span::from(keys), 0)?;
        Ok(Response::Range { revision: self.revision, kvs: owned(&kvs) })
    }

    /// What the keys were at `revision`, 0 meaning now, in key order.
    pub fn range(&self, keys: &Span, revision: u64) -> Result<Vec<Arc<KeyValue>>, Refused> {
        if !has_key(keys) {
            return Err(Refused::EmptyKey);
        }
        self.check_revision(revision)?;
        let revision = if revision == 0 { u64::MAX } else { revision };
        Ok(self.history.at(keys, revision).cloned().collect())
    }

    fn check_revision(&self, revision: u64) -> Result<(), Refused> {
        match revision {
            0 => Ok(()),
            _ if revision > self.revision => Err(Refused::FutureRevision),
            _ if revision < self.history.compacted() => Err(Refused::Compacted),
            _ => Ok(()),
        }
    }

    /// All changes from `revision` on.
    pub(super) fn changes(&self, revision: u64) -> impl Iterator<Item = &Change> {
        self.history.changes(revision)
    }

    /// Does a transaction.
    pub fn transact(&mut self, now: Time, transaction: Transaction) -> Result<Transacted, Refused> {
        transaction.check()?;
        self.tick(now);
        let succeeded = transaction.conditions.iter().all(|condition| self.holds(condition));
        let operations = if succeeded { transaction.success } else { transaction.failure };
        operations.iter().try_for_each(|operation| self.check_put(operation))?;
        operations.iter().try_for_each(|operation| self.check_range(operation))?;
        let mut step = Step { revision: self.revision + 1, index: 0 };
        let outcomes = operations.into_iter().map(|operation| self.operate(operation, &mut step)).collect();
        self.end_step(step);
        Ok(Transacted { revision: self.revision, succeeded, outcomes })
    }

    fn holds(&self, condition: &Condition) -> bool {
        let mut kvs = self.history.at(&condition.keys, u64::MAX).peekable();
        match kvs.peek() {
            Some(_) => kvs.all(|kv| condition.holds(Some(kv))),
            None => condition.holds(None),
        }
    }

    fn check_put(&self, operation: &Operation) -> Result<(), Refused> {
        let Operation::Put { key, value, lease } = operation else { return Ok(()) };
        if (value.is_none() || lease.is_none()) && self.history.get(key).is_none() {
            return Err(Refused::KeyNotFound);
        }
        match lease {
            Some(lease) if *lease != 0 && !self.leases.contains(*lease) => Err(Refused::LeaseNotFound),
            _ => Ok(()),
        }
    }

    fn check_range(&self, operation: &Operation) -> Result<(), Refused> {
        match operation {
            Operation::Range { revision, .. } => self.check_revision(*revision),
            Operation::Put { .. } | Operation::Delete(_) => Ok(()),
        }
    }

    fn operate(&mut self, operation: Operation, step: &mut Step) -> Outcome {
        match operation {
            Operation::Range { keys, revision } => {
                let revision = if revision == 0 { u64::MAX } else { revision };
                Outcome::Range(self.history.at(&keys, revision).cloned().collect())
            }
            Operation::Put { key, value, lease } => Outcome::Put(self.put(key, value, lease, step)),
            Operation::Delete(keys) => {
                let previous: Vec<_> = self.history.at(&keys, u64::MAX).cloned().collect();
                previous.iter().for_each(|kv| self.delete(kv, step));
                Outcome::Deleted(previous)
            }
        }
    }

    fn put(
        &mut self,
        key: String,
        value: Option<Vec<u8>>,
        lease: Option<u64>,
        step: &mut Step,
    ) -> Option<Arc<KeyValue>> {
        let previous = self.history.get(&key).cloned();
        let old = previous.as_deref();
        let kv = Arc::new(KeyValue {
            value: value.or_else(|| old.map(|kv| kv.value.clone())).unwrap_or_default(),
            lease: lease.or_else(|| old.map(|kv| kv.lease)).unwrap_or(0),
            create_revision: old.map_or(step.revision, |kv| kv.create_revision),
            mod_revision: step.revision,
            version: old.map_or(1, |kv| kv.version + 1),
            key,
        });
        self.leases.detach(old.map_or(0, |kv| kv.lease), &kv.key);
        let index = step.next();
        self.record(|| Record::Put { index, kv: Arc::clone(&kv) });
        let change = Change { revision: step.revision, kind: ChangeKind::Put(Arc::clone(&kv)), previous };
        let previous = change.previous.clone();
        self.history.push(change, index);
        self.leases.attach(kv.lease, &self.history.shared_key(&kv.key));
        previous
    }

    fn delete(&mut self, kv: &Arc<KeyValue>, step: &mut Step) {
        self.leases.detach(kv.lease, &kv.key);
        let key = self.history.shared_key(&kv.key);
        let (revision, index) = (step.revision, step.next());
        self.record(|| Record::Delete { revision, index, key: Arc::clone(&key) });
        self.history.push(Change { revision, kind: ChangeKind::Delete(key), previous: Some(Arc::clone(kv)) }, index);
    }

    /// A step that changed something becomes the store's revision.
    fn end_step(&mut self, step: Step) {
        if step.index > 0 {
            self.revision = step.revision;
            if let Some(surplus) = self.history.surplus(self.retention, self.revision) {
                self.compact_to(surplus);
            }
        }
    }

    fn record(&mut self, record: impl FnOnce() -> Record) {
        if let Some(journal) = &mut self.journal {
            journal.push(record());
        }
    }

    /// Forgets history before `revision`.
    pub fn compact(&mut self, revision: u64) -> Result<(), Refused> {
        if revision > self.revision {
            return Err(Refused::FutureRevision);
        }
        if revision <= self.history.compacted() {
            return Err(Refused::Compacted);
        }
        self.compact_to(revision);
        Ok(())
    }

    fn compact_to(&mut self, revision: u64) {
        let journal = &mut self.journal;
        self.history.compact(revision, |record| {
            if let Some(journal) = journal {
                journal.push(record);
            }
        });
        self.record(|| Record::Compacted(revision));
    }

    /// A new lease: its id and seconds to live. With id 0 the store chooses one.
    pub fn grant(&mut self, now: Time, lease: u64, ttl: u64) -> Result<(u64, u64), Refused> {
        self.tick(now);
        let (lease, ttl) = self.leases.grant(now, lease, ttl)?;
        let last_chosen = self.leases.last_chosen();
        self.record(|| Record::Lease { lease, ttl, last_chosen });
        Ok((lease, ttl))
    }

    /// Renews a lease: its seconds to live, or nothing if it is gone.
    pub fn keep_alive(&mut self, now: Time, lease: u64) -> Option<u64> {
        self.tick(now);
        self.leases.renew(now, lease)
    }

    /// Ends a lease and deletes its keys, in one revision.
    pub fn revoke(&mut self, now: Time, lease: u64) -> Result<(), Refused> {
        self.tick(now);
        if !self.leases.contains(lease) {
            return Err(Refused::LeaseNotFound);
        }
        self.end_lease(lease);
        Ok(())
    }

    fn end_lease(&mut self, lease: u64) {
        let Some(keys) = self.leases.remove(lease) else { return };
        let mut step = Step { revision: self.revision + 1, index: 0 };
        for key in keys {
            let kv = self.history.get(&key).cloned().unwrap_or_else(|| panic!("{key} of lease {lease} is missing"));
            self.delete(&kv, &mut step);
        }
        self.record(|| Record::LeaseEnded(lease));
        self.end_step(step);
    }

    /// What is known of a lease.
    pub fn lease(&self, now: Time, lease: u64) -> Option<LeaseStatus> {
        self.leases.status(now, lease)
    }

    /// All leases.
    pub fn leases(&self) -> impl Iterator<Item = u64> + '_ {
        self.leases.ids()
    }

    /// Panics if an invariant is broken.
    pub fn check(&self) {
        self.history.check(self.revision);
        self.leases.check();
        let leased = self.history.live().filter(|(_, kv)| kv.lease != 0);
        let mut attached = 0;
        for (key, kv) in leased {
            assert!(self.leases.holds(kv.lease, key), "{key} is not attached to its lease {}", kv.lease);
            attached += 1;
        }
        assert_eq!(attached, self.leases.attached(), "a lease holds a key that is not there");
    }
}

/// A revision in the making.
struct Step {
    revision: u64,
    index: u32,
}

impl Step {
    fn next(&mut self) -> u32 {
        self.index += 1;
        self.index - 1
    }
}

fn owned(kvs: &[Arc<KeyValue>]) -> Vec<KeyValue> {
    kvs.iter().map(|kv| kv.as_ref().clone()).collect()
}

impl From<Transacted> for Response {
    fn from(done: Transacted) -> Response {
        let results = done.outcomes.iter().map(TxnResult::from).collect();
        Response::Txn { revision: done.revision, succeeded: done.succeeded, results }
    }
}

impl From<&Outcome> for TxnResult {
    fn from(outcome: &Outcome) -> TxnResult {
        match outcome {
            Outcome::Range(kvs) => TxnResult::Range(owned(kvs)),
            Outcome::Put(_) => TxnResult::Put,
            Outcome::Deleted(previous) => TxnResult::Deleted(previous.len() as u64),
        }
    }
}

#[cfg(test)]
mod tests;
