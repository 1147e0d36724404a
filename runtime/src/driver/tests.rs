//! The driver on a simulated network (partitions, held and late packets, crashes), and its ends on the real one.

use super::*;
use crate::testing::{Caller, Echo, Seen, Simulated, client, osd, pattern};
use ashlar_core::id::{ClientId, Epoch, LinkId, ObjectId, OsdId, RequestId, Session};
use ashlar_core::io::{Effect, LinkEvent, PeerId, PeerName};
use ashlar_core::msg::{Answer, Message, Request, RequestOp};
use ashlar_core::rng::Rng;
use ashlar_core::store::Data;
use ashlar_core::time::Duration as Span;
use std::collections::VecDeque;
use std::time::Duration as Wall;

/// Asks a server all the time; gives a connection up that does not answer, and opens another.
struct Pinger {
    seen: Arc<Mutex<Seen>>,
    server: &'static str,
    number: u64,
    link: Option<LinkId>,
    connecting: bool,
    /// What was asked on this connection and not answered, with its time.
    asked: VecDeque<(u64, Time)>,
    next: Time,
    /// Connections on which it has heard that they ended.
    ended: Vec<LinkId>,
}

const ASK_EVERY: Span = Span::millis(20);
const GIVE_UP_AFTER: Span = Span::millis(1000);

impl Pinger {
    fn new(seen: Arc<Mutex<Seen>>, server: &'static str) -> Pinger {
        let next = Time::default();
        Pinger {
            seen,
            server,
            number: 0,
            link: None,
            connecting: false,
            asked: VecDeque::new(),
            next,
            ended: Vec::new(),
        }
    }

    fn lost(&mut self) {
        self.ended.extend(self.link.take());
        self.asked.clear();
    }

    fn ask(&mut self, env: &mut Env<'_>, link: LinkId) {
        self.number += 1;
        let id = RequestId { session: Session { client: ClientId(1), number: 1 }, number: self.number };
        let data = Data::new(env.bufs.copy_of(&pattern(self.number, 512 << (self.number % 8))));
        let op = RequestOp::Write { offset: 0, data, expect: None };
        let (object, epoch, class) = (ObjectId::default(), Epoch(1), Default::default());
        env.out
            .send(link, Message::Request(Request { id, seen: 0, object, generation: 0, epoch, class, tenant: 0, op }));
        self.asked.push_back((self.number, env.now));
    }

    fn tick(&mut self, env: &mut Env<'_>) {
        if env.now < self.next {
            return;
        }
        self.next = env.now + ASK_EVERY;
        match self.link {
            Some(link) if self.asked.front().is_some_and(|(_, at)| *at + GIVE_UP_AFTER < env.now) => {
                env.out.push(Effect::Close(link));
                self.lost();
            }
            Some(link) => self.ask(env, link),
            None if !self.connecting => {
                self.connecting = true;
                env.out.push(Effect::Connect { target: PeerName::Seed(0), address: self.server.into() });
            }
            None => {}
        }
    }

    fn link_changed(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up { link, opened: Some(_), .. } => {
                assert!(self.connecting && self.link.is_none());
                self.link = Some(link);
                self.connecting = false;
            }
            LinkEvent::Up { opened: None, .. } => panic!("nobody connects to a client"),
            LinkEvent::Down { link } => {
                assert_eq!(self.link, Some(link), "of a connection that is up, once");
                self.lost();
            }
            LinkEvent::Failed { .. } => {
                assert!(self.connecting);
                self.connecting = false;
            }
        }
        self.seen.lock().unwrap().links.push(event);
    }
}

impl Node for Pinger {
    fn handle(&mut self, env: &mut Env<'_>, input: Input) {
        match input {
            Input::Message { from, msg: Message::Reply(reply) } => {
                assert!(!self.ended.contains(&from), "nothing arrives behind the end");
                let (number, _) = self.asked.pop_front().expect("it was asked");
                assert_eq!(reply.id.number, number, "in order, without gaps");
                self.seen.lock().unwrap().replies.insert(number, reply.outcome);
            }
            Input::Link(event) => self.link_changed(event),
            Input::Tick => self.tick(env),
            other => panic!("unexpected {other:?}"),
        }
    }
    fn next_deadline(&self) -> Option<Time> {
        Some(self.next)
    }
    fn check(&self) {}
}

const PORT: u16 = 7000;

async fn serve() -> turmoil::Result {
    let listener = turmoil::net::TcpListener::bind(("0.0.0.0", PORT)).await?;
    let setup = Setup { identity: osd(1), listener: Some(listener), meta: None, seed: 1 };
    Driver::start(Echo::new(false), Simulated::new(), setup).ended().await?;
    Ok(())
}

fn simulation(seed: u64) -> turmoil::Sim<'static> {
    let mut builder = turmoil::Builder::new();
    builder.rng_seed(seed).simulation_duration(Wall::from_secs(600)).tick_duration(Wall::from_millis(1));
    let mut sim = builder.min_message_latency(Wall::from_millis(1)).max_message_latency(Wall::from_millis(8)).build();
    sim.host("server", serve);
    sim
}

/// A client in the simulation, and what it sees.
fn ping(sim: &mut turmoil::Sim<'static>) -> Arc<Mutex<Seen>> {
    let seen = Arc::<Mutex<Seen>>::default();
    let shared = Arc::clone(&seen);
    sim.host("client", move || {
        let pinger = Pinger::new(Arc::clone(&shared), "server:7000");
        async {
            let setup = Setup { identity: client(1), listener: None, meta: None, seed: 2 };
            Driver::start(pinger, Simulated::new(), setup).ended().await?;
            Ok(())
        }
    });
    seen
}

fn run_for(sim: &mut turmoil::Sim<'static>, time: Wall) {
    let end = sim.elapsed() + time;
    while sim.elapsed() < end {
        sim.step().unwrap();
    }
}

fn answered(seen: &Mutex<Seen>) -> usize {
    seen.lock().unwrap().replies.len()
}

fn ups(seen: &Mutex<Seen>) -> usize {
    seen.lock().unwrap().links.iter().filter(|event| matches!(event, LinkEvent::Up { .. })).count()
}

#[test]
fn requests_are_answered_on_one_connection() {
    let mut sim = simulation(1);
    let seen = ping(&mut sim);
    run_for(&mut sim, Wall::from_secs(3));
    assert!(answered(&seen) > 80, "{}", answered(&seen));
    assert_eq!(ups(&seen), 1);
    let replies = &seen.lock().unwrap().replies;
    assert!(replies.values().all(|reply| matches!(reply, Ok(Answer::Written { .. }))));
}

#[test]
fn held_packets_arrive_late_and_in_order() {
    let mut sim = simulation(2);
    let seen = ping(&mut sim);
    run_for(&mut sim, Wall::from_secs(1));
    sim.hold("client", "server");
    run_for(&mut sim, Wall::from_millis(500));
    let before = answered(&seen);
    sim.release("client", "server");
    run_for(&mut sim, Wall::from_secs(1));
    assert!(answered(&seen) > before + 40);
    assert_eq!(ups(&seen), 1, "half a second of silence ends nothing");
}

#[test]
fn a_partition_ends_and_another_connection_is_made() {
    let mut sim = simulation(3);
    let seen = ping(&mut sim);
    run_for(&mut sim, Wall::from_secs(1));
    sim.partition("client", "server");
    run_for(&mut sim, Wall::from_secs(12));
    let before = answered(&seen);
    let failed = |event: &LinkEvent| matches!(event, LinkEvent::Failed { .. });
    assert!(seen.lock().unwrap().links.iter().any(failed), "attempts fail meanwhile, and each is reported");
    sim.repair("client", "server");
    run_for(&mut sim, Wall::from_secs(8));
    assert!(answered(&seen) > before + 100);
    assert!(ups(&seen) >= 2);
}

#[test]
fn a_crashed_server_comes_back() {
    let mut sim = simulation(4);
    let seen = ping(&mut sim);
    run_for(&mut sim, Wall::from_secs(1));
    sim.crash("server");
    run_for(&mut sim, Wall::from_secs(5));
    let before = answered(&seen);
    sim.bounce("server");
    run_for(&mut sim, Wall::from_secs(10));
    assert!(answered(&seen) > before + 100);
    assert!(ups(&seen) >= 2);
}

/// Anything may happen for a while; the rules of links hold (the nodes check them), and at the end all is well.
#[test]
fn random_misfortune_keeps_the_rules_and_heals() {
    for seed in 0..12 {
        let mut sim = simulation(seed);
        let seen = ping(&mut sim);
        let mut rng = Rng::new(seed);
        for _ in 0..15 {
            run_for(&mut sim, Wall::from_millis(rng.between(10, 1500)));
            match rng.below(7) {
                0 => sim.hold("client", "server"),
                1 => sim.release("client", "server"),
                2 => sim.partition("client", "server"),
                3 => sim.partition_oneway("server", "client"),
                4 => sim.bounce("server"),
                5 => sim.bounce("client"),
                _ => sim.repair("client", "server"),
            }
        }
        sim.release("client", "server");
        sim.repair("client", "server");
        run_for(&mut sim, Wall::from_secs(12));
        let before = answered(&seen);
        run_for(&mut sim, Wall::from_secs(2));
        assert!(answered(&seen) > before + 40, "seed {seed}");
    }
}

/// Both ends open a connection at the same time: each sees both, its own and the other's.
#[test]
fn simultaneous_opens_make_two_connections() {
    let mut sim = turmoil::Builder::new().rng_seed(5).build();
    let mut seen = Vec::new();
    for (name, number, other) in [("left", 1, "right:7000"), ("right", 2, "left:7000")] {
        let shared = Arc::<Mutex<Seen>>::default();
        seen.push(Arc::clone(&shared));
        sim.host(name, move || {
            let mut node = Echo::new(false);
            node.seen = Arc::clone(&shared);
            node.connect = vec![(PeerName::Osd(OsdId(3 - number)), other.into())];
            async move {
                let listener = turmoil::net::TcpListener::bind(("0.0.0.0", PORT)).await?;
                let setup = Setup { identity: osd(number), listener: Some(listener), meta: None, seed: 1 };
                Driver::start(node, Simulated::new(), setup).ended().await?;
                Ok(())
            }
        });
    }
    run_for(&mut sim, Wall::from_secs(2));
    for (seen, other) in seen.iter().zip([OsdId(2), OsdId(1)]) {
        let links = &seen.lock().unwrap().links;
        let up = |event: &LinkEvent, was_opened: bool| matches!(event, LinkEvent::Up { peer: PeerId::Osd(osd, _), opened, .. } if *osd == other && opened.is_some() == was_opened);
        assert_eq!(links.len(), 2, "{links:?}");
        assert!(links.iter().any(|event| up(event, true)) && links.iter().any(|event| up(event, false)), "{links:?}");
    }
}

async fn real(node: Echo) -> (Driver<Echo>, Driver<Caller>) {
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.address().to_string();
    let setup = Setup { identity: osd(1), listener: Some(listener), meta: None, seed: 1 };
    let server = Driver::start(node, Tcp, setup);
    let setup = Setup { identity: client(1), listener: None, meta: None, seed: 2 };
    let caller = Driver::start(Caller::new(address), Tcp, setup);
    while caller.with(|caller, _| caller.link.is_none()) {
        tokio::time::sleep(Wall::from_millis(1)).await;
    }
    (server, caller)
}

#[tokio::test]
async fn death_stop_and_panic_end_a_driver() {
    let (server, caller) = real(Echo::new(false)).await;
    caller.with(|caller, env| caller.send(env, 1, 0, RequestOp::Delete { expect: None }));
    assert_eq!(server.ended().await, Err("asked to".into()));
    caller.stop();
    assert_eq!(caller.ended().await, Ok(()));
    // A node that asks for a disk is a bug, and the driver does not go on without it.
    let (server, caller) = real(Echo::new(true)).await;
    caller.with(|caller, env| caller.send(env, 1, 0, RequestOp::Read { offset: 0, len: 512 }));
    assert!(server.ended().await.unwrap_err().contains("panicked"));
    caller.stop();
}

#[tokio::test]
async fn calls_of_one_turn_share_a_write() {
    let (server, caller) = real(Echo::new(false)).await;
    for number in 0..100 {
        assert!(caller.with(|caller, env| caller.send(env, number, 0, RequestOp::Sync)));
    }
    let seen = caller.with(|caller, _| Arc::clone(&caller.seen));
    while answered(&seen) < 100 {
        tokio::time::sleep(Wall::from_millis(1)).await;
    }
    let writes = caller.counters().sends;
    assert!(writes < 10, "{writes}");
    server.stop();
    caller.stop();
}
