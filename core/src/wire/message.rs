//! Wire forms of messages of clients, and of maps.

use super::WireError;
use super::codec::{Reader, Wire, Writer, wire_enum, wire_struct};
use crate::map::Layout;
use crate::msg::{
    Answer, Class, ImageInfo, MapMessage, MapUpdate, Message, OsdInfo, PgInfo, PoolInfo, Refusal, Reply, Request,
    RequestOp,
};
use crate::pg::msg::PgMessage;

/// Kinds of messages, in the frame header.
mod kind {
    pub const REQUEST: u16 = 1;
    pub const REPLY: u16 = 2;
    pub const MAP: u16 = 3;
    pub const PG: u16 = 4;
}

/// Writes the typed header of a message and returns its kind.
pub fn put(message: &Message, out: &mut Writer<'_>) -> u16 {
    match message {
        Message::Request(request) => put_as(kind::REQUEST, request, out),
        Message::Reply(reply) => put_as(kind::REPLY, reply, out),
        Message::Map(map) => put_as(kind::MAP, map, out),
        Message::Pg(pg) => put_as(kind::PG, pg, out),
    }
}

fn put_as(kind: u16, value: &impl Wire, out: &mut Writer<'_>) -> u16 {
    value.put(out);
    kind
}

/// Reads the typed header of a message of this kind.
pub fn take(kind: u16, mut from: Reader<'_>) -> Result<Message, WireError> {
    let message = match kind {
        kind::REQUEST => Message::Request(Request::take(&mut from)?),
        kind::REPLY => Message::Reply(Reply::take(&mut from)?),
        kind::MAP => Message::Map(MapMessage::take(&mut from)?),
        kind::PG => Message::Pg(PgMessage::take(&mut from)?),
        kind => return Err(WireError::UnknownKind(kind)),
    };
    from.finish()?;
    Ok(message)
}

wire_enum!(Class ("class") { 0 => Client, 1 => Recovery, 2 => Scrub });
wire_struct!(Request { id, seen, object, generation, epoch, class, tenant, op });
wire_enum!(RequestOp ("request") {
    1 => Read { offset, len },
    2 => Write { offset, expect, data },
    3 => Zero { offset, len },
    4 => Delete { expect },
    5 => BlockStatus { offset, len },
    6 => Sync,
});
wire_struct!(Reply { id, outcome });
wire_enum!(Answer ("answer") {
    1 => Read { version, data },
    2 => Written { version },
    3 => BlockStatus { version, bitmap },
    4 => Synced,
    5 => Applied { version },
});
wire_enum!(Refusal ("refusal") {
    1 => WrongEpoch(epoch),
    2 => NotPrimary,
    3 => Again,
    4 => VersionMismatch(version),
    5 => NoSpace,
    6 => Damaged,
    7 => BadChecksum,
    8 => BadRequest,
    9 => Fenced,
    10 => NoSuchPool,
    11 => NoSuchImage,
    12 => Locked,
});
wire_enum!(MapMessage ("map message") {
    1 => Subscribe { have },
    2 => Update(update),
    3 => FindImage { token, pool, name },
    4 => Image { token, image },
    5 => ListImages { token, after },
    6 => Images { token, names, more },
});
wire_struct!(MapUpdate { revision, full, pools, pgs, osds });
wire_struct!(PoolInfo { id, name, scheme, data_chunks, layout, object_bytes });
wire_struct!(Layout { generation, pg_count });
wire_struct!(PgInfo { pg, epoch, primary });
wire_struct!(OsdInfo { id, address });
wire_struct!(ImageInfo { pool, inode, name, size_bytes, read_only });
