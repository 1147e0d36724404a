//! What the maps say of a cluster, and how fast its metadata store is.

use super::{Finding, Level};
use crate::admin::{osd, room};
use crate::metadata::Metadata;
use anyhow::Result;
use ashlar_core::map::tree::node_of;
use ashlar_core::map::{ClusterMap, ImmediateCommit, OsdState, PREFIX, Pool};
use ashlar_core::meta::{Compare, Keys, TxnOp};
use ashlar_runtime::os;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Requests that the store's speed is taken from: an even number, so that the last one deletes.
const REQUESTS: usize = 20;
/// A fail-over takes a few requests one after the other: slower ones are felt.
const SLOW: Duration = Duration::from_millis(50);
/// Fuller than this, and what a lost OSD had finds no room elsewhere.
const FULL_PERCENT: u64 = 80;

/// All looks.
pub async fn findings(metadata: &Metadata) -> Result<Vec<Finding>> {
    let mut found = vec![latency(metadata).await?];
    let map = metadata.map().await?;
    found.extend(osds(&map));
    found.extend(space(metadata).await?);
    map.pools().for_each(|(_, pool)| found.extend(of_pool(&map, pool)));
    Ok(found)
}

/// What a monitor's decision costs: a transaction that compares and writes, agreed on by the store's members and durable
/// there. Reads say little: a member may answer them alone, from memory.
async fn latency(metadata: &Metadata) -> Result<Finding> {
    let key = format!("{PREFIX}doctor/{:016x}", os::random_u64()?);
    let mut times = Vec::new();
    for number in 0..REQUESTS {
        // It is made and deleted in turns: what ends early leaves one small key at most.
        let (compare, operation) = match number % 2 {
            0 => (
                vec![Compare::ModRevision(key.clone(), 0)],
                TxnOp::Put { key: key.clone(), value: b"doctor".to_vec(), lease: 0 },
            ),
            _ => (Vec::new(), TxnOp::Delete(Keys::One(key.clone()))),
        };
        let start = Instant::now();
        metadata.transact(compare, vec![operation]).await?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let (median, worst) = (times[REQUESTS / 2], times[REQUESTS - 1]);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let text = format!("transactions take {:.1} ms, {:.1} ms at worst", ms(median), ms(worst));
    Ok(match worst > SLOW {
        true => {
            Finding::new(Level::Warn, "metadata store", format!("{text}: fail-overs wait for it; give it a fast disk"))
        }
        false => Finding::new(Level::Good, "metadata store", text),
    })
}

fn osds(map: &ClusterMap) -> Vec<Finding> {
    let rows = osd::rows(map);
    let names = |chosen: &dyn Fn(&osd::Row) -> bool| {
        let names: Vec<_> = rows.iter().filter(|row| chosen(row)).map(|row| row.id.to_string()).collect();
        names.join(" ")
    };
    let looks: [(String, &str); 3] = [
        (names(&|row| !row.up), "down"),
        (names(&|row| row.is_damaged), "with a store that lost metadata; build it anew"),
        (names(&|row| !row.unreachable_from.is_empty()), "unreachable from others; see their network"),
    ];
    let bad = looks.iter().filter(|(names, _)| !names.is_empty());
    let mut found: Vec<_> =
        bad.map(|(names, what)| Finding::new(Level::Bad, "osds", format!("{names}: {what}"))).collect();
    if found.is_empty() {
        found.push(Finding::new(Level::Good, "osds", format!("all {} up", rows.len())));
    }
    found
}

async fn space(metadata: &Metadata) -> Result<Option<Finding>> {
    let statistics = metadata.statistics::<crate::admin::status::Statistics>().await?;
    let fullest = statistics.iter().filter_map(|(osd, figures)| Some((figures.store.used_percent()?, osd)));
    Ok(fullest.max().map(|(percent, osd)| match percent > FULL_PERCENT {
        true => {
            Finding::new(Level::Bad, "space", format!("OSD {osd} is {percent} % full; add OSDs before one is lost"))
        }
        false => Finding::new(Level::Good, "space", format!("the fullest OSD is {osd}, {percent} %")),
    }))
}

fn of_pool(map: &ClusterMap, pool: &Pool) -> Vec<Finding> {
    let about = format!("pool {}", pool.name);
    let mut found = Vec::new();
    let mut tell = |level, text: String| found.push(Finding::new(level, about.as_str(), text));
    match room::check(map, pool) {
        Err(error) => tell(Level::Bad, format!("{error}")),
        Ok(()) if domains_of(map, pool) == usize::from(pool.pg_size) => tell(
            Level::Warn,
            format!("as many failure domains as members ({}): a lost one cannot be replaced; add one", pool.pg_size),
        ),
        Ok(()) => tell(Level::Good, format!("{} failure domains for {} members", domains_of(map, pool), pool.pg_size)),
    }
    let needed = if pool.has_roles() { pool.data_chunks() } else { 1 };
    if pool.pg_size == needed {
        tell(Level::Bad, "no redundancy: what one disk loses is lost".into());
    } else if pool.pg_minsize <= needed {
        let text = format!(
            "pg_minsize is {}: writes go on when no redundancy is left, and the next failure loses them",
            pool.pg_minsize
        );
        tell(Level::Warn, text);
    }
    if pool.immediate_commit != ImmediateCommit::All {
        tell(
            Level::Warn,
            format!("immediate_commit {}: only what clients flush survives a power cut", pool.immediate_commit),
        );
    }
    if pool.scrub_interval_s == 0 {
        tell(Level::Warn, "never scrubbed: rot is found when it is read; set --scrub-interval".into());
    }
    found
}

/// Failure domains with an OSD that is up and that the pool may use.
fn domains_of(map: &ClusterMap, pool: &Pool) -> usize {
    // What placement itself refuses was told before.
    let candidates = room::survey(map, pool).map(|found| found.candidates).unwrap_or_default();
    let usable: BTreeSet<_> = candidates.iter().map(|candidate| candidate.osd).collect();
    let up = map.osd_states().filter(|(osd, _)| usable.contains(osd));
    let domain = |(osd, state): (_, &OsdState)| node_of(map.tree(), osd, &state.host, &pool.failure_domain);
    up.map(domain).collect::<BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::pool::tags;
    use crate::admin::redundancy::Redundancy;
    use ashlar_core::id::{Incarnation, OsdId, StoreUuid};
    use ashlar_core::map::keys;
    use ashlar_core::meta::KeyValue;

    #[test]
    fn only_what_the_pool_may_use_counts_as_a_failure_domain() {
        let pair = |key: String, value: String| KeyValue::written(key, value, 1);
        let mut pairs = Vec::new();
        for osd in 1..=4 {
            let state = OsdState {
                address: "127.0.0.1:1".into(),
                store: StoreUuid(osd.into()),
                incarnation: Incarnation(osd.into()),
                host: format!("h{osd}"),
                size_bytes: 1 << 30,
                trusted: true,
                immediate_commit: ImmediateCommit::All,
            };
            pairs.push(pair(format!("/ashlar/osd/state/{osd}"), serde_json::to_string(&state).expect("JSON")));
            if osd > 2 {
                pairs.push(pair(keys::osd_config(OsdId(osd)), r#"{"tags":["ssd"]}"#.into()));
            }
        }
        let mut map = ClusterMap::default();
        map.apply_range(&pairs, 1);
        let pool = Redundancy::copies(2).pool("vms", 4);
        assert_eq!(domains_of(&map, &pool), 4);
        assert_eq!(domains_of(&map, &Pool { osd_tags: tags("ssd"), ..pool.clone() }), 2);
        let told = of_pool(&map, &Pool { osd_tags: tags("ssd"), ..pool });
        assert!(told[0].text.contains("as many failure domains as members"), "{told:?}");
    }
}
