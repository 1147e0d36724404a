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

const BILLION: i64 = 1_000_000_000;

impl Clock {
    /// A clock that shows the world's time.
    pub const EXACT: Clock = Clock { origin: 0, drift_ppb: 0 };

    /// What it shows.
    pub fn local(&self, world: Time) -> Time {
        let elapsed = world.0.checked_add_signed(scaled(world.0, self.drift_ppb, BILLION));
        Time(self.origin.saturating_add(elapsed.expect("clocks never run backwards")))
    }

    /// The first time of the world at which it shows `local` or later.
    pub fn world(&self, local: Time) -> Time {
        let Some(elapsed) = local.0.checked_sub(self.origin) else { return Time(0) };
        let ahead = scaled(elapsed, self.drift_ppb, BILLION + self.drift_ppb);
        let mut world = Time(elapsed.saturating_add_signed(-ahead));
        // Rounding may have put it a little too late, or too early.
        while world.0 > 0 && self.local(Time(world.0 - 1)) >= local {
            world.0 -= 1;
        }
        while self.local(world) < local && world.0 < u64::MAX / 2 {
            world.0 += 1;
        }
        world
    }
}

/// `time * part / whole`, rounded down. Runs are short enough for 64 bits nearly always, and those are much faster.
fn scaled(time: u64, part: i64, whole: i64) -> i64 {
    match i64::try_from(time).ok().and_then(|time| time.checked_mul(part)) {
        Some(product) => product.div_euclid(whole),
        None => {
            let exact = (i128::from(time) * i128::from(part)).div_euclid(i128::from(whole));
            i64::try_from(exact).unwrap_or(i64::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn world_is_the_inverse_of_local() {
        for drift_ppb in [-200_000, -1, 0, 1, 77_777, 200_000] {
            let clock = Clock { origin: 123_456_789, drift_ppb };
            for local in [0, 123_456_788, 123_456_789, 123_456_790, 9_999_999_999, 3_600_000_000_000, 1 << 50] {
                let world = clock.world(Time(local));
                assert!(clock.local(world) >= Time(local));
                assert!(world.0 == 0 || clock.local(Time(world.0 - 1)) < Time(local));
            }
        }
    }
}
