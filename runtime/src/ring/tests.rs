//! The loop with real sockets and files.

use super::*;
use crate::driver::{self, Driver, Tcp};
use crate::testing::{Caller, Echo, OBJECT_BYTES, Seen, client, osd, pattern};
use ashlar_core::id::{ClusterUuid, OsdId};
use ashlar_core::io::{DiskDone, DiskOp, PeerId};
use ashlar_core::msg::{Answer, RequestOp};
use ashlar_core::store::Data;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration as Wall, Instant};

/// A loop on a thread, with a file that goes when it ends.
struct Server {
    thread: Option<JoinHandle<(Ending, Counters)>>,
    stopper: Stopper,
    address: String,
    path: PathBuf,
    seen: Arc<Mutex<Seen>>,
}

impl Server {
    fn start(directory: &str, node: Echo) -> Server {
        Server::start_as(directory, node, osd(1))
    }

    fn start_as(directory: &str, node: Echo, identity: Identity) -> Server {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(directory).join(format!("ashlar-ring-{}-{number}", std::process::id()));
        DeviceFile::create(&path, 16 * OBJECT_BYTES).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::clone(&node.seen);
        let (sender, receiver) = std::sync::mpsc::channel();
        let device = path.clone();
        let thread = std::thread::spawn(move || {
            let data = DeviceFile::open(&device).unwrap();
            let setup = Setup { identity, listener, data, log: None, meta: None, seed: 1, yields: true };
            let mut ring = Loop::new(setup, |_| node).unwrap();
            sender.send(ring.stopper()).unwrap();
            let ending = ring.run().unwrap();
            (ending, ring.counters())
        });
        let stopper = receiver.recv().unwrap();
        Server { thread: Some(thread), stopper, address, path, seen }
    }

    fn stop(mut self) -> (Ending, Counters) {
        self.stopper.stop();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().0.unwrap();
        }
        std::fs::remove_file(&self.path).unwrap();
    }
}

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Wall::from_secs(20), "waited too long until {what}");
        tokio::time::sleep(Wall::from_millis(2)).await;
    }
}

async fn call(server: &Server, identity: Identity) -> Driver<Caller> {
    let caller = Caller::new(server.address.clone());
    let driver = Driver::start(caller, Tcp, driver::Setup { identity, listener: None, meta: None, seed: 2 });
    until("connected", || driver.with(|caller, _| caller.link.is_some())).await;
    driver
}

fn send(driver: &Driver<Caller>, number: u64, stripe: u64, op: RequestOp) {
    assert!(driver.with(|caller, env| caller.send(env, number, stripe, op)));
}

fn write(driver: &Driver<Caller>, number: u64, stripe: u64, offset: u32, bytes: &[u8]) {
    driver.with(|caller, env| {
        let data = Data::new(env.bufs.copy_of(bytes));
        assert!(caller.send(env, number, stripe, RequestOp::Write { offset, data, expect: None }));
    });
}

async fn replies(driver: &Driver<Caller>, count: usize) {
    let seen = driver.with(|caller, _| Arc::clone(&caller.seen));
    until("all replies are there", || seen.lock().unwrap().replies.len() == count).await;
}

fn read_of(driver: &Driver<Caller>, number: u64) -> Vec<u8> {
    let seen = driver.with(|caller, _| Arc::clone(&caller.seen));
    match &seen.lock().unwrap().replies[&number] {
        Ok(Answer::Read { data, .. }) => data.buf.bytes().to_vec(),
        other => panic!("{other:?}"),
    }
}

/// Sizes around the limits of copying and of straight receives.
const SIZES: [u32; 9] = [512, 1024, 4096, 8192, 28 << 10, 32 << 10, 36 << 10, 128 << 10, 1 << 20];

async fn writes_come_back(directory: &str) -> Counters {
    let server = Server::start(directory, Echo::new(true));
    let driver = call(&server, client(1)).await;
    // Whole units: a device's blocks.
    let whole = |size: u32| size.max(4096);
    for (number, size) in (0..).zip(SIZES) {
        write(&driver, number, number, 0, &pattern(number, whole(size)));
    }
    replies(&driver, SIZES.len()).await;
    for (number, size) in (0..).zip(SIZES) {
        send(&driver, 100 + number, number, RequestOp::Read { offset: 0, len: whole(size) });
    }
    send(&driver, 200, 0, RequestOp::Sync);
    replies(&driver, 2 * SIZES.len() + 1).await;
    for (number, size) in (0..).zip(SIZES) {
        assert_eq!(read_of(&driver, 100 + number), pattern(number, whole(size)), "of {size} bytes");
    }
    driver.stop();
    let (ending, counters) = server.stop();
    assert_eq!(ending, Ok(()));
    counters
}

#[tokio::test]
async fn writes_come_back_from_a_file() {
    let counters = writes_come_back(&std::env::temp_dir().to_string_lossy()).await;
    assert_eq!((counters.disk_writes, counters.disk_reads, counters.disk_flushes), (9, 9, 1));
    assert_eq!((counters.messages_in, counters.messages_out), (19, 19));
}

#[tokio::test]
async fn writes_come_back_from_memory() {
    let counters = writes_come_back("/dev/shm").await;
    assert_eq!((counters.disk_writes, counters.disk_reads, counters.disk_flushes), (9, 9, 1));
}

#[tokio::test]
async fn many_requests_at_once_share_enters_and_sends() {
    let server = Server::start("/dev/shm", Echo::new(true));
    let driver = call(&server, client(1)).await;
    for round in 0..20 {
        for number in 0..100 {
            write(&driver, round * 100 + number, number % 8, 4096, &pattern(number, 4096));
        }
        replies(&driver, usize::try_from((round + 1) * 100).unwrap()).await;
    }
    driver.stop();
    let (_, counters) = server.stop();
    assert_eq!(counters.messages_out, 2000);
    assert!(counters.sends < 1000, "{counters:?}");
    assert!(counters.enters < 1500, "{counters:?}");
}

#[tokio::test]
async fn an_idle_loop_uses_no_cpu() {
    let server = Server::start("/dev/shm", Echo::new(true));
    let driver = call(&server, client(1)).await;
    write(&driver, 1, 0, 0, &pattern(0, 4096));
    replies(&driver, 1).await;
    tokio::time::sleep(Wall::from_secs(1)).await;
    driver.stop();
    let (_, counters) = server.stop();
    assert!(counters.rounds < 40, "{counters:?}");
    assert!(counters.cpu_ns < 50_000_000, "{counters:?}");
}

#[tokio::test]
async fn attempts_to_connect_end_as_they_should() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let good = Server::start("/dev/shm", Echo::new(false));
    let foreign = Identity { cluster: Some(ClusterUuid(7)), ..osd(3) };
    let other_cluster = Server::start_as("/dev/shm", Echo::new(false), foreign);
    let mut node = Echo::new(false);
    node.connect = vec![
        (PeerName::Osd(OsdId(1)), good.address.clone()),
        (PeerName::Osd(OsdId(2)), closed),
        (PeerName::Osd(OsdId(3)), other_cluster.address.clone()),
        (PeerName::Osd(OsdId(4)), good.address.clone()),
        (PeerName::Osd(OsdId(5)), "no-such-host.invalid:1".into()),
        (PeerName::Osd(OsdId(6)), good.address.replace("127.0.0.1", "localhost")),
    ];
    let server = Server::start_as("/dev/shm", node, osd(9));
    until("all attempts have ended", || server.seen.lock().unwrap().links.len() >= 6).await;
    let links = std::mem::take(&mut server.seen.lock().unwrap().links);
    let failed = |number, refused| LinkEvent::Failed { target: PeerName::Osd(OsdId(number)), refused };
    assert!(links.contains(&failed(2, true)), "nobody listens: {links:?}");
    assert!(links.contains(&failed(3, false)), "another cluster: {links:?}");
    assert!(links.contains(&failed(4, true)), "another OSD listens there: {links:?}");
    assert!(links.contains(&failed(5, false)), "no such host: {links:?}");
    assert!(links.contains(&failed(6, true)), "a name was looked up, and another OSD is there: {links:?}");
    let is_good = |event: &LinkEvent| matches!(event, LinkEvent::Up { peer: PeerId::Osd(OsdId(1), _), .. });
    assert!(links.iter().any(is_good), "{links:?}");
}

#[tokio::test]
async fn what_was_answered_before_a_close_arrives() {
    let server = Server::start("/dev/shm", Echo::new(false));
    let driver = call(&server, client(1)).await;
    driver.with(|caller, env| {
        for number in 0..10 {
            caller.send(env, number, 0, RequestOp::Read { offset: 0, len: 64 << 10 });
        }
        caller.send(env, 10, 0, RequestOp::Zero { offset: 0, len: 512 });
        caller.send(env, 11, 0, RequestOp::Read { offset: 0, len: 512 });
    });
    replies(&driver, 11).await;
    let seen = driver.with(|caller, _| Arc::clone(&caller.seen));
    until("it connects again", || seen.lock().unwrap().links.len() >= 3).await;
    assert_eq!(server.seen.lock().unwrap().requests, 11, "nothing is delivered after a close");
    let downs = server.seen.lock().unwrap().links.iter().filter(|e| matches!(e, LinkEvent::Down { .. })).count();
    assert_eq!(downs, 0, "a close is not reported to who asked for it");
    driver.stop();
}

#[tokio::test]
async fn death_ends_the_loop() {
    let server = Server::start("/dev/shm", Echo::new(false));
    let driver = call(&server, client(1)).await;
    send(&driver, 1, 0, RequestOp::Delete { expect: None });
    let mut server = server;
    let thread = server.thread.take().unwrap();
    until("the loop has ended", || thread.is_finished()).await;
    assert_eq!(thread.join().unwrap().0, Err("asked to".into()));
    driver.stop();
}

/// A peer that asks and never reads: the server stops reading from it, keeps serving others, and goes on when the peer
/// reads.
#[tokio::test]
async fn a_peer_that_does_not_read_is_not_served_without_limit() {
    let server = Server::start("/dev/shm", Echo::new(false));
    let mut deaf = raw_client(&server.address);
    let request = encoded_read(64 << 10);
    let (mut sent, mut stuck_since) = (0, Instant::now());
    deaf.set_nonblocking(true).unwrap();
    while stuck_since.elapsed() < Wall::from_millis(700) {
        match deaf.write(&request[sent % request.len()..]) {
            Ok(count) => (sent, stuck_since) = (sent + count, Instant::now()),
            Err(_) => tokio::time::sleep(Wall::from_millis(1)).await,
        }
    }
    let asked = u64::try_from(sent / request.len()).unwrap();
    let served = server.seen.lock().unwrap().requests;
    assert!(served < 4000 && asked > served + 1000, "{served} served of {asked}");
    let driver = call(&server, client(1)).await;
    send(&driver, 1, 0, RequestOp::Read { offset: 0, len: 4096 });
    replies(&driver, 1).await;
    driver.stop();
    deaf.set_nonblocking(false).unwrap();
    let all_served = served * (64 << 10) + (1 << 20);
    std::io::copy(&mut deaf.try_clone().unwrap().take(all_served), &mut std::io::sink()).unwrap();
    assert!(server.seen.lock().unwrap().requests > served, "it goes on when the peer reads");
    drop(deaf);
}

fn raw_client(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let (_, hello) = ashlar_core::wire::handshake::Handshake::open(client(77), PeerName::Seed(0));
    stream.write_all(&hello).unwrap();
    let mut answer = [0; ashlar_core::wire::handshake::HELLO_BYTES];
    stream.read_exact(&mut answer).unwrap();
    stream
}

fn encoded_read(len: u32) -> Vec<u8> {
    let id = ashlar_core::id::RequestId::default();
    let (object, epoch) = (Default::default(), ashlar_core::id::Epoch(1));
    let op = RequestOp::Read { offset: 0, len };
    let request = ashlar_core::msg::Request {
        id,
        seen: 0,
        object,
        generation: 0,
        epoch,
        class: Default::default(),
        tenant: 0,
        op,
    };
    let mut bytes = Vec::new();
    ashlar_core::wire::encode(&ashlar_core::msg::Message::Request(request), &mut bytes);
    bytes
}

/// Strangers, half messages, garbage behind a good greeting, cuts: none of it disturbs a good client.
#[tokio::test]
async fn chaos_on_connections_disturbs_nobody_else() {
    let server = Server::start("/dev/shm", Echo::new(true));
    let driver = call(&server, client(1)).await;
    let mut rng = Rng::new(11);
    let mut open = Vec::new();
    for number in 0..300 {
        write(&driver, number, number % 8, 0, &pattern(number, 4096));
        match rng.below(5) {
            0 => TcpStream::connect(&server.address).unwrap().write_all(&pattern(number, 300)).unwrap(),
            1 => open.push(TcpStream::connect(&server.address).unwrap()),
            2 => raw_client(&server.address).write_all(&encoded_read(4096)[..40]).unwrap(),
            3 => raw_client(&server.address).write_all(&pattern(number, 100)).unwrap(),
            _ => {
                let mut stream = raw_client(&server.address);
                stream.write_all(&encoded_read(1 << 20)).unwrap();
                open.push(stream);
            }
        }
        if open.len() > 20 {
            open.remove(usize::try_from(rng.below(20)).unwrap());
        }
    }
    replies(&driver, 300).await;
    drop(open);
    let counts = || {
        let seen = server.seen.lock().unwrap();
        let ups = seen.links.iter().filter(|event| matches!(event, LinkEvent::Up { .. })).count();
        (ups, seen.links.len() - ups)
    };
    until("all but one have ended", || counts().0 == counts().1 + 1).await;
    driver.stop();
}

/// The same script on a device behind the ring and in memory gives what a disk gives.
fn script_of_disk_requests() -> (Vec<DiskOp>, Vec<DiskDone>) {
    let (device, mut bufs) = (Device::Data, BufPool::new());
    let (a, b) = (bufs.copy_of(&pattern(1, 128 << 10)), bufs.copy_of(&pattern(2, 4096)));
    let end = 16 * OBJECT_BYTES;
    let mut patched = pattern(1, 128 << 10);
    patched[8192..12288].copy_from_slice(b.bytes());
    let mut holed = patched.clone();
    holed[4096..8192].fill(0);
    let done = || DiskDone::Done(Ok(()));
    let mut read = |bytes: &[u8]| DiskDone::Read(Ok(bufs.copy_of(bytes)));
    let steps = vec![
        (DiskOp::Read { device, offset: 0, len: 4096 }, read(&[0; 4096])),
        (DiskOp::Write { device, offset: 1 << 20, data: a.clone() }, done()),
        (DiskOp::Write { device, offset: (1 << 20) + 8192, data: b.clone() }, done()),
        (DiskOp::Flush { device }, done()),
        (DiskOp::Read { device, offset: 1 << 20, len: 128 << 10 }, read(&patched)),
        (DiskOp::Discard { device, offset: (1 << 20) + 4096, len: 4096 }, done()),
        (DiskOp::Read { device, offset: 1 << 20, len: 128 << 10 }, read(&holed)),
        (DiskOp::Write { device, offset: end - 4096, data: b.slice(0, 4096) }, done()),
        (DiskOp::Read { device, offset: end - 4096, len: 4096 }, read(b.bytes())),
        // Memory that is not aligned to the device's blocks.
        (DiskOp::Write { device, offset: 8192, data: a.slice(512, 4096) }, done()),
        (DiskOp::Read { device, offset: 8192, len: 4096 }, read(&a.bytes()[512..512 + 4096])),
    ];
    steps.into_iter().unzip()
}

async fn conforms(directory: &str) {
    let (script, expected) = script_of_disk_requests();
    let mut node = Echo::new(true);
    node.script = script;
    let server = Server::start(directory, node);
    until("the script is done", || server.seen.lock().unwrap().disk.len() == expected.len()).await;
    for (step, (done, expected)) in server.seen.lock().unwrap().disk.iter().zip(&expected).enumerate() {
        assert_eq!(done, expected, "step {step} in {directory}");
    }
}

#[tokio::test]
async fn a_file_behaves_like_a_disk() {
    conforms(&std::env::temp_dir().to_string_lossy()).await;
}

#[tokio::test]
async fn a_file_in_memory_behaves_like_a_disk() {
    conforms("/dev/shm").await;
}
