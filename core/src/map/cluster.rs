//! `ClusterMap`: everything one node knows of `/ashlar/`, kept up from a full read and the changes after it.
//!
//! Owns the values, their revisions, and what changed last. Does not own how they arrive (`follow`), nor decisions.
//! Invariants: a value held has passed its checks; when a new value is bad, the last good one stays and the error is
//! kept until a good one comes; revisions are those of the good value.

use super::access::{Access, Obeyed};
use super::follow::Followed;
use super::parse::{Key, Value, ValueError, check_change, parse_value};
use super::{
    FailureReport, FormerPools, Global, History, Image, Leader, Levels, OsdConfig, OsdRecord, OsdState, PGS_PER_CHUNK,
    PgMap, PgMapChunk, Pool, PoolLayout, Pools, ScrubOrder, Tree, Wish,
};
use crate::id::{InodeId, OsdId, PgId, PgNumber, PoolId, Revision};
use crate::meta::{KeyValue, WatchEvent};
use std::collections::{BTreeMap, BTreeSet};

/// A value and when it was written.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    value: Value,
    create_revision: u64,
    mod_revision: u64,
}

/// What one application changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Keys that came, went, or have another value.
    pub keys: BTreeSet<Key>,
    /// Groups whose map came, went, or differs.
    pub pgs: BTreeSet<PgId>,
    /// Values that were refused now.
    pub errors: Vec<ValueError>,
}

impl Changes {
    /// Whether nothing changed and nothing was refused.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.errors.is_empty()
    }

    /// Whether `config/global`, `config/pools`, `config/node_placement` or `config/placement_levels` changed.
    pub fn configuration(&self) -> bool {
        [Key::Global, Key::Pools, Key::Tree, Key::Levels].iter().any(|key| self.keys.contains(key))
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterMap {
    /// By key: the order of [`Key`] groups them by kind.
    values: BTreeMap<Key, Kept>,
    errors: BTreeMap<Key, ValueError>,
    base: u64,
    revision: u64,
}

impl ClusterMap {
    /// Takes what a `Follower` reports.
    pub fn apply(&mut self, followed: &Followed) -> Changes {
        match followed {
            Followed::Full { revision, kvs } => self.apply_range(kvs, *revision),
            Followed::Changes { revision, events } => self.apply_events(events, *revision),
        }
    }

    /// Replaces everything by what was read at `revision`.
    pub fn apply_range(&mut self, kvs: &[KeyValue], revision: u64) -> Changes {
        let mut changes = Changes::default();
        let mut gone: BTreeSet<Key> = self.values.keys().chain(self.errors.keys()).copied().collect();
        for kv in kvs {
            if let Some(key) = Key::parse(&kv.key) {
                gone.remove(&key);
                self.put(key, kv, &mut changes);
            }
        }
        for key in gone {
            self.remove(key, &mut changes);
        }
        self.base = revision;
        self.revision = revision;
        changes
    }

    /// Takes changes in order. Late duplicates are ignored.
    pub fn apply_events(&mut self, events: &[WatchEvent], revision: u64) -> Changes {
        let mut changes = Changes::default();
        for event in events {
            match event {
                WatchEvent::Put(kv) => self.put_event(kv, &mut changes),
                WatchEvent::Delete { key, revision } => self.delete_event(key, *revision, &mut changes),
            }
        }
        self.revision = self.revision.max(revision);
        changes
    }

    fn put_event(&mut self, kv: &KeyValue, changes: &mut Changes) {
        let Some(key) = Key::parse(&kv.key) else { return };
        if self.values.get(&key).is_none_or(|kept| kept.mod_revision < kv.mod_revision) {
            self.put(key, kv, changes);
        }
    }

    fn delete_event(&mut self, name: &str, revision: u64, changes: &mut Changes) {
        let Some(key) = Key::parse(name) else { return };
        if self.values.get(&key).is_none_or(|kept| kept.mod_revision < revision) {
            self.remove(key, changes);
        }
    }

    fn put(&mut self, key: Key, kv: &KeyValue, changes: &mut Changes) {
        if self.values.get(&key).is_some_and(|kept| kept.mod_revision == kv.mod_revision) {
            return;
        }
        let old = self.value(key);
        let checked = parse_value(key, &kv.key, &kv.value);
        match checked.and_then(|new| check_change(&kv.key, old, &new).map(|()| new)) {
            Ok(value) => {
                self.errors.remove(&key);
                self.replace(key, value, kv, changes);
            }
            Err(error) => self.refuse(key, error, changes),
        }
    }

    fn refuse(&mut self, key: Key, error: ValueError, changes: &mut Changes) {
        if self.errors.get(&key) != Some(&error) {
            changes.errors.push(error.clone());
        }
        self.errors.insert(key, error);
    }

    fn replace(&mut self, key: Key, value: Value, kv: &KeyValue, changes: &mut Changes) {
        let kept = Kept { value, create_revision: kv.create_revision, mod_revision: kv.mod_revision };
        let old = self.values.insert(key, kept);
        let (old, new) = (old.map(|kept| kept.value), self.values.get(&key).map(|kept| &kept.value));
        if old.as_ref() != new {
            changes.keys.insert(key);
        }
        changed_groups(key, old.as_ref(), new, changes);
    }

    fn remove(&mut self, key: Key, changes: &mut Changes) {
        self.errors.remove(&key);
        if let Some(old) = self.values.remove(&key) {
            changes.keys.insert(key);
            changed_groups(key, Some(&old.value), None, changes);
        }
    }

    /// Every change up to this revision is in the map.
    ///
    /// Changes of different prefixes arrive independently, so this is the revision of the last full read.
    pub fn complete_revision(&self) -> Revision {
        Revision(self.base)
    }

    /// The newest revision that was heard of; changes of other prefixes up to it may be missing still.
    pub fn newest_revision(&self) -> Revision {
        Revision(self.revision)
    }

    /// Values that are refused now; the last good ones are in force.
    pub fn errors(&self) -> impl Iterator<Item = &ValueError> {
        self.errors.values()
    }

    /// Whether a key's present value is refused.
    pub fn is_refused(&self, key: Key) -> bool {
        self.errors.contains_key(&key)
    }

    /// Revision of a key's last (good) change; 0: the key does not exist.
    pub fn mod_revision(&self, key: Key) -> u64 {
        self.values.get(&key).map_or(0, |kept| kept.mod_revision)
    }

    /// Revision of a key's creation; 0: the key does not exist.
    pub fn create_revision(&self, key: Key) -> u64 {
        self.values.get(&key).map_or(0, |kept| kept.create_revision)
    }

    fn value(&self, key: Key) -> Option<&Value> {
        self.values.get(&key).map(|kept| &kept.value)
    }

    fn range(&self, first: Key, last: Key) -> impl Iterator<Item = (&Key, &Value)> {
        self.values.range(first..=last).map(|(key, kept)| (key, &kept.value))
    }
}

/// Notes the groups whose map differs between two values of a chunk.
fn changed_groups(key: Key, old: Option<&Value>, new: Option<&Value>, changes: &mut Changes) {
    let Key::PgMap(pool, _) = key else { return };
    let (old, new) = (chunk_of(old), chunk_of(new));
    let differs = |number: &&PgNumber| old.and_then(|c| c.0.get(number)) != new.and_then(|c| c.0.get(number));
    let numbers = old.into_iter().chain(new).flat_map(|chunk| chunk.0.keys());
    changes.pgs.extend(numbers.filter(differs).map(|number| PgId { pool, number: *number }));
}

fn chunk_of(value: Option<&Value>) -> Option<&PgMapChunk> {
    match value {
        Some(Value::PgMap(chunk)) => Some(chunk),
        _ => None,
    }
}

/// The bounds of all keys of a kind with OSD numbers.
const OSD_MAX: OsdId = OsdId(u32::MAX);
const PG_MIN: PgId = PgId { pool: PoolId(0), number: PgNumber(0) };
const PG_MAX: PgId = PgId { pool: PoolId(u32::MAX), number: PgNumber(u32::MAX) };

/// What it holds.
impl ClusterMap {
    /// `config/global`; `None` until the cluster is bootstrapped.
    pub fn global(&self) -> Option<&Global> {
        match self.value(Key::Global) {
            Some(Value::Global(global)) => Some(global),
            _ => None,
        }
    }

    /// All pools.
    pub fn pools(&self) -> impl Iterator<Item = (PoolId, &Pool)> {
        let pools = match self.value(Key::Pools) {
            Some(Value::Pools(Pools(pools))) => Some(pools),
            _ => None,
        };
        pools.into_iter().flatten().map(|(id, pool)| (*id, pool))
    }

    /// A pool.
    pub fn pool(&self, id: PoolId) -> Option<&Pool> {
        match self.value(Key::Pools) {
            Some(Value::Pools(Pools(pools))) => pools.get(&id),
            _ => None,
        }
    }

    /// Pools that were removed, by their numbers.
    pub fn former_pools(&self) -> Option<&FormerPools> {
        match self.value(Key::FormerPools) {
            Some(Value::FormerPools(former)) => Some(former),
            _ => None,
        }
    }

    /// Whether a pool was removed, and nothing of it is to be kept.
    pub fn is_removed(&self, pool: PoolId) -> bool {
        self.former_pools().is_some_and(|former| former.0.contains_key(&pool)) && self.pool(pool).is_none()
    }

    /// All pools that were removed.
    pub fn removed_pools(&self) -> impl Iterator<Item = PoolId> {
        let former = self.former_pools().into_iter().flat_map(|former| former.0.keys().copied());
        former.filter(|pool| self.pool(*pool).is_none())
    }

    /// How a pool's hashes are cut into groups; `None`: it has none yet.
    pub fn layout(&self, pool: PoolId) -> Option<PoolLayout> {
        match self.value(Key::Layout(pool)) {
            Some(Value::Layout(layout)) => Some(*layout),
            _ => None,
        }
    }

    /// All layouts.
    pub fn layouts(&self) -> impl Iterator<Item = (PoolId, PoolLayout)> {
        let all = Key::Layout(PoolId(0))..=Key::Layout(PoolId(u32::MAX));
        self.values.range(all).filter_map(|(key, kept)| match (key, &kept.value) {
            (Key::Layout(pool), Value::Layout(layout)) => Some((*pool, *layout)),
            _ => None,
        })
    }

    /// The placement tree; `None`: all hosts are below the root.
    pub fn tree(&self) -> Option<&Tree> {
        match self.value(Key::Tree) {
            Some(Value::Tree(tree)) => Some(tree),
            _ => None,
        }
    }

    /// Ranks of the tree's levels.
    pub fn levels(&self) -> Levels {
        match self.value(Key::Levels) {
            Some(Value::Levels(levels)) => levels.clone(),
            _ => Levels::default(),
        }
    }

    /// What the administrator says of an OSD, or the defaults.
    pub fn osd_config(&self, osd: OsdId) -> OsdConfig {
        match self.value(Key::OsdConfig(osd)) {
            Some(Value::OsdConfig(config)) => config.clone(),
            _ => OsdConfig::default(),
        }
    }

    /// OSDs with a session.
    pub fn osd_states(&self) -> impl Iterator<Item = (OsdId, &OsdState)> {
        self.range(Key::OsdState(OsdId(0)), Key::OsdState(OSD_MAX)).filter_map(|entry| match entry {
            (Key::OsdState(osd), Value::OsdState(state)) => Some((*osd, state)),
            _ => None,
        })
    }

    /// The session of an OSD; `None`: it is down.
    pub fn osd_state(&self, osd: OsdId) -> Option<&OsdState> {
        match self.value(Key::OsdState(osd)) {
            Some(Value::OsdState(state)) => Some(state),
            _ => None,
        }
    }

    /// What is remembered of OSDs, down ones included.
    pub fn osd_records(&self) -> impl Iterator<Item = (OsdId, &OsdRecord)> {
        self.range(Key::OsdRecord(OsdId(0)), Key::OsdRecord(OSD_MAX)).filter_map(|entry| match entry {
            (Key::OsdRecord(osd), Value::OsdRecord(record)) => Some((*osd, record)),
            _ => None,
        })
    }

    /// What is remembered of an OSD.
    pub fn osd_record(&self, osd: OsdId) -> Option<&OsdRecord> {
        match self.value(Key::OsdRecord(osd)) {
            Some(Value::OsdRecord(record)) => Some(record),
            _ => None,
        }
    }

    /// Reports as `(osd, reporter, report, revision)`.
    pub fn failure_reports(&self) -> impl Iterator<Item = (OsdId, OsdId, &FailureReport, Revision)> {
        let range = Key::OsdFailed(OsdId(0), OsdId(0))..=Key::OsdFailed(OSD_MAX, OSD_MAX);
        self.values.range(range).filter_map(|(key, kept)| match (key, &kept.value) {
            (Key::OsdFailed(osd, by), Value::OsdFailed(report)) => {
                Some((*osd, *by, report, Revision(kept.mod_revision)))
            }
            _ => None,
        })
    }

    /// Who may not write; `None`: everybody may.
    pub fn access(&self) -> Option<&Access> {
        match self.value(Key::Access) {
            Some(Value::Access(access)) => Some(access),
            _ => None,
        }
    }

    /// Revision of that (0: there is none); `None`: its present value is refused, so it is not known.
    pub fn access_revision(&self) -> Option<u64> {
        (!self.is_refused(Key::Access)).then(|| self.mod_revision(Key::Access))
    }

    /// What an OSD obeys of it.
    pub fn osd_access(&self, osd: OsdId) -> Option<Obeyed> {
        match self.value(Key::OsdAccess(osd)) {
            Some(Value::OsdAccess(obeyed)) => Some(*obeyed),
            _ => None,
        }
    }

    /// All images.
    pub fn images(&self) -> impl Iterator<Item = (PoolId, InodeId, &Image)> {
        let last = Key::Image(PoolId(u32::MAX), InodeId(u64::MAX));
        self.range(Key::Image(PoolId(0), InodeId(0)), last).filter_map(|entry| match entry {
            (Key::Image(pool, inode), Value::Image(image)) => Some((*pool, *inode, image)),
            _ => None,
        })
    }

    /// An image.
    pub fn image(&self, pool: PoolId, inode: InodeId) -> Option<&Image> {
        match self.value(Key::Image(pool, inode)) {
            Some(Value::Image(image)) => Some(image),
            _ => None,
        }
    }

    /// The highest image number ever given in a pool, with the revision of its key; `None`: no image was ever made.
    pub fn last_inode(&self, pool: PoolId) -> Option<(InodeId, Revision)> {
        match self.value(Key::LastInode(pool))? {
            Value::LastInode(inode) => Some((*inode, Revision(self.mod_revision(Key::LastInode(pool))))),
            _ => None,
        }
    }

    /// Groups in which nothing is left of an image that is being removed.
    pub fn removed_from(&self, pool: PoolId, inode: InodeId) -> impl Iterator<Item = PgNumber> {
        let of = |number: u32| Key::Removed(pool, inode, PgNumber(number));
        self.range(of(0), of(u32::MAX)).filter_map(|(key, _)| match key {
            Key::Removed(_, _, number) => Some(*number),
            _ => None,
        })
    }

    /// All such reports: pool, image, group.
    pub fn removals(&self) -> impl Iterator<Item = (InodeId, PgId)> {
        let of = |n: u32| Key::Removed(PoolId(n), InodeId(u64::from(n) << 32 | u64::from(n)), PgNumber(n));
        self.range(of(0), of(u32::MAX)).filter_map(|(key, _)| match key {
            Key::Removed(pool, inode, number) => Some((*inode, PgId { pool: *pool, number: *number })),
            _ => None,
        })
    }

    /// A chunk of group maps, with the revision of its key (0: it does not exist).
    pub fn pg_chunk(&self, pool: PoolId, chunk: u32) -> (Option<&PgMapChunk>, Revision) {
        let key = Key::PgMap(pool, chunk);
        (chunk_of(self.value(key)), Revision(self.mod_revision(key)))
    }

    /// The chunks that exist.
    pub fn pg_chunks(&self) -> impl Iterator<Item = (PoolId, u32, &PgMapChunk)> {
        let last = Key::PgMap(PoolId(u32::MAX), u32::MAX);
        self.range(Key::PgMap(PoolId(0), 0), last).filter_map(|entry| match entry {
            (Key::PgMap(pool, chunk), Value::PgMap(maps)) => Some((*pool, *chunk, maps)),
            _ => None,
        })
    }

    /// The map of a group, with the revision of its chunk's key, which transactions compare.
    pub fn pg_map(&self, pg: PgId) -> Option<(&PgMap, Revision)> {
        let (chunk, revision) = self.pg_chunk(pg.pool, pg.number.0 / PGS_PER_CHUNK);
        Some((chunk?.0.get(&pg.number)?, revision))
    }

    /// All groups that have a map.
    pub fn pg_maps(&self) -> impl Iterator<Item = (PgId, &PgMap)> {
        self.pg_chunks()
            .flat_map(|(pool, _, maps)| maps.0.iter().map(move |(number, map)| (PgId { pool, number: *number }, map)))
    }

    /// Those of them that are of their pool's layout in force.
    pub fn groups(&self) -> impl Iterator<Item = (PgId, &PgMap)> {
        let in_force = |pg: PgId| self.layout(pg.pool).is_some_and(|layout| layout.now.contains(pg.number));
        self.pg_maps().filter(move |(pg, _)| in_force(*pg))
    }

    /// Histories, for those who follow `pg/history/` (monitors; a group's OSDs read their own).
    pub fn history(&self, pg: PgId) -> Option<&History> {
        match self.value(Key::History(pg)) {
            Some(Value::History(history)) => Some(history),
            _ => None,
        }
    }

    /// The groups of a pool that have a history.
    pub fn histories(&self, pool: PoolId) -> impl Iterator<Item = (PgId, &History)> {
        let of = |number| Key::History(PgId { pool, number: PgNumber(number) });
        self.range(of(0), of(u32::MAX)).filter_map(|entry| match entry {
            (Key::History(pg), Value::History(history)) => Some((*pg, history)),
            _ => None,
        })
    }

    /// Wishes of primaries, with the revision of the key.
    pub fn wishes(&self) -> impl Iterator<Item = (PgId, &Wish, Revision)> {
        let range = Key::Wish(PG_MIN)..=Key::Wish(PG_MAX);
        self.values.range(range).filter_map(|(key, kept)| match (key, &kept.value) {
            (Key::Wish(pg), Value::Wish(wish)) => Some((*pg, wish, Revision(kept.mod_revision))),
            _ => None,
        })
    }

    /// The order to scrub a group, with the revision of its key.
    pub fn scrub_order(&self, pg: PgId) -> Option<(ScrubOrder, u64)> {
        match self.value(Key::ScrubOrder(pg)) {
            Some(Value::ScrubOrder(order)) => Some((*order, self.mod_revision(Key::ScrubOrder(pg)))),
            _ => None,
        }
    }

    /// The groups of a pool that an order to scrub is given for.
    pub fn scrub_orders(&self, pool: PoolId) -> impl Iterator<Item = PgId> {
        let of = |number| Key::ScrubOrder(PgId { pool, number: PgNumber(number) });
        self.range(of(0), of(u32::MAX)).filter_map(|(key, _)| match key {
            Key::ScrubOrder(pg) => Some(*pg),
            _ => None,
        })
    }

    /// The wish of a group's primary.
    pub fn wish(&self, pg: PgId) -> Option<&Wish> {
        match self.value(Key::Wish(pg)) {
            Some(Value::Wish(wish)) => Some(wish),
            _ => None,
        }
    }

    /// The leading monitor, with the revision at which its leadership began.
    pub fn leader(&self) -> Option<(&Leader, Revision)> {
        let kept = self.values.get(&Key::Leader)?;
        match &kept.value {
            Value::Leader(leader) => Some((leader, Revision(kept.create_revision))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
