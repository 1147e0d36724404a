//! Which cluster this is.

use anyhow::{Context, bail};
use ashlar_core::id::ClusterUuid;
use ashlar_core::map::{Global, keys};
use ashlar_runtime::meta::{Client, Endpoints};
use std::time::Duration;

/// How often the metadata store is asked while it is away, or has no cluster yet.
const PERIOD: Duration = Duration::from_millis(100);

/// Waits until the metadata store says which cluster it holds.
pub fn wait_for(endpoints: &Endpoints) -> anyhow::Result<ClusterUuid> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
    runtime.block_on(ask(endpoints))
}

async fn ask(endpoints: &Endpoints) -> anyhow::Result<ClusterUuid> {
    let client = Client::open(endpoints).await;
    let mut told = String::new();
    loop {
        let trouble = match client.get(&keys::global()).await {
            Ok(Some(found)) => match serde_json::from_slice::<Global>(&found.value) {
                Ok(global) => return Ok(global.cluster),
                Err(error) => bail!("the metadata store's key {} makes no sense: {error}", keys::global()),
            },
            Ok(None) => "it has no cluster yet (`ashlar init` makes one)".to_owned(),
            Err(error) => error.to_string(),
        };
        if told != trouble {
            tracing::info!("waiting for the metadata store: {trouble}");
            told = trouble;
        }
        tokio::time::sleep(PERIOD).await;
    }
}
