//! Wire forms of messages between the OSDs of a placement group.

use super::codec::{wire_enum, wire_newtype, wire_struct};
use crate::pg::msg::{Change, PgMessage, Purpose, Refused, SubOp, SubReply};
use crate::store::{Mode, Patch};
use crate::time::Time;

wire_newtype!(Time);
wire_enum!(PgMessage ("group message") {
    1 => Heartbeat { sent, lease, groups },
    2 => HeartbeatAck { sent, lease, groups },
    3 => SubOp { pg, attempt, call, op },
    4 => SubReply { pg, attempt, call, reply },
    5 => Stray { pg, epoch },
});
wire_enum!(SubOp ("sub-operation") {
    1 => Query,
    2 => Digest { role, range, bits },
    3 => List { role, range, after },
    4 => Write { copy, version, predecessor, mode, requests, change },
    5 => Install { purpose, copy, version, predecessor, mode, requests, content },
    6 => Fetch { copy, version },
    7 => Remove { copy, version },
    8 => Purge { copy, version },
    9 => Leave,
    10 => Flush,
    11 => Read { copy, version, offset, len },
    12 => Commit { role, versions },
    13 => Vacate { keep },
    14 => Check { copy, version },
    15 => Changes { copy, since, version },
    16 => Patch { copy, base, version, predecessor, requests, patch },
});
wire_struct!(Patch { ranges, bitmap, sum, data });
wire_enum!(Purpose ("purpose") { 1 => Resolve, 2 => Recovery, 3 => Repair, 4 => Wanted });
wire_enum!(Mode ("mode") { 1 => Plain, 2 => Prepare });
wire_enum!(Change ("change") { 1 => Data { offset, data }, 2 => Zero { offset, len }, 3 => Delete, 4 => Nothing });
wire_enum!(SubReply ("sub-operation's reply") {
    1 => Joined { store, trusted, lease_left, granted_to, roles },
    2 => Digests(digests),
    3 => Listing { copies, more },
    4 => Done,
    5 => Whole { version, predecessor, requests, content },
    6 => Refused(why),
    7 => Applied,
    8 => Read { bitmap, data },
    9 => Checked { version, tombstone, sum },
    10 => Changes { ranges, predecessor, sum, requests },
});
wire_enum!(Refused ("refusal") {
    1 => Fenced(epoch),
    2 => WrongPredecessor(version),
    3 => NoSuchVersion,
    4 => NoSpace,
    5 => BadChecksum,
    6 => Damaged,
    7 => Failed,
    8 => Mismatch,
});
