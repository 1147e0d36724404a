//! Damage that scenarios do to disks and connections, and what repairs it.
//!
//! Owns finding a copy of a block on a disk by what clients wrote there. Data blocks only: damage to a log is a damaged
//! store, which an operator replaces.

use super::script::broken;
use super::{Ask, Cluster, IMAGE};
use crate::check::history::Finding;
use crate::world::NodeId;
use ashlar_core::id::{ObjectId, PgId};
use ashlar_core::io::Device;
use ashlar_core::map::{PREFIX, ScrubOrder, keys};
use ashlar_core::store::{CopyInfo, ObjectStore};
use ashlar_core::time::Duration;
use ashlar_faultinject::disk::{DiskFaults, SimDisk};
use ashlar_faultinject::layer::first_data_byte;

/// Longest scrub of all groups, in simulated time: five pauses for busy objects, with some groups after each other.
const SCRUB_LIMIT: Duration = Duration::secs(120);
/// A store with fewer free blocks may refuse new objects: it keeps some for what must go on.
const RESERVED_BLOCKS: u64 = 16;

/// What a scrub is to do to a copy of the reference store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// It does not match its checksums.
    Damage,
    /// It matches them, and differs.
    Alter,
    /// It is gone.
    Lose,
}

impl Cluster {
    /// The object in which a block of an image lies.
    pub fn object_of(&self, image: u32, block: u32) -> ObjectId {
        let image = &self.images[image as usize];
        ObjectId { pool: image.pool, inode: image.inode, stripe: u64::from(block / image.layout.per_object) }
    }

    /// The group of a block of an image.
    pub fn pg_of_image(&self, image: u32, block: u32) -> PgId {
        self.pg_of(self.object_of(image, block))
    }

    /// Where data blocks begin on an OSD's disk, in pages.
    pub(super) fn first_data_page(&mut self, node: NodeId) -> Option<u64> {
        let superblock = self.world.disk_mut(node, Device::Data)?.page(0)?;
        first_data_byte(superblock).map(|place| place / 4096)
    }

    /// The pages among an OSD's data blocks that hold what clients wrote to an object of an image.
    fn pages_of(&mut self, node: NodeId, image: u32, block: u32) -> Vec<u64> {
        let layout = self.images[image as usize].layout;
        let first = block / layout.per_object * layout.per_object;
        let range = first..first + layout.per_object;
        let from = self.first_data_page(node).expect("a formatted disk");
        let disk = self.world.disk_mut(node, Device::Data).expect("an OSD with a real store");
        let is_of_object = |word: &[u8]| {
            let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
            let (op, of, index) = (word >> 32, word >> 24 & 0xff, word & 0xff_ffff);
            op > 0 && of == u64::from(image) && range.contains(&u32::try_from(index).expect("24 bits"))
        };
        let holds = |disk: &SimDisk, page: u64| {
            disk.page(page).is_some_and(|bytes| bytes.chunks_exact(8).step_by(8).any(is_of_object))
        };
        disk.written_pages().into_iter().filter(|page| *page >= from && holds(disk, *page)).collect()
    }

    /// A bit flips in every page of an OSD's disk that holds parts of an object; how many there are.
    pub fn rot_object(&mut self, node: NodeId, image: u32, block: u32) -> usize {
        let pages = self.pages_of(node, image, block);
        pages.iter().for_each(|page| self.world.rot(node, *page));
        self.world.note(|| format!("{} pages of node {} rot", pages.len(), node.0));
        pages.len()
    }

    /// The pages of an OSD's disk that hold parts of an object cannot be read any more; how many there are.
    pub fn make_object_unreadable(&mut self, node: NodeId, image: u32, block: u32) -> usize {
        let pages = self.pages_of(node, image, block);
        let disk = self.world.disk_mut(node, Device::Data).expect("an OSD with a real store");
        pages.iter().for_each(|page| disk.make_unreadable(*page));
        pages.len()
    }

    /// Does something to an object's copies in an OSD's reference store; how many there were.
    pub fn harm_copies(&mut self, node: NodeId, object: ObjectId, harm: Harm) -> usize {
        let copies = self.copies_at(node, object).unwrap_or_default();
        let osd = self.world.node_mut(node).and_then(|process| process.osd_mut()).expect("a running OSD");
        let model = osd.groups_mut().store_mut().as_model_mut().expect("a reference store").inner_mut();
        for CopyInfo { copy, .. } in &copies {
            match harm {
                Harm::Damage => model.damage(*copy),
                Harm::Alter => model.alter(*copy),
                Harm::Lose => model.lose(*copy),
            }
        }
        self.world.note(|| format!("{harm:?} to {} copies of {object:?} of node {}", copies.len(), node.0));
        copies.len()
    }

    /// From now on an OSD's disk misbehaves, at data blocks only.
    pub fn set_data_faults(&mut self, node: NodeId, faults: DiskFaults) {
        let from_byte = self.first_data_page(node).expect("a formatted disk") * 4096;
        if let Some(disk) = self.world.disk_mut(node, Device::Data) {
            disk.set_faults(DiskFaults { from_byte, ..faults });
        }
    }

    /// What is on an OSD's disk now, to be put back later.
    ///
    /// # Panics
    /// If the OSD has no disk, or runs.
    pub fn copy_disk(&mut self, node: NodeId) -> SimDisk {
        assert!(!self.world.is_running(node), "a disk is copied while its OSD is down");
        self.world.disk_mut(node, Device::Data).expect("an OSD with a real store").clone()
    }

    /// Puts a disk into an OSD that is down; gives the one that was there.
    pub fn exchange_disk(&mut self, node: NodeId, disk: SimDisk) -> SimDisk {
        assert!(!self.world.is_running(node), "a disk is exchanged while its OSD is down");
        self.world.note(|| format!("another disk is put into node {}", node.0));
        std::mem::replace(self.world.disk_mut(node, Device::Data).expect("an OSD with a real store"), disk)
    }

    /// Orders a scrub of every group.
    pub fn order_scrub(&mut self, order: ScrubOrder) {
        for number in 0..self.config.pg_count {
            self.put(keys::scrub_order(self.pg(number)), &order);
        }
    }

    /// Scrubs every group, and waits until that is over and what was found is repaired.
    pub fn scrub(&mut self, order: ScrubOrder) -> Result<(), Finding> {
        self.order_scrub(order);
        let orders = format!("{PREFIX}config/scrub/");
        let done = self.run_until(SCRUB_LIMIT, |c| c.world.meta_read(&orders).is_empty() && c.all_whole())?;
        if done { Ok(()) } else { Err(broken(format!("a scrub does not end: {}", self.describe_stuck()))) }
    }

    /// What the present primaries' scrubs found: damaged copies, old ones, objects whose copies differ.
    pub fn findings(&self) -> (u64, u64, u64) {
        let reports = (0..self.config.pg_count).filter_map(|number| Some(self.summary(self.pg(number))?.scrub));
        reports.fold((0, 0, 0), |sum, report| {
            (sum.0 + report.damaged, sum.1 + report.outdated, sum.2 + report.inconsistent)
        })
    }

    /// Whether some OSD has no room for new objects.
    pub(super) fn somebody_is_full(&self) -> bool {
        let stores = self.osds.iter().filter_map(|node| Some(self.world.node(*node)?.osd()?.groups().store()));
        let block = u64::from(self.config.chunk_bytes());
        stores.map(|store| store.stats()).any(|stats| stats.free_bytes < RESERVED_BLOCKS * block)
    }

    /// How many copies an OSD holds of the object of a block.
    pub fn copies_of(&self, node: NodeId, image: u32, block: u32) -> usize {
        self.copies_at(node, self.object_of(image, block)).map_or(0, |copies| copies.len())
    }

    /// Everything that OSDs hold of an image's objects, tombstones included.
    pub fn remains_of(&self, image: u32) -> usize {
        let inode = self.images[image as usize].inode;
        let copies = self.osds.iter().flat_map(|node| self.copies_on(*node));
        copies.filter(|info| info.copy.object.inode == inode).count()
    }

    /// Writes so many blocks of every object of an image.
    pub fn fill_image(&mut self, image: u32, objects: u32, blocks: u32) -> Result<(), Finding> {
        for object in 0..objects {
            let write = self.start_on(0, image, object * self.config.object_blocks, blocks, Ask::Write);
            self.wait(write)?;
        }
        Ok(())
    }

    /// Waits until images that are removed are gone.
    pub fn finish_removals(&mut self) -> Result<(), Finding> {
        if self.run_until(Duration::secs(60), Cluster::removals_done)? {
            return Ok(());
        }
        Err(broken(format!("an image is not removed: {}", self.describe_stuck())))
    }

    /// A client hears nothing any more, nor what was on its way to it.
    pub fn cut_client_off(&mut self, index: usize) {
        let client = self.client_node(index);
        let far: Vec<NodeId> = self.osds.iter().chain(&self.mons).copied().collect();
        for node in &far {
            for connection in self.world.connections_between(*node, client) {
                self.world.reset(connection);
            }
        }
        self.partition(&[client], &far);
    }

    /// Waits until every group is whole.
    pub fn become_whole(&mut self) -> Result<(), Finding> {
        if self.run_until(Duration::secs(60), Cluster::all_whole)? {
            return Ok(());
        }
        Err(broken(format!("not whole: {}", self.describe_stuck())))
    }

    /// Writes two blocks of every object of the first image.
    pub fn fill(&mut self, client: usize) -> Result<(), Finding> {
        let (blocks, objects) = (self.config.object_blocks, self.images[IMAGE as usize].objects);
        for object in 0..objects {
            self.write(client, object * blocks, 2)?;
        }
        Ok(())
    }
}
