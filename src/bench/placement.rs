//! `ashlar bench placement`: how even placements are beside the best that linear programming allows, how much moves when
//! an OSD comes or goes beside the least that must, and how long it takes. No cluster is needed.

use crate::output::{self, Output};
use anyhow::Result;
use ashlar_core::id::OsdId;
use ashlar_core::map::place::figures::figures;
use ashlar_core::map::place::{Candidate, Placement, Problem, place};
use ashlar_core::map::rules::Rules;
use ashlar_core::map::{Levels, Pool};
use ashlar_core::rng::Rng;
use serde::Serialize;
use std::time::Instant;

/// OSDs of a host in the large cluster.
const OSDS_OF_HOST: u32 = 10;
/// Groups that an OSD has on the random trees: whole groups are within a hundredth of its share then.
const GROUPS_OF_OSD: usize = 150;
/// Patterns of `level_placement` on the random trees; none: all on different hosts.
const PATTERNS: [&str; 7] = ["", "dc=12", "dc=112", "dc=1122", "dc=123", "dc=111222", "dc=1123"];

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// OSDs of the large cluster.
    #[arg(long, default_value_t = 1_000)]
    osds: u32,
    /// Groups of the large cluster, of three copies.
    #[arg(long, default_value_t = 50_000)]
    pgs: u32,
    /// Random trees.
    #[arg(long, default_value_t = 28)]
    trees: usize,
    /// What the random trees follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    output: Output,
}

/// A line of the result.
#[derive(Debug, Serialize)]
struct Line {
    what: String,
    osds: usize,
    pgs: usize,
    seconds: f64,
    uniformity_percent: f64,
    changed: usize,
    at_least: usize,
    goal: &'static str,
    reached: bool,
}

/// A problem that owns its parts.
struct Case {
    rules: Rules,
    levels: Vec<String>,
    candidates: Vec<Candidate>,
}

/// Members of groups.
type Groups = Vec<Vec<Option<OsdId>>>;

impl Case {
    fn new(pattern: &str, size: usize, osds: &[(u32, String, String)]) -> Result<Case> {
        let level_placement = Some(pattern.to_string()).filter(|pattern| !pattern.is_empty());
        let pool = Pool { pg_size: u8::try_from(size)?, level_placement, ..Pool::default() };
        let rules = Rules::of_pool(&pool, &Levels::default()).map_err(anyhow::Error::msg)?;
        let levels: Vec<String> = rules.levels().into_iter().map(Into::into).collect();
        let nodes =
            |dc: &str, host: &str| levels.iter().map(|l| if l == "dc" { dc.into() } else { host.into() }).collect();
        let candidate = |(osd, (weight, dc, host)): (u32, &(u32, String, String))| Candidate {
            osd: OsdId(osd),
            weight: f64::from(*weight),
            nodes: nodes(dc, host),
        };
        Ok(Case { candidates: (0..).zip(osds).map(candidate).collect(), rules, levels })
    }

    fn with<T>(&self, present: &Groups, run: impl FnOnce(&Problem<'_>) -> T) -> T {
        let Case { rules, levels, candidates } = self;
        run(&Problem { candidates, levels, rules, present, max_combinations: 10_000, seed: 1 })
    }

    /// Places, and compares with the best.
    fn run(&self, what: &str, goal: &'static str, present: &Groups, exactly: bool) -> (Line, Groups) {
        let begin = Instant::now();
        let Placement { groups, moves, filled, least } = self.with(present, place);
        let seconds = begin.elapsed().as_secs_f64();
        let uniformity = self.with(&groups, |problem| figures(problem, &groups, exactly).uniformity);
        let first = present.iter().all(Vec::is_empty);
        let line = Line {
            what: what.into(),
            osds: self.candidates.len(),
            pgs: groups.len(),
            seconds,
            uniformity_percent: 100.0 * uniformity,
            changed: if first { 0 } else { moves + filled },
            at_least: if first { 0 } else { least },
            goal,
            reached: if first { uniformity >= 0.99 } else { (moves + filled) * 100 <= least * 105 },
        };
        (line, groups)
    }
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<()> {
    let mut lines = large(args)?;
    lines.extend(trees(args)?);
    args.output.print(&lines, |lines| text(lines))
}

/// A cluster of hosts with disks of different sizes.
fn large(args: &Args) -> Result<Vec<Line>> {
    let mut rng = Rng::new(args.seed);
    let mut osd = |n: u32| {
        let weight = u32::try_from(rng.between(2, 8)).unwrap_or(8) << 20;
        (weight, String::new(), format!("h{}", n / OSDS_OF_HOST))
    };
    let osds: Vec<_> = (0..args.osds).map(&mut osd).collect();
    let mut case = Case::new("", 3, &osds)?;
    let empty: Groups = vec![Vec::new(); usize::try_from(args.pgs)?];
    let mut lines = Vec::new();
    let (mut line, first) = case.run("large cluster, first placement", "99 %, 10 s", &empty, false);
    line.reached &= line.seconds <= 10.0;
    lines.push(line);
    let lost = case.candidates.remove(case.candidates.len() / 2);
    let (line, second) = case.run("large cluster, an OSD lost", "least + 5 %", &first, false);
    lines.push(line);
    case.candidates.push(lost);
    let (line, _) = case.run("large cluster, an OSD added", "least + 5 %", &second, false);
    lines.push(line);
    Ok(lines)
}

/// Small random trees of data centres and hosts, with rules on both levels.
fn trees(args: &Args) -> Result<Vec<Line>> {
    let mut rng = Rng::new(args.seed);
    let mut lines = Vec::new();
    for number in 0..args.trees {
        let pattern = PATTERNS[number % PATTERNS.len()];
        let size = pattern.split_once('=').map_or(3, |(_, classes)| classes.len());
        let mut case = Case::new(pattern, size, &random_tree(&mut rng))?;
        if case.with(&Vec::new(), |problem| problem.possible().holes) > 0 {
            continue;
        }
        let empty: Groups = vec![Vec::new(); case.candidates.len() * GROUPS_OF_OSD / size];
        let name = if pattern.is_empty() { "3 hosts" } else { pattern };
        let (line, first) = case.run(&format!("tree {number}, {name}"), "99 %", &empty, true);
        lines.push(line);
        let lost = case.candidates.remove(case.candidates.len() / 2);
        if case.with(&Vec::new(), |problem| problem.possible().holes) > 0 {
            continue;
        }
        let (line, second) = case.run(&format!("tree {number}, an OSD lost"), "least + 5 %", &first, true);
        lines.push(line);
        case.candidates.push(lost);
        lines.push(case.run(&format!("tree {number}, an OSD added"), "least + 5 %", &second, true).0);
    }
    Ok(lines)
}

/// Weight, data centre and host of each OSD.
fn random_tree(rng: &mut Rng) -> Vec<(u32, String, String)> {
    let mut osds = Vec::new();
    for dc in 0..rng.between(3, 5) {
        for host in 0..rng.between(3, 6) {
            for _ in 0..rng.between(1, 4) {
                let weight = u32::try_from(rng.between(50, 200)).unwrap_or(200);
                osds.push((weight, format!("dc{dc}"), format!("dc{dc}-h{host}")));
            }
        }
    }
    osds
}

fn text(lines: &[Line]) -> String {
    let headings = ["WHAT", "OSDS", "PGS", "SECONDS", "UNIFORMITY", "CHANGED", "AT LEAST", "GOAL", "REACHED"];
    let mut table = output::table(headings);
    for line in lines {
        table.add_row([
            line.what.clone(),
            line.osds.to_string(),
            line.pgs.to_string(),
            format!("{:.2}", line.seconds),
            format!("{:.2} %", line.uniformity_percent),
            line.changed.to_string(),
            line.at_least.to_string(),
            line.goal.into(),
            if line.reached { "yes" } else { "NO" }.into(),
        ]);
    }
    table.to_string()
}
