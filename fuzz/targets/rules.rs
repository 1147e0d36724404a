//! Whatever people write as placement rules, reading it ends without a panic; what was understood is written and read again
//! as it was.
#![no_main]

use ashlar_core::map::rules::Rules;
use ashlar_core::map::{Levels, Pool};
use libfuzzer_sys::fuzz_target;

// The first byte is the number of parts.
fuzz_target!(|data: &[u8]| {
    let Some((size, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let pg_size = size % 32 + 1;
    if let Ok(rules) = Rules::parse(text, usize::from(pg_size)) {
        assert_eq!(Rules::parse(&rules.to_string(), usize::from(pg_size)), Ok(rules));
    }
    let raw = Pool { pg_size, raw_placement: Some(text.into()), ..Pool::default() };
    let pattern = Pool { pg_size, level_placement: Some(text.into()), ..Pool::default() };
    for pool in [raw, pattern] {
        if let Ok(rules) = Rules::of_pool(&pool, &Levels::default()) {
            let _ = (rules.only_level(), rules.separating_level(&Levels::default()));
        }
    }
});
