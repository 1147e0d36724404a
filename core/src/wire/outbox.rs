//! Messages become bytes to send, gathered so that one send carries everything that is ready.
//!
//! An outbox fills one [`Batch`] while the runtime sends another, whose bytes do not move meanwhile.

use super::frame::encode;
use crate::buf::Buf;
use crate::msg::Message;

/// Bodies below this are copied behind their header; larger ones are sent from where they lie.
const COPY_BODY_BYTES: u32 = 1024;

/// A contiguous part of a batch.
#[derive(Debug)]
pub enum Part {
    /// Bytes `start..end` of the batch's heads.
    Heads {
        /// First byte.
        start: usize,
        /// Behind the last byte.
        end: usize,
    },
    /// A body.
    Body(Buf),
}

/// Bytes to be sent together.
#[derive(Debug, Default)]
pub struct Batch {
    heads: Vec<u8>,
    parts: Vec<Part>,
    bytes: u64,
    messages: u32,
}

impl Batch {
    /// The bytes of all parts after the first `skip`, in order, as far as `out` takes them. Returns how many parts.
    pub fn slices<'a>(&'a self, skip: u64, mut out: impl FnMut(&'a [u8]) -> bool) {
        let mut skip = usize::try_from(skip).expect("a batch fits into memory");
        for part in &self.parts {
            let bytes = match part {
                Part::Heads { start, end } => &self.heads[*start..*end],
                Part::Body(buf) => buf.bytes(),
            };
            if skip < bytes.len() {
                if !out(&bytes[skip..]) {
                    return;
                }
                skip = 0;
            } else {
                skip -= bytes.len();
            }
        }
    }

    /// Bytes of all parts.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of messages in it.
    pub fn messages(&self) -> u32 {
        self.messages
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Adds bytes that are not a message (the handshake's).
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        let start = self.heads.len();
        self.heads.extend_from_slice(bytes);
        self.extend_heads(start);
    }

    fn push(&mut self, message: &Message) {
        let start = self.heads.len();
        let body = encode(message, &mut self.heads).map(|data| data.buf).filter(|buf| !buf.is_empty());
        self.messages += 1;
        match body {
            Some(buf) if buf.len() < COPY_BODY_BYTES => {
                self.heads.extend_from_slice(buf.bytes());
                self.extend_heads(start);
            }
            Some(buf) => {
                self.extend_heads(start);
                self.bytes += u64::from(buf.len());
                self.parts.push(Part::Body(buf));
            }
            None => self.extend_heads(start),
        }
    }

    /// Bytes of heads from `start` on are new: lengthens the last part, or adds one.
    fn extend_heads(&mut self, start: usize) {
        let new_end = self.heads.len();
        self.bytes += (new_end - start) as u64;
        match self.parts.last_mut() {
            Some(Part::Heads { end, .. }) => *end = new_end,
            _ => self.parts.push(Part::Heads { start, end: new_end }),
        }
    }

    fn clear(&mut self) {
        self.heads.clear();
        self.parts.clear();
        (self.bytes, self.messages) = (0, 0);
    }
}

/// The sending side of a connection.
#[derive(Default)]
pub struct Outbox {
    filling: Batch,
    spare: Batch,
    taken_bytes: u64,
}

impl Outbox {
    /// Adds a message.
    pub fn push(&mut self, message: &Message) {
        self.filling.push(message);
    }

    /// Adds bytes that are not a message.
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        self.filling.push_bytes(bytes);
    }

    /// Bytes that wait or are being sent.
    pub fn bytes(&self) -> u64 {
        self.filling.bytes + self.taken_bytes
    }

    /// Whether there is something that nobody sends yet.
    pub fn has_waiting(&self) -> bool {
        !self.filling.is_empty()
    }

    /// Takes all that waits, to be sent; [`Outbox::sent`] gives it back. Panics if another batch is being sent.
    pub fn take(&mut self) -> Batch {
        assert!(self.taken_bytes == 0, "one batch is sent at a time");
        self.taken_bytes = self.filling.bytes;
        std::mem::replace(&mut self.filling, std::mem::take(&mut self.spare))
    }

    /// A batch was sent completely.
    pub fn sent(&mut self, mut batch: Batch) {
        batch.clear();
        self.spare = batch;
        self.taken_bytes = 0;
    }
}
