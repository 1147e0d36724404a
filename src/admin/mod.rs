//! Administration: every command reads or changes the metadata store, and prints a table or JSON.
//!
//! Invariant: what people configure is changed by transactions that compare what was read, so that two administrators
//! cannot overwrite each other.

pub mod access;
pub mod config;
mod confirm;
pub mod doctor;
pub mod image;
pub mod init;
pub mod osd;
pub mod pg;
pub mod placement;
pub mod pool;
pub mod redundancy;
mod room;
pub mod status;
pub mod top;
pub mod why_slow;

use crate::metadata::Metadata;
use crate::output::Output;
use anyhow::{Context, Result, bail};
use ashlar_core::id::PoolId;
use ashlar_core::map::parse::Key;
use ashlar_core::map::{ClusterMap, Pool, keys};
use ashlar_runtime::meta::Access;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Attempts to change a key while others change it too.
const ATTEMPTS: u32 = 10;

/// Waiting for daemons to do something, with a word now and then when it takes long.
struct Watch {
    started: Instant,
    told: Instant,
}

impl Watch {
    /// How often what is waited for is looked at.
    const POLL: Duration = Duration::from_millis(50);
    /// Between two words.
    const TELL_EVERY: Duration = Duration::from_secs(5);

    /// Begins now.
    fn new() -> Watch {
        let now = Instant::now();
        Watch { started: now, told: now }
    }

    /// Since the beginning.
    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits until the next look; tells what is waited for, if it is time for that.
    async fn pause(&mut self, what: impl FnOnce() -> String) {
        if self.told.elapsed() >= Watch::TELL_EVERY {
            self.told = Instant::now();
            eprintln!("{}", what());
        }
        tokio::time::sleep(Watch::POLL).await;
    }
}

/// Where the metadata store is, and how to print; the same for every command.
#[derive(Debug, clap::Args)]
pub struct Connection {
    /// Metadata store, such as http://127.0.0.1:2379; several separated by commas. By default that of the cluster
    /// which `ashlar up` runs in --dir.
    #[arg(long, env = "ASHLAR_META", value_delimiter = ',', value_name = "URL", conflicts_with = "dir")]
    meta: Vec<String>,
    #[command(flatten)]
    access: Access,
    /// Directory of a cluster that `ashlar up` runs. On the command line it counts before --meta in the environment and
    /// in the configuration file.
    #[arg(long, default_value = crate::up::DEFAULT_DIR, value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    output: Output,
}

impl Connection {
    /// Connects.
    pub async fn open(&self) -> Result<Metadata> {
        if !self.meta.is_empty() {
            return Metadata::connect(&self.meta, &self.access).await;
        }
        let running = crate::up::running(&self.dir).with_context(|| {
            format!(
                "no cluster runs in {}; name its metadata store with --meta URL, or its directory with --dir DIR",
                self.dir.display()
            )
        })?;
        // It has neither certificates nor users; those of the configuration file are another cluster's.
        Metadata::connect(&[running.meta], &Access::default()).await
    }

    /// The directory of the cluster that this is about, if it runs on this machine.
    pub fn cluster_directory(&self) -> Option<PathBuf> {
        let is_meant = self.meta.is_empty();
        crate::up::running(&self.dir).filter(|_| is_meant).map(|_| self.dir.clone())
    }

    /// How to print.
    pub fn output(&self) -> Output {
        self.output
    }
}

/// Who serves maps to clients: monitors, and OSDs too.
fn seeds(map: &ClusterMap) -> Result<Vec<String>> {
    let leader = map.leader().map(|(leader, _)| leader.address.clone());
    let osds = map.osd_states().map(|(_, state)| state.address.clone());
    match leader.into_iter().chain(osds).collect::<Vec<_>>() {
        seeds if seeds.is_empty() => bail!("no monitor and no OSD runs"),
        seeds => Ok(seeds),
    }
}

/// A pool by its name.
fn pool_named<'a>(map: &'a ClusterMap, name: &str) -> Result<(PoolId, &'a Pool)> {
    if let Some(found) = map.pools().find(|(_, pool)| pool.name == name) {
        return Ok(found);
    }
    if map.is_refused(Key::Pools) {
        bail!("{} makes no sense, so nobody knows what pools there are; `ashlar status` says why", keys::pools());
    }
    match map.pools().map(|(_, pool)| pool.name.as_str()).collect::<Vec<_>>() {
        names if names.is_empty() => {
            bail!("there is no pool '{name}', nor any other; `ashlar pool create {name}` makes it")
        }
        names => bail!("there is no pool '{name}'; there are: {}", names.join(", ")),
    }
}
