//! The choice of versions, exhaustively in a small scope: three members, one object, every write reaching every subset
//! of its members, every acting set, every set of answers, two more intervals.

use crate::id::{Epoch, Member, OsdId, Role, StoreUuid, Version};
use crate::map::History;
use crate::pg::choose::{Choice, Grounds, Held, Mask, Verdict, choose};
use crate::pg::history;
use crate::pg::roster::{Roster, Statement};
use crate::store::Digest;

const MEMBERS: u32 = 3;
const ALL: Mask = 7;

fn member(index: u32) -> Member {
    Member { osd: OsdId(index), store: StoreUuid(u128::from(index)), role: Role(0) }
}

fn members(mask: Mask) -> Vec<Member> {
    (0..MEMBERS).filter(|index| mask >> index & 1 == 1).map(member).collect()
}

fn version(epoch: u64, seq: u64) -> Version {
    Version { epoch: Epoch(epoch), seq }
}

/// One object of one group.
#[derive(Clone)]
struct Group {
    epoch: u64,
    history: History,
    /// By member; none: no copy.
    held: [Version; MEMBERS as usize],
    /// What clients were told, or shown.
    acknowledged: Version,
    /// What the last interval that was served began with, and its epoch.
    served: (u64, Version),
}

impl Group {
    fn new() -> Self {
        let first = version(1, 1);
        let history = history::trimmed(Epoch(1), &members(ALL));
        Group { epoch: 1, history, held: [first; 3], acknowledged: first, served: (1, first) }
    }

    /// The primary of an interval writes; the write becomes durable on these.
    fn write(&mut self, acting: Mask, reached: Mask) {
        let newest = self.held.iter().copied().max().expect("three");
        let next = version(self.epoch, newest.seq + 1);
        for (index, held) in self.held.iter_mut().enumerate() {
            if (reached & acting) >> index & 1 == 1 {
                *held = next;
            }
        }
        if reached & acting == acting {
            self.acknowledged = next;
        }
    }

    /// What a peering with these acting members and answers would choose. `None`: it must wait.
    fn choice(&self, acting: Mask, answers: Mask) -> Option<(Roster, Vec<Held>, Choice)> {
        let mut roster = Roster::new(&members(acting), &self.history);
        let seats: Vec<Member> = roster.seats().iter().map(|seat| seat.member).collect();
        for seat in &seats {
            if answers >> seat.osd.0 & 1 == 1 {
                roster.stated(seat, Statement { trusted: true, digest: Digest::default() });
            }
        }
        let grounds = roster.grounds(&self.history, 1, true);
        if acting & !answers != 0 || !grounds.suffices() {
            return None;
        }
        let mut held = Vec::new();
        for (seat, entry) in roster.in_mask(roster.answered()) {
            let version = self.held[entry.member.osd.0 as usize];
            if !version.is_none() {
                held.push(Held { seat, version, tombstone: false, damaged: false });
            }
        }
        let choice = choose(&grounds, &held);
        Some((roster, held, choice))
    }

    /// Peers, resolves, records and serves.
    fn interval(&self, acting: Mask, answers: Mask) -> Option<Group> {
        let (roster, held, choice) = self.choice(acting, answers)?;
        let Choice::Version { kept, certain, verdicts } = choice else { panic!("{choice:?}") };
        let kept = kept.map_or(Version::NONE, |(version, _)| version);
        self.expect(kept);
        let mut next = self.clone();
        for (held, verdict) in held.iter().zip(&verdicts) {
            if *verdict == Verdict::Remove {
                next.held[roster.osd(held.seat).0 as usize] = Version::NONE;
            }
        }
        for (_, seat) in roster.in_mask(roster.acting()) {
            if !certain {
                next.held[seat.member.osd.0 as usize] = kept;
            }
        }
        next.epoch += 1;
        let answered = roster.members(roster.answered());
        next.history = history::narrowed(&self.history, Epoch(next.epoch), &members(acting), &answered);
        next.served = (next.epoch, kept);
        next.acknowledged = kept;
        Some(next)
    }

    /// Everything is recovered in the background.
    fn recovered(&self, acting: Mask) -> Group {
        let mut next = self.clone();
        for index in 0..MEMBERS as usize {
            if acting >> index & 1 == 1 {
                next.held[index] = self.served.1;
            }
        }
        next
    }

    /// Nothing acknowledged is lost, nothing comes back that the last interval went on without.
    fn expect(&self, kept: Version) {
        assert!(kept >= self.acknowledged, "{kept} is chosen, {} was acknowledged: {:?}", self.acknowledged, self.held);
        let (epoch, served) = self.served;
        let continues = kept == served || kept.epoch.0 >= epoch;
        assert!(continues, "{kept} is chosen, epoch {epoch} served {served}: {:?} {:?}", self.held, self.history);
    }

    fn check_all_choices(&self) {
        for answers in 1..=ALL {
            for acting in (1..=ALL).filter(|acting| acting & !answers == 0) {
                if let Some((_, _, choice)) = self.choice(acting, answers) {
                    let Choice::Version { kept, .. } = choice else { panic!("{choice:?}") };
                    self.expect(kept.map_or(Version::NONE, |(version, _)| version));
                }
            }
        }
    }
}

/// Intervals that may follow: acting set, answers.
fn intervals() -> impl Iterator<Item = (Mask, Mask)> {
    (1..=ALL)
        .flat_map(|answers| (1..=ALL).filter(move |acting| acting & !answers == 0).map(move |acting| (acting, answers)))
}

fn explore() -> u64 {
    let mut explored = 0;
    for first_reached in 0..=ALL {
        let mut start = Group::new();
        start.write(ALL, first_reached);
        start.check_all_choices();
        for (acting, answers) in intervals() {
            let Some(second) = start.interval(acting, answers) else { continue };
            for reached in (0..=ALL).filter(|reached| reached & !acting == 0) {
                // Without a write (none reached) recovery may be done or not; a write needs it done.
                let mut states = vec![second.clone(), second.recovered(acting)];
                if reached != 0 {
                    let mut written = second.recovered(acting);
                    written.write(acting, reached);
                    states = vec![written];
                }
                for state in states {
                    state.check_all_choices();
                    for (acting, answers) in intervals() {
                        if let Some(third) = state.interval(acting, answers) {
                            third.check_all_choices();
                            explored += 1;
                        }
                    }
                }
            }
        }
    }
    explored
}

#[test]
fn every_choice_in_a_small_scope_keeps_what_was_promised() {
    assert!(explore() > 1000);
}

/// Without the witnesses, the same search finds a write that comes back.
#[cfg(feature = "planted")]
#[test]
fn the_search_finds_ignored_witnesses() {
    crate::planted::plant(Some(crate::planted::Bug::IgnoreWitnesses));
    let found = std::panic::catch_unwind(explore).is_err();
    crate::planted::plant(None);
    assert!(found);
}

#[test]
fn a_version_above_the_last_interval_is_impossible() {
    let mut group = Group::new();
    group.held[1] = version(2, 5);
    let (_, _, choice) = group.choice(ALL, ALL).expect("all answered");
    assert_eq!(choice, Choice::Impossible(version(2, 5)));
}

#[test]
fn a_stale_copy_below_the_base_is_removed_later() {
    let mut group = Group::new();
    // Trimmed at epoch 3 without member 2, which still holds what it had before the object was deleted and purged.
    group.history = history::trimmed(Epoch(3), &members(3));
    group.held = [Version::NONE, Version::NONE, version(1, 1)];
    let (_, held, choice) = group.choice(ALL, ALL).expect("all answered");
    assert_eq!(held.len(), 1);
    let verdicts = [Verdict::RemoveLater].into_iter().collect();
    assert_eq!(choice, Choice::Version { kept: None, certain: true, verdicts });
}

#[test]
fn a_tombstone_needs_one_holder_data_need_k() {
    let mut roster = Roster::new(&members(ALL), &history::trimmed(Epoch(1), &members(ALL)));
    for seat in members(ALL) {
        roster.stated(&seat, Statement { trusted: true, digest: Digest::default() });
    }
    let grounds = roster.grounds(&history::trimmed(Epoch(1), &members(ALL)), 2, true);
    let held = |tombstone| [Held { seat: 0, version: version(1, 2), tombstone, damaged: false }];
    let kept = |choice| match choice {
        Choice::Version { kept, .. } => kept.map(|(version, _)| version),
        other => panic!("{other:?}"),
    };
    assert_eq!(kept(choose(&grounds, &held(true))), Some(version(1, 2)));
    // Two of the last set answered without it, so it was never acknowledged; it is void.
    assert_eq!(kept(choose(&grounds, &held(false))), None);
}

/// Of two members, both of the last set; the version with sequence 2 was made from that with sequence 1.
fn of_two(base: Mask, held: &[Held]) -> Option<u64> {
    let grounds = Grounds {
        k: 1,
        base_epoch: Epoch(2),
        last_epoch: Epoch(3),
        answered: 0b11,
        base,
        witnesses: 0b11,
        sets: smallvec::smallvec![base, 0b11],
        places: smallvec::smallvec![0, 1],
    };
    match choose(&grounds, held) {
        Choice::Version { kept, .. } => kept.map(|(version, _)| version.seq),
        other => panic!("{other:?}"),
    }
}

fn old(seat: u8, damaged: bool) -> Held {
    Held { seat, version: version(1, 1), tombstone: false, damaged }
}

fn new(seat: u8, damaged: bool) -> Held {
    Held { seat, version: version(3, 2), tombstone: false, damaged }
}

#[test]
fn a_version_that_cannot_be_read_goes_if_what_a_member_has_that_lacks_it_can() {
    assert_eq!(of_two(0b11, &[new(0, true), old(1, false)]), Some(1));
    assert_eq!(of_two(0b11, &[new(0, true)]), None);
}

/// The member with the old version got it when it was recovered; only the other one vouched for it, until it was overwritten.
#[test]
fn what_it_was_made_from_counts_whoever_has_it() {
    assert_eq!(of_two(0b01, &[old(1, false)]), None);
    assert_eq!(of_two(0b01, &[new(0, true), old(1, false)]), Some(1));
}

#[test]
fn it_stays_if_what_it_was_made_from_is_damaged() {
    assert_eq!(of_two(0b11, &[new(0, true), old(1, true)]), Some(2));
}

#[test]
fn it_stays_if_all_members_have_it() {
    assert_eq!(of_two(0b11, &[new(0, true), new(1, true)]), Some(2));
}
