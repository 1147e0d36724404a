//! `ashlar placement what-if`: the placement of a changed cluster beside the present one.
//!
//! Owns the figures of a change, for this command and for every `--dry-run` that moves data. Does not own how much is on
//! each OSD (`weights`), nor which group follows which (`origins`).

use super::origins::Origins;
use super::weights::Weights;
use super::{Connection, with};
use crate::admin::pool_named;
use crate::metadata::Metadata;
use crate::{output, size};
use anyhow::{Context, Result};
use ashlar_core::id::{OsdId, PoolId};
use ashlar_core::map::place::figures::{Figures, figures};
use ashlar_core::map::place::survey::Survey;
use ashlar_core::map::place::{Placement, place};
use ashlar_core::map::{ClusterMap, ImmediateCommit, OsdConfig, OsdRecord, Pool, keys};
use serde::Serialize;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    changes: Changes,
    /// Only this pool.
    #[arg(long)]
    pool: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// What would be otherwise; at least one of them. A struct of its own: a group holds the flags of its own struct only.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Changes {
    /// A new OSD on a host, as HOST:SIZE, such as h4:4T.
    #[arg(long, value_name = "HOST:SIZE", value_parser = added)]
    add: Vec<(String, u64)>,
    /// An OSD that is lost for good.
    #[arg(long, value_name = "OSD")]
    lose: Vec<u32>,
    /// An OSD of which another share is used, as OSD=SHARE, such as 7=0.5.
    #[arg(long, value_name = "OSD=SHARE", value_parser = reweighted)]
    reweight: Vec<(u32, f64)>,
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
    pgs_before: usize,
    pgs: usize,
    /// Members of groups that would change, and how many at least must.
    changed: usize,
    at_least: usize,
    /// About; from how much of the pool OSDs hold now.
    moved_bytes: u64,
    /// `None`: it cannot be placed by the present rules.
    uniformity_before: Option<f64>,
    uniformity_after: f64,
    /// Places that nobody could fill.
    holes_before: usize,
    holes_after: usize,
    fullest_after: Option<OsdId>,
}

/// Runs it.
pub async fn run(args: Args) -> Result<()> {
    let metadata = args.connection.open().await?;
    let map = metadata.map().await?;
    let after = with(&map, &args.changes.keys(&map)?)?;
    print(&metadata, &args.connection, &map, &after, args.pool.as_deref()).await
}

impl Changes {
    /// The keys as they would be.
    fn keys(&self, map: &ClusterMap) -> Result<Vec<(String, Vec<u8>)>> {
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

/// Prints what the groups of all pools, or of one, would do. Pools that have no groups yet move nothing.
pub async fn print(
    metadata: &Metadata,
    connection: &Connection,
    before: &ClusterMap,
    after: &ClusterMap,
    only: Option<&str>,
) -> Result<()> {
    let weights = Weights::of(before, &metadata.statistics().await?);
    let outcomes = outcomes(before, after, only, &weights)?;
    connection.output().print(&outcomes, |outcomes| text(outcomes))
}

fn outcomes(before: &ClusterMap, after: &ClusterMap, only: Option<&str>, weights: &Weights) -> Result<Vec<Outcome>> {
    if let Some(name) = only {
        pool_named(before, name)?;
    }
    let chosen = before.pools().filter(|(_, pool)| only.is_none_or(|name| pool.name == name));
    let placed = chosen.filter(|(id, _)| before.layout(*id).is_some());
    placed.map(|(id, pool)| outcome(before, after, id, pool, weights)).collect()
}

fn outcome(before: &ClusterMap, after: &ClusterMap, id: PoolId, pool: &Pool, weights: &Weights) -> Result<Outcome> {
    let changed = after.pool(id).unwrap_or(pool);
    let new = Survey::of(after, changed).map_err(|reason| anyhow::anyhow!("pool '{}': {reason}", pool.name))?;
    let origins = Origins::of(before, id, changed).with_context(|| format!("pool '{}' has no groups", pool.name))?;
    let begin = origins.begin();
    let Placement { groups, moves, filled, least } = place(&new.problem(&begin, u64::from(id.0)));
    let is: Figures = figures(&new.problem(&begin, 0), &groups, false);
    // What is broken now cannot be compared with; a change that mends it can be looked at all the same.
    let old = Survey::of(before, pool).ok();
    let was = old.map(|old| figures(&old.problem(&origins.former, 0), &origins.former, false));
    let merge = origins.merges().then(|| (origins.came(&groups), origins.least()));
    let (changed, at_least) = merge.unwrap_or((moves + filled, least));
    Ok(Outcome {
        pool: pool.name.clone(),
        pgs_before: origins.former.len(),
        pgs: groups.len(),
        changed,
        at_least,
        moved_bytes: origins.moved_bytes(&groups, |members| weights.of_member(id, members)),
        uniformity_before: was.as_ref().map(|was| was.uniformity),
        uniformity_after: is.uniformity,
        holes_before: origins.former.iter().flatten().filter(|member| member.is_none()).count(),
        holes_after: is.holes,
        fullest_after: is.fullest,
    })
}

fn text(outcomes: &[Outcome]) -> String {
    let headings = ["POOL", "PGS", "CHANGED", "AT LEAST", "MOVED", "UNIFORMITY", "HOLES", "FULLEST"];
    let mut table = output::table(headings);
    for outcome in outcomes {
        let percent = |part: f64| format!("{:.2} %", 100.0 * part);
        let before = outcome.uniformity_before.map_or_else(|| "?".into(), percent);
        let uniformity = format!("{before} -> {}", percent(outcome.uniformity_after));
        let pgs = if outcome.pgs == outcome.pgs_before {
            outcome.pgs.to_string()
        } else {
            format!("{} -> {}", outcome.pgs_before, outcome.pgs)
        };
        table.add_row([
            outcome.pool.clone(),
            pgs,
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
    use clap::Parser;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn every_kind_of_change_is_understood_and_none_at_all_is_not() {
        let parsed = |line: &str| Line::try_parse_from(line.split(' '));
        for line in ["x --lose 7", "x --add h4:4T", "x --reweight 3=0.5", "x --lose 7 --lose 8 --add h4:1G --pool vms"]
        {
            assert!(parsed(line).is_ok(), "{line}: {:?}", parsed(line).err());
        }
        let refusal = parsed("x --pool vms").expect_err("nothing changes").to_string();
        assert!(refusal.contains("--lose <OSD>"), "{refusal}");
    }

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
