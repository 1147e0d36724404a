//! `ashlar osd`: list OSDs, show one, change how much of one is used, forget one that is gone.

mod remove;
mod show;

use super::placement::{self, what_if};
use super::pool::tags;
use super::{ATTEMPTS, Connection};
use crate::{output, size};
use anyhow::{Result, bail};
use ashlar_core::id::OsdId;
use ashlar_core::map::{ClusterMap, OsdConfig, OsdRecord, OsdState, PgMap, keys, parse};
use ashlar_core::meta::Compare;
use clap::Subcommand;
use serde::Serialize;
use std::collections::BTreeSet;

/// Commands about OSDs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the OSDs.
    List(Connection),
    /// Show one: where it is, what it holds and serves, what is known against it.
    Show(show::Show),
    /// Set the share of its size that placement uses: 0 empties it.
    Reweight(Reweight),
    /// Set what placement knows of it: its share, its tags, whether it may be taken out.
    Set(Set),
    /// Forgive an OSD that came and went too often: it is not held down any longer.
    Readmit(Readmit),
    /// Forget an OSD that is down and holds nothing any more.
    Remove(remove::Remove),
}

/// Arguments of `osd reweight`.
#[derive(Debug, clap::Args)]
pub struct Reweight {
    /// Its number.
    osd: u32,
    /// From 0 to 1.
    share: f64,
    /// Only say what groups would move.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Arguments of `osd set`.
#[derive(Debug, clap::Args)]
pub struct Set {
    /// Its number.
    osd: u32,
    #[command(flatten)]
    changes: Changes,
    /// Only say what groups would move.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connection: Connection,
}

/// What can be set; at least one of them.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Changes {
    /// Share of its size that placement uses, from 0 to 1.
    #[arg(long, value_name = "SHARE")]
    reweight: Option<f64>,
    /// All its tags, separated by commas; empty for none. Pools choose OSDs by them.
    #[arg(long)]
    tags: Option<String>,
    /// Whether its data stay where they are, however long it is down.
    #[arg(long, value_name = "true|false")]
    noout: Option<bool>,
}

/// Arguments of `osd readmit`.
#[derive(Debug, clap::Args)]
pub struct Readmit {
    /// Its number.
    osd: u32,
    #[command(flatten)]
    connection: Connection,
}

/// What is known of an OSD.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its number.
    pub id: OsdId,
    /// Whether it runs and nobody says that it cannot be reached.
    pub up: bool,
    /// Whether its store lost metadata: it only helps others to recover, and must be built anew.
    pub is_damaged: bool,
    /// It was told to stop, and hands its groups over.
    pub is_leaving: bool,
    /// OSDs that cannot reach it.
    pub unreachable_from: Vec<OsdId>,
    /// Its data are copied elsewhere.
    pub out: bool,
    /// It runs, but came and went too often to be let in now.
    pub held: bool,
    /// How often it went down without having said so, lately.
    pub falls: u32,
    /// Seconds for which it has been down, in steps.
    pub down_s: Option<u64>,
    /// Where it is.
    pub host: String,
    /// Where it listens; empty: it is down.
    pub address: String,
    /// Bytes for data.
    pub size_bytes: u64,
    /// Share of it that placement uses.
    pub reweight: f64,
    /// What pools choose it by.
    pub tags: Vec<String>,
    /// Its data stay where they are, however long it is down.
    pub noout: bool,
    /// Groups of which it is a member.
    pub pgs: usize,
    /// Groups that it serves.
    pub primary_pgs: usize,
}

/// Runs a command.
pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::List(connection) => list(&connection).await,
        Command::Show(args) => args.run().await,
        Command::Reweight(args) => {
            let changes = Changes { reweight: Some(args.share), tags: None, noout: None };
            set(Set { osd: args.osd, changes, dry_run: args.dry_run, connection: args.connection }).await
        }
        Command::Set(args) => set(args).await,
        Command::Readmit(args) => readmit(args).await,
        Command::Remove(args) => args.run().await,
    }
}

/// All OSDs that run, or of which something is recorded.
pub fn rows(map: &ClusterMap) -> Vec<Row> {
    let running = map.osd_states().map(|(id, _)| id);
    let known: BTreeSet<OsdId> = running.chain(map.osd_records().map(|(id, _)| id)).collect();
    known.into_iter().map(|id| row(map, id)).collect()
}

fn row(map: &ClusterMap, id: OsdId) -> Row {
    let (state, record) = (map.osd_state(id), map.osd_record(id));
    let accused = |(osd, by, report): (OsdId, OsdId, u64)| {
        (osd == id && state.is_some_and(|s| s.incarnation.0 == report)).then_some(by)
    };
    let reports = map.failure_reports().map(|(osd, by, report, _)| (osd, by, report.incarnation.0));
    let (own, others): (Vec<OsdId>, Vec<OsdId>) = reports.filter_map(accused).partition(|by| *by == id);
    let member = |pg: &PgMap| pg.acting.iter().flatten().any(|acting| acting.osd == id);
    Row {
        id,
        up: state.is_some(),
        is_damaged: state.is_some_and(|state| !state.trusted),
        is_leaving: !own.is_empty(),
        unreachable_from: others,
        out: record.is_some_and(|record| record.out),
        held: is_held(map, state, record),
        falls: record.map_or(0, |record| record.falls),
        down_s: record.and_then(|record| record.down_s),
        host: state.map(|s| s.host.clone()).or(record.map(|r| r.host.clone())).unwrap_or_default(),
        address: state.map(|s| s.address.clone()).unwrap_or_default(),
        size_bytes: state.map(|s| s.size_bytes).or(record.map(|r| r.size_bytes)).unwrap_or_default(),
        reweight: map.osd_config(id).reweight,
        tags: map.osd_config(id).tags.0.into_iter().collect(),
        noout: map.osd_config(id).noout,
        pgs: map.groups().filter(|(_, pg)| member(pg)).count(),
        primary_pgs: map.groups().filter(|(_, pg)| pg.primary == Some(id)).count(),
    }
}

/// Whether an OSD that runs, and that nobody accuses, counts as down by its record.
fn is_held(map: &ClusterMap, state: Option<&OsdState>, record: Option<&OsdRecord>) -> bool {
    let limit = map.global().map_or(0, |global| global.osd_flap_limit);
    let counts = |record: &OsdRecord| limit > 0 && record.falls > limit && record.down_s.is_some();
    state.is_some_and(|state| state.trusted) && record.is_some_and(counts)
}

async fn list(connection: &Connection) -> Result<()> {
    let map = connection.open().await?.map().await?;
    connection.output().print(&rows(&map), |rows| {
        let mut table =
            output::table(["OSD", "STATE", "HOST", "ADDRESS", "SIZE", "REWEIGHT", "PGS", "PRIMARY", "TAGS"]);
        for row in rows {
            let cells =
                [row.id.to_string(), state(row), row.host.clone(), row.address.clone(), size::human(row.size_bytes)];
            let numbers =
                [row.reweight.to_string(), row.pgs.to_string(), row.primary_pgs.to_string(), row.tags.join(",")];
            table.add_row(cells.into_iter().chain(numbers));
        }
        table.to_string()
    })
}

/// Its state in words.
pub fn state(row: &Row) -> String {
    let out = if row.out {
        ", out"
    } else if row.noout {
        ", noout"
    } else {
        ""
    };
    match (row.up, row.unreachable_from.len()) {
        _ if row.is_damaged => format!("store damaged{out}"),
        (false, _) => format!("down{out}"),
        (true, 0) if row.held => format!("held down after {} falls{out}", row.falls),
        _ if row.is_leaving => format!("leaving{out}"),
        (true, 0) => format!("up{out}"),
        (true, reporters) => format!("up, unreachable from {reporters}{out}"),
    }
}

async fn set(args: Set) -> Result<()> {
    let metadata = args.connection.open().await?;
    let osd = OsdId(args.osd);
    let map = metadata.map().await?;
    if map.osd_state(osd).is_none() && map.osd_record(osd).is_none() {
        bail!("there is no OSD {osd}; `ashlar osd list` shows those there are");
    }
    let key = keys::osd_config(osd);
    let revision = metadata.get(&key).await?.map_or(0, |stored| stored.mod_revision);
    let config = args.changes.apply(map.osd_config(osd));
    parse::check_osd_config(&config).map_err(|reason| anyhow::anyhow!("OSD {osd}: {reason}"))?;
    if args.dry_run {
        let after = placement::with(&map, &[(key, serde_json::to_vec(&config)?)])?;
        placement::check_pools(&map, &after)?;
        return what_if::print(&metadata, &args.connection, &map, &after, None).await;
    }
    if !metadata.put_if(vec![Compare::ModRevision(key.clone(), revision)], &key, serde_json::to_vec(&config)?).await? {
        bail!("somebody else changed OSD {osd} at the same moment; look at it and run this again");
    }
    let row = row(&metadata.map().await?, osd);
    args.connection.output().print(&row, |row| {
        let tags = if row.tags.is_empty() { "no tags".into() } else { format!("tags {}", row.tags.join(",")) };
        let noout = if row.noout { ", never taken out" } else { "" };
        format!("OSD {}: {} of its size is used, {tags}{noout}", row.id, row.reweight)
    })
}

impl Changes {
    fn apply(&self, mut config: OsdConfig) -> OsdConfig {
        config.reweight = self.reweight.unwrap_or(config.reweight);
        config.noout = self.noout.unwrap_or(config.noout);
        config.tags = self.tags.as_deref().map_or(config.tags, tags);
        config
    }
}

/// The record is the leading monitor's; a change that compares its revision is safe beside it.
async fn readmit(args: Readmit) -> Result<()> {
    let metadata = args.connection.open().await?;
    let osd = OsdId(args.osd);
    for _ in 0..ATTEMPTS {
        let map = metadata.map().await?;
        let Some(record) = map.osd_record(osd) else {
            bail!("there is no OSD {osd}; `ashlar osd list` shows those there are");
        };
        let (key, revision) = (keys::osd_record(osd), map.mod_revision(parse::Key::OsdRecord(osd)));
        let forgiven = serde_json::to_vec(&OsdRecord { falls: 0, ..record.clone() })?;
        if metadata.put_if(vec![Compare::ModRevision(key.clone(), revision)], &key, forgiven).await? {
            return args.connection.output().print(&serde_json::json!({ "readmitted": osd }), |_| {
                format!("OSD {osd} is forgiven; it serves as soon as it runs")
            });
        }
    }
    bail!("the record of OSD {osd} kept changing; run this again")
}
