//! Small calls to the operating system that the standard library does not offer.
#![allow(unsafe_code)]

use ashlar_core::time::Time;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::time::Duration;

/// The clock of nodes: monotonic, and it goes on while the machine is suspended.
pub fn now() -> Time {
    let nanos = clock(libc::CLOCK_BOOTTIME).as_nanos();
    let now = Time(u64::try_from(nanos).expect("nanoseconds since boot fit for 584 years"));
    #[cfg(feature = "faults")]
    let now = crate::faults::shown(now);
    now
}

/// CPU time used by the calling thread.
pub fn thread_cpu() -> Duration {
    clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn clock(id: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result, for the duration of the call.
    let result = unsafe { libc::clock_gettime(id, &mut time) };
    assert!(result == 0, "clock {id} exists on every Linux since 2.6.39");
    let secs = u64::try_from(time.tv_sec).expect("these clocks start at 0");
    Duration::new(secs, u32::try_from(time.tv_nsec).expect("below 10^9"))
}

/// Random bits of the operating system: incarnations, session names, seeds.
pub fn random_u64() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// An event counter: a write makes its reader runnable. Never blocks the writer.
pub fn event_counter() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above just opened it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets other runnable threads run.
pub fn yield_now() {
    // SAFETY: no arguments.
    unsafe { libc::sched_yield() };
}

/// Locks a file for this process alone; false if another one holds the lock.
pub fn lock_exclusively(file: &File) -> io::Result<bool> {
    // SAFETY: the descriptor is open as long as `file` is borrowed.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::EWOULDBLOCK) => Ok(false),
        error => Err(error),
    }
}

/// Whether reads of the file can be asked not to block. Where they cannot (memory-backed file systems), io_uring hands
/// every request to a worker thread.
pub fn reads_without_blocking(file: &File) -> io::Result<bool> {
    let mut pages = [Page([0; 4096])];
    let vector = libc::iovec { iov_base: pages.as_mut_ptr().cast(), iov_len: size_of_val(&pages) };
    // SAFETY: the vector names `pages`, which lives until after the call.
    let count = unsafe { libc::preadv2(file.as_raw_fd(), &vector, 1, 0, libc::RWF_NOWAIT) };
    if count >= 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
        error if error.raw_os_error() == Some(libc::EAGAIN) => Ok(true),
        error => Err(error),
    }
}

/// Whether a file is on a file system that lives in memory, so that nothing of it survives a power loss.
pub fn is_in_memory(file: &File) -> io::Result<bool> {
    /// As `f_type` has it.
    const RAMFS_MAGIC: u32 = 0x8584_58f6;
    const TMPFS_MAGIC: u32 = 0x0102_1994;
    let mut about = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: `about` is a valid place for the result, for the duration of the call.
    if unsafe { libc::fstatfs(file.as_raw_fd(), about.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeroes are a value of it, and the call above has filled it in.
    let kind = unsafe { about.assume_init() }.f_type;
    // Its type differs among platforms; its lower half is the magic number on all of them.
    let magic = kind.to_le_bytes().first_chunk().map_or(0, |low| u32::from_le_bytes(*low));
    Ok(magic == RAMFS_MAGIC || magic == TMPFS_MAGIC)
}

/// Aligned as O_DIRECT wants it.
#[repr(C, align(4096))]
struct Page([u8; 4096]);

/// Bytes of a device's logical block; `None` for a regular file.
pub fn logical_block_bytes(file: &File) -> io::Result<Option<u32>> {
    if !file.metadata()?.file_type().is_block_device() {
        return Ok(None);
    }
    let mut bytes: libc::c_int = 0;
    // SAFETY: this request writes one int, to a valid place.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::BLKSSZGET, &mut bytes) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Some(u32::try_from(bytes).map_err(io::Error::other)?))
}

/// Tells the file system (or the device) that a range is not needed: it reads as zeroes, or as anything.
pub fn punch_hole(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    fallocate(file, mode, offset, len)
}

/// Tells a block device that a range is not needed. This thread waits until it is done.
pub fn trim(file: &File, offset: u64, len: u64) -> io::Result<()> {
    /// `_IO(0x12, 119)` of linux/fs.h.
    const BLKDISCARD: libc::Ioctl = 0x1277;
    let range = [offset, len];
    // SAFETY: this request reads two u64 from a valid place; the descriptor is open as long as `file` is borrowed.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), BLKDISCARD, range.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives a range of a file its space now, so that it cannot run out later.
pub fn reserve(file: &File, offset: u64, len: u64) -> io::Result<()> {
    fallocate(file, 0, offset, len)
}

fn fallocate(file: &File, mode: libc::c_int, offset: u64, len: u64) -> io::Result<()> {
    let (offset, len) =
        (i64::try_from(offset).map_err(io::Error::other)?, i64::try_from(len).map_err(io::Error::other)?);
    // SAFETY: no pointers are passed; the descriptor is open as long as `file` is borrowed.
    let result = unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The directory in which the kernel describes a block device.
pub fn sys_directory(file: &File) -> io::Result<std::path::PathBuf> {
    let device = file.metadata()?.rdev();
    Ok(format!("/sys/dev/block/{}:{}", libc::major(device), libc::minor(device)).into())
}

/// CPU time used by all threads of the process.
pub fn process_cpu() -> Duration {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_go_on() {
        let (before, cpu_before) = (now(), thread_cpu());
        while thread_cpu() == cpu_before {}
        assert!(now() > before);
    }

    #[test]
    fn random_numbers_differ() {
        assert_ne!(random_u64().unwrap(), random_u64().unwrap());
    }
}
