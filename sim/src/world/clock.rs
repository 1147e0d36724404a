//! A node's monotonic clock: an origin of its own, and a rate that is a little wrong.

use ashlar_core::time::Time;

/// How a node's clock relates to the world's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// What it shows at the world's time 0, in nanoseconds.
    pub origin: u64,
    /// How much too fast it runs, in parts per billion; negative: too slow.
    pub drift_ppb: i64,
}

const BILLION: i128 = 1_000_000_000;

impl Clock {
    /// A clock that shows the world's time.
    pub const EXACT: Clock = Clock { origin: 0, drift_ppb: 0 };

    /// What it shows.
    pub fn local(&self, world: Time) -> Time {
        let elapsed = i128::from(world.0) * (BILLION + i128::from(self.drift_ppb)) / BILLION;
        Time(self.origin.saturating_add(u64::try_from(elapsed).expect("clocks never run backwards")))
    }

    /// The first time of the world at which it shows `local` or later.
    pub fn world(&self, local: Time) -> Time {
        let Some(elapsed) = local.0.checked_sub(self.origin) else { return Time(0) };
        let guess = i128::from(elapsed) * BILLION / (BILLION + i128::from(self.drift_ppb));
        let mut world = Time(u64::try_from(guess).unwrap_or(u64::MAX));
        while self.local(world) < local && world.0 < u64::MAX / 2 {
            world.0 += 1;
        }
        world
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn world_is_the_inverse_of_local() {
        for drift_ppb in [-200_000, -1, 0, 1, 77_777, 200_000] {
            let clock = Clock { origin: 123_456_789, drift_ppb };
            for local in [0, 123_456_788, 123_456_789, 123_456_790, 9_999_999_999, 3_600_000_000_000] {
                let world = clock.world(Time(local));
                assert!(clock.local(world) >= Time(local));
                assert!(world.0 == 0 || clock.local(Time(world.0 - 1)) < Time(local));
            }
        }
    }
}
