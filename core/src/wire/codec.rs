//! Writing and reading of typed headers: little-endian numbers, one after the other, nothing aligned or padded.

use crate::store::Data;
use std::fmt;

/// Why bytes are not a message. The connection they came on is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// A frame does not begin with the magic number: the other end speaks something else.
    BadMagic(u32),
    /// A frame of a protocol version that was not agreed on.
    BadVersion(u16),
    /// The header's checksum does not match: damaged on the way.
    BadChecksum,
    /// No message has this number.
    UnknownKind(u16),
    /// A reserved field, or a flag that means nothing, is set.
    Reserved,
    /// A length is above its limit.
    TooLong {
        /// Of what.
        what: &'static str,
        /// The length.
        len: u64,
        /// The limit.
        limit: u64,
    },
    /// The typed header ends too early.
    Truncated,
    /// The typed header goes on after its end.
    Trailing,
    /// A choice that does not exist.
    BadTag {
        /// Of what.
        what: &'static str,
        /// The choice.
        tag: u8,
    },
    /// Text that is not UTF-8.
    BadText,
    /// The message needs a body and has none, or has one and needs none.
    Body,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::BadMagic(magic) => write!(f, "not an Ashlar frame (it begins with {magic:#010x})"),
            WireError::BadVersion(version) => {
                write!(f, "a frame of protocol version {version}, which was not agreed on")
            }
            WireError::BadChecksum => write!(f, "a frame header that does not match its checksum"),
            WireError::UnknownKind(kind) => write!(f, "a message of unknown kind {kind}"),
            WireError::Reserved => write!(f, "a frame header with reserved bits set"),
            WireError::TooLong { what, len, limit } => write!(f, "{what} of {len}, above the limit of {limit}"),
            WireError::Truncated => write!(f, "a message header that ends too early"),
            WireError::Trailing => write!(f, "a message header that is too long for its kind"),
            WireError::BadTag { what, tag } => write!(f, "a {what} of unknown kind {tag}"),
            WireError::BadText => write!(f, "a text that is not UTF-8"),
            WireError::Body => write!(f, "a message whose body is missing or not asked for"),
        }
    }
}

impl std::error::Error for WireError {}

/// Where a typed header is written to. The one body of the message is set aside, it follows the header.
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    body: Option<Data>,
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Writer { out, body: None }
    }

    /// Appends bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// A number of elements, before them.
    pub fn count(&mut self, count: usize) {
        u32::try_from(count).expect("counts are far below 2^32").put(self);
    }

    /// Sets the body. Panics if there is one: a message has one at most.
    pub fn body(&mut self, data: &Data) {
        assert!(self.body.is_none(), "a message with two bodies");
        self.body = Some(data.clone());
    }

    /// Ends the header.
    pub fn finish(self) -> Option<Data> {
        self.body
    }
}

/// Where a typed header is read from.
pub struct Reader<'a> {
    bytes: &'a [u8],
    body: Option<Data>,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`; `body` is what followed them.
    pub fn new(bytes: &'a [u8], body: Option<Data>) -> Self {
        Reader { bytes, body }
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(WireError::Truncated)?;
        self.bytes = rest;
        Ok(taken)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(WireError::Truncated)?;
        self.bytes = rest;
        Ok(*taken)
    }

    /// A number of elements. It says nothing about memory: elements are taken one by one, each from its own bytes.
    pub fn count(&mut self, what: &'static str, limit: usize) -> Result<usize, WireError> {
        let count = u32::take(self)?;
        let fits = usize::try_from(count).ok().filter(|count| *count <= limit);
        fits.ok_or(WireError::TooLong { what, len: u64::from(count), limit: limit as u64 })
    }

    /// The body.
    pub fn body(&mut self) -> Result<Data, WireError> {
        self.body.take().ok_or(WireError::Body)
    }

    /// Ends the header: nothing may be left.
    pub fn finish(self) -> Result<(), WireError> {
        match (self.bytes.is_empty(), self.body.is_none()) {
            (true, true) => Ok(()),
            (true, false) => Err(WireError::Body),
            (false, _) => Err(WireError::Trailing),
        }
    }
}

/// What has a place in a typed header.
pub trait Wire: Sized {
    /// Writes it.
    fn put(&self, out: &mut Writer<'_>);
    /// Reads it.
    fn take(from: &mut Reader<'_>) -> Result<Self, WireError>;
}

/// A struct: its fields in the order given here.
macro_rules! wire_struct {
    ($name:ident { $($field:ident),+ $(,)? }) => {
        impl crate::wire::codec::Wire for $name {
            fn put(&self, out: &mut crate::wire::codec::Writer<'_>) {
                let $name { $($field),+ } = self;
                $($field.put(out);)+
            }
            fn take(from: &mut crate::wire::codec::Reader<'_>) -> Result<Self, crate::wire::WireError> {
                Ok($name { $($field: crate::wire::codec::Wire::take(from)?),+ })
            }
        }
    };
}

/// A newtype: what it wraps.
macro_rules! wire_newtype {
    ($($name:ident),+ $(,)?) => {
        $(impl crate::wire::codec::Wire for $name {
            fn put(&self, out: &mut crate::wire::codec::Writer<'_>) {
                self.0.put(out);
            }
            fn take(from: &mut crate::wire::codec::Reader<'_>) -> Result<Self, crate::wire::WireError> {
                Ok($name(crate::wire::codec::Wire::take(from)?))
            }
        })+
    };
}

/// An enum: a byte that says which variant, then the variant's fields in the order given here.
macro_rules! wire_enum {
    ($name:ident ($what:literal) { $($tag:literal => $variant:ident
        $({ $($field:ident),+ $(,)? })? $(( $($inner:ident),+ ))?),+ $(,)? }) => {
        impl crate::wire::codec::Wire for $name {
            fn put(&self, out: &mut crate::wire::codec::Writer<'_>) {
                match self {
                    $($name::$variant $({ $($field),+ })? $(( $($inner),+ ))? => {
                        u8::put(&$tag, out);
                        $($($field.put(out);)+)?
                        $($($inner.put(out);)+)?
                    })+
                }
            }
            fn take(from: &mut crate::wire::codec::Reader<'_>) -> Result<Self, crate::wire::WireError> {
                match u8::take(from)? {
                    $($tag => {
                        $($(let $field = crate::wire::codec::Wire::take(from)?;)+)?
                        $($(let $inner = crate::wire::codec::Wire::take(from)?;)+)?
                        Ok($name::$variant $({ $($field),+ })? $(( $($inner),+ ))?)
                    })+
                    tag => Err(crate::wire::WireError::BadTag { what: $what, tag }),
                }
            }
        }
    };
}

pub(super) use {wire_enum, wire_newtype, wire_struct};
