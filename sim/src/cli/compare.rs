//! `compare`: two builds of the simulator must give the same runs, such as one with and one without optimisation.

use super::{Which, named, scenario};
use crate::case::{Case, Choice};
use crate::determinism::{differing, first_difference};
use crate::run::{Recording, run_case};
use clap::Parser;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

#[derive(Parser)]
pub struct CompareArgs {
    /// The other program.
    other: PathBuf,
    /// Number of seeds.
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// First seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Scenario.
    #[arg(long, default_value = "mix")]
    scenario: String,
    #[command(flatten)]
    choice: Choice,
}

#[derive(Parser)]
pub struct TraceArgs {
    #[command(flatten)]
    which: Which,
    /// All that happens from this event on, in place of the hashes.
    #[arg(long)]
    from: Option<u64>,
    /// Up to before this event.
    #[arg(long, default_value_t = u64::MAX)]
    to: u64,
}

/// Prints the hash of a run and those on its way, or a part of what happens in it.
pub fn trace(args: &TraceArgs) -> Result<ExitCode, String> {
    let (case, scenario) = args.which.case()?;
    let window = args.from.map(|from| from..args.to);
    let report = run_case(&case, scenario, &Recording { window: window.clone(), ..Recording::default() });
    if window.is_some() {
        report.lines.iter().for_each(|line| println!("{}", line.replace('\n', " ")));
    } else {
        report.checkpoints.iter().chain([&report.trace, &report.events]).for_each(|word| println!("{word}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Compares seed by seed; stops at the first that differs.
pub fn compare(args: &CompareArgs) -> Result<ExitCode, String> {
    let scenario = scenario(&args.scenario)?;
    for seed in args.from..args.from + args.seeds {
        let case = Case::drawn(seed, scenario, args.choice);
        let report = run_case(&case, scenario, &Recording::default());
        let mut own = report.checkpoints.clone();
        own.extend([report.trace, report.events]);
        let word = |line: String| line.parse::<u64>().map_err(|_| format!("the other program said '{line}'"));
        let other: Vec<u64> = args.ask(seed, None)?.into_iter().map(word).collect::<Result<_, _>>()?;
        if own == other {
            continue;
        }
        let hashes = |all: &[u64]| all[..all.len().saturating_sub(2)].to_vec();
        let window = differing(&hashes(&own), &hashes(&other));
        let recording = Recording { window: Some(window.clone()), ..Recording::default() };
        let lines = run_case(&case, scenario, &recording).lines.into_iter().map(|line| line.replace('\n', " "));
        let other = args.ask(seed, Some(&window))?;
        println!("seed {seed}: {}", first_difference(&lines.collect::<Vec<_>>(), &other, &window));
        return Ok(ExitCode::FAILURE);
    }
    println!("{} seeds are the same in both programs", args.seeds);
    Ok(ExitCode::SUCCESS)
}

impl CompareArgs {
    /// What the other program says of a seed.
    fn ask(&self, seed: u64, window: Option<&Range<u64>>) -> Result<Vec<String>, String> {
        let complain = |error| format!("cannot ask {}: {error}", self.other.display());
        let mut command = Command::new(&self.other);
        command.arg("trace").args(named(seed, &self.scenario, self.choice).split(' '));
        if let Some(window) = window {
            command.args(["--from", &window.start.to_string(), "--to", &window.end.to_string()]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().map_err(complain)?;
        let lines = BufReader::new(child.stdout.take().expect("it was asked for")).lines();
        let lines = lines.collect::<Result<Vec<_>, _>>().map_err(complain)?;
        let status = child.wait().map_err(complain)?;
        if status.success() { Ok(lines) } else { Err(format!("{} failed: {status}", self.other.display())) }
    }
}
