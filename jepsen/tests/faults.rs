//! Faults of disks inside real OSDs: each is met as it should, and a production build knows of none.

use anyhow::{Context, Result, ensure};
use ashlar_core::time::Duration as Span;
use ashlar_faultinject::disk::{DiskFaults, Latency};
use ashlar_faultinject::layer::{Behaviour, Cache};
use ashlar_jepsen::cluster::{binary, built_with};
use ashlar_jepsen::fleet::{Fleet, Network, Shape};
use ashlar_jepsen::nbd::Nbd;
use ashlar_jepsen::scratch::Scratch;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const OBJECT_BYTES: usize = 128 << 10;
const OBJECTS: usize = 24;
const PATIENCE: Duration = Duration::from_secs(60);
/// As often as it can be.
const ALWAYS: u64 = 1_000_000;
/// Half of the time: what is damaged is repaired, and a repair that fails is tried again.
const OFTEN: u64 = 500_000;
/// How long a disk that answers nothing does so.
const STALL: Duration = Duration::from_secs(1);

#[test]
fn a_production_build_has_no_trace_of_the_layer() {
    let bytes = std::fs::read(binary().expect("it is built")).expect("readable");
    let has = |word: &[u8]| bytes.windows(word.len()).any(|window| window == word);
    assert!(has(b"ASHLAR_META"), "the search finds what is there");
    // Put together here, so that nobody finds it in this program.
    assert!(!has(&[&b"ASHLAR_"[..], b"FAULTS"].concat()));
}

/// What was seen of an OSD whose disk misbehaved.
#[derive(Debug)]
struct Seen {
    /// It ended by itself.
    ended: bool,
    /// The longest write.
    longest: Duration,
    /// Copies that a scrub found damaged afterwards.
    damaged: u64,
}

struct Fault {
    name: &'static str,
    disk: Behaviour,
    shows: fn(&Seen) -> bool,
}

fn fault(name: &'static str, faults: DiskFaults, shows: fn(&Seen) -> bool) -> Fault {
    Fault { name, disk: Behaviour { faults, ..Behaviour::default() }, shows }
}

fn faults() -> Vec<Fault> {
    let good = (DiskFaults::default(), Behaviour::default());
    let slow = Latency { base: Span::millis(200), tail: Span::millis(200), tail_ppm: 0 };
    let other = |name, disk, shows| Fault { name, disk, shows };
    vec![
        other("delayed", Behaviour { latency: Some(slow), ..good.1 }, |seen| {
            seen.longest >= Duration::from_millis(200)
        }),
        other("stopped", Behaviour { is_stalled: true, ..good.1 }, |seen| seen.longest >= STALL / 2),
        fault("failed writes, torn", DiskFaults { write_error_ppm: ALWAYS, ..good.0 }, |seen| seen.ended),
        fault("failed flushes", DiskFaults { flush_error_ppm: ALWAYS, ..good.0 }, |seen| seen.ended),
        fault("nothing read", DiskFaults { read_error_ppm: ALWAYS, ..good.0 }, |seen| seen.ended),
        fault("nothing kept", DiskFaults { lost_write_ppm: ALWAYS, ..good.0 }, |seen| seen.ended || seen.damaged > 0),
        // That no wrong data were read is all that these show.
        fault("failed reads", DiskFaults { read_error_ppm: OFTEN, ..good.0 }, |_| true),
        other("unreadable", Behaviour { latent_ppm: OFTEN, ..good.1 }, |_| true),
        other("stale", Behaviour { stale_read_ppm: OFTEN, ..good.1 }, |_| true),
        fault("lost writes", DiskFaults { lost_write_ppm: OFTEN, ..good.0 }, |seen| seen.damaged > 0),
        fault("misdirected", DiskFaults { misdirected_write_ppm: OFTEN, ..good.0 }, |seen| seen.damaged > 0),
        other("rot", Behaviour { rot_ppm: OFTEN, ..good.1 }, |seen| seen.damaged > 0),
        other("full", Behaviour { no_space_ppm: ALWAYS, ..good.1 }, |seen| seen.ended),
        other("dead", Behaviour { is_dead: true, ..good.1 }, |seen| seen.ended),
    ]
}

fn fleet(scratch: &Scratch, pool: &str) -> Result<Fleet> {
    let mut shape = Shape::of(pool, "all");
    (shape.misbehaves, shape.binary) = (true, Some(built_with("faults")?));
    shape.images = vec![("image", 16)];
    let fleet = Fleet::start(scratch, shape, &BTreeMap::new(), Network::Loopback)?;
    let cache = Some(Cache { early_ppm: 0 });
    for osd in fleet.names("osd") {
        fleet.misbehave(&osd, |faults| faults.disk = Behaviour { cache, ..Behaviour::default() })?;
    }
    Ok(fleet)
}

fn contents(round: usize, object: usize) -> Vec<u8> {
    [(round as u64).to_le_bytes(), (object as u64).to_le_bytes()].concat().repeat(OBJECT_BYTES / 16)
}

/// The longest write.
fn write(fleet: &Fleet, round: usize) -> Result<Duration> {
    let mut nbd = Nbd::connect(&fleet.socket(1), "image", PATIENCE)?;
    let mut longest = Duration::ZERO;
    for object in 0..OBJECTS {
        let begin = Instant::now();
        nbd.write((object * OBJECT_BYTES) as u64, &contents(round, object))?;
        longest = longest.max(begin.elapsed());
    }
    Ok(longest)
}

/// Objects that do not hold what was written.
fn wrong(fleet: &Fleet, round: usize) -> Result<usize> {
    let mut nbd = Nbd::connect(&fleet.socket(2), "image", PATIENCE)?;
    let mut count = 0;
    for object in 0..OBJECTS {
        count += usize::from(nbd.read((object * OBJECT_BYTES) as u64, OBJECT_BYTES)? != contents(round, object));
    }
    Ok(count)
}

fn meet(fleet: &Fleet, fault: &Fault, round: usize) -> Result<Seen> {
    fleet.misbehave("osd-1", |faults| faults.disk = fault.disk)?;
    std::thread::sleep(Duration::from_millis(100));
    let longest = std::thread::scope(|scope| {
        let writing = scope.spawn(|| write(fleet, round));
        std::thread::sleep(STALL);
        if fault.disk.is_stalled {
            fleet.misbehave("osd-1", |faults| faults.disk = Behaviour::default())?;
        }
        writing.join().expect("writing does not panic")
    })?;
    ensure!(wrong(fleet, round)? == 0, "wrong data were read");
    let ended = fleet.pid("osd-1").is_none();
    fleet.misbehave("osd-1", |faults| faults.disk = Behaviour::default())?;
    fleet.run("osd-1")?;
    fleet.wait_clean(PATIENCE)?;
    let report = fleet.admin(&["pg", "scrub", "--pool", "main", "--wait"])?;
    fleet.wait_clean(PATIENCE)?;
    ensure!(wrong(fleet, round)? == 0, "wrong data were read afterwards");
    let damaged = report["damaged"].as_u64().context("a figure")?;
    Ok(Seen { ended, longest, damaged })
}

#[test]
#[ignore = "a build of its own, and minutes: `cargo test -p ashlar-jepsen --test faults -- --ignored`"]
fn each_fault_of_a_disk_is_met_as_it_should_be() {
    let scratch = Scratch::new("faults").expect("a directory");
    let fleet = fleet(&scratch, "replicated:3").expect("it starts");
    write(&fleet, 1).expect("written");
    let mut missed = Vec::new();
    for (fault, round) in faults().iter().zip(2..) {
        let seen =
            meet(&fleet, fault, round).unwrap_or_else(|error| panic!("{}: {error:#}\n{}", fault.name, fleet.logs()));
        println!("{}: {seen:?}", fault.name);
        missed.extend((!(fault.shows)(&seen)).then_some(fault.name));
    }
    assert_eq!(missed, [""; 0]);
    assert_eq!(fleet.panics(), [""; 0]);
}

/// One copy of everything, so that nobody helps: an honest cache loses nothing that was acknowledged, a lying one does.
#[test]
#[ignore = "a build of its own: `cargo test -p ashlar-jepsen --test faults -- --ignored`"]
fn a_lying_flush_loses_what_an_honest_one_keeps() {
    for lying_flush_ppm in [0, ALWAYS] {
        let scratch = Scratch::new("lying").expect("a directory");
        let fleet = fleet(&scratch, "replicated:1").expect("it starts");
        let (cache, faults) = (Some(Cache { early_ppm: 0 }), DiskFaults { lying_flush_ppm, ..DiskFaults::default() });
        write(&fleet, 1).expect("written");
        for osd in fleet.names("osd") {
            fleet.misbehave(&osd, |now| now.disk = Behaviour { cache, faults, ..Behaviour::default() }).expect("told");
        }
        std::thread::sleep(Duration::from_millis(100));
        write(&fleet, 2).expect("written");
        let names = fleet.names("osd");
        fleet.kill_all(names.iter().map(String::as_str));
        names.iter().try_for_each(|name| fleet.run(name)).expect("they start");
        // What is lost is found wrong; or a store sees that it lost something, and serves nothing.
        let lost = fleet.wait_clean(PATIENCE).is_err() || wrong(&fleet, 2).expect("readable") > 0;
        assert_eq!(lost, lying_flush_ppm > 0);
    }
}
