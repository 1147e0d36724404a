//! The OSD daemon: command line, opening of the device, start, signals, end. Every decision is in `ashlar_core::osd`.
//!
//! Owns the order of a start: device, cluster, store, node. Learns the cluster's name from the metadata store before it
//! touches a byte of the device, so that nothing of another cluster is ever overwritten.
#![forbid(unsafe_code)]

mod cluster;
mod daemon;
pub mod figures;
mod signals;
mod size;
mod store;

pub use store::{Devices, Occupant, build, occupant};

use anyhow::{Context, anyhow, bail};
use ashlar_core::id::{ClusterUuid, Incarnation, OsdId};
use ashlar_core::io::PeerId;
use ashlar_core::osd::Config;
use ashlar_core::wire::Versions;
use ashlar_core::wire::handshake::Identity;
use ashlar_runtime::meta::{self, Access, Endpoints};
use ashlar_runtime::os;
use ashlar_runtime::ring::{DeviceFile, Loop, Setup};
use daemon::Daemon;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

/// Run an OSD on a device or file, until it is told to stop.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Number of the OSD, kept for life
    #[arg(long, value_name = "N")]
    pub id: u32,
    /// The metadata store: http://HOST:PORT, several with commas
    #[arg(long, env = "ASHLAR_META", value_name = "ENDPOINTS")]
    pub meta: String,
    /// How the metadata store lets this OSD in
    #[command(flatten)]
    pub access: Access,
    /// The block device, or file, that holds the OSD's data
    #[arg(long, value_name = "PATH")]
    pub data: PathBuf,
    /// A device of its own for the log
    #[arg(long, value_name = "PATH")]
    pub log: Option<PathBuf>,
    /// Create the log's file with this size, if it does not exist
    #[arg(long, value_name = "BYTES", value_parser = size::parse, requires = "log")]
    pub log_size: Option<u64>,
    /// Create the file with this size, if it does not exist (10G, 500M)
    #[arg(long, value_name = "BYTES", value_parser = size::parse)]
    pub size: Option<u64>,
    /// Where peers and clients connect
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// The address that others are told, if it is not the one of --listen
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// The host, as a name in the placement tree; default: this machine's name
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// What makes a write durable; auto asks the kernel what it knows of the device
    #[arg(long, value_enum, default_value_t = Durability::Auto)]
    pub durability: Durability,
    /// The same for the log's own device; default: as --durability. With a lazy data device and a durable log, small
    /// writes are durable at once (immediate_commit "small"); with a lazy log, none are ("none")
    #[arg(long, value_enum, requires = "log")]
    pub log_durability: Option<Durability>,
    /// What the data device writes wholly or not at all, even through a power loss: 4K, say; 0: nothing. Default: what the
    /// kernel states. Only an operator can vouch for more; if that is wrong, a power loss tears data
    #[arg(long, value_name = "BYTES", value_parser = atomic_bytes)]
    pub atomic_bytes: Option<u32>,
    /// How overwrites of a part of an object are written; all but auto are for measurements
    #[arg(long, value_enum, default_value_t = Way::Auto)]
    pub overwrites: Way,
    /// Build a new store even if something else is on the device
    #[arg(long)]
    pub format: bool,
    /// Block size of a new store: the largest block size of the pools that it is to serve
    #[arg(long, value_name = "BYTES", default_value = "128K", value_parser = size::parse)]
    pub block_size: u64,
    /// Serve figures for Prometheus here, such as 10.0.0.1:9800; with "10.0.0.1:9800+id", OSD 3 serves them at port 9803
    #[arg(long, value_name = "ADDRESS[+id]")]
    pub metrics: Option<figures::Listen>,
    /// Leave the data device in the dark about blocks that are free. Else it is told (trim, holes in files) in the background,
    /// some seconds after they became free, and of all of them after a start
    #[arg(long)]
    pub no_discard: bool,
    /// Sleep at once when there is nothing to do, instead of yielding for a moment while peers' answers are due
    #[arg(long)]
    pub no_yield: bool,
}

/// What makes a write durable.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// As the kernel says
    Auto,
    /// Its completion: the device protects its cache against power loss
    Plp,
    /// A flush after it
    Flush,
    /// Nothing until a sync: a power loss may take the last second of acknowledged writes
    Lazy,
}

/// How overwrites of a part of an object are written.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In place while the device is busy and writes atomically, else in the log
    Auto,
    /// The whole object, to another place
    Redirect,
    /// In the log first, in place later
    Inline,
    /// In place wherever the device writes atomically
    Intent,
}

/// An atomic unit on the command line.
fn atomic_bytes(text: &str) -> Result<u32, String> {
    let bytes = u32::try_from(size::parse(text)?).map_err(|_| "no device has so large an atomic unit".to_string())?;
    if bytes == 0 || (bytes.is_power_of_two() && bytes >= 4096) {
        return Ok(bytes);
    }
    Err("an atomic unit is a power of two of at least 4096 bytes, or 0".to_string())
}

/// Runs an OSD until SIGTERM, SIGINT or its own end.
pub fn run(args: Args) -> anyhow::Result<()> {
    let signals = signals::Signals::catch()?;
    let endpoints = Endpoints::with_access(&args.meta, &args.access)?;
    let is_new = match args.size {
        Some(size) => DeviceFile::create(&args.data, size)?,
        None => false,
    };
    let data = DeviceFile::open(&args.data)?;
    if let (Some(path), Some(size)) = (&args.log, args.log_size) {
        DeviceFile::create(path, size)?;
    }
    let log = args.log.as_deref().map(DeviceFile::open).transpose()?;
    refuse_other_size(&args, &data)?;
    let (listener, address) = listen(&args)?;
    let cluster = cluster::wait_for(&endpoints)?;
    let devices = store::Devices { data, log, is_new };
    let open = store::prepare(&args, cluster, &devices)?;
    tracing::info!("osd.{} of cluster {cluster} serves {} at {address}", args.id, devices.data);
    serve(&args, cluster, devices, open, listener, address, endpoints, &signals)
}

#[expect(clippy::too_many_arguments, reason = "the parts that the start has gathered, used once")]
fn serve(
    args: &Args,
    cluster: ClusterUuid,
    devices: store::Devices,
    open: ashlar_core::store::log::OpenConfig,
    listener: TcpListener,
    address: String,
    endpoints: Endpoints,
    signals: &signals::Signals,
) -> anyhow::Result<()> {
    let (osd, incarnation) = (OsdId(args.id), Incarnation(os::random_u64()?));
    let config = Config { osd, cluster, incarnation, address, host: host(args), waits_for_leases: true };
    let setup = Setup {
        identity: Identity { cluster: Some(cluster), peer: PeerId::Osd(osd, incarnation), versions: Versions::OURS },
        listener,
        data: devices.data,
        log: devices.log,
        meta: Some(meta::Driver::opener(endpoints)),
        seed: os::random_u64()?,
        yields: !args.no_yield,
    };
    let shown = figures::serve(args)?;
    let ring = Loop::new(setup, |env| Daemon::new(config, open, shown, env));
    let mut ring = ring.context("io_uring cannot be used (is it switched off by kernel.io_uring_disabled?)")?;
    signals.stop_with(ring.stopper());
    let ending = ring.run().context("io_uring failed")?;
    tracing::info!("osd.{} has ended", args.id);
    ending.map_err(|reason| anyhow!(reason))
}

/// A size that differs from what is there is a mistake: growing is not a matter of a start.
fn refuse_other_size(args: &Args, data: &DeviceFile) -> anyhow::Result<()> {
    match args.size {
        Some(size) if size - size % 4096 != data.size_bytes => bail!(
            "{} has {} bytes, not {size} as --size says; leave --size out, or name another file",
            data.path.display(),
            data.size_bytes
        ),
        _ => Ok(()),
    }
}

fn listen(args: &Args) -> anyhow::Result<(TcpListener, String)> {
    let listener = TcpListener::bind(args.listen);
    let listener = listener.with_context(|| format!("cannot listen at {} (--listen)", args.listen))?;
    let bound = listener.local_addr()?;
    match &args.advertise {
        Some(address) => Ok((listener, address.clone())),
        None if bound.ip().is_unspecified() => bail!(
            "--listen {} is every address of this machine; say with --advertise HOST:PORT which one others shall use",
            args.listen
        ),
        None => Ok((listener, bound.to_string())),
    }
}

fn host(args: &Args) -> String {
    let name = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = args.host.clone().unwrap_or_else(|| name().trim().to_owned());
    if name.is_empty() { "localhost".to_owned() } else { name }
}
