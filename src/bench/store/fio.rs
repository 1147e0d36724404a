//! The same device under fio, if it is installed: a figure that is not our own.

use super::Line;
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Whether there is a fio.
pub fn is_there() -> bool {
    Command::new("fio").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Random writes of 4 KiB at depth 1 and 32, over whatever is there. Nobody may have the device open.
pub fn measure(path: &Path, time: Duration) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for depth in [1, 32] {
        let [rate, median] = run(path, depth, time)?;
        let value = format!("{rate:.0}, p50 {median:.0} us");
        lines.push(Line::new(format!("fio, 4 KiB writes, depth {depth}: a second"), value, "-"));
    }
    Ok(lines)
}

/// Writes a second, and the median in microseconds.
fn run(path: &Path, depth: u32, time: Duration) -> Result<[f64; 2]> {
    let seconds = time.as_secs().max(1);
    let output = Command::new("fio")
        .arg(format!("--filename={}", path.display()))
        .args(["--name=raw", "--rw=randwrite", "--bs=4k", "--ioengine=io_uring", "--time_based", "--norandommap"])
        .args(["--direct=1", "--output-format=json", "--allow_file_create=0"])
        .args([format!("--iodepth={depth}"), format!("--runtime={seconds}")])
        .output()
        .context("fio cannot be started")?;
    if !output.status.success() {
        bail!("fio failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).context("fio's report is no JSON")?;
    let write = &report["jobs"][0]["write"];
    let number = |value: &serde_json::Value, what: &str| value.as_f64().with_context(|| format!("fio says no {what}"));
    let median = number(&write["clat_ns"]["percentile"]["50.000000"], "median")?;
    Ok([number(&write["iops"], "rate")?, median / 1000.0])
}
