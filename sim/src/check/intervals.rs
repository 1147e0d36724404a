//! What an interval began with stays what later ones build on: no lost write, no zombie, no resurrection.
//!
//! A peering that is recorded pins a version of every object of its group. After it, an object changes by writes of that
//! interval only. So when the next interval is recorded, each object is at the pinned version, or at one that was written
//! in between; never at another older one (a write that an interval went on without came back, or what was there
//! vanished), never below one that was acknowledged. An object's intervals are those of its group, and of the groups that
//! had it before the number of groups changed: their epochs rise, too.
//!
//! Sees what no client needs to see: that a void write came back is legal for its client, who never learned its fate.
//!
//! Does not own finding out what copies there are: the caller looks into the stores ([`Look`]).

use ashlar_core::id::{Attempt, Epoch, ObjectId, PgId, Version};
use std::collections::BTreeMap;

/// What stores hold.
pub trait Look {
    /// The objects of a group.
    fn objects(&self, pg: PgId) -> Vec<ObjectId>;
    /// The version that the recording primary's own store holds; none: no copy. `None`: nothing can be said.
    fn own(&self, object: ObjectId) -> Option<Version>;
    /// Whether this version is a tombstone, as any store says that holds it.
    fn is_tombstone(&self, object: ObjectId, version: Version) -> bool;
}

/// An object's last interval.
#[derive(Clone, Copy, Debug, Default)]
struct Interval {
    pg: PgId,
    epoch: Epoch,
    /// With which version it began, and whether that is (or may be, since nobody knows it) a tombstone, which may be
    /// purged.
    pinned: Option<(Version, bool)>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Intervals {
    /// What a node's attempt has chosen so far.
    chosen: BTreeMap<(u32, PgId), (Attempt, BTreeMap<ObjectId, Version>)>,
    last: BTreeMap<ObjectId, Interval>,
    acknowledged: BTreeMap<ObjectId, Version>,
}

impl Intervals {
    /// An attempt chose an object's version; it counts if the attempt is recorded.
    pub fn chosen(&mut self, node: u32, pg: PgId, attempt: Attempt, object: ObjectId, version: Version) {
        let entry = self.chosen.entry((node, pg)).or_default();
        if entry.0 != attempt {
            *entry = (attempt, BTreeMap::new());
        }
        entry.1.insert(object, version);
    }

    /// A write is acknowledged, durable as it is.
    pub fn acknowledged(&mut self, object: ObjectId, version: Version) {
        let newest = self.acknowledged.entry(object).or_default();
        *newest = (*newest).max(version);
    }

    /// A node recorded the interval of its attempt (or trimmed the history in it).
    pub fn recorded(&mut self, node: u32, pg: PgId, attempt: Attempt, look: &impl Look) -> Result<(), String> {
        let chosen = self.chosen.get(&(node, pg)).filter(|(of, _)| *of == attempt).cloned().unwrap_or_default().1;
        for object in look.objects(pg) {
            let before = self.last.get(&object).copied().unwrap_or_default();
            if attempt.epoch <= before.epoch {
                let heir = pg.number.generation() > before.pg.number.generation();
                let late = || format!("{pg:?}: epoch {} follows {} of {:?}", attempt.epoch, before.epoch, before.pg);
                if heir { return Err(late()) } else { continue }
            }
            let mut interval = Interval { pg, epoch: attempt.epoch, pinned: None };
            // What is not chosen is the same on all members that answered, this one among them.
            let version = chosen.get(&object).copied().or_else(|| look.own(object));
            if let Some(version) = version.filter(|version| version.epoch != attempt.epoch) {
                self.judge(pg, attempt, &before, object, version)?;
                interval.pinned = Some((version, look.is_tombstone(object, version)));
            }
            self.last.insert(object, interval);
        }
        Ok(())
    }

    fn judge(
        &mut self,
        pg: PgId,
        attempt: Attempt,
        before: &Interval,
        object: ObjectId,
        version: Version,
    ) -> Result<(), String> {
        let epoch = attempt.epoch;
        let acknowledged = self.acknowledged.get(&object).copied().unwrap_or_default();
        let pinned = before.pinned;
        let may_vanish = pinned.is_none_or(|(pinned, tombstone)| tombstone && acknowledged <= pinned);
        if version.is_none() && may_vanish {
            self.acknowledged.remove(&object);
            return Ok(());
        }
        if version < acknowledged {
            return Err(format!(
                "{pg:?} epoch {epoch}: {object:?} begins at {version}, below {acknowledged}, which was acknowledged"
            ));
        }
        // Nothing is known of what was before the first interval that is seen.
        if version.epoch > before.epoch && before.epoch != Epoch::default() {
            return Err(format!(
                "{pg:?} epoch {epoch}: {object:?} begins at {version}, of an interval that was never recorded"
            ));
        }
        match pinned {
            Some((pinned, _)) if version.epoch < before.epoch && version != pinned => Err(format!(
                "{pg:?} epoch {epoch}: {object:?} begins at {version}, although interval {} began with {pinned}",
                before.epoch
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_core::id::Incarnation;

    const OBJECT: u64 = 3;

    struct Store(Option<Version>, bool);

    impl Look for Store {
        fn objects(&self, _pg: PgId) -> Vec<ObjectId> {
            vec![object()]
        }

        fn own(&self, _object: ObjectId) -> Option<Version> {
            self.0
        }

        fn is_tombstone(&self, _object: ObjectId, _version: Version) -> bool {
            self.1
        }
    }

    fn object() -> ObjectId {
        ObjectId { stripe: OBJECT, ..ObjectId::default() }
    }

    fn attempt(epoch: u64) -> Attempt {
        Attempt { epoch: Epoch(epoch), incarnation: Incarnation(1), counter: 1 }
    }

    fn version(epoch: u64, seq: u64) -> Version {
        Version { epoch: Epoch(epoch), seq }
    }

    /// An interval after another, each beginning with this version; the verdict on the last one.
    fn intervals(of: &[(u64, Version, bool)], acknowledged: Version) -> Result<(), String> {
        let (mut intervals, pg) = (Intervals::default(), PgId::default());
        let (last, first) = of.split_last().expect("some");
        for (epoch, version, tombstone) in first {
            intervals.recorded(1, pg, attempt(*epoch), &Store(Some(*version), *tombstone)).expect("legal so far");
        }
        intervals.acknowledged(object(), acknowledged);
        intervals.recorded(1, pg, attempt(last.0), &Store(Some(last.1), last.2))
    }

    #[test]
    fn an_interval_builds_on_the_one_before() {
        let (old, new) = (version(1, 1), version(2, 2));
        intervals(&[(2, old, false), (3, old, false)], old).expect("nothing was written");
        intervals(&[(2, old, false), (3, new, false)], new).expect("written in between");
        assert!(intervals(&[(2, old, false), (3, old, false)], new).is_err(), "acknowledged and lost");
        intervals(&[(2, old, false), (4, new, false)], old).expect("one that nobody was told of");
        assert!(intervals(&[(2, old, false), (4, version(3, 3), false)], old).is_err(), "never recorded");
    }

    #[test]
    fn what_an_interval_went_on_without_never_comes_back() {
        let (old, zombie) = (version(1, 1), version(1, 2));
        assert!(intervals(&[(2, old, false), (3, zombie, false)], old).is_err());
        assert!(intervals(&[(2, Version::NONE, false), (3, old, false)], Version::NONE).is_err());
    }

    #[test]
    fn only_tombstones_vanish() {
        let old = version(1, 1);
        assert!(intervals(&[(2, old, false), (3, Version::NONE, false)], Version::NONE).is_err());
        intervals(&[(2, old, true), (3, Version::NONE, false)], old).expect("purged");
        intervals(&[(2, old, true), (3, Version::NONE, false), (4, Version::NONE, false)], Version::NONE)
            .expect("for good");
        let written = version(2, 2);
        assert!(intervals(&[(2, old, true), (3, Version::NONE, false)], written).is_err(), "written again, and lost");
    }

    #[test]
    fn choices_of_an_attempt_that_was_not_recorded_do_not_count() {
        let (mut intervals, pg, old) = (Intervals::default(), PgId::default(), version(1, 1));
        intervals.recorded(1, pg, attempt(2), &Store(Some(old), false)).expect("the first");
        intervals.chosen(1, pg, attempt(3), object(), version(1, 2));
        intervals.recorded(1, pg, attempt(4), &Store(Some(old), false)).expect("another attempt");
        intervals.chosen(1, pg, attempt(5), object(), version(1, 2));
        assert!(intervals.recorded(1, pg, attempt(5), &Store(Some(old), false)).is_err());
    }
}
