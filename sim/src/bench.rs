//! How fast the simulator is, beside what it aims at: a campaign is worth what its seeds are.
//!
//! Owns: what is measured and how. Times are of this thread on its core, so that what else the machine does counts as
//! little as possible. Every check is on, as in campaigns.

use crate::cluster::{Cluster, Config, StoreKind};
use crate::run::{Recording, run};
use crate::scenarios::Scenario;
use ashlar_core::map::{ImmediateCommit, Scheme};
use ashlar_core::time::Duration;
use std::fmt;
use std::process::ExitCode;

/// Seeds of the default scenario that are run.
const SEEDS: u64 = 40;
/// Operations of the busy cluster.
const OPERATIONS: u32 = 60_000;
/// Simulated time of the idle cluster.
const IDLE: Duration = Duration::secs(600);
/// Leases and heartbeats as pools have them by default.
const LEASE_MS: u64 = 400;
const HEARTBEAT_TIMEOUT_MS: u64 = 1_000;

/// One figure beside its goal.
struct Figure {
    what: &'static str,
    value: f64,
    goal: f64,
    /// Whether less is better.
    less: bool,
    unit: &'static str,
}

impl Figure {
    fn is_met(&self) -> bool {
        if self.less { self.value <= self.goal } else { self.value >= self.goal }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, verdict) = (if self.less { "<" } else { ">" }, if self.is_met() { "met" } else { "missed" });
        let digits = if self.goal < 10.0 { 2 } else { 0 };
        let (value, goal, unit) = (self.value, self.goal, self.unit);
        write!(f, "{:<44} {value:>12.digits$} {unit:<18} goal {sign} {goal:<8} {verdict}", self.what)
    }
}

/// Measures what is named, or everything, and prints it.
pub fn bench(only: Option<&str>) -> ExitCode {
    let wanted = |name: &str| only.is_none_or(|only| only == name);
    let mut figures = Vec::new();
    if wanted("seeds") {
        figures.extend(default_seeds());
    }
    if wanted("busy") {
        figures.extend(busy());
    }
    if wanted("idle") {
        figures.extend(idle());
    }
    if figures.is_empty() {
        eprintln!("there is nothing of that name to be measured; there are: seeds, busy, idle");
        return ExitCode::from(2);
    }
    figures.iter().for_each(|figure| println!("{figure}"));
    ExitCode::SUCCESS
}

/// Core-seconds of a seed of the default scenario.
fn default_seeds() -> [Figure; 2] {
    let mix = Scenario::named("mix").expect("the default scenario");
    let (begun, before) = (core_seconds(), peak_mib());
    (1..=SEEDS).for_each(|seed| drop(run(seed, mix, &Recording::default())));
    let (seconds, memory) = ((core_seconds() - begun) / SEEDS as f64, peak_mib() - before);
    [
        Figure { what: "default seed", value: seconds, goal: 0.3, less: true, unit: "core-seconds" },
        Figure { what: "largest world of those seeds", value: memory, goal: 200.0, less: true, unit: "MiB" },
    ]
}

/// A cluster of these OSDs without faults, with fast disks that keep what they completed.
fn quiet(osds: u32) -> Config {
    let mut config = Config::draw(1).calm();
    (config.osds, config.osds_per_host, config.mons) = (osds, 1, 1);
    (config.scheme, config.parity_chunks, config.pg_size, config.pg_minsize) = (Scheme::Replicated, 0, 3, 2);
    (config.immediate_commit, config.wire, config.gather) = (ImmediateCommit::All, false, Duration::ZERO);
    config.store = StoreKind::Log { power_loss_protection: true, atomic_bytes: 4096, write: Duration::micros(10) };
    (config.pg_count, config.image_objects, config.object_blocks) = (8, 16, 16);
    (config.net_base, config.net_tail_ppm) = (Duration::micros(20), 0);
    (config.lease_ms, config.heartbeat_timeout_ms) = (LEASE_MS, HEARTBEAT_TIMEOUT_MS);
    (config.load.clients, config.load.depth, config.load.operations) = (2, 16, OPERATIONS);
    (config.load.read_percent, config.load.discard_percent, config.load.max_blocks) = (50, 0, 1);
    config.load.think = Duration::micros(1);
    config.load.hot_objects = config.image_objects;
    config
}

fn up(config: Config) -> Cluster {
    let mut cluster = Cluster::new(config);
    cluster.settle_down().expect("a cluster without faults comes up");
    cluster
}

/// Events and operations of clients per second of a cluster that has much to do.
fn busy() -> [Figure; 2] {
    let mut cluster = up(quiet(3));
    let (begun, events, done) = (core_seconds(), cluster.world.events(), cluster.tally().done);
    cluster.start_load();
    let over = cluster.run_until(Duration::secs(600), |cluster| cluster.load_done());
    assert!(over.expect("no promise is broken"), "the load ends");
    let seconds = core_seconds() - begun;
    let (events, done) = (cluster.world.events() - events, cluster.tally().done - done);
    println!("busy: {events} events, {done} operations, {seconds:.2} core-seconds");
    let (events, done) = (events as f64 / seconds, done as f64 / seconds);
    let what = "three copies, no faults, busy";
    [
        Figure { what, value: events / 1e6, goal: 2.0, less: false, unit: "M events/s" },
        Figure { what, value: done, goal: 50_000.0, less: false, unit: "operations/s" },
    ]
}

/// Simulated seconds per second of a cluster that has nothing to do.
fn idle() -> [Figure; 1] {
    let mut cluster = up(quiet(5));
    let (begun, events) = (core_seconds(), cluster.world.events());
    cluster.run_for(IDLE).expect("no promise is broken");
    let seconds = core_seconds() - begun;
    let events = cluster.world.events() - events;
    let simulated = IDLE.as_millis() as f64 / 1000.0;
    println!(
        "idle: {:.0} events per simulated second, {:.0} ns for each",
        events as f64 / simulated,
        seconds * 1e9 / events as f64
    );
    let value = simulated / seconds;
    [Figure { what: "five OSDs, idle", value, goal: 100_000.0, less: false, unit: "x real time" }]
}

/// What this thread has spent on its core, as the kernel counts it; without such a kernel, the time on the wall.
fn core_seconds() -> f64 {
    let counted = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = counted.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    nanoseconds.map_or_else(|| BEGUN.elapsed().as_secs_f64(), |nanoseconds| nanoseconds / 1e9)
}

static BEGUN: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);

/// The most memory that this process had; 0 where the kernel does not say.
fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
