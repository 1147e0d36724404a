//! Images and pools that go, and what must go with them.

use super::*;

#[test]
fn an_image_goes_when_every_group_says_that_nothing_is_left() {
    let mut world = World::cluster(4, 130);
    let image = |removing: bool| format!(r#"{{"name":"a","size_bytes":512,"removing":{removing}}}"#);
    let (pool, doomed, other) = (group(0).pool, InodeId(3), InodeId(4));
    world.put(keys::image(pool, doomed), &image(true));
    world.put(keys::image(pool, other), &image(false));
    for number in (0..130).filter(|number| *number != 70) {
        [doomed, other].iter().for_each(|inode| world.put(keys::removed(group(number), *inode), r#"{"epoch":1}"#));
    }
    // Of a group that the pool does not have.
    world.put(keys::removed(group(130), doomed), r#"{"epoch":1}"#);
    world.run_for(Duration::secs(2));
    assert!(world.map().image(pool, doomed).is_some(), "a group is missing");
    world.kill_mon(0);
    world.start_mon();
    [doomed, other].iter().for_each(|inode| world.put(keys::removed(group(70), *inode), r#"{"epoch":1}"#));
    world.run_for(Duration::secs(12));
    let map = world.map();
    assert!(map.image(pool, doomed).is_none(), "the next leader goes on");
    assert!(map.image(pool, other).is_some(), "only an image that is marked goes");
    assert_eq!(map.removals().map(|(inode, _)| inode).collect::<BTreeSet<_>>(), BTreeSet::from([other]));
}

/// Reports and images are watched apart: a group may have looked for an image's objects before the monitor hears of it.
#[test]
fn a_report_that_is_known_before_its_image_stays() {
    let mut world = World::cluster(4, 2);
    let (pool, doomed) = (group(0).pool, InodeId(3));
    world.config_is_late = true;
    world.put(keys::image(pool, doomed), r#"{"name":"a","size_bytes":512,"removing":true}"#);
    world.put(keys::removed(group(0), doomed), r#"{"epoch":1}"#);
    world.run_for(Duration::secs(2));
    world.config_is_late = false;
    world.put(keys::removed(group(1), doomed), r#"{"epoch":1}"#);
    world.run_for(Duration::secs(12));
    let map = world.map();
    assert!(map.image(pool, doomed).is_none(), "both groups had reported");
    assert_eq!(map.removals().count(), 0);
}

#[cfg(feature = "planted")]
#[test]
fn reports_that_are_deleted_early_are_found() {
    use crate::planted::{Bug, plant};
    plant(Some(Bug::DropEarlyReports));
    let outcome = std::panic::catch_unwind(a_report_that_is_known_before_its_image_stays);
    plant(None);
    assert!(outcome.is_err());
}

#[test]
fn a_pool_goes_when_its_last_image_is_gone_and_leaves_only_its_name() {
    let mut world = World::cluster(4, 130);
    let pool = group(0).pool;
    world.put(keys::image(pool, InodeId(3)), r#"{"name":"a","size_bytes":512,"removing":true}"#);
    world.put(keys::last_inode(pool), "3");
    world.put(keys::scrub_order(group(5)), r#""scrub""#);
    world.put(keys::pg_scrub(group(5)), "{}");
    let going = |removing: bool| {
        let pool = r#""scheme":"replicated","pg_size":3,"pg_minsize":2,"pg_count":130"#;
        format!(r#"{{"1":{{"name":"p",{pool},"removing":{removing}}},"2":{{"name":"q",{pool}}}}}"#)
    };
    world.put(keys::pools(), &going(true));
    world.run_for(Duration::secs(3));
    world.settle();
    assert!(world.map().pool(pool).is_some(), "it has an image");
    world.kill_mon(0);
    world.start_mon();
    world.delete(keys::image(pool, InodeId(3)));
    world.run_for(Duration::secs(12));
    let map = world.map();
    assert!(map.is_removed(pool) && map.former_pools().is_some_and(|former| former.0[&pool] == "p"));
    assert_eq!((map.pg_maps().filter(|(pg, _)| pg.pool == pool).count(), map.pg_maps().count()), (0, 130));
    assert!(map.layout(pool).is_none() && map.histories(pool).next().is_none() && map.last_inode(pool).is_none());
    assert!(world.read("pg/scrub/").is_empty() && world.read("config/scrub/").is_empty());
}

#[test]
fn a_lock_ends_with_its_image_and_no_other() {
    let mut world = World::cluster(4, 2);
    let pool = group(0).pool;
    let image = |name: &str| format!(r#"{{"name":"{name}","size_bytes":512}}"#);
    world.put(keys::image(pool, InodeId(1)), &image("stays"));
    world.put(keys::image(pool, InodeId(2)), &image("goes"));
    world.put(keys::image(pool, InodeId(3)), "not what it should be");
    world.put(keys::last_inode(pool), "3");
    // Number 4 was not given yet, as far as the monitor knows: its image may be newer than what it has read.
    let locks = r#"{"fenced":{"9":{"reason":"r"}},"locks":{"1":{"1":7,"2":7,"3":7,"4":7}}}"#;
    world.put(keys::access(), locks);
    let kept = |world: &mut World| {
        let access = world.read("config/access");
        String::from_utf8(access[0].value.clone()).expect("JSON is text")
    };
    world.run_for(Duration::secs(3));
    assert_eq!(kept(&mut world), locks, "all of them are there, or may be");
    world.delete(keys::image(pool, InodeId(2)));
    world.run_for(Duration::secs(3));
    assert_eq!(kept(&mut world), r#"{"fenced":{"9":{"reason":"r"}},"locks":{"1":{"1":7,"3":7,"4":7}}}"#);
}

#[test]
fn a_pool_that_somebody_struck_off_by_hand_keeps_everything() {
    let mut world = World::cluster(4, 8);
    world.put(keys::pools(), "{}");
    world.run_for(Duration::secs(12));
    assert_eq!(world.map().pg_maps().count(), 8);
    assert!(!world.map().is_removed(group(0).pool));
}
