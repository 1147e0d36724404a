//! Members that were away get what they missed, exactly.

use super::world::{BLOCK, Faults, Shape, World};
use crate::map::{Pool, Scheme};
#[cfg(feature = "planted")]
use crate::planted::Bug;

const UNIT: u32 = 4 << 10;
const PATCHED: &str = "a member gets what it missed";
const WHOLE: &str = "what a member missed is not known, it gets the whole copy";
const MISMATCH: &str = "a patch did not give the version that it should";

/// A clean world of as many OSDs as the group has members, that holds objects 10 and up.
fn filled(shape: Shape, objects: u64) -> World {
    let members = usize::from(shape.pool.pg_size);
    let bytes = shape.pool.object_bytes();
    let mut world = World::shaped(3, Faults::default(), shape);
    world.heal().expect("heals");
    (members..members + 2).for_each(|osd| world.take_away(osd));
    for stripe in 10..10 + objects {
        world.fill(stripe, 0, bytes, 1);
    }
    world.become_clean();
    world
}

fn replicated(block_size: u32) -> Shape {
    let shape = Shape::replicated();
    Shape { pool: Pool { block_size, ..shape.pool }, ..shape }
}

fn ec21() -> Shape {
    Shape::striped(Scheme::Ec, 2, 1, 2)
}

/// Takes an OSD away, writes one unit of every object, brings it back: bytes that recovery moved.
fn bytes_of_return(world: &mut World, objects: u64, unit: u32) -> u64 {
    world.take_away(2);
    for stripe in 10..10 + objects {
        world.fill(stripe, unit * UNIT, UNIT, 2);
    }
    let before = world.recovered_bytes;
    world.bring_back(2);
    world.become_clean();
    assert!(world.marks.contains(PATCHED) && !world.marks.contains(MISMATCH), "{:?}", world.marks);
    world.verdict_of_copies().expect("the same everywhere");
    world.recovered_bytes - before
}

#[test]
fn a_member_away_during_small_writes_to_a_thousand_objects_gets_what_it_missed() {
    let mut world = filled(replicated(BLOCK), 1_000);
    let missed = 1_000 * u64::from(UNIT);
    let moved = bytes_of_return(&mut world, 1_000, 2);
    println!("replicated: {missed} bytes missed, {moved} moved, {} in whole objects", 1_000 * u64::from(BLOCK));
    assert!((missed..=missed * 102 / 100).contains(&moved), "{moved}");
    assert_eq!(world.read_bytes(77, 2 * UNIT - 512, 1024), [[1; 512], [2; 512]].concat());
}

#[test]
fn of_a_usual_object_one_unit_of_32_is_sent() {
    let mut world = filled(replicated(128 << 10), 30);
    let moved = bytes_of_return(&mut world, 30, 31);
    assert_eq!(moved, 30 * u64::from(UNIT));
}

#[test]
fn a_chunk_is_brought_up_to_date_from_parts_of_the_others() {
    // The one that is away has a data chunk or the parity; what is written lies in its own chunk or in another.
    for unit in [0, 3, 4, 7] {
        let mut world = filled(ec21(), 100);
        let moved = bytes_of_return(&mut world, 100, unit);
        println!("ec 2+1, unit {unit}: {moved} bytes moved, of {} in whole chunks", 100 * 3 * u64::from(BLOCK));
        // Two chunks are read, at least one of them from another OSD, and one is sent, if not to the primary itself.
        assert!(moved <= 100 * 3 * u64::from(UNIT), "{moved}");
    }
}

#[test]
fn what_a_member_missed_in_several_epochs_adds_up() {
    for shape in [replicated(BLOCK), ec21()] {
        let mut world = filled(shape, 2);
        world.take_away(2);
        world.fill(10, 0, 512, 2);
        // A write to what another one that was away will miss as well.
        world.bring_back(3);
        world.become_clean();
        world.fill(10, UNIT + 512, 512, 3);
        world.take_away(3);
        world.fill(10, 3 * UNIT, 1024, 4);
        world.bring_back(2);
        world.become_clean();
        world.verdict_of_copies().expect("the same everywhere");
        let bytes = world.read_bytes(10, 0, BLOCK);
        let at = |unit: u32, offset: usize| bytes[unit as usize * UNIT as usize + offset];
        assert_eq!([at(0, 0), at(0, 512), at(1, 0), at(1, 512), at(3, 1023), at(3, 1024)], [2, 1, 1, 3, 4, 1]);
    }
}

/// Changes a unit of object 10, in every data chunk.
fn change(world: &mut World, object_bytes: u32, unit: u32, byte: u8) {
    for chunk in 0..object_bytes / BLOCK {
        world.fill(10, chunk * BLOCK + unit * UNIT, UNIT, byte);
    }
}

/// Object 10 is changed at one place, then nobody remembers, then at another place; all while an OSD is away.
fn forgotten(shape: Shape) -> World {
    let bytes = shape.pool.object_bytes();
    let mut world = filled(shape, 2);
    world.take_away(2);
    change(&mut world, bytes, 0, 2);
    for osd in 0..2 {
        world.take_away(osd);
    }
    for osd in 0..2 {
        world.bring_back(osd);
    }
    world.become_clean();
    change(&mut world, bytes, 2, 3);
    world.bring_back(2);
    world.become_clean();
    world
}

#[test]
fn a_member_whose_version_is_not_that_at_which_the_notes_begin_gets_the_whole_copy() {
    for shape in [replicated(BLOCK), ec21()] {
        let mut world = forgotten(shape);
        assert!(world.marks.contains(WHOLE) && !world.marks.contains(PATCHED), "{:?}", world.marks);
        world.verdict_of_copies().expect("the same everywhere");
    }
}

#[test]
fn a_member_with_a_damaged_base_gets_the_whole_copy() {
    for shape in [replicated(BLOCK), ec21()] {
        let mut world = filled(shape, 2);
        let osd = crate::id::OsdId(2);
        world.damage(10, osd);
        world.take_away(2);
        world.fill(10, 0, UNIT, 2);
        world.fill(11, 0, UNIT, 2);
        world.bring_back(2);
        world.become_clean();
        assert!(world.marks.contains(PATCHED) && !world.is_damaged(10, osd));
        world.verdict_of_copies().expect("the same everywhere");
    }
}

#[test]
fn a_member_that_missed_most_of_an_object_or_its_deletion_gets_all() {
    let mut world = filled(replicated(BLOCK), 3);
    world.take_away(2);
    world.fill(10, 0, 3 * UNIT, 2);
    world.ask(11, crate::msg::RequestOp::Delete { expect: None }).expect("deleted");
    world.ask(12, crate::msg::RequestOp::Delete { expect: None }).expect("deleted");
    world.fill(12, 0, 512, 3);
    let before = world.recovered_bytes;
    world.bring_back(2);
    world.become_clean();
    assert!(!world.marks.contains(PATCHED));
    assert_eq!(world.recovered_bytes - before, u64::from(BLOCK) + 512);
    world.verdict_of_copies().expect("the same everywhere");
}

/// With a planted mistake copies of erasure-coded objects differ in the end; in replicated pools the sum of the result
/// is compared, and the copy is sent whole.
#[cfg(feature = "planted")]
#[test]
fn planted_mistakes_are_found() {
    let missed = |shape: Shape| {
        let bytes = shape.pool.object_bytes();
        let mut world = filled(shape, 2);
        world.take_away(2);
        change(&mut world, bytes, 0, 2);
        world.bring_back(2);
        world.become_clean();
        world
    };
    type Scenario = fn(Shape) -> World;
    let scenarios: [(Bug, Scenario); 2] = [(Bug::ForgetChange, missed), (Bug::PatchAnyBase, forgotten)];
    for (bug, scenario) in scenarios {
        crate::planted::plant(Some(bug));
        let (mut coded, mut plain) = (scenario(ec21()), scenario(replicated(BLOCK)));
        crate::planted::plant(None);
        assert!(coded.verdict_of_copies().is_err(), "{} is not found", bug.name());
        assert!(plain.marks.contains(MISMATCH), "{} is not found", bug.name());
        plain.verdict_of_copies().expect("the second line holds");
    }
}
