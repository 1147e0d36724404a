//! The placement tree: nodes such as hosts, racks and data centres, their levels, and the tags of OSDs.
//!
//! Owns: the values of `config/node_placement` and `config/placement_levels`, where an OSD is in the tree, and what is
//! wrong between the two keys. Does not own: what is wrong with one of them alone (`parse`), nor placement.

use crate::id::OsdId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Levels that exist without being named anywhere.
pub const LEVEL_OSD: &str = "osd";
/// See [`LEVEL_OSD`].
pub const LEVEL_HOST: &str = "host";
/// Rank of hosts, unless `config/placement_levels` says otherwise.
const HOST_RANK: u32 = 100;
/// Rank of OSDs, unless `config/placement_levels` says otherwise.
const OSD_RANK: u32 = 101;

/// `config/node_placement`: the tree, by node name; OSDs may be listed as `osd.N`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tree(pub BTreeMap<String, TreeNode>);

/// A node of the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeNode {
    /// Its level, such as `host`, `rack`, `dc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// Its parent; none: below the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
}

/// `config/placement_levels`: ranks of the tree's levels; lower ones are nearer to the root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Levels(pub BTreeMap<String, u32>);

impl Levels {
    /// The rank of a level; hosts and OSDs always have one.
    pub fn rank(&self, level: &str) -> Option<u32> {
        let usual = match level {
            LEVEL_HOST => Some(HOST_RANK),
            LEVEL_OSD => Some(OSD_RANK),
            _ => None,
        };
        self.0.get(level).copied().or(usual)
    }

    /// Whether nodes of one level contain those of another. A level without a rank is above hosts; of two such, nothing
    /// is known.
    pub fn is_coarser(&self, one: &str, other: &str) -> bool {
        match (self.rank(one), self.rank(other)) {
            (Some(one), Some(other)) => one < other,
            (None, Some(other)) => Some(other) >= self.rank(LEVEL_HOST),
            (_, None) => false,
        }
    }
}

/// Tags of OSDs, in JSON a word or a list of words.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "OneOrMany")]
pub struct Tags(pub BTreeSet<String>);

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a tag or a list of tags")]
enum OneOrMany {
    One(String),
    Many(BTreeSet<String>),
}

impl From<OneOrMany> for Tags {
    fn from(value: OneOrMany) -> Tags {
        match value {
            OneOrMany::One(tag) => Tags(BTreeSet::from([tag])),
            OneOrMany::Many(tags) => Tags(tags),
        }
    }
}

impl Tags {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of `wanted` are among them.
    pub fn include(&self, wanted: &Tags) -> bool {
        wanted.0.is_subset(&self.0)
    }

    /// What is wrong with them.
    pub fn check(&self) -> Result<(), String> {
        let usable = |tag: &String| !tag.is_empty() && tag.len() <= 255 && !tag.contains([',', ' ']);
        let bad = self.0.iter().find(|tag| !usable(tag) || tag.chars().any(char::is_control));
        bad.map_or(Ok(()), |tag| {
            Err(format!("tag {tag:?} is not usable; use 1 to 255 bytes without commas and spaces"))
        })
    }
}

impl fmt::Display for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tags: Vec<&str> = self.0.iter().map(String::as_str).collect();
        f.write_str(&tags.join(","))
    }
}

/// A node above an OSD (or the OSD itself).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its level, if it has one.
    pub level: Option<&'a str>,
}

/// The nodes above an OSD, from below; without the OSD itself.
///
/// The tree says where `osd.N` or its host is; what the tree does not name is below the root. An OSD that the tree
/// places nowhere is on the host that it names itself.
pub fn path<'a>(tree: Option<&'a Tree>, osd: OsdId, host: &'a str) -> Vec<Step<'a>> {
    let node = |name: &str| tree.and_then(|tree| tree.0.get_key_value(name));
    let listed = node(&format!("osd.{osd}")).and_then(|(_, node)| node.parent.as_deref());
    let mut next = Some(listed.unwrap_or(host));
    let mut steps = Vec::new();
    while let Some(name) = next {
        let found = node(name).map(|(_, node)| node);
        let own_level = (listed.is_none() && steps.is_empty()).then_some(LEVEL_HOST);
        steps.push(Step { name, level: found.and_then(|node| node.level.as_deref()).or(own_level) });
        next = found.and_then(|node| node.parent.as_deref());
    }
    steps
}

/// The node of a level that an OSD belongs to.
///
/// On other levels than `osd` and `host`, OSDs without a node of that level share one without a name: they might well
/// share a fate. On level `host` they are on the host that they name themselves.
pub fn node_of(tree: Option<&Tree>, osd: OsdId, host: &str, level: &str) -> String {
    if level == LEVEL_OSD {
        return format!("osd.{osd}");
    }
    let steps = path(tree, osd, host);
    match steps.iter().find(|step| step.level == Some(level)) {
        Some(step) => step.name.into(),
        None if level == LEVEL_HOST => host.into(),
        None => String::new(),
    }
}

/// Whether an OSD is at or below a node.
pub fn is_below(tree: Option<&Tree>, osd: OsdId, host: &str, node: &str) -> bool {
    node == format!("osd.{osd}") || node == host || path(tree, osd, host).iter().any(|step| step.name == node)
}

/// What is wrong between the tree and the ranks of its levels: a node must be below one of a coarser level.
pub fn check_levels_of(tree: &Tree, levels: &Levels) -> Result<(), String> {
    for (name, node) in &tree.0 {
        let level = if name.starts_with("osd.") { Some(LEVEL_OSD) } else { node.level.as_deref() };
        let mut above = node.parent.as_deref();
        while let Some(parent) = above.and_then(|parent| tree.0.get_key_value(parent)) {
            if let (Some(own), Some(other)) = (level, parent.1.level.as_deref())
                && let (Some(own_rank), Some(other_rank)) = (levels.rank(own), levels.rank(other))
                && own_rank <= other_rank
            {
                return Err(format!(
                    "'{name}' of level {own} ({own_rank}) is below '{}' of level {other} ({other_rank}); correct the tree, \
                     or the ranks of the levels: those nearer to the root have lower ones",
                    parent.0
                ));
            }
            above = parent.1.parent.as_deref();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(json: &str) -> Tree {
        serde_json::from_str(json).expect("a tree")
    }

    #[test]
    fn without_a_tree_the_host_counts() {
        assert_eq!(node_of(None, OsdId(1), "h1", "host"), "h1");
        assert_eq!(node_of(None, OsdId(1), "h1", "osd"), "osd.1");
        assert_eq!(node_of(None, OsdId(1), "h1", "rack"), "");
    }

    #[test]
    fn the_tree_is_climbed_from_the_host_or_from_the_osd_itself() {
        let tree = tree(
            r#"{"r1":{"level":"rack"},"r2":{"level":"rack"},"h1":{"parent":"r1"},"h9":{"level":"host","parent":"r2"},
                "osd.7":{"parent":"h9"},"osd.8":{"parent":"r2"}}"#,
        );
        let of = |osd, level| node_of(Some(&tree), OsdId(osd), "h1", level);
        assert_eq!((of(1, "host"), of(1, "rack")), ("h1".into(), "r1".into()));
        assert_eq!((of(7, "host"), of(7, "rack")), ("h9".into(), "r2".into()));
        assert_eq!((of(8, "host"), of(8, "rack")), ("h1".into(), "r2".into()));
        assert_eq!(of(1, "dc"), "");
        let below = |osd, node| is_below(Some(&tree), OsdId(osd), "h1", node);
        assert!(below(1, "r1") && below(7, "r2") && below(7, "osd.7") && below(1, "h1"));
        assert!(!below(1, "r2") && !below(7, "r1") && !below(7, "osd.1"));
    }

    #[test]
    fn levels_are_ranked_and_hosts_and_osds_always_are() {
        let levels = Levels(BTreeMap::from([("dc".into(), 90), ("rack".into(), 95)]));
        assert!(
            levels.is_coarser("dc", "rack") && levels.is_coarser("rack", "host") && levels.is_coarser("host", "osd")
        );
        assert!(levels.is_coarser("room", "host") && levels.is_coarser("room", "osd"));
        assert!(
            !levels.is_coarser("room", "dc") && !levels.is_coarser("dc", "room") && !levels.is_coarser("host", "host")
        );
    }

    #[test]
    fn a_tree_that_is_upside_down_is_refused() {
        let levels = Levels(BTreeMap::from([("dc".into(), 90), ("rack".into(), 95)]));
        let good =
            tree(r#"{"d":{"level":"dc"},"x":{"parent":"d"},"r":{"level":"rack","parent":"x"},"osd.1":{"parent":"r"}}"#);
        assert_eq!(check_levels_of(&good, &levels), Ok(()));
        let bad = tree(r#"{"r":{"level":"rack"},"x":{"parent":"r"},"d":{"level":"dc","parent":"x"}}"#);
        assert!(check_levels_of(&bad, &levels).is_err_and(|text| text.contains("'d' of level dc (90) is below 'r'")));
    }

    #[test]
    fn tags_are_a_word_or_a_list() {
        let tags = |json: &str| serde_json::from_str::<Tags>(json).map_err(|error| error.to_string());
        assert_eq!(tags(r#""ssd""#), tags(r#"["ssd"]"#));
        let both = tags(r#"["ssd","fast"]"#).expect("a list");
        assert!(both.include(&tags(r#""ssd""#).expect("a word")) && !Tags::default().include(&both));
        assert_eq!(both.to_string(), "fast,ssd");
        assert!(tags("5").is_err_and(|text| text.contains("a tag or a list of tags")));
        assert!(Tags(BTreeSet::from(["a b".into()])).check().is_err());
    }
}
