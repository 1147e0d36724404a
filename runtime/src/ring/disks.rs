//! Disk requests of the node: through the ring, or inline for files in memory.

use super::device::{Access, DeviceFile};
use super::queue::{Completed, Operation, Queue};
use super::{Token, discard, raw};
use crate::counters::Counters;
use ashlar_core::buf::{Buf, BufPool};
use ashlar_core::io::{Device, DiskDone, DiskError, DiskOp, IoId};
use std::io;
use std::os::unix::fs::FileExt;

/// The devices of one store.
pub struct Disks {
    data: DeviceFile,
    log: Option<DeviceFile>,
    in_flight: usize,
}

impl Disks {
    /// The data device, and the log's own if it has one.
    pub fn new(data: DeviceFile, log: Option<DeviceFile>) -> Self {
        Disks { data, log, in_flight: 0 }
    }

    /// Requests that have not completed.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Has the kernel remember the files, and the memory of requests, if it is to carry any out.
    pub fn register(&self, queue: &mut Queue) {
        let devices = [Some(&self.data), self.log.as_ref()];
        let on_ring = devices.into_iter().flatten().filter(|device| device.access == Access::Ring);
        let files: Vec<_> = on_ring.map(|device| raw(&device.file)).collect();
        if !files.is_empty() {
            queue.register(&files);
        }
    }

    fn device(&self, device: Device) -> &DeviceFile {
        match device {
            Device::Data => &self.data,
            Device::Log => self.log.as_ref().expect("a store without a log device does not use one"),
        }
    }

    fn device_mut(&mut self, device: Device) -> &mut DeviceFile {
        match device {
            Device::Data => &mut self.data,
            Device::Log => self.log.as_mut().expect("a store without a log device does not use one"),
        }
    }

    /// Begins a request. Its result, if it is there at once.
    pub fn begin(
        &mut self,
        queue: &mut Queue,
        bufs: &mut BufPool,
        counters: &mut Counters,
        id: IoId,
        op: DiskOp,
    ) -> Option<DiskDone> {
        count(counters, &op);
        let which = op.device();
        let device = self.device(which);
        if let Some(misfit) = op.misfit(device.size_bytes, device.block_bytes) {
            panic!("{id:?} does not fit on {device}: {misfit:?}: {op:?}");
        }
        if device.access == Access::Inline {
            return Some(inline(self.device_mut(which), bufs, op));
        }
        let operation = match op {
            DiskOp::Read { offset, len, .. } => Operation::Read { offset, buf: bufs.alloc(len), done: 0 },
            DiskOp::Write { offset, data, .. } => {
                let atomic = device.writes_atomically(offset, data.len());
                Operation::Write { offset, buf: aligned(bufs, data, device.block_bytes), done: 0, atomic }
            }
            DiskOp::Flush { .. } => Operation::Flush,
            DiskOp::Discard { offset, len, .. } => match discard::begin(device, offset, len) {
                Ok(operation) => operation,
                Err(error) => return Some(DiskDone::Done(Err(error))),
            },
        };
        self.in_flight += 1;
        self.push(queue, which, id, operation);
        None
    }

    /// The kernel does not discard a range in this way.
    fn discard_otherwise(
        &mut self,
        queue: &mut Queue,
        which: Device,
        id: IoId,
        (offset, len): (u64, u64),
        refusal: io::Result<u32>,
    ) -> Option<DiskDone> {
        let device = self.device_mut(which);
        match discard::refused(device, &refusal).and_then(|()| discard::begin(device, offset, len)) {
            Ok(operation) => {
                self.push(queue, which, id, operation);
                None
            }
            Err(error) => {
                self.in_flight -= 1;
                Some(DiskDone::Done(Err(error)))
            }
        }
    }

    fn push(&self, queue: &mut Queue, which: Device, id: IoId, operation: Operation) {
        let file = match &operation {
            Operation::Trim { bell, .. } => raw(bell),
            _ => raw(&self.device(which).file),
        };
        queue.push(file, Token::Disk(which, id), operation);
    }

    /// Takes a completion. The request's result, unless the kernel did a part only and must be asked again.
    pub fn completed(
        &mut self,
        queue: &mut Queue,
        bufs: &mut BufPool,
        device: Device,
        id: IoId,
        completed: Completed,
    ) -> Option<DiskDone> {
        let result = completed.result.map_err(io::Error::from_raw_os_error);
        let result = discard::told(&completed.operation, result);
        if let Some(range) = discard::of_refused(&completed.operation, &result) {
            return self.discard_otherwise(queue, device, id, range, result);
        }
        let was_atomic = matches!(completed.operation, Operation::Write { atomic: true, .. });
        let refused = was_atomic && result.as_ref().is_err_and(is_unsupported);
        match advance(completed.operation, result) {
            Next::Again(operation) => {
                // Asked once: every further write would be refused first as well.
                self.device_mut(device).asks_atomic &= !refused;
                self.push(queue, device, id, operation);
                None
            }
            Next::Read(result) => {
                self.in_flight -= 1;
                Some(DiskDone::Read(result.map(|buf| bufs.freeze(buf))))
            }
            Next::Done(result) => {
                self.in_flight -= 1;
                Some(DiskDone::Done(result))
            }
        }
    }
}

/// What follows from a completion.
enum Next {
    Again(Operation),
    Read(Result<ashlar_core::buf::BufMut, DiskError>),
    Done(Result<(), DiskError>),
}

fn advance(operation: Operation, result: io::Result<u32>) -> Next {
    let count = match result {
        Err(error) if is_transient(&error) => return Next::Again(operation),
        other => other,
    };
    match (operation, count) {
        (Operation::Read { buf, .. }, Err(error)) => {
            drop(buf);
            Next::Read(Err(disk_error("read", &error)))
        }
        (Operation::Read { offset, buf, done }, Ok(count)) => match done + count {
            all if all == buf.len() => Next::Read(Ok(buf)),
            // Behind the end of the device.
            _ if count == 0 => Next::Read(Err(DiskError::Io)),
            done => Next::Again(Operation::Read { offset, buf, done }),
        },
        // What the device states holds without the flag, too, as long as nobody between splits the write.
        (Operation::Write { offset, buf, done, atomic: true }, Err(error)) if is_unsupported(&error) => {
            Next::Again(Operation::Write { offset, buf, done, atomic: false })
        }
        (Operation::Write { offset, buf, done, atomic }, Ok(count)) => match done + count {
            all if all == buf.len() => Next::Done(Ok(())),
            _ if count == 0 => Next::Done(Err(DiskError::Io)),
            done => Next::Again(Operation::Write { offset, buf, done, atomic: atomic && count == 0 }),
        },
        (_, Ok(_)) => Next::Done(Ok(())),
        (_, Err(error)) => Next::Done(Err(disk_error("write or flush", &error))),
    }
}

fn count(counters: &mut Counters, op: &DiskOp) {
    match op {
        DiskOp::Read { len, .. } => {
            counters.disk_reads += 1;
            counters.disk_read_bytes += u64::from(*len);
        }
        DiskOp::Write { data, .. } => {
            counters.disk_writes += 1;
            counters.disk_written_bytes += u64::from(data.len());
        }
        DiskOp::Flush { .. } => counters.disk_flushes += 1,
        DiskOp::Discard { .. } => {}
    }
}

/// O_DIRECT wants memory aligned to the device's blocks; nearly every buffer is.
fn aligned(bufs: &mut BufPool, data: Buf, block_bytes: u32) -> Buf {
    if data.bytes().as_ptr().align_offset(block_bytes as usize) == 0 { data } else { bufs.copy_of(data.bytes()) }
}

fn inline(device: &mut DeviceFile, bufs: &mut BufPool, op: DiskOp) -> DiskDone {
    let done = |what, result: io::Result<()>| DiskDone::Done(result.map_err(|error| disk_error(what, &error)));
    match op {
        DiskOp::Read { offset, len, .. } => {
            let mut buf = bufs.alloc(len);
            let result = device.file.read_exact_at(buf.bytes_mut(), offset);
            DiskDone::Read(result.map(|()| bufs.freeze(buf)).map_err(|error| disk_error("read", &error)))
        }
        DiskOp::Write { offset, data, .. } => {
            let data = aligned(bufs, data, device.block_bytes);
            done("write", device.file.write_all_at(data.bytes(), offset))
        }
        DiskOp::Flush { .. } => done("flush", device.file.sync_data()),
        DiskOp::Discard { offset, len, .. } => DiskDone::Done(discard::inline(device, offset, len)),
    }
}

pub(super) fn is_transient(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN))
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL))
}

pub(super) fn disk_error(what: &str, error: &io::Error) -> DiskError {
    tracing::error!("disk {what} failed: {error}");
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => DiskError::NoSpace,
        _ => DiskError::Io,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_core::time::Duration;

    fn write(disks: &mut Disks, queue: &mut Queue, bufs: &mut BufPool, byte: u8) -> (DiskDone, u32) {
        let data = bufs.copy_of(&[byte; 4096]);
        let op = DiskOp::Write { device: Device::Data, offset: 4096, data };
        let (mut counters, id) = (Counters::default(), IoId(1));
        assert!(disks.begin(queue, bufs, &mut counters, id, op).is_none(), "goes through the ring");
        let mut tries = 0;
        loop {
            queue.enter(Some(Duration::millis(100))).unwrap();
            while let Some(completed) = queue.next() {
                tries += 1;
                if let Some(done) = disks.completed(queue, bufs, Device::Data, id, completed) {
                    return (done, tries);
                }
            }
        }
    }

    /// Whether the kernel does atomic writes of a file differs; a refusal costs one more request, once.
    #[test]
    fn an_atomic_write_that_is_refused_is_done_without_and_not_asked_for_again() {
        let path = std::path::Path::new("/var/tmp").join(format!("ashlar-atomic-{}", std::process::id()));
        DeviceFile::create(&path, 1 << 16).unwrap();
        let device = DeviceFile { atomic_bytes: 4096, ..DeviceFile::open(&path).unwrap() };
        let (in_memory, file) = (device.access == Access::Inline, device.file.try_clone().unwrap());
        std::fs::remove_file(&path).unwrap();
        if in_memory {
            return;
        }
        let (mut disks, mut queue, mut bufs) = (Disks::new(device, None), Queue::new().unwrap(), BufPool::new());
        let (first, tries) = write(&mut disks, &mut queue, &mut bufs, 7);
        assert_eq!((first, disks.data.asks_atomic), (DiskDone::Done(Ok(())), tries == 1));
        let (second, tries) = write(&mut disks, &mut queue, &mut bufs, 8);
        assert_eq!((second, tries), (DiskDone::Done(Ok(())), 1));
        let mut page = bufs.alloc(4096);
        file.read_exact_at(page.bytes_mut(), 4096).unwrap();
        assert_eq!(page.bytes(), [8; 4096]);
    }
}
