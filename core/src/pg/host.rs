//! What a placement group is given by the OSD node that holds it, on each call.
//!
//! Owns nothing that lasts: [`Host`] borrows the node's parts for one call. A group reaches the world only through it.

use crate::id::{Incarnation, LinkId, OsdId, PgId, PoolId, StoreUuid};
use crate::io::{Effect, Env, Event, Level};
use crate::map::PoolLayout;
use crate::map::access::Access;
use crate::meta;
use crate::msg::{Fact, Message};
use crate::pg::images::Images;
use crate::pg::msg::PgMessage;
use crate::pg::pace::RecoverySlots;
use crate::pg::scrub::ScrubPlaces;
use crate::slab::Slab;
use crate::stages::{Served, Stages};
use crate::store::{ObjectStore, StoreOp};
use crate::time::{Duration, Time};
use crate::timer::Deadlines;
use std::collections::BTreeMap;

/// Where a store completion belongs: the OSD node takes the record out of [`Host::store_calls`] by the completion's
/// token and gives `purpose` to [`super::Pg::store_done`] of that group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreCall {
    /// The group.
    pub pg: PgId,
    /// What the group wanted; opaque to the node.
    pub purpose: super::StorePurpose,
    /// When it began.
    pub since: Time,
    /// Whether the store changes by it.
    pub is_write: bool,
}

/// The parts of the OSD node that a group may use.
pub struct Host<'a, 'e, S> {
    /// Time, randomness, buffers, effects.
    pub env: &'a mut Env<'e>,
    /// The store.
    pub store: &'a mut S,
    /// Store operations under way; the key is the token.
    pub store_calls: &'a mut Slab<StoreCall>,
    /// Who this is and whom it knows.
    pub node: &'a NodeView,
    /// Wake-ups: the node calls [`super::Pg::tick`] of the group.
    pub deadlines: &'a mut Deadlines<PgId>,
    /// Places for recovery.
    pub recovery: &'a mut RecoverySlots,
    /// Places for scrubbing.
    pub scrubs: &'a mut ScrubPlaces,
    /// Where time goes, but for operations of clients.
    pub stages: &'a mut Stages,
    /// How long operations of clients take, by pool.
    pub served: &'a mut BTreeMap<PoolId, Served>,
    /// Requests to the metadata store, in order; the node gives the answer with the token to [`super::Pg::meta_done`].
    pub meta: &'a mut Vec<MetaCall>,
}

/// A request to the metadata store.
#[derive(Clone, Debug, PartialEq)]
pub struct MetaCall {
    /// The group.
    pub pg: PgId,
    /// Comes back with the answer; opaque to the node.
    pub token: u64,
    /// The request.
    pub request: meta::Request,
}

/// What a group must know of its node.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// This OSD.
    pub osd: OsdId,
    /// Its store.
    pub store: StoreUuid,
    /// Its start.
    pub incarnation: Incarnation,
    /// When it started.
    pub started: Time,
    /// How long a read lease lasts (`config/global`).
    pub lease: Duration,
    /// How full its store may become by recovery (`config/global`).
    pub recovery_full_percent: u32,
    /// Who may not write.
    pub access: Access,
    /// Revision of that; `None`: what is stored makes no sense, so it is not known.
    pub access_revision: Option<u64>,
    /// Every other OSD that is up (has a state key) or connected.
    pub peers: BTreeMap<OsdId, Peer>,
    /// Which images exist.
    pub images: Images,
    /// How the hashes of each pool are cut into groups.
    pub layouts: BTreeMap<PoolId, PoolLayout>,
}

/// Another OSD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Whether it is up by the metadata store: worth waiting for.
    pub up: bool,
    /// The connection to it, handshake done.
    pub link: Option<(LinkId, Incarnation)>,
}

impl NodeView {
    /// Whether there is a connection to an OSD (always true for this one).
    pub fn is_connected(&self, osd: OsdId) -> bool {
        osd == self.osd || self.link(osd).is_some()
    }

    /// The connection to another OSD.
    pub fn link(&self, osd: OsdId) -> Option<LinkId> {
        self.peers.get(&osd)?.link.map(|(link, _)| link)
    }

    /// The start of an OSD that messages come from; the default if there is no connection.
    pub fn incarnation_of(&self, osd: OsdId) -> Incarnation {
        if osd == self.osd {
            return self.incarnation;
        }
        let link = self.peers.get(&osd).and_then(|peer| peer.link);
        link.map(|(_, incarnation)| incarnation).unwrap_or_default()
    }

    /// Whether it makes sense to wait for an OSD.
    pub fn is_up(&self, osd: OsdId) -> bool {
        osd == self.osd || self.peers.get(&osd).is_some_and(|peer| peer.up || peer.link.is_some())
    }
}

impl<S: ObjectStore> Host<'_, '_, S> {
    /// This node's time.
    pub fn now(&self) -> Time {
        self.env.now
    }

    /// Submits a store operation whose completion comes back with `purpose`.
    pub fn submit(&mut self, pg: PgId, purpose: super::StorePurpose, op: StoreOp) {
        let (since, is_write) = (self.env.now, op.is_write());
        let token = self.store_calls.insert(StoreCall { pg, purpose, since, is_write }).to_u64();
        self.store.submit(self.env, token, op);
    }

    /// Sends to a connected OSD; without a connection nothing happens (what must arrive is sent again when the
    /// connection is back).
    pub fn send(&mut self, to: OsdId, message: PgMessage) {
        if let Some(link) = self.node.link(to) {
            self.env.out.send(link, Message::Pg(message));
        }
    }

    /// Wakes the group at `at`, or before.
    pub fn wake(&mut self, pg: PgId, at: Time) {
        self.deadlines.arm(at, pg);
    }

    /// Tells observers.
    pub fn observe(&mut self, fact: Fact) {
        self.env.out.push(Effect::Observe(Event::Fact(fact)));
    }

    /// Marks a rare branch.
    pub fn mark(&mut self, name: &'static str) {
        self.env.out.push(Effect::Observe(Event::Mark(name)));
    }

    /// Tells people.
    pub fn log(&mut self, level: Level, text: String) {
        self.env.out.push(Effect::Observe(Event::Log(level, text)));
    }
}
