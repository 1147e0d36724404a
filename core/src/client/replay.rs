//! Replaying what was acknowledged under an older epoch, and syncing groups.
//!
//! Owns: which objects are being replayed, and what waits behind. Does not own what is kept (`unsynced`), nor how a
//! request is sent (`requests`).
//!
//! ```text
//!   kept ──epoch changed──▶ Held, in its object's queue ──its turn──▶ sent until answered ──▶ kept again, or safe
//! ```
//!
//! Invariants: writes of an object are replayed one by one, in the order of their numbers; no other request about the
//! object is sent meanwhile. From the moment in which the client knows of the new epoch, a write to be replayed counts as
//! unanswered: no request under that epoch claims that its answer was seen.

use super::api::OpError;
use super::part::{Action, Owner, Part, State};
use super::requests::Requests;
use super::unsynced::Entry;
use crate::id::{Epoch, ObjectId, PgId};
use crate::io::Env;
use crate::planted::{Bug, planted};
use crate::slab::Key;
use smallvec::SmallVec;
use std::collections::{BTreeMap, VecDeque};

/// An object that is being replayed.
#[derive(Clone, Debug, Default)]
struct Queue {
    /// The first is under way; ascending numbers.
    replays: VecDeque<(u64, Key<Part>)>,
    /// Requests of operations, in the order in which they may go.
    behind: Vec<Key<Part>>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Replays {
    objects: BTreeMap<ObjectId, Queue>,
}

impl Replays {
    /// Whether requests about the object have to wait.
    pub fn holds(&self, object: ObjectId) -> bool {
        !self.objects.is_empty() && self.objects.contains_key(&object)
    }

    /// A request waits until the object was replayed.
    pub fn put_behind(&mut self, object: ObjectId, key: Key<Part>) {
        self.objects.get_mut(&object).expect("the object is being replayed").behind.push(key);
    }

    /// Adds a replay in its place. True: it is the first, and the one that was has to wait again.
    fn add(&mut self, object: ObjectId, number: u64, key: Key<Part>) -> (bool, Option<Key<Part>>) {
        let replays = &mut self.objects.entry(object).or_default().replays;
        let place = replays.partition_point(|(other, _)| *other < number);
        let before = replays.front().map(|(_, first)| *first).filter(|_| place == 0);
        replays.insert(place, (number, key));
        (place == 0, before)
    }

    /// A replay ended: whose turn is it?
    fn remove(&mut self, object: ObjectId, key: Key<Part>) -> Next {
        let queue = self.objects.get_mut(&object).expect("a replay is queued");
        let was_first = queue.replays.front().is_some_and(|(_, first)| *first == key);
        queue.replays.retain(|(_, other)| *other != key);
        match queue.replays.front() {
            Some((_, next)) if was_first => Next::Replay(*next),
            Some(_) => Next::Nothing,
            None => Next::Others(self.objects.remove(&object).expect("looked at above").behind),
        }
    }

    /// Panics if an invariant is broken.
    pub fn check(&self, state: impl Fn(Key<Part>) -> Option<State>) {
        for (object, queue) in &self.objects {
            let states: Vec<_> = queue.replays.iter().map(|(_, key)| state(*key).expect("a replay lives")).collect();
            assert!(states.first().is_some_and(|first| *first != State::Held), "{object:?}: nothing is replayed");
            assert!(states[1..].iter().all(|state| *state == State::Held), "{object:?}: replays side by side");
            assert!(queue.replays.iter().is_sorted(), "{object:?}: replays out of order");
        }
    }
}

enum Next {
    Nothing,
    Replay(Key<Part>),
    Others(Vec<Key<Part>>),
}

impl Requests {
    /// The map has news: what was acknowledged under older epochs is replayed.
    pub(super) fn replay_outdated(&mut self, env: &mut Env<'_>) {
        loop {
            let map = &self.map;
            let outdated = self.unsynced.outdated(|pg| map.pg(pg).map(|info| info.epoch));
            let Some((pg, entries, sync)) = outdated else { return };
            if let Some(key) = sync {
                self.unqueue(key);
                self.parts.remove(key);
            }
            let first: Vec<_> = entries.into_iter().filter_map(|entry| self.replay(pg, entry)).collect();
            for key in first {
                self.dispatch(env, key);
            }
        }
    }

    /// Makes the replay of a write; gives it if it is its turn.
    pub(super) fn replay(&mut self, pg: PgId, entry: Entry) -> Option<Key<Part>> {
        self.stats.replays += 1;
        self.unsynced.replay_begins(pg, &entry);
        let Entry { number, object, action } = entry;
        let (owner, state, tries, since) = (Owner::Replay, State::Held, SmallVec::new(), None);
        let part = Part { owner, object, pg, number, action, state, tries, refusals: 0, since, sent: None };
        let key = self.parts.insert(part);
        self.writes.insert(number, key);
        self.groups.entry(pg).or_default().unanswered.insert(number, ());
        let (is_first, before) = self.replays.add(object, number, key);
        // (It may be the one that just ended, whose write this is.)
        if let Some(before) = before.filter(|before| self.parts.get(*before).is_some()) {
            // What it sent under the older epoch comes to nothing, or ends it.
            self.unqueue(before);
            self.part(before).state = State::Held;
        }
        is_first.then_some(key)
    }

    /// A write was acknowledged that is not safe: it is kept, or replayed if its epoch is over. Gives what is to be sent.
    pub(super) fn keep(&mut self, pg: PgId, epoch: Epoch, entry: Entry) -> Option<Key<Part>> {
        // The group may be one that is not known yet, which took over the object.
        let present = self.map.pg(pg).map(|info| info.epoch);
        if present != Some(epoch) && !planted(Bug::SkipReplay) {
            return self.replay(pg, entry);
        }
        self.unsynced.keep(pg, present.unwrap_or(epoch), entry);
        if self.unsynced.bytes() * 2 >= self.dirty_bytes && !self.unsynced.is_flushing() {
            self.unsynced.flush(None);
        }
        None
    }

    /// A replay was answered, or refused for good.
    pub(super) fn replayed(
        &mut self,
        env: &mut Env<'_>,
        key: Key<Part>,
        part: Part,
        end: Result<Option<Epoch>, OpError>,
    ) {
        self.writes.remove(part.number);
        self.groups.entry(part.pg).or_default().unanswered.remove(part.number);
        let entry = Entry { number: part.number, object: part.object, action: part.action };
        self.unsynced.replay_ends(part.pg, &entry);
        let again = match end {
            // If it has to be replayed once more, it still stands before the others.
            Ok(Some(epoch)) => self.keep(part.pg, epoch, entry),
            // With its image, what was written to it is gone on purpose.
            Ok(None) | Err(OpError::NoSuchImage) => None,
            Err(error) => {
                self.unsynced.lost(error);
                None
            }
        };
        match (again, self.replays.remove(part.object, key)) {
            (Some(again), _) => self.dispatch(env, again),
            (None, Next::Nothing) => {}
            (None, Next::Replay(next)) => self.dispatch(env, next),
            (None, Next::Others(behind)) => {
                for key in behind {
                    if let Some(part) = self.parts.get_mut(key) {
                        part.state = State::Held;
                        self.dispatch(env, key);
                    }
                }
            }
        }
        self.sync_due(env);
    }

    /// Sends the syncs that flushes wait for.
    pub(super) fn sync_due(&mut self, env: &mut Env<'_>) {
        while let Some((pg, object)) = self.unsynced.due() {
            self.stats.syncs += 1;
            let seen = self.groups.entry(pg).or_default().seen(self.last_number);
            let settled = self.unsynced.lowest(pg).map_or(seen, |lowest| seen.min(lowest - 1));
            let (owner, state, tries) = (Owner::Sync(settled), State::Held, SmallVec::new());
            let (number, action, since) = (0, Action::Sync, None);
            let part = Part { owner, object, pg, number, action, state, tries, refusals: 0, since, sent: None };
            let key = self.parts.insert(part);
            self.unsynced.sync_begins(pg, key);
            self.dispatch(env, key);
        }
    }

    /// A sync was answered, or refused for good.
    pub(super) fn synced(&mut self, env: &mut Env<'_>, pg: PgId, error: Option<OpError>) {
        if let Some(error) = error {
            self.unsynced.lost(error);
        }
        self.unsynced.sync_ends(pg);
        if self.unsynced.bytes() * 2 >= self.dirty_bytes && !self.unsynced.is_flushing() {
            self.unsynced.flush(None);
        }
        self.sync_due(env);
    }
}
