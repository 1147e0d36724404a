//! A run: a cluster, workloads on it, faults for a while, and a verdict on the history.
//!
//! ```text
//!  start ─▶ workloads ─▶ faults come and go ─▶ all end ─▶ clean ─▶ a last look at every block ─▶ verdict
//! ```
//! Owns: the order of these. What may happen is a [`Plan`]: kinds of faults with their rates, or a list of faults that was
//! recorded before, here or in the simulator.

use crate::check::{Verdict, judge};
use crate::cluster::built_with;
use crate::fleet::{Fleet, Network, Shape};
use crate::history::{Log, Recorder};
use crate::hosts::Hosts;
use crate::hosts::remote::Remote;
use crate::injector::{Band, CLOCK, Injector, Lines};
use crate::platters::{Platters, Under};
use crate::relay::Relays;
use crate::scratch::Scratch;
use crate::untried::{Latecomers, Turn, shuffled};
use crate::workload::bank::{self, Bank};
use crate::workload::blocks::{Ground, Worker, look, start};
use crate::workload::names::Names;
use anyhow::{Context, Result, bail, ensure};
use ashlar_core::rng::Rng;
use ashlar_faultinject::mix::{FaultKind, FaultMix};
use ashlar_faultinject::plan::{Fault, FaultPlan};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Workers on whole blocks and on cells.
const WORKERS: [u32; 2] = [6, 4];
/// Between two operations of a worker: the machine has other things to do, too.
const PAUSE: Duration = Duration::from_millis(4);
/// For a cluster to become whole when everything is healed.
const CLEAN_LIMIT: Duration = Duration::from_secs(150);

/// Which faults.
#[derive(Clone, Debug)]
pub enum Faults {
    /// Drawn from rates.
    Mix(FaultMix),
    /// These.
    Plan(FaultPlan),
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The cluster.
    pub shape: Shape,
    /// What breaks.
    pub faults: Faults,
    /// For how long.
    pub seconds: u64,
    /// What daemons are connected by.
    pub lines: Lines,
    /// A file of hosts to live on, in the place of namespaces.
    pub hosts: Option<PathBuf>,
    /// What OSDs live on.
    pub under: Under,
    /// Whether clocks run wrongly.
    pub clocks: bool,
    /// Draws everything.
    pub seed: u64,
}

impl Plan {
    /// A pool under some kinds of faults.
    pub fn new(pool: &str, immediate_commit: &'static str, mix: FaultMix, seconds: u64) -> Plan {
        let mut shape = Shape::of(pool, immediate_commit);
        let blocks = shape.object_blocks();
        let [blocks, cells] = [Ground::blocks(blocks), Ground::cells(blocks)];
        shape.images = vec![(blocks.export, blocks.mib()), (cells.export, cells.mib()), (bank::EXPORT, bank::MIB)];
        Plan {
            shape,
            faults: Faults::Mix(mix),
            seconds,
            lines: Lines::Relayed,
            hosts: None,
            under: Under::Files,
            clocks: false,
            seed: u64::from(std::process::id()),
        }
    }

    /// Whether it takes a binary whose disks and clocks can misbehave.
    pub fn needs_faults(&self) -> bool {
        self.under == Under::Layer || self.clocks
    }

    /// Names of what is to happen.
    pub fn asked(&self) -> Vec<&'static str> {
        let kinds = match &self.faults {
            Faults::Mix(mix) => mix.kinds(),
            Faults::Plan(plan) => plan.faults.iter().map(|fault| fault.kind).collect(),
        };
        let names: BTreeSet<&str> = kinds.into_iter().map(FaultKind::name).collect();
        names.into_iter().chain(self.clocks.then_some(CLOCK)).collect()
    }
}

/// What was seen.
pub struct Told {
    /// Everything that clients did.
    pub log: Log,
    /// What it shows.
    pub verdict: Verdict,
    /// What else is wrong, in words.
    pub wrong: Vec<String>,
    /// What was asked for and did not happen, with the reason.
    pub untried: Vec<String>,
    /// Faults, and when.
    pub bands: Vec<Band>,
    /// The same, to be repeated.
    pub faults: FaultPlan,
    /// Transfers of the bank, tries of the administrators.
    pub others: [u64; 2],
    /// When it began.
    pub begin: Instant,
}

impl Told {
    /// Whether no promise was broken.
    pub fn is_clean(&self) -> bool {
        self.verdict.is_clean() && self.wrong.is_empty()
    }

    /// What to say of the run in few words; what did not happen is part of it.
    pub fn verdict(&self) -> String {
        match (self.complaints().first(), self.untried.is_empty()) {
            (Some(complaint), _) => format!("BROKEN: {complaint}"),
            (None, true) => CLEAN.into(),
            (None, false) => format!("{CLEAN}, but NOT tried: {}", self.untried.join(", ")),
        }
    }

    /// What is wrong, in words; nothing if nothing is.
    pub fn complaints(&self) -> Vec<String> {
        let findings = self.verdict.findings.iter();
        let mut all: Vec<String> = findings
            .map(|finding| format!("{:?}: {} (operations {:?})", finding.block, finding.what, finding.ops))
            .collect();
        let disagreements = self.verdict.disagreements.iter();
        all.extend(disagreements.map(|block| format!("the checkers disagree on {block:?}: a bug of theirs")));
        all.extend(self.wrong.clone());
        all
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [ok, fail, info] = self.log.counts();
        let mut kinds: BTreeMap<&str, u32> = BTreeMap::new();
        self.bands.iter().for_each(|band| *kinds.entry(&band.kind).or_default() += 1);
        let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let Verdict { blocks, undecided, confirmed, .. } = self.verdict;
        write!(
            f,
            "{ok} operations ok, {fail} refused, {info} unknown, {} transfers, {} creations and removals; faults: {}; \
             {blocks} blocks judged, {confirmed} by both checkers, {undecided} undecided",
            self.others[0],
            self.others[1],
            if kinds.is_empty() { "none".into() } else { kinds.join(", ") },
        )
    }
}

/// The verdict when no promise was broken and everything that was asked for happened.
pub const CLEAN: &str = "clean";

/// Runs a plan; a broken promise is no error here.
pub fn run(plan: &Plan, scratch: &Scratch) -> Result<Told> {
    let shape = &plan.shape;
    let network = match plan.lines {
        Lines::Loopback => Network::Loopback,
        Lines::Relayed => Network::Relayed(Relays::new(plan.seed)),
        Lines::Hosts => Network::Hosts(match &plan.hosts {
            Some(file) => Arc::new(Remote::read(file)?),
            None => Arc::new(Hosts::new(&shape.names())?),
        }),
    };
    let platters = Platters::new(plan.under, scratch, shape, plan.seed)?;
    let mut shape = shape.clone();
    shape.misbehaves |= plan.needs_faults();
    if shape.misbehaves && shape.binary.is_none() {
        shape.binary = Some(built_with("faults")?);
    }
    let fleet = Fleet::start(scratch, shape, &platters.paths(), network.clone())?;
    let outcome = platters.behave(&fleet).and_then(|()| with_fleet(plan, &fleet, network.clone(), &platters));
    if let Network::Relayed(relays) = network {
        relays.end();
    }
    outcome.with_context(|| fleet.logs())
}

fn with_fleet(plan: &Plan, fleet: &Fleet, network: Network, platters: &Platters) -> Result<Told> {
    let (recorder, stop, begin) = (Arc::new(Recorder::default()), Arc::new(AtomicBool::new(false)), Instant::now());
    let mut rng = Rng::new(plan.seed);
    let shape = fleet.shape();
    let grounds = [Ground::blocks(shape.object_blocks()), Ground::cells(shape.object_blocks())]
        .map(|ground| ground.for_pool(shape.promise(), shape.servers));
    let mut workers = Vec::new();
    for (ground, count) in grounds.iter().zip(WORKERS) {
        recorder.set_layout(ground.image, ground.layout);
        for number in 0..count {
            let number = number + ground.image * 100;
            workers.push(start(worker(fleet, number), ground.clone(), &recorder, &stop, rng.next_u64()));
        }
    }
    let (mut bank, names) = (Bank::default(), Names::default());
    let (mut money, mut clerks) = (rng.fork(), [rng.fork(), rng.fork()]);
    let mut injector = Injector::new(fleet, network, platters, rng.fork());
    if plan.clocks {
        injector.disturb_clocks();
    }
    let (faults, teller) = std::thread::scope(|scope| {
        let teller = scope.spawn(|| bank.work(&fleet.socket(1), &stop, &mut money));
        let clerks = clerks.each_mut().map(|rng| {
            let (rng, names, stop) = (rng.fork(), &names, &stop);
            scope.spawn(move || names.work(fleet, stop, rng))
        });
        let faults = disturb(plan, &mut injector, rng.fork());
        let healed = injector.end_all().and_then(|()| fleet.wait_clean(CLEAN_LIMIT));
        stop.store(true, Ordering::Relaxed);
        let teller = teller.join().expect("the teller does not panic");
        clerks.into_iter().for_each(|clerk| clerk.join().expect("administrators do not panic"));
        (faults.and_then(|faults| healed.map(|()| faults)), teller)
    });
    let called: u64 = workers.into_iter().map(|worker| worker.join().expect("workers do not panic")).sum();
    let faults = faults?;
    ensure!(called > 0, "no client did anything");
    let mut wrong: Vec<String> = teller.err().into_iter().collect();
    wrong.extend(bank.check(&fleet.socket(2)).err());
    for ground in &grounds {
        if let Err(what) = look(&worker(fleet, ground.image), ground, &recorder) {
            bail!("after everything was healed: {what}");
        }
    }
    let tries = names.verdict();
    wrong.extend(tries.wrong);
    wrong.extend(fleet.panics());
    let log = recorder.take();
    let verdict = judge(&log, shape.promise());
    let others = [bank.completed, tries.tries as u64];
    let mut untried = injector.account.untried(plan.asked());
    untried.extend(tries.unjudged);
    if verdict.undecided > 0 {
        untried.push(format!("judging {} of {} blocks (too concurrent)", verdict.undecided, verdict.blocks));
    }
    Ok(Told { log, verdict, wrong, untried, bands: injector.bands, faults, others, begin })
}

fn worker(fleet: &Fleet, number: u32) -> Worker {
    let server = 1 + number % fleet.shape().servers;
    Worker { number, server, socket: fleet.socket(server), pause: PAUSE }
}

/// Lets faults come and go until the time is over; which ones came.
fn disturb(plan: &Plan, injector: &mut Injector<'_>, mut rng: Rng) -> Result<FaultPlan> {
    let begin = Instant::now();
    let end = begin + Duration::from_secs(plan.seconds);
    let mut carried_out = FaultPlan::default();
    let mut turns = Turns::new(&plan.faults, begin, Duration::from_secs(plan.seconds), &mut rng);
    loop {
        let next = turns.next(&mut rng, |kind| injector.account.came(kind.name()) > 0);
        let at = next.as_ref().map_or(end, |next| next.at).min(end);
        wait_until(at, injector)?;
        let Some(Next { kind, draws, .. }) = next.filter(|next| next.at < end) else { break };
        let is_planned = draws.is_some();
        if let Some(draws) = draws {
            injector.set_draws(draws);
        }
        let (at, draws) = (u64::try_from(begin.elapsed().as_nanos())?, injector.draws());
        if injector.inject(kind, is_planned) {
            carried_out.faults.push(Fault { at, kind, draws });
        }
    }
    for kind in beyond(&plan.faults, plan.seconds) {
        injector.account.note(kind.name(), Turn::Failed(TOO_LATE.into()));
    }
    Ok(carried_out)
}

/// Why a planned fault was not tried.
const TOO_LATE: &str = "it is planned for after the run's end; --seconds is too short for the plan";

/// Planned faults that a run is too short for.
fn beyond(faults: &Faults, seconds: u64) -> impl Iterator<Item = FaultKind> {
    let planned = match faults {
        Faults::Plan(plan) => &plan.faults[..],
        Faults::Mix(_) => &[],
    };
    planned.iter().filter(move |fault| fault.at >= seconds * 1_000_000_000).map(|fault| fault.kind)
}

/// A fault that is to come.
struct Next {
    at: Instant,
    kind: FaultKind,
    draws: Option<Rng>,
}

/// Which fault comes when: those of a plan at their times; of a mix by its rates, and each at least once.
enum Turns<'a> {
    Planned { begin: Instant, faults: std::slice::Iter<'a, Fault> },
    Mixed { mix: &'a FaultMix, kinds: Vec<FaultKind>, late: Latecomers },
}

impl<'a> Turns<'a> {
    fn new(faults: &'a Faults, begin: Instant, length: Duration, rng: &mut Rng) -> Turns<'a> {
        match faults {
            Faults::Plan(plan) => Turns::Planned { begin, faults: plan.faults.iter() },
            Faults::Mix(mix) => {
                Turns::Mixed { mix, kinds: shuffled(mix.kinds(), rng), late: Latecomers::of(begin, length) }
            }
        }
    }

    fn next(&mut self, rng: &mut Rng, came: impl Fn(FaultKind) -> bool) -> Option<Next> {
        match self {
            Turns::Planned { begin, faults } => faults.next().map(|fault| Next {
                at: *begin + Duration::from_nanos(fault.at),
                kind: fault.kind,
                draws: Some(fault.draws.clone()),
            }),
            Turns::Mixed { mix, kinds, late } => {
                let now = Instant::now();
                let (after, kind) = mix.next(rng)?;
                let drawn = Next { at: now + Duration::from_nanos(after.0), kind, draws: None };
                let missing: Vec<FaultKind> = kinds.iter().copied().filter(|kind| !came(*kind)).collect();
                match late.next(now, &missing).filter(|(at, _)| *at < drawn.at) {
                    Some((at, kind)) => {
                        late.called();
                        Some(Next { at, kind, draws: None })
                    }
                    None => Some(drawn),
                }
            }
        }
    }
}

/// Ends faults in time meanwhile.
fn wait_until(at: Instant, injector: &mut Injector<'_>) -> Result<()> {
    loop {
        let next = injector.next_due().map_or(at, |due| due.min(at));
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let now = Instant::now();
        injector.end_due(now)?;
        if now >= at {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_core::time::Duration as Span;

    fn fault(at_s: u64, kind: FaultKind) -> Fault {
        Fault { at: at_s * 1_000_000_000, kind, draws: Rng::new(1) }
    }

    #[test]
    fn what_is_asked_for_is_known_before_the_run_and_so_is_what_it_is_too_short_for() {
        let mix = FaultMix::none().with(FaultKind::Wipe, Span::secs(9)).with(FaultKind::Crash, Span::secs(9));
        let mut plan = Plan::new("replicated:3", "all", mix, 10);
        plan.clocks = true;
        assert_eq!(plan.asked(), ["crash", "wipe", CLOCK]);
        assert_eq!(beyond(&plan.faults, 0).count(), 0, "nothing of a mix has its time");
        let faults = vec![fault(3, FaultKind::Pause), fault(5, FaultKind::Pause), fault(12, FaultKind::Crash)];
        (plan.faults, plan.clocks) = (Faults::Plan(FaultPlan { faults }), false);
        assert_eq!(plan.asked(), ["crash", "pause"]);
        assert_eq!(beyond(&plan.faults, plan.seconds).collect::<Vec<_>>(), [FaultKind::Crash]);
    }

    #[test]
    fn kinds_that_rates_do_not_bring_are_called_before_the_end() {
        let rare =
            FaultMix::none().with(FaultKind::Wipe, Span::secs(100_000)).with(FaultKind::Crash, Span::secs(100_000));
        let (begin, mut rng) = (Instant::now(), Rng::new(2));
        let faults = Faults::Mix(rare);
        // A run that is half over.
        let mut turns = Turns::new(&faults, begin - Duration::from_secs(31), Duration::from_secs(60), &mut rng);
        let first = turns.next(&mut rng, |_| false).expect("a turn");
        let second = turns.next(&mut rng, |kind| kind == first.kind).expect("a turn");
        assert_ne!(first.kind, second.kind);
        for next in [&first, &second] {
            assert!(next.at < begin + Duration::from_secs(29) && next.draws.is_none());
        }
        let neither = turns.next(&mut rng, |_| true).expect("one that is drawn");
        assert!(neither.at > begin + Duration::from_secs(29), "all have come");
    }
}
