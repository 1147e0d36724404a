//! `ashlar pool remove`: no more images, then none, then no pool.
//!
//! Owns the order: the pool is marked, so that nobody creates an image in it; its images are marked; then the daemons do
//! the rest, whether this command waits or not: primaries delete the images' objects, the leading monitor strikes the pool
//! off, and OSDs drop what they still hold of it, at once or when they come back.

use super::{Connection, read};
use crate::admin::confirm::Removing;
use crate::admin::status::Statistics;
use crate::admin::{ATTEMPTS, Watch, image, pool_named};
use crate::metadata::Metadata;
use crate::size;
use anyhow::{Result, bail};
use ashlar_core::id::PoolId;
use ashlar_core::map::parse::Key;
use ashlar_core::map::{ClusterMap, keys};
use ashlar_core::meta::{Compare, Keys, TxnOp};
use serde::Serialize;

/// Arguments of `pool remove`.
#[derive(Debug, clap::Args)]
pub struct Remove {
    /// Its name.
    name: String,
    /// With all images in it; a pool that has any is refused otherwise.
    #[arg(long)]
    with_images: bool,
    /// Do not have the groups delete the images' objects one after the other: OSDs just drop what they hold. For pools of
    /// which groups are lost for good.
    #[arg(long)]
    at_once: bool,
    #[command(flatten)]
    how: Removing,
    #[command(flatten)]
    connection: Connection,
}

/// What is removed.
#[derive(Serialize)]
struct Report {
    id: PoolId,
    pool: String,
    images: usize,
    images_bytes: u64,
    used_bytes: u64,
    done: bool,
}

impl Report {
    fn what(&self) -> String {
        let Report { pool, images, images_bytes, used_bytes, .. } = self;
        let (promised, used) = (size::human(*images_bytes), size::human(*used_bytes));
        format!("pool '{pool}' with {images} images of {promised}, {used} on devices")
    }
}

impl Remove {
    /// Removes it.
    pub async fn run(self) -> Result<()> {
        let metadata = self.connection.open().await?;
        let map = metadata.map().await?;
        let mut report = self.report(&metadata, &map).await?;
        let id = report.id;
        if self.how.dry_run {
            return self.connection.output().print(&report, |report| format!("{} would be removed", report.what()));
        }
        // A removal that was begun is gone on with.
        let begun = map.pool(id).is_some_and(|pool| pool.removing);
        if report.images > 0 && !self.with_images && !begun {
            bail!(
                "pool '{}' has {} images; remove them first, or all together with --with-images",
                self.name,
                report.images
            );
        }
        self.how.confirm.ask(&format!("{} would be removed for good", report.what()), &self.name)?;
        self.mark(&metadata, id).await?;
        self.remove_images(&metadata, id).await?;
        if !self.how.no_wait {
            wait(&metadata, id).await?;
            report.done = true;
        }
        self.connection.output().print(&report, |report| match report.done {
            true => format!("removed {}", report.what()),
            false => format!("the removal of {} goes on by itself", report.what()),
        })
    }

    async fn report(&self, metadata: &Metadata, map: &ClusterMap) -> Result<Report> {
        let (id, pool) = pool_named(map, &self.name)?;
        let images = || map.images().filter(|(of, ..)| *of == id).map(|(.., image)| image);
        if let Some((_, _, child)) = map.images().find(|(of, _, image)| *of != id && is_based_on(image, id)) {
            bail!("image '{}' of another pool is based on an image of '{}'; remove it first", child.name, pool.name);
        }
        map.images()
            .filter(|(of, _, image)| *of == id && !image.removing)
            .try_for_each(|(_, inode, image)| image::refuse_locked(map, id, inode, image))?;
        let statistics = metadata.statistics::<Statistics>().await?;
        Ok(Report {
            id,
            pool: pool.name.clone(),
            images: images().count(),
            images_bytes: images().map(|image| image.size_bytes).sum(),
            used_bytes: super::show::figures(&statistics, id).used_bytes,
            done: false,
        })
    }

    /// From then on nobody creates an image in the pool: creations compare the pools' revision.
    async fn mark(&self, metadata: &Metadata, id: PoolId) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let (revision, mut pools) = read(metadata).await?;
            let images = metadata.map().await?.images().filter(|(of, ..)| *of == id).count();
            let Some(pool) = pools.0.get_mut(&id) else { return Ok(()) };
            if pool.name != self.name {
                bail!("pool {id} was renamed to '{}' just now; run this again", pool.name);
            }
            if images > 0 && !self.with_images && !pool.removing {
                bail!("somebody has just created an image in pool '{}'; run this again", self.name);
            }
            pool.removing = true;
            let compare = vec![Compare::ModRevision(keys::pools(), revision)];
            if metadata.put_if(compare, &keys::pools(), serde_json::to_vec(&pools)?).await? {
                return Ok(());
            }
        }
        bail!("others kept changing the pools; run this again")
    }

    /// Marks all images for removal, or takes them away.
    async fn remove_images(&self, metadata: &Metadata, id: PoolId) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let map = metadata.map().await?;
            let mut left = 0;
            for (_, inode, image) in map.images().filter(|(of, ..)| *of == id) {
                let done = if self.at_once {
                    let compare = Compare::ModRevision(keys::image(id, inode), map.mod_revision(Key::Image(id, inode)));
                    let delete = TxnOp::Delete(Keys::One(keys::image(id, inode)));
                    metadata.transact(vec![compare], vec![delete]).await?
                } else {
                    image.removing || image::mark_removing(metadata, id, inode).await?
                };
                left += usize::from(!done);
            }
            if left == 0 {
                return Ok(());
            }
        }
        bail!("others kept changing images of this pool; run this again")
    }
}

fn is_based_on(image: &ashlar_core::map::Image, pool: PoolId) -> bool {
    image.parent.is_some_and(|(of, _)| of == pool)
}

/// Waits until nothing is left of a pool but what OSDs have to drop, and says how far that is when it takes long.
async fn wait(metadata: &Metadata, id: PoolId) -> Result<()> {
    let mut watch = Watch::new();
    loop {
        let map = metadata.map().await?;
        let groups = map.pg_maps().filter(|(pg, _)| pg.pool == id).count();
        if map.is_removed(id) && groups == 0 {
            return Ok(());
        }
        let images = map.images().filter(|(of, ..)| *of == id).count();
        let left = if images > 0 { format!("{images} images are left") } else { format!("{groups} groups are left") };
        watch.pause(|| format!("{left}; this command may be ended, the removal goes on")).await;
    }
}
