//! Opening of the files and block devices that a store lives on.

use super::discard;
use crate::os;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Largest logical block that stores can do with.
const BLOCK_MAX_BYTES: u32 = 4096;
/// How long a device may be in use at first: the rest of a process that was killed is gone sooner, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(8);
/// How often it is tried meanwhile.
const POLL: Duration = Duration::from_millis(20);

/// How requests reach a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Through the ring.
    Ring,
    /// By calls of this thread: the file is in memory, and the ring would hand each request to a worker thread, which
    /// costs thirty times as much.
    Inline,
}

/// What survives a power loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// What completed: the device has no volatile cache, or protects it; or nothing ever does (memory).
    Completed,
    /// What completed before a flush.
    Flushed,
}

/// An open device. It stays locked for this process until dropped.
#[derive(Debug)]
pub struct DeviceFile {
    /// The file.
    pub file: File,
    /// Where it is.
    pub path: PathBuf,
    /// Its bytes, whole logical blocks.
    pub size_bytes: u64,
    /// Bytes of a logical block.
    pub block_bytes: u32,
    /// How to read and write it.
    pub access: Access,
    /// What the kernel says of its cache.
    pub durability: Durability,
    /// Bytes that the kernel says it writes wholly or not at all, through a power loss, on a multiple of their number:
    /// a power of two; 0 if it says nothing.
    pub atomic_bytes: u32,
    /// Whether the kernel is asked to do writes that can be atomic so: until it refuses.
    pub(super) asks_atomic: bool,
    /// How it is told of what is unused.
    pub(super) discards: discard::Way,
}

/// Why a device cannot be used. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It does not exist.
    #[error("{0} does not exist; give its size to create a file of that size")]
    Missing(PathBuf),
    /// The file system or device refused.
    #[error("cannot open {0}: {1}")]
    Io(PathBuf, io::Error),
    /// Another process has it.
    #[error("{0} is in use by another process; stop that one first")]
    InUse(PathBuf),
    /// Neither a file nor a block device.
    #[error("{0} is neither a regular file nor a block device")]
    Kind(PathBuf),
    /// Blocks that are too large.
    #[error("{0} has logical blocks of {1} bytes; only up to {BLOCK_MAX_BYTES} are possible")]
    Blocks(PathBuf, u32),
    /// The file cannot get the size that was asked for.
    #[error("{path} cannot get {size_bytes} bytes: {error}")]
    Space {
        /// The file.
        path: PathBuf,
        /// The size.
        size_bytes: u64,
        /// Why.
        error: io::Error,
    },
}

impl DeviceFile {
    /// Opens and locks an existing file or block device.
    pub fn open(path: &Path) -> Result<DeviceFile, OpenError> {
        let wrap = |error| OpenError::Io(path.to_owned(), error);
        let kind = std::fs::metadata(path).map_err(|error| missing(path, error))?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(OpenError::Kind(path.to_owned()));
        }
        let mut file = open_alone(path, kind.is_block_device())?;
        let block_bytes = os::logical_block_bytes(&file).map_err(wrap)?.unwrap_or(BLOCK_MAX_BYTES);
        if block_bytes > BLOCK_MAX_BYTES {
            return Err(OpenError::Blocks(path.to_owned(), block_bytes));
        }
        let end = file.seek(SeekFrom::End(0)).map_err(wrap)?;
        // Asked for by itself: file systems that are on disks or on other machines may not read without blocking either.
        let in_memory = kind.is_file() && os::is_in_memory(&file).map_err(wrap)?;
        let inline = in_memory && !os::reads_without_blocking(&file).map_err(wrap)?;
        let access = if inline { Access::Inline } else { Access::Ring };
        let durability = if in_memory || write_through(&file) { Durability::Completed } else { Durability::Flushed };
        let size_bytes = end - end % u64::from(BLOCK_MAX_BYTES);
        let atomic_bytes = atomic_bytes(&file);
        let path = path.to_owned();
        let (asks_atomic, discards) = (true, discard::Way::Hole);
        Ok(DeviceFile { file, path, size_bytes, block_bytes, access, durability, atomic_bytes, asks_atomic, discards })
    }

    /// Whether it is a block device, not a file.
    pub fn is_block_device(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device())
    }

    /// Whether the kernel can be asked to do this write wholly or not at all.
    pub(super) fn writes_atomically(&self, offset: u64, len: u32) -> bool {
        self.asks_atomic && len.is_power_of_two() && len <= self.atomic_bytes && offset.is_multiple_of(u64::from(len))
    }

    /// Creates a file of a size, if there is none yet; says whether it did. Its space is not reserved: a file of the
    /// size of the disk it lies on is a usual thing to try.
    pub fn create(path: &Path, size_bytes: u64) -> Result<bool, OpenError> {
        let file = match OpenOptions::new().write(true).create_new(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(error) => return Err(OpenError::Io(path.to_owned(), error)),
        };
        file.set_len(size_bytes).map_err(|error| {
            // Best effort: what could not be made must not look as if it had been.
            let _ = std::fs::remove_file(path);
            OpenError::Space { path: path.to_owned(), size_bytes, error }
        })?;
        Ok(true)
    }
}

/// Opens and locks. The kernel ends the requests of a process that was killed before it lets go of its files, which takes
/// a moment after the process is gone; until then nobody else may write there.
fn open_alone(path: &Path, is_device: bool) -> Result<File, OpenError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let refusal = match open_direct(path, is_device) {
            Ok(file) if os::lock_exclusively(&file).map_err(|error| OpenError::Io(path.to_owned(), error))? => {
                return Ok(file);
            }
            Ok(_) => OpenError::InUse(path.to_owned()),
            Err(error) => in_use(path, error),
        };
        if !matches!(refusal, OpenError::InUse(_)) || Instant::now() > deadline {
            return Err(refusal);
        }
        std::thread::sleep(POLL);
    }
}

impl fmt::Display for DeviceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = match self.access {
            Access::Ring => "io_uring",
            Access::Inline => "in memory, by plain calls",
        };
        let durability = match self.durability {
            Durability::Completed => "durable when completed",
            Durability::Flushed => "volatile cache, flushed",
        };
        let (path, size, block, atomic) = (self.path.display(), self.size_bytes, self.block_bytes, self.atomic_bytes);
        write!(f, "{path}: {size} bytes, blocks of {block}, {access}, {durability}, atomic unit {atomic}")
    }
}

fn missing(path: &Path, error: io::Error) -> OpenError {
    match error.kind() {
        io::ErrorKind::NotFound => OpenError::Missing(path.to_owned()),
        _ => OpenError::Io(path.to_owned(), error),
    }
}

/// A mounted or otherwise claimed block device says so.
fn in_use(path: &Path, error: io::Error) -> OpenError {
    match error.raw_os_error() {
        Some(libc::EBUSY) => OpenError::InUse(path.to_owned()),
        _ => OpenError::Io(path.to_owned(), error),
    }
}

/// Without the page cache, where the file system can do that.
fn open_direct(path: &Path, is_block_device: bool) -> io::Result<File> {
    let claim = if is_block_device { libc::O_EXCL } else { 0 };
    let open = |flags| OpenOptions::new().read(true).write(true).custom_flags(flags | claim).open(path);
    match open(libc::O_DIRECT) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => open(0),
        result => result,
    }
}

/// Whether the kernel says that a block device has no volatile cache. A file's is not known.
fn write_through(file: &File) -> bool {
    queue_says(file, "write_cache").is_some_and(|text| text == "write through")
}

/// What the kernel says of the queue of a block device; nothing of a file.
fn queue_says(file: &File, what: &str) -> Option<String> {
    let is_device = file.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device());
    let directory = os::sys_directory(file).ok().filter(|_| is_device)?;
    let says = |directory: &Path| std::fs::read_to_string(directory.join("queue").join(what));
    // A partition has no queue of its own; its parent directory is the disk.
    let answer = says(&directory).or_else(|_| says(&directory.join(".."))).ok()?;
    Some(answer.trim().to_owned())
}

/// What a block device writes atomically. A partition may begin where the disk's atomic units do not.
fn atomic_bytes(file: &File) -> u32 {
    let stated = queue_says(file, "atomic_write_unit_max_bytes").and_then(|text| text.parse::<u32>().ok());
    let start =
        os::sys_directory(file).ok().and_then(|directory| std::fs::read_to_string(directory.join("start")).ok());
    let start_sectors = start.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
    atomic_unit(stated.unwrap_or(0), start_sectors * 512)
}

/// The largest power of two up to `stated` that divides where the partition begins, if it is a page or more.
pub fn atomic_unit(stated: u32, start_bytes: u64) -> u32 {
    let unit = stated.checked_ilog2().map_or(0, |log| 1 << log);
    let alignment = if start_bytes == 0 { 31 } else { start_bytes.trailing_zeros().min(31) };
    let unit = unit.min(1u32 << alignment);
    if unit < 4096 { 0 } else { unit }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temporary(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("ashlar-device-{}-{name}", std::process::id()))
    }

    #[test]
    fn creates_once_and_locks() {
        let path = temporary("lock");
        assert!(DeviceFile::create(&path, 1 << 20).unwrap());
        assert!(!DeviceFile::create(&path, 2 << 20).unwrap());
        let first = DeviceFile::open(&path).unwrap();
        assert_eq!(first.size_bytes, 1 << 20);
        assert!(matches!(DeviceFile::open(&path), Err(OpenError::InUse(_))));
        drop(first);
        assert!(DeviceFile::open(&path).is_ok());
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn the_atomic_unit_is_whole_pages_on_their_multiple() {
        let cases = [(0, 0, 0), (512, 0, 0), (4096, 0, 4096), (65_536, 1 << 20, 65_536), (6000, 0, 4096)];
        let shifted = [(65_536, 16_384, 16_384), (16_384, 63 * 512, 0)];
        for (stated, start, unit) in cases.into_iter().chain(shifted) {
            assert_eq!(atomic_unit(stated, start), unit, "{stated} from {start}");
        }
    }

    #[test]
    fn refuses_what_is_no_device() {
        assert!(matches!(DeviceFile::open(Path::new("/nonexistent/file")), Err(OpenError::Missing(_))));
        assert!(matches!(DeviceFile::open(&std::env::temp_dir()), Err(OpenError::Kind(_))));
        assert!(matches!(DeviceFile::create(Path::new("/nonexistent/file"), 1), Err(OpenError::Io(..))));
    }

    #[test]
    fn a_file_that_cannot_get_its_size_is_not_left_behind() {
        let path = temporary("size");
        assert!(matches!(DeviceFile::create(&path, 1 << 62), Err(OpenError::Space { .. })));
        assert!(!path.exists());
    }

    #[test]
    fn access_and_durability_follow_from_what_the_file_system_can_do() {
        for folder in [Path::new("/dev/shm"), Path::new("/var/tmp")] {
            let path = folder.join(format!("ashlar-device-{}", std::process::id()));
            DeviceFile::create(&path, 1 << 20).unwrap();
            let device = DeviceFile::open(&path).unwrap();
            let in_memory = os::is_in_memory(&device.file).unwrap();
            // Whether the kernel can read a file in memory without blocking differs.
            let inline = in_memory && !os::reads_without_blocking(&device.file).unwrap();
            assert_eq!(device.access == Access::Inline, inline);
            assert_eq!(device.durability == Durability::Completed, in_memory);
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn only_what_is_in_memory_is_taken_for_it() {
        let shared = File::open("/dev/shm").unwrap();
        let kernel = File::open("/proc/self/status").unwrap();
        assert!(os::is_in_memory(&shared).unwrap());
        assert!(!os::is_in_memory(&kernel).unwrap());
    }
}
