//! Where the time of operations goes: a histogram for each stage that they pass in an OSD.
//!
//! Owns the counting. Does not own when a stage begins and ends: who sends and who takes the answer says so.
//! Invariant: counting allocates nothing.

use crate::time::Duration;
use serde::{Deserialize, Serialize};

/// Upper ends of the buckets: 2^BUCKET_FIRST microseconds, and twice as much with each.
const BUCKET_FIRST: u32 = 4;
/// The last bucket ends at a minute, and takes all that is longer.
const BUCKETS: usize = 23;

/// How long something took, each time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Histogram {
    /// How often.
    pub count: u64,
    /// All of it together.
    pub sum_us: u64,
    /// How often up to [`Histogram::bound_us`] of the place, and above the one before.
    pub buckets: [u64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { count: 0, sum_us: 0, buckets: [0; BUCKETS] }
    }
}

impl Histogram {
    /// The upper end of a bucket.
    pub fn bound_us(place: usize) -> u64 {
        1 << (BUCKET_FIRST + u32::try_from(place).expect("few buckets"))
    }

    /// Counts one.
    pub fn record(&mut self, took: Duration) {
        let us = took.0 / 1_000;
        self.count += 1;
        self.sum_us += us;
        let place = (0..BUCKETS - 1).find(|place| us <= Histogram::bound_us(*place)).unwrap_or(BUCKETS - 1);
        self.buckets[place] += 1;
    }

    /// What was counted since an earlier state of the same histogram; all of it if that was before a restart.
    pub fn since(&self, before: &Histogram) -> Histogram {
        if before.count > self.count {
            return self.clone();
        }
        let mut buckets = self.buckets;
        buckets.iter_mut().zip(before.buckets).for_each(|(now, then)| *now = now.saturating_sub(then));
        let sum_us = self.sum_us.saturating_sub(before.sum_us);
        Histogram { count: self.count - before.count, sum_us, buckets }
    }

    /// Adds what another one counted.
    pub fn add(&mut self, other: &Histogram) {
        self.count += other.count;
        self.sum_us += other.sum_us;
        self.buckets.iter_mut().zip(other.buckets).for_each(|(sum, more)| *sum += more);
    }

    /// The average.
    pub fn mean_us(&self) -> u64 {
        self.sum_us.checked_div(self.count).unwrap_or(0)
    }

    /// So many of a hundred were not longer, as exactly as the buckets tell.
    pub fn percentile_us(&self, percent: u64) -> u64 {
        let wanted = (self.count * percent).div_ceil(100);
        let mut below = 0;
        for (place, count) in self.buckets.iter().enumerate() {
            if *count > 0 && below + count >= wanted {
                let start = if place == 0 { 0 } else { Histogram::bound_us(place - 1) };
                return start + (Histogram::bound_us(place) - start) * (wanted - below) / count;
            }
            below += count;
        }
        0
    }
}

/// The stages of clients' operations in an OSD.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stages {
    /// Reads, from their arrival at the primary to their answer.
    pub read: Histogram,
    /// Writes, the same.
    pub write: Histogram,
    /// Changes of one member's copy, from the primary to the member and back; its own copy is among them.
    pub member: Histogram,
    /// Reads of the store here.
    pub store_read: Histogram,
    /// Changes of the store here.
    pub store_write: Histogram,
    /// What the store asked of its device.
    pub device: DeviceStages,
}

/// The stages of a client's requests about objects, of which its operations consist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientStages {
    /// From the operation's arrival to the try that was answered: behind other operations, behind writes to the same
    /// bytes, and all that was tried in vain.
    pub queue: Histogram,
    /// From that try to its answer: the network there and back, and the primary.
    pub cluster: Histogram,
}

impl ClientStages {
    /// Each with its name.
    pub fn named(&self) -> [(&'static str, &Histogram); 2] {
        [("queue", &self.queue), ("cluster", &self.cluster)]
    }
}

/// Operations of clients on one pool, from their arrival at the primary to their answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Reads.
    pub read: Histogram,
    /// Writes.
    pub write: Histogram,
}

/// The stages of a store's requests on its device, from when they are given out to when they completed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceStages {
    /// Writes to the log.
    pub log_write: Histogram,
    /// Writes of data: of clients, and of what was compacted or moved.
    pub data_write: Histogram,
    /// Flushes.
    pub flush: Histogram,
    /// Reads.
    pub read: Histogram,
}

impl Stages {
    /// Each with its name.
    pub fn named(&self) -> [(&'static str, &Histogram); 9] {
        [
            ("read", &self.read),
            ("write", &self.write),
            ("member", &self.member),
            ("store_read", &self.store_read),
            ("store_write", &self.store_write),
            ("device_log_write", &self.device.log_write),
            ("device_data_write", &self.device.data_write),
            ("device_flush", &self.device.flush),
            ("device_read", &self.device.read),
        ]
    }

    /// What was counted since an earlier state of the same stages.
    pub fn since(&self, before: &Stages) -> Stages {
        let mut all = self.clone();
        all.each(before, |now, then| *now = now.since(then));
        all
    }

    /// Adds what others counted.
    pub fn add(&mut self, other: &Stages) {
        self.each(other, Histogram::add);
    }

    fn each(&mut self, other: &Stages, mut call: impl FnMut(&mut Histogram, &Histogram)) {
        call(&mut self.read, &other.read);
        call(&mut self.write, &other.write);
        call(&mut self.member, &other.member);
        call(&mut self.store_read, &other.store_read);
        call(&mut self.store_write, &other.store_write);
        call(&mut self.device.log_write, &other.device.log_write);
        call(&mut self.device.data_write, &other.device.data_write);
        call(&mut self.device.flush, &other.device.flush);
        call(&mut self.device.read, &other.device.read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_buckets_and_percentiles_lie_between_their_ends() {
        let mut histogram = Histogram::default();
        (0..98).for_each(|_| histogram.record(Duration::micros(100)));
        histogram.record(Duration::millis(3));
        histogram.record(Duration::secs(100_000));
        assert_eq!((histogram.count, histogram.buckets[3]), (100, 98));
        assert!((64..=128).contains(&histogram.percentile_us(50)));
        assert!((2_048..=4_096).contains(&histogram.percentile_us(99)));
        assert_eq!(histogram.percentile_us(100), Histogram::bound_us(BUCKETS - 1));
        assert_eq!(Histogram::default().percentile_us(99), 0);
    }

    #[test]
    fn each_stage_has_its_name_and_its_difference() {
        let (mut before, mut after) = (Stages::default(), Stages::default());
        before.device.flush.record(Duration::millis(1));
        (0..3).for_each(|_| after.device.flush.record(Duration::millis(1)));
        after.member.record(Duration::millis(2));
        let since = after.since(&before);
        let counts = since.named().map(|(name, histogram)| (name, histogram.count)).into_iter().filter(|(_, n)| *n > 0);
        assert_eq!(counts.collect::<Vec<_>>(), [("member", 1), ("device_flush", 2)]);
        before.add(&since);
        assert_eq!(before, after);
    }

    #[test]
    fn differences_are_of_one_start() {
        let mut before = Histogram::default();
        before.record(Duration::millis(1));
        let mut after = before.clone();
        after.record(Duration::millis(3));
        assert_eq!((after.since(&before).count, after.since(&before).mean_us()), (1, 3_000));
        assert_eq!(before.since(&after), before, "it began anew");
        after.add(&before);
        assert_eq!(after.count, 3);
    }
}
