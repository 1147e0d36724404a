//! A run as a file: everything that it takes to repeat it, whatever becomes of the meaning of its seed.
//!
//! Seeds draw configurations, and what a seed draws changes with the simulator; a file holds the whole configuration, and
//! for a reduced failure the decisions that are left. Files in `ci/seeds/` are run by every change.

use crate::cluster::Config;
use crate::cluster::pool::PoolChoice;
use crate::cluster::profile::Profile;
use crate::cluster::topology::Topology;
use crate::plan::Plan;
use crate::scenarios::Scenario;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// What is said of a run beside its seed, in place of what the seed draws.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Choice {
    /// The pool, such as `replicated:3`, `ec:2+1,lazy` or `xor:2+1,immediate`, or `copies` (2 or 3, as drawn); without it
    /// the mix draws it, other scenarios have copies.
    #[arg(long)]
    pub pool: Option<PoolChoice>,
    /// The shape of the cluster: OSDs and levels of failure domains, such as `3:1`, `12:3`, or `3:1:full` (small disks);
    /// without it the mix draws it.
    #[arg(long)]
    pub topology: Option<Topology>,
    /// How hard it is: `calm`, `default`, `harsh`, or `over-budget` (more is lost than pools promise to survive).
    #[arg(long, default_value_t)]
    pub profile: Profile,
}

/// As arguments.
impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pool.map_or(Ok(()), |pool| write!(f, " --pool {pool}"))?;
        self.topology.map_or(Ok(()), |topology| write!(f, " --topology {topology}"))?;
        if self.profile == Profile::default() { Ok(()) } else { write!(f, " --profile {}", self.profile) }
    }
}

/// A run. See the module.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Case {
    /// The scenario's name.
    pub scenario: String,
    /// What was broken when the file was written; empty if nothing was.
    #[serde(default)]
    pub broken: String,
    /// The whole configuration.
    pub config: Config,
    /// What is decided in it; everything that the seed decides without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
}

impl Case {
    /// What a seed of a scenario is.
    pub fn drawn(seed: u64, scenario: &Scenario, choice: Choice) -> Case {
        let drawn = || if scenario.draws_pool() { PoolChoice::draw(seed) } else { PoolChoice::default() };
        let config = choice.pool.unwrap_or_else(drawn).applied((scenario.configure)(Config::draw(seed)));
        let topology = choice.topology.or_else(|| Topology::draw(seed).filter(|_| scenario.draws_pool()));
        let config = topology.map_or(config.clone(), |topology| topology.applied(config));
        let config = choice.profile.applied(config);
        Case { scenario: scenario.name.into(), broken: String::new(), config, plan: None }
    }

    /// Its scenario, or why there is none.
    pub fn scenario(&self) -> Result<&'static Scenario, String> {
        let scenario = Scenario::named(&self.scenario);
        scenario.ok_or_else(|| format!("there is no scenario '{}'; `ashlar-sim scenarios` lists them", self.scenario))
    }

    /// Reads a file.
    pub fn read(path: &Path) -> Result<Case, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let explain = |error| format!("{} is not a run as `repro --write` writes them: {error}", path.display());
        let case: Case = serde_json::from_str(&text).map_err(explain)?;
        case.scenario().map(|_| case)
    }

    /// Writes a file.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).expect("plain data becomes JSON");
        let complain = |error| format!("cannot write {}: {error}", path.display());
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(complain)?;
        }
        std::fs::write(path, text + "\n").map_err(complain)
    }

    /// Where a failing run is written to, in this folder.
    pub fn place(&self, folder: &Path) -> PathBuf {
        let pool = self.config.redundancy().to_string().replace(':', "");
        folder.join(format!("{}-{}-{pool}.json", self.scenario, self.config.seed))
    }
}

/// Where failing runs are written to: beside the seeds of the working tree, or here.
pub fn open_folder() -> PathBuf {
    let seeds = Path::new("ci/seeds");
    if seeds.is_dir() { seeds.join("open") } else { PathBuf::from(".") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Fault, Operation};
    use ashlar_core::rng::Rng;
    use ashlar_faultinject::mix::FaultKind;

    #[test]
    fn a_run_is_read_back_as_it_was_written() {
        let mix = Scenario::named("mix").expect("the default scenario");
        let plan = Plan {
            operations: vec![Operation { at: 5, client: 1, draws: Rng::new(1) }],
            faults: vec![Fault { at: 9, kind: FaultKind::HostPower, draws: Rng::new(2) }],
            ..Plan::default()
        };
        for (seed, plan) in [(1, None), (2, Some(plan)), (3, None)] {
            let case = Case { plan, ..Case::drawn(seed, mix, Choice::default()) };
            let text = serde_json::to_string(&case).expect("plain data");
            let back: Case = serde_json::from_str(&text).expect("its own form");
            assert_eq!(back.config, case.config);
            assert_eq!(serde_json::to_string(&back).expect("plain data"), text);
        }
    }
}
