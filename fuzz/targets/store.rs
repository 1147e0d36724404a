//! Whatever a device has done to a store (garbage, zeroes, pages that are elsewhere, pages that are old), opening it ends
//! without a panic, and every read gives what was once written to that object, or an error.
//!
//! Some deeds forge: they change a page of the log and make its checksum right again, which no device does. Then what lies
//! behind the checksum is parsed; only panics are looked for.
#![no_main]

use ashlar_core::buf::BufPool;
use ashlar_core::id::{
    ClusterUuid, CopyId, Epoch, HashRange, InodeId, ObjectId, OsdId, PoolId, Role, StoreUuid, Version,
};
use ashlar_core::io::{DiskDone, DiskOp, Effect, Effects, Env};
use ashlar_core::rng::Rng;
use ashlar_core::store::log::{Durability, Format, LogStore, OpenConfig, format};
use ashlar_core::store::{Data, Mode, ObjectStore, StoreOp, StoreReply, StoreState};
use ashlar_core::time::Time;
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

const DEVICE_BYTES: usize = 6 << 20;
const PAGE: usize = 4096;
/// Place of the length in the header of a log's page (docs/format.md).
const LENGTH_AT: usize = 72;
const OBJECTS: u8 = 24;
const POOL: PoolId = PoolId(1);

/// A device in memory, and a store on it.
struct World {
    device: Vec<u8>,
    rng: Rng,
    bufs: BufPool,
    out: Effects,
}

macro_rules! env {
    ($world:expr) => {
        &mut Env { now: Time(1), rng: &mut $world.rng, bufs: &mut $world.bufs, out: &mut $world.out }
    };
}

impl World {
    fn new(device: Vec<u8>) -> World {
        World { device, rng: Rng::new(1), bufs: BufPool::new(), out: Effects::default() }
    }

    fn carry_out(&mut self, op: &DiskOp) -> DiskDone {
        match op {
            DiskOp::Read { offset, len, .. } => {
                let start = usize::try_from(*offset).expect("a small device");
                DiskDone::Read(Ok(self.bufs.copy_of(&self.device[start..start + *len as usize])))
            }
            DiskOp::Write { offset, data, .. } => {
                let start = usize::try_from(*offset).expect("a small device");
                self.device[start..start + data.len() as usize].copy_from_slice(data.bytes());
                DiskDone::Done(Ok(()))
            }
            DiskOp::Flush { .. } | DiskOp::Discard { .. } => DiskDone::Done(Ok(())),
        }
    }

    /// Runs until the store has nothing to do.
    fn settle(&mut self, store: &mut LogStore) {
        loop {
            store.end_of_round(env!(self));
            let effects = std::mem::take(&mut self.out.queue);
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                if let Effect::Io { id, op } = effect {
                    let done = self.carry_out(&op);
                    store.handle_io(env!(self), id, done);
                }
            }
        }
    }

    fn open(&mut self) -> LogStore {
        let config = OpenConfig::new(ClusterUuid(1), OsdId(1), DEVICE_BYTES as u64, Durability::Flush);
        let mut store = LogStore::open(config, env!(self));
        self.settle(&mut store);
        store
    }
}

fn copy(object: u8) -> CopyId {
    CopyId { object: ObjectId { pool: POOL, inode: InodeId(1), stripe: object.into() }, role: Role(0) }
}

fn version(seq: u64) -> Version {
    Version { epoch: Epoch(1), seq }
}

/// A store with objects that were written whole and in part, some of them prepared, some deleted.
fn template() -> &'static [u8] {
    static TEMPLATE: OnceLock<Vec<u8>> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let mut world = World::new(vec![0; DEVICE_BYTES]);
        let new = Format {
            cluster: ClusterUuid(1),
            osd: OsdId(1),
            store: StoreUuid(7),
            block_size: 16 << 10,
            data_bytes: DEVICE_BYTES as u64,
            log_device_bytes: None,
            log_bytes: Some(1 << 20),
            segment_bytes: None,
        };
        for op in format(&new, &mut world.bufs).expect("it is large enough") {
            world.carry_out(&op);
        }
        let mut store = world.open();
        assert_eq!(store.state(), StoreState::Open { trusted: true });
        for round in 0..6u64 {
            for object in 0..OBJECTS {
                let op = change(&mut world, object, round);
                store.submit(env!(world), round << 8 | u64::from(object), op);
                world.settle(&mut store);
                while store.next_completion().is_some() {}
            }
        }
        world.device
    })
}

fn change(world: &mut World, object: u8, round: u64) -> StoreOp {
    let predecessor = if round == 0 { Version::NONE } else { version(round) };
    let (copy, version) = (copy(object), version(round + 1));
    if round == 4 && object % 5 == 0 {
        return StoreOp::Tombstone { copy, version, predecessor, mode: Mode::Plain, requests: Default::default() };
    }
    let len = if (object + round as u8) % 3 == 0 { 16 << 10 } else { 512 << (round % 4) };
    let data = Data::new(world.bufs.copy_of(&vec![object + 1; len]));
    StoreOp::Write {
        copy,
        version,
        predecessor,
        offset: 0,
        data: Some(data),
        mode: if round == 5 && object % 2 == 0 { Mode::Prepare } else { Mode::Plain },
        commits_predecessor: false,
        requests: Default::default(),
    }
}

/// Pages that are not all zeroes: there damage matters.
fn pages() -> &'static [usize] {
    static PAGES: OnceLock<Vec<usize>> = OnceLock::new();
    PAGES.get_or_init(|| {
        let used = |page: &usize| template()[page * PAGE..(page + 1) * PAGE].iter().any(|byte| *byte != 0);
        (0..DEVICE_BYTES / PAGE).filter(used).collect()
    })
}

/// Damages the device: each five bytes are one deed. Returns whether some were forgeries.
fn damage(device: &mut [u8], data: &[u8]) -> bool {
    let mut forged = false;
    for deed in data.chunks_exact(5) {
        let page = |low: u8, high: u8| pages()[(usize::from(low) | usize::from(high) << 8) % pages().len()] * PAGE;
        let at = page(deed[1], deed[2]);
        match deed[0] % 7 {
            0 => device[at + usize::from(deed[3]) * 16] ^= deed[4] | 1,
            1 => device[at..at + PAGE].fill(0),
            2 => device.copy_within(page(deed[3], deed[4])..page(deed[3], deed[4]) + PAGE, at),
            3 => device[at + usize::from(deed[3]) * 16..at + PAGE].fill(deed[4]),
            kind => forged |= forge(device, kind, [deed[1], deed[2]], deed[3], deed[4]),
        }
    }
    forged
}

/// Changes a page of the log in its first 256 bytes, or in later ones, and seals it again. Returns whether there was one.
fn forge(device: &mut [u8], kind: u8, which: [u8; 2], place: u8, value: u8) -> bool {
    let sealed: Vec<usize> = pages().iter().map(|page| page * PAGE).filter(|at| is_log_page(device, *at)).collect();
    let Some(at) = sealed.get(usize::from(u16::from_le_bytes(which)) % sealed.len().max(1)).copied() else {
        return false;
    };
    let length = sealed_bytes(device, at);
    // Behind magic, checksum and the store's name.
    let place = 24 + usize::from(place) * if kind == 6 { 16 } else { 1 };
    if place >= length {
        return false;
    }
    match kind {
        4 => device[at + place] ^= value | 1,
        _ => device[at + place] = value,
    }
    let length = sealed_bytes(device, at);
    device[at + 4..at + 8].fill(0);
    let crc = crc32fast::hash(&device[at..at + length]);
    device[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
    true
}

/// Whether a page of the log begins there.
fn is_log_page(device: &[u8], at: usize) -> bool {
    device[at..at + 4] == *b"ALPG"
}

/// Bytes under the checksum of the log's page at `at`: whole units of the length in its header.
fn sealed_bytes(device: &[u8], at: usize) -> usize {
    let length = u32::from_le_bytes(device[at + LENGTH_AT..at + LENGTH_AT + 4].try_into().expect("four bytes"));
    (length as usize).next_multiple_of(PAGE).clamp(PAGE, device.len() - at)
}

fuzz_target!(|data: &[u8]| {
    let mut world = World::new(template().to_vec());
    let forged = damage(&mut world.device, data);
    let mut store = world.open();
    let StoreState::Open { .. } = store.state() else { return };
    if !forged {
        store.check();
    }
    let mut copies = Vec::new();
    store.list(POOL, Role(0), HashRange::ALL, None, usize::MAX, &mut copies);
    for object in 0..OBJECTS {
        let op = StoreOp::Read { copy: copy(object), version: None, offset: 0, len: 16 << 10 };
        store.submit(env!(world), 1 << 20 | u64::from(object), op);
    }
    world.settle(&mut store);
    while let Some(completion) = store.next_completion() {
        let tag = (completion.token & 0xff) as u8 + 1;
        if forged {
            continue;
        }
        if let Ok(StoreReply::Read { data, .. }) = completion.result {
            assert!(data.verify());
            assert!(data.buf.bytes().iter().all(|byte| *byte == tag || *byte == 0), "object {tag} holds others' bytes");
        }
    }
});
