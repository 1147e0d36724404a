//! What the server needs of the disks that it exports. Images of a cluster are some; memory will do for tests.

use super::protocol::Command;
use crate::{Error, Image, ImageOp, Outcome};
use std::time::Duration;

/// A disk to be exported. Clones are the same disk.
pub trait Disk: Clone + Send + Sync + 'static {
    /// Bytes.
    fn size(&self) -> u64;
    /// Whether writes are refused.
    fn is_read_only(&self) -> bool;
    /// Writes are handed over in pieces that end on multiples of this.
    fn object_bytes(&self) -> u32;
    /// Carries out an operation. Any alignment; concurrent ones in any order, overlapping writes in that of their first
    /// polls.
    fn perform(&self, op: ImageOp) -> impl Future<Output = Result<Outcome, Error>> + Send;
}

impl Disk for Image {
    fn size(&self) -> u64 {
        Image::size(self)
    }

    fn is_read_only(&self) -> bool {
        Image::is_read_only(self)
    }

    fn object_bytes(&self) -> u32 {
        Image::object_bytes(self)
    }

    fn perform(&self, op: ImageOp) -> impl Future<Output = Result<Outcome, Error>> + Send {
        Image::perform(self, op)
    }
}

/// Disks by name.
pub trait Exports: Clone + Send + Sync + 'static {
    /// What they are.
    type Disk: Disk;
    /// Names to be listed.
    fn names(&self) -> impl Future<Output = Vec<String>> + Send;
    /// The disk of this name (empty: the default one), or for the client's user why there is none.
    fn find(&self, name: &str) -> impl Future<Output = Result<Self::Disk, String>> + Send;
    /// Whether clients may not write, whatever the disk allows.
    fn read_only(&self) -> bool;
    /// Ends when the disk, which was found under this name, has become smaller: who was told the old size has to ask
    /// again.
    fn shrunk(&self, _name: &str, _disk: &Self::Disk) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
    /// Counts a request that was answered.
    fn answered(&self, _command: Command, _took: Duration) {}
}
