//! Wire forms of messages between the OSDs of a placement group.

use super::WireError;
use super::codec::{Reader, Wire, Writer};
use crate::pg::msg::PgMessage;

impl Wire for PgMessage {
    fn put(&self, _out: &mut Writer<'_>) {
        match *self {}
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        Err(WireError::BadTag { what: "group message", tag: u8::take(from)? })
    }
}
