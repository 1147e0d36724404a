//! The monitor daemon: command line, start, signals, end. Every decision is in `ashlar_core::mon`.
//!
//! Owns the order of start and stop. Starts the embedded metadata store first if it is asked to, learns (or makes) the
//! cluster's name, then runs the monitor until a signal comes or the monitor itself gives up.
#![forbid(unsafe_code)]

mod cluster;
pub mod figures;

use anyhow::{Context, anyhow, bail};
use ashlar_core::id::Incarnation;
use ashlar_core::io::PeerId;
use ashlar_core::map::Global;
use ashlar_core::mon::{Mon, MonConfig};
use ashlar_core::wire::Versions;
use ashlar_core::wire::handshake::Identity;
use ashlar_runtime::driver::{Driver, Listener, Setup, Tcp};
use ashlar_runtime::meta::{self, Access, Client, EmbeddedServer, Endpoints};
use ashlar_runtime::os;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// A host that goes with the leading monitor and OSDs on it is missed until another one leads. etcd grants what its election
/// time-out allows, if that is more.
const LEADERSHIP_TTL_S: u64 = 1;
/// How long a clean stop waits for the metadata store to hear of it.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// How often a stop looks whether it is done.
const STOP_POLL: Duration = Duration::from_millis(5);
/// File of the embedded metadata store, in its directory.
const STORE_FILE: &str = "meta.redb";

/// Run a monitor: gives verdicts on OSDs, places groups, serves maps to clients.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Keep an embedded metadata store in this directory, and serve etcd's API for it
    #[arg(long, value_name = "DIR", conflicts_with = "meta", required_unless_present = "meta")]
    pub data: Option<PathBuf>,
    /// Where the embedded metadata store listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:2379")]
    pub meta_listen: SocketAddr,
    /// Use this metadata store: http://HOST:PORT of etcd's members, with commas
    #[arg(long, value_name = "ENDPOINTS")]
    pub meta: Option<String>,
    /// How the metadata store lets this monitor in
    #[command(flatten)]
    pub access: Access,
    /// Where clients come for maps
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Serve figures for Prometheus here, such as 10.0.0.1:9799
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<SocketAddr>,
    /// Create the cluster, if the metadata store has none yet
    #[arg(long)]
    pub bootstrap: bool,
}

/// Runs a monitor until SIGTERM or SIGINT.
pub fn run(args: Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
    runtime.block_on(serve(args))
}

/// The metadata store: where it is, and its server if it is ours.
struct Store {
    endpoints: Endpoints,
    embedded: Option<EmbeddedServer>,
}

impl Store {
    fn open(args: &Args) -> anyhow::Result<Store> {
        match (&args.data, &args.meta) {
            (Some(directory), _) => {
                std::fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
                let server = EmbeddedServer::start(&directory.join(STORE_FILE), args.meta_listen)?;
                tracing::info!("the embedded metadata store listens at http://{}", server.address());
                let endpoints = Endpoints::parse(&format!("http://{}", server.address()))?;
                Ok(Store { endpoints, embedded: Some(server) })
            }
            (None, Some(list)) => Ok(Store { endpoints: Endpoints::with_access(list, &args.access)?, embedded: None }),
            (None, None) => bail!("no metadata store: give --data DIR for an embedded one, or --meta ENDPOINTS"),
        }
    }

    /// Waits until the embedded store fails; for ever if there is none.
    async fn failure(&self) -> anyhow::Error {
        match &self.embedded {
            Some(server) => anyhow!("the embedded metadata store failed: {}", server.failure().await),
            None => std::future::pending().await,
        }
    }
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let stop = stop_signal()?;
    tokio::pin!(stop);
    let store = Store::open(&args)?;
    let client = Client::open(&store.endpoints).await;
    let global = tokio::select! {
        global = cluster::settings(&client, args.bootstrap) => global?,
        failure = store.failure() => return Err(failure),
        () = &mut stop => return Ok(()),
    };
    drop(client);
    let driver = start_monitor(&args, &global, store.endpoints.clone()).await?;
    figures::serve(&args, &driver)?;
    tokio::select! {
        ending = driver.ended() => ending.map_err(|reason| anyhow!(reason)),
        failure = store.failure() => Err(failure),
        () = &mut stop => {
            stop_cleanly(&driver).await;
            Ok(())
        }
    }
}

async fn start_monitor(args: &Args, global: &Global, endpoints: Endpoints) -> anyhow::Result<Driver<Mon>> {
    let listener = Listener::bind(&args.listen.to_string()).await;
    let listener = listener.with_context(|| format!("listening at {} (--listen)", args.listen))?;
    let incarnation = Incarnation(os::random_u64()?);
    let config = MonConfig {
        incarnation,
        address: listener.address().to_string(),
        cluster: global.cluster,
        session_ttl_s: global.session_ttl_s.min(LEADERSHIP_TTL_S),
    };
    tracing::info!("monitor of cluster {} serves maps at {}", global.cluster, listener.address());
    let setup = Setup {
        identity: Identity { cluster: Some(global.cluster), peer: PeerId::Mon(incarnation), versions: Versions::OURS },
        listener: Some(listener),
        meta: Some(meta::Driver::opener(endpoints)),
        seed: os::random_u64()?,
    };
    Ok(Driver::start(Mon::new(config), Tcp, setup))
}

/// Ends when the process is told to stop.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("catching SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("catching SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Gives leadership up, so that another monitor need not wait for the lease.
async fn stop_cleanly(driver: &Driver<Mon>) {
    tracing::info!("stopping");
    driver.with(Mon::stop);
    let stopped = async {
        while !driver.with(|mon, _| mon.has_stopped()) {
            tokio::time::sleep(STOP_POLL).await;
        }
    };
    // A store that does not answer must not hold the process up; the lease ends by itself then.
    let _ = tokio::time::timeout(STOP_WAIT, stopped).await;
    driver.stop();
}

#[cfg(test)]
mod tests;
