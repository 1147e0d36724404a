//! What makes a set of daemons a cluster with something to use: its identity, a pool, an image.
//!
//! Every step looks first and does only what is missing, so that the second start of a cluster passes through the same
//! steps as the first.

use super::layout::{Chosen, Running};
use crate::admin::redundancy::Redundancy;
use crate::admin::{image, init, pg, pool};
use crate::metadata::Metadata;
use anyhow::{Context, Result, bail};
use ashlar_core::map::{ClusterMap, Pool};
use ashlar_runtime::meta::Access;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// The pool that `up` makes.
pub const POOL: &str = "main";
/// The image that `up` makes.
pub const IMAGE: &str = "demo";
/// How often a state is looked at while we wait for it.
const POLL: Duration = Duration::from_millis(20);
/// How long a step may take: above any recovery of logs at start, below a person's patience.
const STEP_LIMIT: Duration = Duration::from_secs(60);

/// Goes through all steps; `expected` says how many OSDs can come up.
pub async fn found(running: &Running, chosen: &Chosen, expected: impl Fn() -> u64) -> Result<()> {
    let metadata = Metadata::connect(std::slice::from_ref(&running.meta), &Access::default()).await?;
    let address = running.meta.trim_start_matches("http://");
    reachable(address).await.context("the metadata store does not answer; see log/mon.log")?;
    init::ensure(&metadata, Some(chosen.cluster))
        .await
        .context("mon/ holds another cluster's metadata; name another --dir")?;
    until("all OSDs are up", &metadata, |map| map.osd_states().count() as u64 >= expected()).await?;
    let redundancy = Redundancy::from_str(&chosen.pool).map_err(anyhow::Error::msg)?;
    let map = metadata.map().await?;
    if !map.pools().any(|(_, pool)| pool.name == POOL) {
        let pool = Pool { immediate_commit: chosen.immediate_commit, ..redundancy.pool(POOL, chosen.osds) };
        pool::create(&metadata, &pool).await?;
    }
    if !map.images().any(|(_, _, image)| image.name == IMAGE) {
        image::create(&metadata, POOL, IMAGE, chosen.image_bytes).await?;
    }
    active(&metadata).await
}

/// Waits until somebody listens at an address.
pub async fn reachable(address: &str) -> Result<()> {
    let deadline = Instant::now() + STEP_LIMIT;
    while let Err(error) = tokio::net::TcpStream::connect(address).await {
        if Instant::now() > deadline {
            bail!("nobody listens at {address} after {} s: {error}", STEP_LIMIT.as_secs());
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

async fn until(what: &str, metadata: &Metadata, done: impl Fn(&ClusterMap) -> bool) -> Result<()> {
    let deadline = Instant::now() + STEP_LIMIT;
    while !done(&metadata.map().await?) {
        if Instant::now() > deadline {
            bail!("waited {} s until {what}; see the logs in log/", STEP_LIMIT.as_secs());
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Waits until every group of the pool serves.
async fn active(metadata: &Metadata) -> Result<()> {
    let deadline = Instant::now() + STEP_LIMIT;
    loop {
        let map = metadata.map().await?;
        let wanted = map.pools().find(|(_, pool)| pool.name == POOL).map_or(0, |(_, pool)| pool.pg_count as usize);
        let rows = pg::rows(&map, &metadata.group_states().await?);
        let active =
            rows.iter().filter(|row| row.summary.as_ref().is_some_and(|summary| summary.state == "active")).count();
        if wanted > 0 && active >= wanted {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(
                "only {active} of {wanted} placement groups are active after {} s; `ashlar pg list --unclean` says why",
                STEP_LIMIT.as_secs()
            );
        }
        tokio::time::sleep(POLL).await;
    }
}
