//! The figures of a change, and what is refused of the tree, on a small cluster.

use super::origins::Origins;
use super::weights::Weights;
use super::*;
use crate::admin::pool::show::PoolFigures;
use crate::admin::redundancy::Redundancy;
use crate::admin::status::Statistics;
use ashlar_core::id::{Epoch, Incarnation, PgNumber, PoolId, StoreUuid};
use ashlar_core::map::{ActingMember, OsdRecord, PgMap, PgMapChunk, Pool, PoolLayout, Pools};
use ashlar_core::meta::KeyValue;
use serde::Serialize;

/// A map with these values.
fn map(values: Vec<(String, Vec<u8>)>) -> ClusterMap {
    let kv = |(key, value): (String, Vec<u8>)| KeyValue::written(key, value, 1);
    let mut map = ClusterMap::default();
    let changes = map.apply_range(&values.into_iter().map(kv).collect::<Vec<_>>(), 1);
    assert_eq!(changes.errors, []);
    map
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data")
}

/// Four OSDs on four hosts; pools 1 and 2 with these groups, all where they belong.
fn cluster(groups: &[(u32, &[[u32; 2]])]) -> ClusterMap {
    let mut values = Vec::new();
    let mut pools = Pools::default();
    for osd in 1..=4 {
        let record = OsdRecord { host: format!("h{osd}"), size_bytes: 1 << 40, ..OsdRecord::default() };
        values.push((keys::osd_record(OsdId(osd)), json(&record)));
    }
    for (id, groups) in groups {
        let count = u32::try_from(groups.len()).expect("few");
        let pool = Pool { pg_count: count, ..Redundancy::copies(2).pool(&format!("p{id}"), 4) };
        let pool = Pool { immediate_commit: ashlar_core::map::ImmediateCommit::None, ..pool };
        pools.0.insert(PoolId(*id), pool);
        values.push((keys::layout(PoolId(*id)), json(&PoolLayout::first(count))));
        let chunk = groups.iter().zip(0..).map(|(members, number)| (PgNumber(number), group(members)));
        values.push((keys::pg_map(PoolId(*id), 0), json(&PgMapChunk(chunk.collect()))));
    }
    values.push((keys::pools(), json(&pools)));
    map(values)
}

fn group(members: &[u32; 2]) -> PgMap {
    let acting = |osd: &u32| Some(ActingMember { osd: OsdId(*osd), store: StoreUuid(1), incarnation: Incarnation(1) });
    PgMap {
        epoch: Epoch(1),
        acting: members.iter().map(acting).collect(),
        target: members.iter().map(|osd| Some(OsdId(*osd))).collect(),
        primary: Some(OsdId(members[0])),
        ..PgMap::default()
    }
}

/// What OSDs say: of a pool, bytes by OSD.
fn statistics(of: &[(u32, &[(u32, u64)])]) -> BTreeMap<u32, Statistics> {
    let mut all: BTreeMap<u32, Statistics> = (1..=4).map(|osd| (osd, Statistics::default())).collect();
    for (pool, bytes) in of {
        for (osd, used_bytes) in *bytes {
            let figures = PoolFigures { used_bytes: *used_bytes, ..PoolFigures::default() };
            all.get_mut(osd).expect("one of four").pools.insert(PoolId(*pool), figures);
        }
    }
    all
}

fn osds(numbers: &[u32]) -> Vec<Option<OsdId>> {
    numbers.iter().map(|osd| Some(OsdId(*osd))).collect()
}

#[test]
fn a_member_weighs_what_its_pool_has_there_and_empty_pools_weigh_nothing() {
    let map = cluster(&[(1, &[[1, 2], [1, 3]]), (2, &[[1, 2], [1, 2], [1, 2]])]);
    let weights = Weights::of(&map, &statistics(&[(1, &[(1, 800), (2, 400), (3, 200)])]));
    assert_eq!(weights.of_member(PoolId(1), &osds(&[1, 2])), 400);
    assert_eq!(weights.of_member(PoolId(1), &osds(&[3])), 200);
    assert_eq!(weights.of_member(PoolId(1), &osds(&[4])), 333, "nothing is known of 4: the mean of the pool");
    assert_eq!(weights.of_member(PoolId(2), &osds(&[1, 2])), 0, "full OSDs, empty pool");
    assert_eq!(weights.of_member(PoolId(3), &osds(&[1])), 0);
}

fn origins(map: &ClusterMap, pg_count: u32) -> Origins {
    let pool = map.pool(PoolId(1)).expect("it is there").clone();
    Origins::of(map, PoolId(1), &Pool { pg_count, ..pool }).expect("it has groups")
}

#[test]
fn merged_groups_move_what_lies_apart_and_split_ones_nothing() {
    let map = cluster(&[(1, &[[1, 2], [1, 3], [4, 3], [2, 1]])]);
    let merged = origins(&map, 2);
    let groups = vec![osds(&[1, 2]), osds(&[4, 3])];
    assert_eq!(merged.begin(), groups);
    assert!(merged.merges());
    assert_eq!((merged.came(&groups), merged.least()), (3, 3), "2 gets a group's copy, 4 and 3 too");
    assert_eq!(merged.moved_bytes(&groups, |_| 100), 300);
    let split = origins(&map, 8);
    assert!(!split.merges());
    let begin = split.begin();
    assert_eq!((begin.len(), split.came(&begin), split.moved_bytes(&begin, |_| 100)), (8, 0, 0));
    assert_eq!(begin[3], osds(&[1, 3]));
    let mut moved = begin.clone();
    moved[3] = osds(&[1, 4]);
    assert_eq!(split.moved_bytes(&moved, |_| 100), 50, "half a group's copy");
}

#[test]
fn a_change_of_another_kind_leaves_a_pool_its_groups() {
    let map = cluster(&[(1, &[[1, 2], [3, 4]])]);
    let same = origins(&map, 2);
    assert!(!same.merges());
    assert_eq!(same.moved_bytes(&vec![osds(&[1, 2]), osds(&[3, 1])], |_| 100), 100);
    assert_eq!(same.moved_bytes(&vec![osds(&[2, 1]), osds(&[3, 4])], |_| 100), 0, "copies are alike");
}

fn tree() -> ClusterMap {
    map(vec![
        (keys::levels(), br#"{"dc":90,"rack":95}"#.to_vec()),
        (keys::tree(), br#"{"d1":{"level":"dc"},"r1":{"level":"rack","parent":"d1"}}"#.to_vec()),
    ])
}

fn node(name: &str, level: &str) -> NodeArgs {
    use clap::Parser;
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: NodeArgs,
    }
    let line = ["x", name, "--level", level];
    Line::parse_from(if level.is_empty() { &line[..2] } else { &line }).args
}

#[test]
fn a_node_has_a_level_that_there_is_and_an_osd_may_come_later() {
    let map = tree();
    assert!(node("r2", "rack").changed(&map).is_ok());
    let refusal = node("r2", "zzz").changed(&map).expect_err("a slip").to_string();
    assert!(refusal.contains("no level 'zzz'; there are: dc, rack, host, osd"), "{refusal}");
    assert!(node("osd.99", "").note(&map).contains("no OSD 99 yet"));
    assert_eq!(node("r2", "rack").note(&map), "");
}

#[test]
fn a_level_with_nodes_is_not_dropped_by_the_way() {
    let map = tree();
    let levels = |ranks: &[(&str, u32)]| Levels(ranks.iter().map(|(name, rank)| (name.to_string(), *rank)).collect());
    let refusal = refuse_dropped(&map, &levels(&[("rack", 95)])).expect_err("dc has d1").to_string();
    assert!(refusal.contains("'dc' would be dropped, and it is that of d1"), "{refusal}");
    assert!(refuse_dropped(&map, &levels(&[("rack", 95), ("dc", 80), ("room", 97)])).is_ok());
}
