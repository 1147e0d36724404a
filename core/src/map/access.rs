//! `config/access`: who may not write. Clients that were fenced off, and images that are locked for one client.
//!
//! Owns: the rules as a value, what they refuse, and when a change of them is complete. Does not own how OSDs come to
//! obey (`osd::access`), nor who changes the rules (tools).
//!
//! All rules are in one key, so one revision says how new an OSD's knowledge is:
//! - an OSD that has ended what it had accepted against the rules of a revision confirms that revision, by a key that
//!   goes with its session (`osd/access/<n>`);
//! - a primary records an interval only while the rules that it knows are the newest (its transaction compares the
//!   key's revision). So whoever serves an interval recorded after a change knows the change.
//!
//! A change is complete, then, when of each group (a) all acting members have confirmed it, and (b) its newest epoch is
//! recorded, or the members of the last interval that was have confirmed, too: until then one of them may still serve it.

use super::{ClusterMap, History, PgMap};
use crate::id::{ClientId, InodeId, ObjectId, OsdId, PgId, PoolId, Session};
use crate::msg::Refusal;
use crate::planted::{Bug, planted};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// `config/access`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// Clients that may do nothing any more.
    #[serde(default)]
    pub fenced: BTreeMap<ClientId, Fence>,
    /// Images that only one client may write.
    #[serde(default)]
    pub locks: BTreeMap<PoolId, BTreeMap<InodeId, ClientId>>,
}

/// Why, and how far, a client is fenced off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fence {
    /// Only its sessions with lower numbers are; by default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions_below: Option<u64>,
    /// For people.
    #[serde(default)]
    pub reason: String,
}

/// `osd/access/<n>`, leased: what an OSD obeys, with nothing left of what it had accepted before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obeyed {
    /// Revision of `config/access`.
    pub revision: u64,
}

impl Access {
    /// Why a request of a session may not be carried out.
    pub fn refusal(&self, session: Session, object: ObjectId, is_write: bool) -> Option<Refusal> {
        if self.fenced.get(&session.client).is_some_and(|fence| fence.holds(session)) {
            return Some(Refusal::Fenced);
        }
        let holder = self.lock(object.pool, object.inode)?;
        (is_write && holder != session.client).then_some(Refusal::Locked)
    }

    /// The client for which an image is locked.
    pub fn lock(&self, pool: PoolId, inode: InodeId) -> Option<ClientId> {
        self.locks.get(&pool)?.get(&inode).copied()
    }

    /// Locks an image, or unlocks it.
    pub fn set_lock(&mut self, pool: PoolId, inode: InodeId, client: Option<ClientId>) {
        let locks = self.locks.entry(pool).or_default();
        match client {
            Some(client) => locks.insert(inode, client),
            None => locks.remove(&inode),
        };
        self.locks.retain(|_, locks| !locks.is_empty());
    }
}

impl Fence {
    fn holds(&self, session: Session) -> bool {
        self.sessions_below.is_none_or(|below| session.number < below)
    }
}

/// Whom a change of the rules waits for before it is complete, for people; by a map that was read at the revision of the
/// change or later, histories included.
pub fn waits_for(map: &ClusterMap, revision: u64) -> Vec<String> {
    if planted(Bug::FenceWithoutWaiting) {
        return Vec::new();
    }
    let obeys = |osd: OsdId| map.osd_access(osd).is_some_and(|obeyed| obeyed.revision >= revision);
    let mut silent: BTreeSet<OsdId> = BTreeSet::new();
    let mut waits = Vec::new();
    for (pg, pg_map) in map.pg_maps() {
        silent.extend(pg_map.acting.iter().flatten().map(|member| member.osd).filter(|osd| !obeys(*osd)));
        let old = unrecorded(pg_map, map.history(pg)).into_iter().filter(|osd| !obeys(*osd));
        let old: Vec<String> = old.map(|osd| format!("osd.{osd}")).collect();
        if !old.is_empty() {
            waits.push(waiting_group(pg, &old));
        }
    }
    silent.into_iter().map(|osd| format!("osd.{osd} to obey")).chain(waits).collect()
}

/// Members of the last recorded interval, if a newer one is not recorded yet.
fn unrecorded(pg_map: &PgMap, history: Option<&History>) -> BTreeSet<OsdId> {
    let Some(history) = history.filter(|history| history.last != pg_map.epoch) else { return BTreeSet::new() };
    let last = history.sets.iter().filter(|(epoch, _)| *epoch == history.last);
    last.flat_map(|(_, members)| members).map(|member| member.osd).collect()
}

fn waiting_group(pg: PgId, old: &[String]) -> String {
    format!("group {pg} to be served anew, or {} to obey: it may still serve the group", old.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, Incarnation, Member, PgNumber, Role, StoreUuid};
    use crate::map::{ActingMember, PgMapChunk, keys};
    use crate::meta::KeyValue;

    const PG: PgId = PgId { pool: PoolId(1), number: PgNumber(0) };

    fn session(client: u64, number: u64) -> Session {
        Session { client: ClientId(client), number }
    }

    #[test]
    fn rules_refuse_what_they_name() {
        let mut access = Access::default();
        let object = ObjectId { pool: PoolId(1), inode: InodeId(7), stripe: 3 };
        assert_eq!(access.refusal(session(1, 1), object, true), None);
        access.fenced.insert(ClientId(1), Fence { sessions_below: Some(5), reason: String::new() });
        access.fenced.insert(ClientId(2), Fence::default());
        access.set_lock(PoolId(1), InodeId(7), Some(ClientId(3)));
        assert_eq!(access.refusal(session(1, 4), object, false), Some(Refusal::Fenced));
        assert_eq!(access.refusal(session(1, 5), object, false), None);
        assert_eq!(access.refusal(session(1, 5), object, true), Some(Refusal::Locked));
        assert_eq!(access.refusal(session(2, 9), object, false), Some(Refusal::Fenced));
        assert_eq!(access.refusal(session(3, 1), object, true), None);
        assert_eq!(access.refusal(session(1, 5), ObjectId { inode: InodeId(8), ..object }, true), None);
        let text = serde_json::to_vec(&access).expect("plain data");
        assert_eq!(serde_json::from_slice::<Access>(&text).expect("its own form"), access);
        access.set_lock(PoolId(1), InodeId(7), None);
        assert!(access.locks.is_empty());
    }

    fn cluster(acting: &[u32], epoch: u64, last: (u64, &[u32]), obeyed: &[(u32, u64)]) -> ClusterMap {
        let acting = acting
            .iter()
            .map(|osd| Some(ActingMember { osd: OsdId(*osd), store: StoreUuid(1), incarnation: Incarnation(1) }));
        let primary = Some(OsdId(1));
        let map = PgMap { epoch: Epoch(epoch), acting: acting.collect(), primary, ..PgMap::default() };
        let members =
            last.1.iter().map(|osd| Member { osd: OsdId(*osd), store: StoreUuid(1), role: Role(0) }).collect();
        let history = History { last: Epoch(last.0), sets: vec![(Epoch(last.0), members)], ..History::default() };
        let mut kvs = vec![
            (keys::pg_map(PG.pool, 0), serde_json::to_vec(&PgMapChunk([(PG.number, map)].into()))),
            (keys::pg_history(PG), serde_json::to_vec(&history)),
        ];
        let key = |(osd, revision): &(u32, u64)| {
            (keys::osd_access(OsdId(*osd)), serde_json::to_vec(&Obeyed { revision: *revision }))
        };
        kvs.extend(obeyed.iter().map(key));
        let kv = |(key, value): (String, Result<Vec<u8>, _>)| KeyValue::written(key, value.expect("plain data"), 1);
        let mut map = ClusterMap::default();
        let changes = map.apply_range(&kvs.into_iter().map(kv).collect::<Vec<_>>(), 9);
        assert_eq!(changes.errors, []);
        map
    }

    #[test]
    fn a_change_waits_for_whoever_may_still_serve() {
        let waits = |acting: &[u32], last: (u64, &[u32]), obeyed: &[(u32, u64)]| {
            waits_for(&cluster(acting, 5, last, obeyed), 7).len()
        };
        assert_eq!(waits(&[1, 2], (5, &[1, 2]), &[(1, 7), (2, 8)]), 0);
        assert_eq!(waits(&[1, 2], (5, &[1, 2]), &[(1, 7), (2, 6)]), 1, "an older revision");
        assert_eq!(waits(&[1, 2], (5, &[1, 2]), &[]), 2, "no session");
        // osd.3 left, but epoch 5 is not served yet: 3 may serve epoch 4.
        assert_eq!(waits(&[1, 2], (4, &[1, 2, 3]), &[(1, 7), (2, 7)]), 1);
        assert_eq!(waits(&[1, 2], (4, &[1, 2, 3]), &[(1, 7), (2, 7), (3, 7)]), 0);
        assert_eq!(waits(&[1, 2], (5, &[1, 2]), &[(1, 7), (2, 7)]), 0);
    }
}
