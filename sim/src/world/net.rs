//! Connections between processes: opening, messages, and all the ways in which they end.
//!
//! ```text
//!            connect            a welcome arrives
//!   (none) ----------> Opening ---------------> Up ----+--- close, crash: the other end hears of it, in order
//!                         | refused, timed out         +--- reset: both ends hear of it
//!                         v                            +--- power loss, black hole: nobody hears of it, until data
//!                        Gone <------------------------+      that do not get through end it (give up)
//! ```
//!
//! Each end is named by its process as `LinkId(2 * connection + end)`.

use super::luck::Drawer;
use super::{Happening, Machine, NodeId, Sight, Stepped, World};
use ashlar_core::id::LinkId;
use ashlar_core::io::{Input, LinkEvent, PeerId, PeerName};
use ashlar_core::msg::Message;
use ashlar_core::rng::Rng;
use ashlar_core::time::Duration;
use ashlar_core::wire;
use ashlar_core::wire::handshake::{Handshake, Progress, Refused};
use ashlar_faultinject::link::{Fabric, HostId, LinkModel, Pipe};
use std::collections::BTreeMap;
use std::mem::discriminant;

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

#[derive(Clone, Debug)]
enum Packet {
    /// First of a connection: who is there, as it is on the wire.
    Hello(Box<[u8]>),
    /// Answer of the other end: a welcome, or a refusal with its reason.
    Answer(Box<[u8]>),
    /// Nobody listens.
    Refuse,
    /// With its number in the story, if that is told.
    Message(Box<Message>, Option<usize>),
    /// The other end is no more; nothing follows.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndState {
    Opening,
    Up,
    Gone,
}

#[derive(Clone, Debug)]
struct End {
    node: NodeId,
    boot: u32,
    host: HostId,
    state: EndState,
    peer: Option<PeerId>,
    /// The kernel counts the time for which nothing gets through.
    giving_up: bool,
}

#[derive(Clone, Debug)]
struct Conn {
    target: PeerName,
    /// The opener's.
    handshake: Handshake,
    ends: [End; 2],
    /// `pipes[i]` leads away from end `i`.
    pipes: [Pipe<Packet>; 2],
    black_hole: [bool; 2],
}

/// All connections.
#[derive(Clone, Debug)]
pub(super) struct Net {
    model: LinkModel,
    fabric: Fabric,
    conns: BTreeMap<ConnId, Conn>,
    opened: u64,
    /// Messages in a million of which a bit flips on the way.
    damaged_ppm: u64,
    rng: Rng,
}

impl Net {
    pub(super) fn new(model: LinkModel, rng: Rng) -> Self {
        Net { model, fabric: Fabric::default(), conns: BTreeMap::new(), opened: 0, damaged_ppm: 0, rng }
    }

    pub(super) fn set_rng(&mut self, rng: Rng) {
        self.rng = rng;
    }

    pub(super) fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    pub(super) fn node_at(&self, conn: ConnId, end: usize) -> Option<NodeId> {
        self.conns.get(&conn).map(|conn| conn.ends[end].node)
    }

    /// Whether a process is opening a connection to another.
    fn opens(&self, node: NodeId, to: NodeId) -> bool {
        let opening = |conn: &Conn| conn.ends[0].state == EndState::Opening && conn.ends[0].node == node;
        self.conns.values().any(|conn| opening(conn) && conn.ends[1].node == to)
    }

    pub(super) fn draw_delay(&mut self) -> ashlar_core::time::Duration {
        self.model.delay(&mut self.rng, 0)
    }
}

fn link_id(conn: ConnId, end: usize) -> LinkId {
    LinkId(conn.0 * 2 + end as u64)
}

fn conn_of(link: LinkId) -> (ConnId, usize) {
    (ConnId(link.0 / 2), usize::from(link.0 % 2 == 1))
}

/// The process at an address of [`World::address`].
fn node_at_address(address: &str) -> Option<NodeId> {
    address.strip_prefix("host")?.split_once(':')?.1.parse().ok().map(NodeId)
}

impl<M: Machine> World<M> {
    pub(super) fn connect(&mut self, node: NodeId, target: PeerName, address: &str) {
        let known = node_at_address(address).filter(|there| there.index() < self.nodes.len());
        let slot = &self.nodes[node.index()];
        let Some(machine) = &slot.machine else { return };
        let (handshake, hello) = Handshake::open(machine.identity(&slot.spec), target);
        let here =
            End { node, boot: slot.boot, host: slot.host, state: EndState::Opening, peer: None, giving_up: false };
        // A name that leads nowhere behaves as a host that does not answer.
        let there = known.unwrap_or(node);
        let there_slot = &self.nodes[there.index()];
        let there =
            End { node: there, boot: 0, host: there_slot.host, state: EndState::Opening, peer: None, giving_up: false };
        if self.net.opens(there.node, node) {
            self.mark(node, "sim: two processes open connections to each other at once");
        }
        self.net.opened += 1;
        let conn = ConnId(self.net.opened);
        let black_hole = [known.is_none(), false];
        let pipes = [Pipe::default(), Pipe::default()];
        self.net.conns.insert(conn, Conn { target, handshake, ends: [here, there], pipes, black_hole });
        self.push(conn, 0, Packet::Hello(hello.into()));
        let timeout = self.net.model.connect_timeout;
        self.schedule(self.now + timeout, Happening::ConnectTimeout { conn });
    }

    /// Before something is drawn about what an end of a connection sends.
    fn drawn_on(&mut self, conn: ConnId, from: usize) {
        let Some(Conn { ends, .. }) = self.net.conns.get(&conn).filter(|_| self.steady.is_some()) else { return };
        let path = Drawer::Path(ends[from].node, ends[1 - from].node);
        self.drawn_by(path);
    }

    /// Puts a packet on its way.
    fn push(&mut self, conn: ConnId, from: usize, packet: Packet) {
        let bytes = match &packet {
            Packet::Message(msg, _) => weight(msg),
            _ => 0,
        };
        self.drawn_on(conn, from);
        let delay = self.net.model.delay(&mut self.net.rng, bytes);
        let Some(record) = self.net.conns.get_mut(&conn) else { return };
        let slow = self.nodes[record.ends[1 - from].node.index()].slow;
        let at = record.pipes[from].send(self.now, Duration(delay.0 + slow.0), packet);
        self.schedule(at, Happening::Deliver { conn, from });
    }

    pub(super) fn send(&mut self, node: NodeId, link: LinkId, msg: Message) {
        let (conn, end) = conn_of(link);
        let Some(record) = self.net.conns.get(&conn) else { return };
        let here = &record.ends[end];
        if here.node != node || here.boot != self.nodes[node.index()].boot || here.state != EndState::Up {
            return; // It ended meanwhile; the node will hear of it, or closed it itself.
        }
        let to = here.peer.expect("an end that is up knows its peer");
        let msg = match self.options.codec {
            Some(codec) => codec(msg, &mut self.bufs),
            None => msg,
        };
        if let Some(heard) = &mut self.heard {
            heard.push((node, msg.clone()));
        }
        if (self.options.watch)(&msg) {
            self.observe(node, Sight::Sent { to, msg: msg.clone() });
        }
        let there = self.net.conns[&conn].ends[1 - end].node;
        let event = self.trace.events();
        let story = self.story.as_mut();
        let number = story.map(|story| story.sent(event, self.now, (node, there), format!("{msg:?}")));
        self.push(conn, end, Packet::Message(Box::new(msg), number));
    }

    /// The process closes a connection: what it sent before still arrives.
    pub(super) fn close(&mut self, node: NodeId, link: LinkId) {
        let (conn, end) = conn_of(link);
        let Some(record) = self.net.conns.get_mut(&conn) else { return };
        if record.ends[end].node != node || record.ends[end].boot != self.nodes[node.index()].boot {
            return;
        }
        if record.ends[end].state != EndState::Gone {
            record.ends[end].state = EndState::Gone;
            self.push(conn, end, Packet::End);
        }
        self.forget_if_dead(conn);
    }

    fn path_open(&self, conn: &Conn, from: usize) -> bool {
        let (here, there) = (&conn.ends[from], &conn.ends[1 - from]);
        let powered = self.hosts[there.host.0 as usize].powered;
        powered && !conn.black_hole[from] && self.net.fabric.open(here.host, there.host)
    }

    pub(super) fn deliver(&mut self, conn: ConnId, from: usize) -> Stepped {
        let Some(record) = self.net.conns.get(&conn) else { return Stepped::World };
        let open = self.path_open(record, from);
        let record = self.net.conns.get_mut(&conn).expect("just seen");
        let packet = record.pipes[from].deliver(open);
        let Some(packet) = packet else {
            if record.pipes[from].is_stuck() {
                self.start_giving_up(conn, from);
            }
            return Stepped::World;
        };
        self.trace.mix(&[4, self.now.0, conn.0, from as u64, packet_code(&packet)]);
        self.arrive(conn, 1 - from, packet)
    }

    /// A packet reached the host of an end.
    fn arrive(&mut self, conn: ConnId, end: usize, packet: Packet) -> Stepped {
        match packet {
            Packet::Hello(bytes) => self.arrive_hello(conn, &bytes),
            Packet::Answer(bytes) => self.arrive_answer(conn, &bytes),
            Packet::Refuse => self.fail_opening(conn, true),
            Packet::Message(msg, number) => self.arrive_message(conn, end, *msg, number),
            Packet::End => self.end_one(conn, end),
        }
    }

    fn arrive_hello(&mut self, conn: ConnId, hello: &[u8]) -> Stepped {
        let record = self.net.conns.get_mut(&conn).expect("the packet came on it");
        let there = &mut record.ends[1];
        let slot = &self.nodes[there.node.index()];
        let Some(machine) = &slot.machine else {
            there.state = EndState::Gone;
            self.push(conn, 1, Packet::Refuse);
            return Stepped::World;
        };
        there.boot = slot.boot;
        let (node, ours) = (there.node, machine.identity(&slot.spec));
        match Handshake::accept(ours).receive(hello) {
            Progress::Done { agreed, answer, .. } => {
                (there.state, there.peer) = (EndState::Up, Some(agreed.peer));
                self.push(conn, 1, Packet::Answer(answer.into()));
                self.agreed(node, agreed.version, ours.versions);
                let up = LinkEvent::Up { link: link_id(conn, 1), peer: agreed.peer, opened: None };
                self.input(node, Input::Link(up))
            }
            Progress::Refused { why, answer } => {
                there.state = EndState::Gone;
                self.push(conn, 1, Packet::Answer(answer.into()));
                self.refused(node, why);
                Stepped::World
            }
            Progress::Waiting => unreachable!("a hello comes in one piece"),
        }
    }

    /// A node and another agreed on a version.
    fn agreed(&mut self, node: NodeId, version: u16, ours: wire::Versions) {
        if version != ours.newest {
            self.mark(node, "sim: nodes agree on an older version of the protocol");
        }
    }

    /// A node refuses another.
    fn refused(&mut self, node: NodeId, why: Refused) {
        self.note(|| format!("node {} refuses a connection: {why}", node.0));
        if matches!(why, Refused::Version { .. }) {
            self.mark(node, "sim: a node is refused for its version of the protocol");
        }
    }

    fn arrive_answer(&mut self, conn: ConnId, answer: &[u8]) -> Stepped {
        let record = self.net.conns.get_mut(&conn).expect("the packet came on it");
        let target = record.target;
        let here = &mut record.ends[0];
        if here.state != EndState::Opening || !alive(&self.nodes, here) {
            return self.answer_with_end(conn, 0);
        }
        match record.handshake.receive(answer) {
            Progress::Done { agreed, .. } => {
                (here.state, here.peer) = (EndState::Up, Some(agreed.peer));
                let (node, link) = (here.node, link_id(conn, 0));
                let slot = &self.nodes[node.index()];
                let ours = slot.machine.as_ref().expect("an end that is alive").identity(&slot.spec);
                self.agreed(node, agreed.version, ours.versions);
                self.input(node, Input::Link(LinkEvent::Up { link, peer: agreed.peer, opened: Some(target) }))
            }
            Progress::Refused { why, .. } => self.fail_opening(conn, why.proves_absence()),
            Progress::Waiting => unreachable!("an answer comes in one piece"),
        }
    }

    fn arrive_message(&mut self, conn: ConnId, end: usize, msg: Message, number: Option<usize>) -> Stepped {
        let there = &self.net.conns[&conn].ends[end];
        if there.state != EndState::Up || !alive(&self.nodes, there) {
            return self.answer_with_end(conn, end);
        }
        let node = there.node;
        if let (Some(story), Some(number)) = (&mut self.story, number) {
            story.arrived(number, self.now);
        }
        self.drawn_on(conn, 1 - end);
        let ppm = self.net.damaged_ppm;
        if ppm == 0 || !self.net.rng.chance(ppm, 1_000_000) {
            return self.input(node, Input::Message { from: link_id(conn, end), msg });
        }
        match self.damaged(&msg) {
            Some(msg) => self.input(node, Input::Message { from: link_id(conn, end), msg }),
            None => {
                self.reset(conn);
                Stepped::World
            }
        }
    }

    /// From now on everything takes so much longer to be received by a process.
    pub fn slow_down(&mut self, node: NodeId, by: Duration) {
        self.nodes[node.index()].slow = by;
    }

    /// From now on, of so many messages in a million a bit flips on the way.
    pub fn set_damage_of_links(&mut self, ppm: u64) {
        self.net.damaged_ppm = ppm;
    }

    /// The message as it is decoded after a bit of its body flipped. `None`: a bit of what comes before the body flipped,
    /// which has a checksum that is looked at first, so that the connection ends.
    fn damaged(&mut self, msg: &Message) -> Option<Message> {
        let mut bytes = Vec::new();
        let body = wire::encode(msg, &mut bytes).filter(|body| !body.is_empty())?;
        let (frame, header) = bytes.split_first_chunk().expect("a frame header comes first");
        let frame = wire::FrameHeader::parse(frame).expect("encoded just now");
        let mut flipped = self.bufs.alloc(body.len());
        flipped.copy_from(0, &body.buf);
        let bit = self.net.rng.below(u64::from(body.len()) * 8);
        flipped.bytes_mut()[usize::try_from(bit / 8).expect("in the body")] ^= 1 << (bit % 8);
        let flipped = self.bufs.freeze(flipped);
        Some(wire::decode(&frame, header, Some(flipped)).expect("the header is whole"))
    }

    /// Nobody has this connection any more: the kernel answers with a reset. Whoever gets that does not read on, so that
    /// messages sent before it may be lost, though they were sent before a close in good order.
    fn answer_with_end(&mut self, conn: ConnId, end: usize) -> Stepped {
        self.drawn_on(conn, end);
        let record = self.net.conns.get_mut(&conn).expect("the packet came on it");
        record.ends[end].state = EndState::Gone;
        let under_way = record.pipes[end].len() as u64;
        let kept = usize::try_from(self.net.rng.below(under_way + 1)).expect("few messages");
        record.pipes[end].lose_after(kept);
        self.push(conn, end, Packet::End);
        Stepped::World
    }

    pub(super) fn connect_timeout(&mut self, conn: ConnId) -> Stepped {
        match self.net.conns.get(&conn) {
            Some(record) if record.ends[0].state == EndState::Opening => self.fail_opening(conn, false),
            _ => Stepped::World,
        }
    }

    fn fail_opening(&mut self, conn: ConnId, refused: bool) -> Stepped {
        let record = self.net.conns.get_mut(&conn).expect("it is being opened");
        let here = &mut record.ends[0];
        if here.state != EndState::Opening {
            return Stepped::World;
        }
        here.state = EndState::Gone;
        let (node, running, target) = (here.node, alive(&self.nodes, here), record.target);
        if record.ends[1].state == EndState::Up {
            self.push(conn, 0, Packet::End);
        } else {
            self.net.conns.remove(&conn);
        }
        if running {
            self.trace.mix(&[5, self.now.0, conn.0]);
            return self.input(node, Input::Link(LinkEvent::Failed { target, refused }));
        }
        Stepped::World
    }

    /// One end learns that the connection is over.
    fn end_one(&mut self, conn: ConnId, end: usize) -> Stepped {
        let Some(record) = self.net.conns.get_mut(&conn) else { return Stepped::World };
        if end == 0 && record.ends[0].state == EndState::Opening {
            return self.fail_opening(conn, true);
        }
        let was_up = record.ends[end].state == EndState::Up;
        record.ends[end].state = EndState::Gone;
        record.pipes[1 - end].lose_all();
        let (node, running) = (record.ends[end].node, alive(&self.nodes, &record.ends[end]));
        self.forget_if_dead(conn);
        if was_up && running {
            return self.input(node, Input::Link(LinkEvent::Down { link: link_id(conn, end) }));
        }
        Stepped::World
    }

    fn forget_if_dead(&mut self, conn: ConnId) {
        let Some(record) = self.net.conns.get(&conn) else { return };
        let silent = |end: usize| record.ends[end].state == EndState::Gone;
        if silent(0) && silent(1) {
            self.net.conns.remove(&conn);
        }
    }

    fn start_giving_up(&mut self, conn: ConnId, end: usize) {
        self.drawn_on(conn, end);
        let after = self.net.model.give_up(&mut self.net.rng);
        let record = self.net.conns.get_mut(&conn).expect("its pipe is stuck");
        if !record.ends[end].giving_up {
            record.ends[end].giving_up = true;
            self.schedule(self.now + after, Happening::GiveUp { conn, end });
        }
    }

    pub(super) fn give_up(&mut self, conn: ConnId, end: usize) -> Stepped {
        let Some(record) = self.net.conns.get_mut(&conn) else { return Stepped::World };
        record.ends[end].giving_up = false;
        if !record.pipes[end].is_stuck() {
            return Stepped::World;
        }
        record.pipes[end].lose_all();
        self.trace.mix(&[7, self.now.0, conn.0]);
        self.end_one(conn, end)
    }

    /// Paths may have opened: what waits sets out again.
    pub(super) fn resume_pipes(&mut self) {
        let stuck: Vec<(ConnId, usize)> = self
            .net
            .conns
            .iter()
            .flat_map(|(id, conn)| [(*id, 0), (*id, 1)].into_iter().filter(|(_, from)| conn.pipes[*from].is_stuck()))
            .collect();
        for (conn, from) in stuck {
            if !self.path_open(&self.net.conns[&conn], from) {
                continue;
            }
            self.drawn_on(conn, from);
            let delay = self.net.draw_delay();
            let record = self.net.conns.get_mut(&conn).expect("just seen");
            let at = record.pipes[from].next_arrival(self.now, delay);
            for _ in 0..record.pipes[from].take_late() {
                self.schedule(at, Happening::Deliver { conn, from });
            }
        }
    }

    /// Changes which paths are cut.
    pub fn change_fabric(&mut self, change: impl FnOnce(&mut Fabric)) {
        change(&mut self.net.fabric);
        self.note(|| "the network's paths change".to_string());
        self.resume_pipes();
        self.meta_paths_changed();
    }

    /// All connections with both ends up, oldest first.
    pub fn connections(&self) -> Vec<ConnId> {
        let up = |conn: &Conn| conn.ends.iter().all(|end| end.state == EndState::Up);
        self.net.conns.iter().filter(|(_, conn)| up(conn)).map(|(id, _)| *id).collect()
    }

    /// The connections between two processes.
    pub fn connections_between(&self, a: NodeId, b: NodeId) -> Vec<ConnId> {
        let same = |conn: &Conn| {
            let (x, y) = (conn.ends[0].node, conn.ends[1].node);
            (x, y) == (a, b) || (x, y) == (b, a)
        };
        self.connections().into_iter().filter(|id| same(&self.net.conns[id])).collect()
    }

    /// Resets a connection: any number of the messages under way still arrives, then both ends hear of it.
    pub fn reset(&mut self, conn: ConnId) {
        for from in 0..2 {
            self.drawn_on(conn, from);
            let Some(record) = self.net.conns.get_mut(&conn) else { return };
            let under_way = record.pipes[from].len() as u64;
            let kept = usize::try_from(self.net.rng.below(under_way + 1)).expect("few messages");
            record.pipes[from].lose_after(kept);
            self.push(conn, from, Packet::End);
        }
        self.note(|| format!("{conn:?} is reset"));
    }

    /// From now on nothing that an end sends on this connection arrives, though the path is open: half-open.
    pub fn black_hole(&mut self, conn: ConnId, from: usize) {
        if let Some(record) = self.net.conns.get_mut(&conn) {
            record.black_hole[from] = true;
        }
        self.note(|| format!("{conn:?} swallows what end {from} sends"));
    }

    /// A process is gone. With its host still up, the kernel tells the peers; some of what was under way is lost.
    pub(super) fn drop_connections(&mut self, node: NodeId, boot: u32, kernel_tells: bool) {
        let ends = |conn: &Conn| {
            (0..2).find(|end| {
                conn.ends[*end].node == node && conn.ends[*end].boot == boot && conn.ends[*end].state != EndState::Gone
            })
        };
        let mine: Vec<(ConnId, usize)> =
            self.net.conns.iter().filter_map(|(id, conn)| ends(conn).map(|end| (*id, end))).collect();
        for (conn, end) in mine {
            self.drawn_on(conn, end);
            let record = self.net.conns.get_mut(&conn).expect("just seen");
            record.ends[end].state = EndState::Gone;
            if kernel_tells {
                let under_way = record.pipes[end].len() as u64;
                let kept = usize::try_from(self.net.rng.below(under_way + 1)).expect("few messages");
                record.pipes[end].lose_after(kept);
                self.push(conn, end, Packet::End);
            }
            self.forget_if_dead(conn);
        }
    }
}

fn alive<M: Machine>(nodes: &[super::Slot<M>], end: &End) -> bool {
    let slot = &nodes[end.node.index()];
    slot.boot == end.boot && slot.machine.is_some()
}

fn packet_code(packet: &Packet) -> u64 {
    match packet {
        Packet::Hello(_) => 1,
        Packet::Answer(_) => 2,
        Packet::Refuse => 3,
        Packet::End => 4,
        Packet::Message(msg, _) => 16 + message_code(msg),
    }
}

/// A number that tells kinds of messages apart, for the trace.
fn message_code(msg: &Message) -> u64 {
    use std::hash::{Hash, Hasher};
    struct Words(u64);
    impl Hasher for Words {
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    let mut words = Words(0);
    match msg {
        Message::Request(request) => (1, request.id.number, request.object.stripe).hash(&mut words),
        Message::Reply(reply) => (2, reply.id.number, reply.outcome.is_ok()).hash(&mut words),
        Message::Map(map) => (3, discriminant(map)).hash(&mut words),
        Message::Pg(pg) => (4, discriminant(pg)).hash(&mut words),
        #[allow(unreachable_patterns, reason = "messages of later protocol parts count as one kind")]
        _ => 5.hash(&mut words),
    }
    words.finish()
}

/// Bytes of a message's payload, as far as they matter for its delay.
fn weight(msg: &Message) -> u64 {
    use ashlar_core::msg::{Answer, Reply, Request, RequestOp};
    match msg {
        Message::Request(Request { op: RequestOp::Write { data, .. }, .. }) => u64::from(data.len()),
        Message::Reply(Reply { outcome: Ok(Answer::Read { data, .. }), .. }) => u64::from(data.len()),
        _ => 0,
    }
}
