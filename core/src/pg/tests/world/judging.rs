//! Healing, and the judgement on what is left.

use super::*;

impl World {
    pub fn run_with_faults(&mut self) {
        let end = self.now + Duration::millis(3_000);
        while self.now < end && self.step() {}
    }

    /// Ends all faults; everything must become clean and every operation return.
    pub fn heal(&mut self) -> Result<(), String> {
        self.log(|| "healing".into());
        self.healing = true;
        for osd in &mut self.osds {
            osd.cut_off_until = self.now;
        }
        for osd in 0..self.osds.len() {
            if !self.is_up(osd) {
                self.start(osd);
            }
            self.osds[osd].groups.as_mut().expect("up").store_mut().set_space(Space::Enough);
        }
        self.new_map();
        self.after(1_000, What::Relayout);
        let end = self.now + Duration::secs(100);
        while self.now < end && !self.is_settled() {
            if self.links.len() < self.osds.len() * (self.osds.len() - 1) / 2 {
                for (a, b) in (0..self.osds.len()).flat_map(|a| (0..a).map(move |b| (a, b))) {
                    self.link(a, b);
                }
            }
            if !self.step() {
                break;
            }
        }
        if self.is_settled() { Ok(()) } else { Err(self.stuck()) }
    }

    pub(super) fn primary(&self) -> Option<&crate::pg::Pg> {
        self.primary_of(self.first_group())
    }

    fn primary_of(&self, pg: PgId) -> Option<&crate::pg::Pg> {
        self.osds[self.view().map(pg.number).primary?.0 as usize].groups.as_ref()?.get(pg)
    }

    /// All groups.
    fn all_groups(&self) -> impl Iterator<Item = PgId> + use<> {
        self.view().layout.numbers().map(|number| PgId { pool: POOL, number })
    }

    /// The group of an object, and its map.
    pub(super) fn map_of(&self, stripe: u64) -> (PgId, PgMap) {
        let view = self.view();
        let pg = view.layout.pg(object(stripe));
        (pg, view.map(pg.number))
    }

    pub(super) fn is_settled(&self) -> bool {
        let done = self.clients.iter().all(|client| client.left == 0 && client.op.is_none());
        let view = self.view();
        let is_clean = |pg: PgId| {
            let summary = self.primary_of(pg).and_then(|pg| pg.summary());
            summary.is_some_and(|summary| summary.clean && summary.epoch == view.map(pg.number).epoch)
        };
        let clean = done && self.is_laid_out() && self.all_groups().all(is_clean);
        clean && self.all_groups().all(|pg| (0..self.osds.len()).all(|osd| self.holds_its_role_only(pg, osd)))
    }

    pub(super) fn stuck(&self) -> String {
        let summaries: Vec<_> = self.all_groups().map(|pg| self.primary_of(pg).map(|pg| pg.summary())).collect();
        let histories: Vec<_> = self.all_groups().map(|pg| self.recorded(pg)).collect();
        let clients: Vec<_> = self.clients.iter().map(|client| (client.left, &client.request)).collect();
        format!("stuck: {summaries:?}, {:?}, {histories:?}, clients {clients:?}", self.view())
    }

    /// The role of an acting OSD of the first group.
    pub(super) fn role_of(&self, osd: usize) -> Role {
        self.role_in(self.first_group(), osd)
    }

    /// The role of an acting OSD.
    pub(super) fn role_in(&self, pg: PgId, osd: usize) -> Role {
        let acting = self.view().map(pg.number).acting;
        let place = acting.iter().position(|member| member.is_some_and(|member| member.osd == osd_id(osd)));
        let role = place.filter(|_| !self.shape.is_replicated()).unwrap_or(0);
        Role(u8::try_from(role).unwrap())
    }

    pub(super) fn holds_its_role_only(&self, pg: PgId, osd: usize) -> bool {
        let view = self.view();
        let acts = view.map(pg.number).acting.iter().flatten().any(|member| member.osd == osd_id(osd));
        let store = self.osds[osd].groups.as_ref().expect("up").store();
        let roles = store.roles(POOL, view.layout.range(pg.number));
        roles.iter().all(|role| acts && *role == self.role_in(pg, osd))
    }

    pub(super) fn copies(&self, osd: usize) -> Vec<CopyInfo> {
        let mut copies = Vec::new();
        let (layout, groups) = (self.view().layout, self.osds[osd].groups.as_ref().expect("up"));
        for pg in self.all_groups() {
            groups.store().list(POOL, self.role_in(pg, osd), layout.range(pg.number), None, 1000, &mut copies);
        }
        copies
    }

    /// Objects of an OSD: newest version, and whether it is a tombstone.
    pub(super) fn newest(&self, osd: usize) -> Vec<(ObjectId, Version, bool)> {
        let newest = |info: CopyInfo| {
            let newest = info.prepared.or(info.committed).expect("one of them");
            (info.copy.object, newest.version, newest.tombstone)
        };
        self.copies(osd).into_iter().map(newest).collect()
    }

    /// The bytes of a copy's newest version.
    pub(super) fn bytes(&mut self, osd: usize, object: ObjectId) -> Vec<u8> {
        let copy = CopyId { object, role: self.role_in(self.view().layout.pg(object), osd) };
        let mut store = self.osds[osd].groups.as_ref().expect("up").store().clone();
        while store.is_busy() {
            let mut out = Effects::default();
            store.end_of_round(&mut Env { now: self.now, rng: &mut self.rng, bufs: &mut self.bufs, out: &mut out });
        }
        while store.next_completion().is_some() {}
        let mut out = Effects::default();
        let mut env = Env { now: self.now, rng: &mut self.rng, bufs: &mut self.bufs, out: &mut out };
        store.submit(&mut env, 0, StoreOp::ReadAll { copy, version: None });
        (0..10).for_each(|_| store.end_of_round(&mut env));
        match store.next_completion().expect("some rounds later").result {
            Ok(StoreReply::Whole { content: Content::Data { data, .. }, .. }) => data.buf.bytes().to_vec(),
            other => panic!("{copy:?}: {other:?}"),
        }
    }

    /// Parity must follow from data, in every stripe.
    pub(super) fn check_parity(&mut self) -> Result<(), String> {
        let pool = self.shape.pool.clone();
        let code = crate::ec::code(pool.data_chunks(), pool.parity_chunks, pool.scheme == Scheme::Xor);
        for (object, version, _) in self.newest(0).into_iter().filter(|(_, _, tombstone)| !tombstone) {
            let acting = self.view().map(self.view().layout.pg(object).number).acting;
            let osds: Vec<usize> = acting.iter().map(|member| member.expect("all up").osd.0 as usize).collect();
            let mut chunks: Vec<Vec<u8>> = osds.iter().map(|osd| self.bytes(*osd, object)).collect();
            chunks.iter_mut().for_each(|bytes| bytes.resize(BLOCK as usize, 0));
            for parity in pool.data_chunks()..pool.pg_size {
                let mut made = vec![0; BLOCK as usize];
                (0..pool.data_chunks()).for_each(|data| code.add(data, &chunks[usize::from(data)], parity, &mut made));
                if made != chunks[usize::from(parity)] {
                    return Err(format!("{object:?} at {version}: parity {parity} does not fit the data"));
                }
            }
        }
        Ok(())
    }

    pub fn verdict(&mut self) -> Result<(), String> {
        if let Some(problem) = self.problem.take() {
            return Err(problem);
        }
        for (stripe, moments) in &mut self.history {
            forget_unseen(moments);
            if let Err(index) = linearizable(moments) {
                let from = index.saturating_sub(12);
                return Err(format!("object {stripe} is not linearizable at {:?}", &moments[from..=index]));
            }
        }
        let groups = self.osds.iter().filter_map(|osd| osd.groups.as_ref());
        for (_, pg) in groups.flat_map(|groups| groups.iter()) {
            let report = pg.summary().unwrap_or_default().scrub;
            if report.inconsistent + report.damaged + report.outdated > 0 {
                return Err(format!("a scrub found what nobody did: {report:?}"));
            }
        }
        self.verdict_of_copies()
    }

    /// Whether the acting members have the same, and all that was acknowledged.
    pub fn verdict_of_copies(&mut self) -> Result<(), String> {
        let first = self.newest(0);
        for osd in 1..usize::from(self.shape.pool.pg_size) {
            let other = self.newest(osd);
            if first != other {
                return Err(format!("osd.0 has {first:?}, osd.{osd} has {other:?}"));
            }
        }
        for (object, version, _) in &first {
            let acknowledged = self.acknowledged.get(object).copied().unwrap_or(Version::NONE);
            if *version < acknowledged {
                return Err(format!("{object:?} is at {version}, but {acknowledged} was acknowledged"));
            }
        }
        if self.shape.is_replicated() { Ok(()) } else { self.check_parity() }
    }
}
