//! One client: negotiation, then requests, many at a time, answered in the order in which they complete.
//!
//! ```text
//! negotiate ─▶ serve: read a request ─▶ begin it (a task) ─▶ its reply ─▶ writer
//!                └─ disconnect, end of stream, shutdown ─▶ wait for what is in flight ─▶ close
//! ```

use super::disk::{Disk, Exports};
use super::incoming::Incoming;
use super::negotiation::{ExportInfo, Negotiation, Step, Terms};
use super::outgoing::{Body, Outgoing, Reply};
use super::protocol::*;
use crate::{Error, Extent, ImageOp, OpError, Outcome, Pieces};
use ashlar_core::buf::{BUF_MAX_BYTES, BufPool};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;

/// A client that connects and does not come to an end of the negotiation is dropped after this.
const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(60);
/// Requests of one connection in flight: well above the queue depth of kernels and of qemu (128).
const REQUESTS: usize = 512;
/// Payload of one connection in flight, in units of 4 KiB: 64 MiB, two requests of the largest size.
const PAYLOAD_UNITS: usize = 16 << 10;
/// What is in flight at shutdown may take so long; a cluster that is away would take for ever.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// A block status covers no more: some thousand objects; the client asks on from there.
const STATUS_MAX_BYTES: u64 = 1 << 30;
/// A reply to it holds no more extents: half a MiB.
const STATUS_EXTENTS: usize = 64 << 10;
/// A client that wants one extent only gets it from the first object, if it ends there; if not, from so many times as
/// many objects, and so on: fragmented images cost no more than they must, nor do large holes.
const STATUS_GROWTH: u64 = 8;

/// Serves one connection until it ends. `shutdown` turns true when the server ends.
pub async fn run<S, E>(stream: S, exports: E, mut shutdown: watch::Receiver<bool>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Sync + 'static,
    E: Exports,
{
    let (reading, mut writing) = tokio::io::split(stream);
    let mut incoming = Incoming::new(reading);
    let negotiated = tokio::select! {
        negotiated = tokio::time::timeout(NEGOTIATION_TIMEOUT, negotiate(&mut incoming, &mut writing, &exports)) => {
            negotiated.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??
        }
        () = begun(&mut shutdown) => None,
    };
    let Some((name, disk, terms)) = negotiated else {
        return writing.shutdown().await;
    };
    let read_only = exports.read_only() || disk.is_read_only();
    let outgoing = Arc::new(Outgoing::default());
    let writer = Arc::clone(&outgoing);
    let writer = tokio::spawn(async move { writer.write_to(writing).await });
    let (requests, payload) = (Arc::new(Semaphore::new(REQUESTS)), Arc::new(Semaphore::new(PAYLOAD_UNITS)));
    let (watching, watched, bufs) = (exports.clone(), disk.clone(), BufPool::new());
    let session = Session { incoming, outgoing, exports, disk, terms, read_only, requests, payload, bufs };
    session.serve(shutdown, writer, watching.shrunk(&name, &watched)).await
}

/// The disk that the client chose, and how it wants to be talked to; `None`: it went away.
async fn negotiate<R, W, E>(
    incoming: &mut Incoming<R>,
    writing: &mut W,
    exports: &E,
) -> io::Result<Option<(String, E::Disk, Terms)>>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    E: Exports,
{
    let mut out = Vec::new();
    let mut negotiation = Negotiation::new(&mut out);
    let mut disk = None;
    loop {
        let (used, mut step) = negotiation.receive(incoming.bytes(), &mut out);
        incoming.consume(used);
        if step == Step::List {
            negotiation.list(&exports.names().await, &mut out);
            continue;
        }
        if let Step::Find(name) = step {
            let found = exports.find(&name).await;
            let info = |disk: &E::Disk| ExportInfo {
                size_bytes: disk.size(),
                read_only: exports.read_only() || disk.is_read_only(),
            };
            step = negotiation.found(found.as_ref().map(info).map_err(String::as_str), &mut out);
            disk = found.ok().map(|disk| (name, disk));
            if step == Step::Read {
                continue;
            }
        }
        writing.write_all(&out).await?;
        out.clear();
        match step {
            Step::Transmit(terms) => return Ok(disk.map(|(name, disk)| (name, disk, terms))),
            Step::Close => return Ok(None),
            Step::Read | Step::Find(_) | Step::List => {}
        }
        if !incoming.receive().await? {
            return Ok(None);
        }
    }
}

type Permits = [OwnedSemaphorePermit; 2];

struct Session<R, E: Exports> {
    incoming: Incoming<R>,
    outgoing: Arc<Outgoing>,
    exports: E,
    disk: E::Disk,
    terms: Terms,
    read_only: bool,
    requests: Arc<Semaphore>,
    payload: Arc<Semaphore>,
    bufs: BufPool,
}

impl<R: AsyncRead + Unpin, E: Exports> Session<R, E> {
    async fn serve(
        mut self,
        mut shutdown: watch::Receiver<bool>,
        mut writer: JoinHandle<io::Result<()>>,
        shrunk: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let result = tokio::select! {
            result = self.read_requests() => result,
            () = begun(&mut shutdown) => Ok(()),
            () = shrunk => Ok(()),
            // Only a failed write ends it here.
            result = &mut writer => return result.unwrap_or_else(|panic| Err(io::Error::other(panic))),
        };
        let all = u32::try_from(REQUESTS).expect("a small number");
        tokio::select! {
            _ = self.requests.acquire_many(all) => {}
            // The client does not wait for its answers, or does not read them.
            _ = &mut writer => return result,
            () = grace_after(&mut shutdown) => {}
        }
        self.outgoing.finish();
        let written = tokio::time::timeout(SHUTDOWN_GRACE, &mut writer).await;
        if written.is_err() {
            writer.abort();
        }
        result
    }

    /// Begins requests until the client wants no more.
    async fn read_requests(&mut self) -> io::Result<()> {
        loop {
            while let Some(header) = self.incoming.bytes().first_chunk::<REQUEST_BYTES>() {
                let request = Request::parse(header)
                    .map_err(|NotARequest| io::Error::new(io::ErrorKind::InvalidData, "what came is not a request"))?;
                self.incoming.consume(REQUEST_BYTES);
                if request.command == Command::Disconnect {
                    return Ok(());
                }
                self.begin(request).await?;
            }
            if !self.incoming.receive().await? {
                return Ok(());
            }
        }
    }

    /// Waits until the request fits among those in flight.
    async fn permits(&self, request: &Request) -> Permits {
        let carries = matches!(request.command, Command::Read | Command::Write) && request.len <= PAYLOAD_MAX_BYTES;
        let units = if carries { request.len.div_ceil(4096) } else { 0 };
        let place = Arc::clone(&self.requests).acquire_owned().await.expect("never closed");
        let units = Arc::clone(&self.payload).acquire_many_owned(units).await.expect("never closed");
        [place, units]
    }

    async fn begin(&mut self, request: Request) -> io::Result<()> {
        let permits = self.permits(&request).await;
        let refusal = self.refusal(&request);
        if request.command == Command::Write && refusal.is_none() {
            return self.begin_write(request, permits).await;
        }
        if request.command == Command::Write {
            self.incoming.skip(request.len).await?;
        }
        match refusal {
            Some(errno) => self.replier(&request).fail(errno, permits),
            None => {
                let (disk, replier) = (self.disk.clone(), self.replier(&request));
                tokio::spawn(async move { replier.answer(carry_out(disk, request).await, permits) });
            }
        }
        Ok(())
    }

    /// Why a request is not even tried.
    fn refusal(&self, request: &Request) -> Option<Errno> {
        let carries = matches!(request.command, Command::Read | Command::Write);
        let outside = request.offset.checked_add(request.len.into()).is_none_or(|end| end > self.disk.size());
        match request.command {
            Command::Unknown(_) => Some(Errno::Invalid),
            _ if request.flags & !request.known_flags() != 0 => Some(Errno::Invalid),
            Command::BlockStatus if !self.terms.allocation || request.len == 0 => Some(Errno::Invalid),
            Command::Flush => None,
            _ if request.is_write() && self.read_only => Some(Errno::NotPermitted),
            _ if carries && request.len > PAYLOAD_MAX_BYTES => Some(Errno::Invalid),
            Command::Write | Command::WriteZeroes if outside => Some(Errno::NoSpace),
            _ if outside => Some(Errno::Invalid),
            Command::WriteZeroes if request.flags & flag::FAST_ZERO != 0 && !on_sectors(request) => {
                Some(Errno::NotSupported)
            }
            _ => None,
        }
    }

    fn replier(&self, request: &Request) -> Replier<E> {
        let (outgoing, exports) = (Arc::clone(&self.outgoing), self.exports.clone());
        Replier { outgoing, exports, structured: self.terms.structured, request: *request, since: Instant::now() }
    }

    /// Hands the payload over piece by piece, each as soon as it is here.
    async fn begin_write(&mut self, request: Request, permits: Permits) -> io::Result<()> {
        let replier = self.replier(&request);
        let object = u64::from(self.disk.object_bytes().min(BUF_MAX_BYTES));
        let end = request.offset + u64::from(request.len);
        let mut pieces = Vec::with_capacity(1);
        let mut offset = request.offset;
        while offset < end {
            let len = u32::try_from((end - offset).min(object - offset % object)).expect("at most 2 MiB");
            let data = self.incoming.payload(&mut self.bufs, len).await?;
            let disk = self.disk.clone();
            let op = ImageOp::Write { offset, data };
            offset += u64::from(len);
            if offset == end {
                tokio::spawn(async move {
                    let last = disk.perform(op).await;
                    let result = finish_write(&disk, request, last, pieces).await;
                    replier.answer(result, permits);
                });
                return Ok(());
            }
            pieces.push(tokio::spawn(async move { disk.perform(op).await }));
        }
        replier.answer(Ok(Outcome::Done), permits);
        Ok(())
    }
}

async fn finish_write(
    disk: &impl Disk,
    request: Request,
    last: Result<Outcome, Error>,
    pieces: Vec<JoinHandle<Result<Outcome, Error>>>,
) -> Result<Outcome, Error> {
    let mut result = last;
    for piece in pieces {
        let piece = piece.await.unwrap_or(Err(Error::Stopped));
        result = result.and(piece);
    }
    result?;
    safe(disk, request).await
}

/// With FUA, a write is answered when it is safe.
async fn safe(disk: &impl Disk, request: Request) -> Result<Outcome, Error> {
    if request.flags & flag::FUA != 0 { disk.perform(ImageOp::Flush).await } else { Ok(Outcome::Done) }
}

async fn carry_out(disk: impl Disk, request: Request) -> Result<Outcome, Error> {
    let Request { offset, flags, .. } = request;
    let len = u64::from(request.len);
    match request.command {
        Command::Read => disk.perform(ImageOp::Read { offset, len: request.len }).await,
        Command::Flush => disk.perform(ImageOp::Flush).await,
        Command::Trim => {
            disk.perform(ImageOp::Discard { offset, len }).await?;
            safe(&disk, request).await
        }
        Command::WriteZeroes => {
            let no_hole = flags & flag::NO_HOLE != 0;
            disk.perform(ImageOp::WriteZeroes { offset, len, no_hole }).await?;
            safe(&disk, request).await
        }
        Command::BlockStatus => {
            let len = len.min(STATUS_MAX_BYTES);
            match flags & flag::REQ_ONE {
                0 => disk.perform(ImageOp::BlockStatus { offset, len }).await,
                _ => first_extent(&disk, offset, len).await,
            }
        }
        Command::Write | Command::Disconnect | Command::Unknown(_) => unreachable!("not carried out here"),
    }
}

/// The extent that begins at `offset`, up to `len` bytes of it.
async fn first_extent(disk: &impl Disk, offset: u64, len: u64) -> Result<Outcome, Error> {
    let object = u64::from(disk.object_bytes());
    let (mut first, mut window) = (None, object - offset % object);
    let mut covered = 0;
    while covered < len {
        let asked = window.min(len - covered);
        let found = match disk.perform(ImageOp::BlockStatus { offset: offset + covered, len: asked }).await? {
            Outcome::BlockStatus(extents) => *extents.first().expect("an extent for some bytes"),
            other => panic!("a block status was answered by {other:?}"),
        };
        let extent = first.get_or_insert(Extent { len: 0, ..found });
        if extent.written != found.written {
            break;
        }
        extent.len += found.len;
        if found.len < asked {
            break;
        }
        covered += asked;
        window = window.next_multiple_of(object) * STATUS_GROWTH;
    }
    Ok(Outcome::BlockStatus(first.into_iter().collect()))
}

fn on_sectors(request: &Request) -> bool {
    let sector = ashlar_core::limits::SECTOR_BYTES;
    request.offset.is_multiple_of(sector.into()) && request.len.is_multiple_of(sector)
}

/// The server's end has begun.
pub async fn begun(shutdown: &mut watch::Receiver<bool>) {
    // If the sender is gone, the server has ended.
    let _ = shutdown.wait_for(|shutdown| *shutdown).await;
}

/// The server ends, and then some.
async fn grace_after(shutdown: &mut watch::Receiver<bool>) {
    begun(shutdown).await;
    tokio::time::sleep(SHUTDOWN_GRACE).await;
}

/// Turns a result into a reply.
struct Replier<E> {
    outgoing: Arc<Outgoing>,
    exports: E,
    structured: bool,
    request: Request,
    /// When the request was here.
    since: Instant,
}

impl<E: Exports> Replier<E> {
    fn fail(&self, errno: Errno, permits: Permits) {
        let cookie = self.request.cookie;
        let head = if self.structured { Head::error(cookie, errno) } else { Head::simple(cookie, Some(errno)) };
        self.outgoing.push(Reply { head, body: Body::Empty, permits });
    }

    fn answer(&self, result: Result<Outcome, Error>, permits: Permits) {
        self.exports.answered(self.request.command, self.since.elapsed());
        match result {
            Ok(outcome) => {
                let (head, body) = self.success(outcome);
                self.outgoing.push(Reply { head, body, permits });
            }
            Err(Error::Op(error)) => {
                tracing::warn!("{:?} at {}: {error}", self.request.command, self.request.offset);
                self.fail(Errno::of(error, self.request.is_write()), permits);
                if error == OpError::Fenced {
                    // Nothing on this connection can ever succeed.
                    self.outgoing.finish();
                }
            }
            Err(Error::Stopped | Error::NoRandomness) => self.fail(Errno::Shutdown, permits),
        }
    }

    fn success(&self, outcome: Outcome) -> (Head, Body) {
        let Request { cookie, offset, len, .. } = self.request;
        match outcome {
            Outcome::BlockStatus(extents) => self.status(extents),
            Outcome::Read(pieces) if self.structured && len > 0 => (Head::data(cookie, offset, len), read(pieces, len)),
            Outcome::Read(pieces) if !self.structured => (Head::simple(cookie, None), read(pieces, len)),
            _ if self.structured => (Head::done(cookie), Body::Empty),
            _ => (Head::simple(cookie, None), Body::Empty),
        }
    }

    fn status(&self, mut extents: Vec<Extent>) -> (Head, Body) {
        extents.truncate(if self.request.flags & flag::REQ_ONE != 0 { 1 } else { STATUS_EXTENTS });
        let bytes = descriptors(&extents);
        let len = u32::try_from(bytes.len()).expect("a block status covers 1 GiB at most");
        (Head::block_status(self.request.cookie, len), Body::Bytes(bytes))
    }
}

fn read(pieces: Pieces, len: u32) -> Body {
    let total: u64 = pieces.iter().map(|piece| u64::from(piece.len())).sum();
    assert_eq!(total, u64::from(len), "a read gave another number of bytes than asked for");
    Body::Pieces(pieces)
}
