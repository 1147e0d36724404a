//! Operations: what was asked, how much of it has been cut into parts, and what came back.

use super::api::{Extent, ImageId, ImageOp, OpError, Outcome, Pieces};
use super::part::{Action, Merge, PartAnswer};
use super::split::Slice;
use crate::buf::Buf;
use crate::limits::SECTOR_BYTES;
use crate::planted::{Bug, planted};
use crate::store::{Bitmap, Data};
use crate::time::Time;
use smallvec::SmallVec;

/// What kind of operation.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// Looking an image up, or all.
    Open,
    /// As in [`ImageOp`].
    Read,
    /// First byte and bytes.
    Write(u64, Buf),
    /// As in [`ImageOp`].
    Discard,
    /// As in [`ImageOp`].
    WriteZeroes {
        /// As in [`ImageOp`].
        no_hole: bool,
    },
    /// As in [`ImageOp`].
    BlockStatus,
    /// As in [`ImageOp`].
    Flush,
}

/// An operation. Parts are cut only when there is room for their requests, so a discard of a whole image takes no more
/// memory than any other.
#[derive(Clone, Debug)]
pub(super) struct Op {
    /// What to do.
    pub kind: Kind,
    /// On which image.
    pub image: ImageId,
    /// When it came.
    pub since: Time,
    /// Where the next part begins.
    cursor: u64,
    /// Where the last part ends.
    end: u64,
    /// Parts cut so far.
    parts: u32,
    /// Parts cut and not yet answered.
    unanswered: u32,
    /// By part; empty for operations that give nothing back.
    answers: SmallVec<[Option<PartAnswer>; 1]>,
    /// The first failure.
    error: Option<OpError>,
}

impl Op {
    /// An operation on `start..end`.
    pub fn new(kind: Kind, image: ImageId, start: u64, end: u64) -> Op {
        let (since, answers) = (Time(0), SmallVec::new());
        Op { kind, image, since, cursor: start, end, parts: 0, unanswered: 0, answers, error: None }
    }

    /// Kind and range of what a user asks.
    pub fn of_request(op: ImageOp, image: ImageId) -> Op {
        let (kind, start, len) = match op {
            ImageOp::Flush => return Op { unanswered: 1, ..Op::new(Kind::Flush, image, 0, 0) },
            ImageOp::Read { offset, len } => (Kind::Read, offset, u64::from(len)),
            ImageOp::Write { offset, data } => {
                let len = u64::from(data.len());
                (Kind::Write(offset, data), offset, len)
            }
            ImageOp::Discard { offset, len } => (Kind::Discard, offset, len),
            ImageOp::WriteZeroes { offset, len, no_hole } => (Kind::WriteZeroes { no_hole }, offset, len),
            ImageOp::BlockStatus { offset, len } => (Kind::BlockStatus, offset, len),
        };
        Op::new(kind, image, start, start.saturating_add(len))
    }

    /// Whether it changes the image.
    pub fn is_write(&self) -> bool {
        matches!(self.kind, Kind::Write(..) | Kind::Discard | Kind::WriteZeroes { .. })
    }

    /// Whether everything has been cut into parts.
    pub fn is_cut(&self) -> bool {
        self.cursor >= self.end
    }

    /// Whether everything has been cut and answered.
    pub fn is_done(&self) -> bool {
        self.is_cut() && self.unanswered == 0
    }

    /// Cuts the next part off: its index, object and action. `None`: this piece needs no request.
    pub fn cut(&mut self, size_bytes: u64, object_bytes: u32) -> Option<(u32, u64, Action)> {
        let slice = Slice::first_of(self.cursor, self.end, object_bytes);
        let start = self.cursor;
        self.cursor += u64::from(slice.len);
        let to_end = slice.len == object_bytes || self.cursor == size_bytes || planted(Bug::DiscardDeletes);
        let whole = slice.offset == 0 && to_end;
        let action = match &self.kind {
            Kind::Open | Kind::Flush => unreachable!("{:?} has no range", self.kind),
            Kind::Read => Action::Read(slice),
            Kind::BlockStatus => Action::Status(slice),
            Kind::Write(first, data) => {
                let skip = u32::try_from(start - first).expect("inside the buffer");
                write(slice, data.slice(skip, slice.len))
            }
            Kind::WriteZeroes { no_hole: false } | Kind::Discard if whole => Action::Delete,
            Kind::Discard => Action::Zero(slice.narrowed()?),
            Kind::WriteZeroes { .. } if slice.aligned() => Action::Zero(slice),
            Kind::WriteZeroes { .. } => Action::Merge(Merge { slice, source: None, merged: None }),
        };
        let index = self.parts;
        self.parts += 1;
        self.unanswered += 1;
        Some((index, slice.stripe, action))
    }

    /// A part was answered.
    pub fn answer(&mut self, index: u32, answer: PartAnswer) {
        self.unanswered -= 1;
        if answer != PartAnswer::Done {
            let place = index as usize;
            if self.answers.len() <= place {
                self.answers.resize(place + 1, None);
            }
            self.answers[place] = Some(answer);
        }
    }

    /// A flush is over.
    pub fn flushed(&mut self, result: Result<(), OpError>) {
        self.unanswered = 0;
        self.error = result.err();
    }

    /// A part failed (or, with no part cut, the operation itself): no more parts are cut.
    pub fn fail(&mut self, error: OpError, parts: u32) {
        self.unanswered -= parts;
        self.cursor = self.end;
        self.error.get_or_insert(error);
    }

    /// The result of an operation that is done.
    pub fn result(self) -> Result<Outcome, OpError> {
        assert!(self.cursor >= self.end && self.unanswered == 0, "an operation ended with parts under way");
        if let Some(error) = self.error {
            return Err(error);
        }
        let answers = self.answers.into_iter().map(|answer| answer.expect("every part was answered"));
        Ok(match self.kind {
            Kind::Read => Outcome::Read(pieces(answers)),
            Kind::BlockStatus => Outcome::BlockStatus(extents(answers)),
            _ => Outcome::Done,
        })
    }
}

fn write(slice: Slice, data: Buf) -> Action {
    if slice.aligned() {
        Action::Write(slice, Data::new(data))
    } else {
        Action::Merge(Merge { slice, source: Some(data), merged: None })
    }
}

fn pieces(answers: impl Iterator<Item = PartAnswer>) -> Pieces {
    let data = |answer| match answer {
        PartAnswer::Data(buf) => buf,
        other => unreachable!("a read was answered by {other:?}"),
    };
    answers.map(data).collect()
}

fn extents(answers: impl Iterator<Item = PartAnswer>) -> Vec<Extent> {
    let mut runs = Vec::new();
    for answer in answers {
        match answer {
            PartAnswer::Bitmap(slice, bitmap) => append_runs(&mut runs, slice, &bitmap),
            other => unreachable!("a block status was answered by {other:?}"),
        }
    }
    runs
}

fn append_runs(runs: &mut Vec<Extent>, slice: Slice, bitmap: &Bitmap) {
    let end = slice.offset + slice.len;
    let mut at = slice.offset;
    let mut sector = 0;
    while at < end {
        let next = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
        let (len, written) = (u64::from(next - at), is_set(bitmap, sector));
        match runs.last_mut() {
            Some(last) if last.written == written => last.len += len,
            _ => runs.push(Extent { len, written }),
        }
        (at, sector) = (next, sector + 1);
    }
}

fn is_set(bitmap: &Bitmap, sector: usize) -> bool {
    bitmap.words.get(sector / 64).is_some_and(|word| word >> (sector % 64) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::BufPool;

    fn cuts(op: ImageOp, size_bytes: u64) -> Vec<(u64, Action)> {
        let mut op = Op::of_request(op, ImageId(0));
        let mut actions = Vec::new();
        while !op.is_cut() {
            actions.extend(op.cut(size_bytes, 4096).map(|(_, stripe, action)| (stripe, action)));
        }
        actions
    }

    #[test]
    fn discards_delete_whole_objects_and_leave_torn_sectors_alone() {
        let actions = cuts(ImageOp::Discard { offset: 3000, len: 12_000 - 3000 }, 12_000);
        let [(0, Action::Zero(first)), (1, Action::Delete), (2, Action::Delete)] = actions.as_slice() else {
            panic!("{actions:?}");
        };
        assert_eq!((first.offset, first.len), (3072, 1024));
        assert!(cuts(ImageOp::Discard { offset: 1, len: 700 }, 12_000).is_empty());
    }

    #[test]
    fn zeroes_respect_no_hole_and_bytes() {
        let zeroes = |offset, len, no_hole| cuts(ImageOp::WriteZeroes { offset, len, no_hole }, 1 << 20);
        assert!(matches!(zeroes(0, 4096, false)[..], [(0, Action::Delete)]));
        assert!(matches!(zeroes(0, 4096, true)[..], [(0, Action::Zero(_))]));
        assert!(matches!(zeroes(0, 4095, false)[..], [(0, Action::Merge(_))]));
    }

    #[test]
    fn writes_are_cut_with_their_bytes() {
        let data = BufPool::new().copy_of(&[7; 5000]);
        let actions = cuts(ImageOp::Write { offset: 4096 - 512, data }, 1 << 20);
        let [(0, Action::Write(a, first)), (1, Action::Write(b, _)), (2, Action::Merge(c))] = actions.as_slice() else {
            panic!("{actions:?}");
        };
        assert_eq!((a.len, b.len, c.slice.len), (512, 4096, 392));
        assert!(first.verify());
    }

    #[test]
    fn runs_follow_the_bitmap_to_the_byte() {
        let slice = Slice { stripe: 0, offset: 100, len: 1500 };
        let bitmap = Bitmap { words: smallvec::smallvec![0b010] };
        let mut runs = vec![Extent { len: 5, written: false }];
        append_runs(&mut runs, slice, &bitmap);
        let expected = [(5 + 412, false), (512, true), (576, false)];
        assert_eq!(runs, expected.map(|(len, written)| Extent { len, written }));
    }
}
