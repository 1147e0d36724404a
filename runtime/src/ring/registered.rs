//! What the kernel was told of once, so that it need not look it up again with each request: files, and memory of buffers.
//!
//! Owns which place of the kernel's tables holds what. Memory is told of when a request first uses it, and stays known: pools
//! use theirs again and again. Where the kernel refuses (too old, or the limit of locked memory, `ulimit -l`), requests go on
//! as they would without.
//!
//! Invariant: a place of the table of memory is used only for a buffer of the very run that was registered there, which
//! lives as long as a request does; memory that was freed and came back as another run has another [`Mark`].
#![allow(unsafe_code)]

use ashlar_core::buf::Mark;
use io_uring::IoUring;
use std::io;
use std::os::fd::RawFd;

/// Places for runs of memory. A busy store uses some hundreds again and again.
const PLACES: u32 = 4096;
/// Bytes of memory that are registered at most: it is locked, nothing else can have it.
const BYTES_MOST: usize = 64 << 20;
/// Requests with memory that is not known and finds no place, of which one looks for a place that became free.
const SWEEP: u32 = 64;

struct Place {
    mark: Mark,
    bytes: usize,
}

/// What one ring's kernel side knows.
#[derive(Default)]
pub struct Registered {
    files: Vec<RawFd>,
    places: Vec<Place>,
    bytes: usize,
    /// Whether more memory is registered.
    open: bool,
    missed: u32,
    /// Where it looks next for a place that became free.
    cursor: usize,
}

impl Registered {
    /// Tells the kernel of files, which must stay open, and that memory will follow.
    pub fn new(ring: &IoUring, files: &[RawFd]) -> Registered {
        let files = note("files", ring.submitter().register_files(files)).map_or(Vec::new(), |()| files.to_vec());
        let open = note("memory", ring.submitter().register_buffers_sparse(PLACES)).is_some();
        Registered { files, open, ..Registered::default() }
    }

    /// Tells it to forget everything. Requests that it has taken end as they began; none may wait to be taken.
    pub fn end(&mut self, ring: &IoUring) {
        // Errors would mean that there is nothing to forget.
        let _ = ring.submitter().unregister_files();
        let _ = ring.submitter().unregister_buffers();
        *self = Registered::default();
    }

    /// The number of a file that it knows.
    pub fn file(&self, fd: RawFd) -> Option<i32> {
        self.files.iter().position(|known| *known == fd).and_then(|place| i32::try_from(place).ok())
    }

    /// The place of a run of memory, which is told of if it is not known.
    pub fn memory(&mut self, ring: &IoUring, (bytes, mark): (&[u8], &Mark)) -> Option<u16> {
        let at = (mark.number() as usize).wrapping_sub(1);
        if self.places.get(at).is_some_and(|place| place.mark.is_of(mark)) {
            return u16::try_from(at).ok();
        }
        let at = self.find_place(bytes.len())?;
        let iovec = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let offset = u32::try_from(at).expect("below PLACES");
        // SAFETY: the kernel keeps the pages of this memory from being used for anything else until the place gets other
        // memory or the ring ends; it touches them only for requests that name the place, and those hold the run.
        let result = unsafe { ring.submitter().register_buffers_update(offset, &[iovec], None) };
        self.open = note("more memory", result).is_some();
        if !self.open {
            return None;
        }
        mark.set(offset + 1);
        let place = Place { mark: mark.clone(), bytes: bytes.len() };
        self.bytes += bytes.len();
        if at == self.places.len() {
            self.places.push(place);
        } else {
            let before = std::mem::replace(&mut self.places[at], place);
            self.bytes -= before.bytes;
        }
        u16::try_from(at).ok()
    }

    /// A place for so many bytes: a new one, or that of memory that was given back.
    fn find_place(&mut self, bytes: usize) -> Option<usize> {
        if !self.open {
            return None;
        }
        if self.places.len() < PLACES as usize && self.bytes + bytes <= BYTES_MOST {
            return Some(self.places.len());
        }
        self.missed += 1;
        if !self.missed.is_multiple_of(SWEEP) || self.places.is_empty() {
            return None;
        }
        self.cursor = (self.cursor + 1) % self.places.len();
        let place = &self.places[self.cursor];
        (place.mark.is_left() && self.bytes - place.bytes + bytes <= BYTES_MOST).then_some(self.cursor)
    }
}

/// A refusal is told, and no more than that.
fn note<T>(what: &str, result: io::Result<T>) -> Option<T> {
    result.map_err(|error| tracing::info!("the kernel does not register {what}: {error}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_core::buf::BufPool;

    #[test]
    fn memory_keeps_its_place_and_other_memory_never_gets_it() {
        let ring = IoUring::new(8).unwrap();
        let mut registered = Registered::new(&ring, &[]);
        let mut pool = BufPool::new();
        let (first, second) = (pool.copy_of(&[1; 5000]), pool.copy_of(&[2; 4096]));
        let Some(place) = registered.memory(&ring, first.memory()) else { return };
        assert_eq!(registered.memory(&ring, first.slice(4096, 100).memory()), Some(place), "part of it");
        let other = registered.memory(&ring, second.memory());
        assert!(other.is_none() || other != Some(place));
        // As if it had been registered on another ring.
        let stranger = pool.copy_of(&[3; 4096]);
        stranger.memory().1.set(u32::from(place) + 1);
        assert_ne!(registered.memory(&ring, stranger.memory()), Some(place));
    }

    /// A table that is taken, and a file that is none, stand for whatever it may refuse.
    #[test]
    fn what_the_kernel_refuses_is_done_without() {
        let ring = IoUring::new(8).unwrap();
        let first = Registered::new(&ring, &[0]);
        let mut second = Registered::new(&ring, &[0]);
        assert!(!second.open && second.file(0).is_none(), "the ring has its tables already");
        let buf = BufPool::new().copy_of(&[1; 4096]);
        assert_eq!(second.memory(&ring, buf.memory()), None);
        let mut third = first;
        third.end(&ring);
        let mut third = Registered::new(&ring, &[RawFd::MAX]);
        assert_eq!(third.file(RawFd::MAX), None, "no such file");
        assert!(!third.open || third.memory(&ring, buf.memory()).is_some(), "memory is another matter");
    }

    #[test]
    fn what_was_given_back_makes_room_and_what_is_in_use_does_not() {
        let ring = IoUring::new(8).unwrap();
        let mut registered = Registered::new(&ring, &[]);
        let mut pool = BufPool::new();
        let held: Vec<_> = (0..4).map(|_| pool.copy_of(&[1; 4096])).collect();
        if held.iter().any(|buf| registered.memory(&ring, buf.memory()).is_none()) {
            return;
        }
        registered.bytes = BYTES_MOST;
        let late = pool.copy_of(&[2; 4096]);
        let mut tries = || (0..8 * SWEEP).find_map(|_| registered.memory(&ring, late.memory()));
        assert_eq!(tries(), None, "all is in use");
        drop((held, pool));
        assert!(tries().is_some());
    }
}
