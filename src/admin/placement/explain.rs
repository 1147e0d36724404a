//! `ashlar placement explain`: the rules of a group's pool, and how its members keep them.

use super::Connection;
use crate::output;
use anyhow::{Context, Result};
use ashlar_core::id::{OsdId, PgId};
use ashlar_core::map::place::figures::figures;
use ashlar_core::map::place::survey::{Survey, is_affine};
use ashlar_core::map::tree::{is_below, path};
use ashlar_core::map::{ClusterMap, OsdRecord, PgMap, Pool};
use serde::Serialize;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The group, as POOL/NUMBER.
    pg: String,
    #[command(flatten)]
    connection: Connection,
}

/// What there is to say.
#[derive(Debug, Serialize)]
struct Explanation {
    pg: String,
    pool: String,
    rules: String,
    parts: Vec<Part>,
    primary: Option<OsdId>,
    notes: Vec<String>,
    /// OSDs that the pool does not use, and why.
    unused: Vec<(OsdId, String)>,
}

/// A member of the group.
#[derive(Debug, Serialize)]
struct Part {
    /// Its rules, as the language writes them.
    rules: String,
    /// Where placement wants it, with the nodes above.
    target: Option<OsdId>,
    place: String,
    /// Who acts.
    acting: Option<OsdId>,
    /// Groups of the pool on the target, and its share.
    groups: u32,
    share: f64,
}

/// Runs it.
pub async fn run(args: Args) -> Result<()> {
    let metadata = args.connection.open().await?;
    let map = metadata.map().await?;
    let found = map.groups().find(|(id, _)| id.to_string() == args.pg);
    let (id, pg) = found.with_context(|| format!("there is no group '{}'; `ashlar pg list` shows them", args.pg))?;
    let explanation = explain(&map, id, pg)?;
    args.connection.output().print(&explanation, text)
}

fn explain(map: &ClusterMap, id: PgId, pg: &PgMap) -> Result<Explanation> {
    let pool = map.pool(id.pool).with_context(|| format!("pool {} was removed", id.pool))?;
    let survey =
        Survey::of(map, pool).map_err(|reason| anyhow::anyhow!("pool '{}' is not placed anew: {reason}", pool.name))?;
    let groups: Vec<_> =
        map.groups().filter(|(other, _)| other.pool == id.pool).map(|(_, pg)| pg.target.clone()).collect();
    let problem = survey.problem(&groups, 0);
    let figures = figures(&problem, &groups, false);
    let part = |(number, rules): (usize, &Vec<_>)| {
        let target = pg.target.get(number).copied().flatten();
        let of_osd = figures.osds.iter().find(|osd| Some(osd.osd) == target);
        let texts: Vec<String> = rules.iter().map(ToString::to_string).collect();
        Part {
            rules: if texts.is_empty() { "any".into() } else { texts.join(" ") },
            target,
            place: target.map_or("nobody".into(), |osd| place(map, osd)),
            acting: pg.acting.get(number).copied().flatten().map(|member| member.osd),
            groups: of_osd.map_or(0, |osd| osd.groups),
            share: of_osd.map_or(0.0, |osd| osd.share),
        }
    };
    let parts: Vec<Part> = survey.rules.parts.iter().enumerate().map(part).collect();
    let mut notes = notes(map, pool, pg);
    let possible = problem.possible();
    if possible.holes > 0 {
        let (holes, osds) = (possible.holes, survey.candidates.len());
        notes.push(format!(
            "the rules leave {holes} of {} parts without an OSD: none of the {osds} usable ones fits",
            parts.len()
        ));
    }
    let reason = |(osd, record): (OsdId, &OsdRecord)| Some((osd, unused(map, pool, osd, record)?));
    let unused = map.osd_records().filter_map(reason).collect();
    let (rules, primary) = (survey.rules.to_string(), pg.primary);
    Ok(Explanation { pg: id.to_string(), pool: pool.name.clone(), rules, parts, primary, notes, unused })
}

/// An OSD and the nodes above it, from the root.
fn place(map: &ClusterMap, osd: OsdId) -> String {
    let host = map.osd_record(osd).map_or("", |record| record.host.as_str());
    let mut names: Vec<&str> = path(map.tree(), osd, host).iter().map(|step| step.name).collect();
    names.reverse();
    format!("{} > osd.{osd}", names.join(" > "))
}

fn notes(map: &ClusterMap, pool: &Pool, pg: &PgMap) -> Vec<String> {
    let mut notes = Vec::new();
    let acting: Vec<OsdId> = pg.acting.iter().flatten().map(|member| member.osd).collect();
    let missing: Vec<OsdId> = pg.target.iter().flatten().copied().filter(|osd| !acting.contains(osd)).collect();
    for osd in missing {
        let why =
            if map.osd_state(osd).is_none() { "is down" } else { "is to take over when others have given it the data" };
        notes.push(format!("osd.{osd} is wanted and {why}"));
    }
    if let Some(primary) = pg.primary
        && !pool.primary_affinity_tags.is_empty()
    {
        let tags = &pool.primary_affinity_tags;
        let has = is_affine(map, pool, primary);
        let other = acting.iter().any(|osd| is_affine(map, pool, *osd));
        notes.push(match (has, other) {
            (true, _) => format!("osd.{primary} is primary: it has the tags {tags}"),
            (false, true) => {
                format!("osd.{primary} is primary until the group is settled: others have the tags {tags}")
            }
            (false, false) => format!("osd.{primary} is primary: no acting member has the tags {tags}"),
        });
    }
    notes
}

/// Why a pool does not use an OSD.
fn unused(map: &ClusterMap, pool: &Pool, osd: OsdId, record: &OsdRecord) -> Option<String> {
    let config = map.osd_config(osd);
    if record.out {
        return Some("out: down for longer than osd_out_time_s".into());
    }
    if config.reweight <= 0.0 {
        return Some("its reweight is 0".into());
    }
    if record.immediate_commit < pool.immediate_commit {
        return Some(format!(
            "keeps {} writes at once, the pool wants {}",
            record.immediate_commit, pool.immediate_commit
        ));
    }
    if !config.tags.include(&pool.osd_tags) {
        return Some(format!("its tags ({}) are not all of osd_tags ({})", config.tags, pool.osd_tags));
    }
    let root = pool.root_node.as_ref().filter(|root| !is_below(map.tree(), osd, &record.host, root))?;
    Some(format!("not below root_node '{root}'"))
}

fn text(explanation: &Explanation) -> String {
    let mut table = output::table(["PART", "RULES", "TARGET", "WHERE", "ACTING", "PGS", "SHARE"]);
    let name = |osd: Option<OsdId>| osd.map_or_else(|| "-".into(), |osd| osd.to_string());
    for (number, part) in explanation.parts.iter().enumerate() {
        let share = format!("{:.1}", part.share);
        table.add_row([
            (number + 1).to_string(),
            part.rules.clone(),
            name(part.target),
            part.place.clone(),
            name(part.acting),
            part.groups.to_string(),
            share,
        ]);
    }
    let mut lines =
        vec![format!("pg {} of pool '{}', primary {}", explanation.pg, explanation.pool, name(explanation.primary))];
    lines.push(format!("rules: {}", explanation.rules));
    lines.push(table.to_string());
    lines.extend(explanation.notes.iter().cloned());
    lines.extend(explanation.unused.iter().map(|(osd, why)| format!("osd.{osd} is not used: {why}")));
    lines.join("\n")
}
