//! Scenarios over several OSDs that hold one group: messages with delays, lost links, crashes, pauses, a monitor that
//! installs arbitrary acting sets, a metadata store that loses replies; clients that retry.

mod check;
mod choice;
mod world;

use crate::planted::Bug;
use world::{Faults, World};

/// Runs a seed; gives what is wrong.
fn run(seed: u64, faults: Faults) -> Result<(), String> {
    let mut world = World::new(seed, faults);
    world.run_with_faults();
    world.heal()?;
    world.verdict()
}

fn seeds(name: &str, range: std::ops::Range<u64>, faults: Faults) {
    for seed in range {
        if let Err(text) = run(seed, faults) {
            panic!("{name}, seed {seed}: {text}");
        }
    }
}

#[test]
fn without_faults_everything_is_written_read_and_clean() {
    seeds("no faults", 0..20, Faults::default());
}

#[test]
fn changing_maps() {
    seeds("maps", 0..60, Faults { maps: true, ..Faults::default() });
}

#[test]
fn crashes() {
    seeds("crashes", 0..60, Faults { crashes: true, maps: true, ..Faults::default() });
}

#[test]
fn lost_links() {
    seeds("links", 0..60, Faults { links: true, maps: true, ..Faults::default() });
}

#[test]
fn pauses() {
    seeds("pauses", 0..60, Faults { pauses: true, maps: true, ..Faults::default() });
}

#[test]
fn everything_at_once() {
    seeds("all", 1000..1120, Faults::ALL);
}

/// With a planted mistake some seed must fail: the checks are worth something.
#[cfg(feature = "planted")]
#[test]
fn planted_bugs_are_found() {
    for bug in Bug::ALL {
        crate::planted::plant(Some(*bug));
        let found = (0..1000).find(|seed| {
            let caught = std::panic::catch_unwind(|| run(*seed, Faults::ALL));
            !matches!(caught, Ok(Ok(())))
        });
        crate::planted::plant(None);
        println!("{}: {found:?}", bug.name());
        assert!(found.is_some(), "{} was not found in 1000 seeds", bug.name());
    }
}

/// The feature's list is what the test above runs over.
#[test]
fn there_are_bugs_to_plant() {
    assert!(Bug::ALL.len() >= 7);
}

/// Prints one seed's story: `PG_TRACE=1 PG_SEED=7 cargo test -p ashlar-core one_seed -- --ignored --nocapture`.
#[test]
#[ignore = "for debugging"]
fn one_seed() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let faults = match number("PG_FAULTS") {
        Some(0u64) => Faults::default(),
        Some(1) => Faults { maps: true, ..Faults::default() },
        _ => Faults::ALL,
    };
    println!("{:?}", run(number("PG_SEED").unwrap_or(0), faults));
}
