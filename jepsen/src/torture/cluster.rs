//! Power cuts of OSDs under clients that share blocks: each session is a new cluster with its own history.

use super::progress::Progress;
use super::proof::Proof;
use super::{Judgement, Victims};
use crate::check::judge;
use crate::devices::{Devices, Lies};
use crate::fleet::{Fleet, Network, Shape};
use crate::history::Recorder;
use crate::history::edn::{self, Registers};
use crate::scratch::Scratch;
use crate::workload::blocks::{Ground, Worker, look, start};
use anyhow::{Context, Result, bail};
use ashlar_core::rng::Rng;
use ashlar_faultinject::disk::Outcome;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Cuts of a session: its history stays small.
const SESSION_CYCLES: u64 = 10;
const WORKERS: u32 = 6;
const PAUSE: Duration = Duration::from_millis(2);
const CLEAN_LIMIT: Duration = Duration::from_secs(120);
/// Bytes of a device: the simulated one keeps what is written in memory.
const DEVICE_BYTES: u64 = 512 << 20;

/// What to torture.
#[derive(Clone, Debug)]
pub struct Rig {
    /// The cluster.
    pub shape: Shape,
    /// Who loses the power.
    pub victims: Victims,
    /// The device of this OSD lies about flushes.
    pub liar: Option<u32>,
    /// Where the proof of a loss is put.
    pub out: Option<PathBuf>,
}

impl Rig {
    /// A cluster for a pool.
    pub fn new(pool: &str, immediate_commit: &'static str, victims: Victims) -> Rig {
        let mut shape = Shape::of(pool, immediate_commit);
        let ground = Ground::blocks(shape.object_blocks());
        shape.images = vec![(ground.export, ground.mib())];
        shape.osd_bytes = DEVICE_BYTES;
        Rig { shape, victims, liar: None, out: None }
    }

    /// The store alone: one OSD with one copy of everything, so that nobody helps it.
    pub fn store(immediate_commit: &'static str, victims: Victims) -> Rig {
        let mut rig = Rig::new("replicated:1", immediate_commit, victims);
        rig.shape.osds = 1;
        rig
    }

    /// Sessions until there were so many cuts, or something is missing.
    pub fn run(&self, cycles: u64, progress: &mut Progress) -> Result<Judgement> {
        if let Some(osd) = self.liar.filter(|osd| !(1..=self.shape.osds).contains(osd)) {
            bail!("there is no osd.{osd} that could lie: there are 1 to {}", self.shape.osds);
        }
        while progress.cycles < cycles {
            let count = SESSION_CYCLES.min(cycles - progress.cycles);
            let judgement = self.session(count, progress)?;
            progress.sessions += 1;
            progress.save()?;
            if judgement != Judgement::Clean {
                return Ok(judgement);
            }
            eprintln!("{} cuts, {} operations acknowledged, nothing missing", progress.cycles, progress.acknowledged);
        }
        Ok(Judgement::Clean)
    }

    fn session(&self, cycles: u64, progress: &mut Progress) -> Result<Judgement> {
        let (seed, scratch) = (progress.session_seed(), Scratch::new("torture")?);
        let devices = Devices::new(&scratch, self.shape.osds, self.shape.osd_bytes, self.shape.log_bytes(), seed)?;
        let fleet = Fleet::start(&scratch, self.shape.clone(), &devices.paths(), Network::Loopback)?;
        if let Some(osd) = self.liar {
            devices.set_lies(osd, Lies { flush: true, ..Lies::default() });
        }
        let ground = Ground::blocks(self.shape.object_blocks());
        let ground = ground.for_pool(self.shape.promise(), self.shape.servers);
        let recorder = Arc::new(Recorder::default());
        recorder.set_layout(ground.image, ground.layout);
        let (rng, proof) = (Rng::new(seed), Proof::new(self.out.clone()));
        let mut session = Session { rig: self, fleet, devices, recorder, ground, rng, lost: 0, proof };
        let outcome = session.cycles(cycles, progress);
        let judgement = outcome.with_context(|| format!("session seed {seed}\n{}", session.fleet.logs()))?;
        let log = session.recorder.take();
        let [ok, ..] = log.counts();
        progress.acknowledged += ok as u64;
        progress.sectors_lost += session.lost;
        let history = edn::export(&log, Registers::of(self.shape.promise()));
        let files = [("history.edn".to_string(), history.into_bytes())];
        session.proof.keep(&format!("session seed {seed}"), &judgement, &files)?;
        Ok(judgement)
    }
}

/// What a cluster that does not come back means: if a device lied, that is why. Else it is the error that it was.
pub(super) fn accuse(devices: &Devices, error: anyhow::Error) -> Result<Judgement> {
    let canaries = devices.dead_canaries()?;
    if canaries.is_empty() {
        return Err(error.context("nothing is known to be missing, every device kept what it said"));
    }
    let words = format!("{error:#}").lines().next().unwrap_or_default().to_string();
    Ok(Judgement::DeviceLies([canaries, vec![words]].concat()))
}

struct Session<'a> {
    rig: &'a Rig,
    fleet: Fleet,
    devices: Devices,
    recorder: Arc<Recorder>,
    ground: Ground,
    rng: Rng,
    lost: u64,
    proof: Proof,
}

/// Clients at work.
struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u64>>,
}

impl Clients {
    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("workers do not panic");
        }
    }
}

impl Session<'_> {
    fn cycles(&mut self, cycles: u64, progress: &mut Progress) -> Result<Judgement> {
        for _ in 0..cycles {
            self.devices.feed_canaries()?;
            let clients = self.start_clients();
            std::thread::sleep(Duration::from_millis(self.rng.between(300, 2500)));
            let kind = self.rig.victims.draw(&mut self.rng);
            let outcome = self.cut(kind, clients);
            progress.cycles += 1;
            let judgement = match outcome {
                Ok(()) => self.judge()?,
                Err(error) => accuse(&self.devices, error)?,
            };
            if judgement != Judgement::Clean {
                return Ok(judgement);
            }
        }
        Ok(Judgement::Clean)
    }

    fn start_clients(&mut self) -> Clients {
        let stop = Arc::new(AtomicBool::new(false));
        let workers = (0..WORKERS).map(|number| self.worker(number)).collect::<Vec<_>>();
        let start = |worker| start(worker, self.ground.clone(), &self.recorder, &stop, self.rng.next_u64());
        Clients { threads: workers.into_iter().map(start).collect(), stop }
    }

    fn worker(&self, number: u32) -> Worker {
        let server = 1 + number % self.fleet.shape().servers;
        Worker { number, server, socket: self.fleet.socket(server), pause: PAUSE }
    }

    /// One moment without power, and everything is started again.
    fn cut(&mut self, kind: Victims, clients: Clients) -> Result<()> {
        let osds = kind.of(self.fleet.shape().osds, &mut self.rng);
        let outcome = Outcome::draw(&mut self.rng);
        let names: Vec<String> = osds.iter().map(|osd| format!("osd-{osd}")).collect();
        let dead_clients = if kind == Victims::Everything { self.fleet.names("nbd") } else { Vec::new() };
        self.devices.fail(&osds);
        self.fleet.kill_all(names.iter().chain(&dead_clients).map(String::as_str));
        let lost = self.devices.power_off(&osds, outcome);
        self.lost += lost;
        self.proof.event(&format!("power cut of {kind:?} {osds:?}: {outcome:?}, {lost} sectors lost"));
        let clients = if dead_clients.is_empty() {
            Some(clients)
        } else {
            clients.end();
            self.recorder.cut();
            None
        };
        self.devices.power_on()?;
        names.iter().chain(&dead_clients).try_for_each(|name| self.fleet.run(name))?;
        self.fleet.wait_clean(CLEAN_LIMIT)?;
        if let Some(clients) = clients {
            clients.end();
        }
        Ok(())
    }

    fn judge(&mut self) -> Result<Judgement> {
        let canaries = self.devices.dead_canaries()?;
        let mut missing: Vec<String> = look(&self.worker(0), &self.ground, &self.recorder).err().into_iter().collect();
        let verdict = judge(&self.recorder.take(), self.rig.shape.promise());
        missing.extend(verdict.findings.iter().map(|finding| format!("{finding:?}")));
        missing.extend(verdict.disagreements.iter().map(|block| format!("the checkers disagree on {block:?}")));
        Ok(Judgement::of(missing, canaries))
    }
}
