//! Clients' reads.
//!
//! Owns the reading from this OSD's own copy and the three checks after it. Does not own the order of operations
//! (write.rs).
//!
//! The same holds for whatever else tells a client what an object is: a version that is not the expected one, or that
//! there is nothing to delete.
//!
//! Rule: *after* the data were read, a read is answered only while this is still the group's primary: its lease holds,
//! no higher epoch was heard of, no other attempt was joined.

use crate::id::{CopyId, OsdId, Version};
use crate::limits::SECTOR_BYTES;
use crate::msg::{Answer, Fact, Refusal};
use crate::pg::StorePurpose;
use crate::pg::ops::{Kind, Object, Op, State};
use crate::pg::primary::{Cx, Primary};
use crate::planted::{Bug, planted};
use crate::slab::Key;
use crate::store::{ObjectStore, StoreError, StoreOp, StoreReply};
use crate::time::{Duration, Time};

impl Primary {
    /// Reads from the own store. All writes before it that concern these bytes are complete, so what is read was
    /// acknowledged, or kept by peering.
    pub fn start_read<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: Key<Object>, key: Key<Op>) {
        if !self.rules.replicated {
            return self.start_stripe_read(cx, object, key);
        }
        let record = self.ops.object(object);
        let (id, version) = (record.id, record.visible);
        let copy = CopyId { object: id, role: self.own_role(cx) };
        let op = self.ops.get_mut(key).expect("in the queue");
        let Kind::Read { offset, len, status } = op.kind else { panic!("{:?}: not a read", self.pg) };
        if status {
            let sectors = (offset / SECTOR_BYTES, len / SECTOR_BYTES);
            return self.block_status(cx, key, copy, version, sectors);
        }
        op.state = State::Reading { version };
        let purpose = StorePurpose::Read { op: key, attempt: self.attempt };
        cx.host.submit(self.pg, purpose, StoreOp::Read { copy, version: None, offset, len });
    }

    /// Says which sectors were ever written, without a look at the data.
    fn block_status<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        key: Key<Op>,
        copy: CopyId,
        version: Version,
        (first, count): (u32, u32),
    ) {
        let answer = match cx.host.store.written(copy, None) {
            Ok(written) => {
                let bitmap = written.part(first, count);
                Ok(Answer::BlockStatus { version, bitmap })
            }
            Err(_) => Err(Refusal::Again),
        };
        self.answer_leased(cx, key, answer);
    }

    /// The data were read.
    pub fn read_done<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        key: Key<Op>,
        result: Result<StoreReply, StoreError>,
    ) {
        let Some(op) = self.ops.get(key) else { return };
        let (object, version) = match op.state {
            State::Reading { version } => (op.object, version),
            _ => panic!("{:?}: {key:?} is not being read", self.pg),
        };
        match result {
            Ok(StoreReply::Read { data, .. }) => self.answer_leased(cx, key, Ok(Answer::Read { version, data })),
            Err(StoreError::Damaged { .. }) => {
                let own = self.roster.acting_seat(cx.host.node.osd).expect("a primary is an acting member");
                self.read_damaged(cx, object, key, version, own);
            }
            _ => {
                self.finish(cx, key, Err(Refusal::Again));
                self.object_step(cx, object);
            }
        }
    }

    /// A copy is damaged: it is repaired from the others, then read again. Writes that are under way come first.
    pub fn read_damaged<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        object: Key<Object>,
        key: Key<Op>,
        version: Version,
        seat: u8,
    ) {
        let record = self.ops.object(object);
        if record.in_flight > 0 || version.is_none() {
            self.finish(cx, key, Err(Refusal::Again));
            return self.object_step(cx, object);
        }
        let (id, newest) = (record.id, record.newest);
        self.ops.get_mut(key).expect("found by the caller").state = State::Waiting;
        self.damage_found(cx, id, newest, seat);
        self.object_step(cx, object);
    }

    /// Gives an answer that says what the object is, now or once the lease holds again.
    pub fn answer_leased<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        key: Key<Op>,
        outcome: Result<Answer, Refusal>,
    ) {
        self.ops.get_mut(key).expect("the caller's").state = State::Leasing { outcome };
        self.answer_read(cx, key);
    }

    /// The three checks; if one fails, the read waits: for the lease, or for the interval's end.
    fn answer_read<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, key: Key<Op>) {
        let leased = self.lease.is_held(cx.host.now()) || planted(Bug::ReadWithoutLease);
        if !leased || !cx.member.is_joined(self.attempt) {
            return cx.host.mark("a read waits for the lease");
        }
        let Some(op) = self.ops.get_mut(key) else { return };
        let object = op.object;
        let State::Leasing { outcome } = std::mem::replace(&mut op.state, State::Waiting) else {
            panic!("{:?}: {key:?} has not been read", self.pg)
        };
        if let Ok(Answer::Read { version, .. }) = &outcome {
            let (version, object) = (*version, self.ops.object(object).id);
            cx.host.observe(Fact::Served { pg: self.pg, object, version });
        }
        self.finish(cx, key, outcome);
        self.object_step(cx, object);
    }

    /// A member granted a lease that was asked at `sent`: reads that wait for it may go.
    pub fn lease_granted<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        from: OsdId,
        sent: Time,
        lease: Duration,
    ) {
        let sent = if planted(Bug::LeaseFromArrival) { cx.host.now() } else { sent };
        self.lease.granted(from, sent, lease);
        if !self.lease.is_held(cx.host.now()) {
            return;
        }
        let leasing = |(_, op): &(Key<Op>, &Op)| matches!(op.state, State::Leasing { .. });
        if !self.ops.iter().any(|op| leasing(&op)) {
            return;
        }
        let waiting: Vec<Key<Op>> = self.ops.iter().filter(leasing).map(|(key, _)| key).collect();
        for key in waiting {
            self.answer_read(cx, key);
        }
    }
}
