//! Devices to run scripts on: the simulated one, and a file behind the ring.

use ashlar_core::buf::BufPool;
use ashlar_core::io::{DiskDone, DiskOp, IoId};
use ashlar_core::rng::Rng;
use ashlar_core::time::Duration;
use ashlar_faultinject::disk::{DiskModel, Latency, SimDisk, Ticket};
use ashlar_runtime::ring::{Alone, DeviceFile};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a device: enough for requests that do not meet, and quick to read as a whole.
pub const DEVICE_BYTES: u64 = 1 << 20;
/// Bytes of a block. A file's blocks are taken for the largest that there are, as it may come to lie on any device.
pub const BLOCK: u32 = 4096;

/// Folders of the two ways in which a runtime reaches a file.
pub fn folders() -> [PathBuf; 2] {
    [std::env::temp_dir(), "/dev/shm".into()]
}

/// A device under test.
pub trait Disk {
    /// Begins a request.
    fn submit(&mut self, id: IoId, op: DiskOp);
    /// Waits for all requests; what they came to, in the order in which they completed.
    fn finish(&mut self) -> Vec<(IoId, DiskDone)>;
    /// Memory of requests.
    fn bufs(&mut self) -> &mut BufPool;
}

/// The simulated device, which completes requests in an order of its own.
pub struct Simulated {
    disk: SimDisk,
    open: Vec<(IoId, Ticket)>,
    rng: Rng,
    bufs: BufPool,
}

impl Simulated {
    pub fn new(seed: u64) -> Simulated {
        let mut bufs = BufPool::new();
        let quick = Latency { base: Duration::micros(10), tail: Duration::micros(10), tail_ppm: 0 };
        let model = DiskModel {
            size_bytes: DEVICE_BYTES,
            block_bytes: BLOCK,
            power_loss_protection: seed.is_multiple_of(2),
            atomic_bytes: 512,
            read: quick,
            write: quick,
            flush: quick,
        };
        Simulated { disk: SimDisk::new(model, &mut bufs), open: Vec::new(), rng: Rng::new(seed), bufs }
    }

    /// The page cannot be read from now on.
    pub fn make_unreadable(&mut self, page: u64) {
        self.disk.make_unreadable(page);
    }
}

impl Disk for Simulated {
    fn submit(&mut self, id: IoId, op: DiskOp) {
        let (ticket, _) = self.disk.submit(&mut self.rng, op);
        self.open.push((id, ticket));
    }

    fn finish(&mut self) -> Vec<(IoId, DiskDone)> {
        let mut done = Vec::new();
        while !self.open.is_empty() {
            let place = usize::try_from(self.rng.below(self.open.len() as u64)).expect("few requests");
            let (id, ticket) = self.open.swap_remove(place);
            let result = self.disk.complete(ticket, &mut self.rng, &mut self.bufs);
            done.push((id, result.expect("in flight")));
        }
        done
    }

    fn bufs(&mut self) -> &mut BufPool {
        &mut self.bufs
    }
}

/// A path that is free, for this test alone.
pub fn free_path(folder: &Path) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    folder.join(format!("ashlar-conformance-{}-{number}", std::process::id()))
}

/// A file of zeroes behind the ring, or in memory; it goes with this.
pub struct Real {
    ring: Alone,
    pub path: PathBuf,
}

impl Real {
    /// A new file.
    pub fn new(folder: &Path) -> Real {
        let path = free_path(folder);
        assert!(DeviceFile::create(&path, DEVICE_BYTES).expect("there is space"));
        Real::open(path)
    }

    /// A file that is there.
    pub fn open(path: PathBuf) -> Real {
        let file = DeviceFile::open(&path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((file.size_bytes, file.block_bytes), (DEVICE_BYTES, BLOCK));
        Real { ring: Alone::new(file, None, 1).expect("a ring"), path }
    }
}

impl Disk for Real {
    fn submit(&mut self, id: IoId, op: DiskOp) {
        self.ring.begin(id, op);
    }

    fn finish(&mut self) -> Vec<(IoId, DiskDone)> {
        let mut done = Vec::new();
        while self.ring.in_flight() > 0 {
            self.ring.wait(None).expect("the ring works");
            done.extend(std::iter::from_fn(|| self.ring.take()));
        }
        done
    }

    fn bufs(&mut self) -> &mut BufPool {
        &mut self.ring.bufs
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        // Best effort: somebody may have moved it.
        let _ = std::fs::remove_file(&self.path);
    }
}
