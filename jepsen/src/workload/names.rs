//! Images that come and go: several administrators create and remove the same few names.
//!
//! A creation succeeds exactly if there is none of that name, a removal exactly if there is one, in some order that fits the
//! times of all calls: [`search`](crate::check::search) looks for it. What is created reads as zeroes, whatever an image of
//! that name had in it.

use crate::check::search::{Answer, Model, Timed, search};
use crate::fleet::Fleet;
use crate::nbd::Nbd;
use anyhow::Result;
use ashlar_core::rng::Rng;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Names that are fought over.
const NAMES: [&str; 2] = ["first", "second"];
const PATIENCE: Duration = Duration::from_secs(20);
/// Of the smallest image.
const SIZE_BYTES: u64 = 4 << 20;
const BUDGET: usize = 1_000_000;

/// What was tried, and whether it succeeded; `None`: unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    name: usize,
    creates: bool,
    succeeded: Option<bool>,
    /// A removal of the same name went on meanwhile: until it is complete, another removal joins it, and the name cannot be
    /// used again.
    meets_removal: bool,
}

/// One name, which has an image or not. Names know nothing of each other: together they are in order if each is.
struct Directory;

impl Model for Directory {
    type State = bool;
    type Op = Try;
    fn step(&self, state: &bool, op: &Try) -> Option<bool> {
        let can = *state != op.creates;
        let next = if can && op.succeeded != Some(false) { op.creates } else { *state };
        let as_expected = op.succeeded.is_none_or(|succeeded| succeeded == can);
        let joined = op.meets_removal && op.succeeded == Some(!op.creates);
        (as_expected || joined).then_some(next)
    }
}

/// All tries of a run.
#[derive(Default)]
pub struct Names {
    clock: AtomicU64,
    made: AtomicU64,
    tries: Mutex<Vec<Timed<Try>>>,
    stale: Mutex<Vec<String>>,
}

impl Names {
    /// One administrator, until it is told to stop.
    pub fn work(&self, fleet: &Fleet, stop: &AtomicBool, mut rng: Rng) {
        while !stop.load(Ordering::Relaxed) {
            let (name, creates) = (usize::try_from(rng.below(2)).expect("few"), rng.chance(1, 2));
            let full = format!("main/{}", NAMES[name]);
            // No two have the same size: it says which creation made an image.
            let size = (SIZE_BYTES + self.made.fetch_add(1, Ordering::Relaxed) * 4096).to_string();
            let command: &[&str] = if creates {
                &["image", "create", &full, "--size", &size]
            } else {
                &["image", "remove", &full, "--yes"]
            };
            let call = self.clock.fetch_add(1, Ordering::SeqCst);
            let succeeded = understood(&fleet.admin(command));
            let ret = succeeded.map(|_| self.clock.fetch_add(1, Ordering::SeqCst));
            let op = Try { name, creates, succeeded, meets_removal: false };
            self.tries.lock().expect("nothing panics here").push(Timed { call, ret, op });
            if creates && succeeded == Some(true) {
                self.use_image(fleet, NAMES[name]);
            }
        }
    }

    /// Whoever made an image finds zeroes in it, or what another user of the same image left: its size.
    fn use_image(&self, fleet: &Fleet, name: &str) {
        let Ok(mut nbd) = Nbd::connect(&fleet.socket(1), name, PATIENCE) else { return };
        let Ok(found) = nbd.read(0, 4096) else { return };
        let (size, word) = (nbd.size_bytes(), u64::from_le_bytes(found[..8].try_into().expect("eight bytes")));
        if word != 0 && word != size {
            let text = format!("the image {name} of {size} bytes has in it what one of {word} bytes had");
            self.stale.lock().expect("nothing panics here").push(text);
        }
        // It may be gone.
        let _ = nbd.write(0, &size.to_le_bytes().repeat(512)).and_then(|()| nbd.flush());
    }

    /// What the tries show.
    pub fn verdict(&self) -> Judged {
        let tries = with_meetings(&self.tries.lock().expect("nothing panics here"));
        let wrong = self.stale.lock().expect("nothing panics here").clone();
        let mut judged = Judged { tries: tries.len(), wrong, unjudged: Vec::new() };
        for (index, name) in NAMES.iter().enumerate() {
            let of_name: Vec<_> = tries.iter().filter(|tried| tried.op.name == index).cloned().collect();
            match search(&Directory, false, &of_name, BUDGET) {
                Answer::Linearizable => {}
                Answer::Not => {
                    judged.wrong.push(format!("no order explains what creations and removals answered: {of_name:?}"));
                }
                Answer::Unknown => judged.unjudged.push(format!("judging creations of {name} (too many at a time)")),
            }
        }
        judged
    }
}

/// What the tries of a run show.
#[derive(Debug)]
pub struct Judged {
    /// How many there were.
    pub tries: usize,
    /// What is wrong with them.
    pub wrong: Vec<String>,
    /// What could not be judged, with the reason.
    pub unjudged: Vec<String>,
}

/// Notes which tries met a removal.
fn with_meetings(tries: &[Timed<Try>]) -> Vec<Timed<Try>> {
    let removals: Vec<_> =
        tries.iter().filter(|tried| !tried.op.creates && tried.op.succeeded != Some(false)).collect();
    let until = |tried: &Timed<Try>| tried.ret.unwrap_or(u64::MAX);
    // Of one that may never have happened nothing is expected: they are all alike.
    let meets = |tried: &Timed<Try>| {
        tried.op.succeeded.is_some()
            && removals.iter().any(|other| {
                let same = other.call == tried.call || other.op.name != tried.op.name;
                !same && other.call < until(tried) && tried.call < until(other)
            })
    };
    let noted =
        tries.iter().map(|tried| Timed { op: Try { meets_removal: meets(tried), ..tried.op.clone() }, ..*tried });
    noted.collect()
}

/// Whether a command was carried out; `None`: nobody knows.
fn understood<T>(result: &Result<T>) -> Option<bool> {
    let Err(error) = result else { return Some(true) };
    let text = error.to_string();
    let refused = ["there is no image", "already", "exists"].iter().any(|words| text.contains(words));
    refused.then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(call: u64, ret: u64, creates: bool, succeeded: Option<bool>) -> Timed<Try> {
        Timed { call, ret: (ret > 0).then_some(ret), op: Try { name: 0, creates, succeeded, meets_removal: false } }
    }

    #[test]
    fn two_creations_of_one_name_cannot_both_succeed() {
        let one = [tried(1, 4, true, Some(true)), tried(2, 3, true, Some(false))];
        assert_eq!(search(&Directory, false, &one, 100), Answer::Linearizable);
        let both = [tried(1, 4, true, Some(true)), tried(2, 3, true, Some(true))];
        assert_eq!(search(&Directory, false, &both, 100), Answer::Not);
        let removed_between = [both[0].clone(), both[1].clone(), tried(2, 0, false, None)];
        assert_eq!(search(&Directory, false, &removed_between, 100), Answer::Linearizable);
    }

    #[test]
    fn removals_join_each_other_while_they_last() {
        let made = tried(1, 2, true, Some(true));
        let joined = [made.clone(), tried(3, 6, false, Some(true)), tried(4, 7, false, Some(true))];
        assert_eq!(search(&Directory, false, &with_meetings(&joined), 100), Answer::Linearizable);
        let one_after_the_other = [made, tried(3, 4, false, Some(true)), tried(5, 6, false, Some(true))];
        assert_eq!(search(&Directory, false, &with_meetings(&one_after_the_other), 100), Answer::Not);
    }
}
