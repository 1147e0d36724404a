//! Images to copy, and judges of what other programs report.

use crate::cluster::Cluster;
use crate::command::run;
use crate::scratch::Scratch;
use anyhow::{Context, Result, ensure};
use ashlar_core::rng::Rng;
use serde_json::Value;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// An ext4 file system of so many MiB with files in it, about a third full.
pub fn file_system_image(scratch: &Scratch, mib: u64) -> Result<String> {
    let folder = scratch.join("files");
    fs::create_dir_all(&folder)?;
    let mut rng = Rng::new(mib);
    let mut left = mib * MIB / 3;
    for number in 0.. {
        let size = rng.between(1, 4 * MIB).min(left);
        fs::write(folder.join(format!("file-{number}")), random_bytes(&mut rng, usize::try_from(size)?))?;
        left -= size;
        if left == 0 {
            break;
        }
    }
    let image = scratch.join("disk.img").display().to_string();
    let (from, size) = (folder.display().to_string(), format!("{mib}M"));
    run("/usr/sbin/mke2fs", &["-q", "-t", "ext4", "-d", &from, &image, &size], Duration::from_secs(120))?;
    fs::remove_dir_all(&folder)?;
    Ok(image)
}

fn random_bytes(rng: &mut Rng, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
    bytes.truncate(len);
    bytes
}

/// Changes an image here and there, at unaligned places too.
pub fn scramble(image: &str, mib: u64) -> Result<()> {
    let file = File::options().write(true).open(image)?;
    let mut rng = Rng::new(mib + 1);
    for _ in 0..200 {
        let len = rng.between(1, 100_000);
        let offset = rng.below(mib * MIB - len);
        file.write_all_at(&random_bytes(&mut rng, usize::try_from(len)?), offset)?;
    }
    Ok(())
}

/// Writes to a fresh image and holds `nbdinfo --map` against it.
pub fn map_shows_what_was_written(cluster: &Cluster) -> Result<String> {
    cluster.admin(&["image", "create", "main/mapped", "--size", "64M"])?;
    judge_map(&cluster.socket())
}

fn judge_map(socket: &std::path::Path) -> Result<String> {
    let uri = format!("nbd+unix:///mapped?socket={}", socket.display());
    let limit = Duration::from_secs(30);
    // Extents of several objects, of a part of one, and the image's last sectors.
    let written = [(0, 4096), (5 * MIB + 8192, 3 * MIB), (64 * MIB - 4096, 4096)];
    {
        let mut nbd = crate::nbd::Nbd::connect(socket, "mapped", limit)?;
        for (offset, len) in written {
            nbd.write(offset, &vec![1; usize::try_from(len)?])?;
        }
    }
    let map: Value = serde_json::from_str(&run("nbdinfo", &["--map", "--json", &uri], limit)?)?;
    let mut data = Vec::new();
    for extent in map.as_array().context("a map is a list")? {
        let number = |name: &str| extent[name].as_u64().with_context(|| format!("{name} in {extent}"));
        let (offset, len) = (number("offset")?, number("length")?);
        if number("type")? & 1 == 0 {
            match data.last_mut() {
                Some((start, length)) if *start + *length == offset => *length += len,
                _ => data.push((offset, len)),
            }
        }
    }
    ensure!(data == written, "written were {written:?}, the map says {data:?}");
    Ok(format!("{} written extents mapped exactly", data.len()))
}

/// What fio saw.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    writes: u64,
    reads: u64,
    longest_ms: f64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} writes and {} verified reads, longest stall {:.0} ms", self.writes, self.reads, self.longest_ms)
    }
}

/// Random writes of 4 KiB at queue depth 32 for some seconds; each is read back and checked soon after. An error that
/// the client sees, or one wrong byte, fails.
pub fn fio(nbd: &str, seconds: u64) -> Result<Outcome> {
    let (uri, runtime) = (format!("--uri={nbd}"), format!("--runtime={seconds}"));
    let report = run(
        "fio",
        &[
            "--name=verify",
            "--ioengine=nbd",
            &uri,
            "--rw=randwrite",
            "--bs=4k",
            "--iodepth=32",
            "--size=128M",
            "--time_based",
            &runtime,
            "--verify=crc32c",
            "--verify_backlog=256",
            "--verify_fatal=1",
            "--verify_state_save=0",
            "--output-format=json",
        ],
        Duration::from_secs(seconds + 90),
    )?;
    let from = report.find('{').context("fio reports JSON")?;
    let report: Value = serde_json::from_str(&report[from..])?;
    let job = &report["jobs"][0];
    ensure!(job["error"] == 0, "fio saw error {}", job["error"]);
    let count = |way: &str| job[way]["total_ios"].as_u64().unwrap_or(0);
    let longest = |way: &str| job[way]["clat_ns"]["max"].as_f64().unwrap_or(0.0) / 1e6;
    let outcome =
        Outcome { writes: count("write"), reads: count("read"), longest_ms: longest("write").max(longest("read")) };
    ensure!(outcome.writes > 0 && outcome.reads > 0, "fio did nothing: {outcome}");
    Ok(outcome)
}
