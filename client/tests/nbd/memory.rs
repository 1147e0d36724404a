//! A disk in memory that completes its operations in another order than they came.

use ashlar_client::nbd::{Disk, Exports};
use ashlar_client::{Error, Extent, ImageOp, OpError, Outcome};
use ashlar_core::buf::BufPool;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SECTOR: usize = 512;
const OBJECT: u32 = 128 << 10;

struct Contents {
    bytes: Vec<u8>,
    written: Vec<bool>,
    pool: BufPool,
}

/// See the module's header.
#[derive(Clone)]
pub struct Memory {
    contents: Arc<Mutex<Contents>>,
    size: u64,
    pub read_only: bool,
    pub flushes: Arc<AtomicU64>,
    /// Operations fail with this.
    pub error: Arc<Mutex<Option<OpError>>>,
    /// Every operation takes so long.
    pub delay: Arc<Mutex<Duration>>,
    /// Operations so far.
    pub operations: Arc<AtomicU32>,
}

impl Memory {
    pub fn new(size: u64) -> Self {
        let bytes = usize::try_from(size).unwrap();
        let written = vec![false; bytes.div_ceil(SECTOR)];
        Memory {
            contents: Arc::new(Mutex::new(Contents { bytes: vec![0; bytes], written, pool: BufPool::new() })),
            size,
            read_only: false,
            flushes: Arc::default(),
            error: Arc::default(),
            delay: Arc::default(),
            operations: Arc::default(),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.contents.lock().unwrap().bytes.clone()
    }

    fn apply(&self, op: ImageOp) -> Outcome {
        let mut guard = self.contents.lock().unwrap();
        let contents = &mut *guard;
        let at = |offset: u64| usize::try_from(offset).unwrap();
        match op {
            ImageOp::Flush => {
                self.flushes.fetch_add(1, Ordering::SeqCst);
            }
            ImageOp::Read { offset, len } => return contents.read(offset, offset + u64::from(len)),
            ImageOp::Write { offset, data } => {
                let range = at(offset)..at(offset) + data.bytes().len();
                contents.bytes[range.clone()].copy_from_slice(data.bytes());
                contents.written[range.start / SECTOR..range.end.div_ceil(SECTOR)].fill(true);
            }
            ImageOp::Discard { offset, len } | ImageOp::WriteZeroes { offset, len, .. } => {
                contents.bytes[at(offset)..at(offset + len)].fill(0);
                let whole = at(offset).div_ceil(SECTOR)..at(offset + len) / SECTOR;
                if !whole.is_empty() {
                    contents.written[whole].fill(false);
                }
            }
            ImageOp::BlockStatus { offset, len } => return contents.status(offset, offset + len),
        }
        Outcome::Done
    }
}

impl Contents {
    fn read(&mut self, mut offset: u64, end: u64) -> Outcome {
        let mut pieces = ashlar_client::Pieces::new();
        while offset < end {
            let stop = (offset / u64::from(OBJECT) + 1) * u64::from(OBJECT);
            let range = usize::try_from(offset).unwrap()..usize::try_from(stop.min(end)).unwrap();
            pieces.push(self.pool.copy_of(&self.bytes[range]));
            offset = stop;
        }
        Outcome::Read(pieces)
    }

    fn status(&self, mut offset: u64, end: u64) -> Outcome {
        let mut extents: Vec<Extent> = Vec::new();
        while offset < end {
            let sector = offset / SECTOR as u64;
            let stop = ((sector + 1) * SECTOR as u64).min(end);
            let written = self.written[usize::try_from(sector).unwrap()];
            match extents.last_mut() {
                Some(last) if last.written == written => last.len += stop - offset,
                _ => extents.push(Extent { len: stop - offset, written }),
            }
            offset = stop;
        }
        Outcome::BlockStatus(extents)
    }
}

impl Disk for Memory {
    fn size(&self) -> u64 {
        self.size
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn object_bytes(&self) -> u32 {
        OBJECT
    }

    async fn perform(&self, op: ImageOp) -> Result<Outcome, Error> {
        if let Some(error) = *self.error.lock().unwrap() {
            return Err(error.into());
        }
        let outcome = self.apply(op);
        // Every third operation is overtaken by those after it.
        if self.operations.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
            tokio::task::yield_now().await;
        }
        let delay = *self.delay.lock().unwrap();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        Ok(outcome)
    }
}

/// One disk, under the name "demo" and as the default.
#[derive(Clone)]
pub struct One(pub Memory);

impl Exports for One {
    type Disk = Memory;

    async fn names(&self) -> Vec<String> {
        vec!["demo".into()]
    }

    async fn find(&self, name: &str) -> Result<Memory, String> {
        if name.is_empty() || name == "demo" { Ok(self.0.clone()) } else { Err(format!("there is no {name}")) }
    }

    fn read_only(&self) -> bool {
        false
    }
}
