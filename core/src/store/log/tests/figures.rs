//! What the store writes for what clients write, and that it goes on for ever.

use super::device::Device;
use crate::buf::{Buf, BufPool};
use crate::id::{
    ClientId, ClusterUuid, CopyId, Epoch, InodeId, ObjectId, OsdId, PoolId, RequestId, Requests, Role, Session,
    StoreUuid, Version,
};
use crate::io::{DiskOp, Effect, Effects, Env};
use crate::rng::Rng;
use crate::store::log::{Durability, Format, LogStore, OpenConfig, Overwrites, Way, format};
use crate::store::{Data, Mode, ObjectStore, StoreOp, StoreReply, StoreState, StoreStats};
use crate::time::{Duration, Time};

const BLOCK: u32 = 128 << 10;

/// A store of so many objects, all written.
pub struct Bench {
    store: LogStore,
    rng: Rng,
    bufs: BufPool,
    out: Effects,
    now: Time,
    device: Device,
    versions: Vec<u64>,
    busy: Vec<bool>,
    body: Vec<Buf>,
    /// Whether clients do something else for a moment after each answer.
    thinks: bool,
}

impl Bench {
    pub fn new(objects: usize, durability: Durability, atomic_bytes: u32) -> Bench {
        let data_bytes = objects as u64 * u64::from(BLOCK) * 11 / 10 + (4 << 20);
        let wanted = Format {
            cluster: ClusterUuid(1),
            osd: OsdId(1),
            store: StoreUuid(2),
            block_size: BLOCK,
            data_bytes,
            log_device_bytes: None,
            log_bytes: None,
            segment_bytes: None,
        };
        let mut device = Device::new(data_bytes as usize, durability != Durability::Plp);
        let (mut rng, mut bufs, mut out) = (Rng::new(1), BufPool::new(), Effects::default());
        for op in format(&wanted, &mut bufs).unwrap() {
            if let DiskOp::Write { offset, data, .. } = op {
                device.media[offset as usize..][..data.len() as usize].copy_from_slice(data.bytes());
            }
        }
        let config = OpenConfig {
            overwrites: Overwrites { way: Way::Auto, atomic_bytes },
            ..OpenConfig::new(wanted.cluster, wanted.osd, data_bytes, durability)
        };
        let mut env = Env { now: Time(0), rng: &mut rng, bufs: &mut bufs, out: &mut out };
        let store = LogStore::open(config, &mut env);
        let body = [4096, BLOCK].map(|len| bufs.copy_of(&vec![7; len as usize])).to_vec();
        let (versions, busy) = (vec![0; objects], vec![false; objects]);
        let mut bench = Bench { store, rng, bufs, out, now: Time(0), device, versions, busy, body, thinks: false };
        while bench.store.state() == StoreState::Opening {
            bench.round(1);
        }
        for object in 0..objects {
            bench.write(object, 0, 1);
            while bench.busy[object] {
                bench.round(usize::MAX);
            }
        }
        bench
    }

    fn write(&mut self, object: usize, offset: u32, body: usize) {
        let seq = self.versions[object];
        self.versions[object] += 1;
        self.busy[object] = true;
        let session = Session { client: ClientId(1), number: 1 };
        let requests: Requests = smallvec::smallvec![RequestId { session, number: seq }];
        let of = |seq: u64| if seq == 0 { Version::NONE } else { Version { epoch: Epoch(1), seq } };
        let stripe = object as u64;
        let op = StoreOp::Write {
            copy: CopyId { object: ObjectId { pool: PoolId(1), inode: InodeId(1), stripe }, role: Role(0) },
            version: of(seq + 1),
            predecessor: of(seq),
            offset,
            data: Some(Data::new(self.body[body].clone())),
            mode: Mode::Plain,
            commits_predecessor: false,
            requests,
        };
        let env = &mut Env { now: self.now, rng: &mut self.rng, bufs: &mut self.bufs, out: &mut self.out };
        self.store.submit(env, object as u64, op);
    }

    /// One round of an event loop: up to `most` completions. Says how many writes were acknowledged.
    fn round(&mut self, most: usize) -> usize {
        let mut env = Env { now: self.now, rng: &mut self.rng, bufs: &mut self.bufs, out: &mut self.out };
        self.store.end_of_round(&mut env);
        while let Some(effect) = env.out.queue.pop() {
            if let Effect::Io { id, op } = effect {
                self.device.submit(id, op);
            }
        }
        for _ in 0..most.min(self.device.outstanding()) {
            let (id, done) = self.device.complete_at(0, env.bufs);
            self.store.handle_io(&mut env, id, done);
        }
        self.now = self.now + Duration::micros(20);
        let mut acknowledged = 0;
        while let Some(completion) = self.store.next_completion() {
            assert_eq!(completion.result, Ok(StoreReply::Done));
            self.busy[completion.token as usize] = false;
            acknowledged += 1;
        }
        acknowledged
    }

    /// So many random writes, `depth` at a time, each of another object.
    pub fn run(&mut self, depth: usize, writes: usize, body: usize) -> StoreStats {
        let before = self.store.stats();
        let (mut begun, mut done) = (0, 0);
        let mut rounds = 0;
        while done < writes {
            while begun < writes && begun - done < depth {
                let object = self.rng.below(self.versions.len() as u64) as usize;
                if self.busy[object] {
                    break;
                }
                let units = u64::from((BLOCK - self.body[body].len()) / 4096) + 1;
                let offset = u32::try_from(self.rng.below(units)).unwrap() * 4096;
                self.write(object, offset, body);
                begun += 1;
            }
            let answered = self.round(usize::MAX);
            if self.thinks && answered > 0 {
                self.round(usize::MAX);
            }
            done += answered;
            rounds += 1;
            assert!(rounds < writes * 200, "stuck at {done} of {writes}: {}", self.store.describe());
        }
        let after = self.store.stats();
        StoreStats {
            device_written_bytes: after.device_written_bytes - before.device_written_bytes,
            device_writes: after.device_writes - before.device_writes,
            device_flushes: after.device_flushes - before.device_flushes,
            ..after
        }
    }

    /// Device bytes for each client byte.
    fn amplification(&mut self, depth: usize, writes: usize, body: usize, most: f64) {
        let stats = self.run(depth, writes, body);
        let bytes = writes as f64 * f64::from(self.body[body].len());
        let ratio = stats.device_written_bytes as f64 / bytes;
        let each = stats.device_writes as f64 / writes as f64;
        eprintln!(
            "{:>7} bytes at depth {depth:2}: {ratio:.3} device bytes a byte, {each:.2} writes",
            self.body[body].len()
        );
        assert!(ratio <= most, "{ratio} at depth {depth}");
        self.store.check();
    }
}

#[test]
fn device_bytes_for_each_client_byte() {
    let mut bench = Bench::new(800, Durability::Plp, 0);
    bench.amplification(1, 300, 1, 1.04);
    bench.amplification(8, 600, 1, 1.01);
    bench.amplification(1, 6000, 0, 3.3);
    bench.thinks = true;
    bench.amplification(1, 6000, 0, 3.4);
    bench.thinks = false;
    bench.amplification(32, 20_000, 0, 2.3);
    assert_eq!(bench.store.ways().intents, 0, "the device promises nothing");
    let mut bench = Bench::new(800, Durability::Plp, 4096);
    bench.amplification(1, 6000, 0, 3.3);
    assert_eq!(bench.store.ways().intents, 0, "an idle device is for latency");
    bench.amplification(32, 40_000, 0, 1.1);
    bench.amplification(16, 40_000, 0, 1.1);
}
