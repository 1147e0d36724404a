//! Starting the simulator, the benchmarks and the long tests with real processes.
//!
//! Whatever runs for minutes is a release build; what belongs to every change uses the build that the tests made.

use crate::commands;
use anyhow::Result;
use std::process::Command;

/// Seeds of the campaign that every change must pass: a minute. Long campaigns have a command of their own.
const SHORT_SEEDS: &str = "500";
/// Seeds that are run twice.
const DETERMINISM_SEEDS: &str = "20";
/// Seeds that builds with and without optimisation are compared by.
const BUILD_SEEDS: &str = "300";

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

/// Where seeds begin that nobody ran before: at the time of day. What fails is written to a file, so nothing is lost.
fn fresh() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    (since.map_or(1, |since| since.as_secs()) * 1000).to_string()
}

/// Fresh seeds until the time is over.
pub fn run(args: &Args) -> Result<()> {
    let (minutes, from) = (args.minutes.to_string(), fresh());
    let arguments = ["run", "--minutes", &minutes, "--from", &from, "--keep-going"];
    commands::run("campaign", release("ashlar-sim").args(arguments).args(&args.arguments))
}

/// The campaign that belongs to every change.
pub fn short() -> Result<()> {
    commands::run("a short campaign", simulator().args(["run", "--seeds", SHORT_SEEDS, "--from", &fresh()]))
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

/// Builds with and without optimisation must give the same runs.
pub fn builds() -> Result<()> {
    let build = |arguments: &[&str]| {
        let mut command = commands::cargo();
        command.args(["build", "--quiet", "-p", "ashlar-sim"]).args(arguments);
        commands::run("build the simulator", &mut command)
    };
    build(&[])?;
    build(&["--release"])?;
    let program = |profile: &str| commands::root().join("target").join(profile).join("ashlar-sim");
    let mut compare = commands::program(&program("release").display().to_string());
    compare.arg("compare").arg(program("debug")).args(["--seeds", BUILD_SEEDS]);
    commands::run("the same seeds in both builds", &mut compare)
}

/// The simulator's speed beside its goals, and `ashlar bench`.
pub fn bench(arguments: &[String]) -> Result<()> {
    commands::run("bench of the simulator", release("ashlar-sim").arg("bench"))?;
    commands::run("bench", release("ashlar").arg("bench").args(arguments))
}

/// A cluster of three hosts in network namespaces: how long clients wait when something fails.
pub fn cluster(arguments: &[String]) -> Result<()> {
    let build = ["build", "--quiet", "--release", "-p", "ashlar"];
    commands::run("build the release binary", commands::cargo().args(build))?;
    let mut command = commands::cargo();
    command.args(["run", "--quiet", "--release", "-p", "ashlar-jepsen", "--bin", "ashlar-deployment", "--"]);
    commands::run("cluster", command.args(arguments))
}

/// `ashlar-jepsen`.
pub fn torture(arguments: &[String]) -> Result<()> {
    commands::run(
        "build the release binary",
        commands::cargo().args(["build", "--quiet", "--release", "-p", "ashlar"]),
    )?;
    commands::run("torture", release("ashlar-jepsen").args(arguments))
}
