//! Heartbeats: one message per peer and period, for all groups that both serve. They keep read leases alive and show
//! that a peer is there.

use super::{Osd, log};
use crate::id::{Attempt, LinkId, OsdId, PgId};
use crate::io::{Env, Level};
use crate::msg::Message;
use crate::pg::msg::PgMessage;
use crate::store::ObjectStore;
use crate::time::{Duration, Time};
use std::collections::BTreeMap;

/// Heartbeats per lease: three may be lost or late.
const BEATS_PER_LEASE: u64 = 4;

impl<S: ObjectStore> Osd<S> {
    /// A primary asks for leases: grants those of the attempts that the groups joined.
    pub(super) fn heartbeat(
        &mut self,
        env: &mut Env<'_>,
        from: LinkId,
        sent: Time,
        lease: Duration,
        groups: &[(PgId, Attempt)],
    ) {
        let mut granted = Vec::with_capacity(groups.len());
        for (id, attempt) in groups {
            let now = env.now;
            if self.groups.with(env, *id, |pg, _| pg.grant_lease(now, *attempt, lease)) == Some(true) {
                granted.push((*id, *attempt));
            }
        }
        env.out.send(from, Message::Pg(PgMessage::HeartbeatAck { sent, lease, groups: granted }));
    }

    /// A member granted leases.
    pub(super) fn heartbeat_ack(
        &mut self,
        env: &mut Env<'_>,
        osd: OsdId,
        sent: Time,
        lease: Duration,
        groups: &[(PgId, Attempt)],
    ) {
        if sent > env.now {
            return log(env, Level::Warn, format!("osd.{osd} acknowledged a heartbeat from the future: ignored"));
        }
        for (id, attempt) in groups {
            self.groups.with(env, *id, |pg, host| pg.lease_granted(host, osd, *attempt, sent, lease));
        }
    }

    /// When the next heartbeats go out.
    pub(super) fn beat_deadline(&self) -> Option<Time> {
        self.peers.up().next().map(|_| self.heartbeat_due)
    }

    /// Sends heartbeats to all peers, if it is time.
    pub(super) fn beat_if_due(&mut self, env: &mut Env<'_>) {
        if self.heartbeat_due > env.now {
            return;
        }
        let lease = self.lease_asked();
        self.heartbeat_due = env.now + Duration(lease.0 / BEATS_PER_LEASE);
        let mut beats: BTreeMap<OsdId, Vec<(PgId, Attempt)>> = BTreeMap::new();
        for (id, pg) in self.groups.iter() {
            let Some(attempt) = pg.serving() else { continue };
            for member in pg.heartbeat_members() {
                beats.entry(*member).or_default().push((id, attempt));
            }
        }
        for (osd, link) in self.peers.up() {
            let groups = beats.remove(&osd).unwrap_or_default();
            env.out.send(link, Message::Pg(PgMessage::Heartbeat { sent: env.now, lease, groups }));
        }
    }
}
