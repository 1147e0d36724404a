//! `run`: many seeds, on several cores, with a verdict at the end.

use super::{first_lines, named, scenarios_of};
use crate::case::{Case, Choice, open_folder};
use crate::determinism::{ONE_IN, repeat};
use crate::marks;
use crate::run::{Recording, Report, run_case};
use crate::scenarios::Scenario;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How often totals are printed where there is no terminal.
const PRINT_EVERY: Duration = Duration::from_secs(30);

#[derive(Parser, Clone)]
pub struct RunArgs {
    /// Number of seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// First seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Scenario; all scenarios in turn with `all`.
    #[arg(long, default_value = "mix")]
    scenario: String,
    #[command(flatten)]
    choice: Choice,
    /// A file with the whole configuration; each seed runs it with delays and draws of its own.
    #[arg(long, conflicts_with_all = ["scenario", "pool", "topology"])]
    config: Option<PathBuf>,
    /// Seeds at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Ends after so many minutes, however many seeds are left.
    #[arg(long)]
    minutes: Option<u64>,
    /// Runs each seed twice and compares, not only one in twenty and those that fail.
    #[arg(long)]
    twice: bool,
    /// Goes on after a failure.
    #[arg(long)]
    keep_going: bool,
    /// Prints each seed's hash.
    #[arg(long)]
    hashes: bool,
    /// Prints how often each mark was hit.
    #[arg(long)]
    marks: bool,
    /// Where failing runs are written to; without it `ci/seeds/open`, or here.
    #[arg(long)]
    failures: Option<PathBuf>,
}

/// What a campaign came to so far.
#[derive(Default)]
struct Totals {
    seeds: u64,
    repeated: u64,
    events: u64,
    operations: u64,
    faults: u64,
    suppressed: u64,
    undecided: u64,
    simulated_ns: u64,
    failures: Vec<(String, String)>,
    marks: BTreeMap<&'static str, u64>,
}

struct Done {
    case: Case,
    report: Report,
    repeated: bool,
    differs: Option<String>,
}

/// The work of a campaign, shared by its threads.
struct Work<'a> {
    args: &'a RunArgs,
    scenarios: Vec<&'static Scenario>,
    fixed: Option<Case>,
    deadline: Option<Instant>,
    next: AtomicU64,
    stop: AtomicBool,
}

impl Work<'_> {
    /// The next run, if there is one.
    fn next(&self) -> Option<(Case, &'static Scenario)> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let seeds = if self.deadline.is_some() { u64::MAX - self.args.from } else { self.args.seeds };
        if n >= seeds || late || self.stop.load(Ordering::Relaxed) {
            return None;
        }
        let seed = self.args.from + n;
        if let Some(fixed) = &self.fixed {
            let mut case = fixed.clone();
            case.config.seed = seed;
            return Some((case, self.scenarios[0]));
        }
        let scenario = self.scenarios[usize::try_from(n % self.scenarios.len() as u64).expect("few")];
        Some((Case::drawn(seed, scenario, self.args.choice), scenario))
    }

    fn carry_out(&self, case: Case, scenario: &'static Scenario) -> Done {
        let report = run_case(&case, scenario, &Recording::default());
        let repeated = self.args.twice || report.failure.is_some() || case.config.seed.is_multiple_of(ONE_IN);
        let differs = if repeated { repeat(&case, scenario, &report).err() } else { None };
        Done { case, report, repeated, differs }
    }
}

/// Runs a campaign.
pub fn run(args: &RunArgs) -> Result<ExitCode, String> {
    let fixed = args.config.as_deref().map(Case::read).transpose()?;
    let name = fixed.as_ref().map_or(args.scenario.clone(), |case| case.scenario.clone());
    let begun = Instant::now();
    let work = Work {
        args,
        scenarios: scenarios_of(&name)?,
        fixed,
        deadline: args.minutes.map(|minutes| begun + Duration::from_secs(60 * minutes)),
        next: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    let bar = bar(args);
    let (sender, done) = mpsc::channel();
    let mut totals = Totals::default();
    std::thread::scope(|scope| -> Result<(), String> {
        for _ in 0..args.jobs.max(1) {
            let (sender, work) = (sender.clone(), &work);
            scope.spawn(move || {
                while let Some((case, scenario)) = work.next() {
                    if sender.send(work.carry_out(case, scenario)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut shown = Instant::now();
        for done in done {
            let outcome = totals.take(&done, args, &bar);
            if !totals.failures.is_empty() && !args.keep_going || outcome.is_err() {
                work.stop.store(true, Ordering::Relaxed);
            }
            outcome?;
            show(&totals, (begun, args.minutes.is_some()), &bar, &mut shown);
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    Ok(totals.finish(args, &name, begun))
}

fn bar(args: &RunArgs) -> ProgressBar {
    let (bar, place) = match args.minutes {
        Some(minutes) => (ProgressBar::new(60 * minutes), "{elapsed}"),
        None => (ProgressBar::new(args.seeds), "{pos}/{len}, {eta} left"),
    };
    let template = format!("{{bar:30}} {place} {{msg}}");
    bar.with_style(ProgressStyle::with_template(&template).expect("a template of ours"))
}

fn show(totals: &Totals, (begun, timed): (Instant, bool), bar: &ProgressBar, shown: &mut Instant) {
    if bar.is_hidden() {
        if shown.elapsed() > PRINT_EVERY {
            *shown = Instant::now();
            println!("{}", totals.line(begun));
        }
        return;
    }
    bar.set_position(if timed { begun.elapsed().as_secs() } else { totals.seeds });
    let rate = totals.seeds as f64 / begun.elapsed().as_secs_f64();
    let (hours, failures) = (totals.simulated_ns as f64 / 3.6e12, totals.failures.len());
    bar.set_message(format!("{rate:.1} seeds/s, {hours:.1} simulated hours, {failures} failures"));
}

impl Totals {
    fn take(&mut self, done: &Done, args: &RunArgs, bar: &ProgressBar) -> Result<(), String> {
        let Done { case, report, repeated, differs } = done;
        self.seeds += 1;
        self.repeated += u64::from(*repeated);
        self.events += report.events;
        self.operations += report.tally.done;
        self.faults += report.tally.faults;
        self.suppressed += report.tally.suppressed;
        self.undecided += report.tally.undecided;
        self.simulated_ns += report.simulated_ns;
        for (name, count) in &report.marks {
            *self.marks.entry(name).or_default() += count;
        }
        if args.hashes {
            println!("seed {} {} {:016x} ({} events)", report.seed, case.scenario, report.trace, report.events);
        }
        let broken = report.failure.as_ref().map(|failure| failure.what.clone());
        let Some(what) = differs.clone().or(broken) else { return Ok(()) };
        let which = named(report.seed, &case.scenario, args.choice);
        let file = Case { broken: what.clone(), ..case.clone() };
        let path = file.place(&args.failures.clone().unwrap_or_else(open_folder));
        file.write(&path)?;
        bar.suspend(|| {
            println!("FAILED seed {} of {}: {}", report.seed, case.scenario, first_lines(&what, 3));
            match args.config {
                None => println!("  ashlar-sim repro {which}"),
                Some(_) => println!("  ashlar-sim repro --config {}", path.display()),
            }
            println!("  written to {}", path.display());
        });
        self.failures.push((which, what));
        Ok(())
    }

    fn line(&self, begun: Instant) -> String {
        let seconds = begun.elapsed().as_secs_f64();
        format!(
            "{:>7} seeds in {seconds:.0} s ({:.1}/s), {:.1} simulated hours, {:.2} M events, {} operations, {} faults \
             ({} suppressed: beyond the promise), {} run twice, {} failures",
            self.seeds,
            self.seeds as f64 / seconds,
            self.simulated_ns as f64 / 3.6e12,
            self.events as f64 / 1e6,
            self.operations,
            self.faults,
            self.suppressed,
            self.repeated,
            self.failures.len()
        )
    }

    fn finish(&self, args: &RunArgs, scenario: &str, begun: Instant) -> ExitCode {
        println!("{}", self.line(begun));
        if self.undecided > 0 {
            println!("{} blocks had too many operations at once to decide", self.undecided);
        }
        if args.marks {
            self.marks.iter().for_each(|(name, count)| println!("{count:>9}  {name}"));
        }
        let all_hit = self.judge_marks(args, scenario);
        for (kind, seeds) in self.kinds() {
            println!("{:>5} x {kind}  {}", seeds.len(), seeds[..seeds.len().min(6)].join(", "));
        }
        if let Some((which, _)) = self.failures.first() {
            println!("first failure: ashlar-sim repro {which}");
            return ExitCode::FAILURE;
        }
        println!("no promise was broken");
        if all_hit { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Whether everything that a campaign of this length should meet was met; says what was not.
    fn judge_marks(&self, args: &RunArgs, scenario: &str) -> bool {
        let never = marks::never_hit(&self.marks);
        if !never.is_empty() && scenario == "mix" && args.choice == Choice::default() && args.config.is_none() {
            println!("marks never hit: {}", never.join("; "));
            if self.seeds >= marks::SEEDS {
                println!("a campaign of {} seeds is to hit all of them", marks::SEEDS);
                return false;
            }
        }
        true
    }

    /// Failures by their beginnings.
    fn kinds(&self) -> BTreeMap<String, Vec<String>> {
        let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (which, what) in &self.failures {
            let text = what.lines().next().unwrap_or("").chars();
            let kind = text.filter(|c| !c.is_ascii_digit()).take(90).collect();
            kinds.entry(kind).or_default().push(which.clone());
        }
        kinds
    }
}
