//! A device with a volatile cache, or with power-loss protection, whose requests complete in any order. A read that meets a
//! write, in whichever order they begin and complete, sees each sector as it was or as it becomes.

use crate::buf::{Buf, BufPool};
use crate::io::{DiskDone, DiskError, DiskOp, IoId};
use crate::rng::Rng;

const SECTOR: usize = 512;

#[derive(Clone)]
struct Write {
    id: IoId,
    offset: usize,
    data: Buf,
    completed: bool,
    /// Flush that covers it.
    covered: Option<IoId>,
}

#[derive(Clone)]
enum Request {
    Write(IoId),
    Read(Reading),
    Flush(IoId),
    Discard(IoId, usize, usize),
}

#[derive(Clone)]
struct Reading {
    id: IoId,
    offset: usize,
    len: usize,
    /// Where a write completed since the read began, and what was there before.
    before: Vec<(usize, Vec<u8>)>,
}

/// What of a write survives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// The machine loses power: un-flushed sectors survive one by one or not.
    Power,
    /// The process dies: what completed stays in the cache, what was on its way arrives or not.
    Process,
}

#[derive(Clone)]
pub struct Device {
    /// What survives a power loss.
    pub media: Vec<u8>,
    /// Writes not durable, in order of submission.
    writes: Vec<Write>,
    requests: Vec<Request>,
    volatile: bool,
    /// Writes of a power of two of bytes up to this, on a multiple of their length, arrive wholly or not at all.
    pub atomic: usize,
    pub writes_done: u64,
    pub reads_done: u64,
    pub refused: u64,
    pub discards: u64,
    /// It does not do such a thing.
    pub no_discards: bool,
    /// The next write (flush) fails.
    pub fail_write: bool,
    pub fail_flush: bool,
    /// Writes from this offset on fail, one in so many (0: none); sectors of them arrive or not.
    pub flaky: (usize, u64),
    /// Bytes that cannot be read.
    pub unreadable: std::ops::Range<usize>,
}

impl Device {
    pub fn new(bytes: usize, volatile: bool) -> Self {
        Device {
            media: vec![0; bytes],
            writes: Vec::new(),
            requests: Vec::new(),
            volatile,
            atomic: 0,
            writes_done: 0,
            reads_done: 0,
            refused: 0,
            discards: 0,
            no_discards: false,
            fail_write: false,
            fail_flush: false,
            flaky: (0, 0),
            unreadable: 0..0,
        }
    }

    pub fn submit(&mut self, id: IoId, op: DiskOp) {
        if let Some((offset, len)) = op.extent() {
            self.assert_kept(offset as usize, len as usize);
        }
        match op {
            DiskOp::Read { offset, len, .. } => {
                let (offset, len) = (offset as usize, len as usize);
                self.requests.push(Request::Read(Reading { id, offset, len, before: Vec::new() }));
            }
            DiskOp::Write { offset, data, .. } => {
                assert!(offset as usize + data.len() as usize <= self.media.len(), "write beyond the device");
                assert_eq!(offset % 4096, 0);
                assert_eq!(data.bytes().as_ptr().align_offset(4096), 0, "memory of a write is not aligned");
                self.requests.push(Request::Write(id));
                if offset as usize <= self.unreadable.start
                    && self.unreadable.end <= offset as usize + data.len() as usize
                {
                    // It gets another place.
                    self.unreadable = 0..0;
                }
                self.writes.push(Write { id, offset: offset as usize, data, completed: false, covered: None });
            }
            DiskOp::Flush { .. } => {
                for write in self.writes.iter_mut().filter(|write| write.completed && write.covered.is_none()) {
                    write.covered = Some(id);
                }
                self.requests.push(Request::Flush(id));
            }
            DiskOp::Discard { offset, len, .. } => {
                assert_eq!((offset % 4096, len % 4096), (0, 0));
                self.discards += 1;
                self.requests.push(Request::Discard(id, offset as usize, len as usize));
            }
        }
    }

    /// Panics if a discard is under way there: nobody knows what comes of it.
    fn assert_kept(&self, offset: usize, len: usize) {
        for request in &self.requests {
            if let Request::Discard(_, first, bytes) = request {
                assert!(offset + len <= *first || first + bytes <= offset, "a request meets a discard at {offset}");
            }
        }
    }

    pub fn outstanding(&self) -> usize {
        self.requests.len()
    }

    /// Completes one request, chosen at random.
    pub fn complete(&mut self, rng: &mut Rng, bufs: &mut BufPool) -> (IoId, DiskDone) {
        let at = rng.below(self.requests.len() as u64) as usize;
        if let Request::Write(id) = self.requests[at]
            && self.flaky.1 > 0
            && rng.chance(1, self.flaky.1)
            && self.refuse(id, rng)
        {
            self.requests.remove(at);
            return (id, DiskDone::Done(Err(DiskError::Io)));
        }
        let Request::Read(reading) = self.requests[at].clone() else { return self.complete_at(at, bufs) };
        let (id, mut done) = self.complete_at(at, bufs);
        if let DiskDone::Read(Ok(read)) = &mut done {
            let mixed = self.mixed(&reading, read, rng);
            *read = bufs.copy_of(&mixed);
        }
        (id, done)
    }

    /// What a read sees that met writes: of each of their sectors, what was there or what comes.
    fn mixed(&self, reading: &Reading, read: &Buf, rng: &mut Rng) -> Vec<u8> {
        let mut mixed = read.bytes().to_vec();
        let before = reading.before.iter().map(|(offset, bytes)| (*offset, &bytes[..]));
        let coming = self.writes.iter().filter(|write| !write.completed);
        for (offset, bytes) in before.chain(coming.map(|write| (write.offset, write.data.bytes()))) {
            for (sector, bytes) in bytes.chunks(SECTOR).enumerate() {
                let at = offset + sector * SECTOR;
                if reading.offset <= at && at + SECTOR <= reading.offset + reading.len && rng.chance(1, 2) {
                    mixed[at - reading.offset..][..SECTOR].copy_from_slice(bytes);
                }
            }
        }
        mixed
    }

    /// A write completes: reads that met it may still see what was there.
    fn remember(&mut self, offset: usize, len: usize) {
        let meets = |request: &Request| match request {
            Request::Read(read) => read.offset < offset + len && offset < read.offset + read.len,
            _ => false,
        };
        if !self.requests.iter().any(meets) {
            return;
        }
        let before = self.view()[offset..offset + len].to_vec();
        for request in self.requests.iter_mut().filter(|request| meets(request)) {
            let Request::Read(read) = request else { unreachable!("only reads meet it") };
            read.before.push((offset, before.clone()));
        }
    }

    /// Fails a write of which some sectors arrive. False if it is one that does not fail.
    fn refuse(&mut self, id: IoId, rng: &mut Rng) -> bool {
        let place = self.writes.iter().position(|write| write.id == id && !write.completed).unwrap();
        if self.writes[place].offset < self.flaky.0 {
            return false;
        }
        self.remember(self.writes[place].offset, self.writes[place].data.len() as usize);
        let write = self.writes.remove(place);
        let all = self.is_atomic(&write).then(|| rng.chance(1, 2));
        apply(&mut self.media, &write, |_| all.unwrap_or_else(|| rng.chance(1, 2)));
        self.refused += 1;
        true
    }

    pub fn complete_at(&mut self, at: usize, bufs: &mut BufPool) -> (IoId, DiskDone) {
        match self.requests.remove(at) {
            Request::Read(Reading { id, offset, len, .. })
                if offset < self.unreadable.end && self.unreadable.start < offset + len =>
            {
                (id, DiskDone::Read(Err(DiskError::Io)))
            }
            Request::Read(Reading { id, offset, len, .. }) => {
                self.reads_done += 1;
                (id, DiskDone::Read(Ok(bufs.copy_of(&self.view()[offset..offset + len]))))
            }
            Request::Write(id) => {
                let place = self.writes.iter().position(|write| write.id == id && !write.completed).unwrap();
                self.writes_done += 1;
                if std::mem::take(&mut self.fail_write) {
                    self.writes.remove(place);
                    return (id, DiskDone::Done(Err(DiskError::Io)));
                }
                self.remember(self.writes[place].offset, self.writes[place].data.len() as usize);
                let mut write = self.writes.remove(place);
                write.completed = true;
                if self.volatile {
                    let behind = self.writes.iter().take_while(|write| write.completed).count();
                    self.writes.insert(behind, write);
                } else {
                    apply(&mut self.media, &write, |_| true);
                }
                (id, DiskDone::Done(Ok(())))
            }
            Request::Discard(id, ..) if self.no_discards => (id, DiskDone::Done(Err(DiskError::Unsupported))),
            Request::Discard(id, offset, len) => {
                self.media[offset..offset + len].fill(0xdd);
                (id, DiskDone::Done(Ok(())))
            }
            Request::Flush(id) => {
                if std::mem::take(&mut self.fail_flush) {
                    return (id, DiskDone::Done(Err(DiskError::Io)));
                }
                for write in self.writes.iter().filter(|write| write.covered == Some(id)) {
                    apply(&mut self.media, write, |_| true);
                }
                self.writes.retain(|write| write.covered != Some(id));
                (id, DiskDone::Done(Ok(())))
            }
        }
    }

    fn is_atomic(&self, write: &Write) -> bool {
        let len = write.data.len() as usize;
        len.is_power_of_two() && len <= self.atomic && write.offset.is_multiple_of(len)
    }

    /// What a read sees: writes that are on their way are not there yet.
    fn view(&self) -> std::borrow::Cow<'_, [u8]> {
        if self.writes.iter().all(|write| !write.completed) {
            return std::borrow::Cow::Borrowed(&self.media);
        }
        let mut view = self.media.clone();
        for write in self.writes.iter().filter(|write| write.completed) {
            apply(&mut view, write, |_| true);
        }
        std::borrow::Cow::Owned(view)
    }

    /// Power loss; of each write that is not durable, these sectors survive.
    pub fn crash_keeping(&mut self, survives: impl Fn(usize) -> bool) {
        self.requests.clear();
        for write in std::mem::take(&mut self.writes) {
            assert!(!self.is_atomic(&write), "is not torn");
            apply(&mut self.media, &write, &survives);
        }
    }

    /// Everything that was under way ends.
    pub fn crash(&mut self, rng: &mut Rng, loss: Loss) {
        for request in std::mem::take(&mut self.requests) {
            if let Request::Discard(_, offset, len) = request
                && rng.chance(1, 2)
            {
                self.media[offset..offset + len].fill(0xdd);
            }
        }
        for write in &mut self.writes {
            write.covered = None;
        }
        if loss == Loss::Process && self.volatile {
            self.writes.retain(|write| write.completed || rng.chance(1, 2));
            self.writes.iter_mut().for_each(|write| write.completed = true);
            return;
        }
        for write in std::mem::take(&mut self.writes) {
            // Often all or nothing, so that deep states are reached.
            let all = rng.below(if self.is_atomic(&write) { 2 } else { 6 });
            apply(&mut self.media, &write, |sector| match all {
                0 => true,
                1 => false,
                2 => sector == 0,
                3 => sector != 0,
                _ => rng.chance(1, 2),
            });
        }
    }
}

fn apply(media: &mut [u8], write: &Write, mut survives: impl FnMut(usize) -> bool) {
    for (sector, bytes) in write.data.bytes().chunks(SECTOR).enumerate() {
        if survives(sector) {
            let at = write.offset + sector * SECTOR;
            media[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }
}
