//! The frame header, and messages as frames.
//!
//! ```text
//!  0  magic        u32   "ASHL"
//!  4  version      u16   of the protocol, as the handshake agreed
//!  6  kind         u16   which message
//!  8  flags        u32   bit 0: a body follows (it may be empty); others reserved, 0
//! 12  header_len   u32   bytes of the typed header
//! 16  body_len     u32   bytes of the body
//! 20  body_crc     u32   CRC-32 of the body, as its writer computed it; not checked on the way
//! 24  header_crc   u32   CRC-32 of the typed header
//! 28  frame_crc    u32   CRC-32 of the bytes before, so that lengths are known good before they are waited for
//! ```

use super::codec::{Reader, WireError, Writer};
use super::{VERSION, VERSION_OLDEST, message};
use crate::buf::Buf;
use crate::limits;
use crate::msg::Message;
use crate::store::Data;

/// Bytes of a frame header.
pub const FRAME_BYTES: usize = 32;
/// "ASHL".
const MAGIC: u32 = u32::from_le_bytes(*b"ASHL");
/// A body follows.
pub(super) const FLAG_BODY: u32 = 1;
/// Where the frame header's own checksum lies.
pub(super) const CRC_AT: usize = FRAME_BYTES - 4;

/// A frame header, verified, its lengths within their limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Which message.
    pub kind: u16,
    /// Bytes of the typed header.
    pub header_len: usize,
    /// Bytes of the body, if there is one.
    pub body_len: Option<u32>,
    /// CRC-32 of the body.
    pub body_crc: u32,
    /// CRC-32 of the typed header.
    pub header_crc: u32,
}

impl FrameHeader {
    /// Reads and verifies a frame header.
    pub fn parse(bytes: &[u8; FRAME_BYTES]) -> Result<FrameHeader, WireError> {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if word(0) != MAGIC {
            return Err(WireError::BadMagic(word(0)));
        }
        if word(CRC_AT) != crc32fast::hash(&bytes[..CRC_AT]) {
            return Err(WireError::BadChecksum);
        }
        if !(VERSION_OLDEST..=VERSION).contains(&half(4)) {
            return Err(WireError::BadVersion(half(4)));
        }
        let (flags, body_len) = (word(8), word(16));
        let has_body = flags == FLAG_BODY;
        if flags & !FLAG_BODY != 0 || !has_body && (body_len != 0 || word(20) != 0) {
            return Err(WireError::Reserved);
        }
        let header_len = bounded("message header", word(12), limits::WIRE_HEADER_MAX_BYTES)?;
        bounded("message body", body_len, limits::WIRE_BODY_MAX_BYTES as usize)?;
        let body_len = has_body.then_some(body_len);
        Ok(FrameHeader { kind: half(6), header_len, body_len, body_crc: word(20), header_crc: word(24) })
    }

    /// Bytes of frame header and typed header.
    pub fn head_bytes(&self) -> usize {
        FRAME_BYTES + self.header_len
    }

    /// Bytes of the body; 0 if there is none.
    pub fn body_bytes(&self) -> u32 {
        self.body_len.unwrap_or(0)
    }

    /// Bytes of the whole frame.
    pub fn total_bytes(&self) -> usize {
        self.head_bytes() + self.body_bytes() as usize
    }
}

fn bounded(what: &'static str, len: u32, limit: usize) -> Result<usize, WireError> {
    let fits = usize::try_from(len).ok().filter(|len| *len <= limit);
    fits.ok_or(WireError::TooLong { what, len: u64::from(len), limit: limit as u64 })
}

/// Appends a message's frame header and typed header to `out`. Its body, if it has one, is returned and must follow.
/// Panics if the message is above the limits: whoever makes messages keeps them.
pub fn encode(message: &Message, out: &mut Vec<u8>) -> Option<Data> {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_BYTES]);
    let mut writer = Writer::new(out);
    let kind = message::put(message, &mut writer);
    let body = writer.finish();
    let header_len = out.len() - start - FRAME_BYTES;
    let body_len = body.as_ref().map_or(0, Data::len);
    assert!(header_len <= limits::WIRE_HEADER_MAX_BYTES, "a header of {header_len} bytes: {message:?}");
    assert!(body_len <= limits::WIRE_BODY_MAX_BYTES, "a body of {body_len} bytes: {message:?}");
    let head = &mut out[start..];
    head[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    head[4..6].copy_from_slice(&VERSION.to_le_bytes());
    head[6..8].copy_from_slice(&kind.to_le_bytes());
    head[8..12].copy_from_slice(&(if body.is_some() { FLAG_BODY } else { 0 }).to_le_bytes());
    head[12..16].copy_from_slice(&u32::try_from(header_len).expect("below the limit").to_le_bytes());
    head[16..20].copy_from_slice(&body_len.to_le_bytes());
    head[20..24].copy_from_slice(&body.as_ref().map_or(0, |body| body.crc).to_le_bytes());
    let header_crc = crc32fast::hash(&head[FRAME_BYTES..]);
    head[24..28].copy_from_slice(&header_crc.to_le_bytes());
    let frame_crc = crc32fast::hash(&head[..CRC_AT]);
    head[CRC_AT..FRAME_BYTES].copy_from_slice(&frame_crc.to_le_bytes());
    body
}

/// Reads a message from its frame header, its typed header, and its body. The typed header's checksum is verified, the
/// body's is not.
pub fn decode(frame: &FrameHeader, header: &[u8], body: Option<Buf>) -> Result<Message, WireError> {
    if header.len() != frame.header_len || body.as_ref().map(Buf::len) != frame.body_len {
        return Err(WireError::Truncated);
    }
    if crc32fast::hash(header) != frame.header_crc {
        return Err(WireError::BadChecksum);
    }
    let body = body.map(|buf| Data { buf, crc: frame.body_crc });
    message::take(frame.kind, Reader::new(header, body))
}
