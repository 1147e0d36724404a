//! How an erasure-coded object is cut into chunks, and what an update must read. Pure functions.
//!
//! Owns the geometry. Does not own reading, nor arithmetic (`ec/`).
//!
//! ```text
//! object:  0 ......... chunk | chunk ....... 2 chunk | ...     data roles 0, 1, ... k - 1
//! parity roles k ... k + m - 1: byte n comes from byte n of every data chunk
//! ```
//! The bytes of all chunks at the same offset are a *column*. Never written bytes are zero, and so is their parity.

use smallvec::SmallVec;

/// A set of roles; role `n` is bit `n`.
pub type Roles = u32;

/// How objects of a pool are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stripe {
    /// Data chunks.
    pub k: u8,
    /// Parity chunks.
    pub m: u8,
    /// Bytes of a chunk.
    pub chunk_bytes: u32,
}

/// Bytes of a chunk: from `start` up to, not including, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    /// First byte.
    pub start: u32,
    /// Behind the last byte.
    pub end: u32,
}

/// Some bytes of one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The chunk; its role.
    pub chunk: u8,
    /// Its bytes.
    pub columns: Columns,
}

/// Pieces of one object.
pub type Pieces = SmallVec<[Piece; 8]>;

/// From what an update makes new parity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// From the old parity, and the old bytes of what changes.
    Parity,
    /// From what does not change, of all data chunks.
    Rest,
    /// From any `k` chunks, since some data chunk is not to be had.
    Decoded,
}

/// What an update reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What it makes of it.
    pub basis: Basis,
    /// What is read.
    pub reads: Pieces,
}

impl Columns {
    /// Number of bytes of a chunk.
    pub fn len(self) -> u32 {
        self.end - self.start
    }

    fn hull(self, other: Columns) -> Columns {
        Columns { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

impl Piece {
    /// Number of bytes.
    pub fn len(self) -> u32 {
        self.columns.len()
    }
}

impl Stripe {
    /// Number of chunks.
    pub fn chunks(self) -> u8 {
        self.k + self.m
    }

    /// All parity roles.
    pub fn parity_roles(self) -> Roles {
        ((1 << self.m) - 1) << self.k
    }

    /// The parts of a range of the object, in order.
    pub fn pieces(self, offset: u32, len: u32) -> impl Iterator<Item = Piece> {
        let (mut at, end) = (offset, offset + len);
        std::iter::from_fn(move || {
            if at == end {
                return None;
            }
            let chunk = at / self.chunk_bytes;
            let first = chunk * self.chunk_bytes;
            let stop = end.min(first + self.chunk_bytes);
            let columns = Columns { start: at - first, end: stop - first };
            at = stop;
            Some(Piece { chunk: u8::try_from(chunk).expect("inside the object"), columns })
        })
    }

    /// Where a piece begins in the object.
    pub fn offset_of(self, piece: Piece) -> u32 {
        u32::from(piece.chunk) * self.chunk_bytes + piece.columns.start
    }

    /// The columns that a range touches, as one range.
    pub fn columns(self, offset: u32, len: u32) -> Columns {
        let columns = self.pieces(offset, len).map(|piece| piece.columns);
        columns.reduce(Columns::hull).expect("a range is not empty")
    }

    /// The part of a chunk that a range covers; none: it is elsewhere.
    pub fn part_of(self, chunk: u8, offset: u32, len: u32) -> Option<Columns> {
        self.pieces(offset, len).find(|piece| piece.chunk == chunk).map(|piece| piece.columns)
    }

    /// What to read for a change of a range, so that the parity that is `kept` somewhere can be made new, from roles
    /// that are `there`: the fewest bytes. `None`: fewer than `k` roles are there.
    pub fn plan(self, offset: u32, len: u32, kept: Roles, there: Roles) -> Option<Plan> {
        if kept & self.parity_roles() == 0 {
            return Some(Plan { basis: Basis::Rest, reads: Pieces::new() });
        }
        let plans = [(Basis::Parity, self.by_parity(offset, len, kept)), (Basis::Rest, self.by_rest(offset, len))];
        let possible = |reads: &Pieces| reads.iter().all(|piece| there >> piece.chunk & 1 == 1);
        let plans = plans.into_iter().filter(|(_, reads)| possible(reads));
        let cheapest = plans.min_by_key(|(_, reads)| reads.iter().map(|piece| piece.len()).sum::<u32>());
        let decoded = || Some((Basis::Decoded, self.any(self.columns(offset, len), 0, there)?));
        cheapest.or_else(decoded).map(|(basis, reads)| Plan { basis, reads })
    }

    fn by_parity(self, offset: u32, len: u32, kept: Roles) -> Pieces {
        let columns = self.columns(offset, len);
        let parity = (self.k..self.chunks()).filter(|role| kept >> role & 1 == 1);
        self.pieces(offset, len).chain(parity.map(|chunk| Piece { chunk, columns })).collect()
    }

    /// What is left of the columns in each data chunk.
    fn by_rest(self, offset: u32, len: u32) -> Pieces {
        let columns = self.columns(offset, len);
        (0..self.k).flat_map(|chunk| self.outside(chunk, columns, offset, len)).collect()
    }

    /// The columns of a chunk that a range does not cover.
    pub fn outside(self, chunk: u8, columns: Columns, offset: u32, len: u32) -> impl Iterator<Item = Piece> {
        let covered = self.part_of(chunk, offset, len).unwrap_or(Columns { start: columns.end, end: columns.end });
        let before = Columns { start: columns.start, end: covered.start };
        let behind = Columns { start: covered.end, end: columns.end };
        let pieces = [before, behind].into_iter().filter(|columns| columns.start < columns.end);
        pieces.map(move |columns| Piece { chunk, columns })
    }

    /// `k` chunks of those that are there, `wanted` ones first; `None`: there are too few.
    pub fn any(self, columns: Columns, wanted: Roles, there: Roles) -> Option<Pieces> {
        let is_wanted = |chunk: &u8| wanted >> chunk & 1 == 1;
        let order = (0..self.chunks()).filter(is_wanted).chain((0..self.chunks()).filter(|chunk| !is_wanted(chunk)));
        let chosen = order.filter(|chunk| there >> chunk & 1 == 1).take(self.k.into());
        let pieces: Pieces = chosen.map(|chunk| Piece { chunk, columns }).collect();
        (pieces.len() == usize::from(self.k)).then_some(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRIPE: Stripe = Stripe { k: 4, m: 2, chunk_bytes: 1000 };
    const ALL: Roles = 0b11_1111;

    fn piece(chunk: u8, start: u32, end: u32) -> Piece {
        Piece { chunk, columns: Columns { start, end } }
    }

    fn plan(offset: u32, len: u32, kept: Roles, there: Roles) -> (Basis, Vec<Piece>) {
        let plan = STRIPE.plan(offset, len, kept, there).unwrap();
        (plan.basis, plan.reads.to_vec())
    }

    #[test]
    fn ranges_are_cut_at_chunks() {
        assert_eq!(STRIPE.pieces(10, 20).collect::<Vec<_>>(), [piece(0, 10, 30)]);
        let long: Vec<_> = STRIPE.pieces(900, 1300).collect();
        assert_eq!(long, [piece(0, 900, 1000), piece(1, 0, 1000), piece(2, 0, 200)]);
        assert_eq!(STRIPE.columns(900, 1300), Columns { start: 0, end: 1000 });
        assert_eq!((STRIPE.part_of(3, 900, 1300), STRIPE.offset_of(piece(2, 5, 6))), (None, 2005));
    }

    #[test]
    fn small_updates_read_what_they_change_and_parity() {
        let reads = vec![piece(1, 100, 200), piece(4, 100, 200), piece(5, 100, 200)];
        assert_eq!(plan(1100, 100, ALL, ALL), (Basis::Parity, reads.clone()));
        // A chunk that does not change may be missing.
        assert_eq!(plan(1100, 100, ALL & !1, ALL & !1), (Basis::Parity, reads[..].to_vec()));
        assert_eq!(plan(1100, 100, ALL & !(1 << 5), ALL & !(1 << 5)), (Basis::Parity, reads[..2].to_vec()));
    }

    #[test]
    fn large_updates_read_the_rest_and_whole_ones_nothing() {
        assert_eq!(plan(0, 3000, ALL, ALL), (Basis::Rest, vec![piece(3, 0, 1000)]));
        assert_eq!(plan(0, 4000, ALL, ALL), (Basis::Rest, vec![]));
        assert_eq!(plan(0, 3900, ALL, ALL), (Basis::Rest, vec![piece(3, 900, 1000)]));
        assert_eq!(plan(500, 100, 0b1111, 0b1111), (Basis::Rest, vec![]), "no parity is kept");
    }

    #[test]
    fn without_the_chunk_that_changes_others_must_do() {
        let rest = vec![piece(0, 0, 100), piece(2, 0, 100), piece(3, 0, 100)];
        assert_eq!(plan(1000, 100, ALL & !2, ALL & !2), (Basis::Rest, rest));
        let there = ALL & !0b101;
        let any = vec![piece(1, 0, 100), piece(3, 0, 100), piece(4, 0, 100), piece(5, 0, 100)];
        assert_eq!(plan(0, 100, there, there), (Basis::Decoded, any));
        assert_eq!(STRIPE.plan(0, 100, 0b11_1000, 0b11_1000), None);
    }
}
