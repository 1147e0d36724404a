//! What `ashlar-jepsen` can be told.

use crate::cases::{ALL, POOLS};
use crate::command_line::Soak;
use crate::matrix::Matrix;
use crate::planted;
use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand};

/// Breaks clusters of real processes and checks what is left.
#[derive(Clone, Debug, Parser)]
#[command(name = "ashlar-jepsen", args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Something else than cases.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Only these cases; all by default.
    #[arg(value_parser = PossibleValuesParser::new(ALL.iter().map(|case| case.name)), hide_possible_values = true)]
    pub cases: Vec<String>,
    /// The short form, as in the tests.
    #[arg(long)]
    pub short: bool,
    /// The pool that the cases run on.
    #[arg(long, default_value = POOLS[0], value_parser = POOLS)]
    pub pool: String,
    /// List the cases.
    #[arg(long)]
    pub list: bool,
    /// Clear up after runs that were killed, and do nothing else.
    #[arg(long)]
    pub cleanup: bool,
    /// Go through them so many times.
    #[arg(long, default_value_t = 1)]
    pub rounds: u32,
}

/// What to do in the place of cases.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// One run of workloads and faults, judged by its history.
    Soak(Soak),
    /// Each nemesis alone, then everything on each pool, with a table of what came of it.
    Matrix(Matrix),
    /// Look for mistakes that are planted in a build of its own: each must be found.
    Planted(planted::Args),
}
