//! Watchers: cursors over the store's changes.
//!
//! Owns a watcher's place. A watcher asks the store; the store knows nothing of it, so that a store with a thousand
//! watchers is as cheap to clone as one without. All changes of one revision come together, each exactly once, in order.

use super::history::{Change, ChangeKind};
use super::span::Span;
use super::{Store, WatchEvent};

/// The revisions that a watcher wants were compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// The store has nothing before this revision.
    pub revision: u64,
}

/// What interests a watcher, and from when on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watcher {
    keys: Span,
    next: u64,
}

impl Watcher {
    /// A watcher of changes from revision `from` on.
    pub fn new(keys: Span, from: u64) -> Watcher {
        Watcher { keys, next: from }
    }

    /// The first revision that it has not seen.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The next changes, whole revisions, about `limit` of them at most; empty if there are none at present.
    pub fn take<'a>(&mut self, store: &'a Store, limit: usize) -> Result<Vec<&'a Change>, Compacted> {
        let mut taken: Vec<&Change> = Vec::new();
        if self.next > store.revision() {
            return Ok(taken);
        }
        if self.next < store.compacted() {
            return Err(Compacted { revision: store.compacted() });
        }
        let mut changes = store.changes(self.next).peekable();
        while let Some(change) = changes.next() {
            if self.keys.contains(change.key()) {
                taken.push(change);
            }
            let ends_revision = changes.peek().is_none_or(|next| next.revision != change.revision);
            if ends_revision && taken.len() >= limit {
                self.next = change.revision + 1;
                return Ok(taken);
            }
        }
        self.next = store.revision() + 1;
        Ok(taken)
    }

    /// As [`Watcher::take`], as nodes see it: the revision up to which all is told, and the changes. Nothing, if
    /// there are none.
    pub fn poll(&mut self, store: &Store) -> Result<Option<(u64, Vec<WatchEvent>)>, Compacted> {
        let taken = self.take(store, usize::MAX)?;
        if taken.is_empty() {
            return Ok(None);
        }
        let events = taken.into_iter().map(WatchEvent::from).collect();
        Ok(Some((self.next - 1, events)))
    }
}

impl From<&Change> for WatchEvent {
    fn from(change: &Change) -> WatchEvent {
        match &change.kind {
            ChangeKind::Put(kv) => WatchEvent::Put(kv.as_ref().clone()),
            ChangeKind::Delete(key) => WatchEvent::Delete { key: key.to_string(), revision: change.revision },
        }
    }
}
