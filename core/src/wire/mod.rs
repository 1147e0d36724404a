//! Bytes of messages: what travels on a TCP connection between nodes.
//!
//! Owns: the frame header, the typed headers of all messages, framing of received and sent bytes, the handshake.
//! Does not own: sockets (the runtime), what messages mean (their receivers), checking of bodies (who stores or uses
//! them: a body's checksum travels with it as [`crate::store::Data::crc`], from end to end).
//!
//! Invariants:
//! - No received bytes panic; every length and count is checked against [`crate::limits`] before memory is taken.
//! - What is encoded decodes to an equal message; the same message always has the same bytes.
//! - Layouts change only together with the protocol version; golden-byte tests hold them.
//!
//! A connection: the opener's [`handshake::Hello`], the acceptor's, then frames in both directions:
//!
//! ```text
//! | frame header (32 bytes) | typed header (header_len) | body (body_len, none for most messages) |
//! ```

mod basic;
mod codec;
mod frame;
pub mod handshake;
mod inbox;
mod message;
mod outbox;
mod pg;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod random;
#[cfg(test)]
mod samples;

pub use codec::WireError;
pub use frame::{FRAME_BYTES, FrameHeader, decode, encode};
pub use inbox::Inbox;
pub use outbox::{Batch, Outbox, Part};

/// Newest version of the protocol that this code speaks.
pub const VERSION: u16 = 1;
/// Oldest version of the protocol that this code still speaks.
pub const VERSION_OLDEST: u16 = 1;

/// Versions of the protocol that a node speaks: nodes that are upgraded one after the other agree on the newest that both
/// speak, so the range must overlap with that of whoever was not upgraded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub oldest: u16,
    /// The newest.
    pub newest: u16,
}

impl Versions {
    /// What this code speaks.
    pub const OURS: Versions = Versions { oldest: VERSION_OLDEST, newest: VERSION };

    /// The newest version that both speak.
    pub fn common(self, other: Versions) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}
