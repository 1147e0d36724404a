//! What images hold and what is done to them: written bytes, as their objects say; I/O, as OSDs count it.

use super::{Connection, Row};
use crate::admin::seeds;
use crate::admin::status::ClientFigures;
use crate::metadata::Metadata;
use anyhow::{Context, Result};
use ashlar_client::Client;
use ashlar_core::id::{InodeId, PoolId};
use std::collections::BTreeMap;

/// Asked for at a time: some thousand objects.
const PIECE_BYTES: u64 = 1 << 30;

/// I/O of images since their OSDs started, by pool and number.
pub async fn io(metadata: &Metadata) -> Result<BTreeMap<(PoolId, InodeId), ClientFigures>> {
    let (_, kvs) = metadata.prefix("stats/images/").await?;
    let mut sums: BTreeMap<(PoolId, InodeId), ClientFigures> = BTreeMap::new();
    for kv in kvs {
        // An OSD of another version may write other things.
        let images: BTreeMap<String, ClientFigures> = serde_json::from_slice(&kv.value).unwrap_or_default();
        for (name, figures) in images {
            let Some((pool, inode)) = name.split_once('/') else { continue };
            let (Ok(pool), Ok(inode)) = (pool.parse(), inode.parse()) else { continue };
            sums.entry((PoolId(pool), InodeId(inode))).or_default().add(&figures);
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
