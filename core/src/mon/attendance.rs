//! Who has been up or down for how long, and who comes and goes too often to be let in again at once.
//!
//! Owns: the clocks of OSDs that are down or up; what of them belongs into `osd/record/<n>`, so that the next leader goes on
//! counting; which OSDs are held down. Does not own the verdict (`verdict`), nor what follows from it (`plan`).
//!
//! ```text
//!            not up, or another start (a fall, unless it said that it goes)
//!    Up ---------------------------------------------------------------------> Down --- osd_out_time_s ---> out
//!    ^                                                                          |
//!    |   up, and not held: at most `osd_flap_limit` falls, or down for          |
//!    +-- osd_hold_s, doubled for each fall beyond the limit; or needed ---------+
//! ```
//! After `osd_flap_window_s` without a fall an OSD is forgiven. A change of leaders costs the clocks a sixteenth of
//! `osd_out_time_s` at most, and forgiveness begins anew.
//!
//! Invariant: an OSD that a group with too few members could use is never held.

use crate::id::{Incarnation, OsdId};
use crate::map::parse::Key;
use crate::map::{ClusterMap, Global, OsdRecord, OsdState};
use crate::time::{Duration, Time};
use std::collections::{BTreeMap, BTreeSet};

/// Parts of `osd_out_time_s` after which the time that an OSD has been down is written.
const NOTES: u64 = 16;
/// And at least so often.
const NOTE_MAX_S: u64 = 60;
/// The time for which an OSD is held doubles so often at most.
const DOUBLINGS_MAX: u32 = 5;

/// What belongs into an OSD's record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its start that was seen last.
    pub incarnation: Incarnation,
    /// Falls that are not forgiven.
    pub falls: u32,
    /// Seconds for which it has been down; `None`: it is up.
    pub down_s: Option<u64>,
}

/// Since when an OSD is down: when this leader saw it first, and the seconds that others had counted.
#[derive(Clone, Copy, Debug)]
struct Clock {
    seen: Time,
    before_s: u64,
}

impl Clock {
    fn elapsed(self, now: Time) -> Duration {
        Duration(now.since(self.seen).0 + Duration::secs(self.before_s).0)
    }

    /// When it will show so much.
    fn shows(self, elapsed: Duration) -> Time {
        self.seen + Duration(elapsed.0.saturating_sub(Duration::secs(self.before_s).0))
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Attendance {
    down: BTreeMap<OsdId, Clock>,
    up: BTreeMap<OsdId, Time>,
    held: BTreeSet<OsdId>,
    standings: BTreeMap<OsdId, Standing>,
}

impl Attendance {
    /// Looks at who is up by the verdict. Call it before anything is asked.
    pub fn update(&mut self, now: Time, map: &ClusterMap, present: &BTreeMap<OsdId, &OsdState>) {
        let records = map.osd_records().map(|(osd, _)| osd);
        let known: BTreeSet<OsdId> = records.chain(present.keys().copied()).collect();
        self.down.retain(|osd, _| known.contains(osd));
        self.up.retain(|osd, _| known.contains(osd));
        self.standings.retain(|osd, _| known.contains(osd));
        self.held.clear();
        for osd in known {
            // A store that lost metadata serves nothing for ever: its data move as if the OSD were down.
            let state = present.get(&osd).copied().filter(|state| state.trusted);
            self.update_one(now, map, osd, state);
        }
    }

    fn update_one(&mut self, now: Time, map: &ClusterMap, osd: OsdId, state: Option<&OsdState>) {
        let (record, global) = (map.osd_record(osd), map.global());
        let was_up = record.is_some_and(|record| record.down_s.is_none());
        let other_start = |record: &OsdRecord| {
            let known = record.incarnation != Incarnation::default();
            known && state.is_some_and(|state| state.incarnation != record.incarnation)
        };
        let restarted = record.is_some_and(other_start);
        let fell = was_up && (state.is_none() || restarted) && !goes_on_purpose(map, osd);
        let mut falls = record.map_or(0, |record| record.falls).saturating_add(u32::from(fell));
        let before_s = record.and_then(|record| record.down_s).unwrap_or(0);
        let admitted = was_up && !restarted;
        let held = state.is_some() && !admitted && {
            let clock = self.down.get(&osd).copied().unwrap_or(Clock { seen: now, before_s });
            hold(global, falls).is_some_and(|hold| clock.elapsed(now) < hold) && !is_needed(map, osd)
        };
        if state.is_some() && !held {
            self.down.remove(&osd);
            let since = *self.up.entry(osd).or_insert(now);
            let forgiven = window(global).is_some_and(|window| now.since(since) >= window);
            falls = if forgiven && admitted { 0 } else { falls };
        } else {
            self.up.remove(&osd);
            self.down.entry(osd).or_insert(Clock { seen: now, before_s });
            self.held.extend(held.then_some(osd));
        }
        if restarted {
            self.up.insert(osd, now);
        }
        let incarnation = state.map(|state| state.incarnation).or(record.map(|record| record.incarnation));
        let down_s = self.down.get(&osd).map(|clock| noted(global, clock.elapsed(now)));
        self.standings.insert(osd, Standing { incarnation: incarnation.unwrap_or_default(), falls, down_s });
    }

    /// OSDs that would be up, and are not let in.
    pub fn held(&self) -> &BTreeSet<OsdId> {
        &self.held
    }

    /// What belongs into an OSD's record.
    pub fn standing(&self, osd: OsdId) -> Standing {
        self.standings.get(&osd).copied().unwrap_or_default()
    }

    /// OSDs that have been down for so long that their data are copied elsewhere.
    pub fn expired(&self, now: Time, map: &ClusterMap) -> BTreeSet<OsdId> {
        let Some(limit) = out_time(map) else { return BTreeSet::new() };
        let late = |(osd, clock): &(&OsdId, &Clock)| may_go_out(map, **osd) && clock.elapsed(now) >= limit;
        self.down.iter().filter(late).map(|(osd, _)| *osd).collect()
    }

    /// When time alone changes something.
    pub fn next_deadline(&self, now: Time, map: &ClusterMap) -> Option<Time> {
        let global = map.global()?;
        let out = out_time(map)?;
        let note = |clock: &Clock| {
            let (step, elapsed) = (step_s(global), clock.elapsed(now));
            let next = Duration::secs((noted(Some(global), elapsed) / step + 1) * step);
            (next <= out).then(|| clock.shows(next))
        };
        let down = self.down.iter().flat_map(|(osd, clock)| {
            let out = may_go_out(map, *osd).then(|| clock.shows(out));
            let falls = self.standing(*osd).falls;
            let end = hold(Some(global), falls).filter(|_| self.held.contains(osd)).map(|hold| clock.shows(hold));
            [out, note(clock), end]
        });
        let window = Duration::secs(global.osd_flap_window_s);
        let fallen = self.up.iter().filter(|(osd, _)| self.standing(**osd).falls > 0);
        down.flatten().chain(fallen.map(|(_, since)| *since + window)).min()
    }
}

/// Whether an OSD said that it stops, in its present start.
fn goes_on_purpose(map: &ClusterMap, osd: OsdId) -> bool {
    let own =
        |(about, by, ..): &(OsdId, OsdId, &crate::map::FailureReport, crate::id::Revision)| *about == osd && *by == osd;
    map.failure_reports().filter(own).any(|(_, _, report, _)| report.hard)
}

/// For how long an OSD with so many falls stays down; `None`: it is let in at once.
fn hold(global: Option<&Global>, falls: u32) -> Option<Duration> {
    let global = global.filter(|global| global.osd_flap_limit > 0)?;
    let beyond = falls.checked_sub(global.osd_flap_limit).filter(|beyond| *beyond > 0)?;
    Some(Duration::secs(global.osd_hold_s << (beyond - 1).min(DOUBLINGS_MAX)))
}

fn window(global: Option<&Global>) -> Option<Duration> {
    global.map(|global| Duration::secs(global.osd_flap_window_s))
}

/// Seconds between two notes of the time that an OSD has been down.
fn step_s(global: &Global) -> u64 {
    (global.osd_out_time_s / NOTES).clamp(1, NOTE_MAX_S)
}

/// What is written of this time: not more than matters, in steps.
fn noted(global: Option<&Global>, elapsed: Duration) -> u64 {
    let Some(global) = global else { return 0 };
    let seconds = (elapsed.as_millis() / 1000).min(global.osd_out_time_s);
    seconds - seconds % step_s(global)
}

/// Whether a group that has, or wants, this OSD has too few members without it.
fn is_needed(map: &ClusterMap, osd: OsdId) -> bool {
    map.groups().any(|(id, group)| {
        let Some(pool) = map.pool(id.pool) else { return false };
        let others = group.acting.iter().flatten().filter(|member| member.osd != osd).count();
        let recorded = || {
            let history = map.history(id).into_iter();
            let mut members = history.flat_map(|history| history.sets.iter().flat_map(|(_, set)| set));
            members.any(|member| member.osd == osd)
        };
        others < usize::from(pool.pg_minsize) && (group.target.contains(&Some(osd)) || recorded())
    })
}

/// Whether an OSD that stays down would be taken out.
fn may_go_out(map: &ClusterMap, osd: OsdId) -> bool {
    let counts = !map.osd_config(osd).noout && !map.is_refused(Key::OsdRecord(osd));
    counts && map.osd_record(osd).is_some_and(|record| !record.out)
}

fn out_time(map: &ClusterMap) -> Option<Duration> {
    map.global().map(|global| Duration::secs(global.osd_out_time_s))
}
