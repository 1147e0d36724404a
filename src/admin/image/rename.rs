//! `ashlar image rename`: another name, online. Who has the image open keeps it; new connections ask for the new name.

use super::{Connection, check_name, image_named, parts};
use crate::admin::{ATTEMPTS, pool_named};
use crate::metadata::Metadata;
use anyhow::{Result, bail};
use ashlar_core::map::parse::Key;
use ashlar_core::map::{Image, keys};
use ashlar_core::meta::Compare;

/// Arguments of `image rename`.
#[derive(Debug, clap::Args)]
pub struct Rename {
    /// POOL/NAME.
    name: String,
    /// The new name, in the same pool.
    new_name: String,
    #[command(flatten)]
    connection: Connection,
}

impl Rename {
    /// Does it.
    pub async fn run(self) -> Result<()> {
        let metadata = self.connection.open().await?;
        let (pool, _) = parts(&self.name)?;
        let name = match self.new_name.split_once('/') {
            Some((other, _)) if other != pool => bail!("an image stays in its pool: '{other}' is not '{pool}'"),
            Some((_, name)) => name,
            None => &self.new_name,
        };
        check_name(name)?;
        if parts(&self.name)?.1 == name {
            bail!("'{name}' is its name already; choose another");
        }
        for _ in 0..ATTEMPTS {
            if self.try_rename(&metadata, name).await? {
                let renamed = serde_json::json!({ "image": format!("{pool}/{name}") });
                return self.connection.output().print(&renamed, |_| format!("{} is {pool}/{name} now", self.name));
            }
        }
        bail!("others kept changing images; run this again")
    }

    /// One attempt. Creations change the counter too, so whoever took the name after our look at the map is noticed.
    async fn try_rename(&self, metadata: &Metadata, name: &str) -> Result<bool> {
        let (pool_name, old) = parts(&self.name)?;
        let map = metadata.map().await?;
        let (pool, _) = pool_named(&map, pool_name)?;
        let (inode, image) = image_named(&map, pool, pool_name, old)?;
        if image.removing {
            bail!("{} is being removed", self.name);
        }
        let mut others = map.images().filter(|(of, number, _)| *of == pool && *number != inode);
        if let Some((_, other, _)) = others.find(|(.., image)| image.name == name) {
            bail!("image '{pool_name}/{name}' exists already (inode {other}); choose another name");
        }
        let (key, counter) = (keys::image(pool, inode), keys::last_inode(pool));
        let numbers = map.images().filter(|(of, ..)| *of == pool).map(|(_, inode, _)| inode);
        let last = map.last_inode(pool).map(|(last, _)| last).or(numbers.max());
        let compare = vec![
            Compare::ModRevision(key.clone(), map.mod_revision(Key::Image(pool, inode))),
            Compare::ModRevision(counter.clone(), map.mod_revision(Key::LastInode(pool))),
        ];
        let renamed = Image { name: name.into(), ..image.clone() };
        // The image's key first: see `keys::last_inode`.
        let puts = vec![(key, serde_json::to_vec(&renamed)?), (counter, serde_json::to_vec(&last)?)];
        metadata.put_all_if(compare, puts).await
    }
}
