//! The cluster map: what the metadata store holds under `/ashlar/`, as JSON that a person can read.
//!
//! Unknown fields are refused in what people write (`config/...`) and ignored in what daemons write, so that a newer
//! daemon's additions do not stop an older one.

pub mod access;
pub mod cluster;
pub mod follow;
pub mod layout;
pub mod parse;
pub mod place;
pub mod rules;
pub mod serve;
pub mod tree;

pub use cluster::{Changes, ClusterMap};
pub use layout::{Layout, PoolLayout};
pub use tree::{Levels, Tags, Tree, TreeNode};

use crate::id::{ClusterUuid, Epoch, HashRange, Incarnation, Member, OsdId, PgNumber, PoolId, StoreUuid};
use crate::time::Duration;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All keys begin with this.
pub const PREFIX: &str = "/ashlar/";
/// Groups per key of `pg/map`.
pub const PGS_PER_CHUNK: u32 = 64;

/// `config/global`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Global {
    /// The cluster.
    pub cluster: ClusterUuid,
    /// How long a read lease lasts.
    #[serde(default = "default_lease_ms")]
    pub lease_ms: u64,
    /// A peer that is silent for so long is reported as dead.
    #[serde(default = "default_heartbeat_timeout_ms")]
    pub heartbeat_timeout_ms: u64,
    /// Time to live of an OSD's session in the metadata store.
    #[serde(default = "default_session_ttl_s")]
    pub session_ttl_s: u64,
    /// A dead OSD's data is copied elsewhere after so long.
    #[serde(default = "default_osd_out_time_s")]
    pub osd_out_time_s: u64,
    /// An OSD that went down more often than this, without having said so, is held down for a while when it comes back;
    /// 0: never.
    #[serde(default = "default_osd_flap_limit")]
    pub osd_flap_limit: u32,
    /// An OSD that stays up for so long is forgiven.
    #[serde(default = "default_osd_flap_window_s")]
    pub osd_flap_window_s: u64,
    /// How long an OSD is held down first; it doubles with each further fall, five times at most.
    #[serde(default = "default_osd_hold_s")]
    pub osd_hold_s: u64,
    /// Objects that an OSD recovers at a time, at most.
    #[serde(default = "default_recovery_objects")]
    pub recovery_objects: u32,
    /// Latency of clients' operations during recovery, in percent of what it is without: recovery slows down to keep it.
    #[serde(default = "default_recovery_latency_percent")]
    pub recovery_latency_percent: u32,
    /// OSDs fuller than this are named in the status.
    #[serde(default = "default_near_full_percent")]
    pub near_full_percent: u32,
    /// An OSD fuller than this takes no more copies by recovery, but for those that a client waits for.
    #[serde(default = "default_recovery_full_percent")]
    pub recovery_full_percent: u32,
}

/// Reads stop for at most this long at a failover; half of it is the renewal period.
fn default_lease_ms() -> u64 {
    300
}
/// Above the longest pause of a healthy, loaded host.
fn default_heartbeat_timeout_ms() -> u64 {
    1_000
}
/// Covers a change of the metadata store's leader.
fn default_session_ttl_s() -> u64 {
    10
}
/// A reboot fits into it.
fn default_osd_out_time_s() -> u64 {
    600
}

/// Somebody who works on a host restarts things a few times.
fn default_osd_flap_limit() -> u32 {
    5
}
/// The same as until it would have been taken out.
fn default_osd_flap_window_s() -> u64 {
    600
}
/// Some peerings' worth; a crash loop restarts every second.
fn default_osd_hold_s() -> u64 {
    10
}

/// Four megabytes of usual objects: the fastest disks are busy.
pub(crate) fn default_recovery_objects() -> u32 {
    32
}
/// Noticed by a database, not by its users.
pub(crate) fn default_recovery_latency_percent() -> u32 {
    200
}

/// Early enough to buy disks.
pub fn default_near_full_percent() -> u32 {
    85
}
/// What is left is for clients, until somebody makes room.
pub(crate) fn default_recovery_full_percent() -> u32 {
    95
}

/// Redundancy of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// `pg_size` equal copies.
    Replicated,
    /// Reed-Solomon, `pg_size` chunks of which `parity_chunks` are parity. A member's place in the group is its chunk.
    Ec,
    /// The same with one parity chunk, the sum of the others.
    Xor,
}

/// Which acknowledged writes survive a power loss without a flush: what a pool promises, and what an OSD keeps for every
/// write. Ordered by strictness, the laxest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImmediateCommit {
    /// None.
    None,
    /// Those of up to half a block (and everything without data): what a store puts into its log.
    Small,
    /// All.
    #[default]
    All,
}

impl ImmediateCommit {
    /// Whether a write of so many bytes must be durable before it is acknowledged.
    pub fn covers(self, bytes: u32, block_size: u32) -> bool {
        match self {
            ImmediateCommit::None => false,
            ImmediateCommit::Small => bytes <= block_size / 2,
            ImmediateCommit::All => true,
        }
    }
}

impl std::fmt::Display for ImmediateCommit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ImmediateCommit::None => "none",
            ImmediateCommit::Small => "small",
            ImmediateCommit::All => "all",
        })
    }
}

impl std::str::FromStr for ImmediateCommit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [ImmediateCommit::None, ImmediateCommit::Small, ImmediateCommit::All];
        let found = all.into_iter().find(|mode| mode.to_string() == text);
        found.ok_or_else(|| format!("'{text}' is not one of all, small and none"))
    }
}

impl Scheme {
    /// Its name, as in `config/pools`.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::Replicated => "replicated",
            Scheme::Ec => "ec",
            Scheme::Xor => "xor",
        }
    }
}

/// `config/pools`: pools by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pools(pub BTreeMap<PoolId, Pool>);

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Unique name.
    pub name: String,
    /// Redundancy.
    pub scheme: Scheme,
    /// Members of a group.
    pub pg_size: u8,
    /// Members that must be there for the group to serve.
    pub pg_minsize: u8,
    /// Number of groups that there should be; the layout says how many there are.
    pub pg_count: u32,
    /// Parity chunks of erasure codes.
    #[serde(default)]
    pub parity_chunks: u8,
    /// Bytes of an object's copy (of a chunk, with erasure codes).
    #[serde(default = "default_block_size")]
    pub block_size: u32,
    /// Level of the tree on which members never share a node; a host by default.
    #[serde(default = "default_failure_domain")]
    pub failure_domain: String,
    /// Which members share nodes of other levels, such as `dc=112233`; see [`rules`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level_placement: Option<String>,
    /// Rules in place of `failure_domain` and `level_placement`; see [`rules`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_placement: Option<String>,
    /// Sets of OSDs that placement tries for one group before it makes do with fewer members, and most of the sets that
    /// a linear programme weighs against each other.
    #[serde(default = "default_max_osd_combinations", skip_serializing_if = "is_default_combinations")]
    pub max_osd_combinations: u32,
    /// Only OSDs below this node of the tree are used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_node: Option<String>,
    /// Only OSDs that have all these tags are used.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub osd_tags: Tags,
    /// OSDs that have all these tags are primaries where there is a choice.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub primary_affinity_tags: Tags,
    /// Seconds between two scrubs of a group; 0: only when ordered.
    #[serde(default = "default_scrub_interval_s", alias = "scrub_interval")]
    pub scrub_interval_s: u64,
    /// Which acknowledged writes are durable at once. The pool uses only OSDs that are at least as strict.
    #[serde(default)]
    pub immediate_commit: ImmediateCommit,
    /// It goes when its last image is gone; tools create no image in it any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removing: bool,
}

/// `config/former_pools`: names of pools that were removed, by number. Numbers are never used again: an OSD that was away
/// still holds what it had of the pool, and drops it because it is named here. That a pool is missing in `config/pools`
/// would not be reason enough: people edit that key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FormerPools(pub BTreeMap<PoolId, String>);

/// The measured knee of throughput against metadata per byte.
fn default_block_size() -> u32 {
    128 << 10
}
/// A month: latent errors of disks are found before a second one is likely to meet them.
pub fn default_scrub_interval_s() -> u64 {
    30 * 24 * 3600
}
fn default_failure_domain() -> String {
    "host".into()
}

/// Far more than are needed where the rules leave a choice; a second of work where they leave none.
fn default_max_osd_combinations() -> u32 {
    10_000
}
fn is_default_combinations(combinations: &u32) -> bool {
    *combinations == default_max_osd_combinations()
}

/// Three copies on three hosts, in one group; everything else as it is when it is left out.
impl Default for Pool {
    fn default() -> Self {
        Pool {
            name: String::new(),
            scheme: Scheme::Replicated,
            pg_size: 3,
            pg_minsize: 2,
            pg_count: 1,
            parity_chunks: 0,
            block_size: default_block_size(),
            failure_domain: default_failure_domain(),
            level_placement: None,
            raw_placement: None,
            max_osd_combinations: default_max_osd_combinations(),
            root_node: None,
            osd_tags: Tags::default(),
            primary_affinity_tags: Tags::default(),
            scrub_interval_s: default_scrub_interval_s(),
            immediate_commit: ImmediateCommit::default(),
            removing: false,
        }
    }
}

impl Pool {
    /// Time between two scrubs of a group; zero: only when ordered.
    pub fn scrub_interval(&self) -> Duration {
        Duration::secs(self.scrub_interval_s)
    }

    /// Data chunks of a stripe: 1 for replicated pools.
    pub fn data_chunks(&self) -> u8 {
        match self.scheme {
            Scheme::Replicated => 1,
            Scheme::Ec | Scheme::Xor => self.pg_size - self.parity_chunks,
        }
    }

    /// Whether a member's place in a group matters: each holds another chunk.
    pub fn has_roles(&self) -> bool {
        self.scheme != Scheme::Replicated
    }

    /// The usual `pg_minsize`: one member more than the data needs, so that what is acknowledged survives another loss;
    /// but one member may always be missing, if the scheme can do without one at all.
    pub fn usual_minsize(&self) -> u8 {
        (self.data_chunks() + 1).min(self.pg_size - 1).max(self.data_chunks())
    }

    /// Bytes of an object as clients see it.
    pub fn object_bytes(&self) -> u32 {
        self.block_size * u32::from(self.data_chunks())
    }
}

/// `config/osd/<n>`: what the administrator says of an OSD. A missing key means the defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OsdConfig {
    /// Share of its size that placement uses, 0 to 1.
    #[serde(default = "default_reweight")]
    pub reweight: f64,
    /// Never taken out automatically.
    #[serde(default)]
    pub noout: bool,
    /// What pools choose it by.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
}

fn default_reweight() -> f64 {
    1.0
}

impl Default for OsdConfig {
    fn default() -> Self {
        OsdConfig { reweight: default_reweight(), noout: false, tags: Tags::default() }
    }
}

/// `config/inode/<pool>/<n>`: an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Unique in its pool.
    pub name: String,
    /// Bytes.
    pub size_bytes: u64,
    /// The image below it, as `(pool, inode)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<(PoolId, crate::id::InodeId)>,
    /// Writes are refused.
    #[serde(default)]
    pub read_only: bool,
    /// A snapshot: read-only for ever.
    #[serde(default)]
    pub snapshot: bool,
    /// Being removed: no client may open it.
    #[serde(default)]
    pub removing: bool,
}

/// `osd/state/<n>`, leased: an OSD that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OsdState {
    /// `host:port` where peers and clients reach it.
    pub address: String,
    /// Its store.
    pub store: StoreUuid,
    /// Its start.
    pub incarnation: Incarnation,
    /// The host that it says it runs on (its place in the tree, unless the tree says otherwise).
    pub host: String,
    /// Bytes for data.
    pub size_bytes: u64,
    /// The store's metadata are trustworthy.
    pub trusted: bool,
    /// Which acknowledged writes are durable at once.
    #[serde(default)]
    pub immediate_commit: ImmediateCommit,
}

/// `osd/failed/<n>/<reporter>`, leased by the reporter: it cannot reach that OSD.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureReport {
    /// Which start of it.
    pub incarnation: Incarnation,
    /// The host answered and refused: certain.
    pub hard: bool,
}

/// `pg/map/<pool>/<chunk>`: [`PGS_PER_CHUNK`] groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PgMapChunk(pub BTreeMap<PgNumber, PgMap>);

/// Map of one group; written only by the leading monitor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PgMap {
    /// Rises with every change of acting members, primary, or their incarnations.
    pub epoch: Epoch,
    /// Where placement wants it, by role; `None`: nobody is to be had.
    pub target: Vec<Option<OsdId>>,
    /// Who serves it, by role, or a hole.
    pub acting: Vec<Option<ActingMember>>,
    /// One of the acting OSDs; `None`: nobody serves.
    pub primary: Option<OsdId>,
    /// The epoch since which this start of the primary is primary without a break: an older wish of it was written under
    /// another primary's eyes, or arrived late, and binds no more.
    #[serde(default)]
    pub primary_since: Epoch,
}

/// An acting member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActingMember {
    /// The OSD.
    pub osd: OsdId,
    /// Its store.
    pub store: StoreUuid,
    /// Its start.
    pub incarnation: Incarnation,
}

/// `pg/history/<pool>/<pg>`: written only by the group's primary. A missing key: the group never served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// `C`, epoch of the base.
    pub base_epoch: Epoch,
    /// `S_C`, members that hold everything up to the base.
    pub base_set: Vec<Member>,
    /// `f`, the last recorded interval.
    pub last: Epoch,
    /// `W`, the members that took part in its peering.
    pub witnesses: Vec<Member>,
    /// `(e, S_e)`, in order; the last is that of `f`.
    pub sets: Vec<(Epoch, Vec<Member>)>,
    /// The group took over ranges of hashes from several groups, when the number of groups changed, and has not been
    /// trimmed since: what holds for each of them. The fields above then say what is common to all: the intervals of
    /// this group itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<Ancestor>,
}

/// What a group's history says of some of its objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    /// Hashes of the objects.
    pub range: HashRange,
    /// Their history, this group's intervals included; it has no ancestors itself.
    pub history: History,
}

impl History {
    /// Ranges of hashes that cover the group, each with the history of its objects.
    pub fn parts(&self) -> impl Iterator<Item = (HashRange, &History)> {
        let whole = self.ancestors.is_empty().then_some((HashRange::ALL, self));
        whole.into_iter().chain(self.ancestors.iter().map(|ancestor| (ancestor.range, &ancestor.history)))
    }

    /// The history of an object with this hash.
    pub fn of(&self, hash: u64) -> &History {
        self.ancestors.iter().find(|part| part.range.contains(hash)).map_or(self, |part| &part.history)
    }

    /// The history of a group that has recorded nothing yet, from those of the groups before it. One ancestor's is
    /// simply continued.
    pub fn inherited(mut ancestors: Vec<Ancestor>) -> History {
        if ancestors.len() == 1 {
            return ancestors.remove(0).history;
        }
        let last = ancestors.iter().map(|ancestor| ancestor.history.last).max().unwrap_or_default();
        History { last, ancestors, ..History::default() }
    }
}

/// `pg/wish/<pool>/<pg>`, leased by the OSD that writes it, the group's primary: as long as it exists, these OSDs are
/// left out of `acting`; if it names none, the epoch that it was written in is followed by another. In force only while that OSD, in that incarnation, is primary; the leading monitor deletes
/// others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// The primary.
    pub by: OsdId,
    /// Its start.
    pub incarnation: Incarnation,
    /// The epoch in which it found that it cannot go on.
    pub epoch: Epoch,
    /// Whom to leave out; may contain the primary itself. Nobody: just another epoch.
    pub without: Vec<OsdId>,
    /// For people.
    pub reason: String,
}

/// `pg/removed/<pool>/<inode>/<pg>`: the group's primary found that the group has no object of an image that is being
/// removed, and that none can come into being any more. The leading monitor deletes these keys after the image's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The epoch in which it found that.
    pub epoch: Epoch,
}

/// `osd/record/<n>`: what the leading monitor remembers of an OSD while it is down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OsdRecord {
    /// The host that it said it ran on.
    pub host: String,
    /// Bytes for data.
    pub size_bytes: u64,
    /// As in its state.
    #[serde(default)]
    pub immediate_commit: ImmediateCommit,
    /// Down for so long that its data is copied elsewhere; ends when it comes back.
    pub out: bool,
    /// Its start that was seen last; the default: none was noted.
    #[serde(default)]
    pub incarnation: Incarnation,
    /// How often it went down without having said so, until it stays up for a while.
    #[serde(default)]
    pub falls: u32,
    /// Seconds for which it has been down, in steps, or held down although it runs; `None`: it is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down_s: Option<u64>,
}

/// `mon/leader`, leased.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Its start.
    pub incarnation: Incarnation,
    /// Where it serves maps.
    pub address: String,
}

/// An order of an administrator (`config/scrub/<pool>/<pg>`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScrubOrder {
    /// Compare all copies now.
    Scrub,
    /// And make copies that differ equal to the primary's.
    Repair,
}

/// Key names.
pub mod keys {
    use super::PREFIX;
    use crate::id::{InodeId, OsdId, PgId, PoolId};

    /// `config/global`.
    pub fn global() -> String {
        format!("{PREFIX}config/global")
    }
    /// `config/pools`.
    pub fn pools() -> String {
        format!("{PREFIX}config/pools")
    }
    /// `config/former_pools`.
    pub fn former_pools() -> String {
        format!("{PREFIX}config/former_pools")
    }
    /// `config/node_placement`.
    pub fn tree() -> String {
        format!("{PREFIX}config/node_placement")
    }
    /// `config/placement_levels`.
    pub fn levels() -> String {
        format!("{PREFIX}config/placement_levels")
    }
    /// `config/osd/<n>`.
    pub fn osd_config(osd: OsdId) -> String {
        format!("{PREFIX}config/osd/{osd}")
    }
    /// `config/inode/<pool>/<n>`.
    pub fn image(pool: PoolId, inode: InodeId) -> String {
        format!("{PREFIX}config/inode/{pool}/{inode}")
    }
    /// `config/last_inode/<pool>`: the highest image number ever given; numbers are never used again. Written, after
    /// the image's key, by every transaction that creates an image or marks one for removal: who has seen a change of
    /// this key knows of all images that came or went before.
    pub fn last_inode(pool: PoolId) -> String {
        format!("{PREFIX}config/last_inode/{pool}")
    }
    /// `pg/removed/<pool>/<inode>/<pg>`.
    pub fn removed(pg: PgId, inode: InodeId) -> String {
        format!("{PREFIX}pg/removed/{}/{inode}/{}", pg.pool, pg.number)
    }
    /// `osd/state/<n>`.
    pub fn osd_state(osd: OsdId) -> String {
        format!("{PREFIX}osd/state/{osd}")
    }
    /// `config/access`.
    pub fn access() -> String {
        format!("{PREFIX}config/access")
    }
    /// `osd/access/<n>`.
    pub fn osd_access(osd: OsdId) -> String {
        format!("{PREFIX}osd/access/{osd}")
    }
    /// `osd/failed/<n>/<reporter>`.
    pub fn osd_failed(osd: OsdId, reporter: OsdId) -> String {
        format!("{PREFIX}osd/failed/{osd}/{reporter}")
    }
    /// `osd/record/<n>`.
    pub fn osd_record(osd: OsdId) -> String {
        format!("{PREFIX}osd/record/{osd}")
    }
    /// `pg/wish/<pool>/<pg>`.
    pub fn pg_wish(pg: PgId) -> String {
        format!("{PREFIX}pg/wish/{pg}")
    }
    /// `pg/map/<pool>/<chunk>`.
    pub fn pg_map(pool: PoolId, chunk: u32) -> String {
        format!("{PREFIX}pg/map/{pool}/{chunk}")
    }
    /// `pg/map/<pool>/layout`.
    pub fn layout(pool: PoolId) -> String {
        format!("{PREFIX}pg/map/{pool}/layout")
    }
    /// `pg/history/<pool>/<pg>`.
    pub fn pg_history(pg: PgId) -> String {
        format!("{PREFIX}pg/history/{pg}")
    }
    /// `pg/state/<pool>/<pg>`: what its primary says, leased.
    pub fn pg_state(pg: PgId) -> String {
        format!("{PREFIX}pg/state/{pg}")
    }
    /// `pg/scrub/<pool>/<pg>`: how far its scrub has come, and what it found.
    pub fn pg_scrub(pg: PgId) -> String {
        format!("{PREFIX}pg/scrub/{pg}")
    }
    /// `config/scrub/<pool>/<pg>`: an order to scrub a group; deleted by its primary when it is carried out.
    pub fn scrub_order(pg: PgId) -> String {
        format!("{PREFIX}config/scrub/{pg}")
    }
    /// `stats/osd/<n>`.
    pub fn osd_stats(osd: OsdId) -> String {
        format!("{PREFIX}stats/osd/{osd}")
    }
    /// `stats/images/<n>`: what clients did to images, by the OSD that served them.
    pub fn image_stats(osd: OsdId) -> String {
        format!("{PREFIX}stats/images/{osd}")
    }
    /// `stats/guard/<n>`: orders what an OSD publishes.
    pub fn osd_guard(osd: OsdId) -> String {
        format!("{PREFIX}stats/guard/{osd}")
    }
    /// `mon/leader`.
    pub fn leader() -> String {
        format!("{PREFIX}mon/leader")
    }
}
