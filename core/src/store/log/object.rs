//! What the store knows of one object, and what each record does to it.
//!
//! The same function applies a record when it is written and when it is replayed, so memory is what replay would give.
//! Invariants of a version: data without a written sector have no block, data with one have a block (their own, or the
//! committed version's below a prepared one `on_top`); `sums` has one entry per unit of the block; overlays lie on
//! written units, in rising order.

use super::page::Sequence;
use super::read::Source;
use super::record::{Body, Join, Label, NO_BLOCK, Sectors, UnitData};
use super::summary::{Kind, Share};
use crate::buf::{UNIT, UNIT_USIZE};
use crate::id::{CopyId, ObjectId, Version};
use crate::limits::SECTOR_BYTES;
use crate::planted::{Bug, planted};
use crate::store::{Bitmap, CopyInfo, Digest, Mode, VersionInfo, unit_mark};
use smallvec::SmallVec;

/// Checksums by unit. 32 are the units of the usual block of 128 KiB.
pub type Sums = SmallVec<[u32; 32]>;

/// Data in the log that hide a unit of the block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Overlay {
    /// Page of the record that made it part of the committed version; in a prepared version, of the record with the
    /// data.
    pub page: Sequence,
    /// The unit.
    pub data: UnitData,
}

/// Kind of a version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// Data.
    Data,
    /// A deletion.
    Tombstone,
}

/// One version of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    /// Its name.
    pub label: Label,
    /// Data or tombstone.
    pub content: Content,
    /// Where the data are; [`NO_BLOCK`] if nowhere or in the committed version's.
    pub block: u32,
    /// Prepared only: the units without overlay are the committed version's.
    pub on_top: bool,
    /// Whether its data are known to be damaged.
    pub damaged: bool,
    /// Sectors ever written.
    pub bitmap: Bitmap,
    /// Checksums of the block's units.
    pub sums: Sums,
    /// Units whose newest data are in the log.
    pub overlays: Vec<Overlay>,
}

/// An object: its versions, and what the log holds of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Versions {
    /// The committed version.
    pub committed: Option<State>,
    /// The prepared version on top.
    pub prepared: Option<Box<State>>,
}

impl Bitmap {
    /// The written sectors of a unit, lowest bit first.
    pub(crate) fn unit(&self, unit: usize) -> u8 {
        self.words.get(unit / 8).map_or(0, |word| word.to_le_bytes()[unit % 8])
    }

    /// The units with a written sector.
    pub(crate) fn units(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.words.len() * 8).filter(|unit| self.unit(*unit) != 0)
    }

    /// If exactly the first sectors are written: how many.
    pub(crate) fn prefix(&self) -> Option<u32> {
        let end = self.end();
        let ones: u32 = self.words.iter().map(|word| word.count_ones()).sum();
        (ones == end).then_some(end)
    }

    /// With just the first sectors written.
    pub(crate) fn first(sectors: u32) -> Bitmap {
        let mut words = SmallVec::from_elem(u64::MAX, (sectors / 64) as usize);
        if !sectors.is_multiple_of(64) {
            words.push((1 << (sectors % 64)) - 1);
        }
        Bitmap { words }
    }

    /// Removes words that say nothing.
    pub(crate) fn trim(&mut self) {
        self.set(0, 0, false);
    }
}

impl State {
    /// A new version without data.
    pub fn empty(label: Label, content: Content) -> Self {
        let (bitmap, sums, overlays) = (Bitmap::default(), Sums::new(), Vec::new());
        State { label, content, block: NO_BLOCK, on_top: false, damaged: false, bitmap, sums, overlays }
    }

    /// Its number.
    pub fn version(&self) -> Version {
        self.label.version
    }

    /// Whether it is a tombstone.
    pub fn is_tombstone(&self) -> bool {
        self.content == Content::Tombstone
    }

    /// As peering sees it.
    pub fn info(&self) -> VersionInfo {
        let Label { version, predecessor, requests } = self.label.clone();
        VersionInfo { version, predecessor, tombstone: self.is_tombstone(), damaged: self.damaged, requests }
    }

    /// The overlay of a unit.
    pub fn overlay(&self, unit: usize) -> Option<&Overlay> {
        let place = self.overlays.binary_search_by_key(&unit, |overlay| usize::from(overlay.data.unit)).ok()?;
        Some(&self.overlays[place])
    }

    fn put_overlay(&mut self, overlay: Overlay) {
        match self.overlays.binary_search_by_key(&overlay.data.unit, |overlay| overlay.data.unit) {
            Ok(place) => self.overlays[place] = overlay,
            Err(place) => self.overlays.insert(place, overlay),
        }
    }

    /// Ends what an empty unit must not have.
    fn prune(&mut self) {
        let bitmap = &self.bitmap;
        self.overlays.retain(|overlay| bitmap.unit(usize::from(overlay.data.unit)) != 0);
        if self.bitmap.words.is_empty() {
            self.block = NO_BLOCK;
            self.sums.clear();
        }
    }

    fn write(&mut self, page: Sequence, set: Sectors, clear: Sectors, units: &[UnitData]) {
        self.bitmap.set(clear.first.into(), clear.count.into(), false);
        self.bitmap.set(set.first.into(), set.count.into(), true);
        for data in units {
            self.put_overlay(Overlay { page, data: data.clone() });
        }
        self.prune();
    }
}

impl Versions {
    /// The newest version, prepared ones included.
    pub fn newest(&self) -> Option<&State> {
        self.prepared.as_deref().or(self.committed.as_ref())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.newest().is_none()
    }

    /// Overlays of the committed version.
    pub fn overlays(&self) -> usize {
        self.committed.as_ref().map_or(0, |state| state.overlays.len())
    }

    /// Overlays of the prepared version, which only its commit, its end or a snapshot takes out of the log.
    pub fn prepared_overlays(&self) -> u64 {
        self.prepared.as_ref().map_or(0, |state| state.overlays.len() as u64)
    }

    /// What it adds to the sums over all objects.
    pub fn share(&self, object: ObjectId) -> Share {
        let Some(newest) = self.newest() else { return Share::default() };
        let mark = |state: &State| (state.version(), state.is_tombstone(), state.damaged);
        let (committed, prepared) = (self.committed.as_ref().map(mark), self.prepared.as_deref().map(mark));
        let kind = if newest.is_tombstone() { Kind::Tombstone } else { Kind::Data };
        Share { sum: Digest::hash(object, committed, prepared), kind, damaged: newest.damaged }
    }

    /// The blocks that it owns.
    pub fn blocks(&self) -> [u32; 2] {
        [self.committed.as_ref().map_or(NO_BLOCK, |s| s.block), self.prepared.as_ref().map_or(NO_BLOCK, |s| s.block)]
    }

    /// As peering sees it.
    pub fn info(&self, copy: CopyId) -> CopyInfo {
        let (committed, prepared) = (self.committed.as_ref(), self.prepared.as_deref());
        CopyInfo { copy, committed: committed.map(State::info), prepared: prepared.map(State::info) }
    }

    /// Applies a record that lies in `page`. Space that overlays no longer need goes to `spare`.
    pub fn apply(&mut self, body: &Body, page: Sequence, spare: &mut Spare) {
        match body {
            Body::Put { label, join, block, bitmap, sums } => {
                let mut state = State::empty(label.clone(), Content::Data);
                (state.block, state.bitmap, state.sums) = (*block, bitmap.clone(), Sums::from_slice(sums));
                self.join(state, *join, page, spare);
            }
            Body::Tombstone { label, join } => {
                self.join(State::empty(label.clone(), Content::Tombstone), *join, page, spare);
            }
            Body::Inline { label, join, set, clear, units } => {
                if join.commits {
                    self.commit(page, spare);
                }
                self.inline(label, join.mode, page, (*set, *clear), units, spare);
            }
            Body::Patch { label, join, bitmap, units } => {
                if join.commits {
                    self.commit(page, spare);
                }
                self.patch(label, page, bitmap, units, spare);
            }
            Body::Intent { label, first_unit, set, sums, .. } => self.intent(label, *first_unit, *set, sums),
            Body::Commit(_) => self.commit(page, spare),
            Body::Rollback(_) => self.drop_prepared(spare),
            Body::Purge(_) => spare.take_from(self.committed.take()),
            Body::Compacted { upto, units } => self.compacted(*upto, units, spare),
            Body::Snapshot { committed, prepared } => self.replace(committed.clone(), prepared.clone(), page),
            Body::Moved { from, to } => self.moved(*from, *to),
            Body::Void(_) => {}
        }
    }

    /// What was in one block is in another.
    fn moved(&mut self, from: u32, to: u32) {
        let states = self.committed.iter_mut().chain(self.prepared.as_deref_mut());
        states.filter(|state| state.block == from).for_each(|state| state.block = to);
    }

    /// A version that does not build on what is there.
    fn join(&mut self, state: State, join: Join, page: Sequence, spare: &mut Spare) {
        if join.commits {
            self.commit(page, spare);
        }
        match join.mode {
            Mode::Plain => {
                self.drop_prepared(spare);
                spare.take_from(self.committed.replace(state));
            }
            Mode::Prepare => {
                self.drop_prepared(spare);
                self.prepared = Some(Box::new(state));
            }
        }
    }

    fn inline(
        &mut self,
        label: &Label,
        mode: Mode,
        page: Sequence,
        (set, clear): (Sectors, Sectors),
        units: &[UnitData],
        spare: &mut Spare,
    ) {
        let on_data = self.committed.as_ref().is_some_and(|state| !state.is_tombstone());
        if mode == Mode::Prepare {
            let mut state = State::empty(label.clone(), Content::Data);
            if let Some(committed) = self.committed.as_ref().filter(|_| on_data) {
                state.bitmap = committed.bitmap.clone();
                state.on_top = true;
            }
            spare.give_to(&mut state.overlays);
            state.write(page, set, clear, units);
            self.drop_prepared(spare);
            self.prepared = Some(Box::new(state));
            return;
        }
        self.drop_prepared(spare);
        if !on_data {
            self.committed = Some(State::empty(label.clone(), Content::Data));
        }
        let committed = self.committed.as_mut().expect("set above");
        committed.label = label.clone();
        if !units.is_empty() {
            spare.give_to(&mut committed.overlays);
        }
        committed.write(page, set, clear, units);
        spare.take_empty(&mut committed.overlays);
    }

    /// Without the base nothing is to be made of it.
    fn patch(&mut self, label: &Label, page: Sequence, bitmap: &Bitmap, units: &[UnitData], spare: &mut Spare) {
        let Some(committed) = self.committed.as_mut() else { return };
        committed.label = label.clone();
        committed.bitmap = bitmap.clone();
        if !units.is_empty() {
            spare.give_to(&mut committed.overlays);
        }
        committed.write(page, Sectors::default(), Sectors::default(), units);
        spare.take_empty(&mut committed.overlays);
    }

    /// The sum over a version's content.
    pub fn content_sum(&self, version: Version) -> Option<u64> {
        let mut states = self.committed.iter().chain(self.prepared.as_deref());
        let state = states.find(|state| state.version() == version && !state.is_tombstone())?;
        let mark = |unit: usize| self.crc_of(state, unit).map_or(0, |crc| unit_mark(unit, crc));
        Some(state.bitmap.units().fold(0, |sum: u64, unit| sum.wrapping_add(mark(unit))))
    }

    /// The checksum of a unit of a version; none: never written.
    pub fn crc_of(&self, state: &State, unit: usize) -> Option<u32> {
        match self.source(state, unit) {
            Source::Zero => None,
            Source::Overlay(UnitData { crc, .. }) | Source::Block(crc) => Some(crc),
        }
    }

    fn intent(&mut self, label: &Label, first_unit: u16, set: Sectors, sums: &Sums) {
        let Some(state) = self.committed.as_mut().filter(|state| !state.sums.is_empty()) else { return };
        state.label = label.clone();
        state.bitmap.set(set.first.into(), set.count.into(), true);
        let units = usize::from(first_unit)..usize::from(first_unit) + sums.len();
        state.overlays.retain(|overlay| !units.contains(&usize::from(overlay.data.unit)));
        for (unit, sum) in units.zip(sums) {
            state.sums[unit] = *sum;
        }
    }

    fn commit(&mut self, page: Sequence, spare: &mut Spare) {
        let Some(mut prepared) = self.prepared.take() else { return };
        for overlay in &mut prepared.overlays {
            overlay.page = page;
        }
        if !prepared.on_top {
            spare.take_from(self.committed.replace(*prepared));
            return;
        }
        let committed = self.committed.as_mut().expect("a version on top lies on a committed one");
        committed.label = prepared.label.clone();
        committed.bitmap = std::mem::take(&mut prepared.bitmap);
        spare.give_to(&mut committed.overlays);
        for overlay in prepared.overlays.drain(..) {
            committed.put_overlay(overlay);
        }
        committed.prune();
        spare.take_empty(&mut committed.overlays);
        spare.take_from(Some(*prepared));
    }

    fn drop_prepared(&mut self, spare: &mut Spare) {
        spare.take_from(self.prepared.take().map(|state| *state));
    }

    fn compacted(&mut self, upto: Sequence, units: &[u64], spare: &mut Spare) {
        let Some(state) = self.committed.as_mut() else { return };
        let State { overlays, sums, .. } = state;
        overlays.retain(|overlay| {
            let unit = usize::from(overlay.data.unit);
            let named = units.get(unit / 64).is_some_and(|word| word >> (unit % 64) & 1 == 1);
            if !named || (overlay.page > upto && !planted(Bug::StoreCompactNewer)) {
                return true;
            }
            sums[unit] = overlay.data.crc;
            false
        });
        spare.take_empty(&mut state.overlays);
    }

    fn replace(&mut self, committed: Option<State>, prepared: Option<Box<State>>, page: Sequence) {
        (self.committed, self.prepared) = (committed, prepared);
        for overlay in self.committed.iter_mut().flat_map(|state| &mut state.overlays) {
            overlay.page = page;
        }
        for overlay in self.prepared.iter_mut().flat_map(|state| &mut state.overlays) {
            overlay.page = page;
        }
    }

    /// Panics if an invariant is broken.
    pub fn check(&self, copy: CopyId, units: usize) {
        let states = self.committed.iter().chain(self.prepared.as_deref());
        for state in states {
            let empty = state.bitmap.words.is_empty();
            assert_ne!(state.bitmap.words.last(), Some(&0), "{copy:?}: bitmap is not trimmed");
            let end = usize::try_from(state.bitmap.end() * SECTOR_BYTES).expect("inside of a block");
            assert!(end <= units * UNIT_USIZE, "{copy:?}: written beyond the block");
            if state.on_top {
                assert!(state.block == NO_BLOCK && self.committed.is_some(), "{copy:?}: on top of nothing");
                continue;
            }
            assert_eq!(state.block == NO_BLOCK, empty, "{copy:?}: block and bitmap disagree");
            assert!(empty || state.sums.len() == units, "{copy:?}: {} sums", state.sums.len());
            for overlay in &state.overlays {
                assert_ne!(state.bitmap.unit(overlay.data.unit.into()), 0, "{copy:?}: overlay of an empty unit");
            }
        }
    }
}

/// Space for overlays that is used again, so that steady state allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Spare {
    lists: Vec<Vec<Overlay>>,
}

/// Lists kept; more than are ever in use between two compactions of a busy store would only hold memory.
const SPARE_LISTS: usize = 4096;

impl Spare {
    fn give_to(&mut self, list: &mut Vec<Overlay>) {
        if list.capacity() == 0 {
            *list = self.lists.pop().unwrap_or_default();
        }
    }

    fn take_empty(&mut self, list: &mut Vec<Overlay>) {
        if list.is_empty() && list.capacity() > 0 && self.lists.len() < SPARE_LISTS {
            self.lists.push(std::mem::take(list));
        }
    }

    fn take_from(&mut self, state: Option<State>) {
        if let Some(mut state) = state {
            state.overlays.clear();
            self.take_empty(&mut state.overlays);
        }
    }
}

/// The unit of a byte offset.
pub fn unit_of(offset: u32) -> usize {
    (offset / UNIT) as usize
}

/// The sectors of a byte range. Offsets lie inside an object, so sector numbers fit.
pub fn sectors(offset: u32, len: u32) -> Sectors {
    let number = |bytes: u32| u16::try_from(bytes / SECTOR_BYTES).expect("an object has at most 2048 sectors");
    Sectors { first: number(offset), count: number(len) }
}

/// Units of a block.
pub fn units_of(block_size: u32) -> usize {
    block_size as usize / UNIT_USIZE
}
