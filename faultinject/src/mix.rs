//! Which faults a run has, and how often: drawn from its seed.
//!
//! Every kind is a Poisson process with its own mean interval; a quarter of the runs lack any given kind (so that
//! the faults which a bug needs are not drowned by others that hide it).

use ashlar_core::rng::Rng;
use ashlar_core::time::Duration;
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, mean $mean_ms:literal ms,)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum FaultKind {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl FaultKind {
            /// All kinds.
            pub const ALL: &'static [FaultKind] = &[$(FaultKind::$variant,)*];

            /// Its name in reports and configurations.
            pub fn name(self) -> &'static str {
                match self { $(FaultKind::$variant => $name,)* }
            }

            /// The mark of a run in which it happened.
            pub fn mark(self) -> &'static str {
                match self { $(FaultKind::$variant => concat!("fault: ", $name),)* }
            }

            /// Mean interval in a run of usual intensity, in milliseconds: chosen so that a run of ten seconds sees a
            /// few of each, and recovers between some of them.
            pub fn usual_mean_ms(self) -> u64 {
                match self { $(FaultKind::$variant => $mean_ms,)* }
            }
        }
    };
}

kinds! {
    /// A process dies and starts again after a while.
    Crash = "crash", mean 3000 ms,
    /// A host loses power and comes back.
    HostPower = "host-power", mean 5000 ms,
    /// Everything loses power at once.
    TotalPower = "total-power", mean 12000 ms,
    /// A process stops for a while and goes on, its socket buffers full.
    Pause = "pause", mean 4000 ms,
    /// Hosts are split into two groups that do not reach each other.
    Partition = "partition", mean 5000 ms,
    /// One host does not reach another, but is reached by it.
    OneWay = "one-way", mean 6000 ms,
    /// A connection is reset.
    Reset = "reset", mean 1500 ms,
    /// A disk stops answering for a while.
    DiskStall = "disk-stall", mean 5000 ms,
    /// A host does not reach the metadata store.
    MetaCut = "meta-cut", mean 8000 ms,
    /// The metadata store answers nobody.
    MetaOutage = "meta-outage", mean 15000 ms,
    /// Requests to the metadata store end without an answer, carried out or not, now or later.
    MetaUnknown = "meta-unknown", mean 2500 ms,
    /// A session of the metadata store ends while its holder lives.
    LeaseExpiry = "lease-expiry", mean 10000 ms,
    /// A watch is lost.
    WatchLost = "watch-lost", mean 4000 ms,
    /// A page of a disk becomes unreadable.
    LatentError = "latent-error", mean 6000 ms,
    /// Writes and flushes of a disk answer errors for a while.
    DiskError = "disk-error", mean 8000 ms,
    /// A disk is replaced by an empty one.
    Wipe = "wipe", mean 15000 ms,
    /// The administrator changes a weight, so that groups move.
    Reweight = "reweight", mean 7000 ms,
    /// A bit of a page on a disk flips.
    BitRot = "bit-rot", mean 6000 ms,
    /// An OSD dies, and again while it starts.
    CrashInStart = "crash-in-start", mean 9000 ms,
    /// A process is slow to take what it is sent.
    SlowNode = "slow-node", mean 9000 ms,
    /// A connection swallows what one end sends, though its path is open.
    HalfOpen = "half-open", mean 6000 ms,
    /// Bits of messages flip on their way.
    DamagedLinks = "damaged-links", mean 10000 ms,
    /// The metadata store forgets its history.
    MetaCompaction = "meta-compaction", mean 8000 ms,
    /// Watches of the metadata store report changes twice, late.
    WatchRepeats = "watch-repeats", mean 7000 ms,
    /// The administrator asks for another number of groups.
    PgCount = "pg-count", mean 10000 ms,
    /// The administrator changes how many members groups have, or need.
    PoolChange = "pool-change", mean 10000 ms,
    /// An OSD is added, or drained and forgotten.
    Membership = "membership", mean 6000 ms,
    /// A client is fenced off.
    Fence = "fence", mean 12000 ms,
    /// A process is replaced by a newer version of it.
    Upgrade = "upgrade", mean 4000 ms,
    /// A disk is much slower than usual for a while.
    SlowDisk = "slow-disk", mean 9000 ms,
    /// Reads of a disk answer errors for a while.
    ReadError = "read-error", mean 12000 ms,
    /// Writes to a disk answer well, and are lost or go elsewhere.
    Astray = "astray", mean 15000 ms,
    /// A disk answers errors to everything, until it is replaced.
    DeadDisk = "dead-disk", mean 18000 ms,
    /// A disk is replaced by a copy of it as it was some time ago.
    OldDisk = "old-disk", mean 12000 ms,
    /// Two OSDs get each other's disks, for a while.
    SwappedDisks = "swapped-disks", mean 10000 ms,
    /// Flushes of a disk answer well and do nothing. Beyond any promise.
    LyingFlush = "lying-flush", mean 8000 ms,
}

impl FaultKind {
    /// Whether it happens to simulated disks.
    pub fn needs_disks(self) -> bool {
        use FaultKind::*;
        let of_disks = [
            LatentError,
            BitRot,
            DiskError,
            DiskStall,
            SlowDisk,
            ReadError,
            Astray,
            DeadDisk,
            OldDisk,
            SwappedDisks,
            LyingFlush,
        ];
        of_disks.contains(&self)
    }

    /// Whether no pool promises to survive any of it.
    pub fn is_beyond_promises(self) -> bool {
        self == FaultKind::LyingFlush
    }
}

/// The mean interval of each kind of fault; absent kinds do not occur.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FaultMix {
    means: Vec<(FaultKind, Duration)>,
}

impl FaultMix {
    /// No faults.
    pub fn none() -> Self {
        FaultMix::default()
    }

    /// Adds a kind with its mean interval.
    #[must_use]
    pub fn with(mut self, kind: FaultKind, mean: Duration) -> Self {
        self.means.retain(|(other, _)| *other != kind);
        self.means.push((kind, mean));
        self
    }

    /// Takes a kind away.
    #[must_use]
    pub fn without(mut self, kind: FaultKind) -> Self {
        self.means.retain(|(other, _)| *other != kind);
        self
    }

    /// Draws a mix out of `kinds`: each absent with probability 1/4, and its rate between a third and three times the
    /// usual one.
    pub fn draw(rng: &mut Rng, kinds: impl Iterator<Item = FaultKind>) -> Self {
        let mut mix = FaultMix::none();
        for kind in kinds {
            let (absent, percent) = (rng.chance(1, 4), rng.between(33, 300));
            if !absent {
                mix = mix.with(kind, Duration::millis(kind.usual_mean_ms() * percent / 100));
            }
        }
        mix
    }

    /// Whether a kind occurs.
    pub fn has(&self, kind: FaultKind) -> bool {
        self.means.iter().any(|(other, _)| *other == kind)
    }

    /// The kinds that occur.
    pub fn kinds(&self) -> Vec<FaultKind> {
        self.means.iter().map(|(kind, _)| *kind).collect()
    }

    /// Draws when the next fault comes and of which kind it is; `None` if there are none.
    pub fn next(&self, rng: &mut Rng) -> Option<(Duration, FaultKind)> {
        let first = self.means.iter().map(|(kind, mean)| (exponential(rng, *mean), *kind));
        first.min_by_key(|(after, kind)| (*after, *kind))
    }
}

impl fmt::Display for FaultMix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.means.is_empty() {
            return write!(f, "no faults");
        }
        let parts: Vec<_> =
            self.means.iter().map(|(kind, mean)| format!("{} every {} ms", kind.name(), mean.as_millis())).collect();
        write!(f, "{}", parts.join(", "))
    }
}

/// An exponentially distributed duration, in integer arithmetic (the same on every platform): the number of failed
/// trials of probability 1/16 each is geometric with mean 15; each stands for a fifteenth of the mean.
fn exponential(rng: &mut Rng, mean: Duration) -> Duration {
    let mut trials = 0;
    while trials < 150 && !rng.chance(1, 16) {
        trials += 1;
    }
    let step = (mean.0 / 15).max(1);
    Duration(trials * step + rng.below(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_about_right() {
        let mut rng = Rng::new(5);
        let mean = Duration::millis(100);
        let total: u64 = (0..20_000).map(|_| exponential(&mut rng, mean).0).sum();
        let measured = total / 20_000;
        assert!((95_000_000..110_000_000).contains(&measured), "{measured}");
    }

    #[test]
    fn every_kind_is_absent_from_a_quarter_of_the_mixes() {
        let mut rng = Rng::new(6);
        let mixes: Vec<_> = (0..1000).map(|_| FaultMix::draw(&mut rng, FaultKind::ALL.iter().copied())).collect();
        for kind in FaultKind::ALL {
            let with = mixes.iter().filter(|mix| mix.has(*kind)).count();
            assert!((690..810).contains(&with), "{kind:?} in {with} of 1000");
        }
    }

    #[test]
    fn the_next_fault_is_of_a_kind_that_is_there() {
        let mut rng = Rng::new(7);
        let mix = FaultMix::none().with(FaultKind::Crash, Duration::secs(1)).with(FaultKind::Pause, Duration::secs(9));
        let crashes =
            (0..1000).filter(|_| mix.next(&mut rng).is_some_and(|(_, kind)| kind == FaultKind::Crash)).count();
        assert!((850..950).contains(&crashes), "{crashes}");
        assert_eq!(FaultMix::none().next(&mut rng), None);
        assert_eq!(mix.kinds(), [FaultKind::Crash, FaultKind::Pause]);
        assert!(!mix.without(FaultKind::Pause).has(FaultKind::Pause));
    }
}
