//! What the leader has to write now: a pure function of the cluster map, verdicts and targets.
//!
//! Owns the comparison of what is with what should be. Does not own when it is made, nor the writing.
//! Invariant: every write names the revision of the value that it was worked out from.

use super::acting::{Group, Usable, UsableOsds, wish_in_force};
use super::attendance::{Attendance, Standing};
use super::load::Load;
use super::relayout::{self, Inheritance, inheritance};
use super::retire;
use super::targets::Targets;
use crate::id::{Epoch, InodeId, OsdId, PgId, PgNumber, PoolId};
use crate::map::parse::Key;
use crate::map::place::survey::{acting_level, is_affine};
use crate::map::tree::node_of;
use crate::map::{
    ActingMember, ClusterMap, OsdRecord, OsdState, PGS_PER_CHUNK, PgMap, PgMapChunk, Pool, PoolLayout, keys,
};
use crate::meta::Keys;
use crate::planted::{Bug, planted};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Primaries moved for balance at a time, as a part of a pool's groups: each move stops a group for a peering.
const BALANCE_PART: usize = 16;

/// A key to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Its name.
    pub name: String,
    /// What it is.
    pub key: Key,
    /// Its new value; `None`: deleted.
    pub value: Option<Vec<u8>>,
    /// Revision of the present value; 0: there is none.
    pub revision: u64,
    /// A key that must not exist. Parts of the store are followed each at its own pace: that one is absent in the map may
    /// be old news beside the others.
    pub unless: Option<String>,
    /// Keys that are deleted with it, whatever they say.
    pub also: Vec<Keys>,
}

impl Write {
    /// Puts a value, or deletes it, if its present revision is this.
    pub fn new(name: String, key: Key, value: Option<Vec<u8>>, revision: u64) -> Self {
        Write { name, key, value, revision, unless: None, also: Vec::new() }
    }
}

/// What a plan starts from.
pub struct Situation<'a> {
    /// Everything that was read.
    pub map: &'a ClusterMap,
    /// OSDs that are up.
    pub up: &'a BTreeMap<OsdId, &'a OsdState>,
    /// OSDs that have been down for too long.
    pub expired: &'a BTreeSet<OsdId>,
    /// For how long OSDs have been up or down.
    pub attendance: &'a Attendance,
    /// Where placement wants groups.
    pub targets: &'a Targets,
    /// Whether primaries may be moved for balance now.
    pub balance: bool,
}

impl Situation<'_> {
    /// Everything that differs from what should be; the most urgent first.
    pub fn plan(&self) -> Vec<Write> {
        let mut writes = Vec::new();
        for (id, pool) in self.map.pools() {
            self.plan_pool(id, pool, &mut writes);
        }
        self.plan_records(&mut writes);
        self.plan_wishes(&mut writes);
        self.plan_removals(&mut writes);
        writes.extend(self.map.pools().flat_map(|(id, _)| relayout::deletions(self.map, id)));
        retire::plan(self.map, &mut writes);
        writes
    }

    fn plan_pool(&self, id: PoolId, pool: &Pool, writes: &mut Vec<Write>) {
        relayout::plan(self.map, id, pool, writes);
        let layout = self.layout(id, pool);
        let usable = self.usable(pool);
        let mut load = self.load(id, layout);
        let mut maps = self.next_maps(id, pool, layout, &usable, &mut load);
        if self.balance {
            self.balance_primaries(id, pool, (layout, &usable), &mut maps, &mut load);
        }
        let mut chunks: BTreeMap<u32, PgMapChunk> = BTreeMap::new();
        for (number, map) in maps {
            chunks.entry(number.0 / PGS_PER_CHUNK).or_default().0.insert(number, map);
        }
        for (chunk, maps) in chunks {
            self.plan_chunk(id, chunk, maps, writes);
        }
    }

    /// The layout in force, or the one that is being written.
    fn layout(&self, id: PoolId, pool: &Pool) -> PoolLayout {
        self.map.layout(id).unwrap_or_else(|| relayout::first_layout(self.map, id, pool))
    }

    /// OSDs that may act: up, and with a store that can be trusted.
    fn usable(&self, pool: &Pool) -> UsableOsds {
        let level = acting_level(self.map, pool);
        let trusted = self.up.iter().filter(|(_, state)| state.trusted);
        let usable = |(osd, state): (&OsdId, &&OsdState)| {
            let member = ActingMember { osd: *osd, store: state.store, incarnation: state.incarnation };
            let domain = node_of(self.map.tree(), *osd, &state.host, &level);
            (*osd, Usable { member, domain, affine: is_affine(self.map, pool, *osd) })
        };
        trusted.map(usable).collect()
    }

    fn load(&self, pool: PoolId, layout: PoolLayout) -> Load {
        let mut load = Load::default();
        for (_, map) in self.map.pg_maps().filter(|(pg, _)| pg.pool == pool && layout.now.contains(pg.number)) {
            load.count_primary(None, map.primary);
        }
        for pg in layout.now.numbers().map(|number| PgId { pool, number }) {
            let target = self.targets.target(pg).or_else(|| Some(&self.map.pg_map(pg)?.0.target));
            target.into_iter().flatten().flatten().for_each(|osd| load.count_member(*osd));
        }
        load
    }

    fn next_maps(
        &self,
        id: PoolId,
        pool: &Pool,
        layout: PoolLayout,
        usable: &UsableOsds,
        load: &mut Load,
    ) -> BTreeMap<PgNumber, PgMap> {
        let mut maps = BTreeMap::new();
        for number in layout.now.numbers() {
            let pg = PgId { pool: id, number };
            let inherited = inheritance(self.map, layout, pg);
            if let Some(group) = self.group(pg, pool, inherited.as_ref()) {
                maps.insert(number, group.next_map(usable, load));
            }
        }
        maps
    }

    /// What is known of a group; `None`: it is new and has no place yet.
    fn group<'b>(&'b self, pg: PgId, pool: &'b Pool, inherited: Option<&'b Inheritance>) -> Option<Group<'b>> {
        let own = self.map.pg_map(pg).map(|(map, _)| map);
        let map = own.or(inherited.map(|inherited| &inherited.map));
        let history = self.map.history(pg).or(inherited.map(|inherited| &inherited.history));
        // A group that takes over objects begins where they are.
        let target = self.targets.target(pg).filter(|_| own.is_some() || inherited.is_none());
        let target = target.or(map.map(|map| map.target.as_slice()))?;
        let floor = inherited.map_or(Epoch(0), |inherited| inherited.floor);
        Some(Group { pool, map, target, history, wish: self.map.wish(pg), floor })
    }

    /// Moves some primaries from OSDs that have more than others, once everything else is done.
    fn balance_primaries(
        &self,
        id: PoolId,
        pool: &Pool,
        (layout, usable): (PoolLayout, &UsableOsds),
        maps: &mut BTreeMap<PgNumber, PgMap>,
        load: &mut Load,
    ) {
        let settled = |(number, next): (&PgNumber, &PgMap)| {
            let pg = PgId { pool: id, number: *number };
            let inherited = inheritance(self.map, layout, pg);
            let group = self.group(pg, pool, inherited.as_ref());
            group.is_some_and(|group| group.map == Some(next) && group.is_settled())
        };
        if !maps.iter().all(settled) {
            return;
        }
        let mut left = maps.len().div_ceil(BALANCE_PART);
        for map in maps.values_mut() {
            let Some(better) = load.better(map, usable).filter(|_| left > 0) else { continue };
            left -= 1;
            load.count_primary(map.primary, Some(better));
            map.primary = Some(better);
            map.epoch = Epoch(map.epoch.0 + 1);
        }
    }

    fn plan_chunk(&self, pool: PoolId, chunk: u32, mut maps: PgMapChunk, writes: &mut Vec<Write>) {
        let key = Key::PgMap(pool, chunk);
        let (present, revision) = self.map.pg_chunk(pool, chunk);
        // Groups that have no place yet, or are nobody's, stay as they are.
        for (number, map) in present.iter().flat_map(|chunk| &chunk.0) {
            maps.0.entry(*number).or_insert_with(|| map.clone());
        }
        if present != Some(&maps) && !self.map.is_refused(key) {
            let value = Some(json(&maps));
            writes.push(Write::new(keys::pg_map(pool, chunk), key, value, revision.0));
        }
    }

    /// What is remembered of each OSD that is up, and who is out.
    fn plan_records(&self, writes: &mut Vec<Write>) {
        for (osd, state) in self.map.osd_states() {
            let out = if self.up.get(&osd).is_some_and(|state| state.trusted) {
                false
            } else {
                self.expired.contains(&osd) || self.map.osd_record(osd).is_some_and(|record| record.out)
            };
            let (host, size_bytes, immediate_commit) = (state.host.clone(), state.size_bytes, state.immediate_commit);
            let record = OsdRecord { host, size_bytes, immediate_commit, out, ..OsdRecord::default() };
            self.plan_record(osd, record, writes);
        }
        for (osd, record) in self.map.osd_records().filter(|(osd, _)| self.map.osd_state(*osd).is_none()) {
            let out = record.out || self.expired.contains(&osd);
            self.plan_record(osd, OsdRecord { out, ..record.clone() }, writes);
        }
    }

    fn plan_record(&self, osd: OsdId, record: OsdRecord, writes: &mut Vec<Write>) {
        let key = Key::OsdRecord(osd);
        let Standing { incarnation, falls, down_s } = self.attendance.standing(osd);
        let record = OsdRecord { incarnation, falls, down_s, ..record };
        if self.map.osd_record(osd) != Some(&record) && !self.map.is_refused(key) {
            let (value, revision) = (Some(json(&record)), self.map.mod_revision(key));
            writes.push(Write::new(keys::osd_record(osd), key, value, revision));
        }
    }

    /// Wishes that bind no more are deleted. Their epoch tells: one of an epoch to come is left alone.
    fn plan_wishes(&self, writes: &mut Vec<Write>) {
        for (pg, wish, revision) in self.map.wishes() {
            let Some(pool) = self.map.pool(pg.pool) else { continue };
            let map = self.map.pg_map(pg).map(|(map, _)| map);
            let past = map.is_some_and(|map| wish.epoch < map.epoch);
            if past && !wish_in_force(wish, map, &self.usable(pool)) {
                let (name, key) = (keys::pg_wish(pg), Key::Wish(pg));
                writes.push(Write::new(name, key, None, revision.0));
            }
        }
    }

    /// Images of which no group has anything left are gone; the groups' reports go after them. A report that is known
    /// earlier than its image's mark stays: the group will not write it again.
    fn plan_removals(&self, writes: &mut Vec<Write>) {
        for (pool, inode, _) in self.map.images().filter(|(.., image)| image.removing) {
            let key = Key::Image(pool, inode);
            if self.is_removed(pool, inode) && !self.map.is_refused(key) {
                let (name, revision) = (keys::image(pool, inode), self.map.mod_revision(key));
                writes.push(Write::new(name, key, None, revision));
            }
        }
        for (inode, pg) in self.map.removals() {
            let image = Key::Image(pg.pool, inode);
            if self.map.mod_revision(image) == 0 && !self.map.is_refused(image) {
                let key = Key::Removed(pg.pool, inode, pg.number);
                let (name, revision) = (keys::removed(pg, inode), self.map.mod_revision(key));
                let unless = Some(keys::image(pg.pool, inode)).filter(|_| !planted(Bug::DropEarlyReports));
                writes.push(Write { unless, ..Write::new(name, key, None, revision) });
            }
        }
    }

    /// Whether every group says so.
    fn is_removed(&self, pool: PoolId, inode: InodeId) -> bool {
        let Some(layout) = self.map.layout(pool).map(|layout| layout.now) else { return false };
        let reported = self.map.removed_from(pool, inode).filter(|number| layout.contains(*number)).count();
        u32::try_from(reported) == Ok(layout.pg_count)
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data has a JSON form")
}
