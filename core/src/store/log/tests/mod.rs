//! Tests of the whole store on a simulated device, beside the reference model.

mod damage;
mod device;
mod exhaustive;
mod faults;
mod figures;
mod format;
mod full;
#[cfg(feature = "planted")]
mod planted;
mod world;

use super::{Durability, Overwrites, Way};
use crate::time::Duration;
use world::{Shape, World};

const SHAPE: Shape = Shape {
    durability: Durability::Plp,
    separate_log: false,
    objects: 4,
    blocks: 24,
    prepares: true,
    depth: 3,
    crashes: 2,
    flaky: 0,
    overwrites: Overwrites { way: Way::Auto, atomic_bytes: 0 },
    scrub: Duration(0),
    discards: true,
};

/// Overwrites in place wherever that is safe, on a device that writes so many bytes atomically.
const fn intents(atomic_bytes: u32) -> Overwrites {
    Overwrites { way: Way::Intent, atomic_bytes }
}

/// Runs `steps` random steps for each seed; `STORE_SEEDS` runs more, `STORE_SEED` one of them.
fn campaign(shape: Shape, seeds: u64, steps: u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let range = match number("STORE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("STORE_SEEDS").unwrap_or(seeds),
    };
    for seed in range {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(shape, seed);
            for _ in 0..steps {
                world.step();
            }
            world.compare_all();
            world.crash();
            world.compare_all();
        });
        if let Err(error) = run {
            eprintln!("seed {seed} of {shape:?}");
            std::panic::resume_unwind(error);
        }
    }
}

#[test]
fn random_operations_without_crashes() {
    campaign(Shape { crashes: 0, ..SHAPE }, 5, 2000);
}

#[test]
fn random_operations_and_crashes_plp() {
    campaign(SHAPE, 20, 2000);
}

#[test]
fn random_operations_and_crashes_with_refused_writes() {
    let flaky = Shape { blocks: 60, flaky: 60, ..SHAPE };
    for durability in [Durability::Plp, Durability::Flush, Durability::Lazy] {
        campaign(Shape { durability, ..flaky }, 10, 2000);
    }
    campaign(Shape { durability: Durability::Flush, separate_log: true, depth: 6, ..flaky }, 10, 2000);
}

#[test]
fn random_operations_and_crashes_flush() {
    campaign(Shape { durability: Durability::Flush, ..SHAPE }, 20, 2000);
}

#[test]
fn random_operations_and_crashes_lazy() {
    campaign(Shape { durability: Durability::Lazy, ..SHAPE }, 20, 2000);
}

#[test]
fn random_operations_and_crashes_with_a_separate_log() {
    campaign(Shape { durability: Durability::Flush, separate_log: true, ..SHAPE }, 10, 2000);
}

#[test]
fn random_operations_and_crashes_when_full() {
    campaign(Shape { objects: 12, blocks: 8, depth: 1, ..SHAPE }, 10, 2000);
}

#[test]
fn random_operations_and_crashes_with_many_objects() {
    campaign(Shape { objects: 20, blocks: 40, ..SHAPE }, 10, 3000);
}

#[test]
fn random_operations_and_crashes_while_the_log_is_scrubbed() {
    let shape = Shape { scrub: Duration::millis(2), ..SHAPE };
    campaign(shape, 10, 2000);
    campaign(Shape { durability: Durability::Flush, separate_log: true, ..shape }, 10, 2000);
}

#[test]
fn random_operations_and_crashes_of_one_object() {
    campaign(Shape { objects: 1, blocks: 4, depth: 6, ..SHAPE }, 10, 2000);
}

#[test]
fn random_operations_and_crashes_with_intents() {
    for atomic_bytes in [4096, 8192] {
        let shape = Shape { overwrites: intents(atomic_bytes), prepares: false, ..SHAPE };
        campaign(shape, 10, 2000);
        campaign(Shape { objects: 1, blocks: 4, depth: 6, crashes: 6, ..shape }, 10, 2000);
        campaign(Shape { prepares: true, objects: 20, blocks: 40, ..shape }, 5, 3000);
    }
}

#[test]
fn random_operations_and_crashes_with_intents_and_a_separate_log() {
    let shape = Shape { overwrites: intents(4096), prepares: false, ..SHAPE };
    campaign(Shape { separate_log: true, depth: 6, ..shape }, 10, 2000);
}

#[test]
fn random_operations_and_crashes_with_intents_that_the_device_refuses() {
    let shape = Shape { overwrites: intents(4096), blocks: 60, flaky: 60, ..SHAPE };
    campaign(shape, 10, 2000);
    campaign(Shape { prepares: false, depth: 6, ..shape }, 10, 2000);
}

#[test]
fn random_operations_and_crashes_with_every_overwrite_in_a_new_block() {
    let overwrites = Overwrites { way: Way::Redirect, atomic_bytes: 0 };
    campaign(Shape { overwrites, ..SHAPE }, 10, 2000);
}

#[test]
fn intents_are_taken_where_they_are_safe_and_nowhere_else() {
    let taken = |shape: Shape| {
        let mut world = World::new(Shape { crashes: 0, ..shape }, 1);
        (0..4000).for_each(|_| world.step());
        world.drain();
        world.store.ways().intents
    };
    let shape = Shape { overwrites: intents(4096), prepares: false, ..SHAPE };
    assert!(taken(shape) > 100, "{}", taken(shape));
    for durability in [Durability::Flush, Durability::Lazy] {
        assert_eq!(taken(Shape { durability, ..shape }), 0, "a volatile cache");
    }
    assert_eq!(taken(Shape { overwrites: intents(0), ..shape }), 0, "nothing is atomic");
}
