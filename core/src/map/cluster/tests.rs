//! What the cluster map keeps.

use super::*;
use crate::id::Epoch;
use crate::map::keys;

fn kv(key: String, value: &str, mod_revision: u64) -> KeyValue {
    KeyValue::written(key, value, mod_revision)
}

fn put(key: String, value: &str, revision: u64) -> WatchEvent {
    WatchEvent::Put(kv(key, value, revision))
}

const STATE: &str = r#"{"address":"h:1","store":"01234567-89ab-cdef-0123-456789abcdef","incarnation":7,"host":"h",
    "size_bytes":100,"trusted":true}"#;

#[test]
fn a_full_read_replaces_everything() {
    let mut map = ClusterMap::default();
    let osd = |n| keys::osd_state(OsdId(n));
    map.apply_range(&[kv(osd(1), STATE, 3), kv(osd(2), STATE, 4)], 5);
    assert_eq!(map.osd_states().count(), 2);
    let changes = map.apply_range(&[kv(osd(2), STATE, 4)], 9);
    assert_eq!(changes.keys, BTreeSet::from([Key::OsdState(OsdId(1))]));
    assert!(map.osd_state(OsdId(1)).is_none());
    assert_eq!(map.complete_revision(), Revision(9));
}

#[test]
fn the_last_good_value_stays_when_a_new_one_is_bad() {
    let mut map = ClusterMap::default();
    let key = keys::osd_config(OsdId(1));
    map.apply_range(&[kv(key.clone(), r#"{"reweight":0.5}"#, 2)], 2);
    let changes = map.apply_events(&[put(key.clone(), r#"{"reweight":7}"#, 3)], 3);
    assert!(changes.keys.is_empty());
    assert_eq!(changes.errors.len(), 1);
    assert_eq!(map.osd_config(OsdId(1)).reweight, 0.5);
    assert_eq!(map.mod_revision(Key::OsdConfig(OsdId(1))), 2);
    map.apply_events(&[put(key, r#"{"reweight":0.7}"#, 4)], 4);
    assert_eq!(map.errors().count(), 0);
    assert_eq!(map.osd_config(OsdId(1)).reweight, 0.7);
}

#[test]
fn late_duplicates_change_nothing() {
    let mut map = ClusterMap::default();
    let key = keys::osd_state(OsdId(1));
    map.apply_range(&[kv(key.clone(), STATE, 8)], 8);
    let stale = [WatchEvent::Delete { key: key.clone(), revision: 7 }, put(key, "{}", 6)];
    assert!(map.apply_events(&stale, 8).is_empty());
    assert!(map.osd_state(OsdId(1)).is_some());
}

#[test]
fn only_groups_that_differ_are_named() {
    let group = |epoch| format!(r#"{{"epoch":{epoch},"target":[1],"acting":[null],"primary":null}}"#);
    let chunk = |a: u32, b: u32| format!(r#"{{"64":{},"65":{}}}"#, group(a), group(b));
    let key = keys::pg_map(PoolId(1), 1);
    let pg = |n| PgId { pool: PoolId(1), number: PgNumber(n) };
    let mut map = ClusterMap::default();
    let changes = map.apply_range(&[kv(key.clone(), &chunk(1, 1), 5)], 5);
    assert_eq!(changes.pgs, BTreeSet::from([pg(64), pg(65)]));
    let changes = map.apply_events(&[put(key.clone(), &chunk(1, 2), 6)], 6);
    assert_eq!(changes.pgs, BTreeSet::from([pg(65)]));
    let (group, revision) = map.pg_map(pg(65)).expect("a map");
    assert_eq!((group.epoch, revision), (Epoch(2), Revision(6)));
    let changes = map.apply_events(&[WatchEvent::Delete { key, revision: 7 }], 7);
    assert_eq!(changes.pgs.len(), 2);
    assert!(map.pg_map(pg(65)).is_none());
}

#[test]
fn lists_are_in_order_and_of_their_kind() {
    let mut map = ClusterMap::default();
    let kvs: Vec<_> = [9, 10, 1].iter().map(|n| kv(keys::osd_state(OsdId(*n)), STATE, 1)).collect();
    map.apply_range(&kvs, 1);
    assert_eq!(map.osd_states().map(|(osd, _)| osd.0).collect::<Vec<_>>(), [1, 9, 10]);
    assert_eq!(map.failure_reports().count() + map.images().count() + map.pg_maps().count(), 0);
}

/// Whoever restores the metadata store from a copy goes back in time.
#[test]
fn a_full_read_counts_even_if_it_is_older() {
    let mut map = ClusterMap::default();
    let key = keys::osd_config(OsdId(1));
    map.apply_range(&[kv(key.clone(), r#"{"reweight":0.5}"#, 20)], 20);
    map.apply_range(&[kv(key, r#"{"reweight":0.7}"#, 4)], 10);
    assert_eq!(map.osd_config(OsdId(1)).reweight, 0.7);
}
