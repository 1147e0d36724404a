//! Faults on real processes, by the names that the simulator gives them: whom they hit is drawn, and how long they last.
//!
//! | fault | here |
//! | --- | --- |
//! | crash, pause | SIGKILL and a new start, SIGSTOP and SIGCONT |
//! | partition, one-way, reset, slow and damaged paths | [`crate::relay`]; the first two by [`crate::hosts`], too |
//! | metadata outage, cut, lost watches, expired sessions | the monitor with its store is stopped, or its paths cut or reset |
//! | reweight | the administrator does it |
//! | power of one OSD or of all, disk errors, stalls, damage, new disks | [`crate::platters`] |
//! | clocks | each daemon's clock changes its rate now and then, if that is asked for; a build with the feature `faults` |
//!
//! Owns: the choice of targets and lengths, that every fault ends, and the account of what came of each. Does not own: when
//! one comes. Invariant: a band is there for what happened, and for nothing else.

use crate::fleet::{Fleet, Network, members};
use crate::hosts::Homes;
use crate::platters::{Platters, Under};
use crate::relay::{QUICK, Relays};
use crate::untried::{Account, Turn};
use anyhow::{Context, Result};
use ashlar_core::rng::Rng;
use ashlar_core::time::Duration as Span;
use ashlar_faultinject::disk::DiskFaults;
use ashlar_faultinject::link::LinkModel;
use ashlar_faultinject::mix::FaultKind;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Faults of paths.
const PATHS: &[FaultKind] = &[
    FaultKind::Partition,
    FaultKind::OneWay,
    FaultKind::Reset,
    FaultKind::MetaCut,
    FaultKind::MetaUnknown,
    FaultKind::LeaseExpiry,
    FaultKind::WatchLost,
];
/// Those that drop packets.
const CUTS: [FaultKind; 4] = [FaultKind::Partition, FaultKind::OneWay, FaultKind::MetaCut, FaultKind::LeaseExpiry];
/// Names of those that spoil what a disk holds.
const DAMAGE: [&str; 4] = ["bit-rot", "latent-error", "astray", "read-error"];
/// For others to become whole without a damaged OSD.
const REBUILD_LIMIT: Duration = Duration::from_secs(120);
/// Of an administrator.
const TRIES: u32 = 10;
/// Everything without power is back after that, at most.
const SHORT: Duration = Duration::from_secs(2);
/// How wrongly clocks run, at most: leases allow for twice that between two of them.
const CLOCK_PPM: u64 = 25_000;
/// What wrong clocks are called.
pub const CLOCK: &str = "clock";
/// How long a clock keeps its rate.
const CLOCK_MS: [u64; 2] = [500, 4000];

/// What daemons are connected by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Lines {
    /// Loopback.
    Loopback,
    /// Relays in this process.
    Relayed,
    /// A network namespace for each daemon (needs root), or hosts of a file.
    Hosts,
}

/// What ends a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Undo {
    Run(String),
    Continue(String),
    HealPaths,
    Behave,
    /// Nothing ends here: the next clock changes.
    Clocks,
}

/// A fault that was there: for people, and for the page.
#[derive(Clone, Debug)]
pub struct Band {
    /// Its kind.
    pub kind: String,
    /// Whom it hit, and how.
    pub what: String,
    /// When it began.
    pub from: Instant,
    /// When it ended.
    pub to: Instant,
}

/// Carries faults out.
pub struct Injector<'a> {
    fleet: &'a Fleet,
    network: Network,
    platters: &'a Platters,
    rng: Rng,
    due: Vec<(Instant, Undo)>,
    /// Everything that happened.
    pub bands: Vec<Band>,
    /// What came of each kind.
    pub account: Account,
}

impl<'a> Injector<'a> {
    /// For a cluster, its network, and its disks.
    pub fn new(fleet: &'a Fleet, network: Network, platters: &'a Platters, rng: Rng) -> Injector<'a> {
        Injector { fleet, network, platters, rng, due: Vec::new(), bands: Vec::new(), account: Account::default() }
    }

    /// From now on no clock is right.
    pub fn disturb_clocks(&mut self) {
        self.due.push((Instant::now(), Undo::Clocks));
    }

    /// Kinds that are possible on a network, and with disks of a sort.
    pub fn kinds(network: Lines, under: Under) -> Vec<FaultKind> {
        let always = &[FaultKind::Crash, FaultKind::Pause, FaultKind::MetaOutage, FaultKind::Reweight];
        let paths = match network {
            Lines::Loopback => &[],
            Lines::Relayed => PATHS,
            // Whole packets are dropped, or none.
            Lines::Hosts => &CUTS[..],
        };
        [always, paths, under.kinds()].concat()
    }

    /// The generator's state: with it the same fault hits the same target.
    pub fn draws(&self) -> Rng {
        self.rng.clone()
    }

    /// Draws go on from here.
    pub fn set_draws(&mut self, rng: Rng) {
        self.rng = rng;
    }

    /// When something is to end.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.iter().map(|(at, _)| *at).min()
    }

    /// Ends what is due.
    pub fn end_due(&mut self, now: Instant) -> Result<()> {
        let (due, later) = std::mem::take(&mut self.due).into_iter().partition(|(at, _)| *at <= now);
        self.due = later;
        let due: Vec<(Instant, Undo)> = due;
        due.into_iter().try_for_each(|(_, undo)| self.undo(undo))
    }

    /// Ends everything.
    pub fn end_all(&mut self) -> Result<()> {
        let now = Instant::now();
        let due = std::mem::take(&mut self.due);
        self.bands.iter_mut().for_each(|band| band.to = band.to.min(now));
        due.into_iter().filter(|(_, undo)| *undo != Undo::Clocks).try_for_each(|(_, undo)| self.undo(undo))?;
        self.fleet.names("").iter().try_for_each(|name| self.fleet.misbehave(name, |faults| faults.clock_ppm = 0))?;
        self.undo(Undo::Behave)?;
        self.fleet.names("").iter().try_for_each(|name| {
            // One that does not run is started instead.
            self.fleet.stop(name, false);
            self.fleet.run(name)
        })?;
        self.undo(Undo::HealPaths)?;
        for osd in 1..=self.fleet.shape().osds {
            self.insist(&["osd", "reweight", &osd.to_string(), "1"])?;
        }
        self.rebuild_damaged()
    }

    /// An administrator who tries again while the metadata store starts.
    fn insist(&self, arguments: &[&str]) -> Result<Value> {
        for _ in 0..TRIES {
            if let Ok(answer) = self.fleet.admin(arguments) {
                return Ok(answer);
            }
            std::thread::sleep(SHORT);
        }
        self.fleet.admin(arguments)
    }

    /// What an administrator does with an OSD that lost metadata with a page of its log: others become whole without it,
    /// and it begins anew.
    fn rebuild_damaged(&mut self) -> Result<()> {
        if !self.bands.iter().any(|band| DAMAGE.contains(&&*band.kind)) {
            return Ok(());
        }
        std::thread::sleep(SHORT);
        let rows = self.insist(&["osd", "list"])?;
        let rows = rows.as_array().context("OSDs are a list")?;
        let is_damaged = |osd: u32| rows.iter().any(|row| row["id"] == osd && row["is_damaged"] == true);
        for osd in 1..=self.fleet.shape().osds {
            let name = format!("osd-{osd}");
            // Without its superblocks it does not even start.
            if is_damaged(osd) || self.fleet.pid(&name).is_none() {
                self.insist(&["osd", "reweight", &osd.to_string(), "0"])?;
                self.fleet.wait_clean(REBUILD_LIMIT)?;
                self.fleet.kill(&name);
                self.platters.replace(self.fleet, osd)?;
                self.fleet.run(&name)?;
                self.insist(&["osd", "reweight", &osd.to_string(), "1"])?;
                self.note("rebuild", format!("{name} lost metadata and gets a new disk"), Duration::ZERO, Undo::Behave);
            }
        }
        Ok(())
    }

    fn undo(&mut self, undo: Undo) -> Result<()> {
        match undo {
            Undo::Run(name) => self.fleet.run(&name)?,
            Undo::Continue(name) => {
                // One that died meanwhile needs nothing.
                self.fleet.stop(&name, false);
            }
            Undo::HealPaths => match &self.network {
                Network::Loopback => {}
                Network::Relayed(relays) => relays.heal(),
                Network::Hosts(hosts) => hosts.heal()?,
            },
            Undo::Behave => {
                self.platters.behave(self.fleet)?;
                // Whoever met an error that it could not live with.
                self.fleet.dead().iter().try_for_each(|name| self.fleet.run(name))?;
            }
            Undo::Clocks => self.change_a_clock()?,
        }
        Ok(())
    }

    fn change_a_clock(&mut self) -> Result<()> {
        let names = self.fleet.names("");
        let (name, after) = (self.pick(&names), self.rng.between(CLOCK_MS[0], CLOCK_MS[1]));
        let ppm = i64::try_from(self.rng.below(2 * CLOCK_PPM + 1))? - i64::try_from(CLOCK_PPM)?;
        self.fleet.misbehave(&name, |faults| faults.clock_ppm = ppm)?;
        self.account.note(CLOCK, Turn::Came);
        let what = format!("the clock of {name} runs wrongly, {ppm} in a million");
        self.note(CLOCK, what, Duration::from_millis(after), Undo::Clocks);
        Ok(())
    }

    /// Lets a fault happen, if it can; whether it did is in the account. Whatever a failed one began, the end of all ends. One
    /// that was drawn may have nothing to happen to just now; one that is planned has failed then.
    pub fn inject(&mut self, kind: FaultKind, is_planned: bool) -> bool {
        let turn = match self.perform(kind) {
            Ok(Turn::NotNow(why)) if is_planned => Turn::Failed(why),
            Ok(turn) => turn,
            Err(error) => Turn::Failed(format!("{error:#}")),
        };
        if let Turn::NotNow(why) | Turn::Failed(why) = &turn {
            eprintln!("  {} did NOT happen: {why}", kind.name());
        }
        self.account.note(kind.name(), turn)
    }

    fn perform(&mut self, kind: FaultKind) -> Result<Turn> {
        match kind {
            FaultKind::Crash => {
                let (name, after) = (self.daemon(), self.length());
                if !self.fleet.kill(&name) {
                    return Ok(Turn::NotNow(format!("{name} did not run")));
                }
                self.note(kind.name(), format!("kill -9 {name}"), after, Undo::Run(name));
                Ok(Turn::Came)
            }
            FaultKind::Pause => {
                let (name, after) = (self.daemon(), self.length());
                Ok(self.stop(kind, name, after))
            }
            FaultKind::MetaOutage => {
                let after = self.length();
                Ok(self.stop(kind, "mon".into(), after))
            }
            FaultKind::Reweight => Ok(self.reweight()),
            _ if Under::Layer.kinds().contains(&kind) => self.on_disks(kind),
            _ => self.on_paths(kind),
        }
    }

    fn on_disks(&mut self, kind: FaultKind) -> Result<Turn> {
        if self.platters.under() == Under::Files {
            return Ok(Turn::NotNow("OSDs live on plain files".into()));
        }
        let (number, after) = (self.rng.between(1, self.fleet.shape().osds.into()), self.length());
        let osd = u32::try_from(number)?;
        let what = match kind {
            FaultKind::HostPower => return self.cut_power(kind, &[osd], after),
            FaultKind::TotalPower => {
                let all: Vec<u32> = (1..=self.fleet.shape().osds).collect();
                return self.cut_power(kind, &all, after.min(SHORT));
            }
            FaultKind::Wipe => return self.replace(osd, after),
            FaultKind::DiskStall => {
                self.platters.stall(self.fleet, osd, after)?;
                format!("the disk of osd-{osd} answers nothing")
            }
            FaultKind::SlowDisk => {
                self.platters.slow_down(self.fleet, osd)?;
                format!("the disk of osd-{osd} is slow")
            }
            FaultKind::DiskError => {
                let ppm = self.rng.between(5_000, 50_000);
                let faults = DiskFaults { write_error_ppm: ppm, flush_error_ppm: ppm / 4, ..DiskFaults::default() };
                self.platters.set_faults(self.fleet, osd, faults)?;
                format!("writes to the disk of osd-{osd} fail, {ppm} in a million")
            }
            _ => match self.damage(kind)? {
                Ok(what) => what,
                Err(why) => return Ok(Turn::NotNow(why)),
            },
        };
        self.note(kind.name(), what, after, Undo::Behave);
        Ok(Turn::Came)
    }

    fn cut_power(&mut self, kind: FaultKind, osds: &[u32], after: Duration) -> Result<Turn> {
        let what = self.platters.cut(self.fleet, osds, &mut self.rng)?;
        for osd in osds {
            self.due.push((Instant::now() + after, Undo::Run(format!("osd-{osd}"))));
        }
        self.note(kind.name(), what, after, Undo::Behave);
        Ok(Turn::Came)
    }

    /// One disk only in a run, and only where two other members may be lost. In words, what was done, or why nothing.
    fn damage(&mut self, kind: FaultKind) -> Result<Result<String, String>> {
        if members(&self.fleet.shape().pool) < 3 {
            return Ok(Err("a pool of less than three members does not survive it".into()));
        }
        let (osd, ppm) = (1, self.rng.between(3_000, 30_000));
        let faults = match kind {
            FaultKind::ReadError => DiskFaults { read_error_ppm: ppm, ..DiskFaults::default() },
            FaultKind::Astray => self.astray(osd, ppm),
            _ => return self.platters.spoil(self.fleet, osd, kind == FaultKind::BitRot),
        };
        self.platters.set_faults(self.fleet, osd, faults)?;
        let how = if kind == FaultKind::Astray { "writes go astray" } else { "reads fail" };
        Ok(Ok(format!("{how} on the disk of osd-{osd}, {ppm} in a million")))
    }

    /// Where the log is, that would be a damaged store.
    fn astray(&self, osd: u32, ppm: u64) -> DiskFaults {
        let from_byte = self.platters.first_data_byte(osd).unwrap_or(0);
        DiskFaults { lost_write_ppm: ppm / 2, misdirected_write_ppm: ppm / 2, from_byte, ..DiskFaults::default() }
    }

    /// Only while every group is whole: no replacement takes the last copy of anything.
    fn replace(&mut self, osd: u32, after: Duration) -> Result<Turn> {
        // Together with damage on the first OSD's disk, only that one is replaced.
        let damage = self.bands.iter().any(|band| DAMAGE.contains(&&*band.kind));
        let osd = if damage { 1 } else { osd };
        let all_run = (1..=self.fleet.shape().osds).all(|osd| self.fleet.pid(&format!("osd-{osd}")).is_some());
        if !all_run || self.fleet.wait_clean(Duration::ZERO).is_err() {
            return Ok(Turn::NotNow("a disk is replaced only while every group is whole".into()));
        }
        let name = format!("osd-{osd}");
        self.fleet.kill(&name);
        self.platters.replace(self.fleet, osd)?;
        self.note(FaultKind::Wipe.name(), format!("{name} gets a new disk"), after, Undo::Run(name));
        Ok(Turn::Came)
    }

    fn stop(&mut self, kind: FaultKind, name: String, after: Duration) -> Turn {
        if !self.fleet.stop(&name, true) {
            return Turn::NotNow(format!("{name} did not run, or was not reached"));
        }
        self.note(kind.name(), format!("{name} is stopped"), after, Undo::Continue(name));
        Turn::Came
    }

    fn on_paths(&mut self, kind: FaultKind) -> Result<Turn> {
        let relays = match self.network.clone() {
            Network::Loopback => return Ok(Turn::NotNow("daemons are connected by loopback".into())),
            Network::Relayed(relays) => relays,
            Network::Hosts(hosts) => return self.on_hosts(kind, hosts.as_ref()),
        };
        let (name, after) = (self.daemon(), self.length());
        let what = match kind {
            FaultKind::Partition => self.partition(&relays),
            FaultKind::OneWay => {
                let other = self.other_than(&name);
                relays.cut_one_way(&name, &other);
                format!("{name} does not reach {other}")
            }
            FaultKind::Reset => match self.hit_a_connection(&relays, &name) {
                Some(what) => what,
                None => return Ok(Turn::NotNow("there was no connection".into())),
            },
            FaultKind::MetaCut | FaultKind::LeaseExpiry => {
                let osd = self.osd();
                relays.partition(std::slice::from_ref(&osd), &["mon".into()]);
                format!("{osd} does not reach the metadata store")
            }
            FaultKind::MetaUnknown => {
                relays.reset_in_messages("mon", 30_000);
                "connections to the metadata store end in their midst".into()
            }
            FaultKind::WatchLost => {
                relays.reset_all("mon");
                "all connections to the metadata store are reset".into()
            }
            _ => return Ok(impossible()),
        };
        self.note(kind.name(), what, after, Undo::HealPaths);
        Ok(Turn::Came)
    }

    /// The same cuts, by the kernels of hosts.
    fn on_hosts(&mut self, kind: FaultKind, hosts: &dyn Homes) -> Result<Turn> {
        let (name, after) = (self.daemon(), self.length());
        let what = match kind {
            FaultKind::Partition => {
                let names = self.fleet.names("").into_iter().filter(|name| hosts.can_be_cut(name)).collect();
                let [one, other] = self.sides(names);
                let apart = |name: &String| one.iter().any(|far| are_apart(hosts, name, far));
                if !other.iter().any(apart) {
                    return Ok(Turn::NotNow("both sides live on one host".into()));
                }
                hosts.partition(&one, &other)?;
                format!("{} do not reach the others", other.join(", "))
            }
            FaultKind::OneWay => {
                let Some(other) = self.far_from(hosts, &name, "") else { return Ok(one_host(&name)) };
                hosts.cut_one_way(&name, &other)?;
                format!("{name} does not reach {other}")
            }
            FaultKind::MetaCut | FaultKind::LeaseExpiry => {
                let Some(osd) = self.far_from(hosts, "mon", "osd") else { return Ok(one_host("mon")) };
                hosts.partition(std::slice::from_ref(&osd), &["mon".into()])?;
                format!("{osd} does not reach the metadata store")
            }
            _ => return Ok(impossible()),
        };
        self.note(kind.name(), what, after, Undo::HealPaths);
        Ok(Turn::Came)
    }

    /// One that can be cut off from another, which is on another host.
    fn far_from(&mut self, hosts: &dyn Homes, name: &str, prefix: &str) -> Option<String> {
        let names = self.fleet.names(prefix).into_iter();
        let far: Vec<String> = names.filter(|other| hosts.can_be_cut(other) && are_apart(hosts, name, other)).collect();
        if far.is_empty() { None } else { Some(self.pick(&far)) }
    }

    /// Two sides, none of them empty.
    fn sides(&mut self, names: Vec<String>) -> [Vec<String>; 2] {
        let count = names.len().max(1) as u64;
        let lonely = self.rng.below(count);
        let mut sides = [Vec::new(), Vec::new()];
        for (number, name) in (0..).zip(names) {
            let apart = self.rng.chance(1, 3) && number != (lonely + 1) % count || number == lonely;
            sides[usize::from(apart)].push(name);
        }
        sides
    }

    fn partition(&mut self, relays: &Relays) -> String {
        let [one, other] = self.sides(self.fleet.names(""));
        relays.partition(&one, &other);
        format!("{} do not reach the others", other.join(", "))
    }

    /// Ends one, clogs one, damages or slows all of a daemon.
    fn hit_a_connection(&mut self, relays: &Relays, name: &str) -> Option<String> {
        let what = match self.rng.below(5) {
            0 | 1 => {
                let whose = relays.hit_connection(&mut self.rng, false)?;
                format!("a connection is reset: {whose}")
            }
            2 => {
                let whose = relays.hit_connection(&mut self.rng, true)?;
                format!("a connection carries nothing any more: {whose}")
            }
            3 => {
                // The metadata store's protocol has no checksums of its own: it relies on the network's.
                let osd = self.osd();
                relays.corrupt(&osd, 20_000);
                format!("bits flip on the way from and to {osd}")
            }
            _ => {
                relays.delay(name, SLOW);
                format!("{name} is far away")
            }
        };
        Some(what)
    }

    fn reweight(&mut self) -> Turn {
        let osd = self.rng.between(1, u64::from(self.fleet.shape().osds)).to_string();
        let share = ["0", "0.3", "1", "1"][usize::try_from(self.rng.below(4)).expect("below 4")];
        if let Err(error) = self.fleet.admin(&["osd", "reweight", &osd, share]) {
            let reason = error.to_string().lines().last().unwrap_or_default().trim().to_string();
            return Turn::NotNow(format!("the metadata store may be away: {reason}"));
        }
        let now = Instant::now();
        self.bands.push(Band {
            kind: "reweight".into(),
            what: format!("osd-{osd} gets weight {share}"),
            from: now,
            to: now,
        });
        Turn::Came
    }

    fn note(&mut self, kind: &str, what: String, after: Duration, undo: Undo) {
        let from = Instant::now();
        eprintln!("  {kind}: {what}, for {:.1} s", after.as_secs_f64());
        self.due.push((from + after, undo));
        self.bands.push(Band { kind: kind.into(), what, from, to: from + after });
    }

    /// Mostly short, sometimes longer than any lease.
    fn length(&mut self) -> Duration {
        Duration::from_millis(if self.rng.chance(1, 2) {
            self.rng.between(50, 1000)
        } else {
            self.rng.between(1000, 8000)
        })
    }

    fn pick(&mut self, names: &[String]) -> String {
        names[usize::try_from(self.rng.below(names.len() as u64)).expect("few")].clone()
    }

    fn osd(&mut self) -> String {
        let names = self.fleet.names("osd");
        self.pick(&names)
    }

    fn daemon(&mut self) -> String {
        let mut names = self.fleet.names("osd");
        names.extend(self.fleet.names("mon"));
        self.pick(&names)
    }

    fn other_than(&mut self, name: &str) -> String {
        let names: Vec<String> = self.fleet.names("").into_iter().filter(|other| other != name).collect();
        self.pick(&names)
    }
}

fn impossible() -> Turn {
    Turn::NotNow("it cannot be done to real processes connected like this".into())
}

fn one_host(name: &str) -> Turn {
    Turn::NotNow(format!("nobody lives on another host than {name}"))
}

/// Whether daemons live on different hosts.
fn are_apart(hosts: &dyn Homes, one: &str, other: &str) -> bool {
    match (hosts.address(one), hosts.address(other)) {
        (Ok(one), Ok(other)) => one != other,
        _ => false,
    }
}

/// Some tens of milliseconds, with a long tail.
const SLOW: LinkModel = LinkModel { base: Span::millis(4), tail: Span::millis(400), tail_ppm: 20_000, ..QUICK };
