//! Tests of the tests: each planted mistake of the store is found.

use super::world::{Shape, World};
use super::{Durability, SHAPE, intents};
use crate::planted::{Bug, plant};
use std::panic::catch_unwind;

/// Seeds of each shape within which a bug must be found.
const SEEDS: u64 = 200;

fn shapes() -> [Shape; 10] {
    let flush = Shape { durability: Durability::Flush, ..SHAPE };
    [
        Shape { crashes: 6, ..SHAPE },
        Shape { crashes: 6, ..flush },
        Shape { objects: 10, blocks: 12, depth: 2, crashes: 6, ..SHAPE },
        Shape { separate_log: true, objects: 10, blocks: 24, prepares: false, crashes: 12, ..flush },
        Shape { objects: 8, blocks: 40, depth: 6, crashes: 2, ..SHAPE },
        Shape { objects: 1, blocks: 4, prepares: false, crashes: 3, ..SHAPE },
        Shape { blocks: 60, flaky: 30, crashes: 6, ..SHAPE },
        Shape { overwrites: intents(4096), prepares: false, crashes: 6, ..SHAPE },
        Shape { overwrites: intents(4096), prepares: false, objects: 1, blocks: 4, depth: 6, crashes: 3, ..SHAPE },
        Shape { overwrites: intents(4096), objects: 12, blocks: 24, depth: 2, crashes: 6, ..SHAPE },
    ]
}

/// Runs until something is wrong: how many seeds it took.
fn hunt(bug: Option<Bug>, range: u64) -> Option<u64> {
    let mut seeds = 0;
    let directed: [fn(); 7] = [
        super::faults::a_torn_page_is_void_for_ever,
        super::faults::rot_under_an_intent_takes_nothing_back,
        super::exhaustive::a_snapshot_waits_for_an_intent,
        super::exhaustive::a_tail_is_named_only_once_it_is_in_the_log,
        super::exhaustive::an_overwrite_comes_behind_a_compaction_of_its_unit,
        super::damage::damage_to_the_log_is_mended_before_an_opening_finds_it,
        super::full::a_full_store_can_always_delete_commit_roll_back_and_clean,
    ];
    for directed in directed {
        plant(bug);
        let run = catch_unwind(directed);
        plant(None);
        if run.is_err() {
            return Some(0);
        }
    }
    for seed in 0..range {
        for shape in shapes() {
            seeds += 1;
            plant(bug);
            let run = catch_unwind(|| {
                let mut world = World::new(shape, seed);
                (0..1500).for_each(|_| world.step());
                world.compare_all();
                world.crash();
                world.compare_all();
            });
            plant(None);
            if run.is_err() {
                return Some(seeds);
            }
        }
    }
    None
}

#[test]
fn without_a_mistake_nothing_is_found() {
    assert_eq!(hunt(None, SEEDS / 20), None);
}

#[test]
fn every_planted_mistake_is_found() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let only = std::env::var("STORE_BUG").ok();
    let wanted = |bug: &&Bug| bug.is_of_store() && only.as_ref().is_none_or(|name| bug.name() == name);
    let mut missed = Vec::new();
    for bug in Bug::ALL.iter().filter(wanted) {
        match hunt(Some(*bug), SEEDS) {
            Some(seeds) => eprintln!("{:32} found by run {seeds}", bug.name()),
            None => missed.push(bug.name()),
        }
    }
    std::panic::set_hook(hook);
    assert!(missed.is_empty(), "not found: {missed:?}");
}
