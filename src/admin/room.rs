//! Whether a pool finds enough OSDs.
//!
//! Owns the check that tools make before they write: placement itself takes what there is, and leaves groups with too few
//! members. Does not own placement (core's `map::place`).

use super::placement::with;
use anyhow::{Result, bail};
use ashlar_core::id::OsdId;
use ashlar_core::map::place;
use ashlar_core::map::place::figures::Figures;
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

/// Members of groups that an OSD carries at most, unless somebody insists: each costs it memory, and a peering whenever
/// anything changes. A few dozen are usual.
const MEMBERS_PER_OSD_MAX: u64 = 1_000;

/// An error if a pool's groups would be far too many for its OSDs.
pub fn check_count(map: &ClusterMap, pool: &Pool) -> Result<()> {
    let osds = u64::try_from(survey(map, pool)?.candidates.len())?.max(1);
    let each = u64::from(pool.pg_count) * u64::from(pool.pg_size) / osds;
    if each > MEMBERS_PER_OSD_MAX {
        bail!(
            "pool '{}': {} groups of {} members are {each} on each of {osds} OSDs; use a pg_count that makes at most \
             {MEMBERS_PER_OSD_MAX}, about 64 are usual (--force goes on all the same)",
            pool.name,
            pool.pg_count,
            pool.pg_size
        );
    }
    Ok(())
}

/// How good the placement of a new pool would be.
pub fn figures(map: &ClusterMap, pool: &Pool) -> Result<Figures> {
    let found = survey(map, pool)?;
    let none = vec![Vec::new(); usize::try_from(pool.pg_count)?];
    let problem = found.problem(&none, 0);
    Ok(place::figures::figures(&problem, &place::place(&problem).groups, false))
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
            KeyValue::written(key, json, 1)
        };
        let mut map = ClusterMap::default();
        map.apply_range(&records.iter().map(record).collect::<Vec<_>>(), 1);
        map
    }

    #[test]
    fn far_too_many_groups_are_refused_and_usual_ones_are_even() {
        let map = map(&[(1, "a", "all"), (2, "b", "all"), (3, "c", "all")]);
        let pool = |pg_count| Pool { pg_count, ..Redundancy::copies(3).pool("vms", 3) };
        assert!(check_count(&map, &pool(1_000)).is_ok());
        let refusal = check_count(&map, &pool(1_001)).expect_err("too many").to_string();
        assert!(refusal.contains("are 1001 on each of 3 OSDs"), "{refusal}");
        let figures = figures(&map, &pool(64)).expect("it can be placed");
        assert_eq!((figures.uniformity, figures.holes), (1.0, 0));
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
