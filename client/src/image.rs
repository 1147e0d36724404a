//! An image as a byte-addressed disk.

use crate::{Client, Error, Extent, ImageOp, Outcome, Pieces};
use ashlar_core::buf::{BUF_MAX_BYTES, Buf};
use ashlar_core::client::OpenImage;

/// An open image. Clones are the same image; all methods may be called concurrently.
///
/// Writes that overlap take effect in the order in which their futures were first polled. A write within one object
/// ([`Image::object_bytes`]) is all or nothing, also when power fails. A write that was answered is safe.
#[derive(Clone)]
pub struct Image {
    client: Client,
    open: OpenImage,
}

impl Image {
    pub(crate) fn new(client: Client, open: OpenImage) -> Self {
        Image { client, open }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.open.info.name
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.open.info.size_bytes
    }

    /// Whether another one is the same image, perhaps with a new size or name.
    pub fn is_same(&self, other: &Image) -> bool {
        (self.open.info.pool, self.open.info.inode) == (other.open.info.pool, other.open.info.inode)
    }

    /// Whether writes are refused.
    pub fn is_read_only(&self) -> bool {
        self.open.info.read_only
    }

    /// Bytes of its objects, the unit of atomic writes.
    pub fn object_bytes(&self) -> u32 {
        self.open.object_bytes
    }

    /// Carries out any operation.
    pub async fn perform(&self, op: ImageOp) -> Result<Outcome, Error> {
        self.client.perform(self.open.id, op).await
    }

    /// Reads up to [`READ_MAX_BYTES`](crate::READ_MAX_BYTES).
    pub async fn read(&self, offset: u64, len: u32) -> Result<Pieces, Error> {
        match self.perform(ImageOp::Read { offset, len }).await? {
            Outcome::Read(pieces) => Ok(pieces),
            other => panic!("a read was answered by {other:?}"),
        }
    }

    /// Writes a buffer.
    pub async fn write(&self, offset: u64, data: Buf) -> Result<(), Error> {
        self.perform(ImageOp::Write { offset, data }).await.map(drop)
    }

    /// Copies and writes bytes, at most 2 MiB at a time.
    pub async fn write_bytes(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let mut offset = offset;
        for piece in bytes.chunks(BUF_MAX_BYTES as usize) {
            self.write(offset, self.client.buf(piece)).await?;
            offset += piece.len() as u64;
        }
        Ok(())
    }

    /// Waits until everything that was answered is safe.
    pub async fn flush(&self) -> Result<(), Error> {
        self.perform(ImageOp::Flush).await.map(drop)
    }

    /// Gives space back: whole sectors of the range read as zeroes afterwards.
    pub async fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.perform(ImageOp::Discard { offset, len }).await.map(drop)
    }

    /// Makes the range read as zeroes; `no_hole`: without giving whole objects back.
    pub async fn write_zeroes(&self, offset: u64, len: u64, no_hole: bool) -> Result<(), Error> {
        self.perform(ImageOp::WriteZeroes { offset, len, no_hole }).await.map(drop)
    }

    /// Which parts of the range were ever written.
    pub async fn block_status(&self, offset: u64, len: u64) -> Result<Vec<Extent>, Error> {
        match self.perform(ImageOp::BlockStatus { offset, len }).await? {
            Outcome::BlockStatus(extents) => Ok(extents),
            other => panic!("a block status was answered by {other:?}"),
        }
    }
}
