//! The verdict on a history: two checkers, and what must survive when everything lost its power.
//!
//! Owns: what is promised. Each block is a linearizable register ([`ashlar_sim::check`] decides, [`search`] decides again);
//! a write within one object is seen whole; a refused write is never seen; a write whose server was fenced off, or died
//! with everything else, happened before that or never.
//!
//! *After a cut* (everything off, clients too) a block holds its newest durable write, or one that was called later. Durable
//! is what a flush covers that was answered and was sent, through the same server, after the write's answer; and by itself
//! what the pool promises (`immediate_commit`; see [`Promise`]) or the writer asked for (FUA). What the first look after a cut finds
//! stays: it is the register's initial value from then on.

pub mod search;

use crate::history::{Call, Log, Outcome};
use crate::writers::Promise;
use ashlar_sim::check::history::{Block, Finding, What};
use ashlar_sim::check::register::{self, Kind, Op, Value};
use search::{Answer, Model, Timed};
use std::collections::{BTreeMap, BTreeSet};

/// Situations that the second checker looks at for a block before it gives up.
const SEARCH_BUDGET: usize = 300_000;

/// What a history shows.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Broken promises.
    pub findings: Vec<Finding>,
    /// Blocks that were looked at.
    pub blocks: usize,
    /// Of these, too concurrent to decide.
    pub undecided: usize,
    /// Blocks that the second checker decided, too.
    pub confirmed: usize,
    /// Blocks on which the checkers disagree: a bug of ours.
    pub disagreements: Vec<Block>,
}

impl Verdict {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.disagreements.is_empty()
    }
}

/// A register for the second checker.
struct Register;

impl Model for Register {
    type State = Value;
    type Op = Kind;
    fn step(&self, state: &Value, op: &Kind) -> Option<Value> {
        match op {
            Kind::Write(value) => Some(*value),
            Kind::Read(value) => (value == state).then_some(*value),
        }
    }
}

/// Checks everything.
pub fn judge(log: &Log, promise: Promise) -> Verdict {
    let mut verdict = Verdict { findings: log.mixed.clone(), ..Verdict::default() };
    verdict.findings.extend(refused_but_seen(log));
    verdict.findings.extend(log.history().torn());
    let durability = Durability { log, promise };
    for (block, ops) in log.registers() {
        verdict.blocks += 1;
        match durability.check(block, &ops) {
            Ok(Ok(confirmed)) => verdict.confirmed += usize::from(confirmed == Some(true)),
            Ok(Err(broken)) => {
                if broken.confirmed == Some(false) {
                    verdict.disagreements.push(block);
                }
                verdict.confirmed += usize::from(broken.confirmed == Some(true));
                verdict.findings.push(Finding { what: broken.what, block: Some(block), ops: broken.ops });
            }
            Err(Undecided::TooConcurrent) => verdict.undecided += 1,
            Err(Undecided::Disagreement) => verdict.disagreements.push(block),
        }
    }
    verdict
}

fn refused_but_seen(log: &Log) -> Vec<Finding> {
    let refused = |number: &u32| matches!(log.calls[*number as usize].outcome, Outcome::Fail(_));
    let mut findings = Vec::new();
    for (reader, call) in log.calls.iter().enumerate() {
        let What::Read(values) = &call.what else { continue };
        for (n, value) in (0..).zip(values) {
            let writer = u32::try_from(value >> 32).ok().and_then(|id| id.checked_sub(1));
            let writer = writer.filter(|number| (*number as usize) < log.calls.len()).filter(refused);
            let block = Some(Block { index: call.first.index + n, ..call.first });
            let reader = u32::try_from(reader).expect("bounded runs");
            findings.extend(writer.map(|writer| Finding {
                what: format!("write {writer} was refused, and took effect"),
                block,
                ops: vec![writer, reader],
            }));
        }
    }
    findings
}

struct Durability<'a> {
    log: &'a Log,
    promise: Promise,
}

struct Broken {
    what: String,
    ops: Vec<u32>,
    /// Whether the second checker says so, too; `None`: it was not asked or does not know.
    confirmed: Option<bool>,
}

enum Undecided {
    TooConcurrent,
    Disagreement,
}

impl Durability<'_> {
    /// Era by era, with every value that the block may begin with. Whether the second checker agrees.
    fn check(&self, _block: Block, ops: &[Op]) -> Result<Result<Option<bool>, Broken>, Undecided> {
        let mut candidates = BTreeSet::from([0]);
        let (mut from, mut confirmed) = (0, Some(true));
        for to in self.log.cuts.iter().copied().chain([u64::MAX]) {
            let era: Vec<Op> = ops.iter().filter(|op| (from..to).contains(&op.start)).copied().collect();
            let mut possible = Vec::new();
            let (mut why, mut agree) = (None, true);
            for initial in &candidates {
                let first = first(*initial, &era).map_err(|register::TooConcurrent| Undecided::TooConcurrent)?;
                let second = second(*initial, &era);
                agree &= second == Answer::Unknown || (second == Answer::Linearizable) == first.is_ok();
                confirmed = confirmed.filter(|_| second != Answer::Unknown);
                match first {
                    Ok(()) => possible.push(*initial),
                    Err(violation) => why = Some(violation),
                }
            }
            if !agree {
                return Err(Undecided::Disagreement);
            }
            if let (true, Some(violation)) = (possible.is_empty(), why) {
                let what = format!("not linearizable: {}{}", after_cut(from, &candidates, &era), violation.what);
                return Ok(Err(Broken { what, ops: violation.ops, confirmed }));
            }
            candidates = self.left_by(&possible, &era, to);
            from = to;
        }
        Ok(Ok(confirmed))
    }

    /// What a block may hold after an era, which ended at an instant.
    fn left_by(&self, initial: &[Value], era: &[Op], to: u64) -> BTreeSet<Value> {
        let written = |op: &&Op| matches!(op.kind, Kind::Write(_));
        let durable = era.iter().filter(written).filter(|op| self.is_durable(op, to)).map(|op| op.start).max();
        let mut left = BTreeSet::new();
        for op in era.iter().filter(written) {
            // It ended before a durable one began: it was overwritten.
            if durable.is_none_or(|start| op.end.is_none_or(|end| end >= start)) {
                left.extend(if let Kind::Write(value) = op.kind { Some(value) } else { None });
            }
        }
        if durable.is_none() {
            left.extend(initial);
        }
        left
    }

    /// Whether an operation was durable before the power went at an instant.
    fn is_durable(&self, op: &Op, cut: u64) -> bool {
        let call: &Call = &self.log.calls[op.id as usize];
        let Some(end) = call.end.filter(|_| call.outcome == Outcome::Ok) else { return false };
        let layout = self.log.layouts.get(&call.first.image).copied().unwrap_or_default();
        // Discards carry no data. Where the promise depends on it, an object is one block of the pool.
        let carried = if call.what == What::Write { call.blocks } else { 0 };
        let bytes = |blocks: u32| u64::from(blocks) * u64::from(layout.unit);
        let promised = self.promise.covers(bytes(carried), bytes(layout.per_object));
        let mut flushes = self.log.flushes.iter();
        promised || call.fua || flushes.any(|flush| flush.server == call.server && (end..cut).contains(&flush.start))
    }
}

/// What an era began with, if a cut was before it.
fn after_cut(from: u64, candidates: &BTreeSet<Value>, era: &[Op]) -> String {
    let found = era.iter().find_map(|op| if let Kind::Read(value) = op.kind { Some(value) } else { None });
    match found {
        Some(found) if from > 0 => {
            format!("after a power cut it had to hold one of {candidates:x?}, and held {found:x}: ")
        }
        _ => String::new(),
    }
}

/// The simulator's checkers.
fn first(initial: Value, ops: &[Op]) -> Result<Result<(), register::Violation>, register::TooConcurrent> {
    let again = |op: &Op| matches!(op.kind, Kind::Write(value) if value == 0 || value == initial);
    if ops.iter().any(again) { register::check_any(initial, ops) } else { Ok(register::check_unique(initial, ops)) }
}

/// The second checker. What may not have happened and nobody saw is left out.
fn second(initial: Value, ops: &[Op]) -> Answer {
    let read: BTreeSet<Value> =
        ops.iter().filter_map(|op| if let Kind::Read(value) = op.kind { Some(value) } else { None }).collect();
    let matters = |op: &&Op| op.end.is_some() || matches!(op.kind, Kind::Write(value) if read.contains(&value));
    let timed = ops.iter().filter(matters).map(|op| Timed { call: op.start, ret: op.end, op: op.kind });
    search::search(&Register, initial, &timed.collect::<Vec<_>>(), SEARCH_BUDGET)
}

/// Blocks in findings, with the calls that show each: for people.
pub fn by_block(verdict: &Verdict) -> BTreeMap<Block, Vec<u32>> {
    let named = verdict.findings.iter().filter_map(|finding| Some((finding.block?, finding.ops.clone())));
    named.collect()
}

#[cfg(test)]
mod tests;
