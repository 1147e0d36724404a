//! Members that are full: what waits, what goes on.

use super::world::{BLOCK, Faults, Shape, World};
use crate::id::OsdId;
use crate::map::Scheme;
use crate::msg::{Answer, RequestOp};
use crate::time::Duration;

const WAITS: &str = "recovery waits for space on a member";

/// OSD 2 is back, full, and lacks objects 20 to 29; it has an old version of objects 10 to 14.
fn full_member(shape: Shape) -> World {
    let members = usize::from(shape.pool.pg_size);
    let mut world = World::shaped(5, Faults::default(), shape);
    world.heal().expect("heals");
    (members..members + 2).for_each(|osd| world.take_away(osd));
    (10..16).for_each(|stripe| world.fill(stripe, 0, BLOCK, 1));
    world.become_clean();
    world.take_away(2);
    (20..30).chain(10..15).for_each(|stripe| world.fill(stripe, 0, 4096, 2));
    world.set_full_of(2, true);
    world.bring_back(2);
    world.pass(Duration::secs(5));
    world
}

fn shapes() -> [Shape; 2] {
    [Shape::replicated(), Shape::striped(Scheme::Ec, 2, 1, 2)]
}

#[test]
fn recovery_waits_for_space_and_goes_on_when_there_is_some() {
    for shape in shapes() {
        let mut world = full_member(shape);
        assert!(world.marks.contains(WAITS));
        let summary = world.summary();
        assert_eq!((summary.full, summary.degraded, summary.clean), (vec![OsdId(2)], 10, false));
        assert_eq!(summary.state, "active");
        // What is whole is served as ever, without another epoch; and can be deleted.
        let epoch = world.summary().epoch;
        world.fill(15, 0, 4096, 3);
        world.fill(10, 4096, 4096, 3);
        let deleted = world.ask(11, RequestOp::Delete { expect: None });
        assert!(matches!(deleted, Ok(Answer::Written { .. })), "{deleted:?}");
        assert_eq!(world.read_bytes(25, 0, 4096), [2; 4096]);
        world.pass(Duration::secs(25));
        assert_eq!((world.summary().epoch, world.summary().full), (epoch, vec![OsdId(2)]), "it keeps its place");
        world.set_full_of(2, false);
        world.pass(Duration::secs(11));
        world.become_clean();
        assert!(world.summary().full.is_empty());
        world.verdict_of_copies().expect("the same everywhere");
    }
}

#[test]
fn a_full_member_is_not_sent_object_after_object() {
    let mut world = full_member(Shape::replicated());
    let before = world.recovered_bytes;
    world.pass(Duration::secs(60));
    let probes = (world.recovered_bytes - before) / 4096;
    assert!((5..=7).contains(&probes), "one object every ten seconds: {probes}");
}

#[test]
fn what_a_client_waits_for_is_tried_at_once() {
    let mut world = full_member(Shape::replicated());
    world.set_full_of(2, false);
    // Ten seconds need not pass for what a client waits for.
    world.fill(22, 0, 512, 4);
    assert!(world.summary().full.is_empty(), "what went in shows that there is space");
    world.become_clean();
}
