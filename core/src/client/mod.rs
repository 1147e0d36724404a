//! The client: images on top of objects, for any front end.
//!
//! Methods by class: `start` once; [`Client::open_image`] and [`Client::submit`] begin operations; [`Node::handle`]
//! takes events; [`Client::next_completion`] gives results and is to be drained after each of those.
//!
//! Owns: cutting operations into requests about objects, bounding what is in flight, putting answers together
//! (here, `ops`, `split`); getting each request answered exactly once (`requests` and below). Does not own: bytes of
//! protocols (front ends), sockets and clocks (runtimes).
//!
//! Invariants:
//! - every operation completes exactly once; none fails because the cluster is away: it waits;
//! - overlapping writes take effect in the order of their submission;
//! - reads and writes in flight are bounded, each by their own share.
//!
//! Safety of what was acknowledged: most pools acknowledge a write when it is safe, so that a flush has nothing to wait
//! for. What a lazy pool only applied is kept until it is synced (`unsynced`), and replayed when members may have lost it
//! (`replay`).

mod api;
mod backoff;
mod groups;
mod links;
mod lookups;
mod map;
mod numbers;
mod ops;
mod order;
mod part;
mod regroup;
mod replay;
mod requests;
mod seeds;
mod split;
mod unsynced;

#[cfg(test)]
mod tests;

pub use api::*;
pub use requests::ClientStats;

use crate::id::{ObjectId, Session};
use crate::io::{Env, Input, Node};
use crate::slab::{Key, Slab};
use crate::stages::ClientStages;
use crate::time::Time;
use ops::{Kind, Op};
use requests::{Cut, Finished, Requests};
use std::collections::VecDeque;

/// Operations of one direction that are not wholly cut yet, and what is in flight of it.
#[derive(Clone, Debug, Default)]
struct Lane {
    queue: VecDeque<Key<Op>>,
    requests: usize,
    bytes: u64,
}

impl Lane {
    fn has_room(&self, limits: &ClientLimits) -> bool {
        self.requests < limits.requests && self.bytes < limits.bytes
    }
}

/// The client of one cluster.
#[derive(Clone, Debug)]
pub struct Client {
    session: Session,
    limits: ClientLimits,
    images: Vec<OpenImage>,
    ops: Slab<Op>,
    reads: Lane,
    writes: Lane,
    requests: Requests,
    done: VecDeque<Completion>,
}

impl Client {
    /// A client that knows nothing but its seeds. Panics if there are none.
    pub fn new(config: ClientConfig) -> Self {
        Client {
            session: config.session,
            limits: config.limits,
            images: Vec::new(),
            ops: Slab::default(),
            reads: Lane::default(),
            writes: Lane::default(),
            requests: Requests::new(config.session, config.seeds, config.limits.dirty_bytes),
            done: VecDeque::new(),
        }
    }

    /// Connects.
    pub fn start(&mut self, env: &mut Env<'_>) {
        self.requests.start(env);
    }

    /// Who this client is to the cluster.
    pub fn session(&self) -> Session {
        self.session
    }

    /// Looks an image up: `NAME`, or `POOL/NAME` where names are not unique. Completes with [`Outcome::Opened`].
    pub fn open_image(&mut self, env: &mut Env<'_>, name: &str) -> OpId {
        let key = self.ops.insert(Op::new(Kind::Open, ImageId(0), 0, 0));
        self.requests.look_up(env, key.to_u64(), name);
        OpId(key.to_u64())
    }

    /// Lists the images. Completes with [`Outcome::Images`].
    pub fn list_images(&mut self, env: &mut Env<'_>) -> OpId {
        let key = self.ops.insert(Op::new(Kind::Open, ImageId(0), 0, 0));
        self.requests.list(env, key.to_u64());
        OpId(key.to_u64())
    }

    /// An image that was opened. Panics if it was not.
    pub fn image(&self, image: ImageId) -> &OpenImage {
        &self.images[image.0 as usize]
    }

    /// Begins an operation; gives it back if there are as many as may be: try again after a completion.
    pub fn submit(&mut self, env: &mut Env<'_>, image: ImageId, op: ImageOp) -> Result<OpId, ImageOp> {
        if !self.has_room() {
            return Err(op);
        }
        let error = self.refusal(image, &op);
        let nothing = || Op::new(Kind::Discard, image, 0, 0);
        let record = if error.is_some() { nothing() } else { Op::of_request(op, image) };
        let key = self.ops.insert(record);
        self.begin(env, key, error);
        Ok(OpId(key.to_u64()))
    }

    /// Whether another operation may be submitted.
    pub fn has_room(&self) -> bool {
        self.ops.len() < self.limits.operations
    }

    /// Takes a finished operation.
    pub fn next_completion(&mut self) -> Option<Completion> {
        self.done.pop_front()
    }

    /// Operations that have not completed.
    pub fn pending(&self) -> usize {
        self.ops.len()
    }

    /// Whether it was fenced off: nothing succeeds any more.
    pub fn is_fenced(&self) -> bool {
        self.requests.is_fenced
    }

    /// Where the time of requests went since the start.
    pub fn stages(&self) -> &ClientStages {
        &self.requests.stages
    }

    /// Counts since the start.
    pub fn stats(&self) -> ClientStats {
        self.requests.stats
    }

    fn refusal(&self, image: ImageId, op: &ImageOp) -> Option<OpError> {
        if self.requests.is_fenced {
            return Some(OpError::Fenced);
        }
        let info = &self.image(image).info;
        let (offset, len, is_write) = match op {
            ImageOp::Flush => return None,
            ImageOp::Read { len, .. } if *len > READ_MAX_BYTES => return Some(OpError::TooLong),
            ImageOp::Read { offset, len } => (*offset, u64::from(*len), false),
            ImageOp::BlockStatus { offset, len } => (*offset, *len, false),
            ImageOp::Write { offset, data } => (*offset, u64::from(data.len()), true),
            ImageOp::Discard { offset, len } | ImageOp::WriteZeroes { offset, len, .. } => (*offset, *len, true),
        };
        if is_write && info.read_only {
            return Some(OpError::ReadOnly);
        }
        let inside = offset.checked_add(len).is_some_and(|end| end <= info.size_bytes);
        (!inside).then_some(OpError::OutOfRange)
    }

    fn begin(&mut self, env: &mut Env<'_>, key: Key<Op>, error: Option<OpError>) {
        let op = self.ops.get_mut(key).expect("inserted just now");
        op.since = env.now;
        if let Some(error) = error {
            op.fail(error, 0);
        }
        if op.is_done() {
            return self.complete(key);
        }
        if let Kind::Flush = op.kind {
            self.requests.flush_all(env, key);
        } else {
            let lane = if op.is_write() { &mut self.writes } else { &mut self.reads };
            lane.queue.push_back(key);
        }
        self.settle(env);
    }

    fn complete(&mut self, key: Key<Op>) {
        let op = self.ops.remove(key).expect("an operation completes once");
        self.done.push_back(Completion { op: OpId(key.to_u64()), result: op.result() });
    }

    /// Books what was finished, and sends what there is room for, until nothing moves.
    fn settle(&mut self, env: &mut Env<'_>) {
        loop {
            self.book(env.now);
            let moved = self.cut(env, true) | self.cut(env, false);
            if !moved && self.requests.finished.is_empty() {
                return;
            }
        }
    }

    fn book(&mut self, now: Time) {
        let mut finished = std::mem::take(&mut self.requests.finished);
        for part in finished.drain(..) {
            self.book_part(part);
        }
        self.requests.finished = finished;
        while let Some((key, result)) = self.requests.next_flushed() {
            self.ops.get_mut(key).expect("a flush ends once").flushed(result);
            self.complete(key);
        }
        while let Some((token, image)) = self.requests.next_lookup(now) {
            self.book_lookup(Key::from_u64(token), image);
        }
        while let Some((token, names)) = self.requests.next_listed() {
            let _ = self.ops.remove(Key::from_u64(token)).expect("a listing ends once");
            self.done.push_back(Completion { op: OpId(token), result: Ok(Outcome::Images(names)) });
        }
    }

    fn book_part(&mut self, part: Finished) {
        let lane = if part.is_write { &mut self.writes } else { &mut self.reads };
        lane.requests -= 1;
        lane.bytes -= part.bytes;
        let op = self.ops.get_mut(part.op).expect("an operation waits for its parts");
        match part.result {
            Ok(answer) => op.answer(part.index, answer),
            Err(error) => op.fail(error, 1),
        }
        if op.is_done() {
            self.complete(part.op);
        }
    }

    fn book_lookup(&mut self, key: Key<Op>, image: Option<crate::msg::ImageInfo>) {
        let _ = self.ops.remove(key).expect("an image lookup ends once");
        let result = match image {
            Some(info) => Ok(Outcome::Opened(self.register(info))),
            None => Err(OpError::NoSuchImage),
        };
        self.done.push_back(Completion { op: OpId(key.to_u64()), result });
    }

    /// An image that was opened before keeps its handle.
    fn register(&mut self, info: crate::msg::ImageInfo) -> OpenImage {
        let object_bytes = self.requests.map().pool(info.pool).expect("a lookup waits for the pool").object_bytes;
        let same = |open: &OpenImage| (open.info.pool, open.info.inode) == (info.pool, info.inode);
        let place = self.images.iter().position(same).unwrap_or(self.images.len());
        let id = ImageId(u32::try_from(place).expect("far fewer images than 2^32"));
        let open = OpenImage { id, info, object_bytes };
        if place == self.images.len() {
            self.images.push(open.clone());
        } else {
            self.images[place] = open.clone();
        }
        open
    }

    /// Cuts parts off the oldest operation of a lane while there is room. True if any part went out or any operation
    /// ended.
    fn cut(&mut self, env: &mut Env<'_>, is_write: bool) -> bool {
        let mut moved = false;
        loop {
            let lane = if is_write { &mut self.writes } else { &mut self.reads };
            let Some(key) = lane.queue.front().copied() else { return moved };
            if self.ops.get(key).is_none_or(Op::is_cut) {
                lane.queue.pop_front();
                continue;
            }
            if !lane.has_room(&self.limits) || (is_write && !self.requests.has_dirty_room()) {
                return moved;
            }
            self.cut_one(env, key, is_write);
            moved = true;
        }
    }

    fn cut_one(&mut self, env: &mut Env<'_>, key: Key<Op>, is_write: bool) {
        let op = self.ops.get_mut(key).expect("looked at just now");
        let image = &self.images[op.image.0 as usize];
        let info = &image.info;
        let Some(pool) = self.requests.map().pool(info.pool) else {
            op.fail(OpError::NoSuchPool, 0);
            return self.complete_if_done(key);
        };
        let layout = pool.layout;
        let Some((index, stripe, action)) = op.cut(info.size_bytes, image.object_bytes) else {
            return self.complete_if_done(key);
        };
        let object = ObjectId { pool: info.pool, inode: info.inode, stripe };
        let lane = if is_write { &mut self.writes } else { &mut self.reads };
        lane.requests += 1;
        lane.bytes += action.bytes();
        let cut = Cut { op: key, index, since: op.since };
        self.requests.submit(env, cut, object, layout.pg(object), action);
    }

    fn complete_if_done(&mut self, key: Key<Op>) {
        if self.ops.get(key).is_some_and(Op::is_done) {
            self.complete(key);
        }
    }
}

impl Node for Client {
    fn handle(&mut self, env: &mut Env<'_>, input: Input) {
        self.requests.handle(env, input);
        self.settle(env);
    }

    fn next_deadline(&self) -> Option<Time> {
        self.requests.next_deadline()
    }

    fn check(&self) {
        self.requests.check();
        let lanes = [&self.reads, &self.writes];
        assert!(lanes.iter().all(|lane| lane.requests <= self.limits.requests));
        let queued = |lane: &Lane| lane.queue.iter().any(|key| self.ops.get(*key).is_some_and(|op| !op.is_cut()));
        assert!(!queued(&self.reads) || !self.reads.has_room(&self.limits), "room, and nothing is read");
        let room = self.writes.has_room(&self.limits) && self.requests.has_dirty_room();
        assert!(!queued(&self.writes) || !room, "room, and nothing is written");
    }
}
