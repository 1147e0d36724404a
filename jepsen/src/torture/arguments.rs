//! What `ashlar-torture` can be told.

use super::{Victims, file_system};
use crate::writers::IMMEDIATE_COMMITS;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// What the pool keeps without a flush: the same for every rig.
#[derive(Clone, Debug, Args)]
pub struct Told {
    /// Which writes the pool keeps without a flush: all, small ones (of up to half a block), or none.
    #[arg(long, default_value = "all", value_parser = IMMEDIATE_COMMITS)]
    immediate_commit: String,
}

impl Told {
    /// As a pool's commands have it.
    pub fn immediate_commit(&self) -> &'static str {
        let known = IMMEDIATE_COMMITS.into_iter().find(|told| *told == self.immediate_commit);
        known.expect("checked with the arguments")
    }
}

/// Cuts power under load, and looks for what is missing.
#[derive(Clone, Debug, Parser)]
#[command(name = "ashlar-torture")]
pub struct Cli {
    /// What to cut, and under what.
    #[command(subcommand)]
    pub command: Command,
    /// Power cuts in all, with those of an interrupted run.
    #[arg(long, global = true, default_value_t = 20)]
    pub cycles: u64,
    /// How far it is: with this file an interrupted run goes on.
    #[arg(long, global = true, value_name = "FILE")]
    pub progress: Option<PathBuf>,
    /// Draws everything.
    #[arg(long, global = true)]
    pub seed: Option<u64>,
}

/// A rig.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// A cluster on simulated devices, on this machine.
    Cluster(OnCluster),
    /// The store alone: one OSD with one copy of everything.
    Store {
        /// What the pool was told to keep.
        #[command(flatten)]
        told: Told,
        /// Its device answers flushes and does nothing.
        #[arg(long)]
        liar: bool,
        /// Where the proof of a loss is put.
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// A client's file system and database on a cluster as above.
    Files {
        /// The file system.
        #[arg(long, value_enum, default_value_t = file_system::Kind::Ext4)]
        kind: file_system::Kind,
        /// What it is on.
        #[command(flatten)]
        on: OnCluster,
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
        /// What the pool was told to keep.
        #[command(flatten)]
        told: Told,
        /// Where the proof of a loss is put.
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
}

/// A cluster, and who of it loses the power.
#[derive(Args, Clone, Debug)]
pub struct OnCluster {
    /// Its pool.
    #[arg(long, default_value = "replicated:3")]
    pub pool: String,
    /// What the pool was told to keep.
    #[command(flatten)]
    pub told: Told,
    /// Who loses the power. With `files`, mixed means that half of the cuts are of everything.
    #[arg(long, value_enum, default_value_t = Victims::Mixed)]
    pub victims: Victims,
    /// The device of this OSD answers flushes and does nothing.
    #[arg(long, value_name = "OSD")]
    pub liar: Option<u32>,
    /// Where the proof of a loss is put.
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
}
