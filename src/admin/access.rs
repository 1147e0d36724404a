//! `ashlar client`, and the locks of images: who may not write.
//!
//! Owns changes of `config/access`, and the wait until every OSD obeys. Does not own the rules (core's `map::access`).

use super::{ATTEMPTS, Connection, Watch, image, pool_named};
use crate::metadata::Metadata;
use crate::output;
use anyhow::{Context, Result, bail};
use ashlar_core::id::{ClientId, InodeId, PoolId};
use ashlar_core::map::access::{Access, Fence, waits_for};
use ashlar_core::map::keys;
use ashlar_core::meta::Compare;
use clap::Subcommand;
use serde::Serialize;
use std::time::Duration;

/// Commands about clients.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the clients that are fenced off.
    List(Connection),
    /// Fence a client off: when this ends, nothing that it sent is carried out any more.
    Fence(FenceArgs),
    /// Let a fenced client go on.
    Unfence(Unfence),
}

/// Arguments of `client fence`.
#[derive(Debug, clap::Args)]
pub struct FenceArgs {
    /// Number of the client, as `ashlar nbd` says it at its start.
    client: u64,
    /// Only its sessions with lower numbers.
    #[arg(long, value_name = "NUMBER")]
    sessions_below: Option<u64>,
    /// For the list.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    connection: Connection,
}

/// Arguments of `client unfence`.
#[derive(Debug, clap::Args)]
pub struct Unfence {
    /// Number of the client.
    client: u64,
    #[command(flatten)]
    connection: Connection,
}

/// How long to wait for OSDs.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Wait {
    /// Seconds to wait until every OSD obeys; the rule stays in force however long that takes.
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    timeout: u64,
}

/// Arguments of `image lock`.
#[derive(Debug, clap::Args)]
pub struct Lock {
    /// POOL/NAME.
    name: String,
    /// Number of the client that may write it, as `ashlar nbd` says it at its start.
    #[arg(long, value_name = "CLIENT")]
    client: u64,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    connection: Connection,
}

/// Arguments of `image unlock`.
#[derive(Debug, clap::Args)]
pub struct Unlock {
    /// POOL/NAME.
    name: String,
    /// The client that has it: somebody else's lock is not touched.
    #[arg(long, value_name = "CLIENT")]
    client: u64,
    #[command(flatten)]
    connection: Connection,
}

/// Arguments of `image break-lock`.
#[derive(Debug, clap::Args)]
pub struct BreakLock {
    /// POOL/NAME.
    name: String,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Serialize)]
struct Row {
    client: ClientId,
    #[serde(flatten)]
    fence: Fence,
}

/// What a command did.
#[derive(Serialize)]
struct Done {
    client: ClientId,
    revision: u64,
}

/// Runs a command about clients.
pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::List(connection) => list(&connection).await,
        Command::Fence(args) => args.run().await,
        Command::Unfence(args) => args.run().await,
    }
}

async fn list(connection: &Connection) -> Result<()> {
    let (_, access) = read(&connection.open().await?).await?;
    let rows: Vec<Row> = access.fenced.into_iter().map(|(client, fence)| Row { client, fence }).collect();
    connection.output().print(&rows, |rows| {
        let mut table = output::table(["CLIENT", "SESSIONS", "REASON"]);
        for Row { client, fence } in rows {
            let sessions = fence.sessions_below.map_or("all".into(), |below| format!("below {below}"));
            table.add_row([&client.to_string(), &sessions, &fence.reason]);
        }
        table.to_string()
    })
}

impl FenceArgs {
    async fn run(self) -> Result<()> {
        let metadata = self.connection.open().await?;
        let client = ClientId(self.client);
        let fence = Fence { sessions_below: self.sessions_below, reason: self.reason };
        let revision = fence_off(&metadata, client, fence, self.wait).await?;
        let done = Done { client, revision };
        self.connection.output().print(&done, |_| format!("client {client} is fenced off: nothing of it is under way"))
    }
}

impl Unfence {
    async fn run(self) -> Result<()> {
        let client = ClientId(self.client);
        let lift = |access: &mut Access| match access.fenced.remove(&client) {
            Some(_) => Ok(()),
            None => bail!("client {client} is not fenced off; `ashlar client list` shows who is"),
        };
        let revision = change(&self.connection.open().await?, lift).await?;
        self.connection.output().print(&Done { client, revision }, |_| {
            format!("client {client} is not fenced off any more; one that ran meanwhile has to be started again")
        })
    }
}

impl Lock {
    /// Locks the image for a client.
    pub async fn run(self) -> Result<()> {
        let metadata = self.connection.open().await?;
        let (pool, inode) = find(&metadata, &self.name).await?;
        if metadata.map().await?.image(pool, inode).is_some_and(|image| image.removing) {
            bail!("{} is being removed", self.name);
        }
        let (client, name) = (ClientId(self.client), &self.name);
        let lock = |access: &mut Access| match access.lock(pool, inode).filter(|holder| *holder != client) {
            Some(holder) => {
                bail!("{name} is locked for client {holder}; `ashlar image break-lock {name}` fences that client off")
            }
            None => {
                access.set_lock(pool, inode, Some(client));
                Ok(())
            }
        };
        let revision = change(&metadata, lock).await?;
        wait(&metadata, revision, self.wait).await?;
        let done = Done { client, revision };
        self.connection.output().print(&done, |_| format!("{name} is locked for client {client}"))
    }
}

impl Unlock {
    /// Unlocks the image.
    pub async fn run(self) -> Result<()> {
        let metadata = self.connection.open().await?;
        let (pool, inode) = find(&metadata, &self.name).await?;
        let (client, name) = (ClientId(self.client), &self.name);
        let unlock = |access: &mut Access| match access.lock(pool, inode) {
            Some(holder) if holder == client => {
                access.set_lock(pool, inode, None);
                Ok(())
            }
            Some(holder) => bail!("{name} is locked for client {holder}, not for {client}"),
            None => bail!("{name} is not locked"),
        };
        let revision = change(&metadata, unlock).await?;
        self.connection.output().print(&Done { client, revision }, |_| format!("{name} is unlocked"))
    }
}

impl BreakLock {
    /// Fences the holder off, and unlocks the image once nothing of it is under way.
    pub async fn run(self) -> Result<()> {
        let metadata = self.connection.open().await?;
        let (pool, inode) = find(&metadata, &self.name).await?;
        let name = &self.name;
        let (_, access) = read(&metadata).await?;
        let Some(client) = access.lock(pool, inode) else { bail!("{name} is not locked") };
        let fence = Fence { sessions_below: None, reason: format!("its lock of {name} was broken") };
        fence_off(&metadata, client, fence, self.wait).await?;
        let unlock = |access: &mut Access| {
            if access.lock(pool, inode) == Some(client) {
                access.set_lock(pool, inode, None);
            }
            Ok(())
        };
        let revision = change(&metadata, unlock).await?;
        let done = Done { client, revision };
        self.connection.output().print(&done, |_| format!("{name} is unlocked; client {client} is fenced off"))
    }
}

async fn find(metadata: &Metadata, name: &str) -> Result<(PoolId, InodeId)> {
    let (pool_name, image_name) = image::parts(name)?;
    let map = metadata.map().await?;
    let (pool, _) = pool_named(&map, pool_name)?;
    Ok((pool, image::image_named(&map, pool, pool_name, image_name)?.0))
}

async fn fence_off(metadata: &Metadata, client: ClientId, fence: Fence, patience: Wait) -> Result<u64> {
    let add = |access: &mut Access| {
        access.fenced.insert(client, fence.clone());
        Ok(())
    };
    let revision = change(metadata, add).await?;
    wait(metadata, revision, patience).await?;
    Ok(revision)
}

/// The rules, and the revision of their key.
async fn read(metadata: &Metadata) -> Result<(u64, Access)> {
    let key = keys::access();
    let Some(stored) = metadata.get(&key).await? else { return Ok((0, Access::default())) };
    let access = serde_json::from_slice(&stored.value)
        .with_context(|| format!("{key} does not make sense; correct it with etcdctl"))?;
    Ok((stored.mod_revision, access))
}

/// Changes the rules; gives a revision at which the change is in force.
pub(super) async fn change(metadata: &Metadata, apply: impl Fn(&mut Access) -> Result<()>) -> Result<u64> {
    let key = keys::access();
    for _ in 0..ATTEMPTS {
        let (revision, mut access) = read(metadata).await?;
        apply(&mut access)?;
        let compare = vec![Compare::ModRevision(key.clone(), revision)];
        if metadata.put_if(compare, &key, serde_json::to_vec(&access)?).await? {
            return Ok(read(metadata).await?.0);
        }
    }
    bail!("others kept changing {key}; run this again")
}

/// Waits until a change of the rules is complete, and says whom it waits for.
pub(super) async fn wait(metadata: &Metadata, revision: u64, patience: Wait) -> Result<()> {
    let mut watch = Watch::new();
    loop {
        let waits = waits_for(&metadata.map().await?, revision);
        if waits.is_empty() {
            return Ok(());
        }
        if watch.elapsed() >= Duration::from_secs(patience.timeout) {
            bail!(
                "the rule is in force, but not obeyed everywhere yet; waiting for {}; run this again",
                waits.join("; ")
            );
        }
        watch.pause(|| format!("waiting for {}", waits.join("; "))).await;
    }
}
