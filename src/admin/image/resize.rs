//! `ashlar image resize`: another size, online.
//!
//! ```text
//! grow:    set the size
//! shrink:  lock for ourselves ---> discard what lies behind the new end ---> set the size ---> unlock
//! ```
//! Owns the order of a shrinking: nothing of others is under way while data go, and the size changes when they are gone, so
//! that an image that grows again begins with zeroes there. A command that ends half-way leaves an image of the old size,
//! zeroes at its end, and the lock; run again, it goes on.

use super::{Connection, parts, size_of};
use crate::admin::access::{self, Wait};
use crate::admin::{ATTEMPTS, pool_named, seeds};
use crate::metadata::Metadata;
use crate::size;
use anyhow::{Context, Result, bail};
use ashlar_client::{Client, Image as OpenImage};
use ashlar_core::id::{InodeId, PoolId};
use ashlar_core::map::access::Access;
use ashlar_core::map::parse::Key;
use ashlar_core::map::{ClusterMap, Image, keys};
use ashlar_core::meta::Compare;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// Discarded at a time: some thousand objects, so that progress is seen.
const PIECE_BYTES: u64 = 1 << 30;

/// Arguments of `image resize`.
#[derive(Debug, clap::Args)]
pub struct Resize {
    /// POOL/NAME.
    name: String,
    /// The new size, such as 20G.
    #[arg(long, value_parser = size::parse)]
    size: u64,
    /// Yes, make it smaller: what lies behind the new end is lost. No client should use the image meanwhile.
    #[arg(long)]
    shrink: bool,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Serialize)]
struct Resized {
    image: String,
    before_bytes: u64,
    size_bytes: u64,
    done: bool,
}

impl Resize {
    /// Does it.
    pub async fn run(self) -> Result<()> {
        let metadata = self.connection.open().await?;
        let (pool, inode, image) = find(&metadata.map().await?, &self.name)?;
        size_of(&self.name, self.size)?;
        self.refuse_losses(&image)?;
        if self.size == image.size_bytes {
            let done = !self.dry_run;
            let same = Resized { image: self.name.clone(), before_bytes: self.size, size_bytes: self.size, done };
            return self
                .connection
                .output()
                .print(&same, |same| format!("{} has {} already", same.image, size::human(self.size)));
        }
        if !self.dry_run && self.size < image.size_bytes {
            self.shrink(&metadata, (pool, inode)).await?;
        } else if !self.dry_run {
            set_size(&metadata, (pool, inode), self.size).await?;
        }
        let (before_bytes, size_bytes) = (image.size_bytes, self.size);
        let resized = Resized { image: self.name.clone(), before_bytes, size_bytes, done: !self.dry_run };
        self.connection.output().print(&resized, Resized::text)
    }

    fn refuse_losses(&self, image: &Image) -> Result<()> {
        if image.read_only || image.snapshot {
            bail!("{} is read-only; it keeps its size", self.name);
        }
        let (old, new) = (size::human(image.size_bytes), size::human(self.size));
        if self.size < image.size_bytes && !self.shrink && !self.dry_run {
            bail!("{} has {old}: making it {new} loses what lies behind; say --shrink if that is wanted", self.name);
        }
        Ok(())
    }

    async fn shrink(&self, metadata: &Metadata, image: (PoolId, InodeId)) -> Result<()> {
        let client = Client::connect(seeds(&metadata.map().await?)?)?;
        let open = client.open(&self.name).await.with_context(|| format!("opening {}", self.name))?;
        let lock = |access: &mut Access| match access.lock(image.0, image.1).filter(|holder| *holder != client.id()) {
            Some(holder) => bail!(
                "{0} is locked for client {holder}; if no client uses it (an earlier resize may have ended early), \
                 `ashlar image break-lock {0}`",
                self.name
            ),
            None => {
                access.set_lock(image.0, image.1, Some(client.id()));
                Ok(())
            }
        };
        let revision = access::change(metadata, lock).await?;
        access::wait(metadata, revision, self.wait).await?;
        let outcome = match self.discard_tail(&open).await {
            Ok(()) => set_size(metadata, image, self.size).await,
            Err(error) => Err(error),
        };
        access::change(metadata, |access| {
            access.set_lock(image.0, image.1, None);
            Ok(())
        })
        .await?;
        client.stop();
        outcome
    }

    async fn discard_tail(&self, image: &OpenImage) -> Result<()> {
        let bar = ProgressBar::new(image.size() - self.size);
        bar.set_style(ProgressStyle::with_template("{bytes}/{total_bytes} discarded, {eta} left").expect("a template"));
        let mut offset = self.size;
        while offset < image.size() {
            let len = PIECE_BYTES.min(image.size() - offset);
            image.discard(offset, len).await.with_context(|| format!("discarding the end of {}", self.name))?;
            offset += len;
            bar.inc(len);
        }
        bar.finish_and_clear();
        image.flush().await.with_context(|| format!("discarding the end of {}", self.name))
    }
}

impl Resized {
    fn text(&self) -> String {
        let Resized { image, before_bytes, size_bytes, done } = self;
        let (old, new) = (size::human(*before_bytes), size::human(*size_bytes));
        if !done {
            return format!("{image} would have {new}, not {old}");
        }
        let seen = if size_bytes < before_bytes {
            "NBD servers end the connections of clients that know the old size"
        } else {
            "NBD clients see it when they connect again"
        };
        format!("{image} has {new} now, not {old}; {seen}")
    }
}

fn find(map: &ClusterMap, name: &str) -> Result<(PoolId, InodeId, Image)> {
    let (pool_name, image_name) = parts(name)?;
    let (pool, _) = pool_named(map, pool_name)?;
    let (inode, image) = super::image_named(map, pool, pool_name, image_name)?;
    if image.removing {
        bail!("{name} is being removed");
    }
    Ok((pool, inode, image.clone()))
}

async fn set_size(metadata: &Metadata, (pool, inode): (PoolId, InodeId), size_bytes: u64) -> Result<()> {
    let key = keys::image(pool, inode);
    for _ in 0..ATTEMPTS {
        let map = metadata.map().await?;
        let image =
            map.image(pool, inode).filter(|image| !image.removing).context("the image was removed meanwhile")?;
        let changed = Image { size_bytes, ..image.clone() };
        let compare = vec![Compare::ModRevision(key.clone(), map.mod_revision(Key::Image(pool, inode)))];
        if metadata.put_if(compare, &key, serde_json::to_vec(&changed)?).await? {
            return Ok(());
        }
    }
    bail!("others kept changing the image; run this again")
}
