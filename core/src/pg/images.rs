//! Which images exist: what groups must know so that a removed image's objects do not come back.
//!
//! Owns the numbers of images by pool, as the cluster map gives them. Does not own the removal of objects (removal.rs).
//!
//! Invariant: the revision of a pool is that of its key `config/last_inode`; all images that were created or marked for
//! removal up to it are known, since each such transaction writes that key after the image's. A pool without that key
//! (whose images were not made by this project's tools) is open to any number.

use crate::id::{InodeId, PoolId, Revision};
use crate::map::{ClusterMap, Image};
use crate::msg::Refusal;
use crate::planted::{Bug, planted};
use std::collections::{BTreeMap, BTreeSet};

/// Images removed at a time: the others wait, so that what is written about removals stays bounded by the number of
/// groups.
const AT_A_TIME: usize = 8;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Images {
    pools: BTreeMap<PoolId, PoolImages>,
}

#[derive(Clone, Debug, Default)]
struct PoolImages {
    /// The highest number ever given, and the revision of its key.
    last: Option<(InodeId, Revision)>,
    live: BTreeSet<InodeId>,
    /// With the revision of their creation.
    removing: BTreeMap<InodeId, u64>,
}

impl Images {
    /// Takes over what the cluster map says of an image that was created at this revision.
    pub fn set(&mut self, pool: PoolId, inode: InodeId, image: Option<&Image>, created: u64) {
        let images = self.pools.entry(pool).or_default();
        images.live.remove(&inode);
        images.removing.remove(&inode);
        match image {
            Some(image) if image.removing => {
                images.removing.insert(inode, created);
            }
            Some(_) => {
                images.live.insert(inode);
            }
            None => {}
        }
    }

    /// Takes over the highest number of a pool.
    pub fn set_last(&mut self, map: &ClusterMap, pool: PoolId) {
        self.pools.entry(pool).or_default().last = map.last_inode(pool);
    }

    /// Whether requests to an image are to be carried out.
    pub fn admit(&self, pool: PoolId, inode: InodeId) -> Result<(), Refusal> {
        let Some((images, (last, _))) = self.pools.get(&pool).and_then(|images| Some((images, images.last?))) else {
            return Ok(());
        };
        match inode {
            _ if images.live.contains(&inode) => Ok(()),
            // Its creation is not known here yet.
            inode if inode > last => Err(Refusal::Again),
            _ if planted(Bug::AdmitRemovedImages) => Ok(()),
            _ => Err(Refusal::NoSuchImage),
        }
    }

    /// All creations and marks up to this revision are known.
    pub fn known_up_to(&self, pool: PoolId) -> Revision {
        self.pools.get(&pool).and_then(|images| images.last).map_or(Revision(0), |(_, revision)| revision)
    }

    /// The images to be removed next, with the revision of their creation.
    pub fn removing(&self, pool: PoolId) -> Vec<(InodeId, u64)> {
        let removing = self.pools.get(&pool).map(|images| &images.removing);
        removing.into_iter().flatten().take(AT_A_TIME).map(|(inode, revision)| (*inode, *revision)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::keys;
    use crate::meta::KeyValue;

    fn image(removing: bool) -> Image {
        Image { name: "a".into(), size_bytes: 512, parent: None, read_only: false, snapshot: false, removing }
    }

    fn known(last: u64) -> Images {
        let key = keys::last_inode(PoolId(1));
        let value = last.to_string().into_bytes();
        let kv = KeyValue { key, value, create_revision: 1, mod_revision: 7, version: 1, lease: 0 };
        let mut map = ClusterMap::default();
        map.apply_range(&[kv], 7);
        let mut images = Images::default();
        images.set_last(&map, PoolId(1));
        images
    }

    #[test]
    fn only_images_that_exist_are_written_to() {
        let mut images = known(3);
        images.set(PoolId(1), InodeId(2), Some(&image(false)), 5);
        images.set(PoolId(1), InodeId(3), Some(&image(true)), 6);
        let verdict = |inode| images.admit(PoolId(1), InodeId(inode));
        assert_eq!(verdict(2), Ok(()));
        assert_eq!(verdict(3), Err(Refusal::NoSuchImage), "being removed");
        assert_eq!(verdict(1), Err(Refusal::NoSuchImage), "removed");
        assert_eq!(verdict(4), Err(Refusal::Again), "not known yet");
        assert_eq!(images.admit(PoolId(2), InodeId(1)), Ok(()), "a pool whose images are not numbered");
        assert_eq!(images.known_up_to(PoolId(1)), Revision(7));
    }

    #[test]
    fn few_images_are_removed_at_a_time_the_oldest_first() {
        let mut images = known(100);
        (1..=50).rev().for_each(|n| images.set(PoolId(1), InodeId(n), Some(&image(true)), n));
        assert_eq!(images.removing(PoolId(1)), (1..=8).map(|n| (InodeId(n), n)).collect::<Vec<_>>());
        images.set(PoolId(1), InodeId(1), None, 0);
        assert_eq!(images.removing(PoolId(1))[0], (InodeId(2), 2));
    }
}
