//! Whether a pool finds enough OSDs.
//!
//! Owns the check that tools make before they write: placement itself takes what there is, and leaves groups with too few
//! members. Does not own placement (core's `map::place`).

use super::placement::with;
use anyhow::{Result, bail};
use ashlar_core::id::OsdId;
use ashlar_core::map::place::survey::Survey;
use ashlar_core::map::{ClusterMap, OsdRecord, OsdState, Pool, keys};

/// What a pool's placement follows from; OSDs that have just started count although no monitor has recorded them yet.
pub fn survey(map: &ClusterMap, pool: &Pool) -> Result<Survey> {
    let record = |(osd, state): (OsdId, &OsdState)| {
        let OsdState { host, size_bytes, immediate_commit, .. } = state.clone();
        let record = OsdRecord { host, size_bytes, immediate_commit, ..OsdRecord::default() };
        Ok((keys::osd_record(osd), serde_json::to_vec(&record)?))
    };
    let new = map.osd_states().filter(|(osd, _)| map.osd_record(*osd).is_none());
    let recorded = with(map, &new.map(record).collect::<Result<Vec<_>>>()?)?;
    Survey::of(&recorded, pool).map_err(|reason| anyhow::anyhow!("pool '{}': {reason}", pool.name))
}

/// An error if the groups of a pool could not get all their members.
pub fn check(map: &ClusterMap, pool: &Pool) -> Result<()> {
    let found = survey(map, pool)?;
    let holes = found.problem(&[], 0).possible().holes;
    if holes == 0 {
        return Ok(());
    }
    let Pool { name, pg_size, immediate_commit, .. } = pool;
    let left = usize::from(*pg_size) - holes;
    let lax = map.osd_records().filter(|(_, record)| record.immediate_commit < *immediate_commit).count();
    let left_out = match lax {
        0 => String::new(),
        count => format!("; {count} OSDs keep less than immediate_commit {immediate_commit} and cannot be used"),
    };
    let hint = "add OSDs or choose other values (--force goes on all the same)";
    match found.rules.only_level() {
        Some(level) => bail!(
            "pool '{name}': a group has {pg_size} members, each in another failure domain of level '{level}', and there \
             are {left} of these{left_out}; {hint}"
        ),
        None => bail!(
            "pool '{name}': a group has {pg_size} members, and by the rules ({}) only {left} of them find an \
             OSD{left_out}; {hint}",
            found.rules
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::redundancy::Redundancy;
    use ashlar_core::map::ImmediateCommit;
    use ashlar_core::meta::KeyValue;

    fn map(records: &[(u32, &str, &str)]) -> ClusterMap {
        let record = |(osd, host, keeps): &(u32, &str, &str)| {
            let json = format!(r#"{{"host":"{host}","size_bytes":1,"immediate_commit":"{keeps}","out":false}}"#);
            let key = keys::osd_record(OsdId(*osd));
            KeyValue { key, value: json.into_bytes(), create_revision: 1, mod_revision: 1, version: 1, lease: 0 }
        };
        let mut map = ClusterMap::default();
        map.apply_range(&records.iter().map(record).collect::<Vec<_>>(), 1);
        map
    }

    #[test]
    fn what_placement_cannot_do_is_refused_with_the_reason() {
        let map = map(&[(1, "a", "all"), (2, "a", "all"), (3, "b", "all"), (4, "c", "none")]);
        let pool = |copies| Redundancy::copies(copies).pool("vms", 4);
        assert!(check(&map, &pool(2)).is_ok());
        let refusal = |pool: &Pool| check(&map, pool).expect_err("too few").to_string();
        assert!(refusal(&pool(3)).contains("there are 2 of these; 1 OSDs keep less"), "{}", refusal(&pool(3)));
        assert!(check(&map, &Pool { immediate_commit: ImmediateCommit::None, ..pool(3) }).is_ok());
        assert!(check(&map, &Pool { failure_domain: "osd".into(), ..pool(3) }).is_ok());
        let racks = refusal(&Pool { failure_domain: "rack".into(), ..pool(2) });
        assert!(racks.contains("there is no level 'rack'"), "{racks}");
        let raw = |rules: &str| Pool { raw_placement: Some(rules.into()), ..pool(3) };
        assert!(check(&map, &raw("any, host=1, host!=1")).is_ok());
        assert!(refusal(&raw("any, host=1, host=1")).contains("only 2 of them"));
        assert!(refusal(&Pool { osd_tags: crate::admin::pool::tags("ssd"), ..pool(1) }).contains("there are 0"));
    }
}
