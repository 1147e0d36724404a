//! Payload buffers: pooled, reference-counted, 4 KiB-aligned, immutable once shared.
//!
//! A [`Buf`] is 16 bytes: a counted pointer to a page run, an offset and a length. The run that goes to the O_DIRECT
//! write goes to the replicas' sockets too. The [`BufPool`] hands out runs that nobody shares any more, so steady state
//! allocates nothing.
//!
//! Core never looks into payload bytes except through the methods here ([`Buf::crc`], [`BufMut::copy_from`], ...), so
//! that a simulation may one day carry tags in place of bytes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Size of a checksum unit, of a log page and of the alignment of every buffer, in bytes.
pub const UNIT: u32 = 4096;
/// [`UNIT`] for indexing.
pub const UNIT_USIZE: usize = 4096;
/// Largest buffer: the largest object (1 MiB) with room for a unit before and after. Larger requests are split.
pub const BUF_MAX_BYTES: u32 = 2 << 20;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C, align(4096))]
struct Page([u8; UNIT_USIZE]);

struct Run {
    pages: Box<[Page]>,
    mark: Mark,
}

impl Run {
    fn new(pages: Box<[Page]>) -> Arc<Run> {
        Arc::new(Run { pages, mark: Mark::default() })
    }

    fn bytes(&self) -> &[u8] {
        self.pages.as_bytes()
    }
}

/// What a driver of devices remembers of a run of memory. It lives as long as somebody holds a clone, and is never that of
/// another run meanwhile: who holds one knows whether it is still the same memory.
#[derive(Clone, Default)]
pub struct Mark(Arc<AtomicU32>);

impl Mark {
    /// The number that was set last; at first 0.
    pub fn number(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets the number.
    pub fn set(&self, number: u32) {
        self.0.store(number, Ordering::Relaxed);
    }

    /// Whether it is of the same run.
    pub fn is_of(&self, other: &Mark) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether nobody else holds it: the memory was given back.
    pub fn is_left(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

/// A shared, immutable range of bytes. Cloning costs one counter.
#[derive(Clone)]
pub struct Buf {
    run: Arc<Run>,
    offset: u32,
    len: u32,
}

impl Buf {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.run.bytes()[self.offset as usize..(self.offset + self.len) as usize]
    }

    /// Length in bytes.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory that it keeps: those of the buffer that it is a part of.
    pub fn kept(&self) -> usize {
        self.run.bytes().len()
    }

    /// The whole run of memory that it is a part of, and its mark.
    pub fn memory(&self) -> (&[u8], &Mark) {
        (self.run.bytes(), &self.run.mark)
    }

    /// Part of this buffer; shares its memory. Panics if the range lies outside.
    pub fn slice(&self, offset: u32, len: u32) -> Buf {
        assert!(u64::from(offset) + u64::from(len) <= u64::from(self.len), "slice {offset}+{len} of {}", self.len);
        Buf { run: Arc::clone(&self.run), offset: self.offset + offset, len }
    }

    /// CRC-32 (IEEE) of all bytes.
    pub fn crc(&self) -> u32 {
        crc32fast::hash(self.bytes())
    }
}

impl PartialEq for Buf {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}
impl Eq for Buf {}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} bytes)", self.len)
    }
}

/// A buffer with one owner that is still being filled. Fresh ones may hold old bytes: fill or zero them.
pub struct BufMut {
    run: Arc<Run>,
    len: u32,
}

/// A clone is a copy of the bytes: it has an owner of its own.
impl Clone for BufMut {
    fn clone(&self) -> Self {
        BufMut { run: Run::new(self.run.pages.clone()), len: self.len }
    }
}

impl BufMut {
    /// The bytes, to be read.
    pub fn bytes(&self) -> &[u8] {
        &self.run.bytes()[..self.len as usize]
    }

    /// The whole run of memory that it is a part of, and its mark.
    pub fn memory(&self) -> (&[u8], &Mark) {
        (self.run.bytes(), &self.run.mark)
    }

    /// The bytes, to be filled. The start is 4 KiB-aligned.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let run = Arc::get_mut(&mut self.run).expect("a BufMut is never shared");
        &mut run.pages.as_mut_bytes()[..self.len as usize]
    }

    /// Length in bytes.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies `source` to `offset`. Panics if it does not fit.
    pub fn copy_from(&mut self, offset: u32, source: &Buf) {
        self.bytes_mut()[offset as usize..(offset + source.len()) as usize].copy_from_slice(source.bytes());
    }

    /// Sets a range to zero.
    pub fn zero(&mut self, offset: u32, len: u32) {
        self.bytes_mut()[offset as usize..(offset + len) as usize].fill(0);
    }

    /// Shortens the buffer. Panics if `len` is longer than it.
    pub fn truncate(&mut self, len: u32) {
        assert!(len <= self.len);
        self.len = len;
    }

    /// Ends the filling; from now on the buffer may be shared and is immutable.
    pub fn freeze(self) -> Buf {
        Buf { run: self.run, offset: 0, len: self.len }
    }
}

/// A clone shares nothing: buffers find their way back only to the pool that made them.
impl Clone for BufPool {
    fn clone(&self) -> Self {
        BufPool::new()
    }
}

/// Size classes: 1, 2, 4, ... 512 units.
const CLASSES: usize = 10;
/// How many runs of a class are looked at for a free one before a new run is made. Runs are freed about in the order in
/// which they were handed out, so the first look nearly always succeeds.
const PROBES: usize = 8;

#[derive(Default)]
struct Class {
    runs: Vec<Arc<Run>>,
    next: usize,
}

/// Hands out buffers and reuses those that nobody holds any more. One pool per thread.
#[derive(Default)]
pub struct BufPool {
    classes: [Class; CLASSES],
    allocated: u64,
}

impl BufPool {
    /// An empty pool.
    pub fn new() -> Self {
        Self::default()
    }

    /// A buffer of `len` bytes, with unspecified contents. Panics above [`BUF_MAX_BYTES`].
    pub fn alloc(&mut self, len: u32) -> BufMut {
        assert!(len <= BUF_MAX_BYTES, "a buffer of {len} bytes is above the limit of {BUF_MAX_BYTES}");
        let units = len.div_ceil(UNIT).max(1).next_power_of_two();
        let class = &mut self.classes[units.trailing_zeros() as usize];
        for _ in 0..PROBES.min(class.runs.len()) {
            let place = class.next % class.runs.len();
            class.next = place + 1;
            if Arc::get_mut(&mut class.runs[place]).is_some() {
                // The pool gives its count away; `freeze` remembers the run again.
                return BufMut { run: class.runs.swap_remove(place), len };
            }
        }
        self.allocated += 1;
        let pages = vec![Page([0; UNIT_USIZE]); units as usize].into_boxed_slice();
        BufMut { run: Run::new(pages), len }
    }

    /// A buffer of zeroes.
    pub fn zeroed(&mut self, len: u32) -> BufMut {
        let mut buf = self.alloc(len);
        buf.bytes_mut().fill(0);
        buf
    }

    /// Ends the filling and remembers the run, to hand it out again once nobody holds it.
    pub fn freeze(&mut self, buf: BufMut) -> Buf {
        let class = buf.run.pages.len().trailing_zeros() as usize;
        self.classes[class].runs.push(Arc::clone(&buf.run));
        buf.freeze()
    }

    /// A buffer that holds a copy of `bytes`.
    pub fn copy_of(&mut self, bytes: &[u8]) -> Buf {
        let len = u32::try_from(bytes.len()).expect("bounded by BUF_MAX_BYTES");
        let mut buf = self.alloc(len);
        buf.bytes_mut().copy_from_slice(bytes);
        self.freeze(buf)
    }

    /// How many runs were ever allocated; constant in steady state.
    pub fn allocated(&self) -> u64 {
        self.allocated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_small_and_aligned() {
        assert_eq!(size_of::<Buf>(), 16);
        let mut pool = BufPool::new();
        for len in [1, 4096, 5000, 131_072] {
            let buf = pool.alloc(len);
            assert_eq!(buf.bytes().as_ptr().align_offset(UNIT_USIZE), 0);
            assert_eq!(buf.len(), len);
        }
    }

    #[test]
    fn slices_share_and_reuse_waits_for_the_last_holder() {
        let mut pool = BufPool::new();
        let buf = pool.copy_of(b"hello world");
        let word = buf.slice(6, 5);
        assert_eq!(word.bytes(), b"world");
        drop(buf);
        let other = pool.copy_of(b"other");
        assert_eq!(word.bytes(), b"world");
        drop((word, other));
        for _ in 0..100 {
            drop(pool.copy_of(b"again"));
        }
        assert_eq!(pool.allocated(), 2);
    }

    #[test]
    fn a_mark_is_of_one_run_for_good() {
        let mut pool = BufPool::new();
        let (first, second) = (pool.copy_of(b"first"), pool.copy_of(b"second"));
        let mark = first.memory().1.clone();
        mark.set(7);
        assert!(mark.is_of(first.slice(1, 2).memory().1) && !mark.is_of(second.memory().1));
        assert_eq!((second.memory().1.number(), mark.is_left()), (0, false));
        drop((first, pool));
        assert!(mark.is_left());
    }

    #[test]
    #[should_panic(expected = "slice 3+3 of 5")]
    fn a_slice_outside_panics() {
        let _ = BufPool::new().copy_of(b"abcde").slice(3, 3);
    }
}
