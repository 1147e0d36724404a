//! How long to wait before the next try.

use crate::rng::Rng;
use crate::time::Duration;

/// Doubling pauses with jitter, so that clients that lost the same node do not come back in step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    /// First pause.
    pub base: Duration,
    /// Longest pause.
    pub cap: Duration,
}

impl Backoff {
    /// The pause before try number `attempt` (from 0): between half and all of `base * 2^attempt`, at most `cap`.
    pub fn pause(&self, rng: &mut Rng, attempt: u32) -> Duration {
        let full = self.base.0.saturating_mul(1 << attempt.min(20)).min(self.cap.0);
        Duration(rng.between(full / 2, full))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_cap_and_never_to_zero() {
        let backoff = Backoff { base: Duration::millis(10), cap: Duration::millis(100) };
        let mut rng = Rng::new(1);
        for (attempt, full) in [(0, 10), (1, 20), (3, 80), (4, 100), (40, 100)] {
            let pause = backoff.pause(&mut rng, attempt);
            assert!(pause >= Duration::millis(full / 2) && pause <= Duration::millis(full), "{attempt}: {pause:?}");
        }
    }
}
