//! Network Block Device: images for every NBD client, over TCP and unix sockets.
//!
//! Owns: the protocol (negotiation, simple and structured replies, block status), listening, clean endings. Does not
//! own: what it exports ([`Disk`], [`Exports`]); images of a cluster are one kind of it.
//!
//! Invariants: each request is answered once, in any order; a connection that is ended by the server has got all its
//! answers (or the cluster was away for longer than the grace); no bytes of a stranger make it panic.

mod connection;
mod disk;
pub mod figures;
mod incoming;
mod negotiation;
mod outgoing;
mod protocol;
mod server;

pub use disk::{Disk, Exports};
pub use negotiation::{ExportInfo, Negotiation, Step, Terms};
pub use protocol::{Command, NotARequest, REQUEST_BYTES, Request};
pub use server::Server;

use crate::{Client, Error, Image, OpError};
use anyhow::{Context, bail};
use ashlar_core::client::ClientLimits;
use figures::Served;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// A cluster that serves answers much sooner.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often sizes of images that are in use are looked at.
const SIZE_PERIOD: Duration = Duration::from_secs(5);
/// How often the server looks whether it was fenced off.
const FENCE_PERIOD: Duration = Duration::from_secs(1);
/// Exit code of a server that was fenced off: whoever starts it again should have a reason.
const FENCED: i32 = 3;

/// Options of `ashlar nbd`.
#[derive(Clone, Debug, clap::Args)]
pub struct NbdArgs {
    /// Addresses of monitors or OSDs, separated by commas.
    #[arg(long, required = true, value_delimiter = ',', value_name = "HOST:PORT")]
    pub seeds: Vec<String>,
    /// Image to export under its own name; repeatable. Without any, every image can be asked for by its name.
    #[arg(long = "image", value_name = "[POOL/]NAME")]
    pub images: Vec<String>,
    /// Image to export under another name; repeatable.
    #[arg(long = "export", value_name = "EXPORT=[POOL/]NAME")]
    pub exports: Vec<String>,
    /// TCP address to listen on; "none" for no TCP.
    #[arg(long, default_value = "127.0.0.1:10809", value_name = "HOST:PORT")]
    pub listen: String,
    /// Unix socket to listen on.
    #[arg(long, value_name = "PATH")]
    pub unix: Option<PathBuf>,
    /// Refuse all writes.
    #[arg(long)]
    pub read_only: bool,
    /// Serve figures for Prometheus here, such as 127.0.0.1:9798.
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<SocketAddr>,
    /// Of pools that acknowledge what is not durable: MiB of such writes that are kept to be sent again. At half of it
    /// they are flushed unasked.
    #[arg(long, default_value_t = 32, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub client_dirty_limit: u64,
}

/// Runs `ashlar nbd` until SIGINT or SIGTERM.
pub fn run(args: NbdArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(args))
}

async fn serve(args: NbdArgs) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let limits = ClientLimits { dirty_bytes: args.client_dirty_limit << 20, ..ClientLimits::default() };
    let client = Client::connect_within(args.seeds.clone(), limits)?;
    tracing::info!("this is client {}", client.id());
    let served = Served::default();
    figures::serve(&args, &client, &served)?;
    let images = Images { client: client.clone(), named: named(&args)?.into(), read_only: args.read_only, served };
    let started = async {
        tokio::select! {
            checked = images.check() => checked?,
            () = complain(&args.seeds) => {}
        }
        let mut server = Server::new(images);
        listen(&mut server, &args).await?;
        anyhow::Ok(server)
    };
    let server = tokio::select! {
        started = started => started?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    let fenced = tokio::select! {
        _ = interrupt.recv() => false,
        _ = terminate.recv() => false,
        () = fenced(&client) => true,
    };
    tracing::info!("ending: waiting for requests in flight");
    server.shut_down().await;
    client.stop();
    if fenced {
        std::process::exit(FENCED);
    }
    Ok(())
}

/// Waits until the client is fenced off, and says so: nothing can succeed any more, not even after `client unfence`.
async fn fenced(client: &Client) {
    while !client.is_fenced() {
        tokio::time::sleep(FENCE_PERIOD).await;
    }
    let client = client.id();
    tracing::error!("client {client} was fenced off: this server ends; started again, it is another client");
}

/// Says now and then that the cluster does not answer.
async fn complain(seeds: &[String]) {
    loop {
        tokio::time::sleep(PATIENCE).await;
        tracing::warn!("waiting for the cluster: no answer from {}; is it running?", seeds.join(", "));
    }
}

async fn listen(server: &mut Server<Images>, args: &NbdArgs) -> anyhow::Result<()> {
    if args.listen == "none" && args.unix.is_none() {
        bail!("nowhere to listen: give --unix PATH, or --listen HOST:PORT");
    }
    if args.listen != "none" {
        let address = server.listen_tcp(&args.listen).await?;
        tracing::info!("serving nbd://{address}");
    }
    if let Some(path) = &args.unix {
        server.listen_unix(path)?;
        tracing::info!("serving nbd+unix:///?socket={}", path.display());
    }
    Ok(())
}

/// Export names with the images that they stand for.
fn named(args: &NbdArgs) -> anyhow::Result<Vec<(String, String)>> {
    let mut named: Vec<(String, String)> = args.images.iter().map(|image| (image.clone(), image.clone())).collect();
    for export in &args.exports {
        let Some((name, image)) = export.split_once('=') else {
            bail!("--export {export}: write EXPORT=IMAGE, such as --export disk=demo");
        };
        named.push((name.into(), image.into()));
    }
    let mut names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        bail!("two exports are named {}", twice[0]);
    }
    Ok(named)
}

/// Images of a cluster as exports.
#[derive(Clone)]
struct Images {
    client: Client,
    named: Arc<[(String, String)]>,
    read_only: bool,
    served: Served,
}

impl Images {
    /// A name that was misspelt is told at the start.
    async fn check(&self) -> anyhow::Result<()> {
        for (_, image) in self.named.iter() {
            self.client.open(image).await.with_context(|| format!("cannot export {image}"))?;
        }
        Ok(())
    }

    /// The image that an export name stands for.
    fn image_of<'a>(&'a self, name: &'a str) -> Result<&'a str, String> {
        let named = |export: &&(String, String)| export.0 == name;
        match (name, &*self.named) {
            ("", [(_, only)]) => Ok(only),
            ("", _) => Err("name an export: its list says which there are".into()),
            (name, []) => Ok(name),
            (name, exports) => match exports.iter().find(named) {
                Some((_, image)) => Ok(image),
                None => Err(format!("'{name}' is not exported here: the list of exports says what is")),
            },
        }
    }
}

impl Exports for Images {
    type Disk = Image;

    async fn names(&self) -> Vec<String> {
        if !self.named.is_empty() {
            return self.named.iter().map(|(name, _)| name.clone()).collect();
        }
        self.client.images().await.unwrap_or_else(|error| {
            tracing::warn!("cannot list the images: {error}");
            Vec::new()
        })
    }

    async fn find(&self, name: &str) -> Result<Image, String> {
        let image = self.image_of(name)?.to_string();
        self.client.open(&image).await.map_err(|error| match error {
            Error::Op(OpError::NoSuchImage) => {
                format!("there is no image '{image}'; where several pools have one, name it as POOL/NAME")
            }
            error => {
                tracing::warn!("cannot export {image}: {error}");
                format!("cannot export '{image}': {error}")
            }
        })
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    async fn shrunk(&self, name: &str, disk: &Image) {
        let Ok(name) = self.image_of(name).map(str::to_string) else { return std::future::pending().await };
        let mut told = disk.size();
        loop {
            tokio::time::sleep(SIZE_PERIOD).await;
            // A name that is gone, or somebody else's, says nothing about this image.
            let Some(now) = self.client.open(&name).await.ok().filter(|now| now.is_same(disk)) else { continue };
            if now.size() < disk.size() {
                return tracing::warn!("{name} is smaller now: its clients have to connect again");
            }
            if now.size() > told {
                told = now.size();
                tracing::info!("{name} has {told} bytes now: clients see it when they connect again");
            }
        }
    }

    fn answered(&self, command: Command, took: Duration) {
        self.served.count(command, took);
    }
}
