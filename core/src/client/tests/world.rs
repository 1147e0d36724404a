//! A small cluster for the client machine: correct primaries on perfect replication, and every misfortune between them
//! and the client: lost, delayed, silent and refused connections, changes of primary, stale maps, refusals, damage.

use crate::buf::BufPool;
use crate::client::{Client, ClientConfig, ClientLimits};
use crate::id::*;
use crate::io::{Effect, Effects, Env, Input, LinkEvent, Node, PeerId, PeerName};
use crate::map::{Layout, Scheme};
use crate::msg::*;
use crate::rng::Rng;
use crate::store::{Bitmap, Data};
use crate::time::{Duration, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub const OBJECT: u32 = 4096;
pub const IMAGE: u64 = 5 * OBJECT as u64 - 100;
pub const GROUPS: u32 = 3;
pub const OSDS: u32 = 3;
/// Small, so that it is reached.
pub const DIRTY: u64 = 24 << 10;
const POOL: PoolId = PoolId(1);

#[derive(Clone, Debug)]
struct Object {
    bytes: Vec<u8>,
    written: Vec<bool>,
    version: Version,
    /// Never written, or deleted: zeroes and deletions change nothing, and leave no trace.
    absent: bool,
    /// Writes that it includes and that may be sent again; all up to the mark are included, too.
    included: Vec<u64>,
    mark: u64,
}

impl Object {
    fn new() -> Self {
        let (bytes, written) = (vec![0; OBJECT as usize], vec![false; OBJECT as usize / 512]);
        Object { bytes, written, version: Version::NONE, absent: true, included: Vec::new(), mark: 0 }
    }

    /// As a primary of a lazy pool keeps it: what was synced is forgotten.
    fn include(&mut self, number: u64, seen: u64, synced: u64) {
        let mark = self.mark.max(seen);
        self.mark = if mark <= synced { 0 } else { mark };
        self.included.retain(|other| *other > seen);
        self.included.push(number);
    }

    fn includes(&self, number: u64) -> bool {
        number <= self.mark || self.included.contains(&number)
    }
}

/// One connection; it lives on at the server's end after the client has closed it, until the queue is empty.
struct Link {
    /// `None`: a seed.
    osd: Option<OsdId>,
    to_server: VecDeque<Message>,
    to_client: VecDeque<Message>,
    client_end: bool,
    silent: bool,
    subscribed: bool,
}

/// How often what goes wrong, in thousandths per step.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    pub drop_link: u64,
    pub silence_link: u64,
    pub refuse_connection: u64,
    pub change_primary: u64,
    pub no_primary: u64,
    pub refuse_request: u64,
    pub damage_reply: u64,
    pub foreign_change: u64,
    pub stale_seed: u64,
    pub power_loss: u64,
    pub relayout: u64,
    /// Not a fault: the pool acknowledges what is not durable.
    pub lazy: bool,
}

pub struct World {
    pub client: Client,
    pub now: Time,
    pub rng: Rng,
    pub bufs: BufPool,
    pub faults: Faults,
    out: Effects,
    links: BTreeMap<LinkId, Link>,
    connecting: Vec<(PeerName, Time)>,
    next_link: u64,
    /// States of each object since the last that is durable, that one first.
    objects: BTreeMap<ObjectId, Vec<Object>>,
    pub lazy: bool,
    /// Numbers of writes that were carried out, and how they ended.
    executed: BTreeMap<u64, Version>,
    pub numbers: BTreeSet<u64>,
    /// Highest `seen` by group.
    seen: BTreeMap<PgId, u64>,
    /// Up to where syncs of this epoch went, by group.
    synced: BTreeMap<PgId, u64>,
    layout: Layout,
    pub pgs: Vec<PgInfo>,
    pub revision: u64,
    pub requests: u64,
    /// How often the map was asked for.
    pub questions: u64,
    /// Writes that came again although they were included.
    pub replays_spared: u64,
    /// Groups that answer `Again`.
    pub inactive: bool,
    pub refuse_all: Option<Refusal>,
    pub image: Option<ImageInfo>,
    pub down: bool,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let seeds = vec!["seed1:1".to_string(), "seed2:1".to_string()];
        let pg = |number| PgId { pool: POOL, number: PgNumber(number) };
        let pgs = (0..GROUPS).map(|n| PgInfo { pg: pg(n), epoch: Epoch(1), primary: Some(OsdId(n % OSDS)) });
        let image =
            ImageInfo { pool: POOL, inode: InodeId(1), name: "demo".into(), size_bytes: IMAGE, read_only: false };
        let config = ClientConfig::new(ClientId(seed), seeds);
        let limits = ClientLimits { dirty_bytes: DIRTY, ..config.limits };
        let mut world = World {
            client: Client::new(ClientConfig { limits, ..config }),
            now: Time(1),
            rng: Rng::new(seed),
            bufs: BufPool::new(),
            faults: Faults::default(),
            out: Effects::default(),
            links: BTreeMap::new(),
            connecting: Vec::new(),
            next_link: 0,
            objects: BTreeMap::new(),
            lazy: false,
            executed: BTreeMap::new(),
            numbers: BTreeSet::new(),
            seen: BTreeMap::new(),
            synced: BTreeMap::new(),
            layout: Layout { generation: 0, pg_count: GROUPS },
            pgs: pgs.collect(),
            revision: 1,
            requests: 0,
            questions: 0,
            replays_spared: 0,
            inactive: false,
            refuse_all: None,
            image: Some(image),
            down: false,
        };
        world.with(|client, env| client.start(env));
        world
    }

    /// Calls the client and carries its effects out.
    pub fn with<R>(&mut self, f: impl FnOnce(&mut Client, &mut Env<'_>) -> R) -> R {
        let World { now, rng, bufs, out, client, .. } = self;
        let result = f(client, &mut Env { now: *now, rng, bufs, out });
        self.client.check();
        for effect in std::mem::take(&mut self.out.queue) {
            self.carry_out(effect);
        }
        result
    }

    fn input(&mut self, input: Input) {
        self.with(|client, env| client.handle(env, input));
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Send { to, msg } => {
                if let Some(link) = self.links.get_mut(&to).filter(|link| link.client_end) {
                    link.to_server.push_back(msg);
                }
            }
            Effect::Connect { target, address } => {
                assert!(!address.is_empty());
                let at = self.now + Duration::micros(self.rng.between(10, 3000));
                self.connecting.push((target, at));
            }
            Effect::Close(link) => self.close_client_end(link),
            Effect::Io { .. } | Effect::Meta(_) | Effect::Observe(_) | Effect::Die(_) => panic!("{effect:?}"),
        }
    }

    fn close_client_end(&mut self, link: LinkId) {
        if let Some(link) = self.links.get_mut(&link) {
            link.client_end = false;
            link.to_client.clear();
        }
    }

    fn chance(&mut self, thousandths: u64) -> bool {
        self.rng.chance(thousandths, 1000)
    }

    /// One thing happens.
    pub fn step(&mut self) {
        self.misfortune();
        match self.rng.below(3) {
            0 => self.deliver_to_server(),
            1 => self.deliver_to_client(),
            _ => self.pass_time(),
        }
    }

    /// Steps until nothing is under way, or the time is over.
    pub fn run(&mut self, at_most: Duration) {
        let end = self.now + at_most;
        while self.now < end && self.client.pending() > 0 {
            self.step();
        }
    }

    fn pass_time(&mut self) {
        let idle =
            self.links.values().all(|link| link.silent || link.to_server.is_empty() && link.to_client.is_empty());
        let events = self.connecting.iter().map(|(_, at)| *at).chain(self.client.next_deadline());
        self.now = match events.min().filter(|_| idle) {
            Some(next) => next.max(self.now),
            None => self.now + Duration::micros(self.rng.between(1, 50)),
        };
        if let Some(place) = self.connecting.iter().position(|(_, at)| *at <= self.now) {
            let (target, _) = self.connecting.swap_remove(place);
            self.finish_connection(target);
        }
        if self.client.next_deadline().is_some_and(|at| at <= self.now) {
            self.input(Input::Tick);
            assert!(self.client.next_deadline().is_none_or(|at| at > self.now), "a due deadline stays");
        }
    }

    fn finish_connection(&mut self, target: PeerName) {
        if self.down || self.chance(self.faults.refuse_connection) {
            return self.input(Input::Link(LinkEvent::Failed { target, refused: true }));
        }
        self.next_link += 1;
        let link = LinkId(self.next_link);
        let (osd, peer) = match target {
            PeerName::Osd(osd) => (Some(osd), PeerId::Osd(osd, Incarnation(1))),
            PeerName::Seed(_) => (None, PeerId::Mon(Incarnation(1))),
        };
        let queues = (VecDeque::new(), VecDeque::new());
        let state =
            Link { osd, to_server: queues.0, to_client: queues.1, client_end: true, silent: false, subscribed: false };
        self.links.insert(link, state);
        self.input(Input::Link(LinkEvent::Up { link, peer, opened: Some(target) }));
    }

    fn any_link(&mut self, wanted: impl Fn(&Link) -> bool) -> Option<LinkId> {
        let fitting: Vec<LinkId> = self.links.iter().filter(|(_, link)| wanted(link)).map(|(id, _)| *id).collect();
        let place = self.rng.below(u64::try_from(fitting.len().max(1)).unwrap());
        fitting.get(usize::try_from(place).unwrap()).copied()
    }

    fn misfortune(&mut self) {
        if self.chance(self.faults.drop_link)
            && let Some(id) = self.any_link(|link| link.client_end)
        {
            self.drop_link(id);
        }
        if self.chance(self.faults.silence_link)
            && let Some(id) = self.any_link(|link| link.client_end)
        {
            self.links.get_mut(&id).unwrap().silent = true;
        }
        if self.chance(self.faults.change_primary) {
            self.change_primary();
        }
        if self.chance(self.faults.foreign_change) {
            let place = usize::try_from(self.rng.below(8)).unwrap();
            if let Some(object) = self.objects.values_mut().nth(place).and_then(|states| states.last_mut()) {
                object.version.seq += 1;
            }
        }
        if self.chance(self.faults.power_loss) {
            self.lose_power();
        }
        if self.faults.relayout > 0 && self.chance(self.faults.relayout) {
            let count = u32::try_from(self.rng.between(1, 2 * u64::from(GROUPS))).unwrap();
            self.relayout(count);
        }
        // The other end forgets connections that the client left, sooner or later.
        if let Some(id) = self.any_link(|link| !link.client_end && link.to_server.is_empty()) {
            self.links.remove(&id);
        }
    }

    /// The connection ends; what the client had sent may still arrive, or not.
    pub fn drop_link(&mut self, id: LinkId) {
        self.close_client_end(id);
        if self.rng.chance(1, 2) {
            self.links.get_mut(&id).unwrap().to_server.clear();
        }
        self.input(Input::Link(LinkEvent::Down { link: id }));
    }

    /// A host stops: nothing comes from this OSD any more, nor from whoever serves the map.
    pub fn silence(&mut self, osd: OsdId) {
        let gone = |link: &Link| link.osd.is_none_or(|other| other == osd);
        self.links.values_mut().filter(|link| gone(link)).for_each(|link| link.silent = true);
    }

    /// All OSDs that are connected stop; the server of the map goes on.
    pub fn silence_osds(&mut self) {
        self.links.values_mut().filter(|link| link.osd.is_some()).for_each(|link| link.silent = true);
    }

    pub fn drop_all_links(&mut self) {
        while let Some(id) = self.any_link(|link| link.client_end) {
            self.drop_link(id);
        }
    }

    /// All holders of a group lose power, and with it what was not synced, or some of it.
    pub fn lose_power(&mut self) {
        let group = u32::try_from(self.rng.below(self.layout.pg_count.into())).unwrap();
        let World { objects, rng, layout, .. } = self;
        for (_, states) in objects.iter_mut().filter(|(object, _)| layout.pg(**object).number.place() == group) {
            let kept = rng.between(1, states.len() as u64);
            states.truncate(usize::try_from(kept).unwrap());
        }
        let osd = OsdId(u32::try_from(self.rng.below(OSDS.into())).unwrap());
        self.set_primary(group as usize, Some(osd));
    }

    /// What is there of a group becomes durable: by a sync, and by every peering.
    fn make_durable(&mut self, pg: PgId) {
        for (_, states) in self.objects.iter_mut().filter(|(object, _)| self.layout.pg(**object) == pg) {
            states.drain(..states.len() - 1);
        }
    }

    /// The image as it would be after a power loss everywhere that takes all it can.
    pub fn durable_image(&self) -> Vec<u8> {
        let mut bytes = vec![0; IMAGE as usize];
        for (object, states) in &self.objects {
            let start = usize::try_from(object.stripe).unwrap() * OBJECT as usize;
            let end = (start + OBJECT as usize).min(bytes.len());
            bytes[start..end].copy_from_slice(&states[0].bytes[..end - start]);
        }
        bytes
    }

    pub fn change_primary(&mut self) {
        let place = usize::try_from(self.rng.below(self.layout.pg_count.into())).unwrap();
        let nobody = self.chance(self.faults.no_primary * 100);
        let osd = OsdId(u32::try_from(self.rng.below(OSDS.into())).unwrap());
        self.set_primary(place, (!nobody).then_some(osd));
    }

    pub fn subscribers(&self) -> usize {
        self.links.values().filter(|link| link.subscribed && link.client_end).count()
    }

    pub fn set_primary(&mut self, place: usize, primary: Option<OsdId>) {
        if self.lazy {
            self.seen.remove(&self.pgs[place].pg);
            self.synced.remove(&self.pgs[place].pg);
            self.make_durable(self.pgs[place].pg);
        }
        let pg = &mut self.pgs[place];
        (pg.epoch, pg.primary) = (Epoch(pg.epoch.0 + 1), primary);
        self.revision += 1;
        let update = Message::Map(MapMessage::Update(MapUpdate { pgs: vec![self.pgs[place]], ..self.update(false) }));
        let stale = self.chance(self.faults.stale_seed);
        for link in self.links.values_mut().filter(|link| link.subscribed && link.client_end && !stale) {
            link.to_client.push_back(update.clone());
        }
    }

    /// The objects belong to so many groups from now on, which begin with what the old ones' members still have.
    pub fn relayout(&mut self, pg_count: u32) {
        if self.lazy {
            self.pgs.clone().into_iter().for_each(|info| self.make_durable(info.pg));
        }
        (self.seen, self.synced) = (BTreeMap::new(), BTreeMap::new());
        self.layout = Layout { generation: self.layout.generation + 1, pg_count };
        let epoch = self.pgs.iter().map(|info| info.epoch.0).max().unwrap() + 1;
        let groups: Vec<PgNumber> = self.layout.numbers().collect();
        let rng = &mut self.rng;
        let mut info = |number| PgInfo {
            pg: PgId { pool: POOL, number },
            epoch: Epoch(epoch),
            primary: Some(OsdId(u32::try_from(rng.below(OSDS.into())).unwrap())),
        };
        self.pgs = groups.into_iter().map(&mut info).collect();
        self.revision += 1;
        // The layout is heard of before the groups, or with them.
        let whole = self.update(false);
        let apart = self.rng.chance(1, 2);
        let first = if apart { MapUpdate { pgs: vec![], ..whole.clone() } } else { whole.clone() };
        let stale = self.chance(self.faults.stale_seed);
        for link in self.links.values_mut().filter(|link| link.subscribed && link.client_end && !stale) {
            let updates = if apart { vec![first.clone(), whole.clone()] } else { vec![whole.clone()] };
            link.to_client.extend(updates.into_iter().map(|update| Message::Map(MapMessage::Update(update))));
        }
    }

    fn update(&self, full: bool) -> MapUpdate {
        let (scheme, layout) = (Scheme::Replicated, self.layout);
        let pool = PoolInfo { id: POOL, name: "p".into(), scheme, data_chunks: 1, layout, object_bytes: OBJECT };
        let pools = if self.image.is_some() { vec![pool] } else { vec![] };
        let osds = (0..OSDS).map(|id| OsdInfo { id: OsdId(id), address: format!("osd:{id}") }).collect();
        MapUpdate { revision: Revision(self.revision), full, pools, pgs: self.pgs.clone(), osds }
    }

    fn deliver_to_client(&mut self) {
        let Some(id) = self.any_link(|link| link.client_end && !link.silent && !link.to_client.is_empty()) else {
            return;
        };
        let msg = self.links.get_mut(&id).unwrap().to_client.pop_front().unwrap();
        self.input(Input::Message { from: id, msg });
    }

    fn deliver_to_server(&mut self) {
        let Some(id) = self.any_link(|link| !link.silent && !link.to_server.is_empty()) else { return };
        let link = self.links.get_mut(&id).unwrap();
        let msg = link.to_server.pop_front().unwrap();
        let reply = match (msg, link.osd) {
            (Message::Request(request), Some(osd)) => {
                let id = request.id;
                Message::Reply(Reply { id, outcome: self.serve(osd, request) })
            }
            (Message::Map(MapMessage::Subscribe { have }), None) => {
                link.subscribed = true;
                self.questions += 1;
                Message::Map(MapMessage::Update(self.update(have == Revision(0))))
            }
            (Message::Map(MapMessage::FindImage { token, name, .. }), None) => {
                let image = self.image.clone().filter(|image| image.name == name);
                Message::Map(MapMessage::Image { token, image })
            }
            (Message::Map(MapMessage::ListImages { token, after }), None) => {
                let mut names: Vec<String> = (0..7).map(|number| format!("p/vm-{number}")).collect();
                names.retain(|name| after.as_ref().is_none_or(|after| name > after));
                let more = names.len() > 3;
                names.truncate(3);
                Message::Map(MapMessage::Images { token, names, more })
            }
            other => panic!("{other:?}"),
        };
        let link = self.links.get_mut(&id).unwrap();
        if link.client_end {
            link.to_client.push_back(reply);
        }
    }

    fn serve(&mut self, osd: OsdId, request: Request) -> Result<Answer, Refusal> {
        self.requests += 1;
        if request.generation < self.layout.generation {
            return Err(Refusal::WrongEpoch(Epoch(0)));
        }
        let info = self.pgs[usize::try_from(self.layout.pg(request.object).number.place()).unwrap()];
        if info.primary != Some(osd) {
            return Err(if self.rng.chance(1, 2) { Refusal::NotPrimary } else { Refusal::WrongEpoch(info.epoch) });
        }
        if request.epoch != info.epoch {
            return Err(Refusal::WrongEpoch(info.epoch));
        }
        if let Some(refusal) = self.refuse_all {
            return Err(refusal);
        }
        if self.inactive || self.chance(self.faults.refuse_request) {
            return Err(Refusal::Again);
        }
        if let RequestOp::Sync = request.op {
            self.make_durable(info.pg);
            let synced = self.synced.entry(info.pg).or_default();
            *synced = request.seen.max(*synced);
            return Ok(Answer::Synced);
        }
        if request.op.is_write() { self.write(info.pg, request) } else { self.read(request) }
    }

    fn write(&mut self, pg: PgId, request: Request) -> Result<Answer, Refusal> {
        let number = request.id.number;
        let seen = self.seen.entry(pg).or_default();
        *seen = request.seen.max(*seen);
        if number <= *seen {
            return Err(Refusal::BadRequest);
        }
        self.numbers.insert(number);
        if let Some(version) = self.executed.get(&number).filter(|_| !self.lazy) {
            return Ok(Answer::Written { version: *version });
        }
        let seen = *seen;
        let states = self.objects.entry(request.object).or_insert_with(|| vec![Object::new()]);
        let mut object = states.last().unwrap().clone();
        if self.lazy && object.includes(number) {
            self.replays_spared += 1;
            return Ok(Answer::Applied { version: object.version });
        }
        let expect = match &request.op {
            RequestOp::Write { expect, .. } | RequestOp::Delete { expect } => *expect,
            _ => None,
        };
        if expect.is_some_and(|expect| expect != object.version) {
            return Err(Refusal::VersionMismatch(object.version));
        }
        if object.absent && !matches!(request.op, RequestOp::Write { .. }) {
            self.executed.insert(number, Version::NONE);
            let version = Version::NONE;
            return Ok(if self.lazy { Answer::Applied { version } } else { Answer::Written { version } });
        }
        apply(&mut object, &request.op)?;
        object.absent = matches!(request.op, RequestOp::Delete { .. });
        object.version = Version { epoch: request.epoch, seq: object.version.seq + 1 };
        object.include(number, seen, self.synced.get(&pg).copied().unwrap_or(0));
        self.executed.insert(number, object.version);
        let version = object.version;
        states.push(object);
        if self.lazy && self.rng.chance(7, 8) {
            return Ok(Answer::Applied { version });
        }
        states.drain(..states.len() - 1);
        Ok(Answer::Written { version })
    }

    fn read(&mut self, request: Request) -> Result<Answer, Refusal> {
        let states = self.objects.get(&request.object);
        let object = states.map_or_else(Object::new, |states| states.last().unwrap().clone());
        let version = object.version;
        match request.op {
            RequestOp::Read { offset, len } => {
                let range = offset as usize..(offset + len) as usize;
                let mut data = Data::new(self.bufs.copy_of(&object.bytes[range]));
                data.crc ^= u32::from(self.chance(self.faults.damage_reply));
                Ok(Answer::Read { version, data })
            }
            RequestOp::BlockStatus { offset, len } => {
                let mut bitmap = Bitmap::default();
                bitmap.words.push(0);
                for (bit, sector) in (offset / 512..(offset + len) / 512).enumerate() {
                    bitmap.words[0] |= u64::from(object.written[sector as usize]) << bit;
                }
                Ok(Answer::BlockStatus { version, bitmap })
            }
            other => panic!("{other:?}"),
        }
    }
}

fn apply(object: &mut Object, op: &RequestOp) -> Result<(), Refusal> {
    let (offset, len, written) = match op {
        RequestOp::Write { offset, data, .. } if data.verify() => (*offset, data.len(), true),
        RequestOp::Write { .. } => return Err(Refusal::BadChecksum),
        RequestOp::Zero { offset, len } => (*offset, *len, false),
        RequestOp::Delete { .. } => (0, OBJECT, false),
        other => panic!("{other:?}"),
    };
    assert!(len > 0 && offset % 512 == 0 && len % 512 == 0 && offset + len <= OBJECT, "{op:?}");
    let range = offset as usize..(offset + len) as usize;
    match op {
        RequestOp::Write { data, .. } => object.bytes[range].copy_from_slice(data.buf.bytes()),
        _ => object.bytes[range].fill(0),
    }
    object.written[offset as usize / 512..(offset + len) as usize / 512].fill(written);
    Ok(())
}
