//! From the metadata store's bytes to checked values: which key is it, is its value well-formed, does it make sense.
//!
//! Owns the grammar of keys and every rule that one value alone can break. Rules between keys (a pool's failure domain
//! against the tree, say) belong to those who combine them. Nothing here panics: people write these values.

use super::access::{Access, Obeyed};
use super::rules::Rules;
pub use super::tree::{LEVEL_HOST, LEVEL_OSD};
use super::{
    FailureReport, FormerPools, Global, History, Image, Layout, Leader, Levels, OsdConfig, OsdRecord, OsdState,
    PGS_PER_CHUNK, PREFIX, PgMap, PgMapChunk, Pool, PoolLayout, Pools, Removed, Scheme, ScrubOrder, Tree, TreeNode,
    Wish,
};
use crate::id::{InodeId, OsdId, PgId, PgNumber, PoolId};
use crate::limits::{
    BLOCK_MAX_BYTES, DATA_CHUNKS_MAX, OBJECT_MAX_BYTES, OBJECT_MIN_BYTES, PARITY_CHUNKS_MAX, SECTOR_BYTES,
};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// Most members of a group: roles are bytes, and no code in use is wider.
const PG_SIZE_MAX: u8 = 32;
/// Most groups of a pool: their maps take about 20 MB of metadata then, a tenth of what a metadata store carries well.
const PG_COUNT_MAX: u32 = 65_536;
/// Shortest lease: below, heartbeats cost more than they save.
const LEASE_MIN_MS: u64 = 20;
/// Longest lease: reads of a group stop for so long when its primary fails.
const LEASE_MAX_MS: u64 = 60_000;
/// Longest time until a silent OSD is reported: its groups' writes stop for so long.
const TIMEOUT_MAX_MS: u64 = 600_000;
/// Shortest session: etcd grants no shorter lease.
const SESSION_MIN_S: u64 = 2;
/// Longest session: a dead OSD that nobody reports stays up for so long.
const SESSION_MAX_S: u64 = 600;
/// Ten years; for never, there is `noout`.
const OUT_TIME_MAX_S: u64 = 315_360_000;
/// More than anybody watches.
const FLAPS_MAX: u64 = 1_000;
/// A day: whoever flaps slower than that does no harm.
const FLAP_TIME_MAX_S: u64 = 86_400;
/// A gigabyte under way of the largest objects.
const RECOVERY_OBJECTS_MAX: u64 = 1_024;
/// Beyond ten times as slow, it is the same as no bound.
const RECOVERY_PERCENT_MAX: u64 = 10_000;

/// Rules of a group of 32 parts that each name all others on three levels are shorter.
const RULES_MAX_BYTES: usize = 16 << 10;
/// Beyond, placement would take minutes where the rules cannot be kept.
const COMBINATIONS_MAX: u32 = 1_000_000;

/// Ten years; for never, there is 0.
const SCRUB_INTERVAL_MAX_S: u64 = 315_360_000;

/// A value that cannot be used. Says which key, what is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ValueError {
    /// The key.
    pub key: String,
    /// Which field, what is wrong with it, what to do.
    pub reason: String,
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.reason)
    }
}

/// What a key is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `config/global`.
    Global,
    /// `config/pools`.
    Pools,
    /// `config/node_placement`.
    Tree,
    /// `config/placement_levels`.
    Levels,
    /// `config/osd/<n>`.
    OsdConfig(OsdId),
    /// `config/inode/<pool>/<n>`.
    Image(PoolId, InodeId),
    /// `config/last_inode/<pool>`.
    LastInode(PoolId),
    /// `osd/state/<n>`.
    OsdState(OsdId),
    /// `osd/failed/<n>/<reporter>`.
    OsdFailed(OsdId, OsdId),
    /// `osd/record/<n>`.
    OsdRecord(OsdId),
    /// `pg/map/<pool>/<chunk>`.
    PgMap(PoolId, u32),
    /// `pg/history/<pool>/<pg>`.
    History(PgId),
    /// `pg/wish/<pool>/<pg>`.
    Wish(PgId),
    /// `pg/removed/<pool>/<inode>/<pg>`.
    Removed(PoolId, InodeId, PgNumber),
    /// `config/scrub/<pool>/<pg>`.
    ScrubOrder(PgId),
    /// `mon/leader`.
    Leader,
    /// `config/access`.
    Access,
    /// `osd/access/<n>`.
    OsdAccess(OsdId),
    /// `pg/map/<pool>/layout`.
    Layout(PoolId),
    /// `config/former_pools`.
    FormerPools,
}

impl Key {
    /// The key of this name; `None` if the cluster map does not hold such keys.
    pub fn parse(key: &str) -> Option<Key> {
        let parts: Vec<&str> = key.strip_prefix(PREFIX)?.split('/').collect();
        match parts[..] {
            ["config", "global"] => Some(Key::Global),
            ["config", "pools"] => Some(Key::Pools),
            ["config", "former_pools"] => Some(Key::FormerPools),
            ["config", "node_placement"] => Some(Key::Tree),
            ["config", "placement_levels"] => Some(Key::Levels),
            ["config", "osd", osd] => number(osd).map(|osd| Key::OsdConfig(OsdId(osd))),
            ["config", "inode", pool, inode] => Some(Key::Image(PoolId(number(pool)?), InodeId(number(inode)?))),
            ["config", "last_inode", pool] => Some(Key::LastInode(PoolId(number(pool)?))),
            ["osd", "state", osd] => number(osd).map(|osd| Key::OsdState(OsdId(osd))),
            ["osd", "failed", osd, by] => Some(Key::OsdFailed(OsdId(number(osd)?), OsdId(number(by)?))),
            ["osd", "record", osd] => number(osd).map(|osd| Key::OsdRecord(OsdId(osd))),
            ["pg", "map", pool, "layout"] => Some(Key::Layout(PoolId(number(pool)?))),
            ["pg", "map", pool, chunk] => Some(Key::PgMap(PoolId(number(pool)?), number(chunk)?)),
            ["pg", "history", pool, pg] => Some(Key::History(group(pool, pg)?)),
            ["pg", "wish", pool, pg] => Some(Key::Wish(group(pool, pg)?)),
            ["pg", "removed", pool, inode, pg] => {
                Some(Key::Removed(PoolId(number(pool)?), InodeId(number(inode)?), PgNumber(number(pg)?)))
            }
            ["config", "scrub", pool, pg] => Some(Key::ScrubOrder(group(pool, pg)?)),
            ["mon", "leader"] => Some(Key::Leader),
            ["config", "access"] => Some(Key::Access),
            ["osd", "access", osd] => number(osd).map(|osd| Key::OsdAccess(OsdId(osd))),
            _ => None,
        }
    }
}

/// Decimal digits without sign or leading zeroes, so that a number has one spelling only.
fn number<T: FromStr>(text: &str) -> Option<T> {
    let canonical = text == "0" || !text.starts_with('0');
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if canonical && digits { text.parse().ok() } else { None }
}

fn group(pool: &str, pg: &str) -> Option<PgId> {
    Some(PgId { pool: PoolId(number(pool)?), number: PgNumber(number(pg)?) })
}

/// A checked value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `config/global`.
    Global(Global),
    /// `config/pools`.
    Pools(Pools),
    /// `config/node_placement`.
    Tree(Tree),
    /// `config/placement_levels`.
    Levels(Levels),
    /// `config/osd/<n>`.
    OsdConfig(OsdConfig),
    /// `config/inode/<pool>/<n>`.
    Image(Image),
    /// `config/last_inode/<pool>`.
    LastInode(InodeId),
    /// `osd/state/<n>`.
    OsdState(OsdState),
    /// `osd/failed/<n>/<reporter>`.
    OsdFailed(FailureReport),
    /// `osd/record/<n>`.
    OsdRecord(OsdRecord),
    /// `pg/map/<pool>/<chunk>`.
    PgMap(PgMapChunk),
    /// `pg/history/<pool>/<pg>`.
    History(History),
    /// `pg/wish/<pool>/<pg>`.
    Wish(Wish),
    /// `pg/removed/<pool>/<inode>/<pg>`.
    Removed(Removed),
    /// `config/scrub/<pool>/<pg>`.
    ScrubOrder(ScrubOrder),
    /// `mon/leader`.
    Leader(Leader),
    /// `config/access`.
    Access(Access),
    /// `osd/access/<n>`.
    OsdAccess(Obeyed),
    /// `pg/map/<pool>/layout`.
    Layout(PoolLayout),
    /// `config/former_pools`.
    FormerPools(FormerPools),
}

/// Parses and checks the value of a key.
pub fn parse_value(key: Key, name: &str, bytes: &[u8]) -> Result<Value, ValueError> {
    let checked = match key {
        Key::Global => json(bytes).and_then(|v| check_global(&v).map(|()| Value::Global(v))),
        Key::Pools => json(bytes).and_then(|v| check_pools(&v).map(|()| Value::Pools(v))),
        Key::Tree => json(bytes).and_then(|v| check_tree(&v).map(|()| Value::Tree(v))),
        Key::Levels => json(bytes).and_then(|v| check_levels(&v).map(|()| Value::Levels(v))),
        Key::OsdConfig(_) => json(bytes).and_then(|v| check_osd_config(&v).map(|()| Value::OsdConfig(v))),
        Key::Image(..) => json(bytes).and_then(|v| check_image(&v).map(|()| Value::Image(v))),
        Key::LastInode(_) => json(bytes).map(Value::LastInode),
        Key::OsdState(_) => json(bytes).and_then(|v| check_osd_state(&v).map(|()| Value::OsdState(v))),
        Key::OsdFailed(..) => json(bytes).map(Value::OsdFailed),
        Key::OsdRecord(_) => json(bytes).map(Value::OsdRecord),
        Key::PgMap(_, chunk) => json(bytes).and_then(|v| check_chunk(chunk, &v).map(|()| Value::PgMap(v))),
        Key::History(_) => json(bytes).map(Value::History),
        Key::Wish(_) => json(bytes).map(Value::Wish),
        Key::Removed(..) => json(bytes).map(Value::Removed),
        Key::ScrubOrder(_) => json(bytes).map(Value::ScrubOrder),
        Key::Leader => json(bytes).map(Value::Leader),
        Key::Access => json(bytes).map(Value::Access),
        Key::OsdAccess(_) => json(bytes).map(Value::OsdAccess),
        Key::FormerPools => json(bytes).map(Value::FormerPools),
        Key::Layout(_) => json(bytes).and_then(|v| check_layout(&v).map(|()| Value::Layout(v))),
    };
    checked.map_err(|reason| ValueError { key: name.to_string(), reason })
}

fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("{error}; correct the JSON and write the key again"))
}

fn ensure(holds: bool, reason: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(reason()) }
}

fn check_global(global: &Global) -> Result<(), String> {
    let bounds = |field: &str, value: u64, low: u64, high: u64, usual: u64| {
        let inside = (low..=high).contains(&value);
        ensure(inside, || format!("{field} is {value}; use {low} to {high} ({usual} is usual)"))
    };
    bounds("lease_ms", global.lease_ms, LEASE_MIN_MS, LEASE_MAX_MS, 300)?;
    let (timeout, lease) = (global.heartbeat_timeout_ms, global.lease_ms);
    bounds("heartbeat_timeout_ms", timeout, LEASE_MIN_MS, TIMEOUT_MAX_MS, 1_000)?;
    ensure(timeout >= lease, || {
        format!(
            "heartbeat_timeout_ms ({timeout}) is below lease_ms ({lease}): a silent OSD is reported after a lease at the \
             earliest; set both, or a lease_ms of {timeout} or less"
        )
    })?;
    bounds("session_ttl_s", global.session_ttl_s, SESSION_MIN_S, SESSION_MAX_S, 10)?;
    bounds("osd_out_time_s", global.osd_out_time_s, 0, OUT_TIME_MAX_S, 600)?;
    bounds("osd_flap_limit", global.osd_flap_limit.into(), 0, FLAPS_MAX, 5)?;
    bounds("osd_flap_window_s", global.osd_flap_window_s, 1, FLAP_TIME_MAX_S, 600)?;
    bounds("osd_hold_s", global.osd_hold_s, 1, FLAP_TIME_MAX_S, 10)?;
    bounds("recovery_objects", global.recovery_objects.into(), 1, RECOVERY_OBJECTS_MAX, 32)?;
    bounds("recovery_latency_percent", global.recovery_latency_percent.into(), 101, RECOVERY_PERCENT_MAX, 200)?;
    bounds("near_full_percent", global.near_full_percent.into(), 1, 100, 85)?;
    bounds("recovery_full_percent", global.recovery_full_percent.into(), 1, 100, 95)
}

fn check_pools(pools: &Pools) -> Result<(), String> {
    let mut names = BTreeSet::new();
    for (id, pool) in &pools.0 {
        check_pool(pool).map_err(|reason| format!("pool {id} ('{}'): {reason}", pool.name))?;
        ensure(names.insert(&pool.name), || format!("pool {id}: the name '{}' is used twice; rename one", pool.name))?;
    }
    Ok(())
}

/// Checks one pool; also for tools, before they write.
pub fn check_pool(pool: &Pool) -> Result<(), String> {
    check_name(&pool.name)?;
    check_sizes(pool)?;
    ensure((1..=PG_COUNT_MAX).contains(&pool.pg_count), || {
        format!("pg_count is {}; use 1 to {PG_COUNT_MAX}, about 100 for each OSD divided by pg_size", pool.pg_count)
    })?;
    let fits = (OBJECT_MIN_BYTES..=BLOCK_MAX_BYTES).contains(&pool.block_size) && pool.block_size.is_power_of_two();
    ensure(fits, || {
        let (size, min, max) = (pool.block_size, OBJECT_MIN_BYTES, BLOCK_MAX_BYTES);
        format!("block_size is {size}; use a power of two from {min} to {max} (131072 is usual)")
    })?;
    ensure(pool.scrub_interval_s <= SCRUB_INTERVAL_MAX_S, || {
        format!("scrub_interval_s is {}; use 0 (never) to {SCRUB_INTERVAL_MAX_S}", pool.scrub_interval_s)
    })?;
    check_placement(pool)
}

fn check_placement(pool: &Pool) -> Result<(), String> {
    ensure(!pool.failure_domain.is_empty(), || "failure_domain is empty; use \"host\" or another level".into())?;
    for (field, text) in [("level_placement", &pool.level_placement), ("raw_placement", &pool.raw_placement)] {
        let length = text.as_ref().map_or(0, String::len);
        ensure(length <= RULES_MAX_BYTES, || format!("{field} has {length} bytes; use up to {RULES_MAX_BYTES}"))?;
    }
    // What follows from the ranks of levels is known where the pool is combined with the tree.
    Rules::of_pool(pool, &Levels::default())?;
    let combinations = pool.max_osd_combinations;
    ensure((1..=COMBINATIONS_MAX).contains(&combinations), || {
        format!("max_osd_combinations is {combinations}; use 1 to {COMBINATIONS_MAX} (10000 is usual)")
    })?;
    let named = pool.root_node.as_ref().is_none_or(|node| !node.is_empty());
    ensure(named, || "root_node is empty; leave it out to use the whole tree".into())?;
    pool.osd_tags.check().map_err(|reason| format!("osd_tags: {reason}"))?;
    pool.primary_affinity_tags.check().map_err(|reason| format!("primary_affinity_tags: {reason}"))
}

/// Checks a new value against the one that it replaces.
///
/// What says where a pool's data is, or how it is cut, cannot change under the data. Whoever starts later sees the new
/// value only, so tools have to check as well, before they write.
pub fn check_change(name: &str, old: Option<&Value>, new: &Value) -> Result<(), ValueError> {
    let (Some(Value::Pools(old)), Value::Pools(new)) = (old, new) else { return Ok(()) };
    for (id, before) in &old.0 {
        let Some(after) = new.0.get(id) else { continue };
        check_pool_change(before, after)
            .map_err(|reason| ValueError { key: name.to_string(), reason: format!("pool {id}: {reason}") })?;
    }
    Ok(())
}

/// Checks a pool against the one that it replaces; also for tools, before they write.
pub fn check_pool_change(old: &Pool, new: &Pool) -> Result<(), String> {
    let fixed = |field: &str, old: &dyn fmt::Display, new: &dyn fmt::Display, why: &str| {
        format!("{field} cannot change from {old} to {new}: {why}; keep it, or copy the images into another pool")
    };
    let whole = "all that is stored would have to be written anew";
    ensure(old.scheme == new.scheme, || fixed("scheme", &old.scheme.name(), &new.scheme.name(), whole))?;
    ensure(old.parity_chunks == new.parity_chunks, || {
        fixed("parity_chunks", &old.parity_chunks, &new.parity_chunks, whole)
    })?;
    ensure(old.pg_size == new.pg_size || !old.has_roles(), || {
        fixed("pg_size of an erasure-coded pool", &old.pg_size, &new.pg_size, whole)
    })?;
    ensure(old.block_size == new.block_size, || {
        fixed("block_size", &old.block_size, &new.block_size, "images are cut into objects by it")
    })
}

fn check_sizes(pool: &Pool) -> Result<(), String> {
    let (size, minsize, parity) = (pool.pg_size, pool.pg_minsize, pool.parity_chunks);
    ensure((1..=PG_SIZE_MAX).contains(&size), || format!("pg_size is {size}; use 1 to {PG_SIZE_MAX}"))?;
    match pool.scheme {
        Scheme::Replicated => {
            ensure(parity == 0, || "parity_chunks belongs to erasure codes; leave it out".into())?;
        }
        Scheme::Ec => ensure((1..=PARITY_CHUNKS_MAX).contains(&parity), || {
            format!("parity_chunks is {parity}; use 1 to {PARITY_CHUNKS_MAX}")
        })?,
        Scheme::Xor => ensure(parity == 1, || format!("parity_chunks is {parity}; scheme \"xor\" has 1"))?,
    }
    if pool.has_roles() {
        check_chunks(pool)?;
    }
    let least = pool.data_chunks();
    ensure((least..=size).contains(&minsize), || {
        format!("pg_minsize is {minsize}; use {least} (fewer members cannot give the data back) to pg_size ({size})")
    })
}

fn check_chunks(pool: &Pool) -> Result<(), String> {
    let chunks = pool.pg_size.saturating_sub(pool.parity_chunks);
    ensure((2..=DATA_CHUNKS_MAX).contains(&chunks), || {
        format!(
            "pg_size {} leaves {chunks} data chunks beside {} of parity; use 2 (of one, keep copies instead) to \
             {DATA_CHUNKS_MAX}",
            pool.pg_size, pool.parity_chunks
        )
    })?;
    let object = u64::from(pool.block_size) * u64::from(chunks);
    ensure(object <= u64::from(OBJECT_MAX_BYTES), || {
        let most = (OBJECT_MAX_BYTES / u32::from(chunks) + 1).next_power_of_two() / 2;
        format!("block_size {} times {chunks} is above {OBJECT_MAX_BYTES}; use {most} or less", pool.block_size)
    })
}

fn check_name(name: &str) -> Result<(), String> {
    let printable = name.chars().all(|c| !c.is_control() && c != '/');
    ensure(!name.is_empty() && name.len() <= 255 && printable, || {
        format!("name {name:?} is not usable; use 1 to 255 bytes without '/' and control characters")
    })
}

fn check_tree(tree: &Tree) -> Result<(), String> {
    for (name, node) in &tree.0 {
        check_tree_node(tree, name, node)?;
    }
    Ok(())
}

fn check_tree_node(tree: &Tree, name: &str, node: &TreeNode) -> Result<(), String> {
    if let Some(text) = name.strip_prefix("osd.") {
        let known_level = node.level.as_deref().unwrap_or(LEVEL_OSD) == LEVEL_OSD;
        ensure(number::<u32>(text).is_some(), || format!("'{name}' is not an OSD; write osd. and its number"))?;
        ensure(known_level, || format!("'{name}': its level is \"{LEVEL_OSD}\"; leave level out"))?;
    }
    let mut seen = BTreeSet::from([name]);
    let mut next = node.parent.as_deref();
    while let Some(parent) = next {
        let Some(above) = tree.0.get(parent) else {
            return Err(format!("'{name}' is below '{parent}', which is not in the tree; add it or correct parent"));
        };
        ensure(seen.insert(parent), || format!("'{name}' is below itself by way of '{parent}'; correct parent"))?;
        next = above.parent.as_deref();
    }
    Ok(())
}

fn check_levels(levels: &Levels) -> Result<(), String> {
    let lowest = levels.rank(LEVEL_OSD);
    ensure(levels.is_coarser(LEVEL_HOST, LEVEL_OSD), || {
        let [osd, host] = [LEVEL_OSD, LEVEL_HOST].map(|level| levels.rank(level).unwrap_or_default());
        format!(
            "level \"{LEVEL_OSD}\" has rank {osd}, \"{LEVEL_HOST}\" has {host}; give \"{LEVEL_OSD}\" a higher one, or \"{LEVEL_HOST}\" a lower"
        )
    })?;
    for (name, rank) in &levels.0 {
        check_name(name)?;
        let above = name == LEVEL_OSD || Some(*rank) < lowest;
        ensure(above, || {
            let osd = lowest.unwrap_or_default();
            format!(
                "level '{name}' has rank {rank}, \"{LEVEL_OSD}\" has {osd}; give it a lower one: OSDs contain no other nodes"
            )
        })?;
        let twin = levels.0.iter().find(|(other, twin)| *other != name && *twin == rank);
        ensure(twin.is_none(), || {
            let other = twin.map_or("", |(other, _)| other);
            format!(
                "levels '{name}' and '{other}' both have rank {rank}; give each its own, lower ones nearer to the root"
            )
        })?;
    }
    let host = levels.rank(LEVEL_HOST);
    let twin = levels.0.iter().find(|(name, rank)| *name != LEVEL_HOST && Some(**rank) == host);
    ensure(twin.is_none(), || {
        let (other, rank) = twin.map_or(("", 0), |(name, rank)| (name.as_str(), *rank));
        format!("level '{other}' has rank {rank}, which is that of \"{LEVEL_HOST}\"; give it another one")
    })
}

/// Checks what is set of an OSD; also for tools, before they write.
pub fn check_osd_config(config: &OsdConfig) -> Result<(), String> {
    ensure((0.0..=1.0).contains(&config.reweight), || format!("reweight is {}; use 0 to 1", config.reweight))?;
    config.tags.check()
}

fn check_image(image: &Image) -> Result<(), String> {
    check_name(&image.name)?;
    let sectors = image.size_bytes > 0 && image.size_bytes.is_multiple_of(u64::from(SECTOR_BYTES));
    ensure(sectors, || format!("size_bytes is {}; use a multiple of {SECTOR_BYTES} above 0", image.size_bytes))
}

fn check_osd_state(state: &OsdState) -> Result<(), String> {
    ensure(!state.address.is_empty(), || "address is empty; restart this OSD".into())?;
    ensure(!state.host.is_empty(), || "host is empty; start this OSD with --host".into())
}

fn check_layout(layout: &PoolLayout) -> Result<(), String> {
    let usual = |layout: &Layout| (1..=PG_COUNT_MAX).contains(&layout.pg_count);
    ensure(usual(&layout.now) && layout.before.iter().all(usual), || format!("pg_count is not 1 to {PG_COUNT_MAX}"))
}

fn check_chunk(chunk: u32, maps: &PgMapChunk) -> Result<(), String> {
    for (number, map) in &maps.0 {
        check_pg_map(chunk, *number, map).map_err(|reason| format!("group {number}: {reason}"))?;
    }
    Ok(())
}

fn check_pg_map(chunk: u32, number: PgNumber, map: &PgMap) -> Result<(), String> {
    ensure(number.0 / PGS_PER_CHUNK == chunk, || format!("belongs to chunk {}", number.0 / PGS_PER_CHUNK))?;
    ensure(map.epoch.0 > 0, || "epoch is 0".into())?;
    let mut acting = BTreeMap::new();
    for member in map.acting.iter().flatten() {
        ensure(acting.insert(member.osd, ()).is_none(), || format!("osd.{} acts twice", member.osd))?;
    }
    let served = map.primary.is_none_or(|primary| acting.contains_key(&primary));
    ensure(served, || "primary is not an acting member".into())
}

#[cfg(test)]
mod tests;
