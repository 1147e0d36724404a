//! `ashlar pg`: list placement groups, show one, and have them scrubbed.

use super::{Connection, Watch, pool_named};
use crate::metadata::Metadata;
use crate::output;
use anyhow::{Context, Result};
use ashlar_core::id::{OsdId, PgId, PoolId};
use ashlar_core::map::{ClusterMap, ScrubOrder, keys};
use ashlar_core::meta::TxnOp;
use ashlar_core::pg::Summary;
use clap::Subcommand;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Commands about placement groups.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the groups.
    List(List),
    /// Show one group: who serves it, what it waits for, what its history says.
    Show(Show),
    /// Read all copies of the objects of groups now, compare them, and repair those that are damaged.
    Scrub(Scrub),
    /// The same, and make copies that differ although their checksums match equal to the primary's.
    Repair(Scrub),
}

/// Arguments of `pg scrub` and `pg repair`.
#[derive(Debug, clap::Args)]
pub struct Scrub {
    /// Groups, as `pg list` names them.
    #[arg(value_name = "PG", required_unless_present = "pool")]
    pgs: Vec<String>,
    /// All groups of this pool.
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Come back when it is done, and say what was found.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Arguments of `pg list`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Only those that are not active and clean.
    #[arg(long)]
    unclean: bool,
    /// Only those of this pool.
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Only those of which the state has this word in it, such as degraded, peering or down.
    #[arg(long, value_name = "WORD")]
    state: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// Arguments of `pg show`.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// The group, as `pg list` names it.
    pg: String,
    #[command(flatten)]
    connection: Connection,
}

/// A group: its map, and what its primary says of it.
#[derive(Debug, Serialize)]
pub struct Row {
    /// POOL/NUMBER.
    pub id: String,
    #[serde(skip)]
    pool: PoolId,
    /// Its map's epoch.
    pub epoch: u64,
    /// Who serves it.
    pub primary: Option<OsdId>,
    /// Its members, with holes.
    pub acting: Vec<Option<OsdId>>,
    /// Where it belongs.
    pub target: Vec<Option<OsdId>>,
    /// What its primary says; `None`: nothing, or of an older epoch.
    pub summary: Option<Summary>,
}

impl Row {
    /// Its state in a word.
    pub fn state(&self) -> String {
        let Some(summary) = &self.summary else {
            return if self.primary.is_some() { "starting".into() } else { "down".into() };
        };
        let marks = [
            (self.is_clean(), "clean"),
            (self.acting.contains(&None), "undersized"),
            (summary.degraded > 0, "degraded"),
            (summary.misplaced > 0 || self.is_moving(), "misplaced"),
            (summary.unfound > 0, "unfound"),
            (!summary.full.is_empty(), "full"),
            (summary.scrub.running, "scrubbing"),
            (summary.scrub.inconsistent > 0, "inconsistent"),
        ];
        let marks = marks.iter().filter(|(set, _)| *set).map(|(_, mark)| format!("+{mark}"));
        std::iter::once(summary.state.clone()).chain(marks).collect()
    }

    /// Whether it is a group of this pool.
    pub fn is_of(&self, pool: PoolId) -> bool {
        self.pool == pool
    }

    /// Its primary serves it, every object is whole on all its members, and nothing is left elsewhere. There may be fewer
    /// members than there should.
    pub fn is_whole(&self) -> bool {
        self.summary.as_ref().is_some_and(|summary| summary.clean && summary.state == "active")
    }

    /// Every object is whole on as many members as there should be.
    fn is_clean(&self) -> bool {
        !self.acting.contains(&None) && self.is_whole()
    }

    fn is_moving(&self) -> bool {
        self.acting.iter().flatten().any(|osd| !self.target.contains(&Some(*osd)))
    }
}

/// Runs a command.
pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::List(args) => list(args).await,
        Command::Show(args) => show(args).await,
        Command::Scrub(args) => scrub(args, ScrubOrder::Scrub).await,
        Command::Repair(args) => scrub(args, ScrubOrder::Repair).await,
    }
}

/// Orders in one transaction: well below what a metadata store takes.
const ORDERS_PER_TRANSACTION: usize = 64;

/// A primary's state follows the end of its scrub by one transaction.
const PUBLICATION: Duration = Duration::from_millis(500);

/// What scrubs of some groups found.
#[derive(Debug, Default, Serialize)]
struct Findings {
    groups: usize,
    damaged: u64,
    outdated: u64,
    inconsistent: u64,
    objects: Vec<String>,
}

async fn scrub(args: Scrub, order: ScrubOrder) -> Result<()> {
    let metadata = args.connection.open().await?;
    let ids = chosen(&args, &metadata.map().await?)?;
    let value = serde_json::to_vec(&order).expect("a word has a JSON form");
    let put = |id: &PgId| TxnOp::Put { key: keys::scrub_order(*id), value: value.clone(), lease: 0 };
    for some in ids.chunks(ORDERS_PER_TRANSACTION) {
        metadata.transact(Vec::new(), some.iter().map(put).collect()).await?;
    }
    if args.wait {
        wait(&metadata, &ids).await?;
    }
    let findings = findings(&ids, &metadata.group_states().await?);
    args.connection.output().print(&findings, |findings| match args.wait {
        false => format!("ordered for {} groups; `ashlar pg list` shows which are scrubbing", findings.groups),
        true => format!(
            "{} groups: {} damaged copies repaired, {} lost ones replaced since their primaries started; {} objects with \
             copies that differ {}",
            findings.groups,
            findings.damaged,
            findings.outdated,
            findings.inconsistent,
            findings.objects.join(", ")
        ),
    })
}

/// Waits until orders are carried out.
async fn wait(metadata: &Metadata, ids: &[PgId]) -> Result<()> {
    let mut watch = Watch::new();
    loop {
        let map = metadata.map().await?;
        let left = ids.iter().filter(|id| map.scrub_order(**id).is_some()).count();
        if left == 0 {
            break;
        }
        let all = ids.len();
        watch.pause(|| format!("{left} of {all} groups are not done; this command may be ended, scrubs go on")).await;
    }
    // What was found is published by itself, a moment later.
    tokio::time::sleep(PUBLICATION).await;
    let is_running = |states: &BTreeMap<PgId, Summary>| {
        ids.iter().filter_map(|id| states.get(id)).filter(|summary| summary.scrub.running).count()
    };
    loop {
        match is_running(&metadata.group_states().await?) {
            0 => return Ok(()),
            left => watch.pause(|| format!("{left} groups have not told what they found")).await,
        }
    }
}

/// The groups that arguments name.
fn chosen(args: &Scrub, map: &ClusterMap) -> Result<Vec<PgId>> {
    let mut ids = Vec::new();
    for name in &args.pgs {
        let found = map.groups().map(|(id, _)| id).find(|id| id.to_string() == *name);
        ids.push(found.with_context(|| format!("there is no group '{name}'; `ashlar pg list` shows them"))?);
    }
    if let Some(name) = &args.pool {
        let (pool, _) = pool_named(map, name)?;
        ids.extend(map.groups().map(|(id, _)| id).filter(|id| id.pool == pool));
    }
    Ok(ids)
}

fn findings(ids: &[PgId], states: &BTreeMap<PgId, Summary>) -> Findings {
    let mut findings = Findings { groups: ids.len(), ..Findings::default() };
    for report in ids.iter().filter_map(|id| states.get(id)).map(|summary| &summary.scrub) {
        findings.damaged += report.damaged;
        findings.outdated += report.outdated;
        findings.inconsistent += report.inconsistent;
        findings.objects.extend(report.objects.iter().cloned());
    }
    findings
}

impl List {
    fn wants(&self, row: &Row, pool: Option<PoolId>) -> bool {
        let is_in = |word: &String| row.state().split('+').any(|part| part == word);
        (!self.unclean || !row.is_clean()) && pool.is_none_or(|pool| row.is_of(pool)) && self.state.iter().all(is_in)
    }
}

async fn list(args: List) -> Result<()> {
    let metadata = args.connection.open().await?;
    let map = metadata.map().await?;
    let pool = args.pool.as_deref().map(|name| pool_named(&map, name)).transpose()?.map(|(id, _)| id);
    let mut rows = rows(&map, &metadata.group_states().await?);
    rows.retain(|row| args.wants(row, pool));
    args.connection.output().print(&rows, |rows| {
        let mut table = output::table(["PG", "STATE", "EPOCH", "PRIMARY", "ACTING", "TARGET", "DEGRADED", "WAITS FOR"]);
        for row in rows {
            let summary = row.summary.clone().unwrap_or_default();
            let primary = row.primary.map_or_else(|| "-".into(), |osd| osd.to_string());
            let cells = [
                row.id.clone(),
                row.state(),
                row.epoch.to_string(),
                primary,
                members(&row.acting),
                members(&row.target),
            ];
            table.add_row(cells.into_iter().chain([summary.degraded.to_string(), summary.waits_for.join(", ")]));
        }
        table.to_string()
    })
}

async fn show(args: Show) -> Result<()> {
    let metadata = args.connection.open().await?;
    let map = metadata.map().await?;
    let all = rows(&map, &metadata.group_states().await?);
    let row = all.into_iter().find(|row| row.id == args.pg);
    let row = row.with_context(|| format!("there is no group '{}'; `ashlar pg list` shows them", args.pg))?;
    let history = map.groups().map(|(id, _)| id).find(|id| id.to_string() == args.pg).and_then(|id| map.history(id));
    args.connection.output().print(&row, |row| {
        let mut table = output::table(["", ""]);
        let mut line = |name: &str, value: String| {
            if !value.is_empty() {
                table.add_row([name.to_string(), value]);
            }
        };
        let summary = row.summary.clone().unwrap_or_default();
        line("group", row.id.clone());
        line("state", row.state());
        line("epoch", row.epoch.to_string());
        line("primary", row.primary.map_or_else(|| "none".into(), |osd| osd.to_string()));
        line("acting", members(&row.acting));
        line("target", members(&row.target));
        line("waits for", summary.waits_for.join(", "));
        let trouble = [(summary.degraded, "degraded"), (summary.misplaced, "misplaced"), (summary.unfound, "unfound")];
        let trouble = trouble.iter().filter(|(count, _)| *count > 0).map(|(count, kind)| format!("{count} {kind}"));
        line("objects", trouble.collect::<Vec<_>>().join(", "));
        line("copies that differ", summary.scrub.objects.join(", "));
        if let Some(history) = history {
            line("recorded", format!("epoch {}, whole up to {}", history.last.0, history.base_epoch.0));
        }
        table.to_string()
    })
}

fn members(osds: &[Option<OsdId>]) -> String {
    let names: Vec<_> = osds.iter().map(|osd| osd.map_or_else(|| "-".into(), |osd| osd.to_string())).collect();
    names.join(",")
}

/// All groups that have a map.
pub fn rows(map: &ClusterMap, states: &BTreeMap<PgId, Summary>) -> Vec<Row> {
    let row = |(id, pg): (PgId, &ashlar_core::map::PgMap)| Row {
        id: id.to_string(),
        pool: id.pool,
        epoch: pg.epoch.0,
        primary: pg.primary,
        acting: pg.acting.iter().map(|member| member.map(|member| member.osd)).collect(),
        target: pg.target.clone(),
        summary: states.get(&id).filter(|summary| summary.epoch == pg.epoch).cloned(),
    };
    map.groups().map(row).collect()
}
