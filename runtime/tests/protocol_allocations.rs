//! What OSDs and clients allocate per operation once they run: counted by an allocator of this test's own, while a
//! simulated cluster serves small writes and reads. The simulator's own allocations do not count. With TRACE_ALLOCATIONS
//! in the environment it prints where one in ten comes from.
#![allow(unsafe_code)]

use ashlar_core::map::Scheme;
use ashlar_core::time::Duration;
use ashlar_sim::cluster::{Cluster, Config, StoreKind};
use ashlar_sim::world::{Moment, NodeId};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static INSIDE: Cell<Option<u32>> = const { Cell::new(None) };
    static COUNTS: Cell<[u64; 16]> = const { Cell::new([0; 16]) };
    static TRACED: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

fn count() {
    let Some(node) = INSIDE.get() else { return };
    let mut counts = COUNTS.get();
    counts[node as usize] += 1;
    COUNTS.set(counts);
    if TRACED.get() && counts[node as usize].is_multiple_of(10) {
        INSIDE.set(None);
        eprintln!("node {node}\n{}", std::backtrace::Backtrace::force_capture());
        INSIDE.set(Some(node));
    }
}

// SAFETY: hands every call on to the system's allocator, unchanged; counting touches constant-initialised cells of this
// thread, which allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`; the memory came from the same allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn probe(node: NodeId, moment: Moment) {
    INSIDE.set(match moment {
        Moment::Begin => Some(node.0),
        Moment::End => None,
    });
}

const OPERATIONS: u32 = 20_000;

/// Three OSDs, one client with 16 operations of one block in flight on so many objects, no faults.
fn configuration(read_percent: u64, objects: u32) -> Config {
    let mut config = Config::draw(1).calm();
    (config.osds, config.osds_per_host, config.mons) = (3, 1, 1);
    (config.scheme, config.parity_chunks) = (Scheme::Replicated, 0);
    (config.pg_size, config.pg_minsize, config.pg_count) = (3, 2, 8);
    (config.object_blocks, config.image_objects) = (4, objects);
    config.store = StoreKind::Log { power_loss_protection: true, atomic_bytes: 4096, write: Duration::micros(20) };
    (config.wire, config.check_every, config.gather) = (false, u64::MAX, Duration::micros(20));
    (config.net_base, config.net_tail_ppm) = (Duration::micros(10), 0);
    config.load.clients = 1;
    (config.load.depth, config.load.operations) = (16, OPERATIONS);
    (config.load.read_percent, config.load.discard_percent) = (read_percent, 0);
    (config.load.max_blocks, config.load.hot_objects, config.load.think) = (1, objects, Duration::micros(1));
    config
}

fn run(cluster: &mut Cluster) {
    cluster.start_load();
    let done = cluster.run_until(Duration::secs(60), |cluster| cluster.load_done());
    let done = done.unwrap_or_else(|finding| panic!("{}", finding.what));
    assert!(done, "the load does not end: {}", cluster.describe_stuck());
}

/// Allocations per thousand operations of all OSDs together, and of the client.
fn measure(read_percent: u64, objects: u32) -> (u64, u64) {
    let mut cluster = Cluster::with_probe(configuration(read_percent, objects), probe);
    cluster.settle_down().expect("comes up");
    for _ in 0..3 {
        run(&mut cluster);
    }
    let before = COUNTS.get();
    TRACED.set(std::env::var_os("TRACE_ALLOCATIONS").is_some());
    run(&mut cluster);
    TRACED.set(false);
    let after = COUNTS.get();
    let of = |nodes: std::ops::Range<usize>| -> u64 {
        nodes.map(|node| after[node] - before[node]).sum::<u64>() * 1000 / u64::from(OPERATIONS)
    };
    let (osds, client) = (of(1..4), of(4..5));
    println!("{read_percent} % reads, {objects} objects: {osds} by OSDs, {client} by the client, in 1000 operations");
    (osds, client)
}

/// Three members' share of a thousand writes: measured 50, of which 20 are lists of more than two requests (see below),
/// 20 are new buffers of the pool, for compactions that met, and 10 come with time: heartbeats, statistics.
const BY_WRITES: u64 = 80;
/// Measured 10, all of which come with time.
const BY_READS: u64 = 20;

#[test]
fn small_writes_allocate_nothing_each() {
    let (osds, client) = measure(0, 512);
    assert!(osds <= BY_WRITES && client == 0, "{osds} {client}");
}

#[test]
fn small_reads_allocate_nothing_each() {
    let (osds, client) = measure(100, 512);
    assert!(osds <= BY_READS && client == 0, "{osds} {client}");
}

/// A version names the requests that it includes while their answers are on their way, two of them in place. Objects that
/// get more writes at a time than that pay with an allocation for each copy of the longer list: about half of the copies
/// where 16 writes meet on 32 objects. More places would cost memory for every object that is stored.
#[test]
fn writes_that_crowd_on_few_objects_allocate_lists_of_requests_only() {
    let (osds, client) = measure(0, 32);
    assert!((100..=2500).contains(&osds) && client == 0, "{osds} {client}");
}
