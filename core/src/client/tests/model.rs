//! Random operations under random misfortune, against a model of every byte.
//!
//! Writes that overlap take effect in the order of their submission, so each byte has a history; a read may see
//! anything from the last value acknowledged before it began to the last one submitted before it ended, and what is
//! there at the end is the last of each history.

use super::super::*;
use super::world::{Faults, IMAGE, OBJECT, World};
use crate::rng::Rng;
use crate::time::Duration;
use std::collections::BTreeMap;

struct Change {
    offset: u64,
    len: u64,
    value: u8,
    acknowledged: bool,
}

struct ReadUnderWay {
    offset: u64,
    /// By byte: the place in its history that was acknowledged when the read began.
    floor: Vec<usize>,
}

#[derive(Default)]
struct Model {
    changes: Vec<Change>,
    /// By byte: changes that touch it, in order.
    history: Vec<Vec<usize>>,
    writes: BTreeMap<OpId, usize>,
    reads: BTreeMap<OpId, ReadUnderWay>,
    /// By flush under way, by byte: as of a read.
    flushes: BTreeMap<OpId, Vec<usize>>,
}

impl Model {
    fn new() -> Self {
        Model { history: vec![Vec::new(); usize::try_from(IMAGE).unwrap()], ..Model::default() }
    }

    fn bytes(&self, offset: u64, len: u64) -> &[Vec<usize>] {
        &self.history[usize::try_from(offset).unwrap()..usize::try_from(offset + len).unwrap()]
    }

    fn begin_write(&mut self, op: OpId, offset: u64, len: u64, value: u8) {
        let change = self.changes.len();
        self.changes.push(Change { offset, len, value, acknowledged: false });
        for byte in offset..offset + len {
            self.history[usize::try_from(byte).unwrap()].push(change);
        }
        self.writes.insert(op, change);
    }

    /// Number of changes of this byte up to the last acknowledged one.
    fn floor(&self, history: &[usize]) -> usize {
        history.iter().rposition(|change| self.changes[*change].acknowledged).map_or(0, |place| place + 1)
    }

    fn begin_read(&mut self, op: OpId, offset: u64, len: u64) {
        let floor = self.bytes(offset, len).iter().map(|history| self.floor(history)).collect();
        self.reads.insert(op, ReadUnderWay { offset, floor });
    }

    fn begin_flush(&mut self, op: OpId) {
        let floor = self.history.iter().map(|history| self.floor(history)).collect();
        self.flushes.insert(op, floor);
    }

    /// A flush is done: what was acknowledged before it began is durable.
    fn end_flush(&mut self, op: OpId, durable: &[u8]) {
        let floor = self.flushes.remove(&op).expect("a flush ends once");
        for ((at, value), floor) in (0..).zip(durable).zip(floor) {
            self.check_byte(at, *value, floor);
        }
    }

    fn end(&mut self, completion: Completion) {
        if let Some(change) = self.writes.remove(&completion.op) {
            assert_eq!(completion.result, Ok(Outcome::Done));
            self.changes[change].acknowledged = true;
            return;
        }
        let read = self.reads.remove(&completion.op).expect("an operation completes once");
        let Ok(Outcome::Read(pieces)) = completion.result else { panic!("{:?}", completion.result) };
        let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.bytes()).copied().collect();
        assert_eq!(bytes.len(), read.floor.len());
        for (place, (value, floor)) in bytes.iter().zip(&read.floor).enumerate() {
            let at = read.offset + u64::try_from(place).unwrap();
            self.check_byte(at, *value, *floor);
        }
    }

    fn check_byte(&self, at: u64, value: u8, floor: usize) {
        let history = &self.bytes(at, 1)[0];
        let untouched = floor == 0 && value == 0;
        let values = || history[floor.saturating_sub(1)..].iter().map(|change| self.changes[*change].value);
        assert!(
            untouched || values().any(|v| v == value),
            "byte {at} is {value}, not {:?}",
            values().collect::<Vec<_>>()
        );
    }

    fn last(&self, at: u64) -> u8 {
        self.bytes(at, 1)[0].last().map_or(0, |change| self.changes[*change].value)
    }
}

/// A range: often on sectors, sometimes long, sometimes of whole objects.
fn range(rng: &mut Rng) -> (u64, u64) {
    let object = u64::from(OBJECT);
    let (start, len) = match rng.below(4) {
        0 => (rng.below(IMAGE), rng.between(1, 3 * object)),
        1 => (rng.below(5) * object, rng.between(1, 3) * object),
        _ => (rng.below(IMAGE / 512) * 512, rng.between(1, 4) * 512),
    };
    (start, len.min(IMAGE - start))
}

fn submit(world: &mut World, model: &mut Model, image: ImageId) {
    let mut rng = world.rng.fork();
    let (offset, len) = range(&mut rng);
    let length = u32::try_from(len).unwrap();
    let value = u8::try_from(rng.between(1, 255)).unwrap();
    if world.lazy && rng.chance(1, 12) {
        let id = world.with(|client, env| client.submit(env, image, ImageOp::Flush)).expect("there is room");
        return model.begin_flush(id);
    }
    let no_hole = rng.chance(1, 2);
    let (op, value) = match rng.below(10) {
        0..4 => (ImageOp::Read { offset, len: length }, None),
        4 => (ImageOp::WriteZeroes { offset, len, no_hole }, Some(0)),
        5 if offset % 512 == 0 && (len % 512 == 0 || offset + len == IMAGE) => {
            // Only what covers whole sectors or the last one wholly is promised.
            let end = if offset % u64::from(OBJECT) == 0 && offset + len == IMAGE { len } else { len / 512 * 512 };
            return discard(world, model, image, offset, len, end);
        }
        _ => {
            let data = world.bufs.copy_of(&vec![value; length as usize]);
            (ImageOp::Write { offset, data }, Some(value))
        }
    };
    let id = world.with(|client, env| client.submit(env, image, op)).expect("there is room");
    match value {
        Some(value) => model.begin_write(id, offset, len, value),
        None => model.begin_read(id, offset, len),
    }
}

fn discard(world: &mut World, model: &mut Model, image: ImageId, offset: u64, len: u64, certain: u64) {
    let last_object = (offset + len - 1) / u64::from(OBJECT) * u64::from(OBJECT);
    let whole_tail = offset <= last_object && offset + len == IMAGE;
    let certain = if whole_tail { len } else { certain };
    let id = world.with(|client, env| client.submit(env, image, ImageOp::Discard { offset, len })).expect("room");
    model.begin_write(id, offset, certain, 0);
}

fn drain(world: &mut World, model: &mut Model) {
    while let Some(completion) = world.client.next_completion() {
        if model.flushes.contains_key(&completion.op) {
            assert_eq!(completion.result, Ok(Outcome::Done));
            model.end_flush(completion.op, &world.durable_image());
            continue;
        }
        model.end(completion);
    }
}

fn run(seed: u64, faults: Faults) -> (u64, World) {
    let mut world = World::new(seed);
    let image = super::opened(&mut world);
    let mut model = Model::new();
    world.faults = faults;
    world.lazy = faults.lazy;
    let mut submitted = 0;
    let mut steps = 0u64;
    while submitted < 300 {
        steps += 1;
        assert!(steps < 1_000_000, "operations that never end");
        if world.client.pending() < 24 && world.rng.chance(1, 12) {
            submit(&mut world, &mut model, image);
            submitted += 1;
        }
        world.step();
        drain(&mut world, &mut model);
    }
    world.faults = Faults::default();
    for place in 0..world.pgs.len() {
        world.set_primary(place, Some(crate::id::OsdId(1)));
    }
    world.run(Duration::secs(120));
    drain(&mut world, &mut model);
    assert!(model.writes.is_empty() && model.reads.is_empty(), "operations that never end");
    if faults.lazy {
        let flushed = super::done(&mut world, image, ImageOp::Flush);
        assert_eq!(flushed, Ok(Outcome::Done));
        for (at, byte) in (0..).zip(world.durable_image()) {
            assert_eq!(byte, model.last(at), "byte {at} is not durable after a flush");
        }
    }
    let bytes = super::read(&mut world, image, 0, u32::try_from(IMAGE).unwrap());
    for (at, byte) in (0..).zip(bytes) {
        assert_eq!(byte, model.last(at), "byte {at} at the end");
    }
    assert!((1..).zip(&world.numbers).all(|(expected, number)| expected == *number), "numbers have gaps");
    let covered = model.changes.iter().map(|change| change.offset + change.len).max();
    assert!(covered.is_some_and(|end| end <= IMAGE));
    (submitted, world)
}

fn seeds(faults: Faults) -> ClientStats {
    let mut total = ClientStats::default();
    for seed in 0..60 {
        let outcome = std::panic::catch_unwind(|| run(seed, faults).1.client.stats());
        let stats = outcome.unwrap_or_else(|_| panic!("seed {seed}"));
        total.requests += stats.requests;
        total.retries += stats.retries;
        total.stale_replies += stats.stale_replies;
        total.damaged_replies += stats.damaged_replies;
        total.links_lost += stats.links_lost;
        total.replays += stats.replays;
        total.syncs += stats.syncs;
    }
    total
}

#[test]
fn without_misfortune_nothing_is_retried() {
    let total = seeds(Faults::default());
    // The changes of primary at the end are the only reason.
    assert!(total.retries * 20 < total.requests, "{total:?}");
    assert_eq!((total.damaged_replies, total.links_lost), (0, 0));
}

#[test]
fn refusals_damage_and_rivals() {
    let total = seeds(Faults { refuse_request: 200, damage_reply: 100, foreign_change: 3, ..Faults::default() });
    assert!(total.retries > 1000 && total.damaged_replies > 100, "{total:?}");
}

#[test]
fn lost_and_silent_connections() {
    let total = seeds(Faults { drop_link: 15, silence_link: 1, refuse_connection: 300, ..Faults::default() });
    assert!(total.links_lost > 500, "{total:?}");
}

#[test]
fn primaries_that_change_and_maps_that_lag() {
    let total = seeds(Faults { change_primary: 15, no_primary: 2, stale_seed: 300, ..Faults::default() });
    assert!(total.stale_replies > 100, "{total:?}");
}

#[test]
fn everything_at_once() {
    let faults = Faults {
        drop_link: 5,
        silence_link: 1,
        refuse_connection: 200,
        change_primary: 5,
        no_primary: 1,
        refuse_request: 100,
        damage_reply: 50,
        foreign_change: 2,
        stale_seed: 200,
        ..Faults::default()
    };
    let total = seeds(faults);
    assert!(total.links_lost > 100 && total.retries > 1000, "{total:?}");
}

#[test]
fn a_lazy_pool_syncs_and_nothing_is_replayed_without_need() {
    let total = seeds(Faults { lazy: true, ..Faults::default() });
    // The changes of primary at the end are the only reason.
    assert!(total.syncs > 1000 && total.replays < 1000, "{total:?}");
}

#[test]
fn unsynced_writes_survive_changes_of_primary_and_power_loss() {
    let total = seeds(Faults { lazy: true, change_primary: 5, power_loss: 5, stale_seed: 300, ..Faults::default() });
    assert!(total.replays > 2000, "{total:?}");
}

const LAZY: Faults = Faults {
    drop_link: 5,
    silence_link: 1,
    refuse_connection: 200,
    change_primary: 5,
    no_primary: 1,
    refuse_request: 100,
    damage_reply: 50,
    foreign_change: 2,
    stale_seed: 200,
    power_loss: 5,
    relayout: 0,
    lazy: true,
};

#[test]
fn everything_at_once_in_a_lazy_pool() {
    let total = seeds(LAZY);
    assert!(total.links_lost > 100 && total.replays > 1000 && total.syncs > 1000, "{total:?}");
}

#[test]
fn the_number_of_groups_changes() {
    let total = seeds(Faults { relayout: 5, stale_seed: 200, ..Faults::default() });
    assert!(total.retries > 100, "{total:?}");
    seeds(Faults { relayout: 3, lazy: false, power_loss: 0, ..LAZY });
}

#[test]
fn the_number_of_groups_of_a_lazy_pool_changes() {
    let total = seeds(Faults { relayout: 5, lazy: true, stale_seed: 200, ..Faults::default() });
    assert!(total.replays > 1000, "{total:?}");
    seeds(Faults { relayout: 3, ..LAZY });
}

#[cfg(feature = "planted")]
#[test]
fn mistakes_of_replay_are_found() {
    use crate::planted::{Bug, plant};
    for bug in [Bug::SkipReplay, Bug::ReplayNothing] {
        plant(Some(bug));
        let found = (0..60).any(|seed| std::panic::catch_unwind(|| run(seed, LAZY)).is_err());
        plant(None);
        assert!(found, "{}", bug.name());
    }
}
