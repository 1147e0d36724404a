//! Whatever an NBD client asks for, in pieces of any size: the server does not panic, answers each request once, and its
//! reads and refusals are those of a plain array of bytes.
#![no_main]

#[path = "../../client/tests/nbd/memory.rs"]
#[allow(dead_code)]
mod memory;

use ashlar_client::nbd::Server;
use libfuzzer_sys::fuzz_target;
use memory::{Memory, One};
use std::future::pending;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

/// Larger than two objects; no multiple of a sector.
const SIZE: u64 = (300 << 10) + 100;
/// What a connection may hold between the two.
const PIPE_BYTES: usize = 1 << 20;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const ENOTSUP: u32 = 95;

/// One of a client's requests.
struct Asked {
    command: u16,
    flags: u16,
    offset: u64,
    len: u32,
    fill: u8,
}

impl Asked {
    /// Of eight bytes: kind, flags, offset in units of 100 or at the end, length in units of 100.
    fn of(deed: &[u8; 8]) -> Asked {
        let command = [0, 1, 1, 3, 4, 6, 7, 9][usize::from(deed[0] % 8)];
        let near_end = deed[0] & 0x80 != 0;
        let offset = u64::from(u16::from_le_bytes([deed[2], deed[3]])) * 8;
        Asked {
            command,
            flags: u16::from(deed[1] & 0x1f),
            offset: if near_end { SIZE.wrapping_add(offset).wrapping_sub(4096) } else { offset },
            len: u32::from(u16::from_le_bytes([deed[4], deed[5]])),
            fill: deed[6],
        }
    }

    fn bytes(&self, cookie: u64) -> Vec<u8> {
        let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
        bytes.extend(self.flags.to_be_bytes());
        bytes.extend(self.command.to_be_bytes());
        bytes.extend(cookie.to_be_bytes());
        bytes.extend(self.offset.to_be_bytes());
        bytes.extend(self.len.to_be_bytes());
        if self.command == 1 {
            bytes.resize(bytes.len() + self.len as usize, self.fill);
        }
        bytes
    }

    /// The error that it must get; by the NBD specification, and by what our server knows.
    fn refusal(&self) -> Option<u32> {
        let known = match self.command {
            0 => 0b101,
            1 | 3 | 4 => 0b1,
            6 => 0b1_0011,
            _ => return Some(EINVAL),
        };
        let outside = self.offset.checked_add(self.len.into()).is_none_or(|end| end > SIZE);
        let on_sectors = self.offset.is_multiple_of(512) && self.len.is_multiple_of(512);
        match self.command {
            _ if self.flags & !known != 0 => Some(EINVAL),
            3 => None,
            1 | 6 if outside => Some(ENOSPC),
            _ if outside => Some(EINVAL),
            6 if self.flags & 0b1_0000 != 0 && !on_sectors => Some(ENOTSUP),
            _ => None,
        }
    }

    /// What it does to the bytes; the answer's payload.
    fn apply(&self, model: &mut [u8]) -> Vec<u8> {
        if self.command == 3 {
            return Vec::new();
        }
        let start = usize::try_from(self.offset).expect("inside");
        let range = start..start + self.len as usize;
        match self.command {
            0 => return model[range].to_vec(),
            1 => model[range].fill(self.fill),
            _ => model[range].fill(0),
        }
        Vec::new()
    }
}

// The first byte: how many bytes are sent at a time; then requests of eight bytes.
fuzz_target!(|data: &[u8]| {
    let Some((piece, deeds)) = data.split_first() else { return };
    let asked: Vec<Asked> = deeds.as_chunks().0.iter().take(64).map(Asked::of).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(talk(asked, usize::from(*piece) * 16 + 1));
});

async fn talk(asked: Vec<Asked>, piece: usize) {
    let disk = Memory::new(SIZE);
    let mut server = Server::new(One(disk.clone()));
    let (mut client, theirs) = duplex(PIPE_BYTES);
    let connection = Arc::new(Mutex::new(Some(theirs)));
    server.serve(move || {
        let stream = connection.lock().expect("no panic").take();
        async move {
            match stream {
                Some(stream) => Ok(stream),
                None => pending().await,
            }
        }
    });
    begin(&mut client).await;
    let mut model = vec![0; SIZE as usize];
    for (asked, cookie) in asked.iter().zip(1..) {
        for bytes in asked.bytes(cookie).chunks(piece) {
            client.write_all(bytes).await.expect("the server reads");
            tokio::task::yield_now().await;
        }
        let refusal = asked.refusal();
        assert_eq!(reply(&mut client, cookie).await, refusal.unwrap_or(0), "{} at {}", asked.command, asked.offset);
        if refusal.is_none() {
            let expected = asked.apply(&mut model);
            let mut payload = vec![0; expected.len()];
            client.read_exact(&mut payload).await.expect("the bytes of a read");
            assert!(payload == expected, "a read at {} gave other bytes", asked.offset);
        }
    }
    assert!(disk.bytes() == model, "the disk is not what was written");
    drop(client);
    server.shut_down().await;
}

/// Negotiates the old way: an export's name, and off.
async fn begin(client: &mut DuplexStream) {
    let mut greeting = [0; 18];
    client.read_exact(&mut greeting).await.expect("a greeting");
    let mut answer = 3_u32.to_be_bytes().to_vec();
    answer.extend(*b"IHAVEOPT");
    answer.extend(1_u32.to_be_bytes());
    answer.extend(4_u32.to_be_bytes());
    answer.extend(*b"demo");
    client.write_all(&answer).await.expect("the server reads");
    let mut export = [0; 10];
    client.read_exact(&mut export).await.expect("an export");
    assert_eq!(export[..8], SIZE.to_be_bytes());
}

/// The error in a simple reply.
async fn reply(client: &mut DuplexStream, cookie: u64) -> u32 {
    let mut head = [0; 16];
    client.read_exact(&mut head).await.expect("a reply");
    assert_eq!(head[..4], 0x6744_6698_u32.to_be_bytes());
    assert_eq!(head[8..], cookie.to_be_bytes());
    u32::from_be_bytes([head[4], head[5], head[6], head[7]])
}
