//! `ashlar-torture`: power goes again and again, and nothing that was acknowledged may be missing.

use anyhow::{Result, bail};
use ashlar_core::rng::Rng;
use ashlar_jepsen::ending::{Ending, tell};
use ashlar_jepsen::leftovers;
use ashlar_jepsen::torture::arguments::{Cli, Command, OnCluster};
use ashlar_jepsen::torture::hooks::Hooks;
use ashlar_jepsen::torture::progress::Progress;
use ashlar_jepsen::torture::witness::Witness;
use ashlar_jepsen::torture::{Judgement, Victims, cluster, file_system};
use ashlar_jepsen::writers::Promise;
use clap::Parser;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let cli = Cli::parse();
    tell(leftovers::guard().and_then(|()| run(cli)))
}

fn run(cli: Cli) -> Result<Ending> {
    let seed = cli.seed.unwrap_or_else(|| std::process::id().into());
    let mut progress = Progress::open(cli.progress.as_deref(), seed)?;
    let judgement = match cli.command {
        Command::Cluster(OnCluster { pool, told, victims, liar, out }) => {
            let rig = cluster::Rig { liar, out, ..cluster::Rig::new(&pool, told.immediate_commit(), victims) };
            rig.run(cli.cycles, &mut progress)?
        }
        Command::Store { told, liar, out } => {
            let rig = cluster::Rig::store(told.immediate_commit(), Victims::Mixed);
            cluster::Rig { liar: liar.then_some(1), out, ..rig }.run(cli.cycles, &mut progress)?
        }
        Command::Files { kind, on: OnCluster { pool, told, victims, liar, out } } => {
            let immediate_commit = told.immediate_commit();
            file_system::Rig { pool, immediate_commit, kind, victims, liar, out }.run(cli.cycles, &mut progress)?
        }
        Command::Hooks { socket, export, cut, restore, witness, seconds, patience, told, out } => {
            // Nobody says what the pool's redundancy is; a coded pool keeps all.
            let promise = Promise::of("replicated", told.immediate_commit());
            let patience = Duration::from_secs(patience);
            let hooks = Hooks { socket, export, cut, restore, seconds, patience, promise, out };
            let mut witness = Witness::open(&witness)?;
            let judgement = hooks.run(cli.cycles, &mut witness, &mut Rng::new(seed))?;
            return ending(&judgement, format!("{} cuts, {} writes acknowledged", witness.cuts, witness.acknowledged));
        }
    };
    let Progress { cycles, acknowledged, sectors_lost, .. } = progress;
    let done = format!("{cycles} cuts, {acknowledged} operations acknowledged, {sectors_lost} sectors lost by devices");
    ending(&judgement, done)
}

fn ending(judgement: &Judgement, done: String) -> Result<Ending> {
    if *judgement == Judgement::Clean {
        return Ok(Ending::Done(format!("{done}: {}", judgement.title())));
    }
    bail!("{}\n{}\n{done}", judgement.title(), judgement.words().join("\n"))
}
