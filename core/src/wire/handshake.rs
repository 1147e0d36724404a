//! The first bytes of a connection: who is there, which cluster, which protocol versions.
//!
//! The opener sends its [`Hello`], the acceptor answers with its own, which welcomes or refuses. The layout never
//! changes: a newer version may append bytes behind the ones known here (`len` says how many), which older ones skip.
//!
//! ```text
//!   0  magic             u64   "ASHLARHI"
//!   8  len               u16   bytes of the whole hello, at least 128
//!  10  answer            u16   0: opener's; 1: welcome; 2...: refusal
//!  12  version_oldest    u16   protocol versions that the sender speaks
//!  14  version_newest    u16
//!  16  cluster           u128  0: not known yet (a client's first connection)
//!  32  peer              u8    1: OSD, 2: client, 3: monitor
//!  33  authentication    u8    0: none; others reserved
//!  34  transport         u8    0: plain TCP; 1: reserved for an upgrade to TLS, which begins behind the hellos
//!  35  reserved          [u8; 5]
//!  40  peer_number       u64   OSD number, client id; 0 for a monitor
//!  48  peer_start        u64   incarnation of an OSD or monitor, session number of a client
//!  56  features          u64   that the sender offers
//!  64  features_needed   u64   without which the sender refuses
//!  72  reserved          [u8; 52]
//! 124  crc               u32   CRC-32 of the bytes before
//! ```
//!
//! ```text
//! opener:    send hello -> wait for the answer -> up | refused
//! acceptor:  wait for a hello -> send the answer -> up | refused, closed
//! ```

use super::Versions;
use crate::id::{ClientId, ClusterUuid, Incarnation, OsdId, Session};
use crate::io::{PeerId, PeerName};
use std::fmt;

/// Bytes of a hello, as this version writes it.
pub const HELLO_BYTES: usize = 128;
/// Longest hello that is read: room for authentication data of later versions.
const HELLO_MAX_BYTES: usize = 4096;
const MAGIC: [u8; 8] = *b"ASHLARHI";
const CRC_AT: usize = HELLO_BYTES - 4;
/// Features that this code has.
const FEATURES: u64 = 0;

/// Who a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster; `None`: a client that has not met it yet.
    pub cluster: Option<ClusterUuid>,
    /// The node and its start.
    pub peer: PeerId,
    /// The protocol versions that it speaks.
    pub versions: Versions,
}

/// What the handshake agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The other end.
    pub peer: PeerId,
    /// The cluster.
    pub cluster: ClusterUuid,
    /// Version of the protocol.
    pub version: u16,
    /// Features that both ends have.
    pub features: u64,
}

/// Why a connection was refused, by us or by the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// What came is no hello, or a damaged one.
    NotAshlar,
    /// No protocol version in common.
    Version {
        /// What this end speaks.
        ours: Versions,
        /// What the other end speaks.
        theirs: Versions,
    },
    /// Another cluster, the other end's.
    Cluster(Option<ClusterUuid>),
    /// Another node than the one that was expected at this address.
    WrongPeer(PeerId),
    /// Our own address.
    Myself,
    /// One end needs features that the other lacks.
    Features(u64),
    /// Authentication or encryption is demanded, which one end cannot do.
    Security,
    /// A client connected to a client, or the like.
    WrongRole(PeerId),
    /// The other end refuses, for a reason that this version does not know.
    Unknown(u16),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::NotAshlar => write!(f, "the other end does not speak Ashlar's protocol"),
            Refused::Version { ours, theirs } => write!(
                f,
                "the other end speaks protocol versions {} to {}, this one {} to {}; upgrade the older of the two",
                theirs.oldest, theirs.newest, ours.oldest, ours.newest
            ),
            Refused::Cluster(Some(cluster)) => write!(f, "the other end belongs to another cluster, {cluster}"),
            Refused::Cluster(None) => write!(f, "the other end does not know its cluster yet"),
            Refused::WrongPeer(peer) => write!(f, "another node answers at this address: {peer:?}"),
            Refused::Myself => write!(f, "the address leads back to this node"),
            Refused::Features(bits) => write!(f, "features {bits:#x} are needed and missing at one end"),
            Refused::Security => write!(f, "one end demands authentication or encryption that the other cannot do"),
            Refused::WrongRole(peer) => write!(f, "nodes of these kinds do not talk to each other: {peer:?}"),
            Refused::Unknown(code) => write!(f, "the other end refuses, for a reason ({code}) of a newer version"),
        }
    }
}

impl std::error::Error for Refused {}

impl Refused {
    /// Whether the node that was looked for is certainly not at this address any more: a listening port has one owner.
    pub fn proves_absence(self) -> bool {
        matches!(self, Refused::WrongPeer(_) | Refused::Myself)
    }

    pub(super) fn code(self) -> u16 {
        match self {
            Refused::NotAshlar => 2,
            Refused::Version { .. } => 3,
            Refused::Cluster(_) => 4,
            Refused::WrongPeer(_) => 5,
            Refused::Myself => 6,
            Refused::Features(_) => 7,
            Refused::Security => 8,
            Refused::WrongRole(_) => 9,
            Refused::Unknown(code) => code,
        }
    }

    /// What the other end's refusal means to us.
    fn from_code(code: u16, ours: Versions, hello: &Hello) -> Refused {
        match code {
            2 => Refused::NotAshlar,
            3 => Refused::Version { ours, theirs: hello.versions() },
            4 => Refused::Cluster(hello.cluster),
            5 => Refused::WrongPeer(hello.peer),
            6 => Refused::Myself,
            7 => Refused::Features(hello.features_needed | FEATURES),
            8 => Refused::Security,
            9 => Refused::WrongRole(hello.peer),
            code => Refused::Unknown(code),
        }
    }
}

/// Answers: this is the opener's hello.
const ANSWER_OPEN: u16 = 0;
/// Answers: welcome.
const ANSWER_WELCOME: u16 = 1;

/// What each end says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Opener's, welcome, or a refusal.
    pub answer: u16,
    /// Oldest protocol version of the sender.
    pub version_oldest: u16,
    /// Newest protocol version of the sender.
    pub version_newest: u16,
    /// The sender's cluster, if it knows it.
    pub cluster: Option<ClusterUuid>,
    /// The sender.
    pub peer: PeerId,
    /// Demanded authentication and transport security; none so far.
    pub security: [u8; 2],
    /// Features that the sender offers.
    pub features: u64,
    /// Features that the sender needs.
    pub features_needed: u64,
}

impl Hello {
    pub(super) fn new(identity: &Identity, answer: u16) -> Hello {
        Hello {
            answer,
            version_oldest: identity.versions.oldest,
            version_newest: identity.versions.newest,
            cluster: identity.cluster,
            peer: identity.peer,
            security: [0, 0],
            features: FEATURES,
            features_needed: 0,
        }
    }

    fn versions(&self) -> Versions {
        Versions { oldest: self.version_oldest, newest: self.version_newest }
    }

    /// Its bytes.
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let (kind, number, start) = match self.peer {
            PeerId::Osd(osd, incarnation) => (1, u64::from(osd.0), incarnation.0),
            PeerId::Client(session) => (2, session.client.0, session.number),
            PeerId::Mon(incarnation) => (3, 0, incarnation.0),
        };
        let mut bytes = [0; HELLO_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&u16::try_from(HELLO_BYTES).expect("128").to_le_bytes());
        bytes[10..12].copy_from_slice(&self.answer.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.version_oldest.to_le_bytes());
        bytes[14..16].copy_from_slice(&self.version_newest.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.cluster.map_or(0, |cluster| cluster.0).to_le_bytes());
        bytes[32] = kind;
        bytes[33..35].copy_from_slice(&self.security);
        bytes[40..48].copy_from_slice(&number.to_le_bytes());
        bytes[48..56].copy_from_slice(&start.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.features.to_le_bytes());
        bytes[64..72].copy_from_slice(&self.features_needed.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a hello from the first bytes of a connection: none, if more bytes are needed; else also how many bytes it
    /// took.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Hello, usize)>, Refused> {
        let begun = bytes.len().min(MAGIC.len());
        if bytes[..begun] != MAGIC[..begun] {
            return Err(Refused::NotAshlar);
        }
        let Some(known) = bytes.first_chunk::<HELLO_BYTES>() else { return Ok(None) };
        let u16_at = |at: usize| u16::from_le_bytes([known[at], known[at + 1]]);
        let u64_at = |at: usize| u64::from_le_bytes(known[at..at + 8].try_into().expect("eight bytes"));
        let crc = crc32fast::hash(&known[..CRC_AT]).to_le_bytes();
        let len = usize::from(u16_at(8));
        if known[CRC_AT..] != crc || !(HELLO_BYTES..=HELLO_MAX_BYTES).contains(&len) {
            return Err(Refused::NotAshlar);
        }
        let peer = match known[32] {
            1 => {
                PeerId::Osd(OsdId(u32::try_from(u64_at(40)).map_err(|_| Refused::NotAshlar)?), Incarnation(u64_at(48)))
            }
            2 => PeerId::Client(Session { client: ClientId(u64_at(40)), number: u64_at(48) }),
            3 => PeerId::Mon(Incarnation(u64_at(48))),
            _ => return Err(Refused::NotAshlar),
        };
        let cluster = u128::from_le_bytes(known[16..32].try_into().expect("sixteen bytes"));
        let hello = Hello {
            answer: u16_at(10),
            version_oldest: u16_at(12),
            version_newest: u16_at(14),
            cluster: (cluster != 0).then_some(ClusterUuid(cluster)),
            peer,
            security: [known[33], known[34]],
            features: u64_at(56),
            features_needed: u64_at(64),
        };
        Ok((bytes.len() >= len).then_some((hello, len)))
    }
}

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Opener(PeerName),
    Acceptor,
}

/// One end of a handshake.
#[derive(Clone, Debug)]
pub struct Handshake {
    ours: Identity,
    side: Side,
    received: Vec<u8>,
}

/// Where a handshake stands after more bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed.
    Waiting,
    /// Done; `rest` are bytes of frames that came already.
    Done {
        /// What was agreed.
        agreed: Agreed,
        /// To be sent before anything else (empty for the opener).
        answer: Vec<u8>,
        /// Received behind the hello.
        rest: Vec<u8>,
    },
    /// Refused; close the connection, once `answer` is sent.
    Refused {
        /// Why.
        why: Refused,
        /// What to say to the other end (empty for the opener).
        answer: Vec<u8>,
    },
}

impl Handshake {
    /// Opens: returns also what to send first.
    pub fn open(ours: Identity, target: PeerName) -> (Handshake, [u8; HELLO_BYTES]) {
        let hello = Hello::new(&ours, ANSWER_OPEN).encode();
        (Handshake { ours, side: Side::Opener(target), received: Vec::new() }, hello)
    }

    /// Waits for an opener.
    pub fn accept(ours: Identity) -> Handshake {
        Handshake { ours, side: Side::Acceptor, received: Vec::new() }
    }

    /// Takes received bytes.
    pub fn receive(&mut self, bytes: &[u8]) -> Progress {
        self.received.extend_from_slice(bytes);
        let (hello, len) = match Hello::decode(&self.received) {
            Ok(None) => return Progress::Waiting,
            Ok(Some(hello)) => hello,
            Err(why) => return self.refuse(why),
        };
        let checked = match self.side {
            Side::Opener(target) => self.check_answer(target, &hello),
            Side::Acceptor => self.check_opener(&hello),
        };
        match checked {
            Ok(agreed) => {
                let answer = self.answer(ANSWER_WELCOME);
                Progress::Done { agreed, answer, rest: self.received.split_off(len) }
            }
            Err(why) => self.refuse(why),
        }
    }

    fn answer(&self, code: u16) -> Vec<u8> {
        match self.side {
            Side::Opener(_) => Vec::new(),
            Side::Acceptor => Hello::new(&self.ours, code).encode().to_vec(),
        }
    }

    fn refuse(&self, why: Refused) -> Progress {
        Progress::Refused { why, answer: self.answer(why.code()) }
    }

    fn check_opener(&self, hello: &Hello) -> Result<Agreed, Refused> {
        if hello.answer != ANSWER_OPEN {
            return Err(Refused::NotAshlar);
        }
        self.check(hello)
    }

    fn check_answer(&self, target: PeerName, hello: &Hello) -> Result<Agreed, Refused> {
        match hello.answer {
            ANSWER_OPEN => return Err(Refused::NotAshlar),
            ANSWER_WELCOME => {}
            code => return Err(Refused::from_code(code, self.ours.versions, hello)),
        }
        let expected = match (target, hello.peer) {
            (PeerName::Osd(osd), PeerId::Osd(there, _)) => osd == there,
            (PeerName::Osd(_), _) => false,
            (PeerName::Seed(_), PeerId::Osd(..) | PeerId::Mon(_)) => true,
            (PeerName::Seed(_), PeerId::Client(_)) => false,
        };
        if expected { self.check(hello) } else { Err(Refused::WrongPeer(hello.peer)) }
    }

    /// What both ends check of the other.
    fn check(&self, hello: &Hello) -> Result<Agreed, Refused> {
        let (ours, theirs) = (self.ours.versions, hello.versions());
        let version = ours.common(theirs).ok_or(Refused::Version { ours, theirs })?;
        let cluster = match (self.ours.cluster, hello.cluster) {
            (Some(ours), Some(theirs)) if ours == theirs => ours,
            (Some(ours), None) if hello.peer.client().is_some() => ours,
            (None, Some(theirs)) if self.ours.peer.client().is_some() => theirs,
            (_, theirs) => return Err(Refused::Cluster(theirs)),
        };
        if hello.peer == self.ours.peer {
            return Err(Refused::Myself);
        }
        if hello.peer.client().is_some() && self.ours.peer.client().is_some() {
            return Err(Refused::WrongRole(hello.peer));
        }
        if hello.features_needed & !FEATURES != 0 {
            return Err(Refused::Features(hello.features_needed & !FEATURES));
        }
        if hello.security != [0, 0] {
            return Err(Refused::Security);
        }
        Ok(Agreed { peer: hello.peer, cluster, version, features: hello.features & FEATURES })
    }
}
