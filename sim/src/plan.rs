//! What was decided in a run: recorded as it happens, and carried out again in part, so that a failure can be reduced to
//! the few decisions that it needs.
//!
//! Decisions are operations of the load and faults of the mix (with their times and the state of the generator that
//! chooses the rest), and the operations and actions of scripts (by their numbers). What is missing from a plan does not
//! happen; nothing takes its place. Not recorded: delays of messages and disks, which the seed gives; `jitter` chooses
//! others, and in *steady* runs those that are left out do not change those of the rest.

use ashlar_core::rng::Rng;
use ashlar_core::time::Time;
pub use ashlar_faultinject::plan::Fault;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, VecDeque};

/// An operation of the load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Operation {
    /// When it began, in nanoseconds.
    pub at: u64,
    /// Whose.
    pub client: u32,
    /// From here on it was drawn.
    pub draws: Rng,
}

/// The decisions of a run. See the module.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// Chooses the delays, together with the seed; 0: those of the seed alone.
    pub jitter: u64,
    /// Delays follow from the seed, from whose they are, and from the time, instead of from all that was drawn before: a
    /// decision more or less changes only what it has to do with.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub steady: bool,
    /// Operations and scripts are as the seed draws them, whatever is said of them here: only faults are planned, and their
    /// times count from the moment at which faults begin. So a list of faults from elsewhere is carried out under a load.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drawn_load: bool,
    /// Operations of the load, in the order of their times.
    pub operations: Vec<Operation>,
    /// Faults of the mix, in the order of their times.
    pub faults: Vec<Fault>,
    /// Numbers of the script's operations.
    pub scripted: BTreeSet<u32>,
    /// Numbers of the script's actions: kills, cuts and the like.
    pub actions: BTreeSet<u32>,
}

impl Plan {
    /// Operations of clients.
    pub fn operation_count(&self) -> usize {
        self.operations.len() + self.scripted.len()
    }

    /// What is done to the cluster.
    pub fn fault_count(&self) -> usize {
        self.faults.len() + self.actions.len()
    }
}

/// The decisions of a run while it lasts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Decisions {
    /// Everything that was decided so far, carried out or not.
    recorded: Plan,
    /// What to carry out; all of it without a plan.
    replay: Option<Replay>,
    /// The script is over, or a fault of the mix acts: what happens now is part of another decision, or of none.
    beyond_script: bool,
}

#[derive(Clone, Debug)]
struct Replay {
    plan: Plan,
    operations: Vec<VecDeque<Operation>>,
    faults: VecDeque<Fault>,
}

impl Decisions {
    pub(crate) fn new(plan: Option<Plan>, clients: u32) -> Self {
        let replay = plan.map(|plan| {
            let of = |client| plan.operations.iter().filter(move |op| op.client == client).cloned().collect();
            Replay { operations: (0..clients).map(of).collect(), faults: plan.faults.iter().cloned().collect(), plan }
        });
        Decisions { replay, ..Decisions::default() }
    }

    pub(crate) fn recorded(&self) -> &Plan {
        &self.recorded
    }

    pub(crate) fn replays_faults(&self) -> bool {
        self.replay.is_some()
    }

    pub(crate) fn replays_load(&self) -> bool {
        self.replay.as_ref().is_some_and(|replay| !replay.plan.drawn_load)
    }

    /// Times of a client's planned operations.
    pub(crate) fn operation_times(&self, client: usize) -> Vec<Time> {
        self.replay.iter().flat_map(|replay| &replay.operations[client]).map(|op| Time(op.at)).collect()
    }

    /// Times of the planned faults, which begin now.
    pub(crate) fn fault_times(&self, now: Time) -> Vec<Time> {
        let Some(replay) = &self.replay else { return Vec::new() };
        let from = if replay.plan.drawn_load { now.0 } else { 0 };
        replay.faults.iter().map(|fault| Time(from + fault.at)).collect()
    }

    /// A client's next planned operation, if its time has come.
    pub(crate) fn next_operation(&mut self, client: usize, now: Time) -> Option<Operation> {
        let queue = &mut self.replay.as_mut()?.operations[client];
        if queue.front()?.at <= now.0 { queue.pop_front() } else { None }
    }

    /// The next planned fault.
    pub(crate) fn next_fault(&mut self) -> Option<Fault> {
        self.replay.as_mut()?.faults.pop_front()
    }

    /// Whether no planned fault is left.
    pub(crate) fn faults_are_over(&self) -> bool {
        self.replay.as_ref().is_none_or(|replay| replay.faults.is_empty())
    }

    pub(crate) fn record_operation(&mut self, operation: Operation) {
        self.recorded.operations.push(operation);
    }

    pub(crate) fn record_fault(&mut self, fault: Fault) {
        self.recorded.faults.push(fault);
    }

    /// Whether the script's next operation is carried out.
    pub(crate) fn allows_scripted(&mut self) -> bool {
        let number = u32::try_from(self.recorded.scripted.len()).expect("bounded runs");
        self.recorded.scripted.insert(number);
        self.replay.as_ref().is_none_or(|replay| replay.plan.drawn_load || replay.plan.scripted.contains(&number))
    }

    /// Whether the next action is carried out: those that are no decisions of a script always are.
    pub(crate) fn allows_action(&mut self) -> bool {
        if self.beyond_script {
            return true;
        }
        let number = u32::try_from(self.recorded.actions.len()).expect("bounded runs");
        self.recorded.actions.insert(number);
        self.replay.as_ref().is_none_or(|replay| replay.plan.drawn_load || replay.plan.actions.contains(&number))
    }

    /// From now on actions are not the script's; returns whether they were.
    pub(crate) fn leave_script(&mut self) -> bool {
        !std::mem::replace(&mut self.beyond_script, true)
    }

    /// Actions are the script's again.
    pub(crate) fn enter_script(&mut self) {
        self.beyond_script = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(client: u32, at: u64) -> Operation {
        Operation { at, client, draws: Rng::new(at) }
    }

    #[test]
    fn what_is_missing_from_a_plan_does_not_happen() {
        let plan = Plan {
            operations: vec![operation(0, 5), operation(1, 6), operation(0, 9)],
            scripted: BTreeSet::from([1]),
            actions: BTreeSet::from([0]),
            ..Plan::default()
        };
        let mut decisions = Decisions::new(Some(plan), 2);
        let mut next = |now| decisions.next_operation(0, Time(now)).map(|operation| operation.at);
        assert_eq!((next(4), next(7)), (None, Some(5)));
        assert_eq!(next(7), None, "its time has not come");
        assert_eq!(decisions.operation_times(1), [Time(6)]);
        assert!(!decisions.allows_scripted() && decisions.allows_scripted() && !decisions.allows_scripted());
        assert!(decisions.allows_action() && !decisions.allows_action());
        assert!(decisions.leave_script() && decisions.allows_action(), "what is no decision always happens");
        assert_eq!(decisions.recorded().actions.len(), 2);
    }

    #[test]
    fn faults_alone_are_carried_out_under_a_drawn_load() {
        let fault = Fault { at: 5, kind: ashlar_faultinject::mix::FaultKind::Pause, draws: Rng::new(1) };
        let plan = Plan { drawn_load: true, faults: vec![fault], ..Plan::default() };
        let mut decisions = Decisions::new(Some(plan), 1);
        assert!(decisions.replays_faults() && !decisions.replays_load());
        assert!(decisions.allows_scripted() && decisions.allows_action());
        assert_eq!(decisions.fault_times(Time(100)), [Time(105)]);
    }

    #[test]
    fn without_a_plan_everything_happens_and_is_recorded() {
        let mut decisions = Decisions::new(None, 1);
        assert!(decisions.allows_scripted() && decisions.allows_action() && decisions.faults_are_over());
        decisions.record_operation(operation(0, 1));
        assert_eq!((decisions.recorded().operation_count(), decisions.recorded().fault_count()), (2, 1));
    }
}
