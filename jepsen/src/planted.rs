//! Testing the tester, on real processes: with each of these mistakes switched on in the daemons, a run must show a broken
//! promise; without one, the same runs are clean.
//!
//! They are those of the simulator's list that make sense from outside: each breaks something that a client can see, under
//! faults that can be made here. The binary is a build of its own.

use crate::cluster;
use crate::devices::Devices;
use crate::ending::Ending;
use crate::injector::{Injector, Lines};
use crate::platters::Under;
use crate::scratch::Scratch;
use crate::soak::{self, Plan};
use crate::torture::cluster::Rig;
use crate::torture::progress::Progress;
use crate::torture::{Judgement, Victims};
use anyhow::{Result, bail};
use ashlar_core::time::Duration;
use ashlar_faultinject::mix::{FaultKind, FaultMix};
use clap::builder::PossibleValuesParser;
use std::path::PathBuf;

/// How a mistake is looked for.
#[derive(Clone, Copy, Debug)]
enum Hunt {
    /// Workloads, and some faults at a rate.
    Soak { pool: &'static str, lazy: bool, faults: &'static [FaultKind], mean_ms: u64, seconds: u64 },
    /// Power cuts of a cluster.
    Cuts { pool: &'static str, lazy: bool, victims: Victims, cycles: u64 },
    /// Power cuts of one store.
    Store { lazy: bool, cycles: u64 },
}

/// A mistake, and where it shows soonest.
pub struct Suspect {
    /// Its name in core's list.
    pub bug: &'static str,
    hunt: Hunt,
}

const fn calm(bug: &'static str) -> Suspect {
    let hunt = Hunt::Soak { pool: "replicated:3", lazy: false, faults: &[], mean_ms: 1000, seconds: 10 };
    Suspect { bug, hunt }
}

const fn soak(bug: &'static str, pool: &'static str, faults: &'static [FaultKind], mean_ms: u64) -> Suspect {
    Suspect { bug, hunt: Hunt::Soak { pool, lazy: false, faults, mean_ms, seconds: 30 } }
}

const fn cuts(bug: &'static str, pool: &'static str, lazy: bool, victims: Victims) -> Suspect {
    Suspect { bug, hunt: Hunt::Cuts { pool, lazy, victims, cycles: 10 } }
}

/// Looked for when they are named, and counted on by nobody: whether a run shows them depends on what was under way when the
/// power went.
pub const ELUSIVE: &[Suspect] = &[
    cuts("skip-replay", "replicated:3", true, Victims::All),
    cuts("forget-a-replay", "replicated:3", true, Victims::All),
];

/// Who is looked for: each must be found.
pub const SUSPECTS: &[Suspect] = &[
    calm("discard-deletes"),
    calm("merge-without-condition"),
    calm("ignore-condition"),
    Suspect { bug: "store-ack-before-flush", hunt: Hunt::Store { lazy: false, cycles: 8 } },
    cuts("sync-without-flush", "replicated:3", true, Victims::Everything),
    soak("first-parity-only", "ec:4+2", &[FaultKind::Crash], 700),
    soak("client-trusts-body", "replicated:3", &[FaultKind::Reset], 300),
    soak("drop-request-numbers", "replicated:3", &[FaultKind::Reset], 150),
];

fn all() -> impl Iterator<Item = &'static Suspect> {
    SUSPECTS.iter().chain(ELUSIVE)
}

/// The build with mistakes.
pub fn binary() -> Result<PathBuf> {
    cluster::built_with("planted")
}

impl Suspect {
    /// Whether this machine can look for it.
    pub fn is_possible(&self) -> bool {
        !self.needs_devices() || Devices::are_possible()
    }

    fn needs_devices(&self) -> bool {
        match self.hunt {
            Hunt::Soak { faults, .. } => {
                faults.iter().any(|kind| !Injector::kinds(Lines::Relayed, Under::Files).contains(kind))
            }
            Hunt::Cuts { .. } | Hunt::Store { .. } => true,
        }
    }

    /// Runs until a promise is broken, so many times at most; with the mistake, or without. What was broken.
    pub fn hunt(
        &self,
        binary: Option<PathBuf>,
        with_bug: bool,
        rounds: u32,
        seed: u64,
    ) -> Result<Option<(u32, String)>> {
        for round in 1..=rounds {
            let broken = self.run(binary.clone(), with_bug, seed + u64::from(round))?;
            if let Some(what) = broken {
                return Ok(Some((round, what)));
            }
        }
        Ok(None)
    }

    fn run(&self, binary: Option<PathBuf>, with_bug: bool, seed: u64) -> Result<Option<String>> {
        let environment = if with_bug { vec![("ASHLAR_PLANT".into(), self.bug.into())] } else { Vec::new() };
        let binary = binary.map_or_else(cluster::binary, Ok)?;
        let immediate = |lazy: bool| if lazy { "none" } else { "all" };
        match self.hunt {
            Hunt::Soak { pool, lazy, faults, mean_ms, seconds } => {
                let mean = Duration::millis(mean_ms);
                let mix = faults.iter().fold(FaultMix::none(), |mix, kind| mix.with(*kind, mean));
                let mut plan = Plan::new(pool, immediate(lazy), mix, seconds);
                plan.under = if self.needs_devices() { Under::Devices } else { Under::Files };
                plan.seed = seed;
                (plan.shape.binary, plan.shape.environment) = (Some(binary), environment);
                match soak::run(&plan, &Scratch::new("planted")?) {
                    Ok(told) => Ok(told.complaints().first().cloned()),
                    // A daemon that runs into its own assertions, or a cluster that does not recover, shows it, too.
                    Err(error) if with_bug => Ok(Some(first_line(&error))),
                    Err(error) => Err(error),
                }
            }
            Hunt::Cuts { pool, lazy, victims, cycles } => {
                self.cut(Rig::new(pool, immediate(lazy), victims), binary, environment, cycles, seed, with_bug)
            }
            Hunt::Store { lazy, cycles } => {
                self.cut(Rig::store(immediate(lazy), Victims::Everything), binary, environment, cycles, seed, with_bug)
            }
        }
    }

    fn cut(
        &self,
        mut rig: Rig,
        binary: PathBuf,
        environment: Vec<(String, String)>,
        cycles: u64,
        seed: u64,
        with_bug: bool,
    ) -> Result<Option<String>> {
        (rig.shape.binary, rig.shape.environment) = (Some(binary), environment);
        let mut progress = Progress::open(None, seed)?;
        match rig.run(cycles, &mut progress) {
            Ok(Judgement::Clean) => Ok(None),
            Ok(Judgement::DeviceLies(what)) => bail!("an honest device was called a liar: {what:?}"),
            Ok(lost) => Ok(lost.words().first().cloned()),
            Err(error) if with_bug => Ok(Some(first_line(&error))),
            Err(error) => Err(error),
        }
    }
}

fn first_line(error: &anyhow::Error) -> String {
    let cause = error.chain().last().map(ToString::to_string).unwrap_or_default();
    cause.lines().next().unwrap_or_default().to_string()
}

/// `ashlar-jepsen planted`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Only these mistakes; all that must be found by default.
    #[arg(value_parser = PossibleValuesParser::new(all().map(|suspect| suspect.bug)), hide_possible_values = true)]
    bugs: Vec<String>,
    /// Runs for each, at most.
    #[arg(long, default_value_t = 4)]
    rounds: u32,
    /// Draws everything.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Args {
    /// Looks for all; a line each. An error if one is not found.
    pub fn run(&self) -> Result<Ending> {
        let chosen: Vec<&Suspect> = match self.bugs.is_empty() {
            true => SUSPECTS.iter().collect(),
            false => all().filter(|suspect| self.bugs.iter().any(|bug| bug == suspect.bug)).collect(),
        };
        let planted = binary()?;
        let (mut missed, mut skipped) = (Vec::new(), Vec::new());
        for suspect in chosen {
            if !suspect.is_possible() {
                println!("{:<28} SKIPPED: needs root, /dev/fuse, nbdkit and nbdfuse", suspect.bug);
                skipped.push(suspect.bug);
                continue;
            }
            match suspect.hunt(Some(planted.clone()), true, self.rounds, self.seed)? {
                Some((round, what)) => println!("{:<28} run {round}: {what}", suspect.bug),
                None => {
                    println!("{:<28} NOT FOUND in {} runs", suspect.bug, self.rounds);
                    missed.push(suspect.bug);
                }
            }
        }
        match (missed.is_empty(), skipped.is_empty()) {
            (true, true) => Ok(Ending::Done("all found".into())),
            (true, false) => Ok(Ending::NotTried(format!("NOT tried: {}; the others were found", skipped.join(", ")))),
            (false, _) => bail!("not found: {}", missed.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_core::planted::Bug;
    use std::collections::BTreeSet;

    #[test]
    fn suspects_are_real_and_different() {
        let names: BTreeSet<&str> = all().map(|suspect| suspect.bug).collect();
        assert_eq!(names.len(), all().count());
        let gone: Vec<&&str> = names.iter().filter(|name| Bug::from_name(name).is_none()).collect();
        assert!(gone.is_empty(), "no such mistakes can be planted any more: {gone:?}");
        assert!(SUSPECTS.len() >= 8, "a verdict means little if so few mistakes are known to show");
        assert!(SUSPECTS[0].is_possible() && !SUSPECTS[0].needs_devices() && SUSPECTS[3].needs_devices());
    }

    #[test]
    fn the_document_names_those_that_are_found_and_no_others() {
        let document = include_str!("../README.md");
        let table = document.split("| mistake | shown by |").nth(1).and_then(|rest| rest.split("\n\n").next());
        let rows = table.expect("a table of mistakes").lines().skip(2);
        let named: BTreeSet<&str> =
            rows.filter_map(|row| row.split('|').nth(1)).flat_map(|cell| cell.split(',').map(str::trim)).collect();
        assert_eq!(named, SUSPECTS.iter().map(|suspect| suspect.bug).collect());
        assert!(ELUSIVE.iter().all(|suspect| document.contains(suspect.bug)));
    }
}
