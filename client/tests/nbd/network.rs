//! The server on a simulated network that is cut, held and mended, with a server that dies and one that ends cleanly: each
//! request is answered once or its connection ends, reads hold what somebody wrote, and all is well again afterwards.

use crate::memory::{Memory, One};
use ashlar_client::nbd::Server;
use ashlar_core::rng::Rng;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use turmoil::net::{TcpListener, TcpStream};

const PORT: u16 = 10809;
const BLOCK: usize = 512;
const BLOCKS: usize = 8;
/// Requests of the client in flight.
const DEPTH: usize = 6;
/// A connection that is silent for so long is given up.
const PATIENCE: Duration = Duration::from_millis(800);

#[derive(Clone, Debug)]
enum Mishap {
    Cut,
    CutToServer,
    CutToClient,
    Hold,
    Mend,
    KillServer,
    KillClient,
    /// The server ends cleanly, and another begins.
    ShutDown,
    /// Operations of the disk take so many milliseconds.
    Slow(u64),
}

fn mishap() -> impl Strategy<Value = Mishap> {
    prop_oneof![
        Just(Mishap::Cut),
        Just(Mishap::CutToServer),
        Just(Mishap::CutToClient),
        Just(Mishap::Hold),
        Just(Mishap::Mend),
        Just(Mishap::Mend),
        Just(Mishap::KillServer),
        Just(Mishap::KillClient),
        Just(Mishap::ShutDown),
        (0..300u64).prop_map(Mishap::Slow),
    ]
}

/// What the client knows.
struct Knowledge {
    /// What each block may hold: what was written there last, and what was begun on connections that were given up, which
    /// may happen yet.
    blocks: Vec<BTreeSet<u64>>,
    /// The last write of each block that was answered.
    done: Vec<u64>,
    writes: u64,
    answers: u64,
    connections: u64,
}

#[derive(Clone, Copy)]
enum Asked {
    Write { block: usize, tag: u64 },
    Read { block: usize },
    Flush,
}

type Known = Arc<Mutex<Knowledge>>;

fn block_of(tag: u64) -> Vec<u8> {
    tag.to_be_bytes().repeat(BLOCK / 8)
}

impl Knowledge {
    fn new() -> Self {
        Knowledge {
            blocks: vec![BTreeSet::from([0]); BLOCKS],
            done: vec![0; BLOCKS],
            writes: 0,
            answers: 0,
            connections: 0,
        }
    }

    /// Something to ask of a block of which nothing else is in flight.
    fn begin(&mut self, rng: &mut Rng, open: &BTreeMap<u64, Asked>) -> Asked {
        let is_free = |block: &usize| {
            !open.values().any(|asked| match asked {
                Asked::Write { block: other, .. } | Asked::Read { block: other } => other == block,
                Asked::Flush => false,
            })
        };
        let free: Vec<usize> = (0..BLOCKS).filter(is_free).collect();
        let block = free[usize::try_from(rng.below(free.len() as u64)).expect("few")];
        match rng.below(8) {
            0..4 => {
                self.writes += 1;
                self.blocks[block].insert(self.writes);
                Asked::Write { block, tag: self.writes }
            }
            4..7 => Asked::Read { block },
            _ => Asked::Flush,
        }
    }

    /// A write is done: what was done before is gone.
    fn written(&mut self, block: usize, tag: u64) {
        let before = std::mem::replace(&mut self.done[block], tag);
        self.blocks[block].remove(&before);
    }

    fn read(&self, block: usize, bytes: &[u8]) {
        let tag = u64::from_be_bytes(*bytes.first_chunk().expect("a block"));
        assert_eq!(bytes, block_of(tag), "a block is whole");
        let possible = &self.blocks[block];
        assert!(possible.contains(&tag), "block {block} holds {tag}, possible is {possible:?}");
    }
}

async fn ask(stream: &mut (impl AsyncWrite + Unpin), cookie: u64, asked: Asked) -> io::Result<()> {
    let (command, block, data) = match asked {
        Asked::Read { block } => (0u16, block, vec![]),
        Asked::Write { block, tag } => (1, block, block_of(tag)),
        Asked::Flush => (3, 0, vec![]),
    };
    let len = if command == 3 { 0u32 } else { BLOCK as u32 };
    let head = [&0x2560_9513u32.to_be_bytes()[..], &[0, 0], &command.to_be_bytes(), &cookie.to_be_bytes()].concat();
    let offset = (block * BLOCK) as u64;
    stream.write_all(&[&head[..], &offset.to_be_bytes(), &len.to_be_bytes(), &data].concat()).await
}

/// Takes one answer.
async fn answer(
    stream: &mut (impl AsyncRead + Unpin),
    open: &mut BTreeMap<u64, Asked>,
    known: &Known,
) -> io::Result<()> {
    let mut head = [0; 16];
    stream.read_exact(&mut head).await?;
    let word = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("four bytes"));
    assert_eq!((word(0), word(4)), (0x6744_6698, 0), "an answer without an error");
    let cookie = u64::from_be_bytes(head[8..].try_into().expect("eight bytes"));
    let asked = open.remove(&cookie).expect("each request is answered once");
    let mut bytes = vec![0; if matches!(asked, Asked::Read { .. }) { BLOCK } else { 0 }];
    stream.read_exact(&mut bytes).await?;
    let mut known = known.lock().expect("no panic");
    known.answers += 1;
    match asked {
        Asked::Write { block, tag } => known.written(block, tag),
        Asked::Read { block } => known.read(block, &bytes),
        Asked::Flush => {}
    }
    Ok(())
}

async fn greet(stream: &mut TcpStream) -> io::Result<()> {
    stream.read_exact(&mut [0; 18]).await?;
    let hello = [&3u32.to_be_bytes()[..], b"IHAVEOPT", &1u32.to_be_bytes(), &4u32.to_be_bytes(), b"demo"].concat();
    stream.write_all(&hello).await?;
    stream.read_exact(&mut [0; 10]).await.map(drop)
}

/// One connection, for as long as it works.
async fn converse(known: &Known, rng: &mut Rng) -> io::Result<()> {
    let patient = |_| io::Error::from(io::ErrorKind::TimedOut);
    let connect = async {
        let mut stream = TcpStream::connect(("server", PORT)).await?;
        greet(&mut stream).await?;
        io::Result::Ok(stream)
    };
    let mut stream = tokio::time::timeout(PATIENCE, connect).await.map_err(patient)??;
    known.lock().expect("no panic").connections += 1;
    let (mut open, mut cookie) = (BTreeMap::new(), 0);
    loop {
        while open.len() < DEPTH {
            cookie += 1;
            let asked = known.lock().expect("no panic").begin(rng, &open);
            open.insert(cookie, asked);
            ask(&mut stream, cookie, asked).await?;
        }
        let answered = tokio::time::timeout(PATIENCE, answer(&mut stream, &mut open, known)).await.map_err(patient)?;
        answered?;
        tokio::time::sleep(Duration::from_millis(rng.below(10))).await;
    }
}

async fn client(known: Known, seed: u64) -> turmoil::Result {
    let mut rng = Rng::new(seed);
    loop {
        // It ends in all kinds of ways.
        let _ = converse(&known, &mut rng).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

/// A server, and another when it is told to end.
async fn serve(disk: Memory, ends: Arc<tokio::sync::Notify>) -> turmoil::Result {
    let listener = Arc::new(TcpListener::bind(("0.0.0.0", PORT)).await?);
    loop {
        let mut server = Server::new(One(disk.clone()));
        let listener = Arc::clone(&listener);
        server.serve(move || {
            let listener = Arc::clone(&listener);
            async move { Ok(listener.accept().await?.0) }
        });
        ends.notified().await;
        server.shut_down().await;
    }
}

/// How many connections it took.
fn run(seed: u64, schedule: &[(u64, Mishap)]) -> u64 {
    let (disk, known, ends): (_, Known, _) = (
        Memory::new((BLOCKS * BLOCK) as u64),
        Arc::new(Mutex::new(Knowledge::new())),
        Arc::<tokio::sync::Notify>::default(),
    );
    let mut builder = turmoil::Builder::new();
    builder.rng_seed(seed).simulation_duration(Duration::from_secs(600)).tick_duration(Duration::from_millis(2));
    let mut sim =
        builder.min_message_latency(Duration::from_millis(1)).max_message_latency(Duration::from_millis(12)).build();
    let (shared, order) = (disk.clone(), Arc::clone(&ends));
    sim.host("server", move || serve(shared.clone(), Arc::clone(&order)));
    let (shared, starts) = (Arc::clone(&known), std::sync::atomic::AtomicU64::new(seed));
    sim.host("client", move || client(Arc::clone(&shared), starts.fetch_add(1, std::sync::atomic::Ordering::Relaxed)));
    let run_for = |sim: &mut turmoil::Sim<'_>, millis: u64| {
        let end = sim.elapsed() + Duration::from_millis(millis);
        while sim.elapsed() < end {
            sim.step().expect("no host fails");
        }
    };
    for (before, mishap) in schedule {
        run_for(&mut sim, *before);
        match mishap {
            Mishap::Cut => sim.partition("client", "server"),
            Mishap::CutToServer => sim.partition_oneway("client", "server"),
            Mishap::CutToClient => sim.partition_oneway("server", "client"),
            Mishap::Hold => sim.hold("client", "server"),
            Mishap::Mend => mend(&sim),
            Mishap::KillServer => sim.bounce("server"),
            Mishap::KillClient => sim.bounce("client"),
            Mishap::ShutDown => ends.notify_one(),
            Mishap::Slow(millis) => *disk.delay.lock().expect("no panic") = Duration::from_millis(*millis),
        }
    }
    mend(&sim);
    *disk.delay.lock().expect("no panic") = Duration::ZERO;
    // A clean end waits for clients that were cut off, for its grace.
    run_for(&mut sim, 14_000);
    let before = known.lock().expect("no panic").answers;
    run_for(&mut sim, 1_000);
    let known = known.lock().expect("no panic");
    assert!(known.answers > before + 20, "{} answers in a second", known.answers - before);
    known.connections
}

fn mend(sim: &turmoil::Sim<'_>) {
    sim.release("client", "server");
    sim.repair("client", "server");
}

fn any_schedule(cases: u32, mut runner: TestRunner, longest: usize) {
    let schedules = (any::<u64>(), vec((10..1200u64, mishap()), 0..longest));
    let connections = Cell::new(0);
    let outcome = runner.run(&schedules, |(seed, schedule)| {
        connections.set(connections.get() + run(seed, &schedule));
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    assert!(connections.get() > 2 * u64::from(cases), "{} connections: nothing happened", connections.get());
}

fn config(cases: u32) -> Config {
    Config { cases, failure_persistence: None, max_shrink_iters: 100, ..Config::default() }
}

#[test]
fn a_bad_network_loses_connections_and_nothing_else() {
    // The same schedules each time: that enough happens in them is known.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    any_schedule(8, TestRunner::new_with_rng(config(8), rng), 12);
}

#[test]
#[ignore = "minutes: the same with many fresh schedules"]
fn a_bad_network_loses_connections_and_nothing_else_at_length() {
    any_schedule(400, TestRunner::new(config(400)), 30);
}
