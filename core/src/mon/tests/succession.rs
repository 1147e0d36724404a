//! Leaders that go with their machines.

use super::*;

/// Two monitors and six OSDs on three hosts with addresses; the first monitor leads.
fn three_hosts() -> World {
    let mut world = World::new(0);
    ["a:9", "b:9"].iter().for_each(|address| world.start_mon_at(address));
    for (n, host) in (1..).zip(["a", "a", "b", "b", "c", "c"]) {
        world.start_osd_at(n, host, &format!("{host}:{n}"));
    }
    world.create_pool(3, 2, 16);
    world.settle();
    assert_eq!(world.leader(), Some(0));
    world
}

/// The revision at which the present leadership began.
fn since(world: &mut World) -> u64 {
    world.map().leader().expect("one leads").1.0
}

fn all_report(world: &mut World, osds: &[u32], hard: bool) {
    osds.iter().for_each(|osd| [3, 5].iter().for_each(|by| world.report(*osd, *by, hard)));
}

#[test]
fn a_leader_that_goes_with_its_machine_is_not_waited_for() {
    let mut world = three_hosts();
    world.kill_mon(0);
    all_report(&mut world, &[1, 2], false);
    world.run_for(Duration::millis(20));
    assert_eq!(world.leader(), Some(1), "its lease would last for seconds");
    let map = world.map();
    let acts = |osd: u32| map.pg_maps().any(|(_, map)| map.acting.iter().flatten().any(|m| m.osd == OsdId(osd)));
    assert_eq!([1, 2, 3].map(acts), [false, false, true]);
}

#[test]
fn a_machine_of_which_anything_answers_keeps_the_lead() {
    for (silent, hard) in [(&[1, 2][..], true), (&[1][..], false)] {
        let mut world = three_hosts();
        world.kill_mon(0);
        all_report(&mut world, silent, hard);
        world.run_for(Duration::millis(500));
        assert_eq!(world.leader(), None, "of {silent:?}, hard: {hard}");
    }
}

#[test]
fn a_leader_that_lives_is_deposed_once_and_may_lead_again() {
    let mut world = three_hosts();
    let first = since(&mut world);
    all_report(&mut world, &[1, 2], false);
    world.run_for(Duration::millis(20));
    let second = since(&mut world);
    assert!(second > first);
    world.run_for(Duration::secs(3));
    assert_eq!(since(&mut world), second, "whoever leads now, leads on");
}

#[test]
fn what_was_tried_in_vain_is_tried_again() {
    let mut world = three_hosts();
    world.kill_mon(0);
    world.lost_replies = 2;
    all_report(&mut world, &[1, 2], false);
    world.run_for(Duration::millis(800));
    assert_eq!(world.leader(), Some(1), "its lease would last for longer");
}

/// As when the leader of the metadata store dies with what it was asked.
#[test]
fn a_leader_without_answers_keeps_its_lease_and_leads_again_as_soon_as_there_are_some() {
    let mut world = three_hosts();
    let first = since(&mut world);
    world.lost_replies = 1;
    world.stop_osd(6);
    world.run_for(Duration::millis(400));
    assert_eq!(world.leader(), None, "it does not know");
    world.lost_replies = 0;
    world.run_for(Duration::millis(150));
    assert_eq!((world.leader(), since(&mut world)), (Some(0), first));
}
