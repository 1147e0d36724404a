//! Histories as Jepsen writes them (EDN), for checkers of others.
//!
//! Each block is a key of its own: an operation on several blocks becomes one on each, with the value `[key value]` that
//! Jepsen's independent keys have. A process has one operation at a time, and none after one whose end is unknown: the
//! blocks of an operation, and what follows an unknown end, get process numbers of their own. What was never written, and
//! what was discarded, is 0, which is a value as others are: registers begin with it, and a read of zeroes where something
//! was written is lost data. README.md has the vocabulary.

use super::{Log, Outcome};
use crate::writers::Promise;
use ashlar_sim::check::history::{Block, What, tag};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Whether each block of a run is a register: only where every answered write is durable. What an unflushed write may lose
/// in a power cut has no name in these histories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registers {
    /// It is.
    Yes,
    /// Answered writes may be lost before a flush.
    UntilFlushed,
}

impl Registers {
    /// Of a pool that promises this before a flush.
    pub fn of(promise: Promise) -> Registers {
        if promise == Promise::All { Registers::Yes } else { Registers::UntilFlushed }
    }
}

/// The whole history, one map a line; with a comment before it if the model of a register does not apply.
pub fn export(log: &Log, registers: Registers) -> String {
    let head = match registers {
        Registers::Yes => "",
        Registers::UntilFlushed => {
            "; not for the register model: answered writes may be lost in a power cut until a flush, which is not in here\n"
        }
    };
    head.to_string() + &operations(log)
}

fn operations(log: &Log) -> String {
    let mut lines: Vec<(u64, u32, bool, String)> = Vec::new();
    let mut processes = Processes::default();
    for (number, call) in log.calls.iter().enumerate() {
        let id = u32::try_from(number).expect("bounded runs");
        for n in 0..call.blocks {
            let block = Block { index: call.first.index + n, ..call.first };
            let process = processes.of(call.worker, n);
            let (verb, wanted, found) = match &call.what {
                What::Write => ("write", format!("{}", tag(id, block)), None),
                What::Discard => ("write", "0".into(), None),
                What::Read(values) => ("read", "nil".into(), values.get(n as usize)),
            };
            let got = found.map_or_else(|| wanted.clone(), ToString::to_string);
            let key = key(block);
            let line = |kind: &str, value: &str, us: u64, more: &str| {
                format!(
                    "{{:process {process}, :type :{kind}, :f :{verb}, :value [{key} {value}], :time {}{more}}}",
                    us * 1000
                )
            };
            lines.push((call.start, n, true, line("invoke", &wanted, call.began_us, "")));
            let (kind, why) = match &call.outcome {
                Outcome::Ok => ("ok", String::new()),
                Outcome::Fail(why) => ("fail", error(why)),
                Outcome::Info(why) => ("info", error(why)),
                Outcome::Open => ("info", error("the run ended")),
            };
            let (end, at) = (call.end.unwrap_or(u64::MAX), call.ended_us.unwrap_or(call.began_us));
            lines.push((end, n, false, line(kind, &got, at, &why)));
            if kind == "info" {
                processes.ends(call.worker, n);
            }
        }
    }
    lines.sort();
    let mut text = String::from("[");
    for (index, (.., line)) in lines.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{}{{:index {index}, {}", if index == 0 { "" } else { "\n " }, &line[1..]);
    }
    text + "]\n"
}

fn error(why: &str) -> String {
    format!(", :error {:?}", why.replace(['\\', '\n'], " "))
}

/// One number for an image and a block of it.
fn key(block: Block) -> u64 {
    u64::from(block.image) << 32 | u64::from(block.index)
}

/// Numbers of processes.
#[derive(Default)]
struct Processes {
    known: BTreeMap<(u32, u32), u32>,
    next: u32,
}

impl Processes {
    fn of(&mut self, worker: u32, place: u32) -> u32 {
        *self.known.entry((worker, place)).or_insert_with(|| {
            self.next += 1;
            self.next - 1
        })
    }

    fn ends(&mut self, worker: u32, place: u32) {
        self.known.remove(&(worker, place));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Recorder;
    use super::*;
    use ashlar_sim::check::history::{BLOCK, fill};

    const FIRST: Block = Block { image: 1, index: 7 };

    #[test]
    fn blocks_are_keys_and_a_process_ends_with_an_unknown_end() {
        let recorder = Recorder::default();
        let write = recorder.call(3, 0, FIRST, 2, What::Write);
        recorder.end(write, Outcome::Ok);
        let lost = recorder.call(3, 0, FIRST, 1, What::Write);
        recorder.end(lost, Outcome::Info("the connection \"ended\"".into()));
        let read = recorder.call(3, 0, FIRST, 1, What::Read(Vec::new()));
        let mut bytes = vec![0; BLOCK as usize];
        fill(write, FIRST, BLOCK, &mut bytes);
        recorder.read(read, &bytes);
        let text = export(&recorder.take(), Registers::Yes);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 8, "{text}");
        let value = tag(write, FIRST);
        let key = (1u64 << 32) + 7;
        assert!(lines[0].starts_with(&format!(
            "[{{:index 0, :process 0, :type :invoke, :f :write, :value [{key} {value}], :time "
        )));
        assert!(lines[1].contains(&format!(":process 1, :type :invoke, :f :write, :value [{} ", key + 1)), "{text}");
        assert!(lines[5].contains(":process 0, :type :info") && lines[5].contains(":error \"the connection"), "{text}");
        assert!(lines[6].contains(":process 2, :type :invoke, :f :read") && lines[6].contains(&format!("[{key} nil]")));
        assert!(lines[7].contains(&format!(":process 2, :type :ok, :f :read, :value [{key} {value}]")), "{text}");
    }

    /// Knossos takes a read of `nil` in any state: it would hide the loss.
    #[test]
    fn zeroes_that_were_read_are_a_value() {
        let recorder = Recorder::default();
        let write = recorder.call(3, 0, FIRST, 1, What::Write);
        recorder.end(write, Outcome::Ok);
        let read = recorder.call(3, 0, FIRST, 1, What::Read(Vec::new()));
        recorder.read(read, &vec![0; BLOCK as usize]);
        let log = recorder.take();
        let text = export(&log, Registers::Yes);
        let last = text.lines().last().unwrap();
        assert!(last.contains(&format!(":type :ok, :f :read, :value [{} 0]", (1u64 << 32) + 7)), "{text}");
        assert!(export(&log, Registers::UntilFlushed).starts_with("; not for the register model"));
    }
}
