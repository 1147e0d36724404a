//! A list of faults: what happens when, with the state of the generator that draws whom it hits. One file of it means the
//! same kinds at the same times in the simulator and on real processes.

use crate::mix::FaultKind;
use ashlar_core::rng::Rng;
use serde::{Deserialize, Serialize};

/// A fault.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fault {
    /// When, in nanoseconds since the faults began (in a simulated run: since the run began).
    pub at: u64,
    /// What.
    pub kind: FaultKind,
    /// From here on its targets and lengths are drawn.
    pub draws: Rng,
}

/// Faults in the order of their times.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FaultPlan {
    /// They.
    pub faults: Vec<Fault>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_of_a_simulated_run_is_one_of_faults_too() {
        // What the simulator writes has more beside them.
        let text = r#"{"jitter":0,"operations":[],"faults":[{"at":5,"kind":"crash","draws":[1,2,3,4]}],"scripted":[]}"#;
        let read = serde_json::from_str::<FaultPlan>(text).map(|plan| plan.faults[0].kind);
        assert_eq!(read.ok(), Some(FaultKind::Crash));
    }
}
