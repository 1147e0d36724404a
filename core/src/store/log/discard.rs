//! Of which free blocks the device is told, and when: what it does not know to be unused it carries along.
//!
//! **A discard is a write of unknown bytes to free blocks.** It needs what such a write needs, and nothing else: a block is free
//! only when no opening, after any power loss, could choose a state that owns it ([`super::blocks`]), and a block that is
//! being discarded is not given to anybody until the device has answered. Nothing ever depends on what a discarded block
//! reads as, nor on whether the device took the hint.
//!
//! ```text
//! freed -> young -- a sweep passes --> stale -- the next sweep passes --> under way -- answered --> told
//!            \________________________________/ given to somebody: forgotten
//! ```
//!
//! A sweep goes over all blocks in their order, so that neighbours go in one request, and begins a rest after the one before
//! ended: a block that is soon used again costs nothing. One request is under way at a time, and between two of them there is
//! a pause, nine times as long as the first one took at least: the device is busy with them for a tenth of the time. Blocks
//! that are free when the store opens are stale: whether the device knows of them is not on record.

use crate::planted::{Bug, planted};
use crate::time::{Duration, Time};

/// Most bytes in a request: some devices take long over large ones, and these blocks are not to be had meanwhile.
const REQUEST_BYTES: u64 = 16 << 20;
/// How much longer than a request the pause behind it is.
const PAUSE_SHARE: u64 = 9;
/// Words of 64 blocks looked at in a round.
const LOOKS: usize = 1024;

/// How eager a store is to tell its device of free blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Discarding {
    /// How long a block has been free by then, at least.
    pub rest: Duration,
    /// The shortest pause between two requests.
    pub pause: Duration,
}

impl Discarding {
    /// A hundred requests a second at most; what is overwritten soon is left alone.
    pub const USUAL: Discarding = Discarding { rest: Duration::secs(10), pause: Duration::millis(10) };
}

/// Where it is.
#[derive(Clone, Copy, Debug)]
enum Sweep {
    /// Nothing is free that the device may not know of.
    Idle,
    /// The next one begins then.
    Resting(Time),
    /// It goes on with this block.
    At(u32),
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Discards {
    eagerness: Discarding,
    total: u32,
    /// Blocks in a request, at most.
    most: u32,
    /// Free blocks that the device may hold something of, since before the sweep.
    stale: Bits,
    /// Those that became free since a sweep passed them.
    young: Bits,
    /// How many both are.
    known: u32,
    sweep: Sweep,
    /// No request before then.
    next_at: Time,
    under_way: Option<(u32, u32, Time)>,
}

impl Discards {
    /// Of so many blocks; `stale` are free, and whether the device was told is not known.
    pub fn new(eagerness: Discarding, total: u32, block_bytes: u32, stale: impl Iterator<Item = u32>) -> Self {
        let most = u32::try_from(REQUEST_BYTES / u64::from(block_bytes)).unwrap_or(u32::MAX).max(1);
        let mut bits = Bits::new(total);
        let mut known = 0;
        for block in stale {
            bits.set(block);
            known += 1;
        }
        let young = Bits::new(total);
        let (sweep, next_at, under_way) = (Sweep::Idle, Time(0), None);
        Discards { eagerness, total, most, stale: bits, young, known, sweep, next_at, under_way }
    }

    /// The block became free.
    pub fn freed(&mut self, block: u32) {
        self.young.set(block);
        self.known += 1;
    }

    /// The block is given to somebody, who will write it.
    pub fn taken(&mut self, block: u32) {
        self.known -= u32::from(self.stale.clear(block)) + u32::from(self.young.clear(block));
    }

    /// How many blocks are under way.
    pub fn under_way(&self) -> u32 {
        self.under_way.map_or(0, |(_, count, _)| count)
    }

    /// Whether nobody may have the block yet.
    pub fn holds(&self, block: u32) -> bool {
        self.under_way.is_some_and(|(first, count, _)| (first..first + count).contains(&block))
    }

    /// The next request, `most` blocks at most: the first block and their number. They are under way from now on.
    pub fn next(&mut self, now: Time, most: u32) -> Option<(u32, u32)> {
        if self.under_way.is_some() || now < self.next_at {
            return None;
        }
        if most == 0 {
            // All that is free is needed.
            self.next_at = now + self.eagerness.rest.max(self.eagerness.pause);
            return None;
        }
        let mut at = match self.sweep {
            Sweep::At(block) => block,
            Sweep::Resting(until) if until <= now => 0,
            Sweep::Resting(_) => return None,
            Sweep::Idle => {
                self.rest(now);
                return None;
            }
        };
        let range = self.take_range(&mut at, most.min(self.most));
        self.sweep = Sweep::At(at);
        if at == self.total {
            self.rest(now);
        }
        let Some((first, count)) = range else {
            self.next_at = now + self.eagerness.pause;
            return None;
        };
        self.under_way = Some((first, count, now));
        range
    }

    /// No sweep is under way any more.
    fn rest(&mut self, now: Time) {
        self.sweep = if self.known == 0 { Sweep::Idle } else { Sweep::Resting(now + self.eagerness.rest) };
    }

    /// The first stale blocks from `at` on that lie side by side, so many at most; `at` moves behind them.
    fn take_range(&mut self, at: &mut u32, most: u32) -> Option<(u32, u32)> {
        let mut range = None;
        for _ in 0..LOOKS {
            if *at == self.total {
                break;
            }
            let (word, bit) = Bits::place(*at);
            let rest = self.stale.words[word] >> bit;
            let left = 64 - bit;
            let (skip, run) = match range {
                None => (rest.trailing_zeros().min(left), 0),
                Some((_, count)) => (0, rest.trailing_ones().min(left).min(most - count)),
            };
            if let Some((_, count)) = &mut range {
                (*at..*at + run).for_each(|block| self.known -= u32::from(self.stale.clear(block)));
                *count += run;
            }
            *at = (*at + skip + run).min(self.total);
            if skip + run == left || *at == self.total {
                // Behind the sweep: what became free meanwhile is for the next one.
                self.stale.words[word] |= std::mem::take(&mut self.young.words[word]);
            }
            match range {
                None if skip < left => range = Some((*at, 0)),
                Some((_, count)) if run < left || count == most => break,
                _ => {}
            }
        }
        range.filter(|(_, count)| *count > 0)
    }

    /// The device answered.
    pub fn end(&mut self, now: Time) -> Option<(u32, u32)> {
        let (first, count, since) = self.under_way.take()?;
        let pause = Duration(now.since(since).0.saturating_mul(PAUSE_SHARE));
        self.next_at = now + pause.max(self.eagerness.pause);
        Some((first, count))
    }

    /// When it goes on, if nothing else happens.
    pub fn deadline(&self) -> Option<Time> {
        if self.under_way.is_some() {
            return None;
        }
        match self.sweep {
            Sweep::Idle => (self.known > 0).then_some(self.next_at),
            Sweep::Resting(until) => Some(self.next_at.max(until)),
            Sweep::At(_) => Some(self.next_at),
        }
    }

    /// Panics if it knows of a block that is not free.
    pub fn check(&self, is_free: impl Fn(u32) -> bool) {
        let both = |block: &u32| self.stale.get(*block) || self.young.get(*block);
        let known: Vec<u32> = (0..self.total).filter(both).collect();
        assert_eq!(known.len(), self.known as usize, "blocks to be discarded");
        let under_way = (0..self.total).filter(|block| self.holds(*block) && !planted(Bug::StoreDiscardInUse));
        for block in known.iter().copied().chain(under_way) {
            assert!(is_free(block), "block {block} is to be discarded, and not free");
        }
    }
}

/// A bit for each block.
#[derive(Clone, Debug)]
struct Bits {
    words: Vec<u64>,
}

impl Bits {
    fn new(blocks: u32) -> Bits {
        Bits { words: vec![0; blocks.div_ceil(64) as usize] }
    }

    fn place(block: u32) -> (usize, u32) {
        ((block / 64) as usize, block % 64)
    }

    fn get(&self, block: u32) -> bool {
        let (word, bit) = Bits::place(block);
        self.words[word] >> bit & 1 == 1
    }

    fn set(&mut self, block: u32) {
        let (word, bit) = Bits::place(block);
        self.words[word] |= 1 << bit;
    }

    /// Whether it was set.
    fn clear(&mut self, block: u32) -> bool {
        let was_set = self.get(block);
        let (word, bit) = Bits::place(block);
        self.words[word] &= !(1 << bit);
        was_set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(0);
    const EAGER: Discarding = Discarding { rest: Duration(0), pause: Duration(0) };

    /// All requests of one sweep.
    fn sweep(discards: &mut Discards, most: u32) -> Vec<(u32, u32)> {
        let mut found = Vec::new();
        for _ in 0..1000 {
            found.extend(discards.next(NOW, most));
            discards.end(NOW);
            if matches!(discards.sweep, Sweep::Resting(_) | Sweep::Idle) && !found.is_empty() {
                break;
            }
        }
        found
    }

    #[test]
    fn neighbours_go_in_one_request_across_words_and_no_larger_than_asked() {
        let free = [0, 1, 2, 62, 63, 64, 65, 66, 127, 128, 199];
        let new = || Discards::new(EAGER, 200, 4096, free.into_iter());
        assert_eq!(sweep(&mut new(), 100), [(0, 3), (62, 5), (127, 2), (199, 1)]);
        assert_eq!(sweep(&mut new(), 2), [(0, 2), (2, 1), (62, 2), (64, 2), (66, 1), (127, 2), (199, 1)]);
        let mut all = Discards::new(EAGER, 200, 4096, 0..200);
        assert_eq!((sweep(&mut all, 1000), all.known), (vec![(0, 200)], 0));
        let mut large = Discards::new(EAGER, 200, 4 << 20, 0..200);
        assert_eq!(large.next(NOW, 1000), None);
        assert_eq!(large.next(NOW, 1000), Some((0, 4)), "16 MiB");
    }

    #[test]
    fn what_is_used_again_is_not_discarded() {
        let mut discards = Discards::new(EAGER, 130, 4096, 0..3);
        discards.taken(1);
        discards.freed(129);
        discards.freed(70);
        discards.taken(70);
        assert_eq!(sweep(&mut discards, 9), [(0, 1), (2, 1)]);
        assert_eq!(sweep(&mut discards, 9), [(129, 1)]);
        assert_eq!((discards.known, discards.deadline()), (0, None));
    }

    #[test]
    fn a_block_rests_before_and_the_device_after() {
        let eagerness = Discarding { rest: Duration::secs(10), pause: Duration::millis(10) };
        let mut discards = Discards::new(eagerness, 10, 4096, std::iter::empty());
        discards.freed(5);
        let mut now = Time(0);
        while discards.next(now, 9).is_none() {
            now = now.max(discards.deadline().expect("something is to be told")) + Duration(1);
        }
        assert!(now >= Time(0) + eagerness.rest, "{now:?}");
        assert_eq!((discards.under_way(), discards.holds(5), discards.deadline()), (1, true, None));
        discards.freed(7);
        let answered = now + Duration::secs(2);
        assert_eq!(discards.end(answered), Some((5, 1)));
        assert_eq!(discards.deadline(), Some(answered + Duration::secs(18)));
    }
}
