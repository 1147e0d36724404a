//! Golden bytes of every kind of record, as docs/format.md has them.

use crate::buf::BufPool;
use crate::id::{ClientId, CopyId, Epoch, InodeId, ObjectId, PoolId, RequestId, Requests, Role, Session, Version};
use crate::store::log::object::{Content, Overlay, State, Sums};
use crate::store::log::record::{
    BadRecord, Body, Join, Label, NO_BLOCK, Position, Record, Sectors, UnitData, snapshot_bytes,
};
use crate::store::{Bitmap, Mode};
use smallvec::smallvec;

const UNITS: usize = 4;

fn copy() -> CopyId {
    let object = ObjectId { pool: PoolId(0x0102_0304), inode: InodeId(0x11), stripe: 0x22 };
    CopyId { object, role: Role(5) }
}

fn version(seq: u64) -> Version {
    Version { epoch: Epoch(0xe), seq }
}

fn label() -> Label {
    let session = Session { client: ClientId(0xc), number: 0xd };
    let requests: Requests = smallvec![RequestId { session, number: 0xf }];
    Label { version: version(9), predecessor: version(8), requests }
}

fn join(mode: Mode, commits: bool, replaces: bool) -> Join {
    Join { mode, commits, replaces, first: replaces }
}

fn bitmap(first: u32, count: u32) -> Bitmap {
    let mut bitmap = Bitmap::default();
    bitmap.set(first, count, true);
    bitmap
}

fn unit(pool: &mut BufPool, unit: u16) -> UnitData {
    let buf = pool.copy_of(&[0xab; 4096]);
    UnitData { unit, crc: buf.crc(), buf }
}

const OBJECT: &str = "04030201 05 000000 1100000000000000 2200000000000000";
const VERSION: &str = "0e00000000000000 0900000000000000";
const PREDECESSOR: &str = "0e00000000000000 0800000000000000";
const REQUEST: &str = "0c00000000000000 0d00000000000000 0f00000000000000";

/// Checks the bytes without the units' data, and that they come back.
fn golden(body: Body, head: &str, parts: &[&str], data_bytes: usize) {
    let record = Record { copy: copy(), body };
    let mut bytes = vec![0xee; record.bytes()];
    record.encode(&mut bytes);
    let hex: String = bytes[..bytes.len() - data_bytes].iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = format!("{head} {OBJECT} {}", parts.join(" ")).replace(' ', "");
    assert_eq!(hex, expected, "{record:?}");
    let mut pool = BufPool::new();
    assert_eq!(Record::decode(&bytes, UNITS, &mut pool), Ok((record, bytes.len())));
    for short in (0..bytes.len()).step_by(8) {
        assert!(Record::decode(&bytes[..short], UNITS, &mut pool).is_err());
    }
}

#[test]
fn put() {
    let sums: Sums = smallvec![1, 2, 0, 0];
    let body =
        Body::Put { label: label(), join: join(Mode::Prepare, true, false), block: 7, bitmap: bitmap(0, 9), sums };
    let fields = "07000000 0900 00 01 0200 000000000000";
    golden(body, "01 01 0300 70000000", &[VERSION, PREDECESSOR, fields, REQUEST, "01000000 02000000"], 0);
}

#[test]
fn put_with_a_hole_and_put_of_nothing() {
    let label = Label { requests: Requests::new(), ..label() };
    let sums: Sums = smallvec![0, 0, 3, 0];
    let body =
        Body::Put { label: label.clone(), join: join(Mode::Plain, false, true), block: 7, bitmap: bitmap(17, 2), sums };
    let fields = "07000000 0000 01 00 0100 000000000000 0000060000000000 03000000 00000000";
    golden(body, "01 01 0c00 60000000", &[VERSION, PREDECESSOR, fields], 0);
    let body = Body::Put {
        label,
        join: join(Mode::Plain, false, false),
        block: NO_BLOCK,
        bitmap: Bitmap::default(),
        sums: Sums::from_elem(0, UNITS),
    };
    let fields = "ffffffff 0000 00 00 0000 000000000000";
    golden(body, "01 01 0000 50000000", &[VERSION, PREDECESSOR, fields], 0);
}

#[test]
fn inline() {
    let mut pool = BufPool::new();
    let units = vec![unit(&mut pool, 1), unit(&mut pool, 3)];
    let crc: String = units[0].crc.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let body = Body::Inline {
        label: label(),
        join: join(Mode::Plain, true, false),
        set: Sectors { first: 8, count: 2 },
        clear: Sectors { first: 24, count: 3 },
        units,
    };
    let fields = "0800 0200 1800 0300 0200 01 0000000000";
    let units = format!("0100 0300 {crc} {crc} 00000000");
    golden(body, "02 01 0200 78200000", &[VERSION, PREDECESSOR, fields, REQUEST, &units], 8192);
}

#[test]
fn patch() {
    let mut pool = BufPool::new();
    let units = vec![unit(&mut pool, 1), unit(&mut pool, 3)];
    let crc: String = units[0].crc.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let body = Body::Patch { label: label(), join: join(Mode::Plain, true, false), bitmap: bitmap(0, 32), units };
    let fields = "2000 00 01 0200 0000";
    let units = format!("0100 0300 {crc} {crc} 00000000");
    golden(body, "0c 01 0200 70200000", &[VERSION, PREDECESSOR, fields, REQUEST, &units], 8192);
}

#[test]
fn intent() {
    let sums: Sums = smallvec![4, 5];
    let set = Sectors { first: 8, count: 16 };
    let body = Body::Intent { label: label(), block: 7, first_unit: 1, set, sums };
    let fields = "07000000 0100 0200 0800 1000 01 000000";
    golden(body, "03 01 0000 70000000", &[VERSION, PREDECESSOR, fields, REQUEST, "04000000 05000000"], 0);
}

#[test]
fn records_that_end_something() {
    golden(Body::Commit(version(9)), "04 01 0000 30000000", &[VERSION], 0);
    golden(Body::Rollback(version(9)), "05 01 0000 30000000", &[VERSION], 0);
    golden(Body::Purge(version(9)), "07 01 0000 30000000", &[VERSION], 0);
    let body = Body::Tombstone { label: label(), join: join(Mode::Prepare, false, false) };
    golden(body, "06 01 0100 60000000", &[VERSION, PREDECESSOR, "01 00000000000000", REQUEST], 0);
}

#[test]
fn compacted_and_void() {
    let body = Body::Compacted { upto: 0x33, units: smallvec![0x5] };
    golden(body, "08 01 0000 38000000", &["3300000000000000 01 00000000000000 0500000000000000"], 0);
    golden(Body::Moved { from: 7, to: 0x109 }, "0b 01 0000 28000000", &["07000000 09010000"], 0);
    let body = Body::Void(Position { page: 0x44, index: 6 });
    golden(body, "0a 01 0000 30000000", &["4400000000000000 0600 000000000000"], 0);
}

#[test]
fn snapshot() {
    let mut pool = BufPool::new();
    let committed = State {
        label: label(),
        content: Content::Data,
        block: 7,
        on_top: false,
        damaged: true,
        bitmap: bitmap(0, 8),
        sums: smallvec![1, 0, 0, 0],
        overlays: Vec::new(),
    };
    let label = Label { requests: Requests::new(), ..label() };
    let overlays = vec![Overlay { page: 0, data: unit(&mut pool, 0) }];
    let crc: String = overlays[0].data.crc.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let prepared = State {
        label,
        content: Content::Data,
        block: NO_BLOCK,
        on_top: true,
        damaged: false,
        bitmap: bitmap(0, 8),
        sums: Sums::new(),
        overlays,
    };
    let bytes = snapshot_bytes(Some(&committed), Some(&prepared));
    assert_eq!(bytes, 0x20 + 0x50 + 0x38 + 4096);
    let first = "07000000 0800 00 01 0100 0000 01 01 0000";
    let second = "ffffffff 0800 00 00 0000 0100 01 02 0000";
    let units = format!("0000 0000 {crc}");
    let parts = [VERSION, PREDECESSOR, first, REQUEST, "01000000 00000000", VERSION, PREDECESSOR, second, &units];
    let body = Body::Snapshot { committed: Some(committed), prepared: Some(Box::new(prepared)) };
    golden(body, "09 01 0300 a8100000", &parts, 4096);
}

#[test]
fn what_a_newer_version_wrote_is_refused() {
    let record = Record { copy: copy(), body: Body::Commit(version(9)) };
    let mut bytes = vec![0; record.bytes()];
    record.encode(&mut bytes);
    for (at, value) in [(0, 99), (1, 2), (2, 1)] {
        let mut newer = bytes.clone();
        newer[at] = value;
        assert_eq!(Record::decode(&newer, UNITS, &mut BufPool::new()), Err(BadRecord::Unknown));
    }
}

#[test]
fn data_without_a_block_and_a_block_without_data_are_refused() {
    let refused = |body: Body| {
        let record = Record { copy: copy(), body };
        let mut bytes = vec![0; record.bytes()];
        record.encode(&mut bytes);
        assert_eq!(Record::decode(&bytes, UNITS, &mut BufPool::new()), Err(BadRecord::Malformed), "{record:?}");
    };
    for (block, bitmap) in [(NO_BLOCK, bitmap(0, 8)), (7, Bitmap::default())] {
        let sums: Sums = smallvec![1; UNITS];
        let join = join(Mode::Plain, false, true);
        refused(Body::Put { label: label(), join, block, bitmap: bitmap.clone(), sums: sums.clone() });
        let state = State { block, bitmap, sums, ..State::empty(label(), Content::Data) };
        refused(Body::Snapshot { committed: Some(state), prepared: None });
    }
}
