//! The rules of a problem in terms of its OSDs: everything by index, ready to be asked millions of times.
//!
//! Owns: who may be in which part beside whom, and which wishes that leaves unmet. Does not own who is where (`board`).
//! A rule that refers to a part that nobody is in says nothing.

use super::Candidate;
use crate::map::rules::{Argument, Operator, Rule, Rules};
use std::collections::{BTreeMap, BTreeSet};

/// How a part's node compares with that of another part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Same,
    Other,
    After,
    Before,
}

/// A relation to one other part.
#[derive(Clone, Copy, Debug)]
struct Pair {
    other: usize,
    level: usize,
    relation: Relation,
}

/// One of several nodes.
#[derive(Clone, Debug)]
struct AnyOf {
    part: usize,
    level: usize,
    nodes: Vec<u32>,
    parts: Vec<usize>,
}

/// What the rules say of a part.
#[derive(Clone, Debug, Default)]
struct Part {
    /// By OSD, what constants allow.
    fits: Vec<bool>,
    pairs: Vec<Pair>,
    /// Rules with several arguments, of this part or naming it.
    any_of: Vec<AnyOf>,
    wishes: Vec<AnyOf>,
    lead: Option<Lead>,
}

/// Later parts that must be in the same node as this one, of which it is the first.
#[derive(Clone, Debug)]
pub struct Lead {
    /// On this level.
    pub level: usize,
    /// They are on different nodes of this one; `None`: only on different OSDs.
    pub spread: Option<usize>,
    /// The parts.
    pub followers: Vec<usize>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Terms {
    /// By level and OSD: its node, in the order of names.
    nodes: Vec<Vec<u32>>,
    /// Nodes of each level.
    counts: Vec<usize>,
    parts: Vec<Part>,
    /// OSDs of one kind are on the same nodes and fit the same parts: the rules cannot tell them apart.
    kind_of: Vec<usize>,
    kinds: usize,
    has_wishes: bool,
    /// By level: how many parts of a group may share a node.
    capacity: Vec<usize>,
}

impl Terms {
    /// The rules in terms of these OSDs, in this order; `levels` names what candidates' nodes are of.
    pub fn new(rules: &Rules, levels: &[String], candidates: &[&Candidate]) -> Terms {
        let mut namer = Namer::new(rules, levels, candidates);
        let nodes: Vec<Vec<u32>> = (0..levels.len()).map(|level| namer.nodes_of(level, candidates)).collect();
        let counts: Vec<usize> = namer.names.iter().map(BTreeMap::len).collect();
        let part = Part { fits: vec![true; candidates.len()], ..Part::default() };
        let parts = vec![part; rules.parts.len()];
        let has_wishes = rules.parts.iter().flatten().any(|rule| rule.operator == Operator::Preferred);
        let capacity = vec![rules.parts.len(); levels.len()];
        let mut terms = Terms { nodes, counts, parts, kind_of: Vec::new(), kinds: 0, has_wishes, capacity };
        for (number, rules) in rules.parts.iter().enumerate() {
            rules.iter().for_each(|rule| terms.add(number, rule, &mut namer));
        }
        terms.find_kinds(candidates.len());
        terms.find_leads();
        terms.capacity = (0..levels.len()).map(|level| terms.parts_on_a_node(level)).collect();
        terms
    }

    /// Members of a group.
    pub fn size(&self) -> usize {
        self.parts.len()
    }

    /// OSDs.
    pub fn osds(&self) -> usize {
        self.kind_of.len()
    }

    /// Levels that rules name.
    pub fn levels(&self) -> usize {
        self.nodes.len()
    }

    /// Nodes of a level.
    pub fn node_count(&self, level: usize) -> usize {
        self.counts[level]
    }

    /// The node that an OSD is on.
    pub fn node(&self, level: usize, osd: usize) -> usize {
        index(self.nodes[level][osd])
    }

    /// How many members of a group may share a node of a level.
    pub fn capacity(&self, level: usize) -> usize {
        self.capacity[level]
    }

    /// See [`Terms::kind_count`].
    pub fn kind(&self, osd: usize) -> usize {
        self.kind_of[osd]
    }

    /// Kinds of OSDs: the rules cannot tell those of one kind apart.
    pub fn kind_count(&self) -> usize {
        self.kinds
    }

    /// Whether there are rules that are kept only where that is possible.
    pub fn has_wishes(&self) -> bool {
        self.has_wishes
    }

    /// The parts that must follow where this one goes.
    pub fn lead(&self, part: usize) -> Option<&Lead> {
        self.parts[part].lead.as_ref()
    }

    /// Parts that share a node with this one on the level of its lead, itself included.
    pub fn tied(&self, part: usize) -> Vec<usize> {
        let leads = (0..self.size()).filter_map(|leader| Some((leader, self.lead(leader)?)));
        let widest = leads
            .filter(|(leader, lead)| *leader == part || lead.followers.contains(&part))
            .max_by_key(|(leader, lead)| (lead.followers.len(), usize::MAX - leader));
        match widest {
            Some((leader, lead)) => std::iter::once(leader).chain(lead.followers.iter().copied()).collect(),
            None => vec![part],
        }
    }

    /// Whether an OSD may be in a part beside the others; `at` says who is in those.
    pub fn admits(&self, part: usize, osd: usize, at: impl Fn(usize) -> Option<usize>) -> bool {
        let terms = &self.parts[part];
        if !terms.fits[osd] || (0..self.size()).any(|other| other != part && at(other) == Some(osd)) {
            return false;
        }
        let pairs = terms.pairs.iter().all(|pair| at(pair.other).is_none_or(|member| self.is_right(pair, osd, member)));
        pairs && terms.any_of.iter().all(|rule| self.is_met(rule, |p| if p == part { Some(osd) } else { at(p) }))
    }

    /// How many wishes of a part would be unmet with that OSD in it.
    pub fn unmet(&self, part: usize, osd: usize, at: impl Fn(usize) -> Option<usize>) -> usize {
        let at = |other| if other == part { Some(osd) } else { at(other) };
        self.parts[part].wishes.iter().filter(|wish| !self.is_met(wish, at)).count()
    }

    /// How many wishes of a whole group are unmet.
    pub fn all_unmet(&self, at: impl Fn(usize) -> Option<usize>) -> usize {
        if !self.has_wishes {
            return 0;
        }
        (0..self.size()).filter_map(|part| Some(self.unmet(part, at(part)?, &at))).sum()
    }

    fn is_right(&self, pair: &Pair, osd: usize, member: usize) -> bool {
        let nodes = &self.nodes[pair.level];
        let order = nodes[osd].cmp(&nodes[member]);
        match pair.relation {
            Relation::Same => order.is_eq(),
            Relation::Other => order.is_ne(),
            Relation::After => order.is_gt(),
            Relation::Before => order.is_lt(),
        }
    }

    fn is_met(&self, rule: &AnyOf, at: impl Fn(usize) -> Option<usize>) -> bool {
        let Some(osd) = at(rule.part) else { return true };
        let node = self.nodes[rule.level][osd];
        let others = || rule.parts.iter().map(|part| at(*part).map(|osd| self.nodes[rule.level][osd]));
        rule.nodes.contains(&node) || others().any(|other| other.is_none() || other == Some(node))
    }

    fn add(&mut self, part: usize, rule: &Rule, namer: &mut Namer) {
        let level = namer.levels[rule.level.as_str()];
        let node = |argument: &Argument| match argument {
            Argument::Node(name) => namer.names[level].get(&sort_key(name)).copied(),
            Argument::Part(_) => None,
        };
        let earlier = |argument: &Argument| match argument {
            Argument::Part(part) => Some(*part),
            Argument::Node(_) => None,
        };
        let nodes: Vec<u32> = rule.arguments.iter().filter_map(node).collect();
        let parts: Vec<usize> = rule.arguments.iter().filter_map(earlier).collect();
        match rule.operator {
            Operator::Different => self.add_pairs(part, level, &nodes, &parts, Relation::Other),
            Operator::Later => self.add_pairs(part, level, &nodes, &parts, Relation::After),
            Operator::Preferred => self.parts[part].wishes.push(AnyOf { part, level, nodes, parts }),
            Operator::Equal if parts.is_empty() => {
                let of_level = &self.nodes[level];
                let fits = self.parts[part].fits.iter_mut().zip(of_level);
                fits.for_each(|(fits, node)| *fits &= nodes.contains(node));
            }
            Operator::Equal if parts.len() == 1 && nodes.is_empty() => {
                self.add_pair(part, parts[0], level, Relation::Same);
            }
            Operator::Equal => {
                let rule = AnyOf { part, level, nodes, parts };
                let concerned: BTreeSet<usize> = rule.parts.iter().copied().chain([part]).collect();
                concerned.into_iter().for_each(|part| self.parts[part].any_of.push(rule.clone()));
            }
        }
    }

    fn add_pairs(&mut self, part: usize, level: usize, nodes: &[u32], parts: &[usize], relation: Relation) {
        let allowed = |node: u32| match relation {
            Relation::After => nodes.iter().all(|other| node > *other),
            _ => !nodes.contains(&node),
        };
        let of_level = &self.nodes[level];
        let fits = self.parts[part].fits.iter_mut().zip(of_level);
        fits.for_each(|(fits, node)| *fits &= allowed(*node));
        parts.iter().for_each(|other| self.add_pair(part, *other, level, relation));
    }

    fn add_pair(&mut self, part: usize, other: usize, level: usize, relation: Relation) {
        let back = match relation {
            Relation::After => Relation::Before,
            same => same,
        };
        self.parts[part].pairs.push(Pair { other, level, relation });
        self.parts[other].pairs.push(Pair { other: part, level, relation: back });
    }

    fn find_kinds(&mut self, osds: usize) {
        let mut known: BTreeMap<(Vec<u32>, Vec<bool>), usize> = BTreeMap::new();
        for osd in 0..osds {
            let nodes = self.nodes.iter().map(|level| level[osd]).collect();
            let fits = self.parts.iter().map(|part| part.fits[osd]).collect();
            let next = known.len();
            self.kind_of.push(*known.entry((nodes, fits)).or_insert(next));
        }
        self.kinds = known.len();
    }

    /// Parts that share a part's node on a level, by its pairs and theirs.
    fn same_node(&self, part: usize, level: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::from([part]);
        let mut open = vec![part];
        while let Some(part) = open.pop() {
            let same = self.parts[part].pairs.iter().filter(|p| p.level == level && p.relation == Relation::Same);
            open.extend(same.map(|pair| pair.other).filter(|other| found.insert(*other)));
        }
        found
    }

    /// The level with the fewest nodes is the coarsest.
    fn find_leads(&mut self) {
        let mut order: Vec<usize> = (0..self.levels()).collect();
        order.sort_by_key(|level| self.counts[*level]);
        for part in 0..self.size() {
            let leads = |level: &usize| {
                let class = self.same_node(part, *level);
                class.len() > 1 && class.first() == Some(&part)
            };
            let Some(level) = order.iter().copied().find(leads) else { continue };
            let followers: Vec<usize> = self.same_node(part, level).into_iter().skip(1).collect();
            let apart = |p: &Pair| p.relation == Relation::Other && (p.other == part || followers.contains(&p.other));
            let of_followers = followers.iter().flat_map(|follower| &self.parts[*follower].pairs);
            let spread = of_followers.filter(|pair| apart(pair)).map(|pair| pair.level).min_by_key(|l| self.counts[*l]);
            self.parts[part].lead = Some(Lead { level, spread, followers });
        }
    }

    /// The most parts among which no two are kept on different nodes of a level (seen from one part: enough for rules
    /// that divide the parts into classes).
    fn parts_on_a_node(&self, level: usize) -> usize {
        let apart = |part: usize| {
            let pairs = self.parts[part].pairs.iter();
            let others: BTreeSet<usize> =
                pairs.filter(|p| p.level == level && p.relation != Relation::Same).map(|p| p.other).collect();
            self.size() - others.len()
        };
        (0..self.size()).map(apart).max().unwrap_or(0)
    }
}

/// Numbers nodes in the order of their names.
struct Namer<'a> {
    levels: BTreeMap<&'a str, usize>,
    names: Vec<BTreeMap<SortKey, u32>>,
}

/// OSDs are ordered by number, other nodes by name.
type SortKey = (u32, String);

fn sort_key(name: &str) -> SortKey {
    let number = name.strip_prefix("osd.").and_then(|digits| digits.parse().ok());
    number.map_or_else(|| (0, name.into()), |number| (number, String::new()))
}

impl<'a> Namer<'a> {
    fn new(rules: &Rules, levels: &'a [String], candidates: &[&Candidate]) -> Namer<'a> {
        let numbers = levels.iter().enumerate().map(|(number, level)| (level.as_str(), number)).collect();
        let mut names: Vec<BTreeMap<SortKey, u32>> = vec![BTreeMap::new(); levels.len()];
        let mut namer = |level: usize, name: &str| {
            names[level].insert(sort_key(name), 0);
        };
        candidates.iter().for_each(|c| c.nodes.iter().enumerate().for_each(|(level, name)| namer(level, name)));
        for rule in rules.parts.iter().flatten() {
            let level = levels.iter().position(|level| *level == rule.level).expect("placement: rules of known levels");
            for argument in &rule.arguments {
                if let Argument::Node(name) = argument {
                    namer(level, name);
                }
            }
        }
        for level in &mut names {
            level.values_mut().zip(0..).for_each(|(number, next)| *number = next);
        }
        Namer { levels: numbers, names }
    }

    fn nodes_of(&mut self, level: usize, candidates: &[&Candidate]) -> Vec<u32> {
        candidates.iter().map(|candidate| self.names[level][&sort_key(&candidate.nodes[level])]).collect()
    }
}

/// A node's number as an index.
fn index(number: u32) -> usize {
    usize::try_from(number).expect("placement: node numbers fit")
}
