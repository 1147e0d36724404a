//! Received bytes become messages.
//!
//! Bytes are received in large pieces into a buffer of the connection, messages and small bodies are taken out of it
//! (a body is copied once, into pages of its own: cheaper than a receive for each). A large body is received straight
//! into its pages:
//!
//! ```text
//!            small, or its end is here            all of it is here
//!   Frames ---------------------------> Frames   Body ------------> Frames
//!      | head of a large body is here              ^
//!      +-------------------------------------------+
//! ```

use super::codec::WireError;
use super::frame::{FRAME_BYTES, FrameHeader, decode};
use crate::buf::{BufMut, BufPool};
use crate::msg::Message;

/// Bytes of the receive buffer: about as much as one wake-up of a busy connection finds.
const BUFFER_BYTES: usize = 128 << 10;
/// Bodies from here on are received into their pages. Below, copying costs less than a receive of its own.
const LARGE_BODY_BYTES: u32 = 32 << 10;

/// A large body that is being received.
struct Body {
    frame: FrameHeader,
    header: Vec<u8>,
    pages: BufMut,
    filled: usize,
}

/// The receiving side of a connection, once the handshake is done.
pub struct Inbox {
    buffer: Vec<u8>,
    /// Received and not yet taken: `start..end` of the buffer.
    start: usize,
    end: usize,
    body: Option<Body>,
}

impl Default for Inbox {
    fn default() -> Self {
        Inbox { buffer: vec![0; BUFFER_BYTES], start: 0, end: 0, body: None }
    }
}

impl Inbox {
    /// Where the next received bytes belong; never empty after [`Inbox::next`] returned `None`.
    pub fn space(&mut self) -> &mut [u8] {
        match &mut self.body {
            Some(body) => &mut body.pages.bytes_mut()[body.filled..],
            None => &mut self.buffer[self.end..],
        }
    }

    /// `count` bytes were put into [`Inbox::space`].
    pub fn received(&mut self, count: usize) {
        assert!(count <= self.space().len(), "{count} bytes received into less space");
        match &mut self.body {
            Some(body) => body.filled += count,
            None => self.end += count,
        }
    }

    /// Takes all received bytes, as long as they are not frames yet (the handshake).
    pub fn take_bytes(&mut self) -> Vec<u8> {
        assert!(self.body.is_none(), "frames have begun");
        let bytes = self.buffer[self.start..self.end].to_vec();
        (self.start, self.end) = (0, 0);
        bytes
    }

    /// Gives back what came behind the handshake.
    pub fn put_bytes(&mut self, bytes: &[u8]) {
        self.space()[..bytes.len()].copy_from_slice(bytes);
        self.received(bytes.len());
    }

    /// The next message that is complete. After an error the connection is of no more use.
    pub fn next(&mut self, bufs: &mut BufPool) -> Result<Option<Message>, WireError> {
        match self.body.take() {
            Some(body) if body.filled < body.pages.len() as usize => {
                self.body = Some(body);
                Ok(None)
            }
            Some(body) => {
                let pages = bufs.freeze(body.pages);
                decode(&body.frame, &body.header, Some(pages)).map(Some)
            }
            None => self.next_frame(bufs),
        }
    }

    fn next_frame(&mut self, bufs: &mut BufPool) -> Result<Option<Message>, WireError> {
        let Some(head) = self.buffer[self.start..self.end].first_chunk::<FRAME_BYTES>() else {
            self.make_room(FRAME_BYTES);
            return Ok(None);
        };
        let frame = FrameHeader::parse(head)?;
        let large = frame.body_bytes() >= LARGE_BODY_BYTES;
        let (head_end, frame_end) = (self.start + frame.head_bytes(), self.start + frame.total_bytes());
        if frame_end <= self.end {
            let body = frame.body_len.map(|_| bufs.copy_of(&self.buffer[head_end..frame_end]));
            let message = decode(&frame, &self.buffer[self.start + FRAME_BYTES..head_end], body)?;
            self.start = frame_end;
            return Ok(Some(message));
        }
        if large && head_end <= self.end {
            self.begin_body(frame, bufs);
        } else {
            self.make_room(if large { frame.head_bytes() } else { frame.total_bytes() });
        }
        Ok(None)
    }

    /// The rest of the buffer begins with the head of a large body and ends inside that body.
    fn begin_body(&mut self, frame: FrameHeader, bufs: &mut BufPool) {
        let head_end = self.start + frame.head_bytes();
        let header = self.buffer[self.start + FRAME_BYTES..head_end].to_vec();
        let mut pages = bufs.alloc(frame.body_bytes());
        let here = &self.buffer[head_end..self.end];
        pages.bytes_mut()[..here.len()].copy_from_slice(here);
        self.body = Some(Body { frame, header, pages, filled: here.len() });
        (self.start, self.end) = (0, 0);
    }

    /// Makes sure that a piece of `bytes`, which begins at `start`, can become complete.
    fn make_room(&mut self, bytes: usize) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        // Moving is cheap only when little is there; but space must never run out.
        if self.start > 0 && (self.start + bytes > self.buffer.len() || self.end == self.buffer.len()) {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if bytes > self.buffer.len() {
            self.buffer.resize(bytes, 0);
        } else if self.end == 0 && self.buffer.len() > BUFFER_BYTES {
            self.buffer.truncate(BUFFER_BYTES);
            self.buffer.shrink_to_fit();
        }
    }
}
