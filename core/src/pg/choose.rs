//! Which version of an object counts, given the group's history and what its members hold. A pure function.
//!
//! Owns the rules of validity, of what is kept, void or stale, and of what is certain.
//! Does not own: collecting the copies, and acting upon the choice (peering and recovery do).
//!
//! Members are *seats*, bits of a mask; what history says of members is given as masks over seats.

use crate::id::{Epoch, Version};
use crate::planted::{Bug, planted};
use smallvec::SmallVec;

/// Seats as bits; seat `n` is bit `n`.
pub type Mask = u64;
/// Most seats of one peering: the acting members and all of history's.
pub const SEATS_MAX: usize = 64;

/// The seats of a mask.
pub fn seats_of(mask: Mask) -> impl Iterator<Item = u8> {
    (0..64u8).filter(move |seat| mask >> seat & 1 == 1)
}

/// What history and the answers say of the seats.
#[derive(Clone, Debug, Default)]
pub struct Grounds {
    /// Roles needed to read an object.
    pub k: u32,
    /// `C`, the base's epoch.
    pub base_epoch: Epoch,
    /// `f`, the last recorded interval.
    pub last_epoch: Epoch,
    /// `R`: trusted members that answered.
    pub answered: Mask,
    /// `S_C`, members of the base set.
    pub base: Mask,
    /// `W`, members that took part in the peering of the last recorded interval.
    pub witnesses: Mask,
    /// Members of the recorded sets, in order; the last is that of the last recorded interval.
    pub sets: SmallVec<[Mask; 4]>,
    /// By seat: its role; in replicated pools, where every copy is as good as another, a number of its own.
    pub places: SmallVec<[u8; 8]>,
}

impl Grounds {
    /// How many different places these seats fill.
    pub fn strength(&self, seats: Mask) -> u32 {
        let filled = self.places.iter().zip(0u32..).filter(|(_, seat)| seats >> seat & 1 == 1);
        filled.fold(0u64, |places, (place, _)| places | 1 << place).count_ones()
    }

    /// Whether enough members of every set answered.
    pub fn suffices(&self) -> bool {
        self.sets.iter().all(|set| self.strength(set & self.answered) >= self.k)
    }

    /// Whether some set keeps too few members in `R` for its versions to be called certain (a *full* attempt then).
    pub fn is_weak(&self, minsize: u32) -> bool {
        self.sets.iter().any(|set| self.strength(set & self.answered) < minsize.min(self.strength(*set)))
    }
}

/// A version that a seat holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The seat.
    pub seat: u8,
    /// The version.
    pub version: Version,
    /// Whether it is a tombstone.
    pub tombstone: bool,
    /// Whether its data are known to be damaged: it is evidence, but supplies nothing.
    pub damaged: bool,
}

/// What becomes of a held version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the chosen one.
    Kept,
    /// It is below the chosen one, which replaces it in time, and valid: the chosen one came after it.
    Below,
    /// It is below the chosen one, and stale: an interval went on without it.
    BelowStale,
    /// Void, or stale and not below the base: must be deleted before the group serves.
    Remove,
    /// Stale and below the base: must be deleted before the object is written or the history trimmed.
    RemoveLater,
}

/// The outcome for one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This version; none: the object does not exist.
    Version {
        /// The version, and whether it is a tombstone.
        kept: Option<(Version, bool)>,
        /// It need not be installed anywhere before the group serves.
        certain: bool,
        /// By held version, in the order given.
        verdicts: SmallVec<[Verdict; 8]>,
    },
    /// This version counts, but too few of its copies answered.
    Incomplete(Version),
    /// This version is above the last recorded interval: something is badly wrong.
    Impossible(Version),
}

/// Chooses among the versions that the seats in `R` hold of one object.
pub fn choose(grounds: &Grounds, held: &[Held]) -> Choice {
    if let Some(above) = held.iter().find(|held| held.version.epoch > grounds.last_epoch) {
        return Choice::Impossible(above.version);
    }
    let mut versions: SmallVec<[(Version, bool); 8]> =
        held.iter().filter(|copy| is_valid(grounds, held, copy)).map(|copy| (copy.version, copy.tombstone)).collect();
    versions.sort();
    versions.dedup_by_key(|(version, _)| *version);
    let mut kept = None;
    for &(version, tombstone) in versions.iter().rev() {
        let supplied = is_supplied(grounds, held, version, tombstone);
        let may_go = may_be_void(grounds, held, version);
        if !supplied && may_go {
            continue;
        }
        if !supplied {
            return Choice::Incomplete(version);
        }
        let (itself, readable) = (Some((version, tombstone)), readable(grounds, held, version));
        if planted(Bug::NextLowerValid) && may_go && readable != Some(itself) {
            continue;
        }
        kept = readable.unwrap_or(itself);
        break;
    }
    let verdicts = held.iter().map(|copy| verdict(grounds, held, copy, kept)).collect();
    let certain = kept.is_none_or(|(version, _)| is_certain(grounds, held, version));
    Choice::Version { kept, certain, verdicts }
}

/// What some answering member of the last set lacks was never acknowledged nor served.
fn may_be_void(grounds: &Grounds, held: &[Held], version: Version) -> bool {
    version.epoch == grounds.last_epoch && !is_on_all_of_last(grounds, held, version)
}

/// The version itself, if undamaged copies supply it. If not, and if it may be void, what a member of the last set has that
/// lacks it: a write begins when all of them have what it is made from, so nothing that was acknowledged is above that. Who
/// else has it does not matter: where copies were overwritten, the evidence of it is gone. (Within: none, if that member has
/// nothing.) `None`: nothing that can be read may stand in its place.
fn readable(grounds: &Grounds, held: &[Held], version: Version) -> Option<Option<(Version, bool)>> {
    let intact: SmallVec<[Held; 8]> = held.iter().filter(|copy| !copy.damaged).copied().collect();
    let is_readable = |version, tombstone| is_supplied(grounds, &intact, version, tombstone);
    let tombstone = held.iter().any(|copy| copy.version == version && copy.tombstone);
    if is_readable(version, tombstone) {
        return Some(Some((version, tombstone)));
    }
    if !may_be_void(grounds, held, version) {
        return None;
    }
    let last = grounds.sets.last().copied().unwrap_or(0) & grounds.answered;
    let newest = |seat| held.iter().filter(|copy| copy.seat == seat).map(|copy| (copy.version, copy.tombstone)).max();
    let mut before: SmallVec<[_; 8]> = seats_of(last).map(|seat| newest(seat).unwrap_or_default()).collect();
    before.retain(|(other, _)| *other < version);
    before.sort_by_key(|(other, _)| std::cmp::Reverse(*other));
    let found = before.iter().find(|(other, tombstone)| other.is_none() || is_readable(*other, *tombstone));
    found.map(|(other, tombstone)| (!other.is_none()).then_some((*other, *tombstone)))
}

fn bit(seat: u8) -> Mask {
    1 << seat
}

/// Valid by its holder.
fn is_vouched(grounds: &Grounds, copy: &Held) -> bool {
    let based = copy.version.epoch >= grounds.base_epoch || grounds.base & bit(copy.seat) != 0;
    let witnessed = copy.version.epoch == grounds.last_epoch || grounds.witnesses & bit(copy.seat) != 0;
    based && (witnessed || planted(Bug::IgnoreWitnesses))
}

fn is_valid(grounds: &Grounds, held: &[Held], copy: &Held) -> bool {
    held.iter().any(|other| other.version == copy.version && is_vouched(grounds, other))
}

fn holders(held: &[Held], version: Version) -> Mask {
    held.iter().filter(|copy| copy.version == version).fold(0, |mask, copy| mask | bit(copy.seat))
}

/// A tombstone needs one holder only: a half-purged one must not block.
fn is_supplied(grounds: &Grounds, held: &[Held], version: Version, tombstone: bool) -> bool {
    let needed = if tombstone && !planted(Bug::TombstoneNeedsK) { 1 } else { grounds.k };
    grounds.strength(holders(held, version)) >= needed
}

/// Whether every answering member of the last recorded set holds this version or one above.
fn is_on_all_of_last(grounds: &Grounds, held: &[Held], version: Version) -> bool {
    let last = grounds.sets.last().copied().unwrap_or(0) & grounds.answered;
    let at_least = held.iter().filter(|copy| copy.version >= version).fold(0, |mask, copy| mask | bit(copy.seat));
    last & !at_least == 0
}

/// Whether all answering members of some set hold exactly this version.
fn is_certain(grounds: &Grounds, held: &[Held], version: Version) -> bool {
    let exactly = holders(held, version);
    grounds.sets.iter().map(|set| set & grounds.answered).any(|set| set != 0 && set & !exactly == 0)
}

fn verdict(grounds: &Grounds, held: &[Held], copy: &Held, kept: Option<(Version, bool)>) -> Verdict {
    let kept = kept.map_or(Version::NONE, |(version, _)| version);
    if copy.version == kept {
        Verdict::Kept
    } else if copy.version < kept {
        if is_valid(grounds, held, copy) { Verdict::Below } else { Verdict::BelowStale }
    } else if copy.version.epoch < grounds.base_epoch && !is_valid(grounds, held, copy) {
        Verdict::RemoveLater
    } else {
        Verdict::Remove
    }
}
