//! The command line: campaigns, and what people do with a run that failed.
//!
//! Owns the arguments and what is printed. What commands do is elsewhere in this crate.

mod bisect;
mod campaign;
mod compare;
mod look;
mod plant;
mod reduce;

use crate::case::{Case, Choice};
use crate::plan::Plan;
use crate::scenarios::{ALL, Scenario};
use ashlar_faultinject::plan::FaultPlan;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Simulates whole Ashlar clusters and breaks them.
#[derive(Parser)]
#[command(name = "ashlar-sim")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs many seeds; stops at the first failure, which it writes to a file.
    Run(campaign::RunArgs),
    /// Repeats one run and shows on one screen what was broken, and what led to it.
    Repro(look::ReproArgs),
    /// Reduces a run that fails to the few operations and faults that it needs, and writes it to a file.
    Shrink(reduce::ShrinkArgs),
    /// Writes a page that shows a run: who told whom what, and when.
    Explain(reduce::ExplainArgs),
    /// Finds the commit since which a run fails.
    Bisect(bisect::BisectArgs),
    /// Switches planted bugs on and counts the seeds until each is found.
    Plant(plant::PlantArgs),
    /// Lists the scenarios.
    Scenarios,
    /// Compares the runs of this program with those of another build of it.
    Compare(compare::CompareArgs),
    /// Prints the hashes of a run, or all that happens in some of its events: for `compare`.
    Trace(compare::TraceArgs),
    /// Measures the simulator's speed beside its goals.
    Bench {
        /// What to measure: `seeds`, `busy` or `idle`; everything without it.
        only: Option<String>,
    },
}

/// Which run.
#[derive(Parser, Clone)]
struct Which {
    /// The seed.
    #[arg(required_unless_present = "config")]
    seed: Option<u64>,
    /// Scenario.
    #[arg(long, default_value = "mix")]
    scenario: String,
    #[command(flatten)]
    choice: Choice,
    /// In place of a seed: a file with the whole configuration, as failing runs and `shrink` write them.
    #[arg(long, conflicts_with_all = ["seed", "scenario", "pool", "topology"])]
    config: Option<PathBuf>,
    /// A list of faults, as runs on real processes write it: they come in place of those that the seed draws.
    #[arg(long, conflicts_with = "config")]
    faults: Option<PathBuf>,
    /// The planted bug to switch on.
    #[arg(long)]
    planted: Option<String>,
}

impl Which {
    /// The run, with the planted bug switched on.
    fn case(&self) -> Result<(Case, &'static Scenario), String> {
        plant::switch(self.planted.as_deref())?;
        let mut case = match (&self.config, self.seed) {
            (Some(path), _) => Case::read(path)?,
            (None, seed) => Case::drawn(seed.expect("one of both"), scenario(&self.scenario)?, self.choice),
        };
        if let Some(path) = &self.faults {
            case.plan = Some(faults_of(path)?);
        }
        let scenario = case.scenario()?;
        Ok((case, scenario))
    }

    /// The arguments that name it.
    fn words(&self) -> String {
        let mut words = match (&self.config, self.seed) {
            (Some(path), _) => format!("--config {}", path.display()),
            (None, seed) => named(seed.expect("one of both"), &self.scenario, self.choice),
        };
        if let Some(faults) = &self.faults {
            words += &format!(" --faults {}", faults.display());
        }
        if let Some(planted) = &self.planted {
            words += &format!(" --planted {planted}");
        }
        words
    }
}

/// A plan of nothing but the faults in a file.
fn faults_of(path: &std::path::Path) -> Result<Plan, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let list: FaultPlan =
        serde_json::from_str(&text).map_err(|error| format!("{} is not a list of faults: {error}", path.display()))?;
    Ok(Plan { drawn_load: true, faults: list.faults, ..Plan::default() })
}

/// The arguments that name a run.
fn named(seed: u64, scenario: &str, choice: Choice) -> String {
    let scenario = if scenario == "mix" { String::new() } else { format!(" --scenario {scenario}") };
    format!("{seed}{scenario}{choice}")
}

/// Runs the command line.
pub fn main() -> ExitCode {
    // A broken invariant is caught and reported with its seed; the usual message would only be in the way.
    std::panic::set_hook(Box::new(|info| {
        let text = info.to_string();
        PANIC.with(|place| *place.borrow_mut() = Some(text));
    }));
    let outcome = match Args::parse().command {
        Command::Run(args) => campaign::run(&args),
        Command::Repro(args) => look::repro(&args),
        Command::Shrink(args) => reduce::shrink(&args),
        Command::Explain(args) => reduce::explain(&args),
        Command::Bisect(args) => bisect::bisect(&args),
        Command::Plant(args) => plant::plant(&args),
        Command::Scenarios => Ok(list()),
        Command::Compare(args) => compare::compare(&args),
        Command::Trace(args) => compare::trace(&args),
        Command::Bench { only } => Ok(crate::bench::bench(only.as_deref())),
    };
    outcome.unwrap_or_else(|text| {
        eprintln!("error: {text}");
        ExitCode::from(2)
    })
}

thread_local! {
    static PANIC: std::cell::RefCell<Option<String>> = const { std::cell::RefCell::new(None) };
}

/// Where the last panic of this thread was, and what it said.
pub fn last_panic() -> Option<String> {
    PANIC.with(|place| place.borrow_mut().take())
}

fn scenario(name: &str) -> Result<&'static Scenario, String> {
    Scenario::named(name).ok_or_else(|| format!("there is no scenario '{name}'; `ashlar-sim scenarios` lists them"))
}

fn scenarios_of(name: &str) -> Result<Vec<&'static Scenario>, String> {
    if name == "all" { Ok(ALL.iter().collect()) } else { scenario(name).map(|scenario| vec![scenario]) }
}

fn list() -> ExitCode {
    for scenario in ALL {
        println!("{:<28} {}", scenario.name, scenario.title());
    }
    ExitCode::SUCCESS
}

fn first_lines(text: &str, count: usize) -> String {
    text.lines().take(count).collect::<Vec<_>>().join("\n    ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn what_names_a_run_is_read_back() {
        for words in ["57", "57 --scenario calm", "8 --pool ec:2+1,lazy --topology 12:3 --profile over-budget"] {
            let line = format!("ashlar-sim repro {words}");
            let Command::Repro(args) = Args::parse_from(line.split(' ')).command else { panic!("another command") };
            assert_eq!(args.which().words(), words);
        }
    }
}
