//! Damage to any single page of a device: rot, a write that was lost, one that went elsewhere, zeroes. It is found and
//! attributed, and nothing is ever silently wrong.

use super::faults::reopen;
use super::intents;
use super::world::{Shape, World, open_config};
use super::{Durability, SHAPE};
use crate::store::{ObjectStore, StoreState};

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
