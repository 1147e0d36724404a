//! Content at rest: after a run, every process is stopped and every store opened by itself.
//!
//! Each object is then on exactly the members that the map names, at one version; copies are equal, parity matches the
//! data. That the stores open at all, after an end at any moment, is checked by the way.

use super::process::open;
use super::script::broken;
use super::{Cluster, POOL, Process, SimStore, Spec};
use crate::check::history::Finding;
use crate::world::{NodeId, World};
use ashlar_core::ec;
use ashlar_core::id::{CopyId, HashRange, ObjectId, OsdId, Role, Version};
use ashlar_core::io::{Device, Effect, Env};
use ashlar_core::map::Scheme;
use ashlar_core::store::{Bitmap, Content, CopyInfo, ObjectStore, StoreOp, StoreReply, StoreState, VersionInfo};
use ashlar_core::time::Duration;
use std::collections::BTreeMap;

/// Members outside of the acting sets have so long to remove what they hold.
const STRAY_LIMIT: Duration = Duration::secs(120);
/// More than a session of a process that ended lives on, and than any operation of a store takes without faults.
const SETTLING: Duration = Duration::secs(5);
/// How often rest may be disturbed.
const TRIES: u32 = 4;
/// Far more rounds than opening or reading a small store takes.
const ROUNDS: u32 = 200_000;
/// A round of a store that is alone with its disk.
const ROUND: Duration = Duration::millis(1);

/// A copy, read.
#[derive(Debug, PartialEq, Eq)]
struct Rest {
    version: Version,
    /// Bytes up to the end of the copy, and what was written; none: a tombstone.
    content: Option<(Vec<u8>, Bitmap)>,
}

/// The copies of an object, by member.
type Copies = BTreeMap<(OsdId, Role), Rest>;

impl Cluster {
    /// See the module. No process runs afterwards.
    pub(super) fn check_at_rest(&mut self) -> Result<(), Finding> {
        self.come_to_rest()?;
        let places = self.places();
        let mut objects: BTreeMap<ObjectId, Copies> = BTreeMap::new();
        for node in self.osds.clone() {
            self.kill(node);
            let osd = self.osd_id(node).expect("an OSD's place");
            for (copy, rest) in self.read_store(node)? {
                let bytes = rest.content.as_ref().map(|(bytes, _)| bytes.as_slice());
                let at = |what| broken(format!("node {} at rest: {what}", node.0));
                self.contents.found(copy, rest.version, bytes).map_err(at)?;
                objects.entry(copy.object).or_default().insert((osd, copy.role), rest);
            }
        }
        for (object, copies) in &objects {
            let Some(place) = places.get(object) else {
                if self.forgot_deletions || copies.values().all(|rest| rest.content.is_none()) {
                    continue;
                }
                let holders: Vec<&(OsdId, Role)> = copies.keys().collect();
                return Err(broken(format!("{object:?} of an image that was removed is still on {holders:?}")));
            };
            self.compare(*object, place, copies).map_err(broken)?;
        }
        Ok(())
    }

    /// Waits until everything is where it belongs and stays there: a member whose end nobody noticed yet may be missing,
    /// and what was removed or purged last is to be durable.
    fn come_to_rest(&mut self) -> Result<(), Finding> {
        for _ in 0..TRIES {
            let tidy = self.run_until(STRAY_LIMIT, |cluster| cluster.strays().is_empty() && cluster.all_whole())?;
            if !tidy {
                let (strays, stuck) = (self.strays(), self.describe_stuck());
                return Err(broken(format!("copies outside of the acting sets remain: {strays:?}\n{stuck}")));
            }
            self.wait_out_stalls()?;
            self.run_for(SETTLING)?;
            if self.strays().is_empty() && self.all_whole() {
                return Ok(());
            }
        }
        Err(broken(format!("the cluster does not come to rest: {}", self.describe_stuck())))
    }

    /// A disk that stalls takes what it was asked for before, such as to remove a copy, only when the stall is over.
    fn wait_out_stalls(&mut self) -> Result<(), Finding> {
        let mut end = self.world.now();
        for node in self.osds.clone() {
            end = end.max(self.world.disk_mut(node, Device::Data).map_or(end, |disk| disk.stalled_until()));
        }
        self.run_to(end)
    }

    /// Where each object belongs: its acting members with their roles.
    fn places(&mut self) -> BTreeMap<ObjectId, Vec<(OsdId, Role)>> {
        let mut places = BTreeMap::new();
        for pg in self.groups() {
            let Some(map) = self.pg_map(pg) else { continue };
            let role = |index: u8| Role(if self.config.scheme == Scheme::Replicated { 0 } else { index });
            let members = map.acting.iter().zip(0u8..).filter_map(|(member, at)| Some(((*member)?.osd, role(at))));
            let members: Vec<(OsdId, Role)> = members.collect();
            places.extend(self.objects_of(pg).map(|object| (object, members.clone())));
        }
        places
    }

    /// Copies where they do not belong.
    fn strays(&mut self) -> Vec<(OsdId, CopyId)> {
        let places = self.places();
        let mut strays = Vec::new();
        for node in &self.osds {
            let osd = self.osd_id(*node).expect("an OSD's place");
            // Of images that were removed, tombstones stay until an interval has passed.
            let belongs = |info: &CopyInfo| match places.get(&info.copy.object) {
                Some(members) => members.contains(&(osd, info.copy.role)),
                None => self.forgot_deletions || newest(info).is_some_and(|newest| newest.tombstone),
            };
            let stray = self.copies_on(*node).into_iter().filter(|info| !belongs(info));
            strays.extend(stray.map(|info| (osd, info.copy)));
        }
        strays
    }

    /// All copies that a running OSD holds.
    pub(super) fn copies_on(&self, node: NodeId) -> Vec<CopyInfo> {
        let Some(osd) = self.world.node(node).and_then(|process| process.osd()) else { return Vec::new() };
        let mut copies = Vec::new();
        for role in (0..self.config.pg_size).map(Role) {
            osd.groups().store().list(POOL, role, HashRange::ALL, None, usize::MAX, &mut copies);
        }
        copies
    }

    /// Whether a running OSD holds more than tombstones.
    pub(super) fn holds_data(&self, node: NodeId) -> bool {
        self.copies_on(node).iter().any(|info| newest(info).is_some_and(|newest| !newest.tombstone))
    }

    fn read_store(&mut self, node: NodeId) -> Result<Vec<(CopyId, Rest)>, Finding> {
        let size = usize::try_from(self.config.chunk_bytes()).expect("small");
        let roles = self.config.pg_size;
        let mut store = Alone::open(&mut self.world, node);
        let complaint = |text: String| broken(format!("node {} at rest: {text}", node.0));
        store.run(|store| store.state() != StoreState::Opening).map_err(complaint)?;
        if store.store.state() != (StoreState::Open { trusted: true }) {
            return Err(complaint(format!("its store is {:?}", store.store.state())));
        }
        let mut copies = Vec::new();
        for role in (0..roles).map(Role) {
            store.store.list(POOL, role, HashRange::ALL, None, usize::MAX, &mut copies);
        }
        copies
            .into_iter()
            .map(|info| store.read(&info, size).map(|rest| (info.copy, rest)).map_err(complaint))
            .collect()
    }

    fn compare(&self, object: ObjectId, members: &[(OsdId, Role)], copies: &Copies) -> Result<(), String> {
        let holders: Vec<&(OsdId, Role)> = copies.keys().collect();
        let mut wanted: Vec<&(OsdId, Role)> = members.iter().collect();
        wanted.sort();
        if holders != wanted {
            return Err(format!("{object:?} at rest is on {holders:?} and belongs on {wanted:?}"));
        }
        let versions: Vec<Version> = copies.values().map(|rest| rest.version).collect();
        let tombstones = copies.values().filter(|rest| rest.content.is_none()).count();
        if versions.iter().any(|version| *version != versions[0]) || !(tombstones == 0 || tombstones == copies.len()) {
            return Err(format!("{object:?} at rest has versions {versions:?}, {tombstones} of them tombstones"));
        }
        match self.config.scheme {
            _ if tombstones > 0 => Ok(()),
            Scheme::Replicated => {
                let first = copies.values().next();
                let differs = copies.iter().find(|(_, rest)| Some(*rest) != first);
                differs.map_or(Ok(()), |(member, _)| Err(format!("{object:?} at rest differs on {member:?}")))
            }
            Scheme::Ec | Scheme::Xor => self.check_parity(object, copies),
        }
    }

    fn check_parity(&self, object: ObjectId, copies: &Copies) -> Result<(), String> {
        let chunks: BTreeMap<u8, &Vec<u8>> =
            copies.iter().filter_map(|((_, role), rest)| Some((role.0, &rest.content.as_ref()?.0))).collect();
        let data = self.config.data_chunks();
        let code = ec::code(data, self.config.parity_chunks, self.config.scheme == Scheme::Xor);
        for parity in data..self.config.pg_size {
            let mut expected = vec![0; chunks[&parity].len()];
            (0..data).for_each(|chunk| code.add(chunk, chunks[&chunk], parity, &mut expected));
            if expected != *chunks[&parity] {
                return Err(format!("{object:?} at rest: the parity in chunk {parity} does not match the data"));
            }
        }
        Ok(())
    }
}

/// The newest version of a copy.
pub(super) fn newest(info: &CopyInfo) -> Option<&VersionInfo> {
    info.prepared.as_ref().or(info.committed.as_ref())
}

/// A store alone with its disk.
struct Alone<'a> {
    world: &'a mut World<Process>,
    node: NodeId,
    store: SimStore,
    time: Duration,
    requests: Vec<Effect>,
}

impl<'a> Alone<'a> {
    fn open(world: &'a mut World<Process>, node: NodeId) -> Self {
        let Spec::Osd { store: mut spec, .. } = world.spec(node).clone() else { panic!("not an OSD's place") };
        let (store, requests) = world.outside(node, Duration::ZERO, |env| open(&mut spec, env));
        Alone { world, node, store, time: Duration::ZERO, requests }
    }

    fn call(&mut self, call: impl FnOnce(&mut SimStore, &mut Env<'_>)) {
        let store = &mut self.store;
        let ((), requests) = self.world.outside(self.node, self.time, |env| call(store, env));
        self.requests.extend(requests);
    }

    /// Gives the store rounds until a condition holds.
    fn run(&mut self, mut condition: impl FnMut(&SimStore) -> bool) -> Result<(), String> {
        for _ in 0..ROUNDS {
            if condition(&self.store) {
                return Ok(());
            }
            self.round();
        }
        Err("it does not come to an end".into())
    }

    fn round(&mut self) {
        self.time = Duration(self.time.0 + ROUND.0);
        self.call(|store, env| {
            store.tick(env);
            store.end_of_round(env);
        });
        for request in std::mem::take(&mut self.requests) {
            if let Effect::Io { id, op } = request {
                let done = self.world.disk_now(self.node, op).expect("the disk answers");
                self.call(|store, env| store.handle_io(env, id, done));
            }
        }
    }

    fn read(&mut self, info: &CopyInfo, size: usize) -> Result<Rest, String> {
        let newest = newest(info).ok_or("a copy without a version")?;
        let (version, op) = (newest.version, StoreOp::ReadAll { copy: info.copy, version: Some(newest.version) });
        self.call(|store, env| store.submit(env, 0, op));
        let mut reply = None;
        for _ in 0..ROUNDS {
            reply = self.store.next_completion();
            if reply.is_some() {
                break;
            }
            self.round();
        }
        let result = reply.ok_or("a read does not end")?.result;
        let Ok(StoreReply::Whole { content, .. }) = result else {
            return Err(format!("{:?} at {version} cannot be read: {result:?}", info.copy));
        };
        let content = match content {
            Content::Tombstone => None,
            Content::Data { data, bitmap } => {
                let mut bytes = data.buf.bytes().to_vec();
                bytes.resize(size, 0);
                Some((bytes, bitmap))
            }
        };
        Ok(Rest { version, content })
    }
}
