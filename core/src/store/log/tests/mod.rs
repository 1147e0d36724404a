//! Tests of the whole store on a simulated device, beside the reference model.

mod device;
mod faults;
mod figures;
mod format;
#[cfg(feature = "planted")]
mod planted;
mod world;

use super::Durability;
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
};

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
fn random_operations_and_crashes_of_one_object() {
    campaign(Shape { objects: 1, blocks: 4, depth: 6, ..SHAPE }, 10, 2000);
}
