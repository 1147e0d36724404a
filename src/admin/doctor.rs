//! `ashlar doctor`: what costs data or time later, and can be seen now.
//!
//! Owns the verdicts. Does not own the looks: [`machine`] at the kernel's word on devices, clocks and networks, [`claims`] at
//! what operators vouch for beside that, [`cluster`] at pools, OSDs and the metadata store.

mod claims;
mod cluster;
mod machine;

use super::Connection;
use crate::output;
use anyhow::{Result, bail};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Devices or files of OSDs on this machine; by default those of OSDs that run, and of the cluster of `ashlar up`.
    devices: Vec<PathBuf>,
    /// Look at this machine only, not at a cluster.
    #[arg(long)]
    no_cluster: bool,
    #[command(flatten)]
    connection: Connection,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Good,
    /// Works, with a cost or a risk that somebody should have chosen.
    Warn,
    /// Data or service are at stake.
    Bad,
}

/// One look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    level: Level,
    /// What was looked at.
    about: String,
    /// What was found, and what to do if that is not good.
    text: String,
}

impl Finding {
    fn new(level: Level, about: impl Into<String>, text: impl Into<String>) -> Finding {
        Finding { level, about: about.into(), text: text.into() }
    }
}

/// Looks at everything; an error if anything is bad.
pub async fn run(args: Args) -> Result<()> {
    let directory = args.connection.cluster_directory();
    let root = Path::new("/");
    let running = claims::running(root);
    let mut devices = args.devices.clone();
    if devices.is_empty() {
        devices = files_in(directory.as_deref());
        let others = running.iter().map(|claim| &claim.path);
        let others: Vec<PathBuf> =
            others.filter(|path| !devices.iter().any(|known| claims::is_same(known, path))).cloned().collect();
        devices.extend(others);
    }
    let mut findings = machine::findings(root);
    for device in &devices {
        // One that cannot be looked at does not hide what the others are like.
        let bad =
            |error: anyhow::Error| vec![Finding::new(Level::Bad, device.display().to_string(), format!("{error:#}"))];
        let claim = running.iter().find(|claim| claims::is_same(&claim.path, device)).cloned();
        let claim = claim.or_else(|| claims::configured(device));
        findings.extend(machine::device(root, device, claim.as_ref()).unwrap_or_else(bad));
    }
    if !args.no_cluster {
        findings.extend(cluster::findings(&args.connection.open().await?).await?);
    }
    args.connection.output().print(&findings, |findings| {
        let mut table = output::table(["", "WHAT", "FINDING"]);
        for finding in findings {
            let mark = match finding.level {
                Level::Good => "good",
                Level::Warn => "WARN",
                Level::Bad => "BAD",
            };
            table.add_row([mark, &finding.about, &finding.text]);
        }
        table.to_string()
    })?;
    match findings.iter().filter(|finding| finding.level == Level::Bad).count() {
        0 => Ok(()),
        bad => bail!("{bad} findings are bad"),
    }
}

/// The files of a cluster's OSDs.
fn files_in(directory: Option<&Path>) -> Vec<PathBuf> {
    let entries = directory.and_then(|path| std::fs::read_dir(path).ok()).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "img"));
    files.sort();
    files
}
