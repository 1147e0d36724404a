//! Whether to yield for a moment before sleeping.
//!
//! A wake-up from sleep costs more than the round trip to a peer on a fast network. So while replies of peers are
//! outstanding, the loop lets others run for at most [`LONGEST`] and looks again, before it sleeps. Where that seldom
//! pays (slow network, busy CPU) it is tried ever more rarely.

use ashlar_core::time::Duration;

/// Longest time of yielding: beyond it, sleeping costs less.
pub const LONGEST: Duration = Duration::micros(50);
/// Where it never pays, one chance in so many is tried.
const RAREST: u32 = 64;

/// See the module.
#[derive(Debug)]
pub struct Patience {
    enabled: bool,
    /// One chance in so many is tried.
    every: u32,
    chances: u32,
}

impl Patience {
    /// Off for good, or adaptive.
    pub fn new(enabled: bool) -> Self {
        Patience { enabled, every: 1, chances: 0 }
    }

    /// Whether to yield at this chance.
    pub fn tries(&mut self) -> bool {
        self.chances = (self.chances + 1) % self.every;
        self.enabled && self.chances == 0
    }

    /// How a try ended.
    pub fn learn(&mut self, paid: bool) {
        self.every = if paid { (self.every / 4).max(1) } else { (self.every * 2).min(RAREST) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_rarely_where_it_never_pays_and_always_where_it_does() {
        let mut patience = Patience::new(true);
        let mut tries = 0;
        for _ in 0..6400 {
            if patience.tries() {
                tries += 1;
                patience.learn(false);
            }
        }
        assert!((100..120).contains(&tries), "{tries}");
        let paying = (0..1000)
            .filter(|_| {
                patience.tries() && {
                    patience.learn(true);
                    true
                }
            })
            .count();
        assert!(paying > 850, "{paying}");
        assert!((0..10).all(|_| !Patience::new(false).tries()));
    }
}
