//! Replies on their way to the client: what completes in one turn of the runtime goes out in one write.
//!
//! Invariant: a request's permit is held until its reply was written, so a client that does not read its replies stops
//! being read from.

use super::protocol::Head;
use ashlar_core::client::Pieces;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, OwnedSemaphorePermit};

/// Parts that one write gathers.
const SLICES: usize = 64;

/// What follows a head.
pub enum Body {
    /// Nothing.
    Empty,
    /// Bytes of a read.
    Pieces(Pieces),
    /// Other bytes.
    Bytes(Vec<u8>),
}

/// A reply, with the permits of its request.
pub struct Reply {
    /// Its head.
    pub head: Head,
    /// What follows.
    pub body: Body,
    /// Given back when it is written.
    #[expect(dead_code, reason = "held, and dropped with the reply")]
    pub permits: [OwnedSemaphorePermit; 2],
}

impl Reply {
    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let (pieces, bytes) = match &self.body {
            Body::Empty => (&[][..], &[][..]),
            Body::Pieces(pieces) => (pieces.as_slice(), &[][..]),
            Body::Bytes(bytes) => (&[][..], bytes.as_slice()),
        };
        [self.head.bytes(), bytes].into_iter().chain(pieces.iter().map(|piece| piece.bytes()))
    }
}

#[derive(Default)]
struct Queue {
    replies: VecDeque<Reply>,
    finished: bool,
}

/// The queue between the requests of a connection and its writer.
#[derive(Default)]
pub struct Outgoing {
    queue: Mutex<Queue>,
    more: Notify,
}

impl Outgoing {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a reply.
    pub fn push(&self, reply: Reply) {
        self.lock().replies.push_back(reply);
        self.more.notify_one();
    }

    /// No reply follows any more.
    pub fn finish(&self) {
        self.lock().finished = true;
        self.more.notify_one();
    }

    /// Writes replies until there will be none any more.
    pub async fn write_to(&self, mut stream: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut batch = VecDeque::new();
        loop {
            let finished = {
                let mut queue = self.lock();
                std::mem::swap(&mut queue.replies, &mut batch);
                queue.finished
            };
            if batch.is_empty() {
                if finished {
                    return stream.shutdown().await;
                }
                self.more.notified().await;
                continue;
            }
            write_batch(&mut stream, &mut batch).await?;
        }
    }
}

/// Writes all replies, and lets each go when its last byte is written.
async fn write_batch(stream: &mut (impl AsyncWrite + Unpin), batch: &mut VecDeque<Reply>) -> io::Result<()> {
    // How much of the first reply is written.
    let mut gone = 0;
    while !batch.is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut used = 0;
        let mut skip = gone;
        for part in batch.iter().flat_map(Reply::parts) {
            let passed = skip.min(part.len());
            skip -= passed;
            if passed == part.len() {
                continue;
            }
            if used == SLICES {
                break;
            }
            slices[used] = IoSlice::new(&part[passed..]);
            used += 1;
        }
        let written = stream.write_vectored(&slices[..used]).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        gone = drop_written(batch, gone + written);
    }
    Ok(())
}

/// Drops replies that are wholly written; returns what is written of the next.
fn drop_written(batch: &mut VecDeque<Reply>, mut written: usize) -> usize {
    while let Some(reply) = batch.front() {
        let len: usize = reply.parts().map(<[u8]>::len).sum();
        if written < len {
            break;
        }
        written -= len;
        batch.pop_front();
    }
    written
}
