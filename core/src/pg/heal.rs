//! A member that cannot apply a write because its copy is damaged where the write needs the old bytes.
//!
//! Owns what becomes of the writes under way then. Does not own the copying (recover.rs), nor the withdrawal of a round
//! of an erasure-coded object (round.rs). The member keeps its place: a bad block costs one object's repair.
//!
//! ```text
//! replicated:     refused by some -> durable on all others -> the whole copy of the newest version to those -> acknowledged
//!                 refused by all, applied nowhere -> no good copy is left: refused
//! erasure-coded:  refused by some -> the round is withdrawn -> their chunks are repaired -> the client comes again
//! ```
//! Invariant: no version is given again. In the first case the others hold it; in the others it was applied nowhere, or
//! removed again everywhere, and later versions have higher numbers.

use crate::id::{ObjectId, Version};
use crate::msg::Refusal;
use crate::pg::choose::{Mask, seats_of};
use crate::pg::ops::{Kind, Object, Op, State};
use crate::pg::primary::{Cx, Primary};
use crate::pg::recover::Entry;
use crate::planted::{Bug, planted};
use crate::slab::Key;
use crate::store::ObjectStore;

impl Primary {
    /// A member's copy is too damaged for a write.
    pub fn copy_hurt<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        object: Key<Object>,
        key: Key<Op>,
        seat: u8,
    ) {
        cx.host.mark("a member cannot apply a write to its damaged copy");
        self.ops.object_mut(object).hurt |= 1 << seat;
        if self.rules.replicated {
            return self.heal(cx, object);
        }
        let op = self.ops.get_mut(key).expect("the caller's");
        if let State::Writing { no_space, .. } = &mut op.state {
            *no_space |= 1 << seat;
            self.withdraw_round(cx, object, key);
        }
    }

    /// Goes on once all other members have the writes that are under way.
    pub fn heal<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: Key<Object>) {
        let Some(record) = self.ops.is_live(object).then(|| self.ops.object(object)) else { return };
        let (id, hurt, newest) = (record.id, record.hurt, record.newest);
        if hurt == 0 || self.unclean.get(id).is_some() {
            return;
        }
        let acting = self.acting_seats();
        let (mut missing, mut common) = (0, acting);
        for left in self.ops.queue(object).filter_map(|(_, op)| left_of(op)) {
            (missing, common) = (missing | left, common & left);
        }
        if missing & !hurt != 0 {
            return;
        }
        if hurt == acting {
            if common == acting {
                return self.hurt_everywhere(cx, object);
            }
            let own = cx.host.node.osd;
            return self.complain(cx, own, "no member can apply a write to what is there of an object");
        }
        self.unclean.add(
            acting,
            id,
            Entry::new(newest, self.rules.k, acting & !hurt, if planted(Bug::HealWithoutCopy) { 0 } else { hurt }),
        );
        self.recover_now(cx, id);
    }

    /// Nobody applied any of it, and nobody can: what there is of the object is damaged everywhere.
    fn hurt_everywhere<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: Key<Object>) {
        self.repair_hurt(cx, object);
        self.undo_all(cx, object, Refusal::Damaged);
        self.recover(cx);
    }

    /// The copies that were too damaged are to be repaired, at the version that is there.
    fn repair_hurt<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: Key<Object>) {
        let record = self.ops.object_mut(object);
        let (id, version, hurt) = (record.id, record.visible, std::mem::take(&mut record.hurt));
        for seat in seats_of(hurt).filter(|_| !version.is_none()) {
            self.damage_found(cx, id, version, seat);
        }
    }

    /// A round was withdrawn everywhere: why.
    pub fn withdrawal_reason<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: Key<Object>) -> Refusal {
        if self.ops.object(object).hurt == 0 {
            return Refusal::NoSpace;
        }
        self.repair_hurt(cx, object);
        Refusal::Again
    }

    /// An object is at this version on all acting members: the writes that some could not apply are part of it.
    pub fn healed<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, id: ObjectId, version: Version) {
        let Some(object) = self.ops.find(id) else { return };
        let record = self.ops.object_mut(object);
        if record.newest != version {
            return self.heal(cx, object);
        }
        let hurt = std::mem::take(&mut record.hurt);
        if hurt == 0 {
            return;
        }
        let keys: Vec<Key<Op>> = self.ops.queue(object).map(|(key, _)| key).collect();
        self.parked.retain(|(seat, key, _)| hurt >> seat & 1 == 0 || !keys.contains(key));
        for key in keys {
            if let Some(Op { state: State::Writing { left, .. }, .. }) = self.ops.get_mut(key) {
                *left &= !hurt;
            }
        }
        self.retire(cx, object);
    }
}

/// The members that have not confirmed a write that is under way.
fn left_of(op: &Op) -> Option<Mask> {
    match (&op.state, &op.kind) {
        (State::Writing { left, .. }, Kind::Write { .. } | Kind::Remove) => Some(*left),
        _ => None,
    }
}
