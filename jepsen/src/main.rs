//! `ashlar-jepsen`: the cases in their long form, one after another, with what was seen in each.

use anyhow::{Result, ensure};
use ashlar_jepsen::arguments::{Cli, Command};
use ashlar_jepsen::cases::{ALL, POOLS, SKIPPED, Scale};
use ashlar_jepsen::ending::{Ending, tell};
use ashlar_jepsen::leftovers;
use clap::Parser;
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.cleanup {
        println!("cleared up after {} dead processes", leftovers::sweep_dead());
        return ExitCode::SUCCESS;
    }
    if let Err(error) = leftovers::guard() {
        return tell(Err(error));
    }
    match &cli.command {
        Some(Command::Soak(soak)) => return tell(soak.run()),
        Some(Command::Matrix(matrix)) => return tell(matrix.run()),
        Some(Command::Planted(args)) => return tell(args.run()),
        None => {}
    }
    if cli.list {
        ALL.iter().for_each(|case| println!("{:<10} {}", case.name, case.shows));
        return ExitCode::SUCCESS;
    }
    tell(all_rounds(&cli))
}

fn all_rounds(cli: &Cli) -> Result<Ending> {
    let (mut failed, mut skipped) = (0, BTreeSet::new());
    for _ in 0..cli.rounds {
        failed += round(cli, &mut skipped);
    }
    ensure!(failed == 0, "{failed} cases FAILED");
    if skipped.is_empty() {
        return Ok(Ending::Done("all cases are ok".into()));
    }
    let names = skipped.into_iter().collect::<Vec<_>>().join(", ");
    Ok(Ending::NotTried(format!("what ran is ok, but NOT tried, or not all of it: {names}")))
}

/// Runs the chosen cases; how many failed.
fn round(cli: &Cli, skipped: &mut BTreeSet<&'static str>) -> u32 {
    let scale = if cli.short { Scale::SHORT } else { Scale::LONG };
    let pool = POOLS.into_iter().find(|pool| *pool == cli.pool).expect("checked with the arguments");
    let scale = Scale { pool, ..scale };
    let mut failed = 0;
    for case in ALL.iter().filter(|case| cli.cases.is_empty() || cli.cases.iter().any(|name| name == case.name)) {
        eprintln!("{}: {}", case.name, case.shows);
        let start = Instant::now();
        let outcome = (case.run)(scale);
        let seconds = start.elapsed().as_secs();
        match outcome {
            Ok(seen) if seen.contains(SKIPPED) => {
                skipped.insert(case.name);
                println!("SKIPPED {:<10} {seen} ({seconds} s)", case.name);
            }
            Ok(seen) => println!("ok      {:<10} {seen} ({seconds} s)", case.name),
            Err(error) => {
                failed += 1;
                println!("FAILED  {:<10} {error:#} ({seconds} s)", case.name);
            }
        }
    }
    failed
}
