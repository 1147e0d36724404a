//! `ashlar image`: list, show, create, resize, rename, lock, remove.

mod rename;
mod resize;
mod usage;

use super::confirm::Removing;
use super::{ATTEMPTS, Connection, Watch, access, pool_named};
use crate::metadata::Metadata;
use crate::{output, size};
use anyhow::{Context, Result, bail};
use ashlar_core::id::{ClientId, InodeId, PoolId};
use ashlar_core::limits::SECTOR_BYTES;
use ashlar_core::map::parse::Key;
use ashlar_core::map::{ClusterMap, Image, keys};
use ashlar_core::meta::Compare;
use ashlar_core::osd::ClientCounters;
use clap::Subcommand;
use serde::Serialize;
use std::collections::BTreeMap;

pub use usage::{io, keep};

/// Commands about images.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the images.
    List(List),
    /// Show one image.
    Show(Show),
    /// Create an image.
    Create(Create),
    /// Make an image larger, or (with --shrink) smaller.
    Resize(resize::Resize),
    /// Give an image another name.
    Rename(rename::Rename),
    /// Remove an image and all that is in it.
    Remove(Remove),
    /// Let only one client write an image: when this ends, nothing of others is under way.
    Lock(access::Lock),
    /// End a lock.
    Unlock(access::Unlock),
    /// Fence the client off that has an image's lock, and end the lock.
    BreakLock(access::BreakLock),
}

/// Arguments of `image list`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Only images of this pool.
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// Ask how much of each was ever written, object by object: this takes its time.
    #[arg(long)]
    usage: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Arguments of `image show`.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// POOL/NAME.
    name: String,
    /// Ask how much of it was ever written, object by object: this takes its time.
    #[arg(long)]
    usage: bool,
    #[command(flatten)]
    connection: Connection,
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

/// Arguments of `image remove`.
#[derive(Debug, clap::Args)]
pub struct Remove {
    /// POOL/NAME.
    name: String,
    #[command(flatten)]
    how: Removing,
    #[command(flatten)]
    connection: Connection,
}

/// An image, its pool and its number.
#[derive(Serialize)]
struct Row {
    pool: String,
    inode: InodeId,
    /// The client that alone may write it.
    #[serde(skip_serializing_if = "Option::is_none")]
    locked_for: Option<ClientId>,
    /// Bytes that were ever written.
    #[serde(skip_serializing_if = "Option::is_none")]
    written_bytes: Option<u64>,
    /// I/O since its OSDs started.
    io: ClientCounters,
    #[serde(flatten)]
    image: Image,
}

/// Runs a command.
pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::List(list) => list.run().await,
        Command::Show(show) => show.run().await,
        Command::Create(create) => create.run().await,
        Command::Resize(resize) => resize.run().await,
        Command::Rename(rename) => rename.run().await,
        Command::Remove(remove) => remove.run().await,
        Command::Lock(lock) => lock.run().await,
        Command::Unlock(unlock) => unlock.run().await,
        Command::BreakLock(break_lock) => break_lock.run().await,
    }
}

impl List {
    async fn run(self) -> Result<()> {
        let metadata = self.connection.open().await?;
        let (map, io) = (metadata.map().await?, usage::io(&metadata).await?);
        let only = self.pool.as_deref().map(|name| pool_named(&map, name)).transpose()?.map(|(id, _)| id);
        let images = map.images().filter(|(pool, ..)| only.is_none_or(|only| only == *pool));
        let row = |(pool, inode, image)| Row::of(&map, pool, inode, image).with_io(&io, (pool, inode));
        let mut rows: Vec<_> = images.map(row).collect();
        if self.usage {
            usage::measure(&self.connection, &mut rows).await?;
        }
        self.connection.output().print(&rows, |rows| {
            let mut table = output::table(["POOL", "NAME", "SIZE", "WRITTEN", "READS", "WRITES", "INODE", "FLAGS"]);
            for row in rows {
                let written = row.written_bytes.map_or_else(|| "-".into(), size::human);
                let (reads, writes) = (row.io.read_ops.to_string(), row.io.write_ops.to_string());
                let (size, flags) = (size::human(row.image.size_bytes), flags(&row.image, row.locked_for));
                let inode = row.inode.to_string();
                table.add_row([&row.pool, &row.image.name, &size, &written, &reads, &writes, &inode, &flags]);
            }
            table.to_string()
        })
    }
}

/// What is special about an image.
fn flags(image: &Image, locked_for: Option<ClientId>) -> String {
    let flags = [(image.read_only, "read-only"), (image.snapshot, "snapshot"), (image.removing, "removing")];
    let flags = flags.iter().filter(|(set, _)| *set).map(|(_, name)| name.to_string());
    let lock = locked_for.map(|client| format!("locked for client {client}"));
    flags.chain(lock).collect::<Vec<_>>().join(" ")
}

impl Row {
    fn of(map: &ClusterMap, pool: PoolId, inode: InodeId, image: &Image) -> Row {
        let name = map.pool(pool).map_or_else(|| format!("({pool})"), |pool| pool.name.clone());
        let locked_for = map.access().and_then(|access| access.lock(pool, inode));
        let io = ClientCounters::default();
        Row { pool: name, inode, locked_for, written_bytes: None, io, image: image.clone() }
    }

    fn with_io(mut self, io: &BTreeMap<(PoolId, InodeId), ClientCounters>, of: (PoolId, InodeId)) -> Row {
        self.io = io.get(&of).copied().unwrap_or_default();
        self
    }
}

impl Show {
    async fn run(self) -> Result<()> {
        let (pool_name, name) = parts(&self.name)?;
        let metadata = self.connection.open().await?;
        let (map, io) = (metadata.map().await?, usage::io(&metadata).await?);
        let (id, pool) = pool_named(&map, pool_name)?;
        let (inode, image) = image_named(&map, id, pool_name, name)?;
        let object_bytes = u64::from(pool.object_bytes());
        let mut rows = [Row::of(&map, id, inode, image).with_io(&io, (id, inode))];
        if self.usage {
            usage::measure(&self.connection, &mut rows).await?;
        }
        let [row] = rows;
        self.connection.output().print(&row, |row| {
            let mut table = output::table(["", ""]);
            table.add_row(["image", &self.name]);
            table.add_row(["inode", &format!("{} of pool {id}", row.inode)]);
            table.add_row(["size", &format!("{} ({} bytes)", size::human(image.size_bytes), image.size_bytes)]);
            let objects = image.size_bytes.div_ceil(object_bytes);
            table.add_row(["objects", &format!("up to {objects} of {}", size::human(object_bytes))]);
            if let Some(written) = row.written_bytes {
                table.add_row(["written", &size::human(written)]);
            }
            let ClientCounters { read_ops, write_ops, read_bytes, write_bytes } = row.io;
            let (read, written) = (size::human(read_bytes), size::human(write_bytes));
            table.add_row(["reads", &format!("{read_ops} of {read}, since its OSDs started")]);
            table.add_row(["writes", &format!("{write_ops} of {written}")]);
            let parent = image.parent.map(|(pool, inode)| format!("inode {inode} of pool {pool}"));
            table.add_row(["parent", &parent.unwrap_or_else(|| "none".into())]);
            table.add_row(["flags", &flags(image, row.locked_for)]);
            table.to_string()
        })
    }
}

impl Create {
    async fn run(self) -> Result<()> {
        let (pool_name, name) = parts(&self.name)?;
        let metadata = self.connection.open().await?;
        let inode = create(&metadata, pool_name, name, self.size).await?;
        let image = Image { name: name.into(), ..empty(self.size) };
        let io = ClientCounters::default();
        let row = Row { pool: pool_name.into(), inode, locked_for: None, written_bytes: None, io, image };
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

/// Pool and name.
pub(super) fn parts(name: &str) -> Result<(&str, &str)> {
    name.split_once('/').with_context(|| format!("'{name}' names no pool; write POOL/NAME"))
}

/// How far a removal is.
#[derive(Serialize)]
struct Removal {
    pool: String,
    image: String,
    inode: InodeId,
    /// Whether nothing is left.
    done: bool,
}

impl Remove {
    async fn run(self) -> Result<()> {
        let (pool_name, name) = parts(&self.name)?;
        let metadata = self.connection.open().await?;
        if self.how.dry_run {
            return self.say_only(&metadata.map().await?);
        }
        self.ask(&metadata.map().await?)?;
        let (pool, inode) = mark(&metadata, pool_name, name).await?;
        if !self.how.no_wait {
            wait_until_removed(&metadata, pool, inode).await?;
        }
        let removal = Removal { pool: pool_name.into(), image: name.into(), inode, done: !self.how.no_wait };
        self.connection.output().print(&removal, |removal| {
            let Removal { pool, image, inode, done } = removal;
            let what = if *done { "removed" } else { "removal goes on by itself:" };
            format!("{what} {pool}/{image}, inode {inode}")
        })
    }
}

impl Remove {
    /// Asks, unless the removal has begun already.
    fn ask(&self, map: &ClusterMap) -> Result<()> {
        let (pool_name, name) = parts(&self.name)?;
        let (inode, image) = image_named(map, pool_named(map, pool_name)?.0, pool_name, name)?;
        if image.removing {
            return Ok(());
        }
        let (pool, _) = pool_named(map, pool_name)?;
        refuse_locked(map, pool, inode, image)?;
        let size = size::human(image.size_bytes);
        self.how.confirm.ask(&format!("image '{}' of {size} would be removed for good", self.name), &self.name)
    }

    fn say_only(&self, map: &ClusterMap) -> Result<()> {
        let (pool_name, name) = parts(&self.name)?;
        let (pool, _) = pool_named(map, pool_name)?;
        let (inode, image) = image_named(map, pool, pool_name, name)?;
        refuse_locked(map, pool, inode, image)?;
        self.connection.output().print(&Row::of(map, pool, inode, image), |row| {
            format!("{} (inode {}, {}) would be removed", self.name, row.inode, size::human(row.image.size_bytes))
        })
    }
}

/// Marks an image for removal, unless it is marked. From then on no client reads or writes it, and the groups' primaries
/// delete its objects.
async fn mark(metadata: &Metadata, pool_name: &str, name: &str) -> Result<(PoolId, InodeId)> {
    for _ in 0..ATTEMPTS {
        let map = metadata.map().await?;
        let (pool, _) = pool_named(&map, pool_name)?;
        let (inode, image) = image_named(&map, pool, pool_name, name)?;
        if image.removing || try_mark(metadata, &map, pool, inode, image).await? {
            return Ok((pool, inode));
        }
    }
    bail!("others kept changing images; run this again")
}

/// Marks an image by its number, with what is known at this moment; false if somebody else changed something.
pub(super) async fn mark_removing(metadata: &Metadata, pool: PoolId, inode: InodeId) -> Result<bool> {
    let map = metadata.map().await?;
    match map.image(pool, inode) {
        Some(image) if !image.removing => try_mark(metadata, &map, pool, inode, image).await,
        _ => Ok(true),
    }
}

pub(super) fn image_named<'a>(
    map: &'a ClusterMap,
    pool: PoolId,
    pool_name: &str,
    name: &str,
) -> Result<(InodeId, &'a Image)> {
    let mut images = map.images().filter(|(of, ..)| *of == pool);
    let found = images.find(|(_, _, image)| image.name == name).map(|(_, inode, image)| (inode, image));
    found.with_context(|| format!("there is no image '{pool_name}/{name}'; `ashlar image list` shows those there are"))
}

/// An image that is locked for a client is in use.
pub(super) fn refuse_locked(map: &ClusterMap, pool: PoolId, inode: InodeId, image: &Image) -> Result<()> {
    if map.is_refused(Key::Access) {
        bail!("{} makes no sense, so nobody knows which images are locked; correct it with etcdctl", keys::access());
    }
    let pool_name = map.pool(pool).map_or("", |pool| pool.name.as_str());
    match map.access().and_then(|access| access.lock(pool, inode)) {
        Some(holder) => bail!(
            "image '{pool_name}/{name}' is locked for client {holder}; end the lock first: `ashlar image unlock` if that \
             client is done, `ashlar image break-lock` if it is gone",
            name = image.name
        ),
        None => Ok(()),
    }
}

async fn try_mark(metadata: &Metadata, map: &ClusterMap, pool: PoolId, inode: InodeId, image: &Image) -> Result<bool> {
    if let Some((_, _, child)) = map.images().find(|(_, _, other)| other.parent == Some((pool, inode))) {
        bail!("image '{}' is based on '{}'; remove that one first", child.name, image.name);
    }
    refuse_locked(map, pool, inode, image)?;
    let (key, counter) = (keys::image(pool, inode), keys::last_inode(pool));
    let numbers = map.images().filter(|(of, ..)| *of == pool).map(|(_, inode, _)| inode);
    let last = map.last_inode(pool).map(|(last, _)| last).or(numbers.max());
    let compare = vec![
        Compare::ModRevision(key.clone(), map.mod_revision(Key::Image(pool, inode))),
        Compare::ModRevision(counter.clone(), map.mod_revision(Key::LastInode(pool))),
        Compare::ModRevision(keys::access(), map.mod_revision(Key::Access)),
    ];
    let marked = Image { removing: true, ..image.clone() };
    // The image's key first: see `keys::last_inode`.
    let puts = vec![(key, serde_json::to_vec(&marked)?), (counter, serde_json::to_vec(&last)?)];
    metadata.put_all_if(compare, puts).await
}

/// Waits, and says how far it is when it takes long.
async fn wait_until_removed(metadata: &Metadata, pool: PoolId, inode: InodeId) -> Result<()> {
    let mut watch = Watch::new();
    loop {
        let map = metadata.map().await?;
        if map.image(pool, inode).is_none() {
            return Ok(());
        }
        let progress = || {
            let layout = map.layout(pool).map(|layout| layout.now).unwrap_or_default();
            let done = map.removed_from(pool, inode).filter(|number| layout.contains(*number)).count();
            let all = layout.pg_count;
            format!("{done} of {all} placement groups are done; this command may be ended, the removal goes on")
        };
        watch.pause(progress).await;
    }
}

fn empty(size_bytes: u64) -> Image {
    Image { name: String::new(), size_bytes, parent: None, read_only: false, snapshot: false, removing: false }
}

/// Refuses what cannot be an image's size.
fn size_of(name: &str, size_bytes: u64) -> Result<()> {
    if size_bytes == 0 || !size_bytes.is_multiple_of(u64::from(SECTOR_BYTES)) {
        bail!(
            "image '{name}': {size_bytes} bytes are not a whole number of sectors of {SECTOR_BYTES} bytes; choose another size"
        );
    }
    Ok(())
}

/// Refuses what cannot be an image's name.
fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > 255 || name.contains(|c: char| c == '/' || c.is_control()) {
        bail!("{name:?} cannot be an image's name; use 1 to 255 bytes without '/' and control characters");
    }
    Ok(())
}

/// Creates an image; an error if its name is taken.
pub async fn create(metadata: &Metadata, pool_name: &str, name: &str, size_bytes: u64) -> Result<InodeId> {
    size_of(name, size_bytes)?;
    check_name(name)?;
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
    let map = metadata.map().await?;
    let (pool, found) = pool_named(&map, pool_name)?;
    if found.removing {
        bail!("pool '{pool_name}' is being removed; choose another");
    }
    let pools = map.mod_revision(Key::Pools);
    let counter = keys::last_inode(pool);
    let stored = metadata.get(&counter).await?;
    let revision = stored.as_ref().map_or(0, |stored| stored.mod_revision);
    let last: u64 = stored.map_or(Ok(0), |stored| serde_json::from_slice(&stored.value))?;
    let map = metadata.map().await?;
    let mut images = map.images().filter(|(of, ..)| *of == pool);
    if let Some((_, inode, image)) = images.find(|(_, _, image)| image.name == name) {
        if image.removing {
            bail!("image '{pool_name}/{name}' (inode {inode}) is still being removed; run this again when it is gone");
        }
        bail!("image '{pool_name}/{name}' exists already (inode {inode}); choose another name");
    }
    let inode = InodeId(last + 1);
    let image = Image { name: name.into(), ..empty(size_bytes) };
    // The image's key first: see `keys::last_inode`.
    let puts =
        vec![(keys::image(pool, inode), serde_json::to_vec(&image)?), (counter.clone(), serde_json::to_vec(&inode)?)];
    // A pool that goes is marked first: whoever did not see the mark creates nothing.
    let compare = vec![Compare::ModRevision(counter, revision), Compare::ModRevision(keys::pools(), pools)];
    let done = metadata.put_all_if(compare, puts).await?;
    Ok(done.then_some(inode))
}
