//! Testing the tester: mistakes in real daemons are found, and without them the same runs are clean.

use ashlar_jepsen::planted::{SUSPECTS, binary};

/// Runs for each mistake; each was found in the first or second when this was written.
const ROUNDS: u32 = 4;

#[test]
#[ignore = "an hour, and builds of its own: `cargo ci torture -- planted` says what is found"]
fn planted_mistakes_are_found_and_nothing_without_them() {
    let planted = binary().expect("it builds");
    let mut missed = Vec::new();
    for suspect in SUSPECTS.iter().filter(|suspect| suspect.is_possible()) {
        let found = suspect.hunt(Some(planted.clone()), true, ROUNDS, 1).expect("a run");
        let innocent = suspect.hunt(Some(planted.clone()), false, 1, 1).expect("a run");
        println!("{}: {found:?}", suspect.bug);
        assert_eq!(innocent, None, "without {}", suspect.bug);
        missed.extend(found.is_none().then_some(suspect.bug));
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
