//! The NBD protocol's numbers and the forms of its transmission phase. Big-endian throughout.
//!
//! Owns: parsing a request's header, building replies. Does not own: the negotiation, sockets.

use ashlar_core::client::{Extent, OpError};

/// First word of the server's greeting.
pub const GREETING: u64 = u64::from_be_bytes(*b"NBDMAGIC");
/// Second word of the greeting, and first of each option.
pub const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");
/// First word of each reply to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// First word of a request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// First word of a simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// First word of a chunk of a structured reply.
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Handshake flag of both sides: fixed newstyle.
pub const FIXED_NEWSTYLE: u16 = 1;
/// Handshake flag of both sides: no padding after EXPORT_NAME.
pub const NO_ZEROES: u16 = 2;

/// Transmission flags.
pub mod transmission {
    /// Always set.
    pub const HAS_FLAGS: u16 = 1;
    /// Writes are refused.
    pub const READ_ONLY: u16 = 1 << 1;
    /// FLUSH may be sent.
    pub const SEND_FLUSH: u16 = 1 << 2;
    /// The FUA flag may be sent.
    pub const SEND_FUA: u16 = 1 << 3;
    /// TRIM may be sent.
    pub const SEND_TRIM: u16 = 1 << 5;
    /// WRITE_ZEROES may be sent.
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    /// The DF flag may be sent.
    pub const SEND_DF: u16 = 1 << 7;
    /// A flush on one connection covers all.
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
    /// The FAST_ZERO flag may be sent.
    pub const SEND_FAST_ZERO: u16 = 1 << 11;
}

/// Request flags.
pub mod flag {
    /// Safe before it is answered.
    pub const FUA: u16 = 1;
    /// Zeroes stay allocated.
    pub const NO_HOLE: u16 = 1 << 1;
    /// One chunk of data at most.
    pub const DF: u16 = 1 << 2;
    /// One extent is enough.
    pub const REQ_ONE: u16 = 1 << 3;
    /// Fail rather than write zeroes as data.
    pub const FAST_ZERO: u16 = 1 << 4;
}

/// Largest payload of a read or write, in bytes: what clients assume without being told.
pub const PAYLOAD_MAX_BYTES: u32 = 32 << 20;
/// Bytes of a request's header.
pub const REQUEST_BYTES: usize = 28;
/// The id given to the context `base:allocation`.
pub const ALLOCATION_CONTEXT: u32 = 1;

/// What a client asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// Bytes, please.
    Read,
    /// Bytes follow.
    Write,
    /// End of the connection; not answered.
    Disconnect,
    /// What was answered becomes safe.
    Flush,
    /// A range is not needed any more.
    Trim,
    /// A range becomes zero.
    WriteZeroes,
    /// Which parts of a range are holes.
    BlockStatus,
    /// Anything else.
    Unknown(u16),
}

/// A request's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Flags.
    pub flags: u16,
    /// What to do.
    pub command: Command,
    /// Comes back in the reply.
    pub cookie: u64,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
}

/// The stream is not one of requests; nothing can be said of what follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotARequest;

impl Request {
    /// Reads a header.
    pub fn parse(bytes: &[u8; REQUEST_BYTES]) -> Result<Request, NotARequest> {
        let u16_at = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) << 16 | u32::from(u16_at(at + 2));
        let u64_at = |at: usize| u64::from(u32_at(at)) << 32 | u64::from(u32_at(at + 4));
        if u32_at(0) != REQUEST_MAGIC {
            return Err(NotARequest);
        }
        let command = match u16_at(6) {
            0 => Command::Read,
            1 => Command::Write,
            2 => Command::Disconnect,
            3 => Command::Flush,
            4 => Command::Trim,
            6 => Command::WriteZeroes,
            7 => Command::BlockStatus,
            other => Command::Unknown(other),
        };
        Ok(Request { flags: u16_at(4), command, cookie: u64_at(8), offset: u64_at(16), len: u32_at(24) })
    }

    /// Flags that the command knows.
    pub fn known_flags(&self) -> u16 {
        match self.command {
            Command::Read => flag::DF | flag::FUA,
            Command::Write | Command::Trim | Command::Flush => flag::FUA,
            Command::WriteZeroes => flag::FUA | flag::NO_HOLE | flag::FAST_ZERO,
            Command::BlockStatus => flag::REQ_ONE | flag::FUA,
            Command::Disconnect | Command::Unknown(_) => u16::MAX,
        }
    }

    /// Whether it changes the export.
    pub fn is_write(&self) -> bool {
        matches!(self.command, Command::Write | Command::Trim | Command::WriteZeroes)
    }
}

/// Errors as they go over the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Errno {
    /// EPERM: a write to a read-only export.
    NotPermitted = 1,
    /// EIO.
    Io = 5,
    /// EINVAL: the request makes no sense.
    Invalid = 22,
    /// ENOSPC.
    NoSpace = 28,
    /// EOVERFLOW: more than one reply may hold.
    Overflow = 75,
    /// ENOTSUP: zeroes that would not be fast.
    NotSupported = 95,
    /// ESHUTDOWN: the server ends, or must not go on.
    Shutdown = 108,
}

impl Errno {
    /// The error of a failed operation.
    pub fn of(error: OpError, is_write: bool) -> Errno {
        match error {
            OpError::ReadOnly | OpError::Locked => Errno::NotPermitted,
            OpError::Fenced => Errno::Shutdown,
            OpError::OutOfRange if is_write => Errno::NoSpace,
            OpError::OutOfRange | OpError::BadRequest => Errno::Invalid,
            OpError::TooLong => Errno::Overflow,
            OpError::NoSpace => Errno::NoSpace,
            OpError::NoSuchImage | OpError::NoSuchPool | OpError::Damaged => Errno::Io,
        }
    }
}

/// A reply's head; payload bytes, if any, follow it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    bytes: [u8; 36],
    len: usize,
}

impl Head {
    fn new() -> Head {
        Head { bytes: [0; 36], len: 0 }
    }

    fn put(mut self, bytes: &[u8]) -> Head {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
        self
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// A simple reply; the bytes of a successful read follow.
    pub fn simple(cookie: u64, error: Option<Errno>) -> Head {
        let error = error.map_or(0, |errno| errno as u32);
        Head::new().put(&SIMPLE_REPLY_MAGIC.to_be_bytes()).put(&error.to_be_bytes()).put(&cookie.to_be_bytes())
    }

    fn chunk(cookie: u64, kind: u16, len: u32) -> Head {
        const DONE: u16 = 1;
        Head::new()
            .put(&STRUCTURED_REPLY_MAGIC.to_be_bytes())
            .put(&DONE.to_be_bytes())
            .put(&kind.to_be_bytes())
            .put(&cookie.to_be_bytes())
            .put(&len.to_be_bytes())
    }

    /// The only chunk of a structured reply that says nothing but "done".
    pub fn done(cookie: u64) -> Head {
        Head::chunk(cookie, 0, 0)
    }

    /// The only chunk of a read; `len` (not 0) bytes follow.
    pub fn data(cookie: u64, offset: u64, len: u32) -> Head {
        Head::chunk(cookie, 1, len + 8).put(&offset.to_be_bytes())
    }

    /// The only chunk of a failure.
    pub fn error(cookie: u64, errno: Errno) -> Head {
        Head::chunk(cookie, (1 << 15) + 1, 6).put(&(errno as u32).to_be_bytes()).put(&0u16.to_be_bytes())
    }

    /// The only chunk of a block status; descriptors of `len` bytes follow.
    pub fn block_status(cookie: u64, len: u32) -> Head {
        Head::chunk(cookie, 5, len + 4).put(&ALLOCATION_CONTEXT.to_be_bytes())
    }
}

/// Extents as `base:allocation` has them: what was never written is a hole and zero.
pub fn descriptors(extents: &[Extent]) -> Vec<u8> {
    const HOLE_AND_ZERO: u32 = 3;
    let mut bytes = Vec::with_capacity(extents.len() * 8);
    for extent in extents {
        let len = u32::try_from(extent.len).expect("a block status covers less than 4 GiB");
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(&if extent.written { 0 } else { HOLE_AND_ZERO }.to_be_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_the_specification_has_them() {
        let mut bytes = [0; REQUEST_BYTES];
        bytes[..8].copy_from_slice(&[0x25, 0x60, 0x95, 0x13, 0, 1, 0, 6]);
        bytes[8..16].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        bytes[23] = 0x10;
        bytes[26] = 2;
        let expected = Request {
            flags: flag::FUA,
            command: Command::WriteZeroes,
            cookie: 0x0102_0304_0506_0708,
            offset: 16,
            len: 512,
        };
        assert_eq!(Request::parse(&bytes), Ok(expected));
        bytes[0] = 0;
        assert_eq!(Request::parse(&bytes), Err(NotARequest));
    }

    #[test]
    fn heads_are_written_as_the_specification_has_them() {
        let simple = Head::simple(0x0102, Some(Errno::NoSpace));
        assert_eq!(simple.bytes(), [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 28, 0, 0, 0, 0, 0, 0, 1, 2]);
        let data = Head::data(7, 512, 16);
        let expected =
            [0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 2, 0];
        assert_eq!(data.bytes(), expected);
        let error = Head::error(7, Errno::Io);
        let expected = [0x66, 0x8e, 0x33, 0xef, 0, 1, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 6, 0, 0, 0, 5, 0, 0];
        assert_eq!(error.bytes(), expected);
    }

    #[test]
    fn extents_become_descriptors() {
        let extents = [Extent { len: 512, written: true }, Extent { len: 65536, written: false }];
        assert_eq!(descriptors(&extents), [0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 3]);
    }
}
