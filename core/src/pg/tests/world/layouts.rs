//! How the pool's hashes are cut into groups, and how that changes: the monitor's part is played by its own code.

use super::*;
use crate::mon::plan::Write;
use crate::mon::relayout;

/// Most groups: more than objects.
const GROUPS_MAX: u64 = 6;

impl World {
    pub(super) fn first_layout(&mut self) {
        if self.faults.counts {
            self.shape.pool.pg_count = 2;
        }
        let key = keys::layout(POOL);
        let value = serde_json::to_vec(&PoolLayout::first(self.shape.pool.pg_count)).unwrap();
        let put = meta::TxnOp::Put { key, value, lease: 0 };
        let txn = meta::Txn { compare: Vec::new(), success: vec![put], failure: Vec::new() };
        self.meta.apply(self.now, meta::Request::Txn(txn)).unwrap();
    }

    /// How often the number of groups has changed.
    pub fn generation(&self) -> u16 {
        self.view().layout.generation
    }

    /// Somebody wants another number of groups.
    pub fn set_count(&mut self, count: u32) {
        self.log(|| format!("{count} groups are wanted"));
        self.shape.pool.pg_count = count;
        self.after(500, What::Relayout);
    }

    pub(super) fn change_count(&mut self) {
        let count = u32::try_from(self.rng.between(1, GROUPS_MAX)).unwrap();
        self.set_count(count);
    }

    /// The monitor looks at layouts, and does what is next.
    pub(super) fn relayout(&mut self) {
        if self.healing || self.rng.chance(3, 4) {
            let kvs = self.meta.range(&meta::Span::prefix(crate::map::PREFIX), 0).expect("never compacted");
            let kvs: Vec<meta::KeyValue> = kvs.iter().map(|kv| meta::KeyValue::clone(kv)).collect();
            self.monitor.apply_range(&kvs, self.meta.revision());
        }
        let mut writes = Vec::new();
        if self.monitor.layout(POOL).is_some() {
            relayout::plan(&self.monitor, POOL, &self.shape.pool, &mut writes);
            writes.extend(relayout::deletions(&self.monitor, POOL));
        }
        if !writes.is_empty() && self.carry_out(writes) {
            self.log(|| format!("layout {:?}", self.view()));
            self.spread();
        }
        self.found_groups();
        if !self.is_laid_out() {
            let delay = self.rng.between(500, 40_000);
            self.after(delay, What::Relayout);
        }
    }

    fn carry_out(&mut self, writes: Vec<Write>) -> bool {
        let compare =
            writes.iter().map(|write| meta::Compare::ModRevision(write.name.clone(), write.revision)).collect();
        let op = |write: Write| match write.value {
            Some(value) => meta::TxnOp::Put { key: write.name, value, lease: 0 },
            None => meta::TxnOp::Delete(meta::Keys::One(write.name)),
        };
        let success = writes.into_iter().map(op).collect();
        let txn = meta::Txn { compare, success, failure: Vec::new() };
        let done = self.meta.apply(self.now, meta::Request::Txn(txn)).unwrap();
        matches!(done, meta::Response::Txn { succeeded: true, .. })
    }

    /// New groups get maps; those whose epoch turns out to be too low, higher ones.
    fn found_groups(&mut self) {
        let view = self.view();
        let layout = PoolLayout { now: view.layout, before: view.before };
        let mut maps = BTreeMap::new();
        for number in layout.now.numbers() {
            let Some(heritage) = relayout::inheritance(&self.monitor, layout, PgId { pool: POOL, number }) else {
                continue;
            };
            let present = view.map(number);
            if present.epoch > heritage.floor {
                continue;
            }
            let map = if present.epoch == Epoch(0) { heritage.map } else { present };
            let members: Vec<OsdId> = map.acting.iter().flatten().map(|member| member.osd).collect();
            let primary = map.primary.or(members.first().copied());
            maps.insert(number, PgMap { epoch: Epoch(heritage.floor.0 + 1), primary, ..map });
        }
        if !maps.is_empty() {
            self.log(|| format!("groups begin: {maps:?}"));
            self.install(maps);
        }
    }

    /// Whether there are as many groups as are wanted, and nothing is left of others.
    pub(super) fn is_laid_out(&self) -> bool {
        let view = self.view();
        let histories = self.meta.range(&meta::Span::prefix("/ashlar/pg/history/"), 0).expect("never compacted");
        let generation = |kv: &meta::KeyValue| {
            let number: u32 =
                kv.key.rsplit('/').next().and_then(|number| number.parse().ok()).expect("a group's number");
            PgNumber(number).generation()
        };
        let old = histories.iter().any(|kv| generation(kv) != view.layout.generation);
        view.layout.pg_count == self.shape.pool.pg_count && view.before.is_none() && !old
    }

    /// An OSD hears of the pool's groups. Here it keeps all of them, whether they concern it or not.
    pub(super) fn hear(&mut self, osd: usize, view: View) {
        let pool = self.shape.pool.clone();
        self.with(osd, |groups, env| {
            groups.set_layout(env, POOL, PoolLayout { now: view.layout, before: view.before });
            let layout = groups.node().layouts[&POOL].now;
            for number in layout.numbers() {
                let id = PgId { pool: POOL, number };
                groups.create(id, &pool);
                if let Some(map) = view.maps.get(&number) {
                    groups.with(env, id, |pg, host| pg.map_changed(host, map, Revision(view.chunk_revision)));
                }
                groups.take_early(env, id);
            }
        });
    }

    /// A client hears of it; nothing goes back.
    pub(super) fn client_hears(&mut self, client: usize, view: View) {
        let known = &mut self.clients[client].view;
        if view.layout.generation > known.layout.generation || known.layout.pg_count == 0 {
            *known = view;
        } else if view.layout == known.layout {
            for (number, map) in view.maps {
                if map.epoch > known.map(number).epoch {
                    known.maps.insert(number, map);
                }
            }
        }
    }
}
