//! What OSDs live on, and how it misbehaves.
//!
//! | under | what it is | what can happen |
//! | --- | --- | --- |
//! | files | plain files | nothing of this |
//! | layer | the same, and a layer inside the OSD's process ([`ashlar_faultinject::layer`]; a build with the feature `faults`) with a volatile cache: the end of the process is a loss of power | everything; no privileges needed |
//! | devices | the simulator's devices, mounted ([`crate::devices`]; root and `/dev/fuse`) | everything; and a power cut takes what was under way |
//!
//! Owns: how each kind of damage is done. Does not own: whom it hits, when, and what a pool survives ([`crate::injector`]).

use crate::devices::Devices;
use crate::fleet::{Fleet, Place, Shape};
use crate::scratch::Scratch;
use anyhow::Result;
use ashlar_core::rng::Rng;
use ashlar_core::time::Duration as Span;
use ashlar_faultinject::disk::{DiskFaults, Latency, Outcome};
use ashlar_faultinject::layer::{Behaviour, Cache, first_data_byte};
use ashlar_faultinject::mix::FaultKind;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// What OSDs live on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Under {
    /// Plain files.
    #[default]
    Files,
    /// The same, with a layer of faults inside the OSDs' processes.
    Layer,
    /// The simulator's devices, mounted by nbdfuse.
    Devices,
}

/// Faults of disks and power.
const KINDS: &[FaultKind] = &[
    FaultKind::HostPower,
    FaultKind::TotalPower,
    FaultKind::DiskStall,
    FaultKind::SlowDisk,
    FaultKind::DiskError,
    FaultKind::ReadError,
    FaultKind::Astray,
    FaultKind::LatentError,
    FaultKind::BitRot,
    FaultKind::Wipe,
];
/// A disk that is slow: tens of milliseconds, now and then half a second.
const SLOW: Latency = Latency { base: Span::millis(8), tail: Span::millis(500), tail_ppm: 10_000 };
/// Of sectors that were not flushed, how many a layer's device writes early; drawn for each loss of power.
const EARLY_PPM: [u64; 4] = [0, 0, 300_000, 900_000];
/// How often a layer damages what it should: there are few requests to a page.
const DAMAGE_PPM: u64 = 20_000;

impl Under {
    /// Kinds of faults that are possible on it.
    pub fn kinds(self) -> &'static [FaultKind] {
        if self == Under::Files { &[] } else { KINDS }
    }

    /// Whether this machine has it.
    pub fn is_possible(self) -> bool {
        self != Under::Devices || Devices::are_possible()
    }
}

/// The disks of a cluster's OSDs.
pub struct Platters {
    under: Under,
    devices: Option<Mutex<Devices>>,
    /// What layers do, besides having a cache.
    layers: Mutex<BTreeMap<u32, Behaviour>>,
    cache: Mutex<Cache>,
}

impl Platters {
    /// For a cluster that is to be started.
    pub fn new(under: Under, scratch: &Scratch, shape: &Shape, seed: u64) -> Result<Platters> {
        let devices = match under {
            Under::Devices => {
                Some(Mutex::new(Devices::new(scratch, shape.osds, shape.osd_bytes, shape.log_bytes(), seed)?))
            }
            Under::Files | Under::Layer => None,
        };
        Ok(Platters { under, devices, layers: Mutex::default(), cache: Mutex::default() })
    }

    /// Where OSDs find devices.
    pub fn paths(&self) -> BTreeMap<u32, Place> {
        self.devices().map(|devices| devices.paths()).unwrap_or_default()
    }

    /// What they are.
    pub fn under(&self) -> Under {
        self.under
    }

    fn devices(&self) -> Option<MutexGuard<'_, Devices>> {
        self.devices.as_ref().map(locked)
    }

    /// All are as they should be from now on, but for what is damaged already.
    pub fn behave(&self, fleet: &Fleet) -> Result<()> {
        if let Some(devices) = self.devices() {
            devices.behave();
        }
        locked(&self.layers).clear();
        (1..=fleet.shape().osds).try_for_each(|osd| self.tell(fleet, osd))
    }

    /// Has a layer do what it should.
    fn tell(&self, fleet: &Fleet, osd: u32) -> Result<()> {
        if self.under != Under::Layer {
            return Ok(());
        }
        let behaviour = locked(&self.layers).get(&osd).copied().unwrap_or_default();
        let cache = Some(*locked(&self.cache));
        fleet.misbehave(&format!("osd-{osd}"), |faults| faults.disk = Behaviour { cache, ..behaviour })
    }

    fn change(&self, fleet: &Fleet, osd: u32, change: impl FnOnce(&mut Behaviour)) -> Result<()> {
        change(locked(&self.layers).entry(osd).or_default());
        self.tell(fleet, osd)
    }

    /// One answers nothing, until it is told to behave, or for so long.
    pub fn stall(&self, fleet: &Fleet, osd: u32, length: Duration) -> Result<()> {
        match self.devices() {
            Some(devices) => devices.stall(osd, length),
            None => self.change(fleet, osd, |behaviour| behaviour.is_stalled = true)?,
        }
        Ok(())
    }

    /// One is slow.
    pub fn slow_down(&self, fleet: &Fleet, osd: u32) -> Result<()> {
        match self.devices() {
            Some(devices) => devices.set_latency(osd, SLOW),
            None => self.change(fleet, osd, |behaviour| behaviour.latency = Some(SLOW))?,
        }
        Ok(())
    }

    /// Requests of one fail, or go astray.
    pub fn set_faults(&self, fleet: &Fleet, osd: u32, faults: DiskFaults) -> Result<()> {
        match self.devices() {
            Some(devices) => devices.set_faults(osd, faults),
            None => self.change(fleet, osd, |behaviour| behaviour.faults = faults)?,
        }
        Ok(())
    }

    /// Where data begin on one; a layer knows that by itself.
    pub fn first_data_byte(&self, osd: u32) -> Option<u64> {
        let path = self.devices()?.paths().remove(&osd)?.data;
        let mut superblock = [0; 4096];
        File::open(path).ok()?.read_exact(&mut superblock).ok()?;
        first_data_byte(&superblock)
    }

    /// Damages what one holds: bits flip, or pages cannot be read. In words, how, or why nothing was damaged.
    pub fn spoil(&self, fleet: &Fleet, osd: u32, rots: bool) -> Result<Result<String, String>> {
        let what = if rots { "rot" } else { "cannot be read" };
        if let Some(devices) = self.devices() {
            return Ok(match devices.spoil(osd, 1, rots) {
                0 => Err(format!("no page of osd-{osd} was written yet")),
                count => Ok(format!("{count} pages of osd-{osd} {what}")),
            });
        }
        self.change(fleet, osd, |behaviour| match rots {
            true => behaviour.rot_ppm = DAMAGE_PPM,
            false => behaviour.latent_ppm = DAMAGE_PPM,
        })?;
        Ok(Ok(format!("pages of osd-{osd} {what}, {DAMAGE_PPM} in a million")))
    }

    /// A new disk in the place of one whose OSD is dead.
    pub fn replace(&self, fleet: &Fleet, osd: u32) -> Result<()> {
        match self.devices() {
            Some(mut devices) => devices.replace(osd),
            None => fleet.remove_file(osd),
        }
    }

    /// The power of some goes, with their OSDs, and comes back. In words, what became of what was not flushed.
    pub fn cut(&self, fleet: &Fleet, osds: &[u32], rng: &mut Rng) -> Result<String> {
        let names: Vec<String> = osds.iter().map(|osd| format!("osd-{osd}")).collect();
        let outcome = Outcome::draw(rng);
        let early = EARLY_PPM[usize::try_from(rng.below(4))?];
        if let Some(mut devices) = self.devices() {
            devices.fail(osds);
            fleet.kill_all(names.iter().map(String::as_str));
            let lost = devices.power_off(osds, outcome);
            devices.power_on()?;
            return Ok(format!("{} without power: {outcome:?}, {lost} sectors lost", names.join(", ")));
        }
        fleet.kill_all(names.iter().map(String::as_str));
        let before = std::mem::replace(&mut *locked(&self.cache), Cache { early_ppm: early });
        (1..=fleet.shape().osds).try_for_each(|osd| self.tell(fleet, osd))?;
        Ok(format!("{} without power: {} in a million sectors were written early", names.join(", "), before.early_ppm))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics under this lock")
}
