//! An image is removed: what the world does for it, and what must come of it.

use super::*;
use crate::map::{ClusterMap, Image};
use crate::pg::images::Images;

const IMAGE: InodeId = InodeId(1);

impl World {
    /// What the metadata store says of images.
    pub(super) fn images(&self) -> Images {
        let names = [keys::image(POOL, IMAGE), keys::last_inode(POOL)];
        let read = |name: String| self.meta.range(&meta::Span::one(name), 0).expect("never compacted");
        let kvs: Vec<meta::KeyValue> = names.into_iter().flat_map(read).map(|kv| meta::KeyValue::clone(&kv)).collect();
        let mut map = ClusterMap::default();
        map.apply_range(&kvs, 1);
        let mut images = Images::default();
        images.set_last(&map, POOL);
        let key = crate::map::parse::Key::Image(POOL, IMAGE);
        if let Some(image) = map.image(POOL, IMAGE) {
            images.set(POOL, IMAGE, Some(image), map.create_revision(key));
        }
        images
    }

    /// Marks the image for removal; nobody hears of it yet.
    fn mark_image(&mut self) {
        let image = Image {
            name: "a".into(),
            size_bytes: 1 << 30,
            parent: None,
            read_only: false,
            snapshot: false,
            removing: true,
        };
        let put = |key: String, value: Vec<u8>| meta::TxnOp::Put { key, value, lease: 0 };
        let success = vec![
            put(keys::image(POOL, IMAGE), serde_json::to_vec(&image).unwrap()),
            put(keys::last_inode(POOL), b"1".to_vec()),
        ];
        let txn = meta::Txn { compare: Vec::new(), success, failure: Vec::new() };
        self.meta.apply(self.now, meta::Request::Txn(txn)).unwrap();
    }

    /// All OSDs hear what the metadata store says of images.
    fn tell_images(&mut self) {
        for osd in 0..self.osds.len() {
            let images = self.images();
            self.with(osd, |groups, env| {
                groups.node_mut().images = images;
                groups.with_all(env, |pg, host| pg.images_changed(host));
            });
        }
    }

    fn is_reported(&self) -> bool {
        let key = keys::removed(self.first_group(), IMAGE);
        !self.meta.range(&meta::Span::one(key), 0).expect("never compacted").is_empty()
    }

    fn is_active(&self) -> bool {
        self.primary().and_then(|pg| pg.summary()).is_some_and(|summary| summary.state == "active")
    }

    fn run_until(&mut self, limit: Duration, done: impl Fn(&World) -> bool) -> bool {
        let end = self.now + limit;
        while self.now < end && !done(self) && self.step() {}
        done(self)
    }

    /// Copies that are more than tombstones, on all OSDs that are up.
    fn live_copies(&self) -> usize {
        let up = (0..self.osds.len()).filter(|osd| self.is_up(*osd));
        up.flat_map(|osd| self.newest(osd)).filter(|(_, _, tombstone)| !tombstone).count()
    }
}

/// A world at rest with some objects.
fn filled(seed: u64, objects: u64) -> World {
    filled_as(Shape::replicated(), seed, objects)
}

fn filled_as(shape: Shape, seed: u64, objects: u64) -> World {
    let mut world = World::shaped(seed, Faults::default(), shape);
    world.heal().expect("heals");
    (0..objects).for_each(|stripe| world.put(100 + stripe, 1000 + stripe));
    world.heal().expect("heals");
    world
}

#[test]
fn a_removed_images_objects_are_deleted_and_none_comes_back() {
    let mut world = filled(1, 40);
    world.mark_image();
    world.tell_images();
    assert!(world.run_until(Duration::secs(10), World::is_reported), "it ends");
    assert_eq!(world.live_copies(), 0);
    assert_eq!(world.try_put(100, 7).err(), Some(Refusal::NoSuchImage));
    assert_eq!(world.get(100).err(), Some(Refusal::NoSuchImage));
}

#[test]
fn a_change_of_other_groups_maps_holds_no_report_up() {
    let mut world = filled(2, 3);
    let key = keys::pg_map(POOL, 0);
    let kvs = world.meta.range(&meta::Span::one(key.clone()), 0).expect("never compacted");
    let same = meta::TxnOp::Put { key, value: kvs[0].value.clone(), lease: 0 };
    let txn = meta::Txn { compare: Vec::new(), success: vec![same], failure: Vec::new() };
    world.meta.apply(world.now, meta::Request::Txn(txn)).unwrap();
    world.mark_image();
    world.tell_images();
    assert!(world.run_until(Duration::secs(2), World::is_reported));
    assert!(world.marks.contains("a report of removed images failed"));
}

fn goes_on(shape: impl Fn() -> Shape, seed: u64) {
    let mut world = filled_as(shape(), seed, 60);
    let victim = usize::try_from(world.acting()[usize::try_from(seed % 3).expect("small")].0).expect("small");
    world.mark_image();
    world.tell_images();
    let steps = Duration::micros(500 + seed * 400);
    assert!(!world.run_until(steps, World::is_reported), "seed {seed}: the removal is under way");
    world.crash(victim);
    assert!(world.run_until(Duration::secs(20), World::is_reported), "seed {seed}: it ends without osd.{victim}");
    world.heal().unwrap_or_else(|stuck| panic!("seed {seed}: {stuck}"));
    assert_eq!(world.live_copies(), 0, "seed {seed}: what came back with osd.{victim}");
}

#[test]
fn removal_goes_on_when_primaries_and_members_come_and_go() {
    (0..12).for_each(|seed| goes_on(Shape::replicated, seed));
}

#[test]
fn removal_leaves_no_incomplete_stripes() {
    (0..8).for_each(|seed| goes_on(|| Shape::striped(Scheme::Ec, 2, 1, 2), seed));
    (8..12).for_each(|seed| goes_on(|| Shape::striped(Scheme::Ec, 4, 2, 5), seed));
}

#[test]
fn a_primary_that_has_not_heard_of_the_mark_does_not_serve() {
    let mut world = filled(3, 5);
    let first = world.acting()[0];
    world.mark_image();
    world.crash(usize::try_from(first.0).expect("small"));
    let waits = |world: &World| world.marks.contains("peering waits for news of removed images");
    assert!(world.run_until(Duration::secs(2), waits));
    assert!(world.current_map().0.primary != Some(first) && world.primary().is_some());
    assert!(!world.run_until(Duration::secs(2), World::is_active));
    world.tell_images();
    assert!(world.run_until(Duration::secs(10), World::is_reported));
    assert_eq!(world.live_copies(), 0);
}
