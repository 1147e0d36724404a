//! Placement rules of a pool: which parts of a group (its copies or chunks) share a node of the tree, and which do not.
//!
//! Owns: the rules as values, how a pool's parameters become rules, and what follows from rules alone: whether they
//! contradict each other, and on which level no two parts meet. Does not own: the language (`language`), nor the choice
//! of OSDs (`place`).
//!
//! | parameter | rules |
//! | --- | --- |
//! | `failure_domain` | all parts on different nodes of that level |
//! | `level_placement` | by level, a character for each part: equal ones share a node, others do not; beside `failure_domain` |
//! | `raw_placement` | as written, in place of both |
//!
//! Whatever the rules say, the members of a group are different OSDs.

mod language;

use super::Pool;
use super::tree::{LEVEL_OSD, Levels};
use std::collections::BTreeSet;
use std::fmt;

/// How a rule compares a part's node with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `=`: one of them.
    Equal,
    /// `!=`: none of them.
    Different,
    /// `>`: after all of them in the order of names (of numbers, for OSDs).
    Later,
    /// `?=`: one of them if it can be so.
    Preferred,
}

/// What a node is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    /// The node of an earlier part, counted from 0 here, from 1 in the language.
    Part(usize),
    /// The node of that name.
    Node(String),
}

/// One rule of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Level of the tree on which nodes are compared.
    pub level: String,
    /// How.
    pub operator: Operator,
    /// With what; at least one.
    pub arguments: Vec<Argument>,
}

/// The rules of all parts of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// By part; a part without rules may be anywhere.
    pub parts: Vec<Vec<Rule>>,
}

impl Rule {
    fn of_parts(level: &str, operator: Operator, parts: impl Iterator<Item = usize>) -> Option<Rule> {
        let arguments: Vec<Argument> = parts.map(Argument::Part).collect();
        (!arguments.is_empty()).then(|| Rule { level: level.into(), operator, arguments })
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operator::Equal => "=",
            Operator::Different => "!=",
            Operator::Later => ">",
            Operator::Preferred => "?=",
        })
    }
}

impl Rules {
    /// The rules of a pool; an error says which parameter is wrong.
    pub fn of_pool(pool: &Pool, levels: &Levels) -> Result<Rules, String> {
        let size = usize::from(pool.pg_size);
        let rules = match (&pool.raw_placement, &pool.level_placement) {
            (Some(_), Some(_)) => {
                return Err("raw_placement takes the place of level_placement; leave one of them out".into());
            }
            (Some(text), None) => Rules::parse(text, size).map_err(|reason| format!("raw_placement: {reason}"))?,
            (None, pattern) => {
                let mut rules = Rules::different(&pool.failure_domain, size);
                for (level, classes) in language::parse_pattern(pattern.as_deref().unwrap_or(""), size)
                    .map_err(|reason| format!("level_placement: {reason}"))?
                {
                    rules.add_classes(&level, &classes);
                }
                rules
            }
        };
        rules.contradiction(levels).map_or(Ok(rules), Err)
    }

    /// All parts on different nodes of a level.
    pub fn different(level: &str, size: usize) -> Rules {
        if level == LEVEL_OSD {
            return Rules { parts: vec![Vec::new(); size] };
        }
        let rule = |part: usize| Rule::of_parts(level, Operator::Different, 0..part).into_iter().collect();
        Rules { parts: (0..size).map(rule).collect() }
    }

    /// Parts of the same class share a node of the level, others do not.
    fn add_classes(&mut self, level: &str, classes: &[char]) {
        for (part, class) in classes.iter().enumerate() {
            let others = |same: bool| (0..part).filter(move |other| (classes[*other] == *class) == same);
            // One rule for each: several arguments of one rule would mean any of them.
            let together = others(true).filter_map(|other| Rule::of_parts(level, Operator::Equal, [other].into_iter()));
            self.parts[part].extend(together);
            self.parts[part].extend(Rule::of_parts(level, Operator::Different, others(false)));
        }
    }

    /// The levels that rules name, in order.
    pub fn levels(&self) -> BTreeSet<&str> {
        self.parts.iter().flatten().map(|rule| rule.level.as_str()).collect()
    }

    /// The level of which it is enough to know: all parts are on different nodes of it, and that is all the rules say.
    pub fn only_level(&self) -> Option<&str> {
        let Some(last) = self.parts.iter().rev().find_map(|rules| rules.first()) else { return Some(LEVEL_OSD) };
        (*self == Rules::different(&last.level, self.parts.len())).then_some(last.level.as_str())
    }

    /// The coarsest of the rules' levels on which no two parts can meet; that of OSDs if there is no other.
    pub fn separating_level(&self, levels: &Levels) -> &str {
        let pairs = || (0..self.parts.len()).flat_map(|b| (0..b).map(move |a| (a, b)));
        let separates = |level: &&str| pairs().all(|(a, b)| self.differ(a, b, level, levels));
        let found: Vec<&str> = self.levels().into_iter().filter(separates).collect();
        let coarsest = |level: &&str| !found.iter().any(|other| levels.is_coarser(other, level));
        found.iter().copied().find(coarsest).unwrap_or(LEVEL_OSD)
    }

    /// Whether two parts are never on one node of a level.
    pub fn differ(&self, a: usize, b: usize, level: &str, levels: &Levels) -> bool {
        a != b && (level == LEVEL_OSD || self.separation(a, b, level, levels).is_some())
    }

    /// The level on which two parts are kept apart, if that keeps them apart on this level too.
    fn separation(&self, a: usize, b: usize, level: &str, levels: &Levels) -> Option<&str> {
        let at_or_above = |other: &&str| *other == level || levels.is_coarser(other, level);
        self.levels().into_iter().filter(at_or_above).find(|other| {
            let classes = self.classes(other, levels);
            let apart = |(part, rule): (usize, &Rule)| {
                let separates = matches!(rule.operator, Operator::Different | Operator::Later);
                rule.level == *other
                    && separates
                    && rule.arguments.iter().any(|argument| {
                        let pair = [classes.of(&Argument::Part(part)), classes.of(argument)];
                        let wanted = [classes.of(&Argument::Part(a)), classes.of(&Argument::Part(b))];
                        pair == wanted || pair == [wanted[1], wanted[0]]
                    })
            };
            self.all().any(apart) || classes.named_differently(a, b)
        })
    }

    /// All rules with their parts.
    fn all(&self) -> impl Iterator<Item = (usize, &Rule)> {
        self.parts.iter().enumerate().flat_map(|(part, rules)| rules.iter().map(move |rule| (part, rule)))
    }

    /// Who must share a node on a level, because a rule of that level or of a finer one says so.
    pub fn classes(&self, level: &str, levels: &Levels) -> Classes {
        let mut classes = Classes::new(self.parts.len());
        for (part, rule) in self.all() {
            let here = rule.level == level;
            if rule.operator != Operator::Equal || !(here || levels.is_coarser(level, &rule.level)) {
                continue;
            }
            if let [argument] = &rule.arguments[..]
                && (here || matches!(argument, Argument::Part(_)))
            {
                classes.join(part, argument);
            }
        }
        // Rules of several arguments bind only where all of these are one node.
        for (part, rule) in self.all().filter(|(_, rule)| rule.operator == Operator::Equal && rule.level == level) {
            let class = classes.of(&rule.arguments[0]);
            if class.is_some() && rule.arguments.iter().all(|argument| classes.of(argument) == class) {
                classes.join(part, &rule.arguments[0].clone());
            }
        }
        classes
    }

    /// What cannot be, whatever the OSDs: two parts that must and must not share a node.
    fn contradiction(&self, levels: &Levels) -> Option<String> {
        for (part, rule) in self.all() {
            let (level, classes) = (&rule.level, self.classes(&rule.level, levels));
            let own = classes.of(&Argument::Part(part));
            if classes.is_named_twice(part) {
                return Some(format!("part {} of a group cannot be on two nodes of level {level}", part + 1));
            }
            let apart = matches!(rule.operator, Operator::Different | Operator::Later);
            if let Some(other) = rule.arguments.iter().find(|argument| apart && classes.of(argument) == own) {
                let other = match other {
                    Argument::Part(other) => format!("part {}", other + 1),
                    Argument::Node(name) => format!("node \"{name}\""),
                };
                return Some(format!(
                    "part {} of a group cannot be on the same node of level {level} as {other}, as one rule says, and on \
                     another, as {rule} says; change one of them",
                    part + 1
                ));
            }
        }
        let osds = self.classes(LEVEL_OSD, levels);
        let same = |b: &usize| (0..*b).any(|a| osds.of(&Argument::Part(a)) == osds.of(&Argument::Part(*b)));
        let part = (0..self.parts.len()).find(same)?;
        Some(format!("part {} of a group cannot share its OSD with another part; name another level", part + 1))
    }
}

/// Parts and named nodes that are one node on a level.
#[derive(Clone, Debug)]
pub struct Classes {
    part: Vec<usize>,
    names: Vec<(String, usize)>,
    next: usize,
}

impl Classes {
    fn new(parts: usize) -> Classes {
        Classes { part: (0..parts).collect(), names: Vec::new(), next: parts }
    }

    /// The class of a part or name; `None`: nobody must be there.
    pub fn of(&self, argument: &Argument) -> Option<usize> {
        match argument {
            Argument::Part(part) => self.part.get(*part).copied(),
            Argument::Node(name) => self.names.iter().find(|(other, _)| other == name).map(|(_, class)| *class),
        }
    }

    fn join(&mut self, part: usize, argument: &Argument) {
        if let Argument::Node(name) = argument
            && self.of(argument).is_none()
        {
            self.names.push((name.clone(), self.next));
            self.next += 1;
        }
        let (Some(from), Some(to)) = (self.of(&Argument::Part(part)), self.of(argument)) else { return };
        let classes = self.part.iter_mut().chain(self.names.iter_mut().map(|(_, class)| class));
        classes.filter(|class| **class == from).for_each(|class| *class = to);
    }

    /// Whether two parts must be on nodes of different names.
    fn named_differently(&self, a: usize, b: usize) -> bool {
        let named = |part: usize| self.names.iter().any(|(_, class)| *class == self.part[part]);
        named(a) && named(b) && self.part[a] != self.part[b]
    }

    /// Whether a part must be on two nodes at the same time.
    fn is_named_twice(&self, part: usize) -> bool {
        self.names.iter().filter(|(_, class)| *class == self.part[part]).count() > 1
    }
}

#[cfg(test)]
mod tests;
