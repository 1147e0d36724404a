//! The network: which host reaches which, how long a message takes, and what a connection does about it.
//!
//! A connection behaves as TCP does: messages of one direction arrive in order or not at all; what is sent into a
//! broken path waits there (the kernel sends it again) and arrives when the path heals, unless the connection was given
//! up before.

use ashlar_core::rng::Rng;
use ashlar_core::time::{Duration, Time};
use std::collections::{BTreeSet, VecDeque};

/// A place in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub u32);

/// How long messages take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkModel {
    /// Shortest delay of one direction; the usual is up to twice that.
    pub base: Duration,
    /// Longest delay.
    pub tail: Duration,
    /// Messages in a million that take longer than usual.
    pub tail_ppm: u64,
    /// Time for each KiB.
    pub per_kib: Duration,
    /// How long a kernel tries to get data through before it gives a connection up, at least; at most three times that.
    pub give_up: Duration,
    /// How long an attempt to connect waits for an answer.
    pub connect_timeout: Duration,
}

impl LinkModel {
    /// Draws the delay of a message of so many bytes.
    pub fn delay(&self, rng: &mut Rng, bytes: u64) -> Duration {
        // A longest delay that is no longer than the shortest makes it constant.
        let spread = rng.below(self.base.0.max(1)).min(self.tail.0.saturating_sub(self.base.0));
        let usual = self.base.0 + spread + self.per_kib.0 * (bytes / 1024);
        if self.tail_ppm > 0 && rng.chance(self.tail_ppm, 1_000_000) {
            return Duration(rng.between(usual, self.tail.0.max(usual)));
        }
        Duration(usual)
    }

    /// Draws after how long data that do not get through end the connection.
    pub fn give_up(&self, rng: &mut Rng) -> Duration {
        Duration(rng.between(self.give_up.0, 3 * self.give_up.0))
    }
}

/// Which directed paths between hosts are cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fabric {
    cut: BTreeSet<(HostId, HostId)>,
}

impl Fabric {
    /// Whether packets get from one host to another. A host always reaches itself.
    pub fn open(&self, from: HostId, to: HostId) -> bool {
        from == to || !self.cut.contains(&(from, to))
    }

    /// Packets from `from` to `to` vanish.
    pub fn cut_one_way(&mut self, from: HostId, to: HostId) {
        self.cut.insert((from, to));
    }

    /// Packets between the two vanish.
    pub fn cut(&mut self, a: HostId, b: HostId) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// Every path between a host of one side and a host of the other is cut.
    pub fn partition(&mut self, one: &[HostId], other: &[HostId]) {
        for a in one {
            for b in other {
                self.cut(*a, *b);
            }
        }
    }

    /// All paths are open again.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// The paths between the two are open again.
    pub fn heal_between(&mut self, a: HostId, b: HostId) {
        self.cut.remove(&(a, b));
        self.cut.remove(&(b, a));
    }

    /// Whether no path is cut.
    pub fn is_whole(&self) -> bool {
        self.cut.is_empty()
    }
}

/// One direction of a connection: messages under way, in order.
///
/// Each message has one delivery event. If the path is broken when the event comes, the message stays here as *late*;
/// when the path heals, [`Pipe::late`] deliveries are due.
#[derive(Clone, Debug)]
pub struct Pipe<T> {
    queue: VecDeque<T>,
    last_arrival: Time,
    late: usize,
}

impl<T> Default for Pipe<T> {
    fn default() -> Self {
        Pipe { queue: VecDeque::new(), last_arrival: Time(0), late: 0 }
    }
}

impl<T> Pipe<T> {
    /// Sends a message; says when it arrives: after everything sent before.
    pub fn send(&mut self, now: Time, delay: Duration, message: T) -> Time {
        self.queue.push_back(message);
        self.next_arrival(now, delay)
    }

    /// When something sent now arrives at the earliest.
    pub fn next_arrival(&mut self, now: Time, delay: Duration) -> Time {
        self.last_arrival = self.last_arrival.max(now + delay);
        self.last_arrival
    }

    /// A delivery is due: the next message, or `None` if the path is not open (the message stays, late) or the
    /// connection lost its messages meanwhile.
    pub fn deliver(&mut self, open: bool) -> Option<T> {
        if open && self.late == 0 {
            return self.queue.pop_front();
        }
        self.late = (self.late + 1).min(self.queue.len());
        None
    }

    /// The path is open again: how many deliveries are to be scheduled anew.
    pub fn take_late(&mut self) -> usize {
        std::mem::take(&mut self.late)
    }

    /// Whether messages wait for the path to heal.
    pub fn is_stuck(&self) -> bool {
        self.late > 0
    }

    /// Whether a message is under way.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The connection is dead: what was under way is lost.
    pub fn lose_all(&mut self) {
        self.queue.clear();
        self.late = 0;
    }

    /// Only the first few of the messages under way will still arrive (a reset in the middle).
    pub fn lose_after(&mut self, kept: usize) {
        self.queue.truncate(kept);
        self.late = self.late.min(self.queue.len());
    }

    /// Messages under way.
    pub fn len(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_never_overtake() {
        let mut pipe = Pipe::default();
        let slow = pipe.send(Time(0), Duration(100), 'a');
        let quick = pipe.send(Time(1), Duration(5), 'b');
        assert!(quick >= slow);
        assert_eq!(pipe.deliver(true), Some('a'));
        assert_eq!(pipe.deliver(true), Some('b'));
    }

    #[test]
    fn a_broken_path_holds_messages_back_in_order() {
        let mut pipe = Pipe::default();
        pipe.send(Time(0), Duration(1), 1);
        pipe.send(Time(0), Duration(1), 2);
        pipe.send(Time(0), Duration(1), 3);
        assert_eq!(pipe.deliver(false), None);
        // The path opens, but nothing passes the one that is late.
        assert_eq!(pipe.deliver(true), None);
        assert_eq!(pipe.take_late(), 2);
        let got: Vec<_> = (0..3).filter_map(|_| pipe.deliver(true)).collect();
        assert_eq!(got, [1, 2, 3]);
    }

    #[test]
    fn a_dead_connection_delivers_nothing() {
        let mut pipe = Pipe::default();
        pipe.send(Time(0), Duration(1), 1);
        pipe.send(Time(0), Duration(1), 2);
        pipe.lose_after(1);
        assert_eq!((pipe.deliver(true), pipe.deliver(true)), (Some(1), None));
        assert_eq!(pipe.take_late(), 0);
    }

    #[test]
    fn partitions_cut_both_ways_between_the_sides_only() {
        let [a, b, c] = [HostId(1), HostId(2), HostId(3)];
        let mut fabric = Fabric::default();
        fabric.partition(&[a, b], &[c]);
        assert!(fabric.open(a, b) && !fabric.open(a, c) && !fabric.open(c, b) && fabric.open(c, c));
        fabric.heal_between(a, c);
        assert!(fabric.open(c, a) && !fabric.open(c, b));
        fabric.heal();
        fabric.cut_one_way(a, b);
        assert!(!fabric.open(a, b) && fabric.open(b, a));
    }
}
