//! Drawn scripts of disk requests. A specification that knows what each sector may hold judges both devices; and what a read of
//! the real one shows, the simulated one shows too, for some seed.

use crate::device::{BLOCK, DEVICE_BYTES, Disk, Real, Simulated, folders};
use ashlar_core::buf::{Buf, BufPool};
use ashlar_core::io::{Device, DiskDone, DiskError, DiskOp, IoId, Misfit};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

const BLOCKS: u64 = DEVICE_BYTES / BLOCK as u64;
/// Of a block.
const SECTORS: u64 = BLOCK as u64 / 512;
/// Seeds of the simulated device for each script: what it does with a chance of one half, some of them do.
const SEEDS: u64 = 24;

/// One step of a script; the number of a step is its name.
#[derive(Clone, Debug)]
enum Step {
    /// Blocks, from memory that is so many sectors off the alignment that devices want.
    Write {
        at: u64,
        blocks: u64,
        skew: u32,
    },
    Read {
        at: u64,
        blocks: u64,
    },
    Discard {
        at: u64,
        blocks: u64,
    },
    Flush,
    /// Wait until everything is done.
    Gather,
}

fn steps(longest: usize) -> impl Strategy<Value = Vec<Step>> {
    // Mostly in a corner, so that they meet.
    let at = prop_oneof![3 => 0..24u64, 1 => 0..BLOCKS];
    let blocks = prop_oneof![4 => 1..5u64, 1 => 5..70u64];
    let place = (at, blocks).prop_map(|(at, blocks)| (at, blocks.min(BLOCKS - at)));
    let step = prop_oneof![
        5 => (place.clone(), prop_oneof![3 => Just(0u32), 1 => 1..8u32])
            .prop_map(|((at, blocks), skew)| Step::Write { at, blocks, skew }),
        4 => place.clone().prop_map(|(at, blocks)| Step::Read { at, blocks }),
        1 => place.prop_map(|(at, blocks)| Step::Discard { at, blocks }),
        1 => Just(Step::Flush),
        2 => Just(Step::Gather),
    ];
    vec(step, 1..longest)
}

fn op(name: u64, step: &Step, bufs: &mut BufPool) -> Option<DiskOp> {
    let (device, bytes) = (Device::Data, |blocks: u64| blocks * u64::from(BLOCK));
    let len = |blocks| u32::try_from(bytes(blocks)).expect("less than a device");
    Some(match *step {
        Step::Write { at, blocks, skew } => {
            let data = contents(bufs, name, at, blocks, skew * 512);
            DiskOp::Write { device, offset: bytes(at), data }
        }
        Step::Read { at, blocks } => DiskOp::Read { device, offset: bytes(at), len: len(blocks) },
        Step::Discard { at, blocks } => DiskOp::Discard { device, offset: bytes(at), len: bytes(blocks) },
        Step::Flush => DiskOp::Flush { device },
        Step::Gather => return None,
    })
}

/// A word that says which write filled which sector.
fn word(name: u64, sector: u64) -> u64 {
    name << 32 | sector
}

fn contents(bufs: &mut BufPool, name: u64, at: u64, blocks: u64, skew: u32) -> Buf {
    let len = u32::try_from(blocks).expect("few") * BLOCK;
    let mut buf = bufs.alloc(len + skew);
    for (sector, bytes) in (at * SECTORS..).zip(buf.bytes_mut()[skew as usize..].chunks_exact_mut(512)) {
        bytes.chunks_exact_mut(8).for_each(|bytes| bytes.copy_from_slice(&word(name, sector).to_le_bytes()));
    }
    bufs.freeze(buf).slice(skew, len)
}

/// Who wrote a sector that is a mixture, or of another place: only where something was discarded.
const ANYTHING: u64 = u64::MAX;

/// Who wrote each sector of what was read; 0: nobody.
fn writers(at: u64, read: &[u8]) -> Vec<u64> {
    let sector = |(sector, bytes): (u64, &[u8])| {
        let first = u64::from_le_bytes(*bytes.first_chunk().expect("a sector"));
        let whole = bytes.chunks_exact(8).all(|word| word == first.to_le_bytes());
        let here = first == 0 || first & 0xffff_ffff == sector;
        if whole && here { first >> 32 } else { ANYTHING }
    };
    (at * SECTORS..).zip(read.chunks_exact(512)).map(sector).collect()
}

/// What each sector may hold.
struct Specification(Vec<BTreeSet<u64>>);

impl Specification {
    fn new() -> Self {
        Specification(vec![BTreeSet::from([0]); index(BLOCKS * SECTORS)])
    }

    fn of(&mut self, at: u64, blocks: u64) -> &mut [BTreeSet<u64>] {
        &mut self.0[index(at * SECTORS)..index((at + blocks) * SECTORS)]
    }

    /// Judges what a read saw, while some writes were in flight; gives who wrote it.
    fn judge(&mut self, at: u64, read: &Buf, writes: &Self) -> Result<Vec<u64>, String> {
        let seen = writers(at, read.bytes());
        let first = index(at * SECTORS);
        for (sector, seen) in (first..).zip(&seen) {
            let met = &writes.0[sector];
            let is_given_up = self.0[sector].contains(&ANYTHING);
            if *seen == ANYTHING && !is_given_up {
                return Err(format!("sector {sector} holds a mixture"));
            }
            if !is_given_up && !self.0[sector].contains(seen) && !met.contains(seen) {
                return Err(format!("sector {sector} is of {seen}; possible are {:?} and {met:?}", self.0[sector]));
            }
            if met.is_empty() {
                // What was seen once stays.
                self.0[sector] = BTreeSet::from([*seen]);
            }
        }
        Ok(seen)
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("a place on a small device")
}

/// Whether two requests must not be in flight at the same time.
fn exclude(a: &DiskOp, b: &DiskOp) -> bool {
    use DiskOp::{Read, Write};
    let harmless = matches!((a, b), (Read { .. }, Read { .. } | Write { .. }) | (Write { .. }, Read { .. }));
    let meet = |((a, a_len), (b, b_len)): ((u64, u64), (u64, u64))| a < b + b_len && b < a + a_len;
    !harmless && a.extent().zip(b.extent()).is_some_and(meet)
}

/// What the reads of a script saw, by their names; and whether something completed out of turn.
#[derive(Default)]
struct Seen {
    reads: BTreeMap<u64, Vec<u64>>,
    reordered: bool,
}

/// A script that is being run.
struct Run<'a> {
    disk: &'a mut dyn Disk,
    script: &'a [Step],
    specification: Specification,
    seen: Seen,
}

/// Runs a script: as many requests at once as may be in flight together.
fn run(disk: &mut dyn Disk, script: &[Step]) -> Result<Seen, String> {
    let mut run = Run { disk, script, specification: Specification::new(), seen: Seen::default() };
    let mut open: Vec<DiskOp> = Vec::new();
    for (name, step) in (1..).zip(script) {
        let op = op(name, step, run.disk.bufs());
        if op.as_ref().is_none_or(|op| open.iter().any(|other| exclude(op, other))) {
            run.settle()?;
            open.clear();
        }
        if let Some(op) = op {
            open.push(op.clone());
            run.disk.submit(IoId(name), op);
        }
    }
    run.settle()?;
    Ok(run.seen)
}

impl Run<'_> {
    /// Waits for what is in flight, and judges it.
    fn settle(&mut self) -> Result<(), String> {
        let done = self.disk.finish();
        self.seen.reordered |= !done.is_sorted_by_key(|(id, _)| *id);
        let mut writes = Specification(vec![BTreeSet::new(); index(BLOCKS * SECTORS)]);
        let (mut written, mut given_up) = (Vec::new(), Vec::new());
        for (IoId(name), done) in &done {
            match (&self.script[index(name - 1)], done) {
                (Step::Write { at, blocks, .. }, DiskDone::Done(Ok(()))) => {
                    writes.of(*at, *blocks).fill(BTreeSet::from([*name]));
                    written.push((*name, *at, *blocks));
                }
                (Step::Discard { at, blocks }, DiskDone::Done(Ok(()))) => given_up.push((*at, *blocks)),
                (Step::Flush, DiskDone::Done(Ok(()))) | (Step::Read { .. }, DiskDone::Read(Ok(_))) => {}
                other => return Err(format!("step {name}: {other:?}")),
            }
        }
        for (IoId(name), done) in &done {
            let (Step::Read { at, blocks }, DiskDone::Read(Ok(read))) = (&self.script[index(name - 1)], done) else {
                continue;
            };
            if u64::from(read.len()) != blocks * u64::from(BLOCK) {
                return Err(format!("step {name}: {} bytes", read.len()));
            }
            let seen = self.specification.judge(*at, read, &writes).map_err(|error| format!("step {name}: {error}"))?;
            self.seen.reads.insert(*name, seen);
        }
        for (name, at, blocks) in written {
            self.specification.of(at, blocks).fill(BTreeSet::from([name]));
        }
        for (at, blocks) in given_up {
            for sector in self.specification.of(at, blocks) {
                sector.insert(ANYTHING);
            }
        }
        Ok(())
    }
}

/// What the simulated device shows of a script: of each read, everybody whose writes it sees for some seed.
struct Possible {
    reads: BTreeMap<u64, BTreeSet<u64>>,
    reordered: bool,
}

fn simulate(script: &[Step]) -> Result<Possible, String> {
    let mut possible = Possible { reads: BTreeMap::new(), reordered: false };
    for seed in 0..SEEDS {
        let seen =
            run(&mut Simulated::new(seed), script).map_err(|error| format!("simulated, seed {seed}: {error}"))?;
        possible.reordered |= seen.reordered;
        for (name, read) in seen.reads {
            possible.reads.entry(name).or_default().extend(read);
        }
    }
    Ok(possible)
}

/// One script on both; whether the simulated one shows more than one order of completions.
fn conforms(folder: &std::path::Path, script: &[Step]) -> Result<bool, String> {
    let possible = simulate(script)?;
    let seen = run(&mut Real::new(folder), script).map_err(|error| format!("in {}: {error}", folder.display()))?;
    for (name, read) in seen.reads {
        let shown = &possible.reads[&name];
        if let Some(other) = read.iter().find(|writer| !shown.contains(writer)) {
            return Err(format!("step {name} reads what {other} wrote; the simulator shows {shown:?}"));
        }
    }
    Ok(possible.reordered)
}

fn scripts_conform(cases: u32, longest: usize) {
    for folder in folders() {
        let reordered = Cell::new(0);
        let config = Config { cases, failure_persistence: None, ..Config::default() };
        let outcome = TestRunner::new(config).run(&steps(longest), |script| {
            let case = conforms(&folder, &script).map_err(TestCaseError::fail)?;
            reordered.set(reordered.get() + u32::from(case));
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{error}"));
        let reordered = reordered.get();
        assert!(reordered > cases / 4, "the simulated device completes out of turn: {reordered} of {cases}");
    }
}

#[test]
fn what_a_file_answers_the_simulated_disk_may_answer() {
    scripts_conform(24, 40);
}

#[test]
#[ignore = "minutes: the same with many more scripts"]
fn what_a_file_answers_the_simulated_disk_may_answer_at_length() {
    scripts_conform(1500, 120);
}

/// The specification is no formality: a device that does something else is caught.
#[test]
fn a_device_that_forgets_or_mixes_is_caught() {
    struct Wrong(Simulated, fn(u64, DiskOp) -> DiskOp);
    impl Disk for Wrong {
        fn submit(&mut self, id: IoId, op: DiskOp) {
            self.0.submit(id, self.1(id.0, op));
        }
        fn finish(&mut self) -> Vec<(IoId, DiskDone)> {
            self.0.finish()
        }
        fn bufs(&mut self) -> &mut BufPool {
            self.0.bufs()
        }
    }
    let forgets = |id: u64, op| match op {
        DiskOp::Write { device, offset, data } if id == 2 => {
            DiskOp::Write { device, offset, data: data.slice(0, data.len() - BLOCK) }
        }
        op => op,
    };
    let elsewhere = |id: u64, op| match op {
        DiskOp::Write { device, offset, data } if id == 2 => DiskOp::Write { device, offset: offset + 4096, data },
        op => op,
    };
    let script = [
        Step::Write { at: 0, blocks: 4, skew: 0 },
        Step::Write { at: 1, blocks: 2, skew: 1 },
        Step::Gather,
        Step::Read { at: 0, blocks: 4 },
    ];
    assert!(run(&mut Simulated::new(1), &script).is_ok());
    for wrong in [forgets as fn(u64, DiskOp) -> DiskOp, elsewhere] {
        assert!(run(&mut Wrong(Simulated::new(1), wrong), &script).is_err());
    }
}

/// What the panic of a request says, if it panics.
fn refusal(disk: &mut dyn Disk, op: DiskOp) -> Option<String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| disk.submit(IoId(1), op)));
    outcome.err().map(|panic| panic.downcast_ref::<String>().expect("a text").clone())
}

/// Requests that no device takes are bugs, and both say the same of them.
#[test]
fn requests_that_do_not_fit_are_refused_alike() {
    let block = u64::from(BLOCK);
    for kind in 0..3 {
        let behind = refused_alike(kind, DEVICE_BYTES - block, 2 * block);
        assert_eq!(behind.expect("alike"), Some(Misfit::BeyondEnd));
        assert_eq!(refused_alike(kind, 512, block).expect("alike"), Some(Misfit::Unaligned));
    }
    let requests = (0..3u8, 0..DEVICE_BYTES + 8192, 0..40_000u64, any::<bool>());
    let config = Config { cases: 60, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&requests, |(kind, offset, len, round)| {
        let mask = if round { !u64::from(BLOCK - 1) } else { !511 };
        refused_alike(kind, offset & mask, len & mask).map(drop)
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// Gives the same request to both; in what it does not fit.
fn refused_alike(kind: u8, offset: u64, len: u64) -> Result<Option<Misfit>, TestCaseError> {
    let device = Device::Data;
    let bytes = u32::try_from(len).expect("small");
    let op = |bufs: &mut BufPool| match kind {
        0 => DiskOp::Read { device, offset, len: bytes },
        1 => DiskOp::Write { device, offset, data: contents(bufs, 1, 0, 10, 0).slice(0, bytes) },
        _ => DiskOp::Discard { device, offset, len },
    };
    let mut simulated = Simulated::new(1);
    let made = op(simulated.bufs());
    let misfit = made.misfit(DEVICE_BYTES, BLOCK);
    let by_simulated = refusal(&mut simulated, made);
    for folder in folders() {
        let mut real = Real::new(&folder);
        let made = op(real.bufs());
        let by_real = refusal(&mut real, made);
        let says = |text: &Option<String>| {
            misfit.is_none_or(|misfit| text.as_ref().is_some_and(|text| text.contains(&format!("{misfit:?}"))))
        };
        prop_assert_eq!((by_simulated.is_some(), by_real.is_some()), (misfit.is_some(), misfit.is_some()));
        prop_assert!(says(&by_simulated) && says(&by_real), "{:?} and {:?}", by_simulated, by_real);
        real.finish();
    }
    Ok(misfit)
}

/// A device that turns out to be shorter than it said fails reads there, as a bad medium does, and works elsewhere.
#[test]
fn behind_a_file_that_was_cut_reads_fail_like_bad_sectors() {
    let device = Device::Data;
    let mut simulated = Simulated::new(1);
    let page = DEVICE_BYTES / u64::from(BLOCK) - 1;
    simulated.make_unreadable(page);
    let mut reals: Vec<Real> = folders().iter().map(|folder| Real::new(folder)).collect();
    for real in &reals {
        let file = std::fs::OpenOptions::new().write(true).open(&real.path).expect("ours");
        file.set_len(DEVICE_BYTES - u64::from(BLOCK)).expect("shorter");
    }
    let disks = reals.iter_mut().map(|real| real as &mut dyn Disk).chain([&mut simulated as &mut dyn Disk]);
    for disk in disks {
        disk.submit(IoId(1), DiskOp::Read { device, offset: DEVICE_BYTES - 8192, len: 8192 });
        disk.submit(IoId(2), DiskOp::Read { device, offset: 0, len: BLOCK });
        let done: BTreeMap<IoId, DiskDone> = disk.finish().into_iter().collect();
        assert_eq!(done[&IoId(1)], DiskDone::Read(Err(DiskError::Io)));
        assert!(matches!(done[&IoId(2)], DiskDone::Read(Ok(_))));
    }
}
