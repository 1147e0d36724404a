//! Scrubs: what they find, and what becomes of it.

use super::quiet;
use super::world::World;
use crate::map::ScrubOrder;
use crate::msg::Refusal;

/// A clean world with some objects.
fn filled(seed: u64) -> World {
    let mut world = quiet(seed);
    for stripe in 10..20 {
        world.put(stripe, 100 + stripe);
    }
    world
}

fn findings(world: &World) -> (u64, u64, u64) {
    let report = world.summary().scrub;
    (report.damaged, report.outdated, report.inconsistent)
}

#[test]
fn a_scrub_of_what_is_whole_finds_nothing_and_ends() {
    let mut world = filled(1);
    world.scrub(ScrubOrder::Scrub);
    assert_eq!(findings(&world), (0, 0, 0));
    assert!(world.summary().clean);
}

#[test]
fn scrubs_begin_by_themselves() {
    let mut world = filled(2);
    world.marks.remove("a scrub has come to its end");
    let acting = world.acting();
    world.damage(12, acting[1]);
    world.run_with_faults();
    assert!(world.marks.contains("a scrub has come to its end"));
    assert_eq!(findings(&world), (1, 0, 0));
}

#[test]
fn a_copy_that_does_not_match_its_checksums_is_repaired() {
    let mut world = filled(3);
    let acting = world.acting();
    world.damage(12, acting[2]);
    world.damage(15, acting[0]);
    world.scrub(ScrubOrder::Scrub);
    world.heal().expect("heals");
    assert_eq!(findings(&world), (2, 0, 0));
    assert!(!world.is_damaged(12, acting[2]) && !world.is_damaged(15, acting[0]));
    world.scrub(ScrubOrder::Scrub);
    assert_eq!(findings(&world), (2, 0, 0), "once is enough");
    assert_eq!(world.get(15), Ok(115));
}

#[test]
fn a_copy_that_a_member_lost_is_put_back() {
    let mut world = filled(4);
    let acting = world.acting();
    world.lose(12, acting[1]);
    world.scrub(ScrubOrder::Scrub);
    world.heal().expect("heals");
    assert_eq!(findings(&world), (0, 1, 0));
    world.verdict_of_copies().expect("the same everywhere");
}

#[test]
fn copies_that_differ_are_reported_and_made_equal_to_the_primarys_only_when_ordered() {
    let mut world = filled(5);
    let acting = world.acting();
    // A majority that is wrong: only the primary's is what clients have read.
    world.alter(12, acting[1]);
    world.alter(12, acting[2]);
    world.scrub(ScrubOrder::Scrub);
    assert_eq!(findings(&world), (0, 0, 1));
    assert_eq!(world.summary().scrub.objects, ["image 1 object 12"]);
    assert!(world.fingerprint(12, acting[0]) != world.fingerprint(12, acting[1]), "untouched without an order");
    world.scrub(ScrubOrder::Repair);
    world.heal().expect("heals");
    assert_eq!(findings(&world), (0, 0, 0));
    let right = world.fingerprint(12, acting[0]);
    assert_eq!((world.fingerprint(12, acting[1]), world.fingerprint(12, acting[2])), (right, right));
    assert_eq!(world.get(12), Ok(112));
}

#[test]
fn of_an_object_without_a_good_copy_nothing_is_invented() {
    let mut world = filled(6);
    for osd in world.acting() {
        world.damage(12, osd);
    }
    world.scrub(ScrubOrder::Repair);
    assert_eq!(world.get(12), Err(Refusal::Damaged));
    assert_eq!(world.summary().unfound, 1);
}

#[test]
fn clients_are_served_during_a_scrub() {
    let mut world = filled(7);
    world.order_scrub(ScrubOrder::Scrub);
    for value in 0..200 {
        world.put(10 + value % 10, 1000 + value);
    }
    assert_eq!(world.get(19), Ok(1199));
    world.scrub(ScrubOrder::Scrub);
    assert_eq!(findings(&world), (0, 0, 0));
}
