//! Recovery of what a member missed: the ranges that changed since its version, instead of the whole copy.
//!
//! Owns the steps of it for one object. Does not own the notes of what changed (changes.rs), nor what is done when the
//! way here ends, which it may at any step (recover.rs: the whole copy).
//!
//! ```text
//! Asking (each source: what changed since the member's version?) -> Reading (these ranges of all sources) -> Installing
//!    |                                                                 |                                       |
//!    +---- not known, too much, a source lost, anything unexpected ----+---------------------------------------+--> whole
//! ```
//! In erasure-coded pools what changed in the missing chunk is nowhere noted, if nobody else had its role. But any `k`
//! chunks determine all others, byte by byte of a column: where `k` chunks did not change, no chunk did. So the ranges of
//! all sources together are what is read, computed and sent.
//!
//! Invariants: a patch names the version that it is relative to, and a member takes it only if that is its newest one,
//! undamaged, while it is joined to this attempt; the version then becomes the new one in one step. In replicated pools
//! the sum of the whole result must be that of the source's copy, too.

use crate::buf::BufPool;
use crate::id::{CopyId, ObjectId, Requests, Version};
use crate::limits::SECTOR_BYTES;
use crate::pg::changes::{Ranges, merge};
use crate::pg::choose::{Mask, seats_of};
use crate::pg::msg::{Refused, SubOp, SubReply};
use crate::pg::primary::{Cx, Primary, Purpose, Stage};
use crate::pg::rebuild::Fetched;
use crate::pg::recover::{Entry, Step, Work};
use crate::planted::{Bug, planted};
use crate::store::{Bitmap, Content, Data, ObjectStore, Patch};

/// What is known of an object's partial recovery.
#[derive(Clone, Debug)]
pub struct Partial {
    /// The version of the members that get it.
    since: Version,
    /// Their seats.
    seats: Mask,
    /// Who supplies it.
    sources: Mask,
    ranges: Ranges,
    predecessor: Version,
    requests: Requests,
    sum: Option<u64>,
    /// What was read, by range.
    parts: Vec<Vec<Fetched>>,
    /// Parts that are awaited.
    left: usize,
}

impl Primary {
    /// Begins, if members that lack the version have an older one. True: it has begun.
    pub fn recover_partly<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: ObjectId) -> bool {
        if !cx.member.changes.is_of_use() {
            return false;
        }
        let entry = &self.unclean.entries[&object];
        let Some((seats, since)) = next_base(entry).filter(|_| self.stage == Stage::Active) else { return false };
        let sources = self.sources_of(cx, entry);
        if sources == 0 {
            return false;
        }
        let version = entry.version;
        let entry = self.unclean.entries.get_mut(&object).expect("found above");
        entry.work = Work::Asking(sources);
        entry.partial = Some(Box::new(Partial {
            since,
            seats,
            sources,
            ranges: Ranges::new(),
            predecessor: Version::NONE,
            requests: Requests::new(),
            sum: None,
            parts: Vec::new(),
            left: 0,
        }));
        for seat in seats_of(sources) {
            let copy = CopyId { object, role: self.roster.role(seat) };
            let purpose = Purpose::Recover { object, seat, step: Step::Ask };
            self.send(cx, seat, SubOp::Changes { copy, since, version }, purpose);
        }
        true
    }

    /// A source said what changed.
    pub fn changes_told<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        object: ObjectId,
        seat: u8,
        sent: &SubOp,
        reply: SubReply,
    ) {
        let entry = self.unclean.entries.get_mut(&object).expect("being worked on");
        let (Work::Asking(from), Some(partial)) = (entry.work, &mut entry.partial) else {
            return cx.host.mark("changes were told after the recovery had gone on");
        };
        let asked = matches!(sent, SubOp::Changes { since, version, .. }
            if *since == partial.since && *version == entry.version);
        if !asked || from >> seat & 1 == 0 {
            return cx.host.mark("changes were told for another question");
        }
        let SubReply::Changes { ranges, predecessor, sum, requests } = reply else {
            return self.recover_whole(cx, object);
        };
        if planted(Bug::PatchOfOneSource) {
            partial.ranges.clear();
        }
        partial.ranges.extend(ranges);
        let requests = if planted(Bug::PatchForgetsRequests) { Requests::new() } else { requests };
        (partial.predecessor, partial.requests, partial.sum) = (predecessor, requests, sum);
        entry.work = Work::Asking(from & !(1 << seat));
        if from == 1 << seat {
            self.read_parts(cx, object);
        }
    }

    /// All sources answered: what changed in any of them is read from all.
    fn read_parts<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: ObjectId) {
        let entry = self.unclean.entries.get_mut(&object).expect("being worked on");
        let (version, partial) = (entry.version, entry.partial.as_mut().expect("begun"));
        partial.ranges = merge(std::mem::take(&mut partial.ranges));
        if planted(Bug::PatchSkipsRange) {
            partial.ranges.pop();
        }
        if !cx.member.changes.is_worth_it(&partial.ranges) {
            return self.recover_whole(cx, object);
        }
        let (sources, ranges) = (partial.sources, partial.ranges.clone());
        partial.parts = vec![Vec::new(); ranges.len()];
        partial.left = ranges.len() * sources.count_ones() as usize;
        entry.work = Work::Reading(sources);
        if ranges.is_empty() {
            return self.send_patches(cx, object);
        }
        for seat in seats_of(sources) {
            let copy = CopyId { object, role: self.roster.role(seat) };
            for (range, (offset, len)) in (0u8..).zip(&ranges) {
                let purpose = Purpose::Recover { object, seat, step: Step::Read(range) };
                self.send(cx, seat, SubOp::Read { copy, version, offset: *offset, len: *len }, purpose);
            }
        }
    }

    /// A range was read.
    pub fn part_read<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        object: ObjectId,
        (seat, range): (u8, u8),
        sent: &SubOp,
        reply: SubReply,
    ) {
        let role = self.roster.role(seat).0;
        let entry = self.unclean.entries.get_mut(&object).expect("being worked on");
        let (Work::Reading(_), Some(partial)) = (entry.work, &mut entry.partial) else {
            return cx.host.mark("a part was read after the recovery had gone on");
        };
        let range = usize::from(range);
        let asked = match (sent, partial.ranges.get(range)) {
            (SubOp::Read { version, offset, len, .. }, Some(range)) => {
                (*offset, *len) == *range && *version == entry.version && partial.sources >> seat & 1 == 1
            }
            _ => false,
        };
        // Of a source that was asked twice, one answer counts; of one that was given up, none: there must be a part of each.
        let is_new = |part: &Vec<Fetched>| part.iter().all(|fetched| fetched.role != role);
        if !asked || !is_new(&partial.parts[range]) {
            return cx.host.mark("a part was read for another recovery");
        }
        match reply {
            SubReply::Read { data, bitmap } if data.len() == partial.ranges[range].1 && data.verify() => {
                let content = Content::Data { data, bitmap };
                let (predecessor, requests) = (partial.predecessor, Requests::new());
                partial.parts[range].push(Fetched { role, predecessor, content, requests });
                partial.left -= 1;
                if partial.left == 0 {
                    self.send_patches(cx, object);
                }
            }
            _ => self.recover_whole(cx, object),
        }
    }

    /// All parts are here.
    fn send_patches<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: ObjectId) {
        let entry = self.unclean.entries.get_mut(&object).expect("being worked on");
        let partial = entry.partial.take().expect("begun");
        let version = entry.version;
        entry.work = Work::Installing(partial.seats);
        cx.host.mark("a member gets what it missed");
        for seat in seats_of(partial.seats) {
            let copy = CopyId { object, role: self.roster.role(seat) };
            let patch = Box::new(self.patch_in_role(cx.host.env.bufs, &partial, copy.role.0));
            let Partial { since: base, predecessor, ref requests, .. } = *partial;
            let op = SubOp::Patch { copy, base, version, predecessor, patch, requests: requests.clone() };
            self.send(cx, seat, op, Purpose::Recover { object, seat, step: Step::Install });
        }
    }

    fn patch_in_role(&self, bufs: &mut BufPool, partial: &Partial, role: u8) -> Patch {
        let total = partial.ranges.iter().map(|(_, len)| len).sum();
        let (mut buf, mut bitmap, mut at) = (bufs.zeroed(total), Bitmap::default(), 0);
        for ((offset, len), part) in partial.ranges.iter().zip(&partial.parts) {
            let Content::Data { data, bitmap: written } = self.content_in_role(bufs, part, role) else {
                panic!("{:?}: parts are data", self.pg)
            };
            buf.copy_from(at, &data.buf);
            for sector in (0..len / SECTOR_BYTES).filter(|sector| written.get(*sector)) {
                bitmap.set(offset / SECTOR_BYTES + sector, 1, true);
            }
            at += len;
        }
        // Of another chunk the sum says nothing.
        let sum = partial.sum.filter(|_| self.rules.replicated);
        Patch { ranges: partial.ranges.clone(), bitmap, sum, data: Data::new(bufs.freeze(buf)) }
    }

    /// A member did not take its patch.
    pub fn patch_refused<S: ObjectStore>(
        &mut self,
        cx: &mut Cx<'_, '_, '_, S>,
        object: ObjectId,
        seat: u8,
        why: Refused,
    ) {
        match why {
            Refused::Mismatch => cx.host.mark("a patch did not give the version that it should"),
            Refused::WrongPredecessor(_) => cx.host.mark("a patch was for another version than the member's"),
            _ => cx.host.mark("a patch was refused"),
        }
        let entry = self.unclean.entries.get_mut(&object).expect("being worked on");
        entry.whole = true;
        let Work::Installing(left) = entry.work else { return };
        let left = left & !(1 << seat);
        entry.work = if left == 0 { Work::Idle } else { Work::Installing(left) };
        if left == 0 {
            self.work_step(cx, object);
        }
    }

    /// It is not to be had in parts.
    fn recover_whole<S: ObjectStore>(&mut self, cx: &mut Cx<'_, '_, '_, S>, object: ObjectId) {
        cx.host.mark("what a member missed is not known, it gets the whole copy");
        let entry = self.unclean.entries.get_mut(&object).expect("being worked on");
        (entry.work, entry.partial, entry.whole) = (Work::Idle, None, true);
        self.work_step(cx, object);
    }
}

/// The members that are next: some that have the same older version.
fn next_base(entry: &Entry) -> Option<(Mask, Version)> {
    if entry.whole {
        return None;
    }
    let wanted = |(seat, _): &&(u8, Version)| entry.missing >> seat & 1 == 1 && entry.repair >> seat & 1 == 0;
    let (_, since) = *entry.bases.iter().find(wanted)?;
    let same = entry.bases.iter().filter(wanted).filter(|(_, base)| *base == since);
    Some((same.fold(0, |seats, (seat, _)| seats | 1 << seat), since))
}
