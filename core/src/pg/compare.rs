//! Finding the objects whose copies differ: digests of ranges first, lists of ranges that differ only.
//!
//! Owns the ranges still to be looked at and the answers that are awaited. Does not own sending (it says what to ask),
//! nor the choice of versions.
//!
//! ```text
//! range -> few copies? list it
//!       -> else ask for digests of its parts; parts that differ are ranges again
//! ```

use crate::id::{CopyId, HashRange, ObjectId};
use crate::pg::choose::Mask;
use crate::pg::member::LISTING_COPIES;
use crate::store::{CopyInfo, Digest};
use std::collections::BTreeMap;

/// Parts of a range whose digests are asked for at once: 16.
const BITS: u32 = 4;
/// A range with so many copies on all members together is listed.
const LIST_BELOW: u64 = LISTING_COPIES as u64;
/// Ranges looked at simultaneously: enough to hide a round trip, few enough to bound memory.
const TASKS: usize = 8;

/// What to ask a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Digests of the range's parts.
    Digests {
        /// The range.
        range: HashRange,
        /// Binary logarithm of the number of parts.
        bits: u32,
    },
    /// Its copies.
    List {
        /// The range.
        range: HashRange,
        /// Those after this one.
        after: Option<CopyId>,
    },
}

/// A question with the task that it belongs to and the seat to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Names the task.
    pub task: u32,
    /// The seat.
    pub seat: u8,
    /// The question.
    pub question: Question,
}

/// The copies of one object, by seat.
pub type Copies = Vec<(u8, CopyInfo)>;

/// A range that is to be looked at, by which seats, and how.
#[derive(Clone, Copy, Debug)]
struct Range {
    range: HashRange,
    seats: Mask,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// By digests of so many parts, as a binary logarithm.
    Digests(u32),
    /// By its copies.
    Lists,
}

#[derive(Clone, Debug)]
struct Task {
    range: Range,
    waits_for: Mask,
    digests: Vec<Vec<Digest>>,
    copies: Vec<(u8, CopyInfo)>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    todo: Vec<Range>,
    tasks: BTreeMap<u32, Task>,
    started: u32,
}

impl Comparison {
    /// Begins, given the digest of the whole range from each seat that takes part.
    pub fn new(range: HashRange, digests: &[(u8, Digest)]) -> Self {
        let seats = digests.iter().fold(0, |mask, (seat, _)| mask | 1 << seat);
        let mut comparison = Comparison::default();
        comparison.look_at(range, seats, digests.iter().map(|(_, digest)| *digest));
        comparison
    }

    /// Begins with ranges of which each concerns other seats.
    pub fn of_parts(parts: impl Iterator<Item = (HashRange, Mask)>) -> Self {
        let whole = |(range, seats)| Range { range, seats, how: How::Digests(0) };
        Comparison { todo: parts.map(whole).collect(), ..Comparison::default() }
    }

    fn look_at(&mut self, range: HashRange, seats: Mask, mut digests: impl Iterator<Item = Digest>) {
        let Some(first) = digests.next() else { return };
        let (mut count, mut differs) = (first.count, false);
        for digest in digests {
            differs |= digest != first;
            count += digest.count;
        }
        if differs {
            let lists = count <= LIST_BELOW || range.last - range.first < 1 << BITS;
            self.todo.push(Range { range, seats, how: if lists { How::Lists } else { How::Digests(BITS) } });
        }
    }

    /// Starts what can be started, and says what to ask.
    pub fn next_questions(&mut self) -> Vec<Asked> {
        let mut asked = Vec::new();
        while self.tasks.len() < TASKS {
            let Some(next) = self.todo.pop() else { break };
            let Range { range, seats, how } = next;
            self.started += 1;
            let task = Task { range: next, waits_for: seats, digests: Vec::new(), copies: Vec::new() };
            self.tasks.insert(self.started, task);
            let question = match how {
                How::Lists => Question::List { range, after: None },
                How::Digests(bits) => Question::Digests { range, bits },
            };
            let seats = (0..64u8).filter(|seat| seats >> seat & 1 == 1);
            asked.extend(seats.map(|seat| Asked { task: self.started, seat, question }));
        }
        asked
    }

    /// Takes digests of parts.
    pub fn digests(&mut self, task: u32, seat: u8, digests: Vec<Digest>) {
        let Some(entry) = self.tasks.get_mut(&task) else { return };
        entry.waits_for &= !(1 << seat);
        entry.digests.push(digests);
        if entry.waits_for != 0 {
            return;
        }
        let Task { range: Range { range, seats, how }, digests, .. } = self.tasks.remove(&task).expect("found above");
        let How::Digests(bits) = how else { return };
        for (part, index) in (0..1u32 << bits).zip(0usize..) {
            let of_part = digests.iter().map(|digests| digests.get(index).copied().unwrap_or_default());
            self.look_at(range.part(part, bits), seats, of_part);
        }
    }

    /// Takes copies; gives the question for the rest, if there is more.
    pub fn listing(&mut self, task: u32, seat: u8, copies: Vec<CopyInfo>, more: bool) -> Option<Asked> {
        let entry = self.tasks.get_mut(&task)?;
        let after = copies.last().map(|info| info.copy);
        entry.copies.extend(copies.into_iter().map(|info| (seat, info)));
        if more && after.is_some() {
            return Some(Asked { task, seat, question: Question::List { range: entry.range.range, after } });
        }
        entry.waits_for &= !(1 << seat);
        None
    }

    /// Takes the objects of a range that was listed completely.
    pub fn next_listed(&mut self) -> Option<BTreeMap<ObjectId, Copies>> {
        let complete = |(_, task): &(&u32, &Task)| task.range.how == How::Lists && task.waits_for == 0;
        let task = *self.tasks.iter().find(complete)?.0;
        let copies = self.tasks.remove(&task).expect("found above").copies;
        let mut objects: BTreeMap<ObjectId, Copies> = BTreeMap::new();
        for (seat, info) in copies {
            objects.entry(info.copy.object).or_default().push((seat, info));
        }
        Some(objects)
    }

    /// Whether nothing is left to look at.
    pub fn is_done(&self) -> bool {
        self.todo.is_empty() && self.tasks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, InodeId, PoolId, Role, Version};
    use crate::store::VersionInfo;

    fn info(stripe: u64, seq: u64) -> CopyInfo {
        let object = ObjectId { pool: PoolId(1), inode: InodeId(1), stripe };
        let version = Version { epoch: Epoch(1), seq };
        let committed = VersionInfo {
            version,
            predecessor: Version::NONE,
            tombstone: false,
            damaged: false,
            requests: Default::default(),
        };
        CopyInfo { copy: CopyId { object, role: Role(0) }, committed: Some(committed), prepared: None }
    }

    fn digest_of(copies: &[CopyInfo], range: HashRange) -> Digest {
        let mut digest = Digest::default();
        let inside = copies.iter().filter(|info| range.contains(info.copy.object.hash()));
        inside.for_each(|info| digest.add(Digest::of(info)));
        digest
    }

    /// Runs a comparison to its end; gives the objects found and the number of questions.
    fn run(members: &[Vec<CopyInfo>]) -> (Vec<ObjectId>, usize) {
        let root: Vec<(u8, Digest)> =
            members.iter().zip(0u8..).map(|(copies, seat)| (seat, digest_of(copies, HashRange::ALL))).collect();
        let mut comparison = Comparison::new(HashRange::ALL, &root);
        let (mut found, mut questions) = (Vec::new(), 0);
        while !comparison.is_done() {
            let mut asked = comparison.next_questions();
            while let Some(Asked { task, seat, question }) = asked.pop() {
                questions += 1;
                let copies = &members[usize::from(seat)];
                match question {
                    Question::Digests { range, bits } => {
                        let parts = (0..1 << bits).map(|index| digest_of(copies, range.part(index, bits)));
                        comparison.digests(task, seat, parts.collect());
                    }
                    Question::List { range, after } => {
                        let mut inside: Vec<CopyInfo> =
                            copies.iter().filter(|info| range.contains(info.copy.object.hash())).cloned().collect();
                        inside.sort_by_key(|info| (info.copy.object.hash(), info.copy));
                        let rest: Vec<CopyInfo> = inside
                            .into_iter()
                            .filter(|info| {
                                after.is_none_or(|after| {
                                    (info.copy.object.hash(), info.copy) > (after.object.hash(), after)
                                })
                            })
                            .collect();
                        let more = rest.len() > 10;
                        asked.extend(comparison.listing(task, seat, rest.into_iter().take(10).collect(), more));
                    }
                }
            }
            while let Some(objects) = comparison.next_listed() {
                found.extend(objects.into_keys());
            }
        }
        (found, questions)
    }

    #[test]
    fn equal_members_ask_nothing() {
        let copies: Vec<CopyInfo> = (0..1000).map(|stripe| info(stripe, 1)).collect();
        assert_eq!(run(&[copies.clone(), copies]), (vec![], 0));
    }

    #[test]
    fn cost_follows_what_differs() {
        let base: Vec<CopyInfo> = (0..20_000).map(|stripe| info(stripe, 1)).collect();
        let mut other = base.clone();
        other[7777] = info(7777, 2);
        let (found, questions) = run(&[base.clone(), other, base]);
        assert!(found.contains(&info(7777, 1).copy.object));
        assert!(found.len() < 200 && questions < 50, "{} objects, {questions} questions", found.len());
    }

    #[test]
    fn who_is_not_concerned_by_a_part_is_not_asked_about_it() {
        let (low, high) = (HashRange::ALL.part(0, 1), HashRange::ALL.part(1, 1));
        let mut comparison = Comparison::of_parts([(low, 0b011), (high, 0b110)].into_iter());
        let asked = comparison.next_questions();
        let seats =
            |range| asked.iter().filter(move |a| a.question == Question::Digests { range, bits: 0 }).map(|a| a.seat);
        assert_eq!((seats(low).collect::<Vec<_>>(), seats(high).collect::<Vec<_>>()), (vec![0, 1], vec![1, 2]));
        for Asked { task, seat, .. } in asked {
            comparison.digests(task, seat, vec![Digest { count: 3, sum: if seat == 2 { 8 } else { 7 } }]);
        }
        let asked = comparison.next_questions();
        assert!(asked.iter().all(|a| a.question == Question::List { range: high, after: None }), "{asked:?}");
        assert_eq!(asked.len(), 2);
    }

    #[test]
    fn an_empty_member_lists_everything() {
        let base: Vec<CopyInfo> = (0..3000).map(|stripe| info(stripe, 1)).collect();
        let (found, _) = run(&[base, Vec::new()]);
        assert_eq!(found.len(), 3000);
    }
}
