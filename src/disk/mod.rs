//! `ashlar disk`: stores on devices that no OSD has open: build, look at, verify, read out.
//!
//! Owns: the commands and their output. Does not own: the format and how a store is opened (core), which devices are in
//! use (runtime). Nothing but `prepare` and `check --repair` writes to a device.

mod check;
mod offline;
mod prepare;
#[cfg(test)]
mod tests;

use crate::output::{self, Output};
use crate::size;
use anyhow::{Context, Result, bail};
use ashlar_core::id::{CopyId, Epoch, InodeId, ObjectId, PoolId, Role, Version};
use ashlar_core::store::{Content, StoreReply, StoreState};
use clap::Subcommand;
use offline::{Access, Offline};
pub use prepare::refuse_what_is_taken;
use serde::Serialize;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Commands about stores.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build an empty store on a file, a partition or a whole device.
    Prepare(prepare::Args),
    /// Say what store is on a device, how full it is, and how its log stands.
    Inspect(Inspect),
    /// Read and verify all of a store: metadata, one owner for each block, checksums.
    Check(check::Args),
    /// Write out one copy of an object.
    Dump(Dump),
}

/// Which store.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// The file or device with the data.
    path: PathBuf,
    /// The device with the log, if it has one of its own.
    #[arg(long, value_name = "PATH")]
    log: Option<PathBuf>,
}

/// Arguments of `disk inspect`.
#[derive(Debug, clap::Args)]
pub struct Inspect {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

/// Arguments of `disk dump`.
#[derive(Debug, clap::Args)]
#[command(disable_version_flag = true)]
pub struct Dump {
    #[command(flatten)]
    place: Place,
    /// Number of the pool.
    #[arg(long)]
    pool: u32,
    /// Number of the image.
    #[arg(long)]
    inode: u64,
    /// Index of the object in the image: byte offset divided by the object size.
    #[arg(long)]
    stripe: u64,
    /// Role of the copy: 0 in replicated pools, the number of the chunk in others.
    #[arg(long, default_value_t = 0)]
    role: u8,
    /// The version, as EPOCH.SEQ; default: the newest, prepared ones included.
    #[arg(long, value_parser = version)]
    version: Option<Version>,
    /// Where to: a file that does not exist yet; default: standard output.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Write over the file, if it exists; never over a device or a store.
    #[arg(long, requires = "to")]
    force: bool,
}

/// What `disk inspect` prints.
#[derive(Serialize)]
struct Report {
    store: String,
    cluster: String,
    osd: u32,
    block_bytes: u32,
    log_segments: u32,
    log_segment_bytes: u32,
    separate_log: bool,
    trusted: bool,
    clean: bool,
    objects: u64,
    tombstones: u64,
    total_bytes: u64,
    free_bytes: u64,
    reserved_bytes: u64,
    log_used_bytes: u64,
    log_total_bytes: u64,
}

/// Runs a command.
pub fn run(command: Command) -> Result<()> {
    match command {
        Command::Prepare(args) => prepare::run(&args),
        Command::Inspect(args) => inspect(&args),
        Command::Check(args) => check::run(&args),
        Command::Dump(args) => dump(&args),
    }
}

fn inspect(args: &Inspect) -> Result<()> {
    let offline = Offline::open(&args.place, Access::Read)?;
    let (layout, stats) = (offline.layout, offline.stats());
    let report = Report {
        store: layout.store.to_string(),
        cluster: layout.cluster.to_string(),
        osd: layout.osd.0,
        block_bytes: layout.block_size,
        log_segments: layout.segments,
        log_segment_bytes: layout.segment_size,
        separate_log: layout.separate_log,
        trusted: offline.state() == StoreState::Open { trusted: true },
        clean: offline.withheld() == 0,
        objects: stats.objects,
        tombstones: stats.tombstones,
        total_bytes: stats.total_bytes,
        free_bytes: stats.free_bytes,
        reserved_bytes: stats.reserved_bytes,
        log_used_bytes: stats.log_used_bytes,
        log_total_bytes: stats.log_total_bytes,
    };
    args.output.print(&report, text)
}

fn text(report: &Report) -> String {
    let mut table = output::table(["", ""]);
    let mut line = |name: &str, value: String| {
        table.add_row([name.to_string(), value]);
    };
    line("store", report.store.clone());
    line("cluster", report.cluster.clone());
    line("osd", report.osd.to_string());
    line("blocks", format!("of {}", size::human(report.block_bytes.into())));
    line("log", if report.separate_log { "on its own device".into() } else { "before the data".into() });
    let segments = format!("{} of {}", report.log_segments, size::human(report.log_segment_bytes.into()));
    line("log segments", segments);
    let used = |used: u64, total: u64| format!("{} of {}", size::human(used), size::human(total));
    line("log used", used(report.log_used_bytes, report.log_total_bytes));
    line("data used", {
        let rest = report.total_bytes - report.free_bytes;
        used(rest.saturating_sub(report.reserved_bytes), report.total_bytes)
    });
    line("kept free", format!("{} for replacing what is there", size::human(report.reserved_bytes)));
    line("objects", report.objects.to_string());
    line("tombstones", report.tombstones.to_string());
    line("metadata", if report.trusted { "whole".into() } else { "a part is LOST".into() });
    let end = if report.clean {
        "in good order, or with nothing to make void"
    } else {
        "a crash: opening has verdicts to record"
    };
    line("last end", end.into());
    table.to_string()
}

fn dump(args: &Dump) -> Result<()> {
    let mut offline = Offline::open(&args.place, Access::Read)?;
    let object = ObjectId { pool: PoolId(args.pool), inode: InodeId(args.inode), stripe: args.stripe };
    let copy = CopyId { object, role: Role(args.role) };
    let reply = offline.read_all(copy, args.version).with_context(|| format!("cannot read {copy:?}"))?;
    let StoreReply::Whole { version, content, .. } = reply else {
        bail!("{copy:?}: the store answered something else than a whole copy; report this")
    };
    let Content::Data { data, .. } = content else { bail!("{copy:?} is deleted, by version {version}") };
    let written = match &args.to {
        Some(path) => destination(path, args.force)?
            .write_all(data.buf.bytes())
            .with_context(|| format!("cannot write {}", path.display())),
        None => std::io::stdout().write_all(data.buf.bytes()).context("cannot write to standard output"),
    };
    eprintln!("{copy:?}, version {version}: {} bytes", data.len());
    written
}

/// The file to write to: a new one, or one that may be written over, which a store or a device never may.
fn destination(path: &Path, force: bool) -> Result<File> {
    let name = path.display();
    let refusal = match File::create_new(path) {
        Ok(file) => return Ok(file),
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        Err(_) => std::fs::metadata(path),
    };
    let metadata = refusal.with_context(|| format!("cannot create {name}"))?;
    if !metadata.is_file() {
        bail!("{name} is not a regular file; name a file that does not exist yet");
    }
    if prepare::holds_store(path)? {
        bail!("{name} is a store, which is never written over so; name a file that does not exist yet");
    }
    if !force {
        bail!("{name} exists; --force writes over it");
    }
    File::create(path).with_context(|| format!("cannot write {name}"))
}

/// `EPOCH.SEQ`.
fn version(text: &str) -> Result<Version, String> {
    let parts = text.split_once('.').and_then(|(epoch, seq)| Some((epoch.parse().ok()?, seq.parse().ok()?)));
    let (epoch, seq) = parts.ok_or_else(|| format!("'{text}' is not a version; write EPOCH.SEQ, such as 3.17"))?;
    Ok(Version { epoch: Epoch(epoch), seq })
}
