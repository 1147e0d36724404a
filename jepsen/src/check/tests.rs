//! The verdict on histories made up for it, and both checkers on random ones.

use super::*;
use crate::history::Recorder;
use ashlar_core::rng::Rng;
use ashlar_sim::check::history::{BLOCK, Layout, fill};

const FIRST: Block = Block { image: 1, index: 3 };

fn write(recorder: &Recorder, outcome: Outcome) -> u32 {
    let number = recorder.call(1, 1, FIRST, 1, What::Write);
    if outcome != Outcome::Open {
        recorder.end(number, outcome);
    }
    number
}

fn read(recorder: &Recorder, of: Option<u32>) {
    let number = recorder.call(2, 1, FIRST, 1, What::Read(Vec::new()));
    let mut bytes = vec![0; BLOCK as usize];
    if let Some(write) = of {
        fill(write, FIRST, BLOCK, &mut bytes);
    }
    recorder.read(number, &bytes);
}

fn flush(recorder: &Recorder, server: u32) {
    let start = recorder.instant();
    recorder.flushed(server, start);
}

fn verdict(recorder: &Recorder, promise: Promise) -> Verdict {
    let verdict = judge(&recorder.take(), promise);
    assert!(verdict.disagreements.is_empty() && verdict.undecided == 0);
    verdict
}

fn broken(recorder: &Recorder, promise: Promise) -> bool {
    !verdict(recorder, promise).is_clean()
}

fn unknown() -> Outcome {
    Outcome::Info("gone".into())
}

#[test]
fn an_answered_write_is_found_until_the_next() {
    let recorder = Recorder::default();
    let (old, new) = (write(&recorder, Outcome::Ok), write(&recorder, Outcome::Ok));
    read(&recorder, Some(new));
    let clean = verdict(&recorder, Promise::All);
    assert!(clean.is_clean() && clean.blocks == 1 && clean.confirmed == 1, "{clean:?}");
    read(&recorder, Some(old));
    assert!(broken(&recorder, Promise::All));
}

#[test]
fn what_a_pool_promises_survives_a_cut() {
    for (promise, flushes, lost_is_broken) in
        [(Promise::All, false, true), (Promise::None, false, false), (Promise::None, true, true)]
    {
        let recorder = Recorder::default();
        let old = write(&recorder, Outcome::Ok);
        flush(&recorder, 1);
        let new = write(&recorder, Outcome::Ok);
        if flushes {
            flush(&recorder, 1);
        }
        recorder.cut();
        read(&recorder, Some(old));
        assert_eq!(broken(&recorder, promise), lost_is_broken, "{promise:?}, {flushes}");
        read(&recorder, Some(new));
        assert!(broken(&recorder, promise), "what was not found cannot come later");
    }
}

#[test]
fn flushes_of_other_servers_and_earlier_ones_cover_nothing() {
    let recorder = Recorder::default();
    let early = recorder.instant();
    write(&recorder, Outcome::Ok);
    recorder.flushed(1, early);
    flush(&recorder, 2);
    recorder.cut();
    flush(&recorder, 1);
    read(&recorder, None);
    assert!(!broken(&recorder, Promise::None), "the flush after the cut came too late");
}

/// Loses a call of so many blocks, in an object of 32; whether that breaks the promise.
fn lost(what: What, blocks: u32, fua: bool, promise: Promise) -> bool {
    let recorder = Recorder::default();
    recorder.set_layout(FIRST.image, Layout { unit: BLOCK, per_object: 32 });
    let before = write(&recorder, Outcome::Ok);
    flush(&recorder, 1);
    let lost = recorder.call(1, 1, FIRST, blocks, what);
    if fua {
        recorder.is_fua(lost);
    }
    recorder.end(lost, Outcome::Ok);
    recorder.cut();
    read(&recorder, Some(before));
    broken(&recorder, promise)
}

#[test]
fn small_promises_are_for_half_a_block_of_the_pool_and_fua_for_any() {
    for (blocks, is_small) in [(1, true), (16, true), (17, false), (29, false)] {
        assert_eq!(lost(What::Write, blocks, false, Promise::Small), is_small, "{blocks}");
        assert!(lost(What::Write, blocks, true, Promise::Small), "FUA, {blocks}");
        assert!(lost(What::Discard, blocks, false, Promise::Small), "no data, {blocks}");
        assert!(lost(What::Write, blocks, false, Promise::All) && !lost(What::Write, blocks, false, Promise::None));
    }
}

#[test]
fn writes_of_the_dead_come_at_once_or_never() {
    let recorder = Recorder::default();
    let (old, cut_off) = (write(&recorder, Outcome::Ok), write(&recorder, unknown()));
    let mut copies = [Recorder::default(), Recorder::default()];
    for (copy, fenced) in copies.iter_mut().zip([false, true]) {
        assert_eq!((write(copy, Outcome::Ok), write(copy, unknown())), (old, cut_off));
        if fenced {
            copy.fenced(1);
        }
        read(copy, Some(old));
        read(copy, Some(cut_off));
    }
    assert!(!broken(&copies[0], Promise::All), "it may be on its way");
    assert!(broken(&copies[1], Promise::All), "a zombie");
    recorder.cut();
    read(&recorder, Some(cut_off));
    assert!(!broken(&recorder, Promise::All), "it was in time");
    read(&recorder, Some(old));
    assert!(broken(&recorder, Promise::All), "it cannot go again");
}

#[test]
fn a_refused_write_is_never_seen_and_mixtures_never_read() {
    let recorder = Recorder::default();
    let refused = write(&recorder, Outcome::Fail("read-only".into()));
    read(&recorder, None);
    assert!(!broken(&recorder, Promise::All));
    read(&recorder, Some(refused));
    assert!(verdict(&recorder, Promise::All).findings.iter().any(|finding| finding.what.contains("refused")));
    let recorder = Recorder::default();
    let number = recorder.call(2, 1, FIRST, 1, What::Read(Vec::new()));
    recorder.read(number, &[[0; 512], [1; 512]].concat());
    assert!(broken(&recorder, Promise::All));
}

#[test]
fn what_was_discarded_does_not_come_back() {
    let recorder = Recorder::default();
    let old = write(&recorder, Outcome::Ok);
    let discard = recorder.call(1, 1, FIRST, 1, What::Discard);
    recorder.end(discard, Outcome::Ok);
    read(&recorder, None);
    assert!(!broken(&recorder, Promise::All));
    read(&recorder, Some(old));
    assert!(broken(&recorder, Promise::All));
}

/// A register that several clients use at once, honest or with a slip now and then; some answers get lost.
fn random_history(rng: &mut Rng, honest: bool) -> Vec<Op> {
    let count = u32::try_from(rng.between(5, 40)).expect("small");
    let (mut now, mut value, mut former) = (0, 0, 0);
    let mut open: Vec<Op> = Vec::new();
    let mut ops = Vec::new();
    for id in 0..count {
        now += 1;
        let kind = if rng.chance(1, 2) { Kind::Write(u64::from(id) + 1) } else { Kind::Read(0) };
        open.push(Op { id, start: now, end: None, kind });
        while open.len() > 3 || (id + 1 == count && !open.is_empty()) {
            let mut op = open.swap_remove(usize::try_from(rng.below(open.len() as u64)).expect("small"));
            now += 1;
            match &mut op.kind {
                Kind::Write(new) => (former, value) = (value, *new),
                Kind::Read(got) => *got = if !honest && rng.chance(1, 6) { former } else { value },
            }
            let lost = matches!(op.kind, Kind::Write(_)) && rng.chance(1, 10);
            ops.push(Op { end: (!lost).then_some(now), ..op });
        }
    }
    ops
}

#[test]
fn both_checkers_agree_on_good_and_on_broken_histories() {
    let mut rng = Rng::new(7);
    let mut seen = [0u32; 2];
    for round in 0..4_000 {
        let history = random_history(&mut rng, round % 2 == 0);
        let expected = first(0, &history).expect("few are open").is_ok();
        let found = second(0, &history);
        assert_eq!(found == Answer::Linearizable, expected, "{found:?}: {history:#?}");
        assert!(expected || round % 2 == 1, "an honest register: {history:#?}");
        seen[usize::from(expected)] += 1;
    }
    assert!(seen[0] > 500 && seen[1] > 2_000, "{seen:?} says little");
}
