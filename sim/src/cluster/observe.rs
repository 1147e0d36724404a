//! What nodes tell and send, handed to the checkers.

use super::script::broken;
use super::{Cluster, LOG_LINES, POOL, seconds};
use crate::check::history::{Block, Finding};
use crate::check::intervals::Look;
use crate::world::{NodeId, Observed, Sight};
use ashlar_core::id::{Attempt, CopyId, ObjectId, PgId, Role, Version};
use ashlar_core::io::{Event, Level};
use ashlar_core::map::parse::Key;
use ashlar_core::map::{History, PREFIX, PoolLayout, keys};
use ashlar_core::meta;
use ashlar_core::msg::{Answer, Fact, Message, Reply, Request, RequestOp};
use ashlar_core::store::{CopyInfo, ObjectStore, StoreState};

impl Cluster {
    /// Looks at what nodes told and sent since the last event.
    pub(super) fn observe(&mut self) -> Result<(), Finding> {
        self.look_at_records()?;
        for Observed { node, what, .. } in self.world.take_observed() {
            match what {
                Sight::Event(Event::Mark(name)) => *self.marks.entry(name).or_default() += 1,
                Sight::Event(Event::Log(level, text)) => self.take_log(node, level, text),
                Sight::Event(Event::Fact(Fact::Activated { pg, epoch, .. })) => {
                    self.serving.activated(node.0, pg, epoch).map_err(broken)?;
                    let objects: Vec<ObjectId> = self.objects_of(pg).collect();
                    self.generations.activated(pg, objects.into_iter());
                }
                Sight::Event(Event::Fact(Fact::Deactivated { pg, .. })) => self.serving.deactivated(node.0, pg),
                Sight::Event(Event::Fact(Fact::Recorded { pg, attempt, history })) => {
                    self.serving.recorded(pg, history.last);
                    self.interval_begins(node, attempt, pg, &history).map_err(broken)?;
                }
                Sight::Event(Event::Fact(Fact::Chosen { pg, attempt, object, version })) => {
                    self.intervals.chosen(node.0, pg, attempt, object, version);
                }
                Sight::Event(Event::Fact(Fact::Acknowledged { object, version, durable, .. })) => {
                    // What is not durable may be lost; its client sends it again.
                    if durable {
                        self.intervals.acknowledged(object, version);
                    }
                }
                Sight::Event(Event::Fact(Fact::Served { pg, object, .. })) => {
                    self.serving.answers_read(node.0, pg).map_err(broken)?;
                    self.generations.answers_read(node.0, pg, object).map_err(broken)?;
                }
                Sight::Sent { msg: Message::Request(request), .. } => self.asked(&request),
                Sight::Sent { msg: Message::Reply(reply), .. } => self.answered(&reply)?,
                Sight::Sent { .. } => {}
                Sight::Died(reason) => self.died(node, reason),
            }
        }
        Ok(())
    }

    pub(super) fn take_log(&mut self, node: NodeId, level: Level, text: String) {
        if level >= Level::Warn {
            if self.log.len() == LOG_LINES {
                self.log.remove(0);
            }
            self.log.push(format!("{:.3} s node {} {level:?}: {text}", seconds(self.world.now()), node.0));
        }
    }

    /// The last warnings of nodes.
    pub fn warnings(&self) -> &[String] {
        &self.log
    }

    fn asked(&mut self, request: &Request) {
        let offset = if let RequestOp::Read { offset, .. } = request.op { Some(offset) } else { None };
        self.requests.insert(request.id, (request.object, offset));
    }

    fn answered(&mut self, reply: &Reply) -> Result<(), Finding> {
        let Some((object, offset)) = self.requests.get(&reply.id).copied() else { return Ok(()) };
        if let Ok(Answer::Written { version }) = &reply.outcome {
            self.intervals.acknowledged(object, *version);
        }
        let (Ok(Answer::Read { version, data }), Some(offset)) = (&reply.outcome, offset) else { return Ok(()) };
        let first = offset / SECTOR;
        for (sector, bytes) in (first..).zip(data.buf.bytes().chunks(SECTOR as usize)) {
            let sum = crc_of(bytes);
            let known = *self.read.entry((object, *version, sector)).or_insert(sum);
            if known != sum {
                return Err(Finding {
                    what: format!("{object:?} version {version} was read with two contents (sector {sector})"),
                    block: self.block_of(object, sector * SECTOR),
                    ops: Vec::new(),
                });
            }
        }
        Ok(())
    }

    /// The block of a history in which a byte of an object lies.
    fn block_of(&self, object: ObjectId, offset: u32) -> Option<Block> {
        let (number, image) = (0u32..).zip(&self.images).find(|(_, image)| image.inode == object.inode)?;
        let stripe = u32::try_from(object.stripe).expect("small");
        Some(Block { image: number, index: stripe * image.layout.per_object + offset / image.layout.unit })
    }

    /// An interval is recorded: what it begins with is compared with what came before.
    fn interval_begins(&mut self, node: NodeId, attempt: Attempt, pg: PgId, history: &History) -> Result<(), String> {
        if self.silent_losses {
            return Ok(());
        }
        let mut intervals = std::mem::take(&mut self.intervals);
        let acting = history.sets.last().map_or(&[][..], |(_, set)| set);
        let own = acting.iter().find(|member| Some(member.osd) == self.osd_id(node));
        let role = own.map_or(Role(0), |member| member.role);
        let verdict = intervals.recorded(node.0, pg, attempt, &Stores { cluster: self, primary: node, role });
        self.intervals = intervals;
        verdict
    }

    /// Looks at the histories that were written since the last time.
    pub(super) fn look_at_records(&mut self) -> Result<(), Finding> {
        let (seen, now) = (self.records_seen, self.world.meta_revision());
        if now == seen {
            return Ok(());
        }
        self.records_seen = now;
        let layout = self.kvs(&keys::layout(POOL)).first().map(|kv| (parsed::<PoolLayout>(kv).now, kv.mod_revision));
        for kv in self.kvs(&format!("{PREFIX}pg/history/")).iter().filter(|kv| kv.mod_revision > seen.0) {
            let Some(Key::History(pg)) = Key::parse(&kv.key) else { continue };
            let last = parsed::<History>(kv).last;
            self.records.written(pg, last, kv.mod_revision, layout).map_err(broken)?;
        }
        Ok(())
    }

    /// All keys that begin with this, as the metadata store has them.
    fn kvs(&mut self, prefix: &str) -> Vec<meta::KeyValue> {
        match self.world.meta(meta::Request::Range(meta::Keys::Prefix(prefix.into()))) {
            meta::Response::Range { kvs, .. } => kvs,
            other => panic!("a range answers a range: {other:?}"),
        }
    }

    /// The objects of the images that are there which belong to a group.
    pub(super) fn objects_of(&self, pg: PgId) -> impl Iterator<Item = ObjectId> {
        let images = self.images.iter().filter(|image| image.live);
        let objects = images.flat_map(|image| {
            (0..u64::from(image.objects)).map(|stripe| ObjectId { pool: image.pool, inode: image.inode, stripe })
        });
        let layout = self.layout_of(pg.number.generation());
        objects.filter(move |object| layout.is_some_and(|layout| layout.pg(*object) == pg))
    }

    /// What the store of a running OSD holds of an object, in whichever role; `None`: it cannot be asked.
    pub(super) fn copies_at(&self, node: NodeId, object: ObjectId) -> Option<Vec<CopyInfo>> {
        let store = self.world.node(node)?.osd()?.groups().store();
        let trusted = store.state() == StoreState::Open { trusted: true };
        let copy = |role| store.lookup(CopyId { object, role: Role(role) });
        trusted.then(|| (0..self.config.pg_size).filter_map(copy).collect())
    }
}

fn parsed<T: serde::de::DeserializeOwned>(kv: &meta::KeyValue) -> T {
    serde_json::from_slice(&kv.value).expect("its own form")
}

/// The stores, as the checker of intervals looks at them.
struct Stores<'a> {
    cluster: &'a Cluster,
    primary: NodeId,
    /// Its role in the group.
    role: Role,
}

impl Look for Stores<'_> {
    fn objects(&self, pg: PgId) -> Vec<ObjectId> {
        self.cluster.objects_of(pg).collect()
    }

    fn own(&self, object: ObjectId) -> Option<Version> {
        let copies = self.cluster.copies_at(self.primary, object)?;
        let own = copies.iter().filter(|info| info.copy.role == self.role);
        let newest = own.filter_map(|info| info.prepared.as_ref().or(info.committed.as_ref()));
        Some(newest.map(|info| info.version).max().unwrap_or(Version::NONE))
    }

    fn is_tombstone(&self, object: ObjectId, version: Version) -> bool {
        let copies = self.cluster.osds.iter().filter_map(|node| self.cluster.copies_at(*node, object)).flatten();
        let mut versions = copies.flat_map(|info| [info.committed, info.prepared]).flatten();
        versions.any(|info| info.version == version && info.tombstone)
    }
}

/// Bytes of a sector.
const SECTOR: u32 = 512;

fn crc_of(bytes: &[u8]) -> u32 {
    // Tags fill cells, so a few of their bytes say all.
    bytes.iter().step_by(13).fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
