//! What subscribers get.

use super::*;
use crate::buf::BufPool;
use crate::io::Effects;
use crate::map::keys;
use crate::meta::{KeyValue, WatchEvent};
use crate::rng::Rng;

struct World {
    rng: Rng,
    bufs: BufPool,
    out: Effects,
    now: Time,
    map: ClusterMap,
    server: MapServer,
}

impl World {
    fn new() -> Self {
        World {
            rng: Rng::new(1),
            bufs: BufPool::new(),
            out: Effects::default(),
            now: Time(1),
            map: ClusterMap::default(),
            server: MapServer::new(),
        }
    }

    fn with<T>(&mut self, f: impl FnOnce(&mut MapServer, &mut Env<'_>, &mut ClusterMap) -> T) -> T {
        let World { rng, bufs, out, now, map, server } = self;
        let result = f(server, &mut Env { now: *now, rng, bufs, out }, map);
        server.check();
        result
    }

    fn read(&mut self, kvs: &[KeyValue], revision: u64) {
        self.with(|server, env, map| {
            let changes = map.apply_range(kvs, revision);
            server.changed(env, map, &changes);
        });
    }

    fn event(&mut self, event: WatchEvent, revision: u64) {
        self.with(|server, env, map| {
            let changes = map.apply_events(&[event], revision);
            server.changed(env, map, &changes);
        });
    }

    fn message(&mut self, link: u64, message: MapMessage) {
        self.with(|server, env, map| server.handle(env, map, LinkId(link), message));
    }

    fn subscribe(&mut self, link: u64, have: u64) {
        self.message(link, MapMessage::Subscribe { have: Revision(have) });
    }

    fn sent(&mut self) -> Vec<(u64, MapMessage)> {
        let take = |effect| match effect {
            Effect::Send { to, msg: Message::Map(message) } => (to.0, message),
            other => panic!("unexpected {other:?}"),
        };
        self.out.queue.drain(..).map(take).collect()
    }

    fn updates(&mut self) -> Vec<(u64, MapUpdate)> {
        let take = |(link, message)| match message {
            MapMessage::Update(update) => (link, update),
            other => panic!("unexpected {other:?}"),
        };
        self.sent().into_iter().map(take).collect()
    }
}

fn kv(key: String, value: &str, mod_revision: u64) -> KeyValue {
    KeyValue::written(key, value, mod_revision)
}

fn osd(id: u32, revision: u64) -> KeyValue {
    let json = r#"{"address":"h:1","store":"01234567-89ab-cdef-0123-456789abcdef","incarnation":7,"host":"h",
        "size_bytes":100,"trusted":true}"#;
    kv(keys::osd_state(OsdId(id)), json, revision)
}

fn pools(names: &[&str], revision: u64) -> KeyValue {
    let pool = |(n, name): (usize, &&str)| {
        format!(r#""{n}":{{"name":"{name}","scheme":"replicated","pg_size":1,"pg_minsize":1,"pg_count":70}}"#)
    };
    let all: Vec<_> = names.iter().enumerate().map(pool).collect();
    kv(keys::pools(), &format!("{{{}}}", all.join(",")), revision)
}

fn layout(pool: u32, generation: u16, revision: u64) -> KeyValue {
    kv(keys::layout(PoolId(pool)), &format!(r#"{{"generation":{generation},"pg_count":6400}}"#), revision)
}

fn chunk(number: u32, groups: std::ops::Range<u32>, epoch: u64, revision: u64) -> KeyValue {
    let group = |n| format!(r#""{n}":{{"epoch":{epoch},"target":[1],"acting":[null],"primary":null}}"#);
    let all: Vec<_> = groups.map(group).collect();
    kv(keys::pg_map(PoolId(0), number), &format!("{{{}}}", all.join(",")), revision)
}

fn image(pool: u32, inode: u64, name: &str, removing: bool) -> KeyValue {
    let json = format!(r#"{{"name":"{name}","size_bytes":4096,"removing":{removing}}}"#);
    kv(keys::image(PoolId(pool), InodeId(inode)), &json, 1)
}

#[test]
fn nothing_is_sent_before_the_first_map_then_everything() {
    let mut world = World::new();
    world.subscribe(1, 0);
    world.message(1, MapMessage::FindImage { token: 5, pool: None, name: "demo".into() });
    assert!(world.sent().is_empty());
    world.read(&[layout(0, 0, 1), pools(&["a"], 2), osd(1, 3), chunk(0, 0..2, 1, 4), image(0, 1, "demo", false)], 9);
    let sent = world.sent();
    assert!(matches!(&sent[0], (1, MapMessage::Image { token: 5, image: Some(image) }) if image.size_bytes == 4096));
    let (1, MapMessage::Update(update)) = &sent[1] else { panic!("{sent:?}") };
    assert!(update.full);
    assert_eq!((update.pools.len(), update.pgs.len(), update.osds.len()), (1, 2, 1));
    assert_eq!(update.revision, Revision(9));
}

#[test]
fn changes_are_pushed_at_once_and_then_together() {
    let mut world = World::new();
    world.read(&[layout(0, 0, 1), pools(&["a"], 2), osd(1, 3), chunk(0, 0..3, 1, 4)], 9);
    world.now = Time(0) + Duration::secs(1);
    world.subscribe(1, 0);
    world.updates();
    world.event(WatchEvent::Delete { key: keys::osd_state(OsdId(1)), revision: 10 }, 10);
    let updates = world.updates();
    assert_eq!(updates.len(), 1);
    assert_eq!(updates[0].1.osds, vec![OsdInfo { id: OsdId(1), address: String::new() }]);
    assert!(!updates[0].1.full && updates[0].1.pgs.is_empty());

    world.event(WatchEvent::Put(osd(1, 11)), 11);
    world.event(WatchEvent::Put(chunk(0, 0..3, 2, 12)), 12);
    assert!(world.updates().is_empty(), "coalesced");
    world.now = world.server.next_deadline().expect("pending");
    world.with(|server, env, map| server.tick(env, map));
    let updates = world.updates();
    assert_eq!((updates[0].1.osds.len(), updates[0].1.pgs.len()), (1, 3));
    assert_eq!(world.server.next_deadline(), None);
}

#[test]
fn a_known_map_is_continued_and_an_unknown_one_replaced() {
    let mut world = World::new();
    world.read(&[layout(0, 0, 1), pools(&["a"], 2), osd(1, 3), chunk(0, 0..3, 1, 4)], 9);
    world.event(WatchEvent::Put(osd(2, 12)), 12);
    world.subscribe(1, 9);
    let update = &world.updates()[0].1;
    assert!(!update.full);
    assert_eq!(update.osds, vec![OsdInfo { id: OsdId(2), address: "h:1".into() }]);
    world.subscribe(2, 8);
    assert!(world.updates()[0].1.full, "what was deleted after 8 is not known");
    world.subscribe(3, 30);
    assert_eq!(world.updates()[0].1.osds, vec![], "answered though it is ahead of us");
}

#[test]
fn a_removed_pool_is_told_by_a_full_map() {
    let mut world = World::new();
    world.read(&[layout(0, 0, 1), layout(1, 0, 1), pools(&["a", "b"], 2)], 9);
    world.subscribe(1, 0);
    world.updates();
    world.now = Time(0) + Duration::secs(1);
    world.event(WatchEvent::Put(pools(&["a"], 10)), 10);
    let update = &world.updates()[0].1;
    assert!(update.full);
    assert_eq!(update.pools.len(), 1);
}

#[test]
fn another_layout_is_told_with_its_groups_and_without_those_of_the_one_before() {
    let mut world = World::new();
    world.read(&[layout(0, 0, 1), pools(&["a"], 2), chunk(0, 0..3, 1, 4)], 9);
    world.subscribe(1, 0);
    world.updates();
    world.now = Time(0) + Duration::secs(1);
    world.event(WatchEvent::Put(layout(0, 1, 10)), 10);
    let update = &world.updates()[0].1;
    assert_eq!((update.pools[0].layout.generation, update.full, update.pgs.len()), (1, false, 0));
    world.now = Time(0) + Duration::secs(2);
    world.event(WatchEvent::Put(chunk(1024, 65_536..65_538, 2, 11)), 11);
    assert_eq!(world.updates()[0].1.pgs.len(), 2);
    world.now = Time(0) + Duration::secs(3);
    world.event(WatchEvent::Delete { key: keys::pg_map(PoolId(0), 0), revision: 12 }, 12);
    assert!(world.updates().is_empty(), "nobody asks for what was there before");
    world.subscribe(2, 0);
    let update = &world.updates()[0].1;
    assert_eq!((update.pools.len(), update.pgs.len()), (1, 2));
}

#[test]
fn a_large_map_comes_in_parts() {
    let mut world = World::new();
    let chunks = (0..100).map(|n| chunk(n, n * 64..(n + 1) * 64, 1, 4));
    world.read(&chunks.chain([layout(0, 0, 1)]).collect::<Vec<_>>(), 9);
    world.subscribe(1, 0);
    let updates = world.updates();
    assert_eq!(updates.iter().map(|(_, u)| u.pgs.len()).collect::<Vec<_>>(), [4096, 6400 - 4096]);
    assert_eq!(updates.iter().map(|(_, u)| u.full).collect::<Vec<_>>(), [true, false]);
    assert_eq!(updates.iter().map(|(_, u)| u.revision.0).collect::<Vec<_>>(), [0, 9]);
}

#[test]
fn images_are_listed_in_order_and_in_parts() {
    let mut world = World::new();
    let mut kvs = vec![pools(&["b", "a"], 1), image(1, 9, "gone", true), image(1, 1, "x", false)];
    kvs.extend((1..=300).map(|inode| image(0, inode, &format!("vm-{inode:03}"), false)));
    world.read(&kvs, 9);
    let mut list = |after: Option<&str>| {
        world.message(1, MapMessage::ListImages { token: 3, after: after.map(String::from) });
        match world.sent().pop() {
            Some((1, MapMessage::Images { token: 3, names, more })) => (names, more),
            other => panic!("{other:?}"),
        }
    };
    let (first, more) = list(None);
    assert!(more);
    assert_eq!((first[0].as_str(), first[1].as_str()), ("a/x", "b/vm-001"));
    let (rest, more) = list(first.last().map(String::as_str));
    assert!(!more);
    assert_eq!((first.len() + rest.len(), rest.last().map(String::as_str)), (301, Some("b/vm-300")));
    assert!(first.iter().chain(&rest).is_sorted());
}

#[test]
fn images_are_found_by_pool_or_if_unique() {
    let mut world = World::new();
    let images = [image(0, 1, "x", false), image(1, 1, "x", false), image(1, 2, "y", false), image(1, 3, "z", true)];
    let mut kvs = vec![pools(&["a", "b"], 1)];
    kvs.extend(images);
    world.read(&kvs, 9);
    let mut find = |pool: Option<&str>, name: &str| {
        world.message(1, MapMessage::FindImage { token: 1, pool: pool.map(String::from), name: name.into() });
        match world.sent().pop() {
            Some((1, MapMessage::Image { image, .. })) => image.map(|image| (image.pool.0, image.inode.0)),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(find(None, "x"), None);
    assert_eq!(find(Some("b"), "x"), Some((1, 1)));
    assert_eq!(find(None, "y"), Some((1, 2)));
    assert_eq!(find(None, "z"), None);
    assert_eq!(find(Some("c"), "y"), None);
}

#[test]
fn who_is_gone_gets_nothing() {
    let mut world = World::new();
    world.read(&[osd(1, 3)], 9);
    world.subscribe(1, 0);
    world.updates();
    world.server.link_down(LinkId(1));
    world.now = Time(0) + Duration::secs(1);
    world.event(WatchEvent::Put(osd(2, 12)), 12);
    assert!(world.updates().is_empty());
}
