//! `ashlar osd remove`: an OSD that does not come back is forgotten.
//!
//! Owns what speaks against that: a group that may need what this OSD has. Its number may be given to an empty store
//! afterwards, so whoever forgets an OSD says that nothing of it will be needed.
//! Invariant: without `--lose-data`, and a confirmation, only an OSD is forgotten that no group acts on, wants or remembers,
//! and that held nothing of a pool that is not whole now.

use super::{Connection, row};
use crate::admin::confirm::Confirm;
use crate::admin::status::Statistics;
use crate::admin::{image, pg};
use anyhow::{Result, bail};
use ashlar_core::id::{OsdId, PgId};
use ashlar_core::map::{ClusterMap, History, PgMap, keys};
use ashlar_core::meta::{Compare, Keys, TxnOp};
use ashlar_core::pg::Summary;
use serde::Serialize;
use std::collections::BTreeMap;

/// Groups that a refusal names; it counts the others.
const NAMED: usize = 8;

/// Arguments of `osd remove`.
#[derive(Debug, clap::Args)]
pub struct Remove {
    /// Its number.
    osd: u32,
    /// Even if groups may need what it holds: what only it has is lost for good, and groups that cannot do without stay
    /// incomplete. This is asked before, unless --yes is given, too.
    #[arg(long)]
    lose_data: bool,
    /// Only say whether it would be forgotten.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    confirm: Confirm,
    #[command(flatten)]
    connection: Connection,
}

/// What speaks against forgetting an OSD.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Need {
    pg: String,
    reason: &'static str,
}

/// What is printed.
#[derive(Serialize)]
struct Report {
    osd: OsdId,
    needed_by: Vec<Need>,
    removed: bool,
}

impl Remove {
    /// Forgets it.
    pub async fn run(self) -> Result<()> {
        let metadata = self.connection.open().await?;
        let osd = OsdId(self.osd);
        let map = metadata.map().await?;
        if map.osd_state(osd).is_none() && map.osd_record(osd).is_none() {
            bail!("there is no OSD {osd}; `ashlar osd list` shows those there are");
        }
        let row = row(&map, osd);
        if row.up {
            bail!("OSD {osd} runs at {}; stop it first", row.address);
        }
        let needed_by = needs(&map, &metadata.group_states().await?, &metadata.statistics().await?, osd);
        self.agree(osd, &needed_by)?;
        if !self.dry_run {
            let gone = [keys::osd_config(osd), keys::osd_record(osd), keys::osd_stats(osd)];
            let deletes = gone.into_iter().map(|key| TxnOp::Delete(Keys::One(key)));
            let still_down = Compare::ModRevision(keys::osd_state(osd), 0);
            let (counted, kept) = image::keep(&metadata, osd).await?;
            let compare = [still_down].into_iter().chain(counted).collect();
            if !metadata.transact(compare, deletes.chain(kept).collect()).await? {
                bail!("OSD {osd} has just started, or another one was removed at this moment: stop it, and try again");
            }
        }
        let report = Report { osd, needed_by, removed: !self.dry_run };
        self.connection.output().print(&report, |report| match report.removed {
            true => format!("OSD {osd} is forgotten"),
            false => format!("OSD {osd} would be forgotten"),
        })
    }

    /// An error unless nothing speaks against it, or somebody wants it all the same.
    fn agree(&self, osd: OsdId, needed_by: &[Need]) -> Result<()> {
        if needed_by.is_empty() {
            return Ok(());
        }
        let groups = text(needed_by);
        if !self.lose_data {
            bail!(
                "OSD {osd} may hold what groups need: {groups}; start it, or wait until all are active and clean without it \
                 (`ashlar status`). If it is gone for good, --lose-data forgets it with whatever only it had"
            );
        }
        if self.dry_run {
            eprintln!("groups may need what it holds: {groups}");
            return Ok(());
        }
        self.confirm
            .ask(&format!("whatever only OSD {osd} has would be lost for good: {groups}"), &format!("osd.{osd}"))
    }
}

fn text(needs: &[Need]) -> String {
    let named: Vec<String> = needs.iter().take(NAMED).map(|need| format!("{} ({})", need.pg, need.reason)).collect();
    match needs.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// The groups that may need an OSD that is down, each with the strongest reason.
fn needs(
    map: &ClusterMap,
    states: &BTreeMap<PgId, Summary>,
    statistics: &BTreeMap<u32, Statistics>,
    osd: OsdId,
) -> Vec<Need> {
    let rows: BTreeMap<String, pg::Row> = pg::rows(map, states).into_iter().map(|row| (row.id.clone(), row)).collect();
    // One that nothing is heard of any more may have held something of every pool.
    let figures = statistics.get(&osd.0);
    let held = |id: PgId| figures.is_none_or(|f| f.pools.get(&id.pool).is_some_and(|pool| pool.copies > 0));
    let is_whole = |id: PgId| rows.get(&id.to_string()).is_some_and(|row| row.is_whole());
    let acts = |pg: &PgMap| pg.acting.iter().flatten().any(|member| member.osd == osd);
    let mut needs: BTreeMap<PgId, &'static str> = BTreeMap::new();
    for (id, pg) in map.groups() {
        let reasons = [
            (acts(pg), "it is a member"),
            (remembers(map.history(id), osd), "its history names this OSD"),
            (pg.target.contains(&Some(osd)), "it is wanted there still"),
            (!is_whole(id) && held(id), "not whole, and this OSD held copies of its pool"),
        ];
        needs.extend(reasons.iter().find(|(holds, _)| *holds).map(|(_, reason)| (id, *reason)));
    }
    // Groups of a former layout, as long as those after them have recorded nothing.
    for (pool, _) in map.layouts().filter(|(_, layout)| layout.before.is_some()) {
        let former = map.histories(pool).filter(|(_, history)| remembers(Some(history), osd));
        for (id, _) in former {
            needs.entry(id).or_insert("its history names this OSD");
        }
    }
    needs.into_iter().map(|(id, reason)| Need { pg: id.to_string(), reason }).collect()
}

/// Whether an OSD is one of those that a group's peering asks.
fn remembers(history: Option<&History>, osd: OsdId) -> bool {
    let members = |history: &History| {
        let since = history.sets.iter().filter(|(epoch, _)| *epoch >= history.base_epoch).flat_map(|(_, set)| set);
        history.base_set.iter().chain(since).any(|member| member.osd == osd)
    };
    history.is_some_and(|history| history.parts().any(|(_, part)| members(part)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::pool::show::PoolFigures;
    use ashlar_core::id::{Epoch, Incarnation, Member, PgNumber, PoolId, Role, StoreUuid};
    use ashlar_core::map::{ActingMember, PgMapChunk, PoolLayout};
    use ashlar_core::meta::KeyValue;

    const PG: PgId = PgId { pool: PoolId(1), number: PgNumber(0) };

    fn members(osds: &[u32]) -> Vec<Member> {
        osds.iter().map(|osd| Member { osd: OsdId(*osd), store: StoreUuid(1), role: Role(0) }).collect()
    }

    fn cluster(acting: &[u32], target: &[u32], base: &[u32], since: &[u32]) -> ClusterMap {
        let acting = acting
            .iter()
            .map(|osd| Some(ActingMember { osd: OsdId(*osd), store: StoreUuid(1), incarnation: Incarnation(1) }));
        let target = target.iter().map(|osd| Some(OsdId(*osd))).collect();
        let pg = PgMap { epoch: Epoch(5), acting: acting.collect(), target, ..PgMap::default() };
        let sets = vec![(Epoch(5), members(since))];
        let history = History { base_set: members(base), last: Epoch(5), sets, ..History::default() };
        let values = [
            (keys::layout(PG.pool), serde_json::to_vec(&PoolLayout::first(1))),
            (keys::pg_map(PG.pool, 0), serde_json::to_vec(&PgMapChunk([(PG.number, pg)].into()))),
            (keys::pg_history(PG), serde_json::to_vec(&history)),
        ];
        let kv = |(key, value): (String, Result<Vec<u8>, _>)| KeyValue::written(key, value.expect("plain data"), 1);
        let mut map = ClusterMap::default();
        assert_eq!(map.apply_range(&values.map(kv), 9).errors, []);
        map
    }

    fn reasons(map: &ClusterMap, clean: bool, copies: u64) -> Vec<&'static str> {
        let summary = Summary { epoch: Epoch(5), state: "active".into(), clean, ..Summary::default() };
        let pools = BTreeMap::from([(PG.pool, PoolFigures { copies, ..PoolFigures::default() })]);
        let statistics = BTreeMap::from([(3, Statistics { pools, ..Statistics::default() })]);
        let found = needs(map, &BTreeMap::from([(PG, summary)]), &statistics, OsdId(3));
        found.into_iter().map(|need| need.reason).collect()
    }

    #[test]
    fn an_osd_is_needed_as_long_as_any_group_acts_on_wants_or_remembers_it() {
        let free = cluster(&[1, 2], &[1, 2], &[1, 2], &[1, 2]);
        assert_eq!(reasons(&free, true, 7), [""; 0], "all is whole without it");
        assert_eq!(reasons(&free, false, 0), [""; 0], "it held nothing of the pool");
        assert_eq!(reasons(&free, false, 7), ["not whole, and this OSD held copies of its pool"]);
        assert_eq!(reasons(&cluster(&[1, 3], &[1, 2], &[], &[]), true, 0), ["it is a member"]);
        assert_eq!(reasons(&cluster(&[1], &[1, 3], &[], &[]), true, 0), ["it is wanted there still"]);
        let history = ["its history names this OSD"];
        assert_eq!(reasons(&cluster(&[], &[1, 2], &[3], &[]), true, 0), history, "the only copy");
        assert_eq!(reasons(&cluster(&[1], &[1, 2], &[1], &[1, 3]), true, 0), history);
    }

    #[test]
    fn an_osd_of_which_nothing_is_known_may_have_held_everything() {
        let map = cluster(&[1, 2], &[1, 2], &[1, 2], &[1, 2]);
        assert_eq!(needs(&map, &BTreeMap::new(), &BTreeMap::new(), OsdId(3)).len(), 1);
        let many: Vec<Need> = (0..10).map(|n| Need { pg: format!("1/{n}"), reason: "it is a member" }).collect();
        assert!(text(&many).ends_with("and 2 more"), "{}", text(&many));
    }
}
