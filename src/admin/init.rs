//! `ashlar init`: the identity of a new cluster.

use super::Connection;
use crate::metadata::Metadata;
use anyhow::{Context, Result, bail};
use ashlar_core::id::ClusterUuid;
use ashlar_core::map::{Global, keys};
use ashlar_core::meta::Compare;
use ashlar_runtime::meta::RequestError;
use std::time::{Duration, Instant};

/// How long a store that only just starts may take: three members that elect a leader need a second or two.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(200);

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// UUID of the cluster; drawn at random by default.
    #[arg(long)]
    cluster: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// Makes a cluster, unless there is one.
pub async fn run(args: Args) -> Result<()> {
    let wanted = args.cluster.clone().map(ClusterUuid::try_from).transpose().map_err(anyhow::Error::msg)?;
    let metadata = args.connection.open().await?;
    await_answer(&metadata).await?;
    let cluster = ensure(&metadata, wanted).await?;
    args.connection.output().print(&serde_json::json!({ "cluster": cluster }), |_| format!("cluster {cluster}"))
}

/// Waits for a store that only just starts. Nothing is written before it has answered: a read may be asked again, but of a write
/// without an answer nobody knows whether it was carried out.
async fn await_answer(metadata: &Metadata) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    let mut waits = false;
    while let Err(error) = metadata.get(&keys::global()).await {
        let may_start = matches!(error.downcast_ref(), Some(RequestError::Unavailable(_)));
        if !may_start || Instant::now() >= until {
            return Err(error);
        }
        if !std::mem::replace(&mut waits, true) {
            eprintln!("waiting for the metadata store, {} s at most: {error:#}", PATIENCE.as_secs());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// The identity of the store's cluster; it becomes `wanted` (or a random one) if it has none.
pub async fn ensure(metadata: &Metadata, wanted: Option<ClusterUuid>) -> Result<ClusterUuid> {
    let key = keys::global();
    let cluster = wanted.map_or_else(random, Ok)?;
    let text = serde_json::json!({ "cluster": cluster }).to_string();
    metadata.put_if(vec![Compare::ModRevision(key.clone(), 0)], &key, text.into_bytes()).await?;
    let stored =
        metadata.get(&key).await?.with_context(|| format!("{key} vanished while it was written; run this again"))?;
    let global: Global = serde_json::from_slice(&stored.value)
        .with_context(|| format!("{key} does not make sense; correct it with etcdctl"))?;
    match wanted {
        Some(wanted) if wanted != global.cluster => {
            bail!("the metadata store belongs to cluster {}, not to {wanted}", global.cluster)
        }
        _ => Ok(global.cluster),
    }
}

/// A new identity.
pub fn random() -> Result<ClusterUuid> {
    let half = || ashlar_runtime::os::random_u64().map(u128::from);
    Ok(ClusterUuid(half()? << 64 | half()?))
}
