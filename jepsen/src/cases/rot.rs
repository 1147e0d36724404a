//! Bit rot: garbage in the files of OSDs, where data lie at rest.

use super::Scale;
use crate::cluster::Cluster;
use crate::nbd::Nbd;
use crate::registers::BLOCK_BYTES;
use crate::scratch::Scratch;
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// Bytes of one write: some objects.
const WRITE_BYTES: usize = 1 << 20;
/// Places that are damaged at a time, each in another object.
const PLACES: usize = 12;
/// Bytes of garbage in each.
const GARBAGE_BYTES: usize = 600;
/// Where the log is, in its first part.
const LOG_PLACES: std::ops::Range<u64> = 128 << 10..9 << 20;
/// Where all copies of the superblock are.
const SUPERBLOCK_PLACES: std::ops::Range<u64> = 0..128 << 10;
/// Between two pieces of garbage there: no page of the log is spared.
const GARBAGE_STEP: usize = 4096;
/// For scrubs of all groups.
const SCRUB_LIMIT: Duration = Duration::from_secs(180);
const LIMIT: Duration = Duration::from_secs(120);

/// See the module.
pub fn run(scale: Scale) -> Result<String> {
    let scratch = Scratch::new("rot")?;
    let writes = (scale.image_mib / 3) as usize;
    let size = format!("{}M", writes + 16);
    let cluster = Cluster::start(&scratch, &["--pool", scale.pool, "--size", &size])?;
    fill(&cluster, writes)?;
    cluster.wait_clean(LIMIT)?;

    let running = damage(&scratch.join("cluster/osd-1.img"), 0)?;
    let found = scrub_all(&cluster)?;
    ensure!(found.damaged >= running, "{running} places were damaged, scrubs found {found:?}");
    read_back(&cluster, writes)?;
    let second = scrub_all(&cluster)?;
    ensure!(second == found, "a second scrub found more: {found:?}, then {second:?}");
    cluster.stop()?;

    let stopped = damage(&scratch.join("cluster/osd-2.img"), 1)?;
    let cluster = Cluster::start(&scratch, &[])?;
    // Reads come first: they meet the damage unprepared.
    read_back(&cluster, writes)?;
    scrub_all(&cluster)?;
    cluster.wait_clean(LIMIT)?;
    cluster.stop()?;

    let left = [1, 2].map(|osd| garbage_in(&scratch.join(&format!("cluster/osd-{osd}.img"))));
    let cluster = Cluster::start(&scratch, &["--restart=1"])?;
    read_back(&cluster, writes)?;
    let third = scrub_all(&cluster)?;
    ensure!(third == Found::default(), "after repairs, a scrub found {third:?}");
    for osd in cluster.osds()? {
        // Each member in turn is away: what was repaired carries the others.
        crate::cluster::signal(osd.pid, nix::sys::signal::Signal::SIGKILL);
        read_back(&cluster, writes)?;
        cluster.wait_clean(LIMIT)?;
    }
    read_back(&cluster, writes)?;
    cluster.stop()?;
    let devices = devices(&scratch, writes)?;
    Ok(format!(
        "{running} places damaged while OSDs ran and {stopped} while they did not: {} copies repaired by scrubs, the rest \
         by reads; every byte as written ({} pieces of garbage lie in space that is free now); {devices}",
        found.damaged,
        left.into_iter().sum::<Result<usize>>()?
    ))
}

/// The log of one OSD is spoilt, then the superblocks of another: each time the cluster starts without, and with a new
/// store afterwards.
fn devices(scratch: &Scratch, writes: usize) -> Result<String> {
    let mut seen = Vec::new();
    for (osd, places) in [(3, LOG_PLACES), (4, SUPERBLOCK_PLACES)] {
        let path = scratch.join(&format!("cluster/osd-{osd}.img"));
        let file = File::options().write(true).open(&path)?;
        places.step_by(GARBAGE_STEP).try_for_each(|at| file.write_all_at(&[0xEE; GARBAGE_BYTES], at))?;
        file.sync_all()?;
        let cluster = Cluster::start(scratch, &[])?;
        read_back(&cluster, writes)?;
        let rows = cluster.admin(&["osd", "list"])?;
        let row = rows.as_array().into_iter().flatten().find(|row| row["id"] == osd).context("the OSD is listed")?;
        ensure!(row["up"] == false || row["is_damaged"] == true, "OSD {osd} serves after that: {row}");
        seen.push(if row["up"] == false { "refused to start" } else { "was told as damaged" });
        cluster.stop()?;
        std::fs::remove_file(&path)?;
        let cluster = Cluster::start(scratch, &[])?;
        cluster.wait_clean(LIMIT)?;
        read_back(&cluster, writes)?;
        cluster.stop()?;
    }
    Ok(format!("an OSD with a spoilt log {}, one without superblocks {}; both were built anew", seen[0], seen[1]))
}

fn contents(write: usize, block: usize) -> Vec<u8> {
    let tag = [(write as u64).to_le_bytes(), (block as u64 | 1 << 40).to_le_bytes()].concat();
    tag.iter().copied().cycle().take(BLOCK_BYTES).collect()
}

fn data_of(write: usize) -> Vec<u8> {
    (0..WRITE_BYTES / BLOCK_BYTES).flat_map(|block| contents(write, block)).collect()
}

fn fill(cluster: &Cluster, writes: usize) -> Result<()> {
    let mut nbd = Nbd::connect(&cluster.socket(), "demo", LIMIT)?;
    for write in 0..writes {
        nbd.write((write * WRITE_BYTES) as u64, &data_of(write))?;
    }
    nbd.flush()
}

fn read_back(cluster: &Cluster, writes: usize) -> Result<()> {
    let mut nbd = Nbd::connect(&cluster.socket(), "demo", LIMIT)?;
    for write in 0..writes {
        let found = nbd.read((write * WRITE_BYTES) as u64, WRITE_BYTES)?;
        ensure!(found == data_of(write), "the data of write {write} are not what was written\n{}", cluster.logs());
    }
    Ok(())
}

/// Writes garbage over data in an OSD's file, far enough apart to be in different objects; how many places.
fn damage(file: &Path, salt: usize) -> Result<u64> {
    let file = File::options().read(true).write(true).open(file)?;
    let mut places = Vec::new();
    each_block(&file, |at, block| {
        let tag = u64::from_le_bytes(block[8..16].try_into().expect("eight bytes"));
        // The first block of every other write: no two in one object.
        if tag == 1 << 40 && block == contents(block[0] as usize | (block[1] as usize) << 8, 0) {
            places.push(at);
        }
    })?;
    let chosen: Vec<u64> = places.into_iter().skip(salt).step_by(2).take(PLACES).collect();
    ensure!(!chosen.is_empty(), "no data were found in the file");
    for at in &chosen {
        file.write_all_at(&[0xEE; GARBAGE_BYTES], at + 1000)?;
    }
    file.sync_all()?;
    Ok(chosen.len() as u64)
}

/// How many blocks hold our garbage.
fn garbage_in(file: &Path) -> Result<usize> {
    let mut count = 0;
    each_block(&File::open(file)?, |_, block| count += usize::from(block[1000..1600] == [0xEE; GARBAGE_BYTES]))?;
    Ok(count)
}

/// Looks at every block of a file, but for its holes.
fn each_block(file: &File, mut look: impl FnMut(u64, &[u8])) -> Result<()> {
    let mut buffer = vec![0; WRITE_BYTES];
    let len = file.metadata()?.len();
    for at in (0..len).step_by(WRITE_BYTES) {
        let count = usize::try_from((len - at).min(WRITE_BYTES as u64))?;
        file.read_exact_at(&mut buffer[..count], at)?;
        for (block, number) in buffer[..count].chunks_exact(BLOCK_BYTES).zip(0..) {
            look(at + number * BLOCK_BYTES as u64, block);
        }
    }
    Ok(())
}

/// What scrubs found, since the groups' primaries started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Found {
    damaged: u64,
    outdated: u64,
    inconsistent: u64,
}

/// Scrubs all groups, and waits until that is done.
fn scrub_all(cluster: &Cluster) -> Result<Found> {
    let report = cluster.admin_within(&["pg", "scrub", "--pool", "main", "--wait"], SCRUB_LIMIT)?;
    let figure = |name: &str| report[name].as_u64().with_context(|| format!("the report has no {name}"));
    Ok(Found { damaged: figure("damaged")?, outdated: figure("outdated")?, inconsistent: figure("inconsistent")? })
}
