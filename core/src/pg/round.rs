//! Writes of erasure-coded objects, in two phases.
//!
//! Owns a *round*: one or more clients' writes that become one version of a stripe. Does not own the order of operations
//! (write.rs), the reading of old bytes (gather.rs), nor commits (commit.rs).
//!
//! ```text
//! Forming -> Reading (old bytes) -> Preparing (on all acting members) -> acknowledged; committed later
//!                 |                       +-> Withdrawing (some member has no space) -> refused
//!                 +-> given up (damage was found: repaired first, then begun anew)
//! ```
//! Invariants: an object has one round at most, so a member holds one prepared version of it at most. Its version is
//! prepared on *all* acting members, with data only where bytes change; it is acknowledged when all have it durable, and
//! its `Prepare` commits the version before it, which was acknowledged so. Writes that follow each other without a gap
//! share a round; each has a number of its own, the last one's is the version.

use crate::buf::{Buf, BufPool};
use crate::id::{CopyId, ObjectId, Version};
use crate::pg::choose::seats_of;
use crate::pg::gather::{Gather, Owner};
use crate::pg::msg::{Change, SubOp};
use crate::pg::ops::{Kind, Object, Op, State};
use crate::pg::primary::{Cx, Primary, Purpose};
use crate::pg::stripe::{Basis, Columns, Piece, Stripe};
use crate::pg::stripe_read::fill;
use crate::planted::{Bug, planted};
use crate::slab::Key;
use crate::store::{Data, Mode, ObjectStore};
use smallvec::{SmallVec, smallvec};

/// See the module.
#[derive(Clone, Debug)]
pub struct Round {
    object: Key<Object>,
    leader: Key<Op>,
    /// The version that it makes.
    pub version: Version,
    predecessor: Version,
    update: Update,
    /// The object did not exist before.
    fresh: bool,
    basis: Basis,
    stage: Stage,
    /// The old bytes being read.
    gather: Option<Key<Gather>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Forming,
    Reading,
    Preparing,
    Withdrawing,
}

/// What changes.
#[derive(Clone, Debug)]
enum Update {
    /// Bytes; the pieces follow each other without a gap.
    Data(SmallVec<[(u32, Data); 4]>),
    /// A range becomes unwritten.
    Zero(u32, u32),
    /// Everything goes.
    Delete,
}

impl Update {
    fn new(change: Change) -> Self {
        match change {
            Change::Data { offset, data } => Update::Data(smallvec![(offset, data)]),
            Change::Zero { offset, len } => Update::Zero(offset, len),
            Change::Delete => Update::Delete,
            Change::Nothing => unreachable!("clients change something"),
        }
    }

    /// The bytes concerned: offset and length; none: all that there is.
    fn range(&self) -> Option<(u32, u32)> {
        match self {
            Update::Data(pieces) => Some((pieces.first()?.0, pieces.iter().map(|(_, data)| data.len()).sum())),
            Update::Zero(offset, len) => Some((*offset, *len)),
            Update::Delete => None,
        }
    }

    /// Whether data can be added without a gap.
    fn adjoins(&self, offset: u32, len: u32) -> bool {
        let range = if let Update::Data(_) = self { self.range() } else { None };
        range.is_some_and(|(start, own)| start + own == offset || offset + len == start)
    }

    fn add(&mut self, offset: u32, data: Data) {
        let Update::Data(pieces) = self else { panic!("only data can be added to") };
        let place = if pieces.first().is_some_and(|(start, _)| *start > offset) { 0 } else { pieces.len() };
        pieces.insert(place, (offset, data));
    }

    /// New bytes, by chunk.
    fn bytes(&self, stripe: Stripe) -> impl Iterator<Item = (Piece, Buf)> {
        let pieces = if let Update::Data(pieces) = self { &pieces[..] } else { &[] };
        pieces.iter().flat_map(move |(offset, data)| {
            let part = move |piece: Piece| (piece, data.buf.slice(stripe.offset_of(piece) - offset, piece.len()));
            stripe.pieces(*offset, data.len()).map(part)
        })
    }
}

impl Primary {
    /// Whether a write may begin now, or join the round that is forming.
    pub fn may_join(&self, record: &Object, key: Key<Object>, kind: &Kind) -> bool {
        if record.in_flight == 0 {
            // A version stays stored until the one after the next is prepared.
            let older = |op: &Op| matches!(op.state, State::Reading { version } if version != record.visible);
            return !self.ops.queue(key).any(|(_, op)| older(op));
        }
        let round = record.round.and_then(|round| self.stripes.rounds.get(round));
        let forming = round.filter(|round| round.stage == Stage::Forming);
        match kind {
            Kind::Write { change: Change::Data { offset, data }, expect: None } => {
                forming.is_some_and(|round| round.update.adjoins(*offset, data.len()))
            }
            _ => false,
        }
    }

    /// Adds a write to the object's round, or begins one; its version is the record's newest.
    pub fn join_round(&mut self, object: Key<Object>, op: Key<Op>, change: Change, predecessor: Version, fresh: bool) {
        let record = self.ops.object(object);
        let version = record.newest;
        if let Some(round) = record.round.and_then(|round| self.stripes.rounds.get_mut(round)) {
            let Change::Data { offset, data } = change else { panic!("{:?}: {change:?} joins a round", self.pg) };
            round.version = version;
            return round.update.add(offset, data);
        }
        let (update, basis, stage, gather) = (Update::new(change), Basis::Rest, Stage::Forming, None);
        let round = Round { object, leader: op, version, predecessor, update, fresh, basis, stage, gather };
        self.ops.object_mut(object).round = Some(self.stripes.rounds.insert(round));
    }

    /// Nothing more joins: the round begins.
    pub fn launch_round<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: Key<Object>) {
        if !self.ops.is_live(object) {
            return;
        }
        let Some(key) = self.ops.object(object).round else { return };
        let round = self.stripes.rounds.get_mut(key).expect("its object names it");
        if round.stage == Stage::Forming {
            round.stage = Stage::Reading;
            self.read_for_round(cx, key);
        }
    }

    /// Reads what the new parity needs.
    pub fn read_for_round<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, key: Key<Round>) {
        let Some(round) = self.stripes.rounds.get_mut(key) else { return };
        round.gather = None;
        let Some((offset, len)) = round.update.range().filter(|_| !round.fresh) else {
            return self.prepare(cx, key, None);
        };
        let (id, version) = (self.ops.object(round.object).id, round.predecessor);
        let there = self.readable_roles(cx, id);
        let plan = self.rules.stripe.plan(offset, len, self.acting_roles(), there);
        // Damage was found since the round began.
        let Some(plan) = plan else { return self.give_round_up(cx, key, None) };
        self.stripes.rounds.get_mut(key).expect("found above").basis = plan.basis;
        if plan.reads.is_empty() {
            return self.prepare(cx, key, None);
        }
        let gather = self.gather(cx, id, version, Owner::Round(key), &plan.reads, false);
        self.stripes.rounds.get_mut(key).expect("found above").gather = Some(gather);
    }

    /// A member got another chance: what could not be read is read again.
    pub fn resume_rounds<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>) {
        let gone = |round: &Round| round.gather.is_none_or(|gather| self.stripes.gathers.get(gather).is_none());
        let stuck = |(_, round): &(Key<Round>, &Round)| round.stage == Stage::Reading && gone(round);
        let stuck: Vec<Key<Round>> = self.stripes.rounds.iter().filter(stuck).map(|(key, _)| key).collect();
        for key in stuck {
            self.read_for_round(cx, key);
        }
    }

    /// Damage was found where old bytes are needed: its writes wait for the repair.
    pub fn give_round_up<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, key: Key<Round>, damaged: Option<u8>) {
        let Some(round) = self.stripes.rounds.remove(key) else { return };
        cx.host.mark("a write waits for the repair of what it must read");
        let record = self.ops.object_mut(round.object);
        record.round = None;
        record.in_flight = 0;
        record.loaded = false;
        let id = record.id;
        let writing = |(_, op): &(Key<Op>, &Op)| matches!(op.state, State::Writing { .. });
        let keys: SmallVec<[Key<Op>; 8]> = self.ops.queue(round.object).filter(writing).map(|(key, _)| key).collect();
        for key in keys {
            self.ops.get_mut(key).expect("in the queue").state = State::Waiting;
        }
        if let Some(seat) = damaged {
            self.damage_found(cx, id, round.predecessor, seat);
        }
        self.object_step(cx, round.object);
    }

    /// The first phase: the new version goes to all acting members.
    pub fn prepare<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, key: Key<Round>, gather: Option<&Gather>) {
        let Some(mut round) = self.stripes.rounds.remove(key) else { return };
        round.stage = Stage::Preparing;
        let record = self.ops.object_mut(round.object);
        let (id, requests) = (record.id, record.requests.clone());
        let olds = gather.map(|gather| self.old_bytes(cx.host.env.bufs, &round, gather)).unwrap_or_default();
        for seat in seats_of(self.acting_seats()) {
            let role = self.roster.role(seat);
            let change = self.change_of(cx.host.env.bufs, &round, role.0, gather, &olds);
            if planted(Bug::PrepareChangedOnly) && change == Change::Nothing {
                self.forgo(round.leader, seat);
                continue;
            }
            let copy = CopyId { object: id, role };
            let (version, predecessor, mode) = (round.version, round.predecessor, Mode::Prepare);
            let op = SubOp::Write { copy, version, predecessor, mode, change, requests: requests.clone() };
            self.send(cx, seat, op, Purpose::Write { op: round.leader, seat });
        }
        let object = round.object;
        self.ops.object_mut(object).round = Some(self.stripes.rounds.insert(round));
    }

    /// A planted mistake: this seat need not confirm.
    fn forgo(&mut self, leader: Key<Op>, seat: u8) {
        if let Some(Op { state: State::Writing { left, .. }, .. }) = self.ops.get_mut(leader) {
            *left &= !(1 << seat);
        }
    }

    /// What was read of data chunks, as it enters into parity.
    fn old_bytes(&self, bufs: &mut BufPool, round: &Round, gather: &Gather) -> SmallVec<[(Piece, Buf); 8]> {
        let stripe = self.rules.stripe;
        if round.basis != Basis::Decoded {
            let data = gather.parts.iter().filter(|part| part.piece.chunk < stripe.k);
            return data.map(|part| (part.piece, part.data().buf.clone())).collect();
        }
        let (offset, len) = round.update.range().expect("a deletion reads nothing");
        let columns = stripe.columns(offset, len);
        let outside = (0..stripe.k).flat_map(|chunk| stripe.outside(chunk, columns, offset, len));
        let decoded = outside.map(|piece| {
            let mut buf = bufs.alloc(piece.len());
            fill(self.code(), gather, piece, &mut buf, 0);
            (piece, bufs.freeze(buf))
        });
        decoded.collect()
    }

    /// What changes in the chunk of a role.
    fn change_of(
        &self,
        bufs: &mut BufPool,
        round: &Round,
        role: u8,
        gather: Option<&Gather>,
        olds: &[(Piece, Buf)],
    ) -> Change {
        let stripe = self.rules.stripe;
        let Some((offset, len)) = round.update.range() else { return Change::Delete };
        if role < stripe.k {
            return match (stripe.part_of(role, offset, len), &round.update) {
                (None, _) => Change::Nothing,
                (Some(columns), Update::Zero(..)) => Change::Zero { offset: columns.start, len: columns.len() },
                (Some(columns), _) => {
                    Change::Data { offset: columns.start, data: chunk_data(bufs, round, stripe, role) }
                }
            };
        }
        let columns = stripe.columns(offset, len);
        let old = gather.filter(|_| round.basis == Basis::Parity).and_then(|gather| gather.part(role));
        if matches!(round.update, Update::Zero(..)) && old.is_none() && olds.is_empty() {
            return Change::Zero { offset: columns.start, len: columns.len() };
        }
        let mut parity = bufs.zeroed(columns.len());
        if let Some(old) = old {
            parity.copy_from(0, &old.data().buf);
        }
        for (piece, bytes) in round.update.bytes(stripe).chain(olds.iter().cloned()) {
            let into = part_of(parity.bytes_mut(), columns, piece);
            self.code().add(piece.chunk, bytes.bytes(), role, into);
        }
        Change::Data { offset: columns.start, data: Data::new(bufs.freeze(parity)) }
    }

    /// Some member has no space. When all have answered, the others forget the version, and the clients are told.
    pub fn withdraw_round<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: Key<Object>, leader: Key<Op>) {
        let op = self.ops.get_mut(leader).expect("the caller's");
        let State::Writing { left, no_space, .. } = &mut op.state else { return };
        if *left & !*no_space != 0 {
            return;
        }
        cx.host.mark("a write is withdrawn, since a member has no space, or a damaged chunk");
        let prepared = self.roster.acting() & !*no_space;
        (*left, *no_space) = (prepared, 0);
        self.parked.retain(|(_, key, _)| *key != leader);
        let record = self.ops.object(object);
        let (id, key) = (record.id, record.round.expect("a write in flight has a round"));
        let round = self.stripes.rounds.get_mut(key).expect("its object names it");
        round.stage = Stage::Withdrawing;
        let version = round.version;
        if prepared == 0 {
            return self.withdrawn(cx, object);
        }
        for seat in seats_of(prepared) {
            let copy = CopyId { object: id, role: self.roster.role(seat) };
            self.send(cx, seat, SubOp::Remove { copy, version }, Purpose::Write { op: leader, seat });
        }
    }

    /// Whether the object's round is being withdrawn.
    pub fn is_withdrawing(&self, object: Key<Object>) -> bool {
        let round = self.ops.object(object).round.and_then(|round| self.stripes.rounds.get(round));
        round.is_some_and(|round| round.stage == Stage::Withdrawing)
    }

    /// No member holds the version any more.
    pub fn withdrawn<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: Key<Object>) {
        if let Some(round) = self.ops.object_mut(object).round.take() {
            self.stripes.rounds.remove(round);
        }
        let why = self.withdrawal_reason(cx, object);
        self.undo_all(cx, object, why);
        self.recover(cx);
    }

    /// The object's version is durable on all acting members.
    pub fn round_done<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: Key<Object>, id: ObjectId) {
        if let Some(round) = self.ops.object_mut(object).round.take() {
            let round = self.stripes.rounds.remove(round).expect("its object names it");
            self.commit_later(cx, id, round.version);
        }
    }
}

/// The part of a buffer over some columns that a piece is about.
fn part_of(buf: &mut [u8], columns: Columns, piece: Piece) -> &mut [u8] {
    let at = (piece.columns.start - columns.start) as usize;
    &mut buf[at..at + piece.len() as usize]
}

/// The new bytes of a data chunk, which are without a gap.
fn chunk_data(bufs: &mut BufPool, round: &Round, stripe: Stripe, role: u8) -> Data {
    let of_chunk = || round.update.bytes(stripe).filter(|(piece, _)| piece.chunk == role);
    let (first, bytes) = of_chunk().next().expect("the chunk changes");
    let len: u32 = of_chunk().map(|(piece, _)| piece.len()).sum();
    if len == bytes.len() {
        return Data::new(bytes);
    }
    let mut buf = bufs.alloc(len);
    of_chunk().for_each(|(piece, bytes)| buf.copy_from(piece.columns.start - first.columns.start, &bytes));
    Data::new(bufs.freeze(buf))
}
