//! `shrink` and `explain`: a failing run made small, and made visible.

use super::Which;
use crate::case::open_folder;
use crate::shrink::Shrunk;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
pub struct ShrinkArgs {
    #[command(flatten)]
    which: Which,
    /// Give up after so many runs, with what was reached by then.
    #[arg(long, default_value_t = 3000)]
    runs: u64,
    /// The file to write; without it one beside the other failures.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Parser)]
pub struct ExplainArgs {
    #[command(flatten)]
    which: Which,
    /// The page to write.
    #[arg(long)]
    html: PathBuf,
}

/// Reduces a run.
pub fn shrink(args: &ShrinkArgs) -> Result<ExitCode, String> {
    let (case, scenario) = args.which.case()?;
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} runs at most, {msg}").expect("a template of ours");
    let bar = ProgressBar::new(args.runs).with_style(style);
    let shrunk = crate::shrink::shrink(&case, scenario, args.runs, |operations, faults, runs| {
        bar.set_position(runs);
        bar.set_message(format!("{operations} operations and {faults} faults are left"));
    });
    bar.finish_and_clear();
    let Some(Shrunk { case, report, runs }) = shrunk else {
        println!("no promise is broken, or none with other delays: there is nothing to reduce");
        return Ok(ExitCode::FAILURE);
    };
    let plan = case.plan.as_ref().expect("it was reduced");
    println!(
        "{} operations and {} faults are left after {runs} runs; {} events, {:.3} simulated seconds",
        plan.operation_count(),
        plan.fault_count(),
        report.events,
        report.simulated_ns as f64 / 1e9
    );
    for fault in &plan.faults {
        println!("  {:>12.6} s  {}", fault.at as f64 / 1e9, fault.kind.name());
    }
    let numbers = |numbers: &std::collections::BTreeSet<u32>| format!("{numbers:?}");
    if !plan.actions.is_empty() || !plan.scripted.is_empty() {
        println!("  of the script: actions {}, operations {}", numbers(&plan.actions), numbers(&plan.scripted));
    }
    println!("-- broken: {}", super::first_lines(&case.broken, 6));
    let path = args.out.clone().unwrap_or_else(|| case.place(&open_folder()).with_extension("small.json"));
    case.write(&path)?;
    let planted = args.which.planted.as_ref().map(|name| format!(" --planted {name}")).unwrap_or_default();
    println!("written to {0}: ashlar-sim repro --config {0}{planted}", path.display());
    Ok(ExitCode::SUCCESS)
}

/// Writes a page about a run.
pub fn explain(args: &ExplainArgs) -> Result<ExitCode, String> {
    let (case, scenario) = args.which.case()?;
    let (report, page) = crate::explain::page(&case, scenario);
    std::fs::write(&args.html, page).map_err(|error| format!("cannot write {}: {error}", args.html.display()))?;
    match &report.failure {
        Some(failure) => println!("broken: {}", super::first_lines(&failure.what, 2)),
        None => println!("no promise was broken"),
    }
    println!("written to {}", args.html.display());
    Ok(ExitCode::SUCCESS)
}
