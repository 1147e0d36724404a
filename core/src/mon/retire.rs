//! The end of a pool that is to go, as far as the leading monitor makes it: pure functions.
//!
//! Owns: when a pool is struck off, and what is deleted of it then; that locks end with their images. Does not own the removal of its images (`plan`, and the
//! groups' primaries), nor what OSDs still hold (`osd/sweep`).
//!
//! ```text
//!           marked `removing`       no image is left            struck off                keys of its groups are gone
//!  in use ------------------> going ----------------> recorded -----------> only its name --------------------------> end
//! ```
//! Invariants: a pool is in `config/former_pools` before it leaves `config/pools`, and stays there for ever, so that OSDs that
//! were away drop what they have of it, and no other pool gets its number; maps are deleted before histories, so that no
//! history is written after its deletion (each such transaction compares the map).

use super::plan::Write;
use crate::id::PoolId;
use crate::map::parse::Key;
use crate::map::{ClusterMap, PREFIX, Pools, keys};
use crate::meta::Keys;

/// What is to be written of pools that go, or are gone.
pub fn plan(map: &ClusterMap, writes: &mut Vec<Write>) {
    writes.extend(next_step(map));
    for pool in map.removed_pools() {
        deletions(map, pool, writes);
    }
    writes.extend(without_locks_of_nothing(map));
}

/// Locks end with their images. A lock is of an image that was there, so one that is not there, while its number was given
/// before, is gone.
fn without_locks_of_nothing(map: &ClusterMap) -> Option<Write> {
    let mut access = map.access()?.clone();
    let was_given = |pool, inode| map.last_inode(pool).is_some_and(|(last, _)| inode <= last);
    let is_there = |pool, inode| map.image(pool, inode).is_some() || map.is_refused(Key::Image(pool, inode));
    let is_gone = |pool, inode| map.is_removed(pool) || (was_given(pool, inode) && !is_there(pool, inode));
    let locks = || access.locks.iter().flat_map(|(pool, locks)| locks.keys().map(|inode| (*pool, *inode)));
    let gone: Vec<_> = locks().filter(|(pool, inode)| is_gone(*pool, *inode)).collect();
    gone.iter().for_each(|(pool, inode)| access.set_lock(*pool, *inode, None));
    if gone.is_empty() { None } else { put(map, Key::Access, keys::access(), to_json(&access)) }
}

/// Records one pool of which no image is left as a former one; strikes it off once that is recorded.
fn next_step(map: &ClusterMap) -> Option<Write> {
    let has_images = |id: PoolId| map.images().any(|(pool, ..)| pool == id);
    let (id, pool) = map.pools().find(|(id, pool)| pool.removing && !has_images(*id))?;
    let mut former = map.former_pools().cloned().unwrap_or_default();
    if former.0.insert(id, pool.name.clone()).is_none() {
        return put(map, Key::FormerPools, keys::former_pools(), to_json(&former));
    }
    let others = map.pools().filter(|(other, _)| *other != id).map(|(id, pool)| (id, pool.clone()));
    put(map, Key::Pools, keys::pools(), to_json(&Pools(others.collect())))
}

/// `None` if the present value makes no sense: then it is not known what it should say.
fn put(map: &ClusterMap, key: Key, name: String, value: Vec<u8>) -> Option<Write> {
    (!map.is_refused(key)).then(|| Write::new(name, key, Some(value), map.mod_revision(key)))
}

fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data has a JSON form")
}

/// Everything that is known of a pool's groups and images.
fn deletions(map: &ClusterMap, pool: PoolId, writes: &mut Vec<Write>) {
    let delete = |name: String, key: Key| Write::new(name, key, None, map.mod_revision(key));
    let chunks = map.pg_chunks().filter(|(of, ..)| *of == pool);
    writes.extend(chunks.map(|(_, chunk, _)| delete(keys::pg_map(pool, chunk), Key::PgMap(pool, chunk))));
    let histories = map.histories(pool).map(|(pg, _)| pg);
    writes.extend(histories.map(|pg| delete(keys::pg_history(pg), Key::History(pg))));
    writes.extend(map.scrub_orders(pool).map(|pg| delete(keys::scrub_order(pg), Key::ScrubOrder(pg))));
    let wishes = map.wishes().map(|(pg, ..)| pg).filter(|pg| pg.pool == pool);
    writes.extend(wishes.map(|pg| delete(keys::pg_wish(pg), Key::Wish(pg))));
    let images = map.images().filter(|(of, ..)| *of == pool);
    writes.extend(images.map(|(_, inode, _)| delete(keys::image(pool, inode), Key::Image(pool, inode))));
    if map.last_inode(pool).is_some() {
        writes.push(delete(keys::last_inode(pool), Key::LastInode(pool)));
    }
    // Last, and with it what nobody follows: what primaries said and noted.
    if map.layout(pool).is_some() {
        let of_pool = |part: &str| Keys::Prefix(format!("{PREFIX}pg/{part}/{pool}/"));
        let also = vec![of_pool("state"), of_pool("scrub")];
        writes.push(Write { also, ..delete(keys::layout(pool), Key::Layout(pool)) });
    }
}
