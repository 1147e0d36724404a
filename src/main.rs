//! The `ashlar` binary: reads the command line and hands over.
//!
//! Owns: the names of the commands. Does not own: what they do. The daemons live in crates of their own; supervision,
//! administration and benchmarks in the modules here.
#![forbid(unsafe_code)]

mod admin;
mod arguments;
mod bench;
#[cfg(test)]
mod dashboard;
mod disk;
mod documents;
mod metadata;
mod output;
mod sentences;
mod size;
mod supervised;
mod up;

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::process::ExitCode;

/// A distributed block store.
#[derive(Parser)]
#[command(name = "ashlar", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a whole cluster on this machine and serve an image over NBD.
    Up(up::Args),
    /// The state of the cluster: OSDs, placement groups, recovery, rates of client I/O.
    Status(admin::status::Args),
    /// The cluster, live in the terminal; q ends it.
    Top(admin::top::Args),
    /// In which stage the time of an image's operations goes: network, primary, members, stores.
    WhySlow(admin::why_slow::Args),
    /// Look for what costs data or time later: devices, clocks, networks, pools; ends with an error if anything is bad.
    Doctor(admin::doctor::Args),
    /// Give a metadata store the identity of a new cluster.
    Init(admin::init::Args),
    /// OSDs: run one, list and weigh them.
    #[command(subcommand)]
    Osd(OsdCommand),
    /// Pools: list, create, modify.
    #[command(subcommand)]
    Pool(admin::pool::Command),
    /// Images: list, create, remove.
    #[command(subcommand)]
    Image(admin::image::Command),
    /// Settings of the whole cluster: show, set, reset.
    #[command(subcommand)]
    Config(admin::config::Command),
    /// Clients: fence them off.
    #[command(subcommand)]
    Client(admin::access::Command),
    /// Placement groups: list.
    #[command(subcommand)]
    Pg(admin::pg::Command),
    /// Placement: the tree, why groups are where they are, what a change would move.
    #[command(subcommand)]
    Placement(admin::placement::Command),
    /// Measure the cluster: rates, latencies, what an operation costs, and the bare disk beside it.
    Bench(bench::Args),
    /// Stores on devices that no OSD has open: build, look at, verify, read out.
    #[command(subcommand)]
    Disk(disk::Command),
    /// Run a monitor.
    Mon(ashlar_mon::Args),
    /// Serve images over NBD.
    Nbd(ashlar_client::NbdArgs),
    /// Print what a shell needs to complete these commands.
    Completions(documents::Completions),
    /// Write man pages of all commands.
    Man(documents::Man),
}

/// The daemon is a command of its own among those that administer it, so that no flag decides what `osd` means.
#[derive(Subcommand)]
enum OsdCommand {
    /// Run an OSD on a device or file, until it is told to stop.
    Run(ashlar_osd::Args),
    #[command(flatten)]
    Admin(admin::osd::Command),
}

fn main() -> ExitCode {
    supervised::end_with_supervisor();
    #[cfg(feature = "planted")]
    plant();
    let given = std::env::args_os().collect();
    // What `up` starts is told everything by `up`.
    let is_told = std::env::var_os(supervised::SUPERVISOR).is_some();
    let outcome = if is_told { Ok((given, Cli::command())) } else { arguments::complete(given, Cli::command()) };
    match outcome.and_then(|(words, cli)| run(parsed(&cli.get_matches_from(words)).command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ashlar: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A command line with what the configuration file of this machine adds to it.
fn with_file(given: Vec<std::ffi::OsString>) -> anyhow::Result<Vec<std::ffi::OsString>> {
    Ok(arguments::complete(given, Cli::command())?.0)
}

/// What the program was told; ends it with a message if that makes no sense.
fn parsed(matches: &clap::ArgMatches) -> Cli {
    Cli::from_arg_matches(matches).unwrap_or_else(|error| error.exit())
}

/// Switches the mistake on that the environment names, and says so: such a binary is for tests of tests.
#[cfg(feature = "planted")]
fn plant() {
    use ashlar_core::planted::{Bug, plant_everywhere};
    let Ok(name) = std::env::var("ASHLAR_PLANT") else { return };
    match Bug::from_name(&name) {
        Some(bug) => plant_everywhere(bug),
        None => {
            eprintln!("ashlar: there is no planted mistake '{name}'");
            std::process::exit(2);
        }
    }
    eprintln!("ashlar: the mistake '{name}' is switched on");
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(args) => wait(up::run(args)),
        Command::Status(args) => wait(admin::status::run(args)),
        Command::Top(args) => wait(admin::top::run(args)),
        Command::WhySlow(args) => wait(admin::why_slow::run(args)),
        Command::Doctor(args) => wait(admin::doctor::run(args)),
        Command::Init(args) => wait(admin::init::run(args)),
        Command::Osd(OsdCommand::Run(args)) => daemon(|| ashlar_osd::run(args)),
        Command::Osd(OsdCommand::Admin(command)) => wait(admin::osd::run(command)),
        Command::Pool(command) => wait(admin::pool::run(command)),
        Command::Image(command) => wait(admin::image::run(command)),
        Command::Config(command) => wait(admin::config::run(command)),
        Command::Client(command) => wait(admin::access::run(command)),
        Command::Pg(command) => wait(admin::pg::run(command)),
        Command::Placement(command) => wait(admin::placement::run(command)),
        Command::Bench(args) => match args.alone() {
            Some(done) => done,
            None => wait(bench::run(args)),
        },
        Command::Disk(command) => disk::run(command),
        Command::Mon(args) => daemon(|| ashlar_mon::run(args)),
        Command::Nbd(args) => daemon(|| ashlar_client::run_nbd(args)),
        Command::Completions(args) => args.run(Cli::command()),
        Command::Man(args) => args.run(Cli::command()),
    }
}

/// Runs a command that waits for others: one thread is enough.
fn wait(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

/// Runs a daemon with its log on standard error; `ASHLAR_LOG` says how much, such as `debug` or `ashlar_osd=trace`,
/// `ASHLAR_LOG_FORMAT` whether for people (`text`) or programs (`json`).
fn daemon(run: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::INFO.into())
        .with_env_var("ASHLAR_LOG")
        .from_env()
        .context("ASHLAR_LOG does not make sense; write error, warn, info, debug or trace")?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_target(false);
    let subscriber = subscriber.with_writer(std::io::stderr);
    match std::env::var("ASHLAR_LOG_FORMAT").as_deref() {
        Ok("json") => subscriber.json().init(),
        Ok("text") | Err(_) => subscriber.init(),
        Ok(other) => anyhow::bail!("ASHLAR_LOG_FORMAT={other} does not make sense; write text or json"),
    }
    run()
}
