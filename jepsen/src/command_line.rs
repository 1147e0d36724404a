//! `ashlar-jepsen soak`: one run of the mix, with its results in a folder.

use crate::cases::POOLS;
use crate::ending::Ending;
use crate::fleet::Shape;
use crate::history::edn::{self, Registers};
use crate::injector::{Injector, Lines};
use crate::page;
use crate::platters::Under;
use crate::scratch::Scratch;
use crate::soak::{CLEAN, Faults, Plan, Told, run};
use crate::writers::IMMEDIATE_COMMITS;
use anyhow::{Context, Result, bail};
use ashlar_core::time::Duration;
use ashlar_faultinject::mix::{FaultKind, FaultMix};
use ashlar_faultinject::plan::FaultPlan;
use clap::builder::PossibleValuesParser;
use std::path::{Path, PathBuf};

/// No faults.
const CALM: &str = "calm";

fn fault_names() -> impl Iterator<Item = &'static str> {
    FaultKind::ALL.iter().map(|kind| kind.name()).chain([CALM])
}

/// Run workloads on a cluster while things break; judge the history.
#[derive(clap::Args, Clone, Debug)]
pub struct Soak {
    /// Redundancy of the pool.
    #[arg(long, default_value = POOLS[0], value_parser = POOLS)]
    pool: String,
    /// Which writes the pool keeps without a flush: all, small ones (of up to half a block), or none.
    #[arg(long, default_value = "all", value_parser = IMMEDIATE_COMMITS)]
    immediate_commit: String,
    /// Kinds of faults, with commas; all that are possible by default, `calm` for none.
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(fault_names()), hide_possible_values = true)]
    faults: Vec<String>,
    /// In place of kinds: a list of faults, as a run writes it (faults.json), or as part of a simulated run.
    #[arg(long, conflicts_with = "faults")]
    plan: Option<PathBuf>,
    /// How long things break.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Milliseconds between two faults of a kind, on average; by default three times those of simulated runs.
    #[arg(long)]
    mean_ms: Option<u64>,
    /// What daemons are connected by; faults of the network need relays or hosts.
    #[arg(long, value_enum, default_value_t = Lines::Relayed)]
    lines: Lines,
    /// Daemons live on the hosts that this file names: an address a line, and what starts a root shell there that reads its
    /// script from standard input, as `10.0.0.1 ssh root@10.0.0.1 sh`.
    #[arg(long, value_name = "FILE", conflicts_with = "lines")]
    hosts: Option<PathBuf>,
    /// What OSDs live on: disks and power fail in a layer inside their processes, or on simulated devices; these need root
    /// and /dev/fuse.
    #[arg(long, value_enum, default_value_t)]
    disks: Under,
    /// Clocks of daemons run too fast or too slow, each in its own way.
    #[arg(long)]
    clocks: bool,
    /// Draws everything.
    #[arg(long)]
    seed: Option<u64>,
    /// Where history.edn, faults.json and page.html are put.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// All kinds at their usual rates.
pub fn usual_mix(under: Under) -> FaultMix {
    mix(&Injector::kinds(Lines::Relayed, under), None)
}

/// Real processes take longer to recover than a simulated run lasts: their faults come more seldom.
const SLOWER: u64 = 3;

/// Some kinds, at their usual rates or another one.
pub fn mix(kinds: &[FaultKind], mean_ms: Option<u64>) -> FaultMix {
    kinds.iter().fold(FaultMix::none(), |mix, kind| {
        mix.with(*kind, Duration::millis(mean_ms.unwrap_or(kind.usual_mean_ms() * SLOWER)))
    })
}

impl Soak {
    /// Runs it; what was seen, or what is wrong.
    pub fn run(&self) -> Result<Ending> {
        let immediate = IMMEDIATE_COMMITS.into_iter().find(|told| *told == self.immediate_commit);
        let immediate = immediate.expect("checked with the arguments");
        let mut plan = Plan::new(&self.pool, immediate, self.mix()?, self.seconds);
        (plan.under, plan.lines, plan.clocks) = (self.disks, self.lines(), self.clocks);
        plan.hosts = self.hosts.clone();
        plan.seed = self.seed.unwrap_or(plan.seed);
        if let Some(path) = &self.plan {
            plan.faults = Faults::Plan(read_plan(path)?);
        }
        let told = run(&plan, &Scratch::new("soak")?)?;
        if let Some(folder) = &self.out {
            write_results(folder, &plan.shape, &told, true)?;
        }
        judged(&told)
    }

    fn lines(&self) -> Lines {
        if self.hosts.is_some() { Lines::Hosts } else { self.lines }
    }

    fn mix(&self) -> Result<FaultMix> {
        let kinds = Injector::kinds(self.lines(), self.disks);
        if self.faults.is_empty() {
            return Ok(mix(&kinds, self.mean_ms));
        }
        if self.faults == [CALM] {
            return Ok(FaultMix::none());
        }
        let named = |name: &String| {
            let all: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
            let kind = kinds.iter().copied().find(|kind| kind.name() == name);
            kind.with_context(|| format!("there is no fault '{name}' here; there are {}", all.join(", ")))
        };
        let chosen: Vec<FaultKind> = self.faults.iter().map(named).collect::<Result<_>>()?;
        Ok(mix(&chosen, self.mean_ms))
    }
}

/// How a run ends that was judged.
fn judged(told: &Told) -> Result<Ending> {
    match (told.is_clean(), told.untried.is_empty()) {
        (true, true) => Ok(Ending::Done(format!("{CLEAN}: {told}"))),
        (true, false) => Ok(Ending::NotTried(format!("{}: {told}", told.verdict()))),
        (false, _) => bail!("BROKEN: {told}\n{}", told.complaints().join("\n")),
    }
}

/// Reads a list of faults: alone, or within a simulated run.
fn read_plan(path: &Path) -> Result<FaultPlan> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let value: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
    let plan = value.get("plan").unwrap_or(&value);
    serde_json::from_value(plan.clone()).with_context(|| format!("{} has no list of faults", path.display()))
}

/// Puts a run's results into a folder; its history, too, which is large.
pub fn write_results(folder: &Path, shape: &Shape, told: &Told, history: bool) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    if history {
        let registers = Registers::of(shape.promise());
        std::fs::write(folder.join("history.edn"), edn::export(&told.log, registers))?;
    }
    std::fs::write(folder.join("faults.json"), serde_json::to_string_pretty(&told.faults)? + "\n")?;
    std::fs::write(folder.join("page.html"), page::page(shape, told))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;
    use crate::history::Log;
    use std::time::Instant;

    #[test]
    fn a_run_is_as_clean_as_what_it_tried() {
        let told = |wrong: &[&str], untried: &[&str]| Told {
            log: Log::default(),
            verdict: Verdict::default(),
            wrong: wrong.iter().map(ToString::to_string).collect(),
            untried: untried.iter().map(ToString::to_string).collect(),
            bands: Vec::new(),
            faults: FaultPlan::default(),
            others: [0, 0],
            begin: Instant::now(),
        };
        assert!(matches!(judged(&told(&[], &[])), Ok(Ending::Done(words)) if words.starts_with("clean: ")));
        let partly = judged(&told(&[], &["wipe (its turn never came)"]));
        assert!(matches!(partly, Ok(Ending::NotTried(words))
            if words.starts_with("clean, but NOT tried: wipe (its turn never came): ")));
        let broken = judged(&told(&["the sum is wrong"], &["wipe"])).expect_err("it is broken").to_string();
        assert!(broken.starts_with("BROKEN: ") && broken.ends_with("the sum is wrong"), "{broken}");
    }

    #[test]
    fn plans_are_read_alone_and_out_of_simulated_runs() {
        let scratch = Scratch::new("plans").expect("a directory");
        let path = scratch.join("plan.json");
        let faults = r#""faults":[{"at":5,"kind":"pause","draws":[1,2,3,4]}]"#;
        for text in [format!("{{{faults}}}"), format!(r#"{{"scenario":"mix","plan":{{"jitter":0,{faults}}}}}"#)] {
            std::fs::write(&path, text).expect("scratch");
            let plan = read_plan(&path).expect("a plan");
            assert_eq!((plan.faults[0].at, plan.faults[0].kind), (5, FaultKind::Pause));
        }
    }
}
