//! Whether to build a store on the device, and how to open it.

use crate::{Args, Durability, Way};
use anyhow::{Context, anyhow, bail};
use ashlar_core::buf::{BufPool, UNIT_USIZE};
use ashlar_core::id::{ClusterUuid, OsdId, StoreUuid};
use ashlar_core::io::{Device, DiskOp};
use ashlar_core::store::log::{self, Discarding, Format, Inspect, OpenConfig, Overwrites};
use ashlar_core::time::Duration;
use ashlar_runtime::os;
use ashlar_runtime::ring::{self, DeviceFile};
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// In what time the scrub passes over the log: a log of 10 GB is read at 0.1 MB a second.
const LOG_SCRUB: Duration = Duration::secs(24 * 3600);

/// The OSD's devices.
pub struct Devices {
    /// Data.
    pub data: DeviceFile,
    /// The log, if it has a device of its own.
    pub log: Option<DeviceFile>,
    /// The data file was just created.
    pub is_new: bool,
}

/// Builds a store if there is none and none other is in the way; says how to open it.
pub fn prepare(args: &Args, cluster: ClusterUuid, devices: &Devices) -> anyhow::Result<OpenConfig> {
    let config = open_config(args, cluster, devices).inspect_err(|_| remove_if_new(devices))?;
    let found = inspect(&devices.data, &mut BufPool::new())?;
    if must_build(args, cluster, devices, found)? {
        build(&wanted(args, cluster, devices)?, devices)?;
    }
    Ok(config)
}

fn open_config(args: &Args, cluster: ClusterUuid, devices: &Devices) -> anyhow::Result<OpenConfig> {
    let log_device = devices.log.as_ref().unwrap_or(&devices.data);
    Ok(OpenConfig {
        cluster,
        osd: OsdId(args.id),
        data_bytes: devices.data.size_bytes,
        log_device_bytes: devices.log.as_ref().map(|log| log.size_bytes),
        durability: durability(args.durability, &devices.data)?,
        log_durability: durability(args.log_durability.unwrap_or(args.durability), log_device)?,
        overwrites: overwrites(args, &devices.data),
        scrub: LOG_SCRUB,
        discards: (!args.no_discard).then_some(Discarding::USUAL),
    })
}

/// How overwrites go to the device: by what the kernel states of it, unless the operator vouches for something else.
fn overwrites(args: &Args, data: &DeviceFile) -> Overwrites {
    let way = match args.overwrites {
        Way::Auto => log::Way::Auto,
        Way::Redirect => log::Way::Redirect,
        Way::Inline => log::Way::Inline,
        Way::Intent => log::Way::Intent,
    };
    Overwrites { way, atomic_bytes: args.atomic_bytes.unwrap_or(data.atomic_bytes) }
}

/// What is on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Occupant {
    /// Nothing: zeroes at its beginning and its end.
    Nobody,
    /// A store of ours, whole or not, described.
    Store(String),
    /// Something else, described.
    Other(String),
}

/// Looks at the beginning and the end of a device. `file` is read with the page cache: its end may be no whole block.
pub fn occupant(mut file: &File, path: &Path) -> anyhow::Result<Occupant> {
    let end = file.seek(SeekFrom::End(0)).with_context(|| format!("cannot tell the size of {}", path.display()))?;
    let read = |begin: u64, end: u64| {
        let mut bytes = vec![0; usize::try_from(end - begin)?];
        file.read_exact_at(&mut bytes, begin).with_context(|| format!("cannot read {}", path.display()))?;
        anyhow::Ok(bytes)
    };
    let (head, tail) = (read(0, end.min(log::SIGNATURE_BYTES.into()))?, read(log::tail_at(end), end)?);
    let is_ours = log::COPIES_AT.iter().any(|at| {
        let copy = usize::try_from(*at).ok().and_then(|at| head.get(at..));
        copy.is_some_and(|bytes| !matches!(log::inspect(bytes), Inspect::Blank | Inspect::Foreign))
    });
    Ok(match log::signature(&head, &tail) {
        None => Occupant::Nobody,
        Some(what) if is_ours => Occupant::Store(what),
        Some(what) => Occupant::Other(what),
    })
}

/// What opening would find, or building a store would write over.
fn inspect(data: &DeviceFile, bufs: &mut BufPool) -> anyhow::Result<Inspect> {
    if data.size_bytes < UNIT_USIZE as u64 {
        bail!("{} is too small: it has {} bytes", data.path.display(), data.size_bytes);
    }
    for at in log::COPIES_AT.into_iter().filter(|at| at + UNIT_USIZE as u64 <= data.size_bytes) {
        let mut copy = bufs.alloc(ashlar_core::buf::UNIT);
        let read = data.file.read_exact_at(copy.bytes_mut(), at);
        read.with_context(|| format!("cannot read {}", data.path.display()))?;
        let found = log::inspect(copy.bytes());
        if !matches!(found, Inspect::Blank | Inspect::Foreign) {
            return Ok(found);
        }
    }
    let file = File::open(&data.path).with_context(|| format!("cannot open {}", data.path.display()))?;
    let is_blank = occupant(&file, &data.path)? == Occupant::Nobody;
    Ok(if is_blank { Inspect::Blank } else { Inspect::Foreign })
}

/// Whether a store is to be built: only where nothing is lost by it, or that was asked for.
fn must_build(args: &Args, cluster: ClusterUuid, devices: &Devices, found: Inspect) -> anyhow::Result<bool> {
    let path = devices.data.path.display();
    match found {
        Inspect::Blank => Ok(true),
        Inspect::Foreign if args.format => Ok(true),
        Inspect::Foreign => {
            Err(anyhow!("{path} holds something else than an OSD's store; --format would overwrite it for good"))
        }
        Inspect::Store { cluster: there, .. } if there != cluster => Err(anyhow!(
            "{path} is a store of another cluster, {there}; this metadata store is of {cluster}: check --meta and --data"
        )),
        Inspect::Store { osd, .. } if osd.0 != args.id => {
            Err(anyhow!("{path} is the store of osd.{osd}, not of osd.{}: check --id and --data", args.id))
        }
        // The store itself has a second copy, and knows what it cannot read.
        Inspect::Store { .. } | Inspect::Damaged | Inspect::Newer => Ok(false),
    }
}

fn wanted(args: &Args, cluster: ClusterUuid, devices: &Devices) -> anyhow::Result<Format> {
    Ok(Format {
        cluster,
        osd: OsdId(args.id),
        store: StoreUuid(u128::from(os::random_u64()?) << 64 | u128::from(os::random_u64()?)),
        block_size: u32::try_from(args.block_size).context("--block-size is too large")?,
        data_bytes: devices.data.size_bytes,
        log_device_bytes: devices.log.as_ref().map(|log| log.size_bytes),
        log_bytes: None,
        segment_bytes: None,
    })
}

/// Builds an empty store, over whatever is there.
pub fn build(format: &Format, devices: &Devices) -> anyhow::Result<()> {
    let path = devices.data.path.display();
    let built = write(format, devices).with_context(|| format!("cannot build a store on {path}"));
    built.inspect_err(|_| remove_if_new(devices))?;
    tracing::info!("built store {} for osd.{} on {path}", format.store, format.osd);
    Ok(())
}

fn write(format: &Format, devices: &Devices) -> anyhow::Result<()> {
    let ops = log::format(format, &mut BufPool::new()).map_err(|reason| anyhow!(reason))?;
    ops.iter().try_for_each(|op| execute(devices, op))?;
    std::iter::once(&devices.data).chain(&devices.log).try_for_each(clear_end)
}

/// Writes zeroes over the last sectors of a device that are no whole unit: no store uses them, and marks of others lie
/// there.
fn clear_end(device: &DeviceFile) -> anyhow::Result<()> {
    let mut file = File::options().write(true).open(&device.path)?;
    let rest = file.seek(SeekFrom::End(0))? - device.size_bytes;
    if rest > 0 {
        file.write_all_at(&vec![0; usize::try_from(rest)?], device.size_bytes)?;
        file.sync_all()?;
    }
    Ok(())
}

fn execute(devices: &Devices, op: &DiskOp) -> anyhow::Result<()> {
    let file = |device: &Device| match device {
        Device::Data => Ok(&devices.data.file),
        Device::Log => devices.log.as_ref().map(|log| &log.file).context("there is no log device"),
    };
    match op {
        DiskOp::Write { device, offset, data } => file(device)?.write_all_at(data.bytes(), *offset)?,
        DiskOp::Flush { device } => file(device)?.sync_data()?,
        DiskOp::Discard { .. } | DiskOp::Read { .. } => bail!("building a store takes only writes and flushes"),
    }
    Ok(())
}

/// A file that was made for a store that cannot be is not left behind.
fn remove_if_new(devices: &Devices) {
    if devices.is_new {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&devices.data.path);
    }
}

/// What makes writes durable. Nobody can vouch for a file: a write into a hole of it, and each discard leaves one, is there after
/// a power loss only if its file system has written down where it went, which a flush asks for.
fn durability(wanted: Durability, device: &DeviceFile) -> anyhow::Result<log::Durability> {
    let is_on_file = !device.is_block_device() && device.durability == ring::Durability::Flushed;
    if wanted == Durability::Plp && is_on_file {
        bail!(
            "{} is a file: whatever protects the disk below, its file system writes down where data lie only when it is \
             flushed, so a power loss would take acknowledged writes; use --durability flush, or give the OSD the disk itself",
            device.path.display()
        );
    }
    Ok(match (wanted, device.durability) {
        (Durability::Plp, _) | (Durability::Auto, ring::Durability::Completed) => log::Durability::Plp,
        (Durability::Flush, _) | (Durability::Auto, ring::Durability::Flushed) => log::Durability::Flush,
        (Durability::Lazy, _) => log::Durability::Lazy,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn what_is_refused_leaves_a_file_as_it_was_and_no_new_one() {
        let path = Path::new("/var/tmp").join(format!("ashlar-refused-{}", std::process::id()));
        let name = path.to_str().unwrap();
        let line = ["osd", "--id", "1", "--meta", "http://127.0.0.1:1", "--durability", "plp", "--data", name];
        let args = Cli::parse_from(line).args;
        for is_new in [false, true] {
            DeviceFile::create(&path, 64 << 20).unwrap();
            let devices = Devices { data: DeviceFile::open(&path).unwrap(), log: None, is_new };
            let refusal = prepare(&args, ClusterUuid(1), &devices).map(|_| ()).unwrap_err().to_string();
            assert!(refusal.contains("is a file"), "{refusal}");
            assert!(matches!(inspect(&devices.data, &mut BufPool::new()), Ok(Inspect::Blank)) != is_new);
            assert_eq!(path.exists(), !is_new);
            let _ = std::fs::remove_file(&path);
        }
    }

    #[test]
    fn nobody_vouches_for_a_file_but_for_memory() {
        for (folder, is_memory) in [("/var/tmp", false), ("/dev/shm", true)] {
            let path = Path::new(folder).join(format!("ashlar-vouched-{}", std::process::id()));
            DeviceFile::create(&path, 1 << 20).unwrap();
            let device = DeviceFile::open(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            let vouched = durability(Durability::Plp, &device);
            assert_eq!(vouched.is_ok_and(|durability| durability == log::Durability::Plp), is_memory, "{folder}");
            let other = if is_memory { log::Durability::Plp } else { log::Durability::Flush };
            assert_eq!(durability(Durability::Auto, &device).unwrap(), other, "{folder}");
            assert_eq!(durability(Durability::Flush, &device).unwrap(), log::Durability::Flush);
        }
    }
}
