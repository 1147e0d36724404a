//! Making a copy that some member lacks: from a copy in the same role, or from any `k` roles.
//!
//! Owns the choice of sources and what is computed from them. Does not own the steps of recovery (recover.rs).
//!
//! Chunks, and which sectors were ever written, are reconstructed alike: bytes by the code; a sector counts as written if
//! it does in any source. Parity counts as written wherever some data chunk does, so no written sector is forgotten; of
//! those that were not, some may count as written afterwards, and are zero.

use crate::buf::BufPool;
use crate::ec::{Code, Source};
use crate::id::{Requests, Version};
use crate::limits::SECTOR_BYTES;
use crate::pg::choose::{Mask, seats_of};
use crate::pg::primary::{Cx, Primary};
use crate::pg::recover::Entry;
use crate::planted::{Bug, planted};
use crate::store::{Bitmap, Content, Data, ObjectStore};
use smallvec::SmallVec;

/// A copy that was fetched.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Its role.
    pub role: u8,
    /// What its version came after.
    pub predecessor: Version,
    /// What it is.
    pub content: Content,
    /// Requests that its version includes.
    pub requests: Requests,
}

impl Primary {
    /// Whether the good copies of an object suffice to read it.
    pub fn is_found(&self, entry: &Entry) -> bool {
        self.roles_of(entry.good).count_ones() >= entry.needed
    }

    /// The roles of some seats. In replicated pools all have one.
    fn roles_of(&self, seats: Mask) -> Mask {
        self.roster.in_mask(seats).fold(0, |roles, (_, seat)| roles | 1 << seat.member.role.0)
    }

    /// Which copies to fetch, so that those can be made that are missing: own ones and those of acting members first.
    /// Nothing: there are too few within reach.
    pub fn sources_of<S: ObjectStore>(&self, cx: &Cx<'_, '_, '_, S>, entry: &Entry) -> Mask {
        let connected = self.roster.mask(|seat| cx.host.node.is_connected(seat.member.osd));
        let own = self.roster.mask(|seat| seat.member.osd == cx.host.node.osd);
        let there = entry.good & connected;
        let order = || seats_of(there & own).chain(seats_of(there & !own));
        let needed = entry.needed;
        let missing = self.roles_of(entry.missing);
        // A copy in the same role is as good as any; so is any copy of a tombstone.
        let mut chosen = self.one_each(order(), if needed == 1 { Mask::MAX } else { missing }, u32::MAX);
        let enough = |chosen: Mask| match needed {
            1 => chosen != 0,
            _ => missing & !self.roles_of(chosen) == 0,
        };
        if enough(chosen) {
            return if needed == 1 { chosen & chosen.wrapping_neg() } else { chosen };
        }
        let others = !self.roles_of(chosen);
        chosen |= self.one_each(order(), others, needed.saturating_sub(self.roles_of(chosen).count_ones()));
        if self.roles_of(chosen).count_ones() >= needed { chosen } else { 0 }
    }

    /// The first seat of each of some roles, but not more than `most`.
    fn one_each(&self, seats: impl Iterator<Item = u8>, roles: Mask, most: u32) -> Mask {
        let (mut chosen, mut open, mut left) = (0, roles, most);
        for seat in seats {
            let role: Mask = 1 << self.roster.role(seat).0;
            if open & role != 0 && left > 0 {
                (chosen, open, left) = (chosen | 1 << seat, open & !role, left - 1);
            }
        }
        chosen
    }

    /// The copy in a role, from those that were fetched.
    pub fn content_in_role(&self, bufs: &mut BufPool, fetched: &[Fetched], role: u8) -> Content {
        let first = fetched.first().expect("something was fetched");
        let same = fetched.iter().find(|fetched| fetched.role == role).or(self.rules.replicated.then_some(first));
        match (same, &first.content) {
            (_, Content::Tombstone) => Content::Tombstone,
            (Some(same), _) => same.content.clone(),
            (None, _) => reconstruct(self.code(), bufs, fetched, role),
        }
    }
}

/// Whether a copy was damaged on its way, and nobody would notice it in what is computed from it.
pub fn hides_damage(replicated: bool, content: &Content) -> bool {
    !replicated && !content.verify() && !planted(Bug::TrustFetched)
}

/// Computes a chunk from `k` others.
fn reconstruct(code: &dyn Code, bufs: &mut BufPool, fetched: &[Fetched], role: u8) -> Content {
    let mut bitmap = Bitmap::default();
    for fetched in fetched {
        if let Content::Data { bitmap: other, .. } = &fetched.content {
            bitmap.include(other);
        }
    }
    let len = bitmap.end() * SECTOR_BYTES;
    let source = |fetched: &'_ Fetched| match &fetched.content {
        Content::Data { data, .. } => (fetched.role, data.buf.slice(0, data.len().min(len))),
        Content::Tombstone => panic!("a tombstone and data of one version"),
    };
    let bytes: SmallVec<[_; 16]> = fetched.iter().take(code.data_chunks().into()).map(source).collect();
    let sources: SmallVec<[Source<'_>; 16]> =
        bytes.iter().map(|(chunk, buf)| Source { chunk: *chunk, bytes: buf.bytes() }).collect();
    let mut buf = bufs.alloc(len);
    code.reconstruct(&sources, role, buf.bytes_mut());
    Content::Data { data: Data::new(bufs.freeze(buf)), bitmap }
}
