//! One request about one object, from its making to its answer.
//!
//! A part keeps its number through all its tries. A write whose ends are not on sectors is a *merge*: it reads the
//! sectors around it, lays its bytes over them, and writes them on condition that the object has not changed; if it
//! has, it reads again.
//!
//! ```text
//!   Held ──(earlier writes to those bytes are done)──▶ Waiting ──▶ Sent(link) ──answer──▶ gone
//!                                                         ▲            │
//!                                                         └──refusal, link lost, other primary
//! ```
//! Instead of being sent, a part of an operation waits `Behind` the replay of its object, if there is one.

use super::numbers::of_read;
use super::ops::Op;
use super::split::Slice;
use crate::buf::{Buf, BufPool};
use crate::id::{Epoch, LinkId, ObjectId, PgId, Version};
use crate::msg::{Answer, RequestOp};
use crate::planted::{Bug, planted};
use crate::slab::Key;
use crate::store::{Bitmap, Data};
use crate::time::Time;
use smallvec::SmallVec;

/// What a part does.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// Reads the sectors around a range and gives the range.
    Read(Slice),
    /// Asks for the bitmap of the sectors around a range.
    Status(Slice),
    /// Writes whole sectors.
    Write(Slice, Data),
    /// Makes whole sectors unwritten.
    Zero(Slice),
    /// Makes the object non-existent.
    Delete,
    /// Writes (zeroes, if there is no source) to a range that is not on sectors.
    Merge(Merge),
    /// Makes what was acknowledged in the object's group durable.
    Sync,
}

impl Action {
    /// Payload bytes that it occupies while it is in flight.
    pub fn bytes(&self) -> u64 {
        match self {
            Action::Read(slice) | Action::Write(slice, _) | Action::Merge(Merge { slice, .. }) => u64::from(slice.len),
            Action::Status(_) | Action::Zero(_) | Action::Delete | Action::Sync => 0,
        }
    }

    /// The same to be done again after it took effect: without a condition.
    pub fn unconditional(self) -> Action {
        match self {
            Action::Merge(Merge { slice, merged: Some((data, _)), .. }) => Action::Write(slice.widened(), data),
            action => action,
        }
    }
}

/// A write by reading, laying over and writing back.
#[derive(Clone, Debug)]
pub(super) struct Merge {
    /// The range.
    pub slice: Slice,
    /// Its bytes; none: zeroes.
    pub source: Option<Buf>,
    /// The sectors around it with its bytes laid over, and the version on which that is based.
    pub merged: Option<(Data, Version)>,
}

impl Merge {
    fn lay_over(&mut self, bufs: &mut BufPool, version: Version, read: &Data) {
        let wide = self.slice.widened();
        let mut buf = bufs.alloc(wide.len);
        buf.copy_from(0, &read.buf);
        let at = self.slice.offset - wide.offset;
        match &self.source {
            Some(source) => buf.copy_from(at, source),
            None => buf.zero(at, self.slice.len),
        }
        self.merged = Some((Data::new(bufs.freeze(buf)), version));
    }
}

/// Where a part is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Behind earlier writes to the same bytes, or other replays of the object.
    Held,
    /// Behind the replay of its object.
    Behind,
    /// In its group's queue.
    Waiting,
    /// Its newest try went out on this link, with this epoch.
    Sent(LinkId, Epoch),
}

/// What a part is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    /// An operation, and its place among the operation's parts.
    Op(Key<Op>, u32),
    /// A write that was acknowledged under an older epoch.
    Replay,
    /// The syncs of a group. It tells up to which number nothing is ever replayed, whatever becomes of the sync: the
    /// primary forgets what it knew of those writes.
    Sync(u64),
}

/// What a part contributes to its operation's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PartAnswer {
    /// Bytes.
    Data(Buf),
    /// Written sectors, from the first sector of the range on.
    Bitmap(Slice, Bitmap),
    /// Nothing but that it is done.
    Done,
}

/// How an answer changes a part.
pub(super) enum Step {
    /// It is done.
    Finished(PartAnswer),
    /// It is done, and may be lost with the power.
    Applied,
    /// Another request follows.
    Again,
    /// The answer is no answer to this request, or was damaged on the way: ask again after a pause.
    Unusable,
}

/// A request about one object.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// What it is for.
    pub owner: Owner,
    /// The object.
    pub object: ObjectId,
    /// The object's group.
    pub pg: PgId,
    /// Number of a write; 0 for reads.
    pub number: u64,
    /// What to do.
    pub action: Action,
    /// Where it is.
    pub state: State,
    /// Tries that have not been answered: the link, and the epoch under which it was asked.
    pub tries: SmallVec<[(LinkId, Epoch); 2]>,
    /// How often it was refused.
    pub refusals: u32,
    /// When its operation came.
    pub since: Option<Time>,
    /// When its newest try was sent.
    pub sent: Option<Time>,
}

impl Part {
    /// Whether it changes the object.
    pub fn is_write(&self) -> bool {
        !matches!(self.action, Action::Read(_) | Action::Status(_) | Action::Sync)
    }

    /// First byte and end of what it may change. A merge claims the whole object: any change of it makes the merge
    /// start over.
    pub fn span(&self) -> (u32, u32) {
        match &self.action {
            Action::Read(slice) | Action::Status(slice) | Action::Write(slice, _) | Action::Zero(slice) => {
                (slice.offset, slice.offset + slice.len)
            }
            Action::Delete | Action::Merge(_) => (0, u32::MAX),
            Action::Sync => (0, 0),
        }
    }

    /// The number of its present request: a merge begins with a read.
    pub fn wire_number(&self, key: Key<Part>) -> u64 {
        match &self.action {
            Action::Read(_) | Action::Status(_) | Action::Sync | Action::Merge(Merge { merged: None, .. }) => {
                of_read(key)
            }
            _ => self.number,
        }
    }

    /// Its present request.
    pub fn request(&self) -> RequestOp {
        match &self.action {
            Action::Read(slice) => read(slice.widened()),
            Action::Status(slice) => {
                let wide = slice.widened();
                RequestOp::BlockStatus { offset: wide.offset, len: wide.len }
            }
            Action::Write(slice, data) => RequestOp::Write { offset: slice.offset, data: data.clone(), expect: None },
            Action::Zero(slice) => RequestOp::Zero { offset: slice.offset, len: slice.len },
            Action::Delete => RequestOp::Delete { expect: None },
            Action::Sync => RequestOp::Sync,
            Action::Merge(merge) => match &merge.merged {
                None => read(merge.slice.widened()),
                Some((data, version)) => RequestOp::Write {
                    offset: merge.slice.widened().offset,
                    data: data.clone(),
                    expect: (!planted(Bug::MergeWithoutCondition)).then_some(*version),
                },
            },
        }
    }

    /// Takes a success.
    pub fn answered(&mut self, bufs: &mut BufPool, answer: Answer) -> Step {
        match (&mut self.action, answer) {
            (Action::Read(slice), Answer::Read { data, .. }) => {
                let wide = slice.widened();
                if data.len() != wide.len || !(data.verify() || planted(Bug::ClientTrustsBody)) {
                    return Step::Unusable;
                }
                Step::Finished(PartAnswer::Data(data.buf.slice(slice.offset - wide.offset, slice.len)))
            }
            (Action::Status(slice), Answer::BlockStatus { bitmap, .. }) => {
                Step::Finished(PartAnswer::Bitmap(*slice, bitmap))
            }
            (Action::Merge(merge), Answer::Read { version, data }) if merge.merged.is_none() => {
                if data.len() != merge.slice.widened().len || !data.verify() {
                    return Step::Unusable;
                }
                merge.lay_over(bufs, version, &data);
                Step::Again
            }
            (Action::Merge(Merge { merged: Some(_), .. }), Answer::Written { .. })
            | (Action::Write(..) | Action::Zero(_) | Action::Delete, Answer::Written { .. }) => {
                Step::Finished(PartAnswer::Done)
            }
            (Action::Sync, Answer::Synced) => Step::Finished(PartAnswer::Done),
            // Nothing was there to be changed: a replay of it could only undo what was written since. A deletion of our
            // own that may be lost is replayed itself.
            (Action::Zero(_) | Action::Delete, Answer::Applied { version })
                if version == Version::NONE && !planted(Bug::ReplayNothing) =>
            {
                Step::Finished(PartAnswer::Done)
            }
            (Action::Merge(Merge { merged: Some(_), .. }), Answer::Applied { .. })
            | (Action::Write(..) | Action::Zero(_) | Action::Delete, Answer::Applied { .. }) => Step::Applied,
            _ => Step::Unusable,
        }
    }

    /// The object has changed under a merge: read it again. False for anything but a merge.
    pub fn start_over(&mut self) -> bool {
        match &mut self.action {
            Action::Merge(merge) if merge.merged.is_some() => {
                merge.merged = None;
                true
            }
            _ => false,
        }
    }

    /// Whether its payload is still what was sealed; if not, this host's memory is at fault.
    pub fn payload_is_good(&self) -> bool {
        match &self.action {
            Action::Write(_, data) | Action::Merge(Merge { merged: Some((data, _)), .. }) => data.verify(),
            _ => true,
        }
    }
}

fn read(slice: Slice) -> RequestOp {
    RequestOp::Read { offset: slice.offset, len: slice.len }
}
