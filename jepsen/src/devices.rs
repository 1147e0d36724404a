//! Disks that behave as the simulator's do, under real processes: torn, reordered and lost writes, errors, lies.
//!
//! ```text
//!  OSD --io_uring--> FOLDER/disk (nbdfuse) --NBD--> a thread here with a simulated device
//!                                rig --NBD, "canary"--> the same device, behind its end
//! ```
//! The device is [`SimDisk`], so everything that the simulator says about disks holds here: its cache is volatile, its
//! writes take effect in any order, its power losses tear sectors. It lives in this process, which no power cut hits.
//! The *canary* is a few pages of the device that belong to the rig: what the rig flushed there must survive, or the device
//! lies, whoever else lost something.
//!
//! Owns: devices, their servers and mounts. Invariant: none is left behind, however a run ends; a request that came
//! before a power cut is never carried out after it.

mod served;

use crate::disks::{Mount, are_possible};
use crate::fleet::Place;
use crate::nbd::Nbd;
use crate::scratch::Scratch;
use anyhow::{Context, Result};
use ashlar_core::rng::Rng;
use ashlar_core::time::Duration as Span;
use ashlar_faultinject::disk::{DiskFaults, Latency, Outcome};
pub(crate) use served::Served;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Pages behind the OSD's part of a device.
pub const CANARY_PAGES: u64 = 8;
/// The canary's export.
pub const CANARY: &str = "canary";
const PATIENCE: Duration = Duration::from_secs(20);
/// A quick device: what it takes to have several requests under way.
const USUAL: Latency = Latency { base: Span::micros(20), tail: Span::millis(2), tail_ppm: 2_000 };

/// How a device misbehaves, besides its [`DiskFaults`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lies {
    /// Flushes are answered and do nothing.
    pub flush: bool,
    /// Reads in a million that answer what was there before the newest write.
    pub stale_read_ppm: u64,
    /// Pages that may be in use; further ones are refused for want of space.
    pub full_after: Option<u64>,
}

struct Device {
    /// As people call it.
    name: String,
    served: Served,
    socket: PathBuf,
    folder: PathBuf,
    mount: Option<Mount>,
    canary: u64,
}

/// What one OSD has. All of it loses its power together.
struct Set {
    data: Device,
    log: Option<Device>,
}

impl Set {
    fn all(&self) -> impl Iterator<Item = &Device> {
        std::iter::once(&self.data).chain(&self.log)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Device> {
        std::iter::once(&mut self.data).chain(&mut self.log)
    }
}

/// The devices of a cluster's OSDs.
pub struct Devices {
    all: BTreeMap<u32, Set>,
    rng: Rng,
}

impl Devices {
    /// Whether this machine can mount them.
    pub fn are_possible() -> bool {
        are_possible()
    }

    /// So many, of so many bytes each; with others beside them for logs, if these have a size.
    pub fn new(scratch: &Scratch, count: u32, bytes: u64, log_bytes: Option<u64>, seed: u64) -> Result<Devices> {
        let mut devices = Devices { all: BTreeMap::new(), rng: Rng::new(seed) };
        for osd in 1..=count {
            let data = devices.make(scratch, &format!("device-{osd}"), format!("the device of osd.{osd}"), bytes)?;
            let log = log_bytes.map(|bytes| {
                devices.make(scratch, &format!("log-{osd}"), format!("the log's device of osd.{osd}"), bytes)
            });
            devices.all.insert(osd, Set { data, log: log.transpose()? });
        }
        devices.power_on()?;
        Ok(devices)
    }

    fn make(&mut self, scratch: &Scratch, place: &str, name: String, bytes: u64) -> Result<Device> {
        let (socket, folder) = (scratch.join(&format!("{place}.sock")), scratch.join(place));
        let served = Served::start(&socket, bytes, self.rng.next_u64())?;
        served.set_latency(USUAL);
        Ok(Device { name, served, socket, folder, mount: None, canary: 0 })
    }

    /// Where OSDs find them.
    pub fn paths(&self) -> BTreeMap<u32, Place> {
        let place = |set: &Set| Place {
            data: disk_in(&set.data.folder),
            log: set.log.as_ref().map(|device| disk_in(&device.folder)),
        };
        self.all.iter().map(|(osd, set)| (*osd, place(set))).collect()
    }

    fn each(&self) -> impl Iterator<Item = &Device> {
        self.all.values().flat_map(Set::all)
    }

    /// The power of some begins to go, all at one moment: nothing is carried out any more. Whoever used them is killed
    /// next, before it learns of that.
    pub fn fail(&self, osds: &[u32]) {
        let sets = osds.iter().filter_map(|osd| self.all.get(osd));
        sets.flat_map(Set::all).for_each(|device| device.served.fail());
    }

    /// The power of some is gone; whoever used them is dead already.
    pub fn power_off(&mut self, osds: &[u32], outcome: Outcome) -> u64 {
        let mut lost = 0;
        for osd in osds {
            for device in self.all.get_mut(osd).into_iter().flat_map(Set::all_mut) {
                lost += device.served.power_loss(outcome);
                device.mount = None;
            }
        }
        lost
    }

    /// All that are off are on again.
    pub fn power_on(&mut self) -> Result<()> {
        for device in self.all.values_mut().flat_map(Set::all_mut).filter(|device| device.mount.is_none()) {
            device.mount = Some(Mount::new(&device.socket, &device.folder)?);
        }
        Ok(())
    }

    /// Requests of one OSD's fail at these rates from now on. What goes astray, or nowhere, is data: a log that loses its
    /// writes is a lost store.
    pub fn set_faults(&self, osd: u32, faults: DiskFaults) {
        let set = &self.all[&osd];
        set.data.served.set_faults(faults);
        let of_logs = DiskFaults { lost_write_ppm: 0, misdirected_write_ppm: 0, ..faults };
        set.log.iter().for_each(|log| log.served.set_faults(of_logs));
    }

    /// Those of one OSD lie from now on.
    pub fn set_lies(&self, osd: u32, lies: Lies) {
        self.all[&osd].all().for_each(|device| device.served.set_lies(lies));
    }

    /// All are as they should be from now on, but for what is damaged already.
    pub fn behave(&self) {
        for device in self.each() {
            device.served.set_faults(DiskFaults::default());
            device.served.set_lies(Lies::default());
            device.served.set_latency(USUAL);
        }
    }

    /// Requests of one OSD's take so long from now on.
    pub fn set_latency(&self, osd: u32, latency: Latency) {
        self.all[&osd].all().for_each(|device| device.served.set_latency(latency));
    }

    /// Those of one OSD answer nothing for a while.
    pub fn stall(&self, osd: u32, length: Duration) {
        self.all[&osd].all().for_each(|device| device.served.stall(length));
    }

    /// Damages pages of one that were written: bits flip, or they cannot be read; how many. A log of its own is left alone: it
    /// is not redundant.
    pub fn spoil(&self, osd: u32, pages: u32, rots: bool) -> u32 {
        self.all[&osd].data.served.spoil(pages, rots)
    }

    /// New devices in the place of those whose process is dead.
    pub fn replace(&mut self, osd: u32) -> Result<()> {
        for device in self.all.get_mut(&osd).context("an OSD with a device")?.all_mut() {
            device.mount = None;
            device.served.replace();
            device.canary = 0;
        }
        self.power_on()
    }

    /// Writes every canary anew, and flushes it.
    pub fn feed_canaries(&mut self) -> Result<()> {
        for device in self.all.values_mut().flat_map(Set::all_mut) {
            let mut nbd = Nbd::connect(&device.socket, CANARY, PATIENCE)?;
            let next = device.canary + 1;
            for page in 0..CANARY_PAGES {
                nbd.write(page * 4096, &canary(page, next))?;
            }
            nbd.flush()?;
            device.canary = next;
        }
        Ok(())
    }

    /// Devices that did not keep what they said they had.
    pub fn dead_canaries(&self) -> Result<Vec<String>> {
        let mut dead = Vec::new();
        for device in self.each() {
            let mut nbd = Nbd::connect(&device.socket, CANARY, PATIENCE)?;
            for page in 0..CANARY_PAGES {
                let found = nbd.read(page * 4096, 4096)?;
                let expected = if device.canary == 0 { vec![0; 4096] } else { canary(page, device.canary) };
                if found != expected {
                    let holds = u64::from_le_bytes(found[8..16].try_into()?);
                    dead.push(format!(
                        "{} answered a flush of write {} to page {page} of its canary, and holds {holds}",
                        device.name, device.canary
                    ));
                }
            }
        }
        Ok(dead)
    }

    /// Requests that all carried out: reads, writes, flushes.
    pub fn counts(&self) -> [u64; 3] {
        let mut sum = [0; 3];
        for device in self.each() {
            let counters = device.served.counters();
            for (sum, count) in sum.iter_mut().zip([counters.reads, counters.writes, counters.flushes]) {
                *sum += count;
            }
        }
        sum
    }
}

fn canary(page: u64, number: u64) -> Vec<u8> {
    [page.to_le_bytes(), number.to_le_bytes()].concat().repeat(256)
}

fn disk_in(folder: &Path) -> PathBuf {
    folder.join("disk")
}

#[cfg(test)]
mod tests;
