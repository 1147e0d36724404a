//! The log-structured object store of one OSD.
//!
//! All metadata are in memory and in one log; data are in blocks of one size. `docs/format.md` says what is on the
//! device byte by byte. The store emits disk requests and consumes completions; it never blocks.
//!
//! | part | owns |
//! | --- | --- |
//! | `superblock`, `page`, `record`, `bytes` | the format |
//! | `signature` | what else a device may hold |
//! | `object`, `versions` | what a record, and an operation, does to an object |
//! | `index`, `directory`, `resting` | objects: where they are, their order by hash, those at rest in few bytes |
//! | `blocks`, `journal`, `flush` | free blocks, the ring of the log, durability |
//! | `discard` | of which free blocks the device is told, and when |
//! | `running`, `ops`, `write`, `read` | operations of an open store |
//! | `intent` | data in place: when that is safe, and when it pays |
//! | `room` | who may use how much of the log |
//! | `compact`, `clean`, `moves` | overlays into blocks, old segments free, data away from blocks that are refused |
//! | `scrub` | damage to the log found, and mended from memory, before an opening finds it |
//! | `summary` | sums over all objects |
//! | `open`, `replay`, `verify` | opening after a crash at any point |

mod blocks;
mod bytes;
mod clean;
mod compact;
mod crc;
mod directory;
mod discard;
mod flush;
mod index;
mod intent;
mod journal;
mod moves;
mod object;
mod open;
mod ops;
mod page;
mod read;
mod record;
mod replay;
mod resting;
mod room;
mod running;
mod scrub;
mod signature;
mod summary;
mod superblock;
mod verify;
mod versions;
mod write;

#[cfg(test)]
mod tests;

pub use discard::Discarding;
pub use flush::Durability;
pub use intent::{Overwrites, Way, Ways};
pub use signature::{SIGNATURE_BYTES, TAIL_BYTES, signature, tail_at};
pub use superblock::{COPIES_AT, Format, Inspect, Layout, format, inspect, layout};

use super::{Bitmap, Completion, Content, CopyInfo, Data, Digest, ObjectStore, PoolUse};
use super::{StoreError, StoreOp, StoreState, StoreStats};
use crate::id::{ClusterUuid, CopyId, HashRange, OsdId, PoolId, Role, StoreUuid, Version};
use crate::io::{DiskDone, Env, IoId};
use crate::limits::SECTOR_BYTES;
use crate::map::ImmediateCommit;
use crate::stages::DeviceStages;
use crate::time::{Duration, Time};
use object::Sums;
use open::{Opening, Outcome};
use ops::Op;
use running::Running;

/// Which store is to be opened, and how its devices behave.
#[derive(Clone, Copy, Debug)]
pub struct OpenConfig {
    /// The cluster that it must belong to.
    pub cluster: ClusterUuid,
    /// The OSD that it must belong to.
    pub osd: OsdId,
    /// Bytes of the data device.
    pub data_bytes: u64,
    /// Bytes of the separate log device, if it has one.
    pub log_device_bytes: Option<u64>,
    /// Of the data device.
    pub durability: Durability,
    /// Of the separate log device.
    pub log_durability: Durability,
    /// How overwrites of a part of an object go to the device.
    pub overwrites: Overwrites,
    /// In what time the scrub passes over the log; zero: never.
    pub scrub: Duration,
    /// How eagerly the data device is told of free blocks; `None`: it is not.
    pub discards: Option<Discarding>,
}

impl OpenConfig {
    /// A store on one device, without scrub, discards and writes that are atomic.
    pub fn new(cluster: ClusterUuid, osd: OsdId, data_bytes: u64, durability: Durability) -> Self {
        OpenConfig {
            cluster,
            osd,
            data_bytes,
            log_device_bytes: None,
            durability,
            log_durability: durability,
            overwrites: Overwrites::default(),
            scrub: Duration(0),
            discards: None,
        }
    }
}

#[derive(Clone)]
enum Life {
    Opening(Box<Opening>),
    Running(Box<Running>),
    Refused(String),
}

/// An object store on a device. Body buffers of writes must begin on a 4 KiB boundary of memory, as pool buffers do.
#[derive(Clone)]
pub struct LogStore {
    life: Life,
}

impl LogStore {
    /// Begins to open a store; [`ObjectStore::state`] says when it serves, or why it does not.
    pub fn open(config: OpenConfig, env: &mut Env<'_>) -> Self {
        LogStore { life: Life::Opening(Box::new(Opening::new(config, env))) }
    }

    /// Bytes of a block: the largest copy that it can hold. 0 until it is open.
    pub fn block_size(&self) -> u32 {
        self.running().map_or(0, |store| store.superblock().block_size)
    }

    /// Whether nothing is under way: between two moments at which this holds only a request can have changed anything.
    pub fn is_quiet(&self) -> bool {
        self.running().is_some_and(Running::is_quiet)
    }

    /// Panics if an invariant is broken, as [`ObjectStore::check`] does; the owners of blocks and the sums of digests are not
    /// looked at.
    pub fn check_briefly(&self) {
        if let Some(store) = self.running() {
            store.check_briefly();
        }
    }

    /// All copies, in no order that means anything; for tools.
    pub fn copies(&self) -> impl Iterator<Item = CopyInfo> + '_ {
        let store = self.running();
        store.into_iter().flat_map(|store| store.objects.places().filter_map(move |place| store.info(place)))
    }

    /// How many writes of data went which way since it was opened.
    pub fn ways(&self) -> Ways {
        self.running().map_or(Ways::default(), |store| store.ways)
    }

    #[cfg(test)]
    fn describe(&self) -> String {
        self.running().map_or(String::new(), Running::describe)
    }

    fn running(&self) -> Option<&Running> {
        if let Life::Running(store) = &self.life { Some(store) } else { None }
    }

    /// Accepts an operation, or says at once what is wrong with it.
    fn accept(&mut self, env: &mut Env<'_>, token: u64, op: StoreOp) -> Result<(), (u64, StoreError)> {
        let Life::Running(store) = &mut self.life else { panic!("an operation for a store that is not open") };
        let reads = matches!(op, StoreOp::Read { .. } | StoreOp::ReadAll { .. });
        if store.is_closing() || (store.is_read_only() && !reads) {
            return Err((token, StoreError::Stopped));
        }
        let sums = check(&op, store.superblock().block_size).map_err(|error| (token, error))?;
        match op.copy() {
            Some(copy) => store.accept(env, Op::new(Some(token), Some(op), sums), copy),
            None => store.sync(token),
        }
        Ok(())
    }
}

/// CRC-32 of a unit of zeroes.
pub(super) fn zero_unit_crc() -> u32 {
    crc::of_zero_unit()
}

/// Whether an operation makes sense by itself; CRCs of the whole units of its data.
fn check(op: &StoreOp, block_size: u32) -> Result<Sums, StoreError> {
    let range = |offset: u32, len: u32| {
        let aligned = offset.is_multiple_of(SECTOR_BYTES) && len.is_multiple_of(SECTOR_BYTES);
        let inside = u64::from(offset) + u64::from(len) <= u64::from(block_size);
        let error = StoreError::BadRequest("range is not whole sectors of an object");
        if aligned && inside { Ok(()) } else { Err(error) }
    };
    let body = |offset: u32, data: &Data| {
        range(offset, data.len())?;
        write::intake(offset, data).ok_or(StoreError::BadChecksum)
    };
    match op {
        StoreOp::Write { offset, data: Some(data), .. } => body(*offset, data),
        StoreOp::Replace { content: Content::Data { data, bitmap }, .. } => {
            if bitmap.end() * SECTOR_BYTES > data.len() {
                return Err(StoreError::BadRequest("written sectors beyond the data"));
            }
            body(0, data)
        }
        StoreOp::Patch { patch, .. } => {
            if !patch.is_sound(block_size) {
                return Err(StoreError::BadRequest("a patch of other than whole units of an object"));
            }
            body(0, &patch.data)
        }
        StoreOp::Zero { offset, len, .. } | StoreOp::Read { offset, len, .. } => {
            range(*offset, *len).map(|()| Sums::new())
        }
        _ => Ok(Sums::new()),
    }
}

impl ObjectStore for LogStore {
    fn submit(&mut self, env: &mut Env<'_>, token: u64, op: StoreOp) {
        if let Err((token, error)) = self.accept(env, token, op) {
            let Life::Running(store) = &mut self.life else { return };
            store.complete(token, Err(error));
        }
    }

    fn handle_io(&mut self, env: &mut Env<'_>, id: IoId, done: DiskDone) {
        match &mut self.life {
            Life::Running(store) => store.handle_io(env, id, done),
            Life::Opening(opening) => match opening.handle_io(env, id, done) {
                Some(Outcome::Open(store)) => self.life = Life::Running(store),
                Some(Outcome::Refused(reason)) => self.life = Life::Refused(reason),
                None => {}
            },
            Life::Refused(_) => {}
        }
    }

    fn tick(&mut self, env: &mut Env<'_>) {
        self.end_of_round(env);
    }

    fn close(&mut self, env: &mut Env<'_>) {
        if let Life::Running(store) = &mut self.life {
            store.close();
        }
        self.end_of_round(env);
    }

    fn is_closed(&self) -> bool {
        // One that is not open yet has nothing to end.
        self.running().is_none_or(Running::is_closed)
    }

    fn end_of_round(&mut self, env: &mut Env<'_>) {
        if let Life::Running(store) = &mut self.life {
            store.end_of_round(env);
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        self.running()?.next_deadline()
    }

    fn next_completion(&mut self) -> Option<Completion> {
        if let Life::Running(store) = &mut self.life { store.next_completion() } else { None }
    }

    fn immediate_commit(&self) -> ImmediateCommit {
        self.running().map_or(ImmediateCommit::All, Running::immediate_commit)
    }

    fn state(&self) -> StoreState {
        match &self.life {
            Life::Opening(_) => StoreState::Opening,
            Life::Refused(reason) => StoreState::Failed(reason.clone()),
            Life::Running(store) => match store.failed() {
                Some(reason) => StoreState::Failed(reason.to_string()),
                None => StoreState::Open { trusted: store.is_trusted() },
            },
        }
    }

    fn uuid(&self) -> StoreUuid {
        self.running().map_or(StoreUuid::default(), |store| store.superblock().store)
    }

    fn lookup(&self, copy: CopyId) -> Option<CopyInfo> {
        let store = self.running()?;
        store.info(store.objects.find(copy)?)
    }

    fn written(&self, copy: CopyId, version: Option<Version>) -> Result<Bitmap, StoreError> {
        self.running().ok_or(StoreError::Stopped)?.written(copy, version)
    }

    fn list(
        &self,
        pool: PoolId,
        role: Role,
        range: HashRange,
        after: Option<CopyId>,
        limit: usize,
        out: &mut Vec<CopyInfo>,
    ) -> bool {
        let Some(store) = self.running() else { return false };
        let places = store.objects.range(pool, role, range, after);
        let mut rest = places.filter_map(|(_, place)| store.info(place));
        out.extend(rest.by_ref().take(limit));
        rest.next().is_some()
    }

    fn digest(&self, pool: PoolId, role: Role, range: HashRange) -> Digest {
        self.running().map_or(Digest::default(), |store| store.digest(pool, role, range))
    }

    fn roles(&self, pool: PoolId, range: HashRange) -> Vec<Role> {
        self.running().map_or_else(Vec::new, |store| store.objects.roles(pool, range))
    }

    fn content_sum(&self, copy: CopyId, version: Version) -> Option<u64> {
        let store = self.running()?;
        store.objects.view(store.objects.find(copy)?)?.versions.content_sum(version)
    }

    fn stats(&self) -> StoreStats {
        self.running().map_or_else(StoreStats::default, Running::stats)
    }

    fn use_by_pool(&self) -> Vec<(PoolId, PoolUse)> {
        self.running().map_or_else(Vec::new, Running::use_by_pool)
    }

    fn device_stages(&self) -> DeviceStages {
        self.running().map_or_else(DeviceStages::default, |store| store.device.clone())
    }

    fn check(&self) {
        if let Some(store) = self.running() {
            store.check();
        }
    }
}
