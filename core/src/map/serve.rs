//! Serves the cluster map to clients, who do not talk to the metadata store. Every OSD and monitor has one server.
//!
//! Owns the subscribers and when each item last changed. Does not own the map (it is passed in) nor the links.
//! Invariants: a subscriber gets every item that changed after what it has, the newest value only; nothing is sent
//! before the map was read once; at most one push each [`PUSH_INTERVAL`], so a storm of changes costs each subscriber
//! a bounded rate.

use super::{Changes, ClusterMap, parse::Key};
use crate::id::{InodeId, LinkId, OsdId, PgId, PoolId, Revision};
use crate::io::{Effect, Env};
use crate::map::Image;
use crate::msg::{ImageInfo, MapMessage, MapUpdate, Message, OsdInfo, PgInfo, PoolInfo};
use crate::time::{Duration, Time};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

/// Changes that come closer together are sent together. The first of a burst is sent at once, so it adds nothing to a
/// fail-over of one OSD; 50 messages a second are nothing to a client.
const PUSH_INTERVAL: Duration = Duration::millis(20);
/// Groups in one message: about 100 KB. A larger map is sent in parts.
const PGS_PER_UPDATE: usize = 4096;
/// Names of images in one message: about 130 KB, if they are as long as they may be.
const NAMES_PER_MESSAGE: usize = 256;
/// Questions that wait for the first map; a client whose question finds no place is disconnected and comes again.
const WAITING_MAX: usize = 256;

/// Something that changes on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Pools,
    Osd(OsdId),
    Pg(PgId),
}

/// When an item changed last: by our own count, and at which revision at the latest.
#[derive(Clone, Copy, Debug)]
struct Stamp {
    sequence: u64,
    revision: u64,
}

/// What a subscriber has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Has {
    /// It asked, saying that it has this, and was not answered yet.
    Asked(Revision),
    /// All changes up to this one.
    Sequence(u64),
}

/// A question that waits for the first map.
#[derive(Clone, Debug)]
struct Question {
    link: LinkId,
    token: u64,
    about: About,
}

#[derive(Clone, Debug)]
enum About {
    /// The image of this name, in this pool.
    Image(Option<String>, String),
    /// The images after this one.
    Images(Option<String>),
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct MapServer {
    subscribers: BTreeMap<LinkId, Has>,
    waiting: Vec<Question>,
    stamps: BTreeMap<Item, Stamp>,
    by_sequence: BTreeSet<(u64, Item)>,
    sequence: u64,
    /// No item changed after this revision.
    newest: u64,
    /// The last change that can only be told by sending everything: a pool went away.
    removal: u64,
    /// Deletions before this revision are unknown.
    first_revision: Option<Revision>,
    not_before: Time,
    pending: bool,
    /// The change as of which the indexes were last compared.
    checked: Cell<u64>,
}

impl MapServer {
    /// A server that has no map yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a message of a client.
    pub fn handle(&mut self, env: &mut Env<'_>, map: &ClusterMap, from: LinkId, message: MapMessage) {
        match message {
            MapMessage::Subscribe { have } => self.subscribe(env, map, from, have),
            MapMessage::FindImage { token, pool, name } => {
                self.find(env, map, Question { link: from, token, about: About::Image(pool, name) });
            }
            MapMessage::ListImages { token, after } => {
                self.find(env, map, Question { link: from, token, about: About::Images(after) });
            }
            // Answers, which no client sends: whoever does is not one of ours.
            MapMessage::Update(_) | MapMessage::Image { .. } | MapMessage::Images { .. } => {
                env.out.push(Effect::Close(from));
            }
        }
    }

    /// The link is gone.
    pub fn link_down(&mut self, link: LinkId) {
        self.subscribers.remove(&link);
        self.waiting.retain(|question| question.link != link);
    }

    /// The map changed (call it after every application).
    pub fn changed(&mut self, env: &mut Env<'_>, map: &ClusterMap, changes: &Changes) {
        self.sequence += 1;
        for key in &changes.keys {
            self.note_key(map, *key);
        }
        for pg in &changes.pgs {
            match map.pg_map(*pg) {
                Some((_, revision)) => self.note(Item::Pg(*pg), revision.0),
                // Of a layout that is over: clients forget it with the layout.
                None => self.forget(Item::Pg(*pg)),
            }
        }
        self.first_revision.get_or_insert(map.complete_revision());
        for question in std::mem::take(&mut self.waiting) {
            answer(env, map, question);
        }
        self.push_soon(env, map);
    }

    /// Time passed.
    pub fn tick(&mut self, env: &mut Env<'_>, map: &ClusterMap) {
        if self.pending && self.not_before <= env.now {
            self.push(env, map);
        }
    }

    /// When `tick` is due.
    pub fn next_deadline(&self) -> Option<Time> {
        self.pending.then_some(self.not_before)
    }

    /// How many clients follow the map here.
    pub fn subscribers(&self) -> usize {
        self.subscribers.len()
    }

    /// Panics if the two indexes disagree.
    pub fn check(&self) {
        assert_eq!(self.stamps.len(), self.by_sequence.len(), "map server: indexes differ in size");
        if self.checked.replace(self.sequence) == self.sequence {
            return; // Nothing changes without a new number.
        }
        for (item, stamp) in &self.stamps {
            let indexed = self.by_sequence.contains(&(stamp.sequence, *item));
            assert!(indexed, "map server: {item:?} at {} is not indexed", stamp.sequence);
        }
    }

    fn subscribe(&mut self, env: &mut Env<'_>, map: &ClusterMap, link: LinkId, have: Revision) {
        self.subscribers.insert(link, Has::Asked(have));
        if self.first_revision.is_some() {
            self.serve(env, map, link, Has::Asked(have));
        }
    }

    fn find(&mut self, env: &mut Env<'_>, map: &ClusterMap, question: Question) {
        if self.first_revision.is_some() {
            answer(env, map, question);
        } else if self.waiting.len() < WAITING_MAX {
            self.waiting.push(question);
        } else {
            env.out.push(Effect::Close(question.link));
            self.link_down(question.link);
        }
    }

    fn note_key(&mut self, map: &ClusterMap, key: Key) {
        match key {
            Key::Pools => {
                // Few and rare: whether one went away is not worth finding out.
                self.removal = self.sequence;
                self.note(Item::Pools, map.newest_revision().0);
            }
            Key::Layout(_) => self.note(Item::Pools, map.newest_revision().0),
            Key::OsdState(osd) => {
                let revision = match map.mod_revision(key) {
                    0 => map.newest_revision().0,
                    revision => revision,
                };
                self.note(Item::Osd(osd), revision);
            }
            _ => {}
        }
    }

    fn note(&mut self, item: Item, revision: u64) {
        let stamp = Stamp { sequence: self.sequence, revision };
        self.newest = self.newest.max(revision);
        if let Some(old) = self.stamps.insert(item, stamp) {
            self.by_sequence.remove(&(old.sequence, item));
        }
        self.by_sequence.insert((stamp.sequence, item));
    }

    fn forget(&mut self, item: Item) {
        if let Some(old) = self.stamps.remove(&item) {
            self.by_sequence.remove(&(old.sequence, item));
        }
    }

    fn push_soon(&mut self, env: &mut Env<'_>, map: &ClusterMap) {
        if self.not_before <= env.now {
            self.push(env, map);
        } else {
            self.pending = true;
        }
    }

    fn push(&mut self, env: &mut Env<'_>, map: &ClusterMap) {
        self.pending = false;
        self.not_before = env.now + PUSH_INTERVAL;
        let links: Vec<(LinkId, Has)> = self.subscribers.iter().map(|(link, has)| (*link, *has)).collect();
        for (link, has) in links {
            self.serve(env, map, link, has);
        }
    }

    /// Sends what a subscriber lacks; to one that asked just now, an answer even if that is nothing.
    fn serve(&mut self, env: &mut Env<'_>, map: &ClusterMap, link: LinkId, has: Has) {
        self.subscribers.insert(link, Has::Sequence(self.sequence));
        let first = self.first_revision.unwrap_or_default();
        match has {
            Has::Asked(have) if have < first || have.0 == 0 => send_full(env, map, link),
            // Most who ask have all there is.
            Has::Asked(have) if have.0 >= self.newest => send_items(env, map, link, std::iter::empty(), true),
            Has::Asked(have) => {
                let newer = self.stamps.iter().filter(|(_, stamp)| stamp.revision > have.0).map(|(item, _)| *item);
                send_items(env, map, link, newer, true);
            }
            Has::Sequence(sequence) if sequence < self.removal => send_full(env, map, link),
            Has::Sequence(sequence) => {
                let newer = self.by_sequence.range((sequence + 1, Item::Pools)..).map(|(_, item)| *item);
                send_items(env, map, link, newer, false);
            }
        }
    }
}

fn send_full(env: &mut Env<'_>, map: &ClusterMap, link: LinkId) {
    let pools = pool_infos(map).collect();
    let osds = map.osd_states().map(|(id, state)| OsdInfo { id, address: state.address.clone() }).collect();
    let pgs = map.pg_maps().filter(|(pg, _)| is_in_force(map, *pg));
    let pgs = pgs.map(|(pg, map)| PgInfo { pg, epoch: map.epoch, primary: map.primary }).collect();
    send_parts(env, map, link, MapUpdate { revision: Revision(0), full: true, pools, pgs, osds });
}

fn send_items(env: &mut Env<'_>, map: &ClusterMap, link: LinkId, items: impl Iterator<Item = Item>, always: bool) {
    let mut update = MapUpdate::default();
    for item in items {
        add_item(map, item, &mut update);
    }
    let empty = update.pools.is_empty() && update.pgs.is_empty() && update.osds.is_empty();
    if always || !empty {
        send_parts(env, map, link, update);
    }
}

fn add_item(map: &ClusterMap, item: Item, update: &mut MapUpdate) {
    match item {
        Item::Pools => update.pools.extend(pool_infos(map)),
        Item::Osd(id) => {
            let address = map.osd_state(id).map_or(String::new(), |state| state.address.clone());
            update.osds.push(OsdInfo { id, address });
        }
        Item::Pg(pg) => {
            if let Some((map, _)) = map.pg_map(pg).filter(|_| is_in_force(map, pg)) {
                update.pgs.push(PgInfo { pg, epoch: map.epoch, primary: map.primary });
            }
        }
    }
}

/// Sends an update in messages of bounded size. Only the last one names the revision: until then it is not complete.
fn send_parts(env: &mut Env<'_>, map: &ClusterMap, link: LinkId, mut update: MapUpdate) {
    while update.pgs.len() > PGS_PER_UPDATE {
        let rest = update.pgs.split_off(PGS_PER_UPDATE);
        let part = std::mem::replace(&mut update, MapUpdate { pgs: rest, ..MapUpdate::default() });
        env.out.send(link, Message::Map(MapMessage::Update(part)));
    }
    update.revision = map.complete_revision();
    env.out.send(link, Message::Map(MapMessage::Update(update)));
}

/// The pools that have groups.
fn pool_infos(map: &ClusterMap) -> impl Iterator<Item = PoolInfo> {
    map.pools().filter_map(|(id, pool)| {
        Some(PoolInfo {
            id,
            name: pool.name.clone(),
            scheme: pool.scheme,
            data_chunks: pool.data_chunks(),
            layout: map.layout(id)?.now,
            object_bytes: pool.object_bytes(),
        })
    })
}

/// Whether a group is of its pool's present layout.
fn is_in_force(map: &ClusterMap, pg: PgId) -> bool {
    map.layout(pg.pool).is_some_and(|layout| layout.now.contains(pg.number))
}

fn answer(env: &mut Env<'_>, map: &ClusterMap, question: Question) {
    let Question { link, token, about } = question;
    let answer = match about {
        About::Image(pool, name) => {
            MapMessage::Image { token, image: find_image(map, pool.as_deref(), &name).map(image_info) }
        }
        About::Images(after) => {
            let (names, more) = list_images(map, after.as_deref());
            MapMessage::Images { token, names, more }
        }
    };
    env.out.send(link, Message::Map(answer));
}

fn image_info((pool, inode, image): (PoolId, InodeId, &Image)) -> ImageInfo {
    ImageInfo {
        pool,
        inode,
        name: image.name.clone(),
        size_bytes: image.size_bytes,
        read_only: image.read_only || image.snapshot,
    }
}

/// Some names in order, and whether there are more. Images that are being removed are gone.
fn list_images(map: &ClusterMap, after: Option<&str>) -> (Vec<String>, bool) {
    let images = map.images().filter(|(_, _, image)| !image.removing);
    let named = images.filter_map(|(pool, _, image)| Some(format!("{}/{}", map.pool(pool)?.name, image.name)));
    let mut names: Vec<String> = named.filter(|name| after.is_none_or(|after| name.as_str() > after)).collect();
    names.sort_unstable();
    let more = names.len() > NAMES_PER_MESSAGE;
    names.truncate(NAMES_PER_MESSAGE);
    (names, more)
}

/// The image of that name in that pool, or in the only pool that has one. Images that are being removed are gone.
fn find_image<'a>(map: &'a ClusterMap, pool: Option<&str>, name: &str) -> Option<(PoolId, InodeId, &'a Image)> {
    let in_pool = |id: PoolId| map.pool(id).is_some_and(|p| pool.is_none_or(|wanted| p.name == wanted));
    let mut found = map.images().filter(|(id, _, image)| image.name == name && !image.removing && in_pool(*id));
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests;
