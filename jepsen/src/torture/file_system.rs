//! A client's file system on an image, cut again and again: what was synced is there, and the file system is in order.
//!
//! ```text
//!  files, sqlite ─▶ ext4 or xfs ─▶ loop ─▶ nbdfuse ─▶ nbd-1 ─▶ OSDs on devices of ours
//! ```
//! A file counts as acknowledged when `fsync` of it and of its directory returned; a row of the database when its
//! transaction did. A cut takes OSDs alone (the file system goes on) or everything, the client's kernel with its cache
//! included: then the file system is mounted again, and its journal has to make sense of what it finds. One that cannot be
//! mounted or read any more is a loss like any other.

use super::cluster::accuse;
use super::progress::Progress;
use super::proof::{Proof, now_ms, stamp_ms};
use super::{Judgement, Victims};
use crate::command::run;
use crate::devices::{Devices, Lies};
use crate::disks::Mount;
use crate::fleet::{Fleet, Network, Shape};
use crate::scratch::Scratch;
use anyhow::{Context, Result, bail, ensure};
use ashlar_core::rng::Rng;
use ashlar_faultinject::disk::Outcome;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const EXPORT: &str = "disk";
/// The smallest that xfs takes is 300 MiB.
const IMAGE_MIB: u64 = 320;
const DEVICE_BYTES: u64 = 1 << 30;
const LIMIT: Duration = Duration::from_secs(60);
const CLEAN_LIMIT: Duration = Duration::from_secs(120);
/// Files that are rewritten, by replacing them as careful programs do.
const FILES: u64 = 24;

/// Which file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// ext4.
    Ext4,
    /// xfs.
    Xfs,
}

/// What to torture.
#[derive(Clone, Debug)]
pub struct Rig {
    /// The cluster's pool.
    pub pool: String,
    /// What it promises before a flush.
    pub immediate_commit: &'static str,
    /// The file system.
    pub kind: Kind,
    /// Who loses the power; mixed: half of the cuts are of everything, for only then a journal is replayed.
    pub victims: Victims,
    /// The device of this OSD lies about flushes.
    pub liar: Option<u32>,
    /// Where the proof of a loss is put.
    pub out: Option<PathBuf>,
}

/// What a file may have in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Expected {
    /// The newest content that is safe; 0: none.
    safe: u64,
    /// When that was acknowledged.
    since_ms: u64,
    /// One that may be there, too.
    maybe: Option<u64>,
}

/// What the client was told.
#[derive(Clone, Debug, Default)]
struct Told {
    /// By file.
    files: BTreeMap<u64, Expected>,
    /// Rows that are safe.
    rows: u64,
    /// When the newest of them was acknowledged.
    rows_since_ms: u64,
    /// Files and rows that were acknowledged.
    acknowledged: u64,
}

/// Whether this machine can do it.
pub fn is_possible(kind: Kind) -> bool {
    let program = if kind == Kind::Ext4 { "mkfs.ext4" } else { "mkfs.xfs" };
    let installed = |name: &str| ["/usr/sbin", "/usr/bin"].iter().any(|folder| Path::new(folder).join(name).exists());
    Devices::are_possible() && [program, "losetup", "sqlite3"].into_iter().all(installed)
}

impl Rig {
    /// Cuts until there were so many, or something is missing.
    pub fn run(&self, cycles: u64, progress: &mut Progress) -> Result<Judgement> {
        let (seed, scratch) = (progress.session_seed(), Scratch::new("files")?);
        let mut shape = Shape::of(&self.pool, self.immediate_commit);
        (shape.images, shape.servers) = (vec![(EXPORT, IMAGE_MIB)], 1);
        if let Some(osd) = self.liar.filter(|osd| !(1..=shape.osds).contains(osd)) {
            bail!("there is no osd.{osd} that could lie: there are 1 to {}", shape.osds);
        }
        let devices = Devices::new(&scratch, shape.osds, DEVICE_BYTES, shape.log_bytes(), seed)?;
        let fleet = Fleet::start(&scratch, shape, &devices.paths(), Network::Loopback)?;
        let mut session = Session {
            rig: self,
            scratch: &scratch,
            fleet,
            devices,
            rng: Rng::new(seed),
            told: Told::default(),
            lost: 0,
            top: None,
            proof: Proof::new(self.out.clone()),
        };
        session.attach(true)?;
        if let Some(osd) = self.liar {
            session.devices.set_lies(osd, Lies { flush: true, ..Lies::default() });
        }
        let outcome = session.cycles(cycles, progress).and_then(|judgement| {
            session.keep(seed, &judgement)?;
            Ok(judgement)
        });
        session.detach();
        let judgement = outcome.with_context(|| format!("session seed {seed}\n{}", session.fleet.logs()))?;
        progress.acknowledged += session.told.acknowledged;
        progress.sectors_lost += session.lost;
        progress.sessions += 1;
        progress.save()?;
        Ok(judgement)
    }
}

/// The client's side: what is between the image and the files.
struct Top {
    mount: Mount,
    device: String,
    folder: PathBuf,
}

struct Session<'a> {
    rig: &'a Rig,
    scratch: &'a Scratch,
    fleet: Fleet,
    devices: Devices,
    rng: Rng,
    told: Told,
    top: Option<Top>,
    lost: u64,
    proof: Proof,
}

impl Session<'_> {
    fn cycles(&mut self, cycles: u64, progress: &mut Progress) -> Result<Judgement> {
        while progress.cycles < cycles {
            self.devices.feed_canaries()?;
            let victims = self.draw_victims();
            let outcome = self.work_and_cut(victims);
            progress.cycles += 1;
            let judgement = match outcome {
                Ok(()) => self.judge(victims == Victims::Everything)?,
                Err(error) => accuse(&self.devices, error)?,
            };
            if judgement != Judgement::Clean {
                return Ok(judgement);
            }
            eprintln!(
                "{} cuts, {} files and rows acknowledged, nothing missing",
                progress.cycles, self.told.acknowledged
            );
        }
        Ok(Judgement::Clean)
    }

    fn draw_victims(&mut self) -> Victims {
        match self.rig.victims {
            Victims::Mixed if self.rng.chance(1, 2) => Victims::Everything,
            chosen => chosen.draw(&mut self.rng),
        }
    }

    /// Canaries first: what a liar has lost may never be answered, and nobody waits for it.
    fn judge(&mut self, everything: bool) -> Result<Judgement> {
        let canaries = self.devices.dead_canaries()?;
        let missing = if canaries.is_empty() { self.missing(everything) } else { Vec::new() };
        Ok(Judgement::of(missing, canaries))
    }

    /// What is missing, of a file system that is mounted again first if its client was cut, too.
    fn missing(&mut self, everything: bool) -> Vec<String> {
        let mounted = if everything { self.attach(false) } else { Ok(()) };
        match mounted.and_then(|()| self.look(everything)) {
            Ok(missing) => missing,
            Err(error) => vec![format!("the file system, or the database on it, cannot be used: {error:#}")],
        }
    }

    /// What was acknowledged, and what was found of it, if something is missing.
    fn keep(&self, seed: u64, judgement: &Judgement) -> Result<()> {
        let told = &self.told;
        let mut acknowledged = format!("{} rows, the newest at {}\n", told.rows, stamp_ms(told.rows_since_ms));
        let mut found = Vec::new();
        for (file, expected) in &told.files {
            let Expected { safe, since_ms, maybe } = expected;
            let at = stamp_ms(*since_ms);
            let also = maybe.map_or_else(String::new, |maybe| format!("; {maybe:016x} was under way"));
            acknowledged += &format!("file-{file}: {safe:016x}, synced at {at}{also}\n");
        }
        let is_readable = !matches!(judgement, Judgement::DeviceLies(_));
        if let Some(top) = self.top.as_ref().filter(|_| is_readable) {
            let names = told.files.keys().map(|file| format!("file-{file}"));
            let names = names.chain(["log.db", "log.db-wal"].map(String::from));
            // What cannot be read is not there to be kept.
            found.extend(
                names.filter_map(|name| Some((format!("found-{name}"), fs::read(top.folder.join(&name)).ok()?))),
            );
        }
        found.push(("acknowledged.txt".into(), acknowledged.into_bytes()));
        let head = format!("session seed {seed}; {} files and rows acknowledged", told.acknowledged);
        self.proof.keep(&head, judgement, &found)
    }

    /// Puts the file system on its image, a new one if asked for.
    fn attach(&mut self, new: bool) -> Result<()> {
        let (below, folder) = (self.scratch.join("client"), self.scratch.join("files"));
        fs::create_dir_all(&folder)?;
        let mount = Mount::named(&self.fleet.socket(1), EXPORT, &below)?;
        let disk = below.join("disk").display().to_string();
        let device = run("/usr/sbin/losetup", &["--show", "-f", "--direct-io=on", &disk], LIMIT)?.trim().to_string();
        if new {
            let (program, arguments): (&str, &[&str]) = match self.rig.kind {
                Kind::Ext4 => ("/usr/sbin/mkfs.ext4", &["-q", "-F"]),
                Kind::Xfs => ("/usr/sbin/mkfs.xfs", &["-q", "-f"]),
            };
            run(program, &[arguments, &[device.as_str()]].concat(), LIMIT)?;
        }
        self.top = Some(Top { mount, device: device.clone(), folder: folder.clone() });
        let target = folder.display().to_string();
        run("mount", &[&device, &target], LIMIT)?;
        if new {
            sqlite(&folder, "PRAGMA journal_mode=WAL; CREATE TABLE log(n INTEGER PRIMARY KEY, text TEXT);")?;
            run("sync", &["-f", &target], LIMIT)?;
        }
        Ok(())
    }

    /// Takes the client away, as it is.
    fn detach(&mut self) {
        let Some(Top { mount, device, folder }) = self.top.take() else { return };
        drop(mount);
        // What has no device any more can only be thrown away.
        let _ = run("umount", &["-l", &folder.display().to_string()], LIMIT);
        let _ = run("/usr/sbin/losetup", &["-d", &device], LIMIT);
    }

    fn work_and_cut(&mut self, victims: Victims) -> Result<()> {
        let (stop, length) = (AtomicBool::new(false), Duration::from_millis(self.rng.between(500, 2500)));
        let folder = self.top.as_ref().context("a file system")?.folder.clone();
        let (mut told, mut rng) = (self.told.clone(), self.rng.fork());
        let told = std::thread::scope(|scope| {
            let client = scope.spawn(|| {
                work(&folder, &mut told, &stop, &mut rng);
                told
            });
            std::thread::sleep(length);
            let outcome = self.cut(victims, &stop);
            stop.store(true, Ordering::Relaxed);
            outcome.map(|()| client.join().expect("the client does not panic"))
        })?;
        self.told = told;
        Ok(())
    }

    fn cut(&mut self, victims: Victims, stop: &AtomicBool) -> Result<()> {
        let osds = victims.of(self.fleet.shape().osds, &mut self.rng);
        let outcome = Outcome::draw(&mut self.rng);
        let names: Vec<String> = osds.iter().map(|osd| format!("osd-{osd}")).collect();
        let everything = victims == Victims::Everything;
        let clients = if everything { self.fleet.names("nbd") } else { Vec::new() };
        stop.store(everything, Ordering::Relaxed);
        self.devices.fail(&osds);
        self.fleet.kill_all(names.iter().chain(&clients).map(String::as_str));
        let lost = self.devices.power_off(&osds, outcome);
        self.lost += lost;
        self.proof.event(&format!("power cut of {victims:?} {osds:?}: {outcome:?}, {lost} sectors lost"));
        if everything {
            self.detach();
        }
        self.devices.power_on()?;
        names.iter().chain(&clients).try_for_each(|name| self.fleet.run(name))?;
        self.fleet.wait_clean(CLEAN_LIMIT)?;
        let begin = Instant::now();
        while !self.fleet.socket(1).exists() {
            ensure!(begin.elapsed() < LIMIT, "NBD is not served");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// What is missing; after a cut of everything the file system itself is checked, too.
    fn look(&mut self, check: bool) -> Result<Vec<String>> {
        let folder = self.top.as_ref().context("a file system")?.folder.clone();
        let mut missing = Vec::new();
        for (file, expected) in &mut self.told.files {
            missing.extend(expected.settle(read(&path_of(&folder, *file))).map(|what| format!("file-{file} {what}")));
        }
        let integrity = sqlite(&folder, "PRAGMA integrity_check;")?;
        let rows: u64 = sqlite(&folder, "SELECT coalesce(max(n), 0) FROM log;")?.trim().parse()?;
        let count: u64 = sqlite(&folder, "SELECT count(*) FROM log;")?.trim().parse()?;
        if integrity.trim() != "ok" || rows < self.told.rows || count != rows {
            missing.push(format!(
                "the database: {integrity}; {count} rows up to {rows}, {} were committed",
                self.told.rows
            ));
        }
        self.told.rows = rows;
        if check {
            missing.extend(self.check()?);
        }
        Ok(missing)
    }

    /// The file system's own checker, between two mounts.
    fn check(&mut self) -> Result<Option<String>> {
        let top = self.top.as_ref().context("a file system")?;
        let (device, folder) = (top.device.clone(), top.folder.display().to_string());
        run("umount", &[&folder], LIMIT)?;
        let outcome = match self.rig.kind {
            Kind::Ext4 => run("/usr/sbin/e2fsck", &["-fn", &device], LIMIT),
            Kind::Xfs => run("/usr/sbin/xfs_repair", &["-n", &device], LIMIT),
        };
        run("mount", &[&device, &folder], LIMIT)?;
        Ok(outcome.err().map(|error| format!("the file system is not in order: {error}")))
    }
}

impl Expected {
    /// What was found stays; in words, what is wrong with it.
    fn settle(&mut self, found: Option<u64>) -> Option<String> {
        if let Some(content) = found.filter(|content| *content == self.safe || Some(*content) == self.maybe) {
            (self.safe, self.maybe) = (content, None);
            return None;
        }
        let holds = match found {
            None => "holds a mixture".to_string(),
            Some(0) => "is not there".to_string(),
            Some(content) => format!("holds {content:016x}"),
        };
        Some(format!("{holds}; it was synced with {:016x} at {}", self.safe, stamp_ms(self.since_ms)))
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.detach();
    }
}

/// Replaces files and commits rows until it is told to stop or cannot.
fn work(folder: &Path, told: &mut Told, stop: &AtomicBool, rng: &mut Rng) {
    while !stop.load(Ordering::Relaxed) {
        let outcome = if rng.chance(1, 4) { add_row(folder, told) } else { replace_file(folder, told, rng) };
        if outcome.is_err() {
            return;
        }
    }
}

/// A new file beside the old one, synced, in its place, and the directory synced.
fn replace_file(folder: &Path, told: &mut Told, rng: &mut Rng) -> Result<()> {
    let (file, content) = (rng.below(FILES), rng.next_u64() | 1);
    let len = usize::try_from(rng.between(1, 40_000))?;
    let entry = told.files.entry(file).or_default();
    entry.maybe = Some(content);
    let (path, next) = (path_of(folder, file), folder.join(format!("next-{file}")));
    let mut new = File::create(&next)?;
    new.write_all(&content.to_le_bytes().repeat(len.div_ceil(8)))?;
    new.sync_all()?;
    fs::rename(&next, &path)?;
    File::open(folder)?.sync_all()?;
    *entry = Expected { safe: content, since_ms: now_ms(), maybe: None };
    told.acknowledged += 1;
    Ok(())
}

fn add_row(folder: &Path, told: &mut Told) -> Result<()> {
    sqlite(folder, &format!("PRAGMA synchronous=FULL; INSERT INTO log(text) VALUES('{}');", "x".repeat(100)))?;
    told.rows += 1;
    told.rows_since_ms = now_ms();
    told.acknowledged += 1;
    Ok(())
}

fn sqlite(folder: &Path, commands: &str) -> Result<String> {
    let database = folder.join("log.db").display().to_string();
    run("sqlite3", &[&database, commands], LIMIT)
}

fn path_of(folder: &Path, file: u64) -> PathBuf {
    folder.join(format!("file-{file}"))
}

/// What a file has in it: the same word all over; 0: it is not there.
fn read(path: &Path) -> Option<u64> {
    let Ok(bytes) = fs::read(path) else { return Some(0) };
    let word = bytes.first_chunk::<8>()?;
    let whole = bytes.len() % 8 == 0 && bytes.chunks_exact(8).all(|chunk| chunk == word);
    whole.then(|| u64::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_what_was_synced_or_what_was_under_way_and_then_stays_so() {
        let expected = Expected { safe: 5, since_ms: 1000, maybe: Some(7) };
        for found in [5, 7] {
            let mut file = expected;
            assert_eq!(file.settle(Some(found)), None);
            assert!(file.settle(Some(12 - found)).is_some(), "it was something else already");
        }
        for (found, says) in [(None, "a mixture"), (Some(0), "is not there"), (Some(6), "0006; it was synced with")] {
            let what = expected.clone().settle(found).expect("it is lost");
            assert!(what.contains(says) && what.contains("1970-01-01T00:00:01.000Z"), "{what}");
        }
        assert_eq!(Expected::default().settle(Some(0)), None, "it was never synced");
    }
}
