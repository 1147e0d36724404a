//! `plant`: the tester is tested.

use clap::Parser;
#[cfg(not(feature = "planted"))]
use std::process::ExitCode;

#[derive(Parser)]
pub struct PlantArgs {
    /// Name of the bug.
    name: Option<String>,
    /// All of them.
    #[arg(long)]
    all: bool,
    /// Scenario; `all` of them in turn; without it, that in which the bug shows itself soonest.
    #[arg(long)]
    scenario: Option<String>,
    /// Give up after so many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// Reduce each failure, in so many runs at most.
    #[arg(long)]
    shrink: Option<u64>,
}

#[cfg(feature = "planted")]
pub fn switch(name: Option<&str>) -> Result<(), String> {
    use ashlar_core::planted::{Bug, plant};
    let Some(name) = name else { return Ok(()) };
    let bug = Bug::from_name(name).ok_or_else(|| format!("there is no planted bug '{name}'"))?;
    plant(Some(bug));
    Ok(())
}

#[cfg(not(feature = "planted"))]
pub fn switch(name: Option<&str>) -> Result<(), String> {
    match name {
        None => Ok(()),
        Some(_) => Err(WITHOUT_PLANTS.into()),
    }
}

#[cfg(not(feature = "planted"))]
const WITHOUT_PLANTS: &str = "this binary has no planted bugs: build it with `--features planted`";

#[cfg(not(feature = "planted"))]
pub fn plant(_args: &PlantArgs) -> Result<ExitCode, String> {
    Err(WITHOUT_PLANTS.into())
}

#[cfg(feature = "planted")]
pub use table::plant;

#[cfg(feature = "planted")]
mod table {
    use super::PlantArgs;
    use crate::cli::{first_lines, scenarios_of};
    use crate::plants::{Finder, Found, finder, ground, hunt, reduce};
    use crate::scenarios::Scenario;
    use ashlar_core::planted::Bug;
    use std::collections::BTreeMap;
    use std::process::ExitCode;

    /// What a reduced failure should have at most: operations and faults.
    const SMALL: (usize, usize) = (20, 3);

    pub fn plant(args: &PlantArgs) -> Result<ExitCode, String> {
        let bugs: Vec<Bug> = match &args.name {
            _ if args.all => Bug::ALL.to_vec(),
            Some(name) => vec![Bug::from_name(name).ok_or_else(|| format!("there is no planted bug '{name}'"))?],
            None => {
                Bug::ALL.iter().for_each(|bug| println!("{}", bug.name()));
                return Ok(ExitCode::SUCCESS);
            }
        };
        let named = args.scenario.as_deref().map(scenarios_of).transpose()?;
        let mut elsewhere: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut table = Table::new(args.shrink);
        for bug in bugs {
            match (&named, finder(bug)) {
                (Some(scenarios), _) => table.row(bug, scenarios, args.seeds),
                (None, Finder::Seeds(scenario)) => table.row(bug, &[scenario], args.seeds),
                (None, Finder::Tests(_)) if !args.all => table.row(bug, &[ground(bug)], args.seeds),
                (None, Finder::Tests(tests)) => elsewhere.entry(tests).or_default().push(bug.name()),
            }
        }
        table.sum_up();
        for (tests, names) in elsewhere {
            println!("\n{} more are for {tests}: `{}`.", names.len(), names.join("`, `"));
        }
        Ok(if table.missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// What was found so far.
    struct Table {
        /// Runs for reducing a failure, if that is wanted.
        shrink: Option<u64>,
        seeds: Vec<u64>,
        missed: usize,
        small: usize,
    }

    impl Table {
        fn new(shrink: Option<u64>) -> Self {
            let more = if shrink.is_some() { (" operations, faults | reduced to |", " --- | --- |") } else { ("", "") };
            println!("| mistake | scenario | seeds | found as |{}", more.0);
            println!("| --- | --- | --- | --- |{}", more.1);
            Table { shrink, seeds: Vec::new(), missed: 0, small: 0 }
        }

        fn row(&mut self, bug: Bug, scenarios: &[&Scenario], seeds: u64) {
            let Some(found) = hunt(bug, scenarios, 1, seeds) else {
                self.missed += 1;
                return println!("| `{}` | | > {seeds} | not found |", bug.name());
            };
            let Found { seeds, scenario, what, .. } = &found;
            self.seeds.push(*seeds);
            let reduced = self.shrink.map(|runs| self.reduced(bug, &found, runs)).unwrap_or_default();
            println!("| `{}` | `{scenario}` | {seeds} | {} |{reduced}", bug.name(), short(what));
        }

        fn reduced(&mut self, bug: Bug, found: &Found, runs: u64) -> String {
            let Some(reduced) = reduce(bug, found, runs) else {
                return " | not with other delays |".to_string();
            };
            let ((operations, faults), (few, little)) = (reduced.before, reduced.after);
            self.small += usize::from(few <= SMALL.0 && little <= SMALL.1);
            format!(" {operations}, {faults} | {few}, {little} |")
        }

        fn sum_up(&mut self) {
            self.seeds.sort_unstable();
            let found = self.seeds.len();
            let at = |place: usize| self.seeds.get(place).map_or("none".to_string(), u64::to_string);
            // Of all that were looked for: who was not found took longest.
            let all = found + self.missed;
            println!(
                "\n{found} of {all} found; half of them within {} seeds, nine in ten within {}, all that were within {}.",
                at(all / 2),
                at((all * 9).div_ceil(10).saturating_sub(1)),
                at(found.saturating_sub(1))
            );
            if self.shrink.is_some() {
                println!("{} reduced to {} operations and {} faults at most.", self.small, SMALL.0, SMALL.1);
            }
        }
    }

    /// A finding in a cell of the table: without numbers, which tell nothing here.
    fn short(what: &str) -> String {
        first_lines(what, 1).replace('|', "/").chars().take(80).collect::<String>().trim_end().to_string()
    }
}
