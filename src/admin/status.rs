//! `ashlar status`: the whole cluster on a screen.

use super::pool::show::{self, PoolFigures};
use super::{Connection, osd, pg};
use crate::metadata::Metadata;
use crate::size;
use anyhow::Result;
use ashlar_core::id::{ClusterUuid, PgId, PgNumber, PoolId};
use ashlar_core::map::parse::Key;
use ashlar_core::map::place::survey::Survey;
use ashlar_core::map::{ClusterMap, Pool, default_near_full_percent, keys};
use ashlar_core::meta::KeyValue;
use ashlar_core::osd::ClientCounters;
use ashlar_core::stages::Stages;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// OSDs publish figures every 2 s while they change; this is a little longer, so that two looks see two figures.
pub const BETWEEN_LOOKS: Duration = Duration::from_millis(2_200);

/// Pools on the screen; `ashlar pool list` shows all.
const POOLS_SHOWN: usize = 8;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Do not wait for rates of client I/O, which take two looks.
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    connection: Connection,
}

/// What an OSD publishes of its work, as far as it matters here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Statistics {
    /// The OSD's clock when it published.
    pub time_ms: u64,
    /// Served to clients.
    pub client: ClientCounters,
    /// Of its store.
    pub store: StoreFigures,
    /// Where the time of operations went.
    pub stages: Stages,
    /// Counters of its runtime.
    pub runtime: BTreeMap<String, u64>,
    /// By pool: what it holds, and served.
    pub pools: BTreeMap<PoolId, PoolFigures>,
}

/// Figures of a store.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct StoreFigures {
    /// Bytes for data.
    pub total_bytes: u64,
    /// Free bytes for data, the reserve not among them.
    pub free_bytes: u64,
    /// Free bytes that are kept for replacing what is there.
    pub reserved_bytes: u64,
    /// Copies.
    pub objects: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Damaged copies.
    pub damaged: u64,
    /// Payload written.
    pub written_bytes: u64,
    /// Written to devices.
    pub device_written_bytes: u64,
    /// Device writes.
    pub device_writes: u64,
    /// Device flushes.
    pub device_flushes: u64,
}

impl StoreFigures {
    /// Bytes that hold data.
    pub fn used_bytes(&self) -> u64 {
        self.total_bytes.saturating_sub(self.free_bytes).saturating_sub(self.reserved_bytes)
    }

    /// How full it is: what holds data, of what data may take. Nothing of a store that says nothing of itself.
    pub fn used_percent(&self) -> Option<u64> {
        let room = u128::from(self.total_bytes.saturating_sub(self.reserved_bytes));
        let percent = (u128::from(self.used_bytes()) * 100).checked_div(room)?;
        u64::try_from(percent).ok()
    }
}

/// Rates of client I/O per second.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Rates {
    read_ops: f64,
    write_ops: f64,
    read_bytes: f64,
    write_bytes: f64,
}

/// A pool whose number of groups is changing.
#[derive(Serialize)]
struct Regrouping {
    pool: String,
    /// Groups at present.
    groups: u32,
    /// Groups that are wanted.
    wanted: u32,
    /// Groups that still gather objects from the groups before them.
    gathering: usize,
}

/// The whole cluster.
#[derive(Default, Serialize)]
pub struct Status {
    cluster: Option<ClusterUuid>,
    monitor: Option<String>,
    osds: Vec<osd::Row>,
    space: StoreFigures,
    /// Bytes of `space` that hold data, all copies counted.
    used_bytes: u64,
    pools: usize,
    images: usize,
    images_removing: usize,
    /// Bytes that the images promise; only what was written takes space.
    images_bytes: u64,
    pgs: BTreeMap<String, u64>,
    regrouping: Vec<Regrouping>,
    degraded_objects: u64,
    misplaced_objects: u64,
    unfound_objects: u64,
    inconsistent_objects: u64,
    waits_for: BTreeMap<String, u64>,
    /// Groups whose recovery waits for space, by OSD.
    full: BTreeMap<String, u64>,
    /// OSDs that are nearly full, in percent.
    near_full: BTreeMap<u32, u64>,
    rates: Option<Rates>,
    problems: Vec<String>,
    /// `config/global` or `config/pools` makes no sense, so that the figures above say less than there is.
    unreadable: Vec<String>,
    /// What is in each pool.
    by_pool: BTreeMap<String, PoolFigures>,
}

/// Prints the status.
pub async fn run(args: Args) -> Result<()> {
    let metadata = args.connection.open().await?;
    let before = metadata.statistics::<Statistics>().await?;
    let rates = if args.quick {
        None
    } else {
        tokio::time::sleep(BETWEEN_LOOKS).await;
        Some(Rates::between(&before, &metadata.statistics().await?))
    };
    let status = gather(&metadata, rates).await?;
    args.connection.output().print(&status, Status::text)
}

async fn gather(metadata: &Metadata, rates: Option<Rates>) -> Result<Status> {
    let map = metadata.map().await?;
    let statistics = metadata.statistics().await?;
    let near = map.global().map_or_else(default_near_full_percent, |global| global.near_full_percent);
    let groups = pg::rows(&map, &metadata.group_states().await?);
    let mut status = Status {
        cluster: map.global().map(|global| global.cluster),
        monitor: map.leader().map(|(leader, _)| leader.address.clone()),
        osds: osd::rows(&map),
        space: space(&statistics),
        used_bytes: space(&statistics).used_bytes(),
        pools: map.pools().count(),
        images: map.images().count(),
        images_removing: map.images().filter(|(.., image)| image.removing).count(),
        images_bytes: map.images().filter(|(.., image)| !image.removing).map(|(.., image)| image.size_bytes).sum(),
        pgs: BTreeMap::new(),
        regrouping: map.pools().filter_map(|(id, pool)| Regrouping::of(&map, id, pool)).collect(),
        degraded_objects: 0,
        misplaced_objects: 0,
        unfound_objects: 0,
        inconsistent_objects: 0,
        waits_for: BTreeMap::new(),
        full: BTreeMap::new(),
        near_full: near_full(&statistics, near.into()),
        rates,
        problems: problems(&map, &metadata.prefix("config/").await?.1),
        unreadable: unreadable(&map),
        by_pool: map.pools().map(|(id, pool)| (pool.name.clone(), show::figures(&statistics, id))).collect(),
    };
    groups.iter().for_each(|group| status.count(group));
    Ok(status)
}

/// Keys that the first lines are made of, and whose values are refused.
fn unreadable(map: &ClusterMap) -> Vec<String> {
    let keys = [(Key::Global, keys::global()), (Key::Pools, keys::pools())];
    keys.into_iter().filter(|(key, _)| map.is_refused(*key)).map(|(_, name)| name).collect()
}

/// What is wrong with the configuration: values that are refused, pools that cannot be placed, keys that nobody reads.
fn problems(map: &ClusterMap, config: &[KeyValue]) -> Vec<String> {
    let refused = map.errors().map(ToString::to_string);
    let unplaced = map.pools().filter_map(|(_, pool)| {
        let reason = Survey::of(map, pool).err()?;
        Some(format!("pool '{}' is not placed anew, its groups stay where they were wanted: {reason}", pool.name))
    });
    let unknown = config.iter().filter(|kv| Key::parse(&kv.key).is_none());
    let unknown = unknown.map(|kv| format!("{}: nobody reads this key; correct its name, or delete it", kv.key));
    refused.chain(unplaced).chain(unknown).collect()
}

/// OSDs that are fuller than so many percent.
fn near_full(statistics: &BTreeMap<u32, Statistics>, percent: u64) -> BTreeMap<u32, u64> {
    let used = statistics.iter().map(|(osd, statistics)| (*osd, statistics.store.used_percent().unwrap_or(0)));
    used.filter(|(_, used)| *used > percent).collect()
}

fn space(statistics: &BTreeMap<u32, Statistics>) -> StoreFigures {
    let mut sum = StoreFigures::default();
    for store in statistics.values().map(|statistics| statistics.store) {
        sum.total_bytes += store.total_bytes;
        sum.free_bytes += store.free_bytes;
        sum.reserved_bytes += store.reserved_bytes;
        sum.objects += store.objects;
        sum.tombstones += store.tombstones;
        sum.damaged += store.damaged;
        sum.written_bytes += store.written_bytes;
        sum.device_written_bytes += store.device_written_bytes;
        sum.device_writes += store.device_writes;
        sum.device_flushes += store.device_flushes;
    }
    sum
}

impl Regrouping {
    fn of(map: &ClusterMap, id: PoolId, pool: &Pool) -> Option<Self> {
        let layout = map.layout(id)?;
        let gathers = |number: &PgNumber| {
            let history = map.history(PgId { pool: id, number: *number });
            history.map_or(layout.before.is_some(), |history| !history.ancestors.is_empty())
        };
        let (groups, gathering) = (layout.now.pg_count, layout.now.numbers().filter(gathers).count());
        let changing = groups != pool.pg_count || layout.before.is_some() || gathering > 0;
        changing.then(|| Regrouping { pool: pool.name.clone(), groups, wanted: pool.pg_count, gathering })
    }

    fn text(&self) -> String {
        let Regrouping { pool, groups, wanted, gathering } = self;
        let mut text = format!("pool '{pool}' has {groups} placement groups");
        if groups != wanted {
            text += &format!(", {wanted} are wanted");
        }
        if *gathering > 0 {
            text += &format!(", {gathering} of them gather objects of those before them");
        }
        text
    }
}

impl Rates {
    /// From what OSDs published twice. An OSD that published nothing new did nothing.
    fn between(before: &BTreeMap<u32, Statistics>, after: &BTreeMap<u32, Statistics>) -> Rates {
        let mut rates = Rates::default();
        for (osd, now) in after {
            let Some(then) = before.get(osd).filter(|then| then.time_ms < now.time_ms) else { continue };
            let seconds = (now.time_ms - then.time_ms) as f64 / 1_000.0;
            // Counters of an OSD that restarted begin anew.
            let rate = |then: u64, now: u64| now.saturating_sub(then) as f64 / seconds;
            rates.read_ops += rate(then.client.read_ops, now.client.read_ops);
            rates.write_ops += rate(then.client.write_ops, now.client.write_ops);
            rates.read_bytes += rate(then.client.read_bytes, now.client.read_bytes);
            rates.write_bytes += rate(then.client.write_bytes, now.client.write_bytes);
        }
        rates
    }
}

impl Status {
    /// As it is, with rates from what OSDs published twice.
    pub async fn between(
        metadata: &Metadata,
        before: &BTreeMap<u32, Statistics>,
        after: &BTreeMap<u32, Statistics>,
    ) -> Result<Status> {
        gather(metadata, Some(Rates::between(before, after))).await
    }

    fn count(&mut self, group: &pg::Row) {
        *self.pgs.entry(group.state()).or_default() += 1;
        let Some(summary) = &group.summary else { return };
        self.degraded_objects += summary.degraded;
        self.misplaced_objects += summary.misplaced;
        self.unfound_objects += summary.unfound;
        self.inconsistent_objects += summary.scrub.inconsistent;
        for whom in &summary.waits_for {
            *self.waits_for.entry(whom.clone()).or_default() += 1;
        }
        for osd in &summary.full {
            *self.full.entry(format!("osd.{}", osd.0)).or_default() += 1;
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line =
            |name: &str, value: String| writeln!(text, "{name:<10} {value}").expect("a String takes everything");
        line("cluster", self.cluster_text());
        line("monitor", self.monitor.clone().unwrap_or_else(|| "none leads: maps do not change until one does".into()));
        line("osds", self.osds_text());
        line("space", self.space_text());
        line("contents", self.contents_text());
        for (name, figures) in self.by_pool.iter().take(POOLS_SHOWN) {
            let (used, copies) = (size::human(figures.used_bytes), figures.copies);
            line("pool", format!("'{name}': {used} used by {copies} copies"));
        }
        line("pgs", counts(&self.pgs));
        self.regrouping.iter().for_each(|pool| line("regroups", pool.text()));
        line("recovery", self.recovery_text());
        if let Some(rates) = self.rates {
            line("client", rates.text());
        }
        for (whom, groups) in &self.waits_for {
            line("waiting", format!("{groups} placement groups for {whom}"));
        }
        for (osd, groups) in &self.full {
            line("FULL", format!("{groups} placement groups cannot recover on {osd}: delete images, or add OSDs"));
        }
        for (osd, percent) in &self.near_full {
            line("space", format!("osd.{osd} is {percent} % full"));
        }
        self.problems.iter().for_each(|problem| line("PROBLEM", problem.clone()));
        text
    }

    /// Only a store without any sign of a cluster is offered a new one.
    fn cluster_text(&self) -> String {
        let is_used = !self.osds.is_empty() || self.pools > 0 || self.images > 0;
        match self.cluster {
            Some(uuid) => uuid.to_string(),
            None if self.cannot_read(&keys::global()) => "not known: config/global makes no sense, see below".into(),
            None if is_used => {
                "NOT KNOWN: config/global is missing, but there are OSDs, pools or images: restore it".into()
            }
            None => "none yet: `ashlar init`".into(),
        }
    }

    fn cannot_read(&self, key: &str) -> bool {
        self.unreadable.iter().any(|unreadable| unreadable == key)
    }

    fn contents_text(&self) -> String {
        let StoreFigures { objects, tombstones, .. } = self.space;
        let pools = match self.cannot_read(&keys::pools()) {
            true => "pools not known (config/pools makes no sense, see below)".into(),
            false => format!("{} pools", self.pools),
        };
        let mut text = format!("{pools}, {} images of {}", self.images, size::human(self.images_bytes));
        if self.images_removing > 0 {
            text += &format!(" ({} being removed)", self.images_removing);
        }
        text += &format!(", {objects} object copies");
        if tombstones > 0 {
            text += &format!(", {tombstones} tombstones");
        }
        text
    }

    fn osds_text(&self) -> String {
        let serves = |osd: &&osd::Row| osd.up && !osd.held && !osd.is_damaged && osd.unreachable_from.is_empty();
        let up = self.osds.iter().filter(serves).count();
        let out = self.osds.iter().filter(|osd| osd.out).count();
        let down: Vec<_> = self.osds.iter().filter(|osd| !osd.up).map(|osd| osd.id.to_string()).collect();
        let mut text = format!("{up} of {} up", self.osds.len());
        let damaged: Vec<_> = self.osds.iter().filter(|osd| osd.is_damaged).map(|osd| osd.id.to_string()).collect();
        if !damaged.is_empty() {
            text += &format!(", STORE DAMAGED (build it anew): {}", damaged.join(" "));
        }
        let held: Vec<_> = self.osds.iter().filter(|osd| osd.up && osd.held).map(|osd| osd.id.to_string()).collect();
        if !held.is_empty() {
            text += &format!(", HELD DOWN after falls (`ashlar osd readmit`): {}", held.join(" "));
        }
        if !down.is_empty() {
            text += &format!(", down: {}", down.join(" "));
        }
        if out > 0 {
            text += &format!(", {out} out");
        }
        text
    }

    fn space_text(&self) -> String {
        let StoreFigures { total_bytes, reserved_bytes, .. } = self.space;
        let (used, total) = (size::human(self.space.used_bytes()), size::human(total_bytes));
        let mut text = format!("{used} used of {total}, all copies counted");
        if reserved_bytes > 0 {
            text += &format!("; {} kept for replacing what is there", size::human(reserved_bytes));
        }
        text
    }

    fn recovery_text(&self) -> String {
        let mut parts = Vec::new();
        let figures = [
            (self.degraded_objects, "degraded"),
            (self.misplaced_objects, "misplaced"),
            (self.unfound_objects, "UNFOUND"),
            (self.inconsistent_objects, "INCONSISTENT (`ashlar pg repair`)"),
        ];
        parts.extend(
            figures.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} objects {what}")),
        );
        if self.space.damaged > 0 {
            parts.push(format!("{} copies damaged", self.space.damaged));
        }
        if parts.is_empty() { "nothing to do".into() } else { parts.join(", ") }
    }
}

impl Rates {
    fn text(&self) -> String {
        let bytes = |rate: f64| size::human(rate as u64);
        let (read, write) = (bytes(self.read_bytes), bytes(self.write_bytes));
        format!("{:.0} reads/s ({read}/s), {:.0} writes/s ({write}/s)", self.read_ops, self.write_ops)
    }
}

fn counts(states: &BTreeMap<String, u64>) -> String {
    let parts: Vec<_> = states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    if parts.is_empty() { "none".into() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(time_ms: u64, write_ops: u64) -> BTreeMap<u32, Statistics> {
        let client = ClientCounters { write_ops, ..Default::default() };
        BTreeMap::from([(1, Statistics { time_ms, client, ..Default::default() })])
    }

    #[test]
    fn rates_are_per_second_of_the_osds_clock() {
        let rates = Rates::between(&figures(1_000, 10), &figures(3_000, 110));
        assert_eq!(rates.write_ops, 50.0);
    }

    #[test]
    fn an_idle_and_a_restarted_osd_have_no_rate() {
        assert_eq!(Rates::between(&figures(1_000, 10), &figures(1_000, 10)).write_ops, 0.0);
        assert_eq!(Rates::between(&figures(1_000, 1_000), &figures(2_000, 10)).write_ops, 0.0);
        assert_eq!(Rates::between(&BTreeMap::new(), &figures(2_000, 10)).write_ops, 0.0);
    }

    fn stored(values: &[(&str, &str)]) -> (ClusterMap, Vec<KeyValue>) {
        let kv = |(key, value): &(&str, &str)| KeyValue::written(format!("/ashlar/config/{key}"), *value, 1);
        let kvs: Vec<KeyValue> = values.iter().map(kv).collect();
        let mut map = ClusterMap::default();
        map.apply_range(&kvs, 1);
        (map, kvs)
    }

    #[test]
    fn what_is_wrong_between_keys_and_keys_that_nobody_reads_are_problems() {
        let pool = |more: &str| {
            format!(r#"{{"1":{{"name":"vms","scheme":"replicated","pg_size":3,"pg_minsize":2,"pg_count":8{more}}}}}"#)
        };
        let (map, kvs) = stored(&[("pools", &pool(r#","root_node":"west""#)), ("poools", "{}"), ("osd/x", "{}")]);
        let found = problems(&map, &kvs);
        assert!(found[0].contains("pool 'vms' is not placed anew") && found[0].contains("'west'"), "{found:?}");
        assert!(found[1].starts_with("/ashlar/config/poools: nobody reads") && found[2].contains("osd/x"), "{found:?}");
        assert_eq!(unreadable(&map), [""; 0]);
        let (map, kvs) = stored(&[("pools", &pool("")), ("global", "{}"), ("node_placement", r#"{"west":{}}"#)]);
        assert_eq!(problems(&map, &kvs).len(), 1, "a global without a cluster");
        assert_eq!(unreadable(&map), ["/ashlar/config/global"]);
    }

    #[test]
    fn nobody_is_told_to_begin_anew_where_something_is() {
        assert!(Status::default().text().contains("none yet: `ashlar init`"));
        let broken = Status { unreadable: vec![keys::global(), keys::pools()], ..Status::default() }.text();
        assert!(!broken.contains("init") && broken.contains("pools not known"), "{broken}");
        let missing = Status { pools: 1, ..Status::default() }.text();
        assert!(!missing.contains("init") && missing.contains("restore it"), "{missing}");
    }

    #[test]
    fn osds_above_the_limit_are_nearly_full() {
        let store = |total_bytes, free_bytes| Statistics {
            store: StoreFigures { total_bytes, free_bytes, ..Default::default() },
            ..Default::default()
        };
        let all = BTreeMap::from([(1, store(1000, 140)), (2, store(1000, 150)), (3, store(0, 0)), (4, store(1000, 0))]);
        assert_eq!(near_full(&all, 85), BTreeMap::from([(1, 86), (4, 100)]));
    }

    #[test]
    fn an_empty_store_has_nothing_in_use_and_a_full_one_all() {
        let store = |free_bytes, reserved_bytes| StoreFigures {
            total_bytes: 1000,
            free_bytes,
            reserved_bytes,
            ..Default::default()
        };
        let figures = |store: StoreFigures| (store.used_bytes(), store.used_percent());
        assert_eq!(figures(store(960, 40)), (0, Some(0)));
        assert_eq!(figures(store(480, 40)), (480, Some(50)));
        assert_eq!((figures(store(0, 40)), figures(store(0, 0))), ((960, Some(100)), (1000, Some(100))));
        assert_eq!(StoreFigures::default().used_percent(), None);
        let empty = Status { space: store(960, 40), ..Status::default() };
        assert_eq!(empty.space_text(), "0 B used of 1000 B, all copies counted; 40 B kept for replacing what is there");
    }

    #[test]
    fn statistics_with_unknown_and_missing_fields_are_read() {
        let text = r#"{"client":{"read_ops":1,"other":2},"store":{},"runtime":{"enters":3},"pgs":{"active":1}}"#;
        let statistics: Statistics = serde_json::from_str(text).expect("newer and older OSDs are read too");
        assert_eq!((statistics.client.read_ops, statistics.runtime["enters"]), (1, 3));
    }
}
