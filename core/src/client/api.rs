//! What a user of the client machine says and hears: operations on images, completions, errors.

use crate::buf::Buf;
use crate::id::{ClientId, Session};
use crate::limits::SECTOR_BYTES;
use crate::msg::ImageInfo;
use smallvec::SmallVec;
use std::fmt;

/// What a client is started with.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Identity of its requests; drawn at random for each start.
    pub session: Session,
    /// `host:port` of nodes that serve maps: OSDs or monitors, at least one.
    pub seeds: Vec<String>,
    /// Bounds.
    pub limits: ClientLimits,
}

impl ClientConfig {
    /// A first session with the default limits.
    pub fn new(client: ClientId, seeds: Vec<String>) -> Self {
        ClientConfig { session: Session { client, number: 1 }, seeds, limits: ClientLimits::default() }
    }
}

/// Bounds of one client. Reads and writes have separate shares, so that neither starves the other.
#[derive(Clone, Copy, Debug)]
pub struct ClientLimits {
    /// Accepted and not yet completed operations; above, [`Client::submit`](super::Client::submit) gives back.
    pub operations: usize,
    /// Requests to the cluster in flight, per direction.
    pub requests: usize,
    /// Payload bytes in flight, per direction (one request more may be on the way).
    pub bytes: u64,
    /// Of lazy pools: bytes of acknowledged writes that are not synced, and kept to be replayed. At half of it they are
    /// synced unasked; above, no more writes begin (those that have begun may exceed it).
    pub dirty_bytes: u64,
}

impl Default for ClientLimits {
    /// Deep enough for a queue depth of 256 on each of several exports; 64 MiB is some milliseconds of a fast network, and
    /// so is the replay of 32 MiB.
    fn default() -> Self {
        ClientLimits { operations: 4096, requests: 2048, bytes: 64 << 20, dirty_bytes: 32 << 20 }
    }
}

/// Names an operation until its completion was taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OpId(pub u64);

/// An image that this client has opened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ImageId(pub u32);

/// Largest read, in bytes: what NBD clients take for granted as a maximum.
pub const READ_MAX_BYTES: u32 = 32 << 20;

/// An operation on an image. Offsets and lengths are in bytes; any alignment. Writes whose ends do not fall on sectors
/// read the sectors around them and write them back, conditional on the object not having changed in between.
///
/// Writes of one client that overlap take effect in the order in which they were submitted. A write within one object
/// is all or nothing; one that spans objects is that for each object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageOp {
    /// Reads; answered by [`Outcome::Read`].
    Read {
        /// First byte.
        offset: u64,
        /// Bytes, at most [`READ_MAX_BYTES`].
        len: u32,
    },
    /// Writes; answered by [`Outcome::Done`] when safe as the pool promises.
    Write {
        /// First byte.
        offset: u64,
        /// The bytes.
        data: Buf,
    },
    /// What was answered before this was submitted becomes safe, in all images of this client. Pools that acknowledge
    /// only what is safe (all but lazy ones) need nothing for it. An error tells once that something was lost.
    Flush,
    /// Whole sectors of the range read as zeroes and take no space; ends that are not on sectors stay as they are.
    Discard {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// The range reads as zeroes.
    WriteZeroes {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Objects that lie wholly inside stay allocated.
        no_hole: bool,
    },
    /// Which parts of the range were ever written; answered by [`Outcome::BlockStatus`].
    BlockStatus {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
}

/// Bytes of a read in order, as they came from the objects.
pub type Pieces = SmallVec<[Buf; 2]>;

/// An image that was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenImage {
    /// Its handle.
    pub id: ImageId,
    /// What the cluster knows of it.
    pub info: ImageInfo,
    /// Size of its objects: writes that stay within one are atomic and cheapest.
    pub object_bytes: u32,
}

/// A run of a block status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes.
    pub len: u64,
    /// Whether it was written; otherwise it is a hole and reads as zeroes.
    pub written: bool,
}

/// A success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Of opening an image.
    Opened(OpenImage),
    /// Of listing them: each as `POOL/NAME`, in order.
    Images(Vec<String>),
    /// Of a read.
    Read(Pieces),
    /// Of a write, zeroing, discard or flush.
    Done,
    /// Of a block status: neighbours differ in `written`, the lengths add up to the range.
    BlockStatus(Vec<Extent>),
}

/// A finished operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// As named by `submit` or `open_image`.
    pub op: OpId,
    /// Its result.
    pub result: Result<Outcome, OpError>,
}

/// Why an operation failed. A cluster that is away is none of these: the client waits for it, for ever. A write that
/// failed may have been carried out in other objects than the one that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpError {
    /// No pool has an image of that name.
    NoSuchImage,
    /// The image's pool was removed.
    NoSuchPool,
    /// The image is read-only.
    ReadOnly,
    /// The range does not lie within the image.
    OutOfRange,
    /// The range is longer than one operation may be.
    TooLong,
    /// The cluster has no space for it.
    NoSpace,
    /// No good copy of the object is left.
    Damaged,
    /// This client was fenced off; it must not go on, and does not: every later operation fails, too.
    Fenced,
    /// The image is locked for another client.
    Locked,
    /// The cluster calls the request malformed: versions do not fit together, or a bug.
    BadRequest,
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OpError::NoSuchImage => "no such image",
            OpError::NoSuchPool => "the image's pool does not exist any more",
            OpError::ReadOnly => "the image is read-only",
            OpError::OutOfRange => "the range does not lie within the image",
            OpError::TooLong => "the range is longer than one operation may be",
            OpError::NoSpace => "the cluster has no space left",
            OpError::Damaged => "no good copy of the data is left",
            OpError::Fenced => "this client was fenced off by an administrator",
            OpError::Locked => "the image is locked for another client",
            OpError::BadRequest => "the cluster refused the request as malformed",
        })
    }
}

impl std::error::Error for OpError {}

/// Whether `value` falls on a sector.
pub(super) fn on_sector(value: u32) -> bool {
    value.is_multiple_of(SECTOR_BYTES)
}
