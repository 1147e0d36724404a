//! `ashlar bench`: what a cluster does, how long it takes, and what it costs, beside the bare disk in the same run.
//!
//! Owns: the series of loads, the counting before and after each, the table. Does not own: the load generator (client).
//! Counts come from what OSDs publish; a load's figures are read once all OSDs published after its end.

mod codes;
mod placement;
mod raw;
pub mod store;

use crate::admin::Connection;
use crate::admin::image;
use crate::admin::status::Statistics;
use crate::metadata::Metadata;
use crate::{output, size};
use anyhow::{Context, Result, bail};
use ashlar_client::bench::{Kind, Load, Pattern, Report, Until};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// OSDs publish figures every 2 s while they change: what is silent for longer has nothing to tell.
const SETTLE: Duration = Duration::from_millis(2_500);
/// How often their figures are looked at.
const POLL: Duration = Duration::from_millis(100);
/// The image that is made and overwritten unless another is named.
const SCRATCH_IMAGE: &str = "bench";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Image to overwrite; made for the purpose by default.
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    /// Size of the image that is made.
    #[arg(long, default_value = "256M", value_parser = size::parse)]
    size: u64,
    /// Seconds for each load.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Measure the bare disk in this directory too; that of --dir by default, if it exists.
    #[arg(long, value_name = "DIR")]
    raw: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

/// What else can be measured.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// One store alone, on a file or device, beside the bare device.
    Store(store::Args),
    /// Placement: evenness, moves, time, beside what linear programming allows; without a cluster.
    Placement(placement::Args),
    /// Erasure codes on this processor; without a cluster.
    Codes(codes::Args),
}

impl Args {
    /// If something is to be measured alone: measures it.
    pub fn alone(&self) -> Option<Result<()>> {
        self.what.as_ref().map(|what| match what {
            What::Store(args) => store::run(args),
            What::Placement(args) => placement::run(args),
            What::Codes(args) => codes::run(args),
        })
    }
}

/// A line of the result.
#[derive(Serialize)]
struct Line {
    what: String,
    block_bytes: u32,
    queue_depth: u32,
    iops: f64,
    mib_per_s: f64,
    latency_us: Latency,
    /// What one operation cost; nothing for the bare disk.
    cost: Option<Cost>,
    /// Latencies as `[microseconds, share of operations up to there]`.
    histogram: Vec<(f64, f64)>,
}

/// Latencies in microseconds.
#[derive(Serialize)]
struct Latency {
    mean: f64,
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

/// What the OSDs spent on one operation, all together.
#[derive(Default, Serialize)]
struct Cost {
    cpu_us: f64,
    cpu_us_by_osd: BTreeMap<u32, f64>,
    client_cpu_us: f64,
    messages: f64,
    enters: f64,
    device_writes: f64,
    device_flushes: f64,
    device_bytes_per_client_byte: f64,
}

/// Measures and prints.
pub async fn run(args: Args) -> Result<()> {
    let metadata = args.connection.open().await?;
    let (seeds, image) = prepare(&metadata, &args).await?;
    let mut lines = Vec::new();
    if let Some(folder) = args.raw.clone().or_else(|| args.connection.cluster_directory()) {
        eprintln!("measuring the bare disk at {}", folder.display());
        lines.extend(raw::measure(&folder, args.seconds)?);
    }
    eprintln!("filling {image}");
    let fill = Load {
        kind: Kind::Write,
        pattern: Pattern::Sequential,
        block_bytes: 128 << 10,
        queue_depth: 8,
        until: Until::Operations(args.size >> 17),
    };
    ashlar_client::bench::run(seeds.clone(), &image, fill).await?;
    let mut before = figures(&metadata).await?;
    for load in series(args.seconds) {
        let name = name(&load);
        eprintln!("measuring {name}, {} bytes, queue depth {}", load.block_bytes, load.queue_depth);
        let report = ashlar_client::bench::run(seeds.clone(), &image, load)
            .await
            .with_context(|| format!("{name} on {image}"))?;
        let after = figures(&metadata).await?;
        lines.push(line(name, &load, &report, Some(cost(&before, &after, &report))));
        before = after;
    }
    args.connection.output().print(&lines, |lines| text(lines))
}

/// Where clients find the cluster, and an image to overwrite.
async fn prepare(metadata: &Metadata, args: &Args) -> Result<(Vec<String>, String)> {
    let map = metadata.map().await?;
    let seeds: Vec<_> = map.osd_states().map(|(_, osd)| osd.address.clone()).collect();
    if seeds.is_empty() {
        bail!("no OSD runs; `ashlar status` says more");
    }
    if let Some(image) = &args.image {
        return Ok((seeds, image.clone()));
    }
    let (_, pool) =
        map.pools().next().context("there is no pool to make an image in; `ashlar pool create` makes one")?;
    if !map.images().any(|(_, _, image)| image.name == SCRATCH_IMAGE) {
        image::create(metadata, &pool.name, SCRATCH_IMAGE, args.size).await?;
    }
    Ok((seeds, SCRATCH_IMAGE.into()))
}

/// One operation at a time, then 32; small ones, then whole objects; writes, then reads of what was written.
fn series(seconds: u64) -> Vec<Load> {
    let mut loads = Vec::new();
    for block_bytes in [4 << 10, 128 << 10] {
        for kind in [Kind::Write, Kind::Read] {
            for queue_depth in [1, 32] {
                let until = Until::Elapsed(Duration::from_secs(seconds));
                loads.push(Load { kind, pattern: Pattern::Random, block_bytes, queue_depth, until });
            }
        }
    }
    loads
}

fn name(load: &Load) -> &'static str {
    match load.kind {
        Kind::Read => "read",
        Kind::Write => "write",
    }
}

/// The OSDs' figures, published after this call: those of a load that ended before it are all in them.
async fn figures(metadata: &Metadata) -> Result<BTreeMap<u32, Statistics>> {
    let before: BTreeMap<u32, Statistics> = metadata.statistics().await?;
    let deadline = Instant::now() + SETTLE;
    loop {
        tokio::time::sleep(POLL).await;
        let now: BTreeMap<u32, Statistics> = metadata.statistics().await?;
        let is_new = |(osd, new): (&u32, &Statistics)| before.get(osd).is_none_or(|old| old.time_ms != new.time_ms);
        if now.iter().all(is_new) || Instant::now() > deadline {
            return Ok(now);
        }
    }
}

fn cost(before: &BTreeMap<u32, Statistics>, after: &BTreeMap<u32, Statistics>, report: &Report) -> Cost {
    let operations = report.operations.max(1) as f64;
    let mut cost = Cost { client_cpu_us: report.client_cpu.as_secs_f64() * 1e6 / operations, ..Cost::default() };
    let mut device_bytes = 0;
    for (osd, now) in after {
        let Some(then) = before.get(osd) else { continue };
        let counted = |name: &str| {
            let value = |statistics: &Statistics| statistics.runtime.get(name).copied().unwrap_or_default();
            value(now).saturating_sub(value(then))
        };
        let cpu_us = counted("cpu_ns") as f64 / 1e3 / operations;
        cost.cpu_us += cpu_us;
        cost.cpu_us_by_osd.insert(*osd, cpu_us);
        cost.messages += counted("messages_out") as f64 / operations;
        cost.enters += counted("enters") as f64 / operations;
        cost.device_writes += counted("disk_writes") as f64 / operations;
        cost.device_flushes += counted("disk_flushes") as f64 / operations;
        device_bytes += counted("disk_written_bytes");
    }
    cost.device_bytes_per_client_byte = device_bytes as f64 / report.bytes.max(1) as f64;
    cost
}

fn line(what: &str, load: &Load, report: &Report, cost: Option<Cost>) -> Line {
    let us = |ns: u64| ns as f64 / 1e3;
    let at = |quantile: f64| us(report.latency_ns.value_at_quantile(quantile));
    let histogram = report.latency_ns.iter_quantiles(1);
    Line {
        what: what.into(),
        block_bytes: load.block_bytes,
        queue_depth: load.queue_depth,
        iops: report.iops(),
        mib_per_s: report.bytes as f64 / f64::from(1 << 20) / report.elapsed.as_secs_f64().max(1e-9),
        latency_us: Latency {
            mean: report.latency_ns.mean() / 1e3,
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: us(report.latency_ns.max()),
        },
        cost,
        histogram: histogram.map(|step| (us(step.value_iterated_to()), step.quantile())).collect(),
    }
}

fn text(lines: &[Line]) -> String {
    let headings = [
        "",
        "BLOCK",
        "QD",
        "IOPS",
        "MiB/s",
        "MEAN us",
        "p50",
        "p99",
        "p99.9",
        "MAX",
        "OSD CPU us",
        "MSGS",
        "ENTERS",
        "WRITES",
        "FLUSHES",
        "DEV/CLIENT",
    ];
    let mut table = output::table(headings);
    for line in lines {
        let Latency { mean, p50, p99, p999, max } = &line.latency_us;
        let mut cells = vec![line.what.clone(), size::human(line.block_bytes.into()), line.queue_depth.to_string()];
        cells.push(format!("{:.0}", line.iops));
        cells.push(format!("{:.1}", line.mib_per_s));
        cells.extend([mean, p50, p99, p999, max].map(|us| format!("{us:.0}")));
        if let Some(cost) = &line.cost {
            cells.push(format!("{:.1}", cost.cpu_us));
            let counts = [
                cost.messages,
                cost.enters,
                cost.device_writes,
                cost.device_flushes,
                cost.device_bytes_per_client_byte,
            ];
            cells.extend(counts.map(|count| format!("{count:.2}")));
        }
        table.add_row(cells);
    }
    format!("{table}\n\nCosts are of all OSDs together, for one operation; messages are those that OSDs sent.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_client::bench::Report;

    #[test]
    fn costs_are_per_operation_and_summed_over_osds() {
        let statistics = |scale: u64| {
            let counted = [("cpu_ns", 1_000_000), ("messages_out", 600), ("disk_written_bytes", 819_200)];
            let runtime = counted.iter().map(|(name, value)| (name.to_string(), value * scale)).collect();
            BTreeMap::from([(1, Statistics { runtime, ..Default::default() })])
        };
        let report = Report {
            operations: 100,
            bytes: 409_600,
            elapsed: Duration::from_secs(1),
            latency_ns: raw::histogram(),
            client_cpu: Duration::from_millis(1),
        };
        let cost = cost(&statistics(1), &statistics(2), &report);
        assert_eq!((cost.cpu_us, cost.messages, cost.device_bytes_per_client_byte), (10.0, 6.0, 2.0));
        assert_eq!(cost.client_cpu_us, 10.0);
    }

    #[test]
    fn the_series_covers_both_depths_sizes_and_kinds() {
        let loads = series(1);
        assert_eq!(loads.len(), 8);
        assert!(loads.iter().enumerate().all(|(at, load)| !loads[..at].contains(load)));
    }
}
