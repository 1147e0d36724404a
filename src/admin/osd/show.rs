//! `ashlar osd show`: everything about one OSD.

use super::{Connection, Row, row, state};
use crate::admin::status::Statistics;
use crate::{output, size};
use anyhow::{Result, bail};
use ashlar_core::id::OsdId;
use ashlar_core::map::{ClusterMap, OsdRecord};
use serde::Serialize;

/// Arguments of `osd show`.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// Its number.
    osd: u32,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    row: Row,
    store: Option<String>,
    immediate_commit: String,
    used_bytes: u64,
    copies: u64,
    tombstones: u64,
    damaged_copies: u64,
    /// The same by pool.
    used_by_pool: Vec<(String, u64)>,
    /// Groups of which it is a member.
    groups: Vec<String>,
}

impl Show {
    /// Prints it.
    pub async fn run(self) -> Result<()> {
        let metadata = self.connection.open().await?;
        let (map, osd) = (metadata.map().await?, OsdId(self.osd));
        if map.osd_state(osd).is_none() && map.osd_record(osd).is_none() {
            bail!("there is no OSD {osd}; `ashlar osd list` shows those there are");
        }
        let mut statistics = metadata.statistics::<Statistics>().await?;
        let report = Report::of(&map, osd, &statistics.remove(&self.osd).unwrap_or_default());
        self.connection.output().print(&report, Report::text)
    }
}

impl Report {
    fn of(map: &ClusterMap, osd: OsdId, statistics: &Statistics) -> Report {
        let name = |id| map.pool(id).map_or_else(|| format!("({id})"), |pool| pool.name.clone());
        let pools = statistics.pools.iter().map(|(id, figures)| (name(*id), figures.used_bytes));
        let member = |pg: &ashlar_core::map::PgMap| pg.acting.iter().flatten().any(|member| member.osd == osd);
        let record = map.osd_record(osd).map(|record: &OsdRecord| record.immediate_commit);
        let commit = map.osd_state(osd).map(|state| state.immediate_commit).or(record).unwrap_or_default();
        Report {
            row: row(map, osd),
            store: map.osd_state(osd).map(|state| state.store.to_string()),
            immediate_commit: commit.to_string(),
            used_bytes: statistics.store.used_bytes(),
            copies: statistics.store.objects,
            tombstones: statistics.store.tombstones,
            damaged_copies: statistics.store.damaged,
            used_by_pool: pools.collect(),
            groups: map.groups().filter(|(_, pg)| member(pg)).map(|(id, _)| id.to_string()).collect(),
        }
    }

    fn text(&self) -> String {
        let Report { row, .. } = self;
        let mut table = output::table(["", ""]);
        let mut line = |name: &str, value: String| {
            if !value.is_empty() {
                table.add_row([name.to_string(), value]);
            }
        };
        line("osd", row.id.to_string());
        line("state", state(row));
        line("host", row.host.clone());
        line("address", row.address.clone());
        line("store", self.store.clone().unwrap_or_default());
        line("durable at once", self.immediate_commit.clone());
        line("reweight", row.reweight.to_string());
        line("tags", row.tags.join(","));
        line("size", size::human(row.size_bytes));
        line(
            "used",
            format!("{} by {} copies, {} tombstones", size::human(self.used_bytes), self.copies, self.tombstones),
        );
        for (pool, bytes) in &self.used_by_pool {
            line(&format!("  pool '{pool}'"), size::human(*bytes));
        }
        if self.damaged_copies > 0 {
            line("damaged copies", self.damaged_copies.to_string());
        }
        line("down for", row.down_s.map_or_else(String::new, |seconds| format!("{seconds} s, about")));
        if row.falls > 0 {
            line("falls", format!("{}, lately", row.falls));
        }
        let reporters: Vec<_> = row.unreachable_from.iter().map(ToString::to_string).collect();
        line("unreachable from", reporters.join(", "));
        line("groups", format!("{}, primary of {}", row.pgs, row.primary_pgs));
        table.to_string()
    }
}
