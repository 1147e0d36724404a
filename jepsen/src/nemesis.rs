//! Who breaks things, while others work.

use crate::cluster::{Cluster, signal};
use anyhow::{Context, Result};
use ashlar_core::rng::Rng;
use nix::sys::signal::Signal;
use std::time::Duration;

/// Kills a random OSD with SIGKILL every `period`, so many times; the supervisor starts it again.
pub fn kill_osds(cluster: &Cluster, rng: &mut Rng, period: Duration, kills: u32) -> Result<()> {
    for _ in 0..kills {
        std::thread::sleep(period);
        let osds = cluster.osds()?;
        let victim = &osds[usize::try_from(rng.below(osds.len() as u64))?];
        eprintln!("  kill -9 {}", victim.name);
        signal(victim.pid, Signal::SIGKILL);
    }
    Ok(())
}

/// Stops the OSD that serves most groups for a while, with all its connections open.
pub fn pause_primary(cluster: &Cluster, pause: Duration) -> Result<()> {
    let list = cluster.admin(&["osd", "list"])?;
    let groups = |osd: &&serde_json::Value| osd["primary_pgs"].as_u64();
    let busiest = list.as_array().into_iter().flatten().max_by_key(groups).context("there are OSDs")?;
    let name = format!("osd-{}", busiest["id"]);
    let osds = cluster.osds()?;
    let victim = osds.iter().find(|osd| osd.name == name).with_context(|| format!("{name} runs"))?;
    eprintln!("  SIGSTOP {name}, primary of {} groups, for {} s", busiest["primary_pgs"], pause.as_secs());
    signal(victim.pid, Signal::SIGSTOP);
    std::thread::sleep(pause);
    signal(victim.pid, Signal::SIGCONT);
    Ok(())
}
