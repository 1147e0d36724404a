//! Bytes from the client: headers out of one large receive, payloads straight into their buffers.

use ashlar_core::buf::{Buf, BufPool};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// One receive takes so much: a few hundred small requests, or some small payloads with theirs.
const BUFFER_BYTES: usize = 128 << 10;

/// Received and not yet used.
pub struct Incoming<R> {
    stream: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl<R: AsyncRead + Unpin> Incoming<R> {
    /// Nothing received yet.
    pub fn new(stream: R) -> Self {
        Incoming { stream, buffer: vec![0; BUFFER_BYTES].into_boxed_slice(), start: 0, end: 0 }
    }

    /// What is there.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// The first `count` bytes are used.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        assert!(self.start <= self.end);
    }

    /// Waits for more. False: there will be none. May be cancelled without loss.
    pub async fn receive(&mut self) -> io::Result<bool> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        assert!(self.end < BUFFER_BYTES, "nothing in here is longer than the buffer");
        let count = self.stream.read(&mut self.buffer[self.end..]).await?;
        self.end += count;
        Ok(count > 0)
    }

    /// Waits for `len` bytes and gives them as a payload buffer.
    pub async fn payload(&mut self, pool: &mut BufPool, len: u32) -> io::Result<Buf> {
        let mut buf = pool.alloc(len);
        let ready = self.bytes().len().min(len as usize);
        buf.bytes_mut()[..ready].copy_from_slice(&self.bytes()[..ready]);
        self.consume(ready);
        if ready < len as usize {
            self.stream.read_exact(&mut buf.bytes_mut()[ready..]).await?;
        }
        Ok(pool.freeze(buf))
    }

    /// Waits for `len` bytes and forgets them.
    pub async fn skip(&mut self, len: u32) -> io::Result<()> {
        let mut left = len as usize;
        loop {
            let ready = self.bytes().len().min(left);
            self.consume(ready);
            left -= ready;
            if left == 0 {
                return Ok(());
            }
            if !self.receive().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
