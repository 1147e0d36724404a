//! `ashlar disk prepare`: an empty store on a device that holds nothing that somebody may want.

use crate::size;
use anyhow::{Context, Result, bail};
use ashlar_core::buf::BufPool;
use ashlar_core::id::{ClusterUuid, OsdId, StoreUuid};
use ashlar_core::store::log::{Format, SIGNATURE_BYTES, signature};
use ashlar_osd::{Devices, build};
use ashlar_runtime::os;
use ashlar_runtime::ring::DeviceFile;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

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
    let data = DeviceFile::open(&args.path)?;
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

/// Only what is blank may be overwritten, unless that is asked for.
pub fn refuse_what_is_taken(device: &DeviceFile, force: bool) -> Result<()> {
    let bytes = u64::from(SIGNATURE_BYTES).min(device.size_bytes);
    let mut first = BufPool::new().zeroed(u32::try_from(bytes)?);
    let read = device.file.read_exact_at(first.bytes_mut(), 0);
    read.with_context(|| format!("cannot read {}", device.path.display()))?;
    match signature(first.bytes()) {
        Some(what) if !force => bail!("{} holds {what}; --force would overwrite it for good", device.path.display()),
        _ => Ok(()),
    }
}

fn cluster(text: &str) -> Result<ClusterUuid, String> {
    ClusterUuid::try_from(text.to_string())
}
