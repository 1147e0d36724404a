//! Messages for tests: one of every shape, with fields drawn from a generator.

use crate::buf::BufPool;
use crate::id::*;
use crate::map::{Layout, Scheme};
use crate::msg::*;
use crate::pg::msg::{Change, PgMessage, Purpose, Refused, SubOp, SubReply};
use crate::rng::Rng;
use crate::store::{Bitmap, Content, CopyInfo, Data, Digest, Mode, Patch, VersionInfo};
use crate::time::{Duration, Time};
use smallvec::smallvec;

/// Draws values.
pub struct Draw<'a> {
    pub rng: &'a mut Rng,
    pub bufs: &'a mut BufPool,
    /// Bytes of bodies.
    pub body_bytes: u32,
}

impl Draw<'_> {
    fn n(&mut self) -> u64 {
        self.rng.next_u64()
    }
    fn n32(&mut self) -> u32 {
        u32::try_from(self.rng.below(1 << 32)).expect("below 2^32")
    }
    fn data(&mut self) -> Data {
        let bytes: Vec<u8> = (0..self.body_bytes).map(|at| u8::try_from(at % 251).expect("below 251")).collect();
        Data::new(self.bufs.copy_of(&bytes))
    }
    fn version(&mut self) -> Version {
        Version { epoch: Epoch(self.n()), seq: self.n() }
    }
    fn pg(&mut self) -> PgId {
        PgId { pool: PoolId(self.n32()), number: PgNumber(self.n32()) }
    }
    fn copy(&mut self) -> CopyId {
        let object = ObjectId { pool: PoolId(self.n32()), inode: InodeId(self.n()), stripe: self.n() };
        CopyId { object, role: Role(3) }
    }
    fn attempt(&mut self) -> Attempt {
        Attempt { epoch: Epoch(self.n()), incarnation: Incarnation(self.n()), counter: self.n() }
    }
    fn request_id(&mut self) -> RequestId {
        RequestId { session: Session { client: ClientId(self.n()), number: self.n() }, number: self.n() }
    }
    fn requests(&mut self) -> Requests {
        smallvec![self.request_id(), self.request_id(), self.request_id()]
    }
    fn bitmap(&mut self) -> Bitmap {
        Bitmap { words: smallvec![self.n(), 0, u64::MAX] }
    }
    fn range(&mut self) -> HashRange {
        HashRange { first: self.n(), last: self.n() }
    }
    fn digest(&mut self) -> Digest {
        Digest { count: self.n(), sum: self.n() }
    }
    fn version_info(&mut self, tombstone: bool) -> VersionInfo {
        let (version, predecessor, requests) = (self.version(), self.version(), self.requests());
        VersionInfo { version, predecessor, tombstone, damaged: !tombstone, requests }
    }

    fn request(&mut self, op: RequestOp) -> Message {
        Message::Request(Request {
            id: self.request_id(),
            seen: self.n(),
            object: self.copy().object,
            generation: 5,
            epoch: Epoch(self.n()),
            class: Class::Recovery,
            tenant: self.n32(),
            op,
        })
    }
    fn reply(&mut self, outcome: Result<Answer, Refusal>) -> Message {
        Message::Reply(Reply { id: self.request_id(), outcome })
    }
    fn sub_op(&mut self, op: SubOp) -> Message {
        Message::Pg(PgMessage::SubOp { pg: self.pg(), attempt: self.attempt(), call: self.n(), op })
    }
    fn sub_reply(&mut self, reply: SubReply) -> Message {
        Message::Pg(PgMessage::SubReply { pg: self.pg(), attempt: self.attempt(), call: self.n(), reply })
    }

    /// One message of every shape, named.
    pub fn all(&mut self) -> Vec<(String, Message)> {
        let mut all = Vec::new();
        all.extend(self.requests_of_clients());
        all.extend(self.replies());
        all.extend(self.maps());
        all.extend(self.groups());
        all.extend(self.sub_ops());
        all.extend(self.sub_replies());
        all.extend(self.lazy());
        all.extend(self.stripes());
        all.push(("reply no such image".into(), no_such_image()));
        all.push(("reply locked".into(), locked()));
        all.extend(self.scrub());
        all.extend(self.patches());
        all
    }

    fn lazy(&mut self) -> Vec<(String, Message)> {
        let version = self.version();
        vec![
            ("reply applied".into(), self.reply(Ok(Answer::Applied { version }))),
            ("sub-op flush".into(), self.sub_op(SubOp::Flush)),
            ("sub-reply applied".into(), self.sub_reply(SubReply::Applied)),
        ]
    }

    fn scrub(&mut self) -> Vec<(String, Message)> {
        let (copy, version, sum) = (self.copy(), self.version(), self.n());
        vec![
            ("sub-op check".into(), self.sub_op(SubOp::Check { copy, version })),
            ("sub-reply checked".into(), self.sub_reply(SubReply::Checked { version, tombstone: true, sum })),
        ]
    }

    fn requests_of_clients(&mut self) -> Vec<(String, Message)> {
        let (offset, len) = (self.n32(), self.n32());
        let ops = [
            ("read", RequestOp::Read { offset, len }),
            ("write", RequestOp::Write { offset, data: self.data(), expect: None }),
            ("write if", RequestOp::Write { offset, data: self.data(), expect: Some(self.version()) }),
            ("zero", RequestOp::Zero { offset, len }),
            ("delete", RequestOp::Delete { expect: Some(self.version()) }),
            ("block status", RequestOp::BlockStatus { offset, len }),
            ("sync", RequestOp::Sync),
        ];
        ops.into_iter().map(|(name, op)| (format!("request {name}"), self.request(op))).collect()
    }

    fn replies(&mut self) -> Vec<(String, Message)> {
        let version = self.version();
        let outcomes = [
            ("read", Ok(Answer::Read { version, data: self.data() })),
            ("written", Ok(Answer::Written { version })),
            ("block status", Ok(Answer::BlockStatus { version, bitmap: self.bitmap() })),
            ("synced", Ok(Answer::Synced)),
            ("wrong epoch", Err(Refusal::WrongEpoch(Epoch(self.n())))),
            ("not primary", Err(Refusal::NotPrimary)),
            ("again", Err(Refusal::Again)),
            ("version mismatch", Err(Refusal::VersionMismatch(version))),
            ("no space", Err(Refusal::NoSpace)),
            ("damaged", Err(Refusal::Damaged)),
            ("bad checksum", Err(Refusal::BadChecksum)),
            ("bad request", Err(Refusal::BadRequest)),
            ("fenced", Err(Refusal::Fenced)),
            ("no such pool", Err(Refusal::NoSuchPool)),
        ];
        outcomes.into_iter().map(|(name, outcome)| (format!("reply {name}"), self.reply(outcome))).collect()
    }

    fn maps(&mut self) -> Vec<(String, Message)> {
        let pool = |id, scheme| PoolInfo {
            id: PoolId(id),
            name: "rbd".into(),
            scheme,
            data_chunks: 4,
            layout: Layout { generation: 1, pg_count: 256 },
            object_bytes: 131_072,
        };
        let update = MapUpdate {
            revision: Revision(self.n()),
            full: true,
            pools: vec![pool(1, Scheme::Replicated), pool(2, Scheme::Ec), pool(3, Scheme::Xor)],
            pgs: vec![
                PgInfo { pg: self.pg(), epoch: Epoch(self.n()), primary: Some(OsdId(self.n32())) },
                PgInfo { pg: self.pg(), epoch: Epoch(self.n()), primary: None },
            ],
            osds: vec![OsdInfo { id: OsdId(self.n32()), address: "10.0.0.1:7000".into() }],
        };
        let image = ImageInfo {
            pool: PoolId(self.n32()),
            inode: InodeId(self.n()),
            name: "bücher".into(),
            size_bytes: self.n(),
            read_only: true,
        };
        let (token, name) = (self.n(), "vm-1".to_string());
        let messages = [
            ("subscribe", MapMessage::Subscribe { have: Revision(self.n()) }),
            ("update", MapMessage::Update(update)),
            ("empty update", MapMessage::Update(MapUpdate::default())),
            ("find image", MapMessage::FindImage { token, pool: None, name: name.clone() }),
            ("find image in pool", MapMessage::FindImage { token, pool: Some("rbd".into()), name }),
            ("image", MapMessage::Image { token, image: Some(image) }),
            ("no image", MapMessage::Image { token, image: None }),
            ("list images", MapMessage::ListImages { token, after: None }),
            ("list images after", MapMessage::ListImages { token, after: Some("rbd/vm-1".into()) }),
            ("images", MapMessage::Images { token, names: vec!["rbd/vm-2".into(), "rbd/vm-3".into()], more: true }),
        ];
        messages.into_iter().map(|(name, message)| (format!("map {name}"), Message::Map(message))).collect()
    }

    fn groups(&mut self) -> Vec<(String, Message)> {
        let sent = Time(self.n());
        let groups = vec![(self.pg(), self.attempt()), (self.pg(), self.attempt())];
        let lease = Duration(self.n());
        let messages = [
            ("heartbeat", PgMessage::Heartbeat { sent, lease, groups: groups.clone() }),
            ("heartbeat ack", PgMessage::HeartbeatAck { sent, lease, groups }),
            ("stray", PgMessage::Stray { pg: self.pg(), epoch: Epoch(self.n()) }),
        ];
        messages.into_iter().map(|(name, message)| (format!("pg {name}"), Message::Pg(message))).collect()
    }

    fn sub_ops(&mut self) -> Vec<(String, Message)> {
        let (copy, version, predecessor) = (self.copy(), self.version(), self.version());
        let (role, range, offset, len) = (Role(2), self.range(), self.n32(), self.n32());
        let write = |mode, change, requests| SubOp::Write { copy, version, predecessor, mode, change, requests };
        let install = |purpose, mode, content, requests| SubOp::Install {
            purpose,
            copy,
            version,
            predecessor,
            mode,
            content,
            requests,
        };
        let whole = Content::Data { data: self.data(), bitmap: self.bitmap() };
        let ops = [
            ("query", SubOp::Query),
            ("digest", SubOp::Digest { role, range, bits: 6 }),
            ("list", SubOp::List { role, range, after: None }),
            ("list after", SubOp::List { role, range, after: Some(copy) }),
            ("write", write(Mode::Plain, Change::Data { offset, data: self.data() }, self.requests())),
            ("zero", write(Mode::Prepare, Change::Zero { offset, len }, self.requests())),
            ("delete", write(Mode::Plain, Change::Delete, Requests::new())),
            ("install to resolve", install(Purpose::Resolve, Mode::Prepare, whole.clone(), self.requests())),
            ("install to recover", install(Purpose::Recovery, Mode::Plain, Content::Tombstone, Requests::new())),
            ("install to repair", install(Purpose::Repair, Mode::Plain, whole, Requests::new())),
            ("fetch", SubOp::Fetch { copy, version }),
            ("remove", SubOp::Remove { copy, version }),
            ("purge", SubOp::Purge { copy, version }),
            ("leave", SubOp::Leave),
        ];
        ops.into_iter().map(|(name, op)| (format!("sub-op {name}"), self.sub_op(op))).collect()
    }

    /// Of erasure-coded pools. Behind all others, whose fields stay what they were.
    fn stripes(&mut self) -> Vec<(String, Message)> {
        let (copy, version, predecessor, requests) = (self.copy(), self.version(), self.version(), self.requests());
        let (mode, change) = (Mode::Prepare, Change::Nothing);
        let (offset, len) = (self.n32(), self.n32());
        let versions = vec![(copy.object, version), (self.copy().object, self.version())];
        let ops = [
            ("write of a version alone", SubOp::Write { copy, version, predecessor, mode, change, requests }),
            ("read", SubOp::Read { copy, version, offset, len }),
            ("commit", SubOp::Commit { role: Role(4), versions }),
            ("vacate", SubOp::Vacate { keep: Role(5) }),
        ];
        let mut all: Vec<(String, Message)> =
            ops.into_iter().map(|(name, op)| (format!("sub-op {name}"), self.sub_op(op))).collect();
        let reply = SubReply::Read { data: self.data(), bitmap: self.bitmap() };
        all.push(("sub-reply read".into(), self.sub_reply(reply)));
        all
    }

    /// Of recovery by ranges. Behind all others, too.
    fn patches(&mut self) -> Vec<(String, Message)> {
        let (copy, version, base, predecessor) = (self.copy(), self.version(), self.version(), self.version());
        let (ranges, sum) = (vec![(self.n32(), self.n32()), (self.n32(), self.n32())], Some(self.n()));
        let patch = Box::new(Patch { ranges: ranges.clone(), bitmap: self.bitmap(), sum, data: self.data() });
        let requests = self.requests();
        let wanted = SubOp::Install {
            purpose: Purpose::Wanted,
            copy,
            version,
            predecessor,
            mode: Mode::Plain,
            content: Content::Tombstone,
            requests: Requests::new(),
        };
        let changes = SubReply::Changes { ranges, predecessor, sum, requests: requests.clone() };
        vec![
            ("sub-op changes".into(), self.sub_op(SubOp::Changes { copy, since: base, version })),
            ("sub-op patch".into(), self.sub_op(SubOp::Patch { copy, base, version, predecessor, patch, requests })),
            ("sub-op install that is waited for".into(), self.sub_op(wanted)),
            ("sub-reply changes".into(), self.sub_reply(changes)),
            ("sub-reply mismatch".into(), self.sub_reply(SubReply::Refused(Refused::Mismatch))),
        ]
    }

    fn sub_replies(&mut self) -> Vec<(String, Message)> {
        let (version, predecessor) = (self.version(), self.version());
        let copies = vec![
            CopyInfo { copy: self.copy(), committed: Some(self.version_info(false)), prepared: None },
            CopyInfo { copy: self.copy(), committed: None, prepared: Some(self.version_info(true)) },
        ];
        let content = Content::Data { data: self.data(), bitmap: self.bitmap() };
        let joined = SubReply::Joined {
            store: StoreUuid(u128::from(self.n()) << 64 | u128::from(self.n())),
            trusted: true,
            lease_left: Duration(self.n()),
            granted_to: Incarnation(0x0807_0605_0403_0201),
            roles: vec![(Role(0), self.digest()), (Role(1), self.digest())],
        };
        let replies = [
            ("joined", joined),
            ("digests", SubReply::Digests(vec![self.digest(), self.digest()])),
            ("listing", SubReply::Listing { copies, more: true }),
            ("done", SubReply::Done),
            ("whole", SubReply::Whole { version, predecessor, content, requests: self.requests() }),
            ("fenced", SubReply::Refused(Refused::Fenced(Epoch(self.n())))),
            ("wrong predecessor", SubReply::Refused(Refused::WrongPredecessor(version))),
            ("no such version", SubReply::Refused(Refused::NoSuchVersion)),
            ("no space", SubReply::Refused(Refused::NoSpace)),
            ("bad checksum", SubReply::Refused(Refused::BadChecksum)),
            ("damaged", SubReply::Refused(Refused::Damaged)),
            ("failed", SubReply::Refused(Refused::Failed)),
        ];
        replies.into_iter().map(|(name, reply)| (format!("sub-reply {name}"), self.sub_reply(reply))).collect()
    }
}

/// Draws nothing, so that it disturbs no other sample.
fn no_such_image() -> Message {
    let id = RequestId { session: Session { client: ClientId(1), number: 2 }, number: 3 };
    Message::Reply(Reply { id, outcome: Err(Refusal::NoSuchImage) })
}

/// Draws nothing, so that it disturbs no other sample.
fn locked() -> Message {
    let id = RequestId { session: Session { client: ClientId(1), number: 2 }, number: 3 };
    Message::Reply(Reply { id, outcome: Err(Refusal::Locked) })
}
