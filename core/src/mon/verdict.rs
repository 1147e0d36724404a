//! Who is up: a pure function of the cluster map.
//!
//! An OSD is up while its session lives, unless peers cannot reach it: one hard report (its host answered that nobody
//! listens), or silent reports from two failure domains, or from all others that there are. Reports count only if they
//! name its present start, and only if the reporter itself is up: of two halves that accuse each other, the half that
//! was reported first is down, so that they do not take each other out. An OSD that is about to stop reports itself.
//!
//! Safety of data never depends on a verdict.

use crate::id::{OsdId, Revision};
use crate::map::parse::{LEVEL_HOST, LEVEL_OSD};
use crate::map::{ClusterMap, FailureReport, OsdState, tree::node_of};
use std::collections::{BTreeMap, BTreeSet};

/// Reports from so many failure domains are enough: one alone may be cut off itself.
const DOMAINS_ENOUGH: usize = 2;

/// OSDs that are up, with what they say.
pub fn up_osds(map: &ClusterMap) -> BTreeMap<OsdId, &OsdState> {
    let mut up: BTreeMap<OsdId, &OsdState> = map.osd_states().collect();
    let mut reports: Vec<_> = map.failure_reports().filter(|(osd, by, report, _)| osd != by || report.hard).collect();
    reports.sort_by_key(|(osd, by, _, revision): &(OsdId, OsdId, &FailureReport, Revision)| (*revision, *osd, *by));
    let level = verdict_level(map);
    let domain = |osd: OsdId, state: &OsdState| node_of(map.tree(), osd, &state.host, level);
    let mut accusers: BTreeMap<OsdId, BTreeSet<OsdId>> = BTreeMap::new();
    for (osd, by, report, _) in reports {
        let named = up.get(&osd).is_some_and(|state| state.incarnation == report.incarnation);
        if !named || !up.contains_key(&by) {
            continue;
        }
        let accusers_of = accusers.entry(osd).or_default();
        accusers_of.insert(by);
        let domain_of = |n: &OsdId| up.get(n).map(|state| domain(*n, state));
        let accusing: BTreeSet<String> = accusers_of.iter().filter_map(domain_of).collect();
        let others: BTreeSet<String> = up.keys().filter(|n| **n != osd).filter_map(domain_of).collect();
        if report.hard || accusing.len() >= DOMAINS_ENOUGH.min(others.len()) {
            up.remove(&osd);
        }
    }
    up
}

/// Failure domains for verdicts: OSDs, if a pool takes single OSDs for independent (a cluster on one machine).
fn verdict_level(map: &ClusterMap) -> &'static str {
    if map.pools().any(|(_, pool)| pool.failure_domain == LEVEL_OSD) { LEVEL_OSD } else { LEVEL_HOST }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::keys;
    use crate::meta::KeyValue;

    fn kv(key: String, value: String, revision: u64) -> KeyValue {
        KeyValue::written(key, value, revision)
    }

    fn state(osd: u32, host: &str) -> KeyValue {
        let store = "01234567-89ab-cdef-0123-456789abcdef";
        let json = format!(
            r#"{{"address":"h:1","store":"{store}","incarnation":{},"host":"{host}","size_bytes":1,"trusted":true}}"#,
            osd * 10
        );
        kv(keys::osd_state(OsdId(osd)), json, 1)
    }

    fn report(osd: u32, by: u32, incarnation: u32, hard: bool, revision: u64) -> KeyValue {
        let json = format!(r#"{{"incarnation":{incarnation},"hard":{hard}}}"#);
        kv(keys::osd_failed(OsdId(osd), OsdId(by)), json, revision)
    }

    fn up(hosts: &[&str], reports: &[KeyValue]) -> Vec<u32> {
        let mut kvs: Vec<KeyValue> = (1..).zip(hosts).map(|(osd, host)| state(osd, host)).collect();
        kvs.extend_from_slice(reports);
        let mut map = ClusterMap::default();
        map.apply_range(&kvs, 100);
        up_osds(&map).keys().map(|osd| osd.0).collect()
    }

    #[test]
    fn one_hard_report_is_enough() {
        assert_eq!(up(&["a", "b", "c"], &[report(1, 2, 10, true, 5)]), [2, 3]);
    }

    #[test]
    fn silence_counts_from_two_domains() {
        assert_eq!(up(&["a", "b", "c", "d"], &[report(1, 2, 10, false, 5)]), [1, 2, 3, 4]);
        assert_eq!(up(&["a", "b", "b", "d"], &[report(1, 2, 10, false, 5), report(1, 3, 10, false, 6)]), [1, 2, 3, 4]);
        assert_eq!(up(&["a", "b", "c", "d"], &[report(1, 2, 10, false, 5), report(1, 3, 10, false, 6)]), [2, 3, 4]);
    }

    #[test]
    fn all_there_are_is_enough_too() {
        assert_eq!(up(&["a", "b"], &[report(1, 2, 10, false, 5)]), [2]);
    }

    #[test]
    fn reports_on_an_earlier_start_or_by_the_dead_do_not_count() {
        assert_eq!(up(&["a", "b"], &[report(1, 2, 9, true, 5)]), [1, 2]);
        assert_eq!(up(&["a", "b", "c"], &[report(1, 7, 10, true, 5)]), [1, 2, 3]);
        assert_eq!(up(&["a", "b"], &[report(1, 1, 10, false, 5)]), [1, 2]);
    }

    #[test]
    fn who_says_that_it_goes_is_believed() {
        assert_eq!(up(&["a", "b"], &[report(1, 1, 10, true, 5)]), [2]);
        assert_eq!(up(&["a", "b"], &[report(1, 1, 9, true, 5)]), [1, 2], "an earlier start of it");
    }

    #[test]
    fn two_that_accuse_each_other_do_not_both_go_down() {
        assert_eq!(up(&["a", "b"], &[report(2, 1, 20, false, 5), report(1, 2, 10, false, 6)]), [1]);
        assert_eq!(up(&["a", "b"], &[report(2, 1, 20, false, 6), report(1, 2, 10, false, 5)]), [2]);
    }
}
