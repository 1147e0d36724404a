//! `ashlar-deployment`: a cluster of three hosts with real addresses, what clients see when parts of it fail, as figures
//! beside their goals. Needs root, etcd, fio, `ip` and `nft`.

use anyhow::Result;
use ashlar_jepsen::deployment::Deployment;
use ashlar_jepsen::deployment::arguments::Cli;
use ashlar_jepsen::deployment::failover::{ALL, Failure, measure, millis, verify_through_failures};
use ashlar_jepsen::deployment::flapping;
use ashlar_jepsen::leftovers;
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.list {
        ALL.iter().for_each(|failure| println!("{:<16} {}", failure.name, failure.what));
        println!("{:<16} {}", flapping::NAME, flapping::WHAT);
        return ExitCode::SUCCESS;
    }
    match leftovers::guard().and_then(|()| run(&cli)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("FAILED  {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all goals are met.
fn run(cli: &Cli) -> Result<bool> {
    let known = |name: &str| name == flapping::NAME || ALL.iter().any(|failure| failure.name == name);
    if let Some(unknown) = cli.failures.iter().find(|name| !known(name)) {
        anyhow::bail!("there is no failure '{unknown}'; --list shows them");
    }
    let mut deployment = Deployment::start()?;
    eprintln!("a cluster of 3 etcd, 2 monitors and 6 OSDs on 3 hosts serves {}", deployment.uri());
    let is_wanted = |what: &str| cli.failures.is_empty() || cli.failures.iter().any(|name| name == what);
    let wanted = |failure: &&Failure| is_wanted(failure.name);
    let mut met = true;
    for failure in ALL.iter().filter(wanted).filter(|_| cli.runs > 0) {
        eprintln!("{}: {}", failure.name, failure.what);
        let figures = measure(&mut deployment, failure, cli.runs)?;
        let good = figures.worst() <= failure.goal;
        met &= good;
        println!(
            "{:<7} {:<16} median {:>5.0} ms, worst {:>5.0} ms of {} runs; goal {} ms",
            if good { "ok" } else { "MISSED" },
            failure.name,
            millis(figures.median()),
            millis(figures.worst()),
            cli.runs,
            failure.goal.as_millis()
        );
    }
    if is_wanted(flapping::NAME) {
        println!("ok      {:<16} {}", flapping::NAME, flapping::check(&mut deployment)?);
    }
    if cli.failures.is_empty() && cli.rounds > 0 {
        println!("ok      fio: {}", verify_through_failures(&mut deployment, cli.rounds)?);
    }
    Ok(met)
}
