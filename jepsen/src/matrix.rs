//! `ashlar-jepsen matrix`: each nemesis alone, then everything at once on each pool; what came of it in one table.
//!
//! Owns: which runs there are, and their results in a folder: a run that was done is not done again, so that an interrupted
//! matrix goes on, and its parts can be run one by one.

use crate::command_line::{mix, write_results};
use crate::devices::Devices;
use crate::ending::Ending;
use crate::injector::{CLOCK, Injector, Lines};
use crate::platters::Under;
use crate::scratch::Scratch;
use crate::soak::{self, CLEAN, Plan, Told};
use anyhow::{Context, Result, bail};
use ashlar_faultinject::mix::FaultKind;
use clap::builder::PossibleValuesParser;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Each nemesis alone for some time, then the mix on each pool; a table of what came of it.
#[derive(clap::Args, Clone, Debug)]
pub struct Matrix {
    /// Seconds of each nemesis alone.
    #[arg(long, default_value_t = 300)]
    alone: u64,
    /// Seconds of the mix on each pool.
    #[arg(long, default_value_t = 1200)]
    mix: u64,
    /// Where results are kept; what is there with at least as many seconds is not run again.
    #[arg(long, default_value = "matrix")]
    out: PathBuf,
    /// Only these runs, with commas.
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(rows().iter().map(|row| row.name)))]
    only: Vec<String>,
    /// Run again what was not clean.
    #[arg(long)]
    again: bool,
    /// Show the runs, and what is known of them.
    #[arg(long)]
    list: bool,
    /// Milliseconds between two faults of a kind, on average; by default three times those of simulated runs.
    #[arg(long)]
    mean_ms: Option<u64>,
}

/// A run.
struct Row {
    name: &'static str,
    pool: &'static str,
    immediate_commit: &'static str,
    faults: Vec<FaultKind>,
    under: Under,
    clocks: bool,
    is_mix: bool,
}

/// What came of one.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Came {
    seconds: u64,
    took_s: u64,
    seed: u64,
    ok: usize,
    refused: usize,
    unknown: usize,
    transfers: u64,
    creations: u64,
    faults: BTreeMap<String, u64>,
    blocks: usize,
    confirmed: usize,
    /// What was asked for and did not happen.
    #[serde(default)]
    untried: Vec<String>,
    verdict: String,
}

fn alone(name: &'static str, faults: &[FaultKind], under: Under) -> Row {
    let (pool, immediate_commit) = ("replicated:3", "all");
    Row { name, pool, immediate_commit, faults: faults.to_vec(), under, clocks: false, is_mix: false }
}

fn all_at_once(name: &'static str, pool: &'static str, immediate_commit: &'static str) -> Row {
    let under = best();
    let faults = Injector::kinds(Lines::Relayed, under);
    Row { name, pool, immediate_commit, faults, under, clocks: true, is_mix: true }
}

/// Devices take more away than a layer does.
fn best() -> Under {
    if Devices::are_possible() { Under::Devices } else { Under::Layer }
}

fn rows() -> Vec<Row> {
    use FaultKind::*;
    const DISKS: &[FaultKind] = &[DiskStall, SlowDisk, DiskError, ReadError, LatentError, BitRot, Astray, Wipe];
    const POWER: &[FaultKind] = &[HostPower, TotalPower];
    vec![
        alone("kill", &[Crash], Under::Files),
        alone("stop", &[Pause], Under::Files),
        alone("partition", &[Partition, OneWay], Under::Files),
        alone("proxy", &[Reset], Under::Files),
        alone("metadata", &[MetaOutage, MetaCut, MetaUnknown, LeaseExpiry, WatchLost], Under::Files),
        alone("disk", DISKS, best()),
        alone("disk-layer", DISKS, Under::Layer),
        alone("power", POWER, best()),
        alone("power-layer", POWER, Under::Layer),
        Row { clocks: true, ..alone("clock", &[], Under::Files) },
        alone("reweight", &[Reweight], Under::Files),
        all_at_once("mix-replicated", "replicated:3", "all"),
        all_at_once("mix-lazy", "replicated:3", "none"),
        all_at_once("mix-small", "replicated:3", "small"),
        all_at_once("mix-ec-2+1", "ec:2+1", "all"),
        all_at_once("mix-ec-4+2", "ec:4+2", "all"),
    ]
}

impl Matrix {
    /// Runs what is missing; the table.
    pub fn run(&self) -> Result<Ending> {
        let rows = rows();
        std::fs::create_dir_all(&self.out).with_context(|| format!("cannot make {}", self.out.display()))?;
        let chosen = |row: &&Row| self.only.is_empty() || self.only.iter().any(|name| name == row.name);
        for row in rows.iter().filter(chosen).filter(|row| !self.list && self.is_missing(row)) {
            eprintln!("== {}: {} s", row.name, self.seconds(row));
            let came = self.perform(row)?;
            eprintln!("== {}: {}", row.name, came.verdict);
        }
        let table = table(&rows, &self.out);
        std::fs::write(self.out.join("table.md"), &table)?;
        let came: Vec<Came> = rows.iter().filter(chosen).filter_map(|row| known_of(&self.out, row)).collect();
        match () {
            () if self.list => Ok(Ending::Done(table)),
            () if came.iter().any(Came::is_broken) => bail!("{table}"),
            () if came.iter().any(|came| !came.is_clean()) => Ok(Ending::NotTried(table)),
            () => Ok(Ending::Done(table)),
        }
    }

    fn seconds(&self, row: &Row) -> u64 {
        if row.is_mix { self.mix } else { self.alone }
    }

    fn is_missing(&self, row: &Row) -> bool {
        known_of(&self.out, row).is_none_or(|came| came.seconds < self.seconds(row) || self.again && !came.is_clean())
    }

    fn perform(&self, row: &Row) -> Result<Came> {
        let mut plan = Plan::new(row.pool, row.immediate_commit, mix(&row.faults, self.mean_ms), self.seconds(row));
        (plan.under, plan.clocks) = (row.under, row.clocks);
        let (begin, folder) = (Instant::now(), self.out.join(row.name));
        std::fs::create_dir_all(&folder)?;
        let came = match soak::run(&plan, &Scratch::new(row.name)?) {
            Ok(told) => {
                write_results(&folder, &plan.shape, &told, !told.is_clean())?;
                Came::of(&told, &plan)
            }
            Err(error) => {
                std::fs::write(folder.join("error.txt"), format!("seed {}\n{error:#}\n", plan.seed))?;
                Came::failed(&plan, &error)
            }
        };
        let came = Came { took_s: begin.elapsed().as_secs(), ..came };
        std::fs::write(folder.join("result.json"), serde_json::to_string_pretty(&came)? + "\n")?;
        Ok(came)
    }
}

impl Came {
    fn failed(plan: &Plan, error: &anyhow::Error) -> Came {
        Came {
            seconds: plan.seconds,
            took_s: 0,
            seed: plan.seed,
            ok: 0,
            refused: 0,
            unknown: 0,
            transfers: 0,
            creations: 0,
            faults: BTreeMap::new(),
            blocks: 0,
            confirmed: 0,
            untried: Vec::new(),
            verdict: format!("FAILED: {}", in_a_line(error)),
        }
    }

    fn of(told: &Told, plan: &Plan) -> Came {
        let [ok, refused, unknown] = told.log.counts();
        let mut faults = BTreeMap::new();
        told.bands.iter().for_each(|band| *faults.entry(band.kind.clone()).or_default() += 1);
        Came {
            seconds: plan.seconds,
            took_s: 0,
            seed: plan.seed,
            ok,
            refused,
            unknown,
            transfers: told.others[0],
            creations: told.others[1],
            faults,
            blocks: told.verdict.blocks,
            confirmed: told.verdict.confirmed,
            untried: told.untried.clone(),
            verdict: told.verdict(),
        }
    }

    fn is_clean(&self) -> bool {
        self.verdict == CLEAN
    }

    /// A promise was broken, or the run could not be judged.
    fn is_broken(&self) -> bool {
        !self.verdict.starts_with(CLEAN)
    }
}

/// What is known of a run. Of a result without that account its figures say what did not come.
fn known_of(out: &Path, row: &Row) -> Option<Came> {
    let mut came = read(out, row.name)?;
    let asked = row.faults.iter().map(|kind| kind.name()).chain(row.clocks.then_some(CLOCK));
    let absent: Vec<&str> = asked.filter(|kind| !came.faults.contains_key(*kind)).collect();
    if came.is_clean() && !absent.is_empty() {
        came.untried = absent.into_iter().map(String::from).collect();
        came.verdict = format!("{CLEAN}, but NOT tried: {}", came.untried.join(", "));
    }
    Some(came)
}

/// The reason of a failure, without the logs that come with it.
fn in_a_line(error: &anyhow::Error) -> String {
    // Logs begin with a path of their own line.
    let says = error.chain().map(ToString::to_string).filter(|text| !text.starts_with("  /"));
    let first_lines: Vec<String> = says.filter_map(|text| text.lines().next().map(String::from)).collect();
    first_lines.join(": ")
}

fn read(out: &Path, name: &str) -> Option<Came> {
    serde_json::from_slice(&std::fs::read(out.join(name).join("result.json")).ok()?).ok()
}

/// A row for each run, as Markdown has it.
fn table(rows: &[Row], out: &Path) -> String {
    let mut text = String::from(
        "| run | pool | seconds | operations (refused, unknown) | transfers | faults | NOT tried | blocks (twice) | verdict |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for row in rows {
        let pool = format!("{} {}", row.pool, row.immediate_commit);
        let Some(came) = known_of(out, row) else {
            text += &format!("| {} | {pool} | | | | | | | not run |\n", row.name);
            continue;
        };
        let kinds = came.faults.iter().map(|(kind, count)| format!("{count} {kind}"));
        let count: u64 = came.faults.values().sum();
        text += &format!(
            "| {} | {pool} | {} | {} ({}, {}) | {} | {count}: {} | {} | {} ({}) | {} |\n",
            row.name,
            came.seconds,
            came.ok,
            came.refused,
            came.unknown,
            came.transfers,
            kinds.collect::<Vec<_>>().join(", "),
            came.untried.join(", ").replace('|', "/"),
            came.blocks,
            came.confirmed,
            came.verdict.replace('|', "/")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn runs_have_names_of_their_own_and_faults_that_are_possible() {
        let rows = rows();
        let names: BTreeSet<&str> = rows.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), rows.len());
        for row in &rows {
            let kinds = Injector::kinds(Lines::Relayed, row.under);
            assert!(row.faults.iter().all(|kind| kinds.contains(kind)), "{}", row.name);
            assert!(row.clocks || !row.faults.is_empty(), "{}", row.name);
        }
    }

    #[test]
    fn what_was_done_is_not_done_again_unless_it_was_too_short_or_broken() {
        let scratch = Scratch::new("matrix").expect("a directory");
        let matrix = |alone, again| Matrix {
            alone,
            mix: 5,
            out: scratch.path().into(),
            only: Vec::new(),
            again,
            list: false,
            mean_ms: None,
        };
        let row = &rows()[0];
        assert!(matrix(10, false).is_missing(row));
        let plan = Plan::new(row.pool, row.immediate_commit, mix(&[], None), 10);
        let broken = Came::failed(&plan, &anyhow::anyhow!("why").context("  /tmp/osd-1.log:\n    words\n"));
        assert_eq!(broken.verdict, "FAILED: why");
        std::fs::create_dir_all(scratch.join(row.name)).expect("scratch");
        let keep = |came: &Came| {
            std::fs::write(scratch.join(row.name).join("result.json"), serde_json::to_vec(came).expect("JSON"))
        };
        keep(&broken).expect("scratch");
        assert!(!matrix(10, false).is_missing(row) && matrix(10, true).is_missing(row));
        // Without an account, nothing came of what was asked for.
        let idle = Came { verdict: CLEAN.into(), ..broken };
        keep(&idle).expect("scratch");
        assert!(!matrix(10, false).is_missing(row) && matrix(10, true).is_missing(row));
        let shown = table(&rows(), scratch.path());
        assert!(shown.contains("| 0:  | crash | 0 (0) | clean, but NOT tried: crash |"), "{shown}");
        let only = |matrix: Matrix| Matrix { only: vec![row.name.into()], ..matrix };
        assert!(matches!(only(matrix(10, false)).run().expect("judged"), Ending::NotTried(_)));
        keep(&Came { faults: BTreeMap::from([("crash".into(), 1)]), ..idle }).expect("scratch");
        assert!(!matrix(10, true).is_missing(row) && matrix(11, false).is_missing(row));
        assert!(matches!(only(matrix(10, true)).run().expect("judged"), Ending::Done(_)));
        let shown = table(&rows(), scratch.path());
        assert!(shown.contains("| kill | replicated:3 all | 10 |") && shown.contains("not run"), "{shown}");
    }
}
