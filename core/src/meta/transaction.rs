//! Transactions in the store's own terms, which are etcd's: conditions on any property of keys, and operations on ranges.
//!
//! Owns the language and the checks that need no state. [`super::Txn`], what nodes say, is a subset that translates.

use super::span::{End, Span};
use super::{Compare, KeyValue, Keys, Refused, Txn, TxnOp};
use crate::limits::TXN_OPS;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Largest transaction: the sum of its keys and values, in bytes. etcd's default limit of a request.
pub const TRANSACTION_MAX_BYTES: usize = 1_536 << 10;

/// If all conditions hold, `success`, else `failure`; atomic, in order. A key may be put once only, and not be put and
/// deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// Conditions.
    pub conditions: Vec<Condition>,
    /// Done if all hold.
    pub success: Vec<Operation>,
    /// Done otherwise.
    pub failure: Vec<Operation>,
}

/// A condition on a key, or on each key of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The keys. A missing single key has revisions, version and lease 0, and no value.
    pub keys: Span,
    /// What of them, and what it is compared with.
    pub target: Target,
    /// How.
    pub relation: Relation,
}

/// A property of a key, with the value to compare it with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Number of changes since the creation.
    Version(u64),
    /// Revision of the creation.
    CreateRevision(u64),
    /// Revision of the last change.
    ModRevision(u64),
    /// The value. Never holds for a missing key, whatever the relation.
    Value(Vec<u8>),
    /// The lease.
    Lease(u64),
}

/// How the key's property must compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The same.
    Equal,
    /// Another.
    NotEqual,
    /// The key's is greater.
    Greater,
    /// The key's is less.
    Less,
}

impl Relation {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Relation::Equal => ordering.is_eq(),
            Relation::NotEqual => ordering.is_ne(),
            Relation::Greater => ordering.is_gt(),
            Relation::Less => ordering.is_lt(),
        }
    }
}

impl Condition {
    /// Whether it holds for a key, or for a missing one.
    pub(super) fn holds(&self, kv: Option<&KeyValue>) -> bool {
        let number = |of: fn(&KeyValue) -> u64, wanted: &u64| kv.map_or(0, of).cmp(wanted);
        let ordering = match &self.target {
            Target::Version(wanted) => number(|kv| kv.version, wanted),
            Target::CreateRevision(wanted) => number(|kv| kv.create_revision, wanted),
            Target::ModRevision(wanted) => number(|kv| kv.mod_revision, wanted),
            Target::Lease(wanted) => number(|kv| kv.lease, wanted),
            Target::Value(wanted) => match kv {
                Some(kv) => kv.value.cmp(wanted),
                None => return false,
            },
        };
        self.relation.holds(ordering)
    }
}

/// An operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads keys; sees what earlier operations of the transaction did.
    Range {
        /// The keys.
        keys: Span,
        /// As of this revision; 0: now.
        revision: u64,
    },
    /// Sets a key.
    Put {
        /// The key.
        key: String,
        /// Its value; nothing: the value that it has.
        value: Option<Vec<u8>>,
        /// Its lease, 0 for none; nothing: the lease that it has.
        lease: Option<u64>,
    },
    /// Deletes keys.
    Delete(Span),
}

impl Operation {
    fn bytes(&self) -> usize {
        match self {
            Operation::Range { keys, .. } | Operation::Delete(keys) => keys.start().len(),
            Operation::Put { key, value, .. } => key.len() + value.as_ref().map_or(0, Vec::len),
        }
    }

    fn has_key(&self) -> bool {
        match self {
            Operation::Range { keys, .. } | Operation::Delete(keys) => has_key(keys),
            Operation::Put { key, .. } => !key.is_empty(),
        }
    }
}

/// Only a range may begin with nothing: at the start of all keys.
pub(super) fn has_key(keys: &Span) -> bool {
    !keys.start().is_empty() || *keys.end() != End::Only
}

/// Result of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Of a range, in key order.
    Range(Vec<Arc<KeyValue>>),
    /// Of a put: what the key was.
    Put(Option<Arc<KeyValue>>),
    /// Of a delete: what the keys were.
    Deleted(Vec<Arc<KeyValue>>),
}

/// Result of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transacted {
    /// The store's revision after it.
    pub revision: u64,
    /// Whether the conditions held.
    pub succeeded: bool,
    /// Results of the operations that were done.
    pub outcomes: Vec<Outcome>,
}

impl Transaction {
    /// Refuses what no state of the store would allow.
    pub(super) fn check(&self) -> Result<(), Refused> {
        let most = self.conditions.len().max(self.success.len()).max(self.failure.len());
        if most > TXN_OPS {
            return Err(Refused::TooManyOperations);
        }
        let operations = || self.success.iter().chain(&self.failure);
        let conditions: usize = self.conditions.iter().map(|condition| condition.keys.start().len()).sum();
        if conditions + operations().map(Operation::bytes).sum::<usize>() > TRANSACTION_MAX_BYTES {
            return Err(Refused::TooLarge);
        }
        if !operations().all(Operation::has_key) || self.conditions.iter().any(|condition| !has_key(&condition.keys)) {
            return Err(Refused::EmptyKey);
        }
        check_overlaps(&self.success)?;
        check_overlaps(&self.failure)
    }
}

fn check_overlaps(operations: &[Operation]) -> Result<(), Refused> {
    let mut puts = BTreeSet::new();
    for operation in operations {
        if let Operation::Put { key, .. } = operation
            && !puts.insert(key.as_str())
        {
            return Err(Refused::DuplicateKey);
        }
    }
    for operation in operations {
        if let Operation::Delete(keys) = operation
            && puts.range::<str, _>(keys.lower_bound()).next().is_some_and(|key| keys.ends_after(key))
        {
            return Err(Refused::DuplicateKey);
        }
    }
    Ok(())
}

impl From<Txn> for Transaction {
    fn from(txn: Txn) -> Transaction {
        let operations = |list: Vec<TxnOp>| list.into_iter().map(Operation::from).collect();
        Transaction {
            conditions: txn.compare.into_iter().map(Condition::from).collect(),
            success: operations(txn.success),
            failure: operations(txn.failure),
        }
    }
}

impl From<Compare> for Condition {
    fn from(compare: Compare) -> Condition {
        let (key, target) = match compare {
            Compare::ModRevision(key, revision) => (key, Target::ModRevision(revision)),
            Compare::CreateRevision(key, revision) => (key, Target::CreateRevision(revision)),
            Compare::Value(key, value) => (key, Target::Value(value)),
        };
        Condition { keys: Span::one(key), target, relation: Relation::Equal }
    }
}

impl From<TxnOp> for Operation {
    fn from(op: TxnOp) -> Operation {
        let span = |keys: Keys| Span::from(&keys);
        match op {
            TxnOp::Put { key, value, lease } => Operation::Put { key, value: Some(value), lease: Some(lease) },
            TxnOp::Delete(keys) => Operation::Delete(span(keys)),
            TxnOp::Range(keys) => Operation::Range { keys: span(keys), revision: 0 },
        }
    }
}
