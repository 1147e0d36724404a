//! The metadata store's data model: revisions, transactions with compare, leases, watches.
//!
//! The types of this file are what nodes say; they speak to etcd, to the embedded store and to the simulated one. [`Store`]
//! is the store itself, as a state machine: kept on disk by the runtime and served with etcd's API, it is the embedded
//! store; driven by the simulator, it is the simulated one; beside a real etcd, it is the reference of the tests.
//!
//! Owns: revisions, transactions, leases, history, compaction, and what watchers see. Does not own: disks, clocks,
//! connections, and the faults between a node and the store.

mod history;
mod lease;
mod span;
mod store;
mod transaction;
mod watch;

pub use history::{Change, ChangeKind, Retention};
pub use lease::{LEASE_MAX_TTL_S, LEASE_MIN_TTL_S, LeaseStatus};
pub use span::{End, Span};
pub use store::{Record, Refused, Saved, Store};
pub use transaction::{
    Condition, Operation, Outcome, Relation, TRANSACTION_MAX_BYTES, Target, Transacted, Transaction,
};
pub use watch::{Compacted, Watcher};

/// A key with its value and history, as in etcd v3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: String,
    /// The value, JSON by convention.
    pub value: Vec<u8>,
    /// Revision at which the key was last created.
    pub create_revision: u64,
    /// Revision of its last change.
    pub mod_revision: u64,
    /// Number of changes since its creation, from 1.
    pub version: u64,
    /// The lease it dies with; 0: none.
    pub lease: u64,
}

impl KeyValue {
    /// A key as one write at a revision leaves it, without a lease.
    pub fn written(key: String, value: impl Into<Vec<u8>>, revision: u64) -> KeyValue {
        let (create_revision, mod_revision) = (revision, revision);
        KeyValue { key, value: value.into(), create_revision, mod_revision, version: 1, lease: 0 }
    }
}

/// Keys that a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// One key.
    One(String),
    /// All keys that begin with this.
    Prefix(String),
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Linearizable read.
    Range(Keys),
    /// A transaction; also the way to put and delete.
    Txn(Txn),
    /// A new lease of `ttl` seconds.
    LeaseGrant {
        /// Seconds, at least 1.
        ttl: u64,
    },
    /// Renews a lease.
    LeaseKeepAlive {
        /// The lease.
        lease: u64,
    },
    /// Ends a lease and deletes its keys.
    LeaseRevoke {
        /// The lease.
        lease: u64,
    },
}

/// If all compares hold, `success`, else `failure`; atomic. A key may be changed once only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// Conditions.
    pub compare: Vec<Compare>,
    /// Done if all hold.
    pub success: Vec<TxnOp>,
    /// Done otherwise.
    pub failure: Vec<TxnOp>,
}

/// A condition on one key. A missing key has revisions 0, version 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key's last change was at this revision; 0: the key does not exist.
    ModRevision(String, u64),
    /// The key was created at this revision; 0: the key does not exist.
    CreateRevision(String, u64),
    /// The key exists and has this value.
    Value(String, Vec<u8>),
}

/// An operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnOp {
    /// Sets a key.
    Put {
        /// Key.
        key: String,
        /// Value.
        value: Vec<u8>,
        /// Lease to die with; 0: none.
        lease: u64,
    },
    /// Deletes keys.
    Delete(Keys),
    /// Reads keys.
    Range(Keys),
}

/// A response; `revision` is the store's revision when it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// Of a range.
    Range {
        /// Store revision.
        revision: u64,
        /// In key order.
        kvs: Vec<KeyValue>,
    },
    /// Of a transaction.
    Txn {
        /// Store revision after it.
        revision: u64,
        /// Whether the compares held.
        succeeded: bool,
        /// Results of the operations that were done, in order.
        results: Vec<TxnResult>,
    },
    /// Of a grant.
    LeaseGranted {
        /// The lease, never 0.
        lease: u64,
        /// Seconds granted.
        ttl: u64,
    },
    /// Of a keep-alive. A lease that is gone has `ttl` 0.
    LeaseKept {
        /// The lease.
        lease: u64,
        /// Seconds left.
        ttl: u64,
    },
    /// Of a revoke.
    LeaseRevoked,
}

/// Result of one operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnResult {
    /// Of a put.
    Put,
    /// Of a delete: how many keys.
    Deleted(u64),
    /// Of a range.
    Range(Vec<KeyValue>),
}

/// A change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// Set to a new value.
    Put(KeyValue),
    /// Deleted, at this revision.
    Delete {
        /// The key.
        key: String,
        /// Revision of the deletion.
        revision: u64,
    },
}

impl WatchEvent {
    /// At which revision the key was changed.
    pub fn revision(&self) -> u64 {
        match self {
            WatchEvent::Put(kv) => kv.mod_revision,
            WatchEvent::Delete { revision, .. } => *revision,
        }
    }
}
