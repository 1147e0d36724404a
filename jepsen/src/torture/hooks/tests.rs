//! The rig against one simulated device in the place of a cluster: an honest one loses nothing, a liar shows in the canaries, one
//! that loses what a pool has promised before a flush shows in the workload alone; and each loss leaves its proof.

use super::*;
use crate::devices::{Lies, Served};
use crate::scratch::Scratch;
use ashlar_faultinject::disk::Outcome;
use std::sync::Arc;

const BYTES: u64 = 4 << 20;

/// A device whose power goes when a file appears, which is removed when it is gone: commands of a shell can do that.
struct Bench {
    scratch: Scratch,
    served: Arc<Served>,
    over: Arc<AtomicBool>,
}

impl Bench {
    fn new() -> Bench {
        let scratch = Scratch::new("hooked").expect("a directory");
        let served = Arc::new(Served::start(&scratch.join("device.sock"), BYTES, 7).expect("it listens"));
        let (over, cut) = (Arc::new(AtomicBool::new(false)), scratch.join("cut"));
        let (device, end) = (Arc::clone(&served), Arc::clone(&over));
        std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                if cut.exists() {
                    device.fail();
                    device.power_loss(Outcome::LoseAll);
                    std::fs::remove_file(&cut).expect("it is there");
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Bench { scratch, served, over }
    }

    fn hooks(&self, promise: Promise) -> Hooks {
        let cut = self.scratch.join("cut").display().to_string();
        Hooks {
            socket: self.scratch.join("device.sock"),
            export: String::new(),
            cut: format!("touch '{cut}'; while test -e '{cut}'; do sleep 0.02; done"),
            restore: "true".into(),
            seconds: 1,
            patience: Duration::from_secs(20),
            promise,
            out: Some(self.scratch.join("out")),
        }
    }

    fn witness(&self) -> Witness {
        Witness::open(&self.scratch.join("witness")).expect("it opens")
    }

    fn kept(&self, name: &str) -> String {
        std::fs::read_to_string(self.scratch.join("out").join(name)).unwrap_or_default()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

#[test]
fn an_honest_device_loses_nothing_that_was_flushed() {
    let bench = Bench::new();
    let mut witness = bench.witness();
    let judgement = bench.hooks(Promise::None).run(3, &mut witness, &mut Rng::new(1)).expect("it runs");
    assert_eq!((judgement, witness.cuts), (Judgement::Clean, 3));
    assert!(witness.acknowledged > 0 && witness.canaries() == Canaries { begun: 3, kept: 3 });
    assert!(!bench.scratch.join("out").exists(), "there is nothing to prove");
}

#[test]
fn a_flush_that_was_not_kept_kills_the_canaries() {
    let bench = Bench::new();
    bench.served.set_lies(Lies { flush: true, ..Lies::default() });
    let judgement = bench.hooks(Promise::None).run(3, &mut bench.witness(), &mut Rng::new(1)).expect("it runs");
    let Judgement::FlushLost(words) = &judgement else { panic!("{judgement:?}") };
    assert!(
        words[0].starts_with("canary 0 was written with FUA") && words[0].ends_with("holds that of time 0"),
        "{words:?}"
    );
    assert!(bench.kept("judgement.txt").contains("A FLUSH WAS NOT KEPT"));
    assert!(bench.kept("witness").contains("K 1 "), "what was acknowledged is kept");
}

/// The device keeps what is flushed, and nothing else: a pool on it that promises more breaks its promise, not the device.
#[test]
fn what_is_missing_although_the_canaries_live_is_the_promise_of_the_pool() {
    let bench = Bench::new();
    let judgement = bench.hooks(Promise::All).run(3, &mut bench.witness(), &mut Rng::new(1)).expect("it runs");
    assert!(matches!(judgement, Judgement::Missing(_)), "{judgement:?}");
    let acknowledged = bench.kept("acknowledged.txt");
    assert!(acknowledged.contains("allowed are the writes") && acknowledged.contains("acknowledged as durable at 20"));
    assert!(bench.kept("events.txt").contains("Z the power is gone"));
    let found = std::fs::read_dir(bench.scratch.join("out")).expect("a folder").flatten();
    assert!(found.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("found-")));
}

#[test]
fn the_workload_stays_away_from_the_canaries_and_has_both_sizes() {
    let mut rng = Rng::new(3);
    for end in [1, 40, 1000, 1 << 20] {
        let drawn: Vec<_> = (0..500).map(|_| draw(end, &mut rng)).collect();
        assert!(drawn.iter().all(|blocks| blocks.start < blocks.end && blocks.end <= end));
        assert_eq!(drawn.iter().any(|blocks| blocks.end - blocks.start == LARGE_BLOCKS), end >= LARGE_BLOCKS);
    }
}
