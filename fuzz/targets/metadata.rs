//! Whatever people or other programs put into the metadata store, parsing and checking it ends without a panic; what is
//! accepted is written and read again as it was, and a map that is made of it holds together.
#![no_main]

use ashlar_core::map::ClusterMap;
use ashlar_core::map::parse::{Key, Value, check_change, parse_value};
use ashlar_core::meta::KeyValue;
use libfuzzer_sys::fuzz_target;

/// One of each kind.
const KEYS: [&str; 20] = [
    "/ashlar/config/global",
    "/ashlar/config/pools",
    "/ashlar/config/node_placement",
    "/ashlar/config/osd/1",
    "/ashlar/config/inode/1/1",
    "/ashlar/config/last_inode/1",
    "/ashlar/osd/state/1",
    "/ashlar/osd/failed/1/2",
    "/ashlar/osd/record/1",
    "/ashlar/pg/map/1/0",
    "/ashlar/pg/history/1/0",
    "/ashlar/pg/wish/1/0",
    "/ashlar/pg/removed/1/1/0",
    "/ashlar/config/scrub/1/0",
    "/ashlar/mon/leader",
    "/ashlar/config/access",
    "/ashlar/osd/access/1",
    "/ashlar/config/placement_levels",
    "/ashlar/pg/map/1/layout",
    "/ashlar/config/former_pools",
];

// Values are separated by zeroes, which JSON does not have; each begins with the number of its key, modulo their number (the
// first is 20).
fuzz_target!(|data: &[u8]| {
    let mut map = ClusterMap::default();
    let mut last: Option<(Key, Value)> = None;
    for (part, revision) in data.split(|byte| *byte == 0).zip(1..) {
        let Some((number, bytes)) = part.split_first() else { continue };
        let name = KEYS[usize::from(*number) % KEYS.len()];
        let key = Key::parse(name).expect("all of them are known");
        if let Ok(value) = parse_value(key, name, bytes) {
            let written = write(&value);
            let again = parse_value(key, name, &written);
            assert_eq!(again.as_ref(), Ok(&value), "written as {}", String::from_utf8_lossy(&written));
            let before = last.as_ref().filter(|(other, _)| *other == key).map(|(_, value)| value);
            let _ = check_change(name, before, &value);
            last = Some((key, value));
        }
        let kv = KeyValue {
            key: name.into(),
            value: bytes.to_vec(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            lease: 0,
        };
        map.apply_range(&[kv], revision);
    }
    map.pools().for_each(|(id, pool)| assert!(pool.data_chunks() > 0, "pool {id}"));
});

/// A value as we write it.
fn write(value: &Value) -> Vec<u8> {
    let written = match value {
        Value::Global(value) => serde_json::to_vec(value),
        Value::Pools(value) => serde_json::to_vec(value),
        Value::Tree(value) => serde_json::to_vec(value),
        Value::Levels(value) => serde_json::to_vec(value),
        Value::OsdConfig(value) => serde_json::to_vec(value),
        Value::Image(value) => serde_json::to_vec(value),
        Value::LastInode(value) => serde_json::to_vec(value),
        Value::OsdState(value) => serde_json::to_vec(value),
        Value::OsdFailed(value) => serde_json::to_vec(value),
        Value::OsdRecord(value) => serde_json::to_vec(value),
        Value::PgMap(value) => serde_json::to_vec(value),
        Value::History(value) => serde_json::to_vec(value),
        Value::Wish(value) => serde_json::to_vec(value),
        Value::Removed(value) => serde_json::to_vec(value),
        Value::ScrubOrder(value) => serde_json::to_vec(value),
        Value::Leader(value) => serde_json::to_vec(value),
        Value::Access(value) => serde_json::to_vec(value),
        Value::OsdAccess(value) => serde_json::to_vec(value),
        Value::Layout(value) => serde_json::to_vec(value),
        Value::FormerPools(value) => serde_json::to_vec(value),
    };
    written.expect("plain data has a JSON form")
}
