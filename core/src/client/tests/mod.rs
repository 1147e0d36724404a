//! The machine against a small cluster: first step by step, then under random misfortune with a model of every byte.

mod model;
mod world;

use super::*;
use crate::id::{Epoch, OsdId};
use crate::msg::Refusal;
use crate::time::Duration;
use world::{Faults, OBJECT, World};

const LONG: Duration = Duration::secs(300);

fn opened(world: &mut World) -> ImageId {
    let op = world.with(|client, env| client.open_image(env, "demo"));
    match result(world, op) {
        Ok(Outcome::Opened(image)) => image.id,
        other => panic!("{other:?}"),
    }
}

fn begin(world: &mut World, image: ImageId, op: ImageOp) -> OpId {
    world.with(|client, env| client.submit(env, image, op)).expect("there is room")
}

fn result(world: &mut World, op: OpId) -> Result<Outcome, OpError> {
    world.run(LONG);
    let completion = world.client.next_completion().expect("completed");
    assert_eq!(completion.op, op);
    completion.result
}

fn done(world: &mut World, image: ImageId, op: ImageOp) -> Result<Outcome, OpError> {
    let op = begin(world, image, op);
    result(world, op)
}

fn write(world: &mut World, offset: u64, bytes: &[u8]) -> ImageOp {
    ImageOp::Write { offset, data: world.bufs.copy_of(bytes) }
}

fn read(world: &mut World, image: ImageId, offset: u64, len: u32) -> Vec<u8> {
    match done(world, image, ImageOp::Read { offset, len }) {
        Ok(Outcome::Read(pieces)) => pieces.iter().flat_map(|piece| piece.bytes()).copied().collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_written_is_read_across_objects_and_off_sectors() {
    let mut world = World::new(1);
    let image = opened(&mut world);
    let op = write(&mut world, u64::from(OBJECT) - 700, &[5; 1000]);
    assert_eq!(done(&mut world, image, op), Ok(Outcome::Done));
    let bytes = read(&mut world, image, u64::from(OBJECT) - 701, 1002);
    assert_eq!((bytes[0], bytes[1001]), (0, 0));
    assert_eq!(bytes[1..1001], [5; 1000]);
    let status = done(&mut world, image, ImageOp::BlockStatus { offset: 0, len: u64::from(OBJECT) + 1024 });
    let expected = [(u64::from(OBJECT) - 1024, false), (1024 + 512, true), (512, false)];
    let expected = expected.map(|(len, written)| Extent { len, written }).to_vec();
    assert_eq!(status, Ok(Outcome::BlockStatus(expected)));
}

#[test]
fn nonsense_is_refused_without_asking_the_cluster() {
    let mut world = World::new(2);
    let image = opened(&mut world);
    let before = world.requests;
    let too_far = write(&mut world, world::IMAGE - 1, &[1; 2]);
    assert_eq!(done(&mut world, image, too_far), Err(OpError::OutOfRange));
    let wraps = ImageOp::Discard { offset: u64::MAX, len: 2 };
    assert_eq!(done(&mut world, image, wraps), Err(OpError::OutOfRange));
    let long = ImageOp::Read { offset: 0, len: READ_MAX_BYTES + 1 };
    assert_eq!(done(&mut world, image, long), Err(OpError::TooLong));
    assert_eq!(done(&mut world, image, ImageOp::Flush), Ok(Outcome::Done));
    assert_eq!(done(&mut world, image, ImageOp::Read { offset: 5, len: 0 }), Ok(Outcome::Read(Pieces::new())));
    assert_eq!(world.requests, before);
    world.image.as_mut().unwrap().read_only = true;
    assert_eq!(opened(&mut world), image);
    let op = write(&mut world, 0, &[1]);
    assert_eq!(done(&mut world, image, op), Err(OpError::ReadOnly));
}

#[test]
fn an_image_that_appears_late_is_found_and_a_missing_one_is_reported() {
    let mut world = World::new(3);
    let op = world.with(|client, env| client.open_image(env, "other"));
    let before = world.now;
    assert_eq!(result(&mut world, op), Err(OpError::NoSuchImage));
    assert!(world.now.since(before) >= Duration::secs(2));
    let op = world.with(|client, env| client.open_image(env, "p/late"));
    for _ in 0..20 {
        world.step();
    }
    world.image.as_mut().unwrap().name = "late".into();
    assert!(matches!(result(&mut world, op), Ok(Outcome::Opened(_))));
}

#[test]
fn images_are_listed_part_by_part_whatever_happens_to_connections() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        let op = world.with(|client, env| client.list_images(env));
        let names = (0..7).map(|number| format!("p/vm-{number}")).collect();
        assert_eq!(result(&mut world, op), Ok(Outcome::Images(names)));
    }
}

#[test]
fn refusals_that_no_retry_cures_fail_the_operation() {
    let cases = [
        (Refusal::NoSpace, OpError::NoSpace),
        (Refusal::Damaged, OpError::Damaged),
        (Refusal::Fenced, OpError::Fenced),
        (Refusal::BadRequest, OpError::BadRequest),
    ];
    for (refusal, error) in cases {
        let mut world = World::new(4);
        let image = opened(&mut world);
        world.refuse_all = Some(refusal);
        let op = write(&mut world, 0, &[1; 9000]);
        assert_eq!(done(&mut world, image, op), Err(error));
    }
}

#[test]
fn an_inactive_group_is_not_flooded_and_served_at_once_when_its_map_changes() {
    let mut world = World::new(5);
    let image = opened(&mut world);
    world.inactive = true;
    for n in 0..200 {
        let op = write(&mut world, n % 40 * 512, &[1; 512]);
        begin(&mut world, image, op);
    }
    world.run(Duration::secs(1));
    let before = world.requests;
    world.run(Duration::secs(60));
    let per_second = (world.requests - before) as f64 / 60.0;
    assert!((2.0..=4.0 * f64::from(world::GROUPS)).contains(&per_second), "{per_second} requests per second");
    world.inactive = false;
    for place in 0..3 {
        world.set_primary(place, Some(OsdId(0)));
    }
    world.run(Duration::millis(200));
    assert_eq!(world.client.pending(), 0);
}

#[test]
fn a_cluster_that_is_away_is_waited_for_without_hurry() {
    let mut world = World::new(6);
    let image = opened(&mut world);
    world.down = true;
    world.drop_all_links();
    let op = write(&mut world, 0, &[3; 100]);
    let op = begin(&mut world, image, op);
    let lost = world.client.stats().links_lost;
    world.run(Duration::secs(600));
    assert_eq!(world.client.pending(), 1);
    assert_eq!(world.client.stats().links_lost, lost);
    world.down = false;
    let before = world.now;
    assert_eq!(result(&mut world, op), Ok(Outcome::Done));
    assert!(world.now.since(before) < Duration::secs(6), "{:?}", world.now.since(before));
}

#[test]
fn a_discard_of_everything_is_cut_as_there_is_room() {
    let mut world = World::new(7);
    world.image.as_mut().unwrap().size_bytes = 1 << 50;
    let image = opened(&mut world);
    begin(&mut world, image, ImageOp::Discard { offset: 0, len: 1 << 50 });
    let limit = u64::try_from(ClientLimits::default().requests).unwrap();
    assert_eq!(world.client.stats().requests.max(limit), limit);
    let bytes = read_beside(&mut world, image);
    assert_eq!(bytes, [0; 16]);
}

fn read_beside(world: &mut World, image: ImageId) -> Vec<u8> {
    let op = begin(world, image, ImageOp::Read { offset: 1 << 40, len: 16 });
    for _ in 0..100_000 {
        world.step();
        if let Some(completion) = world.client.next_completion() {
            assert_eq!(completion.op, op);
            let Ok(Outcome::Read(pieces)) = completion.result else { panic!("a read failed") };
            return pieces[0].bytes().to_vec();
        }
    }
    panic!("a read starves behind a discard");
}

#[test]
fn more_operations_than_may_be_are_given_back() {
    let mut world = World::new(8);
    let image = opened(&mut world);
    let most = ClientLimits::default().operations;
    for _ in 0..most {
        begin(&mut world, image, ImageOp::Read { offset: 0, len: 1 });
    }
    let one_more = ImageOp::Read { offset: 7, len: 1 };
    assert_eq!(world.with(|client, env| client.submit(env, image, one_more.clone())), Err(one_more));
    world.run(LONG);
    assert_eq!(std::iter::from_fn(|| world.client.next_completion()).count(), most);
}

#[test]
fn a_pool_that_is_removed_fails_what_waits_for_it() {
    let mut world = World::new(9);
    let image = opened(&mut world);
    world.image = None;
    world.refuse_all = Some(Refusal::NoSuchPool);
    let op = write(&mut world, 0, &[1; 512]);
    assert_eq!(done(&mut world, image, op), Err(OpError::NoSuchPool));
}

#[test]
fn a_silent_primary_is_left_for_the_new_one() {
    let mut world = World::new(10);
    let image = opened(&mut world);
    let op = write(&mut world, 0, &[1; 512]);
    assert_eq!(done(&mut world, image, op), Ok(Outcome::Done));
    world.faults = Faults { silence_link: 1000, ..Faults::default() };
    for _ in 0..50 {
        world.step();
    }
    world.faults = Faults::default();
    let op = write(&mut world, 0, &[2; 512]);
    let before = world.now;
    assert_eq!(done(&mut world, image, op), Ok(Outcome::Done));
    assert!(world.now.since(before) < Duration::secs(10), "{:?}", world.now.since(before));
    assert_eq!(world.pgs[0].epoch, Epoch(1));
}

#[test]
fn news_of_a_silent_primary_come_from_elsewhere_if_the_server_of_the_map_is_silent_too() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        let image = opened(&mut world);
        for object in 0..4 {
            let op = write(&mut world, object * u64::from(OBJECT), &[1; 512]);
            assert_eq!(done(&mut world, image, op), Ok(Outcome::Done));
        }
        let before = world.now;
        world.silence(OsdId(0));
        for object in 0..4 {
            let op = write(&mut world, object * u64::from(OBJECT), &[2; 512]);
            begin(&mut world, image, op);
        }
        world.run(Duration::secs(1));
        assert!(world.client.pending() > 0, "no object is in the silent OSD's group");
        for place in 0..3 {
            world.set_primary(place, Some(OsdId(1)));
        }
        world.run(LONG);
        let took = world.now.since(before);
        assert!(took < Duration::millis(1500), "seed {seed}: {took:?}");
        assert_eq!(world.client.stats().links_lost, 1, "seed {seed}: the silent connection is closed, no other");
        // It is primary again, on a host that is back; its old connection would be silent for seconds more.
        (0..3).for_each(|place| world.set_primary(place, Some(OsdId(0))));
        let before = world.now;
        let op = write(&mut world, 0, &[3; 512]);
        begin(&mut world, image, op);
        world.run(LONG);
        let took = world.now.since(before);
        assert!(took < Duration::millis(200), "seed {seed}: {took:?} on a connection that was silent");
    }
}

#[test]
fn a_slow_primary_costs_a_few_questions_and_no_connection() {
    let mut world = World::new(12);
    let image = opened(&mut world);
    let op = write(&mut world, 0, &[1; 512]);
    assert_eq!(done(&mut world, image, op), Ok(Outcome::Done));
    world.silence_osds();
    let op = write(&mut world, 0, &[2; 512]);
    begin(&mut world, image, op);
    let asked = world.questions;
    world.run(Duration::millis(3900));
    assert!((1..=8).contains(&(world.questions - asked)), "{} questions", world.questions - asked);
    assert_eq!((world.client.pending(), world.client.stats().links_lost), (1, 0));
}

#[test]
fn a_primary_that_the_map_names_anew_is_tried_at_once() {
    let mut world = World::new(11);
    let image = opened(&mut world);
    world.down = true;
    world.drop_all_links();
    let op = write(&mut world, 0, &[1; 512]);
    let op = begin(&mut world, image, op);
    world.run(Duration::secs(60));
    world.down = false;
    // The map's connection comes back first or not; then there is news.
    while world.client.stats().requests == 0 && world.subscribers() == 0 {
        world.step();
    }
    for place in 0..3 {
        let primary = world.pgs[place].primary;
        world.set_primary(place, primary);
    }
    let before = world.now;
    assert_eq!(result(&mut world, op), Ok(Outcome::Done));
    assert!(world.now.since(before) < Duration::millis(100), "{:?}", world.now.since(before));
}
