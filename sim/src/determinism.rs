//! The same run must be the same each time, in each build: what differs is found by the hashes that runs leave behind
//! every thousand events, and then event by event.

use crate::case::Case;
use crate::run::{Recording, Report, run_case};
use crate::scenarios::Scenario;
use crate::world::CHECKPOINT_EVENTS;
use std::ops::Range;

/// One seed in so many is run twice.
pub const ONE_IN: u64 = 20;

/// Runs once more and compares; an error says which event is the first that differs.
pub fn repeat(case: &Case, scenario: &Scenario, first: &Report) -> Result<(), String> {
    let second = run_case(case, scenario, &Recording::default());
    if (first.trace, first.events) == (second.trace, second.events) {
        return Ok(());
    }
    let window = differing(&first.checkpoints, &second.checkpoints);
    let recording = Recording { window: Some(window.clone()), ..Recording::default() };
    let (a, b) = (run_case(case, scenario, &recording).lines, run_case(case, scenario, &recording).lines);
    let hashes = format!("hashes {:016x} and {:016x}", first.trace, second.trace);
    Err(format!("not deterministic: {hashes}; {}", first_difference(&a, &b, &window)))
}

/// The events among which the first that differs must be.
pub fn differing(a: &[u64], b: &[u64]) -> Range<u64> {
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count() as u64;
    // Before the first checkpoint that differs; the checkpoint is taken as its event begins.
    let end = if same < a.len().min(b.len()) as u64 { (same + 1) * CHECKPOINT_EVENTS + 1 } else { u64::MAX };
    same * CHECKPOINT_EVENTS..end
}

/// The first event that differs, as text.
pub fn first_difference(a: &[String], b: &[String], window: &Range<u64>) -> String {
    let differs = (0..a.len().max(b.len())).find(|at| a.get(*at) != b.get(*at));
    let Some(at) = differs else {
        return format!("events {}.. differ, though not when they are looked at", window.start);
    };
    let line = |lines: &[String]| lines.get(at).map_or("(the run is over)".to_string(), Clone::clone);
    format!("the first event that differs:\n  {}\n  {}", line(a), line(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Choice;

    #[test]
    fn the_window_is_where_the_hashes_part() {
        assert_eq!(differing(&[1, 2, 3], &[1, 9, 3]), CHECKPOINT_EVENTS..2 * CHECKPOINT_EVENTS + 1);
        assert_eq!(differing(&[1, 2], &[1, 2]), 2 * CHECKPOINT_EVENTS..u64::MAX);
        assert_eq!(differing(&[], &[]), 0..u64::MAX);
    }

    #[test]
    fn the_first_line_that_differs_is_shown() {
        let lines = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let text = first_difference(&lines(&["a", "b"]), &lines(&["a", "c"]), &(0..9));
        assert!(text.contains("  b\n  c"), "{text}");
        let text = first_difference(&lines(&["a", "b"]), &lines(&["a"]), &(0..9));
        assert!(text.contains("the run is over"), "{text}");
    }

    #[test]
    fn a_fork_goes_the_same_way() {
        use crate::cluster::Cluster;
        use ashlar_core::time::Duration;
        let mix = Scenario::named("mix").expect("the default scenario");
        for seed in [2, 3] {
            let mut cluster = Cluster::new(Case::drawn(seed, mix, Choice::default()).config);
            cluster.settle_down().expect("a cluster without faults comes up");
            cluster.start_faults();
            cluster.start_load();
            cluster.run_for(Duration::millis(700)).expect("no promise is broken");
            let mut fork = cluster.clone();
            cluster.run_for(Duration::secs(2)).expect("no promise is broken");
            assert_ne!(cluster.world.trace(), fork.world.trace());
            fork.run_for(Duration::secs(2)).expect("no promise is broken");
            assert_eq!(cluster.world.trace(), fork.world.trace(), "seed {seed}");
        }
    }

    #[test]
    fn a_run_is_the_same_twice_and_a_doctored_one_is_not() {
        let mix = Scenario::named("mix").expect("the default scenario");
        let case = Case::drawn(3, mix, Choice::default());
        let report = run_case(&case, mix, &Recording::default());
        assert_eq!(repeat(&case, mix, &report), Ok(()));
        let doctored = Report { trace: !report.trace, ..report };
        assert!(repeat(&case, mix, &doctored).is_err());
    }
}
