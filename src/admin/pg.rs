//! `ashlar pg`: list placement groups, and have them scrubbed.

use super::Connection;
use crate::output;
use anyhow::{Context, Result};
use ashlar_core::id::{OsdId, PgId};
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
    /// Read all copies of a group's objects now, compare them, and repair those that are damaged.
    Scrub(Scrub),
    /// The same, and make copies that differ although their checksums match equal to the primary's.
    Repair(Scrub),
}

/// Arguments of `pg scrub` and `pg repair`.
#[derive(Debug, clap::Args)]
pub struct Scrub {
    /// The group, as POOL/NUMBER.
    pg: String,
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
    #[command(flatten)]
    connection: Connection,
}

/// A group: its map, and what its primary says of it.
#[derive(Debug, Serialize)]
pub struct Row {
    /// POOL/NUMBER.
    pub id: String,
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
            (summary.scrub.running, "scrubbing"),
            (summary.scrub.inconsistent > 0, "inconsistent"),
        ];
        let marks = marks.iter().filter(|(set, _)| *set).map(|(_, mark)| format!("+{mark}"));
        std::iter::once(summary.state.clone()).chain(marks).collect()
    }

    /// Every object is whole on as many members as there should be.
    fn is_clean(&self) -> bool {
        let is_clean = |summary: &Summary| summary.clean && summary.state == "active";
        !self.acting.contains(&None) && self.summary.as_ref().is_some_and(is_clean)
    }

    fn is_moving(&self) -> bool {
        self.acting.iter().flatten().any(|osd| !self.target.contains(&Some(*osd)))
    }
}

/// Runs a command.
pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::List(args) => list(args).await,
        Command::Scrub(args) => scrub(args, ScrubOrder::Scrub).await,
        Command::Repair(args) => scrub(args, ScrubOrder::Repair).await,
    }
}

/// Between two looks whether a scrub is done.
const LOOK_PERIOD: Duration = Duration::from_millis(500);

async fn scrub(args: Scrub, order: ScrubOrder) -> Result<()> {
    let metadata = args.connection.open().await?;
    let map = metadata.map().await?;
    let found = map.pg_maps().map(|(id, _)| id).find(|id| id.to_string() == args.pg);
    let id = found.with_context(|| format!("there is no group '{}'; `ashlar pg list` shows them", args.pg))?;
    let value = serde_json::to_vec(&order).expect("a word has a JSON form");
    let put = TxnOp::Put { key: keys::scrub_order(id), value, lease: 0 };
    metadata.transact(Vec::new(), vec![put]).await?;
    while args.wait && metadata.map().await?.scrub_order(id).is_some() {
        tokio::time::sleep(LOOK_PERIOD).await;
    }
    let report = metadata.group_states().await?.remove(&id).unwrap_or_default().scrub;
    args.connection.output().print(&report, |report| match args.wait {
        false => format!("ordered; `ashlar pg list` shows pg {id} as scrubbing until it is done"),
        true => format!(
            "pg {id}: {} damaged copies repaired, {} lost ones replaced since its primary started; {} objects with copies \
             that differ {}",
            report.damaged,
            report.outdated,
            report.inconsistent,
            report.objects.join(", ")
        ),
    })
}

async fn list(args: List) -> Result<()> {
    let metadata = args.connection.open().await?;
    let mut rows = rows(&metadata.map().await?, &metadata.group_states().await?);
    rows.retain(|row| !args.unclean || !row.is_clean());
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

fn members(osds: &[Option<OsdId>]) -> String {
    let names: Vec<_> = osds.iter().map(|osd| osd.map_or_else(|| "-".into(), |osd| osd.to_string())).collect();
    names.join(",")
}

/// All groups that have a map.
pub fn rows(map: &ClusterMap, states: &BTreeMap<PgId, Summary>) -> Vec<Row> {
    let row = |(id, pg): (PgId, &ashlar_core::map::PgMap)| Row {
        id: id.to_string(),
        epoch: pg.epoch.0,
        primary: pg.primary,
        acting: pg.acting.iter().map(|member| member.map(|member| member.osd)).collect(),
        target: pg.target.clone(),
        summary: states.get(&id).filter(|summary| summary.epoch == pg.epoch).cloned(),
    };
    map.pg_maps().map(row).collect()
}
