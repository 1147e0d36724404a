//! How a group's history changes: pure functions.
//!
//! Owns narrowing at a recorded interval, and trimming. Does not own the transaction that writes it.
//! After a change of `pg_count` a history has a part for each range of hashes that came from another group: each is
//! narrowed for itself, and all become one again when the history is trimmed.

use crate::id::{Epoch, Member};
use crate::map::{Ancestor, History};
use crate::planted::{Bug, planted};

/// The history after the interval `epoch` with these acting members was peered by `answered` (`R`).
pub fn narrowed(history: &History, epoch: Epoch, acting: &[Member], answered: &[Member]) -> History {
    let narrowed_part = |ancestor: &Ancestor| Ancestor {
        range: ancestor.range,
        history: narrowed_by(&ancestor.history, epoch, acting, answered),
    };
    let ancestors = history.ancestors.iter().map(narrowed_part).collect();
    History { ancestors, ..narrowed_by(history, epoch, acting, answered) }
}

fn narrowed_by(history: &History, epoch: Epoch, acting: &[Member], answered: &[Member]) -> History {
    let keep =
        |set: &[Member]| -> Vec<Member> { set.iter().copied().filter(|member| took_part(answered, member)).collect() };
    let mut sets: Vec<(Epoch, Vec<Member>)> = history.sets.iter().map(|(e, set)| (*e, keep(set))).collect();
    sets.push((epoch, acting.to_vec()));
    drop_implied(&mut sets);
    let base_set = keep(&history.base_set);
    let named = |member: &Member| base_set.contains(member) || sets.iter().any(|(_, set)| set.contains(member));
    let witnesses = answered.iter().copied().filter(named).collect();
    History { base_epoch: history.base_epoch, base_set, last: epoch, witnesses, sets, ancestors: Vec::new() }
}

fn took_part(answered: &[Member], member: &Member) -> bool {
    answered.contains(member) || planted(Bug::SkipNarrowing)
}

/// The history when every object's version is durable on all acting members and nothing stale is left on them.
pub fn trimmed(epoch: Epoch, acting: &[Member]) -> History {
    History {
        base_epoch: epoch,
        base_set: acting.to_vec(),
        last: epoch,
        witnesses: acting.to_vec(),
        sets: vec![(epoch, acting.to_vec())],
        ancestors: Vec::new(),
    }
}

/// A set that contains another one demands nothing beyond it; the last one stays in any case.
fn drop_implied(sets: &mut Vec<(Epoch, Vec<Member>)>) {
    let mut index = 0;
    while index + 1 < sets.len() {
        let contains = |other: &(usize, &(Epoch, Vec<Member>))| {
            other.0 != index && other.1.1.iter().all(|member| sets[index].1.contains(member))
        };
        if sets.iter().enumerate().any(|other| contains(&other)) {
            sets.remove(index);
        } else {
            index += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{HashRange, OsdId, Role, StoreUuid};

    fn members(osds: &[u32]) -> Vec<Member> {
        let member = |osd: &u32| Member { osd: OsdId(*osd), store: StoreUuid(u128::from(*osd)), role: Role(0) };
        osds.iter().map(member).collect()
    }

    #[test]
    fn sets_are_narrowed_to_who_answered() {
        let base = trimmed(Epoch(1), &members(&[1, 2, 3]));
        let next = narrowed(&base, Epoch(2), &members(&[2, 4]), &members(&[2, 3, 4]));
        assert_eq!(next.base_set, members(&[2, 3]));
        assert_eq!(next.sets, vec![(Epoch(1), members(&[2, 3])), (Epoch(2), members(&[2, 4]))]);
        assert_eq!(next.witnesses, members(&[2, 3, 4]));
        assert_eq!((next.base_epoch, next.last), (Epoch(1), Epoch(2)));
    }

    #[test]
    fn a_set_that_contains_another_goes() {
        let base = trimmed(Epoch(1), &members(&[1, 2, 3]));
        let next = narrowed(&base, Epoch(2), &members(&[1, 2]), &members(&[1, 2]));
        assert_eq!(next.sets, vec![(Epoch(2), members(&[1, 2]))]);
        let back = narrowed(&next, Epoch(3), &members(&[1, 2, 3]), &members(&[1, 2, 3]));
        assert_eq!(back.sets, vec![(Epoch(2), members(&[1, 2])), (Epoch(3), members(&[1, 2, 3]))]);
    }

    #[test]
    fn each_range_keeps_its_own_demands_until_the_first_trimming() {
        let part = |first: u64, last: u64, history: History| Ancestor { range: HashRange { first, last }, history };
        let (low, high) = (trimmed(Epoch(9), &members(&[1, 2])), trimmed(Epoch(4), &members(&[3, 4])));
        assert_eq!(History::inherited(vec![part(0, 99, low.clone())]), low, "one ancestor's is continued");
        let merged = History::inherited(vec![part(0, 99, low), part(100, 199, high)]);
        assert_eq!((merged.last, merged.of(7).base_epoch, merged.of(100).base_epoch), (Epoch(9), Epoch(9), Epoch(4)));
        let next = narrowed(&merged, Epoch(10), &members(&[1, 2]), &members(&[1, 2, 3]));
        assert_eq!((next.last, next.sets.clone()), (Epoch(10), vec![(Epoch(10), members(&[1, 2]))]));
        assert_eq!(next.of(7).sets, vec![(Epoch(10), members(&[1, 2]))]);
        assert_eq!(next.of(150).sets, vec![(Epoch(4), members(&[3])), (Epoch(10), members(&[1, 2]))]);
        assert_eq!((next.of(7).witnesses.clone(), next.of(150).base_set.clone()), (members(&[1, 2]), members(&[3])));
    }

    #[test]
    fn of_equal_sets_the_last_stays() {
        let base = trimmed(Epoch(1), &members(&[1, 2]));
        let next = narrowed(&base, Epoch(2), &members(&[1, 2]), &members(&[1, 2]));
        assert_eq!(next.sets, vec![(Epoch(2), members(&[1, 2]))]);
    }
}
