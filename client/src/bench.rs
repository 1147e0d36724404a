//! A lean load generator: keeps a number of operations in flight on one image and measures each.
//!
//! It lives inside the driver, directly on the machine: the next operation begins in the call that took the completion
//! of the last, without tasks, channels or wake-ups between them, so that it limits the figures as late as possible.

use crate::Error;
use ashlar_core::buf::Buf;
use ashlar_core::client::{Client as Machine, ClientConfig, Completion, ImageOp, OpError, OpId, OpenImage, Outcome};
use ashlar_core::id::ClientId;
use ashlar_core::io::{Env, Input, Node, PeerId};
use ashlar_core::time::Time;
use ashlar_core::wire::Versions;
use ashlar_core::wire::handshake::Identity;
use ashlar_runtime::driver::{Driver, Setup, Tcp};
use ashlar_runtime::os;
use hdrhistogram::Histogram;
use std::time::Duration;
use tokio::sync::oneshot;

/// Latencies from 1 us to 100 s; what is slower counts as that.
const LATENCY_MAX_NS: u64 = 100_000_000_000;

/// What each operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Reads.
    Read,
    /// Writes, of bytes that do not compress.
    Write,
}

/// Where each operation goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// Anywhere, on multiples of the block.
    Random,
    /// One block after the other, over and over.
    Sequential,
}

/// When no more operations begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// After this time.
    Elapsed(Duration),
    /// After so many operations.
    Operations(u64),
}

/// A load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Load {
    /// What.
    pub kind: Kind,
    /// Where.
    pub pattern: Pattern,
    /// Bytes of each operation, at most 2 MiB and at most the image.
    pub block_bytes: u32,
    /// Operations in flight.
    pub queue_depth: u32,
    /// How long.
    pub until: Until,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Report {
    /// Operations that completed.
    pub operations: u64,
    /// Their bytes.
    pub bytes: u64,
    /// From the first beginning to the last completion.
    pub elapsed: Duration,
    /// Latency of each, in nanoseconds.
    pub latency_ns: Histogram<u64>,
    /// CPU that this thread used meanwhile.
    pub client_cpu: Duration,
}

impl Report {
    /// Operations per second.
    pub fn iops(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// The load under way.
struct Progress {
    image: OpenImage,
    load: Load,
    payload: Buf,
    began: Time,
    cpu: Duration,
    /// When the operations in flight began, by their place in the machine's slab.
    since: Vec<Time>,
    begun: u64,
    in_flight: u32,
    operations: u64,
    latency_ns: Histogram<u64>,
    failed: Option<OpError>,
}

struct Generator {
    machine: Machine,
    load: Load,
    opening: OpId,
    progress: Option<Progress>,
    report: Option<oneshot::Sender<Result<Report, Error>>>,
}

/// Runs a load from this thread. Call it on a current-thread runtime for clean figures.
pub async fn run(seeds: Vec<String>, image: &str, load: Load) -> Result<Report, Error> {
    let random = || os::random_u64().map_err(|_| Error::NoRandomness);
    let config = ClientConfig::new(ClientId(random()?), seeds);
    let identity = Identity { cluster: None, peer: PeerId::Client(config.session), versions: Versions::OURS };
    let (report, receiver) = oneshot::channel();
    let machine = Machine::new(config);
    let node = Generator { machine, load, opening: OpId(0), progress: None, report: Some(report) };
    let driver = Driver::start(node, Tcp, Setup { identity, listener: None, meta: None, seed: random()? });
    driver.with(|node, env| node.opening = node.machine.open_image(env, image));
    let result = receiver.await.map_err(|_| Error::Stopped);
    driver.stop();
    result?
}

impl Generator {
    fn on_completion(&mut self, env: &mut Env<'_>, completion: Completion) {
        match (&mut self.progress, completion.result) {
            (Some(progress), result) => progress.complete(env.now, completion.op, result),
            (None, Ok(Outcome::Opened(image))) => self.begin(env, image),
            (None, Ok(other)) => panic!("opening an image was answered by {other:?}"),
            (None, Err(error)) => self.finish(Err(error.into())),
        }
    }

    fn begin(&mut self, env: &mut Env<'_>, image: OpenImage) {
        if u64::from(self.load.block_bytes) > image.info.size_bytes {
            return self.finish(Err(OpError::OutOfRange.into()));
        }
        let mut payload = env.bufs.alloc(self.load.block_bytes);
        payload.bytes_mut().chunks_mut(8).for_each(|word| {
            word.copy_from_slice(&env.rng.next_u64().to_le_bytes()[..word.len()]);
        });
        let latency_ns = Histogram::new_with_max(LATENCY_MAX_NS, 3).expect("the bounds are valid");
        self.progress = Some(Progress {
            image,
            load: self.load,
            payload: env.bufs.freeze(payload),
            began: env.now,
            cpu: os::thread_cpu(),
            since: Vec::new(),
            begun: 0,
            in_flight: 0,
            operations: 0,
            latency_ns,
            failed: None,
        });
    }

    /// Keeps the queue full. False: nothing was begun.
    fn fill(&mut self, env: &mut Env<'_>) -> bool {
        let Some(progress) = &mut self.progress else { return false };
        let mut begun = false;
        while progress.in_flight < progress.load.queue_depth && progress.goes_on(env.now) {
            progress.begin_one(env, &mut self.machine);
            begun = true;
        }
        begun
    }

    fn finish(&mut self, result: Result<Report, Error>) {
        if let Some(report) = self.report.take() {
            // The caller may have given up.
            let _ = report.send(result);
        }
    }
}

impl Progress {
    fn goes_on(&self, now: Time) -> bool {
        let in_time = match self.load.until {
            Until::Elapsed(limit) => u128::from(now.since(self.began).0) < limit.as_nanos(),
            Until::Operations(limit) => self.begun < limit,
        };
        in_time && self.failed.is_none()
    }

    fn begin_one(&mut self, env: &mut Env<'_>, machine: &mut Machine) {
        let block = u64::from(self.load.block_bytes);
        let blocks = self.image.info.size_bytes / block;
        let offset = block
            * match self.load.pattern {
                Pattern::Random => env.rng.below(blocks),
                Pattern::Sequential => self.begun % blocks,
            };
        let op = match self.load.kind {
            Kind::Read => ImageOp::Read { offset, len: self.load.block_bytes },
            Kind::Write => ImageOp::Write { offset, data: self.payload.clone() },
        };
        let op = machine.submit(env, self.image.id, op).expect("queue depths stay below the machine's limit");
        let place = usize::try_from(op.0 & u64::from(u32::MAX)).expect("32 bits fit");
        if self.since.len() <= place {
            self.since.resize(place + 1, Time(0));
        }
        self.since[place] = env.now;
        self.begun += 1;
        self.in_flight += 1;
    }

    fn complete(&mut self, now: Time, op: OpId, result: Result<Outcome, OpError>) {
        let place = usize::try_from(op.0 & u64::from(u32::MAX)).expect("32 bits fit");
        self.latency_ns.saturating_record(now.since(self.since[place]).0);
        self.in_flight -= 1;
        match result {
            Ok(_) => self.operations += 1,
            Err(error) => self.failed = Some(error),
        }
    }

    fn report(&self, now: Time) -> Result<Report, Error> {
        if let Some(error) = self.failed {
            return Err(error.into());
        }
        Ok(Report {
            operations: self.operations,
            bytes: self.operations * u64::from(self.load.block_bytes),
            elapsed: Duration::from_nanos(now.since(self.began).0),
            latency_ns: self.latency_ns.clone(),
            client_cpu: os::thread_cpu().saturating_sub(self.cpu),
        })
    }
}

impl Node for Generator {
    fn handle(&mut self, env: &mut Env<'_>, input: Input) {
        self.machine.handle(env, input);
    }

    fn end_of_round(&mut self, env: &mut Env<'_>) {
        loop {
            while let Some(completion) = self.machine.next_completion() {
                self.on_completion(env, completion);
            }
            if !self.fill(env) {
                break;
            }
        }
        let idle = self.progress.as_ref().filter(|progress| progress.in_flight == 0 && !progress.goes_on(env.now));
        if let Some(result) = idle.map(|progress| progress.report(env.now)) {
            self.finish(result);
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        self.machine.next_deadline()
    }

    fn check(&self) {
        self.machine.check();
    }
}
