//! What values are refused, and how.

use super::*;

fn refusal(name: &str, json: &str) -> String {
    let key = Key::parse(name).expect("a known key");
    let error = parse_value(key, name, json.as_bytes()).expect_err("a bad value");
    assert_eq!(error.key, name);
    error.to_string()
}

fn accepted(name: &str, json: &str) -> Value {
    let key = Key::parse(name).expect("a known key");
    parse_value(key, name, json.as_bytes()).expect("a good value")
}

#[test]
fn keys_have_one_spelling() {
    assert_eq!(Key::parse("/ashlar/osd/state/12"), Some(Key::OsdState(OsdId(12))));
    assert_eq!(Key::parse("/ashlar/osd/state/012"), None);
    assert_eq!(Key::parse("/ashlar/osd/state/+1"), None);
    assert_eq!(Key::parse("/ashlar/osd/state/"), None);
    assert_eq!(Key::parse("/ashlar/osd/state/1/2"), None);
    assert_eq!(Key::parse("/ashlar/pg/map/1/99999999999"), None);
    assert_eq!(Key::parse("/other/config/global"), None);
}

#[test]
fn every_key_name_is_parsed_back() {
    use crate::map::keys;
    let pg = PgId { pool: PoolId(3), number: PgNumber(70) };
    let (osd, by) = (OsdId(4), OsdId(5));
    let all = [
        (keys::global(), Key::Global),
        (keys::pools(), Key::Pools),
        (keys::tree(), Key::Tree),
        (keys::osd_config(osd), Key::OsdConfig(osd)),
        (keys::image(PoolId(3), InodeId(9)), Key::Image(PoolId(3), InodeId(9))),
        (keys::last_inode(PoolId(3)), Key::LastInode(PoolId(3))),
        (keys::removed(pg, InodeId(9)), Key::Removed(PoolId(3), InodeId(9), PgNumber(70))),
        (keys::osd_state(osd), Key::OsdState(osd)),
        (keys::osd_failed(osd, by), Key::OsdFailed(osd, by)),
        (keys::osd_record(osd), Key::OsdRecord(osd)),
        (keys::pg_map(PoolId(3), 1), Key::PgMap(PoolId(3), 1)),
        (keys::pg_history(pg), Key::History(pg)),
        (keys::layout(pg.pool), Key::Layout(pg.pool)),
        (keys::pg_wish(pg), Key::Wish(pg)),
        (keys::leader(), Key::Leader),
    ];
    for (name, key) in all {
        assert_eq!(Key::parse(&name), Some(key), "{name}");
    }
}

#[test]
fn a_pool_says_which_field_is_wrong() {
    let pool = |fields: &str| format!(r#"{{"1":{{"name":"rbd","scheme":"replicated",{fields}}}}}"#);
    let check = |fields: &str| refusal("/ashlar/config/pools", &pool(fields));
    assert!(check(r#""pg_size":3,"pg_minsize":4,"pg_count":8"#).contains("pg_minsize is 4"));
    assert!(check(r#""pg_size":0,"pg_minsize":0,"pg_count":8"#).contains("pg_size is 0"));
    assert!(check(r#""pg_size":3,"pg_minsize":2,"pg_count":0"#).contains("pg_count is 0"));
    assert!(check(r#""pg_size":3,"pg_minsize":2,"pg_count":8,"block_size":5000"#).contains("block_size is 5000"));
    assert!(check(r#""pg_size":3,"pg_minsize":2,"pg_count":8,"pgsize":1"#).contains("pgsize"));
    assert!(check(r#""pg_size":3,"pg_minsize":2,"pg_count":8,"parity_chunks":1"#).contains("parity_chunks"));
}

#[test]
fn an_erasure_coded_pool_says_which_field_is_wrong() {
    let json = |fields: &str| format!(r#"{{"1":{{"name":"p","pg_count":8,{fields}}}}}"#);
    let check = |fields: &str| refusal("/ashlar/config/pools", &json(fields));
    let ec = |size: u8, parity: u8, minsize: u8| {
        format!(r#""scheme":"ec","pg_size":{size},"parity_chunks":{parity},"pg_minsize":{minsize}"#)
    };
    assert!(check(&ec(6, 2, 3)).contains("pg_minsize is 3; use 4"));
    assert!(check(&ec(6, 2, 7)).contains("pg_minsize is 7; use 4"));
    assert!(check(&ec(6, 0, 6)).contains("parity_chunks is 0"));
    assert!(check(&ec(9, 5, 6)).contains("parity_chunks is 5; use 1 to 4"));
    assert!(check(&ec(2, 2, 2)).contains("leaves 0 data chunks"));
    assert!(check(&ec(1, 4, 1)).contains("leaves 0 data chunks"));
    assert!(check(&ec(20, 2, 18)).contains("leaves 18 data chunks"));
    assert!(check(&format!("{},\"block_size\":262144", ec(18, 2, 17))).contains("use 131072 or less"));
    assert!(check(r#""scheme":"xor","pg_size":4,"parity_chunks":2,"pg_minsize":3"#).contains("\"xor\" has 1"));
    for good in [ec(6, 2, 4), ec(6, 2, 6), ec(3, 1, 2), ec(18, 2, 17)] {
        accepted("/ashlar/config/pools", &json(&good));
    }
}

#[test]
fn pool_names_are_unique() {
    let one = r#"{"name":"a","scheme":"replicated","pg_size":3,"pg_minsize":2,"pg_count":8}"#;
    let text = refusal("/ashlar/config/pools", &format!(r#"{{"1":{one},"2":{one}}}"#));
    assert!(text.contains("'a' is used twice"), "{text}");
}

#[test]
fn a_good_pool_has_defaults() {
    let json = r#"{"1":{"name":"a","scheme":"replicated","pg_size":3,"pg_minsize":2,"pg_count":8}}"#;
    let Value::Pools(pools) = accepted("/ashlar/config/pools", json) else { panic!("pools") };
    let pool = &pools.0[&PoolId(1)];
    assert_eq!((pool.block_size, pool.failure_domain.as_str()), (128 << 10, "host"));
}

#[test]
fn the_tree_has_no_loops_and_no_loose_ends() {
    let check = |json: &str| refusal("/ashlar/config/node_placement", json);
    assert!(check(r#"{"a":{"parent":"b"}}"#).contains("not in the tree"));
    assert!(check(r#"{"a":{"parent":"b"},"b":{"parent":"a"}}"#).contains("below itself"));
    assert!(check(r#"{"osd.x":{}}"#).contains("not an OSD"));
    assert!(check(r#"{"osd.1":{"level":"host"}}"#).contains("leave level out"));
    let json = r#"{"r":{"level":"rack"},"h":{"level":"host","parent":"r"},"osd.1":{"parent":"h"}}"#;
    accepted("/ashlar/config/node_placement", json);
}

#[test]
fn numbers_of_global_osd_and_image_are_checked() {
    let cluster = r#""cluster":"01234567-89ab-cdef-0123-456789abcdef""#;
    let global = |rest: &str| refusal("/ashlar/config/global", &format!("{{{cluster},{rest}}}"));
    assert!(global(r#""lease_ms":1"#).contains("lease_ms is 1"));
    assert!(global(r#""lease_ms":2000"#).contains("heartbeat_timeout_ms (1000) is below lease_ms (2000)"));
    let levels = parse_value(Key::Levels, "levels", br#"{"osd":50}"#).expect_err("OSDs above hosts").to_string();
    assert!(levels.contains("level \"osd\" has rank 50, \"host\" has 100"), "{levels}");
    assert!(global(r#""session_ttl_s":1"#).contains("session_ttl_s is 1; use 2 to 600"));
    assert!(global(r#""osd_out_time_s":18446744073709551615"#).contains("osd_out_time_s"));
    assert!(global(r#""leese_ms":400"#).contains("leese_ms"));
    assert!(refusal("/ashlar/config/osd/1", r#"{"reweight":1.5}"#).contains("reweight is 1.5"));
    assert!(refusal("/ashlar/config/inode/1/1", r#"{"name":"x","size_bytes":100}"#).contains("size_bytes is 100"));
    assert!(refusal("/ashlar/config/inode/1/1", r#"{"name":"a/b","size_bytes":512}"#).contains("name"));
}

#[test]
fn daemons_may_add_fields_people_may_not() {
    let json = r#"{"incarnation":1,"hard":true,"newer":1}"#;
    accepted("/ashlar/osd/failed/1/2", json);
    assert!(refusal("/ashlar/config/osd/1", r#"{"newer":1}"#).contains("newer"));
}

#[test]
fn group_maps_are_consistent() {
    let check = |json: &str| refusal("/ashlar/pg/map/1/0", json);
    let member = r#"{"osd":1,"store":"01234567-89ab-cdef-0123-456789abcdef","incarnation":1}"#;
    assert!(check(r#"{"64":{"epoch":1,"target":[],"acting":[],"primary":null}}"#).contains("chunk 1"));
    assert!(check(r#"{"1":{"epoch":0,"target":[],"acting":[],"primary":null}}"#).contains("epoch"));
    let twice = format!(r#"{{"1":{{"epoch":1,"target":[],"acting":[{member},{member}],"primary":null}}}}"#);
    assert!(check(&twice).contains("osd.1 acts twice"));
    assert!(check(r#"{"1":{"epoch":1,"target":[],"acting":[null],"primary":2}}"#).contains("primary"));
}

#[test]
fn what_says_where_the_data_are_cannot_change() {
    let pool = |change: &dyn Fn(&mut Pool), scheme: &str, size: u8, parity: u8| {
        let json = format!(
            r#"{{"1":{{"name":"a","scheme":"{scheme}","pg_size":{size},"parity_chunks":{parity},"pg_minsize":2,"pg_count":8}}}}"#
        );
        let Value::Pools(mut pools) = accepted("/ashlar/config/pools", &json) else { panic!("pools") };
        let mut pool = pools.0.remove(&PoolId(1)).expect("just read");
        change(&mut pool);
        pool
    };
    let verdict = |change: &dyn Fn(&mut Pool), scheme: &str, size: u8, parity: u8| {
        check_pool_change(&pool(&|_| (), scheme, size, parity), &pool(change, scheme, size, parity))
    };
    let copies = |change: &dyn Fn(&mut Pool)| verdict(change, "replicated", 3, 0);
    let coded = |change: &dyn Fn(&mut Pool)| verdict(change, "ec", 3, 1);
    assert_eq!(copies(&|pool| pool.pg_size = 4), Ok(()));
    assert_eq!(copies(&|pool| pool.pg_minsize = 1), Ok(()));
    assert_eq!(copies(&|pool| pool.pg_count = 16), Ok(()));
    assert_eq!(coded(&|pool| pool.pg_count = 3), Ok(()));
    assert_eq!(coded(&|pool| pool.failure_domain = "rack".into()), Ok(()));
    assert_eq!(coded(&|pool| pool.name = "b".into()), Ok(()));
    let refused = |verdict: Result<(), String>, reason: &str| {
        assert!(verdict.as_ref().is_err_and(|text| text.contains(reason)), "{verdict:?}");
    };
    refused(copies(&|pool| pool.block_size *= 2), "block_size cannot change from 131072 to 262144: images are cut");
    refused(copies(&|pool| pool.scheme = Scheme::Xor), "scheme cannot change from replicated to xor");
    refused(coded(&|pool| pool.pg_size = 4), "pg_size of an erasure-coded pool cannot change from 3 to 4");
    refused(coded(&|pool| pool.parity_chunks = 2), "parity_chunks cannot change from 1 to 2");
}
