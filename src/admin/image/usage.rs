//! What images hold and what is done to them: written bytes, as their objects say; I/O, as OSDs count it.

use super::{Connection, Row};
use crate::admin::seeds;
use crate::metadata::Metadata;
use anyhow::{Context, Result};
use ashlar_client::Client;
use ashlar_core::id::{InodeId, OsdId, PoolId};
use ashlar_core::map::{PREFIX, keys};
use ashlar_core::meta::{Compare, KeyValue, Keys, TxnOp};
use ashlar_core::osd::ClientCounters;
use std::collections::BTreeMap;

/// Asked for at a time: some thousand objects.
const PIECE_BYTES: u64 = 1 << 30;

/// What OSDs had counted that were removed since.
fn former() -> String {
    format!("{PREFIX}stats/images/former")
}

type Figures = BTreeMap<String, ClientCounters>;

/// An OSD, or a tool, of another version may write other things.
fn figures(value: &[u8]) -> Figures {
    serde_json::from_slice(value).unwrap_or_default()
}

/// What keeps an OSD's counters when it is removed: added to those of others that were, of images that there are still, in
/// the transaction that deletes them.
pub async fn keep(metadata: &Metadata, osd: OsdId) -> Result<(Vec<Compare>, Vec<TxnOp>)> {
    let key = keys::image_stats(osd);
    let (own, sums) = (metadata.get(&key).await?, metadata.get(&former()).await?);
    let revision = |kv: &Option<KeyValue>| kv.as_ref().map_or(0, |kv| kv.mod_revision);
    let compare =
        vec![Compare::ModRevision(key.clone(), revision(&own)), Compare::ModRevision(former(), revision(&sums))];
    let mut operations = vec![TxnOp::Delete(Keys::One(key))];
    if let Some(own) = own {
        let map = metadata.map().await?;
        let exists = |name: &str| image_of(name).is_some_and(|(pool, inode)| map.image(pool, inode).is_some());
        let value = serde_json::to_vec(&added(sums.map(|kv| figures(&kv.value)), figures(&own.value), exists))?;
        operations.push(TxnOp::Put { key: former(), value, lease: 0 });
    }
    Ok((compare, operations))
}

fn added(sums: Option<Figures>, more: Figures, exists: impl Fn(&str) -> bool) -> Figures {
    let mut sums = sums.unwrap_or_default();
    for (name, figures) in more {
        sums.entry(name).or_default().add(&figures);
    }
    sums.retain(|name, _| exists(name));
    sums
}

/// `POOL/INODE`.
fn image_of(name: &str) -> Option<(PoolId, InodeId)> {
    let (pool, inode) = name.split_once('/')?;
    Some((PoolId(pool.parse().ok()?), InodeId(inode.parse().ok()?)))
}

/// I/O of images since they were made, as far as OSDs have told: by pool and number.
pub async fn io(metadata: &Metadata) -> Result<BTreeMap<(PoolId, InodeId), ClientCounters>> {
    let (_, kvs) = metadata.prefix("stats/images/").await?;
    let mut sums: BTreeMap<(PoolId, InodeId), ClientCounters> = BTreeMap::new();
    for kv in kvs {
        for (name, figures) in figures(&kv.value) {
            let Some(image) = image_of(&name) else { continue };
            sums.entry(image).or_default().add(&figures);
        }
    }
    Ok(sums)
}

/// Asks the cluster how much of each image was ever written.
pub async fn measure(connection: &Connection, rows: &mut [Row]) -> Result<()> {
    let client = Client::connect(seeds(&connection.open().await?.map().await?)?)?;
    for row in rows.iter_mut().filter(|row| !row.image.removing) {
        let name = format!("{}/{}", row.pool, row.image.name);
        let image = client.open(&name).await.with_context(|| format!("opening {name}"))?;
        let (mut offset, mut written) = (0, 0);
        while offset < image.size() {
            let len = PIECE_BYTES.min(image.size() - offset);
            let extents = image.block_status(offset, len).await.with_context(|| format!("asking for {name}"))?;
            written += extents.iter().filter(|extent| extent.written).map(|extent| extent.len).sum::<u64>();
            offset += len;
        }
        row.written_bytes = Some(written);
    }
    client.stop();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_removed_osds_counted_is_kept_of_images_that_exist() {
        let of = |bytes| ClientCounters { write_bytes: bytes, write_ops: 1, ..ClientCounters::default() };
        let figures = |all: &[(&str, u64)]| all.iter().map(|(name, bytes)| (name.to_string(), of(*bytes))).collect();
        let sums =
            added(Some(figures(&[("1/1", 5), ("1/9", 7)])), figures(&[("1/1", 3), ("1/2", 4)]), |name| name != "1/9");
        let bytes: Vec<_> = sums.iter().map(|(name, of)| (name.as_str(), of.write_bytes, of.write_ops)).collect();
        assert_eq!(bytes, [("1/1", 8, 2), ("1/2", 4, 1)]);
        assert_eq!(added(None, figures(&[("1/1", 3)]), |_| true)["1/1"].write_bytes, 3);
    }
}
