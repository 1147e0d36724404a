//! A write within one object is all or nothing.
//!
//! If a read of an object finds write `W` in one block, then every other block of the object that `W` covers holds `W` or
//! something later. It is torn if such a block holds a value whose every possible writer had ended before `W` started.
//! (That each block by itself is linearizable does not exclude that: the blocks could be at different versions.)

use super::history::{Block, Finding, Record, What};
use super::register::Value;
use std::collections::BTreeMap;

/// What one operation did to one object.
#[derive(Clone, Debug)]
pub struct Piece<'a> {
    /// The operation's number.
    pub id: u32,
    /// The operation.
    pub record: &'a Record,
    /// First block of the piece.
    pub first: Block,
    /// Number of blocks.
    pub blocks: u32,
    /// Of a read that succeeded: what it saw.
    pub values: &'a [Value],
}

impl Piece<'_> {
    fn covers(&self, block: Block) -> bool {
        let range = self.first.index..self.first.index + self.blocks;
        self.first.image == block.image && range.contains(&block.index)
    }
}

/// Checks all reads of more than one block.
pub fn check(pieces: &[Piece<'_>]) -> Vec<Finding> {
    let mut writers: BTreeMap<(u32, Block), &Piece<'_>> = BTreeMap::new();
    let mut discards: BTreeMap<Block, Vec<&Piece<'_>>> = BTreeMap::new();
    for piece in pieces {
        for block in blocks(piece) {
            match piece.record.what {
                What::Write => drop(writers.insert((piece.id, block), piece)),
                What::Discard => discards.entry(block).or_default().push(piece),
                What::Read(_) => {}
            }
        }
    }
    pieces.iter().filter(|piece| piece.values.len() > 1).filter_map(|read| torn(read, &writers, &discards)).collect()
}

fn blocks<'a>(piece: &'a Piece<'_>) -> impl Iterator<Item = Block> + use<'a> {
    (0..piece.blocks).map(|n| Block { index: piece.first.index + n, ..piece.first })
}

fn torn(
    read: &Piece<'_>,
    writers: &BTreeMap<(u32, Block), &Piece<'_>>,
    discards: &BTreeMap<Block, Vec<&Piece<'_>>>,
) -> Option<Finding> {
    let writer = |value: Value, block: Block| {
        let id = u32::try_from(value >> 32).ok()?.checked_sub(1)?;
        writers.get(&(id, block)).copied()
    };
    let mut seen: Vec<&Piece<'_>> =
        blocks(read).zip(read.values).filter_map(|(block, value)| writer(*value, block)).collect();
    seen.sort_by_key(|piece| piece.id);
    seen.dedup_by_key(|piece| piece.id);
    for (block, value) in blocks(read).zip(read.values) {
        let here = writer(*value, block);
        // The latest end of anything that may have left this value.
        let latest = match here {
            Some(piece) => piece.record.end.unwrap_or(u64::MAX),
            None => {
                let ends = discards.get(&block).into_iter().flatten();
                ends.map(|piece| piece.record.end.unwrap_or(u64::MAX)).max().unwrap_or(0)
            }
        };
        let newer = seen.iter().find(|w| w.covers(block) && w.record.start > latest);
        if let Some(newer) = newer {
            let what = format!("torn write: a read saw operation {} in part, and older content beside it", newer.id);
            let ops = [Some(newer.id), here.map(|piece| piece.id), Some(read.id)].into_iter().flatten().collect();
            return Some(Finding { what, block: Some(block), ops });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::history::{BLOCK, History, Layout, fill};
    use super::*;

    const FIRST: Block = Block { image: 0, index: 0 };

    fn two_writes_and_a_read(of_blocks: [u32; 3], overlap: bool) -> Vec<Finding> {
        let mut history = History::default();
        history.set_layout(0, Layout { unit: BLOCK, per_object: 32 });
        let old = history.call(1, FIRST, 3, What::Write);
        if !overlap {
            history.done(old);
        }
        let new = history.call(1, FIRST, 2, What::Write);
        if overlap {
            history.done(old);
        }
        // `new` never returns, so that each block by itself may be seen before or after it.
        assert_eq!((old, new), (0, 1));
        let read = history.call(2, FIRST, 3, What::Read(Vec::new()));
        let mut bytes = vec![0; 3 * BLOCK as usize];
        for (n, op) in of_blocks.into_iter().enumerate() {
            let place = Block { index: n as u32, ..FIRST };
            fill(op, place, BLOCK, &mut bytes[n * BLOCK as usize..(n + 1) * BLOCK as usize]);
        }
        history.read(read, &bytes).expect("whole blocks");
        history.check().0
    }

    #[test]
    fn half_of_a_write_beside_older_content_is_torn() {
        let findings = two_writes_and_a_read([1, 0, 0], false);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].what.starts_with("torn"));
        assert_eq!(findings[0].ops, [1, 0, 2]);
    }

    #[test]
    fn a_whole_write_is_not() {
        assert!(two_writes_and_a_read([1, 1, 0], false).is_empty());
        assert!(two_writes_and_a_read([0, 0, 0], false).is_empty());
    }

    #[test]
    fn writes_that_overlap_in_time_may_be_in_any_order() {
        assert!(two_writes_and_a_read([1, 0, 0], true).is_empty());
    }
}
