//! One simulated device behind an NBD socket.
//!
//! Connections put requests into the device under one lock; a clock completes them when their time has come, in whatever
//! order that is, and answers. A power loss settles the cache, forgets what was under way, and ends all connections: each
//! is good for the power cycle that it began in, and for no other.

use super::{CANARY, CANARY_PAGES, Lies};
use anyhow::{Context, Result, ensure};
use ashlar_core::buf::{BUF_MAX_BYTES, BufPool, UNIT};
use ashlar_core::io::{Device, DiskDone, DiskError, DiskOp};
use ashlar_core::rng::Rng;
use ashlar_core::time::Time;
use ashlar_faultinject::disk::{DiskCounters, DiskFaults, DiskModel, Latency, Outcome, SimDisk, Ticket};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const EXPORT_NAME: u32 = 1;
const INFO: u32 = 6;
const GO: u32 = 7;
/// Replies to options: done, the size, not known here.
const ACK: u32 = 1;
const SIZE: u32 = 3;
const UNSUPPORTED: u32 = (1 << 31) + 1;
/// Flags, FLUSH, FUA, TRIM, several connections.
const FLAGS: u16 = 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 8;
const EIO: u32 = 5;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const FUA: u16 = 1;
/// How long the clock sleeps when nothing is due.
const IDLE: Duration = Duration::from_millis(20);

type Stream = Arc<Mutex<UnixStream>>;

/// A request under way.
struct Pending {
    ticket: Ticket,
    cookie: u64,
    stream: Stream,
    /// Of a write: where, and whether a flush comes after it before it is answered.
    write: Option<(u64, u32, bool)>,
    /// Of a read: its place.
    read: Option<(u64, u32)>,
}

struct State {
    disk: SimDisk,
    bufs: BufPool,
    rng: Rng,
    begin: Instant,
    cycle: u64,
    requests: u64,
    due: BTreeMap<(Time, u64), Pending>,
    streams: Vec<UnixStream>,
    lies: Lies,
    /// Pages that were ever written.
    used: BTreeSet<u64>,
    /// What pages held before their newest write, while reads may be stale.
    former: BTreeMap<u64, Vec<u8>>,
    /// The power is going: nothing completes any more, nothing is taken.
    failing: bool,
    over: bool,
}

struct Shared {
    state: Mutex<State>,
    ring: Condvar,
    bytes: u64,
}

/// The device and its server.
pub struct Served {
    shared: Arc<Shared>,
}

type Answers = Vec<(Stream, Vec<u8>)>;

impl Served {
    /// Listens at `socket` for a device of so many bytes.
    pub fn start(socket: &Path, bytes: u64, seed: u64) -> Result<Served> {
        let mut bufs = BufPool::new();
        let none =
            Latency { base: ashlar_core::time::Duration(1000), tail: ashlar_core::time::Duration(1000), tail_ppm: 0 };
        let model = DiskModel {
            size_bytes: bytes + CANARY_PAGES * u64::from(UNIT),
            block_bytes: 512,
            power_loss_protection: false,
            atomic_bytes: 512,
            read: none,
            write: none,
            flush: none,
        };
        let state = State {
            disk: SimDisk::new(model, &mut bufs),
            bufs,
            rng: Rng::new(seed),
            begin: Instant::now(),
            cycle: 0,
            requests: 0,
            due: BTreeMap::new(),
            streams: Vec::new(),
            lies: Lies::default(),
            used: BTreeSet::new(),
            former: BTreeMap::new(),
            failing: false,
            over: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), ring: Condvar::new(), bytes });
        let listener = UnixListener::bind(socket).with_context(|| format!("cannot listen at {}", socket.display()))?;
        let (accepting, ticking) = (Arc::clone(&shared), Arc::clone(&shared));
        std::thread::spawn(move || accept(&accepting, &listener));
        std::thread::spawn(move || tick(&ticking));
        Ok(Served { shared })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    /// How long requests take.
    pub fn set_latency(&self, latency: Latency) {
        self.state().disk.set_latencies(latency, latency, latency);
    }

    /// How often they fail.
    pub fn set_faults(&self, faults: DiskFaults) {
        self.state().disk.set_faults(faults);
    }

    /// What it lies about.
    pub fn set_lies(&self, lies: Lies) {
        self.state().lies = lies;
    }

    /// Nothing completes for a while.
    pub fn stall(&self, length: Duration) {
        let mut state = self.state();
        let until = Time(state.now().0 + u64::try_from(length.as_nanos()).expect("a short while"));
        state.disk.stall(until);
    }

    /// From this moment on nothing is carried out, until the power loss is complete. Whoever waits for an answer learns that
    /// none will come: a process that is being killed cannot end while the kernel waits for its requests.
    pub fn fail(&self) {
        let mut state = self.state();
        state.failing = true;
        for stream in &state.streams {
            // It may have ended.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// The power goes and comes back; sectors that are not what the newest write made them.
    pub fn power_loss(&self, outcome: Outcome) -> u64 {
        let mut state = self.state();
        state.end_connections();
        let State { disk, rng, bufs, .. } = &mut *state;
        let before = disk.counters().sectors_reverted;
        disk.power_loss(outcome, rng, bufs);
        disk.counters().sectors_reverted - before
    }

    /// A new device in its place.
    pub fn replace(&self) {
        let mut state = self.state();
        state.end_connections();
        let State { disk, rng, bufs, .. } = &mut *state;
        disk.power_loss(Outcome::LoseAll, rng, bufs);
        disk.replace();
        state.used.clear();
        state.former.clear();
    }

    /// Damages some pages that were written; how many.
    pub fn spoil(&self, pages: u32, rots: bool) -> u32 {
        let mut state = self.state();
        let end = self.shared.bytes / u64::from(UNIT);
        let written: Vec<u64> = state.disk.written_pages().into_iter().filter(|page| *page < end).collect();
        let State { disk, rng, bufs, .. } = &mut *state;
        let mut count = 0;
        for _ in 0..if written.is_empty() { 0 } else { pages } {
            let page = written[usize::try_from(rng.below(written.len() as u64)).expect("many")];
            if rots {
                count += u32::from(disk.rot(page, rng, bufs));
            } else {
                disk.make_unreadable(page);
                count += 1;
            }
        }
        count
    }

    /// What it did.
    pub fn counters(&self) -> DiskCounters {
        self.state().disk.counters()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let mut state = self.state();
        state.over = true;
        state.end_connections();
    }
}

impl Shared {
    /// A panic elsewhere is told there.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn now(&self) -> Time {
        Time(u64::try_from(self.begin.elapsed().as_nanos()).expect("fits for ages"))
    }

    /// What was under way stays with the device; nobody is answered any more.
    fn end_connections(&mut self) {
        self.cycle += 1;
        self.failing = false;
        self.due.clear();
        for stream in self.streams.drain(..) {
            // It may have ended.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn submit(&mut self, op: DiskOp, mut pending: Pending) {
        let State { disk, rng, .. } = self;
        let (ticket, delay) = disk.submit(rng, op);
        pending.ticket = ticket;
        self.requests += 1;
        let at = Time(self.now().0 + delay.0);
        self.due.insert((at, self.requests), pending);
    }

    /// Completes what is due; when to look again.
    fn complete_due(&mut self, answers: &mut Answers) -> Duration {
        let now = self.now();
        while let Some(((at, number), _)) = self.due.first_key_value().filter(|_| !self.failing) {
            let (at, number) = (*at, *number);
            if at > now {
                return Duration::from_nanos(at.0 - now.0).min(IDLE);
            }
            let pending = self.due.remove(&(at, number)).expect("it was there");
            match self.disk.held_until(now) {
                Some(until) => drop(self.due.insert((until, number), pending)),
                None => self.complete(pending, answers),
            }
        }
        IDLE
    }

    /// Requests that meet a new one are completed first: whoever sends two at a time wants them kept apart.
    fn complete_meeting(&mut self, offset: u64, len: u32, answers: &mut Answers) {
        let meets = |pending: &Pending| {
            pending
                .write
                .or(pending.read.map(|(at, len)| (at, len, false)))
                .is_some_and(|(at, other, _)| at < offset + u64::from(len) && offset < at + u64::from(other))
        };
        let keys: Vec<_> = self.due.iter().filter(|(_, pending)| meets(pending)).map(|(key, _)| *key).collect();
        for key in keys {
            let pending = self.due.remove(&key).expect("it was there");
            self.complete(pending, answers);
        }
    }

    fn complete(&mut self, mut pending: Pending, answers: &mut Answers) {
        if let Some((offset, len, _)) = pending.write.filter(|_| self.lies.stale_read_ppm > 0) {
            self.remember(offset, len);
        }
        let State { disk, rng, bufs, .. } = self;
        let Some(done) = disk.complete(pending.ticket, rng, bufs) else { return };
        let (error, data) = match done {
            DiskDone::Read(Ok(buf)) => {
                (0, self.perhaps_stale(pending.read.expect("it was a read"), buf.bytes().to_vec()))
            }
            DiskDone::Done(Ok(())) => (0, Vec::new()),
            DiskDone::Read(Err(error)) | DiskDone::Done(Err(error)) => (errno(error), Vec::new()),
        };
        if let (0, Some((_, _, true))) = (error, pending.write) {
            pending.write = None;
            return self.submit(DiskOp::Flush { device: Device::Data }, pending);
        }
        answers.push((pending.stream, reply(pending.cookie, error, &data)));
    }

    fn remember(&mut self, offset: u64, len: u32) {
        for page in offset / u64::from(UNIT)..(offset + u64::from(len)).div_ceil(u64::from(UNIT)) {
            let old = self.disk.page(page).map_or_else(|| vec![0; UNIT as usize], <[u8]>::to_vec);
            self.former.insert(page, old);
        }
    }

    fn perhaps_stale(&mut self, (offset, _): (u64, u32), mut data: Vec<u8>) -> Vec<u8> {
        let ppm = self.lies.stale_read_ppm;
        if ppm == 0 || !offset.is_multiple_of(u64::from(UNIT)) || !self.rng.chance(ppm, 1_000_000) {
            return data;
        }
        for (page, bytes) in (offset / u64::from(UNIT)..).zip(data.chunks_exact_mut(UNIT as usize)) {
            if let Some(old) = self.former.get(&page) {
                bytes.copy_from_slice(old);
            }
        }
        data
    }

    /// Whether there is room for a write; notes its pages.
    fn has_room(&mut self, offset: u64, len: u32) -> bool {
        let pages = offset / u64::from(UNIT)..(offset + u64::from(len)).div_ceil(u64::from(UNIT));
        let new = pages.clone().filter(|page| !self.used.contains(page)).count() as u64;
        if self.lies.full_after.is_some_and(|limit| new > 0 && self.used.len() as u64 + new > limit) {
            return false;
        }
        self.used.extend(pages);
        true
    }
}

fn errno(error: DiskError) -> u32 {
    if error == DiskError::NoSpace { ENOSPC } else { EIO }
}

fn reply(cookie: u64, error: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + data.len());
    bytes.extend(REPLY_MAGIC.to_be_bytes());
    bytes.extend(error.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(data);
    bytes
}

fn send(answers: Answers) {
    for (stream, bytes) in answers {
        let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody may be there any more.
        let _ = stream.write_all(&bytes);
    }
}

fn tick(shared: &Shared) {
    loop {
        let mut answers = Vec::new();
        let mut state = shared.state();
        if state.over {
            return;
        }
        let pause = state.complete_due(&mut answers);
        if answers.is_empty() {
            drop(shared.ring.wait_timeout(state, pause));
        } else {
            drop(state);
            send(answers);
        }
    }
}

fn accept(shared: &Arc<Shared>, listener: &UnixListener) {
    for stream in listener.incoming().flatten() {
        let mut state = shared.state();
        if state.over {
            return;
        }
        let Ok(clone) = stream.try_clone() else { continue };
        state.streams.push(clone);
        let cycle = state.cycle;
        drop(state);
        let shared = Arc::clone(shared);
        // Whoever connected may go at any time.
        std::thread::spawn(move || drop(serve(&shared, stream, cycle)));
    }
}

fn receive<const N: usize>(stream: &mut UnixStream) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn serve(shared: &Shared, mut stream: UnixStream, cycle: u64) -> Result<()> {
    let (from, bytes) = negotiate(shared, &mut stream)?;
    let answers = Arc::new(Mutex::new(stream.try_clone()?));
    loop {
        let head: [u8; 28] = receive(&mut stream)?;
        let word = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("four bytes"));
        ensure!(word(0) == REQUEST_MAGIC, "no request");
        let (flags, command) = (u16::from_be_bytes([head[4], head[5]]), u16::from_be_bytes([head[6], head[7]]));
        let cookie = u64::from_be_bytes(head[8..16].try_into()?);
        let (offset, len) = (u64::from_be_bytes(head[16..24].try_into()?), word(24));
        if command == DISCONNECT {
            return Ok(());
        }
        ensure!(command != WRITE || len <= BUF_MAX_BYTES, "a write of {len} bytes");
        let mut data = vec![0; if command == WRITE { len as usize } else { 0 }];
        stream.read_exact(&mut data)?;
        let inside = offset.checked_add(len.into()).is_some_and(|end| end <= bytes);
        let request = Request { command, fua: flags & FUA != 0, cookie, offset: from + offset, len, data };
        let mut done = Vec::new();
        let mut state = shared.state();
        if state.cycle != cycle || state.failing {
            return Ok(());
        }
        let fits = inside && len > 0 && (offset | u64::from(len)).is_multiple_of(512);
        if command != FLUSH && (!fits || command != TRIM && len > BUF_MAX_BYTES) {
            done.push((Arc::clone(&answers), reply(cookie, EINVAL, &[])));
        } else {
            begin(&mut state, request, &answers, &mut done);
        }
        drop(state);
        shared.ring.notify_one();
        send(done);
    }
}

struct Request {
    command: u16,
    fua: bool,
    cookie: u64,
    offset: u64,
    len: u32,
    data: Vec<u8>,
}

fn begin(state: &mut State, request: Request, stream: &Stream, done: &mut Answers) {
    let Request { command, fua, cookie, offset, len, data } = request;
    let device = Device::Data;
    let stream = Arc::clone(stream);
    let mut pending = Pending { ticket: Ticket(0), cookie, stream, write: None, read: None };
    match command {
        READ => {
            state.complete_meeting(offset, len, done);
            pending.read = Some((offset, len));
            state.submit(DiskOp::Read { device, offset, len }, pending);
        }
        WRITE if !state.has_room(offset, len) => done.push((pending.stream, reply(cookie, ENOSPC, &[]))),
        WRITE => {
            state.complete_meeting(offset, len, done);
            pending.write = Some((offset, len, fua && !state.lies.flush));
            let mut buf = state.bufs.alloc(len);
            buf.bytes_mut().copy_from_slice(&data);
            let data = state.bufs.freeze(buf);
            state.submit(DiskOp::Write { device, offset, data }, pending);
        }
        FLUSH if state.lies.flush => done.push((pending.stream, reply(cookie, 0, &[]))),
        FLUSH => state.submit(DiskOp::Flush { device }, pending),
        TRIM => {
            state.complete_meeting(offset, len, done);
            pending.write = Some((offset, len, false));
            state.submit(DiskOp::Discard { device, offset, len: len.into() }, pending);
        }
        _ => done.push((pending.stream, reply(cookie, EINVAL, &[]))),
    }
}

/// Where the export begins on the device, and its bytes.
fn negotiate(shared: &Shared, stream: &mut UnixStream) -> Result<(u64, u64)> {
    stream.write_all(b"NBDMAGICIHAVEOPT")?;
    stream.write_all(&3u16.to_be_bytes())?;
    let _flags: [u8; 4] = receive(stream)?;
    loop {
        ensure!(u64::from_be_bytes(receive(stream)?) == OPTION_MAGIC, "no option");
        let (option, len) = (u32::from_be_bytes(receive(stream)?), u32::from_be_bytes(receive(stream)?));
        ensure!(len < 1 << 16, "an option of {len} bytes");
        let mut data = vec![0; len as usize];
        stream.read_exact(&mut data)?;
        let name = match option {
            EXPORT_NAME => &data[..],
            INFO | GO if data.len() >= 4 => {
                let len = u32::from_be_bytes(data[..4].try_into()?) as usize;
                data.get(4..4 + len).unwrap_or_default()
            }
            _ => {
                option_reply(stream, option, UNSUPPORTED, &[])?;
                continue;
            }
        };
        let place =
            if name == CANARY.as_bytes() { (shared.bytes, CANARY_PAGES * u64::from(UNIT)) } else { (0, shared.bytes) };
        let size = [&place.1.to_be_bytes()[..], &FLAGS.to_be_bytes()].concat();
        if option == EXPORT_NAME {
            stream.write_all(&size)?;
            return Ok(place);
        }
        option_reply(stream, option, SIZE, &[&[0, 0], &size[..]].concat())?;
        option_reply(stream, option, ACK, &[])?;
        if option == GO {
            return Ok(place);
        }
    }
}

fn option_reply(stream: &mut UnixStream, option: u32, kind: u32, data: &[u8]) -> Result<()> {
    let mut bytes = OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
    bytes.extend(option.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(u32::try_from(data.len())?.to_be_bytes());
    bytes.extend(data);
    Ok(stream.write_all(&bytes)?)
}
