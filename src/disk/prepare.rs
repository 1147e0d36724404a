//! `ashlar disk prepare`: an empty store on a device that holds nothing that somebody may want.

use crate::size;
use anyhow::{Context, Result, bail};
use ashlar_core::id::{ClusterUuid, OsdId, StoreUuid};
use ashlar_core::store::log::Format;
use ashlar_osd::{Devices, Occupant, build, occupant};
use ashlar_runtime::os;
use ashlar_runtime::ring::DeviceFile;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Arguments of `disk prepare`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file or device for the data.
    path: PathBuf,
    /// A device of its own for the log.
    #[arg(long, value_name = "PATH")]
    log: Option<PathBuf>,
    /// Number of the OSD that it is for.
    #[arg(long, value_name = "N")]
    id: u32,
    /// The cluster that it is for, as `ashlar status` shows it.
    #[arg(long, value_name = "UUID", value_parser = cluster)]
    cluster: ClusterUuid,
    /// Create the file with this size, if it does not exist.
    #[arg(long, value_name = "BYTES", value_parser = size::parse)]
    size: Option<u64>,
    /// The largest block size of the pools that it is to serve.
    #[arg(long, value_name = "BYTES", default_value = "128K", value_parser = size::parse)]
    block_size: u64,
    /// Bytes of the log; default: 1 % of the data, more where objects are small.
    #[arg(long, value_name = "BYTES", value_parser = size::parse)]
    log_size: Option<u64>,
    /// Overwrite whatever is on the devices, for good.
    #[arg(long)]
    force: bool,
}

/// Builds the store.
pub fn run(args: &Args) -> Result<()> {
    let is_new = match args.size {
        Some(size) => DeviceFile::create(&args.path, size)?,
        None => false,
    };
    prepare(args, is_new).inspect_err(|_| {
        if is_new {
            // Best effort: the first error is the one to tell.
            let _ = std::fs::remove_file(&args.path);
        }
    })
}

fn prepare(args: &Args, is_new: bool) -> Result<()> {
    let data = DeviceFile::open(&args.path)?;
    refuse_other_size(args, &data)?;
    let log = args.log.as_deref().map(DeviceFile::open).transpose()?;
    for device in std::iter::once(&data).chain(&log) {
        refuse_what_is_taken(device, args.force)?;
    }
    let format = Format {
        cluster: args.cluster,
        osd: OsdId(args.id),
        store: StoreUuid(u128::from(os::random_u64()?) << 64 | u128::from(os::random_u64()?)),
        block_size: u32::try_from(args.block_size).context("--block-size is too large")?,
        data_bytes: data.size_bytes,
        log_device_bytes: log.as_ref().map(|log| log.size_bytes),
        log_bytes: args.log_size,
        segment_bytes: None,
    };
    build(&format, &Devices { data, log, is_new })?;
    println!("store {} for osd.{} on {}", format.store, args.id, args.path.display());
    Ok(())
}

/// A size that was asked for and is not that of the file is a slip.
fn refuse_other_size(args: &Args, data: &DeviceFile) -> Result<()> {
    match args.size {
        Some(size) if size / 4096 != data.size_bytes / 4096 => {
            bail!(
                "{} exists and has {} bytes, not {size}; leave --size out to take it as it is",
                data.path.display(),
                data.size_bytes
            )
        }
        _ => Ok(()),
    }
}

/// Only what is blank may be overwritten, unless that is asked for.
pub fn refuse_what_is_taken(device: &DeviceFile, force: bool) -> Result<()> {
    let file = File::open(&device.path).with_context(|| format!("cannot open {}", device.path.display()))?;
    match occupant(&file, &device.path)? {
        Occupant::Nobody => Ok(()),
        Occupant::Store(what) | Occupant::Other(what) if !force => {
            bail!("{} holds {what}; --force would overwrite it for good", device.path.display())
        }
        Occupant::Store(_) | Occupant::Other(_) => Ok(()),
    }
}

/// Whether a file holds a store of ours, whole or not.
pub fn holds_store(path: &Path) -> Result<bool> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(matches!(occupant(&file, path)?, Occupant::Store(_)))
}

fn cluster(text: &str) -> Result<ClusterUuid, String> {
    match ClusterUuid::try_from(text.to_string())? {
        ClusterUuid(0) => Err("zeroes are no cluster; `ashlar status` shows its name".to_string()),
        cluster => Ok(cluster),
    }
}
