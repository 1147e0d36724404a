//! Search through everything that can happen to one object on three or four OSDs, within bounds: the real code of the
//! group, not a model of it.
//!
//! A [`Scope`] says what there is and how much of each fault. [`explore`] visits every state that can be reached within
//! it (depth first, states that were seen are not visited again); [`walk`] takes random ways through it, for bugs that lie
//! deep. Whatever breaks a promise ([`promises`]) is reported with the shortest way that was found to it.

mod canon;
mod promises;
mod scopes;
mod state;
mod world;

use crate::map::Scheme;
use crate::planted::{Bug, planted};
use crate::rng::Rng;
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::{Action, World};

/// An operation of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A write of so many sectors, from the first.
    Write(u32),
    /// A deletion.
    Delete,
}

/// What there is, and how much may happen.
#[derive(Clone, Debug)]
pub struct Scope {
    pub name: &'static str,
    pub scheme: Scheme,
    pub size: u8,
    pub minsize: u8,
    pub parity: u8,
    pub osds: usize,
    /// The last epoch, but for the one that heals.
    pub epochs: u64,
    /// Begun in this order, each by a client of its own.
    pub ops: &'static [Op],
    /// Operations sent again.
    pub resends: u8,
    pub reads: u8,
    pub crashes: u8,
    pub recreates: u8,
    /// Jumps of time.
    pub shorts: u8,
    pub longs: u8,
    /// Answers of the metadata store that are lost.
    pub lost_replies: u8,
    /// Messages that overtake others on their link.
    pub overtakes: u8,
    /// Messages that arrive twice.
    pub duplicates: u8,
    /// Connections that are lost.
    pub cuts: u8,
    /// OSDs that run out of space.
    pub fills: u8,
    /// Stores make durable what they accepted some time later.
    pub slow: bool,
    /// Not only the primary hears of a new map.
    pub hears: bool,
    /// Answers take their time, too.
    pub late_replies: bool,
    /// The loss of any one OSD must not stop a peering.
    pub any_one_may_go: bool,
}

impl Scope {
    fn has_roles(&self) -> bool {
        self.scheme != Scheme::Replicated
    }

    fn roles(&self) -> u8 {
        if self.has_roles() { self.size } else { 1 }
    }

    fn k(&self) -> u32 {
        match self.scheme {
            Scheme::Replicated => 1,
            Scheme::Ec | Scheme::Xor => u32::from(self.size - self.parity),
        }
    }
}

/// Whether re-created stores are taken for those before, by a planted mistake.
fn is_uuid_ignored() -> bool {
    planted(Bug::IgnoreStoreUuid)
}

/// What ends a search before all is visited.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub states: usize,
    /// Not a time: the same search ends at the same place on every machine.
    pub transitions: usize,
    /// Every so many states one is healed.
    pub heal_every: usize,
}

/// What a search did.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub states: usize,
    pub transitions: usize,
    pub depth: usize,
    pub healed: usize,
    pub complete: bool,
    /// A promise that was broken, and the way there.
    pub violation: Option<(String, Vec<Action>)>,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Outcome { states, transitions, depth, healed, .. } = self;
        let end = if self.complete { "all visited" } else { "bounded" };
        write!(f, "{states} states, {transitions} transitions, depth {depth}, {healed} healed, {end}")?;
        match &self.violation {
            Some((text, way)) => write!(f, "; VIOLATION after {} steps: {text}", way.len()),
            None => Ok(()),
        }
    }
}

/// A broken invariant of the code is a broken promise.
fn caught<R>(act: impl FnOnce() -> Result<R, String>) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("without a message")))
    })
}

fn step(world: &mut World, action: Action) -> Result<(), String> {
    caught(|| {
        world.step(action)?;
        world.look_ahead()
    })
}

struct Frame {
    world: World,
    actions: Vec<Action>,
    next: usize,
}

impl Frame {
    fn new(world: World, order: &mut Rng) -> Self {
        let mut actions = Vec::new();
        world.actions(&mut actions);
        for index in (1..actions.len()).rev() {
            let other = usize::try_from(order.below(index as u64 + 1)).expect("few");
            actions.swap(index, other);
        }
        Frame { world, actions, next: 0 }
    }
}

/// Visits everything within a scope. The seed decides in which order.
pub fn explore(scope: &'static Scope, limits: Limits, seed: u64) -> Outcome {
    promises::forget();
    let (mut order, mut outcome) = (Rng::new(seed), Outcome::default());
    let mut seen = std::collections::HashSet::new();
    let first = World::new(scope);
    seen.insert(first.hash());
    let mut stack = vec![Frame::new(first, &mut order)];
    while let Some(frame) = stack.last_mut() {
        let Some(action) = frame.actions.get(frame.next).copied() else {
            stack.pop();
            continue;
        };
        frame.next += 1;
        let mut world = frame.world.clone();
        outcome.transitions += 1;
        let mut result = step(&mut world, action);
        let is_new = result.is_err() || seen.insert(world.hash());
        if is_new && result.is_ok() && (seen.len() % limits.heal_every == 0) {
            outcome.healed += 1;
            result = caught(|| world.clone().heal());
        }
        if let Err(text) = result {
            let way = stack.iter().map(|frame| frame.actions[frame.next - 1]).collect();
            outcome.violation = Some(shortest(scope, way, text));
            break;
        }
        if is_new {
            stack.push(Frame::new(world, &mut order));
            outcome.depth = outcome.depth.max(stack.len());
        }
        if seen.len() >= limits.states || outcome.transitions >= limits.transitions {
            break;
        }
    }
    outcome.complete = stack.is_empty();
    outcome.states = seen.len();
    outcome
}

/// Takes random ways; each ends with a healing.
pub fn walk(scope: &'static Scope, limits: Limits, seed: u64) -> Outcome {
    promises::forget();
    let (mut outcome, first) = (Outcome::default(), World::new(scope));
    let mut rng = Rng::new(seed);
    let mut actions = Vec::new();
    let goes_on = |so_far: &Outcome| so_far.states < limits.states && so_far.transitions < limits.transitions;
    while outcome.violation.is_none() && goes_on(&outcome) {
        let (mut world, mut way) = (first.clone(), Vec::new());
        let eagerness = 1 + rng.below(40);
        let (slowness, malice) = (1 + rng.below(30), 1 << rng.below(6));
        let mut result = Ok(());
        while result.is_ok() && way.len() < 120 {
            world.actions(&mut actions);
            let Some(action) = pick(&actions, &mut rng, (eagerness, slowness, malice)) else { break };
            way.push(action);
            result = step(&mut world, action);
            outcome.transitions += 1;
        }
        outcome.states += 1;
        outcome.depth = outcome.depth.max(way.len());
        let result = result.and_then(|()| {
            outcome.healed += 1;
            caught(|| world.heal())
        });
        outcome.violation = result.err().map(|text| shortest(scope, way, text));
    }
    outcome
}

/// One of the actions: orders go on, faults are rare.
fn pick(actions: &[Action], rng: &mut Rng, (eagerness, slowness, malice): (u64, u64, u64)) -> Option<Action> {
    let maps = actions.iter().filter(|action| matches!(action, Action::Map(..))).count().max(1) as u64;
    let weight = |action: &Action| match action {
        Action::Deliver(..) => 40 * slowness,
        Action::Meta(_) | Action::Notice(_) | Action::Flush(_) => 1_000,
        Action::Send(..) => 400,
        Action::Map(..) => (eagerness * 40 / maps).max(1),
        Action::Read(_) | Action::Restart(_) | Action::Link(..) => 150,
        Action::Beat(_) => 40,
        Action::Wait | Action::LongWait | Action::Recreate(_) => 30 * malice,
        Action::Crash(..)
        | Action::Cut(..)
        | Action::MetaLost(_)
        | Action::Overtake(..)
        | Action::Duplicate(..)
        | Action::Fill(_) => 20 * malice,
        Action::Empty(_) => 20,
    };
    let total: u64 = actions.iter().map(weight).sum();
    if total == 0 {
        return None;
    }
    let mut at = rng.below(total);
    actions.iter().copied().find(|action| {
        let weight = weight(action);
        let found = at < weight;
        at = at.saturating_sub(weight);
        found
    })
}

/// Repeats a way, without the steps that are impossible; what it broke, and the steps that it took.
fn retrace(scope: &'static Scope, way: &[Action]) -> Option<(String, Vec<Action>)> {
    let (mut world, mut taken, mut possible) = (World::new(scope), Vec::new(), Vec::new());
    for action in way {
        world.actions(&mut possible);
        if possible.contains(action) {
            taken.push(*action);
            if let Err(text) = step(&mut world, *action) {
                return Some((text, taken));
            }
        }
    }
    caught(|| world.heal()).err().map(|text| (text, taken))
}

/// Leaves out steps as long as a promise stays broken.
fn shortest(scope: &'static Scope, way: Vec<Action>, text: String) -> (String, Vec<Action>) {
    promises::forget();
    let mut best = retrace(scope, &way).unwrap_or((text, way));
    let mut size = best.1.len() / 2;
    while size > 0 {
        let mut from = 0;
        while from < best.1.len() {
            let mut shorter = best.1.clone();
            shorter.drain(from..(from + size).min(best.1.len()));
            promises::forget();
            match retrace(scope, &shorter) {
                Some(found) if found.1.len() < best.1.len() => best = found,
                _ => from += size,
            }
        }
        size = if size > 1 { size / 2 } else { 0 };
    }
    best
}

/// Shows a way, step by step.
fn show(scope: &'static Scope, way: &[Action]) {
    let mut world = World::new(scope);
    world.trace = true;
    for action in way {
        if let Err(text) = step(&mut world, *action) {
            return println!("=> {text}");
        }
    }
    println!("=> after healing: {:?}", caught(|| world.heal()));
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// The scope, changed by `PG_SET="epochs=5 crashes=1"`.
fn adjusted(scope: &'static Scope) -> &'static Scope {
    let Ok(settings) = std::env::var("PG_SET") else { return scope };
    let mut changed = scope.clone();
    for setting in settings.split_whitespace() {
        let (key, value) = setting.split_once('=').expect("key=value");
        let number: u8 = value.parse().expect("a number");
        match key {
            "osds" => changed.osds = number.into(),
            "epochs" => changed.epochs = number.into(),
            "ops" => changed.ops = &scope.ops[..number.into()],
            "minsize" => changed.minsize = number,
            "resends" => changed.resends = number,
            "reads" => changed.reads = number,
            "crashes" => changed.crashes = number,
            "recreates" => changed.recreates = number,
            "shorts" => changed.shorts = number,
            "longs" => changed.longs = number,
            "lost_replies" => changed.lost_replies = number,
            "overtakes" => changed.overtakes = number,
            "duplicates" => changed.duplicates = number,
            "cuts" => changed.cuts = number,
            "fills" => changed.fills = number,
            "slow" => changed.slow = number == 1,
            "hears" => changed.hears = number == 1,
            "late_replies" => changed.late_replies = number == 1,
            other => panic!("a scope has no {other}"),
        }
    }
    Box::leak(Box::new(changed))
}

/// Minutes, in a release build; the rule that is hardest to find takes five million.
const STEPS: usize = 20_000_000;

fn limits_from_environment() -> Limits {
    let number = |name, default| variable(name).map_or(default, |n| usize::try_from(n).expect("fits"));
    Limits {
        states: number("PG_STATES", usize::MAX),
        transitions: number("PG_STEPS", STEPS),
        heal_every: number("PG_HEAL", 64),
    }
}

/// The smallest scopes, completely.
#[test]
fn nothing_breaks_within_the_smallest_scopes() {
    for scope in scopes::SHORT {
        let limits = Limits { states: usize::MAX, transitions: usize::MAX, heal_every: 16 };
        let outcome = explore(scope, limits, 1);
        println!("{}: {outcome}", scope.name);
        assert!(outcome.violation.is_none(), "{}: {outcome}\n{:#?}", scope.name, outcome.violation);
        assert!(outcome.complete, "{}: {outcome}", scope.name);
    }
}

/// `PG_SCOPE=r3 PG_STEPS=100000000 cargo test --release -p ashlar-core search::long -- --ignored --nocapture`; PG_WALK=1 for
/// random ways, PG_SEED for another order, PG_PLANT (with the feature `planted`) for a bug.
#[test]
#[ignore = "takes as long as it is told"]
fn long() {
    let name = std::env::var("PG_SCOPE").unwrap_or_default();
    #[cfg(feature = "planted")]
    crate::planted::plant(std::env::var("PG_PLANT").ok().and_then(|name| Bug::from_name(&name)));
    std::panic::set_hook(Box::new(|_| {}));
    for scope in scopes::all().filter(|scope| name.is_empty() || scope.name == name) {
        let search = if variable("PG_WALK").is_some() { walk } else { explore };
        let scope = adjusted(scope);
        let outcome = search(scope, limits_from_environment(), variable("PG_SEED").unwrap_or(1));
        println!("{}: {outcome}", scope.name);
        if let Some((_, way)) = &outcome.violation {
            show(scope, way);
            panic!("{}: {outcome}", scope.name);
        }
    }
}

/// Some seconds.
#[cfg(feature = "planted")]
const NEAR: usize = 300_000;

/// Each relaxed rule is found in the scope in which it matters. PG_PLANT names one of them, and shows the way to it.
#[cfg(feature = "planted")]
#[test]
#[ignore = "takes a minute"]
fn every_relaxed_rule_is_found() {
    std::panic::set_hook(Box::new(|_| {}));
    let only = std::env::var("PG_PLANT").ok();
    let mut missed = Vec::new();
    for (bug, scope) in scopes::grounds().filter(|(bug, _)| only.as_ref().is_none_or(|name| bug.name() == name)) {
        crate::planted::plant(Some(bug));
        let scope = adjusted(scope);
        let (limits, seed) = (limits_from_environment(), variable("PG_SEED").unwrap_or(1));
        // What lies near is found by going everywhere, what lies deep by going far.
        let near = explore(scope, Limits { transitions: NEAR, ..limits }, seed);
        let outcome = if near.violation.is_some() { near } else { walk(scope, limits, seed) };
        println!("{} in {}: {outcome}", bug.name(), scope.name);
        match &outcome.violation {
            Some((_, way)) if only.is_some() => show(scope, way),
            Some(_) => {}
            None => missed.push((bug.name(), scope.name)),
        }
        crate::planted::plant(None);
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
