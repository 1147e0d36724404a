//! `repro`: one run again, and on one screen what was broken and what led to it.

use super::Which;
use crate::run::{Failure, Recording, Report, run_case};
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// Widest line that is printed.
const WIDTH: usize = 200;
/// Lines of what was broken: some findings describe the whole cluster.
const BROKEN_LINES: usize = 16;

/// Suppressed faults that are shown, the last ones.
const SUPPRESSED_LINES: usize = 8;

#[derive(Parser)]
pub struct ReproArgs {
    #[command(flatten)]
    which: Which,
    /// Stop at this event, as if something had been broken there.
    #[arg(long)]
    until: Option<u64>,
    /// Events to show.
    #[arg(long, default_value_t = 12)]
    lines: usize,
    /// Show events that contain this word, in place of those about the block.
    #[arg(long)]
    word: Vec<String>,
    /// Write the run with its whole configuration to this file, for `--config`.
    #[arg(long)]
    write: Option<PathBuf>,
}

impl ReproArgs {
    #[cfg(test)]
    pub fn which(&self) -> &Which {
        &self.which
    }
}

/// Repeats a run.
pub fn repro(args: &ReproArgs) -> Result<ExitCode, String> {
    let (mut case, scenario) = args.which.case()?;
    let mut words = args.word.clone();
    if words.is_empty() {
        let first = run_case(&case, scenario, &Recording { until: args.until, ..Recording::default() });
        words = first.failure.iter().flat_map(words_of).collect();
    }
    let recording = Recording { lines: args.lines, words, until: args.until, ..Recording::default() };
    let report = run_case(&case, scenario, &recording);
    if let Some(path) = &args.write {
        case.broken = report.failure.as_ref().map_or(String::new(), |failure| failure.what.clone());
        case.write(path)?;
    }
    print(&report);
    let Some(failure) = &report.failure else {
        println!("no promise was broken");
        return Ok(ExitCode::SUCCESS);
    };
    show(failure);
    println!("-- next: ashlar-sim shrink {0}; ashlar-sim explain {0} --html out.html", args.which.words());
    Ok(ExitCode::FAILURE)
}

/// What events about the failure contain: the object of the block, or the operations.
fn words_of(failure: &Failure) -> Vec<String> {
    match &failure.object {
        Some((object, _)) => vec![format!("{object},"), format!("{object} "), format!("{object}#")],
        None => failure.ops.iter().map(|op| format!("operation {op}:")).collect(),
    }
}

fn print(report: &Report) {
    println!("{}", report.config);
    println!(
        "  {} events, {:.3} simulated seconds, {} operations, {} faults ({} suppressed: beyond the promise), hash {:016x}",
        report.events,
        report.simulated_ns as f64 / 1e9,
        report.tally.done,
        report.tally.faults,
        report.tally.suppressed,
        report.trace
    );
    let suppressed = &report.suppressed;
    for line in &suppressed[suppressed.len().saturating_sub(SUPPRESSED_LINES)..] {
        println!("  suppressed: {line}");
    }
}

fn show(failure: &Failure) {
    let section = |title: &str, lines: &[String]| {
        if !lines.is_empty() {
            println!("-- {title}");
            lines.iter().for_each(|line| println!("{}", brief(line).chars().take(WIDTH).collect::<String>()));
        }
    };
    let warnings = &failure.warnings[failure.warnings.len().saturating_sub(6)..];
    section("last warnings of nodes", warnings);
    section("last events of interest", &failure.chosen);
    if failure.chosen.is_empty() {
        section("last events", &failure.last);
    }
    section("operations that show it", &failure.operations);
    let broken: Vec<&str> = failure.what.lines().take(BROKEN_LINES).collect();
    println!("-- broken: {}", broken.join("\n   "));
    if let (Some(block), Some((object, pg))) = (failure.block, &failure.object) {
        println!("   block {block}: object {object}, {pg}");
    }
}

/// An event without what is rarely looked for: one line is to say what happens to what.
fn brief(line: &str) -> String {
    let mut text = line.to_string();
    for field in ["attempt: attempt ", "call: ", "lease: ", "sent: "] {
        text = without(&text, field);
    }
    named_requests(&text)
}

/// Without the fields of this beginning, up to the next comma.
fn without(text: &str, field: &str) -> String {
    let mut parts = text.split(field);
    let mut left = parts.next().unwrap_or_default().to_string();
    for part in parts {
        match part.split_once(", ") {
            Some((_, rest)) => left += rest,
            None => left += part,
        }
    }
    left
}

/// With `request 1.27` in place of a request's whole identity.
fn named_requests(text: &str) -> String {
    let mut parts = text.split("RequestId { session: Session { client: client ");
    let mut left = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let mut numbers = part.splitn(3, "number: ").skip(1);
        let session = numbers.next().and_then(|rest| rest.split(' ').next()).unwrap_or("?");
        let (number, rest) = numbers.next().and_then(|rest| rest.split_once(" }")).unwrap_or(("?", part));
        left += &format!("request {session}.{number}{rest}");
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_briefly() {
        let line = "node 1 <- Pg(SubOp { pg: pg 1/0, attempt: attempt 3.1.15e1, call: 4, op: Write { id: RequestId { session: \
                    Session { client: client 11174, number: 1 }, number: 27 }, object: 1:1:7 } })";
        let told = "node 1 <- Pg(SubOp { pg: pg 1/0, op: Write { id: request 1.27, object: 1:1:7 } })";
        assert_eq!(brief(line), told);
        assert_eq!(brief("node 3 <- Tick"), "node 3 <- Tick");
    }
}
