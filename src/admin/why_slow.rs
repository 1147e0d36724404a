//! `ashlar why-slow IMAGE`: in which stage the time of an image's operations goes.
//!
//! Owns the question: reads of its own, one at a time and not many, beside what the OSDs of the image's pool count meanwhile,
//! stage by stage, and what NBD servers count that are named (`page`). Does not own the counting (core's `stages`), which is by
//! OSD: objects of an image lie in all groups of its pool, so each of these OSDs serves it, and others too.

mod page;

use super::image::{image_named, parts};
use super::status::{BETWEEN_LOOKS, Statistics};
use super::{Connection, pool_named, seeds};
use crate::output;
use anyhow::{Context, Result, bail};
use ashlar_client::Client;
use ashlar_core::id::{OsdId, PoolId};
use ashlar_core::map::ClusterMap;
use ashlar_core::rng::Rng;
use ashlar_core::stages::{ClientStages, Histogram, Stages};
use ashlar_core::time;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Bytes of a read.
const BLOCK: u32 = 4096;
/// From one read to the next, so that the question does not become the load: 500 reads in the usual five seconds are enough for
/// a percentile of 99.
const BETWEEN_READS: Duration = Duration::from_millis(10);
/// An OSD's store that is so many times slower than the others' is named.
const SLOW: u64 = 3;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Lines that begin with 'our reads' are of this image: at most 100 reads a second, which this command makes \
    and the image's counters count, too. All other lines are of everything that the OSDs of the image's pool do meanwhile, for \
    any image and pool."
)]
pub struct Args {
    /// POOL/NAME.
    name: String,
    /// How long to look.
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// NBD servers (what they have as `--metrics`) of which the queues are shown, too.
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT")]
    clients: Vec<String>,
    #[command(flatten)]
    connection: Connection,
}

/// A stage, in microseconds.
#[derive(Clone, Debug, Serialize)]
struct Row {
    stage: &'static str,
    count: u64,
    mean_us: u64,
    p50_us: u64,
    p99_us: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    image: String,
    /// OSDs of which the stages are, for whatever they do.
    osds: Vec<u32>,
    stages: Vec<Row>,
    /// Changes of each OSD's store.
    stores: BTreeMap<u32, Row>,
    /// Requests of each NBD server that was named: in its queue, and in the cluster.
    clients: BTreeMap<String, [Row; 2]>,
    findings: Vec<String>,
}

/// Looks for a while, and says what was seen.
pub async fn run(args: Args) -> Result<()> {
    let metadata = args.connection.open().await?;
    let map = metadata.map().await?;
    let (pool_name, name) = parts(&args.name)?;
    let (pool, _) = pool_named(&map, pool_name)?;
    image_named(&map, pool, pool_name, name)?;
    let osds = members(&map, pool);
    let clients_before = pages(&args.clients)?;
    let before = metadata.statistics::<Statistics>().await?;
    let probe = probe(&map, &args).await?;
    // The last publication tells of the last reads.
    tokio::time::sleep(BETWEEN_LOOKS).await;
    let after = metadata.statistics::<Statistics>().await?;
    let clients = pages(&args.clients)?.into_iter().map(|(address, now)| {
        let then = &clients_before[&address];
        let (queue, cluster) = (now.queue.since(&then.queue), now.cluster.since(&then.cluster));
        (address, ClientStages { queue, cluster })
    });
    let report = report(&args.name, &probe, &differences(&osds, &before, &after), &clients.collect());
    args.connection.output().print(&report, Report::text)
}

/// OSDs that serve the pool.
fn members(map: &ClusterMap, pool: PoolId) -> BTreeSet<OsdId> {
    let groups = map.groups().filter(|(pg, _)| pg.pool == pool);
    groups.flat_map(|(_, group)| group.acting.iter().flatten().map(|member| member.osd)).collect()
}

fn pages(addresses: &[String]) -> Result<BTreeMap<String, ClientStages>> {
    addresses.iter().map(|address| Ok((address.clone(), page::client_stages(address)?))).collect()
}

/// What our own reads took.
#[derive(Default)]
struct Probe {
    whole: Histogram,
    stages: ClientStages,
}

/// Reads here and there, one at a time.
async fn probe(map: &ClusterMap, args: &Args) -> Result<Probe> {
    let client = Client::connect(seeds(map)?)?;
    let image = client.open(&args.name).await.with_context(|| format!("opening {}", args.name))?;
    let blocks = image.size() / u64::from(BLOCK);
    if blocks == 0 {
        bail!("{} is too small to be read in blocks of {BLOCK} bytes", args.name);
    }
    let (mut rng, mut seen) = (Rng::new(ashlar_runtime::os::random_u64()?), Histogram::default());
    let end = Instant::now() + Duration::from_secs(args.seconds);
    while Instant::now() < end {
        let started = Instant::now();
        image.read(rng.below(blocks) * u64::from(BLOCK), BLOCK).await?;
        seen.record(time::Duration(u64::try_from(started.elapsed().as_nanos())?));
        tokio::time::sleep(BETWEEN_READS).await;
    }
    let stages = client.stages();
    client.stop();
    Ok(Probe { whole: seen, stages })
}

fn differences(
    osds: &BTreeSet<OsdId>,
    before: &BTreeMap<u32, Statistics>,
    after: &BTreeMap<u32, Statistics>,
) -> BTreeMap<u32, Stages> {
    let difference = |(osd, now): (&u32, &Statistics)| {
        let then = before.get(osd).map(|then| then.stages.clone()).unwrap_or_default();
        let stages = now.stages.since(&then);
        (*osd, stages)
    };
    after.iter().filter(|(osd, _)| osds.contains(&OsdId(**osd))).map(difference).collect()
}

fn row(stage: &'static str, of: &Histogram) -> Row {
    let (p50_us, p99_us) = (of.percentile_us(50), of.percentile_us(99));
    Row { stage, count: of.count, mean_us: of.mean_us(), p50_us, p99_us }
}

fn report(
    image: &str,
    probe: &Probe,
    osds: &BTreeMap<u32, Stages>,
    clients: &BTreeMap<String, ClientStages>,
) -> Report {
    let mut sum = Stages::default();
    for stages in osds.values() {
        sum.add(stages);
    }
    let stages = vec![
        row("our reads, whole", &probe.whole),
        row("our reads, in the client's queue", &probe.stages.queue),
        row("our reads, from the client to the primary and back", &probe.stages.cluster),
        row("reads at primaries", &sum.read),
        row("reads of stores", &sum.store_read),
        row("writes at primaries", &sum.write),
        row("changes of a member, there and back", &sum.member),
        row("changes of stores", &sum.store_write),
        row("writes to logs on devices", &sum.device.log_write),
        row("writes of data on devices", &sum.device.data_write),
        row("flushes of devices", &sum.device.flush),
        row("reads of devices", &sum.device.read),
    ];
    let stores = osds.iter().map(|(osd, stages)| (*osd, row("changes of its store", &stages.store_write))).collect();
    let mut findings = findings(probe, &sum, osds);
    findings.extend(clients.iter().map(|(address, stages)| client_finding(address, stages)));
    let rows = |of: &ClientStages| [row("in its queue", &of.queue), row("in the cluster", &of.cluster)];
    let clients = clients.iter().map(|(address, stages)| (address.clone(), rows(stages))).collect();
    Report { image: image.into(), osds: osds.keys().copied().collect(), stages, stores, clients, findings }
}

/// What the figures say, in words.
fn findings(probe: &Probe, sum: &Stages, osds: &BTreeMap<u32, Stages>) -> Vec<String> {
    let mut findings = Vec::new();
    let (whole, cluster) = (probe.whole.mean_us(), probe.stages.cluster.mean_us());
    let (primary, disk) = (sum.read.mean_us(), sum.store_read.mean_us());
    findings.push(format!(
        "of {whole} us of a read of ours, {} us are the client, {} us its network, {} us the primary, {} us its store; the \
         last two as for all reads there",
        whole.saturating_sub(cluster),
        cluster.saturating_sub(primary),
        primary.saturating_sub(disk),
        disk.min(primary)
    ));
    if sum.write.count > 0 {
        let (write, member, store) = (sum.write.mean_us(), sum.member.mean_us(), sum.store_write.mean_us());
        findings.push(format!(
            "of {write} us of a write at its primary, {} us are spent before members are asked or between them, {} us \
             the network to a member, {} us its store",
            write.saturating_sub(member),
            member.saturating_sub(store),
            store.min(member)
        ));
    } else {
        findings.push("nobody wrote meanwhile: of writes nothing is known".into());
    }
    let mut means: Vec<u64> = osds.values().map(|stages| stages.store_write.mean_us()).filter(|us| *us > 0).collect();
    means.sort_unstable();
    let usual = means.get(means.len() / 2).copied().unwrap_or(0);
    for (osd, stages) in osds.iter().filter(|(_, stages)| stages.store_write.mean_us() > SLOW * usual.max(1)) {
        let mean = stages.store_write.mean_us();
        findings.push(format!("the store of osd.{osd} is slow: {mean} us, others have {usual} us"));
    }
    findings
}

fn client_finding(address: &str, stages: &ClientStages) -> String {
    if stages.queue.count == 0 {
        return format!("the NBD server at {address} had nothing to do meanwhile");
    }
    let (queue, cluster) = (stages.queue.mean_us(), stages.cluster.mean_us());
    let why = match queue > cluster {
        true => ": more is asked at a time than it may have under way, or writes to the same bytes wait for each other",
        false => "",
    };
    format!("a request waits {queue} us in the NBD server at {address}, and {cluster} us for the cluster{why}")
}

impl Report {
    fn text(&self) -> String {
        let mut table = output::table(["STAGE", "COUNT", "MEAN us", "P50 us", "P99 us"]);
        let stores = self.stores.iter().map(|(osd, row)| (format!("  store of osd.{osd}"), row));
        let stages = self.stages.iter().map(|row| (row.stage.to_string(), row));
        let named =
            |(address, rows): (&String, &'_ [Row; 2])| rows.each_ref().map(|row| (address.clone(), row.clone()));
        let clients: Vec<(String, Row)> = self.clients.iter().flat_map(named).collect();
        let clients = clients.iter().map(|(address, row)| (format!("requests of {address}, {}", row.stage), row));
        for (name, row) in clients.chain(stages).chain(stores) {
            let numbers = [row.count, row.mean_us, row.p50_us, row.p99_us].map(|number| number.to_string());
            table.add_row([name].into_iter().chain(numbers));
        }
        format!("{table}\n\n{}\n\n{}", self.scope(), self.findings.join("\n"))
    }

    /// What the lines are about.
    fn scope(&self) -> String {
        let reads = self.stages.first().map_or(0, |row| row.count);
        let osds: Vec<_> = self.osds.iter().map(|osd| format!("osd.{osd}")).collect();
        format!(
            "'our reads' are {reads} reads of {}, made for this and counted as its own; the lines below them are of all that {} did \
             meanwhile, for this image, others and other pools",
            self.image,
            osds.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(us: u64, times: u64) -> Histogram {
        let mut histogram = Histogram::default();
        (0..times).for_each(|_| histogram.record(time::Duration::micros(us)));
        histogram
    }

    fn probed(whole: u64, cluster: u64) -> Probe {
        Probe { whole: took(whole, 9), stages: ClientStages { queue: took(5, 9), cluster: took(cluster, 9) } }
    }

    fn osd(store_us: u64) -> Stages {
        let (read, write) = (took(200, 5), took(store_us + 500, 5));
        let (member, store_write) = (took(store_us + 100, 5), took(store_us, 5));
        Stages { read, write, member, store_read: took(150, 5), store_write, ..Stages::default() }
    }

    #[test]
    fn time_is_shared_out_among_the_stages_and_a_slow_store_is_named() {
        let osds = BTreeMap::from([(1, osd(300)), (2, osd(300)), (3, osd(5_000))]);
        let report = report("vms/a", &probed(260, 240), &osds, &BTreeMap::new());
        let text = report.text();
        assert!(
            text.contains(
                "of 260 us of a read of ours, 20 us are the client, 40 us its network, 50 us the primary, 150 us"
            ),
            "{text}"
        );
        assert!(text.contains("9 reads of vms/a, made for this") && text.contains("osd.1, osd.2, osd.3 did"), "{text}");
        assert!(text.contains("the store of osd.3 is slow: 5000 us, others have 300 us"), "{text}");
        assert!(text.contains("100 us the network to a member"), "{text}");
        assert_eq!(report.findings.len(), 3);
    }

    #[test]
    fn without_writes_it_says_so() {
        let quiet = Stages { read: took(100, 1), ..Stages::default() };
        let report = report("vms/a", &probed(260, 240), &BTreeMap::from([(1, quiet)]), &BTreeMap::new());
        assert!(report.text().contains("nobody wrote"), "{}", report.text());
    }

    #[test]
    fn queues_of_clients_are_shown_and_a_long_one_is_explained() {
        let busy = ClientStages { queue: took(900, 4), cluster: took(300, 4) };
        let clients = BTreeMap::from([("h:1".to_string(), busy), ("h:2".to_string(), ClientStages::default())]);
        let text = report("vms/a", &probed(260, 240), &BTreeMap::new(), &clients).text();
        assert!(
            text.contains("a request waits 900 us in the NBD server at h:1, and 300 us for the cluster: more"),
            "{text}"
        );
        assert!(text.contains("h:2 had nothing to do") && text.contains("requests of h:1, in its queue"), "{text}");
    }
}
