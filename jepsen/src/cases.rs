//! What is tried, each in a short and a long form.

mod fence;
mod map;
mod placement;
mod power;
mod rot;
mod settings;

use crate::cluster::{Cluster, free_port, is_alive};
use crate::command::run;
use crate::command_line::usual_mix;
use crate::nbd::Nbd;
use crate::platters::Under;
use crate::registers::{BLOCK_BYTES, Registers};
use crate::scratch::Scratch;
use crate::soak::{self, Plan};
use crate::{nemesis, tools};
use anyhow::{Context, Result, bail, ensure};
use ashlar_core::rng::Rng;
use std::time::{Duration, Instant};

/// Pools that cases run on; the first unless another is named.
pub const POOLS: [&str; 5] = ["replicated:3", "replicated:2", "ec:2+1", "ec:4+2", "xor:2+1"];

/// How much of everything, and on what.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Redundancy of the pool.
    pub pool: &'static str,
    /// Bytes of the images that are copied, in MiB.
    pub image_mib: u64,
    /// How long fio runs undisturbed.
    pub fio_s: u64,
    /// Kills of OSDs.
    pub kills: u32,
    /// Time between them.
    pub kill_period_s: u64,
    /// How long a primary is stopped.
    pub pause_s: u64,
    /// Power cycles.
    pub cycles: u32,
    /// How long everything breaks, on each of four pools.
    pub mix_s: u64,
}

impl Scale {
    /// For every change: a minute or two in all.
    pub const SHORT: Scale =
        Scale { pool: POOLS[0], image_mib: 96, fio_s: 4, kills: 2, kill_period_s: 5, pause_s: 3, cycles: 2, mix_s: 45 };
    /// For a torture run.
    pub const LONG: Scale = Scale {
        pool: POOLS[0],
        image_mib: 1024,
        fio_s: 60,
        kills: 6,
        kill_period_s: 10,
        pause_s: 8,
        cycles: 8,
        mix_s: 300,
    };
}

/// A case: its name, what it shows, how to run it.
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// What it shows.
    pub shows: &'static str,
    /// Runs it; the text says what was seen.
    pub run: fn(Scale) -> Result<String>,
}

/// Said by cases of what they could not do on this machine.
pub const SKIPPED: &str = "SKIPPED";

/// All cases.
pub const ALL: &[Case] = &[
    Case { name: "start", shows: "an image is served within seconds; a clean stop leaves nothing behind", run: start },
    Case { name: "refusals", shows: "a port in use and a directory in use are refused with the reason", run: refusals },
    Case { name: "convert", shows: "qemu-img convert and compare, nbdcopy both ways, nbdinfo --map", run: convert },
    Case { name: "fio", shows: "random writes of 4 KiB at queue depth 32 read back as written", run: fio },
    Case { name: "kills", shows: "the same while OSDs are killed and come back", run: kills },
    Case { name: "pause", shows: "the same while a primary is stopped past its lease", run: pause },
    Case { name: "power", shows: "what was flushed survives kill -9 of everything", run: power },
    Case { name: "coded", shows: "kills and power cycles of an erasure-coded pool", run: coded },
    Case {
        name: "remove",
        shows: "an image removed while an OSD is down: nothing comes back with it, and its space is free",
        run: remove,
    },
    Case {
        name: "map",
        shows: "block status costs no reads; all images are listed; bad names are told",
        run: map::run,
    },
    Case {
        name: "blackout",
        shows: "what was acknowledged survives power cuts that empty the caches of all disks",
        run: power::blackout,
    },
    Case {
        name: "lazy",
        shows: "the same for pools that promise less, to which flushes and living clients hold them",
        run: power::lazy,
    },
    Case {
        name: "fence",
        shows: "whoever lost its lock or was fenced off writes nothing any more, however late it wakes up",
        run: fence::run,
    },
    Case { name: "rot", shows: "garbage on a disk is found by scrubs and reads, and repaired", run: rot::run },
    Case {
        name: "settings",
        shows: "each parameter of a pool and of the cluster changes under load, or is refused with the reason",
        run: settings::run,
    },
    Case {
        name: "placement",
        shows: "rules put groups where they say; nonsense is refused, or named while the last good state goes on",
        run: placement::run,
    },
    Case {
        name: "modify",
        shows: "copies are added and taken away while fio runs; what cannot change is refused with the reason",
        run: modify,
    },
    Case {
        name: "regroup",
        shows: "the number of groups goes up and down while fio runs and OSDs are killed",
        run: regroup,
    },
    Case {
        name: "mix",
        shows: "several clients share blocks, cells, a bank and names while everything breaks: their history is judged",
        run: mix,
    },
    Case {
        name: "orphans",
        shows: "a killed supervisor takes its children along, and the data are found again",
        run: orphans,
    },
];

/// Pools of the mix, and what they promise: two clusters at a time.
const MIXED: [[(&str, &str); 2]; 2] =
    [[("replicated:3", "all"), ("replicated:3", "none")], [("ec:2+1", "all"), ("ec:4+2", "all")]];

fn mix(scale: Scale) -> Result<String> {
    let mut seen = Vec::new();
    for pair in MIXED {
        let outcomes = std::thread::scope(|scope| {
            let runs = pair.map(|(pool, promise)| scope.spawn(move || mix_on(pool, promise, scale.mix_s)));
            runs.map(|run| run.join().expect("a run does not panic"))
        });
        for outcome in outcomes {
            seen.push(outcome?);
        }
    }
    Ok(seen.join("; "))
}

fn mix_on(pool: &str, immediate_commit: &'static str, seconds: u64) -> Result<String> {
    let plan = Plan::new(pool, immediate_commit, usual_mix(Under::Files), seconds);
    let told = soak::run(&plan, &Scratch::new("mix")?).with_context(|| format!("{pool} {immediate_commit}"))?;
    let words = format!("{pool}, immediate_commit {immediate_commit}, seed {}", plan.seed);
    ensure!(told.is_clean(), "{words}: {}", told.complaints().join("\n"));
    // So short a run does not always come to everything.
    Ok(format!("{words}: {}: {told}", told.verdict()))
}

/// Patience for programs that copy or check a whole image.
fn patience(scale: Scale) -> Duration {
    Duration::from_secs(60 + scale.image_mib)
}

fn start(_: Scale) -> Result<String> {
    let scratch = Scratch::new("start")?;
    let begin = Instant::now();
    let cluster = Cluster::start(&scratch, &["--size", "1G"])?;
    let took = cluster.took;
    let mut nbd = Nbd::connect(&cluster.socket(), "demo", Duration::from_secs(20))?;
    ensure!(nbd.size_bytes() == 1 << 30, "the image has {} bytes", nbd.size_bytes());
    nbd.write(0, &[7; BLOCK_BYTES])?;
    let first = begin.elapsed();
    nbd.flush()?;
    drop(nbd);
    let children = cluster.children()?;
    let status = cluster.stop()?;
    ensure!(status.success(), "a clean stop ends with {status}");
    let left: Vec<_> = children.iter().filter(|child| is_alive(child.pid)).collect();
    ensure!(left.is_empty(), "still there: {left:?}");
    let cluster = Cluster::start(&scratch, &[])?;
    let mut nbd = Nbd::connect(&cluster.socket(), "demo", Duration::from_secs(20))?;
    ensure!(nbd.read(0, BLOCK_BYTES)? == [7; BLOCK_BYTES], "the second start does not find the data");
    ensure!(nbd.read(BLOCK_BYTES as u64, BLOCK_BYTES)? == [0; BLOCK_BYTES], "what was never written is not zero");
    Ok(format!(
        "served after {:.1} s, first block written after {:.1} s, again after {:.1} s",
        took.as_secs_f64(),
        first.as_secs_f64(),
        cluster.took.as_secs_f64()
    ))
}

fn refusals(_: Scale) -> Result<String> {
    let scratch = Scratch::new("refusals")?;
    let cluster = Cluster::start(&scratch, &["--size", "1G"])?;
    let binary = crate::cluster::binary()?.display().to_string();
    let up = |dir: &str, port: &str, more: &[&str]| {
        let arguments = [&["up", "--dir", dir, "--port", port], more].concat();
        match run(&binary, &arguments, Duration::from_secs(30)) {
            Ok(_) => bail!("`ashlar {}` should have been refused", arguments.join(" ")),
            Err(error) => Ok(error.to_string()),
        }
    };
    let dir = scratch.join("cluster").display().to_string();
    let other = scratch.join("other").display().to_string();
    let port = free_port()?.to_string();
    let taken = cluster.nbd().rsplit(':').next().and_then(|rest| rest.split('/').next()).context("a port")?.to_string();
    let osd = |id: &str, data: &str| {
        let meta = cluster.running["meta"].as_str().context("`up` tells where the metadata store is")?;
        let arguments = ["osd", "run", "--id", id, "--data", data, "--meta", meta];
        match run(&binary, &arguments, Duration::from_secs(30)) {
            Ok(_) => bail!("`ashlar {}` should have been refused", arguments.join(" ")),
            Err(error) => Ok(error.to_string()),
        }
    };
    let victim = cluster.osds()?.into_iter().find(|osd| osd.name == "osd-1").context("osd-1 runs")?;
    crate::cluster::signal(victim.pid, nix::sys::signal::Signal::SIGKILL);
    let thesis = scratch.join("thesis.img").display().to_string();
    std::fs::write(&thesis, vec![7; 64 << 20])?;
    for (found, expected) in [
        (osd("2", &format!("{dir}/osd-1.img"))?, "check --id and --data"),
        (osd("9", &thesis)?, "--format would overwrite it"),
        (osd("2", &format!("{dir}/osd-2.img"))?, "in use"),
        (up(&dir, &port, &[])?, "runs already"),
        (up(&other, &taken, &[])?, "choose another port with --port"),
        (up(&other, &port, &["--osds", "2"])?, "use --osds 3 or more"),
        (up(&other, &port, &["--size", "lots"])?, "such as 10G"),
    ] {
        ensure!(found.contains(expected), "expected `{expected}` in: {found}");
    }
    Ok("each refused with its reason".into())
}

fn convert(scale: Scale) -> Result<String> {
    let scratch = Scratch::new("convert")?;
    let image = tools::file_system_image(&scratch, scale.image_mib)?;
    let cluster = Cluster::start(&scratch, &["--pool", scale.pool, "--size", &format!("{}M", scale.image_mib)])?;
    let (nbd, limit) = (cluster.nbd().to_string(), patience(scale));
    let start = Instant::now();
    run("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", &image, &nbd], limit)?;
    let took = start.elapsed().as_secs_f64();
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &image, &nbd], limit)?;
    let copy = scratch.join("copy.img").display().to_string();
    run("nbdcopy", &[&nbd, &copy], limit)?;
    run("cmp", &[&image, &copy], limit)?;
    tools::scramble(&copy, scale.image_mib)?;
    run("nbdcopy", &["--flush", &copy, &nbd], limit)?;
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &copy, &nbd], limit)?;
    let map = tools::map_shows_what_was_written(&cluster)?;
    Ok(format!("{} MiB converted in {took:.1} s, identical; {map}", scale.image_mib))
}

/// Afterwards the stores are opened again: their logs have been through cleaning, which a fresh store's have not.
fn fio(scale: Scale) -> Result<String> {
    let scratch = Scratch::new("fio")?;
    let cluster = Cluster::start(&scratch, &["--pool", scale.pool, "--size", "256M"])?;
    let outcome = tools::fio(cluster.nbd(), scale.fio_s).with_context(|| cluster.logs())?;
    cluster.stop()?;
    let cluster = Cluster::start(&scratch, &[])?;
    cluster.wait_clean(Duration::from_secs(60))?;
    Ok(format!("{outcome}; opened again, clean"))
}

fn kills(scale: Scale) -> Result<String> {
    let scratch = Scratch::new("kills")?;
    let cluster = Cluster::start(&scratch, &["--pool", scale.pool, "--size", "1G", "--restart=2"])?;
    let seconds = u64::from(scale.kills + 1) * scale.kill_period_s;
    let nbd = cluster.nbd().to_string();
    let worker = std::thread::spawn(move || tools::fio(&nbd, seconds));
    let mut rng = Rng::new(u64::from(std::process::id()));
    nemesis::kill_osds(&cluster, &mut rng, Duration::from_secs(scale.kill_period_s), scale.kills)?;
    let outcome = worker.join().expect("fio's thread does not panic").with_context(|| cluster.logs())?;
    cluster.wait_clean(Duration::from_secs(120))?;
    Ok(format!("{} kills: {outcome}; clean again", scale.kills))
}

fn pause(scale: Scale) -> Result<String> {
    let scratch = Scratch::new("pause")?;
    let cluster = Cluster::start(&scratch, &["--pool", scale.pool, "--size", "1G"])?;
    let nbd = cluster.nbd().to_string();
    let worker = std::thread::spawn(move || tools::fio(&nbd, scale.pause_s + 6));
    std::thread::sleep(Duration::from_secs(2));
    nemesis::pause_primary(&cluster, Duration::from_secs(scale.pause_s))?;
    let outcome = worker.join().expect("fio's thread does not panic").with_context(|| cluster.logs())?;
    cluster.wait_clean(Duration::from_secs(120))?;
    Ok(format!("stopped for {} s: {outcome}; clean again", scale.pause_s))
}

fn power(scale: Scale) -> Result<String> {
    let scratch = Scratch::new("power")?;
    let mut registers = Registers::default();
    let mut rng = Rng::new(u64::from(std::process::id()));
    for _ in 0..scale.cycles {
        let cluster = Cluster::start(&scratch, &["--pool", scale.pool, "--size", "1G"])?;
        check(&cluster, &mut registers).with_context(|| cluster.logs())?;
        let socket = cluster.socket();
        let writer = std::thread::spawn(move || write_until_the_end(&socket, registers, rng));
        std::thread::sleep(Duration::from_secs(3));
        cluster.kill_everything()?;
        (registers, rng) = writer.join().expect("the writer does not panic")?;
    }
    let cluster = Cluster::start(&scratch, &["--pool", scale.pool, "--size", "1G"])?;
    check(&cluster, &mut registers).with_context(|| cluster.logs())?;
    cluster.wait_clean(Duration::from_secs(120))?;
    check(&cluster, &mut registers).with_context(|| cluster.logs())?;
    ensure!(registers.durable() > 0, "no write was flushed before the power went");
    Ok(format!("{} power cycles, {} blocks that were flushed are all there", scale.cycles, registers.durable()))
}

/// Writes random blocks, with a flush now and then, until the server is gone.
fn write_until_the_end(socket: &std::path::Path, mut registers: Registers, mut rng: Rng) -> Result<(Registers, Rng)> {
    let mut nbd = Nbd::connect(socket, "demo", Duration::from_secs(30))?;
    let blocks = nbd.size_bytes() / BLOCK_BYTES as u64;
    loop {
        // Half of the writes go to few blocks, so that blocks are overwritten.
        let bound = if rng.chance(1, 2) { 64 } else { blocks };
        let block = rng.below(bound);
        let data = registers.issue(block);
        if nbd.write(block * BLOCK_BYTES as u64, &data).is_err() {
            return Ok((registers, rng));
        }
        if rng.chance(1, 8) {
            if nbd.flush().is_err() {
                return Ok((registers, rng));
            }
            registers.flushed();
        }
    }
}

fn check(cluster: &Cluster, registers: &mut Registers) -> Result<()> {
    let mut nbd = Nbd::connect(&cluster.socket(), "demo", Duration::from_secs(60))?;
    let blocks: Vec<u64> = registers.blocks().collect();
    for block in blocks {
        registers.check(block, &nbd.read(block * BLOCK_BYTES as u64, BLOCK_BYTES)?)?;
    }
    Ok(())
}

fn coded(scale: Scale) -> Result<String> {
    let scale = Scale { pool: "ec:2+1", ..scale };
    let (kills, power) = (kills(scale)?, power(scale)?);
    Ok(format!("{kills}; {power}"))
}

fn orphans(_: Scale) -> Result<String> {
    let scratch = Scratch::new("orphans")?;
    let cluster = Cluster::start(&scratch, &["--size", "1G"])?;
    let mut nbd = Nbd::connect(&cluster.socket(), "demo", Duration::from_secs(20))?;
    nbd.write(4096, &[9; BLOCK_BYTES])?;
    nbd.flush()?;
    let children = cluster.kill_supervisor()?;
    let start = Instant::now();
    while children.iter().any(|child| is_alive(child.pid)) {
        ensure!(start.elapsed() < Duration::from_secs(10), "children outlive their supervisor");
        std::thread::sleep(Duration::from_millis(20));
    }
    let gone = start.elapsed();
    let cluster = Cluster::start(&scratch, &[])?;
    let mut nbd = Nbd::connect(&cluster.socket(), "demo", Duration::from_secs(20))?;
    ensure!(nbd.read(4096, BLOCK_BYTES)? == [9; BLOCK_BYTES], "what was flushed is not there");
    Ok(format!("children gone after {:.1} s, data found again", gone.as_secs_f64()))
}

/// Free bytes, copies and tombstones of all OSDs, once what they publish does not change any more.
fn space(cluster: &Cluster) -> Result<(u64, u64, u64)> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut last = None;
    loop {
        let status = cluster.admin(&["status", "--quick"])?;
        let figure = |name: &str| status["space"][name].as_u64().with_context(|| format!("`status` has no {name}"));
        let now = (figure("free_bytes")?, figure("objects")?, figure("tombstones")?);
        if last == Some(now) {
            return Ok(now);
        }
        ensure!(Instant::now() < deadline, "the figures of OSDs keep changing: {last:?}, {now:?}");
        last = Some(now);
        // OSDs publish every 2 s while their figures change.
        std::thread::sleep(Duration::from_secs(5));
    }
}

fn remove(scale: Scale) -> Result<String> {
    let seen = ["replicated:3", "ec:2+1"].iter().map(|pool| remove_in(pool, scale));
    Ok(seen.collect::<Result<Vec<_>>>()?.join("; "))
}

/// Bytes of one write of the case below: some objects.
const REMOVE_WRITE_BYTES: usize = 1 << 20;

fn remove_in(pool: &str, scale: Scale) -> Result<String> {
    let scratch = Scratch::new("remove")?;
    let cluster = Cluster::start(&scratch, &["--size", "256M", "--osd-size", "2G", "--pool", pool, "--restart=12"])?;
    let writes = scale.image_mib / 2;
    let mut demo = Nbd::connect(&cluster.socket(), "demo", Duration::from_secs(20))?;
    demo.write(0, &[3; REMOVE_WRITE_BYTES])?;
    demo.flush()?;
    cluster.wait_clean(Duration::from_secs(60))?;
    let before = space(&cluster)?;
    let size = format!("{writes}M");
    let create = ["image", "create", "main/doomed", "--size", &size];
    let first = cluster.admin(&create)?;
    let mut nbd = Nbd::connect(&cluster.socket(), "doomed", Duration::from_secs(20))?;
    for at in 0..writes {
        nbd.write(at * REMOVE_WRITE_BYTES as u64, &vec![u8::try_from(at % 250)? + 1; REMOVE_WRITE_BYTES])?;
    }
    nbd.flush()?;
    let full = space(&cluster)?;
    let took = before.0 - full.0.min(before.0);
    ensure!(took >= writes << 20, "the image takes {took} bytes of {pool}");
    let victim = cluster.osds()?.first().context("OSDs run")?.pid;
    crate::cluster::signal(victim, nix::sys::signal::Signal::SIGKILL);
    let begin = Instant::now();
    cluster.admin(&["image", "remove", "main/doomed", "--yes"])?;
    let removal = begin.elapsed();
    ensure!(cluster.osds()?.iter().all(|osd| osd.pid != victim), "the OSD is down");
    ensure!(nbd.write(0, &[9; BLOCK_BYTES]).is_err(), "a client that had opened the image can still write to it");
    let back = |cluster: &Cluster| Ok::<_, anyhow::Error>(cluster.osds()?.len() as u64);
    let all = cluster.admin(&["osd", "list"])?.as_array().map_or(0, Vec::len) as u64;
    while back(&cluster)? < all {
        ensure!(begin.elapsed() < Duration::from_secs(60), "the OSD does not come back");
        std::thread::sleep(Duration::from_millis(200));
    }
    cluster.wait_clean(Duration::from_secs(60))?;
    let after = space(&cluster)?;
    let lost = before.0.abs_diff(after.0);
    ensure!(lost * 100 <= took, "{lost} of {took} bytes did not come back: {before:?}, {full:?}, {after:?}");
    let second = cluster.admin(&create)?;
    ensure!(second["inode"].as_u64() > first["inode"].as_u64(), "inode numbers are used again: {first}, {second}");
    let mut nbd = Nbd::connect(&cluster.socket(), "doomed", Duration::from_secs(20))?;
    ensure!(nbd.read(0, BLOCK_BYTES)? == [0; BLOCK_BYTES], "what was removed is in the new image");
    ensure!(demo.read(0, BLOCK_BYTES)? == [3; BLOCK_BYTES], "another image lost its data");
    Ok(format!(
        "{pool}: {writes} MiB removed in {:.1} s with an OSD down; {lost} of {took} bytes still taken after its return, \
         copies {} -> {} -> {}, {} tombstones",
        removal.as_secs_f64(),
        before.1,
        full.1,
        after.1,
        after.2
    ))
}

fn regroup(scale: Scale) -> Result<String> {
    let scratch = Scratch::new("regroup")?;
    let cluster =
        Cluster::start(&scratch, &["--size", "256M", "--osd-size", "2G", "--pool", scale.pool, "--restart=1"])?;
    let mut rng = Rng::new(u64::from(std::process::id()));
    let mut steps = Vec::new();
    for groups in ["8", "32", "4"] {
        let begin = Instant::now();
        let load = std::thread::scope(|scope| {
            let load = scope.spawn(|| tools::fio(cluster.nbd(), scale.fio_s));
            let change = cluster.admin(&["pool", "modify", "main", "--pg-count", groups]);
            let change = change.and(nemesis::kill_osds(&cluster, &mut rng, Duration::from_millis(700), 1));
            let load = load.join().expect("fio's thread does not panic");
            change.and(load)
        });
        let outcome = load.with_context(|| cluster.logs())?;
        let regrouped = |status: &serde_json::Value| status["regrouping"].as_array().is_some_and(Vec::is_empty);
        while !regrouped(&cluster.admin(&["status", "--quick"])?) {
            let patient = begin.elapsed() < Duration::from_secs(120);
            ensure!(patient, "{groups} groups: {}\n{}", cluster.admin(&["status", "--quick"])?, cluster.logs());
            std::thread::sleep(Duration::from_millis(200));
        }
        cluster.wait_clean(Duration::from_secs(120))?;
        let list = cluster.admin(&["pg", "list"])?;
        ensure!(list.as_array().map(Vec::len) == groups.parse().ok(), "{groups} groups: {list}");
        steps.push(format!("{groups} groups after {:.1} s ({outcome})", begin.elapsed().as_secs_f64()));
    }
    Ok(steps.join(", "))
}

fn modify(scale: Scale) -> Result<String> {
    let scratch = Scratch::new("modify")?;
    let cluster = Cluster::start(&scratch, &["--size", "256M", "--osd-size", "2G", "--pool", "replicated:2"])?;
    let mut steps = Vec::new();
    for copies in [3_usize, 1, 2] {
        let scheme = format!("replicated:{copies}");
        let begin = Instant::now();
        let load = std::thread::scope(|scope| {
            let load = scope.spawn(|| tools::fio(cluster.nbd(), scale.fio_s));
            let change = cluster.admin(&["pool", "modify", "main", "--scheme", &scheme]);
            let load = load.join().expect("fio's thread does not panic");
            change.and(load)
        });
        load?;
        cluster.wait_clean(Duration::from_secs(120))?;
        let groups = cluster.admin(&["pg", "list"])?;
        let members = |group: &serde_json::Value| group["acting"].as_array().map(Vec::len);
        let wrong = groups.as_array().context("a list")?.iter().find(|group| members(group) != Some(copies));
        ensure!(wrong.is_none(), "{scheme}: {wrong:?}");
        steps.push(format!("{scheme} after {:.1} s", begin.elapsed().as_secs_f64()));
    }
    for (change, reason) in [
        (["--scheme", "ec:2+1"], "scheme cannot change from replicated to ec"),
        (["--pg-count", "0"], "pg_count is 0"),
        (["--pg-minsize", "3"], "pg_minsize is 3"),
    ] {
        let Err(refusal) = cluster.admin(&[&["pool", "modify", "main"], &change[..]].concat()) else {
            bail!("{change:?} was not refused");
        };
        ensure!(refusal.to_string().contains(reason), "expected `{reason}` in: {refusal}");
    }
    Ok(steps.join(", "))
}
