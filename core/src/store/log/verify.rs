//! Verification at opening: of each object whose data may not have reached the device, the newest state whose data
//! match their checksums counts; records after it are void.

use super::index::{ObjectIndex, Objects};
use super::journal::Start;
use super::object::State;
use super::open::{Disk, Purpose};
use super::record::{Body, NO_BLOCK, Record};
use super::replay::{self, Past, Replay};
use super::superblock::Superblock;
use crate::buf::{Buf, UNIT, UNIT_USIZE};
use crate::io::{Device, DiskOp};
use crate::planted::{Bug, planted};

/// Blocks read at a time.
const READS: usize = 32;

/// An object under verification.
#[derive(Clone, Debug)]
struct Check {
    place: ObjectIndex,
    /// Older states, oldest first.
    pasts: Vec<Past>,
    /// How many of them were given up: 0 tries the newest state.
    back: usize,
    /// Blocks of the state that are still to be looked at: committed, prepared.
    part: usize,
    /// Parts of the newest state that do not match.
    damaged: [bool; 2],
    done: bool,
}

/// Verification under way. Objects are awake until their verdict.
#[derive(Clone, Default)]
pub struct Verifier {
    superblock: Option<Superblock>,
    objects: Objects,
    start: Option<Start>,
    checks: Vec<Check>,
    /// Checks that were begun, and that are not done.
    begun: usize,
    outstanding: usize,
}

impl Verifier {
    /// Verifies what replay found.
    pub fn new(superblock: Superblock, replay: Replay) -> Self {
        let (mut objects, mut pasts, start) = replay.finish();
        if planted(Bug::StoreSkipVerify) {
            pasts.clear();
        }
        let check = |(place, pasts): (ObjectIndex, Vec<Past>)| Check {
            place,
            pasts,
            back: 0,
            part: 0,
            damaged: [false; 2],
            done: false,
        };
        let checks: Vec<Check> = pasts.into_iter().map(check).collect();
        for check in &checks {
            objects.wake(check.place);
        }
        Verifier { superblock: Some(superblock), objects, start: Some(start), checks, begun: 0, outstanding: 0 }
    }

    /// Keeps some reads on their way.
    pub fn read_ahead(&mut self, disk: &mut Disk<'_, '_>) {
        for at in 0..self.begun {
            // Those whose read just came go on first.
            if self.checks[at].is_waiting() {
                self.go_on(at, disk);
            }
        }
        while self.outstanding < READS && self.begun < self.checks.len() {
            self.begun += 1;
            self.go_on(self.begun - 1, disk);
        }
    }

    /// Whether every object is verified.
    pub fn is_done(&self) -> bool {
        self.begun == self.checks.len() && self.outstanding == 0
    }

    /// Reads what is next of an object, or ends its check.
    fn go_on(&mut self, at: usize, disk: &mut Disk<'_, '_>) {
        let superblock = self.superblock.expect("set from the beginning");
        while let Some((block, first, end)) = self.next_span(at) {
            if end > first {
                let len = u32::try_from(end - first).expect("units of one object") * UNIT;
                let offset = superblock.data_place(block, first);
                self.outstanding += 1;
                self.checks[at].part |= IN_FLIGHT;
                return disk.emit(Purpose::Verify(at), DiskOp::Read { device: Device::Data, offset, len });
            }
            self.checks[at].part += 1;
        }
        self.checks[at].done = true;
    }

    /// Block and units of the part to be looked at next; `None`: the state matches.
    fn next_span(&self, at: usize) -> Option<(u32, usize, usize)> {
        let check = &self.checks[at];
        if check.done || check.part >= 2 {
            return None;
        }
        let Some(state) = self.part(check) else { return Some((NO_BLOCK, 0, 0)) };
        let (first, end) = span(state);
        Some((state.block, first, end))
    }

    /// The part of the state under verification: committed or prepared.
    fn part<'a>(&'a self, check: &'a Check) -> Option<&'a State> {
        let versions = match check.back {
            0 => &self.objects.at(check.place).versions,
            back => &check.pasts[check.pasts.len() - back].versions,
        };
        let part =
            if check.part & !IN_FLIGHT == 0 { versions.committed.as_ref() } else { versions.prepared.as_deref() };
        part.filter(|state| !state.on_top)
    }

    /// A block was read (or could not be).
    pub fn block_read(&mut self, at: usize, buf: Option<Buf>) {
        self.outstanding -= 1;
        let check = &self.checks[at];
        let state = self.part(check).expect("it was read");
        // What cannot be read was not torn by a crash, it rots: no reason to go back to an older version.
        let unreadable = buf.is_none();
        let matches = buf.is_some_and(|buf| units_match(state, &buf));
        let check = &mut self.checks[at];
        check.part &= !IN_FLIGHT;
        if check.back == 0 {
            check.damaged[check.part] = !matches;
        }
        if matches {
            check.part += 1;
            return;
        }
        (check.back, check.part) = (check.back + 1, 0);
        if unreadable || check.back > check.pasts.len() {
            // None matches: the newest stays, and says so.
            check.back = 0;
            check.done = true;
            let versions = &mut self.objects.at_mut(check.place).versions;
            for (state, damaged) in [(versions.committed.as_mut(), 0), (versions.prepared.as_deref_mut(), 1)] {
                if let Some(state) = state {
                    state.damaged |= check.damaged[damaged];
                }
            }
        }
    }

    /// The objects as they are, where the log stands, and the verdicts.
    pub fn finish(self) -> (Objects, Start, Vec<Record>) {
        let Verifier { mut objects, checks, start, .. } = self;
        let mut voids = Vec::new();
        for mut check in checks {
            if check.back == 0 {
                objects.rest(check.place);
                continue;
            }
            let past = check.pasts.swap_remove(check.pasts.len() - check.back);
            let object = objects.at_mut(check.place);
            voids.push(Record { copy: object.copy, body: Body::Void(past.before) });
            (object.versions, object.base) = (past.versions, past.base);
            objects.rest(check.place);
        }
        replay::drop_empty(&mut objects);
        (objects, start.expect("set from the beginning"), voids)
    }
}

/// Marks a part whose block is being read.
const IN_FLIGHT: usize = 1 << 8;

impl Check {
    fn is_waiting(&self) -> bool {
        !self.done && self.part & IN_FLIGHT == 0
    }
}

/// Units that come from the block.
fn in_block(state: &State) -> impl Iterator<Item = usize> + '_ {
    let has_block = state.block != NO_BLOCK;
    state.bitmap.units().filter(move |unit| has_block && state.overlay(*unit).is_none())
}

fn span(state: &State) -> (usize, usize) {
    let first = in_block(state).next().unwrap_or(0);
    (first, in_block(state).last().map_or(first, |last| last + 1))
}

fn units_match(state: &State, buf: &Buf) -> bool {
    let (first, _) = span(state);
    in_block(state).all(|unit| {
        let at = (unit - first) * UNIT_USIZE;
        crc32fast::hash(&buf.bytes()[at..at + UNIT_USIZE]) == state.sums[unit]
    })
}
