//! `ashlar placement what-if`: the placement of a changed cluster beside the present one.

use super::{Connection, with};
use crate::admin::status::Statistics;
use crate::metadata::Metadata;
use crate::{output, size};
use anyhow::{Context, Result, bail};
use ashlar_core::id::{OsdId, PgId, PoolId};
use ashlar_core::map::place::figures::{Figures, figures};
use ashlar_core::map::place::survey::Survey;
use ashlar_core::map::place::{Placement, place};
use ashlar_core::map::{ClusterMap, ImmediateCommit, OsdConfig, OsdRecord, Pool, keys};
use serde::Serialize;
use std::collections::BTreeMap;

/// Members of groups.
type Groups = Vec<Vec<Option<OsdId>>>;

/// Arguments.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub struct Args {
    /// A new OSD on a host, as HOST:SIZE, such as h4:4T.
    #[arg(long, value_name = "HOST:SIZE", value_parser = added)]
    add: Vec<(String, u64)>,
    /// An OSD that is lost for good.
    #[arg(long, value_name = "OSD")]
    lose: Vec<u32>,
    /// An OSD of which another share is used, as OSD=SHARE, such as 7=0.5.
    #[arg(long, value_name = "OSD=SHARE", value_parser = reweighted)]
    reweight: Vec<(u32, f64)>,
    #[command(flatten)]
    rest: Rest,
}

/// What does not change anything.
#[derive(Debug, clap::Args)]
struct Rest {
    /// Only this pool.
    #[arg(long)]
    pool: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

fn added(text: &str) -> Result<(String, u64), String> {
    let (host, bytes) = text.rsplit_once(':').ok_or_else(|| format!("'{text}' is no HOST:SIZE, such as h4:4T"))?;
    if host.is_empty() {
        return Err(format!("'{text}' names no host; write HOST:SIZE, such as h4:4T"));
    }
    Ok((host.into(), size::parse(bytes)?))
}

fn reweighted(text: &str) -> Result<(u32, f64), String> {
    let wrong = || format!("'{text}' is no OSD=SHARE, such as 7=0.5; shares are from 0 to 1");
    let (osd, share) = text.split_once('=').ok_or_else(wrong)?;
    let (osd, share): (u32, f64) = (osd.parse().map_err(|_| wrong())?, share.parse().map_err(|_| wrong())?);
    if (0.0..=1.0).contains(&share) { Ok((osd, share)) } else { Err(wrong()) }
}

/// What becomes of one pool.
#[derive(Debug, Serialize)]
struct Outcome {
    pool: String,
    pgs: usize,
    /// Members of groups that would change, and how many at least must.
    changed: usize,
    at_least: usize,
    /// About; from how full OSDs are now.
    moved_bytes: u64,
    uniformity_before: f64,
    uniformity_after: f64,
    /// Places that nobody could fill.
    holes_before: usize,
    holes_after: usize,
    fullest_after: Option<OsdId>,
}

/// Runs it.
pub async fn run(args: Args) -> Result<()> {
    let connection = &args.rest.connection;
    let metadata = connection.open().await?;
    let map = metadata.map().await?;
    let after = with(&map, &args.changes(&map)?)?;
    print(&metadata, connection, &map, &after, args.rest.pool.as_deref()).await
}

impl Args {
    /// The keys as they would be.
    fn changes(&self, map: &ClusterMap) -> Result<Vec<(String, Vec<u8>)>> {
        let record = |osd: u32| {
            map.osd_record(OsdId(osd))
                .with_context(|| format!("there is no OSD {osd}; `ashlar osd list` shows those there are"))
        };
        let mut puts = Vec::new();
        for (osd, reweight) in &self.reweight {
            record(*osd)?;
            let config = OsdConfig { reweight: *reweight, ..map.osd_config(OsdId(*osd)) };
            puts.push((keys::osd_config(OsdId(*osd)), serde_json::to_vec(&config)?));
        }
        for osd in &self.lose {
            let lost = OsdRecord { out: true, ..record(*osd)?.clone() };
            puts.push((keys::osd_record(OsdId(*osd)), serde_json::to_vec(&lost)?));
        }
        let next = map.osd_records().map(|(osd, _)| osd.0 + 1).max().unwrap_or(0);
        for (osd, (host, size_bytes)) in (next..).zip(&self.add) {
            let immediate_commit = ImmediateCommit::All;
            let new =
                OsdRecord { host: host.clone(), size_bytes: *size_bytes, immediate_commit, ..OsdRecord::default() };
            puts.push((keys::osd_record(OsdId(osd)), serde_json::to_vec(&new)?));
        }
        Ok(puts)
    }
}

/// Prints what the groups of all pools, or of one, would do.
pub async fn print(
    metadata: &Metadata,
    connection: &Connection,
    before: &ClusterMap,
    after: &ClusterMap,
    only: Option<&str>,
) -> Result<()> {
    let weights = Weights::read(metadata, before).await?;
    let chosen = before.pools().filter(|(_, pool)| only.is_none_or(|name| pool.name == name));
    let outcomes: Vec<Outcome> =
        chosen.map(|(id, pool)| outcome(before, after, id, pool, &weights)).collect::<Result<_>>()?;
    if outcomes.is_empty() {
        bail!("there is no such pool; `ashlar pool list` shows those there are");
    }
    connection.output().print(&outcomes, |outcomes| text(outcomes))
}

fn outcome(before: &ClusterMap, after: &ClusterMap, id: PoolId, pool: &Pool, weights: &Weights) -> Result<Outcome> {
    let survey = |map: &ClusterMap| {
        let pool = map.pool(id).unwrap_or(pool);
        Survey::of(map, pool).map_err(|reason| anyhow::anyhow!("pool '{}': {reason}", pool.name))
    };
    let (old, new) = (survey(before)?, survey(after)?);
    let layout = before.layout(id).with_context(|| format!("pool '{}' has no groups yet", pool.name))?;
    let member = |number| before.pg_map(PgId { pool: id, number }).map_or(Vec::new(), |(pg, _)| pg.target.clone());
    let present: Groups = layout.now.numbers().map(member).collect();
    let Placement { groups, moves, filled, least } = place(&new.problem(&present, u64::from(id.0)));
    let was: Figures = figures(&old.problem(&present, 0), &present, false);
    let is: Figures = figures(&new.problem(&present, 0), &groups, false);
    let moved = |(was, is): (&Vec<Option<OsdId>>, &Vec<Option<OsdId>>)| {
        let came = is.iter().enumerate().filter(|(slot, osd)| osd.is_some() && was.get(*slot) != Some(osd)).count();
        weights.of_member(was) * u64::try_from(came).unwrap_or(u64::MAX)
    };
    Ok(Outcome {
        pool: pool.name.clone(),
        pgs: groups.len(),
        changed: moves + filled,
        at_least: least,
        moved_bytes: present.iter().zip(&groups).map(moved).sum(),
        uniformity_before: was.uniformity,
        uniformity_after: is.uniformity,
        holes_before: was.holes,
        holes_after: is.holes,
        fullest_after: is.fullest,
    })
}

/// About how much a member of a group holds on each OSD.
struct Weights(BTreeMap<OsdId, u64>);

impl Weights {
    async fn read(metadata: &Metadata, map: &ClusterMap) -> Result<Weights> {
        let mut members: BTreeMap<OsdId, u64> = BTreeMap::new();
        for member in map.groups().flat_map(|(_, pg)| pg.acting.iter().flatten()) {
            *members.entry(member.osd).or_default() += 1;
        }
        let statistics: BTreeMap<u32, Statistics> = metadata.statistics().await?;
        let of_osd = |(osd, figures): (u32, Statistics)| {
            let used = figures.store.total_bytes.saturating_sub(figures.store.free_bytes);
            (OsdId(osd), used / members.get(&OsdId(osd)).copied().unwrap_or(0).max(1))
        };
        Ok(Weights(statistics.into_iter().map(of_osd).collect()))
    }

    /// The mean over the members of a group.
    fn of_member(&self, group: &[Option<OsdId>]) -> u64 {
        let known: Vec<u64> = group.iter().flatten().filter_map(|osd| self.0.get(osd).copied()).collect();
        known.iter().sum::<u64>() / u64::try_from(known.len().max(1)).unwrap_or(1)
    }
}

fn text(outcomes: &[Outcome]) -> String {
    let headings = ["POOL", "PGS", "CHANGED", "AT LEAST", "MOVED", "UNIFORMITY", "HOLES", "FULLEST"];
    let mut table = output::table(headings);
    for outcome in outcomes {
        let uniformity =
            format!("{:.2} % -> {:.2} %", 100.0 * outcome.uniformity_before, 100.0 * outcome.uniformity_after);
        table.add_row([
            outcome.pool.clone(),
            outcome.pgs.to_string(),
            outcome.changed.to_string(),
            outcome.at_least.to_string(),
            size::human(outcome.moved_bytes),
            uniformity,
            format!("{} -> {}", outcome.holes_before, outcome.holes_after),
            outcome.fullest_after.map_or_else(|| "-".into(), |osd| format!("osd.{osd}")),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_or_refused_with_a_hint() {
        assert_eq!(added("h4:4T"), Ok(("h4".into(), 4 << 40)));
        assert_eq!(added("fe80::1:1G"), Ok(("fe80::1".into(), 1 << 30)));
        assert!(added("h4").is_err_and(|error| error.contains("HOST:SIZE")));
        assert!(added(":1G").is_err_and(|error| error.contains("names no host")));
        assert_eq!(reweighted("7=0.5"), Ok((7, 0.5)));
        for text in ["7", "7=2", "7=x", "x=1", "7=NaN"] {
            assert!(reweighted(text).is_err_and(|error| error.contains("such as 7=0.5")), "{text}");
        }
    }
}
