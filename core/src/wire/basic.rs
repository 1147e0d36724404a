//! Wire forms of numbers, texts, lists, and of core's common types.

use super::WireError;
use super::codec::{Reader, Wire, Writer, wire_enum, wire_newtype, wire_struct};
use crate::id::{
    Attempt, ClientId, CopyId, Epoch, HashRange, Incarnation, InodeId, Member, ObjectId, OsdId, PgId, PgNumber, PoolId,
    RequestId, Requests, Revision, Role, Session, StoreUuid, Version,
};
use crate::limits;
use crate::map::Scheme;
use crate::store::{Bitmap, Content, CopyInfo, Data, Digest, VersionInfo};
use crate::time::Duration;
use smallvec::SmallVec;

macro_rules! wire_number {
    ($($number:ty),+) => {
        $(impl Wire for $number {
            fn put(&self, out: &mut Writer<'_>) {
                out.bytes(&self.to_le_bytes());
            }
            fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
                Ok(<$number>::from_le_bytes(from.array()?))
            }
        })+
    };
}
wire_number!(u8, u16, u32, u64, u128);

impl Wire for bool {
    fn put(&self, out: &mut Writer<'_>) {
        u8::from(*self).put(out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        match u8::take(from)? {
            0 => Ok(false),
            1 => Ok(true),
            tag => Err(WireError::BadTag { what: "yes or no", tag }),
        }
    }
}

/// The value.
impl<T: Wire> Wire for Box<T> {
    fn put(&self, out: &mut Writer<'_>) {
        (**self).put(out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        T::take(from).map(Box::new)
    }
}

/// A byte 0; or a byte 1 and the value.
impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Writer<'_>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        if bool::take(from)? { T::take(from).map(Some) } else { Ok(None) }
    }
}

/// A byte 0 and the value; or a byte 1 and the error.
impl<T: Wire, E: Wire> Wire for Result<T, E> {
    fn put(&self, out: &mut Writer<'_>) {
        self.is_err().put(out);
        match self {
            Ok(value) => value.put(out),
            Err(error) => error.put(out),
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        if bool::take(from)? { E::take(from).map(Err) } else { T::take(from).map(Ok) }
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Writer<'_>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok((A::take(from)?, B::take(from)?))
    }
}

/// A count of 4 bytes, then the elements. The frame's length bounds them: an element has one byte at least.
impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Writer<'_>) {
        out.count(self.len());
        self.iter().for_each(|element| element.put(out));
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let count = from.count("list", limits::WIRE_HEADER_MAX_BYTES)?;
        (0..count).map(|_| T::take(from)).collect()
    }
}

/// A count of 4 bytes, then UTF-8.
impl Wire for String {
    fn put(&self, out: &mut Writer<'_>) {
        out.count(self.len());
        out.bytes(self.as_bytes());
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let len = from.count("text", limits::TEXT_MAX_BYTES)?;
        let text = std::str::from_utf8(from.bytes(len)?).map_err(|_| WireError::BadText)?;
        Ok(text.to_owned())
    }
}

/// Nothing here: it is the message's body, and its checksum is in the frame header.
impl Wire for Data {
    fn put(&self, out: &mut Writer<'_>) {
        out.body(self);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        from.body()
    }
}

impl Wire for Requests {
    fn put(&self, out: &mut Writer<'_>) {
        out.count(self.len());
        self.iter().for_each(|request| request.put(out));
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let count = from.count("list of requests", limits::REQUESTS_PER_OBJECT)?;
        (0..count).map(|_| RequestId::take(from)).collect()
    }
}

/// Words of the bitmap of the largest object.
const BITMAP_WORDS: usize = (limits::OBJECT_MAX_BYTES / limits::SECTOR_BYTES / 64) as usize;

impl Wire for Bitmap {
    fn put(&self, out: &mut Writer<'_>) {
        out.count(self.words.len());
        self.words.iter().for_each(|word| word.put(out));
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let count = from.count("bitmap", BITMAP_WORDS)?;
        let words = (0..count).map(|_| u64::take(from)).collect::<Result<SmallVec<_>, _>>()?;
        Ok(Bitmap { words })
    }
}

wire_newtype!(OsdId, PoolId, InodeId, PgNumber, Role, Epoch, Revision, Incarnation, ClientId, StoreUuid, Duration);
wire_struct!(PgId { pool, number });
wire_struct!(ObjectId { pool, inode, stripe });
wire_struct!(HashRange { first, last });
wire_struct!(CopyId { object, role });
wire_struct!(Version { epoch, seq });
wire_struct!(Member { osd, store, role });
wire_struct!(Attempt { epoch, incarnation, counter });
wire_struct!(Session { client, number });
wire_struct!(RequestId { session, number });
wire_struct!(VersionInfo { version, predecessor, tombstone, damaged, requests });
wire_struct!(CopyInfo { copy, committed, prepared });
wire_struct!(Digest { count, sum });
wire_enum!(Scheme ("redundancy scheme") { 1 => Replicated, 2 => Ec, 3 => Xor });
wire_enum!(Content ("content") { 1 => Data { bitmap, data }, 2 => Tombstone });
