//! Rare interleavings that a campaign must meet: marks that the product's code and the simulator set where they happen.
//!
//! A mark that is never hit says that the load or the faults no longer reach what it stands for: then nothing of what was
//! found there before would be found again. Marks cost nothing but where they are hit.

use std::collections::BTreeMap;

/// A campaign of the default scenario of so many seeds hits all of them.
pub const SEEDS: u64 = 2000;

/// Marks that such a campaign must hit.
pub const EXPECTED: &[&str] = &[];

/// Marks that it may miss, with the reason.
pub const RARE: &[(&str, &str)] = &[];

/// The expected ones that were not hit.
pub fn never_hit(hit: &BTreeMap<&'static str, u64>) -> Vec<&'static str> {
    EXPECTED.iter().copied().filter(|name| !hit.contains_key(name)).collect()
}
