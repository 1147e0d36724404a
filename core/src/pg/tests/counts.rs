//! The number of groups changes, up and down, while clients write and everything fails: replicated pools, strict and
//! lazy, and erasure-coded ones.

#[cfg(feature = "planted")]
use super::hunt;
use super::number;
use super::world::{Faults, Shape, World};
use crate::map::Scheme;
use crate::msg::{Answer, Refusal};
#[cfg(feature = "planted")]
use crate::planted::Bug;
use std::collections::BTreeSet;

/// The pools, by a number that stands in seeds.
fn shapes() -> [(&'static str, Shape, bool); 7] {
    [
        ("copies", Shape::replicated(), false),
        ("copies, lazy", Shape::lazy(), true),
        ("ec 2+1", Shape::striped(Scheme::Ec, 2, 1, 2), false),
        ("ec 2+2", Shape::striped(Scheme::Ec, 2, 2, 3), false),
        ("ec 2+2, minsize 2", Shape::striped(Scheme::Ec, 2, 2, 2), false),
        ("ec 4+2", Shape::striped(Scheme::Ec, 4, 2, 5), false),
        ("xor 2+1", Shape::striped(Scheme::Xor, 2, 1, 2), false),
    ]
}

fn run(seed: u64, faults: Faults, shape: &Shape, lazy: bool) -> Result<World, String> {
    let faults = Faults { counts: true, lazy, ..faults };
    let mut world = World::shaped(seed, faults, shape.clone());
    world.run_with_faults();
    world.heal()?;
    world.verdict()?;
    Ok(world)
}

/// Gives the rare branches that were taken.
fn seeds(range: std::ops::Range<u64>, faults: Faults) -> BTreeSet<&'static str> {
    let mut marks = BTreeSet::new();
    for (name, shape, lazy) in shapes() {
        let mut changes = 0;
        for seed in range.clone() {
            match run(seed, faults, &shape, lazy) {
                Ok(world) => {
                    changes += u64::from(world.generation());
                    marks.extend(world.marks);
                }
                Err(text) => panic!("{name}, {faults:?}, seed {seed}: {text}"),
            }
        }
        assert!(changes >= 2 * (range.end - range.start), "{name}: {changes} changes in {range:?}");
    }
    marks
}

#[test]
fn without_faults() {
    seeds(0..2, Faults::default());
}

#[test]
fn while_maps_change_and_osds_crash() {
    seeds(0..4, Faults { maps: true, crashes: true, ..Faults::default() });
}

#[test]
fn while_links_are_lost_and_osds_pause() {
    seeds(0..4, Faults { maps: true, links: true, pauses: true, ..Faults::default() });
}

#[test]
fn while_everything_fails() {
    let marks = seeds(1000..1008, Faults::ALL);
    assert!(marks.contains("osd: a query before the news of its group"), "{marks:?}");
}

/// What was written before the number changed is there afterwards, in as many groups as were asked for.
#[test]
fn every_object_finds_its_way() {
    for (name, shape, lazy) in shapes() {
        let mut world = World::shaped(1, Faults { lazy, ..Faults::default() }, shape);
        world.heal().unwrap_or_else(|stuck| panic!("{name}: {stuck}"));
        (100..150).for_each(|stripe| world.put(stripe, 1000 + stripe));
        for count in [8, 3, 32, 4, 1] {
            world.set_count(count);
            world.heal().unwrap_or_else(|stuck| panic!("{name}, {count} groups: {stuck}"));
            assert!((100..150).all(|stripe| world.get(stripe) == Ok(1000 + stripe)), "{name}, {count} groups");
            world.verdict_of_copies().unwrap_or_else(|text| panic!("{name}, {count} groups: {text}"));
        }
    }
}

/// What a client says of the answers that it has seen holds for the group that it means, so it has to mean this one.
#[test]
fn a_request_for_a_group_of_another_layout_is_refused() {
    let mut world = World::new(1, Faults::default());
    world.heal().expect("heals");
    world.put(7, 42);
    world.set_count(3);
    world.heal().expect("heals");
    assert!(matches!(world.ask_by_layout(7, 0), Some(Err(Refusal::WrongEpoch(_)))));
    assert!(matches!(world.ask_by_layout(7, 2), Some(Err(Refusal::Again))));
    assert!(matches!(world.ask_by_layout(7, 1), Some(Ok(Answer::Read { .. }))));
}

/// Many seeds: `PG_SEED=1000 PG_COUNT=5000 cargo test -p ashlar-core counts::campaign -- --ignored --nocapture`.
#[test]
#[ignore = "takes long"]
fn campaign() {
    let first = number("PG_SEED").unwrap_or(10_000);
    seeds(first..first + number("PG_COUNT").unwrap_or(200), Faults::ALL);
}

/// Runs one seed, and tells its story:
/// `PG_TRACE=1 PG_SHAPE=2 PG_SEED=7 cargo test -p ashlar-core counts::one -- --ignored --nocapture`.
#[test]
#[ignore = "replays the seed in PG_SEED"]
fn one_seed() {
    #[cfg(feature = "planted")]
    crate::planted::plant(std::env::var("PG_PLANT").ok().and_then(|name| Bug::from_name(&name)));
    let (_, shape, lazy) = &shapes()[usize::try_from(number("PG_SHAPE").unwrap_or(0)).expect("a shape")];
    run(number("PG_SEED").unwrap_or(0), Faults::ALL, shape, *lazy).expect("the seed is clean");
}

/// Mistakes that can be made with ancestors.
#[cfg(feature = "planted")]
#[test]
#[ignore = "takes minutes"]
fn planted_bugs_are_found() {
    let of_counts = [Bug::ForgetAncestors, Bug::ServeEndedGroup, Bug::RestartVersions];
    hunt::all_found(&of_counts, 600, |seed| {
        let (_, shape, lazy) = &shapes()[(seed % 7) as usize];
        run(seed, Faults::ALL, shape, *lazy).map(drop)
    });
}
