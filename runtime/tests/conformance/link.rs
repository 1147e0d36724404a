//! Drawn conversations of two nodes: over simulated links, and over TCP between the ring's and tokio's transports, with a
//! proxy that resets connections in mid-message or swallows what it should pass on. One set of rules judges all of them.

use crate::device::{DEVICE_BYTES, free_path};
use crate::proxy::{Proxy, Trouble};
use crate::talker::{Act, Log, Part, Seen, Talker};
use ashlar_core::id::{ClusterUuid, Incarnation, LinkId, OsdId};
use ashlar_core::io::PeerId;
use ashlar_core::rng::Rng;
use ashlar_core::time::{Duration, Time};
use ashlar_core::wire::Versions;
use ashlar_core::wire::handshake::Identity;
use ashlar_faultinject::disk::Latency;
use ashlar_faultinject::link::LinkModel;
use ashlar_runtime::driver::{self, Driver, Listener, Tcp};
use ashlar_runtime::ring::{DeviceFile, Loop, Setup, Stopper};
use ashlar_sim::world::{Clock, MetaModel, NodeId, Options, World};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration as Wall, Instant};

/// Longer than anything takes on a busy machine.
const PATIENCE: Wall = Wall::from_secs(20);
/// Seeds of the simulated world for each conversation.
const SEEDS: u64 = 16;

/// Two nodes; the first one begins. What goes wrong on the connection that it opens.
#[derive(Clone, Debug)]
struct Conversation {
    acts: [Vec<Act>; 2],
    trouble: Trouble,
}

fn act() -> impl Strategy<Value = Act> {
    // Around the limits of copying and of straight receives.
    let bytes = prop_oneof![Just(512u32), Just(4096), Just(28 << 10), Just(36 << 10), Just(300 << 10)];
    prop_oneof![
        6 => (1..6u32, bytes).prop_map(|(count, bytes)| Act::Send { count, bytes }),
        1 => Just(Act::Send { count: 20, bytes: 128 << 10 }),
        1 => Just(Act::Close),
        3 => (1..6u64).prop_map(Act::Rest),
        1 => (1..30u64).prop_map(Act::Busy),
    ]
}

fn conversations() -> impl Strategy<Value = Conversation> {
    let trouble = prop_oneof![
        2 => Just(Trouble::None),
        1 => (0..2usize, 200..200_000u64).prop_map(|(from, after)| Trouble::Reset { from, after }),
        1 => (0..2usize, 200..200_000u64).prop_map(|(from, after)| Trouble::Swallow { from, after }),
    ];
    (vec(act(), 0..8), vec(act(), 0..8), any::<bool>(), trouble).prop_map(|(first, second, both, trouble)| {
        // Whoever is called waits for the call.
        let opening = if both { vec![Act::Connect, Act::Rest(5)] } else { vec![Act::Rest(6)] };
        let first = [vec![Act::Connect, Act::Rest(5)], first].concat();
        Conversation { acts: [first, [opening, second].concat()], trouble }
    })
}

/// Of the two nodes.
const NUMBERS: [u32; 2] = [1, 2];

/// What both saw, in the end.
type Logs = [Vec<Seen>; 2];

// ---- the rules ----

/// One end of a connection, as its node saw it.
#[derive(Debug, Default)]
struct End {
    opened: bool,
    sent: u64,
    got: Vec<u64>,
    /// The peer's name for the connection.
    stream: Option<u64>,
    closed: bool,
    down: bool,
}

fn ends(seen: &[Seen]) -> Result<BTreeMap<LinkId, End>, String> {
    let mut ends: BTreeMap<LinkId, End> = BTreeMap::new();
    let (mut asked, mut answered) = (0, 0);
    for seen in seen {
        match seen {
            Seen::Asked => asked += 1,
            Seen::Failed { .. } => answered += 1,
            Seen::Up { link, opened } => {
                answered += u32::from(*opened);
                if ends.insert(*link, End { opened: *opened, ..End::default() }).is_some() {
                    return Err(format!("{link:?} is up twice"));
                }
            }
            Seen::Sent { link, .. } => ends.get_mut(link).expect("known to the node").sent += 1,
            Seen::Closed { link } => ends.get_mut(link).expect("known to the node").closed = true,
            Seen::Down { link } => match ends.get_mut(link) {
                Some(end) if !end.down && !end.closed => end.down = true,
                other => return Err(format!("{link:?} is down, {other:?}")),
            },
            Seen::Got { link, stream, number, intact } => match ends.get_mut(link) {
                Some(end) if !end.down && !end.closed => {
                    let same = *end.stream.get_or_insert(*stream) == *stream;
                    if !intact || !same || *number != end.got.len() as u64 {
                        return Err(format!("{seen:?} does not follow {:?}", end.got));
                    }
                    end.got.push(*number);
                }
                other => return Err(format!("{seen:?} on {other:?}")),
            },
        }
    }
    if asked != answered { Err(format!("{asked} attempts to connect, {answered} answers")) } else { Ok(ends) }
}

/// What simulated links promise, and real ones must keep. Says which kinds of things happened.
fn judge(logs: &Logs, trouble: Trouble) -> Result<BTreeSet<&'static str>, String> {
    let both = [ends(&logs[0])?, ends(&logs[1])?];
    let mut kinds = BTreeSet::new();
    let failed = logs.iter().flatten().any(|seen| matches!(seen, Seen::Failed { .. }));
    if failed && matches!(trouble, Trouble::None) {
        return Err("an attempt to connect failed, and nothing was in its way".into());
    }
    for (side, ends) in both.iter().enumerate() {
        let there = &both[1 - side];
        for (link, end) in ends {
            let only = there.values().next().filter(|_| ends.len() == 1 && there.len() == 1);
            let peer = there.values().find(|peer| peer.stream == Some(link.0)).or(only);
            if let Some(peer) = peer {
                one_way(end, peer, trouble, &mut kinds).map_err(|error| format!("{link:?} of {side}: {error}"))?;
            }
            // Something must have ended it: the peer, or the network.
            let innocent = there.values().all(|peer| !peer.closed && !peer.down);
            if end.down && innocent && matches!(trouble, Trouble::None) {
                return Err(format!("{link:?} of {side} is down, and nobody did it"));
            }
        }
    }
    let up = |ends: &BTreeMap<LinkId, End>, opened| ends.values().any(|end| end.opened == opened);
    if up(&both[0], true) && up(&both[0], false) && up(&both[1], true) && up(&both[1], false) {
        kinds.insert("both open a connection at once: there are two");
    }
    Ok(kinds)
}

/// What one end sent and the other got.
fn one_way(from: &End, to: &End, trouble: Trouble, kinds: &mut BTreeSet<&'static str>) -> Result<(), String> {
    let all = to.got.len() as u64 == from.sent;
    let quiet = matches!(trouble, Trouble::None);
    if to.got.len() as u64 > from.sent {
        return Err("more arrived than was sent".into());
    }
    if quiet && !from.closed && !to.closed && !from.down && !to.down && !all {
        return Err(format!("it is up, and {} of {} arrived", to.got.len(), from.sent));
    }
    // Whoever gets something behind the peer's close answers it with a reset, and that overtakes what was sent before.
    if quiet && from.closed && to.down && to.sent == 0 && !all {
        return Err(format!("closed by the sender; {} of {} arrived", to.got.len(), from.sent));
    }
    if quiet && from.closed && !to.closed && !to.down {
        return Err("the sender closed it, and the receiver never heard of it".into());
    }
    if matches!(trouble, Trouble::Reset { .. }) && to.down && !all {
        kinds.insert("a reset in the middle: a part arrives, in order");
    }
    if matches!(trouble, Trouble::Swallow { .. }) && !to.down && !all {
        kinds.insert("half-open: messages vanish, and nobody hears of it");
    }
    if quiet && from.closed && to.down && all && from.sent > 0 {
        kinds.insert("a close: all that was sent arrives before");
    }
    if quiet && from.closed && to.down && !all {
        kinds.insert("a close with something unread: what was sent before may be lost");
    }
    Ok(())
}

// ---- the simulated world ----

fn simulate(conversation: &Conversation, seed: u64) -> Logs {
    let latency = Latency { base: Duration::micros(20), tail: Duration::millis(3), tail_ppm: 50_000 };
    let links = LinkModel {
        base: Duration::micros(20),
        tail: Duration::millis(3),
        tail_ppm: 200_000,
        per_kib: Duration(500),
        give_up: Duration::secs(20),
        connect_timeout: Duration::secs(4),
    };
    let meta = MetaModel { delay: latency, watch_lag: latency, timeout: Duration::millis(500) };
    let mut world: World<Talker> = World::new(seed, links, meta, Options::default());
    let logs: [Arc<Mutex<Log>>; 2] = Default::default();
    let nodes = [NodeId(0), NodeId(1)];
    let hosts = [world.add_host(), world.add_host()];
    for side in 0..2 {
        let (acts, log) = (conversation.acts[side].clone(), Arc::clone(&logs[side]));
        let address = World::<Talker>::address_on(hosts[1 - side], nodes[1 - side]);
        let part = Part { number: NUMBERS[side], peer: NUMBERS[1 - side], address, acts, log, simulated: true };
        world.add_node(hosts[side], part, Clock { origin: 1000, drift_ppb: 0 });
    }
    nodes.iter().rev().for_each(|node| world.start(*node));
    let mut rng = Rng::new(seed);
    let mut strikes = Some(Time(rng.between(5_500_000, 12_000_000)));
    while world.now() < Time(1_000_000_000) && world.next_event().is_some() {
        world.step();
        for node in nodes {
            if let Some(pause) = world.node_mut(node).and_then(|talker| talker.wants_pause.take()) {
                world.pause(node, pause);
            }
        }
        if strikes.is_some_and(|at| at <= world.now()) {
            strikes = None;
            strike(&mut world, nodes, conversation.trouble);
        }
    }
    logs.map(|log| std::mem::take(&mut log.lock().expect("nobody panics with the lock").seen))
}

/// The trouble begins, on the first connection.
fn strike(world: &mut World<Talker>, nodes: [NodeId; 2], trouble: Trouble) {
    let Some(connection) = world.connections_between(nodes[0], nodes[1]).first().copied() else { return };
    match trouble {
        Trouble::None => {}
        Trouble::Reset { .. } => world.reset(connection),
        Trouble::Swallow { from, .. } => world.black_hole(connection, from),
    }
}

// ---- the real one ----

enum Transport {
    Ring { thread: JoinHandle<()>, stopper: Stopper, path: PathBuf },
    Tokio(Driver<Talker>),
}

const CLUSTER: ClusterUuid = ClusterUuid(0x5a5a);

fn identity(number: u32) -> Identity {
    Identity { cluster: Some(CLUSTER), peer: PeerId::Osd(OsdId(number), incarnation(number)), versions: Versions::OURS }
}

fn incarnation(number: u32) -> Incarnation {
    Incarnation(u64::from(number) + 1)
}

impl Transport {
    fn on_ring(part: Part, listener: TcpListener) -> Transport {
        let path = free_path(std::path::Path::new("/dev/shm"));
        DeviceFile::create(&path, DEVICE_BYTES).expect("there is space");
        let (sender, receiver) = std::sync::mpsc::channel();
        let device = path.clone();
        let thread = std::thread::spawn(move || {
            let data = DeviceFile::open(&device).expect("just made");
            let identity = identity(part.number);
            let setup = Setup { identity, listener, data, log: None, meta: None, seed: 1, yields: false };
            let talker = Talker::new(part.clone(), incarnation(part.number));
            let mut ring = Loop::new(setup, |_| talker).expect("a ring");
            sender.send(ring.stopper()).expect("somebody waits");
            ring.run().expect("the ring works").expect("it ends well");
        });
        Transport::Ring { thread, stopper: receiver.recv().expect("it starts"), path }
    }

    fn on_tokio(part: Part, listener: TcpListener) -> Transport {
        listener.set_nonblocking(true).expect("a socket");
        let listener = Listener::from_std(listener).expect("a socket");
        let identity = identity(part.number);
        let setup = driver::Setup { identity, listener: Some(listener), meta: None, seed: 1 };
        let incarnation = incarnation(part.number);
        Transport::Tokio(Driver::start(Talker::new(part, incarnation), Tcp, setup))
    }

    fn end(self) {
        match self {
            Transport::Ring { thread, stopper, path } => {
                stopper.stop();
                thread.join().expect("it does not panic");
                std::fs::remove_file(path).expect("it was there");
            }
            Transport::Tokio(driver) => driver.stop(),
        }
    }
}

/// Has the conversation over TCP. `kinds` says for each node whether it is on the ring.
async fn talk(conversation: &Conversation, on_ring: [bool; 2]) -> Logs {
    let listeners = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let addresses = listeners.each_ref().map(|listener| listener.local_addr().expect("bound"));
    let proxy = Proxy::start(addresses[1], conversation.trouble);
    let logs: [Arc<Mutex<Log>>; 2] = Default::default();
    let called = [proxy.address(), addresses[0]];
    let mut transports = Vec::new();
    // The one that is called first.
    for (side, listener) in [0, 1].into_iter().zip(listeners).rev() {
        let (acts, log, address) = (conversation.acts[side].clone(), Arc::clone(&logs[side]), called[side].to_string());
        let part = Part { number: NUMBERS[side], peer: NUMBERS[1 - side], address, acts, log, simulated: false };
        let start = if on_ring[side] { Transport::on_ring } else { Transport::on_tokio };
        transports.push(start(part, listener));
    }
    rest(&logs, conversation.trouble).await;
    let seen = logs.map(|log| log.lock().expect("nobody panics with the lock").seen.clone());
    transports.into_iter().for_each(Transport::end);
    seen
}

/// Waits until both scripts are over, what must still happen has happened, and then nothing more for a while.
async fn rest(logs: &[Arc<Mutex<Log>>; 2], trouble: Trouble) {
    const STILL: Wall = Wall::from_millis(60);
    let look = || logs.each_ref().map(|log| log.lock().map(|log| (log.seen.len(), log.over)).expect("no panic"));
    let complete = || judge(&logs.each_ref().map(|log| log.lock().expect("no panic").seen.clone()), trouble).is_ok();
    let (begin, mut since, mut before) = (Instant::now(), Instant::now(), look());
    while begin.elapsed() < PATIENCE {
        tokio::time::sleep(Wall::from_millis(4)).await;
        let now = look();
        if now != before {
            (since, before) = (Instant::now(), now);
        }
        if now.iter().all(|(_, over)| *over) && since.elapsed() > STILL && complete() {
            return;
        }
    }
}

/// Everything that a run may show at times.
const KINDS: [&str; 5] = [
    "both open a connection at once: there are two",
    "a reset in the middle: a part arrives, in order",
    "half-open: messages vanish, and nobody hears of it",
    "a close: all that was sent arrives before",
    "a close with something unread: what was sent before may be lost",
];

/// Both worlds, and what was seen in them.
struct Worlds {
    runtime: tokio::runtime::Runtime,
    simulated: RefCell<BTreeSet<&'static str>>,
    real: RefCell<BTreeSet<&'static str>>,
    cases: Cell<usize>,
}

impl Worlds {
    fn new() -> Worlds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Worlds { runtime, simulated: RefCell::default(), real: RefCell::default(), cases: Cell::new(0) }
    }

    /// Has a conversation in both.
    fn hold(&self, conversation: &Conversation) -> Result<(), String> {
        for seed in 0..SEEDS {
            let logs = simulate(conversation, seed);
            let kinds = judge(&logs, conversation.trouble);
            self.simulated
                .borrow_mut()
                .extend(kinds.map_err(|error| format!("simulated, {seed}: {error}\n{logs:#?}"))?);
        }
        let on_ring = [[true, false], [false, true], [true, true], [false, false]][self.cases.get() % 4];
        self.cases.set(self.cases.get() + 1);
        let logs = self.runtime.block_on(talk(conversation, on_ring));
        let kinds = judge(&logs, conversation.trouble);
        self.real.borrow_mut().extend(kinds.map_err(|error| format!("TCP, {on_ring:?}: {error}\n{logs:#?}"))?);
        Ok(())
    }
}

/// One closes what it has just written on, and the other goes on writing: the rarest kind, not left to chance.
fn talking_past_each_other() -> Conversation {
    let first = vec![Act::Connect, Act::Rest(5), Act::Send { count: 20, bytes: 512 }, Act::Close];
    let second = [vec![Act::Rest(6)], vec![Act::Send { count: 5, bytes: 4096 }; 6]].concat();
    Conversation { acts: [first, second], trouble: Trouble::None }
}

fn conversations_conform(mut runner: TestRunner) {
    let worlds = Worlds::new();
    (0..4).for_each(|_| worlds.hold(&talking_past_each_other()).unwrap_or_else(|error| panic!("{error}")));
    let outcome = runner.run(&conversations(), |conversation| worlds.hold(&conversation).map_err(TestCaseError::fail));
    outcome.unwrap_or_else(|error| panic!("{error}"));
    let (simulated, real) = (worlds.simulated.into_inner(), worlds.real.into_inner());
    assert!(real.is_subset(&simulated), "real links show {real:?}, simulated ones {simulated:?}");
    let all = KINDS.into_iter().collect();
    assert_eq!(simulated, all, "the drawn conversations reach everything that is worth a name");
}

#[test]
fn what_happens_on_tcp_happens_on_simulated_links() {
    let config = Config { cases: 20, failure_persistence: None, max_shrink_iters: 30, ..Config::default() };
    // The same conversations each time: what was seen once must be seen again.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    conversations_conform(TestRunner::new_with_rng(config, rng));
}

#[test]
#[ignore = "minutes: many fresh conversations"]
fn what_happens_on_tcp_happens_on_simulated_links_at_length() {
    let config = Config { cases: 600, failure_persistence: None, max_shrink_iters: 60, ..Config::default() };
    conversations_conform(TestRunner::new(config));
}

fn failures(logs: &Logs) -> Vec<&Seen> {
    logs[0].iter().filter(|seen| matches!(seen, Seen::Failed { .. })).collect()
}

/// Nobody listens, or somebody does who never says a word: told apart in both worlds.
#[tokio::test]
async fn a_closed_port_refuses_and_a_silent_one_does_not() {
    let silent = Conversation { acts: [vec![Act::Connect], vec![]], trouble: Trouble::Swallow { from: 1, after: 0 } };
    let (by_ring, by_tokio) = tokio::join!(talk(&silent, [true, true]), talk(&silent, [false, true]));
    for logs in [by_ring, by_tokio] {
        assert_eq!(failures(&logs), [&Seen::Failed { refused: false }]);
    }
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    for start in [Transport::on_ring, Transport::on_tokio] {
        let log = Arc::<Mutex<Log>>::default();
        let (acts, address) = (vec![Act::Connect], closed.to_string());
        let part =
            Part { number: NUMBERS[0], peer: NUMBERS[1], address, acts, log: Arc::clone(&log), simulated: false };
        let transport = start(part, TcpListener::bind("127.0.0.1:0").expect("a port"));
        while log.lock().expect("no panic").seen.len() < 2 {
            tokio::time::sleep(Wall::from_millis(2)).await;
        }
        assert_eq!(log.lock().expect("no panic").seen[1], Seen::Failed { refused: true });
        transport.end();
    }
}
