//! One request after the other, and what tests do to single copies.

use super::*;

impl World {
    /// Sends one request of the test itself, and gives the answer. Refusals that ask for a retry are retried.
    pub fn ask(&mut self, stripe: u64, op: RequestOp) -> Result<Answer, Refusal> {
        self.asked += 1;
        self.ask_again(stripe, op)
    }

    /// A request of the test itself, as a client sends it that knows the present map; and to whom.
    fn request_of(&self, stripe: u64, number: u64, op: RequestOp) -> (usize, Request) {
        let session = Session { client: ClientId(TESTER as u64), number: 1 };
        let (pg, map) = self.map_of(stripe);
        let request = Request {
            id: RequestId { session, number },
            seen: 0,
            object: object(stripe),
            generation: pg.number.generation(),
            epoch: map.epoch,
            class: Default::default(),
            tenant: 0,
            op,
        };
        (map.primary.expect("somebody is primary").0 as usize, request)
    }

    fn send_of(&mut self, to: usize, request: Request) {
        let link = LinkId(1 << 8 | TESTER as u64);
        self.at(self.now, What::Message { to, link, msg: Message::Request(request) });
    }

    /// Its answer, if it comes soon.
    fn answer_to(&mut self, (to, request): (usize, Request)) -> Option<Result<Answer, Refusal>> {
        self.answer = None;
        self.send_of(to, request);
        let end = self.now + Duration::millis(50);
        while self.answer.is_none() && self.now < end && self.step() {}
        self.answer.take().map(|reply| reply.outcome)
    }

    /// Sends the test's last request again.
    pub fn ask_again(&mut self, stripe: u64, op: RequestOp) -> Result<Answer, Refusal> {
        for _ in 0..1000 {
            let request = self.request_of(stripe, self.asked, op.clone());
            match self.answer_to(request) {
                None | Some(Err(Refusal::WrongEpoch(_) | Refusal::NotPrimary | Refusal::Again)) => {}
                Some(outcome) => return outcome,
            }
        }
        panic!("no answer to {op:?}")
    }

    /// Sends a read once, as a client does that found the object's group by the layout of this generation.
    pub fn ask_by_layout(&mut self, stripe: u64, generation: u16) -> Option<Result<Answer, Refusal>> {
        let (to, request) = self.request_of(stripe, 1 << 63, RequestOp::Read { offset: 0, len: 512 });
        self.answer_to((to, Request { generation, ..request }))
    }

    /// Sends writes of the test itself, one after the other without a pause, and waits for all.
    pub fn write_at_once(&mut self, stripe: u64, writes: &[(u32, u32)]) {
        for (offset, len) in writes {
            self.asked += 1;
            let data = Data::new(self.bufs.zeroed(*len).freeze());
            let op = RequestOp::Write { offset: *offset, data, expect: None };
            let (to, request) = self.request_of(stripe, self.asked, op);
            self.send_of(to, request);
        }
        for _ in writes {
            self.answer = None;
            while self.answer.is_none() && self.step() {}
            let outcome = self.answer.take().map(|reply| reply.outcome);
            assert!(matches!(outcome, Some(Ok(Answer::Written { .. }))), "{outcome:?}");
        }
    }

    /// The primary's role.
    pub fn primary_role(&self) -> u8 {
        self.role_of(self.acting()[0].0 as usize).0
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end && self.step() {}
    }

    /// Writes a value, as the test itself.
    pub fn try_put(&mut self, stripe: u64, value: u64) -> Result<Answer, Refusal> {
        let data = sector(&mut self.bufs, value);
        self.ask(stripe, RequestOp::Write { offset: 0, data, expect: None })
    }

    /// The same; it must succeed.
    pub fn put(&mut self, stripe: u64, value: u64) {
        self.try_put(stripe, value).expect("a write succeeds");
    }

    /// Fills bytes of an object.
    pub fn fill(&mut self, stripe: u64, offset: u32, len: u32, byte: u8) {
        let data = Data::new(self.bufs.copy_of(&vec![byte; len as usize]));
        let answer = self.ask(stripe, RequestOp::Write { offset, data, expect: None });
        assert!(matches!(answer, Ok(Answer::Written { .. })), "{answer:?}");
    }

    /// The bytes of an object.
    pub fn read_bytes(&mut self, stripe: u64, offset: u32, len: u32) -> Vec<u8> {
        match self.ask(stripe, RequestOp::Read { offset, len }) {
            Ok(Answer::Read { data, .. }) => data.buf.bytes().to_vec(),
            other => panic!("{other:?}"),
        }
    }

    /// An OSD goes down, until it is brought back.
    pub fn take_away(&mut self, osd: usize) {
        self.crash(osd);
        self.pass(Duration::millis(500));
    }

    /// An OSD that was taken away comes back.
    pub fn bring_back(&mut self, osd: usize) {
        self.start(osd);
        self.pass(Duration::millis(500));
    }

    /// Goes on until the group is clean, with the OSDs that are up.
    pub fn become_clean(&mut self) {
        let end = self.now + Duration::secs(60);
        let is_clean = |world: &World| {
            let epoch = world.current_map().0.epoch;
            let summary = world.primary().and_then(|pg| pg.summary());
            summary.is_some_and(|summary| summary.clean && summary.epoch == epoch)
        };
        while !is_clean(self) {
            assert!(self.now < end, "{}", self.stuck());
            for (a, b) in (0..self.osds.len()).flat_map(|a| (0..a).map(move |b| (a, b))) {
                self.link(a, b);
            }
            assert!(self.step(), "nothing goes on");
        }
    }

    /// A store refuses new objects, or no longer, be it up or down.
    pub fn set_full_of(&mut self, osd: usize, full: bool) {
        let (entry, space) = (&mut self.osds[osd], if full { Space::NoneForNew } else { Space::Enough });
        match (&mut entry.groups, &mut entry.store) {
            (Some(groups), _) => groups.store_mut().set_space(space),
            (None, Some(store)) => store.set_space(space),
            (None, None) => unreachable!("an OSD has a store"),
        }
    }

    /// All stores refuse new objects, or no longer.
    pub fn set_full(&mut self, full: bool) {
        for osd in 0..self.osds.len() {
            self.set_full_of(osd, full);
        }
    }

    /// Reads a value, as the test itself.
    pub fn get(&mut self, stripe: u64) -> Result<u64, Refusal> {
        let answer = self.ask(stripe, RequestOp::Read { offset: 0, len: 512 })?;
        let Answer::Read { data, .. } = answer else { panic!("{answer:?}") };
        Ok(value_of(&data))
    }

    /// Damages the copy of an acting member.
    pub fn damage(&mut self, stripe: u64, osd: OsdId) {
        let role = self.role_in(self.map_of(stripe).0, osd.0 as usize);
        let groups = self.osds[osd.0 as usize].groups.as_mut().expect("up");
        groups.store_mut().damage(CopyId { object: object(stripe), role });
    }

    pub(super) fn store_of(&mut self, osd: OsdId) -> &mut ModelStore {
        self.osds[osd.0 as usize].groups.as_mut().expect("up").store_mut()
    }

    /// Alters the copy of an acting member, with matching checksums.
    pub fn alter(&mut self, stripe: u64, osd: OsdId) {
        let role = self.role_in(self.map_of(stripe).0, osd.0 as usize);
        self.store_of(osd).alter(CopyId { object: object(stripe), role });
    }

    /// Loses the copy of an acting member.
    pub fn lose(&mut self, stripe: u64, osd: OsdId) {
        let role = self.role_in(self.map_of(stripe).0, osd.0 as usize);
        self.store_of(osd).lose(CopyId { object: object(stripe), role });
    }

    /// Whether an acting member knows that its copy is damaged.
    pub fn is_damaged(&mut self, stripe: u64, osd: OsdId) -> bool {
        let role = self.role_in(self.map_of(stripe).0, osd.0 as usize);
        let info = self.store_of(osd).lookup(CopyId { object: object(stripe), role });
        info.and_then(|info| info.committed).is_some_and(|info| info.damaged)
    }

    /// Of the content of an acting member's copy.
    pub fn fingerprint(&mut self, stripe: u64, osd: OsdId) -> Option<u64> {
        let copy = CopyId { object: object(stripe), role: Role(0) };
        self.store_of(osd).contents(copy).next().map(|(_, fingerprint)| fingerprint)
    }

    /// Who holds a role.
    pub fn holder_of(&self, role: u8) -> OsdId {
        self.current_map().0.acting[usize::from(role)].expect("nobody is missing").osd
    }

    /// Orders a scrub.
    pub fn order_scrub(&mut self, order: ScrubOrder) {
        self.asked += 1;
        let (pg, osd, order) = (self.first_group(), self.acting()[0].0 as usize, Some((order, self.asked)));
        self.marks.remove("a scrub has come to its end");
        self.with(osd, |groups, env| {
            groups.with(env, pg, |pg, host| pg.scrub_ordered(host, order));
        });
    }

    /// Orders a scrub, and goes on until it has come to its end.
    pub fn scrub(&mut self, order: ScrubOrder) {
        self.order_scrub(order);
        let end = self.now + Duration::secs(60);
        while self.now < end && !self.marks.contains("a scrub has come to its end") && self.step() {}
        assert!(self.now < end, "the scrub does not end");
    }

    /// The acting members, the primary first.
    pub fn acting(&self) -> Vec<OsdId> {
        let (map, _) = self.current_map();
        let mut acting: Vec<OsdId> = map.acting.iter().flatten().map(|member| member.osd).collect();
        acting.sort_by_key(|osd| Some(*osd) != map.primary);
        acting
    }

    /// The primary's view of the group.
    pub fn summary(&self) -> crate::pg::Summary {
        self.primary().and_then(|pg| pg.summary()).expect("somebody is primary")
    }
}
