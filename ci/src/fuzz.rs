//! Fuzzing: each target for a while, from its corpus on.
//!
//! The compiler's own instrumentation and libFuzzer's driver do it on the stable toolchain; what is wanted beside Rust is a
//! C++ compiler. New inputs stay in `target/fuzz`, so that a longer run goes on where the last one ended; those that teach
//! something are moved to `ci/corpus` by hand.

use crate::commands;
use anyhow::{Context, Result, bail};
use std::path::Path;

/// Programs in `fuzz/targets`.
const TARGETS: &[&str] = &["wire", "nbd", "requests", "store", "metadata", "rules"];
/// Coverage for the driver: counters of edges, their places, operands of comparisons.
const INSTRUMENTATION: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions --cfg fuzzing";

/// How long, and what.
#[derive(clap::Args)]
pub struct Args {
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Only these targets; all by default.
    targets: Vec<String>,
}

/// Runs the targets one after the other; stops at the first finding, which libFuzzer writes to `target/fuzz`.
pub fn run(args: &Args) -> Result<()> {
    if let Some(unknown) = args.targets.iter().find(|name| !TARGETS.contains(&name.as_str())) {
        bail!("there is no target '{unknown}'; there are: {}", TARGETS.join(", "));
    }
    if !["c++", "g++", "clang++"].iter().any(|name| commands::answers(name, &["--version"])) {
        bail!("fuzzing needs a C++ compiler; Debian calls it g++");
    }
    // Named, so that the instrumentation stays out of programs that only serve the build.
    let host = commands::output(commands::program("rustc").arg("-vV"))?;
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc says its host")?;
    let folder = commands::root().join("target/fuzz");
    for target in TARGETS.iter().filter(|name| args.targets.is_empty() || args.targets.iter().any(|t| t == *name)) {
        fuzz(target, args.seconds, host, &folder)?;
    }
    Ok(())
}

fn fuzz(target: &str, seconds: u64, host: &str, folder: &Path) -> Result<()> {
    let learned = folder.join("corpus").join(target);
    std::fs::create_dir_all(&learned).with_context(|| format!("cannot make {}", learned.display()))?;
    let mut command = commands::cargo();
    command.env("RUSTFLAGS", INSTRUMENTATION).env("CARGO_TARGET_DIR", folder);
    command.args(["run", "--quiet", "--manifest-path", "fuzz/Cargo.toml", "--target", host, "--bin", target, "--"]);
    command.arg(&learned).arg(commands::root().join("ci/corpus").join(target));
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-artifact_prefix={}/{target}-", folder.display()));
    // What is slow is as wrong as what panics.
    command.args(["-timeout=10", "-print_final_stats=1", "-verbosity=0"]);
    commands::run(&format!("fuzz {target} for {seconds} s"), &mut command)
}
