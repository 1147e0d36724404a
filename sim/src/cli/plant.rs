//! `plant`: the tester is tested.

use clap::Parser;
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
pub fn plant(args: &PlantArgs) -> Result<ExitCode, String> {
    use super::{first_lines, scenarios_of};
    use ashlar_core::planted::Bug;
    let bugs: Vec<Bug> = match &args.name {
        _ if args.all => Bug::ALL.to_vec(),
        Some(name) => vec![Bug::from_name(name).ok_or_else(|| format!("there is no planted bug '{name}'"))?],
        None => {
            Bug::ALL.iter().for_each(|bug| println!("{}", bug.name()));
            return Ok(ExitCode::SUCCESS);
        }
    };
    let named = args.scenario.as_deref().map(scenarios_of).transpose()?;
    let mut found = Vec::new();
    println!("| planted bug | seeds | scenario | found as |\n| --- | --- | --- | --- |");
    for bug in &bugs {
        let scenarios = named.clone().unwrap_or_else(|| vec![crate::plants::ground(*bug)]);
        let hunted = crate::plants::hunt(*bug, &scenarios, 1, args.seeds);
        let (seeds, scenario, what) = match &hunted {
            Some(found) => (found.seeds.to_string(), found.scenario, first_lines(&found.what, 1)),
            None => (format!("> {}", args.seeds), "", "NOT FOUND".into()),
        };
        let what: String = what.replace('|', "/").chars().take(100).collect();
        println!("| `{}` | {seeds} | {scenario} | {what} |", bug.name());
        found.extend(hunted.map(|hunted| hunted.seeds));
    }
    found.sort_unstable();
    let within = |seeds: u64| found.iter().filter(|taken| **taken <= seeds).count();
    let median = found.get(bugs.len() / 2).map_or("not found".to_string(), |seeds| format!("{seeds} seeds"));
    println!(
        "{} of {} found, {} within 100 seeds, {} within 1,000; median {median}",
        found.len(),
        bugs.len(),
        within(100),
        within(1000)
    );
    Ok(if found.len() == bugs.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
