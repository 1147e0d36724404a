//! The metadata store as administration needs it.

use anyhow::{Context, Result};
use ashlar_core::id::{PgId, PgNumber, PoolId};
use ashlar_core::map::{ClusterMap, PREFIX};
use ashlar_core::meta::{Compare, KeyValue, Txn, TxnOp};
use ashlar_core::pg::Summary;
use ashlar_runtime::meta::{Access, Client, Endpoints};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// A connection to the metadata store.
pub struct Metadata {
    client: Client,
    addresses: String,
}

impl Metadata {
    /// Connects when it is first used.
    pub async fn connect(addresses: &[String], access: &Access) -> Result<Metadata> {
        let addresses = addresses.join(",");
        let client = Client::open(&Endpoints::with_access(&addresses, access)?).await;
        Ok(Metadata { client, addresses })
    }

    /// One key.
    pub async fn get(&self, key: &str) -> Result<Option<KeyValue>> {
        self.client.get(key).await.with_context(|| format!("reading {key} at {}", self.addresses))
    }

    /// All keys that begin with `/ashlar/` and `part`.
    pub async fn prefix(&self, part: &str) -> Result<(u64, Vec<KeyValue>)> {
        let prefix = format!("{PREFIX}{part}");
        self.client.get_prefix(&prefix).await.with_context(|| format!("reading {prefix}... at {}", self.addresses))
    }

    /// Does all of `operations` if the compares hold; whether they did.
    pub async fn transact(&self, compare: Vec<Compare>, operations: Vec<TxnOp>) -> Result<bool> {
        let txn = Txn { compare, success: operations, failure: Vec::new() };
        let (done, _) =
            self.client.txn(txn).await.with_context(|| format!("changing the metadata at {}", self.addresses))?;
        Ok(done)
    }

    /// Sets keys if the compares hold; whether they did.
    pub async fn put_all_if(&self, compare: Vec<Compare>, puts: Vec<(String, Vec<u8>)>) -> Result<bool> {
        let puts = puts.into_iter().map(|(key, value)| TxnOp::Put { key, value, lease: 0 });
        self.transact(compare, puts.collect()).await
    }

    /// Sets a key if the compares hold; whether they did.
    pub async fn put_if(&self, compare: Vec<Compare>, key: &str, value: Vec<u8>) -> Result<bool> {
        self.put_all_if(compare, vec![(key.into(), value)]).await
    }

    /// The cluster map of this moment.
    pub async fn map(&self) -> Result<ClusterMap> {
        let (revision, kvs) = self.prefix("").await?;
        let mut map = ClusterMap::default();
        map.apply_range(&kvs, revision);
        Ok(map)
    }

    /// What primaries say of their groups.
    pub async fn group_states(&self) -> Result<BTreeMap<PgId, Summary>> {
        let (_, kvs) = self.prefix("pg/state/").await?;
        Ok(kvs.iter().filter_map(|kv| Some((group_of(&kv.key)?, serde_json::from_slice(&kv.value).ok()?))).collect())
    }

    /// What OSDs say of their work, by their numbers.
    pub async fn statistics<T: DeserializeOwned>(&self) -> Result<BTreeMap<u32, T>> {
        let (_, kvs) = self.prefix("stats/osd/").await?;
        let number = |key: &str| key.rsplit('/').next()?.parse().ok();
        Ok(kvs.iter().filter_map(|kv| Some((number(&kv.key)?, serde_json::from_slice(&kv.value).ok()?))).collect())
    }
}

/// The group that a key's last two parts name.
fn group_of(key: &str) -> Option<PgId> {
    let mut parts = key.rsplit('/');
    let (number, pool) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some(PgId { pool: PoolId(pool), number: PgNumber(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read_from_their_keys() {
        let pg = PgId { pool: PoolId(3), number: PgNumber(7) };
        assert_eq!(group_of(&ashlar_core::map::keys::pg_state(pg)), Some(pg));
        assert_eq!(group_of("/ashlar/pg/state/3/x"), None);
    }
}
