//! The boundary: what a node is told ([`Input`]) and what it asks for ([`Effect`]).
//!
//! Rules that every runtime keeps:
//! 1. Effects of one call may be executed in any order, concurrently. If B must follow A, core emits B when A's
//!    completion arrives. One exception, which TCP gives for free: messages sent on one link arrive in order or not
//!    at all.
//! 2. Every [`Effect::Io`] and every [`meta::Request`] completes exactly once, or the node dies.
//! 3. Steady state allocates nothing.

use crate::buf::{Buf, BufPool};
use crate::id::{ClientId, Incarnation, LinkId, OsdId, Session};
use crate::meta;
use crate::msg::Message;
use crate::rng::Rng;
use crate::time::Time;
use std::fmt;

/// A deterministic state machine driven by events.
pub trait Node {
    /// Takes one event; never blocks, never fails.
    fn handle(&mut self, env: &mut Env<'_>, input: Input);
    /// All inputs that were ready have been given: what waited for company (a log page, a batch of completions) goes out
    /// now. Called after one or more inputs, before their effects are forced out.
    fn end_of_round(&mut self, _env: &mut Env<'_>) {}
    /// When [`Input::Tick`] is due at the latest.
    fn next_deadline(&self) -> Option<Time>;
    /// Panics if an invariant is broken. Called after every input in simulation.
    fn check(&self);
}

/// What a node may use while it handles one event.
pub struct Env<'a> {
    /// The node's monotonic clock (goes on in suspend).
    pub now: Time,
    /// The only randomness.
    pub rng: &'a mut Rng,
    /// Payload buffers.
    pub bufs: &'a mut BufPool,
    /// Where effects go.
    pub out: &'a mut Effects,
}

/// Effects of one call, in order of emission (the order means nothing but on one link).
#[derive(Clone, Default)]
pub struct Effects {
    /// Drained by the runtime after each call; its capacity is reused.
    pub queue: Vec<Effect>,
}

impl Effects {
    /// Adds an effect.
    pub fn push(&mut self, effect: Effect) {
        self.queue.push(effect);
    }

    /// Sends a message on a link; lost silently if the link is gone.
    pub fn send(&mut self, to: LinkId, msg: Message) {
        self.queue.push(Effect::Send { to, msg });
    }
}

/// An event for a node.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "messages are the common case; a box would be an allocation each")]
pub enum Input {
    /// A message arrived, on a link that was reported up and not yet down.
    Message {
        /// The connection.
        from: LinkId,
        /// The message; header checksum verified, body checksum not.
        msg: Message,
    },
    /// A connection changed.
    Link(LinkEvent),
    /// A disk request completed.
    Io {
        /// The request's name.
        id: IoId,
        /// Its result.
        done: DiskDone,
    },
    /// The metadata store answered or reported.
    Meta(MetaEvent),
    /// A deadline passed (or nothing happened: spurious ticks are legal).
    Tick,
}

/// A request to the world.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send a message.
    Send {
        /// The connection.
        to: LinkId,
        /// The message.
        msg: Message,
    },
    /// Open a connection to a peer; answered by [`LinkEvent::Up`] or [`LinkEvent::Failed`].
    Connect {
        /// Whom we expect there.
        target: PeerName,
        /// `host:port`.
        address: String,
    },
    /// Close a connection; nothing more arrives on it, and no `Down` is reported.
    Close(LinkId),
    /// A disk request.
    Io {
        /// Named by the node; comes back with the completion.
        id: IoId,
        /// What to do.
        op: DiskOp,
    },
    /// A request to the metadata store.
    Meta(MetaOp),
    /// Something an observer (checker, log, metrics) may want to know; no effect on behaviour.
    Observe(Event),
    /// The node cannot go on (fail-stop); the runtime ends the process with this message.
    Die(String),
}

/// Whom a connection leads to, as far as the one who opens it knows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PeerName {
    /// An OSD.
    Osd(OsdId),
    /// Any node that serves maps, number n of the configured addresses.
    Seed(u32),
}

/// Who is at the other end of a connection, by its handshake.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PeerId {
    /// An OSD and its start.
    Osd(OsdId, Incarnation),
    /// A client and its session.
    Client(Session),
    /// A monitor.
    Mon(Incarnation),
}

impl PeerId {
    /// The client, if it is one.
    pub fn client(self) -> Option<ClientId> {
        match self {
            PeerId::Client(session) => Some(session.client),
            PeerId::Osd(..) | PeerId::Mon(_) => None,
        }
    }
}

/// What happened to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Handshake done.
    Up {
        /// Its name from now on.
        link: LinkId,
        /// The other end.
        peer: PeerId,
        /// For connections that we opened: the target that we had named.
        opened: Option<PeerName>,
    },
    /// Ended by the other end, the network or the host.
    Down {
        /// The connection.
        link: LinkId,
    },
    /// An attempt to connect failed.
    Failed {
        /// What had been asked for.
        target: PeerName,
        /// Whether the host answered and refused: nobody listens there.
        refused: bool,
    },
}

/// Names a disk request of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IoId(pub u64);

/// Which device of a store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Device {
    /// Superblocks and data blocks; the log too, unless it has a device of its own.
    Data,
    /// A separate log device.
    Log,
}

/// A disk request. Offsets and lengths are in bytes, multiples of the device's logical block (at most 4 KiB).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskOp {
    /// Read into a fresh buffer.
    Read {
        /// Device.
        device: Device,
        /// Byte offset.
        offset: u64,
        /// Bytes.
        len: u32,
    },
    /// Write; completed when the device says so, which is durable only with power-loss protection.
    Write {
        /// Device.
        device: Device,
        /// Byte offset.
        offset: u64,
        /// Bytes to write.
        data: Buf,
    },
    /// Make durable what completed before this was submitted.
    Flush {
        /// Device.
        device: Device,
    },
    /// Tell the device that a range is unused. A hint: success is not required, contents become
    /// unspecified until they are written again.
    Discard {
        /// Device.
        device: Device,
        /// Byte offset.
        offset: u64,
        /// Bytes.
        len: u64,
    },
}

/// Why no device takes a disk request: whoever made it has a bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Misfit {
    /// It ends behind the device's end.
    BeyondEnd,
    /// It is not whole blocks on their multiples.
    Unaligned,
    /// It is about no bytes.
    Empty,
}

impl DiskOp {
    /// The device.
    pub fn device(&self) -> Device {
        match self {
            DiskOp::Read { device, .. }
            | DiskOp::Write { device, .. }
            | DiskOp::Flush { device }
            | DiskOp::Discard { device, .. } => *device,
        }
    }

    /// Where it begins, and its bytes; `None` of a flush.
    pub fn extent(&self) -> Option<(u64, u64)> {
        match self {
            DiskOp::Read { offset, len, .. } => Some((*offset, u64::from(*len))),
            DiskOp::Write { offset, data, .. } => Some((*offset, u64::from(data.len()))),
            DiskOp::Discard { offset, len, .. } => Some((*offset, *len)),
            DiskOp::Flush { .. } => None,
        }
    }

    /// Why a device of so many bytes, in blocks of so many, does not take it.
    pub fn misfit(&self, size_bytes: u64, block_bytes: u32) -> Option<Misfit> {
        let (offset, len) = self.extent()?;
        let block = u64::from(block_bytes);
        if len == 0 {
            Some(Misfit::Empty)
        } else if offset % block != 0 || len % block != 0 {
            Some(Misfit::Unaligned)
        } else if offset.checked_add(len).is_none_or(|end| end > size_bytes) {
            Some(Misfit::BeyondEnd)
        } else {
            None
        }
    }
}

/// Result of a disk request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskDone {
    /// Of a read: all the bytes.
    Read(Result<Buf, DiskError>),
    /// Of a write, flush or discard.
    Done(Result<(), DiskError>),
}

/// Why a disk request failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskError {
    /// The medium or the path to it.
    Io,
    /// A file-backed device could not grow.
    NoSpace,
    /// The device does not do such a thing, now or later: only of a discard.
    Unsupported,
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DiskError::Io => "the device, or the path to it, failed; the kernel's log may say more",
            DiskError::NoSpace => "what the file lies on is full",
            DiskError::Unsupported => "the device does not do such a thing",
        })
    }
}

/// Names a metadata request of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MetaId(pub u64);

/// A request to the metadata store. Answers come as [`MetaEvent`]s.
#[derive(Clone, Debug, PartialEq)]
pub enum MetaOp {
    /// One request, one response.
    Request {
        /// Comes back with the response.
        id: MetaId,
        /// The request.
        request: meta::Request,
    },
    /// Report changes of keys that begin with `prefix`, from revision `from` on, in order, without gaps.
    Watch {
        /// Names the watch.
        id: MetaId,
        /// Prefix of the keys.
        prefix: String,
        /// First revision of interest.
        from: u64,
    },
    /// End a watch; late events may still arrive.
    Unwatch {
        /// The watch.
        id: MetaId,
    },
}

/// What the metadata store says.
#[derive(Clone, Debug, PartialEq)]
pub enum MetaEvent {
    /// Of [`MetaOp::Request`].
    Response {
        /// The request.
        id: MetaId,
        /// Its result.
        result: Result<meta::Response, MetaError>,
    },
    /// Changes, in order of revision; all changes of one revision come in one event.
    Watch {
        /// The watch.
        id: MetaId,
        /// All changes up to this revision have been reported.
        revision: u64,
        /// The changes.
        events: Vec<meta::WatchEvent>,
    },
    /// The watch is dead: its revisions were compacted, or the connection was lost. Read anew, then watch again.
    WatchLost {
        /// The watch.
        id: MetaId,
    },
}

/// Why a metadata request has no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaError {
    /// No answer: it may have been carried out, or not, or may be later.
    Unknown,
    /// Certainly not carried out: the store could not be reached.
    Unavailable,
    /// Certainly not carried out: the store refused it, with its reason (a bad request, a lost lease).
    Refused(String),
}

/// What observers may want to know. Checkers of the simulator live on these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A named rare branch was taken.
    Mark(&'static str),
    /// Something a person should read, with all ids.
    Log(Level, String),
    /// Something a checker verifies; each part of core defines its own facts.
    Fact(crate::msg::Fact),
}

/// Importance of a log line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Details for developers.
    Debug,
    /// Normal changes of state.
    Info,
    /// Degraded, but handled.
    Warn,
    /// Needs an operator.
    Error,
}
