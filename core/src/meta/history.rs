//! Keys and their past: every version of every key since the last compaction, and the log of changes that watches read.
//!
//! Owns versions, the log and compaction. Does not own meaning: transactions, leases and refusals are the store's.
//!
//! ```text
//!   chains:  key a | v3 v7 v9        a read at revision r takes the newest version <= r
//!            key b | v4 x8           x: deleted
//!   log:     ... 7:a 8:b 9:a         from `compacted` on; a watch takes what is at or above its next revision
//! ```
//! Invariants: revisions in the log and in each chain ascend; no read below `compacted`, every read at or above it is
//! exact; what is dropped from a chain is what may be dropped from a disk.

use super::span::Span;
use super::{KeyValue, Record};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// How much of the past is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Revisions.
    pub revisions: u64,
    /// Bytes of keys and values in the log.
    pub bytes: u64,
}

impl Default for Retention {
    /// Enough for a watcher that lost its connection for minutes; small beside a daemon's memory.
    fn default() -> Self {
        Retention { revisions: 10_000, bytes: 32 << 20 }
    }
}

/// What became of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was set.
    Put(Arc<KeyValue>),
    /// It was deleted.
    Delete(Arc<str>),
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub revision: u64,
    /// What.
    pub kind: ChangeKind,
    /// What the key was before.
    pub previous: Option<Arc<KeyValue>>,
}

impl Change {
    /// The key.
    pub fn key(&self) -> &str {
        match &self.kind {
            ChangeKind::Put(kv) => &kv.key,
            ChangeKind::Delete(key) => key,
        }
    }

    fn bytes(&self) -> u64 {
        match &self.kind {
            ChangeKind::Put(kv) => (kv.key.len() + kv.value.len()) as u64,
            ChangeKind::Delete(key) => key.len() as u64,
        }
    }
}

#[derive(Clone, Debug)]
struct Version {
    revision: u64,
    /// Its place among the changes of its revision.
    index: u32,
    /// Nothing: the key was deleted.
    kv: Option<Arc<KeyValue>>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    chains: BTreeMap<Arc<str>, Vec<Version>>,
    log: VecDeque<Change>,
    log_bytes: u64,
    compacted: u64,
}

impl History {
    pub(super) fn compacted(&self) -> u64 {
        self.compacted
    }

    /// The present version of a key.
    pub(super) fn get(&self, key: &str) -> Option<&Arc<KeyValue>> {
        self.chains.get(key)?.last()?.kv.as_ref()
    }

    /// When a key last changed, as far as is known; 0: never.
    pub(super) fn last_revision(&self, key: &str) -> u64 {
        self.chains.get(key).and_then(|chain| chain.last()).map_or(0, |version| version.revision)
    }

    /// What the keys of `span` were at `revision`, in key order.
    pub(super) fn at<'a>(&'a self, span: &'a Span, revision: u64) -> impl Iterator<Item = &'a Arc<KeyValue>> + 'a {
        self.chains
            .range::<str, _>(span.lower_bound())
            .take_while(|(key, _)| span.ends_after(key))
            .filter_map(move |(_, chain)| newest(chain, revision).and_then(|place| chain[place].kv.as_ref()))
    }

    /// The key as the history holds it, to be shared.
    pub(super) fn shared_key(&self, key: &str) -> Arc<str> {
        self.chains.get_key_value(key).map_or_else(|| Arc::from(key), |(key, _)| Arc::clone(key))
    }

    /// Adds a change at the end; `index` counts within its revision.
    pub(super) fn push(&mut self, change: Change, index: u32) {
        let (key, kv) = match &change.kind {
            ChangeKind::Put(kv) => (self.shared_key(&kv.key), Some(Arc::clone(kv))),
            ChangeKind::Delete(key) => (Arc::clone(key), None),
        };
        self.push_version(key, Version { revision: change.revision, index, kv });
        self.log_bytes += change.bytes();
        self.log.push_back(change);
    }

    /// Adds a version that is older than the log.
    pub(super) fn push_old(&mut self, key: Arc<str>, index: u32, kv: Arc<KeyValue>) {
        self.push_version(key, Version { revision: kv.mod_revision, index, kv: Some(kv) });
    }

    fn push_version(&mut self, key: Arc<str>, version: Version) {
        let chain = self.chains.entry(key).or_default();
        let last = chain.last().map_or(0, |last| last.revision);
        assert!(last < version.revision, "a key changed at revision {last} and then at {}", version.revision);
        chain.push(version);
    }

    /// All changes from `revision` on, in order. The caller has compared it with `compacted`.
    pub(super) fn changes(&self, revision: u64) -> impl Iterator<Item = &Change> {
        self.log.range(self.log.partition_point(|change| change.revision < revision)..)
    }

    /// Forgets what cannot be seen at or above `revision`.
    pub(super) fn compact(&mut self, revision: u64, mut forget: impl FnMut(Record)) {
        self.compacted = revision;
        while self.log.front().is_some_and(|change| change.revision < revision) {
            let Some(change) = self.log.pop_front() else { break };
            self.log_bytes -= change.bytes();
            self.compact_chain(change.key(), revision, &mut forget);
        }
    }

    fn compact_chain(&mut self, key: &str, revision: u64, forget: &mut impl FnMut(Record)) {
        let Some(chain) = self.chains.get_mut(key) else { return };
        let Some(mut keep) = newest(chain, revision) else { return };
        if chain[keep].kv.is_none() && chain[keep].revision < revision {
            keep += 1;
        }
        for version in chain.drain(..keep) {
            forget(Record::Forget { revision: version.revision, index: version.index });
        }
        if chain.is_empty() {
            self.chains.remove(key);
        }
    }

    /// The revision to compact at so that the rest fits.
    pub(super) fn surplus(&self, retention: Retention, revision: u64) -> Option<u64> {
        let by_count = revision.saturating_sub(retention.revisions);
        let mut surplus = self.log_bytes.saturating_sub(retention.bytes);
        let mut log = self.log.iter();
        let mut by_bytes = 0;
        while surplus > 0 {
            let Some(change) = log.next() else { break };
            surplus = surplus.saturating_sub(change.bytes());
            by_bytes = change.revision + 1;
        }
        // The present revision stays, whatever its size.
        let target = by_count.max(by_bytes).min(revision);
        (target > self.compacted.max(1)).then_some(target)
    }

    /// Panics if an invariant is broken.
    pub(super) fn check(&self, revision: u64) {
        assert!(self.compacted <= revision, "compacted at {} above {revision}", self.compacted);
        assert!(self.log.iter().map(|change| change.revision).is_sorted(), "the log is out of order");
        assert!(self.log.back().is_none_or(|change| change.revision == revision), "the log does not end at {revision}");
        assert_eq!(self.log_bytes, self.log.iter().map(Change::bytes).sum::<u64>(), "bytes of the log");
        for (key, chain) in &self.chains {
            assert!(chain.windows(2).all(|pair| pair[0].revision < pair[1].revision), "{key} is out of order");
        }
    }

    /// The present version of every key that has one.
    pub(super) fn live(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<KeyValue>)> {
        self.chains.iter().filter_map(|(key, chain)| Some((key, chain.last()?.kv.as_ref()?)))
    }
}

/// Place of the newest version at or below `revision`.
fn newest(chain: &[Version], revision: u64) -> Option<usize> {
    chain.partition_point(|version| version.revision <= revision).checked_sub(1)
}
