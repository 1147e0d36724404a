//! The placement rules of the documentation on a running cluster: groups are where each says, and what makes no sense is
//! refused with the place and the reason, even if it is written behind everybody's back.

use super::Scale;
use crate::cluster::Cluster;
use crate::command;
use crate::nbd::Nbd;
use crate::registers::BLOCK_BYTES;
use crate::scratch::Scratch;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(120);
/// OSDs, each on a host of its own, three hosts in each data centre.
const OSDS: u64 = 9;
const SITES: [&str; 3] = ["meow", "woof", "moo"];
const POOLS_KEY: &str = "/ashlar/config/pools";

/// Where the members of a group are.
struct Group {
    hosts: Vec<u64>,
    sites: Vec<usize>,
}

/// Pools with rules, and what must hold in each of their groups.
type Example = (&'static str, &'static [&'static str], fn(&Group) -> bool);

const EXAMPLES: &[Example] = &[
    ("copies", &["--scheme", "replicated:3", "--raw-placement", "any, host!=1, host!=(1,2)"], |g| distinct(&g.hosts)),
    (
        "sites",
        &["--scheme", "ec:4+2", "--raw-placement", "any, dc=1 host!=1, dc!=1, dc=3 host!=3, dc!=(1,3), dc=5 host!=5"],
        in_pairs,
    ),
    ("pairs", &["--scheme", "ec:4+2", "--level-placement", "dc=112233 host=123456"], in_pairs),
    ("cats", &["--scheme", "replicated:3", "--raw-placement", "dc?=\"meow\", dc!=1, dc!=(1,2)"], |g| {
        g.sites[0] == 0 && distinct(&g.sites)
    }),
];

/// Rules that must be refused, and a part of the reason.
const REFUSALS: &[(&[&str], &str)] = &[
    (&["--raw-placement", "any, host!1, any"], "column 10: '!' is not expected"),
    (&["--raw-placement", "any, host!=2, any"], "a part from 1 to 1"),
    (&["--raw-placement", "any, host!=1"], "there are 2 parts; write 3"),
    (
        &["--raw-placement", "any, dc=1 dc!=1, any"],
        "part 2 of a group cannot be on the same node of level dc as part 1",
    ),
    (&["--raw-placement", "any, rack!=1, any"], "rack"),
    (&["--raw-placement", "dc=meow, any, any"], "in quotation marks"),
    (&["--level-placement", "dc=11"], "write 3 letters or digits"),
    (&["--level-placement", "dc=112", "--raw-placement", "any, any, any"], "leave one of them out"),
    (&["--root-node", "nowhere"], "nowhere"),
    (&["--osd-tags", "gold"], "there are 0 of these"),
];

/// What somebody might write into the metadata store, and a part of what `status` says to it.
const NONSENSE: &[(&str, &str)] = &[
    ("{", "EOF"),
    (r#"{"1":{"name":"main","scheme":"replicated","pg_size":3,"pg_minsize":2,"pg_count":8,"pgs":9}}"#, "pgs"),
    (
        r#"{"1":{"name":"main","scheme":"replicated","pg_size":"three","pg_minsize":2,"pg_count":8}}"#,
        "expected u8 at line 1 column 59",
    ),
    (r#"{"1":{"name":"main","scheme":"replicated","pg_size":3,"pg_minsize":4,"pg_count":8}}"#, "pg_minsize"),
];

/// See the module.
pub fn run(_: Scale) -> Result<String> {
    let scratch = Scratch::new("placement")?;
    let cluster = Cluster::start(&scratch, &["--osds", "9", "--osd-size", "512M", "--size", "16M"])?;
    build_tree(&cluster)?;
    for (name, arguments, _) in EXAMPLES {
        let arguments = [&["pool", "create", name, "--pg-count", "16"], *arguments].concat();
        cluster.admin(&arguments)?;
    }
    let groups = EXAMPLES.iter().map(|(name, _, holds)| kept(&cluster, name, *holds)).sum::<Result<usize>>()?;
    cluster.wait_clean(LIMIT)?;
    for (arguments, reason) in REFUSALS {
        let arguments = [&["pool", "create", "bad"], *arguments].concat();
        match cluster.admin(&arguments) {
            Ok(_) => bail!("`ashlar {}` was not refused", arguments.join(" ")),
            Err(error) => ensure!(error.to_string().contains(reason), "expected `{reason}` in: {error}"),
        }
    }
    survives_nonsense(&cluster)?;
    Ok(format!(
        "{groups} groups are where {} pools want them; {} bad rules refused; the last good state outlived {} bad values",
        EXAMPLES.len(),
        REFUSALS.len(),
        NONSENSE.len()
    ))
}

fn build_tree(cluster: &Cluster) -> Result<()> {
    cluster.admin(&["placement", "levels", "dc=90"])?;
    for site in SITES {
        cluster.admin(&["placement", "node", site, "--level", "dc"])?;
    }
    for osd in 1..=OSDS {
        let (host, site) = (host_of(cluster, osd)?, SITES[site_of(osd)]);
        cluster.admin(&["placement", "node", &host, "--level", "host", "--parent", site])?;
    }
    Ok(())
}

fn host_of(cluster: &Cluster, osd: u64) -> Result<String> {
    let list = cluster.admin(&["osd", "list"])?;
    let row = list.as_array().into_iter().flatten().find(|row| row["id"] == osd).context("the OSD is there")?;
    Ok(row["host"].as_str().context("an OSD has a host")?.to_string())
}

fn site_of(osd: u64) -> usize {
    usize::try_from(osd - 1).expect("few") % SITES.len()
}

/// Waits until all groups of a pool are where its rules want them, with all their members; how many there are.
fn kept(cluster: &Cluster, pool: &str, holds: fn(&Group) -> bool) -> Result<usize> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let groups = groups(cluster, pool)?;
        let whole: Vec<_> = groups.iter().filter_map(Option::as_ref).collect();
        if let Some(broken) = whole.iter().find(|group| !holds(group)) {
            bail!("'{pool}' has a group on hosts {:?}, which its rules forbid", broken.hosts);
        }
        if !groups.is_empty() && whole.len() == groups.len() {
            return Ok(whole.len());
        }
        ensure!(Instant::now() < deadline, "{} of {} groups of '{pool}' are whole", whole.len(), groups.len());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The groups of a pool; none for one that is not whole.
fn groups(cluster: &Cluster, pool: &str) -> Result<Vec<Option<Group>>> {
    let pools = cluster.admin(&["pool", "list"])?;
    let id = pools.as_array().into_iter().flatten().find(|of| of["name"] == pool).map(|of| of["id"].to_string());
    let prefix = format!("{}/", id.with_context(|| format!("no pool '{pool}' in {pools}"))?.trim_matches('"'));
    let list = cluster.admin(&["pg", "list"])?;
    let of_pool = |row: &&Value| row["id"].as_str().is_some_and(|id| id.starts_with(&prefix));
    let group = |row: &Value| {
        let hosts: Option<Vec<u64>> = row["acting"].as_array()?.iter().map(Value::as_u64).collect();
        hosts.map(|hosts| Group { sites: hosts.iter().map(|osd| site_of(*osd)).collect(), hosts })
    };
    Ok(list.as_array().into_iter().flatten().filter(of_pool).map(group).collect())
}

fn distinct<T: Ord>(of: &[T]) -> bool {
    of.iter().collect::<BTreeSet<_>>().len() == of.len()
}

/// Six chunks, two in each data centre, no two on one host.
fn in_pairs(group: &Group) -> bool {
    let firsts = [group.sites[0], group.sites[2], group.sites[4]];
    let pairs = group.sites.chunks(2).all(|pair| pair[0] == pair[1]);
    distinct(&group.hosts) && distinct(&firsts) && pairs
}

/// Values that make no sense, written past all tools: `status` names them, and everything goes on with the last good ones.
fn survives_nonsense(cluster: &Cluster) -> Result<()> {
    let meta = cluster.running["meta"].as_str().context("`up` tells where the metadata store is")?;
    let etcdctl = |arguments: &[&str]| {
        let endpoint = format!("--endpoints={meta}");
        command::run("etcdctl", &[&[endpoint.as_str()], arguments].concat(), LIMIT)
    };
    let good = etcdctl(&["get", POOLS_KEY, "--print-value-only"])?;
    let mut nbd = Nbd::connect(&cluster.socket(), "demo", LIMIT)?;
    for (block, (bad, reason)) in NONSENSE.iter().enumerate() {
        etcdctl(&["put", POOLS_KEY, bad])?;
        let status = cluster.admin(&["status", "--quick"])?;
        let problems = status["problems"].to_string();
        ensure!(problems.contains("config/pools") && problems.contains(reason), "{bad} is told as {problems}");
        nbd.write((block * BLOCK_BYTES) as u64, &[9; BLOCK_BYTES])?;
        ensure!(nbd.read((block * BLOCK_BYTES) as u64, BLOCK_BYTES)? == [9; BLOCK_BYTES], "what was written is gone");
    }
    etcdctl(&["put", POOLS_KEY, good.trim_end()])?;
    let status = cluster.admin(&["status", "--quick"])?;
    ensure!(status["problems"].as_array().is_some_and(Vec::is_empty), "problems stay: {}", status["problems"]);
    cluster.wait_clean(LIMIT)
}
