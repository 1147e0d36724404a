//! Runs of the default scenario or a named one, by seed, with a verdict.

use crate::case::{Case, Choice};
use crate::check::history::{Finding, Record, What};
use crate::cluster::{Cluster, Tally};
use crate::plan::Plan;
use crate::scenarios::Scenario;
use crate::world::{Line, Recorder, Story};
use ashlar_core::time::{Duration, Time};
use std::ops::Range;
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
    /// The hash after every so many events.
    pub checkpoints: Vec<u64>,
    /// Numbers.
    pub tally: Tally,
    /// Rare branches.
    pub marks: Vec<(&'static str, u64)>,
    /// Faults that did not happen, since the pool does not promise to survive them.
    pub suppressed: Vec<String>,
    /// What was decided.
    pub plan: Plan,
    /// The events of the window.
    pub lines: Vec<String>,
    /// What happened, if it was asked for.
    pub tale: Option<Tale>,
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
    /// The object of the block, as events name it, and its group.
    pub object: Option<(String, String)>,
}

impl Failure {
    /// What kind of failure it is: those of one kind may well have one cause.
    pub fn kind(&self) -> FailureKind {
        let first = self.what.lines().next().unwrap_or_default();
        if first.starts_with("panicked") || first.starts_with("panic") {
            let place = first.split(" at ").nth(1).unwrap_or(first);
            return FailureKind::Panic(place.to_string());
        }
        // What a script says of its cluster is of this kind, too: a failure of wrong data is not to be reduced to that.
        let stuck = [
            "not whole",
            "stuck",
            "does not come",
            "does not move",
            "does not open",
            "does not become",
            "does not end",
            "is not removed",
            "not active",
            "remain:",
            "cannot open",
            "still",
        ];
        if stuck.iter().any(|word| first.contains(word)) { FailureKind::Stuck } else { FailureKind::Wrong }
    }
}

/// See [`Failure::kind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// An invariant of a node was broken, at this place of the code.
    Panic(String),
    /// Something does not come to its end.
    Stuck,
    /// Data, versions or answers are wrong.
    Wrong,
}

/// A run for people to look at.
#[derive(Clone, Debug)]
pub struct Tale {
    /// Messages and moments.
    pub story: Story,
    /// Operations of clients.
    pub operations: Vec<Told>,
    /// Names of the nodes.
    pub nodes: Vec<String>,
}

/// An operation of a client.
#[derive(Clone, Debug)]
pub struct Told {
    /// Its number.
    pub op: u32,
    /// The client's node.
    pub node: u32,
    /// What.
    pub text: String,
    /// When it began.
    pub start: Time,
    /// When it ended, with success or without.
    pub end: Option<Time>,
    /// Whether it ended without success.
    pub failed: bool,
}

/// What differs from the scenario as it is, and what to record.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// In place of what the seed draws.
    pub choice: Choice,
    /// Number of events to keep; 0: none.
    pub lines: usize,
    /// Events with one of these words are kept apart.
    pub words: Vec<String>,
    /// In place of the last events, all of these.
    pub window: Option<Range<u64>>,
    /// Stop at this event.
    pub until: Option<u64>,
    /// Keep what happened.
    pub tale: bool,
}

/// Runs a seed of a scenario.
pub fn run(seed: u64, scenario: &Scenario, recording: &Recording) -> Report {
    run_case(&Case::drawn(seed, scenario, recording.choice), scenario, recording)
}

/// Runs what a file says.
pub fn run_case(case: &Case, scenario: &Scenario, recording: &Recording) -> Report {
    let mut cluster = Cluster::with_plan(case.config.clone(), case.plan.clone());
    if let Some(window) = &recording.window {
        cluster.world.record(Recorder::of_window(window.clone()));
    } else if recording.lines > 0 {
        cluster.world.record(Recorder::new(recording.lines, recording.words.clone()));
    }
    if recording.tale {
        cluster.world.tell_story();
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
        seed: case.config.seed,
        config: case.config.to_string(),
        failure: failure.map(|finding| describe(&cluster, finding)),
        events: cluster.world.events(),
        simulated_ns: cluster.world.now().0,
        trace: cluster.world.trace().value(),
        checkpoints: cluster.world.checkpoints().to_vec(),
        tally: cluster.tally(),
        marks: cluster.marks().iter().map(|(name, count)| (*name, *count)).collect(),
        suppressed: cluster.suppressed().to_vec(),
        plan: cluster.plan().clone(),
        lines: if recording.window.is_some() { lines_of(&cluster).collect() } else { Vec::new() },
        tale: cluster.world.story().cloned().map(|story| tell(&cluster, story)),
    }
}

fn line(line: &Line) -> String {
    format!("{:>8} {:>12.6} s  {}", line.event, line.at.0 as f64 / 1e9, line.text)
}

fn lines_of(cluster: &Cluster) -> impl Iterator<Item = String> + '_ {
    cluster.world.recorder().into_iter().flat_map(|recorder| recorder.last().map(line))
}

fn tell(cluster: &Cluster, story: Story) -> Tale {
    let told = |(op, record): (usize, &Record)| {
        let op = u32::try_from(op).expect("bounded runs");
        if cluster.is_left_out(op) {
            return None;
        }
        let (start, end) = cluster.time_of(op);
        let node = cluster.client_node(record.client as usize).0;
        Some(Told { op, node, text: described(record), start, end, failed: record.failed })
    };
    let operations = cluster.history().records().iter().enumerate().filter_map(told).collect();
    let nodes = cluster.world.node_ids().map(|node| cluster.name_of(node)).collect();
    Tale { story, operations, nodes }
}

fn described(record: &Record) -> String {
    let kind = match &record.what {
        What::Read(values) => {
            let seen: Vec<String> = values.iter().take(4).map(|value| seen(*value)).collect();
            format!("read {}", seen.join(" "))
        }
        What::Discard => "discard".to_string(),
        What::Write if record.blocks == 0 => return "flush".to_string(),
        What::Write => "write".to_string(),
    };
    format!("blocks {}+{}: {kind}", record.first.index, record.blocks)
}

/// Whose value a read saw.
fn seen(value: u64) -> String {
    if value == 0 { "nothing".into() } else { format!("what {} wrote", (value >> 32) - 1) }
}

/// The default: the load under the faults of the mix.
pub fn mix(cluster: &mut Cluster) -> Result<(), Finding> {
    if cluster.config().over_budget {
        cluster.expect_losses();
    }
    cluster.settle_down()?;
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

/// The stripe of the first object that a text names.
fn stripe_in(text: &str) -> Option<u32> {
    let words = text.split(|letter: char| !letter.is_ascii_digit() && letter != ':');
    words.filter(|word| word.split(':').count() == 3).find_map(|word| word.rsplit(':').next()?.parse().ok())
}

fn describe(cluster: &Cluster, finding: Finding) -> Failure {
    let recorder = cluster.world.recorder();
    let records = cluster.history().records();
    let operations = finding.ops.iter().filter_map(|op| {
        let record = records.get(*op as usize)?;
        let (start, end) = cluster.time_of(*op);
        let seconds = |at: Time| format!("{:.6} s", at.0 as f64 / 1e9);
        let end = match end {
            Some(end) if record.failed => format!("failed at {}", seconds(end)),
            Some(end) => format!("done at {}", seconds(end)),
            None => "no end".to_string(),
        };
        let text = described(record);
        Some(format!("operation {op} of client {}: {text}, began at {}, {end}", record.client, seconds(start)))
    });
    let block = finding.block.map(|block| block.index);
    let named = stripe_in(&finding.what).map(|stripe| stripe * cluster.config().object_blocks);
    Failure {
        operations: operations.collect(),
        what: finding.what,
        object: block.or(named).map(|block| cluster.object_of_block(block)),
        block,
        ops: finding.ops,
        warnings: cluster.warnings().to_vec(),
        last: lines_of(cluster).collect(),
        chosen: recorder.into_iter().flat_map(|recorder| recorder.chosen().map(line)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_name_their_object_and_kind() {
        assert_eq!(stripe_in("pg 1/0 epoch 3: 1:1:7 begins at 1.1, below 2.2"), Some(7));
        assert_eq!(stripe_in("panicked at core/src/pg/mod.rs:70:5:"), None);
        let failure = |what: &str| Failure {
            what: what.into(),
            block: None,
            ops: Vec::new(),
            warnings: Vec::new(),
            last: Vec::new(),
            chosen: Vec::new(),
            operations: Vec::new(),
            object: None,
        };
        let panic = failure("panicked at core/src/pg/mod.rs:70:5:\nbroken").kind();
        assert_eq!(panic, FailureKind::Panic("core/src/pg/mod.rs:70:5:".into()));
        assert_eq!(failure("not whole 120 s after the last fault:").kind(), FailureKind::Stuck);
        assert_eq!(failure("the group does not move: open operations []").kind(), FailureKind::Stuck);
        assert_eq!(failure("not linearizable: a stale read").kind(), FailureKind::Wrong);
        assert_eq!(failure("node 2 answers a read of pg 1/0 that it does not serve").kind(), FailureKind::Wrong);
    }
}
