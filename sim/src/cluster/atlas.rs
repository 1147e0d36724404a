//! The atlas of what was taken from disks for good: per group and object, what the pool promises to survive.
//!
//! Owns the decision whether one more loss is within the promise, and the log of those that are not and therefore do not
//! happen. Does not own the faults themselves. With the profile `over-budget` everything is allowed, and nothing is promised
//! but that what is answered is right.
//!
//! The promise, of a group of `size` members of which `k` have the data and which serves with `minsize`:
//! - A *damaged* copy (rot, a page that cannot be read, a write that went astray) may meet a write that only `minsize`
//!   members have, so of an object `minsize - k` copies may be damaged at a time, and one member less than could be lost.
//! - A whole disk may be *replaced* while every group is whole and nothing else is lost.
//!
//! Invariant: a loss stays in the atlas until the disk was replaced and every group was whole after that.

use super::Cluster;
use crate::check::history::Block;
use crate::world::NodeId;
use ashlar_core::id::ObjectId;
use ashlar_core::io::Device;
use ashlar_faultinject::mix::FaultKind;
use std::collections::{BTreeMap, BTreeSet};

/// What an OSD has lost.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Scope {
    /// Copies of these.
    Objects(BTreeSet<ObjectId>),
    /// Perhaps all: its metadata, or nobody knows what.
    Everything,
    /// Its disk was replaced; what was on it is being copied from others.
    Replaced,
}

impl Scope {
    fn touches(&self, object: Option<ObjectId>) -> bool {
        match (self, object) {
            (Scope::Objects(objects), Some(object)) => objects.contains(&object),
            _ => true,
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Atlas {
    lost: BTreeMap<NodeId, Scope>,
    suppressed: Vec<String>,
    /// Something was damaged in this run.
    damaged: bool,
}

impl Atlas {
    /// Whether copies were damaged in this run: what only they had is refused until the others are back.
    pub(super) fn has_damage(&self) -> bool {
        self.damaged
    }

    /// Whether an OSD lacks anything.
    pub(super) fn has_lost(&self, node: NodeId) -> bool {
        self.lost.contains_key(&node)
    }

    /// Whether an OSD may have lost its metadata.
    pub(super) fn has_lost_everything(&self, node: NodeId) -> bool {
        self.lost.get(&node) == Some(&Scope::Everything)
    }

    /// The OSDs whose disks an operator has to replace, those with the greatest losses first.
    pub(super) fn to_be_replaced(&self) -> Vec<NodeId> {
        let with = |wanted: fn(&Scope) -> bool| self.lost.iter().filter(move |(_, scope)| wanted(scope));
        let everything = with(|scope| *scope == Scope::Everything);
        everything.chain(with(|scope| matches!(scope, Scope::Objects(_)))).map(|(node, _)| *node).collect()
    }
}

impl Cluster {
    /// The faults that did not happen, since the pool does not promise to survive them.
    pub fn suppressed(&self) -> &[String] {
        &self.atlas.suppressed
    }

    fn suppress(&mut self, kind: FaultKind, node: NodeId, why: String) -> bool {
        let at = self.world.now().0 as f64 / 1e9;
        let line = format!("{at:.6} s {} of {}: {why}", kind.name(), self.name_of(node));
        self.world.note(|| format!("suppressed: {line}"));
        self.atlas.suppressed.push(line);
        self.tally.suppressed += 1;
        false
    }

    /// How many copies of an object may be damaged at a time.
    fn damage_margin(&self) -> usize {
        let beyond_data = self.config.pg_minsize.saturating_sub(self.config.data_chunks());
        usize::from(beyond_data.min(self.config.spare_members().saturating_sub(1)))
    }

    /// Whether an OSD's copies of an object (or any, if nobody knows of which) may be damaged now; if so, they are.
    pub(super) fn allows_damage(&mut self, kind: FaultKind, node: NodeId, object: Option<ObjectId>) -> bool {
        self.forget_what_is_whole();
        if !self.config.over_budget
            && let Some(why) = self.beyond_damage(node, object)
        {
            return self.suppress(kind, node, why);
        }
        self.atlas.damaged = true;
        let scope = self.atlas.lost.entry(node).or_insert_with(|| Scope::Objects(BTreeSet::new()));
        match (&mut *scope, object) {
            (Scope::Objects(objects), Some(object)) => drop(objects.insert(object)),
            (Scope::Objects(_), None) => *scope = Scope::Everything,
            (Scope::Everything | Scope::Replaced, _) => {}
        }
        true
    }

    fn beyond_damage(&self, node: NodeId, object: Option<ObjectId>) -> Option<String> {
        let margin = self.damage_margin();
        let config = &self.config;
        if margin == 0 {
            let (minsize, k) = (config.pg_minsize, config.data_chunks());
            return Some(format!(
                "writes may be on {minsize} members only, of which {k} are needed: none may be damaged"
            ));
        }
        if self.swapped.is_some() || self.absent.contains(&node) {
            return Some("its disk is not in its place".into());
        }
        let touched = self.atlas.lost.iter().filter(|(other, scope)| **other != node && scope.touches(object));
        let others: Vec<NodeId> = touched.map(|(other, _)| *other).collect();
        // What is copied to a disk that was replaced may be on its way from here.
        let copied = self.atlas.lost.get(&node) == Some(&Scope::Replaced);
        if others.len() < margin && !copied {
            return None;
        }
        let names: Vec<String> = others.into_iter().map(|other| self.name_of(other)).collect();
        let what = object.map_or("everything".into(), |object| format!("{object:?} in {:?}", self.pg_of(object)));
        Some(format!("of {what}, copies are lost already on {}", names.join(", ")))
    }

    /// Whether an OSD's disk may be replaced now; if so, it is.
    pub(super) fn allows_replacement(&mut self, kind: FaultKind, node: NodeId) -> bool {
        self.forget_what_is_whole();
        if !self.config.over_budget
            && let Some(why) = self.beyond_replacement(kind, node)
        {
            return self.suppress(kind, node, why);
        }
        self.atlas.lost.insert(node, Scope::Replaced);
        true
    }

    fn beyond_replacement(&mut self, kind: FaultKind, node: NodeId) -> Option<String> {
        // Old copies are taken for new ones where the members of a write are not sure to be asked.
        if kind == FaultKind::OldDisk && (self.damage_margin() == 0 || self.config.is_lazy()) {
            return Some("a group may serve without any member that has a write which this one forgot".into());
        }
        // An OSD whose disk is dead takes part until it has to write: the group may count upon it and too few others.
        if kind == FaultKind::DeadDisk && self.damage_margin() == 0 {
            return Some("a group may go on with it, and with too few others".into());
        }
        if self.swapped.is_some() || !self.absent.is_empty() {
            return Some("a disk is not in its place".into());
        }
        if let Some(down) = self.osds.iter().copied().find(|osd| !self.world.is_running(*osd)) {
            return Some(format!("{} is down, and may have the only other copy of something", self.name_of(down)));
        }
        if let Some(other) = self.atlas.lost.keys().copied().find(|other| *other != node) {
            return Some(format!("{} has lost copies, too", self.name_of(other)));
        }
        let unwhole = self.groups().into_iter().find(|pg| !self.is_whole(*pg));
        match unwhole {
            Some(pg) => Some(format!("{pg:?} is not whole")),
            None if !self.all_whole() => Some("groups are being split or merged".into()),
            None => None,
        }
    }

    /// An OSD's disk is empty from now on, by whatever reason: what was damaged on it is gone.
    pub(super) fn note_replacement(&mut self, node: NodeId) {
        self.atlas.lost.insert(node, Scope::Replaced);
        self.snapshots.remove(&node);
    }

    /// A replaced disk has everything again once all groups are whole with it.
    fn forget_what_is_whole(&mut self) {
        let replaced = self.atlas.lost.values().any(|scope| *scope == Scope::Replaced);
        // Groups may look whole until somebody notices that a disk is dead.
        if replaced && !self.has_dead_disks() && self.all_whole() {
            self.atlas.lost.retain(|_, scope| *scope != Scope::Replaced);
        }
    }

    /// The object to which a page of an OSD's disk belongs; `None`: metadata, or nothing that a client wrote.
    pub(super) fn object_of_page(&mut self, node: NodeId, page: u64) -> Option<ObjectId> {
        let first = self.first_data_page(node)?;
        let disk = self.world.disk_mut(node, Device::Data).filter(|_| page >= first)?;
        let words = disk.page(page)?.chunks_exact(8);
        let words: Vec<u64> = words.map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes"))).collect();
        let block_of = |word: u64| {
            let (op, image, index) = (word >> 32, word >> 24 & 0xff, word & 0xff_ffff);
            let (op, image) = (u32::try_from(op).ok()?.checked_sub(1)?, u32::try_from(image).ok()?);
            let block = Block { image, index: u32::try_from(index).ok()? };
            // Parity looks like tags of others now and then.
            self.history.has_written(op, block).then_some(block)
        };
        let block = words.into_iter().find_map(block_of)?;
        Some(self.object_of(block.image, block.index))
    }
}
