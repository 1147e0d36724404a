//! Command line: campaigns, repetitions, the list of scenarios, planted bugs.

use crate::cluster::pool::PoolChoice;
use crate::run::{Failure, Recording, Report, run};
use crate::scenarios::{ALL, Scenario};
use clap::{Parser, Subcommand};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

/// Simulates whole Ashlar clusters and breaks them.
#[derive(Parser)]
#[command(name = "ashlar-sim")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs many seeds; stops at the first failure.
    Run(RunArgs),
    /// Repeats one seed and shows what led to its failure.
    Repro(ReproArgs),
    /// Lists the scenarios.
    Scenarios,
    /// Switches planted bugs on and counts the seeds until each is found.
    Plant(PlantArgs),
}

#[derive(Parser, Clone)]
struct RunArgs {
    /// Number of seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// First seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Scenario; all scenarios in turn with `all`.
    #[arg(long, default_value = "mix")]
    scenario: String,
    /// The pool, such as `replicated:3`, `ec:2+1,lazy` or `xor:2+1,immediate`, or `copies` (2 or 3, as drawn); without it
    /// the mix draws it, other scenarios have copies.
    #[arg(long)]
    pool: Option<PoolChoice>,
    /// Seeds at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Ends after so many minutes, however many seeds are left.
    #[arg(long)]
    minutes: Option<u64>,
    /// Runs each seed twice and compares the hashes.
    #[arg(long)]
    twice: bool,
    /// Goes on after a failure.
    #[arg(long)]
    keep_going: bool,
    /// Prints each seed's hash.
    #[arg(long)]
    hashes: bool,
}

#[derive(Parser)]
struct ReproArgs {
    /// The seed.
    seed: u64,
    /// Scenario.
    #[arg(long, default_value = "mix")]
    scenario: String,
    /// The pool, if it was given.
    #[arg(long)]
    pool: Option<PoolChoice>,
    /// Stop at this event.
    #[arg(long)]
    until: Option<u64>,
    /// Events to show.
    #[arg(long, default_value_t = 30)]
    lines: usize,
    /// Show events that contain this word, too.
    #[arg(long)]
    word: Vec<String>,
    /// The planted bug to switch on.
    #[arg(long)]
    planted: Option<String>,
}

#[derive(Parser)]
struct PlantArgs {
    /// Name of the bug.
    name: Option<String>,
    /// All of them.
    #[arg(long)]
    all: bool,
    /// Scenario; `all` of them in turn; without it, that in which the bug shows itself soonest.
    #[arg(long)]
    scenario: Option<String>,
    /// Give up after so many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
}

/// Runs the command line.
pub fn main() -> ExitCode {
    // A broken invariant is caught and reported with its seed; the usual message would only be in the way.
    std::panic::set_hook(Box::new(|info| {
        let text = info.to_string();
        PANIC.with(|place| *place.borrow_mut() = Some(text));
    }));
    match Args::parse().command {
        Command::Run(args) => campaign(&args),
        Command::Repro(args) => repro(&args),
        Command::Scenarios => list(),
        Command::Plant(args) => plant(&args),
    }
}

thread_local! {
    static PANIC: std::cell::RefCell<Option<String>> = const { std::cell::RefCell::new(None) };
}

/// Where the last panic of this thread was, and what it said.
pub fn last_panic() -> Option<String> {
    PANIC.with(|place| place.borrow_mut().take())
}

fn scenarios_of(name: &str) -> Result<Vec<&'static Scenario>, ExitCode> {
    if name == "all" {
        return Ok(ALL.iter().collect());
    }
    match Scenario::named(name) {
        Some(scenario) => Ok(vec![scenario]),
        None => {
            eprintln!("there is no scenario '{name}'; `ashlar-sim scenarios` lists them");
            Err(ExitCode::from(2))
        }
    }
}

fn list() -> ExitCode {
    for scenario in ALL {
        println!("{:<28} {}", scenario.name, scenario.title());
    }
    ExitCode::SUCCESS
}

#[derive(Default)]
struct Totals {
    seeds: u64,
    events: u64,
    operations: u64,
    faults: u64,
    undecided: u64,
    simulated_ns: u64,
    failures: Vec<(u64, &'static str, String)>,
    marks: BTreeMap<&'static str, u64>,
}

fn campaign(args: &RunArgs) -> ExitCode {
    let scenarios = match scenarios_of(&args.scenario) {
        Ok(scenarios) => scenarios,
        Err(code) => return code,
    };
    let begun = Instant::now();
    let deadline = args.minutes.map(|minutes| begun + Duration::from_secs(60 * minutes));
    let seeds = if args.minutes.is_some() { u64::MAX - args.from } else { args.seeds };
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let totals = Mutex::new(Totals::default());
    let (sender, reports) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            let (sender, next, stop, scenarios) = (sender.clone(), &next, &stop, &scenarios);
            scope.spawn(move || {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
                    if n >= seeds || late || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let scenario = scenarios[usize::try_from(n % scenarios.len() as u64).expect("few")];
                    let (seed, quiet) = (args.from + n, Recording { pool: args.pool, ..Recording::default() });
                    let report = run(seed, scenario, &quiet);
                    let again = args.twice.then(|| run(seed, scenario, &quiet).trace);
                    if sender.send((scenario, report, again)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut shown = Instant::now();
        for (scenario, report, again) in reports {
            let mut totals = totals.lock().expect("nobody panics with it");
            take(&mut totals, scenario, &report, again, args);
            if !totals.failures.is_empty() && !args.keep_going {
                stop.store(true, Ordering::Relaxed);
            }
            if shown.elapsed() > Duration::from_secs(10) {
                shown = Instant::now();
                print_totals(&totals, begun);
            }
        }
    });
    let totals = totals.into_inner().expect("nobody panics with it");
    finish(&totals, begun)
}

fn take(totals: &mut Totals, scenario: &'static Scenario, report: &Report, again: Option<u64>, args: &RunArgs) {
    totals.seeds += 1;
    totals.events += report.events;
    totals.operations += report.tally.done;
    totals.faults += report.tally.faults;
    totals.undecided += report.tally.undecided;
    totals.simulated_ns += report.simulated_ns;
    for (name, count) in &report.marks {
        *totals.marks.entry(name).or_default() += count;
    }
    if args.hashes {
        println!("seed {} {} {:016x} ({} events)", report.seed, scenario.name, report.trace, report.events);
    }
    let differs = again.filter(|again| *again != report.trace);
    let what = match (&report.failure, differs) {
        (Some(failure), _) => failure.what.clone(),
        (None, Some(again)) => format!("not deterministic: hashes {:016x} and {again:016x}", report.trace),
        (None, None) => return,
    };
    println!("FAILED seed {} scenario {}: {}", report.seed, scenario.name, first_lines(&what, 3));
    println!("  {}", repro_line(report.seed, scenario, args.pool));
    totals.failures.push((report.seed, scenario.name, what));
}

fn repro_line(seed: u64, scenario: &Scenario, pool: Option<PoolChoice>) -> String {
    let scenario = if scenario.name == "mix" { String::new() } else { format!(" --scenario {}", scenario.name) };
    let pool = pool.map(|pool| format!(" --pool {pool}")).unwrap_or_default();
    format!("ashlar-sim repro {seed}{scenario}{pool}")
}

fn first_lines(text: &str, count: usize) -> String {
    text.lines().take(count).collect::<Vec<_>>().join("\n    ")
}

fn print_totals(totals: &Totals, begun: Instant) {
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{:>7} seeds in {:.0} s ({:.1}/s), {:.1} simulated hours, {:.2} M events, {} operations, {} faults, {} failures",
        totals.seeds,
        seconds,
        totals.seeds as f64 / seconds,
        totals.simulated_ns as f64 / 3.6e12,
        totals.events as f64 / 1e6,
        totals.operations,
        totals.faults,
        totals.failures.len()
    );
}

fn finish(totals: &Totals, begun: Instant) -> ExitCode {
    print_totals(totals, begun);
    if totals.undecided > 0 {
        println!("{} blocks had too many operations at once to decide", totals.undecided);
    }
    if totals.failures.is_empty() {
        println!("no promise was broken");
        return ExitCode::SUCCESS;
    }
    let mut kinds: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (seed, _, what) in &totals.failures {
        let kind: String = what.lines().next().unwrap_or("").chars().filter(|c| !c.is_ascii_digit()).take(90).collect();
        kinds.entry(kind).or_default().push(*seed);
    }
    for (kind, seeds) in kinds {
        println!("{:>5} x {kind}  seeds {:?}", seeds.len(), &seeds[..seeds.len().min(6)]);
    }
    ExitCode::FAILURE
}

fn repro(args: &ReproArgs) -> ExitCode {
    let scenario = match scenarios_of(&args.scenario) {
        Ok(scenarios) => scenarios[0],
        Err(code) => return code,
    };
    if let Err(text) = switch(args.planted.as_deref()) {
        eprintln!("{text}");
        return ExitCode::from(2);
    }
    let mut words = args.word.clone();
    if words.is_empty() {
        let first = run(args.seed, scenario, &Recording { until: args.until, pool: args.pool, ..Recording::default() });
        words = first.failure.iter().flat_map(|failure| words_of(&first, failure)).collect();
    }
    let recording = Recording { lines: args.lines, words, until: args.until, pool: args.pool };
    let report = run(args.seed, scenario, &recording);
    println!("{}", report.config);
    println!(
        "  {} events, {:.3} simulated seconds, {} operations, {} faults, hash {:016x}",
        report.events,
        report.simulated_ns as f64 / 1e9,
        report.tally.done,
        report.tally.faults,
        report.trace
    );
    match &report.failure {
        None => println!("no promise was broken"),
        Some(failure) => show(failure),
    }
    if report.failure.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What events about the failure contain.
fn words_of(_report: &Report, failure: &Failure) -> Vec<String> {
    failure.ops.iter().map(|op| format!("operation {op}:")).collect()
}

fn show(failure: &Failure) {
    let section = |title: &str, lines: &[String]| {
        if !lines.is_empty() {
            println!("-- {title}");
            lines.iter().for_each(|line| println!("{}", line.chars().take(400).collect::<String>()));
        }
    };
    section("events of interest", &failure.chosen);
    section("last events", &failure.last);
    section("warnings", &failure.warnings);
    section("operations", &failure.operations);
    println!("-- broken: {}", failure.what);
    if let Some(block) = failure.block {
        println!("   block {block}");
    }
}

#[cfg(feature = "planted")]
fn switch(name: Option<&str>) -> Result<(), String> {
    use ashlar_core::planted::{Bug, plant};
    let Some(name) = name else { return Ok(()) };
    let bug = Bug::from_name(name).ok_or_else(|| format!("there is no planted bug '{name}'"))?;
    plant(Some(bug));
    Ok(())
}

#[cfg(not(feature = "planted"))]
fn switch(name: Option<&str>) -> Result<(), String> {
    match name {
        None => Ok(()),
        Some(_) => Err(WITHOUT_PLANTS.into()),
    }
}

#[cfg(not(feature = "planted"))]
const WITHOUT_PLANTS: &str = "this binary has no planted bugs: build it with `--features planted`";

#[cfg(not(feature = "planted"))]
fn plant(_args: &PlantArgs) -> ExitCode {
    eprintln!("{WITHOUT_PLANTS}");
    ExitCode::from(2)
}

#[cfg(feature = "planted")]
fn plant(args: &PlantArgs) -> ExitCode {
    use ashlar_core::planted::Bug;
    let bugs: Vec<Bug> = match &args.name {
        _ if args.all => Bug::ALL.to_vec(),
        Some(name) => match Bug::from_name(name) {
            Some(bug) => vec![bug],
            None => {
                eprintln!("there is no planted bug '{name}'");
                return ExitCode::from(2);
            }
        },
        None => {
            Bug::ALL.iter().for_each(|bug| println!("{}", bug.name()));
            return ExitCode::SUCCESS;
        }
    };
    let named = match args.scenario.as_deref().map(scenarios_of).transpose() {
        Ok(named) => named,
        Err(code) => return code,
    };
    let mut missed = 0;
    println!("{:<28} {:>5}  {:<20} found as", "planted bug", "seeds", "scenario");
    for bug in bugs {
        let scenarios = named.clone().unwrap_or_else(|| vec![crate::plants::ground(bug)]);
        let (seeds, scenario, what) = match crate::plants::hunt(bug, &scenarios, 1, args.seeds) {
            Some(found) => (found.seeds, found.scenario, first_lines(&found.what, 1)),
            None => {
                missed += 1;
                (args.seeds, "", "NOT FOUND".into())
            }
        };
        println!("{:<28} {seeds:>5}  {scenario:<20} {what}", bug.name());
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
