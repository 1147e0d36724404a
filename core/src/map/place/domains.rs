//! Failure domains: which node of the tree an OSD belongs to on a level.

use crate::id::OsdId;
use crate::map::Tree;
use crate::map::parse::{LEVEL_HOST, LEVEL_OSD};

/// The failure domain of an OSD on a level.
///
/// The tree says where `osd.N` or its host is; what the tree does not name is below the root. On level `host` an OSD
/// that the tree places nowhere is on the host that it names itself. On other levels, OSDs without a node of that
/// level share one domain without a name: they might well share a fate.
pub fn domain(tree: Option<&Tree>, osd: OsdId, host: &str, level: &str) -> String {
    let own_name = format!("osd.{osd}");
    if level == LEVEL_OSD {
        return own_name;
    }
    let listed = tree.is_some_and(|tree| tree.0.get(&own_name).is_some_and(|node| node.parent.is_some()));
    let mut name = if listed { own_name.as_str() } else { host };
    loop {
        let node = tree.and_then(|tree| tree.0.get(name));
        let own_level = if name == host && !listed { Some(LEVEL_HOST) } else { None };
        if node.and_then(|node| node.level.as_deref()).or(own_level) == Some(level) {
            return name.to_string();
        }
        match node.and_then(|node| node.parent.as_deref()) {
            Some(parent) => name = parent,
            None if level == LEVEL_HOST => return host.to_string(),
            None => return String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(json: &str) -> Tree {
        serde_json::from_str(json).expect("a tree")
    }

    #[test]
    fn without_a_tree_the_host_counts() {
        assert_eq!(domain(None, OsdId(1), "h1", "host"), "h1");
        assert_eq!(domain(None, OsdId(1), "h1", "osd"), "osd.1");
        assert_eq!(domain(None, OsdId(1), "h1", "rack"), "");
    }

    #[test]
    fn the_tree_is_climbed_from_the_host_or_from_the_osd_itself() {
        let tree = tree(
            r#"{"r1":{"level":"rack"},"r2":{"level":"rack"},"h1":{"parent":"r1"},"h9":{"level":"host","parent":"r2"},
                "osd.7":{"parent":"h9"},"osd.8":{"parent":"r2"}}"#,
        );
        let of = |osd, level| domain(Some(&tree), OsdId(osd), "h1", level);
        assert_eq!((of(1, "host"), of(1, "rack")), ("h1".into(), "r1".into()));
        assert_eq!((of(7, "host"), of(7, "rack")), ("h9".into(), "r2".into()));
        assert_eq!((of(8, "host"), of(8, "rack")), ("h1".into(), "r2".into()));
        assert_eq!(of(1, "dc"), "");
    }
}
