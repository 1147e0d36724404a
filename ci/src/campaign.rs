//! Starting the simulator, the benchmarks and the long tests with real processes.
//!
//! Whatever runs for minutes is a release build; what belongs to every change uses the build that the tests made.

use crate::commands;
use anyhow::Result;
use std::process::Command;

/// Seeds of the campaign that every change must pass: half a minute. Long campaigns have a command of their own.
const SHORT_SEEDS: &str = "200";
/// Seeds that are run twice.
const DETERMINISM_SEEDS: &str = "20";

/// How long, and on what.
#[derive(clap::Args)]
pub struct Args {
    /// How long to go on.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Passed on to `ashlar-sim run`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

fn release(package: &str) -> Command {
    let mut command = commands::cargo();
    command.args(["run", "--quiet", "--release", "-p", package, "--"]);
    command
}

fn simulator() -> Command {
    let mut command = commands::cargo();
    command.args(["run", "--quiet", "-p", "ashlar-sim", "--"]);
    command
}

/// Fresh seeds until the time is over.
pub fn run(args: &Args) -> Result<()> {
    let minutes = args.minutes.to_string();
    commands::run("campaign", release("ashlar-sim").args(["run", "--minutes", &minutes]).args(&args.arguments))
}

/// The campaign that belongs to every change.
pub fn short() -> Result<()> {
    commands::run("a short campaign", simulator().args(["run", "--seeds", SHORT_SEEDS]))
}

/// Testing the tester: with each planted bug the simulator must find a broken promise. A build of its own, so that no
/// other program ever has the bugs in it.
pub fn planted() -> Result<()> {
    let test = ["test", "--quiet", "-p", "ashlar-sim", "--features", "planted", "--test", "planted"];
    commands::run("planted bugs are found", commands::cargo().args(test))
}

/// The same seeds twice: the hashes of their histories must be equal.
pub fn determinism() -> Result<()> {
    commands::run("the same seeds twice", simulator().args(["run", "--twice", "--seeds", DETERMINISM_SEEDS]))
}

/// `ashlar bench`.
pub fn bench(arguments: &[String]) -> Result<()> {
    commands::run("bench", release("ashlar").arg("bench").args(arguments))
}

/// `ashlar-jepsen`.
pub fn torture(arguments: &[String]) -> Result<()> {
    commands::run(
        "build the release binary",
        commands::cargo().args(["build", "--quiet", "--release", "-p", "ashlar"]),
    )?;
    commands::run("torture", release("ashlar-jepsen").args(arguments))
}
