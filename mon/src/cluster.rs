//! The cluster that a metadata store belongs to: `config/global`, found, created or waited for.

use anyhow::{Context, anyhow};
use ashlar_core::id::ClusterUuid;
use ashlar_core::map::parse::{Key, Value, parse_value};
use ashlar_core::map::{Global, keys};
use ashlar_core::meta::{Compare, KeyValue, Txn, TxnOp};
use ashlar_runtime::meta::{Client, RequestError};
use ashlar_runtime::os;
use std::time::Duration;

/// How often a store that has no cluster yet is asked again: an administrator is about to create it.
const POLL: Duration = Duration::from_millis(300);

/// The settings of the cluster. Without any: creates it if told to, else waits until somebody does.
pub async fn settings(client: &Client, bootstrap: bool) -> anyhow::Result<Global> {
    let mut told = Told::Nothing;
    loop {
        match client.get(&keys::global()).await {
            Ok(Some(found)) => return parse(&found),
            Ok(None) if bootstrap => create(client).await?,
            Ok(None) => told.say(Told::NoCluster, || {
                tracing::warn!("the metadata store has no cluster yet: waiting for `ashlar init` (or use --bootstrap)");
            }),
            Err(RequestError::Refused(reason)) => return Err(anyhow!("reading {}: {reason}", keys::global())),
            Err(error) => told.say(Told::Unreachable, || tracing::warn!("{error}: trying again")),
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What was said last, so that a long wait does not fill the log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    NoCluster,
    Unreachable,
}

impl Told {
    fn say(&mut self, what: Told, log: impl FnOnce()) {
        if *self != what {
            *self = what;
            log();
        }
    }
}

fn parse(found: &KeyValue) -> anyhow::Result<Global> {
    match parse_value(Key::Global, &found.key, &found.value) {
        Ok(Value::Global(global)) => Ok(global),
        Ok(other) => Err(anyhow!("{}: unexpected {other:?}", found.key)),
        Err(error) => Err(anyhow!("{error}")),
    }
}

/// Gives the cluster a name, unless somebody else was faster. Whether it happened shows when it is read next.
async fn create(client: &Client) -> anyhow::Result<()> {
    let half = || os::random_u64().context("reading the system's randomness");
    let cluster = ClusterUuid(u128::from(half()?) << 64 | u128::from(half()?));
    let value = serde_json::json!({ "cluster": String::from(cluster) }).to_string().into_bytes();
    let key = keys::global();
    let compare = vec![Compare::ModRevision(key.clone(), 0)];
    let success = vec![TxnOp::Put { key, value, lease: 0 }];
    match client.txn(Txn { compare, success, failure: Vec::new() }).await {
        Ok((true, _)) => tracing::info!("created cluster {cluster}"),
        Ok((false, _)) | Err(RequestError::Unknown(_) | RequestError::Unavailable(_)) => {}
        Err(RequestError::Refused(reason)) => return Err(anyhow!("creating the cluster: {reason}")),
    }
    Ok(())
}
