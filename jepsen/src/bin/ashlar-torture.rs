//! `ashlar-torture`: power goes again and again, and nothing that was acknowledged may be missing.

use anyhow::{Result, bail};
use ashlar_core::rng::Rng;
use ashlar_jepsen::command_line::tell;
use ashlar_jepsen::leftovers;
use ashlar_jepsen::torture::hooks::Hooks;
use ashlar_jepsen::torture::progress::Progress;
use ashlar_jepsen::torture::witness::Witness;
use ashlar_jepsen::torture::{Judgement, Victims, cluster, file_system};
use ashlar_jepsen::writers::Promise;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Cuts power under load, and looks for what is missing.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Power cuts in all, with those of an interrupted run.
    #[arg(long, global = true, default_value_t = 20)]
    cycles: u64,
    /// How far it is: with this file an interrupted run goes on.
    #[arg(long, global = true, value_name = "FILE")]
    progress: Option<PathBuf>,
    /// Draws everything.
    #[arg(long, global = true)]
    seed: Option<u64>,
}

#[derive(Subcommand)]
enum Command {
    /// A cluster on simulated devices, on this machine.
    Cluster {
        /// Its pool.
        #[arg(long, default_value = "replicated:3")]
        pool: String,
        /// Pools that promise nothing before a flush.
        #[arg(long)]
        lazy: bool,
        /// Who loses the power.
        #[arg(long, value_enum, default_value_t = Victims::Mixed)]
        victims: Victims,
        /// The device of this OSD answers flushes and does nothing.
        #[arg(long, value_name = "OSD")]
        liar: Option<u32>,
        /// Where the proof of a loss is put.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// The store alone: one OSD with one copy of everything.
    Store {
        /// It promises nothing before a flush.
        #[arg(long)]
        lazy: bool,
        /// Its device answers flushes and does nothing.
        #[arg(long)]
        liar: bool,
        /// Where the proof of a loss is put.
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// A client's file system and database on a cluster as above.
    Files {
        /// The cluster's pool.
        #[arg(long, default_value = "replicated:3")]
        pool: String,
        /// A pool that promises nothing before a flush.
        #[arg(long)]
        lazy: bool,
        /// The file system.
        #[arg(long, value_enum, default_value_t = file_system::Kind::Ext4)]
        kind: file_system::Kind,
    },
    /// Anything that serves NBD and that your commands can cut: real machines.
    Hooks {
        /// Unix socket of the NBD server.
        #[arg(long)]
        socket: PathBuf,
        /// Its export.
        #[arg(long, default_value = "")]
        export: String,
        /// Takes the power away.
        #[arg(long)]
        cut: String,
        /// Gives it back.
        #[arg(long)]
        restore: String,
        /// What was acknowledged; on a machine that keeps its power.
        #[arg(long)]
        witness: PathBuf,
        /// Writing between two cuts, at most.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Seconds until the export must answer again.
        #[arg(long, default_value_t = 600)]
        patience: u64,
        /// The pool promises nothing before a flush.
        #[arg(long)]
        lazy: bool,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tell(leftovers::guard().and_then(|()| run(cli)))
}

fn immediate(lazy: bool) -> &'static str {
    if lazy { "none" } else { "all" }
}

fn run(cli: Cli) -> Result<String> {
    let seed = cli.seed.unwrap_or_else(|| std::process::id().into());
    let mut progress = Progress::open(cli.progress.as_deref(), seed)?;
    let judgement = match cli.command {
        Command::Cluster { pool, lazy, victims, liar, out } => {
            let rig = cluster::Rig { liar, out, ..cluster::Rig::new(&pool, immediate(lazy), victims) };
            rig.run(cli.cycles, &mut progress)?
        }
        Command::Store { lazy, liar, out } => {
            let rig = cluster::Rig::store(immediate(lazy), Victims::Mixed);
            cluster::Rig { liar: liar.then_some(1), out, ..rig }.run(cli.cycles, &mut progress)?
        }
        Command::Files { pool, lazy, kind } => {
            file_system::Rig { pool, immediate_commit: immediate(lazy), kind }.run(cli.cycles, &mut progress)?
        }
        Command::Hooks { socket, export, cut, restore, witness, seconds, patience, lazy } => {
            let promise = if lazy { Promise::None } else { Promise::Small };
            let patience = Duration::from_secs(patience);
            let hooks = Hooks { socket, export, cut, restore, seconds, patience, promise };
            let mut witness = Witness::open(&witness)?;
            hooks.run(cli.cycles, &mut witness, &mut Rng::new(seed))?;
            return Ok(format!("{} cuts, {} writes acknowledged, nothing missing", witness.cuts, witness.acknowledged));
        }
    };
    let Progress { cycles, acknowledged, sectors_lost, .. } = progress;
    let done = format!("{cycles} cuts, {acknowledged} operations acknowledged, {sectors_lost} sectors lost by devices");
    match judgement {
        Judgement::Clean => Ok(format!("{done}: nothing missing")),
        Judgement::OurBug(what) => {
            bail!("MISSING, and every device kept what it said: a bug\n{}\n{done}", what.join("\n"))
        }
        Judgement::DeviceLies(what) => bail!("A DEVICE LIES\n{}\n{done}", what.join("\n")),
    }
}
