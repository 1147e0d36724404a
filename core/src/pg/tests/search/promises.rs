//! What the group promises, checked at every state of a search.
//!
//! Owns: which orders of the clients' operations explain what they saw; the version that was acknowledged or shown last;
//! the version with which the newest interval began; what each version contains; which versions the next peering could
//! choose, whoever answers it.

use super::canon::{hash_of, mix};
use super::world::{Node, PG, object, store_uuid};
use super::{Op, Scope};
use crate::id::{CopyId, Epoch, Member, OsdId, Role, Version};
use crate::map::{History, Scheme};
use crate::pg::choose::{Choice, Grounds, Held, choose};
use crate::pg::roster::{Roster, Statement};
use crate::store::{Digest, ObjectStore};
use crate::time::Time;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

thread_local! {
    /// Situations that were looked at and found good.
    static LOOKED_AT: RefCell<BTreeSet<u64>> = const { RefCell::new(BTreeSet::new()) };
}

/// Forgets what was found good, under other rules.
pub fn forget() {
    LOOKED_AT.with_borrow_mut(BTreeSet::clear);
}

/// Operations, at most: configurations are bits of a word.
const OPS_MAX: usize = 4;
const DONE: u32 = 1 << OPS_MAX;

/// See the module.
#[derive(Clone, Debug)]
pub struct Promises {
    /// Configurations `value * DONE + operations that took effect`; value 0: absent, else operation number + 1.
    explanations: u128,
    called: u32,
    /// What a read that is under way may return.
    reading: BTreeMap<u64, u32>,
    /// The version that must not be lost, and whether it says that the object is absent.
    floor: (Version, bool),
    /// The newest interval that was served, the version with which it began, and whether that is absence.
    served: (Epoch, Version, bool),
    tombstones: BTreeSet<Version>,
    contents: BTreeMap<(Version, Role), u64>,
    /// Sum of the hashes of both.
    stored: u64,
    history: Rc<History>,
    history_hash: u64,
    problem: Option<Rc<str>>,
}

impl Default for Promises {
    fn default() -> Self {
        Promises {
            explanations: 1,
            called: 0,
            reading: BTreeMap::new(),
            floor: (Version::NONE, true),
            served: (Epoch(0), Version::NONE, true),
            tombstones: BTreeSet::new(),
            contents: BTreeMap::new(),
            stored: 0,
            history: Rc::default(),
            history_hash: 0,
            problem: None,
        }
    }
}

impl Promises {
    /// The first promise that was broken.
    pub fn verdict(&self) -> Result<(), String> {
        self.problem.as_ref().map_or(Ok(()), |problem| Err(problem.to_string()))
    }

    /// A promise is broken.
    pub fn broken(&mut self, text: String) {
        self.problem.get_or_insert(text.into());
    }

    // ---- what clients see ----

    fn configurations(&self) -> impl Iterator<Item = (u32, u32)> + use<> {
        let all = self.explanations;
        (0..128u32).filter(move |bit| all >> bit & 1 == 1).map(|bit| (bit / DONE, bit % DONE))
    }

    fn keep(&mut self, condition: impl Fn(u32, u32) -> bool) {
        let kept = self.configurations().filter(|(value, done)| condition(*value, *done));
        self.explanations = kept.fold(0, |all, (value, done)| all | 1 << (value * DONE + done));
    }

    /// An operation was called: it may take effect from now on.
    pub fn called(&mut self, op: usize, ops: &[Op]) {
        self.called |= 1 << op;
        loop {
            let mut all = self.explanations;
            for (_, done) in self.configurations() {
                for other in (0..ops.len()).filter(|other| self.called >> other & 1 == 1 && done >> other & 1 == 0) {
                    let value = if ops[other] == Op::Delete { 0 } else { u32::try_from(other).expect("few") + 1 };
                    all |= 1 << (value * DONE + (done | 1 << other));
                }
            }
            if std::mem::replace(&mut self.explanations, all) == all {
                break;
            }
        }
        let values = self.values();
        self.reading.values_mut().for_each(|seen| *seen |= values);
    }

    fn values(&self) -> u32 {
        self.configurations().fold(0, |values, (value, _)| values | 1 << value)
    }

    /// An operation was answered: it has taken effect.
    pub fn returned(&mut self, op: usize) {
        self.keep(|_, done| done >> op & 1 == 1);
        if self.explanations == 0 {
            self.broken(format!("no order explains that operation {op} is done"));
        }
    }

    /// An operation was refused: it has not taken effect, and never will.
    pub fn refused(&mut self, op: usize) {
        self.called &= !(1 << op);
        self.keep(|_, done| done >> op & 1 == 0);
        if self.explanations == 0 {
            self.broken(format!("operation {op} was refused, and seen before"));
        }
    }

    /// A read was called.
    pub fn reading(&mut self, number: u64) {
        let values = self.values();
        self.reading.insert(number, values | NOW);
    }

    /// A read was answered.
    pub fn read(&mut self, number: u64, value: u8) {
        let Some(possible) = self.reading.remove(&number) else { return };
        let value = u32::from(value);
        if value >= 31 || possible >> value & 1 == 0 {
            return self.broken(format!("a read returned {value}; possible were the bits {possible:b}"));
        }
        if possible & NOW != 0 {
            self.keep(|other, _| other == value);
        }
    }

    /// The reads that were not answered at once see what comes, too.
    pub fn reads_settled(&mut self) {
        self.reading.values_mut().for_each(|seen| *seen &= !NOW);
    }

    /// Whether a read is not answered.
    pub fn is_reading(&self) -> bool {
        !self.reading.is_empty()
    }

    /// The last read must have been answered.
    pub fn final_read(&self) -> Result<(), String> {
        if self.reading.contains_key(&99) { Err("the last read is not answered".into()) } else { Ok(()) }
    }

    // ---- versions ----

    /// A write is acknowledged.
    pub fn acknowledged(&mut self, version: Version, tombstone: bool) {
        if tombstone {
            self.buried(version);
        }
        if version > self.floor.0 {
            self.floor = (version, tombstone);
        }
    }

    fn buried(&mut self, version: Version) {
        if self.tombstones.insert(version) {
            self.stored = self.stored.wrapping_add(mix(number(version), 77));
        }
    }

    /// A version was shown to a client.
    pub fn served(&mut self, version: Version) {
        if version > self.floor.0 {
            self.floor = (version, false);
        }
    }

    fn is_absence(&self, version: Version) -> bool {
        version.is_none() || self.tombstones.contains(&version)
    }

    /// An interval begins with this version.
    pub fn activated(&mut self, epoch: Epoch, version: Version) {
        if epoch <= self.served.0 {
            return;
        }
        if let Err(text) = self.allowed(version, self.tombstones.contains(&version)) {
            return self.broken(format!("epoch {epoch} begins: {text}"));
        }
        let absent = self.is_absence(version);
        self.served = (epoch, version, absent);
        self.floor = (if version.is_none() { self.floor.0 } else { version }, absent);
    }

    /// Whether a peering may choose this.
    fn allowed(&self, version: Version, tombstone: bool) -> Result<(), String> {
        let (floor, floor_absent) = self.floor;
        let (epoch, begun, absent) = self.served;
        if version.is_none() {
            return if floor_absent { Ok(()) } else { Err(format!("nothing is chosen, {floor} is lost")) };
        }
        if version < floor && !(floor_absent && tombstone) {
            return Err(format!("{version} is chosen, {floor} is lost"));
        }
        if version == begun || version.epoch == epoch || (absent && tombstone) {
            return Ok(());
        }
        let what = if absent { "resurrected" } else { "a zombie" };
        Err(format!("{version} is {what}: epoch {epoch} began with {begun} without it"))
    }

    /// A history was written to the metadata store.
    pub fn recorded(&mut self, value: &[u8]) {
        self.history = Rc::new(serde_json::from_slice(value).expect("a history"));
        self.history_hash = hash_of(&self.history, Time(0));
    }

    // ---- what is stored ----

    /// A version has one content in each role.
    pub fn contents(&mut self, nodes: &[Rc<Node>], scope: &Scope) -> Result<(), String> {
        for (osd, node) in nodes.iter().enumerate() {
            for role in 0..scope.roles() {
                let copy = CopyId { object: object(), role: Role(role) };
                for (info, print) in node.store().contents(copy) {
                    if info.tombstone {
                        self.buried(info.version);
                    }
                    let of = mix(mix(print, number(info.predecessor)), info.tombstone.into());
                    let known = self.contents.insert((info.version, Role(role)), of);
                    if known.is_none() {
                        self.stored = self.stored.wrapping_add(mix(mix(number(info.version), of), role.into()));
                    }
                    if known.is_some_and(|known| known != of) {
                        return Err(format!("osd.{osd}: version {} has two contents in role {role}", info.version));
                    }
                }
            }
        }
        Ok(())
    }

    /// After the healing: all copies are the same, and not below what was acknowledged.
    pub fn equal_copies(&self, nodes: &[Rc<Node>], has_roles: bool) -> Result<(), String> {
        let mut seen = None;
        for (osd, node) in nodes.iter().enumerate() {
            let role = Role(if has_roles { u8::try_from(osd).expect("few") } else { 0 });
            let info = node.store().lookup(CopyId { object: object(), role });
            let held = info.and_then(|info| info.prepared.or(info.committed)).map(|newest| newest.version);
            if *seen.get_or_insert(held) != held {
                return Err(format!("osd.{osd} holds {held:?}, another one {seen:?}"));
            }
        }
        Ok(())
    }

    fn members_of(&self, osds: u32, nodes: &[Rc<Node>], scope: &Scope) -> Vec<Member> {
        let answering = (0..nodes.len()).filter(|osd| osds >> osd & 1 == 1);
        let roles = |osd: usize| if scope.has_roles() { osd.min(usize::from(scope.size) - 1) } else { 0 };
        let member = |osd: usize| Member {
            osd: OsdId(u32::try_from(osd).expect("few")),
            store: store_uuid(osd, nodes[osd].stores),
            role: Role(u8::try_from(roles(osd)).expect("few")),
        };
        answering.map(member).collect()
    }

    fn grounds(&self, osds: u32, nodes: &[Rc<Node>], scope: &Scope) -> (Roster, Grounds) {
        let members = self.members_of(osds, nodes, scope);
        let mut roster = Roster::new(&members, &self.history);
        for seat in roster.seats().to_vec() {
            let osd = seat.member.osd.0 as usize;
            let is_it = seat.member.store == store_uuid(osd, nodes[osd].stores) || super::is_uuid_ignored();
            if osds >> osd & 1 == 1 && is_it {
                roster.stated(&seat.member, Statement { trusted: true, digest: Digest::default() });
            }
        }
        let grounds = roster.grounds(&self.history, scope.k(), scope.scheme == Scheme::Replicated);
        (roster, grounds)
    }

    /// Whether all recorded sets can still be satisfied: stores that were re-created may have been too many.
    pub fn is_recoverable(&self, nodes: &[Rc<Node>], scope: &Scope) -> bool {
        let all = (1u32 << nodes.len()) - 1;
        self.grounds(all, nodes, scope).1.suffices()
    }

    fn situation(&self, nodes: &[Rc<Node>], scope: &Scope) -> u64 {
        let stores = nodes.iter().map(|node| {
            let roles = (0..scope.roles()).map(|role| {
                let digest = node.store().digest(PG.pool, Role(role), crate::id::HashRange::ALL);
                digest.sum ^ digest.count
            });
            roles.fold(node.stores, mix)
        });
        stores.fold(self.promised(), mix)
    }

    /// Whoever answers the next peering, as long as it goes on: it can go on, and chooses nothing that is forbidden.
    pub fn next_peerings(&self, nodes: &[Rc<Node>], scope: &Scope) -> Result<(), String> {
        let situation = self.situation(nodes, scope);
        if LOOKED_AT.with_borrow(|known| known.contains(&situation)) {
            return Ok(());
        }
        for osds in 1u32..1 << nodes.len() {
            if osds.count_ones() < scope.minsize.into() {
                continue;
            }
            let (roster, grounds) = self.grounds(osds, nodes, scope);
            if grounds.suffices() {
                let result = self.next_choice(&roster, &grounds, nodes);
                result.map_err(|text| format!("a peering with the answers of OSDs {osds:b}: {text}"))?;
            }
        }
        if scope.any_one_may_go {
            self.any_one_may_go(nodes, scope)?;
        }
        LOOKED_AT.with_borrow_mut(|known| known.insert(situation));
        Ok(())
    }

    fn next_choice(&self, roster: &Roster, grounds: &Grounds, nodes: &[Rc<Node>]) -> Result<(), String> {
        let mut held = Vec::new();
        for (index, seat) in roster.in_mask(roster.answered()) {
            let node = &nodes[seat.member.osd.0 as usize];
            let info = node.store().lookup(CopyId { object: object(), role: seat.member.role });
            let versions = info.into_iter().flat_map(|info| [info.committed, info.prepared]).flatten();
            held.extend(versions.map(|at| Held {
                seat: index,
                version: at.version,
                tombstone: at.tombstone,
                damaged: at.damaged,
            }));
        }
        self.may_choose(grounds, &held)?;
        // It does not insist on versions that nobody can read, or for which some member has no space. (Tombstones have
        // no data, and need no space.)
        for dropped in held.iter().filter(|held| !held.tombstone).map(|held| held.version).collect::<Vec<_>>() {
            held.iter_mut().filter(|held| held.version == dropped).for_each(|held| held.damaged = true);
            let result = self.may_choose(grounds, &held);
            result.map_err(|text| format!("without insisting on {dropped}: {text}"))?;
        }
        Ok(())
    }

    fn may_choose(&self, grounds: &Grounds, held: &[Held]) -> Result<(), String> {
        match choose(grounds, held) {
            Choice::Version { kept, .. } => {
                let (version, tombstone) = kept.unwrap_or_default();
                self.allowed(version, tombstone)
            }
            Choice::Incomplete(version) => Err(format!("{version} counts and cannot be supplied")),
            Choice::Impossible(version) => Err(format!("{version} is above the last interval")),
        }
    }

    /// No single OSD holds the only copy.
    fn any_one_may_go(&self, nodes: &[Rc<Node>], scope: &Scope) -> Result<(), String> {
        let all = (1u32 << nodes.len()) - 1;
        for osd in 0..nodes.len() {
            let (_, grounds) = self.grounds(all & !(1 << osd), nodes, scope);
            if !grounds.suffices() {
                return Err(format!("without osd.{osd} no peering is possible: {:?}", self.history));
            }
        }
        Ok(())
    }

    /// What was promised of versions.
    fn promised(&self) -> u64 {
        let (floor, floor_absent) = self.floor;
        let (epoch, begun, absent) = self.served;
        let words = [number(floor), floor_absent.into(), epoch.0, number(begun), absent.into(), self.history_hash];
        words.into_iter().fold(self.stored, mix)
    }

    /// Equal for equal promises.
    pub fn hash(&self) -> u64 {
        let explained = [self.explanations as u64, (self.explanations >> 64) as u64, self.called.into()];
        let reading = self.reading.iter().flat_map(|(number, seen)| [*number, u64::from(*seen)]);
        explained.into_iter().chain(reading).fold(self.promised(), mix)
    }
}

fn number(version: Version) -> u64 {
    version.epoch.0 << 32 | version.seq
}

/// Of a read: it is being answered within the step that called it.
const NOW: u32 = 1 << 31;
