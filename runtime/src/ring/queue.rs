//! The ring, made safe by ownership: whatever the kernel may touch is inside the [`Operation`], which this module keeps
//! from submission to completion and then gives back.
#![allow(unsafe_code)]

use super::Token;
use super::registered::Registered;
use ashlar_core::buf::{Buf, BufMut};
use ashlar_core::slab::{Key, Slab};
use ashlar_core::time::Duration;
use ashlar_core::wire::{Batch, Inbox};
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use socket2::SockAddr;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::RawFd;

/// `RWF_ATOMIC` of linux/fs.h: the write is done wholly or not at all, also through a power loss.
const RWF_ATOMIC: i32 = 0x40;

/// Places for submissions of one enter; more are submitted in pieces.
const SUBMISSIONS: u32 = 1024;
/// Places for completions: more operations can be in flight (the kernel keeps the excess), but rarely are.
const COMPLETIONS: u32 = 8192;
/// Parts of one send; what is left goes with the next.
const SLICES: usize = 256;
/// How long an enter waits for sends to complete besides something new. They nearly always do at once; only a connection
/// whose buffers are full makes the others wait for so long, once. When it is over, the kernel returns for the sends alone:
/// a shorter time costs a wake-up for each answer of a server that waits for its next request.
const SENDS_WAIT_US: u32 = 500;

/// Bytes that are being sent.
pub struct SendOperation {
    /// All of them.
    pub batch: Batch,
    /// How many are gone.
    pub sent: u64,
    slices: Vec<libc::iovec>,
    header: Box<libc::msghdr>,
}

impl SendOperation {
    /// Sends a batch from its start.
    pub fn new(batch: Batch) -> Self {
        // SAFETY: all fields of a msghdr are numbers and pointers, for which zero is a legal value.
        let header = unsafe { std::mem::zeroed() };
        SendOperation { batch, sent: 0, slices: Vec::new(), header: Box::new(header) }
    }
}

/// A request to the kernel, with all memory that it refers to.
pub enum Operation {
    /// Accept connections until further notice.
    Accept,
    /// Connect to an address.
    Connect(Box<SockAddr>),
    /// Receive into the space of an inbox.
    Receive(Inbox),
    /// Send what is left of a batch.
    Send(SendOperation),
    /// Read into a buffer, from byte `done` of it on.
    Read {
        /// Where in the file the buffer begins.
        offset: u64,
        /// The buffer.
        buf: BufMut,
        /// Bytes that were read.
        done: u32,
    },
    /// Write a buffer, from byte `done` of it on.
    Write {
        /// Where in the file the buffer begins.
        offset: u64,
        /// The buffer.
        buf: Buf,
        /// Bytes that were written.
        done: u32,
        /// Whether the kernel is to refuse it rather than split it.
        atomic: bool,
    },
    /// Make durable.
    Flush,
    /// Make a hole.
    Discard {
        /// Where.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Wait for a thread that tells the device that a range is unused.
    Trim {
        /// Where.
        offset: u64,
        /// Bytes.
        len: u64,
        /// The counter that gets the thread's answer.
        bell: File,
        /// The answer.
        number: Box<[u8; 8]>,
    },
    /// Wait for an event counter.
    Wake(Box<[u8; 8]>),
    /// Cancel another operation.
    Cancel(OperationKey),
}

/// Names an operation in flight.
pub type OperationKey = Key<InFlight>;

/// An operation in flight.
pub struct InFlight {
    token: Token,
    operation: Operation,
}

/// What an operation came to.
pub struct Completed {
    /// As submitted.
    pub token: Token,
    /// As submitted; of a multishot that goes on, an equal one.
    pub operation: Operation,
    /// The kernel's result.
    pub result: Result<u32, i32>,
    /// Whether more completions of it will come.
    pub more: bool,
}

/// The ring and what is in flight on it.
pub struct Queue {
    ring: IoUring,
    in_flight: Slab<InFlight>,
    /// Submissions that found no place yet.
    backlog: VecDeque<squeue::Entry>,
    sends_submitted: usize,
    enters: u64,
    registered: Registered,
    /// Requests that named registered memory.
    fixed: u64,
}

impl Queue {
    /// Sets up a ring for this thread alone, as good as the kernel can do it.
    pub fn new() -> io::Result<Queue> {
        let modern = || {
            let mut builder = IoUring::builder();
            builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
            builder.setup_cqsize(COMPLETIONS).setup_submit_all().dontfork().build(SUBMISSIONS)
        };
        let plain = || IoUring::builder().setup_cqsize(COMPLETIONS).dontfork().build(SUBMISSIONS);
        let ring = modern().or_else(|error| match error.raw_os_error() {
            Some(libc::EINVAL) => plain(),
            _ => Err(error),
        })?;
        if !ring.params().is_feature_ext_arg() || !ring.params().is_feature_nodrop() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this kernel's io_uring is too old; 5.19 is needed",
            ));
        }
        let (in_flight, backlog, registered) = (Slab::default(), VecDeque::new(), Registered::default());
        Ok(Queue { ring, in_flight, backlog, sends_submitted: 0, enters: 0, registered, fixed: 0 })
    }

    /// Has the kernel remember these files, which must stay open, and the memory that requests on any file use.
    pub fn register(&mut self, files: &[RawFd]) {
        self.forget();
        self.registered = Registered::new(&self.ring, files);
    }

    /// Has the kernel forget what it remembered.
    pub fn forget(&mut self) {
        self.registered.end(&self.ring);
    }

    /// Requests with memory that the kernel knew.
    pub fn fixed(&self) -> u64 {
        self.fixed
    }

    /// System calls so far.
    pub fn enters(&self) -> u64 {
        self.enters
    }

    /// Queues an operation on a descriptor, which must stay open until it completes.
    pub fn push(&mut self, fd: RawFd, token: Token, operation: Operation) -> OperationKey {
        self.sends_submitted += usize::from(matches!(operation, Operation::Send(_)));
        let key = self.in_flight.insert(InFlight { token, operation });
        let operation = &mut self.in_flight.get_mut(key).expect("inserted above").operation;
        let memory = match &operation {
            Operation::Read { buf, .. } => self.registered.memory(&self.ring, buf.memory()),
            Operation::Write { buf, .. } => self.registered.memory(&self.ring, buf.memory()),
            _ => None,
        };
        self.fixed += u64::from(memory.is_some());
        let entry = match self.registered.file(fd) {
            Some(number) => entry(number, operation, memory).flags(squeue::Flags::FIXED_FILE),
            None => entry(fd, operation, memory),
        };
        self.backlog.push_back(entry.user_data(key.to_u64()));
        self.fill();
        key
    }

    /// Moves what waits into the ring, as far as there is room.
    fn fill(&mut self) {
        let mut queue = self.ring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: all pointers of the entry lead into heap memory owned by an operation in `in_flight`, which does
            // not move, is not touched, and is not freed before its completion was taken (see `drop` for the end).
            if unsafe { queue.push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
    }

    /// Whether completions are there, or the kernel has some to be fetched by an enter.
    pub fn is_ready(&mut self) -> bool {
        !self.ring.completion().is_empty() || self.ring.submission().taskrun()
    }

    /// Submits, and waits until something completes besides the sends just submitted, `timeout` at most.
    pub fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let sends = std::mem::take(&mut self.sends_submitted);
        let waits = timeout != Some(Duration::ZERO) && self.backlog.is_empty();
        self.enters += 1;
        let result = if waits { self.wait(1 + sends, sends > 0, timeout) } else { self.submit() };
        match result.map_err(|error| (error.raw_os_error(), error)) {
            // Time is up; a signal came; the kernel wants completions to be taken first.
            Ok(_) | Err((Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN), _)) => {}
            Err((_, error)) => return Err(error),
        }
        self.fill();
        Ok(())
    }

    fn wait(&mut self, want: usize, sends: bool, timeout: Option<Duration>) -> io::Result<usize> {
        // What has arrived already counts.
        let want = if self.ring.completion().is_empty() { want } else { 1 };
        let longest = Duration::secs(3600);
        let mut timeout = timeout.unwrap_or(longest).min(longest);
        let patient = self.ring.params().is_feature_min_timeout();
        if sends && !patient {
            timeout = timeout.min(Duration::micros(u64::from(SENDS_WAIT_US)));
        }
        let time = types::Timespec::new().sec(timeout.0 / 1_000_000_000).nsec(u32_of(timeout.0 % 1_000_000_000));
        let mut args = types::SubmitArgs::new().timespec(&time);
        if sends && patient {
            args = args.min_wait_usec(SENDS_WAIT_US);
        }
        self.ring.submitter().submit_with_args(want, &args)
    }

    /// Submits and fetches what has completed, without waiting.
    fn submit(&mut self) -> io::Result<usize> {
        self.ring.submitter().submit()
    }

    /// Takes a completion.
    pub fn next(&mut self) -> Option<Completed> {
        let completion = self.ring.completion().next()?;
        let key = OperationKey::from_u64(completion.user_data());
        let more = cqueue::more(completion.flags());
        let result = u32::try_from(completion.result()).map_err(|_| -completion.result());
        let in_flight = if more {
            let in_flight = self.in_flight.get(key).expect("a completion of something in flight");
            assert!(matches!(in_flight.operation, Operation::Accept), "the only multishot operation");
            InFlight { token: in_flight.token, operation: Operation::Accept }
        } else {
            self.in_flight.remove(key).expect("a completion of something in flight")
        };
        Some(Completed { token: in_flight.token, operation: in_flight.operation, result, more })
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if !self.in_flight.is_empty() {
            // The kernel may still use this memory until the ring is gone for good, which happens later: let it be.
            std::mem::forget(std::mem::take(&mut self.in_flight));
        }
        // The ring itself ends later, and would keep devices locked until then.
        self.forget();
    }
}

fn u32_of(n: u64) -> u32 {
    u32::try_from(n).expect("reduced below 2^32 before")
}

fn len_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("buffers are far below 4 GiB")
}

/// `memory`: the place where the kernel knows the memory of the buffer.
fn entry(fd: RawFd, operation: &mut Operation, memory: Option<u16>) -> squeue::Entry {
    let fd = types::Fd(fd);
    match operation {
        Operation::Accept => opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build(),
        Operation::Connect(address) => opcode::Connect::new(fd, address.as_ptr().cast(), address.len()).build(),
        Operation::Receive(inbox) => {
            let space = inbox.space();
            opcode::Recv::new(fd, space.as_mut_ptr(), len_of(space)).build()
        }
        Operation::Send(send) => send_entry(fd, send),
        Operation::Read { offset, buf, done } => {
            let (rest, offset) = (&mut buf.bytes_mut()[*done as usize..], *offset + u64::from(*done));
            let (start, len) = (rest.as_mut_ptr(), len_of(rest));
            match memory {
                Some(place) => opcode::ReadFixed::new(fd, start, len, place).offset(offset).build(),
                None => opcode::Read::new(fd, start, len).offset(offset).build(),
            }
        }
        Operation::Write { offset, buf, done, atomic } => {
            let (rest, offset) = (&buf.bytes()[*done as usize..], *offset + u64::from(*done));
            let (start, len, flags) = (rest.as_ptr(), len_of(rest), if *atomic { RWF_ATOMIC } else { 0 });
            match memory {
                Some(place) => opcode::WriteFixed::new(fd, start, len, place).offset(offset).rw_flags(flags).build(),
                None => opcode::Write::new(fd, start, len).offset(offset).rw_flags(flags).build(),
            }
        }
        Operation::Flush => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
        Operation::Discard { offset, len } => {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            opcode::Fallocate::new(fd, *len).offset(*offset).mode(mode).build()
        }
        Operation::Wake(value) => opcode::Read::new(fd, value.as_mut_ptr(), 8).build(),
        Operation::Trim { number, .. } => opcode::Read::new(fd, number.as_mut_ptr(), 8).build(),
        Operation::Cancel(key) => opcode::AsyncCancel::new(key.to_u64()).build(),
    }
}

fn send_entry(fd: types::Fd, send: &mut SendOperation) -> squeue::Entry {
    send.slices.clear();
    let slices = &mut send.slices;
    send.batch.slices(send.sent, |bytes| {
        slices.push(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
        slices.len() < SLICES
    });
    if let [only] = &send.slices[..] {
        let len = u32_of(only.iov_len.min(1 << 30) as u64);
        return opcode::Send::new(fd, only.iov_base.cast(), len).flags(libc::MSG_NOSIGNAL).build();
    }
    send.header.msg_iov = send.slices.as_mut_ptr();
    send.header.msg_iovlen = send.slices.len();
    opcode::SendMsg::new(fd, &raw const *send.header).flags(libc::MSG_NOSIGNAL as u32).build()
}
