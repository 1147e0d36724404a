//! Maps of groups: the monitor's part is played by chance, within the rules that it keeps.

use super::*;

impl World {
    pub(super) fn read_one(&self, key: String) -> Option<meta::KeyValue> {
        let kvs = self.meta.range(&meta::Span::one(key), 0).expect("never compacted");
        kvs.first().map(|kv| meta::KeyValue::clone(kv))
    }

    pub(super) fn view(&self) -> View {
        let layout = self.read_one(keys::layout(POOL)).expect("written at the start");
        let PoolLayout { now, before } = serde_json::from_slice(&layout.value).unwrap();
        let chunk = self.read_one(keys::pg_map(POOL, PgNumber::new(now.generation, 0).0 / PGS_PER_CHUNK));
        let chunk_revision = chunk.as_ref().map_or(0, |kv| kv.mod_revision);
        let PgMapChunk(maps) = chunk.map(|kv| serde_json::from_slice(&kv.value).unwrap()).unwrap_or_default();
        View { layout: now, before, maps, chunk_revision, revision: self.meta.revision() }
    }

    /// The map of the first group.
    pub(super) fn current_map(&self) -> (PgMap, u64) {
        let view = self.view();
        (view.map(PgNumber::new(view.layout.generation, 0)), view.chunk_revision)
    }

    /// The first group.
    pub(super) fn first_group(&self) -> PgId {
        PgId { pool: POOL, number: PgNumber::new(self.view().layout.generation, 0) }
    }

    pub(super) fn recorded(&self, pg: PgId) -> History {
        self.read_one(keys::pg_history(pg)).map(|kv| serde_json::from_slice(&kv.value).unwrap()).unwrap_or_default()
    }

    pub(super) fn member(&self, osd: usize) -> ActingMember {
        ActingMember {
            osd: osd_id(osd),
            store: self.osds[osd].uuid,
            incarnation: Incarnation(self.osds[osd].incarnation),
        }
    }

    pub(super) fn wishes(&self, pg: PgId, primary: Option<OsdId>) -> Vec<OsdId> {
        let osd = primary.map(|osd| osd.0 as usize);
        let groups = osd.and_then(|osd| self.osds[osd].groups.as_ref());
        groups.and_then(|groups| groups.get(pg)?.wish()).map(|wish| wish.without).unwrap_or_default()
    }

    /// Another map for some group; when all faults are over, for all.
    pub(super) fn new_map(&mut self) {
        let layout = self.view().layout;
        let mut numbers: Vec<PgNumber> = layout.numbers().collect();
        if !self.healing && numbers.len() > 1 {
            numbers = vec![numbers[self.rng.below(numbers.len() as u64) as usize]];
        }
        for number in numbers {
            self.new_map_of(number);
        }
    }

    pub(super) fn new_map_of(&mut self, number: PgNumber) {
        let view = self.view();
        let old = view.map(number);
        if old.epoch == Epoch(0) && view.before.is_some() {
            // It begins as what was there before it.
            return self.after(1_000, What::Relayout);
        }
        let unwanted = self.wishes(PgId { pool: POOL, number }, old.primary);
        let mut up: Vec<usize> = (0..self.osds.len())
            .filter(|osd| self.is_up(*osd) && (self.healing || !unwanted.contains(&osd_id(*osd))))
            .collect();
        if !self.healing {
            for index in 0..up.len() {
                let other = self.rng.below(up.len() as u64) as usize;
                up.swap(index, other);
            }
            // Mostly those that serve already.
            if self.rng.chance(2, 3) {
                up.sort_by_key(|osd| {
                    let cut_off = self.osds[*osd].cut_off_until > self.now;
                    (cut_off, !old.acting.iter().flatten().any(|member| member.osd == osd_id(*osd)))
                });
            }
        }
        let (least, most) = (self.shape.pool.pg_minsize, self.shape.pool.pg_size);
        let size = if self.healing { most.into() } else { self.rng.between(least.into(), most.into()) as usize };
        up.truncate(size);
        let acting = if self.shape.is_replicated() {
            up.iter().map(|osd| Some(self.member(*osd))).collect()
        } else {
            self.in_roles(&old, &up)
        };
        let members: Vec<ActingMember> = acting.iter().copied().flatten().collect();
        let primary =
            if members.is_empty() { None } else { Some(members[self.rng.below(members.len() as u64) as usize]) };
        let primary = if self.healing { members.first().copied() } else { primary };
        let map = PgMap {
            epoch: Epoch(old.epoch.0 + 1),
            // At rest, where OSDs that come back belong; else every change is one of placement.
            target: if self.healing {
                (0..usize::from(most)).map(|osd| Some(osd_id(osd))).collect()
            } else {
                Vec::new()
            },
            acting,
            primary: primary.map(|member| member.osd),
            primary_since: Epoch(0),
        };
        let same = old.acting == map.acting && old.primary == map.primary;
        if same && (self.healing || self.rng.chance(3, 4)) {
            return;
        }
        self.log(|| format!("map of {number:?} {map:?}"));
        self.install([(number, map)].into());
    }

    /// Writes maps, and spreads the news.
    pub(super) fn install(&mut self, maps: BTreeMap<PgNumber, PgMap>) {
        let mut view = self.view();
        view.maps.extend(maps);
        let chunk = PgMapChunk(view.maps);
        let key = keys::pg_map(POOL, PgNumber::new(view.layout.generation, 0).0 / PGS_PER_CHUNK);
        let put = meta::TxnOp::Put { key, value: serde_json::to_vec(&chunk).unwrap(), lease: 0 };
        let txn = meta::Txn { compare: Vec::new(), success: vec![put], failure: Vec::new() };
        self.meta.apply(self.now, meta::Request::Txn(txn)).unwrap();
        self.spread();
    }

    pub(super) fn spread(&mut self) {
        let view = self.view();
        for osd in 0..self.osds.len() {
            let incarnation = self.osds[osd].incarnation;
            let delay =
                if self.rng.chance(1, 4) { self.rng.between(1_000, 600_000) } else { self.rng.between(100, 3_000) };
            self.after(delay, What::Notice { osd, incarnation, view: view.clone() });
        }
        for client in 0..CLIENTS {
            let delay = if self.rng.chance(1, 2) { 500_000 } else { 20_000 };
            let delay = self.rng.between(100, delay);
            self.after(delay, What::ClientMap { client, view: view.clone() });
        }
    }

    /// Gives roles, mostly the old ones.
    pub(super) fn in_roles(&mut self, old: &PgMap, osds: &[usize]) -> Vec<Option<ActingMember>> {
        let mut acting = vec![None; self.shape.pool.pg_size.into()];
        let mut rest = Vec::new();
        for osd in osds {
            let role = old.acting.iter().position(|member| member.is_some_and(|member| member.osd == osd_id(*osd)));
            match role {
                Some(role) if self.healing || self.rng.chance(9, 10) => acting[role] = Some(self.member(*osd)),
                _ => rest.push(*osd),
            }
        }
        for osd in rest {
            let free: Vec<usize> = (0..acting.len()).filter(|role| acting[*role].is_none()).collect();
            let home = self.osds[osd].home.filter(|role| self.healing && free.contains(role));
            let role = home.unwrap_or_else(|| free[self.rng.below(free.len() as u64) as usize]);
            self.osds[osd].home = Some(role);
            acting[role] = Some(self.member(osd));
        }
        acting
    }
}
