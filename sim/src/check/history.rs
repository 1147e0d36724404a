//! What clients did and saw, block by block.
//!
//! A write fills each of its blocks with a tag of its own (so every value says who wrote it, when and for which block);
//! a discard leaves zeroes. Blocks are 4 KiB; of images of cells, which are written in parts of sectors, 64 bytes. The history is kept per block for the register checkers, and per piece (what one operation did
//! to one object) for the checker of torn writes.

use super::register::{self, Kind, Op, TooConcurrent, Value};
use super::torn::{self, Piece};
use std::collections::BTreeMap;

/// Bytes of a block: the unit of the checkers.
pub const BLOCK: u32 = 4096;
/// Bytes of a cell: the unit in images that are written in parts of sectors. A client that writes a cell writes back the
/// sectors around it, on condition that nobody changed the object meanwhile; without that, other cells would be lost.
pub const CELL: u32 = 64;

/// A block of an image: image number and index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// Which image.
    pub image: u32,
    /// Byte offset / [`BLOCK`].
    pub index: u32,
}

/// The tag that operation `op` writes to a block. Never zero.
pub fn tag(op: u32, block: Block) -> Value {
    (u64::from(op) + 1) << 32 | u64::from(block.image & 0xff) << 24 | u64::from(block.index & 0xff_ffff)
}

/// Fills a buffer with the tags of `op` for the blocks (of so many bytes each) from `first` on.
pub fn fill(op: u32, first: Block, unit: u32, bytes: &mut [u8]) {
    for (n, block) in bytes.chunks_mut(unit as usize).enumerate() {
        let place = Block { index: first.index + u32::try_from(n).expect("a small write"), ..first };
        let word = tag(op, place).to_le_bytes();
        for chunk in block.chunks_exact_mut(8) {
            chunk.copy_from_slice(&word);
        }
    }
}

/// The value of a block, if all of it is alike.
pub fn value_of(block: &[u8]) -> Option<Value> {
    let first: [u8; 8] = block[..8].try_into().expect("a block has words");
    block.chunks_exact(8).all(|chunk| chunk == first).then(|| u64::from_le_bytes(first))
}

/// What an operation does to a range of blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Writes its tags.
    Write,
    /// Leaves zeroes.
    Discard,
    /// Saw these values (empty until it returned).
    Read(Vec<Value>),
}

/// One operation of a client.
#[derive(Clone, Debug)]
pub struct Record {
    /// Who.
    pub client: u32,
    /// First block.
    pub first: Block,
    /// Number of blocks.
    pub blocks: u32,
    /// What.
    pub what: What,
    /// Event at which it was called.
    pub start: u64,
    /// Event at which it succeeded.
    pub end: Option<u64>,
    /// It ended without success; nothing is known of it.
    pub failed: bool,
}

/// All operations of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    records: Vec<Record>,
    /// By image.
    layouts: BTreeMap<u32, Layout>,
    instants: u64,
    /// What clients that are gone were told is done, and nobody was told is durable.
    orphans: Vec<u32>,
    /// When a daemon ended last, with what it had not made durable.
    lost: u64,
}

/// How an image is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of a block: [`BLOCK`] or [`CELL`].
    pub unit: u32,
    /// Blocks of an object.
    pub per_object: u32,
}

impl Default for Layout {
    fn default() -> Self {
        Layout { unit: BLOCK, per_object: u32::MAX }
    }
}

/// A broken promise.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which promise, and how.
    pub what: String,
    /// The block it is about.
    pub block: Option<Block>,
    /// The operations that show it.
    pub ops: Vec<u32>,
}

impl History {
    /// Says how an image is divided.
    pub fn set_layout(&mut self, image: u32, layout: Layout) {
        self.layouts.insert(image, layout);
    }

    /// How an image is divided.
    pub fn layout(&self, image: u32) -> Layout {
        self.layouts.get(&image).copied().unwrap_or_default()
    }

    fn instant(&mut self) -> u64 {
        self.instants += 1;
        self.instants
    }

    /// An operation is called; returns its number.
    pub fn call(&mut self, client: u32, first: Block, blocks: u32, what: What) -> u32 {
        let start = self.instant();
        self.records.push(Record { client, first, blocks, what, start, end: None, failed: false });
        u32::try_from(self.records.len() - 1).expect("bounded runs")
    }

    /// A write or discard succeeded.
    pub fn done(&mut self, op: u32) {
        let end = self.instant();
        self.records[op as usize].end = Some(end);
    }

    /// A read returned these bytes. A block of mixed content is a finding of its own.
    pub fn read(&mut self, op: u32, bytes: &[u8]) -> Result<(), Finding> {
        self.done(op);
        let unit = self.layout(self.records[op as usize].first.image).unit as usize;
        let record = &mut self.records[op as usize];
        let mut values = Vec::with_capacity(record.blocks as usize);
        for (n, block) in bytes.chunks(unit).enumerate() {
            let Some(value) = value_of(block) else {
                let index = record.first.index + u32::try_from(n).expect("a small read");
                let block = Some(Block { index, ..record.first });
                return Err(Finding { what: "a block of mixed content was read".into(), block, ops: vec![op] });
            };
            values.push(value);
        }
        assert_eq!(values.len(), record.blocks as usize, "operation {op} read another length than it asked for");
        record.what = What::Read(values);
        Ok(())
    }

    /// A read returned these values.
    pub fn returned(&mut self, op: u32, values: Vec<Value>) {
        self.done(op);
        self.records[op as usize].what = What::Read(values);
    }

    /// An operation ended without success: it may have happened, or not, or may still.
    pub fn failed(&mut self, op: u32) {
        self.records[op as usize].failed = true;
    }

    /// A client of a lazy pool ends: nobody writes again what it was told is done without being durable, so that is
    /// there until a daemon ends, and may be lost with it.
    pub fn client_ended(&mut self, client: u32) {
        let mine = |record: &Record| record.client == client && record.what == What::Write;
        let flushed = self.records.iter().filter(|r| mine(r) && r.blocks == 0 && r.end.is_some());
        let durable = flushed.map(|flush| flush.start).max().unwrap_or(0);
        let unsynced = |(_, r): &(u32, &Record)| {
            r.client == client && !matches!(r.what, What::Read(_)) && r.end.is_some_and(|end| end > durable)
        };
        let unsynced: Vec<u32> = (0..).zip(&self.records).filter(unsynced).map(|(op, _)| op).collect();
        let (lost, here): (Vec<u32>, Vec<u32>) =
            unsynced.into_iter().partition(|op| self.records[*op as usize].end < Some(self.lost));
        lost.into_iter().for_each(|op| self.unsettle(op));
        self.orphans.extend(here);
    }

    /// A daemon ended that keeps some things only until then.
    pub fn daemon_ended(&mut self) {
        self.lost = self.instant();
        std::mem::take(&mut self.orphans).into_iter().for_each(|op| self.unsettle(op));
    }

    /// What was done may be undone: whether it happened is as unknown as if it had not been answered.
    fn unsettle(&mut self, op: u32) {
        let record = &mut self.records[op as usize];
        (record.end, record.failed) = (None, true);
    }

    /// Operations that neither succeeded nor failed.
    pub fn open(&self) -> Vec<u32> {
        let open = self.records.iter().enumerate().filter(|(_, r)| r.end.is_none() && !r.failed);
        open.map(|(op, _)| u32::try_from(op).expect("bounded runs")).collect()
    }

    /// All operations, by number.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Operations so far.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether nothing was called yet.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The operations on each block.
    fn by_block(&self) -> BTreeMap<Block, Vec<Op>> {
        let mut blocks: BTreeMap<Block, Vec<Op>> = BTreeMap::new();
        for (id, record) in self.records.iter().enumerate() {
            let id = u32::try_from(id).expect("bounded runs");
            for n in 0..record.blocks {
                let block = Block { index: record.first.index + n, ..record.first };
                let kind = match &record.what {
                    What::Write => Kind::Write(tag(id, block)),
                    What::Discard => Kind::Write(0),
                    What::Read(values) => match values.get(n as usize) {
                        Some(value) => Kind::Read(*value),
                        None => continue,
                    },
                };
                blocks.entry(block).or_default().push(Op { id, start: record.start, end: record.end, kind });
            }
        }
        blocks
    }

    /// Checks everything. Returns the findings, and how many blocks were too concurrent to decide.
    pub fn check(&self) -> (Vec<Finding>, u32) {
        let (mut findings, mut undecided) = (Vec::new(), 0);
        for (block, ops) in self.by_block() {
            match check_block(&ops) {
                Ok(Ok(())) => {}
                Ok(Err(violation)) => {
                    let what = format!("not linearizable: {}", violation.what);
                    findings.push(Finding { what, block: Some(block), ops: violation.ops });
                }
                Err(TooConcurrent) => undecided += 1,
            }
        }
        findings.extend(self.torn());
        (findings, undecided)
    }

    /// Writes that were seen in part.
    pub fn torn(&self) -> Vec<Finding> {
        torn::check(&self.pieces())
    }

    /// What is true even where disks forget what they promised to keep: each value that was read was written to that block,
    /// by an operation that had begun.
    pub fn check_origins(&self) -> Result<(), Finding> {
        for (id, record) in (0u32..).zip(&self.records) {
            let What::Read(values) = &record.what else { continue };
            for (index, value) in (record.first.index..).zip(values) {
                let block = Block { index, ..record.first };
                if !self.was_written(*value, block, record) {
                    let what = format!("operation {id} read {value:#x}, which nobody had written there");
                    return Err(Finding { what, block: Some(block), ops: vec![id] });
                }
            }
        }
        Ok(())
    }

    /// Whether an operation wrote its tag to a block, or was to.
    pub fn has_written(&self, op: u32, block: Block) -> bool {
        self.records.get(op as usize).is_some_and(|record| {
            let blocks = record.first.index..record.first.index + record.blocks;
            record.what == What::Write && record.first.image == block.image && blocks.contains(&block.index)
        })
    }

    /// Whether a value is nothing, or what a write that began before a read ended put into a block.
    fn was_written(&self, value: Value, block: Block, read: &Record) -> bool {
        let Some(op) = (value >> 32).checked_sub(1).and_then(|op| u32::try_from(op).ok()) else { return value == 0 };
        let Some(record) = self.records.get(op as usize) else { return false };
        let began = read.end.is_none_or(|end| record.start < end);
        value == tag(op, block) && self.has_written(op, block) && began
    }

    /// What each operation did to each object.
    fn pieces(&self) -> Vec<Piece<'_>> {
        let mut pieces = Vec::new();
        for (id, record) in self.records.iter().enumerate() {
            let per_object = self.layout(record.first.image).per_object;
            let mut done = 0;
            while done < record.blocks {
                let first = Block { index: record.first.index + done, ..record.first };
                let blocks = (per_object - first.index % per_object).min(record.blocks - done);
                let values: &[Value] = match &record.what {
                    What::Read(values) if !values.is_empty() => &values[done as usize..(done + blocks) as usize],
                    _ => &[],
                };
                pieces.push(Piece { id: u32::try_from(id).expect("bounded runs"), record, first, blocks, values });
                done += blocks;
            }
        }
        pieces
    }
}

fn check_block(ops: &[Op]) -> Result<Result<(), register::Violation>, TooConcurrent> {
    let zeroed = ops.iter().any(|op| op.kind == Kind::Write(0));
    if zeroed { register::check_any(0, ops) } else { Ok(register::check_unique(0, ops)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(index: u32) -> Block {
        Block { image: 1, index }
    }

    fn bytes(op: Option<u32>, index: u32, count: u32) -> Vec<u8> {
        let mut bytes = vec![0; (count * BLOCK) as usize];
        if let Some(op) = op {
            fill(op, block(index), BLOCK, &mut bytes);
        }
        bytes
    }

    /// A client writes, flushes, writes again and dies; a daemon ends; what of both is missing then.
    fn after_the_client(missing: u32, daemon_ends: bool) -> usize {
        let mut history = History::default();
        let mut done = |first: u32, blocks: u32| {
            let op = history.call(1, block(first), blocks, What::Write);
            history.done(op);
            op
        };
        let (flushed, _, not) = (done(1, 1), done(0, 0), done(2, 1));
        history.client_ended(1);
        if daemon_ends {
            history.daemon_ended();
        }
        let read = history.call(2, block(1), 2, What::Read(Vec::new()));
        let value = |op: u32, index: u32| if index == missing { 0 } else { tag(op, block(index)) };
        history.returned(read, vec![value(flushed, 1), value(not, 2)]);
        history.check().0.len()
    }

    #[test]
    fn what_nobody_flushed_may_go_with_its_client_and_a_daemon() {
        assert_eq!(after_the_client(2, true), 0);
        assert_eq!(after_the_client(2, false), 1, "nobody had a reason to lose it");
        assert_eq!(after_the_client(1, true), 1, "it was flushed");
        assert_eq!(after_the_client(0, true), 0);
    }

    #[test]
    fn a_correct_history_passes_and_a_lost_block_is_found() {
        let mut history = History::default();
        history.set_layout(1, Layout { unit: BLOCK, per_object: 4 });
        let write = history.call(1, block(2), 4, What::Write);
        history.done(write);
        let read = history.call(2, block(2), 4, What::Read(Vec::new()));
        history.read(read, &bytes(Some(write), 2, 4)).expect("whole blocks");
        assert!(history.check().0.is_empty());
        let read = history.call(2, block(3), 1, What::Read(Vec::new()));
        history.read(read, &bytes(None, 3, 1)).expect("whole blocks");
        let findings = history.check().0;
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].block, Some(block(3)));
    }

    #[test]
    fn a_block_of_two_halves_is_found_at_once() {
        let mut history = History::default();
        let read = history.call(2, block(0), 1, What::Read(Vec::new()));
        let mut mixed = bytes(Some(9), 0, 1);
        mixed[2048..].fill(0);
        assert!(history.read(read, &mixed).is_err());
    }

    #[test]
    fn where_old_values_may_come_back_invented_ones_may_not() {
        let mut history = History::default();
        let old = history.call(1, block(2), 2, What::Write);
        history.done(old);
        let new = history.call(1, block(2), 2, What::Write);
        history.done(new);
        let read = |history: &mut History, bytes: &[u8]| {
            let read = history.call(2, block(2), 2, What::Read(Vec::new()));
            history.read(read, bytes).expect("whole blocks");
            history.check_origins().is_ok()
        };
        assert!(read(&mut history, &bytes(Some(old), 2, 2)) && read(&mut history, &bytes(None, 2, 2)));
        assert!(!history.check().0.is_empty(), "which is no promise of a pool within its budget");
        let later = u32::try_from(history.len()).expect("few") + 1;
        assert!(!read(&mut history.clone(), &bytes(Some(later), 2, 2)), "before it was written");
        assert!(!read(&mut history.clone(), &bytes(Some(new), 3, 2)), "of another block");
    }

    #[test]
    fn discards_are_checked_too() {
        let mut history = History::default();
        let write = history.call(1, block(0), 1, What::Write);
        history.done(write);
        let discard = history.call(1, block(0), 1, What::Discard);
        history.done(discard);
        let read = history.call(2, block(0), 1, What::Read(Vec::new()));
        history.read(read, &bytes(None, 0, 1)).expect("whole blocks");
        assert!(history.check().0.is_empty());
        let read = history.call(2, block(0), 1, What::Read(Vec::new()));
        history.read(read, &bytes(Some(write), 0, 1)).expect("whole blocks");
        assert_eq!(history.check().0.len(), 1, "what was discarded came back");
    }
}
