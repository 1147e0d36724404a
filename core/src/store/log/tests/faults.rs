//! Faults of devices: refused, reported or survived, never wrong data.

use super::SHAPE;
use super::device::Loss;
use super::world::{BLOCK, Shape, World, copy, open_config};
use crate::id::{ClusterUuid, Epoch, OsdId, Requests, Version};
use crate::io::{Env, IoId};
use crate::store::log::superblock::Superblock;
use crate::store::log::{Durability, LogStore, OpenConfig, page};
use crate::store::{Bitmap, Completion, Data, Mode, ObjectStore, Patch, StoreError, StoreOp, StoreReply, StoreState};

fn version(seq: u64) -> Version {
    Version { epoch: Epoch(2), seq }
}

fn write(world: &mut World, seq: u64, offset: u32, len: u32) -> StoreOp {
    let mut buf = world.bufs.alloc(len);
    buf.bytes_mut().fill(u8::try_from(seq).unwrap());
    StoreOp::Write {
        copy: copy(0),
        version: version(seq),
        predecessor: if seq == 1 { Version::NONE } else { version(seq - 1) },
        offset,
        data: Some(Data::new(world.bufs.freeze(buf))),
        mode: Mode::Plain,
        commits_predecessor: false,
        requests: Requests::new(),
    }
}

/// Completes everything that is under way; answers come back.
fn settle(world: &mut World) -> Vec<Completion> {
    let mut completions = Vec::new();
    for _ in 0..50 {
        let env = &mut Env { now: world.now, rng: &mut world.rng, bufs: &mut world.bufs, out: &mut world.out };
        world.store.end_of_round(env);
        world.dispatch();
        while world.data.outstanding() > 0 {
            let (id, done) = world.data.complete(&mut world.rng, &mut world.bufs);
            let env = &mut Env { now: world.now, rng: &mut world.rng, bufs: &mut world.bufs, out: &mut world.out };
            world.store.handle_io(env, id, done);
            world.dispatch();
        }
        completions.extend(std::iter::from_fn(|| world.store.next_completion()));
    }
    completions
}

fn run(world: &mut World, op: StoreOp) -> Option<Result<StoreReply, StoreError>> {
    world.submit(op);
    world.dispatch();
    settle(world).pop().map(|completion| completion.result)
}

pub fn reopen(world: &mut World, config: OpenConfig) -> StoreState {
    world.crash_devices(Loss::Power);
    let env = &mut Env { now: world.now, rng: &mut world.rng, bufs: &mut world.bufs, out: &mut world.out };
    world.store = LogStore::open(config, env);
    world.dispatch();
    settle(world);
    world.store.state()
}

fn superblock(world: &World) -> Superblock {
    Superblock::decode(&world.data.media[..4096]).unwrap()
}

fn refusal(state: StoreState) -> String {
    match state {
        StoreState::Failed(reason) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

const READ: StoreOp = StoreOp::Read {
    copy: crate::id::CopyId { object: OBJECT, role: crate::id::Role(0) },
    version: None,
    offset: 4096,
    len: 4096,
};
const OBJECT: crate::id::ObjectId =
    crate::id::ObjectId { pool: crate::id::PoolId(1), inode: crate::id::InodeId(5), stripe: 0 };

#[test]
fn rot_is_found_on_read_and_reported_from_then_on() {
    let mut world = World::new(SHAPE, 1);
    let op = write(&mut world, 1, 0, BLOCK);
    assert_eq!(run(&mut world, op), Some(Ok(StoreReply::Done)));
    let at = world.data.media.windows(4096).position(|unit| unit == [1; 4096]).unwrap();
    world.data.media[at + 4096 + 17] ^= 4;
    assert_eq!(run(&mut world, READ), Some(Err(StoreError::Damaged { offset: 4096, len: 4096 })));
    assert!(world.store.lookup(copy(0)).unwrap().committed.unwrap().damaged);
    assert_eq!(world.store.stats().damaged, 1);
    let rest = StoreOp::Read { copy: copy(0), version: None, offset: 0, len: 4096 };
    assert!(matches!(run(&mut world, rest), Some(Ok(StoreReply::Read { .. }))));
    // A write that needs what is damaged is refused; one that replaces it heals.
    let op = write(&mut world, 2, 4608, 512);
    assert_eq!(run(&mut world, op), Some(Err(StoreError::Damaged { offset: 4096, len: 4096 })));
    let op = write(&mut world, 2, 0, BLOCK);
    assert_eq!(run(&mut world, op), Some(Ok(StoreReply::Done)));
    assert!(!world.store.lookup(copy(0)).unwrap().committed.unwrap().damaged);
}

#[test]
fn a_body_that_does_not_match_its_checksum_is_refused() {
    let mut world = World::new(SHAPE, 1);
    let mut op = write(&mut world, 1, 512, 9 * 512);
    if let StoreOp::Write { data: Some(data), .. } = &mut op {
        data.crc ^= 1;
    }
    assert_eq!(run(&mut world, op), Some(Err(StoreError::BadChecksum)));
    assert_eq!(world.store.lookup(copy(0)), None);
}

/// A patch of the unit at `offset`, from version 1 to 3.
fn patch(world: &mut World, offset: u32, sum: Option<u64>) -> StoreOp {
    let StoreOp::Write { data: Some(data), .. } = write(world, 3, offset, 4096) else { unreachable!() };
    let mut bitmap = Bitmap::default();
    bitmap.set(offset / 512, 8, true);
    StoreOp::Patch {
        copy: copy(0),
        base: version(1),
        version: version(3),
        predecessor: version(2),
        patch: Box::new(Patch { ranges: vec![(offset, 4096)], bitmap, sum, data }),
        requests: Requests::new(),
    }
}

#[test]
fn a_patch_is_taken_only_on_exactly_its_base_and_only_if_it_gives_the_right_sum() {
    let mut world = World::new(SHAPE, 1);
    let op = patch(&mut world, 4096, None);
    assert_eq!(run(&mut world, op), Some(Err(StoreError::WrongPredecessor(Version::NONE))));
    let whole = write(&mut world, 1, 0, BLOCK);
    run(&mut world, whole);
    let before = world.store.content_sum(copy(0), version(1));
    let op = patch(&mut world, 4096, before);
    assert_eq!(run(&mut world, op), Some(Err(StoreError::Mismatch)), "the range differs");
    let op = patch(&mut world, 4096, None);
    assert_eq!(run(&mut world, op), Some(Ok(StoreReply::Done)));
    let after = world.store.content_sum(copy(0), version(3));
    assert!(after.is_some() && after != before && world.store.content_sum(copy(0), version(1)).is_none());
    let op = patch(&mut world, 4096, after);
    assert_eq!(run(&mut world, op), Some(Err(StoreError::WrongPredecessor(version(3)))));
    // The same patch on the same base gives the same sum.
    let mut other = World::new(SHAPE, 2);
    let whole = write(&mut other, 1, 0, BLOCK);
    run(&mut other, whole);
    let op = patch(&mut other, 4096, after);
    assert_eq!(run(&mut other, op), Some(Ok(StoreReply::Done)));
    assert_eq!(reopen(&mut world, open_config(&SHAPE)), StoreState::Open { trusted: true });
    assert_eq!(world.store.content_sum(copy(0), version(3)), after, "replay gives the same");
}

#[test]
fn a_patch_of_what_is_damaged_or_has_no_data_is_refused() {
    let mut world = World::new(SHAPE, 1);
    let alone = StoreOp::Write {
        copy: copy(0),
        version: version(1),
        predecessor: Version::NONE,
        offset: 0,
        data: None,
        mode: Mode::Plain,
        commits_predecessor: false,
        requests: Requests::new(),
    };
    run(&mut world, alone);
    let op = patch(&mut world, 0, None);
    assert_eq!(run(&mut world, op), Some(Err(StoreError::NoSuchVersion)));
    let mut world = World::new(SHAPE, 1);
    let whole = write(&mut world, 1, 0, BLOCK);
    run(&mut world, whole);
    let at = world.data.media.windows(4096).position(|unit| unit == [1; 4096]).unwrap();
    world.data.media[at + 4096 + 17] ^= 4;
    run(&mut world, READ);
    let op = patch(&mut world, 4096, None);
    assert_eq!(run(&mut world, op), Some(Err(StoreError::Damaged { offset: 0, len: 0 })));
}

#[test]
fn a_damaged_page_that_a_later_one_vouches_for_is_lost_metadata() {
    let mut world = World::new(SHAPE, 1);
    for seq in 1..=4 {
        let op = write(&mut world, seq, 0, if seq == 1 { BLOCK } else { 4096 });
        assert_eq!(run(&mut world, op), Some(Ok(StoreReply::Done)));
    }
    let superblock = superblock(&world);
    let mut places = Vec::new();
    let first = superblock.log_place(0, 0) as usize;
    let segment = &world.data.media[first..first + superblock.segment_size as usize];
    page::scan(superblock.store, 0, segment, |header, _| places.push(header.unit));
    assert!(places.len() > 3);
    let hurt = superblock.log_place(0, places[2]) as usize + 100;
    world.data.media[hurt] ^= 1;
    assert_eq!(reopen(&mut world, open_config(&SHAPE)), StoreState::Open { trusted: false });
    let op = write(&mut world, 9, 0, 4096);
    assert_eq!(run(&mut world, op), Some(Err(StoreError::Stopped)));
    // What there is can still be read.
    let found = world.store.lookup(copy(0)).unwrap().committed.unwrap();
    assert_eq!(found.version, version(1));
    assert!(matches!(run(&mut world, READ), Some(Ok(StoreReply::Read { .. }))));
}

#[test]
fn what_is_not_this_store_is_refused_with_the_reason() {
    let config = open_config(&SHAPE);
    let mut world = World::new(SHAPE, 1);
    let reason = refusal(reopen(&mut world, OpenConfig { cluster: ClusterUuid(5), ..config }));
    assert!(reason.starts_with("the store belongs to cluster"), "{reason}");
    let reason = refusal(reopen(&mut world, OpenConfig { osd: OsdId(4), ..config }));
    assert_eq!(reason, "the store belongs to osd.3, not to osd.4");
    let reason = refusal(reopen(&mut world, OpenConfig { data_bytes: 1 << 19, ..config }));
    assert!(reason.starts_with("the store needs"), "{reason}");
    // One copy of the superblock is enough.
    world.data.media[..4096].fill(9);
    assert_eq!(reopen(&mut world, config), StoreState::Open { trusted: true });
    world.data.media[65536 + 50] ^= 1;
    assert_eq!(refusal(reopen(&mut world, config)), "both superblocks of the store are damaged");
    world.data.media[65536 + 8] = 2;
    assert_eq!(refusal(reopen(&mut world, config)), "the store has format 2; this version reads formats up to 1");
    world.data.media[65536..65536 + 4096].fill(0);
    assert_eq!(refusal(reopen(&mut world, config)), "the device holds something else than a store");
    world.data.media[..4096].fill(0);
    assert_eq!(refusal(reopen(&mut world, config)), "there is no store on the device");
}

#[test]
fn after_a_failed_flush_or_write_nothing_is_acknowledged() {
    for fail_flush in [true, false] {
        let mut world = World::new(Shape { durability: Durability::Flush, ..SHAPE }, 1);
        let op = write(&mut world, 1, 0, BLOCK);
        assert_eq!(run(&mut world, op), Some(Ok(StoreReply::Done)));
        (world.data.fail_flush, world.data.fail_write) = (fail_flush, !fail_flush);
        let op = write(&mut world, 2, 0, 4096);
        assert_eq!(run(&mut world, op), None);
        assert!(matches!(world.store.state(), StoreState::Failed(_)));
        let op = write(&mut world, 3, 0, 4096);
        assert_eq!(run(&mut world, op), Some(Err(StoreError::Stopped)));
        assert_eq!(reopen(&mut world, open_config(&SHAPE)), StoreState::Open { trusted: true });
        let seen = world.store.lookup(copy(0)).unwrap().committed.unwrap().version;
        assert!(seen == version(1) || seen == version(2));
    }
}

#[test]
fn completions_that_belong_to_nothing_are_ignored() {
    let mut world = World::new(SHAPE, 1);
    let env = &mut Env { now: world.now, rng: &mut world.rng, bufs: &mut world.bufs, out: &mut world.out };
    world.store.handle_io(env, IoId(7 << 32), crate::io::DiskDone::Done(Ok(())));
    world.store.check();
}

#[test]
fn a_sync_waits_for_what_came_before() {
    let mut world = World::new(Shape { durability: Durability::Lazy, ..SHAPE }, 1);
    let op = write(&mut world, 1, 0, BLOCK);
    world.submit(op);
    world.submit(StoreOp::Sync { pg: Default::default() });
    world.dispatch();
    let results: Vec<_> = settle(&mut world).into_iter().map(|completion| completion.token).collect();
    assert_eq!(results, [1, 2]);
    assert_eq!(reopen(&mut world, open_config(&SHAPE)), StoreState::Open { trusted: true });
    assert_eq!(world.store.lookup(copy(0)).unwrap().committed.unwrap().version, version(1));
}

#[test]
fn a_log_with_any_page_damaged_never_shows_what_never_was() {
    for seed in 0..30 {
        let mut world = World::new(Shape { crashes: 0, objects: 6, ..SHAPE }, seed);
        (0..1200).for_each(|_| world.step());
        world.drain();
        let superblock = superblock(&world);
        let segment = u32::try_from(world.rng.below(u64::from(superblock.segments))).unwrap();
        let begin = superblock.log_place(segment, 0) as usize;
        let bytes = &world.data.media[begin..begin + superblock.segment_size as usize];
        let mut pages = Vec::new();
        page::scan(superblock.store, segment, bytes, |header, _| pages.push(header.unit));
        if pages.is_empty() {
            continue;
        }
        let unit = pages[world.rng.below(pages.len() as u64) as usize];
        world.data.media[superblock.log_place(segment, unit) as usize + 90] ^= 1;
        let state = reopen(&mut world, open_config(&SHAPE));
        assert!(matches!(state, StoreState::Open { .. }), "{state:?}");
        world.store.check();
        world.check_contents();
    }
}

#[test]
fn an_unreadable_block_does_not_take_an_acknowledged_write_back() {
    let mut world = World::new(SHAPE, 1);
    for seq in 1..=2 {
        let op = write(&mut world, seq, 0, BLOCK);
        assert_eq!(run(&mut world, op), Some(Ok(StoreReply::Done)));
    }
    let at = world.data.media.windows(4096).position(|unit| unit == [2; 4096]).unwrap();
    world.data.unreadable = at + 8192..at + 8704;
    assert_eq!(reopen(&mut world, open_config(&SHAPE)), StoreState::Open { trusted: true });
    let found = world.store.lookup(copy(0)).unwrap().committed.unwrap();
    assert_eq!((found.version, found.damaged), (version(2), true));
}

/// Completions that are errors come back as such.
fn run_all(world: &mut World, ops: Vec<StoreOp>) -> Vec<Result<StoreReply, StoreError>> {
    for op in ops {
        world.submit(op);
        world.dispatch();
    }
    settle(world).into_iter().map(|completion| completion.result).collect()
}

#[test]
fn a_refused_data_write_costs_a_block_and_nothing_else() {
    for durability in [Durability::Plp, Durability::Flush, Durability::Lazy] {
        let shape = Shape { durability, ..SHAPE };
        let mut world = World::new(shape, 1);
        let free = world.store.stats().free_bytes;
        let data_at = superblock(&world).data_place(0, 0) as usize;
        world.data.flaky = (data_at, 1);
        // One that is refused, others on top of it that go to the log.
        for seq in 1..=3 {
            let op = write(&mut world, seq, 0, if seq == 1 { BLOCK } else { 4096 });
            world.submit(op);
        }
        world.dispatch();
        while world.data.refused == 0 {
            let (id, done) = world.data.complete(&mut world.rng, &mut world.bufs);
            let env = &mut Env { now: world.now, rng: &mut world.rng, bufs: &mut world.bufs, out: &mut world.out };
            world.store.handle_io(env, id, done);
            assert_eq!(world.store.next_completion(), None, "acknowledged on the strength of nothing");
            world.dispatch();
        }
        world.data.flaky.1 = 0;
        let results: Vec<_> = settle(&mut world).into_iter().map(|completion| completion.result).collect();
        assert_eq!(results, vec![Ok(StoreReply::Done); 3]);
        world.store.check();
        let stats = world.store.stats();
        assert_eq!((stats.refused_blocks, stats.damaged), (1, 0));
        assert_eq!(stats.free_bytes, free - 2 * u64::from(BLOCK));
        assert_eq!(reopen(&mut world, open_config(&shape)), StoreState::Open { trusted: true });
        assert_eq!(world.store.lookup(copy(0)).unwrap().committed.unwrap().version, version(3));
        let all = StoreOp::Read { copy: copy(0), version: None, offset: 0, len: BLOCK };
        let Some(Ok(StoreReply::Read { data, .. })) = run(&mut world, all) else { panic!("not readable") };
        assert_eq!((data.buf.bytes()[0], data.buf.bytes()[4096]), (3, 1));
    }
}

#[test]
fn a_device_that_refuses_all_data_stops_the_store() {
    let mut world = World::new(SHAPE, 1);
    world.data.flaky = (superblock(&world).data_place(0, 0) as usize, 1);
    let op = write(&mut world, 1, 0, BLOCK);
    assert_eq!(run(&mut world, op), None);
    assert!(refusal(world.store.state()).contains("refused"));
}

#[test]
fn a_closed_store_has_nothing_to_find_out_at_its_next_opening() {
    for durability in [Durability::Plp, Durability::Flush, Durability::Lazy] {
        let shape = Shape { durability, ..SHAPE };
        let mut world = World::new(shape, 1);
        for seq in 1..=5 {
            let op = write(&mut world, seq, 0, if seq % 2 == 1 { BLOCK } else { 4096 });
            world.submit(op);
        }
        let close = |world: &mut World| {
            let env = &mut Env { now: world.now, rng: &mut world.rng, bufs: &mut world.bufs, out: &mut world.out };
            world.store.close(env);
            world.dispatch();
        };
        close(&mut world);
        assert!(!world.store.is_closed(), "writes are on their way");
        let op = write(&mut world, 6, 0, 4096);
        let results = run_all(&mut world, vec![op]);
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 5, "{results:?}");
        assert!(results.contains(&Err(StoreError::Stopped)));
        assert!(world.store.is_closed());
        let (reads, writes) = (world.data.reads_done, world.data.writes_done);
        assert_eq!(reopen(&mut world, open_config(&shape)), StoreState::Open { trusted: true });
        assert_eq!(world.store.lookup(copy(0)).unwrap().committed.unwrap().version, version(5));
        // Superblocks, segments twice (once to find the chain, once to replay it): no block, no page of verdicts.
        let segments = u64::from(superblock(&world).segments);
        assert!(world.data.reads_done - reads <= 2 + segments + 1);
        assert_eq!(world.data.writes_done, writes);
    }
}

/// Until the device knows of all blocks that it is to be told of.
fn tell_device(world: &mut World) {
    for _ in 0..500 {
        world.pass_time();
        settle(world);
    }
}

/// Blocks that were discarded, and not written again.
fn told(world: &World) -> Vec<u32> {
    let superblock = superblock(world);
    let bytes = |block: u32| &world.data.media[superblock.data_place(block, 0) as usize..][..BLOCK as usize];
    (0..superblock.blocks).filter(|block| bytes(*block).iter().all(|byte| *byte == 0xdd)).collect()
}

#[test]
fn the_device_is_told_of_what_is_free_after_opening_and_of_what_becomes_free() {
    for durability in [Durability::Plp, Durability::Flush, Durability::Lazy] {
        let mut world = World::new(Shape { durability, ..SHAPE }, 1);
        let reserve = 2;
        let op = write(&mut world, 1, 0, BLOCK);
        assert!(run(&mut world, op).unwrap().is_ok());
        tell_device(&mut world);
        assert!(told(&world).len() >= 23 - reserve, "{durability:?}: {:?}", told(&world));
        assert!(!told(&world).contains(&0), "the object's block");
        // Redirects: each leaves the block before, and takes one that was discarded.
        for seq in 2..10 {
            let op = write(&mut world, seq, 0, BLOCK);
            assert!(run(&mut world, op).unwrap().is_ok());
            tell_device(&mut world);
            world.store.check();
            assert!(told(&world).len() >= 23 - reserve, "{durability:?} {seq}: {:?}", told(&world));
        }
        // One store tells it once, the next one again: what was told is not on record.
        let discards = world.data.discards;
        tell_device(&mut world);
        assert_eq!(world.data.discards, discards);
        let config = open_config(&world.shape);
        assert_eq!(reopen(&mut world, config), StoreState::Open { trusted: true });
        tell_device(&mut world);
        assert!(world.data.discards > discards);
        assert_eq!(world.store.lookup(copy(0)).unwrap().committed.unwrap().version, version(9));
    }
}

#[test]
fn a_device_that_cannot_discard_is_asked_once() {
    let mut world = World::new(SHAPE, 1);
    world.data.no_discards = true;
    for seq in 1..10 {
        let op = write(&mut world, seq, 0, BLOCK);
        assert!(run(&mut world, op).unwrap().is_ok());
        tell_device(&mut world);
    }
    assert_eq!(world.data.discards, 1);
    world.store.check();
}

#[test]
fn a_full_store_still_replaces_deletes_and_recovers() {
    let shape = Shape { objects: 40, blocks: 8, ..SHAPE };
    let mut world = World::new(shape, 1);
    let create = |world: &mut World, stripe: u64| {
        let StoreOp::Write { version, predecessor, offset, data, mode, commits_predecessor, requests, .. } =
            write(world, 1, 0, BLOCK)
        else {
            unreachable!()
        };
        let copy = copy(stripe);
        StoreOp::Write { copy, version, predecessor, offset, data, mode, commits_predecessor, requests }
    };
    let mut stored = 0;
    loop {
        let op = create(&mut world, stored);
        match run(&mut world, op) {
            Some(Ok(StoreReply::Done)) => stored += 1,
            Some(Err(StoreError::NoSpace)) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((stored, world.store.stats().free_bytes), (7, 0));
    // Every copy is replaced, all at once.
    let mut ops = Vec::new();
    for stripe in 0..stored {
        let StoreOp::Write { data: Some(data), .. } = write(&mut world, 2, 0, BLOCK) else { unreachable!() };
        let mut bitmap = crate::store::Bitmap::default();
        bitmap.set(0, BLOCK / 512, true);
        ops.push(StoreOp::Replace {
            copy: copy(stripe),
            version: version(2),
            predecessor: version(1),
            content: crate::store::Content::Data { data, bitmap },
            mode: Mode::Plain,
            requests: Requests::new(),
        });
    }
    for result in run_all(&mut world, ops) {
        assert_eq!(result, Ok(StoreReply::Done));
    }
    world.store.check();
    let new = |mode| {
        move |stripe| StoreOp::Tombstone {
            copy: copy(stripe),
            version: version(3),
            predecessor: version(2),
            mode,
            requests: Requests::new(),
        }
    };
    let prepared = run_all(&mut world, (0..stored).map(new(Mode::Prepare)).collect());
    assert_eq!(prepared, vec![Ok(StoreReply::Done); stored as usize]);
    let commits = (0..stored).map(|stripe| StoreOp::Commit { copy: copy(stripe), version: version(3) }).collect();
    assert_eq!(run_all(&mut world, commits), vec![Ok(StoreReply::Done); stored as usize]);
    let purges = (0..stored).map(|stripe| StoreOp::Purge { copy: copy(stripe), version: version(3) }).collect();
    assert_eq!(run_all(&mut world, purges), vec![Ok(StoreReply::Done); stored as usize]);
    tell_device(&mut world);
    assert!(world.data.discards > 0, "the device was told");
    let op = create(&mut world, 30);
    assert_eq!(run(&mut world, op), Some(Ok(StoreReply::Done)));
}

/// A whole copy, or a version prepared on top of it that is so small that the log may carry it.
fn step(world: &mut World, stripe: u64, next: Mode) -> Vec<Result<StoreReply, StoreError>> {
    let (seq, len) = if next == Mode::Plain { (1, BLOCK) } else { (2, BLOCK / 2) };
    let mut op = write(world, seq, 0, len);
    if let StoreOp::Write { copy: of, mode, .. } = &mut op {
        (*of, *mode) = (copy(stripe), next);
    }
    let results = run_all(world, vec![op]);
    world.store.check();
    results
}

const DONE: Result<StoreReply, StoreError> = Ok(StoreReply::Done);

#[test]
fn prepared_data_in_the_log_leave_room_for_new_objects() {
    let shape = Shape { objects: 90, blocks: 120, ..SHAPE };
    let mut world = World::new(shape, 1);
    for stripe in 0..50 {
        assert_eq!(step(&mut world, stripe, Mode::Plain), [DONE], "{stripe}");
        assert_eq!(step(&mut world, stripe, Mode::Prepare), [DONE], "{stripe}");
    }
    let stats = world.store.stats();
    assert!(stats.log_used_bytes < stats.log_total_bytes * 3 / 4, "{stats:?}");
}

#[test]
fn what_waits_for_room_goes_on_when_prepared_data_are_committed() {
    // No block is left, so the log has to carry what is prepared.
    const OBJECTS: u64 = 59;
    let shape = Shape { objects: 90, blocks: OBJECTS + 1, ..SHAPE };
    let mut world = World::new(shape, 1);
    (0..OBJECTS).for_each(|stripe| assert_eq!(step(&mut world, stripe, Mode::Plain), [DONE]));
    let waits = (0..OBJECTS).find(|stripe| step(&mut world, *stripe, Mode::Prepare).is_empty()).expect("one waits");
    let commits = (0..waits).map(|stripe| StoreOp::Commit { copy: copy(stripe), version: version(2) }).collect();
    let results = run_all(&mut world, commits);
    assert_eq!(results, vec![DONE; usize::try_from(waits).unwrap() + 1], "and what waited");
    world.store.check();
}

/// A page of which only the beginning arrives, then one in its place of which only the rest does.
#[test]
pub fn a_torn_page_is_void_for_ever() {
    let mut world = World::new(SHAPE, 1);
    let op = write(&mut world, 1, 0, BLOCK);
    assert_eq!(run(&mut world, op), Some(Ok(StoreReply::Done)));
    // The ring has been written before: what is not overwritten is not zero.
    let superblock = superblock(&world);
    let segment = superblock.log_place(0, 0) as usize..superblock.log_place(1, 0) as usize;
    let mut end = 0;
    page::scan(superblock.store, 0, &world.data.media[segment.clone()], |header, _| end = header.unit + header.units());
    world.data.media[segment][end as usize * 4096..].fill(0xee);
    for keeps_first in [true, false] {
        // A version without data: its record is in the page's first sector, the rest is zero.
        let (version_only, seq) = (version(if keeps_first { 2 } else { 3 }), version(1));
        world.submit(StoreOp::Write {
            copy: copy(0),
            version: version_only,
            predecessor: seq,
            offset: 0,
            data: None,
            mode: Mode::Plain,
            commits_predecessor: false,
            requests: Requests::new(),
        });
        let env = &mut Env { now: world.now, rng: &mut world.rng, bufs: &mut world.bufs, out: &mut world.out };
        world.store.end_of_round(env);
        world.dispatch();
        world.data.crash_keeping(|sector| (sector == 0) == keeps_first);
        assert_eq!(reopen(&mut world, open_config(&SHAPE)), StoreState::Open { trusted: true });
        assert_eq!(world.store.lookup(copy(0)).unwrap().committed.unwrap().version, version(1));
    }
}

/// Two intents; both are answered, but no page says so yet, for data of another object are on their way. What rots of
/// them is damage, no reason to take both back.
#[test]
pub fn rot_under_an_intent_takes_nothing_back() {
    let shape = Shape { overwrites: super::intents(4096), ..SHAPE };
    let mut world = World::new(shape, 1);
    let StoreOp::Write { version: first, predecessor, offset, data, mode, commits_predecessor, requests, .. } =
        write(&mut world, 1, 0, BLOCK)
    else {
        unreachable!()
    };
    let other = copy(1);
    world.submit(StoreOp::Write {
        copy: other,
        version: first,
        predecessor,
        offset,
        data,
        mode,
        commits_predecessor,
        requests,
    });
    world.dispatch();
    for seq in 1..=3 {
        let (offset, len) = if seq == 1 { (0, BLOCK) } else { (4096 * u32::try_from(seq - 1).unwrap(), 4096) };
        let op = write(&mut world, seq, offset, len);
        world.submit(op);
        let mut done = 0;
        while done == 0 {
            world.now = world.now + crate::time::Duration::millis(1);
            let env = &mut Env { now: world.now, rng: &mut world.rng, bufs: &mut world.bufs, out: &mut world.out };
            world.store.end_of_round(env);
            world.dispatch();
            if world.data.outstanding() > 1 {
                // The newest request: never the other object's data, which are the oldest.
                let (id, result) = world.data.complete_at(world.data.outstanding() - 1, &mut world.bufs);
                let env = &mut Env { now: world.now, rng: &mut world.rng, bufs: &mut world.bufs, out: &mut world.out };
                world.store.handle_io(env, id, result);
            }
            done += std::iter::from_fn(|| world.store.next_completion()).count();
        }
    }
    assert_eq!(world.store.ways().intents, 2);
    for seq in [2, 3] {
        let at = world.data.media.windows(4096).position(|unit| unit == [seq; 4096]).unwrap();
        world.data.media[at + 5] ^= 1;
    }
    assert_eq!(reopen(&mut world, open_config(&shape)), StoreState::Open { trusted: true });
    let found = world.store.lookup(copy(0)).unwrap().committed.unwrap();
    assert_eq!((found.version, found.damaged), (version(3), true));
}

/// One bad spot after the other is a matter of copies; a device that reads nothing is not to be repaired for ever.
#[test]
fn a_device_that_fails_every_read_is_given_up() {
    let mut world = World::new(SHAPE, 1);
    let op = write(&mut world, 1, 0, BLOCK);
    assert_eq!(run(&mut world, op), Some(Ok(StoreReply::Done)));
    world.data.unreadable = 0..usize::MAX;
    for _ in 0..100 {
        assert!(matches!(run(&mut world, READ), Some(Err(StoreError::Damaged { .. }))));
    }
    assert!(
        matches!(world.store.state(), StoreState::Open { .. }),
        "one damaged copy is one, however often it is read"
    );
    for seq in 2..=64 {
        let op = write(&mut world, seq, 0, BLOCK);
        assert_eq!(run(&mut world, op), Some(Ok(StoreReply::Done)));
        run(&mut world, READ);
        // Nothing is there, and the device is not asked.
        let elsewhere = StoreOp::Read { copy: copy(7), version: None, offset: 0, len: BLOCK };
        assert!(matches!(run(&mut world, elsewhere), Some(Ok(_))));
    }
    assert!(matches!(world.store.state(), StoreState::Failed(_)), "each copy that replaced it is damaged, too");
}

#[test]
fn so_is_one_that_keeps_nothing() {
    let mut world = World::new(SHAPE, 1);
    for seq in 1..=64 {
        assert!(matches!(world.store.state(), StoreState::Open { .. }));
        let op = write(&mut world, seq, 0, BLOCK);
        assert_eq!(run(&mut world, op), Some(Ok(StoreReply::Done)));
        let at = superblock(&world).data_place(0, 0) as usize;
        world.data.media[at..].fill(0xaa);
        assert!(matches!(run(&mut world, READ), Some(Err(StoreError::Damaged { .. }))));
    }
    assert!(matches!(world.store.state(), StoreState::Failed(_)));
}
