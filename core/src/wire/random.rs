//! Messages and bytes drawn at random: what is written is read; nothing that is read panics.

use super::Versions;
use super::frame::{CRC_AT, FLAG_BODY};
use super::handshake::{Handshake, Hello, Identity, Progress, Refused};
use super::samples::Draw;
use super::{FRAME_BYTES, Inbox, Outbox, WireError, encode};
use crate::buf::BufPool;
use crate::id::{ClientId, ClusterUuid, Incarnation, OsdId, Session};
use crate::io::{PeerId, PeerName};
use crate::msg::Message;
use crate::rng::Rng;
use std::collections::BTreeSet;

fn messages(seed: u64, bufs: &mut BufPool, body_bytes: u32) -> Vec<Message> {
    let mut rng = Rng::new(seed);
    Draw { rng: &mut rng, bufs, body_bytes }.all().into_iter().map(|(_, message)| message).collect()
}

fn bytes_of(outbox: &mut Outbox) -> Vec<u8> {
    let batch = outbox.take();
    let mut bytes = Vec::new();
    batch.slices(0, |slice| {
        bytes.extend_from_slice(slice);
        true
    });
    assert_eq!(bytes.len() as u64, batch.bytes());
    outbox.sent(batch);
    bytes
}

/// Gives bytes to an inbox in pieces of at most `piece` bytes, and takes all messages.
fn read(
    inbox: &mut Inbox,
    bufs: &mut BufPool,
    bytes: &[u8],
    mut piece: impl FnMut() -> u64,
) -> Result<Vec<Message>, WireError> {
    let (mut at, mut messages) = (0, Vec::new());
    while at < bytes.len() {
        let space = inbox.space();
        let count = space.len().min(bytes.len() - at).min(usize::try_from(piece()).expect("small"));
        assert!(count > 0, "no space for more");
        space[..count].copy_from_slice(&bytes[at..at + count]);
        inbox.received(count);
        at += count;
        while let Some(message) = inbox.next(bufs)? {
            messages.push(message);
        }
    }
    Ok(messages)
}

#[test]
fn what_is_sent_is_received_in_pieces_of_any_size() {
    let mut bufs = BufPool::new();
    let mut rng = Rng::new(5);
    for (seed, body_bytes) in (0..).zip([0, 5, 512, 4096, 32_767, 32_768, 40_000, 131_072, 1_048_576]) {
        let sent = messages(seed, &mut bufs, body_bytes);
        let mut outbox = Outbox::default();
        sent.iter().for_each(|message| outbox.push(message));
        let bytes = bytes_of(&mut outbox);
        assert!(!outbox.has_waiting() && outbox.bytes() == 0);
        for largest in [100, 5_000, 70_000, 1 << 30] {
            let received = read(&mut Inbox::default(), &mut bufs, &bytes, || rng.between(1, largest)).unwrap();
            assert_eq!(received, sent, "bodies of {body_bytes}, pieces of up to {largest}");
        }
    }
}

#[test]
fn one_byte_at_a_time() {
    let mut bufs = BufPool::new();
    let sent = messages(3, &mut bufs, 33_000);
    let mut outbox = Outbox::default();
    sent.iter().for_each(|message| outbox.push(message));
    assert_eq!(read(&mut Inbox::default(), &mut bufs, &bytes_of(&mut outbox), || 1).unwrap(), sent);
}

#[test]
fn a_partly_sent_batch_goes_on_where_it_stopped() {
    let mut bufs = BufPool::new();
    let mut outbox = Outbox::default();
    messages(4, &mut bufs, 3000).iter().for_each(|message| outbox.push(message));
    let batch = outbox.take();
    let rest = |skip| {
        let mut bytes = Vec::new();
        batch.slices(skip, |slice| {
            bytes.extend_from_slice(slice);
            true
        });
        bytes
    };
    let all = rest(0);
    for skip in (0..all.len()).step_by(37) {
        assert!(rest(skip as u64) == all[skip..], "after {skip} bytes");
    }
    assert!(rest(all.len() as u64).is_empty());
}

#[test]
fn sent_and_received_without_new_memory() {
    let mut bufs = BufPool::new();
    let (mut inbox, mut outbox) = (Inbox::default(), Outbox::default());
    let round = |inbox: &mut Inbox, outbox: &mut Outbox, bufs: &mut BufPool| {
        messages(1, bufs, 4096).iter().for_each(|message| outbox.push(message));
        read(inbox, bufs, &bytes_of(outbox), || 1 << 20).unwrap();
    };
    (0..3).for_each(|_| round(&mut inbox, &mut outbox, &mut bufs));
    let before = bufs.allocated();
    (0..20).for_each(|_| round(&mut inbox, &mut outbox, &mut bufs));
    assert_eq!(bufs.allocated(), before);
}

/// Damages a frame: bits flipped, bytes set, cut, or lengthened. `mend` makes the checksums match again, so that
/// decoding gets as far as it can.
fn damage(rng: &mut Rng, frame: &mut Vec<u8>, mend: bool) {
    for _ in 0..rng.between(1, 4) {
        let place = rng.below(frame.len() as u64) as usize;
        match rng.below(4) {
            0 => frame[place] ^= 1 << rng.below(8),
            1 => frame[place] = [0, 1, 0x7f, 0xff][rng.below(4) as usize],
            2 if place > FRAME_BYTES => frame.truncate(place),
            _ => frame.insert(place.max(FRAME_BYTES).min(frame.len()), 0xff),
        }
    }
    if mend && frame.len() >= FRAME_BYTES {
        frame[0..4].copy_from_slice(b"ASHL");
        let kind = frame[6] % 6;
        frame[4..8].copy_from_slice(&[1, 0, kind, 0]);
        let has_body = frame[8] & 1 == 1;
        frame[8..12].copy_from_slice(&(if has_body { FLAG_BODY } else { 0 }).to_le_bytes());
        let rest = frame.len() - FRAME_BYTES;
        let body = if has_body { rest.min(5) } else { 0 };
        frame[12..16].copy_from_slice(&((rest - body) as u32).to_le_bytes());
        frame[16..20].copy_from_slice(&(body as u32).to_le_bytes());
        frame[20..24].copy_from_slice(&[0; 4]);
        let header_crc = crc32fast::hash(&frame[FRAME_BYTES..frame.len() - body]);
        frame[24..28].copy_from_slice(&header_crc.to_le_bytes());
        let frame_crc = crc32fast::hash(&frame[..CRC_AT]);
        frame[CRC_AT..FRAME_BYTES].copy_from_slice(&frame_crc.to_le_bytes());
    }
}

#[test]
fn damaged_bytes_never_panic_and_are_seldom_taken() {
    let mut bufs = BufPool::new();
    let mut rng = Rng::new(9);
    let mut errors = BTreeSet::new();
    for round in 0..600 {
        for message in messages(round, &mut bufs, 5) {
            let mut frame = Vec::new();
            if let Some(body) = encode(&message, &mut frame) {
                frame.extend_from_slice(body.buf.bytes());
            }
            let mend = rng.chance(4, 5);
            damage(&mut rng, &mut frame, mend);
            match read(&mut Inbox::default(), &mut bufs, &frame, || 1 << 20) {
                Err(error) => drop(errors.insert(format!("{error:?}").split([' ', '(']).next().unwrap().to_string())),
                Ok(read) if !mend && !read.is_empty() => {
                    // Only the body may differ: its checksum is for whoever uses it.
                    let mut again = Vec::new();
                    encode(&read[0], &mut again);
                    assert_eq!(again, frame[..again.len()]);
                }
                Ok(_) => {}
            }
        }
    }
    let expected =
        ["BadChecksum", "BadMagic", "BadTag", "BadText", "Body", "TooLong", "Trailing", "Truncated", "UnknownKind"];
    assert!(expected.iter().all(|name| errors.contains(*name)), "{errors:?}");
}

#[test]
fn noise_never_panics() {
    let mut bufs = BufPool::new();
    let mut rng = Rng::new(10);
    for _ in 0..2000 {
        let len = rng.between(1, 400);
        let noise: Vec<u8> = (0..len).map(|_| rng.below(256) as u8).collect();
        assert!(read(&mut Inbox::default(), &mut bufs, &noise, || 64).is_ok_and(|read| read.is_empty()) == (len < 32));
        assert!(matches!(Hello::decode(&noise), Err(Refused::NotAshlar)));
    }
}

#[test]
fn a_list_longer_than_its_bytes_takes_no_memory() {
    let mut frame = Vec::new();
    let update = crate::msg::MapUpdate::default();
    encode(&Message::Map(crate::msg::MapMessage::Update(update)), &mut frame);
    // The count of pools, behind tag, revision and `full`.
    frame[FRAME_BYTES + 10..FRAME_BYTES + 14].copy_from_slice(&4_000_000u32.to_le_bytes());
    let header_crc = crc32fast::hash(&frame[FRAME_BYTES..]);
    frame[24..28].copy_from_slice(&header_crc.to_le_bytes());
    let frame_crc = crc32fast::hash(&frame[..CRC_AT]);
    frame[CRC_AT..FRAME_BYTES].copy_from_slice(&frame_crc.to_le_bytes());
    let result = read(&mut Inbox::default(), &mut BufPool::new(), &frame, || 1 << 20);
    assert_eq!(result, Err(WireError::Truncated));
}

fn osd(number: u32, cluster: u128) -> Identity {
    Identity {
        cluster: Some(ClusterUuid(cluster)),
        peer: PeerId::Osd(OsdId(number), Incarnation(number.into())),
        versions: Versions::OURS,
    }
}

fn client(cluster: Option<u128>) -> Identity {
    let peer = PeerId::Client(Session { client: ClientId(5), number: 1 });
    Identity { cluster: cluster.map(ClusterUuid), peer, versions: Versions::OURS }
}

/// Both ends' results, with bytes given in pieces of `piece`.
fn shake(opener: Identity, target: PeerName, acceptor: Identity, piece: usize) -> (Progress, Progress) {
    let (mut open, hello) = Handshake::open(opener, target);
    let mut accept = Handshake::accept(acceptor);
    let theirs = hello.chunks(piece).map(|bytes| accept.receive(bytes)).last().unwrap();
    let answer = match &theirs {
        Progress::Done { answer, .. } | Progress::Refused { answer, .. } => answer.clone(),
        Progress::Waiting => panic!("a whole hello was given"),
    };
    (answer.chunks(piece).map(|bytes| open.receive(bytes)).last().unwrap(), theirs)
}

#[test]
fn hands_are_shaken() {
    for piece in [1, 7, 128, 4096] {
        let (ours, theirs) = shake(osd(1, 9), PeerName::Osd(OsdId(2)), osd(2, 9), piece);
        let (Progress::Done { agreed: ours, .. }, Progress::Done { agreed: theirs, .. }) = (ours, theirs) else {
            panic!("refused");
        };
        assert_eq!((ours.peer, theirs.peer), (osd(2, 9).peer, osd(1, 9).peer));
        assert_eq!((ours.version, ours.cluster), (1, ClusterUuid(9)));
    }
}

#[test]
fn a_client_learns_its_cluster_and_keeps_it() {
    let (ours, theirs) = shake(client(None), PeerName::Seed(0), osd(2, 9), 128);
    assert!(matches!(ours, Progress::Done { agreed, .. } if agreed.cluster == ClusterUuid(9)));
    assert!(matches!(theirs, Progress::Done { .. }));
    let (ours, theirs) = shake(client(Some(8)), PeerName::Seed(0), osd(2, 9), 128);
    assert!(matches!(ours, Progress::Refused { why: Refused::Cluster(Some(ClusterUuid(9))), .. }));
    assert!(matches!(theirs, Progress::Refused { why: Refused::Cluster(Some(ClusterUuid(8))), .. }));
}

#[test]
fn who_does_not_belong_is_refused_with_a_reason() {
    let why = |(ours, _): (Progress, Progress)| match ours {
        Progress::Refused { why, .. } => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(why(shake(osd(1, 8), PeerName::Osd(OsdId(2)), osd(2, 9), 128)), Refused::Cluster(Some(ClusterUuid(9))));
    assert_eq!(why(shake(osd(1, 9), PeerName::Osd(OsdId(3)), osd(2, 9), 128)), Refused::WrongPeer(osd(2, 9).peer));
    assert_eq!(why(shake(osd(1, 9), PeerName::Osd(OsdId(1)), osd(1, 9), 128)), Refused::Myself);
    let other = Identity { peer: PeerId::Client(Session { client: ClientId(6), number: 1 }), ..client(Some(9)) };
    assert!(matches!(why(shake(client(None), PeerName::Seed(0), other, 128)), Refused::WrongRole(_)));
    let unknown = Identity { cluster: None, ..osd(1, 0) };
    assert_eq!(why(shake(unknown, PeerName::Osd(OsdId(2)), osd(2, 9), 128)), Refused::Cluster(Some(ClusterUuid(9))));
}

/// What this code says to a node of these versions.
fn no_common(oldest: u16, newest: u16) -> Refused {
    Refused::Version { ours: Versions::OURS, theirs: Versions { oldest, newest } }
}

#[test]
fn nodes_of_a_rolling_upgrade_agree_or_say_why_not() {
    let speaks = |number, oldest, newest| Identity { versions: Versions { oldest, newest }, ..osd(number, 9) };
    let meet = |opener: (u16, u16), acceptor: (u16, u16)| {
        let (opener, acceptor) = (speaks(1, opener.0, opener.1), speaks(2, acceptor.0, acceptor.1));
        match shake(opener, PeerName::Osd(OsdId(2)), acceptor, 128) {
            (Progress::Done { agreed: ours, .. }, Progress::Done { agreed: theirs, .. }) => {
                assert_eq!(ours.version, theirs.version, "both ends agree on one");
                Ok(ours.version)
            }
            (Progress::Refused { why, .. }, Progress::Refused { why: theirs, .. }) => Err((why, theirs)),
            other => panic!("the ends do not agree: {other:?}"),
        }
    };
    assert_eq!((meet((1, 1), (1, 2)), meet((1, 2), (1, 1)), meet((1, 2), (1, 2))), (Ok(1), Ok(1), Ok(2)));
    assert_eq!((meet((1, 2), (2, 2)), meet((2, 3), (1, 2))), (Ok(2), Ok(2)));
    let (ours, theirs) = meet((1, 1), (2, 3)).expect_err("nothing in common");
    let (old, new) = (Versions { oldest: 1, newest: 1 }, Versions { oldest: 2, newest: 3 });
    assert_eq!(ours, Refused::Version { ours: old, theirs: new });
    assert_eq!(theirs, Refused::Version { ours: new, theirs: old });
    assert!(ours.to_string().contains("speaks protocol versions 2 to 3, this one 1 to 1; upgrade the older"));
    assert!(!ours.proves_absence(), "an old version is no evidence that the node is gone");
}

#[test]
fn versions_features_and_security_are_agreed_on() {
    let hello = |change: fn(&mut Hello)| {
        let mut hello = Hello::new(&osd(1, 9), 0);
        change(&mut hello);
        match Handshake::accept(osd(2, 9)).receive(&hello.encode()) {
            Progress::Done { agreed, .. } => Ok(agreed.version),
            Progress::Refused { why, .. } => Err(why),
            Progress::Waiting => panic!("a whole hello was given"),
        }
    };
    assert_eq!(hello(|hello| hello.version_newest = 7), Ok(1));
    assert_eq!(hello(|hello| (hello.version_oldest, hello.version_newest) = (2, 7)), Err(no_common(2, 7)));
    assert_eq!(hello(|hello| hello.features_needed = 4), Err(Refused::Features(4)));
    assert_eq!(hello(|hello| hello.features = 4), Ok(1));
    assert_eq!(hello(|hello| hello.security = [0, 1]), Err(Refused::Security));
    assert_eq!(hello(|hello| hello.answer = 1), Err(Refused::NotAshlar));
}

#[test]
fn a_longer_hello_of_a_newer_version_is_understood() {
    let mut bytes = Hello::new(&osd(1, 9), 0).encode().to_vec();
    bytes[8..10].copy_from_slice(&160u16.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..124]);
    bytes[124..128].copy_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(&[7; 32]);
    bytes.extend_from_slice(b"frame");
    let mut accept = Handshake::accept(osd(2, 9));
    assert_eq!(accept.receive(&bytes[..150]), Progress::Waiting);
    assert!(matches!(accept.receive(&bytes[150..]), Progress::Done { rest, .. } if rest == b"frame"));
}

#[test]
fn damaged_hellos_never_panic_and_are_refused() {
    let mut rng = Rng::new(12);
    for _ in 0..5000 {
        let mut bytes = Hello::new(&osd(1, 9), 0).encode();
        let place = rng.below(128) as usize;
        bytes[place] ^= 1 << rng.below(8);
        assert!(matches!(Handshake::accept(osd(2, 9)).receive(&bytes), Progress::Refused { .. }), "byte {place}");
    }
}

#[test]
fn refusals_keep_their_meaning_on_the_way() {
    for code in 0..100 {
        let hello = Hello::new(&osd(1, 9), code);
        let (mut open, _) = Handshake::open(osd(2, 9), PeerName::Osd(OsdId(1)));
        match (code, open.receive(&hello.encode())) {
            (1, Progress::Done { .. }) => {}
            (0, Progress::Refused { why: Refused::NotAshlar, .. }) => {}
            (_, Progress::Refused { why, .. }) => assert_eq!(why.code(), code),
            (_, other) => panic!("{other:?}"),
        }
    }
}
