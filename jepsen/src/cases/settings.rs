//! Parameters that change while the cluster works, and refusals of those that cannot.

use super::Scale;
use crate::cluster::{Cluster, signal};
use crate::nbd::Nbd;
use crate::registers::BLOCK_BYTES;
use crate::scratch::Scratch;
use crate::tools;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(120);

/// Commands that must be refused, and a part of the reason.
const REFUSALS: &[(&[&str], &str)] = &[
    (&["pool", "modify", "main", "--failure-domain", "rack"], "there is no level 'rack'"),
    (&["pool", "modify", "main", "--pg-minsize", "4"], "pg_minsize is 4"),
    (&["pool", "modify", "main", "--pg-minsize", "0"], "pg_minsize is 0"),
    (&["pool", "modify", "main", "--scheme", "replicated:5"], "has 5 members"),
    (&["pool", "modify", "main", "--scheme", "xor:2+1"], "scheme cannot change"),
    (&["pool", "modify", "main", "--block-size", "64K"], "block_size cannot change"),
    (&["pool", "modify", "main", "--scrub-interval", "999999999"], "scrub_interval_s is 999999999"),
    (&["pool", "modify", "main", "--immediate-commit", "most"], "not one of all, small and none"),
    (&["pool", "modify", "nowhere", "--rename", "x"], "no pool 'nowhere'"),
    (&["pool", "create", "wide", "--scheme", "ec:4+2"], "has 6 members"),
    (&["pool", "create", "main"], "name 'main' already"),
    (&["pool", "create", "a/b"], "'/'"),
    (&["image", "create", "main/demo", "--size", "1M"], "exists already"),
    (&["image", "create", "demo2", "--size", "1M"], "POOL/NAME"),
    (&["image", "create", "main/odd", "--size", "1000"], "whole number of sectors"),
    (&["image", "remove", "main/nothing"], "no image 'main/nothing'"),
    (&["image", "rename", "main/demo", "demo"], "is its name already"),
    (&["pool", "create", "stuck", "--max-osd-combinations", "0"], "max_osd_combinations is 0"),
    (&["pool", "create", "crowd", "--pg-count", "60000"], "at most 1000"),
    (&["placement", "node", "r2", "--level", "zzz"], "no level 'zzz'"),
    (&["placement", "levels", "osd=50"], "\"host\" has 100"),
    (&["placement", "what-if", "--lose", "99"], "no OSD 99"),
    (&["config", "set", "near_full_percent=99"], "is above recovery_full_percent"),
    (&["config", "set", "recovery_objects=0"], "recovery_objects is 0; use 1 to"),
    (&["config", "set", "lease_ms=5"], "lease_ms is 5"),
    (&["config", "set", "lease_ms=2000"], "heartbeat_timeout_ms (1000) is below lease_ms (2000)"),
    (&["config", "set", "nonsense=1"], "there is no setting 'nonsense'"),
    (&["osd", "reweight", "1", "2"], "reweight is 2; use 0 to 1"),
    (&["osd", "remove", "1"], "stop it first"),
    (&["pg", "scrub", "9/9"], "no group '9/9'"),
];

/// See the module.
pub fn run(scale: Scale) -> Result<String> {
    let scratch = Scratch::new("settings")?;
    let cluster = Cluster::start(&scratch, &["--size", "256M", "--osd-size", "2G", "--restart=3"])?;
    for (arguments, reason) in REFUSALS {
        match cluster.admin(arguments) {
            Ok(_) => bail!("`ashlar {}` was not refused", arguments.join(" ")),
            Err(error) => ensure!(error.to_string().contains(reason), "expected `{reason}` in: {error}"),
        }
    }
    under_load(&cluster, scale)?;
    let stall = minsize(&cluster)?;
    let scrubbed = interval(&cluster)?;
    Ok(format!(
        "{} refusals with their reasons; parameters changed under load; with pg_minsize 3 a write waited {stall:.1} s for \
         a member; {scrubbed}",
        REFUSALS.len()
    ))
}

/// Every change that is possible while fio verifies.
fn under_load(cluster: &Cluster, scale: Scale) -> Result<()> {
    let changes: &[&[&str]] = &[
        &["pool", "modify", "main", "--failure-domain", "osd"],
        &["pool", "modify", "main", "--failure-domain", "host"],
        &["pool", "modify", "main", "--immediate-commit", "none"],
        &["pool", "modify", "main", "--immediate-commit", "small"],
        &["pool", "modify", "main", "--immediate-commit", "all"],
        &["pool", "modify", "main", "--rename", "other"],
        &["pool", "modify", "other", "--rename", "main"],
        &["config", "set", "recovery_objects=2", "recovery_latency_percent=120"],
        &["config", "set", "lease_ms=200", "heartbeat_timeout_ms=800"],
        &["config", "reset", "lease_ms", "heartbeat_timeout_ms"],
        &["placement", "what-if", "--lose", "1", "--add", "h9:4G", "--reweight", "2=0.5"],
        &["osd", "reweight", "1", "0.2"],
        &["osd", "reweight", "1", "1"],
        &["config", "reset", "recovery_objects", "recovery_latency_percent"],
    ];
    std::thread::scope(|scope| {
        let seconds = scale.fio_s + changes.len() as u64;
        let load = scope.spawn(move || tools::fio(cluster.nbd(), seconds));
        let changed = changes.iter().try_for_each(|change| {
            std::thread::sleep(Duration::from_millis(800));
            cluster.admin(change).map(drop)
        });
        let load = load.join().expect("fio's thread does not panic");
        changed.and(load.map(drop)).with_context(|| cluster.logs())
    })?;
    cluster.wait_clean(LIMIT)
}

/// With `pg_minsize` of all members, nothing goes on without one of them, and then everything does.
fn minsize(cluster: &Cluster) -> Result<f64> {
    cluster.admin(&["pool", "modify", "main", "--pg-minsize", "3"])?;
    cluster.wait_clean(LIMIT)?;
    let mut nbd = Nbd::connect(&cluster.socket(), "demo", LIMIT)?;
    signal(cluster.osds()?.first().context("OSDs run")?.pid, Signal::SIGKILL);
    let start = Instant::now();
    // So many objects that each OSD has some.
    for object in 0..64u64 {
        nbd.write(object << 20, &[8; BLOCK_BYTES])?;
    }
    let stall = start.elapsed().as_secs_f64();
    ensure!(stall > 1.5, "writes went on with two of three members after {stall} s");
    cluster.admin(&["pool", "modify", "main", "--pg-minsize", "2"])?;
    cluster.wait_clean(LIMIT)?;
    Ok(stall)
}

/// A short `scrub_interval` has groups scrubbed unasked.
fn interval(cluster: &Cluster) -> Result<String> {
    let scrubbing = |cluster: &Cluster| -> Result<bool> {
        let groups = cluster.admin(&["pg", "list"])?;
        Ok(groups.as_array().into_iter().flatten().any(|group| group["summary"]["scrub"]["running"] == true))
    };
    cluster.admin(&["pool", "modify", "main", "--scrub-interval", "1"])?;
    let start = Instant::now();
    while !scrubbing(cluster)? {
        ensure!(start.elapsed() < LIMIT, "no group is scrubbed although the interval is a second");
    }
    let begun = start.elapsed().as_secs_f64();
    cluster.admin(&["pool", "modify", "main", "--scrub-interval", "0"])?;
    cluster.wait_clean(LIMIT)?;
    Ok(format!("scrubs began {begun:.1} s after the interval was a second"))
}
