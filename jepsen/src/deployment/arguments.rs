//! What `ashlar-deployment` can be told.

use clap::Parser;

/// Measures how long clients wait when something fails.
#[derive(Clone, Debug, Parser)]
#[command(name = "ashlar-deployment")]
pub struct Cli {
    /// Only these failures; all by default.
    #[arg(value_name = "FAILURE")]
    pub failures: Vec<String>,
    /// Runs of each.
    #[arg(long, default_value_t = 5)]
    pub runs: u64,
    /// Rounds of failures under fio, which verifies what it wrote.
    #[arg(long, default_value_t = 1)]
    pub rounds: u32,
    /// List the failures.
    #[arg(long)]
    pub list: bool,
}
