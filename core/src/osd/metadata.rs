//! What the OSD does with news from the metadata store.

use super::peers::Place;
use super::session::Session;
use super::{Osd, Phase, log, next_meta_id};
use crate::id::{OsdId, PgId, PoolId};
use crate::io::{Env, Level, MetaEvent};
use crate::map::cluster::Changes;
use crate::map::follow::Followed;
use crate::map::parse::Key;
use crate::map::{OsdState, PgMap, keys};
use crate::pg::lease::longest;
use crate::store::{ObjectStore, StoreState};
use std::collections::BTreeSet;

impl<S: ObjectStore> Osd<S> {
    /// An event of the metadata store.
    pub(super) fn metadata(&mut self, env: &mut Env<'_>, event: MetaEvent) {
        let mut ids = || next_meta_id(&mut self.next_meta);
        if matches!(event, MetaEvent::Response { result: Ok(_), .. }) {
            self.follower.store_answers();
        }
        match self.follower.handle(env, event, &mut ids) {
            Ok(Some(followed)) => self.map_news(env, &followed),
            Ok(None) => {}
            Err(MetaEvent::Response { id, result }) => {
                let session = self.session.as_mut();
                let taken = session.is_some_and(|session| session.handle(env, id, &result, &mut ids))
                    || self.publisher.handle(env, id, &result);
                if let Some(former) = self.publisher.take_inheritance() {
                    self.count_on(&former);
                }
                if !taken {
                    self.groups.meta_done(env, id, result);
                }
            }
            Err(MetaEvent::Watch { .. } | MetaEvent::WatchLost { .. }) => {}
        }
    }

    fn map_news(&mut self, env: &mut Env<'_>, followed: &Followed) {
        let changes = self.map.apply(followed);
        for error in &changes.errors {
            log(env, Level::Error, format!("{error}; the last good value stays in force"));
        }
        if changes.keys.contains(&Key::Global) && !self.global_changed(env) {
            return;
        }
        self.images_changed(env, &changes);
        if self.phase == Phase::Reading {
            return self.run_if_ready(env);
        }
        self.osds_changed(env, &changes);
        let layouts =
            changes.keys.iter().filter_map(|key| if let Key::Layout(pool) = key { Some(*pool) } else { None });
        self.layouts_changed(env, layouts.collect());
        self.pools_removed(env, &changes);
        self.maps_changed(env, &changes.pgs);
        if changes.keys.iter().any(|key| matches!(key, Key::Layout(_) | Key::Pools)) {
            self.create_missing(env);
        }
        self.server.changed(env, &self.map, &changes);
        self.leave_if_due(env);
    }

    /// Tells groups which images exist, and which of them are to be removed.
    fn images_changed(&mut self, env: &mut Env<'_>, changes: &Changes) {
        let images = &mut self.groups.node_mut().images;
        let mut changed: BTreeSet<PoolId> = BTreeSet::new();
        for key in &changes.keys {
            if let Key::Image(pool, inode) = *key {
                changed.insert(pool);
                images.set(pool, inode, self.map.image(pool, inode), self.map.create_revision(*key));
            }
        }
        // The revision of the key counts, also when its value is the same.
        self.map.pools().for_each(|(pool, _)| images.set_last(&self.map, pool));
        let ids: Vec<PgId> = self.groups.iter().map(|(id, _)| id).filter(|id| changed.contains(&id.pool)).collect();
        for id in ids {
            self.groups.with(env, id, |pg, host| pg.images_changed(host));
        }
    }

    /// Takes over `config/global`; false if it ends this node.
    fn global_changed(&mut self, env: &mut Env<'_>) -> bool {
        let Some(global) = self.map.global().cloned() else { return true };
        if global.cluster != self.config.cluster {
            let (ours, theirs) = (self.config.cluster, global.cluster);
            self.die(env, format!("the store belongs to cluster {ours}, but the metadata store to {theirs}"));
            return false;
        }
        self.set_global(&global);
        true
    }

    /// Begins to work, once the map was read and the cluster exists.
    fn run_if_ready(&mut self, env: &mut Env<'_>) {
        let Some(global) = self.map.global().cloned() else {
            return log(env, Level::Info, "waiting for the cluster to be initialised (config/global)".into());
        };
        self.phase = Phase::Running;
        let key = keys::osd_state(self.config.osd);
        let mut session = Session::new(key, self.own_state(), global.session_ttl_s);
        let (node, now) = (self.groups.node(), env.now);
        let leases_end = node.started + longest(node.lease);
        if self.config.waits_for_leases && leases_end > now {
            session.start_at(leases_end);
        } else {
            session.start(env, next_meta_id(&mut self.next_meta));
        }
        self.session = Some(session);
        let everything = Changes {
            keys: self.map.osd_states().map(|(osd, _)| Key::OsdState(osd)).collect(),
            pgs: self.map.pg_maps().map(|(pg, _)| pg).collect(),
            errors: Vec::new(),
        };
        self.access_changed(env);
        self.osds_changed(env, &everything);
        self.layouts_changed(env, self.map.layouts().map(|(pool, _)| pool).collect());
        self.end_removed_pools(env);
        self.maps_changed(env, &everything.pgs);
        self.server.changed(env, &self.map, &everything);
    }

    fn own_state(&self) -> OsdState {
        let store = self.groups.store();
        OsdState {
            address: self.config.address.clone(),
            store: store.uuid(),
            incarnation: self.config.incarnation,
            host: self.config.host.clone(),
            size_bytes: store.stats().total_bytes,
            trusted: store.state() == StoreState::Open { trusted: true },
            immediate_commit: store.immediate_commit(),
        }
    }

    fn osds_changed(&mut self, env: &mut Env<'_>, changes: &Changes) {
        for key in &changes.keys {
            match key {
                Key::OsdState(osd) if *osd == self.config.osd => self.own_key_changed(env),
                Key::OsdState(osd) => self.osd_changed(env, *osd),
                Key::Pools => self.pools_changed(env),
                Key::ScrubOrder(pg) => self.tell_order(env, *pg),
                Key::Access => self.access_changed(env),
                _ => {}
            }
        }
    }

    fn tell_order(&mut self, env: &mut Env<'_>, id: PgId) {
        let order = self.map.scrub_order(id);
        self.groups.with(env, id, |pg, host| pg.scrub_ordered(host, order));
    }

    fn pools_changed(&mut self, env: &mut Env<'_>) {
        let ids: Vec<PgId> = self.groups.iter().map(|(id, _)| id).collect();
        for id in ids {
            if let Some(pool) = self.map.pool(id.pool) {
                self.groups.with(env, id, |pg, host| pg.pool_changed(host, pool));
            }
        }
    }

    fn own_key_changed(&mut self, env: &mut Env<'_>) {
        let own = self.config.incarnation;
        let ours = self.map.osd_state(self.config.osd).is_some_and(|state| state.incarnation == own);
        if !ours && let Some(session) = &mut self.session {
            session.key_lost(env);
        }
    }

    fn osd_changed(&mut self, env: &mut Env<'_>, osd: OsdId) {
        let state = self.map.osd_state(osd);
        let place = state.map(|state| Place { address: state.address.clone(), incarnation: state.incarnation });
        let up = place.is_some();
        self.peers.set(env, osd, place, up);
        let link = self.peers.link(osd).zip(self.peers.incarnation(osd));
        self.groups.set_peer(env, osd, up, link);
    }

    /// Groups of layouts that are over end.
    fn layouts_changed(&mut self, env: &mut Env<'_>, pools: BTreeSet<PoolId>) {
        for pool in pools {
            let Some(layout) = self.map.layout(pool).filter(|_| !self.map.is_removed(pool)) else { continue };
            let ended = self.groups.set_layout(env, pool, layout);
            self.withdraw(&ended);
        }
    }

    /// A pool or a layout is known that was not: groups whose maps, or queries, came before.
    fn create_missing(&mut self, env: &mut Env<'_>) {
        let concerned = |id: &PgId| !self.groups.contains(*id) && self.is_concerned(*id);
        let mut missing: BTreeSet<PgId> = self.map.pg_maps().map(|(id, _)| id).filter(concerned).collect();
        missing.extend(self.groups.early());
        for id in missing {
            self.create_group(env, id);
            self.groups.take_early(env, id);
        }
    }

    fn maps_changed(&mut self, env: &mut Env<'_>, pgs: &BTreeSet<PgId>) {
        for id in pgs {
            if !self.groups.contains(*id) && self.is_concerned(*id) {
                self.create_group(env, *id);
            } else {
                self.tell_map(env, *id);
            }
        }
    }

    /// Whether this OSD is to serve the group, or holds copies of it.
    fn is_concerned(&self, id: PgId) -> bool {
        let own = self.config.osd;
        let named = |map: &PgMap| map.acting.iter().flatten().any(|member| member.osd == own);
        if self.map.pg_map(id).is_some_and(|(map, _)| named(map)) {
            return true;
        }
        self.map.layout(id.pool).is_some_and(|layout| {
            let own = layout.now.contains(id.number);
            own && !self.groups.store().roles(id.pool, layout.now.range(id.number)).is_empty()
        })
    }

    /// Makes a group, unless it is here, or its pool unknown, or of another layout, and tells it its map.
    pub(super) fn create_group(&mut self, env: &mut Env<'_>, id: PgId) {
        if self.groups.contains(id) {
            return;
        }
        let in_force = self.groups.node().layouts.get(&id.pool).is_some_and(|layout| layout.now.contains(id.number));
        let Some(pool) = self.map.pool(id.pool).filter(|_| in_force) else { return };
        self.groups.create(id, pool);
        self.tell_map(env, id);
        self.tell_order(env, id);
    }

    fn tell_map(&mut self, env: &mut Env<'_>, id: PgId) {
        if let Some((map, revision)) = self.map.pg_map(id) {
            self.groups.with(env, id, |pg, host| pg.map_changed(host, map, revision));
        }
    }
}
