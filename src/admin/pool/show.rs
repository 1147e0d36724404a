//! `ashlar pool show`: everything about one pool: its parameters, its groups, what is in it, what clients do to it.

use super::Connection;
use crate::admin::redundancy::Redundancy;
use crate::admin::status::{BETWEEN_LOOKS, Statistics};
use crate::admin::{pg, pool_named};
use crate::{output, size};
use anyhow::Result;
use ashlar_core::id::PoolId;
use ashlar_core::map::{ClusterMap, Pool, Tags};
use ashlar_core::osd::ClientCounters;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Arguments of `pool show`.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// Its name.
    name: String,
    /// Do not wait for rates of client I/O, which take two looks.
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    connection: Connection,
}

/// What OSDs hold of a pool, and did for clients of it.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct PoolFigures {
    /// Served to clients, since the OSDs started.
    #[serde(flatten)]
    pub client: ClientCounters,
    /// Copies (chunks, of erasure-coded objects) with data.
    pub copies: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Bytes of devices that these copies take.
    pub used_bytes: u64,
}

/// The sum over all OSDs.
pub fn figures(statistics: &BTreeMap<u32, Statistics>, pool: PoolId) -> PoolFigures {
    let mut sum = PoolFigures::default();
    for figures in statistics.values().filter_map(|statistics| statistics.pools.get(&pool)) {
        sum.client.add(&figures.client);
        sum.copies += figures.copies;
        sum.tombstones += figures.tombstones;
        sum.used_bytes += figures.used_bytes;
    }
    sum
}

/// Rates per second, by the OSDs' own clocks.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct PoolRates {
    /// Reads.
    pub read_ops: f64,
    /// Writes.
    pub write_ops: f64,
    /// Bytes read.
    pub read_bytes: f64,
    /// Bytes written.
    pub write_bytes: f64,
}

impl PoolRates {
    /// From what OSDs published twice. One that published nothing new did nothing; one that restarted counts anew.
    pub fn between(before: &BTreeMap<u32, Statistics>, after: &BTreeMap<u32, Statistics>, pool: PoolId) -> PoolRates {
        let mut rates = PoolRates::default();
        for (osd, now) in after {
            let Some(then) = before.get(osd).filter(|then| then.time_ms < now.time_ms) else { continue };
            let seconds = (now.time_ms - then.time_ms) as f64 / 1_000.0;
            let of = |statistics: &Statistics| statistics.pools.get(&pool).map(|pool| pool.client).unwrap_or_default();
            let (then, now) = (of(then), of(now));
            let rate = |then: u64, now: u64| now.saturating_sub(then) as f64 / seconds;
            rates.read_ops += rate(then.read_ops, now.read_ops);
            rates.write_ops += rate(then.write_ops, now.write_ops);
            rates.read_bytes += rate(then.read_bytes, now.read_bytes);
            rates.write_bytes += rate(then.write_bytes, now.write_bytes);
        }
        rates
    }
}

#[derive(Serialize)]
struct Report {
    id: PoolId,
    #[serde(flatten)]
    pool: Pool,
    /// Groups at present.
    groups: u32,
    /// Groups by state.
    states: BTreeMap<String, u64>,
    images: usize,
    images_removing: usize,
    images_bytes: u64,
    figures: PoolFigures,
    #[serde(skip_serializing_if = "Option::is_none")]
    rates: Option<PoolRates>,
}

impl Show {
    /// Prints it.
    pub async fn run(self) -> Result<()> {
        let metadata = self.connection.open().await?;
        let before = metadata.statistics::<Statistics>().await?;
        let (id, _) = pool_named(&metadata.map().await?, &self.name).map(|(id, pool)| (id, pool.clone()))?;
        if !self.quick {
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        let (map, after) = (metadata.map().await?, metadata.statistics::<Statistics>().await?);
        let (_, pool) = pool_named(&map, &self.name)?;
        let mut states = BTreeMap::new();
        for row in pg::rows(&map, &metadata.group_states().await?).iter().filter(|row| row.is_of(id)) {
            *states.entry(row.state()).or_default() += 1;
        }
        let rates = (!self.quick).then(|| PoolRates::between(&before, &after, id));
        let report = Report { states, rates, figures: figures(&after, id), ..Report::of(&map, id, pool) };
        self.connection.output().print(&report, Report::text)
    }
}

impl Report {
    fn of(map: &ClusterMap, id: PoolId, pool: &Pool) -> Report {
        let images = || map.images().filter(|(of, ..)| *of == id).map(|(.., image)| image);
        Report {
            id,
            pool: pool.clone(),
            groups: map.layout(id).map_or(0, |layout| layout.now.pg_count),
            states: BTreeMap::new(),
            images: images().count(),
            images_removing: images().filter(|image| image.removing).count(),
            images_bytes: images().filter(|image| !image.removing).map(|image| image.size_bytes).sum(),
            figures: PoolFigures::default(),
            rates: None,
        }
    }

    fn text(&self) -> String {
        let mut table = output::table(["", ""]);
        let rows = self.parameters().into_iter().chain(self.contents());
        rows.filter(|(_, value)| !value.is_empty()).for_each(|(name, value)| {
            table.add_row([name.to_string(), value]);
        });
        table.to_string()
    }

    fn parameters(&self) -> Vec<(&'static str, String)> {
        let pool = &self.pool;
        let tags = |tags: &Tags| tags.0.iter().cloned().collect::<Vec<_>>().join(",");
        let scrubs = match pool.scrub_interval_s {
            0 => "only when ordered".to_string(),
            seconds => format!("every {} h", seconds as f64 / 3600.0),
        };
        let going = if pool.removing { " (being removed)" } else { "" };
        vec![
            ("pool", format!("{} '{}'{going}", self.id, pool.name)),
            ("scheme", Redundancy::of(pool).to_string()),
            ("pg_size", pool.pg_size.to_string()),
            ("pg_minsize", pool.pg_minsize.to_string()),
            ("pg_count", self.groups_text()),
            ("object", size::human(pool.object_bytes().into())),
            ("block_size", size::human(pool.block_size.into())),
            ("immediate_commit", pool.immediate_commit.to_string()),
            ("failure_domain", pool.failure_domain.clone()),
            ("level_placement", pool.level_placement.clone().unwrap_or_default()),
            ("raw_placement", pool.raw_placement.clone().unwrap_or_default()),
            ("root_node", pool.root_node.clone().unwrap_or_default()),
            ("osd_tags", tags(&pool.osd_tags)),
            ("primary_affinity_tags", tags(&pool.primary_affinity_tags)),
            ("scrubs", scrubs),
        ]
    }

    fn groups_text(&self) -> String {
        let (groups, wanted) = (self.groups, self.pool.pg_count);
        if groups == wanted { wanted.to_string() } else { format!("{groups}, {wanted} are wanted") }
    }

    fn contents(&self) -> Vec<(&'static str, String)> {
        let PoolFigures { client, copies, tombstones, used_bytes } = self.figures;
        let states: Vec<_> = self.states.iter().map(|(state, count)| format!("{count} {state}")).collect();
        let removing = match self.images_removing {
            0 => String::new(),
            number => format!(", {number} of them being removed"),
        };
        let bytes = |bytes: f64| size::human(bytes as u64);
        let rates = self.rates.map_or_else(String::new, |rates| {
            let (read, written) = (bytes(rates.read_bytes), bytes(rates.write_bytes));
            format!("{:.0} reads/s ({read}/s), {:.0} writes/s ({written}/s)", rates.read_ops, rates.write_ops)
        });
        vec![
            ("groups", states.join(", ")),
            ("images", format!("{} of {}{removing}", self.images, size::human(self.images_bytes))),
            ("used", format!("{} by {copies} copies, {tombstones} tombstones", size::human(used_bytes))),
            ("reads", format!("{} of {}", client.read_ops, size::human(client.read_bytes))),
            ("writes", format!("{} of {}, since its OSDs started", client.write_ops, size::human(client.write_bytes))),
            ("client", rates),
        ]
    }
}
