//! A client that speaks bytes: what tools do not do, and what no client should do.

use crate::memory::{Memory, One};
use ashlar_client::OpError;
use ashlar_client::nbd::Server;
use ashlar_core::rng::Rng;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const READ: u16 = 0;
const WRITE: u16 = 1;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const ZEROES: u16 = 6;

struct Raw {
    stream: TcpStream,
}

impl Raw {
    /// Negotiates by EXPORT_NAME, so replies are simple.
    async fn connect(address: SocketAddr) -> Raw {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
        let hello = [&3u32.to_be_bytes()[..], b"IHAVEOPT", &1u32.to_be_bytes(), &4u32.to_be_bytes(), b"demo"].concat();
        stream.write_all(&hello).await.unwrap();
        let mut export = [0; 10];
        stream.read_exact(&mut export).await.unwrap();
        Raw { stream }
    }

    async fn send(&mut self, command: u16, flags: u16, cookie: u64, offset: u64, len: u32, data: &[u8]) {
        let head = [&0x2560_9513u32.to_be_bytes()[..], &flags.to_be_bytes(), &command.to_be_bytes()].concat();
        let rest = [&cookie.to_be_bytes()[..], &offset.to_be_bytes(), &len.to_be_bytes(), data].concat();
        self.stream.write_all(&[head, rest].concat()).await.unwrap();
    }

    /// Error and cookie of the next reply.
    async fn reply(&mut self) -> (u32, u64) {
        let mut head = [0; 16];
        self.stream.read_exact(&mut head).await.unwrap();
        assert_eq!(head[..4], 0x6744_6698u32.to_be_bytes());
        (u32::from_be_bytes(head[4..8].try_into().unwrap()), u64::from_be_bytes(head[8..].try_into().unwrap()))
    }

    async fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).await.unwrap();
        bytes
    }
}

async fn serve(disk: &Memory) -> (Server<One>, SocketAddr) {
    let mut server = Server::new(One(disk.clone()));
    let address = server.listen_tcp("127.0.0.1:0").await.unwrap();
    (server, address)
}

#[tokio::test]
async fn every_error_has_its_number() {
    const SIZE: u64 = 1 << 20;
    let mut disk = Memory::new(SIZE);
    let (_server, address) = serve(&disk).await;
    let mut raw = Raw::connect(address).await;
    let cases: [(u16, u16, u64, u32, u32); 10] = [
        (WRITE, 0, SIZE - 1, 2, 28),
        (READ, 0, SIZE - 1, 2, 22),
        (READ, 0, u64::MAX, 2, 22),
        (READ, 0, 0, (32 << 20) + 1, 22),
        (TRIM, 0, SIZE, 512, 22),
        (ZEROES, 0, SIZE, 512, 28),
        (ZEROES, 1 << 4, 1, 512, 95),
        (ZEROES, 1 << 4, 512, 512, 0),
        (99, 0, 0, 0, 22),
        (FLUSH, 1 << 9, 0, 0, 22),
    ];
    for (place, (command, flags, offset, len, error)) in (0..).zip(cases) {
        let data = vec![1; if command == WRITE { len as usize } else { 0 }];
        raw.send(command, flags, place, offset, len, &data).await;
        assert_eq!(raw.reply().await, (error, place), "case {place}");
    }
    for (error, number) in [(OpError::NoSpace, 28), (OpError::Damaged, 5), (OpError::Fenced, 108)] {
        *disk.error.lock().unwrap() = Some(error);
        raw.send(WRITE, 0, 7, 0, 4, b"data").await;
        assert_eq!(raw.reply().await, (number, 7));
    }
    disk.read_only = true;
    let (_server, address) = serve(&disk).await;
    let mut raw = Raw::connect(address).await;
    raw.send(WRITE, 0, 8, 0, 4, b"data").await;
    assert_eq!(raw.reply().await, (1, 8));
}

#[tokio::test]
async fn many_requests_in_flight_are_answered_in_any_order() {
    let disk = Memory::new(1 << 20);
    let (_server, address) = serve(&disk).await;
    let mut raw = Raw::connect(address).await;
    for cookie in 0..2000u64 {
        let value = u8::try_from(cookie % 251).unwrap();
        raw.send(WRITE, 0, cookie, cookie * 500, 500, &[value; 500]).await;
    }
    let mut cookies = Vec::new();
    for _ in 0..2000 {
        let (error, cookie) = raw.reply().await;
        assert_eq!(error, 0);
        cookies.push(cookie);
    }
    assert!(!cookies.is_sorted(), "the disk completes out of order, and so should the server");
    assert_eq!(cookies.iter().collect::<BTreeSet<_>>().len(), 2000);
    raw.send(READ, 0, 1, 0, 1_000_000, &[]).await;
    assert_eq!(raw.reply().await, (0, 1));
    let bytes = raw.bytes(1_000_000).await;
    assert!(bytes.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at / 500 % 251));
}

#[tokio::test]
async fn fua_and_flush_reach_the_disk() {
    let disk = Memory::new(1 << 20);
    let (_server, address) = serve(&disk).await;
    let mut raw = Raw::connect(address).await;
    let flushes = || disk.flushes.load(std::sync::atomic::Ordering::SeqCst);
    raw.send(WRITE, 0, 1, 0, 512, &[1; 512]).await;
    raw.reply().await;
    assert_eq!(flushes(), 0);
    raw.send(WRITE, 1, 2, 0, 300_000, &vec![1; 300_000]).await;
    raw.reply().await;
    assert_eq!(flushes(), 1);
    raw.send(FLUSH, 0, 3, 0, 0, &[]).await;
    raw.reply().await;
    assert_eq!(flushes(), 2);
    assert_eq!(disk.bytes()[..300_000], vec![1; 300_000]);
}

#[tokio::test]
async fn a_shutdown_finishes_what_is_in_flight() {
    let disk = Memory::new(1 << 20);
    *disk.delay.lock().unwrap() = Duration::from_millis(300);
    let (server, address) = serve(&disk).await;
    let mut raw = Raw::connect(address).await;
    for cookie in 0..10 {
        raw.send(WRITE, 0, cookie, cookie * 512, 512, &[9; 512]).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    let (_, replies) = tokio::join!(server.shut_down(), async {
        let mut replies = Vec::new();
        for _ in 0..10 {
            replies.push(raw.reply().await);
        }
        assert_eq!(raw.stream.read(&mut [0]).await.unwrap(), 0);
        replies
    });
    assert!(replies.iter().all(|(error, _)| *error == 0));
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_being_read() {
    let disk = Memory::new(64 << 20);
    let (_server, address) = serve(&disk).await;
    let mut raw = Raw::connect(address).await;
    // 320 GB would come back.
    let flood = async {
        for cookie in 0..10_000 {
            raw.send(READ, 0, cookie, 0, 32 << 20, &[]).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    // The requests may fit into the sockets' buffers, or not.
    let _ = tokio::time::timeout(Duration::from_secs(2), flood).await;
    let begun = disk.operations.load(std::sync::atomic::Ordering::Relaxed);
    assert!((1..=8).contains(&begun), "{begun} reads of 32 MiB were begun");
    let mut other = Raw::connect(address).await;
    other.send(READ, 0, 5, 0, 16, &[]).await;
    assert_eq!(other.reply().await, (0, 5));
}

/// Bytes from a seed: half of them nearly an NBD stream.
fn random_stream(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    if rng.chance(3, 4) {
        bytes.extend([0, 0, 0, 3]);
        bytes.extend(b"IHAVEOPT\0\0\0\x01\0\0\0\x04demo");
    }
    for _ in 0..rng.below(20) {
        if rng.chance(3, 4) {
            bytes.extend(0x2560_9513u32.to_be_bytes());
            let command = u16::try_from(rng.below(9)).unwrap();
            bytes.extend(u16::try_from(rng.below(32)).unwrap().to_be_bytes());
            bytes.extend(command.to_be_bytes());
            bytes.extend(rng.next_u64().to_be_bytes());
            bytes.extend((rng.below(1 << 21)).to_be_bytes());
            let most = 1 << rng.below(27);
            bytes.extend(u32::try_from(rng.below(most)).unwrap().to_be_bytes());
        }
        bytes.extend((0..rng.below(200)).map(|_| u8::try_from(rng.below(256)).unwrap()));
    }
    bytes
}

#[tokio::test]
async fn no_bytes_of_a_stranger_hurt_the_server() {
    let disk = Memory::new(1 << 20);
    let (server, address) = serve(&disk).await;
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let mut stream = TcpStream::connect(address).await.unwrap();
        let bytes = random_stream(&mut rng);
        let (mut reading, mut writing) = stream.split();
        let send = async {
            // The server may have closed already.
            let _ = writing.write_all(&bytes).await;
            let _ = writing.shutdown().await;
        };
        let receive = async {
            let mut sink = Vec::new();
            let _ = reading.read_to_end(&mut sink).await;
        };
        let both = async { tokio::join!(send, receive) };
        assert!(tokio::time::timeout(Duration::from_secs(10), both).await.is_ok(), "seed {seed} hangs");
    }
    let mut raw = Raw::connect(address).await;
    raw.send(READ, 0, 5, 0, 16, &[]).await;
    assert_eq!(raw.reply().await, (0, 5));
    drop(raw);
    server.shut_down().await;
}
