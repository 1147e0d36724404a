//! Clients' reads of erasure-coded objects.
//!
//! Owns the choice of chunks to read, and what is made of them. Does not own the reading of parts (gather.rs), nor the
//! checks before the answer (read.rs).
//!
//! The chunks that hold the bytes are read where they are; if one of them is not to be had, the same columns of any `k`
//! chunks, from which the missing ones are computed. What counts as ever written is then what any of those says: a
//! parity chunk counts as written wherever a data chunk does, so nothing that was written is forgotten.

use crate::buf::{BufMut, BufPool};
use crate::ec::{Code, Source};
use crate::limits::SECTOR_BYTES;
use crate::msg::{Answer, Refusal};
use crate::pg::gather::{Gather, Owner, Part};
use crate::pg::msg::{Refused, SubReply};
use crate::pg::ops::{Kind, Object, Op, State};
use crate::pg::primary::{Cx, Primary};
use crate::pg::stripe::{Piece, Pieces, Roles, Stripe};
use crate::slab::Key;
use crate::store::{Bitmap, Data, ObjectStore};
use smallvec::SmallVec;

impl Primary {
    /// Reads an object's visible version, which is complete on all acting members.
    pub fn start_stripe_read<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: Key<Object>, key: Key<Op>) {
        let record = self.ops.object(object);
        let (id, version) = (record.id, record.visible);
        let Kind::Read { offset, len, status } = self.ops.get(key).expect("in the queue").kind else {
            panic!("{:?}: not a read", self.pg)
        };
        if version.is_none() {
            let data = Data::new(cx.host.env.bufs.zeroed(if status { 0 } else { len }).freeze());
            let answer = answer(status, version, data, Bitmap::default());
            return self.answer_leased(cx, key, Ok(answer));
        }
        let Some(reads) = self.reads_of(self.readable_roles(cx, id), offset, len) else {
            return cx.host.mark("a read waits for chunks to be recovered");
        };
        self.ops.get_mut(key).expect("in the queue").state = State::Reading { version };
        self.gather(cx, id, version, Owner::Read(key), &reads, status);
    }

    /// What to read, of the roles that are there; `None`: too few are.
    fn reads_of(&self, there: Roles, offset: u32, len: u32) -> Option<Pieces> {
        let stripe = self.rules.stripe;
        let pieces: Pieces = stripe.pieces(offset, len).collect();
        let wanted = pieces.iter().fold(0, |roles: Roles, piece| roles | 1 << piece.chunk);
        if wanted & !there == 0 { Some(pieces) } else { stripe.any(stripe.columns(offset, len), wanted, there) }
    }

    /// All parts were read.
    pub fn stripe_read<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, key: Key<Op>, gather: &Gather) {
        let Some(op) = self.ops.get(key) else { return };
        let (State::Reading { version }, Kind::Read { offset, len, status }) = (&op.state, &op.kind) else {
            panic!("{:?}: {key:?} is not being read", self.pg)
        };
        let (version, offset, len, status) = (*version, *offset, *len, *status);
        let stripe = self.rules.stripe;
        if stripe.pieces(offset, len).any(|piece| gather.part(piece.chunk).is_none()) {
            cx.host.mark("a read computes a missing chunk");
        }
        let (data, bitmap) = if status {
            (Data::new(cx.host.env.bufs.alloc(0).freeze()), bitmap_of(stripe, gather, offset, len))
        } else {
            (self.assemble(cx.host.env.bufs, gather, offset, len), Bitmap::default())
        };
        self.answer_leased(cx, key, Ok(answer(status, version, data, bitmap)));
    }

    /// The bytes of a range.
    fn assemble(&self, bufs: &mut BufPool, gather: &Gather, offset: u32, len: u32) -> Data {
        let (stripe, code) = (self.rules.stripe, self.code());
        if let [part] = &gather.parts[..]
            && stripe.pieces(offset, len).eq([part.piece])
        {
            return part.data().clone();
        }
        let mut buf = bufs.alloc(len);
        for piece in stripe.pieces(offset, len) {
            let at = stripe.offset_of(piece) - offset;
            fill(code, gather, piece, &mut buf, at);
        }
        Data::new(bufs.freeze(buf))
    }

    /// A part cannot be read.
    pub fn stripe_read_failed<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        key: Key<Op>,
        seat: u8,
        reply: &SubReply,
    ) {
        let Some(op) = self.ops.get_mut(key) else { return };
        let State::Reading { version } = op.state else { panic!("{:?}: {key:?} is not being read", self.pg) };
        let object = op.object;
        let gone = matches!(reply, SubReply::Refused(Refused::NoSuchVersion));
        if gone && self.ops.object(object).visible != version {
            cx.host.mark("a version was superseded while it was read");
            self.ops.get_mut(key).expect("found above").state = State::Waiting;
            self.object_step(cx, object);
        } else if gone || matches!(reply, SubReply::Refused(Refused::Damaged)) {
            self.read_damaged(cx, object, key, version, seat);
        } else {
            self.finish(cx, key, Err(Refusal::Again));
            self.object_step(cx, object);
        }
    }
}

fn answer(status: bool, version: crate::id::Version, data: Data, bitmap: Bitmap) -> Answer {
    if status { Answer::BlockStatus { version, bitmap } } else { Answer::Read { version, data } }
}

/// The bytes of a part in the columns of a piece.
fn bytes_in(part: &Part, piece: Piece) -> &[u8] {
    let at = (piece.columns.start - part.piece.columns.start) as usize;
    &part.data().buf.bytes()[at..at + piece.len() as usize]
}

/// Puts a piece into a buffer: as it was read, or computed from others.
pub fn fill(code: &dyn Code, gather: &Gather, piece: Piece, buf: &mut BufMut, at: u32) {
    let into = &mut buf.bytes_mut()[at as usize..(at + piece.len()) as usize];
    if let Some(part) = gather.part(piece.chunk) {
        return into.copy_from_slice(bytes_in(part, piece));
    }
    let sources: SmallVec<[Source<'_>; 16]> =
        gather.parts.iter().map(|part| Source { chunk: part.piece.chunk, bytes: bytes_in(part, piece) }).collect();
    code.reconstruct(&sources, piece.chunk, into);
}

/// Which sectors of a range were ever written, by the bitmaps of whole chunks.
fn bitmap_of(stripe: Stripe, gather: &Gather, offset: u32, len: u32) -> Bitmap {
    let mut bitmap = Bitmap::default();
    for piece in stripe.pieces(offset, len) {
        let first = (stripe.offset_of(piece) - offset) / SECTOR_BYTES;
        let own = gather.part(piece.chunk);
        for part in gather.parts.iter().filter(|part| own.is_none_or(|own| own.piece.chunk == part.piece.chunk)) {
            let skip = piece.columns.start / SECTOR_BYTES;
            let count = piece.len() / SECTOR_BYTES;
            (0..count).filter(|sector| part.bitmap().get(skip + sector)).for_each(|s| bitmap.set(first + s, 1, true));
        }
    }
    bitmap
}
