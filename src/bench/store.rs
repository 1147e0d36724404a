//! `ashlar bench store`: one store alone, on a file or device: what it writes, how often, and at what rate, beside the
//! bare device in the same run and beside what it is meant to reach.
//!
//! Owns: the series and the table. The device is driven through the ring that OSDs use, by one thread.

pub mod driver;
mod fio;
mod memory;

use crate::disk::refuse_what_is_taken;
use crate::output::{self, Output};
use crate::size;
use anyhow::Result;
use ashlar_core::store::log::{self, Discarding};
use ashlar_runtime::ring::{self, DeviceFile};
use driver::{Driver, Figures, Raw, Stalls, Work};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// Share of the blocks that is filled: overwrites of a full store are what wears a device.
const FULL_PERCENT: u64 = 90;

/// Arguments of `bench store`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file or device; what is on it is lost.
    path: PathBuf,
    /// Create the file with this size, if it does not exist, and remove it afterwards.
    #[arg(long, value_name = "BYTES", value_parser = size::parse)]
    size: Option<u64>,
    /// Seconds for each load.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Objects of the measurement in memory: bytes of each, time to open; 0 leaves it out.
    #[arg(long, default_value_t = 1_000_000)]
    objects: u64,
    /// Minutes of random overwrites of a store that is 90 % full, at the end.
    #[arg(long, value_name = "MINUTES")]
    sustained: Option<f64>,
    /// What makes a write durable; default: as the kernel says.
    #[arg(long, value_enum)]
    durability: Option<Durability>,
    /// What the device writes wholly or not at all; default: as the kernel says.
    #[arg(long, value_name = "BYTES")]
    atomic_bytes: Option<u32>,
    /// Overwrite whatever is on the device, for good.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    output: Output,
}

/// What makes a write durable.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Durability {
    /// Its completion.
    Plp,
    /// A flush after it.
    Flush,
    /// Nothing until a sync.
    Lazy,
}

/// A line of the table.
#[derive(Serialize)]
pub struct Line {
    what: String,
    value: String,
    goal: String,
}

impl Line {
    /// A figure, and what it is meant to be.
    pub fn new(what: impl Into<String>, value: impl Into<String>, goal: impl Into<String>) -> Line {
        Line { what: what.into(), value: value.into(), goal: goal.into() }
    }
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<()> {
    let is_new = match args.size {
        Some(size) => DeviceFile::create(&args.path, size)?,
        None => false,
    };
    let lines = measure(args, is_new);
    if is_new {
        std::fs::remove_file(&args.path)?;
    }
    args.output.print(&lines?, |lines| text(lines))
}

fn text(lines: &[Line]) -> String {
    let mut table = output::table(["what", "measured", "goal"]);
    for line in lines {
        table.add_row([&line.what, &line.value, &line.goal]);
    }
    table.to_string()
}

fn measure(args: &Args, is_new: bool) -> Result<Vec<Line>> {
    let device = DeviceFile::open(&args.path)?;
    refuse_what_is_taken(&device, args.force || is_new)?;
    eprintln!("{device}");
    let atomic = args.atomic_bytes.unwrap_or(device.atomic_bytes);
    let durability = match (args.durability, device.durability) {
        (Some(Durability::Plp), _) | (None, ring::Durability::Completed) => log::Durability::Plp,
        (Some(Durability::Flush), _) | (None, ring::Durability::Flushed) => log::Durability::Flush,
        (Some(Durability::Lazy), _) => log::Durability::Lazy,
    };
    let time = Duration::from_secs(args.seconds);
    let mut driver = Driver::new(device, durability, atomic)?;
    eprintln!("filling {FULL_PERCENT} %");
    driver.fill(FULL_PERCENT)?;
    let mut lines = Vec::new();
    let mut raw = [Raw::default(); 2];
    for (raw, depth) in raw.iter_mut().zip([1, 32]) {
        lines.extend(bare(&mut driver, raw, depth, time)?);
    }
    let intents = atomic >= 4096 && durability == log::Durability::Plp;
    for work in series(intents) {
        eprintln!("measuring {}", work.name);
        let figures = driver.measure(&work, time)?;
        lines.extend(table_of(&work, &figures, raw[usize::from(work.depth > 1)].rate));
    }
    lines.push(unregistered(&mut driver, &series(intents)[usize::from(intents) + 1], time)?);
    lines.push(discards(&mut driver, time)?);
    if let Some(minutes) = args.sustained {
        lines.extend(sustained(&mut driver, intents, Duration::from_secs_f64(minutes * 60.0))?);
    }
    drop(driver);
    if fio::is_there() {
        eprintln!("measuring fio on the same device");
        lines.extend(fio::measure(&args.path, time)?);
    }
    if args.objects > 0 {
        lines.extend(memory::measure(args.objects)?);
    }
    Ok(lines)
}

/// The bare device, with files and memory that the kernel knows and without, in turns.
fn bare(driver: &mut Driver, raw: &mut Raw, depth: usize, time: Duration) -> Result<Vec<Line>> {
    let mut cpu_us = [0.0; 2];
    for registered in [false, true, false, true] {
        driver.set_registered(registered);
        *raw = driver.raw(depth, time / 2)?;
        cpu_us[usize::from(registered)] += raw.cpu_us / 2.0;
    }
    let line =
        |what: &str, value: String| Line::new(format!("bare device, 4 KiB writes, depth {depth}: {what}"), value, "-");
    let ([median, high, most], [plain, known]) = (raw.latency_us, cpu_us);
    let rate = format!("{:.0}, latency p50, p99, most: {median:.0}, {high:.0}, {most:.0} us", raw.rate);
    let cpu = format!("{known:.2} us, {:.2} calls; unregistered {plain:.2} us, ratio {:.2}", raw.calls, known / plain);
    Ok(vec![line("a second", rate), line("CPU each", cpu)])
}

/// What files and memory that the kernel knows are worth to the store.
fn unregistered(driver: &mut Driver, work: &Work, time: Duration) -> Result<Line> {
    eprintln!("measuring {}, registered and not", work.name);
    let mut cpu_us = [0.0; 2];
    for registered in [false, true, false, true] {
        driver.set_registered(registered);
        cpu_us[usize::from(registered)] += driver.measure(work, time / 2)?.cpu_us / 2.0;
    }
    let [plain, known] = cpu_us;
    let value = format!("{known:.2} us; unregistered {plain:.2} us, ratio {:.2}", known / plain);
    Ok(Line::new(format!("{}: CPU each, files and memory registered", work.name), value, "-"))
}

/// What it costs to tell the device of free blocks, where each write frees one: never, and as soon as can be, in turns.
fn discards(driver: &mut Driver, time: Duration) -> Result<Line> {
    let name = "128 KiB overwrites, depth 8";
    let work = Work { name, bytes: 128 << 10, depth: 8, way: log::Way::Auto, prepares: false, goal: None };
    eprintln!("measuring {name}, with discards and without");
    let at_once = Discarding { rest: ashlar_core::time::Duration::ZERO, ..Discarding::USUAL };
    let (mut rate, mut slowest, mut discarded) = ([0.0; 2], [0.0f64; 2], 0.0);
    for at in [0, 1, 0, 1] {
        driver.set_discards((at == 1).then_some(at_once));
        let figures = driver.measure(&work, time / 2)?;
        rate[at] += figures.rate / 2.0;
        slowest[at] = slowest[at].max(figures.latency_us[1]);
        discarded = figures.discarded;
    }
    driver.set_discards(Some(Discarding::USUAL));
    let ([without, with], [quick, slow]) = (rate, slowest);
    let value = format!(
        "{with:.0} a second, latency p99 {slow:.0} us, with {:.0} MiB discarded a second; without {without:.0}, {quick:.0} us; ratio {:.2}",
        discarded / f64::from(1 << 20),
        with / without
    );
    Ok(Line::new(format!("{name}: with discards"), value, "-"))
}

/// The loads, with the device bytes for each client byte that they are meant to reach at most.
fn series(intents: bool) -> Vec<Work> {
    use log::Way::{Auto, Inline, Intent, Redirect};
    let work = |name, bytes, depth, way, goal| Work { name, bytes, depth, way, prepares: false, goal };
    let mut all = vec![
        work("4 KiB overwrites, depth 1", 4096, 1, Auto, Some(3.5)),
        work("4 KiB overwrites, depth 32", 4096, 32, Auto, Some(if intents { 1.1 } else { 2.3 })),
        work("4 KiB overwrites, depth 32, all in the log", 4096, 32, Inline, Some(2.3)),
        work("4 KiB overwrites, depth 1, whole objects rewritten", 4096, 1, Redirect, None),
        work("16 KiB overwrites, depth 1", 16 << 10, 1, Auto, None),
        work("16 KiB overwrites, depth 32", 16 << 10, 32, Auto, None),
        work("128 KiB overwrites, depth 1", 128 << 10, 1, Auto, Some(1.04)),
        work("128 KiB overwrites, depth 8", 128 << 10, 8, Auto, Some(1.01)),
        Work { prepares: true, ..work("4 KiB prepared and committed, depth 32", 4096, 32, Auto, Some(2.3)) },
    ];
    if intents {
        all.insert(1, work("4 KiB overwrites, depth 1, all in place", 4096, 1, Intent, Some(2.2)));
    }
    all
}

fn table_of(work: &Work, figures: &Figures, raw: f64) -> Vec<Line> {
    let line = |what: &str, value: String, goal: &str| Line::new(format!("{}: {what}", work.name), value, goal);
    let goal = work.goal.map_or("-".to_string(), |goal| format!("<= {goal}"));
    let mut lines = vec![line("device bytes a byte", format!("{:.3}", figures.amplification), &goal)];
    if work.depth == 1 {
        let most = if work.way == log::Way::Intent { "2" } else { "1" };
        lines.push(line("device writes one after the other", figures.waves.to_string(), most));
    }
    lines.push(line("device writes each", format!("{:.2}", figures.writes_each), "-"));
    lines.push(line("flushes each", format!("{:.2}", figures.flushes_each), "-"));
    let calls = format!(
        "{:.2}; requests with known memory, for 100 device writes: {:.0}",
        figures.calls, figures.known_percent
    );
    lines.push(line("calls of the ring each", calls, "-"));
    lines.push(line("CPU each, with the ring", format!("{:.1} us", figures.cpu_us), "-"));
    let of_raw = if work.bytes == 4096 { format!(", bare device {raw:.0}") } else { String::new() };
    lines.push(line("a second", format!("{:.0}{of_raw}", figures.rate), "-"));
    let [median, high, most] = figures.latency_us;
    lines.push(line("latency p50, p99, most", format!("{median:.0}, {high:.0}, {most:.0} us"), "-"));
    lines
}

/// A load that goes on for minutes. The bare device has its turn before and after, for a tenth of the time each.
fn sustained(driver: &mut Driver, intents: bool, time: Duration) -> Result<Vec<Line>> {
    let goal = Some(if intents { 1.1 } else { 2.3 });
    let name = "sustained 4 KiB overwrites, depth 32";
    let work = Work { name, bytes: 4096, depth: 32, way: log::Way::Auto, prepares: false, goal };
    eprintln!("measuring {name}");
    let raw = driver.raw(work.depth, time / 10)?;
    driver.watch(Duration::from_secs_f64(raw.latency_us[0] * 10.0 / 1e6));
    let figures = driver.measure(&work, time)?;
    let after = driver.raw(work.depth, time / 10)?;
    let mut lines = table_of(&work, &figures, raw.rate);
    let mut line = |what: &str, value: String, goal: &str| {
        lines.push(Line::new(format!("{name}: {what}"), value, goal));
    };
    let medians = |latency_us: f64| latency_us / raw.latency_us[0];
    let [of_store, before, after] = [figures.latency_us[2], raw.latency_us[2], after.latency_us[2]].map(medians);
    let value = format!("{of_store:.1}; the bare device's own before {before:.1}, after {after:.1}");
    line("longest wait, in medians of the bare device", value, "<= 10");
    let Stalls { all, ours, waits, device_us } = figures.stalls;
    let device = format!(
        "while one request of the device, or of this thread for a processor, took up to {:.1}",
        medians(device_us)
    );
    line("writes that took longer than 10 medians", format!("{all}, {device}"), "-");
    line("of them, without device or machine being that slow", ours.to_string(), "0");
    line("writes that waited for room", waits.to_string(), "0");
    Ok(lines)
}
