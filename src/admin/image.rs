//! `ashlar image`: list and create.

use super::{Connection, pool_named};
use crate::metadata::Metadata;
use crate::{output, size};
use anyhow::{Result, bail};
use ashlar_core::id::{InodeId, PoolId};
use ashlar_core::limits::SECTOR_BYTES;
use ashlar_core::map::{Image, keys};
use ashlar_core::meta::Compare;
use clap::Subcommand;
use serde::Serialize;

/// Attempts to take a number while others take numbers too.
const ATTEMPTS: u32 = 10;

/// Commands about images.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the images.
    List(Connection),
    /// Create an image.
    Create(Create),
}

/// Arguments of `image create`.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// POOL/NAME.
    name: String,
    /// Its size, such as 10G.
    #[arg(long, value_parser = size::parse)]
    size: u64,
    #[command(flatten)]
    connection: Connection,
}

/// An image, its pool and its number.
#[derive(Serialize)]
struct Row {
    pool: String,
    inode: InodeId,
    #[serde(flatten)]
    image: Image,
}

/// Runs a command.
pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::List(connection) => list(&connection).await,
        Command::Create(create) => create.run().await,
    }
}

async fn list(connection: &Connection) -> Result<()> {
    let map = connection.open().await?.map().await?;
    let pool_name = |id: PoolId| map.pool(id).map_or_else(|| format!("({id})"), |pool| pool.name.clone());
    let row =
        |(pool, inode, image): (PoolId, InodeId, &Image)| Row { pool: pool_name(pool), inode, image: image.clone() };
    let rows: Vec<_> = map.images().map(row).collect();
    connection.output().print(&rows, |rows| {
        let mut table = output::table(["POOL", "NAME", "SIZE", "INODE", "FLAGS"]);
        for Row { pool, inode, image } in rows {
            let flags = [(image.read_only, "read-only"), (image.snapshot, "snapshot"), (image.removing, "removing")];
            let flags: Vec<_> = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
            table.add_row([pool, &image.name, &size::human(image.size_bytes), &inode.to_string(), &flags.join(" ")]);
        }
        table.to_string()
    })
}

impl Create {
    async fn run(self) -> Result<()> {
        let Some((pool_name, name)) = self.name.split_once('/') else {
            bail!("'{}' names no pool; write POOL/NAME", self.name);
        };
        let metadata = self.connection.open().await?;
        let inode = create(&metadata, pool_name, name, self.size).await?;
        let image = Image { name: name.into(), ..empty(self.size) };
        let row = Row { pool: pool_name.into(), inode, image };
        self.connection.output().print(&row, |row| {
            format!(
                "created image {}/{} of {}, inode {}",
                row.pool,
                row.image.name,
                size::human(row.image.size_bytes),
                row.inode
            )
        })
    }
}

fn empty(size_bytes: u64) -> Image {
    Image { name: String::new(), size_bytes, parent: None, read_only: false, snapshot: false, removing: false }
}

/// Creates an image; an error if its name is taken.
pub async fn create(metadata: &Metadata, pool_name: &str, name: &str, size_bytes: u64) -> Result<InodeId> {
    if size_bytes == 0 || !size_bytes.is_multiple_of(u64::from(SECTOR_BYTES)) {
        bail!(
            "image '{name}': {size_bytes} bytes are not a whole number of sectors of {SECTOR_BYTES} bytes; choose another size"
        );
    }
    if name.is_empty() || name.len() > 255 || name.contains(|c: char| c == '/' || c.is_control()) {
        bail!("{name:?} cannot be an image's name; use 1 to 255 bytes without '/' and control characters");
    }
    for _ in 0..ATTEMPTS {
        if let Some(inode) = try_create(metadata, pool_name, name, size_bytes).await? {
            return Ok(inode);
        }
    }
    bail!("others kept creating images; run this again")
}

/// One attempt; `None` if another image came in between. The number is read first: it changes with every creation, so
/// whoever took the name after our look at the map changed it too.
async fn try_create(metadata: &Metadata, pool_name: &str, name: &str, size_bytes: u64) -> Result<Option<InodeId>> {
    let (pool, _) = pool_named(&metadata.map().await?, pool_name).map(|(id, pool)| (id, pool.clone()))?;
    let counter = keys::last_inode(pool);
    let stored = metadata.get(&counter).await?;
    let revision = stored.as_ref().map_or(0, |stored| stored.mod_revision);
    let last: u64 = stored.map_or(Ok(0), |stored| serde_json::from_slice(&stored.value))?;
    let map = metadata.map().await?;
    let mut images = map.images().filter(|(of, ..)| *of == pool);
    if let Some((_, inode, _)) = images.find(|(_, _, image)| image.name == name) {
        bail!("image '{pool_name}/{name}' exists already (inode {inode}); choose another name");
    }
    let inode = InodeId(last + 1);
    let image = Image { name: name.into(), ..empty(size_bytes) };
    let puts =
        vec![(counter.clone(), serde_json::to_vec(&inode)?), (keys::image(pool, inode), serde_json::to_vec(&image)?)];
    let done = metadata.put_all_if(vec![Compare::ModRevision(counter, revision)], puts).await?;
    Ok(done.then_some(inode))
}
