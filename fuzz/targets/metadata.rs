//! Whatever people or other programs put into the metadata store, parsing and checking it ends without a panic; what is
//! accepted is written and read again as it was, and a map that is made of it holds together.
#![no_main]

use ashlar_core::map::ClusterMap;
use ashlar_core::map::parse::{Key, Value, check_change, parse_value};
use ashlar_core::meta::KeyValue;
use libfuzzer_sys::fuzz_target;

/// One of each kind.
const KEYS: [&str; 18] = [
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
];

/// Values are separated by zeroes, which JSON does not have; each begins with the number of its key.
fuzz_target!(|data: &[u8]| {
    let mut map = ClusterMap::default();
    let mut last: Option<(Key, Value)> = None;
    for (part, revision) in data.split(|byte| *byte == 0).zip(1..) {
        let Some((number, bytes)) = part.split_first() else { continue };
        let name = KEYS[usize::from(*number) % KEYS.len()];
        let key = Key::parse(name).expect("all of them are known");
        if let Ok(value) = parse_value(key, name, bytes) {
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
