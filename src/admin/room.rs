//! Whether a pool finds enough OSDs.
//!
//! Owns the check that tools make before they write: placement itself takes what there is, and leaves groups with too few
//! members. Does not own placement (core's `map::place`).

use anyhow::{Result, bail};
use ashlar_core::id::OsdId;
use ashlar_core::map::place::domains;
use ashlar_core::map::{ClusterMap, ImmediateCommit, Pool};
use std::collections::BTreeSet;

/// An OSD, as far as it matters here.
struct Candidate {
    domain: String,
    keeps: ImmediateCommit,
}

fn candidate(map: &ClusterMap, osd: OsdId, level: &str) -> Option<Candidate> {
    let (state, record) = (map.osd_state(osd), map.osd_record(osd));
    let host = state.map(|state| &state.host).or(record.map(|record| &record.host))?;
    let keeps = state.map(|state| state.immediate_commit).or(record.map(|record| record.immediate_commit))?;
    let used = map.osd_config(osd).reweight > 0.0 && !record.is_some_and(|record| record.out);
    used.then(|| Candidate { domain: domains::domain(map.tree(), osd, host, level), keeps })
}

/// An error if the groups of a pool could not get all their members.
pub fn check(map: &ClusterMap, pool: &Pool) -> Result<()> {
    let known: BTreeSet<OsdId> =
        map.osd_states().map(|(id, _)| id).chain(map.osd_records().map(|(id, _)| id)).collect();
    let candidates: Vec<Candidate> =
        known.into_iter().filter_map(|osd| candidate(map, osd, &pool.failure_domain)).collect();
    let (strict, lax): (Vec<_>, Vec<_>) =
        candidates.iter().partition(|candidate| candidate.keeps >= pool.immediate_commit);
    let found = strict.iter().map(|candidate| candidate.domain.as_str()).collect::<BTreeSet<_>>().len();
    if found >= usize::from(pool.pg_size) {
        return Ok(());
    }
    let Pool { name, pg_size, failure_domain, immediate_commit, .. } = pool;
    let left_out = match lax.len() {
        0 => String::new(),
        count => format!("; {count} OSDs keep less than immediate_commit {immediate_commit} and cannot be used"),
    };
    bail!(
        "pool '{name}': a group has {pg_size} members, each in another failure domain of level '{failure_domain}', and \
         there are {found} of these{left_out}; add OSDs or choose other values (--force goes on all the same)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::redundancy::Redundancy;
    use ashlar_core::map::keys;
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
        assert!(racks.contains("level 'rack', and there are 1"), "{racks}");
    }
}
