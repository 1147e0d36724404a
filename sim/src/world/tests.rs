//! The world with toy nodes: each sends numbered messages to a peer and writes what it got to its disk.

use super::*;
use ashlar_core::id::{ClusterUuid, LinkId, OsdId, Revision};
use ashlar_core::io::{DiskDone, DiskOp, LinkEvent, PeerName};
use ashlar_core::msg::MapMessage;
use ashlar_core::wire::Versions;
use ashlar_faultinject::disk::{DiskModel, Latency, Outcome};

const PERIOD: Duration = Duration::millis(1);

#[derive(Clone)]
struct ToySpec {
    id: u32,
    peer: Option<NodeId>,
    versions: Versions,
}

#[derive(Clone)]
struct Toy {
    spec: ToySpec,
    incarnation: Incarnation,
    link: Option<LinkId>,
    sent: u64,
    got: Vec<u64>,
    downs: u32,
    failed: Vec<bool>,
    next: Time,
    late_ticks: u32,
    written: u32,
}

fn number(n: u64) -> Message {
    Message::Map(MapMessage::Subscribe { have: Revision(n) })
}

impl Node for Toy {
    fn handle(&mut self, env: &mut Env<'_>, input: Input) {
        match input {
            Input::Message { msg: Message::Map(MapMessage::Subscribe { have }), .. } => {
                self.got.push(have.0);
                let mut data = env.bufs.alloc(4096);
                data.bytes_mut().fill(self.got.len() as u8);
                let data = env.bufs.freeze(data);
                let op = DiskOp::Write { device: Device::Data, offset: have.0 % 4096 * 4096, data };
                env.out.push(Effect::Io { id: IoId(have.0), op });
            }
            Input::Link(LinkEvent::Up { link, opened: Some(_), .. }) => self.link = Some(link),
            Input::Link(LinkEvent::Down { link }) => {
                self.downs += 1;
                self.link = self.link.filter(|mine| *mine != link);
            }
            Input::Link(LinkEvent::Failed { refused, .. }) => self.failed.push(refused),
            Input::Io { done: DiskDone::Done(Ok(())), .. } => self.written += 1,
            Input::Tick => self.on_tick(env),
            _ => {}
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        Some(self.next)
    }

    fn check(&self) {
        assert!(self.got.windows(2).all(|pair| pair[0] < pair[1]), "out of order: {:?}", self.got);
    }
}

impl Toy {
    fn on_tick(&mut self, env: &mut Env<'_>) {
        if env.now < self.next {
            return;
        }
        self.late_ticks += u32::from(env.now.since(self.next) > PERIOD);
        self.next = env.now + PERIOD;
        match (self.link, self.spec.peer) {
            (Some(link), _) => {
                self.sent += 1;
                env.out.send(link, number(self.sent));
            }
            (None, Some(peer)) if self.sent == 0 || env.rng.chance(1, 50) => {
                self.sent += 1;
                let target = PeerName::Osd(OsdId(peer.0));
                env.out.push(Effect::Connect { target, address: World::<Toy>::address_on(HostId(0), peer) });
            }
            _ => {}
        }
    }
}

impl Machine for Toy {
    type Spec = ToySpec;
    fn start(spec: &mut ToySpec, incarnation: Incarnation, env: &mut Env<'_>) -> Self {
        Toy {
            spec: spec.clone(),
            incarnation,
            link: None,
            sent: 0,
            got: Vec::new(),
            downs: 0,
            failed: Vec::new(),
            next: env.now + PERIOD,
            late_ticks: 0,
            written: 0,
        }
    }
    fn halt(self, _spec: &mut ToySpec, _how: Halt, _rng: &mut Rng) {}
    fn identity(&self, spec: &ToySpec) -> Identity {
        let peer = PeerId::Osd(OsdId(spec.id), self.incarnation);
        Identity { cluster: Some(ClusterUuid(1)), peer, versions: spec.versions }
    }
}

const LATENCY: Latency = Latency { base: Duration::micros(50), tail: Duration::millis(20), tail_ppm: 20_000 };
const SENDER: NodeId = NodeId(0);
const RECEIVER: NodeId = NodeId(1);

fn world(seed: u64) -> World<Toy> {
    let links = LinkModel {
        base: Duration::micros(50),
        tail: Duration::millis(10),
        tail_ppm: 50_000,
        per_kib: Duration::ZERO,
        give_up: Duration::millis(500),
        connect_timeout: Duration::millis(100),
    };
    let meta = MetaModel { delay: LATENCY, watch_lag: LATENCY, timeout: Duration::millis(500) };
    let mut world = World::new(seed, links, meta, Options::default());
    for (id, peer) in [(0, Some(RECEIVER)), (1, None)] {
        let host = world.add_host();
        let node = world.add_node(
            host,
            ToySpec { id, peer, versions: Versions::OURS },
            Clock { origin: 1000, drift_ppb: 50_000 },
        );
        let model = DiskModel {
            // So many pages that no two writes in flight are of the same one.
            size_bytes: 16 << 20,
            block_bytes: 512,
            power_loss_protection: false,
            atomic_bytes: 512,
            read: LATENCY,
            write: LATENCY,
            flush: LATENCY,
        };
        world.add_disk(node, Device::Data, model);
        world.start(node);
    }
    world
}

fn run_for(world: &mut World<Toy>, length: Duration) {
    let end = world.now() + length;
    while world.next_event().is_some_and(|at| at <= end) {
        world.step();
    }
    world.advance_to(end);
}

#[test]
fn messages_flow_in_order_and_time_is_virtual() {
    let mut world = world(1);
    run_for(&mut world, Duration::secs(2));
    let receiver = world.node(RECEIVER).expect("runs");
    assert!(receiver.got.len() > 1500, "{}", receiver.got.len());
    assert!(receiver.written > 1500);
    assert_eq!(world.now(), Time(2_000_000_000));
}

#[test]
fn the_same_seed_gives_the_same_trace_and_a_clone_goes_the_same_way() {
    let (mut a, mut b) = (world(7), world(7));
    run_for(&mut a, Duration::millis(300));
    run_for(&mut b, Duration::millis(300));
    assert_eq!(a.trace(), b.trace());
    let mut fork = a.clone();
    run_for(&mut a, Duration::millis(300));
    run_for(&mut fork, Duration::millis(300));
    assert_eq!(a.trace(), fork.trace());
    let mut other = world(8);
    run_for(&mut other, Duration::millis(600));
    assert_ne!(a.trace(), other.trace());
}

#[test]
fn a_pause_fills_the_buffers_and_ends_with_everything_at_once() {
    let mut world = world(2);
    run_for(&mut world, Duration::millis(200));
    let before = world.node(RECEIVER).expect("runs").got.len();
    world.pause(RECEIVER, Duration::millis(300));
    run_for(&mut world, Duration::millis(250));
    assert_eq!(world.node(RECEIVER).expect("runs").got.len(), before);
    run_for(&mut world, Duration::millis(100));
    let receiver = world.node(RECEIVER).expect("runs");
    assert!(receiver.got.len() > before + 280, "{} {before}", receiver.got.len());
    assert!(receiver.late_ticks >= 1);
    assert_eq!(receiver.downs, 0);
}

#[test]
fn a_short_partition_delays_a_long_one_ends_the_connection() {
    let mut world = world(3);
    run_for(&mut world, Duration::millis(100));
    let (a, b) = (world.host_of(SENDER), world.host_of(RECEIVER));
    world.change_fabric(|fabric| fabric.cut(a, b));
    run_for(&mut world, Duration::millis(200));
    world.change_fabric(|fabric| fabric.heal());
    run_for(&mut world, Duration::millis(100));
    let got = world.node(RECEIVER).expect("runs").got.clone();
    assert!(got.windows(2).all(|pair| pair[0] + 1 == pair[1]), "nothing is lost while the connection lives");
    world.change_fabric(|fabric| fabric.cut(a, b));
    run_for(&mut world, Duration::secs(3));
    let sender = world.node(SENDER).expect("runs");
    assert_eq!(sender.downs, 1, "the kernel gave up");
    assert!(sender.failed.contains(&false), "attempts to connect time out");
    assert_eq!(world.node(RECEIVER).expect("runs").downs, 0, "who sends nothing notices nothing");
}

#[test]
fn a_killed_peer_refuses_and_a_dead_host_is_silent() {
    let mut world = world(4);
    run_for(&mut world, Duration::millis(100));
    world.kill(RECEIVER);
    run_for(&mut world, Duration::millis(400));
    let sender = world.node(SENDER).expect("runs");
    assert_eq!((sender.downs, sender.failed.contains(&true)), (1, true));
    world.start(RECEIVER);
    run_for(&mut world, Duration::secs(1));
    let sender = world.node(SENDER).expect("runs");
    assert!(sender.link.is_some() && !world.node(RECEIVER).expect("runs").got.is_empty());
    let host = world.host_of(RECEIVER);
    world.power_off(host, Outcome::LoseAll);
    run_for(&mut world, Duration::millis(100));
    assert_eq!(world.node(SENDER).expect("runs").downs, 1, "nobody tells");
    world.power_on(host);
    run_for(&mut world, Duration::millis(100));
    assert_eq!(world.node(SENDER).expect("runs").downs, 2, "the new kernel answers with a reset");
}

#[test]
fn resets_reach_both_ends_and_black_holes_neither() {
    let mut world = world(5);
    run_for(&mut world, Duration::millis(100));
    let conn = world.connections()[0];
    world.reset(conn);
    run_for(&mut world, Duration::millis(50));
    assert_eq!(world.node(SENDER).expect("runs").downs, 1);
    assert_eq!(world.node(RECEIVER).expect("runs").downs, 1);
    run_for(&mut world, Duration::secs(1));
    let conn = world.connections()[0];
    let before = world.node(RECEIVER).expect("runs").got.len();
    world.black_hole(conn, 0);
    run_for(&mut world, Duration::millis(100));
    assert!(world.node(RECEIVER).expect("runs").got.len() <= before + 20);
    assert_eq!(world.node(RECEIVER).expect("runs").downs, 1);
    run_for(&mut world, Duration::secs(2));
    assert_eq!(world.node(SENDER).expect("runs").downs, 2, "data that do not get through end it");
}
