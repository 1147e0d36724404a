//! The bytes of every message, as they are on the wire for ever (in this version of the protocol).

use super::handshake::{Hello, Identity};
use super::samples::Draw;
use super::{VERSION, Versions, encode};
use crate::buf::BufPool;
use crate::id::{ClientId, ClusterUuid, Incarnation, OsdId, Session};
use crate::io::PeerId;
use crate::rng::Rng;

const GOLDEN: &str = include_str!("golden.txt");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn lines() -> Vec<String> {
    let (mut rng, mut bufs) = (Rng::new(1), BufPool::new());
    let all = Draw { rng: &mut rng, bufs: &mut bufs, body_bytes: 5 }.all();
    let messages = all.into_iter().map(|(name, message)| {
        let mut bytes = Vec::new();
        if let Some(body) = encode(&message, &mut bytes) {
            bytes.extend_from_slice(body.buf.bytes());
        }
        format!("{name}: {}", hex(&bytes))
    });
    messages.chain(hellos()).collect()
}

fn hellos() -> Vec<String> {
    let session = Session { client: ClientId(0x0102), number: 3 };
    let peers = [
        ("osd", PeerId::Osd(OsdId(7), Incarnation(0x1122_3344_5566_7788)), Some(ClusterUuid(0xabcd << 64 | 0xef))),
        ("client", PeerId::Client(session), None),
        ("monitor", PeerId::Mon(Incarnation(9)), Some(ClusterUuid(1))),
    ];
    let line = |(name, peer, cluster): (&str, PeerId, Option<ClusterUuid>)| {
        let hello = Hello::new(&Identity { cluster, peer, versions: Versions::OURS }, 0).encode();
        format!("hello of {name}: {}", hex(&hello))
    };
    peers.into_iter().map(line).collect()
}

#[test]
fn bytes_have_not_changed() {
    let lines = lines();
    let wrong: Vec<_> = lines.iter().filter(|line| !GOLDEN.lines().any(|golden| golden == *line)).collect();
    assert!(
        wrong.is_empty() && GOLDEN.lines().count() == lines.len(),
        "the bytes of {} messages changed. Old nodes cannot read them: raise the protocol version (now {VERSION}), then \
         replace golden.txt by:\n{}\n",
        wrong.len(),
        lines.join("\n")
    );
}
