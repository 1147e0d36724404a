//! A planned end: others take over before this OSD goes, and hardly anybody waits.
//!
//! ```text
//!  told to stop                leases of full length are over            no group acts here
//!  -----------> Shortening -----------------------> Announced ----------------------> Vacant ---> the end
//! ```
//! Whoever takes a group over waits until the leases that its primary got are over. So a primary that goes asks for short
//! ones first. Then it reports itself as one that cannot be reached: the monitor takes that as any hard report.
//!
//! Owns when each step comes. Does not own who serves: until the end groups do as the maps say.
//! Invariant: it ends in bounded time, whoever else is away.

use super::{Osd, Phase, log};
use crate::io::{Env, Level};
use crate::map::{FailureReport, PgMap, keys};
use crate::pg::lease::longest;
use crate::store::ObjectStore;
use crate::time::{Duration, Time};

/// Leases of groups that are to be handed over: others wait for their end. Long enough to be renewed in time by peers
/// that are busy.
const LEASE: Duration = Duration::millis(40);
/// What is acknowledged late.
const SLACK: Duration = Duration::millis(10);
/// From the last map that names this OSD to its end: those who take over have asked it by then.
const GRACE: Duration = Duration::millis(100);
/// All of it: supervisors lose patience after some seconds, and the metadata store may be away.
const LIMIT: Duration = Duration::millis(1_500);

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving {
    step: Step,
    give_up: Time,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Shortening { until: Time },
    Announced,
    Vacant { until: Time },
}

impl Leaving {
    fn due(&self) -> Time {
        match self.step {
            Step::Shortening { until } | Step::Vacant { until } => until.min(self.give_up),
            Step::Announced => self.give_up,
        }
    }
}

impl<S: ObjectStore> Osd<S> {
    /// Hands over what this OSD serves, then ends the session, so that peers need not find out, and closes the store; the
    /// process may end when it [is stopped](Osd::is_stopped) and the effects are carried out.
    pub fn stop(&mut self, env: &mut Env<'_>) {
        if self.leaving.is_some() || !self.is_running() || !self.acts() {
            return self.end(env);
        }
        let until = env.now + longest(self.groups.node().lease) + SLACK;
        self.leaving = Some(Leaving { step: Step::Shortening { until }, give_up: env.now + LIMIT });
        self.heartbeat_due = env.now;
    }

    /// How long the leases last that groups ask for.
    pub(super) fn lease_asked(&self) -> Duration {
        let lease = self.groups.node().lease;
        if self.leaving.is_some() { LEASE.min(lease) } else { lease }
    }

    /// Whether any map names this OSD.
    fn acts(&self) -> bool {
        let own = self.config.osd;
        let named = |map: &PgMap| map.acting.iter().flatten().any(|member| member.osd == own);
        self.map.pg_maps().any(|(_, map)| named(map))
    }

    /// When the next step comes.
    pub(super) fn leaving_deadline(&self) -> Option<Time> {
        self.leaving.map(|leaving| leaving.due())
    }

    /// Time passed, or maps changed.
    pub(super) fn leave_if_due(&mut self, env: &mut Env<'_>) {
        let Some(leaving) = self.leaving.filter(|_| self.phase == Phase::Running) else { return };
        let step = match leaving.step {
            _ if leaving.give_up <= env.now => return self.end(env),
            Step::Shortening { until } if until <= env.now => self.announce(env),
            Step::Announced if !self.acts() => Step::Vacant { until: env.now + GRACE },
            Step::Vacant { until } if until <= env.now => return self.end(env),
            step => step,
        };
        self.leaving = Some(Leaving { step, ..leaving });
    }

    fn announce(&mut self, env: &mut Env<'_>) -> Step {
        let (osd, incarnation) = (self.config.osd, self.config.incarnation);
        let report = FailureReport { incarnation, hard: true };
        let report = serde_json::to_vec(&report).expect("plain data has a JSON form");
        self.publisher.set(keys::osd_failed(osd, osd), report, true);
        log(env, Level::Info, format!("osd.{osd} hands its groups over"));
        Step::Announced
    }
}
