//! Placement groups: peering, writes, reads, recovery, deletion.
//!
//! [`Pg`] is one group on one OSD: its member side always, its primary side while the map names this OSD. It is driven
//! by the OSD node, which owns links, timers, the store and the metadata store, and lends them as [`host::Host`].

pub mod host;
pub mod msg;

use crate::id::{Attempt, Epoch, Incarnation, LinkId, OsdId, PgId, Revision, Session};
use crate::io::MetaError;
use crate::map::{PgMap, Pool};
use crate::meta;
use crate::msg::Request;
use crate::store::{ObjectStore, StoreError, StoreReply};
use crate::time::{Duration, Time};
use host::Host;
use msg::{SubOp, SubReply};
use serde::{Deserialize, Serialize};

/// What a group wanted of the store; opaque to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorePurpose {
    /// A sub-operation of a primary.
    SubOp {
        /// The primary.
        to: OsdId,
        /// Its call.
        call: u64,
        /// Its attempt.
        attempt: Attempt,
    },
}

/// A primary's wish for a new epoch without some members, as long as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The epoch in which it arose.
    pub epoch: Epoch,
    /// Whom the group must do without.
    pub without: Vec<OsdId>,
    /// Why, for people.
    pub reason: String,
}

/// What a primary says of its group (`pg/state/<pool>/<pg>`, and for status).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The epoch.
    pub epoch: Epoch,
    /// `peering`, `incomplete`, `inactive` or `active`.
    pub state: String,
    /// All objects are whole on all acting members, the history is trimmed, nothing is left elsewhere.
    pub clean: bool,
    /// Objects that some acting member lacks.
    pub degraded: u64,
    /// Objects of which stale copies remain to be removed.
    pub misplaced: u64,
    /// Objects of which no good copy is left.
    pub unfound: u64,
    /// Whom an inactive group waits for, for people.
    pub waits_for: Vec<String>,
}

/// One placement group on one OSD.
#[derive(Clone, Debug)]
pub struct Pg {
    id: PgId,
}

impl Pg {
    /// A group of which nothing is known yet.
    pub fn new(id: PgId, pool: &Pool) -> Self {
        let _ = pool;
        Pg { id }
    }

    /// The map of the group, as of `revision` (the chunk key's modification revision), when it is first known and
    /// whenever the chunk changed.
    pub fn map_changed<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>, map: &PgMap, revision: Revision) {}

    /// A connection to another OSD is there (again).
    pub fn peer_up<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>, osd: OsdId) {}

    /// The connection to another OSD is gone.
    pub fn peer_down<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>, osd: OsdId) {}

    /// A primary wants something of this member.
    pub fn sub_op<S: ObjectStore>(
        &mut self,
        host: &mut Host<'_, '_, S>,
        from: OsdId,
        attempt: Attempt,
        call: u64,
        op: SubOp,
    ) {
    }

    /// A member answered this primary.
    pub fn sub_reply<S: ObjectStore>(
        &mut self,
        host: &mut Host<'_, '_, S>,
        from: OsdId,
        attempt: Attempt,
        call: u64,
        reply: SubReply,
    ) {
    }

    /// An OSD holds copies although it is not in the acting set.
    pub fn stray<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>, from: OsdId) {}

    /// A client's request, on a link whose other end is `session`.
    pub fn request<S: ObjectStore>(
        &mut self,
        host: &mut Host<'_, '_, S>,
        link: LinkId,
        session: Session,
        request: Request,
    ) {
    }

    /// A client's connection is gone.
    pub fn client_gone<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>, link: LinkId) {}

    /// A store operation finished.
    pub fn store_done<S: ObjectStore>(
        &mut self,
        host: &mut Host<'_, '_, S>,
        purpose: StorePurpose,
        result: Result<StoreReply, StoreError>,
    ) {
    }

    /// The metadata store answered.
    pub fn meta_done<S: ObjectStore>(
        &mut self,
        host: &mut Host<'_, '_, S>,
        token: u64,
        result: Result<meta::Response, MetaError>,
    ) {
    }

    /// A deadline passed, or nothing happened.
    pub fn tick<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>) {}

    /// A recovery slot is free for this group.
    pub fn recover<S: ObjectStore>(&mut self, host: &mut Host<'_, '_, S>) {}

    /// The attempt under which this OSD serves the group, if it does: to be renewed with every member of
    /// [`Pg::heartbeat_members`].
    pub fn serving(&self) -> Option<Attempt> {
        None
    }

    /// The other acting members, with which heartbeats are exchanged.
    pub fn heartbeat_members(&self) -> &[OsdId] {
        &[]
    }

    /// As a member: a primary asks for a read lease; true: granted.
    pub fn grant_lease(&mut self, now: Time, attempt: Attempt, lease: Duration) -> bool {
        false
    }

    /// As a primary: a member granted what was asked at `sent` (this node's clock).
    pub fn lease_granted<S: ObjectStore>(
        &mut self,
        host: &mut Host<'_, '_, S>,
        from: OsdId,
        attempt: Attempt,
        sent: Time,
    ) {
    }

    /// What this primary wishes for; to be written to the metadata store when it changed.
    pub fn wish(&self) -> Option<Wish> {
        None
    }

    /// What this primary says of the group; `None` if this OSD is not its primary.
    pub fn summary(&self) -> Option<Summary> {
        None
    }

    /// Panics if an invariant is broken.
    pub fn check(&self) {}
}
