//! What the cluster map says that a pool's placement follows from.
//!
//! Owns: which OSDs a pool may use, how much they weigh, where they are; and what is wrong between the pool, the tree and
//! its levels. Does not own: what is wrong with one of them alone (`parse`), nor the placement.

use super::{Candidate, Problem};
use crate::id::OsdId;
use crate::map::rules::{Argument, Operator, Rules};
use crate::map::tree::{self, LEVEL_HOST, LEVEL_OSD, Levels};
use crate::map::{ClusterMap, OsdRecord, Pool};

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Survey {
    /// The pool's rules.
    pub rules: Rules,
    /// The levels that they name.
    pub levels: Vec<String>,
    /// The OSDs that may be used.
    pub candidates: Vec<Candidate>,
    /// See [`Pool::max_osd_combinations`].
    pub max_combinations: u32,
}

impl Survey {
    /// Of a pool; an error says what the map does not allow, and what to do.
    pub fn of(map: &ClusterMap, pool: &Pool) -> Result<Survey, String> {
        let ranks = map.levels();
        if let Some(tree) = map.tree() {
            tree::check_levels_of(tree, &ranks)?;
        }
        let rules = Rules::of_pool(pool, &ranks)?;
        check_names(map, &ranks, &rules, pool)?;
        let levels: Vec<String> = rules.levels().into_iter().map(Into::into).collect();
        let candidate = |(osd, record)| candidate(map, pool, &levels, osd, record);
        let candidates = map.osd_records().filter_map(candidate).collect();
        Ok(Survey { rules, levels, candidates, max_combinations: pool.max_osd_combinations })
    }

    /// The problem, given where groups are now.
    pub fn problem<'a>(&'a self, present: &'a [Vec<Option<OsdId>>], seed: u64) -> Problem<'a> {
        let Survey { rules, levels, candidates, max_combinations } = self;
        Problem { candidates, levels, rules, present, max_combinations: *max_combinations, seed }
    }
}

fn candidate(map: &ClusterMap, pool: &Pool, levels: &[String], osd: OsdId, record: &OsdRecord) -> Option<Candidate> {
    let config = map.osd_config(osd);
    let weight = config.reweight * mebibytes(record.size_bytes);
    let strict = record.immediate_commit >= pool.immediate_commit;
    let below = pool.root_node.as_ref().is_none_or(|root| tree::is_below(map.tree(), osd, &record.host, root));
    let usable = weight > 0.0 && !record.out && strict && below && config.tags.include(&pool.osd_tags);
    let nodes = || levels.iter().map(|level| tree::node_of(map.tree(), osd, &record.host, level));
    usable.then(|| Candidate { osd, weight, nodes: nodes().collect() })
}

/// A size as a weight; exact enough up to 4 EiB.
fn mebibytes(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes >> 20).unwrap_or(u32::MAX).max(1))
}

/// Level on which no two members of a group meet: where others stand in for members that are down, they keep to it.
pub fn acting_level(map: &ClusterMap, pool: &Pool) -> String {
    match Rules::of_pool(pool, &map.levels()) {
        Ok(rules) if pool.raw_placement.is_some() => rules.separating_level(&map.levels()).into(),
        _ => pool.failure_domain.clone(),
    }
}

/// Levels and nodes that a pool names must exist.
fn check_names(map: &ClusterMap, ranks: &Levels, rules: &Rules, pool: &Pool) -> Result<(), String> {
    let named = rules.levels().into_iter().chain([pool.failure_domain.as_str()]);
    if let Some(unknown) = named.into_iter().find(|level| !is_level(map, ranks, level)) {
        return Err(format!(
            "there is no level '{unknown}'; name it in config/placement_levels and give nodes of the tree that level, or \
             use another (host and osd always exist)"
        ));
    }
    let wanted = [Operator::Equal, Operator::Preferred];
    for rule in rules.parts.iter().flatten().filter(|rule| wanted.contains(&rule.operator)) {
        for argument in &rule.arguments {
            if let Argument::Node(name) = argument
                && !is_node(map, &rule.level, name)
            {
                return Err(format!(
                    "there is no node '{name}' of level {}; add it to config/node_placement or correct the rule",
                    rule.level
                ));
            }
        }
    }
    match &pool.root_node {
        Some(root) if !is_known(map, root) => {
            Err(format!("root_node '{root}' is no node of the tree; add it to config/node_placement or correct it"))
        }
        _ => Ok(()),
    }
}

fn is_level(map: &ClusterMap, ranks: &Levels, level: &str) -> bool {
    let in_tree = || map.tree().is_some_and(|tree| tree.0.values().any(|node| node.level.as_deref() == Some(level)));
    ranks.rank(level).is_some() || in_tree()
}

fn is_node(map: &ClusterMap, level: &str, name: &str) -> bool {
    let listed = map.tree().and_then(|tree| tree.0.get(name)).is_some_and(|node| node.level.as_deref() == Some(level));
    let host = || level == LEVEL_HOST && is_known(map, name);
    let osd = || level == LEVEL_OSD && map.osd_records().any(|(osd, _)| name == format!("osd.{osd}"));
    listed || host() || osd()
}

/// Whether the tree or some OSD names a node.
fn is_known(map: &ClusterMap, name: &str) -> bool {
    let of_osds = || map.osd_records().any(|(osd, record)| record.host == name || name == format!("osd.{osd}"));
    map.tree().is_some_and(|tree| tree.0.contains_key(name)) || of_osds()
}

/// Whether an OSD is one of those that should be primaries.
pub fn is_affine(map: &ClusterMap, pool: &Pool, osd: OsdId) -> bool {
    !pool.primary_affinity_tags.is_empty() && map.osd_config(osd).tags.include(&pool.primary_affinity_tags)
}
