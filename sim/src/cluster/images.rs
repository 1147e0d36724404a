//! Images, as operators make and remove them.
//!
//! Owns which images there are and were. Their places in the list are their numbers in histories; the first one is that of
//! every scenario. Some live for a part of the run only ("passing images"): operations on them fail once they are marked
//! for removal, and nothing of them may be left on any disk at the end.

use super::{CALL_OPERATOR, Cluster, IMAGE, POOL};
use crate::check::history::{BLOCK, CELL, Layout};
use ashlar_core::id::{InodeId, PoolId};
use ashlar_core::map::{FormerPools, Image, PREFIX, Pool, keys};
use ashlar_core::meta::{Request, Txn, TxnOp};
use ashlar_core::time::Duration;

/// Cells of an object that are used: those of twelve sectors, on two pages, so that writes meet within sectors, across
/// sectors, and across pages.
const CELLS_USED: u32 = 12 * 512 / CELL;

/// An image.
#[derive(Clone, Debug)]
pub(super) struct SimImage {
    pub name: String,
    pub pool: PoolId,
    pub inode: InodeId,
    pub layout: Layout,
    pub objects: u32,
    /// Not marked for removal.
    pub live: bool,
}

impl SimImage {
    /// The units that are used of an object.
    pub fn used(&self) -> u32 {
        if self.layout.unit == CELL { CELLS_USED.min(self.layout.per_object) } else { self.layout.per_object }
    }

    /// Everything that is used, in ranges of at most so many units: first and number.
    pub fn spans(&self, most: u32) -> impl Iterator<Item = (u32, u32)> + use<> {
        let (per_object, used) = (self.layout.per_object, self.used());
        let (pieces, length) = if used == per_object { (1, used * self.objects) } else { (self.objects, used) };
        let piece = move |n: u32| (0..length).step_by(most as usize).map(move |at| (n * per_object + at, length - at));
        (0..pieces).flat_map(piece).map(move |(first, left)| (first, left.min(most)))
    }
}

impl Cluster {
    pub(super) fn create_first_images(&mut self) {
        let config = self.config.clone();
        self.create_image("demo", BLOCK, config.image_objects);
        if config.load.cell_objects > 0 {
            self.create_image("cells", CELL, config.load.cell_objects);
        }
    }

    /// Creates an image whose blocks have so many bytes; gives its place in histories.
    pub fn create_image(&mut self, name: &str, unit: u32, objects: u32) -> u32 {
        self.create_image_in(POOL, name, unit, objects)
    }

    /// The same in another pool.
    pub fn create_image_in(&mut self, pool: PoolId, name: &str, unit: u32, objects: u32) -> u32 {
        let inode = InodeId(self.images.len() as u64 + 1);
        let object_bytes = self.config.object_blocks * BLOCK;
        let layout = Layout { unit, per_object: object_bytes / unit };
        let number = u32::try_from(self.images.len()).expect("few images");
        self.history.set_layout(number, layout);
        self.images.push(SimImage { name: name.into(), pool, inode, layout, objects, live: true });
        self.put_image(number);
        number
    }

    /// Marks an image for removal: the rest goes on by itself.
    pub fn remove_image(&mut self, image: u32) {
        self.images[image as usize].live = false;
        self.clients.iter_mut().for_each(|client| {
            client.images.remove(&image);
        });
        self.put_image(image);
    }

    /// As the administration does: the image's key first, so that who sees the counter's change knows of the image.
    fn put_image(&mut self, number: u32) {
        let SimImage { name, pool, inode, layout, objects, live } = self.images[number as usize].clone();
        let size_bytes = u64::from(layout.unit) * u64::from(layout.per_object) * u64::from(objects);
        self.world.note(|| format!("image {name} (inode {}) {}", inode.0, if live { "is created" } else { "goes" }));
        let image = Image { name, size_bytes, parent: None, read_only: false, snapshot: false, removing: !live };
        let last = InodeId(self.images.len() as u64);
        let value = |value| serde_json::to_vec(value).expect("plain data becomes JSON");
        let image = serde_json::to_vec(&image).expect("plain data becomes JSON");
        let puts = [(keys::image(pool, inode), image), (keys::last_inode(pool), value(&last))];
        let success = puts.into_iter().map(|(key, value)| TxnOp::Put { key, value, lease: 0 }).collect();
        self.world.meta(Request::Txn(Txn { success, ..Txn::default() }));
    }

    /// The images that are there, by their places in histories.
    pub(super) fn live_images(&self) -> impl Iterator<Item = u32> + use<'_> {
        (0u32..).zip(&self.images).filter(|(_, image)| image.live).map(|(number, _)| number)
    }

    /// Whether the cluster says that nothing is left of an image.
    pub(super) fn is_removed(&mut self, pool: PoolId, inode: InodeId) -> bool {
        let key = keys::image(pool, inode);
        self.world.meta_read(&key).iter().all(|(found, _)| *found != key)
    }

    /// Whether all removals came to their end.
    pub fn removals_done(&mut self) -> bool {
        let removed = self.images.iter().filter(|image| !image.live).map(|image| (image.pool, image.inode));
        let removed: Vec<(PoolId, InodeId)> = removed.collect();
        removed.into_iter().all(|(pool, inode)| self.is_removed(pool, inode))
    }

    /// Creates another pool like the first one, under a number that no pool had.
    pub fn create_pool(&mut self) -> PoolId {
        let (mut pools, former) = (self.pools(), self.former_pools());
        let last = pools.0.keys().chain(former.0.keys()).max().expect("the first pool");
        let (id, first) = (PoolId(last.0 + 1), pools.0[&POOL].clone());
        pools.0.insert(id, Pool { name: format!("pool{}", id.0), pg_count: self.config.pg_count, ..first });
        self.put(keys::pools(), &pools);
        self.world.note(|| format!("pool {id} is created"));
        id
    }

    /// Has a pool removed, with its images: as the administration does, the pool's mark first.
    pub fn remove_pool(&mut self, pool: PoolId) {
        let mut pools = self.pools();
        pools.0.get_mut(&pool).expect("it was created").removing = true;
        self.put(keys::pools(), &pools);
        self.world.note(|| format!("pool {pool} goes"));
        let images: Vec<u32> = self.live_images().filter(|image| self.images[*image as usize].pool == pool).collect();
        images.into_iter().for_each(|image| self.remove_image(image));
    }

    fn former_pools(&mut self) -> FormerPools {
        let stored = self.world.meta_read(&keys::former_pools());
        stored.first().map(|(_, value)| serde_json::from_slice(value).expect("its own form")).unwrap_or_default()
    }

    /// What is left of a pool in the metadata store, but for its name.
    pub fn keys_of_pool(&mut self, pool: PoolId) -> Vec<String> {
        let parts = ["pg/map", "pg/history", "pg/wish", "pg/removed", "pg/state", "pg/scrub"];
        let parts = parts.into_iter().chain(["config/inode", "config/last_inode", "config/scrub"]);
        let mut found = Vec::new();
        for part in parts {
            let keys = self.world.meta_read(&format!("{PREFIX}{part}/{pool}"));
            let below = format!("{PREFIX}{part}/{pool}");
            let own = |key: &String| *key == below || key.starts_with(&format!("{below}/"));
            found.extend(keys.into_iter().map(|(key, _)| key).filter(own));
        }
        if self.pools().0.contains_key(&pool) {
            found.push(keys::pools());
        }
        found
    }

    /// Copies of a pool's objects on running OSDs, tombstones too.
    pub fn copies_of_pool(&self, pool: PoolId) -> usize {
        let osds = self.osds.iter().filter_map(|node| self.world.node(*node)?.osd());
        osds.map(|osd| osd.groups().copies_of(pool, usize::MAX).len()).sum()
    }

    /// Operators create and remove images from now on.
    pub(super) fn start_operators(&mut self) {
        if self.config.load.passing_images > 0 {
            self.call_operator();
        }
    }

    fn call_operator(&mut self) {
        let pause = self.world.draw(Duration::millis(100), Duration::millis(2500));
        self.world.call_at(self.world.now() + pause, CALL_OPERATOR);
    }

    /// An operator creates an image, or removes one, under the name of one that is gone if possible.
    pub(super) fn operator_acts(&mut self) {
        // What is read back at the end stays.
        if self.clients.iter().all(|client| client.left == 0) {
            return;
        }
        let first = IMAGE + 1 + u32::from(self.config.load.cell_objects > 0);
        let passing = self.live_images().find(|image| *image >= first);
        let created = u32::try_from(self.images.len()).expect("few images") - first;
        match passing {
            Some(image) => self.remove_image(image),
            None if created < self.config.load.passing_images => {
                let name = if self.removals_done() { "passing".to_string() } else { format!("passing{created}") };
                let image =
                    self.create_image(&name, BLOCK, self.config.image_objects.clamp(self.config.load.clients, 6));
                self.world.note(|| format!("image {image} of histories is {name}"));
                (0..self.clients.len()).for_each(|index| self.open_images(index));
            }
            None => return,
        }
        self.call_operator();
    }
}
