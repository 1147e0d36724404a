//! The monitor node: watches everything, leads if it can, gives verdicts, places groups, writes their maps; serves
//! maps to clients whether it leads or not.
//!
//! Owns no state that cannot be read again: a monitor that starts, or leads for the first time, begins from the
//! metadata store. What it keeps besides is for how long OSDs have been down or up, which their records follow in steps,
//! and placements that are being written.
//!
//! | method | class |
//! | --- | --- |
//! | [`Node::handle`] | all events; the first tick starts it |
//! | [`Mon::stop`] | called once, at a clean end |
//! | [`Mon::is_leading`], [`Mon::has_stopped`], [`Mon::map`] | for observers |
//!
//! Flow of the leader: `ClusterMap` -> `verdict` (who is up) -> `attendance` (who is let in) -> `targets` (where groups
//! should live) -> `acting` (who serves them) -> `plan` (what differs) -> `writer` (one transaction at a time, each
//! comparing leadership and revisions).

pub mod acting;
pub mod attendance;
pub mod leadership;
pub mod load;
pub mod plan;
pub mod relayout;
pub mod retire;
pub mod succession;
pub mod targets;
pub mod verdict;
pub mod writer;

use crate::id::{ClusterUuid, Incarnation};
use crate::io::{Effect, Env, Event, Input, Level, LinkEvent, MetaError, MetaEvent, MetaId, Node};
use crate::map::follow::{Followed, Follower};
use crate::map::parse::Key;
use crate::map::serve::MapServer;
use crate::map::{Changes, ClusterMap, Leader, PREFIX};
use crate::meta::{Compare, Response};
use crate::msg::Message;
use crate::time::{Duration, Time};
use attendance::Attendance;
use leadership::Leadership;
use plan::Situation;
use succession::Succession;
use targets::Targets;
use verdict::up_osds;
use writer::{Writer, Written};

/// What a monitor reads and watches, below [`PREFIX`].
const FOLLOWED: [&str; 7] = ["config/", "osd/", "pg/map/", "pg/history/", "pg/wish/", "pg/removed/", "mon/"];
/// Primaries are moved for balance at most this often: each move stops its group for a peering.
const BALANCE_PERIOD: Duration = Duration::secs(2);

/// A leader that dies is missed for so long at most, when an OSD dies with it; one that was paused for longer has lost
/// nothing but the lead.
const LEADERSHIP_TTL_S: u64 = 2;

/// Histories change by the thousand when groups peer, and each plan looks at all groups. Whoever is up and where groups
/// should live does not depend on them, only the next step of a move does.
const HISTORY_PAUSE: Duration = Duration::millis(50);

/// What a monitor is told at its start.
#[derive(Clone, Debug)]
pub struct MonConfig {
    /// This start.
    pub incarnation: Incarnation,
    /// Where it serves maps.
    pub address: String,
    /// The cluster that it belongs to; it ends if the metadata store says another.
    pub cluster: ClusterUuid,
    /// Time to live of its leadership, if that is less than usual.
    pub session_ttl_s: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Mon {
    config: MonConfig,
    follower: Follower,
    map: ClusterMap,
    server: MapServer,
    leadership: Leadership,
    succession: Succession,
    targets: Targets,
    writer: Writer,
    attendance: Attendance,
    /// When time alone changes something of that.
    attendance_at: Option<Time>,
    started: bool,
    /// What guarded the transactions of the leader that we are, or were when we began to ask.
    led: Option<Compare>,
    /// When a plan is due because the map changed since the last one that had nothing to write.
    plan_at: Option<Time>,
    /// The map changed since primaries were last balanced.
    balance_due: bool,
    balance_at: Time,
    next_id: u64,
}

impl Mon {
    /// A monitor that does nothing until started.
    pub fn new(config: MonConfig) -> Self {
        let value = Leader { incarnation: config.incarnation, address: config.address.clone() };
        let leadership = Leadership::new(value, config.session_ttl_s.min(LEADERSHIP_TTL_S));
        Mon {
            config,
            follower: Follower::new(FOLLOWED.iter().map(|part| format!("{PREFIX}{part}")).collect()),
            map: ClusterMap::default(),
            server: MapServer::new(),
            leadership,
            succession: Succession::default(),
            targets: Targets::default(),
            writer: Writer::default(),
            attendance: Attendance::default(),
            attendance_at: None,
            started: false,
            led: None,
            plan_at: None,
            balance_due: false,
            balance_at: Time(0),
            next_id: 0,
        }
    }

    /// Begins: reads the metadata store and asks for leadership. The first tick does it too.
    pub fn start(&mut self, env: &mut Env<'_>) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        let Mon { follower, leadership, next_id, .. } = self;
        follower.start(env, &mut || fresh(next_id));
        leadership.start(env, fresh(next_id));
    }

    /// Ends on purpose: another monitor can lead at once.
    pub fn stop(&mut self, env: &mut Env<'_>) {
        self.leadership.end(env, fresh(&mut self.next_id));
    }

    /// OSDs that are up by this monitor's verdict.
    pub fn osds_up(&self) -> usize {
        up_osds(&self.map).len()
    }

    /// Whether it was stopped, and its leadership is given up.
    pub fn has_stopped(&self) -> bool {
        self.leadership.has_ended()
    }

    /// Whether this monitor leads, as far as it knows.
    pub fn is_leading(&self) -> bool {
        self.leadership.guard().is_some()
    }

    /// What it knows of the cluster.
    pub fn map(&self) -> &ClusterMap {
        &self.map
    }

    fn meta(&mut self, env: &mut Env<'_>, event: MetaEvent) {
        match event {
            MetaEvent::Response { id, ref result } => {
                if result.is_ok() {
                    self.follower.store_answers();
                }
                let Mon { leadership, next_id, .. } = self;
                let taken = leadership.handle(env, id, result, &mut || fresh(next_id));
                if taken || self.succession.handle(id, result) {
                    return;
                }
                match self.writer.handle(env.now, id, result) {
                    Some(written) => self.written(env, written, result),
                    None => self.follow(env, event),
                }
            }
            MetaEvent::Watch { .. } | MetaEvent::WatchLost { .. } => self.follow(env, event),
        }
    }

    fn follow(&mut self, env: &mut Env<'_>, event: MetaEvent) {
        let Mon { follower, next_id, .. } = self;
        let Ok(Some(followed)) = follower.handle(env, event, &mut || fresh(next_id)) else { return };
        let changes = self.map.apply(&followed);
        self.server.changed(env, &self.map, &changes);
        let urgent = changes.keys.iter().any(|key| !matches!(key, Key::History(_)));
        self.plan_by(env.now + if urgent { Duration::ZERO } else { HISTORY_PAUSE });
        self.balance_due = true;
        if let Followed::Full { revision, .. } = followed {
            self.writer.read_anew(revision);
        }
        self.changed(env, &changes);
    }

    fn changed(&mut self, env: &mut Env<'_>, changes: &Changes) {
        for error in &changes.errors {
            log(env, Level::Error, format!("{error} (the last good value stays in force)"));
        }
        if let Some(global) = self.map.global()
            && global.cluster != self.config.cluster
        {
            let (here, there) = (self.config.cluster, global.cluster);
            let text = format!("this monitor is of cluster {here}, the metadata store of {there}: check --meta");
            return env.out.push(Effect::Die(text));
        }
        let leader = self.map.leader().map(|(leader, _)| leader.incarnation);
        if changes.keys.contains(&Key::Leader) && leader != Some(self.config.incarnation) {
            let Mon { leadership, next_id, .. } = self;
            leadership.ask(env, &mut || fresh(next_id));
        }
        if changes.keys.iter().any(|key| matches!(key, Key::OsdFailed(..) | Key::OsdState(_) | Key::Leader)) {
            self.succeed(env);
        }
    }

    /// Deposes a leader that is gone, if another monitor leads.
    fn succeed(&mut self, env: &mut Env<'_>) {
        if self.is_leading() || !self.follower.is_current() {
            return;
        }
        let Mon { succession, map, next_id, .. } = self;
        if succession.consider(env, map, || fresh(next_id)) {
            log(env, Level::Warn, "the leading monitor's machine is silent: another monitor is to lead".into());
        }
    }

    fn written(&mut self, env: &mut Env<'_>, written: Written, result: &Result<Response, MetaError>) {
        let Written::Failed(reason) = written else { return };
        let text = match reason {
            Some(reason) => format!("the metadata store refused a transaction: {reason}"),
            None => format!("a transaction failed, reading everything again: {}", outcome(result)),
        };
        log(env, Level::Warn, text);
        self.targets.forget();
        self.plan_by(env.now);
        let Mon { follower, leadership, next_id, .. } = self;
        follower.start(env, &mut || fresh(next_id));
        leadership.ask(env, &mut || fresh(next_id));
    }

    /// Does what the leader has to do now.
    fn lead(&mut self, env: &mut Env<'_>) {
        let guard = self.leadership.guard();
        self.note_leadership(env, guard.as_ref());
        let (Some(guard), true) = (guard, self.follower.is_current()) else { return };
        let due = self.own_deadline().is_some_and(|at| at <= env.now);
        if !due || !self.writer.is_ready(env.now, &self.map) {
            return;
        }
        let writes = self.plan(env);
        if writes.is_empty() {
            self.plan_at = None;
        } else {
            self.writer.send(env, fresh(&mut self.next_id), guard, writes);
        }
    }

    fn plan_by(&mut self, at: Time) {
        self.plan_at = Some(self.plan_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn plan(&mut self, env: &mut Env<'_>) -> Vec<plan::Write> {
        let mut up = up_osds(&self.map);
        let held_before = self.attendance.held().clone();
        self.attendance.update(env.now, &self.map, &up);
        for osd in self.attendance.held() {
            up.remove(osd);
            if !held_before.contains(osd) {
                let falls = self.attendance.standing(*osd).falls;
                let text = format!("osd.{osd} fell {falls} times: it is held down for a while (osd_flap_limit)");
                log(env, Level::Warn, text);
            }
        }
        let update = self.targets.update(env.now, &self.map);
        update.refused.into_iter().for_each(|text| log(env, Level::Error, text));
        for placed in update.placed {
            let text = format!("placed pool {}: {} moved, {} filled", placed.pool, placed.moves, placed.filled);
            log(env, Level::Info, text);
        }
        let balance = self.balance_due && self.balance_at <= env.now;
        if balance {
            self.balance_due = false;
            self.balance_at = env.now + BALANCE_PERIOD;
        }
        self.attendance_at = self.attendance.next_deadline(env.now, &self.map);
        let expired = self.attendance.expired(env.now, &self.map);
        let (map, attendance, targets) = (&self.map, &self.attendance, &self.targets);
        let situation = Situation { map, up: &up, expired: &expired, attendance, targets, balance };
        situation.plan()
    }

    /// A monitor that leads anew knows nothing from before: another may have led meanwhile. One that only lost a race, asks
    /// whether it leads and has its key still, goes on counting: races can be lost more often than clocks of OSDs are written.
    fn note_leadership(&mut self, env: &mut Env<'_>, guard: Option<&Compare>) {
        if self.led.as_ref() == guard || (self.led.is_some() && self.leadership.is_asking()) {
            return;
        }
        self.led = guard.cloned();
        self.targets = Targets::default();
        self.attendance = Attendance::default();
        self.plan_by(env.now);
        let text = if guard.is_some() { "this monitor leads now" } else { "this monitor does not lead any more" };
        log(env, Level::Info, text.into());
    }

    /// When something is to be planned.
    fn own_deadline(&self) -> Option<Time> {
        let balance = self.balance_due.then_some(self.balance_at);
        [self.plan_at, self.targets.next_deadline(), self.attendance_at, balance].into_iter().flatten().min()
    }
}

impl Node for Mon {
    fn handle(&mut self, env: &mut Env<'_>, input: Input) {
        match input {
            Input::Message { from, msg: Message::Map(message) } => self.server.handle(env, &self.map, from, message),
            Input::Message { from, msg } => {
                log(env, Level::Warn, format!("{from:?} sent a message that is not for monitors: {msg:?}"));
                env.out.push(Effect::Close(from));
            }
            Input::Link(LinkEvent::Down { link }) => self.server.link_down(link),
            Input::Link(LinkEvent::Up { .. } | LinkEvent::Failed { .. }) => {}
            Input::Io { id, .. } => panic!("monitor: {id:?} completed, but monitors have no disks"),
            Input::Meta(event) => self.meta(env, event),
            Input::Tick if !self.started => self.start(env),
            Input::Tick => {
                let Mon { follower, leadership, next_id, .. } = self;
                follower.tick(env, &mut || fresh(next_id));
                leadership.tick(env, &mut || fresh(next_id));
                self.server.tick(env, &self.map);
                self.succeed(env);
            }
        }
        self.lead(env);
    }

    fn next_deadline(&self) -> Option<Time> {
        let leading = self.is_leading() && self.follower.is_current();
        // While a transaction is under way, its answer is what we wait for.
        let own = self.own_deadline().filter(|_| self.writer.is_idle());
        let own = [own, self.writer.next_deadline()].into_iter().flatten().filter(|_| leading);
        let parts = [self.follower.next_deadline(), self.leadership.next_deadline(), self.server.next_deadline()];
        parts.into_iter().flatten().chain(own).min()
    }

    fn check(&self) {
        self.server.check();
    }
}

fn fresh(next_id: &mut u64) -> MetaId {
    *next_id += 1;
    MetaId(*next_id)
}

fn outcome(result: &Result<Response, MetaError>) -> &'static str {
    match result {
        Ok(_) => "somebody else changed a key, or leads",
        Err(MetaError::Unknown) => "its outcome is unknown",
        Err(MetaError::Unavailable) => "the metadata store cannot be reached",
        Err(MetaError::Refused(_)) => "it was refused",
    }
}

fn log(env: &mut Env<'_>, level: Level, text: String) {
    env.out.push(Effect::Observe(Event::Log(level, text)));
}

#[cfg(test)]
mod tests;
