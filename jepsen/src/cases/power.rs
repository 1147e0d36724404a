//! Power cuts that empty the caches of disks.

use super::Scale;
use crate::cluster::Cluster;
use crate::disks::{Disks, are_possible};
use crate::scratch::Scratch;
use crate::writers::{Promise, Writers};
use anyhow::{Result, bail, ensure};
use std::time::{Duration, Instant};

const NOT_HERE: &str = "SKIPPED: needs root, /dev/fuse, nbdkit and nbdfuse";
/// How long is written between two cuts.
const BETWEEN_CUTS: Duration = Duration::from_secs(3);
/// For a cluster to become whole.
const CLEAN_LIMIT: Duration = Duration::from_secs(120);

/// Cuts power of a pool that promises everything.
pub fn blackout(scale: Scale) -> Result<String> {
    cuts(scale, "all", Promise::All)
}

/// Cuts power of pools that promise small writes, or nothing, before a flush.
pub fn lazy(scale: Scale) -> Result<String> {
    let caught = caught(scale)?;
    let (none, small) = (cuts(scale, "none", Promise::None)?, cuts(scale, "small", Promise::Small)?);
    Ok(format!("none: {none}; small: {small}; {caught}"))
}

/// A pool that promises nothing and is held to everything: that must show, or the cuts cut nothing.
fn caught(scale: Scale) -> Result<String> {
    if !scale.pool.starts_with("replicated") {
        return Ok("chunks are always durable when they are acknowledged".into());
    }
    if !are_possible() {
        return Ok(NOT_HERE.into());
    }
    let scratch = Scratch::new("caught")?;
    Cluster::start(&scratch, &["--pool", scale.pool, "--size", "256M", "--immediate-commit", "none"])?.stop()?;
    let mut disks = Disks::under(&scratch)?;
    let outcome =
        blackouts(scale, &scratch, &mut disks, Writers::new(Promise::All).without_flushes()).and_then(|mut writers| {
            let cluster = Cluster::start(&scratch, &[])?;
            writers.check(&cluster)
        });
    match outcome {
        Err(error) if format!("{error:#}").contains("allowed are the writes") => {
            Ok("a pool that broke a promise was caught".into())
        }
        Err(error) => Err(error.context("another error than a broken promise")),
        Ok(()) => bail!("a pool that promises nothing lost nothing in {} power cuts", scale.cycles),
    }
}

fn cuts(scale: Scale, immediate_commit: &str, promise: Promise) -> Result<String> {
    // Each kind of cut takes its time: half of what other cases do.
    let scale = Scale { cycles: scale.cycles / 2, kills: scale.kills / 2, ..scale };
    if !are_possible() {
        return Ok(NOT_HERE.into());
    }
    let scratch = Scratch::new(immediate_commit)?;
    let choices = ["--pool", scale.pool, "--size", "256M", "--immediate-commit", immediate_commit];
    Cluster::start(&scratch, &choices)?.stop()?;
    let mut disks = Disks::under(&scratch)?;
    let writers = blackouts(scale, &scratch, &mut disks, Writers::new(promise))?;
    let mut writers = cuts_under_a_client(scale, &scratch, &mut disks, writers)?;
    let cluster = Cluster::start(&scratch, &[])?;
    cluster.wait_clean(CLEAN_LIMIT)?;
    writers.check(&cluster)?;
    ensure!(writers.durable() > 0, "nothing was durable before the power went");
    Ok(format!(
        "{} cuts of everything, {} of one OSD and {} of all under a client that lived: {} blocks as promised",
        scale.cycles,
        scale.kills,
        scale.kills,
        writers.durable()
    ))
}

/// Everything goes, clients too: what was durable is there.
fn blackouts(scale: Scale, scratch: &Scratch, disks: &mut Disks, mut writers: Writers) -> Result<Writers> {
    for cycle in 0..scale.cycles {
        let cluster = Cluster::start(scratch, &[])?;
        writers.check(&cluster)?;
        let running = writers.start(&cluster.socket(), true);
        std::thread::sleep(BETWEEN_CUTS);
        eprintln!("  power cut {} of everything", cycle + 1);
        cluster.kill_everything()?;
        disks.power_off();
        disks.power_on()?;
        writers = running.join()?;
    }
    Ok(writers)
}

/// One OSD after the other loses its power, then all at the same moment, while clients live: they lose nothing that was
/// acknowledged, durable or not, for they send again what was not.
fn cuts_under_a_client(scale: Scale, scratch: &Scratch, disks: &mut Disks, mut writers: Writers) -> Result<Writers> {
    let cluster = Cluster::start(scratch, &["--restart=0.5"])?;
    writers.check(&cluster)?;
    let all: Vec<String> = cluster.osds()?.into_iter().map(|process| process.name).collect();
    for cut in 0..scale.kills as usize {
        let running = writers.start(&cluster.socket(), false);
        std::thread::sleep(BETWEEN_CUTS);
        let victim = &all[cut % all.len()];
        eprintln!("  power cut of {victim}");
        disks.cycle(&cluster, std::slice::from_ref(victim))?;
        cluster.wait_clean(CLEAN_LIMIT)?;
        eprintln!("  power cut of all OSDs");
        disks.cycle(&cluster, &all)?;
        wait_for(&cluster, all.len())?;
        cluster.wait_clean(CLEAN_LIMIT)?;
        writers = running.stop()?;
        writers.check(&cluster)?;
    }
    cluster.stop()?;
    Ok(writers)
}

fn wait_for(cluster: &Cluster, osds: usize) -> Result<()> {
    let deadline = Instant::now() + CLEAN_LIMIT;
    while cluster.osds()?.len() < osds {
        ensure!(Instant::now() < deadline, "OSDs do not come back\n{}", cluster.logs());
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
