//! What was asked for and did not happen. A clean verdict says something about faults that came, and nothing about others.
//!
//! Owns: the account of each kind's turns, and when kinds that have not come yet get theirs. Invariant: a kind that was asked
//! for is in [`Account::untried`] unless it came and no attempt at it failed.

use ashlar_core::rng::Rng;
use ashlar_faultinject::mix::FaultKind;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What came of one turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It happened.
    Came,
    /// There was nothing to do it to just now: why.
    NotNow(String),
    /// It could not be done: why.
    Failed(String),
}

/// The turns of a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Count {
    came: u64,
    not_now: u64,
    failed: u64,
    /// Why the newest of those that did not come did not.
    why: String,
}

/// What came of each kind, by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    counts: BTreeMap<String, Count>,
}

impl Account {
    /// Notes a turn; whether it came.
    pub fn note(&mut self, kind: &str, turn: Turn) -> bool {
        let count = self.counts.entry(kind.into()).or_default();
        match turn {
            Turn::Came => {
                count.came += 1;
                return true;
            }
            Turn::NotNow(why) => {
                count.not_now += 1;
                if count.failed == 0 {
                    count.why = why;
                }
            }
            Turn::Failed(why) => (count.failed, count.why) = (count.failed + 1, why),
        }
        false
    }

    /// How often one came.
    pub fn came(&self, kind: &str) -> u64 {
        self.counts.get(kind).map_or(0, |count| count.came)
    }

    /// Those asked for that were not tried, or not as often as they should have been, with the reason.
    pub fn untried<'a>(&self, asked: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        asked.into_iter().filter_map(|kind| Some(format!("{kind} ({})", self.excuse(kind)?))).collect()
    }

    fn excuse(&self, kind: &str) -> Option<String> {
        let Some(count) = self.counts.get(kind) else { return Some("its turn never came".into()) };
        // Of several lines, the last has the cause; a table has no place for more.
        let why = count.why.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim();
        match count {
            Count { failed: 0, came: 1.., .. } => None,
            Count { failed: 0, not_now, .. } => Some(format!("none of {not_now} turns: {why}")),
            Count { failed, came, .. } => Some(format!("{failed} of {} attempts failed: {why}", failed + came)),
        }
    }
}

/// Kinds that have not come in the first part of a run get their turns in the rest of it: the time until its end is dealt out.
pub struct Latecomers {
    from: Instant,
    until: Instant,
    turns: usize,
    /// Whose turn it will be. It stays so, however often others come before.
    appointment: Option<(Instant, FaultKind)>,
}

/// The share of a run after which those that have not come are called.
const CALLED_AFTER: u32 = 2;
/// So much of its end is left to what was called.
const LAST_SHARE: u32 = 20;
/// Between two attempts.
const SPACING: Duration = Duration::from_millis(500);

impl Latecomers {
    /// Of a run that begins now.
    pub fn of(begin: Instant, length: Duration) -> Latecomers {
        Latecomers {
            from: begin + length / CALLED_AFTER,
            until: begin + length - length / LAST_SHARE,
            turns: 0,
            appointment: None,
        }
    }

    /// When the next of those that have not come is called, and which; nothing if all have come or time is over.
    pub fn next(&mut self, now: Instant, missing: &[FaultKind]) -> Option<(Instant, FaultKind)> {
        self.appointment = self.appointment.filter(|(_, kind)| missing.contains(kind));
        if self.appointment.is_none() {
            self.appointment = self.appoint(now, missing);
        }
        self.appointment
    }

    fn appoint(&self, now: Instant, missing: &[FaultKind]) -> Option<(Instant, FaultKind)> {
        let from = now.max(self.from);
        if missing.is_empty() || from > self.until {
            return None;
        }
        let share = (self.until - from) / (u32::try_from(missing.len()).ok()? + 1);
        let at = from + share.max(SPACING);
        // One that cannot come now gives way to the next.
        (at <= self.until).then(|| (at, missing[self.turns % missing.len()]))
    }

    /// One was called.
    pub fn called(&mut self) {
        self.turns += 1;
        self.appointment = None;
    }
}

/// Draws an order, so that latecomers do not always come in that of the list.
pub fn shuffled(mut kinds: Vec<FaultKind>, rng: &mut Rng) -> Vec<FaultKind> {
    for last in (1..kinds.len()).rev() {
        kinds.swap(last, usize::try_from(rng.below(last as u64 + 1)).expect("few"));
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_come_is_named_with_its_reason() {
        let mut account = Account::default();
        assert!(account.note("crash", Turn::Came));
        assert!(!account.note("crash", Turn::NotNow("osd-1 did not run".into())));
        account.note("wipe", Turn::NotNow("groups\n  are not whole\n".into()));
        account.note("partition", Turn::Came);
        account.note("partition", Turn::Failed("nft is not there".into()));
        assert_eq!(account.untried(["crash"]), [""; 0]);
        assert_eq!(account.came("crash"), 1);
        assert_eq!(
            account.untried(["crash", "wipe", "partition", "bit-rot"]),
            [
                "wipe (none of 1 turns: are not whole)",
                "partition (1 of 2 attempts failed: nft is not there)",
                "bit-rot (its turn never came)"
            ]
        );
    }

    #[test]
    fn all_kinds_get_a_turn_before_the_end_and_one_that_cannot_come_holds_up_no_other() {
        let (begin, length) = (Instant::now(), Duration::from_secs(60));
        let mut late = Latecomers::of(begin, length);
        let mut missing = vec![FaultKind::Wipe, FaultKind::Crash, FaultKind::Pause];
        let (mut now, mut tries) = (begin, 0);
        while let Some((at, kind)) = late.next(now, &missing) {
            assert!(at >= begin + length / 2 && at < begin + length && at > now);
            (now, tries) = (at, tries + 1);
            late.called();
            missing.retain(|other| kind == FaultKind::Wipe || *other != kind);
        }
        assert_eq!(missing, [FaultKind::Wipe]);
        assert!((4..100).contains(&tries), "{tries}");
        assert_eq!(late.next(begin, &[]), None);
    }

    #[test]
    fn frequent_others_do_not_put_off_who_is_missing() {
        let (begin, length) = (Instant::now(), Duration::from_secs(60));
        let mut late = Latecomers::of(begin, length);
        // Another fault comes every 100 ms, and all is asked again after each.
        let turn = (0..600).find(|step| {
            let now = begin + Duration::from_millis(100) * *step;
            late.next(now, &[FaultKind::TotalPower]).is_some_and(|(at, _)| at < now + Duration::from_millis(100))
        });
        assert!(turn.is_some_and(|step| (300..570).contains(&step)), "{turn:?}");
    }

    #[test]
    fn an_order_has_all_of_them() {
        let mut rng = Rng::new(5);
        let mut kinds = shuffled(FaultKind::ALL.to_vec(), &mut rng);
        assert_ne!(kinds, FaultKind::ALL);
        kinds.sort_unstable();
        let mut all = FaultKind::ALL.to_vec();
        all.sort_unstable();
        assert_eq!(kinds, all);
    }
}
