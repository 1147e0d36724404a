//! A store that no OSD has open, driven by plain calls.
//!
//! For reading alone, what opening wants to write is withheld in memory: the store is opened as after any crash, and the
//! device stays as it is.

use super::Place;
use crate::sentences;
use anyhow::{Context, Result, anyhow, bail};
use ashlar_core::buf::{Buf, BufPool, UNIT, UNIT_USIZE};
use ashlar_core::id::{CopyId, Version};
use ashlar_core::io::{Device, DiskDone, DiskError, DiskOp, Effect, Effects, Env, Event, IoId};
use ashlar_core::rng::Rng;
use ashlar_core::store::log::{COPIES_AT, Durability, Layout, LogStore, OpenConfig, layout};
use ashlar_core::store::{CopyInfo, ObjectStore, StoreOp, StoreReply, StoreState, StoreStats};
use ashlar_core::time::Time;
use ashlar_runtime::ring::DeviceFile;
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;

/// What may be done to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing is written.
    Read,
    /// Opening records what it found.
    Write,
}

/// The store.
pub struct Offline {
    store: LogStore,
    devices: Devices,
    /// What its superblock says.
    pub layout: Layout,
    /// The copies of the superblocks.
    pub superblocks: Vec<SuperblockCopy>,
    rng: Rng,
    bufs: BufPool,
    out: Effects,
    now: Time,
}

/// A copy of a superblock.
#[derive(Clone)]
pub struct SuperblockCopy {
    /// Device that it is on.
    pub device: Device,
    /// Where.
    pub offset: u64,
    /// What is wrong with it.
    pub error: Option<String>,
}

/// The devices, and what was not written to them.
struct Devices {
    data: DeviceFile,
    log: Option<DeviceFile>,
    access: Access,
    withheld: BTreeMap<(bool, u64), Buf>,
}

impl Offline {
    /// Opens the store of a device.
    pub fn open(place: &Place, access: Access) -> Result<Offline> {
        let data = DeviceFile::open(&place.path)?;
        let log = place.log.as_deref().map(DeviceFile::open).transpose()?;
        let devices = Devices { data, log, access, withheld: BTreeMap::new() };
        let mut bufs = BufPool::new();
        let (layout, superblocks) = devices.superblocks(&mut bufs)?;
        let config = OpenConfig {
            log_device_bytes: devices.log.as_ref().map(|log| log.size_bytes),
            ..OpenConfig::new(layout.cluster, layout.osd, devices.data.size_bytes, Durability::Flush)
        };
        let (mut rng, mut out, now) = (Rng::new(1), Effects::default(), Time(0));
        let store = LogStore::open(config, &mut Env { now, rng: &mut rng, bufs: &mut bufs, out: &mut out });
        let mut offline = Offline { store, devices, layout, superblocks, rng, bufs, out, now };
        offline.work();
        match offline.store.state() {
            StoreState::Open { .. } => Ok(offline),
            StoreState::Failed(reason) => Err(anyhow!("the store cannot be opened: {reason}")),
            StoreState::Opening => bail!("the store did not finish opening"),
        }
    }

    /// Carries out the store's requests until it has none.
    fn work(&mut self) {
        while !self.out.queue.is_empty() {
            for effect in std::mem::take(&mut self.out.queue) {
                match effect {
                    Effect::Io { id, op } => self.carry_out(id, op),
                    Effect::Observe(Event::Log(_, text)) => eprintln!("{text}"),
                    Effect::Observe(_) => {}
                    other => panic!("a store emitted {other:?}"),
                }
            }
        }
    }

    fn carry_out(&mut self, id: IoId, op: DiskOp) {
        let done = self.devices.carry_out(op, &mut self.bufs);
        let env = &mut Env { now: self.now, rng: &mut self.rng, bufs: &mut self.bufs, out: &mut self.out };
        self.store.handle_io(env, id, done);
    }

    fn call(&mut self, call: impl FnOnce(&mut LogStore, &mut Env<'_>)) {
        let env = &mut Env { now: self.now, rng: &mut self.rng, bufs: &mut self.bufs, out: &mut self.out };
        call(&mut self.store, env);
        self.work();
    }

    /// Where it is in its life.
    pub fn state(&self) -> StoreState {
        self.store.state()
    }

    /// Its use.
    pub fn stats(&self) -> StoreStats {
        self.store.stats()
    }

    /// Every copy, with its versions.
    pub fn copies(&self) -> Vec<CopyInfo> {
        self.store.copies().collect()
    }

    /// Panics if an invariant of the store is broken.
    pub fn check(&self) {
        self.store.check();
    }

    /// Pages that opening wanted to write.
    pub fn withheld(&self) -> usize {
        self.devices.withheld.len()
    }

    /// Reads a version of a copy, the newest if none is named.
    pub fn read_all(&mut self, copy: CopyId, version: Option<Version>) -> Result<StoreReply> {
        self.call(|store, env| store.submit(env, 1, StoreOp::ReadAll { copy, version }));
        let completion = self.store.next_completion().context("the read was not answered")?;
        completion.result.map_err(|error| anyhow!(sentences::of_error(&error)))
    }

    /// Writes the good copy of a superblock over the ones that are not.
    pub fn repair_superblocks(&mut self) -> Result<usize> {
        let bad: Vec<_> = self.superblocks.iter().filter(|copy| copy.error.is_some()).cloned().collect();
        for SuperblockCopy { device, offset, .. } in &bad {
            let good = self.superblocks.iter().find(|copy| copy.device == *device && copy.error.is_none());
            let from = good.context("no copy of the superblock is good")?.offset;
            let file = self.devices.file(*device)?;
            let mut buf = self.bufs.alloc(UNIT);
            file.file.read_exact_at(buf.bytes_mut(), from)?;
            file.file.write_all_at(buf.bytes(), *offset)?;
            file.file.sync_data()?;
        }
        Ok(bad.len())
    }
}

impl Devices {
    fn file(&self, device: Device) -> Result<&DeviceFile> {
        match device {
            Device::Data => Ok(&self.data),
            Device::Log => self.log.as_ref().context("the store has its log on another device: name it with --log"),
        }
    }

    /// What the superblocks say, and of each copy what is wrong with it.
    fn superblocks(&self, bufs: &mut BufPool) -> Result<(Layout, Vec<SuperblockCopy>)> {
        let (mut found, mut copies) = (None, Vec::new());
        let devices = [Some(Device::Data), self.log.as_ref().map(|_| Device::Log)];
        for device in devices.into_iter().flatten() {
            for offset in COPIES_AT {
                let mut buf = bufs.alloc(UNIT);
                let file = self.file(device)?;
                if file.size_bytes < offset + u64::from(UNIT) {
                    bail!("{} has {} bytes: too few for a store", file.path.display(), file.size_bytes);
                }
                let read = file.file.read_exact_at(buf.bytes_mut(), offset);
                read.with_context(|| format!("cannot read {}", file.path.display()))?;
                let result = layout(buf.bytes());
                found = found.or(result.as_ref().ok().copied().filter(|_| device == Device::Data));
                copies.push(SuperblockCopy { device, offset, error: result.err() });
            }
        }
        let reasons: Vec<_> = copies.iter().filter_map(|copy| copy.error.clone()).collect();
        let found: Layout = found.with_context(|| format!("{}: {}", self.data.path.display(), reasons.join("; ")))?;
        if found.is_log {
            let (path, store) = (self.data.path.display(), found.store);
            bail!(
                "{path} is the log of store {store} of osd.{}; name the device with its data, and this one with --log",
                found.osd.0
            );
        }
        if found.separate_log && self.log.is_none() {
            bail!("the store has its log on another device: name it with --log");
        }
        Ok((found, copies))
    }

    fn carry_out(&mut self, op: DiskOp, bufs: &mut BufPool) -> DiskDone {
        match op {
            DiskOp::Read { device, offset, len } => DiskDone::Read(self.read(device, offset, len, bufs)),
            DiskOp::Write { device, offset, data } => DiskDone::Done(self.write(device, offset, &data)),
            DiskOp::Flush { device } if self.access == Access::Write => {
                let flushed = self.file(device).map_err(|_| DiskError::Io);
                DiskDone::Done(flushed.and_then(|file| file.file.sync_data().map_err(|_| DiskError::Io)))
            }
            DiskOp::Flush { .. } | DiskOp::Discard { .. } => DiskDone::Done(Ok(())),
        }
    }

    fn read(&self, device: Device, offset: u64, len: u32, bufs: &mut BufPool) -> Result<Buf, DiskError> {
        let mut buf = bufs.alloc(len);
        let file = self.file(device).map_err(|_| DiskError::Io)?;
        file.file.read_exact_at(buf.bytes_mut(), offset).map_err(|_| DiskError::Io)?;
        let end = offset + u64::from(len);
        for ((_, at), page) in self.withheld.range((device == Device::Log, offset)..(device == Device::Log, end)) {
            let from = usize::try_from(at - offset).expect("inside the buffer");
            buf.bytes_mut()[from..from + UNIT_USIZE].copy_from_slice(page.bytes());
        }
        Ok(bufs.freeze(buf))
    }

    fn write(&mut self, device: Device, offset: u64, data: &Buf) -> Result<(), DiskError> {
        if self.access == Access::Read {
            for page in 0..data.len() / UNIT {
                let at = offset + u64::from(page * UNIT);
                self.withheld.insert((device == Device::Log, at), data.slice(page * UNIT, UNIT));
            }
            return Ok(());
        }
        let file = self.file(device).map_err(|_| DiskError::Io)?;
        file.file.write_all_at(data.bytes(), offset).map_err(|_| DiskError::Io)
    }
}
