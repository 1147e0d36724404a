//! What clients did and saw: recorded while it happens, in the terms of the simulator's checker.
//!
//! Every call gets a number and an instant; its end gets another. Instants are numbers of events, given under one lock, so
//! that the order of two events which touch each other is never in doubt. Beside them stand wall-clock times for people.
//! Numbers of calls are those of the simulator's [`History`], whose tags they are part of: a block says who wrote it.
//!
//! Invariant: whatever is called is recorded before the request leaves, and ended after its answer has arrived.

pub mod edn;

use ashlar_sim::check::history::{Block, Finding, History, Layout, What, value_of};
use ashlar_sim::check::register::{Kind, Op, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

/// How a call ended. README.md says when which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has not.
    Open,
    /// It was answered with success.
    Ok,
    /// It was refused: it did not happen, and never will.
    Fail(String),
    /// Nobody knows whether it happened.
    Info(String),
}

/// One call on blocks.
#[derive(Clone, Debug)]
pub struct Call {
    /// The thread that made it.
    pub worker: u32,
    /// The NBD server that it went to: one client of the cluster.
    pub server: u32,
    /// First block.
    pub first: Block,
    /// Number of blocks.
    pub blocks: u32,
    /// What it does; a read's values, once it is done.
    pub what: What,
    /// A write that is durable when it is answered, by its own wish.
    pub fua: bool,
    /// Its instant.
    pub start: u64,
    /// The instant of its end.
    pub end: Option<u64>,
    /// If it happened at all, then before this instant.
    pub deadline: Option<u64>,
    /// How it ended.
    pub outcome: Outcome,
    /// Microseconds since the beginning.
    pub began_us: u64,
    /// The same of its end.
    pub ended_us: Option<u64>,
}

/// A flush that was answered: what its server had answered before it was sent is durable.
#[derive(Clone, Copy, Debug)]
pub struct Flush {
    /// Which server.
    pub server: u32,
    /// Its instant.
    pub start: u64,
}

/// Everything that happened.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Calls by their numbers.
    pub calls: Vec<Call>,
    /// Flushes that were answered.
    pub flushes: Vec<Flush>,
    /// Instants at which everything lost its power, clients too.
    pub cuts: Vec<u64>,
    /// Blocks of mixed content that were read.
    pub mixed: Vec<Finding>,
    /// How images are divided.
    pub layouts: BTreeMap<u32, Layout>,
    events: u64,
}

impl Log {
    fn instant(&mut self) -> u64 {
        self.events += 1;
        self.events
    }

    /// The history as the simulator has it. Numbers of calls are the same.
    pub fn history(&self) -> History {
        let mut history = History::default();
        self.layouts.iter().for_each(|(image, layout)| history.set_layout(*image, *layout));
        let mut events: Vec<(u64, usize, bool)> = Vec::new();
        for (number, call) in self.calls.iter().enumerate() {
            events.push((call.start, number, true));
            events.extend(call.end.map(|end| (end, number, false)));
        }
        events.sort_unstable();
        for (_, number, starts) in events {
            let call = &self.calls[number];
            let id = u32::try_from(number).expect("bounded runs");
            match (&call.what, &call.outcome) {
                (what, _) if starts => drop(history.call(call.worker, call.first, call.blocks, begun(what))),
                (What::Read(values), Outcome::Ok) if !values.is_empty() => history.returned(id, values.clone()),
                (What::Write | What::Discard, Outcome::Ok) => history.done(id),
                _ => history.failed(id),
            }
        }
        history
    }

    /// What was done to each block, as a register. Refused writes are left out: they must never be seen. A write that may
    /// have happened up to some instant only has that for its end, if anybody saw it; else it says nothing.
    pub fn registers(&self) -> BTreeMap<Block, Vec<Op>> {
        let seen = self.seen();
        let mut blocks: BTreeMap<Block, Vec<Op>> = BTreeMap::new();
        for (number, call) in self.calls.iter().enumerate() {
            if matches!(call.outcome, Outcome::Fail(_)) {
                continue;
            }
            for n in 0..call.blocks {
                let block = Block { index: call.first.index + n, ..call.first };
                let Some(op) = register_op(number, call, n, block, &seen) else { continue };
                blocks.entry(block).or_default().push(op);
            }
        }
        blocks
    }

    /// Values that somebody read.
    pub fn seen(&self) -> BTreeSet<Value> {
        let read = self.calls.iter().filter_map(|call| match &call.what {
            What::Read(values) => Some(values.iter().copied()),
            _ => None,
        });
        read.flatten().collect()
    }

    /// Calls that ended well, were refused, and of which nothing is known.
    pub fn counts(&self) -> [usize; 3] {
        let count = |of: fn(&Outcome) -> bool| self.calls.iter().filter(|call| of(&call.outcome)).count();
        [
            count(|outcome| *outcome == Outcome::Ok),
            count(|outcome| matches!(outcome, Outcome::Fail(_))),
            count(|outcome| matches!(outcome, Outcome::Info(_) | Outcome::Open)),
        ]
    }
}

fn begun(what: &What) -> What {
    match what {
        What::Read(_) => What::Read(Vec::new()),
        other => other.clone(),
    }
}

fn register_op(number: usize, call: &Call, n: u32, block: Block, seen: &BTreeSet<Value>) -> Option<Op> {
    let id = u32::try_from(number).expect("bounded runs");
    let kind = match &call.what {
        What::Write => Kind::Write(ashlar_sim::check::history::tag(id, block)),
        What::Discard => Kind::Write(0),
        What::Read(values) => Kind::Read(*values.get(n as usize)?),
    };
    let is_done = call.outcome == Outcome::Ok;
    let was_seen = matches!(kind, Kind::Write(value) if value != 0 && seen.contains(&value));
    let end = if is_done { call.end } else { call.deadline.filter(|_| was_seen) };
    Some(Op { id, start: call.start, end, kind })
}

/// Records from many threads.
pub struct Recorder {
    log: Mutex<Log>,
    begin: Instant,
}

impl Default for Recorder {
    fn default() -> Self {
        Recorder { log: Mutex::default(), begin: Instant::now() }
    }
}

impl Recorder {
    /// Microseconds since the beginning.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_micros()).expect("fits for ages")
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().expect("nothing panics under this lock")
    }

    /// Says how an image is divided.
    pub fn set_layout(&self, image: u32, layout: Layout) {
        self.log().layouts.insert(image, layout);
    }

    /// A call is about to be made; its number.
    pub fn call(&self, worker: u32, server: u32, first: Block, blocks: u32, what: What) -> u32 {
        let began_us = self.now_us();
        let mut log = self.log();
        let start = log.instant();
        let outcome = Outcome::Open;
        let (fua, end, deadline, ended_us) = (false, None, None, None);
        log.calls.push(Call {
            worker,
            server,
            first,
            blocks,
            what,
            fua,
            start,
            end,
            deadline,
            outcome,
            began_us,
            ended_us,
        });
        u32::try_from(log.calls.len() - 1).expect("bounded runs")
    }

    /// The write will be durable when it is answered.
    pub fn is_fua(&self, number: u32) {
        self.log().calls[number as usize].fua = true;
    }

    /// A call ended.
    pub fn end(&self, number: u32, outcome: Outcome) {
        let now = self.now_us();
        let mut log = self.log();
        let end = log.instant();
        let call = &mut log.calls[number as usize];
        (call.end, call.outcome, call.ended_us) = (Some(end), outcome, Some(now));
    }

    /// A read returned these bytes.
    pub fn read(&self, number: u32, bytes: &[u8]) {
        self.end(number, Outcome::Ok);
        let mut log = self.log();
        let first = log.calls[number as usize].first;
        let unit = log.layouts.get(&first.image).copied().unwrap_or_default().unit as usize;
        let values: Vec<Option<Value>> = bytes.chunks(unit).map(value_of).collect();
        if let Some(place) = values.iter().position(Option::is_none) {
            let index = first.index + u32::try_from(place).expect("a small read");
            let block = Some(Block { index, ..first });
            return log.mixed.push(Finding {
                what: "a block of mixed content was read".into(),
                block,
                ops: vec![number],
            });
        }
        log.calls[number as usize].what = What::Read(values.into_iter().flatten().collect());
    }

    /// The instant of now, for [`Recorder::flushed`].
    pub fn instant(&self) -> u64 {
        self.log().instant()
    }

    /// A flush was answered that was sent at this instant.
    pub fn flushed(&self, server: u32, start: u64) {
        self.log().flushes.push(Flush { server, start });
    }

    /// Everything is off, clients too: whatever is open either happened or never will.
    pub fn cut(&self) {
        let mut log = self.log();
        let now = log.instant();
        log.cuts.push(now);
        settle(&mut log, now, |_| true);
    }

    /// A server's requests are not carried out from now on.
    pub fn fenced(&self, server: u32) {
        let mut log = self.log();
        let now = log.instant();
        settle(&mut log, now, |call| call.server == server);
    }

    /// A copy of all.
    pub fn take(&self) -> Log {
        self.log().clone()
    }
}

/// Calls without a good end happened before `now`, or never will.
fn settle(log: &mut Log, now: u64, of: impl Fn(&Call) -> bool) {
    let open = log.calls.iter_mut().filter(|call| call.outcome != Outcome::Ok && call.deadline.is_none());
    open.filter(|call| of(call)).for_each(|call| call.deadline = Some(now));
}
