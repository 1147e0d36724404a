//! `cargo ci verify`: the checks in the order in which they fail fastest.

use crate::{campaign, commands, purity, tidy, tools};
use anyhow::Result;
use std::time::Instant;

/// What to leave out.
#[derive(clap::Args)]
pub struct Args {
    /// Leave out what takes minutes: the tests and the campaign.
    #[arg(long)]
    quick: bool,
}

/// Runs everything; stops at the first failure.
pub fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    tools::install()?;
    commands::run("formatting", commands::cargo().args(["fmt", "--all", "--check"]))?;
    tidy::run()?;
    let clippy = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
    commands::run("clippy", commands::cargo().args(clippy))?;
    purity::run()?;
    if !args.quick {
        tests()?;
        campaign::determinism()?;
        campaign::short()?;
        campaign::planted()?;
    }
    eprintln!("\nverify: everything passed in {} s", start.elapsed().as_secs());
    Ok(())
}

/// Installs what the tests need, builds what they start, runs them all.
pub fn tests() -> Result<()> {
    tools::install()?;
    commands::run("the binary that tests start", commands::cargo().args(["build", "--quiet", "-p", "ashlar"]))?;
    commands::run("tests", commands::cargo().args(["test", "--workspace", "--no-fail-fast"]))
}
