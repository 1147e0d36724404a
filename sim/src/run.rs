//! Runs of the default scenario or a named one, by seed, with a verdict.

use crate::check::history::Finding;
use crate::cluster::pool::PoolChoice;
use crate::cluster::{Cluster, Config, Tally};
use crate::scenarios::Scenario;
use crate::world::Recorder;
use ashlar_core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Longest safety phase, in simulated time: a load that is stuck until the faults end does not end by itself.
const SAFETY_LIMIT: Duration = Duration::secs(40);

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The configuration, as text.
    pub config: String,
    /// The first broken promise.
    pub failure: Option<Failure>,
    /// Events of the world.
    pub events: u64,
    /// Simulated nanoseconds.
    pub simulated_ns: u64,
    /// Hash of everything that happened.
    pub trace: u64,
    /// Numbers.
    pub tally: Tally,
    /// Rare branches.
    pub marks: Vec<(&'static str, u64)>,
}

/// A broken promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What, with all names.
    pub what: String,
    /// The block, if it is about one.
    pub block: Option<u32>,
    /// Operations of clients that show it.
    pub ops: Vec<u32>,
    /// The last warnings of nodes.
    pub warnings: Vec<String>,
    /// The last events, if they were recorded: all, and those of interest.
    pub last: Vec<String>,
    /// Of interest.
    pub chosen: Vec<String>,
    /// The operations, described.
    pub operations: Vec<String>,
}

/// What differs from the scenario as it is, and what to record.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// The pool, in place of the drawn one.
    pub pool: Option<PoolChoice>,
    /// Number of events to keep; 0: none.
    pub lines: usize,
    /// Events with one of these words are kept apart.
    pub words: Vec<String>,
    /// Stop at this event.
    pub until: Option<u64>,
}

/// Runs a seed of a scenario.
pub fn run(seed: u64, scenario: &Scenario, recording: &Recording) -> Report {
    let drawn = || if scenario.draws_pool() { PoolChoice::draw(seed) } else { PoolChoice::default() };
    let config = recording.pool.unwrap_or_else(drawn).applied((scenario.configure)(Config::draw(seed)));
    let text = config.to_string();
    let mut cluster = Cluster::new(config);
    if recording.lines > 0 {
        cluster.world.record(Recorder::new(recording.lines, recording.words.clone()));
    }
    cluster.stop_at(recording.until);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        (scenario.run)(&mut cluster)?;
        cluster.finish()
    }));
    let failure = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(finding)) => Some(finding),
        Err(panic) => Some(Finding { what: panic_text(panic.as_ref()), block: None, ops: Vec::new() }),
    };
    Report {
        seed,
        config: text,
        failure: failure.map(|finding| describe(&cluster, finding)),
        events: cluster.world.events(),
        simulated_ns: cluster.world.now().0,
        trace: cluster.world.trace().value(),
        tally: cluster.tally(),
        marks: cluster.marks().iter().map(|(name, count)| (*name, *count)).collect(),
    }
}

/// The default: the load under the faults of the mix.
pub fn mix(cluster: &mut Cluster) -> Result<(), Finding> {
    let up = cluster.settle_down();
    up?;
    cluster.start_faults();
    cluster.start_load();
    cluster.run_until(SAFETY_LIMIT, |cluster| cluster.load_done())?;
    Ok(())
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = crate::cli::last_panic() {
        return text;
    }
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("without a message"))
}

fn describe(cluster: &Cluster, finding: Finding) -> Failure {
    let line =
        |line: &crate::world::Line| format!("{:>8} {:>12.6} s  {}", line.event, line.at.0 as f64 / 1e9, line.text);
    let recorder = cluster.world.recorder();
    let records = cluster.history().records();
    let operations = finding.ops.iter().filter_map(|op| {
        let record = records.get(*op as usize)?;
        let kind = format!("{:?}", record.what);
        let kind: String = kind.chars().take(60).collect();
        let end = record.end.map_or("no end".to_string(), |end| format!("ended {end}"));
        Some(format!(
            "operation {op}: client {} {kind} blocks {}+{}, began {}, {end}",
            record.client, record.first.index, record.blocks, record.start
        ))
    });
    Failure {
        operations: operations.collect(),
        what: finding.what,
        block: finding.block.map(|block| block.index),
        ops: finding.ops,
        warnings: cluster.warnings().to_vec(),
        last: recorder.into_iter().flat_map(|recorder| recorder.last().map(line)).collect(),
        chosen: recorder.into_iter().flat_map(|recorder| recorder.chosen().map(line)).collect(),
    }
}
