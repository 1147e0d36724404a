//! Disks that misbehave as a file says, in the place of [`Disks`]. Not in a production build.
//!
//! ```text
//!  node --begin--> Faulty --[Layer]--> Disks --> ring
//!  node <--take--- Faulty <--completed-- Disks <-'
//! ```
//! Without a file every request passes through.

use super::device::DeviceFile;
use super::disks::Disks;
use super::queue::{Completed, Queue};
use crate::counters::Counters;
use crate::faults::Watched;
use crate::os;
use ashlar_core::buf::{BufPool, UNIT};
use ashlar_core::io::{Device, DiskDone, DiskError, DiskOp, IoId};
use ashlar_core::time::Time;
use ashlar_faultinject::layer::{Around, Behaviour, Below, Layer, first_data_byte};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// The devices of one store, with their faults.
pub struct Faulty {
    disks: Disks,
    faults: Option<Source>,
}

struct Source {
    watched: &'static Watched,
    version: u64,
    data: Layered,
    log: Option<Layered>,
    /// Which device a request under way is for.
    devices: BTreeMap<IoId, Device>,
}

struct Layered {
    layer: Layer,
    file: Raw,
    is_data: bool,
}

/// The file itself, past the ring.
struct Raw(File);

impl Below for Raw {
    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.0.read_exact_at(into, offset).map_err(|_| DiskError::Io)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        self.0.write_all_at(data, offset).map_err(|_| DiskError::Io)
    }
}

impl Layered {
    fn new(device: &DeviceFile, is_data: bool) -> Layered {
        let seed = os::random_u64().expect("the operating system has random numbers");
        let file = Raw(device.file.try_clone().expect("a descriptor is free"));
        Layered { layer: Layer::new(device.size_bytes, device.block_bytes, seed), file, is_data }
    }

    /// Damage is done to data only: where the log is, it is a damaged store, which an operator replaces.
    fn set(&mut self, mut behaviour: Behaviour, bufs: &mut BufPool) {
        let mut superblock = bufs.alloc(UNIT);
        let read = self.file.read(0, superblock.bytes_mut());
        let data = read.ok().filter(|()| self.is_data).and_then(|()| first_data_byte(superblock.bytes()));
        behaviour.faults.from_byte = behaviour.faults.from_byte.max(data.unwrap_or(u64::MAX));
        self.layer.set(behaviour, &mut self.file);
    }

    fn around<'a>(file: &'a mut Raw, bufs: &'a mut BufPool) -> Around<'a> {
        Around { now: os::now(), bufs, below: file }
    }
}

impl Source {
    fn new(watched: &'static Watched, data: &DeviceFile, log: Option<&DeviceFile>) -> Source {
        let (data, log) = (Layered::new(data, true), log.map(|log| Layered::new(log, false)));
        Source { watched, version: 0, data, log, devices: BTreeMap::new() }
    }

    fn catch_up(&mut self, bufs: &mut BufPool) {
        if let Some((version, faults)) = self.watched.newer(self.version) {
            self.version = version;
            self.data.set(faults.disk, bufs);
            if let Some(log) = &mut self.log {
                log.set(faults.disk, bufs);
            }
        }
    }

    fn of(&mut self, device: Device) -> &mut Layered {
        match (device, &mut self.log) {
            (Device::Log, Some(log)) => log,
            _ => &mut self.data,
        }
    }

    fn begin(&mut self, bufs: &mut BufPool, id: IoId, op: DiskOp) -> Option<DiskOp> {
        self.catch_up(bufs);
        let device = op.device();
        let Layered { layer, file, .. } = self.of(device);
        let op = layer.begin(id, op, &mut Layered::around(file, bufs))?;
        self.devices.insert(id, device);
        Some(op)
    }

    fn completed(&mut self, bufs: &mut BufPool, id: IoId, done: DiskDone) {
        let device = self.devices.remove(&id).expect("begun here");
        let Layered { layer, file, .. } = self.of(device);
        layer.completed(id, done, &mut Layered::around(file, bufs));
    }

    fn layers(&self) -> impl Iterator<Item = &Layer> {
        std::iter::once(&self.data).chain(&self.log).map(|layered| &layered.layer)
    }
}

impl Faulty {
    /// The data device, and the log's own if it has one.
    pub fn new(data: DeviceFile, log: Option<DeviceFile>) -> Faulty {
        let faults = Watched::of_process();
        Faulty::with(data, log, faults)
    }

    fn with(data: DeviceFile, log: Option<DeviceFile>, watched: Option<&'static Watched>) -> Faulty {
        let faults = watched.map(|watched| Source::new(watched, &data, log.as_ref()));
        Faulty { disks: Disks::new(data, log), faults }
    }

    /// Requests that were not answered.
    pub fn in_flight(&self) -> usize {
        let held = self.faults.iter().flat_map(Source::layers).map(Layer::held).sum::<usize>();
        self.disks.in_flight() + held
    }

    /// As [`Disks::register`].
    pub fn register(&self, queue: &mut Queue) {
        self.disks.register(queue);
    }

    /// As [`Disks::begin`].
    pub fn begin(
        &mut self,
        queue: &mut Queue,
        bufs: &mut BufPool,
        counters: &mut Counters,
        id: IoId,
        op: DiskOp,
    ) -> Option<DiskDone> {
        let Some(faults) = &mut self.faults else { return self.disks.begin(queue, bufs, counters, id, op) };
        let op = faults.begin(bufs, id, op)?;
        let done = self.disks.begin(queue, bufs, counters, id, op)?;
        faults.completed(bufs, id, done);
        None
    }

    /// As [`Disks::completed`].
    pub fn completed(
        &mut self,
        queue: &mut Queue,
        bufs: &mut BufPool,
        device: Device,
        id: IoId,
        completed: Completed,
    ) -> Option<DiskDone> {
        let done = self.disks.completed(queue, bufs, device, id, completed)?;
        let Some(faults) = &mut self.faults else { return Some(done) };
        faults.completed(bufs, id, done);
        None
    }

    /// An answer whose time has come.
    pub fn take(&mut self, bufs: &mut BufPool, now: Time) -> Option<(IoId, DiskDone)> {
        let faults = self.faults.as_mut()?;
        faults.catch_up(bufs);
        faults.data.layer.take(now).or_else(|| faults.log.as_mut()?.layer.take(now))
    }

    /// When there may be one.
    pub fn next_due(&self, now: Time) -> Option<Time> {
        self.faults.iter().flat_map(Source::layers).filter_map(|layer| layer.next_due(now)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_core::time::Duration;
    use std::path::{Path, PathBuf};

    struct Bench {
        disks: Faulty,
        queue: Queue,
        bufs: BufPool,
        counters: Counters,
        watched: &'static Watched,
        says: PathBuf,
    }

    impl Bench {
        fn new(name: &str) -> Bench {
            let says = std::env::temp_dir().join(format!("ashlar-faulty-{}-{name}", std::process::id()));
            let watched: &'static Watched = Box::leak(Box::new(Watched::new(&says)));
            let path = Path::new("/var/tmp").join(format!("ashlar-faulty-{}-{name}", std::process::id()));
            DeviceFile::create(&path, 1 << 20).expect("a file");
            let disks = Faulty::with(DeviceFile::open(&path).expect("a device"), None, Some(watched));
            std::fs::remove_file(&path).expect("it is there");
            let (queue, bufs) = (Queue::new().expect("a ring"), BufPool::new());
            Bench { disks, queue, bufs, counters: Counters::default(), watched, says }
        }

        fn says(&self, text: &str) {
            std::fs::write(&self.says, text).expect("a temporary file");
            self.watched.look();
        }

        /// What comes within some time.
        fn ask(&mut self, op: DiskOp, patience: Duration) -> Option<DiskDone> {
            let Bench { disks, queue, bufs, counters, .. } = self;
            assert_eq!(disks.begin(queue, bufs, counters, IoId(7), op), None, "answers are taken elsewhere");
            self.wait(patience)
        }

        fn wait(&mut self, patience: Duration) -> Option<DiskDone> {
            let Bench { disks, queue, bufs, .. } = self;
            let end = os::now() + patience;
            while os::now() < end {
                queue.enter(Some(Duration::millis(2))).expect("the ring works");
                while let Some(completed) = queue.next() {
                    assert_eq!(disks.completed(queue, bufs, Device::Data, IoId(7), completed), None);
                }
                if let Some((id, done)) = disks.take(bufs, os::now()) {
                    assert_eq!((id, disks.in_flight()), (IoId(7), 0));
                    return Some(done);
                }
            }
            None
        }

        fn write(&mut self, byte: u8) -> DiskOp {
            DiskOp::Write { device: Device::Data, offset: 4096, data: self.bufs.copy_of(&[byte; 4096]) }
        }

        fn read(&mut self) -> Option<DiskDone> {
            self.ask(DiskOp::Read { device: Device::Data, offset: 4096, len: 4096 }, LONG)
        }
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            // It may never have been written.
            let _ = std::fs::remove_file(&self.says);
        }
    }

    const LONG: Duration = Duration::secs(20);
    const WELL: Option<DiskDone> = Some(DiskDone::Done(Ok(())));

    #[test]
    fn what_a_file_says_happens_to_requests_of_a_real_device() {
        let mut bench = Bench::new("says");
        let ops = [1, 2, 3].map(|byte| bench.write(byte));
        let [one, two, three] = ops;
        assert_eq!(bench.ask(one, LONG), WELL);
        bench.says(r#"{"disk":{"faults":{"write_error_ppm":1000000}}}"#);
        assert_eq!(bench.ask(two, LONG), Some(DiskDone::Done(Err(DiskError::Io))));
        bench.says(r#"{"disk":{"is_stalled":true}}"#);
        assert_eq!(bench.ask(three, Duration::millis(60)), None);
        assert_eq!(bench.disks.in_flight(), 1);
        assert!(bench.disks.next_due(os::now()).is_some_and(|at| at > os::now()));
        bench.says("{}");
        assert_eq!(bench.wait(LONG), WELL);
        let found = bench.read();
        assert!(matches!(found, Some(DiskDone::Read(Ok(buf))) if buf.bytes() == [3; 4096]));
    }

    #[test]
    fn a_volatile_cache_hides_what_the_device_holds_until_a_flush() {
        let mut bench = Bench::new("cache");
        bench.says(r#"{"disk":{"cache":{"early_ppm":0}}}"#);
        let write = bench.write(5);
        assert_eq!(bench.ask(write, LONG), WELL);
        let mut below = bench.bufs.zeroed(4096);
        let faults = bench.disks.faults.as_mut().expect("there are some");
        faults.data.file.read(4096, below.bytes_mut()).expect("readable");
        assert_eq!(below.bytes(), [0; 4096]);
        assert!(matches!(bench.read(), Some(DiskDone::Read(Ok(buf))) if buf.bytes() == [5; 4096]));
        assert_eq!(bench.ask(DiskOp::Flush { device: Device::Data }, LONG), WELL);
        let faults = bench.disks.faults.as_mut().expect("there are some");
        faults.data.file.read(4096, below.bytes_mut()).expect("readable");
        assert_eq!(below.bytes(), [5; 4096]);
    }
}
