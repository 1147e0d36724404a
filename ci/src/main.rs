//! `cargo ci`: what a change must pass, in one program.
//!
//! Owns: the order of the checks, the house's own rules ([`tidy`]), the proof that core touches nothing ([`purity`]).
//! Does not own: the tests themselves, the simulator, the benchmarks; it starts them.
#![forbid(unsafe_code)]

mod campaign;
mod commands;
mod fuzz;
mod page;
mod purity;
mod tidy;
mod tools;
mod verify;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Checks of the Ashlar workspace.
#[derive(Parser)]
#[command(name = "cargo ci", bin_name = "cargo ci")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything a change must pass: formatting, clippy, tidy, purity, tests, determinism, a short campaign.
    Verify(verify::Args),
    /// Install what the tests need, then run them all.
    Test,
    /// The house's own rules on every file.
    Tidy,
    /// Proof that core needs nothing of an operating system.
    Purity,
    /// The same seeds twice must give the same histories.
    Determinism {
        /// Compares builds with and without optimisation, too.
        #[arg(long)]
        builds: bool,
    },
    /// The simulator for a while, on fresh seeds.
    Campaign(campaign::Args),
    /// Whatever comes from outside, for a while: the wire, NBD clients, devices, the metadata store.
    Fuzz(fuzz::Args),
    /// The simulator's speed, and benchmarks of a whole cluster on this machine, release builds.
    Bench {
        /// Passed on to `ashlar bench`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// A cluster of three hosts (network namespaces; needs root): what clients see while hosts, monitors and etcd fail.
    Cluster {
        /// Passed on to `ashlar-deployment`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// The commands of docs/deploy.md as printed, on three hosts of network namespaces (needs root).
    Page(page::Args),
    /// The long tests with real processes: kills, stalls, power cycles.
    Torture {
        /// Passed on to `ashlar-jepsen`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Verify(args) => verify::run(&args),
        Command::Test => verify::tests(),
        Command::Tidy => tidy::run(),
        Command::Purity => purity::run(),
        Command::Determinism { builds } => {
            campaign::determinism()?;
            if builds { campaign::builds() } else { Ok(()) }
        }
        Command::Campaign(args) => campaign::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Bench { arguments } => campaign::bench(&arguments),
        Command::Cluster { arguments } => campaign::cluster(&arguments),
        Command::Page(args) => page::run(&args),
        Command::Torture { arguments } => campaign::torture(&arguments),
    }
}
