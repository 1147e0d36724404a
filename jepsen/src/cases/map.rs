//! What an NBD client learns of images before it reads them.

use super::Scale;
use crate::cluster::Cluster;
use crate::command::run as run_program;
use crate::nbd::Nbd;
use crate::scratch::Scratch;
use crate::tools;
use anyhow::{Result, bail, ensure};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// See the module.
pub fn run(scale: Scale) -> Result<String> {
    let scratch = Scratch::new("map")?;
    let cluster = Cluster::start(&scratch, &["--pool", scale.pool, "--size", "10G", "--osd-size", "4G"])?;
    let exact = tools::map_shows_what_was_written(&cluster)?;
    let names = lists(&cluster)?;
    let (nbd, written) = (cluster.nbd().to_string(), scale.image_mib);
    let mut client = Nbd::connect(&cluster.socket(), "demo", LIMIT)?;
    for mib in 0..written {
        // Half of it whole, half of it in fragments.
        let len = if mib % 2 == 0 { MIB } else { 4096 };
        client.write(mib * MIB, &vec![5; usize::try_from(len)?])?;
    }
    client.flush()?;
    let before = read_bytes(&cluster)?;
    let timed = |program: &str, arguments: &[&str]| {
        let start = Instant::now();
        run_program(program, arguments, LIMIT).map(|text| (text, start.elapsed().as_secs_f64()))
    };
    let (text, info) = timed("nbdinfo", &["--map", &nbd])?;
    ensure!(text.lines().count() as u64 >= written, "the map has too few extents:\n{text}");
    let (_, qemu) = timed("qemu-img", &["map", "--output=json", "-f", "raw", &nbd])?;
    let after = read_bytes(&cluster)?;
    ensure!(after - before < MIB, "block status read {} bytes of data", after - before);
    let copy = scratch.join("copy.img").display().to_string();
    let (_, copied) = timed("nbdcopy", &[&nbd, &copy])?;
    Ok(format!(
        "{exact}; {names}; {written} MiB in 10 GiB, half of it fragments: nbdinfo --map {info:.2} s, qemu-img map \
         {qemu:.2} s, without reading; nbdcopy {copied:.2} s"
    ))
}

/// Bytes that OSDs have read for clients and each other, once the figures were published.
fn read_bytes(cluster: &Cluster) -> Result<u64> {
    let mut all = 0;
    for osd in cluster.osds()? {
        let text = std::fs::read_to_string(format!("/proc/{}/io", osd.pid))?;
        let line = text.lines().find_map(|line| line.strip_prefix("read_bytes: "));
        all += line.unwrap_or("0").parse::<u64>()?;
    }
    Ok(all)
}

/// All images are listed, those that are being removed are not, and a bad name is told.
fn lists(cluster: &Cluster) -> Result<String> {
    for number in 0..300 {
        cluster.admin(&["image", "create", &format!("main/vm-{number:03}"), "--size", "1M"])?;
    }
    cluster.admin(&["image", "remove", "main/vm-007", "--yes"])?;
    let socket = cluster.socket();
    let server = format!("nbd+unix:///?socket={}", socket.display());
    let text = run_program("nbdinfo", &["--list", "--json", &server], LIMIT)?;
    let list: serde_json::Value = serde_json::from_str(&text)?;
    let exports = list["exports"].as_array().map(Vec::len).unwrap_or_default();
    ensure!(exports == 301, "{exports} exports are listed, not 301");
    ensure!(text.contains("main/vm-299") && !text.contains("vm-007"), "the list is not that of the images");
    for (name, reason) in [("nope", "there is no image 'nope'"), ("", "name an export")] {
        match Nbd::connect(&socket, name, LIMIT) {
            Ok(_) => bail!("an export '{name}' was found"),
            Err(error) => ensure!(error.to_string().contains(reason), "expected `{reason}` in: {error}"),
        }
    }
    Ok(format!("{exports} images listed"))
}
