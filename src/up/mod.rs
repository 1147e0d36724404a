//! `ashlar up`: a whole cluster on this machine, as child processes of this one.
//!
//! ```text
//!  directory, ports        children             metadata                groups active        image served
//!  Preparing ------------> Starting ----------> Founding ------------> Activating ---------> Serving
//!      | refusal               | a child ends       |                     |                     | Ctrl-C, SIGTERM
//!      v                       v                    v                     v                     v
//!  error              Stopping: front ends, then OSDs, then the monitor ----------------> end
//! ```
//! Owns: the order of these steps, and what a person is told. Does not own: the children's work. While it serves, a child
//! that ends is reported; it is started again only if that was asked for.

mod children;
mod founding;
mod layout;

pub use layout::{Running, running};

use crate::admin::redundancy::Redundancy;
use crate::output::Output;
use crate::size;
use anyhow::{Context, Result, bail};
use ashlar_core::map::ImmediateCommit;
use children::{Children, Ended, Recipe};
use layout::{Directory, Wanted};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Where a cluster lives unless told otherwise.
pub const DEFAULT_DIR: &str = "ashlar-data";
/// Size of an OSD's own log, where it has one.
const LOG_BYTES: u64 = 256 << 20;
/// Less than this, and not even logs can be written for long.
const SPACE_MIN_BYTES: u64 = 256 << 20;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Number of OSDs, each a file and a failure domain of its own [default: 4, or as many as a group has
    /// members].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=256))]
    osds: Option<u32>,
    /// Where the cluster's files are.
    #[arg(long, default_value = DEFAULT_DIR)]
    dir: PathBuf,
    /// Size of the image `demo` [default: 10G].
    #[arg(long, value_parser = size::parse)]
    size: Option<u64>,
    /// Size of each OSD's file, which takes the disk's space only as it fills [default: by the image's size].
    #[arg(long, value_parser = size::parse)]
    osd_size: Option<u64>,
    /// Redundancy of the pool, such as replicated:2, ec:4+2 or xor:2+1 [default: replicated:3].
    #[arg(long)]
    pool: Option<Redundancy>,
    /// Which acknowledged writes are durable at once: all; small ones; or none, until the client flushes [default: all].
    /// For `none` OSDs leave their files' caches unflushed; for `small` they flush a log of their own.
    #[arg(long, value_name = "WHICH")]
    immediate_commit: Option<ImmediateCommit>,
    /// Port of the NBD server.
    #[arg(long, default_value_t = 10809)]
    port: u16,
    /// Start a child that ended by itself again, after so many seconds [default with no value: 1].
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", require_equals = true)]
    restart: Option<f64>,
    #[command(flatten)]
    output: Output,
}

/// Ctrl-C, or a polite request of the system.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> Result<Stop> {
        Ok(Stop { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Runs the cluster until it is told to stop.
pub async fn run(args: Args) -> Result<()> {
    let start = Instant::now();
    let mut stop = Stop::new()?;
    let wanted = Wanted {
        osds: args.osds,
        osd_bytes: args.osd_size,
        image_bytes: args.size,
        pool: args.pool,
        immediate_commit: args.immediate_commit,
    };
    let port = free_for_nbd(args.port);
    // Before the directory is made: a refusal leaves nothing. But that its cluster runs already says more.
    if running(&args.dir).is_none() {
        port.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
    }
    let directory = Directory::open(&args.dir, &wanted)?;
    port?;
    let left = children::end_leftovers(&directory)?;
    if left > 0 {
        eprintln!("ended {left} processes that a killed `ashlar up` had left behind");
    }
    check_space(&directory)?;
    let running = addresses(&directory, args.port)?;
    let mut cluster = Cluster {
        directory,
        running,
        children: Children::new(),
        restart: args.restart.map(Duration::from_secs_f64),
        recipes: Vec::new(),
        missing: Missing::default(),
    };
    let outcome = tokio::select! {
        outcome = cluster.start_and_serve(start, args.output) => outcome,
        () = stop.asked() => Ok(()),
    };
    cluster.end(&mut stop).await?;
    outcome
}

/// Refuses a disk that is full already.
fn check_space(directory: &Directory) -> Result<()> {
    let path = directory.path();
    let disk =
        nix::sys::statvfs::statvfs(path).with_context(|| format!("cannot ask for the space at {}", path.display()))?;
    let free = disk.blocks_available() * disk.fragment_size();
    if free < SPACE_MIN_BYTES {
        bail!("only {} are free at {}; make room, or name another --dir", size::human(free), path.display());
    }
    let wanted = directory.chosen.osd_bytes * u64::from(directory.chosen.osds);
    if free < wanted {
        let (free, wanted) = (size::human(free), size::human(wanted));
        eprintln!("note: {free} are free at {}; a full cluster would take {wanted}", path.display());
    }
    Ok(())
}

/// Chooses where everything listens.
fn addresses(directory: &Directory, port: u16) -> Result<Running> {
    // Held until both are known, so that they differ.
    let (meta, maps) = (reserve_port()?, reserve_port()?);
    Ok(Running {
        supervisor: i32::try_from(std::process::id())?,
        meta: format!("http://{}", meta.local_addr()?),
        maps: maps.local_addr()?.to_string(),
        nbd: format!("nbd://127.0.0.1:{port}/{}", founding::IMAGE),
        nbd_socket: directory.join("nbd.sock"),
        image: format!("{}/{}", founding::POOL, founding::IMAGE),
    })
}

/// Refuses a port that others use.
fn free_for_nbd(port: u16) -> Result<()> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) => bail!(
            "cannot serve NBD on 127.0.0.1:{port}: {error}; choose another port with --port, or end who listens there"
        ),
    }
}

fn reserve_port() -> Result<TcpListener> {
    ashlar_runtime::ports::reserve().context("no port is free on 127.0.0.1")
}

struct Cluster {
    directory: Directory,
    running: Running,
    children: Children,
    restart: Option<Duration>,
    recipes: Vec<Recipe>,
    missing: Missing,
}

/// OSDs that ended while the cluster started.
type Missing = Rc<RefCell<BTreeSet<String>>>;

impl Cluster {
    async fn start_and_serve(&mut self, start: Instant, output: Output) -> Result<()> {
        // Early, so that `ashlar status` can say how far it is.
        self.directory.write("running.json", &self.running)?;
        self.start_daemons()?;
        let (running, chosen) = (self.running.clone(), self.directory.chosen.clone());
        let (missing, osds) = (Rc::clone(&self.missing), u64::from(chosen.osds));
        let expected = move || osds - missing.borrow().len() as u64;
        self.unless_a_child_ends(founding::found(&running, &chosen, expected)).await?;
        self.directory.remove("nbd.sock")?;
        self.launch("nbd", nbd_arguments(&self.running))?;
        let address = self.nbd_address().to_string();
        self.unless_a_child_ends(founding::reachable(&address)).await?;
        output.print(&self.running, |running| welcome(running, &self.directory, start.elapsed()))?;
        self.serve().await
    }

    fn nbd_address(&self) -> &str {
        self.running.nbd.trim_start_matches("nbd://").split('/').next().expect("split gives one part at least")
    }

    fn start_daemons(&mut self) -> Result<()> {
        self.launch("mon", mon_arguments(&self.running, &self.directory))?;
        for osd in 1..=self.directory.chosen.osds {
            self.launch(&format!("osd-{osd}"), osd_arguments(osd, &self.running, &self.directory))?;
        }
        Ok(())
    }

    fn launch(&mut self, name: &str, arguments: Vec<String>) -> Result<()> {
        let recipe = Recipe { name: name.into(), arguments };
        self.children.start(&self.directory, &recipe)?;
        self.recipes.push(recipe);
        Ok(())
    }

    /// Does `work`; a child that ends meanwhile is an error that shows its last words. But a cluster that was there before
    /// can do without some OSDs, whose disks may have failed.
    async fn unless_a_child_ends(&mut self, work: impl Future<Output = Result<()>>) -> Result<()> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                ended = self.children.next_end() => self.do_without(&ended)?,
            }
        }
    }

    fn do_without(&mut self, ended: &Ended) -> Result<()> {
        if self.directory.is_new || !ended.name.starts_with("osd-") {
            let words = children::last_lines(&self.directory, &ended.name);
            bail!("{} ended at start ({})\n{words}", ended.name, ended.status);
        }
        self.report(ended);
        self.missing.borrow_mut().insert(ended.name.clone());
        Ok(())
    }

    /// Watches over the children until none is left.
    async fn serve(&mut self) -> Result<()> {
        if self.restart.is_some() {
            for name in self.missing.take() {
                self.start_again(&name)?;
            }
        }
        while !self.children.is_empty() {
            let ended = self.children.next_end().await;
            self.report(&ended);
            if let Some(pause) = self.restart {
                tokio::time::sleep(pause).await;
                self.start_again(&ended.name)?;
            }
        }
        bail!("all children have ended")
    }

    fn report(&self, ended: &Ended) {
        eprintln!("{} (process {}) ended: {}", ended.name, ended.pid, ended.status);
        eprint!("{}", children::last_lines(&self.directory, &ended.name));
        if self.restart.is_none() {
            eprintln!("  it is not started again (--restart would); `ashlar up` anew starts all");
        }
    }

    fn start_again(&mut self, name: &str) -> Result<()> {
        let recipe = self.recipes.iter().find(|recipe| recipe.name == name).expect("children have recipes").clone();
        eprintln!("{name} is started again");
        self.children.start(&self.directory, &recipe)
    }

    /// Ends everything; a second request to stop ends it at once.
    async fn end(&mut self, stop: &mut Stop) -> Result<()> {
        if !self.children.is_empty() {
            eprintln!("stopping");
        }
        tokio::select! {
            () = self.children.stop() => {}
            () = stop.asked() => self.children.kill_all().await,
        }
        self.directory.remove("running.json")?;
        self.directory.remove("children.json")
    }
}

fn strings<const N: usize>(arguments: [&str; N]) -> Vec<String> {
    arguments.map(str::to_string).to_vec()
}

fn mon_arguments(running: &Running, directory: &Directory) -> Vec<String> {
    let data = directory.join("mon").display().to_string();
    let meta = running.meta.trim_start_matches("http://");
    strings(["mon", "--data", &data, "--meta-listen", meta, "--listen", &running.maps])
}

fn osd_arguments(osd: u32, running: &Running, directory: &Directory) -> Vec<String> {
    let log = directory.join(&format!("osd-{osd}.log.img")).display().to_string();
    let durability = match directory.chosen.immediate_commit {
        ImmediateCommit::All => Vec::new(),
        ImmediateCommit::Small => {
            let (size, lazy) = (LOG_BYTES.to_string(), strings(["--durability", "lazy", "--log-durability", "flush"]));
            [lazy, strings(["--log", &log, "--log-size", &size])].concat()
        }
        ImmediateCommit::None => strings(["--durability", "lazy"]),
    };
    let (id, data) = (osd.to_string(), directory.join(&format!("osd-{osd}.img")).display().to_string());
    let (bytes, host) = (directory.chosen.osd_bytes.to_string(), format!("host-{osd}"));
    let usual = strings([
        "osd",
        "run",
        "--id",
        &id,
        "--data",
        &data,
        "--size",
        &bytes,
        "--meta",
        &running.meta,
        "--listen",
        "127.0.0.1:0",
        "--host",
        &host,
    ]);
    [usual, durability].concat()
}

/// Without names, it serves every image under its own.
fn nbd_arguments(running: &Running) -> Vec<String> {
    let address = running.nbd.trim_start_matches("nbd://").split('/').next().expect("split gives one part at least");
    let socket = running.nbd_socket.display().to_string();
    strings(["nbd", "--seeds", &running.maps, "--listen", address, "--unix", &socket])
}

/// What a person wants to know when the cluster is there.
fn welcome(running: &Running, directory: &Directory, took: Duration) -> String {
    let Running { meta, nbd, nbd_socket, image, .. } = running;
    let (chosen, dir) = (&directory.chosen, directory.path().display());
    let unix = format!("nbd+unix:///{}?socket={}", founding::IMAGE, nbd_socket.display());
    let size = size::human(chosen.image_bytes);
    format!(
        "\
cluster {} runs: {} OSDs, pool {} ({}), ready after {:.1} s

  image     {image}, {size}
  nbd       {nbd}
            {unix}
  metadata  {meta}   (etcdctl --endpoints {meta} get --prefix /ashlar)
  files     {dir}   (logs in log/)

Try:
  nbdinfo {nbd}
  qemu-img convert -n -O raw DISK.img '{nbd}'
  nbdcopy {nbd} copy.img
  fio --name=try --ioengine=nbd --uri={nbd} --rw=randwrite --bs=4k --iodepth=32 --runtime=10 --time_based
  ashlar status --dir {dir}
Stop with Ctrl-C; `ashlar up` again finds the data.",
        chosen.cluster,
        chosen.osds,
        founding::POOL,
        chosen.pool,
        took.as_secs_f64(),
    )
}
