//! How long clients wait when something fails: one client, one request at a time, the longest wait of each run; and
//! whether all that fio wrote is read back while hosts come and go.

use super::{Deployment, HOSTS};
use crate::hosts::Cut;
use crate::nbd::Nbd;
use crate::tools;
use anyhow::{Context, Result, ensure};
use ashlar_core::rng::Rng;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes of a request.
const BLOCK: usize = 4096;
/// The client works so long before a failure.
const BEFORE: Duration = Duration::from_millis(300);
/// Longer waits are listed, with the time since the client began.
const LONG: Duration = Duration::from_millis(50);
/// A request that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// Something that fails, how long until it is over, and the goal.
pub struct Failure {
    /// For the command line.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// The longest wait that is allowed.
    pub goal: Duration,
    /// How long it stays so.
    lasts: Duration,
    inflict: fn(&mut Deployment, u64) -> Result<()>,
    mend: fn(&mut Deployment, u64) -> Result<()>,
}

/// All that is measured. What is lost without effect on I/O still has the noise of a busy machine: 100 ms.
pub const ALL: &[Failure] = &[
    Failure {
        name: "osd-killed",
        what: "an OSD's process is killed",
        goal: Duration::from_millis(500),
        lasts: Duration::from_secs(2),
        inflict: |d, run| d.kill(&osd(run)),
        mend: |d, run| d.revive(&osd(run)),
    },
    Failure {
        name: "planned-restart",
        what: "an OSD is told to stop, and started again",
        goal: Duration::from_millis(100),
        lasts: Duration::from_secs(2),
        inflict: |d, run| {
            d.signal(&osd(run), Signal::SIGTERM)?;
            d.wait(&osd(run))?;
            d.revive(&osd(run))
        },
        mend: |_, _| Ok(()),
    },
    Failure {
        name: "host-frozen",
        what: "all processes of a host stop",
        goal: Duration::from_millis(2_000),
        lasts: Duration::from_secs(4),
        inflict: |d, run| signal_host(d, host(run), Signal::SIGSTOP),
        mend: |d, run| signal_host(d, host(run), Signal::SIGCONT),
    },
    Failure {
        name: "host-cut",
        what: "a host is cut off",
        goal: Duration::from_millis(2_000),
        lasts: Duration::from_secs(4),
        inflict: |d, run| d.cut(host(run), Cut::Both),
        mend: |d, _| d.heal(),
    },
    Failure {
        name: "host-mute",
        what: "nothing that a host sends arrives",
        goal: Duration::from_millis(2_000),
        lasts: Duration::from_secs(4),
        inflict: |d, run| d.cut(host(run), Cut::Out),
        mend: |d, _| d.heal(),
    },
    Failure {
        name: "host-deaf",
        what: "nothing arrives at a host",
        goal: Duration::from_millis(2_000),
        lasts: Duration::from_secs(4),
        inflict: |d, run| d.cut(host(run), Cut::In),
        mend: |d, _| d.heal(),
    },
    Failure {
        name: "monitor-lost",
        what: "the leading monitor is killed",
        goal: Duration::from_millis(100),
        lasts: Duration::from_secs(5),
        inflict: |d, _| d.leading_monitor().and_then(|name| d.kill(&name)),
        mend: |d, _| d.revive_all(),
    },
    Failure {
        name: "etcd-lost",
        what: "the leading member of etcd is killed",
        goal: Duration::from_millis(100),
        lasts: Duration::from_secs(5),
        inflict: |d, _| d.leading_etcd().and_then(|name| d.kill(&name)),
        mend: |d, _| d.revive_all(),
    },
];

/// A different one in each run.
fn osd(run: u64) -> String {
    format!("osd-{}", run % 6 + 1)
}

/// A different one in each run: with each goes a member of etcd, and with two of them a monitor.
fn host(run: u64) -> u32 {
    u32::try_from(run % u64::from(HOSTS)).expect("few") + 1
}

fn signal_host(deployment: &Deployment, host: u32, signal: Signal) -> Result<()> {
    deployment.on_host(host).iter().try_for_each(|name| deployment.signal(name, signal))
}

/// What was measured of one failure.
pub struct Figures {
    /// The longest wait of each run, sorted.
    pub stalls: Vec<Duration>,
}

impl Figures {
    /// Half of the runs were not worse.
    pub fn median(&self) -> Duration {
        self.stalls[self.stalls.len() / 2]
    }

    /// The worst run.
    pub fn worst(&self) -> Duration {
        self.stalls[self.stalls.len() - 1]
    }
}

/// Inflicts a failure so many times, each time on a cluster that is whole again.
pub fn measure(deployment: &mut Deployment, failure: &Failure, runs: u64) -> Result<Figures> {
    let mut stalls = Vec::new();
    for run in 0..runs {
        deployment.wait_clean()?;
        let client = Client::start(deployment, run)?;
        std::thread::sleep(BEFORE);
        (failure.inflict)(deployment, run)?;
        std::thread::sleep(failure.lasts);
        (failure.mend)(deployment, run)?;
        std::thread::sleep(failure.lasts / 2);
        let seen = client.stop().with_context(|| format!("{}\n{}", failure.what, deployment.logs()))?;
        let waits: Vec<_> =
            seen.waits.iter().map(|(at, took)| format!("{:.0}+{:.0}", millis(*at), millis(*took))).collect();
        let (longest, waits) = (millis(seen.longest), waits.join(" "));
        eprintln!("  run {run}: longest wait {longest:.0} ms of {} requests; long ones at {waits}", seen.requests);
        stalls.push(seen.longest);
    }
    stalls.sort_unstable();
    Ok(Figures { stalls })
}

/// For tables.
pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// One client that writes and reads back, one request at a time.
struct Client {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Seen>>,
}

/// What it saw.
struct Seen {
    requests: u64,
    longest: Duration,
    /// When long ones began, and how long they took.
    waits: Vec<(Duration, Duration)>,
}

impl Client {
    fn start(deployment: &Deployment, seed: u64) -> Result<Client> {
        let nbd = Nbd::connect(&deployment.socket(), super::IMAGE, PATIENCE)?;
        let stop = Arc::new(AtomicBool::new(false));
        let ending = Arc::clone(&stop);
        let thread = std::thread::spawn(move || work(nbd, Rng::new(seed), &ending));
        Ok(Client { stop, thread })
    }

    fn stop(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the client does not panic")
    }
}

fn work(mut nbd: Nbd, mut rng: Rng, stop: &AtomicBool) -> Result<Seen> {
    let mut seen = Seen { requests: 0, longest: Duration::ZERO, waits: Vec::new() };
    let began = Instant::now();
    let mut written: BTreeMap<u64, u64> = BTreeMap::new();
    let blocks = nbd.size_bytes() / BLOCK as u64;
    while !stop.load(Ordering::Relaxed) {
        let (block, value) = (rng.below(blocks), rng.next_u64());
        let started = Instant::now();
        if rng.chance(1, 2) {
            nbd.write(block * BLOCK as u64, &value.to_le_bytes().repeat(BLOCK / 8))?;
            written.insert(block, value);
        } else {
            let known = written.range(block..).next().or_else(|| written.range(..block).next_back());
            let Some((block, value)) = known.map(|(block, value)| (*block, *value)) else { continue };
            let data = nbd.read(block * BLOCK as u64, BLOCK)?;
            ensure!(data == value.to_le_bytes().repeat(BLOCK / 8), "block {block} is not as it was written");
        }
        seen.requests += 1;
        let took = started.elapsed();
        seen.longest = seen.longest.max(took);
        if took >= LONG {
            seen.waits.push((started - began, took));
        }
    }
    Ok(seen)
}

/// fio writes and verifies while everything is done to hosts, monitors and etcd; what it saw.
pub fn verify_through_failures(deployment: &mut Deployment, rounds: u32) -> Result<tools::Outcome> {
    let uri = deployment.uri();
    let each = Duration::from_secs(6);
    let seconds = u64::from(rounds) * 5 * (2 * each.as_secs() + 2);
    let fio = std::thread::spawn(move || tools::fio(&uri, seconds));
    for round in 0..rounds {
        let host = round % HOSTS + 1;
        for cut in [Cut::In, Cut::Out, Cut::Both] {
            eprintln!("  host {host} is cut off: {cut:?}");
            deployment.cut(host, cut)?;
            std::thread::sleep(each);
            deployment.heal()?;
            deployment.wait_clean()?;
        }
        eprintln!("  host {host} stops for a while");
        signal_host(deployment, host, Signal::SIGSTOP)?;
        std::thread::sleep(each);
        signal_host(deployment, host, Signal::SIGCONT)?;
        deployment.wait_clean()?;
        eprintln!("  host {host} is killed, with the leading monitor and the leading member of etcd");
        let mut victims = deployment.on_host(host);
        victims.extend([deployment.leading_monitor()?]);
        victims.sort();
        victims.dedup();
        victims.iter().try_for_each(|name| deployment.kill(name))?;
        std::thread::sleep(each);
        deployment.revive_all()?;
        deployment.wait_clean()?;
    }
    fio.join().expect("fio's thread does not panic").with_context(|| deployment.logs())
}
