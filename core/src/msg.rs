//! Typed messages. `wire` gives them bytes; the simulator passes them as they are.

use crate::id::{Attempt, Epoch, InodeId, ObjectId, OsdId, PgId, PoolId, RequestId, Revision, Version};
use crate::map::{Layout, Scheme};
use crate::pg::msg::PgMessage;
use crate::store::{Bitmap, Data};

/// Any message between nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A client to a primary.
    Request(Request),
    /// The answer.
    Reply(Reply),
    /// A client to any node that serves maps.
    Map(MapMessage),
    /// Between OSDs.
    Pg(PgMessage),
}

/// For scheduling and limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A user's I/O.
    #[default]
    Client,
    /// Recovery and rebalancing.
    Recovery,
    /// Verification.
    Scrub,
}

/// A request about one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Identity; a retry carries the same.
    pub id: RequestId,
    /// The client has seen the answers of all its writes *to the object's group* up to this number. (By group, so that
    /// one that is stuck does not make all others remember.)
    pub seen: u64,
    /// The object.
    pub object: ObjectId,
    /// The generation of the layout by which the client found the object's group.
    pub generation: u16,
    /// The client's map epoch of the object's group.
    pub epoch: Epoch,
    /// For scheduling.
    pub class: Class,
    /// Whose I/O it is; 0: nobody's in particular.
    pub tenant: u32,
    /// What to do.
    pub op: RequestOp,
}

/// What a client asks of an object. Offsets and lengths are in bytes, whole sectors, inside the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestOp {
    /// Read; what was never written reads as zeroes.
    Read {
        /// Offset.
        offset: u32,
        /// Bytes.
        len: u32,
    },
    /// Write, all or nothing.
    Write {
        /// Offset.
        offset: u32,
        /// Bytes and checksum.
        data: Data,
        /// Refuse unless the object is at this version.
        expect: Option<Version>,
    },
    /// A range becomes unwritten and reads as zeroes.
    Zero {
        /// Offset.
        offset: u32,
        /// Bytes.
        len: u32,
    },
    /// The object becomes non-existent.
    Delete {
        /// Refuse unless the object is at this version.
        expect: Option<Version>,
    },
    /// Which sectors of a range were ever written.
    BlockStatus {
        /// Offset.
        offset: u32,
        /// Bytes.
        len: u32,
    },
    /// Make durable what was acknowledged before, of the object's whole group (lazy pools).
    Sync,
}

impl RequestOp {
    /// Whether it may change the object.
    pub fn is_write(&self) -> bool {
        match self {
            RequestOp::Write { .. } | RequestOp::Zero { .. } | RequestOp::Delete { .. } => true,
            RequestOp::Read { .. } | RequestOp::BlockStatus { .. } | RequestOp::Sync => false,
        }
    }
}

/// Answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The request.
    pub id: RequestId,
    /// Its outcome.
    pub outcome: Result<Answer, Refusal>,
}

/// A success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Of a read.
    Read {
        /// The object's version; none if it does not exist.
        version: Version,
        /// Bytes and checksum.
        data: Data,
    },
    /// Of a write, zero or delete: done, and safe as the pool promises.
    Written {
        /// The object's new version.
        version: Version,
    },
    /// Of a block status.
    BlockStatus {
        /// The object's version; none if it does not exist.
        version: Version,
        /// Bit 0: the first sector asked for.
        bitmap: Bitmap,
    },
    /// Of a sync.
    Synced,
    /// Of a write, zero or delete in a lazy pool: done, but a power loss may take it back until a later sync of its
    /// group, under the same epoch, was answered.
    Applied {
        /// The object's new version.
        version: Version,
    },
}

/// A refusal. Nothing was done, now or later, but for `Again` after a connection loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The map has another epoch (this one, if known here): refresh, retry.
    WrongEpoch(Epoch),
    /// This OSD is not the primary: refresh, retry.
    NotPrimary,
    /// Not now (queue full, group not active): retry after a pause.
    Again,
    /// The object is at this version.
    VersionMismatch(Version),
    /// No space, as long as nothing is deleted.
    NoSpace,
    /// The object cannot be read: no good copy is left.
    Damaged,
    /// The body did not match its checksum: send again.
    BadChecksum,
    /// The request makes no sense; retrying does not help.
    BadRequest,
    /// The client was fenced, or a newer session of it exists.
    Fenced,
    /// The pool does not exist here.
    NoSuchPool,
    /// The image was removed, or is being removed.
    NoSuchImage,
    /// The image is locked for another client.
    Locked,
}

/// Maps for clients, who do not talk to the metadata store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapMessage {
    /// Send the map now and its changes from now on.
    Subscribe {
        /// What the subscriber has; 0: nothing.
        have: Revision,
    },
    /// The map or a change of it.
    Update(MapUpdate),
    /// Find an image by name.
    FindImage {
        /// Comes back.
        token: u64,
        /// Pool; `None`: the only pool that has such an image.
        pool: Option<String>,
        /// Name.
        name: String,
    },
    /// Answer: the image, or `None`.
    Image {
        /// As asked.
        token: u64,
        /// The image.
        image: Option<ImageInfo>,
    },
    /// Ask for the names of all images, some at a time.
    ListImages {
        /// Comes back in the answer.
        token: u64,
        /// Begin after this one.
        after: Option<String>,
    },
    /// Answer: names as POOL/NAME, in order.
    Images {
        /// As asked.
        token: u64,
        /// The names.
        names: Vec<String>,
        /// Whether there are more.
        more: bool,
    },
}

/// What clients need of the cluster map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapUpdate {
    /// Complete up to this revision.
    pub revision: Revision,
    /// Replaces everything; otherwise only what changed is listed.
    pub full: bool,
    /// Pools.
    pub pools: Vec<PoolInfo>,
    /// Groups.
    pub pgs: Vec<PgInfo>,
    /// OSDs.
    pub osds: Vec<OsdInfo>,
}

/// A pool, for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolInfo {
    /// Its number.
    pub id: PoolId,
    /// Its name.
    pub name: String,
    /// Redundancy.
    pub scheme: Scheme,
    /// Data chunks of a stripe: 1 for replicated pools.
    pub data_chunks: u8,
    /// How its hashes are cut into groups.
    pub layout: Layout,
    /// Bytes of an object: a chunk times data chunks.
    pub object_bytes: u32,
}

/// A group, for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PgInfo {
    /// The group.
    pub pg: PgId,
    /// Epoch of its map.
    pub epoch: Epoch,
    /// Who serves it.
    pub primary: Option<OsdId>,
}

/// An OSD, for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OsdInfo {
    /// Its number.
    pub id: OsdId,
    /// `host:port`; empty: down.
    pub address: String,
}

/// An image, for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// Its pool.
    pub pool: PoolId,
    /// Its number.
    pub inode: InodeId,
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Writes are refused.
    pub read_only: bool,
}

/// Facts for checkers: what a node claims at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Peering chose an object's version (only objects whose copies differ are reported).
    Chosen {
        /// The group.
        pg: PgId,
        /// By which attempt; the choice counts if that is recorded.
        attempt: Attempt,
        /// The object.
        object: ObjectId,
        /// The version; none: the object does not exist.
        version: Version,
    },
    /// This node recorded an interval, or trimmed, in the group's history.
    Recorded {
        /// The group.
        pg: PgId,
        /// By which attempt.
        attempt: Attempt,
        /// What is recorded now.
        history: crate::map::History,
    },
    /// This node serves the group from now on.
    Activated {
        /// The group.
        pg: PgId,
        /// Its epoch.
        epoch: Epoch,
        /// Its acting members.
        acting: Vec<OsdId>,
    },
    /// This node stopped serving the group.
    Deactivated {
        /// The group.
        pg: PgId,
        /// Its epoch.
        epoch: Epoch,
    },
    /// A write was carried out by all acting members and its client is told.
    Acknowledged {
        /// The group.
        pg: PgId,
        /// The object.
        object: ObjectId,
        /// Its version.
        version: Version,
        /// The request.
        request: RequestId,
        /// Whether all of them have it durable.
        durable: bool,
    },
    /// A read is answered.
    Served {
        /// The group.
        pg: PgId,
        /// The object.
        object: ObjectId,
        /// The version that was seen; none: the object does not exist.
        version: Version,
    },
}
