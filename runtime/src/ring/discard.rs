//! Discards: how a device is told that a range of it is unused.
//!
//! | way | of | how |
//! | --- | --- | --- |
//! | hole | files; block devices that write zeroes by themselves | `FALLOC_FL_PUNCH_HOLE` on the ring, whose worker thread waits |
//! | trim | other block devices | `BLKDISCARD`, which the ring does not know: a thread of its own waits, and the ring for it |
//! | none | what can do neither | said once; the store asks no more |
//!
//! Each device begins with holes, and takes the next way when the kernel says that it cannot do one.

use super::device::DeviceFile;
use super::disks::{disk_error, is_transient};
use super::queue::Operation;
use crate::os;
use ashlar_core::io::DiskError;
use std::fs::File;
use std::io::{self, Write};

/// How a device is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Hole,
    Trim,
    None,
}

/// What a thread tells that did as it was asked; else it is the error's number, and this.
const DONE: u64 = 1;

/// What the ring is to do; none if the device cannot be told.
pub(super) fn begin(device: &DeviceFile, offset: u64, len: u64) -> Result<Operation, DiskError> {
    match device.discards {
        Way::Hole => Ok(Operation::Discard { offset, len }),
        Way::Trim => beside(device, offset, len).map_err(|error| {
            tracing::warn!("no thread for a discard on {}: {error}", device.path.display());
            DiskError::Io
        }),
        Way::None => Err(DiskError::Unsupported),
    }
}

/// Takes a request to a thread; the ring waits for what it tells.
fn beside(device: &DeviceFile, offset: u64, len: u64) -> io::Result<Operation> {
    let bell = File::from(os::event_counter()?);
    let (file, mut answer) = (device.file.try_clone()?, bell.try_clone()?);
    std::thread::Builder::new().name("discard".to_string()).spawn(move || {
        let number = match os::trim(&file, offset, len) {
            Ok(()) => DONE,
            Err(error) => DONE + u64::from(error.raw_os_error().unwrap_or(libc::EIO).unsigned_abs()),
        };
        // The device is locked as long as this is open; whoever gets the answer may close it.
        drop(file);
        // An empty counter takes a number.
        let _ = answer.write(&number.to_ne_bytes());
    })?;
    Ok(Operation::Trim { offset, len, bell, number: Box::new([0; 8]) })
}

/// Carries a discard out at once: of a file in memory, which need not be waited for.
pub(super) fn inline(device: &mut DeviceFile, offset: u64, len: u64) -> Result<(), DiskError> {
    if device.discards == Way::None {
        return Err(DiskError::Unsupported);
    }
    match os::punch_hole(&device.file, offset, len) {
        Err(error) if is_unsupported(&error) => refused::<()>(device, &Err(error)),
        result => result.map_err(|error| disk_error("discard", &error)),
    }
}

/// The result of a request: of a trim it is what the thread told, not that it told something.
pub(super) fn told(operation: &Operation, result: io::Result<u32>) -> io::Result<u32> {
    let (Operation::Trim { number, .. }, Ok(_)) = (operation, &result) else { return result };
    let told = match u64::from_ne_bytes(**number) - DONE {
        0 => return Ok(0),
        number => io::Error::from_raw_os_error(i32::try_from(number).unwrap_or(libc::EIO)),
    };
    // It is over; to wait for the thread again would be to wait for ever.
    if is_transient(&told) { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Err(told) }
}

/// The range of a discard that the kernel cannot do in this way, now or later.
pub(super) fn of_refused(operation: &Operation, result: &io::Result<u32>) -> Option<(u64, u64)> {
    let (Operation::Discard { offset, len } | Operation::Trim { offset, len, .. }) = operation else { return None };
    result.as_ref().is_err_and(is_unsupported).then_some((*offset, *len))
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL | libc::ENOTTY | libc::ENODEV))
}

/// The device is asked in the next way from now on; an error if there is none.
pub(super) fn refused<T>(device: &mut DeviceFile, refusal: &io::Result<T>) -> Result<(), DiskError> {
    if device.discards == Way::Hole && device.is_block_device() {
        device.discards = Way::Trim;
        return Ok(());
    }
    if let (Way::Hole | Way::Trim, Err(error)) = (device.discards, refusal) {
        let path = device.path.display();
        tracing::warn!("{path} cannot discard: {error}; what becomes free on it keeps its place below");
    }
    device.discards = Way::None;
    Err(DiskError::Unsupported)
}

#[cfg(test)]
mod tests {
    use super::super::disks::Disks;
    use super::super::queue::Queue;
    use super::*;
    use crate::counters::Counters;
    use ashlar_core::buf::BufPool;
    use ashlar_core::io::{Device, DiskDone, DiskOp, IoId};
    use ashlar_core::time::Duration;
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    fn discard(disks: &mut Disks, queue: &mut Queue, bufs: &mut BufPool) -> DiskDone {
        let op = DiskOp::Discard { device: Device::Data, offset: 8192, len: 4096 };
        let (mut counters, id) = (Counters::default(), IoId(1));
        if let Some(done) = disks.begin(queue, bufs, &mut counters, id, op) {
            return done;
        }
        loop {
            queue.enter(Some(Duration::millis(100))).unwrap();
            while let Some(completed) = queue.next() {
                if let Some(done) = disks.completed(queue, bufs, Device::Data, id, completed) {
                    assert_eq!(disks.in_flight(), 0);
                    return done;
                }
            }
        }
    }

    /// A file that is told as a block device is refused by the kernel, from another thread.
    #[test]
    fn a_device_that_cannot_discard_says_so_and_is_not_asked_again() {
        for folder in ["/var/tmp", "/dev/shm"] {
            let path = Path::new(folder).join(format!("ashlar-discard-{}", std::process::id()));
            DeviceFile::create(&path, 1 << 16).unwrap();
            let mut device = DeviceFile { discards: Way::Trim, ..DeviceFile::open(&path).unwrap() };
            device.access = super::super::Access::Ring;
            std::fs::remove_file(&path).unwrap();
            let (mut disks, mut queue, mut bufs) = (Disks::new(device, None), Queue::new().unwrap(), BufPool::new());
            let unsupported = DiskDone::Done(Err(DiskError::Unsupported));
            assert_eq!(discard(&mut disks, &mut queue, &mut bufs), unsupported);
            let op = DiskOp::Discard { device: Device::Data, offset: 8192, len: 4096 };
            let again = disks.begin(&mut queue, &mut bufs, &mut Counters::default(), IoId(2), op);
            assert_eq!(again, Some(unsupported), "at once");
        }
    }

    /// `ASHLAR_BLOCK_DEVICE` names one that takes trims, a loop device say; what is on it is lost.
    #[test]
    #[ignore = "needs a block device"]
    fn a_block_device_is_told_in_both_ways() {
        let path = std::env::var("ASHLAR_BLOCK_DEVICE").expect("names a block device that may be written");
        for way in [Way::Hole, Way::Trim] {
            let device = DeviceFile { discards: way, ..DeviceFile::open(Path::new(&path)).unwrap() };
            let file = device.file.try_clone().unwrap();
            let (mut disks, mut queue, mut bufs) = (Disks::new(device, None), Queue::new().unwrap(), BufPool::new());
            let full = bufs.copy_of(&[7; 16384]);
            file.write_all_at(full.bytes(), 0).unwrap();
            assert_eq!(discard(&mut disks, &mut queue, &mut bufs), DiskDone::Done(Ok(())), "{way:?}");
            let mut found = bufs.alloc(16384);
            file.read_exact_at(found.bytes_mut(), 0).unwrap();
            let zeroes = found.bytes().iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(at, _)| at);
            // Of this device: others may answer anything there.
            assert_eq!(zeroes.collect::<Vec<_>>(), (8192..12288).collect::<Vec<_>>(), "{way:?}");
        }
    }
}
