//! Planted mistakes: each must fail some seed, or the checks are worth nothing.

use super::number;
use crate::planted::{Bug, plant};
use std::panic::{RefUnwindSafe, catch_unwind};

/// Each of these mistakes fails one of so many seeds (or PG_COUNT); PG_PLANT names one of them.
pub fn all_found(bugs: &[Bug], seeds: u64, run: impl Fn(u64) -> Result<(), String> + RefUnwindSafe) {
    let only = std::env::var("PG_PLANT").ok();
    let mut missed = Vec::new();
    for bug in bugs.iter().filter(|bug| only.as_ref().is_none_or(|name| bug.name() == name)) {
        plant(Some(*bug));
        let failure = |seed| catch_unwind(|| run(seed)).unwrap_or_else(|_| Err("panicked".to_owned())).err();
        let found = (0..number("PG_COUNT").unwrap_or(seeds)).find_map(|seed| Some((seed, failure(seed)?)));
        plant(None);
        match found {
            Some((seed, text)) => println!("{}: seed {seed}: {text:.200}", bug.name()),
            None => missed.push(bug.name()),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
