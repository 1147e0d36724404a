//! `ashlar disk check`: reads everything of a store, and says what is wrong with it.

use super::Place;
use super::offline::{Access, Offline, SuperblockCopy};
use crate::output::Output;
use anyhow::{Result, bail};
use ashlar_core::io::Device;
use ashlar_core::store::{Content, CopyInfo, StoreReply, StoreState};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// Arguments of `disk check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// Mend what is safe to mend: a bad copy of the superblock is written anew from the good one, and what opening finds
    /// void after a crash is recorded. Damaged data are for the OSD to recover from other copies.
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    output: Output,
}

/// What was found.
#[derive(Default, Serialize)]
struct Findings {
    copies: usize,
    versions: usize,
    bytes: u64,
    /// Whether all metadata are there.
    trusted: bool,
    damaged: Vec<Damage>,
    superblocks: Vec<String>,
    /// Pages that opening has to write after a crash.
    verdicts: usize,
    repaired: Vec<String>,
}

/// A version that cannot be read whole.
#[derive(Serialize)]
struct Damage {
    copy: String,
    version: String,
    why: String,
}

impl Findings {
    /// Whether something is wrong that was not mended.
    fn is_bad(&self) -> bool {
        !self.trusted || !self.damaged.is_empty() || (!self.superblocks.is_empty() && self.repaired.is_empty())
    }
}

/// Checks, prints, and fails if something is wrong.
pub fn run(args: &Args) -> Result<()> {
    let mut offline = Offline::open(&args.place, if args.repair { Access::Write } else { Access::Read })?;
    // One owner for each block, sums that agree.
    offline.check();
    let mut findings = Findings {
        trusted: offline.state() == StoreState::Open { trusted: true },
        verdicts: offline.withheld(),
        ..Findings::default()
    };
    for SuperblockCopy { device, offset, error } in &offline.superblocks {
        let on = if *device == Device::Log { "log" } else { "data" };
        findings.superblocks.extend(error.iter().map(|error| format!("{on} device, byte {offset}: {error}")));
    }
    if args.repair && !findings.superblocks.is_empty() {
        let count = offline.repair_superblocks()?;
        findings.repaired.push(format!("{count} superblocks"));
    }
    read_everything(&mut offline, &mut findings);
    args.output.print(&findings, text)?;
    if findings.is_bad() {
        bail!("{} is not whole", args.place.path.display());
    }
    Ok(())
}

fn read_everything(offline: &mut Offline, findings: &mut Findings) {
    let copies = offline.copies();
    findings.copies = copies.len();
    let progress = ProgressBar::new(copies.len() as u64);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} copies, {eta} left");
    progress.set_style(style.expect("the template is sound"));
    for info in copies {
        check_copy(offline, &info, findings);
        progress.inc(1);
    }
    progress.finish_and_clear();
}

fn check_copy(offline: &mut Offline, info: &CopyInfo, findings: &mut Findings) {
    for version in info.committed.iter().chain(&info.prepared) {
        findings.versions += 1;
        match offline.read_all(info.copy, Some(version.version)) {
            Ok(StoreReply::Whole { content: Content::Data { data, .. }, .. }) => {
                findings.bytes += u64::from(data.len());
            }
            Ok(_) => {}
            Err(error) => findings.damaged.push(Damage {
                copy: format!("{:?}", info.copy),
                version: version.version.to_string(),
                why: error.to_string(),
            }),
        }
    }
}

fn text(findings: &Findings) -> String {
    let mut lines = vec![format!(
        "{} copies, {} versions, {} of data read and verified",
        findings.copies,
        findings.versions,
        crate::size::human(findings.bytes)
    )];
    lines.extend(findings.superblocks.iter().map(|text| format!("superblock: {text}")));
    lines.extend(findings.damaged.iter().map(|damage| format!("{} {}: {}", damage.copy, damage.version, damage.why)));
    if !findings.trusted {
        lines.push(
            "metadata are LOST: what is read is good, but newer versions and whole objects may be missing".into(),
        );
    }
    if findings.verdicts > 0 {
        lines.push("after a crash: the next opening records what it found void".into());
    }
    lines.extend(findings.repaired.iter().map(|what| format!("mended: {what}")));
    lines.push(if findings.is_bad() { "NOT whole".into() } else { "whole".into() });
    lines.join("\n")
}
