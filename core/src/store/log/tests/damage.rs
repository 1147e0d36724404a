//! Damage to any single page of a device: rot, a write that was lost, one that went elsewhere, zeroes. It is found and
//! attributed, and nothing is ever silently wrong.

use super::faults::reopen;
use super::intents;
use super::world::{Shape, World, open_config};
use super::{Durability, SHAPE};
use crate::store::log::superblock::Superblock;
use crate::store::{ObjectStore, StoreState};
use crate::time::Duration;

const PAGE: usize = 4096;

/// What happened to a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Damage {
    /// A bit is another one.
    Rot,
    /// The last write never arrived: it is as it was some time ago.
    Lost,
    /// It holds what was meant for another page.
    Misdirected,
    /// It was discarded.
    Zeroed,
}

const KINDS: [Damage; 4] = [Damage::Rot, Damage::Lost, Damage::Misdirected, Damage::Zeroed];

/// How often what was found.
#[derive(Clone, Copy, Default, Debug)]
struct Found {
    tried: u64,
    /// It made no difference: nothing lives there.
    harmless: u64,
    /// The copy that it belongs to says so.
    damaged: u64,
    /// The store says that its metadata are not whole.
    untrusted: u64,
}

fn hurt(media: &mut [u8], earlier: &[u8], page: usize, kind: Damage) {
    let place = page * PAGE..(page + 1) * PAGE;
    match kind {
        Damage::Rot => media[place.start + 1000 + page % 97] ^= 0x10,
        Damage::Lost => media[place.clone()].copy_from_slice(&earlier[place]),
        Damage::Misdirected => {
            let other = (page + 5) * PAGE % media.len();
            media.copy_within(other..other + PAGE, place.start);
        }
        Damage::Zeroed => media[place].fill(0),
    }
}

/// Damages each page of what a run of operations left, one at a time and in each way.
fn sweep(shape: Shape, seeds: u64) -> Found {
    let mut found = Found::default();
    for seed in 0..seeds {
        let mut world = World::new(Shape { crashes: 0, ..shape }, seed);
        (0..1000).for_each(|_| world.step());
        world.drain();
        let earlier = world.data.media.clone();
        (0..600).for_each(|_| world.step());
        world.rest();
        let image = world.data.media.clone();
        for page in 0..image.len() / PAGE {
            for kind in KINDS {
                world.data.media.copy_from_slice(&image);
                hurt(&mut world.data.media, &earlier, page, kind);
                if world.data.media != image {
                    try_one(&mut world, &shape, &mut found, &format!("seed {seed} page {page} {kind:?}"));
                }
            }
        }
    }
    found
}

fn try_one(world: &mut World, shape: &Shape, found: &mut Found, what: &str) {
    found.tried += 1;
    match reopen(world, open_config(shape)) {
        StoreState::Open { trusted: true } => match world.check_current(what) {
            0 => found.harmless += 1,
            _ => found.damaged += 1,
        },
        StoreState::Open { trusted: false } => {
            found.untrusted += 1;
            // It takes no writes; what it shows was once so.
            world.check_contents();
        }
        other => panic!("{what}: {other:?}"),
    }
    world.store.check();
}

#[test]
fn damage_to_any_page_is_found() {
    let shapes = [
        ("intents", Shape { overwrites: intents(4096), ..SHAPE }),
        ("flush", Shape { durability: Durability::Flush, objects: 8, ..SHAPE }),
    ];
    for (name, shape) in shapes {
        let found = sweep(shape, 2);
        eprintln!("{name:10} {found:?}");
        assert!(found.harmless > 0 && found.damaged > 0 && found.untrusted > 0, "{found:?}");
    }
}

/// Time for two passes of the scrub, and for what it has to mend.
fn scrub(world: &mut World) {
    let passes = world.store.stats().log_scrubs + 3;
    while world.store.stats().log_scrubs < passes {
        world.pass_time();
        world.rest();
    }
}

/// A run of operations, at rest; and the bytes in front of the blocks.
fn scrubbed_world(shape: Shape, seed: u64) -> (World, usize) {
    let mut world = World::new(Shape { crashes: 0, scrub: Duration::millis(20), ..shape }, seed);
    (0..1500).for_each(|_| world.step());
    world.rest();
    let superblock = Superblock::decode(&world.data.media[..PAGE]).unwrap();
    let end = superblock.data_place(0, 0) as usize;
    (world, end)
}

/// Each page of superblocks and log is damaged while the store is open, and nobody reads it but the scrub.
fn sweep_scrubbed(shape: Shape, seed: u64, step: usize) -> u64 {
    let (mut world, end) = scrubbed_world(shape, seed);
    let (store, image, now) = (world.store.clone(), world.data.media.clone(), world.now);
    let mut mended = 0;
    for page in (0..end / PAGE).step_by(step) {
        let kind = KINDS[page / step % KINDS.len()];
        (world.store, world.now) = (store.clone(), now);
        world.data.media.copy_from_slice(&image);
        hurt(&mut world.data.media, &vec![0; image.len()], page, kind);
        scrub(&mut world);
        let what = format!("page {page} {kind:?}");
        mended += world.store.stats().damaged_pages;
        assert_eq!(reopen(&mut world, open_config(&shape)), StoreState::Open { trusted: true }, "{what}");
        assert_eq!(world.check_current(&what), 0, "{what}");
        world.store.check();
    }
    mended
}

#[test]
pub fn damage_to_the_log_is_mended_before_an_opening_finds_it() {
    for (seed, shape) in [(1, SHAPE), (2, Shape { durability: Durability::Flush, objects: 8, ..SHAPE })] {
        let mended = sweep_scrubbed(shape, seed, 3);
        assert!(mended > 3, "{mended} pages mended");
    }
}

#[test]
fn a_part_of_the_log_that_cannot_be_read_is_left_and_written_over() {
    let (mut world, end) = scrubbed_world(SHAPE, 3);
    let (store, image, now) = (world.store.clone(), world.data.media.clone(), world.now);
    for at in (128 << 10..end).step_by(48 << 10) {
        (world.store, world.now) = (store.clone(), now);
        world.data.media.copy_from_slice(&image);
        world.data.unreadable = at..at + 512;
        scrub(&mut world);
        scrub(&mut world);
        let free = world.store.stats().damaged_pages == 0;
        assert!(free || world.data.unreadable.is_empty(), "byte {at}");
        world.data.unreadable = 0..0;
        assert_eq!(reopen(&mut world, open_config(&SHAPE)), StoreState::Open { trusted: true }, "byte {at}");
        assert_eq!(world.check_current("unreadable"), 0);
    }
}
