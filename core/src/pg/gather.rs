//! Reading parts of an object's chunks from the members that hold them.
//!
//! Owns what is being read, for a client's read or for an update of parity. Does not own what is made of it
//! (stripe_read.rs, round.rs).
//! Invariant: all parts are of one version, which stays stored while they are read: it is acknowledged, and no two
//! later versions are prepared meanwhile (write.rs).

use crate::id::{CopyId, ObjectId, OsdId, Version};
use crate::pg::msg::{Refused, SubOp, SubReply};
use crate::pg::ops::{Op, State};
use crate::pg::primary::{Cx, Primary, Purpose};
use crate::pg::round::Round;
use crate::pg::stripe::{Piece, Pieces, Roles};
use crate::slab::Key;
use crate::store::{Bitmap, Data, ObjectStore};
use smallvec::SmallVec;

/// Parts being read.
#[derive(Clone, Debug)]
pub struct Gather {
    object: ObjectId,
    owner: Owner,
    status: bool,
    left: u32,
    /// The parts.
    pub parts: SmallVec<[Part; 8]>,
}

/// Some bytes of one chunk.
#[derive(Clone, Debug)]
pub struct Part {
    /// Which.
    pub piece: Piece,
    seat: u8,
    /// What they are, and which sectors of them were ever written; nothing until they are read. Of a block status: no
    /// bytes, and the sectors of the whole chunk.
    pub read: Option<(Data, Bitmap)>,
}

/// Who waits for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A client's read.
    Read(Key<Op>),
    /// An update.
    Round(Key<Round>),
}

impl Part {
    /// Its bytes.
    pub fn data(&self) -> &Data {
        &self.read.as_ref().expect("all parts were read").0
    }

    /// Its written sectors.
    pub fn bitmap(&self) -> &Bitmap {
        &self.read.as_ref().expect("all parts were read").1
    }
}

impl Gather {
    /// The part of a chunk.
    pub fn part(&self, chunk: u8) -> Option<&Part> {
        self.parts.iter().find(|part| part.piece.chunk == chunk)
    }
}

impl Primary {
    /// Roles whose acting members have a good copy of an object's newest version: those within reach, if these are
    /// enough to read it.
    pub fn readable_roles<S: ObjectStore>(&self, cx: &Cx<'_, '_, '_, S>, object: ObjectId) -> Roles {
        let good = self.unclean.get(object).map_or(u64::MAX, |entry| entry.good) & self.acting_seats();
        let roles = |only_connected: bool| {
            let seats = self.roster.in_mask(good);
            let seats = seats.filter(|(_, seat)| !only_connected || cx.host.node.is_connected(seat.member.osd));
            seats.fold(0, |roles: Roles, (_, seat)| roles | 1 << seat.member.role.0)
        };
        let connected = roles(true);
        if connected.count_ones() >= self.rules.k { connected } else { roles(false) }
    }

    /// Roles of the acting members.
    pub fn acting_roles(&self) -> Roles {
        self.acting_members.iter().fold(0, |roles, member| roles | 1 << member.role.0)
    }

    /// The acting member with a role.
    pub fn seat_of_role(&self, role: u8) -> Option<u8> {
        let found = self.acting_members.iter().zip(0u8..).find(|(member, _)| member.role.0 == role);
        found.map(|(_, seat)| seat)
    }

    /// Reads pieces of chunks whose roles are acting; for a block status, only which of their sectors were ever written.
    pub fn gather<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        object: ObjectId,
        version: Version,
        owner: Owner,
        pieces: &Pieces,
        status: bool,
    ) -> Key<Gather> {
        let part = |piece: &Piece| {
            let seat = self.seat_of_role(piece.chunk).expect("only acting roles are read");
            Part { piece: *piece, seat, read: None }
        };
        let parts: SmallVec<[Part; 8]> = pieces.iter().map(part).collect();
        let left = u32::try_from(parts.len()).expect("few");
        let key = self.stripes.gathers.insert(Gather { object, owner, status, left, parts });
        for (piece, index) in pieces.iter().zip(0u8..) {
            let seat = self.seat_of_role(piece.chunk).expect("seen above");
            let copy = CopyId { object, role: self.roster.role(seat) };
            let op =
                SubOp::Read { copy, version, offset: piece.columns.start, len: if status { 0 } else { piece.len() } };
            self.send(cx, seat, op, Purpose::Gather { key, part: index });
        }
        key
    }

    /// A member answered.
    pub fn gathered<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        key: Key<Gather>,
        part: u8,
        sent: SubOp,
        reply: SubReply,
    ) {
        let Some(gather) = self.stripes.gathers.get_mut(key) else {
            return cx.host.mark("a part was read after its reader had gone on");
        };
        let place = &mut gather.parts[usize::from(part)];
        let (seat, len) = (place.seat, if gather.status { 0 } else { place.piece.len() });
        match reply {
            SubReply::Read { data, bitmap } if data.len() == len && data.verify() => {
                gather.left -= u32::from(place.read.replace((data, bitmap)).is_none());
                if gather.left == 0 {
                    let gather = self.stripes.gathers.remove(key).expect("found above");
                    self.all_gathered(cx, gather);
                }
            }
            SubReply::Read { .. } => {
                cx.host.mark("a body was damaged between members");
                self.send(cx, seat, sent, Purpose::Gather { key, part });
            }
            reply => {
                let gather = self.stripes.gathers.remove(key).expect("found above");
                self.gather_failed(cx, &gather, seat, &reply);
            }
        }
    }

    fn all_gathered<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, gather: Gather) {
        match gather.owner {
            Owner::Read(op) => self.stripe_read(cx, op, &gather),
            Owner::Round(round) => self.prepare(cx, round, Some(&gather)),
        }
    }

    fn gather_failed<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        gather: &Gather,
        seat: u8,
        reply: &SubReply,
    ) {
        match gather.owner {
            Owner::Read(op) => self.stripe_read_failed(cx, op, seat, reply),
            Owner::Round(round) => match reply {
                SubReply::Refused(Refused::Damaged | Refused::NoSuchVersion) => {
                    self.give_round_up(cx, round, Some(seat));
                }
                _ => {
                    let osd = self.roster.osd(seat);
                    self.complain(cx, osd, "it cannot read what a write needs");
                }
            },
        }
    }

    /// What was being read from an OSD that is out of reach is read from others.
    pub fn parts_lost<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, osd: OsdId) {
        let unread = |part: &Part| part.read.is_none() && self.roster.osd(part.seat) == osd;
        let waiting = |(_, gather): &(Key<Gather>, &Gather)| gather.parts.iter().any(unread);
        let lost: Vec<Key<Gather>> = self.stripes.gathers.iter().filter(waiting).map(|(key, _)| key).collect();
        for key in lost {
            let Some(gather) = self.stripes.gathers.remove(key) else { continue };
            cx.host.mark("a chunk's member was lost while it was read");
            match gather.owner {
                Owner::Read(op) => {
                    if let Some(op) = self.ops.get_mut(op) {
                        op.state = State::Waiting;
                    }
                    self.wake_object(cx, gather.object);
                }
                Owner::Round(round) => self.read_for_round(cx, round),
            }
        }
    }
}
